"""What GLUE and GPT-1 report of predictions: accuracy, F1, Matthews, Pearson, Spearman, each with a 95% interval.

Flow     predicted_N, labels_N → Score. Classes are numbers from 0; class 1 is the positive one of F1.
The interval says how far the score of other rows from the same source may lie: Wilson's for accuracy, Fisher's z for
correlations, a bootstrap over rows for the rest. It says nothing of another seed's model.
Source   Radford 2018 §4.2, Tables 2 to 5: which task is scored by what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from rein.evals.statistics import wilson

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

DRAWS = 2000  # of a bootstrap


@dataclass(frozen=True)
class Score:
    """A number in [0, 1], or [−1, 1] for a correlation, and where it lies with 95% confidence."""

    name: str
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def accuracy(predicted_N: Numbers, labels_N: Numbers) -> Score:
    """The part that is right; Wilson's interval.

    Example  >>> print(accuracy(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])))
             accuracy 0.7500 [0.3006, 0.9544]
    """
    right, n = int((predicted_N == labels_N).sum()), len(labels_N)
    return Score("accuracy", right / n, *wilson(right / n, n), n)


def f1(predicted_N: Numbers, labels_N: Numbers) -> Score:
    """Of the positive class, 1: 2 TP / (2 TP + FP + FN), and 0 where it neither is nor is predicted.

    Example  >>> f1(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])).value
             0.5
    """
    return _bootstrapped("f1", predicted_N, labels_N, lambda table: _f1_of(table, 1))


def macro_f1(predicted_N: Numbers, labels_N: Numbers) -> Score:
    """The mean over the classes that are labels of each one's F1.

    Example  >>> round(macro_f1(np.array([0, 0, 0]), np.array([0, 0, 1])).value, 4)
             0.4
    """
    classes = np.unique(labels_N).astype(int)
    return _bootstrapped(
        "macro_f1", predicted_N, labels_N, lambda table: np.mean([_f1_of(table, k) for k in classes], axis=0)
    )


def matthews(predicted_N: Numbers, labels_N: Numbers) -> Score:
    """Matthews' correlation; 0 where only one class is predicted or there is only one.

        (TP · TN − FP · FN) / √((TP + FP) (TP + FN) (TN + FP) (TN + FN)),   for K classes Gorodkin's R_K

    Example  >>> matthews(np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1])).value.__round__(4)
             0.5774
    Source   Matthews 1975; Gorodkin 2004.
    """
    return _bootstrapped("matthews", predicted_N, labels_N, _matthews_of)


def pearson(predicted_N: Numbers, labels_N: Numbers) -> Score:
    """Pearson's correlation; 0, and nothing known, where one side is constant. The interval is that of normal data.

    Example  >>> print(pearson(np.array([1, 2, 3, 5.0]), np.array([1, 2, 3, 4.0])))
             pearson 0.9827 [0.3893, 0.9997]
    """
    return _correlation("pearson", predicted_N, labels_N, widening=0.0)


def spearman(predicted_N: Numbers, labels_N: Numbers) -> Score:
    """Pearson's correlation of ranks, ties at their mean rank. The interval widens Fisher's by Bonett and Wright.

    Example  >>> spearman(np.array([1, 2, 30.0]), np.array([1, 2, 3.0])).value
             1.0
    Source   Bonett & Wright 2000: variance (1 + r²/2) / (n − 3) of Fisher's z.
    """
    return _correlation("spearman", stats.rankdata(predicted_N), stats.rankdata(labels_N), widening=0.5)


SCORES: dict[str, Callable[[Numbers, Numbers], Score]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


# -------------------------------------------------------------------------------------------------- inside


def _correlation(name: str, x_N: Numbers, y_N: Numbers, *, widening: float) -> Score:
    n = len(y_N)
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    scale = float(np.sqrt((x_N @ x_N) * (y_N @ y_N)))
    if not scale:
        return Score(name, 0.0, -1.0, 1.0, n)
    r = float(np.clip((x_N @ y_N) / scale, -1.0, 1.0))
    if n < 4:
        return Score(name, r, -1.0, 1.0, n)
    if abs(r) == 1.0:
        return Score(name, r, r, r, n)
    margin = float(stats.norm.ppf(0.975)) * np.sqrt((1 + widening * r * r) / (n - 3))
    low, high = np.tanh(np.arctanh(r) + np.array([-margin, margin]))
    return Score(name, r, float(low), float(high), n)


def _bootstrapped(
    name: str, predicted_N: Numbers, labels_N: Numbers, of: Callable[[Counts], npt.NDArray[np.floating]]
) -> Score:
    """`of` the table (…, predicted, label) of counts, and of tables of as many rows drawn with replacement.

    Drawing rows and counting them is drawing the counts: a multinomial of the table.
    """
    n = len(labels_N)
    k = int(max(predicted_N.max(), labels_N.max(), 1)) + 1
    table = np.bincount(predicted_N.astype(int) * k + labels_N.astype(int), minlength=k * k)
    drawn = np.random.default_rng(0).multinomial(n, table / n, size=DRAWS).reshape(DRAWS, k, k)
    low, high = np.quantile(of(drawn), [0.025, 0.975])
    return Score(name, float(of(table.reshape(k, k))), float(low), float(high), n)


def _f1_of(table: Counts, positive: int) -> npt.NDArray[np.floating]:
    right = table[..., positive, positive]
    return _ratio(2 * right, table[..., positive, :].sum(-1) + table[..., :, positive].sum(-1))


def _matthews_of(table: Counts) -> npt.NDArray[np.floating]:
    n = table.sum((-2, -1)).astype(float)
    predicted, true = table.sum(-1).astype(float), table.sum(-2).astype(float)
    right = np.trace(table, axis1=-2, axis2=-1)
    spread = (n * n - (predicted**2).sum(-1)) * (n * n - (true**2).sum(-1))
    return _ratio(right * n - (predicted * true).sum(-1), np.sqrt(spread))


def _ratio(
    top: npt.NDArray[np.floating] | Counts, bottom: npt.NDArray[np.floating] | Counts
) -> npt.NDArray[np.floating]:
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
