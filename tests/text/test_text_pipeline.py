"""The whole pipeline on a small web: what stays and why the rest goes; the same bytes whoever makes them and however
often it is killed."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rein import config as settings
from rein.text import engine, pages, pipeline, tables, warc
from rein.text.mixture import order_of
from rein.text.order import MixtureOrder
from rein.text.recipe import Decontamination, NearDuplicates, Quality, Recipe, Source
from rein.text.shards import Shards, read_manifest

sys.path.insert(0, str(Path(__file__).parent))
from corpora import JUNK, changed, contents, dropped_of, kept_of, made, page, prose, urn, write_jsonl

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


@pytest.fixture(scope="module")
def corpus(web, tmp_path_factory) -> Path:
    return made(recipe_of(web), tmp_path_factory.mktemp("whole") / "corpus", web)


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

    monkeypatch.setattr(pipeline, "finish", stop)
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
