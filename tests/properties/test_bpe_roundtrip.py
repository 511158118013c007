"""What holds for every text and every bytes."""

import textwrap

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.bpe import gpt1_text, oracle
from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.tokenizer import StreamDecoder
from rein.bpe.trainer import train

texts = st.text(max_size=200)
PIECES = ["'s", "'S", " ", "\t", "\n", "\xa0", "<|endoftext|>", "a", "é", "e\u0301", "中", "😀", "1", "½", "\x00"]
awkward_texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)

# The first example of each test builds an engine, and the machine may be busy.
patiently = settings(deadline=None)


@pytest.fixture(scope="module")
def bpe() -> ByteLevelBPE:
    return train([textwrap.__doc__, str(textwrap.TextWrapper.__doc__), "naïve café 中文 😀 " * 9], 500)


@patiently
@given(data=st.binary(max_size=300))
def test_any_bytes_come_back(bpe, data):
    ids = bpe.encode_bytes(data)
    assert bpe.decode_bytes(ids) == data
    assert bpe.eot_id not in ids
    assert bpe.token_bytes_V()[ids].sum() == len(data)


@patiently
@given(text=texts | awkward_texts)
def test_any_text_comes_back(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    np.testing.assert_array_equal(bpe.encode_bytes(text.encode()), ids)


# Libraries follow Unicode at their own pace: about unassigned characters they do not agree.
assigned_texts = st.text(st.characters(exclude_categories=["Cn", "Cs"]), max_size=100)


@patiently
@given(text=assigned_texts | awkward_texts)
def test_any_text_is_encoded_as_by_the_oracle(bpe, text):
    assert bpe.encode(text).tolist() == oracle.encode(text, oracle.numbered(bpe.merges))


@patiently
@given(batch=st.lists(texts | awkward_texts, max_size=6))
def test_a_batch_is_its_texts(bpe, batch):
    for row, text in zip(bpe.encode_batch(batch), batch, strict=True):
        np.testing.assert_array_equal(row, bpe.encode(text))


@patiently
@given(ids=st.lists(st.integers(0, 499), max_size=60))
def test_streaming_any_ids_is_decoding_them(bpe, ids):
    stream = StreamDecoder(bpe)
    assert "".join([stream.push(id) for id in ids]) + stream.flush() == bpe.decode(ids)


@settings(deadline=None, max_examples=20)  # each starts a process
@given(documents=st.lists(awkward_texts, max_size=8))
def test_training_is_the_oracles(documents):
    words = oracle.count_words(documents)
    merges = oracle.train(words, 10)
    if merges:
        assert list(train(documents, 257 + len(merges)).merges) == merges


MARKUP = ["a", "b c", "&", "&amp;", "&lt;", "<", "<b>", "\n", "\t", "\r\n", "\x0c", "\x1b[0m"]
CURIOUS = ["\u201c", "\u2026", "ﬁ", "Ã©", "\ufeff"]
lines = st.lists(st.sampled_from(MARKUP + CURIOUS), max_size=20).map("".join)


@patiently
@given(text=lines | texts | st.text(st.characters(max_codepoint=0x7E, min_codepoint=9)))
def test_repairing_line_by_line_is_ftfys_repair(text):
    words = gpt1_text.Words.__new__(gpt1_text.Words)
    words._fix_text = ftfy.fix_text
    assert words._repaired(text) == ftfy.fix_text(text)


@patiently
@given(text=st.text(st.characters(max_codepoint=0x7E), max_size=300))
def test_standardising_twice_changes_nothing(text):
    once = gpt1_text.standardise(text)
    assert gpt1_text.standardise(once) == once
