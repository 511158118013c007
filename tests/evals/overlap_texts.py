"""Examples, and training text around them that holds nothing but what is planted."""

from __future__ import annotations

import random
import string

from rein.evals.overlap import Example
from rein.text.documents import Document

LONG = (
    "The harbour was quiet that morning, and the two old fishermen who had quarrelled for thirty years about a "
    "borrowed net sat on the wall and looked at the water without a word."
)
OTHER = (
    "Nobody in the valley remembered who had planted the pear trees along the road, but every autumn the children "
    "of three villages met under them, filled their aprons, and ran home before the bell rang."
)


def word(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=6))


def filler(n_words: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return " ".join("x" + word(draw) for _ in range(n_words))


def first_words(text: str, n: int) -> str:
    return " ".join(text.split()[:n])


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"document {at}", "") for at, text in enumerate(texts)]


def asked(*texts: str) -> list[Example]:
    return [Example(question=text) for text in texts]


def of_a_passage(question: str, answer: str = "They agreed at last") -> Example:
    return Example(LONG, question, answer)
