"""`rein text build`: text in, a corpus out, in three stages that are each made once.

    documents   source → kept or dropped with a reason → train | heldout → documents/*.parquet
    tokenizer   one that is given, or byte-level BPE learnt from the train part → tokenizer.json
    shards      documents → ids, each ended by the end-of-text id → *.bin, *.idx

    data/NAME/  config.json  manifest.json  tokenizer.json  documents/  train-00000.bin  train-00000.idx  …

Every file is written under a temporary name and renamed when it is on disk; stages.json lists what is
finished, and manifest.json, written last, replaces it. A build that was killed goes on behind its last
finished stage (the shards: behind the last shard) and gives the same bytes as one that was not.

Memory does not grow with the text, but for some 100 bytes per document that find exact duplicates.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rein import __version__
from rein import config as settings
from rein.bpe import trainer
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.config import setting
from rein.errors import UserError, writing
from rein.progress import Progress
from rein.run import lock_folder, write_atomically
from rein.text import shards
from rein.text.documents import Document, Dropped, fault, n_utf8_bytes
from rein.text.pydocs import STDLIB, PyDocs
from rein.text.shards import ShardWriter, file_sha256
from rein.text.show import describe
from rein.text.sources import Folder, JsonLines, Parquet, Source, TextFiles, inputs_sha256
from rein.text.split import SPLITS, cut_tail, heldout_packages, split_by_id
from rein.text.store import DocumentWriter, read_documents, read_groups
from rein.text.tally import Tally

CONFIG = "config.json"
_LOCK = "build.lock"
_POOL = "pool"
# Settings that the first stage does not depend on, so they may change until the second one is finished.
_AFTER_DOCUMENTS = {"tokenizer", "n_vocab", "tokenizer_mb", "shard_tokens"}


@dataclass(frozen=True)
class BuildConfig:
    """Settings of `rein text build`."""

    paths: tuple[Path, ...] = setting((), "your folders or files; none for pydocs", positional=True)
    source: Literal["pydocs", "folder", "text", "jsonl", "parquet"] = setting(
        "pydocs", "pydocs: the documentation inside this Python installation; the others read PATHS"
    )
    out: Path | None = setting(None, "the corpus folder; data/pydocs, or data/ and the first path's name, if not given")
    seed: int = setting(0, "decides which documents are held out")
    heldout_frac: float = setting(
        0.05, "part of the text held out for measuring; 0: none", unit="fraction of bytes or documents"
    )

    extensions: tuple[str, ...] = setting(
        (".txt", ".md", ".rst"), "ends of file names to read (folder)", group="reading"
    )
    text_field: str = setting("text", "field or column that holds the text (jsonl, parquet)", group="reading")
    license: str = setting("not stated", "licence of your text, kept with each document (not pydocs)", group="reading")
    min_chars: int = setting(40, "shortest docstring to keep (pydocs)", unit="characters", group="reading")
    max_documents: int | None = setting(None, "stop after keeping so many", unit="documents", group="reading")
    max_mb: float | None = setting(None, "stop after keeping so much text", unit="10^6 bytes", group="reading")

    tokenizer: Path | None = setting(
        None, "tokenizer.json, or a folder with one; if not given, one is learnt from the train part", group="tokens"
    )
    n_vocab: int | None = setting(None, "size of the vocabulary to learn; 8192 if not given", group="tokens")
    tokenizer_mb: int = setting(100, "learn it from so much text, spread evenly", unit="10^6 bytes", group="tokens")
    shard_tokens: int = setting(100_000_000, "tokens in one shard", unit="tokens", group="tokens")

    def __post_init__(self) -> None:
        if self.source == "pydocs" and self.paths:
            raise UserError(
                f"--source pydocs reads the installed packages, but {self.paths[0]} is given.",
                "Say what it is: --source folder, text, jsonl or parquet.",
            )
        if self.source != "pydocs" and not self.paths:
            raise UserError(f"--source {self.source} needs at least one path.", "Name your files or folders.")
        if not 0 <= self.heldout_frac < 1:
            raise UserError(f"--heldout-frac is {self.heldout_frac}, but it must be from 0 to below 1.", "Pass 0.05.")
        if self.tokenizer is not None and self.n_vocab is not None:
            raise UserError(
                f"--n-vocab {self.n_vocab} and --tokenizer {self.tokenizer} are both given.",
                "A given tokenizer has its size already; leave one of the two out.",
            )
        for name, most in (
            ("max_documents", None),
            ("max_mb", None),
            ("shard_tokens", shards.MAX_SHARD_TOKENS),
            ("tokenizer_mb", trainer.COUNTABLE_BYTES // 1_000_000),
        ):
            value = getattr(self, name)
            if value is not None and (value <= 0 or (most is not None and value > most)):
                limit = f"from 1 to {most:,}" if most is not None else "above 0"
                raise UserError(f"{settings.flag_of(name)} is {value}, but it must be {limit}.", "Correct the value.")

    def folder(self) -> Path:
        """Where the corpus goes."""
        if self.out is not None:
            return self.out
        name = self.paths[0].resolve().name if self.paths else self.source
        return Path("data") / Path(name.removesuffix(".gz").removesuffix(".zst")).stem

    def open_source(self) -> Source:
        """The source that the settings name.  Raises   UserError when a path is not what it should be."""
        match self.source:
            case "pydocs":
                return PyDocs(self.min_chars)
            case "folder":
                return Folder(self.paths, self.extensions, self.license)
            case "text":
                return TextFiles(self.paths, self.license)
            case "jsonl":
                return JsonLines(self.paths, self.text_field, self.license)
            case "parquet":
                return Parquet(self.paths, self.text_field, self.license)


def build(config: BuildConfig) -> Path:
    """Collects documents, holds some out, tokenises both parts; returns the corpus folder.

      rein text build                                   the English inside this Python installation
      rein text build essays --source folder            every .txt, .md and .rst file below essays/
      rein text build input.txt --source text           one long text; its tail is held out
      rein text build a.jsonl b.jsonl.gz --source jsonl --text-field body --n-vocab 32768
      rein text build pages --source parquet --tokenizer data/pydocs

    Nothing is downloaded. What cannot be a document is dropped, with a reason that is counted. The same
    command continues a build that was interrupted, and returns at once when the corpus is complete.
    """
    source = config.open_source()
    given = load_tokenizer(config.tokenizer) if config.tokenizer is not None else None
    folder = config.folder()
    with lock_folder(folder, _LOCK):
        stages = _open(folder, config, source, given)
        if stages is None:
            print(f"{folder} is complete already, built with these settings.\n")
        else:
            if "documents" not in stages:
                stages["documents"] = _collect(folder / "documents", config, source)
                _save(folder, stages)
            if "tokenizer" not in stages:
                stages["tokenizer"] = _make_tokenizer(folder, config, given, stages["documents"])
                _save(folder, stages)
            _tokenise(folder, config, stages)
            _finish(folder, stages)
    print(describe(folder, shards.read_manifest(folder)))
    print(f"\nnext: rein text show {folder}\n      rein pretrain --data {folder} --out runs/{folder.name}")
    return folder


# ------------------------------------------------------------------------------------------ what there is already


def _open(folder: Path, config: BuildConfig, source: Source, given: Tokenizer | None) -> dict[str, Any] | None:
    """The stages that an earlier start finished, or None when all are.

    Raises   UserError when the folder holds something else, or a corpus of other settings or inputs.
    """
    inputs = inputs_sha256(source.inputs())
    complete = (folder / shards.MANIFEST).exists()
    if complete:
        stages = shards.read_manifest(folder)
    elif (folder / shards.STAGES).exists():
        stages = json.loads((folder / shards.STAGES).read_text(encoding="utf-8"))
    else:
        strangers = sorted({entry.name for entry in folder.iterdir()} - {_LOCK, shards.STAGES + ".part"})
        if strangers:
            raise UserError(
                f"{folder} is not empty ({', '.join(strangers[:3])}) and holds no corpus.",
                "Choose another --out, or empty the folder.",
            )
        stages = {}
    if complete or "documents" in stages:
        _check_same(folder, stages, config)
        same_tokenizer = given is None or stages.get("tokenizer", {}).get("sha256", given.sha256()) == given.sha256()
        if stages["inputs_sha256"] != inputs or not same_tokenizer:
            what = "the text that is read" if same_tokenizer else f"the tokenizer in {config.tokenizer}"
            raise UserError(
                f"{folder} was built from other content: {what} has changed since.",
                f"Choose another --out, or remove {folder} to build it anew.",
            )
    if complete:
        (folder / shards.STAGES).unlink(missing_ok=True)
        return None
    stages |= {"settings": _recorded(config), "inputs_sha256": inputs}
    _save(folder, stages)
    write_atomically(folder / CONFIG, settings.to_json(settings.replace(config, out=folder)))
    for part in folder.glob("*.part"):
        part.unlink()
    return stages


def _recorded(config: BuildConfig) -> dict[str, Any]:
    """The settings without the folder: a corpus is the same, wherever it lies."""
    return {name: value for name, value in settings.to_dict(config).items() if name != "out"}


def _check_same(folder: Path, stages: dict[str, Any], config: BuildConfig) -> None:
    old, new = stages["settings"], _recorded(config)
    may_change = set() if "tokenizer" in stages else _AFTER_DOCUMENTS
    changed = [
        f"{key}: {old.get(key)!r} → {new[key]!r}" for key in new if key not in may_change and old.get(key) != new[key]
    ]
    if changed:
        raise UserError(
            f"{folder} holds a corpus of other settings ({'; '.join(changed[:4])}).",
            f"Choose another --out, or remove {folder} to build it anew.",
        )


def _save(folder: Path, stages: dict[str, Any]) -> None:
    write_atomically(folder / shards.STAGES, json.dumps(stages, indent=1) + "\n")


# --------------------------------------------------------------------------------------------- stage 1: documents


def _collect(folder: Path, config: BuildConfig, source: Source) -> dict[str, Any]:
    """Writes the kept documents of each split, and counts everything."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    tally = Tally()
    splits = SPLITS if config.heldout_frac > 0 else SPLITS[:1]
    with ExitStack() as stack:
        writers = {split: stack.enter_context(DocumentWriter(folder, split)) for split in splits}
        placed = _kept(source, config, tally)
        if config.source == "pydocs":
            placed = _by_package(folder, config, placed)
        for split, document in placed:
            writers[split].append(document)
            tally.keep(split, document)
        tally.check(splits, config.heldout_frac)
    files = {
        split: [{**record, "sha256": file_sha256(folder / record["file"])} for record in writer.files]
        for split, writer in writers.items()
    }
    return {"files": files, **tally.to_dict()}


def _kept(source: Source, config: BuildConfig, tally: Tally) -> Iterator[tuple[str, Document]]:
    """The documents worth keeping, each with its split; counts the others."""
    seen: set[bytes] = set()
    done = 0.0
    n_documents = n_bytes = 0
    with Progress("reading", total=source.total, unit=source.unit) as bar:
        for item in source:
            bar.advance(source.done - done)
            done = source.done
            if isinstance(item, Dropped):
                tally.drop(item.id, item.reason)
                continue
            for split, document in _placed(item, config):
                reason = fault(document.text) or _duplicate(document.text, seen)
                if reason:
                    tally.drop(document.id, reason)
                    continue
                yield split, document
                n_documents += 1
                n_bytes += n_utf8_bytes(document.text)
            if n_documents >= (config.max_documents or math.inf) or n_bytes >= (config.max_mb or math.inf) * 1e6:
                return
        bar.advance(source.done - done)


def _placed(document: Document, config: BuildConfig) -> Sequence[tuple[str, Document]]:
    if config.source == "pydocs":
        return [(_POOL, document)]
    if config.source == "text" and config.heldout_frac > 0:
        return list(zip(SPLITS, cut_tail(document, config.heldout_frac), strict=True))
    return [(split_by_id(document, config.heldout_frac, config.seed), document)]


def _duplicate(text: str, seen: set[bytes]) -> str | None:
    key = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
    if key in seen:
        return "duplicate"
    seen.add(key)
    return None


def _by_package(
    folder: Path, config: BuildConfig, placed: Iterator[tuple[str, Document]]
) -> Iterator[tuple[str, Document]]:
    """The same documents, each package in one split: all are read, and kept on disk, before one is placed."""
    bytes_of: dict[str, int] = {}
    with DocumentWriter(folder, _POOL) as pool:
        for _, document in placed:
            pool.append(document)
            bytes_of[document.package] = bytes_of.get(document.package, 0) + n_utf8_bytes(document.text)
    paths = [folder / record["file"] for record in pool.files]
    heldout = heldout_packages(bytes_of, config.heldout_frac, config.seed, always_train=STDLIB)
    try:
        for document in read_documents(paths):
            yield ("heldout" if document.package in heldout else "train"), document
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------- stage 2: tokenizer


def _make_tokenizer(
    folder: Path, config: BuildConfig, given: Tokenizer | None, documents: dict[str, Any]
) -> dict[str, Any]:
    if given is None:
        n_vocab = config.n_vocab or 8192
        max_bytes = config.tokenizer_mb * 1_000_000
        with Progress(f"learning {n_vocab:,} tokens", total=None, unit="documents") as bar:
            sample = _sample(_paths(folder, documents, "train"), documents["splits"]["train"]["bytes"], max_bytes, bar)
            tokenizer: Tokenizer = trainer.train(sample, n_vocab, max_bytes=max_bytes)
    else:
        tokenizer = given
    tokenizer.save(folder / "tokenizer.json")
    return {
        "file": "tokenizer.json",
        "sha256": tokenizer.sha256(),
        "kind": tokenizer.kind,
        "n_vocab": tokenizer.n_vocab,
        "eot_id": tokenizer.eot_id,
    }


def _sample(paths: list[Path], total_bytes: int, max_bytes: int, bar: Progress) -> Iterator[str]:
    """Every n-th document, n so small that about `max_bytes` of text come together, from all over the corpus."""
    every = -(-total_bytes // max_bytes)
    index = 0
    for group in read_groups(paths, ["text"]):
        for text in group["text"]:
            if index % every == 0:
                bar.advance()
                yield text
            index += 1


# ------------------------------------------------------------------------------------------------ stage 3: shards


def _tokenise(folder: Path, config: BuildConfig, stages: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(folder)
    documents = stages["documents"]
    finished = stages.setdefault("shards", {split: [] for split in documents["splits"]})
    for split, counts in documents["splits"].items():
        skip = sum(record["documents"] for record in finished[split])
        if skip == counts["documents"]:
            continue
        texts = _texts_behind(_paths(folder, documents, split), skip)
        start_mb = sum(record["bytes"] for record in finished[split]) / 1e6
        writer = ShardWriter(
            folder,
            split,
            n_vocab=tokenizer.n_vocab,
            eot_id=tokenizer.eot_id,
            shard_tokens=config.shard_tokens,
            finished=finished[split],
        )
        with writer, Progress(f"tokenising {split}", total=counts["bytes"] / 1e6, unit="MB", start=start_mb) as bar:
            for batch in texts:
                for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
                    n_bytes = n_utf8_bytes(text)
                    if writer.append(ids, n_bytes):
                        _save(folder, stages)
                    bar.advance(n_bytes / 1e6)
        _save(folder, stages)


def _texts_behind(paths: list[Path], skip: int) -> Iterator[list[str]]:
    """The texts of the files in batches, without the first `skip`."""
    for group in read_groups(paths, ["text"]):
        texts = group["text"]
        if skip < len(texts):
            yield texts[skip:]
        skip = max(0, skip - len(texts))


def _paths(folder: Path, documents: dict[str, Any], split: str) -> list[Path]:
    return [folder / "documents" / record["file"] for record in documents["files"][split]]


def _finish(folder: Path, stages: dict[str, Any]) -> None:
    """Writes the manifest: from now on, the folder is a corpus."""
    documents = stages["documents"]
    manifest = {
        "format": shards.FORMAT,
        "version": shards.FORMAT_VERSION,
        "rein": __version__,
        "settings": stages["settings"],
        "inputs_sha256": stages["inputs_sha256"],
        "tokenizer": stages["tokenizer"],
        "splits": {
            split: {
                **counts,
                "tokens": sum(record["tokens"] for record in stages["shards"][split]),
                "shards": stages["shards"][split],
                "files": documents["files"][split],
            }
            for split, counts in documents["splits"].items()
        },
        "items": documents["items"],
        "kept": documents["kept"],
        "dropped": documents["dropped"],
        "packages": documents["packages"],
    }
    write_atomically(folder / shards.MANIFEST, json.dumps(manifest, indent=1) + "\n")
    (folder / shards.STAGES).unlink(missing_ok=True)
