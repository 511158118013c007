"""The labeling API on both databases: what one keeps and finds, the other does too; neither fails on what is odd."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "web"))  # label_server.py

from label_server import Server, error_of

API = "/label/api"
TLDR = f"{API}/research/projects/tldr"
HUGE = 2**63 - 1


@pytest.fixture
def server(store):
    return Server(store)


def test_work_questions_numbers_and_files_are_the_same(server):
    rae, ann, ben = server.client("rae", "researcher"), server.client("ann"), server.client("ben")
    server.project(n=3, staged=True, members=["ann", "ben"])
    rae.post(f"{TLDR}/instructions", json={"text": "Read both."})
    for client in (ann, ben):
        for _ in range(3):
            [card] = client.post(f"{API}/claim", json={"project": "tldr"}).json()["items"]
            note = {"key": server.key(), "assignment": card["assignment"], "notes": ["one 😀", "two \u202e"]}
            card = client.post(f"{API}/reveal", json=note).json()
            body = {"key": server.key(), "assignment": card["assignment"], "revision": card["revision"]}
            body["answers"] = {"choice": {"choice": 0, "points": 2}}
            first = client.post(f"{API}/submit", json=body)
            assert first.status_code == 200, first.text
            assert client.post(f"{API}/submit", json=body).json() == first.json()
        undo = {"key": server.key(), "assignment": card["assignment"]}
        card = client.post(f"{API}/undo", json=undo).json()
        assert card["notes"] == ["one 😀", "two \u202e"]
        skip = {"key": server.key(), "assignment": card["assignment"], "reason": "Unclear."}
        assert client.post(f"{API}/skip", json=skip).status_code == 200
        assert client.post(f"{API}/ask", json={"assignment": card["assignment"], "text": "Why?"}).status_code == 200
        assert len(client.get(f"{API}/history?project=tldr").json()["items"]) == 3
        assert len(client.get(f"{API}/threads?project=tldr").json()["threads"]) == 1
        assert client.get(f"{API}/mine?project=tldr").status_code == 200
        assert client.get(f"{API}/me").json()["projects"][0]["mine"] == 2
    found = rae.get(f"{TLDR}/progress").json()
    assert (found["left"], found["pace"]["last_hour"], found["batches"][0]["roles"]["work"]["answers"]) == (2, 4, 4)
    assert rae.get(f"{TLDR}/agreement").json()["answers"] == 4
    assert len(rae.get(f"{TLDR}/items").json()["items"]) == 3
    assert len(rae.get(f"{TLDR}/items?text=POST+1").json()["items"]) == 1
    assert rae.get(f"{API}/research/items/1").json()["rows"]
    rows = [json.loads(line) for line in rae.get(f"{TLDR}/export?format=trl").text.splitlines()]
    assert len(rows) == 4
    for path in ("people", "messages", "threads"):
        assert rae.get(f"{TLDR}/{path}").status_code == 200
    assert rae.get(f"{API}/research/audit").json()["rows"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/research/projects/a%00b/items", None), ("GET", "/research/projects/tldr/items?text=%00", None),
        ("GET", f"/research/projects/tldr/items?after={HUGE}", None),
        ("GET", f"/research/projects/tldr/items?after={HUGE + 1}", None), ("GET", f"/research/items/{HUGE}", None),
        ("GET", f"/research/items/{HUGE + 1}", None), ("GET", "/research/items/-1", None),
        ("GET", f"/research/audit?after={HUGE}", None), ("GET", f"/instructions?project=tldr&version={HUGE}", None),
        ("GET", "/mine?project=%00", None), ("GET", "/mine?project=%ED%A0%80", None),
        ("POST", "/heartbeat", {"assignments": [HUGE, 0]}), ("POST", "/seen", {"messages": [HUGE, 0]}),
        ("POST", f"/research/items/{HUGE}", {"priority": 1.0}),
        ("POST", "/research/projects/tldr/members", {"person": HUGE, "state": "working"}),
        ("POST", f"/research/threads/{HUGE}", {"reply": "x"}), ("POST", f"/research/people/{HUGE}", {"active": True}),
        ("POST", "/research/invites", {"person": HUGE}), ("POST", "/research/keys", {"label": "😀" * 200}),
        ("POST", "/preferences", {"preferences": {"a": [1, {"b": "\u202e😀"}]}}),
        ("POST", "/research/projects/tldr/instructions", {"text": "<script>\u202e😀" * 1000}),
    ],
)  # fmt: skip
def test_odd_requests_are_answered_and_never_a_failure(server, method, path, body):
    admin = server.client("ada", "admin")
    server.project()
    answer = admin.request(method, API + path, json=body)
    assert answer.status_code in (200, 404, 422), answer.text
    if answer.status_code != 200:
        assert error_of(answer)[1] in ("unknown", "bad_value")
