"""A recipe: which text a corpus is made of, and what is done to it on the way. One object reads as the pipeline.

    recipe.py    a Python file that sets `recipe = Recipe(...)`
    recipe.json  the same as plain data; every corpus keeps the one it was made by

    Recipe(
        sources=(
            Source("web", "warc", ("crawl/*.warc.gz",), extract="union", languages=("en",), quality=True, weight=0.8),
            Source("manuals", "html", ("manuals",), weight=0.2),
        ),
        quality=Quality(positive=("manuals",), negative=("web",)),
        near_duplicates=NearDuplicates(prefer=("manuals", "web")),
        decontamination=Decontamination(against=("evaluation",)),
    )

Paths are relative to where the command is typed, as on the command line. They may have * and ** in them.
"""

from __future__ import annotations

import re
import runpy
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Literal

from rein import config as settings
from rein.bpe.trainer import COUNTABLE_BYTES
from rein.config import setting
from rein.errors import UserError, suggestion
from rein.text.shards import MAX_SHARD_TOKENS

KINDS = ("pydocs", "folder", "text", "jsonl", "parquet", "html", "warc", "huggingface")
EXTENSIONS = (".txt", ".md", ".rst")
MIN_DOCSTRING_CHARS = 40


@dataclass(frozen=True)
class Source:
    """Where documents come from, and what is asked of each one by itself."""

    name: str = setting(help="what the corpus calls it")
    kind: str = setting(
        help="pydocs, folder, text, jsonl, parquet, html, warc, huggingface, or your own reader as package.module:Class"
    )
    paths: tuple[Path, ...] = setting((), "files and folders; * and ** stand for several")

    extensions: tuple[str, ...] = setting(EXTENSIONS, "ends of file names to read (folder)")
    text_field: str = setting("text", "field or column that holds the text (jsonl, parquet, huggingface)")
    id_field: str | None = setting(None, "field with each document's own name; file and line if not given")
    license: str = setting("not stated", "licence of the text, kept with each document")
    dataset: str | None = setting(None, "name of a Hugging Face dataset, or a folder with one")
    subset: str | None = setting(None, "its configuration, where it has several")
    split: str = setting("train", "its split")

    extract: Literal["fast", "precise", "union"] = setting("fast", "how text is taken out of HTML (html, warc)")
    links: tuple[Path, ...] = setting((), "dumps of links with votes: keep the pages they name (html, warc)")
    min_score: int = setting(3, "fewest votes of a link", paper="3 karma")
    until: str = setting("2017-12-31", "last day of a link", paper="December 2017")

    languages: tuple[str, ...] = setting((), "keep these languages, as ISO 639-1 codes; none: keep all")
    min_language_confidence: float = setting(0.5, "and be so sure of it")
    min_chars: int | None = setting(None, "shortest document; 40 for pydocs, 1 for others, if not given")
    max_chars: int | None = setting(None, "longest document")
    steps: tuple[str, ...] = setting((), "your own, package.module:function of a Document")
    quality: bool = setting(False, "pass the quality classifier's choice")
    max_documents: int | None = setting(None, "stop after keeping so many")
    max_mb: float | None = setting(None, "stop after keeping so much text", unit="10^6 bytes")

    weight: float | None = setting(None, "share of the training tokens")
    epochs: float | None = setting(None, "or how often it is seen, against the other sources")

    def __post_init__(self) -> None:
        settings.check_types(self, f"the source {self.name!r}")
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise UserError(f"A source is called {self.name!r}.", "Use letters, digits, - and _.")
        where = f"The source {self.name!r}"
        if self.kind not in KINDS and ":" not in self.kind:
            raise UserError(f"{where} is of the kind {self.kind!r}.", suggestion(self.kind, KINDS))
        needs_paths = self.kind in KINDS and self.kind not in ("pydocs", "huggingface")
        if needs_paths and not self.paths:
            raise UserError(f"{where} ({self.kind}) needs at least one path.", "Name files or folders.")
        if self.kind == "pydocs" and self.paths:
            raise UserError(
                f"{where} (pydocs) reads the installed packages, but {self.paths[0]} is given.",
                f"Say what it is ({', '.join(KINDS[1:-1])}); a recipe's name ends in .py or .json.",
            )
        if (self.kind == "huggingface") != (self.dataset is not None):
            raise UserError(f"{where}: a dataset's name goes with the kind huggingface.", "Give both, or neither.")
        if self.links and self.kind not in ("html", "warc"):
            raise UserError(f"{where} is {self.kind}, but links name web pages.", "Use the kinds html or warc.")
        for name in ("min_chars", "max_chars", "max_documents", "max_mb", "weight", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{where}: {name} is {value}, but it must be above 0.", "Correct the value.")
        try:
            date.fromisoformat(self.until)
        except ValueError:
            raise UserError(f"{where}: until is {self.until!r}, which is no day.", "Write it as 2017-12-31.") from None
        for language in self.languages:
            if not (language.isascii() and language.islower() and len(language) in (2, 3)):
                raise UserError(f"{where}: {language!r} is no code of a language.", "Write en, de or zh: ISO 639-1.")
        if not 0 <= self.min_language_confidence <= 1:
            raise UserError(
                f"{where}: min_language_confidence is {self.min_language_confidence}, but it must be from 0 to 1.",
                "Use 0.5.",
            )
        if self.min_chars is not None and self.max_chars is not None and self.min_chars > self.max_chars:
            raise UserError(
                f"{where}: min_chars is {self.min_chars} and max_chars {self.max_chars}.", "Nothing would be left."
            )

    @property
    def shortest(self) -> int:
        """The fewest characters a document may have."""
        return self.min_chars or (MIN_DOCSTRING_CHARS if self.kind == "pydocs" else 1)


@dataclass(frozen=True)
class Quality:
    """GPT-3's classifier (Brown 2020, Appendix A): which raw documents look like the reference ones."""

    positive: tuple[str, ...] = setting(help="sources that are what good text looks like")
    negative: tuple[str, ...] = setting(help="sources of raw text; best a sample that is not filtered itself")
    alpha: float = setting(9.0, "of the Pareto draw; larger keeps fewer low scores", paper="9")
    l2: float = setting(0.0, "regularisation; 0 is Spark's default")
    max_documents: int = setting(50_000, "learn from at most so many of each side, chosen by their hashed texts")

    def __post_init__(self) -> None:
        settings.check_types(self, "Quality")
        for name, least in (("alpha", 0.01), ("l2", 0.0), ("max_documents", 20)):
            if getattr(self, name) < least:
                raise UserError(
                    f"The classifier's {name} is {getattr(self, name)}, but it must be at least {least}.", "Raise it."
                )


@dataclass(frozen=True)
class NearDuplicates:
    """Which documents say the same as another one, and which of them stays."""

    mode: Literal["shingles", "gpt3"] = setting(
        "shingles", "shingles: sets of 5 words, 18 bands of 7 hashes; gpt3: sets of words, 10 bands of 1, as Spark's"
    )
    threshold: float = setting(0.8, "smallest Jaccard similarity of two duplicates, verified")
    keep: Literal["component", "greedy"] = setting(
        "component", "component: one document of each connected group; greedy: drop only what is near one that stays"
    )
    prefer: tuple[str, ...] = setting((), "sources in the order in which their documents stay; the recipe's, if none")

    def __post_init__(self) -> None:
        settings.check_types(self, "NearDuplicates")
        if not 0 < self.threshold <= 1:
            raise UserError(
                f"The similarity threshold is {self.threshold}, but it must be above 0 and at most 1.", "Use 0.8."
            )


@dataclass(frozen=True)
class Decontamination:
    """Which text is removed because an evaluation set has it too (Brown 2020, Appendix C)."""

    against: tuple[Path, ...] = setting(help="files and folders of evaluation sets")
    n: int = setting(13, "words in a row that count as the same", paper="13")
    window_chars: int = setting(200, "removed on each side of them", unit="characters", paper="200")
    min_piece_chars: int = setting(200, "shortest piece that stays", unit="characters", paper="200")
    max_pieces: int = setting(10, "a document in more pieces is dropped", paper="10")
    max_documents: int = setting(10, "what more documents share is a common phrase", paper="10")

    def __post_init__(self) -> None:
        settings.check_types(self, "Decontamination")
        if not self.against:
            raise UserError("There is nothing to decontaminate against.", "Name evaluation sets in `against`.")
        for name, least in (
            ("n", 1),
            ("window_chars", 0),
            ("min_piece_chars", 0),
            ("max_pieces", 0),
            ("max_documents", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(
                    f"Decontamination's {name} is {getattr(self, name)}, but it must be at least {least}.", "Raise it."
                )


PARTS = (Source, Quality, NearDuplicates, Decontamination)


@dataclass(frozen=True)
class Recipe:
    """A whole corpus."""

    sources: tuple[Source, ...] = setting(help="where the text is from, in the order of the corpus")
    quality: Quality | None = setting(None, "filter by a classifier")
    near_duplicates: NearDuplicates | None = setting(None, "drop near-duplicates; exact ones always are")
    decontamination: Decontamination | None = setting(None, "remove what evaluation sets have")

    seed: int = setting(0, "of the held-out part, the classifier and its draws")
    heldout_frac: float = setting(0.05, "part of the text held out for measuring; 0: none")
    tokenizer: Path | None = setting(None, "tokenizer.json, or a folder with one; learnt if not given")
    n_vocab: int | None = setting(None, "size of the vocabulary to learn; 8192 if not given")
    tokenizer_mb: int = setting(100, "learn it from so much text, spread evenly", unit="10^6 bytes")
    shard_tokens: int = setting(100_000_000, "tokens in one shard", unit="tokens")
    keep_dropped: bool = setting(False, "write what is dropped, and why, to dropped/")

    def __post_init__(self) -> None:
        settings.check_types(self, "the recipe")
        names = [source.name for source in self.sources]
        if not names:
            raise UserError("The recipe has no sources.", "Give at least one.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"Two sources are called {twice[0]!r}.", "Give each a name of its own.")
        for role, wanted in self._references():
            for name in wanted:
                if name not in names:
                    raise UserError(f"{role} names the source {name!r}, but there is none.", suggestion(name, names))
        if self.quality is not None and not (self.quality.positive and self.quality.negative):
            raise UserError("The quality classifier needs examples of both sides.", "Name sources for each.")
        if self.quality is not None and not any(source.quality for source in self.sources):
            raise UserError("The recipe has a classifier, but no source passes through it.", "Set quality=True on one.")
        if self.quality is None and any(source.quality for source in self.sources):
            raise UserError(
                "A source is to pass the quality classifier, but the recipe has none.", "Add quality=Quality(...)."
            )
        if any(source.weight is not None and source.epochs is not None for source in self.sources):
            raise UserError("A source has a weight and epochs.", "Give one of the two: each follows from the other.")
        for given in ("weight", "epochs"):
            missing = [source.name for source in self.sources if getattr(source, given) is None]
            if missing and len(missing) < len(names):
                raise UserError(
                    f"The source {missing[0]!r} has no {given}, but others have.",
                    f"Give {given} for every source, or for none.",
                )
        if not 0 <= self.heldout_frac < 1:
            raise UserError(f"--heldout-frac is {self.heldout_frac}, but it must be from 0 to below 1.", "Pass 0.05.")
        if self.tokenizer is not None and self.n_vocab is not None:
            raise UserError(
                f"--n-vocab {self.n_vocab} and --tokenizer {self.tokenizer} are both given.",
                "A given tokenizer has its size already; leave one of the two out.",
            )
        for name, most in (("shard_tokens", MAX_SHARD_TOKENS), ("tokenizer_mb", COUNTABLE_BYTES // 1_000_000)):
            value = getattr(self, name)
            if not 0 < value <= most:
                raise UserError(
                    f"{settings.flag_of(name)} is {value}, but it must be from 1 to {most:,}.", "Correct the value."
                )

    def _references(self) -> Iterable[tuple[str, Sequence[str]]]:
        if self.quality is not None:
            yield "The quality classifier", (*self.quality.positive, *self.quality.negative)
        if self.near_duplicates is not None:
            yield "near_duplicates.prefer", self.near_duplicates.prefer

    def rank(self, name: str) -> int:
        """Whose documents stay where two sources have the same: a smaller number is preferred."""
        prefer = self.near_duplicates.prefer if self.near_duplicates is not None else ()
        names = [*prefer, *(source.name for source in self.sources if source.name not in prefer)]
        return names.index(name)


def load_recipe(path: Path) -> Recipe:
    """The recipe of a .py or .json file. A Python file is run: it is your program, as any script is.

    Raises   UserError when the file is missing, fails, or sets no `recipe`.
    """
    if not path.is_file():
        raise UserError(f"The recipe {path} does not exist.", "Check the path.")
    use_modules_beside(path.parent)
    if path.suffix == ".json":
        return settings.from_json(Recipe, path)
    try:
        found = runpy.run_path(str(path)).get("recipe")
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f" (line {lines[-1]})" if lines else ""
        fix = "Correct the file."
        unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        part = next((part for part in (*PARTS, Recipe) if unknown and part.__name__ == unknown[1]), None)
        if unknown and part:
            fix = suggestion(unknown[2], [field.name for field in fields(part)])
        raise UserError(f"The recipe {path} fails{place}: {type(error).__name__}: {error}.", fix) from error
    if not isinstance(found, Recipe):
        raise UserError(
            f"The recipe {path} sets no `recipe`.",
            "End it with `recipe = Recipe(...)`, from rein.text.recipe import Recipe, Source.",
        )
    return found


def use_modules_beside(folder: Path) -> None:
    """Lets a recipe name functions of files that lie beside it."""
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
