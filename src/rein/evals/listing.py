"""`rein eval tasks`: which tasks there are, how the paper asks them, and which files they read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rein.config import setting
from rein.errors import UserError
from rein.evals.data import BadRow, Data, NotThere
from rein.evals.task import Problem, Split, Task
from rein.evals.tasks.table import expand, load

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_SHOWN = 300  # characters of a text that nothing is asked about


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
    data = Data(config.data)
    data.check()
    for name in expand(config.protocol, config.tasks):
        task = load(config.protocol, name)
        print(f"{name:<18} {task.title:<22} K {task.shots:<3} {how(task):<20} {', '.join(task.metrics)}")
        for split in SPLITS:
            print(f"  {split:<5} {_found(task, split, data)}")
        if config.prompt:
            _show(task, data)


def how(task: Task) -> str:
    """In two words how an answer is found.

    Example  >>> from rein.evals.tasks.arc import EASY
             >>> how(EASY)
             'choice / answer'
    """
    if task.form == "choice":
        return f"choice / {task.normalise}"
    if task.form == "written":
        return {"beam": "beam search", "greedy": "greedy", "top2": "top-k 2"}[task.decode]
    return {"cloze": "cloze", "text": "likelihood"}[task.form]


def _found(task: Task, split: Split, data: Data) -> str:
    """How many problems there are of a split, or the files that would hold them."""
    data.asked.clear()
    usable = unusable = 0
    try:
        for one in _problems(task, split, data):
            if one is None:
                unusable += 1
            else:
                usable += 1
    except NotThere:
        return f"– ({', '.join(dict.fromkeys(data.asked))})"
    except UserError as error:
        return f"– ({error.problem})"
    said = [f"{usable:,} problems"]
    said += ["shots"] if task.shots and split == task.shots_from else []
    said += ["scored"] if split == task.scored_on else []
    return ", ".join(said + ([f"{unusable:,} rows cannot be used"] if unusable else []))


def _problems(task: Task, split: Split, data: Data) -> Iterator[Problem | None]:
    """The problems of a split, and None for each row that none can be made of."""
    for row in task.read(data, split):
        try:
            yield from task.ask(row)
        except BadRow:
            yield None


# ------------------------------------------------------------------------------------------------- the first problem


def _show(task: Task, data: Data) -> None:
    """The first problem of the split that is scored, as it is asked without shots, and what is right."""
    try:
        problem = next(filter(None, _problems(task, task.scored_on, data)), None)
    except UserError:  # said in the line of that split
        return
    if problem is not None:
        problem = problem.alone or problem
        for line in _asked(task, problem).splitlines():
            print(f"    │ {line}")
        for is_right, text in _answers(problem):
            print(f"    {'✓' if is_right else '✗'} {text.strip()}".replace("\n", "\n      "))


def _asked(task: Task, problem: Problem) -> str:
    """What stands in front of an answer. Options with contexts of their own have nothing in common to show."""
    if problem.text:
        return problem.text if len(problem.text) <= _SHOWN else f"{problem.text[:_SHOWN]} …"
    contexts = {option.context for option in problem.options} or {problem.prompt}
    asked = [task.description] if task.description and task.described == "always" else []
    return task.separator.join(asked + (list(contexts) if len(contexts) == 1 else []))


def _answers(problem: Problem) -> Iterator[tuple[bool, str]]:
    """What may be answered, and whether that is right."""
    own_contexts = len({option.context for option in problem.options}) > 1
    for at, option in enumerate(problem.options):
        yield at == problem.gold, f"{option.context} ▸{option.completion}" if own_contexts else option.completion
    if not problem.options:
        for answer in problem.answers:
            yield problem.gold != 0, answer  # 0: a noun that the pronoun of WSC does not mean
