"""Items drawn from policies: the shares that were asked for, blind candidates, nothing twice, and going on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from rein import checkpoint
from rein.errors import UserError
from rein.feedback import tables
from rein.feedback.draw import DrawConfig, Plan, Prompt, draw, item_of, plans, read_prompts, typed
from rein.feedback.items import create_project
from rein.feedback.policies import Policies, cut, likelihoods
from rein.feedback.project import PRESETS
from rein.feedback.store import Store
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model

PROMPTS = [
    {"title": f"Title {at}", "post": f"One of {at}. Two. Three. Four.", "reference": f"It is {at}."} for at in range(6)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    """Two untrained models on disk."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("a", 0), ("b", 1)):
        config = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=128, n_embd=32, n_head=2, n_layer=1)
        model = GPT(config).initialise(seed)
        checkpoint.save(
            folder / name, lambda path, model=model: save_model(path, model, tokenizer), {"made_by": "test"}
        )
    return folder


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS), encoding="utf-8")
    return path


@pytest.fixture
def config(models, prompts, tmp_path):
    with Store.open(tmp_path / "labels.db", create=True) as store:
        for name in ("comparison", "ranking"):
            store.write(lambda conn, name=name: create_project(conn, 0, PRESETS[name]))
    return DrawConfig(
        store=str(tmp_path / "labels.db"), project="comparison", prompts=prompts, n=20, max_new_tokens=8,
        policy=(f"now={models / 'a'}", f"initial={models / 'b'}"), references=True, device="cpu",
        pairs="now:initial=0.5,now:ref=0.25,initial:ref=0.25",
    )  # fmt: skip


def items(config) -> list:
    with Store.open(config.store) as store, store.reading() as conn:
        return conn.execute(select(tables.item).order_by(tables.item.c.id)).all()


def policies(row) -> tuple[str, ...]:
    return tuple(candidate["policy"] for candidate in row.candidates)


# ------------------------------------------------------------------------------------------------------ the mixture


@given(shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=6), n=st.integers(0, 300), seed=st.integers(0, 5))
def test_every_group_has_its_share_at_any_number_of_items(shares, n, seed):
    groups = {("p", str(at)): share / sum(shares) for at, share in enumerate(shares)}
    prompt = Prompt({"prompt": "a"}, "a", None, "train", 1)
    made = [plan.group for plan in plans([prompt], groups, n, seed)]
    n_whole = n // 8 * 8
    had = Counter(made[:n_whole])
    for group, share in groups.items():
        assert abs(had[group] - share * n_whole) <= len(groups), "whole blocks are within a turn or so of their share"
    more = [plan.group for plan in plans([prompt], groups, n + 9, seed)]
    assert more[:n] == made, "a larger n goes on"


def test_a_prompt_that_comes_again_meets_other_groups():
    some = [Prompt({"prompt": str(at)}, str(at), None, "train", at + 1) for at in range(8)]
    made = list(plans(some, {("a", "b"): 0.5, ("a", "c"): 0.5}, 160, 0))
    met = {line: {plan.group for plan in made if plan.prompt.line == line} for line in range(1, 9)}
    assert all(len(groups) == 2 for groups in met.values())
    assert len({plan.key for plan in made}) == 160


def test_keys_change_with_what_was_asked_for():
    some = [Prompt({"prompt": "a"}, "a", None, "train", 1)]
    groups = {("a", "b"): 1.0}

    def key(*args):
        return next(iter(plans(*args))).key

    assert key(some, groups, 1, 0) == key(some, groups, 1, 0)
    others = {key(some, groups, 1, 1), key(some, groups, 1, 0, "other weights"), key(some, {("b", "a"): 1.0}, 1, 0)}
    assert len(others | {key(some, groups, 1, 0)}) == 4


def test_without_pairs_every_two_policies_meet(models):
    config = DrawConfig(project="p", prompts="x", policy=("now=a", "initial=b"), references=True, baseline=("lead-3",))
    assert set(config.groups()) == {
        ("now", "initial"), ("now", "ref"), ("now", "lead-3"), ("initial", "ref"), ("initial", "lead-3"),
        ("ref", "lead-3"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pairs": "now:old=1"}, "--pairs names 'old'"),
        ({"pairs": "now:now=x"}, "the share 'x'"),
        ({"pairs": "now:now=0"}, "the share '0'"),
        ({"pairs": "now:now=1,now:now=2"}, "each group once"),
        ({"pairs": "ref:ref=1", "references": True}, "ref has one answer"),
        ({"pairs": ":".join(["now"] * 10)}, "Name 1 to 9 policies"),
        ({}, "Two policies are needed for a pair, and there is now"),
        ({"policy": ()}, "there is none"),
        ({"policy": ("now",)}, "--policy is 'now'"),
        ({"policy": ("ref=a",)}, "--policy is 'ref=a'"),
        ({"policy": ("a=x", "a=y")}, "names 'a' twice"),
        ({"baseline": ("lead3",)}, "no baseline 'lead3'"),
        ({"n": 0}, "--n is 0"),
        ({"best_of": 0}, "--best-of is 0"),
        ({"temperature": -1.0}, "--temperature is -1"),
        ({"role": "goal"}, "Did you mean gold"),
    ],
)
def test_settings_that_cannot_be_had(settings, says):
    with pytest.raises(UserError, match=says):
        DrawConfig(**{"project": "p", "prompts": "x", "policy": ("now=a",), **settings})


# --------------------------------------------------------------------------------------------------- the whole of it


def test_items_are_drawn_with_their_policies_and_the_same_command_adds_nothing(config, capsys):
    draw(config)
    rows = items(config)
    assert f"{len(rows)} items drawn into comparison" in capsys.readouterr().out
    assert len(rows) > 15, "untrained models hardly ever write the same twice"
    had = Counter(policies(row) for row in rows)
    assert set(had) == {("now", "initial"), ("now", "ref"), ("initial", "ref")}
    for row in rows:
        source = next(one for one in PROMPTS if one["title"] == row.context["title"])
        assert row.context == {"title": source["title"], "post": source["post"]}, "the reference is no part of it"
        for candidate in row.candidates:
            assert candidate["text"] == candidate["text"].strip()
            if candidate["policy"] == "ref":
                assert candidate["text"] == source["reference"]
    with Store.open(config.store) as store, store.reading() as conn:
        log = conn.execute(select(tables.audit).where(tables.audit.c.act == "draw items")).all()
    assert sum(row.about["items"] for row in log) == len(rows)
    draw(config)
    assert f"0 items drawn into comparison, {len(rows)} were there already" in capsys.readouterr().out
    assert items(config) == rows


def test_it_goes_on_where_it_was_cut_off_and_is_the_same_as_in_one_go(config, tmp_path):
    draw(replace(config, n=7))
    draw(config)
    whole = replace(config, store=str(tmp_path / "other.db"))
    with Store.open(whole.store, create=True) as store:
        store.write(lambda conn: create_project(conn, 0, PRESETS["comparison"]))
    draw(whole)
    ours, theirs = ([(row.key, row.candidates, row.context) for row in items(one)] for one in (config, whole))
    assert sorted(ours, key=str) == sorted(theirs, key=str)


def test_several_samples_of_one_model_are_a_group_to_rank(config):
    config = replace(config, project="ranking", pairs="now:now:now:initial=1", n=6)
    draw(config)
    rows = items(config)
    assert rows
    assert all(len({candidate["text"] for candidate in row.candidates}) == len(row.candidates) for row in rows)
    assert any(policies(row) == ("now", "now", "now", "initial") for row in rows)


def test_the_best_of_several_samples_is_the_one_that_the_scorer_likes(config, models, monkeypatch, tmp_path):
    (tmp_path / "liking.py").write_text("def longest(context, text):\n    return len(text)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(config, best_of=6, scorer="liking:longest", pairs="now-bo6:now=1", n=6)
    draw(config)
    rows = items(config)
    assert {policies(row) for row in rows} == {("now-bo6", "now")}
    longer = sum(len(row.candidates[0]["text"]) >= len(row.candidates[1]["text"]) for row in rows)
    assert longer >= len(rows) - 1


def test_a_project_that_asks_something_else_is_an_error(config):
    with pytest.raises(UserError, match="asks a comparison of 2 to 2 candidates, and now:now:ref has 3"):
        draw(replace(config, pairs="now:now:ref=1"))
    with pytest.raises(UserError, match="no project 'comparisons'"):
        draw(replace(config, project="comparisons"))


def test_a_prompt_that_the_store_cannot_keep_is_an_error(config, prompts):
    prompts.write_text(json.dumps({"prompt": "a\0b", "reference": "c"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="NUL"):
        draw(replace(config, n=2, pairs="now:ref=1"))


# ------------------------------------------------------------------------------------------------- texts of policies


def wanted(group, at=0, reference="r") -> Plan:
    return Plan(f"key{at}", Prompt({"prompt": f"p {at}"}, f"p {at}", reference, "train", at + 1), group)


def test_a_text_does_not_depend_on_what_is_drawn_beside_it(models):
    config = DrawConfig(project="p", prompts="x", policy=("now=a",), pairs="now:now=1", max_new_tokens=12)
    some = [wanted(("now", "now"), at) for at in range(5)]
    together = Policies({"now": models / "a"}, device="cpu").answers(config, some)
    alone = [Policies({"now": models / "a"}, device="cpu").answers(config, [plan])[0] for plan in reversed(some)]
    assert together == alone[::-1]
    assert together[0][0] != together[0][1], "two samples of one prompt are two"


def test_what_does_not_fit_is_left_out_and_the_rest_is_made(models):
    config = DrawConfig(project="p", prompts="x", policy=("now=a",), pairs="now:now=1", max_new_tokens=12)
    long = Plan("long", Prompt({"prompt": "x" * 500}, "x" * 500, None, "train", 1), ("now", "now"))
    texts = Policies({"now": models / "a"}, device="cpu").answers(config, [long, wanted(("now", "now"))])
    assert texts[0] == [None, None]
    assert None not in texts[1]
    assert item_of(config, long, texts[0]) == (None, "too long")


def test_a_reference_that_is_not_there_is_an_error(models):
    config = DrawConfig(project="p", prompts="x", policy=("now=a",), references=True)
    with pytest.raises(UserError, match="line 1 has no reference"):
        Policies({"now": models / "a"}, device="cpu").answers(config, [wanted(("ref", "now"), reference=None)])


def test_other_weights_are_another_policy(models, tmp_path, tokenizer):
    a, b = (Policies({"now": models / name}).fingerprints()["now"] for name in ("a", "b"))
    assert a != b
    assert a == Policies({"now": models / "a"}).fingerprints()["now"]
    save_model(tmp_path, GPT(GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=16, n_embd=8, n_head=1, n_layer=1)), tokenizer)
    bare = Policies({"now": tmp_path}).fingerprints()["now"]  # without a record of what was saved
    assert len(bare) == 64
    assert bare not in (a, b)


def test_the_likeliest_text_is_found_by_a_plain_forward_pass_too(models):
    model, tokenizer = Policies({"now": models / "a"}, device="cpu")._model("now")
    prompt = tokenizer.encode("def f").tolist()
    texts = ["(self)", " return None", ""]
    found = likelihoods(model, tokenizer, prompt, texts)
    for text, score in zip(texts[:2], found, strict=False):
        ids = tokenizer.encode(text).tolist()
        logprobs_TV = torch.log_softmax(model(torch.tensor([[*prompt, *ids]]))[0].double(), dim=-1)
        plain = [logprobs_TV[len(prompt) - 1 + at, id].item() for at, id in enumerate(ids)]
        assert score == pytest.approx(np.mean(plain), abs=1e-4)
    assert found[2] == -np.inf


# --------------------------------------------------------------------------------------------------------- details


def test_space_around_a_text_tells_nobody_who_wrote_it():
    config = DrawConfig(project="p", prompts="x", references=True, baseline=("lead-3",))
    item, why = item_of(config, wanted(("now", "ref")), [" a text ", "a reference"])
    assert why == "made"
    assert [one["text"] for one in item.candidates] == ["a text", "a reference"]
    assert [one["extra"] for one in item.candidates] == [{"raw": " a text "}, {}]


@pytest.mark.parametrize(("texts", "why"), [(["a", " a"], "same"), (["a", "  "], "empty"), (["a", None], "too long")])
def test_what_cannot_be_compared_is_left_out(texts, why):
    config = DrawConfig(project="p", prompts="x", references=True, baseline=("lead-3",))
    assert item_of(config, wanted(("now", "ref")), texts) == (None, why)


def test_of_equal_texts_in_a_ranking_one_stays():
    config = DrawConfig(project="p", prompts="x", references=True, baseline=("lead-3",))
    item, why = item_of(config, wanted(("a", "b", "c")), ["x", "x", "y"])
    assert why == "made of fewer"
    assert [(one["policy"], one["text"]) for one in item.candidates] == [("a", "x"), ("c", "y")]


def test_a_query_is_made_of_the_fields(prompts):
    first = next(read_prompts(prompts, "TITLE: {title}\\n\\n{post}\\nTL;DR:"))
    assert first.query == "TITLE: Title 0\n\nOne of 0. Two. Three. Four.\nTL;DR:"
    assert next(read_prompts(prompts)).query == "Title 0\n\nOne of 0. Two. Three. Four."
    assert first.reference == "It is 0."


def test_fields_that_nobody_knows_are_kept_and_not_shown(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"post": "x", "generator": "gpt", "n": 3}\n', encoding="utf-8")
    (prompt,) = read_prompts(tmp_path / "p.jsonl")
    assert (prompt.context, prompt.unseen, prompt.query) == ({"post": "x"}, {"generator": "gpt", "n": 3}, "x")
    plan = Plan("key", prompt, ("ref", "lead-3"))
    config = DrawConfig(project="p", prompts="x", references=True, baseline=("lead-3",))
    item, _ = item_of(config, plan, ["a", "b"])
    assert item.context == {"post": "x"}
    assert item.extra["row"] == {"generator": "gpt", "n": 3}
    (prompt,) = read_prompts(tmp_path / "p.jsonl", "{generator}: {post}", ("generator",))
    assert (prompt.context, prompt.query) == ({"generator": "gpt"}, "gpt: x")  # a model may read what people do not
    (prompt,) = read_prompts(tmp_path / "p.jsonl", fields=None)
    assert prompt.context == {"post": "x", "generator": "gpt", "n": 3}
    (tmp_path / "p.jsonl").write_text('{"generator": "gpt"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 1, has no field that labelers are shown, but 'generator'"):
        list(read_prompts(tmp_path / "p.jsonl"))


def test_a_field_that_holds_braces_stays_as_it_is(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"title": "{post}", "post": "x"}\n', encoding="utf-8")
    assert next(read_prompts(tmp_path / "p.jsonl", "{title}|{post}")).query == "{post}|x"


@pytest.mark.parametrize(
    ("lines", "template", "says"),
    [
        ("[1]\n", "", "line 1, is no JSON object"),
        ('{"prompt": "a"}\n{"n": 1}\n', "", "line 2, has no text"),
        ('{"prompt": "a", "reference": 3}\n', "", "line 1, has a reference that is no text"),
        ('{"post": "a"}\n', "{pots}", "Did you mean post"),
        ("", "", "has no prompts"),
    ],
)
def test_prompts_that_nothing_can_be_made_of(tmp_path, lines, template, says):
    (tmp_path / "p.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        list(read_prompts(tmp_path / "p.jsonl", template))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        list(read_prompts(tmp_path / "none.jsonl"))


def test_an_answer_ends_before_the_first_stop_string():
    assert cut("a\n\nb. c", ["\\n\\n", ". "]) == "a"
    assert cut("abc", ["x", ""]) == "abc"
    assert typed("a\\tb") == "a\tb"
