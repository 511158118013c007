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
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rein import config as settings
from rein.run import write_atomically
from rein.text import contamination, duplicate_stages, quality
from rein.text.assembly import assemble, choose_tokenizer, finish, pack, tokenise
from rein.text.build_state import Build, Part
from rein.text.documents import NUMBER_BITS
from rein.text.engine import Engine, Record, Task, stage_key
from rein.text.evaluation_sets import read_evaluation
from rein.text.recipe import Recipe, Source
from rein.text.shingles import BANDS
from rein.text.sources import expand, inputs_sha256, load_object, open_source, size_of
from rein.text.store import read_at, save

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
    assembled = assemble(build, parts, gone, cleaning)
    tokenizer = choose_tokenizer(build, assembled)
    tokenised = tokenise(build, assembled, tokenizer)
    packed = pack(build, tokenised, tokenizer)
    return finish(
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
        part.task(
            classifier=str(build.stage("learning quality") / "classifier.safetensors"),
            alpha=rule.alpha,
            seed=build.recipe.seed,
            keep_dropped=build.recipe.keep_dropped,
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
    tasks = [part.task(mode=rule.mode if rule is not None else None) for part in parts]
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
    tasks = [part.task(partition=index, gone=gone, grams=grams) for index, part in enumerate(parts)]
    build.run("counting overlaps", "stages:overlaps", tasks)
    folder = build.stage("counting overlaps")
    counts = sum((np.load(folder / f"{part.name}.npy") for part in parts), start=np.zeros((), dtype=np.int64))
    ignored = build.stage("evaluation sets") / "ignored.npy"
    save(ignored, contamination.too_common(counts, contamination.Rules(**rules)))
    return {"grams": grams, "ignored": str(ignored), "rules": rules}, counts
