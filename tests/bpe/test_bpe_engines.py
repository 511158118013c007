"""gigatoken is watched, and tiktoken is there where it fails."""

import warnings

import numpy as np
import pytest

from rein.bpe import engines
from rein.bpe.byte_level import ByteLevelBPE


class Wrong(engines.GigatokenEngine):
    """An encoder that goes wrong on upper-case contractions, as two published ones do."""

    def encode(self, text):
        return super().encode(text.replace("'S", "'s"))


def test_the_engines_agree_and_the_fast_one_is_taken(small):
    tokenizer = ByteLevelBPE(small.merges)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode("")
    assert isinstance(tokenizer._engine, engines.GigatokenEngine)
    careful = engines.TiktokenEngine(tokenizer._tokens)
    for canary in engines.CANARIES:
        np.testing.assert_array_equal(tokenizer.encode(canary), careful.encode(canary))


def test_a_difference_means_tiktoken_and_a_warning(small, monkeypatch):
    monkeypatch.setattr(engines, "GigatokenEngine", Wrong)
    tokenizer = ByteLevelBPE(small.merges)
    with pytest.warns(
        RuntimeWarning, match=r"gigatoken 0\.\S+ and tiktoken differ on \"it's IT'S 'Sup they'll.*tiktoken is used"
    ):
        ids = tokenizer.encode("IT'S 'Sup")
    assert isinstance(tokenizer._engine, engines.TiktokenEngine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        np.testing.assert_array_equal(tokenizer.encode("IT'S 'Sup"), small.encode("IT'S 'Sup"))
        np.testing.assert_array_equal(tokenizer.encode_batch(["", "IT'S 'Sup"])[1], ids)
    assert ids.flags.writeable


def test_the_cache_of_the_fast_engine_is_bounded(small, monkeypatch):
    monkeypatch.setattr(engines, "CACHE_CHARACTERS", 1000)
    tokenizer = ByteLevelBPE(small.merges)
    text = "words that are new " * 30
    first = tokenizer._engine._tokenizer
    for _ in range(4):
        np.testing.assert_array_equal(tokenizer.encode(text), small.encode(text))
        np.testing.assert_array_equal(tokenizer.encode_batch([text, text])[1], small.encode(text))
    assert tokenizer._engine._tokenizer is not first
