"""Documents on disk: in order, in files of bounded size, and found again by their position."""

from __future__ import annotations

import pytest

from rein.text import documents, store
from rein.text.documents import Document, fault
from rein.text.store import DocumentWriter, read_at, read_documents, read_groups


def some_documents(n):
    return [Document(f"id{i}", f"text {i} é", "jsonl", "p", "", "MIT", "", f"path{i}") for i in range(n)]


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(store, "GROUP_BYTES", 30)
    monkeypatch.setattr(store, "FILE_BYTES", 100)


def test_documents_come_back_in_order_from_several_files(tmp_path, small_groups):
    written = some_documents(50)
    with DocumentWriter(tmp_path, "train") as writer:
        for document in written:
            writer.append(document)
    paths = [tmp_path / record["file"] for record in writer.files]
    assert len(paths) > 3
    assert paths == sorted(tmp_path.iterdir())
    assert list(read_documents(paths)) == written
    assert sum(record["documents"] for record in writer.files) == 50
    assert sum(record["bytes"] for record in writer.files) == sum(len(d.text.encode()) for d in written)
    assert list(read_at(paths, [49, 0, 13])) == [written[0], written[13], written[49]]
    assert len(list(read_groups(paths, ["text"]))) > len(paths)


def test_a_group_has_a_limit_of_documents_too(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "GROUP_DOCUMENTS", 4)
    with DocumentWriter(tmp_path, "train") as writer:
        for document in some_documents(10):
            writer.append(document)
    groups = read_groups([tmp_path / "train-00000.parquet"], ["text"])
    assert [len(group["text"]) for group in groups] == [4, 4, 2]


def test_nothing_written_is_no_file(tmp_path):
    with DocumentWriter(tmp_path, "train") as writer:
        pass
    assert writer.files == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_no_unfinished_file(tmp_path, small_groups):
    writer = DocumentWriter(tmp_path, "train")
    for document in some_documents(9):
        writer.append(document)
    assert (tmp_path / "train-00000.parquet.part").exists() or writer.files
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [record["file"] for record in writer.files]


def test_a_document_too_large_for_parquet_is_a_fault(monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 3)
    assert fault("éé") == "over 1 GiB"
    assert fault("abc") is None
