"""What the answers of policies are worth: ROUGE, win rates, lengths, habits, scores and KL, with 95% intervals.

Flow     rows of each policy (policies_answers.py) → `measure` → plain data: what is in policies.json

Everything is over the prompts that all policies answered. Intervals are for other prompts of the same kind: samples of
one prompt are one cluster. A win rate stands beside what it would be at equal length, by a logistic regression on
ln(length / length), in characters, at 0.
Source   Stiennon 2020, section 4 and App. F (length control), Fig. 5 (reward over KL); Lin 2004 (ROUGE).
Differs  The paper has one slope of length for all policies together; here each pair of policies has its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from rein import monitors
from rein.evals.policies_answers import Said
from rein.evals.results import finite
from rein.evals.reward_quality import tells_length
from rein.evals.rouge import rouge_l, rouge_n
from rein.evals.scores import Score
from rein.evals.statistics import Estimate, summarise
from rein.evals.win_rate import win_rates
from rein.feedback.draw import REFERENCE
from rein.text.prompts import Query

Json = dict[str, Any]
ROUGES = ("rouge_1", "rouge_2", "rouge_l")
END = 0  # stands for a text's end where its words are numbers


@dataclass(frozen=True)
class Duel:
    """Who won which pairs: of two policies, by one judge.

    Shapes   one entry each pair; wins 1, ½ or 0; lengths in characters.
    """

    policy: str
    against: str
    by: str
    wins: Sequence[float]
    lengths: Sequence[int]
    lengths_against: Sequence[int]
    clusters: Sequence[str]


def told(estimate: Estimate | Score | None) -> Json | None:
    """An estimate as JSON, which has no infinity: an end of which nothing is known is null."""
    if estimate is None:
        return None
    return {"value": estimate.value, "low": finite(estimate.low), "high": finite(estimate.high), "n": estimate.n}


def measure(said: Sequence[Said], queries: Sequence[Query], judges: Sequence[str], against: str) -> Json:
    """All that answers alone can tell.

    `against` names the policy that the others are compared with. References, where prompts have them, are the policy
    `ref`; they are measured on the prompts that have one.
    """
    models = [one for one in said if one.name != REFERENCE]
    shared = sorted(set[int].intersection(*(set(one.places()) for one in models)))
    base = next((one for one in said if one.name == against), None)
    base_habits = None if base is None else habits(base, _within(base, shared), queries)
    policies = list[Json]()
    for one in said:
        places = _within(one, shared)
        if not places:
            continue
        found = habits(one, places, queries)
        compared = base_habits is not None and one.name not in (against, REFERENCE)
        policies.append(
            {
                "name": one.name, "about": one.about, "prompts": len(places),
                "texts": len(_flat(one, places)), **_of_one(one, places, queries, judges),
                "habits": {name: _interval(mean) for name, mean in found.items()},
                "findings": [each.words for each in monitors.compare(base_habits or {}, found)] if compared else [],
            }
        )  # fmt: skip
    wins = [rates(duel) for duel in duels(said, shared, queries, judges, against)]
    return {"prompts": len(shared), "policies": policies, "wins": wins}


def _of_one(one: Said, places: Sequence[int], queries: Sequence[Query], judges: Sequence[str]) -> Json:
    """Lengths, scores, ROUGE and KL of a policy."""

    def mean(values: Sequence[float], at: Sequence[int], key: str = "texts", *, bounded: bool = False) -> Json | None:
        clusters = [queries[place].id for place in at for _ in one.rows[place][key]]
        return told(summarise(values, clusters=clusters, bounded=bounded)) if values else None

    texts = _flat(one, places)
    lengths: Json = {
        "characters": mean([float(len(text)) for text in texts], places),
        "words": mean([float(len(monitors.words(text))) for text in texts], places),
    }
    if all(one.rows[place].get("tokens") for place in places):
        lengths["tokens"] = mean([float(n) for n in _flat(one, places, "tokens")], places)
    referred = [place for place in places if queries[place].reference] if one.name != REFERENCE else []
    pairs = [(text, str(queries[place].reference)) for place in referred for text in one.rows[place]["texts"]]
    rouges = {
        "rouge_1": [rouge_n(text, reference, 1).f1 for text, reference in pairs],
        "rouge_2": [rouge_n(text, reference, 2).f1 for text, reference in pairs],
        "rouge_l": [rouge_l(text, reference).f1 for text, reference in pairs],
    }
    scores, kl_scores = dict[str, Json | None](), dict[str, Json | None]()
    for judge in judges:
        for found, key in ((scores, "scores"), (kl_scores, "kl_scores")):
            at = _both(places, one.scored(judge, key))
            found[judge] = mean([score for place in at for score in one.rows[place][key][judge]], at)
    at = _both(places, one.places("log_ratios"))
    return {
        "lengths": lengths,
        "rouge": {name: mean(values, referred, bounded=True) for name, values in rouges.items()} if pairs else None,
        "scores": scores,
        "kl_nats": mean(_flat(one, at, "log_ratios"), at, "log_ratios"),
        "kl_scores": kl_scores,
    }


# ---------------------------------------------------------------------------------------------------------- habits


def habits(one: Said, places: Sequence[int], queries: Sequence[Query]) -> dict[str, monitors.Mean]:
    """The monitors of monitors.py over words, so that any text has them, whoever wrote it and in whatever tokens.

    Means and standard errors are over prompts. Of texts that no model wrote, nobody knows whether they were cut off.
    """
    numbers: dict[str, int] = {}
    texts = _flat(one, places)
    contexts = [queries[place].fields for place in places for _ in one.rows[place]["texts"]]
    clusters = [queries[place].id for place in places for _ in one.rows[place]["texts"]]
    known = all("ended" in one.rows[place] for place in places)
    ended = _flat(one, places, "ended") if known else [True] * len(texts)
    ids = [
        (*(numbers.setdefault(word, len(numbers) + 1) for word in monitors.words(text)), *([END] if ends else []))
        for text, ends in zip(texts, ended, strict=True)
    ]
    found = monitors.measure(ids, texts, contexts, eot_id=END)
    if not known:
        del found["no_eot_frac"]
    if len(set(clusters)) == len(clusters):
        return found
    for name in found.keys() - {"distinct_2_frac"}:
        of_prompt: dict[str, list[float]] = {}
        for cluster, row, text, context in zip(clusters, ids, texts, contexts, strict=True):
            alone = monitors.measure([row], [text], [context], eot_id=END).get(name)
            of_prompt.setdefault(cluster, []).append(alone.value if alone else 0.0)
        means_N = np.array([np.mean(values) for values in of_prompt.values()])
        n = len(means_N)
        stderr = float(means_N.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
        found[name] = monitors.Mean(float(means_N.mean()), stderr, n)
    return found


def _interval(mean: monitors.Mean) -> Json:
    """A monitor with its 95% interval."""
    margin = float(stats.t.ppf(0.975, mean.n - 1)) * mean.stderr if mean.n > 1 else math.inf
    low, high = max(mean.value - margin, 0.0), mean.value + margin  # none of them can be below 0
    if mean.n == 1:
        low = -math.inf
    return {"value": mean.value, "low": finite(low), "high": finite(high), "n": mean.n}


# -------------------------------------------------------------------------------------------------------- win rates


def duels(
    said: Sequence[Said], shared: Sequence[int], queries: Sequence[Query], judges: Sequence[str], against: str
) -> Iterator[Duel]:
    """Each policy against the references and against `against`, by each judge: the higher score wins.

    Of several samples, the first meets the first; a single one meets all of the other's.
    """
    by_name = {one.name: one for one in said}
    for judge in judges:
        for other in dict.fromkeys((REFERENCE, against)):
            for one in said:
                if other not in by_name or one.name in (other, REFERENCE):
                    continue
                theirs = by_name[other]
                places = _both(_both(shared, one.scored(judge)), theirs.scored(judge))
                wins, lengths, others, clusters = list[float](), list[int](), list[int](), list[str]()
                for place in places:
                    for (text, score), (text_b, score_b) in _meeting(one.rows[place], theirs.rows[place], judge):
                        wins.append((score > score_b) + (score == score_b) / 2)
                        lengths.append(len(text))
                        others.append(len(text_b))
                        clusters.append(queries[place].id)
                if wins:
                    yield Duel(one.name, other, judge, wins, lengths, others, clusters)


def _meeting(
    one: Mapping[str, Any], other: Mapping[str, Any], judge: str
) -> Iterator[tuple[tuple[str, float], tuple[str, float]]]:
    ours, theirs = (list(zip(row["texts"], row["scores"][judge], strict=True)) for row in (one, other))
    n = max(len(ours), len(theirs)) if 1 in (len(ours), len(theirs)) else min(len(ours), len(theirs))
    for at in range(n):
        yield ours[min(at, len(ours) - 1)], theirs[min(at, len(theirs) - 1)]


def rates(duel: Duel) -> Json:
    """The win rate as it is, at equal length, and over strata of equal difference.

    The latter two and `length_logit` are None where the pairs are too few, or all alike, for a regression on length:
    see `tells_length`.

    Example  >>> found = rates(Duel("a", "b", "people", [1.0, 0.0, 1.0], [9, 9, 9], [9, 9, 9], ["1", "2", "3"]))
             >>> round(found["raw"]["value"], 3), found["pairs"]
             (0.667, 3)
    """
    found = win_rates(
        duel.wins, [n + 1 for n in duel.lengths], [n + 1 for n in duel.lengths_against], clusters=duel.clusters,
        difference="log",
    )  # fmt: skip
    alone = len(set(duel.clusters)) == 1  # one prompt says nothing of others
    told_apart = tells_length(duel.wins)
    rates = {
        "raw": told(found.raw), "controlled": told(found.controlled if told_apart else None),
        "stratified": told(found.stratified if told_apart else None),
    }  # fmt: skip
    if alone:
        rates = {name: None if rate is None else {**rate, "low": None, "high": None} for name, rate in rates.items()}
    return {
        "policy": duel.policy, "against": duel.against, "by": duel.by, "pairs": len(duel.wins),
        "prompts": len(set(duel.clusters)), "ties": list(duel.wins).count(0.5), **rates,
        "length_logit": found.length_logit if told_apart else None,
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- inside


def _within(one: Said, shared: Sequence[int]) -> list[int]:
    return _both(shared, one.places())


def _both(places: Sequence[int], others: Sequence[int]) -> list[int]:
    among = set(others)
    return [place for place in places if place in among]


def _flat(one: Said, places: Sequence[int], key: str = "texts") -> list[Any]:
    return [value for place in places for value in one.rows[place][key]]
