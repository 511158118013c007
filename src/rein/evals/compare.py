"""`rein eval compare`: whether one model answers better than another, on the problems that both answered.

Flow     answers.jsonl of two evaluations → values of the same problems → statistics.paired, or paired_whole where a
         score is no mean → Holm's correction for all of the tests → a table, or JSON

A pair of answers says more than two scores: what makes a problem hard for both is taken out of the difference.
Source   Miller 2024, "Adding error bars to evals"; Holm 1979.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.evals.metrics import METRICS
from rein.evals.printing import REASON_CHARS, shown
from rein.evals.responses import key_of
from rein.evals.results import Answered, Entry, Evaluation, Json, answers, finite, load
from rein.evals.statistics import Difference, holm, least_of_each, paired, paired_whole
from rein.report.legible import count, number, one_line, table

FORMAT = "rein-eval-compare-1"
LEVEL = 0.05


@dataclass(frozen=True)
class CompareEvalsConfig:
    """Settings of `rein eval compare`."""

    folders: tuple[Path, ...] = setting(
        help="folders of `rein eval`, two or more; each is compared with the first", positional=True
    )
    tasks: tuple[str, ...] = setting((), "these only; without any, all that both have")
    metrics: tuple[str, ...] = setting((), "these; without any, the one that decides each task")
    shots: tuple[str, ...] = setting(
        ("most",), "most: the most that both have, or the K that each chose on dev; all; or numbers"
    )
    json: bool = setting(False, "print JSON instead of the table")


@dataclass(frozen=True)
class Comparison:
    """A task, answered by a model and by the first one. `p_holm` is corrected for all tests made together."""

    model: str
    first: str
    task: str
    metric: str
    unit: str
    better: str
    k: int
    k_first: int
    score: float  # of the problems that both answered
    score_first: float
    difference: Difference  # score − score_first
    left_out: int  # problems that only one of them has a score for
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """What the test says of the model: better, worse, or that it shows no difference."""
        if self.p_holm >= LEVEL or not self.difference.value:
            return "no difference shown"
        return "better" if (self.difference.value > 0) == (self.better == "higher") else "worse"


def compare_command(config: CompareEvalsConfig) -> None:
    """Compares models on the problems that both answered: paired tests, corrected for their number.

    A problem is the same where its id, prompt, options and right answers are. The difference is a model's score less
    the first one's, with a 95% interval. p is McNemar's exact test where
    answers are right or wrong; else that of swapping the two at random; problems of one passage are swapped together.
    Holm's p is corrected for all rows of the table: below 0.05 it says better or worse. Detectable is the true
    difference that such a comparison finds in four cases of five.

    Examples
      rein eval compare evals/first-gpt3 evals/second-gpt3
      rein eval compare evals/first-gpt3 evals/second-gpt3 --tasks arc_easy piqa --shots 0 1
      rein eval compare evals/small-gpt3 evals/medium-gpt3 evals/large-gpt3 --json
    """
    if len(config.folders) < 2:
        raise UserError(
            f"rein eval compare needs two evaluations, but {len(config.folders)} was named.",
            "Name two, like: rein eval compare evals/first-gpt3 evals/second-gpt3",
        )
    evaluations = load(config.folders)
    found, left_out = compare(evaluations, tasks=config.tasks, metrics=config.metrics, shots=config.shots)
    if config.json:
        print(json.dumps(_as_json(evaluations, found, left_out), indent=2))
        return
    print("\n".join(_lines(found)))
    for one in left_out:
        print(one_line(f"{one['model']}, {one['task']}: {one['reason']}", REASON_CHARS))
    if not found:
        raise UserError("There is nothing to compare.", "Evaluate both models on the same tasks.")


def compare(
    evaluations: Sequence[Evaluation],
    *,
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    shots: Sequence[str] = ("most",),
) -> tuple[list[Comparison], list[Json]]:
    """Every evaluation against the first. Returns comparisons, and what could not be compared: model, task, reason.

    Raises   UserError when protocols differ, a name is unknown, or a file is damaged.
    """
    first, *others = evaluations
    _check(evaluations, tasks, metrics, shots)
    made, left_out, wanted = list[tuple[Evaluation, Entry, int, int]](), list[Json](), set[tuple[str, str, int]]()
    for other in others:
        for entry in _entries(other, tasks, metrics):
            theirs = next((e for e in first.entries if (e.task, e.metric) == (entry.task, entry.metric)), None)
            pairs = [] if theirs is None else list(_ks(entry, theirs, shots))
            reason = "only one was asked it" if theirs is None else "no number of shots that both were asked behind"
            if not pairs:
                left_out.append({"model": other.name, "task": entry.task, "reason": reason})
            made += [(other, entry, k, k_first) for k, k_first in pairs]
            wanted |= {(entry.task, entry.split, k) for pair in pairs for k in pair}
    kept = {one.folder: _kept(one, wanted) for one in evaluations}
    found = []
    for other, entry, k, k_first in made:
        a = kept[first.folder].get((entry.task, entry.split, k_first), {})
        b = kept[other.folder].get((entry.task, entry.split, k), {})
        comparison = _compare(first, other, entry, k, k_first, a, b)
        reasons = list[str]()
        if isinstance(comparison, str):
            reasons.append(comparison)
        else:
            found.append(comparison)
        if differ := _differ(a, b):
            reasons.append(f"{count(differ, 'problem')} of the same id but not the same prompt, options and answers")
        told = ({"model": other.name, "task": entry.task, "reason": reason} for reason in reasons)
        left_out += [one for one in told if one not in left_out]  # once for all numbers of shots
    corrected = holm([one.difference.p_value for one in found]) if found else []
    return [Comparison(**{**vars(one), "p_holm": p}) for one, p in zip(found, corrected, strict=True)], left_out


# ---------------------------------------------------------------------------------------------- what is compared


def _check(
    evaluations: Sequence[Evaluation], tasks: Sequence[str], metrics: Sequence[str], shots: Sequence[str]
) -> None:
    first = evaluations[0]
    for other in evaluations[1:]:
        if (other.protocol, other.protocol_version) != (first.protocol, first.protocol_version):
            raise UserError(
                f"{other.name} was asked by protocol {other.protocol}, version {other.protocol_version}, but "
                f"{first.name} by {first.protocol}, version {first.protocol_version}: they were not asked the same.",
                "Evaluate both with the same --protocol, and the same version of rein.",
            )
    for flag, given, known in (
        ("tasks", tasks, {entry.task for one in evaluations for entry in one.entries}),
        ("metrics", metrics, {entry.metric for one in evaluations for entry in one.entries}),
    ):
        for name in given:
            if name not in known:
                raise UserError(f"--{flag} names {name}, which none of the evaluations has.", suggestion(name, known))
    for word in shots:
        if word not in ("most", "all") and not word.isdigit():
            raise UserError(f"--shots has {word!r}.", "Use most, all, or numbers, like --shots 0 1 32.")


def _entries(evaluation: Evaluation, tasks: Sequence[str], metrics: Sequence[str]) -> Iterator[Entry]:
    for entry in evaluation.entries:
        decides = evaluation.deciding[entry.task] is entry
        if (not tasks or entry.task in tasks) and (entry.metric in metrics if metrics else decides):
            yield entry


def _ks(entry: Entry, first: Entry, shots: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The numbers of shots to compare behind, of both."""
    common = sorted({row.k for row in entry.rows} & {row.k for row in first.rows})
    if "most" in shots and entry.chosen_k is not None and first.chosen_k is not None:
        yield entry.chosen_k, first.chosen_k
    elif "most" in shots and common:
        yield common[-1], common[-1]
    for k in common:
        if "all" in shots or str(k) in shots:
            yield k, k


# --------------------------------------------------------------------------------------------------- comparing


Asked = tuple[str, str]  # a problem: its id, which in a file of the user's own says little, and what it asks


@dataclass(frozen=True)
class _Kept:
    """What of an answer is compared: its values and counts by metric, and what it is right or wrong together with."""

    numbers: dict[str, Any]
    passage: str
    question: str


def _kept(evaluation: Evaluation, wanted: set[tuple[str, str, int]]) -> dict[tuple[str, str, int], dict[Asked, _Kept]]:
    """(task, split, K) → problem → what was answered."""
    found: dict[tuple[str, str, int], dict[Asked, _Kept]] = {}
    for said in answers(evaluation.folder):
        if (key := (said.task, said.split, said.k)) in wanted:
            # A text that is scored whole has no prompt: it is in the parts.
            asked = said.id, key_of(said.prompt, said.options, said.gold, said.answers, said.parts)
            found.setdefault(key, {})[asked] = _of(said)
    return found


def _differ(a: dict[Asked, _Kept], b: dict[Asked, _Kept]) -> int:
    """How many ids stand for one problem in `a`, and for another in `b`."""
    return len({id for id, _ in a.keys() - b.keys()} & {id for id, _ in b.keys() - a.keys()})


def _of(said: Answered) -> _Kept:
    values = {name: value for name, value in said.value.items() if value is not None}
    return _Kept({**values, **said.counts}, said.passage, said.question)


def _compare(
    first: Evaluation, other: Evaluation, entry: Entry, k: int, k_first: int,
    a: dict[Asked, _Kept], b: dict[Asked, _Kept],
) -> Comparison | str:  # fmt: skip
    """`b`, the other's answers, against `a`, the first one's; or why it cannot be."""
    metric = METRICS.get(entry.metric)
    if metric is None:
        return f"{entry.metric} is no metric of this version"
    both = [asked for asked in b if asked in a and metric.name in (b[asked].numbers.keys() & a[asked].numbers.keys())]
    if not both:
        return f"answers.jsonl has no {entry.metric} of a problem that both answered"
    mine, theirs = ([side[asked].numbers[metric.name] for asked in both] for side in (b, a))
    passages = [b[asked].passage for asked in both]
    if metric.of_counts is not None:
        difference = paired_whole(mine, theirs, metric.of_rows, clusters=passages)
        score, score_first = metric.of_rows(mine), metric.of_rows(theirs)
    else:
        if metric.unit_of is not None:
            units = [b[asked].question or asked for asked in both]
            passages = [passages[place] for place in least_of_each(mine, units)]
            mine, theirs = ([side[place] for place in least_of_each(side, units)] for side in (mine, theirs))
        difference = paired(mine, theirs, passages, bounded=metric.unit == "%")
        score, score_first = float(np.mean(mine)), float(np.mean(theirs))
    return Comparison(
        model=other.name, first=first.name, task=entry.task, metric=metric.name, unit=metric.unit, better=metric.better,
        k=k, k_first=k_first, score=score, score_first=score_first, difference=difference,
        left_out=len(a.keys() | b.keys()) - len(both),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- printing


def _lines(found: Sequence[Comparison]) -> list[str]:
    """A table for each model."""
    lines = list[str]()
    for model in dict.fromkeys(one.model for one in found):
        rows = [one for one in found if one.model == model]
        lines += ["", one_line(f"{model} against {rows[0].first}")]
        head = ("task", "metric", "K", "n", "score", "first", "difference", "95% interval", "p", "Holm’s p",
                "detectable", "verdict")  # fmt: skip
        lines += table([head, *map(_cells, rows)], "<<>>>>>>>>><")
        if unpaired := sum(one.left_out for one in rows):
            lines.append(f"{unpaired:,} answers to problems that only one of the two has a score for are left out.")
    return lines[1:]


def _cells(one: Comparison) -> tuple[str, ...]:
    unit, difference = one.unit, one.difference
    return (
        one_line(one.task), one.metric, f"{one.k}" if one.k == one.k_first else f"{one.k}, {one.k_first}",
        f"{difference.n:,}", shown(one.score, unit), shown(one.score_first, unit), shown(difference.value, unit, "+"),
        f"{shown(difference.low, unit, '+')} to {shown(difference.high, unit, '+')}", _p(difference.p_value),
        _p(one.p_holm), shown(difference.minimum_detectable, unit), one.verdict,
    )  # fmt: skip


def _p(value: float) -> str:
    """A p-value.

    Example  >>> _p(0.04321), _p(0.00001), _p(1.0)
             ('0.043', '<0.001', '1')
    """
    return "<0.001" if value < 0.001 else number(float(f"{value:.3f}"))


def _as_json(evaluations: Sequence[Evaluation], found: Sequence[Comparison], left_out: Sequence[Json]) -> Json:
    rows = [
        {
            **asdict(one),
            "difference": {name: finite(value) for name, value in asdict(one.difference).items()},
            "verdict": one.verdict,
        }
        for one in found
    ]
    return {"format": FORMAT, "protocol": evaluations[0].protocol, "comparisons": rows, "not_compared": list(left_out)}
