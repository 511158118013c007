"""PandaLM's human test set: two responses to an instruction, judged by three annotators. Lossless both ways.

Flow     {"idx", "instruction", "input", "response1", "response2", "annotator1": 0 | 1 | 2, …} ↔ a comparison of each
         annotator; 0 is a tie
Source   WeOpenML/PandaLM, README and data/testset-v1.json, a JSON list indented by four.

A response that is a JSON boolean, as a few are there, is shown as the word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rein.feedback.exchange.rows import Answer, Asked, Parsed, Said, Unreadable, candidate, digest, named, need, without

Json = Any
_RESPONSES = ("response1", "response2")
_SAID = {0: None, 1: 0, 2: 1}  # their numbers → candidates
_ANNOTATOR = re.compile(r"annotator\d+")
_OWN = "pandalm/"  # before an annotator's name: those of another file of this kind may be other people


def read_pandalm(line: int, row: Mapping[str, Json]) -> Parsed:
    """Two responses with what each annotator said. Raises Unreadable."""
    context = {name: need(row, name, str, "a text") for name in ("instruction", "input") if name in row}
    if not context:
        raise Unreadable("instruction is missing")
    given = {name: row[name] for name in _RESPONSES if isinstance(row.get(name), bool)}
    pair = [candidate(str(row[name]) if name in given else row.get(name), "", name) for name in _RESPONSES]
    annotators = [name for name in row if _ANNOTATOR.fullmatch(name)]
    said = []
    for name in annotators:
        if type(row[name]) is not int or row[name] not in _SAID:
            raise Unreadable(f"{name} is {named(row[name])}, but 0, 1 or 2 is expected")
        value = {"choice": _SAID[row[name]], "points": None}
        said.append(Said(_OWN + name, "comparison", value, shown={"order": [0, 1]}))
    rest = without(row, *context, *_RESPONSES, *annotators)
    key = digest([rest.get("idx"), context, [one["text"] for one in pair]])  # a pair may be there twice
    return Parsed(line, [(Asked(context, pair, key, extra={"row": rest, "given": given}), said)])


def is_annotator(name: str) -> bool:
    """Whether a file of this kind names a person so."""
    return _ANNOTATOR.fullmatch(name.removeprefix(_OWN)) is not None


def write_pandalm(answers: Sequence[Answer], numbers: Mapping[str, int]) -> dict[str, Json]:
    """An item with what everybody said of it; `numbers` are those of people whom no such file named."""
    item = answers[0].item
    context = dict(item.context)
    said = dict[str, int]()
    for answer in answers:
        name = f"annotator{numbers[answer.person]}" if answer.person in numbers else answer.person.removeprefix(_OWN)
        said.setdefault(name, {choice: number for number, choice in _SAID.items()}[answer.value["choice"]])
    texts = {name: one["text"] for name, one in zip(_RESPONSES, item.candidates, strict=True)}
    row = {
        **item.extra.get("row", {"idx": item.key}),
        **(
            context
            if "instruction" in context
            else {"instruction": "\n\n".join(map(str, context.values())), "input": ""}
        ),
        **texts,
        **item.extra.get("given", {}),
    }
    return {**row, **dict(sorted(said.items(), key=lambda one: int(one[0].removeprefix("annotator"))))}
