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
    @property
    def evaluate_every_episodes(self) -> int | None: ...
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


def watched(config: Guarded, heldout: int) -> str:
    """What the guard does, what it looks at and how often, in words.

    Example  >>> from types import SimpleNamespace
             >>> run = SimpleNamespace(
             ...     guard="stop", gold="", heldout_reward="runs/other", kl_limit_nats=20.0, evaluate_every_episodes=512
             ... )
             >>> watched(run, 64)
             'stop, by --heldout-reward runs/other and KL up to 20 nats, every 512 episodes'
    """
    if not heldout:
        return "none: no prompts are held out"
    truth = f"--gold {config.gold}" if config.gold else f"--heldout-reward {config.heldout_reward}"
    limit = "" if config.kl_limit_nats is None else f"KL up to {config.kl_limit_nats:g} nats"
    what = " and ".join(filter(None, (truth if config.gold or config.heldout_reward else "", limit)))
    if config.guard == "off" or not what:
        return f"off, evaluated every {config.evaluate_every_episodes:,} episodes" + (
            "" if what else "; nothing to watch"
        )
    return f"{config.guard}, by {what}, every {config.evaluate_every_episodes:,} episodes"
