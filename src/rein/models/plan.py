"""What a training run needs, before it is started: parameters, operations, memory, time, and which layouts fit.

    a model, its batch, some machines → every way to lay it out over them → memory and time of each → an order

Nothing here runs a model: the numbers are counted from how models/gpt.py, ops.py and parallel.py hold memory. Of each
way the largest pipeline stage is followed through one update, and the moments are compared at which memory may peak.
tests/models/test_plan.py holds the counts to what autograd keeps and what torch allocates, and
benchmarks/plan_memory.py to what processes take.

Units    bytes, floating-point operations, seconds. N is the tokens of a micro-batch, B · T; e the bytes of a number in
         a product, 4 or 2.
Source   Brown 2020 §2.3 and Tables 2.1, D.1; Kaplan 2020 (6 operations a parameter and token); Narayanan 2021 (the
         bubble of a pipeline); Chen 2016 (recomputation); Rajbhandari 2020 (sharded states).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rein.distributed import Layout
from rein.models.gpt import GPTConfig
from rein.models.held import stage_layers

Precision = Literal["fp32", "bf16"]

PETAFLOP_DAY = 1e15 * 86400  # operations
DAY_S = 86400


@dataclass(frozen=True)
class Machine:
    """What one process has to itself: a GPU, or its share of a computer."""

    name: str
    memory_bytes: int
    flops_per_s: float  # peak of its matrix products, dense, in the precision of the run
    link_bytes_per_s: float  # to the others of its node, one way
    reserved_bytes: int  # taken before the first tensor: driver, libraries, buffers of communication
    margin_frac: float  # what the allocator loses between tensors, of what tensors take
    is_cpu: bool = False


@dataclass(frozen=True)
class Cluster:
    """Machines in nodes: fast links within a node, a network between nodes."""

    machine: Machine
    count: int
    per_node: int
    network_bytes_per_s: float  # of each machine, one way

    def bandwidth(self, span: int) -> float:
        """Bytes a second between processes of which the first and the last are `span` ranks apart, both counted."""
        return self.machine.link_bytes_per_s if span <= self.per_node else self.network_bytes_per_s


@dataclass(frozen=True)
class Work:
    """One update: the model, its whole batch, and the precision of its products."""

    model: GPTConfig
    sequences_per_batch: int
    precision: Precision = "bf16"


@dataclass(frozen=True)
class Way:
    """One way to make an update: who holds what, how much is done at once, and whether blocks are recomputed."""

    layout: Layout
    sequences_at_once: int
    micro_batches: int  # one after another, in each process
    recompute: bool = False


# ------------------------------------------------------------------------------------------ parameters, operations


def block_weights(model: GPTConfig, tp: int = 1) -> int:
    """Numbers in the matrices of a block: c_attn and c_proj of attention, and the MLP's two. tp divides them."""
    return (4 * model.n_embd * model.d_inner + 8 * model.n_embd**2) // tp


def block_params(model: GPTConfig, tp: int = 1) -> int:
    """Parameters of a block in one process: tp divides matrices and the biases of their columns, nothing else."""
    return block_weights(model, tp) + (3 * model.d_inner + 4 * model.n_embd) // tp + 6 * model.n_embd


def root_params(model: GPTConfig, layout: Layout, stage: int) -> int:
    """Parameters of a stage beside its blocks: wte in the first and the last, wpe in the first, ln_f in the last."""
    first, last = stage == 0, stage == layout.pp - 1
    rows = -(-model.n_vocab // layout.tp) * (first or last)
    norms = 2 * (last and model.norm == "pre")
    return (rows + model.n_ctx * first + norms) * model.n_embd


def flops_by_part(model: GPTConfig) -> tuple[float, float]:
    """Operations of a training token in all blocks, and in the output; the sum is `train_flops_per_token`."""
    head = 6 * model.n_vocab * model.n_embd
    return model.train_flops_per_token() - head, head


def n_updates(train_tokens: int, n_ctx: int, *, full: int, ramp_tokens: int = 0, start: int = 1) -> float:
    """Updates that a number of tokens takes, where the batch grows linearly from `start` to `full` sequences.

        ∫ dt / (n_ctx (start + (full − start) t / ramp))  =  ramp / (n_ctx (full − start)) · ln(full / start)

    Example  >>> [round(n_updates(300 * 10**9, 2048, full=256, ramp_tokens=r, start=16)) for r in (0, 4 * 10**9)]
             [572205, 587139]
    Source   Brown 2020, App. B: linear from 32k tokens over the first 4 to 12 billion.
    """
    ramp = min(ramp_tokens, train_tokens)
    if ramp == 0 or full == start:
        return train_tokens / (n_ctx * full)
    growth = (full - start) / ramp_tokens
    return math.log((start + growth * ramp) / start) / (n_ctx * growth) + (train_tokens - ramp) / (n_ctx * full)


# ------------------------------------------------------------------------------------- memory: what is kept, of what


_LOGITS_AT_ONCE = 1 << 22  # as ops.py; 16 times as many on a GPU
_GELU_AT_ONCE = 1 << 19  # as ops.py
_QUERIES, _MOST_KEPT_KEYS = 128, 640  # as attention_cpu.py


@functools.cache
def attention_bytes(model: GPTConfig, layer: int, B: int, *, tp: int, precision: Precision, is_cpu: bool) -> int:
    """What attention keeps for its backward pass, its output included.

        flash attention      queries, keys, values, the output; a float32 of each head and token
        blocks of queries    queries, keys, values, the output; the weights, where a query has 640 or fewer on average

    A CPU takes blocks of queries for a band, for dropout, and in bfloat16 where the weights are kept.
    """
    T, H, I = model.n_ctx, model.n_head // tp, model.d_inner // tp
    e, band = _size(precision), model.band_of_layer(layer)
    weights = keys_of_blocks(T, band) if keys_of_blocks(T, band) <= _MOST_KEPT_KEYS * T else 0
    banded = band is not None and band < T
    if is_cpu and (banded or model.dropout or (weights and precision == "bf16")):
        return B * e * (T * 4 * I + weights * H)
    return B * T * (4 * e * I + 4 * H)


def keys_of_blocks(T: int, band: int | None) -> int:
    """Attention weights of one head and row, made for 128 queries at a time: from a band before the first of them.

    Example  >>> keys_of_blocks(256, None), keys_of_blocks(256, 64)
             (49152, 40960)
    """
    size = min(_QUERIES, T)
    edges = [(start, min(start + size, T)) for start in range(0, T, size)]
    return sum((stop - start) * (stop - max(0, start - (band or T))) for start, stop in edges)


@functools.cache
def block_bytes(model: GPTConfig, layer: int, B: int, *, tp: int, precision: Precision, is_cpu: bool) -> int:
    """What one block keeps of B sequences for its backward pass, weights not counted.

        of each token  2 (4 d + 8)      both LayerNorms' inputs in float32, their means and deviations
                       2 e d + 2 e M    inputs of c_attn and c_fc; GELU's input or slope, and the input of c_proj
                       2 e d            a mask for each residual branch, where there is dropout

    And what attention keeps (`attention_bytes`), the input of its c_proj among it.
    """
    e, d, M = _size(precision), model.n_embd, 4 * model.n_embd // tp
    token = 2 * (4 * d + 8) + 2 * e * d + 2 * e * M + (2 * e * d if model.dropout else 0)
    return B * model.n_ctx * token + attention_bytes(model, layer, B, tp=tp, precision=precision, is_cpu=is_cpu)


def block_workspace(
    model: GPTConfig, B: int, *, tp: int, precision: Precision, is_cpu: bool, recompute: bool = False
) -> int:
    """What a block's backward pass takes beside what was kept, where it takes most: in the MLP's second product.

    The gradients of the block's output, of the product's input and of its weight; some in both precisions. Where the
    block is computed again, GELU's input and, on a CPU in bfloat16, its buffers may be more.
    """
    N, d, M = B * model.n_ctx, model.n_embd, 4 * model.n_embd // tp
    if precision == "fp32":
        return N * (4 * d + 4 * M) + 4 * M * d
    backward = N * (6 * d + 2 * M) + 6 * M * d
    forward = N * (4 * d + 2 * M) + (3 * 4 * min(_GELU_AT_ONCE, N * M) if is_cpu else 0)
    return max(backward, forward) if recompute else backward


def loss_workspace(model: GPTConfig, B: int, *, tp: int, precision: Precision, is_cpu: bool) -> int:
    """What the loss takes: the states and their gradient, that of wte, and the logits of some rows at a time."""
    e = _size(precision)
    half = 2 if precision == "bf16" else 0  # what bfloat16 takes beside float32
    rows_V = -(-model.n_vocab // tp)
    N, wte = B * model.n_ctx, rows_V * model.n_embd
    rows = max(1, (_LOGITS_AT_ONCE if is_cpu else 16 * _LOGITS_AT_ONCE) // rows_V)
    first, second = min(rows, N) * rows_V, min(rows, max(0, N - rows)) * rows_V
    softmax = max(8 * first, (4 + half) * first + 8 * second)  # a piece is let go when the next one is there
    product = (4 + half) * first + (e + 2 * half) * wte
    return (4 + half) * wte + (4 + half + e) * N * model.n_embd + max(softmax, product)


def _size(precision: Precision) -> int:
    return 4 if precision == "fp32" else 2


# ------------------------------------------------------------------------------------------ memory: at which moment


@dataclass(frozen=True)
class Memory:
    """Bytes in one process at the moment of an update when it holds most, by what they are for."""

    moment: str
    weights: int  # float32, the part that is stored here
    gradients: int  # float32
    optimizer: int  # Adam's two moments, float32
    gathered: int  # what FSDP has put together of others' parts, and what is on its way
    copies: int  # weights in bfloat16, which autocast makes and the backward pass needs
    activations: int  # of all micro-batches under way
    workspace: int  # of the loss or a block's backward pass; a gradient of wte that waits; token ids
    checkpoint: int = 0  # copies that a thread writes while training goes on; a GPU's are in its host's memory
    margin: int = 0  # what the allocator loses between tensors

    @property
    def tensors(self) -> int:
        """What the update itself holds."""
        held = self.weights + self.gradients + self.optimizer + self.gathered + self.copies
        return held + self.activations + self.workspace

    @property
    def total(self) -> int:
        """All of it."""
        return self.tensors + self.checkpoint + self.margin


def memory(work: Work, way: Way, machine: Machine) -> Memory:
    """The most that any process holds during an update.

    The first stage of a pipeline has the most micro-batches under way, the last one the loss; the second stands for
    those between, which receive from both sides.
    """
    stages = {0, min(1, way.layout.pp - 1), way.layout.pp - 1}
    moments = [moment for stage in stages for moment in _moments(work, way, stage, machine.is_cpu)]
    most = max(moments, key=lambda moment: moment.tensors)
    copies = checkpoint_bytes(work.model, way.layout) if machine.is_cpu else 0
    return replace(most, checkpoint=copies, margin=round(machine.margin_frac * most.tensors))


def checkpoint_bytes(model: GPTConfig, layout: Layout) -> int:
    """What the first process copies for a checkpoint: all weights, and its own part of Adam's moments."""
    layers = len(stage_layers(model.n_layer, layout.pp, 0))
    params = layers * block_params(model, layout.tp) + root_params(model, layout, 0)
    return 4 * model.n_params() + 8 * -(-params // layout.fsdp)


def _moments(work: Work, way: Way, stage: int, is_cpu: bool) -> Iterator[Memory]:
    """What a stage holds in the second update or a later one, whenever that may be the most."""
    model, layout, precision, B, m = work.model, way.layout, work.precision, way.sequences_at_once, way.micro_batches
    tp, fsdp, pp = layout.tp, layout.fsdp, layout.pp
    first, last, alone = stage == 0, stage == pp - 1, pp == 1
    states = 4 * B * model.n_ctx * model.n_embd  # what goes from block to block
    layers = stage_layers(model.n_layer, pp, stage)

    block, root = block_params(model, tp), root_params(model, layout, stage)
    params = len(layers) * block + root
    stored = -(-params // fsdp)
    wte = 4 * -(-model.n_vocab // tp) * model.n_embd
    tied = wte if alone else 0  # the softmax's gradient of wte waits for the embedding's, then they are one
    # Gradients of several micro-batches add up where they are made: as wholes, which FSDP sends off with the last.
    added_up = 4 * params if m > 1 else 0
    whole = 4 * params if m > 1 or fsdp == 1 else 4 * (stored + block)
    whole -= tied if m == 1 and fsdp == 1 else 0
    # A pipeline lets go of nothing it gathered before its last micro-batch; without one, a block and the next.
    gathered = 0 if fsdp == 1 else 4 * params if not alone else 4 * (root + 2 * block)
    moving = 8 * block if fsdp > 1 else 0  # a block as it arrives, or its gradients as they leave

    under_way = min(m, pp - stage)
    blocks = [block_bytes(model, layer, B, tp=tp, precision=precision, is_cpu=is_cpu) for layer in layers]
    kept = len(layers) * states if way.recompute else sum(blocks)
    if not first and (way.recompute or model.norm == "pre"):
        kept -= states  # the first block's input is where it was received
    # What one block keeps when it is computed again: the last one, or the one before, of the other kind of attention.
    again = max([blocks[-1], *(size - states for size in blocks[-2:-1])]) - states if way.recompute else 0
    normed = states + 8 * B * model.n_ctx if last and model.norm == "pre" else 0  # ln_f's input
    ends = normed + (0 if last else states)
    if model.dropout and first:
        # GPT-1 drops from the two matrices, GPT-2 from their sum: a mask, and of the matrices what is left.
        ends += 2 * (wte + 4 * model.n_ctx * model.n_embd) if model.norm == "post" else states
    buffers = ((not first) + (not last)) * m * states  # PyTorch's schedule has one a micro-batch and direction
    other_batches = (under_way - 1) * (kept + ends) + buffers

    cast = 2 * block_weights(model, tp) if precision == "bf16" else 0
    all_cast = len(layers) * cast
    other_casts = 0 if way.recompute else (under_way - 1) * all_cast
    # Autocast on a GPU keeps what it has cast until its end, although a recomputed block has no use for it.
    cast_in_forward = all_cast if not way.recompute or not is_cpu else cast

    ids = 8 * (model.n_ctx + 1) * B * m
    backward = ids + tied
    backward += block_workspace(model, B, tp=tp, precision=precision, is_cpu=is_cpu, recompute=way.recompute)
    held = {"weights": 4 * stored, "optimizer": 8 * stored}
    if last:
        yield Memory(
            "at the loss", **held, gradients=added_up, gathered=gathered, copies=other_casts + cast_in_forward,
            activations=other_batches + kept + ends,
            workspace=ids + loss_workspace(model, B, tp=tp, precision=precision, is_cpu=is_cpu),
        )  # fmt: skip
    yield Memory(
        "in the last blocks' backward pass", **held, gradients=added_up, gathered=gathered + moving,
        copies=other_casts + (cast if way.recompute else all_cast),
        activations=other_batches + kept + ends - normed + again,
        workspace=backward,
    )  # fmt: skip
    yield Memory(
        "in the first block's backward pass", **held, gradients=whole, gathered=gathered + moving,
        copies=other_casts + cast, activations=other_batches + ends - normed + blocks[0], workspace=backward,
    )  # fmt: skip
    if first:
        yield Memory(
            "at the embedding's gradient", **held, gradients=whole, gathered=gathered, copies=other_casts,
            activations=other_batches, workspace=ids + states + tied + wte,
        )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- time


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process sends in an update, and as many that it receives, by who shares what."""

    tp: float
    fsdp: float
    dp: float
    pp: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.tp + self.fsdp + self.dp + self.pp


def traffic(work: Work, way: Way) -> Traffic:
    """What a process of the first stage exchanges, with sums and gatherings made in rings.

        a sum of x bytes over n processes sends 2 (n − 1)/n · x of each; gathering or scattering it, half of that
        tp    of each block two sums forward, e N d, and two backward, 4 N d; of the embedding and the loss one each
        fsdp  weights, for every micro-batch twice (a pipeline: once an update); gradients once
        dp    gradients once;   pp  states one way and their gradients the other, and the gradient of the tied wte

    Source   Shoeybi 2019 §3; Rajbhandari 2020 §7.
    """
    model, layout, m = work.model, way.layout, way.micro_batches
    tp, fsdp, dp, pp = layout.tp, layout.fsdp, layout.dp, layout.pp
    e, states = _size(work.precision), way.sequences_at_once * model.n_ctx * model.n_embd
    layers = len(stage_layers(model.n_layer, pp, 0))
    params = layers * block_params(model, tp) + root_params(model, layout, 0)
    sums = layers * (2 * e + 2 * 4 + (e if way.recompute else 0)) + 4 + e
    wte = -(-model.n_vocab // tp) * model.n_embd
    return Traffic(
        tp=2 * (tp - 1) / tp * m * sums * states,
        fsdp=(fsdp - 1) / fsdp * 4 * params * ((2 * m if pp == 1 else 1) + 1),
        dp=2 * (dp - 1) / dp * 4 * params / fsdp,
        pp=(2 * m * 4 * states + 4 * wte) * (pp > 1),
    )


@dataclass(frozen=True)
class Cost:
    """Seconds of one update, by what they go into."""

    products: float  # at the stated share of the peak
    uneven: float  # pp: what stages with fewer layers, or without the output, wait for the slowest
    recomputed: float
    sums_of_products: float  # tp: waited for
    gathering: float  # fsdp: what of it takes longer than the work it goes on beside
    bubble: float  # pp: stages that wait for the first micro-batch to come and the last to go
    passing_on: float  # pp
    sums_of_gradients: float  # dp: after the last micro-batch

    @property
    def total(self) -> float:
        """All of them together."""
        return (
            self.products + self.uneven + self.recomputed + self.sums_of_products + self.gathering + self.bubble
            + self.passing_on + self.sums_of_gradients
        )  # fmt: skip


def cost(work: Work, way: Way, cluster: Cluster, mfu: float) -> Cost:
    """How long an update takes, with links at their nominal speed.

    The slowest stage sets the pace of a pipeline: m micro-batches take m + p − 1 of its steps. The optimiser's own
    update, reading text and evaluation are not counted.

    Source   Narayanan 2021 §2.2: a bubble of (p − 1)/m.
    """
    model, layout, m = work.model, way.layout, way.micro_batches
    tp, pp = layout.tp, layout.pp
    N = way.sequences_at_once * model.n_ctx
    in_blocks, head = flops_by_part(model)
    most, fewest = (len(stage_layers(model.n_layer, pp, stage)) for stage in (0, pp - 1))
    token_s = N / (cluster.machine.flops_per_s * mfu * tp)
    block_s = in_blocks / model.n_layer * token_s
    mean_s, slowest_s = (in_blocks + head) * token_s / pp, max(most * block_s, fewest * block_s + head * token_s)
    recomputed_s = most * block_s / 3 if way.recompute else 0.0
    sent = traffic(work, way)
    sums_s = sent.tp / cluster.bandwidth(tp)
    busy_s = m * (slowest_s + recomputed_s) + sums_s
    return Cost(
        products=m * mean_s,
        uneven=m * (slowest_s - mean_s),
        recomputed=m * recomputed_s,
        sums_of_products=sums_s,
        gathering=max(0.0, sent.fsdp / cluster.bandwidth(tp * layout.fsdp) - busy_s),
        bubble=(pp - 1) / m * busy_s,
        passing_on=sent.pp / cluster.bandwidth(layout.size),
        sums_of_gradients=sent.dp / cluster.bandwidth(layout.size // pp),
    )


# -------------------------------------------------------------------------------------------------------- layouts


@dataclass(frozen=True)
class Option:
    """A way with what it takes."""

    way: Way
    memory: Memory
    cost: Cost
    traffic: Traffic
    tokens_per_s: float
    fits: bool

    @property
    def bubble_frac(self) -> float:
        """The part of a pipeline's steps in which a stage waits, (p − 1) / (m + p − 1)."""
        pp, m = self.way.layout.pp, self.way.micro_batches
        return (pp - 1) / (m + pp - 1)

    def why(self) -> str:
        """What of an update's time is not products, from the largest on; or, why it does not fit."""
        names = {
            "uneven": "uneven stages", "recomputed": "blocks computed again", "sums_of_products": "sums within blocks",
            "gathering": "gathering", "bubble": "the pipeline's bubble", "passing_on": "passing on",
            "sums_of_gradients": "sums of gradients",
        }  # fmt: skip
        lost = sorted(((getattr(self.cost, field) / self.cost.total, name) for field, name in names.items()))
        parts = [f"{name} {frac:.0%}" for frac, name in reversed(lost) if frac >= 0.005]
        return ", ".join(parts) or "products alone"


def layouts(model: GPTConfig, cluster: Cluster, sequences_per_batch: int) -> Iterator[Layout]:
    """Every layout that divides the model over the cluster.

    Tensor parallelism stays within a node: its sums are waited for, so across nodes layers are split before products.
    """
    for tp in _divisors(cluster.count):
        within = tp <= cluster.per_node and (cluster.count <= cluster.per_node or cluster.per_node % tp == 0)
        if not within or model.n_head % tp or 4 * model.n_embd % tp:
            continue
        for pp in _divisors(cluster.count // tp):
            for fsdp in _divisors(cluster.count // (tp * pp)):
                layout = Layout(pp=pp, dp=cluster.count // (tp * pp * fsdp), fsdp=fsdp, tp=tp)
                uneven = fsdp > 1 and tp > 1 and model.n_embd % fsdp
                if pp <= model.n_layer and not uneven and sequences_per_batch % layout.batch_ranks == 0:
                    yield layout


def ways(
    work: Work, cluster: Cluster, *, sequences_at_once: int | None = None, recompute: bool | None = None
) -> Iterator[Way]:
    """Every way to make the update: layouts, powers of two of sequences at once, with and without recomputing.

    A pipeline's micro-batches are all of one size, and no fewer than its stages.
    """
    for layout in layouts(work.model, cluster, work.sequences_per_batch):
        share = work.sequences_per_batch // layout.batch_ranks
        sizes = [n for n in _divisors(share) if n & (n - 1) == 0 or n == share]
        if sequences_at_once is not None:
            sizes = [min(sequences_at_once, share)]
        for B in sizes:
            if layout.pp == 1 or (share % B == 0 and share // B >= layout.pp):
                for again in (False, True) if recompute is None else (recompute,):
                    yield Way(layout, B, -(-share // B), again)


def options(
    work: Work,
    cluster: Cluster,
    mfu: float,
    *,
    sequences_at_once: int | None = None,
    recompute: bool | None = None,
) -> list[Option]:
    """All ways, those that fit first, the fastest first of them; of those that do not, the nearest first.

    Ways count as equally fast in steps of 2% from the fastest. Of these that one is first which comes nearest to 8,192
    tokens at once, as products of few rows do not reach the stated share of the peak; then the one that sends least.
    """
    found = []
    room = cluster.machine.memory_bytes - cluster.machine.reserved_bytes
    tokens = work.sequences_per_batch * work.model.n_ctx
    for way in ways(work, cluster, sequences_at_once=sequences_at_once, recompute=recompute):
        held, took = memory(work, way, cluster.machine), cost(work, way, cluster, mfu)
        found.append(Option(way, held, took, traffic(work, way), tokens / took.total, held.total <= room))
    fastest_s = min((option.cost.total for option in found if option.fits), default=1.0)

    def order(option: Option) -> tuple[bool, float, float, float]:
        if not option.fits:
            return True, option.memory.total, 0.0, 0.0
        steps = int(math.log(option.cost.total / fastest_s) / 0.02)
        few = abs(math.log2(option.way.sequences_at_once * work.model.n_ctx / 8192))
        return False, steps, few, option.traffic.total

    return sorted(found, key=order)


def smallest(
    work: Work, cluster: Cluster, *, sequences_at_once: int | None = None, recompute: bool | None = None
) -> tuple[int, Way] | None:
    """The fewest machines that hold the run, of 1, 2, 4 … of a node and then of whole nodes; and how they do.

    None where 512 nodes are not enough.
    """
    room = cluster.machine.memory_bytes - cluster.machine.reserved_bytes
    parts = [n for n in _divisors(cluster.per_node) if n < cluster.per_node]
    whole = range(cluster.per_node, 512 * cluster.per_node + 1, cluster.per_node)
    for count in [*parts, *whole]:
        if 12 * work.model.n_params() > count * room:
            continue
        fewer = replace(cluster, count=count)
        for way in ways(work, fewer, sequences_at_once=sequences_at_once, recompute=recompute):
            if way.layout.dp == 1 and memory(work, way, cluster.machine).total <= room:
                return count, way
    return None


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]
