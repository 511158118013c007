"""A build under way: its partitions, and what its stages share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rein.text import shards
from rein.text.engine import Engine, Record, Task, stage_key
from rein.text.recipe import Recipe, Source
from rein.text.tally import total


@dataclass(frozen=True)
class Part:
    """One partition on its way: the file its documents are in now."""

    source: Source
    name: str
    file: Path
    documents: int
    bytes: int

    def task(self, **arguments: Any) -> Task:
        """What a stage is to do with this partition's documents."""
        of = {"name": self.name, "source": self.source.name, "file": str(self.file)}
        return Task(self.name, self.bytes, {**of, **arguments})


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
