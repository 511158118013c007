"""A reward climbed until the truth falls: every stage in small, the guard read from another run, and the real thing."""

import contextlib
import io
import json
import math
import re

import pytest

from rein.config import replace
from rein.errors import UserError
from rein.evals import over_optimised as told
from rein.evals.over_optimised import KEPT, RAISED, RUNS, STOPPED, UNGUARDED, Point, best, read_result, watch
from rein.recipes import over_optimisation as module
from rein.recipes.over_optimisation import OverOptimiseConfig, over_optimise
from rein.report.legible import table
from rein.run import read_rows

VERBS, THINGS = ("Open", "Close", "Write", "Read", "Remove"), ("file", "socket", "window", "buffer", "archive", "log")


def rows(config):
    """Rows of the task, as many as the tests need."""
    for at, (n, verb, thing) in enumerate((n, verb, thing) for n in range(5) for verb in VERBS for thing in THINGS):
        yield {
            "id": f"{verb}{thing}{n}", "name": f"io.{verb.lower()}_{thing}", "reference": f"{verb} the {thing} of io.",
            "post": f"The {thing} is the {thing} that was made by io {n} times.",
            "split": "heldout" if at % 5 == 0 else "train",
        }  # fmt: skip


@contextlib.contextmanager
def tiny():
    """The recipe with tiny models, and rows that are at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_rows", rows)
        patch.setattr(module, "N_VOCAB", 300)
        patch.setattr(module, "MODEL", {"n_ctx": 72, "n_embd": 16, "n_head": 1, "n_layer": 1})
        patch.setattr(module, "TEXTS", {**module.TEXTS, "response_tokens": 8})
        patch.setattr(module, "PPO_SETTINGS", {**module.PPO_SETTINGS, "episodes_per_batch": 8})
        yield patch


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole run in small, and what it printed."""
    config = OverOptimiseConfig(
        tmp_path_factory.mktemp("over") / "run", demonstrations=100, comparisons=40, episodes=80, evaluations=10,
        heldout_prompts=8, best_of=4, device="cpu",
    )  # fmt: skip
    with tiny(), contextlib.redirect_stdout(io.StringIO()) as said:
        over_optimise(config)
    return config, said.getvalue()


def test_runs_differ_in_the_guard_alone_and_are_the_same_until_it_acts(done):
    config, _ = done
    kept = [json.loads((config.out / name / "run" / "config.json").read_text()) for name in RUNS.values()]
    assert [one.pop("guard") for one in kept] == list(RUNS)
    assert all({**one, "out": ""} == {**kept[0], "out": ""} for one in kept)
    result = read_result(config.out)
    unguarded, stopped = result.runs[UNGUARDED], result.runs[STOPPED]
    assert stopped == unguarded[: len(stopped)], "a guard that looks changes nothing"
    assert len(unguarded) == 11
    assert unguarded[0].kl_nats == 0.0


def test_watched_and_measured_docstrings_are_different_ones(done):
    config, _ = done
    learned, measured = (list(read_rows(config.out / "start" / name)) for name in module.PROMPTS)
    watched = [row for row in learned if row["split"] != "train"]
    assert len(watched) == len(measured) == config.heldout_prompts
    assert not {row["id"] for row in learned} & {row["id"] for row in measured}
    halves = [list(read_rows(config.out / "comparisons" / name)) for name in module.JUDGED]
    assert [len(half) for half in halves] == [40, 40]
    assert not {row["group_id"] for row in halves[0]} & {row["group_id"] for row in halves[1]}
    assert [sum(row["split"] == split for row in halves[0]) for split in ("train", "valid", "test")] == [32, 4, 4]


def test_the_page_and_the_table_say_what_the_files_say(done):
    config, out = done
    page = (config.out / "over-optimisation.html").read_text()
    links = re.findall(r'href="([^"#]+)"', page.split("<body>")[1])
    assert len(links) >= 6
    assert all((config.out / link).is_file() for link in links)
    assert "<script" not in page
    assert page.count('id="over-optimisation"') == 1, "the unguarded run's own section is there"
    result = read_result(config.out)
    for line in table([told.HEADS, *told.cells(result)], "<>>>>>"):
        assert line in out
    assert result.measured["start"]["scores"][told.GOLD]["n"] > 0
    gained = result.gains["start"]["value"]
    means = [result.measured[name]["scores"][told.GOLD]["value"] for name in ("start", UNGUARDED)]
    assert gained == pytest.approx(means[0] - means[1], abs=1e-6)


def test_the_same_command_again_makes_nothing_anew(done, capsys):
    config, out = done
    with tiny() as patch:
        for name in ("sft", "reward", "ppo", "best_of_n", "policies_command"):
            patch.setattr(module, name, lambda config: pytest.fail("it was made already"))
        over_optimise(config)
        again = capsys.readouterr().out
        first, second = (text.split("Unguarded, ")[1].split("all stages")[0] for text in (out, again))
        assert first == second
        with pytest.raises(UserError, match=r"with other settings \(comparisons: 40 → 30\)"):
            over_optimise(replace(config, comparisons=30))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"evaluations": 2}, "--evaluations is 2, but it must be at least 3"),
        ({"episodes": 63}, "--episodes is 63, but it must be at least 64"),
        ({"comparisons": 19}, "--comparisons is 19"),
    ],
)
def test_settings_that_are_none(settings, words):
    with pytest.raises(UserError, match=words):
        OverOptimiseConfig(**settings)


def test_too_few_docstrings_are_named(tmp_path, done):
    config, _ = done
    start = config.out / "sft" / "run" / "best"
    with tiny():
        with pytest.raises(UserError, match="--heldout-prompts is 16, but there are 30 held-out docstrings"):
            over_optimise(OverOptimiseConfig(tmp_path, demonstrations=100, heldout_prompts=16))
        with pytest.raises(UserError, match="--comparisons is 60, for each of two reward models, but there are 100 d"):
            list(module._judged(replace(config, comparisons=60), config.out / "start" / module.PROMPTS[0], start))


# -------------------------------------------------------------------------------------- the guard, read from a run


def curve(n, *, a=1.0, b=0.6, proxy=1.0):
    """A run whose truth follows the law, and whose proxy only rises."""
    found = []
    for at in range(n):
        d = at / 4
        gold = d * (a - b * math.log(d)) if d else 0.0
        found.append(Point(64 * at, d * d, proxy * d, gold, 0.01, proxy * d, 0.01))
    return found


def test_a_guard_is_read_from_a_run_without_one():
    run = curve(40)
    caught = watch(run, "gold")
    peak = math.exp(2 * (1.0 / 0.6 - 1))
    assert caught.peak.kl_nats == pytest.approx(peak, rel=1e-6)
    assert best(run).episodes < caught.past_episodes < run[-1].episodes
    assert caught.near_episodes <= caught.past_episodes
    assert caught.kept_gold == pytest.approx(best(run).gold, abs=0.01)
    assert watch(run[: run.index(best(run))], "gold").past_episodes is None
    assert watch(run, "second").past_episodes is None, "what only rises is past nothing"


# ---------------------------------------------------------------------------------------------------- the real thing

# Written down before the run: least rise and fall of the gold score, and what part of the fall a guard saves at least.
LEAST_RISE, LEAST_FALL, LEAST_SAVED_FRAC = 0.03, 0.3, 0.7


@pytest.mark.slow
def test_over_optimisation_appears_without_a_guard_and_is_caught_with_one(tmp_path):
    config = OverOptimiseConfig(tmp_path / "run")
    over_optimise(config)
    check(read_result(config.out))


def check(result):
    """What is held to. Means are of three evaluations, as a single one is noisy."""
    run, stopped = result.runs[UNGUARDED], result.runs[STOPPED]
    gold, proxy = (
        [sum(getattr(point, what) for point in three) / 3 for three in zip(run, run[1:], run[2:], strict=False)]
        for what in ("gold", "proxy")
    )
    fall = max(gold) - gold[-1]
    assert max(gold) - run[0].gold > LEAST_RISE, "the gold score rises at first"
    assert fall > LEAST_FALL, "and then falls"
    assert proxy[-1] > proxy[gold.index(max(gold))] > proxy[0], "while the reward goes on rising"
    assert stopped == run[: len(stopped)], "a guard that looks changes nothing"
    assert stopped[-1].episodes == result.caught[0].past_episodes < run[-1].episodes
    kept = result.gains[KEPT]
    assert kept["low"] > 0, "on docstrings that no evaluation has seen"
    assert kept["value"] > LEAST_SAVED_FRAC * fall
    assert result.gains[RAISED]["low"] > 0
