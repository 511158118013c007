"""A reward model from what people preferred, from top to bottom.

    judgements ─ reward_data.py → Elements ─ GPT.states → head → scores → losses → clip → AdamW
      at the end: references to mean 0 → accuracy on dev (which is selected by) and test → the head's uncertainty → best

    loss = Σ_elements mean over its judgements of −log P(what was said | scores, temperature of the labeler) / elements
           + Σ_labelers w² / (2 prior_sd²) / elements of the training set

The elements of an update and its rate are functions of the seed and its number alone, so a run that is killed ends with
the same weights, to the bit. A sweep is a run for each learning rate and seed, which go on by themselves; the last
weights are kept, not the best of a run on the way: what is selected among are seeds and rates.
Source   Stiennon 2020, section 3.4 and App. B.1; Ouyang 2022, section 3.5; Ziegler 2019, section 2.1.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer
from rein.config import to_dict
from rein.distributed import interruptible
from rein.errors import UserError
from rein.evals.reward_quality import length_weight, nll, quality, right
from rein.evals.reward_report import write_page
from rein.feedback.policies import Policies
from rein.feedback.trust import People
from rein.models import laplace
from rein.models.fine_tuned import pretrained
from rein.models.gpt import GPT
from rein.models.machine import keep_freed_memory, peak_rss_bytes, resolve_device, resolve_precision
from rein.models.ops import site_seed
from rein.models.rollout import rollouts
from rein.models.rows import Completion
from rein.models.scalar import (
    BEST,
    Scalar,
    about_scalar,
    last_states,
    load_scalar_weights,
    save_scalar,
    scalar_from,
    score_all,
)  # fmt: skip
from rein.progress import Progress
from rein.report.page import write_report
from rein.run import RunFolder, write_atomically
from rein.train.reward_config import RewardConfig
from rein.train.reward_data import Measured, RewardData, read_data
from rein.train.reward_files import QUALITY, keep, read_quality, say
from rein.train.reward_rows import Element, collate, compared, element_losses, grouped, pairs_right, scores_of

EVALUATIONS = 10  # of a run, where nobody says how often
SAMPLE_TOKENS = 48  # of a sample to normalise on, where the format does not say how long a response is


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights, labelers and optimiser."""

    opt_step: int = 0
    tokens: int = 0  # of completions trained on, padding not counted
    judgements: int = 0
    wall_s: float = 0.0
    data_sha256: str = ""
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics
    right: float = 0.0  # pairs that were right before those updates, and how many there were
    pairs: int = 0
    curve: list[list[float]] = field(default_factory=list)  # (judgements, dev accuracy) of each evaluation


@dataclass(frozen=True)
class Start:
    """What every cell of a sweep begins from."""

    policy: GPT
    tokenizer: Tokenizer
    data: RewardData
    policy_sha256: str
    references: list[Completion]


def reward(config: RewardConfig) -> Path:
    """Trains a reward model on what people preferred, and returns the run folder.

    RUN/best is the model, normalised: transformers loads it as GPT2ForSequenceClassification. RUN/quality.html says
    how accurate it is by batch and by policies, how well calibrated, and how much of it is the length of the texts.
    Prompts are held out whole: half of them select among seeds and learning rates, the other half is reported.
    Settings that are not given are the preset's. Ctrl-C saves and stops; the same command goes on.

    Examples
      rein reward runs/sft --project summaries --out runs/reward
      rein reward runs/sft --data comparisons.jsonl --out runs/reward --learning-rates 1e-5 2e-5 4e-5 --seeds 3
      rein reward runs/sft --data ranked.jsonl --out runs/rm --preset instructgpt2022 --normalise candidates
      rein reward runs/gpt2 --data hh.jsonl.gz --format plain --too-long cut --normalise policy --out runs/hh
    """
    config = config.settled()
    keep_freed_memory()
    start = _begin(config)
    cells = config.cells()
    if cells == [config]:
        _cell(config, start)
    else:
        with RunFolder(config.out, config):
            for cell in cells:
                _cell(cell, start)
            keep(config, cells)
    write_page(config.out, read_quality(config.out))
    say(config.out)
    return config.out


def _begin(config: RewardConfig) -> Start:
    policy, tokenizer = pretrained(config.policy, dropout=config.dropout)
    data = read_data(config, tokenizer, policy.config.n_ctx)
    for line in data.notes:
        print(f"data       {line}", file=sys.stderr)
    digest = Policies({"policy": config.policy}).fingerprints()["policy"]
    return Start(policy, tokenizer, data, digest, data.references or _samples(config, policy, tokenizer, data))


def _samples(config: RewardConfig, policy: GPT, tokenizer: Tokenizer, data: RewardData) -> list[Completion]:
    """One response of the policy to each query that it is to be normalised on; none where there are none."""
    if not data.queries:
        return []
    device = resolve_device(config.device)
    longest = policy.config.n_ctx - max(map(len, data.queries))
    found = rollouts(
        policy.to(device).eval(), data.queries, max_new_tokens=min(config.response_tokens or SAMPLE_TOKENS, longest),
        seed=config.seed, eot_id=tokenizer.eot_id, precision=resolve_precision(config.precision, device),
    )  # fmt: skip
    policy.to("cpu")
    return found.completions


def _cell(config: RewardConfig, start: Start) -> None:
    """One learning rate and one seed."""
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    data = start.data
    total = (config.epochs or 1) * _updates_of_an_epoch(config, data.train)
    every = config.evaluate_every_updates or max(1, total // EVALUATIONS)
    with RunFolder(config.out, config) as run, interruptible() as interrupted:
        net, people, position = _start(run, config, start)
        net.to(device)
        people.to(device)
        optimizer = _optimizer(config, net, people)
        if position.opt_step:
            state = checkpoint.optimizer_tensors(_named(net, people), optimizer)
            checkpoint.read_tensors(checkpoint.latest(run.path) / checkpoint.STATE, state)
            run.truncate_after(position.opt_step)
        elif config.normalise_before:
            _normalise(net, config, start, precision)
        if (run.path / QUALITY).exists():
            return
        print("\n".join(_said(config, net, data, precision, position)), file=sys.stderr)
        saved_at, logged, busy_s = time.monotonic(), position.judgements, 0.0
        with Progress("reward", total=total, unit="updates", start=position.opt_step) as bar:
            while position.opt_step < total:
                began = time.monotonic()
                row = _update(config, net, people, optimizer, data.train, position, total, precision)
                busy_s += time.monotonic() - began
                position.wall_s += time.monotonic() - began
                done = position.opt_step == total
                if position.opt_step % config.log_every_updates == 0 or done:
                    _log(run, position, row, (position.judgements - logged) / busy_s)
                    logged, busy_s = position.judgements, 0.0
                bar.advance(1, note=f"loss {row['loss']:.3f}")
                if position.opt_step % every == 0 or done:
                    bar.say(_evaluate(run, config, net, data.dev, position, precision))
                if done or interrupted or time.monotonic() - saved_at > config.checkpoint_every_s:
                    folder = checkpoint.step_folder(run.path / "checkpoints", position.opt_step)
                    _save(folder, config, start, net, people, position, optimizer=optimizer)
                    checkpoint.prune(run.path / "checkpoints", 1)
                    saved_at = time.monotonic()
                if interrupted and not done:
                    raise KeyboardInterrupt
        _finish(run, config, start, net, people, position, precision)


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
    precision: str,
) -> dict[str, float]:
    """Adds up the gradients of one batch's losses, and changes the weights. Returns the numbers of the update."""
    some = _batch(config, train, position.opt_step)
    net.train()
    loss = 0.0
    for number, places in enumerate(grouped(some, config.tokens_at_once)):
        net.model.seed_dropout(site_seed(config.seed, position.opt_step, number))
        batch = collate([some[place] for place in places]).to(net.weight.device)
        scores_N = scores_of(net, batch, precision)
        part = element_losses(scores_N, people, batch).sum() / len(some)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
        right_of_it, pairs = pairs_right(scores_N, batch)
        position.right, position.pairs = position.right + right_of_it, position.pairs + pairs
    if people.w_L.requires_grad:
        (people.penalty() / len(train)).backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm or math.inf).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"Update {position.opt_step + 1} has loss {loss} and gradient norm {norm}. The weights were not changed "
            "by it, and every saved checkpoint is good.",
            f"Start again with lower --learning-rates (it is {config.learning_rates[0]:g}), or --precision fp32.",
        )
    share = share_of_peak(config, position.opt_step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    optimizer.step()
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


def _optimizer(config: RewardConfig, net: Scalar, people: People) -> torch.optim.Optimizer:
    peak = config.learning_rates[0]
    groups = [{**group, "peak": peak} for group in optim.decayed_and_not(net)]
    learned = [each for each in people.parameters() if each.requires_grad]
    if learned:
        groups.append({"params": learned, "weight_decay": 0.0, "peak": config.people_learning_rate})
    return torch.optim.AdamW(
        groups, lr=peak, betas=(config.adam_b1 or 0.0, config.adam_b2 or 0.0), eps=config.adam_eps or 1e-8,
        weight_decay=config.weight_decay or 0.0, fused=True,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ measuring, the end


def _scores(config: RewardConfig, net: Scalar, completions: Sequence[Completion], precision: str) -> Tensor:
    return score_all(net, completions, precision=precision, tokens_at_once=config.tokens_at_once)


def _evaluate(
    run: RunFolder, config: RewardConfig, net: Scalar, dev: Measured, position: Position, precision: str
) -> str:
    """Logs how good the model is on the dev half, and returns a line that says so."""
    pairs = dev.described(_scores(config, net, dev.completions, precision).tolist())
    accuracy, loss = float(right(pairs.gap_P).mean()), float(nll(pairs.gap_P).mean())
    position.curve.append([position.judgements, accuracy])
    run.log(
        opt_step=position.opt_step, tokens=position.tokens, judgements=position.judgements,
        wall_s=round(position.wall_s, 3), heldout_reward_accuracy=accuracy, heldout_reward_loss=loss,
    )  # fmt: skip
    write_report(run.path)
    return f"after update {position.opt_step:,}: dev accuracy {accuracy:.4f}, loss {loss:.4f}, {len(pairs):,} pairs"


def _normalise(net: Scalar, config: RewardConfig, start: Start, precision: str) -> dict[str, Any]:
    """Brings the references to mean 0, and to standard deviation 1 where the preset has it; says what was done."""
    if config.normalise == "none":
        return {"on": "none"}
    before_N = _scores(config, net, start.references, precision)
    net.normalise(before_N, spread=bool(config.normalise_std))
    net.normalise(_scores(config, net, start.references, precision))  # what rounding left
    after_N = _scores(config, net, start.references, precision).double()
    return {
        "on": config.normalise, "n": len(after_N), "mean_before": before_N.double().mean().item(),
        "std_before": before_N.double().std(correction=0).item(), "mean": after_N.mean().item(),
        "std": after_N.std(correction=0).item(),
    }  # fmt: skip


def _finish(
    run: RunFolder,
    config: RewardConfig,
    start: Start,
    net: Scalar,
    people: People,
    position: Position,
    precision: str,
) -> None:
    """Normalises, measures, and writes RUN/best and RUN/quality.json."""
    data = start.data
    normalised = _normalise(net, config, start, precision)
    completions, pairs = compared(data.train)
    x_ND = last_states(net, completions, precision=precision, tokens_at_once=config.tokens_at_once)
    sides = [torch.tensor([getattr(one, side) for one in pairs], dtype=torch.int64) for side in ("better", "worse")]
    layer = laplace.fit(net, x_ND[sides[0]], x_ND[sides[1]]) if pairs else None
    weight = length_weight(np.array(data.lengths))
    found: dict[str, Any] = {}
    for part, measured in (("dev", data.dev), ("test", data.test)):
        scores_N = _scores(config, net, measured.completions, precision)
        found[part] = quality(
            measured.described(scores_N.tolist()), weight=weight, agreement=data.agreement[0],
            agreement_topics=data.agreement[1],
        )  # fmt: skip
    found |= {
        "curve": position.curve,
        "train": {
            "elements": len(data.train),
            "judgements": sum(len(each.choices) for each in data.train),
            "pairs": len(data.lengths),
        },
        "normalised": normalised,
        "temperatures": people.temperatures() if config.reliability == "temperature" else {},
        "accuracies": data.accuracies,
        "labelers": dict(people.counts),
        "ties": {"policy": config.ties, **{name: value.item() for name, value in people.tie_terms().items()}},
        "learning_rate": config.learning_rates[0],
        "seed": config.seed,
        "notes": data.notes,
    }
    best = run.path / BEST
    _save(best, config, start, net, people, position, layer=layer, normalised=normalised)
    write_report(run.path)
    write_atomically(run.path / QUALITY, json.dumps(found, indent=2) + "\n")


# ------------------------------------------------------------------------------------------------------- the run


def _start(run: RunFolder, config: RewardConfig, start: Start) -> tuple[Scalar, People, Position]:
    """The policy's trunk with a fresh head, or the run's last checkpoint with where it stood."""
    net = scalar_from(copy.deepcopy(start.policy), config.seed)
    people = start.data.people(config)
    if not checkpoint.all_steps(run.path / "checkpoints"):
        if run.resumed:
            run.truncate_after(-1)
        return net, people, Position(data_sha256=start.data.sha256)
    folder = checkpoint.latest(run.path)
    checkpoint.verify(folder)
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


def _save(
    folder: Path,
    config: RewardConfig,
    start: Start,
    net: Scalar,
    people: People,
    position: Position,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    layer: laplace.LastLayer | None = None,
    normalised: dict[str, Any] | None = None,
) -> None:
    """A checkpoint to go on from, with the optimiser; or the finished model, with its uncertainty."""

    def write(part: Path) -> None:
        save_scalar(part, net, start.tokenizer)
        if optimizer is not None:
            state = checkpoint.optimizer_tensors(_named(net, people), optimizer)
            checkpoint.write_tensors(part / checkpoint.STATE, state)
        if layer is not None:
            laplace.save(part, layer)

    about: dict[str, Any] = {
        "format": "rein-checkpoint-1",
        "made_by": "reward",
        "position": asdict(position),
        "config": to_dict(config),
        "model": asdict(net.model.config),
        "scalar": about_scalar(net, **({} if normalised is None else {"normalised": normalised})),
        "people": {"names": people.names, "w": people.w_L.tolist(), "tie": people.tie.item()},
        "tokenizer_sha256": start.tokenizer.sha256(),
        "parents": [start.policy_sha256],
    }
    checkpoint.save(folder, write, about)


def _named(net: Scalar, people: People) -> list[tuple[str, Tensor]]:
    """All parameters that are learned, by name."""
    both = nn.ModuleDict({"net": net, "people": people})
    return [(name, each) for name, each in both.named_parameters() if each.requires_grad]


def _log(run: RunFolder, position: Position, row: dict[str, float], rate: float) -> None:
    accuracy = {"reward_accuracy": position.right / position.pairs} if position.pairs else {}
    run.log(
        opt_step=position.opt_step, tokens=position.tokens, judgements=position.judgements,
        wall_s=round(position.wall_s, 3), reward_loss=statistics.fmean(position.losses), **accuracy,
        learning_rate=row["learning_rate"], grad_norm=row["grad_norm"], judgements_per_s=rate,
        peak_rss_bytes=peak_rss_bytes(),
    )  # fmt: skip
    position.losses.clear()
    position.right, position.pairs = 0.0, 0


def _said(config: RewardConfig, net: Scalar, data: RewardData, precision: str, position: Position) -> list[str]:
    shape = net.model.config
    return [
        f"model      {config.policy}: {shape.n_layer} layers, {shape.n_embd} wide, context {shape.n_ctx}",
        f"loss       {len(data.train):,} elements, {len(data.lengths):,} pairs; ties {config.ties}, confidence "
        f"{config.confidence}, reliability {config.reliability}",
        f"machine    {net.weight.device}, {precision}, {torch.get_num_threads()} threads",
        f"run        {config.out}, learning rate {config.learning_rates[0]:g}, seed {config.seed}"
        + f", from update {position.opt_step:,}" * bool(position.opt_step),
    ]
