"""Ranked groups, prompts with outputs, Open-Assistant's trees, and PandaLM's pairs."""

import copy
import dataclasses
import json

import pytest
from desks import PLAIN, Desk, new_item
from exchanging import Exchange
from sqlalchemy import select

from rein.feedback.exchange.groups import read_prompts, read_ranked
from rein.feedback.exchange.pandalm import read_pandalm
from rein.feedback.exchange.rows import Unreadable
from rein.feedback.exchange.trees import read_tree
from rein.feedback.project import Question
from rein.feedback.tables import feedback, item


@pytest.fixture
def dialect():
    return "sqlite"


@pytest.fixture
def exchange(store, tmp_path):
    return Exchange(store, tmp_path, "ranking")


GROUP = {
    "group_id": "g1", "prompt": "Say hi.", "outputs": ["Hi.", {"text": "Hello.", "policy": "ppo"}, "Go away."],
    "ranks": [2, 1, 2], "labeler": "l1", "batch": "b", "split": "valid1", "order": [2, 0, 1],
}  # fmt: skip


def test_a_ranked_group_comes_out_as_it_went_in(exchange):
    rows = [GROUP, {**GROUP, "labeler": "l2", "ranks": [1, 2, 3]}, {**GROUP, "group_id": "g2", "source": {"n": 1}}]
    done = exchange.put(rows)
    assert (done.format, done.added, done.answers, done.bad) == ("ranked", 2, 3, ())
    assert exchange.rows("ranked") == rows


def test_a_ranked_group_with_ratings_and_flags_comes_out_as_it_went_in(store, tmp_path):
    row = {**GROUP, "ratings": [4, 7, 1], "flags": [[], [], ["violent"]], "context": {"title": "T", "post": "P"}}
    del row["prompt"]
    exchange = Exchange(store, tmp_path, "instruct")
    done = exchange.put([row], preset="instructgpt")
    assert (done.answers, done.bad) == (3, ())
    assert exchange.rows("ranked") == [row]


def test_a_group_of_chat_messages_comes_out_as_it_went_in(exchange):
    ask, hi = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Hello."}]
    row = {**GROUP, "prompt": ask, "outputs": ["Hey.", [*hi, *ask, *hi]], "ranks": [1, 2], "order": [0, 1]}
    exchange.put([row])
    assert exchange.rows("ranked") == [row]


@pytest.mark.parametrize(
    ("row", "context", "texts"),
    [
        ({"prompt": "p", "outputs": ["a", "b"]}, {"prompt": "p"}, ["a", "b"]),
        ({"title": "t", "post": "p", "outputs": ["a", {"text": "b"}]}, {"title": "t", "post": "p"}, ["a", "b"]),
        ({"context": {"post": "p"}, "outputs": ["a", "b"], "n": 3}, {"post": "p"}, ["a", "b"]),
        ({"prompt": "p", "completion": "c"}, {"prompt": "p"}, ["c"]),
        ({"prompt": "p"}, {"prompt": "p"}, []),
        ({"prompt": "p", "completion": ["c", "d"]}, {"prompt": "p"}, ["c", "d"]),
        ({"instruction": "i", "input": "", "output": "o"}, {"instruction": "i", "input": ""}, ["o"]),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            {"prompt": "q"}, ["a"],
        ),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "outputs": ["a", "b"]},
            {"conversation": "System: s\n\nHuman: q"}, ["a", "b"],
        ),
    ],
)  # fmt: skip
def test_prompts_come_in_many_forms(row, context, texts):
    ((asked, said),) = read_prompts(1, row).items
    assert dict(asked.context) == context
    assert [one["text"] for one in asked.candidates] == texts
    assert said == []


def test_prompts_become_work_with_their_ids_roles_and_gold(store, tmp_path):
    exchange = Exchange(store, tmp_path, "work")
    gold = {"answers": {"choice": {"choice": 0, "points": 2}}, "why": "shorter"}
    done = exchange.put(
        [
            {"id": 7, "prompt": "p", "outputs": ["a", {"text": "b", "policy": "sft", "score": 1}], "source": "wiki"},
            {
                "id": "g",
                "prompt": "q",
                "outputs": ["a", "b"],
                "role": "gold",
                "gold": gold,
                "priority": 2,
                "batch": "x",
            },
        ],
        preset="comparison",
    )
    assert (done.format, done.added, done.answers, done.bad) == ("prompts", 2, 0, ())
    with store.reading() as conn:
        first, second = conn.execute(select(item).order_by(item.c.id)).mappings()
    assert (first["key"], first["role"], first["room"], first["extra"]) == ("7", "work", 1, {"row": {"source": "wiki"}})
    assert first["candidates"][1] == {"text": "b", "policy": "sft", "extra": {"score": 1}}
    assert (second["key"], second["role"], second["gold"], second["priority"]) == ("g", "gold", gold, 2.0)


@pytest.mark.parametrize(
    ("read", "row", "problem"),
    [
        (read_prompts, {"prompt": "p", "outputs": "a"}, "outputs is a text, but a list of outputs is expected"),
        (read_prompts, {"prompt": "p", "outputs": ["a", " \n"]}, "output 2 is empty"),
        (read_prompts, {"prompt": "p", "outputs": [3]}, "output 1 is the number 3"),
        (read_prompts, {"prompt": "p", "outputs": [{"text": "a", "policy": 3}]}, "policy of output 1"),
        (read_prompts, {"outputs": ["a"]}, "there is no prompt"),
        (read_prompts, {"prompt": {"a": 1}, "outputs": ["a"]}, "prompt is an object, but messages"),
        (read_prompts, {"context": {"a": 1}, "outputs": ["a"]}, "context is no object of texts"),
        (read_prompts, {"id": [1], "prompt": "p", "outputs": ["a"]}, "the id is a list"),
        (read_prompts, {"batch": 3, "prompt": "p", "outputs": ["a"]}, "batch is the number 3"),
        (read_prompts, {"priority": True, "prompt": "p", "outputs": ["a"]}, "priority is true"),
        (read_ranked, {"prompt": "p", "ranks": [1, 2]}, "outputs is missing"),
        (read_ranked, {"prompt": "p", "outputs": [], "ranks": []}, "outputs is empty"),
        (read_ranked, {**GROUP, "labeler": 3}, "labeler is the number 3"),
        (read_ranked, {**GROUP, "order": [0, 0, 1]}, "order is no order of 3 outputs"),
        (read_ranked, {"prompt": "p", "outputs": ["a"]}, "the group has none of ranks"),
        (read_pandalm, {"input": 3}, "input is the number 3"),
        (read_pandalm, {"response1": "a"}, "instruction is missing"),
        (read_pandalm, {"instruction": "i", "response1": 1, "response2": "b"}, "response1 is the number 1"),
        (
            read_pandalm, {"instruction": "i", "response1": "a", "response2": "b", "annotator1": 3},
            "annotator1 is the number 3",
        ),
    ],
)  # fmt: skip
def test_a_line_that_is_none_says_why(read, row, problem):
    with pytest.raises(Unreadable, match=problem):
        read(1, row)


# ----------------------------------------------------------------------------------------------------------- trees


def message(id, text, role, replies=(), **more):
    return {"message_id": id, "text": text, "role": role, "lang": "en", **more, "replies": list(replies)}


TREE = {
    "message_tree_id": "t", "tree_state": "ready_for_export",
    "prompt": message("t", "Q", "prompter", [
        message("a", "A", "assistant", [
            message("aq", "Q2", "prompter", [
                message("aqa", "A2", "assistant", rank=1), message("aqb", "B2", "assistant", rank=0),
            ]),
        ], rank=0, model_name="m"),
        message("b", "B", "assistant", rank=1, emojis={"+1": 2}),
        message("c", "C", "assistant", [message("cq", "Q3", "prompter"), message("cr", "Q4", "prompter")]),
    ]),
}  # fmt: skip


def test_every_ranked_set_of_replies_is_an_item_and_the_tree_comes_out_whole(exchange):
    odd = copy.deepcopy(TREE)
    odd["message_tree_id"] = odd["prompt"]["message_id"] = "odd"
    odd["prompt"]["replies"][0]["rank"] = 3  # with a gap: no ranking, and kept
    odd["prompt"]["replies"][0]["replies"][0]["message_id"] = "odd-aq"
    alone = {"message_tree_id": "alone", "tree_state": "x", "prompt": message("alone", "Q", "prompter"), "more": [1]}
    exchange.put([TREE, odd, alone])
    assert exchange.rows("oasst") == [TREE, odd, alone]
    with exchange.store.reading() as conn:
        rows = conn.execute(select(item, feedback.c.value).join(feedback).order_by(item.c.id)).mappings().all()
    assert [row["key"] for row in rows] == ["t", "aq", "odd-aq"]
    assert rows[0]["context"] == {"prompt": "Q"}
    assert rows[1]["context"] == {"conversation": "Human: Q\n\nAssistant: A\n\nHuman: Q2"}
    assert [one["text"] for one in rows[1]["candidates"]] == ["A2", "B2"]
    assert rows[1]["value"] == {"ranks": [2, 1]}
    assert rows[0]["candidates"][0]["policy"] == "m"


def test_all_of_a_tree_is_in_one_split(exchange):
    from rein.feedback.exchange.checking import Given

    trees = []
    for n in range(40):
        tree = json.loads(json.dumps(TREE).replace('"t"', f'"t{n}"').replace('"aq"', f'"aq{n}"'))
        trees.append(tree)
    exchange.put(trees, given=Given(splits={"valid": 0.5}))
    with exchange.store.reading() as conn:
        found = {}
        for document, split in conn.execute(select(item.c.document, item.c.split)):
            found.setdefault(document, set()).add(split)
    assert all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "valid"}


def test_a_ranking_that_was_made_here_becomes_a_tree(store):
    settings = dataclasses.replace(PLAIN, questions=(Question("ranking", "ranking"),))
    desk = Desk(store, settings, people=("ann",), items=[new_item("k", k=2)])
    claimed, _ = desk.label("ann", {"ranking": {"ranks": [2, 1]}})
    (tree,) = Exchange(store, None, desk.id).rows("oasst")
    replies = {one["text"]: one["rank"] for one in tree["prompt"]["replies"]}
    assert replies[f"k output {claimed.order[1]}"] == 0
    assert replies[f"k output {claimed.order[0]}"] == 1
    assert tree["prompt"]["text"] == "a post, k"
    assert read_tree(1, tree).items[0][1][0].kind == "ranking"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tree: tree.pop("message_tree_id"), "message_tree_id is missing"),
        (lambda tree: tree.update(prompt="Q"), "prompt is a text"),
        (lambda tree: tree["prompt"].update(replies="none"), "replies is no list"),
        (lambda tree: tree["prompt"].update(replies=[3]), "a message is no object"),
        (lambda tree: tree["prompt"]["replies"][0].pop("text"), "text is missing"),
        (lambda tree: tree["prompt"]["replies"][0].update(role="cat"), "neither prompter nor assistant"),
    ],
)
def test_a_tree_that_is_none_says_why(change, problem):
    tree = copy.deepcopy(TREE)
    change(tree)
    with pytest.raises(Unreadable, match=problem):
        read_tree(1, tree)


# --------------------------------------------------------------------------------------------------------- PandaLM


def test_pairs_with_three_annotators_come_out_as_they_went_in(store, tmp_path):
    row = {
        "idx": 0, "motivation_app": "Grammarly", "cmp_key": "x_y", "instruction": "i", "input": "", "response1": False,
        "response2": "b", "annotator1": 0, "annotator2": 1, "annotator3": 2,
    }  # fmt: skip
    rows = [row, {**row, "idx": 1, "response1": "a", "response2": True}, {**row, "idx": 2, "response1": "False"}]
    path = tmp_path / "pandalm.json"
    path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    exchange = Exchange(store, tmp_path)
    done = exchange.put(path)
    assert (done.format, done.added, done.answers, done.bad) == ("pandalm", 3, 9, ())
    assert exchange.bytes("pandalm") == path.read_bytes()


def test_what_was_compared_here_has_numbered_annotators(store):
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=2), items=[new_item("k")])
    desk.label("ann")
    desk.label("bob")
    (row,) = json.loads(Exchange(store, None, desk.id).bytes("pandalm"))
    assert {"annotator1", "annotator2"} <= row.keys()
    assert row["response1"] == "k output 0"
    assert json.loads(Exchange(store, None, Desk(store).id).bytes("pandalm")) == []
