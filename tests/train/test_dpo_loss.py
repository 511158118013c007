"""DPO's and IPO's losses: their gradients by the papers' formulas, and the policies that make them smallest."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.losses import dpo, ipo, pairwise
from rein.models.gpt import GPT, GPTConfig
from rein.models.rows import Completion, lay_out, logprobs, sums

NUMBERS = st.floats(-20, 20)


@settings(max_examples=50, deadline=None)
@given(NUMBERS, NUMBERS, st.floats(0.01, 2), st.floats(0, 1), st.floats(0, 0.49))
def test_it_is_a_pairwise_loss_of_implied_rewards(better, worse, kl_coef, p, label_smoothing):
    better_P, worse_P = torch.tensor([better], dtype=torch.float64), torch.tensor([worse], dtype=torch.float64)
    p_P = torch.tensor([p], dtype=torch.float64)
    found = dpo(better_P, worse_P, kl_coef=kl_coef, p=p_P, label_smoothing=label_smoothing)
    sure = p * (1 - label_smoothing) + (1 - p) * label_smoothing
    gap = kl_coef * (better - worse)
    assert found.item() == pytest.approx(
        sure * math.log1p(math.exp(-gap)) + (1 - sure) * math.log1p(math.exp(gap)), rel=1e-9
    )
    turned = dpo(worse_P, better_P, kl_coef=kl_coef, p=1 - p_P, label_smoothing=label_smoothing)
    assert turned.item() == pytest.approx(found.item(), rel=1e-9)


def test_its_gradient_is_that_of_the_paper():
    """∇ = −kl_coef · σ(reward_worse − reward_better) · (∇ log π(better) − ∇ log π(worse)), Rafailov 2023, section 4."""
    torch.manual_seed(0)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    ref_V, kl_coef = torch.randn(5, dtype=torch.float64).log_softmax(0), 0.3
    ratio_V = logits_V.log_softmax(0) - ref_V
    loss = dpo(ratio_V[1:2], ratio_V[3:4], kl_coef=kl_coef)
    (found_V,) = torch.autograd.grad(loss.sum(), logits_V, retain_graph=True)
    pulls = [torch.autograd.grad(ratio_V[i], logits_V, retain_graph=True)[0] for i in (1, 3)]
    weight = torch.sigmoid(kl_coef * (ratio_V[3] - ratio_V[1])).item()
    assert torch.allclose(found_V, -kl_coef * weight * (pulls[0] - pulls[1]), atol=1e-12)


def plain(model, ref, queries, better, worse, kl_coef):
    """DPO in rows that are padded, with whole logits and a mask, pair by pair."""
    losses = []
    for query, *answers in zip(queries, better, worse, strict=True):
        ratios = []
        for answer in answers:
            tokens = torch.tensor([[*query, *answer, 0, 0]])
            mask = torch.zeros(tokens.shape[1] - 1)
            mask[len(query) - 1 : len(query) + len(answer) - 1] = 1
            each = [
                m(tokens)[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[0, :, 0] @ mask for m in (model, ref)
            ]
            ratios.append(each[0] - each[1].detach())
        losses.append(-F.logsigmoid(kl_coef * (ratios[0] - ratios[1])))
    return torch.stack(losses).mean()


def test_loss_and_gradient_of_a_model_are_those_of_a_plain_implementation():
    config = GPTConfig(n_vocab=23, n_ctx=16, n_embd=16, n_head=2, n_layer=2)
    model, ref = GPT(config).initialise(0), GPT(config).initialise(1)
    queries, better, worse = [(1, 2, 3), (4,)], [(5, 6), (7, 8, 9, 10)], [(11, 12, 13, 14), (15,)]
    expected = plain(model, ref, queries, better, worse, 0.5)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    completions = [
        Completion(*each) for each in [*zip(queries, better, strict=True), *zip(queries, worse, strict=True)]
    ]
    rows = lay_out(completions, width=16)
    with torch.no_grad():
        ref_N = sums(logprobs(ref, rows), rows)
    ratio_N = sums(logprobs(model, rows), rows) - ref_N
    found = dpo(ratio_N[:2], ratio_N[2:], kl_coef=0.5).mean()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, gradients[name], atol=1e-6), name


def minimised(loss_of, n=4):
    """The policy over n responses that makes a loss smallest."""
    logits = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure():
        descent.zero_grad()
        loss = loss_of(logits.log_softmax(0))
        loss.backward()
        return loss

    for _ in range(20):
        descent.step(closure)
    return logits.detach().log_softmax(0)


@pytest.mark.parametrize("kl_coef", [0.2, 1.0])
def test_the_best_policy_is_that_of_the_reward_with_its_kl_penalty(kl_coef):
    """From comparisons by Bradley & Terry, DPO finds π ∝ π_ref · e^(reward / kl_coef): what PPO is after too."""
    reward = torch.tensor([0.0, 0.5, -0.3, 0.9], dtype=torch.float64)
    ref = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log()
    i, j = torch.tensor(list(itertools.combinations(range(4), 2))).T
    p = torch.sigmoid(reward[i] - reward[j])
    found = minimised(lambda logp: dpo(logp[i] - ref[i], logp[j] - ref[j], kl_coef=kl_coef, p=p).mean())
    assert torch.allclose(found, (ref + reward / kl_coef).log_softmax(0), atol=1e-6)


@pytest.mark.parametrize(("loss", "wanted"), [
    (dpo, lambda kl_coef, sure: math.log(sure / (1 - sure)) / kl_coef),
    (ipo, lambda kl_coef, sure: (2 * sure - 1) / (2 * kl_coef)),
])  # fmt: skip
def test_smoothed_labels_want_a_gap_that_is_finite(loss, wanted):
    ref = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    found = minimised(
        lambda logp: loss(logp[:1] - ref[:1], logp[1:] - ref[1:], kl_coef=0.7, label_smoothing=0.1).mean(), n=2
    )
    assert (found[0] - found[1]).item() == pytest.approx(wanted(0.7, 0.9), abs=1e-5)


def test_ipo_without_smoothing_wants_its_gap_though_all_agree():
    gaps = torch.tensor([0.0, 5.0, 10.0])
    assert ipo(gaps, torch.zeros(3), kl_coef=0.1).tolist() == pytest.approx([25.0, 0.0, 25.0])
    surely = ipo(gaps, torch.zeros(3), kl_coef=0.1, p=torch.ones(3))
    assert torch.equal(surely, ipo(gaps, torch.zeros(3), kl_coef=0.1))


def test_without_smoothing_or_p_it_is_the_pairwise_loss_to_the_bit():
    better, worse = torch.randn(2, 9)
    assert torch.equal(dpo(better, worse, kl_coef=0.1), pairwise(0.1 * better, 0.1 * worse))
