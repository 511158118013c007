"""Fixtures that several rooms share."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

# One thread a process, set before torch is imported: pytest-xdist fills the cores with processes, and the
# numbers of a test do not depend on how many cores there are. Programs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_sessionstart():
    """What is imported and collected stays: nobody need look through it for garbage, again and again."""
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Playwright, once it is started in a process, leaves its event loop marked as running; others need their own.

    Around the fixtures too: those of a module are made before any of a test.
    """
    loop = None if "browser" in item.path.relative_to(item.config.rootpath).parts else asyncio._get_running_loop()
    if loop is not None:
        asyncio._set_running_loop(None)
    try:
        return (yield)
    finally:
        if loop is not None:
            asyncio._set_running_loop(loop)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data for checks, beside the checkout; the project ships none of it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real data for checks is not shipped with the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of 300 entries, trained on a little real text."""
    import textwrap

    from rein.bpe.trainer import train

    return train([textwrap.__doc__ + str(textwrap.TextWrapper.__doc__) * 3], 300)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """Token shards of about 160 kB of the standard library's source, in a vocabulary of 400."""
    import argparse
    import logging
    import subprocess
    import unittest.mock

    from rein.text.build import BuildConfig, build

    folder = tmp_path_factory.mktemp("corpus")
    modules = (argparse, logging, subprocess, unittest.mock)
    texts = (Path(module.__file__).read_text(encoding="utf-8")[:40_000] for module in modules)
    text = "\n\n".join(texts).encode("ascii", "ignore").decode()
    (folder / "text.txt").write_text(text, encoding="utf-8")
    build(BuildConfig(source="text", paths=(folder / "text.txt",), out=folder / "out", n_vocab=400, heldout_frac=0.1))
    return folder / "out"
