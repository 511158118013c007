"""Corpora of a few documents: which of several copies stays, and what strangers may put into their files."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rein import config as settings
from rein.errors import UserError
from rein.text import tables, warc
from rein.text.mixture import order_of
from rein.text.recipe import Decontamination, NearDuplicates, Recipe, Source
from rein.text.shards import Shards, read_manifest

sys.path.insert(0, str(Path(__file__).parent))
from corpora import changed, dropped_of, kept_of, made, page, prose, write_jsonl

# --------------------------------------------------------------------------------------------------- which copy stays


def small(tmp_path: Path, tokenizer: Path, *sources_of: Source, **changes: object) -> Path:
    """A corpus of a few documents, none held out."""
    recipe = Recipe(sources_of, heldout_frac=0.0, tokenizer=tokenizer, keep_dropped=True)
    return made(settings.replace(recipe, **changes), tmp_path / "corpus", tmp_path)


def jsonl_source(tmp_path: Path, name: str, rows: list[object], **changes: object) -> Source:
    path = tmp_path / f"{name}.jsonl"
    lines = [json.dumps({"text": row} if isinstance(row, str) else row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return settings.replace(Source(name, "jsonl", (path,)), **changes)


def ids(documents) -> list[str]:
    return [document.id for document in documents]


@pytest.mark.parametrize("prefer", [(), ("a", "b", "c"), ("c",), ("b", "c"), ("c", "b", "a")])
def test_of_exact_copies_that_of_the_preferred_source_stays(tmp_path, byte_tokenizer, prefer):
    rows = {"a": [prose(1), prose(2)], "b": [prose(3), prose(2), prose(1)], "c": [prose(1), prose(3), prose(1)]}
    corpus = small(
        tmp_path,
        byte_tokenizer,
        *(jsonl_source(tmp_path, name, texts) for name, texts in rows.items()),
        near_duplicates=NearDuplicates(prefer=prefer),
    )
    order = [*prefer, *(name for name in "abc" if name not in prefer)]
    expected: dict[str, str] = {}
    for name in order:
        for number, text in enumerate(rows[name], start=1):
            expected.setdefault(text, f"{name}.jsonl:{number}")
    assert sorted(ids(kept_of(corpus))) == sorted(expected.values())
    assert {document.metadata["dropped"] for document in dropped_of(corpus)} == {"duplicate"}


@pytest.mark.parametrize("mode", ["shingles", "gpt3"])
@pytest.mark.parametrize(("prefer", "stays"), [((), "a.jsonl:1"), (("b",), "b.jsonl:1")])
def test_of_near_copies_that_of_the_preferred_source_stays(tmp_path, byte_tokenizer, mode, prefer, stays):
    text = " ".join(f"word{i}" for i in range(100))
    near = text.replace("word50", "other")
    corpus = small(
        tmp_path,
        byte_tokenizer,
        jsonl_source(tmp_path, "a", [text, "something else altogether, of a few words"]),
        jsonl_source(tmp_path, "b", [near]),
        near_duplicates=NearDuplicates(mode, prefer=prefer),
    )
    assert ids(kept_of(corpus)) == sorted([stays, "a.jsonl:2"])
    (gone,) = dropped_of(corpus)
    assert gone.metadata["dropped"] == "near-duplicate"


def test_without_the_setting_near_copies_stay(tmp_path, byte_tokenizer):
    source = jsonl_source(tmp_path, "a", [prose(1), changed(prose(1)), prose(1)])
    corpus = small(tmp_path, byte_tokenizer, source)
    assert ids(kept_of(corpus)) == ["a.jsonl:1", "a.jsonl:2"]


def test_a_chain_of_near_copies_leaves_one_or_what_is_near_none(tmp_path, byte_tokenizer):
    words = [f"word{i}" for i in range(100)]
    middle, end = words.copy(), words.copy()
    middle[20] = end[20] = "x"
    end[60] = "y"  # 0.9 between neighbours, 0.81 between the ends
    texts = [" ".join(words), " ".join(middle), " ".join(end)]
    kept = {}
    for rule in ("component", "greedy"):
        (tmp_path / rule).mkdir()
        rules = NearDuplicates(threshold=0.85, keep=rule)
        source = jsonl_source(tmp_path / rule, "a", texts)
        kept[rule] = ids(kept_of(small(tmp_path / rule, byte_tokenizer, source, near_duplicates=rules)))
    assert kept == {"component": ["a.jsonl:1"], "greedy": ["a.jsonl:1", "a.jsonl:3"]}


def test_of_documents_of_one_source_with_one_id_the_first_stays(tmp_path, byte_tokenizer):
    rows = [{"text": f"a {i}", "id": str(i // 2)} for i in range(6)]
    corpus = small(
        tmp_path,
        byte_tokenizer,
        jsonl_source(tmp_path, "a", rows, id_field="id"),
        jsonl_source(tmp_path, "b", [{"text": "b", "id": "1"}], id_field="id"),
        near_duplicates=NearDuplicates(prefer=("b",)),
    )
    assert [document.text for document in kept_of(corpus)] == ["a 0", "a 2", "a 4", "b"]
    assert {document.metadata["dropped"] for document in dropped_of(corpus)} == {"duplicate id"}


def test_limits_hold_for_their_source_alone(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 100)
    monkeypatch.setattr(tables, "_READ_BYTES", 16)
    texts = [f"text {i:03d}" for i in range(50)]
    corpus = small(
        tmp_path,
        byte_tokenizer,
        jsonl_source(tmp_path, "a", ["", *texts], max_documents=7),
        jsonl_source(tmp_path, "b", [text.upper() for text in texts], max_mb=0.000_1),
        jsonl_source(tmp_path, "c", [text + "!" for text in texts], min_chars=9, max_chars=9),
    )
    by_source = {name: [d.text for d in kept_of(corpus) if d.source == name] for name in "abc"}
    assert by_source["a"] == texts[:7]
    assert by_source["b"] == [text.upper() for text in texts[:13]]  # 8 bytes each: the limit is reached, then it ends
    assert by_source["c"] == [text + "!" for text in texts]


def test_epochs_reach_the_manifest(tmp_path, byte_tokenizer):
    corpus = small(
        tmp_path,
        byte_tokenizer,
        jsonl_source(tmp_path, "a", ["a" * 99], epochs=3.0),
        jsonl_source(tmp_path, "b", ["b" * 199], epochs=0.5),
    )
    assert read_manifest(corpus)["mixture"] == [
        {"source": "a", "tokens": 100, "documents": 1, "weight": None, "epochs": 3.0},
        {"source": "b", "tokens": 200, "documents": 1, "weight": None, "epochs": 0.5},
    ]


# ------------------------------------------------------------------------------------------ what strangers may write


def test_rows_that_cannot_be_documents_are_dropped_and_the_others_stay(tmp_path, byte_tokenizer):
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "good"}', b'{"text": "bad \xff\xfe"}', b'{"text": "a\\u0000b"}', b'{"text": "\\ud800"}',
        b"[" * 100_000, b'{"text": 7}', b'{"text": null}', b'{"other": "x"}', b'["text"]', b'"text"', b"{oops", b"",
        b'{"text": "  \\n "}', b'{"text": "' + b"x" * 200_000 + b'"}', b'{"text": "last"}',
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    corpus = small(tmp_path, byte_tokenizer, Source("a", "jsonl", (path,)))
    assert [document.text[:9] for document in kept_of(corpus)] == ["good", "xxxxxxxxx", "last"]
    assert {reason: about["count"] for reason, about in read_manifest(corpus)["dropped"].items()} == {
        "not JSON": 3, "NUL character": 1, "lone surrogate": 1, "no text in the field": 3, "not a JSON object": 2,
        "empty line": 1, "empty": 1,
    }  # fmt: skip
    assert sum(map(len, Shards(corpus, "train").iter_documents())) == 4 + 200_000 + 4 + 3


@pytest.mark.parametrize("near", [None, NearDuplicates(), NearDuplicates("gpt3")], ids=["exact", "shingles", "gpt3"])
def test_lines_of_200_000_characters_go_through_every_stage(tmp_path, byte_tokenizer, near):
    long = ["a" * 200_000, "ab " * 70_000, "\n" * 200_000 + "x", "é" * 200_000, prose(1, 40_000)]
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": prose(2, 20)}) + "\n")
    corpus = small(
        tmp_path,
        byte_tokenizer,
        jsonl_source(tmp_path, "a", [*long, "short"]),
        near_duplicates=near,
        decontamination=Decontamination((tmp_path / "test.jsonl",)),
    )
    assert [document.text for document in kept_of(corpus)] == [*long, "short"]


@pytest.mark.parametrize("field", ["id", "url", "date"])
def test_a_field_with_half_a_character_ends_no_build(tmp_path, byte_tokenizer, field):
    rows = [{"text": "odd", "id": "a", field: "\ud800"}, {"text": "good", "id": "b"}]
    corpus = small(tmp_path, byte_tokenizer, jsonl_source(tmp_path, "a", rows, id_field="id"))
    assert "good" in [document.text for document in kept_of(corpus)]


@pytest.mark.parametrize(("kind", "end"), [("folder", b".txt"), ("html", b".html")])
def test_a_file_name_that_is_not_utf8_ends_no_build(tmp_path, byte_tokenizer, kind, end):
    folder = tmp_path / "in"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/caf\xe9" + end, "wb") as file:
        file.write(b"<html><body><p>coffee in the morning</p></body></html>")
    with open(os.fsencode(folder) + b"/tea" + end, "wb") as file:
        file.write(b"<html><body><p>tea in the evening</p></body></html>")
    corpus = small(tmp_path, byte_tokenizer, Source("a", kind, (folder,)))
    assert any("tea" in document.text for document in kept_of(corpus))


def test_a_source_without_documents_stands_beside_a_good_one(tmp_path, byte_tokenizer):
    for name in ("nothing.jsonl", "nothing.warc", "nothing.warc.gz"):
        (tmp_path / name).touch()
    for name in ("pages", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": prose(2, 20)}) + "\n")
    corpus = small(
        tmp_path,
        byte_tokenizer,
        Source("rows", "jsonl", (tmp_path / "nothing.jsonl",), weight=1.0),
        Source("crawl", "warc", (tmp_path / "nothing.warc", tmp_path / "nothing.warc.gz"), weight=1.0),
        Source("pages", "html", (tmp_path / "pages",), weight=1.0),
        Source("notes", "folder", (tmp_path / "notes",), weight=1.0),
        jsonl_source(tmp_path, "good", [prose(1), prose(2)], weight=1.0),
        near_duplicates=NearDuplicates(),
        decontamination=Decontamination((tmp_path / "test.jsonl",)),
    )
    manifest = read_manifest(corpus)
    assert [about["source"] for about in manifest["mixture"]] == ["good"]
    assert order_of(manifest, 16, 0).starts(0, 1).shape == (1,)


@pytest.mark.parametrize(("kind", "name"), [("jsonl", "jsonl"), ("warc", "warc"), ("parquet", "parquet")])
def test_a_folder_without_such_files_is_said(tmp_path, byte_tokenizer, kind, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.md").write_text("nothing")
    with pytest.raises(UserError, match=f"holds no file named .*{name}"):
        small(tmp_path, byte_tokenizer, Source("a", kind, (tmp_path / "in",)))


def test_a_corpus_of_nothing_says_why(tmp_path, byte_tokenizer):
    with pytest.raises(UserError, match=r"1 items were read, and none can be used \(1 empty\)"):
        small(tmp_path, byte_tokenizer, jsonl_source(tmp_path, "a", [""]))


def test_a_truncated_archive_of_lines_is_said_and_what_is_read_stays(tmp_path, byte_tokenizer):
    whole = gzip.compress("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(900)).encode(), mtime=0)
    path = tmp_path / "b.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    good = jsonl_source(tmp_path, "a", ["good"])
    with pytest.raises(UserError, match=r"b.jsonl.gz cannot be read to its end") as raised:
        small(tmp_path, byte_tokenizer, good, Source("b", "jsonl", (path,)))
    assert "leave it out" in raised.value.fix
    records = {record.name for record in (tmp_path / "corpus" / "work" / "reading").glob("*.json")}
    assert {name.split("-")[0] for name in records - {"stage.json"}} == {"a"}
    path.write_bytes(whole)
    corpus = small(tmp_path, byte_tokenizer, good, Source("b", "jsonl", (path,)))
    assert len(kept_of(corpus)) == 901


def test_a_truncated_crawl_loses_one_page(tmp_path, byte_tokenizer):
    whole, path = tmp_path / "whole.warc.gz", tmp_path / "half.warc.gz"
    warc.write(whole, [page(i, prose(i)) for i in range(10)])
    path.write_bytes(whole.read_bytes()[:-20])
    corpus = small(tmp_path, byte_tokenizer, Source("a", "warc", (path,)))
    assert [document.text for document in kept_of(corpus)] == [prose(i) for i in range(9)]
    assert read_manifest(corpus)["dropped"]["record damaged"]["count"] == 1


LIMITED = """
import sys
from rein.cli import main
from rein.text import engine
engine.POOL_S = 0
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_in_a_worker_is_said_and_damages_nothing(tmp_path, byte_tokenizer):
    texts = [prose(i, 30) for i in range(20)]
    write_jsonl(tmp_path / "a.jsonl", texts)
    rng = random.Random(0)
    write_jsonl(tmp_path / "b.jsonl", [rng.randbytes(30_000).hex() for _ in range(20)])
    words = ["text", "build", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--source", "jsonl", "--heldout-frac", "0",
             "--near-duplicates", "off", "--tokenizer", byte_tokenizer, "--out", tmp_path / "out"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words), "--workers", "2"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        check=False,
    )
    reading = tmp_path / "out" / "work" / "reading"
    assert f"UserError: No room left while writing {reading / ''}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*.part"))
    records = {path.name: path.stat().st_ino for path in reading.glob("*-*.json")}
    assert len(records) <= 1
    again = [sys.executable, "-m", "rein", *map(str, words), "--workers", "1"]
    subprocess.run(again, check=True, capture_output=True)
    Shards(tmp_path / "out", "train").verify()
    assert len(kept_of(tmp_path / "out")) == 40
