"""Puzzles that are made: arithmetic and scrambled words, ours and those that were released."""

import gzip
import json
import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_files import answered, problems, put

from rein.errors import UserError
from rein.evals import metrics
from rein.evals.data import Data, Row, rows
from rein.evals.tasks import arithmetic, scrambling
from rein.evals.tasks.table import load

# ---------------------------------------------------------------------------------------------------- arithmetic


def value_of(question: str) -> int:
    """What a question asks for, by Python's own reckoning."""
    if found := re.fullmatch(r"the sum of the digits of the number (\d+)", question):
        return sum(map(int, found[1]))
    for word, sign in (("plus", "+"), ("minus", "-"), ("times", "*")):
        question = question.replace(word, sign)
    assert re.fullmatch(r"[-+*() \d]+", question)
    return eval(question)


def asked(context: str) -> str:
    return re.fullmatch(r"\n\nQ: What is (.+)\?\n\nA:", context)[1]


def form(context: str) -> str:
    """A question with its numbers and signs blotted out."""
    return re.sub(r"\d+", "#", re.sub(r" [-+*] ", " . ", context))


@given(name=st.sampled_from(sorted(arithmetic.KINDS)), seed=st.integers())
def test_what_is_generated_is_right_and_different(name, seed):
    found = arithmetic.generated(name, 20, seed)
    assert len({row["context"] for row in found}) == 20
    assert all(row["completion"] == f" {value_of(asked(row['context']))}" for row in found)
    assert found == arithmetic.generated(name, 20, seed)
    assert found != arithmetic.generated(name, 20, seed + 1)


@pytest.mark.parametrize("digits", [2, 3, 4, 5, 6])
def test_operands_are_uniform(digits):
    found = arithmetic.generated(f"{digits}d+", 4000, seed=0)
    numbers = [int(number) for row in found for number in re.findall(r"\d+", row["context"])]
    quarters = Counter(number * 4 // 10**digits for number in numbers)
    assert set(quarters) == {0, 1, 2, 3}
    assert all(abs(count - 2000) < 5 * (8000 * 3 / 16) ** 0.5 for count in quarters.values())


@pytest.mark.parametrize("name", sorted(arithmetic.KINDS))
def test_no_question_is_in_two_of_the_sets(name):
    task = load("gpt3", name)
    train, dev, test = ({p.prompt for p in problems(task, Data(), split)} for split in ("train", "dev", "test"))
    assert len(train) == len(dev) == len(test) == arithmetic.COUNT
    assert not (train & dev) | (train & test) | (dev & test)


@pytest.mark.parametrize("name", sorted(arithmetic.KINDS))
def test_the_released_questions_are_the_test_set_and_have_the_form_of_ours(shared_data, name):
    task, data = load("gpt3", name), Data((shared_data,))
    released = list(rows(shared_data / "evaluation" / "gpt3" / arithmetic.KINDS[name][1]))
    test = problems(task, data)
    assert len(test) == 2000
    assert all(int(problem.answers[0]) == value_of(asked(f"\n\n{problem.prompt}")) for problem in test)
    ours = arithmetic.generated(name, 2000, seed=5)
    assert {form(row["context"]) for row in released} == {form(row["context"]) for row in ours}
    assert {re.sub(r"\d+", "#", row["context"]) for row in released} == {
        re.sub(r"\d+", "#", row["context"]) for row in ours
    }
    assert not {p.prompt for p in problems(task, data, "train")} & {p.prompt for p in test}


def test_a_problem_of_arithmetic_is_the_released_one_without_its_first_line_ends():
    row = Row({"context": "\n\nQ: What is 98 plus 45?\n\nA:", "completion": " 143"}, "x:1")
    [problem] = arithmetic.ask(row)
    assert problem.prompt == "Q: What is 98 plus 45?\n\nA:"
    assert problem.shot == "Q: What is 98 plus 45?\n\nA: 143"
    assert metrics.exact_match(answered(problem, "143")) == 1
    assert metrics.exact_match(answered(problem, "-143")) == 0


def test_a_task_without_enough_questions_says_so():
    with pytest.raises(UserError, match=r"1dc has no 6,562 questions"):
        arithmetic.generated("1dc", 9**4 + 1, seed=0)


# ---------------------------------------------------------------------------------------------------- scrambling

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=5, max_size=14)


def could_be(name: str, scrambled: str, word: str) -> bool:
    """Whether a puzzle could have been made of a word."""
    if name == "cycled_letters":
        return len(scrambled) == len(word) and scrambled in word + word
    if name == "reversed_words":
        return scrambled[::-1] == word
    if name == "symbol_insertion":
        return scrambled[::2] == word and len(scrambled) == 2 * len(word) - 1 and set(scrambled[1::2]) <= set(" ./!")
    n = 1 if name == "anagrams_1" else 2
    ends = scrambled[:n] == word[:n] and scrambled[-n:] == word[-n:]
    return ends and sorted(scrambled) == sorted(word)


@given(name=st.sampled_from(sorted(scrambling.KINDS)), word=WORDS, seed=st.integers())
def test_a_puzzle_is_made_of_its_word(name, word, seed):
    [row] = scrambling.generated(name, [word], 1, seed)
    scrambled = re.fullmatch(r"\n(.+) =", row["context"])[1]
    assert could_be(name, scrambled, word)
    assert row["completion"] == f" {word}"
    assert [row] == scrambling.generated(name, [word], 1, seed)


def test_a_word_is_turned_by_every_number_of_places_but_all():
    turned = {scrambling.cycled("abcdef", Random(seed)) for seed in range(200)}
    assert turned == {"bcdefa", "cdefab", "defabc", "efabcd", "fabcde"}


@given(word=WORDS, seed=st.integers())
def test_an_anagram_is_never_the_word_where_it_can_be_another_one(word, seed):
    for kept in (1, 2):
        assert (scrambling.anagram(kept, word, Random(seed)) == word) == (len(set(word[kept:-kept])) == 1)


@pytest.mark.parametrize("name", sorted(scrambling.KINDS))
def test_every_released_puzzle_could_be_one_of_ours(shared_data, name):
    found = problems(load("gpt3", name), Data((shared_data,)))
    assert len(found) == 10_000
    assert all(could_be(name, problem.prompt.removesuffix(" ="), problem.answers[0]) for problem in found)
    words = {f" {problem.answers[0]}": place for place, problem in enumerate(found[:2000])}
    ours = scrambling.generated(name, [word.strip() for word in words], 2000, seed=0)
    released = [problem.prompt.removesuffix(" =") == problem.answers[0] for problem in found[:2000]]
    made = [
        row["context"] == f"\n{row['completion'].strip()} ="
        for row in sorted(ours, key=lambda row: words[row["completion"]])
    ]
    assert released == made  # the puzzle is the word itself where, and only where, it can be nothing else


@pytest.mark.parametrize("name", sorted(scrambling.KINDS))
@pytest.mark.parametrize("released", [False, True], ids=["generated", "released"])
def test_no_word_is_in_two_of_the_sets(tmp_path, name, released):
    data = Data((tmp_path,))
    if released:
        row = json.dumps({"context": "\ntcejbo =", "completion": " object"}) + "\n"
        (tmp_path / "gpt3").mkdir()
        with gzip.open(tmp_path / "gpt3" / f"{scrambling.KINDS[name][1]}.gz", "wt") as file:
            file.write(row)
    task = load("gpt3", name)
    train, dev, test = ({p.answers[0] for p in problems(task, data, split)} for split in ("train", "dev", "test"))
    assert not (train & dev) | (train & test) | (dev & test)
    assert test == {"object"} if released else len(test) > 700
    assert len(dev) > 300


def test_words_come_from_the_users_list_where_there_is_one(tmp_path):
    data = put(tmp_path, "count_1w.txt", "the\t23\nabout\t12\nABOUT\t11\nextraordinarily\t3\nletters\t2\nO'Neill\t1\n")
    assert scrambling.words_in(data) == ["about", "letters"]


def test_a_puzzle_stands_below_the_instruction_as_in_appendix_g():
    task = load("gpt3", "cycled_letters")
    [problem] = task.ask(Row({"context": "\nasinoc =", "completion": " casino"}, "x:1"))
    asked_as = task.separator.join([task.description, problem.shot])
    assert asked_as == "Please unscramble the letters into a word, and write that word:\nasinoc = casino"


def test_a_puzzle_that_begins_with_a_space_keeps_its_letters():
    [problem] = scrambling.ask(Row({"context": "\nr e!c =", "completion": " rec"}, "x:1"))
    assert problem.prompt == "r e!c ="
