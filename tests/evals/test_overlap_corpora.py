"""A search through corpora of any form: the same whoever reads them, in how many parts, and when."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from overlap_texts import LONG, OTHER, asked, documents, filler, first_words, of_a_passage

from rein.evals import overlap as overlap_module
from rein.evals.overlap import Example, analyse, analyse_corpora
from rein.text import engine, tables
from rein.text.build import BuildConfig, build


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """200 documents; every 20th holds a part of an example."""
    made = [filler(120, seed) for seed in range(200)]
    for at, text in enumerate(made):
        if at % 20 == 0:
            made[at] = f"{text}\n\n{first_words(LONG if at % 40 else OTHER, 14 + at // 20)}. {text}"
    return made


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Example]]:
    return {"one": [*asked(LONG, OTHER), *asked(filler(30, 7), filler(8, 1000))], "two": [of_a_passage(OTHER)]}


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory, texts) -> Path:
    path = tmp_path_factory.mktemp("jsonl") / "train.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, jsonl) -> Path:
    """The same texts as token shards, none of them held out."""
    from rein.bpe.byte_level import ByteLevelBPE

    folder = tmp_path_factory.mktemp("corpus")
    ByteLevelBPE(()).save(folder / "tokenizer.json")
    config = BuildConfig(
        (jsonl,), source="jsonl", out=folder / "out", heldout_frac=0, tokenizer=folder / "tokenizer.json",
        shard_tokens=20_000,
    )  # fmt: skip
    return build(config)


def facts(found: dict) -> list:
    """All that a result says, ids of documents and their order left out."""
    return [
        (
            task, one.n, one.passage_E.tolist(), one.asked_E.tolist(), one.found_E.tolist(),
            [[(about["gram"], about["documents"]) for about in grams] for _, grams in sorted(one.examples.items())],
            [{**match, "document": ""} for match in one.matches],
        )
        for task, one in found.items()
    ]  # fmt: skip


def test_a_corpus_of_shards_says_the_same_as_its_texts_in_files(tmp_path, corpus, jsonl, texts, examples):
    expected = facts(analyse(examples, documents(*texts)))
    assert any(expected[0][3]), "nothing was planted"
    folder = tmp_path / "files"
    folder.mkdir()
    for at, text in enumerate(texts):
        (folder / f"{at}.{'md' if at % 2 else 'txt'}").write_text(text)
    without = tmp_path / "without"
    shutil.copytree(corpus, without)
    shutil.rmtree(without / "documents")  # only the tokens are left
    for at, path in enumerate((jsonl, folder, corpus, without)):
        result, found = analyse_corpora(examples, [path], tmp_path / f"work{at}", workers=1)
        assert facts(result) == expected, path
        assert found.n_documents == 200
        assert not found.dropped


def test_what_was_held_out_of_a_corpus_was_not_read_in_training(tmp_path, small_corpus):
    train = json.loads((small_corpus / "manifest.json").read_text())["splits"]["train"]
    _, found = analyse_corpora({"toy": asked(LONG)}, [small_corpus], tmp_path / "work", workers=1)
    assert (found.n_documents, found.n_bytes) == (train["documents"], train["bytes"])


def test_of_matches_as_long_in_two_corpora_the_first_one_s_is_shown(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(LONG)
    both = [tmp_path / "b.txt", tmp_path / "a.txt"]
    result, _ = analyse_corpora({"toy": asked(LONG)}, both, tmp_path / "work", workers=1)
    assert result["toy"].matches[0]["document"].endswith("b.txt")
    assert result["toy"].examples[0][0]["document"].endswith("b.txt")


def test_a_folder_is_read_by_the_names_of_its_files(tmp_path):
    folder = tmp_path / "mixed"
    (folder / "below" / ".git").mkdir(parents=True)
    (folder / "below" / "a.txt").write_text(LONG)
    (folder / "b.jsonl").write_text(json.dumps({"text": OTHER}))
    (folder / "c.png").write_bytes(b"\x89PNG")
    (folder / "d.md").write_bytes(b"caf\xe9")
    (folder / "below" / ".git" / "e.txt").write_text(filler(30))
    examples = asked(LONG, OTHER, filler(30))
    result, found = analyse_corpora({"toy": examples}, [folder], tmp_path / "work", workers=1)
    assert result["toy"].dirty_E.tolist() == [True, True, False]
    assert (found.n_documents, found.dropped) == (2, {"hidden": 1, "not UTF-8": 1})


def test_several_corpora_are_one(tmp_path, corpus, jsonl, examples, texts):
    result, found = analyse_corpora(examples, [jsonl, corpus], tmp_path / "work", workers=1)
    assert found.n_documents == 400
    assert facts(result) == facts(analyse(examples, documents(*texts, *texts)))


def test_two_processes_find_what_one_finds(tmp_path, jsonl, examples, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 30_000)
    one, found = analyse_corpora(examples, [jsonl], tmp_path / "one", workers=1)
    assert len(list((tmp_path / "one" / "search").glob("*.npy"))) > 3
    monkeypatch.setattr(engine, "POOL_S", 0)
    two, also = analyse_corpora(examples, [jsonl], tmp_path / "two", workers=2)
    assert facts(two) == facts(one)
    assert [one.examples for one in two.values()] == [one.examples for one in one.values()]
    assert (also.n_documents, also.n_bytes) == (found.n_documents, found.n_bytes)


def test_parts_of_any_size_give_the_same(tmp_path, jsonl, examples, monkeypatch):
    whole, _ = analyse_corpora(examples, [jsonl], tmp_path / "whole", workers=1)
    monkeypatch.setattr(tables, "PARTITION_BYTES", 2_000)
    parted, _ = analyse_corpora(examples, [jsonl], tmp_path / "parted", workers=1)
    assert facts(parted) == facts(whole)
    assert [one.examples for one in parted.values()] == [one.examples for one in whole.values()]


def test_a_search_goes_on_where_it_was_stopped_unless_the_text_changed(tmp_path, jsonl, examples, monkeypatch):
    monkeypatch.setattr(tables, "PARTITION_BYTES", 30_000)
    path, work = tmp_path / "train.jsonl", tmp_path / "work"
    shutil.copyfile(jsonl, path)
    expected, _ = analyse_corpora(examples, [path], work, workers=1)
    (work / "search" / "000001.json").unlink()
    read = []

    def counted(part, advance):
        read.append(part)
        return documents_of(part, advance)

    documents_of = overlap_module.documents_of
    monkeypatch.setattr(overlap_module, "documents_of", counted)
    again, _ = analyse_corpora(examples, [path], work, workers=1)
    assert (len(read), facts(again)) == (1, facts(expected))
    path.write_text(path.read_text().replace(" x", " y"))
    analyse_corpora(examples, [path], work, workers=1)
    assert len(read) > 3
