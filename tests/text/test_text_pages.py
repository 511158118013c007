"""Web pages as documents: folders of HTML and archives of a crawl, with links and without, kind and hostile ones."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from rein.errors import UserError
from rein.text import pages, warc
from rein.text.build import BuildConfig, build
from rein.text.documents import Document, Dropped
from rein.text.links import LinkRules, read_links
from rein.text.recipe import Source
from rein.text.shards import read_manifest
from rein.text.sources import open_source, read_all

PROSE = "The river behind the house was quiet that morning, and nobody remembered the letter in the garden."


def html(text: str, head: str = "") -> bytes:
    return f"<html><head>{head}</head><body><main><p>{text}</p></main></body></html>".encode()


def everything(source: Source, **partition: object) -> list[Document | Dropped]:
    reader = open_source(source)
    return [item for one in reader.partitions() for item in reader.read({**one, **partition}, lambda _: None)]


@pytest.fixture
def links(tmp_path) -> str:
    """The file of links that `gather_links` writes: pages of example.com with votes."""
    dump = tmp_path / "links.csv"
    rows = [
        "https://example.com/a,5,2017-12-31",
        "https://example.com/b/c,3,2016-02-03",
        "http://example.com,4,2015-01-01",
    ]
    dump.write_text("url,score,date\n" + "\n".join(rows) + "\n")
    read_links([dump], LinkRules()).save(tmp_path / "links.npz")
    return str(tmp_path / "links.npz")


# ------------------------------------------------------------------------------------------------ folders of pages


def test_every_page_of_a_folder_is_a_document_and_every_other_file_a_drop(tmp_path):
    for name in ("a.html", "B.HTM", "c/d.xhtml", "c/e.css", ".git/f.html", "c/.g.html", "h"):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(html(f"{PROSE} {name}"))
    found = everything(Source("web", "html", (tmp_path / "site",), license="MIT"))
    assert [item for item in found if isinstance(item, Dropped)] == [
        Dropped(".git/f.html", "hidden"), Dropped("c/.g.html", "hidden"), Dropped("c/e.css", "other file type"),
        Dropped("h", "other file type"),
    ]  # fmt: skip
    assert [item for item in found if isinstance(item, Document)] == [
        Document(f"{PROSE} {id}", id, "web", "", "", {"path": id, "encoding": "utf-8", "license": "MIT"})
        for id in ("B.HTM", "a.html", "c/d.xhtml")
    ]


def test_ids_name_the_folder_where_there_are_several(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.html").write_bytes(html(PROSE + folder))
    found = everything(Source("web", "html", (tmp_path / "*",)))
    assert [item.id for item in found] == ["one/a.html", "two/a.html"]


def test_partitions_of_pages_are_some_megabytes_and_hold_every_page_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PARTITION_BYTES", 1000)
    for number in range(20):
        (tmp_path / f"{number:02d}.html").write_bytes(html(f"{PROSE} {number}"))
    reader = open_source(Source("web", "html", (tmp_path,)))
    partitions = reader.partitions()
    assert len(partitions) > 3
    assert json.loads(json.dumps(partitions)) == partitions  # plain data, for another machine
    told: list[float] = []
    found = [item for one in partitions for item in reader.read(one, told.append)]
    assert [item.id for item in found] == [f"{number:02d}.html" for number in range(20)]
    assert sum(told) == sum(one["bytes"] for one in partitions)
    assert list(read_all(reader)) == found


def test_a_mirrored_folder_is_held_to_the_links(tmp_path, links):
    for name in ("example.com/a.html", "example.com/a/index.html", "www.example.com/b/c/index.html",
                 "example.com/index.html", "example.org/a/index.html"):  # fmt: skip
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(html(f"{PROSE} {name}"))
    source = Source("web", "html", (tmp_path / "mirror",), links=(tmp_path / "links.csv",))
    found = {item.id: item for item in everything(source, links=links)}
    assert {id: item.reason for id, item in found.items() if isinstance(item, Dropped)} == {
        "example.com/a.html": "not linked", "example.org/a/index.html": "not linked"
    }  # fmt: skip
    kept = {id: (item.url, item.metadata["link_score"], item.metadata["link_date"])
            for id, item in found.items() if isinstance(item, Document)}  # fmt: skip
    assert kept == {
        "example.com/a/index.html": ("http://example.com/a/index.html", "5", "2017-12-31"),
        "www.example.com/b/c/index.html": ("http://www.example.com/b/c/index.html", "3", "2016-02-03"),
        "example.com/index.html": ("http://example.com/index.html", "4", "2015-01-01"),
    }


def test_a_page_that_vanishes_is_a_drop(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.html").write_bytes(html(PROSE))
    reader = open_source(Source("web", "html", (tmp_path,)))
    (partition,) = reader.partitions()
    (tmp_path / "a.html").unlink()
    first, second = reader.read(partition, lambda _: None)
    assert first == Dropped("a.html", "unreadable file")
    assert isinstance(second, Document)


@pytest.mark.parametrize("mode", ["fast", "precise", "union"])
def test_a_page_is_extracted_as_the_source_says(tmp_path, mode):
    aside = "<nav><a href='/'>home</a> <a href='/b'>more</a></nav>"
    (tmp_path / "a.html").write_bytes(f"<html><body>{aside}<main><p>{PROSE}</p></main></body></html>".encode())
    (found,) = everything(Source("web", "html", (tmp_path,), extract=mode))
    assert isinstance(found, Document)
    assert PROSE in found.text


# ------------------------------------------------------------------------------------------------- hostile pages

BOMBS = {
    "deep": (b"<div>" * 50_000 + b"x", "page nests too deep"),
    "attribute": (
        b"<html><body><p title='" + b"x" * 3_000_000 + b"'>Once. " + PROSE.encode() + b"</p></body></html>",
        None,
    ),
    "attributes": (b"<html><body><p " + b" ".join(b"a%d=1" % i for i in range(50_000)) + b">x</p>", "attributes"),
    "tags": (b"<html><body>" + b"<b>x</b>" * 300_000, "tags"),
    "large": (b"<html><body><p>" + b"word " * 1_100_000, "page too large"),
    "unclosed": (b"<html><body><p>" + PROSE.encode() + b"<a href='" + b"y" * 100_000, None),
    "comment": (b"<html><body><!--" + b"-" * 1_000_000, "no text found"),
    "nothing": (b"", "no text found"),
    "zeros": (b"\0" * 100_000, "no text found"),
    "not utf-8": (b"<html><head><meta charset=utf-8></head><body><p>caf\xff\xfe " + PROSE.encode() + b"</p>", None),
    "nul": (b"<html><body><p>a\0b " + PROSE.encode() + b"</p>", None),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_hostile_page_is_text_or_a_drop_and_soon(tmp_path, bomb):
    page, reason = BOMBS[bomb]
    (tmp_path / "a.html").write_bytes(page)
    start = time.process_time()
    (found,) = everything(Source("web", "html", (tmp_path,)))
    assert time.process_time() - start < 5
    if reason is None:
        assert isinstance(found, Document)
        assert "\0" not in found.text
        found.text.encode()
        assert "river behind the house" in found.text
    else:
        assert isinstance(found, Dropped)
        assert reason in found.reason


def test_no_hostile_page_ends_a_build_nor_costs_its_neighbours(tmp_path, byte_tokenizer):
    (tmp_path / "in").mkdir()
    for name, (page, _) in BOMBS.items():
        (tmp_path / "in" / f"{name}.html").write_bytes(page)
        (tmp_path / "in" / f"{name}-neighbour.html").write_bytes(html(f"{PROSE} {name}"))
    corpus = build(
        BuildConfig(
            (tmp_path / "in",),
            source="html",
            out=tmp_path / "corpus",
            heldout_frac=0,
            tokenizer=byte_tokenizer,
            near_duplicates="off",
            workers=1,
        )
    )
    manifest = read_manifest(corpus)
    dropped = sum(reason is not None for _, reason in BOMBS.values())
    assert "duplicate" not in manifest["dropped"]
    assert sum(about["count"] for about in manifest["dropped"].values()) == dropped
    assert manifest["kept"] == 2 * len(BOMBS) - dropped


# -------------------------------------------------------------------------------------------------- crawl archives


def response(url: str, payload: bytes, kind: str = "text/html") -> bytes:
    """One record as a crawler writes it."""
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload
    header = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <{url}>\r\nWARC-Target-URI: {url}\r\n"
    header += f"WARC-Date: 2017-06-01T12:00:00Z\r\nContent-Type: application/http\r\nContent-Length: {len(http)}\r\n"
    return header.encode() + b"\r\n" + http + b"\r\n\r\n"


def test_an_archive_gives_its_pages_with_address_and_date(tmp_path):
    records = response("https://example.com/a", html(PROSE)) + response(
        "https://example.com/b", PROSE.encode(), "text/plain"
    )
    (tmp_path / "one.warc").write_bytes(records + response("https://example.com/c", b"\x89PNG", "image/png"))
    first, second, third = everything(Source("web", "warc", (tmp_path,), license="CC-BY"))
    assert first == Document(
        PROSE, "<https://example.com/a>", "web", "https://example.com/a", "2017-06-01T12:00:00Z",
        {"path": "one.warc", "encoding": "utf-8", "license": "CC-BY"},
    )  # fmt: skip
    assert isinstance(second, Document)
    assert second.text == PROSE
    assert third == Dropped("<https://example.com/c>", "not HTML or text")


def test_plain_text_is_read_in_the_charset_its_server_declared(tmp_path):
    records = response("https://example.com/a", "déjà vu".encode("latin-1"), "text/plain; charset=iso-8859-1")
    (tmp_path / "one.warc").write_bytes(records)
    (found,) = everything(Source("web", "warc", (tmp_path,)))
    assert isinstance(found, Document)
    assert found.text == "déjà vu"


def test_a_wet_archive_gives_its_text(tmp_path):
    text = f"{PROSE}\r\nAnd more.".encode()
    header = (
        "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:a>\r\nWARC-Target-URI: https://example.com/a\r\n"
    )
    header += f"WARC-Date: 2017-06-01T12:00:00Z\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
    (tmp_path / "one.wet.gz").write_bytes(gzip.compress(header.encode() + text + b"\r\n\r\n", mtime=0))
    (found,) = everything(Source("web", "warc", (tmp_path,)))
    assert isinstance(found, Document)
    assert found.text == f"{PROSE}\nAnd more."
    assert found.url == "https://example.com/a"


def test_an_archive_is_held_to_the_links_before_anything_is_extracted(tmp_path, links, monkeypatch):
    urls = ["https://www.example.com/a/#top", "https://example.com/b/c?utm_source=x", "https://example.com/z", "no url"]
    (tmp_path / "one.warc").write_bytes(b"".join(response(url, html(PROSE)) for url in urls))
    extracted: list[str] = []
    extract = pages.extract
    monkeypatch.setattr(pages, "extract", lambda page, **how: extracted.append("") or extract(page, **how))
    found = everything(Source("web", "warc", (tmp_path,), links=(Path("links.csv"),)), links=links)
    assert [type(item) for item in found] == [Document, Document, Dropped, Dropped]
    assert [item.reason for item in found if isinstance(item, Dropped)] == [
        "not linked", "document without a web address"
    ]  # fmt: skip
    assert len(extracted) == 2


def test_other_links_in_the_same_place_are_read_anew(tmp_path, links):
    (tmp_path / "one.warc").write_bytes(response("https://example.com/a", html(PROSE)))
    source = Source("web", "warc", (tmp_path / "one.warc",), links=(Path("links.csv"),))
    (before,) = everything(source, links=links)
    assert isinstance(before, Document)
    read_links([tmp_path / "links.csv"], LinkRules(min_score=6)).save(Path(links))
    (after,) = everything(source, links=links)
    assert after == Dropped("<https://example.com/a>", "not linked")


def test_what_is_damaged_in_an_archive_is_a_drop_and_the_rest_is_read(tmp_path):
    records = [gzip.compress(response(f"https://example.com/{i}", html(f"{PROSE} {i}")), mtime=0) for i in range(5)]
    records[1] = records[1][:-30]
    records[3] = records[3][:40] + bytes(40) + records[3][80:]
    (tmp_path / "one.warc.gz").write_bytes(b"".join(records))
    found = everything(Source("web", "warc", (tmp_path,)))
    assert [item.text[-1] for item in found if isinstance(item, Document)] == ["0", "2", "4"]
    assert {item.reason for item in found if isinstance(item, Dropped)} == {"record damaged"}


def test_a_page_of_an_archive_that_is_too_large_is_a_drop(tmp_path):
    (tmp_path / "one.warc").write_bytes(
        response("https://example.com/a", BOMBS["large"][0]) + response("https://example.com/b", html(PROSE))
    )
    first, second = everything(Source("web", "warc", (tmp_path,)))
    assert first == Dropped("<https://example.com/a>", "page too large")
    assert isinstance(second, Document)


def test_a_file_that_is_no_archive_is_said(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"%PDF-1.4 and so on")
    with pytest.raises(UserError, match=r"a.warc is no WARC file"):
        open_source(Source("web", "warc", (tmp_path,))).partitions()


def test_the_progress_of_an_archive_adds_up(tmp_path):
    page = warc.Page("a", "https://example.com/a", "2017-01-01T00:00:00Z", html(PROSE))
    warc.write(tmp_path / "one.warc.gz", [page] * 30)
    reader = open_source(Source("web", "warc", (tmp_path,)))
    (partition,) = reader.partitions()
    told: list[float] = []
    found = list(reader.read(partition, told.append))
    assert sum(told) <= partition["bytes"] == (tmp_path / "one.warc.gz").stat().st_size
    assert sum(told) > 0.9 * partition["bytes"]
    assert len({item.id for item in found}) == 31  # one id twice gets a number
