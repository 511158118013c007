"""The tables of the feedback store: what was said, which never changes, and what is being asked of whom, which does.

    project ─┬─ instruction     the guideline beside the task, by version
             ├─ batch           items that came together; a frozen one takes no more changes
             ├─ document        what an imported file held besides items, so that it can be written again
             └─ item ─┬─ assignment ── feedback    append-only: one row for each question that was answered
                      └─ thread                    a labeler's question about an item, and the reply
    person ─┬─ member            of a project: in training, at work, stopped
            ├─ cursor            how far this person has come in the queue of a project
            └─ session, invite, message, seen
    submission                   the key that a client gave a request, and what it was answered: a retry counts once
    answer                       which row of feedback stands for an assignment's question now, with what it measures
    audit                        who did what to people, projects, items and exports
    secret                       what pseudonyms are made with, where the store is no file

`feedback` is the truth: a change of mind, an undo and a skip are rows of their own, and nothing is ever updated or
deleted in it; the database itself refuses to. `answer` can be computed anew from it. Times are milliseconds since 1970,
in UTC. The same tables are in SQLite and in PostgreSQL; migrations/ makes them.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows only in columns that say INTEGER; PostgreSQL's INTEGER ends at two thousand million.
Id = BigInteger().with_variant(Integer, "sqlite")
# None is then SQL's NULL, which IS NULL finds, and not the four letters of JSON's.
Json = JSON(none_as_null=True)

ROLES = ("labeler", "researcher", "admin")
ITEM_ROLES = ("work", "calibration", "gold", "onboarding", "drift")
STATES = ("open", "submitted", "skipped", "expired", "released")
ACTS = ("say", "revise", "undo", "skip", "note", "event")

project = Table(
    "project",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("settings", JSON, nullable=False),  # project.Project, as JSON
    Column("closed", Boolean, nullable=False, default=False),  # hands out nothing
    Column("created_ms", BigInteger, nullable=False),
)

instruction = Table(
    "instruction",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("version", Integer, nullable=False),  # from 1
    Column("text", Text, nullable=False),
    Column("author", ForeignKey("person.id")),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("project", "version"),
)

batch = Table(
    "batch",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("frozen_ms", BigInteger),  # since when its answers take no more changes
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("project", "name"),
)

document = Table(
    "document",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("format", Text, nullable=False),  # of exchange/
    Column("body", JSON, nullable=False),
    UniqueConstraint("project", "key"),
)

item = Table(
    "item",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("batch", ForeignKey("batch.id"), nullable=False),
    Column("document", ForeignKey("document.id")),
    Column("key", Text, nullable=False),  # the importer's own name of it
    Column("role", Text, nullable=False),  # of ITEM_ROLES; no labeler ever sees it
    Column("split", Text, nullable=False),  # train, valid1, …: by prompt
    Column("context", JSON, nullable=False),  # what the candidates answer: {"title": …, "post": …}
    Column("candidates", JSON, nullable=False),  # [{"text": …, "policy": …}, …]
    Column("gold", Json),  # {"answers": {question: value}, "why": …}: what is right, where that is known
    Column("extra", JSON, nullable=False),  # what an importer could not place
    Column("wanted", Integer, nullable=False),  # answers of different people
    Column("done", Integer, nullable=False, default=0),  # that came in time
    Column("room", Integer, nullable=False),  # wanted − done − open leases, never below 0; 0 once closed
    Column("priority", Float, nullable=False, default=0.0),  # higher first
    Column("place", BigInteger, nullable=False),  # in the seeded order of the project
    Column("closed", Boolean, nullable=False, default=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("project", "key"),
)
# The queue: nearly finished ones first, then by priority, then in the seeded order.
Index("ix_item_queue", item.c.project, item.c.role, item.c.room, item.c.priority.desc(), item.c.place)
# The part of the work that ignores priority.
Index(
    "ix_item_seeded", item.c.project, item.c.role, item.c.place,
    sqlite_where=item.c.room > 0, postgresql_where=item.c.room > 0,
)  # fmt: skip
Index("ix_item_progress", item.c.project, item.c.batch, item.c.role, item.c.done, item.c.wanted)

person = Table(
    "person",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),  # of ROLES
    Column("password", Text),  # argon2id; None: cannot log in by password
    Column("active", Boolean, nullable=False, default=True),
    Column("simulated", Boolean, nullable=False, default=False),
    Column("preferences", JSON, nullable=False),  # keys, shortcuts off, diff on: of the pages
    Column("created_ms", BigInteger, nullable=False),
)

member = Table(
    "member",
    metadata,
    Column("project", ForeignKey("project.id"), primary_key=True),
    Column("person", ForeignKey("person.id"), primary_key=True),
    Column("state", Text, nullable=False),  # training, working, stopped
    Column("since_ms", BigInteger, nullable=False),
    Column("training", Json),  # how the onboarding round went: {"agreed", "of", "median_s"}
    Column("claims", Integer, nullable=False, default=0),  # items given so far: what the next draw is seeded with
    Column("confident", Integer),  # from how far from even on, on the 9-point scale, the labels count as confident
)

# What lies before a cursor was this person's already; without it a claim would pass by all of that again. An item that
# comes in before it, or comes back, takes it back.
cursor = Table(
    "cursor",
    metadata,
    Column("project", ForeignKey("project.id"), primary_key=True),
    Column("role", Text, primary_key=True),  # of ITEM_ROLES
    Column("room", Integer, primary_key=True),  # which part of the queue; 0: the whole, in the seeded order
    Column("person", ForeignKey("person.id"), primary_key=True),
    Column("priority", Float, nullable=False),
    Column("place", BigInteger, nullable=False),
)

session = Table(
    "session",
    metadata,
    Column("token", Text, primary_key=True),  # sha256 of it, in hex
    Column("person", ForeignKey("person.id"), nullable=False),
    Column("kind", Text, nullable=False),  # browser, key
    Column("label", Text, nullable=False, default=""),  # a key's name and first letters
    Column("created_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
Index("ix_session_person", session.c.person)

invite = Table(
    "invite",
    metadata,
    Column("token", Text, primary_key=True),  # sha256 of it, in hex
    Column("role", Text, nullable=False),
    Column("project", ForeignKey("project.id")),  # whose member the guest becomes
    Column("person", ForeignKey("person.id")),  # whom it lets in again; None: a new person
    Column("uses_left", Integer, nullable=False),
    Column("author", ForeignKey("person.id")),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

assignment = Table(
    "assignment",
    metadata,
    Column("id", Id, primary_key=True),
    Column("item", ForeignKey("item.id"), nullable=False),
    Column("person", ForeignKey("person.id"), nullable=False),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("turn", Integer, nullable=False, default=0),  # 1: the same person again, sides mirrored
    Column("state", Text, nullable=False),  # of STATES
    Column("order", JSON, nullable=False),  # order[place] = the candidate that is shown there
    Column("seed", BigInteger, nullable=False),  # that the order was drawn from
    Column("instruction", ForeignKey("instruction.id")),  # the version that stood beside it
    Column("notes", Json),  # staged reading: the naive interpretations, by candidate
    Column("revealed_ms", BigInteger),  # when the source was shown
    Column("told_ms", BigInteger),  # when the labeler saw what a researcher said, or what is right: no change since
    Column("counted", Boolean, nullable=False, default=False),  # as one of its item's `done`
    Column("revision", Integer, nullable=False, default=0),  # goes up with each row that changes the answer
    Column("claimed_ms", BigInteger, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),  # until when it is theirs
    UniqueConstraint("item", "person", "turn"),
)
Index("ix_assignment_lease", assignment.c.state, assignment.c.lease_ms)
Index("ix_assignment_person", assignment.c.person, assignment.c.project, assignment.c.state, assignment.c.id)

submission = Table(
    "submission",
    metadata,
    Column("person", ForeignKey("person.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("route", Text, nullable=False),
    Column("digest", Text, nullable=False),  # sha256 of the body: the same key with another body is refused
    Column("result", JSON, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("seq", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("item", ForeignKey("item.id"), nullable=False),
    Column("person", ForeignKey("person.id"), nullable=False),
    Column("assignment", ForeignKey("assignment.id")),  # None: imported, or pressed
    Column("key", Text, nullable=False),  # the submission's, shared by its rows
    Column("question", Text, nullable=False),  # of the project; "" where the row is about the whole item
    Column("kind", Text, nullable=False),  # of kinds.KINDS
    Column("version", Integer, nullable=False),  # of the kind's schema
    Column("act", Text, nullable=False),  # of ACTS
    Column("of", ForeignKey("feedback.seq")),  # the row that this one revises or undoes
    Column("value", JSON, nullable=False),  # in the order of the item's candidates, not in that of the screen
    Column("shown", JSON, nullable=False),  # {"order", "seed", "turn", "instruction", "diff", …}: how it was shown
    Column("times", JSON, nullable=False),  # {"active_ms", "reading_ms", …}: as the page measured them
    Column("late", Boolean, nullable=False, default=False),  # after the lease had ended
    Column("extra", JSON, nullable=False),  # what an importer could not place
    Column("at_ms", BigInteger, nullable=False),
    UniqueConstraint("person", "key", "question", "act"),
    sqlite_autoincrement=True,  # a number is never given twice
)
Index("ix_feedback_item", feedback.c.item)
Index("ix_feedback_project", feedback.c.project, feedback.c.seq)

answer = Table(
    "answer",
    metadata,
    # Of feedback that no assignment led to, its own seq, negative.
    Column("assignment", Id, primary_key=True, autoincrement=False),
    Column("question", Text, primary_key=True),
    Column("seq", ForeignKey("feedback.seq"), nullable=False),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("item", ForeignKey("item.id"), nullable=False),
    Column("person", ForeignKey("person.id"), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("choice", Integer),  # of two candidates: 0, 1, or -1 for neither; else the best one's number
    Column("points", Float),  # on the scale of the question, towards candidate 1; a rating; None where there is none
    Column("left_side", Boolean),  # whether the chosen of two was shown first
    Column("longer", Boolean),  # whether the chosen of two is the longer one; None for equal lengths and ties
    Column("active_ms", Integer),
    Column("at_ms", BigInteger, nullable=False),
)
Index("ix_answer_project", answer.c.project, answer.c.question, answer.c.item)
Index("ix_answer_person", answer.c.person, answer.c.project, answer.c.at_ms)
Index("ix_answer_item", answer.c.item)

thread = Table(
    "thread",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("item", ForeignKey("item.id"), nullable=False),
    Column("person", ForeignKey("person.id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("reply", Text),
    Column("replied_by", ForeignKey("person.id")),
    Column("replied_ms", BigInteger),
    Column("pinned", Boolean, nullable=False, default=False),  # shown to all below the instructions
)
Index("ix_thread_project", thread.c.project, thread.c.at_ms)

message = Table(
    "message",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", ForeignKey("project.id"), nullable=False),
    Column("to", ForeignKey("person.id")),  # None: to every labeler of the project
    Column("author", ForeignKey("person.id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

seen = Table(
    "seen",
    metadata,
    Column("person", ForeignKey("person.id"), primary_key=True),
    Column("message", ForeignKey("message.id"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

# Of a store in PostgreSQL: what pseudonyms are made with. One row. A SQLite file has it in a file beside it.
secret = Table(
    "secret",
    metadata,
    Column("id", Id, primary_key=True),
    Column("value", Text, nullable=False),  # 32 bytes, in hexadecimal
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Id, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("person", ForeignKey("person.id")),  # None: the command line
    Column("act", Text, nullable=False),
    Column("about", JSON, nullable=False),
    Column("address", Text, nullable=False),
    sqlite_autoincrement=True,
)
