"""Handing in, taking back, skipping, revealing, and requests that come twice."""

from __future__ import annotations

import dataclasses

import pytest
from desks import EVEN, LEFT, PLAIN, RIGHT, Desk, new_item, rating_project
from sqlalchemy import delete, update
from sqlalchemy.exc import DatabaseError

from rein.errors import UserError
from rein.feedback import work
from rein.feedback.project import PRESETS, Question
from rein.feedback.refused import Refused
from rein.feedback.tables import feedback, submission

STAGED = dataclasses.replace(PLAIN, staged=True)


def refused(code, match, do, *args, **named):
    with pytest.raises(Refused, match=match) as error:
        do(*args, **named)
    assert error.value.code == code


def some(n, **more):
    return [new_item(f"item-{k}", **more) for k in range(n)]


def turned_desk(store, wanted_order, settings=PLAIN):
    """A desk with an item in Ann's hands that is shown in this order."""
    desk = Desk(store, dataclasses.replace(settings, ahead=1), items=some(20))
    while True:
        (given,) = desk.claim("ann")
        if given.order == wanted_order:
            return desk, given
        desk.skip("ann", given)


# ---------------------------------------------------------------------------------------------- submitting


@pytest.mark.parametrize(("order", "choice", "points"), [([0, 1], 0, 2), ([1, 0], 1, 8)])
def test_what_is_said_of_the_screen_is_kept_of_the_candidates(store, order, choice, points):
    desk, given = turned_desk(store, order)
    done = desk.submit("ann", given, LEFT, times={"active_ms": 900})
    row = desk.rows(act="say")[0]
    assert done == work.Submitted([row["seq"]], late=False, revision=1)
    assert row["value"] == {"choice": choice, "points": points}
    (answer,) = desk.answers()
    assert (answer["choice"], answer["points"], answer["left_side"]) == (choice, points, True)
    assert answer["active_ms"] == 900
    assert desk.look("ann", given).answers == LEFT


def test_all_questions_of_an_item_are_answered_at_once(store):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=PRESETS["instructgpt"].questions), items=some(1, k=4))
    (given,) = desk.claim("ann")
    answers = {"overall": {"ratings": [7, 1, 4, 4]}, "ranking": {"ranks": [1, 3, 2, 2]}}
    done = desk.submit("ann", given, answers)
    assert [row["question"] for row in desk.rows()] == ["overall", "ranking"]
    assert len(done.seqs) == 2
    assert len({row["key"] for row in desk.rows()}) == 1
    for place, candidate in enumerate(given.order):
        assert desk.rows()[0]["value"]["ratings"][candidate] == answers["overall"]["ratings"][place]
        assert desk.rows()[1]["value"]["ranks"][candidate] == answers["ranking"]["ranks"][place]
    assert desk.look("ann", given).answers == answers


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        ({}, "choice is not answered"),
        ({"choice": None}, "choice is not answered"),
        ({"choise": LEFT["choice"]}, "Did you mean choice"),
        ({"choice": {"choice": 0, "points": 9}}, "choice: choice is 0, but points is 9"),
        ({"choice": {"choice": 2, "points": 9}}, "choice: choice is 2"),
        ({"choice": {"choice": 0, "points": 10**30}}, "a huge number"),
        ({"choice": {"choice": True, "points": 1}}, "choice is true"),
        ({"choice": {"choice": 0, "points": 1, "more": 1}}, "a field"),
        ({"choice": [0, 1]}, "a list"),
        ([], "Answers are a table"),
        ("\0", "Answers are a table"),
    ],
)
def test_what_is_no_answer_is_refused_and_the_item_stays_in_hand(store, answers, match):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    refused("bad_value", match, desk.submit, "ann", given, answers)
    assert desk.rows() == []
    desk.submit("ann", given, LEFT)


@pytest.mark.parametrize("text", ["a\0b", "\ud83d", "", "x" * 20_001])
def test_texts_that_cannot_be_kept_are_refused(store, text):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=(Question("text", "demonstration"),)), items=some(1, k=0))
    (given,) = desk.claim("ann")
    refused("bad_value", "text", desk.submit, "ann", given, {"text": {"text": text}})
    for how in ({"shown": {"x": "\0"}}, {"times": {"active_ms": float("nan")}}):
        refused("bad_value", "cannot be kept", desk.submit, "ann", given, {"text": {"text": "ok"}}, **how)
    for key in ("", "k" * 201, "a\0", "\ud800", 5):
        refused("bad_value", "key is a text", work_submit, desk, given, key)
    desk.submit("ann", given, {"text": {"text": "astral 😀 and bidi \u202e stay as they are"}})


def work_submit(desk, given, key):
    """Without the helper's own key."""
    of = desk.people["ann"], given.assignment["id"]
    answers = {"text": {"text": "ok"}}
    desk.store.write(lambda conn: work.submit(conn, desk.now, *of, key=key, revision=0, answers=answers))


def test_an_edit_must_change_what_was_shown_there(store):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=(Question("edit", "edit"),)), items=some(1))
    (given,) = desk.claim("ann")
    shown = given.item["candidates"][given.order[1]]["text"]
    refused("bad_value", "the original", desk.submit, "ann", given, {"edit": {"candidate": 1, "text": shown}})
    desk.submit("ann", given, {"edit": {"candidate": 1, "text": f"{shown}!"}})
    assert desk.rows()[0]["value"] == {"candidate": given.order[1], "text": f"{shown}!"}


def test_questions_that_need_no_answer_may_stay_open_but_not_all_of_them(store):
    questions = (Question("a", "rating", points=7, required=False), Question("b", "rating", points=7, required=False))
    desk = Desk(store, dataclasses.replace(PLAIN, questions=questions), items=some(1))
    (given,) = desk.claim("ann")
    refused("bad_value", "Nothing is answered", desk.submit, "ann", given, {})
    desk.submit("ann", given, {"b": {"ratings": [1, 2]}})
    assert [row["question"] for row in desk.answers()] == ["b"]


def test_another_persons_item_is_not_yours(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    for do in (desk.submit, desk.skip, desk.undo, desk.look):
        refused("not_yours", "another person's", do, "bob", given)
    refused("not_yours", "another person's", desk.reveal, "bob", given, ["a", "b"])
    assert desk.rows() == []
    assert desk.leases()[0]["state"] == "open"


# ------------------------------------------------------------------------------------------------ revising


def test_a_change_of_mind_is_a_row_of_its_own(store):
    desk = Desk(store, items=some(1))
    given, first = desk.label("ann", LEFT)
    desk.pass_time(5)
    second = desk.submit("ann", given, EVEN, revision=1)
    rows = desk.rows()
    assert [(row["act"], row["of"], row["at_ms"]) for row in rows] == [
        ("say", None, desk.now - 5000), ("revise", first.seqs[0], desk.now),
    ]  # fmt: skip
    (answer,) = desk.answers()
    assert (answer["seq"], answer["choice"]) == (second.seqs[0], -1)
    assert second.revision == 2
    assert desk.item("item-0")["done"] == 1
    assert desk.answers() == desk.rebuilt()


def test_a_change_that_has_not_seen_the_last_one_is_stale(store):
    desk = Desk(store, items=some(1))
    given, _ = desk.label("ann", LEFT)
    for revision in (0, 2, -1, 2**63):
        refused("stale", "changed elsewhere", desk.submit, "ann", given, RIGHT, revision=revision)
    (answer,) = desk.answers()
    assert desk.rows()[0]["seq"] == answer["seq"]


def test_a_revision_may_take_an_answer_away_and_add_one(store):
    questions = (Question("a", "rating", points=7, required=False), Question("b", "rating", points=7, required=False))
    desk = Desk(store, dataclasses.replace(PLAIN, questions=questions), items=some(1))
    given, _ = desk.label("ann", {"a": {"ratings": [1, 2]}})
    desk.submit("ann", given, {"b": {"ratings": [3, 3]}}, revision=1)
    assert [(row["question"], row["act"]) for row in desk.rows()] == [("a", "say"), ("a", "undo"), ("b", "say")]
    assert [row["question"] for row in desk.answers()] == ["b"]
    desk.submit("ann", given, {"a": {"ratings": [5, 5]}, "b": {"ratings": [3, 4]}}, revision=2)
    assert [row["question"] for row in desk.answers()] == ["a", "b"]
    assert desk.answers() == desk.rebuilt()


def test_a_frozen_batch_takes_no_changes_but_keeps_what_still_comes(store):
    desk = Desk(store, items=some(2))
    one, other = desk.claim("ann", 2)
    desk.submit("ann", one)
    desk.freeze()
    refused("frozen", "no more changes", desk.submit, "ann", one, RIGHT, revision=1)
    refused("frozen", "no more changes", desk.undo, "ann", one)
    done = desk.submit("ann", other)
    assert done.late
    assert desk.item(other.item["key"])["done"] == 0
    assert [row["late"] for row in desk.answers()] == [False, True]
    desk.freeze(frozen=False)
    desk.submit("ann", one, RIGHT, revision=1)


# ---------------------------------------------------------------------------------------------------- undo


def test_an_undo_puts_the_item_back_into_the_hands_with_its_answers(store):
    desk = Desk(store, items=some(1))
    given, _ = desk.label("ann", RIGHT)
    opened = desk.undo("ann", given)
    assert opened.answers == RIGHT
    assert opened.order == given.order
    assert (opened.assignment["state"], opened.assignment["revision"]) == ("open", 2)
    assert opened.assignment["lease_ms"] == desk.now + 1000 * PLAIN.lease_s
    assert [row["act"] for row in desk.rows()] == ["say", "undo"]
    assert desk.answers() == desk.rebuilt() == []
    assert desk.item("item-0")["done"] == 0
    assert desk.claim("bob") == []
    desk.submit("ann", opened, LEFT)
    assert desk.item("item-0")["done"] == 1
    assert [row["act"] for row in desk.rows()] == ["say", "undo", "say"]
    refused("not_open", "Nothing was handed in", desk.undo, "bob", desk_open(desk))


def desk_open(desk):
    desk.add(new_item("another"))
    return desk.claim("bob")[0]


def test_an_undo_gives_back_what_is_held_beyond_what_may_be_held(store):
    desk = Desk(store, dataclasses.replace(PLAIN, ahead=2), items=some(5))
    one, two = desk.claim("ann", 2)
    desk.submit("ann", one)
    desk.pass_time(1)
    _, three = desk.claim("ann", 2)
    desk.undo("ann", one)
    held = {row["id"]: row["state"] for row in desk.leases()}
    assert held == {
        one.assignment["id"]: "open", two.assignment["id"]: "open", three.assignment["id"]: "released",
    }  # fmt: skip
    assert [claimed.assignment["id"] for claimed in desk.claim("ann", 2)] == [
        one.assignment["id"], two.assignment["id"],
    ]  # fmt: skip


def test_a_skip_lets_others_answer_and_may_be_taken_back_without_a_place(store):
    desk = Desk(store, items=some(2))
    (given,) = desk.claim("ann")
    desk.skip("ann", given, "in a language I do not read")
    (row,) = desk.rows()
    assert (row["act"], row["kind"], row["question"]) == ("skip", "skip", "")
    assert row["value"] == {"reason": "in a language I do not read"}
    assert desk.answers() == []
    for do in (desk.submit, desk.skip):
        refused("not_open", "skipped|handed in", do, "ann", given)
    assert [one.item["key"] for one in desk.claim("ann", 2)] != [given.item["key"]]  # not again
    opened = desk.undo("ann", given)
    assert (opened.assignment["state"], opened.answers) == ("expired", None)
    assert opened.assignment["lease_ms"] == given.assignment["lease_ms"]
    assert [row["act"] for row in desk.rows()] == ["skip", "undo"]
    assert desk.rows()[1]["of"] == row["seq"]
    desk.skip("ann", opened)
    assert desk.label("bob")[0].item["key"] == given.item["key"]
    opened = desk.undo("ann", given)  # the place is bob's by now, and ann may say it all the same
    assert desk.submit("ann", opened).late
    assert (desk.item(given.item["key"])["done"], desk.item(given.item["key"])["room"]) == (1, 0)
    for reason in ("", " ", "x" * 2001, "a\0", None):
        refused("bad_value", "reason", desk.skip, "ann", desk.claim("ann")[0], reason)


@pytest.mark.parametrize("how", ["skipped", "late", "in time"])
def test_an_undo_tells_nobody_which_items_have_a_known_answer(store, how):
    """A labeler who lets a lease end, or skips, and takes that back when others have had the item, learns no role."""
    seen = []
    for role in ("work", "calibration", "gold", "drift"):
        gold = {"answers": LEFT} if role == "gold" else None
        desk = Desk(store, items=[new_item("a", role=role, gold=gold)])
        (given,) = desk.claim("ann")
        if how == "late":
            desk.pass_time(PLAIN.lease_s + 1)
            desk.expire()
        done = None if how == "skipped" else desk.submit("ann", given)
        if how == "skipped":
            desk.skip("ann", given)
        for other in desk.claim("bob"):
            desk.submit("bob", other)
        desk.pass_time(PLAIN.lease_s + 1)
        opened = desk.undo("ann", given)
        lease = {name: opened.assignment[name] for name in ("state", "lease_ms", "revision")}
        held = list(desk.heartbeat("ann", given).values())
        again = desk.submit("ann", opened, RIGHT)
        seen.append((lease, held, done and done.late, again.late, desk.look("ann", given).answers))
        assert desk.answers() == desk.rebuilt()
        if role == "work":
            assert desk.item("a")["done"] <= desk.item("a")["wanted"]
    assert all(one == seen[0] for one in seen), seen
    assert seen[0][0]["state"] == ("open" if how == "in time" else "expired")


# -------------------------------------------------------------------------------------------------- lateness


def test_a_late_answer_counts_while_its_place_is_free(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    desk.pass_time(PLAIN.lease_s)
    desk.expire()
    done = desk.submit("ann", given)
    assert done.late
    assert (desk.item("item-0")["done"], desk.item("item-0")["room"]) == (1, 0)
    assert desk.claim("bob") == []
    assert desk.answers()[0]["late"]


def test_a_lease_that_ended_and_was_not_given_on_is_late_and_counts(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    desk.pass_time(PLAIN.lease_s)
    assert desk.submit("ann", given).late
    assert desk.item("item-0")["done"] == 1


def test_a_late_answer_is_kept_and_does_not_count_when_another_has_the_place(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    desk.pass_time(PLAIN.lease_s)
    (others,) = desk.claim("bob")
    assert others.item["key"] == given.item["key"]
    assert desk.submit("ann", given).late
    assert desk.item("item-0")["done"] == 0
    desk.submit("bob", others)
    assert desk.item("item-0")["done"] == 1
    assert [row["late"] for row in desk.answers()] == [True, False]
    opened = desk.undo("ann", given)  # it does not take a place either
    assert opened.assignment["state"] == "expired"
    assert desk.item("item-0")["done"] == 1
    assert desk.submit("ann", opened, RIGHT).late
    assert desk.answers() == desk.rebuilt()


def test_an_answer_after_a_release_is_late(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    desk.release("ann", given)
    assert desk.submit("ann", given).late
    assert desk.item("item-0")["done"] == 1


# ------------------------------------------------------------------------------------------------ staged reading


def test_the_notes_come_before_the_context_and_are_kept_by_candidate(store):
    desk, given = turned_desk(store, [1, 0], STAGED)
    refused("not_revealed", "what each one seems to say", desk.submit, "ann", given)
    shown = desk.reveal("ann", given, ["left one", "right one"])
    assert shown.assignment["revealed_ms"] == desk.now
    assert shown.assignment["notes"] == ["right one", "left one"]
    (row,) = desk.rows(act="note")
    assert (row["kind"], row["question"], row["value"]) == ("notes", "notes", {"notes": ["right one", "left one"]})
    desk.pass_time(3)
    again = desk.reveal("ann", given, ["other", "words"])  # the first ones count
    assert again.assignment["revealed_ms"] == desk.now - 3000
    assert len(desk.rows(act="note")) == 1
    desk.submit("ann", given, notes=["left one", "right one"])
    assert len(desk.rows(act="note")) == 1  # nothing new
    desk.submit("ann", given, revision=1, notes=["left one, after all", "right one"])
    assert desk.rows(act="note")[1]["value"] == {"notes": ["right one", "left one, after all"]}
    assert desk.look("ann", given).assignment["notes"] == ["right one", "left one, after all"]
    assert desk.answers() == desk.rebuilt()


@pytest.mark.parametrize("notes", [None, [], ["one"], ["", "b"], ["a", 5], ["a\0", "b"], ["x" * 2001, "b"], "ab"])
def test_notes_that_are_none_are_refused(store, notes):
    desk = Desk(store, STAGED, items=some(1))
    (given,) = desk.claim("ann")
    refused("bad_value", "note", desk.reveal, "ann", given, notes)
    assert desk.look("ann", given).assignment["revealed_ms"] is None


def test_where_nothing_is_staged_there_is_nothing_to_reveal_and_no_note(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    refused("bad_value", "nothing to reveal", desk.reveal, "ann", given, ["a", "b"])
    refused("bad_value", "takes no notes", desk.submit, "ann", given, notes=["a", "b"])


def test_what_was_handed_in_is_not_revealed_any_more(store):
    desk = Desk(store, STAGED, items=some(1))
    (given,) = desk.claim("ann")
    desk.skip("ann", given)
    refused("not_open", "handed in already", desk.reveal, "ann", given, ["a", "b"])


# ------------------------------------------------------------------------------------------ requests that come twice


def once(desk, who, key, body, do, route="submit"):
    return desk.store.write(
        lambda conn: work.once(conn, desk.now, desk.people[who], key, route, body, lambda: do(conn))
    )


def test_a_request_that_is_sent_again_is_answered_again_and_done_once(store):
    desk = Desk(store)
    done = []
    for _ in range(3):
        assert once(desk, "ann", "key-1", {"a": [1, None]}, lambda conn: done.append(1) or {"n": len(done)}) == {"n": 1}
    assert done == [1]
    assert once(desk, "bob", "key-1", {}, lambda conn: {"n": 2}) == {"n": 2}  # another person's key is another key


@pytest.mark.parametrize(("route", "body"), [("submit", {"a": 2}), ("skip", {"a": 1}), ("submit", {})])
def test_the_key_of_another_request_is_refused(store, route, body):
    desk = Desk(store)
    once(desk, "ann", "key-1", {"a": 1}, lambda conn: {})
    refused("key_reused", "another request's", once, desk, "ann", "key-1", body, lambda conn: {}, route)


def test_a_refused_request_leaves_its_key_free(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")

    def post(answers):
        body = {"answers": answers}
        number, ann = given.assignment["id"], desk.people["ann"]

        def act(conn):
            return {"revision": work.submit(conn, desk.now, ann, number, key="k", revision=0, answers=answers).revision}

        return once(desk, "ann", "k", body, act)

    refused("bad_value", "not answered", post, {})
    assert desk.store.write(lambda conn: conn.execute(submission.select()).all()) == []
    assert post(LEFT) == post(LEFT) == {"revision": 1}
    assert len(desk.rows()) == 1


@pytest.mark.parametrize("key", ["", "k" * 201, "a\0", None])
def test_keys_that_are_none_are_refused(store, key):
    desk = Desk(store)
    refused("bad_value", "key is a text", once, desk, "ann", key, {}, lambda conn: {})
    refused("bad_value", "cannot be kept", once, desk, "ann", "k", {"a": "\0"}, lambda conn: {})


def test_without_once_a_key_serves_one_work(store):
    desk = Desk(store, STAGED, items=some(2))
    one, other = desk.claim("ann", 2)
    desk.reveal("ann", one, ["a", "b"], key="same")
    refused("key_reused", "another request's", desk.submit, "ann", one, key="same")
    desk.submit("ann", one, key="next")
    for do in (desk.skip,):
        refused("key_reused", "another request's", do, "ann", other, key="next")
    refused("key_reused", "another request's", desk.undo, "ann", one, key="next")
    refused("key_reused", "another request's", desk.reveal, "ann", other, ["a", "b"], key="next")


@pytest.mark.parametrize("change", [update(feedback).values(late=True), delete(feedback)])
def test_the_database_itself_changes_no_row_of_feedback(store, change):
    desk = Desk(store, items=some(1))
    desk.label("ann")
    before = desk.rows()
    with pytest.raises((DatabaseError, UserError), match="append-only"):
        store.write(lambda conn: conn.execute(change))
    assert desk.rows() == before


def test_a_rating_of_nine_outputs_is_kept_in_their_order(store):
    desk = Desk(store, rating_project(), items=some(1, k=9))
    given, _ = desk.label("ann", {"rating": {"ratings": [1, 2, 3, 4, 5, 6, 7, 1, 2]}})
    ratings = desk.rows()[0]["value"]["ratings"]
    assert [ratings[candidate] for candidate in given.order] == [1, 2, 3, 4, 5, 6, 7, 1, 2]
