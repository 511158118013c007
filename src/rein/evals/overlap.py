"""Which examples of evaluation sets a training text holds: one pass over the text for all tasks.

Flow     task → its Examples → `tables_of` → Tables: the grams of all tasks, a table for each N
         training_text.py: parts of some megabytes → `search`, in worker processes → what was Found of a part
         parts in their order → `Found.merge` → `collisions` → Collisions of each task

A gram is N words that follow each other, as text/contamination.py cuts words; found means the same words, never only
the same hash. Grams of a passage alone are told apart from those that reach into a question or an answer. An example
of fewer than N words is found where all of it is.

A killed search goes on with the first part that is not done. What it finds does not depend on how many processes
search, or how the text is parted.

Source   Brown 2020 §4 and Appendix C.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.evals.training_text import documents_of, parts_of
from rein.text.documents import Document, Dropped, n_utf8_bytes
from rein.text.engine import Advance, Engine, Record, Task, stage_key
from rein.text.grams import Grams, Group, Ints, find, gather, grouped, normalise
from rein.text.store import load, load_once, save, whole

LEAST, LEAST_SYNTHETIC, MOST = 8, 2, 13  # words of a gram
PERCENTILE = 5  # of the examples' lengths
WINDOW_CHARS = 200  # shown on each side of a match
SHOWN = 10  # matches of a task, the longest ones
SHOWN_CHARS = 600  # of a match
SHOWN_GRAMS = 5  # of an example
BYTES_PER_S = 40e6  # what one core searches, roughly

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int32]


# --------------------------------------------------------------------------------------------------- examples


@dataclass(frozen=True)
class Example:
    """The text of one example, in the order in which it is read.

    `asked_words` is how many words it has as it is put to a model, with "Question:" and the like: N is a percentile
    of lengths, and those that the paper prints count them. 0: its own words are all.
    """

    passage: str = ""
    question: str = ""
    answer: str = ""
    asked_words: int = 0


def n_words(text: str) -> int:
    """How many words a text has, as grams count them.

    Example  >>> n_words("Q: Don't stop?"), n_words(" … ")
             (4, 0)
    """
    words = normalise(text)
    return words.count(" ") + 1 if words else 0


def gram_words(lengths: Sequence[int], *, synthetic: bool = False) -> int:
    """N of a task: the length of its short examples, in words.

        N = min(13, max(8, 5th percentile of the lengths)),   at least 2 instead of 8 for synthetic tasks

    Example  >>> gram_words([6, 20, 30]), gram_words([11] * 20 + [40]), gram_words([50])
             (8, 11, 13)
    Source   Brown 2020, Appendix C. The 2 is read off Table C.1.
    """
    least = LEAST_SYNTHETIC if synthetic else LEAST
    if not lengths:
        return least
    return int(min(MOST, max(least, np.percentile(lengths, PERCENTILE, method="lower"))))


# ------------------------------------------------------------------------------------------------------ grams


@dataclass(frozen=True)
class Owner:
    """Whose grams a set of a table is: of an example's passage alone, or those that reach into what is asked."""

    task: str
    example: int
    asked: bool


@dataclass(frozen=True, eq=False)
class Tables:
    """The grams of all examples: `grams[t]` those of one N, smallest first; `owners[t][s]` whose its set s is.

    Units    memory: some 40 bytes a gram and 4 a character of the examples, in each process.
    """

    n: dict[str, int]  # of each task
    short: dict[str, int]  # how many examples of each task have fewer words than N
    examples: dict[str, int]
    grams: list[Grams]
    owners: list[list[list[Owner]]]

    def save(self, folder: Path) -> Path:
        """Writes the grams for the workers to read. Returns the file that lists them."""
        for grams in self.grams:
            grams.save(folder / f"{grams.n}.npz")
        path = folder / "tables.json"
        with whole(path) as file:
            file.write(json.dumps([grams.n for grams in self.grams]).encode())
        return path

    def sha256(self) -> str:
        """A hash of the grams and of the task of each."""
        all_of_it = hashlib.sha256()
        for grams in self.grams:
            all_of_it.update(json.dumps([grams.n, [one.name for one in grams.sets]]).encode())
            for array in (grams.hashes, grams.set_starts, grams.set_ids):
                all_of_it.update(array.tobytes())
        return all_of_it.hexdigest()


def tables_of(examples: Mapping[str, Sequence[Example]], synthetic: frozenset[str] = frozenset()) -> Tables:
    """The grams of each task's examples, those of all tasks with one N together.

    A set of a table is one text of one task: what several examples share (a passage) is searched once.
    """
    n_of, short, texts = dict[str, int](), dict[str, int](), dict[int, dict[tuple[str, str], list[Owner]]]()
    for task, of_task in examples.items():
        cut = [[normalise(part) for part in (one.passage, one.question, one.answer)] for one in of_task]
        lengths = [sum(part.count(" ") + 1 for part in parts if part) for parts in cut]
        asked = [max(length, one.asked_words) for length, one in zip(lengths, of_task, strict=True)]
        n = n_of[task] = gram_words(asked, synthetic=task in synthetic)
        short[task] = sum(length < n for length in lengths)
        for at, (parts, length) in enumerate(zip(cut, lengths, strict=True)):
            for text, is_asked in _texts(parts, min(n, length)):
                texts.setdefault(min(n, length), {}).setdefault((task, text), []).append(Owner(task, at, is_asked))
    ordered = sorted(texts)
    return Tables(
        n_of,
        short,
        {task: len(of_task) for task, of_task in examples.items()},
        [gather([(task, [[text]]) for task, text in texts[n]], n) for n in ordered],
        [list(texts[n].values()) for n in ordered],
    )


def _texts(parts: Sequence[str], n: int) -> Iterator[tuple[str, bool]]:
    """The texts whose grams are an example's: its passage; then the rest, behind the passage's last n − 1 words.

    Example  >>> list(_texts(["a b c d", "e f", "g"], 3))
             [('a b c d', False), ('c d e f g', True)]
    """
    if n == 0:
        return
    passage, asked = parts[0], " ".join(filter(None, parts[1:]))
    if passage and passage.count(" ") + 1 >= n:
        yield passage, False
    if asked:
        before = passage.rsplit(" ", n - 1)
        tail = " ".join(before[1:] if len(before) == n else before)
        yield f"{tail} {asked}".strip(), True


# ------------------------------------------------------------------------------------------------------ search


@dataclass
class Match:
    """A stretch of training text that an example has, too: grams of one set that overlap each other."""

    table: int
    set: int
    chars: int
    document: str
    before: str
    text: str
    after: str

    @property
    def rank(self) -> tuple[int, int, int]:
        """Longest first; of equals, always the same first."""
        return -self.chars, self.table, self.set


@dataclass
class Found:
    """What is found of all grams in some training text.

    Shapes   documents[t], first[t] (G,): in how many documents each gram of a table is, and which of `ids` names the
             first of them, or −1.
    """

    groups: Sequence[Group]
    n_documents: int = 0
    n_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)  # of documents with a gram
    documents: list[Counts] = field(init=False)
    first: list[Ints] = field(init=False)
    longest: dict[tuple[int, int], Match] = field(default_factory=dict)  # by table and set
    grams: list[Grams] = field(init=False)

    def __post_init__(self) -> None:
        self.grams = [grams for group in self.groups for grams in group.tables]
        self.documents = [np.zeros(len(grams), dtype=np.int32) for grams in self.grams]
        self.first = [np.full(len(grams), -1, dtype=np.int64) for grams in self.grams]

    def add(self, document: Document | Dropped) -> None:
        """Searches one document."""
        if isinstance(document, Dropped):
            self.dropped[document.reason] = self.dropped.get(document.reason, 0) + 1
            return
        self.n_documents += 1
        self.n_bytes += n_utf8_bytes(document.text)
        of_tables = find(document.text, self.groups)
        if not any(map(len, of_tables)):
            return
        self.ids.append(document.id)
        for table, hits in enumerate(of_tables):
            if len(hits):
                here = np.unique(hits[:, 0])
                self.documents[table][here] += 1
                self.first[table][here[self.first[table][here] < 0]] = len(self.ids) - 1
                self._look_at(document, table, hits)

    def _look_at(self, document: Document, table: int, hits: Ints) -> None:
        """Keeps the longest stretch of each set."""
        text = document.text
        for one, start, end in _stretches(hits, self.grams[table]).tolist():
            known = self.longest.get((table, one))
            if known is None or end - start > known.chars:
                self.longest[table, one] = Match(
                    table,
                    one,
                    end - start,
                    document.id,
                    text[max(0, start - WINDOW_CHARS) : start],
                    text[start : min(end, start + SHOWN_CHARS)],
                    text[end : end + WINDOW_CHARS],
                )

    def matches(self) -> dict[str, list[Match]]:
        """The longest matches of each task, at most SHOWN of them."""
        found: dict[str, list[Match]] = {}
        for match in sorted(self.longest.values(), key=lambda one: one.rank):
            task = self.grams[match.table].sets[match.set].name
            if len(found.setdefault(task, [])) < SHOWN:
                found[task].append(match)
        return found

    def save(self, folder: Path, name: str) -> Record:
        """NAME.npy: (F, 4) int64: table, gram, documents, first; NAME.found.json the ids and matches."""
        rows = [
            np.stack([np.full(len(at), table), at, self.documents[table][at], self.first[table][at]], axis=1)
            for table, at in ((table, np.flatnonzero(counts)) for table, counts in enumerate(self.documents))
        ]
        save(folder / f"{name}.npy", np.concatenate([np.zeros((0, 4), dtype=np.int64), *rows]))
        matches = [asdict(match) for of_task in self.matches().values() for match in of_task]
        with whole(folder / f"{name}.found.json") as file:
            file.write(json.dumps({"ids": self.ids, "matches": matches}).encode("utf-8", "surrogatepass"))
        return {"documents": self.n_documents, "bytes": self.n_bytes, "dropped": self.dropped}

    def merge(self, folder: Path, name: str, record: Record) -> None:
        """Adds what `save` wrote of the text that follows this one."""
        self.n_documents += record["documents"]
        self.n_bytes += record["bytes"]
        for reason, count in record["dropped"].items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        about = json.loads((folder / f"{name}.found.json").read_bytes())
        rows, known = load(folder / f"{name}.npy"), len(self.ids)
        self.ids += about["ids"]
        for table in range(len(self.grams)):
            grams, counts, first = rows[rows[:, 0] == table, 1:].T
            self.documents[table][grams] += counts.astype(np.int32)
            new = self.first[table][grams] < 0
            self.first[table][grams[new]] = first[new] + known
        for values in about["matches"]:
            match = Match(**values)
            other = self.longest.get((match.table, match.set))
            if other is None or match.chars > other.chars:
                self.longest[match.table, match.set] = match


def _stretches(hits: Ints, grams: Grams) -> Ints:
    """(R, 3): set, start, end of each stretch of text in which grams of a set overlap each other."""
    first = grams.set_starts[hits[:, 0]]
    count = grams.set_starts[hits[:, 0] + 1] - first
    row = np.repeat(np.arange(len(hits)), count)  # a hit once for each set that has its gram
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    sets = grams.set_ids[np.repeat(first, count) + within].astype(np.int64)
    order = np.lexsort((row, sets))
    sets, starts, ends = sets[order], hits[row[order], 1], hits[row[order], 2]
    begins = np.ones(len(sets), dtype=bool)
    begins[1:] = (sets[1:] != sets[:-1]) | (starts[1:] >= ends[:-1])
    return np.stack([sets[begins], starts[begins], ends[np.append(begins[1:], True)]], axis=1)


def search(folder: Path, task: dict[str, Any], advance: Advance) -> Record:
    """What one part of the training text holds: the function that the engine calls."""
    found = Found(load_once(_load_groups, task["tables"]))
    for document in documents_of(task["part"], advance):
        found.add(document)
    return found.save(folder, task["name"])


def _load_groups(path: Path) -> list[Group]:
    return grouped([Grams.load(path.parent / f"{n}.npz") for n in json.loads(path.read_text(encoding="utf-8"))])


# ------------------------------------------------------------------------------------------------------ result


@dataclass(frozen=True, eq=False)
class Collisions:
    """What the training text holds of a task.

    Shapes   passage_E, asked_E: whether a gram of the example's passage alone was found, and one that reaches into
             its question or answer; found_E, grams_E: how many of its grams were, of how many. A gram of the
             passage that comes again in the rest counts twice.
    """

    n: int
    short: int
    passage_E: Bools
    asked_E: Bools
    found_E: Ints
    grams_E: Ints
    examples: dict[int, list[dict[str, Any]]]  # of each with a gram: the grams that the most documents have
    matches: list[dict[str, Any]]

    @property
    def dirty_E(self) -> Bools:
        """Whether any gram of the example was found."""
        return self.passage_E | self.asked_E


def analyse(
    examples: Mapping[str, Sequence[Example]],
    documents: Iterable[Document],
    *,
    synthetic: frozenset[str] = frozenset(),
) -> dict[str, Collisions]:
    """Which examples of each task some documents hold.

    Example  >>> text = "He wrote: the cat sat on the mat and slept all day long."
             >>> toy = [Example(question="The cat sat on the mat and slept all day"), Example(question="It was not I")]
             >>> analyse({"toy": toy}, [Document(text, "1", "")])["toy"].dirty_E.tolist()
             [True, False]
    """
    tables = tables_of(examples, synthetic)
    found = Found(grouped(tables.grams))
    for document in documents:
        found.add(document)
    return collisions(tables, found)


def analyse_corpora(
    examples: Mapping[str, Sequence[Example]],
    corpora: Sequence[Path],
    work: Path,
    *,
    synthetic: frozenset[str] = frozenset(),
    workers: int | None = None,
    text_field: str = "text",
) -> tuple[dict[str, Collisions], Found]:
    """The same of whole corpora, by several processes. `work` keeps what is done, for a search that was interrupted.

    Raises   UserError when a corpus cannot be read, or `work` not be written.
    """
    parts, text_key = parts_of(corpora, text_field=text_field)
    tables = tables_of(examples, synthetic)
    work.mkdir(parents=True, exist_ok=True)
    listed = tables.save(work)
    tasks = [
        Task(
            f"{at:06d}",
            part["bytes"],
            {"name": f"{at:06d}", "tables": str(listed.resolve()), "part": part},
            BYTES_PER_S,
        )
        for at, part in enumerate(parts)
    ]
    engine, folder = Engine(workers or len(os.sched_getaffinity(0))), work / "search"
    key = stage_key("search", tables.sha256(), text_key, parts)
    records = engine.run(folder, "searching the training text", "rein.evals.overlap:search", tasks, key)
    found = Found(grouped(tables.grams))
    for task, record in zip(tasks, records, strict=True):
        found.merge(folder, task.name, record)
    return collisions(tables, found), found


def collisions(tables: Tables, found: Found) -> dict[str, Collisions]:
    """What was found of each task."""
    result, matches = dict[str, Collisions](), found.matches()
    for task, count in tables.examples.items():
        passage_E, asked_E = np.zeros((2, count), dtype=bool)
        found_E, grams_E = np.zeros((2, count), dtype=np.int64)
        shown = [_shown(match, tables) for match in matches.get(task, [])]
        result[task] = Collisions(tables.n[task], tables.short[task], passage_E, asked_E, found_E, grams_E, {}, shown)
    for table, (grams, owners) in enumerate(zip(tables.grams, tables.owners, strict=True)):
        n_grams = np.bincount(grams.set_ids, minlength=len(owners)).tolist()
        found_of = _found_of_sets(grams, found.documents[table])
        for one, owner in ((one, owner) for one, of_set in enumerate(owners) for owner in of_set):
            of_task, example, here = result[owner.task], owner.example, found_of.get(one, [])
            of_task.grams_E[example] += n_grams[one]
            of_task.found_E[example] += len(here)
            if here:
                (of_task.asked_E if owner.asked else of_task.passage_E)[example] = True
                known = of_task.examples.setdefault(example, [])
                known += [_about(gram, table, found) for gram in _commonest(here, found.documents[table])]
    for of_task in result.values():
        for known in of_task.examples.values():
            known[:] = sorted(known, key=lambda about: -about["documents"])[:SHOWN_GRAMS]
    return result


def _found_of_sets(grams: Grams, documents: Counts) -> dict[int, list[int]]:
    """By set, its grams that are in any document."""
    in_sets = np.repeat(np.arange(len(grams)), np.diff(grams.set_starts))
    there = documents[in_sets] > 0
    of_sets: dict[int, list[int]] = {}
    for one, gram in zip(grams.set_ids[there].tolist(), in_sets[there].tolist(), strict=True):
        of_sets.setdefault(one, []).append(gram)
    return of_sets


def _commonest(grams: list[int], documents: Counts) -> list[int]:
    return sorted(grams, key=lambda gram: (-int(documents[gram]), gram))[:SHOWN_GRAMS]


def _about(gram: int, table: int, found: Found) -> dict[str, Any]:
    return {
        "gram": found.grams[table].text(gram),
        "documents": int(found.documents[table][gram]),
        "document": found.ids[int(found.first[table][gram])],
    }


def _shown(match: Match, tables: Tables) -> dict[str, Any]:
    """A match with the examples that have it, by their numbers."""
    owners = tables.owners[match.table][match.set]
    return {
        "examples": [owner.example for owner in owners],
        "in": "question or answer" if owners[0].asked else "passage",
        "document": match.document,
        "before": match.before,
        "text": match.text,
        "cut": max(0, match.chars - SHOWN_CHARS),
        "after": match.after,
    }
