"""Other libraries, on real text: the same merges, the same ids, and they read the file that we write."""

import json
import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import tokenizers

from rein.bpe import gpt1, oracle, trainer
from rein.bpe.alphabet import EOT, PATTERN, to_visible
from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.engines import TiktokenEngine
from rein.bpe.tokenizer import load_tokenizer

SAMPLES = [
    "Hello world",
    "it's IT'S 'Sup\t'derived'",
    "中文 😀 é\r\n",
    "  def f(x):\n\n\n    return x  ",
    "\x00\ufeff\xa0",
]


def library_text(n_bytes):
    """Python source of this installation, until there are `n_bytes`."""
    texts, size = [], 0
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if size < n_bytes and "site-packages" not in path.parts:
            data = path.read_bytes()
            try:
                texts.append(data.decode())
                size += len(data)
            except UnicodeDecodeError:
                pass  # the library has some on purpose, for its own tests
    return texts


@pytest.fixture(scope="module")
def corpus():
    return library_text(1_500_000)


@pytest.fixture(scope="module")
def ours(corpus):
    return trainer.train(corpus, 4096)


def test_the_merges_are_those_of_hugging_face_and_of_the_oracle(corpus, ours):
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(
        corpus, tokenizers.trainers.BpeTrainer(vocab_size=4095, initial_alphabet=alphabet, show_progress=False)
    )
    theirs = [tuple(merge) for merge in json.loads(peer.to_str())["model"]["merges"]]
    assert [(to_visible(left), to_visible(right)) for left, right in ours.merges] == theirs
    assert list(ours.merges) == oracle.train(oracle.count_words(corpus), 4096 - 257)


def test_the_merges_with_bytes_by_value_are_those_of_the_oracle(corpus):
    learned = trainer.train(corpus, 2257, ties="raw_token_ids").merges
    assert list(learned) == oracle.train(oracle.count_words(corpus), 2000, "raw_token_ids")


def test_the_ids_are_tiktokens_on_megabytes(ours):
    ranks = {token: id for id, token in enumerate(ours._tokens)}
    encoding = tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={EOT: ours.eot_id})
    texts = library_text(5_000_000)
    for text, row in zip(texts, ours.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(row, encoding.encode_ordinary(text))


def test_every_character_is_of_the_class_that_tiktoken_says():
    """Merges over the border of a character show whether it stands in one piece with a letter, digit or sign.

    Only characters that this Python knows: about those of the newest Unicode versions, libraries do not agree.
    """
    merges = tuple((sign, bytes([byte])) for sign in (b"a", b"1", b"!", b" ") for byte in range(0xC2, 0xF5))
    ours = ByteLevelBPE(merges)
    careful = TiktokenEngine(ours._tokens)
    assigned = [chr(c) for c in range(0x80, 0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    text = "".join(f"a{c}\n1{c}\n!{c}\n {c}b\n" for c in assigned)
    np.testing.assert_array_equal(ours.encode(text), careful.encode(text))


def test_random_unicode_is_encoded_as_by_the_oracle(ours):
    new_symbol, generator = oracle.numbered(ours.merges), random.Random(1)
    pools = (
        range(0x80),
        b" \t\n\r'sdmtlrve\x85\xa0",
        range(0x80, 0x3000),
        [*range(0x2000, 0x2070), 0x3000, 0xFEFF, 0x1680, 0x180E],
        [*range(0x4E00, 0x4F00), *range(0x1F600, 0x1F640), *range(0x300, 0x370), *range(0x660, 0x66A)],
    )
    for _ in range(5000):
        pool = generator.choice(pools)
        length = generator.randint(1, 30)
        text = "".join(chr(generator.choice(pool if generator.random() < 0.7 else pools[1])) for _ in range(length))
        assert ours.encode(text).tolist() == oracle.encode(text, new_symbol), repr(text)


def test_tokenizers_reads_the_file_and_gives_the_same_ids(ours, corpus, tmp_path):
    ours.save(tmp_path)
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert peer.get_vocab_size() == ours.n_vocab
    assert peer.token_to_id(EOT) == ours.eot_id
    for text in [*SAMPLES, corpus[0]]:
        ids = ours.encode(text).tolist()
        assert peer.encode(text).ids == ids
        assert peer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("how", ["fast", "auto", "auto with tokenizer_config"])
def test_transformers_reads_the_file_and_gives_the_same_ids(ours, tmp_path, how):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    ours.save(tmp_path)
    if how == "fast":
        peer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    else:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
        if how == "auto with tokenizer_config":
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOT}
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        peer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(peer) == ours.n_vocab
    for text in SAMPLES:
        ids = ours.encode(text).tolist()
        assert peer.encode(text) == ids
        assert peer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_file_that_tokenizers_saves_again_is_read(ours, tmp_path):
    ours.save(tmp_path / "first.json")
    tokenizers.Tokenizer.from_file(str(tmp_path / "first.json")).save(str(tmp_path / "second.json"))
    assert load_tokenizer(tmp_path / "second.json") == ours


def test_tokenizers_reads_gpt1s_file_for_its_vocabulary(corpus, tmp_path):
    ours = gpt1.train(corpus[:3], 600)
    ours.save(tmp_path)
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [peer.id_to_token(id) for id in range(ours.n_vocab)] == ours._tokens
    text = "return the value of this name"
    assert peer.encode(text).ids == ours.encode(text).tolist()
    assert peer.decode(ours.encode(text).tolist()) == text
    peer.save(str(tmp_path / "again.json"))
    assert load_tokenizer(tmp_path / "again.json") == ours
