"""Training a byte-level vocabulary: what it learns from, what it refuses."""

import warnings

import pytest

from rein.bpe import oracle, trainer
from rein.errors import UserError


@pytest.mark.parametrize("ties", ["huggingface", "raw_token_ids"])
def test_it_learns_what_the_oracle_learns(real_text, ties):
    expected = oracle.train(oracle.count_words(real_text), 700, ties)
    assert list(trainer.train(real_text, 957, ties=ties).merges) == expected


def test_the_two_rules_for_ties_differ(real_text):
    assert trainer.train(real_text, 957).merges != trainer.train(real_text, 957, ties="raw_token_ids").merges


def test_files_and_texts_give_the_same(real_text, tmp_path, capfd):
    files = []
    for index, text in enumerate(real_text):
        files.append(tmp_path / f"{index}.txt")
        files[-1].write_bytes(text.encode())
    assert trainer.train(files, 800) == trainer.train(iter(real_text), 800)
    assert capfd.readouterr() == ("", ""), "gigatoken's own words must not reach the terminal"


def test_no_word_reaches_over_the_border_of_documents():
    with pytest.raises(UserError, match="supports only 0"):
        trainer.train(["a", "b", "a", "b"], 258)
    assert trainer.train(["ab", "ab"], 258).merges == ((b"a", b"b"),)


def test_the_end_of_text_has_no_part_in_training():
    text = "<|endoftext|> <|endoftext|> ab ab"
    merges = trainer.train([text], 263).merges
    assert all(b"<|e" not in left + right for left, right in merges)


def test_every_order_of_documents_gives_the_same(real_text):
    assert trainer.train(real_text, 600) == trainer.train(real_text[::-1], 600)


@pytest.mark.parametrize("form", ["text", "file"])
def test_only_the_first_bytes_count_and_no_character_is_cut(tmp_path, form):
    text = "ab ab é" * 100
    document = text
    if form == "file":
        document = tmp_path / "text"
        document.write_bytes(text.encode())
    spool = tmp_path / "spool"
    written = trainer.spool_documents([document, document], spool, 800 + 7)
    assert spool.read_bytes() == text.encode() + b"\xff" + b"ab ab \xff"
    assert written == 800 + 6
    assert trainer.spool_documents([document, document], spool, 800) == 800
    assert spool.read_bytes() == text.encode() + b"\xff"


def test_more_merges_than_the_text_supports_is_an_error():
    # gigatoken goes on with pairs that occur nowhere; what counts are merges of pairs that are there.
    with pytest.raises(UserError, match=r"--n-vocab 300 needs 43 merges, but the text supports only 3") as error:
        trainer.train(["abc abc"], 300)
    assert "Pass --n-vocab 260 or less" in error.value.fix
    assert trainer.train(["abc abc"], 260).merges == ((b"a", b"b"), (b"ab", b"c"), (b" ", b"abc"))


@pytest.mark.parametrize("ties", ["huggingface", "raw_token_ids"])
def test_the_number_of_merges_that_a_text_supports(real_text, ties):
    text = real_text[0][:6000]
    supported = oracle.train(oracle.count_words([text]), 100_000, ties)
    with pytest.raises(UserError, match=rf"the text supports only {len(supported):,}:"):
        trainer.train([text], 20_000, ties=ties)
    assert list(trainer.train([text], 257 + len(supported), ties=ties).merges) == supported
    with pytest.raises(UserError, match=rf"the text supports only {len(supported):,}:"):
        trainer.train([text], 258 + len(supported), ties=ties)


def test_spans_of_the_spool_are_cut_where_pieces_end(tmp_path):
    texts = ["word  \n\n it's 中文\u3000 \n" * 100_000, "", "x" * (3 << 20), "end"]
    spool = tmp_path / "spool"
    trainer.spool_documents(texts, spool, trainer.MAX_BYTES)
    spans = list(trainer._spooled_texts(spool))
    assert "".join(spans) == "".join(texts)
    assert oracle.count_words(spans) == oracle.count_words(texts)
    assert len(spans) > 4


@pytest.mark.parametrize("documents", [[], [""], ["", ""]])
def test_no_text_is_an_error(documents):
    with pytest.raises(UserError, match="There is no text to train on"):
        trainer.train(documents, 300)


@pytest.mark.parametrize("n_vocab", [-1, 0, 256])
def test_a_vocabulary_smaller_than_the_bytes_is_an_error(n_vocab):
    with pytest.raises(UserError, match=rf"--n-vocab is {n_vocab}, but this vocabulary has 257 entries"):
        trainer.train(["text"], n_vocab)


def test_the_smallest_vocabulary_has_no_merges():
    assert trainer.train(["text"], 257).merges == ()


@pytest.mark.parametrize("max_bytes", [0, -5, 2**31])
def test_more_bytes_than_can_be_counted_is_an_error(max_bytes):
    with pytest.raises(UserError, match=r"--max-bytes is .* must be between 1 and 2,147,483,647"):
        trainer.train(["text"], 300, max_bytes=max_bytes)


def test_a_lone_surrogate_is_an_error():
    with pytest.raises(UserError, match=r"A document has a lone surrogate \(U\+DC00\) at character 1"):
        trainer.train(["a\udc00"], 300)


def test_a_file_that_is_not_utf8_is_an_error(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"x" * (1 << 20) + b"caf\xe9 au lait")
    with pytest.raises(UserError, match=r"latin1.txt is not UTF-8 text: byte 0xe9 at offset 1,048,579"):
        trainer.train([path], 300)


def test_a_file_that_ends_inside_a_character_is_an_error(tmp_path):
    path = tmp_path / "cut.txt"
    path.write_bytes(b"x" * ((1 << 20) - 1) + b"\xe4\xb8")
    with pytest.raises(UserError, match=r"cut.txt is not UTF-8 text: byte 0xe4 at offset 1,048,575"):
        trainer.train([path], 300)


def test_characters_across_blocks_are_read_whole(tmp_path):
    path = tmp_path / "long.txt"
    text = "x" + "é" * (1 << 20)
    path.write_bytes(text.encode())
    assert "".join(trainer.text_blocks(path)) == text


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"none.txt cannot be read: No such file or directory"):
        trainer.train([tmp_path / "none.txt"], 300)
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        trainer.train([tmp_path], 300)


def test_a_spool_without_room_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot be copied to .*: No such file") as error:
        trainer.spool_documents(["text"], tmp_path / "gone" / "spool", 100)
    assert "TMPDIR" in error.value.fix


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import sys; sys.exit('out of luck')", "status 1: out of luck"),
        ("import os; os.kill(os.getpid(), 9)", "status -9: it was killed"),
    ],
)
def test_a_trainer_that_dies_is_an_error(tmp_path, monkeypatch, script, says):
    worker = tmp_path / "worker.py"
    worker.write_text(script, encoding="utf-8")
    monkeypatch.setattr(trainer, "_WORKER", worker)
    with pytest.raises(UserError, match=f"The trainer's process ended with {says}") as error:
        trainer.train(["text text"], 259)
    assert "--max-bytes" in error.value.fix


def test_a_trainer_that_learns_something_else_is_replaced_by_the_oracle(tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text("import sys; open(sys.argv[1], 'w').write('[[], []]')", encoding="utf-8")
    monkeypatch.setattr(trainer, "_WORKER", worker)
    texts = ["low low", "low lower é" * 200_000]  # longer than one block of the spool
    with pytest.warns(RuntimeWarning, match="the oracle is used"):
        tokenizer = trainer.train(texts, 262)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trainer.train(texts, 262) == tokenizer


def test_the_process_needs_nothing_of_rein():
    lines = trainer._WORKER.read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported == {"__future__", "json", "sys", "pathlib", "gigatoken"}
