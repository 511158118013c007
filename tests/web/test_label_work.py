"""A labeler at work through the API: what they see, what they may not, and that each request counts once."""

from __future__ import annotations

import pytest
from label_server import HIDDEN, error_of
from sqlalchemy import func, select

from rein.feedback import tables
from rein.feedback.refused import Code, Refused
from rein.web.label.guard import STATUS

API = "/label/api"
FIRST = {"choice": {"choice": 0, "points": 2}}
TIMES = {"active_ms": 900, "reading_ms": 400, "stages_ms": [200, 200]}


def claim(client, project="tldr", count=1):
    answer = client.post(f"{API}/claim", json={"project": project, "count": count})
    assert answer.status_code == 200, answer.text
    return answer.json()


def card_of(client, project="tldr"):
    return claim(client, project)["items"][0]


def submit(server, client, card, **more):
    body = {"key": server.key(), "assignment": card["assignment"], "revision": card["revision"], "answers": FIRST}
    return client.post(f"{API}/submit", json={**body, **more})


def rows(server, table) -> int:
    with server.store.reading() as conn:
        return conn.execute(select(func.count()).select_from(table)).scalar_one()


@pytest.fixture
def ann(server):
    client = server.client("ann")
    server.project(staged=False, members=["ann"])
    return client


def test_a_card_has_what_it_needs_and_nothing_else(server, ann):
    card = card_of(ann)
    assert set(card) == {
        "assignment", "revision", "lease_ms", "practice", "context", "fields", "staged", "revealed", "candidates",
        "questions", "instructions", "diff", "show_length", "answers", "notes",
    }  # fmt: skip
    assert [set(one) for one in card["candidates"]] == [{"text"}] * 2
    assert set(card["questions"][0]) == {
        "name", "kind", "text", "points", "axes", "flags", "ties", "required", "rubric",
    }  # fmt: skip
    assert card["questions"][0]["text"] == "Which is better?"
    assert card["lease_ms"] > server.clock()


def test_fields_that_a_project_does_not_show_stay_in_the_store(server):
    client = server.client("ann")
    server.project(staged=False, members=["ann"], fields=["post"])
    card = card_of(client)
    assert (card["fields"], set(card["context"])) == (["post"], {"post"})


def test_no_answer_to_a_labeler_names_what_is_hidden(server):
    ann, ben, rae = server.client("ann"), server.client("ben"), server.client("rae", "researcher")
    server.project(
        roles=("work", "gold", "calibration", "drift", "onboarding"), members=["ann", "ben"], onboarding=1,
        pass_agreement=0.0, gold_share=0.3, calibration_share=0.3, drift_share=0.3,
    )  # fmt: skip
    rae.post(f"{API}/research/projects/tldr/instructions", json={"text": "Read both."})
    seen = []

    def note(answer):
        assert answer.status_code == 200, answer.text
        seen.append(answer.text)
        return answer.json()

    for client in (ben, ann):
        for _ in range(12):
            found = note(client.post(f"{API}/claim", json={"project": "tldr", "count": 2}))
            if not found["items"]:
                break
            card = found["items"][0]
            note(client.post(f"{API}/heartbeat", json={"assignments": [card["assignment"]]}))
            body = {"key": server.key(), "assignment": card["assignment"], "notes": ["one", "two"]}
            card = note(client.post(f"{API}/reveal", json=body))
            practice = card["practice"]
            note(submit(server, client, card, times=TIMES))
            if not practice:
                undone = {"key": server.key(), "assignment": card["assignment"]}
                card = note(client.post(f"{API}/undo", json=undone))
                note(submit(server, client, card))
            note(client.post(f"{API}/ask", json={"assignment": card["assignment"], "text": "Why?"}))
    for path in (
        "/me",
        "/history?project=tldr",
        "/threads?project=tldr",
        "/instructions?project=tldr",
        "/mine?project=tldr",
    ):
        note(ann.get(API + path))
    assert len(seen) > 60
    everything = "\n".join(seen)
    for word in (
        *HIDDEN,
        '"role":"work"',
        "gold",
        "calibration",
        "drift",
        "ben",
        '"seed"',
        '"turn"',
        '"done":',
        '"wanted"',
    ):
        # `done` is said of a person's own practice round alone.
        found = everything.replace('"training":{"done":', "") if word == '"done":' else everything
        assert word not in found, word


def test_the_source_stays_in_the_store_until_the_notes_are_in(server):
    client = server.client("ann")
    server.project(members=["ann"])
    card = card_of(client)
    assert (card["staged"], card["revealed"], card["context"], card["fields"]) == (
        True,
        False,
        None,
        ["post", "hidden"],
    )
    assert error_of(submit(server, client, card)) == (422, "not_revealed")
    for notes in ([], ["one"], ["one", "two", "three"], ["one", 2]):
        body = {"key": server.key(), "assignment": card["assignment"], "notes": notes}
        assert error_of(client.post(f"{API}/reveal", json=body)) == (422, "bad_value")
    assert "post " not in client.get(f"{API}/history?project=tldr").text
    body = {"key": server.key(), "assignment": card["assignment"], "notes": ["one", "two"]}
    card = client.post(f"{API}/reveal", json=body).json()
    assert card["revealed"]
    assert card["context"]["post"].startswith("post ")
    assert card["notes"] == ["one", "two"]
    assert submit(server, client, card).status_code == 200


def test_answers_are_said_of_the_screen_and_kept_of_the_candidates(server, ann):
    for _ in range(4):
        card = card_of(ann)
        submit(server, ann, card, answers=FIRST, diff=True, times=TIMES)
    with server.store.reading() as conn:
        kept = conn.execute(select(tables.feedback)).mappings().all()
    for row in kept:
        assert row["value"]["choice"] == row["shown"]["order"][0]
        assert row["shown"]["diff"] is True
        assert row["times"] == TIMES


def test_the_same_request_again_counts_once_and_is_answered_the_same(server, ann):
    card, key = card_of(ann), server.key()
    answers = [submit(server, ann, card, key=key) for _ in range(3)]
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].json()["revision"] == 1
    assert rows(server, tables.feedback) == 1


@pytest.mark.parametrize("route", ["reveal", "submit", "skip", "undo", "ask"])
def test_every_route_with_a_key_answers_a_repeated_request_the_same(server, route):
    client = server.client("ann")
    server.project(members=["ann"])
    card = card_of(client)
    body = {"key": server.key(), "assignment": card["assignment"]}
    reveal = {**body, "notes": ["one", "two"]}
    if route in ("submit", "undo"):
        card = client.post(f"{API}/reveal", json={**reveal, "key": server.key()}).json()
    if route == "undo":
        submit(server, client, card)
    body |= {
        "reveal": {"notes": ["one", "two"]}, "submit": {"revision": 0, "answers": FIRST}, "skip": {"reason": "Why?"},
        "undo": {}, "ask": {"text": "What is this?"},
    }[route]  # fmt: skip
    first, before = client.post(f"{API}/{route}", json=body), rows(server, tables.feedback)
    again = client.post(f"{API}/{route}", json=body)
    assert (first.status_code, again.status_code, first.json()) == (200, 200, again.json())
    assert rows(server, tables.feedback) == before
    assert rows(server, tables.thread) == (route == "ask")


def test_a_key_is_for_one_request_of_one_route(server, ann):
    card, key = card_of(ann), server.key()
    assert submit(server, ann, card, key=key).status_code == 200
    other = submit(server, ann, card, key=key, answers={"choice": {"choice": 1, "points": 8}})
    assert error_of(other) == (422, "key_reused")
    elsewhere = ann.post(f"{API}/undo", json={"key": key, "assignment": card["assignment"]})
    assert error_of(elsewhere) == (422, "key_reused")


def test_the_same_key_of_another_person_is_another_key(server, ann):
    ben = server.client("ben")
    server.project("other", staged=False, members=["ben"])
    key = server.key()
    assert submit(server, ann, card_of(ann), key=key).status_code == 200
    assert submit(server, ben, card_of(ben, "other"), key=key).status_code == 200


def test_what_is_not_ones_own_is_not_there(server, ann):
    ben = server.client("ben")
    card = card_of(ann)
    number = card["assignment"]
    for path, body in (
        ("reveal", {"notes": ["a", "b"]}), ("submit", {"revision": 0, "answers": FIRST}), ("skip", {"reason": "x"}),
        ("undo", {}), ("ask", {"text": "x"}),
    ):  # fmt: skip
        told = [
            ben.post(f"{API}/{path}", json={"key": server.key(), "assignment": which, **body})
            for which in (number, 9999)
        ]
        assert [error_of(answer) for answer in told] == [(404, "unknown")] * 2, path
        assert told[0].text == told[1].text
    assert ben.post(f"{API}/heartbeat", json={"assignments": [number]}).json() == {"leases": {}}
    assert ben.post(f"{API}/release", json={"assignments": [number]}).status_code == 200
    assert submit(server, ann, card).json()["late"] is False
    for path in ("instructions", "history", "mine", "threads"):
        assert error_of(ben.get(f"{API}/{path}?project=tldr")) == (404, "unknown")
        assert ben.get(f"{API}/{path}?project=tldr").text == ben.get(f"{API}/{path}?project=none").text
    assert error_of(ben.post(f"{API}/claim", json={"project": "tldr"})) == (404, "unknown")
    assert ben.get(f"{API}/me").json()["projects"] == []


def test_labelers_reach_no_route_of_researchers(server, ann):
    routes = [
        (method.upper(), path)
        for path, found in server.app.routes[0].app.app.openapi()["paths"].items()
        for method in found
        if path.startswith("/research")
    ]
    assert len(routes) > 20
    for method, path in routes:
        path = path.replace("{name}", "tldr").replace("{id}", "1").replace("{batch}", "batch1")
        assert error_of(ann.request(method, API + path, json={})) == (403, "forbidden"), (method, path)


def test_an_edit_of_what_was_changed_meanwhile_is_refused(server, ann):
    card = card_of(ann)
    submit(server, ann, card)
    assert error_of(submit(server, ann, card)) == (412, "stale")
    assert submit(server, ann, {**card, "revision": 1}).json()["revision"] == 2


def test_undo_opens_the_card_again_with_the_answers_until_the_batch_is_frozen(server, ann):
    rae = server.client("rae", "researcher")
    card = card_of(ann)
    submit(server, ann, card)
    body = {"key": server.key(), "assignment": card["assignment"]}
    again = ann.post(f"{API}/undo", json=body).json()
    assert again["answers"] == FIRST
    submit(server, ann, again)
    assert rae.post(f"{API}/research/projects/tldr/batches/batch1", json={"frozen": True}).status_code == 200
    body["key"] = server.key()
    assert error_of(ann.post(f"{API}/undo", json=body)) == (422, "frozen")


@pytest.mark.parametrize(
    "answers",
    [
        {}, {"other": {"choice": 0, "points": 1}}, {"choice": {"choice": 2, "points": 1}}, {"choice": None},
        {"choice": {"choice": 0, "points": 9}}, {"choice": [1]}, {"choice": {"choice": True, "points": 1}},
        {"choice": {"choice": 0, "points": 1, "more": 1}},
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(server, ann, answers):
    assert error_of(submit(server, ann, card_of(ann), answers=answers)) == (422, "bad_value")
    assert rows(server, tables.feedback) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"key": "short"}, {"key": "a" * 101}, {"key": "with spaces in the key"}, {"revision": -1}, {"revision": 2**63},
        {"assignment": "1"}, {"assignment": 1.0}, {"times": {"active_ms": -1}}, {"times": {"active_ms": 10**9}},
        {"times": {"other": 1}}, {"diff": 1}, {"surplus": 1},
    ],
)  # fmt: skip
def test_a_request_out_of_its_bounds_is_refused(server, ann, more):
    assert error_of(submit(server, ann, card_of(ann), **more)) == (422, "bad_value")


def test_markup_nul_bidi_and_astral_characters_are_kept_or_refused_never_changed(server):
    client = server.client("ann")
    server.project(preset="demonstration", members=["ann"], k=1)
    kept = "<script>alert(1)</script> \u202eright to left \U0001f600 = {{ 7*7 }} \x1b[31m"
    card = card_of(client)
    assert submit(server, client, card, answers={"demonstration": {"text": kept}}).status_code == 200
    with server.store.reading() as conn:
        assert conn.execute(select(tables.feedback.c.value)).scalar_one() == {"text": kept}
    body = {"key": server.key(), "assignment": card["assignment"]}
    assert client.post(f"{API}/undo", json=body).json()["answers"]["demonstration"]["text"] == kept
    for bad in ("a\\u0000b", "a\\ud800b"):
        content = (
            f'{{"key": "{server.key()}", "assignment": {card["assignment"]}, "revision": 2, '
            f'"answers": {{"demonstration": {{"text": "{bad}"}}}}}}'
        )
        answer = client.post(f"{API}/submit", content=content, headers={"content-type": "application/json"})
        assert error_of(answer) == (422, "bad_value")


@pytest.mark.parametrize(
    ("change", "why"), [({"closed": True}, "closed"), ({"state": "stopped"}, "stopped"), ({}, "all done")]
)
def test_a_claim_that_gives_nothing_says_why(server, ann, change, why):
    rae = server.client("rae", "researcher")
    number = next(one["id"] for one in rae.get(f"{API}/research/people").json()["people"] if one["name"] == "ann")
    if "closed" in change:
        rae.post(f"{API}/research/projects/tldr/close", json=change)
    elif change:
        rae.post(f"{API}/research/projects/tldr/members", json={"person": number, **change})
    else:
        for _ in range(4):
            submit(server, ann, card_of(ann))
    assert claim(ann) == {"items": [], "nothing": why, "server_ms": server.clock()}


def test_practice_teaches_and_decides(server):
    client = server.client("ann")
    server.project(roles=("work", "onboarding"), staged=False, members=["ann"], onboarding=2, pass_agreement=1.0)
    [me] = client.get(f"{API}/me").json()["projects"]
    assert (me["state"], me["training"]["done"], me["training"]["of"]) == ("training", 0, 2)
    for n in (1, 2):
        card = card_of(client)
        assert card["practice"]
        found = submit(server, client, card, answers={"choice": {"choice": 1, "points": 9}}).json()
        assert found["teach"]["why"] == "The first one is right."
        assert found["training"]["done"] == n
    state = found["training"]["state"]
    assert state in ("working", "stopped")
    if state == "stopped":
        assert claim(client)["nothing"] == "failed training"
    else:
        assert not card_of(client)["practice"]
    [me] = client.get(f"{API}/me").json()["projects"]
    assert (me["state"], me["training"]["done"], me["training"]["of"]) == (state, 2, 2)


def test_a_researcher_answers_like_a_labeler(server):
    client = server.client("rae", "researcher")
    server.project(staged=False)
    card = card_of(client)
    assert submit(server, client, card).status_code == 200
    assert "policy" not in str(card)


def test_heartbeats_hold_and_release_gives_back(server, ann):
    card = card_of(ann)
    server.clock.ms += 1_000_000
    body = {"assignments": [card["assignment"], 9999]}
    leases = ann.post(f"{API}/heartbeat", json=body).json()["leases"]
    assert leases == {str(card["assignment"]): server.clock() + 1_800_000}
    assert ann.post(f"{API}/release", json=body).status_code == 200
    assert ann.post(f"{API}/heartbeat", json=body).json()["leases"] == {}


def test_history_questions_and_messages_are_ones_own(server, ann):
    rae = server.client("rae", "researcher")
    done, skipped = claim(ann, count=2)["items"]
    submit(server, ann, done)
    body = {"key": server.key(), "assignment": skipped["assignment"], "reason": "Unclear."}
    assert ann.post(f"{API}/skip", json=body).status_code == 200
    items = ann.get(f"{API}/history?project=tldr").json()["items"]
    assert [(one["assignment"], one["state"]) for one in items] == [
        (skipped["assignment"], "skipped"), (done["assignment"], "submitted"),
    ]  # fmt: skip
    assert all(one["head"].startswith("post ") and one["at_ms"] == server.clock() for one in items)
    thread = ann.post(f"{API}/ask", json={"assignment": done["assignment"], "text": "Is a list fine?"}).json()["thread"]
    assert rae.post(f"{API}/research/threads/{thread}", json={"reply": "Yes.", "pinned": True}).status_code == 200
    [told] = ann.get(f"{API}/threads?project=tldr").json()["threads"]
    assert (told["text"], told["reply"], told["pinned"]) == ("Is a list fine?", "Yes.", True)
    assert ann.get(f"{API}/instructions?project=tldr").json()["pinned"] == [
        {"text": "Is a list fine?", "reply": "Yes."}
    ]
    rae.post(f"{API}/research/projects/tldr/messages", json={"text": "Well done, all."})
    [message] = ann.get(f"{API}/me").json()["messages"]
    assert (message["author"], message["text"], message["seen"]) == ("rae", "Well done, all.", False)
    for _ in range(2):
        assert ann.post(f"{API}/seen", json={"messages": [message["id"], 9999]}).status_code == 200
    assert ann.get(f"{API}/me").json()["messages"][0]["seen"]


def test_messages_to_others_are_not_seen(server, ann):
    ben, rae = server.client("ben"), server.client("rae", "researcher")
    number = next(one["id"] for one in rae.get(f"{API}/research/people").json()["people"] if one["name"] == "ann")
    path = f"{API}/research/projects/tldr/messages"
    mine = rae.post(path, json={"to": number, "text": "To you."}).json()["message"]
    assert [one["text"] for one in ann.get(f"{API}/me").json()["messages"]] == ["To you."]
    assert ben.get(f"{API}/me").json()["messages"] == []
    ben.post(f"{API}/seen", json={"messages": [mine]})
    assert rows(server, tables.seen) == 0


def test_preferences_are_small(server, ann):
    for size, status in ((4_000, 200), (4_100, 422)):
        answer = ann.post(f"{API}/preferences", json={"preferences": {"keys": "a" * size}})
        assert answer.status_code == status
    assert len(ann.get(f"{API}/me").json()["preferences"]["keys"]) == 4_000


def test_preferences_are_kept(server, ann):
    assert ann.post(f"{API}/preferences", json={"preferences": {"keys": False}}).status_code == 200
    assert ann.get(f"{API}/me").json()["preferences"] == {"keys": False}


def test_instructions_have_versions(server, ann):
    rae = server.client("rae", "researcher")
    assert ann.get(f"{API}/instructions?project=tldr").json()["version"] == 0
    for text in ("First.", "Second."):
        rae.post(f"{API}/research/projects/tldr/instructions", json={"text": text})
    told = ann.get(f"{API}/instructions?project=tldr").json()
    assert (told["version"], told["text"], [one["version"] for one in told["versions"]]) == (2, "Second.", [2, 1])
    assert ann.get(f"{API}/instructions?project=tldr&version=1").json()["text"] == "First."
    assert card_of(ann)["instructions"] == 2


def test_every_refusal_of_the_desk_has_a_status():
    assert set(STATUS) == set(Code.__args__)
    assert 409 not in STATUS.values()
    assert isinstance(Refused("unknown", ""), Exception)


def test_lists_of_ones_own_work_begin_with_what_stood_first_on_the_screen(server):
    ann = server.client("ann")
    server.project(n=12, staged=True, members=["ann"])
    first = {}
    for _ in range(12):
        card = card_of(ann)
        first[card["assignment"]] = card["candidates"][0]["text"]
        ann.post(f"{API}/ask", json={"assignment": card["assignment"], "text": f"{card['assignment']}?"})
        body = {"key": server.key(), "assignment": card["assignment"], "reason": "Unclear."}
        assert ann.post(f"{API}/skip", json=body).status_code == 200
    assert {text.split(" of ")[0] for text in first.values()} == {"candidate 0", "candidate 1"}
    history = ann.get(f"{API}/history?project=tldr").json()["items"]
    assert {one["assignment"]: one["head"] for one in history} == first
    threads = ann.get(f"{API}/threads?project=tldr").json()["threads"]
    assert {int(one["text"].rstrip("?")): one["head"] for one in threads} == first


def test_an_answer_is_fixed_once_its_labeler_has_read_what_a_researcher_said(server, ann):
    rae = server.client("rae", "researcher")
    card = card_of(ann)
    submit(server, ann, card)
    theirs = card_of(rae)
    same = theirs["candidates"] == card["candidates"]
    other = {"choice": {"choice": 1, "points": 8}} if same else FIRST
    submit(server, rae, theirs, answers=other)
    revised = {"revision": 1, "assignment": card["assignment"], "answers": FIRST, "key": server.key(), "diff": False}
    assert ann.post(f"{API}/submit", json={**revised, "times": TIMES}).status_code == 200  # nothing was read yet
    for _ in range(2):  # the second time from the server's memory
        [told] = ann.get(f"{API}/mine?project=tldr").json()["disagreements"]
        assert set(told) == {
            "at_ms", "question", "kind", "context", "candidates", "said", "right", "by", "why", "asked", "reply",
        }  # fmt: skip
    revised |= {"revision": 2, "key": server.key(), "times": TIMES}
    assert error_of(ann.post(f"{API}/submit", json=revised)) == (422, "frozen")
    undone = {"key": server.key(), "assignment": card["assignment"]}
    assert error_of(ann.post(f"{API}/undo", json=undone)) == (422, "frozen")
    assert "You have seen" in ann.post(f"{API}/undo", json=undone).json()["error"]["text"]
