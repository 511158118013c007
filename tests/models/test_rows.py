"""Rows of completions: the same numbers, however they are packed, ordered, padded, split."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.models import ops
from rein.models.gpt import GPT, GPTConfig
from rein.models.rows import Completion, batches, lay_out, log_ratios, logprobs, split, states, sums, sums_of
from rein.models.scalar import Scalar

N_VOCAB = 23


def small(**changes) -> GPT:
    shape = {"n_vocab": N_VOCAB, "n_ctx": 24, "n_embd": 16, "n_head": 2, "n_layer": 2, **changes}
    model = GPT(GPTConfig(**shape)).initialise(0)
    with torch.no_grad():
        model.wpe.mul_(30)  # positions that matter
    return model.double()


MODELS = {"gpt2": small(), "gpt1": small(norm="post"), "gpt3": small(attention="banded", band=3)}
IDS = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=8).map(tuple)
COMPLETIONS = st.lists(st.builds(Completion, IDS, IDS), min_size=1, max_size=6)


def alone(model: GPT, each: Completion) -> torch.Tensor:
    ids = torch.tensor([[*each.query, *each.response]])
    all_BTV = model(ids).log_softmax(dim=-1)
    return all_BTV[0, len(each.query) - 1 : -1].gather(1, ids[0, len(each.query) :, None])[:, 0]


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=25, deadline=None)
@given(completions=COMPLETIONS, width=st.one_of(st.none(), st.integers(16, 24)))
def test_a_completion_has_the_same_numbers_alone_packed_and_beside_others(kind, completions, width):
    model = MODELS[kind]
    rows = lay_out(completions, width=width)
    found = logprobs(model, rows)
    expected = torch.cat([alone(model, each) for each in completions])
    assert torch.allclose(found, expected, atol=1e-9)
    head = Scalar(model).double().initialise(1)
    scores_N = torch.stack([head.scores(lay_out([each]))[0] for each in completions])
    assert torch.allclose(head.scores(rows), scores_N, atol=1e-9)
    values_M = torch.cat([head(states(model, one)[0][one.at_M]) for one in (lay_out([each]) for each in completions)])
    assert torch.allclose(head(states(model, rows)[0][rows.at_M]), values_M, atol=1e-9)
    assert [len(each) for each in split(found, [len(each.response) for each in completions])] == [
        len(each.response) for each in completions
    ]
    assert torch.allclose(sums(found, rows)[0], found[: len(completions[0].response)].sum())


@settings(max_examples=50, deadline=None)
@given(completions=COMPLETIONS, width=st.integers(16, 24))
def test_texts_that_share_a_row_are_numbered_and_what_is_left_of_it_is_one_more(completions, width):
    found = lay_out(completions, width=width)
    of_rows: list[list[int]] = []  # lengths
    for each in completions:
        if not of_rows or sum(of_rows[-1]) + len(each) > width:
            of_rows.append([])
        of_rows[-1].append(len(each))
    T = max(map(sum, of_rows))
    for lengths in of_rows:
        lengths.append(T - sum(lengths))
    if len(of_rows) == len(completions):
        assert found.positions_BT is found.documents_BT is None
        return
    assert found.positions_BT.tolist() == [[at for n in row for at in range(n)] for row in of_rows]
    assert found.documents_BT.tolist() == [[text for text, n in enumerate(row) for _ in range(n)] for row in of_rows]


@settings(max_examples=10, deadline=None)
@given(completions=COMPLETIONS, at_once=st.integers(16, 60))
def test_log_ratios_are_those_of_each_completion_alone(completions, at_once):
    model, other = MODELS["gpt2"], MODELS["gpt1"]
    found_N = log_ratios(model, other, completions, tokens_at_once=at_once)
    expected = [(alone(model, each) - alone(other, each)).sum().item() for each in completions]
    assert found_N.tolist() == pytest.approx(expected, abs=1e-9)
    assert log_ratios(model, model, completions, tokens_at_once=at_once).tolist() == [0.0] * len(completions)
    lengths_N = sums_of(completions, lambda rows: torch.ones(len(rows.at_M)), tokens_at_once=at_once)
    assert lengths_N.tolist() == [len(each.response) for each in completions]


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), at_once=st.integers(40, 200))
def test_batches_hold_every_place_once_within_the_limit(lengths, at_once):
    groups = batches(lengths, at_once)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(len(group) * max(lengths[place] for place in group) <= at_once for group in groups)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_logprobs_and_their_gradient_are_those_of_the_plain_form(temperature, monkeypatch):
    monkeypatch.setattr(ops, "_LOGITS_AT_ONCE", 3 * N_VOCAB)  # several pieces, the last one shorter
    torch.manual_seed(0)
    x, wte = (torch.randn(n, 16, dtype=torch.float64, requires_grad=True) for n in (8, N_VOCAB))
    targets, weights = torch.randint(0, N_VOCAB, (8,)), torch.randn(8, dtype=torch.float64)
    found = ops.token_logprobs(x, wte, targets, temperature=temperature)
    plain = -F.cross_entropy(x @ wte.t() / temperature, targets, reduction="none")
    assert torch.allclose(found, plain, atol=1e-9)
    grads = [torch.autograd.grad((values * weights).sum(), (x, wte)) for values in (found, plain)]
    for ours, theirs in zip(*grads, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_a_head_begins_as_the_paper_says():
    model = GPT(GPTConfig(n_vocab=5, n_ctx=4, n_embd=4095, n_head=1, n_layer=1))
    head = Scalar(model).initialise(0)
    assert head.weight.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert [head.b.item(), head.gain.item(), head.bias.item()] == [0, 1, 0]
