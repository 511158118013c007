"""The trainer page's server under load: is its clock kept, and how much does it add to a press?

A real server in a process of its own; in this one, a controlling page that presses and any number that watch, over real
WebSockets on loopback. A press's way is timed from sending it to hearing which steps it credits. No peer: what is
printed is to be held against --step-s and against a frame of 16.7 ms.

    make bench ARGS="trainer_page --minutes 10 --watchers 20 --step-s 0.05"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from websockets.asyncio.client import connect


async def watch(url: str, until: float, heard: list[int]) -> None:
    """A page that only looks."""
    async with connect(url, max_size=None) as socket:
        await socket.send(json.dumps({"type": "join", "key": "", "page": ""}))
        steps = 0
        while time.perf_counter() < until:
            message = json.loads(await asyncio.wait_for(socket.recv(), 30))
            steps += message["type"] == "step"
        heard.append(steps)


async def control(url: str, key: str, until: float, every_s: float) -> tuple[list[float], list[float], list[float]]:
    """The page of the trainer: arrival times of steps, the server's times of them, and how long presses took."""
    arrived, meant, took, waiting = [], [], [], {}
    rng = random.Random(0)
    async with connect(url, max_size=None) as socket:
        await socket.send(json.dumps({"type": "join", "key": key, "page": "bench"}))
        await socket.send(json.dumps({"type": "command", "name": "training", "value": True}))
        shown: dict[str, float] = {}

        async def press() -> None:
            number = 0
            while time.perf_counter() < until:
                await asyncio.sleep(rng.uniform(0.5, 1.5) * every_s)
                if not shown:
                    continue
                number += 1
                now = time.perf_counter()
                message = {"type": "press", "id": f"bench-{number}", "value": rng.choice([1, -1]), "k": shown["k"]}
                waiting[message["id"]] = now
                message |= {"t_key": now * 1000, "t_shown": shown["at"] * 1000, "key": "/"}
                await socket.send(json.dumps(message))

        async def ping() -> None:
            while time.perf_counter() < until:
                await socket.send(json.dumps({"type": "ping", "t": 0, "rtt_ms": None, "jitter_ms": None}))
                await asyncio.sleep(1)

        jobs = [asyncio.create_task(job()) for job in (press, ping)]
        while time.perf_counter() < until:
            message = json.loads(await asyncio.wait_for(socket.recv(), 30))
            now = time.perf_counter()
            if message["type"] == "step":
                arrived.append(now)
                meant.append(message["t"])
                shown.update(k=message["k"], at=now)
            elif message["type"] == "credit" and message["id"] in waiting:
                took.append((now - waiting.pop(message["id"])) * 1000)
        for job in jobs:
            job.cancel()
    assert len(waiting) <= 2, f"{len(waiting)} presses were never answered"
    return arrived, meant, took


async def measure(address: str, minutes: float, watchers: int, every_s: float) -> None:
    """Runs everything and prints it."""
    page, key = address.split("#")
    url = page.replace("http://", "ws://") + "/socket"
    until = time.perf_counter() + 60 * minutes
    heard: list[int] = []
    looking = [asyncio.create_task(watch(url, until, heard)) for _ in range(watchers)]
    arrived, meant, took = await control(url, key, until, every_s)
    await asyncio.gather(*looking)
    gaps = np.diff(meant) * 1000
    seconds = meant[-1] - meant[0]
    within = gaps[gaps < 3 * np.median(gaps)]  # without the pauses between episodes
    lost = len(arrived) - min(heard, default=len(arrived))
    pauses = len(gaps) - len(within)
    print(f"steps                     {len(meant):,} in {seconds:,.1f} s; pauses between episodes: {pauses}")
    print(f"between two steps         median {np.median(within):.2f} ms, 1% {np.quantile(within, 0.01):.2f}, "
          f"99% {np.quantile(within, 0.99):.2f}, longest {within.max():.2f}")  # fmt: skip
    print(f"steps a second in play    {1000 / within.mean():.3f}")
    print(f"a press's way             median {np.median(took):.2f} ms, 99% {np.quantile(took, 0.99):.2f}, "
          f"longest {max(took):.2f}; {len(took):,} presses")  # fmt: skip
    print(f"watchers                  {len(heard)}; steps that one of them missed, at most: {max(0, lost)}")


def main() -> None:
    """Starts a server, measures, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--step-s", type=float, default=0.05)
    parser.add_argument("--press-every-s", type=float, default=0.4)
    parser.add_argument("--task", default="mountain-car")
    parser.add_argument("--technique", default="action-biasing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("rein")), "tamer", "play", given.task, "--technique", given.technique,
            "--step-s", str(given.step_s), "--port", "0", "--no-browser", "--out", f"{folder}/lesson",
        ]  # fmt: skip
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"http\S+", line)
        assert address, f"the server said {line!r}"
        print(f"{' '.join(command[1:5])}, a step every {given.step_s * 1000:.0f} ms; {os.cpu_count()} cores, "
              f"load {os.getloadavg()[0]:.1f} before", flush=True)  # fmt: skip
        try:
            asyncio.run(measure(address[0], given.minutes, given.watchers, given.press_every_s))
        finally:
            server.terminate()
            server.wait(20)


if __name__ == "__main__":
    main()
