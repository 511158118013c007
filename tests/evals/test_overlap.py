"""Appendix C: which examples the training text holds, by N words in a row."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlap_texts import LONG, OTHER, asked, documents, filler, first_words, of_a_passage

from rein.evals import overlap as overlap_module
from rein.evals import published
from rein.evals.contamination import ContaminationConfig, is_synthetic, read_problems
from rein.evals.overlap import Example, Found, analyse, gram_words, n_words, tables_of
from rein.text.grams import Group, find, gather, grouped, normalise


def dirty(examples: list[Example], *texts: str, synthetic: bool = False) -> list[bool]:
    names = frozenset({"toy"}) if synthetic else frozenset[str]()
    return analyse({"toy": examples}, documents(*texts), synthetic=names)["toy"].dirty_E.tolist()


# ------------------------------------------------------------------------------------------------------------- N


@pytest.mark.parametrize(
    ("lengths", "n"),
    [
        ([9] * 20, 9),
        ([2] * 20, 8),
        ([40] * 20, 13),
        ([9] * 2 + [30] * 18, 9),
        ([9] + [12] * 10, 9),
        ([3] + [12] * 99, 12),
        ([], 8),
    ],
)
def test_n_is_the_fifth_percentile_of_lengths_between_8_and_13(lengths, n):
    assert gram_words(lengths) == n


def test_n_may_be_as_low_as_2_on_synthetic_tasks():
    assert [gram_words([length], synthetic=True) for length in (1, 2, 7, 20)] == [2, 2, 7, 13]


def test_n_counts_the_words_of_the_example_as_it_is_put_to_a_model():
    own = [Example(question="one two three four five six seven", answer="eight nine")] * 20
    as_asked = [Example(one.question, "", one.answer, asked_words=11) for one in own]
    assert tables_of({"own": own, "asked": as_asked}).n == {"own": 9, "asked": 11}


def test_n_of_the_released_sets_is_that_of_table_c1(shared_data):
    names = (
        "arc_easy",
        "arc_challenge",
        "openbookqa",
        "piqa",
        "cb",
        "rte",
        "wic",
        "symbol_insertion",
        "reversed_words",
    )
    found, skipped = read_problems(ContaminationConfig(tasks=names, data=(shared_data,)))
    assert not skipped
    synthetic = frozenset(filter(is_synthetic, names))
    assert tables_of({task: one.examples for task, one in found.items()}, synthetic).n == {
        task: published.overlaps()[one.published].n for task, one in found.items()
    }


# ------------------------------------------------------------------------------------------------ clean or dirty


def test_a_planted_example_is_dirty_and_another_one_clean():
    text = f"{filler(300)} {LONG} {filler(300, seed=1)}"
    assert dirty(asked(LONG, OTHER), text) == [True, False]


@pytest.mark.parametrize("change", [str.upper, lambda t: t.replace(" ", "\n— "), lambda t: re.sub(r"[,.]", " ?!", t)])
def test_case_punctuation_and_line_ends_hide_nothing(change):
    assert dirty(asked(LONG, OTHER), change(LONG)) == [True, False]


def test_thirteen_words_in_common_are_a_collision_and_twelve_are_none():
    examples = asked(LONG)
    assert dirty(examples, f"{filler(40)} {first_words(LONG, 13)} {filler(40)}") == [True]
    assert dirty(examples, f"{filler(40)} {first_words(LONG, 12)} {filler(40)}") == [False]


def test_words_of_two_documents_are_no_gram():
    words = LONG.split()
    assert dirty(asked(LONG), " ".join(words[:10]), " ".join(words[10:20])) == [False]


def test_an_example_shorter_than_n_is_dirty_where_all_of_it_is_found():
    examples = [Example(question="Who wrote the Odyssey?", answer="Homer"), *asked(LONG)]
    assert dirty(examples, f"{filler(20)} who wrote the odyssey: Homer {filler(20)}") == [True, False]
    assert dirty(examples, f"{filler(20)} who wrote the Odyssey {filler(20)}") == [False, False]


def test_an_example_without_words_is_clean():
    assert dirty([Example(question="?!", answer="…"), Example()], LONG) == [False, False]


def test_a_synthetic_example_of_two_words_is_dirty_where_both_stand_together():
    examples = [Example(question="asinoc =", answer="casino")]
    assert dirty(examples, "asinoc = casino", synthetic=True) == [True]
    assert dirty(examples, "casino asinoc, or so", synthetic=True) == [False]


def test_each_task_has_an_n_of_its_own_in_one_pass():
    short = [Example(question=first_words(OTHER, 9))] * 20
    text = first_words(OTHER, 9) + " " + filler(9) + " " + first_words(LONG, 12)
    found = analyse({"short": short, "long": asked(LONG)}, documents(text))
    assert [found[task].n for task in ("short", "long")] == [9, 13]
    assert found["short"].dirty_E.all()
    assert not found["long"].dirty_E.any()


# ---------------------------------------------------------------------------------- passages, questions, answers


def test_a_passage_from_the_web_is_told_apart_from_a_question_in_the_training_text():
    questions = [of_a_passage(OTHER), of_a_passage("What had been borrowed so very many years ago by one of these men")]
    found = analyse({"toy": questions}, documents(f"{filler(30)} {LONG}", f"{OTHER} {filler(30)}"))["toy"]
    assert found.passage_E.tolist() == [True, True]
    assert found.asked_E.tolist() == [True, False]


def test_a_gram_from_the_passage_into_the_question_counts_as_the_question():
    example = of_a_passage("Was it the net that they had quarrelled over for such a long time")
    text = " ".join([*LONG.split()[-9:], *example.question.split()[:4]])
    found = analyse({"toy": [example]}, documents(text))["toy"]
    assert (found.passage_E.tolist(), found.asked_E.tolist()) == ([False], [True])


def test_a_gram_from_the_question_into_the_answer_counts():
    example = Example(
        question="Which of the fishermen had lent his net", answer="the taller of the two, who had a boat"
    )
    found = analyse({"toy": [example]}, documents(f"{example.question}? {example.answer}."))["toy"]
    assert found.asked_E.tolist() == [True]


def test_a_shared_passage_is_searched_once_and_found_for_each_of_its_examples():
    questions = [of_a_passage(filler(20, seed)) for seed in range(5)]
    assert len(tables_of({"toy": questions}).owners[0]) == 1 + 5
    found = analyse({"toy": questions}, documents(LONG))["toy"]
    assert found.passage_E.all()
    assert not found.asked_E.any()


# ------------------------------------------------------------------------------------------------ by brute force

few_words = st.lists(st.sampled_from(["a", "b", "B,", "c"]), max_size=24).map(" ".join)


triples = st.tuples(few_words, few_words, few_words).map(lambda parts: Example(*parts))


def plain_words(text: str) -> list[str]:
    return re.sub(r"[\W_]+", " ", text.lower()).split()


def windows(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def by_brute_force(examples: list[Example], texts: list[str], n: int) -> list[tuple[bool, bool]]:
    """(in the passage alone, in the rest) of each example, with sets of tuples."""
    found = []
    for one in examples:
        passage, rest = plain_words(one.passage), plain_words(f"{one.question} {one.answer}")
        words = passage + rest
        m = min(n, len(words))
        there = {gram for text in texts for gram in windows(plain_words(text), m)} if m else set()
        hits = [at for at, gram in enumerate(windows(words, m)) if gram in there] if m else []
        found.append((any(at + m <= len(passage) for at in hits), any(at + m > len(passage) for at in hits)))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(triples, min_size=1, max_size=5), st.lists(few_words, max_size=4), st.booleans())
def test_what_is_found_is_what_sets_of_tuples_find(examples, texts, synthetic):
    names = frozenset({"toy"}) if synthetic else frozenset[str]()
    found = analyse({"toy": examples}, documents(*texts), synthetic=names)["toy"]
    expected = by_brute_force(examples, texts, found.n)
    assert list(zip(found.passage_E.tolist(), found.asked_E.tolist(), strict=True)) == expected


@settings(max_examples=80, deadline=None)
@given(st.lists(triples, min_size=1, max_size=3), st.lists(few_words, min_size=1, max_size=4))
def test_documents_of_a_gram_are_counted_once_each(examples, texts):
    found = Found(grouped(tables_of({"toy": examples}, frozenset({"toy"})).grams))
    for document in documents(*texts):
        found.add(document)
    for grams, counts, first in zip(found.grams, found.documents, found.first, strict=True):
        for gram in range(len(grams)):
            here = [tuple(grams.text(gram).split()) in windows(plain_words(text), grams.n) for text in texts]
            assert counts[gram] == sum(here)
            if sum(here):
                assert found.ids[first[gram]] == f"document {here.index(True)}"


@settings(max_examples=80, deadline=None)
@given(st.sets(st.integers(1, 13), min_size=1), st.lists(few_words, min_size=1, max_size=4), few_words)
def test_tables_that_are_searched_together_find_what_each_finds_alone(lengths, texts, text):
    together = grouped([gather([("toy", [[text] for text in texts])], n) for n in lengths])
    alone = [Group.of(grams) for group in together for grams in group.tables]
    assert [group.n for group in alone] == sorted(lengths)
    for found, (expected,) in zip(find(text, together), (find(text, [group]) for group in alone), strict=True):
        assert found.tolist() == expected.tolist()


# ------------------------------------------------------------------------------------------------- what is shown


def test_the_longest_match_is_shown_with_the_text_around_it():
    one, two = first_words(LONG, 15), first_words(LONG, 20)
    text = f"{filler(60)} {one} {filler(60, 1)} {two} {filler(60, 2)}"
    (match,) = analyse({"toy": asked(LONG)}, documents(filler(20), text))["toy"].matches
    start = text.index(two)
    assert match["text"] == two
    assert match["before"] == text[start - 200 : start]
    assert match["after"] == text[start + len(two) : start + len(two) + 200]
    assert (match["document"], match["examples"], match["in"]) == ("document 1", [0], "question or answer")


def test_a_match_near_the_beginning_is_shown_with_what_stands_before_it():
    before = filler(3)
    (match,) = analyse({"toy": asked(LONG)}, documents(f"{before} {LONG}"))["toy"].matches
    assert (match["before"], match["after"]) == (f"{before} ", ".")


def test_of_matches_as_long_the_first_document_s_is_shown():
    (match,) = analyse({"toy": asked(LONG)}, documents(filler(9), LONG, LONG))["toy"].matches
    assert match["document"] == "document 1"


def test_few_matches_are_shown_and_the_longest_of_them():
    examples = asked(*(f"{filler(40, seed)}" for seed in range(40)))
    texts = [first_words(one.question, 13 + at % 20) for at, one in enumerate(examples)]
    matches = analyse({"toy": examples}, documents(*texts))["toy"].matches
    lengths = [n_words(match["text"]) for match in matches]
    assert lengths == sorted((13 + at % 20 for at in range(40)), reverse=True)[: overlap_module.SHOWN]


@pytest.mark.parametrize("start", range(0, 15, 2))
def test_the_grams_that_most_documents_have_are_named_with_how_many_and_where(start):
    common = " ".join(LONG.split()[start : start + 13])
    found = analyse({"toy": asked(LONG)}, documents(filler(9), LONG, f"{common} {filler(3)}", common))["toy"]
    assert found.examples[0][0] == {"gram": normalise(common), "documents": 3, "document": "document 1"}
    assert len(found.examples[0]) == overlap_module.SHOWN_GRAMS
    assert found.found_E[0] == found.grams_E[0] == n_words(LONG) - 12
