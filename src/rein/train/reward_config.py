"""The settings of `rein reward`, and how a preset fills in those that are not given.

what is given > the preset's (rlhf_presets.py): a paper's own
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rein.config import flag_of, replace, setting
from rein.errors import UserError, suggestion
from rein.feedback.trust import Confidence
from rein.losses import Ties
from rein.text.prompts import FORMATS
from rein.train.rlhf_presets import REWARD

_POSITIVE = (
    "epochs", "prompts_per_batch", "seeds", "tokens_at_once", "log_every_updates", "evaluate_every_updates",
    "confidence_scale", "temperature_prior_sd", "people_learning_rate", "normalise_samples", "adam_eps",
    "least_judgements",
)  # fmt: skip
_SHARES = ("final_frac", "warmup_frac", "adam_b1", "adam_b2", "dropout")


@dataclass(frozen=True)
class RewardConfig:
    """Settings of `rein reward`. None is: as the preset has it."""

    policy: Path = setting(
        help="the model to begin from: a run of `rein sft`, a checkpoint, or a Hugging Face folder", positional=True
    )
    data: tuple[Path, ...] = setting((), "files of preferences: OpenAI's, TRL's, HH-RLHF's, ranked groups, trees …")
    data_format: str = setting("", "of those files, as in `rein label formats`; without it, told by the first row")
    store: str = setting("labels.db", "the feedback store, where --project is given")
    project: str = setting("", "judgements of this project, as they stand now")
    question: str = setting("", "of the project; without it, what says which is better")
    batch: tuple[str, ...] = setting((), "of the project, only these batches")
    out: Path = setting(Path("runs/reward"), "run folder; the same command continues it")
    preset: str = setting("stiennon2020", "ziegler2019, stiennon2020, instructgpt2022 or n_plus")

    format: str | None = setting(None, f"how a row becomes a query: {', '.join(FORMATS)}", group="texts")
    query_tokens: int | None = setting(None, "longest query, instead of the format's", unit="tokens", group="texts")
    response_tokens: int | None = setting(
        None, "longest response, instead of the format's", unit="tokens", group="texts"
    )
    too_long: Literal["drop", "cut"] = setting(
        "drop",
        "leave a judgement out; or cut a response at --response-tokens, a query's beginning for the context",
        group="texts",
    )
    heldout_frac: float = setting(
        0.1, "of the prompts, where no split is named; half for selection, half for the report", group="texts"
    )

    element: Literal["prompt", "judgement"] | None = setting(
        None, "what is one element of a batch: all judgements of a prompt, or each", group="loss"
    )
    ties: Ties | None = setting(
        None, "drop, half of each, or a probability of their own: rao_kupper, davidson", paper="dropped", group="loss"
    )
    ratings: Literal["pairs", "regress"] = setting(
        "pairs", "which is rated higher, or the squared error of the rating itself", group="loss"
    )
    confidence: Confidence = setting(
        "ignore", "of comparisons: a soft target by a logistic curve, or by how often others agree", group="loss"
    )
    confidence_scale: float = setting(0.7, "of the logistic curve, per point of the scale", group="loss")
    reliability: Literal["none", "temperature", "dawid_skene"] = setting(
        "none", "of labelers: learned with the model, or from whom they agree with, beforehand", group="loss"
    )
    temperature_prior_sd: float = setting(0.5, "of ln(temperature) of a labeler", group="loss")
    least_judgements: int = setting(5, "of a labeler with a temperature of their own", group="loss")

    normalise: Literal["references", "demonstrations", "policy", "candidates", "none"] | None = setting(
        None, "what is to score 0 in the mean", paper="references; demonstrations in InstructGPT", group="zero"
    )
    normalise_std: bool | None = setting(None, "and 1 in the standard deviation", paper="in Ziegler", group="zero")
    normalise_before: bool | None = setting(None, "before training, too", paper="in Ziegler 2019", group="zero")
    references: Path | None = setting(
        None, 'JSON lines with "reference", for --normalise references, demonstrations, policy', group="zero"
    )
    normalise_samples: int = setting(256, "texts to normalise on, at most", paper="256 in Ziegler", group="zero")

    learning_rates: tuple[float, ...] = setting(
        (), "peaks to try; the best on the dev half is chosen", paper="7 or more in Stiennon 2020", group="optimisation"
    )
    seeds: int = setting(1, "runs for each, from --seed on", paper="3 to 10 in Stiennon 2020", group="optimisation")
    seed: int = setting(0, "of the head and the order", group="optimisation")
    ensemble: bool = setting(False, "keep all seeds of the chosen rate", group="optimisation")
    epochs: int | None = setting(None, "passes over the prompts", paper="1", group="optimisation")
    prompts_per_batch: int | None = setting(None, "elements of an update", paper="64", group="optimisation")
    schedule: Literal["cosine", "linear"] | None = setting(
        None, "how the learning rate falls", paper="cosine", group="optimisation"
    )
    final_frac: float | None = setting(None, "of the peak, where it ends", group="optimisation")
    warmup_frac: float | None = setting(None, "part of the updates with a rising rate", group="optimisation")
    adam_b1: float | None = setting(None, "decay of the mean gradient", group="optimisation")
    adam_b2: float | None = setting(None, "decay of the mean squared gradient", group="optimisation")
    adam_eps: float | None = setting(None, "added to the root of the mean square", group="optimisation")
    weight_decay: float | None = setting(None, "on matrices and embeddings", group="optimisation")
    clip_norm: float | None = setting(None, "largest norm of the gradient; 0: never clip", group="optimisation")
    dropout: float = setting(0.0, "in the trunk", paper="off in N+", group="optimisation")
    people_learning_rate: float = setting(
        0.02, "of labelers' temperatures and of ties, which begin at 1 and at their share", group="optimisation"
    )

    parallel: str = setting(
        "", "processes and what they share, as dp=2: dp the elements of a batch, fsdp also the storage of the weights; "
        "started here, or by torchrun",
        group="machine", may_change=True)  # fmt: skip
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")

    log_every_updates: int = setting(10, "updates in one row of metrics.jsonl", group="watching")
    evaluate_every_updates: int | None = setting(
        None, "between measurements on the dev half; without it, ten in a run", group="watching"
    )
    checkpoint_every_s: float = setting(120.0, "between checkpoints", unit="seconds", group="watching")

    def __post_init__(self) -> None:
        if self.preset not in REWARD:
            raise UserError(f"--preset is {self.preset!r}.", suggestion(self.preset, REWARD))
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{flag_of(name)} is {value}, but it must be above 0.", f"Raise {flag_of(name)}.")
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{flag_of(name)} is {value}, but it must be in [0, 1).", f"Change {flag_of(name)}.")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"{flag_of(name)} is {value}, but it must be 0 or more.", f"Raise {flag_of(name)}.")
        if not 0 < self.heldout_frac < 1:
            raise UserError(
                f"--heldout-frac is {self.heldout_frac}, but it must be between 0 and 1.", "Use 0.1, or so."
            )
        if any(rate <= 0 for rate in self.learning_rates) or len(set(self.learning_rates)) < len(self.learning_rates):
            raise UserError(
                f"--learning-rates is {' '.join(map(str, self.learning_rates))}, but it needs different rates above 0.",
                "Give them like --learning-rates 1e-5 2e-5 4e-5.",
            )
        if not self.data and not self.project:
            raise UserError(
                "There are no judgements to learn from: neither --data nor --project is given.",
                "Name files with --data, or a project of --store with --project.",
            )
        if self.ensemble and self.seeds < 2:
            raise UserError("--ensemble keeps all seeds, but --seeds is 1.", "Give --seeds 3, or more.")

    def settled(self) -> RewardConfig:
        """With everything filled in that the preset says, as a run keeps it."""
        preset = REWARD[self.preset]
        names = {field.name for field in fields(self)} & {field.name for field in fields(preset)}
        filled: dict[str, Any] = {name: getattr(preset, name) for name in names if getattr(self, name) is None}
        return replace(self, **filled, learning_rates=self.learning_rates or (preset.learning_rate,))

    def cells(self) -> list[RewardConfig]:
        """The runs of a sweep, each of one learning rate and one seed in a folder of its own; itself if it is one."""
        if len(self.learning_rates) == 1 and self.seeds == 1:
            return [self]
        return [
            replace(
                self,
                learning_rates=(rate,),
                seed=seed,
                seeds=1,
                ensemble=False,
                out=self.out / f"lr-{rate:g}-seed-{seed}",
            )
            for rate in self.learning_rates
            for seed in range(self.seed, self.seed + self.seeds)
        ]
