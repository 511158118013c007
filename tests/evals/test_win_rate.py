"""Win rates at equal length, on simulated judges of whom it is known what they like."""

import numpy as np
import pytest
from scipy.optimize import minimize

from rein.errors import UserError
from rein.evals.win_rate import win_rates


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def pairs(n, seed, *, longer=60.0):
    """Lengths of a and of b, where a's responses are mostly longer."""
    rng = np.random.default_rng(seed)
    return rng, rng.normal(200 + longer, 50, n).clip(1), rng.normal(200, 50, n).clip(1)


def standardised(a, b):
    return np.tanh((a - b) / (a - b).std())


def test_a_judge_who_only_likes_length_finds_two_models_equal():
    rng, a, b = pairs(2000, 0)
    wins = rng.random(2000) < sigmoid(3 * standardised(a, b))
    rates = win_rates(wins, a, b)
    assert rates.raw.low > 0.65, "as it is, the longer model seems far better"
    assert rates.controlled.low < 0.5 < rates.controlled.high
    assert rates.controlled.value == pytest.approx(0.5, abs=0.04)
    assert rates.stratified.low < 0.5 < rates.stratified.high
    assert rates.length_logit == pytest.approx(3, abs=0.4)


def test_so_does_one_who_takes_the_longer_response_every_time():
    """Lengths then tell every win, and a regression alone would run off to infinity."""
    _, a, b = pairs(2000, 1)
    rates = win_rates(a > b, a, b)
    assert rates.raw.value > 0.7
    assert rates.controlled.value == pytest.approx(0.5, abs=0.05)
    assert rates.stratified.value == pytest.approx(0.5)


@pytest.mark.parametrize("difference", ["tanh", "log"])
@pytest.mark.parametrize("advantage", [-1.0, 0.8])
def test_a_true_advantage_is_recovered(advantage, difference):
    rng, a, b = pairs(4000, 2)
    x = standardised(a, b) if difference == "tanh" else np.log(a / b)
    wins = rng.random(4000) < sigmoid(advantage + 2 * x)
    rates = win_rates(wins, a, b, difference=difference)
    assert rates.controlled.value == pytest.approx(sigmoid(advantage), abs=0.03)
    assert rates.controlled.low < sigmoid(advantage) < rates.controlled.high
    assert abs(rates.raw.value - sigmoid(advantage)) > 0.05, "the raw rate is not that"
    assert (rates.stratified.value > 0.5) == (advantage > 0), "the check without a regression agrees on who is better"


def test_intervals_hold_the_truth_nineteen_times_in_twenty():
    held = {"controlled": 0, "raw": 0}
    for seed in range(100):
        rng, a, b = pairs(300, 1000 + seed)
        chance = sigmoid(0.5 + 1.5 * standardised(a, b))
        rates = win_rates(rng.random(300) < chance, a, b, seed=seed)
        held["controlled"] += rates.controlled.low <= sigmoid(0.5) <= rates.controlled.high
        held["raw"] += rates.raw.low <= chance.mean() <= rates.raw.high
    assert 88 <= held["controlled"] <= 100
    assert 88 <= held["raw"] <= 100


def test_the_regression_is_the_maximum_of_its_penalised_likelihood():
    rng, a, b = pairs(200, 3)
    wins = rng.choice([0, 0.5, 1], 200)
    x = standardised(a, b)

    def cost(at):
        logits = at[0] + at[1] * x
        return -np.sum(wins * logits - np.logaddexp(0, logits)) + np.sum(at**2) / 200

    constant, slope = minimize(cost, [0.0, 0.0], tol=1e-12).x
    rates = win_rates(wins, a, b)
    assert rates.controlled.value == pytest.approx(sigmoid(constant), abs=1e-5)
    assert rates.length_logit == pytest.approx(slope, abs=1e-4)


def test_swapping_the_models_turns_every_rate_round():
    rng, a, b = pairs(300, 4)
    wins = rng.choice([0, 0.5, 1], 300, p=[0.3, 0.2, 0.5])
    here, there = win_rates(wins, a, b), win_rates(1 - wins, b, a)
    for one, other in ((here.raw, there.raw), (here.controlled, there.controlled), (here.stratified, there.stratified)):
        assert (one.value, one.low, one.high) == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low))
    assert here.length_logit == pytest.approx(there.length_logit)


def test_equal_lengths_change_nothing():
    wins = np.array([1, 1, 1, 0, 0.5] * 40)
    rates = win_rates(wins, np.full(200, 80), np.full(200, 80))
    assert rates.raw.value == rates.stratified.value == pytest.approx(0.7)
    assert rates.controlled.value == pytest.approx(0.7, abs=1e-4)
    assert rates.length_logit == pytest.approx(0)


def test_pairs_of_one_prompt_make_the_interval_wider():
    rng, a, b = pairs(100, 5)
    wins = (rng.random(100) < 0.6).astype(float)
    copied = [np.repeat(values, 10) for values in (wins, a, b)]
    prompts = [f"prompt {i // 10}" for i in range(1000)]
    alone, together = win_rates(*copied), win_rates(*copied, clusters=prompts)
    for name in ("raw", "controlled", "stratified"):
        narrow, wide = getattr(alone, name), getattr(together, name)
        assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
        assert wide.value == narrow.value
    assert win_rates(*copied, clusters=[""] * 1000) == alone, "pairs of no prompt stand alone"
    numbered = ["" if i else "7" for i in range(1000)]
    assert win_rates(*copied, clusters=numbered) == alone, "a prompt named 7 is not the eighth pair"


def test_where_one_model_is_always_longer_no_pairs_can_be_compared():
    rng = np.random.default_rng(6)
    rates = win_rates(rng.random(100) < 0.7, rng.uniform(100, 200, 100), rng.uniform(10, 90, 100))
    assert rates.stratified is None
    assert rates.controlled.high - rates.controlled.low > rates.raw.high - rates.raw.low


def test_all_wins_are_a_rate_near_one():
    _, a, b = pairs(50, 7)
    rates = win_rates(np.ones(50), a, b)
    assert rates.raw.value == 1
    assert rates.raw.low < 0.95, "fifty wins do not prove a hundred per cent"
    assert 0.99 < rates.controlled.value <= 1


def test_the_same_seed_gives_the_same_intervals():
    rng, a, b = pairs(100, 8)
    wins = rng.random(100) < 0.5
    assert win_rates(wins, a, b) == win_rates(wins, a, b)
    assert win_rates(wins, a, b, seed=1).controlled.low != win_rates(wins, a, b).controlled.low


def test_an_empty_response_has_no_ratio():
    with pytest.raises(UserError, match="Pair 1 has the lengths 0 and 7"):
        win_rates([1, 0], [5, 0], [5, 7], difference="log")
    assert win_rates([1, 0], [5, 0], [5, 7]).raw.value == 0.5
