"""Taking out of training text what overlaps with test and dev sets, as GPT-3 did.

Flow     evaluation sets (evaluation_sets.py) → `gather` → `Grams`; then two passes over the training documents:

             text, Grams → `count` → the distinct grams in it; summed, the documents each gram is found in
             sums → `too_common` → the grams to ignore
             text, Grams, ignored → `clean` → `Cleaning` → `outcomes` → pieces as documents, or drops
                                                         → `Tally` → `table`: what was found of each set

What a gram is, and how it is found: grams.py. A document of any length is searched to its end; that GPT-3's filter
failed to is why the paper had to measure what it had missed.

Source   Brown 2020, Appendix C, "Initial training set filtering".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from rein.errors import UserError
from rein.text.documents import Document, Dropped
from rein.text.grams import Bools, Grams, Group, Ints, find

TOO_MANY_PIECES = "contaminated: too many pieces"
SHORT_PIECE = "contaminated: piece too short"
NOTHING_LEFT = "contaminated: nothing left"

MATCHES_PER_SET = 5  # shown in the table


@dataclass(frozen=True, slots=True)
class Rules:
    """What is removed. The defaults are the paper's.

    "A 200 character window around" the gram can be read as 200 on each side or as 200 in all. Here it is
    `window_chars` on each side, as the copies of the filter read it: the reading that removes more.
    """

    n: int = 13  # words in a gram
    window_chars: int = 200  # removed before the gram, and as many behind it
    min_piece_chars: int = 200  # pieces below it are dropped
    max_pieces: int = 10  # a document of more is dropped whole
    max_documents: int = 10  # a gram found in more is ignored

    def __post_init__(self) -> None:
        """Raises   UserError when n is not above 0, or another is below 0."""
        for name, value in asdict(self).items():
            least = 1 if name == "n" else 0
            if value < least:
                raise UserError(f"{name} is {value}, but it must be at least {least}.", f"Raise {name}.")


# ------------------------------------------------------------------------------------------------- the passes


def count(text: str, grams: Grams) -> Ints:
    """The distinct grams in a text, in ascending order.

    Add one to each of them, and the sums over any partition of the documents add up:
    `document_counts[count(text, grams)] += 1`.

    Example  >>> from rein.text.grams import gather
             >>> grams = gather([("toy", [["to be or not to be"]])], n=2)
             >>> sorted(grams.text(gram) for gram in count("Not to be; be not! To be", grams))
             ['not to', 'to be']
    """
    return np.unique(find(text, [Group.of(grams)])[0][:, 0])


def too_common(document_counts: Ints, rules: Rules) -> Bools:
    """Which grams to ignore: those found in more than `max_documents` documents, being phrases that many use.

    Example  >>> too_common(np.array([0, 10, 11]), Rules()).tolist()
             [False, False, True]
    """
    return document_counts > rules.max_documents


@dataclass(frozen=True, slots=True, eq=False)
class Cleaning:
    """What is left of a text.

    `pieces` are the slices (start, end) of the text that stay, `short` those that are too short to. `reason` says why
    the text is dropped whole, in which case no piece stays. Where nothing was found, the one piece is the text.

    Shapes   hits (H, 3) int64: gram, start, end of all that was found and is not ignored, in the order of the text.
    """

    pieces: tuple[tuple[int, int], ...]
    short: tuple[tuple[int, int], ...]
    reason: str | None
    hits: Ints


def clean(text: str, grams: Grams, ignored: Bools, rules: Rules) -> Cleaning:
    """Cuts the grams out of a text, each with `window_chars` characters on both sides of it.

    Windows that overlap or touch are one. Pieces shorter than `min_piece_chars` are dropped first and the others
    counted then, the order in which the paper has the two rules: so a document is dropped for being in many
    pieces worth keeping, not for the crumbs between two quotations. A text in which nothing is found stays as it is,
    however short.

    Example  >>> from rein.text.grams import gather
             >>> grams = gather([("toy", [["to be or not"]])], n=4)
             >>> rules = Rules(n=4, window_chars=2, min_piece_chars=3)
             >>> clean("Prince: TO BE, or not... he asked", grams, np.array([False]), rules).pieces
             ((0, 6), (23, 33))
    """
    assert grams.n == rules.n, f"grams of {grams.n} words, but rules for {rules.n}"
    assert len(ignored) == len(grams), f"{len(ignored)} marks for {len(grams)} grams"
    hits = find(text, [Group.of(grams)])[0]
    hits = hits[~ignored[hits[:, 0]]]
    if not len(hits):
        return Cleaning(((0, len(text)),), (), None, hits)
    pieces: list[tuple[int, int]] = []
    short: list[tuple[int, int]] = []
    at = 0
    for start, end in [*_windows(hits, len(text), rules.window_chars), (len(text), len(text))]:
        if start > at:
            (pieces if start - at >= rules.min_piece_chars else short).append((at, start))
        at = end
    if len(pieces) > rules.max_pieces:
        return Cleaning((), (), TOO_MANY_PIECES, hits)
    return Cleaning(tuple(pieces), tuple(short), None if pieces else NOTHING_LEFT, hits)


def outcomes(document: Document, cleaning: Cleaning) -> list[Document | Dropped]:
    """What a document becomes: itself, its pieces with ids like "id[0:950]", or drops.

    A document of which no piece stays is one drop, with the id of the document.
    """
    if cleaning.reason is not None:
        return [Dropped(document.id, cleaning.reason)]
    if not len(cleaning.hits):
        return [document]
    kept = [
        replace(document, id=f"{document.id}[{start}:{end}]", text=document.text[start:end])
        for start, end in cleaning.pieces
    ]
    short = [
        Dropped(f"{document.id}[{start}:{end}]", SHORT_PIECE, document.text[start:end]) for start, end in cleaning.short
    ]
    return [*kept, *short]


def _windows(hits: Ints, n_chars: int, window_chars: int) -> list[tuple[int, int]]:
    """The slices to remove, united where they overlap or touch."""
    starts = np.maximum(hits[:, 1] - window_chars, 0)
    ends = np.minimum(hits[:, 2] + window_chars, n_chars)
    first = np.ones(len(hits), dtype=bool)
    first[1:] = starts[1:] > ends[:-1]  # later grams both begin and end later
    return list(zip(starts[first].tolist(), ends[np.append(first[1:], True)].tolist(), strict=True))


# ------------------------------------------------------------------------------------------------------ table


@dataclass(slots=True)
class Tally:
    """What cleaning did, by evaluation set; those of several partitions can be added.

    Shapes   documents_touched, documents_dropped, chars_removed (S,) int64: documents in which a gram of the set was
             found, those of them of which nothing stayed, and the characters in the windows of the set's grams.
    """

    documents_touched: Ints
    documents_dropped: Ints
    chars_removed: Ints
    matches: list[list[tuple[int, str]]] = field(default_factory=list)  # by set, the first few: gram, document id

    @staticmethod
    def of(grams: Grams) -> Tally:
        """A tally of nothing yet."""
        zeros = np.zeros(len(grams.sets), dtype=np.int64)
        return Tally(zeros, zeros.copy(), zeros.copy(), [[] for _ in grams.sets])

    def add(self, document: Document, cleaning: Cleaning, grams: Grams, rules: Rules) -> None:
        """Counts one document. What a window of several sets' grams removes counts for each of them."""
        hits_of: dict[int, list[int]] = {}
        for row, gram in enumerate(cleaning.hits[:, 0].tolist()):
            for one in grams.sets_of(gram):
                hits_of.setdefault(one, []).append(row)
        for one, rows in hits_of.items():
            windows = _windows(cleaning.hits[rows], len(document.text), rules.window_chars)
            self.documents_touched[one] += 1
            self.documents_dropped[one] += not cleaning.pieces
            self.chars_removed[one] += sum(end - start for start, end in windows)
            if len(self.matches[one]) < MATCHES_PER_SET:
                self.matches[one].append((int(cleaning.hits[rows[0], 0]), document.id))

    def to_dict(self) -> dict[str, Any]:
        """The tally as plain data, for JSON."""
        counts = {
            name: getattr(self, name).tolist() for name in ("documents_touched", "documents_dropped", "chars_removed")
        }
        return {**counts, "matches": self.matches}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Tally:
        """The tally that `to_dict` gave."""
        touched, dropped, removed = (
            np.array(values[name], dtype=np.int64)
            for name in ("documents_touched", "documents_dropped", "chars_removed")
        )
        return Tally(touched, dropped, removed, [[(gram, id) for gram, id in one] for one in values["matches"]])

    def merge(self, other: Tally) -> None:
        """Adds the tally of documents that come after these."""
        self.documents_touched += other.documents_touched
        self.documents_dropped += other.documents_dropped
        self.chars_removed += other.chars_removed
        for mine, theirs in zip(self.matches, other.matches, strict=True):
            mine += theirs[: MATCHES_PER_SET - len(mine)]


def table(grams: Grams, document_counts: Ints, tally: Tally, rules: Rules) -> list[dict[str, Any]]:
    """What was found of each evaluation set, for JSON: one entry per set, in the order of `grams.sets`.

    grams_found is how many of the set's grams are in any training document; grams_ignored how many of those are in
    too many. A match is the first gram that was found of the set in a document.
    """
    in_table = np.repeat(np.arange(len(grams)), np.diff(grams.set_starts))
    counts_of_sets = document_counts[in_table]

    def per_set(chosen: Bools) -> Ints:
        return np.bincount(grams.set_ids[chosen], minlength=len(grams.sets))

    n_grams = per_set(np.ones(len(in_table), dtype=bool))
    n_found, n_ignored = per_set(counts_of_sets > 0), per_set(too_common(counts_of_sets, rules))
    return [
        {
            "set": one.name,
            "examples": one.examples,
            "short_examples": one.short_examples,
            "grams": int(n_grams[at]),
            "grams_found": int(n_found[at]),
            "grams_ignored": int(n_ignored[at]),
            "documents_touched": int(tally.documents_touched[at]),
            "documents_dropped": int(tally.documents_dropped[at]),
            "chars_removed": int(tally.chars_removed[at]),
            "matches": [
                {"gram": grams.text(gram), "documents": int(document_counts[gram]), "document": document}
                for gram, document in tally.matches[at]
            ],
        }
        for at, one in enumerate(grams.sets)
    ]
