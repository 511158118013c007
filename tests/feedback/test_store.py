"""The store: one writer, readers that wait for nobody, and what is kept."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from rein.errors import UserError
from rein.feedback.database import StoreFault, to_json
from rein.feedback.store import Store
from rein.feedback.tables import audit, batch, feedback, item, person, project

COUNT = select(func.count()).select_from(project)
NAMES = select(project.c.name).order_by(project.c.id)


def adding(name: str, settings: object = None) -> Callable[[Connection], str]:
    def work(conn: Connection) -> str:
        conn.execute(insert(project).values(name=name, settings=settings or {}, created_ms=1))
        return name

    return work


def names(store: Store) -> list[str]:
    with store.reading() as conn:
        return list(conn.execute(NAMES).scalars())


class Gate:
    """A work that keeps the writer busy until the gate is opened, so that others gather behind it."""

    def __init__(self, store: Store) -> None:
        self._opened, self._begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=store.write, args=(self._work,))

    def _work(self, conn: Connection) -> None:
        self._begun.set()
        assert self._opened.wait(20)

    def __enter__(self) -> Gate:
        self._thread.start()
        assert self._begun.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.set()
        self._thread.join()


def queued(store: Store, works: list[Callable[[Connection], object]]) -> list:
    """Writes all of them from a thread each, queued in this order while a gate is shut; returns what came back."""
    results: list = [None] * len(works)

    def one(place: int) -> None:
        try:
            results[place] = store.write(works[place])
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(works))]
    with Gate(store):
        for place, thread in enumerate(threads):
            thread.start()
            _until(lambda place=place: store._queue.qsize() > place)
    for thread in threads:
        thread.join()
    return results


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not come about within 20 s"
        time.sleep(0.001)


# ------------------------------------------------------------------------------------------------------ the writer


def test_what_was_acknowledged_is_read_at_once_and_after_opening_again(store):
    assert store.write(adding("a")) == "a"
    assert names(store) == ["a"]
    store.close()
    with Store.open(store_address(store)) as again:
        assert names(again) == ["a"]


def store_address(store: Store) -> str:
    return store._address.url.set(drivername=store.dialect).render_as_string(hide_password=False)


def test_works_are_done_in_the_order_in_which_they_came(store):
    wanted = [f"p{number}" for number in range(30)]
    assert queued(store, [adding(name) for name in wanted]) == wanted
    assert names(store) == wanted


def test_works_that_wait_together_share_one_commit(store, monkeypatch):
    monkeypatch.setattr("rein.feedback.store._GROUP_S", 60)
    commits = []
    event.listen(store._writer, "commit", lambda _: commits.append(1))
    queued(store, [adding(f"p{number}") for number in range(30)])
    assert len(commits) == 1


def test_a_group_ends_so_that_those_in_it_need_not_wait(store, monkeypatch):
    monkeypatch.setattr("rein.feedback.store._GROUP", 8)
    commits = []
    event.listen(store._writer, "commit", lambda _: commits.append(1))
    queued(store, [adding(f"p{number}") for number in range(30)])
    assert len(commits) >= 4


def test_nothing_is_acknowledged_before_the_commit(store, monkeypatch):
    """The works of a group return when it is on the disk, not when each is done."""
    monkeypatch.setattr("rein.feedback.store._GROUP_S", 60)
    known: list[str] = []
    done: list[list[str]] = []
    event.listen(store._writer, "commit", lambda _: done.append(list(known)))

    def writing(name: str) -> None:
        known.append(store.write(adding(name)))

    threads = [threading.Thread(target=writing, args=(f"p{number}",)) for number in range(10)]
    with Gate(store):
        for thread in threads:
            thread.start()
        _until(lambda: store._queue.qsize() == 10)
    for thread in threads:
        thread.join()
    assert done == [[]]  # there was one commit, and when it began none of them was known to be kept
    assert sorted(known) == sorted(names(store))


def test_a_work_that_fails_is_undone_alone(store):
    def failing(conn: Connection) -> None:
        adding("half")(conn)
        raise LookupError("no")

    results = queued(store, [adding("a"), failing, adding("a"), adding("b")])
    assert (results[0], results[3]) == ("a", "b")
    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], IntegrityError)
    assert names(store) == ["a", "b"]


def test_what_an_error_says_holds_nothing_of_what_was_written(store):
    store.write(adding("a"))
    with pytest.raises(IntegrityError) as caught:
        store.write(adding("a", {"password": "hunter22"}))
    assert "hunter22" not in str(caught.value)


def test_a_failure_leaves_the_writer_at_work(store):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            store.write(lambda _: 1 / 0)
    with pytest.raises(SystemExit):
        store.write(lambda _: sys.exit(3))
    assert store.write(adding("a")) == "a"


def test_a_reader_sees_one_moment_and_holds_nobody_up(store):
    store.write(adding("a"))
    with store.reading() as conn:
        assert conn.execute(COUNT).scalar() == 1
        store.write(adding("b"))  # on another thread, while this reading goes on
        assert conn.execute(COUNT).scalar() == 1
    assert names(store) == ["a", "b"]


def test_a_reader_can_change_nothing(store):
    store.write(adding("a"))
    with pytest.raises(StoreFault), store.reading() as conn:
        adding("b")(conn)
    assert names(store) == ["a"]


def test_readers_beyond_the_connections_are_told_to_wait(new_store, monkeypatch):
    monkeypatch.setattr("rein.feedback.database.CONNECTIONS", 1)
    store = new_store()
    store._reader.pool._timeout = 0.05
    with store.reading(), pytest.raises(StoreFault, match="being read by 1 others"), store.reading():
        pass


def test_two_stores_on_one_database_lose_no_change(store):
    """Read, think, write: each sees what the other has committed, in threads and in processes."""
    store.write(adding("a", {"n": 0}))

    def more(conn: Connection) -> None:
        found = conn.execute(select(project.c.settings)).scalar_one()
        time.sleep(0.0005)
        conn.execute(update(project).values(settings={"n": found["n"] + 1}))

    with Store.open(store_address(store)) as other, ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(one.write, more) for _ in range(60) for one in (store, other)]:
            done.result()
    with store.reading() as conn:
        assert conn.execute(select(project.c.settings)).scalar() == {"n": 120}


def test_a_command_writes_beside_a_server(store):
    code = (
        "import sys\nfrom rein.feedback.store import Store\nfrom rein.feedback.tables import project\n"
        "with Store.open(sys.argv[1]) as store:\n"
        "    for n in range(40):\n"
        "        store.write(lambda c: c.execute(project.insert().values(name=f'c{n}', settings={}, created_ms=1)))\n"
    )
    store.hold()
    with subprocess.Popen([sys.executable, "-c", code, store_address(store)]) as command:
        number = 0
        while command.poll() is None:
            store.write(adding(f"s{number}"))
            number += 1
    assert command.returncode == 0
    assert len(names(store)) == 40 + number


@pytest.mark.parametrize("error", [UserError("a", "b"), KeyboardInterrupt()])
def test_a_reading_that_broke_off_in_the_middle_leaves_nobody_in_the_past(store, error):
    """The traceback holds the cursor, and the cursor SQLite's moment of then."""
    for n in range(3):
        store.write(adding(f"old {n}"))
    held = []

    def break_off():
        with store.reading() as conn:
            for _ in conn.execute(NAMES):
                raise error

    for _ in range(20):  # each connection that the store may have
        with pytest.raises(type(error)) as caught:
            break_off()
        held.append(caught)
    store.write(adding("new"))
    assert "new" in names(store)


def test_awaited_works_share_commits_and_return_what_they_made(store):
    async def many() -> list[str]:
        return await asyncio.gather(*(store.written(adding(f"p{number}")) for number in range(50)))

    assert asyncio.run(many()) == [f"p{number}" for number in range(50)]
    assert len(names(store)) == 50


def test_a_work_that_nobody_waits_for_any_more_is_not_begun(store):
    async def cancelled() -> None:
        with Gate(store):
            task = asyncio.ensure_future(store.written(adding("never")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    store.write(adding("after"))
    assert names(store) == ["after"]


def test_a_work_cannot_wait_for_another(store):
    with pytest.raises(AssertionError, match="cannot wait"):
        store.write(lambda _: store.write(adding("a")))


def test_closing_finishes_what_was_asked_and_refuses_more(store):
    with Gate(store):
        thread = threading.Thread(target=store.write, args=(adding("last"),))
        thread.start()
        _until(lambda: store._queue.qsize() == 1)
        closing_thread = threading.Thread(target=store.close)
        closing_thread.start()
        _until(lambda: store._closed)
    closing_thread.join()
    thread.join()
    store.close()  # twice is once
    with pytest.raises(StoreFault, match="is closed"):
        store.write(adding("late"))
    with Store.open(store_address(store)) as again:
        assert names(again) == ["last"]


# -------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("table", [feedback, audit], ids=str)
@pytest.mark.parametrize("change", ["UPDATE {} SET at_ms = 2", "DELETE FROM {}"])
def test_the_database_refuses_to_change_what_is_append_only(store, table, change):
    store.write(one_row_of_each)
    with pytest.raises(Exception, match="append-only"):
        store.write(lambda conn: conn.execute(text(change.format(table.name))).rowcount)
    with store.reading() as conn:
        assert conn.execute(select(func.count()).select_from(table)).scalar() == 1


def test_no_row_of_feedback_can_be_replaced(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        store.write(one_row_of_each)
        with pytest.raises(Exception, match="append-only"):
            store.write(
                lambda conn: (
                    conn.execute(text("INSERT OR REPLACE INTO feedback SELECT * FROM feedback WHERE seq = 1")).rowcount
                )
            )


def test_a_table_cannot_be_emptied_in_postgresql(postgres):
    address = postgres.empty_store()
    with Store.open(address) as store, pytest.raises(Exception, match="append-only"):
        store.write(lambda conn: conn.execute(text("TRUNCATE feedback CASCADE")).rowcount)
    postgres.drop(address)


def test_another_program_cannot_change_them_either(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        store.write(one_row_of_each)
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as raw, pytest.raises(sqlite3.IntegrityError, match="append"):
        raw.execute("DELETE FROM feedback")


def one_row_of_each(conn: Connection) -> None:
    adding("a")(conn)
    conn.execute(insert(person).values(name="Ann", role="labeler", preferences={}, created_ms=1))
    conn.execute(insert(batch).values(project=1, name="b", created_ms=1))
    conn.execute(
        insert(item).values(
            project=1, batch=1, key="i", role="work", split="train", context={}, candidates=[], extra={}, wanted=1,
            room=1, place=1, created_ms=1,
        )
    )  # fmt: skip
    conn.execute(
        insert(feedback).values(
            project=1, item=1, person=1, key="k", question="q", kind="rating", version=1, act="say", value={}, shown={},
            times={}, extra={}, at_ms=1,
        )
    )  # fmt: skip
    conn.execute(insert(audit).values(at_ms=1, person=1, act="x", about={}, address=""))


def test_rows_hold_on_to_each_other(store):
    with pytest.raises(IntegrityError):
        store.write(lambda conn: conn.execute(insert(batch).values(project=99, name="b", created_ms=1)).rowcount)


def test_nothing_said_is_null_where_a_column_may_be_empty(store):
    store.write(one_row_of_each)
    store.write(lambda conn: conn.execute(update(item).values(gold=None)).rowcount)
    with store.reading() as conn:
        assert conn.execute(select(func.count()).select_from(item).where(item.c.gold.is_(None))).scalar() == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(value=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_comes_back_as_it_was(store, value):
    """NUL, half surrogate pairs and astral characters too, in SQLite and in PostgreSQL."""

    def there_and_back(conn: Connection) -> object:
        conn.execute(text("DELETE FROM project"))
        adding("a", value or {"": None})(conn)
        return conn.execute(select(project.c.settings)).scalar()

    assert store.write(there_and_back) == (value or {"": None})


def test_text_is_kept_as_it_reads_so_that_it_can_be_searched(store):
    store.write(adding("a", {"text": "größer 😀"}))
    with store.reading() as conn:
        found = text("SELECT name FROM project WHERE CAST(settings AS text) LIKE '%größer 😀%'")
        assert conn.execute(found).scalar() == "a"


@pytest.mark.parametrize(
    ("name", "said"), [("a\0b", "holds NUL"), ("a\ud800", "half a surrogate pair")], ids=["NUL", "half a pair"]
)
def test_text_that_no_database_keeps_is_refused_in_words(store, name, said):
    with pytest.raises(UserError, match=said):
        store.write(adding(name))
    with store.reading() as conn, pytest.raises(UserError, match=said):
        conn.execute(select(project.c.id).where(project.c.name == name))
    assert store.write(adding("b")) == "b"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**200], ids=str)
def test_numbers_beyond_64_bits_are_refused_in_words(store, number):
    with pytest.raises(UserError, match="64 bits"):
        store.write(lambda conn: conn.execute(update(project).values(created_ms=number)).rowcount)


@pytest.mark.parametrize("number", [float("nan"), float("inf")], ids=str)
def test_what_is_no_number_is_refused_in_words(store, number):
    with pytest.raises(UserError, match="finite"):
        store.write(adding("a", {"n": [number]}))
    with pytest.raises(UserError, match="finite"):
        to_json(number)
