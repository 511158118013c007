"""Kappas, alpha and their intervals: textbook examples, the packages, and the bootstrap."""

from __future__ import annotations

import sys
from pathlib import Path

import krippendorff
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))

from rein.evals import statistics
from rein.feedback import reliability
from rein.feedback.ballots import across, with_mode_of_three, with_most_others, within
from rein.feedback.estimates import coincidences, share, shares, trend, wilson
from rein.feedback.reliability import alpha, cohen, fleiss, rank_correlation

# Krippendorff 2011: four observers, twelve units, five values.
CANONICAL = (
    (1, 1, None, 1), (2, 2, 3, 2), (3, 3, 3, 3), (3, 3, 3, 3), (2, 2, 2, 2), (1, 2, 3, 4), (4, 4, 4, 4), (1, 1, 2, 1),
    (2, 2, 2, 2), (None, 5, 5, 5), (None, None, 1, 1), (None, 3, None, None),
)  # fmt: skip
# Fleiss 1971, Table 1: thirty patients, six psychiatrists each, five diagnoses.
FLEISS = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 "
    "10050 11040 03300 10050 02031 00501 30012 51000 02040 10203 "
    "00006 01050 02013 20040 10041 05010 40002 02040 10500 00006 "
)


def counted(units, values):
    return np.array([[list(unit).count(value) for value in values] for unit in units])


def one_each(counts_UV):
    """Each unit an item of its own."""
    return counts_UV[None], np.ones(len(counts_UV), dtype=int)


def test_krippendorffs_own_example():
    units = one_each(counted(CANONICAL, range(1, 6)))
    found = {level: alpha(*units, level)["value"] for level in ("nominal", "ordinal", "interval")}
    assert {level: round(value, 3) for level, value in found.items()} == {
        "nominal": 0.743, "ordinal": 0.815, "interval": 0.849,
    }  # fmt: skip


def test_fleiss_own_example():
    table = np.array([[int(n) for n in row] for row in FLEISS.split()])
    assert (table.sum(1) == 6).all()
    found = fleiss(*one_each(table))
    assert round(found["value"], 3) == 0.430
    assert found["n"] == 30
    assert found["low"] < found["value"] < found["high"]


def test_a_textbook_example_of_cohens():
    assert round(cohen(np.array([[20, 5], [10, 15]]))["value"], 3) == 0.4
    # Cohen 1960: two clinicians, three diagnoses, 200 cases.
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    p_o = (88 + 40 + 12) / 200
    p_e = (120 * 100 + 60 * 60 + 20 * 40) / 200**2
    assert cohen(table)["value"] == pytest.approx((p_o - p_e) / (1 - p_e))
    assert round(cohen(table)["value"], 3) == 0.492


def test_two_who_always_agree_are_not_certain_to():
    found = cohen(np.array([[10, 0], [0, 10]]))
    assert found["value"] == 1.0
    assert found["low"] == pytest.approx((20 / (20 + 1.959964**2) - 0.5) / 0.5)
    perfect = one_each(np.array([[3, 0], [0, 3]] * 10))
    for number in (fleiss(*perfect), alpha(*perfect, "nominal"), rank_correlation(*perfect)):
        assert number["value"] == pytest.approx(1.0)
        assert 0.5 < number["low"] < 0.8
        assert number["se"] is None


def test_fleiss_takes_the_units_with_the_commonest_number_of_answers():
    table = np.array([[2, 0], [1, 1], [0, 2], [3, 0], [1, 0], [0, 0]])
    found = fleiss(*one_each(table))
    assert found["n"] == 3
    assert found["how"].startswith("Fleiss' kappa of what 2 labelers")


some_counts = st.lists(
    st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(lambda row: sum(row) >= 2), min_size=4, max_size=30
)


@settings(deadline=None, max_examples=60)
@given(some_counts, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_the_packages_whichever_computes_it(rows, level):
    counts_UV = np.array(rows)
    if (counts_UV.sum(0) > 0).sum() < 2:
        assert alpha(*one_each(counts_UV), level)["value"] is None
        return
    expected = krippendorff.alpha(value_counts=counts_UV, level_of_measurement=level)
    assert alpha(*one_each(counts_UV), level)["value"] == pytest.approx(expected, abs=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliability, "PACKAGE_CELLS", 0)
        assert alpha(*one_each(counts_UV), level)["value"] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(some_counts)
def test_fleiss_kappa_is_the_packages_whichever_computes_it(rows):
    units = one_each(np.array(rows))
    by_package = fleiss(*units)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliability, "PACKAGE_CELLS", 0)
        assert fleiss(*units).get("value") == pytest.approx(by_package.get("value"), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(some_counts)
def test_units_that_are_alike_may_be_counted_as_one(rows):
    counts_UV = np.array(rows)
    patterns, weights = np.unique(counts_UV, axis=0, return_counts=True)
    assert np.allclose(coincidences(*one_each(counts_UV)), coincidences(patterns[None], weights))
    for measure in (fleiss, rank_correlation, lambda *units: alpha(*units, "ordinal")):
        one, other = measure(*one_each(counts_UV)), measure(patterns[None], weights)
        for name in ("value", "low", "high", "n"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-9), name
    agree, total = within(counts_UV)
    assert share(agree, total, "", "none") == pytest.approx(share(*within(patterns), "", "none", weights))


@pytest.mark.parametrize("measure", ["nominal", "ordinal", "spearman"])
def test_the_interval_of_alpha_is_that_of_drawing_other_items(measure):
    generator = np.random.default_rng(3)
    truth = generator.normal(size=400)
    values = np.clip(np.rint(4 + 1.2 * (truth[:, None] + generator.normal(0, 0.8, (400, 3)))), 1, 7)
    counts_UV = counted(values.astype(int).tolist(), range(1, 8))

    def of(counts):
        units = one_each(counts)
        return rank_correlation(*units) if measure == "spearman" else alpha(*units, measure)

    drawn = [of(counts_UV[pick])["value"] for pick in generator.integers(0, 400, (400, 400))]
    assert of(counts_UV)["se"] == pytest.approx(np.std(drawn), rel=0.12)


def test_rank_correlation_of_two_is_spearmans_on_both_orders():
    generator = np.random.default_rng(0)
    a = generator.integers(1, 8, 200)
    b = np.clip(a + generator.integers(-2, 3, 200), 1, 7)
    both_ways = stats.spearmanr(np.append(a, b), np.append(b, a)).statistic
    counts_UV = counted(zip(a.tolist(), b.tolist(), strict=True), range(1, 8))
    assert rank_correlation(*one_each(counts_UV))["value"] == pytest.approx(both_ways, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_the_evaluations_one(pair):
    yes, n = pair
    assert [float(end) for end in wilson(yes / n, n)] == pytest.approx(statistics.wilson(yes / n, n), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_an_interval_is_no_surer_than_that_of_the_evaluations(rows):
    """Clusters of judgements: the same mean and variance as `evals.statistics.summarise` of them one by one."""
    rows = [(min(a, n), n) for a, n in rows if n]
    if len(rows) < 2:
        return
    values = [1] * sum(a for a, _ in rows)
    names = [f"c{c}" for c, (a, _) in enumerate(rows) for _ in range(a)]
    values += [0] * sum(n - a for a, n in rows)
    names += [f"c{c}" for c, (a, n) in enumerate(rows) for _ in range(n - a)]
    expected = statistics.summarise(values, clusters=names)
    found = share(*np.array(rows).T, "", "none")
    assert found["value"] == pytest.approx(expected.value)
    # Ours is never surer than as many independent judgements would be.
    assert found["low"] <= expected.low + 1e-9
    assert found["high"] >= expected.high - 1e-9
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_shares_of_groups_are_each_groups_own():
    agree, total, group = np.array([1, 0, 2, 2, 1]), np.array([1, 1, 3, 2, 2]), np.array([0, 0, 0, 2, 2])
    found = shares(agree, total, group, 3, "how", "nothing")
    assert found[0] == share(agree[:3], total[:3], "how", "nothing")
    assert found[1] == {"value": None, "why": "nothing"}
    assert found[2]["value"] == 0.75


def test_the_interval_holds_the_truth_in_95_of_100_samples():
    generator, held = np.random.default_rng(5), 0
    truth = generator.beta(4, 1.5, 200_000)
    expected = float((truth**2 + (1 - truth) ** 2).mean())
    for _ in range(1000):
        p = generator.beta(4, 1.5, 150)
        votes = generator.random((150, 3)) < p[:, None]
        counts_UV = np.stack([votes.sum(1), 3 - votes.sum(1)], 1)
        found = share(*within(counts_UV), "", "none")
        held += found["low"] <= expected <= found["high"]
    assert 930 <= held <= 970


def test_pairs_are_counted_as_by_going_through_them():
    generator = np.random.default_rng(1)
    for _ in range(50):
        a, b = generator.integers(0, 5, 4).tolist(), generator.integers(0, 5, 3).tolist()
        count_a, count_b = counted([a], range(5)), counted([b], range(5))
        pairs = [(x, y) for n, x in enumerate(a) for y in a[:n]]
        for near in (False, True):
            agree = sum(abs(x - y) <= near for x, y in pairs)
            assert [int(each[0]) for each in within(count_a, near=near)] == [agree, len(pairs)]
            agree = sum(abs(x - y) <= near for x in a for y in b)
            assert [int(each[0]) for each in across(count_a, count_b, near=near)] == [agree, 12]


def test_the_mode_of_three_is_that_of_all_threes():
    from itertools import combinations

    generator = np.random.default_rng(2)
    for _ in range(30):
        votes, other = generator.integers(0, 2, 6).tolist(), int(generator.integers(0, 2))
        threes = list(combinations(votes, 3))
        expected = np.mean([(sum(three) >= 2) == other for three in threes])
        agree, total = with_mode_of_three(counted([votes], range(2)), counted([[other]], range(2)))
        assert (float(agree[0]), float(total[0])) == pytest.approx((expected, 1.0))


def test_leaving_one_out_is_going_through_them():
    generator = np.random.default_rng(3)
    for _ in range(50):
        votes = generator.integers(0, 3, generator.integers(1, 7)).tolist()
        agree = total = 0
        for n, vote in enumerate(votes):
            others = votes[:n] + votes[n + 1 :]
            most = sorted({others.count(v) for v in range(3)}, reverse=True)
            leaders = [v for v in range(3) if others.count(v) == most[0]]
            if len(others) >= 2 and len(leaders) == 1:
                total += 1
                agree += vote == leaders[0]
        assert [int(each[0]) for each in with_most_others(counted([votes], range(3)))] == [agree, total]


def test_a_trend_is_least_squares_with_clusters():
    generator = np.random.default_rng(4)
    item, week = generator.integers(0, 30, 600), generator.integers(0, 8, 600)
    yes = (generator.random(600) < 0.4 + 0.03 * week).astype(float)
    found = trend(yes, week.astype(float), item, "how")
    fitted = sm.OLS(yes, sm.add_constant(week)).fit()
    assert found["value"] == pytest.approx(fitted.params[1])
    robust = fitted.get_robustcov_results("cluster", groups=item, df_correction=False)
    assert found["se"] == pytest.approx(robust.bse[1] * np.sqrt(30 / 29), rel=0.02)
    assert found["p_value"] < 0.05


@pytest.mark.parametrize(
    ("yes", "at", "item", "why"),
    [
        ([1, 0, 1], [2, 2, 2], [0, 1, 2], "one week"),
        ([1, 0, 1], [1, 2, 3], [0, 1, 1], "needs 3"),
        ([1, 1, 1], [1, 2, 3], [0, 1, 2], "alike"),
    ],
)
def test_what_is_no_trend_says_why(yes, at, item, why):
    assert why in trend(np.array(yes, float), np.array(at, float), np.array(item), "how")["why"]
