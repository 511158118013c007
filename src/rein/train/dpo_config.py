"""The settings of `rein dpo`: those of the paper, but for its optimiser, unless they are given.

Source   Rafailov 2023, Appendix B; Azar 2023 (IPO).
Differs  The paper's optimiser is RMSprop, here AdamW.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rein.config import flag_of, setting
from rein.errors import UserError
from rein.feedback.trust import Confidence

_POSITIVE = (
    "kl_coef", "learning_rate", "judgements_per_batch", "epochs", "tokens_at_once", "log_every_updates",
    "evaluate_every_updates",
)  # fmt: skip
_NOT_NEGATIVE = ("warmup_updates", "weight_decay", "clip_norm", "sampled_prompts", "temperature", "show_samples")


@dataclass(frozen=True)
class DPOConfig:
    """Settings of `rein dpo`."""

    policy: Path = setting(
        help="the supervised model, which is also the reference: a run of `rein sft`, a checkpoint, or a model folder",
        positional=True,
    )
    data: tuple[Path, ...] = setting((), "files of preferences: OpenAI's, TRL's, HH-RLHF's, ranked groups, trees …")
    data_format: str = setting("", "of those files, as in `rein label formats`; without it, told by the first row")
    store: str = setting("labels.db", "the feedback store, where --project is given")
    project: str = setting("", "judgements of this project, as they stand now")
    question: str = setting("", "of the project; without it, what says which is better")
    batch: tuple[str, ...] = setting((), "of the project, only these batches")
    out: Path = setting(Path("runs/dpo"), "run folder; the same command continues it")
    format: str = setting("plain", "how a prompt becomes a query: plain, tldr, cnndm, instruct, chat, docstring")
    query_tokens: int | None = setting(None, "longest query, in place of the format's", unit="tokens")
    response_tokens: int | None = setting(
        None, "longest response, its end of text included, in place of the format's", unit="tokens"
    )
    too_long: Literal["drop", "cut"] = setting(
        "drop", "leave a judgement out; or cut a response at --response-tokens, a query's beginning for the context"
    )
    heldout_frac: float = setting(0.1, "of the prompts, where no split says which: half to select, half to test")

    loss: Literal["dpo", "ipo"] = setting("dpo", "of a comparison: Rafailov's, or Azar's without a model of choice")
    kl_coef: float = setting(
        0.1, "what a nat of log π/π_ref is worth in implied reward", paper="0.1; 0.5 for TL;DR", group="dpo"
    )
    label_smoothing: float = setting(0.0, "how often people are taken to err", paper="0", group="dpo")
    ties: Literal["drop", "half"] = setting("drop", "half: learn of a tie that neither is better", group="dpo")
    confidence: Confidence = setting(
        "ignore", "what the points of a comparison say: nothing, or how likely it is that way round", group="dpo"
    )

    learning_rate: float = setting(1e-6, "after the warm-up", paper="1e-6", group="optimisation")
    judgements_per_batch: int = setting(64, "judgements in an update", paper="64", group="optimisation")
    epochs: int = setting(1, "passes over the judgements", group="optimisation")
    warmup_updates: int = setting(150, "updates with a rising rate", paper="150", group="optimisation")
    schedule: Literal["constant", "linear"] = setting(
        "constant", "after the warm-up: constant, or linear to 0", paper="constant", group="optimisation"
    )
    adam_b1: float = setting(0.9, "decay of the mean gradient", group="optimisation")
    adam_b2: float = setting(0.999, "decay of the mean squared gradient", group="optimisation")
    adam_eps: float = setting(1e-8, "added to the root of the mean square", group="optimisation")
    weight_decay: float = setting(0.0, "on matrices and embeddings", group="optimisation")
    clip_norm: float = setting(10.0, "largest norm of the gradient; 0: never clip", group="optimisation")
    seed: int = setting(0, "of the order of judgements, and samples", group="optimisation")

    select: Literal["loss", "accuracy", "last"] = setting(
        "loss", "which evaluation's model is kept in best/: by what on the dev judgements", group="watching"
    )
    evaluate_every_updates: int = setting(50, "updates between evaluations on the dev judgements", group="watching")
    sampled_prompts: int = setting(
        0, "dev prompts that the policy answers at an evaluation: KL, length and --reward of it; the reference is then "
        "held in memory", group="watching",
    )  # fmt: skip
    reward: str = setting("", "a run of `rein reward`, or package.module:Name: scores those answers", group="watching")
    temperature: float = setting(0.7, "of those answers; 0: the likeliest token", group="watching")
    show_samples: int = setting(8, "of those answers in samples.jsonl", group="watching")
    log_every_updates: int = setting(10, "updates in one row of metrics.jsonl", group="watching")
    checkpoint_every_s: float = setting(300.0, "between checkpoints", unit="seconds", group="watching")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")

    def __post_init__(self) -> None:
        for names, floor, words in ((_POSITIVE, 0.0, "above 0"), (_NOT_NEGATIVE, None, "0 or more")):
            for name in names:
                value = getattr(self, name)
                if value < 0 or value == floor:
                    flag = flag_of(name)
                    raise UserError(f"{flag} is {value}, but it must be {words}.", f"Raise {flag}.")
        for name, most in (("label_smoothing", 0.5), ("heldout_frac", 1.0)):
            value = getattr(self, name)
            if not 0 <= value < most:
                raise UserError(f"{flag_of(name)} is {value}, but it must be in [0, {most}).", "Lower it.")
        if not self.data and not self.project:
            raise UserError(
                "There are no judgements to learn from: neither --data nor --project is given.",
                "Name files with --data, or a project of --store with --project.",
            )
        if self.reward and not self.sampled_prompts:
            raise UserError("--reward scores samples, but --sampled-prompts is 0.", "Give --sampled-prompts 64.")

    def rate_share(self, opt_step: int, total: int) -> float:
        """The share of the peak learning rate in the update after `opt_step` of `total`.

        Example  >>> c = DPOConfig(Path("sft"), data=(Path("d"),), warmup_updates=2, schedule="linear")
                 >>> [c.rate_share(n, 6) for n in range(6)]
                 [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        if opt_step < self.warmup_updates:
            return (opt_step + 1) / self.warmup_updates
        if self.schedule == "constant":
            return 1.0
        return 1 - (opt_step - self.warmup_updates) / (total - self.warmup_updates)
