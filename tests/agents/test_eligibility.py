"""The eligibility module: where training happened lately, Ĥ weighs; elsewhere it does not."""

from __future__ import annotations

import numpy as np
import pytest

from rein.agents.eligibility import Annealed, Eligibility, influence
from rein.agents.features import RBF, OneHot
from rein.agents.human_model import Chosen
from rein.agents.lesson import LessonConfig, make_influence
from rein.agents.tamer import grown
from rein.agents.tasks import make_task
from rein.feedback.credit import ByStep, CreditAssigner, Gamma, Uniform

STATE = np.array([0.25, -0.5])
N_STEPS = 40


def grid() -> RBF:
    return RBF([-1.0, -1.0], [1.0, 1.0], n=4, rel_width=0.3)


def module(**settings) -> Eligibility:
    return Eligibility(grid(), 3, **({"c_s": 100.0, "step_decay": 1.0} | settings))


def lesson(assigner: CreditAssigner, eligibility: Eligibility, *, on=0.0, off=1e9, steps: int = N_STEPS) -> None:
    """Steps of 0.2 s, each in a state of its own, all with action 1; training lasts from `on` to `off`; one press."""
    for k in range(steps):
        now = 0.2 * k
        if (on <= now < off) != assigner.training:
            assigner.set_training(not assigner.training, now)
        if k == 10:
            assigner.press(-1.0, now)
        assigner.end(now)
        eligibility.step(grown(assigner.collect(now)))
        assigner.begin(k, Chosen(np.array([float(k)]), 1), now)


def one_state_a_step(**settings) -> Eligibility:
    return Eligibility(OneHot([N_STEPS]), 3, **({"c_s": 100.0, "step_decay": 1.0} | settings))


# ------------------------------------------------------------------------------------------------- the weight


def test_the_weight_is_c_s_times_the_share_of_active_features_with_a_trace():
    random = np.random.default_rng(0)
    trace, features = random.random(9), random.random(9)
    expected = 7.0 * sum(e * f for e, f in zip(trace, features, strict=True)) / sum(features)
    assert influence(trace, features, c_s=7.0) == pytest.approx(expected)
    assert influence(np.ones(9), features, c_s=7.0) <= 7.0
    assert influence(np.ones(9), features, c_s=7.0) == pytest.approx(7.0)
    assert influence(np.zeros(9), features, c_s=7.0) == 0.0
    assert influence(np.ones(9), np.zeros(9), c_s=7.0) == 0.0


def test_each_action_has_its_own_trace():
    eligibility = module()
    eligibility.step([(STATE, 2, 1.0)])
    assert eligibility.traces_AF.shape == (3, 17)
    weights = eligibility.weights(STATE)
    phi = grid()(STATE)[:-1]
    assert weights.tolist() == [0.0, 0.0, pytest.approx(100.0 * 0.2 * (phi @ phi) / phi.sum())]


def test_state_only_has_one_trace_for_all_actions():
    eligibility = module(state_only=True)
    for action in range(3):
        eligibility.step([(STATE, action, 0.5)])
    assert eligibility.traces_AF.shape == (1, 17)
    weights = eligibility.weights(STATE)
    phi = grid()(STATE)[:-1]
    assert weights.tolist() == pytest.approx([100.0 * 0.3 * (phi @ phi) / phi.sum()] * 3)
    assert len(set(weights.tolist())) == 1


def test_the_weight_is_high_near_training_and_nothing_far_away():
    fine = RBF([-1.0, -1.0], [1.0, 1.0], n=10, rel_width=0.08)
    eligibility = Eligibility(fine, 3, c_s=100.0, growth=1.0)
    for _ in range(50):
        eligibility.step([(np.array([-0.9, -0.9]), 0, 1.0)])
    assert eligibility.weights(np.array([-0.9, -0.9]))[0] > 90
    assert eligibility.weights(np.array([0.9, 0.9]))[0] < 0.1


def test_constants_are_dropped():
    eligibility = module()
    for _ in range(30):
        eligibility.step([(STATE, 0, 1.0)])
    assert grid()(STATE)[-1] == 0.1
    assert eligibility.traces_AF[0, -1] == 0.0
    assert eligibility.traces_AF[0, :-1].max() == 1.0


# ------------------------------------------------------------------------------------------- growth and decay


def test_a_trace_grows_by_credit_times_a_times_feature_up_to_one():
    eligibility = module(growth=0.2)
    phi = grid()(STATE)[:-1]
    for n in range(1, 60):
        eligibility.step([(STATE, 1, 0.3)])
        assert eligibility.traces_AF[1, :-1] == pytest.approx(np.minimum(1.0, n * 0.3 * 0.2 * phi))
    assert not eligibility.traces_AF[0].any()


def test_traces_decay_before_they_grow_and_at_the_end_of_an_episode():
    eligibility = module(step_decay=0.9, episode_decay=0.5)
    phi = grid()(STATE)[:-1]
    eligibility.step([(STATE, 1, 1.0)])
    eligibility.step([(STATE, 1, 0.5)])
    assert eligibility.traces_AF[1, :-1] == pytest.approx((0.9 * 0.2 + 0.1) * phi)
    for _ in range(3):
        eligibility.step([])
    assert eligibility.traces_AF[1, :-1] == pytest.approx(0.28 * 0.9**3 * phi)
    eligibility.end_episode()
    assert eligibility.traces_AF[1, :-1] == pytest.approx(0.28 * 0.9**3 * 0.5 * phi)


@pytest.mark.parametrize(
    "assigner",
    [
        lambda: CreditAssigner(Uniform(0.2, 0.8)),
        lambda: CreditAssigner(Uniform(0.2, 0.8), late_s=0.3),
        lambda: CreditAssigner(Uniform(0.15, 0.4), scheme="individual-rewarded"),
        lambda: CreditAssigner(Gamma(2.0, 0.1)),
        lambda: CreditAssigner(ByStep(1)),
        lambda: CreditAssigner(ByStep(0)),
    ],
    ids=["uniform", "late", "individual", "gamma", "previous", "immediate"],
)
def test_a_trained_step_adds_a_times_its_features_in_total_rewarded_or_not(assigner):
    eligibility = one_state_a_step()
    lesson(assigner(), eligibility, steps=20)
    assert eligibility.traces_AF[1, :12] == pytest.approx(np.full(12, 0.2), abs=1e-5)
    assert eligibility.traces_AF[1].max() <= 0.2 + 1e-12
    assert not eligibility.traces_AF[[0, 2]].any()


def test_nothing_grows_outside_training():
    eligibility = one_state_a_step()
    lesson(CreditAssigner(Uniform(0.2, 0.8)), eligibility, on=1e9)
    assert not eligibility.traces_AF.any()


def test_what_is_lived_before_and_after_a_session_leaves_no_trace():
    # Training lasts from 2.01 to 5.01 s: the boundaries from 2.2 to 5.0 s lie in it.
    eligibility = one_state_a_step()
    lesson(CreditAssigner(Uniform(0.2, 0.8)), eligibility, on=2.01, off=5.01)
    trace = eligibility.traces_AF[1]
    assert not trace[:9].any()  # step 9, from 1.8 to 2.0 s, has its first chance of credit at 2.0 s
    assert trace[11:21] == pytest.approx(np.full(10, 0.2), abs=1e-5)  # step 20 ends at 4.2 s and is over by 5.0 s
    assert (np.diff(trace[20:25]) < 0).all()
    assert not trace[25:].any()


def test_traces_stand_still_but_for_their_decay_when_training_is_over():
    eligibility, assigner = one_state_a_step(step_decay=0.99), CreditAssigner(Uniform(0.2, 0.8))
    lesson(assigner, eligibility, steps=15)
    assigner.set_training(False, 2.9)
    before = eligibility.traces_AF.copy()
    for k in range(15, 30):
        assigner.end(0.2 * k)
        eligibility.step(grown(assigner.collect(0.2 * k)))
        assigner.begin(k, Chosen(np.array([float(k)]), 1), 0.2 * k)
    assert eligibility.traces_AF == pytest.approx(before * 0.99**15)


# -------------------------------------------------------------------------------------------- the papers' numbers


@pytest.mark.parametrize(
    ("task", "technique", "c_s", "decay"),
    [
        ("mountain-car", "action-biasing", 100.0, (0.9998, 1.0)),
        ("mountain-car", "control-sharing", 2.0, (0.9998, 1.0)),
        ("cart-pole", "action-biasing", 200.0, (0.99996, 0.98)),
        ("cart-pole", "control-sharing", 1.0, (0.99996, 0.98)),
    ],
)
def test_the_papers_numbers_of_the_module(task, technique, c_s, decay):
    made = make_influence(LessonConfig(task, technique=technique), make_task(task))
    assert isinstance(made, Eligibility)
    assert (made.c_s, made.growth, made.step_decay, made.episode_decay) == (c_s, 0.2, *decay)
    assert made.state_only == (technique == "control-sharing")
    assert made.features.size == {"mountain-car": 1601, "cart-pole": 4097}[task]


def test_reward_shaping_traces_states_and_actions():
    made = make_influence(LessonConfig(technique="reward-shaping"), make_task("mountain-car"))
    assert isinstance(made, Eligibility)
    assert made.traces_AF.shape == (3, 1601)


def test_a_weight_and_a_growth_that_are_given_are_taken():
    config = LessonConfig(technique="action-biasing", h_weight=7.0, eligibility_growth=1.0)
    made = make_influence(config, make_task("mountain-car"))
    assert (made.c_s, made.growth) == (7.0, 1.0)


TECHNIQUES = {
    "reward-shaping": True,
    "feature-augmentation": False,
    "q-initialisation": False,
    "q-augmentation": False,
    "extra-action": False,
    "action-biasing": True,
    "control-sharing": True,
    "potential-shaping": False,
}


@pytest.mark.parametrize(("task", "decay"), [("mountain-car", 0.98), ("cart-pole", 0.97)])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_only_techniques_1_6_and_7_are_annealed(task, decay, technique):
    config = LessonConfig(task, technique=technique, influence="annealed", h_weight=8.0)
    made = make_influence(config, make_task(task))
    assert isinstance(made, Annealed)
    made.step([(STATE, 0, 1.0)])
    assert made.weights(STATE).tolist() == [8.0] * make_task(task).n_actions
    for _ in range(3):
        made.end_episode()
    expected = 8.0 * decay**3 if TECHNIQUES[technique] else 8.0
    assert made.weights(STATE).tolist() == pytest.approx([expected] * make_task(task).n_actions)
