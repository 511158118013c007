"""Direct preference optimisation, from top to bottom: a policy learns from judgements, with no reward model between.

    judgements ─ comparisons.py → groups: candidates of a prompt, who beats whom, how surely
    reward of a candidate = kl_coef · (log π − log π_ref)      log π_ref: numbers, from a pass before the first update
    loss of a group = mean over its pairs of −log σ(reward_better − reward_worse)
    every so often: loss and accuracy on the dev judgements, the best policy kept; at the end: accuracy on the test half

The judgements of an update are a function of the seed and its number, so a run that is killed ends with the same
weights, to the bit. Dropout is off. The policy is the only model in memory, unless it is sampled from while it learns.
Source   Rafailov 2023; Azar 2023 (IPO). Differs: all pairs of a ranking are one element, each judgement weighs 1.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer
from rein.config import to_dict
from rein.distributed import interruptible
from rein.errors import UserError
from rein.evals.statistics import summarise
from rein.feedback.judged import Judged, from_file, from_store, parted, tidy
from rein.feedback.policies import Policies
from rein.feedback.trust import certainty, with_certainty
from rein.models.gpt import GPT
from rein.models.huggingface import load_model, load_weights, save_model
from rein.models.machine import keep_freed_memory, peak_rss_bytes, resolve_device, resolve_precision
from rein.progress import Progress
from rein.report.page import write_report
from rein.run import RunFolder, write_atomically
from rein.text.prompts import format_of, within
from rein.train.comparisons import Compared, Group, groups_of, log_ratios, pair_losses, pieces, sha256, with_reference
from rein.train.dpo_config import DPOConfig
from rein.train.dpo_heldout import Answers, measure
from rein.train.queries import note_format, taught_format
from rein.train.reward_rows import Encoder


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights and optimiser."""

    opt_step: int = 0
    tokens: int = 0  # of candidates trained on, padding not counted
    wall_s: float = 0.0
    start: float | None = None  # what --select looks at, before the first update: lower is better
    best: float | None = None  # of the evaluations since then
    inputs: dict[str, str] = field(default_factory=dict)  # digests of judgements and policy
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics


def dpo(config: DPOConfig) -> Path:
    """Trains a policy on judgements directly, by DPO or IPO, and returns the run folder.

    RUN/best is, of the policies after an update, the one with the lowest loss on the dev half of the held-out prompts
    (see --select), which are those that `rein reward` holds out;
    RUN/scores.json has its accuracy on the test half, with a 95% interval over prompts. Comparisons, rankings, ratings,
    best-of and edits are read, as `rein reward` reads them. Ctrl-C saves and stops; the same command goes on, to the
    same weights.

    Examples
      rein dpo runs/sft --project tldr --format tldr --kl-coef 0.5 --out runs/dpo
      rein dpo runs/sft --data hh.jsonl.gz --format chat --learning-rate 1e-5 --out runs/dpo
      rein dpo runs/sft --project ranked --loss ipo --ties half --sampled-prompts 64 --reward runs/reward
    """
    keep_freed_memory()
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    policy, tokenizer = load_model(config.policy)
    policy.to(device).eval()  # dropout off
    format = format_of(config.format, query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    taught = taught_format(config.policy)
    n_ctx = policy.config.n_ctx
    encoder = Encoder(within(format, n_ctx, taught=taught), tokenizer, n_ctx, config.too_long)
    note_format(config.policy, format)
    parts, notes = _data(config, encoder)
    inputs = {
        "judgements": sha256(group for part in parts.values() for group in part),
        **Policies({"policy": config.policy}).fingerprints(),
    }
    per_epoch = math.ceil(len(parts["train"]) / config.judgements_per_batch)
    total = config.epochs * per_epoch
    with RunFolder(config.out, config) as run, interruptible() as interrupted:
        known = {
            name: with_reference(policy, part, precision=precision, tokens_at_once=config.tokens_at_once)
            for name, part in parts.items()
        }
        answers = (
            Answers(config, policy, tokenizer, format, parts["dev"], precision)
            if config.sampled_prompts else None
        )  # fmt: skip
        position = _start(run, config, policy, inputs)
        optimizer = torch.optim.AdamW(
            optim.decayed_and_not(policy), lr=config.learning_rate, betas=(config.adam_b1, config.adam_b2),
            eps=config.adam_eps, weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip
        if position.opt_step:
            checkpoint.read_training_state(checkpoint.latest(run.path) / checkpoint.STATE, policy, optimizer)
            run.truncate_after(position.opt_step)
        _describe(config, policy, notes, precision, position, total)
        saved_at, logged, busy_s = time.monotonic(), position.tokens, 0.0
        with Progress("DPO", total=total, unit="updates", start=position.opt_step) as bar:
            if position.opt_step == 0:
                bar.say(_evaluate(run, config, policy, tokenizer, known["dev"], answers, position, precision))
            while position.opt_step < total:
                began = time.monotonic()
                row = _update(config, policy, optimizer, known["train"], position, total, precision)
                busy_s += time.monotonic() - began
                position.wall_s += time.monotonic() - began
                ends = position.opt_step % config.evaluate_every_updates == 0 or position.opt_step == total
                if position.opt_step % config.log_every_updates == 0 or ends:
                    _log(run, position, row, (position.tokens - logged) / busy_s)
                    logged, busy_s = position.tokens, 0.0
                bar.advance(1, note=f"loss {row['dpo_loss']:.3f}")
                if ends:
                    bar.say(_evaluate(run, config, policy, tokenizer, known["dev"], answers, position, precision))
                if ends or interrupted or time.monotonic() - saved_at > config.checkpoint_every_s:
                    folder = checkpoint.step_folder(run.path / "checkpoints", position.opt_step)
                    _save(folder, config, policy, tokenizer, position, optimizer)
                    checkpoint.prune(run.path / "checkpoints", 1)
                    saved_at = time.monotonic()
                if interrupted and position.opt_step < total:
                    raise KeyboardInterrupt
        load_weights(policy, run.path / checkpoint.BEST)
        found = measure(policy, known["test"], config, precision)
        score = summarise(found.right, clusters=found.topics)
        write_atomically(run.path / "scores.json", json.dumps({"accuracy": asdict(score)}, indent=2) + "\n")
    print(f"best on the dev half: {run.path / checkpoint.BEST}; accuracy on the test half {score}")
    if position.best is not None and position.start is not None and position.best >= position.start:
        print(f"By the {config.select} on the dev half, no evaluation was better than {config.policy} itself.")
    return config.out


# ------------------------------------------------------------------------------------------------ one update


def _update(
    config: DPOConfig,
    policy: GPT,
    optimizer: torch.optim.Optimizer,
    train: Compared,
    position: Position,
    total: int,
    precision: str,
) -> dict[str, float]:
    """Adds up the gradients of one batch, and changes the weights. Returns the numbers of the update."""
    size, n = config.judgements_per_batch, len(train.groups)
    epoch, place = divmod(position.opt_step, math.ceil(n / size))
    order = np.random.default_rng([config.seed, epoch]).permutation(n)[place * size : (place + 1) * size]
    batch = train.at(order.tolist())
    sums = torch.zeros(2, device=policy.wte.device)
    for piece in pieces(batch.groups, config.tokens_at_once):
        ratio_N, pairs = log_ratios(policy, batch.at(piece), precision)
        gap_P = config.kl_coef * (ratio_N[pairs.better_P] - ratio_N[pairs.worse_P])
        loss_P = pair_losses(
            ratio_N, pairs, loss=config.loss, kl_coef=config.kl_coef, label_smoothing=config.label_smoothing
        )
        loss = (loss_P * pairs.weight_P).sum() / len(batch.groups)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            sums += torch.stack([loss, (gap_P * pairs.weight_P).sum() / len(batch.groups)])
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.clip_norm or math.inf).item()
    loss_, margin = sums.tolist()
    if not (math.isfinite(loss_) and math.isfinite(norm)):
        raise UserError(
            f"Update {position.opt_step + 1} has loss {loss_} and gradient norm {norm}. The weights were not changed "
            "by it, and every saved checkpoint is good.",
            f"Start again with a lower --learning-rate (it is {config.learning_rate}), or --precision fp32.",
        )
    rate = config.learning_rate * config.rate_share(position.opt_step, total)
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    position.opt_step += 1
    position.tokens += sum(len(completion) for group in batch.groups for completion in group.completions)
    position.losses.append(loss_)
    return {"dpo_loss": loss_, "implied_margin": margin, "grad_norm": norm, "learning_rate": rate}


# ------------------------------------------------------------------------------------------------ evaluation


def _evaluate(
    run: RunFolder,
    config: DPOConfig,
    policy: GPT,
    tokenizer: Tokenizer,
    dev: Compared,
    answers: Answers | None,
    position: Position,
    precision: str,
) -> str:
    """Measures on the dev judgements; keeps the policy where --select says that it is the best so far."""
    found = measure(policy, dev, config, precision)
    accuracy = statistics.fmean(found.right)
    run.log(
        opt_step=position.opt_step, tokens=position.tokens, wall_s=round(position.wall_s, 3),
        heldout_dpo_loss=found.loss, heldout_implied_accuracy=accuracy, heldout_implied_margin=found.margin,
        better_log_ratio=found.better_log_ratio, worse_log_ratio=found.worse_log_ratio,
        **({} if answers is None else answers.run(run, policy, position.opt_step)),
    )  # fmt: skip
    value = {"loss": found.loss, "accuracy": -accuracy, "last": -float(position.opt_step)}[config.select]
    if position.opt_step == 0:
        position.start = value
    best = position.opt_step > 0 and (position.best is None or value < position.best)
    if best:
        position.best = value
        _save(run.path / checkpoint.BEST, config, policy, tokenizer, position)
    write_report(run.path)
    better = position.start is None or value < position.start
    kept = ", the best so far" if better else ", the best of the training, but no better than its start"
    return (
        f"after update {position.opt_step:,}: dev loss {found.loss:.4f}, accuracy {accuracy:.3f}, margin "
        f"{found.margin:.3f}{kept if best else ''}"
    )


# ------------------------------------------------------------------------------------------------- the run


def _data(config: DPOConfig, encoder: Encoder) -> tuple[dict[str, list[Group]], list[str]]:
    """Training, dev and test groups, and lines that say what was read and left out."""
    judged, notes = list[Judged](), list[str]()
    for path in config.data:
        some, bad = from_file(path, config.data_format)
        judged += some
        notes.append(f"{path}: {len(some):,} judgements" + f", {len(bad):,} lines that are none" * bool(bad))
    if config.project:
        some, _ = from_store(config.store, config.project, question=config.question, batches=config.batch)
        judged += some
        notes.append(f"{config.store}, {config.project}: {len(some):,} judgements")
    kept, left_out = tidy(judged, ties_count=config.ties == "half")
    if config.confidence != "ignore":
        kept = with_certainty(kept, certainty(kept, config.confidence))
    # The seed of `rein reward`, whatever --seed is: a reward model and a policy of one file hold out the same prompts.
    of_parts, how, more = parted(kept, heldout_frac=config.heldout_frac, seed=0)
    encoder.left_out += left_out + more
    parts = {}
    for name, some in of_parts.items():
        parts[str(name)] = groups_of(some, encoder, ties=config.ties)
        if not parts[name] or all(p == 0.5 for group in parts[name] for p in group.p):
            reasons = "; ".join(f"{why}: {count:,}" for why, count in encoder.left_out.items()) or "all are ties"
            raise UserError(
                f"None of the {len(some):,} {name} judgements can be learned from ({reasons}).",
                "Give others, another --format, other --query-tokens and --response-tokens, or --too-long cut.",
            )
    notes.append(f"{', '.join(f'{name} {len(some):,}' for name, some in parts.items())} ({how})")
    notes += [f"left out: {why}: {count:,}" for why, count in encoder.left_out.items()]
    return parts, notes


def _start(run: RunFolder, config: DPOConfig, policy: GPT, inputs: dict[str, str]) -> Position:
    """Where the run stands; the policy gets the weights of its last checkpoint, if it has one."""
    if not checkpoint.all_steps(run.path / "checkpoints"):
        if run.resumed:
            run.truncate_after(-1)
        return Position(inputs=inputs)
    folder = checkpoint.latest(run.path)
    checkpoint.verify(folder)
    position = Position(**checkpoint.read_about(folder)["position"])
    for name, digest in inputs.items():
        if position.inputs.get(name) != digest:
            raise UserError(
                f"The {name} {'has' if name == 'policy' else 'have'} changed since {config.out} began.",
                "Restore what was there, or choose another --out.",
            )
    load_weights(policy, folder)
    return position


def _save(
    folder: Path,
    config: DPOConfig,
    policy: GPT,
    tokenizer: Tokenizer,
    position: Position,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """A checkpoint to go on from, with the optimiser; or the best policy so far."""

    def write(part: Path) -> None:
        save_model(part, policy, tokenizer)
        if optimizer is not None:
            checkpoint.write_training_state(part / checkpoint.STATE, policy, optimizer)

    about: dict[str, Any] = {
        "format": "rein-checkpoint-1",
        "made_by": "dpo",
        "position": asdict(position),
        "config": to_dict(config),
        "model": asdict(policy.config),
        "tokenizer_sha256": tokenizer.sha256(),
        "parents": [position.inputs["policy"]],
    }
    checkpoint.save(folder, write, about)


def _log(run: RunFolder, position: Position, row: dict[str, float], rate: float) -> None:
    run.log(
        opt_step=position.opt_step,
        tokens=position.tokens,
        wall_s=round(position.wall_s, 3),
        **{**row, "dpo_loss": statistics.fmean(position.losses)},
        tokens_per_s=rate,
        peak_rss_bytes=peak_rss_bytes(),
    )
    position.losses.clear()


def _describe(config: DPOConfig, policy: GPT, notes: list[str], precision: str, position: Position, total: int) -> None:
    shape = policy.config
    lines = [
        f"policy     {config.policy}: {shape.n_layer} layers, {shape.n_embd} wide, context {shape.n_ctx}",
        *(f"data       {note}" for note in notes),
        f"machine    {policy.wte.device}, {precision}, {torch.get_num_threads()} threads",
        f"run        {config.out}, seed {config.seed}"
        + f", from update {position.opt_step:,}" * bool(position.opt_step),
    ]
    tenth = max(1, total // 10)
    if config.warmup_updates > tenth:
        lines.append(
            f"note       the learning rate rises for {config.warmup_updates:,} updates, and the run has {total:,}"
            + ": it never reaches --learning-rate" * (config.warmup_updates > total)
            + f"; --warmup-updates {tenth:,} is a tenth"
        )
    print("\n".join(lines), file=sys.stderr)
