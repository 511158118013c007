"""OpenAI's released feedback: comparisons of two summaries, and marks of one on several axes. Lossless both ways.

Flow     {"info", "summaries", "choice", "worker", "batch", "split", "extra": {"confidence"}} ↔ a comparison
         {"info", "summary": {"text", "policy", "note", "axes"}, "worker", "batch", "split"} ↔ marks on axes
Source   README of openai/summarize-from-feedback, section "Human feedback data"; Stiennon 2020, Appendix C.

The same pair, labelled by several workers, is one item, on whichever sides they saw it; who saw what where is kept with
the answer. A line with fields missing, added, or of another form is kept as it came, besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from rein.feedback.exchange.rows import (
    BATCH,
    ROLE,
    SPLIT,
    Answer,
    Asked,
    Item,
    Parsed,
    Said,
    Unreadable,
    candidate,
    canonical,
    in_order,
    need,
    without,
)  # fmt: skip
from rein.feedback.kinds import MOST_NOTE

Json = Any
FIELDS = ("subreddit", "title", "post", "article")  # of info: what a labeler reads; the rest is about it
Ties = Literal["drop", "half", "both"]
UNKNOWN = "unknown"  # a worker that is not named


def read_comparison(line: int, row: Mapping[str, Json]) -> Parsed:
    """A comparison. Raises Unreadable."""
    info, summaries = need(row, "info", dict, "an object"), need(row, "summaries", list, "a list of two summaries")
    if len(summaries) != 2:
        raise Unreadable(f"summaries has {len(summaries)} entries, but a comparison has two")
    candidates, order = in_order([_summary(one) for one in summaries])
    choice = row.get("choice")
    if choice not in (0, 1) or isinstance(choice, bool):
        raise Unreadable("choice is neither 0 nor 1")
    extra = row.get("extra")
    confidence = extra.get("confidence") if isinstance(extra, dict) else None
    points = confidence if type(confidence) is int and 1 <= confidence <= 9 else None
    value = {"choice": order[choice], "points": points if points is None or order[0] == 0 else 10 - points}
    item, person = _item(row, info, candidates), _worker(row)
    notes, shown = _notes(summaries), {"order": order}
    said = Said(person, "comparison", value, shown=shown)
    told = _answer(item, said, _by_candidate(notes, order))
    kept = {} if canonical(write_comparison(told)) == canonical(row) else {"line": row}
    answers = [Said(person, "comparison", value, shown=shown, extra=kept)]
    return Parsed(line, [(item, [*answers, *_noted(person, _by_candidate(notes, order), shown)])])


def write_comparison(answer: Answer) -> dict[str, Json]:
    """A comparison as OpenAI's line."""
    item, order = answer.item, answer.order
    if "line" in answer.extra:
        return _as_it_came(answer)
    choice, points = answer.value["choice"], answer.value["points"]
    notes: Sequence[str | None] = answer.notes or (None, None)
    return {
        "info": _info(item),
        "summaries": [
            {"text": item.candidates[which]["text"], "policy": item.candidates[which]["policy"], "note": notes[which]}
            for which in order
        ],
        "choice": None if choice is None else order.index(choice),
        "worker": answer.person,
        "batch": item.batch,
        "split": item.split,
        "extra": {"confidence": points if points is None or order[0] == 0 else 10 - points},
    }


def write_tie(answer: Answer, ties: Ties) -> Iterator[dict[str, Json]]:
    """A tie, of which that form knows nothing: one line each way, or one whose choice is null."""
    for choice in (0, 1) if ties == "both" else (None,):
        yield write_comparison(replace(answer, value={**answer.value, "choice": choice}))


def read_axes(line: int, row: Mapping[str, Json]) -> Parsed:
    """Marks on axes. Raises Unreadable."""
    info, summary = need(row, "info", dict, "an object"), need(row, "summary", dict, "an object")
    axes = need(summary, "axes", dict, "an object of marks")
    marks = {name: mark for name, mark in axes.items() if type(mark) is int}
    if not marks:
        raise Unreadable("axes has no mark that is a whole number")
    item, person = _item(row, info, [_summary(summary)]), _worker(row)
    notes, value = _notes([summary]), {"axes": [marks]}
    told = _answer(item, Said(person, "likert", value), notes)
    kept = {} if canonical(write_axes(told)) == canonical(row) else {"line": row}
    return Parsed(line, [(item, [Said(person, "likert", value, extra=kept), *_noted(person, notes, {"order": [0]})])])


def write_axes(answer: Answer, number: int = 0) -> dict[str, Json]:
    """The marks of one candidate as OpenAI's line."""
    if "line" in answer.extra:
        return _as_it_came(answer)
    item = answer.item
    return {
        "info": _info(item),
        "split": item.split,
        "summary": {
            "text": item.candidates[number]["text"],
            "policy": item.candidates[number]["policy"],
            "note": answer.notes[number] if answer.notes else None,
            "axes": answer.value["axes"][number],
        },
        "worker": answer.person,
        "batch": item.batch,
    }


def _item(row: Mapping[str, Json], info: Mapping[str, Json], candidates: Sequence[Mapping[str, Json]]) -> Asked:
    context = {name: info[name] for name in FIELDS if isinstance(info.get(name), str)}
    batch, split = row.get("batch"), row.get("split")
    return Asked(
        context=context or {"info": canonical(info)},
        candidates=candidates,
        key="",
        batch=batch if isinstance(batch, str) else "",
        split=split if isinstance(split, str) else "",
        extra={"info": without(info, *context)},
    )


def _info(item: Item) -> dict[str, Json]:
    if "info" not in item.extra:
        return {"id": item.key, **item.context}
    context = {name: value for name, value in item.context.items() if name in FIELDS}
    return {**item.extra["info"], **context}


def _summary(row: Json) -> dict[str, Json]:
    if not isinstance(row, dict):
        raise Unreadable("a summary is no object")
    policy = row.get("policy")
    return candidate(row.get("text"), policy if isinstance(policy, str) else "", "text of a summary")


def _worker(row: Mapping[str, Json]) -> str:
    worker = row.get("worker")
    return worker if isinstance(worker, str) and worker else UNKNOWN


def _notes(summaries: Sequence[Mapping[str, Json]]) -> list[str] | None:
    """The notes, in the order of the screen, where each has one."""
    notes = [note for one in summaries if isinstance(note := one.get("note"), str) and len(note) <= MOST_NOTE]
    return notes if len(notes) == len(summaries) else None


def _by_candidate(notes: list[str] | None, order: Sequence[int]) -> list[str] | None:
    return None if notes is None else [notes[order.index(which)] for which in range(len(order))]


def _noted(person: str, notes: list[str] | None, shown: Mapping[str, Json]) -> list[Said]:
    return [] if notes is None else [Said(person, "notes", {"notes": notes}, "notes", act="note", shown=shown)]


def _answer(asked: Asked, said: Said, notes: list[str] | None) -> Answer:
    """The answer that the store will give back of a line: what a writer makes of it shows what a line would lose."""
    item = Item(0, "", asked.batch or BATCH, ROLE, asked.split or SPLIT, asked.context, asked.candidates, asked.extra)
    return Answer(item, said.person, "", said.kind, said.value, said.shown, said.extra, 0, 0, notes, {})


def _as_it_came(answer: Answer) -> dict[str, Json]:
    """The line that was read, in the batch and the split that its item is in now."""
    now = {"batch": answer.item.batch, "split": answer.item.split}
    line = answer.extra["line"]
    named = {name: value for name, value in now.items() if line.get(name) and isinstance(line[name], str)}
    return {**line, **named}
