"""ROUGE: how much of a reference summary another summary says, in words, pairs of words, and common subsequences.

Flow     text, reference → tokens → hits → (precision, recall, F1); many of those → means with 95% intervals

Tokens are the runs of a–z and 0–9 of the lower-cased text, so that letters with accents part words, as they do in the
original. With `stem`, words of more than three letters lose their endings first.
Source   Lin 2004; the program ROUGE-1.5.5, to whose printed five decimals this is held.
Differs  Stems are Porter's as published in 1980. The package rouge_score takes NLTK's variant of them, which writes
         "dying" as "die"; without stems both are the same. There is one reference, and α = ½.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import snowballstemmer

DRAWS = 1000  # of the bootstrap, as in ROUGE-1.5.5

Tokens = tuple[str, ...]


class Rouge(NamedTuple):
    """Precision: of what is said, how much the reference says. Recall: of the reference, how much is said."""

    precision: float
    recall: float
    f1: float


def rouge_n(text: str, reference: str, n: int, *, stem: bool = False) -> Rouge:
    """ROUGE-N: n-grams that both have, each as often as the rarer side has it.

        hits = Σ_gram min(count in text, count in reference);   P = hits / grams of text,   R = hits / of reference

    Example  >>> rouge_n("the cat sat", "the cat sat on the mat", 1)
             Rouge(precision=1.0, recall=0.5, f1=0.6666666666666666)
    Source   Lin 2004 §2.
    """
    said, wanted = _grams(tokens(text, stem=stem), n), _grams(tokens(reference, stem=stem), n)
    return _rouge((said & wanted).total(), said.total(), wanted.total())


def rouge_l(text: str, reference: str, *, stem: bool = False) -> Rouge:
    """ROUGE-L of whole texts: the longest common subsequence of their words.

    Example  >>> rouge_l("police ended the gunman", "police killed the gunman").f1
             0.75
    Source   Lin 2004 §3.1.
    """
    said, wanted = tokens(text, stem=stem), tokens(reference, stem=stem)
    return _rouge(len(_subsequence(wanted, said)), len(said), len(wanted))


def rouge_l_sum(text: str, reference: str, *, stem: bool = False) -> Rouge:
    """ROUGE-L of summaries, one sentence a line: what ROUGE-1.5.5 prints as ROUGE-L.

    Of each sentence of the reference, the words count that are in a longest common subsequence with any sentence of
    the text; a word no more often than each side has it.

    Example  >>> rouge_l_sum("w1 w2 w6 w7 w8\\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5")[:2]
             (0.4, 0.8)
    Source   Lin 2004 §3.2, with the clipped counts of ROUGE-1.5.5.
    """
    said = [tokens(line, stem=stem) for line in text.split("\n")]
    wanted = [tokens(line, stem=stem) for line in reference.split("\n")]
    hits = Counter[str]()
    for sentence in wanted:
        union = set[int]().union(*(_subsequence(sentence, other) for other in said))
        hits.update(sentence[i] for i in union)
    said_counts, wanted_counts = (Counter(word for line in side for word in line) for side in (said, wanted))
    return _rouge((hits & said_counts & wanted_counts).total(), said_counts.total(), wanted_counts.total())


def corpus(scores_N: Sequence[Rouge], *, confidence: float = 0.95, seed: int = 0) -> tuple[Rouge, Rouge, Rouge]:
    """(low, mean, high) of many texts' scores, by a bootstrap over the texts.

    Example  >>> low, mean, high = corpus([Rouge(0, 0, 0), Rouge(1, 1 / 2, 2 / 3), Rouge(1, 1, 1)])
             >>> low.recall, mean.recall, high.recall
             (0.0, 0.5, 1.0)
    Source   ROUGE-1.5.5, option -c; its middle is the bootstrap's mean, this one the scores' own.
    """
    scores_N3 = np.asarray(scores_N, dtype=float)
    rng = np.random.default_rng(seed)
    drawn_D3 = np.stack([rng.choice(scores_N3, len(scores_N3)).mean(0) for _ in range(DRAWS)])
    low, high = np.quantile(drawn_D3, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0).tolist()
    return Rouge(*low), Rouge(*scores_N3.mean(0).tolist()), Rouge(*high)


@lru_cache(maxsize=1 << 12)
def tokens(text: str, *, stem: bool = False) -> Tokens:
    """The words of a text as ROUGE sees them.

    Example  >>> tokens("The U.S. dogs' naïve running", stem=True)
             ('the', 'u', 's', 'dog', 'na', 've', 'run')
    """
    words = re.findall("[a-z0-9]+", text.lower())
    return tuple(_stem(word) if stem and len(word) > 3 else word for word in words)


# ------------------------------------------------------------------------------------------------------ inside


_PORTER = snowballstemmer.stemmer("porter")


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return str(_PORTER.stemWord(word))


def _rouge(hits: int, said: int, wanted: int) -> Rouge:
    precision, recall = hits / max(said, 1), hits / max(wanted, 1)
    return Rouge(precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0)


def _grams(words: Tokens, n: int) -> Counter[Tokens]:
    return Counter(words[i : i + n] for i in range(len(words) - n + 1))


def _subsequence(wanted: Tokens, said: Tokens) -> list[int]:
    """Positions in `wanted` of one longest common subsequence.

    Where several are as long, which one it is decides the union of `rouge_l_sum`: from the end backwards, a word of
    `wanted` is given up before one of `said`, as in ROUGE-1.5.5.
    """
    length = [[0] * (len(said) + 1)]
    for word in wanted:
        above, row = length[-1], [0]
        for j, other in enumerate(said):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        length.append(row)
    found, i, j = list[int](), len(wanted), len(said)
    while i and j:
        if wanted[i - 1] == said[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif length[i][j - 1] > length[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return found
