"""Which documents are held out: never trained on, only for measuring what the model has learnt.

Three rules, by source. Each depends on the seed and on names only, so the split never changes between runs.

    pydocs                   whole packages: docstrings of one package resemble each other
    folder, jsonl, parquet   each document by the hash of its id
    text                     the tail of each file, as nanoGPT's data/shakespeare_char/prepare.py cuts it
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from rein.text.documents import Document

SPLITS = ("train", "heldout")


def unit_hash(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on `name` and `seed` only.

    Example  >>> unit_hash("essay.txt", 0) == unit_hash("essay.txt", 0) != unit_hash("essay.txt", 1)
             True
    """
    key = f"{seed}:{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64


def split_by_id(document: Document, heldout_frac: float, seed: int) -> str:
    """ "heldout" for that part of all documents whose hashed id falls below `heldout_frac`, else "train"."""
    return "heldout" if unit_hash(document.id, seed) < heldout_frac else "train"


def cut_tail(document: Document, heldout_frac: float) -> tuple[Document, Document]:
    """The first int(n · (1 − heldout_frac)) of a document's n characters, and the rest.

    Their ids are the document's with the slice: "input.txt[:9]" and "input.txt[9:]".
    """
    at = int(len(document.text) * (1 - heldout_frac))
    return (
        replace(document, id=f"{document.id}[:{at}]", text=document.text[:at]),
        replace(document, id=f"{document.id}[{at}:]", text=document.text[at:]),
    )


def heldout_packages(
    bytes_of: Mapping[str, int], heldout_frac: float, seed: int, *, always_train: str
) -> frozenset[str]:
    """The packages to hold out, for about `heldout_frac` of all bytes.

    They are taken in the order of their hashed names until that many bytes are reached; one that would
    overshoot by more than a quarter is passed over. `always_train` and the largest of the others are
    never taken; where every other package overshoots, the smallest is.

    Example  >>> sorted(heldout_packages({"python": 50, "a": 40, "b": 5, "c": 5}, 0.1, 0, always_train="python"))
             ['b', 'c']
    """
    target = heldout_frac * sum(bytes_of.values())
    candidates = sorted(bytes_of.keys() - {always_train}, key=lambda name: (bytes_of[name], name))[:-1]
    if target == 0 or not candidates:
        return frozenset()
    taken: set[str] = set()
    size = 0
    for name in sorted(candidates, key=lambda name: unit_hash(name, seed)):
        if size < target and size + bytes_of[name] <= 1.25 * target:
            taken.add(name)
            size += bytes_of[name]
    return frozenset(taken or candidates[:1])
