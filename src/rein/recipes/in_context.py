"""`rein eval demo`: a small model learns puzzles from text, and how much examples in the prompt help it.

    1  text       pages of puzzles, each of one kind: words reversed, words turned round by one letter or by two, sums
    2  pre-train  a small GPT on bytes, as on any text
    3  evaluate   GPT-3's protocol: 0, 1, 2, 4 and 8 examples; K chosen on dev, run once on test

"taefed =" does not say which puzzle it is; the examples in front of it do. So the score rises with their number: what
Brown 2020 calls in-context learning, at a size that trains in minutes. No word or sum of dev or test is in the text.

The sums and the reversed words are the paper's. Its cycled letters are turned by another number of letters each time,
which only somebody with a dictionary can undo; here a page turns all of its words alike.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from random import Random

from rein.config import setting
from rein.errors import UserError
from rein.evals.data import Data, Row
from rein.evals.evaluate import evaluate
from rein.evals.language_model import Ours
from rein.evals.printing import table
from rein.evals.report import write_report
from rein.evals.responses import Responses
from rein.evals.task import Split, Task
from rein.evals.tasks import arithmetic, scrambling
from rein.progress import duration
from rein.run import lock_folder, write_atomically
from rein.text.build import BuildConfig, build
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig

TOKENS_A_PAGE = 130  # to train on: a page has some 300, and none is read twice
PUZZLES = 16  # on a page
SHOTS = 8  # a page is longer than the model's context, which holds about so many


@dataclass(frozen=True)
class InContextConfig:
    """Settings of `rein eval demo`."""

    out: Path = setting(Path("runs/in-context"), "folder for the text, the run and the evaluation")
    train_tokens: int = setting(8_000_000, "to train on; a token is a byte", unit="tokens")
    problems: int = setting(300, "of each dev and test set that are asked", unit="problems")
    seed: int = setting(0, "of the text, the weights and the shots")

    def __post_init__(self) -> None:
        for name in ("problems", "train_tokens"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}, but it must be at least 1.", "Raise it.")


def in_context(config: InContextConfig) -> None:
    """Trains a small GPT on pages of word puzzles and sums, and shows its score rise with examples in the prompt.

    Needs no network, no GPU and no data. Stop it with Ctrl-C and run it again: it goes on where it was.

    Examples
      rein eval demo
      rein eval demo --train-tokens 2e6 --problems 100 --out runs/quick
    """
    began = time.monotonic()
    with lock_folder(config.out):
        print("1/3  pages of puzzles → token shards of bytes", flush=True)
        pages = config.out / "pages.jsonl"
        if not pages.exists():
            _write(pages, config.train_tokens // TOKENS_A_PAGE + 200, config.seed)
        corpus = config.out / "corpus"
        build(BuildConfig(paths=(pages,), source="jsonl", out=corpus, n_vocab=257, heldout_frac=0.01, seed=config.seed))
        print("\n2/3  token shards → a GPT", flush=True)
        pretrain(training(config, corpus))
        print("\n3/3  the same puzzles behind 0, 1, 2, 4 … examples", flush=True)
        evaluation = config.out / "eval"
        evaluation.mkdir(exist_ok=True)
        model = Ours.load(config.out / "pretrain")
        with Responses(config.out / "responses.sqlite") as kept:
            found = evaluate(
                model, list(TASKS.values()), data=Data(), responses=kept, out=evaluation,
                shots=("curve", "dev"), seed=config.seed, limit=config.problems,
            )  # fmt: skip
        write_report([evaluation], evaluation)
    print(table(found))
    for entry in found["tasks"]:
        zero, chosen = entry["scores"][0], next(row for row in entry["scores"] if row["k"] == entry["chosen_k"])
        print(
            f"{entry['title']}: {100 * zero['value']:.1f}% without examples, {100 * chosen['value']:.1f}% "
            f"[{100 * chosen['low']:.1f}, {100 * chosen['high']:.1f}] behind {entry['chosen_k']}, chosen on dev"
        )
    print(f"{evaluation}/report.html (open it in a browser); all stages {duration(time.monotonic() - began)}")


def training(config: InContextConfig, corpus: Path) -> PretrainConfig:
    """A GPT of half a million weights, in many small updates: copying is learned in steps, not in tokens."""
    return PretrainConfig(
        data=corpus,
        out=config.out / "pretrain",
        n_layer=3,
        n_embd=128,
        n_head=4,
        n_ctx=192,
        train_tokens=config.train_tokens,
        sequences_per_batch=6,
        learning_rate=2e-3,
        heldout_tokens=20_000,
        checkpoint_every_s=30.0,
        seed=config.seed,
    )


# --------------------------------------------------------------------------------------------------- the tasks


def turned(by: int, word: str) -> str:
    """A word turned round by some letters.

    Example  >>> turned(2, "casino")
             'sinoca'
    """
    return word[by:] + word[:by]


RULES: dict[str, Callable[[str], str]] = {
    "reversed_words": lambda word: word[::-1],
    "turned_by_1": partial(turned, 1),
    "turned_by_2": partial(turned, 2),
}


def read(name: str, data: Data, split: Split) -> Iterable[Row]:
    """Words of a split of the paper's puzzles, changed by a rule."""
    for row in scrambling.read("reversed_words", data, split):
        word = str(row["completion"]).strip()
        yield Row({"context": f"{RULES[name](word)} =", "completion": word}, f"{name}/{row.where}")


def _word_task(name: str) -> Task:
    title = name.replace("_", " ").capitalize()
    return replace(
        scrambling.REVERSED, name=name, title=title, read=partial(read, name), shots=SHOTS, description="",
        max_new_tokens=16, published="",
    )  # fmt: skip


# No number of the paper's stands beside: its models had not read pages of puzzles.
TASKS: dict[str, Task] = {
    **{name: _word_task(name) for name in RULES},
    "2d+": replace(arithmetic.PLUS_2, shots=SHOTS, published=""),
}


# ---------------------------------------------------------------------------------------------------- the text


def pages(name: str, random: Random) -> Iterator[str]:
    """Endless pages of one task, as its few-shot prompts read."""
    task = TASKS[name]
    while True:
        rows = (_word(name, random) if name in RULES else _sum(random) for _ in range(PUZZLES))
        yield task.separator.join(problem.shot for row in rows for problem in task.ask(row))


def _word(name: str, random: Random) -> Row:
    """Of the train set, or made up, so that it is the rule that is learned and not the list."""
    word = random.choice(_words()) if random.random() < 0.3 else made_up(_followers(), random)
    return Row({"context": f"{RULES[name](word)} =", "completion": word}, "pages")


def _sum(random: Random) -> Row:
    while True:
        asked, answer = arithmetic.two_numbers(2, "plus", random)
        context = f"Q: What is {asked}?\n\nA:"
        if context not in _held():
            return Row({"context": context, "completion": str(answer)}, "pages")


def made_up(followers: Mapping[str, str], random: Random) -> str:
    """Five to nine letters, each one that follows the letter before it in some word.

    Example  >>> made_up({"^": "b", "b": "a", "a": "bbb$"}, Random(1))
             'babababa'
    """
    while True:
        word, letter = "", "^"
        while letter != "$" and len(word) < 10:
            letter = random.choice(followers[letter])
            word += letter.strip("$")
        if 5 <= len(word) <= 9:
            return word


@cache
def _words() -> list[str]:
    """The words of the train set."""
    return [str(row["completion"]).strip() for row in scrambling.read("reversed_words", Data(), "train")]


@cache
def _followers() -> Mapping[str, str]:
    """What follows each letter in the words of the train set; ^ and $ stand around a word."""
    found = defaultdict[str, str](str)
    for word in _words():
        for letter, following in zip(f"^{word}", f"{word}$", strict=True):
            found[letter] += following
    return dict(found)


@cache
def _held() -> frozenset[str]:
    """The sums of dev and test."""
    splits: tuple[Split, ...] = ("dev", "test")
    return frozenset(str(row["context"]).strip() for split in splits for row in TASKS["2d+"].read(Data(), split))


def _write(path: Path, n: int, seed: int) -> None:
    """All pages, kinds in random order, one JSON object a page."""
    order = Random(f"{seed}/order")
    endless = {name: pages(name, Random(f"{seed}/{name}")) for name in TASKS}
    texts = (next(endless[order.choice(list(TASKS))]) for _ in range(n))
    write_atomically(path, "".join(json.dumps({"text": text}) + "\n" for text in texts))
