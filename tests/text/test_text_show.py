"""What a person sees of a corpus."""

from __future__ import annotations

import json

import pytest

from rein.errors import UserError
from rein.text.shards import Shards
from rein.text.show import ShowConfig, show


def shown(capsys, corpus, **changes):
    show(ShowConfig(corpus, **changes))
    return capsys.readouterr().out


def test_the_table_and_the_documents(corpus, capsys):
    capsys.readouterr()
    out = shown(capsys, corpus, n=2)
    assert "vocabulary 257 (gpt2)" in out
    assert "kept 40 of 40 items, dropped 0" in out
    assert "not stated" in out
    assert out.count("───") == 2
    assert "document " in out


def test_documents_are_shown_with_their_own_origin(corpus, capsys):
    shards = Shards(corpus, "heldout")
    out = shown(capsys, corpus, n=99, split="heldout")
    assert out.count("─── heldout") == shards.n_documents
    for block in out.split("─── heldout ")[1:]:
        number = int(block.split("input.jsonl:")[1].split()[0]) - 1
        assert f"document {number}, " in block


def test_long_documents_are_cut(corpus, capsys):
    out = shown(capsys, corpus, n=40, max_chars=20)
    assert "more characters" in out
    assert "word word word" not in out


def test_one_origin(corpus, capsys):
    assert "─── train" in shown(capsys, corpus, n=1, origin="input")
    with pytest.raises(UserError, match=r"--origin 'inputs' has no document in the split 'train'.\n.*input"):
        show(ShowConfig(corpus, origin="inputs"))


def test_verify(corpus, capsys):
    assert "every shard is as it was written" in shown(capsys, corpus, n=0, verify=True)
    path = corpus / "heldout-00000.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="does not match the manifest"):
        show(ShowConfig(corpus, n=0, verify=True))


def test_many_packages_are_summed_up(corpus, capsys):
    path = corpus / "manifest.json"
    manifest = json.loads(path.read_text())
    about = manifest["origins"][0]
    manifest["origins"] = [{**about, "package": f"p{i}", "documents": {"heldout": 1}} for i in range(20)]
    path.write_text(json.dumps(manifest))
    out = shown(capsys, corpus, n=0)
    assert "8 more" in out
    assert "held out whole: p0, p1" in out


def test_damaged_text_is_said(corpus):
    (corpus / "documents" / "train-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="Remove the corpus and build it anew"):
        show(ShowConfig(corpus))
