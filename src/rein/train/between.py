"""Where a run of PPO, GRPO or RLOO stands, and what is said, checked and measured between its updates and batches.

Flow     Position ↔ a checkpoint
         scores, rollouts, updates of a batch → numbers → a row of metrics; an alarm; an error before harm
         held-out prompts → what the guard says → the position's KL coefficient, or the end
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from rein import checkpoint
from rein.errors import UserError, speaks
from rein.models.machine import peak_rss_bytes
from rein.run import RunFolder
from rein.train.policy_heldout import Found, HeldOut
from rein.train.ppo_parts import Parts

ALIKE_BATCHES = 3  # with nothing to choose between: then it is said, and the run ends
DRIFT = {"fp32": 1e-3, "bf16": 0.5}  # of the sampler's log-probabilities from the trainer's: more is an alarm


@dataclass
class Position:
    """How far a run is: all that its next batch depends on, besides weights and optimiser."""

    batches: int = 0
    opt_step: int = 0
    episodes: int = 0
    tokens: int = 0  # of queries and responses trained on
    wall_s: float = 0.0
    kl_coef: float = 0.0
    ptx_windows: int = 0  # of pre-training text, so the next one's number
    alike_batches: int = 0  # in a row whose scores were all the same
    guard: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # digests of prompts, policy and reward


# -------------------------------------------------------------------------------------------------------- measuring


def batch_numbers(
    scores_N: Tensor,
    lengths: Sequence[int],
    ended: Sequence[bool],
    *,
    kl_nats: float,
    kl_coef: float,
    entropies_M: Tensor,
    sampler_M: Tensor,
    trainer_M: Tensor,
) -> dict[str, float]:
    """What is said of a batch before it is learned from.

    Shapes   scores_N (N,), a response each; the others (M,), a token each: the sampler's entropies and
             log-probabilities, and the trainer's, all on the CPU.
    """
    score = float(scores_N.double().mean())
    return {
        "score_mean": score,
        "score_std": float(scores_N.double().std(correction=0)),
        "reward_mean": score - kl_coef * kl_nats,
        "kl_nats": kl_nats,
        "kl_coef": kl_coef,
        "response_tokens": sum(lengths) / len(lengths),
        "no_eot_frac": 1 - sum(ended) / len(ended),
        "entropy_nats": float(entropies_M.double().mean()),
        "sampler_drift": float((sampler_M - trainer_M).abs().max()),
    }


def ratio_numbers(change_M: Tensor, *, cliprange: float, tokens: int) -> dict[str, Tensor]:
    """What log-probabilities that have changed say, as parts of a minibatch of so many tokens: see `added_up`.

    Source   approx_kl: Schulman 2020, "Approximating KL divergence" (k2).
    """
    ratio_M = change_M.exp()
    return {
        "clip_frac": ((ratio_M - 1).abs() > cliprange).sum() / tokens,
        "approx_kl": 0.5 * change_M.square().sum() / tokens,
        "ratio_max": ratio_M.max(),
    }


def added_up(totals: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of a minibatch, and those of one more part of it: sums, and the largest ratio.

    Example  >>> one = {"policy_loss": torch.tensor(0.25), "ratio_max": torch.tensor(1.5)}
             >>> {name: x.item() for name, x in added_up(one, one).items()}
             {'policy_loss': 0.5, 'ratio_max': 1.5}
    """
    sums = {name: totals.get(name, 0) + x.detach() for name, x in found.items() if name != "ratio_max"}
    largest = found["ratio_max"].detach()
    return sums | {"ratio_max": torch.maximum(totals.get("ratio_max", largest), largest)}


def over_updates(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """The numbers of a batch from those of its updates: means, and the largest ratio."""
    means = {name: float(torch.stack([row[name].double() for row in rows]).mean()) for name in rows[0]}
    return means | {"ratio_max": float(torch.stack([row["ratio_max"] for row in rows]).max())}


def log_batch(run: RunFolder, position: Position, numbers: Mapping[str, float]) -> None:
    """A row of metrics."""
    run.log(
        opt_step=position.opt_step,
        episodes=position.episodes,
        tokens=position.tokens,
        wall_s=round(position.wall_s, 3),
        **numbers,
        peak_rss_bytes=peak_rss_bytes(),
    )


# --------------------------------------------------------------------------------------------------------- checking


def check_alike(position: Position, scores_N: Tensor, name: str, *, teaches: str) -> None:
    """Stops where every response has had the same score for some batches: there is nothing to learn from.

    `teaches` says what is learned nevertheless, while it goes on.

    Raises   UserError then, with the `name` of the reward.
    """
    alike = len(scores_N) > 1 and bool((scores_N == scores_N[0]).all())
    position.alike_batches = position.alike_batches + 1 if alike else 0
    if not alike:
        return
    what = f"All {len(scores_N)} responses of batch {position.batches + 1} have the score {float(scores_N[0]):g}"
    if position.alike_batches >= ALIKE_BATCHES:
        raise UserError(
            f"{what}, as those of the {ALIKE_BATCHES - 1} batches before did: {name} tells none from another.",
            "Check --reward on some texts; if it is a model, train it on more comparisons.",
        )
    if speaks():
        print(f"{what}: {teaches}.", file=sys.stderr)


def check_finite(row: Mapping[str, Tensor], position: Position, learning_rate: float | None) -> None:
    """Stops before an update that is no number.

    Raises   UserError then.
    """
    bad = {name: float(x) for name, x in row.items() if not math.isfinite(float(x))}
    if bad:
        raise UserError(
            f"Update {position.opt_step + 1:,} has " + ", ".join(f"{name} {x}" for name, x in bad.items()) + ". "
            "The weights were not changed by it, and every saved checkpoint is good.",
            f"Start again with a lower --learning-rate (it is {learning_rate}), or --precision fp32.",
        )


def left_over(episodes: int, *, whole: int, batches: int) -> str:
    r"""What to say where the last episodes do not fill a batch; nothing where they do.

    Example  >>> left_over(33, whole=32, batches=2)
             'note       --episodes 33 does not come out in whole batches: 32 are done, in 2 batches\n'
    """
    if whole == episodes:
        return ""
    done = f"{whole:,} are done, in {batches:,} batches"
    return f"note       --episodes {episodes:,} does not come out in whole batches: {done}\n"


def conclude(run: RunFolder, stopped: str) -> None:
    """Says where the policy of a run is that has ended, and notes in its folder where a guard has `stopped` it."""
    if stopped:
        run.note_stop(stopped)
    print(f"policy     {checkpoint.chosen(run.path)}")


def drift_alarm(drift: float, precision: str) -> str:
    """What to say where sampler and trainer do not agree; nothing where they do."""
    if drift <= DRIFT[precision]:
        return ""
    return (
        f"The sampler's log-probabilities are up to {drift:.2g} nats from the trainer's, in {precision}; more than "
        f"{DRIFT[precision]:g} says that they are not of one model. The trainer's are used."
    )


# ------------------------------------------------------------------------------------------------------- evaluating


def evaluate(run: RunFolder | None, parts: Parts, heldout: HeldOut, position: Position) -> str:
    """Looks at the policy, in the first process, and does as the guard says. Returns what to show."""
    world = parts.actors.world

    def look_at_it() -> tuple[Found, dict[str, Any]]:
        assert run is not None, "the first process has the run folder"
        return heldout.run(run, asdict(position)), heldout.state_dict()

    with parts.gathered(reference=True, here=world.is_first):
        found, position.guard = world.at_first(look_at_it)
    heldout.stopped = position.guard["stopped"]
    position.kl_coef *= found.raise_by
    return "\n".join(filter(None, (found.line, found.stop)))
