"""How fast `rein.bpe` learns and encodes, against Hugging Face tokenizers and tiktoken, on one thread.

    python benchmarks/bpe_speed.py                     100 MB, everything
    python benchmarks/bpe_speed.py --gpt2 DIR          with OpenAI's encoder.json and vocab.bpe
    python benchmarks/bpe_speed.py --mb 20 --repeat 1  a first impression

The text is that of the Python installation: source, and the documentation in it; each file once. Every measurement
has a process of its own, on one core, after a word to warm up, so that caches are cold. Merges and ids must be
identical, or the benchmark fails. "gigatoken, bare" is the engine without what Rein adds to it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import pickle
import resource
import sys
import sysconfig
import tempfile
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
LARGEST_FILE_BYTES = 400_000
TRAIN_TARGET, ENCODE_TARGET = 2, 5


@dataclass(frozen=True)
class Result:
    """One measurement; `digest` is of the merges or the ids."""

    cpu_s: float
    wall_s: float
    digest: str


def collect(n_bytes: int) -> list[str]:
    """Texts of this Python installation, no two alike, `n_bytes` in all or what there is."""
    paths = sysconfig.get_paths()
    texts, seen, size = [], set(), 0
    for folder in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"])):
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix not in (".py", ".rst", ".txt", ".md", ".pyi") or not path.is_file():
                continue
            data = path.read_bytes()
            digest = hashlib.sha256(data).digest()
            if digest in seen or len(data) > min(LARGEST_FILE_BYTES, n_bytes - size):
                continue
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            if comparable(text):
                texts.append(text)
                seen.add(digest)
                size += len(data)
    return texts


def comparable(text: str) -> bool:
    """Whether every character is older than this Python's Unicode: about newer ones, libraries do not agree yet."""
    return text.isascii() or all(unicodedata.category(character) != "Cn" for character in set(text))


# --------------------------------------------------------------------- each of these runs in a process of its own


def measured(work: Callable[[], object], digest: Callable[[object], str]) -> Result:
    """Runs `work` once; processes that it starts count too."""

    def cpu() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    cpu_s, wall_s = cpu(), time.perf_counter()
    outcome = work()
    cpu_s, wall_s = cpu() - cpu_s, time.perf_counter() - wall_s
    return Result(cpu_s, wall_s, digest(outcome))


def of_merges(merges) -> str:
    """A digest of merges."""
    return hashlib.sha256(repr([(left, right) for left, right in merges]).encode()).hexdigest()[:12]


def of_ids(rows) -> str:
    """A digest of ids."""
    import numpy as np

    sha256 = hashlib.sha256()
    for row in rows:
        sha256.update(np.asarray(row, dtype="<u4").tobytes())
    return sha256.hexdigest()[:12]


def load(corpus: Path) -> list[str]:
    """The texts in the file `corpus`."""
    return pickle.loads(corpus.read_bytes())


def train_rein(corpus: Path, n_vocab: int) -> Result:
    """`rein.bpe.trainer.train`, as `rein bpe train` calls it."""
    from rein.bpe.trainer import train

    texts = load(corpus)
    return measured(lambda: train(texts, n_vocab).merges, of_merges)


def train_gigatoken(corpus: Path, n_vocab: int) -> Result:
    """The engine on one buffer, its chatter sent away."""
    import gigatoken

    data = b"\xff".join(text.encode() for text in load(corpus))
    quiet = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet[1], stream)
    return measured(lambda: gigatoken.train_bpe(data, n_vocab - 1, [], separator=b"\xff")[1], of_merges)


def train_huggingface(corpus: Path, n_vocab: int) -> Result:
    """Hugging Face tokenizers, from the list of texts."""
    import tokenizers

    from rein.bpe.alphabet import from_visible

    texts = load(corpus)
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_vocab - 1,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def merges(_: object) -> str:
        pairs = json.loads(peer.to_str())["model"]["merges"]
        return of_merges((from_visible(left, ""), from_visible(right, "")) for left, right in pairs)

    return measured(lambda: peer.train_from_iterator(texts, trainer), merges)


def encode_rein(corpus: Path, vocabulary: Path) -> Result:
    """`Tokenizer.encode`, text by text."""
    from rein.bpe.tokenizer import load_tokenizer

    texts, tokenizer = load(corpus), load_tokenizer(vocabulary)
    tokenizer.encode("warm")
    return measured(lambda: [tokenizer.encode(text) for text in texts], of_ids)


def encode_rein_batch(corpus: Path, vocabulary: Path) -> Result:
    """`Tokenizer.encode_batch`; in a worker process it stays on one core."""
    from rein.bpe.tokenizer import load_tokenizer

    texts, tokenizer = load(corpus), load_tokenizer(vocabulary)
    tokenizer.encode_batch(["warm"])
    return measured(lambda: tokenizer.encode_batch(texts), of_ids)


def encode_gigatoken(corpus: Path, vocabulary: Path) -> Result:
    """The engine, text by text."""
    import gigatoken

    content = json.loads(vocabulary.read_bytes()) | {"added_tokens": []}
    texts, peer = load(corpus), gigatoken.Tokenizer.from_json(json.dumps(content))
    peer.encode("warm")
    return measured(lambda: [peer.encode(text) for text in texts], of_ids)


def encode_tiktoken(corpus: Path, vocabulary: Path) -> Result:
    """tiktoken, text by text."""
    import tiktoken

    from rein.bpe.alphabet import PATTERN, from_visible

    ids = json.loads(vocabulary.read_bytes())["model"]["vocab"]
    ranks = {from_visible(token, ""): id for token, id in ids.items() if id != len(ids) - 1}
    peer = tiktoken.Encoding("peer", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    texts = load(corpus)
    peer.encode_ordinary("warm")
    return measured(lambda: [peer.encode_ordinary(text) for text in texts], of_ids)


def encode_huggingface(corpus: Path, vocabulary: Path) -> Result:
    """Hugging Face tokenizers, text by text."""
    import tokenizers

    content = json.loads(vocabulary.read_bytes()) | {"added_tokens": []}
    texts, peer = load(corpus), tokenizers.Tokenizer.from_str(json.dumps(content))
    peer.encode("warm")
    return measured(lambda: [peer.encode(text).ids for text in texts], of_ids)


# ------------------------------------------------------------------------------------------------- the two tables


def best(job: Callable[..., Result], repeat: int, *arguments: object) -> Result:
    """The run with the least CPU time, each in a fresh process."""
    results = []
    for _ in range(repeat):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results.append(pool.submit(job, *arguments).result())
    assert len({result.digest for result in results}) == 1, f"{job.__name__} is not deterministic"
    return min(results, key=lambda result: result.cpu_s)


def table(title: str, rows: list[tuple[str, float, Result]], expected: dict[float, str]) -> None:
    """Prints rows of (name, MB of text, result); `expected` is the right digest for each amount of text."""
    names = f"{'text MB':>8}{'CPU s':>9}{'wall s':>9}{'MB/s CPU':>10}{'MB/s wall':>11}  same"
    print(f"\n{title}\n{'':<22}{names}")
    for name, mb, result in rows:
        same = "yes" if result.digest == expected[mb] else "NO"
        speeds = f"{mb / result.cpu_s:>10.1f}{mb / result.wall_s:>11.1f}"
        print(f"{name:<22}{mb:>8.1f}{result.cpu_s:>9.2f}{result.wall_s:>9.2f}{speeds}  {same}")


def version(package: str) -> str:
    """A package with its version."""
    return f"{package} {importlib.metadata.version(package)}"


def ratio(rows: list[tuple[str, float, Result]], ours: str, peer: str) -> float:
    """How many times as fast as `peer` we are, by CPU time."""
    speed = {name: mb / result.cpu_s for name, mb, result in rows}
    return speed[ours] / speed[peer]


def save(texts: list[str], path: Path) -> tuple[Path, float]:
    """Writes texts for the other processes; returns the file and its megabytes."""
    path.write_bytes(pickle.dumps(texts))
    return path, sum(len(text.encode()) for text in texts) / 1e6


def learning(corpus: Path, mb: float, options: argparse.Namespace) -> tuple[float, bool]:
    """The first table. Returns the ratio to the peer, and whether all merges are identical."""
    peer = version("tokenizers")
    jobs = {"rein": train_rein, "gigatoken, bare": train_gigatoken, peer: train_huggingface}
    rows = [(who, mb, best(job, options.repeat, corpus, options.n_vocab)) for who, job in jobs.items()]
    right = rows[-1][2].digest
    table(f"Learning {options.n_vocab:,} entries", rows, {mb: right})
    return ratio(rows, "rein", peer), all(result.digest == right for _, _, result in rows)


def encoding(corpus: Path, mb: float, some: Path, some_mb: float, options: argparse.Namespace) -> tuple[float, bool]:
    """The second table. Returns the ratio to the peer, and whether all ids are identical."""
    vocabulary = corpus.with_name("tokenizer.json")
    if options.gpt2:
        from rein.bpe.byte_level import from_openai

        which = "GPT-2's own vocabulary"
        from_openai(options.gpt2 / "encoder.json", options.gpt2 / "vocab.bpe").save(vocabulary)
    else:
        from rein.bpe.trainer import train

        n_vocab = 50_257 if mb > 20 else options.n_vocab  # little text does not fill a vocabulary of GPT-2's size
        which = f"{n_vocab:,} entries learned from this text"
        train(load(corpus), n_vocab).save(vocabulary)
    peer = version("tiktoken")
    jobs = {
        "rein, encode": encode_rein,
        "rein, encode_batch": encode_rein_batch,
        "gigatoken, bare": encode_gigatoken,
        peer: encode_tiktoken,
    }
    rows = [(who, mb, best(job, options.repeat, corpus, vocabulary)) for who, job in jobs.items()]
    right = {mb: rows[-1][2].digest, some_mb: best(encode_tiktoken, 1, some, vocabulary).digest}
    rows.append((version("tokenizers"), some_mb, best(encode_huggingface, 1, some, vocabulary)))
    table(f"Encoding with {which}", rows, right)
    return ratio(rows, "rein, encode", peer), all(result.digest == right[amount] for _, amount, result in rows)


def main() -> int:
    """Both tables and the verdict; 1 where a target is missed or anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=100, help="megabytes of text (default: 100)")
    parser.add_argument("--slow-mb", type=float, default=10, help="for the peer that encodes slowly (default: 10)")
    parser.add_argument("--n-vocab", type=int, default=32_768, help="entries to learn (default: 32768)")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each, the best counts (default: 2)")
    parser.add_argument("--gpt2", type=Path, help="folder with OpenAI's encoder.json and vocab.bpe to encode with")
    options = parser.parse_args()

    os.environ |= ONE_THREAD
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    texts = collect(int(options.mb * 1e6))
    with tempfile.TemporaryDirectory(prefix="rein-bench-") as name:
        corpus, mb = save(texts, Path(name) / "corpus")
        some, some_mb = save(texts[:: max(1, round(options.mb / options.slow_mb))], Path(name) / "some")
        print(f"{len(texts):,} texts, {mb:.1f} MB, Python {sys.version.split()[0]}, one thread", flush=True)
        learned, same_merges = learning(corpus, mb, options)
        encoded, same_ids = encoding(corpus, mb, some, some_mb, options)

    print(f"\nlearning: {learned:.1f} times as fast as {version('tokenizers')} (target: {TRAIN_TARGET})")
    print(f"encoding: {encoded:.1f} times as fast as {version('tiktoken')} (target: {ENCODE_TARGET})")
    if not (same_merges and same_ids):
        print("FAILED: merges or ids differ")
    return 0 if same_merges and same_ids and learned >= TRAIN_TARGET and encoded >= ENCODE_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
