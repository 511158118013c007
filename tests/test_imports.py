"""Imports go one way: a level uses the levels below it, and its own; never one above."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. The longest name that a module begins with decides.
# rein.report is drawn from the files of a run folder alone, so every loop may ask for it.
LEVELS = tuple(
    names.split()
    for names in (
        "rein rein.config rein.errors rein.shapes rein.compiled",
        "rein.losses rein.returns rein.optim rein.noise_scale rein.guard rein.over_optimisation rein.monitors "
        "rein.checkpoint rein.distributed rein.run rein.mirrors rein.progress rein.report",
        "rein.models rein.feedback rein.text rein.bpe",
        "rein.train rein.evals rein.agents",
        "rein.cli rein.__main__ rein.web rein.recipes rein.loop",
    )
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

# (who, whom) → why. One that is no longer needed fails too.
EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "rein.recipes.demo",
        "rein.recipes.demo_result",
    ): "what the demonstration came to, in a file of its own to be read alone",
}


def modules() -> dict[str, Path]:
    """Module name → file, of the package."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports_of(source: str, module: str, *, package: bool, known: frozenset[str]) -> Iterator[str]:
    """The modules of ours that `module` imports: at its top, in a function, under TYPE_CHECKING, or by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
            names = [name if name in known else origin for name in names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "rein")


def level(module: str) -> int:
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in LEVEL and (name != "rein" or module == "rein"):
            return LEVEL[name]
    raise AssertionError(f"{module} stands on no level; give it one in LEVELS of tests/test_imports.py")


def edges() -> Iterator[tuple[str, str]]:
    for module, path in MODULES.items():
        source = path.read_text(encoding="utf-8")
        package = path.name == "__init__.py"
        for target in imports_of(source, module, package=package, known=frozenset(MODULES)):
            yield module, target


def test_imports_go_one_way():
    upward = {(a, b) for a, b in edges() if level(b) > level(a)} - EXCEPTIONS.keys()
    assert not upward, "\n".join(f"{a} imports {b}, which stands above it" for a, b in sorted(upward))


# The files of rein.train that are read from top to bottom; the others there are rooms that loops may share.
LOOPS = frozenset(f"rein.train.{name}" for name in ("pretrain", "finetune", "sft", "reward", "ppo", "dpo"))


def test_a_training_loop_never_imports_another():
    across = {(a, b) for a, b in edges() if a != b and a.startswith("rein.train.") and b in LOOPS}
    across |= {(a, b) for a, b in edges() if a != b and a.startswith("rein.recipes.") and b.startswith("rein.recipes.")}
    assert not across - EXCEPTIONS.keys(), "\n".join(f"{a} imports {b}" for a, b in sorted(across))


def test_no_exception_outlives_its_reason():
    assert set(edges()) >= EXCEPTIONS.keys()


def test_feedback_is_recorded_without_torch():
    for name in ("rein.feedback.store", "rein.feedback.record"):
        if path := MODULES.get(name):
            assert not re.search(r"^\s*(import|from) torch", path.read_text(encoding="utf-8"), re.MULTILINE), name


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import rein.train.ppo", "rein.train.ppo"),
        ("from rein import run", "rein.run"),
        ("from rein import __version__", "rein"),
        ("from rein.run import RunFolder", "rein.run"),
        ("from . import sft", "rein.train.sft"),
        ("from .sft import train", "rein.train.sft"),
        ("from .. import run", "rein.run"),
        ("from ..run import RunFolder", "rein.run"),
        ("def f():\n    from rein.run import RunFolder", "rein.run"),
        ("if TYPE_CHECKING:\n    import rein.run", "rein.run"),
        ("importlib.import_module('rein.run')", "rein.run"),
    ],
)
def test_every_form_of_import_is_seen(line, found):
    known = frozenset({"rein", "rein.run", "rein.train", "rein.train.sft"})
    assert list(imports_of(line, "rein.train.ppo", package=False, known=known)) == [found]
    assert list(imports_of("from .sft import train", "rein.train", package=True, known=known)) == ["rein.train.sft"]
