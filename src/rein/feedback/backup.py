"""A copy of the store, made while it is in use and checked before it gets its name.

Flow     SQLite: VACUUM INTO, then an integrity check → a file that opens as a store
         PostgreSQL: pg_dump's own format → a file that pg_restore reads
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL

from rein.errors import UserError, writing
from rein.feedback.database import Address, StoreFault, check_unmoved


def backup(address: Address, path: Path) -> None:
    """Writes the store as it is at one moment to `path`; nobody waits for it.

    Raises   UserError when `path` exists already, or pg_dump is not there; StoreFault when the copy is not whole.
    """
    if path.exists():
        raise UserError(f"{path} exists; a backup is never written over.", "Choose another name.")
    part = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        # Before SQLite or pg_dump write to it: what people said and their passwords' digests are nobody else's.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            if address.path:
                _copy_sqlite(address.path, part, address.only_read)
                check_unmoved(address)
            else:
                _dump_postgresql(address, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def _copy_sqlite(source: Path, target: Path, only_read: str) -> None:
    how = f"{source.as_uri()}?{only_read or 'mode=rw'}"
    with closing(sqlite3.connect(how, isolation_level=None, uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise StoreFault(
                f"The copy of {source} is damaged: {found}.", "Check the disk; the store itself may be damaged too."
            )


def _dump_postgresql(address: Address, target: Path) -> None:
    program = shutil.which("pg_dump")
    if not program:
        raise UserError(
            f"A backup of {address} needs pg_dump, which is not installed.",
            "Install PostgreSQL's client programs, or back the server up by its own means.",
        )
    url = address.url
    # The password is not on the command line, which everybody on this machine can read.
    bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    words = [program, "--format=custom", f"--file={target}", f"--dbname={bare.render_as_string()}"]
    given = {"PGPASSWORD": str(url.password)} if url.password else {}
    done = subprocess.run(words, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StoreFault(f"pg_dump could not copy {address}: {said}", "Put that right, then try again.")
