"""`rein eval demo`: a small model learns puzzles from text, and how much examples in the prompt help it.

    1  text       pages of puzzles, each page of one kind: words reversed, turned round, with signs in between; sums
    2  pre-train  a small GPT on bytes, as on any text
    3  evaluate   GPT-3's protocol: 0, 1, 2, 4 … examples; K chosen on dev, run once on test

"taefed =" does not say which puzzle it is; the examples in front do. So the score rises with their number: what Brown
2020 calls in-context learning, at a size that trains in minutes. No question of dev or test is in the text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

from rein.config import setting
from rein.errors import UserError, writing
from rein.evals.data import Data, Row
from rein.evals.evaluate import evaluate, table
from rein.evals.language_model import Ours
from rein.evals.report import write_report
from rein.evals.responses import Responses
from rein.evals.task import Problem, Task
from rein.evals.tasks import arithmetic, scrambling
from rein.evals.tasks.table import load
from rein.progress import duration
from rein.run import lock_folder, write_atomically
from rein.text.build import BuildConfig, build
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig

KINDS = ("reversed_words", "cycled_letters", "symbol_insertion", "2d+")
PAGES = 24_000
PUZZLES = {"word": 24, "sum": 12}  # on a page, which is about as long as the model's context
LETTERS = "etaoinshrdlucmfwypvbgkqjxz"


@dataclass(frozen=True)
class InContextConfig:
    """Settings of `rein eval demo`."""

    out: Path = setting(Path("runs/in-context"), "folder for the text, the run and the evaluation")
    train_tokens: int = setting(6_000_000, "to train on; a token is a byte", unit="tokens")
    problems: int = setting(300, "of each dev and test set that are asked", unit="problems")
    seed: int = setting(0, "of the text, the weights and the shots")

    def __post_init__(self) -> None:
        if self.problems < 1:
            raise UserError(f"--problems is {self.problems}.", "Ask at least one.")


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
            _write(pages, config.seed)
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
                model, [_asked(kind) for kind in KINDS], data=Data(), responses=kept, out=evaluation,
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
    """A GPT of a million weights."""
    return PretrainConfig(
        data=corpus,
        out=config.out / "pretrain",
        n_layer=4,
        n_embd=128,
        n_head=4,
        n_ctx=512,
        train_tokens=config.train_tokens,
        sequences_per_batch=16,
        learning_rate=3e-3,
        heldout_tokens=50_000,
        checkpoint_every_s=30.0,
        seed=config.seed,
    )


def pages(kind: str, random: Random) -> Iterator[str]:
    """Endless pages of one kind, as a few-shot prompt of it reads; a page in four begins without the instruction."""
    task = _task(kind)
    while True:
        description = [task.description] if task.description and random.random() < 0.75 else []
        yield task.separator.join([*description, *(problem.shot for problem in _puzzles(kind, task, random))])


def _puzzles(kind: str, task: Task, random: Random) -> Iterator[Problem]:
    """Those of one page: of words of the train set and of letters in any order, so that a rule is learned; or sums."""
    if kind in scrambling.KINDS:
        words, change = _learned(kind), scrambling.KINDS[kind][2]
        for _ in range(PUZZLES["word"]):
            word = random.choice(words) if random.random() < 0.5 else _letters(random)
            yield from task.ask(_row(f"{change(word, random)} =", word))
        return
    held, draw = _held(kind), arithmetic.KINDS[kind][2]
    for _ in range(PUZZLES["sum"]):
        while True:
            asked, answer = draw(random)
            if (context := f"Q: What is {asked}?\n\nA:") not in held:
                break
        yield from task.ask(_row(context, str(answer)))


def _letters(random: Random) -> str:
    return "".join(random.choices(LETTERS, k=random.randint(5, 10)))


def _row(context: str, completion: str) -> Row:
    return Row({"context": context, "completion": completion}, "pages")


def _task(kind: str) -> Task:
    return load("gpt3", kind)


@cache
def _learned(kind: str) -> list[str]:
    """The words of the train set."""
    return [str(row["completion"]).strip() for row in _task(kind).read(Data(), "train")]


@cache
def _held(kind: str) -> frozenset[str]:
    """The questions of dev and test."""
    return frozenset(
        str(row["context"]).strip() for split in ("dev", "test") for row in _task(kind).read(Data(), split)
    )


def _write(path: Path, seed: int) -> None:
    """All pages, kinds in random order, one JSON object a page."""
    order = Random(f"{seed}/order")
    endless = {kind: pages(kind, Random(f"{seed}/{kind}")) for kind in KINDS}
    texts = (next(endless[order.choice(KINDS)]) for _ in range(PAGES))
    with writing(path):
        write_atomically(path, "".join(json.dumps({"text": text}) + "\n" for text in texts))


def _asked(kind: str) -> Task:
    """The task with no more shots than a page had puzzles: behind more, the model has never read."""
    return replace(_task(kind), shots=16 if kind in scrambling.KINDS else 8)
