"""The settings of `rein eval policies`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rein.config import flag_of, setting
from rein.errors import UserError, suggestion
from rein.feedback.draw import BASELINES, REFERENCE

_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class PoliciesConfig:
    """Settings of `rein eval policies`."""

    out: Path = setting(help="folder for answers, numbers and page; the same command continues it")
    policies: tuple[str, ...] = setting(
        (), "NAME=PATH of a run, a checkpoint or a model folder, as sft=runs/sft ppo=runs/ppo", positional=True
    )
    prompts: Path | None = setting(None, 'JSON lines: {"prompt": …} or a format\'s fields; "reference", "split", "id"')
    samples: Path | None = setting(
        None, "instead of policies and prompts: a CSV file of texts that were released, with the columns model_type, "
        "context, ref_text, sample",
    )  # fmt: skip
    baseline: tuple[str, ...] = setting((), f"of {', '.join(BASELINES)}: answers that need no model")
    against: str = setting("", "the policy that the others are compared with; the first one if not given")
    format: str = setting("plain", "how a row becomes a query: plain, tldr, cnndm, instruct, chat, docstring")
    query_tokens: int | None = setting(None, "longest query, in place of the format's", unit="tokens")
    response_tokens: int | None = setting(
        None, "longest response, its end of text included, in place of the format's", unit="tokens"
    )
    split: str = setting("", "only rows of this split")
    n_prompts: int = setting(0, "the first so many prompts; 0: all")
    per_prompt: int = setting(1, "answers of each policy to each prompt")
    temperature: float = setting(0.0, "of the answers; 0: the likeliest token", paper="0; in its code 0.01")
    seed: int = setting(0, "of the samples")

    judge: tuple[str, ...] = setting(
        (), "who says which is better: a run of `rein reward`, or (context, text) as package.module:Name; several are "
        "shown beside each other", group="judges",
    )  # fmt: skip
    reference_policy: str = setting("", "a policy's name, or a path: the KL is measured from it", group="judges")
    kl_temperature: float = setting(1.0, "of the samples that the KL is measured on, and of both models there",
                                    group="judges")  # fmt: skip
    store: str = setting("", "a labeling store: what people said of these policies", group="judges")
    project: str = setting("", "of the store", group="judges")
    batch: tuple[str, ...] = setting((), "of the project; without it, all", group="judges")

    tax: tuple[str, ...] = setting((), "tasks of `rein eval`, to see what training has cost", group="tax")
    tax_data: tuple[Path, ...] = setting((), "folders or files with their sets", group="tax")
    tax_limit: int | None = setting(None, "at most so many problems of each task", unit="problems", group="tax")
    tax_text: Path | None = setting(None, "a corpus: bits per byte of its held-out split", group="tax")
    tax_documents: int = setting(100, "of that text, the first ones", unit="documents", group="tax")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting("fp32", "of the matrix products", group="machine")
    tokens_at_once: int = setting(8192, "in one forward pass", unit="tokens", group="machine")
    slots: int = setting(64, "responses that are written side by side", group="machine", may_change=True)

    def __post_init__(self) -> None:
        for name in ("per_prompt", "kl_temperature", "tokens_at_once", "slots", "tax_documents"):
            if getattr(self, name) <= 0:
                flag = flag_of(name)
                raise UserError(f"{flag} is {getattr(self, name)}, but it must be above 0.", f"Raise {flag}.")
        for name in ("temperature", "n_prompts"):
            if getattr(self, name) < 0:
                raise UserError(f"{flag_of(name)} is {getattr(self, name)}, but it must be 0 or more.", "Use 0.")
        if self.per_prompt > 1 and self.temperature == 0:
            raise UserError(
                f"--per-prompt is {self.per_prompt}, but at --temperature 0 all answers to a prompt are the same.",
                "Use --per-prompt 1, or a --temperature such as 0.7.",
            )
        for name in self.baseline:
            if name not in BASELINES:
                raise UserError(f"There is no baseline {name!r}.", suggestion(name, BASELINES))
        self._check_sources(self.paths())

    def _check_sources(self, paths: Mapping[str, Path]) -> None:
        if self.samples is not None and (paths or self.prompts or self.baseline):
            raise UserError("--samples has texts and prompts of its own, and others are given.",
                            "Leave policies, --prompts and --baseline out, or --samples.")  # fmt: skip
        if bool(paths) != (self.prompts is not None):
            raise UserError(
                "Policies are given without --prompts." if paths else "--prompts is given without policies.",
                "Give both, like: rein eval policies sft=runs/sft --prompts posts.jsonl --out evals/sft",
            )
        if not paths and self.samples is None and not self.store:
            raise UserError("There is nothing to evaluate.", "Give policies and --prompts, --samples, or --store.")
        for flag, given in (
            ("--reference-policy", self.reference_policy), ("--tax", self.tax), ("--tax-text", self.tax_text)
        ):  # fmt: skip
            if given and not paths:
                raise UserError(f"{flag} needs models, and no policies are given.", "Give policies as NAME=PATH.")
        if bool(self.store) != bool(self.project):
            raise UserError("--store and --project belong together, and one is missing.", "Give both, or neither.")
        known = [*paths, *self.baseline]
        if self.against and paths and self.against not in known:
            raise UserError(f"--against is {self.against!r}, which is no policy here.", suggestion(self.against, known))
        if (self.tax or self.tax_text) and self.against in self.baseline:
            raise UserError(f"--against is {self.against}, but only a model has an alignment tax.", "Name a policy.")

    def paths(self) -> dict[str, Path]:
        """The models, by name."""
        found: dict[str, Path] = {}
        for text in self.policies:
            name, equals, path = text.partition("=")
            if not (equals and path and _NAME.fullmatch(name)) or name in (REFERENCE, *BASELINES):
                raise UserError(
                    f"{text!r} is no policy.", "Write a name of letters and digits, = and a path: ppo=runs/ppo."
                )
            if name in found:
                raise UserError(f"{name!r} is named twice.", "Give each policy a name of its own.")
            found[name] = Path(path)
        return found
