"""A corpus made on a Ray cluster is the one made by this process, to the byte, also where a worker dies on the way.

Ray starts daemons and writes into the home folder, so every build is a process of its own in folders of its own, and
what it leaves running is found by the name of those folders.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("ray")

WORDS = [f"{a}{b}" for a in "bdfgklmn" for b in ("ast", "ern", "ill", "ock", "um", "ave")]

RECIPE = """
from pathlib import Path
from rein.text.recipe import *

here = Path(__file__).parent
recipe = Recipe(
    (
        Source("web", "jsonl", (here / "web-*.jsonl",), steps=("own_step:deadly",), quality={full}, weight=0.4),
        Source("books", "jsonl", (here / "books.jsonl",), weight=0.6),
    ),
    quality=Quality(("books",), ("web",), alpha=0.5) if {full} else None,
    near_duplicates=NearDuplicates(prefer=("books",)) if {full} else None,
    decontamination=Decontamination((here / "test.jsonl",)) if {full} else None,
    n_vocab=300,
    shard_tokens=4000,
    keep_dropped=True,
)
"""
STEP = """
import os, signal
from pathlib import Path

def deadly(document):
    marker = Path(__file__).with_name("died")
    if document.text.startswith("deadly") and not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return document
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a recipe and what it reads."""
    rng = random.Random(0)
    folder = tmp_path / "project"
    folder.mkdir()

    def write(name: str, texts: list[str]) -> None:
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    texts = [" ".join(rng.choices(WORDS, k=50)) for _ in range(150)]
    for part in range(3):
        write(f"web-{part}.jsonl", [*texts[part * 40 : part * 40 + 40], texts[part], f"deadly {part} " + texts[-1]])
    write("books.jsonl", [*texts[115:], texts[3]])
    (folder / "test.jsonl").write_text(json.dumps({"question": " ".join(texts[20].split()[5:25])}) + "\n")
    (folder / "own_step.py").write_text(STEP)
    return folder


@pytest.fixture
def environment(tmp_path):
    """Folders of Ray's own: a home, and a short one, for a socket's path has at most 107 bytes."""
    (tmp_path / "home").mkdir()
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    yield {**os.environ, "HOME": str(tmp_path / "home"), "RAY_TMPDIR": short, "RAY_ADDRESS": ""}
    for pid in using(short):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(short, ignore_errors=True)


def using(folder: str) -> list[int]:
    """The living processes that were started with a folder among their variables or words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if folder.encode() in told and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def rein(project: Path, out: Path, environment: dict[str, str], *words: str, timeout_s: float = 240):
    return subprocess.run(
        [sys.executable, "-m", "rein", "text", "build", str(project / "recipe.py"), "--out", str(out), *words],
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("config.json", "build.lock")
    }


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["short", "every stage"])
def test_ray_makes_the_same_bytes_though_a_worker_is_killed(tmp_path, project, environment, full):
    (project / "recipe.py").write_text(RECIPE.format(full=full))
    done = rein(project, tmp_path / "ray" / "corpus", environment, "--ray", "local", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert int((project / "died").read_text()) > 0  # one did, and it is noted before: the next build is undisturbed
    alone = rein(project, tmp_path / "alone" / "corpus", environment, "--workers", "1")
    assert alone.returncode == 0, alone.stderr
    assert contents(tmp_path / "ray" / "corpus") == contents(tmp_path / "alone" / "corpus")
    assert len(list((tmp_path / "ray" / "corpus").glob("*.bin"))) > 3
    deadline = time.monotonic() + 20
    while using(environment["RAY_TMPDIR"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not using(environment["RAY_TMPDIR"]), "Ray's processes outlive the build"


def test_an_address_that_is_none_is_said(tmp_path, project, environment):
    (project / "recipe.py").write_text(RECIPE.format(full=False))
    done = rein(project, tmp_path / "corpus", environment, "--ray", "nonsense", timeout_s=60)
    assert done.returncode == 2, done.stderr
    assert "UserError: The Ray cluster nonsense does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_answer_is_said_within_a_reasonable_time(tmp_path, project, environment):
    (project / "recipe.py").write_text(RECIPE.format(full=False))
    done = rein(project, tmp_path / "corpus", environment, "--ray", "127.0.0.1:9", timeout_s=60)
    assert done.returncode == 2, done.stderr
    assert "UserError: The Ray cluster 127.0.0.1:9 does not answer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def cluster(tmp_path, environment):
    """The address of a cluster whose machine was started in another folder than the build is."""
    environment["RAY_AUTH_MODE"] = "disabled"
    (tmp_path / "elsewhere").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"-m ray.scripts.scripts start --head --block --port {port} --num-cpus 2 --include-dashboard false".split()
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen(
            [sys.executable, *words, "--disable-usage-stats"],
            env=environment,
            cwd=tmp_path / "elsewhere",
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while "will now block" not in (tmp_path / "head.log").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    head.terminate()
    try:
        head.wait(20)
    except subprocess.TimeoutExpired:
        head.kill()
        head.wait()


@pytest.mark.slow
def test_relative_paths_mean_the_same_on_every_machine(project, environment, cluster):
    words = [sys.executable, "-m", "rein", "text", "build", "web-0.jsonl", "web-1.jsonl", "--source", "jsonl"]
    words += ["--near-duplicates", "off", "--n-vocab", "300"]
    done = subprocess.run(
        [*words, "--out", "ray/corpus", "--ray", cluster],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run([*words, "--out", "alone/corpus"], cwd=project, env=environment, capture_output=True, check=True)
    assert contents(project / "ray" / "corpus") == contents(project / "alone" / "corpus")
