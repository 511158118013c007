"""The vocabularies that OpenAI released give the ids that OpenAI's code gives."""

import hashlib
import random
import unicodedata

import numpy as np
import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from rein.bpe import byte_level, gpt1, oracle
from rein.bpe.alphabet import PATTERN

GPT2_CANARIES = {
    "Hello world": "15496 995",
    " Hello  world\n\n": "18435 220 995 628",
    "it's IT'S 'Sup": "270 338 7283 6 50 705 40784",
    "don't DON'T I'll I'LL": "9099 470 23917 6 51 314 1183 314 6 3069",
    "\t'derived'": "197 1549 263 1572 6",
    "dog. dog! dog?": "9703 13 3290 0 3290 30",
    "x <|endoftext|> y": "87 1279 91 437 1659 5239 91 29 331",
    "中文 😀 é": "40792 23877 229 30325 222 38251",
    "naïve café": "2616 38776 40304",
    "\x00\x1b": "188 215",
    "\ufeff\xa0a": "171 119 123 1849 64",
    " \t \n x": "220 197 220 198 2124",
    "2+2=4 1234567": "17 10 17 28 19 17031 2231 3134",
    "aaaaaaaaaa": "24794 24794 7252",
    "": "",
}

GPT1_VECTORS = {
    "Hello world!": "3570 1276 267",
    "I don't know.": "249 587 538 699 239",
    "a\\b a/b a+b C++ ??": "8 127 259 246 278 259 246 306 259 263 306 306 257 257",
    "She said: \"it's 10:30 p.m. already...\"\n\nMr. Smith can't go.": (
        "520 603 271 244 507 535 8582 12614 9513 1245 749 244 40477 1682 4920 993 538 799 239"
    ),
    "The café's naïve rôle \u2014 \u201cquoted\u201d text\u2026 costs $5.00 & 50% off.": (
        "481 13550 535 24213 17 116 541 260 244 22315 244 4830 749 12243 289 46 25088 296 8393 297 811 239"
    ),
}


@pytest.fixture(scope="module")
def gpt2(shared_data):
    folder = shared_data / "tokenizers" / "gpt2"
    return byte_level.from_openai(folder / "encoder.json", folder / "vocab.bpe")


@pytest.fixture(scope="module")
def gpt1_released(shared_data):
    folder = shared_data / "tokenizers" / "gpt1"
    return gpt1.from_openai(folder / "encoder_bpe_40000.json", folder / "vocab_40000.bpe")


@pytest.mark.parametrize("text", GPT2_CANARIES)
def test_gpt2_canaries(gpt2, text):
    expected = [int(word) for word in GPT2_CANARIES[text].split()]
    assert gpt2.encode(text).tolist() == expected
    assert gpt2.decode(expected) == text
    assert gpt2.encode_batch([text])[0].tolist() == expected


def test_gpt2_layout(gpt2):
    assert gpt2.n_vocab == 50257
    assert gpt2.eot_id == 50256
    assert gpt2.token_bytes_V().max() == 128


@pytest.mark.parametrize(
    ("name", "n_tokens", "sha256"),
    [
        ("tinyshakespeare.txt", 338_025, "25c01b32b32f4189"),
        ("wikitext-2/valid.txt", 258_659, "17bc83b54d943c68"),
        ("ptb/ptb.valid.txt", 92_830, "7e64755aa52a8c6d"),
    ],
)
def test_gpt2_whole_files(gpt2, shared_data, name, n_tokens, sha256):
    text = (shared_data / "text" / name).read_bytes().decode()
    ids = gpt2.encode(text)
    assert len(ids) == n_tokens
    assert hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest()[:16] == sha256
    assert gpt2.decode(ids) == text


def test_gpt2_as_tiktoken_reads_the_two_files(gpt2, shared_data):
    folder = shared_data / "tokenizers" / "gpt2"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    encoding = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    text = (shared_data / "text" / "wikitext-2" / "valid.txt").read_bytes().decode()
    np.testing.assert_array_equal(gpt2.encode(text), encoding.encode_ordinary(text))


def test_gpt2_random_unicode_against_the_oracle(gpt2):
    new_symbol, generator = oracle.numbered(gpt2.merges), random.Random(0)
    assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    pools = (" \t\n\r'sdmtlrve\xa0\x85", assigned[:0x80], assigned[:0x3000], assigned)
    for _ in range(2000):
        text = "".join(generator.choice(generator.choice(pools)) for _ in range(generator.randint(1, 40)))
        assert gpt2.encode(text).tolist() == oracle.encode(text, new_symbol), repr(text)


@pytest.mark.parametrize("text", GPT1_VECTORS)
def test_gpt1_vectors(gpt1_released, text):
    assert gpt1_released.encode(text).tolist() == [int(word) for word in GPT1_VECTORS[text].split()]


def test_gpt1_layout(gpt1_released):
    assert len(gpt1_released.characters) == 238
    assert len(gpt1_released.merges) == 40_000
    assert gpt1_released.n_vocab == 40_478 + 1
    assert gpt1_released.eot_id == 40_478
    assert gpt1_released.decode([40_477]) == "\n "
    assert gpt1_released.decode([0, 62, 300, 476]) == "<unk>éé \uf072 "
