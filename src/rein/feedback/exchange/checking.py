"""Lines of a file, held to what a project asks, before anything is written.

Flow     `Parsed` of a format's reader, a project → `Ready`: items and records for the store;   or Unreadable, and why
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from rein.errors import suggestion
from rein.feedback.answers import Record
from rein.feedback.exchange.rows import BATCH, ROLE, SPLIT, Asked, Document, Parsed, Said, Unreadable, canonical, digest
from rein.feedback.exchange.seen import HOW, seen_of
from rein.feedback.items import NewItem, draw, problem_of
from rein.feedback.kinds import KINDS, BadValue
from rein.feedback.project import Project, Question
from rein.feedback.refused import MOST_KEY, unstorable

Json = Any


@dataclass(frozen=True)
class Given:
    """What an import says of all its items. Empty: as the file has it.

    `splits` has a share for each name but train, which gets the rest. A prompt is always in the same one.
    """

    batch: str = ""
    role: str = ""
    splits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadyItem:
    """An item with what was said of it."""

    key: str
    new: NewItem | None  # None: it came before
    said: list[tuple[str, Record]]  # who, and what; the item and the person are not numbered yet
    document: str | None  # its key
    closed: bool


@dataclass(frozen=True)
class Ready:
    """A line that the project can take, as far as the line alone can tell."""

    line: int
    items: list[ReadyItem]
    document: Document | None
    about: tuple[str, Json] | None
    size: int  # characters


class Checker:
    """Holds the lines of one file to one project."""

    def __init__(self, settings: Project, given: Given, *, whole: bool = False) -> None:
        """`whole`: what comes in was in a store before, and is to be what it was."""
        self.settings, self.given, self.whole = settings, given, whole
        self.compares = any(question.kind in ("comparison", "ranking", "best_of") for question in settings.questions)
        self.idle: dict[str, set[str]] = {}  # why nothing can be told of items → those that came in with answers
        # Keys of what was said, to tell the second of two equal lines from the first.
        self.met: set[int] = set()
        self.again: dict[str, int] = {}
        self.unseen: dict[str, None] = {}  # fields that labelers are not shown, in the order in which they came

    def check(self, parsed: Parsed, size: int) -> Ready:
        """A line, ready to be put there. Raises Unreadable for one that the project cannot take."""
        if parsed.document and not 0 < len(parsed.document.key) <= MOST_KEY:
            raise Unreadable(
                f"the name of its document has {len(parsed.document.key):,} characters, not 1 to {MOST_KEY}"
            )
        if parsed.document and (why := unstorable(parsed.document.body)):
            raise Unreadable(why)
        items = []
        for found, said in parsed.items:
            asked = self._shown(found)
            new = None if asked.there else self._new_item(asked, bool(said) or self.whole)
            by_person = groupby(sorted(said, key=lambda one: one.person), key=lambda one: one.person)
            records = [(person, one) for person, some in by_person for one in self._records(asked, list(some))]
            items.append(ReadyItem(asked.name, new, records, asked.document, asked.closed))
        return Ready(parsed.line, items, parsed.document, parsed.about, size)

    def _shown(self, asked: Asked) -> Asked:
        """An item whose context has only what labelers may see; the rest is kept beside it.

        Raises   Unreadable where nothing is left of it.
        """
        if asked.loose:
            context, rest = seen_of(asked.context, self.settings.fields)
            if asked.context and not context:
                names = ", ".join(map(repr, list(rest)[:8]))
                raise Unreadable(f"none of its fields is one that labelers are shown, but {names}. {HOW}")
            row = {**rest, **asked.extra.get("row", {})}
            extra = {**asked.extra, **({"row": row} if row else {})}
            asked = replace(asked, context=context, extra=extra, key=asked.name)
        self.unseen |= dict.fromkeys(asked.extra.get("row", {}))
        return asked

    def _new_item(self, asked: Asked, answered: bool) -> NewItem:
        given, split = self.given, asked.split or SPLIT
        if given.splits:
            split = split_of(asked.same or asked.context, self.settings.seed, given.splits)
        new = NewItem(
            asked.name, asked.context, asked.candidates, given.role or asked.role or ROLE,
            given.batch or asked.batch or BATCH, split, asked.gold, asked.extra, asked.wanted, asked.priority,
        )  # fmt: skip
        if why := problem_of(self.settings, new):
            raise Unreadable(why)
        if why := self._idle(new):
            if not answered:
                raise Unreadable(why)
            self.idle.setdefault(why, set()).add(new.key)  # a file of what was said is kept as it is
        return new

    def _idle(self, new: NewItem) -> str:
        """Why an answer to an item would say nothing; empty where it does."""
        texts = {one["text"].strip() for one in new.candidates}
        if self.compares and len(new.candidates) > 1 and len(texts) == 1:
            return "its outputs are all the same text"
        if new.context and not any(str(value).strip() for value in new.context.values() if value is not None):
            return "its prompt is empty"
        return ""

    def _records(self, asked: Asked, said: Sequence[Said]) -> Iterator[Record]:
        """What one person said of an item, under one key."""
        key = self._key(asked, said)
        questions = set[tuple[str, str]]()
        for one in said:
            question = self._question(one)
            if (question.name, one.act) in questions:
                raise Unreadable(f"there are two answers of one person to {question.name}")
            questions.add((question.name, one.act))
            yield Record(
                0, 0, question.name, one.kind, self._value(one, question, asked), one.key or key, one.act, one.shown,
                one.times, one.extra, one.at_ms, one.late, one.of,
            )  # fmt: skip

    def _key(self, asked: Asked, said: Sequence[Said]) -> str:
        if said[0].key:
            return said[0].key
        key = digest([asked.name, [_content(one) for one in said]])
        if (mark := int(key[:15], 16)) not in self.met:
            self.met.add(mark)
            return key
        self.again[key] = times = self.again.get(key, 1) + 1
        return f"{key}.{times}"

    def _question(self, said: Said) -> Question:
        if said.kind not in KINDS:
            raise Unreadable(f"there is no kind {said.kind!r}. {suggestion(said.kind, KINDS)}")
        if said.version is not None and said.version != KINDS[said.kind].version:
            known = KINDS[said.kind].version
            raise Unreadable(f"{said.kind} is of version {said.version}, but this program reads version {known}")
        asked = [question for question in self.settings.questions if question.kind == said.kind]
        by_name = next((question for question in asked if question.name == said.question), None)
        if by_name:
            return by_name
        # Rein's own lines keep the question that was asked, whatever the project asks now.
        if said.key or not KINDS[said.kind].asked:
            return Question(said.question, said.kind)
        if not asked:
            raise Unreadable(f"the project asks no question of kind {said.kind}")
        return asked[0]

    def _value(self, said: Said, question: Question, asked: Asked) -> Mapping[str, Json]:
        if asked.there:  # the store knows how many candidates it has, and checks
            return dict(said.value)
        try:
            return KINDS[said.kind].check(said.value, question, len(asked.candidates), strict=False)
        except BadValue as error:
            raise Unreadable(f"{question.name}: {error.problem}") from None


def split_of(prompt: Json, seed: int, splits: Mapping[str, float]) -> str:
    """The split of a prompt: the same one whatever file or pair it comes in, and whatever else is there.

    Example  >>> split_of({"prompt": "a"}, 0, {"valid": 1.0}), split_of({"prompt": "a"}, 0, {})
             ('valid', 'train')
    """
    place, end = draw("split", seed, canonical(prompt)) / 2**63, 0.0
    for name, share in splits.items():
        end += share
        if place < end:
            return name
    return SPLIT


def _content(said: Said) -> Json:
    return [said.person, said.question, said.kind, said.value, said.act, said.shown, said.times, said.extra, said.at_ms]
