"""The gradient noise scale, where the truth is known in closed form, and against gradients of one example at a time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from rein.models.gpt import GPT, GPTConfig
from rein.noise_scale import BatchController, Estimate, LayerNormExamples, NoiseScale, measurement, unbiased

GRADIENT_SQ, VARIANCE, D = 1.863, 4.0, 200  # of each component: tr(Σ) = 800
TRUE = VARIANCE * D / GRADIENT_SQ


def gaussian(rng, trials, b_small, b_big, *, gradient_sq=GRADIENT_SQ):
    """(small_sq, b_small, big_sq, b_big) of batches of Gaussian gradients; the small one is a part of the big one."""
    G = np.zeros(D)
    G[0] = math.sqrt(gradient_sq)
    small = G + rng.normal(size=(trials, D)) * math.sqrt(VARIANCE / b_small)
    rest = G + rng.normal(size=(trials, D)) * math.sqrt(VARIANCE / (b_big - b_small))
    big = (b_small * small + (b_big - b_small) * rest) / b_big
    return [(s, b_small, b, b_big) for s, b in zip((small**2).sum(1), (big**2).sum(1), strict=True)]


def estimated(measurements, **settings_of):
    """The estimate after all measurements, one by one."""
    noise = NoiseScale(**settings_of)
    for m in measurements:
        noise.update(*m)
    return noise.estimate()


def covered(estimates, true):
    """The part of the intervals that hold the truth; none of them may be empty."""
    assert all(e.low <= e.high for e in estimates)
    return np.mean([e.low <= true <= e.high for e in estimates])


# ------------------------------------------------------------------------------------------------- the unbiased pair


@given(
    gradient_sq=st.floats(1e-3, 1e3),
    trace=st.floats(1e-3, 1e5),
    b_small=st.integers(1, 1000),
    more=st.integers(1, 10_000),
)
@settings(deadline=None)
def test_the_pair_solves_the_two_equations(gradient_sq, trace, b_small, more):
    b_big = b_small + more
    found = unbiased(gradient_sq + trace / b_small, b_small, gradient_sq + trace / b_big, b_big)
    size = (gradient_sq + trace / b_small) * 1e-9
    assert found[0] == pytest.approx(gradient_sq, abs=size * b_big / more)
    assert found[1] == pytest.approx(trace, abs=size / (1 / b_small - 1 / b_big))


def test_the_pair_is_unbiased_on_gaussian_gradients():
    pairs = np.array([unbiased(*m) for m in gaussian(np.random.default_rng(0), 4000, 4, 64)])
    error = pairs.std(axis=0) / math.sqrt(len(pairs))
    assert np.all(np.abs(pairs.mean(axis=0) - [GRADIENT_SQ, VARIANCE * D]) < 3 * error)
    assert np.all(error < [0.02 * GRADIENT_SQ, 0.01 * VARIANCE * D]), "of so many trials"
    assert (pairs[:, 0] < 0).any(), "single updates do give a negative |G|²: that is why averages are divided"


def test_two_batches_of_one_size_say_nothing():
    with pytest.raises(AssertionError, match="different size"):
        unbiased(1.0, 8, 1.0, 8)


# -------------------------------------------------------------------------------------------------- the moving average


def by_definition(measurements, decay):
    """The estimate from all measurements at once: weighted sums as they are written, roots by numpy."""
    x = np.array([unbiased(*m) for m in measurements])
    w = decay ** np.arange(len(x) - 1, -1, -1.0)
    mean = (w[:, None] * x).sum(0) / w.sum()
    V = np.einsum("i,ij,ik->jk", w**2, x - mean, x - mean) / (w.sum() ** 2 - (w**2).sum())
    t_sq = student.ppf(0.975, w.sum() ** 2 / (w**2).sum() - 1) ** 2
    roots = np.roots(
        [
            mean[0] ** 2 - t_sq * V[0, 0],
            -2 * (mean[0] * mean[1] - t_sq * V[0, 1]),
            mean[1] ** 2 - t_sq * V[1, 1],
        ]
    )
    return mean[1] / mean[0], min(roots), max(roots)


def test_the_running_sums_are_the_definition():
    rng = np.random.default_rng(1)
    measurements = [m for i in range(60) for m in gaussian(rng, 1, 4, 16 + i, gradient_sq=30)]
    found = estimated(measurements, decay=0.9)
    assert (found.b_simple, found.low, found.high) == pytest.approx(by_definition(measurements, 0.9), rel=1e-9)


def test_its_interval_holds_the_truth():
    rng = np.random.default_rng(2)
    estimates = [estimated(gaussian(rng, 100, 4, 64)) for _ in range(200)]
    assert 0.90 <= covered(estimates, TRUE) <= 0.99, "a 95% interval"
    assert np.median([e.high - e.low for e in estimates]) < 0.7 * TRUE, "and one that says something"


def test_it_is_right_while_the_batch_ramps():
    """From 8 to 206 sequences: no bias from the small batches, and an interval that is not wide because of them."""
    rng = np.random.default_rng(3)
    estimates = [estimated(gaussian(rng, 1, 4, 8 + 2 * i, gradient_sq=20)[0] for i in range(100)) for _ in range(200)]
    true = VARIANCE * D / 20
    assert 0.90 <= covered(estimates, true) <= 0.99
    values = np.array([e.b_simple for e in estimates])
    assert abs(np.median(values) - true) < 3 * 1.25 * values.std() / math.sqrt(len(values))


def test_it_is_right_after_few_measurements():
    rng = np.random.default_rng(4)
    estimates = [estimated(gaussian(rng, 4, 4, 64, gradient_sq=20)) for _ in range(300)]
    assert 0.90 <= covered(estimates, VARIANCE * D / 20) <= 0.99


def test_it_follows_a_change():
    rng = np.random.default_rng(5)
    noise = NoiseScale(decay=0.9)
    for gradient_sq in (100.0, 10.0):
        for m in gaussian(rng, 100, 4, 64, gradient_sq=gradient_sq):
            noise.update(*m)
        found = noise.estimate()
        assert found.low < VARIANCE * D / gradient_sq < found.high


def test_a_gradient_that_cannot_be_told_from_0_has_no_upper_end():
    rng = np.random.default_rng(6)
    estimates = [estimated(gaussian(rng, 60, 4, 64, gradient_sq=0.0)) for _ in range(200)]
    assert np.mean([math.isinf(e.high) for e in estimates]) > 0.9
    assert all(e.low < math.inf for e in estimates)
    assert any(math.isinf(e.b_simple) for e in estimates)
    open_ended = next(e for e in estimates if math.isinf(e.high) and e.low > 0)
    assert str(open_ended).startswith("at least ")
    assert "no upper end" in str(open_ended)


def test_before_it_can_know():
    assert str(estimated([])) == "not known yet"
    found = estimated([(202.0, 4, 14.5, 64)])
    assert (found.b_simple, found.low, found.high) == (pytest.approx(400.0), 0.0, math.inf)


def test_averages_that_are_not_even_positive():
    # less noise in the small batch: tr(Σ) below 0
    found = estimated((0.5 * wobble, 4, 0.9 * wobble, 64) for wobble in (1.0, 1.1, 0.9))
    assert (found.b_simple, found.low, found.high) == (0.0, 0.0, 0.0)
    # more noise than tr(Σ) / B explains: |G|² below 0
    assert estimated((10.0 - wobble, 4, 0.5, 64) for wobble in (1.0, 2.0, -1.0)).b_simple == math.inf
    assert math.isnan(estimated([(0.0, 4, 0.0, 64)]).b_simple)


@given(values=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(2, 512)), min_size=1, max_size=30))
@settings(deadline=None)
def test_whatever_is_measured_the_estimate_is_in_its_interval(values):
    found = estimated((small_sq, 1, big_sq, b_big) for small_sq, big_sq, b_big in values)
    assert 0 <= found.low <= found.high
    assert math.isnan(found.b_simple) or found.low <= found.b_simple <= found.high
    row = json.loads(json.dumps(found.row(), allow_nan=False))
    assert not row or Estimate.from_row(row) == found
    assert row or Estimate.from_row(row) is None
    assert row or str(found) == "not known yet"


@given(
    values=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=2, max_size=20), cut=st.integers(0, 20)
)
@settings(deadline=None)
def test_its_state_survives_json_to_the_last_bit(values, cut):
    whole, resumed = NoiseScale(0.93), NoiseScale(0.93)
    for place, (small_sq, big_sq) in enumerate(values):
        if place == cut:
            resumed = NoiseScale.from_state(json.loads(json.dumps(resumed.state())))
        whole.update(small_sq, 2, big_sq, 8)
        resumed.update(small_sq, 2, big_sq, 8)
    assert resumed.state() == whole.state()
    assert repr(resumed.estimate()) == repr(whole.estimate())
    assert all(type(value) is float for value in whole.state().values())


def test_an_estimate_survives_a_row_of_metrics():
    for estimate in (Estimate(30.0, 20.0, 50.0), Estimate(90.0, 20.0, math.inf), Estimate(math.inf, 20.0, math.inf)):
        assert Estimate.from_row({"opt_step": 1, **estimate.row()}) == estimate
    assert Estimate.from_row({"opt_step": 1, "train_loss": 3.0}) is None


# ------------------------------------------------------------------------------ a model whose noise scale is known


def least_squares(true_D, weights_D, noise_std):
    """|G|² and tr(Σ) of ½ (x·w − x·w* − ε)² with x ~ N(0, I) and ε ~ N(0, σ²), at w:  δ = w − w*,

    G = δ,   E|g|² = E[|x|² (x·δ)²] + σ² E|x|² = (D + 2) |δ|² + σ² D,   tr(Σ) = (D + 1) |δ|² + σ² D
    """
    delta_sq = float((weights_D - true_D).square().sum())
    return delta_sq, (len(true_D) + 1) * delta_sq + noise_std**2 * len(true_D)


def test_least_squares_measured_by_accumulation():
    """Weights on their way to the solution; gradients by autograd, the norm after one micro-batch against after all."""
    torch.manual_seed(0)
    true_D, noise_std, micro, parts = torch.linspace(-1, 1, 12), 0.5, 8, 3
    model = nn.Linear(12, 1, bias=False)
    nn.init.zeros_(model.weight)

    def part_loss(n):
        x = torch.randn(n, 12)
        return 0.5 * (model(x).squeeze(1) - x @ true_D - noise_std * torch.randn(n)).square().mean()

    for _ in range(10):
        part_loss(24).backward()
        with torch.no_grad():
            model.weight -= 0.05 * model.weight.grad
            model.weight.grad = None
    gradient_sq, trace = least_squares(true_D, model.weight.detach()[0], noise_std)
    assert 5 < trace / gradient_sq < 30, "as expected of so few updates"

    estimates = []
    for seed in range(60):
        torch.manual_seed(seed)
        noise = NoiseScale()
        for _ in range(40):
            model.weight.grad = None
            (part_loss(micro) / parts).backward()
            small_sq = model.weight.grad.square().sum().item() * parts**2
            for _ in range(parts - 1):
                (part_loss(micro) / parts).backward()
            noise.update(small_sq, micro, model.weight.grad.square().sum().item(), micro * parts)
        estimates.append(noise.estimate())
    assert covered(estimates, trace / gradient_sq) >= 0.90
    assert np.median([e.high / e.low for e in estimates]) < 6, "of 40 measurements"


# ------------------------------------------------------------------------------------------------------ LayerNorm


class Normed(nn.Module):
    """Two blocks with LayerNorms of every kind: affine, without bias, without anything, over two axes."""

    def __init__(self, checkpointed=None, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU())
        self.second = nn.Sequential(
            nn.Linear(6, 6), nn.LayerNorm(6, bias=False), nn.LayerNorm(6, elementwise_affine=False)
        )
        self.last = nn.LayerNorm((3, 6))
        self.checkpointed = checkpointed
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.7)
        self.to(dtype)

    def forward(self, x):
        for block in (self.first, self.second):
            if self.checkpointed is None:
                x = x + block(x)
            else:
                x = x + checkpoint(block, x, use_reentrant=self.checkpointed == "reentrant")
        return self.last(x).square().sum(dim=(1, 2)) + x.sum(dim=(1, 2))

    def loss(self, x):
        return self(x).mean()


def layer_norms(model):
    return [p for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]


def layer_norm_gradient_sq(model):
    """|G|² of the LayerNorm parameters that have a gradient."""
    return sum(p.grad.square().sum().item() for p in layer_norms(model) if p.grad is not None)


def seven(dtype=torch.float64):
    """Seven examples for `Normed`."""
    return torch.randn(7, 3, 6, dtype=dtype)


def one_by_one(model, loss, examples):
    """Each example's gradient of the LayerNorm parameters, from a backward pass of its own: (B, P)."""
    rows = []
    for example in examples.split(1):
        gradients = torch.autograd.grad(loss(example), layer_norms(model))
        rows.append(torch.cat([g.flatten().double() for g in gradients]))
    return torch.stack(rows)


def measured(model, loss, parts, *, scale):
    model.zero_grad()
    with LayerNormExamples(model, scale=scale) as examples:
        for part in parts:
            (loss(part) * (len(part) / scale)).backward()
    return examples


@pytest.mark.parametrize("checkpointed", [None, "reentrant", "not reentrant"])
def test_each_example_as_if_it_were_alone(checkpointed):
    model, x = Normed(checkpointed), seven().requires_grad_()
    reference = Normed()
    rows = one_by_one(reference, reference.loss, x)
    examples = measured(model, model.loss, x.split(3), scale=7)  # micro-batches of 3, 3 and 1
    torch.testing.assert_close(examples.squared_norms(), rows.square().sum(1), rtol=1e-10, atol=0)
    small_sq, b_small, big_sq, b_big = measurement(examples.totals())
    assert (b_small, b_big) == (1, 7)
    assert small_sq == pytest.approx(rows.square().sum(1).mean().item(), rel=1e-10)
    assert big_sq == pytest.approx(rows.mean(0).square().sum().item(), rel=1e-10)
    assert big_sq == pytest.approx(layer_norm_gradient_sq(model), rel=1e-10)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_gpt(norm):
    model = GPT(GPTConfig(23, 8, 16, 2, 2, norm=norm)).initialise(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    tokens_BT = torch.randint(0, 23, (6, 9), generator=torch.Generator().manual_seed(2))

    def loss(part_BT):
        return model.loss(part_BT[:, :-1], part_BT[:, 1:])

    rows = one_by_one(model, loss, tokens_BT)
    examples = measured(model, loss, tokens_BT.split(4), scale=6)
    torch.testing.assert_close(examples.squared_norms().double(), rows.square().sum(1), rtol=1e-4, atol=0)
    small_sq, _, big_sq, b_big = measurement(examples.totals())
    assert (small_sq, b_big) == (pytest.approx(rows.square().sum(1).mean().item(), rel=1e-4), 6)
    assert big_sq == pytest.approx(layer_norm_gradient_sq(model), rel=1e-4)


@pytest.mark.parametrize("how", ["autocast", "weights in bfloat16"])
def test_in_bfloat16(how):
    dtype = torch.bfloat16 if how == "weights in bfloat16" else torch.float32
    model = Normed(dtype=dtype)
    x = torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(3)).to(dtype)

    def loss(part):
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            return model.loss(part)

    rows = one_by_one(model, loss, x)
    examples = measured(model, loss, x.split(3), scale=7)
    assert examples.totals().dtype == torch.float64
    torch.testing.assert_close(examples.squared_norms().double(), rows.square().sum(1), rtol=0.03, atol=0)


def test_the_model_is_as_it_was():
    plain, watched, x = Normed(), Normed(), seven()
    plain.loss(x).backward()
    measured(watched, watched.loss, [x], scale=7)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    with LayerNormExamples(watched, scale=7) as examples, torch.no_grad():
        assert torch.equal(watched(x), plain(x))
    with pytest.raises(AssertionError, match="no backward pass"):
        examples.totals()
    assert not any(m._forward_hooks for m in watched.modules())


def test_it_starts_afresh_each_time():
    model, x = Normed(), seven()
    examples = LayerNormExamples(model, scale=7)
    totals = []
    for _ in range(2):
        with examples:
            model.loss(x).backward()
        totals.append(examples.totals())
    assert torch.equal(*totals)
    model.loss(x).backward()
    assert torch.equal(examples.totals(), totals[0]), "outside, nothing is collected"


def test_checkpointing_still_frees_the_inputs():
    model, x = Normed("not reentrant"), seven()
    inputs = []
    model.first[1].register_forward_hook(
        lambda norm, args, out: inputs.append(StorageWeakRef(args[0].untyped_storage()))
    )
    with LayerNormExamples(model, scale=7):
        loss = model.loss(x)
        assert inputs[0].expired()
        loss.backward()


def test_frozen_layer_norms_do_not_count():
    model, x = Normed(), seven()
    model.first[1].requires_grad_(False)
    examples = measured(model, model.loss, [x], scale=7)
    assert measurement(examples.totals())[2] == pytest.approx(layer_norm_gradient_sq(model), rel=1e-10)


def test_what_cannot_be_measured():
    with pytest.raises(AssertionError, match="no LayerNorm"):
        LayerNormExamples(nn.Linear(2, 2), scale=1)
    twice = nn.Sequential(norm := nn.LayerNorm(4), nn.Linear(4, 4), norm, nn.LayerNorm(4))
    with LayerNormExamples(twice, scale=3) as examples:
        twice(torch.randn(3, 4)).square().mean().backward()
    with pytest.raises(AssertionError, match="applied twice"):
        examples.totals()


def test_sharded_parameters(tmp_path):
    """FSDP2 makes parameters DTensors and gathers them for the forward pass; here on one process."""
    model, x = Normed(dtype=torch.float32), seven(torch.float32)
    expected = measured(model, model.loss, x.split(4), scale=7).totals()
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        for part in (model.first, model.second, model):
            fully_shard(part, mesh=mesh)
        totals = measured(model, model.loss, x.split(4), scale=7).totals()
        assert isinstance(model.last.weight.grad, DTensor)
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(totals, expected)


# -------------------------------------------------------------------------------------------------- the controller


def sure(b_simple):
    return Estimate(b_simple, b_simple * 0.95, b_simple * 1.05)


def test_it_grows_only_when_the_whole_interval_is_above_for_long_enough():
    controller = BatchController(start=16, full=1024, patience=3)
    unsure = Estimate(100.0, 17.0, 900.0)  # 17 < 16 · 1.1
    batches = [controller.decide(e) for e in (sure(100), sure(100), unsure, sure(100), sure(100), sure(100), sure(100))]
    assert batches == [16, 16, 16, 16, 16, 32, 32]


def test_it_goes_to_the_target_in_doublings_and_stays():
    controller = BatchController(start=16, full=1024, granule=8, patience=1)
    assert [controller.decide(sure(101)) for _ in range(5)] == [32, 64, 96, 96, 96]
    assert [controller.decide(sure(10)) for _ in range(3)] == [96, 96, 96], "and never shrinks"


def test_it_shrinks_where_it_is_asked_to():
    controller = BatchController(start=16, full=1024, granule=8, patience=2, shrinks=True)
    for _ in range(12):
        controller.decide(sure(1000))
    assert controller.sequences == 1000
    assert [controller.decide(sure(101)) for _ in range(9)] == [1000, 504, 504, 256, 256, 128, 128, 104, 104]
    assert [controller.decide(Estimate(1.0, 0.0, math.inf)) for _ in range(5)] == [104] * 5
    turning = [controller.decide(e) for e in (sure(10), sure(500), sure(500), sure(500), sure(10), sure(10))]
    assert turning == [104, 104, 208, 208, 208, 104], "asking for less is not asking for more, nor the reverse"


def test_no_more_than_full_and_by_the_factor():
    controller = BatchController(start=16, full=100, granule=16, patience=1, factor=0.5)
    assert [controller.decide(Estimate(math.inf, 1000.0, math.inf)) for _ in range(5)] == [32, 64, 100, 100, 100]
    controller = BatchController(start=16, full=100, patience=1, factor=0.5)
    assert [controller.decide(sure(60)) for _ in range(3)] == [30, 30, 30]


def test_nothing_known_changes_nothing():
    controller = BatchController(start=16, full=1024, patience=1, shrinks=True)
    for estimate in (NoiseScale().estimate(), Estimate(math.nan, 0.0, math.inf), Estimate(math.inf, 0.0, math.inf)):
        assert controller.decide(estimate) == 16


@st.composite
def courses(draw):
    """Settings of a controller, and intervals that it is shown."""
    start = draw(st.integers(1, 64))
    given_ = {"start": start, "full": start + draw(st.integers(0, 500)), "granule": draw(st.integers(1, 40)),
              "factor": draw(st.floats(0.1, 4)), "margin": draw(st.floats(0, 0.5)),
              "patience": draw(st.integers(1, 4)), "shrinks": draw(st.booleans())}  # fmt: skip
    number = st.one_of(st.floats(0, 2000), st.just(math.inf))
    sorted_three = st.tuples(number, number, number).map(sorted)
    return given_, [Estimate(b_simple, low, high) for low, b_simple, high in draw(st.lists(sorted_three, max_size=20))]


@given(course=courses())
@settings(deadline=None)
def test_whatever_is_measured_the_batch_keeps_its_rules(course):
    chosen, estimates = course
    controller = BatchController(**chosen)
    before = controller.sequences
    for estimate in estimates:
        after = controller.decide(estimate)
        assert chosen["start"] <= after <= chosen["full"]
        assert before / 2 - chosen["granule"] < after <= 2 * before
        assert after >= before or chosen["shrinks"]
        assert after % chosen["granule"] == 0 or after in (before, chosen["start"], chosen["full"])
        before = after


@given(course=courses(), cut=st.integers(0, 19))
@settings(deadline=None)
def test_the_controller_goes_on_from_its_state(course, cut):
    chosen, estimates = course
    whole, resumed = BatchController(**chosen), BatchController(**chosen)
    for place, estimate in enumerate(estimates):
        if place == cut:
            resumed = BatchController.from_state(json.loads(json.dumps(resumed.state())))
        assert resumed.decide(estimate) == whole.decide(estimate)
    assert resumed.state() == whole.state()


def test_the_two_together_find_the_noise_scale_of_a_problem():
    """A batch that starts at 8 where B_simple is 160 ends within 30% of it, and not before it was measured."""
    rng = np.random.default_rng(7)
    noise, controller, batches = NoiseScale(), BatchController(start=8, full=1024, granule=4), []
    for _ in range(400):
        noise.update(*gaussian(rng, 1, 4, controller.sequences, gradient_sq=5)[0])
        batches.append(controller.decide(noise.estimate()))
    assert batches[:9] == [8] * 9
    assert batches == sorted(batches)
    assert batches[-1] == pytest.approx(160, rel=0.3)
