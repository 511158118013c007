"""What other labeling tools export, read: Argilla's records and Label Studio's annotated tasks.

Flow     {"fields", "responses", …} → an item with what each user said;   {"data", "annotations", …} → the same
Source   Argilla 2: records/_resource.py (Record.to_dict, which Dataset.records.to_json writes as one list); Argilla 1:
         feedback/schemas/records.py (FeedbackRecord). Label Studio: guide "Task format", tags Pairwise, Ranker, Rating,
         Choices and TextArea, and the templates "Human Preferences collection for RLHF" and "LLM Ranker".

Neither says which of its fields are the outputs that were judged: they are told by what answers name, or else by their
names (response…, completion…, answer…, and the like), and a single field is what was judged. What an answer says that
no kind has a place for stays with the item.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rein.feedback.exchange.rows import Asked, Parsed, Said, Unreadable, candidate, named, need
from rein.feedback.exchange.texts import checked_messages, context_of_messages

Json = Any
_OUTPUT = re.compile(r"(response|completion|output|generation|answer|reply|candidate|summary|chosen|rejected|text\d)")
_TIE = {"tie", "equal", "even", "same", "both", "neither", "draw"}
Value = tuple[str, str, Json]  # question, kind, value


# -------------------------------------------------------------------------------------------------------- Argilla


def read_argilla(line: int, row: Mapping[str, Json]) -> Parsed:
    """A record. Raises Unreadable."""
    fields = need(row, "fields", dict, "an object of texts")
    answers = _argilla_answers(row)
    ranked = next((value for _, said in answers for _, value in said if _is_ranking(value)), None)
    names = [_plain(one["value"]) for one in ranked] if ranked is not None else []
    outputs = [name for name in fields if _plain(name) in names] or _outputs(fields)
    said, left = [], {}
    for person, values in answers:
        found, rest = _argilla_values(values, outputs)
        said += [Said(person, kind, value, name, shown=_as_listed(outputs)) for name, kind, value in found]
        if rest:
            left[person] = rest
    if answers and not said:
        raise Unreadable("no answer is one that a kind has a place for: a ranking, a rating, a choice of an output")
    key = row.get("id") or row.get("external_id")
    extra = {"argilla": {name: row[name] for name in ("metadata", "suggestions") if row.get(name)}, "left": left}
    return Parsed(line, [(_asked(fields, outputs, f"argilla/{key}" if key else "", extra), said)])


def _argilla_answers(row: Mapping[str, Json]) -> list[tuple[str, list[tuple[str, Json]]]]:
    """What each user said: (question, value)."""
    found: dict[str, list[tuple[str, Json]]] = {}
    responses = row.get("responses") or []
    if isinstance(responses, dict):
        for name, given in responses.items():
            for one in given if isinstance(given, list) else []:
                if isinstance(one, dict) and "value" in one:
                    found.setdefault(str(one.get("user_id") or "unknown"), []).append((name, one["value"]))
    else:
        for one in _list(responses, "responses"):
            if isinstance(one, dict) and one.get("status", "submitted") == "submitted":
                values = one.get("values") or {}
                if not isinstance(values, dict):
                    raise Unreadable(f"the values of a response are {named(values)}, but an object is expected")
                found[str(one.get("user_id") or "unknown")] = [
                    (name, value["value"]) for name, value in values.items()
                    if isinstance(value, dict) and "value" in value
                ]  # fmt: skip
    return [(f"argilla/{person}", values) for person, values in found.items()]


def _argilla_values(values: Sequence[tuple[str, Json]], outputs: Sequence[str]) -> tuple[list[Value], dict[str, Json]]:
    found: list[Value] = []
    rest: dict[str, Json] = {}
    marks: dict[str, int] = {}
    for name, value in values:
        which = _which(name, outputs)
        if _is_ranking(value):
            ranks = {_plain(one["value"]): one.get("rank") for one in value}
            if all(type(ranks.get(_plain(output))) is int for output in outputs):
                found.append((name, "ranking", {"ranks": _dense([ranks[_plain(output)] for output in outputs])}))
                continue
        elif type(value) is int and which is not None:
            marks[outputs[which]] = value
            continue
        elif isinstance(value, str) and (choice := _choice(value, outputs)):
            found.append((name, *choice))
            continue
        elif isinstance(value, list) and len(outputs) == 1 and all(isinstance(one, str) for one in value):
            found.append((name, "flags", {"flags": [value]}))
            continue
        elif isinstance(value, str) and _OUTPUT.search(_plain(name)):
            found.append((name, "demonstration", {"text": value}))
            continue
        rest[name] = value
    return found + _ratings(marks, outputs, rest), rest


def _is_ranking(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(
        isinstance(one, dict) and isinstance(one.get("value"), str) for one in value
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- Label Studio


def read_label_studio(line: int, row: Mapping[str, Json]) -> Parsed:
    """An annotated task. Raises Unreadable."""
    data = need(row, "data", dict, "an object")
    annotations = [
        one
        for one in _list(row.get("annotations") or [], "annotations")
        if isinstance(one, dict) and not one.get("was_cancelled")
    ]
    results = [
        [one for one in _list(a.get("result") or [], "the result of an annotation") if isinstance(one, dict)]
        for a in annotations
    ]
    listed = _listed(data, [one for some in results for one in some if one.get("type") == "ranker"])
    outputs = [str(one["id"]) for one in data[listed]] if listed else _outputs(data)
    said, left = [], {}
    for annotation, some in zip(annotations, results, strict=True):
        found, rest = _studio_values(some, outputs)
        took_s: Json = annotation.get("lead_time")
        times = {"active_ms": round(1000 * took_s)} if _is_number(took_s) and math.isfinite(took_s) else {}
        said += [
            Said(_completed_by(annotation), kind, value, name, shown=_as_listed(outputs), times=times,
                 at_ms=_time_ms(annotation.get("created_at")))
            for name, kind, value in found
        ]  # fmt: skip
        left.update(rest)
    if annotations and not said:
        raise Unreadable("no result is one that a kind has a place for: pairwise, ranker, rating, choices, textarea")
    asked = _asked(data, outputs, f"label-studio/{row['id']}" if "id" in row else "", {"left": left}, listed)
    # What a template shows of a task is not in the file: only of known fields is it safe to show them.
    return Parsed(line, [(replace(asked, loose=True), said)])


def _studio_values(
    results: Sequence[Mapping[str, Json]], outputs: Sequence[str]
) -> tuple[list[Value], dict[str, Json]]:
    found: list[Value] = []
    rest: dict[str, Json] = {}
    marks: dict[str, int] = {}
    for one in results:
        name, value = str(one.get("from_name", "")), one.get("value")
        value = value if isinstance(value, dict) else {}
        match one.get("type"):
            case "pairwise" if len(outputs) == 2 and value.get("selected") in ("left", "right"):
                choice = int(value["selected"] == "right")
                found.append((name, "comparison", {"choice": choice, "points": None}))
            case "ranker" if ranks := _ranker(value.get("ranker"), outputs):
                found.append((name, "ranking", {"ranks": ranks}))
            case "rating" if (which := _which(str(one.get("to_name", "")), outputs)) is not None and _is_number(
                value.get("rating")
            ):
                marks[outputs[which]] = value["rating"]
            case "choices" if (
                isinstance(value.get("choices"), list)
                and len(value["choices"]) == 1
                and (said := _choice(str(value["choices"][0]), outputs))
            ):
                found.append((name, *said))
            case "textarea" if isinstance(value.get("text"), list) and value["text"]:
                found.append((name, "demonstration", {"text": "\n".join(map(str, value["text"]))}))
            case _:
                rest[name] = one
    return found + _ratings(marks, outputs, rest), rest


def _listed(data: Mapping[str, Json], rankers: Sequence[Mapping[str, Json]]) -> str:
    """The field of the task that holds the list which was ranked."""
    for name, value in data.items() if rankers else ():
        if isinstance(value, list) and value and all(isinstance(one, dict) and "id" in one for one in value):
            return name
    return ""


def _ranker(value: Json, outputs: Sequence[str]) -> list[int] | None:
    """Ranks by output. Buckets beside each other have no order, so all must be in one."""
    columns = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    filled = [one for one in columns if isinstance(one, list) and one]
    if len(filled) != 1 or sorted(map(str, filled[0])) != sorted(outputs):
        return None
    return [list(map(str, filled[0])).index(output) + 1 for output in outputs]


def _completed_by(annotation: Mapping[str, Json]) -> str:
    """Their number there: what else is known of them is no business of a data set."""
    person = annotation.get("completed_by")
    person = person.get("id") if isinstance(person, dict) else person
    return f"label-studio/{person if isinstance(person, int) else 'unknown'}"


def _time_ms(value: Json) -> int | None:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return round(1000 * (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


# ---------------------------------------------------------------------------------------------------- of both


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _outputs(fields: Mapping[str, Json]) -> list[str]:
    """The fields that were judged, by their names; a single field is one."""
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    found = [name for name in texts if _OUTPUT.match(_plain(name))]
    if not found and len(texts) == 1:
        found = texts
    return found


def _asked(fields: Mapping[str, Json], outputs: Sequence[str], key: str, extra: Json, listed: str = "") -> Asked:
    if not outputs:
        raise Unreadable(f"none of the fields {', '.join(map(repr, fields))} is named like an output")
    context: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, str) and (listed or name not in outputs):
            context[name] = value
        elif isinstance(value, list) and name != listed:  # a chat, which is a field of Argilla's
            messages = checked_messages(value, name)
            extra = {**extra, "messages": messages}
            context |= context_of_messages(messages)
    if listed:
        candidates = [_list_entry(one) for one in fields[listed]]
    else:
        candidates = [candidate(fields[name], "", name, field=name) for name in outputs]
    return Asked(context, candidates, key, extra={name: value for name, value in extra.items() if value})


def _list_entry(one: Mapping[str, Json]) -> dict[str, Json]:
    text = next((one[name] for name in ("body", "title", "html") if isinstance(one.get(name), str) and one[name]), None)
    if text is None:
        raise Unreadable("an entry of the ranked list has no body")
    return candidate(text, id=one["id"])


def _as_listed(outputs: Sequence[str]) -> dict[str, Json]:
    return {"order": list(range(len(outputs)))}  # neither tool shuffles


def _which(name: str, outputs: Sequence[str]) -> int | None:
    """The output that a question is about: the only one, or the one that its name speaks of."""
    if len(outputs) == 1:
        return 0
    found = [number for number, output in enumerate(outputs) if _plain(output) in _plain(name)]
    return found[0] if len(found) == 1 else None


def _choice(label: str, outputs: Sequence[str]) -> tuple[str, Json] | None:
    """The choice that a label names."""
    plain = _plain(label)
    which = next((number for number, output in enumerate(outputs) if _plain(output) == plain), None)
    if len(outputs) == 2 and (which is not None or plain in _TIE):
        return "comparison", {"choice": which, "points": None}
    return ("best_of", {"best": which}) if which is not None and len(outputs) > 2 else None


def _ratings(marks: Mapping[str, int], outputs: Sequence[str], rest: dict[str, Json]) -> list[Value]:
    if marks and all(output in marks for output in outputs):
        return [("", "rating", {"ratings": [marks[output] for output in outputs]})]
    rest.update(marks)
    return []


def _dense(ranks: Sequence[int]) -> list[int]:
    """Ranks that go up one by one.

    Example  >>> _dense([1, 3, 3])
             [1, 2, 2]
    """
    known = sorted(set(ranks))
    return [known.index(rank) + 1 for rank in ranks]


def _list(value: Json, what: str) -> list[Json]:
    if not isinstance(value, list):
        raise Unreadable(f"{what} is {named(value)}, but a list is expected")
    return value


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
