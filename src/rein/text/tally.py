"""What a build has counted: documents kept per package and split, and items dropped per reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rein.errors import UserError
from rein.text.documents import Document, n_utf8_bytes
from rein.text.split import SPLITS

NAMED = 3  # dropped items named per reason


@dataclass
class _Package:
    """Counts per split of one package, version and licence."""

    documents: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


class Tally:
    """The counts of one build; items = kept + dropped."""

    def __init__(self) -> None:
        self._packages: dict[tuple[str, str, str], _Package] = {}
        self._dropped: Counter[str] = Counter()
        self._first_dropped: dict[str, list[str]] = {}
        self.documents: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def keep(self, split: str, document: Document) -> None:
        """Counts a document that was written to `split`."""
        n_bytes = n_utf8_bytes(document.text)
        self.documents[split] += 1
        self.bytes[split] += n_bytes
        package = self._packages.setdefault((document.package, document.version, document.license), _Package())
        package.documents[split] += 1
        package.bytes[split] += n_bytes

    def drop(self, id: str, reason: str) -> None:
        """Counts an item that became no document; the first few ids of each reason are kept."""
        self._dropped[reason] += 1
        first = self._first_dropped.setdefault(reason, [])
        if len(first) < NAMED:
            first.append(id)

    def check(self, splits: Sequence[str], heldout_frac: float) -> None:
        """Refuses an empty corpus, and one without one of its parts.

        Raises   UserError that says what was dropped and why.
        """
        n_dropped = self._dropped.total()
        if not self.documents.total():
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self._dropped.most_common())
            raise UserError(
                f"The corpus is empty: {n_dropped:,} items were read, and none can be used"
                + (f" ({reasons})." if reasons else "."),
                "Check the paths, and --extensions or --text-field.",
            )
        for split in splits:
            if not self.documents[split]:
                raise UserError(
                    f"--heldout-frac {heldout_frac} of {self.documents.total():,} documents leaves none in {split}.",
                    "Give more documents, another --heldout-frac (0 holds nothing out) or another --seed; "
                    "--source text holds out the tail of each file.",
                )

    def to_dict(self) -> dict[str, Any]:
        """The counts as the manifest keeps them."""
        kept = self.documents.total()
        return {
            "splits": {
                split: {"documents": self.documents[split], "bytes": self.bytes[split]}
                for split in SPLITS
                if self.documents[split]
            },
            "items": kept + self._dropped.total(),
            "kept": kept,
            "dropped": {
                reason: {"count": count, "first": self._first_dropped[reason]}
                for reason, count in self._dropped.most_common()
            },
            "packages": [
                {
                    "package": name,
                    "version": version,
                    "license": license,
                    "documents": dict(package.documents),
                    "bytes": dict(package.bytes),
                }
                for (name, version, license), package in self._packages.items()
            ],
        }
