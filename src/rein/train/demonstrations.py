"""What a supervised start learns from: rows with an answer, of files or straight from a labeling store, as tokens.

Flow     JSON lines, or demonstrations and corrected texts of a project ─ text/prompts.py → `Demonstration`
         → `Demonstrations`: train, heldout, and what was left out and why

Held out is what --heldout names; else the rows of another split than train; else a share of the queries, by their
hashes. A query that is trained on is never held out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.feedback.exchange.exporting import open_export
from rein.feedback.exchange.rows import Answer
from rein.feedback.store import Store
from rein.models.rows import Completion, batches
from rein.text.prompts import (
    PromptFormat,
    Query,
    Unfit,
    answer_of,
    encode_query,
    encode_response,
    encode_turns,
    has_turns,
    numbered_rows,
    query_of,
)
from rein.text.split import unit_hash
from rein.train.sft_config import SFTConfig, known

Json = Any
Row = Mapping[str, Json]
TRAIN = "train"
KINDS = ("demonstration", "edit")


@dataclass(frozen=True)
class Lesson:
    """Tokens to read and tokens to learn."""

    completion: Completion
    learned: tuple[bool, ...]  # which tokens of its response count

    @property
    def n_learned(self) -> int:
        """How many tokens count."""
        return sum(self.learned)


@dataclass(frozen=True)
class Demonstration(Lesson):
    """A query with an answer."""

    asked: tuple[int, ...]  # what a model is asked, to compare what it writes
    query: Query


def of_text(windows_BT: Tensor) -> list[Lesson]:
    """Windows of text as lessons: all tokens but a window's first are learned.

    Shapes   windows_BT (B, T + 1) token ids, as in pretraining_text.py. The last one of each is left out: a lesson is
             read to its end, and no more than T tokens fit a model.
    Example  >>> from torch import tensor
             >>> of_text(tensor([[5, 6, 7, 8]]))
             [Lesson(completion=Completion(query=(5,), response=(6, 7)), learned=(True, True))]
    """
    rows = ((int(first), tuple(rest)) for first, *rest in windows_BT[:, :-1].tolist())
    return [Lesson(Completion((first,), rest), (True,) * len(rest)) for first, rest in rows]


@dataclass(frozen=True)
class Demonstrations:
    """Those to train on and those that are held out; lines that say what was read and left out."""

    train: tuple[Demonstration, ...]
    heldout: tuple[Demonstration, ...]
    notes: tuple[str, ...]

    def sha256(self) -> str:
        """Of all tokens, in order: another file under the same name is another run."""
        digest = hashlib.sha256()
        for part in (self.train, self.heldout):
            for each in part:
                digest.update(repr((each.completion, each.learned)).encode())
            digest.update(b"\x00")
        return digest.hexdigest()


def read(config: SFTConfig, format: PromptFormat, tokenizer: Tokenizer, *, n_ctx: int) -> Demonstrations:
    """The demonstrations that settled settings name.

    Raises   UserError when a file or a project cannot be read, or nothing is left to train on or to hold out.
    """
    left_out: dict[str, list[str]] = {}
    rows = [row for path in config.data for row in _rows_of(path)]
    if config.store:
        rows += _rows_of_store(config.store, config.project)
    some = _encoded(rows, config, format, tokenizer, n_ctx, left_out)
    if config.heldout:
        heldout_rows = [row for path in config.heldout for row in _rows_of(path)]
        train = [each for each in some if each.query.split == TRAIN]
        heldout = _encoded(heldout_rows, config, format, tokenizer, n_ctx, left_out)
    elif any(each.query.split != TRAIN for each in some):
        train, heldout = _apart(some, lambda each: each.query.split == TRAIN)
    else:
        train, heldout = _apart(some, lambda each: unit_hash(each.query.text, config.seed) >= config.heldout_frac)
    asked = {each.asked for each in train}
    for each in heldout:
        if each.asked in asked:
            left_out.setdefault("held out, but its query is trained on", []).append(each.query.where)
    heldout = [each for each in heldout if each.asked not in asked]
    notes = [
        f"{len(where):,} left out: {reason} ({', '.join(where[:3])}{', …' if len(where) > 3 else ''})"
        for reason, where in left_out.items()
    ]
    for name, part in (("to train on", train), ("held out", heldout)):
        if not part:
            said = "; ".join(notes) or "no row is of that split"
            raise UserError(
                f"No demonstration is {name}: {said}.",
                f"Give rows that fit the format {format.name} (--format, --query-tokens, --response-tokens), and "
                "--heldout, another split than train, or --heldout-frac.",
            )
    notes.insert(0, f"{len(train):,} demonstrations, {sum(each.n_learned for each in train):,} tokens to learn; "
                    f"{len(heldout):,} held out")  # fmt: skip
    return Demonstrations(tuple(train), tuple(heldout), tuple(notes))


def _apart(some: Sequence[Demonstration], trains: Any) -> tuple[list[Demonstration], list[Demonstration]]:
    return [each for each in some if trains(each)], [each for each in some if not trains(each)]


# -------------------------------------------------------------------------------------------------- what goes together


def groups(some: Sequence[Lesson], *, n_ctx: int, at_once: int, pack: bool) -> list[list[int]]:
    """Places in `some`, grouped for one forward pass each: of like lengths; or, packed, as many full rows as fit."""
    lengths = [len(each.completion) for each in some]
    if not pack:
        return batches(lengths, at_once)
    filled = packed(lengths, n_ctx)
    n = max(1, at_once // n_ctx)
    return [[place for row in filled[first : first + n] for place in row] for first in range(0, len(filled), n)]


def packed(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Places in `lengths`, row by row: each, the longest first, in the first row with room for it.

    `rows.lay_out` makes the same rows of them, in this order: what begins a row found no room in any before it.

    Example  >>> packed([3, 6, 4, 5, 1], 9)
             [[1, 0], [3, 2], [4]]
    """
    filled: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        row = next((row for row, left in enumerate(room) if left >= lengths[place]), len(room))
        if row == len(room):
            filled.append([])
            room.append(width)
        filled[row].append(place)
        room[row] -= lengths[place]
    return filled


# --------------------------------------------------------------------------------------------------------- tokens


def _encoded(
    rows: Sequence[tuple[str, Row]],
    config: SFTConfig,
    format: PromptFormat,
    tokenizer: Tokenizer,
    n_ctx: int,
    left_out: dict[str, list[str]],
) -> list[Demonstration]:
    found = []
    for where, row in rows:
        try:
            found.append(demonstration(row, where, config, format, tokenizer, n_ctx=n_ctx))
        except Unfit as problem:
            left_out.setdefault(str(problem), []).append(where)
    return found


def demonstration(
    row: Row, where: str, config: SFTConfig, format: PromptFormat, tokenizer: Tokenizer, *, n_ctx: int
) -> Demonstration:
    """A row as tokens, and which of them are learned.

    Raises   Unfit when it lacks a field or an answer, or is too long.
    """
    query = query_of(format, row, where)
    if format.turns and has_turns(row):
        ids, response, learned = encode_turns(row, tokenizer, format, last_only=config.turns == "last")
    else:
        text = answer_of(row)
        if text is None:
            raise Unfit("no answer: neither reference, response, completion, output nor summary")
        ids, response = encode_query(format, row, tokenizer), encode_response(text, tokenizer, format)
        learned = (True,) * len(response)
    if len(ids) + len(response) > n_ctx:
        raise Unfit(f"query and response are longer than the context of {n_ctx}")
    asked = encode_query(format, row, tokenizer)
    if known(config.loss_on) == "all":
        ids, response = ids[:1], (*ids[1:], *response)
        learned = (True,) * len(response)
    return Demonstration(Completion(ids, response), learned, asked, query)


# ----------------------------------------------------------------------------------------------------------- rows


def _rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file; a task of self-instruct's seeds is a row for each of its instances."""
    for where, row in numbered_rows(path):
        if isinstance(row.get("instances"), list):
            for instance in row["instances"]:
                yield where, {**row, **instance} if isinstance(instance, dict) else row
        else:
            yield where, row


def _rows_of_store(address: str, project: str) -> list[tuple[str, Row]]:
    """What people wrote, and what they corrected, as rows: the fields that they saw, and their text.

    Raises   UserError when there is no such store or project, or nobody wrote anything there.
    """
    with Store.open(address, to_read=True) as store, store.reading() as conn:
        export = open_export(conn, project, secret=store.secret)
        rows = [(f"{project}:{said.item.key}", _row_of(said)) for said in export.said(*KINDS)]
    if not rows:
        raise UserError(
            f"The project {project} has no demonstrations and no corrected texts.",
            "Ask for a demonstration or an edit (`rein label new`), or give --data.",
        )
    return rows


def _row_of(said: Answer) -> Row:
    item, text = said.item, str(said.value["text"])
    row: dict[str, Json] = {**item.context, "reference": text, "split": item.split, "id": item.key}
    if "messages" in item.extra:
        row["messages"] = [*item.extra["messages"], {"role": "assistant", "content": text}]
    return row


# ------------------------------------------------------------------------------------------------------- checkpoint


def pad_note(path: Path) -> str | None:
    """A line for a model folder that declares its padding to be the end of text; None for any other.

    Elsewhere such a pad is masked out of the loss, and the end of text with it, so that a model never learns to stop.
    """
    folder = checkpoint.chosen(path)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"):
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for pad, eos in (("pad_token", "eos_token"), ("pad_token_id", "eos_token_id")):
            if isinstance(said, dict) and said.get(pad) is not None and said.get(pad) == said.get(eos):
                return (
                    f"{name} declares {pad} to be {eos}. Nothing is padded here: "
                    "the end of text is learned like any other token."
                )
    return None
