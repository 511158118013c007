"""The small world for loops, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from loop_world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory, tokenizer):
    """A folder with sft/, prompts.jsonl, ppo.json, reward.json, loop_golds.py."""
    return make_world(tmp_path_factory.mktemp("world"), tokenizer)
