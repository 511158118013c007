"""Vocabularies that several tests of `rein.bpe` use."""

import os
from pathlib import Path

import pytest

from rein.bpe import gpt1, trainer

LIBRARY = Path(os.__file__).parent


@pytest.fixture(scope="session")
def real_text():
    """Some 300 kB of Python source with its prose."""
    names = ("argparse.py", "ast.py", "asyncio/base_events.py", "inspect.py")
    return [(LIBRARY / name).read_text(encoding="utf-8") for name in names]


@pytest.fixture(scope="session")
def small(real_text):
    """A byte-level BPE of 1,000 entries."""
    return trainer.train(real_text, 1000)


@pytest.fixture(scope="session")
def small_gpt1(real_text):
    """A GPT-1 style BPE of 1,000 entries."""
    return gpt1.train(real_text, 1000)
