"""PPO from human feedback, from top to bottom: a policy learns to write what a reward scores high.

    prompts ─ rollouts of the policy → cut by rule → text → score
                    one pass of the trainer: old log-probabilities, the reference's, values
                    −kl_coef · (log π − log π_ref) on each token, the score on the last → gae → advantages
              epochs × minibatches × micro-batches: clipped losses (and pre-training text) → clip → Adam
    every so often: held-out prompts, a gold score or another reward, the guard, samples, a checkpoint

    loss = Σ_tokens [max(−A ratio, −A clip(ratio)) + vf_coef · ½ max((V − R)², (V_clipped − R)²)] / tokens
         + ptx_coef · mean over tokens of text of −log π(token)

The sums are over the tokens of a whole minibatch, so that neither its split into micro-batches nor what stands beside a
response changes anything. Old log-probabilities are the trainer's own, never the sampler's: the ratio is exactly 1 and
the KL exactly 0 before the first update. The sampler's are compared with them, and how far they are apart is logged.
Prompts, random numbers and minibatches follow from the seed and the numbers of episodes and batches alone, so that a
run that is killed ends with the same weights, to the bit. Of several processes (processes.py, models/actors.py) each
writes, scores and learns from its share of the episodes; what was written and what it is worth, all of them then know.
Source   Ziegler 2019; Stiennon 2020, section 3.4 and App. B.1; Ouyang 2022, section 3.5 and App. C.4; Huang 2024; the
losses: Schulman 2017. Differs: Huang's code gives the score to the place behind the end of text, which no loss covers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from rein import checkpoint
from rein.distributed import World, interruptible, lost_peers, stop
from rein.losses import clipped_policy, clipped_value
from rein.models.actors import Actors, Pass
from rein.models.rows import Completion, lay_out
from rein.progress import Progress
from rein.returns import token_rewards
from rein.run import RunFolder
from rein.train.between import (
    Position,
    added_up,
    batch_numbers,
    check_alike,
    check_finite,
    conclude,
    drift_alarm,
    evaluate,
    left_over,
    log_batch,
    over_updates,
    ratio_numbers,
)
from rein.train.episodes import score_episodes, write_episodes
from rein.train.policy_heldout import HeldOut
from rein.train.ppo_config import PPOConfig, known
from rein.train.ppo_parts import Parts, assemble, describe, load, save
from rein.train.ppo_rules import adapted_kl_coef, minibatches, places_of, rate_share, targets
from rein.train.processes import added, begin, everyones, launch_others, of_like_length, run_folder, share, turns


@dataclass(frozen=True)
class Experience:
    """A batch of episodes: what was written, what it was worth, and what each token then looked like."""

    completions: list[Completion]
    rewards_M: Tensor
    old: Pass
    kept: Pass | None  # the same with its graph, where the first update may use it
    numbers: dict[str, float]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [len(each.response) for each in self.completions]


def ppo_command(config: PPOConfig) -> None:
    """Trains a policy by PPO on the scores of a reward model, or of a function.

    Settings that are not given are the preset's; what differs from it is printed. Checkpoints hold the policy (a model
    folder) and its value network. Ctrl-C saves and stops; the same command goes on, to the same weights.

    --parallel starts that many processes on this machine; on several, start torchrun on each, as for `rein pretrain`.

    Examples
      rein ppo runs/sft --reward runs/reward --prompts prompts.jsonl --out runs/ppo
      rein ppo runs/sft --reward runs/reward --prompts posts.jsonl --out runs/ppo --preset n_plus --episodes 4096
      rein ppo runs/sft --reward my.module:score --prompts p.jsonl --out runs/a --format plain --response-tokens 32
      rein ppo runs/sft --reward runs/reward --prompts p.jsonl --out runs/ptx --preset instructgpt2022 --ptx-data data/x
      rein ppo runs/sft --reward runs/reward --prompts prompts.jsonl --out runs/two --parallel fsdp=2
    """
    launch_others("rein ppo", config)
    ppo(config)


def ppo(config: PPOConfig) -> Path:
    """Trains a policy by PPO and returns the run folder. See `ppo_command`.

    With a layout of several processes, every one of them calls this.
    """
    config = config.settled()
    world = begin(config)
    parts = assemble(config, world)
    with run_folder(config.out, config, world) as run, interruptible() as interrupted, lost_peers(config.out):
        position = Position(kl_coef=known(config.kl_coef), inputs=parts.inputs)
        if world.at_first(lambda: bool(checkpoint.all_steps(config.out / "checkpoints"))):
            position = Position(**load(run, config, parts))
        elif run is not None and run.resumed:
            run.truncate_after(-1)
        heldout = HeldOut(config, parts, position.guard)
        if run is not None:
            describe(config, parts, start=position.episodes)
            note = left_over(known(config.episodes), whole=config.whole_episodes, batches=config.batches)
            print(note, end="", file=sys.stderr)
        if not heldout.stopped:
            _train(config, run, parts, heldout, position, interrupted)
        elif run is not None:
            print(heldout.stopped, file=sys.stderr)
        if run is not None:
            conclude(run, heldout.stopped)
    stop()
    return config.out


def _train(
    config: PPOConfig,
    run: RunFolder | None,
    parts: Parts,
    heldout: HeldOut,
    position: Position,
    interrupted: list[int],
) -> None:
    """The run, in every process; `run` is the first one's."""
    total, world = config.batches, parts.actors.world
    every = known(config.evaluate_every_episodes)
    if position.batches == 0:
        said = evaluate(run, parts, heldout, position)
        if run is not None:
            print(said, file=sys.stderr)
    saved_at, warned = time.monotonic(), False
    with Progress(
        "ppo", total=config.whole_episodes, unit="episodes", start=position.episodes, quiet=run is None
    ) as bar:
        while position.batches < total:
            began, before = time.monotonic(), position.episodes
            experience = collect(config, parts, position)
            sampled_s = experience.numbers.pop("rollout_s")
            numbers = experience.numbers | learn(config, parts, experience, position)
            _advance(config, position, experience)
            took_s = time.monotonic() - began
            position.wall_s += took_s
            numbers |= {"rollout_frac": sampled_s / took_s, "episodes_per_s": len(experience.completions) / took_s}
            done = position.batches == total
            if run is not None and (position.batches % config.log_every_batches == 0 or done):
                log_batch(run, position, numbers)
            if not warned and (alarm := drift_alarm(numbers["sampler_drift"], parts.precision)):
                warned = True
                bar.say(alarm)
            bar.advance(
                position.episodes - before,
                note=f"score {numbers['score_mean']:.3f}, KL {numbers['kl_nats']:.2f}",
            )
            if before // every != position.episodes // every or done:
                bar.say(evaluate(run, parts, heldout, position))
            stopped = bool(heldout.stopped)
            wishes = world.gather((bool(interrupted), time.monotonic() - saved_at > config.checkpoint_every_s))
            stopping, due = any(one for one, _ in wishes), wishes[0][1]
            if done or stopped or stopping or due:
                save(run, config, parts, asdict(position), opt_step=position.opt_step)
                saved_at = time.monotonic()
            if stopped:
                return
            if stopping and not done:
                raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------------------ collecting


def collect(config: PPOConfig, parts: Parts, position: Position) -> Experience:
    """Samples the next batch's responses, scores them, and looks at them once with all networks."""
    prompts = parts.prompts.of_episodes(config.seed, position.episodes, known(config.episodes_per_batch))
    world, began = parts.actors.world, time.monotonic()
    mine = share(len(prompts), world)
    with parts.actors.gathered():
        episodes = everyones(world, lambda: write_episodes(config, parts, prompts, position.episodes, mine))
    rollout_s = time.monotonic() - began
    raw_N = torch.tensor(everyones(world, lambda: score_episodes(parts, prompts, episodes, mine)))
    completions, ended = [each.trained for each in episodes], [each.ended for each in episodes]
    sampler_M = torch.cat([each.logprobs_T for each in episodes])
    check_alike(position, raw_N, parts.reward.name, teaches="only the KL penalty and unended responses teach anything")
    scores_N = unended(raw_N, ended, config)
    old, reference_M, kept = look(config, parts, completions, position)
    lengths = [len(each.response) for each in completions]
    rewards_M = token_rewards(
        scores_N.to(parts.actors.device), old.logprobs_M, reference_M,
        torch.tensor(lengths, device=parts.actors.device), kl_coef=position.kl_coef,
    )  # fmt: skip
    numbers = batch_numbers(
        scores_N, lengths, ended, kl_nats=float((old.logprobs_M - reference_M).double().sum()) / len(completions),
        kl_coef=position.kl_coef, entropies_M=torch.cat([each.entropies_T for each in episodes]), sampler_M=sampler_M,
        trainer_M=old.logprobs_M.cpu(),
    ) | {"rollout_s": rollout_s}  # fmt: skip
    return Experience(completions, rewards_M, old, kept, numbers)


def unended(scores_N: Tensor, ended: Sequence[bool], config: PPOConfig) -> Tensor:
    """The scores by the rule for responses without an end: kept, or replaced.

    Source   Huang 2024, detail 12; Ziegler 2019, section 3.1.1.
    """
    if config.unended == "keep":
        return scores_N
    return torch.where(torch.tensor(list(ended)), scores_N, torch.tensor(known(config.unended_score)))


def look(
    config: PPOConfig, parts: Parts, completions: Sequence[Completion], position: Position
) -> tuple[Pass, Tensor, Pass | None]:
    """Old log-probabilities and values, the reference's log-probabilities; and the graph, where it can be kept.

    In the groups of the first pass over the batch, so that its first update computes the same numbers again. Where the
    batch is one minibatch in one group, that update is spared the pass: it goes on from this one.
    """
    actors, lengths = parts.actors, [len(each.response) for each in completions]
    parted = minibatches(config.seed, position.batches, 0, episodes=len(completions), count=known(config.minibatches))
    grouped = of_like_length(completions, config.tokens_at_once)
    groups = [turn for which in parted for turn in turns(which, grouped, actors.world)]
    found_3M = actors.value.weight.new_zeros(3, sum(lengths)).detach()
    kept: Pass | None = None
    for group, counts in groups:
        rows = lay_out([completions[n] for n in group]).to(actors.device)
        places_M = places_of(lengths, group).to(actors.device)
        found = actors.forward(rows)
        reference_M = actors.reference_logprobs(rows)
        if counts:
            found_3M[:, places_M] = torch.stack([found.logprobs_M.detach(), found.values_M.detach(), reference_M])
        kept = found if len(groups) == 1 else None
        del found
    logprobs_M, values_M, reference_M = added(actors.world, found_3M)
    return Pass(logprobs_M, values_M), reference_M, kept


# -------------------------------------------------------------------------------------------------------- learning


def learn(config: PPOConfig, parts: Parts, experience: Experience, position: Position) -> dict[str, float]:
    """All updates of a batch. Returns their numbers, means over the updates where nothing else is said."""
    actors, lengths = parts.actors, experience.lengths
    share = rate_share(
        position.batches, config.batches, schedule=known(config.schedule), warmup_batches=known(config.warmup_batches)
    )
    rate, value_rate = (known(x) * share for x in (config.learning_rate, config.value_learning_rate))
    everything = list(range(len(lengths)))
    advantages_M, returns_M = _targets(config, experience, everything)
    rows: list[dict[str, Tensor]] = []
    kept = experience.kept
    for epoch in range(known(config.epochs)):
        for which in minibatches(
            config.seed, position.batches, epoch, episodes=len(lengths), count=known(config.minibatches)
        ):
            if config.whiten_over == "minibatch":
                part = _targets(config, experience, which)
                places_M = places_of(lengths, which).to(actors.device)
                for whole_M, part_M in zip((advantages_M, returns_M), part, strict=True):
                    whole_M[places_M] = part_M
            row = gradients(config, actors, experience, which, advantages_M, returns_M, kept)
            kept = None
            if config.ptx_data is not None and known(config.ptx_coef) > 0:
                row["ptx_loss"] = _mix_in_text(config, parts, position, len(which))
            row["grad_norm"], row["value_grad_norm"] = actors.clip(known(config.clip_norm))
            check_finite(row, position, config.learning_rate)
            actors.update(learning_rate=rate, value_learning_rate=value_rate)
            position.opt_step += 1
            rows.append(row)
    if parts.averaged is not None:
        parts.averaged.update(actors.policy)
    left = (returns_M - experience.old.values_M).var(correction=0)
    explained = 1 - float(left / returns_M.var(correction=0).clamp(min=1e-12))
    last = {name: float(rows[-1][name]) for name in ("grad_norm", "value_grad_norm")}
    return over_updates(rows) | last | {"learning_rate": rate, "value_explained_frac": explained}


def _targets(config: PPOConfig, experience: Experience, which: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Advantages and returns of some episodes' tokens, in the order of `which`."""
    lengths, device = experience.lengths, experience.rewards_M.device
    places_M = places_of(lengths, which).to(device)
    return targets(
        experience.rewards_M[places_M],
        experience.old.values_M[places_M],
        torch.tensor([lengths[n] for n in which], device=device),
        gamma=known(config.gamma),
        lam=known(config.lam),
        whiten_rewards=known(config.whiten_rewards),
        whiten_advantages=known(config.whiten_advantages),
    )


def gradients(
    config: PPOConfig,
    actors: Actors,
    experience: Experience,
    which: Sequence[int],
    advantages_M: Tensor,
    returns_M: Tensor,
    kept: Pass | None = None,
) -> dict[str, Tensor]:
    """Leaves the gradient of one minibatch's loss in the networks, and returns the numbers of it.

    `kept` is the pass over it that is already at hand.
    """
    lengths, old = experience.lengths, experience.old
    tokens = sum(lengths[n] for n in which)
    cliprange, cliprange_value = known(config.cliprange), known(config.cliprange_value)
    totals: dict[str, Tensor] = {}
    groups = turns(which, of_like_length(experience.completions, config.tokens_at_once), actors.world)
    for number, (group, counts) in enumerate(groups):
        actors.sync(number == len(groups) - 1)
        places_M = places_of(lengths, group).to(actors.device)
        new = kept or actors.forward(lay_out([experience.completions[n] for n in group]))
        old_M, old_values_M = old.logprobs_M[places_M], old.values_M[places_M]
        policy_M = clipped_policy(new.logprobs_M, old_M, advantages_M[places_M], cliprange=cliprange)
        value_M = clipped_value(new.values_M, old_values_M, returns_M[places_M], cliprange=cliprange_value)
        loss = (policy_M.sum() + known(config.vf_coef) * value_M.sum()) / tokens
        (loss if counts else 0 * loss).backward()  # type: ignore[no-untyped-call]
        if not counts:
            continue
        with torch.no_grad():
            found = {
                "policy_loss": policy_M.sum() / tokens,
                "value_loss": value_M.sum() / tokens,
                "value_clip_frac": ((new.values_M - old_values_M).abs() > cliprange_value).sum() / tokens,
                **ratio_numbers(new.logprobs_M - old_M, cliprange=cliprange, tokens=tokens),
            }
        totals = added_up(totals, found)
    return _of_all(actors.world, totals)


def _of_all(world: World, totals: dict[str, Tensor]) -> dict[str, Tensor]:
    """The numbers of a minibatch from those of each process's share: sums, and the largest ratio."""
    if world.layout.size == 1:
        return totals
    parts = [part for part in world.gather({name: x.item() for name, x in totals.items()}) if part]
    return {
        name: torch.tensor((max if name == "ratio_max" else sum)(part[name] for part in parts)) for name in parts[0]
    }


def _mix_in_text(config: PPOConfig, parts: Parts, position: Position, episodes: int) -> Tensor:
    """Adds the pre-training gradient of one minibatch; returns its mean loss per token, before the coefficient.

    Source   Ouyang 2022, App. C.4: gradients of the two losses one after the other, accumulated; γ = 27.8.
    """
    assert parts.ptx is not None, "a run with --ptx-data has text"
    count = max(1, round(known(config.ptx_per_episode) * episodes / known(config.epochs)))
    actors, world = parts.actors, parts.actors.world
    total = torch.zeros((), device=actors.device)
    pieces = list(parts.ptx.windows(position.ptx_windows, count, config.tokens_at_once, world))
    for number, (windows_BT, counts) in enumerate(pieces):
        actors.sync(number == len(pieces) - 1)
        loss = actors.language_loss(windows_BT[:, :-1], windows_BT[:, 1:]) * (counts * len(windows_BT) / count)
        (known(config.ptx_coef) * loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    position.ptx_windows += count
    return added(world, total)


# ------------------------------------------------------------------------------------------------------- in between


def _advance(config: PPOConfig, position: Position, experience: Experience) -> None:
    n = len(experience.completions)
    position.batches += 1
    position.episodes += n
    position.tokens += sum(map(len, experience.completions))
    if config.kl_control == "adaptive":
        position.kl_coef = adapted_kl_coef(
            position.kl_coef,
            experience.numbers["kl_nats"],
            target_nats=known(config.kl_target_nats),
            horizon_episodes=known(config.kl_horizon_episodes),
            n=n,
        )
