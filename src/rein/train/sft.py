"""The supervised start: a pre-trained GPT learns to answer from demonstrations, from top to bottom.

    rows ─ demonstrations.py → tokens ─ batches, or packed rows → GPT → loss of the responses → clip → AdamW
                after each epoch: the held-out loss, samples, and their score by a reward model; the best is kept

    loss = −(1 / tokens of all responses of the batch) · Σ log π(token | query, tokens before)

With --ptx-data, windows of pre-training text are part of the batches, all of whose tokens are learned: as many as keep
them at --ptx-frac of all tokens learned so far. The start of InstructGPT's PPO is made so, with a tenth.

Each token counts alike, whatever piece of the batch it is computed in, packed or not. Batches, dropout and samples of
an update are functions of the seed and its number alone: a run that is killed ends with the same weights, to the bit.
Of several processes (processes.py, models/parallel.py) each learns from its share of a batch; dropout, where there is
any, is then another one.
Source   Stiennon 2020, App. B.1; Ouyang 2022, section 3.5, App. C.1, where the held-out loss is best after one epoch,
         and a reward model's score and people's preference after more, and App. C.3.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer
from rein.config import to_dict
from rein.distributed import World, interruptible, lost_peers, stop
from rein.errors import UserError
from rein.feedback.policies import Policies
from rein.models import fine_tuned, ops, rows
from rein.models.gpt import GPT
from rein.models.huggingface import Weights, end_of_text, save_model
from rein.models.machine import autocast, keep_freed_memory, peak_rss_bytes, resolve_precision
from rein.models.ops import site_seed
from rein.models.parallel import Replica
from rein.models.passes import clip, passed
from rein.models.residual_dropout import ResidualDropout
from rein.progress import Progress
from rein.report.page import write_report
from rein.run import RunFolder
from rein.text.prompts import format_of, within
from rein.train.demonstrations import Demonstration, Demonstrations, Lesson, groups, of_text, pad_note, read
from rein.train.pretraining_text import PretrainingText, fingerprint, pretraining_text
from rein.train.processes import added, begin, launch_others, run_folder, turns
from rein.train.sft_config import SFTConfig, known
from rein.train.sft_heldout import Judge, answer, judge_of

_TEXT_WINDOWS = 64  # of held-out text, that are measured on


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights and optimiser."""

    opt_step: int = 0
    tokens: int = 0  # of queries and responses trained on, padding not counted
    wall_s: float = 0.0
    best: float | None = None  # of what --select says
    data_sha256: str = ""  # of the demonstrations: others under the same name are another run
    parent: str = ""  # digest of the weights that it began from
    text_sha256: str = ""  # of --ptx-data
    learned_tokens: int = 0  # of demonstrations
    text_windows: int = 0  # of pre-training text, learned so far
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics


def sft_command(config: SFTConfig) -> None:
    """Teaches a model to answer as demonstrations do.

    RUN/best is what --select chooses among the epochs: the lowest held-out loss, or the highest score of samples. The
    loss is of the responses alone. Ctrl-C saves and stops; the same command goes on, to the same weights. The defaults
    are those of the paper that --preset names. --parallel starts that many processes on this machine; on several, start
    torchrun on each, as for `rein pretrain`.

    Examples
      rein sft runs/gpt --data docstrings.jsonl --format docstring --learning-rate 3e-4 --out runs/sft
      rein sft runs/gpt2 --data tldr.jsonl --query-tokens 512 --out runs/tldr
      rein sft runs/gpt --store labels.db --project written --format instruct --out runs/written
      rein sft runs/gpt --data tasks.jsonl --preset instructgpt2022 --reward runs/reward --samples 64 --out runs/sft
      rein sft runs/gpt --data tasks.jsonl --preset instructgpt2022_rlhf_init --ptx-data data/pydocs --out runs/init
    """
    launch_others("rein sft", config)
    sft(config)


def sft(config: SFTConfig) -> Path:
    """Teaches a model to answer as demonstrations do, and returns the run folder. See `sft_command`.

    With a layout of several processes, every one of them calls this.
    """
    config = config.settled()
    keep_freed_memory()
    world = begin(config)
    device, precision = world.device, resolve_precision(config.precision, world.device)
    model, tokenizer = fine_tuned.pretrained(config.checkpoint, ResidualDropout)
    assert isinstance(model, ResidualDropout), "it was asked for"
    if end_of_text(model.config, tokenizer) is None:
        raise UserError(
            f"{config.checkpoint} has no end-of-text token, so it cannot learn where a response ends.",
            "Start from a model that was pre-trained with one.",
        )
    model.set_dropout(known(config.residual_dropout))
    if world.layout.fsdp == 1:
        model.to(device)
    format = within(
        format_of(known(config.format), query_tokens=config.query_tokens, response_tokens=config.response_tokens),
        model.config.n_ctx,
    )
    data = read(config, format, tokenizer, n_ctx=model.config.n_ctx)
    judge = judge_of(config, format, tokenizer, data, model.config.n_ctx, device, precision)
    text = None
    if config.ptx_data is not None:
        text = pretraining_text(config.ptx_data, tokenizer, model.config, length=config.ptx_tokens, seed=config.seed)
    begun = Position(
        data_sha256=data.sha256(), parent=Policies({"": config.checkpoint}).fingerprints()[""],
        text_sha256="" if config.ptx_data is None else fingerprint(config.ptx_data),
    )  # fmt: skip
    total = known(config.epochs) * _per_epoch(config, data)
    with run_folder(config.out, config, world) as run, interruptible() as interrupted, lost_peers(config.out):
        replica = Replica.of(model, world, precision=precision)
        position = _start(run, config, replica, begun)
        optimizer = torch.optim.AdamW(
            optim.decayed_and_not([(held.name, held.local) for held in replica.held]), lr=known(config.learning_rate),
            eps=known(config.adam_eps), fused=True, betas=(known(config.adam_b1), known(config.adam_b2)),
            weight_decay=known(config.weight_decay),
        )  # fmt: skip
        if position.opt_step:
            state = replica.optimizer_tensors(optimizer, copies=False)
            checkpoint.read_tensors(checkpoint.latest(config.out) / checkpoint.STATE, state, world.save_group)
            if run is not None:
                run.truncate_after(position.opt_step)
        if run is not None:
            _describe(config, world, model, data, text, judge, precision, position)
        text_heldout = () if text is None else of_text(text.heldout(_TEXT_WINDOWS))
        saved_at, logged, busy_s = time.monotonic(), position.tokens, 0.0
        with Progress(
            "supervised start", total=total, unit="updates", start=position.opt_step, quiet=run is None
        ) as bar:
            if position.opt_step == 0:
                bar.say(_evaluate(run, config, replica, judge, data.heldout, text_heldout, position))
            while position.opt_step < total:
                began = time.monotonic()
                row = _update(config, replica, optimizer, data.train, text, position, total)
                busy_s += time.monotonic() - began
                position.wall_s += time.monotonic() - began
                evaluates = _evaluates(config, position.opt_step, _per_epoch(config, data))
                if position.opt_step % config.log_every_updates == 0 or evaluates:
                    if run is not None:
                        _log(run, position, row, (position.tokens - logged) / busy_s)
                    position.losses.clear()
                    logged, busy_s = position.tokens, 0.0
                bar.advance(1, note=f"loss {row['loss']:.3f}")
                if evaluates:
                    bar.say(_evaluate(run, config, replica, judge, data.heldout, text_heldout, position))
                wishes = world.gather((bool(interrupted), time.monotonic() - saved_at > config.checkpoint_every_s))
                stopping = any(one for one, _ in wishes)
                if evaluates or stopping or wishes[0][1]:
                    _save_run(config, replica, tokenizer, position, optimizer)
                    saved_at = time.monotonic()
                if stopping and position.opt_step < total:
                    raise KeyboardInterrupt
    stop()
    if world.is_first:
        scores = checkpoint.read_about(config.out / checkpoint.BEST)["scores"]
        said = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"{config.out / checkpoint.BEST}: {said}")
    return config.out


def _per_epoch(config: SFTConfig, data: Demonstrations) -> int:
    return math.ceil(len(data.train) / known(config.demonstrations_per_batch))


def _evaluates(config: SFTConfig, opt_step: int, per_epoch: int) -> bool:
    every = config.evaluate_every_updates
    return opt_step % per_epoch == 0 or bool(every and opt_step % every == 0)


# ------------------------------------------------------------------------------------------------ one update


def _update(
    config: SFTConfig,
    replica: Replica,
    optimizer: torch.optim.Optimizer,
    train: Sequence[Demonstration],
    text: PretrainingText | None,
    position: Position,
    total: int,
) -> dict[str, float]:
    """Adds up the gradients of one batch over all processes, and changes the weights. Returns the update's numbers."""
    size = known(config.demonstrations_per_batch)
    epoch, place = divmod(position.opt_step, math.ceil(len(train) / size))
    order = np.random.default_rng([config.seed, epoch]).permutation(len(train))
    batch: list[Lesson] = [train[number] for number in order[place * size : (place + 1) * size]]
    learned_tokens, windows = position.learned_tokens + sum(each.n_learned for each in batch), 0
    if text is not None:
        windows = windows_due(learned_tokens, text.length - 1, known(config.ptx_frac)) - position.text_windows
        batch += of_text(text.whole(position.text_windows, windows))
    n_learned = sum(each.n_learned for each in batch)
    model, world = replica.model, replica.world
    model.train()
    loss = torch.zeros((), device=world.device)
    groups = turns(range(len(batch)), _grouped(config, batch, model), world)
    for number, (group, counts) in enumerate(groups):
        # Over several processes, each drops what its own number says.
        place = 1 + number * world.layout.batch_ranks + world.batch_rank
        model.seed_dropout(site_seed(config.seed, position.opt_step, place))
        replica.sync(number == len(groups) - 1)
        part = loss_of(model, [batch[i] for i in group], replica.precision, pack=config.pack) / n_learned
        (part if counts else 0 * part).backward()  # type: ignore[no-untyped-call]
        loss += part.detach() * counts
    loss = added(world, loss)
    norm = clip(world, replica, (), known(config.clip_norm)).item()
    loss_ = loss.item()
    if not (math.isfinite(loss_) and math.isfinite(norm)):
        raise UserError(
            f"Update {position.opt_step + 1} has loss {loss_} and gradient norm {norm}. The weights were not changed "
            "by it, and every saved checkpoint is good.",
            f"Start again with a lower --learning-rate (it is {config.learning_rate}), or --precision fp32.",
        )
    rate = known(config.learning_rate) * optim.warmup_cosine(
        position.opt_step, warmup_tokens=known(config.warmup_frac) * total, decay_tokens=total,
        final_frac=known(config.final_frac),
    )  # fmt: skip
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    replica.update(optimizer)
    position.opt_step += 1
    position.learned_tokens = learned_tokens
    position.text_windows += windows
    position.tokens += sum(len(each.completion) for each in batch)
    position.losses.append(loss_)
    return {"loss": loss_, "grad_norm": norm, "learning_rate": rate}


def windows_due(learned_tokens: int, of_each: int, frac: float) -> int:
    """How many windows of text bring its share of all tokens that are learned nearest to `frac`.

    `learned_tokens` are those of demonstrations, `of_each` those of a window.

    Example  >>> windows_due(9_000, 500, 0.1), windows_due(9_000, 4_000, 0.1)
             (2, 0)
    """
    return round(frac / (1 - frac) * learned_tokens / of_each)


def _grouped(config: SFTConfig, some: Sequence[Lesson], model: GPT) -> Callable[[Sequence[int]], list[list[int]]]:
    """Makes groups of these, for one forward pass each."""

    def grouped(which: Sequence[int]) -> list[list[int]]:
        parts = groups([some[n] for n in which], n_ctx=model.config.n_ctx, at_once=config.tokens_at_once,
                       pack=config.pack)  # fmt: skip
        return [[which[n] for n in part] for part in parts]

    return grouped


def loss_of(model: GPT, some: Sequence[Lesson], precision: str, *, pack: bool = False) -> Tensor:
    """−Σ log π over all of their tokens that are learned: a sum, in float32."""
    device = ops.local(model.wte).device
    laid = rows.lay_out([each.completion for each in some], width=model.config.n_ctx if pack else None).to(device)
    learned_M = torch.tensor([one for each in some for one in each.learned], device=device)
    with autocast(device, precision):
        logprobs_M = passed(model, rows.logprobs, laid)
    return -torch.where(learned_M, logprobs_M, 0.0).sum()


# ------------------------------------------------------------------------------------------------ evaluation


@torch.no_grad()
def _evaluate(
    run: RunFolder | None,
    config: SFTConfig,
    replica: Replica,
    judge: Judge,
    heldout: Sequence[Demonstration],
    text_heldout: Sequence[Lesson],
    position: Position,
) -> str:
    """Measures the model, keeps some of its answers, and keeps it where it is the best so far."""
    replica.model.eval()
    losses = {"heldout_loss": _mean_loss(config, replica, heldout)}
    if text_heldout:
        losses["heldout_text_loss"] = _mean_loss(config, replica, text_heldout)
    world = replica.world
    with replica.gathered(here=world.is_first) as whole:
        said, position.best = world.at_first(lambda: _measure(run, config, whole, judge, losses, position, replica))
    return said


def _mean_loss(config: SFTConfig, replica: Replica, some: Sequence[Lesson]) -> float:
    """The mean over the tokens that are to be learned, by all processes together."""
    total = torch.zeros((), dtype=torch.float64)
    for group, counts in turns(range(len(some)), _grouped(config, some, replica.model), replica.world):
        part = loss_of(replica.model, [some[place] for place in group], replica.precision, pack=config.pack)
        total += part.double().cpu() * counts
    return added(replica.world, total).item() / sum(each.n_learned for each in some)


def _measure(
    run: RunFolder | None,
    config: SFTConfig,
    model: GPT,
    judge: Judge,
    losses: dict[str, float],
    position: Position,
    replica: Replica,
) -> tuple[str, float | None]:
    """What only the first process does of an evaluation. Returns what to show, and the best so far."""
    assert run is not None, "the first process has the run folder"
    scores = losses | answer(run, config, model, judge, opt_step=position.opt_step, precision=replica.precision)
    run.log(opt_step=position.opt_step, tokens=position.tokens, wall_s=round(position.wall_s, 3), **scores)
    said = f"after update {position.opt_step:,}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    goodness = scores["heldout_reward"] if config.select == "reward" else -scores["heldout_loss"]
    best = position.opt_step > 0 and (position.best is None or goodness > position.best)
    if best:
        position.best = goodness
        about = _about(config, model, judge.tokenizer, position, scores)
        checkpoint.save(run.path / checkpoint.BEST, lambda part: save_model(part, model, judge.tokenizer), about)
    write_report(run.path)
    return said + ", the best so far" * best, position.best


# ------------------------------------------------------------------------------------------------- the run


def _start(run: RunFolder | None, config: SFTConfig, replica: Replica, begun: Position) -> Position:
    """Where a new run begins; or the run's last checkpoint, with where it stood."""
    world = replica.world
    if not world.at_first(lambda: bool(checkpoint.all_steps(config.out / "checkpoints"))):
        if run is not None and run.resumed:
            run.truncate_after(-1)
        return begun
    folder = checkpoint.latest(config.out)
    world.at_first(lambda: checkpoint.verify(folder))
    position = Position(**checkpoint.read_about(folder)["position"])
    for what, now, then in (
        ("The demonstrations have", begun.data_sha256, position.data_sha256),
        (f"The model {config.checkpoint} has", begun.parent, position.parent),
        (f"The text of {config.ptx_data} has", begun.text_sha256, position.text_sha256),
    ):
        if now != then:
            raise UserError(f"{what} changed since {config.out} began.", "Restore it, or choose another --out.")
    weights = Weights(folder, replica.config)
    replica.load(weights)
    weights.check_nothing_left()
    return position


def _save_run(
    config: SFTConfig, replica: Replica, tokenizer: Tokenizer, position: Position, optimizer: torch.optim.Optimizer
) -> None:
    """A checkpoint to go on from, with the optimiser."""
    world, folder = replica.world, config.out / "checkpoints"

    def write(part: Path) -> None:
        with replica.gathered(here=world.is_first) as whole:
            if world.is_first:
                save_model(part, whole, tokenizer)
        state = replica.optimizer_tensors(optimizer, copies=False)
        checkpoint.write_tensors(part / checkpoint.STATE, state, world.save_group)

    about = _about(config, replica.model, tokenizer, position, {})
    checkpoint.save(checkpoint.step_folder(folder, position.opt_step), write, about, world.save_group)
    if world.is_first:
        checkpoint.prune(folder, config.keep_checkpoints)


def _about(
    config: SFTConfig, model: GPT, tokenizer: Tokenizer, position: Position, scores: dict[str, float]
) -> dict[str, Any]:
    """What rein.json says of the model."""
    return {
        "format": "rein-checkpoint-1",
        "made_by": "sft",
        "position": asdict(position),
        "config": to_dict(config),
        "model": asdict(model.config),
        "tokenizer_sha256": tokenizer.sha256(),
        "parents": [position.parent],
        "scores": scores,
    }


def _log(run: RunFolder, position: Position, row: dict[str, float], rate: float) -> None:
    run.log(
        opt_step=position.opt_step,
        tokens=position.tokens,
        wall_s=round(position.wall_s, 3),
        train_loss=statistics.fmean(position.losses),
        learning_rate=row["learning_rate"],
        grad_norm=row["grad_norm"],
        tokens_per_s=rate,
        peak_rss_bytes=peak_rss_bytes(),
    )


def _describe(
    config: SFTConfig, world: World, model: GPT, data: Demonstrations, text: PretrainingText | None, judge: Judge,
    precision: str, position: Position,
) -> None:  # fmt: skip
    shape, differs, pad = model.config, config.differs(), pad_note(config.checkpoint)
    mixed = "" if text is None else f"windows of {text.length} tokens, {known(config.ptx_frac):.0%} of what is learned"
    lines = [
        f"model      {config.checkpoint}: {shape.n_layer} layers, {shape.n_embd} wide, context {shape.n_ctx}",
        *([f"           {pad}"] if pad else []),
        f"preset     {config.preset}" + (f", but for {'; '.join(differs)}" if differs else ""),
        f"format     {judge.format.name}: queries of up to {judge.format.query_tokens:,} tokens, responses of "
        f"{judge.format.response_tokens:,}",
        *(f"data       {note}" for note in data.notes),
        *([f"text       {config.ptx_data}: {mixed}"] if mixed else []),
        f"machine    {world.device}, {precision}, {torch.get_num_threads()} threads, {world.layout}",
        f"run        {config.out}, seed {config.seed}"
        + f", from update {position.opt_step:,}" * bool(position.opt_step),
    ]
    print("\n".join(lines), file=sys.stderr)
