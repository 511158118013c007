"""The formats, in one table: what a file looks like, who reads it, who writes it.

Flow     a format's name, or the first row of a file → `Format` → importing.py, exporting.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rein.errors import UserError, suggestion
from rein.feedback.exchange import groups, openai, own, pairs, pandalm, peers, trees
from rein.feedback.exchange.rows import Parsed
from rein.feedback.exchange.texts import HUMAN
from rein.feedback.exchange.writing import (
    PREFERENCES,
    Export,
    write_axes,
    write_comparisons,
    write_hh,
    write_own,
    write_pairs,
    write_pandalm,
    write_ranked,
    write_trees,
    write_unpaired,
)  # fmt: skip

Json = Any
Row = Mapping[str, Json]
# lines: JSON lines. ascii: the same with all else escaped. list: one JSON list, indented. folder: several files.
Style = Literal["lines", "ascii", "list", "folder"]


@dataclass(frozen=True)
class Format:
    """One form of files."""

    name: str
    says: str  # what it is, in a line
    reads: Callable[[int, Row], Parsed] | None  # a row, with the number of its line
    writes: Callable[[Export], Iterator[Json]] | None
    like: Callable[[Row], bool] | None = None  # whether a file that begins with this row is of it
    kinds: tuple[str, ...] = ()  # a project that asks none of these has no use for it; (): no matter
    preset: str = ""  # of a project that an import makes
    style: Style = "lines"


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "rein", "everything that a project's feedback is made of", own.read_own, write_own,
            lambda row: row.get("format") == own.FORMAT,
        ),
        Format(
            "openai-comparisons", "OpenAI's comparisons of two summaries", openai.read_comparison, write_comparisons,
            lambda row: {"info", "summaries", "choice"} <= row.keys(), ("comparison",), "comparison",
        ),
        Format(
            "openai-axes", "OpenAI's marks of a summary on four axes", openai.read_axes, write_axes,
            lambda row: {"info", "summary"} <= row.keys(), ("likert",), "axes",
        ),
        Format(
            "ranked", "groups of outputs with ranks, as InstructGPT's", groups.read_ranked, write_ranked,
            lambda row: "outputs" in row and bool(groups.SAID.keys() & row.keys()),
            tuple(kind for kind, _ in groups.SAID.values()), "ranking",
        ),
        Format(
            "hh-rlhf", "Anthropic's pairs of dialogues", pairs.read_hh, write_hh,
            lambda row: all(isinstance(row.get(n), str) and row[n].startswith(HUMAN) for n in ("chosen", "rejected"))
            and "prompt" not in row,
            PREFERENCES, "comparison",
        ),
        Format(
            "trl", "preferences for TRL, with the prompt apart or inside", pairs.read_trl, write_pairs,
            lambda row: {"chosen", "rejected"} <= row.keys(), PREFERENCES, "comparison",
        ),
        Format(
            "trl-unpaired", "single outputs, wanted or not, for TRL; of flags and ratings", None, write_unpaired,
            kinds=("flags", "rating", "likert"),
        ),
        Format(
            "hf", "a folder for Hugging Face's datasets, with its card", None, None,
            kinds=(*PREFERENCES, "demonstration"), style="folder",
        ),
        Format(
            "oasst", "Open-Assistant's trees with ranked replies", trees.read_tree, write_trees,
            lambda row: "message_tree_id" in row, ("ranking",), "ranking", "ascii",
        ),
        Format(
            "pandalm", "PandaLM's pairs with three annotators", pandalm.read_pandalm, write_pandalm,
            lambda row: {"response1", "response2", "annotator1"} <= row.keys(), ("comparison",), "comparison", "list",
        ),
        Format(
            "argilla", "Argilla's records, of version 1 and 2", peers.read_argilla, None,
            lambda row: isinstance(row.get("fields"), dict) and "responses" in row,
        ),
        Format(
            "label-studio", "Label Studio's annotated tasks", peers.read_label_studio, None,
            lambda row: isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list),
        ),
        Format(
            "tamer", "the records of TAMER lessons", None, None, lambda row: row.get("format") == "rein.tamer",
            style="folder",
        ),
        Format(
            "prompts", "prompts with outputs to be judged, or alone to be answered", groups.read_prompts, None,
            lambda row: bool({"outputs", "completion", "output", "prompt"} & row.keys()),
        ),
    )
}  # fmt: skip


def named_format(name: str) -> Format:
    """A format by its name.

    Raises   UserError when there is none.
    """
    if name not in FORMATS:
        raise UserError(f"There is no format {name!r}.", suggestion(name, FORMATS))
    return FORMATS[name]
