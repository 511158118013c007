"""What `rein eval` left in a folder, read for its report and for comparisons.

Flow     OUT/scores.json → `load` → Evaluation: an Entry for each task and metric, with a Row for each number of shots
         OUT/answers.jsonl → `answers` → Answered, one by one: the file may be larger than the memory
         OUT/contamination.json → `overlaps` → an Overlap for each task; none where it was not looked for
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rein.errors import UserError

FORMAT = "rein-eval-1"
CONTAMINATION_FORMAT = "rein-contamination-1"

Json = dict[str, Any]


@dataclass(frozen=True)
class Paper:
    """A published number, as the paper prints it."""

    paper: str
    size: str
    value: float
    note: str  # what is odd about it


@dataclass(frozen=True)
class Row:
    """A score behind one number of shots. Percentages are fractions; an interval of which nothing is known is ±∞."""

    setting: str  # zero, one, few, chosen, curve
    k: int
    effective_k_mean: float
    effective_k_min: int
    value: float
    low: float
    high: float
    n: int
    effective_n: float
    draw_sd: float | None
    minimum_detectable: float
    published: Paper | None
    verdict: str  # inside, above, below, no number
    against_chance: str  # above, near, below; "" where chance has no score


@dataclass(frozen=True)
class Entry:
    """One metric of one task."""

    task: str
    title: str
    metric: str
    unit: str
    better: str  # higher, lower
    split: str
    problems: int
    failed: tuple[Json, ...]  # id, k, reason; the first of failed_count
    failed_count: int
    chance: float | None
    chosen_k: int | None
    rows: tuple[Row, ...]
    dev: tuple[Row, ...]  # of the split that K was chosen on

    @property
    def scale(self) -> float:
        """What a value is multiplied by where people read it."""
        return 100.0 if self.unit == "%" else 1.0


@dataclass(frozen=True)
class Evaluation:
    """A folder of results. `name` tells it from the others that were loaded together."""

    folder: Path
    name: str
    model: str
    n_params: int
    fingerprint: str
    protocol: str
    protocol_version: int
    entries: tuple[Entry, ...]
    skipped: tuple[Json, ...]  # task, reason

    @property
    def deciding(self) -> dict[str, Entry]:
        """The first metric of each task."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            found.setdefault(entry.task, entry)
        return found


@dataclass(frozen=True)
class Answered:
    """A line of answers.jsonl: what a model answered to one problem behind K shots."""

    task: str
    split: str
    id: str
    k: int
    draw: int | None  # which of the grouped draws of shots
    passage: str
    question: str
    value: dict[str, float | None]
    counts: dict[str, list[float]]  # of metrics that score all answers together
    choice: int | None
    gold: int | None
    text: str | None
    answers: list[str]
    logprobs: list[float]
    prompt: str  # the end of it
    options: list[str]
    parts: dict[str, str]  # passage, question, answer


@dataclass(frozen=True)
class Overlap:
    """How clean a task is of the training text, and how its deciding metric differs on what is clean."""

    model: str
    entry: Entry
    n: int  # words of an N-gram
    examples: int
    clean_frac: float
    passage_only: int  # dirty in the passage alone
    question_or_answer: int
    paper: tuple[float, float] | None  # Table C.1: the part that is clean, the change
    all: float | None  # the score; None where it cannot be told
    clean: float | None
    change: tuple[float, float, float] | None  # (clean − all) / all, with its interval
    verdict: str


def load(folders: Sequence[Path]) -> list[Evaluation]:
    """The evaluations in `folders`, each named so that they can be told apart.

    Raises   UserError when one of them is none, or its scores.json is damaged.
    """
    raw = [_scores(folder) for folder in folders]
    names = _names([str(found["model"]["name"]) for found in raw], folders)
    return [_evaluation(*each) for each in zip(folders, names, raw, strict=True)]


def answers(folder: Path) -> Iterator[Answered]:
    """The lines of answers.jsonl; none where the file is missing.

    Raises   UserError when a line is damaged. The file is written whole: a last line that was cut short is damage.
    """
    path = folder / "answers.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                said = _answered(json.loads(line))
            except (KeyError, TypeError) as error:
                raise UserError(f"{path}:{number} is a line without {error}.", _AGAIN) from None
            except (ValueError, RecursionError):
                raise UserError(f"{path}:{number} is no JSON: the file was cut short or written to.", _AGAIN) from None
            yield said


def overlaps(evaluation: Evaluation) -> list[Overlap]:
    """What contamination.json says of each task behind the most shots; nothing where there is no such file.

    Raises   UserError when it is damaged.
    """
    path = evaluation.folder / "contamination.json"
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_bytes())
        if (have := found["format"]) != CONTAMINATION_FORMAT:
            raise UserError(
                f"{path} has format {have!r}, but {CONTAMINATION_FORMAT!r} is what this version reads.",
                "Run `rein eval contamination` again.",
            )
        tasks = [one for one in found["tasks"] if one["examples"]]
        return [_overlap(evaluation, one) for one in tasks if one["task"] in evaluation.deciding]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error!r}.", "Run `rein eval contamination` again.") from None


# ------------------------------------------------------------------------------------------------ scores.json

_AGAIN = "Run the same `rein eval` again: what the model answered is kept, so it is quick."


def _scores(folder: Path) -> Json:
    path = folder / "scores.json"
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "has no scores.json, so it is no evaluation" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}.", "Name the --out folder of a `rein eval`, like evals/first-gpt3.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.", _AGAIN) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        have = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{path} has format {have!r}, but {FORMAT!r} is what this version reads.", _AGAIN)
    if not isinstance(found.get("model"), dict) or "name" not in found["model"]:
        raise UserError(f"{path} names no model.", _AGAIN)
    return found


def _evaluation(folder: Path, name: str, found: Json) -> Evaluation:
    model = found["model"]
    try:
        return Evaluation(
            folder=folder, name=name, model=str(model["name"]), n_params=int(model["n_params"]),
            fingerprint=str(model["fingerprint"]), protocol=str(found["protocol"]),
            protocol_version=int(found["protocol_version"]), entries=tuple(map(_entry, found["tasks"])),
            skipped=tuple(
                {"task": str(one["task"]), "reason": str(one["reason"]), "no_files": bool(one.get("no_files"))}
                for one in found["skipped"]
            ),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'scores.json'} is damaged: {error!r}.", _AGAIN) from None


def _entry(raw: Json) -> Entry:
    return Entry(
        task=str(raw["task"]), title=str(raw["title"]), metric=str(raw["metric"]), unit=str(raw["unit"]),
        better=str(raw["better"]), split=str(raw["split"]), problems=int(raw["problems"]),
        failed=tuple({"id": str(one["id"]), "k": int(one["k"]), "reason": str(one["reason"])} for one in raw["failed"]),
        failed_count=int(raw["failed_count"]), chance=_maybe(raw["chance"]),
        chosen_k=None if raw["chosen_k"] is None else int(raw["chosen_k"]),
        rows=tuple(map(_row, raw["scores"])), dev=tuple(map(_row, raw["dev"])),
    )  # fmt: skip


def _row(raw: Json) -> Row:
    paper, (low, high) = raw["published"], _ends(raw["low"], raw["high"])
    return Row(
        setting=str(raw["setting"]), k=int(raw["k"]), effective_k_mean=float(raw["effective_k_mean"]),
        effective_k_min=int(raw["effective_k_min"]), value=float(raw["value"]), low=low, high=high, n=int(raw["n"]),
        effective_n=float(raw["effective_n"]), draw_sd=_maybe(raw["draw_sd"]),
        minimum_detectable=math.inf if raw["minimum_detectable"] is None else float(raw["minimum_detectable"]),
        published=None if paper is None
        else Paper(str(paper["paper"]), str(paper["size"]), float(paper["value"]), str(paper["note"])),
        verdict=str(raw["verdict"]), against_chance=str(raw["against_chance"] or ""),
    )  # fmt: skip


def _overlap(evaluation: Evaluation, raw: Json) -> Overlap:
    entry = evaluation.deciding[raw["task"]]
    scores = [row for row in raw["scores"] if row["metric"] == entry.metric]
    score = max(scores, key=lambda row: int(row["k"])) if scores else {"all": None, "clean": None, "change": None}
    change, paper = score["change"], raw["published"]
    return Overlap(
        model=evaluation.name, entry=entry, n=int(raw["n"]), examples=int(raw["examples"]),
        clean_frac=float(raw["clean_frac"]), passage_only=int(raw["passage_only"]),
        question_or_answer=int(raw["question_or_answer"]),
        paper=None if paper is None else (float(paper["clean"]), float(paper["relative_change"])),
        all=None if score["all"] is None else float(score["all"]["value"]),
        clean=None if score["clean"] is None else float(score["clean"]["value"]),
        change=None if change is None else (float(change["value"]), *_ends(change["low"], change["high"])),
        verdict=str(score.get("verdict") or ""),
    )  # fmt: skip


def _answered(row: Json) -> Answered:
    return Answered(
        task=row["task"], split=row["split"], id=row["id"], k=row["k"], draw=row["draw"], passage=row["passage"],
        question=row["question"], value=row["value"], counts=row.get("counts", {}), choice=row["choice"],
        gold=row["gold"], text=row["text"], answers=row["answers"], logprobs=row["logprobs"], prompt=row["prompt"],
        options=row["options"], parts=row["parts"],
    )  # fmt: skip


def finite(value: float | None) -> float | None:
    """A number that JSON has; None for what is not finite: the ends of an interval of which nothing is known.

    Example  >>> finite(0.5), finite(math.inf)
             (0.5, None)
    """
    return value if value is None or math.isfinite(value) else None


def _ends(low: Any, high: Any) -> tuple[float, float]:
    """An interval; one of which nothing is known has no ends."""
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def _maybe(value: Any) -> float | None:
    return None if value is None else float(value)


def _names(models: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the models' names that tell them apart; of the folders', where a model is there twice."""
    if len(models) == 1:
        return list(models)
    for paths in (models, [str(folder.resolve()) for folder in folders]):
        parts = [path.strip("/").split("/") for path in paths]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join(part[-depth:]) for part in parts]
            if len(set(names)) == len(names):
                return names
    twice = next(folder for folder in folders if list(map(Path.resolve, folders)).count(folder.resolve()) > 1)
    raise UserError(f"{twice} is named twice.", "Name each folder once.")
