"""A loop that is killed in each of its stages ends with the same bytes as one that is left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Which durable write of a stage each start is killed at. A start finds less to do than the one before it.
KILLS = {
    "draw": (1, 3, 6, 5), "collect": (1, 5, 12, 9, 6), "judgements": (2, 3), "reward": (3, 9, 13, 6, 4),
    "policy": (4, 9, 12, 5), "evaluate": (2, 7, 6, 5),
}  # fmt: skip
SOME = {"draw": (3, 6), "collect": (5, 9), "judgements": (3,), "reward": (9,), "policy": (9,), "evaluate": (7, 6)}


@pytest.mark.parametrize(
    ("rounds", "kills"), [(1, SOME), pytest.param(2, KILLS, marks=pytest.mark.slow)], ids=["one round", "two rounds"]
)
def test_killed_in_each_stage_it_ends_with_the_same_bytes(world, tmp_path, rounds, kills):
    plan = [f"round-{n:02d}/{stage}:{at}" for n in range(1, rounds + 1) for stage, ats in kills.items() for at in ats]
    plan = ["prompts:1", "prompts:3", *plan]
    program = [sys.executable, str(Path(__file__).parent / "killing.py"), str(world), str(tmp_path), str(rounds)]
    found = subprocess.run([*program, " ".join(plan)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-4000:]
    codes = json.loads(found.stdout)
    assert codes == [0, *[-signal.SIGKILL] * len(plan), 0], (
        f"{list(zip(plan, codes[1:], strict=False))}\n{found.stderr[-4000:]}"
    )
    records = sorted((tmp_path / "clean").glob("**/done.json"))
    assert len(records) == 1 + 6 * rounds
    for path in records:
        clean = json.loads(path.read_text())
        killed = json.loads((tmp_path / "killed" / path.relative_to(tmp_path / "clean")).read_text())
        for name in ("key", "settings", "inputs", "made"):
            assert clean[name] == killed[name], f"{path}: {name}"
