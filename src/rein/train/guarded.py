"""What is asked of the settings of a run whose policy is watched, whichever way it is trained on scores.

A guard that acts has to have something to watch, and look often enough: it says nothing of a truth before its eighth
evaluation, and then wants three that agree (rein.over_optimisation).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rein.errors import UserError

ACTS = ("stop", "raise-kl")  # of --guard
EVALUATIONS, GUARDED_EVALUATIONS = 10, 32  # of a run, where nothing else is said; and where a guard acts
ALIKE = "Give a reward model of other comparisons and another seed, or another function."


class Guarded(Protocol):
    """The settings that say what is watched, and what it is for."""

    # fmt: off
    @property
    def reward(self) -> str: ...
    @property
    def gold(self) -> str: ...
    @property
    def heldout_reward(self) -> str: ...
    @property
    def guard(self) -> str: ...
    @property
    def kl_limit_nats(self) -> float | None: ...
    # fmt: on


def check_guard(config: Guarded, kl_coef: float) -> None:
    """That the guard can do as it is told.

    Raises   UserError where it has nothing to watch, nothing to raise, or watches what the policy is trained on.
    """
    if config.guard == "raise-kl" and kl_coef == 0:
        raise UserError("--guard raise-kl raises --kl-coef, which is 0.", "Give --kl-coef, or use --guard stop.")
    if config.guard in ACTS and not (config.gold or config.heldout_reward) and config.kl_limit_nats is None:
        raise UserError(
            f"--guard {config.guard} has nothing to watch: neither --gold, nor --heldout-reward, nor --kl-limit-nats.",
            "Give one of them, or use --guard warn.",
        )
    second = config.heldout_reward
    if second and (second == config.reward or Path(second).resolve() == Path(config.reward).resolve()):
        raise UserError(f"--heldout-reward {second} is what the policy is trained on: it is --reward.", ALIKE)


def evaluations(config: Guarded) -> int:
    """How many evaluations a run has where nothing else is said.

    Source   rein.over_optimisation, OverOptimisation: simulated with 50.
    """
    return GUARDED_EVALUATIONS if config.guard in ACTS else EVALUATIONS
