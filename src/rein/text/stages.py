"""What a build does to one partition: a function per stage, called by the engine here or on another machine.

    read         a source's partition → documents, each passed through the source's own steps → Parquet
    classify     documents of two sides → the quality classifier
    choose       documents → those the classifier's draw keeps
    overlaps     documents → how many hold each gram of the evaluation sets
    assemble     documents → without duplicates and overlaps → train | heldout
    tokenise     assembled documents → ids
    pack         ids of some partitions → one token shard

Those that find duplicates are in duplicate_stages.py. What takes long to import is imported where it is used: workers
begin anew in each stage. Each function takes (folder of the stage, arguments,
advance) and returns its record, as engine.py asks; arguments and records are plain data.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rein import config as settings
from rein.bpe import trainer
from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.text.documents import NUMBER_BITS, Document, Dropped, Step, fault, n_utf8_bytes
from rein.text.engine import Advance, Record
from rein.text.evaluation_sets import read_evaluation
from rein.text.recipe import Source
from rein.text.shards import write_shard
from rein.text.sources import load_object, open_source
from rein.text.split import cut_tail, split_by_id
from rein.text.store import DocumentWriter, load, load_once, read_documents, read_groups, read_texts, save, whole
from rein.text.tally import Origins, Tally

PART_BYTES = 64 << 20  # of text in one file

# ---------------------------------------------------------------------------------------------------- writing


class Outlet:
    """Where a stage's documents go: kept ones to Parquet files, dropped ones counted, and written if asked.

    NAME.000.parquet, or NAME.SPLIT.000.parquet for each of `splits`, then .001 and so on, each of about PART_BYTES,
    so that no later stage holds more, however large what was read is; NAME.dropped.parquet.
    """

    def __init__(self, folder: Path, task: dict[str, Any], source: str, splits: Sequence[str] = ("",)) -> None:
        name = task["name"]
        self._source = source
        self.tally, self.origins = Tally(), Origins()
        self.files: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
        self._prefixes = {split: folder / f"{name}{split and '.'}{split}" for split in splits}
        self._kept: dict[str, DocumentWriter] = {}
        self._dropped = DocumentWriter(folder / f"{name}.dropped.parquet") if task["keep_dropped"] else None

    def keep(self, document: Document, split: str = "") -> None:
        """Writes a document."""
        if split not in self._kept:
            prefix = self._prefixes[split]
            number = len(self.files[split])
            self._kept[split] = DocumentWriter(prefix.with_name(f"{prefix.name}.{number:03d}.parquet"))
        self._kept[split].append(document)
        self.tally.keep(document)
        self.origins.add(split, document)
        if self._kept[split].n_bytes >= PART_BYTES:
            self._finish(split)

    def _finish(self, split: str) -> None:
        writer = self._kept.pop(split)
        with writer:
            pass
        self.files[split].append({"file": writer.path.name, "documents": writer.n_documents, "bytes": writer.n_bytes})

    def drop(self, dropped: Dropped, document: Document | None = None) -> None:
        """Counts a drop; `document` is what it was."""
        text = dropped.text or (document.text if document is not None else "")
        self.tally.drop(dropped.id, dropped.reason, text, document.url if document is not None else "")
        if self._dropped is not None:
            of = document or Document("", dropped.id, self._source)
            about = {**of.metadata, "dropped": dropped.reason}
            self._dropped.append(Document(_writable(text), _writable(dropped.id), of.source, of.url, of.date, about))

    def __enter__(self) -> Outlet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the files; after an error, removes what is unfinished."""
        if kind is None:
            for split in list(self._kept):
                self._finish(split)
        for writer in (*self._kept.values(), *filter(None, [self._dropped])):
            writer.__exit__(kind, error, trace)


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


# ----------------------------------------------------------------------------------------------------- reading


def gather_links(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The pages that a source's link dumps name by WebText's rules: NAME.npz."""
    from rein.text import links

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
    with Outlet(folder, task, source.name) as outlet:
        for item in items:
            if isinstance(item, Dropped):
                outlet.drop(item)
                continue
            document = _legible(item)
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
    return {
        "source": source.name,
        "counts": outlet.tally.to_dict(),
        "origins": outlet.origins.to_list(),
        "files": outlet.files[""],
    }


def _legible(document: Document) -> Document:
    """The document with names that can be written: half characters, as of a file's name, become \\udcff."""
    parts = (document.id, document.url, document.date, *document.metadata.values())
    if all(map(str.isascii, parts)):
        return document
    id, url, date, *values = (part.encode("utf-8", "backslashreplace").decode() for part in parts)
    metadata = dict(zip(document.metadata, values, strict=True))
    return replace(document, id=id, url=url, date=date, metadata=metadata)


def steps_of(source: Source) -> list[Step]:
    """What a source asks of each document by itself, in order: sound text, length, language, the user's own."""
    steps: list[Step] = [sound]
    steps.append(lambda document: fitting(document, source))
    if source.languages:
        from rein.text.language import keep_language  # its tables take a moment to load

        steps.append(lambda document: keep_language(document, source.languages, source.min_language_confidence))
    for name in source.steps:
        steps += [_own(source, name), sound]
    return steps


def _own(source: Source, name: str) -> Step:
    """A step of the user's.  Raises   UserError when it cannot be imported, or gives back something else."""
    step = load_object(name, f"A step of the source {source.name!r}")

    def checked(document: Document) -> Document | Dropped:
        try:
            result: Any = step(document)
        except UserError:
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
            raise UserError(
                f"The step {name} of the source {source.name!r} failed on {document.id}: {said}.",
                "Correct the step: it takes a Document, and may drop what it cannot use.",
            ) from error
        if not isinstance(result, Document | Dropped) or not all(
            isinstance(text, str) for text in (result.text, result.id, getattr(result, "reason", ""))
        ):
            raise UserError(
                f"The step {name} of the source {source.name!r} gave back {reprlib.repr(result)} for {document.id}.",
                "Return the document, or Dropped(document.id, reason), both from rein.text.documents.",
            )
        kept: Document | Dropped = result
        return kept

    return checked


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
    from rein.text import quality

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
    from rein.text import quality

    classifier = load_once(quality.Classifier.load, task["classifier"])
    scores: list[float] = []
    kept_scores: list[float] = []
    with Outlet(folder, task, task["source"]) as outlet:
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
        "files": outlet.files[""],
        "scores": np.histogram(scores, quality.BINS, (0, 1))[0].tolist(),
        "kept_scores": np.histogram(kept_scores, quality.BINS, (0, 1))[0].tolist(),
        "likely_kept": [fraction * len(scores) for fraction in likely],
    }


# ---------------------------------------------------------------------------------- evaluation sets, and the rest


def _rows_gone(task: dict[str, Any]) -> dict[int, str]:
    """Row → reason, of the documents of this partition that others are kept instead of."""
    partition = task["partition"]
    span = np.array([partition << NUMBER_BITS, (partition + 1) << NUMBER_BITS], dtype=np.uint64)
    reasons: dict[int, str] = {}
    for reason, files in task["gone"].items():
        for file in files:
            numbers = load(Path(file))[0]
            low, high = np.searchsorted(numbers, span).tolist()
            for row in (numbers[low:high] & np.uint64((1 << NUMBER_BITS) - 1)).tolist():
                reasons[row] = reason
    return reasons


def gather_grams(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """The grams of the evaluation sets."""
    from rein.text.grams import gather

    sets = read_evaluation([Path(path) for path in task["against"]])
    grams = gather(sets, task["n"])
    grams.save(folder / "grams.npz")
    return {"grams": len(grams), "sets": len(grams.sets)}


def overlaps(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """In how many documents of this partition each gram of the evaluation sets is: NAME.npy (grams,) int64."""
    from rein.text import contamination
    from rein.text.grams import Grams

    grams = load_once(Grams.load, task["grams"])
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
    with Outlet(folder, task, task["source"], task["splits"]) as outlet:
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
        "files": outlet.files,
        "origins": outlet.origins.to_list(),
        "contamination": cleaner.to_dict() if cleaner is not None else None,
    }


class _Cleaner:
    """Removes what evaluation sets have, and counts it."""

    def __init__(self, task: dict[str, Any]) -> None:
        from rein.text import contamination
        from rein.text.grams import Grams

        self._grams = load_once(Grams.load, task["grams"])
        self._ignored = np.load(task["ignored"])
        self._rules = contamination.Rules(**task["rules"])
        self._tally = contamination.Tally.of(self._grams)

    def __call__(self, document: Document) -> list[Document | Dropped]:
        from rein.text import contamination

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
    tokenizer = load_once(load_tokenizer, task["tokenizer"])
    dtype = np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")
    sizes = [np.zeros((0, 2), dtype=np.int64)]
    with whole(folder / f"{task['name']}.tokens") as file:
        for texts, n_bytes in read_texts(Path(task["file"])):
            if not texts:
                continue
            rows = tokenizer.encode_batch(texts)
            n_tokens = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)) + 1
            tokens = np.full(n_tokens.sum(), tokenizer.eot_id, dtype=dtype)
            inside = np.ones(len(tokens), dtype=bool)
            inside[np.cumsum(n_tokens) - 1] = False
            tokens[inside] = np.concatenate(rows)
            file.write(tokens.tobytes())
            sizes.append(np.column_stack((n_tokens, n_bytes)))
            advance(int(n_bytes.sum()))
    every = np.concatenate(sizes)
    save(folder / f"{task['name']}.npy", every)
    return {"source": task["source"], "documents": len(every), "tokens": int(every[:, 0].sum())}


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
