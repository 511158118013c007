"""The examples in the docstrings of `rein.bpe` say what happens."""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import rein.bpe

FOLDER = Path(next(iter(rein.bpe.__path__)))
REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def examples(docstring):
    """The examples of a docstring; `Example  >>> …` ends where its column ends."""
    lines = inspect.cleandoc(docstring).split("\n")
    column, kept = None, []
    for line in lines:
        if match := re.match(r"(Example\s+|\s*)>>>", line):
            column = match.end(1)
        elif column is not None and line[:column].strip():
            column = None
        kept.append(line[column:] if column is not None else "")
    return "\n".join(kept)


def run(text, namespace, name):
    test = doctest.DocTestParser().get_doctest(text, namespace, name, name, 0)
    output = []
    doctest.DocTestRunner().run(test, out=output.append)
    assert not output, "".join(output)
    return len(test.examples)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(f"rein.bpe.{name}")
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            where = getattr(node, "name", "module")
            count = run(examples(text), dict(vars(module)), f"{name}.{where}")
            assert count or ">>>" not in text, f"the example of {name}.{where} was not run"


def test_the_reference_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs/reference/bpe.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert run("\n".join(blocks), {}, "bpe.md") > 5
