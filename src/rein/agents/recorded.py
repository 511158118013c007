"""A record lived again: the same code, the recorded world, the recorded presses.

Flow     rows of a record → `as_recorded`, checked to the last bit, or `anew`, under other settings
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rein.agents.features import Vector
from rein.agents.human_model import digest
from rein.agents.lesson import Lesson, LessonConfig, make_assigner
from rein.agents.tasks import Task, make_task
from rein.config import from_dict
from rein.errors import UserError
from rein.feedback.record import Row, unpack


class RecordedWorld:
    """The world as a record has it: what happened then happens again."""

    def __init__(self, rows: list[Row], path: Path) -> None:
        self._path = path
        self._steps = [row for row in rows if row["kind"] == "step"]
        self._at = 0

    def reset(self) -> Vector:
        """The state in which the recorded episode began."""
        row = self._row()
        if "obs" not in row:
            raise UserError(
                f"{self._path}: step {row['k']} begins an episode, but has no obs.", "Restore it from a copy."
            )
        return self._read(row, "obs")

    def step(self, action: int) -> tuple[Vector, float, bool, bool]:
        """What the recorded step led to."""
        row = self._row()
        self._at += 1
        ended = row.get("ended")
        return self._read(row, "next"), float(row["reward"]), ended == "terminated", ended == "truncated"

    def _row(self) -> Row:
        assert self._at < len(self._steps), "a replay asks for more steps than were recorded"
        return self._steps[self._at]

    def _read(self, row: Row, name: str) -> Vector:
        try:
            return unpack(row[name])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path}: step {row['k']} is broken: {error}.", "Restore it from a copy.") from None


def config_of(rows: list[Row], path: Path) -> LessonConfig:
    """The settings that a record was made with.

    Raises   UserError when they are not settings of this Rein.
    """
    return config_from(rows[0]["config"], str(path))


def config_from(values: dict[str, Any], source: str) -> LessonConfig:
    """The settings of a lesson among those of the command that held it."""
    known = {field.name for field in dataclasses.fields(LessonConfig)}
    return from_dict(LessonConfig, {name: value for name, value in values.items() if name in known}, source)


def task_of(config: LessonConfig) -> Task:
    """The task of a lesson, without pictures for a page."""
    return make_task(config.task, low=config.low, high=config.high, pixels=config.pixels)


def as_recorded(rows: list[Row], path: Path, lesson: Lesson | None = None) -> Lesson:
    """Lives a record as it was, checking every action and every digest; returns the lesson in its last state.

    With `lesson`, that lesson (new, of the record's settings) is brought to where the record ends.

    Raises   UserError when an action or a digest comes out otherwise.
    """
    config = config_of(rows, path)
    if lesson is None:
        lesson = Lesson(config, task_of(config), RecordedWorld(rows, path))
    start = rows[0].get("digest")
    if start is not None and digest(lesson.agent.arrays()) != start:
        raise UserError(
            f"The agent of {path} began with other weights than it does now"
            + (
                f" (--h-load {config.h_load})."
                if config.h_load
                else "; its settings were edited, or another Rein wrote it."
            ),
            "Restore the record, and the file that Ĥ was loaded from if there was one.",
        )
    for row in rows[1:]:
        if row["kind"] == "step":
            shown = lesson.tick(row["t"])
            if (shown.k, shown.decision.action) != (row["k"], row["action"]):
                raise UserError(
                    f"{path}: at step {row['k']} the record has action {row['action']}, the replay chose "
                    f"{shown.decision.action}. Either it was edited, or this machine or version rounds otherwise "
                    f"(it was recorded by Rein {rows[0].get('rein')}).",
                    "To learn from it anyhow, name a setting, like --technique tamer: its actions are taken then.",
                )
        elif row["kind"] == "end":
            found = digest(lesson.agent.arrays())
            if found != row["digest"]:
                raise UserError(
                    f"{path}: the replay's weights are {found[:16]}…, the record's {row['digest'][:16]}….",
                    "Use the Rein and the machine that wrote it, or learn anew with --epochs 2.",
                )
        else:
            _apply(lesson, row)
    return lesson


def anew(rows: list[Row], path: Path, changes: dict[str, Any], epochs: int) -> Lesson:
    """Teaches another agent from a record: the same states, actions and presses, as often as `epochs` says.

    Raises   UserError when the settings do not fit the task.
    """
    config = dataclasses.replace(config_of(rows, path), **changes)
    task = task_of(config)
    lesson: Lesson | None = None
    for _ in range(epochs):
        after = Lesson(config, task, RecordedWorld(rows, path))
        if lesson is not None:
            after.agent = lesson.agent  # what was learned stays; what was still open does not
            if after.tamer is not None:
                after.tamer.assigner = make_assigner(config, task)
        lesson = after
        actions = iter([(int(row["action"]), "replay") for row in rows if row["kind"] == "step"])
        lesson.forced = lambda k, actions=actions: next(actions)
        for row in rows[1:]:
            if row["kind"] == "step":
                if not 0 <= int(row["action"]) < task.n_actions:
                    raise UserError(f"{path}: step {row['k']} has action {row['action']}.", "Restore it from a copy.")
                lesson.tick(row["t"])
            elif row["kind"] != "end":
                _apply(lesson, row)
    assert lesson is not None
    return lesson


def _apply(lesson: Lesson, row: Row) -> None:
    if row["kind"] == "press":
        lesson.press(row["id"], row["value"], row["t"])
    elif row["kind"] == "training":
        lesson.set_training(row["on"], row["t"])
    elif row["kind"] == "control":
        lesson.control(row["name"], row.get("value"), row["t"])
