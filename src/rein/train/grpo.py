"""GRPO and RLOO, from top to bottom: a policy learns from how its responses to one query compare. No value network.

    queries ─ `samples` rollouts of each → cut by rule → text → score  (− kl_coef · log π/π_ref, where kl_in is reward)
                    advantage of a response: its score against the others to its query; of every token, the same
              epochs × minibatches × micro-batches: Σ weight · (clipped loss + kl_coef · KL, where kl_in is loss) → Adam
    every so often: held-out prompts, a gold score or another reward, the guard, samples, a checkpoint

What a token weighs is --token-mean (losses.token_weights), over the responses of a whole minibatch, so that neither its
split into micro-batches nor what stands beside a response changes anything. Old log-probabilities are the trainer's
own. Queries, random numbers and minibatches follow from the seed and the numbers of batches alone, so that a run that
is killed ends with the same weights, to the bit. Data, rules, rewards and evaluation are those of `rein ppo`.
Source   Shao 2024 (DeepSeekMath), section 4.1; Ahmadian 2024 (RLOO); Liu 2025 (Dr. GRPO). Differs: advantages of RLOO
go through PPO's clipped loss, whose gradient is REINFORCE's in the first update of a batch.
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
from rein.distributed import interruptible
from rein.losses import clipped_policy, kl_k2, kl_k3, token_weights
from rein.models.actors import Actors, Adam
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import keep_freed_memory, resolve_device, resolve_precision
from rein.models.reward import load_reward
from rein.models.rows import Completion, batches, lay_out
from rein.models.scalar import Scalar
from rein.progress import Progress
from rein.returns import group_advantages
from rein.run import RunFolder
from rein.text.prompts import format_of
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
from rein.train.grpo_config import GRPOConfig
from rein.train.guarded import watched
from rein.train.policy_heldout import HeldOut
from rein.train.ppo_config import known
from rein.train.ppo_parts import Parts, Text, inputs_of, load, save
from rein.train.ppo_rules import Ending, minibatches, places_of, rate_share, truncate_id
from rein.train.queries import read_prompts
from rein.train.responses import respond

KL = {"k2": kl_k2, "k3": kl_k3}


@dataclass(frozen=True)
class Experience:
    """A batch of episodes: what was written, how it compares, and what each token then looked like."""

    completions: list[Completion]
    advantages_N: Tensor
    old_M: Tensor  # log-probabilities under the policy as it was, and under the reference
    reference_M: Tensor
    numbers: dict[str, float]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [len(each.response) for each in self.completions]


def grpo(config: GRPOConfig) -> Path:
    """Trains a policy by GRPO, RLOO or Dr. GRPO on the scores of a reward model, or of a function.

    Each query is answered several times, and a response is reinforced by how much better it scores than the others.
    Prompts, rewards and evaluation are those of `rein ppo`. Ctrl-C saves and stops; the same command goes on, to the
    same weights.

    Examples
      rein grpo runs/sft --reward runs/reward --prompts posts.jsonl --format tldr --out runs/grpo
      rein grpo runs/sft --reward runs/reward --prompts posts.jsonl --format tldr --out runs/rloo --estimator rloo
      rein grpo runs/sft --reward my.module:score --prompts p.jsonl --response-tokens 32 --samples 4 --out runs/a
    """
    config = config.settled()
    parts = assemble(config)
    with RunFolder(config.out, config) as run, interruptible() as interrupted:
        position = Position(kl_coef=known(config.kl_coef), inputs=parts.inputs)
        if checkpoint.all_steps(run.path / "checkpoints"):
            position = Position(**load(run, config, parts))
        elif run.resumed:
            run.truncate_after(-1)
        heldout = HeldOut(config, parts, position.guard)
        _describe(config, parts, start=position.episodes)
        print(left_over(config.episodes, whole=config.whole_episodes, batches=config.batches), end="", file=sys.stderr)
        if heldout.stopped:
            print(heldout.stopped, file=sys.stderr)
        else:
            _train(config, run, parts, heldout, position, interrupted)
        conclude(run, heldout.stopped)
    return config.out


def assemble(config: GRPOConfig) -> Parts:
    """Loads and makes everything that the settings name.

    Raises   UserError for what is missing, damaged, or does not go together.
    """
    keep_freed_memory()
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    policy, tokenizer = load_model(config.policy, device=str(device))
    format = format_of(config.format, query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    reward = load_reward(
        config.reward, tokenizer, device=device, precision=precision, tokens_at_once=config.tokens_at_once,
        format=format, ensemble=config.ensemble, uncertainty_coef=config.uncertainty_coef,
    )  # fmt: skip
    n_ctx = min(policy.config.n_ctx, reward.n_ctx or policy.config.n_ctx)
    prompts = read_prompts(config.prompts, config.heldout, format, tokenizer, n_ctx=n_ctx, policy=config.policy)
    adam = Adam(config.adam_b1, config.adam_b2, config.adam_eps, config.weight_decay)
    # The value head that comes with the actors is never asked, and never trained.
    actors = Actors(
        policy, Scalar(policy).to(device), adam, precision=precision, temperature=config.temperature
    )  # fmt: skip
    ending = Ending(
        eot_id=end_of_text(policy.config, tokenizer),
        truncate_id=truncate_id(config.truncate_at, tokenizer),
        truncate_after_tokens=config.truncate_after_tokens,
    )
    inputs = inputs_of(config, prompts)
    return Parts(
        actors, None, reward, prompts, ending, Text(tokenizer, format), None, precision, inputs, made_by="grpo"
    )


def _train(
    config: GRPOConfig, run: RunFolder, parts: Parts, heldout: HeldOut, position: Position, interrupted: list[int]
) -> None:
    total, every = config.batches, known(config.evaluate_every_episodes)
    if position.batches == 0:
        print(evaluate(run, parts, heldout, position), file=sys.stderr)
    saved_at, warned = time.monotonic(), False
    with Progress(config.estimator, total=config.whole_episodes, unit="episodes", start=position.episodes) as bar:
        while position.batches < total:
            began, before = time.monotonic(), position.episodes
            experience = collect(config, parts, position)
            sampled_s = experience.numbers.pop("rollout_s")
            numbers = experience.numbers | learn(config, parts, experience, position)
            position.batches += 1
            position.episodes += len(experience.completions)
            position.tokens += sum(map(len, experience.completions))
            took_s = time.monotonic() - began
            position.wall_s += took_s
            numbers |= {"rollout_frac": sampled_s / took_s, "episodes_per_s": len(experience.completions) / took_s}
            done = position.batches == total
            if position.batches % config.log_every_batches == 0 or done:
                log_batch(run, position, numbers)
            if not warned and (alarm := drift_alarm(numbers["sampler_drift"], parts.precision)):
                warned = True
                bar.say(alarm)
            bar.advance(
                position.episodes - before, note=f"score {numbers['score_mean']:.3f}, KL {numbers['kl_nats']:.2f}"
            )
            if before // every != position.episodes // every or done:
                bar.say(evaluate(run, parts, heldout, position))
            stopped = bool(heldout.stopped)
            if done or stopped or interrupted or time.monotonic() - saved_at > config.checkpoint_every_s:
                save(run, config, parts, asdict(position), opt_step=position.opt_step)
                saved_at = time.monotonic()
            if stopped:
                return
            if interrupted and not done:
                raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------------------ collecting


def collect(config: GRPOConfig, parts: Parts, position: Position) -> Experience:
    """Answers the next batch's queries, scores the responses, and looks at them once with policy and reference."""
    first_query = position.batches * config.queries_per_batch
    prompts = parts.prompts.of_episodes(config.seed, first_query, config.queries_per_batch)
    began = time.monotonic()
    written = respond(
        parts.actors.policy, prompts, parts.ending, samples=config.samples, max_new_tokens=parts.text.response_tokens,
        temperature=config.temperature, seed=config.seed,
        numbers=range(position.episodes, position.episodes + config.episodes_per_batch), slots=config.slots,
        precision=parts.precision,
    )  # fmt: skip
    rollout_s = time.monotonic() - began
    contexts = [prompt.query.fields for prompt in prompts for _ in range(config.samples)]
    scores_N = parts.reward.scores(written.scored, contexts, parts.text.decoded(written.scored))
    check_alike(position, scores_N, config.reward, teaches="none is better than the others")
    if config.unended == "score":
        scores_N = torch.where(torch.tensor(written.ended), scores_N, torch.tensor(config.unended_score))
    old_M, reference_M = look(config, parts, written.trained, position)
    lengths = [len(each.response) for each in written.trained]
    ratio_N = torch.stack([part.sum() for part in torch.split((old_M - reference_M).cpu(), lengths)])
    worth_N = scores_N - position.kl_coef * ratio_N if config.kl_in == "reward" else scores_N
    advantages_N = group_advantages(worth_N, config.samples, estimator=known(config.advantages))
    groups_GK = scores_N.view(-1, config.samples)
    numbers = batch_numbers(
        scores_N, lengths, written.ended, kl_nats=float(ratio_N.double().mean()), kl_coef=position.kl_coef,
        entropies_M=written.entropies_M, sampler_M=written.logprobs_M, trainer_M=old_M.cpu(),
    )  # fmt: skip
    numbers |= {
        "alike_queries_frac": float((groups_GK == groups_GK[:, :1]).all(dim=1).double().mean()),
        "rollout_s": rollout_s,
    }
    return Experience(written.trained, advantages_N, old_M, reference_M, numbers)


def look(
    config: GRPOConfig, parts: Parts, completions: Sequence[Completion], position: Position
) -> tuple[Tensor, Tensor]:
    """Old log-probabilities and the reference's, (M,), in the groups of the first pass over the batch.

    So the first update computes the same numbers again: its ratio is exactly 1.
    """
    lengths, actors = [len(each.response) for each in completions], parts.actors
    old_M, reference_M = (torch.empty(sum(lengths), device=actors.device) for _ in range(2))
    for which in _minibatches(config, position, 0):
        for group in _grouped(completions, which, config.tokens_at_once):
            rows = lay_out([completions[n] for n in group]).to(actors.device)
            places_M = places_of(lengths, group).to(actors.device)
            old_M[places_M] = actors.logprobs(actors.policy, rows)
            reference_M[places_M] = actors.reference_logprobs(rows)
    return old_M, reference_M


def _minibatches(config: GRPOConfig, position: Position, epoch: int) -> list[list[int]]:
    return minibatches(
        config.seed, position.batches, epoch, episodes=config.episodes_per_batch, count=config.minibatches
    )


def _grouped(completions: Sequence[Completion], which: Sequence[int], tokens_at_once: int) -> list[list[int]]:
    """These completions in groups of like length, for one forward pass each."""
    return [[which[n] for n in group] for group in batches([len(completions[n]) for n in which], tokens_at_once)]


# -------------------------------------------------------------------------------------------------------- learning


def learn(config: GRPOConfig, parts: Parts, experience: Experience, position: Position) -> dict[str, float]:
    """All updates of a batch. Returns their numbers, means over the updates where nothing else is said."""
    share = rate_share(position.batches, config.batches, schedule=config.schedule, warmup_batches=config.warmup_batches)
    rate, rows = config.learning_rate * share, list[dict[str, Tensor]]()
    for epoch in range(config.epochs):
        for which in _minibatches(config, position, epoch):
            row = gradients(config, parts, experience, which, position.kl_coef)
            row["grad_norm"], _ = parts.actors.clip(config.clip_norm)
            check_finite(row, position, config.learning_rate)
            parts.actors.update(learning_rate=rate, value_learning_rate=rate)
            position.opt_step += 1
            rows.append(row)
    return over_updates(rows) | {"learning_rate": rate}


def gradients(
    config: GRPOConfig, parts: Parts, experience: Experience, which: Sequence[int], kl_coef: float
) -> dict[str, Tensor]:
    """Leaves the gradient of one minibatch's loss in the policy, and returns the numbers of it."""
    actors, lengths = parts.actors, experience.lengths
    tokens = sum(lengths[n] for n in which)
    lengths_N = torch.tensor(lengths)
    weights_M = torch.zeros(sum(lengths))  # of the tokens of this minibatch's responses
    weights_M[places_of(lengths, which)] = token_weights(
        lengths_N[torch.tensor(which)], known(config.token_mean), limit=parts.text.response_tokens
    )
    weights_M = weights_M.to(actors.device)
    advantages_M = experience.advantages_N.repeat_interleave(lengths_N).to(actors.device)
    totals: dict[str, Tensor] = {}
    for group in _grouped(experience.completions, which, config.tokens_at_once):
        places_M = places_of(lengths, group).to(actors.device)
        new_M = actors.forward(lay_out([experience.completions[n] for n in group])).logprobs_M
        old_M = experience.old_M[places_M]
        policy_M = clipped_policy(new_M, old_M, advantages_M[places_M], cliprange=config.cliprange)
        kl_M = KL[config.kl_estimate](new_M, experience.reference_M[places_M])
        policy_loss, kl_loss = (weights_M[places_M] * policy_M).sum(), (weights_M[places_M] * kl_M).sum()
        loss = policy_loss + kl_coef * kl_loss if config.kl_in == "loss" else policy_loss
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            found = ratio_numbers(new_M - old_M, cliprange=config.cliprange, tokens=tokens)
        totals = added_up(totals, {"policy_loss": policy_loss, "kl_loss": kl_loss, **found})
    return totals


# ------------------------------------------------------------------------------------------------------- in between


def _describe(config: GRPOConfig, parts: Parts, *, start: int) -> None:
    shape, prompts = parts.actors.policy.config, parts.prompts
    rest = sum(prompts.left_out.values())
    lines = [
        f"policy     {config.policy}: {shape.n_params():,} parameters, context {shape.n_ctx}",
        f"reward     {parts.reward.name}" + f", {config.ensemble} of its ensemble" * (config.ensemble != "best"),
        f"prompts    {len(prompts.train):,} to train on, {len(prompts.heldout):,} held out"
        + (f"; {rest:,} left out ({', '.join(prompts.left_out)})" if rest else ""),
        f"method     {config.estimator}: advantages {config.advantages}, token mean {config.token_mean}, "
        f"KL in the {config.kl_in}, coefficient {config.kl_coef:g}",
        f"guard      {watched(config, len(parts.prompts.heldout))}",
        f"machine    {parts.actors.device}, {parts.precision}, {torch.get_num_threads()} threads",
        f"run        {config.out}" + (f", from episode {start:,}" if start else ""),
    ]
    print("\n".join(lines), file=sys.stderr)
