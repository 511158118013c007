"""`rein eval contamination`: how much of the evaluation sets a model read in training, and what that did to its scores.

Flow     EVAL/answers.jsonl, or the problems of --tasks → Examples → overlap.py: one pass over the training text
         → which examples are clean, which are dirty → the scores of each kind, with intervals
         → OUT/contamination.json, contamination.csv, contaminated.jsonl (a line for each dirty example); a table

A dirty example has an N-gram with the training text in common, or stands in it whole where it is shorter than N. One
that is found in its passage alone is told apart from one whose question or answer is found too: a passage from the
web, without its questions, gives nothing away.

Source   Brown 2020 §4 and Appendix C, Table C.1.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.evals import published
from rein.evals.clean_scores import Scored, compare
from rein.evals.data import BadRow, Data
from rein.evals.metrics import METRICS
from rein.evals.overlap import Collisions, Example, Found, analyse_corpora, n_words
from rein.evals.printing import REASON_CHARS, shown
from rein.evals.results import CONTAMINATION_FORMAT, Answered, load
from rein.evals.results import answers as read_lines
from rein.evals.tasks.table import TASKS, expand
from rein.evals.tasks.table import load as load_task
from rein.report.legible import one_line, percent
from rein.report.legible import table as columns
from rein.run import lock_folder, write_atomically
from rein.text.store import whole

AGAIN = "Run the same `rein eval` again: what the model answered is kept."
_SYNTHETIC = ("arithmetic:", "scrambling:")  # of tasks/


@dataclass(frozen=True)
class ContaminationConfig:
    """Settings of `rein eval contamination`."""

    evaluation: Path | None = setting(
        None, "folder that `rein eval` wrote; without it, --tasks are looked for", positional=True
    )
    corpus: tuple[Path, ...] = setting((), "what the model was trained on: corpora, folders, files of text")
    tasks: tuple[str, ...] = setting((), "these only; without an evaluation, names or groups to read from --data")
    split: Literal["scored", "train", "dev", "test"] = setting("scored", "whose examples; scored: the paper's")
    shots: tuple[int, ...] = setting((), "numbers of examples in front to show the scores of; all if not given")
    protocol: Literal["gpt3", "gpt2"] = setting("gpt3", "whose tasks, without an evaluation")
    data: tuple[Path, ...] = setting((), "folders or files with the evaluation sets, without an evaluation")
    hub: bool = setting(False, "read the sets from the Hugging Face hub")
    out: Path | None = setting(None, "folder of the results; EVALUATION, or contamination, if not given")
    text_field: str = setting("text", "field or column that holds the training text (.jsonl, .parquet)")
    workers: int | None = setting(None, "processes; one per core if not given", may_change=True)
    json: bool = setting(False, "print contamination.json instead of the table", may_change=True)


def contamination_command(config: ContaminationConfig) -> None:
    """Says how clean evaluation sets are of a training text, and how scores differ on what is clean.

    An example is dirty when N words in a row of it are in the training text, whatever their case and punctuation; N is
    between 8 and 13, by the length of the task's examples. The same command goes on after an interruption.

    Examples
      rein eval contamination evals/first-gpt3 --corpus data/web
      rein eval contamination evals/first-gpt3 --corpus texts notes.jsonl.gz --tasks arc_easy lambada
      rein eval contamination --tasks superglue piqa --data sets --corpus data/web
    """
    if not config.corpus:
        raise UserError("There is no training text.", "Name corpora, folders or files with --corpus.")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"--workers is {config.workers}, but at least 1 is needed.", "Pass --workers 2.")
    if config.evaluation is not None:
        asked, skipped = read_answers(config.evaluation, config.split, config.tasks), list[str]()
    else:
        asked, skipped = read_problems(config)
    out = config.out or config.evaluation or Path("contamination")
    with ExitStack() as stack:
        stack.enter_context(lock_folder(out))
        work = out / "contamination-work"
        collisions, found = analyse_corpora(
            {task: one.examples for task, one in asked.items()},
            config.corpus,
            work,
            synthetic=frozenset(task for task in asked if is_synthetic(task)),
            workers=config.workers,
            text_field=config.text_field,
        )
        if not found.n_documents:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in found.dropped.items()) or "it is empty"
            raise UserError(f"Nothing could be read of {_list(config.corpus)} ({reasons}).", "Check --corpus.")
        result = result_of(asked, collisions, found, config.corpus, config.shots) | {"skipped": skipped}
        write(out, result, asked, collisions)
        shutil.rmtree(work)
    print(json.dumps(result, indent=2) if config.json else table(result))
    if not config.json:
        print(f"\n{out}/contamination.json  contamination.csv  contaminated.jsonl")


def is_synthetic(task: str) -> bool:
    """Whether the examples were made by a program, so that a gram of fewer words says something.

    Example  >>> is_synthetic("reversed_words"), is_synthetic("piqa")
             (True, False)
    """
    return TASKS["gpt3"].get(task, "").startswith(_SYNTHETIC)


# ------------------------------------------------------------------------------------------------------ reading


@dataclass
class Asked:
    """The examples of a task, and what was answered to them behind each number of shots.

    Problems that are right or wrong together (MultiRC's answers to one question) are one example.
    """

    split: str
    published: str = ""  # its name in published.py
    metrics: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    answers: dict[int, list[Scored]] = field(default_factory=dict)
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    _right: list[list[str]] = field(default_factory=list)  # the answers of each example

    def add(self, id: str, question: str, parts: Mapping[str, str], asked_words: int) -> int:
        """The number of the example that a problem belongs to; the same problem may be added again."""
        passage, asked, right = (parts.get(name, "") for name in ("passage", "question", "answer"))
        # With the texts, because an id of the user's own data may come twice.
        key = ("question", question, passage, asked) if question else ("problem", id, passage, asked, right)
        number = self._numbers.setdefault(key, len(self.ids))
        if number == len(self.ids):
            self.ids.append(question or id)
            self.examples.append(Example(passage, asked, right, asked_words))
            self._right.append([right])
        elif right not in self._right[number]:
            self._right[number].append(right)
            self.examples[number] = replace(self.examples[number], answer="\n".join(self._right[number]))
        return number


def read_answers(folder: Path, split: str = "scored", tasks: Sequence[str] = ()) -> dict[str, Asked]:
    """The examples and answers of an evaluation, by task.

    Raises   UserError when the folder is none, a file is damaged, or there is nothing of the split or the tasks.
    """
    (evaluation,), path = load([folder]), folder / "answers.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} is not finished: it has no answers.jsonl.", AGAIN)
    scored, metrics = evaluation.deciding, dict[str, list[str]]()
    for entry in evaluation.entries:
        metrics.setdefault(entry.task, []).append(entry.metric)
    for task in tasks:
        if task not in scored:
            raise UserError(f"--tasks names {task}, which is not in {folder}.", suggestion(task, scored))
    asked, ids = dict[str, Asked](), dict[str, set[str]]()
    for said in read_lines(folder):
        task = said.task
        if task not in (tasks or scored) or said.split != (scored[task].split if split == "scored" else split):
            continue
        if task not in asked:
            asked[task] = Asked(said.split, _published(evaluation.protocol, task), metrics[task])
        of_task = asked[task]
        number = of_task.add(said.id, said.question, said.parts, n_words(f"{said.prompt} {_right_of(said)}"))
        answer = Scored(number, said.value, said.counts, said.passage, said.draw)
        of_task.answers.setdefault(said.k, []).append(answer)
        ids.setdefault(task, set()).add(said.id)
    for task in tasks or scored:
        there, expected = len(ids.get(task, ())), scored[task].problems
        if split in ("scored", scored[task].split) and there < expected:
            raise UserError(f"{path} holds {there:,} of the {expected:,} problems of {task}: it was cut short.", AGAIN)
    if not asked:
        raise UserError(f"{path} has no answer of the split {split}.", "Leave out --split.")
    return asked


def _right_of(said: Answered) -> str:
    if said.options and said.gold is not None:
        return str(said.options[said.gold])
    return " ".join(said.answers[:1])


def read_problems(config: ContaminationConfig) -> tuple[dict[str, Asked], list[str]]:
    """The examples of tasks, from the files of the evaluation sets; and the tasks that have none, with the reasons.

    Raises   UserError when no task is named, or none has files.
    """
    if not config.tasks:
        raise UserError(
            "Neither an evaluation nor tasks are named.", "Name a folder that `rein eval` wrote, or --tasks and --data."
        )
    data, asked, reasons = Data(config.data, config.hub), dict[str, Asked](), list[str]()
    for name in expand(config.protocol, config.tasks):
        task = load_task(config.protocol, name)
        split = task.scored_on if config.split == "scored" else config.split
        of_task = Asked(split, task.published)
        try:
            for row in task.read(data, split):
                try:
                    problems = list(task.ask(row))
                except BadRow:
                    continue  # `rein eval tasks` counts them
                for problem in problems:
                    of_task.add(problem.id, problem.question, problem.parts, n_words(problem.shot))
        except UserError as error:
            reasons.append(f"{name}: {error.problem}")
            continue
        asked[name] = of_task
    if not asked:
        raise UserError(f"No task has files: {'; '.join(reasons[:3])}", "Name the folders of the sets with --data.")
    return asked, reasons


def _list(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _published(protocol: str, task: str) -> str:
    return load_task(protocol, task).published if task in TASKS.get(protocol, {}) else ""


# ------------------------------------------------------------------------------------------------------- scores


def result_of(
    asked: dict[str, Asked],
    collisions: dict[str, Collisions],
    found: Found,
    corpora: Sequence[Path],
    shots: Sequence[int] = (),
) -> dict[str, Any]:
    """What contamination.json holds."""
    return {
        "format": CONTAMINATION_FORMAT,
        "corpus": [str(path) for path in corpora],
        "documents": found.n_documents,
        "bytes": found.n_bytes,
        "dropped": found.dropped,
        "tasks": [_entry(task, one, collisions[task], shots) for task, one in asked.items()],
    }


def _entry(task: str, asked: Asked, of_task: Collisions, shots: Sequence[int]) -> dict[str, Any]:
    dirty_E, n = of_task.dirty_E, len(asked.ids)
    paper = published.overlaps().get(asked.published)
    scores, left_out = [], set[str]()
    for k, rows in sorted(asked.answers.items()):
        if shots and k not in shots:
            continue
        for name in asked.metrics:
            row = compare(METRICS[name], rows, of_task)
            if row is None:
                left_out.add(name)
            else:
                scores.append({"k": k, "metric": name, **row})
    return {
        "task": task,
        "split": asked.split,
        "n": of_task.n,
        "examples": n,
        "short": of_task.short,
        "clean": int(n - dirty_E.sum()),
        "clean_frac": float(1 - dirty_E.mean()) if n else None,
        "passage_only": int((dirty_E & ~of_task.asked_E).sum()),
        "question_or_answer": int(of_task.asked_E.sum()),
        "published": asdict(paper) if paper else None,
        "scores": scores,
        "without_scores": sorted(left_out),
        "matches": [
            {**match, "examples": [asked.ids[number] for number in match["examples"][:3]]} for match in of_task.matches
        ],
    }


# ------------------------------------------------------------------------------------------------------- writing


def write(out: Path, result: dict[str, Any], asked: dict[str, Asked], collisions: dict[str, Collisions]) -> None:
    """The three files of the results.

    Raises   UserError when they cannot be written.
    """
    write_atomically(out / "contamination.json", json.dumps(result, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(result))
    write_atomically(out / "contamination.csv", text.getvalue())
    with whole(out / "contaminated.jsonl") as file:
        for task, one in asked.items():
            of_task = collisions[task]
            for at in np.flatnonzero(of_task.dirty_E).tolist():
                about = {
                    "task": task,
                    "id": one.ids[at],
                    "passage": bool(of_task.passage_E[at]),
                    "question_or_answer": bool(of_task.asked_E[at]),
                    "grams_found": int(of_task.found_E[at]),
                    "grams": int(of_task.grams_E[at]),
                    "most_common": of_task.examples[at],
                }
                file.write((json.dumps(about) + "\n").encode())


_COUNTS = ("task", "split", "n", "examples", "short", "clean", "clean_frac", "passage_only", "question_or_answer")
_KINDS = ("all", "clean", "dirty", "passage_only", "question_or_answer")
CSV_COLUMNS = (
    *_COUNTS, "metric", "k", *(f"{kind}_{end}" for kind in _KINDS for end in ("score", "low", "high", "n")),
    "change", "change_low", "change_high", "verdict", "paper_n", "paper_clean_frac", "paper_change",
)  # fmt: skip


def _csv_rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in result["tasks"]:
        row = {name: entry[name] for name in _COUNTS}
        if paper := entry["published"]:
            row |= {"paper_n": paper["n"], "paper_clean_frac": paper["clean"], "paper_change": paper["relative_change"]}
        for score in entry["scores"] or [{}]:
            more = {name: score.get(name) for name in ("metric", "k", "verdict")}
            for kind in _KINDS:
                if one := score.get(kind):
                    more |= {
                        f"{kind}_score": one["value"],
                        **{f"{kind}_{end}": one[end] for end in ("low", "high", "n")},
                    }
            if change := score.get("change"):
                more |= {"change": change["value"], "change_low": change["low"], "change_high": change["high"]}
            yield {**row, **more}


def table(result: dict[str, Any]) -> str:
    """How clean the tasks are and what that does, as a person reads it."""
    scored = any(entry["scores"] for entry in result["tasks"])
    head = ("task", "N", "examples", "clean", "paper", "in passage only", "in question or answer")
    rows = [head + (("metric", "K", "all", "dirty", "clean", "change", "95% interval", "verdict") if scored else ())]
    for entry in result["tasks"]:
        paper = entry["published"]
        first: tuple[str, ...] = (
            one_line(entry["task"]),
            str(entry["n"]),
            f"{entry['examples']:,}",
            "–" if entry["clean_frac"] is None else percent(entry["clean_frac"]),
            percent(paper["clean"]) if paper else "",
            f"{entry['passage_only']:,}",
            f"{entry['question_or_answer']:,}",
        )
        if not scored:
            rows.append(first)
        for score in entry["scores"] or [None] * scored:
            rows.append(first + (_cells(score) if score else ("",) * 8))
            first = ("",) * len(first)
    lines = [
        f"{result['documents']:,} documents of training text, {result['bytes'] / 1e6:,.1f} MB",
        *(f"{count:,} items were not read: {one_line(reason)}" for reason, count in result["dropped"].items()),
        "",
        *columns(rows, "<>>>>>>" + "<>>>>>><" * scored),
    ]
    for entry in result["tasks"]:
        if entry["without_scores"]:
            lines.append(f"{one_line(entry['task'])}: no comparison by {', '.join(entry['without_scores'])}")
    lines += [one_line(reason, REASON_CHARS) for reason in result["skipped"]]
    return "\n".join(lines)


def _cells(score: dict[str, Any]) -> tuple[str, ...]:
    unit, change = score["unit"], score["change"]
    values = ["–" if score[kind] is None else shown(score[kind]["value"], unit) for kind in ("all", "dirty", "clean")]
    if change is None or not score["dirty"]:
        return (score["metric"], str(score["k"]), *values, "", "", score["verdict"])
    interval = f"{shown(change['low'], '%', '+')} – {shown(change['high'], '%', '+')}"
    return (score["metric"], str(score["k"]), *values, f"{100 * change['value']:+.1f}%", interval, score["verdict"])
