"""How fast `rein.text.quality` scores text, against Python with mmh3 and scikit-learn's HashingVectorizer, on one core.

    python benchmarks/classifier_speed.py              20 MB
    python benchmarks/classifier_speed.py --mb 5       a first impression

The text is the documentation that installed packages carry (`rein.text.pydocs`), several documents joined to one of
4 kB, about a web page; then the same with one character outside of ASCII each, as web pages have. All score with one
set of weights, and scores must agree to 9 decimals, or the benchmark fails. scikit-learn has another hash sign and
layout, so its features are not ours: only its speed counts, and it is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import sys
import time
from collections.abc import Callable, Sequence

import mmh3
import numpy as np

from rein.text import spark
from rein.text.documents import Document
from rein.text.pydocs import PyDocs
from rein.text.quality import Classifier
from rein.text.recipe import Source

PAGE_BYTES = 4_000
TARGET_MB_PER_S = 100.0
TARGET_RATIO = 5.0

Scorer = Callable[[Sequence[str]], np.ndarray]


def collect(n_bytes: int) -> list[str]:
    """Pages of documentation, `n_bytes` in all or what there is."""
    pages, page, size = [], "", 0
    source = PyDocs(Source(name="pydocs", kind="pydocs"))
    documents = (item for partition in source.partitions() for item in source.read(partition, lambda done_bytes: None))
    for document in documents:
        if isinstance(document, Document):
            page += document.text + "\n\n"
            if len(page) >= PAGE_BYTES:
                pages.append(page)
                size += len(page.encode())
                page = ""
        if size >= n_bytes:
            break
    return pages


def with_mmh3(classifier: Classifier) -> Scorer:
    """The same model, word by word: a dictionary from words to weights, mmh3 for words not met before."""
    weights = classifier.weights.tolist()
    weight_of: dict[str, float] = {}

    def score(text: str) -> float:
        margin = classifier.intercept
        for word in spark.words(text):
            weight = weight_of.get(word)
            if weight is None:
                weight = weight_of[word] = weights[mmh3.hash(word.encode(), spark.MURMUR_SEED) % spark.N_FEATURES]
            margin += weight
        return 1 / (1 + math.exp(-margin))

    return lambda texts: np.array([score(text) for text in texts])


def with_scikit_learn(classifier: Classifier) -> Scorer | None:
    """HashingVectorizer in batches, and a product with the weights; None where it is not installed."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError:
        return None
    vectorizer = HashingVectorizer(
        n_features=spark.N_FEATURES, token_pattern=r"[^ \t\n\v\f\r]+", norm=None, alternate_sign=False
    )

    def score(texts: Sequence[str]) -> np.ndarray:
        parts = [
            vectorizer.transform(texts[i : i + 1000]) @ classifier.weights + classifier.intercept
            for i in range(0, len(texts), 1000)
        ]
        return 1 / (1 + np.exp(-np.concatenate(parts)))

    return score


def best_s(scorer: Scorer, texts: Sequence[str], repeat: int) -> tuple[float, np.ndarray]:
    """CPU seconds of the fastest of some runs, and the scores."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        scores = scorer(texts)
        times.append(time.process_time() - start)
    return min(times), scores


def main() -> int:
    """The table and the verdict; 1 where a target is missed or scores differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=20, help="megabytes of text (default: 20)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, the best counts (default: 3)")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    # So small that no score is 0 or 1: then a difference would be seen.
    classifier = Classifier(np.random.default_rng(0).normal(scale=0.05, size=spark.N_FEATURES), 0.1)
    plain = collect(int(options.mb * 1e6))
    peer, other = f"Python, mmh3 {importlib.metadata.version('mmh3')}", with_scikit_learn(classifier)
    scorers = {"rein": classifier.scores, peer: with_mmh3(classifier)}
    if other is not None:
        scorers[f"scikit-learn {importlib.metadata.version('scikit-learn')}"] = other
    classifier.score("warm")
    good = True
    mb = sum(len(text.encode()) for text in plain) / 1e6
    print(f"{len(plain):,} pages, {mb:.1f} MB, Python {sys.version.split()[0]}, one core", flush=True)
    for title, texts in (("as it is", plain), ("one ’ in each", [f"{text}’" for text in plain])):
        found = {name: best_s(scorer, texts, options.repeat) for name, scorer in scorers.items()}
        seconds, scores = found["rein"]
        print(f"\n{title:<24}{'CPU s':>8}{'MB/s':>8}{'rein is':>13}  same")
        for name, (peer_s, theirs) in found.items():
            same = "-" if "scikit" in name else "yes" if np.abs(theirs - scores).max() < 1e-9 else "NO"
            good &= same != "NO"
            print(f"{name:<24}{peer_s:>8.3f}{mb / peer_s:>8.1f}{peer_s / seconds:>7.1f} times  {same}")
        good &= mb / seconds >= TARGET_MB_PER_S and found[peer][0] / seconds >= TARGET_RATIO
    if other is None:
        print("\nscikit-learn is not installed, so it is left out")
    print(f"targets: {TARGET_MB_PER_S:.0f} MB/s, {TARGET_RATIO:.0f} times {peer}: {'met' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
