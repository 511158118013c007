"""What others build on in labeling is frozen: the tables of a store, the kinds of feedback, the HTTP API.

A changed column needs a migration, a changed kind another version of it, a changed route breaks somebody's program.
Where a change is meant, freeze them anew with `make golden`, and say it in CHANGELOG.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rein.feedback.kinds import describe
from rein.feedback.tables import metadata
from rein.web.label.serve import make_api

FROZEN = Path(__file__).with_name("label.json")


def surfaces() -> dict[str, dict[str, object]]:
    """Tables with their columns; kinds with version and schema; routes with what they take and answer."""
    schema = make_api(None).openapi()
    routes = {
        f"{method.upper()} {path}": {
            "takes": [f"{one['in']} {one['name']}" for one in what.get("parameters", [])],
            "body": what.get("requestBody", {}).get("content", {}),
            "answers": {status: answer.get("content", {}) for status, answer in what["responses"].items()},
        }
        for path, methods in schema["paths"].items()
        for method, what in methods.items()
    }
    return {
        "tables": {
            name: {column.name: f"{column.type}{'' if column.nullable else ', always'}" for column in table.columns}
            for name, table in metadata.tables.items()
        },
        "kinds": {f"{kind['name']} {kind['version']}": kind["schema"] for kind in describe()},
        "routes": routes,
        "bodies": schema["components"]["schemas"],
    }


@pytest.mark.parametrize("surface", ["tables", "kinds", "routes", "bodies"])
def test_what_others_build_on_is_as_it_was(surface):
    frozen, now = json.loads(FROZEN.read_text(encoding="utf-8"))[surface], surfaces()[surface]
    changed = [
        f"{name}:\n  was {frozen.get(name)}\n  is  {now.get(name)}"
        for name in sorted(frozen.keys() | now.keys())
        if frozen.get(name) != now.get(name)
    ]
    assert not changed, "\n".join([*changed, "If it is meant: `make golden`, and a line in CHANGELOG.md."])


if __name__ == "__main__":
    found = surfaces()
    FROZEN.write_text(json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"tests/golden/{FROZEN.name}: {', '.join(f'{len(rows)} {name}' for name, rows in found.items())}")
