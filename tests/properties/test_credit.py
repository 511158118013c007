"""What holds of credit for any steps, any presses and any density of delay."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.feedback.credit import CreditAssigner, Gamma, Uniform, credit, used_credit

patiently = settings(deadline=None)  # the machine may be busy

seconds = st.floats(0.01, 3.0)
uniforms = st.tuples(st.floats(0.0, 1.0), st.floats(0.05, 3.0)).map(lambda n: Uniform(n[0], n[0] + n[1]))
gammas = st.builds(Gamma, st.floats(0.5, 6.0), st.floats(0.02, 0.6))
densities = uniforms | gammas
# A step that outlasts every density's tail comes first; after it steps, some long as a pause after an episode is.
lengths_s = st.lists(seconds, min_size=1, max_size=20).map(lambda lengths: [200.0, *lengths])


def boundaries(lengths: list[float]) -> list[float]:
    return list(itertools.accumulate(lengths, initial=0.0))


@patiently
@given(densities, lengths_s, st.floats(0.0, 1.0))
def test_the_credits_of_one_press_over_steps_without_gaps_sum_to_one(density, lengths, where):
    edges = boundaries(lengths)
    press = 200.0 + where * (edges[-1] - 200.0)
    shares = [credit(density, start, end, press) for start, end in itertools.pairwise(edges)]
    assert sum(shares) == pytest.approx(1.0, abs=1e-9)
    assert all(0.0 <= share <= 1.0 for share in shares)


@patiently
@given(densities, lengths_s, st.floats(0.0, 1.0), st.floats(-10, 10))
def test_a_press_is_given_away_whole(density, lengths, where, value):
    assigner = CreditAssigner(density, late_s=1e6)  # nothing is final, so nothing is missed
    assigner.set_training(True, 0.0)
    edges = boundaries(lengths)
    for k, now in enumerate(edges):
        assigner.end(now)
        assigner.collect(now)
        assigner.begin(k, None, now)
    given_away = assigner.press(value, edges[-1] + where)
    assert sum(share for _, share in given_away) == pytest.approx(1.0, abs=1e-9)
    assert sum(step.reward for step in assigner.steps) == pytest.approx(value, abs=1e-8)


@patiently
@given(densities, st.floats(0.0, 1000.0), seconds, st.lists(st.floats(-1.0, 30.0), min_size=2, max_size=20))
def test_used_credit_rises_from_nothing_to_all(density, start, length, offsets):
    found = [used_credit(density, start, start + length, start + x) for x in sorted(offsets)]
    assert all(0.0 <= used <= 1.0 for used in found)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(found))
    assert used_credit(density, start, start + length, start) == 0.0
    assert used_credit(density, start, start + length, start + length + 60.0) == pytest.approx(1.0, abs=1e-9)


@patiently
@given(uniforms, seconds)
def test_used_credit_of_a_window_begins_and_ends_with_it(density, length):
    assert used_credit(density, 0.0, length, density.low_s) == 0.0
    assert used_credit(density, 0.0, length, length + density.high_s) == pytest.approx(1.0, abs=1e-9)


@patiently
@given(uniforms, lengths_s, st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(-10, 10)), max_size=6))
def test_final_labels_sum_to_what_was_pressed(density, lengths, presses):
    edges = boundaries(lengths)
    presses = sorted((200.0 + where * (edges[-1] - 200.0), value) for where, value in presses)
    edges += [edges[-1] + 10.0, edges[-1] + 20.0]  # steps that outlast every window
    assigner = CreditAssigner(density)
    assigner.set_training(True, 0.0)
    labels, waiting = {}, list(presses)
    for k, now in enumerate(edges):
        while waiting and waiting[0][0] <= now:
            at, value = waiting.pop(0)
            assigner.press(value, at)
        assigner.end(now)
        collected = assigner.collect(now)
        assigner.begin(k, None, now)
        assert not labels.keys() & {sample.number for sample in collected.final}
        labels |= {sample.number: sample.label for sample in collected.final}
    said = sum(abs(value) for _, value in presses)
    assert sum(labels.values()) == pytest.approx(sum(value for _, value in presses), abs=1e-8 + 2e-5 * said)


@patiently
@given(densities, lengths_s)
def test_the_credit_newly_used_adds_up_to_all_of_it(density, lengths):
    edges = boundaries(lengths)
    edges += [edges[-1] + 30.0, edges[-1] + 60.0, edges[-1] + 90.0]
    assigner = CreditAssigner(density)
    assigner.set_training(True, 0.0)
    grown: dict[int, float] = {}
    for k, now in enumerate(edges):
        assigner.end(now)
        for sample in assigner.collect(now).growth:
            grown[sample.number] = grown.get(sample.number, 0.0) + sample.new_credit
        assigner.begin(k, None, now)
    for k in range(len(lengths)):
        assert grown[k] == pytest.approx(1.0, abs=2e-5)
