"""Pre-training: the language-model objective L1 on packed documents, from top to bottom.

    token shards ─ Reader → slots of windows → Replica: gradients over all processes → clip → Adam → checkpoint
                                               every so often: held-out loss, samples, report

Documents are packed into full windows with end-of-text between them and no mask across them (Brown 2020, App. B).
Everything is counted in tokens. A batch, its dropout and every schedule are functions of the seed and the number
of updates alone, so a run that is killed and started again ends with the same weights, to the last bit; with --slots
also on another number of processes. One process or many: the loop is the same, and models/parallel.py is where they
differ.
Source: Radford 2018 §3.1 and §4.1; Radford 2019 §2; Brown 2020 §2 and App. B.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.config import command_line, to_dict
from rein.distributed import World, fixed_sum, interruptible, launch, launched, lost_peers, start, stop
from rein.errors import UserError
from rein.mirrors import Mirrors
from rein.models.gpt import GPTConfig, initial
from rein.models.huggingface import Weights, model_type, read_config, write_model
from rein.models.machine import keep_freed_memory, peak_rss_bytes, resolve_device, resolve_precision
from rein.models.ops import site_seed
from rein.models.parallel import Fill, Replica
from rein.models.parallel import check as check_layout
from rein.models.presets import preset
from rein.progress import Progress
from rein.run import RunFolder
from rein.text.mixture import order_of
from rein.text.order import MixtureOrder
from rein.text.shards import Shards, read_manifest
from rein.train.heldout import Evaluation
from rein.train.pretrain_config import PretrainConfig, known
from rein.train.processes import run_folder
from rein.train.reading import Reader
from rein.train.watch import Ramp, Watch, granule, sequences_at_once


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights and optimiser."""

    opt_step: int = 0
    tokens: int = 0
    windows: int = 0  # windows read, so the next one's number
    wall_s: float = 0.0
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics
    watch: dict[str, Any] = field(default_factory=dict)  # train/watch.py


def pretrain_command(config: PretrainConfig) -> None:
    """Trains a GPT on the token shards of a corpus.

    The run folder gets checkpoints (Hugging Face model folders), metrics.jsonl, samples.jsonl and report.html.
    Ctrl-C saves and stops; the same command goes on from the last checkpoint, to the same weights, bit for bit,
    as if it had never stopped. `--config RUN/config.json --out NEW` trains it again.

    --parallel starts that many processes on this machine. On several, start torchrun on each:
    torchrun --nnodes 4 --nproc-per-node 8 … -m rein pretrain … --parallel dp=32, with --out where all see it.

    Examples
      rein pretrain --data data/pydocs --out runs/first
      rein pretrain --data data/pydocs --out runs/gpt2 --preset gpt2-124m --train-tokens 2e9
      rein pretrain --data data/pydocs --out runs/two --parallel dp=2 --slots 8
    """
    if config.layout.size > 1 and not launched():
        launch(config.layout, shlex.split(command_line("rein pretrain", config))[1:])
    pretrain(config)


def pretrain(config: PretrainConfig) -> Path:
    """Trains a GPT on the token shards of a corpus and returns the run folder. See `pretrain_command`.

    With a layout of several processes, every one of them calls this.
    """
    if launched() and not config.parallel:
        config = replace(config, parallel=f"dp={os.environ['WORLD_SIZE']}")
    train, heldout = Shards(config.data, "train"), Shards(config.data, "heldout")
    tokenizer = load_tokenizer(config.data)
    config = config.settled(train.n_tokens)
    shape = config.model(tokenizer.n_vocab)
    order = order_of(read_manifest(config.data), shape.n_ctx, config.seed)
    keep_freed_memory()
    world = start(config.layout, resolve_device(config.device))
    _use_threads(config, world)
    check_layout(shape, world)
    at_once = sequences_at_once(config, world.layout, shape.n_ctx)
    size = granule(config, world.layout, at_once)
    full = known(config.sequences_per_batch)
    batches = Ramp(known(config.ramp_from_sequences), full, known(config.ramp_tokens), size)
    eot_id = tokenizer.eot_id if config.mask_documents else None
    reader = Reader(train, order, world, n_ctx=shape.n_ctx, at_once=at_once, slots=config.slots, eot_id=eot_id)
    with run_folder(config.out, config, world) as run, interruptible() as interrupted, lost_peers(config.out):
        _train(config, world, run, interrupted, shape, reader, batches, heldout, tokenizer)
    stop()
    return config.out


def _train(
    config: PretrainConfig,
    world: World,
    run: RunFolder | None,
    interrupted: list[int],
    shape: GPTConfig,
    reader: Reader,
    batches: Ramp,
    heldout: Shards,
    tokenizer: Tokenizer,
) -> None:
    """The run, in every process; `run` is the first one's."""
    source = world.at_first(lambda: _source(run, config, shape))
    position = Position() if source is None else Position(**checkpoint.read_about(source)["position"])
    replica = Replica(
        shape,
        world,
        _fill(config, shape, source),
        precision=resolve_precision(config.precision, world.device),
        recompute=config.recompute,
        compiled=config.compile,
        slots=config.slots,
    )
    optimizer = _optimizer(config, replica)
    if source is not None:
        state = replica.optimizer_tensors(optimizer, copies=False)
        checkpoint.read_tensors(source / checkpoint.STATE, state, world.save_group)
        if run is not None:
            run.truncate_after(position.opt_step)
    watch = Watch(config, world, batches, position.watch)
    evaluation = Evaluation(config, replica, tokenizer, heldout)
    if run is not None:
        _describe(config, replica, reader, tokenizer, position)
    total = known(config.train_tokens)
    evaluate_every = config.evaluate_every_tokens or max(1, total // 10)
    if position.opt_step == 0:
        evaluation.run(run, opt_step=0, tokens=0, wall_s=0.0)
    saved_at, clock = time.monotonic(), _Clock(position.tokens)
    with (
        checkpoint.Writer() as writer,
        Mirrors(config.out, config.mirrors if run is not None else ()) as mirrors,
        Progress("training", total=total, unit="tokens", start=position.tokens, quiet=run is None) as bar,
    ):
        while position.tokens < total:
            before, began = position.tokens, time.monotonic()
            wishes = bool(interrupted), began - saved_at > config.checkpoint_every_s
            row = _update(config, replica, optimizer, reader, position, watch, wishes)
            if row.pop("stop"):
                raise watch.guard.error(_saved_steps(config))
            took_s = time.monotonic() - began
            clock.busy_s, position.wall_s = clock.busy_s + took_s, position.wall_s + took_s
            done, stopping, due = position.tokens >= total, row.pop("interrupted") > 0, row.pop("due") > 0
            if position.opt_step % config.log_every_updates == 0 or done:
                if run is not None:
                    run.log(**_row(position, row, watch, shape, clock, reader))
                clock = _Clock(position.tokens, reader.waited_s)
                position.losses.clear()
                mirrors.pump()
            bar.advance(position.tokens - before, note=f"loss {row['train_loss']:.3f}")
            if done or _crossed(before, position.tokens, evaluate_every):
                wall_s = position.wall_s
                bar.say(evaluation.run(run, opt_step=position.opt_step, tokens=position.tokens, wall_s=wall_s))
            if done or stopping or due:
                began = time.monotonic()
                position.watch = watch.state()
                _save(run, config, replica, optimizer, tokenizer, position, writer, watch)
                saved_at = time.monotonic()
                clock.saving_s += saved_at - began
            writer.check()
            if stopping and not done:
                writer.wait()
                raise KeyboardInterrupt
    world.wait()
    reader.close()


# ------------------------------------------------------------------------------------------------ one update


def _update(
    config: PretrainConfig,
    replica: Replica,
    optimizer: torch.optim.Optimizer,
    reader: Reader,
    position: Position,
    watch: Watch,
    wishes: tuple[bool, bool],
) -> dict[str, float]:
    """Reads one batch, adds up its gradients over all processes, and changes the weights.

    Returns the numbers of the update, and what the processes wish: to be interrupted, to save, or, before the weights
    are changed, to stop.
    """
    world, n_ctx = replica.world, replica.config.n_ctx
    sequences = watch.sequences(position.tokens)
    measured = watch.measures(position.opt_step)
    seed = site_seed(config.seed, position.opt_step) if replica.config.dropout else None
    following = watch.sequences(position.tokens + sequences * n_ctx)
    slots = reader.slots(position.windows, sequences, seed=seed, next_sequences=following, split=measured)
    with watch.examples(replica, sequences, measured) as totals:
        mine = replica.gradients(slots, measured=measured)
    everyones = world.gather((world.place("pp"), world.place("tp"), mine, wishes))
    parts = [gradients for pp, tp, gradients, _ in everyones if pp == tp == 0]
    loss = fixed_sum(part for gradients in parts for part in gradients.losses)
    norm = replica.grad_norm()
    wishes_of_all: dict[str, float] = {
        "interrupted": any(interrupted for *_, (interrupted, _) in everyones),
        "due": everyones[0][3][1],
        "stop": watch.guard.update(position.opt_step + 1, loss, norm) == "stop",
    }
    if wishes_of_all["stop"]:
        return wishes_of_all
    if measured:
        watch.take(parts, totals, norm, sequences)
    clip = known(config.clip_norm)
    if clip and norm > clip:
        replica.scale_gradients(clip / (norm + 1e-6))
    rate = _learning_rate(config, position.tokens, sequences * n_ctx)
    for group in optimizer.param_groups:
        group["lr"] = rate
    replica.update(optimizer)
    position.opt_step += 1
    position.tokens += sequences * n_ctx
    position.windows += sequences
    position.losses.append(loss)
    return {
        "train_loss": loss,
        "grad_norm": norm,
        "learning_rate": rate,
        "sequences_per_batch": sequences,
        **wishes_of_all,
    }


def _learning_rate(config: PretrainConfig, tokens: int, batch_tokens: int) -> float:
    """The rate of the next update: GPT-3's schedule at the tokens seen with it, GPT-1's at those before it."""
    peak, total, warmup = known(config.learning_rate), known(config.train_tokens), known(config.warmup_tokens)
    if config.schedule == "gpt1":
        return peak * optim.gpt1_cosine(tokens / total, warmup_frac=warmup / total)
    share = optim.warmup_cosine(
        tokens + batch_tokens,
        warmup_tokens=warmup,
        decay_tokens=known(config.decay_tokens),
        final_frac=known(config.final_lr_frac),
    )
    return peak * share


# ------------------------------------------------------------------------------------------------- the run


def _source(run: RunFolder | None, config: PretrainConfig, shape: GPTConfig) -> Path | None:
    """The checkpoint to start from: the run's last one, or another run's that it branches from.

    Raises   UserError when it is damaged, or of another model.
    """
    assert run is not None, "the first process has the run folder"
    if checkpoint.all_steps(run.path / "checkpoints"):
        folder = checkpoint.latest(run.path)
    else:
        if run.resumed:
            run.truncate_after(-1)
        if config.branch_from is None:
            return None
        folder = checkpoint.latest(config.branch_from)
    checkpoint.verify(folder)
    if not (folder / checkpoint.STATE).is_dir():
        raise UserError(f"{folder} has no training state to go on from.", "Give a checkpoint of `rein pretrain`.")
    saved = asdict(read_config(folder))
    other = [f"{name}: {saved[name]} → {value}" for name, value in asdict(shape).items() if saved[name] != value]
    if other:
        raise UserError(
            f"{folder} holds a model of other sizes than this run's settings give ({', '.join(other)}).",
            "Give it its own --preset and sizes and the corpus it was trained on, or choose another --out.",
        )
    reached = checkpoint.read_about(folder)["position"]["tokens"]
    if config.branch_from is not None and reached >= known(config.train_tokens):
        raise UserError(
            f"--train-tokens {config.train_tokens:,} is behind {folder}, which has seen {reached:,}.",
            "It counts from the beginning of the run that is branched from: raise it.",
        )
    return folder


def _fill(config: PretrainConfig, shape: GPTConfig, source: Path | None) -> Fill:
    """Where parameters come from: the seed, or a checkpoint."""
    if source is None:
        return lambda name, size: initial(shape, name, size, config.seed)
    weights = Weights(source, shape)
    return lambda name, size: weights(name, size).clone()  # what was read is a view of the file


def _optimizer(config: PretrainConfig, replica: Replica) -> torch.optim.Optimizer:
    groups = optim.decayed_and_not([(held.name, held.local) for held in replica.held])
    options: dict[str, Any] = {
        "lr": known(config.learning_rate),
        "betas": (known(config.adam_b1), known(config.adam_b2)),
        "eps": known(config.adam_eps),
        "weight_decay": known(config.weight_decay),
    }
    if config.optimizer == "gpt1":
        return optim.GPT1Adam(groups, **options)
    if config.slots:
        return optim.SteadyAdamW(groups, **options)
    return torch.optim.AdamW(groups, **options, fused=True)


def _save(
    run: RunFolder | None,
    config: PretrainConfig,
    replica: Replica,
    optimizer: torch.optim.Optimizer,
    tokenizer: Tokenizer,
    position: Position,
    writer: checkpoint.Writer,
    watch: Watch,
) -> None:
    """Copies what a checkpoint holds, and has a thread write it while training goes on."""
    writer.wait()
    whole = dict(replica.whole())
    state = replica.optimizer_tensors(optimizer, copies=True)
    about: dict[str, Any] = {
        "format": "rein-checkpoint-2",
        "made_by": "pretrain",
        "position": asdict(position),
        "config": to_dict(config),
        "model": asdict(replica.config),
        "tokenizer_sha256": tokenizer.sha256(),
        "parents": [] if config.branch_from is None else [str(config.branch_from)],
    }
    folder = config.out / "checkpoints"
    place = checkpoint.step_folder(folder, position.opt_step)
    group = replica.world.save_group

    def write(part: Path) -> None:
        if run is not None:
            write_model(part, replica.config, whole, tokenizer, kind=model_type(replica.config))
        checkpoint.write_tensors(part / checkpoint.STATE, state, group)

    def work() -> None:
        checkpoint.save(place, write, about, group)
        if run is not None:
            good = watch.guard.good_step(_saved_steps(config))
            checkpoint.prune(folder, config.keep_checkpoints, spare=good)

    writer.start(work)


def _saved_steps(config: PretrainConfig) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.all_steps(config.out / "checkpoints")]


@dataclass
class _Clock:
    """Since the last row of metrics."""

    tokens: int
    waited_s: float = 0.0  # for text, before
    busy_s: float = 0.0
    saving_s: float = 0.0


def _row(
    position: Position, row: dict[str, float], watch: Watch, shape: GPTConfig, clock: _Clock, reader: Reader
) -> dict[str, float]:
    rate = (position.tokens - clock.tokens) / clock.busy_s
    return {
        "opt_step": position.opt_step,
        "tokens": position.tokens,
        "wall_s": round(position.wall_s, 3),
        **row,
        "train_loss": sum(position.losses) / len(position.losses),
        "tokens_per_s": rate,
        "model_flops_per_s": rate * shape.train_flops_per_token(),
        "data_wait_frac": round((reader.waited_s - clock.waited_s) / clock.busy_s, 6),
        "checkpoint_wait_s": round(clock.saving_s, 3),
        **watch.row(),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


def _use_threads(config: PretrainConfig, world: World) -> None:
    """Each process its part of the cores. With slots one thread, whatever the layout: sums follow the threads."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif config.slots and world.device.type == "cpu":
        torch.set_num_threads(1)
    elif world.layout.size > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world.layout.size))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))


def _describe(
    config: PretrainConfig, replica: Replica, reader: Reader, tokenizer: Tokenizer, position: Position
) -> None:
    shape, world, total = replica.config, replica.world, known(config.train_tokens)
    order = reader.order
    epochs = total / (order.windows_per_epoch * shape.n_ctx)
    slots = f", {config.slots} slots" if config.slots else ""
    lines = [
        f"model      {shape.n_params():,} parameters: {shape.n_layer} layers, {shape.n_embd} wide, "
        f"{shape.n_head} heads, context {shape.n_ctx}, vocabulary {shape.n_vocab:,}",
        f"corpus     {config.data}: {reader.shards.n_tokens:,} tokens; {total:,} to train is {epochs:.2f} epochs",
        f"training   {config.sequences_per_batch} sequences a batch, rate {config.learning_rate:g}, "
        f"warm-up {config.warmup_tokens:,} tokens, {config.optimizer}",
        f"machine    {world.device}, {replica.precision}, {torch.get_num_threads()} threads, {world.layout}{slots}",
        f"run        {config.out}" + (f", from update {position.opt_step:,}" if position.opt_step else ""),
    ]
    if isinstance(order, MixtureOrder):
        seen = order.seen(total // shape.n_ctx)
        parts = [f"{source} {tokens:,} tokens, {epochs:.2f} epochs" for source, (tokens, epochs) in seen.items()]
        lines.insert(2, f"mixture    {'; '.join(parts)}")
    paper = preset(config.preset)
    if not config.preset.startswith("tiny") and tokenizer.n_vocab != paper.model.n_vocab:
        lines.append(
            f"note       {config.preset} had {paper.tokenizer.upper()}'s vocabulary of {paper.model.n_vocab:,}; "
            f"this corpus has {tokenizer.n_vocab:,}"
        )
    print("\n".join(lines), file=sys.stderr)
