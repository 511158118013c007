"""The hand-written operations equal the plain ones, forwards and backwards, as closely as their precision allows."""

import math

import pytest
import torch
import torch.nn.functional as F

from rein.models import ops

BF16 = torch.bfloat16


def test_gelu_is_the_tanh_form():
    x = torch.linspace(-6, 6, 1001)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(ops.gelu(x), expected, atol=1e-6, rtol=1e-5)


def test_hand_written_gelu_over_every_bfloat16_number():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(BF16)
    x = every[every.isfinite() & (every.abs() < 1e4)].requires_grad_()
    y = ops.gelu(x)
    y.backward(torch.ones_like(y))
    exact = x.detach().double().requires_grad_()
    expected = F.gelu(exact, approximate="tanh")
    expected.backward(torch.ones_like(expected))
    # Half a unit in the last place of the result, and what float32 cancels in the far negative tail.
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("at_once", [1 << 22, 64, 1])
def test_lm_loss(dtype, at_once, monkeypatch):
    monkeypatch.setattr(ops, "_LOGITS_AT_ONCE", at_once)
    torch.manual_seed(0)
    x = torch.randn(3, 7, 12, dtype=torch.float64, requires_grad=True)
    wte = torch.randn(29, 12, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 29, (3, 7))
    targets[0, :3] = ops.IGNORED
    expected = F.cross_entropy((x @ wte.t()).flatten(0, 1), targets.flatten(), ignore_index=ops.IGNORED)
    expected.mul(1.7).backward()
    x2, wte2 = x.detach().float().requires_grad_(), wte.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=BF16, enabled=dtype == BF16):
        loss = ops.lm_loss(x2, wte2, targets)
    loss.mul(1.7).backward()
    tolerance = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    torch.testing.assert_close(x2.grad.double(), x.grad, **tolerance)
    torch.testing.assert_close(wte2.grad.double(), wte.grad, **tolerance)
    assert not x2.grad[0, :3].any()


def test_losses_without_gradients_equal_those_with_them():
    torch.manual_seed(0)
    x, wte, targets = torch.randn(2, 9, 8, requires_grad=True), torch.randn(17, 8), torch.randint(0, 17, (2, 9))
    targets[1, 4:] = ops.IGNORED
    losses = ops.token_losses(x.detach(), wte, targets)
    assert losses.shape == (2, 9)
    assert not losses[1, 4:].any()
    torch.testing.assert_close(losses.sum() / 13, ops.lm_loss(x, wte, targets))
    with torch.no_grad():
        torch.testing.assert_close(losses.sum() / 13, ops.lm_loss(x, wte, targets))


def test_a_training_step_in_bfloat16_has_the_gradients_of_one_in_float32():
    from rein.models.gpt import GPT, GPTConfig

    model = GPT(GPTConfig(97, 64, 64, 4, 3)).initialise(0)
    tokens = torch.randint(0, 97, (4, 65), generator=torch.Generator().manual_seed(0))
    gradients = {}
    for dtype in (torch.float32, BF16):
        with torch.autocast("cpu", dtype=BF16, enabled=dtype == BF16):
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        gradients[dtype] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    cosine = F.cosine_similarity(gradients[torch.float32], gradients[BF16], dim=0)
    assert cosine > 0.9995, cosine
