"""Arithmetic: sums, differences and products of numbers of up to so many digits, and three one-digit operations.

    Q: What is 98 plus 45?

    A: 143

Each task has 2,000 random questions. Where OpenAI's released files are among the data, those are the test set; without
them it is generated as they were. Dev and train sets are generated, and hold no question of another set.

Source   Brown 2020 §3.9.1 and Appendix G: operands are uniform in [0, 10^digits); the one-digit ones and the place of
         their brackets are those of the released file, "(9 + 8) * 2" with digits from 1 to 9. Six digits and the sum of
         digits are in the release alone.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from random import Random

from rein.errors import UserError
from rein.evals.data import Data, Row, rows
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import id_of, text_in

Question = tuple[str, int]
COUNT = 2000  # questions of a task
MOST_MISSED = 50_000  # drawn one after the other that were drawn before: there are no others


def two_numbers(digits: int, word: str, random: Random) -> Question:
    """Plus, minus, times."""
    a, b = random.randrange(10**digits), random.randrange(10**digits)
    return f"{a} {word} {b}", {"plus": a + b, "minus": a - b, "times": a * b}[word]


def three_digits(random: Random) -> Question:
    """(a + b) * c, with any two of + - *."""
    a, b, c = (random.randint(1, 9) for _ in range(3))
    first, second = random.choice("+-*"), random.choice("+-*")
    apply: dict[str, Callable[[int, int], int]] = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    return f"({a} {first} {b}) {second} {c}", apply[second](apply[first](a, b), c)


def sum_of_digits(random: Random) -> Question:
    """Of a number below 10,000."""
    number = random.randrange(10**4)
    return f"the sum of the digits of the number {number}", sum(map(int, str(number)))


# name → (title, released file, how a question is drawn)
KINDS: dict[str, tuple[str, str, Callable[[Random], Question]]] = {
    **{f"{n}d{sign}": (f"{n}D{sign}", f"{words}_digit_{file}.jsonl", partial(two_numbers, n, word))
       for n, words in ((2, "two"), (3, "three"), (4, "four"), (5, "five"), (6, "six"))
       for sign, word, file in (("+", "plus", "addition"), ("-", "minus", "subtraction"))},
    "2dx": ("2Dx", "two_digit_multiplication.jsonl", partial(two_numbers, 2, "times")),
    "1dc": ("1DC", "single_digit_three_ops.jsonl", three_digits),
    "sum_of_digits": ("Sum of digits", "sum_of_digits.jsonl", sum_of_digits),
}  # fmt: skip


def generated(name: str, n: int, seed: int, without: Collection[str] = ()) -> list[dict[str, str]]:
    r"""`n` different questions of a task in the released form, none of those whose contexts are given.

    Example  >>> generated("2d+", 1, seed=0)
             [{'context': '\n\nQ: What is 3 plus 55?\n\nA:', 'completion': ' 58'}]
    Raises   UserError when the task has no more questions.
    """
    random, found, draw = Random(f"{name}/{seed}"), dict[str, str](), KINDS[name][2]
    seen, missed = set(without), 0
    while len(found) < n:
        asked, answer = draw(random)
        context = f"\n\nQ: What is {asked}?\n\nA:"
        if context in seen:
            missed += 1
            if missed > MOST_MISSED:
                raise UserError(f"{name} has no {n:,} questions beside {len(without):,} others.", "Ask for fewer.")
            continue
        missed = 0
        seen.add(context)
        found[context] = f" {answer}"
    return [{"context": context, "completion": completion} for context, completion in found.items()]


def read(name: str, data: Data, split: Split) -> Iterable[Row]:
    """The released file as the test set, where it is; else what is generated."""
    path = data.find(f"gpt3/{KINDS[name][1]}", KINDS[name][1])
    test = list(rows(path)) if path else _rows(generated(name, COUNT, 0), f"{name}/test")
    if split == "test":
        return test
    asked = {str(row.get("context")) for row in test}
    dev = generated(name, COUNT, 1, asked)
    if split == "dev":
        return _rows(dev, f"{name}/dev")
    return _rows(generated(name, COUNT, 2, asked | {row["context"] for row in dev}), f"{name}/train")


def _rows(found: Iterable[dict[str, str]], where: str) -> list[Row]:
    return [Row(values, f"{where}:{number}") for number, values in enumerate(found, 1)]


def ask(row: Row) -> Iterable[Problem]:
    """The question without the line ends in front of it, which part it from shots."""
    question = text_in(row, "context").lstrip("\n")
    answer = text_in(row, "completion")
    yield free_form(id_of(row), question, [answer], parts={"question": question, "answer": answer})


def _task(name: str) -> Task:
    title, published = KINDS[name][0], "" if name in ("6d+", "6d-", "sum_of_digits") else KINDS[name][0]
    return Task(
        name, title, partial(read, name), ask, ("exact_match",), published, "written", shots=50, max_new_tokens=12
    )


PLUS_2, MINUS_2, PLUS_3, MINUS_3, PLUS_4, MINUS_4, PLUS_5, MINUS_5, PLUS_6, MINUS_6 = (
    _task(f"{digits}d{sign}") for digits in range(2, 7) for sign in "+-"
)
TIMES_2, THREE_OPERANDS, SUM_OF_DIGITS = _task("2dx"), _task("1dc"), _task("sum_of_digits")
