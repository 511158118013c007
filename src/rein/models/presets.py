"""The models of the papers as data: each size with the optimiser, schedule, batch, ramp, tokenizer and text it had.

`rein pretrain --preset NAME` takes every setting that is not given from here, and `rein plan NAME` reckons with it.
What a paper left open is filled in with a choice of ours, and `chosen` names it; nothing in it is the paper's word.
Sources: Radford 2018 §4.1 and the released code's opt.py; Radford 2019 §2 and Table 2; Brown 2020 §2, Tables 2.1
and 2.2, App. B. Two rows of Brown's Table 2.1 contradict themselves: 24 heads of 128 are not 2,048, and 40 heads
of 128 are not 5,140. Table D.1's parameter counts fit 16 heads and 5,120, which the plain names mean; the
`-printed` names are the table to the letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rein.errors import UserError, suggestion
from rein.models.gpt import GPTConfig


@dataclass(frozen=True)
class Preset:
    """A model, and how its paper trained it. Tokens are training tokens; a sequence is `model.n_ctx` of them."""

    model: GPTConfig
    learning_rate: float  # peak
    sequences_per_batch: int
    train_tokens: int | None = None  # None: `epochs` of the corpus at hand
    epochs: int | None = None
    ramp_tokens: int = 0  # over which the batch grows linearly from `ramp_from_sequences`
    ramp_from_sequences: int = 1
    warmup_tokens: int = 0
    decay_tokens: int | None = None  # where the cosine ends; None: with training
    final_lr_frac: float = 0.0
    optimizer: Literal["adamw", "gpt1"] = "adamw"
    schedule: Literal["cosine", "gpt1"] = "cosine"
    adam_b1: float = 0.9
    adam_b2: float = 0.95
    adam_eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    tokenizer: Literal["gpt1", "gpt2"] = "gpt2"
    corpus: str = ""  # what the paper trained on, and where its recipe is
    chosen: tuple[str, ...] = ()  # what the paper does not say


_GPT1_TRAINING: dict[str, Any] = {
    "learning_rate": 2.5e-4,
    "sequences_per_batch": 64,
    "optimizer": "gpt1",
    "schedule": "gpt1",
    "adam_b2": 0.999,
    "weight_decay": 0.01,
    "tokenizer": "gpt1",
}
_GPT2_CHOSEN = (
    "optimiser, rates and schedule: those of the GPT-3 of about this size",
    "training tokens: 10 billion",
    "dropout: none",
)


def _gpt2(n_layer: int, n_embd: int, n_head: int, learning_rate: float) -> Preset:
    return Preset(
        GPTConfig(50257, 1024, n_embd, n_head, n_layer),
        learning_rate,
        sequences_per_batch=512,
        train_tokens=10_000_000_000,
        warmup_tokens=375_000_000,
        final_lr_frac=0.1,
        corpus="WebText: recipes/webtext.py",
        chosen=_GPT2_CHOSEN,
    )


def _gpt3(
    n_layer: int, n_embd: int, n_head: int, d_head: int, batch_tokens: int, learning_rate: float, ramp_tokens: float
) -> Preset:
    n_ctx = 2048
    return Preset(
        GPTConfig(50257, n_ctx, n_embd, n_head, n_layer, d_head=d_head, attention="banded"),
        learning_rate,
        sequences_per_batch=batch_tokens // n_ctx,
        train_tokens=300_000_000_000,
        ramp_tokens=int(ramp_tokens),
        ramp_from_sequences=32_768 // n_ctx,
        warmup_tokens=375_000_000,
        decay_tokens=260_000_000_000,
        final_lr_frac=0.1,
        corpus="Common Crawl, WebText2, two sets of books, Wikipedia by weight: recipes/gpt3_text.py",
        chosen=(
            "band of 256 keys, dense layer first",
            f"ramp of the batch over {ramp_tokens / 1e9:.0f} billion tokens (the paper: 4 to 12, by size)",
            "dropout: none",
        ),
    )


_M = 1 << 20  # the paper's "1M": its batches are taken as powers of two, 3.2M as 1,536 sequences
_TINY: dict[str, Any] = {"train_tokens": 10_000_000, "warmup_tokens": 200_000}

PRESETS = {
    "tiny-gpt1": Preset(
        GPTConfig(8192, 256, 384, 6, 6, norm="post", initialisation="flat", dropout=0.1),
        **_TINY | _GPT1_TRAINING | {"sequences_per_batch": 16},
        corpus="any text: a size of ours, for one machine",
    ),
    "tiny-gpt2": Preset(
        GPTConfig(8192, 256, 384, 6, 6),
        6e-4,
        16,
        **_TINY,
        final_lr_frac=0.1,
        corpus="any text: a size of ours, for one machine",
    ),
    "tiny-gpt3": Preset(
        GPTConfig(8192, 256, 384, 6, 6, attention="banded", band=64),
        6e-4,
        16,
        **_TINY,
        ramp_tokens=400_000,
        ramp_from_sequences=1,
        decay_tokens=8_700_000,
        final_lr_frac=0.1,
        corpus="any text: a size of ours, for one machine",
    ),
    "gpt1": Preset(
        GPTConfig(40478, 512, 768, 12, 12, norm="post", initialisation="flat", dropout=0.1),
        **_GPT1_TRAINING,
        epochs=100,
        warmup_tokens=2000 * 64 * 512,
        corpus="BooksCorpus, over 7,000 unpublished books; any long contiguous text of your own",
    ),
    "gpt2-124m": _gpt2(12, 768, 12, 6e-4),
    "gpt2-355m": _gpt2(24, 1024, 16, 3e-4),
    "gpt2-774m": _gpt2(36, 1280, 20, 2.5e-4),
    "gpt2-1558m": _gpt2(48, 1600, 25, 2e-4),
    "gpt3-small": _gpt3(12, 768, 12, 64, _M // 2, 6e-4, 4e9),
    "gpt3-medium": _gpt3(24, 1024, 16, 64, _M // 2, 3e-4, 4e9),
    "gpt3-large": _gpt3(24, 1536, 16, 96, _M // 2, 2.5e-4, 4e9),
    "gpt3-xl": _gpt3(24, 2048, 16, 128, _M, 2e-4, 8e9),
    "gpt3-xl-printed": _gpt3(24, 2048, 24, 128, _M, 2e-4, 8e9),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80, _M, 1.6e-4, 8e9),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128, 2 * _M, 1.2e-4, 8e9),
    "gpt3-13b": _gpt3(40, 5120, 40, 128, 2 * _M, 1e-4, 8e9),
    "gpt3-13b-printed": _gpt3(40, 5140, 40, 128, 2 * _M, 1e-4, 8e9),
    "gpt3-175b": _gpt3(96, 12288, 96, 128, 3 * _M, 0.6e-4, 12e9),
}

# Other names that the sizes go by, for the message only: a preset has one name.
_ALSO = {
    "tiny": "tiny-gpt2",
    "gpt2": "gpt2-124m",
    "gpt2-medium": "gpt2-355m",
    "gpt2-large": "gpt2-774m",
    "gpt2-xl": "gpt2-1558m",
    "gpt3-125m": "gpt3-small",
    "gpt3-350m": "gpt3-medium",
    "gpt3-760m": "gpt3-large",
    "gpt3-1.3b": "gpt3-xl",
    "gpt3-1.3b-printed": "gpt3-xl-printed",
    "gpt3": "gpt3-175b",
}


def preset(name: str) -> Preset:
    """A named size.

    Raises   UserError with a suggestion when there is none of that name.
    """
    if name not in PRESETS:
        fix = f"Here it is called {_ALSO[name]}." if name in _ALSO else suggestion(name, PRESETS)
        raise UserError(f"There is no preset {name!r}.", fix)
    return PRESETS[name]
