"""A recipe made into a corpus, stage by stage. Read `make` from top to bottom: it is the whole pipeline.

    sources ─ read ─ quality ─ duplicates ─ decontamination ─ assemble ─ tokenizer ─ tokenise ─ pack ─ corpus

Every stage is one function of stages.py over partitions (engine.py); its results lie in work/, which goes when
the corpus is complete. A stage's key is made of its settings and the keys before it, so that a build which is
started again with one setting changed does again only what depends on it.

Memory: a partition of some megabytes in each worker, and here 8 bytes per document that is dropped as a
duplicate, 16 per pair of near-duplicates, 16 per document of the partitions that one token shard is packed of.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rein import __version__
from rein import config as settings
from rein.bpe.tokenizer import load_tokenizer
from rein.errors import writing
from rein.run import write_atomically
from rein.text import contamination, duplicate_stages, quality, shards
from rein.text.documents import NUMBER_BITS
from rein.text.engine import Engine, Record, Task, stage_key
from rein.text.evaluation_sets import read_evaluation
from rein.text.pydocs import STDLIB
from rein.text.recipe import Recipe, Source
from rein.text.report import write_report
from rein.text.shingles import BANDS
from rein.text.sources import expand, inputs_sha256, load_object, open_source, size_of
from rein.text.split import SPLITS, heldout_packages
from rein.text.store import read_at, save
from rein.text.tally import Origins, check_not_empty, total

SLICE_DOCUMENTS = 8_000_000
# Of one core, roughly; a WARC's bytes are packed.
READING_BYTES_PER_S = {
    "html, fast": 20e6,
    "html, slow": 1.5e6,
    "warc, fast": 4e6,
    "warc, slow": 0.3e6,
    "pydocs": 10e6,
    "text": 80e6,
}


@dataclass(frozen=True)
class Part:
    """One partition on its way: the file its documents are in now."""

    source: Source
    name: str
    file: Path
    documents: int
    bytes: int


@dataclass
class Build:
    """What the stages share: where, how, and what has been counted."""

    recipe: Recipe
    engine: Engine
    folder: Path
    key: str
    inputs: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    read_origins: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self, title: str, function: str, tasks: Sequence[Task], *settings_of: Any, unit: str = "MB"
    ) -> list[Record]:
        """The records of a stage, which depends on all stages before it and on `settings_of`."""
        self.key = stage_key(self.key, function, [[task.name, task.arguments] for task in tasks], *settings_of)
        return self.engine.run(self.stage(title), title, f"rein.text.{function}", tasks, self.key, unit=unit)

    def stage(self, title: str) -> Path:
        """The folder of a stage's results."""
        return self.folder / shards.WORK / title.replace(" ", "-")

    def count(self, title: str, records: Sequence[Record]) -> None:
        """Adds the counts of a stage to the funnel, source by source."""
        for source in self.recipe.sources:
            own = [record["counts"] for record in records if record["source"] == source.name]
            if own or title == "read":  # a source that holds nothing is shown, too
                self.steps.append({"stage": title, "source": source.name, **total(own)})


def make(recipe: Recipe, folder: Path, engine: Engine) -> dict[str, Any]:
    """Builds the corpus that the recipe describes in `folder`, or goes on with it; returns the manifest.

    Raises   UserError when something cannot be read, or nothing is left. What is finished stays.
    """
    for part in folder.glob("*.part"):  # of a start that was killed
        part.unlink()
    if recipe.decontamination is not None:
        for _ in read_evaluation(recipe.decontamination.against):
            pass  # a path that is none is said now, not after hours
    build = Build(recipe, engine, folder, stage_key("corpus"), fingerprint_of_inputs(recipe))
    links = _link_tables(build)
    parts = _read(build, links)
    parts, about_quality = _choose(build, parts)
    gone, about_duplicates = _duplicates(build, parts)
    cleaning, counts_of_grams = _evaluation_grams(build, parts, gone)
    assembled = _assemble(build, parts, gone, cleaning)
    tokenizer = _tokenizer(build, assembled)
    tokenised = _tokenise(build, assembled, tokenizer)
    packed = _pack(build, tokenised, tokenizer)
    return _finish(
        build, assembled, tokenised, packed, tokenizer, about_quality, about_duplicates, cleaning, counts_of_grams
    )


# --------------------------------------------------------------------------------------------- reading and choosing


def _link_tables(build: Build) -> dict[str, str]:
    """By source, the file with the links it keeps."""
    tasks = []
    for source in build.recipe.sources:
        if source.links:
            dumps = expand(source.links)
            arguments = {
                "name": source.name,
                "dumps": [str(path) for path in dumps],
                "min_score": source.min_score,
                "until": source.until,
            }
            tasks.append(Task(source.name, sum(map(size_of, dumps)), arguments))
    if not tasks:
        return {}
    records = build.run("reading links", "stages:gather_links", tasks, build.inputs)
    for task, record in zip(tasks, records, strict=True):
        build.steps.append({"stage": "links", "source": task.name, **record["counts"]})
    return {task.name: str(build.stage("reading links") / f"{task.name}.npz") for task in tasks}


def _read(build: Build, links: dict[str, str]) -> list[Part]:
    tasks: list[Task] = []
    sources: list[Source] = []
    for source in build.recipe.sources:
        partitions = open_source(source).partitions()
        if source.links:
            partitions = [{**partition, "links": links[source.name]} for partition in partitions]
        if source.max_documents is not None or source.max_mb is not None:
            together = [partitions]  # a limit is reached in order
        else:
            together = [[partition] for partition in partitions]
        for index, some in enumerate(together):
            name = f"{source.name}-{index:05d}"
            arguments = {
                "name": name,
                "source": settings.to_dict(replace(source, weight=None, epochs=None)),  # which do not matter here
                "partitions": some,
                "keep_dropped": build.recipe.keep_dropped,
            }
            n_bytes = sum(partition["bytes"] for partition in some)
            tasks.append(Task(name, n_bytes, arguments, READING_BYTES_PER_S[_kind_of_reading(source)]))
            sources.append(source)
    records = build.run("reading", "stages:read", tasks, build.inputs)
    build.count("read", records)
    build.read_origins = [about for record in records for about in record["origins"]]
    return [
        part
        for source, task, record in zip(sources, tasks, records, strict=True)
        for part in _parts(source, build.stage("reading"), record)
    ]


def _kind_of_reading(source: Source) -> str:
    """What reading a source costs its time with."""
    if source.kind in ("html", "warc"):
        return f"{source.kind}, {'fast' if source.extract == 'fast' else 'slow'}"
    return "pydocs" if source.kind == "pydocs" else "text"


def _parts(source: Source, folder: Path, record: Record) -> list[Part]:
    """What a stage made of a partition; nothing, or several files where it was large."""
    return [
        Part(source, about["file"].removesuffix(".parquet"), folder / about["file"], about["documents"], about["bytes"])
        for about in record["files"]
    ]


def fingerprint_of_inputs(recipe: Recipe) -> str:
    """A hash of everything outside the recipe that decides the corpus: the files it reads, and the user's code."""
    paths = [path for source in recipe.sources for path in (*open_source(source).inputs(), *expand(source.links))]
    if recipe.decontamination is not None:
        for path in recipe.decontamination.against:
            paths += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for source in recipe.sources:
        for name in (*source.steps, *([source.kind] if ":" in source.kind else [])):
            code = inspect.getsourcefile(load_object(name, f"A step of the source {source.name!r}"))
            paths += [Path(code)] if code is not None else []
    return inputs_sha256(paths)


def _choose(build: Build, parts: list[Part]) -> tuple[list[Part], dict[str, Any] | None]:
    """Passes the sources that want it through the quality classifier."""
    rule = build.recipe.quality
    if rule is None:
        return parts, None

    def files(names: Sequence[str]) -> list[str]:
        return [str(part.file) for part in parts if part.source.name in names and part.documents]

    size = sum(part.bytes for part in parts if part.source.name in (*rule.positive, *rule.negative))
    sides = {"positive": files(rule.positive), "negative": files(rule.negative)}
    arguments = {**sides, "max_documents": rule.max_documents, "l2": rule.l2, "seed": build.recipe.seed}
    (record,) = build.run("learning quality", "stages:classify", [Task("done", size, arguments)])
    chosen = [part for part in parts if part.source.quality]
    tasks = [
        Task(
            part.name,
            part.bytes,
            {
                "name": part.name,
                "source": part.source.name,
                "file": str(part.file),
                "classifier": str(build.stage("learning quality") / "classifier.safetensors"),
                "alpha": rule.alpha,
                "seed": build.recipe.seed,
                "keep_dropped": build.recipe.keep_dropped,
            },
        )
        for part in chosen
    ]
    records = build.run("choosing by quality", "stages:choose", tasks)
    build.count("quality", records)
    after = {
        part.name: _parts(part.source, build.stage("choosing by quality"), one)
        for part, one in zip(chosen, records, strict=True)
    }
    about = {
        "alpha": rule.alpha,
        "training": record["report"],
        "chosen": [_chosen(records, name) for name in sorted({part.source.name for part in chosen})],
    }
    return [one for part in parts for one in after.get(part.name, [part])], about


def _chosen(records: Sequence[Record], name: str) -> dict[str, Any]:
    """The histograms of a source's scores, and what each alpha would keep of it on average."""
    own = [record for record in records if record["source"] == name]
    n_documents = sum(record["counts"]["items"] for record in own)
    likely = np.sum([record["likely_kept"] for record in own], axis=0) / max(n_documents, 1)
    return {
        "source": name,
        "scores": np.sum([record["scores"] for record in own], axis=0).tolist(),
        "kept_scores": np.sum([record["kept_scores"] for record in own], axis=0).tolist(),
        "kept_frac": [
            {"alpha": alpha, "kept_frac": float(kept)} for alpha, kept in zip(quality.ALPHAS, likely, strict=True)
        ],
    }


# ---------------------------------------------------------------------------------------------------- duplicates


def _duplicates(build: Build, parts: list[Part]) -> tuple[dict[str, list[str]], dict[str, Any] | None]:
    """Reason → files of the numbers of documents that go; and what to say of near-duplicates."""
    rule = build.recipe.near_duplicates
    tasks = [
        Task(
            part.name,
            part.bytes,
            {
                "name": part.name,
                "source": part.source.name,
                "file": str(part.file),
                "mode": rule.mode if rule is not None else None,
            },
        )
        for part in parts
    ]
    build.run("fingerprints", "duplicate_stages:fingerprint", tasks)
    ranks = [build.recipe.rank(part.source.name) for part in parts]
    table = build.stage("parts.json")  # once for all tasks: in each of them, it would be parts² paths
    prefixes = [str(build.stage("fingerprints") / part.name) for part in parts]
    write_atomically(table, json.dumps({"prefixes": prefixes, "ranks": ranks}))
    n_documents = sum(part.documents for part in parts)
    slices = 1 + n_documents // SLICE_DOCUMENTS

    def same(title: str, what: str, gone: list[str]) -> list[str]:
        names = [f"{index:05d}" for index in range(slices)]
        build.run(
            title,
            "duplicate_stages:repeated",
            [
                Task(
                    name,
                    24 * n_documents / slices,
                    {
                        "name": name,
                        "slice": index,
                        "slices": slices,
                        "what": what,
                        "parts": str(table),
                        "gone": gone,
                    },
                )
                for index, name in enumerate(names)
            ],
            ranks,
        )
        return [str(build.stage(title) / f"{name}.npy") for name in names]

    gone = {duplicate_stages.DUPLICATE: same("exact duplicates", "text", [])}
    gone[duplicate_stages.DUPLICATE_ID] = same("duplicate ids", "id", gone[duplicate_stages.DUPLICATE])
    if rule is None:
        return gone, None
    exact = [file for files in gone.values() for file in files]
    n_bands = BANDS if rule.mode == "shingles" else duplicate_stages.GPT3_TABLES
    bands = [
        Task(
            f"{band:03d}-{index:05d}",
            16 * n_documents / slices,
            {
                "name": f"{band:03d}-{index:05d}",
                "band": band,
                "slice": index,
                "slices": slices,
                "parts": str(table),
                "gone": exact,
            },
        )
        for band in range(n_bands)
        for index in range(slices)
    ]
    found = build.run("candidate pairs", "duplicate_stages:candidates", bands)
    pairs_of = np.zeros(len(parts), dtype=np.int64)
    for record in found:
        partitions, counts = np.array(record["by_partition"], dtype=np.int64)
        pairs_of[partitions] += counts
    checks = [
        Task(
            parts[index].name,
            float(pairs_of[index]),
            {
                "name": parts[index].name,
                "partition": index,
                "pairs": str(build.stage("candidate pairs")),
                "parts": str(table),
                "threshold": rule.threshold,
            },
            1e6,  # pairs
        )
        for index in np.flatnonzero(pairs_of).tolist()
    ]
    verified = build.run("verifying pairs", "duplicate_stages:verify", checks, unit="pairs")
    arguments = {
        "pairs": str(build.stage("verifying pairs")),
        "names": [task.name for task in checks],
        "parts": str(table),
        "rule": rule.keep,
    }
    (grouped,) = build.run("near-duplicates", "duplicate_stages:group", [Task("done", 1, arguments)], unit="groups")
    gone[duplicate_stages.NEAR_DUPLICATE] = [str(build.stage("near-duplicates") / "near.npy")]
    about = {
        "mode": rule.mode,
        "threshold": rule.threshold,
        "keep": rule.keep,
        "candidate_pairs": sum(record["candidates"] for record in verified),
        "pairs": sum(record["pairs"] for record in verified),
        "large_groups": sum(record["large_groups"] for record in found),
        "dropped": grouped["dropped"],
        "groups": grouped["groups"],
        "sizes": grouped["sizes"],
        "similarities": grouped["similarities"],
        "largest": [_shown(parts, group) for group in grouped["largest"]],
    }
    return gone, about


def _shown(parts: list[Part], group: dict[str, Any]) -> dict[str, Any]:
    """A group of near-duplicates for people: its size, and some documents of it, those that stay first."""
    documents = []
    for place, number in enumerate(group["members"]):
        part = parts[number >> NUMBER_BITS]
        document = next(read_at([part.file], [number & ((1 << NUMBER_BITS) - 1)]))
        about = {"id": document.id, "source": document.source, "text": document.text[:300]}
        documents.append({**about, "stays": place < group["stay"]})
    return {"size": group["size"], "documents": documents}


# ------------------------------------------------------------------------------------------------ decontamination


def _evaluation_grams(
    build: Build, parts: list[Part], gone: dict[str, list[str]]
) -> tuple[dict[str, Any] | None, np.ndarray[Any, Any] | None]:
    """What `assemble` needs to clean documents, and in how many documents each gram is."""
    rule = build.recipe.decontamination
    if rule is None:
        return None, None
    rules = {name: value for name, value in asdict(rule).items() if name != "against"}
    arguments = {"against": [str(path) for path in rule.against], "n": rule.n}
    build.run("evaluation sets", "stages:gather_grams", [Task("done", 1, arguments)], build.inputs, unit="sets")
    grams = str(build.stage("evaluation sets") / "grams.npz")
    tasks = [
        Task(
            part.name,
            part.bytes,
            {"name": part.name, "file": str(part.file), "partition": index, "gone": gone, "grams": grams},
        )
        for index, part in enumerate(parts)
    ]
    build.run("counting overlaps", "stages:overlaps", tasks)
    folder = build.stage("counting overlaps")
    counts = sum((np.load(folder / f"{part.name}.npy") for part in parts), start=np.zeros((), dtype=np.int64))
    ignored = build.stage("evaluation sets") / "ignored.npy"
    save(ignored, contamination.too_common(counts, contamination.Rules(**rules)))
    return {"grams": grams, "ignored": str(ignored), "rules": rules}, counts


# ------------------------------------------------------------------------------------------------------- the corpus


def _assemble(
    build: Build, parts: list[Part], gone: dict[str, list[str]], cleaning: dict[str, Any] | None
) -> list[tuple[Part, Record]]:
    recipe = build.recipe
    splits = list(SPLITS if recipe.heldout_frac > 0 else SPLITS[:1])
    held = _heldout_packages(build)
    tasks = [
        Task(
            part.name,
            part.bytes,
            {
                "name": part.name,
                "source": part.source.name,
                "kind": part.source.kind,
                "file": str(part.file),
                "partition": index,
                "gone": gone,
                "cleaning": cleaning,
                "splits": splits,
                "heldout_frac": recipe.heldout_frac,
                "heldout_packages": held if part.source.kind == "pydocs" else [],
                "seed": recipe.seed,
                "keep_dropped": recipe.keep_dropped,
            },
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


def _tokenizer(build: Build, assembled: list[tuple[Part, Record]]) -> dict[str, Any]:
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


def _tokenise(
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


def _pack(
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


def _finish(
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
        grams = contamination.Grams.load(Path(cleaning["grams"]))
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
