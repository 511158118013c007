"""WebText's rules on links: which pages stay, under which address, and what every other row is counted as."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.text.documents import Document, Dropped
from rein.text.links import LinkRules, Links, canonical_url, day_of, gather_links, keep_linked, read_links, score_of

URL = "https://news.example/story"


def links_of(*rows, rules=None):
    return gather_links(rows, rules or LinkRules())


# ----------------------------------------------------------------------------------------------------- the rule


def test_a_page_needs_three_votes():
    assert links_of((URL, 3, "2016-01-01")).select(URL) == (3, "2016-01-01")
    links = links_of((URL, 2, "2016-01-01"))
    assert links.select(URL) is None
    assert links.dropped == {"score too low": 1}


@pytest.mark.parametrize("day", ["2017-12-31", "2017-12-31T23:59:59Z", "1514764799", 1514764799])
def test_the_last_day_counts(day):
    assert links_of((URL, 3, day)).select(URL) == (3, "2017-12-31")


@pytest.mark.parametrize("day", ["2018-01-01", "2018-01-01T00:00:00+00:00", "2017-12-31T23:00:00-02:00", 1514764800])
def test_the_day_after_does_not(day):
    assert links_of((URL, 3, day)).dropped == {"linked too late": 1}


@pytest.mark.parametrize(
    "host",
    [
        "wikipedia.org",
        "en.wikipedia.org",
        "en.m.wikipedia.org",
        "WWW.Wikipedia.ORG",
        "wikipedia.org.",
        "Ｗikipedia.org",
    ],
)
def test_wikipedia_is_left_out_with_every_host_below_it(host):
    assert links_of((f"http://{host}/wiki/Dog", 99, "2015-05-05")).dropped == {"excluded host": 1}


@pytest.mark.parametrize(
    "url",
    [
        "http://wikipedia.org.example.com/",
        "http://notwikipedia.org/",
        "http://example.com/wikipedia.org",
        "http://example.com/?from=en.wikipedia.org",
        "http://wikipedia.org@example.com/",
        "http://wikipedia.com/",
    ],
)
def test_hosts_that_only_look_like_wikipedia_stay(url):
    assert len(links_of((url, 3, "2015-05-05"))) == 1


def test_a_page_linked_several_times_is_one_with_its_highest_score_and_first_day():
    links = links_of(
        ("http://www.a.example/x/", 5, "2012-03-04"),
        ("https://a.example/x?utm_source=reddit", 50, "2014-01-01"),
        ("https://a.example/x#comments", 4, "2011-11-11"),
        ("https://a.example/x", 2, "2009-01-01"),  # not voted for, so its day does not count
        ("https://a.example/x", 900, "2019-01-01"),  # too late, so its score does not
        ("https://b.example", 3, "2010-10-10"),
    )
    assert links.select("http://a.example/x") == (50, "2011-11-11")
    assert links.select("b.example") is None
    assert links.select("http://b.example/") == (3, "2010-10-10")
    assert links.dropped == {"page linked before": 2, "score too low": 1, "linked too late": 1}
    assert links.rows == len(links) + sum(links.dropped.values()) == 6


def test_every_threshold_can_be_moved():
    rules = LinkRules(min_score=10, until="2018-10-31", exclude_hosts=("example.com", "example.org"))
    links = links_of(
        ("http://a.test.net", 10, "2018-10-31"),
        ("http://b.test.net", 9, "2018-10-31"),
        ("http://c.test.net", 10, "2018-11-01"),
        ("http://d.example.org", 10, "2018-10-31"),
        ("http://en.wikipedia.org", 10, "2018-10-31"),
        rules=rules,
    )
    assert len(links) == 2
    assert links.dropped == {"score too low": 1, "linked too late": 1, "excluded host": 1}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"until": "December 2017"}, "until is 'December 2017', but it must be a day"),
        ({"exclude_hosts": ("https://wikipedia.org",)}, "must be a host name"),
        ({"exclude_hosts": ("www.wikipedia.org",)}, "must be a host name"),
        ({"exclude_hosts": ("*.wikipedia.org",)}, "must be a host name"),
    ],
)
def test_rules_that_cannot_be(settings_, message):
    with pytest.raises(UserError, match=message):
        LinkRules(**settings_)


# --------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://example.com", "https://example.com"),
        ("HTTPS://EXAMPLE.com/Path", "https://example.com/Path"),
        ("  http://example.com/a  ", "https://example.com/a"),
        ("http://example.com:80/", "https://example.com"),
        ("https://example.com:443/", "https://example.com"),
        ("http://example.com:8080/a", "https://example.com:8080/a"),
        ("http://www.example.com./a", "https://example.com/a"),
        ("http://www.com/", "https://www.com"),
        ("http://m.example.com/a", "https://m.example.com/a"),
        ("http://user:secret@example.com/a", "https://example.com/a"),
        ("http://example.com/a#part", "https://example.com/a"),
        ("http://example.com/a/", "https://example.com/a"),
        ("http://example.com/a//", "https://example.com/a"),
        ("http://example.com/a//b", "https://example.com/a//b"),
        ("http://example.com/a/index.html", "https://example.com/a"),
        ("http://example.com/Default.aspx?id=3", "https://example.com?id=3"),
        ("http://example.com/index.html/more", "https://example.com/index.html/more"),
        ("http://example.com/reindex.html", "https://example.com/reindex.html"),
        ("http://example.com/a/../b/./c", "https://example.com/b/c"),
        ("http://example.com/a/%2E%2e/b", "https://example.com/b"),
        ("http://example.com/../../b", "https://example.com/b"),
        ("http://example.com/%7Ebob/%e2%82%ac", "https://example.com/~bob/%E2%82%AC"),
        ("http://example.com/€ 5", "https://example.com/%E2%82%AC%205"),
        ("http://example.com/a%2fb", "https://example.com/a%2Fb"),
        ("http://example.com/100%", "https://example.com/100%25"),
        ("http://example.com/?", "https://example.com"),
        ("http://example.com/?b=2&a=1&&", "https://example.com?b=2&a=1"),
        ("http://example.com/?utm_source=x&UTM_Medium=y&id=7&fbclid=1&gclid=2", "https://example.com?id=7"),
        ("http://example.com/?automatic=1&gclids=2", "https://example.com?automatic=1&gclids=2"),
        ("http://example.com/?next=http://b.example/?c", "https://example.com?next=http://b.example/%3Fc"),
        ("http://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("http://BÜCHER.example/", "https://xn--bcher-kva.example"),
        ("http://xn--bcher-kva.example/", "https://xn--bcher-kva.example"),
        ("http://127.0.0.1:5000/a", "https://127.0.0.1:5000/a"),
        ("http://[2001:DB8::1]:80/a", "https://[2001:db8::1]/a"),
    ],
)
def test_addresses_of_one_page_are_one(url, canonical):
    assert canonical_url(url) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "self.AskReddit",
        "example.com/page",
        "//example.com/page",
        "http:/example.com",
        "http://",
        "http:///page",
        "http://localhost/page",
        "http://a..b.com/",
        "http://exa mple.com/",
        "http://-%41-.com/",
        "http://example.com:port/",
        "http://example.com:99999/",
        "http://[::1/",
        "http://" + "a" * 64 + ".com/",
        "http://" + "ü" * 64 + ".com/",
        "http://example.com/\ud800",
        "ftp://example.com/file",
        "mailto:someone@example.com",
        "javascript:alert(1)",
        "/r/AskReddit/comments/1",
    ],
)
def test_what_is_no_address_on_the_web(url):
    assert canonical_url(url) is None
    assert links_of((url, 3, "2015-05-05")).dropped == {"no web address": 1}


PIECES = st.sampled_from(
    ["http://", "https://", "www.", "example", ".com", ".", "..", "/", "//", "%", "%2", "%2e", "%7E", "%25", "%zz", "?",
    "&", "index.html", "utm_x=1", "a=b", "=", "#", ":80", ":443", ":8", "@", "é", "ß", "İ", "。", "[", "]", " ", "\t",
    "+", ";", "\\", "\x7f", "\u200d"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.text(max_size=8))
@settings(deadline=None, max_examples=500)
def test_the_canonical_address_of_a_canonical_address_is_itself(pieces, tail):
    for url in ("".join(pieces) + tail, "http://example.com/" + "".join(pieces) + tail, f"http://{tail}.com/"):
        canonical = canonical_url(url)
        if canonical is not None:
            assert canonical.isascii()
            assert canonical_url(canonical) == canonical


# ---------------------------------------------------------------------------------------------- scores and dates


@pytest.mark.parametrize("score", ["", "many", "3.5", None, True, float("nan"), float("inf"), "1e400", 2**31, [3]])
def test_a_score_that_is_no_whole_number_is_counted(score):
    assert links_of((URL, score, "2015-05-05")).dropped == {"score is no whole number": 1}


@given(st.integers(-(2**31) + 1, 2**31 - 1))
@settings(deadline=None)
def test_scores_are_read_from_numbers_and_from_text(score):
    assert score_of(score) == score_of(str(score)) == score_of(f" {score}.0 ") == score_of(float(score)) == score


@pytest.mark.parametrize(
    "day", ["", "soon", "2017-13-01", "2017-02-30", "20171301", None, True, float("nan"), 1e15, "1514764799000", [1]]
)
def test_a_date_that_is_none_is_counted(day):
    assert links_of((URL, 3, day)).dropped == {"date not understood": 1}


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
@settings(deadline=None)
def test_dates_are_days_since_1970_in_every_form(moment):
    day = (moment.date() - date(1970, 1, 1)).days
    seconds = int(moment.timestamp())
    whole = moment.strftime("%Y%m%d")
    for form in (moment, moment.isoformat(), moment.date(), moment.date().isoformat(), whole, seconds, float(seconds)):
        assert day_of(form) == day, form
    if len(str(seconds)) != 8:
        assert day_of(str(seconds)) == day


# ------------------------------------------------------------------------------------------------------- files


ROWS = [
    ("http://a.example/1", "3", "2017-12-31"),
    ("http://a.example/2,with comma", "7", "1400000000"),
    ("http://a.example/3", "2", "2015-01-01"),
    ("http://a.example/4", "3", "2018-01-01"),
    ("http://en.wikipedia.org/wiki/A", "3", "2015-01-01"),
    ("not a url", "3", "2015-01-01"),
    ("http://a.example/5", "x", "2015-01-01"),
    ("http://a.example/6", "3", "x"),
    ("https://www.a.example/1/", "12", "2016-01-01"),
]
EXPECTED_DROPS = {
    "score too low": 1,
    "linked too late": 1,
    "excluded host": 1,
    "no web address": 1,
    "score is no whole number": 1,
    "date not understood": 1,
    "page linked before": 1,
}


def write_dump(path):
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pq.write_table(pa.table(dict(zip(("url", "score", "date"), zip(*ROWS, strict=True), strict=True))), path)
        return path
    if name.endswith(".csv"):
        plain = path.with_name("plain.csv")
        with plain.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("url", "score", "date"), *ROWS])
        data = plain.read_bytes()
    else:
        data = "".join(json.dumps({"date": d, "url": u, "score": s, "by": 1}) + "\n" for u, s, d in ROWS).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name", ["d.csv", "d.csv.gz", "d.csv.zst", "d.jsonl", "D.JSONL", "d.ndjson.gz", "d.jsonl.zst", "d.parquet"]
)
def test_a_dump_reads_the_same_in_every_format(tmp_path, name):
    links = read_links([write_dump(tmp_path / name)], LinkRules())
    assert len(links) == 2
    assert links.select("http://a.example/1") == (12, "2016-01-01")
    assert links.select("http://a.example/2,with%20comma") == (7, "2014-05-13")
    assert links.dropped == EXPECTED_DROPS
    assert links.rows == len(ROWS)


def test_several_files_are_one_dump(tmp_path):
    paths = [write_dump(tmp_path / "d.csv"), write_dump(tmp_path / "d.parquet")]
    links = read_links(paths, LinkRules())
    assert len(links) == 2
    assert links.dropped["page linked before"] == 4
    assert links.rows == 2 * len(ROWS) == len(links) + sum(links.dropped.values())


def test_columns_may_stand_in_any_order_and_numbers_may_be_numbers(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbfid,date,score,url\r\n1,2015-01-01,3,http://a.example\r\n")
    assert read_links([tmp_path / "d.csv"], LinkRules()).select("http://a.example") == (3, "2015-01-01")
    when = [np.datetime64("2017-12-31T23:59:59.123456789"), np.datetime64("2018-01-01T00:00:00.000000001")]
    columns = {"url": ["http://a.example", "http://b.example"], "score": [3.0, 4.0]}
    zoned = pa.array(np.array(when, dtype="M8[ns]")).cast(pa.timestamp("ns", "America/New_York"))
    for dates in (pa.array(np.array(when, dtype="M8[ns]")), zoned):
        pq.write_table(pa.table({**columns, "date": dates}), tmp_path / "d.parquet")
        links = read_links([tmp_path / "d.parquet"], LinkRules())
        assert links.select("http://a.example") == (3, "2017-12-31")
        assert links.dropped == {"linked too late": 1}


def test_rows_that_are_none_are_counted_and_cost_no_other(tmp_path):
    (tmp_path / "d.csv").write_bytes(
        b"url,score,date\nhttp://a.example\nhttp://b.example,3,2015-01-01,more\nhttp://c.example/\xff,3,2015-01-01\n"
        b"\nhttp://d.example,3,2015-01-01\n"
    )
    links = read_links([tmp_path / "d.csv"], LinkRules())
    assert len(links) == 1
    assert links.dropped == {"not a row": 3, "no web address": 1}
    good = json.dumps({"url": "http://d.example", "score": 3, "date": "2015-01-01"})
    (tmp_path / "d.jsonl").write_text(good + '\n\n{"url"\n[1]\n{}\n{"url": 1, "score": 3, "date": 0}\n')
    links = read_links([tmp_path / "d.jsonl"], LinkRules())
    assert len(links) == 1
    assert links.dropped == {"not a row": 3, "score is no whole number": 1, "no web address": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", b"link,score,date\n", "no field 'url'"),
        ("d.csv", b"", "no field 'url'(.|\n)*header line"),
        (
            "d.jsonl",
            b'{"url": "http://a.example", "scores": 3, "date": 0}\n',
            "no field 'score'(.|\n)*Did you mean scores",
        ),
        ("d.parquet", b"PAR", "cannot be read to its end"),
        ("d.csv.gz", gzip.compress(b"url,score,date\n" + b"x" * 100000, mtime=0)[:40], "cannot be read to its end"),
        ("d.txt", b"", "name does not tell its format"),
        ("d.parquet.gz", b"", "name does not tell its format"),
        ("missing.csv", None, "is not a file"),
    ],
)
def test_files_that_cannot_be_read_are_said(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_links([tmp_path / name], LinkRules())


def test_links_come_back_from_a_file_as_they_were(tmp_path):
    links = read_links([write_dump(tmp_path / "d.csv")], LinkRules(exclude_hosts=("wikipedia.org", "example.org")))
    links.save(tmp_path / "links.npz")
    again = Links.load(tmp_path / "links.npz")
    assert again.select("http://a.example/1") == (12, "2016-01-01")
    assert (again.rules, again.rows, again.dropped) == (links.rules, links.rows, links.dropped)
    assert again.pages.tolist() == links.pages.tolist() == sorted(links.pages.tolist())
    empty = links_of()
    empty.save(tmp_path / "empty.npz")
    assert Links.load(tmp_path / "empty.npz").select(URL) is None


@pytest.mark.parametrize("content", [None, b"", b"PK", b"PK\x03\x04", b"no numbers"])
def test_a_file_that_holds_no_links_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / "links.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"does not (exist|hold links)"):
        Links.load(tmp_path / "links.npz")
    np.savez(tmp_path / "links.npz", header=np.frombuffer(b'{"format": "rein-grams"}', dtype=np.uint8))
    with pytest.raises(UserError, match="does not hold links"):
        Links.load(tmp_path / "links.npz")


def test_twenty_thousand_pages_are_each_found_and_no_other_is():
    links = gather_links(((f"http://site{i % 97}.example/{i}", i, i * 70000) for i in range(3, 20_000)), LinkRules())
    assert len(links) == 19_997
    for i in (3, 4, 777, 19_999):
        assert links.select(f"https://www.site{i % 97}.example/{i}/")[0] == i
    assert not any(links.select(f"http://site{i % 97}.example/{i}") for i in range(20_000, 21_000))
    assert (links.pages.nbytes + links.scores.nbytes + links.days.nbytes) / len(links) == 16


# --------------------------------------------------------------------------------------------------- documents


def test_a_document_whose_page_is_linked_says_so():
    links = links_of((URL, 8, "2016-02-03"))
    document = Document("text", "1", "warc", url="http://www.news.example/story/#x", metadata={"language": "en"})
    kept = keep_linked(document, links)
    assert kept.metadata == {"language": "en", "link_score": "8", "link_date": "2016-02-03"}
    assert (kept.text, kept.id, kept.url) == (document.text, document.id, document.url)
    assert document.metadata == {"language": "en"}


def test_other_documents_are_dropped_with_the_reason():
    links = links_of((URL, 8, "2016-02-03"))
    assert keep_linked(Document("text", "1", "warc", url=URL + "/2"), links) == Dropped("1", "not linked")
    for url in ("", "urn:uuid:1"):
        document = Document("text", "2", "warc", url=url)
        assert keep_linked(document, links) == Dropped("2", "document without a web address")
