"""The whole pipeline on a small web: what stays and why the rest goes; the same bytes whoever makes them and however
often it is killed; and what strangers put into their files."""

from __future__ import annotations

import gc
import gzip
import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rein import config as settings
from rein.errors import UserError
from rein.text import engine, pages, pipeline, tables, warc
from rein.text.build import BuildConfig, build
from rein.text.mixture import order_of
from rein.text.order import MixtureOrder
from rein.text.recipe import Decontamination, NearDuplicates, Quality, Recipe, Source
from rein.text.shards import Shards, read_manifest
from rein.text.store import read_documents

_PROSE = (
    "the of and a to in he was that his it had with as for but not at on she they were by which her all would there "
    "said when who river house morning window letter garden winter father children old small light road quiet stone "
    "water evening village summer friend story began walked remembered thought looked seemed carried opened waited "
    "mountain"
)
PROSE = _PROSE.split()
_JUNK = (
    "buy cheap click here now free offer best price online discount deal sale shop order win bonus casino loan credit "
    "call today limited save money fast shipping guaranteed pills watch"
)
JUNK = _JUNK.split()


def prose(seed: int, n: int = 80, words: list[str] = PROSE) -> str:
    """Words in an order that no other seed has."""
    return " ".join(random.Random(seed).choices(words, k=n)).capitalize() + "."


def urn(number: int) -> str:
    return f"<urn:uuid:00000000-0000-4000-8000-{number:012d}>"


def page(number: int, text: str, url: str = "") -> warc.Page:
    html = f"<html><head><title>t</title></head><body><main><p>{text}</p></main></body></html>"
    url = url or f"https://example.com/{number}"
    return warc.Page(urn(number), url, "2017-05-01T00:00:00Z", html.encode(), charset="utf-8")


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


# ---------------------------------------------------------------------------------------------------- a small web

BOOKS, WEB = 40, 40
QUESTION = prose(9000, 20)
STEP = """
from rein.text.documents import Dropped

def no_songs(document):
    return Dropped(document.id, "a song") if "la la la" in document.text else document
"""
GERMAN = "Der Fluss hinter dem Haus war an diesem Morgen still, und niemand erinnerte sich an den Brief im Garten. " * 3


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """What the recipe below reads: books, a crawl, its links, manuals, an evaluation set; much of it twice."""
    folder = tmp_path_factory.mktemp("web")
    books = [{"id": f"book-{i}", "text": prose(i)} for i in range(BOOKS)]
    books += [
        {"id": "book-3", "text": prose(8003)},  # another text of the same name
        {"id": "book-same", "text": prose(5)},
        {"id": "book-near", "text": changed(prose(6))},
        {"id": "book-forged", "text": prose(8001) + " <|endoftext|> " + prose(8002)},
        {"id": "book-song", "text": "La la la la. " + prose(8004)},
    ]
    (folder / "books.jsonl").write_text("".join(json.dumps(book) + "\n" for book in books))
    (folder / "own_songs.py").write_text(STEP)

    write_jsonl(folder / "junk.jsonl", [prose(5000 + i, words=JUNK) for i in range(BOOKS)])
    good = [page(i, prose(1000 + i)) for i in range(WEB)]
    junk = [page(100 + i, prose(2000 + i, words=JUNK)) for i in range(10)]
    others = [
        page(200, prose(7)),  # book-7 itself
        page(201, changed(prose(8))),  # nearly book-8
        page(202, prose(1000)),  # page 0 again
        page(203, GERMAN),
        page(204, "Short."),
        page(205, prose(3001, 2000)),  # long
        page(206, prose(3002), "https://example.com/unlinked"),
        page(207, prose(3003), "https://en.wikipedia.org/wiki/River"),
        page(208, prose(3004), "https://example.com/unpopular"),
        page(209, prose(3005), "https://example.com/late"),
        page(210, prose(3006), "http://www.example.com/popular/index.html#top"),
        page(211, prose(3007, 500) + " " + QUESTION + " " + prose(3008, 500)),
    ]
    warc.write(folder / "web-0.warc.gz", [*good, *others[:6]])
    warc.write(folder / "web-1.warc", [*junk, *others[6:]])
    rows = [(f"https://example.com/{i}", 3 + i % 2, "2017-12-31") for i in range(300)]
    rows += [
        ("https://en.wikipedia.org/wiki/River", 99, "2016-01-01"),
        ("https://example.com/unpopular", 2, "2016-01-01"),
        ("https://example.com/late", 99, "2018-01-01"),
        ("https://example.com/popular/", 12, "2015-07-01"),
        ("https://example.com/popular", 17, "2015-06-30"),
    ]
    (folder / "links.csv").write_text("url,score,date\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))

    (folder / "manuals" / ".git").mkdir(parents=True)
    for i in range(30):
        html = f"<html><body><main><h1>Page {i}</h1><p>{prose(4000 + i)}</p></main></body></html>"
        (folder / "manuals" / f"{i:02d}.html").write_text(html)
    quoting = f"<html><body><main><p>{prose(4100, 60)} {QUESTION} {prose(4101, 200)}</p></main></body></html>"
    (folder / "manuals" / "quoting.html").write_text(quoting)
    (folder / "manuals" / "answer.html").write_text(f"<html><body><main><p>{QUESTION}</p></main></body></html>")
    (folder / "manuals" / "page.css").write_text("p {}")
    (folder / "manuals" / ".git" / "a.html").write_text("<p>hidden")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "test.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "yes"}) + "\n")
    return folder


def changed(text: str) -> str:
    """The text with one of its words replaced: a Jaccard similarity of about 0.88 between their shingles."""
    words = text.split()
    words[40] = "changed"
    return " ".join(words)


def recipe_of(web: Path, tokenizer: Path | None = None, **changes: object) -> Recipe:
    recipe = Recipe(
        (
            Source(
                "web",
                "warc",
                (web / "web-*.warc*",),
                links=(web / "links.csv",),
                languages=("en",),
                min_chars=20,
                max_chars=8000,
                quality=True,
                weight=0.6,
            ),
            Source("manuals", "html", (web / "manuals",), weight=0.2),
            Source("junk", "jsonl", (web / "junk.jsonl",), quality=True, weight=0.1),
            Source(
                "books",
                "jsonl",
                (web / "books.jsonl",),
                id_field="id",
                license="CC0-1.0",
                steps=("own_songs:no_songs",),
                weight=0.4,
            ),
        ),
        quality=Quality(("books",), ("junk",)),
        near_duplicates=NearDuplicates(prefer=("books",)),
        decontamination=Decontamination((web / "evaluation",)),
        heldout_frac=0.1,
        tokenizer=tokenizer,
        n_vocab=None if tokenizer else 300,
        shard_tokens=20_000,
        keep_dropped=True,
    )
    return settings.replace(recipe, **changes)


def made(recipe: Recipe, out: Path, beside: Path, workers: int = 1) -> Path:
    """The corpus of a recipe that lies in the folder `beside`."""
    path = beside / "recipe.json"
    path.write_text(settings.to_json(recipe))
    before = list(sys.path)
    sys.path.insert(0, str(beside))
    try:
        return build(BuildConfig((path,), out=out, workers=workers))
    finally:
        sys.path[:] = before


@pytest.fixture(scope="module")
def corpus(web, tmp_path_factory) -> Path:
    return made(recipe_of(web), tmp_path_factory.mktemp("whole") / "corpus", web)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("build.lock", "config.json")
    }


def kept_of(corpus: Path):
    splits = read_manifest(corpus)["splits"].values()
    return list(read_documents(corpus / "documents" / file["file"] for split in splits for file in split["files"]))


def dropped_of(corpus: Path):
    return list(read_documents(sorted((corpus / "dropped").glob("*.parquet"))))


# ------------------------------------------------------------------------------------------ what stays, what goes

REASONS = {
    urn(200): "duplicate",  # the book is preferred, though the web comes first
    urn(201): "near-duplicate",
    urn(202): "duplicate",  # of page 0, which comes first
    urn(203): "another language",
    urn(204): "too short",
    urn(205): "too long",
    urn(206): "not linked",
    urn(207): "not linked",
    urn(208): "not linked",
    urn(209): "not linked",
    **{urn(100 + i): "low quality" for i in range(10)},
    **{f"junk.jsonl:{i + 1}": "low quality" for i in range(BOOKS)},
    "answer.html": "contaminated: nothing left",
    "page.css": "other file type",
    ".git/a.html": "hidden",
    "book-3": "duplicate id",
    "book-same": "duplicate",
    "book-near": "near-duplicate",
    "book-song": "a song",
}


def test_what_is_dropped_is_there_with_its_reason(corpus):
    reasons = {document.id: document.metadata["dropped"] for document in dropped_of(corpus)}
    crawl = [id for id, reason in reasons.items() if reason == "not a response"]
    assert len(crawl) == 2  # what each archive says of itself
    short = [id for id, reason in reasons.items() if reason == "contaminated: piece too short"]
    assert len(short) == 1
    assert {id: reason for id, reason in reasons.items() if id not in (*crawl, *short)} == REASONS
    counts = {reason: about["count"] for reason, about in read_manifest(corpus)["dropped"].items()}
    assert counts == Counter(reasons.values())


def test_rows_of_links_are_no_documents(corpus):
    manifest = read_manifest(corpus)
    assert manifest["items"] == len(kept_of(corpus)) + len(dropped_of(corpus))


def test_what_is_dropped_keeps_its_text_where_it_had_one(corpus):
    texts = {document.id: document.text for document in dropped_of(corpus)}
    assert texts[urn(200)] == prose(7)
    assert texts[urn(203)] == GERMAN.strip()
    assert texts["book-3"] == prose(8003)
    assert texts["book-near"] == changed(prose(6))
    assert texts["page.css"] == ""


def test_everything_else_is_kept_once_with_its_own_text(corpus):
    kept = {document.id: document for document in kept_of(corpus)}
    assert len(kept) == read_manifest(corpus)["kept"]
    whole = {id: document for id, document in kept.items() if "[" not in id}
    expected = {f"book-{i}": prose(i) for i in range(BOOKS)}
    expected["book-forged"] = prose(8001) + " <|endoftext|> " + prose(8002)
    assert {id: document.text for id, document in whole.items() if document.source == "books"} == expected
    pages = {urn(i): prose(1000 + i) for i in range(WEB)} | {urn(210): prose(3006)}
    web = {id: document.text for id, document in whole.items() if document.source == "web"}
    assert web.items() <= pages.items()
    assert len(web) > 30  # the classifier's draw takes some good ones
    dropped = {document.id for document in dropped_of(corpus)}
    assert pages.keys() - web.keys() <= dropped | REASONS.keys()
    manuals = {id for id, document in whole.items() if document.source == "manuals"}
    assert manuals == {f"{i:02d}.html" for i in range(30)}


def test_what_an_evaluation_set_has_too_is_cut_out(corpus):
    pieces = {document.id: document.text for document in kept_of(corpus) if "[" in document.id}
    text = f"{prose(4100, 60)} {QUESTION} {prose(4101, 200)}"
    at = text.index(QUESTION)
    end = at + len(QUESTION) - 1 + 200  # a window behind the last word, whose full stop is in it
    assert 200 < at < 200 + 200  # so what is left before the window is too short to stay
    short = [document for document in dropped_of(corpus) if document.id == f"quoting.html[0:{at - 200}]"]
    assert [document.metadata["dropped"] for document in short] == ["contaminated: piece too short"]
    manual = {id: piece for id, piece in pieces.items() if id.startswith("quoting.html")}
    assert manual == {f"quoting.html[{end}:{len(text)}]": text[end:]}
    long = f"{prose(3007, 500)} {QUESTION} {prose(3008, 500)}"
    at, end = long.index(QUESTION), long.index(QUESTION) + len(QUESTION) - 1 + 200
    page = {id: piece for id, piece in pieces.items() if id.startswith(urn(211))}
    assert page == {f"{urn(211)}[0:{at - 200}]": long[: at - 200], f"{urn(211)}[{end}:{len(long)}]": long[end:]}
    for document in kept_of(corpus):
        assert QUESTION[10:60] not in document.text


def test_documents_know_where_they_are_from(corpus):
    kept = {document.id: document for document in kept_of(corpus)}
    page = kept[urn(210)]
    assert (page.url, page.date) == ("http://www.example.com/popular/index.html#top", "2017-05-01T00:00:00Z")
    assert page.metadata.items() >= {
        "link_score": "17", "link_date": "2015-06-30", "language": "en", "path": "web-1.warc", "encoding": "utf-8"
    }.items()  # fmt: skip
    assert 0 <= float(page.metadata["quality"]) <= 1
    book = kept["book-1"]
    assert book.metadata["license"] == "CC0-1.0"
    assert "quality" not in book.metadata
    assert "language" not in book.metadata


def test_counts_add_up_in_every_stage(corpus):
    report = json.loads((corpus / "report.json").read_text())
    manifest = read_manifest(corpus)
    for step in report["steps"]:
        assert step["items"] == step["documents"] + sum(about["count"] for about in step["dropped"].values()), step
    by = {(step["stage"], step["source"]): step for step in report["steps"]}
    assert set(by) == {
        ("links", "web"), ("read", "web"), ("read", "manuals"), ("read", "junk"), ("read", "books"),
        ("quality", "web"), ("quality", "junk"),
        *(("duplicates and overlaps", source) for source in ("web", "manuals", "books")),
    }  # fmt: skip  # of the junk, nothing is left by then
    assert by["quality", "junk"]["documents"] == 0
    assert by["read", "web"]["items"] == WEB + 10 + 12 + 2
    assert by["read", "manuals"]["items"] == 34
    assert by["read", "books"]["items"] == BOOKS + 5
    for source in ("web", "junk"):
        assert by["quality", source]["items"] == by["read", source]["documents"]
    pieces = {"web": 1, "manuals": 1, "books": 0}  # more items than documents: what was cut in two
    for source, more in pieces.items():
        before = by.get(("quality", source), by["read", source])
        assert by["duplicates and overlaps", source]["items"] == before["documents"] + more
    last = [step for step in report["steps"] if step["stage"] == "duplicates and overlaps"]
    assert sum(step["documents"] for step in last) == manifest["kept"] == len(kept_of(corpus))
    assert manifest["items"] == manifest["kept"] + sum(about["count"] for about in manifest["dropped"].values())
    assert manifest["kept"] == sum(split["documents"] for split in manifest["splits"].values())


def test_tokens_are_those_of_the_documents_and_no_text_can_forge_their_end(corpus):
    from rein.bpe.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(corpus)
    documents = iter(kept_of(corpus))
    for split in ("train", "heldout"):
        shards = Shards(corpus, split)
        shards.verify()
        for ids in shards.iter_documents():
            assert tokenizer.decode(ids[:-1]) == next(documents).text
            assert (ids == shards.eot_id).tolist() == [False] * (len(ids) - 1) + [True]
    assert next(documents, None) is None
    assert any("<|endoftext|>" in document.text for document in kept_of(corpus))
    assert len(list(corpus.glob("train-*.bin"))) > 1


def test_weights_decide_in_which_order_training_reads(corpus):
    manifest = read_manifest(corpus)
    assert [(about["source"], about["weight"]) for about in manifest["mixture"]] == [
        ("web", 0.6), ("manuals", 0.2), ("books", 0.4)
    ]  # fmt: skip  # nothing of the junk is left
    assert sum(about["tokens"] for about in manifest["mixture"]) == manifest["splits"]["train"]["tokens"]
    order = order_of(manifest, 16, 0)
    assert isinstance(order, MixtureOrder)
    ends = np.cumsum([about["tokens"] for about in manifest["mixture"]])
    counts = np.bincount(np.searchsorted(ends, order.starts(0, 1200), side="right"), minlength=3)
    assert np.abs(counts - np.array([600, 200, 400])).max() < 2
    train = [document.source for document in kept_of(corpus)][: manifest["splits"]["train"]["documents"]]
    assert train == sorted(train, key=["web", "manuals", "books"].index)  # a source is one range of tokens


def test_the_classifier_is_held_to_both_sides(corpus):
    about = json.loads((corpus / "report.json").read_text())["quality"]
    (junk, web) = about["chosen"]
    assert (junk["source"], web["source"]) == ("junk", "web")
    assert sum(junk["scores"]) == BOOKS
    assert sum(junk["scores"][:25]) == BOOKS
    assert sum(web["scores"][25:]) > 35
    assert sum(web["kept_scores"]) <= sum(web["scores"])


# ------------------------------------------------------------------------------- whoever makes it, the same corpus


def test_two_workers_make_the_same_bytes(web, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "POOL_S", 0.001)  # reading, fingerprints and others; to start workers takes long
    assert contents(made(recipe_of(web), tmp_path / "corpus", web, workers=2)) == contents(corpus)
    gc.collect()


def test_partitions_of_any_size_give_the_same_documents_and_tokens(web, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 3000)
    monkeypatch.setattr(tables, "_READ_BYTES", 256)
    monkeypatch.setattr(pages, "PARTITION_BYTES", 1500)
    other = made(recipe_of(web), tmp_path / "corpus", web)
    one, two = read_manifest(corpus), read_manifest(other)
    assert len(two["splits"]["train"]["files"]) > len(one["splits"]["train"]["files"]) + 5
    assert kept_of(other) == kept_of(corpus)
    for split in ("train", "heldout"):
        assert [list(ids) for ids in Shards(other, split).iter_documents()] == [
            list(ids) for ids in Shards(corpus, split).iter_documents()
        ]
    by_id = {document.id: document for document in dropped_of(corpus)}
    assert {document.id: document for document in dropped_of(other)} == by_id
    assert (corpus / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert {name: one[name] for name in ("items", "kept", "mixture", "origins")} == {
        name: two[name] for name in ("items", "kept", "mixture", "origins")
    }


# Runs the build of argv again and again, each time in a fork of a process that has only imported: it dies in the middle
# of writing a file, before or after the file gets its name.
KILLED_AGAIN_AND_AGAIN = """
import os, random, signal, sys
from pathlib import Path
from rein.text import build, pages, tables  # and all they import, once
from rein.text.language import keep_language
sys.path.insert(0, sys.argv[3])
rng, seen, hit, deaths = random.Random(0), set(), set(), 0
log = Path(sys.argv[4])
while True:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        new, most, replace = [], rng.randint(10, 40), os.replace

        def deadly(source, target):
            name = str(target)
            if name not in seen:
                new.append(name)
                stage = os.path.dirname(name)
                with log.open("a") as file:
                    file.write(name + "\\n")
                if stage not in hit or len(new) == most:
                    if rng.random() < 0.5:
                        replace(source, target)
                    os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = deadly
        build.build(build.BuildConfig((Path(sys.argv[1]),), out=Path(sys.argv[2]), workers=1))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != -signal.SIGKILL:
        break
    deaths += 1
    rng.random(), rng.randint(10, 40)
    names = log.read_text().split("\\n")[:-1]
    seen.update(names)
    hit.add(os.path.dirname(names[-1]))
print(code, deaths)
print(*sorted({os.path.basename(folder) for folder in hit}), sep=" ")
"""
_STAGES = (
    "reading-links reading learning-quality choosing-by-quality fingerprints exact-duplicates duplicate-ids "
    "candidate-pairs verifying-pairs near-duplicates evaluation-sets counting-overlaps assembling "
    "learning-a-vocabulary tokenising packing work corpus"
)
STAGES = _STAGES.split()


def test_killed_in_every_stage_and_resumed_it_gives_the_same_bytes(web, corpus, tmp_path):
    (web / "recipe.json").write_text(settings.to_json(recipe_of(web)))
    words = [web / "recipe.json", tmp_path / "corpus", web, tmp_path / "log"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, *words], capture_output=True, text=True, check=True
    )
    first, stages = done.stdout.splitlines()
    code, deaths = map(int, first.split())
    assert code == 0
    assert deaths >= len(STAGES)
    assert set(STAGES) == set(stages.split())
    assert contents(tmp_path / "corpus") == contents(corpus)
    assert {path.name for path in (tmp_path / "corpus").iterdir()} == {path.name for path in corpus.iterdir()}


def test_a_changed_setting_does_only_later_stages_again(web, tmp_path, monkeypatch):
    out = tmp_path / "corpus"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def records(**changes: object) -> dict[str, set[tuple[int, int]]]:
        with pytest.raises(KeyboardInterrupt):
            made(recipe_of(web, **changes), out, web)
        return {
            folder.name: {(path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.json")}
            for folder in (out / "work").iterdir()
            if folder.is_dir()
        }

    monkeypatch.setattr(pipeline, "_finish", stop)
    before = records()
    assert set(before) == set(STAGES) - {"work", "corpus"}
    assert records() == before
    order = ["shard_tokens", "heldout_frac", "decontamination", "near_duplicates", "quality"]
    changes: dict[str, object] = {
        "shard_tokens": 5_000,
        "heldout_frac": 0.2,
        "decontamination": Decontamination((web / "evaluation",), n=14),
        "near_duplicates": NearDuplicates(threshold=0.7, prefer=("books",)),
        "quality": Quality(("books",), ("junk",), alpha=8.0),
    }
    first_again = ["packing", "assembling", "evaluation-sets", "verifying-pairs", "choosing-by-quality"]
    done: dict[str, object] = {}
    for name, stage in zip(order, first_again, strict=True):
        done[name] = changes[name]
        after = records(**done)
        at = STAGES.index(stage)
        assert {one: after[one] == before[one] for one in after} == {one: STAGES.index(one) < at for one in after}, name
        before = after
    monkeypatch.undo()
    resumed, fresh = (
        made(recipe_of(web, **done), out, web),
        made(recipe_of(web, **done), tmp_path / "f" / "corpus", web),
    )
    assert contents(resumed) == contents(fresh)


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
    assert f"UserError: No room left while writing {tmp_path}/out/work/reading/" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*.part"))
    records = {path.name: path.stat().st_ino for path in (tmp_path / "out" / "work" / "reading").glob("*-*.json")}
    assert len(records) <= 1
    again = [sys.executable, "-m", "rein", *map(str, words), "--workers", "1"]
    subprocess.run(again, check=True, capture_output=True)
    Shards(tmp_path / "out", "train").verify()
    assert len(kept_of(tmp_path / "out")) == 40
