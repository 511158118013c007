"""Losses: equal to their formulas written out in plain Python, to torch's own, and to what learns by them already."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from rein.losses import best_of, demonstration, flags, likert, pairwise, press, ranking, rating

TIES = {"drop": {}, "half": {}, "rao_kupper": {"theta": 1.7}, "davidson": {"nu": 0.6}}


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def by_the_formula(scores: list[float], ranks: list[int], ties: str, theta: float = 0.0, nu: float = 0.0) -> float:
    """The loss of one ranking, from the papers' probabilities as they are printed."""
    terms = []
    for i in range(len(scores)):
        for j in range(i + 1, len(scores)):
            better, worse = (i, j) if ranks[i] <= ranks[j] else (j, i)
            tied = ranks[i] == ranks[j]
            a, b = math.exp(scores[better]), math.exp(scores[worse])
            if ties == "drop" and tied:
                continue
            if ties in ("drop", "half"):
                p_win, p_lose = a / (a + b), b / (a + b)
                terms.append(-(math.log(p_win) + math.log(p_lose)) / 2 if tied else -math.log(p_win))
            elif ties == "rao_kupper":
                p_win = a / (a + theta * b)
                p_tie = (theta**2 - 1) * a * b / ((a + theta * b) * (theta * a + b))
                terms.append(-math.log(p_tie if tied else p_win))
            else:
                total = a + b + nu * math.sqrt(a * b)
                terms.append(-math.log((nu * math.sqrt(a * b) if tied else a) / total))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("ties", TIES)
def test_a_ranking_is_its_formula_written_out(ties):
    draw = random.Random(0)
    for _ in range(50):
        k = draw.randint(2, 9)
        scores = [draw.gauss(0, 3) for _ in range(k)]
        ranks = [draw.randint(1, k) for _ in range(k)]
        found = ranking(torch.tensor([scores], dtype=torch.float64), torch.tensor([ranks]), ties=ties, **TIES[ties])
        assert found.item() == pytest.approx(by_the_formula(scores, ranks, ties, **TIES[ties]), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("ties", ["rao_kupper", "davidson"])
def test_win_tie_and_loss_are_all_that_can_happen(ties):
    scores_BK = torch.tensor([[0.3, 1.9]], dtype=torch.float64)
    chances = [
        torch.exp(-ranking(scores_BK, torch.tensor([ranks]), ties=ties, **TIES[ties]))
        for ranks in ([1, 2], [1, 1], [2, 1])
    ]
    assert sum(chances).item() == pytest.approx(1.0, abs=1e-12)


def test_two_of_equal_score_tie_as_often_as_the_parameter_says():
    even, tie = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1, 1]])
    theta, nu = 1.7, 0.6
    found = torch.exp(-ranking(even, tie, ties="rao_kupper", theta=theta)).item()
    assert found == pytest.approx((theta - 1) / (theta + 1))
    assert torch.exp(-ranking(even, tie, ties="davidson", nu=nu)).item() == pytest.approx(nu / (2 + nu))


@pytest.mark.parametrize(("ties", "name"), [("rao_kupper", "theta"), ("davidson", "nu")])
def test_how_often_ties_come_can_be_learned(ties, name):
    """From 30% ties among equals, the parameter that makes 30% ties comes out."""
    ranks_BK = torch.tensor([[1, 1]] * 30 + [[1, 2]] * 35 + [[2, 1]] * 35)
    free = torch.zeros((), dtype=torch.float64, requires_grad=True)
    descent = torch.optim.Adam([free], lr=0.05)
    for _ in range(500):
        parameter = free.exp() + (1 if name == "theta" else 0)
        loss = ranking(torch.zeros(100, 2, dtype=torch.float64), ranks_BK, ties=ties, **{name: parameter}).mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
    wanted = 1.3 / 0.7 if name == "theta" else 0.6 / 0.7  # (θ − 1)/(θ + 1) = ν/(2 + ν) = 0.3
    assert parameter.item() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ties": "rao_kupper"}, "ties='rao_kupper' needs theta"),
        ({"ties": "davidson"}, "ties='davidson' needs nu"),
        ({"ties": "davidson", "nu": 1.0, "theta": 2.0}, "ties='davidson' takes no theta"),
        ({"ties": "drop", "nu": 1.0}, "ties='drop' takes no nu"),
        ({"ties": "rao_kupper", "theta": 1.0}, "theta is 1, but it must be above 1"),
        ({"ties": "davidson", "nu": 0.0}, "nu is 0, but it must be above 0"),
        ({"ties": "davidson", "nu": math.nan}, "nu is nan, but it must be above 0"),
    ],
)
def test_a_model_of_ties_without_its_parameter_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        ranking(torch.zeros(1, 2), torch.tensor([[1, 1]]), **settings)


def test_a_row_without_a_pair_has_no_loss_and_no_gradient():
    scores_BK = torch.tensor([[1.0, 2.0], [1.0, 2.0]], requires_grad=True)
    loss_B = ranking(scores_BK, torch.tensor([[1, 1], [1, 2]]))
    loss_B.sum().backward()
    assert loss_B[0].item() == 0.0
    assert scores_BK.grad[0].tolist() == [0.0, 0.0]
    assert scores_BK.grad[1].tolist() != [0.0, 0.0]


def test_a_comparison_is_the_cross_entropy_of_its_certainty():
    gap_B = torch.tensor([-3.0, 0.0, 0.4, 7.0], dtype=torch.float64)
    p_B = torch.tensor([0.0, 0.25, 0.9, 1.0], dtype=torch.float64)
    wanted_B = torch.nn.functional.binary_cross_entropy_with_logits(gap_B, p_B, reduction="none")
    assert torch.allclose(pairwise(gap_B, torch.zeros_like(gap_B), p=p_B), wanted_B, rtol=1e-12, atol=1e-14)


def test_a_margin_is_what_the_gap_has_to_exceed():
    better_B, worse_B, margin_B = torch.tensor([2.0]), torch.tensor([0.5]), torch.tensor([1.0])
    found = pairwise(better_B, worse_B, margin=margin_B).item()
    assert found == pytest.approx(-log_sigmoid(2.0 - 0.5 - 1.0))
    both = pairwise(better_B, worse_B, margin=margin_B, p=torch.tensor([0.75])).item()
    assert both == pytest.approx(-0.75 * log_sigmoid(0.5) - 0.25 * log_sigmoid(-2.5))


def test_best_of_is_the_softmax_written_out():
    scores = [0.3, -1.0, 2.0]
    found = best_of(torch.tensor([scores], dtype=torch.float64), torch.tensor([1]))
    assert found.item() == pytest.approx(-math.log(math.exp(-1.0) / sum(map(math.exp, scores))), rel=1e-12)


def test_marks_are_squared_errors_and_each_axis_weighs_the_same():
    nan = math.nan
    scores_BKA = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]]], dtype=torch.float64)
    marks_BKA = torch.tensor([[[2.0, nan, nan], [5.0, 7.0, nan]]], dtype=torch.float64)
    found = likert(scores_BKA, marks_BKA)
    assert found.item() == pytest.approx(((1 + 4) / 2 + 9) / 2)  # two axes: one with two marks, one with one
    assert rating(scores_BKA[..., 0], marks_BKA[..., 0]).item() == pytest.approx((1 + 4) / 2)
    assert likert(scores_BKA, torch.full_like(marks_BKA, nan)).item() == 0.0


def test_a_missing_mark_has_no_gradient():
    scores_BKA = torch.zeros(1, 1, 2, requires_grad=True)
    likert(scores_BKA, torch.tensor([[[3.0, math.nan]]])).sum().backward()
    assert scores_BKA.grad.tolist() == [[[-6.0, 0.0]]]


def test_flags_are_yes_or_no_each_by_itself():
    logits_BKF = torch.tensor([[[0.5, -2.0], [1.0, 3.0]]], dtype=torch.float64)
    applies_BKF = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    wanted = -(log_sigmoid(0.5) + log_sigmoid(2.0) + log_sigmoid(-1.0) + log_sigmoid(3.0)) / 4
    assert flags(logits_BKF, applies_BKF).item() == pytest.approx(wanted, rel=1e-12)


def test_a_demonstration_is_the_mean_over_its_own_tokens_not_over_the_padding():
    logprobs_BT = torch.tensor([[-1.0, -2.0, -3.0], [-5.0, math.nan, -math.inf]], dtype=torch.float64)
    mask_BT = torch.tensor([[False, True, True], [True, False, False]])
    assert demonstration(logprobs_BT, mask_BT).tolist() == [2.5, 5.0]


def test_a_demonstration_is_the_cross_entropy_that_a_language_model_trains_on():
    torch.manual_seed(0)
    logits_BTV, tokens_BT = torch.randn(2, 5, 11, dtype=torch.float64), torch.randint(11, (2, 5))
    logprobs_BT = logits_BTV.log_softmax(-1).gather(-1, tokens_BT[..., None])[..., 0]
    wanted = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten())
    found = demonstration(logprobs_BT, torch.ones_like(tokens_BT, dtype=torch.bool)).mean()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


# --------------------------------------------------------------------------------------------- Ĥ learns by it


def samples(n: int):
    from rein.agents.human_model import Chosen
    from rein.feedback.credit import Sample

    draw = np.random.default_rng(0)
    return [
        Sample(k, Chosen(draw.normal(size=3), k % 2), float(draw.normal()), float(draw.uniform(0.1, 1)))
        for k in range(n)
    ]


def test_the_linear_model_of_a_trainer_descends_half_its_gradient():
    from rein.agents.features import Fourier
    from rein.agents.human_model import Linear

    model = Linear(Fourier([-3.0] * 3, [3.0] * 3, n=16), 2, learning_rate=0.05)
    model.complete_AF[:] = np.random.default_rng(1).normal(size=model.complete_AF.shape)
    for sample in samples(20):
        observation, action = sample.what
        weights_AF = torch.tensor(model.complete_AF, requires_grad=True)
        predicted = (weights_AF[action] * torch.tensor(model.features(observation))).sum()
        press(predicted, *torch.tensor([sample.label, sample.weight], dtype=torch.float64)).backward()
        before_AF = model.complete_AF.copy()
        model.learn([sample], [])
        step_AF = model.complete_AF - before_AF
        np.testing.assert_allclose(step_AF, -0.05 / 2 * weights_AF.grad.numpy(), rtol=1e-9, atol=1e-12)
        assert np.abs(step_AF[action]).max() > 0


def test_the_network_of_a_trainer_descends_its_gradient(monkeypatch):
    from rein.agents.human_model import Network

    rows = samples(7)
    model = Network(2, (3,), seed=3, replay_every=10**9)
    with torch.no_grad():
        for parameter in model.net.parameters():  # its last layer starts at 0, where most gradients are
            parameter += 0.1
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(model._adam, "step", lambda: taken.extend(p.grad.clone() for p in model.net.parameters()))
    model.learn(rows, [])
    model.net.zero_grad()
    chosen_N = torch.stack([model.net(model._tensor([s.what.observation]))[0, s.what.action] for s in rows])
    labels_N, weights_N = torch.tensor([s.label for s in rows]), torch.tensor([s.weight for s in rows])
    press(chosen_N, labels_N, weights_N).mean().backward()
    assert taken
    for found, parameter in zip(taken, model.net.parameters(), strict=True):
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-7)
