"""One process and many: how far losses and gradient norms are apart under every layout, and whose bits are equal.

    python benchmarks/layouts.py [--processes 2 4 8]

Work      five AdamW updates (rate 0.01, clipped) of 5-layer models, 32 wide, 4 heads, vocabulary 61 (which no layout
          divides), float32, gloo, one thread each: the cases of tests/equivalence/parallel_worker.py.
Equality  GPT-1's, GPT-2's and GPT-3's arrangement; the largest difference to one process in five losses, five gradient
          norms and the held-out loss after them, and whether all weights began with the same bits.
Slots     with 8 slots and dropout 0.1: the first half of the SHA-256 of all weights after the five updates.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORKER = Path(__file__).parent.parent / "tests" / "equivalence" / "parallel_worker.py"
KINDS = ("gpt1", "gpt2", "gpt3")
LAYOUTS = {
    1: [""],
    2: ["dp=2", "fsdp=2", "tp=2", "pp=2"],
    4: ["dp=4", "fsdp=4", "tp=4", "pp=4", "dp=2,fsdp=2", "fsdp=2,tp=2", "dp=2,tp=2", "pp=2,dp=2", "pp=2,fsdp=2",
        "pp=2,tp=2"],
    8: ["pp=2,dp=2,tp=2", "pp=2,fsdp=2,tp=2", "dp=2,fsdp=2,tp=2"],
}  # fmt: skip
SLOTTED = {1: [""], 2: ["dp=2", "fsdp=2"], 4: ["dp=4", "fsdp=4", "dp=2,fsdp=2"], 8: ["dp=8", "fsdp=8", "dp=2,fsdp=4"]}


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4, 8], choices=[2, 4, 8])
    args = parser.parse_args()
    single: dict[str, dict] = {}
    print("| processes | layout | same start | loss apart | gradient norm apart | held-out loss apart |")
    print("| --- | --- | --- | --- | --- | --- |")
    hashes = []
    for processes in (1, *args.processes):
        cases = [{"layout": layout, "kind": kind} for layout in LAYOUTS[processes] for kind in KINDS]
        slotted = [{"layout": layout, "kind": "gpt2", "slots": 8, "dropout": 0.1} for layout in SLOTTED[processes]]
        found = launch(processes, cases + slotted)
        plain, in_slots = found[: len(cases)], found[len(cases) :]
        hashes += [(processes, case["layout"], it["last"]) for case, it in zip(slotted, in_slots, strict=True)]
        if processes == 1:
            single = dict(zip(KINDS, plain, strict=True))
            continue
        for layout in LAYOUTS[processes]:
            pairs = [(single[c["kind"]], f) for c, f in zip(cases, plain, strict=True) if c["layout"] == layout]
            same = all(one["first"] == many["first"] for one, many in pairs)
            apart = [max(difference(one[what], many[what]) for one, many in pairs)
                     for what in ("losses", "norms", "heldout")]  # fmt: skip
            row = [str(processes), layout, "yes" if same else "NO", *(f"{x:.1e}" for x in apart)]
            print(f"| {' | '.join(row)} |", flush=True)
    print("\n| processes | layout | SHA-256 of all weights |\n| --- | --- | --- |")
    for processes, layout, digest in hashes:
        print(f"| {processes} | {layout or 'one process'} | {digest[:32]} |")


def difference(a: list[float] | float, b: list[float] | float) -> float:
    """The largest one."""
    if isinstance(a, list) and isinstance(b, list):
        return max(abs(x - y) for x, y in zip(a, b, strict=True))
    return abs(a - b)


def launch(processes: int, cases: list[dict]) -> list[dict]:
    """What the worker finds with that many processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, str(WORKER), str(out), json.dumps(cases)], check=True, env=environment)
        return json.loads(out.read_text())


if __name__ == "__main__":
    main()
