"""Any bytes give clean text or a reason, in bounded time; two extractions become one without loss or repetition."""

from __future__ import annotations

import multiprocessing
import re
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from rein.text import extract as extract_module
from rein.text import markup
from rein.text.extract import Extracted, Limits, TimeUp, decode, extract, merge, tidy, within

MODES = pytest.mark.parametrize("mode", ["fast", "precise", "union"])

ARTICLE = b"""<!DOCTYPE html><html><head><title>Bees</title></head><body>
<nav><a href="/">Home</a> <a href="/about">About</a></nav>
<article><h1>Bees on the roof</h1>
<p>My neighbour keeps bees on her roof, and every autumn she brings us a jar of honey for the winter.</p>
<p>The hives stand beside the chimney, where the wind is weak and the morning sun arrives before anywhere else.</p>
<table><tr><td>Hives</td><td>4</td></tr></table>
<p>In a good year each of them gives twenty kilograms, most of it from the lime trees along the canal.</p>
</article><footer>All rights reserved</footer></body></html>"""


@MODES
def test_the_article_is_found(mode):
    found = extract(ARTICLE, mode=mode)
    assert isinstance(found, Extracted)
    assert found.encoding == "utf-8"
    at = [found.text.find(part) for part in ("My neighbour keeps", "The hives stand", "In a good year")]
    assert -1 not in at
    assert at == sorted(at)
    assert found.text.count("In a good year") == 1
    assert "<" not in found.text


@MODES
@pytest.mark.parametrize("page", [b"", b"   ", b"<html></html>", b"<!--", b"\0\0\0", b"<script>x</script>", b"<"])
def test_no_text_is_a_reason(mode, page):
    found = extract(page, mode=mode)
    assert found == "no text found" or (page == b"<" and found == Extracted("<", "utf-8"))


# ------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("page", "charset", "text", "encoding"),
    [
        ("é".encode(), None, "é", "utf-8"),
        (b"\xef\xbb\xbf\xc3\xa9", "windows-1251", "é", "utf-8"),  # the byte order mark wins
        ("é".encode("utf-16"), "latin1", "é", "utf-16-le"),
        (b"\xfe\xff" + "é".encode("utf-16-be"), None, "é", "utf-16-be"),
        (b"<meta charset=koi8-r>\xc4\xc1", "windows-1251", "<meta charset=koi8-r>ДБ", "cp1251"),  # then the header
        (b"<meta charset=koi8-r>\xc4\xc1", None, "<meta charset=koi8-r>да", "koi8-r"),
        (b"<meta charset=koi8-r>\xc4\xc1", "no such thing", "<meta charset=koi8-r>да", "koi8-r"),
        (b"<META content=\"text/html; charset = 'Shift_JIS'\">\x93\xfa", None, None, "cp932"),
        (b"<!-- <meta charset=koi8-r> --><meta charset=gb2312>\xc4\xe3", None, None, "gb18030"),
        (b"<meta charset=utf-16>ab", None, "<meta charset=utf-16>ab", "utf-8"),  # it was readable as ASCII
        (b'<?xml version="1.0" encoding="ISO-8859-2"?>\xb1', None, None, "iso8859-2"),
        (b"\x80\x93\xe9", "latin1", "€“é", "cp1252"),
        (b"\x80\x93\xe9", "US-ASCII", "€“é", "cp1252"),
        (b"a\xff\xc3", "utf8", "a\ufffd\ufffd", "utf-8"),
        ("cut in the middle: é".encode()[:-1], None, "cut in the middle: \ufffd", "utf-8"),
        (("Grüße aus größeren Häusern. " * 9).encode("cp1252"), None, "Grüße aus größeren Häusern. " * 9, "cp1252"),
        (("Привет, как дела сегодня? " * 9).encode("koi8-r"), None, "Привет, как дела сегодня? " * 9, "koi8-r"),
        (("今日はいい天気ですね。" * 9).encode("euc-jp"), None, "今日はいい天気ですね。" * 9, "euc_jp"),
    ],
)
def test_the_encoding_of_a_page(page, charset, text, encoding):
    found, name = decode(page, charset)
    assert name == encoding
    if text is None:
        text = page.decode(encoding)
    assert found == text


@given(st.text(st.characters(codec="utf-8")))
def test_utf8_needs_no_declaration(text):
    text = text.removeprefix("\ufeff")
    if "charset" not in text and "encoding" not in text:
        assert decode(text.encode()) == (text, "utf-8")


@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", "gbk", "utf-16", "iso-2022-jp", "x", "euc-kr"]))
@settings(deadline=None)
def test_any_bytes_have_characters(page, charset):
    text, _ = decode(page, charset)
    text.encode()


# ------------------------------------------------------------------------------------------------- what is promised

ELEMENTS = [
    "html",
    "body",
    "div",
    "p",
    "span",
    "b",
    "a",
    "ul",
    "li",
    "table",
    "tr",
    "td",
    "pre",
    "title",
    "script",
    "h1",
]
PIECES = [
    *(f"<{name}>" for name in [*ELEMENTS, "br", "style", "svg"]),
    *(f"</{name}>" for name in ELEMENTS),
    *("<!--", "-->", "<p a='", "'>", "&amp;", "&#0;", "&#xD800;", "&nbsp;", "some words", " ", "\r\n\r\n", "\t", "é"),
    *("\0", "\u2028", "\x85", "<", "&", "A longer sentence, so that extractors think that it is text."),
]
SOUP = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def assert_clean(text):
    assert text
    assert text == text.strip()
    assert not re.search("[\0\r\ud800-\udfff\u2028\x85\v\f]|\n\n\n|[ \t]\n", text)


@MODES
@given(page=SOUP)
@settings(deadline=None, max_examples=60)
def test_text_is_clean_whatever_the_page_is(mode, page):
    found = extract(page.encode(), mode=mode)
    if isinstance(found, Extracted):
        assert_clean(found.text)
    else:
        assert found in ("no text found", "extractor failed")


@given(page=st.binary(max_size=500))
@settings(deadline=None)
def test_bytes_that_are_no_page(page):
    found = extract(page)
    if isinstance(found, Extracted):
        assert_clean(found.text)


@given(st.text(st.sampled_from("ab \n\r\t\0\u2028\x85\ud800\v")))
def test_tidying_twice_changes_nothing(text):
    once = tidy(text)
    assert tidy(once) == once
    if once:
        assert_clean(once)


def test_an_error_of_an_extractor_is_a_reason(monkeypatch):
    class Panic(BaseException):
        """As Rust's panics are."""

    for error, reason in [
        (ValueError, "extractor failed"),
        (RecursionError, "extractor failed"),
        (Panic, "extractor failed"),
        (MemoryError, "out of memory"),
    ]:

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(extract_module, "extract_plain_text", fail)
        assert extract(ARTICLE) == reason
    monkeypatch.setattr(extract_module, "extract_plain_text", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extract(ARTICLE)


# ----------------------------------------------------------------------------------------------------------- bombs

BOMBS = {
    "div": ("<div>" * 900_000, "page nests too deep"),
    "b": ("<b>" * 90_000, "page nests too deep"),
    "unknown ends": ("<div></nothing>" * 90_000, "page nests too deep"),
    "ends that do not reach": ("<span><div></span>" * 90_000, "page nests too deep"),
    "ends out of a table": ("<div><table><tr><td></div>" * 9_000, "page nests too deep"),
    "ends hidden in a script": ("<div><script><!--<script></script></div></script>" * 9_000, "page nests too deep"),
    "ends hidden in a comment": ("<div><!--></div>-->" * 9_000 + "<!-- x --></div>", None),
    "fonts opened again": ("".join(f"<p><font a={i}></p>" for i in range(50_000)), "page nests too deep"),
    "svg": ("<svg>" + "<style><g><g>" * 50_000, "page nests too deep"),
    "tables": ("<table><tr><td>" * 50_000, "page nests too deep"),
    "tags": ("<p>x" * 900_000, "page has too many tags"),
    "breaks": ("x<br>" * 500_000, "page has too many tags"),
    "attributes": ("<p " + " ".join(f"a{i}=1" for i in range(100_000)) + ">", "page has too many attributes"),
    "bodies": ("".join(f"<body a{i}=1>" for i in range(50_000)), "page has too many attributes"),
    "size": ("<" * 10_000_000, "page too large"),
    "less-than": ("<" * 4_900_000, None),
    "one attribute": ("<p title='" + "a" * 4_900_000 + "'>x", None),
    "a quote left open": ("<p>x<p title='" + "<p>" * 1_600_000, None),
    "comments": ("<!--x-->" * 600_000, None),
    "a comment left open": ("<p>x<!--" + "a -- " * 900_000, None),
    "a script left open": ("<p>x<script>" + "<!--<script>" * 300_000, None),
    "entities": ("<p>" + "&amp;" * 900_000, None),
    "a long line": ("<p>" + "word " * 40_000, None),
    "a long word": ("<p>" + "a" * 200_000, None),
    "spaces": ("<p>x" + " " * 4_000_000, None),
    "colspan": ("<p>hello there<table><tr><td colspan=100000000>x<td rowspan=99999999>y</table>", None),
    "declaration": ("<!doctype " + "/" * 4_000_000, None),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_soon(name):
    page, reason = BOMBS[name]
    extract(ARTICLE)
    started = time.perf_counter()
    found = extract(page.encode())
    assert time.perf_counter() - started < 5
    if reason:
        assert found == reason


@pytest.mark.parametrize("name", ["a long line", "a long word", "colspan", "one attribute", "entities", "declaration"])
def test_bombs_end_soon_in_trafilatura_too(name):
    started = time.perf_counter()
    extract(BOMBS[name][0].encode(), mode="precise")
    assert time.perf_counter() - started < 5


def tree_depth(page):
    """How deep resiliparse nests it, which the scan is to foresee."""
    deepest, todo = 0, [(HTMLTree.parse(page).document, 0)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        todo += [(child, depth + 1) for child in node.child_nodes]
    return deepest


NAMES = [*ELEMENTS[2:-3], "i", "font", "dl", "dd", "button", "object", "svg", "g", "style", "script", "select", "x-y"]


@given(
    st.lists(
        st.sampled_from([f"<{n}>" for n in NAMES] + [f"</{n}>" for n in NAMES] + ["x", "<font a=1>", "<!--", "-->"]),
        min_size=1,
        max_size=12,
    ).map("".join)
)
@settings(deadline=None, max_examples=80, derandomize=True, phases=(Phase.explicit, Phase.generate))
@example("<div><p>")
@example("<span><div></span>")
@example("<div><table><tr><td></div>")
@example("<div><script><!--<script></script></div></script>")
@example("<p><font a=1></p>")
@example("<p><div></p>")
@example("<div><tr>")
@example("<b><button>")
@example("<button><object>")
@example("<button><svg>")
@example("<ul></tr><tr>")
@example("<li><ul></li>")
@example("<object><select></object>")
@example("<dd></dl><dl></dd><div>")
@example("<div></script><p><svg><script>")
def test_what_nests_deep_is_foreseen(pattern):
    depth = tree_depth(pattern * 60)
    if depth > 60:
        # Up to three elements that no tag opened stand around each one that a tag did (tbody, tr, a formatting one).
        assert markup.measure((pattern * 60).encode(), depth // 4 - 5, 200_000, 1_000) == markup.TOO_DEEP


@pytest.mark.parametrize(
    "page",
    [
        "<p>unclosed" * 5000,
        "<ul>" + "<li>one<li>two" * 5000,
        "<table>" + "<tr><td>a<td>b<th>c" * 5000,
        "<dl>" + "<dt>a<dd>b" * 5000,
        "<select>" + "<option>a" * 5000,
        "<div><span>left open</div>" * 5000,
        "<p><b>left open</p>" * 5000,
        "<table><tr>" + "<td><font size=2>left open</td>" * 5000,
        "<div><br><img src=a><input></div>" * 5000,
        "<a href=1>one <a href=2>two" * 5000,
        "<script>if (a<b) '<div>'</script>" * 5000,
        "<svg><path/><g/></svg>" * 5000,
        "<!-- <div> -->" * 5000,
        "<textarea><div></textarea>" * 5000,
        "<p title='<div><div>'>x</p>" * 5000,
    ],
)
def test_sloppy_pages_are_not_taken_for_bombs(page):
    limits = Limits()
    assert markup.measure(page.encode(), limits.max_depth, limits.max_tags, limits.max_attributes) is None


def test_limits_are_exact():
    page = b"<div>" * 20 + b"text"
    assert extract(page, limits=Limits(max_depth=20)) != "page nests too deep"
    assert extract(page, limits=Limits(max_depth=19)) == "page nests too deep"
    assert extract(page, limits=Limits(max_tags=20)) != "page has too many tags"
    assert extract(page, limits=Limits(max_tags=19)) == "page has too many tags"
    assert extract(page, limits=Limits(max_bytes=len(page))) != "page too large"
    assert extract(page, limits=Limits(max_bytes=len(page) - 1)) == "page too large"
    page = b"<p a b=1 c='x y' d = \"z>\" e>text</p>"
    assert extract(page, limits=Limits(max_attributes=5)) == Extracted("text", "utf-8")
    assert extract(page, limits=Limits(max_attributes=4)) == "page has too many attributes"


# ------------------------------------------------------------------------------------------------------- time limits


def forever():
    while True:
        try:
            time.sleep(0.001)
        except Exception:  # as libraries do
            continue


def test_time_is_up_in_any_thread():
    outcomes = []

    def run():
        try:
            within(0.1, forever)
        except TimeUp:
            outcomes.append("up")
        outcomes.append(within(5, lambda: "next"))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    run()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["next"] * 5 + ["up"] * 5


def test_time_that_is_up_at_the_end_hits_nothing_later():
    for _ in range(12):
        with suppress(TimeUp):
            within(0.05, lambda: time.sleep(0.05))
        deadline = time.perf_counter() + 0.02
        while time.perf_counter() < deadline:
            pass
    assert not extract_module._clock.deadlines


def test_a_limit_costs_little_and_leaves_one_thread():
    within(1, int)
    before = threading.active_count()
    started = time.perf_counter()
    for _ in range(1000):
        assert within(10, int) == 0
    assert time.perf_counter() - started < 0.5
    assert threading.active_count() == before


def test_a_slow_page_is_a_reason(monkeypatch):
    import trafilatura

    monkeypatch.setattr(trafilatura, "extract", lambda *_, **__: forever())
    assert extract(ARTICLE, mode="precise", limits=Limits(max_s=0.1)) == "extraction took too long"


def slow_in_a_fork(pipe):
    try:
        within(0.1, forever)
    except TimeUp:
        pipe.send("up")


def test_a_fork_has_a_clock_of_its_own():
    within(1, int)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=slow_in_a_fork, args=(there,))
    process.start()
    assert here.poll(10)
    assert here.recv() == "up"
    process.join()


# ------------------------------------------------------------------------------------------------------------ union


def words(text):
    return [word for line in text.split("\n") for word in line.replace("|", " ").split() if word not in "•-"]


def goes_through(part, whole):
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


LINES = st.lists(
    st.sampled_from(["a b c", "d e", "f", "a", "b c", "• d e", "c d e f", "- f", "g h", "| f |", ""]), max_size=9
)


@given(LINES, LINES)
def test_a_union_has_everything_and_nothing_else(a, b):
    first, second = "\n".join(a).strip(), "\n".join(b).strip()
    union = merge(first, second)
    for line in (first + "\n" + second).split("\n"):
        assert goes_through(words(line), words(union)), line
    counts = [Counter(" ".join(words(line)) for line in text.split("\n")) for text in (first, second, union)]
    for line, count in counts[2].items():
        if line:
            assert count <= max(counts[0][line], counts[1][line])
    assert set(union.split("\n")) <= set(first.split("\n")) | set(second.split("\n")) | {""}


@given(LINES, LINES)
def test_lines_that_both_have_in_order_keep_it(a, b):
    first = "\n".join(f"{line} {i}" for i, line in enumerate(a))
    assert merge(first, first) == first.strip()
    assert merge(first, "") == merge("", first) == first.strip()
    numbered = [f"n{i}" for i in range(6)]
    mixed = merge("\n".join([*a, *numbered]), "\n".join([*b, *numbered]))
    assert [line for line in mixed.split("\n") if line in numbered] == numbered


def test_what_one_misses_stands_where_it_was():
    assert merge("Title\nOne\nThree", "Title\nTwo\nThree\nFour").split("\n") == ["Title", "One", "Two", "Three", "Four"]


def test_a_line_broken_differently_is_not_repeated():
    assert merge("Call f to begin.\nEnd", "Call\nf\nto begin.\nEnd") == "Call f to begin.\nEnd"
    assert merge("Call\nf\nto begin.\nEnd", "Call f to begin.\nEnd") == "Call\nf\nto begin.\nEnd"


def test_large_unions_take_linear_time():
    def seconds(n_lines: int) -> float:
        first = "\n".join(f"line {i} of the first" for i in range(n_lines))
        second = "\n".join(f"line {i} of the second" for i in range(n_lines))
        started = time.process_time()
        assert len(merge(first, second).split("\n")) == 2 * n_lines
        merge("a\n" * n_lines, "a b\n" * n_lines)
        return time.process_time() - started

    assert seconds(40_000) < 40 * min(seconds(4_000) for _ in range(3))  # if it were quadratic, 100 times


def test_a_union_of_a_page_has_both():
    fast, precise = extract(ARTICLE), extract(ARTICLE, mode="precise")
    union = extract(ARTICLE, mode="union")
    for part in (fast, precise):
        for line in part.text.split("\n"):
            assert goes_through(words(line), words(union.text)), line
