"""A record lived again gives the same weights, to the last bit; under other settings, another agent."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from rein.agents.human_model import digest, load_arrays
from rein.agents.lesson_files import finish_lesson, open_lesson, resume_lesson
from rein.agents.recorded import anew, as_recorded
from rein.agents.replay import EvaluateConfig, ReplayConfig, evaluate, greedy_returns, replay
from rein.agents.simulation import SimulateConfig, simulate
from rein.agents.tasks import make_task
from rein.cli import main
from rein.errors import UserError
from rein.feedback.record import read_record

KINDS = {
    "tamer": {},
    "biasing": {"technique": "action-biasing", "train_episodes": 3},
    "sharing": {"technique": "control-sharing"},
    "shaping": {"technique": "reward-shaping"},
    "augmented": {"technique": "q-augmentation"},
    "knn": {"h_model": "knn"},
    "network": {"h_model": "network"},
    "gamma": {"credit": "gamma"},
    "individual": {"credit_scheme": "individual"},
    "previous": {"credit": "previous-step"},
}


@pytest.fixture
def lesson_of(tmp_path, capsys):
    """`lesson_of(**settings)` simulates a small lesson and returns its folder."""

    def make(name="lesson", **settings):
        task = settings.pop("task", "loop-maze")
        simulate(SimulateConfig(task, out=tmp_path / name, episodes=4, **settings))
        capsys.readouterr()
        return tmp_path / name

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_replays_to_the_same_weights(kind, lesson_of, capsys):
    folder = lesson_of(**KINDS[kind])
    rows = list(read_record(folder / "record.jsonl"))
    assert digest(as_recorded(rows, folder / "record.jsonl").agent.arrays()) == rows[-1]["digest"]
    assert main(["tamer", "replay", str(folder / "record.jsonl")]) == 0
    assert "to the last bit" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["mountain-car", "cart-pole"])
def test_the_papers_tasks_replay_too(task, lesson_of):
    folder = lesson_of(task=task, technique="action-biasing")
    rows = list(read_record(folder / "record.jsonl"))
    assert digest(as_recorded(rows, folder / "record.jsonl").agent.arrays()) == rows[-1]["digest"]


def test_the_same_settings_give_the_same_record_but_for_where_it_was_made(lesson_of):
    one, two = (list(read_record(lesson_of(name) / "record.jsonl")) for name in ("one", "two"))
    assert one[1:-1] == two[1:-1]
    assert one[-1]["digest"] == two[-1]["digest"]


def test_another_agent_learns_from_the_same_record(lesson_of, tmp_path, capsys):
    folder = lesson_of()
    found = {}
    for name, settings in {
        "same": {},
        "window": {"credit_low_s": 0.0, "credit_high_s": 0.3},
        "model": {"h_model": "knn"},
        "technique": {"technique": "action-biasing"},
        "epochs": {"epochs": 5},
    }.items():
        replay(ReplayConfig(folder / "record.jsonl", out=tmp_path / name, **settings))
        found[name] = digest(load_arrays(tmp_path / name / "h.safetensors")[0])
    assert found["same"] == digest(load_arrays(folder / "h.safetensors")[0])
    assert found["technique"] == found["same"]  # Ĥ learns from the same steps and presses, whoever weighs it
    assert len(set(found.values())) == 4
    assert "learned anew" in capsys.readouterr().out


def test_learning_anew_takes_the_recorded_actions(lesson_of):
    folder = lesson_of()
    rows = list(read_record(folder / "record.jsonl"))
    lesson = anew(rows, folder / "record.jsonl", {"h_model": "knn"}, 1)
    steps = [row for row in rows if row["kind"] == "step"]
    assert lesson.k == len(steps)
    assert [total for total, _ in lesson.returns] == pytest.approx(
        [sum(row["reward"] for row in steps if row["episode"] == e) for e in range(1, 5)]
    )


def test_more_epochs_bring_h_nearer_to_its_labels(lesson_of, tmp_path):
    folder = lesson_of(h_learning_rate=0.001)
    rows = list(read_record(folder / "record.jsonl"))
    sizes = [np.abs(anew(rows, folder / "record.jsonl", {}, n).tamer.model.complete_AF).max() for n in (1, 10, 100)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_an_action_that_comes_out_otherwise_is_an_error_that_says_where(lesson_of):
    folder = lesson_of()
    path = folder / "record.jsonl"
    lines = path.read_text().splitlines()[:-1]  # without the end row: its checksum would speak first
    at = max(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "step")
    row = json.loads(lines[at])
    row["action"] = (row["action"] + 1) % 4
    lines[at] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"at step {row['k']} the record has action {row['action']}"):
        replay(ReplayConfig(path))
    replay(ReplayConfig(path, technique="tamer"))  # the way out that the message names


def test_a_lesson_that_was_cut_off_anywhere_replays_and_goes_on(lesson_of, tmp_path, capsys):
    whole = (lesson_of() / "record.jsonl").read_bytes()
    header = whole.index(b"\n") + 1
    for cut in (header, header + 1, len(whole) // 3, len(whole) // 2, len(whole) - 5):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "record.jsonl").write_bytes(whole[:cut])
        replay(ReplayConfig(folder / "record.jsonl"))
        lesson, log, t = resume_lesson(folder)
        lesson.set_training(True, t)
        for i in range(1, 12):
            lesson.tick(t + i * 0.8)
            lesson.press(f"again-{i}", 1.0, t + i * 0.8 + 0.3)
        finish_lesson(lesson, log, folder, 1.0)
        replay(ReplayConfig(folder / "record.jsonl"))
    assert capsys.readouterr().out.count("to the last bit") == 5


def test_a_demonstration_praises_agreement_and_blames_the_rest_and_replays(tmp_path, capsys):
    config = SimulateConfig("loop-maze")
    lesson, log = open_lesson(config, make_task("loop-maze"), tmp_path / "shown")
    lesson.control("demonstrating", True, 0.0)
    rule = lesson.task.rule
    for i in range(40):
        lesson.control("held_action", rule(lesson.observe()), i * 0.8)
        lesson.tick(i * 0.8)
    lesson.control("demonstrating", False, 32.0)
    finish_lesson(lesson, log, tmp_path / "shown", 1.0)
    rows = [row for row in read_record(tmp_path / "shown" / "record.jsonl") if row["kind"] == "step"]
    agreed = [row["proposed"] == row["action"] for row in rows]
    assert {row["source"] for row in rows} == {"demonstration"}
    assert not all(agreed[:10])
    assert all(agreed[-10:])
    replay(ReplayConfig(tmp_path / "shown" / "record.jsonl"))
    replay(ReplayConfig(tmp_path / "shown" / "record.jsonl", h_model="knn"))
    assert "to the last bit" in capsys.readouterr().out


def test_another_h_to_begin_with_is_noticed(lesson_of, tmp_path):
    first = lesson_of("first")
    second = lesson_of("second", h_load=first / "h.safetensors")
    replay(ReplayConfig(second / "record.jsonl"))
    (first / "h.safetensors").write_bytes((second / "h.safetensors").read_bytes())
    with pytest.raises(UserError, match="began with other weights"):
        replay(ReplayConfig(second / "record.jsonl"))


def test_a_folder_with_a_lesson_is_not_written_over(lesson_of):
    folder = lesson_of()
    before = (folder / "record.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds a lesson already"):
        simulate(SimulateConfig("loop-maze", out=folder))
    assert (folder / "record.jsonl").read_bytes() == before


def test_what_was_taught_can_be_evaluated(lesson_of, capsys):
    folder = lesson_of(trainer_frequency=1.0)
    evaluate(EvaluateConfig(folder / "h.safetensors", episodes=5))
    assert "mean return" in capsys.readouterr().out
    returns = list(greedy_returns(EvaluateConfig(folder / "h.safetensors", episodes=3)))
    assert returns == [-18.0] * 3


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"epochs": 0}, "--epochs is 0"), ({"technique": "q-initialisation"}, "same features")],
)
def test_settings_that_cannot_be_are_errors(settings, match, lesson_of):
    folder = lesson_of()
    with pytest.raises(UserError, match=match):
        replay(ReplayConfig(folder / "record.jsonl", **settings))


def test_every_override_of_a_replay_is_a_setting_of_a_lesson():
    names = {field.name for field in dataclasses.fields(SimulateConfig)}
    assert {f.name for f in dataclasses.fields(ReplayConfig)} - {"record", "epochs", "out"} <= names


def test_a_replay_never_writes_over_the_lessons_own_files(lesson_of):
    folder = lesson_of()
    with pytest.raises(UserError, match="the folder of the lesson itself"):
        replay(ReplayConfig(folder / "record.jsonl", h_model="knn", out=folder))


def test_a_folder_in_the_place_of_a_file_is_said_to_be_one(lesson_of):
    folder = lesson_of()
    with pytest.raises(UserError, match="is a folder") as caught:
        replay(ReplayConfig(folder))
    assert "record.jsonl" in caught.value.fix
    with pytest.raises(UserError, match="is a folder") as caught:
        evaluate(EvaluateConfig(folder))
    assert "h.safetensors" in caught.value.fix


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--episodes", "0"], "--episodes is 0"),
        (["--train-from", "-1"], "--train-from is -1"),
        (["--h-learning-rate", "1e300"], "no longer a number"),
        (["--trainer-delay-low-s", "3"], "--trainer-delay-low-s"),
        (["--out", "/proc/x"], "cannot be written"),
    ],
)
def test_absurd_settings_of_a_simulation_are_said(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tamer", "simulate", "loop-maze", *words]) == 2
    assert said in capsys.readouterr().err


def test_other_settings_beside_resume_are_refused(lesson_of, capsys):
    folder = lesson_of()
    assert main(["tamer", "play", "--resume", str(folder), "--step-s", "3", "--no-browser"]) == 2
    assert "--step-s was given" in capsys.readouterr().err
