"""Projects and what they ask about: settings in, items in, batches frozen.

Flow     `Project` → `create_project` → its number
         `NewItem`s of an importer → `add_items` → items in the queue
         a researcher's changes → `change_item`, `set_priorities`, `freeze`, `close_project`

Works on a connection of the store; each is one transaction, or part of one.

An item of role `work` has room for `wanted` people. Items of the other roles are given to everybody, once each, and
always have room. A closed item and one of a frozen batch have none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import EllipsisType
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, delete, func, insert, null, select, update

from rein.errors import suggestion
from rein.feedback.kinds import KINDS, BadValue, check_question
from rein.feedback.project import MAX_SHOWN, Project, Question
from rein.feedback.queue import ROOM, refresh, upsert
from rein.feedback.refused import MOST_ID, MOST_KEY, Refused, is_id, unstorable
from rein.feedback.tables import ITEM_ROLES, batch, cursor, feedback, item, project

Json = Any
T = TypeVar("T")

MOST_ITEM = 1_000_000  # characters of an item's context, or of one candidate
_OTHER_NAME = "Ask the new one under another name."
_AT_ONCE = 500  # rows of a statement
_SHARES = ("calibration_share", "gold_share", "repeat_share", "drift_share")
_FRACTIONS = (*_SHARES, "uniform_share", "pass_agreement")
# (setting, least, most): whole numbers
_RANGES = (
    ("overlap", 1, 1000), ("lease_s", 1, 10**7), ("ahead", 1, 50), ("onboarding", 0, 10_000),
    ("seed", -MOST_ID, MOST_ID),
)  # fmt: skip


@dataclass(frozen=True)
class NewItem:
    """An item as an importer brings it."""

    key: str  # the importer's own name of it: the same one again is the same item
    context: Mapping[str, Json]
    candidates: Sequence[Mapping[str, Json]]  # [{"text": …, "policy": …}, …]
    role: str = "work"
    batch: str = "batch1"
    split: str = "train"
    gold: Mapping[str, Json] | None = None  # {"answers": {question: value by candidate}, "why": …}
    extra: Mapping[str, Json] = field(default_factory=dict)
    wanted: int | None = None  # None: as many people as the project says; other roles than work: everybody
    priority: float = 0.0
    document: int | None = None


@dataclass(frozen=True)
class Added:
    """How many items came in, and how many were there already."""

    added: int
    known: int


# ------------------------------------------------------------------------------------------------- draws


def draw(*parts: object) -> int:
    """63 bits that depend on the parts alone, on every machine and with every version.

    Example  >>> draw("order", 0, 1, 2) == draw("order", 0, 1, 2) != draw("order", 0, 1, 3)
             True
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def share(*parts: object) -> float:
    """The same as a number in [0, 1)."""
    return (draw(*parts) >> 10) / 2**53


# ---------------------------------------------------------------------------------------------- projects


def create_project(conn: Connection, now: int, settings: Project) -> int:
    """Makes a project; returns its number.

    Raises   Refused: bad_value for settings that are none, or a name that is taken.
    """
    _check_project(settings)
    if conn.execute(select(project.c.id).where(project.c.name == settings.name)).first():
        raise Refused("bad_value", f"There is a project {settings.name} already.")
    row = {"name": settings.name, "settings": settings.to_json(), "closed": False, "created_ms": now}
    return int(conn.execute(insert(project).returning(project.c.id), row).scalar_one())


def change_project(conn: Connection, now: int, project_id: int, settings: Project) -> None:
    """Gives a project other settings. What was answered keeps what it was asked; items keep how many they want.

    Raises   Refused: unknown; bad_value also for a question of another kind than what there is under its name:
             answers, taken back or of a question that was asked no more, and right answers.
    """
    _check_project(settings)
    _, before = load_project(conn, project_id)
    if settings.seed != before.seed or settings.order != before.order:
        raise Refused("bad_value", "The order of a project's items is fixed when it is made: seed and order stay.")
    kinds = {question.name: question.kind for question in before.questions}
    for question in settings.questions:
        if kinds.get(question.name, question.kind) != question.kind:
            raise Refused(
                "bad_value",
                f"The question {question.name} is of kind {kinds[question.name]} and its answers are too. "
                f"{_OTHER_NAME}",
            )
    for question in settings.questions:
        if question.name not in kinds and (other := _other_kind(conn, project_id, question)):
            raise Refused("bad_value", f"The question {question.name} was asked before, and has {other}. {_OTHER_NAME}")
    taken = select(project.c.id).where(project.c.name == settings.name, project.c.id != project_id)
    if conn.execute(taken).first():
        raise Refused("bad_value", f"There is a project {settings.name} already.")
    row = {"name": settings.name, "settings": settings.to_json()}
    conn.execute(update(project).where(project.c.id == project_id).values(row))


def _other_kind(conn: Connection, project_id: int, question: Question) -> str:
    """What there is under a question's name that is none of its kind's; empty when there is nothing."""
    said = select(feedback.c.kind).where(
        feedback.c.project == project_id, feedback.c.question == question.name, feedback.c.kind != question.kind
    )
    if found := conn.execute(said.limit(1)).scalar():
        return f"answers of kind {found}"
    known = select(item.c.key, item.c.gold, item.c.candidates).where(
        item.c.project == project_id, item.c.gold.is_not(None)
    )
    asking = Project("", questions=(question,))
    for key, gold, candidates in conn.execute(known):
        right = {name: value for name, value in gold["answers"].items() if name == question.name}
        if right and _wrong_gold(asking, {"answers": right}, len(candidates)):
            return f"a right answer of another kind at item {key}"
    return ""


def load_project(conn: Connection, name: str | int) -> tuple[int, Project]:
    """A project by its name or number.

    Raises   Refused: unknown.
    """
    number, settings, _ = project_row(conn, name)
    return number, settings


def project_row(conn: Connection, name: str | int) -> tuple[int, Project, bool]:
    """The same, with whether it is closed."""
    if isinstance(name, int) and not is_id(name):
        raise Refused("unknown", f"There is no project {name}.")
    by = project.c.id == name if isinstance(name, int) else project.c.name == name
    usable = isinstance(name, int) or not unstorable(name)
    row = conn.execute(select(project.c.id, project.c.settings, project.c.closed).where(by)).first() if usable else None
    if row is None:
        names = conn.execute(select(project.c.name).order_by(project.c.name).limit(20)).scalars()
        known = suggestion(str(name), names)
        raise Refused("unknown", f"There is no project {name!r}. {known}")
    return row.id, Project.from_json(row.settings), row.closed


def close_project(conn: Connection, project_id: int, closed: bool) -> None:
    """A closed project hands out nothing; what is out may still be handed in."""
    load_project(conn, project_id)
    conn.execute(update(project).where(project.c.id == project_id).values(closed=closed))


def _check_project(settings: Project) -> None:
    def refuse(text: str) -> Refused:
        return Refused("bad_value", text)

    if not 0 < len(settings.name) <= 100 or not settings.name.isprintable() or "/" in settings.name:
        raise refuse("A project's name has 1 to 100 printable characters, and no slash.")
    if why := unstorable(settings.to_json()):
        raise refuse(f"These settings cannot be kept: {why}.")
    for name, low, high in _RANGES:
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise refuse(f"{name} is {value!r}, but a whole number from {low} to {high} is expected.")
    for name in _FRACTIONS:
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise refuse(f"{name} is {value!r}, but a share from 0 to 1 is expected.")
    if sum(getattr(settings, name) for name in _SHARES) > 1:
        raise refuse(f"{', '.join(_SHARES)} are shares of one whole, but together they are above 1.")
    if not isinstance(settings.pass_median_s, int | float) or not 0 <= settings.pass_median_s < math.inf:
        raise refuse(f"pass_median_s is {settings.pass_median_s!r}, but seconds are expected; 0 for no limit.")
    if settings.order not in ("seeded", "given") or settings.diff not in ("off", "on", "never"):
        raise refuse("order is seeded or given; diff is off, on or never.")
    _check_questions(settings.questions)


def _check_questions(questions: Sequence[Question]) -> None:
    names = [question.name for question in questions]
    if not names or len(set(names)) < len(names):
        raise Refused("bad_value", "A project asks one or more questions, each of another name.")
    for question in questions:
        if not 0 < len(question.name) <= 100 or not question.name.isprintable() or question.name == "notes":
            raise Refused(
                "bad_value",
                f"A question's name has 1 to 100 printable characters and is not notes, but one is {question.name!r}.",
            )
        try:
            check_question(question)
        except BadValue as error:
            raise Refused("bad_value", f"{error.problem}.") from error


# ------------------------------------------------------------------------------------------------- items


def problem_of(settings: Project, new: NewItem) -> str:
    """Why a project cannot take an item; empty when it can. For importers, who say on which line it was."""
    if not isinstance(new.key, str) or not 0 < len(new.key) <= MOST_KEY:
        return f"its key is not a text of 1 to {MOST_KEY} characters"
    if new.role not in ITEM_ROLES:
        return f"its role is {new.role!r}. {suggestion(str(new.role), ITEM_ROLES)}"
    for name in ("batch", "split"):
        if not 0 < len(getattr(new, name)) <= 100 or not getattr(new, name).isprintable():
            return f"its {name} is not a name of 1 to 100 printable characters"
    texts = [one.get("text") if isinstance(one, Mapping) else None for one in new.candidates]
    if not all(isinstance(text, str) for text in texts):
        return "a candidate has no text"
    if sum(len(text) for text in texts if text) > MOST_ITEM or _length(new.context) > MOST_ITEM:
        return f"it is longer than {MOST_ITEM:,} characters"
    if why := unstorable((new.key, new.batch, new.split, new.context, new.candidates, new.gold, new.extra)):
        return why
    if new.wanted is not None and not 0 < new.wanted <= 1000:
        return f"it wants {new.wanted} people, but 1 to 1000 are possible"
    if not math.isfinite(new.priority):
        return f"its priority is {new.priority}, but a finite number is expected"
    return _misfit(settings, new, len(texts))


def _misfit(settings: Project, new: NewItem, n: int) -> str:
    for question in settings.questions:
        kind = KINDS[question.kind]
        if not kind.least <= n <= min(kind.most, MAX_SHOWN):
            most = min(kind.most, MAX_SHOWN)
            needed = f"{kind.least}" if most == kind.least else f"{kind.least} to {most}"
            return f"it has {n} candidates, but the question {question.name} ({question.kind}) needs {needed}"
    if new.gold is None:
        return "a practice item needs its right answers (gold)" if new.role == "onboarding" else ""
    return _wrong_gold(settings, new.gold, n)


def _wrong_gold(settings: Project, gold: Mapping[str, Json], n: int) -> str:
    answers = gold.get("answers") if isinstance(gold, Mapping) else None
    if not isinstance(answers, Mapping) or set(gold) - {"answers", "why"} or not isinstance(gold.get("why", ""), str):
        return 'its gold is not {"answers": {question: value}, "why": text}'
    names = [question.name for question in settings.questions]
    for name, value in answers.items():
        if name not in names:
            return f"its gold answers a question {name!r}. {suggestion(str(name), names)}"
        question = settings.question(name)
        try:
            KINDS[question.kind].check(value, question, n, strict=False)
        except BadValue as error:
            return f"its gold answer to {name}: {error.problem}"
    return ""


def _length(value: Json) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_length(one) for one in value.values())
    return sum(_length(one) for one in value) if isinstance(value, list | tuple) else 8


def add_items(conn: Connection, now: int, project_id: int, rows: Iterable[NewItem]) -> Added:
    """Puts items into the queue, all of them or none. A key that is there already is known, and changes nothing.

    Raises   Refused: unknown for the project; bad_value for an item that the project cannot take, and for a key that
             is there with another context or other candidates.
    """
    _, settings = load_project(conn, project_id)
    batches: dict[str, int] = {}
    added = known = 0
    # In the order in which they come, after what is there: items are never removed.
    place = (conn.execute(select(func.max(item.c.id))).scalar() or 0) + 1
    levels: set[tuple[str, int]] = set()
    for some in _in_parts(rows):
        there = _there(conn, project_id, [new.key for new in some if isinstance(new.key, str)])
        fresh: list[dict[str, Json]] = []
        for new in some:
            if why := problem_of(settings, new):
                raise Refused("bad_value", f"Item {new.key!r} cannot be taken: {why}.")
            content = (_plain(new.context), _plain(new.candidates))
            if there.setdefault(new.key, content) is not content:
                if there[new.key] != content:
                    raise Refused("bad_value", f"Item {new.key!r} is there already, with another text.")
                known += 1
                continue
            row = _row(conn, now, project_id, settings, new, place + len(fresh), batches)
            levels.add((new.role, row["room"]))
            fresh.append(row)
        if fresh:
            conn.execute(insert(item), fresh)
        added += len(fresh)
        place += len(fresh)
    for role, room in levels:
        conn.execute(
            delete(cursor).where(cursor.c.project == project_id, cursor.c.role == role, cursor.c.room.in_((0, room)))
        )
    return Added(added, known)


def _there(conn: Connection, project_id: int, keys: list[str]) -> dict[str, tuple[Json, Json]]:
    usable = [key for key in keys if not unstorable(key)]
    found = conn.execute(
        select(item.c.key, item.c.context, item.c.candidates).where(
            item.c.project == project_id, item.c.key.in_(usable)
        )
    )
    return {key: (context, candidates) for key, context, candidates in found}


def _in_parts(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while some := list(islice(left, _AT_ONCE)):
        yield some


def _plain(value: Json) -> Json:
    """As it comes back from a database: tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _row(
    conn: Connection, now: int, project_id: int, settings: Project, new: NewItem, place: int, batches: dict[str, int]
) -> dict[str, Json]:
    if new.batch not in batches:
        batches[new.batch] = _open_batch(conn, now, project_id, new.batch)
    work = new.role == "work"
    wanted = (new.wanted or settings.overlap) if work else 0
    # Practice has a course; everything else an order that nobody made, unless the project wants the given one.
    given = settings.order == "given" or new.role == "onboarding"
    return {
        "project": project_id, "batch": batches[new.batch], "document": new.document, "key": new.key, "role": new.role,
        "split": new.split, "context": _plain(new.context), "candidates": _plain(new.candidates),
        "gold": null() if new.gold is None else _plain(new.gold), "extra": _plain(new.extra), "wanted": wanted,
        "done": 0, "room": wanted if work else 1, "priority": new.priority,
        "place": place if given else draw("place", settings.seed, new.key), "closed": False, "created_ms": now,
    }  # fmt: skip


def _open_batch(conn: Connection, now: int, project_id: int, name: str) -> int:
    made = {"project": project_id, "name": name, "created_ms": now}
    conn.execute(upsert(conn.dialect.name, batch).on_conflict_do_nothing(), made)
    where = (batch.c.project == project_id, batch.c.name == name)
    row = conn.execute(select(batch.c.id, batch.c.frozen_ms).where(*where)).one()
    if row.frozen_ms is not None:
        raise Refused("frozen", f"The batch {name} is frozen. Choose another one for new items.")
    return int(row.id)


# ----------------------------------------------------------------------------------------------- changes


def change_item(
    conn: Connection,
    item_id: int,
    *,
    gold: Mapping[str, Json] | EllipsisType | None = ...,
    priority: float | None = None,
    closed: bool | None = None,
    role: str | None = None,
    wanted: int | None = None,
) -> None:
    """Changes what a researcher may change of an item. None leaves it as it is; a gold of None is known no more.

    Raises   Refused: unknown; bad_value.
    """
    if not is_id(item_id):
        raise Refused("unknown", f"There is no item {item_id}.")
    found = conn.execute(select(item).where(item.c.id == item_id)).mappings().first()
    if found is None:
        raise Refused("unknown", f"There is no item {item_id}.")
    _, settings = load_project(conn, found["project"])
    changed: dict[str, Json] = {
        name: value
        for name, value in (("priority", priority), ("closed", closed), ("role", role), ("wanted", wanted))
        if value is not None
    }
    if gold is not ...:
        changed["gold"] = gold
    row = {**found, **changed}
    if role is not None and wanted is None:
        changed["wanted"] = row["wanted"] = max(found["wanted"] or settings.overlap, 1) if role == "work" else 0
    new = NewItem(
        row["key"], row["context"], row["candidates"], row["role"], gold=row["gold"], priority=row["priority"],
        wanted=row["wanted"] or None,
    )  # fmt: skip
    if why := problem_of(settings, new):
        raise Refused("bad_value", f"The item cannot be changed like this: {why}.")
    if changed:
        conn.execute(update(item).where(item.c.id == item_id).values(changed))
        refresh(conn, item_id)


def set_priorities(conn: Connection, project_id: int, priorities: Mapping[int, float]) -> None:
    """Gives items of a project another priority: within equal room, the higher ones are handed out first.

    Raises   Refused: bad_value for a priority that is no finite number.
    """
    for number, priority in priorities.items():
        if not is_id(number) or not math.isfinite(priority):
            raise Refused("bad_value", f"The priority of item {number} is {priority}, but a finite number is expected.")
    one = (
        update(item)
        .where(item.c.id == bindparam("number"), item.c.project == project_id)
        .values(priority=bindparam("new"))
    )
    rows = [{"new": priority, "number": number} for number, priority in priorities.items()]
    for some in _in_parts(rows):
        conn.execute(one, some)
    conn.execute(delete(cursor).where(cursor.c.project == project_id, cursor.c.room > 0))


def freeze(conn: Connection, now: int, project_id: int, name: str, frozen: bool) -> None:
    """A frozen batch takes no more changes and hands out nothing; what is still out is kept when it comes, uncounted.

    Raises   Refused: unknown.
    """
    where = (batch.c.project == project_id, batch.c.name == name)
    number = None if unstorable(name) else conn.execute(select(batch.c.id).where(*where)).scalar()
    if number is None:
        raise Refused("unknown", f"There is no batch {name!r} in this project.")
    conn.execute(update(batch).where(batch.c.id == number).values(frozen_ms=now if frozen else None))
    of_batch = (item.c.project == project_id, item.c.batch == number)
    if frozen:
        conn.execute(update(item).where(*of_batch, item.c.room > 0).values(room=0))
    else:
        conn.execute(update(item).where(*of_batch).values(room=ROOM))
        conn.execute(delete(cursor).where(cursor.c.project == project_id))
