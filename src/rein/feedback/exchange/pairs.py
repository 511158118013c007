"""Preferences as pairs: TRL's formats, HH-RLHF's dialogues, and every pair that a ranking or ratings imply.

Flow     {"prompt", "chosen", "rejected"} as texts or chat messages, or without the prompt → a comparison
         an answer of any kind that prefers → pairs; ratings and flags → {"prompt", "completion", "label"}
Source   Dataset formats of TRL's documentation; README of anthropics/hh-rlhf; LLaMA-Factory's data README for
         {"conversations", "chosen", "rejected"}; Ouyang 2022, section 3.5 (all pairs of one prompt together: group_id).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rein.feedback.exchange.rows import (
    Answer,
    Asked,
    Item,
    Parsed,
    Said,
    Unreadable,
    candidate,
    digest,
    in_order,
    need,
    without,
)  # fmt: skip
from rein.feedback.exchange.texts import (
    HUMAN,
    answer_messages,
    candidate_of_messages,
    checked_messages,
    completion_messages,
    completion_text,
    context_of_messages,
    cut,
    prompt_messages,
    prompt_text,
)  # fmt: skip
from rein.feedback.kinds import EVEN, KINDS

Json = Any
Ties = Literal["drop", "half", "both"]
_GPT = {"human": "user", "gpt": "assistant", "system": "system"}  # LLaMA-Factory's speakers


@dataclass(frozen=True)
class PairOptions:
    """How preferences are written.

    `ties`: what becomes of two that neither is better of. drop: no pair, as Ouyang 2022 has it; half: one, and every
    pair carries the probability that it is this way round, 0.5 for these; both: two, one each way.
    """

    ties: Ties = "drop"
    implicit: bool = False  # the prompt inside chosen and rejected
    conversational: bool | None = None  # as chat messages; None: as the item came, and texts where it is our own
    margin: bool = False  # |points − 5| of a comparison, which TRL's reward trainer subtracts


# --------------------------------------------------------------------------------------------------------- reading


def read_trl(line: int, row: Mapping[str, Json]) -> Parsed:
    """A preference of TRL's, or of LLaMA-Factory's. Raises Unreadable."""
    if "conversations" in row:
        return _read_conversations(line, row)
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _read_texts(line, row, chosen, rejected)
    return _read_messages(line, row)


def _read_texts(line: int, row: Mapping[str, Json], chosen: str, rejected: str) -> Parsed:
    if "prompt" in row:
        prompt, first, second = need(row, "prompt", str, "a text"), chosen, rejected
    else:
        prompt, first, second = cut(chosen, rejected)
    return _preference(line, row, {"prompt": prompt}, candidate(first), candidate(second), {"lead": ""})


def _read_messages(line: int, row: Mapping[str, Json]) -> Parsed:
    chosen, rejected = (checked_messages(row.get(name), name) for name in ("chosen", "rejected"))
    if "prompt" in row:
        prompt = checked_messages(row["prompt"], "prompt")
    else:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    pair = candidate_of_messages(chosen), candidate_of_messages(rejected)
    return _preference(line, row, context_of_messages(prompt), *pair, {"messages": prompt})


def _read_conversations(line: int, row: Mapping[str, Json]) -> Parsed:
    prompt = [_gpt(one) for one in need(row, "conversations", list, "a list of what was said")]
    chosen, rejected = (candidate_of_messages([_gpt(row.get(name))]) for name in ("chosen", "rejected"))
    return _preference(line, row, context_of_messages(prompt), chosen, rejected, {"messages": prompt})


def _gpt(row: Json) -> dict[str, str]:
    speaker = row.get("from") if isinstance(row, dict) else None
    if not isinstance(speaker, str) or speaker not in _GPT or not isinstance(row.get("value"), str):
        raise Unreadable("a message has no from (human, gpt, system) and value")
    return {"role": _GPT[speaker], "content": row["value"]}


def _preference(
    line: int, row: Mapping[str, Json], context: Mapping[str, Json], chosen: Mapping[str, Json],
    rejected: Mapping[str, Json], extra: Mapping[str, Json], person: str = "trl",
) -> Parsed:  # fmt: skip
    """A pair of which the first is preferred; what else the line has is kept with the answer."""
    candidates, order = in_order([chosen, rejected])
    implicit = "prompt" not in row and "conversations" not in row
    kept = {"implicit": implicit, "row": without(row, "prompt", "chosen", "rejected", "conversations")}
    said = Said(person, "comparison", {"choice": order[0], "points": None}, extra={"pair": kept})
    # The same words as texts and as messages are two items: they are written in two forms.
    key = digest([context, candidates, extra])
    return Parsed(line, [(Asked(context, candidates, key, extra=extra), [said])])


def read_hh(line: int, row: Mapping[str, Json]) -> Parsed:
    """A pair of dialogues, of which one is preferred. Raises Unreadable.

    The prompt is what both begin with, up to the last "Assistant:" that they share.
    """
    dialogues = [need(row, name, str, "a dialogue") for name in ("chosen", "rejected")]
    if not all(text.startswith(HUMAN) for text in dialogues):
        raise Unreadable(f"a dialogue does not begin with {HUMAN!r}")
    prompt, *ends = cut(*dialogues)
    pair = [candidate(end.removeprefix(" "), **({} if end.startswith(" ") else {"lead": ""})) for end in ends]
    return _preference(line, row, {"dialogue": prompt}, pair[0], pair[1], {"lead": " "}, "hh-rlhf")


# --------------------------------------------------------------------------------------------------------- writing


def write_trl(answer: Answer, options: PairOptions) -> Iterator[dict[str, Json]]:
    """Every pair that an answer implies, as TRL's rows.

    Rows of one prompt share a group_id, so that they can be one element of a batch.
    """
    item = answer.item
    messages = "messages" in item.extra if options.conversational is None else options.conversational
    came = answer.extra.get("pair", {})  # as a pair: then it goes out as it came, in a group of none
    for chosen, rejected, probability in preferences(answer, options.ties):
        row = _trl_row(item, chosen, rejected, messages, options.implicit or came.get("implicit", False))
        rest = dict(came.get("row", {}))
        if options.margin and "margin" not in rest:
            rest["margin"] = margin(answer)
        if options.ties == "half":
            rest["probability"] = probability
        yield {**row, **({} if came else {"group_id": item.key}), **rest}


def _trl_row(item: Item, chosen: int | str, rejected: int | str, messages: bool, implicit: bool) -> dict[str, Json]:
    prompt: Json
    if messages:
        prompt, pair = prompt_messages(item), [_as_messages(item, one) for one in (chosen, rejected)]
    else:
        prompt, pair = prompt_text(item), [_as_text(item, one) for one in (chosen, rejected)]
    if implicit:
        return {"chosen": prompt + pair[0], "rejected": prompt + pair[1]}
    return {"prompt": prompt, "chosen": pair[0], "rejected": pair[1]}


def _as_text(item: Item, which: int | str) -> Json:
    return which if isinstance(which, str) else completion_text(item, which)


def _as_messages(item: Item, which: int | str) -> Json:
    return answer_messages(which) if isinstance(which, str) else completion_messages(item, which)


def preferences(answer: Answer, ties: Ties) -> Iterator[tuple[int | str, int | str, float]]:
    """(better, worse, probability) of an answer: numbers of candidates, or the text that a person wrote.

    A corrected text is better than the one it corrects.
    """
    if answer.kind == "edit":
        yield str(answer.value["text"]), int(answer.value["candidate"]), 1.0
        return
    better, even = KINDS[answer.kind].pairs(answer.value, len(answer.item.candidates))
    yield from ((i, j, 1.0) for i, j in better)
    if ties != "drop":
        for i, j in even:
            yield i, j, 0.5
            if ties == "both":
                yield j, i, 0.5


def margin(answer: Answer) -> float:
    """How far from even a comparison is: |points − 5|, 1 to 4; 0, which changes no loss, where it has no points."""
    points = answer.value.get("points") if answer.kind == "comparison" else None
    return 0.0 if points is None else float(abs(points - EVEN))


def write_unpaired(answer: Answer, options: PairOptions, points: int) -> Iterator[dict[str, Json]]:
    """Each candidate by itself, with whether it is wanted: TRL's unpaired preference.

    Of flags: no candidate with any flag but satisfies_constraint is wanted. Of ratings, and of the axis "overall":
    above the middle of the scale is wanted, below it is not, and the middle says neither.
    """
    item = answer.item
    messages = "messages" in item.extra if options.conversational is None else options.conversational
    for number in range(len(item.candidates)):
        label = _wanted(answer.kind, answer.value, number, points)
        if label is not None:
            prompt: Json = prompt_messages(item) if messages else prompt_text(item)
            completion: Json = completion_messages(item, number) if messages else completion_text(item, number)
            yield {"prompt": prompt, "completion": completion, "label": label, "group_id": item.key}


def _wanted(kind: str, value: Mapping[str, Json], number: int, points: int) -> bool | None:
    if kind == "flags":
        return not set(value["flags"][number]) - {"satisfies_constraint"}
    mark = value["ratings"][number] if kind == "rating" else value["axes"][number].get("overall")
    return None if mark is None or 2 * mark == points + 1 else 2 * mark > points + 1


def write_hh(answer: Answer, options: PairOptions) -> Iterator[dict[str, Json]]:
    """A pair of dialogues."""
    item = answer.item
    for chosen, rejected, _ in preferences(answer, options.ties):
        prompt = _dialogue(item)
        yield {
            "chosen": prompt + _as_dialogue(item, chosen),
            "rejected": prompt + _as_dialogue(item, rejected),
            **answer.extra.get("pair", {}).get("row", {}),
        }


def _dialogue(item: Item) -> str:
    if "dialogue" in item.context:
        return str(item.context["dialogue"])
    turns = [
        f"\n\n{'Human' if one['role'] == 'user' else 'Assistant'}: {one['content']}" for one in prompt_messages(item)
    ]
    return "".join(turns) + "\n\nAssistant:"


def _as_dialogue(item: Item, which: int | str) -> str:
    if "dialogue" in item.context:
        return " " + which if isinstance(which, str) else completion_text(item, which)
    return " " + (which if isinstance(which, str) else str(item.candidates[which]["text"]))
