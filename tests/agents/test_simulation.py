"""`rein tamer simulate`: settings to a trainer, a folder with everything in it, and what is said of bad settings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rein.agents.human_model import digest, load_arrays
from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig
from rein.agents.simulation import SimulateConfig, lived, make_trainer, simulate
from rein.agents.tasks import make_task
from rein.errors import UserError
from rein.feedback.record import read_record


def error_of(call, *arguments, **options) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return caught.value


class Watching:
    """A trainer who praises every step after a fixed delay, and keeps what was shown."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s, self.seen = delay_s, []

    def see(self, observation, action, episode):
        self.seen.append((observation.tolist(), action, episode))
        return 1.0, self.delay_s


def watched(delay_s: float, *, episodes: int = 3, train=(0, 3), **settings):
    task = make_task("loop-maze")
    lesson = Lesson(LessonConfig("loop-maze", **settings), task, EnvironmentWorld(task, 0))
    lesson.world.env.max_steps = 6
    presses = []
    press = lesson.press
    lesson.press = lambda id, value, t, **about: presses.append((id, t)) or press(id, value, t, **about)
    trainer = Watching(delay_s)
    returns = list(lived(lesson, trainer, episodes, *train, by="w"))
    return lesson, trainer, presses, returns


def test_presses_come_as_late_as_the_trainer_is():
    _, trainer, presses, _ = watched(0.5)
    assert len(trainer.seen) == len(presses) == 18
    for k, (id, t) in enumerate(presses):
        assert id == f"w-{k}"
        assert t == pytest.approx(0.8 * k + k // 6 + 0.5)  # a second of pause after each episode of six steps


def test_a_press_may_come_after_the_next_steps():
    _, _, presses, _ = watched(1.9)
    assert [t for _, t in presses] == sorted(t for _, t in presses)
    assert presses[0] == ("w-0", pytest.approx(1.9))


def test_only_the_episodes_that_are_taught_are_watched():
    lesson, trainer, presses, returns = watched(0.5, episodes=5, train=(1, 3))
    assert {episode for *_, episode in trainer.seen} == {1, 2}
    assert len(presses) == 12
    assert len(returns) == 5
    assert not lesson.training


def test_the_duration_of_a_step_and_of_a_pause_can_be_set():
    _, _, presses, _ = watched(0.1, step_s=0.5, pause_s=0.0)
    assert [t for _, t in presses] == pytest.approx([0.5 * k + 0.1 for k in range(18)])


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "first"
    simulate(SimulateConfig("loop-maze", out=folder, episodes=4, technique="action-biasing", train_episodes=3))
    return folder


def test_a_simulated_lesson_leaves_its_record_and_what_was_learned(taught):
    assert sorted(path.name for path in taught.iterdir()) == ["agent.safetensors", "h.safetensors", "record.jsonl"]
    rows = list(read_record(taught / "record.jsonl"))
    assert rows[0]["config"]["technique"] == "action-biasing"
    assert sum(row["kind"] == "step" and row["ended"] is not None for row in rows) == 4
    agent, about = load_arrays(taught / "agent.safetensors")
    assert digest(agent) == rows[-1]["digest"]
    h, _ = load_arrays(taught / "h.safetensors")
    assert np.array_equal(agent["h.weights_AF"], h["weights_AF"])
    assert about["task"] == "loop-maze"
    assert json.loads(about["config"])["trainer_frequency"] == 0.5


def test_an_h_can_be_the_trainer_of_the_next(taught, tmp_path, capsys):
    simulate(SimulateConfig("loop-maze", out=tmp_path / "next", episodes=2, trainer=str(taught / "h.safetensors")))
    rows = list(read_record(tmp_path / "next" / "record.jsonl"))
    assert {row["by"] for row in rows if row["kind"] == "press"} == {"h"}
    assert "2 episodes" in capsys.readouterr().out


def test_what_cannot_be_made_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    error_of(simulate, SimulateConfig("cart-pole", out=out, technique="q-initialisation"))
    error_of(simulate, SimulateConfig("FrozenLake-v1", out=out))
    assert not out.exists()


def test_a_task_without_a_rule_needs_an_h_to_judge_by():
    config = SimulateConfig("FrozenLake-v1")
    error = error_of(make_trainer, config, make_task("FrozenLake-v1"))
    assert "FrozenLake-v1" in error.problem
    assert "--trainer" in error.fix


def test_a_trainer_of_another_task_is_an_error(taught):
    config = SimulateConfig("mountain-car", trainer=str(taught / "h.safetensors"))
    assert "shape" in error_of(make_trainer, config, make_task("mountain-car")).problem


def test_a_trainer_that_does_not_exist_is_an_error(tmp_path):
    config = SimulateConfig("loop-maze", trainer=str(tmp_path / "nobody"))
    assert "does not exist" in error_of(make_trainer, config, make_task("loop-maze")).problem


def made(**settings):
    config = SimulateConfig("loop-maze", **settings)
    return make_trainer(config, make_task("loop-maze"))


def test_every_knob_reaches_the_trainer():
    trainer = made(
        trainer_frequency=0.1, trainer_error=0.2, trainer_positivity=0.3, trainer_strictness=-0.4, trainer_fatigue=0.5,
        trainer_policy_dependence=0.6, trainer_delay_low_s=0.1, trainer_delay_high_s=0.2,
    )  # fmt: skip
    manner = trainer.manner
    assert (manner.frequency, manner.error, manner.positivity, manner.strictness) == (0.1, 0.2, 0.3, -0.4)
    assert (manner.fatigue, manner.policy_dependence) == (0.5, 0.6)
    assert (trainer.delay.low_s, trainer.delay.high_s) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"trainer_frequency": 1.1}, "--trainer-frequency"),
        ({"trainer_error": -0.1}, "--trainer-error"),
        ({"trainer_positivity": 2.0}, "--trainer-positivity"),
        ({"trainer_strictness": 2.0}, "--trainer-strictness"),
        ({"trainer_fatigue": -0.1}, "--trainer-fatigue"),
        ({"trainer_policy_dependence": 1.1}, "--trainer-policy-dependence"),
        ({"trainer_delay_low_s": 0.9}, "--trainer-delay-low-s"),
        ({"trainer_delay_low_s": -0.1}, "--trainer-delay-low-s"),
        ({"trainer_delay_high_s": float("inf")}, "--trainer-delay-high-s"),
        ({"trainer_seed": -1}, "--trainer-seed"),
    ],
)
def test_a_knob_that_cannot_be_is_an_error_that_names_its_flag(settings, flag):
    assert flag in error_of(made, **settings).fix


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"episodes": 0}, "--episodes"),
        ({"train_from": -1}, "--train-from"),
        ({"train_episodes": -1}, "--train-episodes"),
    ],
)
def test_numbers_of_episodes_that_cannot_be_are_errors_that_name_the_flag(settings, flag, tmp_path):
    def run():
        simulate(SimulateConfig("loop-maze", out=tmp_path / "out", **({"episodes": 1} | settings)))

    error = error_of(run)
    assert flag in error.problem + error.fix
