"""The quality filter: the classifier learns and is kept whole, the draw is numpy's Pareto, alpha is the nearest one."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special, stats

from rein.errors import UserError
from rein.text import quality, spark
from rein.text.documents import Document, Dropped
from rein.text.quality import Classifier, calibrate_alpha, fit, keep, keep_probability, kept_fraction, measured, train
from rein.text.split import split_by_id

SCORES = (1.0, 0.99, 0.9, 0.75, 0.5, 0.0)
GOOD = "the study of language shows how people learn words and what they mean by them"
BAD = "click here buy cheap now free shipping best price sale login the to and by"


def texts_of(words, n, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choices(words.split(), k=12)) + f" {i}" for i in range(n)]


@pytest.fixture(scope="module")
def trained():
    return train(texts_of(GOOD, 300, 0), texts_of(BAD, 400, 1), seed=0)


# The classifier.


@given(st.text("abc ÉΣ\n"), st.floats(-5, 5))
@settings(deadline=None)
def test_a_score_is_the_sigmoid_of_intercept_and_weights(text, intercept):
    weights = np.random.default_rng(0).normal(size=spark.N_FEATURES)
    margin = intercept + sum(weights[spark.feature(word)] for word in spark.words(text))
    assert Classifier(weights, intercept).score(text) == pytest.approx(float(special.expit(margin)), abs=1e-12)


@pytest.mark.parametrize(("intercept", "score"), [(1e4, 1.0), (-1e4, 0.0), (800.0, 1.0), (-800.0, 0.0)])
def test_extreme_odds_are_scores(intercept, score):
    assert Classifier(np.zeros(spark.N_FEATURES), intercept).score("a") == score


def test_it_comes_back_from_its_file_as_it_was(trained, tmp_path):
    classifier = trained[0]
    classifier.save(tmp_path / "quality.safetensors")
    again = Classifier.load(tmp_path / "quality.safetensors")
    texts = texts_of(f"{GOOD} {BAD}", 20, 5)
    assert again.sha256 == classifier.sha256
    assert again.scores(texts).tolist() == classifier.scores(texts).tolist() == [again.score(text) for text in texts]
    assert [path.name for path in tmp_path.iterdir()] == ["quality.safetensors"]


def flipped(data):
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def of_other_content(**changes):
    from safetensors.numpy import save

    def made(_):
        tensors = {"weights": np.zeros(spark.N_FEATURES), "intercept": np.zeros(1)}
        about = {"format": "rein-quality", "version": "1", "sha256": ""}
        for name, value in changes.items():
            (about if name in about else tensors)[name] = value
        return save(tensors, metadata=about)

    return made


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, "SHA-256"),
        (lambda data: data[:1000], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (of_other_content(format="other"), "no quality classifier"),
        (of_other_content(version="2"), "has version 2 of the format"),
        (of_other_content(weights=np.zeros(10)), "float64 weights"),
        (of_other_content(weights=np.zeros(spark.N_FEATURES, dtype=np.float32)), "float64 weights"),
    ],
)
def test_damage_is_said(trained, tmp_path, damage, message):
    path = tmp_path / "quality.safetensors"
    trained[0].save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        Classifier.load(path)


def test_a_missing_file_and_a_forbidden_folder_are_said(trained, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Classifier.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="cannot be written"):
        trained[0].save(tmp_path / "none" / "quality.safetensors")


# Training.


def test_it_learns_what_tells_the_classes_apart(trained):
    classifier, report = trained
    assert classifier.score("how people learn words") > 0.9
    assert classifier.score("buy cheap now") < 0.1
    assert report["heldout"]["auc"] > 0.99
    assert report["positives"] == {"seen": 300, "trained_on": 270, "heldout": 30}
    assert report["negatives"] == {"seen": 400, "trained_on": 360, "heldout": 40}
    assert sum(report["heldout"]["histogram"]["negatives"]) == 40
    assert json.loads(json.dumps(report)) == report


def test_neither_order_nor_repetition_counts(trained):
    positives, negatives = texts_of(GOOD, 300, 0), texts_of(BAD, 400, 1)
    classifier, report = train(positives[::-1] + positives[:50], random.Random(3).sample(negatives, 400), seed=0)
    assert classifier.sha256 == trained[0].sha256
    assert report["heldout"] == trained[1]["heldout"]
    assert report["positives"]["seen"] == 350
    assert train(positives, negatives, seed=1)[0].sha256 != classifier.sha256


def test_no_more_documents_than_allowed_and_the_same_ones():
    positives, negatives = texts_of(GOOD, 300, 0), texts_of(BAD, 400, 1)
    some, report = train(positives, negatives, max_documents=50, seed=0)
    assert report["positives"] == {"seen": 300, "trained_on": 45, "heldout": 5}
    assert train(positives[::-1], negatives[::-1], max_documents=50, seed=0)[0].sha256 == some.sha256


def test_held_out_texts_are_not_trained_on():
    # Labels without any sense: who has seen the texts knows them all, who has not is right half of the time.
    noise = [f"{i} {i + 5000} {i + 10_000}" for i in range(2000)]
    classifier, report = train(noise[:1000], noise[1000:], heldout_frac=0.3, seed=0)
    assert abs(report["heldout"]["auc"] - 0.5) < 0.08
    assert (classifier.scores(noise[:1000]) > 0.5).mean() > 0.65


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([], texts_of(BAD, 50, 0), "0 different texts among the positives"),
        (texts_of(GOOD, 50, 0), texts_of(BAD, 19, 0), "19 different texts among the negatives"),
        (texts_of(GOOD, 50, 0), ["same"] * 100, "1 different texts among the negatives"),
        (texts_of(GOOD, 50, 0), texts_of(GOOD, 50, 0)[::-1], "no difference to learn"),
    ],
)
def test_what_cannot_be_learnt_from_is_said(positives, negatives, message):
    with pytest.raises(UserError, match=message):
        train(positives, negatives, seed=0)


@pytest.mark.parametrize("l2", [0.0, 0.01, 1.0])
def test_the_fit_is_the_optimum(l2):
    """The slope of the objective, on a dense matrix, is 0 there; a feature that never varies has no part."""
    rng = np.random.default_rng(0)
    counts = rng.poisson([3.0, 0.5, 8.0, 1.0], size=(400, 4)).astype(float)
    counts[:, 3] = 2
    labels = rng.random(400) < special.expit(0.4 * counts[:, 0] - 0.9 * counts[:, 1] - 1)
    found = fit(sparse.csr_matrix(counts), labels, l2=l2, tolerance=1e-14)
    assert found.converged
    assert found.weights[3] == 0
    residual = special.expit(counts @ found.weights + found.intercept) - labels
    slope = residual @ counts / 400 + l2 * found.weights * counts.var(axis=0, ddof=1)
    assert np.abs(slope[:3]).max() < 1e-5
    assert abs(residual.mean()) < 1e-6
    loss = -np.log(np.where(labels, residual + labels, -residual + 1 - labels)).mean()
    assert found.loss == pytest.approx(loss + l2 / 2 * (found.weights**2 * counts.var(axis=0, ddof=1)).sum())


@given(st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=2))
@settings(deadline=None)
def test_measures_are_their_definitions(rows):
    margins, labels = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    if labels.all() or not labels.any():
        return
    found = measured(margins, labels)
    pairs = [(p > n) + (p == n) / 2 for p in margins[labels] for n in margins[~labels]]
    assert found["auc"] == pytest.approx(sum(pairs) / len(pairs))
    scores = 1 / (1 + np.exp(-margins))
    assert found["log_loss"] == pytest.approx(-np.mean(np.log(np.where(labels, scores, 1 - scores))))
    assert found["saturated_frac"] == np.mean([not 0.01 <= score <= 0.99 for score in scores])
    confusion = found["confusion"]
    assert sum(confusion.values()) == len(rows)
    assert confusion["true_positives"] == sum(margin > 0 and label for margin, label in rows)
    assert confusion["false_negatives"] == sum(margin <= 0 and label for margin, label in rows)
    if confusion["true_positives"]:
        assert found["recall"] == confusion["true_positives"] / labels.sum()
        assert found["precision"] == confusion["true_positives"] / (margins > 0).sum()
        assert 2 / found["f1"] == pytest.approx(1 / found["precision"] + 1 / found["recall"])
    else:
        assert found["precision"] == found["recall"] == found["f1"] == 0


# The draw.


@pytest.mark.parametrize("score", SCORES)
def test_documents_are_kept_as_often_as_the_law_says(score):
    n = 40_000
    kept = sum(keep(score, f"document {i}", 0) for i in range(n))
    expected = (2 - score) ** -9
    assert keep_probability(score) == pytest.approx(expected)
    assert abs(kept - n * expected) <= 4.5 * math.sqrt(n * expected * (1 - expected))


@pytest.mark.parametrize("alpha", [0.5, 9.0])
def test_draws_are_numpys_pareto(alpha):
    ours = [quality.pareto_draw(str(i), 0, alpha) for i in range(20_000)]
    numpys = np.random.default_rng(0).pareto(alpha, 20_000)
    assert stats.ks_2samp(ours, numpys).pvalue > 0.01
    assert min(ours) >= 0


def test_a_draw_belongs_to_the_document_and_the_seed():
    names = [f"document {i}" for i in range(2000)]
    draws = {name: keep(0.9, name, 0) for name in names}
    assert {name: keep(0.9, name, 0) for name in reversed(names)} == draws
    assert {name: keep(0.9, name, 1) for name in names} != draws


def test_a_hash_that_rounds_up_to_one_is_a_large_draw(monkeypatch):
    monkeypatch.setattr(quality, "unit_hash", lambda name, seed: 1.0)
    assert quality.pareto_draw("a", 0) > 100
    assert math.isfinite(quality.pareto_draw("a", 0, 0.5))


def test_held_out_documents_are_drawn_as_others_are():
    names = [f"document {i}" for i in range(40_000)]
    heldout = [name for name in names if split_by_id(Document("", name, ""), 0.05, 0) == "heldout"]
    kept = sum(keep(0.9, name, 0) for name in heldout)
    expected = 1.1**-9
    assert abs(kept - len(heldout) * expected) < 4.5 * math.sqrt(len(heldout) * expected * (1 - expected))


def test_the_step_keeps_with_the_score_or_drops_with_the_reason(trained):
    good = Document("how people learn words", "a", "crawl", url="http://a", metadata={"language": "en"})
    kept = quality.keep_quality(good, trained[0], seed=0)
    score = f"{trained[0].score(good.text):.6f}"
    assert kept == Document(good.text, "a", "crawl", "http://a", "", {"language": "en", "quality": score})
    assert good.metadata == {"language": "en"}
    bad = Document("buy cheap now", "a", "crawl")
    assert quality.keep_quality(bad, trained[0], seed=0) == Dropped("a", "low quality")
    # So small an alpha keeps nearly everything.
    assert isinstance(quality.keep_quality(bad, trained[0], alpha=1e-6, seed=0), Document)


# Alpha.


def test_kept_fractions_are_the_means_of_the_law():
    scores = np.array(SCORES)
    expected = [np.mean([1 / (2 - score) ** alpha for score in SCORES]) for alpha in (0.5, 3, 9)]
    assert kept_fraction(scores, (0.5, 3, 9)) == pytest.approx(expected)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
)
@settings(deadline=None)
def test_distances_are_wasserstein(positives, raw):
    for row in calibrate_alpha(np.array(positives), np.array(raw), (0.5, 9.0))["rows"]:
        chances = [(2 - score) ** -row["alpha"] for score in raw]
        expected = stats.wasserstein_distance(positives, raw, v_weights=chances)
        assert row["distance"] == pytest.approx(expected, abs=1e-9)
        assert row["mean_score"] == pytest.approx(np.average(raw, weights=chances))


@pytest.mark.parametrize("alpha", [2.0, 9.0, 13.0])
def test_the_alpha_that_made_the_positives_is_found(alpha):
    """Positives are raw documents that passed the draw of `alpha`, so that one must be nearest."""
    raw = np.random.default_rng(0).random(20_000)
    passed = np.array([score for i, score in enumerate(raw) if keep(score, str(i), 7, alpha)])
    found = calibrate_alpha(passed, raw)
    assert abs(found["alpha"] - alpha) <= 1
    assert not found["at_limit"]
    histogram = found["histogram"]
    assert all(sum(histogram[name]) == pytest.approx(1) for name in ("positives", "raw", "kept"))
    assert np.abs(np.subtract(histogram["kept"], histogram["positives"])).sum() < 0.2
    assert json.loads(json.dumps(found)) == found


def test_an_alpha_at_the_end_of_the_list_is_marked():
    raw = np.linspace(0, 1, 101)
    assert calibrate_alpha(np.ones(5), raw)["at_limit"]
    assert calibrate_alpha(np.zeros(5), raw)["alpha"] == 0.5


@pytest.mark.parametrize(
    ("positives", "raw", "message"),
    [
        ([], [0.5], "no scores among the positives"),
        ([0.5], [1.5], r"a score outside \[0, 1\] among the raw documents"),
        ([float("nan")], [0.5], "a score outside"),
    ],
)
def test_scores_that_are_none_are_refused(positives, raw, message):
    with pytest.raises(UserError, match=message):
        calibrate_alpha(np.array(positives), np.array(raw))
