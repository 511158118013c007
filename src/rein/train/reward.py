"""A reward model from what people preferred, from top to bottom.

    judgements ─ reward_data.py → Elements ─ GPT.states → head → scores → losses → clip → AdamW
      at the end: references to mean 0 → accuracy on dev (which is selected by) and test → the head's uncertainty → best

    loss = Σ_elements mean over its judgements of −log P(what was said | scores, temperature of the labeler) / elements
           + Σ_labelers w² / (2 prior_sd²) / elements of the training set

The elements of an update and its rate are functions of the seed and its number alone, so a run that is killed ends with
the same weights, to the bit. A sweep is a run for each learning rate and seed, which go on by themselves; the last
weights are kept, not the best of a run on the way: what is selected among are seeds and rates. Of several processes
(processes.py, models/parallel.py) each learns from, and scores, its share; dropout, where there is any, is another one.
Source   Stiennon 2020, section 3.4 and App. B.1; Ouyang 2022, section 3.5; Ziegler 2019, section 2.1.
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer
from rein.distributed import World, interruptible, lost_peers, stop
from rein.errors import UserError
from rein.evals.reward_quality import nll, right
from rein.evals.reward_report import write_page
from rein.feedback.policies import Policies
from rein.feedback.trust import People
from rein.models.fine_tuned import pretrained
from rein.models.gpt import GPT
from rein.models.machine import keep_freed_memory, peak_rss_bytes, resolve_precision
from rein.models.ops import site_seed
from rein.models.parallel import Replica
from rein.models.passes import add_up, clip
from rein.models.rollout import rollouts
from rein.models.rows import Completion
from rein.models.scalar import (
    Scalar,
    load_scalar_weights,
    scalar_from,
)  # fmt: skip
from rein.progress import Progress
from rein.report.page import write_report
from rein.run import RunFolder
from rein.train.processes import begin, everyones, launch_others, run_folder, share, turns
from rein.train.reward_config import RewardConfig
from rein.train.reward_data import RewardData, read_data
from rein.train.reward_files import QUALITY, keep, read_quality, say
from rein.train.reward_parts import (
    Position,
    Start,
    finish,
    head_of,
    normalise,
    save,
    scores_over_processes,
    state_of,
    whole,
)  # fmt: skip
from rein.train.reward_rows import Element, collate, element_losses, grouped, pairs_right, scores_of
from rein.train.rlhf_presets import PPO

EVALUATIONS = 10  # of a run, where nobody says how often
SAMPLE_TOKENS = 48  # of a sample to normalise on, where neither a flag nor the preset's PPO says how long a response is


def reward_command(config: RewardConfig) -> None:
    """Trains a reward model on what people preferred.

    RUN/best is the model, normalised: transformers loads it as GPT2ForSequenceClassification. RUN/quality.html says
    how accurate it is by batch and by policies, how well calibrated, and how much of it is the length of the texts.
    Prompts are held out whole: half of them select among seeds and learning rates, the other half is reported.
    Settings that are not given are the preset's. Ctrl-C saves and stops; the same command goes on. --parallel starts
    that many processes on this machine; on several, start torchrun on each, as for `rein pretrain`.

    Examples
      rein reward runs/sft --project summaries --out runs/reward
      rein reward runs/sft --data comparisons.jsonl --out runs/reward --learning-rates 1e-5 2e-5 4e-5 --seeds 3
      rein reward runs/sft --data ranked.jsonl --out runs/rm --preset instructgpt2022 --normalise candidates
      rein reward runs/gpt2 --data hh.jsonl.gz --format plain --too-long cut --normalise policy --out runs/hh
    """
    launch_others("rein reward", config)
    reward(config)


def reward(config: RewardConfig) -> Path:
    """Trains a reward model on what people preferred, and returns the run folder. See `reward_command`.

    With a layout of several processes, every one of them calls this.
    """
    config = config.settled()
    keep_freed_memory()
    world = begin(config)
    with lost_peers(config.out):
        start = _begin(config, world)
        cells = config.cells()
        if cells == [config]:
            _cell(config, start)
        else:
            with run_folder(config.out, config, world) as run:
                for cell in cells:
                    _cell(cell, start)
                if run is not None:
                    keep(config, cells)
    stop()
    if world.is_first:
        write_page(config.out, read_quality(config.out))
        say(config.out)
    return config.out


def _begin(config: RewardConfig, world: World) -> Start:
    policy, tokenizer = pretrained(config.policy, dropout=config.dropout)
    data = read_data(config, tokenizer, policy.config.n_ctx)
    for line in data.notes:
        if world.is_first:
            print(f"data       {line}", file=sys.stderr)
    digest = Policies({"policy": config.policy}).fingerprints()["policy"]
    references = data.references or _samples(config, policy, tokenizer, data, world)
    return Start(policy, tokenizer, data, digest, references, world)


def _samples(
    config: RewardConfig, policy: GPT, tokenizer: Tokenizer, data: RewardData, world: World
) -> list[Completion]:
    """One response of the policy to each query that it is to be normalised on, as the preset's PPO has it write them:
    its temperature, its length, past the end of text where that is fixed. None where there are no queries."""
    if not data.queries:
        return []
    paper = PPO[config.preset]
    longest = policy.config.n_ctx - max(map(len, data.queries))
    mine = share(len(data.queries), world)
    policy.to(world.device).eval()

    def written() -> list[Completion]:
        return rollouts(
            policy, [data.queries[n] for n in mine], numbers=list(mine), seed=config.seed,
            eot_id=None if paper.responses == "fixed" else tokenizer.eot_id, temperature=paper.temperature,
            max_new_tokens=min(config.response_tokens or paper.response_tokens or SAMPLE_TOKENS, longest),
            precision=resolve_precision(config.precision, world.device),
        ).completions if mine else []  # fmt: skip

    found = everyones(world, written)
    policy.to("cpu")
    return found


def _cell(config: RewardConfig, start: Start) -> None:
    """One learning rate and one seed."""
    world, data = start.world, start.data
    precision = resolve_precision(config.precision, world.device)
    total = (config.epochs or 1) * _updates_of_an_epoch(config, data.train)
    every = config.evaluate_every_updates or max(1, total // EVALUATIONS)
    with run_folder(config.out, config, world) as run, interruptible() as interrupted:
        net, people, position = _start(run, config, start)
        if world.layout.fsdp == 1:
            net.to(world.device)
        replica = Replica.of(net.model, world, precision=precision)
        net.to(world.device)
        people.to(world.device)
        optimizer = _optimizer(config, net, replica, people)
        if position.opt_step:
            state = state_of(net, replica, people, optimizer)
            checkpoint.read_tensors(checkpoint.latest(config.out) / checkpoint.STATE, state, world.save_group)
            if run is not None:
                run.truncate_after(position.opt_step)
        elif config.normalise_before:
            with whole(net, replica):
                normalise(net, config, start, precision)
        if world.at_first(lambda: (config.out / QUALITY).exists()):
            return
        if run is not None:
            print("\n".join(_said(config, net, data, precision, position, world)), file=sys.stderr)
        saved_at, logged, busy_s = time.monotonic(), position.judgements, 0.0
        with Progress("reward", total=total, unit="updates", start=position.opt_step, quiet=run is None) as bar:
            while position.opt_step < total:
                began = time.monotonic()
                row = _update(config, net, people, optimizer, data.train, position, total, replica)
                busy_s += time.monotonic() - began
                position.wall_s += time.monotonic() - began
                done = position.opt_step == total
                if position.opt_step % config.log_every_updates == 0 or done:
                    _log(run, position, row, (position.judgements - logged) / busy_s)
                    logged, busy_s = position.judgements, 0.0
                bar.advance(1, note=f"loss {row['loss']:.3f}")
                if position.opt_step % every == 0 or done:
                    with whole(net, replica):
                        bar.say(_evaluate(run, config, net, start, position, precision))
                wishes = world.gather((bool(interrupted), time.monotonic() - saved_at > config.checkpoint_every_s))
                stopping = any(one for one, _ in wishes)
                if done or stopping or wishes[0][1]:
                    folder = checkpoint.step_folder(config.out / "checkpoints", position.opt_step)
                    state = state_of(net, replica, people, optimizer)
                    with whole(net, replica, here=world.is_first):
                        save(folder, config, start, net, people, position, state=state)
                    if run is not None:
                        checkpoint.prune(config.out / "checkpoints", 1)
                    saved_at = time.monotonic()
                if stopping and not done:
                    raise KeyboardInterrupt
        with whole(net, replica):
            finish(run, config, start, net, people, position, precision)
        world.wait()  # until the first process has written it


# ------------------------------------------------------------------------------------------------------ one update


def _updates_of_an_epoch(config: RewardConfig, train: Sequence[Element]) -> int:
    return math.ceil(len(train) / min(config.prompts_per_batch or 1, len(train)))


def _batch(config: RewardConfig, train: Sequence[Element], opt_step: int) -> list[Element]:
    """The elements of an update: every one once in an epoch, in an order of the seed's; the last batch is the rest."""
    epoch, place = divmod(opt_step, _updates_of_an_epoch(config, train))
    order = np.random.default_rng([config.seed, epoch]).permutation(len(train))
    size = config.prompts_per_batch or 1
    return [train[number] for number in order[place * size : (place + 1) * size]]


def _update(
    config: RewardConfig,
    net: Scalar,
    people: People,
    optimizer: torch.optim.Optimizer,
    train: Sequence[Element],
    position: Position,
    total: int,
    replica: Replica,
) -> dict[str, float]:
    """Adds up the gradients of one batch's losses over all processes, and changes the weights. Returns its numbers."""
    some = _batch(config, train, position.opt_step)
    net.train()
    world, loss, n_right, pairs = replica.world, 0.0, 0.0, 0

    def pieces(which: Sequence[int]) -> list[list[int]]:
        return [[which[n] for n in part] for part in grouped([some[n] for n in which], config.tokens_at_once)]

    groups = turns(range(len(some)), pieces, world)
    for number, (places, counts) in enumerate(groups):
        # Over several processes, each drops what its own number says.
        seed = site_seed(config.seed, position.opt_step, number * world.layout.batch_ranks + world.batch_rank)
        net.model.seed_dropout(seed)
        replica.sync(number == len(groups) - 1)
        batch = collate([some[place] for place in places]).to(net.weight.device)
        scores_N = scores_of(net, batch, replica.precision)
        part = element_losses(scores_N, people, batch).sum() / len(some)
        (part if counts else 0 * part).backward()  # type: ignore[no-untyped-call]
        if counts:
            right_of_it, pairs_of_it = pairs_right(scores_N, batch)
            loss, n_right, pairs = loss + part.item(), n_right + right_of_it, pairs + pairs_of_it
    if people.w_L.requires_grad and world.is_first:
        (people.penalty() / len(train)).backward()  # type: ignore[no-untyped-call]
    add_up(world, [each for each in people.parameters() if each.requires_grad])
    loss, n_right, pairs = (sum(parts) for parts in zip(*world.gather((loss, n_right, pairs)), strict=True))
    position.right, position.pairs = position.right + n_right, position.pairs + int(pairs)
    norm = clip(world, replica, [net.weight, net.b], config.clip_norm or 0.0).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"Update {position.opt_step + 1} has loss {loss} and gradient norm {norm}. The weights were not changed "
            "by it, and every saved checkpoint is good.",
            f"Start again with lower --learning-rates (it is {config.learning_rates[0]:g}), or --precision fp32.",
        )
    share = share_of_peak(config, position.opt_step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    replica.update(optimizer)
    optimizer.zero_grad(set_to_none=True)
    position.opt_step += 1
    position.tokens += sum(len(one) for each in some for one in each.completions)
    position.judgements += sum(len(each.choices) for each in some)
    position.losses.append(loss)
    return {"loss": loss, "grad_norm": norm, "learning_rate": config.learning_rates[0] * share}


def share_of_peak(config: RewardConfig, opt_step: int, total: int) -> float:
    """The learning rate of an update as a share of its peak: from 1, or after a warm-up, down to final_frac."""
    final, warmup = config.final_frac or 0.0, config.warmup_frac or 0.0
    done = opt_step + (warmup > 0)  # so that no update has rate 0
    if config.schedule == "linear":
        return final + (1 - final) * optim.gpt1_linear(done / (total + (warmup > 0)), warmup_frac=warmup)
    return optim.warmup_cosine(done, warmup_tokens=warmup * total, decay_tokens=total, final_frac=final)


def _optimizer(config: RewardConfig, net: Scalar, replica: Replica, people: People) -> torch.optim.Optimizer:
    peak = config.learning_rates[0]
    learned_of_net = [*head_of(net), *((held.name, held.local) for held in replica.held)]
    groups = [{**group, "peak": peak} for group in optim.decayed_and_not(learned_of_net)]
    learned = [each for each in people.parameters() if each.requires_grad]
    if learned:
        groups.append({"params": learned, "weight_decay": 0.0, "peak": config.people_learning_rate})
    return torch.optim.AdamW(
        groups, lr=peak, betas=(config.adam_b1 or 0.0, config.adam_b2 or 0.0), eps=config.adam_eps or 1e-8,
        weight_decay=config.weight_decay or 0.0, fused=True,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ measuring, the end


def _evaluate(
    run: RunFolder | None, config: RewardConfig, net: Scalar, start: Start, position: Position, precision: str
) -> str:
    """Logs how good the model is on the dev half, and returns a line that says so."""
    dev = start.data.dev
    pairs = dev.described(scores_over_processes(config, net, dev.completions, precision, start.world).tolist())
    accuracy, loss = float(right(pairs.gap_P).mean()), float(nll(pairs.gap_P).mean())
    position.curve.append([position.judgements, accuracy])
    if run is not None:
        run.log(
            opt_step=position.opt_step, tokens=position.tokens, judgements=position.judgements,
            wall_s=round(position.wall_s, 3), heldout_reward_accuracy=accuracy, heldout_reward_loss=loss,
        )  # fmt: skip
        write_report(run.path)
    return f"after update {position.opt_step:,}: dev accuracy {accuracy:.4f}, loss {loss:.4f}, {len(pairs):,} pairs"


# ------------------------------------------------------------------------------------------------------- the run


def _start(run: RunFolder | None, config: RewardConfig, start: Start) -> tuple[Scalar, People, Position]:
    """The policy's trunk with a fresh head, or the run's last checkpoint with where it stood."""
    net = scalar_from(copy.deepcopy(start.policy), config.seed)
    people = start.data.people(config)
    if not start.world.at_first(lambda: bool(checkpoint.all_steps(config.out / "checkpoints"))):
        if run is not None and run.resumed:
            run.truncate_after(-1)
        return net, people, Position(data_sha256=start.data.sha256)
    folder = checkpoint.latest(config.out)
    start.world.at_first(lambda: checkpoint.verify(folder))
    about = checkpoint.read_about(folder)
    position = Position(**about["position"])
    if position.data_sha256 != start.data.sha256 or about["parents"] != [start.policy_sha256]:
        what = f"The model {config.policy} has" if about["parents"] != [start.policy_sha256] else "The judgements have"
        raise UserError(
            f"{what} changed since {config.out} began.", "Restore what it began from, or choose another --out."
        )
    load_scalar_weights(net, folder)
    with torch.no_grad():
        people.w_L.copy_(torch.tensor(about["people"]["w"]))
        people.tie.copy_(torch.tensor(about["people"]["tie"]))
    return net, people, position


def _log(run: RunFolder | None, position: Position, row: dict[str, float], rate: float) -> None:
    accuracy = {"reward_accuracy": position.right / position.pairs} if position.pairs else {}
    if run is not None:
        run.log(
            opt_step=position.opt_step, tokens=position.tokens, judgements=position.judgements,
            wall_s=round(position.wall_s, 3), reward_loss=statistics.fmean(position.losses), **accuracy,
            learning_rate=row["learning_rate"], grad_norm=row["grad_norm"], judgements_per_s=rate,
            peak_rss_bytes=peak_rss_bytes(),
        )  # fmt: skip
    position.losses.clear()
    position.right, position.pairs = 0.0, 0


def _said(
    config: RewardConfig, net: Scalar, data: RewardData, precision: str, position: Position, world: World
) -> list[str]:
    shape = net.model.config
    return [
        f"model      {config.policy}: {shape.n_layer} layers, {shape.n_embd} wide, context {shape.n_ctx}",
        f"loss       {len(data.train):,} elements, {len(data.lengths):,} pairs; ties {config.ties}, confidence "
        f"{config.confidence}, reliability {config.reliability}",
        f"machine    {net.weight.device}, {precision}, {torch.get_num_threads()} threads, {world.layout}",
        f"run        {config.out}, learning rate {config.learning_rates[0]:g}, seed {config.seed}"
        + f", from update {position.opt_step:,}" * bool(position.opt_step),
    ]
