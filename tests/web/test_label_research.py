"""A researcher's part of the API: projects, progress, items, people, files, the audit log."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import tracemalloc
import zipfile

import pytest
from label_server import HIDDEN, error_of
from sqlalchemy import insert, select

from rein.feedback import tables
from rein.feedback.judgements import Judgements
from rein.web.app import bind, make_server
from rein.web.label import research_data, research_items

API = "/label/api"
RESEARCH = f"{API}/research"
TLDR = f"{RESEARCH}/projects/tldr"
FIRST = {"choice": {"choice": 0, "points": 2}}


@pytest.fixture
def rae(server):
    return server.client("rae", "researcher")


def label(server, client, n=1, answers=FIRST):
    for _ in range(n):
        [card] = client.post(f"{API}/claim", json={"project": "tldr"}).json()["items"]
        body = {"key": server.key(), "assignment": card["assignment"], "revision": 0, "answers": answers}
        assert client.post(f"{API}/submit", json=body).status_code == 200


# ------------------------------------------------------------------------------------------------------------ projects


def test_a_project_is_made_of_a_preset_and_changed(server, rae):
    body = {"preset": "instructgpt", "settings": {"name": "replies", "title": "Replies", "overlap": 3}}
    assert rae.post(f"{RESEARCH}/projects", json=body).json() == {"name": "replies"}
    found = rae.get(f"{RESEARCH}/projects").json()
    [project] = found["projects"]
    assert (project["settings"]["title"], project["settings"]["overlap"]) == ("Replies", 3)
    assert "comparison" in found["presets"]
    assert rae.patch(f"{RESEARCH}/projects/replies", json={"settings": {"overlap": 5}}).status_code == 200
    [project] = rae.get(f"{RESEARCH}/projects").json()["projects"]
    assert (project["settings"]["title"], project["settings"]["overlap"]) == ("Replies", 5)


@pytest.mark.parametrize(
    "body",
    [
        {"preset": "none", "settings": {"name": "a"}},
        {"preset": "comparison", "settings": {"name": "a", "x": 1}},
        {"preset": "comparison", "settings": {"name": "a", "overlap": 0}},
        {"preset": "comparison", "settings": {"name": "a", "overlap": "many"}},
        {"preset": "comparison", "settings": {"name": "a/b"}},
        {"preset": "comparison", "settings": {"name": 5}},
        {"preset": "comparison", "settings": {"name": ".."}},
        {"preset": "comparison", "settings": {"name": "people"}},
        {"preset": "comparison", "settings": {"name": "a", "questions": 5}},
        {"preset": "comparison", "settings": {"name": "a", "questions": [5]}},
        {"preset": "comparison", "settings": {"name": "a", "questions": [{"name": "q"}]}},
        {"preset": "comparison", "settings": {"name": "a", "questions": [{"name": "q", "kind": "skip"}]}},
        {"preset": "comparison", "settings": {"name": "a", "title": {"a": 1}}},
        {"preset": "comparison", "settings": {"name": "a", "fields": 7}},
        {"settings": {}},
    ],
)
def test_settings_that_are_none_are_refused(server, rae, body):
    assert error_of(rae.post(f"{RESEARCH}/projects", json=body)) == (422, "bad_value")
    assert rae.get(f"{RESEARCH}/projects").json()["projects"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/projects/none", {"settings": {}}), ("POST", "/projects/none/close", {"closed": True}),
        ("GET", "/projects/none/progress", None), ("GET", "/projects/none/agreement", None),
        ("GET", "/projects/none/items", None), ("GET", "/items/99", None), ("POST", "/items/99", {"priority": 1.0}),
        ("GET", "/projects/none/people", None), ("POST", "/projects/none/members", {"person": 1, "state": "working"}),
        ("POST", "/people/99", {"active": True}), ("POST", "/invites", {"project": "none"}),
        ("POST", "/invites", {"person": 99}), ("POST", "/projects/none/messages", {"text": "x"}),
        ("GET", "/projects/none/threads", None), ("POST", "/threads/99", {"reply": "x"}),
        ("POST", "/projects/none/instructions", {"text": "x"}),
        ("POST", "/projects/none/batches/batch1", {"frozen": True}), ("POST", "/projects/none/import", None),
        ("GET", "/projects/none/export", None),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_so(server, rae, method, path, body):
    assert error_of(rae.request(method, RESEARCH + path, json=body)) == (404, "unknown")


def test_a_batch_and_a_member_that_are_not_there(server, rae):
    server.project()
    assert error_of(rae.post(f"{TLDR}/batches/none", json={"frozen": True})) == (404, "unknown")
    assert error_of(rae.post(f"{TLDR}/members", json={"person": 99, "state": "working"})) == (404, "unknown")
    assert error_of(rae.post(f"{TLDR}/messages", json={"to": 99, "text": "x"})) == (404, "unknown")


# ------------------------------------------------------------------------------------------------------------ progress


def test_progress_counts_what_was_done_is_held_and_is_left(server, rae):
    ann, ben = server.client("ann"), server.client("ben")
    server.project(n=3, roles=("work", "gold"), staged=False, members=["ann", "ben"])
    label(server, ann, 2)
    label(server, ben, 1)
    ann.post(f"{API}/claim", json={"project": "tldr"})
    found = rae.get(f"{TLDR}/progress").json()
    [batch] = found["batches"]
    done = sum(batch["roles"]["work"][name] for name in ("done", "begun", "waiting"))
    assert (batch["name"], done, batch["roles"]["work"]["answers"], batch["roles"]["work"]["wanted"]) == (
        "batch1",
        3,
        3,
        6,
    )
    assert batch["roles"]["gold"]["items"] == 3
    assert found["leases"] == [{"name": "ann", "held": 1, "lease_ms": server.clock() + 1_800_000}]
    assert found["left"] == 3
    assert found["pace"] == {"hours": [3] + [0] * 23, "last_hour": 3, "last_day": 3, "per_hour": 3.0}
    assert found["end_ms"] == server.clock() + 3_600_000
    server.clock.ms += 5 * 3_600_000
    found = rae.get(f"{TLDR}/progress").json()
    assert (found["pace"]["hours"][5], found["pace"]["last_hour"], found["pace"]["per_hour"]) == (3, 0, 0.5)
    assert (found["leases"], found["left"]) == ([], 2)


def test_what_is_left_is_work_alone(server, rae):
    ann = server.client("ann")
    server.project(n=2, roles=("work", "gold"), staged=False, members=["ann"], gold_share=1.0)
    before = rae.get(f"{TLDR}/progress").json()["left"]
    ann.post(f"{API}/claim", json={"project": "tldr"})
    [lease] = rae.get(f"{TLDR}/progress").json()["leases"]
    with server.store.reading() as conn:
        roles = conn.exec_driver_sql(
            "SELECT i.role FROM assignment a JOIN item i ON i.id = a.item WHERE a.state = 'open'"
        ).scalars().all()  # fmt: skip
    assert (lease["held"], roles) == (1, ["gold"])
    assert rae.get(f"{TLDR}/progress").json()["left"] == before


def test_progress_says_why_there_is_no_end_to_see(server, rae):
    server.project()
    found = rae.get(f"{TLDR}/progress").json()
    assert (found["end_ms"], found["why"]) == (None, "there were no answers in the last 24 hours")


def test_agreement_is_the_report(server, rae):
    ann, ben = server.client("ann"), server.client("ben")
    server.project(staged=False, members=["ann", "ben"])
    label(server, ann, 4)
    label(server, ben, 4)
    report = rae.get(f"{TLDR}/agreement").json()
    assert (report["answers"], report["items"]) == (8, 4)
    with server.store.reading() as conn:
        shown = conn.execute(select(tables.feedback.c.item, tables.feedback.c.value)).all()
    sides = {}
    for item, value in shown:
        sides.setdefault(item, []).append(value["choice"])
    same = sum(a == b for a, b in sides.values()) / 4
    assert report["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]["value"] == pytest.approx(same)
    assert rae.get(f"{TLDR}/agreement?batch=none").status_code in (404, 422)


# --------------------------------------------------------------------------------------------------------------- items


def test_items_come_by_pages_and_filters(server, rae, monkeypatch):
    server.project(n=60, roles=("work", "gold"))
    server.project("other", n=5)
    monkeypatch.setattr(research_items, "WINDOW", 7)

    def walk(**filters):
        found, after = [], 0
        while after is not None:
            page = rae.get(f"{TLDR}/items", params={**filters, "after": after}).json()
            assert len(page["items"]) <= 50
            found += page["items"]
            after = page["next"]
        return found

    everything = walk()
    assert len(everything) == len({one["id"] for one in everything}) == 120
    assert everything[0]["policies"] == list(HIDDEN[:2])
    assert len(walk(role="gold")) == 60
    assert len(walk(batch="batch1")) == 120
    assert walk(batch="none") == []
    assert [one["key"] for one in walk(text="POST 17 OF")] == ["key-okapi-work-17", "key-okapi-gold-17"]
    assert len(walk(state="waiting", role="work")) == 60
    assert rae.get(f"{TLDR}/items?after=120").json() == {"items": [], "next": None}


def test_a_search_that_takes_long_says_where_to_go_on(server, rae, monkeypatch):
    server.project(n=30)
    monkeypatch.setattr(research_items, "WINDOW", 10)
    monkeypatch.setattr(research_items, "BUDGET_S", -1.0)
    page = rae.get(f"{TLDR}/items?text=nowhere").json()
    assert (page["items"], page["next"]) == ([], 10)


def test_one_item_shows_everything(server, rae):
    ann = server.client("ann")
    server.project(n=1, staged=False, members=["ann"])
    label(server, ann)
    found = rae.get(f"{RESEARCH}/items/1").json()
    assert found["candidates"][0]["policy"] == HIDDEN[0]
    [row] = found["rows"]
    assert (row["person"], row["act"], row["question"], row["stands"]) == ("ann", "say", "choice", True)
    assert found["assignments"][0]["state"] == "submitted"
    ann.post(f"{API}/undo", json={"key": server.key(), "assignment": 1})
    rows = rae.get(f"{RESEARCH}/items/1").json()["rows"]
    assert [(one["act"], one["stands"]) for one in rows] == [("say", False), ("undo", False)]


def test_what_is_right_is_set_checked_and_noted(server, rae):
    server.project(n=1)
    good = {"gold": {"answers": {"choice": {"choice": 1, "points": 8}}, "why": "It is shorter."}, "priority": 2.5}
    found = rae.post(f"{RESEARCH}/items/1", json=good).json()
    assert (found["gold"], found["priority"]) == (good["gold"], 2.5)
    bad = {"gold": {"answers": {"choice": {"choice": 7, "points": 8}}}}
    assert error_of(rae.post(f"{RESEARCH}/items/1", json=bad)) == (422, "bad_value")
    [row] = rae.get(f"{RESEARCH}/audit").json()["rows"]
    assert (row["person"], row["act"], row["about"]["item"], row["address"]) == ("rae", "change item", 1, "testclient")


def test_what_was_thought_right_is_forgotten_by_null_and_stays_when_it_is_not_named(server, rae):
    server.project(n=1, roles=("gold",))
    assert rae.post(f"{RESEARCH}/items/1", json={"priority": 1.0}).json()["gold"] is not None
    found = rae.post(f"{RESEARCH}/items/1", json={"gold": None, "role": "work"}).json()
    assert (found["gold"], found["role"]) == (None, "work")
    rows = rae.get(f"{RESEARCH}/audit").json()["rows"]
    assert rows[0]["about"] == {"item": 1, "gold": None, "role": "work"}


def test_fields_that_are_not_shown_are_told_of(server, rae):
    server.project(n=1)
    row = {"post": "p", "generator": "gpt", "outputs": ["a", "b"]}
    found = rae.post(f"{TLDR}/import?format=prompts", content=json.dumps(row).encode()).json()
    assert (found["added"], found["unseen"]) == (1, ["generator"])


def test_a_part_of_what_goes_out_whole_is_refused(server, rae):
    server.project(n=1)
    answer = rae.get(f"{TLDR}/export?format=rein&split=train")
    assert answer.status_code == 422
    assert "--split is train" in answer.json()["error"]["text"]


def test_a_closed_item_is_handed_to_nobody(server, rae):
    ann = server.client("ann")
    server.project(n=1, members=["ann"])
    assert rae.post(f"{RESEARCH}/items/1", json={"closed": True}).json()["closed"]
    assert ann.post(f"{API}/claim", json={"project": "tldr"}).json()["nothing"] == "all done"
    assert rae.get(f"{TLDR}/items?state=closed").json()["items"][0]["id"] == 1


# -------------------------------------------------------------------------------------------------------------- people


def test_members_are_seen_with_what_they_did(server, rae):
    ann = server.client("ann")
    server.project(staged=False, members=["ann"])
    label(server, ann, 2)
    [row] = rae.get(f"{TLDR}/people").json()["people"]
    assert (row["name"], row["state"], row["submitted"], row["last_ms"]) == ("ann", "working", 2, server.clock())
    assert (
        rae.post(f"{TLDR}/members", json={"person": row["id"], "state": "stopped", "confident": 3}).status_code == 200
    )
    [row] = rae.get(f"{TLDR}/people").json()["people"]
    assert (row["state"], row["confident"]) == ("stopped", 3)
    everybody = {one["name"]: one for one in rae.get(f"{RESEARCH}/people").json()["people"]}
    assert everybody["ann"]["projects"] == [{"name": "tldr", "state": "stopped"}]
    assert not {"password", "token"} & {
        name for one in everybody.values() for name in one if one[name] not in (True, False)
    }


def test_questions_are_answered_before_they_are_pinned(server, rae):
    ann = server.client("ann")
    server.project(members=["ann"])
    ann.post(f"{API}/claim", json={"project": "tldr"})
    ann.post(f"{API}/ask", json={"assignment": 1, "text": "Why?"})
    [thread] = rae.get(f"{TLDR}/threads").json()["threads"]
    assert (thread["person"], thread["text"], thread["reply"]) == ("ann", "Why?", None)
    assert error_of(rae.post(f"{RESEARCH}/threads/1", json={"pinned": True})) == (422, "bad_value")
    assert rae.post(f"{RESEARCH}/threads/1", json={"reply": "So."}).status_code == 200
    assert rae.post(f"{RESEARCH}/threads/1", json={"pinned": True}).status_code == 200
    [thread] = rae.get(f"{TLDR}/threads").json()["threads"]
    assert (thread["reply"], thread["replied_by"], thread["pinned"]) == ("So.", "rae", True)


def test_messages_are_listed_with_how_many_read_them(server, rae):
    ann = server.client("ann")
    server.project(members=["ann"])
    message = rae.post(f"{TLDR}/messages", json={"text": "Hello."}).json()["message"]
    ann.post(f"{API}/seen", json={"messages": [message]})
    [row] = rae.get(f"{TLDR}/messages").json()["messages"]
    assert (row["author"], row["to"], row["text"], row["read"]) == ("rae", None, "Hello.", 1)


def test_the_audit_log_pages_backwards(server, rae):
    for n in range(60):
        rae.post(f"{RESEARCH}/keys", json={"label": f"key {n}", "hours": 1})
    first = rae.get(f"{RESEARCH}/audit").json()
    assert [len(first["rows"]), first["rows"][0]["about"]["label"]] == [50, "key 59"]
    rest = rae.get(f"{RESEARCH}/audit", params={"after": first["next"]}).json()
    assert [len(rest["rows"]), rest["next"], rest["rows"][-1]["about"]["label"]] == [10, None, "key 0"]


# --------------------------------------------------------------------------------------------------------------- files


def lines(n, first=0):
    return "".join(
        json.dumps({"prompt": f"prompt {i}", "outputs": [f"a{i}", f"b{i}"]}) + "\n" for i in range(first, first + n)
    ).encode()


def take(client, content, **query):
    return client.post(f"{TLDR}/import", content=content, params=query)


def test_a_file_comes_in_and_goes_out(server, rae):
    ann = server.client("ann")
    server.project(n=0, staged=False, members=["ann"])
    dry = take(rae, lines(3), format="prompts", dry="1").json()
    assert (dry["added"], rae.get(f"{TLDR}/items").json()["items"]) == (3, [])
    done = take(rae, lines(3) + b"{not json\n" + lines(1, 3), file="../../etc/prompts.jsonl").json()
    assert (done["format"], done["added"], done["bad_total"], done["bad"][0]["line"]) == ("prompts", 4, 1, 4)
    again = take(rae, lines(4)).json()
    assert (again["added"], again["known"]) == (0, 4)
    label(server, ann, 4)
    answer = rae.get(f"{TLDR}/export", params={"format": "trl"})
    assert answer.status_code == 200
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == 4
    assert {"prompt", "chosen", "rejected"} <= rows[0].keys()
    assert answer.headers["content-disposition"] == 'attachment; filename="tldr-trl.jsonl"'
    acts = [row["act"] for row in rae.get(f"{RESEARCH}/audit").json()["rows"]]
    assert acts == ["export", *["import", "begin import"] * 2]


def test_an_import_that_is_cut_off_shows_in_the_audit_log(server, rae, monkeypatch):
    server.project(n=0)
    monkeypatch.setattr(research_data, "import_file", lambda *_, **__: 1 / 0)
    assert take(rae, lines(1), file="a.jsonl").status_code == 500
    [row] = rae.get(f"{RESEARCH}/audit").json()["rows"]
    assert (row["act"], row["person"], row["about"]["file"]) == ("begin import", "rae", "a.jsonl")


def test_every_route_that_changes_something_writes_a_row_of_the_audit_log(server, rae):
    """Asked of each of them that the description of the API has, so that a new one is not forgotten."""
    ann = server.client("ann")
    server.project(staged=False, members=["ann"])
    [card] = ann.post(f"{API}/claim", json={"project": "tldr"}).json()["items"]
    ann.post(f"{API}/ask", json={"assignment": card["assignment"], "text": "Why?"})
    number = next(one["id"] for one in rae.get(f"{RESEARCH}/people").json()["people"] if one["name"] == "ann")
    bodies = {
        "/projects": {"preset": "comparison", "settings": {"name": "next"}},
        "/projects/{name}": {"settings": {"title": "T"}},
        "/projects/{name}/close": {"closed": True},
        "/projects/{name}/instructions": {"text": "Read."},
        "/projects/{name}/batches/{batch}": {"frozen": True},
        "/projects/{name}/members": {"person": number, "state": "working"},
        "/projects/{name}/messages": {"to": number, "text": "Hello."},
        "/projects/{name}/import": lines(1),
        "/items/{id}": {"priority": 1.0},
        "/people/{id}": {"active": False},
        "/invites": {"role": "labeler"},
        "/keys": {"label": "x"},
        "/threads/{id}": {"reply": "So."},
    }
    there = {"name": "tldr", "batch": "batch1"}
    paths = server.stranger().get(f"{API}/openapi.json").json()["paths"]
    changing = [
        (path.removeprefix("/research"), method)
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/research") and method != "get"
    ]
    assert {path for path, _ in changing} == bodies.keys()
    for path, method in changing:
        before = len(rae.get(f"{RESEARCH}/audit").json()["rows"])
        where = path.format(**there, id=number if path.startswith("/people") else 1)
        body = bodies[path]
        what = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = rae.request(method, RESEARCH + where, **what)
        assert answer.status_code == 200, answer.text
        assert len(rae.get(f"{RESEARCH}/audit").json()["rows"]) > before, path


def test_pseudonyms_go_out_unless_names_are_asked_for(server, rae):
    ann = server.client("ann-the-labeler")
    server.project(staged=False, members=["ann-the-labeler"])
    label(server, ann)
    for names, there in ((False, False), (True, True)):
        text = rae.get(f"{TLDR}/export", params={"format": "rein", "names": names}).text
        assert text.count("\n") > 2
        assert ("ann-the-labeler" in text) is there


def test_a_folder_goes_out_packed(server, rae):
    ann = server.client("ann")
    server.project(staged=False, members=["ann"])
    label(server, ann, 3)
    answer = rae.get(f"{TLDR}/export", params={"format": "hf"})
    assert answer.status_code == 200, answer.text
    assert "README.md" in zipfile.ZipFile(io.BytesIO(answer.content)).namelist()


@pytest.mark.parametrize("how", ["said", "counted"])
def test_an_upload_that_is_too_large_is_refused(server, rae, how):
    server.project(n=0)
    content = b"x" * 1_000_001
    answer = take(rae, content if how == "said" else iter([content[:10], content[10:]]))
    assert error_of(answer) == (413, "too_large")
    assert rae.get(f"{TLDR}/items").json()["items"] == []


@pytest.mark.parametrize("query", [{"format": "none"}, {"role": "king"}, {"dry": "2"}, {"format": "trl-unpaired"}])
def test_an_import_out_of_its_bounds_is_refused(server, rae, query):
    server.project(n=0)
    assert error_of(take(rae, lines(1), **query)) == (422, "bad_value")


@pytest.mark.parametrize("query", [{"format": "none"}, {"format": "argilla"}, {"ties": "other"}, {"question": "none"}])
def test_an_export_out_of_its_bounds_is_refused_before_it_begins(server, rae, query):
    server.project()
    assert error_of(rae.get(f"{TLDR}/export", params=query)) == (422, "bad_value")
    assert rae.get(f"{TLDR}/export").status_code == 200  # the place of the refused one is free again


def test_few_files_are_on_their_way_at_once(server, rae):
    server.project()
    for _ in range(research_data.FILES_AT_ONCE):
        research_data._files.acquire()
    try:
        assert error_of(rae.get(f"{TLDR}/export")) == (429, "too_many")
        assert error_of(take(rae, lines(1))) == (429, "too_many")
    finally:
        for _ in range(research_data.FILES_AT_ONCE):
            research_data._files.release()
    assert rae.get(f"{TLDR}/export").status_code == 200


def add_many(conn):
    """Items with an answer each."""
    item, row, kept = (
        dict(conn.execute(select(table)).mappings().one()) for table in (tables.item, tables.feedback, tables.answer)
    )
    many = range(2, 3_000)
    conn.execute(insert(tables.item), [{**item, "id": n, "key": f"item-{n}", "place": n} for n in many])
    rows = [{**row, "seq": n, "key": f"key-{n}", "item": n, "assignment": None} for n in many]
    conn.execute(insert(tables.feedback), rows)
    conn.execute(insert(tables.answer), [{**kept, "seq": n, "item": n, "assignment": -n} for n in many])


def test_an_export_holds_no_more_than_a_piece(server, rae):
    """Three thousand times the rows: the memory stays that of a page of them."""
    ann = server.client("ann")
    server.project(n=1, staged=False, members=["ann"])
    label(server, ann)

    def peak() -> int:
        tracemalloc.start()
        n = sum(len(part) for part in research_data._pieces(server.service, "tldr", "trl", {}))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n > 0
        return found

    peak()  # imports and caches
    small = peak()
    server.store.write(add_many)
    assert peak() < small + 4_000_000


def test_a_download_that_breaks_off_gives_its_place_free(server, rae):
    ann = server.client("ann")
    server.project(n=1, staged=False, members=["ann"])
    label(server, ann)
    server.store.write(add_many)
    key = rae.post(f"{RESEARCH}/keys", json={"label": "download", "hours": 1}).json()["key"]
    sock = bind("127.0.0.1", 0)
    sock.listen(16)
    host = f"127.0.0.1:{sock.getsockname()[1]}"
    program = make_server(server.app)
    thread = threading.Thread(target=lambda: program.run(sockets=[sock]), daemon=True)
    thread.start()
    asked = f"GET {TLDR}/export HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    try:
        for _ in range(2 * research_data.FILES_AT_ONCE):
            until = time.monotonic() + 20
            said = b""
            while b"200 OK" not in said:  # the one before may still be on its way out
                assert time.monotonic() < until, said
                with socket.create_connection(sock.getsockname(), timeout=20) as line:
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
                    line.sendall(asked)
                    said = line.recv(1_024)
    finally:
        program.should_exit = True
        thread.join(20)
        sock.close()
    assert not thread.is_alive()
    until = time.monotonic() + 20
    while (code := rae.get(f"{TLDR}/export").status_code) == 429 and time.monotonic() < until:
        time.sleep(0.05)  # the last of them may still be on its way out, too
    assert code == 200


def test_a_server_reads_ahead_and_keeps_nobody_waiting_who_asks_for_something_else(server, rae, monkeypatch):
    """The reading is held back here: who asks for agreement waits for it, many at once, and others do not."""
    server.project()
    may_go, began = threading.Event(), threading.Event()
    follow = Judgements.follow

    def slowly(judgements, conn):
        began.set()
        assert may_go.wait(30)
        follow(judgements, conn)

    monkeypatch.setattr(Judgements, "follow", slowly)
    waiting, codes = [], []
    with rae:  # whose entering starts the server
        assert began.wait(10)
        for _ in range(20):
            ask = threading.Thread(target=lambda: codes.append(rae.get(f"{TLDR}/agreement").status_code))
            ask.start()
            waiting.append(ask)
        assert rae.get(f"{TLDR}/progress").status_code == 200
        assert not codes
        may_go.set()
        for ask in waiting:
            ask.join(30)
    assert codes == [200] * 20
    [(_, judgements)] = server.service.held._held.values()
    assert None in judgements.reports


def test_a_server_that_ends_reads_no_further_project(server, rae, monkeypatch):
    server.project()
    server.project("another")
    begun, may_go, read = threading.Event(), threading.Event(), []

    def follow(judgements, *_):
        read.append(judgements.project_id)
        begun.set()
        may_go.wait(30)

    monkeypatch.setattr(Judgements, "follow", follow)
    with server.service.reading_ahead() as thread:
        assert begun.wait(30)
        threading.Timer(0.2, may_go.set).start()
    assert not thread.is_alive()
    assert len(read) == 1
