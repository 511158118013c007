"""Ranked groups, as InstructGPT collects them, and prompts with outputs that nobody has judged yet.

Flow     {"group_id", "prompt" or fields, "outputs", "ranks", "ratings", "flags", "labeler", …} ↔ a judgement of K
         {"prompt" or fields, "outputs"}, {"prompt", "completion"}, {"instruction", "input", "output"} → items
Source   Ouyang 2022, sections 3.4 and 3.5: a labeler ranks K = 4 to 9 outputs, ties allowed; all pairs of one prompt
         are one element of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rein.feedback.exchange.rows import (
    Answer,
    Asked,
    Parsed,
    Said,
    Unreadable,
    candidate,
    named,
    need,
    without,
)  # fmt: skip
from rein.feedback.exchange.texts import (
    candidate_of_messages,
    checked_messages,
    completion_messages,
    context_of_messages,
)  # fmt: skip

Json = Any
# Field of a ranked group → (kind, field of its value).
SAID = {
    "ranks": ("ranking", "ranks"),
    "ratings": ("rating", "ratings"),
    "axes": ("likert", "axes"),
    "flags": ("flags", "flags"),
    "best": ("best_of", "best"),
    "choice": ("comparison", "choice"),
}
PLACES = ("group_id", "batch", "split", "role", "gold", "priority", "outputs", "labeler", "order", "points", *SAID)


def read_ranked(line: int, row: Mapping[str, Json]) -> Parsed:
    """A judgement of a group of outputs. Raises Unreadable."""
    asked = _asked(row)
    if not asked.candidates:
        raise Unreadable("outputs is empty")
    labeler = row.get("labeler", "unknown")
    if not isinstance(labeler, str) or not labeler:
        raise Unreadable(f"labeler is {named(labeler)}, but a name is expected")
    shown = {"order": _order(row, len(asked.candidates))} if "order" in row else {}
    values = {name: (kind, {field: row[name]}) for name, (kind, field) in SAID.items() if name in row}
    if not values:
        raise Unreadable(f"the group has none of {', '.join(SAID)}")
    if "choice" in values:
        values["choice"][1]["points"] = row.get("points")
    return Parsed(line, [(asked, [Said(labeler, kind, value, shown=shown) for kind, value in values.values()])])


def write_ranked(answer: Answer) -> dict[str, Json]:
    """A judgement as one line, with everything that was said in it that is of each output."""
    item = answer.item
    said = {kind: value for kind, value in answer.others.values()}
    row: dict[str, Json] = {"group_id": item.key, **_prompt(item.context, item.extra), "outputs": _outputs(answer)}
    for name, (kind, field) in SAID.items():
        if kind in said:
            row[name] = said[kind][field]
            if kind == "comparison":
                row["points"] = said[kind]["points"]
    row |= {"labeler": answer.person, "batch": item.batch, "split": item.split}
    if "order" in answer.shown:
        row["order"] = answer.order
    return {**row, **item.extra.get("row", {})}


def read_prompts(line: int, row: Mapping[str, Json]) -> Parsed:
    """A prompt with outputs that are to be judged, or alone, to be answered. Raises Unreadable."""
    row = row if {"output", "outputs", "completion"} & row.keys() else {**row, "outputs": []}
    if "output" in row and "outputs" not in row:
        row = {**without(row, "output"), "outputs": [row["output"]]}
    if "completion" in row and "outputs" not in row:
        completions = row["completion"] if isinstance(row["completion"], list) else [row["completion"]]
        if completions and isinstance(completions[0], dict) and "role" in completions[0]:
            completions = [completions]
        row = {**without(row, "completion"), "outputs": completions}
    return Parsed(line, [(_asked(row), [])])


def _asked(row: Mapping[str, Json]) -> Asked:
    outputs = need(row, "outputs", list, "a list of outputs")
    candidates = [_candidate(one, f"output {number}") for number, one in enumerate(outputs, 1)]
    context, extra, loose = _context(row)
    key = row.get("group_id", row.get("id", ""))
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise Unreadable(f"the id is {named(key)}, but a text or a number is expected")
    source = context if loose else () if row.get("prompt") is not None else ("context",)
    rest = without(row, *PLACES, *source, "prompt", "id")
    return Asked(
        context, candidates, str(key), batch=_name(row, "batch"), split=_name(row, "split"), role=_name(row, "role"),
        gold=row.get("gold"), priority=_priority(row), extra={**extra, **({"row": rest} if rest else {})}, loose=loose,
    )  # fmt: skip


def _context(row: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, Json], bool]:
    """What the outputs answer: a prompt, messages, a context, or the line's own fields that are texts.

    Of those last ones it is to be decided which are shown.
    """
    prompt, context = row.get("prompt"), row.get("context")
    if isinstance(prompt, str):
        return {"prompt": prompt}, {}, False
    if prompt is not None:
        messages = checked_messages(prompt, "prompt")
        return context_of_messages(messages), {"messages": messages}, False
    if context is not None and not isinstance(context, str):
        if not isinstance(context, dict) or not context or not all(isinstance(one, str) for one in context.values()):
            raise Unreadable("context is no object of texts")
        return dict(context), {}, False
    fields = {name: value for name, value in without(row, *PLACES, "id").items() if isinstance(value, str)}
    if not fields:
        raise Unreadable("there is no prompt: no field prompt, context, or another one that is a text")
    return fields, {}, True


def _prompt(context: Mapping[str, Json], extra: Mapping[str, Json]) -> dict[str, Json]:
    if "messages" in extra:
        return {"prompt": extra["messages"]}
    return dict(context) if list(context) == ["prompt"] else {"context": dict(context)}


def _candidate(value: Json, what: str) -> dict[str, Json]:
    """An output: a text, messages, or an object with one, with who wrote it."""
    if isinstance(value, dict) and "text" in value:
        policy = value.get("policy", "")
        if not isinstance(policy, str):
            raise Unreadable(f"policy of {what} is {named(policy)}, but a name is expected")
        extra = without(value, "text", "policy")
        found = candidate(value["text"], policy, f"text of {what}", **extra)
    elif isinstance(value, list):
        found = candidate_of_messages(checked_messages(value, what))
    else:
        found = candidate(value, "", what)
    if not found["text"].strip():
        raise Unreadable(f"{what} is empty")
    return found


def _outputs(answer: Answer) -> list[Json]:
    outputs: list[Json] = []
    for number, one in enumerate(answer.item.candidates):
        extra = dict(one.get("extra", {}))
        if "messages" in extra:
            outputs.append(completion_messages(answer.item, number))
        elif one.get("policy") or extra:
            outputs.append({"text": one["text"], "policy": one.get("policy", ""), **extra})
        else:
            outputs.append(one["text"])
    return outputs


def _order(row: Mapping[str, Json], n: int) -> Sequence[int]:
    order = row["order"]
    if not isinstance(order, list) or any(type(one) is not int for one in order) or sorted(order) != list(range(n)):
        raise Unreadable(f"order is no order of {n} outputs, counted from 0")
    return order


def _name(row: Mapping[str, Json], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise Unreadable(f"{name} is {named(value)}, but a name is expected")
    return value


def _priority(row: Mapping[str, Json]) -> float:
    value = row.get("priority", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"priority is {named(value)}, but a number is expected")
    return float(value)
