"""Real files of human feedback, in and out without loss."""

import gzip
import json

import pytest
from exchanging import Exchange
from sqlalchemy import func, select

from rein.feedback.exchange.checking import Given
from rein.feedback.tables import answer, item


@pytest.fixture
def dialect():
    return "sqlite"


@pytest.fixture
def exchange(store, tmp_path):
    return Exchange(store, tmp_path)


def test_the_ranked_trees_of_open_assistant_come_out_byte_for_byte(exchange, shared_data):
    path = shared_data / "feedback" / "oasst_rankings_en_100_tree.jsonl"
    done = exchange.put(path)
    assert (done.format, done.added, done.answers, done.bad_total, done.lines) == ("oasst", 212, 212, 0, 100)
    assert exchange.bytes("oasst") == path.read_bytes()
    assert exchange.put(path).added == 0
    rows = exchange.rows("trl")
    assert len(rows) == 754  # pairs of the 212 rankings
    assert len({row["group_id"] for row in rows}) == 212


def test_the_pairs_of_pandalm_come_out_byte_for_byte_booleans_too(exchange, shared_data):
    path = shared_data / "feedback" / "pandalm_testset_v1.json"
    done = exchange.put(path)
    assert (done.format, done.added, done.answers, done.bad_total) == ("pandalm", 999, 2997, 0)
    assert exchange.bytes("pandalm") == path.read_bytes()
    rows = json.loads(path.read_bytes())
    booleans = sum(isinstance(row[name], bool) for row in rows for name in ("response1", "response2"))
    with exchange.store.reading() as conn:
        texts = [one["text"] for some in conn.execute(select(item.c.candidates)).scalars() for one in some]
        choices = dict(
            conn.execute(select(answer.c.choice, func.count()).group_by(answer.c.choice)).all()
        )  # fmt: skip
    assert booleans == 6 == sum(text in ("True", "False") for text in texts)
    said = [row[f"annotator{n}"] for row in rows for n in (1, 2, 3)]
    assert choices == {-1: said.count(0), 0: said.count(1), 1: said.count(2)}


def test_the_dialogues_of_hh_rlhf_come_out_byte_for_byte_those_of_two_prompts_too(exchange, shared_data):
    path = shared_data / "feedback" / "hh_rlhf_harmless_test.jsonl.gz"
    done = exchange.put(path, given=Given(splits={"valid1": 0.1}))
    assert (done.format, done.answers, done.bad_total) == ("hh-rlhf", 2312, 0)
    assert exchange.bytes("hh-rlhf") == gzip.decompress(path.read_bytes())
    with exchange.store.reading() as conn:
        contexts = conn.execute(select(item.c.context, item.c.candidates, item.c.split)).all()
    dialogues = [context["dialogue"] for context, _, _ in contexts]
    assert all(dialogue.endswith("\n\nAssistant:") for dialogue in dialogues if dialogue)
    turns = sum("\n\nAssistant:" in one["text"] for _, candidates, _ in contexts for one in candidates)
    assert 0 < turns <= 10  # of the five pairs that go different ways
    by_prompt = {}
    for dialogue, (_, _, split) in zip(dialogues, contexts, strict=True):
        by_prompt.setdefault(dialogue, set()).add(split)
    assert all(len(splits) == 1 for splits in by_prompt.values())


def test_preferences_and_instructions_of_llama_factory_come_in(store, tmp_path, shared_data):
    exchange = Exchange(store, tmp_path, "pairs")
    done = exchange.put(shared_data / "feedback" / "dpo_en_demo.json")
    assert (done.format, done.answers, done.bad_total) == ("trl", 300, 0)
    given = json.loads((shared_data / "feedback" / "dpo_en_demo.json").read_bytes())
    rows = exchange.rows("trl")
    assert [row["chosen"][0]["content"] for row in rows] == [row["chosen"]["value"] for row in given]
    assert [row["rejected"][0]["content"] for row in rows] == [row["rejected"]["value"] for row in given]
    exchange = Exchange(store, tmp_path, "prompts")
    done = exchange.put(shared_data / "feedback" / "alpaca_en_demo.json", preset="rating")
    assert (done.format, done.added + done.known, done.answers, done.bad_total) == ("prompts", 999, 0, 0)


def test_real_feedback_comes_out_of_reins_own_format_byte_for_byte(new_store, tmp_path, shared_data):
    first, second = (Exchange(new_store(), tmp_path) for _ in range(2))
    first.put(shared_data / "feedback" / "oasst_rankings_en_100_tree.jsonl")
    path = tmp_path / "own.jsonl"
    path.write_bytes(first.bytes("rein"))
    done = second.put(path)
    assert (done.format, done.added, done.answers, done.bad_total) == ("rein", 212, 212, 0)
    assert second.bytes("rein") == path.read_bytes()
    assert second.bytes("oasst") == first.bytes("oasst")
