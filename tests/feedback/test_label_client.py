"""The client asks again where that is safe, and only there; what the server says comes through."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from rein.errors import UserError
from rein.feedback import client as api
from rein.feedback import people
from rein.feedback.client import AsyncClient, Client, Denied
from rein.feedback.store import Store
from rein.web.label.serve import application
from rein.web.label.service import Service, now_ms

CARD = {"assignment": 7, "revision": 2}


class Server:
    """Answers with what it is given, one after the other, and keeps what it was asked."""

    def __init__(self, *answers) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok(**body) -> httpx.Response:
    return httpx.Response(200, json=body)


def error(status: int, code: str = "server", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "text": "It says so."}}, headers=headers)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(api, "FIRST_WAIT_S", 0.001)


def client_of(server: Server, **options) -> Client:
    return Client("http://127.0.0.1:1/", transport=httpx.MockTransport(server), **options)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ReadError("cut off"),
        httpx.RemoteProtocolError("ended"),
        httpx.ConnectError("refused"),
        error(500),
        error(503),
    ],
    ids=str,
)
def test_a_submission_is_sent_again_with_the_very_same_key(trouble):
    server = Server(trouble, trouble, ok(late=False))
    with client_of(server) as client:
        assert client.send(api.submit(CARD, {"choice": {"choice": 0, "points": 3}})) == {"late": False}
    bodies = [request.content for request in server.asked]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1, "a retry is the same request, byte for byte"


def test_submissions_have_keys_of_their_own():
    keys = {api.submit(CARD, {}).body["key"] for _ in range(100)} | {api.skip(1, "no").body["key"] for _ in range(100)}
    assert len(keys) == 200
    assert all(16 <= len(key) <= 100 for key in keys)


def test_what_might_count_twice_is_not_sent_twice():
    server = Server(httpx.ReadError("cut off"), ok())
    with client_of(server) as client, pytest.raises(UserError, match="does not answer \\(cut off\\)"):
        client.send(api.invite())
    assert len(server.asked) == 1
    server = Server(httpx.ConnectError("refused"), ok(link="x"))  # it surely did not arrive
    with client_of(server) as client:
        assert client.send(api.invite()) == {"link": "x"}


def test_a_refusal_is_the_last_word():
    server = Server(error(412, "stale"), ok())
    with client_of(server) as client, pytest.raises(Denied, match="It says so") as caught:
        client.send(api.submit(CARD, {}))
    assert (caught.value.status, caught.value.code) == (412, "stale")
    assert len(server.asked) == 1


def test_a_refusal_that_is_no_json_comes_through():
    server = Server(httpx.Response(400, text="Invalid host header"))
    with client_of(server) as client, pytest.raises(Denied, match="Invalid host header"):
        client.send(api.me())


def test_too_many_requests_wait_as_long_as_they_are_told(monkeypatch):
    waits = []
    monkeypatch.setattr(api.time, "sleep", waits.append)
    server = Server(error(429, "too_many", **{"retry-after": "3"}), error(429, "too_many"), ok())
    with client_of(server) as client:
        client.send(api.me())
    assert 2.4 <= waits[0] <= 3.6
    assert waits[1] < 0.1


def test_patience_ends():
    server = Server(httpx.ConnectError("refused"))
    with client_of(server, patience_s=0.05) as client, pytest.raises(UserError, match="rein label serve"):
        client.send(api.me())
    assert len(server.asked) > 2
    with client_of(Server(error(503, "busy")), patience_s=0.05) as client, pytest.raises(Denied, match="503, busy"):
        client.send(api.me())


def test_a_program_with_a_key_sends_it_and_one_without_says_where_it_comes_from():
    server = Server(ok())
    with client_of(server, key="k") as client:
        client.send(api.me())
    with client_of(server) as client:
        client.send(api.login("ada", "secret"))
    with_key, without = server.asked
    assert with_key.headers["authorization"] == "Bearer k"
    assert "origin" not in with_key.headers
    assert without.headers["origin"] == "http://127.0.0.1:1"
    assert str(without.url) == "http://127.0.0.1:1/label/api/login"


def test_many_at_once_do_as_one_does():
    async def both():
        server = Server(error(503), httpx.ReadError("cut off"), ok(items=[], nothing="all done"))
        async with AsyncClient("http://127.0.0.1:1", transport=httpx.MockTransport(server)) as client:
            got = await asyncio.gather(*(client.send(api.claim("tldr", 2)) for _ in range(5)))
        return server, got

    server, got = asyncio.run(both())
    assert got == [{"items": [], "nothing": "all done"}] * 5
    assert len(server.asked) == 7


# ------------------------------------------------------------------------------------------------- the real server


@pytest.fixture
def service(tmp_path):
    with Store.open(tmp_path / "a.db", create=True) as store:
        yield Service(store)


def through(service: Service, **options) -> AsyncClient:
    """A client of a server in this process."""
    app = httpx.ASGITransport(application(service))
    return AsyncClient("http://127.0.0.1:8423", transport=app, **options)


def test_a_researcher_and_a_labeler_do_all_of_it(service):
    def researcher(conn):
        return people.open_session(conn, now_ms(), people.add_person(conn, 0, "R", "admin"), "key", "test", 60_000)

    key = service.store.write(researcher)
    rows = [{"prompt": f"p {at}", "outputs": [{"text": "a"}, {"text": "b"}]} for at in range(3)]

    async def all_of_it():
        async with through(service, key=key) as r, through(service) as guest:
            await r.send(api.make_project({"name": "p", "questions": [{"name": "best", "kind": "best_of"}]}))
            body = "".join(json.dumps(row) + "\n" for row in rows).encode()
            assert (await r.send(api.import_file("p", body, format="prompts", dry=True)))["added"] == 3
            assert (await r.send(api.import_file("p", body, format="prompts")))["added"] == 3
            assert (await r.send(api.import_file("p", body, format="prompts")))["known"] == 3
            link = (await r.send(api.invite("labeler", project="p", uses=1, hours=1)))["link"]

            await guest.send(api.join(link.partition("#")[2], "ada", "a long password"))
            assert (await guest.send(api.me()))["name"] == "ada"
            first, second = (await guest.send(api.claim("p", 2)))["items"]
            again = (await guest.send(api.claim("p", 2)))["items"]
            assert [card["assignment"] for card in again] == [first["assignment"], second["assignment"]]
            said = api.submit(first, {"best": {"best": 1}}, times={"active_ms": 900})
            assert await guest.send(said) == await guest.send(said), "the same submission twice is one"
            opened = await guest.send(api.undo(first["assignment"]))
            assert opened["answers"] == {"best": {"best": 1}}
            await guest.send(api.submit(opened, {"best": {"best": 0}}))
            await guest.send(api.ask(second["assignment"], "What is meant?"))
            assert list((await guest.send(api.heartbeat([second["assignment"]])))["leases"]) == [
                str(second["assignment"])
            ]
            await guest.send(api.skip(second["assignment"], "I cannot tell."))
            (third,) = (await guest.send(api.claim("p")))["items"]
            await guest.send(api.release([third["assignment"]]))
            assert len((await guest.send(api.history("p")))["items"]) >= 2
            assert len((await guest.send(api.threads("p")))["threads"]) == 1
            assert (await guest.send(api.instructions("p")))["version"] == 0
            await guest.send(api.mine("p"))
            with pytest.raises(Denied) as denied:
                await guest.send(api.people())
            assert denied.value.status == 403

            assert {one["name"] for one in (await r.send(api.people()))["people"]} == {"R", "ada"}
            assert [one["name"] for one in (await r.send(api.projects()))["projects"]] == ["p"]
            assert len((await r.send(api.items("p")))["items"]) == 3
            await r.send(api.progress("p"))
            await r.send(api.agreement("p"))
            lines = (await r.send(api.export("p"))).splitlines()
            assert len(lines) >= 3
            assert all(json.loads(line) for line in lines)

            async with through(service) as later:
                with pytest.raises(Denied) as denied:
                    await later.send(api.login("ada", "another password"))
                assert denied.value.status == 401
                assert (await later.send(api.login("ada", "a long password")))["name"] == "ada"

    asyncio.run(all_of_it())


def test_a_link_that_works_once_lets_in_once(service):
    def link(conn):
        person = people.add_person(conn, 0, "R", "admin")
        return people.invite(conn, now_ms(), "admin", person=person, life_ms=60_000)

    token = service.store.write(link)

    async def twice():
        async with through(service) as client, through(service) as other:
            assert (await client.send(api.enter(token)))["name"] == "R"
            with pytest.raises(Denied):
                await other.send(api.enter(token))

    asyncio.run(twice())
