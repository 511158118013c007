"""How well `rein plan` foretells memory: its numbers against processes that train, on this CPU.

    python benchmarks/plan_memory.py                        one process: sizes, batches, precisions, recomputation
    python benchmarks/plan_memory.py --layout fsdp=2 tp=2   the same spread over processes, started by torchrun
    python benchmarks/plan_memory.py --quick                the first rows of it

Work      three updates as `rein pretrain` makes them (models/parallel.py): micro-batches forward and backward, norm,
          clipping, AdamW. Each row runs in processes of its own, one thread each; of several the largest counts.
Measures  tensors: the most that PyTorch's allocator had handed out at one moment, from its profiler; of one process
          alone, since the profiler does not see what threads of communication free.
          returned: the peak of resident memory less what it was before the model, where the C library gives freed
          memory back at once (MALLOC_MMAP_THRESHOLD_).
          kept: the same as `rein pretrain` runs, which has the C library keep freed memory (machine.keep_freed_memory).
Against   the plan's tensors, without the allocator's margin and without a checkpoint's copies, of which none is made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TINY = {"n_vocab": 2048, "n_ctx": 256, "n_embd": 256, "n_head": 4, "n_layer": 4}
# Changes of the tiny model; precision, sequences at once, micro-batches in each process, recomputation.
ROWS: list[tuple[dict[str, Any], str, int, int, bool]] = [
    ({}, "fp32", 8, 1, False),
    ({}, "bf16", 8, 1, False),
    ({}, "fp32", 4, 2, False),
    ({}, "bf16", 4, 2, False),
    ({}, "fp32", 16, 1, True),
    ({}, "bf16", 8, 2, True),
    ({"n_embd": 512, "n_head": 8}, "fp32", 2, 2, False),
    ({"n_embd": 512, "n_head": 8}, "bf16", 2, 2, False),
    ({"n_vocab": 50257, "n_layer": 2}, "fp32", 2, 1, False),
    ({"n_vocab": 50257, "n_layer": 2}, "bf16", 2, 2, False),
    ({"n_ctx": 1024, "attention": "banded", "band": 128}, "fp32", 2, 1, False),
    ({"n_ctx": 1024, "attention": "banded", "band": 128}, "bf16", 2, 2, False),
    ({"norm": "post"}, "fp32", 8, 1, False),
    ({"norm": "post", "dropout": 0.1}, "bf16", 8, 2, False),
    ({"dropout": 0.1}, "fp32", 8, 1, False),
]


def main() -> None:
    """Prints a row for each, and the largest errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", nargs="*", default=[""], help="as rein pretrain's --parallel, one or several")
    parser.add_argument("--quick", action="store_true", help="six rows")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=("tensors", "memory"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(json.loads(options.worker), options.measure)
        return
    from rein.distributed import parse_layout

    head = f"{'layout':12}{'model':34}{'':6}{'at once':>8}{'plan MB':>9}"
    print(head + "".join(f"{kind:>9}{'':8}" for kind in ("tensors", "returned", "kept")))
    errors: dict[str, list[float]] = {"tensors": [], "returned": [], "kept": []}
    for layout in options.layout:
        for changes, precision, at_once, parts, recompute in ROWS[:6] if options.quick else ROWS:
            if parts < parse_layout(layout).pp:
                continue  # a pipeline has no fewer micro-batches than stages
            row = {"model": TINY | changes, "layout": layout, "precision": precision, "at_once": at_once,
                   "parts": parts, "recompute": recompute}  # fmt: skip
            planned = plan(row)
            found = {kind: None if layout and kind == "tensors" else measure(row, kind) for kind in errors}
            what = ", ".join(f"{key} {value}" for key, value in changes.items()) or "tiny"
            cells = ""
            for kind, value in found.items():
                if value is None:
                    cells += f"{'':17}"
                else:
                    errors[kind].append(planned / value - 1)
                    cells += f"{value / 1e6:9.1f} {planned / value - 1:+7.1%}"
            again = " again" if recompute else ""
            batch = f"{at_once} x {parts}"
            print(
                f"{layout or 'one':12}{what[:33]:34}{precision:6}{batch:>8}{planned / 1e6:9.1f}{cells}{again}",
                flush=True,
            )
    for kind, values in errors.items():
        if values:
            print(f"{kind:9} plan / measured - 1: from {min(values):+.1%} to {max(values):+.1%}")


def plan(row: dict[str, Any]) -> int:
    """What `rein plan` says the tensors take."""
    from rein.distributed import parse_layout
    from rein.models.gpt import GPTConfig
    from rein.models.plan import Machine, Way, Work, memory

    layout = parse_layout(row["layout"])
    way = Way(layout, row["at_once"], row["parts"], row["recompute"])
    sequences = row["at_once"] * row["parts"] * layout.batch_ranks
    cpu = Machine("cpu", 0, 1.0, 1.0, reserved_bytes=0, margin_frac=0.0, is_cpu=True)
    return memory(Work(GPTConfig(**row["model"]), sequences, row["precision"]), way, cpu).tensors


def measure(row: dict[str, Any], kind: str) -> int:
    """The same of processes that do it: the largest one's bytes."""
    from rein.distributed import parse_layout

    processes = parse_layout(row["layout"]).size
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    if kind == "returned":
        env |= {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    with tempfile.TemporaryDirectory() as folder:
        asked = json.dumps(row | {"keep": kind == "kept", "folder": folder})
        words = ["--worker", asked, "--measure", "tensors" if kind == "tensors" else "memory"]
        ended = subprocess.run([*command, __file__, *words], env=env, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(ended.stderr[-3000:])
        return max(int(path.read_text()) for path in Path(folder).iterdir())


# ------------------------------------------------------------------------------------------------------- a worker


def work(row: dict[str, Any], what: str) -> None:
    """Trains, and writes what it took into a file of the folder."""
    import torch

    from rein.distributed import parse_layout, start, stop
    from rein.models.gpt import GPTConfig
    from rein.models.machine import keep_freed_memory

    if row["keep"]:
        keep_freed_memory()
    config = GPTConfig(**row["model"])
    world = start(parse_layout(row["layout"]), torch.device("cpu"))
    # What libraries take once for all is not the model's: a tiny one first.
    small = GPTConfig(**row["model"] | {"n_vocab": 64, "n_ctx": 16, "n_embd": 32, "n_head": 2, "band": 8,
                                         "n_layer": max(2, world.layout.pp)})  # fmt: skip
    for _ in train(small, world, row | {"at_once": 2, "parts": world.layout.pp}, updates=2):
        pass
    if what == "tensors":
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            for _ in train(config, world, row, updates=3):
                pass
        trace = Path(row["folder"]) / f"{world.rank}"
        profiler.export_chrome_trace(str(trace))
        changes = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
        live = taken = 0
        for event in sorted(changes, key=lambda event: event["ts"]):
            live += event["args"]["Bytes"]
            taken = max(taken, live)
    else:
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        for _ in train(config, world, row, updates=3):
            pass
        taken = status("VmHWM") - before
    (Path(row["folder"]) / f"{world.rank}").write_text(str(taken))
    world.wait()
    stop()


def train(config: Any, world: Any, row: dict[str, Any], *, updates: int) -> Iterator[None]:
    """Updates of a model on made-up tokens."""
    import torch

    from rein import optim
    from rein.models.gpt import initial
    from rein.models.parallel import Replica
    from rein.models.slots import Slot

    replica = Replica(config, world, lambda name, shape: initial(config, name, shape, 0), precision=row["precision"],
                      recompute=row["recompute"])  # fmt: skip
    groups = optim.decayed_and_not([(held.name, held.local) for held in replica.held])
    optimizer = torch.optim.AdamW(groups, fused=True)
    here = row["at_once"] * row["parts"]
    for number in range(updates):
        windows_BT = torch.randint(config.n_vocab, (here, config.n_ctx + 1))
        seed = number if config.dropout else None
        replica.gradients([Slot(windows_BT, None, here * world.layout.batch_ranks, row["at_once"], seed)])
        norm = replica.grad_norm()
        replica.scale_gradients(min(1.0, 1.0 / norm))
        replica.update(optimizer)
        yield


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, name
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
