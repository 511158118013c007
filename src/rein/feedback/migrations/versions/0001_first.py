"""The first version: the tables of tables.py as they were at first, and what keeps the append-only ones so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_APPEND_ONLY = ("feedback", "audit")


def upgrade() -> None:
    """Makes every table."""
    _make_tables()
    if op.get_bind().dialect.name == "sqlite":
        op.execute("PRAGMA application_id = 0x5265696E")  # "Rein", for `file` and the like
        for table in _APPEND_ONLY:
            for act in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION rein_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION rein_append_only()"
        )


def _make_tables() -> None:
    op.create_table(
        "person",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("preferences", sa.JSON(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("name", name=op.f("uq_person_name")),
    )
    op.create_table(
        "project",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
    )
    op.create_table(
        "secret",
        sa.Column("id", _ID, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secret")),
    )
    op.create_table(
        "audit",
        sa.Column("seq", _ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("person", _ID, nullable=True),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_audit_person")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "batch",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("frozen_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_batch_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("project", "name", name=op.f("uq_batch_project_name")),
    )
    op.create_table(
        "document",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_document_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document")),
        sa.UniqueConstraint("project", "key", name=op.f("uq_document_project_key")),
    )
    op.create_table(
        "instruction",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", _ID, nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["author"], ["person.id"], name=op.f("fk_instruction_author")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_instruction_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instruction")),
        sa.UniqueConstraint("project", "version", name=op.f("uq_instruction_project_version")),
    )
    op.create_table(
        "invite",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("project", _ID, nullable=True),
        sa.Column("person", _ID, nullable=True),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("author", _ID, nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["author"], ["person.id"], name=op.f("fk_invite_author")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_invite_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_invite_project")),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_invite")),
    )
    op.create_table(
        "member",
        sa.Column("project", _ID, nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("training", sa.JSON(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("confident", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_member_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_member_project")),
        sa.PrimaryKeyConstraint("project", "person", name=op.f("pk_member")),
    )
    op.create_table(
        "cursor",
        sa.Column("project", _ID, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("room", sa.Integer(), nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_cursor_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_cursor_project")),
        sa.PrimaryKeyConstraint("project", "role", "room", "person", name=op.f("pk_cursor")),
    )
    op.create_table(
        "message",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("to", _ID, nullable=True),
        sa.Column("author", _ID, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["author"], ["person.id"], name=op.f("fk_message_author")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_message_project")),
        sa.ForeignKeyConstraint(["to"], ["person.id"], name=op.f("fk_message_to")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
    )
    op.create_table(
        "session",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_session_person")),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_session")),
    )
    op.create_index("ix_session_person", "session", ["person"])
    op.create_table(
        "submission",
        sa.Column("person", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_submission_person")),
        sa.PrimaryKeyConstraint("person", "key", name=op.f("pk_submission")),
    )
    op.create_table(
        "item",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("batch", _ID, nullable=False),
        sa.Column("document", _ID, nullable=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("gold", sa.JSON(), nullable=True),
        sa.Column("extra", sa.JSON(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("room", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batch.id"], name=op.f("fk_item_batch")),
        sa.ForeignKeyConstraint(["document"], ["document.id"], name=op.f("fk_item_document")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_item_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
        sa.UniqueConstraint("project", "key", name=op.f("uq_item_project_key")),
    )
    op.create_index("ix_item_progress", "item", ["project", "batch", "role", "done", "wanted"])
    open_ = sa.text("room > 0")
    op.create_index("ix_item_seeded", "item", ["project", "role", "place"], sqlite_where=open_, postgresql_where=open_)
    op.create_index("ix_item_queue", "item", ["project", "role", "room", sa.literal_column("priority DESC"), "place"])
    op.create_table(
        "seen",
        sa.Column("person", _ID, nullable=False),
        sa.Column("message", _ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["message"], ["message.id"], name=op.f("fk_seen_message")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_seen_person")),
        sa.PrimaryKeyConstraint("person", "message", name=op.f("pk_seen")),
    )
    op.create_table(
        "assignment",
        sa.Column("id", _ID, nullable=False),
        sa.Column("item", _ID, nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("instruction", _ID, nullable=True),
        sa.Column("notes", sa.JSON(), nullable=True),
        sa.Column("revealed_ms", sa.BigInteger(), nullable=True),
        sa.Column("told_ms", sa.BigInteger(), nullable=True),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("claimed_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["instruction"], ["instruction.id"], name=op.f("fk_assignment_instruction")),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_assignment_item")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_assignment_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_assignment_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignment")),
        sa.UniqueConstraint("item", "person", "turn", name=op.f("uq_assignment_item_person_turn")),
    )
    op.create_index("ix_assignment_lease", "assignment", ["state", "lease_ms"])
    op.create_index("ix_assignment_person", "assignment", ["person", "project", "state", "id"])
    op.create_table(
        "thread",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("item", _ID, nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("replied_by", _ID, nullable=True),
        sa.Column("replied_ms", sa.BigInteger(), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_thread_item")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_thread_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_thread_project")),
        sa.ForeignKeyConstraint(["replied_by"], ["person.id"], name=op.f("fk_thread_replied_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thread")),
    )
    op.create_index("ix_thread_project", "thread", ["project", "at_ms"])
    op.create_table(
        "feedback",
        sa.Column("seq", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("item", _ID, nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("assignment", _ID, nullable=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("of", _ID, nullable=True),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("times", sa.JSON(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("extra", sa.JSON(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["assignment"], ["assignment.id"], name=op.f("fk_feedback_assignment")),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_feedback_item")),
        sa.ForeignKeyConstraint(["of"], ["feedback.seq"], name=op.f("fk_feedback_of")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_feedback_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_feedback_project")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_feedback")),
        sa.UniqueConstraint("person", "key", "question", "act", name=op.f("uq_feedback_person_key_question_act")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_item", "feedback", ["item"])
    op.create_index("ix_feedback_project", "feedback", ["project", "seq"])
    op.create_table(
        "answer",
        sa.Column("assignment", _ID, autoincrement=False, nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("seq", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("item", _ID, nullable=False),
        sa.Column("person", _ID, nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=True),
        sa.Column("points", sa.Float(), nullable=True),
        sa.Column("left_side", sa.Boolean(), nullable=True),
        sa.Column("longer", sa.Boolean(), nullable=True),
        sa.Column("active_ms", sa.Integer(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_answer_item")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_answer_person")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_answer_project")),
        sa.ForeignKeyConstraint(["seq"], ["feedback.seq"], name=op.f("fk_answer_seq")),
        sa.PrimaryKeyConstraint("assignment", "question", name=op.f("pk_answer")),
    )
    op.create_index("ix_answer_item", "answer", ["item"])
    op.create_index("ix_answer_person", "answer", ["person", "project", "at_ms"])
    op.create_index("ix_answer_project", "answer", ["project", "question", "item"])
