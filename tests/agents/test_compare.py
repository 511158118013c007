"""`rein tamer compare`: the same seeds everywhere, results kept as they are done, figures of all of them."""

from __future__ import annotations

import csv
import dataclasses
import re

import numpy as np
import pytest
from scipy import stats

from rein.agents import compare as comparison
from rein.agents.compare import CompareConfig, Condition, compare, conditions, half_width, rows_of, run_condition
from rein.cli import main
from rein.errors import UserError

SMALL = {"runs": 3, "episodes": 4, "techniques": ("action-biasing", "control-sharing"), "h_weights": (0.5,)}


def small(tmp_path, **more):
    return CompareConfig(out=tmp_path / "out", **{**SMALL, "tasks": ("mountain-car",), **more})


def test_everything_is_written_and_the_numbers_agree(tmp_path, capsys):
    compare(small(tmp_path))
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["technique"] for row in rows] == ["sarsa", "action-biasing", "control-sharing"]
    for row in rows:
        returns = np.load(next((out / "conditions").glob(f"mountain-car-{row['technique']}*")))["returns"]
        assert returns.shape == (3, 4)
        assert float(row["mean"]) == pytest.approx(returns.mean(), abs=1e-3)
    episodes = list(csv.DictReader((out / "episodes.csv").read_text().splitlines()))
    assert len(episodes) == 3 * 4
    for kind in ("curves", "bars"):
        assert (out / f"{kind}-mountain-car.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (out / f"{kind}-mountain-car.svg").read_bytes()
    page = (out / "index.html").read_text()
    assert "control-sharing, weight 0.5" in page
    assert not re.search(r"(src|href)=.?https?:", page)
    assert "over SARSA alone" in capsys.readouterr().out


def test_the_page_and_the_figures_are_the_same_every_time(tmp_path):
    compare(small(tmp_path))
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.suffix in (".svg", ".csv", ".html")}
    compare(small(tmp_path))
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.name in before}
    assert after == before


def test_a_second_start_runs_only_what_is_missing(tmp_path, monkeypatch):
    compare(small(tmp_path))
    removed = tmp_path / "out" / "conditions" / "mountain-car-action-biasing-0.5.npz"
    kept = removed.read_bytes()
    removed.unlink()
    ran = []

    def counted(config, condition):
        ran.append(condition.technique)
        return run_condition(config, condition)

    monkeypatch.setattr(comparison, "run_condition", counted)
    compare(small(tmp_path))
    assert ran == ["action-biasing"]
    assert np.array_equal(np.load(removed)["returns"], np.load(_written(tmp_path, kept))["returns"])


def _written(tmp_path, data):
    path = tmp_path / "kept.npz"
    path.write_bytes(data)
    return path


def test_another_comparison_in_the_same_folder_is_refused(tmp_path):
    compare(small(tmp_path))
    with pytest.raises(UserError, match=r"other settings \(seed: 0 → 1\)"):
        compare(small(tmp_path, seed=1))


def test_threads_change_nothing(tmp_path):
    condition = Condition("mountain-car", "control-sharing", 0.5, 5)
    one, two = (run_condition(small(tmp_path, threads=n), condition) for n in (1, 2))
    assert np.array_equal(one, two)


def test_conditions_are_paired_by_seed(tmp_path):
    # With a weight of nothing a technique is SARSA alone, run by run.
    alone = run_condition(small(tmp_path), Condition("cart-pole", "sarsa", 0.0, 5))
    biased = run_condition(small(tmp_path), Condition("cart-pole", "action-biasing", 0.0, 5))
    assert np.array_equal(alone, biased)
    results = {Condition("cart-pole", "sarsa", 0.0, 5): alone, Condition("cart-pole", "action-biasing", 0.0, 5): biased}
    assert [row["over_sarsa"] for row in rows_of(results)] == [0.0, 0.0]


def test_the_interval_is_students():
    values = np.array([[1.0], [2.0], [4.0], [9.0]])
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values[:, 0]))
    assert half_width(values)[0] == pytest.approx((high - low) / 2)


def test_a_task_that_is_not_compiled_runs_through_the_plain_classes(tmp_path):
    settings = small(tmp_path, tasks=("loop-maze",), episodes=12)
    alone = run_condition(settings, Condition("loop-maze", "sarsa", 0.0, 12))
    biased = run_condition(settings, Condition("loop-maze", "action-biasing", 50.0, 12))
    assert alone.shape == biased.shape == (3, 12)
    assert biased.mean() > alone.mean() + 10
    together = dataclasses.replace(settings, experiment="simultaneous", episodes=30, techniques=("control-sharing",))
    taught = Condition("loop-maze", "control-sharing", 2.0, 12, "start", 0, 6)
    assert run_condition(together, taught).mean() > alone.mean() + 10


def test_the_surveys_experiments_are_the_defaults():
    sequential = list(conditions(CompareConfig()))
    assert len(sequential) == 2 * (1 + 4 * 5)
    assert {c.episodes for c in sequential if c.task == "cart-pole"} == {150}
    simultaneous = [c for c in conditions(CompareConfig("simultaneous")) if c.technique != "sarsa"]
    assert {(c.task, c.technique, c.h_weight, c.when, c.train_from, c.train_episodes) for c in simultaneous} == {
        ("mountain-car", "action-biasing", 100.0, "start", 0, 16),
        ("mountain-car", "action-biasing", 100.0, "later", 20, 12),
        ("mountain-car", "control-sharing", 2.0, "start", 0, 16),
        ("mountain-car", "control-sharing", 2.0, "later", 20, 12),
        ("cart-pole", "action-biasing", 200.0, "start", 0, 12),
        ("cart-pole", "action-biasing", 200.0, "later", 25, 8),
        ("cart-pole", "control-sharing", 1.0, "start", 0, 12),
        ("cart-pole", "control-sharing", 1.0, "later", 25, 8),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--techniques", "biasing"], "action-biasing"),
        (["simultaneous", "--techniques", "q-augmentation"], "keeps its weight"),
        (["--runs", "1"], "at least 2"),
        (["--h-weights", "-1"], "a weight is 0 or more"),
        (["simultaneous", "--h", "rule"], "taught as it goes"),
        (["simultaneous"], "taught only after 25 episodes"),
        (["--h", "a", "b", "c"], "--h has 3 entries"),
        (["--tasks", "mountain-goat"], "mountain-goat"),
        (["--tasks", "mountain-car", "--h", "nowhere.model"], "nowhere.model does not exist"),
        (["--tasks", "cart-pole", "--techniques", "q-initialisation"], "grids for them differ"),
        (["--tasks", "Taxi-v4", "--techniques", "action-biasing"], "Nobody wrote down a good policy"),
    ],
)
def test_what_cannot_be_compared_is_said(words, said, tmp_path, capsys):
    assert main(["tamer", "compare", *words, "--episodes", "2", "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
