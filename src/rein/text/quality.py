"""GPT-3's quality filter: a classifier of what curated text looks like, and a draw that keeps some of the rest.

Logistic regression over the counts of a text's words, hashed as Spark's HashingTF does. Positives are curated texts
(GPT-3: WebText, Wikipedia, web books), negatives unfiltered crawl. A crawled document is kept if and only if

    np.random.pareto(alpha) > 1 − score        that is, with probability (2 − score)^−alpha;  alpha = 9

so nearly all that score high stay, and a few of the others. The draw is a hash of the document's id and the seed:
which documents stay depends on no order and no number of processes.

Flow     positives, negatives → `train` → `Classifier` and a report → `keep_quality`: Document → Document | Dropped
Source   Brown 2020, App. A. It does not state the number of features, the regularisation or the iterations; ours
         are Spark's defaults: 2¹⁸, none, at most 100 to a tolerance of 10⁻⁶.
Differs  Counts are not normalised by length and nothing is regularised, so scores of long texts crowd at 0 and 1 and
         the draw is nearly a hard cut. The report says by how much; `l2` and another alpha soften it.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from scipy import optimize, sparse, special
from threadpoolctl import threadpool_limits

from rein.errors import UserError, writing
from rein.text.documents import Document, Dropped
from rein.text.spark import N_FEATURES, Counts, Indices, Weights, features, weigh
from rein.text.split import unit_hash
from rein.text.store import unfinished

ALPHA = 9.0
ALPHAS = (0.5, *(float(alpha) for alpha in range(1, 17)), 20.0, 25.0, 30.0)
BINS = 50
FORMAT = "rein-quality"
FORMAT_VERSION = "1"
LOW_QUALITY = "low quality"
MIN_DOCUMENTS = 20

Scores = npt.NDArray[np.float64]

P = ParamSpec("P")
R = TypeVar("R")


def _one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Sums of more threads have another order, and so other last bits; after them a search may end elsewhere."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with threadpool_limits(1, "blas"):
            return function(*args, **kwargs)

    return limited


# ------------------------------------------------------------------------------------------------ the classifier


@dataclass(frozen=True, eq=False)
class Classifier:
    """How much a text looks like the positives: 1 / (1 + exp(−intercept − Σ over its words of their weights)).

    Shapes   weights (2¹⁸,) float64.
    Example  >>> Classifier(np.zeros(N_FEATURES), 0.0).score("any text")
             0.5
    """

    weights: Weights
    intercept: float

    def score(self, text: str) -> float:
        """In [0, 1]; both ends are reached, by texts whose odds exceed what a float can hold."""
        return _sigmoid(self.intercept + weigh(text, self.weights))

    def scores(self, texts: Iterable[str]) -> Scores:
        """The scores of texts: (n,)."""
        return np.array([self.score(text) for text in texts], dtype=np.float64)

    @cached_property
    def sha256(self) -> str:
        """Equal for classifiers that score alike to the last bit: what a manifest should keep."""
        content = np.append(self.weights, self.intercept).astype("<f8")
        return hashlib.sha256(content.tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes a safetensors file, whole or not at all.

        Raises   UserError when the disk is full or the folder cannot be written.
        """
        about = {"format": FORMAT, "version": FORMAT_VERSION, "sha256": self.sha256}
        tensors = {"weights": self.weights, "intercept": np.array([self.intercept])}
        part = unfinished(path)
        try:
            with writing(path):
                part.write_bytes(to_safetensors(tensors, metadata=about))
                os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Reads what `save` wrote.

        Raises   UserError when the file is missing, is something else, or was damaged.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            what = "does not exist" if not path.exists() else f"cannot be read: {error}"
            raise UserError(f"The quality classifier {path} {what}.", _TRAIN_ANEW) from None
        if about.get("format") != FORMAT:
            raise UserError(f"{path} holds no quality classifier (its format is {about.get('format')!r}).", _TRAIN_ANEW)
        if about.get("version") != FORMAT_VERSION:
            version = about.get("version")
            raise UserError(
                f"{path} has version {version} of the format, but this program reads {FORMAT_VERSION}.", _TRAIN_ANEW
            )
        found = {name: (tensor.dtype.str, tensor.shape) for name, tensor in tensors.items()}
        if found != {"weights": ("<f8", (N_FEATURES,)), "intercept": ("<f8", (1,))}:
            raise UserError(f"{path} holds {found}, not {N_FEATURES:,} float64 weights and an intercept.", _TRAIN_ANEW)
        classifier = cls(tensors["weights"], float(tensors["intercept"][0]))
        if classifier.sha256 != about.get("sha256"):
            raise UserError(f"{path} was damaged: its SHA-256 is not the one it was saved with.", _TRAIN_ANEW)
        return classifier


_TRAIN_ANEW = "Name a file that a classifier was saved to, or train one anew."


def _sigmoid(margin: float) -> float:
    if margin >= 0:
        return 1 / (1 + math.exp(-margin))
    return math.exp(margin) / (1 + math.exp(margin))  # exp of a large number would overflow


# ------------------------------------------------------------------------------------------------------- the draw


def keep_probability(score: float, alpha: float = ALPHA) -> float:
    """P(keep), before the draw.

        (2 − score)^−alpha

    Units    score in [0, 1]; a probability.
    Example  >>> [round(keep_probability(score), 3) for score in (1, .99, .9, .75, .5, 0)]
             [1.0, 0.914, 0.424, 0.134, 0.026, 0.002]
    """
    return float((2.0 - score) ** -alpha)


def pareto_draw(document_id: str, seed: int, alpha: float = ALPHA) -> float:
    """A document's own number from the Lomax law, the one of np.random.pareto: P(X > x) = (1 + x)^−alpha.

        (1 − u)^(−1/alpha) − 1, u uniform from the hash of the seed and the id

    The hash is salted: `split_by_id` holds out the documents with the smallest ones, and a draw from the same would
    hold out only documents with small draws.
    """
    assert alpha > 0, f"alpha is {alpha}, but it must be above 0"
    u = unit_hash(f"pareto {document_id}", seed)
    exponent = -math.log(max(1.0 - u, 2**-64)) / alpha  # a hash may round up to 1
    return math.expm1(min(exponent, 709.0))  # beyond is no float


def keep(score: float, document_id: str, seed: int, alpha: float = ALPHA) -> bool:
    """GPT-3's rule: pareto > 1 − score."""
    return pareto_draw(document_id, seed, alpha) > 1.0 - score


def keep_quality(document: Document, classifier: Classifier, *, alpha: float = ALPHA, seed: int) -> Document | Dropped:
    """The document with its score as metadata "quality" (6 decimals), or `Dropped` as "low quality"."""
    score = classifier.score(document.text)
    if not keep(score, document.id, seed, alpha):
        return Dropped(document.id, LOW_QUALITY)
    return replace(document, metadata={**document.metadata, "quality": f"{score:.6f}"})


# ------------------------------------------------------------------------------------------------------- training


class Fit(NamedTuple):
    """What `fit` found: `weights` (n_features,), and how the search ended."""

    weights: Weights
    intercept: float
    iterations: int
    loss: float
    converged: bool


@_one_thread
def train(
    positives: Iterable[str],
    negatives: Iterable[str],
    *,
    max_documents: int = 100_000,
    heldout_frac: float = 0.1,
    l2: float = 0.0,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    seed: int,
) -> tuple[Classifier, dict[str, Any]]:
    """Trains a classifier, and measures it on texts that it has not seen.

    Of each class, the `max_documents` different texts with the smallest hashes are used, whatever order they come in;
    those with the smallest of another hash are held out. A text counts once in its class. Memory is 8 bytes for each
    distinct word of a text used, and 16 more while it is fitted: about 1.5 GB for 2 × 100,000 texts of 300 such words.

    The same texts and seed give the same classifier, to the last bit: the linear algebra runs on one thread, for the
    sums of several have another order, after which the search may end elsewhere (scores differed by 0.001).

    The report is plain data for JSON: the counts of documents, how the fit ended, and under "heldout" precision,
    recall, F1 and confusion at score > 0.5, AUC, log loss, the histograms of scores, and the fraction of them below
    0.01 or above 0.99. "alpha" is `calibrate_alpha` of the held-out scores.

    Raises   UserError when a class has fewer than 20 different texts, or all its texts are in the other one too.
    """
    assert 0 < heldout_frac < 1, f"heldout_frac is {heldout_frac}, but it must be between 0 and 1"
    assert max_documents >= MIN_DOCUMENTS, f"max_documents is {max_documents}, but it must be {MIN_DOCUMENTS} or more"
    samples = {
        name: _sampled(texts, max_documents, seed)
        for name, texts in (("positives", positives), ("negatives", negatives))
    }
    for name, sample in samples.items():
        if len(sample.rows) < MIN_DOCUMENTS:
            raise UserError(
                f"There are {len(sample.rows)} different texts among the {name} of the quality classifier, "
                f"but it needs at least {MIN_DOCUMENTS}.",
                f"Give more {name}; GPT-3 had curated documents as positives and crawled ones as negatives.",
            )
    both = len(samples["positives"].rows.keys() & samples["negatives"].rows.keys())
    if both == min(len(sample.rows) for sample in samples.values()):
        raise UserError(
            f"All {both:,} texts of one class of the quality classifier are in the other too: no difference to learn.",
            "Give curated documents as positives and crawled ones as negatives.",
        )
    parts = {name: _divided(sample, heldout_frac, seed) for name, sample in samples.items()}
    counts, labels = _stacked(parts["positives"][0], parts["negatives"][0])
    found = fit(counts, labels, l2=l2, max_iterations=max_iterations, tolerance=tolerance)
    counts, labels = _stacked(parts["positives"][1], parts["negatives"][1])
    margins = counts @ found.weights + found.intercept
    scores = special.expit(margins)
    report = {
        **{
            name: {
                "seen": sample.seen,
                "trained_on": len(parts[name][0]),
                "heldout": len(parts[name][1]),
            }
            for name, sample in samples.items()
        },
        "in_both": both,
        "settings": {
            "max_documents": max_documents,
            "heldout_frac": heldout_frac,
            "l2": l2,
            "max_iterations": max_iterations,
            "tolerance": tolerance,
            "seed": seed,
        },
        "fit": {
            "iterations": found.iterations,
            "converged": found.converged,
            "loss": found.loss,
            "features": int(np.count_nonzero(found.weights)),
        },
        "heldout": measured(margins, labels),
        "alpha": calibrate_alpha(scores[labels], scores[~labels]),
    }
    return Classifier(found.weights, found.intercept), report


@_one_thread
def fit(
    counts: sparse.csr_matrix,
    labels: npt.NDArray[np.bool_],
    *,
    l2: float = 0.0,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> Fit:
    """Logistic regression as Spark's: the mean log loss + l2/2 · Σ (weight · σ)², by L-BFGS.

    σ is the standard deviation of a feature. The search runs over weight · σ and over centred features, without
    ever making the matrix dense: a word that is in every text and one that is rare then have the same scale, and the
    search is short. Without `l2` this alters the path only, not the optimum; with it, it also alters what is penalised.
    Features that never vary get weight 0. The search starts at weights 0 and the odds of the labels.

    Shapes   counts (n_texts, n_features) sparse; labels (n_texts,), of both kinds.
    Source   Spark's LogisticRegression with standardization = true, elasticNetParam = 0. Its convergence test is
             another one, so that after few iterations the numbers differ.
    """
    n = counts.shape[0]
    target = labels.astype(np.float64)
    n_features = counts.shape[1]
    seen = np.unique(counts.indices)
    sums = np.bincount(counts.indices, counts.data, n_features)[seen]
    spread = n * np.bincount(counts.indices, counts.data**2, n_features)[seen] - sums**2
    varies = spread > 0  # of whole numbers, so exactly 0 for a feature that never varies
    per_sigma = np.zeros(len(seen))
    per_sigma[varies] = np.sqrt(n * (n - 1.0) / spread[varies])
    mean = sums / n
    position = np.zeros(n_features, dtype=np.int32)
    position[seen] = np.arange(len(seen))
    counts = sparse.csr_matrix((counts.data, position[counts.indices], counts.indptr), shape=(n, len(seen)))
    transposed = counts.T

    def objective(point: Weights) -> tuple[float, Weights]:
        scaled, weights = point[:-1], point[:-1] * per_sigma
        margins = counts @ weights + (point[-1] - mean @ weights)
        residual = (special.expit(margins) - target) / n
        loss = float(np.mean(np.logaddexp(0.0, margins) - target * margins))
        slope = (transposed @ residual - mean * residual.sum()) * per_sigma + l2 * scaled
        return loss + l2 / 2 * float(scaled @ scaled), np.append(slope, residual.sum())

    start = np.zeros(len(seen) + 1)
    start[-1] = math.log(target.sum() / (n - target.sum()))
    point, loss, about = optimize.fmin_l_bfgs_b(
        objective, start, m=10, factr=tolerance / np.finfo(float).eps, pgtol=tolerance, maxiter=max_iterations
    )
    weights = np.zeros(n_features)
    weights[seen] = point[:-1] * per_sigma
    intercept = float(point[-1] - mean @ weights[seen])
    return Fit(weights, intercept, int(about["nit"]), float(loss), about["warnflag"] == 0)


class _Sample(NamedTuple):
    rows: dict[bytes, tuple[Indices, Counts]]  # by the text's digest
    seen: int


def _sampled(texts: Iterable[str], most: int, seed: int) -> _Sample:
    """The `most` different texts with the smallest hashes."""
    rows: dict[bytes, tuple[Indices, Counts]] = {}
    largest_first: list[tuple[float, bytes]] = []
    seen = 0
    for text in texts:
        seen += 1
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        key = (-unit_hash(digest.hex(), seed), digest)
        if digest in rows or (len(rows) == most and key < largest_first[0]):
            continue
        if len(rows) == most:
            del rows[heapq.heappop(largest_first)[1]]
        heapq.heappush(largest_first, key)
        rows[digest] = features(text)
    return _Sample(rows, seen)


def _divided(sample: _Sample, heldout_frac: float, seed: int) -> tuple[list[Any], list[Any]]:
    """The rows to train on and those to hold out, at least one of either, in the order of a hash."""
    order = sorted(sample.rows, key=lambda digest: (unit_hash(f"heldout {digest.hex()}", seed), digest))
    n_heldout = min(max(round(heldout_frac * len(order)), 1), len(order) - 1)
    rows = [sample.rows[digest] for digest in order]
    return rows[n_heldout:], rows[:n_heldout]


def _stacked(
    positives: Sequence[tuple[Indices, Counts]], negatives: Sequence[tuple[Indices, Counts]]
) -> tuple[sparse.csr_matrix, npt.NDArray[np.bool_]]:
    rows = [*positives, *negatives]
    ends = np.cumsum([0, *(len(indices) for indices, _ in rows)])
    values = np.concatenate([counts for _, counts in rows]).astype(np.float64)
    columns = np.concatenate([indices for indices, _ in rows]).astype(np.int32)
    labels = np.arange(len(rows)) < len(positives)
    return sparse.csr_matrix((values, columns, ends), shape=(len(rows), N_FEATURES)), labels


# ----------------------------------------------------------------------------------------------------- measuring


def measured(margins: Scores, labels: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """How well margins (log odds) tell positives from negatives, as plain data.

    AUC is the probability that a positive scores above a negative, ties counting half. Precision is 0 where nothing
    scores above 0.5.

    Shapes   margins (n,), labels (n,).
    """
    scores = special.expit(margins)
    chosen = scores > 0.5
    true_positives, false_positives = int((chosen & labels).sum()), int((chosen & ~labels).sum())
    false_negatives, true_negatives = int((~chosen & labels).sum()), int((~chosen & ~labels).sum())
    precision = true_positives / max(true_positives + false_positives, 1)
    recall = true_positives / max(true_positives + false_negatives, 1)
    ascending = np.sort(margins[~labels])
    below = np.searchsorted(ascending, margins[labels], "left") + np.searchsorted(ascending, margins[labels], "right")
    edges = np.linspace(0, 1, BINS + 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "auc": float(below.mean() / (2 * len(ascending))),
        "log_loss": float(np.mean(np.logaddexp(0.0, np.where(labels, -margins, margins)))),
        "confusion": {
            "true_positives": true_positives,
            "false_positives": false_positives,
            "false_negatives": false_negatives,
            "true_negatives": true_negatives,
        },
        "saturated_frac": float(np.mean((scores < 0.01) | (scores > 0.99))),
        "histogram": {
            "edges": edges.tolist(),
            "positives": np.histogram(scores[labels], edges)[0].tolist(),
            "negatives": np.histogram(scores[~labels], edges)[0].tolist(),
        },
    }


def kept_fraction(scores: Scores, alphas: Sequence[float] = ALPHAS) -> list[float]:
    """The fraction of documents with these scores that the draw keeps on average, for each alpha.

    Example  >>> kept_fraction(np.array([1.0, 0.0]), [1.0, 9.0])
             [0.75, 0.5009765625]
    """
    return [float(np.mean((2.0 - scores) ** -alpha)) for alpha in alphas]


@_one_thread
def calibrate_alpha(positive_scores: Scores, raw_scores: Scores, alphas: Sequence[float] = ALPHAS) -> dict[str, Any]:
    """Which alpha lets the kept documents score most like the positives, and what each alpha would do.

    GPT-3 chose alpha "to match the distribution of scores of the classifier on WebText". Here each raw document weighs
    as much as it is likely to be kept, which is the distribution after the draw without its noise, and the distance
    to the positives' distribution is the area between the two cumulative curves (the first Wasserstein distance): by
    how much scores would have to move, on average, to turn one into the other. A small alpha keeps what scores low,
    a large one only the very best, so one in between is nearest. Take scores of documents not trained on.

    Returns plain data for JSON: "alpha", the nearest one, the smallest if several are; "at_limit", whether it is the
    first or last of `alphas`, so that the best may lie beyond; "rows", each with alpha, kept_frac, distance and
    mean_score; "histogram" with edges and the fractions of positives, raw and kept documents.

    Shapes   positive_scores (n,), raw_scores (m,), both in [0, 1].
    Source   Brown 2020, App. A. The distance is ours; the paper names none.
    Raises   UserError when there are no scores, or one is outside [0, 1].
    """
    for name, scores in (("positives", positive_scores), ("raw documents", raw_scores)):
        if not len(scores) or not ((scores >= 0) & (scores <= 1)).all():
            what = "a score outside [0, 1]" if len(scores) else "no scores"
            raise UserError(f"alpha cannot be chosen: there is {what} among the {name}.", "Score more documents.")
    positive, raw = np.sort(positive_scores), np.sort(raw_scores)
    points = np.sort(np.concatenate([positive, raw]))
    gaps = np.diff(points)
    of_positives = np.searchsorted(positive, points[:-1], "right") / len(positive)
    n_below = np.searchsorted(raw, points[:-1], "right")
    rows = []
    for alpha, kept_frac in zip(alphas, kept_fraction(raw, alphas), strict=True):
        chances = (2.0 - raw) ** -alpha
        of_kept = np.append(0.0, np.cumsum(chances))[n_below] / chances.sum()
        rows.append(
            {
                "alpha": float(alpha),
                "kept_frac": kept_frac,
                "distance": float(np.abs(of_kept - of_positives) @ gaps),
                "mean_score": float(raw @ chances / chances.sum()),
            }
        )
    nearest = min(rows, key=lambda row: (row["distance"], row["alpha"]))["alpha"]
    edges = np.linspace(0, 1, BINS + 1)
    histograms = {
        "positives": np.histogram(positive, edges)[0] / len(positive),
        "raw": np.histogram(raw, edges)[0] / len(raw),
        "kept": np.histogram(raw, edges, weights=(2.0 - raw) ** -nearest)[0] / ((2.0 - raw) ** -nearest).sum(),
    }
    return {
        "alpha": nearest,
        "at_limit": nearest in (min(alphas), max(alphas)),
        "rows": rows,
        "histogram": {"edges": edges.tolist(), **{name: part.tolist() for name, part in histograms.items()}},
    }
