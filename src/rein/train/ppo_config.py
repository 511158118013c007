"""The settings of `rein ppo`, and how a preset fills in those that are not given.

what is given > the preset's (rlhf_presets.py): a paper's own, whole; `differs` says where a run leaves it
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from rein.config import flag_of, replace, setting
from rein.errors import UserError, suggestion
from rein.train.guarded import check_guard, evaluations
from rein.train.rlhf_presets import PPO

T = TypeVar("T")

_POSITIVE = (
    "episodes", "episodes_per_batch", "minibatches", "epochs", "learning_rate", "value_learning_rate",
    "kl_target_nats", "kl_horizon_episodes", "temperature", "response_tokens", "tokens_at_once", "slots",
    "log_every_batches", "evaluate_every_episodes", "heldout_prompts", "cliprange", "cliprange_value",
)  # fmt: skip
_NOT_NEGATIVE = (
    "kl_coef", "vf_coef", "ptx_coef", "ptx_per_episode", "clip_norm", "weight_decay", "warmup_batches", "show_samples",
    "truncate_after_tokens", "uncertainty_coef",
)  # fmt: skip


@dataclass(frozen=True)
class PPOConfig:
    """Settings of `rein ppo`. None is: as the preset has it."""

    policy: Path = setting(
        help="the supervised model: a run of `rein sft`, a checkpoint, or a model folder", positional=True
    )
    reward: str = setting(help="a run of `rein reward`, or a function (context, text) as package.module:Name")
    prompts: Path = setting(help='JSON lines: {"prompt": …} or a format\'s fields; "reference", "split", "id"')
    out: Path = setting(help="run folder; the same command continues a run it holds")
    preset: str = setting("stiennon2020", "ziegler2019, stiennon2020, instructgpt2022 or n_plus: `rein ppo presets`")
    format: str | None = setting(None, "how a row becomes a query: plain, tldr, cnndm, instruct, chat, docstring")
    query_tokens: int | None = setting(None, "longest query", unit="tokens", paper="512 in Stiennon 2020")
    response_tokens: int | None = setting(
        None, "longest response, its end of text included", unit="tokens", paper="48 in Stiennon 2020"
    )
    heldout: Path | None = setting(None, "prompts to evaluate on; without it, the rows of --prompts not in split train")

    ensemble: Literal["best", "mean", "worst", "uncertain"] = setting(
        "best", "of what `rein reward --ensemble` kept: the best one, or their mean, the worst, or the mean less doubt"
    )
    uncertainty_coef: float = setting(
        0.1, "of --ensemble uncertain, times the variance of their scores", paper="0.1 for PPO in Coste 2023"
    )

    episodes: int | None = setting(
        None, "responses to learn from, in all; the schedule follows", paper="1e6", group="ppo"
    )
    episodes_per_batch: int | None = setting(
        None, "responses that are sampled from one state of the policy", paper="512", group="ppo"
    )
    minibatches: int | None = setting(None, "updates in a pass over a batch", paper="1; 8 in InstructGPT", group="ppo")
    epochs: int | None = setting(None, "passes over a batch", paper="4; 1 in InstructGPT", group="ppo")
    kl_coef: float | None = setting(
        None, "penalty per nat of log π/π_ref, on each token", paper="0.05; 0.02 in InstructGPT", group="ppo"
    )
    kl_control: Literal["fixed", "adaptive"] | None = setting(
        None, "adaptive: the coefficient follows the KL", group="ppo"
    )
    kl_target_nats: float | None = setting(
        None, "of a response, for adaptive control", unit="nats", paper="6", group="ppo"
    )
    kl_horizon_episodes: int | None = setting(None, "of adaptive control", paper="10000", group="ppo")
    gamma: float | None = setting(None, "discount of a reward, per token", paper="1", group="ppo")
    lam: float | None = setting(None, "λ of generalised advantage estimates", paper="0.95", group="ppo")
    cliprange: float | None = setting(None, "how far a ratio pays", paper="0.2", group="ppo")
    cliprange_value: float | None = setting(None, "how far a value may move from the old one", paper="0.2", group="ppo")
    vf_coef: float | None = setting(None, "weight of the value loss", paper="0.1", group="ppo")
    whiten_rewards: bool | None = setting(
        None, "rewards to standard deviation 1, mean kept", paper="yes in Ziegler 2019, no in N+", group="ppo"
    )
    whiten_advantages: bool | None = setting(
        None, "advantages to mean 0, standard deviation 1", paper="yes", group="ppo"
    )
    whiten_over: Literal["batch", "minibatch"] | None = setting(None, "over what", group="ppo")
    temperature: float | None = setting(
        None, "of sampling, and of every log-probability", paper="0.7; 1 in InstructGPT", group="ppo"
    )
    responses: Literal["ended", "fixed"] | None = setting(
        None, "ended: over at the end of text; fixed: --response-tokens long whatever comes", group="ppo"
    )
    truncate_at: str | None = setting(
        None, "a text of one token at which a response ends, or, where fixed, is cut for its score",
        paper="'.' in Ziegler 2019", group="ppo",
    )  # fmt: skip
    truncate_after_tokens: int | None = setting(
        None, "tokens before which it does not", unit="tokens", paper="16 in Ziegler 2019", group="ppo"
    )
    unended: Literal["keep", "score"] | None = setting(
        None, "a response without an end: keep its score, or --unended-score", group="ppo"
    )
    unended_score: float | None = setting(None, "the score of a response without an end", paper="-1", group="ppo")
    value: Literal["separate", "shared"] | None = setting(
        None, "a value network of its own, from the reward model; or a head on the policy", group="ppo"
    )

    learning_rate: float | None = setting(None, "the policy's, at its peak", group="optimisation")
    value_learning_rate: float | None = setting(None, "the value network's", group="optimisation")
    schedule: Literal["linear", "warmup"] | None = setting(
        None, "linear to 0; or constant after a warm-up from a tenth", group="optimisation"
    )
    warmup_batches: int | None = setting(None, "of that warm-up", paper="10 in InstructGPT", group="optimisation")
    adam_b1: float | None = setting(None, "decay of the mean gradient", paper="0.9", group="optimisation")
    adam_b2: float | None = setting(
        None, "decay of the mean squared gradient", paper="0.999; 0.95 in InstructGPT", group="optimisation"
    )
    adam_eps: float | None = setting(None, "added to the root of the mean square", group="optimisation")
    weight_decay: float | None = setting(None, "on matrices and embeddings", group="optimisation")
    clip_norm: float | None = setting(
        None, "largest norm of each network's gradient; 0: never clip", paper="never", group="optimisation"
    )
    ema_decay: float | None = setting(
        None, "of averaged weights, which are the result; 0: none", paper="0.992 in InstructGPT", group="optimisation"
    )
    ptx_data: Path | None = setting(
        None, "corpus folder whose gradients are mixed in (PPO-ptx); without it, none are", group="optimisation"
    )
    ptx_coef: float | None = setting(
        None, "weight of its loss, a mean over tokens", paper="27.8 in InstructGPT", group="optimisation"
    )
    ptx_per_episode: float | None = setting(
        None, "windows of text for each episode", paper="8 in InstructGPT", group="optimisation"
    )
    ptx_tokens: int | None = setting(
        None, "of a window; the policy's context if not given", unit="tokens", group="optimisation"
    )
    seed: int = setting(0, "of prompts, samples, minibatches and new heads", group="optimisation")

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

    parallel: str = setting(
        "", "processes and what they share, as dp=2: dp the episodes, fsdp also the storage of the networks; started "
        "here, or by torchrun",
        group="machine", may_change=True)  # fmt: skip
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")
    slots: int = setting(64, "responses that are sampled side by side", group="machine")

    def __post_init__(self) -> None:
        if self.preset not in PPO:
            raise UserError(f"--preset is {self.preset!r}.", suggestion(self.preset, PPO))
        for names, least, words in ((_POSITIVE, 0, "above 0"), (_NOT_NEGATIVE, -1, "0 or more")):
            for name in names:
                value = getattr(self, name)
                if value is not None and (value <= 0 if least == 0 else value < 0):
                    flag = flag_of(name)
                    raise UserError(f"{flag} is {value}, but it must be {words}.", f"Raise {flag}.")
        for name in ("gamma", "lam", "ema_decay", "adam_b1", "adam_b2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{flag_of(name)} is {value}, but it must be from 0 to 1.", f"Change {flag_of(name)}.")
        self._check_together()

    def _check_together(self) -> None:
        settled = {name: self._of(name) for name in ("episodes", "episodes_per_batch", "minibatches")}
        batch, parts = settled["episodes_per_batch"], settled["minibatches"]
        if batch % parts:
            raise UserError(
                f"--episodes-per-batch {batch} is not a multiple of --minibatches {parts}.",
                f"Use {max(1, batch // parts) * parts}, or other --minibatches.",
            )
        if settled["episodes"] < batch:
            raise UserError(
                f"--episodes {settled['episodes']:,} is less than --episodes-per-batch {batch:,}: not one batch.",
                "Raise --episodes, or lower --episodes-per-batch.",
            )
        if self._of("value") == "shared" and self.value_learning_rate not in (None, self._of("learning_rate")):
            raise UserError(
                f"--value-learning-rate is {self.value_learning_rate}, but --value shared has one optimiser, at "
                f"{self._of('learning_rate')}.",
                "Leave it out, or use --value separate.",
            )
        check_guard(self, self._of("kl_coef"))
        if self.guard == "raise-kl" and self._of("kl_control") == "adaptive":
            raise UserError(
                "--guard raise-kl sets the KL coefficient, and so does --kl-control adaptive.",
                "Use --kl-control fixed, or --guard stop.",
            )

    def _of(self, name: str) -> Any:
        """A setting, or the preset's where it is not given."""
        value = getattr(self, name)
        return getattr(PPO[self.preset], name) if value is None else value

    def settled(self) -> PPOConfig:
        """With everything filled in that the preset says, as a run keeps it."""
        names = {field.name for field in fields(self)} & {field.name for field in fields(PPO[self.preset])}
        filled = {name: self._of(name) for name in names}
        if filled["value"] == "shared":
            filled["value_learning_rate"] = filled["learning_rate"]
        every = self.evaluate_every_episodes or max(1, filled["episodes"] // evaluations(self))
        return replace(self, **filled, evaluate_every_episodes=every)

    def differs(self) -> list[str]:
        """Where these settings leave their preset, such as "episodes 4,096 (1,000,000)".

        Example  >>> PPOConfig(Path("sft"), "a:b", Path("p"), Path("o"), preset="n_plus", kl_coef=0.1).differs()
                 ['kl_coef 0.1 (0.05)']
        """
        preset = PPO[self.preset]
        names = [field.name for field in fields(self) if hasattr(preset, field.name)]
        pairs = [(name, getattr(self, name), getattr(preset, name)) for name in names]
        return [f"{name} {_shown(own)} ({_shown(theirs)})" for name, own, theirs in pairs if own not in (None, theirs)]

    @property
    def batches(self) -> int:
        """How many batches the run has; what is left of the episodes is left out."""
        return known(self.episodes) // known(self.episodes_per_batch)

    @property
    def whole_episodes(self) -> int:
        """How many episodes the run learns from: those of whole batches."""
        return self.batches * known(self.episodes_per_batch)


def known(value: T | None) -> T:
    """A setting of a settled config."""
    assert value is not None, "a settled config has no setting that is None and is asked for"
    return value


def _shown(value: object) -> str:
    if value is None:
        return "the format's"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
