"""Archives as they are met: whole, cut, lied about; what is readable is read, and the rest is counted."""

from __future__ import annotations

import gzip
import hashlib
import re
import tracemalloc
import zlib

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given
from hypothesis import strategies as st

from rein.errors import UserError
from rein.text.documents import Dropped
from rein.text.warc import Page, Reader, write

HTML = b"<html><body><p>What the page says.</p></body></html>"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n"


def record(number, block=OK + HTML, *, kind=b"response", length=None, fields=b""):
    """A record, byte by byte; `length` is what it says its length is, b"" for nothing at all."""
    length = str(len(block)).encode() if length is None else length
    header = (
        b"WARC/1.0\r\nWARC-Type: %b\r\nWARC-Record-ID: <urn:uuid:%d>\r\nWARC-Target-URI: http://example.org/%d\r\n"
        b"WARC-Date: 2016-05-01T12:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
    ) % (kind, number, number)
    return header + (b"Content-Length: " + length + b"\r\n" if length else b"") + fields + b"\r\n" + block + b"\r\n\r\n"


def noisy(number):
    """A record that gzip cannot make small, so that cutting into it hits its content."""
    return record(number, OK + b"<p>" + hashlib.shake_256(b"%d" % number).hexdigest(2000).encode())


def read(tmp_path, data, **options):
    path = tmp_path / "crawl.warc"
    path.write_bytes(data)
    return list(Reader(path, **options))


def short(items):
    """Numbers of pages as they are, reasons of drops."""
    return [item.reason if isinstance(item, Dropped) else number(item.id) for item in items]


def number(name):
    found = re.fullmatch(r"<urn:uuid:(\d+)>", name)
    return int(found[1]) if found else name


def members(*records):
    return b"".join(gzip.compress(one) for one in records)


def one_member(*records):
    return gzip.compress(b"".join(records))


def plain(*records):
    return b"".join(records)


PACKINGS = pytest.mark.parametrize("pack", [plain, members, one_member])


@PACKINGS
def test_a_page_has_all_that_its_record_says(tmp_path, pack):
    page, *_ = read(tmp_path, pack(record(7, fields=b"WARC-Truncated: length\r\n"), record(8)))
    assert page == Page(
        id="<urn:uuid:7>",
        url="http://example.org/7",
        date="2016-05-01T12:00:00Z",
        payload=HTML,
        kind="html",
        charset="iso-8859-1",
        metadata={"truncated": "length"},
    )


@PACKINGS
def test_every_record_is_a_page_or_a_reason(tmp_path, pack):
    def http(status, media_type):
        return b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n\r\nabc" % (status, media_type)

    items = read(
        tmp_path,
        pack(
            record(0, b"software: x\r\n", kind=b"warcinfo"),
            record(1, kind=b"request"),
            record(2),
            record(3, http(404, b"text/html")),
            record(4, http(200, b"image/png")),
            record(5, http(200, b"application/xhtml+xml; charset=utf-8")),
            record(6, http(200, b"text/plain")),
            record(7, b"<html>no header at all</html>"),
            record(8, b"HTTP/1.0 200 OK\r\n\r\n" + HTML),
            record(9, b"HTTP/1.0 200 OK\r\n\r\n" + HTML, fields=b"WARC-Identified-Payload-Type: text/html\r\n"),
            record(10, b"HTTP/1.0 200 OK\nContent-Type: text/html\n\n" + HTML),
            record(11, b"HTTP/1.0 garbled\r\nContent-Type: text/html\r\n\r\n" + HTML),
        ),
    )
    assert short(items) == [
        "not a response",
        "not a response",
        2,
        "HTTP status not 200",
        "not HTML or text",
        5,
        6,
        "no HTTP header",
        "not HTML or text",
        9,
        10,
        "HTTP status not 200",
    ]
    kinds = {item.id: item.kind for item in items if isinstance(item, Page)}
    assert kinds["<urn:uuid:5>"] == "html"
    assert kinds["<urn:uuid:6>"] == "text"
    assert items[3].id == "<urn:uuid:3>"
    assert items[10].payload == HTML


@PACKINGS
def test_a_wet_file_is_text(tmp_path, pack):
    text = "Grüße aus dem Netz.".encode()
    header = (
        b"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://example.org/a\r\nWARC-Date: 2016-05-01T12:00:00Z"
        b"\r\nWARC-Record-ID: <urn:uuid:1>\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(text)
    )
    (page,) = read(tmp_path, pack(header + text + b"\r\n\r\n"))
    assert (page.kind, page.charset, page.payload, page.url) == ("text", "utf-8", text, "http://example.org/a")


def encoded(how, body):
    return OK.replace(b"\r\n\r\n", b"\r\n" + how + b"\r\n\r\n") + body


def test_content_encodings_are_undone_and_lies_about_them_seen(tmp_path):
    import brotli

    chunked = b"%x\r\n" % 9 + HTML[:9] + b"\r\n%x\r\n" % len(HTML[9:]) + HTML[9:] + b"\r\n0\r\n\r\n"
    items = read(
        tmp_path,
        plain(
            record(0, encoded(b"Content-Encoding: gzip", gzip.compress(HTML))),
            record(1, encoded(b"Content-Encoding: br", brotli.compress(HTML))),
            record(2, encoded(b"Content-Encoding: deflate", zlib.compress(HTML))),
            record(3, encoded(b"Transfer-Encoding: chunked", chunked)),
            record(4, encoded(b"Content-Encoding: gzip", HTML)),
            record(5, encoded(b"Transfer-Encoding: chunked", HTML)),
            record(6, encoded(b"Content-Encoding: x-unheard-of", b"\x05\x00\x09" * 50)),
            record(7),
        ),
    )
    assert short(items) == [0, 1, 2, 3, 4, 5, "content encoding not readable", 7]
    assert [item.payload for item in items if isinstance(item, Page)] == [HTML] * 7


def test_a_gzip_member_cut_in_the_middle_of_the_file(tmp_path):
    parts = [gzip.compress(noisy(number)) for number in range(4)]
    for cut in range(1, len(parts[1]) - 1, 97):
        items = read(tmp_path, parts[0] + parts[1][:cut] + parts[2] + parts[3])
        assert short(items) in ([0, "record damaged", 2, 3], [0, "bytes that are no record", 2, 3]), cut


def test_changed_bytes_in_a_gzip_member_are_found_by_its_checksum(tmp_path):
    parts = [gzip.compress(noisy(number)) for number in range(3)]
    for at in [12, *range(50, len(parts[1]), 101), len(parts[1]) - 6]:
        broken = bytearray(parts[1])
        broken[at] ^= 0x55
        items = read(tmp_path, parts[0] + bytes(broken) + parts[2])
        assert short(items) == [0, "record damaged", 2], at
        assert "urn:uuid:1>" in items[1].id or "crawl.warc:1" in items[1].id


@PACKINGS
def test_a_file_cut_anywhere_gives_all_that_is_whole(tmp_path, pack):
    whole = pack(noisy(0), noisy(1), noisy(2))
    for cut in range(len(pack(noisy(0), noisy(1))), len(whole) - 13, 211):
        items = short(read(tmp_path, whole[:cut]))
        if pack is one_member:
            # What one member holds can only be trusted up to its damage.
            assert items[:1] == [0]
            assert items[-1] == "record damaged"
        else:
            assert items[:2] == [0, 1]
            assert set(items[2:]) <= {"record damaged", "bytes that are no record"}


@PACKINGS
@pytest.mark.parametrize("length", [b"20", b"130", b"999", b"99999999", b"9" * 18, b"9" * 30, b"abc", b"-5", b"", b"1"])
def test_a_length_that_lies_costs_one_record(tmp_path, pack, length):
    items = short(read(tmp_path, pack(record(0), record(1, length=length), record(2), record(3))))
    lost = "record too large" if 8 <= len(length) <= 18 else "record damaged"
    assert items == [0, lost, 2, 3]


@PACKINGS
def test_garbage_between_records(tmp_path, pack):
    garbage = b"\xff\x00nothing that anyone wrote\r\n\r\n" * 40
    assert short(read(tmp_path, pack(record(0), garbage, record(1), record(2)))) == [
        0,
        "bytes that are no record",
        1,
        2,
    ]
    raw = gzip.compress(record(0)) + garbage + gzip.compress(record(1))
    assert short(read(tmp_path, raw)) == [0, "bytes that are no record", 1]


def test_a_page_that_quotes_a_record_is_one_page(tmp_path):
    quote = OK + b"<pre>" + record(66) + b"\r\n\r\n" + gzip.compress(record(67)) + b"</pre>"
    for pack in (plain, members, one_member):
        items = read(tmp_path, pack(record(0), record(1, quote), record(2)))
        assert short(items) == [0, 1, 2]
        assert items[1].payload == quote.removeprefix(OK)


def test_records_that_span_gzip_members_are_joined(tmp_path):
    data = plain(*[noisy(number) for number in range(9)])
    blocks = b"".join(gzip.compress(data[at : at + 777]) for at in range(0, len(data), 777))
    assert short(read(tmp_path, blocks)) == list(range(9))


def test_a_second_record_of_the_same_id_gets_another(tmp_path):
    assert [item.id for item in read(tmp_path, plain(record(1), record(1), record(1)))] == [
        "<urn:uuid:1>",
        "<urn:uuid:1>#2",
        "<urn:uuid:1>#3",
    ]


def test_records_without_an_id_are_named_by_their_place(tmp_path):
    nameless = record(1).replace(b"WARC-Record-ID: <urn:uuid:1>\r\n", b"")
    assert [item.id for item in read(tmp_path, plain(record(0), nameless))] == ["<urn:uuid:0>", "crawl.warc:1"]


def test_a_gzip_bomb_costs_no_memory(tmp_path):
    path = tmp_path / "bomb.warc.gz"
    n_bytes = 100 << 20
    head = record(1, length=b"%d" % n_bytes).removesuffix(OK + HTML + b"\r\n\r\n")
    inner = gzip.compress(bytes(20 << 20))
    with path.open("wb") as file:
        file.write(members(record(0)))
        file.write(gzip.compress(head + bytes(n_bytes), 1))
        file.write(members(record(2), record(3, encoded(b"Content-Encoding: gzip", inner)), record(4)))
    tracemalloc.start()
    try:
        assert short(Reader(path, max_record_bytes=1 << 20)) == [0, "record too large", 2, "record too large", 4]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_header_without_an_end_is_given_up(tmp_path):
    endless = b"WARC/1.0\r\n" + b"X: y\r\n" * 100_000
    assert short(read(tmp_path, plain(record(0), endless, record(1)))) == [0, "record damaged", 1]


def test_an_empty_file_has_no_records(tmp_path):
    assert read(tmp_path, b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"<html>a page</html>" * 99,
        gzip.compress(b"a,b,c\n" * 99, mtime=0),
        bytes(range(256)) * 4,
        b"\x28\xb5\x2f\xfd" * 9,
    ],
)
def test_what_is_no_archive_is_said(tmp_path, data):
    with pytest.raises(UserError, match=r"crawl\.warc is no WARC file: it begins with"):
        read(tmp_path, data)


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.warc cannot be read: No such file"):
        Reader(tmp_path / "nowhere.warc")
    with pytest.raises(UserError, match="cannot be read"):
        Reader(tmp_path)


@PACKINGS
def test_the_position_ends_with_the_file(tmp_path, pack):
    path = tmp_path / "crawl.warc"
    path.write_bytes(pack(*[noisy(number) for number in range(400)]))
    reader = Reader(path)
    positions = [reader.position_bytes for _ in reader]
    assert len(positions) == 400
    assert positions == sorted(positions)
    assert 0 < positions[0] < positions[-1] <= reader.size_bytes == reader.position_bytes
    assert [item.id for item in reader] == [item.id for item in reader]


@given(st.lists(st.binary(max_size=3000), max_size=5), st.sampled_from(["a.warc", "a.warc.gz"]))
def test_what_is_written_is_read_back_by_us_and_by_fastwarc(tmp_path_factory, payloads, name):
    path = tmp_path_factory.mktemp("written") / name
    pages = [
        Page(
            f"<urn:uuid:{i:08}-0000-4000-8000-000000000000>",
            f"http://example.org/{i}",
            "2017-12-31T00:00:00Z",
            payload,
            "html",
            "utf-8",
        )
        for i, payload in enumerate(payloads)
    ]
    write(path, pages)
    info, *items = Reader(path)
    assert info.reason == "not a response"
    assert items == pages
    with path.open("rb") as file:
        theirs = [one.reader.read() for one in ArchiveIterator(file, parse_http=True)][1:]
    assert theirs == payloads
    before = path.read_bytes()
    write(path, pages)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [name]


def test_names_that_are_no_uri_become_one(tmp_path):
    path = tmp_path / "a.warc.gz"
    write(path, [Page(name, "file:///a", "", b"<p>x", metadata={"truncated": "time"}) for name in ("a.html", "ü b")])
    _, first, second = Reader(path)
    assert first.id.startswith("<urn:uuid:")
    assert first.id != second.id
    assert first.metadata == {"truncated": "time"}
    with pytest.raises(AssertionError, match="WARC-Target-URI"):
        write(path, [Page("a", "http://a\r\nX: y", "", b"")])


@given(st.data())
def test_no_damage_raises_or_loses_what_is_before_it(tmp_path_factory, data):
    pack = data.draw(st.sampled_from([plain, members]))
    whole = bytearray(pack(*[noisy(number) for number in range(3)]))
    at = data.draw(st.integers(len(pack(noisy(0))) + 1, len(whole) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
    if damage == "flip":
        whole[at] ^= data.draw(st.integers(1, 255))
    elif damage == "cut":
        del whole[at : at + data.draw(st.integers(1, 3000))]
    elif damage == "insert":
        whole[at:at] = data.draw(st.binary(max_size=300))
    else:
        whole[at : at + 40] = bytes(len(whole[at : at + 40]))
    path = tmp_path_factory.mktemp("damaged") / "crawl.warc"
    path.write_bytes(whole)
    assert short(Reader(path))[0] == 0


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("step", [1, 100, 997, 5000])
def test_parts_that_follow_each_other_have_every_record_once(tmp_path, step, damaged):
    path = tmp_path / "a.warc.gz"
    data = bytearray(members(*(record(number) for number in range(60))))
    if damaged:
        data[len(data) // 2] ^= 0xFF
        data[len(data) // 3 : len(data) // 3] = b"no gzip at all"
    path.write_bytes(data)
    whole = [item.id for item in Reader(path) if isinstance(item, Page)]
    assert len(whole) == 60 if not damaged else 56 < len(whole) < 60
    parts = [
        item.id
        for start in range(0, len(data), step)
        for item in Reader(path, start=start, end=min(start + step, len(data)))
        if isinstance(item, Page)
    ]
    assert parts == whole


def test_the_first_part_of_what_cannot_be_cut_has_all_of_it(tmp_path):
    for name, data in (
        ("plain", b"".join(record(number) for number in range(9))),
        ("one-member", gzip.compress(b"".join(record(number) for number in range(9)), mtime=0)),
    ):
        path = tmp_path / f"{name}.warc"
        path.write_bytes(data)
        parts = [len(list(Reader(path, start=start, end=start + 50))) for start in range(0, len(data), 50)]
        assert parts[0] == 9
        assert set(parts[1:]) == {0}
