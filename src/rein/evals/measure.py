"""From answers to the rows of a table: scores with intervals, beside chance and beside the paper.

Flow     Answers of one task, one by one → `Tally.add` → numbers, not texts → `Tally.entries` → what scores.json holds:
         one entry for each metric of the task, with one row for each number of shots

Percentages are fractions here and in scores.json; published numbers are as the paper prints them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rein.evals import published, statistics
from rein.evals.answering import Failed
from rein.evals.metrics import METRICS, Metric
from rein.evals.results import finite
from rein.evals.statistics import Estimate
from rein.evals.task import Answer, Split, Task

MOST_FAILURES = 100  # that are listed
MOST_CLASSES, MANY = 16, 10  # completions that come again and again are classes, of which one may be the commonest
_CHANCE = ("accuracy", "record_em")  # metrics that guessing has a known score of


Settings = Mapping[int, Sequence[str]]  # what each number of shots is called, which may be two things


@dataclass
class _AtK:
    """What was found behind one number of shots."""

    values: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, list[str]] = field(default_factory=dict)  # of metrics whose problems are right or wrong together
    clusters: list[str] = field(default_factory=list)
    draws: list[int | None] = field(default_factory=list)
    effective: list[int] = field(default_factory=list)
    counts: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)  # of metrics of the whole set


class Tally:
    """The answers to one task, as numbers; memory grows by a few of them a problem."""

    def __init__(self, task: Task, split: Split) -> None:
        self.task, self.split = task, split
        self.failed: list[Failed] = []
        self.n_failed = 0
        self._metrics = [METRICS[name] for name in task.metrics]
        self._at: dict[int, _AtK] = {}
        self._options = 0.0  # Σ over problems of 1 / number of options
        self._right: Counter[str] = Counter()  # how often each completion is the right one
        self._problems: set[str] = set()

    def add(self, answer: Answer) -> dict[str, float | None]:
        """Counts one answer. Returns its value under each metric that has one."""
        at = self._at.setdefault(answer.k, _AtK())
        problem = answer.problem
        if problem.id not in self._problems:
            self._problems.add(problem.id)
            if problem.options and problem.gold is not None and answer.text is None:
                self._options += 1 / len(problem.options)
                if len(self._right) <= MOST_CLASSES:
                    self._right[problem.options[problem.gold].completion] += 1
        found: dict[str, float | None] = {}
        for metric in self._metrics:
            if metric.counts is not None:
                at.counts.setdefault(metric.name, []).append(metric.counts(answer))
            if metric.of is not None:
                value = found[metric.name] = metric.of(answer)
                at.values.setdefault(metric.name, []).append(np.nan if value is None else value)
                if metric.unit_of is not None:
                    at.units.setdefault(metric.name, []).append(metric.unit_of(answer) or problem.id)
        at.clusters.append(problem.passage)
        at.draws.append(answer.draw)
        at.effective.append(answer.effective_k)
        return found

    def chance(self) -> float | None:
        """What guessing gets: the better of any option at random and always the same answer; None without options.

        BoolQ is 62% yes: a model that says nothing else is not above chance. Which answer is the commonest can be told
        where each comes `MANY` times on average.
        """
        if not self._options:
            return None
        n, classes = len(self._problems), len(self._right)
        same = max(self._right.values()) if classes <= MOST_CLASSES and n >= MANY * classes else 0
        return max(self._options, same) / n

    def fail(self, failed: Failed) -> None:
        """Counts a problem that got no answer."""
        self.n_failed += 1
        if len(self.failed) < MOST_FAILURES:
            self.failed.append(failed)

    @property
    def ks(self) -> list[int]:
        """The numbers of shots that have answers."""
        return sorted(self._at)

    def estimate(self, metric: Metric, k: int) -> Estimate | None:
        """The score behind K shots; None where nothing has a value."""
        at = self._at[k]
        if metric.of_counts is not None:
            return statistics.whole(at.counts[metric.name], metric.of_rows, clusters=at.clusters)
        values = np.array(at.values[metric.name])
        places = np.flatnonzero(~np.isnan(values)).tolist()
        if metric.unit_of is not None:
            units = at.units[metric.name]
            least = statistics.least_of_each(values[places], [units[place] for place in places])
            places = [places[place] for place in least]
        if not places:
            return None
        clusters, draws = [at.clusters[place] for place in places], [at.draws[place] for place in places]
        return statistics.summarise(values[places], clusters=clusters, draws=draws, bounded=metric.unit == "%")

    def entries(self, paper: str, size: str | None, n_params: float, settings: Settings) -> list[dict[str, Any]]:
        """What scores.json holds of this task, one entry for each metric. `settings` names each number of shots."""
        return [self._entry(metric, paper, size, n_params, settings) for metric in self._metrics]

    def _entry(
        self, metric: Metric, paper: str, size: str | None, n_params: float, settings: Settings
    ) -> dict[str, Any]:
        task, chance = self.task, self.chance() if metric.name in _CHANCE else None
        rows = []
        for k in self.ks:
            estimate = self.estimate(metric, k)
            if estimate is not None:
                rows += [
                    self._row(metric, k, estimate, setting, paper, size, n_params, chance)
                    for setting in settings.get(k, ["curve"])
                ]
        return {
            "task": task.name,
            "title": task.title,
            "metric": metric.name,
            "unit": metric.unit,
            "better": metric.better,
            "split": self.split,
            "problems": len(self._problems),
            "failed": [asdict(one) for one in self.failed],
            "failed_count": self.n_failed,
            "chance": chance,
            "paper_k": task.shots,
            "scores": rows,
        }

    def _row(
        self,
        metric: Metric,
        k: int,
        estimate: Estimate,
        setting: str,
        paper: str,
        size: str | None,
        n_params: float,
        chance: float | None,
    ) -> dict[str, Any]:
        effective = self._at[k].effective
        beside = beside_paper(self.task, metric, setting, paper, size, n_params)
        number = published.fraction(metric.name, beside["value"]) if beside else None
        detectable = statistics.minimum_detectable(estimate)
        return {
            "setting": setting,
            "k": k,
            "effective_k_mean": float(np.mean(effective)),
            "effective_k_min": min(effective),
            **{name: finite(value) for name, value in asdict(estimate).items()},
            "minimum_detectable": finite(min(detectable, 1.0) if metric.unit == "%" else detectable),
            "published": beside,
            "verdict": statistics.verdict(estimate, number),
            "against_chance": None if chance is None else statistics.against_chance(estimate, chance),
        }


def beside_paper(
    task: Task, metric: Metric, setting: str, paper: str, size: str | None, n_params: float
) -> dict[str, Any] | None:
    """The paper's number for a setting, of the size that is named, or else the nearest to the model's."""
    if not task.published:
        return None
    wanted = {"chosen": "few"}.get(setting, setting)
    numbers = published.numbers(paper, task.published, metric.name, wanted)
    if not numbers and paper == "gpt2":  # it has one setting, and names it by whether the prompt begins with examples
        wanted = "few"
        numbers = published.numbers(paper, task.published, metric.name, wanted)
    name = size or published.nearest(paper, n_params)
    if name not in numbers:
        return None
    note = published.note(paper, task.published, metric.name, wanted, name)
    return {"paper": paper, "size": name, "value": numbers[name], "note": note}
