"""Coming in and going out: passwords, links, invitations, sessions, keys."""

from __future__ import annotations

import pytest
from label_server import HERE, PASSWORD, error_of
from sqlalchemy import select

from rein.feedback import people, tables
from rein.web.label import service
from rein.web.label.entry import BROWSER_LIFE_MS
from rein.web.label.guard import COOKIE
from rein.web.label.links import DAY_MS, first_link

API = "/label/api"


def login(server, name="ann", password=PASSWORD):
    return server.stranger().post(f"{API}/login", json={"name": name, "password": password})


def token_of(link: str) -> str:
    return link.partition("#")[2]


def invite(researcher, **more) -> str:
    answer = researcher.post(f"{API}/research/invites", json=more)
    assert answer.status_code == 200, answer.text
    return token_of(answer.json()["link"])


def audit(server) -> list[str]:
    with server.store.reading() as conn:
        return list(conn.execute(select(tables.audit.c.act).order_by(tables.audit.c.seq)).scalars())


def test_a_password_opens_a_session_in_a_cookie_that_no_script_reads(server):
    server.add("ann")
    answer = login(server)
    assert answer.json() == {"name": "ann", "role": "labeler"}
    cookie = answer.headers["set-cookie"]
    for part in (f"{COOKIE}=", "HttpOnly", "SameSite=lax", "Path=/label", f"Max-Age={BROWSER_LIFE_MS // 1000}"):
        assert part in cookie
    assert "Secure" not in cookie
    assert audit(server) == ["log in"]


def test_the_cookie_is_for_tls_alone_where_there_is_tls(server):
    server.add("ann")
    client = server.stranger(origin=HERE.replace("http:", "https:"))
    client.base_url = HERE.replace("http:", "https:")
    assert "Secure" in client.post(f"{API}/login", json={"name": "ann", "password": PASSWORD}).headers["set-cookie"]


def test_every_login_gives_a_new_session_and_ends_the_one_before(server):
    client = server.client("ann")
    before = client.cookies[COOKIE]
    client.post(f"{API}/login", json={"name": "ann", "password": PASSWORD})
    assert client.cookies[COOKIE] != before
    old = server.stranger()
    old.cookies.set(COOKIE, before)
    assert error_of(old.get(f"{API}/me")) == (401, "login")


def test_a_cookie_that_somebody_planted_is_no_session(server):
    server.add("ann")
    client = server.stranger()
    client.cookies.set(COOKIE, "planted-by-somebody-else")
    answer = client.post(f"{API}/login", json={"name": "ann", "password": PASSWORD})
    assert "planted" not in answer.headers["set-cookie"]


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong password"), ("nobody", PASSWORD)])
def test_a_wrong_name_and_a_wrong_password_are_told_the_same(server, name, password):
    server.add("ann")
    answer = login(server, name, password)
    assert error_of(answer) == (401, "login")
    assert answer.json()["error"]["text"] == "The name or the password is wrong."
    assert audit(server) == ["wrong password"]


def test_too_many_wrong_passwords_for_an_account_make_it_wait_for_all(server):
    server.add("ann")
    codes = [login(server, password=f"wrong password {n}").status_code for n in range(11)]
    assert codes == [401] * 10 + [429]
    answer = login(server, "ANN")  # by another form of the same name, and the right password
    assert error_of(answer) == (429, "too_many")
    assert int(answer.headers["retry-after"]) > 1
    server.add("ben")
    assert login(server, "ben").status_code == 200
    server.seconds += 20
    assert login(server).status_code == 200


def test_too_many_wrong_passwords_from_an_address_make_it_wait(server):
    server.add("ann")
    codes = [login(server, f"nobody {n}").status_code for n in range(21)]
    assert codes == [401] * 20 + [429]
    assert error_of(login(server)) == (429, "too_many")


def test_right_passwords_are_not_counted(server):
    server.add("ann")
    assert {login(server).status_code for _ in range(25)} == {200}


def test_logging_out_ends_the_session(server):
    client = server.client("ann")
    token = client.cookies[COOKIE]
    assert client.post(f"{API}/logout", json={}).status_code == 200
    assert COOKIE not in client.cookies
    client.cookies.set(COOKIE, token)
    assert error_of(client.get(f"{API}/me")) == (401, "login")


def test_a_session_ends_by_itself(server, monkeypatch):
    monkeypatch.setattr(service, "KNOWN_S", 0.0)
    client = server.client("ann")
    server.clock.ms += 10**10
    assert error_of(client.get(f"{API}/me")) == (401, "login")


def test_an_account_that_is_closed_is_out_at_once(server):
    client, researcher = server.client("ann"), server.client("rae", "researcher")
    number = next(
        one["id"] for one in researcher.get(f"{API}/research/people").json()["people"] if one["name"] == "ann"
    )
    assert researcher.post(f"{API}/research/people/{number}", json={"active": False}).status_code == 200
    assert error_of(client.get(f"{API}/me")) == (401, "login")
    assert login(server).status_code == 401


# --------------------------------------------------------------------------------------------------------------- links


def test_the_first_link_lets_one_browser_in_once(server):
    link = first_link(server.store, f"{HERE}/label")
    assert link.startswith(f"{HERE}/label/enter#")
    client = server.stranger()
    server.clock.ms = 10**13  # a link of the real clock is over by then
    assert error_of(client.post(f"{API}/enter", json={"token": token_of(link)})) == (403, "invitation")


def test_each_start_prints_another_link_until_there_is_a_password(server, monkeypatch):
    monkeypatch.setattr("rein.web.label.links.now_ms", server.clock)
    first = token_of(first_link(server.store, HERE))
    second = token_of(first_link(server.store, HERE))
    client = server.stranger()
    assert error_of(client.post(f"{API}/enter", json={"token": first})) == (403, "invitation")
    assert client.post(f"{API}/enter", json={"token": second}).json() == {"name": "researcher", "role": "admin"}
    assert error_of(server.stranger().post(f"{API}/enter", json={"token": second})) == (403, "invitation")
    assert client.get(f"{API}/me").json()["has_password"] is False
    assert client.post(f"{API}/password", json={"new": PASSWORD}).status_code == 200
    assert first_link(server.store, HERE) is None
    assert login(server, "researcher").status_code == 200


def test_the_first_link_is_over_after_a_day(server, monkeypatch):
    monkeypatch.setattr("rein.web.label.links.now_ms", server.clock)
    link = first_link(server.store, HERE)
    server.clock.ms += DAY_MS
    assert error_of(server.stranger().post(f"{API}/enter", json={"token": token_of(link)})) == (403, "invitation")


def test_no_account_and_no_password_is_there_by_itself(server):
    first_link(server.store, HERE)
    with server.store.reading() as conn:
        assert conn.execute(select(tables.person.c.password)).scalars().all() == [None]
    for password in ("", "password", "admin", "researcher"):
        assert login(server, "researcher", password).status_code in (401, 422)


def test_the_researcher_of_the_first_start_is_the_same_at_the_second(server):
    for _ in range(3):
        first_link(server.store, HERE)
    with server.store.reading() as conn:
        assert conn.execute(select(tables.person.c.name)).scalars().all() == ["researcher"]


# --------------------------------------------------------------------------------------------------------- invitations


def test_an_invitation_makes_a_labeler_of_the_project(server):
    server.project()
    token = invite(server.client("rae", "researcher"), project="tldr", uses=2)
    for name in ("ann", "ben"):
        client = server.stranger()
        answer = client.post(f"{API}/join", json={"token": token, "name": name, "password": PASSWORD})
        assert answer.json() == {"name": name, "role": "labeler"}
        assert [one["name"] for one in client.get(f"{API}/me").json()["projects"]] == ["tldr"]
    used = server.stranger().post(f"{API}/join", json={"token": token, "name": "cem", "password": PASSWORD})
    assert error_of(used) == (403, "invitation")


@pytest.mark.parametrize(
    "said", [{"name": "rae"}, {"name": "a\u202eb"}, {"name": "  "}, {"name": "a" * 65}, {"password": "short"}]
)
def test_a_name_or_password_that_is_none_does_not_use_the_invitation_up(server, said):
    token = invite(server.client("rae", "researcher"))
    client = server.stranger()
    body = {"token": token, "name": "ann", "password": PASSWORD}
    assert error_of(client.post(f"{API}/join", json=body | said)) == (422, "bad_value")
    assert client.post(f"{API}/join", json=body).status_code == 200


def test_an_invitation_is_over_when_its_hours_are(server):
    token = invite(server.client("rae", "researcher"), hours=1)
    server.clock.ms += 3_600_000
    answer = server.stranger().post(f"{API}/join", json={"token": token, "name": "ann", "password": PASSWORD})
    assert error_of(answer) == (403, "invitation")


def test_guessing_links_is_stopped(server):
    token = invite(server.client("rae", "researcher"))
    client = server.stranger()
    codes = [client.post(f"{API}/enter", json={"token": f"guess-{n}"}).status_code for n in range(21)]
    assert codes == [403] * 20 + [429]
    answer = client.post(f"{API}/join", json={"token": token, "name": "ann", "password": PASSWORD})
    assert error_of(answer) == (429, "too_many")


def test_a_link_for_somebody_known_makes_nobody_new(server):
    researcher = server.client("rae", "researcher")
    number = server.add("ann")
    token = invite(researcher, person=number)
    answer = server.stranger().post(f"{API}/join", json={"token": token, "name": "new", "password": PASSWORD})
    assert error_of(answer) == (403, "invitation")
    assert server.stranger().post(f"{API}/enter", json={"token": token}).json()["name"] == "ann"


def test_researchers_lift_nobody_above_themselves(server):
    researcher = server.client("rae", "researcher")
    admin, other = server.add("ada", "admin"), server.add("rex", "researcher")
    for body in ({"role": "admin"}, {"person": admin}, {"person": other}):
        assert researcher.post(f"{API}/research/invites", json=body).status_code in (403, 422), body
    assert researcher.post(f"{API}/research/people/{admin}", json={"role": "labeler"}).status_code == 422
    assert researcher.post(f"{API}/research/people/{other}", json={"role": "admin"}).status_code == 422


def test_nobody_changes_their_own_role(server):
    admin = server.client("ada", "admin")
    with server.store.reading() as conn:
        number = people.find_person(conn, "ada")
    assert error_of(admin.post(f"{API}/research/people/{number}", json={"role": "labeler"})) == (422, "bad_value")


# ---------------------------------------------------------------------------------------- passwords, sessions and keys


def test_a_new_password_needs_the_old_one_and_ends_the_other_sessions(server):
    client, elsewhere = server.client("ann"), server.stranger()
    elsewhere.post(f"{API}/login", json={"name": "ann", "password": PASSWORD})
    for old in ("wrong password", None):
        body = {"old": old, "new": "another password"}
        assert error_of(client.post(f"{API}/password", json=body)) == (403, "wrong_password")
    before = client.cookies[COOKIE]
    assert client.post(f"{API}/password", json={"old": PASSWORD, "new": "another password"}).status_code == 200
    assert client.cookies[COOKIE] != before
    assert client.get(f"{API}/me").status_code == 200
    assert error_of(elsewhere.get(f"{API}/me")) == (401, "login")
    assert login(server).status_code == 401
    assert login(server, password="another password").status_code == 200


def test_guessing_the_old_password_is_stopped(server):
    client = server.client("ann")
    body = {"old": "wrong password", "new": "another password"}
    codes = [client.post(f"{API}/password", json=body).status_code for _ in range(11)]
    assert codes == [403] * 10 + [429]


def test_sessions_are_seen_and_ended(server):
    client, elsewhere = server.client("ann"), server.stranger(**{"user-agent": "another browser"})
    elsewhere.post(f"{API}/login", json={"name": "ann", "password": PASSWORD})
    rows = client.get(f"{API}/sessions").json()["sessions"]
    assert [row["this"] for row in rows].count(True) == 1
    other = next(row["id"] for row in rows if row["label"] == "another browser")
    assert client.delete(f"{API}/sessions/{other}").status_code == 200
    assert error_of(elsewhere.get(f"{API}/me")) == (401, "login")
    assert error_of(client.delete(f"{API}/sessions/{other}")) == (404, "unknown")


def test_when_a_session_was_used_is_noted_once_a_minute(server, monkeypatch):
    monkeypatch.setattr(service, "KNOWN_S", 0.0)
    client, seen = server.client("ann"), []
    for _ in range(5):
        server.clock.ms += 25_000
        seen.append(client.get(f"{API}/sessions").json()["sessions"][0]["seen_ms"] - server.clock.ms)
    assert seen == [-25_000, -50_000, 0, -25_000, -50_000]


def test_nobody_ends_the_sessions_of_others(server):
    client, ben = server.client("ann"), server.client("ben")
    other = ben.get(f"{API}/sessions").json()["sessions"][0]["id"]
    assert error_of(client.delete(f"{API}/sessions/{other}")) == (404, "unknown")
    assert ben.get(f"{API}/me").status_code == 200


def test_a_session_that_another_process_ends_ends_a_little_later(server, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    client = server.client("ann")
    assert client.get(f"{API}/me").status_code == 200
    server.store.write(lambda conn: people.close_sessions(conn, people.find_person(conn, "ann")))
    now[0] = service.KNOWN_S
    assert error_of(client.get(f"{API}/me")) == (401, "login")


def test_a_key_is_its_owner_until_it_ends_and_changes_no_password(server, monkeypatch):
    monkeypatch.setattr(service, "KNOWN_S", 0.0)
    researcher = server.client("rae", "researcher")
    key = researcher.post(f"{API}/research/keys", json={"label": "cluster", "hours": 1}).json()["key"]
    program = server.stranger(authorization=f"Bearer {key}")
    assert program.get(f"{API}/me").json()["name"] == "rae"
    assert error_of(program.post(f"{API}/password", json={"old": PASSWORD, "new": "x" * 12})) == (403, "forbidden")
    row = next(row for row in researcher.get(f"{API}/sessions").json()["sessions"] if row["kind"] == "key")
    assert row["label"].startswith("cluster")
    assert key not in str(row)
    server.clock.ms += 3_600_000
    assert error_of(program.get(f"{API}/me")) == (401, "login")


def test_no_secret_is_in_the_store_or_in_its_audit_log(server):
    researcher = server.client("rae", "researcher")
    key = researcher.post(f"{API}/research/keys", json={"label": "cluster"}).json()["key"]
    token = invite(researcher)
    login(server, PASSWORD, "x")  # some type their password as their name
    server.store.backup(server.store.path.with_name("copy.db"))
    held = server.store.path.with_name("copy.db").read_bytes()
    for secret in (PASSWORD, key, token, researcher.cookies[COOKIE]):
        assert secret.encode() not in held
