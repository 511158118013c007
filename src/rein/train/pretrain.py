"""Pre-training: the language-model objective L1 on packed documents, from top to bottom.

    token shards ─ Order → tokens_BT, targets_BT → model.loss → gradients → clip → Adam → checkpoint
                                                      every so often: held-out loss, samples, report

Documents are packed into full windows with end-of-text between them and no mask across them (Brown 2020, App. B).
Everything is counted in tokens. A batch, its dropout and every schedule are functions of the seed and the number
of updates alone, so a run that is killed and started again ends with the same weights, to the last bit.
Source: Radford 2018 §3.1 and §4.1; Radford 2019 §2; Brown 2020 §2 and App. B.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rein import checkpoint, optim
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.config import setting, to_dict
from rein.errors import UserError
from rein.models.generate import generate
from rein.models.gpt import GPT, GPTConfig, preset
from rein.models.huggingface import load_weights, read_config, save_model
from rein.models.machine import autocast, keep_freed_memory, peak_rss_bytes, resolve_device, resolve_precision
from rein.progress import Progress, duration
from rein.report.page import write_report
from rein.run import RunFolder
from rein.text.mixture import order_of
from rein.text.order import MixtureOrder, Order
from rein.text.shards import Shards, read_manifest


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of `rein pretrain`."""

    data: Path = setting(help="corpus folder, from `rein text build`")
    out: Path = setting(help="run folder; the same command continues a run it holds")

    preset: str = setting("tiny", "size of the model: tiny, gpt1, gpt2-124m … gpt3-175b", group="model")
    n_layer: int | None = setting(None, "layers, instead of the preset's", group="model")
    n_embd: int | None = setting(None, "embedding width, instead of the preset's", group="model")
    n_head: int | None = setting(None, "attention heads, instead of the preset's", group="model")
    n_ctx: int | None = setting(None, "context, instead of the preset's", unit="tokens", group="model")
    band: int | None = setting(
        None, "keys a banded layer sees, instead of the preset's", unit="tokens", paper="not published", group="model"
    )
    dropout: float | None = setting(None, "dropout, instead of the preset's", paper="0.1 in GPT-1", group="model")

    train_tokens: int = setting(
        10_000_000, "how much to train", unit="tokens", paper="300e9 in GPT-3", group="optimisation"
    )
    sequences_per_batch: int = setting(
        16, "sequences of n_ctx tokens in a batch", paper="64 in GPT-1, 512 in GPT-2", group="optimisation"
    )
    ramp_tokens: int = setting(
        0, "tokens over which the batch grows linearly to its size", paper="4e9 to 12e9 in GPT-3", group="optimisation"
    )
    ramp_from_sequences: int = setting(
        1, "sequences in the first batch of a ramp", paper="16 (32k tokens) in GPT-3", group="optimisation"
    )
    optimizer: Literal["adamw", "gpt1"] = setting(
        "adamw", "torch's AdamW, or Adam as GPT-1's code has it", group="optimisation"
    )
    learning_rate: float = setting(6e-4, "peak", paper="2.5e-4 in GPT-1, 6e-4 in GPT-3 125M", group="optimisation")
    schedule: Literal["cosine", "gpt1"] = setting(
        "cosine", "GPT-3's: warm-up, cosine to a floor; or GPT-1's released form, to 0", group="optimisation"
    )
    warmup_tokens: int | None = setting(
        None, "linear warm-up; 2% of train_tokens if not given", paper="375e6 in GPT-3", group="optimisation"
    )
    decay_tokens: int | None = setting(
        None, "where the cosine ends; train_tokens if not given", paper="260e9 in GPT-3", group="optimisation"
    )
    final_lr_frac: float = setting(0.1, "the cosine's floor, of the peak", paper="0.1 in GPT-3", group="optimisation")
    adam_b1: float = setting(0.9, "decay of the mean gradient", paper="0.9", group="optimisation")
    adam_b2: float = setting(
        0.95, "decay of the mean squared gradient", paper="0.95 in GPT-3, 0.999 in GPT-1", group="optimisation"
    )
    adam_eps: float = setting(1e-8, "added to the root of the mean square", paper="1e-8", group="optimisation")
    weight_decay: float = setting(
        0.1, "on matrices and embeddings", paper="0.1 in GPT-3, 0.01 in GPT-1", group="optimisation"
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient; 0: never clip", paper="1.0", group="optimisation")
    seed: int = setting(0, "of the weights, the order of the windows, dropout and samples", group="optimisation")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16 (autocast), weights in fp32; auto: where it is faster", group="machine"
    )
    sequences_at_once: int | None = setting(
        None, "sequences in one forward pass, the rest accumulated; about 8,192 tokens if not given", group="machine"
    )

    evaluate_every_tokens: int | None = setting(
        None, "between evaluations; a tenth of train_tokens if not given", unit="tokens", group="watching"
    )
    heldout_tokens: int = setting(100_000, "held-out text read at an evaluation", unit="tokens", group="watching")
    sample_prompts: tuple[str, ...] = setting(
        ("The ", "Return the "), "what the model continues at an evaluation", group="watching"
    )
    sample_tokens: int = setting(64, "length of those samples", unit="tokens", group="watching")
    log_every_updates: int = setting(10, "updates in one row of metrics.jsonl", group="watching")
    checkpoint_every_s: float = setting(120.0, "between checkpoints", unit="seconds", group="watching")
    keep_checkpoints: int = setting(2, "how many checkpoints to keep", group="watching")

    def __post_init__(self) -> None:
        positive = ("train_tokens", "sequences_per_batch", "ramp_from_sequences", "log_every_updates",
                    "keep_checkpoints", "learning_rate", "heldout_tokens")  # fmt: skip
        for name in positive:
            if getattr(self, name) <= 0:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)}, but it must be above 0.", f"Raise {flag}.")
        if self.ramp_from_sequences > self.sequences_per_batch:
            raise UserError(
                f"--ramp-from-sequences {self.ramp_from_sequences} is above --sequences-per-batch "
                f"{self.sequences_per_batch}.",
                "A ramp grows: lower the first or raise the second.",
            )

    def model(self, n_vocab: int) -> GPTConfig:
        """The preset with the tokenizer's vocabulary and the sizes given here."""
        sizes = {name: getattr(self, name) for name in ("n_layer", "n_embd", "n_head", "n_ctx", "band", "dropout")}
        changes = {name: value for name, value in sizes.items() if value is not None}
        if {"n_embd", "n_head"} & changes.keys():
            changes["d_head"] = None
        return replace(preset(self.preset), n_vocab=n_vocab, **changes)


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights and optimiser."""

    opt_step: int = 0
    tokens: int = 0
    windows: int = 0  # windows read, so the next one's number
    wall_s: float = 0.0
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics


def pretrain(config: PretrainConfig) -> Path:
    """Trains a GPT on the token shards of a corpus and returns the run folder.

    The run folder gets checkpoints (Hugging Face model folders), metrics.jsonl, samples.jsonl and report.html.
    Ctrl-C saves and stops; the same command goes on from the last checkpoint, to the same weights, bit for bit,
    as if it had never stopped. `--config RUN/config.json --out NEW` trains it again.

    Examples
      rein pretrain --data data/pydocs --out runs/first
      rein pretrain --data data/pydocs --out runs/gpt2 --preset gpt2-124m --train-tokens 2e9 --sequences-per-batch 512
    """
    train, heldout = Shards(config.data, "train"), Shards(config.data, "heldout")
    tokenizer = load_tokenizer(config.data)
    keep_freed_memory()
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    model = GPT(config.model(tokenizer.n_vocab))
    order = order_of(read_manifest(config.data), model.config.n_ctx, config.seed)
    with RunFolder(config.out, config) as run, _interruptible() as interrupted:
        position = _start(run, config, model, device)
        optimizer = _optimizer(config, model)
        if position.opt_step:
            folder = checkpoint.latest(run.path)
            checkpoint.read_training_state(folder / checkpoint.STATE, model, optimizer)
            run.truncate_after(position.opt_step)
        evaluation = Evaluation(config, model, tokenizer, heldout, precision)
        _describe(config, model, train, order, device, precision, position)
        saved_at = time.monotonic()
        if position.opt_step == 0:
            evaluation.run(run, position)
        total = config.train_tokens
        with Progress("training", total=total, unit="tokens", start=position.tokens) as bar:
            began, began_tokens, busy_s = time.monotonic(), position.tokens, 0.0
            while position.tokens < total:
                before = position.tokens
                row = _update(config, model, optimizer, train, order, position, device, precision)
                busy_s += time.monotonic() - began
                position.wall_s += time.monotonic() - began
                done = position.tokens >= total
                if position.opt_step % config.log_every_updates == 0 or done:
                    rate = (position.tokens - began_tokens) / busy_s
                    _log(run, position, row, rate, model.config)
                    began_tokens, busy_s = position.tokens, 0.0
                bar.advance(position.tokens - before, note=f"loss {row['loss']:.3f}")
                if done or _crossed(before, position.tokens, config.evaluate_every_tokens or total // 10):
                    bar.say(evaluation.run(run, position))
                if done or interrupted or time.monotonic() - saved_at > config.checkpoint_every_s:
                    _save(run, config, model, optimizer, tokenizer, position)
                    saved_at = time.monotonic()
                if interrupted and not done:
                    raise KeyboardInterrupt
                began = time.monotonic()
    return config.out


# ------------------------------------------------------------------------------------------------ one update


def _update(
    config: PretrainConfig,
    model: GPT,
    optimizer: torch.optim.Optimizer,
    train: Shards,
    order: Order,
    position: Position,
    device: torch.device,
    precision: str,
) -> dict[str, float]:
    """Reads one batch, adds up its gradients, and changes the weights. Returns the numbers of the update."""
    sequences = optim.ramped_batch(
        position.tokens,
        start=config.ramp_from_sequences,
        full=config.sequences_per_batch,
        ramp_tokens=config.ramp_tokens,
    )
    T = model.config.n_ctx
    at_once = config.sequences_at_once or max(1, 8192 // T)
    starts_B = order.starts(position.windows, sequences)
    windows_BT = torch.from_numpy(train.windows(starts_B, T + 1)).to(device, non_blocking=True)
    torch.manual_seed(_dropout_seed(config.seed, position.opt_step))
    model.train()
    loss = 0.0
    for part_BT in torch.split(windows_BT, at_once):
        share = len(part_BT) / sequences
        with autocast(device, precision):
            part_loss = model.loss(part_BT[:, :-1], part_BT[:, 1:]) * share
        part_loss.backward()  # type: ignore[no-untyped-call]
        loss += part_loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf).item()
    _check_finite(config, position, loss, norm)
    rate = _learning_rate(config, position.tokens, sequences * T)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    position.opt_step += 1
    position.tokens += sequences * T
    position.windows += sequences
    position.losses.append(loss)
    return {"loss": loss, "grad_norm": norm, "learning_rate": rate, "sequences_per_batch": sequences}


def _dropout_seed(seed: int, opt_step: int) -> int:
    return int(np.random.SeedSequence([seed, opt_step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _learning_rate(config: PretrainConfig, tokens: int, batch_tokens: int) -> float:
    """The rate of the next update: GPT-3's schedule at the tokens seen with it, GPT-1's at those before it."""
    total = config.train_tokens
    warmup = config.warmup_tokens if config.warmup_tokens is not None else 0.02 * total
    if config.schedule == "gpt1":
        return config.learning_rate * optim.gpt1_cosine(tokens / total, warmup_frac=warmup / total)
    decay = config.decay_tokens if config.decay_tokens is not None else total
    share = optim.warmup_cosine(
        tokens + batch_tokens, warmup_tokens=warmup, decay_tokens=decay, final_frac=config.final_lr_frac
    )
    return config.learning_rate * share


def _check_finite(config: PretrainConfig, position: Position, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise UserError(
        f"Update {position.opt_step + 1} has loss {loss} and gradient norm {norm}, after {position.tokens:,} tokens. "
        "The weights were not changed by it, and every saved checkpoint is good.",
        f"Start again with a lower --learning-rate (it is {config.learning_rate}), a longer --warmup-tokens, "
        "or --precision fp32.",
    )


# ------------------------------------------------------------------------------------------------ evaluation


class Evaluation:
    """Held-out loss and samples: the same windows, prompts and random numbers at every evaluation."""

    def __init__(
        self, config: PretrainConfig, model: GPT, tokenizer: Tokenizer, heldout: Shards, precision: str
    ) -> None:
        T = model.config.n_ctx
        fitting = (heldout.n_tokens - 1) // T
        if fitting < 1:
            raise UserError(
                f"The held-out text has {heldout.n_tokens:,} tokens, but one window needs {T + 1:,}.",
                "Build the corpus with a larger --heldout-frac, or lower --n-ctx.",
            )
        count = min(max(1, config.heldout_tokens // T), fitting)
        starts = np.linspace(0, (fitting - 1) * T, count).astype(np.int64) // T * T
        self._windows_BT = torch.from_numpy(heldout.windows(starts, T + 1))
        self._bytes_V = torch.from_numpy(tokenizer.token_bytes_V())
        self._config, self._model, self._tokenizer, self._precision = config, model, tokenizer, precision

    def run(self, run: RunFolder, position: Position) -> str:
        """Appends one row of held-out metrics and the samples, rewrites the report; returns a line to show."""
        nats, n_bytes, n_tokens = self.heldout()
        loss, bits = nats / n_tokens, nats / math.log(2) / max(n_bytes, 1)
        run.log(
            opt_step=position.opt_step,
            tokens=position.tokens,
            wall_s=round(position.wall_s, 3),
            heldout_loss=loss,
            heldout_perplexity=math.exp(min(loss, 700)),
            heldout_bits_per_byte=bits,
        )
        for prompt, text in self.samples():
            run.sample(opt_step=position.opt_step, prompt=prompt, text=text)
        write_report(run.path)
        return (
            f"after {position.tokens:,} tokens ({duration(position.wall_s)}): held-out loss {loss:.4f} nats/token, "
            f"perplexity {math.exp(min(loss, 700)):.2f}, {bits:.4f} bits/byte"
        )

    @torch.no_grad()
    def heldout(self) -> tuple[float, int, int]:
        """Nats, UTF-8 bytes and tokens of the held-out windows' targets."""
        self._model.eval()
        device = self._model.wte.device
        nats = 0.0
        for part_BT in torch.split(self._windows_BT, max(1, 8192 // self._model.config.n_ctx)):
            with autocast(device, self._precision):
                losses_BT = self._model.token_losses(part_BT[:, :-1].to(device), part_BT[:, 1:].to(device))
            nats += losses_BT.double().sum().item()
        targets: Tensor = self._windows_BT[:, 1:]
        return nats, int(self._bytes_V[targets].sum()), targets.numel()

    def samples(self) -> list[tuple[str, str]]:
        """What the model makes of each of the configured prompts, as (prompt, continuation)."""
        prompts = self._config.sample_prompts
        room = self._model.config.n_ctx - 1
        ids = [[self._tokenizer.eot_id, *self._tokenizer.encode(prompt).tolist()][-room:] for prompt in prompts]
        if not ids:
            return []
        new_tokens = min(self._config.sample_tokens, self._model.config.n_ctx - max(map(len, ids)))
        answers = generate(
            self._model.eval(),
            ids,
            max_new_tokens=new_tokens,
            temperature=0.8,
            top_k=50,
            seed=self._config.seed,
            eot_id=self._tokenizer.eot_id,
        )
        return [(prompt, self._tokenizer.decode(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


# ------------------------------------------------------------------------------------------------- the run


def _start(run: RunFolder, config: PretrainConfig, model: GPT, device: torch.device) -> Position:
    """Fresh weights, or those of the run's last checkpoint with where it stood."""
    if not checkpoint.all_steps(run.path / "checkpoints"):
        if run.resumed:
            run.truncate_after(-1)
        model.initialise(config.seed).to(device)
        return Position()
    folder = checkpoint.latest(run.path)
    checkpoint.verify(folder)
    if read_config(folder) != model.config:
        raise UserError(
            f"{folder} holds a model of other sizes than this run's settings give.",
            "The corpus or its tokenizer was rebuilt since; choose another --out.",
        )
    load_weights(model, folder)
    model.to(device)
    return Position(**checkpoint.read_about(folder)["position"])


def _optimizer(config: PretrainConfig, model: GPT) -> torch.optim.Optimizer:
    groups = optim.decayed_and_not(model)
    betas = (config.adam_b1, config.adam_b2)
    if config.optimizer == "gpt1":
        return optim.GPT1Adam(
            groups, lr=config.learning_rate, betas=betas, eps=config.adam_eps, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=betas, eps=config.adam_eps, weight_decay=config.weight_decay, fused=True
    )


def _save(
    run: RunFolder,
    config: PretrainConfig,
    model: GPT,
    optimizer: torch.optim.Optimizer,
    tokenizer: Tokenizer,
    position: Position,
) -> None:
    def write(folder: Path) -> None:
        save_model(folder, model, tokenizer)
        checkpoint.write_training_state(folder / checkpoint.STATE, model, optimizer)

    about: dict[str, Any] = {
        "format": "rein-checkpoint-1",
        "made_by": "pretrain",
        "position": asdict(position),
        "config": to_dict(config),
        "model": asdict(model.config),
        "tokenizer_sha256": tokenizer.sha256(),
        "parents": [],
    }
    folder = run.path / "checkpoints"
    checkpoint.save(checkpoint.step_folder(folder, position.opt_step), write, about)
    checkpoint.prune(folder, config.keep_checkpoints)


def _log(run: RunFolder, position: Position, row: dict[str, float], rate: float, model: GPTConfig) -> None:
    run.log(
        opt_step=position.opt_step,
        tokens=position.tokens,
        wall_s=round(position.wall_s, 3),
        train_loss=sum(position.losses) / len(position.losses),
        learning_rate=row["learning_rate"],
        grad_norm=row["grad_norm"],
        sequences_per_batch=row["sequences_per_batch"],
        tokens_per_s=rate,
        model_flops_per_s=rate * model.train_flops_per_token(),
        peak_rss_bytes=peak_rss_bytes(),
    )
    position.losses.clear()


def _crossed(before: int, after: int, every: int) -> bool:
    return every > 0 and before // every != after // every


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Yields a list that the first Ctrl-C or SIGTERM fills, so that the update at hand is finished and saved.

    The second one stops at once.
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        print("\nFinishing this update and saving; once more stops at once.", file=sys.stderr)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:
        pass  # not in the main thread: there, signals are somebody else's
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _describe(
    config: PretrainConfig,
    model: GPT,
    train: Shards,
    order: Order,
    device: torch.device,
    precision: str,
    position: Position,
) -> None:
    shape = model.config
    epochs = config.train_tokens / (order.windows_per_epoch * shape.n_ctx)
    lines = [
        f"model      {shape.n_params():,} parameters: {shape.n_layer} layers, {shape.n_embd} wide, "
        f"{shape.n_head} heads, context {shape.n_ctx}, vocabulary {shape.n_vocab:,}",
        f"corpus     {config.data}: {train.n_tokens:,} tokens; {config.train_tokens:,} to train is {epochs:.2f} epochs",
        f"machine    {device}, {precision}, {torch.get_num_threads()} threads",
        f"run        {config.out}" + (f", from update {position.opt_step:,}" if position.opt_step else ""),
    ]
    if isinstance(order, MixtureOrder):
        seen = order.seen(config.train_tokens // shape.n_ctx)
        parts = [f"{source} {tokens:,} tokens, {epochs:.2f} epochs" for source, (tokens, epochs) in seen.items()]
        lines.insert(2, f"mixture    {'; '.join(parts)}")
    print("\n".join(lines), file=sys.stderr)
