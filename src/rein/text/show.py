"""`rein text show`: what a corpus holds, and some of its documents as the model sees them.

manifest.json → a table          documents/*.parquet → where it is from          *.bin → tokens → text
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rein.bpe.tokenizer import load_tokenizer
from rein.config import setting
from rein.errors import UserError, suggestion
from rein.text.shards import Shards, read_manifest
from rein.text.store import read_at, read_groups

_ORIGINS = 12


@dataclass(frozen=True)
class ShowConfig:
    """Settings of `rein text show`."""

    corpus: Path = setting(help="corpus folder, from `rein text build`", positional=True)
    n: int = setting(3, "documents to show, spread evenly over the split; 0: none")
    split: Literal["train", "heldout"] = setting("train", "where to take them from")
    origin: str | None = setting(None, "take them from this source or package only")
    max_chars: int = setting(1500, "cut a document behind so many", unit="characters")
    verify: bool = setting(False, "read everything once, and compare it with its checksums")


def show(config: ShowConfig) -> None:
    """Shows what a corpus holds, and some documents: decoded from their tokens, with their origin.

    rein text show data/pydocs
    rein text show data/pydocs --n 10 --split heldout --origin click
    rein text show data/pydocs --n 0 --verify
    """
    manifest = read_manifest(config.corpus)
    print(describe(config.corpus, manifest))
    print(_origins(manifest))
    if config.verify:
        for split in manifest["splits"]:
            Shards(config.corpus, split).verify()
        print("\nverified: every shard is as it was written")
    if config.n > 0:
        _documents(config, manifest)


def describe(folder: Path, manifest: dict[str, Any]) -> str:
    """The sizes of a corpus, what was dropped, and the licences, as text."""
    splits = manifest["splits"]
    n_vocab = manifest["tokenizer"]["n_vocab"]
    rows = [("split", "documents", "tokens", "MB", "bytes/token")]
    for split, counts in splits.items():
        per_token = counts["bytes"] / max(counts["tokens"] - counts["documents"], 1)  # end-of-text ids are no text
        mb = f"{counts['bytes'] / 1e6:,.2f}"
        rows.append((split, f"{counts['documents']:,}", f"{counts['tokens']:,}", mb, f"{per_token:.2f}"))
    lines = [f"{folder}: vocabulary {n_vocab:,} ({manifest['tokenizer']['kind']})", "", *table(rows, "<>>>>")]
    n_dropped = manifest["items"] - manifest["kept"]
    lines += ["", f"kept {manifest['kept']:,} of {manifest['items']:,} items, dropped {n_dropped:,}"]
    dropped = [
        (
            f"{about['count']:,}",
            f"{reason}: {', '.join(about['first'])}" + (" …" * (about["count"] > len(about["first"]))),
        )
        for reason, about in manifest["dropped"].items()
    ]
    return "\n".join([*lines, *table(dropped, "><")])


def _origins(manifest: dict[str, Any]) -> str:
    origins = sorted(manifest["origins"], key=lambda about: -sum(about["bytes"].values()))
    rows = [("from", "documents", "MB", "split", "licence")]
    for about in origins[:_ORIGINS]:
        n_documents, n_bytes = sum(about["documents"].values()), sum(about["bytes"].values())
        rows.append(
            (_name(about), f"{n_documents:,}", f"{n_bytes / 1e6:,.1f}", " ".join(about["documents"]), about["license"])
        )
    rest = origins[_ORIGINS:]
    if rest:
        n_documents = sum(sum(about["documents"].values()) for about in rest)
        n_bytes = sum(sum(about["bytes"].values()) for about in rest)
        rows.append((f"{len(rest)} more", f"{n_documents:,}", f"{n_bytes / 1e6:,.1f}", "", ""))
    heldout = [about["package"] for about in origins if about["package"] and "train" not in about["documents"]]
    licenses: Counter[str] = Counter()
    for about in origins:
        licenses[about["license"]] += sum(about["bytes"].values())
    licensed = [(f"{n_bytes / 1e6:,.2f} MB", license) for license, n_bytes in licenses.most_common()]
    lines = ["", *table(rows, "<>><<"), *([f"held out whole: {', '.join(heldout)}"] if heldout else [])]
    return "\n".join([*lines, "", "licences", *table(licensed, "><")])


def _name(about: Mapping[str, Any]) -> str:
    """What people call an origin: a package and its version, or a source."""
    return f"{about['package']} {about['version']}".strip() or str(about["source"])


def _documents(config: ShowConfig, manifest: dict[str, Any]) -> None:
    shards = Shards(config.corpus, config.split)
    tokenizer = load_tokenizer(config.corpus)
    paths = [config.corpus / "documents" / record["file"] for record in manifest["splits"][config.split]["files"]]
    indices = _spread(_indices(config, manifest, paths, shards.n_documents), config.n)
    for index, document in zip(indices, read_at(paths, indices), strict=True):
        ids = shards.document(index)
        text = tokenizer.decode(ids[:-1])
        head = f"─── {config.split} {index:,}  {document.id}  {len(ids):,} tokens"
        about = document.metadata
        package = f"{about.get('package', '')} {about.get('version', '')}".strip()
        names = (document.source, about.get("object"), package, document.url, document.date, about.get("license"))
        origin = " · ".join(name for name in names if name)
        print(f"\n{head}\n    {origin}\n\n{text[: config.max_chars]}")
        if len(text) > config.max_chars:
            print(f"… {len(text) - config.max_chars:,} more characters")


def _indices(config: ShowConfig, manifest: dict[str, Any], paths: Sequence[Path], n_documents: int) -> Sequence[int]:
    """The documents to choose from.  Raises   UserError when there is none of this origin in this split."""
    if config.origin is None:
        return range(n_documents)
    found: list[int] = []
    index = 0
    for group in read_groups(paths, ["source", "metadata"]):
        for source, metadata in zip(group["source"], group["metadata"], strict=True):
            if config.origin in (source, dict(metadata).get("package")):
                found.append(index)
            index += 1
    if not found:
        here = [about for about in manifest["origins"] if config.split in about["documents"]]
        known = {about[key] for about in here for key in ("source", "package")} - {""}
        raise UserError(
            f"--origin {config.origin!r} has no document in the split {config.split!r}.",
            suggestion(config.origin, known),
        )
    return found


def _spread(indices: Sequence[int], n: int) -> list[int]:
    """At most `n` of the indices, evenly spaced.

    Example  >>> _spread(range(10), 2), _spread([4], 3)
             ([2, 7], [4])
    """
    n = min(n, len(indices))
    return [indices[(2 * i + 1) * len(indices) // (2 * n)] for i in range(n)]


def table(rows: Sequence[tuple[str, ...]], align: str) -> list[str]:
    """Rows as lines of columns, each aligned as its letter says.

    Example  >>> table([("name", "n"), ("a", "12")], "<>")
             ['  name   n', '  a     12']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))] if rows else []
    return [
        "  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    ]
