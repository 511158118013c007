"""Whose answers a folder holds: the digests of the models that wrote and scored them.

Flow     paths of models and specs of judges → `check_weights` ↔ OUT/weights.json

A command that goes on where it was would otherwise mix the answers of two models that lay under one path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rein.errors import UserError
from rein.feedback.policies import Policies
from rein.run import write_atomically


def check_weights(out: Path, models: Mapping[str, Path], judges: Sequence[str]) -> None:
    """Keeps what each model and judge is, by the digest of its weights, in a folder of answers.

    Shapes   models: what it goes by, and where it is; judges: folders of reward models, or functions, by their names.
    Raises   UserError where one has other weights than when the folder's answers were written.
    """
    known = Policies(models)
    now = known.fingerprints() | {spec: known.scorer(spec) for spec in judges}
    path = out / "weights.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{changed[0]} has other weights now than when {out} began.",
            "Choose another --out; name one checkpoint where a run goes on.",
        )
    write_atomically(path, json.dumps(now, indent=1) + "\n")
