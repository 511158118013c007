"""Docstrings as summary and body: what PEP 257 calls one, what is held out, and what is too like a training row."""

import json

import pytest

from rein.text import docstrings
from rein.text.docstrings import docstring_rows, of_corpus, parted
from rein.text.documents import Document, Dropped
from rein.text.prompts import FORMATS, encode_query, encode_response, query_text
from rein.text.prompts_command import PromptsConfig, prompts

BODY = "It says at some length what the thing is for, so that a summary can be foretold from it; number {n} of them."


def document(n, package="python", summary=None, body=BODY, name=None):
    text = f"{summary or f'Return the thing with number {n}.'}\n\n{body.format(n=n)}"
    about = {"object": name or f"{package}.thing{n}", "package": package, "version": "1.0", "license": "MIT"}
    return Document(text, f"{package}:thing{n}.py:1", "pydocs", metadata=about)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Return it.\n\n" + "b" * 80, "summary not of 3 words to 100 characters"),
        ("Return the thing.\n\n" + "b" * 79, "body under 80 characters"),
        ("Return the thing.\n\n" + "b" * 80, ("Return the thing.", "b" * 80)),
        ("Return the thing.\n \n\n" + "b" * 80, ("Return the thing.", "b" * 80)),
        ("Return the thing\n\n" + "b" * 80, "summary without a full stop"),
        ("Return the thing\nthat is asked.\n\n" + "b" * 80, "summary of several lines"),
        ("Return the thing.\n" + "b" * 80, "summary of several lines"),
        ("Return the thing.", "nothing but a summary"),
        ("Return the thing.\n\n \n", "nothing but a summary"),
        (f"Return {'the ' * 30}thing.\n\n" + "b" * 80, "summary not of 3 words to 100 characters"),
        ("Return x[0] = the thing.\n\n" + "b" * 80, "summary with code or markup"),
    ],
)
def test_a_docstring_has_a_summary_line_or_a_reason(text, found):
    assert parted(text) == found


def test_rows_of_documents():
    documents = [
        document(1, "requests", "Send a request to somebody."),
        document(2, "python", name="topics.assert"),
        document(3, "urllib3", "send a request to SOMEBODY."),
        Document("No object.\n\nNothing.", "x", "pydocs"),
    ]
    row, *rest = docstring_rows((("train", one) for one in documents), heldout_frac=0.5)
    assert [item.reason for item in rest] == ["documentation topic", "summary of an earlier row", "not a docstring"]
    assert row == {
        "id": "requests:thing1.py:1", "name": "requests.thing1", "post": BODY.format(n=1),
        "reference": "Send a request to somebody.", "package": "requests", "version": "1.0", "license": "MIT",
        "split": "train",
    }  # fmt: skip
    assert query_text(FORMATS["docstring"], row) == f"requests.thing1\n\n{row['post']}\n\nTL;DR:"


def test_packages_are_held_out_whole():
    packages = ["python", *(f"p{n}" for n in range(9))]
    body = "A body of its own: {n} " + "word{n} " * 30
    documents = [document(f"{p}{n}", p, body=body) for p in packages for n in range(5)]
    rows = list(docstring_rows(((None, one) for one in documents), heldout_frac=0.2, seed=3))
    splits = {}
    for row in rows:
        splits.setdefault(row["package"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert splits["python"] == {"train"}
    held = [package for package, found in splits.items() if found == {"heldout"}]
    assert 1 <= len(held) <= 3
    assert rows == list(docstring_rows(((None, one) for one in documents), heldout_frac=0.2, seed=3))


def test_a_held_out_row_that_is_like_a_training_row_is_dropped():
    own = "Quite another text, about trains and stations, with words of its own that nobody else here has used at all."
    documents = [
        ("train", document(1)),
        ("heldout", document(2, "copied", "Give back whatever was wanted.", BODY)),
        ("heldout", document(3, "other", body=own)),
    ]
    kept, copy, other = docstring_rows(iter(documents))
    assert isinstance(copy, Dropped)
    assert copy.reason == "held out, but much of it is in a training row"
    assert (kept["split"], other["split"]) == ("train", "heldout")
    only_held = list(docstring_rows([("heldout", document(1)), ("heldout", document(2))]))
    assert [row["split"] for row in only_held] == ["heldout", "heldout"]


def test_rows_fit_their_format(tokenizer):
    for row in docstring_rows([("train", document(n, body=BODY * 20)) for n in range(5)]):
        assert len(encode_query(FORMATS["docstring"], row, tokenizer)) <= 96
        assert len(encode_response(row["reference"], tokenizer, FORMATS["docstring"])) <= 32


def test_the_rows_of_a_corpus_are_held_out_as_the_corpus_has_it(tmp_path, byte_tokenizer):
    from rein.text.build import BuildConfig, build

    rows = [{"text": document(n).text, "id": f"d{n}"} for n in range(30)]
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = build(BuildConfig((path,), source="jsonl", out=tmp_path / "corpus", heldout_frac=0.3,
                               tokenizer=byte_tokenizer))  # fmt: skip
    found = list(of_corpus(folder))
    assert {split for split, _ in found} == {"train", "heldout"}
    assert len(found) == 30
    assert all(item.reason == "not a docstring" for item in docstring_rows(iter(found)))  # jsonl has no objects


def test_the_command_on_installed_packages(tmp_path, monkeypatch, capsys):
    body = "Words of {n} alone: " + "only{n} " * 30
    found = [document(f"{p}{n}", p, body=body) for p in ("python", "a", "b") for n in range(4)]
    monkeypatch.setattr(docstrings, "read_all", lambda reader: iter([*found, Dropped("x", "short docstring")]))
    out = tmp_path / "rows.jsonl"
    prompts(PromptsConfig(out=out, show=2, heldout_frac=0.2))
    said = capsys.readouterr().out
    assert "kept 12" in said
    assert said.count("TL;DR: Return the thing") == 2
    assert len(out.read_text().splitlines()) == 12
