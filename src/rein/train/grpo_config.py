"""The settings of `rein grpo`, and what each estimator's paper had where they are not given.

Source   Shao 2024 (DeepSeekMath) for grpo; Ahmadian 2024 for rloo; Liu 2025 for dr_grpo.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rein.config import flag_of, replace, setting
from rein.errors import UserError
from rein.losses import TokenMean
from rein.returns import Estimator
from rein.train.guarded import check_guard, evaluations


@dataclass(frozen=True)
class Method:
    """A method by what sets it apart: how advantages are made, what a token weighs, where the KL stands."""

    advantages: Estimator
    token_mean: TokenMean
    kl_in: Literal["loss", "reward"]
    kl_coef: float


METHODS = {
    "grpo": Method(advantages="grpo", token_mean="response", kl_in="loss", kl_coef=0.04),
    "rloo": Method(advantages="rloo", token_mean="none", kl_in="reward", kl_coef=0.05),  # kl_coef: Stiennon's
    "dr_grpo": Method(advantages="mean", token_mean="limit", kl_in="loss", kl_coef=0.0),
}

_POSITIVE = (
    "samples", "queries_per_batch", "episodes", "minibatches", "epochs", "cliprange", "learning_rate", "temperature",
    "tokens_at_once", "slots", "log_every_batches", "evaluate_every_episodes", "heldout_prompts",
)  # fmt: skip
_NOT_NEGATIVE = (
    "kl_coef", "clip_norm", "weight_decay", "warmup_batches", "show_samples", "truncate_after_tokens",
    "uncertainty_coef",
)  # fmt: skip


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of `rein grpo`. None is: as the estimator's paper has it."""

    policy: Path = setting(
        help="the supervised model: a run of `rein sft`, a checkpoint, or a model folder", positional=True
    )
    reward: str = setting(help="a run of `rein reward`, or a function (context, text) as package.module:Name")
    prompts: Path = setting(help='JSON lines: {"prompt": …} or a format\'s fields; "reference", "split", "id"')
    out: Path = setting(help="run folder; the same command continues a run it holds")
    estimator: Literal["grpo", "rloo", "dr_grpo"] = setting("grpo", "whose method: it fills in what is not given")
    format: str = setting("plain", "how a row becomes a query: plain, tldr, cnndm, instruct, chat, docstring")
    query_tokens: int | None = setting(None, "longest query, in place of the format's", unit="tokens")
    response_tokens: int | None = setting(
        None, "longest response, its end of text included, in place of the format's", unit="tokens"
    )
    heldout: Path | None = setting(None, "prompts to evaluate on; without it, the rows of --prompts not in split train")

    ensemble: Literal["best", "mean", "worst", "uncertain"] = setting(
        "best", "of what `rein reward --ensemble` kept: the best one, or their mean, the worst, or the mean less doubt"
    )
    uncertainty_coef: float = setting(
        0.1, "of --ensemble uncertain, times the variance of their scores", paper="0.1 for PPO in Coste 2023"
    )

    samples: int = setting(8, "responses to each query, which are compared", paper="64 in GRPO, 2 or 4 in RLOO",
                           group="grpo")  # fmt: skip
    queries_per_batch: int = setting(16, "queries answered by one state of the policy", group="grpo")
    episodes: int = setting(8192, "responses to learn from, in all; the schedule follows", group="grpo")
    minibatches: int = setting(1, "updates in a pass over a batch", paper="1", group="grpo")
    epochs: int = setting(1, "passes over a batch", paper="1", group="grpo")
    advantages: Estimator | None = setting(
        None, "score less the others' mean (rloo) or the group's (mean), or that over its deviation (grpo)",
        group="grpo",
    )  # fmt: skip
    token_mean: TokenMean | None = setting(
        None, "what a token weighs: as all tokens, as its response, by --response-tokens, or 1", group="grpo"
    )
    kl_in: Literal["loss", "reward"] | None = setting(None, "where the KL penalty stands", group="grpo")
    kl_estimate: Literal["k3", "k2"] = setting(
        "k3", "in the loss: k3, or k2, whose gradient is that of the KL", paper="k3 in GRPO", group="grpo"
    )
    kl_coef: float | None = setting(None, "of that penalty", paper="0.04 in GRPO", group="grpo")
    cliprange: float = setting(0.2, "how far a ratio pays", paper="0.2", group="grpo")
    temperature: float = setting(1.0, "of sampling, and of every log-probability", group="grpo")
    truncate_at: str = setting("", "a text of one token at which a response ends", group="grpo")
    truncate_after_tokens: int = setting(0, "tokens before which it does not", unit="tokens", group="grpo")
    unended: Literal["keep", "score"] = setting(
        "keep", "a response without an end: keep its score, or --unended-score", group="grpo"
    )
    unended_score: float = setting(-1.0, "the score of a response without an end", group="grpo")

    learning_rate: float = setting(1e-6, "at its peak", paper="1e-6", group="optimisation")
    schedule: Literal["linear", "warmup"] = setting(
        "warmup", "linear to 0; or constant, after a warm-up from a tenth where there is one", group="optimisation"
    )
    warmup_batches: int = setting(0, "of that warm-up", group="optimisation")
    adam_b1: float = setting(0.9, "decay of the mean gradient", group="optimisation")
    adam_b2: float = setting(0.999, "decay of the mean squared gradient", group="optimisation")
    adam_eps: float = setting(1e-8, "added to the root of the mean square", group="optimisation")
    weight_decay: float = setting(0.0, "on matrices and embeddings", group="optimisation")
    clip_norm: float = setting(1.0, "largest norm of the gradient; 0: never clip", group="optimisation")
    seed: int = setting(0, "of prompts, samples and minibatches", group="optimisation")

    heldout_reward: str = setting(
        "", "what the policy is not trained on: another reward model, or a function", group="watching"
    )
    gold: str = setting("", "a gold score, where there is one: a function (context, text)", group="watching")
    guard: Literal["off", "warn", "stop", "raise-kl"] = setting(
        "warn", "what to do at the peak of --gold or --heldout-reward, and beyond --kl-limit-nats", group="watching"
    )
    kl_limit_nats: float | None = setting(
        None, "of a response: beyond it is past the peak, whatever the gold score says", unit="nats", group="watching"
    )
    guard_confidence: float = setting(0.99, "with which the gold score must bend, and fall", group="watching")
    guard_patience_evaluations: int = setting(3, "in a row that must say so", group="watching")
    evaluate_every_episodes: int | None = setting(
        None,
        "between evaluations on held-out prompts; if not given a tenth of the run, or 1/32 with a guard that acts",
        group="watching",
    )
    heldout_prompts: int = setting(64, "held-out prompts of an evaluation", group="watching")
    show_samples: int = setting(8, "samples kept of an evaluation, beside the supervised model's", group="watching")
    log_every_batches: int = setting(1, "batches in one row of metrics.jsonl", group="watching")
    checkpoint_every_s: float = setting(300.0, "between checkpoints", unit="seconds", group="watching")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")
    slots: int = setting(64, "responses that are sampled side by side", group="machine")

    def __post_init__(self) -> None:
        for names, floor, words in ((_POSITIVE, 0, "above 0"), (_NOT_NEGATIVE, None, "0 or more")):
            for name in names:
                value = getattr(self, name)
                if value is not None and (value < 0 or value == floor):
                    flag = flag_of(name)
                    raise UserError(f"{flag} is {value}, but it must be {words}.", f"Raise {flag}.")
        if self.samples < 2:
            raise UserError(
                f"--samples is {self.samples}, but responses are compared with others to their query.", "Use 4, or 8."
            )
        if self.episodes_per_batch % self.minibatches:
            raise UserError(
                f"--queries-per-batch {self.queries_per_batch} times --samples {self.samples} is no multiple of "
                f"--minibatches {self.minibatches}.",
                "Use other --minibatches, such as 1.",
            )
        if self.episodes < self.episodes_per_batch:
            raise UserError(
                f"--episodes {self.episodes:,} is less than a batch: --queries-per-batch times --samples is "
                f"{self.episodes_per_batch:,}.",
                "Raise --episodes, or lower one of the others.",
            )
        check_guard(self, self._of("kl_coef"))

    def _of(self, name: str) -> Any:
        value = getattr(self, name)
        return getattr(METHODS[self.estimator], name) if value is None else value

    def settled(self) -> GRPOConfig:
        """With everything filled in that the estimator says, as a run keeps it.

        Example  >>> config = GRPOConfig(Path("sft"), "a:b", Path("p"), Path("o"), estimator="rloo").settled()
                 >>> config.advantages, config.token_mean, config.kl_in
                 ('rloo', 'none', 'reward')
        """
        filled = {field.name: self._of(field.name) for field in fields(Method)}
        every = self.evaluate_every_episodes or max(1, self.episodes // evaluations(self))
        return replace(self, **filled, evaluate_every_episodes=every)

    @property
    def episodes_per_batch(self) -> int:
        """Responses that are sampled from one state of the policy."""
        return self.queries_per_batch * self.samples

    @property
    def batches(self) -> int:
        """How many batches the run has; what is left of the episodes is left out."""
        return self.episodes // self.episodes_per_batch

    @property
    def whole_episodes(self) -> int:
        """How many episodes the run learns from: those of whole batches."""
        return self.batches * self.episodes_per_batch
