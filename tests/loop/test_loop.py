"""The loop: what it collects, what it learns from, how it goes on, and what stops it."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from rein.errors import UserError
from rein.feedback import tables, work
from rein.feedback.client import Client, claim, submit
from rein.feedback.judged import from_file
from rein.feedback.simulated_work import keys_of
from rein.feedback.store import Store
from rein.loop import collecting
from rein.loop.config import LoopConfig, groups_of, pairs_of_round
from rein.loop.loop import loop
from rein.loop.rounds import PROJECT
from rein.run import read_rows


@pytest.fixture(autouse=True)
def golds(world, monkeypatch):
    monkeypatch.syspath_prepend(str(world))


@pytest.fixture(scope="module")
def settings(world):
    return LoopConfig(
        world / "sft", world / "prompts.jsonl", rounds=2, format="plain", response_tokens=12, items=16,
        evaluation_items=6, gold="loop_golds:gold", policy_settings=world / "ppo.json",
        reward_settings=world / "reward.json", best_of=2, simulated=3, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(settings, world, tmp_path_factory):
    """A loop of two rounds."""
    out = tmp_path_factory.mktemp("loop") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(world))
        loop(replace(settings, out=out))
    return out


@pytest.fixture
def again(finished, settings, tmp_path):
    """A copy of it, and the settings that go on with it."""
    shutil.copytree(finished, tmp_path / "out")
    return replace(settings, out=tmp_path / "out")


def rows(path: Path) -> list:
    return list(read_rows(path))


def without_split(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "split"}


def json_of(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------- what it collects


def test_a_round_mixes_policies_as_asked_and_the_next_one_has_the_new_policy(finished):
    first = Counter(
        tuple(one["policy"] for one in row["outputs"])
        for row in rows(finished / "round-01/draw/items.jsonl") if row["role"] == "work"
    )  # fmt: skip
    assert first.keys() == {("initial", "initial"), ("initial", "ref")}
    second = Counter(
        tuple(one["policy"] for one in row["outputs"])
        for row in rows(finished / "round-02/draw/items.jsonl") if row["role"] == "work"
    )  # fmt: skip
    assert {name for pair in second for name in pair} == {"initial", "ref", "round-01", "round-01-bo2"}
    assert sum(second.values()) > sum(first.values())  # the pool, of which the most doubtful are answered


def test_only_prompts_to_learn_on_are_labeled_and_only_held_out_ones_evaluated(finished):
    held = {row["prompt"] for row in rows(finished / "prompts/heldout.jsonl")}
    train = {row["prompt"] for row in rows(finished / "prompts/train.jsonl")}
    assert not held & train
    for n in ("01", "02"):
        assert {row["context"]["prompt"] for row in rows(finished / f"round-{n}/draw/items.jsonl")} <= train
        assert {row["context"]["prompt"] for row in rows(finished / f"round-{n}/evaluate/items.jsonl")} <= held
        for row in rows(finished / f"round-{n}/evaluate/items.jsonl"):
            assert {one["policy"] for one in row["outputs"]} <= {f"round-{n}", "initial", "ref"}


def test_each_round_has_drift_pairs_and_calibration_items_that_several_answer(finished):
    for n in ("01", "02"):
        roles = Counter(row["role"] for row in rows(finished / f"round-{n}/draw/items.jsonl"))
        assert roles["calibration"] >= 1
        drift = [row for row in rows(finished / f"round-{n}/draw/items.jsonl") if row["role"] == "drift"]
        assert [[one["policy"] for one in row["outputs"]] for row in drift] == [["initial", "ref"]]


def test_judgements_are_all_answers_so_far_sorted_without_times_or_evaluations(finished):
    first, both = (rows(finished / f"round-{n}/judgements/judgements.jsonl") for n in ("01", "02"))
    answers = [row for n in ("01", "02") for row in rows(finished / f"round-{n}/collect/answers.jsonl")]
    assert [without_split(row) for row in both] == [without_split(row) for row in answers]
    assert [without_split(row) for row in both[: len(first)]] == [without_split(row) for row in first]
    for some in (first, both):
        of = {row["prompt"]: row["split"] for row in some}
        assert all(of[row["prompt"]] == row["split"] for row in some)  # prompts are held out whole
        assert {"train", "valid", "test"} == set(of.values())
    assert {row["batch"] for row in both} == {"round-01", "round-02"}
    keys = [(row["batch"], row["group_id"], row["labeler"]) for row in both]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert not any(re.search(r"time|_ms|_at", name) for row in both for name in row)
    judged, bad = from_file(finished / "round-02/judgements/judgements.jsonl", "ranked")
    assert len(judged) == len(both)
    assert not bad
    assert all(one.query.keys() == {"prompt"} for one in judged)


def test_batches_are_frozen_and_the_answers_are_rows_of_the_store_like_peoples(finished):
    with Store.open(finished / "labels.db") as store, store.reading() as conn:
        frozen = dict(conn.execute(select(tables.batch.c.name, tables.batch.c.frozen_ms)).all())
        is_labeler = tables.person.c.role == "labeler"
        people = conn.execute(select(tables.person.c.simulated).where(is_labeler)).scalars().all()
    assert frozen.keys() == {"round-01", "round-01-eval", "round-02", "round-02-eval"}
    assert all(frozen.values())
    assert set(people) == {True}


def test_items_that_the_reward_model_doubts_are_answered_first(finished):
    with Store.open(finished / "labels.db") as store, store.reading() as conn:
        item, batch = tables.item.c, tables.batch.c
        found = conn.execute(
            select(item.priority, item.done)
            .join(tables.batch, batch.id == item.batch)
            .where(batch.name == "round-02", item.role == "work")
        ).all()
    answered = [row.priority for row in found if row.done]
    left = [row.priority for row in found if not row.done]
    assert left
    assert np.mean(answered) > np.mean(left)


def test_what_is_measured_says_what_it_is_of(finished):
    said = json_of(finished / "round-02/evaluate/evaluation.json")
    assert said["prompts"] == 6
    assert said["gold"]["gained"]["value"] == pytest.approx(
        said["gold"]["policy"]["value"] - said["gold"]["initial"]["value"]
    )
    assert 0 <= said["over_initial"]["raw"]["value"] <= 1
    assert {"prompt", "initial", "policy", "reference"} == said["samples"][0].keys()
    summary = json_of(finished / "round-02/reward/summary.json")
    assert {"accuracy", "length_accuracy"} <= summary.keys()


# ------------------------------------------------------------------------------------------------------- going on


def test_a_finished_loop_is_not_done_again(again, capsys):
    before = {path: path.stat().st_mtime_ns for path in again.out.glob("round-*/**/*") if path.is_file()}
    loop(again)
    after = {path: path.stat().st_mtime_ns for path in again.out.glob("round-*/**/*") if path.is_file()}
    assert before == after
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"round +answers", lines[0])
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert all(line.endswith("done") for line in lines[1:3])


def test_fewer_rounds_or_no_waiting_are_the_same_loop_and_other_settings_are_named(again):
    loop(replace(again, rounds=1, wait=False))
    for name, value in (("items", 24), ("seed", 1), ("noise", 0.2), ("pairs", "current:ref=1"), ("best_of", 3)):
        with pytest.raises(UserError, match=f"other settings.*{name}: "):
            loop(replace(again, **{name: value}))


def test_other_prompts_under_the_same_name_are_named(again, tmp_path, world):
    (tmp_path / "p.jsonl").write_text((world / "prompts.jsonl").read_text())
    (again.out / "config.json").write_text(
        json.dumps({**json_of(again.out / "config.json"), "prompts": str(tmp_path / "p.jsonl")})
    )
    loop(replace(again, prompts=tmp_path / "p.jsonl"))
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Other {n}.", "reference": "A."}) + "\n" for n in range(9))
    )
    with pytest.raises(UserError, match="from another prompts than there is now"):
        loop(replace(again, prompts=tmp_path / "p.jsonl"))


def test_another_setting_in_a_file_of_settings_is_named(again, tmp_path, world):
    changed = {**json_of(world / "ppo.json"), "kl_coef": 0.2}
    (tmp_path / "ppo.json").write_text(json.dumps(changed))
    (again.out / "config.json").write_text(
        json.dumps({**json_of(again.out / "config.json"), "policy_settings": str(tmp_path / "ppo.json")})
    )
    with pytest.raises(UserError, match=r"round 1, policy.*other settings \(kl_coef: none → 0\.2\)"):
        loop(replace(again, policy_settings=tmp_path / "ppo.json"))


def test_a_store_that_was_changed_under_a_finished_round_is_named(again):
    with Store.open(again.out / "labels.db") as store:
        # What nobody can do by the pages or the API: another store's answers, a restored backup, a hand in the file.
        one = rows(again.out / "round-01/collect/answers.jsonl")[0]
        where = tables.item.c.key == one["group_id"]
        store.write(lambda conn: conn.execute(update(tables.item).where(where).values(split="valid")))
    with pytest.raises(UserError, match=r"1 answer of \d+ to round-01 are not there any more"):
        loop(again)


def test_a_store_that_is_gone_is_named(again):
    for path in again.out.glob("labels.db*"):
        path.unlink()
    with pytest.raises(UserError, match="There is no feedback store at"):
        loop(again)


def test_a_project_of_that_name_that_asks_something_else_is_named(settings, tmp_path):
    with Store.open(tmp_path / "labels.db", create=True) as store:
        store.write(lambda conn: work.create_project(conn, 0, replace_name("axes")))
    with pytest.raises(UserError, match="asks something else than this loop"):
        loop(replace(settings, out=tmp_path / "out", store=str(tmp_path / "labels.db")))


def replace_name(preset):
    from rein.feedback.project import PRESETS

    return replace(PRESETS[preset], name=PROJECT)


# ------------------------------------------------------------------------------------------------------------- people


def answers_by(config, name, most):
    """What a person would do at the pages: claims, and says that the longer text is better."""
    with Store.open(config.address) as store, collecting.served(store) as address:
        (key,) = keys_of(store, PROJECT, [name])
        with Client(address, key=key) as client:
            for _ in range(most):
                for card in client.send(claim(PROJECT, 1))["items"]:
                    longer = int(len(card["candidates"][1]["text"]) > len(card["candidates"][0]["text"]))
                    client.send(submit(card, {"choice": {"choice": longer, "points": 8 if longer else 2}}))


def test_it_says_how_many_answers_of_people_are_missing_and_goes_on_with_them(settings, tmp_path, capsys):
    config = replace(settings, out=tmp_path / "out", labelers="people", rounds=1, wait=False, calibration_share=0.0,
                     drift_share=0.0)  # fmt: skip
    loop(config)
    said = capsys.readouterr().out
    assert "waiting for 16 answers of people to round-01." in said
    assert f"rein label serve {config.address}" in said
    assert "next: answers collected" in said
    answers_by(config, "ada", 10)
    loop(config)
    assert "waiting for 6 answers of people" in capsys.readouterr().out
    answers_by(config, "ada", 6)
    loop(config)
    assert "to round-01-eval" in capsys.readouterr().out
    judged = rows(config.out / "round-01/judgements/judgements.jsonl")
    assert len(judged) == 16
    texts = [[len(one["text"]) for one in row["outputs"]] for row in judged]
    assert all(two[row["choice"]] >= two[1 - row["choice"]] for two, row in zip(texts, judged, strict=True))
    answers_by(config, "ada", 6)
    loop(config)
    assert capsys.readouterr().out.splitlines()[-2].endswith("done")


def test_some_answers_may_be_left_for_people(settings, tmp_path, capsys):
    config = replace(settings, out=tmp_path / "out", by_people=3, rounds=1, wait=False)
    loop(config)
    assert "waiting for 3 answers of people to round-01." in capsys.readouterr().out
    answers_by(config, "ada", 9)
    loop(config)
    labelers = Counter(row["labeler"] for row in rows(config.out / "round-01/judgements/judgements.jsonl"))
    assert labelers["ada"] >= 3
    assert len(labelers) == 4


# ------------------------------------------------------------------------------------------------------- improvements


@pytest.mark.parametrize("improve", ["dpo", "rejection", "grpo", "rloo"])
def test_a_policy_by_other_means(settings, world, tmp_path, improve):
    sampled = {"learning_rate": 1e-3, "queries_per_batch": 4, "samples": 2, "episodes": 16, "heldout_prompts": 4,
               "precision": "fp32"}  # fmt: skip
    given = {
        "dpo": {"learning_rate": 1e-3, "judgements_per_batch": 8, "precision": "fp32", "warmup_updates": 0},
        "rejection": {"learning_rate": 1e-3, "demonstrations_per_batch": 8, "samples": 2, "precision": "fp32"},
    }.get(improve, sampled)
    (tmp_path / "settings.json").write_text(json.dumps(given))
    config = replace(settings, out=tmp_path / "out", rounds=1, improve=improve,
                     policy_settings=tmp_path / "settings.json")  # fmt: skip
    loop(config)
    said = json_of(config.out / "round-01/evaluate/evaluation.json")
    assert said["kl_nats"]["value"] != 0
    if improve == "rejection":
        chosen = rows(config.out / "round-01/policy/demonstrations.jsonl")
        assert 0 < len(chosen) <= len(rows(config.out / "prompts/train.jsonl"))
    if given is sampled:
        kept = json_of(config.out / "round-01/policy/run/config.json")
        assert (kept["estimator"], kept["gold"], kept["response_tokens"]) == (improve, config.gold, 12)
        assert json_of(config.out / "round-01/policy/summary.json")["episodes"] == 16


def test_the_estimator_is_what_improve_says(settings, tmp_path):
    (tmp_path / "settings.json").write_text('{"estimator": "grpo"}')
    config = replace(settings, out=tmp_path / "out", improve="rloo", policy_settings=tmp_path / "settings.json")
    with pytest.raises(UserError, match=r"has estimator, which `rein loop` decides itself.\n.*--improve of the loop"):
        loop(config)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rounds": 0}, "--rounds is 0"),
        ({"items": 0}, "--items is 0"),
        ({"best_of": 0}, "--best-of is 0"),
        ({"by_people": -1}, "--by-people is -1"),
        ({"temperature": -0.1}, "--temperature is -0.1"),
        ({"by_people": 17}, "--by-people is 17, but a round has --items 16"),
        ({"overlap": 4}, "--overlap is 4, but there are 3 simulated labelers"),
        ({"evaluation_items": 2}, "--evaluation-items is 2"),
        ({"pool": 0.5}, "--pool is 0.5"),
        ({"uniform_share": 1.0}, "--uniform-share is 1.0"),
        ({"preset": "none"}, "--preset is 'none'"),
        ({"format": "none"}, "--format is 'none'"),
        ({"pairs": "current:best2=1"}, "--pairs names 'best2'"),
        ({"pairs": "current=1"}, "--pairs has 'current'"),
        ({"pairs": "ref:ref=1"}, "--pairs has 'ref:ref'"),
        ({"pairs": "current:ref=much"}, "the share 'much'"),
        ({"pairs": "current:ref=0"}, "the share '0'"),
        ({"noise": 2.0}, "noise is 2"),
    ],
)
def test_settings_that_cannot_be(settings, changed, said):
    with pytest.raises(UserError, match=re.escape(said)):
        replace(settings, **changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": Path("none.jsonl")}, "There is no file none.jsonl"),
        ({"pairs": "best:current=1"}, "no group for the first round"),
        ({"response_tokens": None}, "does not say how long a response may be"),
        ({"gold": "loop_golds:missing"}, "missing"),
        ({"policy": Path("no-model")}, "no-model does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_a_folder_is_made(settings, tmp_path, changed, said):
    with pytest.raises(UserError, match=re.escape(said)):
        loop(replace(settings, out=tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [({"out": "x"}, "has out, which `rein loop` decides itself"), ({"episode": 3}, "unknown setting 'episode'"),
     ({"episodes": "many"}, "episodes in")],
)  # fmt: skip
def test_a_file_of_settings_that_cannot_be_is_named_at_once(settings, tmp_path, given, said):
    (tmp_path / "settings.json").write_text(json.dumps(given))
    with pytest.raises(UserError, match=re.escape(said)):
        loop(replace(settings, out=tmp_path / "out", policy_settings=tmp_path / "settings.json"))
    assert not (tmp_path / "out").exists()


def test_too_few_prompts_are_named(settings, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "One."}\n')
    with pytest.raises(UserError, match="fewer than 4 prompts"):
        loop(replace(settings, out=tmp_path / "out", prompts=tmp_path / "p.jsonl"))


def test_references_that_are_asked_for_and_missing_are_named(settings, tmp_path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(24)))
    config = replace(settings, out=tmp_path / "out", prompts=tmp_path / "p.jsonl")
    with pytest.raises(UserError, match=r"asks for ref, but 24 prompts of .* have no"):
        loop(config)
    loop(replace(config, pairs="current:initial=1", rounds=1))
    said = json_of(config.out / "round-01/evaluate/evaluation.json")
    assert said["over_references"] is None
    assert len(rows(config.out / "prompts/heldout.jsonl")) == 2
    assert not [row for row in rows(config.out / "round-01/draw/items.jsonl") if row["role"] == "drift"]


def test_people_are_not_waited_for_where_fewer_items_could_be_drawn(settings, tmp_path, world, capsys):
    # At temperature 0 two samples of one model are the same text, and left out.
    config = replace(settings, out=tmp_path / "out", rounds=1, by_people=2, temperature=0.0, wait=False,
                     pairs="current:current=0.5,current:ref=0.5")  # fmt: skip
    loop(config)
    items = [row for row in rows(config.out / "round-01/draw/items.jsonl") if row["role"] == "work"]
    assert len(items) == 8
    assert "waiting for 2 answers of people to round-01." in capsys.readouterr().out


def test_the_mixture_of_a_round_keeps_its_shares():
    mixture = groups_of("current:initial=0.3,current:ref=0.2,best:current=0.5")
    assert pairs_of_round(mixture, 1, 8) == "initial:initial=0.3,initial:ref=0.2"
    assert pairs_of_round(mixture, 3, 1) == "round-02:initial=0.3,round-02:ref=0.2"
