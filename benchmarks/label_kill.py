"""kill -9 of the labeling server, again and again, while labelers work: nothing acknowledged is lost or counted twice.

    python benchmarks/label_kill.py                       20 kills under 20 labelers
    python benchmarks/label_kill.py --kills 5 --labelers 50

Server    as in label_load.py, killed after a random time of 0.3 to 2 s of work, and started again on the same port
Clients   of client.py: what was under way is sent again, with the same key, until the server is back
Checked   as in label_load.py: the set of acknowledged answers is the set of stored ones, each once, and no item is
          beyond its overlap. The command fails where that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from label_load import Server, check, make_store

from rein.feedback.client import AsyncClient
from rein.feedback.labelers import Habits, by_length
from rein.feedback.project import PRESETS
from rein.feedback.simulated_work import at_work, crew


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--labelers", type=int, default=20)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="comparison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the store is made; a folder for temporary files if not given"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "labels.db"
        keys = make_store(path, args.preset, 20_000, args.labelers, staged=True)
        with Server(path) as server:
            acknowledged = asyncio.run(kill(server, keys, args))
        trouble = list(check(path, acknowledged))
    print(f"{args.kills} kills, {len(acknowledged):,} answers acknowledged")
    print("\n".join(trouble) or "checked     acknowledged = stored, each once; no item beyond its overlap")
    raise SystemExit(1 if trouble else 0)


async def kill(server: Server, keys: list[str], args: argparse.Namespace) -> list[int]:
    """Labelers at work while the server comes and goes; what was acknowledged to them."""
    acknowledged: list[int] = []
    over = False
    when = random.Random(args.seed)

    async def one(labeler, key):
        async with AsyncClient(server.address, key=key, patience_s=120.0) as client:
            await at_work(
                client, labeler, "load", enough=lambda tally: over,
                on_answer=lambda card, said: acknowledged.append(card["assignment"]),
            )  # fmt: skip

    crowd = crew([f"simulated-{number}" for number in range(1, len(keys) + 1)], by_length, Habits())
    working = [asyncio.create_task(one(labeler, key)) for labeler, key in zip(crowd, keys, strict=True)]
    for number in range(args.kills):
        await asyncio.sleep(when.uniform(0.3, 2.0))
        before = len(acknowledged)
        server.kill()
        began = time.monotonic()
        await asyncio.to_thread(server.start)
        back_s = time.monotonic() - began
        while len(acknowledged) == before:  # work goes on
            await asyncio.sleep(0.01)
            if any(task.done() for task in working):
                break
        print(f"kill {number + 1:>3}    {before:>7,} acknowledged; back after {back_s:.1f} s", flush=True)
    over = True
    await asyncio.gather(*working)
    return acknowledged


if __name__ == "__main__":
    main()
