"""`rein eval tasks`: which tasks there are, how the paper asks them, and which files they read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rein.config import setting
from rein.errors import UserError
from rein.evals.data import BadRow, Data
from rein.evals.task import Split, Task
from rein.evals.tasks.table import expand, load

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True)
class TasksConfig:
    """Settings of `rein eval tasks`."""

    tasks: tuple[str, ...] = setting(("all",), "names or groups", positional=True)
    protocol: Literal["gpt3", "gpt2"] = setting("gpt3", "whose tasks")
    data: tuple[Path, ...] = setting((), "folders to look for their files in")
    prompt: bool = setting(False, "show the first problem of each as it is asked")


def tasks_command(config: TasksConfig) -> None:
    """Lists the tasks: the paper's K, how answers are scored, and what was found of them below --data.

    Without --data it says which files each task looks for. Names are the ends of paths: superglue/CB/val.jsonl is
    found wherever it lies below a folder of --data. Files may be packed as .gz or .zst.

    Examples
      rein eval tasks
      rein eval tasks arc_easy superglue --data sets --prompt
      rein eval tasks --protocol gpt2
    """
    Data(config.data).check()
    for name in expand(config.protocol, config.tasks):
        task = load(config.protocol, name)
        print(f"{name:<18} {task.title:<22} K {task.shots:<3} {how(task):<20} {', '.join(task.metrics)}")
        for split in SPLITS:
            print(f"  {split:<5} {_found(task, split, Data(config.data))}")
        if config.prompt:
            _show(task, Data(config.data))


def how(task: Task) -> str:
    """In two words how an answer is found: "choice / token", "beam search" and the like."""
    if any(metric.startswith(("perplexity", "bits")) for metric in task.metrics) and not task.shots:
        return "likelihood"
    written = {"beam": "beam search", "greedy": "greedy", "top2": "top-k 2"}[task.decode]
    by_choice = any(word in metric for metric in task.metrics for word in ("accuracy", "macro", "f1a", "record"))
    if any(metric.startswith("lambada") for metric in task.metrics):
        return "cloze"
    return f"choice / {task.normalise}" if by_choice else written


def _found(task: Task, split: Split, data: Data) -> str:
    """How many problems there are of a split, or the files that would hold them."""
    usable = unusable = 0
    try:
        for row in task.read(data, split):
            try:
                usable += sum(1 for _ in task.ask(row))
            except BadRow:
                unusable += 1
    except UserError as error:
        names = ", ".join(dict.fromkeys(data.asked))
        return f"– ({names})" if names else f"– ({error.problem})"
    uses = [word for word, one in (("shots", task.shots_from), ("scored", task.scored_on)) if one == split]
    parts = [f"{usable:,} problems", *uses]
    return ", ".join(parts + ([f"{unusable:,} rows cannot be used"] if unusable else []))


def _show(task: Task, data: Data) -> None:
    try:
        problem = next(one for row in task.read(data, task.scored_on) for one in task.ask(row))
    except (UserError, BadRow, StopIteration):
        return
    text = problem.shot or problem.text[:300]
    print("\n".join(f"    │ {line}" for line in text.splitlines()))
