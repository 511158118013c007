"""ROUGE against what the Perl program ROUGE-1.5.5 printed, against the package rouge_score, and by hand."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.evals.rouge import Rouge, corpus, rouge_l, rouge_l_sum, rouge_n, tokens

# The texts that Google's package is held to ROUGE-1.5.5 with.
REFERENCES = (
    "ZfbCUIUuePaiLVUlCaUXxkpu XPeWing tUHfPMuZ',-Xd Y BrUgVJing M-HV.-DgdDaY.rFDJCRing Ht-LM EKBDXkME,yz'RBr q'wtion "
    "wIojNbN wL,b .a-'XdQggyFl jB-RPP'iyOIcUxer tKM L",
    "KsJdPByEtAor fE-Qg Dpdbring cw-WeFyu vC MoBL Xdn g wkvcEiGvKtion BDFhrpMtion psing sbKao Q m qiing LMmer "
    "HqqLFXe,XPY,J XsurkMer ,ed nB'wH'bWVHjWFEing tQ.saefZwJtKrTlixYpMMsJing UCAPwNHeYVjDing c T BUySKtion gMPfJpwGw "
    "p'NvxAoping eu pBwMBKV'I DNxqelhu,PHPxDEq,mtion SN",
    "NhETebUbBk'er WOvoHMTjSRizKgH'vHiing Xu,hWxfs VkNE QhgKiLHE -HidivzoM.dO anhtion jbLQiSGDTCsuhREebUaKM dv J dVN "
    "tmbOT",
    "vMR HDm,xOAetion D,tion HJtodT.mHl UIv-p VjWH'BdyWjnfGU-OjT aEMdFICyLWfQMtion wEMfdOKing AwkeKbO 'DxqNOHBH "
    "qKtVvm OYJl mM",
)
TEXTS = (
    "rFDJCRtion Ht-LM EKtDXkME,yz'RBr q'wer wrojNbN wL,b .a-'XdQggyFl jB-RPP'iyOIcUxi",
    "n cw-WeFyu vC MoBL Xdn g wkvcEiGvKtion BDFhrpMer pstion sbKao Q m qier LMmed HqqLFXe,XPY,J XsurkMeo ,ed "
    "nB'wH'bWVHjWFEer tQ.saefZwJtKrTlixYpMMNJtion UCAPwNHeYVjD",
    "xfs VkJE QhgKiLHE -HidivzoM.dO anhing jbLQiSGDTCsuhREebUaKM dv J",
    "VjWH'BdyWjnfGU-OjTNaEMdFICyLWfQMing wEMfdOKijg AwkeKbO 'DxqNO",
)
SUMMARIES = st.text("ab c.\n-", max_size=60)


def five_decimals(score):
    return [round(value, 5) for value in (score.recall, score.precision, score.f1)]


@pytest.mark.parametrize("stem", [False, True])
def test_the_first_text_scores_as_rouge_155_printed(stem):
    text, reference = TEXTS[0], REFERENCES[0]
    assert five_decimals(rouge_n(text, reference, 1, stem=stem)) == [0.40741, 0.68750, 0.51163]
    assert five_decimals(rouge_n(text, reference, 2, stem=stem)) == [0.30769, 0.53333, 0.39024]
    assert five_decimals(rouge_l(text, reference, stem=stem)) == [0.40741, 0.68750, 0.51163]


def test_the_second_text_scores_as_rouge_155_printed():
    text, reference = TEXTS[1], REFERENCES[1]
    assert five_decimals(rouge_n(text, reference, 1)) == [0.40476, 0.65385, 0.50000]
    assert five_decimals(rouge_n(text, reference, 1, stem=True)) == [0.42857, 0.69231, 0.52941]
    for stem in (False, True):
        assert five_decimals(rouge_n(text, reference, 2, stem=stem)) == [0.29268, 0.48000, 0.36364]
    assert five_decimals(rouge_l(text, reference)) == [0.40476, 0.65385, 0.50000]


def test_a_summary_of_several_lines_scores_as_rouge_155_printed():
    score = rouge_l_sum("\n".join(TEXTS) + "\n", "\n".join(REFERENCES) + "\n", stem=True)
    assert five_decimals(score) == [0.36538, 0.66667, 0.47205]


def test_the_union_of_subsequences_is_that_of_the_paper():
    """Lin 2004 §3.2: w1 w2 with one sentence, w1 w3 w5 with the other; together four of five words."""
    score = rouge_l_sum("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5")
    assert score == pytest.approx((0.4, 0.8, 0.8 * 0.4 * 2 / 1.2))


def test_a_word_is_not_counted_more_often_than_it_was_said():
    # both lines of the reference find "cat" in the text, which says it once
    assert rouge_l_sum("cat", "cat sat\ncat ran").recall == 1 / 4


@pytest.mark.parametrize("score", [lambda a, b: rouge_n(a, b, 1), lambda a, b: rouge_n(a, b, 2), rouge_l, rouge_l_sum])
@pytest.mark.parametrize(("text", "reference"), [("", "w1 w2"), ("w1 w2", ""), ("", ""), ("/", "w1 w2"), ("été", "…")])
def test_nothing_said_or_wanted_scores_zero(score, text, reference):
    assert score(text, reference) == (0, 0, 0)


def test_only_words_of_more_than_three_letters_lose_their_endings():
    assert tokens("ties tied dies running news", stem=True) == ("ti", "ti", "di", "run", "new")
    assert tokens("was his bed", stem=True) == ("was", "his", "bed")


def brute_force_subsequence(a, b):
    """The longest of all subsequences of a that b has."""
    for size in range(min(len(a), len(b)), 0, -1):
        if combinations(a, size) & combinations(b, size):
            return size
    return 0


def combinations(words, size):
    from itertools import combinations as all_of

    return set(all_of(words, size))


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_rouge_l_finds_the_longest_subsequence(a, b):
    score = rouge_l(" ".join(a), " ".join(b))
    longest = brute_force_subsequence(a, b)
    assert score.precision == longest / max(len(a), 1)
    assert score.recall == longest / max(len(b), 1)


@given(SUMMARIES, SUMMARIES)
def test_scores_stay_in_0_to_1_and_sides_swap_precision_and_recall(text, reference):
    for score in (lambda a, b: rouge_n(a, b, 2), rouge_l):
        here, there = score(text, reference), score(reference, text)
        assert here == pytest.approx((there.recall, there.precision, there.f1))
        assert all(0 <= value <= 1 for value in here)
    assert all(0 <= value <= 1 for value in rouge_l_sum(text, reference))


@given(SUMMARIES.filter(lambda text: tokens(text)))
def test_a_text_is_all_of_itself(text):
    assert rouge_n(text, text, 1) == rouge_l(text, text) == rouge_l_sum(text, text) == (1, 1, 1)


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_the_summary_form_of_one_line_is_the_plain_form(a, b):
    assert rouge_l_sum(" ".join(a), " ".join(b)) == rouge_l(" ".join(a), " ".join(b))


@settings(max_examples=300, deadline=None)  # the package takes seconds to import
@given(SUMMARIES | st.text(), SUMMARIES | st.text())
def test_scores_are_those_of_the_package_rouge_score(text, reference):
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"]).score(reference, text)
    ours = {
        "rouge1": rouge_n(text, reference, 1),
        "rouge2": rouge_n(text, reference, 2),
        "rougeL": rouge_l(text, reference),
        "rougeLsum": rouge_l_sum(text, reference),
    }
    for name, score in ours.items():
        assert score == pytest.approx(tuple(theirs[name]), abs=1e-12), name


def test_a_corpus_lies_between_its_extremes():
    """Three texts of which the third of all draws repeat one: quantiles are then known exactly."""
    scores = [Rouge(1, 1 / 3, 1 / 2), Rouge(0, 0, 0), Rouge(1, 1, 1)]
    low, mean, high = corpus(scores, confidence=0.9)
    assert low == pytest.approx((1 / 3, 1 / 9, 1 / 6))
    assert mean == pytest.approx((2 / 3, 4 / 9, 1 / 2))
    assert high == pytest.approx((1, 7 / 9, 5 / 6))


def test_the_interval_of_a_corpus_is_that_of_a_mean():
    rng = random.Random(0)
    scores = [Rouge(*(rng.random() for _ in range(3))) for _ in range(400)]
    low, mean, high = corpus(scores)
    for k in range(3):
        values = [score[k] for score in scores]
        centre = sum(values) / 400
        margin = 1.96 * (sum((value - centre) ** 2 for value in values) / 400 / 400) ** 0.5
        assert mean[k] == pytest.approx(centre)
        assert (low[k], high[k]) == pytest.approx((centre - margin, centre + margin), abs=0.1 * margin)
    assert corpus(scores) == (low, mean, high), "the same seed draws the same"
