"""Appendix C: which examples the training text holds, and what that does to the scores."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import shutil
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.evals import overlap as overlap_module
from rein.evals import published
from rein.evals import training_text as training_text_module
from rein.evals.clean_scores import Scored, compare, relative_change, verdict
from rein.evals.contamination import (
    Asked,
    ContaminationConfig,
    contamination_command,
    is_synthetic,
    read_answers,
    read_problems,
)
from rein.evals.metrics import METRICS
from rein.evals.overlap import Example, Found, analyse, analyse_corpora, gram_words, n_words, tables_of
from rein.text import engine, tables
from rein.text.build import BuildConfig, build
from rein.text.documents import Document
from rein.text.grams import Group, find, gather, grouped, normalise

LONG = (
    "The harbour was quiet that morning, and the two old fishermen who had quarrelled for thirty years about a "
    "borrowed net sat on the wall and looked at the water without a word."
)
OTHER = (
    "Nobody in the valley remembered who had planted the pear trees along the road, but every autumn the children "
    "of three villages met under them, filled their aprons, and ran home before the bell rang."
)


def word(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=6))


def filler(n_words: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return " ".join("x" + word(draw) for _ in range(n_words))


def first_words(text: str, n: int) -> str:
    return " ".join(text.split()[:n])


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"document {at}", "") for at, text in enumerate(texts)]


def asked(*texts: str) -> list[Example]:
    return [Example(question=text) for text in texts]


def dirty(examples: list[Example], *texts: str, synthetic: bool = False) -> list[bool]:
    names = frozenset({"toy"}) if synthetic else frozenset[str]()
    return analyse({"toy": examples}, documents(*texts), synthetic=names)["toy"].dirty_E.tolist()


# ------------------------------------------------------------------------------------------------------------ N


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


# -------------------------------------------------------------------------------------------- clean or dirty


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


# ---------------------------------------------------------------------------- passages, questions, answers


def of_a_passage(question: str, answer: str = "They agreed at last") -> Example:
    return Example(LONG, question, answer)


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


# --------------------------------------------------------------------------------------- by brute force

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


# ------------------------------------------------------------------------------------------- what is shown


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


# ------------------------------------------------------------------------------------------------ corpora


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """200 documents; every 20th holds a part of an example."""
    made = [filler(120, seed) for seed in range(200)]
    for at, text in enumerate(made):
        if at % 20 == 0:
            made[at] = f"{text}\n\n{first_words(LONG if at % 40 else OTHER, 14 + at // 20)}. {text}"
    return made


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Example]]:
    return {"one": [*asked(LONG, OTHER), *asked(filler(30, 7), filler(8, 1000))], "two": [of_a_passage(OTHER)]}


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory, texts) -> Path:
    path = tmp_path_factory.mktemp("jsonl") / "train.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, jsonl) -> Path:
    """The same texts as token shards, none of them held out."""
    from rein.bpe.byte_level import ByteLevelBPE

    folder = tmp_path_factory.mktemp("corpus")
    ByteLevelBPE(()).save(folder / "tokenizer.json")
    config = BuildConfig(
        (jsonl,), source="jsonl", out=folder / "out", heldout_frac=0, tokenizer=folder / "tokenizer.json",
        shard_tokens=20_000,
    )  # fmt: skip
    return build(config)


def facts(found: dict) -> list:
    """All that a result says, ids of documents and their order left out."""
    return [
        (
            task, one.n, one.passage_E.tolist(), one.asked_E.tolist(), one.found_E.tolist(),
            [[(about["gram"], about["documents"]) for about in grams] for _, grams in sorted(one.examples.items())],
            [{**match, "document": ""} for match in one.matches],
        )
        for task, one in found.items()
    ]  # fmt: skip


def test_a_corpus_of_shards_says_the_same_as_its_texts_in_files(tmp_path, corpus, jsonl, texts, examples):
    expected = facts(analyse(examples, documents(*texts)))
    assert any(expected[0][3]), "nothing was planted"
    folder = tmp_path / "files"
    folder.mkdir()
    for at, text in enumerate(texts):
        (folder / f"{at}.{'md' if at % 2 else 'txt'}").write_text(text)
    without = tmp_path / "without"
    shutil.copytree(corpus, without)
    shutil.rmtree(without / "documents")  # only the tokens are left
    for at, path in enumerate((jsonl, folder, corpus, without)):
        result, found = analyse_corpora(examples, [path], tmp_path / f"work{at}", workers=1)
        assert facts(result) == expected, path
        assert found.n_documents == 200
        assert not found.dropped


def test_what_was_held_out_of_a_corpus_was_not_read_in_training(tmp_path, small_corpus):
    train = json.loads((small_corpus / "manifest.json").read_text())["splits"]["train"]
    _, found = analyse_corpora({"toy": asked(LONG)}, [small_corpus], tmp_path / "work", workers=1)
    assert (found.n_documents, found.n_bytes) == (train["documents"], train["bytes"])


def test_of_matches_as_long_in_two_corpora_the_first_one_s_is_shown(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(LONG)
    both = [tmp_path / "b.txt", tmp_path / "a.txt"]
    result, _ = analyse_corpora({"toy": asked(LONG)}, both, tmp_path / "work", workers=1)
    assert result["toy"].matches[0]["document"].endswith("b.txt")
    assert result["toy"].examples[0][0]["document"].endswith("b.txt")


def test_a_folder_is_read_by_the_names_of_its_files(tmp_path):
    folder = tmp_path / "mixed"
    (folder / "below" / ".git").mkdir(parents=True)
    (folder / "below" / "a.txt").write_text(LONG)
    (folder / "b.jsonl").write_text(json.dumps({"text": OTHER}))
    (folder / "c.png").write_bytes(b"\x89PNG")
    (folder / "d.md").write_bytes(b"caf\xe9")
    (folder / "below" / ".git" / "e.txt").write_text(filler(30))
    examples = asked(LONG, OTHER, filler(30))
    result, found = analyse_corpora({"toy": examples}, [folder], tmp_path / "work", workers=1)
    assert result["toy"].dirty_E.tolist() == [True, True, False]
    assert (found.n_documents, found.dropped) == (2, {"hidden": 1, "not UTF-8": 1})


def test_several_corpora_are_one(tmp_path, corpus, jsonl, examples, texts):
    result, found = analyse_corpora(examples, [jsonl, corpus], tmp_path / "work", workers=1)
    assert found.n_documents == 400
    assert facts(result) == facts(analyse(examples, documents(*texts, *texts)))


def test_two_processes_find_what_one_finds(tmp_path, jsonl, examples, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 30_000)
    one, found = analyse_corpora(examples, [jsonl], tmp_path / "one", workers=1)
    assert len(list((tmp_path / "one" / "search").glob("*.npy"))) > 3
    monkeypatch.setattr(engine, "POOL_S", 0)
    two, also = analyse_corpora(examples, [jsonl], tmp_path / "two", workers=2)
    assert facts(two) == facts(one)
    assert [one.examples for one in two.values()] == [one.examples for one in one.values()]
    assert (also.n_documents, also.n_bytes) == (found.n_documents, found.n_bytes)


def test_parts_of_any_size_give_the_same(tmp_path, jsonl, examples, monkeypatch):
    whole, _ = analyse_corpora(examples, [jsonl], tmp_path / "whole", workers=1)
    monkeypatch.setattr(tables, "PARTITION_BYTES", 2_000)
    parted, _ = analyse_corpora(examples, [jsonl], tmp_path / "parted", workers=1)
    assert facts(parted) == facts(whole)
    assert [one.examples for one in parted.values()] == [one.examples for one in whole.values()]


def test_a_search_goes_on_where_it_was_stopped_unless_the_text_changed(tmp_path, jsonl, examples, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 30_000)
    path, work = tmp_path / "train.jsonl", tmp_path / "work"
    shutil.copyfile(jsonl, path)
    expected, _ = analyse_corpora(examples, [path], work, workers=1)
    (work / "search" / "000001.json").unlink()
    read = []

    def counted(part, advance):
        read.append(part)
        return documents_of(part, advance)

    documents_of = overlap_module.documents_of
    monkeypatch.setattr(overlap_module, "documents_of", counted)
    again, _ = analyse_corpora(examples, [path], work, workers=1)
    assert (len(read), facts(again)) == (1, facts(expected))
    path.write_text(path.read_text().replace(" x", " y"))
    analyse_corpora(examples, [path], work, workers=1)
    assert len(read) > 3


# ------------------------------------------------------------------------------------------------ scores

ACCURACY = METRICS["accuracy"]


def collisions_of(dirty: list[int], of: int, asked: list[int] | None = None):
    """Collisions of `of` examples, those of these numbers dirty."""
    texts = [filler(20, seed) for seed in range(of)]
    return analyse(
        {"toy": [Example(text, filler(20, 100 + at)) for at, text in enumerate(texts)]},
        documents(*(texts[at] for at in dirty), *(filler(20, 100 + at) for at in asked or [])),
    )["toy"]


def rows(values: list[float | None], name: str = "accuracy", **more) -> list[Scored]:
    return [Scored(at, {name: value}, **more) for at, value in enumerate(values)]


def test_the_scores_of_all_dirty_and_clean_by_hand():
    found = compare(ACCURACY, rows([1, 1, 1, 0, 1, 0, 0, 0]), collisions_of([0, 1, 2], 8))
    assert {kind: (found[kind]["value"], found[kind]["n"]) for kind in ("all", "dirty", "clean")} == {
        "all": (0.5, 8), "dirty": (1.0, 3), "clean": (0.2, 5),
    }  # fmt: skip
    assert found["change"]["value"] == pytest.approx((0.2 - 0.5) / 0.5)


def test_dirty_examples_are_parted_by_where_they_were_found():
    found = compare(ACCURACY, rows([1, 0, 1, 0]), collisions_of([0, 1], 4, asked=[1, 2]))
    assert (found["passage_only"]["value"], found["passage_only"]["n"]) == (1.0, 1)
    assert (found["question_or_answer"]["value"], found["question_or_answer"]["n"]) == (0.5, 2)
    assert (found["clean"]["value"], found["clean"]["n"]) == (0.0, 1)


def test_problems_without_a_value_are_left_out():
    found = compare(ACCURACY, rows([1, None, 0, 1]), collisions_of([0, 1], 4))
    assert (found["all"]["n"], found["dirty"]["n"]) == (3, 1)
    assert compare(ACCURACY, rows([None, None]), collisions_of([], 2)) is None


def test_a_question_is_right_when_the_least_of_its_answers_is():
    metric = METRICS["multirc_accuracy"]
    answers = [Scored(example, {metric.name: value}) for example, value in [(0, 1), (0, 1), (1, 1), (1, 0), (2, 1)]]
    found = compare(metric, answers, collisions_of([1], 3))
    assert (found["all"]["n"], found["all"]["value"], found["clean"]["value"]) == (3, pytest.approx(2 / 3), 1.0)


def test_a_score_of_the_whole_set_is_made_of_counts():
    metric = METRICS["perplexity"]
    nats = [10.0, 20.0, 30.0, 40.0]
    whole = [Scored(at, {}, {metric.name: [nat, 10]}) for at, nat in enumerate(nats)]
    found = compare(metric, whole, collisions_of([0, 1], 4))
    assert found["all"]["value"] == pytest.approx(math.exp(100 / 40))
    assert found["clean"]["value"] == pytest.approx(math.exp(70 / 20))
    assert found["change"]["value"] == pytest.approx(math.exp(3.5 - 2.5) - 1)
    assert found["better"] == "lower"


def mean(counts):
    return counts[0] / counts[1]


def test_the_interval_of_a_change_is_as_wide_as_the_delta_method_says():
    draw = np.random.default_rng(3)
    values, clean = draw.random(4000) < 0.6, draw.random(4000) < 0.7
    counts = np.stack([values, np.ones(4000)], axis=1).astype(float)
    found = relative_change(counts, mean, clean, [""] * 4000)
    m, c = values.mean(), values[clean].mean()
    influence = (clean * (values - c) / clean.mean() - c / m * (values - m)) / m
    assert found.value == pytest.approx(c / m - 1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * influence.std() / math.sqrt(4000), rel=0.1)


def test_problems_of_one_passage_say_less_than_as_many_alone():
    values = np.repeat([1, 0, 1, 1, 0, 1, 0, 0, 1, 1], 8)
    counts = np.stack([values, np.ones(80)], axis=1).astype(float)
    clean = np.repeat([1, 1, 0, 1, 0, 1, 0, 1, 1, 0], 8).astype(bool)
    alone = relative_change(counts, mean, clean, [""] * 80)
    together = relative_change(counts, mean, clean, [str(at // 8) for at in range(80)])
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_one_passage_alone_has_no_interval_and_no_verdict():
    found = compare(ACCURACY, rows([1, 1, 0, 0], passage="p"), collisions_of([0, 1], 4))
    assert found["change"] == {"value": -1.0, "low": None, "high": None}
    assert found["verdict"] == "not told apart"


@pytest.mark.parametrize(
    ("values", "dirty", "said"),
    [
        ([1] * 10, [], "all clean"),
        ([1] * 10, range(10), "none clean"),
        ([1] * 10, [0, 1], "similar"),
        ([0] * 10, [0, 1], "no score"),
        ([1, 0] * 5, [0], "not told apart"),
        ([1] * 20 + [0] * 10 + [1] * 10, range(20), "worse where clean"),
        ([0] * 20 + [0] * 10 + [1] * 10, range(20), "better where clean"),
    ],
)
def test_the_verdict_reads_the_change_and_its_interval(values, dirty, said):
    assert compare(ACCURACY, rows(values), collisions_of(list(dirty), len(values)))["verdict"] == said


def test_the_verdict_turns_round_where_lower_is_better():
    change = relative_change(np.ones((4, 2)), mean, np.array([True, False, True, True]), [""] * 4)
    assert verdict(change, "lower", clean=3, dirty=1) == "similar"


# ------------------------------------------------------------------------------------------- the command


def answer(task: str, id: str, k: int, value: float, parts: dict, split: str = "test", **more) -> dict:
    return {
        "task": task, "split": split, "id": id, "k": k, "effective_k": k, "draw": None, "passage": "", "question": "",
        "value": {"accuracy": value}, "choice": 0, "gold": 0, "text": None, "answers": [], "logprobs": [],
        "prompt": parts.get("question", "")[-500:], "options": ["yes"], "parts": parts, **more,
    }  # fmt: skip


def evaluation(folder: Path, lines: list[dict], scored: dict[str, tuple[str, int]]) -> Path:
    """What `rein eval` leaves of these answers; of scores.json, what is read here."""
    folder.mkdir(exist_ok=True)
    (folder / "answers.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    rest = {
        "title": "PIQA", "metric": "accuracy", "unit": "%", "better": "higher", "failed": [], "failed_count": 0,
        "chance": 0.5, "paper_k": 50, "chosen_k": None, "dev": [], "scores": [],
    }  # fmt: skip
    scores = {
        "format": "rein-eval-1", "protocol": "gpt3", "protocol_version": 1, "skipped": [],
        "model": {"name": "first", "n_params": 1, "fingerprint": "f"},
        "tasks": [{"task": task, "split": split, "problems": n, **rest} for task, (split, n) in scored.items()],
    }  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def evaluated(tmp_path) -> Path:
    """20 problems behind 0 and 1 shots, half of them in the training text and right; and two of the dev set."""
    lines = [
        answer("piqa", f"p{at}", k, float(at < 10 or at > 14), {"question": filler(20, at)}, "dev")
        for k in (0, 1)
        for at in range(20)
    ]
    lines += [answer("piqa", f"t{at}", 0, 1.0, {"question": LONG}, "test") for at in range(2)]
    return evaluation(tmp_path / "eval", lines, {"piqa": ("dev", 20)})


@pytest.fixture
def training_text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for at in range(10):
        (folder / f"{at}.txt").write_text(f"{filler(50, 50 + at)} {filler(20, at)}")
    return folder


def test_an_evaluation_gets_its_clean_scores_beside_it(evaluated, training_text, capsys):
    contamination_command(ContaminationConfig(evaluated, (training_text,), workers=1))
    result = json.loads((evaluated / "contamination.json").read_text())
    (entry,) = result["tasks"]
    expected = {"task": "piqa", "split": "dev", "n": 13, "examples": 20, "clean": 10, "question_or_answer": 10}
    assert {name: entry[name] for name in expected} == expected
    assert entry["published"] == {"n": 8, "examples": 1838, "clean": 0.71, "relative_change": -0.04}
    assert [score["k"] for score in entry["scores"]] == [0, 1]
    for score in entry["scores"]:
        assert [score[kind]["value"] for kind in ("all", "dirty", "clean")] == [0.75, 1.0, 0.5]
        assert score["verdict"] == "worse where clean"
    printed = capsys.readouterr().out
    assert "10 documents of training text" in printed
    assert re.search(r"piqa +13 +20 +50% +71% +0 +10 +accuracy +0 +75\.0 +100\.0 +50\.0 +-33\.3%", printed)
    assert not (evaluated / "contamination-work").exists()


def test_the_table_for_programs_says_what_the_json_says(evaluated, training_text):
    contamination_command(ContaminationConfig(evaluated, (training_text,), workers=1))
    (entry,) = json.loads((evaluated / "contamination.json").read_text())["tasks"]
    with (evaluated / "contamination.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(entry["scores"])
    for row, score in zip(table, entry["scores"], strict=True):
        assert (row["task"], int(row["k"]), row["verdict"]) == ("piqa", score["k"], score["verdict"])
        assert float(row["clean_score"]) == score["clean"]["value"]
        assert float(row["dirty_high"]) == score["dirty"]["high"]
        assert float(row["change_low"]) == score["change"]["low"]
        assert float(row["paper_clean_frac"]) == 0.71


def test_every_dirty_example_is_named_with_its_grams_and_a_document(evaluated, training_text):
    contamination_command(ContaminationConfig(evaluated, (training_text,), workers=1))
    lines = [json.loads(line) for line in (evaluated / "contaminated.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"p{at}" for at in range(10)]
    assert lines[3]["most_common"][0]["document"] == "3.txt"
    assert lines[3]["most_common"][0]["documents"] == 1
    assert (lines[3]["grams_found"], lines[3]["grams"]) == (8, 8)


def test_another_split_and_some_shots_can_be_asked_for(evaluated, training_text, capsys):
    config = ContaminationConfig(evaluated, (training_text,), split="test", workers=1, json=True)
    contamination_command(config)
    (entry,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (entry["split"], entry["examples"], entry["clean"]) == ("test", 2, 2)
    contamination_command(ContaminationConfig(evaluated, (training_text,), shots=(1,), workers=1, json=True))
    (entry,) = json.loads(capsys.readouterr().out)["tasks"]
    assert [score["k"] for score in entry["scores"]] == [1]


def test_a_metric_that_the_answers_do_not_say_enough_for_is_named(tmp_path, training_text, capsys):
    lines = [{**answer("piqa", "1", 0, 1.0, {"question": filler(20)}), "value": {}}]
    contamination_command(
        ContaminationConfig(evaluation(tmp_path / "e", lines, {"piqa": ("test", 1)}), (training_text,))
    )
    assert "piqa: no comparison by accuracy" in capsys.readouterr().out


def test_answers_of_one_question_are_one_example():
    one = Asked("dev")
    for _ in range(2):  # behind two numbers of shots
        for at, right in enumerate(("the net", "a boat")):
            assert one.add(f"0/0/{at}", "0/0", {"passage": LONG, "question": "What?", "answer": right}, 0) == 0
    assert one.add("0/1/0", "0/1", {"passage": LONG, "question": "Who?", "answer": "they"}, 0) == 1
    assert one.examples == [Example(LONG, "What?", "the net\na boat"), Example(LONG, "Who?", "they")]
    assert one.ids == ["0/0", "0/1"]


def test_an_id_that_comes_twice_with_another_text_is_another_example():
    one = Asked("dev")
    assert [one.add("7", "", {"question": text}, 0) for text in (LONG, OTHER, LONG)] == [0, 1, 0]


def test_tasks_without_an_evaluation_say_how_clean_they_are(tmp_path, training_text, monkeypatch, capsys):
    data = tmp_path / "sets"
    data.mkdir()
    lines = [{"context": filler(20, at), "answer": "yes"} for at in range(5, 15)]
    (data / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    contamination_command(ContaminationConfig(corpus=(training_text,), tasks=("sets/own.jsonl", "piqa"), workers=1))
    (entry,) = json.loads(Path("contamination/contamination.json").read_text())["tasks"]
    assert (entry["examples"], entry["clean"], entry["scores"]) == (10, 5, [])
    printed = capsys.readouterr().out
    assert "50%" in printed
    assert "piqa: " in printed


# ------------------------------------------------------------------------------------------------ mistakes


def refused(config: ContaminationConfig) -> str:
    with pytest.raises(UserError) as caught:
        contamination_command(config)
    return str(caught.value)


def test_a_folder_without_text_is_refused(tmp_path, evaluated):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "image.png").write_bytes(b"\x89PNG")
    assert f"{empty} holds no text" in refused(ContaminationConfig(evaluated, (empty,)))
    assert "does not exist" in refused(ContaminationConfig(evaluated, (tmp_path / "nowhere",)))


def test_a_text_file_that_is_too_large_to_be_one_document_is_named(evaluated, training_text, monkeypatch):
    monkeypatch.setattr(training_text_module, "MAX_DOCUMENT_BYTES", 100)
    assert "0.txt is larger than 1 GiB" in refused(ContaminationConfig(evaluated, (training_text,)))


def test_a_corpus_of_which_nothing_can_be_read_makes_no_task_clean(tmp_path, evaluated):
    (tmp_path / "a.jsonl").write_text("no json\nat all\n")
    assert "not JSON: 2" in refused(ContaminationConfig(evaluated, (tmp_path / "a.jsonl",)))
    assert not (evaluated / "contamination.json").exists()


def test_a_text_field_that_is_missing_is_named(tmp_path, evaluated):
    (tmp_path / "a.jsonl").write_text('{"body": "some text"}\n')
    assert "--text-field" in refused(ContaminationConfig(evaluated, (tmp_path / "a.jsonl",)))
    contamination_command(ContaminationConfig(evaluated, (tmp_path / "a.jsonl",), text_field="body", workers=1))


def test_answers_that_are_cut_short_are_refused(evaluated, training_text):
    path = evaluated / "answers.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[: len(b"".join(lines[:5])) + 40])
    assert f"{path}:6 is no JSON" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.write_bytes(b"".join(lines[:5]))
    assert "5 of the 20 problems of piqa" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.write_bytes(b'{"task": "piqa"}\n')
    assert "has no 'split'" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.write_bytes('{"task": "é'.encode()[:-1])
    assert "is no JSON" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.unlink()
    assert "not finished" in refused(ContaminationConfig(evaluated, (training_text,)))


def test_what_is_no_evaluation_is_refused(tmp_path, training_text, evaluated):
    assert "has no scores.json" in refused(ContaminationConfig(tmp_path, (training_text,)))
    (evaluated / "scores.json").write_text("[]")
    assert "has format" in refused(ContaminationConfig(evaluated, (training_text,)))


def test_settings_that_ask_for_nothing_are_refused(evaluated, training_text):
    assert "--corpus" in refused(ContaminationConfig(evaluated))
    assert "--tasks" in refused(ContaminationConfig(corpus=(training_text,)))
    assert "No task has files" in refused(ContaminationConfig(corpus=(training_text,), tasks=("piqa",)))
    assert "Did you mean piqa?" in refused(ContaminationConfig(evaluated, (training_text,), tasks=("pipa",)))
    assert "--workers" in refused(ContaminationConfig(evaluated, (training_text,), workers=0))
    assert "no answer of the split train" in refused(ContaminationConfig(evaluated, (training_text,), split="train"))


def test_tasks_of_an_evaluation_can_be_chosen(evaluated):
    assert read_answers(evaluated, tasks=["piqa"]).keys() == {"piqa"}
