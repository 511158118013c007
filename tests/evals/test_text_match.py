"""Exact match and F1 by the data sets' rules: hand-made cases, the same written otherwise, and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rein.evals.text_match import (
    SPAN_SEPARATOR,
    best,
    drop_scores,
    f1,
    leave_one_out,
    normalise,
    normalise_trivia,
    quac_f1,
    same,
    same_or_equal,
    same_trivia,
)

# Few letters, so that words meet; articles, signs and what is no ASCII among them.
TEXTS = st.lists(
    st.sampled_from(["the", "a", "An", "cat", "Cat,", "dog", "3", "-3", "3.0", "…", "l'été", "—", "\t"])
).map(" ".join)
ASCII = TEXTS.filter(str.isascii) | st.text(st.characters(codec="ascii"))
TEXTS = TEXTS | st.text()


# ------------------------------------------------------------------------------------------------- exact match


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Normans.", "normans"),
        ("  an  apple a\tday\n", "apple day"),
        ("theatre, another", "theatre another"),
        ("a-b", "ab"),  # a hyphen is taken out, so that "a" is no article any more
        ("«Été»", "«été»"),  # only ASCII punctuation goes
        ("the", ""),
    ],
)
def test_squad_normalises(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [("don't", "don t"), ("don’t", "don t"), ("Sunset_Blvd.", "sunset blvd"), ("AC/DC", "ac dc"), ("a-b", "b")],
)
def test_triviaqa_makes_spaces_of_punctuation(text, normal):
    assert normalise_trivia(text) == normal
    assert same_trivia(text, normal.upper()) == 1


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (" 143", "143", 1),
        ("143.", "143", 1),
        ("1,430", "1430", 1),
        ("-38", "-38", 1),
        ("−38", "-38", 1),  # a true minus sign
        ("38", "-38", 0),
        ("-38", "38", 0),
        ("15", "1.5", 0),
        ("0.5", ".5", 1),
        ("143 apples", "143", 0),
        ("the 143", "143", 0),
        ("nan", "nan", 1),  # a word like any other
        ("", "5", 0),
        ("The Casino!", "casino", 1),
    ],
)
def test_a_number_must_be_the_same_number(text, answer, right):
    assert same_or_equal(text, answer) == right


def test_squads_rule_alone_does_not_see_a_minus_sign():
    assert same("38", "-38") == 1


# ---------------------------------------------------------------------------------------------------------- F1


def test_f1_by_hand():
    # 4 words against 3, 2 in common: P = 2/4, R = 2/3
    assert f1("big black cat sleeps", "black cat purrs") == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    # a word counts as often as the rarer side has it
    assert f1("no no no", "no no yes") == pytest.approx(2 / 3)
    assert f1("", "") == f1("the", "a") == 1
    assert f1("the", "cat") == f1("cat", "") == 0


def squad_words(text):
    """SQuAD's normalisation letter by letter: no translation table, no expression for articles."""
    kept = "".join(letter for letter in text.lower() if not (letter.isascii() and letter.isprintable() and not
                                                              (letter.isalnum() or letter == " ")))  # fmt: skip
    return [word for word in kept.split() if word not in ("a", "an", "the")]


@given(ASCII, ASCII)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(text, answer):
    said, wanted = squad_words(text), squad_words(answer)
    common, left = 0, list(wanted)
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if not said or not wanted:
        expected = float(said == wanted)
    elif not common:
        expected = 0.0
    else:
        precision, recall = common / len(said), common / len(wanted)
        expected = 2 * precision * recall / (precision + recall)
    assert f1(text, answer) == pytest.approx(expected, abs=1e-12)
    assert same(text, answer) == float(said == wanted)


@given(TEXTS, TEXTS)
def test_f1_is_symmetric_in_0_to_1_and_1_where_texts_match(text, answer):
    assert f1(text, answer) == f1(answer, text)
    assert 0 <= f1(text, answer) <= 1
    if same(text, answer):
        assert f1(text, answer) == 1


@given(TEXTS, st.permutations(["cat", "the dog", "a cat sleeps"]))
def test_the_order_of_answers_does_not_matter(text, answers):
    assert best(f1, text, answers) == best(f1, text, sorted(answers))
    assert leave_one_out(f1, text, answers) == pytest.approx(leave_one_out(f1, text, sorted(answers)))


# ----------------------------------------------------------------------------------------------- several people


def test_coqa_leaves_each_person_out_in_turn():
    # F1 with the four: 1, 0, 1/2, 1/2. Without the first, the best is 1/2; without any other, 1.
    answers = ["white", "black", "it is white", "is white it"]
    assert [f1("white", answer) for answer in answers] == [1, 0, 0.5, 0.5]
    assert leave_one_out(f1, "white", answers) == (0.5 + 1 + 1 + 1) / 4
    assert leave_one_out(f1, "white", ["white"]) == 1


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_leaving_one_out_never_beats_the_best(text, answers):
    assert leave_one_out(f1, text, answers) <= best(f1, text, answers) + 1e-12


def test_quac_takes_no_answer_where_half_of_the_people_found_none():
    assert quac_f1("CANNOTANSWER", ["CANNOTANSWER", "in May"]) == 1
    assert quac_f1("in May", ["CANNOTANSWER", "in May"]) == 0
    assert quac_f1("CANNOTANSWER", ["CANNOTANSWER", "in May", "in May"]) == 0
    assert quac_f1("in May", ["CANNOTANSWER", "in May", "in May"]) == 1
    assert quac_f1("cannotanswer", ["CANNOTANSWER"]) == 0  # the word as it is, nothing like it


def test_quac_leaves_out_questions_that_people_disagree_about():
    # best agreement of each: 0.5, 0.5, 0 → mean 1/3 < 0.4
    assert quac_f1("x", ["in May", "May 4", "never"]) is None
    # 0.5, 0.5 → 0.5
    assert quac_f1("May", ["in May", "May 4"]) == pytest.approx(2 / 3)


# -------------------------------------------------------------------------------------------------------- DROP


@pytest.mark.parametrize(
    ("text", "answers", "exact", "overlap"),
    [
        ("25", ["25"], 1, 1),
        ("25.0", ["25"], 1, 1),
        ("25 yards", ["25"], 0, 0.67),
        ("24 yards", ["25 yards"], 0, 0),  # none of the answer's numbers
        ("yards", ["25 yards"], 0, 0),
        ("25-yard", ["25 yard"], 1, 1),  # hyphens part words
        ("1,200", ["1200"], 1, 1),  # no float as it is; one without its punctuation
        ("the Bears", ["Bears"], 1, 1),
        ("cat cat cat", ["cat dog"], 0, 0.67),  # sets of words, not bags
        ("Bears", ["Packers", "the Bears"], 1, 1),  # the best answer counts
        ("Bears", ["Bears; Packers"], 0, 0.5),
        ("Packers; Bears", ["Bears; Packers"], 1, 1),  # in any order
        ("Bears; Packers", ["Bears"], 0, 0.5),  # too many
        ("Bears", ["Bears; Packers; Lions"], 0, 0.33),  # rounded to two decimals
        ("", ["Bears"], 0, 0),
    ],
)
def test_drop_by_hand(text, answers, exact, overlap):
    assert drop_scores(text, answers) == (exact, overlap)


def test_drop_matches_things_one_to_one_where_the_sum_is_largest():
    # "red cat" could have the first or the second; together they are best the other way round: (1 + 2/3) / 2
    assert drop_scores("red cat; red", ["red; red cat"])[1] == 1
    assert drop_scores("big red cat; red dog", ["red dog; red cat"])[1] == round((0.8 + 1) / 2, 2)


@given(TEXTS, TEXTS)
def test_drop_stays_in_0_to_1_and_an_exact_match_is_a_full_overlap(text, answer):
    exact, overlap = drop_scores(text, [answer])
    assert 0 <= overlap <= 1
    if exact and SPAN_SEPARATOR not in text:
        assert overlap == 1
