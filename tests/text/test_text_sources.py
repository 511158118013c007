"""Folders, files, JSON lines and Parquet: what is read, what is dropped and why, what is refused."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rein.errors import UserError
from rein.text.documents import Document, Dropped
from rein.text.sources import Folder, JsonLines, Parquet, TextFiles, inputs_sha256


def split_kinds(source):
    items = list(source)
    assert source.done == source.total
    documents = {item.id: item.text for item in items if isinstance(item, Document)}
    return documents, {item.id: item.reason for item in items if isinstance(item, Dropped)}


# ---------------------------------------------------------------------------------------------------- folder


@pytest.fixture
def essays(tmp_path) -> Path:
    root = tmp_path / "essays"
    (root / "b").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "b" / "one.txt").write_bytes(b"\xef\xbb\xbfone\r\nline\rends\n")
    (root / "a.MD").write_text("déjà vu", encoding="utf-8")
    (root / "empty.txt").write_text("")
    (root / "latin1.txt").write_bytes("déjà".encode("latin-1"))
    (root / "image.txt").write_bytes(b"\x89PNG\0\xff")
    (root / "table.csv").write_text("1,2")
    (root / ".hidden.txt").write_text("hidden")
    (root / ".git" / "notes.txt").write_text("hidden")
    return root


def test_a_folder(essays):
    source = Folder([essays], (".txt", ".md"), "CC0-1.0")
    documents, dropped = split_kinds(source)
    assert documents == {"a.MD": "déjà vu", "b/one.txt": "one\nline\nends\n", "empty.txt": ""}
    assert dropped == {
        ".git/notes.txt": "hidden",
        ".hidden.txt": "hidden",
        "image.txt": "binary file",
        "latin1.txt": "not UTF-8",
        "table.csv": "other file type",
    }
    document = next(item for item in source if isinstance(item, Document))
    assert (document.source, document.package, document.license, document.path) == (
        "folder",
        "essays",
        "CC0-1.0",
        "a.MD",
    )


def test_the_order_is_that_of_the_names(essays):
    ids = [item.id for item in Folder([essays], (".txt",), "")]
    assert ids == sorted(ids, key=lambda id: Path(id).parts)


def test_ids_do_not_depend_on_where_the_folder_is_seen_from(essays, monkeypatch):
    monkeypatch.chdir(essays)
    assert [item.id for item in Folder([Path()], (".txt",), "")] == [
        item.id for item in Folder([essays], (".txt",), "")
    ]


def test_two_folders_are_told_apart(essays, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("other")
    documents, _ = split_kinds(Folder([essays, other], (".md",), ""))
    assert documents == {"essays/a.MD": "déjà vu", "other/a.md": "other"}


def test_a_file_that_vanished_is_dropped(essays):
    source = Folder([essays], (".md",), "")
    (essays / "a.MD").unlink()
    assert split_kinds(source)[1]["a.MD"] == "unreadable file"


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"is not a folder.\n.*--source text"):
        Folder([tmp_path / "nowhere"], (".txt",), "")


# ------------------------------------------------------------------------------------------------------ text


def test_text_files(tmp_path):
    path = tmp_path / "input.txt"
    path.write_bytes(b"one\r\ntwo")
    documents, dropped = split_kinds(TextFiles([path], "CC0-1.0"))
    assert list(documents.values()) == ["one\ntwo"]
    assert dropped == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\xff", "not UTF-8 text: byte 3 is 0xff"),
        (b" \n", "cannot be a corpus: empty"),
        (b"a\0b", "cannot be a corpus: NUL character"),
    ],
)
def test_a_text_file_that_cannot_be_a_corpus(tmp_path, data, message):
    path = tmp_path / "input.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(TextFiles([path], ""))


def test_a_text_file_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"is not a file.\n.*--source folder"):
        TextFiles([tmp_path], "")
    with pytest.raises(UserError, match=r"is not a file.\n.*Check the path"):
        TextFiles([tmp_path / "nowhere"], "")


def test_a_text_file_too_large_for_one_document(tmp_path):
    path = tmp_path / "input.txt"
    path.touch()
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(UserError, match="larger than 1 GiB"):
        list(TextFiles([path], ""))


def test_a_text_file_that_vanished(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("text")
    source = TextFiles([path], "")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(source)


# ----------------------------------------------------------------------------------------------------- jsonl

LINES = [
    b'{"body": "one"}',
    b"",
    b"{oops",
    b'["a list"]',
    b'{"title": "no body"}',
    b'{"body": 3}',
    b'{"body": "\\ud800"}',
    b'{"body": "\xff"}',
    '{"body": "zwölf"}'.encode(),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    data = b"\n".join(LINES)
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    documents, dropped = split_kinds(JsonLines([path], "body", ""))
    assert documents == {f"{name}:1": "one", f"{name}:7": "\ud800", f"{name}:9": "zwölf"}
    assert dropped == {
        f"{name}:2": "empty line",
        f"{name}:3": "not JSON",
        f"{name}:4": "not a JSON object",
        f"{name}:5": "no text in the field",
        f"{name}:6": "no text in the field",
        f"{name}:8": "not JSON",
    }


def test_a_line_nested_too_deeply_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' + "[" * 200_000 + "\n")
    assert split_kinds(JsonLines([path], "text", ""))[1] == {"a.jsonl:2": "not JSON"}


def test_the_wrong_field_is_refused_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "title": "two"}\n')
    with pytest.raises(UserError, match=r"no field 'text'.\n.*--text-field. Known names: body, title."):
        list(JsonLines([path], "text", ""))


def test_a_damaged_archive(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n' * 1000)[:-10])
    with pytest.raises(UserError, match="cannot be read to its end"):
        list(JsonLines([path], "text", ""))


def test_json_files_of_a_folder_come_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    assert list(split_kinds(JsonLines([tmp_path], "text", ""))[0]) == ["a.jsonl:1", "b.jsonl:1"]


def test_json_files_there_are_not(tmp_path):
    with pytest.raises(UserError, match=r"holds no file named \*.jsonl"):
        JsonLines([tmp_path], "text", "")
    with pytest.raises(UserError, match="does not exist"):
        JsonLines([tmp_path / "a.jsonl"], "text", "")


def test_json_lines_that_vanished(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}")
    source = JsonLines([path], "text", "")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(source)


# --------------------------------------------------------------------------------------------------- parquet


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, kind):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": pa.array(["one", None, "drei"], pa.string()).cast(kind), "other": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=2)
    documents, dropped = split_kinds(Parquet([tmp_path], "text", ""))
    assert documents == {"a.parquet:1": "one", "a.parquet:3": "drei"}
    assert dropped == {"a.parquet:2": "no text in the field"}


def test_one_value_that_is_not_utf8_does_not_fail_its_batch(tmp_path):
    data = pa.array([b"one", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, data.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    documents, dropped = split_kinds(Parquet([tmp_path], "text", ""))
    assert documents == {"a.parquet:1": "one"}
    assert dropped == {"a.parquet:2": "not UTF-8"}


def test_parquet_refuses(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "body": ["a", "b"]}), path)
    with pytest.raises(UserError, match=r"no field 'txt'.\n.*Did you mean text"):
        Parquet([path], "txt", "")
    with pytest.raises(UserError, match=r"column 'text' of .* holds int64, not text.\n.*Known names: body."):
        Parquet([path], "text", "")
    source = Parquet([path], "body", "")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        list(source)
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        Parquet([path], "body", "")


# ---------------------------------------------------------------------------------------------------- inputs


def test_the_hash_of_the_inputs_sees_names_and_contents(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("one")
    b.write_text("one")
    hashes = Counter([inputs_sha256(paths) for paths in ([a], [b], [a, b], [])])
    assert set(hashes.values()) == {1}
    before = inputs_sha256([a])
    os.utime(a, (0, 0))
    assert inputs_sha256([a]) == before
    a.write_text("two")
    assert inputs_sha256([a]) != before
    a.unlink()
    assert inputs_sha256([a]) != before
