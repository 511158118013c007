"""Items drawn with the format that a model was trained with, and with a reward model that says which sample is best."""

from __future__ import annotations

import dataclasses
import json

import pytest
from sqlalchemy import select

from rein import checkpoint
from rein.errors import UserError
from rein.feedback import policies, tables
from rein.feedback.draw import DrawConfig, draw
from rein.feedback.items import create_project
from rein.feedback.project import Project, Question
from rein.feedback.store import Store
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.models.scalar import about_scalar, save_scalar, scalar_from
from rein.text.prompts import encode_query, format_of

ROWS = [{"name": f"m.f{n}", "post": f"One of {n}.\nTwo.\nThree.", "package": "m"} for n in range(4)]
PROJECT = Project("p", questions=(Question("choice", "comparison"),), fields=("name", "post"))


@pytest.fixture
def config(tmp_path, tokenizer):
    model = GPT(GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=64, n_embd=32, n_head=2, n_layer=1)).initialise(0)
    checkpoint.save(tmp_path / "a", lambda path: save_model(path, model, tokenizer), {"made_by": "test"})
    judge = scalar_from(model, 3)
    checkpoint.save(
        tmp_path / "judge", lambda path: save_scalar(path, judge, tokenizer), {"scalar": about_scalar(judge)}
    )
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    with Store.open(tmp_path / "labels.db", create=True) as store:
        store.write(lambda conn: create_project(conn, 0, PROJECT))
    return DrawConfig(
        store=str(tmp_path / "labels.db"), project="p", prompts=tmp_path / "p.jsonl", n=4, max_new_tokens=8,
        policy=(f"now={tmp_path / 'a'}",), pairs="now:now=1", format="docstring", query_tokens=24, device="cpu",
        temperature=1.0,
    )  # fmt: skip


def drawn(config):
    with Store.open(config.store) as store, store.reading() as conn:
        return conn.execute(select(tables.item).order_by(tables.item.c.id)).all()


def test_a_model_reads_what_its_format_says(config, tokenizer, monkeypatch):
    asked = []
    rollouts = policies.rollouts
    monkeypatch.setattr(
        policies, "rollouts", lambda model, queries, **how: asked.extend(queries) or rollouts(model, queries, **how)
    )
    draw(config)
    format = format_of("docstring", query_tokens=24)
    wanted = {encode_query(format, row, tokenizer) for row in ROWS}
    assert {tuple(ids) for ids in asked} == wanted
    assert all(len(ids) <= 24 for ids in wanted)
    assert {tuple(row.context) for row in drawn(config)} == {("name", "post")}  # labelers see the project's fields


def test_a_reward_model_says_which_sample_is_best(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, pairs="now-bo4:now=1", best_of=4, scorer=str(tmp_path / "judge"))
    seen = []
    scores = policies._scores

    def spy(judge, config, tokenizer, prompt, query, texts):
        found = scores(judge, config, tokenizer, prompt, query, texts)
        seen.append((list(texts), found))
        return found

    monkeypatch.setattr(policies, "_scores", spy)
    draw(config)
    best = {texts[found.index(max(found))].strip() for texts, found in seen}
    assert len(seen) == 4
    assert {row.candidates[0]["text"] for row in drawn(config) if row.candidates[0]["policy"] == "now-bo4"} <= best


def test_a_reward_model_is_known_by_its_weights(config, tmp_path):
    config = dataclasses.replace(config, pairs="now-bo2:now=1", best_of=2, scorer=str(tmp_path / "judge"))
    draw(config)
    keys = {row.key for row in drawn(config)}
    draw(config)
    assert {row.key for row in drawn(config)} == keys  # the same one goes on
    (tmp_path / "judge").rename(tmp_path / "moved")
    draw(dataclasses.replace(config, scorer=str(tmp_path / "moved")))
    assert {row.key for row in drawn(config)} == keys  # wherever it lies


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"query": "{post}"}, "--query and --format both say"),
        ({"format": "docs"}, "--format is 'docs'"),
        ({"format": ""}, "--query-tokens is of a format"),
        ({"scorer": "no-folder", "best_of": 2}, "no-folder"),
    ],
)
def test_what_cannot_be_is_named(config, changed, said):
    with pytest.raises(UserError, match=said):
        draw(dataclasses.replace(config, **changed))
