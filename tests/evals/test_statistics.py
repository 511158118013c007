"""Intervals that hold the truth as often as they say, p-values against exact ones, and the paper's own figure."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rein.evals.statistics import (
    Estimate,
    against_chance,
    holm,
    minimum_detectable,
    paired,
    paired_whole,
    summarise,
    verdict,
    whole,
    wilson,
)

TRIALS = 800  # of a simulation: a coverage of 95% is then known to ±1.5 points


def named(sizes):
    """Cluster names: the first size times "0", and so on."""
    return [str(i) for i, size in enumerate(sizes) for _ in range(size)]


def mean(items):
    return sum(items) / len(items)


def coverage(make, truth, of):
    """How often the interval of made data holds the truth."""
    rng = np.random.default_rng(0)
    estimates = [of(make(rng)) for _ in range(TRIALS)]
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


# ------------------------------------------------------------------------------------------- one model's score


def test_anli_r3_has_the_standard_deviation_that_the_paper_gives_it():
    """Brown 2020 §3.8: 1,500 examples of the development set, "a standard deviation of 1.2%", at scores near 1/3."""
    estimate = summarise([1] * 510 + [0] * 990)
    assert (estimate.high - estimate.low) / (2 * 1.96) == pytest.approx(0.012, abs=0.0005)


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (3, 10), (1, 500), (41, 104)])
def test_independent_right_and_wrong_answers_have_wilsons_interval(right, n):
    estimate = summarise([1] * right + [0] * (n - right))
    reference = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert wilson(right / n, n) == (estimate.low, estimate.high)
    assert estimate.effective_n == n


@pytest.mark.parametrize(("n", "p"), [(20, 0.5), (56, 0.9), (100, 0.25), (400, 0.05), (1500, 0.35)])
def test_the_interval_of_independent_answers_covers(n, p):
    held = coverage(lambda rng: (rng.random(n) < p) * 1.0, p, summarise)
    assert 0.93 <= held <= 0.975


@pytest.mark.parametrize(
    ("clusters", "size", "correlation", "p"),
    [(10, 10, 0.3, 0.5), (20, 10, 0.3, 0.5), (50, 5, 0.3, 0.25), (100, 7, 0.5, 0.9), (200, 3, 0.2, 0.05)],
)
def test_the_interval_of_clustered_answers_covers_where_the_plain_one_does_not(clusters, size, correlation, p):
    """Beta-binomial: a passage's own difficulty is drawn first, then its answers."""
    names = named([size] * clusters)
    a, b = p * (1 - correlation) / correlation, (1 - p) * (1 - correlation) / correlation

    def make(rng):
        return (rng.random(len(names)) < np.repeat(rng.beta(a, b, clusters), size)) * 1.0

    assert 0.93 <= coverage(make, p, lambda values: summarise(values, clusters=names)) <= 0.975
    assert coverage(make, p, summarise) < 0.925


def test_the_interval_covers_with_clusters_of_all_sizes():
    sizes = np.random.default_rng(1).integers(1, 15, 60)
    names = named(sizes)

    def make(rng):
        return (rng.random(len(names)) < np.repeat(rng.beta(1, 1, 60), sizes)) * 1.0

    assert 0.93 <= coverage(make, 0.5, lambda values: summarise(values, clusters=names)) <= 0.97


def test_the_interval_of_f1_values_covers():
    """F1 of free answers: many 0, the rest anywhere."""
    held = coverage(lambda rng: np.where(rng.random(80) < 0.6, 0.0, rng.random(80)), 0.2, summarise)
    assert 0.93 <= held <= 0.97


@pytest.mark.parametrize(
    ("draws", "n", "spread"), [(16, 640, 0.05), (16, 1600, 0.02), (64, 1600, 0.05), (4, 400, 0.05)]
)
def test_the_interval_covers_other_draws_of_the_shots(draws, n, spread):
    draw_N = (np.arange(n) % draws).tolist()

    def make(rng):
        return (rng.random(n) < 0.4 + spread * rng.standard_normal(draws)[draw_N]) * 1.0

    assert 0.93 <= coverage(make, 0.4, lambda values: summarise(values, draws=draw_N)) <= 0.98
    if spread == 0.05 and draws <= 16:
        assert coverage(make, 0.4, summarise) < 0.9


@pytest.mark.parametrize("nested", [True, False], ids=["a passage in one draw", "a passage in several"])
def test_the_interval_covers_other_passages_and_other_draws(nested):
    names = named([5] * 160)
    draw_N = (np.arange(800) // (5 if nested else 1) % 16).tolist()

    def make(rng):
        difficulty = np.repeat(rng.beta(2, 3, 160), 5)
        return (rng.random(800) < difficulty + 0.06 * rng.standard_normal(16)[draw_N]) * 1.0

    assert 0.93 <= coverage(make, 0.4, lambda values: summarise(values, clusters=names, draws=draw_N)) <= 0.98


def test_an_unbounded_mean_has_students_interval():
    values = np.random.default_rng(2).normal(3, 2, 40)
    estimate = summarise(values, bounded=False)
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high))


def test_clusters_of_an_unbounded_mean_by_hand():
    """Sums of deviations from 3: −3, −1, +4. V = (9 + 1 + 16) / 25 · 3/2, t of 2 degrees of freedom is 4.302653."""
    estimate = summarise([1, 2, 2, 5, 5], clusters=["a", "a", "b", "c", "c"], bounded=False)
    assert estimate.value == 3
    assert estimate.high == pytest.approx(3 + 4.302653 * math.sqrt((9 + 1 + 16) / 25 * 1.5), rel=1e-6)


def test_clusters_agree_with_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, 25)
    names = named(sizes)
    values = rng.normal(0, 1, len(names)) + np.repeat(rng.normal(0, 1, 25), sizes)
    fitted = api.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(names, dtype=int)}, use_t=True
    )
    estimate = summarise(values, clusters=names, bounded=False)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(fitted.conf_int()[0]), rel=1e-9)


def test_doubling_every_problem_doubles_n_and_not_what_is_known():
    values = (np.random.default_rng(4).random(200) < 0.3) * 1.0
    once, twice = summarise(values), summarise(np.repeat(values, 2), clusters=named([2] * 200))
    assert twice.n == 400
    assert twice.effective_n == pytest.approx(200, rel=0.01)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=0.001)


def test_a_problem_without_a_passage_stands_alone():
    values = [1, 0, 1, 1, 0, 1]
    assert summarise(values, clusters=[""] * 6) == summarise(values) == summarise(values, clusters=list("abcdef"))


def test_one_cluster_says_nothing_of_others():
    estimate = summarise([1, 0, 1], clusters=["a"] * 3)
    assert (estimate.low, estimate.high) == (0, 1)
    assert summarise([2.0, 5.0], clusters=["a"] * 2, bounded=False).high == math.inf


def test_clusters_that_are_all_right_count_once_each():
    estimate = summarise([1] * 50, clusters=named([10] * 5))
    assert estimate.low == pytest.approx(wilson(1.0, 5, stats.t.ppf(0.975, 4))[0])
    assert estimate.effective_n == 5


def test_the_spread_between_draws_is_that_of_an_analysis_of_variance():
    rng = np.random.default_rng(5)
    draws = [rng.normal(centre, 0.1, 30) for centre in (0.2, 0.5, 0.3, 0.6)]
    found = summarise(np.concatenate(draws), draws=np.repeat(range(4), 30).tolist(), bounded=False).draw_sd
    within = np.mean([draw.var(ddof=1) for draw in draws])
    ratio = stats.f_oneway(*draws).statistic
    assert found == pytest.approx(math.sqrt((ratio - 1) * within / 30))


def test_the_interval_over_draws_by_hand():
    """Two draws with 0, 2 and 4, 6: 16 between and 2 within give σ² = (16 − 2) / 2; t of one degree is 12.706205.

    V = (9 + 1 + 1 + 9) / 16 · 4/3 + 7 · (2² + 2² − 4 · 1²) / 16.
    """
    estimate = summarise([0, 2, 4, 6], draws=[5, 5, 9, 9], bounded=False)
    assert estimate.draw_sd == pytest.approx(math.sqrt(7))
    assert estimate.high - 3 == pytest.approx(12.706205 * math.sqrt(20 / 12 + 7 * 4 / 16), rel=1e-6)


def test_the_spread_between_draws_is_recovered_without_bias():
    rng = np.random.default_rng(6)
    draws = np.repeat(range(32), 50).tolist()
    squares = []
    for _ in range(300):
        values = 0.5 + 0.06 * rng.standard_normal(32)[draws] + 0.2 * rng.standard_normal(1600)
        squares.append(summarise(values, draws=draws, bounded=False).draw_sd ** 2)
    assert math.sqrt(np.mean(squares)) == pytest.approx(0.06, rel=0.03)


@pytest.mark.parametrize("draws", [None, [None] * 4, [0] * 4, [0, 1, None, 1], [0, 1, 2, 3]])
def test_without_several_draws_of_several_problems_nothing_is_said_of_draws(draws):
    assert summarise([1, 0, 1, 1], draws=draws) == summarise([1, 0, 1, 1])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_interval_holds_its_score_and_stays_between_0_and_1(data):
    n = data.draw(st.integers(1, 30))
    values = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    clusters = data.draw(st.none() | st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=n, max_size=n))
    draws = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=n, max_size=n))
    estimate = summarise(values, clusters=clusters, draws=draws)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert 1 - 1e-9 <= estimate.effective_n <= n + 1e-9
    order = data.draw(st.permutations(range(n)))
    shuffled = summarise(
        [values[i] for i in order],
        clusters=clusters and [clusters[i] for i in order],
        draws=draws and [draws[i] for i in order],
    )
    assert (shuffled.low, shuffled.high) == pytest.approx((estimate.low, estimate.high), abs=1e-6)


def test_values_outside_of_0_and_1_need_to_be_said_unbounded():
    with pytest.raises(AssertionError, match="outside"):
        summarise([0.5, 1.5])
    with pytest.raises(AssertionError, match="no values"):
        summarise([])
    with pytest.raises(AssertionError, match="2 clusters are named for 3 values"):
        summarise([1, 0, 1], clusters=["a", "b"])


# ------------------------------------------------------------------------------------------- scores of the whole


def test_the_bootstrap_is_scipys():
    """On few and skewed values, where quantiles as they were drawn lie elsewhere."""
    values = np.random.default_rng(7).lognormal(0, 1, 25).tolist()
    ours = whole(values, mean, resamples=10_000)
    scipys = {
        method: stats.bootstrap((values,), np.mean, n_resamples=9999, method=method, rng=np.random.default_rng(0))
        for method in ("BCa", "percentile")
    }
    theirs, plain = scipys["BCa"].confidence_interval, scipys["percentile"].confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)
    assert plain.high < theirs.high - 0.1 * width


@pytest.mark.slow
def test_the_bootstrap_of_a_perplexity_covers_over_clusters():
    """exp(−Σ log p / Σ tokens) of passages that are easier or harder as a whole; the truth is e^2.5."""
    names, rng, held = named([4] * 50), np.random.default_rng(8), 0
    for _ in range(120):
        nats = 2.5 + np.repeat(rng.normal(0, 0.5, 50), 4) + rng.normal(0, 0.5, 200)
        items = list(zip(10 * nats, [10] * 200, strict=True))
        estimate = whole(
            items,
            lambda items: math.exp(sum(nats for nats, _ in items) / sum(n for _, n in items)),
            clusters=names,
            resamples=200,
        )
        held += estimate.low <= math.exp(2.5) <= estimate.high
    assert 0.88 <= held / 120 <= 0.99


def test_a_score_that_no_draw_changes_has_no_width():
    estimate = whole([1.0] * 5, mean)
    assert (estimate.low, estimate.value, estimate.high) == (1, 1, 1)


def test_clusters_are_drawn_whole():
    """Each cluster sums to 0, so that every draw of clusters does."""
    estimate = whole([1, -1, 2, -2, 3, -3], sum, clusters=list("aabbcc"))
    assert (estimate.low, estimate.high, estimate.effective_n) == (0, 0, 3)


# -------------------------------------------------------------------------------------------- two models' scores


def answers(right_both, only_a, only_b, wrong_both):
    a = [1] * (right_both + only_a) + [0] * (only_b + wrong_both)
    b = [1] * right_both + [0] * only_a + [1] * only_b + [0] * wrong_both
    return a, b


def test_mcnemar_by_hand():
    """Six problems are the first model's alone, one the second's: 2 · (1 + 7) / 2^7."""
    found = paired(*answers(20, 6, 1, 3))
    assert found.p_value == pytest.approx(2 * 8 / 128)
    assert found.value == pytest.approx(5 / 30)


def test_mcnemar_agrees_with_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    reference = tables.mcnemar([[40, 25], [12, 23]], exact=True).pvalue
    assert paired(*answers(40, 25, 12, 23)).p_value == pytest.approx(reference)


def test_swapping_is_mcnemar_where_both_hold():
    """A cluster each, named or with a difference of its own size: the same eleven signs are swapped."""
    a, b = answers(5, 8, 3, 5)
    exact = paired(a, b).p_value
    scaled = paired([0.5 * value for value in a], [0.5 * value for value in b])
    assert scaled.p_value == pytest.approx(exact)


def test_swapping_is_scipys_permutation_test():
    rng = np.random.default_rng(9)
    a, b = rng.random(9), rng.random(9) * 0.6
    reference = stats.permutation_test((a, b), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples")
    assert paired(a, b).p_value == pytest.approx(reference.pvalue)


def test_clusters_change_sides_together():
    """Three passages of four problems, all better under the first model: 2 of 2^3 ways are as far from 0."""
    found = paired([1] * 12, [0] * 12, list("aaaabbbbcccc"))
    assert found.p_value == 0.25
    assert paired([1] * 12, [0] * 12).p_value == pytest.approx(2 / 2**12)


def test_many_swaps_are_sampled_near_the_exact_p_value():
    a, b = answers(10, 24, 12, 4)
    exact = paired(a, b).p_value
    sampled = paired([0.5 * value for value in a], [0.5 * value for value in b]).p_value
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000))


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"),
    [(1000, 0.004, 0.004), (100, 0.1, 0.1), (100, 0.15, 0.05), (30, 0.2, 0.2), (300, 0.02, 0)],
)
def test_the_interval_of_a_difference_covers(n, only_a, only_b):
    def make(rng):
        kind = rng.random(n)
        return (kind < only_a) * 1.0, ((kind >= only_a) & (kind < only_a + only_b)) * 1.0

    assert 0.925 <= coverage(make, only_a - only_b, lambda pair: paired(*pair)) <= 0.98


def test_two_equal_models_are_called_different_in_one_case_of_twenty():
    """With passages on which one or the other happens to be better; without clusters they would be far more often."""
    names, rng, found, naive = named([6] * 40), np.random.default_rng(10), [], []
    for _ in range(300):
        difficulty, favour = np.repeat(rng.beta(1, 1, 40), 6), np.repeat(0.3 * rng.standard_normal(40), 6)
        a, b = (rng.random(240) < difficulty + favour) * 1.0, (rng.random(240) < difficulty - favour) * 1.0
        found.append(paired(a, b, names).p_value <= 0.05)
        naive.append(paired(a, b).p_value <= 0.05)
    assert 0.015 <= np.mean(found) <= 0.085
    assert np.mean(naive) > 0.15


def test_pairing_finds_what_two_intervals_do_not():
    a, b = answers(500, 40, 15, 445)
    first, second, difference = summarise(a), summarise(b), paired(a, b)
    assert first.low < second.high
    assert difference.low > 0
    assert difference.p_value < 0.01
    assert difference.minimum_detectable < minimum_detectable(first) / 2


def test_a_model_does_not_differ_from_itself():
    a = [0.2, 1.0, 0.7, 0.0]
    found = paired(a, a)
    assert (found.value, found.p_value) == (0, 1)
    assert found.low < 0 < found.high


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["", "a", "b"])), min_size=2, max_size=9))
def test_swapping_the_models_turns_the_difference_round(rows):
    a, b, clusters = zip(*rows, strict=True)
    one, other = paired(a, b, clusters), paired(b, a, clusters)
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert other.p_value == pytest.approx(one.p_value)
    assert -1 <= one.low <= one.high <= 1


def test_whole_scores_of_two_models_are_compared_by_the_same_swaps():
    rng = np.random.default_rng(11)
    a, b = rng.random(40), rng.random(40) - 0.2
    found, reference = paired_whole(a.tolist(), b.tolist(), mean), paired(a, b, bounded=False)
    assert found.value == pytest.approx(reference.value)
    assert found.p_value == pytest.approx(reference.p_value, abs=0.03)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03)


def test_whole_scores_change_sides_by_clusters():
    found = paired_whole([1] * 12, [0] * 12, mean, clusters=list("aaaabbbbcccc"))
    assert found.p_value == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("compare", [paired, lambda a, b: paired_whole(a, b, sum)])
def test_models_are_compared_on_the_same_problems(compare):
    with pytest.raises(AssertionError, match=r"2 .* against 1"):
        compare([1, 0], [1])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_holm_agrees_with_statsmodels():
    several = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(12).random(30) ** 3
    assert holm(p_values) == pytest.approx(several.multipletests(p_values, method="holm")[1].tolist())


def test_holm_keeps_all_true_hypotheses_in_19_cases_of_20():
    rng = np.random.default_rng(13)
    assert np.mean([min(holm(rng.random(20))) <= 0.05 for _ in range(3000)]) == pytest.approx(0.05, abs=0.012)


# ------------------------------------------------------------------------------------------------- judgements


def test_the_detectable_difference_is_found_in_four_cases_of_five():
    n, p, rng = 800, 0.4, np.random.default_rng(14)
    difference = minimum_detectable(summarise([1] * 320 + [0] * 480))
    a, b = rng.binomial(n, p + difference / 2, 20_000) / n, rng.binomial(n, p - difference / 2, 20_000) / n
    middle = (a + b) / 2
    found = np.abs(a - b) > 1.96 * np.sqrt(2 * middle * (1 - middle) / n)
    assert found.mean() == pytest.approx(0.8, abs=0.015)


def test_the_detectable_difference_of_pairs_is_found_in_four_cases_of_five():
    """First measured where the models do not differ; then they do by as much."""
    rng, n, either = np.random.default_rng(15), 1000, 0.12
    a, b = answers(400, 60, 60, 480)
    difference = paired(a, b).minimum_detectable
    found = 0
    for _ in range(600):
        kind = rng.random(n)
        only_a, only_b = (either + difference) / 2, (either - difference) / 2
        first, second = (kind < only_a) * 1.0, ((kind >= only_a) & (kind < only_a + only_b)) * 1.0
        found += paired(first, second).low > 0
    assert found / 600 == pytest.approx(0.8, abs=0.05)


def test_four_times_the_problems_find_half_the_difference():
    few, many = summarise([1, 0] * 500), summarise([1, 0] * 2000)
    assert minimum_detectable(few) / minimum_detectable(many) == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("published", "said"),
    [(0.25, "inside"), (0.28, "inside"), (0.281, "below"), (0.239, "above"), (None, "no number")],
)
def test_a_published_number_is_inside_or_we_are_above_or_below_it(published, said):
    assert verdict(Estimate(0.26, 0.24, 0.28, 2000, 2000.0), published) == said


def test_guessing_is_near_chance():
    rng = np.random.default_rng(16)
    said = [against_chance(summarise((rng.random(500) < 0.25) * 1.0), 0.25) for _ in range(500)]
    assert said.count("near") / 500 == pytest.approx(0.95, abs=0.03)
    assert against_chance(summarise([1] * 40 + [0] * 60), 0.25) == "above"
    assert against_chance(summarise([1] * 10 + [0] * 90), 0.25) == "below"
    assert against_chance(summarise([0] * 90), 0.0) == "near"


def test_an_exact_p_value_counts_every_way():
    """All 2^5 signs of five unlike differences, one by one."""
    sums = [0.3, -0.1, 0.25, 0.4, -0.05]
    ways = [abs(sum(s * d for s, d in zip(signs, sums, strict=True))) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean([way >= sum(sums) - 1e-9 for way in ways])
    assert paired([max(d, 0) for d in sums], [max(-d, 0) for d in sums]).p_value == pytest.approx(expected)
