"""Lines that are of no form at all: each is left out with a reason, and what stands around it comes in."""

from __future__ import annotations

import copy
import json
import random

import pytest
from exchanging import Exchange, axes, comparison
from sqlalchemy import func, select

from rein.feedback.exchange import importing
from rein.feedback.exchange.lines import MOST_DEEP
from rein.feedback.exchange.own import FORMAT, VERSION
from rein.feedback.project import Project, Question
from rein.feedback.tables import feedback, item

# What nobody expects where something else belongs.
JUNK = (
    None, True, False, 0, -1, 5, 10**30, -(10**30), 1e308, 0.5, "", "x", "a" * 300, [], {}, [[]], [None], [5], {"a": 1},
    {"": None}, [{"value": []}], {"text": {}}, ["a", "b"], [{}, {}], "2025-13-45", "\u202e",
)  # fmt: skip
SAID = {
    "item": "i", "person": "ann", "judgement": "1", "key": "k", "question": "choice", "kind": "comparison",
    "version": 1, "act": "say", "value": {"choice": 0, "points": 2}, "shown": {"order": [0, 1], "turn": 0},
    "times": {"active_ms": 5}, "late": False, "extra": {}, "at_ms": 7, "of": None,
}  # fmt: skip
ITEM = {
    "key": "i", "role": "work", "split": "train", "context": {"post": "p"},
    "candidates": [{"text": "a", "policy": "x", "extra": {}}, {"text": "b", "policy": "y", "extra": {}}],
    "gold": {"answers": {"choice": {"choice": 0, "points": 1}}, "why": "so"}, "extra": {"n": [1]}, "wanted": 1,
    "priority": 0.5, "closed": False, "batch": "b", "document": "d",
}  # fmt: skip
HEAD = {
    "format": FORMAT, "version": VERSION,
    "project": Project("p", questions=(Question("choice", "comparison"),)).to_json(),
}  # fmt: skip
TREE = {
    "message_tree_id": "t", "tree_state": "ready",
    "prompt": {
        "message_id": "m", "text": "Q", "role": "prompter",
        "replies": [
            {"message_id": f"m{n}", "text": f"A{n}", "role": "assistant", "rank": n, "replies": [], "model_name": "x"}
            for n in (0, 1)
        ],
    },
}  # fmt: skip
STUDIO = {
    "id": 1, "data": {"prompt": "Q", "answer1": "a", "answer2": "b"},
    "annotations": [
        {
            "completed_by": {"id": 3}, "lead_time": 2.5, "created_at": "2025-01-01T00:00:00Z", "was_cancelled": False,
            "result": [{"from_name": "c", "to_name": "t", "type": "pairwise", "value": {"selected": "left"}}],
        }
    ],
}  # fmt: skip
ARGILLA = {
    "id": "r", "fields": {"instruction": "Q", "response1": "a", "response2": "b"}, "metadata": {"n": 1},
    "responses": [{"user_id": "u", "status": "submitted", "values": {"pick": {"value": "response1"}}}],
}  # fmt: skip
# format → (its preset, good lines of it); the first ones are what the others need
GOOD = {
    "rein": ("", [HEAD, {"document": {"key": "d", "format": "x", "body": {"a": [1]}}}, {"item": ITEM},
                  {"said": SAID}, {"person": {"name": "ann", "role": "labeler", "simulated": False}},
                  {"instruction": {"version": 1, "text": "Read."}}, {"batch": {"name": "b", "frozen": False}}]),
    "openai-comparisons": ("comparison", [comparison(notes=("one", "two"))]),
    "openai-axes": ("axes", [axes()]),
    "ranked": ("instructgpt", [{
        "group_id": "g", "prompt": "Q", "outputs": ["a", {"text": "b", "policy": "x"}], "ranks": [1, 2],
        "ratings": [7, 1], "flags": [[], ["violent"]], "labeler": "l", "order": [1, 0], "batch": "b", "split": "s",
        "role": "work", "priority": 1, "gold": {"answers": {"ranking": {"ranks": [1, 2]}}},
    }]),
    "hh-rlhf": ("comparison", [{"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}]),
    "trl": ("comparison", [
        {"prompt": "Q", "chosen": " a", "rejected": " b", "score": 1},
        {"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "a"}],
         "rejected": [{"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "a"},
         "rejected": {"from": "gpt", "value": "b"}},
    ]),
    "oasst": ("ranking", [TREE]),
    "pandalm": ("comparison", [
        {"idx": 1, "instruction": "Q", "input": "", "response1": "a", "response2": "b", "annotator1": 1,
         "annotator2": 0},
    ]),
    "argilla": ("comparison", [
        ARGILLA, {**ARGILLA, "id": "s", "responses": {"pick": [{"value": "response2", "user_id": "u"}]}},
        {**ARGILLA, "id": "v", "fields": {"response1": "a", "response2": "b",
                                         "chat": [{"role": "user", "content": "Q"}]}},
    ]),
    "label-studio": ("comparison", [STUDIO]),
    "prompts": ("comparison", [
        {"id": 1, "title": "t", "post": "p", "outputs": ["a", {"text": "b", "policy": "x"}], "gold": ITEM["gold"]},
        {"id": 2, "context": {"post": "p"}, "completion": ["a", "b"], "split": "s", "priority": 2},
    ]),
}  # fmt: skip


@pytest.fixture
def dialect():
    return "sqlite"


def places(value, path=()):
    """Every place in a value, the whole first."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside:
        yield from places(one, (*path, name))


def spoilt(row, path, chance):
    """A row with one thing in it that is another: changed, missing, or doubled."""
    row = copy.deepcopy(row)
    if not path:
        return chance.choice(JUNK)
    *way, last = path
    holder = row
    for name in way:
        holder = holder[name]
    how = chance.random()
    if how < 0.15:
        del holder[last]
    elif how < 0.25 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    else:
        holder[last] = copy.deepcopy(chance.choice(JUNK))
    return row


def test_there_is_a_line_of_every_format_that_is_read_by_lines():
    assert set(GOOD) == {one.name for one in importing.FORMATS.values() if one.reads}


@pytest.mark.parametrize("format", GOOD)
@pytest.mark.parametrize("seed", range(2))
def test_a_spoilt_line_is_left_out_and_never_ends_an_import(store, tmp_path, format, seed):
    chance = random.Random(f"{format}/{seed}")
    preset, good = GOOD[format]
    exchange = Exchange(store, tmp_path, "p")
    alone = exchange.put(good, format, preset=preset)
    assert (alone.bad_total, alone.added > 0) == (0, True)
    wanted = exchange.bytes("rein")
    bad = []
    for row in good:
        where = list(places(row))
        bad += [spoilt(row, path, chance) for path in where for _ in range(max(1, 200 // len(where)))]
    chance.shuffle(bad)
    lines = [*good, *bad, *good]
    other = Exchange(store, tmp_path, "q")
    done = other.put(lines, format, preset=preset, name="spoilt.jsonl")
    assert done.lines == len(lines)
    assert done.bad_total > len(bad) // 4
    assert not {one.line for one in done.bad} & {*range(1, len(good) + 1)}
    # Each good line is there, whatever came between.
    with store.reading() as conn:
        there = set(conn.execute(select(item.c.key)).scalars())
        assert there >= set(conn.execute(select(item.c.key).where(item.c.project == 1)).scalars())
        said = conn.execute(select(func.count()).where(feedback.c.project == 2)).scalar()
    assert said >= alone.answers
    assert wanted == exchange.bytes("rein")
    again = other.put(lines, format, preset=preset, name="spoilt.jsonl")
    assert (again.added, again.answers, again.bad_total) == (0, 0, done.bad_total)


@pytest.mark.parametrize(
    ("format", "line", "problem"),
    [
        ("prompts", {"prompt": "p", "outputs": ["a", "b"], "gold": 5}, "its gold is not"),
        ("trl", {"conversations": [{"from": {}, "value": "Q"}], "chosen": {}, "rejected": {}}, "a message has no from"),
        ("oasst", {"message_tree_id": "t", "prompt": {"message_id": "m", "text": "Q", "role": []}}, "role is a list"),
        ("argilla", {**ARGILLA, "responses": [{"values": True}]}, "the values of a response are true"),
        ("argilla", {**ARGILLA, "responses": 5}, "responses is the number 5"),
        ("label-studio", {**STUDIO, "annotations": 5}, "annotations is the number 5"),
        ("label-studio", {**STUDIO, "annotations": [{"result": 5}]}, "the result of an annotation is the number 5"),
        ("rein", {"item": {**ITEM, "document": {}}}, "document is an object"),
        ("rein", {"said": {**SAID, "at_ms": 10**30}}, "at_ms is a huge number"),
        ("prompts", {"prompt": "p", "outputs": ["a", "b"], "priority": 10**400}, "it has not the form of prompts"),
    ],
)
def test_what_is_wrong_is_said(store, tmp_path, format, line, problem):
    preset, good = GOOD[format]
    done = Exchange(store, tmp_path, "p").put([*good, line], format, preset=preset)
    assert [one.line for one in done.bad] == [len(good) + 1]
    assert problem in done.bad[0].problem


def test_a_time_without_end_is_none(store, tmp_path):
    exchange = Exchange(store, tmp_path, "p")
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(STUDIO).replace("2.5", "1e999"), encoding="utf-8")
    assert exchange.put(path, "label-studio", preset="comparison").answers == 1
    (said,) = [row["said"] for row in exchange.rows("rein") if "said" in row]
    assert said["times"] == {}


@pytest.mark.parametrize("deep", [MOST_DEEP - 1, MOST_DEEP, 700, 5000, 200_000])
@pytest.mark.parametrize("as_list", [False, True])
def test_what_is_nested_too_deeply_is_bad_and_ends_nothing(store, tmp_path, deep, as_list):
    rows = [json.dumps({"id": n, "prompt": "p", "outputs": ["a", "b"]}) for n in (1, 2)]
    inner = "[" * (deep - 1) + "]" * (deep - 1)  # the line itself is one more
    rows.insert(1, json.dumps({"id": 3, "prompt": "p", "outputs": ["a", "b"], "more": 0}).replace("0", inner))
    path = tmp_path / "deep.json"
    path.write_text("[" + ",\n".join(rows) + "]" if as_list else "\n".join(rows), encoding="utf-8")
    done = Exchange(store, tmp_path, "p").put(path, "prompts", preset="comparison")
    if deep <= MOST_DEEP:
        assert (done.added, done.bad_total) == (3, 0)
        return
    assert [one.line for one in done.bad] == [2]
    assert "nested too deeply" in done.bad[0].problem
    assert done.added == (1 if "rest of the list" in done.bad[0].problem else 2)
