"""The planner against the papers' tables, against what autograd keeps, and against memory that was used."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rein.distributed import Layout, World
from rein.models import gpt, ops, parallel, tensor_parallel
from rein.models.gpt import GPT, Block, Context, GPTConfig
from rein.models.held import stage_layers
from rein.models.plan import (
    PETAFLOP_DAY,
    Cluster,
    Machine,
    Way,
    Work,
    attention_bytes,
    block_bytes,
    block_params,
    block_weights,
    checkpoint_bytes,
    cost,
    layouts,
    memory,
    n_updates,
    options,
    root_params,
    smallest,
    traffic,
    ways,
)
from rein.models.presets import PRESETS, preset
from rein.models.slots import Slot
from rein.optim import ramped_batch

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
H100 = Machine("h100", 80 * 10**9, 989e12, 450e9, 10**9, 0.1)
# Brown 2020, Table D.1: millions of parameters, training FLOPs.
TABLE_D1 = {
    "gpt3-small": (125, 2.25e20),
    "gpt3-medium": (356, 6.41e20),
    "gpt3-large": (760, 1.37e21),
    "gpt3-xl": (1320, 2.38e21),
    "gpt3-2.7b": (2650, 4.77e21),
    "gpt3-6.7b": (6660, 1.20e22),
    "gpt3-13b": (12850, 2.31e22),
    "gpt3-175b": (174600, 3.14e23),
}


def on(count, per_node=8, machine=H100):
    return Cluster(machine, count, min(per_node, count), 50e9)


def gpt3(name):
    return Work(preset(name).model, preset(name).sequences_per_batch)


# ------------------------------------------------------------------------------------------------ the papers' tables


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_of_a_model_are_all_of_it(name):
    model = PRESETS[name].model
    parts = model.n_layer * block_params(model) + root_params(model, Layout(), 0)
    with torch.device("meta"):
        assert parts == sum(p.numel() for p in GPT(model).parameters())


@pytest.mark.parametrize("layout", [Layout(tp=4), Layout(pp=3), Layout(pp=2, tp=2)])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_parts_of_a_layout(layout, norm):
    # What tp cuts, by name; what a pipeline gives to each stage; the tied embedding is in two of them.
    model = GPTConfig(128, 16, 24, 4, 5, norm=norm)
    cut = ("wte", "c_attn.weight", "c_attn.bias", "attn.c_proj.weight", "c_fc.weight", "c_fc.bias", "mlp.c_proj.weight")
    with torch.device("meta"):
        named = dict(GPT(model).named_parameters())
    here = {name: p.numel() // (layout.tp if name.endswith(cut) else 1) for name, p in named.items()}
    total = 0
    for stage in range(layout.pp):
        layers = stage_layers(model.n_layer, layout.pp, stage)
        names = [name for name in named if name.startswith("h.") and int(name.split(".")[1]) in layers]
        names += ["wte", "wpe"] if stage == 0 else []
        if stage == layout.pp - 1:
            names += [name for name in named if name.startswith("ln_f") or (name == "wte" and stage)]
        expected = sum(here[name] for name in names)
        assert len(layers) * block_params(model, layout.tp) + root_params(model, layout, stage) == expected
        total += expected
    assert total == sum(here.values()) + (here["wte"] if layout.pp > 1 else 0)


@pytest.mark.parametrize(("name", "printed"), TABLE_D1.items())
def test_table_d1(name, printed):
    millions, flops = printed
    parameters = preset(name).model.n_params()
    # The table rounds: to a million, and the larger ones to ten or a hundred.
    assert parameters / 1e6 == pytest.approx(millions, abs=0.5 if millions < 1000 else 6, rel=3e-4)
    assert 6 * parameters * 300e9 == pytest.approx(flops, rel=5e-3)  # three digits; XL was made from 1,320 million


def test_the_largest_took_3640_petaflop_days():
    assert 6 * preset("gpt3-175b").model.n_params() * 300e9 / PETAFLOP_DAY == pytest.approx(3640, abs=5)


# Attention's share of training operations in percent, and what alternating bands of 256 save of all.
SHARES = {
    "gpt3-small": {2048: (13.2, 5.1), 4096: (23.4, 10.3), 8192: (37.9, 17.8), 16384: (55.0, 26.6)},
    "gpt3-xl": {2048: (7.1, 2.7), 4096: (13.3, 5.8), 8192: (23.5, 11.0), 16384: (38.0, 18.4)},
    "gpt3-175b": {2048: (1.4, 0.5), 4096: (2.7, 1.2), 8192: (5.2, 2.5), 16384: (10.0, 4.8)},
}


@pytest.mark.parametrize("name", SHARES)
def test_what_bands_save(name):
    for T, (core, saved) in SHARES[name].items():
        banded = replace(preset(name).model, n_ctx=T)
        dense = replace(banded, attention="dense")
        weights = 6 * (dense.n_layer * 12 * dense.n_embd**2 + dense.n_vocab * dense.n_embd)
        whole = dense.train_flops_per_token()
        assert 100 * (whole - weights) / whole == pytest.approx(core, abs=0.11)
        assert 100 * (whole - banded.train_flops_per_token()) / whole == pytest.approx(saved, abs=0.11)


@pytest.mark.parametrize(
    ("full_tokens", "ramp_tokens", "during", "without"), [(0.5e6, 4e9, 23_500, 8_000), (3.2e6, 12e9, 17_450, 3_750)]
)
def test_updates_of_the_papers_ramps(full_tokens, ramp_tokens, during, without):
    sequences = {"full": full_tokens / 1000, "start": 32}  # of 1,000 tokens, so that 32k and 0.5M are what they say
    assert n_updates(ramp_tokens, 1000, ramp_tokens=ramp_tokens, **sequences) == pytest.approx(during, rel=2e-3)
    assert n_updates(ramp_tokens, 1000, **sequences) == pytest.approx(without, rel=2e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 40), st.integers(1, 200), st.integers(0, 400), st.integers(500, 2000))
def test_updates_are_as_many_as_a_run_makes(start, more, ramp_batches, total_batches):
    T, full = 8, start + more
    ramp, total = ramp_batches * full * T, total_batches * full * T
    tokens = made = 0
    while tokens < total:
        tokens += ramped_batch(tokens, start=start, full=full, ramp_tokens=ramp) * T
        made += 1
    # A run's batches are whole sequences of the tokens before them; the formula's grow all the while.
    assert n_updates(total, T, full=full, ramp_tokens=ramp, start=start) == pytest.approx(made, rel=0.02, abs=3)


# -------------------------------------------------------------------------------------------------- what is kept


def kept_by(run, parameters):
    """Bytes that autograd keeps beside the parameters while `run` goes forward."""
    known = {p.untyped_storage().data_ptr() for p in parameters}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes(), tensor  # kept, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(size for size, _ in found.values())


def kept_by_block(model, layer, B, precision):
    block = Block(model, layer)
    for p in block.parameters():
        nn.init.normal_(p)
    x_BTD = torch.randn(B, model.n_ctx, model.n_embd, requires_grad=True)
    context = Context(seed=1 if model.dropout else None)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return kept_by(lambda: block(x_BTD, context), block.parameters())


KINDS = [
    {},
    {"norm": "post"},
    {"attention": "banded", "band": 16},
    {"dropout": 0.1},
    {"norm": "post", "dropout": 0.1, "attention": "banded", "band": 7},
    {"d_head": 12},
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("T", [48, 300])
def test_what_a_block_keeps_to_the_byte(kind, precision, T):
    model = GPTConfig(61, T, 24, 3, 2, **kind)
    for layer in range(2):
        planned = block_bytes(model, layer, 5, tp=1, precision=precision, is_cpu=True)
        planned += 2 * block_weights(model) if precision == "bf16" else 0
        assert kept_by_block(model, layer, 5, precision) == planned


def test_attention_weights_that_are_many_are_not_kept():
    long = GPTConfig(61, 2048, 24, 3, 1)
    assert kept_by_block(long, 0, 1, "bf16") == 2 * block_weights(long) + block_bytes(
        long, 0, 1, tp=1, precision="bf16", is_cpu=True
    )
    assert attention_bytes(long, 0, 1, tp=1, precision="bf16", is_cpu=True) < 3 * 2048 * 640 * 2


@settings(deadline=None, max_examples=15)
@given(
    B=st.integers(1, 4), T=st.integers(1, 200), heads=st.integers(1, 4), E=st.sampled_from([4, 8, 10]),
    band=st.none() | st.integers(1, 220), norm=st.sampled_from(["pre", "post"]),
    precision=st.sampled_from(["fp32", "bf16"]),
)  # fmt: skip
def test_what_blocks_of_any_size_keep(B, T, heads, E, band, norm, precision):
    kind = {} if band is None else {"attention": "banded", "band": band}
    model = GPTConfig(61, T, 2 * heads * E, heads, 2, d_head=E, norm=norm, **kind)
    planned = block_bytes(model, 1, B, tp=1, precision=precision, is_cpu=True)
    planned += 2 * block_weights(model) if precision == "bf16" else 0
    assert kept_by_block(model, 1, B, precision) == planned


@pytest.fixture
def a_gpus_operators(monkeypatch):
    """The plain operators that run on a GPU, in the place of the CPU's own. Flash attention keeps the same there."""
    monkeypatch.setattr(ops, "linear", lambda x, w, b: torch.addmm(b, x.flatten(0, 1), w).view(*x.shape[:2], -1))
    monkeypatch.setattr(ops, "gelu", lambda x: F.gelu(x, approximate="tanh"))

    def flash(qkv_BT3I, n_head, **_):
        B, T, width = qkv_BT3I.shape
        q, k, v = qkv_BT3I.view(B, T, 3, n_head, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).reshape(B, T, width // 3)

    monkeypatch.setattr(gpt, "causal_attention", flash)


@pytest.mark.usefixtures("a_gpus_operators")
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_a_block_keeps_on_a_gpu(norm, dropout):
    model = GPTConfig(61, 48, 24, 3, 1, norm=norm, dropout=dropout)
    planned = block_bytes(model, 0, 5, tp=1, precision="bf16", is_cpu=False) + 2 * block_weights(model)
    assert kept_by_block(model, 0, 5, "bf16") == planned


# -------------------------------------------------------------------------------------------- memory that was used


def benchmark():
    spec = importlib.util.spec_from_file_location("plan_memory", ROOT / "benchmarks" / "plan_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEAKS = [
    ({}, "fp32", 8, 1, False),
    ({}, "bf16", 4, 2, False),
    ({}, "bf16", 8, 2, True),
    ({"n_vocab": 20000, "n_layer": 1}, "fp32", 2, 1, False),
    ({"attention": "banded", "band": 32}, "fp32", 4, 2, True),
    ({"norm": "post", "dropout": 0.1}, "bf16", 4, 2, False),
]


@pytest.mark.parametrize(("changes", "precision", "at_once", "parts", "recompute"), PEAKS, ids=str)
def test_the_peak_of_an_update_is_foreseen(changes, precision, at_once, parts, recompute, tmp_path):
    small = {"n_vocab": 1000, "n_ctx": 128, "n_embd": 128, "n_head": 4, "n_layer": 3}
    row = {"model": small | changes, "layout": "", "precision": precision, "at_once": at_once, "parts": parts,
           "recompute": recompute, "keep": False, "folder": str(tmp_path)}  # fmt: skip
    module = benchmark()
    module.work(row, "tensors")
    assert module.plan(row) == pytest.approx(int((tmp_path / "0").read_text()), rel=0.03)


@pytest.mark.usefixtures("a_gpus_operators")
@pytest.mark.parametrize("recompute", [False, True])
def test_the_peak_of_an_update_with_a_gpus_operators(recompute, tmp_path):
    # Autocast keeps every weight that it casts until it is left: at the loss all of them, recomputed or not.
    model = {"n_vocab": 512, "n_ctx": 64, "n_embd": 256, "n_head": 8, "n_layer": 4}
    row = {"model": model, "layout": "", "precision": "bf16", "at_once": 4, "parts": 2, "recompute": recompute,
           "keep": False, "folder": str(tmp_path)}  # fmt: skip
    benchmark().work(row, "tensors")
    planned = memory(Work(GPTConfig(**model), 8, "bf16"), Way(Layout(), 4, 2, recompute), H100)
    assert planned.tensors == pytest.approx(int((tmp_path / "0").read_text()), rel=0.03)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc, Linux's")
def test_the_memory_of_a_process_is_foreseen_within_a_tenth():
    model = {"n_vocab": 4000, "n_ctx": 128, "n_embd": 192, "n_head": 4, "n_layer": 4}
    row = {"model": model, "layout": "", "precision": "fp32", "at_once": 4, "parts": 2, "recompute": False}
    module = benchmark()
    assert module.plan(row) > 50e6
    assert module.plan(row) == pytest.approx(module.measure(row, "returned"), rel=0.1)


def peak(model=None, layout=None, *, B=4, m=2, recompute=False, precision="bf16", machine=H100):
    model = model or preset("gpt3-xl").model
    layout = layout or Layout()
    return memory(Work(model, B * m * layout.batch_ranks, precision), Way(layout, B, m, recompute), machine)


def test_states_are_18_bytes_a_parameter():
    # 4 weights, 4 gradients, 8 moments, and 2 for each that is multiplied; embeddings are not among the copies.
    model = preset("gpt3-13b").model
    held = peak(model)
    assert held.weights + held.gradients + held.optimizer == 16 * model.n_params()
    embeddings = (model.n_vocab + model.n_ctx) * model.n_embd
    assert held.copies == pytest.approx(2 * (model.n_params() - embeddings), rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(
    B=st.integers(1, 16), m=st.integers(1, 16), tp=st.sampled_from([1, 2, 4, 8]), pp=st.integers(1, 8),
    fsdp=st.sampled_from([1, 2, 8, 64]), again=st.booleans(),
)  # fmt: skip
def test_more_at_once_takes_more_and_sharing_takes_less(B, m, tp, pp, fsdp, again):
    m = max(m, pp)
    layout = Layout(pp=pp, fsdp=fsdp, tp=tp)
    here = peak(layout=layout, B=B, m=m, recompute=again).tensors
    assert peak(layout=layout, B=B + 1, m=m, recompute=again).tensors > here
    assert peak(layout=replace(layout, tp=2 * tp), B=B, m=m, recompute=again).tensors < here
    if fsdp > 1:
        assert peak(layout=replace(layout, fsdp=2 * fsdp), B=B, m=m, recompute=again).tensors < here
    if not again:
        assert peak(layout=layout, B=B, m=m, recompute=True).tensors <= here


def test_a_pipelines_first_stage_keeps_as_many_micro_batches_as_there_are_stages():
    model = preset("gpt3-6.7b").model
    one, many = (peak(model, Layout(pp=4), B=1, m=m).activations for m in (4, 40))
    # Beyond four micro-batches only the buffers of the schedule grow: at a stage in the middle, two each.
    states = 4 * model.n_ctx * model.n_embd
    assert 36 * states <= many - one <= 2 * 36 * states


def test_a_checkpoint_of_one_process_copies_weights_and_moments():
    model = preset("gpt2-124m").model
    assert checkpoint_bytes(model, Layout()) == 12 * model.n_params()
    cpu = replace(H100, is_cpu=True, margin_frac=0.5)
    held = peak(model, machine=cpu)
    assert held.checkpoint == 12 * model.n_params()
    assert held.total == held.tensors + held.checkpoint + round(0.5 * held.tensors)


# ------------------------------------------------------------------------------------------------ time and traffic


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_sums_within_blocks_are_as_many_as_the_layers_make(precision, recompute, monkeypatch):
    # A model whose layers think they share their products, and a network that counts.
    sent = []
    monkeypatch.setattr(tensor_parallel.dist, "all_reduce", lambda x, *_, **__: sent.append(x.nbytes))
    monkeypatch.setattr(tensor_parallel.dist, "get_world_size", lambda _: 1)
    monkeypatch.setattr(tensor_parallel.dist, "get_rank", lambda _: 0)
    model = GPTConfig(61, 16, 24, 3, 3)
    world = World(Layout(), CPU)

    def fill(name, shape):
        return gpt.initial(model, name, shape, 0)

    replica = parallel.Replica(model, world, fill, precision=precision, recompute=recompute)
    for block in replica.model.h.values():
        block.attn.c_attn = tensor_parallel.ColumnLinear(block.attn.c_attn, None)
        block.attn.c_proj = tensor_parallel.RowLinear(block.attn.c_proj, None)
        block.mlp.c_fc = tensor_parallel.ColumnLinear(block.mlp.c_fc, None)
        block.mlp.c_proj = tensor_parallel.RowLinear(block.mlp.c_proj, None)
    replica.model.vocabulary = tensor_parallel.ShardedVocabulary(model.n_vocab, None)
    windows_BT = torch.randint(61, (4, 17))
    replica.gradients([Slot(windows_BT, None, 4, 2, None)])
    large = sum(size for size in sent if size >= 2 * 2 * 16 * 24)  # a row's sums of the loss are next to nothing
    planned = traffic(Work(model, 4, precision), Way(Layout(tp=2), 2, 2, recompute))
    assert planned.tp == large  # over two processes, 2 (n − 1)/n is 1


def test_traffic_in_closed_form():
    work = gpt3("gpt3-xl")
    P = work.model.n_params()
    ring = 7 / 8
    assert traffic(work, Way(Layout(dp=8), 4, 16)).total == pytest.approx(2 * ring * 4 * P)
    assert traffic(work, Way(Layout(fsdp=8), 4, 16)).total == pytest.approx((2 * 16 + 1) * ring * 4 * P)
    states = 4 * 4 * 2048 * 2048
    wte = 4 * 50257 * 2048
    assert traffic(work, Way(Layout(pp=2), 4, 128)).total == pytest.approx(2 * 128 * states + wte)
    assert traffic(work, Way(Layout(), 4, 128)).total == 0


def test_time_in_closed_form():
    work = gpt3("gpt3-xl")
    tokens = work.sequences_per_batch * work.model.n_ctx
    ideal = tokens * work.model.train_flops_per_token() / (0.4 * 989e12)
    alone = cost(work, Way(Layout(), 4, 128), on(1), 0.4)
    assert alone.total == alone.products == pytest.approx(ideal)
    again = cost(work, Way(Layout(), 4, 128, recompute=True), on(1), 0.4)
    head = 6 * work.model.n_vocab * work.model.n_embd * tokens / (0.4 * 989e12)
    assert again.total == pytest.approx(ideal + (ideal - head) / 3)
    piped = cost(work, Way(Layout(pp=4), 1, 512), on(4), 0.4)
    step = (piped.products + piped.uneven) / 512
    assert piped.bubble == pytest.approx(3 * step)
    assert piped.bubble / (piped.bubble + piped.products + piped.uneven) == pytest.approx(3 / (512 + 3))
    # 24 layers in 4 stages of 6, the last of which makes the logits, too.
    blocks = work.model.train_flops_per_token() - 6 * work.model.n_vocab * work.model.n_embd
    assert step == pytest.approx((blocks / 4 + 6 * work.model.n_vocab * work.model.n_embd) * 2048 / (0.4 * 989e12))


def test_gathering_costs_only_what_work_does_not_hide():
    work = gpt3("gpt3-xl")
    assert cost(work, Way(Layout(fsdp=8), 4, 16), on(8), 0.4).gathering == 0
    slow = Cluster(H100, 8, 1, 1e9)
    took = cost(work, Way(Layout(fsdp=8), 4, 16), slow, 0.4)
    assert took.gathering + took.products == pytest.approx(traffic(work, Way(Layout(fsdp=8), 4, 16)).fsdp / 1e9)


# ------------------------------------------------------------------------------------------------------- layouts


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 96), st.sampled_from([1, 4, 8]))
def test_every_layout_is_one_that_a_run_accepts(name, count, per_node):
    model = PRESETS[name].model
    sequences = PRESETS[name].sequences_per_batch
    found = list(layouts(model, on(count, per_node), sequences))
    assert len(set(found)) == len(found)
    for layout in found:
        parallel.check(model, World(layout, CPU))
        assert layout.size == count
        assert sequences % layout.batch_ranks == 0
        assert layout.tp <= per_node  # the sums of a product stay within a node
        assert per_node % layout.tp == 0 or count <= per_node


def test_ways_share_the_whole_batch():
    work = gpt3("gpt3-small")
    found = list(ways(work, on(16)))
    for way in found:
        sequences = way.sequences_at_once * way.micro_batches * way.layout.batch_ranks
        assert sequences == work.sequences_per_batch
        assert way.layout.pp <= way.micro_batches or way.layout.pp == 1
    assert {way.recompute for way in found} == {False, True}
    given_size = list(ways(work, on(16), sequences_at_once=3, recompute=True))
    assert all(way.recompute and way.sequences_at_once <= 3 for way in given_size)
    assert all(way.micro_batches * way.sequences_at_once * way.layout.batch_ranks >= 256 for way in given_size)
    assert not [way for way in given_size if way.layout.pp > 1 and way.sequences_at_once == 3]  # 256 has no third


def test_the_best_fits_and_nothing_that_fits_is_much_faster():
    found = options(gpt3("gpt3-6.7b"), on(16), 0.4)
    fitting = [option for option in found if option.fits]
    assert fitting == found[: len(fitting)]
    assert 0 < len(fitting) < len(found)
    assert found[0].cost.total <= 1.021 * min(option.cost.total for option in fitting)
    for option in found:
        assert option.fits == (option.memory.total <= 79e9)
        assert option.tokens_per_s <= 16 * 0.4 * 989e12 / gpt3("gpt3-6.7b").model.train_flops_per_token() * 1.0001
    nearest = found[len(fitting) :]
    assert [option.memory.total for option in nearest] == sorted(option.memory.total for option in nearest)


def test_a_small_model_is_best_replicated():
    best = options(gpt3("gpt3-small"), on(8), 0.4)[0]
    assert best.way.layout == Layout(dp=8)
    assert best.way.sequences_at_once == 4  # of 2,048 tokens: 8,192 at once
    assert not best.way.recompute
    assert best.why() == "sums of gradients 1%"


def test_why_names_what_is_lost():
    (option,) = [o for o in options(gpt3("gpt3-175b"), on(1024), 0.4, recompute=True)
                 if o.way == Way(Layout(pp=8, fsdp=16, tp=8), 1, 96, True)]  # fmt: skip
    assert option.bubble_frac == pytest.approx(7 / 103)
    assert option.why().startswith("blocks computed again 1")
    assert "the pipeline's bubble 7%" in option.why()


@pytest.mark.parametrize(("name", "count"), [("gpt3-xl", 1), ("gpt3-6.7b", 2), ("gpt3-13b", 4)])
def test_the_fewest_fit_and_fewer_do_not(name, count):
    work = gpt3(name)
    found = smallest(work, on(8))
    assert found is not None
    assert found[0] == count
    assert memory(work, found[1], H100).total <= 79e9
    fewer = [n for n in (1, 2, 4) if n < count]
    assert not any(option.fits for n in fewer for option in options(work, on(n), 0.4))
    assert count >= 16 * work.model.n_params() / 80e9 - 1e-9  # states alone


def test_where_none_are_enough():
    tiny = replace(H100, memory_bytes=2 * 10**9)
    assert smallest(gpt3("gpt3-175b"), on(8, machine=tiny)) is None
