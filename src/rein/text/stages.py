"""What a build does to one partition: a function per stage, called by the engine here or on another machine.

    read         a source's partition → documents, each passed through the source's own steps → Parquet
    classify     documents of two sides → the quality classifier
    choose       documents → those the classifier's draw keeps
    fingerprint  documents → hashes of texts and ids, shingle sets, band keys
    repeated     one slice of hashes of all partitions → documents whose text, or id, another one has
    candidates   one band of keys of all partitions → pairs that may be near-duplicates
    verify       the pairs of one partition → those that are, by exact Jaccard
    overlaps     documents → how many hold each gram of the evaluation sets
    assemble     documents → without duplicates and overlaps → train | heldout
    tokenise     assembled documents → ids
    pack         ids of some partitions → one token shard

A document's number is its partition · 2³² + its row. Each function takes (folder of the stage, arguments,
advance) and returns its record, as engine.py asks; arguments and records are plain data.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein import config as settings
from rein.bpe import trainer
from rein.bpe.tokenizer import load_tokenizer
from rein.text import contamination, duplicates, links, quality, spark
from rein.text.documents import Document, Dropped, Step, fault, n_utf8_bytes
from rein.text.engine import Advance, Record
from rein.text.evaluation_sets import read_evaluation
from rein.text.recipe import Source
from rein.text.shards import write_shard
from rein.text.shingles import BANDS, NO_KEY, Sets, band_keys, set_keys, shingle_sets
from rein.text.sources import load_object, open_source
from rein.text.split import cut_tail, split_by_id
from rein.text.store import DocumentWriter, read_documents, read_groups, whole
from rein.text.tally import Origins, Tally

NUMBER_BITS = 32
GPT3_TABLES = 10  # Brown 2020, Appendix A
SPARK_SEED = 42
SHOWN_GROUPS, SHOWN_MEMBERS = 8, 4
DUPLICATE, DUPLICATE_ID, NEAR_DUPLICATE = "duplicate", "duplicate id", "near-duplicate"

Numbers = npt.NDArray[np.uint64]


# ---------------------------------------------------------------------------------------------------- writing


class Outlet:
    """Where a stage's documents go: kept ones to Parquet files, dropped ones counted, and written if asked.

    NAME.parquet, or NAME.SPLIT.parquet for each of `splits`; NAME.dropped.parquet.
    """

    def __init__(self, folder: Path, name: str, keep_dropped: bool, splits: Sequence[str] = ("",)) -> None:
        self.tally, self.origins = Tally(), Origins()
        self._stack = ExitStack()
        self.kept = {
            split: self._stack.enter_context(DocumentWriter(folder / f"{name}{split and '.'}{split}.parquet"))
            for split in splits
        }
        self._dropped = (
            self._stack.enter_context(DocumentWriter(folder / f"{name}.dropped.parquet")) if keep_dropped else None
        )

    def keep(self, document: Document, split: str = "") -> None:
        """Writes a document."""
        self.kept[split].append(document)
        self.tally.keep(document)
        self.origins.add(split, document)

    def drop(self, dropped: Dropped, document: Document | None = None) -> None:
        """Counts a drop; `document` is what it was."""
        text = document.text if document is not None else ""
        self.tally.drop(dropped.id, dropped.reason, text)
        if self._dropped is not None:
            of = document or Document("", dropped.id, "")
            about = {**of.metadata, "dropped": dropped.reason}
            self._dropped.append(Document(_writable(text), _writable(dropped.id), of.source, of.url, of.date, about))

    def __enter__(self) -> Outlet:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes an array as .npy, whole or not at all."""
    array = np.ascontiguousarray(array)
    with whole(path) as file:
        np.lib.format.write_array_header_2_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.tobytes())  # numpy's own writing says nothing of a full disk


def _load(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


# ----------------------------------------------------------------------------------------------------- reading


def gather_links(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The pages that a source's link dumps name by WebText's rules: NAME.npz."""
    found = links.read_links([Path(path) for path in task["dumps"]], links.LinkRules(task["min_score"], task["until"]))
    found.save(folder / f"{task['name']}.npz")
    tally = Tally()
    tally.items, tally.documents = found.rows, len(found)
    dropped = {reason: {"count": count, "first": []} for reason, count in found.dropped.items()}
    return {"counts": {**tally.to_dict(), "dropped": dropped}}


def read(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Reads a source's partition, and passes every document through the steps that need no other document."""
    source = settings.from_dict(Source, task["source"], f"the source {task['source']['name']!r}")
    reader = open_source(source)
    items = chain.from_iterable(reader.read(partition, advance) for partition in task["partitions"])
    steps = steps_of(source)
    most_documents = source.max_documents or float("inf")
    most_bytes = (source.max_mb or float("inf")) * 1e6
    with Outlet(folder, task["name"], task["keep_dropped"]) as outlet:
        for item in items:
            if isinstance(item, Dropped):
                outlet.drop(item)
                continue
            document = item
            for step in steps:
                result = step(document)
                if isinstance(result, Dropped):
                    outlet.drop(result, document)
                    break
                document = result
            else:
                outlet.keep(document)
                if outlet.tally.documents >= most_documents or outlet.tally.bytes >= most_bytes:
                    break
    return {"source": source.name, "counts": outlet.tally.to_dict(), "origins": outlet.origins.to_list()}


def steps_of(source: Source) -> list[Step]:
    """What a source asks of each document by itself, in order: sound text, length, language, the user's own."""
    steps: list[Step] = [sound]
    steps.append(lambda document: fitting(document, source))
    if source.languages:
        from rein.text.language import keep_language  # its tables take a moment to load

        steps.append(lambda document: keep_language(document, source.languages, source.min_language_confidence))
    for name in source.steps:
        steps += [load_object(name, f"A step of the source {source.name!r}"), sound]
    return steps


def sound(document: Document) -> Document | Dropped:
    """A document whose text can be written and tokenised."""
    reason = fault(document.text)
    return Dropped(document.id, reason) if reason else document


def fitting(document: Document, source: Source) -> Document | Dropped:
    """A document of the length that the source wants."""
    if len(document.text) < source.shortest:
        return Dropped(document.id, "too short")
    if source.max_chars is not None and len(document.text) > source.max_chars:
        return Dropped(document.id, "too long")
    return document


# ----------------------------------------------------------------------------------------------------- quality


def classify(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Trains the classifier on the documents of the two sides."""

    def texts(files: Sequence[str]) -> Iterator[str]:
        for file in files:
            for group in read_groups([Path(file)], ["text"]):
                yield from group["text"]
                advance(sum(map(len, group["text"])))

    classifier, report = quality.train(
        texts(task["positive"]),
        texts(task["negative"]),
        max_documents=task["max_documents"],
        l2=task["l2"],
        seed=task["seed"],
    )
    classifier.save(folder / "classifier.safetensors")
    return {"report": report}


def choose(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Keeps the documents that the classifier's draw keeps."""
    classifier = quality.Classifier.load(Path(task["classifier"]))
    scores: list[float] = []
    kept_scores: list[float] = []
    with Outlet(folder, task["name"], task["keep_dropped"]) as outlet:
        for document in read_documents([Path(task["file"])]):
            score = classifier.score(document.text)
            scores.append(score)
            about = {**document.metadata, "quality": f"{score:.6f}"}
            scored = replace(document, metadata=about)
            if quality.keep(score, document.id, task["seed"], task["alpha"]):
                kept_scores.append(score)
                outlet.keep(scored)
            else:
                outlet.drop(Dropped(document.id, quality.LOW_QUALITY), scored)
            advance(n_utf8_bytes(document.text))
    likely = quality.kept_fraction(np.array(scores)) if scores else [0.0] * len(quality.ALPHAS)
    return {
        "source": task["source"],
        "counts": outlet.tally.to_dict(),
        "scores": np.histogram(scores, quality.BINS, (0, 1))[0].tolist(),
        "kept_scores": np.histogram(kept_scores, quality.BINS, (0, 1))[0].tolist(),
        "likely_kept": [fraction * len(scores) for fraction in likely],
    }


# -------------------------------------------------------------------------------------------------- duplicates


def fingerprint(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """Hashes of every document's text and id, and for near-duplicates its shingles and band keys.

    NAME.text.npy, NAME.id.npy    (n, 3) uint64, ascending: a 128-bit hash in two, and the row
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
        id_hashes += [_hash(id) for id in group["id"]]
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
    return np.column_stack((halves, rows))[order]


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
    hashes, numbers = [np.zeros((0, 2), dtype=np.uint64)], [np.zeros(0, dtype=np.uint64)]
    ranks = [np.zeros(0, dtype=np.int64)]
    for partition, (prefix, rank) in enumerate(_parts(task)):
        rows = _load(Path(f"{prefix}.{task['what']}.npy"))
        low, high = np.searchsorted(rows[:, 0], _bounds(task["slice"], task["slices"])).tolist()
        part = rows[low:high]
        hashes.append(part[:, :2])
        numbers.append(part[:, 2] + np.uint64(partition << NUMBER_BITS))
        ranks.append(np.full(high - low, rank))
        advance((high - low) * 24)
    every, number, rank_of = np.concatenate(hashes), np.concatenate(numbers), np.concatenate(ranks)
    here = ~_contains(gone, number)
    every, number, rank_of = every[here], number[here], rank_of[here]
    order = np.lexsort((number, rank_of, every[:, 1], every[:, 0]))
    every, number = every[order], number[order]
    first = np.ones(len(number), dtype=bool)
    first[1:] = (every[1:] != every[:-1]).any(axis=1)
    stays = number[np.maximum.accumulate(np.where(first, np.arange(len(number)), 0))] if len(number) else number
    pairs = np.column_stack((number, stays))[~first]
    save(folder / f"{task['name']}.npy", pairs[np.argsort(pairs[:, 0])])
    return {"documents": int((~first).sum())}


def _bounds(part: int, parts: int) -> Numbers:
    """The first key of a slice, and the first behind it; the last slice ends behind the last key there can be."""
    width = (1 << 64) // parts
    return np.array([part * width, (part + 1) * width - 1 if part + 1 < parts else (1 << 64) - 1], dtype=np.uint64)


def candidates(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The pairs of documents that share a key of one band, in one slice of the keys."""
    gone = _union(task["gone"])
    keys, numbers, ranks = ([np.zeros(0, dtype=np.uint64)] for _ in range(3))
    for partition, (prefix, rank) in enumerate(_parts(task)):
        band = _load(Path(f"{prefix}.keys.npy"))[task["band"]]
        low, high = np.searchsorted(band[0], _bounds(task["slice"], task["slices"])).tolist()
        number = band[1, low:high] + np.uint64(partition << NUMBER_BITS)
        here = ~_contains(gone, number)
        keys.append(band[0, low:high][here])
        numbers.append(number[here])
        ranks.append(np.full(int(here.sum()), rank, dtype=np.uint64))
        advance((high - low) * 16)
    found = duplicates.candidate_pairs(np.concatenate(keys), np.concatenate(numbers), np.concatenate(ranks))
    save(folder / f"{task['name']}.npy", found.pairs)
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
        pairs = _load(file)
        low, high = np.searchsorted(pairs[:, 0], span).tolist()
        parts.append(pairs[low:high])
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
    """Groups of near-duplicates, and which of their documents go: near.npy (n, 2), the number and what stays."""
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
    save(folder / "near.npy", np.column_stack((found.dropped, found.stays)))
    _, starts, sizes = np.unique(
        roots[order := np.argsort(roots, kind="stable")], return_index=True, return_counts=True
    )
    largest = np.argsort(-sizes, kind="stable")[:SHOWN_GROUPS].tolist()
    return {
        "dropped": len(found.dropped),
        "groups": len(sizes),
        "sizes": {str(size): count for size, count in sorted(Counter(sizes.tolist()).items())},
        "similarities": np.histogram(np.concatenate(similarities), bins=20, range=(0, 1))[0].tolist(),
        "largest": [
            {
                "size": int(sizes[at]),
                "members": members[order[starts[at] : starts[at] + min(sizes[at], SHOWN_MEMBERS)]].tolist(),
            }
            for at in largest
        ],
    }


def _parts(task: dict[str, Any]) -> list[tuple[str, int]]:
    """The files' common beginning and the rank of every partition."""
    table = json.loads(Path(task["parts"]).read_text(encoding="utf-8"))
    return list(zip(table["prefixes"], table["ranks"], strict=True))


def _opened_sets(prefix: str) -> Sets:
    return Sets(_load(Path(f"{prefix}.values.npy")), np.load(f"{prefix}.offsets.npy"))


def _union(files: Sequence[str]) -> Numbers:
    """The first column of the files, ascending."""
    return np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *(_load(Path(file))[:, 0] for file in files)]))


def _contains(ascending: Numbers, numbers: Numbers) -> npt.NDArray[np.bool_]:
    at = np.searchsorted(ascending, numbers)
    inside = at < len(ascending)
    inside[inside] = ascending[at[inside]] == numbers[inside]
    return inside


# ---------------------------------------------------------------------------------- evaluation sets, and the rest


def _rows_gone(task: dict[str, Any]) -> dict[int, str]:
    """Row → reason, of the documents of this partition that others are kept instead of."""
    partition = task["partition"]
    span = np.array([partition << NUMBER_BITS, (partition + 1) << NUMBER_BITS], dtype=np.uint64)
    reasons: dict[int, str] = {}
    for reason, files in task["gone"].items():
        for file in files:
            numbers = _load(Path(file))[:, 0]
            low, high = np.searchsorted(numbers, span).tolist()
            for row in (numbers[low:high] & np.uint64((1 << NUMBER_BITS) - 1)).tolist():
                reasons[row] = reason
    return reasons


def gather_grams(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The grams of the evaluation sets."""
    sets = read_evaluation([Path(path) for path in task["against"]])
    grams = contamination.gather(sets, task["n"])
    grams.save(folder / "grams.npz")
    return {"grams": len(grams), "sets": len(grams.sets)}


def overlaps(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """In how many documents of this partition each gram of the evaluation sets is: NAME.npy (grams,) int64."""
    grams = contamination.Grams.load(Path(task["grams"]))
    gone = _rows_gone(task)
    counts = np.zeros(len(grams), dtype=np.int64)
    row = 0
    for group in read_groups([Path(task["file"])], ["text"]):
        for text in group["text"]:
            if row not in gone:
                counts[contamination.count(text, grams)] += 1
            row += 1
    save(folder / f"{task['name']}.npy", counts)
    return {"documents": row - len(gone)}


def assemble(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """What is left of a partition, without duplicates and overlaps, in its two parts: NAME.SPLIT.parquet."""
    gone = _rows_gone(task)
    cleaner = _Cleaner(task["cleaning"]) if task["cleaning"] is not None else None
    with Outlet(folder, task["name"], task["keep_dropped"], task["splits"]) as outlet:
        for row, document in enumerate(read_documents([Path(task["file"])])):
            if row in gone:
                outlet.drop(Dropped(document.id, gone[row]), document)
                continue
            for result in cleaner(document) if cleaner is not None else (document,):
                if isinstance(result, Dropped):
                    outlet.drop(result, document)
                    continue
                for split, part in _placed(result, task):
                    if part.text:
                        outlet.keep(part, split)
    return {
        "source": task["source"],
        "counts": outlet.tally.to_dict(),
        "splits": {
            split: {"documents": writer.n_documents, "bytes": writer.n_bytes} for split, writer in outlet.kept.items()
        },
        "origins": outlet.origins.to_list(),
        "contamination": cleaner.to_dict() if cleaner is not None else None,
    }


class _Cleaner:
    """Removes what evaluation sets have, and counts it."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._grams = contamination.Grams.load(Path(task["grams"]))
        self._ignored = np.load(task["ignored"])
        self._rules = contamination.Rules(**task["rules"])
        self._tally = contamination.Tally.of(self._grams)

    def __call__(self, document: Document) -> list[Document | Dropped]:
        cleaning = contamination.clean(document.text, self._grams, self._ignored, self._rules)
        self._tally.add(document, cleaning, self._grams, self._rules)
        return contamination.outcomes(document, cleaning)

    def to_dict(self) -> dict[str, Any]:
        return self._tally.to_dict()


def _placed(document: Document, task: dict[str, Any]) -> list[tuple[str, Document]]:
    """Which part a document goes to: the rules of split.py."""
    heldout_frac = task["heldout_frac"]
    if heldout_frac == 0:
        return [("train", document)]
    if task["kind"] == "text":
        return list(zip(("train", "heldout"), cut_tail(document, heldout_frac), strict=True))
    if task["kind"] == "pydocs":
        held = document.metadata["package"] in task["heldout_packages"]
        return [("heldout" if held else "train", document)]
    return [(split_by_id(document, heldout_frac, task["seed"]), document)]


# ------------------------------------------------------------------------------------------------------ tokens


def learn(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The tokenizer: the one that is given, or one learnt from documents spread evenly over the train part."""
    if task["given"] is not None:
        tokenizer = load_tokenizer(Path(task["given"]))
    else:
        every = -(-task["bytes"] // task["max_bytes"])

        def sample() -> Iterator[str]:
            index = 0
            for group in read_groups([Path(file) for file in task["files"]], ["text"]):
                for text in group["text"]:
                    if index % every == 0:
                        advance(n_utf8_bytes(text))
                        yield text
                    index += 1

        tokenizer = trainer.train(sample(), task["n_vocab"], max_bytes=task["max_bytes"])
    tokenizer.save(folder / "tokenizer.json")
    return {
        "file": "tokenizer.json",
        "sha256": tokenizer.sha256(),
        "kind": tokenizer.kind,
        "n_vocab": tokenizer.n_vocab,
        "eot_id": tokenizer.eot_id,
    }


def tokenise(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The ids of assembled documents, each ended by the end-of-text id.

    NAME.tokens   uint16 or uint32, little-endian, nothing else
    NAME.npy      (n, 2) int64: tokens and UTF-8 bytes of each document
    """
    tokenizer = load_tokenizer(Path(task["tokenizer"]))
    eot = np.array([tokenizer.eot_id], dtype=np.uint32)
    dtype = "<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4"
    sizes: list[tuple[int, int]] = []
    with whole(folder / f"{task['name']}.tokens") as file:
        for group in read_groups([Path(task["file"])], ["text"]):
            parts: list[npt.NDArray[np.uint32]] = []
            for text, ids in zip(group["text"], tokenizer.encode_batch(group["text"]), strict=True):
                parts += [ids, eot]
                sizes.append((len(ids) + 1, n_utf8_bytes(text)))
            if parts:
                file.write(np.concatenate(parts).astype(dtype).tobytes())
            advance(sum(n_bytes for _, n_bytes in sizes[-len(group["text"]) :]))
    save(folder / f"{task['name']}.npy", np.array(sizes, dtype=np.int64).reshape(-1, 2))
    return {"source": task["source"], "documents": len(sizes), "tokens": sum(size for size, _ in sizes)}


def pack(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """One token shard of consecutive documents, written into the corpus folder."""
    lengths = [np.load(piece["sizes"])[piece["first"] : piece["end"]] for piece in task["pieces"]]

    def tokens() -> Iterator[npt.NDArray[Any]]:
        dtype = "<u2" if task["n_vocab"] <= 1 << 16 else "<u4"
        for piece in task["pieces"]:
            every = np.load(piece["sizes"])[:, 0]
            start, count = int(every[: piece["first"]].sum()), int(every[piece["first"] : piece["end"]].sum())
            whole_piece = np.memmap(piece["tokens"], dtype=dtype, mode="r").view(np.ndarray)
            for at in range(start, start + count, 1 << 22):
                part = whole_piece[at : min(at + (1 << 22), start + count)]
                yield part
                advance(part.nbytes)

    return write_shard(Path(task["out"]), task["name"], np.concatenate(lengths), tokens(), task["n_vocab"])
