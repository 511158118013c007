"""Simulated trainers: one seed, one trainer; each knob does what it says; judgements do not depend on scales."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rein.errors import UserError
from rein.feedback.credit import Gamma, Uniform
from rein.feedback.simulate import Manner, SimulatedTrainer, rule_judge, value_judge

N = 4000
DELAY = Uniform(0.25, 0.7)


def right(observation, action: int) -> float:
    """A judge who wants action 0."""
    return 1.0 if action == 0 else -1.0


def said(manner: Manner, *, judge=right, delay=DELAY, seed: int = 0, n: int = N, episode: int = 0, actions=(0, 1)):
    """What a trainer says of n steps whose actions alternate."""
    trainer = SimulatedTrainer(judge, delay, manner, seed)
    return [trainer.see(None, action, episode) for action in itertools.islice(itertools.cycle(actions), n)]


def values(answers) -> list[float | None]:
    return [answer and answer[0] for answer in answers]


def near(share: float, n: int = N):
    """A share of n independent steps, within four standard errors."""
    return pytest.approx(share, abs=4 * max(share * (1 - share) / n, 1 / n**2) ** 0.5)


def test_the_default_is_a_perfect_trainer_who_judges_every_step():
    assert values(said(Manner())) == [1.0, -1.0] * (N // 2)


def test_one_seed_gives_the_same_presses_and_another_seed_others():
    manner = Manner(0.5, 0.2, 0.3, 0.0, 0.1, 0.5)
    assert said(manner, seed=3) == said(manner, seed=3)
    assert said(manner, seed=3) != said(manner, seed=4)


@pytest.mark.parametrize("frequency", [0.0, 0.2, 0.5, 1.0])
def test_frequency_is_the_share_of_steps_that_are_judged(frequency):
    answers = said(Manner(frequency))
    assert np.mean([answer is not None for answer in answers]) == near(frequency)


@pytest.mark.parametrize("error", [0.0, 0.1, 0.5, 1.0])
def test_error_is_the_share_of_judgements_turned_around(error):
    wrong = [value != perfect for value, perfect in zip(values(said(Manner(error=error))), [1, -1] * N, strict=False)]
    assert np.mean(wrong) == near(error)


@pytest.mark.parametrize("positivity", [0.0, 0.3, 1.0])
def test_positivity_is_the_share_of_punishments_swallowed(positivity):
    answers = values(said(Manner(positivity=positivity)))
    assert answers[::2] == [1.0] * (N // 2)
    assert np.mean([answer is None for answer in answers[1::2]]) == near(positivity, N // 2)
    assert set(answers[1::2]) <= {-1.0, None}


def test_strictness_is_what_a_judgement_must_exceed_to_be_praised():
    def graded(observation, action):
        return {0: 1.0, 1: 0.4, 2: -0.4, 3: -1.0}[action]

    found = {
        strictness: values(said(Manner(strictness=strictness), judge=graded, n=4, actions=(0, 1, 2, 3)))
        for strictness in (-1.0, -0.5, 0.0, 0.4, 0.5, 1.0)
    }
    assert found == {
        -1.0: [1.0, 1.0, 1.0, None],
        -0.5: [1.0, 1.0, 1.0, -1.0],
        0.0: [1.0, 1.0, -1.0, -1.0],
        0.4: [1.0, None, -1.0, -1.0],  # just what was to be exceeded: nothing to say
        0.5: [1.0, -1.0, -1.0, -1.0],
        1.0: [None, -1.0, -1.0, -1.0],
    }


def test_fatigue_lowers_the_frequency_with_each_episode():
    for episode in (0, 1, 5, 20):
        answers = said(Manner(0.8, fatigue=0.1), episode=episode)
        assert np.mean([answer is not None for answer in answers]) == near(0.8 * 0.9**episode)
    assert values(said(Manner(fatigue=1.0), n=10)) == [1.0, -1.0] * 5
    assert values(said(Manner(fatigue=1.0), n=10, episode=1)) == [None] * 10


def test_feedback_that_depends_on_the_policy_judges_against_what_is_usual():
    def graded(observation, action):
        return [-0.2, 0.6][action]

    # An agent that has long done well is blamed for what a beginner is praised for no more than its usual.
    spoiled = SimulatedTrainer(graded, DELAY, Manner(strictness=0.3, policy_dependence=1.0), 0)
    first = spoiled.see(None, 1, 0)
    later = [spoiled.see(None, 1, 0) for _ in range(200)][-1]
    assert (first[0], later[0]) == (1.0, -1.0)
    # An agent that has long done badly is praised for less.
    lenient = SimulatedTrainer(lambda o, a: [-1.0, -0.2][a], DELAY, Manner(policy_dependence=1.0), 0)
    assert lenient.see(None, 1, 0)[0] == -1.0
    for _ in range(200):
        lenient.see(None, 0, 0)
    assert lenient.see(None, 1, 0)[0] == 1.0


def test_feedback_that_does_not_depend_on_the_policy_never_changes():
    answers = values(said(Manner(), judge=lambda o, a: 0.1, n=500))
    assert answers == [1.0] * 500


@pytest.mark.parametrize("delay", [Uniform(0.25, 0.7), Uniform(0.0, 2.0), Gamma(2.0, 0.28)])
def test_delays_are_drawn_from_the_density(delay):
    delays = np.array([answer[1] for answer in said(Manner(), delay=delay)])
    for probability in (0.1, 0.5, 0.9):
        assert np.mean(delays <= delay.inverse_cdf(probability)) == near(probability)
    assert delays.min() >= 0


def test_a_knob_leaves_all_other_draws_as_they_are():
    plain, rare = said(Manner()), said(Manner(frequency=0.4))
    assert all(answer in (None, full) for answer, full in zip(rare, plain, strict=True))
    turned = said(Manner(error=0.3))
    assert [a[1] for a in turned] == [a[1] for a in plain]
    polite = said(Manner(positivity=0.5))
    assert all(answer in (None, full) for answer, full in zip(polite, plain, strict=True))


# -------------------------------------------------------------------------------------------------------- judges


def test_a_rule_praises_its_own_action_and_blames_the_rest():
    judge = rule_judge(lambda state: 2 if state > 0 else 0)
    assert [judge(1.0, action) for action in range(3)] == [-1.0, -1.0, 1.0]
    assert [judge(-1.0, action) for action in range(3)] == [1.0, -1.0, -1.0]


def test_values_are_graded_from_worst_to_best():
    judge = value_judge(lambda state: np.array([1.0, 5.0, 4.0]))
    assert [judge(None, action) for action in range(3)] == [-1.0, 1.0, pytest.approx(0.5)]


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e6])
@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_judgements_do_not_depend_on_the_scale_of_values(scale, shift):
    random = np.random.default_rng(0)
    table = random.normal(size=(200, 4))
    plain, scaled = value_judge(lambda s: table[s]), value_judge(lambda s: scale * (table[s] + shift))
    for state in range(200):
        for action in range(4):
            judgement = plain(state, action)
            assert -1.0 <= judgement <= 1.0
            assert scaled(state, action) == pytest.approx(judgement, abs=1e-9)


def test_of_equal_values_there_is_nothing_to_say():
    judge = value_judge(lambda state: [3.0, 3.0])
    assert judge(None, 0) == judge(None, 1) == 0.0
    assert values(said(Manner(), judge=judge, n=20)) == [None] * 20


# ----------------------------------------------------------------------------------------------------- bad knobs


@pytest.mark.parametrize("knob", ["frequency", "error", "positivity", "fatigue", "policy_dependence", "strictness"])
@pytest.mark.parametrize("value", [-1.5, 1.5, float("nan"), float("inf")])
def test_a_knob_out_of_range_is_an_error_that_names_its_flag(knob, value):
    with pytest.raises(UserError) as caught:
        Manner(**{knob: value})
    flag = "--trainer-" + knob.replace("_", "-")
    assert f"{flag} is {value:g}" in caught.value.problem
    assert flag in caught.value.fix


@pytest.mark.parametrize("knob", ["frequency", "error", "positivity", "fatigue", "policy_dependence"])
def test_a_share_is_not_below_nothing(knob):
    with pytest.raises(UserError, match="it is a share: 0 to 1"):
        Manner(**{knob: -0.01})
    Manner(**{knob: 0.0})
    Manner(**{knob: 1.0})
