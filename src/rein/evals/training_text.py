"""The text a model was trained on, as overlap.py searches it: corpora, folders and files, in parts.

Flow     paths → `parts_of` → parts of some megabytes, plain data → `documents_of`, in any process → documents
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rein import config as settings
from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.text.documents import MAX_DOCUMENT_BYTES, Document, Dropped, n_utf8_bytes
from rein.text.engine import Advance, stage_key
from rein.text.recipe import EXTENSIONS, Source
from rein.text.shards import MANIFEST, Shards, read_manifest
from rein.text.sources import below, expand, inputs_sha256, open_source, size_of
from rein.text.store import load_once, read_groups
from rein.text.tables import JSONL_NAMES, PARQUET_NAMES

PART_TOKENS = 4_000_000

Parts = list[dict[str, Any]]

READ_AS: dict[str, tuple[str, ...]] = {"folder": EXTENSIONS, "jsonl": JSONL_NAMES, "parquet": PARQUET_NAMES}


def parts_of(corpora: Sequence[Path], *, text_field: str = "text") -> tuple[Parts, str]:
    """The text of some corpora in parts of some megabytes, and a hash that changes where the text does.

    A corpus of `rein text build` gives the documents that its train tokens were made of, or what those say where
    `documents/` is gone. Of other folders, and of single files, text is what the ends of names say.

    Raises   UserError when a path does not exist or holds no text.
    """
    parts, inputs, manifests = Parts(), list[Path](), list[str]()
    for path in expand(corpora):
        if (path / MANIFEST).is_file():
            parts += _parts_of_corpus(path)
            manifests.append(hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest())
            continue
        found = _sources(path, text_field)
        if not found:
            names = ", ".join(f"*{name}" for names in READ_AS.values() for name in names)
            raise UserError(f"{path} holds no text.", f"Name a corpus of `rein text build`, or files called {names}.")
        for source in found:
            reader = open_source(source)
            inputs += reader.inputs()
            about = {"kind": "source", "source": settings.to_dict(source)}
            parts += [{**about, "partition": one, "bytes": one["bytes"]} for one in reader.partitions()]
    return parts, stage_key(manifests, inputs_sha256(inputs))


def _parts_of_corpus(folder: Path) -> Parts:
    split = read_manifest(folder)["splits"]["train"]
    files = [folder / "documents" / about["file"] for about in split["files"]]
    share = split["bytes"] / max(split["documents"], 1)  # of a document
    if all(file.is_file() for file in files):
        return [
            {"kind": "documents", "file": str(file), "bytes": share * about["documents"]}
            for file, about in zip(files, split["files"], strict=True)
        ]
    step = max(1, PART_TOKENS * split["documents"] // max(split["tokens"], 1))
    return [
        {"kind": "tokens", "folder": str(folder), "documents": [first, end], "bytes": share * (end - first)}
        for first in range(0, split["documents"], step)
        for end in [min(first + step, split["documents"])]
    ]


def _sources(path: Path, text_field: str) -> list[Source]:
    """A source for each kind of file there is."""
    names = [str(file) for file in below(path)] if path.is_dir() else [path.name]
    found = []
    for kind, ends in READ_AS.items():
        here = [name for name in names if name.lower().endswith(ends)]
        if not here:
            continue
        as_kind = "text" if kind == "folder" and path.is_file() else kind
        found.append(Source(kind, as_kind, (path,), text_field=text_field))
        large = [path / name for name in here if kind == "folder" and size_of(path / name) > MAX_DOCUMENT_BYTES]
        if path.is_dir() and large:
            raise UserError(
                f"{large[0]} is larger than 1 GiB, and a text file is one document.",
                "Split it into documents: files of a folder, or lines of a JSONL file.",
            )
    return found


def documents_of(part: dict[str, Any], advance: Advance) -> Iterator[Document | Dropped]:
    """The documents of one of `parts_of`."""
    if part["kind"] == "source":
        source = settings.from_dict(Source, part["source"], "a source")
        for document in open_source(source).read(part["partition"], advance):
            if not (isinstance(document, Dropped) and document.reason == "other file type"):  # other readers' files
                yield document
    elif part["kind"] == "documents":
        for group in read_groups([Path(part["file"])], ["id", "text"]):
            for id, text in zip(group["id"], group["text"], strict=True):
                yield Document(text, id, "")
                advance(n_utf8_bytes(text))
    else:
        shards, tokenizer = Shards(Path(part["folder"])), load_once(load_tokenizer, part["folder"])
        for at in range(*part["documents"]):
            text = tokenizer.decode(shards.document(at)[:-1])
            yield Document(text, f"train {at:,}", "")
            advance(n_utf8_bytes(text))
