"""models/tree.py: shared prefixes give what plain sequences give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.models.gpt import GPT, GPTConfig
from rein.models.tree import ROOT, Tree, score

SHAPES = {
    "dense": GPTConfig(n_vocab=23, n_ctx=48, n_embd=32, n_head=4, n_layer=3),
    "banded": GPTConfig(n_vocab=23, n_ctx=48, n_embd=32, n_head=4, n_layer=3, attention="banded", band=5),
    "gpt1": GPTConfig(n_vocab=23, n_ctx=48, n_embd=32, n_head=4, n_layer=2, norm="post", initialisation="flat"),
}


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    made = GPT(SHAPES[request.param]).initialise(3).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # larger than at the start, so that a wrong key shows
            parameter.mul_(4.0) if parameter.dim() > 1 else None
    return made


def naive(model, prompt, completion):
    """log P of each token of a completion, and whether it is the likeliest: its sequence alone, no sharing."""
    logits_TV = model(torch.tensor([[*prompt, *completion]]))[0].double()
    logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
    at = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
    wanted = torch.tensor(completion)
    return logprobs_TV[at, wanted].detach().numpy(), (logits_TV[at].argmax(-1) == wanted).numpy()


tokens = st.lists(st.integers(0, 22), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    data=st.lists(st.tuples(st.lists(tokens, min_size=1, max_size=4), st.lists(tokens, min_size=1, max_size=4)),
                  min_size=1, max_size=5)
)  # fmt: skip
def test_shared_prompts_score_as_plain_sequences_do(model, data):
    """Nested prompts, each with several completions, in one tree a case; all trees in one pass."""
    trees, expected = [], []
    for pieces, completions in data:
        tree, found = Tree(), []
        prompt: list[int] = []
        for piece in pieces:
            prompt = [*prompt, *piece]
            for completion in completions:
                node = tree.extend(ROOT, prompt)
                found.append((tree.complete(node, completion), naive(model, prompt, completion)))
        trees.append(tree)
        expected.append(found)
    for scores, found in zip(score(model, trees), expected, strict=True):
        for nodes, (logprobs, top) in found:
            np.testing.assert_allclose(scores.logprobs_N[nodes], logprobs, atol=2e-5)
            np.testing.assert_array_equal(scores.top_N[nodes], top)


def test_a_score_never_depends_on_the_trees_beside_it(model):
    def tree(seed):
        made, rng = Tree(), np.random.default_rng(seed)
        prompt = made.extend(ROOT, rng.integers(0, 23, 20).tolist())
        for _ in range(4):
            made.complete(prompt, rng.integers(0, 23, 6).tolist())
        return made

    alone = score(model, [tree(0)])[0].logprobs_N
    for many in (2, 7, 31):
        together = score(model, [tree(seed) for seed in range(many)])[0].logprobs_N
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_completions_that_are_the_same_get_the_very_same_number(model):
    tree = Tree()
    prompt = tree.extend(ROOT, [1, 2, 3])
    assert tree.complete(prompt, [4, 5]) == tree.complete(prompt, [4, 5])


def test_many_branches_over_several_blocks(model):
    rng, tree, found = np.random.default_rng(1), Tree(), []
    trunk = rng.integers(0, 23, 30).tolist()
    for cut in range(1, 31):
        completion = rng.integers(0, 23, 12).tolist()
        found.append((tree.complete(tree.extend(ROOT, trunk[:cut]), completion), trunk[:cut], completion))
    assert tree.n_read() > 300
    logprobs_N = score(model, [tree])[0].logprobs_N
    for nodes, prompt, completion in found:
        np.testing.assert_allclose(logprobs_N[nodes], naive(model, prompt, completion)[0], atol=2e-5)


def test_last_tokens_are_predicted_and_not_read():
    tree = Tree()
    prompt = tree.extend(ROOT, [1, 2, 3])
    for token in range(10, 20):
        tree.complete(prompt, [token])
    assert (len(tree), tree.n_read()) == (13, 3)


def test_a_path_may_end_one_token_behind_the_context():
    model = GPT(SHAPES["dense"]).initialise(0).eval()
    tree = Tree()
    nodes = tree.complete(tree.extend(ROOT, [1] * 48), [2])
    assert math.isfinite(score(model, [tree])[0].logprobs_N[nodes[0]])
    tree.complete(nodes[0], [3])
    with pytest.raises(AssertionError, match="a path of 49 tokens"):
        score(model, [tree])


def test_the_likeliest_token_that_is_not_forbidden():
    model = GPT(SHAPES["dense"]).initialise(0).eval()
    prompt = [1, 2, 3]
    ranked = model(torch.tensor([prompt]))[0, -1].argsort(descending=True).tolist()
    tree = Tree()
    node = tree.extend(ROOT, prompt)
    first, second = (tree.complete(node, [token])[0] for token in ranked[:2])
    found = score(model, [tree], forbidden=[ranked[0]])[0]
    assert found.top_N[[first, second]].tolist() == [True, False]
    assert found.allowed_top_N[[first, second]].tolist() == [False, True]


def test_nothing_asked_is_nothing_read():
    model = GPT(SHAPES["dense"]).initialise(0).eval()
    tree = Tree()
    tree.extend(ROOT, [1, 2])
    found = score(model, [tree, Tree()])
    assert [len(scores.logprobs_N) for scores in found] == [2, 0]
    assert np.isnan(found[0].logprobs_N).all()
