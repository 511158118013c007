"""States at some places: those of the whole pass, and their gradient, without what nobody reads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.models.gpt import GPT, GPTConfig
from rein.models.read_at import states_at
from rein.models.rows import Completion, lay_out, states

KINDS = {"gpt2": {}, "gpt1": {"norm": "post"}, "gpt3": {"attention": "banded", "band": 3}, "one": {"n_layer": 1}}
IDS = st.lists(st.integers(0, 22), min_size=1, max_size=8).map(tuple)


def small(kind: str, **changes) -> GPT:
    shape = {"n_vocab": 23, "n_ctx": 24, "n_embd": 16, "n_head": 2, "n_layer": 2, **KINDS[kind], **changes}
    return GPT(GPTConfig(**shape)).initialise(0).double()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(
    completions=st.lists(st.builds(Completion, IDS, IDS), min_size=1, max_size=5),
    width=st.one_of(st.none(), st.integers(16, 24)),
)
def test_they_are_those_of_the_whole_pass(kind, completions, width):
    model, rows = small(kind), lay_out(completions, width=width)
    whole_ND, _ = states(model, rows)
    expected = whole_ND[rows.at_M]
    weights = torch.randn_like(expected)
    theirs = torch.autograd.grad((expected * weights).sum(), list(model.parameters()), allow_unused=True)
    found, wte_VD = states_at(model, rows, rows.at_M)
    ours = torch.autograd.grad((found * weights).sum(), list(model.parameters()), allow_unused=True)
    assert torch.allclose(found, expected, atol=1e-12)
    assert wte_VD.shape == (23, 16)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-10)


def test_with_dropout_the_masks_are_those_of_the_whole_pass():
    model, rows = small("gpt2", dropout=0.5).train(), lay_out([Completion((1, 2), (3, 4))])
    model.seed_dropout(3)
    assert torch.equal(states_at(model, rows, rows.at_M)[0], states(model, rows)[0][rows.at_M])
