"""Where evaluation sets lie: files are found by the ends of their paths, and read whatever their form."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rein.errors import UserError
from rein.evals.data import BadRow, Data, NotThere, Row, rows, text_of


@pytest.fixture
def data(tmp_path):
    """Makes Data of a folder with the files {name: text}."""

    def make(files, *folders):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Data(tuple(tmp_path / name for name in folders) or (tmp_path,))

    return make


def relative(path, tmp_path):
    return path.relative_to(tmp_path).as_posix()


# ---------------------------------------------------------------------------------------------------- finding files


def test_a_file_is_found_by_the_end_of_its_path_wherever_it_lies(data, tmp_path):
    there = data({"sets/SuperGLUE/cb/VAL.jsonl": "", "sets/other/val.jsonl": "", "val.jsonl": ""})
    assert relative(there.find("superglue/CB/val.jsonl"), tmp_path) == "sets/SuperGLUE/cb/VAL.jsonl"
    assert relative(there.find("val.jsonl"), tmp_path) == "val.jsonl"


def test_the_end_of_a_path_is_whole_names(data):
    assert data({"my_val.jsonl": "", "xCB/val.jsonl": ""}).find("CB/val.jsonl", "l.jsonl") is None


def test_earlier_names_then_plain_files_then_earlier_folders_come_first(data, tmp_path):
    files = {"a/second.txt": "", "b/first.txt.gz": "", "b/first.txt": "", "c/first.txt": ""}
    assert relative(data(files, "a", "b", "c").find("first.txt", "second.txt"), tmp_path) == "b/first.txt"
    assert relative(data({}, "c", "b").find("first.txt", "second.txt"), tmp_path) == "c/first.txt"


def test_a_packed_file_is_found_by_its_plain_name(data):
    assert data({"one.jsonl.ZST": ""}).find("one.jsonl").name == "one.jsonl.ZST"


def test_a_file_may_be_named_itself(data):
    assert data({"sets/arc/test.csv": ""}, "sets/arc/test.csv").find("arc/test.csv").name == "test.csv"


def test_what_is_not_there_is_named_with_the_folders(data, tmp_path):
    there = data({"other.txt": ""})
    with pytest.raises(NotThere) as error:
        there.need("one.txt", "two.txt")
    assert (error.value.problem, error.value.fix) == (
        f"one.txt is not in {tmp_path}.",
        "Add a folder with one of: one.txt, two.txt.",
    )
    assert there.asked == ["one.txt", "two.txt"]
    with pytest.raises(NotThere, match="--data is not given"):
        Data().need("one.txt")


def test_a_folder_that_does_not_exist_is_said_so(tmp_path):
    with pytest.raises(UserError, match="nowhere, which does not exist"):
        Data((tmp_path / "nowhere",)).find("one.txt")


def test_all_files_of_a_pattern_are_found_in_order(data, tmp_path):
    there = data({"R/test/high/2.txt": "", "R/test/high/10.txt": "", "R/test/high/a.md": "", "R/test/middle/1.txt": ""})
    found = [relative(path, tmp_path) for path in there.need_all("test/high/*.txt")]
    assert found == ["R/test/high/10.txt", "R/test/high/2.txt"]


def test_a_pattern_finds_capitals_links_and_packed_files_as_a_name_does(data, tmp_path):
    data(
        {
            "elsewhere/high/1.txt": "",
            "elsewhere/high/2.TXT": "",
            "elsewhere/high/3.txt.gz": "",
            "elsewhere/high/3.txt": "",
        }
    )
    (tmp_path / "sets").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "sets" / "Test")
    found = [path.name for path in Data((tmp_path / "sets",)).need_all("test/HIGH/*.txt")]
    assert found == ["1.txt", "2.TXT", "3.txt"]


def test_a_pattern_without_files_is_named(data, tmp_path):
    there = data({"test/high/deeper/1.txt": "", "test/highest/1.txt": ""})
    with pytest.raises(NotThere, match=r"test/high/\*\.txt is not in"):
        there.need_all("test/high/*.txt")
    assert there.asked == ["test/high/*.txt"]


def test_folders_are_walked_once(data, monkeypatch):
    there, walks, walk = data({"one.txt": ""}), [], os.walk
    monkeypatch.setattr("rein.evals.data.os.walk", lambda *a, **k: (walks.append(a), walk(*a, **k))[1])
    for _ in range(3):
        there.find("one.txt")
        there.find("two.txt")
        there.need_all("*.txt")
    assert len(walks) == 1


# ----------------------------------------------------------------------------------------------------- reading rows


def read(path: Path, content, **how):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row.values for row in rows(path, **how)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": "x\u2028y"}\r\n', [{"a": 1}, {"a": "x\u2028y"}]),
        ("a.JSONL", '\ufeff{"a": 1}', [{"a": 1}]),
        ("a.json", '[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("a.json", '{"data": []}', [{"data": []}]),
        ("a.csv", 'a,b\n1,"x, y"\n', [{"a": "1", "b": "x, y"}]),
        ("a.tsv", 'a\tb\n1\t"x\n', [{"a": "1", "b": '"x'}]),
        ("a.txt", "one\ntwo", ["one", "two"]),
        ("a.txt", b"caf\xe9\n", ["caf\udce9"]),
    ],
)
def test_every_form_of_file_is_read(tmp_path, name, content, expected):
    assert read(tmp_path / name, content) == expected


def test_cells_without_a_header_are_lists(tmp_path):
    assert read(tmp_path / "a.csv", "1,2\n", header=False) == [["1", "2"]]
    assert read(tmp_path / "a.txt", "1|2\n", header=False, delimiter="|") == [["1", "2"]]


def test_packed_files_and_parquet_are_read(tmp_path):
    assert read(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n')) == [{"a": 1}]
    with pa.output_stream(str(tmp_path / "b.csv.zst"), compression="zstd") as stream:
        stream.write(b"a\n1\n")
    assert [row.values for row in rows(tmp_path / "b.csv.zst")] == [{"a": "1"}]
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "c.parquet")
    found = list(rows(tmp_path / "c.parquet"))
    assert [row.values for row in found] == [{"a": 1}, {"a": 2}]
    assert found[1].where == f"{tmp_path}/c.parquet:2"


def test_a_line_that_is_no_json_spoils_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a":\n' + "[" * 100_000 + "\n" + json.dumps({"a": 2}))
    first, broken, deep, last = rows(path)
    assert (first["a"], last["a"], last.where) == (1, 2, f"{path}:4")
    for row in (broken, deep):
        with pytest.raises(BadRow, match="it is not JSON"):
            row["a"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"["), ("a.jsonl.gz", b"not packed"), ("a.parquet", b"PAR1"), ("a.csv", b"a\rb\n")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    with pytest.raises(UserError, match=rf"{name} (is not JSON|cannot be read)"):
        read(tmp_path / name, content)


def test_a_text_is_read_as_it_is_and_must_be_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffé \r\n".encode())
    assert text_of(tmp_path / "a.txt") == "é \r\n"
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"a\.txt cannot be read"):
        text_of(tmp_path / "a.txt")


def test_a_value_that_a_row_has_not_is_named_with_its_line():
    row = Row({"a": None, "b": 0}, "x.jsonl:3")
    with pytest.raises(BadRow, match=r"x\.jsonl:3: its 'a' is null"):
        row["a"]
    with pytest.raises(BadRow, match=r"x\.jsonl:3: it has no 'c'"):
        row["c"]
    assert (row["b"], row.get("a", 5), row.get("c"), row.get("b", 5)) == (0, 5, None, 0)
