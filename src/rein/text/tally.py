"""What a stage has counted: documents in, kept and dropped by reason, with a few examples of each.

Every task of a build counts for itself; the counts of tasks are plain data, and adding them up in the order of
the tasks gives the same, however many processes there were. Examples are chosen by the hash of their ids.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rein.errors import UserError
from rein.text.documents import Document, n_utf8_bytes
from rein.text.split import SPLITS, unit_hash

NAMED = 3  # dropped items named per reason
EXAMPLES = 2  # shown per reason, and of what is kept, by each task and in all
EXCERPT_CHARS = 600

Counts = dict[str, Any]


class Tally:
    """The counts of one task; items = documents + Σ dropped."""

    def __init__(self) -> None:
        self.items = self.documents = self.bytes = 0
        self._lengths: Counter[int] = Counter()
        self._dropped: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}
        self._examples: dict[str, list[tuple[float, str, str]]] = {}  # reason ("" kept): (−hash, id, excerpt)

    def keep(self, document: Document) -> None:
        """Counts a document that goes on."""
        n_bytes = n_utf8_bytes(document.text)
        self.items += 1
        self.documents += 1
        self.bytes += n_bytes
        self._lengths[n_bytes.bit_length()] += 1
        self._example("", document.id, document.text, document.url)

    def drop(self, id: str, reason: str, text: str = "", url: str = "") -> None:
        """Counts an item that ends here, with its text and address where there are."""
        self.items += 1
        self._dropped[reason] += 1
        first = self._first.setdefault(reason, [])
        if len(first) < NAMED:
            first.append(_printable(id))
        self._example(reason, id, text, url)

    def _example(self, reason: str, id: str, text: str, url: str) -> None:
        """Keeps it if its hash is among the smallest; it is shown by its address, which people can open."""
        chosen = self._examples.setdefault(reason, [])
        rank = -unit_hash(id, 0)
        if len(chosen) < EXAMPLES:
            heapq.heappush(chosen, (rank, _printable(url or id), _printable(text[:EXCERPT_CHARS])))
        elif rank > chosen[0][0]:
            heapq.heapreplace(chosen, (rank, _printable(url or id), _printable(text[:EXCERPT_CHARS])))

    def to_dict(self) -> Counts:
        """The counts as a record keeps them."""
        return {
            "items": self.items,
            "documents": self.documents,
            "bytes": self.bytes,
            "lengths": {str(bits): count for bits, count in sorted(self._lengths.items())},
            "dropped": {
                reason: {"count": count, "first": self._first[reason]} for reason, count in self._dropped.most_common()
            },
            "examples": {
                reason: [[-rank, id, text] for rank, id, text in sorted(chosen, reverse=True)]
                for reason, chosen in sorted(self._examples.items())
            },
        }


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of the counts of several tasks."""
    items = documents = n_bytes = 0
    lengths: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    first: dict[str, list[str]] = {}
    examples: dict[str, list[list[Any]]] = {}
    for one in counts:
        items += one["items"]
        documents += one["documents"]
        n_bytes += one["bytes"]
        lengths.update(one["lengths"])
        for reason, about in one["dropped"].items():
            dropped[reason] += about["count"]
            first[reason] = (first.get(reason, []) + about["first"])[:NAMED]
        for reason, chosen in one["examples"].items():
            examples[reason] = sorted(examples.get(reason, []) + chosen)[:EXAMPLES]
    return {
        "items": items,
        "documents": documents,
        "bytes": n_bytes,
        "lengths": dict(sorted(lengths.items(), key=lambda pair: int(pair[0]))),
        "dropped": {reason: {"count": count, "first": first[reason]} for reason, count in dropped.most_common()},
        "examples": examples,
    }


class Origins:
    """Documents and bytes per split of each origin: a source, and in it each package, version and licence."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, str], dict[str, list[int]]] = {}

    def add(self, split: str, document: Document) -> None:
        """Counts a document of `split`."""
        about = document.metadata
        key = (document.source, about.get("package", ""), about.get("version", ""), about.get("license", ""))
        count = self._counts.setdefault(key, {}).setdefault(split, [0, 0])
        count[0] += 1
        count[1] += n_utf8_bytes(document.text)

    def to_list(self) -> list[dict[str, Any]]:
        """The counts as records and the manifest keep them."""
        return [
            {
                "source": source,
                "package": package,
                "version": version,
                "license": license,
                "documents": {split: count[0] for split, count in by_split.items()},
                "bytes": {split: count[1] for split, count in by_split.items()},
            }
            for (source, package, version, license), by_split in self._counts.items()
        ]

    def merge(self, lists: Iterable[list[dict[str, Any]]]) -> Origins:
        """Adds what other tasks counted."""
        for origins in lists:
            for about in origins:
                key = (about["source"], about["package"], about["version"], about["license"])
                mine = self._counts.setdefault(key, {})
                for split in about["documents"]:
                    count = mine.setdefault(split, [0, 0])
                    count[0] += about["documents"][split]
                    count[1] += about["bytes"][split]
        return self


def check_not_empty(documents: dict[str, int], dropped: dict[str, Any], heldout_frac: float) -> None:
    """Refuses an empty corpus, and one without one of its parts.

    Raises   UserError that says what was dropped and why.
    """
    splits: Sequence[str] = SPLITS if heldout_frac > 0 else SPLITS[:1]
    kept = sum(documents.values())
    if not kept:
        n_dropped = sum(about["count"] for about in dropped.values())
        reasons = ", ".join(f"{about['count']:,} {reason}" for reason, about in dropped.items())
        raise UserError(
            f"The corpus is empty: {n_dropped:,} items were read, and none can be used"
            + (f" ({reasons})." if reasons else "."),
            "Check the paths, and --extensions or --text-field.",
        )
    for split in splits:
        if not documents.get(split):
            raise UserError(
                f"--heldout-frac {heldout_frac} of {kept:,} documents leaves none in {split}.",
                "Give more documents, another --heldout-frac (0 holds nothing out) or another --seed; "
                "--source text holds out the tail of each file.",
            )


def _printable(text: str) -> str:
    """`text` without what cannot be written as UTF-8: it goes into a report."""
    return text.encode("utf-8", "replace").decode("utf-8")
