"""Texts, pages and rows that tests build corpora of, and what is in a corpus then."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from rein import config as settings
from rein.text import warc
from rein.text.build import BuildConfig, build
from rein.text.recipe import Recipe
from rein.text.shards import read_manifest
from rein.text.store import read_documents

_PROSE = (
    "the of and a to in he was that his it had with as for but not at on she they were by which her all would there "
    "said when who river house morning window letter garden winter father children old small light road quiet stone "
    "water evening village summer friend story began walked remembered thought looked seemed carried opened waited "
    "mountain"
)
PROSE = _PROSE.split()
_JUNK = (
    "buy cheap click here now free offer best price online discount deal sale shop order win bonus casino loan credit "
    "call today limited save money fast shipping guaranteed pills watch"
)
JUNK = _JUNK.split()


def prose(seed: int, n: int = 80, words: list[str] = PROSE) -> str:
    """Words in an order that no other seed has."""
    return " ".join(random.Random(seed).choices(words, k=n)).capitalize() + "."


def urn(number: int) -> str:
    return f"<urn:uuid:00000000-0000-4000-8000-{number:012d}>"


def page(number: int, text: str, url: str = "") -> warc.Page:
    html = f"<html><head><title>t</title></head><body><main><p>{text}</p></main></body></html>"
    url = url or f"https://example.com/{number}"
    return warc.Page(urn(number), url, "2017-05-01T00:00:00Z", html.encode(), charset="utf-8")


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def changed(text: str) -> str:
    """The text with one of its words replaced: a Jaccard similarity of about 0.88 between their shingles."""
    words = text.split()
    words[40] = "changed"
    return " ".join(words)


def made(recipe: Recipe, out: Path, beside: Path, workers: int = 1) -> Path:
    """The corpus of a recipe that lies in the folder `beside`."""
    path = beside / "recipe.json"
    path.write_text(settings.to_json(recipe))
    before = list(sys.path)
    sys.path.insert(0, str(beside))
    try:
        return build(BuildConfig((path,), out=out, workers=workers))
    finally:
        sys.path[:] = before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("build.lock", "config.json")
    }


def kept_of(corpus: Path):
    splits = read_manifest(corpus)["splits"].values()
    return list(read_documents(corpus / "documents" / file["file"] for split in splits for file in split["files"]))


def dropped_of(corpus: Path):
    return list(read_documents(sorted((corpus / "dropped").glob("*.parquet"))))
