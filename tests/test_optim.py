"""Optimisers and schedules against scalar re-computations and published values."""

import math
from functools import partial

import pytest
import torch

from rein.models.gpt import GPT, GPTConfig
from rein.optim import GPT1Adam, SteadyAdamW, adam_state, decayed_and_not, gpt1_cosine, ramped_batch, warmup_cosine

GPT3 = {"warmup_tokens": 375e6, "decay_tokens": 260e9, "final_frac": 0.1}


def test_gpt3_schedule():
    assert warmup_cosine(0, **GPT3) == 0
    assert warmup_cosine(375e6, **GPT3) == 1
    assert warmup_cosine((375e6 + 260e9) / 2, **GPT3) == pytest.approx(0.55)
    assert warmup_cosine(260e9, **GPT3) == warmup_cosine(300e9, **GPT3) == 0.1
    rates = [warmup_cosine(t * 1e9, **GPT3) for t in range(1, 261)]
    assert rates == sorted(rates, reverse=True)


def test_no_warm_up():
    assert warmup_cosine(0, warmup_tokens=0, decay_tokens=10, final_frac=0) == 1
    assert gpt1_cosine(0, warmup_frac=0) == 1


def test_gpt1_schedule_starts_at_zero_and_is_not_rescaled():
    assert gpt1_cosine(0, warmup_frac=0.002) == 0
    assert gpt1_cosine(0.002, warmup_frac=0.002) == 1
    assert gpt1_cosine(0.0021, warmup_frac=0.002) == 0.5 * (1 + math.cos(math.pi * 0.0021))
    assert gpt1_cosine(1, warmup_frac=0.002) == pytest.approx(0, abs=1e-12)


def test_the_ramp_takes_as_many_updates_as_the_linear_law_says():
    # From 32k to 0.5M tokens over 4 billion: about 23,500 updates of the continuous law, instead of 8,000.
    tokens, updates = 0, 0
    while tokens < 4e9:
        tokens += 2048 * ramped_batch(tokens, start=16, full=244, ramp_tokens=4e9)
        updates += 1
    assert updates == pytest.approx(23_400, rel=0.01)


def test_gpt1_adam_against_a_scalar_recomputation():
    p = torch.nn.Parameter(torch.tensor([[0.7]]))
    bias = torch.nn.Parameter(torch.tensor([0.7]))
    optimizer = GPT1Adam([{"params": [p]}, {"params": [bias], "weight_decay": 0.0}], lr=0.01)
    b1, b2, eps, decay = 0.9, 0.999, 1e-8, 0.01
    x, y, m, v = 0.7, 0.7, 0.0, 0.0
    for t, g in enumerate([0.3, -0.2, 0.05, 1.1, -0.7], start=1):
        p.grad, bias.grad = torch.tensor([[g]]), torch.tensor([g])
        optimizer.step()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        rate = 0.01 * math.sqrt(1 - b2**t) / (1 - b1**t)
        x, y = x - rate * (m / (math.sqrt(v) + eps) + decay * x), y - rate * m / (math.sqrt(v) + eps)
        assert p.item() == pytest.approx(x, rel=1e-6)
        assert bias.item() == pytest.approx(y, rel=1e-6)


def test_gpt1_adam_is_not_adamw():
    # Without gradients only the decay is left: at update 1 it is √(1 − b2) / (1 − b1) = 0.316 of AdamW's.
    moved = {}
    for kind in (GPT1Adam, torch.optim.AdamW):
        p = torch.nn.Parameter(torch.ones(1, 1))
        p.grad = torch.zeros(1, 1)
        kind([{"params": [p]}], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.5).step()
        moved[kind] = 1 - p.item()
    assert moved[GPT1Adam] / moved[torch.optim.AdamW] == pytest.approx(0.316, rel=2e-3)


def test_steady_adamw_is_adamw_but_for_rounding():
    moved = {}
    for kind in (SteadyAdamW, torch.optim.AdamW):
        generator = torch.Generator().manual_seed(0)
        p = torch.nn.Parameter(torch.randn(50, 7, dtype=torch.float64, generator=generator))
        optimizer = kind([{"params": [p]}], lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.5)
        for _ in range(20):
            p.grad = torch.randn(p.shape, dtype=torch.float64, generator=generator)
            optimizer.step()
        moved[kind] = p.detach()
    assert (moved[SteadyAdamW] - moved[torch.optim.AdamW]).abs().max() < 1e-13


@pytest.mark.parametrize("cut", [1, 3, 8, 13])  # torch's fused AdamW fails three of them with so many elements
@pytest.mark.parametrize("kind", [GPT1Adam, SteadyAdamW])
def test_an_elements_new_value_depends_on_that_element_alone(kind, cut):
    def trained(start, gradients):
        p = torch.nn.Parameter(start.clone())
        optimizer = kind([{"params": [p]}], lr=0.01)
        for gradient in gradients:
            p.grad = gradient
            optimizer.step()
        return p.detach()

    start, *gradients = torch.randn(10, 40_000, generator=torch.Generator().manual_seed(0))
    parts = [trained(start[part], [g[part] for g in gradients]) for part in (slice(cut), slice(cut, None))]
    assert torch.equal(torch.cat(parts), trained(start, gradients))


@pytest.mark.parametrize("kind", [GPT1Adam, SteadyAdamW, torch.optim.AdamW, partial(torch.optim.AdamW, fused=True)])
def test_a_state_that_is_made_is_the_one_that_a_first_update_makes(kind):
    p = torch.nn.Parameter(torch.ones(2, 3))
    made = adam_state(kind([{"params": [p]}], lr=0.01), p)
    updated = kind([{"params": [p]}], lr=0.01)
    p.grad = torch.ones(2, 3)
    updated.step()
    assert made.keys() == updated.state[p].keys()
    for name, tensor in updated.state[p].items():
        assert (made[name].dtype, made[name].shape) == (tensor.dtype, tensor.shape), name
        assert not made[name].any(), name
    assert adam_state(updated, p)["step"] == 1


def test_the_number_of_updates_is_on_the_device_only_where_the_update_is_fused():
    p = torch.nn.Parameter(torch.ones(2, 3, device="meta"))
    optimizer = GPT1Adam([{"params": [p]}], lr=0.01)
    assert adam_state(optimizer, p)["step"].device.type == "cpu"
    optimizer.state.clear()
    optimizer.defaults["fused"] = True
    assert adam_state(optimizer, p)["step"].device.type == "meta"


def test_what_decays():
    model = GPT(GPTConfig(11, 8, 8, 2, 2))
    decayed, rest = decayed_and_not(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 2)[-2:][-1] for p in decayed["params"]} == {"wte", "wpe", "weight"}
    assert all("ln_" in names[id(p)] or names[id(p)].endswith("bias") for p in rest["params"])
    assert rest["weight_decay"] == 0
    assert len(decayed["params"]) + len(rest["params"]) == len(names)
