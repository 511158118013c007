"""The presets are the papers' tables, and settings that are not given come from them."""

from pathlib import Path

import pytest

from rein.errors import UserError
from rein.models.presets import PRESETS, preset
from rein.train.pretrain import _learning_rate
from rein.train.pretrain_config import PretrainConfig
from rein.train.watch import Ramp

# Brown 2020, Table 2.1: batch in tokens, learning rate.
TABLE = {"small": (0.5e6, 6e-4), "medium": (0.5e6, 3e-4), "large": (0.5e6, 2.5e-4), "xl": (1e6, 2e-4),
         "2.7b": (1e6, 1.6e-4), "6.7b": (2e6, 1.2e-4), "13b": (2e6, 1e-4), "175b": (3.2e6, 0.6e-4)}  # fmt: skip


def config(name, **changes):
    return PretrainConfig(data=Path("corpus"), out=Path("run"), preset=name, **changes)


@pytest.mark.parametrize("size", TABLE)
def test_gpt3_is_trained_by_table_2_1_and_appendix_b(size):
    settled = config(f"gpt3-{size}").settled(10**9)
    batch, rate = TABLE[size]
    assert settled.sequences_per_batch * 2048 == pytest.approx(batch, rel=0.05)  # "0.5M" is 2^19, "3.2M" 1,536 windows
    assert settled.ramp_from_sequences * 2048 == 32_768
    assert 4e9 <= settled.ramp_tokens <= 12e9
    assert (settled.train_tokens, settled.warmup_tokens, settled.decay_tokens) == (300e9, 375e6, 260e9)
    assert (settled.adam_b1, settled.adam_b2, settled.adam_eps) == (0.9, 0.95, 1e-8)
    assert (settled.clip_norm, settled.weight_decay, settled.optimizer) == (1.0, 0.1, "adamw")
    assert [_learning_rate(settled, int(t), 0) for t in (0, 375e6, 260e9, 299e9)] == pytest.approx(
        [0, rate, rate / 10, rate / 10]
    )
    assert settled.model(50257).attention == "banded"


def test_gpt1_as_its_paper_and_code_trained_it():
    settled = config("gpt1").settled(10**9)
    assert settled.train_tokens == 100 * 10**9  # 100 epochs
    assert (settled.sequences_per_batch, settled.optimizer, settled.schedule) == (64, "gpt1", "gpt1")
    assert (settled.adam_b2, settled.weight_decay, settled.clip_norm) == (0.999, 0.01, 1.0)
    assert _learning_rate(settled, 0, 0) == 0
    assert _learning_rate(settled, 2000 * 64 * 512, 0) == 2.5e-4
    assert _learning_rate(settled, settled.train_tokens, 0) == pytest.approx(0, abs=1e-12)
    model = settled.model(40478)
    assert (model.norm, model.dropout, model.n_ctx, model.n_params()) == ("post", 0.1, 512, 116_534_784)


def test_gpt2_has_512_windows_of_1024():
    for name in ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m"):
        settled = config(name).settled(10**9)
        assert (settled.sequences_per_batch, settled.model(50257).n_ctx) == (512, 1024)
        assert any("optimiser" in line for line in preset(name).chosen), "what was not published is said"


def test_the_schedule_shrinks_with_training():
    settled = config("gpt3-small", train_tokens=3_000_000_000).settled(10**9)
    assert (settled.warmup_tokens, settled.decay_tokens, settled.ramp_tokens) == (3_750_000, 2.6e9, 4e7)
    assert settled.sequences_per_batch == 256


def test_what_is_given_stays():
    given = {"learning_rate": 1e-3, "warmup_tokens": 7, "weight_decay": 0.0, "sequences_per_batch": 8, "clip_norm": 0.0}
    settled = config("gpt3-175b", **given).settled(10**9)
    assert {name: getattr(settled, name) for name in given} == given
    assert settled.ramp_from_sequences == 8
    assert settled.settled(1) == settled


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_settles(name):
    settled = config(name).settled(10**8)
    assert None not in (settled.train_tokens, settled.optimizer, settled.final_lr_frac, settled.ramp_from_sequences)
    assert settled.model(1000).n_vocab == 1000


def test_batches_of_a_ramp_are_what_processes_can_share():
    ramp = Ramp(start=16, full=256, ramp_tokens=4_000_000_000, granule=8)
    sizes = [ramp.sequences(tokens) for tokens in range(0, 5_000_000_000, 50_000_000)]
    assert sizes[0] == 16
    assert sizes[-1] == 256
    assert sizes == sorted(sizes)
    assert all(size % 8 == 0 for size in sizes)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gpt3-small", {"n_ctx": 128, "band": 256}, "--band 256 is wider than the context, n_ctx=128"),
        ("gpt2-124m", {"band": 64}, "--band 64 is given, but the layers of gpt2-124m are all dense"),
        ("gpt2-124m", {"n_head": 7}, "n_embd=768 is not a multiple of n_head=7"),
    ],
)
def test_models_that_cannot_be(name, changes, words):
    with pytest.raises(UserError, match=words):
        config(name, **changes).model(1000)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parallel": "dp=2,xp=2"}, "names 'xp'"),
        ({"parallel": "dp=0"}, "'dp=0' should be a kind and a whole number"),
        ({"parallel": "dp=2,dp=2"}, "each kind once"),
        ({"slots": 6}, "--slots is 6, but it must be a power of two"),
        ({"slots": 8, "parallel": "tp=2"}, "--slots 8 cannot be had with --parallel tp=2"),
        ({"slots": 8, "parallel": "dp=3"}, "cannot be shared by the 3 batch processes"),
        ({"slots": 2, "parallel": "dp=4"}, "cannot be shared by the 4 batch processes"),
        ({"compile": True, "parallel": "tp=2"}, "--compile does not work with"),
        ({"ramp": "noise", "noise_every_updates": 0}, "measures nothing"),
        ({"ramp": "noise", "parallel": "pp=2"}, "--ramp noise cannot be had with --parallel pp=2"),
        ({"ramp": "noise", "parallel": "fsdp=2,tp=2"}, "--ramp noise cannot be had with --parallel fsdp=2,tp=2"),
        ({"ramp": "noise", "parallel": "fsdp=2", "slots": 8}, "differ in their last bits"),
        ({"noise_every_updates": -1}, "--noise-every-updates is -1"),
    ],
)
def test_layouts_that_cannot_be(changes, words):
    with pytest.raises(UserError, match=words):
        config("tiny-gpt2", **changes)
