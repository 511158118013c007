"""The examples in docstrings run, and say what comes out."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "docs" / "generate.py"]
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE


class Parser(doctest.DocTestParser):
    """Reads `Example  >>> …`: the word counts as indentation, and a line left of it ends what comes out."""

    def parse(self, string, name="<string>"):
        lines, indent = [], 0
        for line in string.expandtabs().splitlines():
            line = re.sub(r"^( *)(Examples?)( +)(?=>>> )", lambda m: m[1] + " " * len(m[2]) + m[3], line)
            here = len(line) - len(line.lstrip())
            if line.strip() and here < indent:
                lines.append("")
                indent = 0
            if line.lstrip().startswith(">>> "):
                indent = here
            lines.append(line)
        return super().parse("\n".join(lines) + "\n", name)


def load(path: Path):
    if path.is_relative_to(ROOT / "src"):
        return importlib.import_module(
            ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules.setdefault(path.stem, importlib.util.module_from_spec(spec))
    if not hasattr(module, "__doc__") or module.__doc__ is None:
        spec.loader.exec_module(module)
    return module


def written(path: Path) -> int:
    """How many examples the docstrings of a file hold, however they are laid out."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    return sum(len(re.findall(r">>> ", ast.get_docstring(node) or "")) for node in nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of(path, tmp_path, monkeypatch):
    if not written(path):
        return
    module = load(path)
    monkeypatch.chdir(tmp_path)
    examples = [found for found in doctest.DocTestFinder(parser=Parser()).find(module) if found.examples]
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for example in examples:
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries == written(path), (
        f"{path.name} has {written(path)} examples, but {runner.tries} ran: "
        "begin the line with `>>>` or with `Example  >>>`, and put what comes out below it"
    )


def test_an_example_beside_its_label_is_found_with_what_comes_out():
    text = "A number.\n\n    Example  >>> 1 + 1\n             2\n             >>> 3\n             3\n    Source   1\n"
    assert [(e.source, e.want) for e in Parser().get_examples(text)] == [("1 + 1\n", "2\n"), ("3\n", "3\n")]
