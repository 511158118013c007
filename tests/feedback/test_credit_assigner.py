"""From steps and presses to labels: the two credit schemes, extrapolation, and what training on and off mean."""

from __future__ import annotations

import pytest

from rein.feedback.credit import ByStep, CreditAssigner, Gamma, Uniform

LOW, HIGH = 0.2, 0.8
STEP_S = 0.25


def overlap(k: int, press: float) -> float:
    """The share of a press that step k of STEP_S gets."""
    since_end, since_start = press - STEP_S * (k + 1), press - STEP_S * k
    return max(0.0, min(since_start, HIGH) - max(since_end, LOW)) / (HIGH - LOW)


def used(k: int, now: float) -> float:
    """The share of step k's credit that is past: its trapezium in slices of 5 ms, none of which has a kink inside."""
    slices, width = 210, HIGH + STEP_S
    times = [STEP_S * k + width * (i + 0.5) / slices for i in range(slices)]
    return sum(overlap(k, t) for t in times if t < now) * width / slices / STEP_S


def live(assigner: CreditAssigner, steps: int, events=(), step_s: float = STEP_S, ends=()):
    """Boundaries at 0, step_s, 2 step_s … (later by a second after those in `ends`); returns what each collected.

    An event is (time, value) for a press, (time, "on" or "off") for training; one at the time of a boundary is dealt
    with before it.
    """
    waiting, found, now = sorted(events, key=lambda event: event[0]), [], 0.0
    for k in range(steps):
        while waiting and waiting[0][0] <= now:
            at, what = waiting.pop(0)
            if isinstance(what, str):
                assigner.set_training(what == "on", at)
            else:
                assigner.press(what, at)
        assigner.end(now)
        found.append(assigner.collect(now))
        assigner.begin(k, f"step {k}", now)
        now += step_s + (1.0 if k in ends else 0.0)
    return found


def uniform(**settings) -> CreditAssigner:
    return CreditAssigner(Uniform(LOW, HIGH), **settings)


def finals(found) -> dict[int, float]:
    """The final label of each step; each comes once."""
    samples = [sample for collected in found for sample in collected.final]
    labels = {sample.number: sample.label for sample in samples}
    assert len(labels) == len(samples), "a step got two final labels"
    return labels


def thrown_out(found) -> list[int]:
    return [number for collected in found for number in collected.thrown_out]


ON = (0.0, "on")


# ------------------------------------------------------------------------------------------------ labels


def test_silence_is_a_label_of_nothing():
    found = live(uniform(), 12, [ON])
    assert finals(found) == dict.fromkeys(range(7), 0.0)
    assert [sample.what for sample in found[5].final] == ["step 0"]  # at 1.25 s; its window closed at 1.05 s
    assert thrown_out(found) == []


def test_a_label_is_the_sum_of_presses_times_credit():
    presses = [(0.6, 1.0), (0.62, 1.0), (1.3, -10.0), (1.9, 0.5)]
    labels = finals(live(uniform(), 20, [ON, *presses]))
    for k in range(10):
        assert labels[k] == pytest.approx(sum(h * overlap(k, t) for t, h in presses), abs=1e-9), k
    assert min(labels.values()) < -4


def test_a_press_says_which_steps_it_credits():
    assigner = uniform()
    live(assigner, 5, [ON])
    given = assigner.press(1.0, 1.1)
    assert [k for k, _ in given] == [1, 2, 3]
    assert [share for _, share in given] == pytest.approx([overlap(k, 1.1) for k in (1, 2, 3)])
    assert sum(share for _, share in given) == pytest.approx(1.0)


def test_labels_are_extrapolated_once_half_of_the_credit_is_past():
    presses = [(0.6, 1.0), (0.9, -2.0), (1.3, 1.0)]
    found = live(uniform(), 20, [ON, *presses])
    for boundary, collected in enumerate(found):
        now = boundary * STEP_S
        expected = {
            k: sum(h * overlap(k, t) for t, h in presses if t <= now) / used(k, now)
            for k in range(boundary)
            if 0.5 < used(k, now) < 0.9999
        }
        assert {s.number: s.label for s in collected.temporary} == pytest.approx(expected, rel=1e-9, abs=1e-9)
    numbers = [s.number for collected in found for s in collected.temporary]
    assert sorted(set(numbers)) == list(range(17))
    assert numbers.count(5) == 2  # at 71% and at 99%; then the label is final


def test_a_final_label_replaces_the_extrapolated_one():
    found = live(uniform(), 7, [ON, (0.55, 1.0), (0.9, 1.0)])
    guesses = [s.label for collected in found for s in collected.temporary if s.number == 0]
    assert len(guesses) == 2
    assert finals(found)[0] == pytest.approx(overlap(0, 0.55) + overlap(0, 0.9))
    assert guesses[0] != pytest.approx(finals(found)[0])


def test_without_extrapolation_labels_wait():
    found = live(uniform(extrapolate=False), 20, [ON, (0.6, 1.0)])
    assert not any(collected.temporary for collected in found)
    assert finals(found) == finals(live(uniform(), 20, [ON, (0.6, 1.0)]))


# ----------------------------------------------------------------------------------------------- schemes


def test_aggregate_rewarded_leaves_out_silence():
    events = [ON, (2.1, 1.0)]
    rewarded = finals(live(uniform(scheme="aggregate-rewarded"), 20, events))
    every = finals(live(uniform(), 20, events))
    assert rewarded == {k: label for k, label in every.items() if label != 0}
    assert sorted(rewarded) == [k for k in range(20) if overlap(k, 2.1) > 0]


@pytest.mark.parametrize("scheme", ["individual", "individual-rewarded"])
def test_individual_reward_gives_one_sample_for_each_press_and_step(scheme):
    presses = [(2.1, 1.0), (2.2, -1.0), (2.6, 10.0)]
    found = live(uniform(scheme=scheme), 24, [ON, *presses])
    samples = [s for collected in found for s in collected.final]
    for press, value in presses:
        weights = {s.number: s.weight for s in samples if s.label == value}
        assert weights == pytest.approx({k: overlap(k, press) for k in range(24) if overlap(k, press) > 0})
        assert sum(weights.values()) == pytest.approx(1.0)
    assert not any(collected.temporary for collected in found)


def test_individual_silence_weighs_as_much_as_the_credit_that_passed():
    quiet = [s for c in live(uniform(scheme="individual"), 20, [ON]) for s in c.final]
    assert {s.label for s in quiet} == {0.0}
    for k in range(15):
        assert sum(s.weight for s in quiet if s.number == k) == pytest.approx(1.0, abs=2e-5)
    rewarded = live(uniform(scheme="individual-rewarded"), 20, [ON])
    assert not any(c.final or c.temporary for c in rewarded)


def test_all_credit_to_the_previous_step():
    found = live(CreditAssigner(ByStep(1)), 6, [ON, (0.3, 1.0), (0.4, 1.0), (0.6, -1.0)])
    assert finals(found) == {0: 2.0, 1: -1.0, 2: 0.0, 3: 0.0}
    assert [s.number for s in found[2].final] == [0]  # when the next step has ended
    assert not any(c.temporary for c in found)


def test_all_credit_to_the_step_that_is_going_on():
    found = live(CreditAssigner(ByStep(0)), 5, [ON, (0.1, 1.0), (0.3, 1.0), (0.4, 1.0)])
    assert finals(found) == {0: 1.0, 1: 2.0, 2: 0.0, 3: 0.0}
    assert [s.number for s in found[1].final] == [0]


# -------------------------------------------------------------------------------------- training on and off


def test_steps_that_met_their_first_chance_outside_a_session_are_thrown_out():
    # Training begins at 1.01 s. The window of step k opens at 0.25 k + 0.2 s: for step 4, at 1.2 s.
    found = live(uniform(), 16, [(1.01, "on"), (1.3, 1.0)])
    labels = finals(found)
    assert sorted(labels) == list(range(4, 11))
    assert thrown_out(found) == [0, 1, 2, 3]
    assert labels[4] == pytest.approx(overlap(4, 1.3))


def test_nothing_is_learned_without_training():
    found = live(uniform(), 12)
    assert not any(c.final or c.temporary or c.growth for c in found)


def test_when_training_ends_steps_with_little_of_their_credit_are_thrown_out():
    # At 2 s: step 4 has used 99% and stays as it is; 5, 6 and 7 have used 71%, 29% and 1%.
    found = live(uniform(), 16, [ON, (1.4, 1.0), (1.9, 1.0), (2.0, "off")])
    labels = finals(found)
    assert sorted(labels) == [0, 1, 2, 3, 4]
    assert labels[4] == pytest.approx((overlap(4, 1.4) + overlap(4, 1.9)) / used(4, 2.0), rel=1e-4)
    assert thrown_out(found)[:4] == [5, 6, 7, 8]
    assert not any(c.temporary for c in found[8:])


@pytest.mark.parametrize(("off_at", "kept"), [(0.92, True), (0.86, False)])
def test_nine_tenths_of_the_credit_decide(off_at, kept):
    assert (used(0, off_at) >= 0.9) == kept
    found = live(uniform(), 12, [ON, (0.6, 1.0), (off_at, "off")])
    assert (0 in finals(found)) == kept
    assert (0 in thrown_out(found)) != kept


def test_a_step_that_is_final_since_training_ended_takes_no_more_credit():
    assigner = uniform()
    live(assigner, 4, [ON])
    assigner.set_training(False, 0.99)
    assert 0 not in dict(assigner.press(1.0, 1.0))


def test_steps_of_a_second_session_count_and_those_between_do_not():
    found = live(uniform(), 40, [ON, (2.01, "off"), (5.01, "on")])
    assert sorted(finals(found)) == [0, 1, 2, 3, 4, *range(20, 35)]
    assert sorted(thrown_out(found)) == list(range(5, 20))


@pytest.mark.parametrize("back", [0, 1])
def test_a_step_credited_whole_outside_a_session_is_thrown_out(back):
    found = live(CreditAssigner(ByStep(back)), 12, [(1.01, "on")])
    assert thrown_out(found) == list(range(4 - back))  # those credited at 1 s or before
    assert sorted(finals(found)) == list(range(4 - back, 11 - back))


# ------------------------------------------------------------------------------------ pauses and late presses


def test_a_press_in_the_pause_after_an_episode_reaches_its_last_actions():
    # Step 3 is an episode's last: it lasts from 0.75 to 2.0 s. At 1.35 s people mean what they saw 0.2 to 0.8 s ago.
    found = live(uniform(), 16, [ON, (1.35, 1.0)], ends=[3])
    labels = finals(found)
    assert labels[2] == pytest.approx(0.2 / 0.6)
    assert labels[3] == pytest.approx(0.4 / 0.6)
    assert sum(labels.values()) == pytest.approx(1.0)


def test_a_step_stays_open_for_presses_that_travel():
    # Step 0 can be meant until 1.05 s. A press meant at 0.9 s arrives at 1.28 s, after the boundary at 1.25 s.
    late, at_once = uniform(late_s=0.3), uniform()
    for assigner in (late, at_once):
        found = live(assigner, 6, [ON])
        credited = 0 in dict(assigner.press(1.0, 0.9))
        assert credited == (assigner is late)
        assert (0 in finals(found)) != credited
    late.end(1.5)
    collected = late.collect(1.5)
    assert [(s.number, s.label) for s in collected.final] == [(0, pytest.approx(overlap(0, 0.9), rel=1e-5))]


def test_the_last_guess_is_whole_while_late_presses_are_waited_for():
    found = live(uniform(late_s=0.5), 9, [ON, (0.6, 1.0)])
    guesses = [s.label for collected in found for s in collected.temporary if s.number == 0]
    assert guesses[-1] == pytest.approx(overlap(0, 0.6), rel=1e-5)
    assert finals(found)[0] == pytest.approx(overlap(0, 0.6), rel=1e-5)


def test_labels_do_not_depend_on_how_late_a_press_may_be():
    events = [ON, (0.6, 1.0), (1.3, -1.0), (2.0, 3.0)]
    at_once, late = finals(live(uniform(), 24, events)), finals(live(uniform(late_s=0.4), 24, events))
    assert late == pytest.approx({k: at_once[k] for k in late}, rel=1e-5)
    assert len(late) == len(at_once) - 1


def test_a_gamma_density_gives_labels_too():
    density = Gamma(2.0, 0.28)
    labels = finals(live(CreditAssigner(density), 60, [ON, (8.0, 1.0)]))
    assert sum(labels.values()) == pytest.approx(1.0, abs=1e-4)
    assert max(labels, key=labels.get) in (30, 31)  # the mode of the delay is 0.28 s


def test_steps_do_not_overlap():
    assigner = uniform()
    assigner.begin(0, None, 0.0)
    with pytest.raises(AssertionError, match="step 1 begins before"):
        assigner.begin(1, None, 0.2)
