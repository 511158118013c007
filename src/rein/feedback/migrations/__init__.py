"""The schema of the feedback store, version by version: what an older one needs to become the newest.

Flow     a database of any version → the same, of version `VERSION`; a copy of a SQLite file is kept before it changes

A version is a file in versions/, written by hand for both databases, and never changed once released. All steps are
one transaction: a store is of the old version or of the new one, whatever happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from rein.errors import UserError

if TYPE_CHECKING:
    from rein.feedback.database import Address

VERSION = "0001"
SCRIPTS = Path(__file__).parent


def bring_up_to_date(writer: Engine, reader: Engine, address: Address, *, create: bool) -> None:
    """Makes the tables, or brings older ones up to `VERSION`. A store that is up to date is only read.

    Raises   UserError when there are none and `create` is false, when they are of a newer version of Rein, or of
             another program.
    """
    with reader.connect() as connection:
        found = version_of(connection)
        if found is None:
            _check_empty(connection, address, create)
    if found == VERSION:
        return
    if found is not None:
        _check_older(found, address)
        if address.path:
            _keep_copy(address, found)
    elif address.path:
        with writer.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None, "an open connection without its own"
            raw.execute("PRAGMA journal_mode = WAL")  # stays with the file
    with writer.begin() as connection:
        if version_of(connection) != VERSION:  # another process may have been quicker
            upgrade(connection)


def version_of(connection: Connection) -> str | None:
    """The version of a database's tables; None: it has none of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def upgrade(connection: Connection, to: str = "heads") -> None:
    """Makes every step that is missing, in the transaction of `connection`."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(SCRIPTS))
    context = MigrationContext.configure(
        connection, opts={"fn": lambda now, _: scripts._upgrade_revs(to, now), "transactional_ddl": True}
    )
    with Operations.context(context):
        context.run_migrations()


def _known() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()}


def _check_older(found: str, address: Address) -> None:
    if found not in _known():
        raise UserError(
            f"{address} was written by a newer version of Rein: its schema is {found}, and this one knows up to "
            f"{VERSION}.",
            "Update Rein: pip install --upgrade rein.",
        )


def _check_empty(connection: Connection, address: Address, create: bool) -> None:
    names = inspect(connection).get_table_names()
    if names:
        raise UserError(
            f"{address} is another program's: it has the tables {', '.join(sorted(names)[:4])}, and none of ours.",
            "Name another file or database.",
        )
    if not create:
        raise UserError(f"There is no feedback store in {address}.", "Make one with `rein label new`, or name another.")


def _keep_copy(address: Address, found: str) -> None:
    from rein.feedback.backup import backup

    assert address.path is not None, "only files are copied"
    path = address.path.with_name(f"{address.path.name}.before-{VERSION}")
    if not path.exists():  # of an earlier try, which changed nothing
        backup(address, path)
