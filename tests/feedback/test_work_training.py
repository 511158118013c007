"""The onboarding round: what a labeler is told, and when work begins."""

from __future__ import annotations

import dataclasses

import pytest
from desks import EVEN, LEFT, PLAIN, RIGHT, Desk, new_item

from rein.feedback.project import Question
from rein.feedback.refused import Refused
from rein.feedback.training import agreed, agreed_with_gold

ROUND = dataclasses.replace(PLAIN, onboarding=3, pass_agreement=0.6, order="given")
FIRST = {"choice": {"choice": 0, "points": 1}}  # the first candidate is right


def practice(n, **gold):
    right = {"answers": FIRST, "why": "The first one is faithful.", **gold}
    return [new_item(f"practice-{k}", role="onboarding", gold=right) for k in range(n)]


def work_items(n):
    return [new_item(f"item-{k}") for k in range(n)]


def right_of(claimed):
    """The right answer as this person sees the sides."""
    return LEFT if claimed.order[0] == 0 else RIGHT


def wrong_of(claimed):
    return RIGHT if claimed.order[0] == 0 else LEFT


def practise(desk, who, *answers, **more):
    """Answers practice items in turn: by a function of the claim, or a value."""
    found = []
    for one in answers:
        (claimed,) = desk.claim(who)
        assert claimed.item["role"] == "onboarding"
        found.append(desk.submit(who, claimed, one(claimed) if callable(one) else one, **more))
    return found


@pytest.fixture
def desk(store):
    return Desk(store, ROUND, items=[*work_items(5), *practice(3)], state="training")


def test_a_person_in_training_gets_practice_items_alone_in_their_order(desk):
    given = [desk.claim("ann")[0]]
    desk.submit("ann", given[0], right_of(given[0]))
    given += desk.claim("ann", 2)
    assert [one.item["key"] for one in given] == ["practice-0", "practice-1", "practice-2"]
    assert desk.claim("ann", 5) == desk.claim("ann", 2)


def test_after_each_practice_item_the_right_answer_is_told_as_the_sides_were_shown(desk):
    (given,) = desk.claim("ann")
    done = desk.submit("ann", given, wrong_of(given), times={"active_ms": 4000})
    assert not done.teach.agreed
    assert done.teach.share == 0.0
    assert done.teach.right["choice"]["choice"] == given.order.index(0)
    assert done.teach.why == "The first one is faithful."
    assert dataclasses.asdict(done.training) == {
        "done": 1, "of": 3, "agreed": 0.0, "median_s": 4.0, "state": "training",
    }  # fmt: skip
    (done,) = practise(desk, "ann", right_of)
    assert done.teach.agreed
    assert done.training.agreed == 0.5


def test_who_agrees_enough_works_at_once(desk):
    *_, last = practise(desk, "ann", right_of, wrong_of, right_of)
    assert last.training.state == "working"
    assert last.training.agreed == pytest.approx(2 / 3)
    assert desk.member("ann")["state"] == "working"
    assert desk.member("ann")["training"] == {"agreed": pytest.approx(2 / 3), "of": 3, "median_s": None}
    (given,) = desk.claim("ann")
    assert given.item["role"] == "work"
    done = desk.submit("ann", given)
    assert (done.teach, done.training) == (None, None)


def test_who_does_not_is_stopped_until_a_researcher_says_otherwise(desk):
    *_, last = practise(desk, "ann", wrong_of, EVEN, right_of)
    assert last.training.agreed == pytest.approx(0.5)
    assert desk.member("ann")["state"] == last.training.state == "stopped"
    assert desk.claim("ann") == []
    assert desk.nothing("ann") == "failed training"
    desk.set_state("ann", "working")
    assert desk.claim("ann")[0].item["role"] == "work"


def test_another_round_is_of_other_items(desk):
    practise(desk, "ann", wrong_of, wrong_of, wrong_of)
    desk.pass_time(60)
    desk.set_state("ann", "training")
    assert desk.claim("ann") == []
    assert desk.nothing("ann") == "all done"
    more = [dataclasses.replace(one, key=f"more-{one.key}") for one in practice(3)]
    desk.add(*more)
    *_, last = practise(desk, "ann", right_of, right_of, right_of)
    assert last.training.agreed == 1.0  # the first round does not count any more
    assert desk.member("ann")["state"] == "working"


@pytest.mark.parametrize(("active_ms", "state"), [(9000, "working"), (11_000, "stopped"), (None, "stopped")])
def test_the_mark_is_on_speed_too(store, active_ms, state):
    settings = dataclasses.replace(ROUND, pass_median_s=10.0)
    desk = Desk(store, settings, items=practice(3), state="training")
    times = {} if active_ms is None else {"active_ms": active_ms}
    *_, last = practise(desk, "ann", right_of, right_of, right_of, times=times)
    assert last.training.state == state


def test_a_skipped_practice_item_agrees_with_nothing(desk):
    practise(desk, "ann", right_of, right_of)
    (given,) = desk.claim("ann")
    desk.skip("ann", given)
    assert desk.member("ann")["state"] == "working"  # two of three
    (given,) = desk.claim("bob")
    desk.skip("bob", given)
    practise(desk, "bob", right_of, wrong_of)
    assert desk.member("bob")["state"] == "stopped"


def test_what_was_taught_cannot_be_changed(desk):
    (given,) = desk.claim("ann")
    desk.submit("ann", given, wrong_of(given))
    for do in (lambda: desk.submit("ann", given, right_of(given), revision=1), lambda: desk.undo("ann", given)):
        with pytest.raises(Refused, match="right answer was shown") as error:
            do()
        assert error.value.code == "frozen"


def test_a_round_is_of_as_many_items_as_there_are(store):
    desk = Desk(store, ROUND, items=[*practice(2), *work_items(1)], state="training")
    first, last = practise(desk, "ann", right_of, right_of)
    assert (first.training.of, first.training.state) == (2, "training")
    assert last.training.state == "working"


def test_without_practice_items_nobody_slips_into_work(store):
    desk = Desk(store, ROUND, items=work_items(2), state="training")
    assert desk.claim("ann") == []
    assert desk.nothing("ann") == "all done"
    desk.add(*practice(3))
    assert desk.claim("ann")[0].item["role"] == "onboarding"


def test_without_a_round_training_is_over_at_the_first_claim(store):
    desk = Desk(store, PLAIN, items=[*practice(2), *work_items(2)], state="training")
    assert desk.claim("ann")[0].item["role"] == "work"
    assert desk.member("ann")["state"] == "working"


def test_a_round_that_was_made_shorter_is_settled_at_the_next_claim(desk):
    practise(desk, "ann", right_of, right_of)
    from rein.feedback import work

    with desk.store.reading() as conn:
        _, settings = work.load_project(conn, desk.id)
    shorter = dataclasses.replace(settings, onboarding=2)
    desk.store.write(lambda conn: work.change_project(conn, desk.now, desk.id, shorter))
    assert desk.claim("ann")[0].item["role"] == "work"


def test_a_lost_practice_item_is_taken_up_again(desk):
    (given,) = desk.claim("ann")
    desk.pass_time(ROUND.lease_s)
    desk.expire()
    (again,) = desk.claim("ann")
    assert again.assignment["id"] == given.assignment["id"]


def test_gold_at_work_is_answered_like_anything_else(store):
    gold = [new_item("gold", role="gold", gold={"answers": FIRST, "why": "It says so."})]
    desk = Desk(store, PLAIN, items=gold)
    (given,) = desk.claim("ann")
    done = desk.submit("ann", given, wrong_of(given))
    assert (done.teach, done.training) == (None, None)


@pytest.mark.parametrize(
    ("kind", "value", "right", "n", "expected"),
    [
        ("comparison", {"choice": 0, "points": 1}, {"choice": 0, "points": 4}, 2, 1.0),
        ("comparison", {"choice": 0, "points": 4}, {"choice": 1, "points": 6}, 2, 0.0),
        ("comparison", {"choice": None, "points": 5}, {"choice": None, "points": 5}, 2, 1.0),
        ("comparison", {"choice": 1, "points": 6}, {"choice": None, "points": 5}, 2, 0.5),
        ("ranking", {"ranks": [1, 2, 3]}, {"ranks": [1, 2, 3]}, 3, 1.0),
        ("ranking", {"ranks": [3, 2, 1]}, {"ranks": [1, 2, 3]}, 3, 0.0),
        ("ranking", {"ranks": [1, 3, 2]}, {"ranks": [1, 2, 3]}, 3, 2 / 3),
        ("ranking", {"ranks": [1, 1, 2]}, {"ranks": [1, 2, 3]}, 3, 2.5 / 3),
        ("ranking", {"ranks": [1]}, {"ranks": [1]}, 1, None),
        ("best_of", {"best": 2}, {"best": 2}, 4, 1.0),
        ("best_of", {"best": 1}, {"best": 2}, 4, 0.0),
        ("rating", {"ratings": [4, 7]}, {"ratings": [5, 5]}, 2, 0.5),
        ("likert", {"axes": [{"overall": 4, "coverage": 7}]}, {"axes": [{"overall": 5, "coverage": 5}]}, 1, 0.5),
        ("flags", {"flags": [["a", "b"], []]}, {"flags": [["a"], []]}, 2, 0.75),
        ("flags", {"flags": [["a"]]}, {"flags": [[]]}, 1, 0.0),
        ("demonstration", {"text": "a"}, {"text": "b"}, 1, None),
        ("edit", {"candidate": 0, "text": "a"}, {"candidate": 0, "text": "b"}, 1, None),
    ],
)
def test_agreement_with_a_right_answer(kind, value, right, n, expected):
    assert agreed(kind, value, right, n) == (None if expected is None else pytest.approx(expected))


def test_a_question_that_was_left_open_agrees_with_nothing():
    questions = (Question("a", "comparison"), Question("b", "best_of", required=False))
    settings = dataclasses.replace(PLAIN, questions=questions)
    gold = {"answers": {"a": FIRST["choice"], "b": {"best": 1}, "gone": {"best": 1}}}
    assert agreed_with_gold(settings, gold, {"a": FIRST["choice"]}, 2) == 0.5
    assert agreed_with_gold(settings, {"answers": {"gone": {"best": 1}}}, {}, 2) is None
    assert agreed_with_gold(settings, None, {}, 2) is None
