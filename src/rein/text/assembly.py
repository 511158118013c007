"""From the documents that were read and chosen to a corpus on disk: the second half of `pipeline.make`.

Flow     partitions, what goes of them → `assemble` → `choose_tokenizer`, `tokenise` → `pack` → `finish`: the manifest
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rein import __version__
from rein import config as settings
from rein.bpe.tokenizer import load_tokenizer
from rein.errors import writing
from rein.run import write_atomically
from rein.text import contamination, shards
from rein.text.build_state import Build, Part
from rein.text.engine import Record, Task
from rein.text.grams import Grams
from rein.text.pydocs import STDLIB
from rein.text.recipe import Recipe
from rein.text.report import write_report
from rein.text.split import SPLITS, heldout_packages
from rein.text.tally import Origins, check_not_empty, total


def assemble(
    build: Build, parts: list[Part], gone: dict[str, list[str]], cleaning: dict[str, Any] | None
) -> list[tuple[Part, Record]]:
    """Each partition's documents that stay, cleaned and parted into splits; with the record of where they are.

    Raises   UserError when nothing is left to train on, or nothing is held out though some was asked for.
    """
    recipe = build.recipe
    splits = list(SPLITS if recipe.heldout_frac > 0 else SPLITS[:1])
    held = _heldout_packages(build)
    tasks = [
        part.task(
            kind=part.source.kind,
            partition=index,
            gone=gone,
            cleaning=cleaning,
            splits=splits,
            heldout_frac=recipe.heldout_frac,
            heldout_packages=held if part.source.kind == "pydocs" else [],
            seed=recipe.seed,
            keep_dropped=recipe.keep_dropped,
        )
        for index, part in enumerate(parts)
    ]
    records = build.run("assembling", "stages:assemble", tasks)
    build.count("duplicates and overlaps", records)
    documents = {
        split: sum(about["documents"] for record in records for about in record["files"][split]) for split in splits
    }
    dropped = total(step for step in build.steps if step["stage"] != "links")["dropped"]
    check_not_empty(documents, dropped, recipe.heldout_frac)
    return list(zip(parts, records, strict=True))


def _heldout_packages(build: Build) -> list[str]:
    """The packages of pydocs sources that are held out whole."""
    bytes_of: dict[str, int] = {}
    for about in build.read_origins:
        if any(source.kind == "pydocs" and source.name == about["source"] for source in build.recipe.sources):
            bytes_of[about["package"]] = bytes_of.get(about["package"], 0) + sum(about["bytes"].values())
    return sorted(heldout_packages(bytes_of, build.recipe.heldout_frac, build.recipe.seed, always_train=STDLIB))


def _files(build: Build, assembled: list[tuple[Part, Record]], split: str) -> Iterator[tuple[Part, Path, Record]]:
    """The assembled files of a split that hold a document, in order, with their counts."""
    for part, record in assembled:
        for about in record["files"].get(split, []):
            yield part, build.stage("assembling") / about["file"], about


def choose_tokenizer(build: Build, assembled: list[tuple[Part, Record]]) -> dict[str, Any]:
    """The tokenizer that the recipe names, or one learned from the train split; with the path of its file."""
    recipe = build.recipe
    train = list(_files(build, assembled, "train"))
    size = sum(counts["bytes"] for _, _, counts in train)
    arguments = {
        "files": [str(file) for _, file, _ in train],
        "bytes": size,
        "given": str(recipe.tokenizer) if recipe.tokenizer is not None else None,
        "given_sha256": load_tokenizer(recipe.tokenizer).sha256() if recipe.tokenizer is not None else None,
        "n_vocab": recipe.n_vocab or 8192,
        "max_bytes": recipe.tokenizer_mb * 1_000_000,
    }
    title = "learning a vocabulary" if recipe.tokenizer is None else "taking the tokenizer"
    (record,) = build.run(title, "stages:learn", [Task("done", min(size, arguments["max_bytes"]), arguments)])
    return {**record, "path": str(build.stage(title) / "tokenizer.json")}


def tokenise(
    build: Build, assembled: list[tuple[Part, Record]], tokenizer: dict[str, Any]
) -> dict[str, list[tuple[str, Record]]]:
    """By split, the tokenised pieces in order: (path without its ending, record)."""
    named: list[tuple[str, Task]] = []
    for split in SPLITS:
        for part, file, counts in _files(build, assembled, split):
            name = file.name.removesuffix(".parquet")
            arguments = {
                "name": name,
                "source": part.source.name,
                "file": str(file),
                "tokenizer": tokenizer["path"],
            }
            named.append((split, Task(name, counts["bytes"], arguments)))
    records = build.run("tokenising", "stages:tokenise", [task for _, task in named])
    pieces: dict[str, list[tuple[str, Record]]] = {}
    for (split, task), record in zip(named, records, strict=True):
        pieces.setdefault(split, []).append((str(build.stage("tokenising") / task.name), record))
    return pieces


def pack(
    build: Build, tokenised: dict[str, list[tuple[str, Record]]], tokenizer: dict[str, Any]
) -> dict[str, list[Record]]:
    """By split, the records of the token shards."""
    tasks: list[Task] = []
    splits: list[str] = []
    for split, pieces in tokenised.items():
        for number, shard in enumerate(_shards(pieces, build.recipe.shard_tokens)):
            n_tokens = sum(piece["n_tokens"] for piece in shard)
            arguments = {
                "name": f"{split}-{number:05d}",
                "out": str(build.folder.resolve()),
                "pieces": shard,
                "n_vocab": tokenizer["n_vocab"],
            }
            tasks.append(Task(arguments["name"], 2 * n_tokens, arguments))
            splits.append(split)
    packed: dict[str, list[Record]] = {}
    for split, record in zip(splits, build.run("packing", "stages:pack", tasks), strict=True):
        packed.setdefault(split, []).append(record)
    return packed


def _shards(pieces: list[tuple[str, Record]], shard_tokens: int) -> list[list[dict[str, Any]]]:
    """Which documents of which pieces make each shard."""
    made: list[list[dict[str, Any]]] = []
    used = 0
    for prefix, record in pieces:
        counts = np.load(f"{prefix}.npy")[:, 0]
        begins = shards.cut(counts, shard_tokens, used=used).tolist()
        firsts = sorted({0, *begins})
        for first, end in zip(firsts, [*firsts[1:], record["documents"]], strict=True):
            if first in begins[:1] or first > 0:
                made.append([])
                used = 0
            n_tokens = int(counts[first:end].sum())
            piece = {"tokens": f"{prefix}.tokens", "sizes": f"{prefix}.npy", "first": first, "end": end}
            made[-1].append({**piece, "n_tokens": n_tokens})
            used += n_tokens
    return made


def finish(
    build: Build,
    assembled: list[tuple[Part, Record]],
    tokenised: dict[str, list[tuple[str, Record]]],
    packed: dict[str, list[Record]],
    tokenizer: dict[str, Any],
    about_quality: dict[str, Any] | None,
    about_duplicates: dict[str, Any] | None,
    cleaning: dict[str, Any] | None,
    counts_of_grams: np.ndarray[Any, Any] | None,
) -> dict[str, Any]:
    """Puts everything in its place, and writes the manifest: from now on, the folder is a corpus."""
    recipe, folder = build.recipe, build.folder
    shutil.copyfile(tokenizer["path"], folder / "tokenizer.json")
    packed_files = {record[kind] for records in packed.values() for record in records for kind in ("bin", "idx")}
    for path in [*folder.glob("*.bin"), *folder.glob("*.idx")]:
        if path.name not in packed_files:  # of an earlier start with other settings
            path.unlink()
    files = {
        split: _place(folder / "documents", split, [file for _, file, _ in _files(build, assembled, split)])
        for split in packed
    }
    if recipe.keep_dropped:
        for title, name in (("reading", "read"), ("choosing by quality", "quality"), ("assembling", "duplicates")):
            _place(folder / "dropped", name, sorted(build.stage(title).glob("*.dropped.parquet")))
    everything = total(step for step in build.steps if step["stage"] != "links")
    kept = sum(record["documents"] for records in packed.values() for record in records)
    manifest = {
        "format": shards.FORMAT,
        "version": shards.FORMAT_VERSION,
        "rein": __version__,
        "settings": settings.to_dict(recipe),
        "inputs_sha256": build.inputs,
        "tokenizer": {name: tokenizer[name] for name in ("file", "sha256", "kind", "n_vocab", "eot_id")},
        "splits": {
            split: {name: sum(record[name] for record in records) for name in ("documents", "bytes", "tokens")}
            | {"shards": records, "files": files[split]}
            for split, records in packed.items()
        },
        "mixture": _mixture(recipe, tokenised["train"]),
        "items": kept + sum(about["count"] for about in everything["dropped"].values()),
        "kept": kept,
        "dropped": everything["dropped"],
        "origins": Origins().merge(record["origins"] for _, record in assembled).to_list(),
    }
    about_overlaps = None
    if cleaning is not None and counts_of_grams is not None:
        grams = Grams.load(Path(cleaning["grams"]))
        tally = contamination.Tally.of(grams)
        for _, record in assembled:
            tally.merge(contamination.Tally.from_dict(record["contamination"]))
        rules = contamination.Rules(**cleaning["rules"])
        about_overlaps = {
            "rules": cleaning["rules"],
            "sets": contamination.table(grams, counts_of_grams, tally, rules),
            "notes": grams.short_notes(),
        }
    report = {
        "steps": build.steps,
        "quality": about_quality,
        "duplicates": about_duplicates,
        "contamination": about_overlaps,
    }
    write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
    write_report(folder, manifest, report)
    write_atomically(folder / shards.MANIFEST, json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(folder / shards.WORK)
    return manifest


def _place(folder: Path, name: str, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Gives finished files their names in the corpus; they stay where they were until work/ goes."""
    import pyarrow.parquet as pq

    with writing(folder):
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"{name}-*.parquet"):
            old.unlink()
    placed = []
    for number, file in enumerate(files):
        target = folder / f"{name}-{number:05d}.parquet"
        with writing(target):
            try:
                os.link(file, target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, target)
        about = pq.read_metadata(target)
        placed.append({"file": target.name, "documents": about.num_rows, "sha256": shards.file_sha256(target)})
    return placed


def _mixture(recipe: Recipe, pieces: list[tuple[str, Record]]) -> list[dict[str, Any]]:
    """The train part's sources in the order of its tokens, and how training is to draw from them."""
    mixture = []
    for source in recipe.sources:
        own = [record for _, record in pieces if record["source"] == source.name]
        if not own and (source.weight or source.epochs):
            print(f"no document of {source.name!r} is left: the others share its weight", file=sys.stderr, flush=True)
        if own:
            mixture.append(
                {
                    "source": source.name,
                    "tokens": sum(record["tokens"] for record in own),
                    "documents": sum(record["documents"] for record in own),
                    "weight": source.weight,
                    "epochs": source.epochs,
                }
            )
    return mixture
