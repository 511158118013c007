"""GPT-1's BPE: its words, its layout, training, files."""

import builtins
import json
import pickle
import random
import sys

import ftfy
import numpy as np
import pytest
import spacy

from rein.bpe import gpt1, gpt1_text
from rein.bpe.gpt1 import GPT1BPE
from rein.bpe.gpt1_text import Words, standardise
from rein.errors import UserError


def words_of_spacy(text):
    """The words as the released code makes them, straight from ftfy and spaCy."""
    tokens = spacy.blank("en").tokenizer(standardise(ftfy.fix_text(text)))
    return ["\n" if "\n" in token.text else token.text.lower() for token in tokens]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u2014b\u2013c\u2015d", "a - b - c - d"),
        ("wait\u2026 rock\u00b4n", "wait... rock'n"),
        ("what?!?", "what ? ! ?"),
        ("--((a))--", "-- (( a )) --"),
        ("a\\b a/b a+b", "a\\b a / b a + b"),
        ("it's $5.00 & 50% off: x.y", "it's $5.00 & 50% off: x.y"),
        ("a \t\n\r\n  b\u00a0 c\n", "a \n b c"),
        (" \n \n ", ""),
        ("", ""),
    ],
)
def test_standardise(text, expected):
    assert standardise(text) == expected


def test_words_are_exactly_spacys(real_text):
    words = Words()
    for text in [
        *real_text,
        real_text[0].replace("def", "\u201cdéf\u201d &amp; <b> &lt;"),
        "x &amp; y\nz < &amp;\n&lt;",
    ]:
        assert list(words.of(text)) == words_of_spacy(text)


def test_words_are_exactly_spacys_where_emoticons_meet():
    """Neighbours decide here: `o:x` is two words, but three after a bracket."""
    nlp, words, generator = spacy.blank("en"), Words(), random.Random(7)
    rules = sorted(nlp.tokenizer.rules)
    texts = ["o:x", "( o:x", "Mayn\u2019tx:o ) - h.:Wouldn't"]
    for _ in range(3000):
        parts = generator.choices(rules, k=generator.randint(1, 5))
        texts.append(
            "".join(part + generator.choice(["", " ", "...", ":", "'", "-", "\n", "x", ">"]) for part in parts)
        )
    for text in texts:
        expected = [
            "\n" if "\n" in token.text else token.text.lower()
            for token in nlp.tokenizer(standardise(ftfy.fix_text(text)))
        ]
        assert list(words.of(text)) == expected, text


def test_the_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr(gpt1_text, "_CACHE_STRETCHES", 3)
    words = Words()
    for _ in range(2):
        assert list(words.of("one two three four five one")) == ["one", "two", "three", "four", "five", "one"]
        assert len(words._words_of) <= 3


def test_the_memory_of_ids_is_bounded(small_gpt1, monkeypatch):
    monkeypatch.setattr(gpt1, "_CACHE_WORDS", 3)
    text = "one two three four\nfive one"
    tokenizer = GPT1BPE(small_gpt1.characters, small_gpt1.merges)
    assert tokenizer.encode(text).tolist() == small_gpt1.encode(text).tolist()
    assert len(tokenizer._cache) <= 3


@pytest.mark.parametrize("package", ["ftfy", "spacy"])
def test_without_the_extra_it_says_what_to_install(small_gpt1, monkeypatch, package):
    monkeypatch.delitem(sys.modules, package, raising=False)
    real = builtins.__import__

    def without(name, *rest):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    tokenizer = GPT1BPE(small_gpt1.characters, small_gpt1.merges)
    assert tokenizer.decode([small_gpt1.eot_id]) == "<|endoftext|>", "decoding needs neither"
    with pytest.raises(UserError, match=rf"but {package} is not installed") as error:
        tokenizer.encode("text")
    assert "pip install 'rein[gpt1]'" in error.value.fix


def test_a_lone_surrogate_is_an_error(small_gpt1):
    with pytest.raises(UserError, match=r"lone surrogate \(U\+D800\)"):
        small_gpt1.encode("a\ud800")


def test_layout():
    tokenizer = GPT1BPE(("b", "a"), (("a", "b"), ("ab", "a</w>")))
    assert tokenizer._tokens == ["<unk>", "b", "a", "b</w>", "a</w>", "ab", "aba</w>", "\n</w>", "<|endoftext|>"]
    assert tokenizer.n_vocab == 9
    assert tokenizer.eot_id == 8
    assert tokenizer.kind == "gpt1"
    assert tokenizer.encode("ABA ab b\n\n\na? xb").tolist() == [6, 2, 3, 3, 7, 4, 0, 0, 3]
    assert tokenizer.encode("").dtype == np.uint32
    assert tokenizer.encode_batch(["", "ab"])[1].tolist() == [2, 3]


def test_decoded_text_is_lower_cased_with_single_spaces(small_gpt1):
    ids = small_gpt1.encode("The  Parser\tis\n\n\nDone.")
    assert small_gpt1.decode(ids) == "the parser is \n done . "
    assert small_gpt1.decode_bytes(ids) == b"the parser is \n done . "
    np.testing.assert_array_equal(small_gpt1.encode(small_gpt1.decode(ids)), ids)


def test_bytes_of_each_id(small_gpt1, real_text):
    counts_V = small_gpt1.token_bytes_V()
    assert counts_V.shape == (small_gpt1.n_vocab,)
    assert counts_V[small_gpt1.eot_id] == 0
    assert counts_V[0] == 1
    ids = small_gpt1.encode(real_text[0])
    assert 0 not in ids
    assert counts_V[ids].sum() == len(small_gpt1.decode_bytes(ids))


def test_special_tokens_are_never_forged(small_gpt1):
    text = "<|endoftext|> a<|endoftext|>b <unk> x<unk>y </w> a</w>"
    ids = small_gpt1.encode(text)
    assert small_gpt1.eot_id not in ids
    assert "<|endoftext|>" not in small_gpt1.decode(ids)


def test_an_id_out_of_range_is_an_error(small_gpt1):
    with pytest.raises(UserError, match="1000 is not a token id"):
        small_gpt1.decode([1000])


@pytest.mark.parametrize("merges", [(("a", "c"),), (("a", "b"), ("a", "b")), (("ab", "a"), ("a", "b"))])
def test_merges_join_what_is_there_into_something_new(merges):
    with pytest.raises(UserError, match=r"Merge \d is .* a merge joins two tokens made before it"):
        GPT1BPE(("a", "b"), merges)


def test_equality_and_pickling(small_gpt1):
    small_gpt1.encode("so that spaCy is there")
    copy = pickle.loads(pickle.dumps(small_gpt1))
    assert copy == small_gpt1
    assert copy.sha256() == small_gpt1.sha256()
    assert GPT1BPE(small_gpt1.characters, small_gpt1.merges[:-1]).sha256() != copy.sha256()
    assert copy.encode("parse this").tolist() == small_gpt1.encode("parse this").tolist()


@pytest.mark.parametrize("text", ["a" * 200_000, "ab1" * 70_000, "a." * 100_000])
def test_200_000_characters_without_a_space(small_gpt1, text):
    # A merge that looks at the whole word each time would need 10⁹ steps and more.
    assert small_gpt1.decode(small_gpt1.encode(text)).replace(" ", "") == text


# --------------------------------------------------------------------------------------------------- training


def test_characters_come_in_the_order_of_their_frequency():
    tokenizer = gpt1.train_from_counts({"bba": 5, "c": 5}, n_vocab=9)
    assert tokenizer.characters == ("b", "a", "c")


def test_rare_characters_become_unknown_and_merges_stop_at_them():
    counts = {"axb": 10, "ab": 1, "aa": 3, "bb": 3}
    tokenizer = gpt1.train_from_counts(counts, n_vocab=9, n_characters=2)
    assert tokenizer.characters == ("a", "b")
    assert tokenizer.merges == (("a", "a</w>"), ("b", "b</w>"))
    assert tokenizer.encode("axb aa").tolist() == [1, 0, 4, 5]
    with pytest.raises(UserError, match="supports only 3"):  # ax and xb, of all pairs the most frequent, are none
        gpt1.train_from_counts(counts, n_vocab=11, n_characters=2)


def test_a_word_spelled_like_the_unknown_token_teaches_nothing():
    tokenizer = gpt1.train_from_counts({"a<unk>b": 100, "ab": 1}, n_vocab=2 * 7 + 3 + 1)
    assert tokenizer.merges == (("a", "b</w>"),)


def test_training_reads_files_and_texts_alike(real_text, tmp_path, small_gpt1):
    files = []
    for index, text in enumerate(real_text):
        files.append(tmp_path / f"{index}.txt")
        files[-1].write_bytes(text.encode())
    assert gpt1.train(files, 1000) == small_gpt1


def test_only_the_first_bytes_count():
    assert gpt1.count_words(["ab cd", "éé ab"], max_bytes=5 + 3) == {"ab": 1, "cd": 1, "é": 1}
    assert gpt1.count_words(["ab", "cd"], max_bytes=2) == {"ab": 1}


def test_newlines_are_not_counted():
    assert gpt1.count_words(["a\n\nb"]) == {"a": 1, "b": 1}


def test_no_text_is_an_error():
    for documents in ([], ["", " \n"]):
        with pytest.raises(UserError, match="There is no text to train on"):
            gpt1.train(documents, 100)


def test_a_vocabulary_smaller_than_its_characters_is_an_error():
    with pytest.raises(UserError, match=r"--n-vocab is 6, but this vocabulary has 7 entries before its first merge"):
        gpt1.train(["ab ba"], 6)
    assert gpt1.train(["ab ba"], 7).merges == ()
    with pytest.raises(UserError, match=r"--n-vocab is 2, but this vocabulary has 3 entries"):
        gpt1.train(["ab ba"], 2)


def test_more_merges_than_the_text_supports_is_an_error():
    with pytest.raises(UserError, match=r"--n-vocab 100 needs 93 merges, but the text supports only 2") as error:
        gpt1.train(["ab ba"], 100)
    assert "Pass --n-vocab 9 or less" in error.value.fix


def test_more_bytes_than_can_be_counted_is_an_error():
    with pytest.raises(UserError, match="--max-bytes is 0"):
        gpt1.train(["text"], 100, max_bytes=0)


def test_a_document_that_is_not_text_is_an_error(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"byte 0xe9 at offset 3"):
        gpt1.train([path], 100)
    with pytest.raises(UserError, match="lone surrogate"):
        gpt1.train(["\ud800"], 100)


# --------------------------------------------------------------------------------------- OpenAI's two files


@pytest.fixture
def pair(small_gpt1, tmp_path):
    """The files that OpenAI would have released for `small_gpt1`: without an end of text."""
    encoder, merges = tmp_path / "encoder_bpe.json", tmp_path / "vocab.bpe"
    ids = {token: id for id, token in enumerate(small_gpt1._tokens[:-1])}
    encoder.write_text(json.dumps(ids), encoding="utf-8")
    lines = [f"{left} {right}\n" for left, right in small_gpt1.merges]
    merges.write_text("#version: 0.2\n" + "".join(lines), encoding="utf-8")
    return encoder, merges


def test_reads_openais_pair(small_gpt1, pair):
    assert gpt1.from_openai(*pair) == small_gpt1


def test_files_that_do_not_belong_together_are_an_error(pair):
    lines = pair[1].read_text(encoding="utf-8").splitlines(keepends=True)
    pair[1].write_text("".join(lines[:300]), encoding="utf-8")
    with pytest.raises(UserError, match=r"a merge joins two tokens|its place in the merges makes it id"):
        gpt1.from_openai(*pair)


def test_an_encoder_with_fewer_tokens_than_merges_is_an_error(pair):
    pair[0].write_text('{"a": 0}', encoding="utf-8")
    with pytest.raises(UserError, match=r"Merge 0 is"):
        gpt1.from_openai(*pair)
