"""The hand-written operations equal the plain ones, forwards and backwards, as closely as their precision allows."""

import math

import pytest
import torch
import torch.nn.functional as F

from rein.models import ops

BF16 = torch.bfloat16


def rounding(reference_bf16, exact):
    """The largest error that PyTorch's own bfloat16 operator makes: what a hand-written one may make too."""
    return (reference_bf16.float() - exact).abs().max().item()


def plain_attention(qkv, n_head):
    B, T, width = qkv.shape
    q, k, v = (x.view(B, T, n_head, -1).transpose(1, 2) for x in qkv.split(width // 3, -1))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, width // 3)


@pytest.mark.parametrize("T", [1, 5, 127, 128, 129, 256, 300])
def test_stored_attention(T):
    torch.manual_seed(T)
    qkv = torch.randn(2, T, 3 * 4 * 16).to(BF16).requires_grad_()
    g = torch.randn(2, T, 64).to(BF16)
    out = ops.causal_attention(qkv, 4)
    out.backward(g)
    exact = qkv.detach().float().requires_grad_()
    expected = plain_attention(exact, 4)
    expected.backward(g.float())
    theirs = qkv.detach().requires_grad_()
    flash = F.scaled_dot_product_attention(
        *(x.view(2, T, 4, 16).transpose(1, 2) for x in theirs.split(64, -1)), is_causal=True
    ).transpose(1, 2).reshape(2, T, 64)  # fmt: skip
    flash.backward(g)
    assert rounding(out, expected) <= 2 * rounding(flash, expected) + 0.01
    assert rounding(qkv.grad, exact.grad) <= 2 * rounding(theirs.grad, exact.grad) + 0.02


def test_attention_in_float32_is_the_plain_one():
    torch.manual_seed(0)
    qkv = torch.randn(2, 33, 48, requires_grad=True)
    torch.testing.assert_close(ops.causal_attention(qkv, 2), plain_attention(qkv, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("T", "band"), [(5, 3), (6, 3), (7, 3), (64, 16), (50, 16), (9, 1), (8, 8), (3, 9)])
def test_banded_attention_and_its_gradient(T, band):
    torch.manual_seed(0)
    qkv = torch.randn(2, T, 48, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, T, 16, dtype=torch.float64)
    out = ops.causal_attention(qkv, 2, band=band)
    (grad,) = torch.autograd.grad(out, qkv, g)
    i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]
    seen = (j <= i) & (j > i - band)
    assert seen.sum(1).tolist() == [min(t + 1, band) for t in range(T)]
    q, k, v = (x.view(2, T, 2, 8).transpose(1, 2) for x in qkv.split(16, -1))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(2, T, 16)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, qkv, g)[0])


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
