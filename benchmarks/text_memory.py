"""How much memory `rein text build` takes as its input grows, and how fast it is: the sum over all its processes.

    python benchmarks/text_memory.py                   100 MB, 500 MB, 1 GB and 2 GB of JSON Lines
    python benchmarks/text_memory.py --mb 20 100       a first impression

The documents are made of paragraphs of the documentation that installed packages carry, every eighth word replaced by
another one, so that no two are alike; one document in ten is an earlier one of its file with a few words changed. A
larger input begins with the smaller one. Memory is sampled ten times a second: of each process its proportional share,
where a page that several have counts once; where the system does not tell, its resident memory.

The build is the default one, with a vocabulary learnt, and near-duplicates verified. No peer: the curve is the result.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

FILE_MB = 20
POOL_BYTES = 8_000_000
SAMPLE_S = 0.1
CHANGED_EVERY = 8  # of five words in a row, (7/8)⁵ = 51% stay: two uses of a paragraph are not near-duplicates
NEAR_DUPLICATE_FRAC = 0.1


# --------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Run:
    """What a command took, with every process it started. `peak_bytes` is of all of them, `largest_bytes` of one.

    `cpu_s` lacks what a process used after it was seen last, a tenth of a second at most.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    largest_bytes: int
    peak_at: str
    output: str


def run(command: Sequence[str], env: Mapping[str, str] | None = None, where: Callable[[], str] = lambda: "") -> Run:
    """Runs a command to its end; `where` names what it is doing, and is asked whenever memory is at a new peak.

    Raises   SystemExit with the last lines of what it said, when it fails.
    """
    peak, largest, at = 0, 0, ""
    cpu_s: dict[int, float] = {}  # of each process, as it was seen last: not every one is waited for by its parent
    over = threading.Event()
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )

        def sample() -> None:
            nonlocal peak, largest, at
            while not over.wait(SAMPLE_S):
                processes = _look_at(process.pid)
                cpu_s.update((pid, seconds) for pid, seconds, _ in processes)
                memory = [n_bytes for _, _, n_bytes in processes]
                largest = max([largest, *memory])
                if sum(memory) > peak:
                    peak, at = sum(memory), where()

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        try:
            status = process.wait()
        finally:
            over.set()
            process.kill()  # nothing, if it has ended
            sampler.join()
        wall_s = time.perf_counter() - start
        said.seek(0)
        output = said.read().decode("utf-8", "replace")
    if status:
        sys.exit(f"{' '.join(command)[:300]}\nended with {status}:\n" + "\n".join(output.splitlines()[-25:]))
    return Run(wall_s, sum(cpu_s.values()), peak, largest, at, output)


def _look_at(pid: int) -> list[tuple[int, float, int]]:
    """(id, CPU seconds so far, bytes) of a process and of all below it."""
    import psutil  # here, because a peer's Python imports this module and may not have it

    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
    seen = []
    for process in tree:
        try:
            with process.oneshot():
                cpu, memory = process.cpu_times(), process.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        seen.append((process.pid, cpu.user + cpu.system, getattr(memory, "pss", memory.rss)))
    return seen


def load_now() -> str:
    """How busy the machine is with other work: a number to judge the results by."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def rein() -> list[str]:
    """The command line of this installation."""
    return [sys.executable, "-m", "rein"]


# ----------------------------------------------------------------------------------------------------- the input


def paragraphs(n_bytes: int) -> list[str]:
    """Paragraphs of 80 characters or more from the installed packages' documentation, `n_bytes` or what there is."""
    from rein.text.documents import Document
    from rein.text.pydocs import PyDocs
    from rein.text.recipe import Source

    found, size = [], 0
    reader = PyDocs(Source(name="pydocs", kind="pydocs"))
    for item in chain.from_iterable(reader.read(partition, lambda _: None) for partition in reader.partitions()):
        if isinstance(item, Document):
            here = [part for part in item.text.split("\n\n") if len(part) >= 80]
            found += here
            size += sum(map(len, here))
        if size >= n_bytes:
            break
    return found


@cache
def material() -> tuple[list[str], list[str]]:
    """What documents are made of: paragraphs, and words in no order; once in each process."""
    pool = paragraphs(POOL_BYTES)
    words = [word for paragraph in random.Random(0).choices(pool, k=10_000) for word in paragraph.split(" ") if word]
    random.Random(0).shuffle(words)
    return pool, words


def write_file(path: Path, number: int) -> tuple[int, int]:
    """Writes one JSONL file; the same number gives the same file. Returns its documents and bytes of text."""
    pool, words = material()
    rng = random.Random(number)
    earlier: list[list[str]] = []
    n_documents = n_bytes = 0
    with path.open("w", encoding="utf-8") as file:
        while n_bytes < FILE_MB * 1e6:
            if earlier and rng.random() < NEAR_DUPLICATE_FRAC:
                document = list(rng.choice(earlier))
                replace_words(document, rng.randrange(60, 400), words, rng)
            else:
                # Paragraphs are some 300 characters, so this gives web pages: half below 3 kB, a few above 20 kB.
                document = " ¶ ".join(rng.choices(pool, k=2 + int(rng.lognormvariate(2, 0.8)))).split(" ")
                replace_words(document, CHANGED_EVERY, words, rng)
                earlier.append(document)
            text = " ".join(document).replace(" ¶ ", "\n\n")
            file.write(json.dumps({"id": f"{number}-{n_documents}", "text": text}, ensure_ascii=False) + "\n")
            n_documents += 1
            n_bytes += len(text.encode())
    return n_documents, n_bytes


def replace_words(document: list[str], every: int, words: list[str], rng: random.Random) -> None:
    """Replaces every so many words of a document."""
    places = range(rng.randrange(min(every, len(document))), len(document), every)
    start = rng.randrange(len(words) - len(places))
    document[places.start :: every] = words[start : start + len(places)]


def make_input(folder: Path, mb: float) -> list[tuple[Path, int, int]]:
    """JSONL files of `mb` together: each with its documents and bytes of text."""
    material()  # before the processes are forked, which then have it
    paths = [folder / f"{number:05d}.jsonl" for number in range(max(1, round(mb / FILE_MB)))]
    with ProcessPoolExecutor(2) as processes:
        numbers = range(len(paths))
        sizes = list(processes.map(write_file, paths, numbers))
    return [(path, *size) for path, size in zip(paths, sizes, strict=True)]


# ----------------------------------------------------------------------------------------------------- the table


def stage_of(corpus: Path) -> str:
    """The stage that a build has begun last."""
    folders = [path for path in (corpus / "work").glob("*") if path.is_dir()]
    return max(folders, key=lambda path: path.stat().st_ctime_ns).name if folders else "start"


def main() -> None:
    """Makes the largest input, and builds from more and more of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, nargs="+", default=[100, 500, 1000, 2000], help="megabytes of input")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="rein-bench-") as name:
        files = make_input(Path(name), max(options.mb))
        print(f"{options.workers} workers, Python {sys.version.split()[0]}; {load_now()}", flush=True)
        headings = f"{'wall s':>8}{'CPU s':>8}{'MB/s':>7}{'peak MB':>9}{'one process':>13}  peak in"
        print(f"{'MB':>6}{'documents':>11}{'kept':>11}{headings}")
        peaks = []
        for mb in sorted(options.mb):
            some = files[: max(1, round(mb / FILE_MB))]
            corpus = Path(name) / "corpus"
            paths = [str(path) for path, _, _ in some]
            settings = ["--source", "jsonl", "--id-field", "id", "--workers", str(options.workers)]
            took = run(
                [*rein(), "text", "build", *paths, *settings, "--out", str(corpus)],
                where=lambda corpus=corpus: stage_of(corpus),
            )
            kept = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))["kept"]
            n_documents, size_mb = sum(count for _, count, _ in some), sum(size for _, _, size in some) / 1e6
            print(
                f"{size_mb:>6,.0f}{n_documents:>11,}{kept:>11,}{took.wall_s:>8.1f}{took.cpu_s:>8.1f}"
                f"{size_mb / took.wall_s:>7.1f}{took.peak_bytes / 1e6:>9,.0f}{took.largest_bytes / 1e6:>13,.0f}"
                f"  {took.peak_at}",
                flush=True,
            )
            peaks.append((size_mb, took.peak_bytes))
            shutil.rmtree(corpus)
    (least_mb, least), (most_mb, most) = peaks[0], peaks[-1]
    print(f"\n{most_mb / least_mb:.0f} times the text takes {most / least:.2f} times the memory")


if __name__ == "__main__":
    main()
