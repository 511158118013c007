"""A corpus in other programs' files: what their readers see is what it holds, and nothing half-written stays."""

from __future__ import annotations

import itertools
import json
import resource
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest

from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.text.documents import Document
from rein.text.export import ExportConfig, export, write_parquet
from rein.text.shards import Shards, cut, write_shard
from rein.text.store import DocumentWriter

EOT = 256
SHA256 = "5e" * 32


def tokens_of(data):
    return np.array([*data, EOT], dtype=np.uint32)


def make_corpus(folder, texts_of, *, n_vocab=257, weights=None):
    """A corpus of byte tokens, in shards of 2,000: the train part is `texts_of` source after source."""
    (folder / "documents").mkdir(parents=True)
    train = [(source, text) for source, texts in texts_of.items() for text in texts]
    splits = {}
    for split, rows in {"train": train, "heldout": [("web", "held out"), ("web", "ünïcode\n")]}.items():
        path = folder / "documents" / f"{split}-00000.parquet"
        with DocumentWriter(path) as documents:
            for i, (source, text) in enumerate(rows):
                url = f"https://example.org/{i}" if source == "web" else ""
                documents.append(Document(text, f"{split}:{i}", source, url, "2017-12-31", {"license": "CC0"}))
        data = [text.encode() for _, text in rows]
        sizes = np.array([(len(text) + 1, len(text)) for text in data])
        begins = [*cut(sizes[:, 0], 2000).tolist(), len(rows)]
        shards = [
            write_shard(folder, f"{split}-{n:05d}", sizes[a:b], map(tokens_of, data[a:b]), n_vocab)
            for n, (a, b) in enumerate(itertools.pairwise(begins))
        ]
        splits[split] = {
            "tokens": int(sizes[:, 0].sum()),
            "documents": len(rows),
            "shards": shards,
            "files": [{"file": path.name, "documents": len(rows)}],
        }
    manifest = {
        "format": "rein-corpus",
        "version": 2,
        "tokenizer": {"kind": "gpt2", "n_vocab": n_vocab, "eot_id": EOT, "sha256": SHA256},
        "splits": splits,
        "mixture": [
            {
                "source": source,
                "tokens": sum(len(text.encode()) + 1 for text in texts),
                "documents": len(texts),
                "weight": weights[source] if weights else None,
                "epochs": None,
            }
            for source, texts in texts_of.items()
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


WEB = [f"page {i} " + "web " * (i % 40) for i in range(300)]
BOOKS = [f"chapter {i} " + "book " * 40 for i in range(5)]


@pytest.fixture
def mixed(tmp_path):
    return make_corpus(tmp_path / "mixed", {"web": WEB, "books": BOOKS}, weights={"web": 1, "books": 3})


def expected(split):
    """The tokens of each document, made from the texts alone."""
    texts = [*WEB, *BOOKS] if split == "train" else ["held out", "ünïcode\n"]
    return [[*text.encode(), EOT] for text in texts]


# ------------------------------------------------------------------------------------------------------ nanoGPT


def test_export_gives_the_bare_tokens(corpus, tmp_path, capsys):
    out = tmp_path / "nanogpt"
    export(ExportConfig(corpus, out=out))
    for name, split in (("train.bin", "train"), ("val.bin", "heldout")):
        tokens = np.fromfile(out / name, dtype=np.uint16)
        assert tokens.tolist() == np.concatenate(list(Shards(corpus, split).iter_documents())).tolist()
    assert sorted(path.name for path in out.iterdir()) == ["train.bin", "val.bin"]
    assert "vocab_size = 257" in capsys.readouterr().out


def test_nanogpts_files_are_the_texts(mixed, tmp_path):
    export(ExportConfig(mixed, out=tmp_path / "out"))
    for name, split in (("train.bin", "train"), ("val.bin", "heldout")):
        assert np.fromfile(tmp_path / "out" / name, dtype="<u2").tolist() == [*itertools.chain(*expected(split))]


def test_export_refuses_ids_that_do_not_fit(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"web": WEB}, n_vocab=70_000)
    with pytest.raises(UserError, match=r"70,000 entries.*\n.*--format megatron"):
        export(ExportConfig(corpus, out=tmp_path / "out"))


def test_a_mixture_written_out(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    export(ExportConfig(mixed, out=out, mix_tokens=20_005, n_ctx=10, seed=4))
    windows = np.fromfile(out / "train.bin", dtype="<u2").reshape(-1, 10)
    assert len(windows) == 2000
    assert "train.bin: 20,000 tokens" in capsys.readouterr().out
    # A quarter of the windows is of the web's texts, the rest of the books': looked up in the texts themselves.
    web, books = (
        np.array([*itertools.chain(*([*text.encode(), EOT] for text in texts))], dtype="<u2").tobytes()
        for texts in (WEB, BOOKS)
    )
    of_web = [window.tobytes() in web for window in windows]
    of_books = [window.tobytes() in books for window in windows]
    assert all(a or b for a, b in zip(of_web, of_books, strict=True))
    assert abs(sum(b and not a for a, b in zip(of_web, of_books, strict=True)) - 1500) <= 2
    assert np.fromfile(out / "val.bin", dtype="<u2").tolist() == [*itertools.chain(*expected("heldout"))]
    export(ExportConfig(mixed, out=tmp_path / "again", mix_tokens=20_005, n_ctx=10, seed=5))
    assert (tmp_path / "again" / "train.bin").read_bytes() != (out / "train.bin").read_bytes()


def test_a_mixture_is_for_one_format_and_at_least_a_window(tmp_path):
    with pytest.raises(UserError, match="--format parquet holds whole documents"):
        ExportConfig(tmp_path, tmp_path, format="parquet", mix_tokens=100)
    for mix_tokens, n_ctx in ((9, 10), (0, 10), (10, 0)):
        with pytest.raises(
            UserError, match=rf"--mix-tokens {mix_tokens} does not hold one window of --n-ctx {n_ctx}\."
        ):
            ExportConfig(tmp_path, tmp_path, mix_tokens=mix_tokens, n_ctx=n_ctx)


# ----------------------------------------------------------------------------------------------------- Megatron


def read_megatron(stem):
    """The documents of an indexed dataset, by the layout alone."""
    raw = stem.with_suffix(".idx").read_bytes()
    assert raw[:9] == b"MMIDIDX\x00\x00"
    version, code, n, n_documents = struct.unpack_from("<QBQQ", raw, 9)
    assert version == 1
    dtype = {8: "<u2", 4: "<i4"}[code]
    lengths = np.frombuffer(raw, "<i4", n, offset=34)
    pointers = np.frombuffer(raw, "<i8", n, offset=34 + 4 * n)
    documents = np.frombuffer(raw, "<i8", n_documents, offset=34 + 12 * n)
    assert len(raw) == 34 + 12 * n + 8 * n_documents
    assert documents.tolist() == list(range(n + 1))
    data = stem.with_suffix(".bin").read_bytes()
    assert len(data) == lengths.sum() * np.dtype(dtype).itemsize
    return dtype, [
        np.frombuffer(data, dtype, length, offset=pointer).tolist()
        for length, pointer in zip(lengths.tolist(), pointers.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("n_vocab", "dtype"), [(257, "<u2"), (65_536, "<u2"), (65_537, "<i4")])
def test_megatron_reads_a_sequence_for_each_document(tmp_path, n_vocab, dtype):
    corpus = make_corpus(tmp_path / "corpus", {"web": WEB, "books": BOOKS}, n_vocab=n_vocab)
    assert len(Shards(corpus, "train")._records) > 2
    out = tmp_path / "out"
    export(ExportConfig(corpus, out=out, format="megatron"))
    assert read_megatron(out / "train") == (dtype, expected("train"))
    assert read_megatron(out / "val") == (dtype, expected("heldout"))
    assert sorted(path.name for path in out.iterdir()) == ["train.bin", "train.idx", "val.bin", "val.idx"]


# ------------------------------------------------------------------------------------------------------ Parquet


@pytest.mark.parametrize(("n_vocab", "item"), [(257, "uint16"), (70_000, "uint32")])
def test_parquet_has_a_row_for_each_document(tmp_path, n_vocab, item):
    corpus = make_corpus(tmp_path / "corpus", {"web": WEB, "books": BOOKS}, n_vocab=n_vocab)
    export(ExportConfig(corpus, out=tmp_path / "out", format="parquet"))
    with pq.ParquetFile(tmp_path / "out" / "train.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [256, 49]
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert str(file.schema_arrow.field("tokens").type) == f"list<element: {item}>"
        assert file.schema_arrow.metadata == {
            b"rein.n_vocab": str(n_vocab).encode(),
            b"rein.eot_id": b"256",
            b"rein.tokenizer_sha256": SHA256.encode(),
        }
        rows = file.read().to_pylist()
    assert [row["tokens"] for row in rows] == expected("train")
    assert [row["text"] for row in rows] == [*WEB, *BOOKS]
    assert {key: rows[7][key] for key in ("id", "source", "url", "date")} == {
        "id": "train:7",
        "source": "web",
        "url": "https://example.org/7",
        "date": "2017-12-31",
    }
    assert (rows[-1]["id"], rows[-1]["source"], rows[-1]["url"]) == ("train:304", "books", "")
    heldout = pq.read_table(tmp_path / "out" / "val.parquet").to_pylist()
    assert [row["text"] for row in heldout] == ["held out", "ünïcode\n"]


def test_a_built_corpus_as_rows(corpus, tmp_path):
    tokenizer = load_tokenizer(corpus)
    export(ExportConfig(corpus, out=tmp_path / "out", format="parquet"))
    for name, split in (("train", "train"), ("val", "heldout")):
        rows = pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        assert len(rows) == Shards(corpus, split).n_documents
        assert [row["tokens"][-1] for row in rows] == [EOT] * len(rows)
        assert [tokenizer.decode(row["tokens"][:-1]) for row in rows] == [row["text"] for row in rows]


def test_long_documents_end_a_row_group_early(tmp_path, monkeypatch):
    monkeypatch.setattr("rein.text.export.GROUP_BYTES", 3000)
    corpus = make_corpus(tmp_path / "corpus", {"web": ["a" * 1000] * 5})
    manifest = json.loads((corpus / "manifest.json").read_text())
    write_parquet(tmp_path / "rows.parquet", Shards(corpus, "train"), manifest)
    with pq.ParquetFile(tmp_path / "rows.parquet") as file:
        assert file.num_row_groups == 5
        assert file.read().num_rows == 5


def test_a_missing_file_of_the_corpus(mixed, tmp_path):
    (mixed / "documents" / "train-00000.parquet").unlink()
    with pytest.raises(UserError, match=r"train-00000.parquet cannot be read"):
        export(ExportConfig(mixed, out=tmp_path / "out", format="parquet"))
    assert list((tmp_path / "out").iterdir()) == []


# -------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("format", "hit"), [("nanogpt", ".bin"), ("megatron", "train.(bin|idx)"), ("parquet", ".parquet")]
)
@pytest.mark.parametrize("room_bytes", [10, 2000])
def test_a_full_disk_is_said_and_what_was_there_stays(mixed, tmp_path, format, hit, room_bytes):
    out = tmp_path / "out"
    export(ExportConfig(mixed, out=out, format=format))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        with pytest.raises(UserError, match=f"No room left while writing .*{hit} "):
            export(ExportConfig(mixed, out=out, format=format))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_tokens_do_not_change_where_their_index_cannot_be_written(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"web": ["a"] * 180})
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.bin").write_bytes(b"as it was")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (180 * 2 * 2 + 1000, hard)
    )  # two tokens a document, but 20 bytes of index
    try:
        with pytest.raises(UserError, match=r"No room left while writing .*train\.idx"):
            export(ExportConfig(corpus, out=out, format="megatron"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("train.bin", b"as it was")]


@pytest.mark.parametrize("format", ["nanogpt", "megatron", "parquet"])
def test_a_corpus_without_held_out_text(mixed, tmp_path, format):
    manifest = json.loads((mixed / "manifest.json").read_text())
    del manifest["splits"]["heldout"]
    (mixed / "manifest.json").write_text(json.dumps(manifest))
    export(ExportConfig(mixed, out=tmp_path / "out", format=format))
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"train"}
