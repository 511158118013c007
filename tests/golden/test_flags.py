"""The commands' settings are frozen: a renamed flag or another default breaks somebody's script.

Where a change is meant, freeze them anew with `make golden`, and say it in CHANGELOG.md.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from rein.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).with_name("flags.json")


def of(command) -> list[dict[str, object]]:
    """Name, type, default and need of every setting of a command."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = sys.modules.setdefault("generate", importlib.util.module_from_spec(spec))
    if not hasattr(generate, "settings"):
        spec.loader.exec_module(generate)
    _, config_class = command.load()
    return [
        {"name": s.flag, "type": s.type, "required": s.required, "default": s.default}
        for s in generate.settings(config_class)
    ]


def test_every_command_is_frozen_and_none_has_gone():
    assert list(json.loads(FROZEN.read_text())) == [command.name for command in COMMANDS], "see `make golden`"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_settings_are_the_frozen_ones(command):
    frozen = {row["name"]: row for row in json.loads(FROZEN.read_text())[command.name]}
    now = {row["name"]: row for row in of(command)}
    changed = [f"{name}: {frozen.get(name)} → {now.get(name)}" for name in sorted(frozen.keys() | now.keys())
               if frozen.get(name) != now.get(name)]  # fmt: skip
    assert not changed, "\n".join([*changed, "If it is meant: `make golden`, and a line in CHANGELOG.md."])
    assert list(frozen) == list(now), "the order of the settings changed; if it is meant: `make golden`"


if __name__ == "__main__":
    lines = [
        f"  {json.dumps(command.name)}: [\n"
        + ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in of(command))
        + "\n  ]"
        for command in COMMANDS
    ]
    FROZEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{FROZEN.relative_to(ROOT)}: {len(COMMANDS)} commands")
