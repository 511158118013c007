"""A small corpus of real text, built once."""

import argparse
import logging
import re
import subprocess
import unittest.mock
from pathlib import Path

import pytest

from rein.text.build import BuildConfig, build


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """About 100 kB of the standard library's documentation in 400 tokens of vocabulary."""
    folder = tmp_path_factory.mktemp("corpus")
    modules = (argparse, logging, subprocess, unittest.mock)
    text = "\n\n".join(
        re.sub(r"[^\x00-\x7f]", "", Path(m.__file__).read_text(encoding="utf-8"))[:40_000] for m in modules
    )
    (folder / "text.txt").write_text(text, encoding="utf-8")
    build(
        BuildConfig(source="text", paths=(folder / "text.txt",), out=folder / "corpus", n_vocab=400, heldout_frac=0.1)
    )
    return folder / "corpus"
