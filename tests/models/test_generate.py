"""Sampling: the right distribution, the same text whatever the batch, and every end of a sequence."""

import numpy as np
import pytest
import torch

from rein.errors import UserError
from rein.models.generate import generate, sample
from rein.models.gpt import GPT, GPTConfig


@pytest.fixture(scope="module", params=["gpt1", "gpt2", "gpt3"])
def model(request):
    kind = {"gpt1": {"norm": "post", "initialisation": "flat"}, "gpt2": {}, "gpt3": {"attention": "banded", "band": 5}}
    model = GPT(GPTConfig(31, 48, 24, 3, 3, **kind[request.param])).initialise(0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model


PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [9], [4, 4], [8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3]]


def test_greedy_is_the_likeliest_token_of_a_full_forward_pass(model):
    (answer,) = generate(model, [PROMPTS[0]], max_new_tokens=20, temperature=0)
    ids = list(PROMPTS[0])
    for token in answer:
        with torch.no_grad():
            assert token == model(torch.tensor([ids]))[0, -1].argmax().item()
        ids.append(token)
    assert len(answer) == 20


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.3}, {"top_k": 7}, {"top_p": 0.8}])
def test_a_sequence_does_not_change_with_its_batch_mates(model, options):
    together = generate(model, PROMPTS, max_new_tokens=16, seed=5, **options)
    for row, prompt in enumerate(PROMPTS):
        fewer = generate(model, [*PROMPTS[:row], prompt], max_new_tokens=16, seed=5, **options)
        assert fewer[row] == together[row]
    padded = generate(model, [[3], *PROMPTS[1:3]], max_new_tokens=16, seed=5, **options)
    assert padded[1:] == together[1:3]


def test_a_longer_answer_begins_with_the_shorter_one(model):
    short = generate(model, PROMPTS, max_new_tokens=5, seed=1)
    long = generate(model, PROMPTS, max_new_tokens=20, seed=1)
    assert [answer[:5] for answer in long] == short
    assert generate(model, PROMPTS, max_new_tokens=20, seed=2) != long


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, [0.1, 0.2, 0.3, 0.4]),
        ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
        ({"temperature": 1.0, "top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"temperature": 1.0, "top_p": 0.65}, [0, 0, 3 / 7, 4 / 7]),
        ({"temperature": 1.0, "top_p": 0.71}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.4}, [0, 0, 0, 1]),
        ({"temperature": 0.0}, [0, 0, 0, 1]),
    ],
)
def test_the_distribution_that_is_drawn_from(options, expected):
    n = 40_000
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).expand(n, 4)
    drawn = sample(logits, torch.from_numpy(np.random.default_rng(0).random(n)), **options)
    frequency = torch.bincount(drawn, minlength=4) / n
    torch.testing.assert_close(frequency, torch.tensor(expected, dtype=torch.float32), atol=0.01, rtol=0)


def test_a_token_of_probability_zero_is_never_drawn():
    logits = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, 4)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert sample(logits, uniform, temperature=1.0).tolist() == [0, 2, 2]


def test_end_of_text_ends_a_sequence_and_is_left_out(model):
    free = generate(model, PROMPTS, max_new_tokens=30, seed=3)
    eot = free[0][4]
    ended = generate(model, PROMPTS, max_new_tokens=30, seed=3, eot_id=eot)
    for a, b in zip(free, ended, strict=True):
        assert b == (a[: a.index(eot)] if eot in a else a)


def test_on_token_sees_every_token_and_can_end_a_sequence(model):
    seen = [[] for _ in PROMPTS]

    def stop_row_1_after_3(row, token):
        seen[row].append(token)
        return row == 1 and len(seen[1]) == 3

    answers = generate(model, PROMPTS, max_new_tokens=8, seed=4, on_token=stop_row_1_after_3)
    assert answers == seen
    assert [len(answer) for answer in answers] == [8, 3, 8, 8]


def test_bfloat16_runs_and_returns_tokens(model):
    answers = generate(model, PROMPTS, max_new_tokens=8, precision="bf16")
    assert all(0 <= token < 31 for answer in answers for token in answer)


def test_nothing_asked_for(model):
    assert generate(model, [], max_new_tokens=5) == []
    assert generate(model, PROMPTS, max_new_tokens=0) == [[], [], [], []]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": [[1], []]}, "no tokens"),
        ({"prompts": [[1] * 40]}, "need n_ctx ≥ 50, but this model has n_ctx=48"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
    ],
)
def test_bad_options(model, changes, words):
    with pytest.raises(UserError, match=words):
        generate(model, **{"prompts": PROMPTS, "max_new_tokens": 10} | changes)
