"""What people preferred, ready for a reward model: from a store, or from any file of preferences that is read.

Flow     a store and a project, or files (exchange/table.py) → `Judged`: a prompt, candidates, ranks or marks, by whom
         → `tidy`: what nothing can be learned from is left out, and counted by reason
         → `parted`: training, dev and test, by prompt

A comparison is a ranking of two, an edit one whose better text is the corrected one. Of a ranking and ratings in one
judgement the ranking counts, as in an export (exchange/writing.py): both say which is better, and say it once.
Source   Stiennon 2020, App. C; Ouyang 2022, section 3.5.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rein.errors import UserError
from rein.feedback.exchange.exporting import open_export
from rein.feedback.exchange.importing import guess, parsed
from rein.feedback.exchange.rows import BATCH, SPLIT, Answer, Asked, Bad, Item, Parsed, Said, digest
from rein.feedback.exchange.table import FORMATS, named_format
from rein.feedback.exchange.texts import completion_text
from rein.feedback.exchange.writing import PREFERENCES, preferring
from rein.feedback.kinds import EVEN, KINDS
from rein.feedback.project import Question
from rein.feedback.store import Store

Json = Any
Kind = Literal["ranking", "best_of", "rating"]
Part = Literal["train", "dev", "test"]

EDITED = "edit"  # the policy of a text that a person corrected
HELD_OUT = ("valid", "test", "dev", "heldout", "eval")  # what the name of a held-out split begins with
REFERENCES = ("ref", "reference")  # the policy of a candidate that is the reference


@dataclass(frozen=True)
class Candidate:
    """A text that was judged, and who wrote it."""

    text: str
    policy: str = ""


@dataclass(frozen=True)
class Judged:
    """One judgement of one item.

    `marks` are ranks of a ranking, 1 the best; 1 for the best and 2 for the others of a best_of; ratings, higher
    better. `points` is how far from even a comparison was said to be, 0 to 4; None where nobody said. `p` is how likely
    it is that the ranking is this way round, where that is known (feedback/trust.py).
    `query` has the fields that a prompt is made of (text/prompts.py), `topic` what must not be torn apart by a split.
    """

    query: Mapping[str, Json]
    candidates: tuple[Candidate, ...]
    kind: Kind
    marks: tuple[float, ...]
    labeler: str
    item: str
    topic: str
    points: int | None = None
    p: float = 1.0
    batch: str = ""
    split: str = "train"

    @property
    def prompt(self) -> str:
        """A name of what was asked: the same for the same fields."""
        return digest(dict(self.query))

    def pairs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(better, worse) candidates, and those that are even; of a best_of nothing is known of the others."""
        n = range(len(self.candidates))
        worth = [-mark if self.kind != "rating" else mark for mark in self.marks]
        if self.kind == "best_of":
            best = self.marks.index(1)
            return [(best, other) for other in n if other != best], []
        better = [(i, j) for i in n for j in n if worth[i] > worth[j]]
        return better, [(i, j) for i in n for j in n if i < j and worth[i] == worth[j]]


# ------------------------------------------------------------------------------------------------------- reading


def from_store(
    address: str, project: str, *, question: str = "", batches: Sequence[str] = ()
) -> tuple[list[Judged], list[tuple[dict[str, Json], str]]]:
    """The judgements that stand in a project, in the order in which they were said, and its demonstrations.

    Labelers go by their pseudonyms. Practice is left out.

    Raises   UserError for an unknown store, project, question or batch, and a project that asks for no preference.
    """
    with Store.open(address, to_read=True) as store, store.reading() as conn:
        export = open_export(conn, project, secret=store.secret, question=question, batches=batches)
        judged = [each for answer in preferring(export) if (each := _of_answer(answer)) is not None]
        shown = [(query_of_item(one.item), str(one.value["text"])) for one in export.said("demonstration")]
        kinds = {one.kind for one in export.settings.questions}
    if not judged and not kinds & set(PREFERENCES):
        raise UserError(
            f"The project {project} asks for {', '.join(sorted(kinds))}: nothing of it says what is better.",
            f"Name a --project that asks for one of {', '.join(PREFERENCES)}.",
        )
    return judged, shown


def from_file(path: Path, format: str = "") -> tuple[list[Judged], list[Bad]]:
    """The judgements in a file of preferences, in its order, and the lines that are none, with why.

    format   of `exchange.table.FORMATS`; "": told by the first row

    Raises   UserError where the file cannot be read, is of no format that is known, or holds no preferences.
    """
    how = named_format(format) if format else guess(path)
    if how.reads is None or how.name in ("rein", "prompts"):
        fix = "Import it with `rein label import` and give --store and --project."
        fits = [one.name for one in FORMATS.values() if one.reads and one.name not in ("rein", "prompts")]
        raise UserError(
            f"{path} is of the format {how.name}, of which no judgement can be read as it is.",
            fix if how.name == "rein" else f"Give a file of one of these: {', '.join(fits)}.",
        )
    judged, bad = list[Judged](), list[Bad]()
    for one in parsed(path, how, _of_line):
        if isinstance(one, Bad):
            bad.append(one)
        else:
            judged += one
    return judged, bad


def _of_line(line: Parsed, _: Mapping[str, Json]) -> list[Judged]:
    return [each for asked, said in line.items for each in _of_file(asked, said)]


def _of_file(asked: Asked, said: Sequence[Said]) -> Iterator[Judged]:
    """What a line says of one item: each person's first kind of preference, and what they corrected."""
    item = Item(
        0, asked.name, asked.batch or BATCH, asked.role, asked.split or SPLIT, asked.context, asked.candidates,
        asked.extra, asked.same or None,
    )  # fmt: skip
    first: dict[str, str] = {}
    for kind in PREFERENCES:
        for one in said:
            if one.kind == kind and one.act == "say":
                first.setdefault(one.person, kind)
    for one in said:
        if one.act == "say" and one.kind in PREFERENCES and one.kind in (first[one.person], EDITED):
            n = len(asked.candidates)
            value = KINDS[one.kind].check(one.value, Question(one.kind, one.kind), n, strict=False)
            answer = Answer(item, one.person, one.question, one.kind, value, one.shown, one.extra, 0, 0, None, {})
            if (found := _of_answer(answer)) is not None:
                yield found


def _of_answer(answer: Answer) -> Judged | None:
    """An answer as ranks or marks; None for marks of which the axis overall is missing."""
    item, value = answer.item, answer.value
    candidates = tuple(
        Candidate(completion_text(item, n), str(one.get("policy", ""))) for n, one in enumerate(item.candidates)
    )
    kind: Kind = "ranking"
    points = None
    if answer.kind == "comparison":
        choice, said = value["choice"], value.get("points")
        marks = [1, 1] if choice is None else [1 + (choice == 1), 1 + (choice == 0)]
        points = None if said is None else abs(said - EVEN)
    elif answer.kind == "ranking":
        marks = list(value["ranks"])
    elif answer.kind == "best_of":
        kind, marks = "best_of", [1 + (n != value["best"]) for n in range(len(candidates))]
    elif answer.kind == "edit":
        candidates, marks = (candidates[value["candidate"]], Candidate(str(value["text"]), EDITED)), [2, 1]
    else:
        kind = "rating"
        marks = value["ratings"] if answer.kind == "rating" else [one.get("overall") for one in value["axes"]]
        if None in marks:
            return None
    key = item.key + ("/edit" if answer.kind == "edit" else "")
    return Judged(
        query_of_item(item), candidates, kind, tuple(map(float, marks)), answer.person, key,
        item.document or digest(dict(item.context)), points, 1.0, item.batch, item.split,
    )  # fmt: skip


def query_of_item(item: Item) -> dict[str, Json]:
    """The fields of the prompt, and its messages where it came as such."""
    return {**item.context, **({"messages": item.extra["messages"]} if "messages" in item.extra else {})}


# -------------------------------------------------------------------------------------------------------- tidying


def tidy(judged: Iterable[Judged], *, ties_count: bool) -> tuple[list[Judged], Counter[str]]:
    """The judgements that something can be learned from, and how many were left out, by reason.

    Of equal texts that are ranked alike one is kept; ranked differently, the judgement contradicts itself.

    Example  >>> same = Judged({"prompt": "p"}, (Candidate("a"), Candidate("a")), "ranking", (1, 2), "w", "1", "t")
             >>> tidy([same], ties_count=True)
             ([], Counter({'equal texts, of which one is said to be better': 1}))
    """
    kept, dropped = list[Judged](), Counter[str]()
    for each in judged:
        why, clean = _tidied(each, ties_count)
        if clean is None:
            dropped[why] += 1
        else:
            kept.append(clean)
    return kept, dropped


def _tidied(each: Judged, ties_count: bool) -> tuple[str, Judged | None]:
    if not all(map(math.isfinite, each.marks)):
        return "a mark that is no finite number", None
    mark_of: dict[str, float] = {}
    keep = list[int]()
    for place, (one, mark) in enumerate(zip(each.candidates, each.marks, strict=True)):
        if mark_of.setdefault(one.text, mark) != mark:
            return "equal texts, of which one is said to be better", None
        if all(each.candidates[other].text != one.text for other in keep):
            keep.append(place)
    each = replace(
        each, candidates=tuple(each.candidates[place] for place in keep),
        marks=tuple(each.marks[place] for place in keep),
    )  # fmt: skip
    if each.kind == "rating":
        return "", each
    if len(keep) < 2:
        return "a single text", None
    if not ties_count and len(set(each.marks)) == 1:
        return "nothing but ties", None
    return "", each


def parted(
    judged: Sequence[Judged], *, heldout_frac: float, seed: int
) -> tuple[dict[Part, list[Judged]], str, Counter[str]]:
    """Training, dev and test judgements, how they were told apart, and how many were left out, by reason.

    Splits that have names of held-out ones (valid1, test, …) are kept, and what of the training set has one of their
    prompts is left out. Without such names a share of the topics is held out, chosen by a hash. Of held-out topics one
    half is dev, by which models are selected, and the other test: by name where there are two, else by a hash.

    Raises   UserError where one of the three is empty.
    """
    names = sorted(
        {each.split for each in judged if each.split.startswith(HELD_OUT)},
        key=lambda name: (name.startswith("test"), name),
    )
    parts: dict[Part, list[Judged]] = {"train": [], "dev": [], "test": []}
    dropped = Counter[str]()
    held = {each.topic for each in judged if each.split in names}
    for each in judged:
        draw = int(digest([seed, each.topic]), 16) / 16.0**32
        half: Part = "dev" if int(digest([seed, "half", each.topic]), 16) % 2 else "test"
        if not names:
            parts[half if draw < heldout_frac else "train"].append(each)
        elif each.split in names:
            parts[half if len(names) == 1 else "dev" if each.split == names[0] else "test"].append(each)
        elif each.topic in held:
            dropped["training, but its prompt is held out too"] += 1
        else:
            parts["train"].append(each)
    for part, some in parts.items():
        if not some:
            topics = len({each.topic for each in judged})
            raise UserError(
                f"Of {len(judged):,} judgements of {topics:,} prompts none is left for {part}.",
                "Give more judgements, or another --heldout-frac.",
            )
    how = f"by their splits ({', '.join(names)})" if names else f"a hash of the prompt holds out {heldout_frac:.0%}"
    return parts, how, dropped
