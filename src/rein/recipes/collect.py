"""A stage of `rein demo`: comparisons of what was learned, collected through the labeling server.

    1  draw      continuations of held-out text by the final model and by an early checkpoint, and the text that really
                 came next, two by two
    2  compare   simulated labelers answer them by HTTP, as people would: blind, sides shuffled, three for each pair
    3  report    how often they agree, and how often each policy wins

The labelers' gold score is plain: how likely the characters of a continuation are, by counts of one to six of them in
the training text. It stands in for people so that the whole way can be seen in a minute; it tells spelling and phrases
from noise, and knows nothing of truth or use. Some pairs are shared by all: with `rein label serve` on the store, you
get them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.evals.win_rate import win_rates
from rein.feedback import people, tables
from rein.feedback.agreement import report
from rein.feedback.client import AsyncClient
from rein.feedback.draw import REFERENCE, DrawConfig, draw
from rein.feedback.items import create_project
from rein.feedback.labelers import GoldScore, Habits, Labeler, agreement
from rein.feedback.project import Project, Question
from rein.feedback.simulated_work import at_work, crew, keys_of
from rein.feedback.store import Store
from rein.models.huggingface import read_config
from rein.report.legible import percent
from rein.run import write_atomically
from rein.text.shards import Shards
from rein.web.app import bind, make_server
from rein.web.label.serve import application
from rein.web.label.service import Service

PROJECT = Project(
    "demo",
    title="Which goes on better?",
    questions=(Question("choice", "comparison", "Which goes on better from the text above?"),),
    fields=("text",),
    overlap=3,
)
GROUPS = "final:early=0.4,final:ref=0.3,early:ref=0.3"
SHORT = "final:ref=1"  # of a run so short that it has no early checkpoint
PAIRS, SHARED = 120, 20  # for three labelers each; for all of them, and for you
PROMPT_TOKENS, ANSWER_TOKENS = 48, 32
LABELERS = 5
HABITS = Habits(noise=0.05, side=0.2)  # the temperature comes from the texts
LONGEST = 6  # characters that are counted together
CHARS_COUNTED = 1_000_000


def collect(corpus: Path, run: Path, out: Path, *, seed: int) -> Path:
    """Draws pairs, has them compared, and says what came out; returns the store. What is there already stays.

    corpus   the token shards that the run was trained on
    run      a finished pre-training
    """
    path = out / "labels.db"
    settings = _pairs(corpus, run, out, path, seed)
    draw(settings)
    draw(replace(settings, n=SHARED, role="calibration", batch="shared", seed=seed + 1))
    gold = Likely.of_corpus(corpus)
    with Store.open(path) as store:
        labelers = _labelers(store, gold, seed)
        began = time.monotonic()
        with _served(store) as address:
            answered = asyncio.run(_work(store, address, labelers))
        took_s = time.monotonic() - began
        print(f"{answered:,} answers by {LABELERS} simulated labelers in {took_s:.0f} s, through {address}")
        for line in _said(store, labelers[0]):
            print(line)
    return path


# ---------------------------------------------------------------------------------------------------------- the pairs


def _pairs(corpus: Path, run: Path, out: Path, path: Path, seed: int) -> DrawConfig:
    """A project to put pairs into, prompts of held-out text, and what the pairs are to be drawn from."""
    steps = checkpoint.all_steps(run / "checkpoints")
    models = {"final": steps[-1], "early": steps[0]} if len(steps) > 1 else {"final": steps[-1]}
    with Store.open(path, create=True) as store:
        store.write(_make_project)
    n_ctx = read_config(steps[-1]).n_ctx
    n_prompt, n_answer = min(PROMPT_TOKENS, n_ctx // 4), min(ANSWER_TOKENS, n_ctx // 4)
    prompts = out / "prompts.jsonl"
    if not prompts.exists():
        rows = held_out(Shards(corpus, "heldout"), load_tokenizer(corpus), n_prompt, n_answer, PAIRS)
        write_atomically(prompts, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return DrawConfig(
        project=PROJECT.name, prompts=prompts, store=str(path), references=True, n=PAIRS, seed=seed,
        policy=tuple(f"{name}={path}" for name, path in models.items()), pairs=GROUPS if "early" in models else SHORT,
        max_new_tokens=n_answer,
    )  # fmt: skip


def _make_project(conn: Connection) -> None:
    """The project, and its researcher: whoever comes in by the link that `rein label serve` prints."""
    if conn.execute(select(tables.project.c.id).where(tables.project.c.name == PROJECT.name)).first() is None:
        now = _now_ms()
        project = create_project(conn, now, PROJECT)
        people.join(conn, now, project, people.add_person(conn, now, "researcher", "admin"), "working")


def held_out(shards: Shards, tokenizer: Tokenizer, n_prompt: int, n_answer: int, most: int) -> list[dict[str, str]]:
    """Prompts with what really came next: the first long paragraph of a document, cut where a word begins."""
    rows: list[dict[str, str]] = []
    for tokens in shards.iter_documents():
        if len(rows) == most:
            break
        for paragraph in tokenizer.decode(tokens[:-1]).split("\n\n"):
            ids = tokenizer.encode(paragraph.strip())
            if len(ids) >= n_prompt + n_answer:
                begins = (n for n in range(n_prompt, 0, -1) if tokenizer.decode(ids[n : n + 1])[:1].isspace())
                cut = next(begins, n_prompt)
                text, reference = tokenizer.decode(ids[:cut]), tokenizer.decode(ids[cut : cut + n_answer])
                rows.append({"text": text, "reference": reference})
                break
    return [row for row in rows if row["text"].strip() and row["reference"].strip()]


# --------------------------------------------------------------------------------------------------------- the judges


class Likely:
    """A gold score: the mean log-likelihood of a text's characters behind its prompt, by counts of up to six of them.

        P_k(c | the k − 1 characters before) = (n(those, c) + 5 P_{k−1}(c)) / (n(those) + 5),   P_0 = 1 / 256
        s = mean over characters of log P_6

    Units    nats a character.
    Example  >>> gold = Likely("the cat sat on the mat. the dog sat on the rug. " * 9)
             >>> gold({"text": "the dog"}, "sat on the mat.") > gold({"text": "the dog"}, "mat the on sat.")
             True
    Source   MacKay & Peto 1995, for counts that lean on those of shorter histories.
    """

    def __init__(self, text: str) -> None:
        self._n = [Counter({"": len(text)})]
        for k in range(1, LONGEST + 1):
            self._n.append(Counter(text[at : at + k] for at in range(len(text) - k + 1)))

    @classmethod
    def of_corpus(cls, corpus: Path) -> Likely:
        """Of the first documents of the text to train on."""
        shards, tokenizer = Shards(corpus, "train"), load_tokenizer(corpus)
        some: list[str] = []
        n_chars = 0
        for tokens in shards.iter_documents():
            some.append(tokenizer.decode(tokens[:-1]))
            n_chars += len(some[-1])
            if n_chars > CHARS_COUNTED:
                break
        return cls("\n\n".join(some)[:CHARS_COUNTED])

    def __call__(self, context: Mapping[str, Any], text: str) -> float:
        """s of a text; of an empty one as if it were all unknown."""
        before = str(context.get("text", ""))[-LONGEST:] + " "
        line = before + text
        logs = [math.log(self._chance(line, at)) for at in range(len(before), len(line))]
        return sum(logs) / len(logs) if logs else -math.log(256)

    def _chance(self, line: str, at: int) -> float:
        chance = 1 / 256
        for k in range(1, LONGEST + 1):
            history = line[max(at - k + 1, 0) : at]
            chance = (self._n[k][history + line[at]] + 5 * chance) / (self._n[k - 1][history] + 5)
        return chance


def _labelers(store: Store, gold: Likely, seed: int) -> list[Labeler]:
    """Labelers whose temperature is a third of a usual difference of gold scores: they agree about as people do."""
    with store.reading() as conn:
        rows = conn.execute(select(tables.item.c.context, tables.item.c.candidates)).all()
    differences = [_difference(gold, row) for row in rows]
    usual = float(np.sqrt(np.mean(np.square(differences)))) or 1.0
    names = [f"simulated-{number}" for number in range(1, LABELERS + 1)]
    return crew(names, gold, replace(HABITS, temperature=usual / 3), seed=seed)


def _difference(gold: GoldScore, row: Any) -> float:
    first, second = (gold(row.context, one["text"]) for one in row.candidates)
    return first - second


async def _work(store: Store, address: str, labelers: Sequence[Labeler]) -> int:
    keys = keys_of(store, PROJECT.name, [labeler.name for labeler in labelers])

    async def one(labeler: Labeler, key: str) -> int:
        async with AsyncClient(address, key=key) as client:
            return (await at_work(client, labeler, PROJECT.name)).answered

    return sum(await asyncio.gather(*map(one, labelers, keys)))


@contextlib.contextmanager
def _served(store: Store) -> Iterator[str]:
    """The labeling server, in a thread, on any free port of loopback."""
    sock = bind("127.0.0.1", 0)
    sock.listen(128)
    server = make_server(application(Service(store)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# ---------------------------------------------------------------------------------------------------- what came out


def _said(store: Store, labeler: Labeler) -> Iterator[str]:
    """Agreement, with what the labelers' habits lead to, and each policy's win rate; with intervals."""
    with store.reading() as conn:
        (question,) = report(conn, PROJECT.name)["questions"]
        rows = conn.execute(
            select(tables.answer.c.choice, tables.item.c.id, tables.item.c.context, tables.item.c.candidates)
            .join(tables.item, tables.item.c.id == tables.answer.c.item)
            .where(tables.answer.c.turn == 0)
        ).all()
    found = question["aspects"][0]["agreement"]["labeler_labeler"]
    if found["value"] is None:
        yield f"agreement         {found['why']}"
    else:
        said = _between(found["value"], found["low"], found["high"])
        answers, items = Counter(row.id for row in rows), {row.id: row for row in rows}
        differences = [
            _difference(labeler.gold, items[id]) for id, n in answers.items() for _ in range(n * (n - 1) // 2)
        ]  # of every two answers to a pair
        expected = percent(agreement(differences, labeler.habits, labeler.habits))
        yield f"agreement         {said} of two labelers' choices; to be expected of their habits: {expected}"
    for a, b in (("final", "early"), ("final", REFERENCE), ("early", REFERENCE)):
        some = [row for row in rows if {one["policy"] for one in row.candidates} == {a, b}]
        if not some:
            continue
        wins, lengths = [], []
        for row in some:
            ours = next(k for k, one in enumerate(row.candidates) if one["policy"] == a)
            wins.append(0.5 if row.choice == -1 else float(row.choice == ours))
            lengths.append([len(row.candidates[k]["text"]) for k in (ours, 1 - ours)])
        lengths_a, lengths_b = zip(*lengths, strict=True)
        rate = win_rates(wins, lengths_a, lengths_b, clusters=[str(row.id) for row in some], difference="log")
        yield (
            f"{a + ' over ' + b:<17} {_between(rate.raw.value, rate.raw.low, rate.raw.high)}; at equal length "
            f"{_between(rate.controlled.value, rate.controlled.low, rate.controlled.high)}"
        )


def _between(value: float, low: float, high: float) -> str:
    return f"{percent(value)} ({percent(low)} to {percent(high)})"
