"""Folders, files, JSON lines and Parquet: what is read, what is dropped and why, what is refused."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rein.errors import UserError
from rein.text import sources, tables
from rein.text.documents import Document, Dropped
from rein.text.recipe import Source
from rein.text.sources import inputs_sha256, load_object, open_source, read_all


def reader(kind, paths, **settings):
    return open_source(Source("mine", kind, tuple(paths), **settings))


def folder(paths, extensions=(".txt",), license=""):
    return reader("folder", paths, extensions=extensions, license=license)


def text_files(paths, license=""):
    return reader("text", paths, license=license)


def json_lines(paths, text_field="text"):
    return reader("jsonl", paths, text_field=text_field)


def parquet(paths, text_field="text"):
    return reader("parquet", paths, text_field=text_field)


def split_kinds(reader):
    items, read_bytes = [], 0.0

    def advance(amount):
        nonlocal read_bytes
        read_bytes += amount

    partitions = reader.partitions()
    for partition in partitions:
        items += reader.read(partition, advance)
    assert read_bytes == pytest.approx(sum(partition["bytes"] for partition in partitions))
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
    source = folder([essays], (".txt", ".md"), "CC0-1.0")
    documents, dropped = split_kinds(source)
    assert documents == {"a.MD": "déjà vu", "b/one.txt": "one\nline\nends\n", "empty.txt": ""}
    assert dropped == {
        ".git/notes.txt": "hidden",
        ".hidden.txt": "hidden",
        "image.txt": "binary file",
        "latin1.txt": "not UTF-8",
        "table.csv": "other file type",
    }
    document = next(item for item in read_all(source) if isinstance(item, Document))
    assert (document.source, document.metadata) == ("mine", {"path": "a.MD", "license": "CC0-1.0"})


def test_the_order_is_that_of_the_names(essays):
    ids = [item.id for item in read_all(folder([essays]))]
    assert ids == sorted(ids, key=lambda id: Path(id).parts)


def test_ids_do_not_depend_on_where_the_folder_is_seen_from(essays, monkeypatch):
    monkeypatch.chdir(essays)
    assert [item.id for item in read_all(folder([Path()]))] == [item.id for item in read_all(folder([essays]))]


def test_two_folders_are_told_apart(essays, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("other")
    documents, _ = split_kinds(folder([essays, other], (".md",), ""))
    assert documents == {"essays/a.MD": "déjà vu", "other/a.md": "other"}


def test_a_file_that_vanished_is_dropped(essays):
    source = folder([essays], (".md",))
    (partition,) = source.partitions()
    (essays / "a.MD").unlink()
    assert Dropped("a.MD", "unreadable file") in list(source.read(partition, lambda _: None))


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"is not a folder.\n.*--source text"):
        folder([Path(__file__)]).partitions()
    with pytest.raises(UserError, match="does not exist"):
        folder([tmp_path / "nowhere"]).partitions()


# ------------------------------------------------------------------------------------------------------ text


def test_text_files(tmp_path):
    path = tmp_path / "input.txt"
    path.write_bytes(b"one\r\ntwo")
    documents, dropped = split_kinds(text_files([path], "CC0-1.0"))
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
        list(read_all(text_files([path])))


def test_a_text_file_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"is not a file.\n.*--source folder"):
        text_files([tmp_path]).partitions()
    with pytest.raises(UserError, match=r"does not exist.\n.*Check the path"):
        text_files([tmp_path / "nowhere"]).partitions()


def test_a_text_file_too_large_for_one_document(tmp_path):
    path = tmp_path / "input.txt"
    path.touch()
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(UserError, match="larger than 1 GiB"):
        list(read_all(text_files([path])))


def test_a_text_file_that_vanished(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("text")
    source = text_files([path])
    (partition,) = source.partitions()
    path.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(source.read(partition, lambda _: None))


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
    documents, dropped = split_kinds(json_lines([path], "body"))
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
    assert split_kinds(json_lines([path], "text"))[1] == {"a.jsonl:2": "not JSON"}


def test_the_wrong_field_is_refused_at_once(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "title": "two"}\n')
    with pytest.raises(UserError, match=r"no field 'text'.\n.*--text-field. Known names: body, title."):
        list(read_all(json_lines([path], "text")))


def test_a_damaged_archive(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n' * 1000)[:-10])
    with pytest.raises(UserError, match="cannot be read to its end"):
        list(read_all(json_lines([path], "text")))


def test_json_files_of_a_folder_come_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    assert list(split_kinds(json_lines([tmp_path], "text"))[0]) == ["a.jsonl:1", "b.jsonl:1"]


def test_json_files_there_are_not(tmp_path):
    with pytest.raises(UserError, match=r"holds no file named \*.jsonl"):
        json_lines([tmp_path]).partitions()
    with pytest.raises(UserError, match="does not exist"):
        json_lines([tmp_path / "a.jsonl"]).partitions()


def test_json_lines_that_vanished(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}")
    source = json_lines([path])
    (partition,) = source.partitions()
    path.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(source.read(partition, lambda _: None))


def test_a_large_file_is_cut_at_lines_and_keeps_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 500)
    monkeypatch.setattr(tables, "_READ_BYTES", 64)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " + "word " * (i % 50)}) + "\n" for i in range(1, 200)))
    source = json_lines([path])
    assert len(source.partitions()) > 20
    documents, dropped = split_kinds(source)
    assert {id: text.split()[0] for id, text in documents.items()} == {f"a.jsonl:{i}": str(i) for i in range(1, 200)}
    assert dropped == {}


def test_a_line_too_long_for_memory_is_dropped_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    lines = ["x", "y" * 1000, "z", "w" * 77]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    documents, dropped = split_kinds(json_lines([path]))
    assert list(documents) == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:4"]
    assert dropped == {"a.jsonl:2": "line over 256 MiB"}


def test_a_document_may_have_a_name_an_address_and_a_date_of_its_own(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"text": "one", "key": 7, "url": "http://a.example", "date": "2017-01-02"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"text": "two"}) + "\n")
    one, two = read_all(reader("jsonl", [path], id_field="key"))
    assert (one.id, one.url, one.date) == ("7", "http://a.example", "2017-01-02")
    assert (two.id, two.url, two.date) == ("a.jsonl:2", "", "")
    with pytest.raises(UserError, match=r"no field 'kee'.\n.*--id-field. Did you mean key"):
        list(read_all(reader("jsonl", [path], id_field="kee")))


def test_paths_may_have_stars(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.json"):
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    assert list(split_kinds(json_lines([tmp_path / "*.jsonl"]))[0]) == ["a.jsonl:1", "b.jsonl:1"]
    with pytest.raises(UserError, match="does not exist"):
        json_lines([tmp_path / "*.warc"]).partitions()


# --------------------------------------------------------------------------------------------------- parquet


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, kind):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": pa.array(["one", None, "drei"], pa.string()).cast(kind), "other": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=2)
    documents, dropped = split_kinds(parquet([tmp_path], "text"))
    assert documents == {"a.parquet:1": "one", "a.parquet:3": "drei"}
    assert dropped == {"a.parquet:2": "no text in the field"}


def test_one_value_that_is_not_utf8_does_not_fail_its_batch(tmp_path):
    data = pa.array([b"one", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, data.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    documents, dropped = split_kinds(parquet([tmp_path], "text"))
    assert documents == {"a.parquet:1": "one"}
    assert dropped == {"a.parquet:2": "not UTF-8"}


def test_parquet_refuses(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "body": ["a", "b"]}), path)
    with pytest.raises(UserError, match=r"no field 'txt'.\n.*Did you mean text"):
        parquet([path], "txt").partitions()
    with pytest.raises(UserError, match=r"column 'text' of .* holds int64, not text.\n.*Known names: body."):
        parquet([path], "text").partitions()
    source = parquet([path], "body")
    (partition,) = source.partitions()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        list(source.read(partition, lambda _: None))
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        parquet([path], "body").partitions()


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


def test_a_large_input_is_known_by_its_size_its_time_and_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_HASHED_BYTES", 100)
    path = tmp_path / "a"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, ns=(1, 1))
    before = inputs_sha256([path])
    assert inputs_sha256([path]) == before
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    os.utime(path, ns=(1, 1))
    after = inputs_sha256([path])
    assert after != before
    os.utime(path, ns=(1, 2))
    assert inputs_sha256([path]) not in (before, after)


# ---------------------------------------------------------------------------------------------------- your own


class Numbers:
    """A reader as a user would write one."""

    def __init__(self, source):
        self.source = source

    def inputs(self):
        return []

    def partitions(self):
        return [{"first": first, "bytes": 1} for first in (0, 10)]

    def read(self, partition, advance):
        for number in range(partition["first"], partition["first"] + 10):
            yield Document(f"number {number}", str(number), self.source.name)
        advance(1)


def test_a_reader_of_the_users_own(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path)
    documents, _ = split_kinds(reader("mine:Numbers", []))
    assert len(documents) == 20
    with pytest.raises(UserError, match="has no 'Number'"):
        reader("mine:Number", [])
    with pytest.raises(UserError, match="cannot be imported"):
        reader("nowhere:Numbers", [])


def test_a_module_of_the_current_folder_is_found(monkeypatch, tmp_path):
    (tmp_path / "found_here.py").write_text("from beside_it import word\n")
    (tmp_path / "beside_it.py").write_text("word = 'here'\n")
    (tmp_path / "broken_here.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])  # as of an installed command
    before = list(sys.path)
    assert load_object("found_here:word", "--gold") == "here"
    with pytest.raises(UserError, match=r"(?s)--gold .*No module named 'nowhere'.*looked for in .*run the command in"):
        load_object("nowhere:word", "--gold")
    with pytest.raises(UserError, match=r"(?s)cannot be imported: ZeroDivisionError: division by zero.*Mend broken_he"):
        load_object("broken_here:word", "--gold")
    assert sys.path == before


def test_a_hugging_face_dataset(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    assert datasets
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name}{i}"}) + "\n" for i in range(3)))
    source = reader("huggingface", [], dataset=str(tmp_path))
    documents, dropped = split_kinds(source)
    assert sorted(documents.values()) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert dropped == {}
    with pytest.raises(UserError, match="cannot be opened"):
        reader("huggingface", [], dataset=str(tmp_path / "nowhere")).partitions()
