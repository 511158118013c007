"""Where the score of a response comes from: a reward model, or a function that knows what is good.

Flow     completions, the rows their queries were made of, the responses' texts → `Reward.scores` → one number each

    --reward runs/reward            a reward model's folder (models/scalar.py): it reads the tokens
    --reward package.module:Name    a function (context, text) → number: a gold score, where one is at hand

A score that is no finite number is stopped here, with the response that has it, before it reaches a gradient.
Source   the two kinds: Stiennon 2020, section 3.4; Gao 2022, section 2 (a gold score in place of people).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.models.rows import Completion
from rein.models.scalar import Scalar, load_scalar, score_all
from rein.text.sources import load_object

Function = Callable[[Mapping[str, Any], str], float]

_SHOWN_CHARS = 80  # of a response, in a message


class Reward(Protocol):
    """Something that scores responses."""

    name: str

    @property
    def n_ctx(self) -> int | None:
        """The longest query with response that it can read; None: any."""

    def scores(
        self, completions: Sequence[Completion], contexts: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> Tensor:
        """One number for each response, (N,) float32 on the CPU: higher is better.

        Raises   UserError for a score that is no finite number.
        """


def load_reward(
    spec: str,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    precision: str = "fp32",
    tokens_at_once: int = 8192,
    flag: str = "--reward",
) -> Reward:
    """What `spec` names: the folder of a reward model, or a function as `package.module:Name`.

    `tokenizer` is that of the policy whose responses are to be scored.

    Raises   UserError when there is no such thing, or the reward model reads other tokens than the policy writes.
    """
    if is_function(spec):
        return FunctionReward(spec, flag)
    scalar, theirs = load_scalar(Path(spec), device=str(device))
    if theirs.sha256() != tokenizer.sha256():
        raise UserError(
            f"{flag} {spec} has another tokenizer than the policy ({theirs.n_vocab:,} ids, and {tokenizer.n_vocab:,}; "
            "or the same number with other texts).",
            "Train the reward model from the supervised model that the policy starts from.",
        )
    return ModelReward(scalar, spec, precision=precision, tokens_at_once=tokens_at_once)


def is_function(spec: str) -> bool:
    """Whether a --reward names a function, not a folder.

    Example  >>> is_function("rein.text.gold:gold"), is_function("runs/reward")
             (True, False)
    """
    return ":" in spec and not Path(spec).exists()


class ModelReward:
    """A reward model's scores: its head at the last token of each response."""

    def __init__(self, scalar: Scalar, name: str, *, precision: str = "fp32", tokens_at_once: int = 8192) -> None:
        self.name = name
        self._scalar = scalar.eval().requires_grad_(False)
        self._precision, self._tokens_at_once = precision, tokens_at_once

    @property
    def n_ctx(self) -> int | None:
        """That of its trunk."""
        return self._scalar.model.config.n_ctx

    def scores(
        self, completions: Sequence[Completion], contexts: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> Tensor:
        """See `Reward.scores`."""
        scores_N = score_all(self._scalar, completions, precision=self._precision, tokens_at_once=self._tokens_at_once)
        return finite(scores_N, texts, self.name)


class FunctionReward:
    """A function of the row that a query was made of, and a response's text."""

    def __init__(self, spec: str, flag: str = "--reward") -> None:
        """Raises   UserError when there is no such function."""
        self.name = spec
        self._flag = flag
        self._function: Function = load_object(spec, flag)
        if not callable(self._function):
            raise UserError(f"{flag} {spec} is no function.", "Name a function of (context, text).")

    @property
    def n_ctx(self) -> int | None:
        """A text may be of any length."""
        return None

    def scores(
        self, completions: Sequence[Completion], contexts: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> Tensor:
        """See `Reward.scores`."""
        found = []
        for context, text in zip(contexts, texts, strict=True):
            score = self._function(context, text)
            try:
                found.append(float(score))
            except (TypeError, ValueError):
                raise UserError(
                    f"{self._flag} {self.name} gave {score!r}, and not a number, for the response {_shown(text)}.",
                    "Let it return a float.",
                ) from None
        return finite(torch.tensor(found, dtype=torch.float32), texts, self.name)


def finite(scores_N: Tensor, texts: Sequence[str], name: str) -> Tensor:
    """The scores themselves, all of them finite.

    Raises   UserError that names the first response whose score is not.
    """
    bad = (~scores_N.isfinite()).nonzero().flatten().tolist()
    if bad:
        others = f", and {len(bad) - 1} more of {len(texts)}" if len(bad) > 1 else ""
        raise UserError(
            f"{name} scores the response {_shown(texts[bad[0]])} as {float(scores_N[bad[0]])}{others}. "
            "A score must be a finite number; no weight was changed by it.",
            "Mend the function, or train the reward model again with a lower --learning-rate or --precision fp32.",
        )
    return scores_N


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
