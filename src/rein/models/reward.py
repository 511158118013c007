"""Where the score of a response comes from: a reward model, or a function that knows what is good.

Flow     completions, the rows their queries were made of, the responses' texts → `Reward.scores` → one number each

    --reward runs/reward            a reward model's folder (models/scalar.py): it reads the tokens
      --ensemble worst …            the members that it kept, as one (models/scalar.combined)
    --reward package.module:Name    a function (context, text) → number: a gold score, where one is at hand

A score that is no finite number is stopped here, with the response that has it, before it reaches a gradient.
What reads queries in another form than it learned to is stopped, too: its scores would be finite, and mean nothing.
Source   the two kinds: Stiennon 2020, section 3.4; Gao 2022, section 2 (a gold score in place of people).
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError, speaks
from rein.models.rows import Completion
from rein.models.scalar import MEMBERS, Scalar, combined, load_ensemble, load_scalar, reward_folder, score_all
from rein.text.prompts import FORMATS, PromptFormat
from rein.text.sources import load_object

Function = Callable[[Mapping[str, Any], str], float]
Members = Literal["best", "mean", "worst", "uncertain"]  # what is asked: the chosen model, or all members as one

_SHOWN_CHARS = 80  # of a response, in a message
_CALLED = "Mend it: it is called with (context, text), a prompt's row and a response, and returns a float."


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
    format: PromptFormat | None = None,
    ensemble: Members = "best",
    uncertainty_coef: float = 0.1,
) -> Reward:
    """What `spec` names: the folder of a reward model, or a function as `package.module:Name`.

    `tokenizer` is that of the policy whose responses are to be scored, `format` that of its queries.

    Raises   UserError when there is no such thing, the reward model reads other tokens than the policy writes or
             queries of another form, or the members of an ensemble are asked for where none were kept.
    """
    if is_function(spec):
        if ensemble != "best":
            raise UserError(
                f"--ensemble is {ensemble}, but {flag} {spec} is a function: it has no members.",
                "Leave --ensemble out.",
            )
        return FunctionReward(spec, flag)
    members: list[Scalar]
    if ensemble == "best":
        scalar, theirs = load_scalar(Path(spec), device=str(device))
        members = [scalar]
    else:
        if not members_of(Path(spec)):
            raise UserError(
                f"--ensemble is {ensemble}, but {flag} {spec} has no members: there is no {MEMBERS}/ in it.",
                "Train it with `rein reward --seeds 3 --ensemble`, or leave --ensemble out.",
            )
        members, theirs = load_ensemble(Path(spec), device=str(device))
    if theirs.sha256() != tokenizer.sha256():
        raise UserError(
            f"{flag} {spec} has another tokenizer than the policy ({theirs.n_vocab:,} ids, and {tokenizer.n_vocab:,}; "
            "or the same number with other texts).",
            "Train the reward model from the supervised model that the policy starts from.",
        )
    if format is not None:
        _check_format(spec, format, flag)
    if ensemble == "best":
        return ModelReward(members[0], spec, precision=precision, tokens_at_once=tokens_at_once)
    return EnsembleReward(
        members, spec, ensemble, uncertainty_coef=uncertainty_coef, precision=precision, tokens_at_once=tokens_at_once
    )


def members_of(path: Path) -> list[Path]:
    """The folders of the members that a run of `rein reward --ensemble` kept; none where it kept none."""
    return sorted(folder for folder in (path / MEMBERS).glob("*") if not folder.name.endswith(".part"))


def _check_format(spec: str, format: PromptFormat, flag: str) -> None:
    """That a reward model reads queries as it did when it was trained; where it does not say how, that is said."""
    folder = reward_folder(Path(spec))
    said = checkpoint.read_about(folder).get("config", {}) if (folder / "rein.json").exists() else {}
    name = said.get("format")
    if name is None:
        if speaks():
            print(f"{flag} {spec} does not say in which format it read queries; they are {format.name} here.",
                  file=sys.stderr)  # fmt: skip
        return
    if name != format.name:
        raise UserError(
            f"{flag} {spec} was trained on queries of --format {name}, but they are {format.name} here.",
            f"Use --format {name}, or train the reward model with --format {format.name}.",
        )
    theirs = said.get("query_tokens") or FORMATS[name].query_tokens
    if (format.cut or format.filled) and theirs != format.query_tokens:
        raise UserError(
            f"{flag} {spec} was trained with --query-tokens {theirs}, to which --format {name} brings its queries, but "
            f"they are of {format.query_tokens} here.",
            f"Use --query-tokens {theirs}, or train the reward model with --query-tokens {format.query_tokens}.",
        )


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


class EnsembleReward:
    """Several reward models' scores as one. See `models.scalar.combined`."""

    def __init__(
        self,
        members: Sequence[Scalar],
        name: str,
        combine: Literal["mean", "worst", "uncertain"],
        *,
        uncertainty_coef: float = 0.1,
        precision: str = "fp32",
        tokens_at_once: int = 8192,
    ) -> None:
        self.name = name
        self._members = [ModelReward(one, name, precision=precision, tokens_at_once=tokens_at_once) for one in members]
        self._combine, self._uncertainty_coef = combine, uncertainty_coef

    @property
    def n_ctx(self) -> int | None:
        """The shortest of its members'."""
        return min(one.n_ctx for one in self._members if one.n_ctx is not None)

    def scores(
        self, completions: Sequence[Completion], contexts: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> Tensor:
        """See `Reward.scores`."""
        scores_MN = torch.stack([one.scores(completions, contexts, texts) for one in self._members])
        return combined(scores_MN, self._combine, uncertainty_coef=self._uncertainty_coef)


class FunctionReward:
    """A function of the row that a query was made of, and a response's text."""

    def __init__(self, spec: str, flag: str = "--reward") -> None:
        """Raises   UserError when there is no such function, or it takes other arguments."""
        self.name = spec
        self._flag = flag
        self._function: Function = load_object(spec, flag)
        if not callable(self._function):
            raise UserError(f"{flag} {spec} is no function.", "Name a function of (context, text).")
        try:
            inspect.signature(self._function).bind({}, "")
        except TypeError as error:
            raise UserError(f"{flag} {spec} takes other arguments than (context, text): {error}.", _CALLED) from None
        except ValueError:
            pass  # some functions of C do not say what they take: the first call tells

    @property
    def n_ctx(self) -> int | None:
        """A text may be of any length."""
        return None

    def scores(
        self, completions: Sequence[Completion], contexts: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> Tensor:
        """See `Reward.scores`."""
        return finite(torch.tensor(self.floats(contexts, texts), dtype=torch.float32), texts, self.name)

    def floats(self, contexts: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[float]:
        """What the function gives each text, as it gives it.

        Raises   UserError where it fails, or gives something else than a finite number.
        """
        found = []
        for context, text in zip(contexts, texts, strict=True):
            try:
                score = self._function(context, text)
            except UserError:
                raise
            except Exception as error:  # the function is the user's own: it may raise anything
                raise UserError(
                    f"{self._flag} {self.name} failed for the response {_shown(text)} with "
                    f"{type(error).__name__}: {error}{_place(error)}.",
                    _CALLED,
                ) from error
            try:
                found.append(float(score))
            except (TypeError, ValueError):
                raise UserError(
                    f"{self._flag} {self.name} gave {score!r}, and not a number, for the response {_shown(text)}.",
                    "Let it return a float.",
                ) from None
        finite(torch.tensor(found, dtype=torch.float64), texts, self.name)
        return found


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


def _place(error: Exception) -> str:
    """Where in the user's own code an error arose; "" where it was not entered."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
