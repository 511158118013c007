"""The stages of a build that find duplicates, exact and near, among the documents of all partitions.

    fingerprint  documents → hashes of texts and ids, shingle sets, band keys
    repeated     one slice of hashes of all partitions → documents whose text, or id, another one has
    candidates   one band of keys of all partitions → pairs that may be near-duplicates
    verify       the pairs of one partition → those that are, by exact Jaccard
    group        all verified pairs → connected groups → the documents that go

A document's number is its partition · 2³² + its row. The arrays that many tasks read a part of are ascending in
their first row, so that a part is one stretch of a memory map.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.text import duplicates, spark
from rein.text.documents import NUMBER_BITS
from rein.text.engine import Advance, Record
from rein.text.shingles import BANDS, NO_KEY, Sets, band_keys, set_keys, shingle_sets
from rein.text.store import load, read_groups, save

GPT3_TABLES = 10  # Brown 2020, Appendix A
SPARK_SEED = 42
SHOWN_GROUPS, SHOWN_MEMBERS = 8, 4
DUPLICATE, DUPLICATE_ID, NEAR_DUPLICATE = "duplicate", "duplicate id", "near-duplicate"

Numbers = npt.NDArray[np.uint64]


def fingerprint(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Hashes of every document's text and id, and for near-duplicates its shingles and band keys.

    NAME.text.npy, NAME.id.npy    (3, n) uint64, ascending: the halves of a 128-bit hash, and the row
    NAME.keys.npy                 (bands, 2, m) uint64, ascending within each band: keys and rows
    NAME.values.npy, .offsets.npy the sets, as `shingles.Sets`
    """
    path, name, mode = Path(task["file"]), task["name"], task["mode"]
    text_hashes: list[bytes] = []
    id_hashes: list[bytes] = []
    values: list[npt.NDArray[Any]] = []
    sizes: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    keys: list[Numbers] = []
    for group in read_groups([path], ["id", "text"]):
        text_hashes += [_hash(text) for text in group["text"]]
        id_hashes += [_hash(f"{task['source']}\0{id}") for id in group["id"]]  # a name is a name within its source
        if mode is not None:
            sets = _sets(group["text"], mode)
            values.append(sets.values)
            sizes.append(np.diff(sets.offsets))
            keys.append(_keys(sets, mode))
    save(folder / f"{name}.text.npy", _sorted_hashes(text_hashes))
    save(folder / f"{name}.id.npy", _sorted_hashes(id_hashes))
    if mode is not None:
        dtype = np.uint64 if mode == "shingles" else np.uint32
        save(folder / f"{name}.values.npy", np.concatenate([np.zeros(0, dtype=dtype), *values]))
        save(folder / f"{name}.offsets.npy", np.cumsum(np.concatenate(sizes)))
        n_bands = BANDS if mode == "shingles" else GPT3_TABLES
        save(folder / f"{name}.keys.npy", _sorted_keys(np.concatenate([np.zeros((0, n_bands), np.uint64), *keys])))
    return {"documents": len(text_hashes)}


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _sorted_hashes(hashes: list[bytes]) -> Numbers:
    halves = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    rows = np.arange(len(halves), dtype=np.uint64)
    order = np.lexsort((rows, halves[:, 1], halves[:, 0]))
    return np.stack((halves[:, 0], halves[:, 1], rows))[:, order]


def _sets(texts: list[str], mode: str) -> Sets:
    if mode == "shingles":
        return shingle_sets(texts)
    parts = [spark.features(text)[0] for text in texts]
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return Sets(np.concatenate([np.zeros(0, dtype=np.uint32), *(part.astype(np.uint32) for part in parts)]), offsets)


def _keys(sets: Sets, mode: str) -> Numbers:
    if mode == "shingles":
        return set_keys(sets)
    keys = np.full((len(sets.offsets) - 1, GPT3_TABLES), NO_KEY, dtype=np.uint64)
    for row in np.flatnonzero(np.diff(sets.offsets)).tolist():
        indices = sets.row(row).astype(np.uint32, copy=False)
        keys[row] = band_keys(spark.min_hashes(indices, GPT3_TABLES, SPARK_SEED), GPT3_TABLES, 1)
    return keys


def _sorted_keys(keys: Numbers) -> Numbers:
    """(n, bands) → (bands, 2, m), without the documents that have no key."""
    rows = np.flatnonzero(keys[:, 0] != NO_KEY).astype(np.uint64)
    out = np.empty((keys.shape[1], 2, len(rows)), dtype=np.uint64)
    for band in range(keys.shape[1]):
        column = keys[rows, band]
        order = np.argsort(column, kind="stable")
        out[band, 0], out[band, 1] = column[order], rows[order]
    return out


def repeated(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Documents whose text (or id) an earlier one has, by one slice of the hashes of all partitions.

    Of those that are alike, the one of the most preferred source stays, and of these the first.
    """
    gone = _union(task["gone"])
    columns: list[Numbers] = [np.zeros((3, 0), dtype=np.uint64)]
    ranks = [np.zeros(0, dtype=np.int64)]
    for partition, (prefix, rank) in enumerate(_parts(task)):
        hashes = load(Path(f"{prefix}.{task['what']}.npy"))
        low, high = _slice(hashes[0], task["slice"], task["slices"])
        columns.append(hashes[:, low:high] + np.array([[0], [0], [partition << NUMBER_BITS]], dtype=np.uint64))
        ranks.append(np.full(high - low, rank))
        advance((high - low) * 24)
    high_half, low_half, number = np.concatenate(columns, axis=1)
    rank_of = np.concatenate(ranks)
    order = np.lexsort((number, rank_of, low_half, high_half))
    order = order[~_contains(gone, number[order])]
    high_half, low_half, number = high_half[order], low_half[order], number[order]
    first = np.ones(len(number), dtype=bool)
    first[1:] = (high_half[1:] != high_half[:-1]) | (low_half[1:] != low_half[:-1])
    stays = number[np.maximum.accumulate(np.where(first, np.arange(len(number)), 0))]
    pairs = np.stack((number, stays))[:, ~first]
    save(folder / f"{task['name']}.npy", pairs[:, np.argsort(pairs[0])])
    return {"documents": int((~first).sum())}


def _slice(ascending: Numbers, part: int, parts: int) -> tuple[int, int]:
    """Where the `part`-th of so many equal ranges of all 64-bit numbers begins and ends.

    Example  >>> keys = np.array([0, 1, 1 << 63, (1 << 64) - 1], dtype=np.uint64)
             >>> _slice(keys, 0, 2), _slice(keys, 1, 2)
             ((0, 2), (2, 4))
    """
    width = (1 << 64) // parts
    low = int(np.searchsorted(ascending, np.uint64(part * width)))
    high = int(np.searchsorted(ascending, np.uint64((part + 1) * width))) if part + 1 < parts else len(ascending)
    return low, high


def candidates(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The pairs of documents that share a key of one band, in one slice of the keys."""
    gone = _union(task["gone"])
    keys, numbers, ranks = ([np.zeros(0, dtype=np.uint64)] for _ in range(3))
    for partition, (prefix, rank) in enumerate(_parts(task)):
        band = load(Path(f"{prefix}.keys.npy"))[task["band"]]
        low, high = _slice(band[0], task["slice"], task["slices"])
        number = band[1, low:high] + np.uint64(partition << NUMBER_BITS)
        here = ~_contains(gone, number)
        keys.append(band[0, low:high][here])
        numbers.append(number[here])
        ranks.append(np.full(int(here.sum()), rank, dtype=np.uint64))
        advance((high - low) * 16)
    found = duplicates.candidate_pairs(np.concatenate(keys), np.concatenate(numbers), np.concatenate(ranks))
    save(folder / f"{task['name']}.npy", found.pairs.T)
    firsts, counts = np.unique(found.pairs[:, 0] >> np.uint64(NUMBER_BITS), return_counts=True)
    return {
        "pairs": len(found.pairs),
        "large_groups": found.large_groups,
        "by_partition": [firsts.tolist(), counts.tolist()],
    }


def verify(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The pairs whose first document is of one partition, and whose sets are as similar as asked."""
    partition = task["partition"]
    span = np.array([partition << NUMBER_BITS, (partition + 1) << NUMBER_BITS], dtype=np.uint64)
    parts: list[Numbers] = []
    for file in sorted(Path(task["pairs"]).glob("*.npy")):
        pairs = load(file)
        low, high = np.searchsorted(pairs[0], span).tolist()
        parts.append(pairs[:, low:high].T)
    pairs = duplicates.united(parts)
    others = pairs[:, 1] >> np.uint64(NUMBER_BITS)
    rows = (pairs & np.uint64((1 << NUMBER_BITS) - 1)).astype(np.int64)
    prefixes = [prefix for prefix, _ in _parts(task)]
    mine = _opened_sets(prefixes[partition])
    verified, similarities = [np.zeros((0, 2), dtype=np.uint64)], [np.zeros(0)]
    for other in np.unique(others).tolist():
        chosen = others == other
        theirs = mine if other == partition else _opened_sets(prefixes[other])
        found = duplicates.verify(pairs[chosen], mine, rows[chosen, 0], theirs, rows[chosen, 1], task["threshold"])
        verified.append(found.pairs)
        similarities.append(found.similarities)
        advance(int(chosen.sum()))
    every = np.concatenate(verified)
    save(folder / f"{task['name']}.npy", every)
    save(folder / f"{task['name']}.similarity.npy", np.concatenate(similarities))
    return {"candidates": len(pairs), "pairs": len(every)}


def group(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Groups of near-duplicates, and which of their documents go: near.npy (2, n), the number and what stays."""
    pairs = [np.zeros((0, 2), dtype=np.uint64)]
    similarities = [np.zeros(0)]
    for name in task["names"]:
        pairs.append(np.load(Path(task["pairs"]) / f"{name}.npy"))
        similarities.append(np.load(Path(task["pairs"]) / f"{name}.similarity.npy"))
    every = np.concatenate(pairs)
    members, roots = duplicates.components(every)
    rank_of = np.array([rank for _, rank in _parts(task)], dtype=np.int64)
    ranks = rank_of[(members >> np.uint64(NUMBER_BITS)).astype(np.int64)]
    found = duplicates.survivors(every, members, ranks, task["rule"])
    save(folder / "near.npy", np.stack((found.dropped, found.stays)))
    _, starts, sizes = np.unique(
        roots[order := np.argsort(roots, kind="stable")], return_index=True, return_counts=True
    )
    largest = np.argsort(-sizes, kind="stable")[:SHOWN_GROUPS].tolist()
    return {
        "dropped": len(found.dropped),
        "groups": len(sizes),
        "sizes": {str(size): count for size, count in sorted(Counter(sizes.tolist()).items())},
        "similarities": np.histogram(np.concatenate(similarities), bins=100, range=(0, 1))[0].tolist(),
        "largest": [_shown(members[order[starts[at] : starts[at] + sizes[at]]], found.dropped) for at in largest],
    }


def _shown(members: Numbers, dropped: Numbers) -> dict[str, Any]:
    """A group by its first members, those that stay before the others."""
    gone = _contains(dropped, members)
    first = np.concatenate((members[~gone], members[gone]))[:SHOWN_MEMBERS]
    return {"size": len(members), "members": first.tolist(), "stay": int((~gone).sum())}


def _parts(task: dict[str, Any]) -> list[tuple[str, int]]:
    """The files' common beginning and the rank of every partition."""
    table = json.loads(Path(task["parts"]).read_text(encoding="utf-8"))
    return list(zip(table["prefixes"], table["ranks"], strict=True))


def _opened_sets(prefix: str) -> Sets:
    return Sets(load(Path(f"{prefix}.values.npy")), np.load(f"{prefix}.offsets.npy"))


def _union(files: Sequence[str]) -> Numbers:
    """The first rows of the files together, ascending."""
    return np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *(load(Path(file))[0] for file in files)]))


def _contains(ascending: Numbers, numbers: Numbers) -> npt.NDArray[np.bool_]:
    at = np.searchsorted(ascending, numbers)
    inside = at < len(ascending)
    inside[inside] = ascending[at[inside]] == numbers[inside]
    return inside
