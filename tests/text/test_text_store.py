"""Documents on disk: in order, in files of bounded size, and found again by their position."""

from __future__ import annotations

import pytest

from rein.text import documents, store
from rein.text.documents import Document, fault
from rein.text.store import DocumentWriter, read_at, read_documents, read_groups


def some_documents(n):
    return [
        Document(f"text {i} é", f"id{i}", "mine", f"http://{i}.example", "2020-01-01", {"license": "MIT", "i": str(i)})
        for i in range(n)
    ]


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(store, "GROUP_BYTES", 30)


def write(path, documents):
    with DocumentWriter(path) as writer:
        for document in documents:
            writer.append(document)
    return writer


def test_documents_come_back_in_order_from_several_files(tmp_path, small_groups):
    written = some_documents(50)
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    writers = [write(path, part) for path, part in zip(paths, (written[:20], written[20:]), strict=True)]
    assert sorted(tmp_path.iterdir()) == paths
    assert list(read_documents(paths)) == written
    assert [writer.n_documents for writer in writers] == [20, 30]
    assert sum(writer.n_bytes for writer in writers) == sum(len(d.text.encode()) for d in written)
    assert list(read_at(paths, [49, 0, 13])) == [written[0], written[13], written[49]]
    assert len(list(read_groups(paths, ["text"]))) > len(paths)


def test_a_group_has_a_limit_of_documents_too(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "GROUP_DOCUMENTS", 4)
    write(tmp_path / "a.parquet", some_documents(10))
    groups = read_groups([tmp_path / "a.parquet"], ["text"])
    assert [len(group["text"]) for group in groups] == [4, 4, 2]


def test_no_documents_are_a_file_too(tmp_path):
    write(tmp_path / "a.parquet", [])
    assert list(read_documents([tmp_path / "a.parquet"])) == []


def test_an_error_leaves_no_file(tmp_path, small_groups):
    writer = DocumentWriter(tmp_path / "a.parquet")
    for document in some_documents(9):
        writer.append(document)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_document_too_large_for_parquet_is_a_fault(monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 3)
    assert fault("éé") == "over 1 GiB"
    assert fault("abc") is None
