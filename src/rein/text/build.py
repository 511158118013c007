"""`rein text build`: flags, or a recipe, to a corpus. The pipeline itself is pipeline.py.

    data/NAME/  config.json  recipe.json  manifest.json  report.html  tokenizer.json  documents/  train-00000.bin …

manifest.json is written last. Until then work/ holds what the finished stages made; a build that was killed goes
on from there, and gives the same bytes as one that was not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rein import config as settings
from rein.bpe.tokenizer import load_tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.run import lock_folder, write_atomically
from rein.text import shards
from rein.text.engine import Engine
from rein.text.pipeline import fingerprint_of_inputs, make
from rein.text.recipe import (
    EXTENSIONS,
    Decontamination,
    NearDuplicates,
    Recipe,
    Source,
    load_recipe,
)
from rein.text.report import REPORT, worth_knowing
from rein.text.show import describe

CONFIG, RECIPE = "config.json", "recipe.json"
_LOCK = "build.lock"


@dataclass(frozen=True)
class BuildConfig:
    """Settings of `rein text build`."""

    paths: tuple[Path, ...] = setting(
        (), "a recipe (.py or .json), or your folders and files; none for pydocs", positional=True
    )
    source: Literal["pydocs", "folder", "text", "jsonl", "parquet", "html", "warc", "huggingface"] = setting(
        "pydocs", "pydocs: the documentation inside this Python installation; the others read PATHS"
    )
    out: Path | None = setting(None, "the corpus folder; data/ and the recipe's or first path's name, if not given")
    seed: int = setting(0, "decides which documents are held out")
    heldout_frac: float = setting(
        0.05, "part of the text held out for measuring; 0: none", unit="fraction of bytes or documents"
    )

    extensions: tuple[str, ...] = setting(EXTENSIONS, "ends of file names to read (folder)", group="reading")
    text_field: str = setting("text", "field or column that holds the text (jsonl, parquet)", group="reading")
    id_field: str | None = setting(None, "field with each document's own name (jsonl, parquet)", group="reading")
    dataset: str | None = setting(None, "name of a Hugging Face dataset (huggingface)", group="reading")
    subset: str | None = setting(None, "its configuration, where it has several", group="reading")
    extract: Literal["fast", "precise", "union"] = setting(
        "fast", "how text is taken out of HTML: resiliparse, trafilatura, or both (html, warc)", group="reading"
    )
    links: tuple[Path, ...] = setting(
        (), "link dumps (url, score, date): keep the pages that WebText's rules name (html, warc)", group="reading"
    )
    license: str = setting("not stated", "licence of your text, kept with each document (not pydocs)", group="reading")
    max_documents: int | None = setting(None, "stop after keeping so many", unit="documents", group="reading")
    max_mb: float | None = setting(None, "stop after keeping so much text", unit="10^6 bytes", group="reading")

    languages: tuple[str, ...] = setting((), "keep these languages (ISO 639-1); none: all", group="choosing")
    min_chars: int | None = setting(
        None, "shortest document; 40 for pydocs if not given", unit="characters", group="choosing"
    )
    near_duplicates: Literal["off", "shingles", "gpt3"] = setting(
        "shingles", "drop near-duplicates; gpt3: by sets of words and 10 hashes, as the paper", group="choosing"
    )
    threshold: float = setting(0.8, "smallest Jaccard similarity of near-duplicates", group="choosing")
    against: tuple[Path, ...] = setting(
        (), "evaluation sets whose text is removed, by GPT-3's Appendix C", group="choosing"
    )
    keep_dropped: bool = setting(False, "write what is dropped, and why, to dropped/", group="choosing")

    tokenizer: Path | None = setting(
        None, "tokenizer.json, or a folder with one; if not given, one is learnt from the train part", group="tokens"
    )
    n_vocab: int | None = setting(None, "size of the vocabulary to learn; 8192 if not given", group="tokens")
    tokenizer_mb: int = setting(100, "learn it from so much text, spread evenly", unit="10^6 bytes", group="tokens")
    shard_tokens: int = setting(100_000_000, "tokens in one shard", unit="tokens", group="tokens")

    workers: int | None = setting(None, "processes; one per core if not given", group="running")
    ray: str | None = setting(
        None, "a Ray cluster's address, auto, or local: its machines do the work", group="running"
    )

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers is {self.workers}, but at least 1 is needed.", "Pass --workers 2.")
        if self.is_recipe():
            changed = [
                settings.flag_of(name)
                for name, value in settings.to_dict(self).items()
                if name not in ("paths", "out", "workers", "ray") and value != settings.to_dict(BuildConfig())[name]
            ]
            if changed:
                raise UserError(f"{changed[0]} is given beside the recipe {self.paths[0]}.", "Set it in the recipe.")
        else:
            self.recipe()

    def is_recipe(self) -> bool:
        """Whether PATHS is a recipe."""
        return self.source == "pydocs" and len(self.paths) == 1 and self.paths[0].suffix in (".py", ".json")

    def recipe(self) -> Recipe:
        """What is to be built.

        Raises   UserError when a setting cannot be, or the recipe cannot be read.
        """
        if self.is_recipe():
            return load_recipe(self.paths[0])
        source = Source(
            re.sub(r"[^\w-]+", "-", self._name()).strip("-") or "text",
            self.source,
            self.paths,
            extensions=self.extensions,
            text_field=self.text_field,
            id_field=self.id_field,
            dataset=self.dataset,
            subset=self.subset,
            extract=self.extract,
            links=self.links,
            license=self.license,
            languages=self.languages,
            min_chars=self.min_chars,
            max_documents=self.max_documents,
            max_mb=self.max_mb,
        )
        return Recipe(
            (source,),
            near_duplicates=None
            if self.near_duplicates == "off"
            else NearDuplicates(self.near_duplicates, self.threshold),
            decontamination=Decontamination(self.against) if self.against else None,
            seed=self.seed,
            heldout_frac=self.heldout_frac,
            tokenizer=self.tokenizer,
            n_vocab=self.n_vocab,
            tokenizer_mb=self.tokenizer_mb,
            shard_tokens=self.shard_tokens,
            keep_dropped=self.keep_dropped,
        )

    def folder(self) -> Path:
        """Where the corpus goes."""
        return self.out if self.out is not None else Path("data") / self._name()

    def _name(self) -> str:
        name = self.paths[0].resolve().name if self.paths else self.source
        if self.dataset is not None:
            name = Path(self.dataset).name
        return Path(name.removesuffix(".gz").removesuffix(".zst")).stem


def build(config: BuildConfig) -> Path:
    """Collects documents, cleans and chooses them, holds some out, tokenises both parts; returns the corpus folder.

      rein text build                                   the English inside this Python installation
      rein text build recipe.py                         a whole pipeline, as its recipe says
      rein text build essays --source folder            every .txt, .md and .rst file below essays/
      rein text build input.txt --source text           one long text; its tail is held out
      rein text build a.jsonl b.jsonl.gz --source jsonl --text-field body --n-vocab 32768
      rein text build crawl/*.warc.gz --source warc --extract union --languages en --against evaluation
      rein text build recipe.py --ray auto              the same on a Ray cluster; the folder must be shared

    What cannot be a document is dropped, with a reason that is counted. The same command continues a build that
    was interrupted, and returns at once when the corpus is complete. report.html in the corpus folder shows what
    was kept, what was dropped, and why.
    """
    recipe = config.recipe()
    if recipe.tokenizer is not None:
        load_tokenizer(recipe.tokenizer)  # a mistake is said before anything is written
    folder = config.folder()
    beside = (config.paths[0].parent,) if config.is_recipe() else ()
    engine = Engine(config.workers or len(os.sched_getaffinity(0)), config.ray, beside)
    with lock_folder(folder, _LOCK):
        if _is_complete(folder, recipe):
            print(f"{folder} is complete already, built with these settings.\n")
        else:
            write_atomically(folder / CONFIG, settings.to_json(_continuing(config, folder)))
            write_atomically(folder / RECIPE, settings.to_json(recipe))
            make(recipe, folder, engine)
    print(describe(folder, shards.read_manifest(folder)))
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    for note in worth_knowing(shards.read_manifest(folder), report):
        print(f"\nworth knowing: {note}")
    print(
        f"\nreport: {folder}/report.html"
        f"\nnext:   rein text show {folder}\n        rein pretrain --data {folder} --out runs/{folder.name}"
    )
    return folder


def _continuing(config: BuildConfig, folder: Path) -> BuildConfig:
    """The settings that continue the build, or make it again: a recipe as it was when it was read."""
    changes: dict[str, Any] = {"out": folder}
    if config.is_recipe() and config.paths[0].suffix == ".json":
        changes["paths"] = (folder / RECIPE,)
    return settings.replace(config, **changes)


def _is_complete(folder: Path, recipe: Recipe) -> bool:
    """Whether the corpus is there already.

    Raises   UserError when the folder holds something else, or a corpus of other settings or inputs.
    """
    if not (folder / shards.MANIFEST).exists():
        known = {_LOCK, CONFIG, RECIPE, shards.WORK}
        strangers = sorted({entry.name for entry in folder.iterdir() if not entry.name.endswith(".part")} - known)
        if strangers and not (folder / shards.WORK).is_dir():
            raise UserError(
                f"{folder} is not empty ({', '.join(strangers[:3])}) and holds no corpus.",
                "Choose another --out, or empty the folder.",
            )
        return False
    manifest = shards.read_manifest(folder)
    old, new = manifest["settings"], settings.to_dict(recipe)
    changed = list(_differences(old, new))
    if changed:
        raise UserError(
            f"{folder} holds a corpus of other settings ({'; '.join(changed[:4])}).",
            f"Choose another --out, or remove {folder} to build it anew.",
        )
    same_tokenizer = (
        recipe.tokenizer is None or load_tokenizer(recipe.tokenizer).sha256() == manifest["tokenizer"]["sha256"]
    )
    if manifest["inputs_sha256"] != fingerprint_of_inputs(recipe) or not same_tokenizer:
        what = "what it reads, text or a step's code," if same_tokenizer else f"the tokenizer in {recipe.tokenizer}"
        raise UserError(
            f"{folder} was built from other content: {what} has changed since.",
            f"Choose another --out, or remove {folder} to build it anew.",
        )
    files = [folder / REPORT, folder / "tokenizer.json"]
    for about in manifest["splits"].values():
        files += [folder / shard[kind] for shard in about["shards"] for kind in ("bin", "idx")]
        files += [folder / "documents" / record["file"] for record in about["files"]]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UserError(f"{folder} is not whole: {missing[0]} is missing.", f"Remove {folder} to build it anew.")
    shutil.rmtree(folder / shards.WORK, ignore_errors=True)
    return True


def _differences(old: Any, new: Any, name: str = "") -> Any:
    """What differs between two trees of settings, as "name: old → new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in new:
            yield from _differences(old.get(key), new[key], f"{name}{name and '.'}{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{name}[{index}]")
    elif old != new:
        yield f"{name}: {json.dumps(old)} → {json.dumps(new)}"
