"""What goes wrong with a policy's responses unseen by its reward: length, repetition, copying, no end, sameness.

Flow     responses of a policy to held-out queries, as ids and as texts → `measure` → {monitor: mean, standard error}
         two of those, the policy's and its start's → `compare` → findings: which differ, by how much, in words

Each monitor is one number a response, so that its mean has a standard error; `distinct_2_frac` alone is of all
responses together, with a jackknife's. Everything is a pure function. Words are runs of letters and digits in lower
case; ids are compared as they are.

Source   title copying, length and repetition as a policy's tricks: Stiennon 2020, section 4.3 and Appendix G;
         distinct-n: Li 2016; the difference of two means in standard errors: Welch 1947.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

LEAST_Z = 4.0  # standard errors of the difference: at seven monitors, a false alarm in 2,000 comparisons

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Monitor:
    """A measure of responses: its unit, what it is, how far from the start it may be, and what to say beyond that.

    `rises` and `falls` are the least differences that count, up and down; None: that way is no fault.
    """

    name: str
    unit: str
    formula: str
    rises: float | None
    falls: float | None
    warning: str


MONITORS = (
    Monitor(
        "response_tokens", "tokens", "tokens of a response, relative to the start's mean", 0.25, 0.25,
        "Responses became {more} than the start's: what they win may be their length. Compare at equal length.",
    ),
    Monitor(
        "no_eot_frac", "1", "responses whose last token is not end-of-text / responses", 0.1, None,
        "More responses are cut off: raise the number of new tokens, or let the score ask for an end.",
    ),
    Monitor(
        "repeated_frac", "1", "longest run of tokens that a response holds twice / its tokens", 0.1, None,
        "Responses repeat themselves.",
    ),
    Monitor(
        "copied_title_frac", "1", "longest run of words shared with the title or name / words of the response", 0.1,
        None, "Responses copy the title.",
    ),
    Monitor(
        "copied_post_frac", "1", "longest run of words shared with the query's longest text / words of the response",
        0.15, None, "Responses copy the text that they are to be about.",
    ),
    Monitor(
        "bigram_overlap_frac", "1", "pairs of words that the query's texts hold too / pairs of the response", 0.2, None,
        "Responses say more in the words of the query.",
    ),
    Monitor(
        "distinct_2_frac", "1", "different pairs of tokens / pairs, of all responses together", None, 0.15,
        "Responses are more alike.",
    ),
    Monitor(
        "entropy_nats", "nats/token", "mean entropy of the sampler's distribution before each token, relative to the "
        "start's mean", None, 0.5, "The policy became sure of each token: what it samples hardly varies.",
    ),
)  # fmt: skip
RELATIVE = frozenset({"response_tokens", "entropy_nats"})  # whose limits are parts of the start's mean


@dataclass(frozen=True)
class Mean:
    """A mean of n values, and its standard error."""

    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Finding:
    """A monitor that left its limits: where it was at the start, where it is, and what to make of it."""

    name: str
    start: float
    now: float
    z: float  # of the difference
    words: str


# ------------------------------------------------------------------------------------------------- of one response


def repeated_frac(items: Sequence[Hashable]) -> float:
    """The longest run of items that occurs twice, as a part of all; the two may overlap.

    Example  >>> repeated_frac("abcabc"), repeated_frac([7, 7, 7, 7]), repeated_frac("abcd"), repeated_frac("")
             (0.5, 0.75, 0.0, 0.0)
    """
    n = len(items)
    return _longest(n - 1, lambda length: len(_runs(items, length)) < n - length + 1) / n if n else 0.0


def copied_frac(items: Sequence[Hashable], source: Sequence[Hashable]) -> float:
    """The longest run of items that the source holds too, as a part of all.

    Example  >>> copied_frac(words("My cat is lost, help!"), words("cat is lost"))
             0.6
    """
    shortest = min(len(items), len(source))
    found = _longest(shortest, lambda length: not _runs(items, length).isdisjoint(_runs(source, length)))
    return found / len(items) if items else 0.0


def bigram_overlap_frac(items: Sequence[Hashable], source: Sequence[Hashable]) -> float:
    """Pairs of neighbours that the source holds too, wherever, as a part of all pairs.

    Example  >>> bigram_overlap_frac(words("the cat sat down"), words("the cat and he sat down"))
             0.6666666666666666
    """
    theirs = _runs(source, 2)
    ours = _pairs(items)
    return sum(pair in theirs for pair in ours) / len(ours) if ours else 0.0


def words(text: str) -> list[str]:
    """The words of a text, in lower case.

    Example  >>> words("It's 3 o'clock.")
             ['it', 's', '3', 'o', 'clock']
    """
    return _WORD.findall(text.lower())


# ---------------------------------------------------------------------------------------------------- of many


def distinct_2(responses: Sequence[Sequence[Hashable]]) -> Mean:
    """Different pairs of neighbours / pairs, of all responses together; the standard error is the jackknife's.

    It falls with the number of responses, so compare as many with as many.

    Example  >>> distinct_2(["abab", "abab"]).value
             0.3333333333333333
    Source   Li 2016, section 5; Efron & Tibshirani 1993, chapter 11.
    """
    own = [Counter(_pairs(response)) for response in responses]
    whole = Counter(chain.from_iterable(counts.elements() for counts in own))
    distinct, total = len(whole), whole.total()
    if not total:
        return Mean(0.0, 0.0, len(responses))
    without = [
        (distinct - sum(whole[pair] == count for pair, count in counts.items())) / max(total - counts.total(), 1)
        for counts in own
    ]
    n = len(without)
    return Mean(distinct / total, float(np.std(without)) * math.sqrt(n - 1), n)


def measure(
    responses: Sequence[Sequence[int]],
    texts: Sequence[str],
    contexts: Sequence[Mapping[str, object]],
    *,
    eot_id: int,
    entropies_M: npt.ArrayLike | None = None,
) -> dict[str, Mean]:
    """Every monitor's mean over these responses: their ids, with end-of-text where they ended, and their texts.

    A context holds what was asked: its "title" or "name", and other texts, of which the longest is what may be copied.
    The reference, where there is one, is none of them. Without `entropies_M`, those of the sampler before each token
    of all responses, there is no entropy; without a title anywhere, no copying of it.
    """
    assert len(responses) == len(texts) == len(contexts) > 0, "each response has its text and its context"
    bare = [tuple(ids[:-1]) if ids and ids[-1] == eot_id else tuple(ids) for ids in responses]
    said = [words(text) for text in texts]
    fields = [{key: words(v) for key, v in c.items() if key != "reference" and isinstance(v, str)} for c in contexts]
    titles = [field.get("title") or field.get("name") or [] for field in fields]
    posts = [max(field.values(), key=len, default=[]) for field in fields]
    values: dict[str, list[float]] = {
        "response_tokens": [len(ids) for ids in responses],
        "no_eot_frac": [not ids or ids[-1] != eot_id for ids in responses],
        "repeated_frac": [repeated_frac(ids) for ids in bare],
        "copied_title_frac": [copied_frac(*both) for both in zip(said, titles, strict=True)] if any(titles) else [],
        "copied_post_frac": [copied_frac(*both) for both in zip(said, posts, strict=True)],
        "bigram_overlap_frac": [
            bigram_overlap_frac(ours, list(chain.from_iterable(field.values())))
            for ours, field in zip(said, fields, strict=True)
        ],
    }
    found = {name: _mean(np.asarray(each, float)) for name, each in values.items() if each}
    found["distinct_2_frac"] = distinct_2(bare)
    if entropies_M is not None:
        found["entropy_nats"] = _mean_of_tokens(np.asarray(entropies_M, float), [len(ids) for ids in responses])
    return found


def compare(start: Mapping[str, Mean], now: Mapping[str, Mean]) -> list[Finding]:
    """Which monitors are further from the start's than they may be: by their limit, and by more than chance.

        z = (now − start) / √(stderr_now² + stderr_start²)        a finding where |z| ≥ 4 and the limit is passed

    Example  >>> short, long = {"response_tokens": Mean(20, 0.5, 64)}, {"response_tokens": Mean(31, 0.8, 64)}
             >>> compare(short, long)[0].words
             "Responses became longer than the start's: what they win may be their length. Compare at equal length."
             >>> compare(short, short)
             []
    """
    findings = []
    for monitor in MONITORS:
        if monitor.name not in start or monitor.name not in now:
            continue
        before, after = start[monitor.name], now[monitor.name]
        gap = after.value - before.value
        unit = abs(before.value) if monitor.name in RELATIVE else 1.0
        limit = monitor.rises if gap > 0 else monitor.falls
        spread = math.hypot(before.stderr, after.stderr)
        z = gap / spread if spread else math.copysign(math.inf, gap) if gap else 0.0
        if limit is not None and abs(gap) > limit * unit and abs(z) >= LEAST_Z:
            said = monitor.warning.format(more="longer" if gap > 0 else "shorter")
            findings.append(Finding(monitor.name, before.value, after.value, z, said))
    return findings


# ----------------------------------------------------------------------------------------------------- inside


def _pairs(items: Sequence[Hashable]) -> list[tuple[Hashable, Hashable]]:
    return list(pairwise(items))


def _runs(items: Sequence[Hashable], length: int) -> set[tuple[Hashable, ...]]:
    return {tuple(items[i : i + length]) for i in range(len(items) - length + 1)}


def _longest(most: int, holds: Callable[[int], bool]) -> int:
    """The greatest length that holds; whoever holds for a length holds for all below it."""
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _mean(values_N: npt.NDArray[np.float64]) -> Mean:
    n = len(values_N)
    return Mean(float(values_N.mean()), float(values_N.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0, n)


def _mean_of_tokens(values_M: npt.NDArray[np.float64], lengths: Sequence[int]) -> Mean:
    """The mean over tokens, with a standard error over responses: tokens of one response are not independent."""
    assert len(values_M) == sum(lengths), "each token has its entropy"
    sizes_N = np.asarray(lengths, float)
    sums_N = np.add.reduceat(values_M, np.cumsum([0, *lengths[:-1]])) if len(values_M) else np.zeros(len(lengths))
    mean, n = float(values_M.mean()), len(lengths)
    left_N = sums_N - mean * sizes_N
    stderr = math.sqrt(float(left_N @ left_N) * n / (n - 1)) / float(sizes_N.sum()) if n > 1 else 0.0
    return Mean(mean, stderr, n)
