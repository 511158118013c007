"""Near-duplicate removal as `rein text build` does it: speed, and what it finds and drops, held against exact truth.

    python benchmarks/near_duplicates.py FOLDERS... --mb 20     a first impression; without peers, ours alone
    python benchmarks/near_duplicates.py FOLDERS... --datatrove-python PEERS/bin/python \\
                                                    --datasketch-python PEERS/bin/python

FOLDERS hold documentation, headers and source (/usr/share/doc, /usr/include, a Python installation): a file is a
document, 400 kB at most, of five words or more, UTF-8, each content once. All sides get the same JSON Lines. Ours has
been read into Parquet when the clock starts, as in a build; datatrove reads it while it makes signatures, which is
little of its time. The peers want an environment of their own (text_pipeline.py says how; add datasketch to it).

    rein          fingerprints, exact duplicates, candidate pairs, exact comparison, groups: two workers, as in a build
    datatrove     its signatures, buckets and clusters, 14 × 8, two workers, English words by spaCy. It compares nothing
    datasketch    MinHash of the same shingles in two processes and MinHashLSH, 18 × 7, in one. It compares nothing

Truth    Two documents are near-duplicates when the sets of their runs of five words have a Jaccard similarity of .8 or
         more. All such pairs are found without hashing: words and runs get numbers; the runs of each document are put
         in the order of how rare they are; two sets that are so alike must then share one of the first fifth (Chaudhuri
         et al. 2006, prefix filter); those that do are compared exactly.
Recall   of these pairs; and of the documents that should go, which are all but one of each connected group, whichever
         a side lets stay. datatrove names groups, not pairs.
False    dropped documents that are alike to no other one, and groups of which none stays. Every dropped document is
         compared with its twins anew, as a Python set of tuples of words.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from text_memory import load_now
from text_pipeline import WORKERS, minhash, run_peer

THRESHOLD = 0.8
SHINGLE_WORDS = 5
LARGEST_FILE_BYTES = 400_000
FILES = 8
ENDINGS = (".py", ".pyi", ".h", ".hpp", ".md", ".rst", ".txt", ".html", ".pl", ".pm", ".pod", ".gz", ".js", ".rs", ".c")
TARGET_DOCUMENTS_PER_S, TARGET_RECALL = 2000, 0.97
BLOCK_PAIRS = 4_000_000


@dataclass(frozen=True)
class Outcome:
    """What one side found: `pairs` are those it takes for near-duplicates, None where it does not say."""

    name: str
    wall_s: float
    cpu_s: float
    pairs: set[tuple[int, int]] | None
    dropped: set[int]


def words_of(text: str) -> list[str]:
    """The words, as Rein documents them: runs of \\w in the lower-cased text."""
    return re.findall(r"\w+", text.lower())


# ---------------------------------------------------------------------------------------------------- the documents


def collect(folders: list[Path], n_bytes: float) -> list[str]:
    """The documents, taken from the folders in turn so that each has its share of `n_bytes`."""
    texts: list[str] = []
    seen: set[bytes] = set()
    for number, folder in enumerate(folders):
        left = (n_bytes - sum(map(len, texts))) / (len(folders) - number)
        for text in documents_of(folder):
            digest = hashlib.sha256(text.encode()).digest()
            if digest not in seen and len(text) <= left and len(words_of(text)) >= SHINGLE_WORDS:
                seen.add(digest)
                texts.append(text)
                left -= len(text)
            if left < 1000:
                break
    return texts


def documents_of(folder: Path) -> Iterator[str]:
    """The files of a folder that are text, in an order that mixes its parts."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in sorted(paths, key=lambda path: hashlib.sha256(str(path).encode()).digest()):
        if path.suffix not in ENDINGS and path.suffix:
            continue
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        if len(text) <= LARGEST_FILE_BYTES and "\0" not in text:
            yield text.replace("\r\n", "\n").replace("\r", "\n")


def save(texts: list[str], folder: Path) -> None:
    """Writes the documents as JSON Lines, in order, with their numbers as names."""
    folder.mkdir()
    per_file = -(-len(texts) // FILES)
    for number in range(FILES):
        with (folder / f"{number:05d}.jsonl").open("w", encoding="utf-8") as file:
            for index in range(number * per_file, min((number + 1) * per_file, len(texts))):
                file.write(json.dumps({"id": str(index), "text": texts[index]}) + "\n")


# ------------------------------------------------------------------------------------------------------- the truth


class Truth:
    """The near-duplicates among the documents, found and compared exactly."""

    def __init__(self, texts: list[str]) -> None:
        import numpy as np

        self.texts = texts
        flat, starts = runs_of_words(texts)
        counts = np.bincount(flat)
        self._sets: list[Any] = []  # of each document, its runs from the rarest to the commonest
        prefixes, owners = [], []
        order = np.empty(len(counts), dtype=np.int64)
        order[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        for index in range(len(texts)):
            runs = np.unique(order[flat[starts[index] : starts[index + 1]]])
            # Of n runs, at least .8 n must be shared; so one of any n − ⌈.8 n⌉ + 1 is.
            n_prefix = len(runs) - int(np.ceil(THRESHOLD * len(runs) - 1e-9)) + 1
            self._sets.append(runs)
            prefixes.append(runs[:n_prefix])
            owners.append(np.full(n_prefix, index))
        sizes = np.array([len(runs) for runs in self._sets])
        alike = self._alike(self._sharing(np.concatenate(prefixes), np.concatenate(owners), sizes))
        self.pairs: dict[tuple[int, int], float] = alike
        self.twins: dict[int, list[int]] = {}
        for a, b in alike:
            self.twins.setdefault(a, []).append(b)
            self.twins.setdefault(b, []).append(a)
        self.groups = connected(self.twins)
        self.n_superfluous = sum(len(group) - 1 for group in self.groups)

    def _sharing(self, runs: Any, owners: Any, sizes: Any) -> Any:
        """Pairs of documents of similar size that share a run, as a · 2³² + b with a < b."""
        import numpy as np

        order = np.argsort(runs, kind="stable")
        runs, owners = runs[order], owners[order]
        starts = np.append(np.flatnonzero(np.append(True, runs[1:] != runs[:-1])), len(runs))
        lengths = np.diff(starts)
        found = [np.zeros(0, dtype=np.int64)]
        for length in np.unique(lengths[lengths > 1]).tolist():
            firsts = starts[:-1][lengths == length]
            i, j = np.triu_indices(length, 1)
            for at in range(0, len(firsts), max(1, BLOCK_PAIRS // len(i))):
                group = owners[firsts[at : at + max(1, BLOCK_PAIRS // len(i)), None] + np.arange(length)]
                a, b = group[:, i].reshape(-1), group[:, j].reshape(-1)
                near = np.minimum(sizes[a], sizes[b]) >= THRESHOLD * np.maximum(sizes[a], sizes[b]) - 1e-9
                found.append(np.unique(a[near] << 32 | b[near]))
        return np.unique(np.concatenate(found))

    def _alike(self, packed: Any) -> dict[tuple[int, int], float]:
        import numpy as np

        alike = {}
        self.n_compared = len(packed)
        for a, b in zip((packed >> 32).tolist(), (packed & 0xFFFFFFFF).tolist(), strict=True):
            one, other = self._sets[a], self._sets[b]
            both = len(np.intersect1d(one, other, assume_unique=True))
            similarity = both / (len(one) + len(other) - both)
            if similarity >= THRESHOLD:
                alike[a, b] = similarity
        return alike

    def recall(self, pairs: set[tuple[int, int]]) -> float:
        """The part of the pairs that is among these."""
        return len(pairs & self.pairs.keys()) / max(1, len(self.pairs))

    def superfluous(self, dropped: set[int]) -> int:
        """How many of the documents that should go are dropped."""
        return sum(min(len(group & dropped), len(group) - 1) for group in self.groups)

    def false_drops(self, dropped: set[int]) -> int:
        """How many of the dropped documents are alike to none, by sets of tuples of words; and groups lost whole."""
        sets: dict[int, set[tuple[str, ...]]] = {}

        def runs(index: int) -> set[tuple[str, ...]]:
            if index not in sets:
                words = words_of(self.texts[index])
                sets[index] = set(zip(*(words[k:] for k in range(SHINGLE_WORDS)), strict=False))
            return sets[index]

        def has_twin(index: int) -> bool:
            return any(
                len(runs(index) & runs(twin)) >= THRESHOLD * len(runs(index) | runs(twin))
                for twin in self.twins.get(index, [])
            )

        return sum(not has_twin(index) for index in dropped) + sum(group <= dropped for group in self.groups)


def connected(twins: dict[int, list[int]]) -> list[set[int]]:
    """The groups of documents that twins connect."""
    groups, seen = [], set()
    for first in twins:
        group, open_ones = set(), [first]
        while open_ones:
            index = open_ones.pop()
            if index not in seen:
                seen.add(index)
                group.add(index)
                open_ones += twins[index]
        if group:
            groups.append(group)
    return groups


def runs_of_words(texts: list[str]) -> tuple[Any, Any]:
    """Each run of five words as a number, equal for equal runs and only for those; and where each document's begin."""
    import numpy as np

    number_of: dict[str, int] = {}
    parts, starts = [], [0]
    for text in texts:
        words = words_of(text)
        parts.append(np.array([number_of.setdefault(word, len(number_of)) for word in words], dtype=np.int64))
        starts.append(starts[-1] + len(words))
    words = np.concatenate(parts)

    def paired(first: Any, second: Any) -> Any:
        return np.unique(first << 32 | second, return_inverse=True)[1].astype(np.int64)

    twos = paired(words[:-1], words[1:])
    fives = paired(paired(twos[:-2], twos[2:])[:-1], words[4:])  # those across two documents are left out below
    begins = np.array(starts[:-1])
    ends = np.array(starts[1:]) - (SHINGLE_WORDS - 1)
    inside = np.concatenate([fives[begin:end] for begin, end in zip(begins, ends, strict=True)])
    return inside, np.concatenate(([0], np.cumsum(ends - begins)))


# ------------------------------------------------------------------------------------------------------- the sides


def rein_side(documents: Path, work: Path) -> Outcome:
    """The stages between reading and assembling, timed together."""
    import numpy as np

    from rein.text import pipeline
    from rein.text.duplicate_stages import NEAR_DUPLICATE, NUMBER_BITS
    from rein.text.engine import Engine
    from rein.text.recipe import NearDuplicates, Recipe, Source
    from rein.text.store import read_documents

    source = Source("files", "jsonl", (documents,), id_field="id")
    recipe = Recipe((source,), near_duplicates=NearDuplicates(threshold=THRESHOLD))
    build = pipeline.Build(recipe, Engine(workers=WORKERS), work, "benchmark", "", [])
    parts = pipeline._read(build, {})
    cpu_s, start = cpu_so_far_s(), time.perf_counter()
    gone, about = pipeline._duplicates(build, parts)
    wall_s, cpu_s = time.perf_counter() - start, cpu_so_far_s() - cpu_s
    assert about is not None, "the recipe asks for near-duplicates"

    index_of = [[int(document.id) for document in read_documents([part.file])] for part in parts]

    def index(number: int) -> int:
        return index_of[number >> NUMBER_BITS][number & ((1 << NUMBER_BITS) - 1)]

    pairs = [
        np.load(path)
        for path in build.stage("verifying pairs").glob("*.npy")
        if not path.name.endswith(".similarity.npy")
    ]
    gone_near = np.concatenate([np.load(file)[0] for file in gone[NEAR_DUPLICATE]])
    assert len(gone_near) == about["dropped"], f"{len(gone_near)} numbers of {about['dropped']} dropped documents"
    found = {tuple(sorted((index(a), index(b)))) for part in pairs for a, b in part.tolist()}
    return Outcome("rein", wall_s, cpu_s, found, {index(number) for number in gone_near.tolist()})


def cpu_so_far_s() -> float:
    """What this process and those that it started and that ended have used."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def datatrove_side(spec: dict[str, Any]) -> None:
    """Prints its seconds and the documents it would drop. Run by datatrove's own Python."""
    work = Path(spec["work"])
    start = time.perf_counter()
    minhash(spec["documents"], work, FILES, buffered_lines=-1)
    wall_s = time.perf_counter() - start
    dropped = []
    for path in (work / "remove").glob("*.remove"):
        rows = struct.iter_unpack("<I", path.read_bytes())
        dropped += [int(path.stem) * spec["per_file"] + row for (row,) in rows]
    print()
    print(json.dumps({"wall_s": wall_s, "pairs": None, "dropped": dropped}))


def datasketch_side(spec: dict[str, Any]) -> None:
    """Prints its seconds, the candidate pairs and the later document of each. Run by datasketch's own Python."""
    from datasketch import MinHashLSH

    texts = []
    for path in sorted(Path(spec["documents"]).glob("*.jsonl")):
        texts += [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    start = time.perf_counter()
    with ProcessPoolExecutor(WORKERS) as pool:
        signatures = list(pool.map(datasketch_signature, texts, chunksize=100))
    index = MinHashLSH(num_perm=128, params=(18, 7))
    pairs = []
    for number, signature in enumerate(signatures):
        pairs += [(other, number) for other in index.query(signature)]
        index.insert(number, signature, check_duplication=False)
    wall_s = time.perf_counter() - start
    print()
    print(json.dumps({"wall_s": wall_s, "pairs": pairs, "dropped": sorted({later for _, later in pairs})}))


def datasketch_signature(text: str) -> Any:
    """The signature of a text's runs of five words."""
    from datasketch import MinHash

    words = words_of(text)
    runs = {" ".join(words[k : k + SHINGLE_WORDS]).encode() for k in range(len(words) - SHINGLE_WORDS + 1)}
    signature = MinHash(num_perm=128)
    signature.update_batch(list(runs))
    return signature


def peer_side(name: str, python: Path, spec: dict[str, Any], work: Path) -> Outcome:
    """Runs a peer's side; `wall_s` is without the loading of the program, `cpu_s` with it."""
    took, said = run_peer(python, f"near_duplicates:{name}_side", {**spec, "work": str(work)})
    pairs = None if said["pairs"] is None else {(a, b) for a, b in said["pairs"]}
    return Outcome(name, said["wall_s"], took.cpu_s, pairs, set(said["dropped"]))


# ----------------------------------------------------------------------------------------------------- the table


def main() -> int:
    """The table and the verdict; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of text")
    parser.add_argument("--mb", type=float, default=100, help="megabytes of text (default: 100)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, the fastest counts (default: 1)")
    parser.add_argument("--datatrove-python", type=Path, help="the Python of an environment with datatrove")
    parser.add_argument("--datasketch-python", type=Path, help="the Python of an environment with datasketch")
    options = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:WORKERS]))
    texts = collect(options.folders, options.mb * 1e6)
    mb = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {mb:.1f} MB, {WORKERS} workers, {WORKERS} cores; {load_now()}", flush=True)
    truth = Truth(texts)
    print(
        f"truth: {len(truth.pairs):,} pairs of {truth.n_compared:,} compared, "
        f"{len(truth.twins):,} documents in {len(truth.groups):,} groups, so {truth.n_superfluous:,} should go\n",
        flush=True,
    )
    headings = f"{'recall, pairs':>15}{'documents':>11}{'dropped':>9}{'false':>7}"
    print(f"{'':<12}{'wall s':>8}{'CPU s':>8}{'documents/s':>13}{'MB/s':>7}{headings}")

    def show(outcome: Outcome) -> None:
        found = truth.superfluous(outcome.dropped) / max(1, truth.n_superfluous)
        speed = len(texts) / outcome.wall_s
        of_pairs = "-" if outcome.pairs is None else f"{truth.recall(outcome.pairs):.4f}"
        print(
            f"{outcome.name:<12}{outcome.wall_s:>8.1f}{outcome.cpu_s:>8.1f}{speed:>13,.0f}{mb / outcome.wall_s:>7.1f}"
            f"{of_pairs:>15}{found:>11.4f}{len(outcome.dropped):>9,}{truth.false_drops(outcome.dropped):>7,}",
            flush=True,
        )

    with tempfile.TemporaryDirectory(prefix="rein-bench-") as name:
        folder = Path(name)
        save(texts, folder / "documents")
        save(texts[:100], folder / "some")
        rein_side(folder / "some", folder / "warm")  # what is compiled is compiled once in each installation
        sides: list[Callable[[Path], Outcome]] = [partial(rein_side, folder / "documents")]
        spec = {"documents": str(folder / "documents"), "per_file": -(-len(texts) // FILES)}
        for peer, python in (("datatrove", options.datatrove_python), ("datasketch", options.datasketch_python)):
            if python is None:
                print(f"{peer} is left out: --{peer}-python was not given")
            else:
                sides.append(partial(peer_side, peer, python, spec))
        outcomes = []
        for side in sides:
            tries = [side(Path(tempfile.mkdtemp(dir=folder))) for _ in range(options.repeat)]
            outcomes.append(min(tries, key=lambda outcome: outcome.wall_s))
            show(outcomes[-1])
    ours, *peers = outcomes
    assert ours.pairs is not None, "rein says which pairs it verified"
    speed, recall, false = len(texts) / ours.wall_s, truth.recall(ours.pairs), truth.false_drops(ours.dropped)
    extra = len(ours.pairs - truth.pairs.keys())
    good = speed >= TARGET_DOCUMENTS_PER_S and recall >= TARGET_RECALL and false == 0 and extra == 0
    print()
    for other in peers:
        print(f"rein handles {other.wall_s / ours.wall_s:.1f} times as many documents a second as {other.name}")
    print(f"pairs that are none: {extra}")
    print(
        f"targets: {TARGET_DOCUMENTS_PER_S:,} documents/s, recall {TARGET_RECALL}, no false drop: "
        f"{'met' if good else 'MISSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
