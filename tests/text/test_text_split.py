"""What is held out depends on names, sizes and the seed only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rein.text.documents import Document
from rein.text.split import cut_tail, heldout_packages, split_by_id


def document(id="a", text="text"):
    return Document(text, id, "mine")


@given(st.text(), st.floats(0, 0.99))
def test_the_tail_is_cut_as_nanogpt_does(text, heldout_frac):
    head, tail = cut_tail(document(text=text), heldout_frac)
    assert head.text == text[: int(len(text) * (1 - heldout_frac))]
    assert head.text + tail.text == text


def test_the_cut_of_shakespeare_char():
    head, tail = cut_tail(document("input.txt", "x" * 1_115_394), 0.1)
    assert (len(head.text), len(tail.text)) == (1_003_854, 111_540)
    assert (head.id, tail.id) == ("input.txt[:1003854]", "input.txt[1003854:]")


def test_hashed_ids_give_the_fraction_and_the_seed_changes_them():
    ids = [document(str(i)) for i in range(5000)]
    splits = [[split_by_id(d, 0.1, seed) for d in ids] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert 420 < splits[0].count("heldout") < 580
    assert {split_by_id(d, 0, 0) for d in ids} == {"train"}


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 10**6), max_size=20),
    st.integers(1, 10**6),
    st.floats(0.001, 0.5),
    st.integers(0, 5),
)
def test_held_out_packages(sizes, stdlib, heldout_frac, seed):
    sizes = {"python": stdlib, **{f"p-{name}": size for name, size in sizes.items()}}
    heldout = heldout_packages(sizes, heldout_frac, seed, always_train="python")
    others = sorted(size for name, size in sizes.items() if name != "python")
    assert heldout == heldout_packages(dict(reversed(sizes.items())), heldout_frac, seed, always_train="python")
    assert "python" not in heldout
    assert bool(heldout) == (len(others) > 1)
    assert sum(sizes[name] for name in heldout) <= max(
        1.25 * heldout_frac * sum(sizes.values()), min(others, default=0)
    )
    if others:
        assert others[-1] > max((sizes[name] for name in heldout), default=0) or others.count(others[-1]) > 1


def test_the_held_out_part_is_near_the_fraction():
    sizes = {"python": 50_000, **{f"package{i}": 1000 + i for i in range(100)}}
    for seed in range(5):
        size = sum(sizes[name] for name in heldout_packages(sizes, 0.05, seed, always_train="python"))
        assert 0.05 <= size / sum(sizes.values()) < 0.0625
