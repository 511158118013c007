"""Fine-tuning: a pre-trained GPT on a labelled task, from top to bottom.

    files ─ text/tasks.py → Examples ─ models/inputs.py → token sequences ─ GPT, Head → L3 → clip → Adam
                                      after each epoch: the held-out files' scores; the best epoch is kept

    L3 = mean over examples of −log P(y | x)  +  λ · mean over sequences of (Σ LM losses / number of targets)

The language-model loss runs over every order and every choice, wrong endings too. Examples, dropout and rate of an
update are functions of the seed and its number alone, so a run that is killed ends with the same weights, to the bit.
Source   Radford 2018 §3.2, §3.3, §4.1; openai/finetune-transformer-lm, train.py. Differs: its embedding dropout has
one mask for each GPU's part of a batch, ours for each group of sequences of like length; its n_ctx, and with it the
softmax, shrinks to the longest example. STS-B is squared error on scores brought to mean 0 and variance 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer
from rein.config import replace, to_dict
from rein.distributed import interruptible
from rein.errors import UserError
from rein.evals.scores import SCORES
from rein.models import fine_tuned
from rein.models.gpt import GPT
from rein.models.heads import Answer, FineTuned, dropout_mask, with_special_tokens
from rein.models.huggingface import read_config
from rein.models.inputs import Input, collate, pieces, read_labelled
from rein.models.machine import keep_freed_memory, peak_rss_bytes, resolve_device, resolve_precision
from rein.models.ops import site_seed
from rein.progress import Progress
from rein.report.page import write_report
from rein.run import RunFolder, write_atomically
from rein.text.tasks import read, task_of, with_labels
from rein.train.finetune_config import FinetuneConfig


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights and optimiser."""

    opt_step: int = 0
    tokens: int = 0  # of sequences trained on, padding not counted
    wall_s: float = 0.0
    best_score: float | None = None
    data_sha256: str = ""  # of the inputs: another file under the same name is another run
    task_losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics
    lm_losses: list[float] = field(default_factory=list)


def finetune(config: FinetuneConfig, model_class: type[GPT] = GPT) -> Path:
    """Fine-tunes a pre-trained model on a labelled task, and returns the run folder.

    RUN/best is the epoch with the best score on the first held-out file: a model folder with its head
    (head.safetensors) and predictions.jsonl. RUN/scores.json has every score with a 95% interval. Ctrl-C saves and
    stops; the same command goes on, to the same weights. The defaults are the paper's.

    Examples
      rein finetune runs/gpt1 --task rte --data rte/train.jsonl --heldout rte/val.jsonl --out runs/rte
      rein finetune runs/gpt1 --task cola --data train.tsv --heldout dev.tsv --out runs/cola --seeds 5
      rein finetune runs/gpt1 --task similarity --data a.csv --heldout b.csv --columns one two same --out runs/a
      rein finetune runs/rte --predict new.jsonl --out predictions.jsonl
    """
    if config.predict is not None:
        _predict_file(config)
        return config.checkpoint
    assert config.out is not None, "checked by the config"
    if config.seeds == 1:
        _one_seed(config, model_class)
        print("\n".join(f"{row['file']}: {_shown(row)}" for row in _final(config.out)))
        return config.out
    with RunFolder(config.out, config):
        for seed in range(config.seed, config.seed + config.seeds):
            _one_seed(replace(config, seed=seed, seeds=1, out=config.out / f"seed-{seed}"), model_class)
        _summarise(config.out, [config.out / f"seed-{config.seed + n}" for n in range(config.seeds)])
    return config.out


def _one_seed(config: FinetuneConfig, model_class: type[GPT]) -> None:
    assert config.out is not None, "checked by the config"
    keep_freed_memory()
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    pretrained, tokenizer = fine_tuned.pretrained(config.checkpoint, model_class, dropout=config.dropout)
    if not config.pretrained:
        pretrained.initialise(config.seed)
    answer, train, heldout, notes = _data(config, tokenizer, pretrained)
    per_epoch = max(1, len(train) // config.examples_per_batch)  # as in the code, the rest of an epoch is left out
    total = config.epochs * per_epoch
    with RunFolder(config.out, config) as run, interruptible() as interrupted:
        net, position = _start(run, config, pretrained, answer, _fingerprint(train, heldout))
        net.to(device)
        optimizer = optim.GPT1Adam(
            optim.decayed_and_not(net), lr=config.learning_rate, betas=(config.adam_b1, config.adam_b2),
            eps=config.adam_eps, weight_decay=config.weight_decay,
        )  # fmt: skip
        if position.opt_step:
            checkpoint.read_training_state(checkpoint.latest(run.path) / checkpoint.STATE, net, optimizer)
            run.truncate_after(position.opt_step)
        _describe(config, net, notes, precision, position)
        saved_at, logged, busy_s = time.monotonic(), position.tokens, 0.0
        with Progress("fine-tuning", total=total, unit="updates", start=position.opt_step) as bar:
            while position.opt_step < total:
                began = time.monotonic()
                row = _update(config, net, optimizer, train, position, total, precision)
                busy_s += time.monotonic() - began
                position.wall_s += time.monotonic() - began
                epoch_ends = position.opt_step % per_epoch == 0
                if position.opt_step % config.log_every_updates == 0 or epoch_ends:
                    _log(run, position, row, (position.tokens - logged) / busy_s)
                    logged, busy_s = position.tokens, 0.0
                bar.advance(1, note=f"loss {row['loss']:.3f}")
                if epoch_ends:
                    bar.say(_evaluate(run, config, net, tokenizer, heldout, position, precision))
                if epoch_ends or interrupted or time.monotonic() - saved_at > config.checkpoint_every_s:
                    folder = checkpoint.step_folder(run.path / "checkpoints", position.opt_step)
                    _save(folder, config, net, tokenizer, position, optimizer=optimizer)
                    checkpoint.prune(run.path / "checkpoints", 1)
                    saved_at = time.monotonic()
                if interrupted and position.opt_step < total:
                    raise KeyboardInterrupt
        scores = checkpoint.read_about(run.path / checkpoint.BEST)["scores"]
        write_atomically(run.path / "scores.json", json.dumps(scores, indent=2) + "\n")


# ------------------------------------------------------------------------------------------------ one update


def _update(
    config: FinetuneConfig,
    net: FineTuned,
    optimizer: torch.optim.Optimizer,
    train: Sequence[Input],
    position: Position,
    total: int,
    precision: str,
) -> dict[str, float]:
    """Adds up the gradients of one batch's L3, and changes the weights. Returns the numbers of the update."""
    size = min(config.examples_per_batch, len(train))
    epoch, place = divmod(position.opt_step, len(train) // size)
    order = np.random.default_rng([config.seed, epoch]).permutation(len(train))
    inputs = [train[number] for number in order[place * size : (place + 1) * size]]
    n_sequences = sum(len(each.sequences) for each in inputs)
    seed = partial(site_seed, config.seed, position.opt_step)  # of the head's mask, 0, and of each forward pass
    mask_BD = dropout_mask(size, net.model.config.n_embd, config.head_dropout, seed(0))
    device = net.head.weight.device
    net.train()
    task_loss = lm_loss = 0.0
    for number, group in enumerate(pieces(inputs, config.tokens_at_once)):
        batch = collate([inputs[i] for i in group], n_vocab=fine_tuned.n_plain(net)).to(device)
        labels_B = torch.tensor([inputs[i].label for i in group], dtype=torch.float32, device=device)
        kept_BD = None if mask_BD is None else mask_BD[group].to(device)
        net.model.seed_dropout(seed(1 + number))
        task_B, lm_S = net.losses(batch, labels_B, precision, kept_BD, lm=config.lm_coef > 0)
        part = task_B.sum() / size + config.lm_coef * lm_S.sum() / n_sequences
        part.backward()  # type: ignore[no-untyped-call]
        task_loss += task_B.sum().item() / size
        lm_loss += lm_S.sum().item() / n_sequences
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm or math.inf).item()
    loss = task_loss + config.lm_coef * lm_loss
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"Update {position.opt_step + 1} has loss {loss} and gradient norm {norm}. The weights were not changed "
            "by it, and every saved checkpoint is good.",
            f"Start again with a lower --learning-rate (it is {config.learning_rate}), or --precision fp32.",
        )
    rate = config.learning_rate * optim.gpt1_linear(position.opt_step / total, warmup_frac=config.warmup_frac)
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    position.opt_step += 1
    position.tokens += sum(len(sequence) for each in inputs for sequence in each.sequences)
    position.task_losses.append(task_loss)
    position.lm_losses.append(lm_loss)
    return {"loss": loss, "grad_norm": norm, "learning_rate": rate}


# ------------------------------------------------------------------------------------------------ evaluation


def _evaluate(
    run: RunFolder,
    config: FinetuneConfig,
    net: FineTuned,
    tokenizer: Tokenizer,
    heldout: dict[str, list[Input]],
    position: Position,
    precision: str,
) -> str:
    """Scores every held-out file; keeps the model where the first file's first score is the best so far."""
    scores: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
    losses = []
    for name, inputs in heldout.items():
        outputs_NK = fine_tuned.outputs(net, inputs, precision, config.tokens_at_once)
        labels_N = torch.tensor([each.label for each in inputs], dtype=torch.float64)
        predicted_N = net.answer.predicted(outputs_NK)
        losses.append(net.answer.losses(outputs_NK, labels_N).mean().item())
        found = [SCORES[score](predicted_N, labels_N.numpy()) for score in net.answer.task.scores]
        scores += [{"file": name, "opt_step": position.opt_step, **asdict(score)} for score in found]
        predictions += fine_tuned.described(outputs_NK, inputs, net.answer)
    value = scores[0]["value"]
    run.log(
        opt_step=position.opt_step,
        tokens=position.tokens,
        wall_s=round(position.wall_s, 3),
        heldout_task_loss=losses[0],
        heldout_score=value,
    )
    best = position.best_score is None or value > position.best_score
    if best:
        position.best_score = value
        _save(run.path / checkpoint.BEST, config, net, tokenizer, position, scores=scores,
              predictions="".join(map(_line, predictions)))  # fmt: skip
    write_report(run.path)
    shown = "; ".join(f"{row['file']} {_shown(row)}" for row in scores)
    return f"after update {position.opt_step:,}: {shown}{', the best so far' if best else ''}"


def _shown(row: dict[str, Any]) -> str:
    return f"{row['name']} {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def _final(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return rows


def _summarise(out: Path, runs: Sequence[Path]) -> None:
    """Writes and prints the median and the range of each score over the seeds."""
    rows = []
    for same in zip(*(_final(run) for run in runs), strict=True):
        values = [row["value"] for row in same]
        summary = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
        rows.append({"file": same[0]["file"], "name": same[0]["name"], "n": same[0]["n"], **summary, "values": values})
        print(f"{rows[-1]['file']}: {rows[-1]['name']} median {summary['median']:.4f} of {len(runs)} seeds, "
              f"from {summary['lowest']:.4f} to {summary['highest']:.4f}")  # fmt: skip
    write_atomically(out / "scores.json", json.dumps(rows, indent=2) + "\n")


# ------------------------------------------------------------------------------------------------- the run


def _data(
    config: FinetuneConfig, tokenizer: Tokenizer, model: GPT
) -> tuple[Answer, list[Input], dict[str, list[Input]], list[str]]:
    """What the outputs mean, the training inputs, the held-out ones by file, and lines that say what was read."""
    task = with_labels(task_of(config.task, config.columns), config.data)
    sizes = {"n_vocab": model.config.n_vocab, "n_ctx": model.config.n_ctx}
    inputs, notes = {}, []
    for path in (*config.data, *config.heldout):
        inputs[path], lines = read_labelled(task, path, tokenizer, **sizes)
        notes += lines
    train = [each for path in config.data for each in inputs[path]]
    labels = np.array([each.label for each in train], dtype=np.float64)
    if len(set(labels.tolist())) < 2:
        label = task.labels[int(labels[0])] if task.labels else f"{labels[0]:g}"
        raise UserError(
            f"All {len(labels):,} training examples have the label {label}.", "Give --data with at least two labels."
        )
    answer = Answer(task, float(labels.mean()), float(labels.std())) if task.numeric else Answer(task)
    return answer, train, {str(path): inputs[path] for path in config.heldout}, notes


def _fingerprint(train: Sequence[Input], heldout: dict[str, list[Input]]) -> str:
    digest = hashlib.sha256()
    for each in chain(train, *heldout.values()):
        digest.update(repr((each.sequences, each.label)).encode())
    return digest.hexdigest()


def _start(
    run: RunFolder, config: FinetuneConfig, pretrained: GPT, answer: Answer, data_sha256: str
) -> tuple[FineTuned, Position]:
    """The pre-trained model with fresh tokens and head, or the run's last checkpoint with where it stood."""
    gpt1 = pretrained.config.norm == "post"
    positions = config.lm_softmax == "positions" or (config.lm_softmax == "auto" and gpt1)
    net = FineTuned(with_special_tokens(pretrained, config.seed), answer, positions_in_softmax=positions)
    if not checkpoint.all_steps(run.path / "checkpoints"):
        if run.resumed:
            run.truncate_after(-1)
        net.head.initialise(config.seed)
        return net, Position(data_sha256=data_sha256)
    folder = checkpoint.latest(run.path)
    checkpoint.verify(folder)
    if replace(read_config(folder), dropout=net.model.config.dropout) != net.model.config:
        raise UserError(f"{folder} holds a model of other sizes than {config.checkpoint}.", "Choose another --out.")
    fine_tuned.load_into(net, folder)
    position = Position(**checkpoint.read_about(folder)["position"])
    if position.data_sha256 != data_sha256:
        raise UserError(
            f"The files of --data or --heldout have changed since {config.out} began.",
            "Restore them, or choose another --out.",
        )
    return net, position


def _save(
    folder: Path,
    config: FinetuneConfig,
    net: FineTuned,
    tokenizer: Tokenizer,
    position: Position,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    scores: Sequence[dict[str, Any]] = (),
    predictions: str = "",
) -> None:
    """A checkpoint to go on from, with the optimiser; or the best epoch, with its scores and predictions."""

    def write(part: Path) -> None:
        fine_tuned.save(part, net, tokenizer)
        if optimizer is not None:
            checkpoint.write_training_state(part / checkpoint.STATE, net, optimizer)
        else:
            (part / "predictions.jsonl").write_text(predictions, encoding="utf-8")

    about: dict[str, Any] = {
        "format": "rein-checkpoint-1",
        "made_by": "finetune",
        "position": asdict(position),
        "config": to_dict(config),
        **fine_tuned.about(net),
        "tokenizer_sha256": tokenizer.sha256(),
        "parents": [str(config.checkpoint)],
        "scores": list(scores),
    }
    checkpoint.save(folder, write, about)


def _log(run: RunFolder, position: Position, row: dict[str, float], rate: float) -> None:
    run.log(
        opt_step=position.opt_step,
        tokens=position.tokens,
        wall_s=round(position.wall_s, 3),
        task_loss=statistics.fmean(position.task_losses),
        lm_loss=statistics.fmean(position.lm_losses),
        learning_rate=row["learning_rate"],
        grad_norm=row["grad_norm"],
        tokens_per_s=rate,
        peak_rss_bytes=peak_rss_bytes(),
    )
    position.task_losses.clear()
    position.lm_losses.clear()


def _describe(config: FinetuneConfig, net: FineTuned, notes: list[str], precision: str, position: Position) -> None:
    shape = net.model.config
    start = config.checkpoint if config.pretrained else f"fresh weights in the shape of {config.checkpoint}"
    lines = [
        f"model      {start}: {shape.n_layer} layers, {shape.n_embd} wide, context {shape.n_ctx}",
        *(f"data       {note}" for note in notes),
        f"machine    {net.head.weight.device}, {precision}, {torch.get_num_threads()} threads",
        f"run        {config.out}, seed {config.seed}"
        + f", from update {position.opt_step:,}" * bool(position.opt_step),
    ]
    print("\n".join(lines), file=sys.stderr)


def _predict_file(config: FinetuneConfig) -> None:
    """Writes one JSON line for each row of the file, to --out or to standard output."""
    assert config.predict is not None, "checked by the caller"
    rows = read(fine_tuned.load(config.checkpoint)[0].answer.task, config.predict)
    for reason in rows.bad:
        print(f"left out: {reason}", file=sys.stderr)
    said = fine_tuned.predict(
        config.checkpoint,
        rows.examples,
        device=config.device,
        precision=config.precision,
        tokens_at_once=config.tokens_at_once,
    )
    lines = "".join(map(_line, said))
    if config.out is None:
        sys.stdout.write(lines)
    else:
        write_atomically(config.out, lines)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
