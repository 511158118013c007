"""The trainer and the encoder that can be read, on cases worked out by hand."""

import random
from itertools import pairwise

import pytest

from rein.bpe import oracle
from rein.bpe.merging import merge_word


def brute_force(words, n_base, n_merges):
    """The idea without any bookkeeping: count every pair anew before each merge."""
    words = {tuple(word): [list(word), count] for word, count in words.items()}
    merges = []
    while len(merges) < n_merges:
        counts = {}
        for symbols, count in words.values():
            for pair in pairwise(symbols):
                counts[pair] = counts.get(pair, 0) + count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for entry in words.values():
            entry[0] = oracle.merge_pair(entry[0], best, n_base + len(merges))
        merges.append(best)
    return merges


def random_words(generator, n_base):
    return {
        tuple(generator.choices(range(n_base), k=generator.randint(1, 12))): generator.randint(1, 5)
        for _ in range(generator.randint(1, 30))
    }


@pytest.mark.parametrize("seed", range(40))
def test_the_bookkeeping_changes_nothing(seed):
    generator = random.Random(seed)
    n_base = generator.randint(1, 5)
    words = random_words(generator, n_base)
    assert oracle.learn_merges(words, n_base, 50) == brute_force(words, n_base, 50)


@pytest.mark.parametrize("seed", range(40))
def test_the_fast_merging_is_the_slow_one(seed):
    generator = random.Random(seed)
    n_base = generator.randint(1, 4)
    merges = oracle.learn_merges(random_words(generator, n_base), n_base, generator.randint(0, 40))
    new_symbol = {pair: n_base + index for index, pair in enumerate(merges)}
    for length in [*range(9), 100]:
        symbols = generator.choices(range(n_base), k=length)
        assert merge_word(symbols, new_symbol) == oracle.encode_word(symbols, new_symbol)


def test_counts_beyond_32_bits_do_not_wrap():
    words = {(0, 1): 2**31 + 5, (2, 3): 2**31 - 1, (4, 5): 2**33, (6, 7): 2**63, (7, 6, 7): 1}
    assert oracle.learn_merges(words, 8, 4) == [(6, 7), (4, 5), (0, 1), (2, 3)]
    assert oracle.train({b"ab": 2**32 + 1, b"cd": 2**32}, 1) == [(b"a", b"b")]


def test_overlapping_pairs_are_merged_from_the_left():
    assert oracle.merge_pair([1, 1, 1], (1, 1), 2) == [2, 1]
    assert oracle.learn_merges({(0, 0, 0): 1}, 1, 5) == [(0, 0), (1, 0)]


def test_training_ends_when_every_word_is_one_symbol():
    assert oracle.learn_merges({(0, 1): 3}, 2, 100) == [(0, 1)]
    assert oracle.learn_merges({}, 2, 100) == []
    assert oracle.learn_merges({(0,): 9, (): 1}, 2, 100) == []


def test_ties_go_to_the_smaller_ids_under_each_numbering():
    words = {b"\x00a": 1, b"!a": 1}  # "!" is id 0 of GPT-2, and byte 33; the byte 0 has id 188
    assert oracle.train(words, 1, "huggingface") == [(b"!", b"a")]
    assert oracle.train(words, 1, "raw_token_ids") == [(b"\x00", b"a")]


def test_counts_of_parts_add_up():
    assert oracle.count_words(["a b", "b c"]) == oracle.count_words(["a b"]) + oracle.count_words(["b c"])


def test_pieces_put_together_give_the_text():
    text = "it's IT'S\t\n  don't 12½ <|endoftext|> \u00a0x"
    assert "".join(oracle.split(text)) == text


def test_a_long_word_is_not_quadratic():
    # As many merges as symbols: an encoder that looks at every pair after each merge needs 10¹⁰ steps here.
    symbols = [0, 1] * 100_000
    assert merge_word(symbols, {(0, 1): 2, (2, 2): 3}) == [3] * 50_000
