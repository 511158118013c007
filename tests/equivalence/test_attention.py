"""Every form of attention equals the formula with a mask, forwards and backwards; the cache equals no cache."""

import gc
import inspect
import math
import weakref
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from rein.models import attention_cpu, attention_gpu
from rein.models.attention import causal_attention
from rein.models.cache import Cache

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64
CPU = torch.device("cpu")


def seen(T, band, documents):
    """Which keys each query sees, key by key: (B or 1, 1, T, T)."""
    rows = [[0] * T] if documents is None else documents.tolist()
    return torch.tensor(
        [[[[s <= t and t - s < (band or T) and row[s] == row[t] for s in range(T)] for t in range(T)]] for row in rows]
    )


def formula(qkv, n_head, band=None, documents=None):
    B, T, width = qkv.shape
    q, k, v = (x.view(B, T, n_head, -1).transpose(1, 2) for x in qkv.split(width // 3, -1))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen(T, band, documents), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, width // 3)


def inputs(B, T, H, E, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(B, T, 3 * H * E, generator=generator, dtype=F64).to(dtype).requires_grad_()
    return qkv, torch.randn(B, T, H * E, generator=generator, dtype=F64).to(dtype)


def weights_of(T, **options):
    """The attention weights of one head, (T, T): what comes out where the values are the identity."""
    qk = torch.randn(1, T, 2 * T, generator=torch.Generator().manual_seed(0), dtype=F64)
    return causal_attention(torch.cat([qk, torch.eye(T, dtype=F64)[None]], dim=-1), 1, **options)[0]


def documents_of(draw, B, T):
    if not draw(st.booleans()):
        return None
    ends = draw(st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=B, max_size=B))
    return torch.tensor(ends).int().cumsum(1) + 7


# ------------------------------------------------------------------------------------------- the formula


@st.composite
def cases(draw):
    B, T = draw(st.integers(1, 3)), draw(st.integers(1, 34))
    band = draw(st.none() | st.integers(1, 40))
    at_once, reads_strides = draw(st.sampled_from([1, 300, 1 << 22])), draw(st.booleans())
    limits = {
        "_QUERIES": draw(st.sampled_from([1, 3, 8, 128])),
        "_SHORT": draw(st.sampled_from([1, 4, 128])),
        "_MOST_KEPT_KEYS": draw(st.sampled_from([0, 640])),
        "_at_once": lambda *_: at_once,
        "_reads_strides": lambda _: reads_strides,
    }
    shape = B, T, draw(st.integers(1, 3)), draw(st.integers(1, 5))
    return shape, band, documents_of(draw, B, T), draw(st.sampled_from([F32, F64])), limits


@given(cases(), st.integers(0, 9))
@settings(deadline=None, max_examples=100)
def test_the_formula_and_its_gradient(case, seed):
    (B, T, H, E), band, documents, dtype, limits = case
    qkv, g = inputs(B, T, H, E, dtype, seed)
    with patch.multiple(attention_cpu, **limits):
        out = causal_attention(qkv, H, band=band, documents_BT=documents)
        (grad,) = torch.autograd.grad(out, qkv, g)
    expected = formula(qkv, H, band, documents)
    (expected_grad,) = torch.autograd.grad(expected, qkv, g)
    tolerance = {"rtol": 0, "atol": 1e-10 if dtype == F64 else 2e-5}
    torch.testing.assert_close(out, expected, **tolerance)
    torch.testing.assert_close(grad, expected_grad, **tolerance)


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
@pytest.mark.parametrize("documents", [None, "short", "long"])
@pytest.mark.parametrize("band", [None, 50, 128, 200, 700])
def test_sizes_that_are_used(band, documents, dropout):
    generator = torch.Generator().manual_seed(1)
    ends = torch.rand(2, 300, generator=generator) < {None: 0, "short": 0.1, "long": 0.005}[documents]
    ids = None if documents is None else ends.cumsum(1)
    qkv, g = inputs(2, 300, 2, 8, F64)
    out = causal_attention(qkv, 2, band=band, documents_BT=ids, dropout=dropout)
    expected = formula(qkv, 2, band, ids)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    grads = (torch.autograd.grad(result, qkv, g)[0] for result in (out, expected))
    torch.testing.assert_close(*grads, rtol=0, atol=1e-10)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("band", [None, 60, 128])
@pytest.mark.parametrize("T", [1, 5, 127, 128, 129, 300])
def test_bfloat16_is_as_close_as_its_rounding(T, band, documents):
    ids = (torch.arange(T) // 90).expand(2, T) if documents else None
    qkv, g = inputs(2, T, 4, 16, BF16, T)
    out = causal_attention(qkv, 4, band=band, documents_BT=ids)
    out.backward(g)
    exact = qkv.detach().float().requires_grad_()
    expected = formula(exact, 4, band, ids)
    expected.backward(g.float())
    theirs = qkv.detach().requires_grad_()
    q, k, v = (x.view(2, T, 4, 16).transpose(1, 2) for x in theirs.split(64, -1))
    torchs = F.scaled_dot_product_attention(q, k, v, attn_mask=seen(T, band, ids)).transpose(1, 2).reshape(2, T, 64)
    torchs.backward(g)

    def error(result, exact):
        return (result.float() - exact).abs().max().item()

    assert error(out, expected) <= 2 * error(torchs, expected) + 0.01
    assert error(qkv.grad, exact.grad) <= 2 * error(theirs.grad, exact.grad) + 0.02


@pytest.mark.parametrize("band", [1, 2, 5, 11, 12])
def test_a_band_counts_the_query_itself(band):
    weights = weights_of(12, band=band)
    assert (weights > 0).sum(1).tolist() == [min(t + 1, band) for t in range(12)]
    assert all((row[max(0, t + 1 - band) : t + 1] > 0).all() for t, row in enumerate(weights))


def test_a_band_of_one_is_the_values_and_a_band_of_all_is_dense():
    qkv, _ = inputs(2, 150, 2, 8, F32)
    torch.testing.assert_close(causal_attention(qkv, 2, band=1), qkv[:, :, 32:], rtol=0, atol=1e-6)
    for band in (150, 1000):
        assert torch.equal(causal_attention(qkv, 2, band=band), causal_attention(qkv, 2))


@pytest.mark.parametrize("band", [None, 20])
def test_documents_are_as_if_each_were_alone(band):
    lengths = [1, 130, 30, 7, 132]
    qkv, _ = inputs(1, 300, 2, 8, F64)
    ids = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))[None]
    alone = [causal_attention(part, 2, band=band) for part in qkv.split(lengths, 1)]
    together = causal_attention(qkv, 2, band=band, documents_BT=ids)
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=0, atol=1e-12)


def test_the_gradient_of_a_sum():
    qkv, _ = inputs(2, 140, 2, 8, F64)
    (grad,) = torch.autograd.grad(
        causal_attention(qkv, 2, band=30).sum(), qkv
    )  # whose gradient is one number, expanded
    torch.testing.assert_close(grad, torch.autograd.grad(formula(qkv, 2, 30).sum(), qkv)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(
    "options", [{}, {"band": 30}, {"dropout": 0.1}, {"documents_BT": torch.arange(200)[None] // 30}]
)
def test_no_memory_is_read_before_it_is_written(options, dtype):
    qkv, g = inputs(1, 200, 2, 8, dtype)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        out = causal_attention(qkv, 2, **options)
        (grad,) = torch.autograd.grad(out, qkv, g)
    finally:
        torch.use_deterministic_algorithms(False)
    assert out.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"band": 3}, {"dropout": 0.1}])
def test_without_gradients_the_result_is_the_same(options):
    qkv, _ = inputs(2, 20, 2, 8, F32)
    with torch.inference_mode():
        out = causal_attention(qkv, 2, **options)
    torch.testing.assert_close(out, causal_attention(qkv, 2, **options), rtol=0, atol=1e-6)


@pytest.mark.parametrize("band", [None, 8])
def test_autocast_reaches_it(band):
    qkv, g = inputs(1, 20, 2, 8, F32)
    with torch.autocast("cpu", dtype=BF16):
        out = causal_attention(qkv, 2, band=band)
    assert out.dtype == BF16
    (grad,) = torch.autograd.grad(out, qkv, g.to(BF16))
    assert grad.dtype == F32
    torch.testing.assert_close(out.float(), formula(qkv, 2, band), rtol=0, atol=0.05)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of the compiler's own doing, hidden elsewhere
@pytest.mark.parametrize("options", [{}, {"band": 8}, {"dropout": 0.1}])
def test_a_compiled_layer_is_the_same(options):
    qkv, g = inputs(1, 20, 2, 8, F32)

    def layer(x):
        return causal_attention(x * 2, 2, **options) + 1

    compiled, plain = torch.compile(layer, backend="eager")(qkv), layer(qkv)
    assert torch.equal(compiled, plain)
    assert torch.equal(torch.autograd.grad(compiled, qkv, g)[0], torch.autograd.grad(plain, qkv, g)[0])


def test_a_gradient_of_the_gradient_is_refused():
    qkv, g = inputs(1, 8, 1, 4, F64)
    (grad,) = torch.autograd.grad(causal_attention(qkv, 1, band=2), qkv, g.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("options", [{}, {"band": 8}, {"dropout": 0.1}])
def test_shapes_without_contents(options):
    state = torch.get_rng_state()
    qkv = torch.empty(2, 200, 48, device="meta", requires_grad=True)
    out = causal_attention(qkv, 2, **options)
    assert out.shape == (2, 200, 16)
    assert torch.autograd.grad(out, qkv, torch.empty_like(out))[0].shape == qkv.shape
    assert torch.equal(torch.get_rng_state(), state)


def test_impossible_arguments():
    with pytest.raises(AssertionError, match="a band of 0 keys leaves out the query's own"):
        causal_attention(torch.zeros(1, 2, 6), 2, band=0)
    with pytest.raises(AssertionError, match="6 numbers are not queries, keys and values of 4 heads"):
        causal_attention(torch.zeros(1, 2, 6), 4)


# ---------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("options", [{}, {"band": 40}, {"documents_BT": torch.arange(160)[None] // 50}])
def test_dropout_zeroes_its_share_and_scales_the_rest(options):
    weights = weights_of(160, **options)
    dropped = weights_of(160, dropout=0.25, seed=3, **options)
    stays = dropped != 0
    torch.testing.assert_close(dropped[stays], weights[stays] / 0.75, rtol=1e-12, atol=0)
    n = (weights > 0).sum().item()
    assert abs((1 - stays[weights > 0].double().mean().item()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n)


def test_dropout_changes_no_mean():
    qkv, _ = inputs(1, 6, 1, 3, F64)
    outs = torch.stack([causal_attention(qkv, 1, dropout=0.3, seed=seed) for seed in range(2000)])
    standard_error = outs.std(dim=0) / math.sqrt(2000)
    assert ((outs.mean(0) - formula(qkv, 1)).abs() <= 5 * standard_error + 1e-4).all()


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("band", [None, 16])
def test_what_drops_depends_on_the_seed_alone(band, dtype):
    qkv, g = inputs(2, 50, 2, 8, dtype)
    state = torch.get_rng_state()
    first = causal_attention(qkv, 2, band=band, dropout=0.2, seed=1)
    torch.autograd.grad(first, qkv, g)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(causal_attention(qkv, 2, band=band, dropout=0.2, seed=1), first)
    assert not torch.equal(causal_attention(qkv, 2, band=band, dropout=0.2, seed=2), first)


@pytest.mark.parametrize("kept", [0, 640])
@pytest.mark.parametrize("options", [{}, {"band": 3}, {"documents_BT": torch.tensor([[0, 0, 1, 1, 1, 2, 2]])}])
def test_the_gradient_of_dropout_by_finite_differences(options, kept):
    qkv, _ = inputs(1, 7, 2, 3, F64)
    with patch.multiple(attention_cpu, _QUERIES=3, _MOST_KEPT_KEYS=kept):
        assert torch.autograd.gradcheck(lambda x: causal_attention(x, 2, dropout=0.4, seed=5, **options), qkv)


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("options", [{}, {"band": 40}, {"documents_BT": torch.arange(150).expand(2, 150) // 60}])
def test_a_checkpointed_layer_drops_the_same(options, dtype):
    qkv, g = inputs(2, 150, 2, 8, dtype)

    def layer(x):
        return causal_attention(x, 2, dropout=0.2, seed=9, **options)

    again = checkpoint(layer, qkv, use_reentrant=False, preserve_rng_state=False)
    out = layer(qkv)
    assert torch.equal(again, out)
    assert torch.equal(torch.autograd.grad(again, qkv, g)[0], torch.autograd.grad(out, qkv, g)[0])


# ------------------------------------------------------------------------------------ forms for a GPU

AMPERE = attention_gpu.Abilities((8, 0), flash=True, triton=True)
TURING = attention_gpu.Abilities((7, 5), flash=True, triton=True)
NO_TRITON = attention_gpu.Abilities((7, 5), flash=False, triton=False)


@pytest.mark.parametrize(
    ("masked", "dropout", "dtype", "d_head", "device", "form"),
    [
        (False, 0.0, BF16, 64, AMPERE, "plain"),
        (False, 0.1, BF16, 64, AMPERE, "plain"),
        (True, 0.0, BF16, 64, AMPERE, "varlen"),
        (True, 0.0, torch.float16, 128, AMPERE, "varlen"),
        (True, 0.0, BF16, 80, AMPERE, "varlen"),
        (True, 0.0, BF16, 256, AMPERE, "flex"),  # flash attention's gradient is not for every device there
        (True, 0.0, BF16, 20, AMPERE, "flex"),
        (True, 0.0, F32, 64, AMPERE, "flex"),
        (True, 0.1, BF16, 64, AMPERE, "plain"),  # neither varlen nor flex has dropout
        (True, 0.0, torch.float16, 64, TURING, "flex"),
        (True, 0.0, F32, 8, AMPERE, "plain"),
        (True, 0.0, torch.float16, 64, NO_TRITON, "plain"),
        (True, 0.0, BF16, 64, attention_gpu.abilities(CPU), "plain"),
    ],
)
def test_the_form_for_a_device(masked, dropout, dtype, d_head, device, form):
    assert attention_gpu.gpu_form(masked, dropout, dtype, d_head, device) == form


@pytest.mark.parametrize("band", [None, 1, 2, 5, 12])
@pytest.mark.parametrize(
    "documents", [None, torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 2], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]])]
)
def test_spans_given_to_flash_attention(band, documents):
    """What is passed to varlen_attn means this attention, by the meaning its documentation gives its arguments."""
    from torch.nn.attention import varlen

    signature = inspect.signature(varlen.varlen_attn)

    def by_definition(*args, **options):
        given = signature.bind(*args, **options).arguments
        q, k, v, (left, right) = given["query"], given["key"], given["value"], given["window_size"]
        assert given["cu_seq_q"].dtype == torch.int32
        assert torch.equal(given["cu_seq_q"], given["cu_seq_k"])
        outs = []
        for start, stop in zip(given["cu_seq_q"][:-1].tolist(), given["cu_seq_q"][1:].tolist(), strict=True):
            assert 0 < stop - start <= given["max_q"] == given["max_k"]
            t = torch.arange(stop - start)
            near = (t[None] <= t[:, None] + right) & ((t[None] >= t[:, None] - left) if left >= 0 else True)
            parts = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
            outs.append(F.scaled_dot_product_attention(*parts, attn_mask=near)[0].transpose(0, 1))
        return torch.cat(outs)

    qkv, _ = inputs(2, 10, 2, 8, F32)
    with (
        patch.object(varlen, "varlen_attn", by_definition),
        patch.object(attention_gpu, "gpu_form", lambda *_: "varlen"),
    ):
        out = attention_gpu.on_gpu(qkv, 2, band, 0.0, documents, 0)
    torch.testing.assert_close(out, formula(qkv, 2, band, documents), rtol=0, atol=1e-5)


@pytest.mark.parametrize("documents", [None, torch.zeros(2, 10, dtype=torch.int64)])
def test_the_installed_varlen_attn_takes_what_is_passed(documents):
    """Its operator's schema and shapes, on tensors without contents; the kernel itself needs a GPU."""
    qkv = torch.zeros(2, 10, 48, dtype=BF16, device="meta", requires_grad=True)
    offsets = torch.zeros(3, dtype=torch.int32, device="meta")
    with patch.object(attention_gpu, "document_offsets", lambda _: offsets):
        out = attention_gpu._varlen(qkv, 2, 4, None if documents is None else documents.to("meta"))
    assert out.shape == (2, 10, 16)
    assert torch.autograd.grad(out, qkv, torch.empty_like(out))[0].shape == qkv.shape


@pytest.mark.parametrize("band", [None, 1, 30, 128, 200])
@pytest.mark.parametrize("documents", [None, (torch.arange(300) // 110).expand(2, 300)])
def test_blocks_given_to_flex_attention(band, documents):
    from torch.nn.attention import flex_attention

    qkv, _ = inputs(2, 300, 2, 16, F32)
    with (
        patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True),
        patch.object(attention_gpu, "_compiled_flex", lambda: flex_attention.flex_attention),
        patch.object(attention_gpu, "gpu_form", lambda *_: "flex"),
    ):
        out = attention_gpu.on_gpu(qkv.detach(), 2, band, 0.0, documents, 0)
    torch.testing.assert_close(out, formula(qkv, 2, band, documents), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("band", [None, 4])
def test_the_form_with_a_mask(band, dropout):
    qkv, _ = inputs(2, 10, 2, 8, F32)
    documents = torch.arange(10).expand(2, 10) // 6
    state = torch.get_rng_state()
    out = attention_gpu.on_gpu(qkv, 2, band, dropout, documents, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attention_gpu.on_gpu(qkv, 2, band, dropout, documents, 1), out)
    if dropout == 0:
        torch.testing.assert_close(out, formula(qkv, 2, band, documents), rtol=0, atol=1e-5)
    else:
        assert not torch.equal(attention_gpu.on_gpu(qkv, 2, band, dropout, documents, 2), out)


@pytest.mark.parametrize("documents", [[[0, 0, 1]], [[3, 3, 3], [3, 3, 3]], [[0, 1, 2], [5, 5, 6], [7, 7, 7]]])
def test_document_offsets_and_lengths(documents):
    ids = torch.tensor(documents)
    lengths = [row.count(document) for row in documents for document in sorted(set(row))]
    assert attention_cpu.document_lengths(attention_cpu.document_starts(ids), 3) == lengths
    offsets = attention_gpu.document_offsets(ids)
    assert offsets.dtype == torch.int32
    assert offsets.tolist() == [sum(lengths[:n]) for n in range(len(lengths) + 1)]


def test_what_is_made_of_documents_is_made_once_and_goes_with_them():
    calls = []

    def make(ids):
        calls.append(ids)
        return attention_gpu.block_mask(3, None, ids, CPU)

    documents = torch.tensor([[0, 0, 1]])
    made = attention_gpu._shared(documents, "mask", make)
    assert attention_gpu._shared(documents, "mask", make) is made
    assert attention_gpu._shared(documents, "another", make) is not made
    documents[0, 1] = 1
    assert attention_gpu._shared(documents, "mask", make) is not made
    assert len(calls) == 3
    gone = weakref.ref(made)
    before = len(attention_gpu._OF_DOCUMENTS)
    del documents, made, calls[:]
    gc.collect()
    assert len(attention_gpu._OF_DOCUMENTS) == before - 1
    assert gone() is None


# --------------------------------------------------------------------------------------------- the cache


def new_cache(bands, groups, longest_query, longest_new, width=1, dtype=F32):
    return Cache(
        n_head=2, d_head=4, bands=bands, groups=groups, width=width, longest_query=longest_query,
        longest_new=longest_new, device=CPU, dtype=dtype,
    )  # fmt: skip


class Written:
    """A cache beside the plain sequences it should stand for: group by group a query, place by place what follows."""

    def __init__(self, bands, groups, longest_query, longest_new, width):
        self.cache, self.bands = new_cache(bands, groups, longest_query, longest_new, width), bands
        self.queries, self.new = {}, {}
        self.width, self.longest_new = width, longest_new
        self.generator = torch.Generator().manual_seed(0)

    def random(self, *shape):
        return torch.randn(len(self.bands), *shape, 24, generator=self.generator)

    def read(self, groups, lengths):
        qkv_LNTI = self.random(len(groups), max(lengths))
        self.cache.read(np.array(groups), np.array(lengths))
        assert self.cache.positions(max(lengths)).tolist() == list(range(max(lengths)))
        outs = [self.cache.attend(layer, qkv) for layer, qkv in enumerate(qkv_LNTI)]
        for n, (group, length) in enumerate(zip(groups, lengths, strict=True)):
            self.queries[group] = qkv_LNTI[:, n, :length]
            self.forget(group)
            for layer, band in enumerate(self.bands):
                expected = formula(self.queries[group][layer][None], 2, band)
                torch.testing.assert_close(outs[layer][n : n + 1, :length], expected, rtol=0, atol=1e-5)

    def forget(self, group):
        for place in range(group * self.width, (group + 1) * self.width):
            self.new[place] = None

    def copy(self, source, target, written):
        self.cache.copy(np.array([source]), np.array([target]), written=written)
        self.queries[target] = self.queries[source]
        for w in range(self.width):
            self.new[target * self.width + w] = self.new[source * self.width + w] if written else None

    def step(self, places, anew):
        """A token of each place, in a place that is full or begins `anew` its first."""
        qkv_LB1I = self.random(len(places), 1)
        for place in places:
            if self.new[place] is None or place in anew or self.new[place].shape[1] == self.longest_new:
                self.new[place] = torch.zeros(len(self.bands), 0, 24)
        index = [self.new[place].shape[1] for place in places]
        self.cache.step(np.array(places), np.array(index))
        whole = []
        for n, place in enumerate(places):
            self.new[place] = torch.cat([self.new[place], qkv_LB1I[:, n]], 1)
            whole.append(torch.cat([self.queries[place // self.width], self.new[place]], 1))
        assert self.cache.positions(1)[:, 0].tolist() == [x.shape[1] - 1 for x in whole]
        for layer, band in enumerate(self.bands):
            outs_B1I = self.cache.attend(layer, qkv_LB1I[layer])
            for n, x in enumerate(whole):
                expected = formula(x[layer][None], 2, band)[:, -1:]
                torch.testing.assert_close(outs_B1I[n : n + 1], expected, rtol=0, atol=1e-5)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_place_sees_its_query_and_itself_alone(data):
    groups, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    longest_query, longest_new = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    bands = data.draw(st.lists(st.none() | st.integers(1, 12), min_size=1, max_size=3))
    both = Written(bands, groups, longest_query, longest_new, width)
    lengths = st.integers(1, longest_query)
    both.read(list(range(groups)), data.draw(st.lists(lengths, min_size=groups, max_size=groups)))
    places = st.lists(st.integers(0, groups * width - 1), min_size=1, unique=True)
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["step"] * 6 + ["read", "copy"]))
        group, other = data.draw(st.integers(0, groups - 1)), data.draw(st.integers(0, groups - 1))
        if what == "step":
            both.step(data.draw(places), anew=data.draw(st.sets(st.integers(0, groups * width - 1), max_size=2)))
        elif what == "read":
            both.read([group], [data.draw(lengths)])
        elif group != other:
            both.copy(group, other, data.draw(st.booleans()))


def test_a_banded_layer_keeps_its_band():
    column = 2 * 2 * 4 * 4  # keys and values, heads, a head's width, bytes
    assert new_cache([None], 3, 60, 40).nbytes == column * 3 * 100
    assert new_cache([None, 10, 200], 3, 60, 40).nbytes == column * 3 * (100 + 20 + 100)
    assert new_cache([None, 50], 3, 60, 40, width=4).nbytes == column * 3 * (60 + 4 * 40 + 50 + 4 * 40)


def test_what_a_group_never_held_is_not_seen():
    cache = new_cache([None, 4], 2, 6, 3, width=2)
    for kept in (*cache._keys, *cache._values):
        assert not kept.any()
        kept.fill_(1e30)
    qkv = inputs(1, 3, 2, 4, F32)[0].detach()
    cache.read(np.array([1]), np.array([2]))
    for layer in range(2):
        cache.attend(layer, qkv[:, :2])
    cache.step(np.array([3]), np.array([0]))
    for layer, band in enumerate((None, 4)):
        expected = formula(qkv, 2, band)[:, -1:]
        torch.testing.assert_close(cache.attend(layer, qkv[:, 2:]), expected, rtol=0, atol=1e-6)


def test_the_result_has_the_precision_of_what_comes_in():
    qkv = inputs(1, 6, 2, 4, BF16)[0].detach()
    for dtype in (F32, BF16):
        cache = new_cache([None, 3], 1, 5, 1, dtype=dtype)
        cache.read(np.array([0]), np.array([5]))
        assert [cache.attend(layer, qkv[:, :5]).dtype for layer in range(2)] == [BF16, BF16]
        cache.step(np.array([0]), np.array([0]))
        assert [cache.attend(layer, qkv[:, 5:]).dtype for layer in range(2)] == [BF16, BF16]


def test_a_step_is_one_token_of_each_place():
    cache = new_cache([None], 1, 4, 4)
    cache.step(np.array([0]), np.array([0]))
    with pytest.raises(AssertionError, match="one token a place, not 2"):
        cache.attend(0, torch.zeros(1, 2, 24))
