"""Whether a written answer is one that people gave: the rules of the data sets' own evaluation scripts.

Flow     what a model wrote, the answers of people → 0 … 1

Two texts are compared by what is left of them after a normalisation: whole (exact match), or word by word (F1). Where
several people answered, the best of their answers counts; where the script says so, each person is left out in turn,
so that a model meets as many answers as a person would who is held against the others.

Source   Rajpurkar 2016 and 2018 (SQuAD 1.1, 2.0), Joshi 2017 (TriviaQA), Reddy 2019 (CoQA), Choi 2018 (QuAC),
         Dua 2019 (DROP), Zhang 2018 (ReCoRD, which takes SQuAD's rules).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Compare = Callable[[str, str], float]  # (written, answer) → 0 … 1

SPAN_SEPARATOR = "; "  # between the parts of one answer of DROP that names several things
NO_ANSWER = "CANNOTANSWER"  # QuAC's word for it
LEAST_AGREEMENT = 0.4  # of the people who answered a question of QuAC; below it, the question is left out

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[-−+]?(\d[\d,]*(\.\d+)?|\.\d+)")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE_PUNCTUATION = str.maketrans({mark: " " for mark in string.punctuation + "‘’´`"})


# ------------------------------------------------------------------------------------------------- exact match


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, single spaces.

    Example  >>> normalise("  The U.S. Army's a-b ")
             'us armys ab'
    Source   SQuAD's evaluation script.
    """
    return _words_only(text.lower().translate(_DROP_PUNCTUATION))


def normalise_trivia(text: str) -> str:
    """`normalise`, but punctuation, with typographic quotation marks, becomes a space.

    Example  >>> normalise_trivia("The U.S. Army’s a-b")
             'u s army s b'
    Source   TriviaQA's evaluation script.
    """
    return _words_only(text.lower().translate(_SPACE_PUNCTUATION))


def same(text: str, answer: str) -> float:
    """1 where both texts are the same after `normalise`.

    Example  >>> same("the Normans.", "Normans"), same("Norman", "Normans")
             (1.0, 0.0)
    """
    return float(normalise(text) == normalise(answer))


def same_trivia(text: str, answer: str) -> float:
    """1 where both texts are the same after `normalise_trivia`."""
    return float(normalise_trivia(text) == normalise_trivia(answer))


def same_or_equal(text: str, answer: str) -> float:
    """1 where both texts are the same after `normalise`, or, of an answer that is a number, the same number.

    SQuAD's rule alone would take 38 for −38, and 15 for 1.5: to it, a sign and a point are punctuation.

    Example  >>> same_or_equal("1,430.", "1430"), same_or_equal("38", "-38"), same_or_equal(" Casino", "casino")
             (1.0, 0.0, 1.0)
    """
    number = _number(answer)
    return same(text, answer) if number is None else float(_number(text) == number)


# -------------------------------------------------------------------------------------------------- F1 of words


def f1(text: str, answer: str) -> float:
    """Overlap of two texts as bags of words; where one is empty after `normalise`, 1 if both are, else 0.

        P = |common| / |text|,   R = |common| / |answer|,   F1 = 2 P R / (P + R)

    Example  >>> f1("the Duke of Normandy", "Normandy")
             0.5
    Source   SQuAD 2.0's evaluation script.
    """
    words, right = normalise(text).split(), normalise(answer).split()
    if not words or not right:
        return float(words == right)
    return 2 * (Counter(words) & Counter(right)).total() / (len(words) + len(right))


# --------------------------------------------------------------------------------------------- several answers


def best(compare: Compare, text: str, answers: Sequence[str]) -> float:
    """The best of the answers.

    Example  >>> best(f1, "Duke of Normandy", ["Rollo", "Normandy"])
             0.5
    """
    return max(compare(text, answer) for answer in answers)


def leave_one_out(compare: Compare, text: str, answers: Sequence[str]) -> float:
    """The mean, over the people, of the best of the other people's answers; one answer alone counts itself.

    Example  >>> leave_one_out(same, "yes", ["yes", "no", "no"])
             0.6666666666666666
    Source   The evaluation scripts of CoQA and QuAC.
    """
    if len(answers) == 1:
        return compare(text, answers[0])
    each = [compare(text, answer) for answer in answers]
    return sum(max(each[:i] + each[i + 1 :]) for i in range(len(each))) / len(each)


def quac_f1(text: str, answers: Sequence[str]) -> float | None:
    """F1 with each person left out in turn; None where people agree too little for the question to count.

    Where at least half of the people found no answer, that is the answer; else their "no answer" is left aside.

    Example  >>> quac_f1("in 1972", ["1972", "in 1972", "CANNOTANSWER"]).__round__(4)
             0.8333
             >>> quac_f1("in 1972", ["in May", "1972"]) is None
             True
    Source   QuAC's evaluation script: human F1 of at least 0.4.
    """
    spans = [answer for answer in answers if answer != NO_ANSWER]
    counted = spans if len(spans) > len(answers) / 2 else [NO_ANSWER]
    if len(counted) > 1:
        agreement = [best(f1, own, counted[:i] + counted[i + 1 :]) for i, own in enumerate(counted)]
        if sum(agreement) / len(agreement) < LEAST_AGREEMENT:
            return None
    return leave_one_out(_f1_or_none, text.strip(), counted)


# -------------------------------------------------------------------------------------------------------- DROP


def drop_scores(text: str, answers: Sequence[str]) -> tuple[float, float]:
    """The best exact match and the best F1 with any of the answers, each of which may name several things.

    Words are sets, not bags; numbers are compared as numbers, and of two texts that share none of the answer's
    numbers F1 is 0. The things that each side names are matched one to one so that the sum of their F1 is largest;
    F1 is the mean over the longer side, rounded to two decimals.

    Shapes   an answer of several things joins them by `SPAN_SEPARATOR`; so may the text.
    Example  >>> drop_scores("3 yards", ["3"]), drop_scores("4 yards", ["3"]), drop_scores("3.0", ["3"])
             ((0.0, 0.67), (0.0, 0.0), (1.0, 1.0))
             >>> drop_scores("the Bears", ["Bears; Packers"])
             (0.0, 0.5)
    Source   DROP's evaluation script.
    """
    scores = [_drop_one(text.split(SPAN_SEPARATOR), answer.split(SPAN_SEPARATOR)) for answer in answers]
    return max(exact for exact, _ in scores), max(overlap for _, overlap in scores)


# ------------------------------------------------------------------------------------------------------ inside


def _words_only(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text).split())


def _number(text: str) -> float | None:
    """The number that a text is, a full stop behind it aside."""
    text = text.strip().removesuffix(".")
    return float(text.replace(",", "").replace("−", "-")) if _NUMBER.fullmatch(text) else None


def _f1_or_none(text: str, answer: str) -> float:
    """F1; no answer is right only as the exact word for it."""
    return float(text == answer) if NO_ANSWER in (text, answer) else f1(text, answer)


def _drop_one(text_spans: Sequence[str], answer_spans: Sequence[str]) -> tuple[float, float]:
    texts, answers = [_drop_normalise(s) for s in text_spans], [_drop_normalise(s) for s in answer_spans]
    exact = float(set(texts) == set(answers) and len(texts) == len(answers))
    f1_AT = np.array([[_drop_f1(set(text.split()), set(answer.split())) for text in texts] for answer in answers])
    matched = f1_AT[linear_sum_assignment(f1_AT, maximize=True)]
    return exact, round(float(matched.sum()) / max(len(texts), len(answers)), 2)


def _drop_f1(words: set[str], right: set[str]) -> float:
    numbers = {word for word in right if _is_float(word)}
    if numbers and not numbers & words:
        return 0.0
    common = len(words & right)
    precision = common / len(words) if words else 1.0
    recall = common / len(right) if right else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _drop_normalise(text: str) -> str:
    """`normalise` word by word, hyphens parting words; a number keeps its point and is written as a float."""
    words = []
    for word in re.split("[ -]", text.lower()):
        word = word if _is_float(word) else word.translate(_DROP_PUNCTUATION)
        words.append(_words_only(str(float(word)) if _is_float(word) else word))
    return " ".join(filter(None, words))


def _is_float(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
