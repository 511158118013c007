"""Docstrings of a made-up installation: what is found, under which name, with which licence; what is left out."""

from __future__ import annotations

import platform
import sys
from email.message import Message

import pytest

from rein.text import pydocs
from rein.text.documents import Document, Dropped
from rein.text.pydocs import PyDocs, license_of
from rein.text.recipe import Source
from rein.text.sources import read_all

PROSE = "is described at some length here, so that it is kept as prose."


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """Two packages and a standard library of two files; `write(package, file, code)` adds to them."""
    site, stdlib = tmp_path / "site", tmp_path / "stdlib"
    names: dict[str, list[str]] = {}

    def write(package, file, code, metadata=""):
        path = (stdlib if package == "python" else site) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(code if isinstance(code, bytes) else code.encode())
        if package != "python":
            info = site / f"{package}-1.5.dist-info"
            info.mkdir(exist_ok=True)
            names.setdefault(package, []).append(file)
            (info / "RECORD").write_text("".join(f"{name},,\n" for name in names[package]))
            if metadata or not (info / "METADATA").exists():
                (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: 1.5\n{metadata}\n")

    stdlib.mkdir()
    site.mkdir()
    monkeypatch.setattr(pydocs.sysconfig, "get_path", lambda name: str(stdlib))
    write("python", "empty.py", "")
    write.site = site
    return write


def read(installation, min_chars=40):
    items = list(read_all(PyDocs(Source("pydocs", "pydocs", min_chars=min_chars), [str(installation.site)])))
    documents = {item.metadata["object"]: item for item in items if isinstance(item, Document)}
    return documents, {item.id: item.reason for item in items if isinstance(item, Dropped)}


def test_every_kind_of_docstring_has_its_dotted_name(installation):
    installation(
        "shapes",
        "shapes/round.py",
        f'''"""The module {PROSE}"""
if True:
    def area(r):
        """The area
            {PROSE}

        Last line.   
        """
        def inner():
            """A function in a function {PROSE}"""
try:
    import fast
except ImportError:
    async def slow():
        """The coroutine {PROSE}"""
with open("x") as f:
    class Circle:
        """The class {PROSE}"""
        class Radius:
            """The nested class {PROSE}"""
            def double(self):
                """The method {PROSE}"""
''',  # noqa: W291
        "License-Expression: MIT",
    )
    installation("shapes", "shapes/__init__.py", f'"""The package {PROSE}"""')
    documents, dropped = read(installation)
    assert {name: document.text for name, document in documents.items()} == {
        "shapes": f"The package {PROSE}",
        "shapes.round": f"The module {PROSE}",
        "shapes.round.area": f"The area\n    {PROSE}\n\nLast line.",
        "shapes.round.slow": f"The coroutine {PROSE}",
        "shapes.round.Circle": f"The class {PROSE}",
        "shapes.round.Circle.Radius": f"The nested class {PROSE}",
        "shapes.round.Circle.Radius.double": f"The method {PROSE}",
    }
    assert dropped == {}
    assert documents["shapes.round.area"] == Document(
        id="shapes:shapes/round.py:3",
        text=f"The area\n    {PROSE}\n\nLast line.",
        source="pydocs",
        metadata={
            "package": "shapes",
            "version": "1.5",
            "license": "MIT",
            "object": "shapes.round.area",
            "path": "shapes/round.py",
        },
    )


def test_the_standard_library_comes_first_with_its_topics(installation):
    installation("aaa", "aaa.py", f'"""A package {PROSE}"""')
    installation("python", "abc.py", f'"""The abc module {PROSE}"""')
    installation("python", "pydoc_data/topics.py", f"topics = {{'if': 'The if statement {PROSE}'}}")
    installation("python", "site-packages/stray.py", f'"""Not of the standard library: {PROSE}"""')
    documents, _ = read(installation)
    assert list(documents) == ["abc", "topics.if", "aaa"]
    assert documents["topics.if"].text == f"The if statement {PROSE}"
    assert documents["abc"].metadata["license"] == "PSF-2.0"
    assert documents["abc"].metadata["version"] == platform.python_version()


def test_what_is_left_out_has_a_reason(installation):
    good = f'"""Some module {PROSE}"""'
    installation("pkg", "pkg/tests/test_a.py", good)
    installation("pkg", "pkg/conftest.py", good)
    installation("pkg", "pkg/_vendor/other/__init__.py", good)
    installation("pkg", "pkg/syntax.py", '"""Open')
    installation("pkg", "pkg/latin1.py", '"""déjà vu"""'.encode("latin-1"))
    installation("pkg", "pkg/nul.py", b'"""a"""\0')
    installation("pkg", "pkg/short.py", 'def f():\n    """Too short."""')
    installation("pkg", "pkg/symbols.py", f'"""{"0x00 = 1; " * 20}"""')
    installation("pkg", "pkg/folder.py", "")
    (installation.site / "pkg" / "folder.py").unlink()
    (installation.site / "pkg" / "folder.py").mkdir()
    installation("compiled", "compiled.so", b"")
    documents, dropped = read(installation)
    assert documents == {}
    assert dropped == {
        "pkg:pkg/tests/test_a.py": "test code",
        "pkg:pkg/conftest.py": "test code",
        "pkg:pkg/_vendor/other/__init__.py": "copy of another package",
        "pkg:pkg/syntax.py": "does not parse as Python",
        "pkg:pkg/latin1.py": "does not parse as Python",
        "pkg:pkg/nul.py": "does not parse as Python",
        "pkg:pkg/short.py:1": "short docstring",
        "pkg:pkg/symbols.py:1": "mostly symbols",
        "pkg:pkg/folder.py": "unreadable file",
        "compiled": "package without .py files",
    }


def test_a_declared_encoding_is_honoured_and_warnings_are_not_ours(installation):
    installation("pkg", "a.py", f'# coding: latin-1\n"""déjà vu {PROSE}"""'.encode("latin-1"))
    installation("pkg", "b.py", f'"""An invalid escape \\d {PROSE}"""')
    documents, _ = read(installation)
    assert documents["a"].text.startswith("déjà vu")
    assert documents["b"].text.startswith("An invalid escape \\d")


def test_generated_repeats_are_dropped(installation):
    shared = "\n\n".join(f"Parameter {name} {PROSE}" for name in "abcd")
    installation("pkg", "a.py", f'"""Reads a file.\n\n{shared}"""')
    installation("pkg", "b.py", f'"""Reads a file, asynchronously.\n\n{shared}"""')
    installation("pkg", "c.py", f'"""Something else that {PROSE * 6}\n\n{shared}"""')
    documents, dropped = read(installation)
    assert list(documents) == ["a", "c"]
    assert dropped == {"pkg:b.py:1": "mostly repeated"}


def test_reading_twice_gives_the_same(installation):
    installation("pkg", "a.py", f'"""A module {PROSE}"""')
    source = PyDocs(Source("pydocs", "pydocs"), [str(installation.site)])
    assert list(read_all(source)) == list(read_all(source))


def test_copyright_lines_are_cut_off(installation):
    code = (
        f'"""A lexer {PROSE}\n\n:copyright: Copyright 2006 by somebody.\n:license: BSD, see LICENSE for details.\n"""'
    )
    installation("pkg", "a.py", code)
    assert read(installation)[0]["a"].text == f"A lexer {PROSE}"


def test_rein_is_left_out_and_the_first_of_one_name_wins(installation, tmp_path):
    installation("rein", "rein.py", f'"""Our own module {PROSE}"""')
    installation("Pkg", "first.py", f'"""The first {PROSE}"""')
    other = tmp_path / "other"
    info = other / "pkg-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pkg\nVersion: 2.0\n")
    (info / "RECORD").write_text("second.py,,\n")
    packages = pydocs.installed_packages([str(installation.site), str(other)])
    assert [(package.name, package.version) for package in packages[1:]] == [("Pkg", "1.5")]


def test_nothing_is_imported(installation):
    installation("pkg", "explosive.py", f'"""A module {PROSE}"""\nraise SystemExit')
    assert "explosive" in read(installation)[0]
    assert "explosive" not in sys.modules


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License-Expression": "MIT", "License": "other"}, "MIT"),
        ({"License": "BSD"}, "BSD"),
        ({"License": "UNKNOWN"}, "not stated"),
        ({}, "not stated"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT License"),
        ({"License": "Copyright (c) 2005\nAll rights", "Classifier": "License :: OSI Approved :: BSD"}, "BSD"),
        ({"License": "Permission is granted\nto anyone"}, "Permission is granted"),
        ({"Classifier": "Topic :: Text"}, "not stated"),
    ],
)
def test_the_licence_field(fields, expected):
    message = Message()
    for name, value in fields.items():
        message[name] = value
    assert license_of(message) == expected


def test_the_real_installation_is_read():
    source = PyDocs(Source("pydocs", "pydocs"))
    items = read_all(source)
    documents = [item for item in (next(items) for _ in range(300)) if isinstance(item, Document)]
    assert len(documents) > 50
    assert {document.metadata["package"] for document in documents} == {"python"}
    assert any(package.name == "numpy" and package.license for package in pydocs.installed_packages())
