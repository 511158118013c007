"""What holds for any state, any training and any weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.agents.combine import COMBINATIONS, choice_values, control_probability
from rein.agents.eligibility import Eligibility, influence
from rein.agents.features import RBF, Fourier, OneHot, Tiles, normalised, products
from rein.agents.human_model import Chosen, Neighbours
from rein.agents.sarsa import greedy
from rein.agents.tamer import grown
from rein.feedback.credit import CreditAssigner, Sample, Uniform

patiently = settings(deadline=None)  # the machine may be busy

LOW, HIGH = [-1.2, -0.07], [0.6, 0.07]
FEATURES = {
    "rbf": RBF(LOW, HIGH, n=6, rel_width=0.2, norm_low=-1.0),
    "tiles": Tiles(LOW, HIGH, tiles=4, tilings=3),
    "hashed": Tiles(LOW, HIGH, tiles=8, tilings=8, hashed=100),
    "fourier": Fourier(LOW, HIGH, n=40),
}
kinds = st.sampled_from(sorted(FEATURES))
numbers = st.floats(-1e6, 1e6)
# Inside the bounds, and well beyond them: a car stays inside, a cart does not.
states = st.tuples(st.floats(-3.0, 3.0), st.floats(-1.0, 1.0)).map(np.array)
measured = states.map(lambda state: state.round(9))  # states that differ do not differ by 1e-300
shares = st.floats(0.0, 1.0)


@patiently
@given(kinds, states)
def test_every_feature_but_the_constant_lies_between_0_and_1(kind, state):
    features = FEATURES[kind]
    phi_F = features(state)
    assert phi_F.shape == (features.size,)
    assert phi_F[:-1].min() >= 0.0
    assert phi_F[:-1].max() <= 1.0
    assert phi_F[-1] == features(np.zeros(2))[-1]


@patiently
@given(states)
def test_as_many_tiles_are_active_as_there_are_tilings(state):
    assert FEATURES["tiles"](state)[:-1].sum() == 3
    assert 1 <= FEATURES["hashed"](state)[:-1].sum() <= 8


@patiently
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_table_has_one_place_for_a_state(counts, data):
    state = np.array([data.draw(st.integers(0, n - 1)) for n in counts], dtype=float)
    row = OneHot(counts)(state)
    assert row.sum() == 1.0
    place = 0
    for number, n in zip(state, counts, strict=True):
        place = place * n + int(number)
    assert row[place] == 1.0


@patiently
@given(kinds, st.booleans(), st.floats(0.0, 300.0), st.floats(0.01, 1.0), shares, shares,
       st.lists(st.lists(st.tuples(states, st.integers(0, 2), shares), max_size=4), max_size=12), states)  # fmt: skip
def test_traces_lie_between_0_and_1_and_weights_between_0_and_c_s(
    kind, state_only, c_s, growth, step_decay, episode_decay, steps, somewhere
):
    eligibility = Eligibility(
        FEATURES[kind], 3, c_s=c_s, growth=growth, step_decay=step_decay, episode_decay=episode_decay,
        state_only=state_only,
    )  # fmt: skip
    for k, trained in enumerate(steps):
        eligibility.step(trained)
        if k % 5 == 4:
            eligibility.end_episode()
        assert eligibility.traces_AF.min() >= 0.0
        assert eligibility.traces_AF.max() <= 1.0
        for state in (somewhere, *(state for state, _, _ in trained)):
            weights = eligibility.weights(state)
            assert weights.shape == (3,)
            assert weights.min() >= 0.0
            assert weights.max() <= c_s
            if state_only:
                assert len(set(weights.tolist())) == 1


@patiently
@given(st.lists(shares, min_size=1, max_size=20), st.data(), st.floats(0.0, 1000.0))
def test_the_weight_of_full_traces_is_c_s_and_of_no_traces_0(features, data, c_s):
    features_F = np.array(features)
    trace_F = np.array([data.draw(shares) for _ in features])
    assert 0.0 <= influence(trace_F, features_F, c_s=c_s) <= c_s
    assert influence(np.zeros(len(features)), features_F, c_s=c_s) == 0.0
    if features_F.sum() > 1e-100:
        assert influence(np.ones(len(features)), features_F, c_s=c_s) == pytest.approx(c_s)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.05, 1.5), min_size=1, max_size=25), st.lists(st.booleans(), min_size=25, max_size=25))
def test_nothing_grows_outside_training(lengths, training):
    """Switched at the boundaries: whatever the steps and sessions, a boundary without training adds nothing."""
    assigner, now = CreditAssigner(Uniform(0.2, 0.8)), 0.0
    eligibility = Eligibility(OneHot([25]), 1, c_s=1.0, step_decay=1.0)
    for k, length in enumerate(lengths):
        if training[k] != assigner.training:
            assigner.set_training(training[k], now)
        assigner.end(now)
        before = eligibility.traces_AF.copy()
        eligibility.step(grown(assigner.collect(now)))
        if not training[k]:
            assert np.array_equal(eligibility.traces_AF, before)
        assert eligibility.traces_AF.max() <= 0.2 + 1e-9  # no step grows by more than a · f in total
        assigner.begin(k, Chosen(np.array([float(k)]), 0), now)
        now += length


@patiently
@given(kinds, states, st.lists(numbers, min_size=3, max_size=3))
def test_equal_weights_are_a_tie(kind, state, values):
    phi_F = FEATURES[kind](state)
    weights_AF = np.outer(values, np.random.default_rng(0).normal(size=len(phi_F)))
    weights_AF[1] = weights_AF[2]
    found = products(weights_AF, phi_F)
    assert found[1] == found[2]
    assert normalised(FEATURES[kind], phi_F)[-1] == 0.0


@patiently
@given(st.lists(numbers, min_size=1, max_size=6), st.none() | st.integers(0, 5), st.integers(0, 9))
def test_a_greedy_choice_is_among_the_best_and_keeps_the_last_where_it_may(values, last, seed):
    chosen = greedy(values, last, np.random.default_rng(seed))
    assert values[chosen] == max(values)
    if last is not None and last < len(values) and values[last] == max(values):
        assert chosen == last


@patiently
@given(st.sampled_from(COMBINATIONS), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_without_weight_no_technique_changes_a_choice(technique, pairs):
    q_A, h_A = np.array(pairs).T
    assert np.array_equal(choice_values(technique, q_A, h_A, np.zeros(len(q_A))), q_A)
    assert control_probability(technique, 0.0) == 0.0


@patiently
@given(st.sampled_from(COMBINATIONS), st.floats(0.0, 1e9))
def test_the_chance_of_shared_control_is_one(technique, weight):
    assert 0.0 <= control_probability(technique, weight) <= 1.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(measured, st.integers(0, 1), st.floats(-10, 10)), min_size=1, max_size=30), measured)
def test_neighbours_say_nothing_beyond_what_was_said(said, somewhere):
    model = Neighbours(2, 2)
    model.learn([Sample(k, Chosen(state, action), label) for k, (state, action, label) in enumerate(said)], [])
    for action, value in enumerate(model.values(somewhere)):
        labels = [label for _, a, label in said if a == action] or [0.0]
        assert min(labels) - 1e-9 <= value <= max(labels) + 1e-9
