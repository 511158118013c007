"""`rein bpe …`, as a person types it."""

import io
import json
import sys

import numpy as np
import pytest

from rein.bpe.tokenizer import load_tokenizer
from rein.bpe.trainer import train
from rein.cli import main

TEXT = "The cat sat on the mat; the cat's hat sat there. Café 中文 😀\n" * 20


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "t.json"
    train([TEXT], 280).save(path)
    return path


def feed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def fails(capsys, *words):
    """The message of a command that must fail, shown without a traceback."""
    assert main(["bpe", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("UserError: ")
    return captured.err


@pytest.mark.parametrize("kind", ["gpt2", "gpt1"])
def test_train_writes_a_vocabulary_and_says_what_it_is(book, tmp_path, capsys, kind):
    n_vocab = 280 if kind == "gpt2" else 50
    out = tmp_path / "new" / "t.json"
    assert (
        main(["bpe", "train", str(book), str(book), "--kind", kind, "--n-vocab", str(n_vocab), "--out", str(out)]) == 0
    )
    tokenizer = load_tokenizer(out)
    assert (tokenizer.kind, tokenizer.n_vocab) == (kind, n_vocab)
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: {n_vocab} entries, kind {kind}, learned in ")
    assert tokenizer.sha256()[:16] in said


def test_train_writes_into_a_folder(book, tmp_path, capsys):
    assert main(["bpe", "train", str(book), "--n-vocab", "260", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "tokenizer.json").exists()
    assert capsys.readouterr().out.startswith(f"{tmp_path}/tokenizer.json: 260 entries")


@pytest.mark.parametrize("kind", ["gpt2", "gpt1"])
def test_train_converts_released_files(kind, small, small_gpt1, tmp_path, capsys):
    tokenizer = small if kind == "gpt2" else small_gpt1
    encoder, merges, out = tmp_path / "encoder.json", tmp_path / "vocab.bpe", tmp_path / "t.json"
    tokenizer.save(out)
    model = json.loads(out.read_text(encoding="utf-8"))["model"]
    ids = {token: id for token, id in model["vocab"].items() if kind == "gpt2" or id != tokenizer.eot_id}
    encoder.write_text(json.dumps(ids), encoding="utf-8")
    merges.write_text("\n".join(["#version: 0.2", *model["merges"], ""]), encoding="utf-8")
    out.unlink()
    words = ["--kind", kind, "--encoder", str(encoder), "--merges", str(merges), "--out", str(out)]
    assert main(["bpe", "train", *words]) == 0
    assert load_tokenizer(out) == tokenizer
    assert "1,000 entries" in capsys.readouterr().out


def test_train_says_what_is_missing(book, capsys):
    assert "has no text to learn from" in fails(capsys, "train")
    assert "--merges is given without --encoder" in fails(capsys, "train", "--merges", book)
    assert "--encoder is given without --merges" in fails(capsys, "train", "--encoder", book)
    both = fails(capsys, "train", book, "--encoder", book, "--merges", book)
    assert f"{book} is given as text to learn from, together with" in both


def test_train_names_the_flag_to_change(book, tmp_path, capsys):
    out = ("--out", tmp_path / "t.json")
    assert "Pass --n-vocab 290 or less" in fails(capsys, "train", book, "--n-vocab", 5000, *out)
    assert "--n-vocab is 12" in fails(capsys, "train", book, "--n-vocab", 12, *out)
    assert "--max-bytes is 0" in fails(capsys, "train", book, "--max-bytes", 0, *out)
    assert "no-such.txt cannot be read" in fails(capsys, "train", "no-such.txt", *out)
    assert not (tmp_path / "t.json").exists()


def test_train_says_when_text_is_left_out(book, tmp_path, capsys):
    words = ["bpe", "train", str(book), "--n-vocab", "258", "--out", str(tmp_path / "t.json")]
    assert main([*words, "--max-bytes", "100"]) == 0
    n_bytes = f"{book.stat().st_size:,}"
    assert f"Learning from the first 100 of {n_bytes} bytes (--max-bytes)." in capsys.readouterr().err
    assert main(words) == 0
    assert f"learning: {n_bytes}/{n_bytes} bytes" in capsys.readouterr().err


def test_max_bytes_and_ties_reach_the_trainer(book, tmp_path, capsys):
    merges = {}
    for words in ((), ("--max-bytes", "50"), ("--ties", "raw_token_ids")):
        out = tmp_path / "t.json"
        assert main(["bpe", "train", str(book), "--n-vocab", "270", "--out", str(out), *words]) == 0
        merges[words] = load_tokenizer(out).merges
    assert len(set(merges.values())) == 3


def test_encode_prints_a_line_for_each_document(book, vocabulary, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("cat", encoding="utf-8")
    assert main(["bpe", "encode", str(book), str(other), "--tokenizer", str(vocabulary)]) == 0
    tokenizer = load_tokenizer(vocabulary)
    first, second = capsys.readouterr().out.splitlines()
    assert [int(word) for word in first.split()] == tokenizer.encode(TEXT).tolist()
    assert [int(word) for word in second.split()] == tokenizer.encode("cat").tolist()


@pytest.mark.parametrize("words", [[], ["-"]])
def test_encode_reads_standard_input(vocabulary, capsys, monkeypatch, words):
    feed(monkeypatch, b"the cat\r\n")
    assert main(["bpe", "encode", *words, "--tokenizer", str(vocabulary)]) == 0
    ids = [int(word) for word in capsys.readouterr().out.split()]
    assert load_tokenizer(vocabulary).decode(ids) == "the cat\r\n"


def test_encode_can_end_documents(vocabulary, capsys, monkeypatch):
    feed(monkeypatch, b"")
    assert main(["bpe", "encode", "--append-eot", "--tokenizer", str(vocabulary)]) == 0
    assert capsys.readouterr().out == "279\n"


def test_there_and_back_again(book, vocabulary, tmp_path, capsysbinary, monkeypatch):
    assert main(["bpe", "encode", str(book), "--tokenizer", str(vocabulary)]) == 0
    feed(monkeypatch, capsysbinary.readouterr().out)
    assert main(["bpe", "decode", "--tokenizer", str(vocabulary)]) == 0
    assert capsysbinary.readouterr().out == TEXT.encode()


def test_there_and_back_again_through_an_array(book, vocabulary, tmp_path, capsysbinary):
    array = tmp_path / "new" / "ids.npy"
    words = ["bpe", "encode", str(book), str(book), "--append-eot", "--out", str(array), "--tokenizer", str(vocabulary)]
    assert main(words) == 0
    ids = np.load(array)
    assert ids.dtype == np.uint32
    assert [path.name for path in array.parent.iterdir()] == ["ids.npy"]
    assert main(["bpe", "decode", str(array), "--tokenizer", str(vocabulary)]) == 0
    assert capsysbinary.readouterr().out == (TEXT + "<|endoftext|>").encode() * 2


def test_bytes_that_are_not_text_are_decoded_as_they_are(vocabulary, capsysbinary, monkeypatch):
    ids = load_tokenizer(vocabulary).encode_bytes(b"\xff\n")
    feed(monkeypatch, " ".join(map(str, ids)).encode())
    assert main(["bpe", "decode", "--tokenizer", str(vocabulary)]) == 0
    assert capsysbinary.readouterr().out == b"\xff\n"


def test_encode_refuses_what_is_not_text(vocabulary, tmp_path, capsys, monkeypatch):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"caf\xe9")
    given = ("--tokenizer", vocabulary)
    assert "latin1.txt is not UTF-8 text: byte 0xe9 at offset 3" in fails(capsys, "encode", path, *given)
    feed(monkeypatch, b"caf\xe9")
    assert "Standard input is not UTF-8 text: byte 0xe9 at offset 3" in fails(capsys, "encode", *given)
    assert "There is no tokenizer at" in fails(capsys, "encode", path, "--tokenizer", tmp_path / "none")
    assert "needs --tokenizer" in fails(capsys, "encode", path)


def test_an_array_that_cannot_be_written_is_an_error(book, vocabulary, tmp_path, capsys):
    folder = tmp_path / "ids.npy"
    folder.mkdir()
    message = fails(capsys, "encode", book, "--tokenizer", vocabulary, "--out", folder)
    assert "ids.npy cannot be written" in message
    assert not (tmp_path / "ids.npy.part").exists()


@pytest.mark.parametrize("word", ["12a", "1.5", "--3", "²", "three"])
def test_decode_refuses_what_is_no_number(vocabulary, tmp_path, capsys, monkeypatch, word):
    path = tmp_path / "ids.txt"
    path.write_text(f"1 2\n{word}", encoding="utf-8")
    given = ("--tokenizer", vocabulary)
    assert f"ids.txt holds '{word}', but token ids are whole numbers" in fails(capsys, "decode", path, *given)
    feed(monkeypatch, word.encode())
    assert f"Standard input holds '{word}'" in fails(capsys, "decode", *given)


def test_decode_refuses_ids_out_of_range(vocabulary, capsys, monkeypatch):
    for word in ("280", "-1", "9" * 30):
        feed(monkeypatch, f"1 {word}".encode())
        assert f"{word} is not a token id: in this vocabulary they are the whole numbers 0 to 279" in fails(
            capsys, "decode", "--tokenizer", vocabulary
        )


def test_decode_refuses_arrays_that_are_none(vocabulary, tmp_path, capsys):
    given = ("--tokenizer", vocabulary)
    path = tmp_path / "ids.npy"
    assert "ids.npy cannot be read: No such file" in fails(capsys, "decode", path, *given)
    for content in (b"", b"\x93NUMPY", b"1 2 3"):
        path.write_bytes(content)
        assert "ids.npy is not an array of ids" in fails(capsys, "decode", path, *given)
    np.save(path, np.array([0.5]))
    assert "0.5 is not a token id" in fails(capsys, "decode", path, *given)


@pytest.mark.parametrize("command", ["train", "encode", "decode"])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit):
        main(["bpe", command, "--help"])
    assert f"rein bpe {command} " in capsys.readouterr().out
