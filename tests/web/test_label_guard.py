"""What stands before the labeling API: other sites, large bodies, bad JSON, too many tries, who is asking."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_server import HERE, PASSWORD, error_of
from starlette.websockets import WebSocketDisconnect

from rein.web.app import HEADERS
from rein.web.label import limits as module
from rein.web.label.guard import COOKIE, MAX_BODY_BYTES, Wrong, strict_json
from rein.web.label.limits import Buckets

TOKEN = "nobodys"
LOGIN = {"name": "ann", "password": PASSWORD}
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
KEEPS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)  # fmt: skip


@given(KEEPS)
def test_strict_json_reads_what_a_database_keeps(value):
    assert strict_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b'{"a": NaN}', 400),
        (b'{"a": -Infinity}', 400),
        (b'{"a": 1, "a": 2}', 400),
        (b"[" * 60 + b"]" * 60, 400),
        (b"[" * 200_000, 400),
        (b"1" * 10_000, 400),
        (b'"\\u0000"', 422),
        (b'{"\\u0000": 1}', 422),
        (b'"\\ud800"', 422),
        (b'["\\udfff"]', 422),
        (b"9223372036854775808", 422),
        (b"-9223372036854775809", 422),
        (b"1e999", 422),
    ],
)
def test_strict_json_refuses_the_rest(body, status):
    with pytest.raises(Wrong) as told:
        strict_json(body)
    assert told.value.status_code == status
    assert len(told.value.text) < 300


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"origin": HERE}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site", "origin": HERE}, False),
        ({"sec-fetch-site": "cross-site", "origin": HERE}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://127.0.0.1:9"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_cookie_counts_only_from_a_page_of_this_server(server, headers, passes):
    client = server.client("ann")
    del client.headers["origin"]
    answer = client.post("/label/api/seen", json={"messages": []}, headers=headers)
    assert answer.status_code == 200 if passes else error_of(answer) == (403, "origin")


def test_a_program_with_a_key_and_no_cookie_needs_no_origin(server):
    key = server.client("ann", "researcher").post("/label/api/research/keys", json={"label": "x"}).json()["key"]
    program = server.stranger(authorization=f"Bearer {key}")
    del program.headers["origin"]
    assert program.post("/label/api/seen", json={"messages": []}).status_code == 200
    program.cookies.set(COOKIE, "anything")
    assert error_of(program.post("/label/api/seen", json={"messages": []})) == (403, "origin")


def test_a_host_that_is_none_of_ours_is_refused(server):
    assert server.stranger(host="evil.example").get("/label/api/me").status_code == 400


@pytest.mark.parametrize("length", [True, False])
def test_a_large_body_is_refused_before_it_is_read(server, length):
    body = b'{"name": "' + b"a" * MAX_BODY_BYTES + b'"}'
    content = body if length else iter([body[:100], body[100:]])
    answer = server.stranger().post("/label/api/login", content=content, headers={"content-type": "application/json"})
    assert error_of(answer) == (413, "too_large")


PLACES = [
    ("POST", "/label/api/research/projects/tldr/batches/import"),
    ("PATCH", "/label/api/research/projects/import"),
    ("PUT", "/label/api/research/projects/tldr/import"),
    ("POST", "/label/api/research/projects/tldr/import/"),
    ("POST", "/label/api/import"),
    ("POST", "/label/api/research/projects/a/b/import"),
]


@pytest.mark.parametrize(("method", "path"), PLACES)
@pytest.mark.parametrize("who", ["stranger", "researcher"])
def test_nothing_but_an_import_may_be_large(server, method, path, who):
    """Whatever the last word of its address is, be it the name of a batch or of a project."""
    client = server.stranger() if who == "stranger" else server.client("rae", "researcher")
    body = iter([b" " * 100_000] * 20)
    answer = client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert error_of(answer) == (413, "too_large")


@pytest.mark.parametrize(("who", "error"), [(None, (401, "login")), ("labeler", (403, "forbidden"))])
def test_the_file_of_who_may_not_import_is_not_read(server, who, error):
    server.project()
    token = TOKEN if who is None else server.client("ann", who).cookies[COOKIE]

    async def ask():
        said = []

        async def receive():
            pytest.fail("the body was asked for")

        async def send(message):
            said.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/label/api/research/projects/tldr/import", "query_string": b"",
            "headers": [(b"host", HERE[7:].encode()), (b"authorization", f"Bearer {token}".encode())],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8423), "scheme": "http", "http_version": "1.1",
            "root_path": "", "raw_path": b"",
        }  # fmt: skip
        await server.app(scope, receive, send)
        return said

    start, *rest = asyncio.run(ask())
    body = json.loads(b"".join(one.get("body", b"") for one in rest))
    assert (start["status"], body["error"]["code"]) == error


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999999999"])
def test_a_length_that_is_none_is_refused(server, length):
    answer = server.stranger().post("/label/api/login", content=b"{}", headers={"content-length": length})
    assert error_of(answer) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/label/api/nothing", 404, "unknown"),
        ("GET", "/label/api/%0A", 404, "unknown"),
        ("PUT", "/label/api/login", 405, "method"),
        ("GET", "/label/api/me", 401, "login"),
        ("GET", "/label/api/research/projects", 401, "login"),
    ],
)
def test_errors_are_json(server, method, path, status, code):
    assert error_of(server.stranger().request(method, path)) == (status, code)


def test_a_mistake_of_ours_is_json_too(server, monkeypatch):
    client = server.client("ann")
    monkeypatch.setattr(server.service, "clock", lambda: 1 / 0)
    assert error_of(client.get("/label/api/me")) == (500, "ours")


def test_a_body_that_is_no_json_type_is_refused(server):
    answer = server.stranger().post(
        "/label/api/login", content=json.dumps(LOGIN), headers={"content-type": "text/plain"}
    )
    assert error_of(answer) == (422, "bad_value")


@pytest.mark.parametrize("more", [{"x": 1}, {"name": 5}, {"name": ""}, {"name": "a" * 101}, {"password": None}])
def test_a_body_with_other_fields_or_types_is_refused(server, more):
    assert error_of(server.stranger().post("/label/api/login", json=LOGIN | more)) == (422, "bad_value")


def test_every_answer_carries_the_safe_headers(server):
    for path in ("/label/api/me", "/label/login", "/label/api/openapi.json"):
        answer = server.stranger().get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_there_is_no_websocket_below_the_api(server):
    with (
        pytest.raises(WebSocketDisconnect) as told,
        server.client("ann").websocket_connect(f"ws{HERE[4:]}/label/api/me"),
    ):
        pass
    assert told.value.code == 1008


# -------------------------------------------------------------------------------------------------------------- limits


def test_a_bucket_fills_with_time():
    now = [0.0]
    buckets = Buckets(most=3, per_s=0.5, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 2]
    assert buckets.take("b") == 0
    now[0] = 2.0
    assert [buckets.take("a") for _ in range(2)] == [0, 2]
    now[0] = 1000.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 2]


def test_buckets_forget_the_oldest(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 10)
    buckets = Buckets(most=1, per_s=1e-9, clock=lambda: 0.0)
    for n in range(100):
        buckets.take(str(n))
    assert len(buckets._buckets) == 10
    assert buckets.wait_s("99") > 0
    assert buckets.wait_s("0") == 0


def test_a_session_that_asks_too_often_waits(server):
    client = server.client("ann")
    codes = [client.get("/label/api/sessions").status_code for _ in range(int(server.service.limits.session.most) + 1)]
    assert set(codes[:-1]) == {200}
    answer = client.get("/label/api/sessions")
    assert (codes[-1], *error_of(answer)) == (429, 429, "too_many")
    assert int(answer.headers["retry-after"]) >= 1
    assert server.client("ben").get("/label/api/sessions").status_code == 200
    server.seconds += 1
    assert client.get("/label/api/sessions").status_code == 200


def test_strangers_who_ask_too_often_wait(server):
    codes = [server.stranger().get("/label/api/me").status_code for _ in range(201)]
    assert (codes[199], codes[200]) == (401, 429)
