"""`rein ppo presets`: the papers' PPO side by side, for people and for documents."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from rein.config import setting
from rein.report.legible import table
from rein.train.rlhf_presets import IN_WORDS, PPO, ppo_markdown, ppo_table


@dataclass(frozen=True)
class PresetsConfig:
    """Settings of `rein ppo presets`."""

    markdown: bool = setting(False, "a table in Markdown, with the words in it")


def presets(config: PresetsConfig) -> None:
    """Prints where the presets of `rein ppo` differ: which settings, from which paper, and what it left open.

    Example
      rein ppo presets
    """
    print(ppo_markdown().rstrip() if config.markdown else in_columns())


def in_columns() -> str:
    """The table for a terminal: settings in columns, and below it, preset by preset, what needs words."""
    rows = [row for row in ppo_table() if row[0] not in IN_WORDS]
    lines = table(rows, "<" + ">" * len(PPO))
    for name, preset in PPO.items():
        lines += ["", name]
        for field in IN_WORDS:
            said = f"{field.replace('_', ' ')}: {getattr(preset, field)}"
            lines += textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)
