"""The settings of `rein finetune`: those of GPT-1's paper and its released code, unless they are given.

Source   Radford 2018 §4.1; openai/finetune-transformer-lm, train.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rein.config import flag_of, setting
from rein.errors import UserError


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of `rein finetune`."""

    checkpoint: Path = setting(
        help="a run, one of its checkpoints, or a Hugging Face folder; a fine-tuned run with --predict", positional=True
    )
    task: str = setting("", "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, cb, snli, scitail, race, storycloze; or, of "
                        "your own, classification, entailment, similarity, similarity-score, choice")  # fmt: skip
    data: tuple[Path, ...] = setting((), "files to train on, in the task's own format, or .csv, .tsv, .jsonl")
    heldout: tuple[Path, ...] = setting((), "files to score, each by itself; the first decides which epoch is kept")
    columns: tuple[str, ...] = setting((), "columns of your own files: the texts, then the label")
    out: Path | None = setting(None, "run folder; the same command continues it. With --predict: JSON lines to write")
    predict: Path | None = setting(None, "predict this file with a fine-tuned run, instead of training")

    learning_rate: float = setting(6.25e-5, "peak", paper="6.25e-5", group="optimisation")
    examples_per_batch: int = setting(32, "examples in an update", paper="32", group="optimisation")
    epochs: int = setting(3, "passes over the examples", paper="3", group="optimisation")
    lm_coef: float = setting(
        0.5, "λ, the weight of the language-model loss; 0: without", paper="0.5", group="optimisation"
    )
    lm_softmax: Literal["auto", "positions", "vocabulary"] = setting(
        "auto", "outputs of that loss: with the n_ctx positions, as GPT-1's code; or not; auto: GPT-1's with them",
        group="optimisation",
    )  # fmt: skip
    head_dropout: float = setting(0.1, "on the state that the head reads", paper="0.1", group="optimisation")
    dropout: float | None = setting(None, "in the model, instead of its own", paper="0.1", group="optimisation")
    warmup_frac: float = setting(0.002, "part of the updates with a rising rate", paper="0.002", group="optimisation")
    adam_b1: float = setting(0.9, "decay of the mean gradient", paper="0.9", group="optimisation")
    adam_b2: float = setting(0.999, "decay of the mean squared gradient", paper="0.999", group="optimisation")
    adam_eps: float = setting(1e-8, "added to the root of the mean square", paper="1e-8", group="optimisation")
    weight_decay: float = setting(0.01, "on matrices and embeddings", paper="0.01", group="optimisation")
    clip_norm: float = setting(1.0, "largest norm of the gradient; 0: never clip", paper="1", group="optimisation")
    pretrained: bool = setting(
        True, "without: the checkpoint's shape and tokenizer, fresh weights", group="optimisation"
    )
    seed: int = setting(42, "of new weights, the order of examples and dropout", paper="42", group="optimisation")
    seeds: int = setting(
        1, "how many runs, with seeds from --seed on; median and range are shown", group="optimisation"
    )

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")

    log_every_updates: int = setting(10, "updates in one row of metrics.jsonl", group="watching")
    checkpoint_every_s: float = setting(120.0, "between checkpoints", unit="seconds", group="watching")

    def __post_init__(self) -> None:
        for name in ("learning_rate", "examples_per_batch", "epochs", "seeds", "tokens_at_once", "log_every_updates"):
            if getattr(self, name) <= 0:
                flag = flag_of(name)
                raise UserError(f"{flag} is {getattr(self, name)}, but it must be above 0.", f"Raise {flag}.")
        if self.lm_coef < 0:
            raise UserError(f"--lm-coef is {self.lm_coef}, but it must be 0 or more.", "Use 0.5, or 0 for none.")
        for name in ("head_dropout", "warmup_frac"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{flag_of(name)} is {getattr(self, name)}, but it must be in [0, 1).", "Lower it.")
        if self.predict is None:
            for name in ("task", "data", "heldout", "out"):
                if not getattr(self, name):
                    raise UserError(f"Fine-tuning needs {flag_of(name)}.", "Add it, or see `rein finetune --help`.")
        elif self.task or self.data or self.heldout:
            raise UserError(
                "--predict is given with --task, --data or --heldout.", "The run knows its task: drop them."
            )
