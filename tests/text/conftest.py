"""A small corpus, and the smallest tokenizer there is: one id per byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rein.bpe.byte_level import ByteLevelBPE
from rein.text.build import BuildConfig, build


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    ByteLevelBPE(()).save(path)
    return path


@pytest.fixture
def jsonl(tmp_path) -> Path:
    """40 short documents."""
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {i}, " + "word " * i}) + "\n" for i in range(40)))
    return path


@pytest.fixture
def corpus(tmp_path, jsonl, byte_tokenizer) -> Path:
    """They are built into this corpus: several shards of each split."""
    return build(
        BuildConfig(
            (jsonl,),
            source="jsonl",
            out=tmp_path / "corpus",
            heldout_frac=0.3,
            tokenizer=byte_tokenizer,
            shard_tokens=500,
        )
    )
