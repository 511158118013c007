"""A corpus of shards is one row of tokens, however it is cut into files."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.text.shards import Shards, cut, write_shard


def write_corpus(folder: Path, documents, *, n_vocab: int, shard_tokens: int, split: str = "train") -> None:
    """The shards of `documents` and the least manifest that a reader needs; each id stands for one byte."""
    rows = [np.array([*ids, n_vocab - 1], dtype=np.uint32) for ids in documents]
    sizes = np.array([(len(row), len(row) - 1) for row in rows], dtype=np.int64)
    bounds = [*cut(sizes[:, 0], shard_tokens).tolist(), len(rows)]
    records = [
        write_shard(folder, f"{split}-{number:05d}", sizes[first:end], rows[first:end], n_vocab)
        for number, (first, end) in enumerate(itertools.pairwise(bounds))
    ]
    manifest = {
        "format": "rein-corpus",
        "version": 2,
        "tokenizer": {"n_vocab": n_vocab, "eot_id": n_vocab - 1},
        "splits": {split: {"shards": records}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


@st.composite
def corpora(draw):
    n_vocab = draw(st.sampled_from([300, 1 << 16, 70_000]))
    ids = st.integers(0, n_vocab - 2)
    documents = draw(st.lists(st.lists(ids, max_size=30), min_size=1, max_size=12))
    return n_vocab, documents, draw(st.integers(1, 100))


@settings(max_examples=60, deadline=None)
@given(corpora(), st.data())
def test_windows_equal_the_source_for_any_shard_size_and_start(corpus, data):
    n_vocab, documents, shard_tokens = corpus
    row = [id for ids in documents for id in [*ids, n_vocab - 1]]
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), documents, n_vocab=n_vocab, shard_tokens=shard_tokens)
        shards = Shards(Path(folder), "train")
        length = data.draw(st.integers(1, len(row)))
        starts = data.draw(st.lists(st.integers(0, len(row) - length), min_size=1, max_size=8))
        windows = shards.windows(np.array(starts), length)
        assert windows.dtype == np.int64
        assert windows.tolist() == [row[start : start + length] for start in starts]


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_what_is_written_is_read(corpus):
    n_vocab, documents, shard_tokens = corpus
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), documents, n_vocab=n_vocab, shard_tokens=shard_tokens)
        shards = Shards(Path(folder), "train")
        expected = [[*ids, n_vocab - 1] for ids in documents]
        assert [ids.tolist() for ids in shards.iter_documents()] == expected
        assert [shards.document(i).tolist() for i in range(shards.n_documents)] == expected
        assert shards.n_tokens == sum(map(len, expected))
        assert shards.n_bytes == sum(map(len, documents))
        assert (shards.n_vocab, shards.eot_id) == (n_vocab, n_vocab - 1)
        shards.verify()
        sizes = [len(list(Path(folder).glob(pattern))) for pattern in ("*.bin", "*.idx", "*.part")]
        assert sizes[0] == sizes[1]
        assert sizes[2] == 0
        longest = max(map(len, expected))
        item_size = 2 if n_vocab <= 1 << 16 else 4
        for path in Path(folder).glob("*.bin"):
            assert path.stat().st_size <= 1024 + item_size * max(shard_tokens, longest)
