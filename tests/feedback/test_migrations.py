"""The schema: what the migrations make is what tables.py says, and older and newer stores are dealt with."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, UniqueConstraint, insert, inspect, select, text

from rein.errors import UserError
from rein.feedback import migrations
from rein.feedback.store import Store
from rein.feedback.tables import audit, metadata, project

NEXT = """
import sqlalchemy as sa
from alembic import op
revision = "0002"
down_revision = "0001"

def upgrade():
    op.create_table("extra", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("project", sa.Column("colour", sa.Text(), nullable=False, server_default="green"))
"""


def address(store: Store) -> str:
    return store._address.url.set(drivername=store.dialect).render_as_string()


def test_the_migrations_make_what_the_tables_say(store):
    with store.reading() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_what_a_comparison_of_schemas_leaves_out_is_the_same_too(store):
    """Primary keys, the columns and the order of indexes, and which numbers are never given twice."""
    with store.reading() as conn:
        found = inspect(conn)
        assert set(found.get_table_names()) == {*metadata.tables, "alembic_version"}
        for table in metadata.tables.values():
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
            unique = {tuple(one["column_names"]) for one in found.get_unique_constraints(table.name)}
            assert unique == {tuple(c.name for c in one.columns) for one in table.constraints
                              if isinstance(one, UniqueConstraint)}  # fmt: skip
            assert not any(isinstance(one, CheckConstraint) for one in table.constraints)
            if store.dialect == "sqlite":
                sql = conn.execute(text(f"SELECT sql FROM sqlite_schema WHERE name = '{table.name}'")).scalar_one()
                assert ("AUTOINCREMENT" in sql) == table.dialect_options["sqlite"]["autoincrement"]
        where = {
            "sqlite": "SELECT sql FROM sqlite_schema WHERE name = 'ix_item_queue'",
            "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_item_queue'",
        }
        queue = conn.execute(text(where[store.dialect])).scalar_one()
        assert "(project, role, room, priority DESC, place)" in queue


def test_the_newest_version_is_the_one_that_is_wanted():
    scripts = ScriptDirectory(str(migrations.SCRIPTS))
    assert scripts.get_heads() == [migrations.VERSION]
    assert sorted(one.name[:4] for one in (migrations.SCRIPTS / "versions").glob("*.py")) == sorted(
        script.revision for script in scripts.walk_revisions()
    )


def test_a_store_that_is_up_to_date_is_opened_without_alembic(store, monkeypatch):
    """Which takes longer to load than the store to open."""
    monkeypatch.setattr(migrations, "upgrade", lambda *_: pytest.fail("there was nothing to do"))
    Store.open(address(store)).close()


@pytest.fixture
def next_version(tmp_path, monkeypatch):
    """As if Rein had a second version of the schema: called with what its file holds."""

    def make(code: str = NEXT) -> None:
        scripts = tmp_path / "migrations"
        shutil.copytree(migrations.SCRIPTS, scripts)
        (scripts / "versions" / "0002_next.py").write_text(code)
        monkeypatch.setattr(migrations, "SCRIPTS", scripts)
        monkeypatch.setattr(migrations, "VERSION", "0002")

    return make


def filled(store: Store) -> None:
    store.write(lambda conn: conn.execute(insert(project).values(name="a", settings={}, created_ms=1)).rowcount)
    store.write(lambda conn: conn.execute(insert(audit).values(at_ms=1, act="x", about={}, address="")).rowcount)


def test_an_older_store_is_brought_up_to_date_with_all_it_holds(store, next_version):
    filled(store)
    store.close()
    next_version()
    with Store.open(address(store)) as newer, newer.reading() as conn:
        assert migrations.version_of(conn) == "0002"
        assert conn.execute(text("SELECT name, colour FROM project")).all() == [("a", "green")]
    with Store.open(address(store)) as newer, pytest.raises(Exception, match="append-only"):
        newer.write(lambda conn: conn.execute(text("DELETE FROM audit")).rowcount)


def test_a_file_is_copied_before_it_is_changed(tmp_path, next_version):
    path = tmp_path / "a.sqlite"
    with Store.open(path, create=True) as store:
        filled(store)
    next_version()
    for _ in range(2):
        Store.open(path).close()
    copy = tmp_path / "a.sqlite.before-0002"
    assert copy.exists()
    with closing(sqlite3.connect(copy)) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        assert raw.execute("SELECT name FROM project").fetchall() == [("a",)]


def test_a_step_that_fails_leaves_the_old_version_whole(store, next_version, monkeypatch):
    filled(store)
    store.close()
    next_version(NEXT + '    op.execute("INSERT INTO nowhere VALUES (1)")\n')
    for _ in range(2):  # and the second try finds what the first one found
        with pytest.raises(Exception, match="nowhere"):
            Store.open(address(store))
    monkeypatch.setattr(migrations, "VERSION", "0001")
    with Store.open(address(store)) as older, older.reading() as conn:
        assert migrations.version_of(conn) == "0001"
        assert "extra" not in inspect(conn).get_table_names()
        assert [one["name"] for one in inspect(conn).get_columns("project")][-1] == "created_ms"
        assert conn.execute(select(project.c.name)).scalars().all() == ["a"]


def test_a_store_of_a_newer_version_is_refused_and_left_alone(store):
    store.write(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '0999'")).rowcount)
    store.close()
    files = sorted(store.path.parent.glob("*.sqlite*")) if store.path else []
    for create in (False, True):
        with pytest.raises(UserError, match=r"newer version of Rein: its schema is 0999.*\n.*pip install --upgrade"):
            Store.open(address(store), create=create)
    assert files == (sorted(store.path.parent.glob("*.sqlite*")) if store.path else [])


def test_the_migrations_are_in_the_package():
    """A file that is not Python, or lies elsewhere, would be missing from a wheel."""
    assert Path(migrations.__file__).parent == migrations.SCRIPTS
    assert (migrations.SCRIPTS / "versions" / "0001_first.py").exists()
