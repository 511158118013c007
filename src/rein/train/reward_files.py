"""What runs of reward models leave: their quality, and of a sweep the chosen model and the members of an ensemble.

Flow     RUN/lr-…-seed-…/quality.json, best/ of each cell → the best on dev → RUN/best, RUN/members, RUN/quality.json
Source   Stiennon 2020, App. B.1: chosen by accuracy on the development half, among seeds and learning rates.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rein import checkpoint
from rein.errors import UserError
from rein.models.scalar import BEST, MEMBERS
from rein.run import write_atomically
from rein.train.reward_config import RewardConfig

QUALITY = "quality.json"


def read_quality(out: Path) -> dict[str, Any]:
    """What was measured of a run's model.

    Raises   UserError where there is nothing yet.
    """
    try:
        found: dict[str, Any] = json.loads((out / QUALITY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{out} has no {QUALITY}.", "Give a finished run of `rein reward`.") from None
    return found


def keep(config: RewardConfig, cells: Sequence[RewardConfig]) -> None:
    """Writes the chosen model, the members of an ensemble where it is asked for, and what was measured of all."""
    measured = [read_quality(cell.out) for cell in cells]
    chosen = best_of(measured)
    _copy(cells[chosen].out / BEST, config.out / BEST)
    if config.ensemble:
        rate = cells[chosen].learning_rates
        for cell in cells:
            if cell.learning_rates == rate:
                _copy(cell.out / BEST, config.out / MEMBERS / f"seed-{cell.seed}")
    table = [
        {
            "learning_rate": one["learning_rate"],
            "seed": one["seed"],
            "chosen": place == chosen,
            **{f"{part}_{name}": one[part][name] for part in ("dev", "test") for name in ("accuracy", "nll")},
        }
        for place, one in enumerate(measured)
    ]
    write_atomically(config.out / QUALITY, json.dumps({**measured[chosen], "cells": table}, indent=2) + "\n")


def best_of(measured: Sequence[dict[str, Any]]) -> int:
    """The place of the model with the highest dev accuracy; of equals, of the lowest dev loss, then the first.

    Example  >>> def cell(accuracy, nll): return {"dev": {"accuracy": {"value": accuracy}, "nll": {"value": nll}}}
             >>> best_of([cell(0.6, 0.7), cell(0.7, 0.8), cell(0.7, 0.6)])
             2
    """

    def rank(place: int) -> tuple[float, float]:
        dev = measured[place]["dev"]
        return -dev["accuracy"]["value"], dev["nll"]["value"]

    return min(range(len(measured)), key=rank)


def _copy(source: Path, folder: Path) -> None:
    """A checkpoint once more, whole; the files themselves are shared where the disk can do that."""

    def write(part: Path) -> None:
        for path in source.iterdir():
            if path.name != "rein.json":
                try:
                    os.link(path, part / path.name)
                except OSError:
                    shutil.copyfile(path, part / path.name)

    checkpoint.verify(source)
    about = checkpoint.read_about(source)
    checkpoint.save(folder, write, {name: value for name, value in about.items() if name != "files"})


def say(out: Path) -> None:
    """What a person wants to know at the end."""
    found = read_quality(out)["test"]
    for name, words in (
        ("accuracy", "accuracy"), ("length_accuracy", "of length alone"), ("over_length", "more than length"),
        ("at_equal_length", "at equal length"), ("agreement", "labelers agree"), ("nll", "loss, nats/pair"),
        ("ece", "calibration error"),
    ):  # fmt: skip
        one = found[name]
        if one is not None and one["low"] is not None:
            print(f"{words:<18} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}] of {one['n']:,}")
        elif one is not None:
            print(f"{words:<18} {one['value']:.4f} of {one['n']:,}")
    print(out / "quality.html")
