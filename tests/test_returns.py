"""Returns against sums written out, and what no response may do to another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.returns import gae, last_places, token_rewards, whiten

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def brute(rewards, values, gamma, lam):
    """A_t = Σ_l (gamma lam)^l δ_{t+l}, from its definition."""
    deltas = [
        rewards[t] + gamma * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t] for t in range(len(rewards))
    ]
    return [sum((gamma * lam) ** n * d for n, d in enumerate(deltas[t:])) for t in range(len(deltas))]


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, gamma=st.floats(0, 1), lam=st.floats(0, 1), seed=st.integers(0, 99))
def test_gae_is_its_definition_for_each_response_alone(lengths, gamma, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, sum(lengths), generator=generator, dtype=torch.float64)
    advantages, returns = gae(rewards, values, torch.tensor(lengths), gamma=gamma, lam=lam)
    expected = []
    for r, v in zip(rewards.split(lengths), values.split(lengths), strict=True):
        expected += brute(r.tolist(), v.tolist(), gamma, lam)
    assert advantages.tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(returns, advantages + values)


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, kl_coef=st.floats(0, 2), seed=st.integers(0, 99))
def test_rewards_of_a_response_sum_to_score_less_penalty_and_the_score_is_on_its_last_token(lengths, kl_coef, seed):
    generator = torch.Generator().manual_seed(seed)
    logprobs, ref = torch.randn(2, sum(lengths), generator=generator, dtype=torch.float64)
    scores = torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    rewards = token_rewards(scores, logprobs, ref, torch.tensor(lengths), kl_coef=kl_coef)
    parts = zip(rewards.split(lengths), (logprobs - ref).split(lengths), scores, strict=True)
    for reward, log_ratio, score in parts:
        assert float(reward.sum()) == pytest.approx(float(score - kl_coef * log_ratio.sum()), abs=1e-9)
    unscored = token_rewards(torch.zeros_like(scores), logprobs, ref, torch.tensor(lengths), kl_coef=kl_coef)
    changed = (rewards - unscored).nonzero()[:, 0].tolist()
    assert changed == last_places(torch.tensor(lengths)).tolist()


def test_a_response_without_tokens_is_refused():
    with pytest.raises(AssertionError, match="no place for its score"):
        token_rewards(torch.zeros(2), torch.zeros(1), torch.zeros(1), torch.tensor([1, 0]), kl_coef=0.1)


def test_whitening_is_numpys_and_can_leave_the_mean():
    x = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    white = whiten(x)
    assert float(white.mean()) == pytest.approx(0, abs=1e-12)
    assert float(white.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(whiten(x, shift_mean=False), white + 4)
