"""The settings of `rein sft`, and how a preset fills in those that are not given.

what is given > the preset's, from rlhf_presets.SFT > the default
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from rein.config import flag_of, setting
from rein.errors import UserError, suggestion
from rein.text.prompts import FORMATS
from rein.train.rlhf_presets import SFT

T = TypeVar("T")
_ABOVE_0 = ("learning_rate", "demonstrations_per_batch", "epochs", "tokens_at_once", "log_every_updates",
            "sample_tokens", "keep_checkpoints", "checkpoint_every_s", "ptx_tokens")  # fmt: skip
_NOT_BELOW_0 = ("evaluate_every_updates", "samples", "weight_decay", "clip_norm", "temperature", "adam_eps")
_SHARES = ("heldout_frac", "warmup_frac", "final_frac", "residual_dropout", "adam_b1", "adam_b2", "ptx_frac")


@dataclass(frozen=True)
class SFTConfig:
    """Settings of `rein sft`. None is: as the preset has it."""

    checkpoint: Path = setting(help="the model to start from: a run, a checkpoint or a model folder", positional=True)
    out: Path = setting(help="run folder; the same command continues it")
    data: tuple[Path, ...] = setting(
        (), 'JSON lines: "prompt" or a format\'s fields, and "reference" (or response, completion, output, summary)'
    )
    heldout: tuple[Path, ...] = setting((), "rows to measure on; without it, those of another split than train")
    heldout_frac: float = setting(0.05, "where there are none, this share of the queries", paper="about 0.05")
    store: str = setting("", "demonstrations and corrected texts of a labeling store: a file, or postgresql://…")
    project: str = setting("", "of that store")

    preset: str = setting("stiennon2020", f"the paper's settings: {', '.join(SFT)}")
    format: str | None = setting(None, f"of the rows: {', '.join(FORMATS)}", group="text")
    query_tokens: int | None = setting(None, "longest query, instead of the format's", paper="512", group="text")
    response_tokens: int | None = setting(
        None, "longest response with its end, instead of the format's", paper="48", group="text"
    )
    turns: Literal["all", "last"] = setting("all", "of a conversation: which of the assistant's are learned",
                                            group="text")  # fmt: skip
    loss_on: Literal["response", "all"] | None = setting(
        None, "which tokens are learned; all: the query's too, as n_plus has it", group="text"
    )

    learning_rate: float | None = setting(
        None, "peak", paper="6.35e-5 for 1.3 billion parameters; a small model needs more", group="optimisation"
    )
    demonstrations_per_batch: int | None = setting(
        None, "demonstrations in an update", paper="128 or 32", group="optimisation"
    )
    epochs: int | None = setting(None, "passes over the demonstrations", paper="1 or 16", group="optimisation")
    warmup_frac: float | None = setting(None, "part of the updates with a rising rate", paper="0",
                                        group="optimisation")  # fmt: skip
    final_frac: float | None = setting(
        None, "where the cosine ends, of the peak", paper="0.1 in InstructGPT", group="optimisation"
    )
    residual_dropout: float | None = setting(
        None, "on the residual branches; there is no other dropout", paper="0.2 in InstructGPT", group="optimisation"
    )
    adam_b1: float | None = setting(None, "decay of the mean gradient", paper="0.9", group="optimisation")
    adam_b2: float | None = setting(
        None, "decay of the mean squared gradient", paper="0.95 in InstructGPT", group="optimisation"
    )
    adam_eps: float | None = setting(None, "added to the root of the mean square", group="optimisation")
    weight_decay: float | None = setting(None, "on matrices and embeddings", group="optimisation")
    clip_norm: float | None = setting(None, "largest norm of the gradient; 0: never clip", group="optimisation")
    ptx_data: Path | None = setting(
        None, "corpus folder whose text is mixed in; without it, none is", group="optimisation"
    )
    ptx_frac: float | None = setting(
        None, "its share of all tokens that are learned", paper="0.1 at the start of InstructGPT's PPO",
        group="optimisation")  # fmt: skip
    ptx_tokens: int | None = setting(
        None, "of a window of it; the model's context if not given", unit="tokens", group="optimisation"
    )
    seed: int = setting(0, "of the order, dropout, what is held out, and the samples", group="optimisation")

    select: Literal["loss", "reward"] | None = setting(
        None, "what decides which weights are kept as best/", paper="InstructGPT: reward", group="watching"
    )
    reward: str = setting(
        "", "scores samples: the folder of a reward model, or package.module:Name of (context, text)", group="watching"
    )
    samples: int = setting(32, "held-out queries that are answered at each evaluation", group="watching")
    sample_tokens: int = setting(64, "longest sample, where the format does not say less", unit="tokens",
                                 group="watching")  # fmt: skip
    temperature: float = setting(0.7, "of the samples; 0: the likeliest token", group="watching")
    evaluate_every_updates: int = setting(
        0, "between evaluations; there is one after each epoch in any case", group="watching"
    )
    log_every_updates: int = setting(10, "updates in one row of metrics.jsonl", group="watching")
    checkpoint_every_s: float = setting(120.0, "between checkpoints", unit="seconds", group="watching", may_change=True)
    keep_checkpoints: int = setting(1, "how many checkpoints to keep, besides best/", group="watching", may_change=True)

    parallel: str = setting(
        "", "processes and what they share, as dp=2: dp the batch, fsdp also the storage of the weights; started here, "
        "or by torchrun",
        group="machine", may_change=True)  # fmt: skip
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")
    pack: bool = setting(
        False, "several demonstrations to a row of the context's length, none of which sees another", group="machine"
    )

    def __post_init__(self) -> None:
        if self.preset not in SFT:
            raise UserError(f"--preset is {self.preset!r}.", suggestion(self.preset, SFT))
        if self.format is not None and self.format not in FORMATS:
            raise UserError(f"--format is {self.format!r}.", suggestion(self.format, FORMATS))
        for names, words in ((_ABOVE_0, "above 0"), (_NOT_BELOW_0, "0 or more"), (_SHARES, "from 0 to 1")):
            for name in names:
                value = getattr(self, name)
                low = value is not None and (value <= 0 if names is _ABOVE_0 else value < 0)
                if low or (value is not None and names is _SHARES and value > 1):
                    raise UserError(f"{flag_of(name)} is {value}, but it must be {words}.", "Correct it.")
        if self.residual_dropout == 1:
            raise UserError("--residual-dropout is 1, which drops everything.", "Use 0.2.")
        if self.ptx_frac == 1:
            raise UserError("--ptx-frac is 1, which leaves no demonstrations.", "Use 0.1.")
        frac = self.of("ptx_frac")
        if frac and self.ptx_data is None:
            raise UserError(
                f"There is no text to mix in, and --ptx-frac is {frac} ({self.preset}).",
                "Give --ptx-data CORPUS, or --ptx-frac 0.",
            )
        if not frac and self.ptx_data is not None:
            raise UserError(f"--ptx-data is given, but --ptx-frac is 0 ({self.preset}).", "Give --ptx-frac 0.1.")
        if not self.data and not self.store:
            raise UserError("There is nothing to learn from.", "Give --data FILE, or --store and --project.")
        if bool(self.store) != bool(self.project):
            raise UserError("--store and --project go together.", "Give both, or neither.")
        if self.of("select") == "reward" and not (self.reward and self.samples):
            raise UserError(
                f"The weights are to be selected by a reward ({self.preset}), but "
                f"{'--samples is 0' if self.reward else 'no --reward is given'}.",
                "Give --reward and --samples, or --select loss.",
            )

    def of(self, name: str) -> Any:
        """A setting, or the preset's where it is not given."""
        value = getattr(self, name)
        return getattr(SFT[self.preset], name, None) if value is None else value

    def settled(self) -> SFTConfig:
        """With everything filled in that the preset says, as a run keeps it."""
        return replace(self, **{field.name: self.of(field.name) for field in fields(self)})

    def differs(self) -> list[str]:
        """Where these settings leave their preset.

        Example  >>> SFTConfig(Path("gpt"), data=(Path("a"),), out=Path("b"), epochs=3).differs()
                 ['epochs 3 (1)']
        """
        preset = SFT[self.preset]
        pairs = [(one.name, getattr(self, one.name), getattr(preset, one.name))
                 for one in fields(self) if hasattr(preset, one.name)]  # fmt: skip
        return [f"{name} {own} ({theirs})" for name, own, theirs in pairs if own not in (None, theirs)]


def known(value: T | None) -> T:
    """A setting of a settled config."""
    assert value is not None, "a settled config has no setting that is None and is asked for"
    return value
