"""The guard of the loss: quiet on noise, quick on a jump that stays, patient with one that does not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.guard import SETTLED_UPDATES, Guard

JUMP_AT = 200


def curve(seed: int, updates: int) -> list[float]:
    """A loss as training gives it: falling by a power or exponentially, after a plateau, or flat; with noise of one of
    four kinds, larger at the start of a batch ramp."""
    rng = np.random.default_rng(seed)
    t = np.arange(updates)
    start, end = rng.uniform(6, 11), rng.uniform(0.5, 4)
    shape = rng.integers(4)
    if shape == 0:
        falling = (1 + t) ** -rng.uniform(0.15, 0.6)
    elif shape == 1:
        falling = np.exp(-t / rng.uniform(20, 600))
    elif shape == 2:
        falling = np.exp(-np.maximum(t - rng.integers(20, 400), 0) / rng.uniform(30, 400))
    else:
        falling = np.zeros(updates)
    kind = rng.integers(4)
    if kind == 0:
        noise = rng.normal(size=updates)
    elif kind == 1:
        noise = rng.laplace(size=updates) / math.sqrt(2)
    elif kind == 2:
        noise = rng.standard_t(3, size=updates) / math.sqrt(3)
    else:  # correlated over ten updates
        noise = rng.normal(size=updates)
        for i in range(1, updates):
            noise[i] = 0.9 * noise[i - 1] + math.sqrt(0.19) * noise[i]
    sd = 10 ** rng.uniform(-2, -1 if kind == 3 else math.log10(0.7))
    if rng.integers(2):
        sd = sd * np.sqrt(1 / np.linspace(1 / rng.integers(4, 64), 1, updates)) * (0.25 if kind == 3 else 0.5)
    return (end + (start - end) * falling + sd * noise).tolist()


def stopped_at(losses: list[float], guard: Guard) -> int | None:
    return next((n for n, loss in enumerate(losses, 1) if guard.update(n, loss, 1.0) == "stop"), None)


def flat(updates: int, *, sd: float = 0.05, level: float = 3.0, seed: int = 0) -> list[float]:
    return (level + sd * np.random.default_rng(seed).normal(size=updates)).tolist()


# --------------------------------------------------------------------------------------------------- false alarms


@pytest.mark.parametrize("first_seed", range(10_000, 10_200, 50))
def test_noise_on_a_falling_loss_stops_nothing(first_seed):
    for seed in range(first_seed, first_seed + 50):
        assert stopped_at(curve(seed, 800), Guard(patience_updates=20)) is None, f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 1500, 500))
def test_noise_on_a_falling_loss_stops_nothing_in_many_long_runs(first_seed):
    for seed in range(first_seed, first_seed + 500):
        assert stopped_at(curve(seed, 2000), Guard(patience_updates=20)) is None, f"seed {seed}"


@given(st.floats(0.8, 1e6), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_outliers_are_suspect_and_the_loss_that_recovers_goes_on(height, apart, seed):
    guard = Guard(patience_updates=20)
    losses = flat(JUMP_AT, seed=seed)
    high = {100, 100 + 10 * apart, 100 + 20 * apart}
    for n, loss in enumerate(losses, 1):
        verdict = guard.update(n, loss + height * (n in high), 1.0)
        if n in high:
            assert verdict == "suspect"
        assert verdict != "stop"
    assert guard.update(JUMP_AT + 1, 3.0, 1.0) == "good"


def test_an_outlier_leaves_few_of_its_neighbours_suspect():
    guard = Guard()
    losses = flat(300)
    losses[149] = 1e30
    verdicts = [guard.update(n, loss, 1.0) for n, loss in enumerate(losses, 1)]
    assert verdicts.count("suspect") == 1


def test_a_spike_that_recovers_before_patience_ends_stops_nothing():
    losses = flat(JUMP_AT) + flat(60, level=6.0) + flat(100)
    assert stopped_at(losses, Guard(patience_updates=100)) is None
    assert stopped_at(losses, Guard(patience_updates=50)) is not None


def test_two_short_spikes_are_no_long_one():
    losses = flat(JUMP_AT) + 2 * (flat(70, level=6.0) + flat(70))
    assert stopped_at(losses, Guard(patience_updates=100)) is None


def test_noise_as_large_as_the_spike_size_is_rarely_suspect():
    guard = Guard(spike_nats=0.5)
    verdicts = [guard.update(n, loss, 1.0) for n, loss in enumerate(flat(2000, sd=0.7), 1)]
    assert verdicts.count("suspect") < 0.01 * 2000
    assert "stop" not in verdicts


# ------------------------------------------------------------------------------------------------------ detection


@given(st.integers(0, 10_000), st.floats(1.5, 40.0), st.integers(1, 60))
@settings(deadline=None, max_examples=60)
def test_a_jump_that_stays_stops_the_run_in_time(seed, size, patience):
    guard = Guard(spike_nats=0.5, patience_updates=patience)
    losses = flat(JUMP_AT, seed=seed)
    assert stopped_at(losses, guard) is None
    after = flat(patience + 8, level=3.0 + 0.6 * size, seed=seed + 1)
    when = next(n for n, loss in enumerate(after, 1) if guard.update(JUMP_AT + n, loss, 1.0) == "stop")
    assert patience < when <= patience + 8


def test_a_jump_is_seen_while_the_loss_still_falls():
    losses = [3 + 6 * math.exp(-n / 100) for n in range(400)]
    guard = Guard(patience_updates=20)
    assert stopped_at(losses, guard) is None
    assert [guard.update(401 + n, 5.0, 1.0) for n in range(30)][-1] == "stop"


def test_a_loss_that_creeps_up_does_not_take_the_baseline_along():
    guard = Guard(patience_updates=50)
    losses = flat(JUMP_AT) + [3.0 + 0.002 * n for n in range(1000)]
    when = stopped_at(losses, guard)
    # 0.5 nats above the lowest level after some 250 updates of creeping; then patience.
    assert when is not None
    assert JUMP_AT + 250 <= when <= JUMP_AT + 400
    assert guard.good_step([100, 200, 300, 450, 500]) == 300  # half the limit was passed after some 125 updates


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("when", [1, 100])
def test_a_loss_that_is_no_number_stops_at_once(loss, when):
    guard = Guard(spike_nats=None)
    for n in range(1, when):
        assert guard.update(n, 3.0, 1.0) == "good"
    assert guard.update(when, loss, 1.0) == "stop"


def test_a_gradient_that_is_no_number_stops_at_once():
    assert Guard().update(1, 3.0, math.inf) == "stop"
    assert Guard().update(1, 3.0, math.nan) == "stop"


def test_without_a_spike_size_the_loss_may_rise():
    assert stopped_at(flat(100) + flat(500, level=50.0), Guard(spike_nats=None)) is None


def test_the_least_rise_that_counts_is_the_users():
    losses = flat(JUMP_AT, sd=0.01) + flat(300, level=3.5, sd=0.01)
    assert stopped_at(losses, Guard(spike_nats=0.3)) is not None
    assert stopped_at(losses, Guard(spike_nats=0.6)) is None


def test_a_steep_gradient_is_suspect_and_stops_nothing():
    guard = Guard(patience_updates=1)
    for n in range(1, 101):
        assert guard.update(n, 3.0, 0.5) == "good"
    assert guard.update(101, 3.0, 5.1) == "suspect"
    assert guard.update(102, 3.0, 0.5) == "good"


# ------------------------------------------------------------------------------------------- which one was good


def test_a_checkpoint_is_good_when_the_next_loss_is():
    guard = Guard()
    for n in range(1, 51):
        guard.update(n, 3.0, 1.0)
        assert guard.good_step([n - 1, n, n + 1]) == n - 1
    assert guard.good_step([50, 60]) is None
    assert guard.good_step([]) is None


def test_what_was_saved_from_the_jump_on_is_not_good():
    guard = Guard(patience_updates=30)
    for n, loss in enumerate(flat(JUMP_AT) + flat(100, level=5.0), 1):
        if guard.update(n, loss, 1.0) == "stop":
            break
    # Update 201's loss shows that the weights of step 200 are off; 200's, that those of 199 are not.
    assert guard.good_step(range(0, 300)) == JUMP_AT - 1
    assert guard.good_step([50, 120, 199, 200, 230]) == 199


def test_what_follows_a_steep_gradient_is_not_proven():
    guard = Guard()
    for n in range(1, 101):
        guard.update(n, 3.0, 1.0)
    guard.update(101, 3.0, 99.0)
    assert guard.good_step([99, 100, 101]) == 99
    guard.update(102, 3.0, 1.0)
    assert guard.good_step([99, 100, 101]) == 101


# ----------------------------------------------------------------------------------------------- resume, messages


@given(st.integers(0, 10_000), st.integers(0, 399))
@settings(deadline=None, max_examples=30)
def test_a_guard_that_was_saved_goes_on_with_the_same_verdicts(seed, cut):
    losses = curve(seed, 300) + (np.array(curve(seed, 100)) + 3).tolist()
    norms = np.random.default_rng(seed).lognormal(0, 1.2, 400).tolist()
    whole, first, second = (Guard(patience_updates=20) for _ in range(3))
    told = [whole.update(n, loss, norm) for n, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1)]
    for n in range(cut):
        first.update(n + 1, losses[n], norms[n])
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second.load_state_dict(state)
    assert [second.update(n + 1, losses[n], norms[n]) for n in range(cut, 400)] == told[cut:]
    assert second.state_dict() == whole.state_dict()
    assert second.good_step(range(400)) == whole.good_step(range(400))


def test_the_state_is_flat():
    guard = Guard()
    for n in range(1, SETTLED_UPDATES + 2):
        guard.update(n, 3.0, 1.0)
    for value in guard.state_dict().values():
        assert value is None or isinstance(value, int | float | list)
        if isinstance(value, list):
            assert all(isinstance(item, float) for item in value)


def test_the_message_of_a_spike():
    guard = Guard(patience_updates=10)
    for n, loss in enumerate([3.0] * 1200 + [5.25] * 20, 1):
        if guard.update(n, loss, 1.0) == "stop":
            break
    error = guard.error([400, 800, 1200])
    assert error.problem == (
        "The loss is 5.250 nats/token at update 1,213; it was 3.000 nats/token before. It has been off since "
        "update 1,201, by more than 0.50. The checkpoint of update 800 is kept."
    )
    for flag in ("--learning-rate", "--warmup-tokens", "--clip-norm", "--spike-nats none"):
        assert flag in error.fix
    assert "No checkpoint is from before it." in guard.error([1205]).problem


def test_the_message_of_no_number():
    guard = Guard()
    for n in range(1, 101):
        guard.update(n, 3.0, 1.0)
    guard.update(101, math.nan, math.inf)
    error = guard.error([90, 100])
    assert error.problem == (
        "Update 101 has loss nan and gradient norm inf; it was 3.000 nats/token before. "
        "The checkpoint of update 90 is kept."
    )
    assert "--precision fp32" in error.fix
    first = Guard()
    first.update(1, math.nan, 1.0)
    assert first.error([]).problem == ("Update 1 has loss nan and gradient norm 1. No checkpoint is from before it.")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"spike_nats": 0.0}, "--spike-nats is 0,"),
        ({"spike_nats": -1.0}, "--spike-nats is -1,"),
        ({"spike_nats": math.nan}, "--spike-nats is nan,"),
        ({"patience_updates": 0}, "--spike-patience-updates is 0,"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        Guard(**given)
