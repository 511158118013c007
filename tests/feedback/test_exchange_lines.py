"""Files of JSON that nobody vouches for, row by row."""

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.feedback.exchange import lines
from rein.feedback.exchange.lines import read_rows
from rein.feedback.exchange.rows import Bad

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc\u202e😀", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def read(path, data):
    path.write_bytes(data)
    return list(read_rows(path))


def test_lines_have_their_numbers_and_blank_ones_count(tmp_path):
    assert read(tmp_path / "a", b'{"a": 1}\n\n{"b": 2}\r\n{"c": 3}') == [(1, {"a": 1}), (3, {"b": 2}), (4, {"c": 3})]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    assert read(tmp_path / "a", b'\xef\xbb\xbf{"a": 1}\n') == [(1, {"a": 1})]
    assert read(tmp_path / "b", b'\xef\xbb\xbf[{"a": 1}]') == [(1, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": ', "not JSON: Expecting value, at place 7"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at place 8"),
        (b'{"a": "\\u0000"}', "a text has a NUL character"),
        (b'{"\\u0000": 1}', "a text has a NUL character"),
        (b'{"a": ["\\ud83d"]}', "half a character"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": "\0"}', "not JSON: Invalid control character"),
    ],
)
def test_a_bad_line_is_told_of_and_the_others_are_read(tmp_path, line, problem):
    rows = read(tmp_path / "a", b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    assert rows[0] == (1, {"a": 1})
    assert rows[1].line == 2
    assert problem in rows[1].problem
    assert rows[2:] == [(3, {"b": 2})]


def test_a_line_that_is_too_long_is_told_of_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MOST_BYTES", 1000)
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 64)
    huge = json.dumps({"a": "x" * 5000}).encode()
    rows = read(tmp_path / "a", b'{"a": 1}\n' + huge + b'\n{"b": 2}\n' + huge)
    assert [row if isinstance(row, tuple) else row.line for row in rows] == [(1, {"a": 1}), 2, (3, {"b": 2}), 4]
    assert "longer than 1,000 bytes" in rows[1].problem


def test_what_looks_like_nul_in_an_escape_of_a_backslash_is_kept(tmp_path):
    assert read(tmp_path / "a", rb'{"a": "\\u0000 \\ud800"}') == [(1, {"a": "\\u0000 \\ud800"})]


def test_right_to_left_and_astral_characters_are_kept_escaped_or_not(tmp_path):
    text = "\u202eabc\u2066 😀 𝔘"
    for ascii in (True, False):
        assert read(tmp_path / "a", json.dumps({"a": text}, ensure_ascii=ascii).encode()) == [(1, {"a": text})]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(values=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 4]), chunk=st.integers(1, 40))
def test_a_list_is_read_as_its_elements_whatever_pieces_it_comes_in(tmp_path, values, indent, chunk):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK_BYTES", chunk)
        assert [row[1] for row in read_rows(path)] == values


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(values=st.lists(st.dictionaries(st.text("ab"), JSON), max_size=5), chunk=st.integers(1, 40))
def test_lines_are_read_whatever_pieces_they_come_in(tmp_path, values, chunk):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in values), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK_BYTES", chunk)
        assert list(read_rows(path)) == list(enumerate(values, 1))


def test_elements_of_a_list_have_the_lines_that_they_begin_at(tmp_path):
    assert read(tmp_path / "a", b'[\n  {"a":\n 1},\n  {"b": 2}\n]\n') == [(2, {"a": 1}), (4, {"b": 2})]


@pytest.mark.parametrize(
    ("data", "good", "line", "problem"),
    [
        (b'[{"a": 1},\n {"b": oops},\n {"c": 3}]', 1, 2, "the rest of the list is not read"),
        (b'[{"a": 1},\n {"b": 2}', 2, 2, "it ends"),
        (b'[{"a": 1}\n {"b": 2}]', 1, 2, "']' is expected, but '{'"),
        (b'[{"a": 1},\n {"b": "\xff"}]', 0, 1, "not UTF-8"),
        (b'[{"a": 1},\n' + b"[" * 100_000, 1, 2, "nested too deeply"),
    ],
)
def test_a_broken_list_is_read_up_to_where_it_breaks(tmp_path, data, good, line, problem):
    rows = read(tmp_path / "a", data)
    assert len(rows) == good + 1
    assert rows[-1].line == line
    assert problem in rows[-1].problem


def test_an_element_with_nul_is_left_out_of_a_list_alone(tmp_path):
    rows = read(tmp_path / "a", b'[{"a": 1},\n{"b": "\\u0000"},\n{"c": 3}]')
    assert [rows[0], rows[2]] == [(1, {"a": 1}), (3, {"c": 3})]
    assert isinstance(rows[1], Bad)


def test_an_element_that_is_too_long_ends_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MOST_BYTES", 1000)
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 64)
    rows = read(tmp_path / "a", b'[1,\n"' + b"x" * 5000 + b'", 2]')
    assert rows[0] == (1, 1)
    assert "longer than 1,000 bytes" in rows[1].problem


@pytest.mark.parametrize("pack", ["gz", "zst"])
def test_packed_files_are_read_and_one_that_breaks_off_says_where(tmp_path, pack):
    data = "".join(json.dumps({"n": n, "text": f"{n * n * 7919}"}) + "\n" for n in range(5000)).encode()
    packed = gzip.compress(data) if pack == "gz" else pa.compress(data, codec="zstd", asbytes=True)
    assert len(read(tmp_path / f"a.{pack}", packed)) == 5000
    half = packed[: len(packed) // 2]
    if pack == "zst":  # which gives nothing of a block that is not whole
        with pytest.raises(UserError, match="is no whole Zstandard file: Truncated"):
            read(tmp_path / "b.zst", half)
        return
    rows = read(tmp_path / "b.gz", half)
    assert all(isinstance(row, tuple) for row in rows[:-1])
    assert "breaks off or is damaged" in rows[-1].problem
    assert rows[-1].line == len(rows)


def test_what_is_no_gzip_in_spite_of_its_name_says_so(tmp_path):
    with pytest.raises(UserError, match=r"a\.gz is no whole gzip file: Not a gzipped file"):
        read(tmp_path / "a.gz", b'{"a": 1}\n')


def test_a_file_that_is_not_there_or_a_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        list(read_rows(tmp_path / "missing.jsonl"))
    with pytest.raises(UserError, match="is a folder"):
        list(read_rows(tmp_path))


def test_an_empty_file_has_no_rows(tmp_path):
    assert read(tmp_path / "a", b"") == []
    assert read(tmp_path / "b", b"[]") == []
