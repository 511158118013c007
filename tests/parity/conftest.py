"""Folders with OpenAI's files, which tests read, change and damage."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from openai_files import BYTES, FIXTURES, gpt1_arrays, variables, write_gpt1, write_pair


@pytest.fixture
def gpt2(tmp_path):
    folder = tmp_path / "gpt2"
    shutil.copytree(FIXTURES / "gpt2", folder)
    write_pair(folder, BYTES, "encoder.json", "vocab.bpe")
    return folder


@pytest.fixture
def tensors(gpt2):
    return variables(gpt2)


@pytest.fixture
def gpt1(tmp_path):
    write_gpt1(tmp_path / "gpt1", gpt1_arrays()[0])
    return tmp_path / "gpt1"
