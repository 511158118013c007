"""Advantages of groups, weights of tokens, KL in a loss: exact expectations over every draw of a small policy."""

import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.losses import kl_k2, kl_k3, token_weights
from rein.returns import group_advantages

SCORES = st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_advantages_are_their_formulas(scores):
    tensor = torch.tensor(scores, dtype=torch.float64)
    mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
    others = [statistics.fmean(scores[:i] + scores[i + 1 :]) for i in range(len(scores))]
    for estimator, expected in (
        ("rloo", [score - other for score, other in zip(scores, others, strict=True)]),
        ("grpo", [(score - mean) / (deviation + 1e-4) for score in scores]),
        ("mean", [score - mean for score in scores]),
    ):
        found = group_advantages(tensor, len(scores), estimator=estimator)
        assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "mean"])
@given(score=st.floats(-100, 100, width=32), samples=st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_equal_scores_have_no_advantage_at_all(estimator, score, samples):
    """Exactly 0, though a mean of equal float32 numbers is not always that number."""
    found = group_advantages(torch.full((3 * samples,), score), samples, estimator=estimator)
    assert found.tolist() == [0.0] * (3 * samples)


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "mean"])
def test_a_query_changes_nothing_for_another_one(estimator):
    one, other = torch.randn(4), torch.randn(4) * 100
    both = group_advantages(torch.cat([one, other]), 4, estimator=estimator)
    assert torch.equal(both[:4], group_advantages(one, 4, estimator=estimator))
    assert torch.equal(both[4:], group_advantages(other, 4, estimator=estimator))


def test_one_sample_is_refused():
    with pytest.raises(AssertionError, match="no others"):
        group_advantages(torch.zeros(3), 1, estimator="rloo")


# ----------------------------------------------------------------------- a policy small enough to try everything
#
# Over sequences of one or two tokens: 0 ends one, 1 and 2 go on to one more token. Its parameters are the logits.

SEQUENCES = [(0,), *((a, b) for a in (1, 2) for b in (0, 1, 2))]
REWARD = {s: r for s, r in zip(SEQUENCES, [0.3, 1.0, -0.5, 2.0, 0.1, 0.7, -1.3], strict=True)}


def token_logprobs(logits, sequence):
    """log π of each token; `logits` (3, 3): of the first token, of the one behind 1, of the one behind 2."""
    at = [0, *sequence[:-1]]
    return torch.stack([logits[row].log_softmax(0)[token] for row, token in zip(at, sequence, strict=True)])


def chance(logits, sequence):
    return token_logprobs(logits, sequence).sum().exp()


@pytest.fixture
def logits():
    return torch.tensor([[0.2, -0.4, 0.5], [1.0, 0.0, -1.0], [0.3, 0.3, -0.2]], dtype=torch.float64, requires_grad=True)


def expected_gradient(logits, samples, estimator, mean, scores=REWARD):
    """E over all groups of `samples` sequences of −∇ Σ weight · (−A · log π): what an update follows."""
    total = torch.zeros_like(logits)
    for group in itertools.product(SEQUENCES, repeat=samples):
        likely = math.prod(chance(logits, s).item() for s in group)
        advantages = group_advantages(
            torch.tensor([scores[s] for s in group], dtype=torch.float64), samples, estimator=estimator
        )
        lengths = torch.tensor([len(s) for s in group])
        weights = token_weights(lengths, mean, limit=2).double()
        logprobs = torch.cat([token_logprobs(logits, s) for s in group])
        aim = (weights * advantages.repeat_interleave(lengths) * logprobs).sum()
        total += likely * torch.autograd.grad(aim, logits)[0]
    return total


def true_gradient(logits, of):
    return torch.autograd.grad(sum(chance(logits, s) * of(s) for s in SEQUENCES), logits)[0]


@pytest.mark.parametrize("samples", [2, 3])
def test_rloo_follows_the_expected_reward_without_bias(logits, samples):
    found = expected_gradient(logits, samples, "rloo", "none")
    assert torch.allclose(found, true_gradient(logits, REWARD.get), atol=1e-7)


def test_the_other_ways_follow_it_or_not_as_their_words_say(logits):
    truth = true_gradient(logits, REWARD.get)
    assert torch.allclose(expected_gradient(logits, 3, "mean", "none"), truth * 2 / 3, atol=1e-7)
    assert torch.allclose(expected_gradient(logits, 2, "rloo", "limit"), truth / 2, atol=1e-7)
    for estimator, mean in (("rloo", "response"), ("rloo", "token"), ("grpo", "none")):
        found = expected_gradient(logits, 2, estimator, mean)
        along = (found * truth).sum() / (found.norm() * truth.norm())
        assert 0.5 < along < 0.9999, (estimator, mean)  # towards it, but not it


def test_a_penalty_in_the_reward_follows_the_kl_too(logits):
    ref = torch.tensor([[0.0, 0.5, -0.5], [0.1, 0.2, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)

    def worth(sequence):
        return REWARD[sequence] - 0.4 * (token_logprobs(logits, sequence) - token_logprobs(ref, sequence)).sum()

    scores = {s: worth(s).item() for s in SEQUENCES}
    found = expected_gradient(logits, 2, "rloo", "none", scores)
    assert torch.allclose(found, true_gradient(logits, worth), atol=1e-7)


def test_the_two_ways_to_have_a_kl_in_the_loss(logits):
    """At one token: k3 is the KL in the mean, but its gradient is that of the KL the other way round; k2's is right."""
    row, ref = logits[0], torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64).log_softmax(0)

    def gradient(value):
        return torch.autograd.grad(value, logits, retain_graph=True)[0][0]

    def in_loss(estimate):
        logp = row.log_softmax(0)
        return (logp.exp().detach() * estimate(logp, ref)).sum()

    logp = row.log_softmax(0)
    kl, other_way = (logp.exp() * (logp - ref)).sum(), (ref.exp() * (ref - logp)).sum()
    assert in_loss(kl_k3).item() == pytest.approx(kl.item(), abs=1e-12)
    assert torch.allclose(gradient(in_loss(kl_k2)), gradient(kl), atol=1e-12)
    assert torch.allclose(gradient(in_loss(kl_k3)), gradient(other_way), atol=1e-12)
    assert not torch.allclose(gradient(other_way), gradient(kl), atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.floats(-8, 8), st.floats(-8, 8))
def test_a_kl_of_a_loss_is_never_below_0_and_0_where_nothing_changed(logp, ref):
    for estimate in (kl_k2, kl_k3):
        assert estimate(torch.tensor(logp), torch.tensor(ref)).item() >= 0
        assert estimate(torch.tensor(logp), torch.tensor(logp)).item() == 0


# ------------------------------------------------------------------------------------------- weights of tokens


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_weights_of_tokens_are_what_they_say(lengths):
    lengths_N, N, M = torch.tensor(lengths), len(lengths), sum(lengths)
    assert token_weights(lengths_N, "token", limit=9).tolist() == pytest.approx([1 / M] * M)
    assert token_weights(lengths_N, "limit", limit=9).tolist() == pytest.approx([1 / (9 * N)] * M)
    assert token_weights(lengths_N, "none", limit=9).tolist() == pytest.approx([1 / N] * M)
    each = token_weights(lengths_N, "response", limit=9).split(lengths)
    assert [part.sum().item() for part in each] == pytest.approx([1 / N] * N)
    assert all((part == part[0]).all() for part in each)
