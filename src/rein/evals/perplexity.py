"""How well a model predicts a text: loss, perplexity, and bits per byte, which needs no tokenizer to compare.

Flow     text → token ids behind one end-of-text token → overlapping windows → −log p of every token, once.
The end-of-text token in front gives the first token a condition, so any text has a probability.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from rein.bpe.files import read_text
from rein.bpe.tokenizer import Tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import autocast, resolve_device, resolve_precision
from rein.models.ops import IGNORED
from rein.progress import Progress


@dataclass(frozen=True)
class PerplexityConfig:
    """Settings of `rein perplexity`."""

    checkpoint: Path = setting(help="a run, one of its checkpoints, or a Hugging Face model folder", positional=True)
    text: tuple[Path, ...] = setting(help="UTF-8 text files; each is one text", positional=True)
    stride: int | None = setting(
        None, "new tokens of each window, the rest is context; half of n_ctx if not given", unit="tokens"
    )
    json: bool = setting(False, "print one JSON object a file")
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one")
    precision: Literal["auto", "fp32", "bf16"] = setting("fp32", "of the matrix products")


@dataclass(frozen=True)
class TextScore:
    """What a model makes of one text."""

    nats: float  # Σ −log p(token)
    n_tokens: int
    n_bytes: int  # of the text in UTF-8

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): per token, so comparable under one tokenizer only."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """nats / ln 2 / UTF-8 bytes."""
        return self.nats / math.log(2) / self.n_bytes


def perplexity(config: PerplexityConfig) -> None:
    """Measures how well a model predicts text files: nats per token, perplexity, bits per byte.

    Each window of n_ctx tokens scores only its last `--stride` ones, so every token but the first few is judged with
    at least n_ctx − stride tokens before it. A smaller stride is slower and gives a lower, truer number.

    Examples
      rein perplexity runs/first README.md
      rein perplexity runs/first valid.txt --stride 1024 --json
    """
    model, tokenizer = load_model(config.checkpoint)
    device = resolve_device(config.device)
    model = model.to(device)
    precision = resolve_precision(config.precision, device)
    for path in config.text:
        text = read_text(path)
        score = score_text(model, tokenizer, text, stride=config.stride, precision=precision, name=str(path))
        if config.json:
            values = {"bits_per_byte": score.bits_per_byte, "loss": score.loss, "perplexity": score.perplexity}
            print(json.dumps({"file": str(path), **asdict(score), **values}))
        else:
            print(
                f"{path}: {score.loss:.4f} nats/token, perplexity {score.perplexity:.2f}, "
                f"{score.bits_per_byte:.4f} bits/byte ({score.n_tokens:,} tokens, {score.n_bytes:,} bytes)"
            )


def score_text(
    model: GPT,
    tokenizer: Tokenizer,
    text: str,
    *,
    stride: int | None = None,
    precision: str = "fp32",
    name: str = "text",
) -> TextScore:
    """−log p of a text under a model.

    Raises   UserError for an empty text, or a stride outside 1 … n_ctx.
    """
    ids = tokenizer.encode(text).tolist()
    if not ids:
        raise UserError(f"{name} is empty: it has no tokens to score.", "Give a file with text.")
    first = end_of_text(model.config, tokenizer)
    if first is None:  # GPT-1 as released: the first token is given, not scored
        first, *ids = ids
    nats = score_ids(model, ids, first, stride=stride, precision=precision, name=name)
    return TextScore(nats, len(ids), len(text.encode()))


@torch.inference_mode()
def score_ids(
    model: GPT, ids: Sequence[int], eot_id: int, *, stride: int | None = None, precision: str = "fp32", name: str = ""
) -> float:
    """Σ −log p(id) in nats, every id once, the first after `eot_id`."""
    T = model.config.n_ctx
    stride = stride or max(1, T // 2)
    if not 1 <= stride <= T:
        raise UserError(f"--stride is {stride}, but it must be from 1 to n_ctx={T}.", "Leave it out for half of n_ctx.")
    device = model.wte.device
    tokens = torch.tensor([eot_id, *ids])
    starts = list(range(0, max(len(ids) - T, 0) + stride, stride)) if len(ids) > T else [0]
    starts = [start for start in starts if start == 0 or start + T - stride < len(ids)]
    at_once = max(1, 8192 // T)
    nats = 0.0
    with Progress(f"scoring {name}", total=len(ids), unit="tokens") as bar:
        for first in range(0, len(starts), at_once):
            group = starts[first : first + at_once]
            inputs_BT = torch.full((len(group), T), eot_id)
            targets_BT = torch.full((len(group), T), IGNORED)
            for row, start in enumerate(group):
                piece = tokens[start : start + T + 1]
                inputs_BT[row, : len(piece) - 1] = piece[:-1]
                fresh = 0 if start == 0 else T - stride
                targets_BT[row, fresh : len(piece) - 1] = piece[1 + fresh :]
            with autocast(device, precision):
                losses_BT = model.token_losses(inputs_BT.to(device), targets_BT.to(device))
            nats += losses_BT.double().sum().item()
            bar.advance(int((targets_BT != IGNORED).sum()))
    return nats
