"""Runs a small loop twice: left alone, and killed again and again, at the n-th durable write of a stage each time.

    python killing.py WORLD OUT ROUNDS 'stage:n stage:n …'

Each start is a child of one process, so that what is imported is imported once. OUT/clean is the loop that is left
alone, OUT/killed the other one. Prints how each start ended, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path

world, top, n_rounds, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split()
sys.path.insert(0, str(world))

from rein.feedback.store import Store  # noqa: E402
from rein.loop import stages  # noqa: E402
from rein.loop.config import LoopConfig  # noqa: E402
from rein.loop.loop import loop  # noqa: E402


def config(out: Path) -> LoopConfig:
    return LoopConfig(
        world / "sft", world / "prompts.jsonl", out=out, rounds=n_rounds, format="plain", response_tokens=12, items=16,
        evaluation_items=4, gold="loop_golds:gold", policy_settings=world / "ppo.json",
        reward_settings=world / "reward.json", best_of=2, simulated=3, device="cpu",
    )  # fmt: skip


def child(out: Path, kill: str) -> None:
    at, _, n = kill.partition(":")
    stage, writes = "", Counter()
    run, submit, replace, rename = stages.run, Store._submit, os.replace, os.rename

    def count() -> None:
        writes[stage] += 1
        if kill and stage == at and writes[stage] == int(n):
            os.kill(os.getpid(), signal.SIGKILL)

    def running(folder, what):
        nonlocal stage
        stage = str(folder.relative_to(out))
        return run(folder, what)

    def submitting(self, work):
        future = submit(self, work)
        count()
        return future

    def moving(how):
        def moved(*names, **options):
            how(*names, **options)
            count()

        return moved

    stages.run, Store._submit, os.replace, os.rename = running, submitting, moving(replace), moving(rename)
    loop(config(out))


def start(out: Path, kill: str) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            child(out, kill)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


print(json.dumps([start(top / "clean", ""), *(start(top / "killed", kill) for kill in [*kills, ""])]))
