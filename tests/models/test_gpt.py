"""Sizes, initialisation, attention patterns and dropout of the one model."""

import math

import numpy as np
import pytest
import torch

from rein.errors import UserError
from rein.models.gpt import GPT, Context, GPTConfig
from rein.models.presets import PRESETS, preset

# Released checkpoints, counted; Brown 2020 Table 2.1 with the formula of facts and Table D.1's millions.
PARAMETERS = {
    "gpt1": 116_534_784,
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
    "gpt3-small": 125_226_240,
    "gpt3-medium": 355_871_744,
    "gpt3-large": 760_300_032,
    "gpt3-xl": 1_315_723_264,
    "gpt3-xl-printed": 1_517_123_584,
    "gpt3-2.7b": 2_651_553_280,
    "gpt3-6.7b": 6_658_404_352,
    "gpt3-13b": 12_853_386_240,
    "gpt3-13b-printed": 12_936_488_380,
    "gpt3-175b": 174_604_259_328,
}


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_counts_to_the_unit(name, expected):
    config = preset(name).model
    with torch.device("meta"):
        counted = sum(p.numel() for p in GPT(config).parameters())
    assert counted == config.n_params() == expected


def test_every_preset_is_counted():
    assert {name for name in PRESETS if not name.startswith("tiny-")} == set(PARAMETERS)


def test_an_unknown_preset_is_suggested():
    with pytest.raises(UserError, match=r"Did you mean .*gpt2-124m"):
        preset("gpt2-125m")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"n_head": 5}, "not a multiple"), ({"n_layer": 0}, "n_layer=0"), ({"dropout": 1.0}, r"dropout=1\.0")],
)
def test_impossible_sizes(changes, words):
    with pytest.raises(UserError, match=words):
        GPTConfig(**{"n_vocab": 10, "n_ctx": 8, "n_embd": 12, "n_head": 3, "n_layer": 1} | changes)


def tiny(seed=0, **changes):
    config = GPTConfig(**{"n_vocab": 61, "n_ctx": 40, "n_embd": 24, "n_head": 3, "n_layer": 4} | changes)
    model = GPT(config).initialise(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model.eval()


KINDS = {
    "gpt1": {"norm": "post", "initialisation": "flat"},
    "gpt2": {},
    "gpt3": {"attention": "banded", "band": 7},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def model(request):
    return tiny(**request.param)


def tokens(B=2, T=40, seed=0):
    return torch.randint(0, 61, (B, T), generator=torch.Generator().manual_seed(seed))


def test_future_tokens_never_change_past_logits(model):
    a, b = tokens(seed=1), tokens(seed=1)
    b[:, 23:] = tokens(seed=2)[:, 23:]
    with torch.no_grad():
        torch.testing.assert_close(model(a)[:, :23], model(b)[:, :23], atol=1e-5, rtol=0)
        assert (model(a)[:, 23:] - model(b)[:, 23:]).abs().max() > 0.1


@pytest.mark.parametrize("T", [1, 2, 6, 7, 8, 14, 20, 40])
def test_banded_attention_is_a_masked_dense_one(T):
    model = tiny(**KINDS["gpt3"])
    ids = tokens(T=T)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference_logits(model, ids), atol=1e-5, rtol=0)


def reference_logits(model, ids):
    """The forward pass once more, by the equations, with explicit masks and no shared code."""
    c, p = model.config, dict(model.named_parameters())
    T, E = ids.shape[1], c.d_inner // c.n_head
    x = p["wte"][ids] + p["wpe"][:T]
    i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]
        )

    def attention(x, n):
        q, k, v = (x @ p[f"h.{n}.attn.c_attn.weight"] + p[f"h.{n}.attn.c_attn.bias"]).split(c.d_inner, -1)
        seen = (j <= i) & (j > i - c.band) if c.attention == "banded" and n % 2 else j <= i
        out = []
        for h in range(c.n_head):
            part = slice(h * E, (h + 1) * E)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(E)
            out.append(scores.masked_fill(~seen, -1e9).softmax(-1) @ v[..., part])
        return torch.cat(out, -1) @ p[f"h.{n}.attn.c_proj.weight"] + p[f"h.{n}.attn.c_proj.bias"]

    def mlp(x, n):
        x = x @ p[f"h.{n}.mlp.c_fc.weight"] + p[f"h.{n}.mlp.c_fc.bias"]
        x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return x @ p[f"h.{n}.mlp.c_proj.weight"] + p[f"h.{n}.mlp.c_proj.bias"]

    for n in range(c.n_layer):
        if c.norm == "pre":
            x = x + attention(norm(x, f"h.{n}.ln_1"), n)
            x = x + mlp(norm(x, f"h.{n}.ln_2"), n)
        else:
            x = norm(x + attention(x, n), f"h.{n}.ln_1")
            x = norm(x + mlp(x, n), f"h.{n}.ln_2")
    return (norm(x, "ln_f") if c.norm == "pre" else x) @ p["wte"].t()


@pytest.mark.parametrize("kind", [*KINDS.values(), {"d_head": 11}], ids=[*KINDS, "printed"])
def test_logits_by_the_equations(kind):
    model, ids = tiny(**kind), tokens()
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference_logits(model, ids), atol=2e-5, rtol=0)


def test_a_band_sees_itself_and_the_band_minus_one_keys_before():
    # Through one banded layer, position t must depend on exactly t-band+1 … t.
    model = tiny(attention="banded", band=4, n_layer=2)
    x = torch.randn(1, 12, 24, requires_grad=True)
    model.h["1"].attn(x, Context())[0, 9].sum().backward()
    assert x.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [6, 7, 8, 9]


def test_initialisation():
    gpt1 = GPT(GPTConfig(500, 64, 64, 4, 8, norm="post", initialisation="flat")).initialise(0)
    gpt2 = GPT(GPTConfig(500, 64, 64, 4, 8)).initialise(0)
    std = {"wte": 0.02, "wpe": 0.02, "h.3.attn.c_attn.weight": 0.02, "h.3.mlp.c_proj.weight": 0.02}
    for name, expected in std.items():
        assert gpt1.get_parameter(name).std().item() == pytest.approx(expected, rel=0.05), name
    std |= {"wpe": 0.01, "h.3.mlp.c_proj.weight": 0.02 / 4, "h.3.attn.c_proj.weight": 0.02 / 4}  # √(2 · 8) = 4
    for name, expected in std.items():
        assert gpt2.get_parameter(name).std().item() == pytest.approx(expected, rel=0.05), name
    for name, p in gpt2.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif "ln_" in name:
            assert (p == 1).all(), name


def test_a_parameter_starts_the_same_in_any_model():
    small, large = tiny(n_layer=2), tiny(n_layer=4)
    assert torch.equal(small.wte, large.wte)
    assert torch.equal(small.h["1"].attn.c_attn.weight, large.h["1"].attn.c_attn.weight)
    assert not torch.equal(tiny(seed=1).wte, small.wte)


def test_gpt1_drops_the_embedding_matrix_and_uses_it_in_the_softmax_too():
    # One mask a batch: every use of a token has the same entries dropped, and so has the tied output.
    model = GPT(GPTConfig(50, 16, 32, 2, 1, norm="post", initialisation="flat", dropout=0.5)).initialise(0).train()
    model.seed_dropout(1)
    _, wte = model.states(torch.zeros(1, 4, dtype=torch.int64))
    kept = wte != 0
    torch.testing.assert_close(wte[kept], 2 * model.wte[kept])
    assert 0.4 < kept.float().mean() < 0.6
    gpt2 = GPT(GPTConfig(50, 16, 32, 2, 1, dropout=0.5)).initialise(0).train()
    gpt2.seed_dropout(1)
    assert gpt2.states(torch.zeros(1, 4, dtype=torch.int64))[1] is gpt2.wte


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_dropout_is_a_function_of_its_seed_alone(norm):
    model = tiny(norm=norm, dropout=0.3).train()

    def loss(seed):
        model.seed_dropout(seed)
        torch.rand(seed % 7 + 1)  # what others draw does not matter
        return model.loss(tokens(), tokens(seed=1))

    first, second, third = (loss(seed).item() for seed in (5, 5, 6))
    assert first == second != third
    model.eval()
    assert loss(5) == loss(6)


def test_other_heads_drop_other_attention_weights():
    attn = tiny(dropout=0.5).h["1"].attn
    x = torch.randn(1, 12, 24, generator=torch.Generator().manual_seed(0))
    first, again = (attn(x, Context(seed=3)) for _ in range(2))
    attn.first_head = 3
    assert torch.equal(first, again)
    assert not torch.allclose(first, attn(x, Context(seed=3)))


def test_training_with_dropout_asks_for_a_seed():
    with pytest.raises(AssertionError, match="seed_dropout"):
        tiny(dropout=0.3).train()(tokens())


def test_a_preset_of_another_name_is_told_ours():
    with pytest.raises(UserError, match="called gpt3-small"):
        preset("gpt3-125m")


def test_a_sequence_longer_than_the_context(model):
    with pytest.raises(UserError, match="41 tokens is longer than the model's context, n_ctx=40"):
        model(tokens(T=41))


def test_cached_logits_are_uncached_logits(model):
    ids = tokens(B=3, T=40)
    ids[2, :7] = ids[0, :7]  # the third goes on behind the query of the first, which is not read again
    with torch.no_grad():
        whole = model(ids)
        cache = model.cache(2, 13, 33, width=2)
        cache.read(np.array([0, 1]), np.array([7, 13]))
        read = model(ids[:2, :13], cache)
        torch.testing.assert_close(read[0, :7], whole[0, :7], atol=1e-5, rtol=0)
        torch.testing.assert_close(read[1], whole[1, :13], atol=1e-5, rtol=0)
        places, begins = np.array([0, 2, 1]), np.array([7, 13, 7])
        for t in range(27):
            cache.step(places, np.full(3, t))
            rows, columns = torch.arange(3), torch.from_numpy(begins + t)
            step = model(ids[rows, columns][:, None], cache)
            torch.testing.assert_close(step[:, 0], whole[rows, columns], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.15)])
def test_packed_weights_give_the_same_logits(model, precision, tolerance):
    ids = tokens(B=4, T=11)
    with torch.inference_mode():
        plain = model(ids)
        with model.packed(precision, 4):
            packed = model(ids)
        torch.testing.assert_close(packed.float(), plain, atol=tolerance * max(1, plain.abs().max().item()), rtol=0)
        assert torch.equal(model(ids), plain)


def test_flops_of_a_token():
    # 6 N for the weights in products; attention by hand for T = 4: dense layers see 2.5 keys on average.
    dense = GPTConfig(10, 4, 8, 2, 2)
    assert dense.train_flops_per_token() == 6 * (2 * 12 * 64 + 80) + 12 * 8 * 2 * 2.5
    banded = GPTConfig(10, 4, 8, 2, 2, attention="banded", band=2)  # the second layer sees 1, 2, 2, 2 keys
    assert banded.train_flops_per_token() == 6 * (2 * 12 * 64 + 80) + 12 * 8 * (2.5 + 1.75)
