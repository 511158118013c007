"""A lesson: presses count once and never vanish, its record holds everything, and it lives in any world."""

from __future__ import annotations

import dataclasses
import json
import warnings
from contextlib import closing

import numpy as np
import pytest

from rein.agents.human_model import digest
from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig, make_assigner, make_delay, make_model
from rein.agents.simulation import lived
from rein.agents.tasks import make_task
from rein.errors import UserError
from rein.feedback.credit import ByStep, Gamma, Uniform
from rein.feedback.record import RecordWriter, read_record, unpack
from rein.feedback.simulate import Manner, SimulatedTrainer, rule_judge


class Capped(EnvironmentWorld):
    """Cuts every episode off after a few steps."""

    def __init__(self, task, steps: int) -> None:
        super().__init__(task, 0)
        self.cap = steps

    def reset(self):
        self.left = self.cap
        return super().reset()

    def step(self, action):
        self.left -= 1
        observation, reward, terminated, truncated = super().step(action)
        return observation, reward, terminated, truncated or (self.left == 0 and not terminated)


class Rows:
    """Stands in for the file of a record."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def write(self, row) -> None:
        self.rows.append(json.loads(json.dumps(row, allow_nan=False)))

    def of(self, kind: str) -> list[dict]:
        return [row for row in self.rows if row["kind"] == kind]


def recorded(lesson: Lesson, log) -> Lesson:
    lesson.go_on(lesson.world, log)
    return lesson


def lesson_of(task: str = "loop-maze", *, world=None, **settings) -> tuple[Lesson, Rows]:
    made, rows = make_task(task), Rows()
    return recorded(Lesson(LessonConfig(task, **settings), made, world or EnvironmentWorld(made, 0)), rows), rows


def error_of(call, *arguments, **options) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return caught.value


# ------------------------------------------------------------------------------------------------------- presses


def test_a_press_counts_once_however_often_it_comes():
    lesson, rows = lesson_of()
    lesson.set_training(True, 0.0)
    lesson.tick(0.0)
    lesson.tick(0.8)
    first = lesson.press("a", 1.0, 1.0)
    again = lesson.press("a", -5.0, 1.1)
    assert again is first
    assert lesson.n_presses == len(rows.of("press")) == 1
    assert sum(step.reward for step in lesson.tamer.assigner.steps) == pytest.approx(1.0)
    lesson.press("b", 1.0, 1.0)
    assert lesson.n_presses == 2


def test_a_press_says_which_steps_it_credits():
    lesson, rows = lesson_of()
    lesson.set_training(True, 0.0)
    lesson.tick(0.0)
    lesson.tick(0.8)
    pressed = lesson.press("a", 1.0, 1.1, by="person", t_key=0.4)  # 0.15 to 0.4 s ago: 0.7 to 0.95 s
    assert pressed.credits == [(0, pytest.approx(0.4)), (1, pytest.approx(0.6))]
    assert rows.rows[-1] == {
        "kind": "press", "id": "a", "by": "person", "value": 1.0, "t": 1.1, "t_key": 0.4,
        "credits": [[k, share] for k, share in pressed.credits],
    }  # fmt: skip


def test_a_press_while_training_is_off_is_recorded_and_ignored():
    lesson, rows = lesson_of()
    lesson.tick(0.0)
    pressed = lesson.press("a", 1.0, 0.5)
    assert (pressed.credits, pressed.ignored) == ([], "training is off")
    assert rows.of("press")[0]["ignored"] == "training is off"
    assert lesson.n_presses == 1
    for k in range(1, 10):
        lesson.tick(0.8 * k)
    assert not lesson.tamer.model.complete_AF.any()
    lesson.set_training(True, 8.0)
    assert lesson.press("a", 1.0, 8.0) is pressed  # nor does it count when it comes again


def test_an_agent_that_does_not_listen_keeps_what_was_said():
    lesson, rows = lesson_of(technique="sarsa")
    lesson.set_training(True, 0.0)
    lesson.tick(0.0)
    assert lesson.press("a", 1.0, 0.5).ignored == "sarsa does not listen"
    assert rows.of("press")[0]["ignored"] == "sarsa does not listen"
    assert lesson.tamer is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1000.001, -1e9])
def test_a_press_that_is_no_number_or_huge_is_an_error_and_changes_nothing(value):
    lesson, rows = lesson_of()
    lesson.set_training(True, 0.0)
    lesson.tick(0.0)
    error = error_of(lesson.press, "a", value, 0.5)
    assert "-1000 to 1000" in error.fix
    assert not rows.of("press")
    assert lesson.n_presses == 0
    assert not any(step.reward for step in lesson.tamer.assigner.steps)
    assert lesson.press("a", 1000.0, 0.5).credits  # the id is still free


def test_a_press_too_late_to_be_credited_is_counted():
    lesson, _ = lesson_of(late_s=0.0)
    lesson.set_training(True, 0.0)
    for k in range(5):
        lesson.tick(0.8 * k)
    assert not lesson.press("in time", 1.0, 3.3).late
    assert lesson.press("late", 1.0, 1.0).late
    assert lesson.n_late == 1


# ---------------------------------------------------------------------------------------------- training, controls


def test_training_is_written_when_it_changes():
    lesson, rows = lesson_of()
    lesson.set_training(False, 0.0)
    lesson.set_training(True, 0.1)
    lesson.set_training(True, 0.2)
    lesson.set_training(False, 0.3, "the page was hidden")
    assert rows.rows == [
        {"kind": "training", "on": True, "t": 0.1},
        {"kind": "training", "on": False, "t": 0.3, "why": "the page was hidden"},
    ]


def test_a_demonstration_praises_agreement_and_blames_the_rest():
    lesson, rows = lesson_of()
    told = []
    lesson.agent.tell = lambda observation, action, label: told.append((observation.tolist(), action, label))
    lesson.control("demonstrating", True, 0.0)
    for k, held in enumerate([0, 1, 2, 3, 3, 3]):
        lesson.control("held_action", held, 0.8 * k)
        shown = lesson.tick(0.8 * k)
        assert (shown.decision.action, shown.decision.source) == (held, "demonstration")
        agreed = 1.0 if shown.decision.proposed == held else -1.0
        assert told[-1] == (shown.before.tolist(), shown.decision.proposed, agreed)
    assert {label for _, _, label in told} == {1.0, -1.0}
    lesson.control("demonstrating", False, 5.0)
    assert lesson.tick(5.0).decision.source == "tamer"
    assert len(told) == 6
    assert [row["source"] for row in rows.of("step")] == ["demonstration"] * 6 + ["tamer"]


def test_a_demonstration_moves_h_of_the_agents_own_proposal():
    lesson, _ = lesson_of(features="table")
    lesson.control("demonstrating", True, 0.0)
    lesson.control("held_action", 0, 0.0)  # into the wall beside the start, so the state stays
    first = lesson.tick(0.0)
    lesson.tick(0.8)
    values = lesson.tamer.model.values(first.before)
    expected = np.zeros(4)
    expected[first.decision.proposed] = 0.25 if first.decision.proposed == 0 else -0.25
    assert values.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("technique", ["action-biasing", "extra-action"])
def test_demonstrations_reach_h_whatever_the_technique(technique):
    lesson, _ = lesson_of(technique=technique)
    lesson.control("demonstrating", True, 0.0)
    lesson.control("held_action", 2, 0.0)
    for k in range(4):
        assert lesson.tick(0.8 * k).decision.action == 2
    assert lesson.tamer.model.complete_AF.any()


@pytest.mark.parametrize("action", [-1, 4])
def test_an_action_that_there_is_not_cannot_be_held(action):
    lesson, rows = lesson_of()
    assert "actions 0 to 3" in error_of(lesson.control, "held_action", action, 0.0).problem
    assert not rows.rows


def test_control_may_be_handed_to_h():
    lesson, _ = lesson_of(technique="reward-shaping")
    lesson.control("tamer_control", True, 0.0)
    assert lesson.tick(0.0).decision.source == "shared"
    lesson.control("tamer_control", False, 0.5)
    assert lesson.tick(0.8).decision.source in ("rl", "explore")


# --------------------------------------------------------------------------------------------------- the record


def test_the_record_of_a_simulated_lesson_holds_everything(tmp_path):
    task = make_task("loop-maze")
    log = RecordWriter(tmp_path / "record.jsonl")
    lesson = recorded(Lesson(LessonConfig("loop-maze", seed=4), task, Capped(task, 30)), log)
    log.write(lesson.header())
    began = digest(lesson.agent.arrays())
    trainer = SimulatedTrainer(rule_judge(task.rule), Uniform(0.25, 0.7), Manner(0.7), 0)
    returns = list(lived(lesson, trainer, 4, 1, 3, by="rule"))
    lesson.note("well done", lesson.t)
    found = lesson.finish(lesson.t)
    log.close()

    rows = list(read_record(tmp_path / "record.jsonl"))
    header, end = rows[0], rows[-1]
    assert header["config"]["task"] == "loop-maze"
    assert header["config"]["seed"] == 4
    assert header["actions"] == ["right", "left", "down", "up"]
    assert header["digest"] == began
    assert {"python", "numpy"} <= {name.lower() for name in header["environment"]}

    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["k"] for row in steps] == list(range(lesson.k))
    assert [row["t"] for row in steps] == sorted(row["t"] for row in steps)
    assert [row["episode"] for row in steps if "obs" in row] == [1, 2, 3, 4]
    assert sum(row["ended"] is not None for row in steps) == 4
    for episode, (total, n) in enumerate(returns, start=1):
        mine = [row for row in steps if row["episode"] == episode]
        assert len(mine) == n
        assert sum(row["reward"] for row in mine) == total
        state = (5 - 1, 0)
        assert unpack(mine[0]["obs"]).tolist() == list(state)
        for row in mine:  # every row can be checked against the world
            state = task.env.after(state, row["action"])
            assert unpack(row["next"]).tolist() == list(state)

    presses = [row for row in rows if row["kind"] == "press"]
    assert len(presses) == lesson.n_presses == end["presses"] > 20
    assert {row["by"] for row in presses} == {"rule"}
    assert len({row["id"] for row in presses}) == len(presses)
    taught = [row["k"] for row in steps if row["episode"] in (2, 3)]
    assert {int(row["id"].split("-")[1]) for row in presses} <= set(taught)
    assert [(row["on"], row["t"]) for row in rows if row["kind"] == "training"] == [
        (True, steps[taught[0]]["t"]), (False, steps[taught[-1] + 1]["t"]),
    ]  # fmt: skip
    assert [row["text"] for row in rows if row["kind"] == "note"] == ["well done"]
    assert (end["steps"], end["digest"]) == (lesson.k, found)
    assert found == digest(lesson.agent.arrays()) != began


def test_an_episode_is_followed_by_a_pause_in_which_presses_reach_its_last_actions():
    task = make_task("loop-maze")
    lesson, rows = lesson_of(world=Capped(task, 3))
    lesson.set_training(True, 0.0)
    for k in range(3):
        shown = lesson.tick(0.8 * k)
    assert shown.ended == "truncated"
    pressed = lesson.press("pause", 1.0, 2.2)  # 0.6 s after the last action was chosen
    assert pressed.credits == [(2, pytest.approx(1.0))]
    assert lesson.tick(3.4).episode == 2
    lesson.tick(4.2)
    lesson.tick(5.0)
    observation, action = np.array(rows.of("step")[1]["next"]), rows.of("step")[2]["action"]
    assert lesson.tamer.model.values(observation)[action] > 0


def test_what_is_shown_is_what_the_action_led_to():
    lesson, _ = lesson_of("mountain-car")
    first, second = lesson.tick(0.0), lesson.tick(0.2)
    assert first.state.tolist() == second.before.tolist()
    assert first.before.tolist() != first.state.tolist()
    assert (second.k, second.t, second.episode, second.i) == (1, 0.2, 1, 2)
    assert (first.total, second.total) == (-1.0, -2.0)


def test_one_seed_one_lesson():
    digests = []
    for seed in (0, 0, 1):
        task = make_task("loop-maze")
        lesson = Lesson(LessonConfig("loop-maze", technique="action-biasing", seed=seed), task, Capped(task, 40))
        trainer = SimulatedTrainer(rule_judge(task.rule), Uniform(0.25, 0.7), Manner(0.7), 0)
        list(lived(lesson, trainer, 3, 0, 3, by="rule"))
        digests.append(digest(lesson.agent.arrays()))
    assert digests[0] == digests[1] != digests[2]


def test_a_simulated_trainer_teaches_the_maze_in_a_few_episodes():
    task = make_task("loop-maze")
    lesson = Lesson(LessonConfig("loop-maze"), task, EnvironmentWorld(task, 0))
    trainer = SimulatedTrainer(rule_judge(task.rule), Uniform(0.25, 0.4), Manner(), 0)
    returns = [total for total, _ in lived(lesson, trainer, 6, 0, 6, by="rule")]
    assert returns[-2:] == [-18.0, -18.0]


# ---------------------------------------------------------------------------------------------------- any world


@pytest.fixture(scope="module")
def box2d():
    """Box2D's own module warns as it is imported, from C code that cannot bear an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import Box2D  # noqa: F401


WORLDS = ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Acrobot-v1", "LunarLander-v3", "Blackjack-v1",
          "MountainCar-v0", "CartPole-v1"]  # fmt: skip


@pytest.mark.parametrize("technique", ["tamer", "action-biasing"])
@pytest.mark.parametrize("name", WORLDS)
def test_any_world_lives_two_episodes(name, technique, box2d):
    task, rows = make_task(name), Rows()
    lesson = recorded(Lesson(LessonConfig(name, technique=technique), task, Capped(task, 12)), rows)
    rule = task.rule or (lambda observation: 0)
    trainer = SimulatedTrainer(rule_judge(rule), Uniform(0.25, 0.7), Manner(), 0)
    returns = list(lived(lesson, trainer, 2, 0, 2, by="rule"))
    assert len(returns) == 2
    assert lesson.n_presses >= (1 if name == "Blackjack-v1" else 2)
    assert [row["episode"] for row in rows.of("step") if "obs" in row] == [1, 2]
    for array in lesson.agent.arrays().values():
        assert np.isfinite(array).all()


@pytest.mark.parametrize("h_model", ["knn", "network"])
@pytest.mark.parametrize("name", ["Acrobot-v1", "Taxi-v4"])
def test_any_model_lives_in_it_without_a_trainer_too(name, h_model):
    task = make_task(name)
    lesson = Lesson(LessonConfig(name, h_model=h_model), task, Capped(task, 10))
    lesson.set_training(True, 0.0)
    for k in range(25):
        lesson.tick(0.2 * k)
    assert lesson.episode == 3


def test_pictures_can_be_taught_from():
    task, rows = make_task("FrozenLake-v1", pixels=True), Rows()
    config = LessonConfig("FrozenLake-v1", pixels=True, h_model="network")
    lesson = recorded(Lesson(config, task, Capped(task, 8)), rows)
    trainer = SimulatedTrainer(lambda observation, action: 1.0 if action == 1 else -1.0, Uniform(), Manner(), 0)
    list(lived(lesson, trainer, 2, 0, 2, by="rule"))
    assert unpack(rows.of("step")[0]["obs"]).shape == (2, 84, 84)


class Broken:
    """A world whose n-th answer is not finite; the 0th is that of reset."""

    def __init__(self, at: int, *, reward: bool = False) -> None:
        self.at, self.k, self.reward = at, 0, reward
        self.action_space = make_task("mountain-car").env.action_space

    def _seen(self):
        bad = self.k == self.at and not self.reward
        self.k += 1
        return np.array([np.nan if bad else -0.5, 0.0])

    def reset(self, *, seed=None, options=None):
        return self._seen(), {}

    def step(self, action):
        reward = float("inf") if self.reward and self.k == self.at else -1.0
        return self._seen(), reward, False, False, {}


@pytest.mark.parametrize(("at", "reward"), [(0, False), (1, False), (3, False), (2, True)])
def test_a_world_that_gives_numbers_that_are_none_is_an_error(at, reward, tmp_path):
    task = dataclasses.replace(make_task("mountain-car"), env=Broken(at, reward=reward))
    with closing(RecordWriter(tmp_path / "record.jsonl")) as log:
        lesson = recorded(Lesson(LessonConfig(), task, EnvironmentWorld(task, 0)), log)
        log.write(lesson.header())

        def live():
            for k in range(5):
                lesson.tick(0.2 * k)

        assert "not all are finite" in error_of(live).problem
    assert len(list(read_record(tmp_path / "record.jsonl"))) == 1 + max(0, at - 1)


# ----------------------------------------------------------------------------------------------------- settings


def test_a_tasks_window_is_taken_unless_another_is_given():
    maze = make_task("loop-maze")
    assert make_delay(LessonConfig("loop-maze"), maze) == Uniform(0.15, 0.4)
    assert make_delay(LessonConfig("loop-maze", credit_high_s=0.9), maze) == Uniform(0.15, 0.9)
    assert make_delay(LessonConfig(), make_task("mountain-car")) == Uniform(0.2, 0.8)
    assert make_delay(LessonConfig(credit="gamma"), maze) == Gamma(2.0, 0.28)
    assert make_delay(LessonConfig(credit="previous-step"), maze) == ByStep(1)
    assert make_delay(LessonConfig(credit="immediate"), maze) == ByStep(0)


def test_networks_get_one_sample_a_press_and_others_one_label_a_step():
    task = make_task("mountain-car")
    assert make_assigner(LessonConfig(), task).scheme == "aggregate"
    assert make_assigner(LessonConfig(h_model="knn"), task).scheme == "aggregate"
    assert make_assigner(LessonConfig(h_model="network"), task).scheme == "individual-rewarded"
    assert make_assigner(LessonConfig(h_model="network", credit_scheme="individual"), task).scheme == "individual"


def test_a_learning_rate_that_is_given_is_taken():
    model = make_model(LessonConfig(h_learning_rate=0.001), make_task("mountain-car"))
    assert model.learning_rate == 0.001


def test_without_one_a_prediction_moves_a_quarter_of_its_error():
    lesson, _ = lesson_of("mountain-car")
    middle = (lesson.task.low + lesson.task.high) / 2
    lesson.agent.tell(middle, 1, 1.0)
    lesson.tick(0.0)
    assert lesson.tamer.model.values(middle)[1] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"h_learning_rate": 0.0}, "--h-learning-rate"),
        ({"h_learning_rate": float("nan")}, "--h-learning-rate"),
        ({"step_s": 0.0}, "--step-s"),
        ({"step_s": -0.2}, "--step-s"),
        ({"step_s": float("inf")}, "--step-s"),
        ({"pause_s": -1.0}, "--pause-s"),
        ({"late_s": -0.1}, "--late-s"),
        ({"late_s": float("nan")}, "--late-s"),
        ({"h_weight": -1.0}, "--h-weight"),
        ({"eligibility_growth": 0.0}, "--eligibility-growth"),
        ({"eligibility_growth": 1.1}, "--eligibility-growth"),
        ({"seed": -1}, "--seed"),
        ({"pixels": True}, "--h-model network"),
        ({"pixels": True, "h_model": "network", "technique": "sarsa"}, "--pixels"),
    ],
)
def test_settings_that_cannot_be_are_errors_that_name_the_flag(settings, flag):
    error = error_of(LessonConfig, **settings)
    assert flag in error.problem + error.fix


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"credit_low_s": 0.9}, "--credit-low-s"),
        ({"credit_high_s": 0.1}, "--credit-high-s"),
        ({"credit": "gamma", "gamma_shape": 0.0}, "--gamma-shape"),
        ({"credit": "gamma", "gamma_scale_s": -1.0}, "--gamma-scale-s"),
    ],
)
def test_a_delay_that_cannot_be_is_an_error_that_names_the_flag(settings, flag):
    assert flag in error_of(lesson_of, "mountain-car", **settings).fix
