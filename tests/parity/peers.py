"""transformers, and how our models are compared with its own."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="the parity tests compare with transformers")


def random_tokens(n_vocab, shape, *, seed):
    return torch.randint(0, n_vocab, shape, generator=torch.Generator().manual_seed(seed))


def assert_close_logits(ours, theirs):
    """Within 1e-5 of the largest."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def assert_same_weights(ours, theirs):
    """To the last bit; both are models of ours."""
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(a, b), name
