"""What is wrong with a corpus is said, never read."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from rein.errors import UserError
from rein.text.shards import Shards, cut, open_tokens, read_manifest, write_shard


def edit_manifest(corpus, change):
    path = corpus / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def edit_header(path, index, value):
    header = np.fromfile(path, dtype="<i4", count=256)
    header[index] = value
    with path.open("r+b") as file:
        file.write(header.tobytes())


def test_the_format_is_what_the_page_says(corpus):
    raw = (corpus / "train-00000.bin").read_bytes()
    header = np.frombuffer(raw[:1024], dtype="<i4")
    offsets = np.fromfile(corpus / "train-00000.idx", dtype="<u8")
    tokens = np.frombuffer(raw[1024:], dtype="<u2")
    assert header[:4].tolist() == [278895051, 1, len(tokens), 2]
    assert not header[4:].any()
    assert offsets[0] == 0
    assert offsets[-1] == len(tokens)
    assert (tokens[offsets[1:].astype(int) - 1] == 256).all()


def test_windows_may_end_with_the_last_token_and_need_not_exist(corpus):
    shards = Shards(corpus, "train")
    assert len(shards._records) > 2
    everything = shards.windows(np.array([0]), shards.n_tokens)[0]
    assert everything.tolist() == np.concatenate(list(shards.iter_documents())).tolist()
    assert shards.windows(np.array([], dtype=np.int64), 5).shape == (0, 5)
    for start in (-1, shards.n_tokens - 4):
        with pytest.raises(AssertionError, match="windows over"):
            shards.windows(np.array([0, start]), 5)
    with pytest.raises(AssertionError, match="document"):
        shards.document(shards.n_documents)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, 7, "does not begin with the number 278895051 .* but with 7"),
        (1, 2, "version 2 of the shard format"),
        (3, 3, "3 bytes per token"),
        (2, 10**6, "header announces 1,000,000 tokens"),
        (3, 4, "header announces"),
    ],
)
def test_a_wrong_header(corpus, index, value, message):
    edit_header(corpus / "train-00000.bin", index, value)
    with pytest.raises(UserError, match=message):
        Shards(corpus, "train")


def test_a_truncated_shard_and_index(corpus):
    path = corpus / "train-00000.bin"
    os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(UserError, match="cut short"):
        Shards(corpus, "train")
    for size in (600, 3, 0):
        os.truncate(path, size)
        with pytest.raises(UserError, match=r"cut short|does not begin"):
            Shards(corpus, "train")


def test_a_truncated_or_missing_index(corpus):
    path = corpus / "train-00000.idx"
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(UserError, match=r"train-00000.idx does not match the manifest"):
        Shards(corpus, "train")
    path.unlink()
    with pytest.raises(UserError, match=r"index .* cannot be read"):
        Shards(corpus, "train")


def test_a_missing_shard(corpus):
    (corpus / "train-00001.bin").unlink()
    with pytest.raises(UserError, match=r"train-00001.bin cannot be read"):
        Shards(corpus, "train")


def test_shards_of_another_corpus(corpus):
    (corpus / "train-00000.bin").write_bytes((corpus / "train-00001.bin").read_bytes())
    with pytest.raises(UserError, match="does not match the manifest"):
        Shards(corpus, "train")


def test_verify_finds_one_changed_byte(corpus):
    path = corpus / "heldout-00000.bin"
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"heldout-00000.bin does not match the manifest: SHA-256"):
        Shards(corpus, "heldout").verify()
    Shards(corpus, "train").verify()


def test_verify_finds_an_id_outside_the_vocabulary(corpus):
    path = corpus / "train-00000.bin"
    data = bytearray(path.read_bytes())
    data[1024:1026] = (257).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match="token id 257, but the vocabulary ends at 256"):
        Shards(corpus, "train").verify()


def test_verify_finds_an_index_that_does_not_ascend(corpus):
    path = corpus / "train-00000.idx"
    offsets = np.fromfile(path, dtype="<u8")
    offsets[1] = offsets[2]
    path.write_bytes(offsets.tobytes())
    with pytest.raises(UserError, match="does not cut"):
        Shards(corpus, "train").verify()


def test_no_corpus(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not a corpus: it has no manifest.json"):
        Shards(tmp_path)
    (tmp_path / "work").mkdir()
    with pytest.raises(UserError, match="is not finished"):
        Shards(tmp_path)


def test_a_split_there_is_not(corpus):
    with pytest.raises(UserError, match=r"no split 'held_out'.\n.*heldout"):
        Shards(corpus, "held_out")


def test_another_manifest(corpus):
    edit_manifest(corpus, lambda manifest: manifest.update(version=1))
    with pytest.raises(UserError, match="version 1 of the corpus format"):
        read_manifest(corpus)
    edit_manifest(corpus, lambda manifest: manifest.update(format="other"))
    with pytest.raises(UserError, match="not the manifest of a corpus"):
        read_manifest(corpus)
    (corpus / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_manifest(corpus)


def test_tokens_of_other_programs(tmp_path):
    tokens = np.arange(1000, dtype="<u2")
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    path = tmp_path / "llmc.bin"
    path.write_bytes(header.tobytes() + tokens.tobytes())
    assert open_tokens(path).tolist() == tokens.tolist()
    header[:4] = 278895051, 1, len(tokens), 4  # as NeMo AutoModel writes a large vocabulary
    path.write_bytes(header.tobytes() + tokens.astype("<u4").tobytes())
    assert open_tokens(path).tolist() == tokens.tolist()
    path.write_bytes(tokens.tobytes())
    with pytest.raises(UserError, match=r"nanoGPT \.bin has no header"):
        open_tokens(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="but with nothing"):
        open_tokens(path)


def test_ids_that_would_wrap_are_refused_and_leave_nothing(tmp_path):
    sizes = np.array([[1, 1]])
    with pytest.raises(AssertionError, match="token id 65536"):
        write_shard(tmp_path, "train-00000", sizes, [np.array([65536], dtype=np.uint32)], 300)
    with pytest.raises(AssertionError, match="2 tokens, but the documents have 1"):
        write_shard(tmp_path, "train-00000", sizes, [np.array([1, 2], dtype=np.uint32)], 300)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_begins_with_the_document_that_would_exceed_the_one_before(tmp_path):
    assert cut(np.array([3, 3, 3, 3]), 6).tolist() == [0, 2]
    assert cut(np.array([3, 3, 3, 3]), 6, used=3).tolist() == [1, 3]
    assert cut(np.array([9, 1, 9]), 6).tolist() == [0, 1, 2]
