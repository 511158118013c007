"""The folder of a lesson: its record, what was learned, and how to go on.

runs/tamer/NAME/
  record.jsonl     everything that happened (feedback/record.py)
  h.safetensors    Ĥ as it was at the end, and how it was made
  agent.safetensors  everything the agent learned (Q and traces too), for TAMER+RL
"""

from __future__ import annotations

import json
from pathlib import Path

from rein.agents.human_model import save_arrays
from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig
from rein.agents.recorded import RecordedWorld, as_recorded, config_of
from rein.agents.tasks import Task, make_task
from rein.config import to_dict
from rein.errors import UserError
from rein.feedback.record import RecordWriter, read_record
from rein.progress import duration


def open_lesson(config: LessonConfig, task: Task, out: Path) -> tuple[Lesson, RecordWriter]:
    """A new lesson whose record is `out`/record.jsonl.

    Raises   UserError when `out` holds a lesson already.
    """
    path = out / "record.jsonl"
    if path.exists():
        raise UserError(
            f"{out} holds a lesson already, and a record is never written over.",
            "Choose another --out, or look at it: rein tamer replay " + str(path),
        )
    lesson = Lesson(config, task, EnvironmentWorld(task, config.seed))  # first: what cannot be made leaves no file
    log = RecordWriter(path)
    log.write(lesson.header())
    lesson.go_on(lesson.world, log)
    return lesson, log


def resume_lesson(out: Path) -> tuple[Lesson, RecordWriter, float]:
    """A lesson brought back to where its record ends, to go on from there; with it, the time on its clock.

    The rows are lived again, so the agent is what it was, to the last bit. A new episode begins, and training is off.

    Raises   UserError when `out` holds no lesson, or its record does not replay.
    """
    path = out / "record.jsonl"
    rows = list(read_record(path))
    config = config_of(rows, path)
    task = make_task(config.task, low=config.low, high=config.high, frames=True, pixels=config.pixels)
    lesson = as_recorded(rows, path, Lesson(config, task, RecordedWorld(rows, path)))
    log = RecordWriter(path, append=True)
    resumed = sum(row["kind"] == "control" and row["name"] == "resumed" for row in rows)
    lesson.go_on(EnvironmentWorld(task, config.seed + 1000 * (resumed + 1)), log)
    t = max(float(row["t"]) for row in rows[1:]) if len(rows) > 1 else 0.0
    lesson.set_training(False, t, "resumed")
    lesson.control("demonstrating", False, t)
    lesson.control("resumed", True, t)
    return lesson, log, t


def save_learned(lesson: Lesson, out: Path) -> list[Path]:
    """Writes what was learned; returns the files."""
    about = {"task": lesson.config.task, "h_model": lesson.config.h_model, "config": json.dumps(to_dict(lesson.config))}
    files = []
    if lesson.tamer is not None:
        files.append(out / "h.safetensors")
        save_arrays(files[-1], lesson.tamer.model.arrays(), about)
    if lesson.config.technique != "tamer":
        files.append(out / "agent.safetensors")
        save_arrays(files[-1], lesson.agent.arrays(), about)
    return files


def finish_lesson(lesson: Lesson, log: RecordWriter, out: Path, took_s: float) -> list[str]:
    """Ends the record, saves what was learned, says what happened and what to do next; returns the lines."""
    lesson.finish(lesson.t)
    log.close()
    save_learned(lesson, out)
    lines = summary(lesson, out, took_s)
    print("\n".join(lines), flush=True)
    return lines


def summary(lesson: Lesson, out: Path, took_s: float) -> list[str]:
    """A lesson in a few lines."""
    lines = [
        f"lesson            {lesson.task.title}, {lesson.config.technique}: {lesson.k:,} steps, "
        f"{len(lesson.returns):,} episodes, {lesson.n_presses:,} presses in {duration(took_s)}"
    ]
    if lesson.returns:
        first, last = lesson.returns[0][0], lesson.returns[-1][0]
        best = max(total for total, _ in lesson.returns)
        lines.append(
            f"return            {first:,.0f} in the first episode → {last:,.0f} in the last (best {best:,.0f})"
        )
    lines.append(f"record            {out / 'record.jsonl'}")
    lines.append(f"replay it         rein tamer replay {out / 'record.jsonl'}")
    if lesson.tamer is not None:
        lines.append(f"how good is it    rein tamer evaluate {out / 'h.safetensors'}")
    return lines
