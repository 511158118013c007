"""What the labeling server needs is in the wheel: its pages, their scripts and styles, and the store's migrations."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "rein"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """The names in a wheel of this checkout, as hatchling makes it."""
    builder = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling, which builds the wheel, is not installed"
    )
    out = tmp_path_factory.mktemp("wheel")
    made = next(iter(builder.WheelBuilder(str(ROOT)).build(directory=str(out), versions=["standard"])))
    return set(zipfile.ZipFile(made).namelist())


def test_every_file_of_the_pages_and_of_the_store_is_in_the_wheel(wheel):
    kept = {
        path.relative_to(PACKAGE.parent).as_posix()
        for folder in ("web", "feedback")
        for path in (PACKAGE / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in kept if "/migrations/versions/" in name}
    assert {name for name in kept if "/templates/label/" in name}
    assert kept <= wheel, sorted(kept - wheel)


def test_every_file_that_a_page_names_is_there():
    for page in (PACKAGE / "web" / "templates" / "label").glob("*.html"):
        for name in re.findall(r'(?:src|href)="/static/(?!uplot/)([^"#?{]+)"', page.read_text(encoding="utf-8")):
            assert (PACKAGE / "web" / "static" / name).is_file(), f"{page.name} names {name}"
