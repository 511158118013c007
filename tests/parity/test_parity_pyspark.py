"""Apache Spark itself, on real text: the same words, features, MinHashes, and the same logistic regression."""

from __future__ import annotations

import os
import random
import shutil
import warnings

import numpy as np
import pytest
from scipy import sparse, special

from rein.text import quality, spark

N_FEW = 32  # features of a problem so small that the classes overlap, and the optimum exists without a penalty


@pytest.fixture(scope="module")
def session():
    pytest.importorskip("pyspark", reason="pyspark is not installed: it is 479 MB, so not among the dependencies")
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs Java, and there is none on this machine")
    from pyspark.sql import SparkSession

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyspark's own, and of sockets that it leaves to the collector
        settings = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.log.level": "ERROR"}
        settings |= {"spark.sql.shuffle.partitions": "1"}
        session = SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
        yield session
        session.stop()


@pytest.fixture(scope="module")
def texts(shared_data):
    """Paragraphs of WikiText-2, and random ones of characters that are easily got wrong."""
    wikitext = (shared_data / "text" / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    rng = random.Random(0)
    odd = "aBÇ中😀İΣσßẞȺK\u0307\u00a0\u0085\u001c\u2003\U00010400\U00010570\ua7c0 \t\n\v\f\r"
    found = ["", " a", "a  ", "Hello  world\tA\n\n b "]
    found += [line for line in wikitext.split("\n") if line.strip()][:400]
    found += ["".join(rng.choices(odd.replace("Σ", ""), k=rng.randrange(1, 40))) for _ in range(200)]
    found += ["".join(rng.choices("aBΣσ中 ", k=rng.randrange(1, 40))) for _ in range(200)]  # nothing inside a word
    return [text for text in found if len(spark.features(text)[0])]


@pytest.fixture(scope="module")
def frame(session, texts):
    from pyspark.ml.feature import Tokenizer

    rows = session.createDataFrame(list(enumerate(texts)), ["number", "text"])
    return Tokenizer(inputCol="text", outputCol="words").transform(rows).cache()


def test_words_are_the_same(frame, texts):
    for row, text in zip(frame.orderBy("number").collect(), texts, strict=True):
        assert row.words == spark.words(text)


def test_features_and_min_hashes_are_the_same(frame, texts):
    from pyspark.ml.feature import HashingTF, MinHashLSH

    hashed = HashingTF(inputCol="words", outputCol="features").transform(frame)
    lsh = MinHashLSH(inputCol="features", outputCol="hashes", numHashTables=10, seed=42).fit(hashed)
    for row, text in zip(lsh.transform(hashed).orderBy("number").collect(), texts, strict=True):
        indices, counts = spark.features(text)
        assert row.features.size == spark.N_FEATURES
        assert row.features.indices.tolist() == indices.tolist()
        assert row.features.values.tolist() == counts.tolist()
        assert [hash[0] for hash in row.hashes] == spark.min_hashes(indices, 10, 42).tolist()


def test_random_numbers_are_javas(session):
    rng = random.Random(1)
    for _ in range(200):
        seed, bound = (
            rng.randrange(-(2**63), 2**63),
            rng.choice([spark.HASH_PRIME - 1, 3 * 2**29, rng.randrange(3, 2**31)]),
        )
        if bound & (bound - 1):
            java = session._jvm.java.util.Random(seed)
            assert spark.next_ints(seed, bound, 5) == [java.nextInt(bound) for _ in range(5)]


def test_every_lower_case_is_javas(session):
    if int(session._jvm.System.getProperty("java.specification.version")) not in (17, 18):
        pytest.skip("another Java than 17 and 18 has another Unicode than 13")
    # Spaces between them: a Σ alone is σ, whoever decides.
    text = " ".join(chr(code) for code in range(0x1F000) if not 0xD800 <= code < 0xE000)
    strings = session._jvm.org.apache.commons.lang3.StringUtils
    assert strings.lowerCase(text, session._jvm.java.util.Locale.ROOT) == spark.lower(text)


@pytest.mark.parametrize("l2", [0.01, 0.0])
def test_the_logistic_regression_is_the_same(session, frame, texts, l2):
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import HashingTF

    rng = np.random.default_rng(0)
    labels = rng.random(len(texts)) < 0.2 + 0.5 * (np.array([len(text) for text in texts]) > 200)
    labelled = session.createDataFrame([(i, float(label)) for i, label in enumerate(labels)], ["number", "label"])
    few = HashingTF(inputCol="words", outputCol="features", numFeatures=N_FEW)
    data = few.transform(frame).join(labelled, "number").orderBy("number").cache()
    model = LogisticRegression(regParam=l2, maxIter=300, tol=1e-12).fit(data)

    rows = [spark.features(text) for text in texts]
    counts = sparse.vstack([_few(indices, counts) for indices, counts in rows]).tocsr()
    ours = quality.fit(counts, labels, l2=l2, max_iterations=300, tolerance=1e-14)
    assert np.abs(ours.weights - model.coefficients.toArray()).max() < 1e-6
    assert abs(ours.intercept - model.intercept) < 1e-5
    theirs = np.array([row.probability[1] for row in model.transform(data).select("probability").collect()])
    assert np.abs(special.expit(counts @ ours.weights + ours.intercept) - theirs).max() < 1e-6


def _few(indices, counts):
    """A text's features folded to N_FEW, which divides their number: what HashingTF makes with numFeatures=N_FEW."""
    folded = np.bincount(indices % N_FEW, counts, N_FEW)
    return sparse.csr_matrix(folded[None])
