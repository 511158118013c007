"""The settings of `rein pretrain`, and how a preset fills in those that are not given.

what is given > the preset's: the paper's own, with token counts of the schedule in proportion to train_tokens
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from rein.config import flag_of, setting
from rein.distributed import Layout, parse_layout
from rein.errors import UserError
from rein.models.gpt import GPTConfig
from rein.models.presets import preset

T = TypeVar("T")


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of `rein pretrain`. None is: as the preset has it."""

    data: Path = setting(help="corpus folder, from `rein text build`")
    out: Path = setting(help="run folder; the same command continues a run it holds")

    preset: str = setting(
        "tiny-gpt2",
        "model and training of a paper: gpt1, gpt2-124m … 1558m, gpt3-small … 175b, tiny-gpt1|gpt2|gpt3; "
        "`rein plan NAME` shows one",
        group="model",
    )
    n_layer: int | None = setting(None, "layers, instead of the preset's", group="model")
    n_embd: int | None = setting(None, "embedding width, instead of the preset's", group="model")
    n_head: int | None = setting(None, "attention heads, instead of the preset's", group="model")
    n_ctx: int | None = setting(None, "context, instead of the preset's", unit="tokens", group="model")
    band: int | None = setting(
        None, "keys a banded layer sees, instead of the preset's", unit="tokens", paper="not published", group="model"
    )
    dropout: float | None = setting(None, "dropout, instead of the preset's", paper="0.1 in GPT-1", group="model")
    mask_documents: bool = setting(
        False, "no token sees another document's of its window", paper="no in GPT-3", group="model"
    )

    train_tokens: int | None = setting(
        None, "how much to train; the schedule shrinks with it", unit="tokens", paper="300e9 in GPT-3",
        group="optimisation",
    )  # fmt: skip
    sequences_per_batch: int | None = setting(
        None, "sequences of n_ctx tokens in a batch", paper="64 in GPT-1, 512 in GPT-2", group="optimisation"
    )
    ramp: Literal["paper", "noise"] = setting(
        "paper", "the batch grows linearly over ramp_tokens, or with the measured gradient noise", group="optimisation"
    )
    ramp_tokens: int | None = setting(
        None, "tokens over which the batch grows to its size", paper="4e9 to 12e9 in GPT-3", group="optimisation"
    )
    ramp_from_sequences: int | None = setting(
        None, "sequences in the first batch of a ramp", paper="16 (32k tokens) in GPT-3", group="optimisation"
    )
    optimizer: Literal["adamw", "gpt1"] | None = setting(
        None, "torch's AdamW, or Adam as GPT-1's code has it", group="optimisation"
    )
    learning_rate: float | None = setting(
        None, "peak", paper="2.5e-4 in GPT-1, 6e-4 in GPT-3 Small", group="optimisation"
    )
    schedule: Literal["cosine", "gpt1"] | None = setting(
        None, "GPT-3's: warm-up, cosine to a floor; or GPT-1's released form, to 0", group="optimisation"
    )
    warmup_tokens: int | None = setting(None, "linear warm-up", paper="375e6 in GPT-3", group="optimisation")
    decay_tokens: int | None = setting(None, "where the cosine ends", paper="260e9 in GPT-3", group="optimisation")
    final_lr_frac: float | None = setting(
        None, "the cosine's floor, of the peak", paper="0.1 in GPT-3", group="optimisation"
    )
    adam_b1: float | None = setting(None, "decay of the mean gradient", paper="0.9", group="optimisation")
    adam_b2: float | None = setting(
        None, "decay of the mean squared gradient", paper="0.95 in GPT-3, 0.999 in GPT-1", group="optimisation"
    )
    adam_eps: float | None = setting(None, "added to the root of the mean square", paper="1e-8", group="optimisation")
    weight_decay: float | None = setting(
        None, "on matrices and embeddings", paper="0.1 in GPT-3, 0.01 in GPT-1", group="optimisation"
    )
    clip_norm: float | None = setting(
        None, "largest norm of the gradient; 0: never clip", paper="1.0", group="optimisation"
    )
    seed: int = setting(0, "of the weights, the order of the windows, dropout and samples", group="optimisation")
    branch_from: Path | None = setting(
        None, "a checkpoint of another run to start from: its weights, optimiser, and place in the text",
        group="optimisation",
    )  # fmt: skip

    parallel: str = setting(
        "", "processes and what they share, as dp=2,tp=2: dp and fsdp the batch, fsdp the storage, tp each product, "
        "pp the layers; started here, or by torchrun",
        group="machine", may_change=True)  # fmt: skip
    slots: int = setting(
        0, "sum gradients as so many parts of the batch in a fixed order, so that any number of dp and fsdp processes "
        "that divides it gives the same bits; 0: no",
        group="machine",
    )  # fmt: skip
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine", may_change=True)
    threads: int | None = setting(
        None, "processor threads of each process; its part of the cores if not given, with --slots one",
        group="machine",
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    sequences_at_once: int | None = setting(
        None, "sequences in one forward pass, the rest accumulated; about 8,192 tokens if not given", group="machine"
    )
    recompute: bool = setting(
        False,
        "keep only each layer's input for the backward pass: less memory, a third more work",
        group="machine",
        may_change=True,
    )
    compile: bool = setting(False, "torch.compile of each layer", group="machine", may_change=True)

    evaluate_every_tokens: int | None = setting(
        None, "between evaluations; a tenth of train_tokens if not given", unit="tokens", group="watching"
    )
    heldout_tokens: int = setting(100_000, "held-out text read at an evaluation", unit="tokens", group="watching")
    sample_prompts: tuple[str, ...] = setting(
        ("The ", "Return the "), "what the model continues at an evaluation", group="watching"
    )
    sample_tokens: int = setting(64, "length of those samples", unit="tokens", group="watching")
    log_every_updates: int = setting(10, "updates in one row of metrics.jsonl", group="watching")
    noise_every_updates: int = setting(
        10, "updates between measurements of the gradient noise; 0: none", group="watching"
    )
    spike_nats: float | None = setting(
        0.5, "stop when the loss stays this far above where it was; none: never", unit="nats/token", group="watching"
    )
    spike_patience_updates: int = setting(100, "how long it must stay there", unit="updates", group="watching")
    mirrors: tuple[str, ...] = setting(
        (), "send the metrics on to tensorboard, wandb, mlflow, trackio as well", group="watching", may_change=True
    )
    checkpoint_every_s: float = setting(120.0, "between checkpoints", unit="seconds", group="watching", may_change=True)
    keep_checkpoints: int = setting(2, "how many checkpoints to keep", group="watching", may_change=True)

    def __post_init__(self) -> None:
        positive = ("train_tokens", "sequences_per_batch", "ramp_from_sequences", "log_every_updates",
                    "keep_checkpoints", "learning_rate", "heldout_tokens", "sequences_at_once", "threads")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                flag = flag_of(name)
                raise UserError(f"{flag} is {value}, but it must be above 0.", f"Raise {flag}.")
        for name in ("slots", "noise_every_updates", "ramp_tokens", "warmup_tokens"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"{flag_of(name)} is {value}, but it must be 0 or more.", "Use 0 for none.")
        start, full = self.ramp_from_sequences, self.sequences_per_batch
        if start is not None and full is not None and start > full:
            raise UserError(
                f"--ramp-from-sequences {start} is above --sequences-per-batch {full}.",
                "A ramp grows: lower the first or raise the second.",
            )
        preset(self.preset)
        self._check_layout(self.layout)

    def _check_layout(self, layout: Layout) -> None:
        if self.slots & (self.slots - 1):
            raise UserError(f"--slots is {self.slots}, but it must be a power of two.", "Use 8.")
        if self.slots and (layout.tp > 1 or layout.pp > 1):
            raise UserError(
                f"--slots {self.slots} cannot be had with --parallel {layout}: tp and pp add up in another order.",
                "Use dp and fsdp with it.",
            )
        ranks = layout.batch_ranks
        if self.slots and (self.slots % ranks or ranks & (ranks - 1)):
            raise UserError(
                f"--slots {self.slots} cannot be shared by the {ranks} batch processes of --parallel {layout}.",
                f"Their number must be a power of two, and {self.slots} a multiple of it.",
            )
        if self.ramp == "noise":
            self._check_noise(layout)
        if self.compile and layout.tp > 1:
            raise UserError(f"--compile does not work with --parallel tp={layout.tp}.", "Leave one of them out.")

    def _check_noise(self, layout: Layout) -> None:
        """A ramp that follows the noise needs a small and a large batch, and with slots the same bits of both."""
        piped = layout.pp > 1 and layout.dp == 1
        if self.noise_every_updates == 0:
            raise UserError("--ramp noise with --noise-every-updates 0 measures nothing.", "Leave out the second.")
        if piped or (layout.fsdp > 1 and (layout.tp > 1 or layout.pp > 1)):
            raise UserError(
                f"--ramp noise cannot be had with --parallel {layout}: no process sees a part of the batch alone.",
                "Use --ramp paper, or dp.",
            )
        if self.slots and layout.fsdp > 1:
            raise UserError(
                f"--ramp noise with --slots {self.slots} cannot be had with --parallel {layout}: the norms that decide "
                "the batch differ in their last bits.",
                "Use dp, or --ramp paper.",
            )

    @property
    def layout(self) -> Layout:
        """What `parallel` says."""
        return parse_layout(self.parallel)

    def model(self, n_vocab: int) -> GPTConfig:
        """The preset's model with the tokenizer's vocabulary and the sizes given here.

        Raises   UserError when a band is wider than the context, or the sizes do not fit each other.
        """
        sizes = {name: getattr(self, name) for name in ("n_layer", "n_embd", "n_head", "n_ctx", "band", "dropout")}
        changes = {name: value for name, value in sizes.items() if value is not None}
        if {"n_embd", "n_head"} & changes.keys():
            changes["d_head"] = None
        config = replace(preset(self.preset).model, n_vocab=n_vocab, **changes)
        if self.band is not None and config.attention == "dense":
            raise UserError(
                f"--band {self.band} is given, but the layers of {self.preset} are all dense.",
                "Leave it out, or use a gpt3 preset.",
            )
        if self.band is not None and self.band > config.n_ctx:
            raise UserError(
                f"--band {self.band} is wider than the context, n_ctx={config.n_ctx}.",
                f"Use at most {config.n_ctx}, or a gpt2 preset, whose layers are all dense.",
            )
        return config

    def settled(self, corpus_tokens: int) -> PretrainConfig:
        """With everything filled in that the preset says, as a run keeps it.

        The schedule's token counts (warm-up, decay, ramp) are the preset's, times train_tokens over the preset's.
        """
        paper = preset(self.preset)
        usual = paper.train_tokens or (paper.epochs or 1) * corpus_tokens
        train_tokens = self.train_tokens or usual
        scale = train_tokens / paper.train_tokens if paper.train_tokens else 1.0

        def scaled(tokens: int) -> int:
            return round(tokens * scale)

        warmup = scaled(paper.warmup_tokens)
        if paper.train_tokens is None:  # GPT-1's 2,000 updates, of a training whose length is not known
            warmup = min(warmup, train_tokens // 10)
        sequences = self.sequences_per_batch or paper.sequences_per_batch
        values = {
            "train_tokens": train_tokens,
            "sequences_per_batch": sequences,
            "ramp_tokens": scaled(paper.ramp_tokens),
            "ramp_from_sequences": min(paper.ramp_from_sequences, sequences),
            "warmup_tokens": warmup,
            "decay_tokens": train_tokens if paper.decay_tokens is None else scaled(paper.decay_tokens),
            **{name: getattr(paper, name) for name in ("optimizer", "learning_rate", "schedule", "final_lr_frac",
               "adam_b1", "adam_b2", "adam_eps", "weight_decay", "clip_norm")},
        }  # fmt: skip
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})


def known(value: T | None) -> T:
    """A setting of a settled config."""
    assert value is not None, "a settled config has no setting that is None and is asked for"
    return value
