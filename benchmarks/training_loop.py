"""What the training loop costs beside its arithmetic: noise scale, guard, reading, checkpoints; and what slots cost.

    python benchmarks/training_loop.py [--updates 100] [--checkpoint gpt2-124m]

Work      updates of a 6-layer, 384-wide GPT-2, context 256, 16 sequences a batch in two micro-batches, on random
          tokens: the plain loop (forward, loss, backward, clip, fused AdamW, loss read back) against an update of
          `rein pretrain` with all that is on by default, and with --slots 8. From the same weights, in one process,
          taking turns, an update each.
Time      means over all updates after a warm-up, because every tenth one measures the noise; and their ratio.
Waiting   `data_wait_frac` of those updates: time spent waiting for text, over the time in updates.
Saving    how long a checkpoint of the named preset keeps training waiting, and how long it takes to be on the disk
          meanwhile.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from rein import checkpoint
from rein.bpe.trainer import train as train_bpe
from rein.distributed import Layout, World
from rein.models.gpt import GPT, GPTConfig, initial
from rein.models.machine import autocast, keep_freed_memory, resolve_precision
from rein.models.parallel import Replica
from rein.models.presets import preset
from rein.optim import decayed_and_not
from rein.text.order import WindowOrder
from rein.train.pretrain import Position, _optimizer, _save, _update
from rein.train.pretrain_config import PretrainConfig
from rein.train.reading import Reader
from rein.train.watch import Ramp, Watch

CPU = torch.device("cpu")
T, SEQUENCES, AT_ONCE = 256, 16, 8
WARM_UP = 5


class RandomTokens:
    """Stands for token shards: windows of a memory-mapped file of random ids."""

    def __init__(self, path: Path, n_vocab: int, count: int) -> None:
        tokens = np.random.default_rng(0).integers(0, n_vocab, count).astype(np.uint16)
        tokens.tofile(path)
        self._tokens = np.memmap(path, np.uint16, "r")
        self.order = WindowOrder(count, T, 0)

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        return np.stack([self._tokens[start : start + length] for start in starts]).astype(np.int64)


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--checkpoint", default="gpt2-124m", help="a preset; none: not measured")
    args = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {resolve_precision('auto', CPU)}")
    with tempfile.TemporaryDirectory() as folder:
        overhead(args, Path(folder))
        if args.checkpoint != "none":
            saving(args.checkpoint, Path(folder))


def overhead(args: argparse.Namespace, folder: Path) -> None:
    """The loops side by side."""
    shape = GPTConfig(args.vocab, T, 384, 6, 6)
    data = RandomTokens(folder / "tokens.bin", args.vocab, 4_000_000)
    loops = {"plain loop": plain(shape, data), "rein pretrain": ours(shape, data, folder, 0),
             "rein pretrain --slots 8": ours(shape, data, folder, 8)}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(WARM_UP + args.updates):
        for name, loop in loops.items():
            began = time.perf_counter()
            loop.update()
            if number >= WARM_UP:
                times[name].append(time.perf_counter() - began)
    base = statistics.fmean(times["plain loop"])
    print(f"\n{'':26}{'ms an update':>14}{'median':>9}{'to plain':>10}{'waiting for text':>18}")
    for name, loop in loops.items():
        mean, median = statistics.fmean(times[name]), statistics.median(times[name])
        waited = "" if loop.reader is None else f"{loop.reader.waited_s / (sum(times[name]) + 1e-9):.2%}"
        print(f"{name:26}{mean * 1e3:14.1f}{median * 1e3:9.1f}{mean / base:9.3f}x{waited:>18}")


def plain(shape: GPTConfig, data: RandomTokens) -> SimpleNamespace:
    """A training loop as short as it can be."""
    model = GPT(shape).initialise(0).train()
    options = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(decayed_and_not(model), fused=True, **options)
    precision = resolve_precision("auto", CPU)
    place = [0]

    def update() -> None:
        windows = torch.from_numpy(data.windows(data.order.starts(place[0], SEQUENCES), T + 1))
        place[0] += SEQUENCES
        loss = 0.0
        for part in torch.split(windows, AT_ONCE):
            with autocast(CPU, precision):
                part_loss = model.loss(part[:, :-1], part[:, 1:]) * (len(part) / SEQUENCES)
            part_loss.backward()
            loss += part_loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return SimpleNamespace(update=update, reader=None)


def ours(shape: GPTConfig, data: RandomTokens, folder: Path, slots: int) -> SimpleNamespace:
    """`_update` of rein pretrain, with its default settings."""
    config = PretrainConfig(data=folder, out=folder / "run", train_tokens=10**9, sequences_per_batch=SEQUENCES,
                            learning_rate=1e-4, slots=slots, spike_nats=None).settled(10**9)  # fmt: skip
    world = World(Layout(), CPU)
    replica = Replica(shape, world, lambda name, size: initial(shape, name, size, 0),
                      precision=resolve_precision("auto", CPU), slots=slots)  # fmt: skip
    optimizer = _optimizer(config, replica)
    reader = Reader(data, data.order, world, n_ctx=T, at_once=AT_ONCE, slots=slots, eot_id=None)
    watch = Watch(config, world, Ramp(SEQUENCES, SEQUENCES, 0, slots or 1), {})
    position = Position()
    made = [0]

    def update() -> None:
        _update(config, replica, optimizer, reader, position, watch, (False, False))
        made[0] += 1
        if made[0] == WARM_UP:
            reader.waited_s = 0.0

    return SimpleNamespace(update=update, reader=reader)


def saving(name: str, folder: Path) -> None:
    """A checkpoint of a whole preset: how long the loop stands still for it."""
    shape = preset(name).model
    config = PretrainConfig(data=folder, out=folder / "saved", preset=name).settled(10**9)
    (folder / "saved" / "checkpoints").mkdir(parents=True)
    replica = Replica(shape, World(Layout(), CPU), lambda name, size: initial(shape, name, size, 0))
    optimizer = _optimizer(config, replica)
    for held in replica.held:
        held.parameter.grad = torch.zeros_like(held.parameter)
    replica.update(optimizer)
    tokenizer = train_bpe(["some text to learn a small vocabulary from"], 260)
    watch = Watch(config, replica.world, Ramp(1, 1, 0, 1), {})
    print()
    for number in range(3):
        writer, position = checkpoint.Writer(), Position(opt_step=number + 1)
        began = time.perf_counter()
        _save(SimpleNamespace(), config, replica, optimizer, tokenizer, position, writer, watch)
        stood_still = time.perf_counter() - began
        writer.wait()
        total = time.perf_counter() - began
        size = sum(path.stat().st_size for path in (folder / "saved").rglob("*") if path.is_file())
        print(f"checkpoint of {name}: training stands still {stood_still:.2f} s, on the disk after {total:.1f} s"
              f" ({size / 1e9 / (number + 1 if number < 2 else 2):.2f} GB)")  # fmt: skip


if __name__ == "__main__":
    main()
