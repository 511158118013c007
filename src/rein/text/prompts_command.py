"""`rein text prompts`: rows to learn from and to be asked, from docstrings or from Reddit's posts, each filter counted.

Flow     docstrings.py or tldr.py → rows and reasons → a file of JSON lines; what was dropped and why, on the screen
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rein.bpe.tokenizer import load_tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.progress import Progress
from rein.report.legible import count
from rein.run import write_atomically
from rein.text.docstrings import docstring_rows, installed, of_corpus
from rein.text.documents import Document, Dropped
from rein.text.prompts import FORMATS, query_text
from rein.text.show import table
from rein.text.split import unit_hash
from rein.text.tally import Tally
from rein.text.tldr import tldr_rows

FORMAT_OF = {"pydocs": "docstring", "tldr": "tldr"}  # which format reads the rows of a source


@dataclass(frozen=True)
class PromptsConfig:
    """Settings of `rein text prompts`."""

    files: tuple[Path, ...] = setting((), "files in TL;DR form; for pydocs, a corpus, or nothing", positional=True)
    source: Literal["pydocs", "tldr"] = setting("pydocs", "docstrings of this Python, or posts with their summaries")
    out: Path | None = setting(None, "JSON lines to write; without it, nothing is written")
    tokenizer: Path | None = setting(None, "what posts are counted with: a tokenizer.json, or a folder with one",
                                     paper="GPT-2's")  # fmt: skip
    posts_only: bool = setting(False, "tldr: keep a post whatever its summary is: prompts for PPO",
                               paper="287,790 posts; with the summaries' filters 123,169")  # fmt: skip
    heldout_frac: float = setting(0.05, "share that is held out, where the source does not say", paper="about 0.05")
    max_rows: int | None = setting(None, "keep so many, chosen by their hashes")
    seed: int = setting(0, "of what is held out and chosen")
    show: int = setting(0, "rows to print, as a model reads them")

    def __post_init__(self) -> None:
        if not 0 <= self.heldout_frac < 1:
            raise UserError(f"--heldout-frac is {self.heldout_frac}, but it must be in [0, 1).", "Use 0.05.")
        if self.max_rows is not None and self.max_rows < 1:
            raise UserError(f"--max-rows is {self.max_rows}, but it must be at least 1.", "Raise --max-rows.")
        if self.source == "tldr" and not (self.files and self.tokenizer):
            raise UserError(
                "--source tldr needs files, and --tokenizer to count their tokens.",
                "Name JSON lines with post and summary, and a folder with GPT-2's tokenizer.json.",
            )
        if self.source == "pydocs" and len(self.files) > 1:
            raise UserError(f"--source pydocs reads one corpus, but {len(self.files)} paths are given.", "Name one.")


def prompts(config: PromptsConfig) -> None:
    """Writes rows to learn from and to be asked: {"reference", "split", "id"} and the fields of a format.

    pydocs: the summary line of a docstring, by PEP 257, is to be foretold from its name and its body. Packages are held
    out whole; of a corpus, those that it held out. tldr: the filters of "Learning to summarize", in its order.

    Examples
      rein text prompts --out docstrings.jsonl --show 3
      rein text prompts data/pydocs --out docstrings.jsonl
      rein text prompts train.jsonl valid.jsonl --source tldr --tokenizer gpt2 --out tldr.jsonl
      rein text prompts posts.jsonl --source tldr --tokenizer gpt2 --posts-only --out prompts.jsonl
    """
    tally = Tally()
    rows = []
    with Progress("reading", total=None, unit="rows") as bar:
        for item in _items(config):
            if isinstance(item, Dropped):
                tally.drop(item.id, item.reason, item.text)
            else:
                tally.keep(Document(item["post"], item["id"], config.source))
                rows.append(item)
            bar.advance()
    kept = _chosen(rows, config)
    print("\n".join(_said(tally.to_dict(), kept)))
    if not kept:
        raise UserError("No row is left.", "See above why; give other files.")
    if config.out is not None:
        write_atomically(config.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
        print(f"written   {config.out}, for --format {FORMAT_OF[config.source]}")
    for place in range(min(config.show, len(kept))):
        row = kept[(2 * place + 1) * len(kept) // (2 * min(config.show, len(kept)))]
        format = FORMATS[FORMAT_OF[config.source]]
        print(f"\n─── {row['split']}  {row['id']}\n{query_text(format, row)}{format.lead}{row['reference']}")


def _items(config: PromptsConfig) -> Iterable[dict[str, Any] | Dropped]:
    if config.source == "pydocs":
        documents = of_corpus(config.files[0]) if config.files else installed()
        return docstring_rows(documents, heldout_frac=config.heldout_frac, seed=config.seed)
    assert config.tokenizer is not None, "checked by the config"
    return tldr_rows(config.files, load_tokenizer(config.tokenizer), posts_only=config.posts_only,
                     heldout_frac=config.heldout_frac, seed=config.seed)  # fmt: skip


def _chosen(rows: Sequence[dict[str, Any]], config: PromptsConfig) -> list[dict[str, Any]]:
    if config.max_rows is None or len(rows) <= config.max_rows:
        return list(rows)
    ranked = sorted(range(len(rows)), key=lambda place: (unit_hash(f"row {rows[place]['id']}", config.seed), place))
    return [rows[place] for place in sorted(ranked[: config.max_rows])]


def _said(counts: dict[str, Any], kept: Sequence[dict[str, Any]]) -> list[str]:
    splits = Counter(row["split"] for row in kept)
    lines = [f"read      {count(counts['items'], 'item')}, kept {counts['documents']:,}"]
    lines += [f"chosen    {len(kept):,}"] * (len(kept) < counts["documents"])
    lines += table([(f"{n:,}", split) for split, n in splits.items()], "><")
    if counts["dropped"]:
        lines.append("dropped")
        lines += table(
            [(f"{about['count']:,}", f"{reason}: {', '.join(about['first'])}" + " …" * (about["count"] > 3))
             for reason, about in counts["dropped"].items()], "><",
        )  # fmt: skip
    return lines
