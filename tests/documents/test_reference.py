"""The generated pages say what the program says; the lock, the dependencies and the citation agree with it."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import rein

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = sys.modules.setdefault("generate", importlib.util.module_from_spec(spec))
    if not hasattr(module, "PAGES"):
        spec.loader.exec_module(module)
    return module


def declared() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    needs = [*PROJECT["project"]["dependencies"], *(need for extra in extras for need in extra)]
    return [need for need in map(Requirement, needs) if need.name != "rein"]


@pytest.mark.parametrize("name", ["commands.md", "metrics.md", "dependencies.md"])
def test_a_generated_page_is_as_the_program_is(name):
    page = generator().PAGES[name]()
    assert (REFERENCE / name).read_text(encoding="utf-8") == page, "run `make docs`"


def test_no_generated_page_is_left_behind():
    left = {path.name for path in REFERENCE.glob("*.md") if generator().NOTE in path.read_text(encoding="utf-8")}
    assert left == generator().PAGES.keys()


def test_every_dependency_is_explained_and_nothing_else():
    names = set(re.findall(r"^\| `([\w-]+)` \|", (REFERENCE / "dependencies.md").read_text(encoding="utf-8"), re.M))
    builds = {Requirement(need).name for need in PROJECT["build-system"]["requires"]}
    assert names == {need.name for need in declared()} | builds


@pytest.mark.parametrize("need", declared(), ids=lambda need: need.name)
def test_every_dependency_is_locked_to_an_accepted_version(need):
    locked = re.findall(rf"^{re.escape(need.name)}==([^\s;]+)", LOCK, re.MULTILINE)
    assert locked, f"{need.name} is not in requirements.lock; run `make lock`"
    assert all(need.specifier.contains(version) for version in locked), "run `make lock`"


def test_the_lock_holds_exact_versions_and_no_place_they_come_from():
    for line in LOCK.splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+( ; [\w .<>=!'()]+)?", line), line


def test_the_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if re.match(r"[a-z-]+: ", line))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == rein.__version__
    assert fields["license"] == PROJECT["project"]["license"]
    assert {"title", "message", "type"} <= fields.keys()
    assert "authors:" in lines


def test_the_changelog_knows_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in changelog or f"## {rein.__version__}" in changelog
