"""A lesson in real time: who may teach, which presses count and when, the clock. The record is the judge."""

from __future__ import annotations

import time

import pytest

from rein.web import classroom as module

# ------------------------------------------------------------------------------------------------------- people


def test_the_welcome_says_all_that_a_page_needs(hold):
    welcome = hold().page().welcome
    assert welcome["role"] == "controller"
    assert welcome["can_control"] is True
    assert welcome["task"]["actions"] == ["push left", "coast", "push right"]
    assert (welcome["technique"], welcome["trainer"], welcome["step_s"]) == ("tamer", "person", 0.05)
    assert (welcome["paused"], welcome["training"], welcome["demonstrating"]) == (True, False, False)
    assert welcome["credit"] == {"name": "uniform", "low_s": 0.2, "high_s": 0.8}
    assert welcome["presses"] == {"given": 0, "late": 0}
    assert welcome["steps"] == welcome["credits"] == welcome["episodes"] == []


@pytest.mark.parametrize("key", ["", "wrong", "ключ"])
def test_without_the_key_one_watches_and_a_press_is_noted_but_not_counted(hold, key):
    room = hold()
    teacher, watcher = room.page(), room.page(key=key, name="watcher")
    assert (watcher.welcome["role"], watcher.welcome["can_control"]) == ("watcher", False)
    teacher.train(3)
    assert watcher.until("step")["episode"] == 1
    answer = watcher.press("w-1", 1)
    assert (answer["shares"], answer["given"], answer["value"]) == ([], 0, 0)
    for name in ("pause", "take_over", "finish", "speed", "demonstrate"):
        watcher.command(name, 1)
        watcher.until("notice", level="warning")
    assert teacher.until("step")
    assert room.lesson.n_presses == 0
    assert any("w-1" in row["text"] for row in room.rows("note"))


def test_the_second_who_has_the_key_watches_until_taking_over(hold):
    room = hold()
    first, second = room.page(name="first"), room.page(name="second")
    assert (second.welcome["role"], second.welcome["can_control"]) == ("watcher", True)
    first.train()
    second.command("take_over")
    assert second.until("role")["role"] == "controller"
    assert first.until("role")["role"] == "watcher"
    assert first.press("f-1")["shares"] == []
    step = second.until("step")
    assert second.press("s-1", step["k"])["by"] == "person"
    assert [row["id"] for row in room.rows("press")] == ["s-1"]
    assert [row["value"] for row in room.rows("control") if row["name"] == "take_over"] == ["second"]


# ------------------------------------------------------------------------------------------------------- presses


def test_a_press_counts_from_when_it_was_seen_and_not_from_when_it_came(hold):
    room = hold()
    page = room.page()
    steps = [page.train(), *(page.until("step") for _ in range(19))]
    seen = steps[15]
    answer = page.press("a", seen["k"], seen_ms=40.0)
    assert answer["t"] == pytest.approx(seen["t"] + 0.04, abs=1e-6)
    assert sum(share for _, share in answer["shares"]) == pytest.approx(answer["given"])
    assert answer["shares"]
    for k, _ in answer["shares"]:  # steps that lie in the window before the press
        assert answer["t"] - 0.8 - 0.2 <= steps[k]["t"] <= answer["t"] - 0.2 + 1e-6
    row = room.rows("press")[0]
    assert (row["t"], row["seen_ms"], row["k"]) == (answer["t"], 40.0, seen["k"])
    assert row["arrived"] > row["t"]


def test_a_press_is_never_later_than_its_arrival(hold):
    room = hold()
    page = room.page()
    step = page.train(2)
    answer = page.press("future", step["k"], seen_ms=600_000.0)
    assert answer["t"] <= room.rows("press")[0]["arrived"] + 1e-6


def test_an_id_counts_once_although_it_comes_twice(hold):
    room = hold()
    page = room.page()
    step = page.train(8)
    first, second = page.press("same", step["k"]), page.press("same", step["k"], value=-10)
    assert second["shares"] == first["shares"]
    assert room.lesson.n_presses == len(room.rows("press")) == 1
    assert len(room.page(name="other").welcome["credits"]) == 1


@pytest.mark.parametrize(
    "clock",
    [
        {"t_key": float("nan")}, {"t_key": -1e300}, {"t_shown": -1e300}, {"t_key": 5}, {"t_key": "now"},
        {"t_key": None}, {"t_key": float("inf"), "t_shown": float("inf")}, {"k": 10**9}, {"k": -1}, {"k": "0"},
        {"k": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_impossible_clock_falls_back_to_the_arrival(hold, clock):
    room = hold()
    page = room.page()
    step = page.train(2)
    answer = page.press("odd", **{"k": step["k"], **clock})
    row = room.rows("press")[0]
    assert row["clock"] == "arrival"
    assert answer["t"] == row["t"] == row["arrived"]
    assert page.lives()


@pytest.mark.parametrize("value", [0, 2, -11, 1e9, "1", True, None, [1], {"a": 1}, float("nan")], ids=str)
def test_a_press_of_another_value_is_answered_noted_and_not_counted(hold, value):
    room = hold()
    page = room.page()
    page.train()
    assert page.press("odd", value=value)["shares"] == []
    assert page.until("step")
    assert room.rows("press") == []
    assert "odd" in room.rows("note")[-1]["text"]


def test_presses_while_training_is_off_are_kept_and_say_why(hold):
    room = hold()
    page = room.page()
    page.train(2)
    page.command("training", False)
    page.until("status", training=False)
    answer = page.press("off")
    assert (answer["shares"], answer["ignored"]) == ([], "training is off")
    assert room.rows("press")[0]["ignored"] == "training is off"


NONSENSE = [
    "", "{", "[]", "1", "null", '"join"', "[" * 30_000, "{}", '{"type": "no such"}', '{"type": ["join"]}',
    '{"type": "command"}', '{"type": "command", "name": "no such"}', '{"type": "command", "name": {}}',
    '{"type": "command", "name": "speed", "value": "fast"}', '{"type": "command", "name": "speed", "value": 1e400}',
    '{"type": "command", "name": "speed", "value": -1}', '{"type": "command", "name": "speed", "value": 0}',
    '{"type": "action", "action": 99}', '{"type": "action", "action": "left"}', '{"type": "action", "action": [1]}',
    '{"type": "action", "action": -1}', '{"type": "press", "id": "n", "value": ' + "9" * 5000 + "}",
]  # fmt: skip


def test_nonsense_gets_a_notice_and_nothing_breaks(hold):
    room = hold()
    page = room.page()
    page.train(2)
    for text in NONSENSE:
        page.socket.send(text)
        assert page.until("notice", level="warning")["text"], text
        assert page.lives(), text
    assert page.until("step")
    room.prove()


OVERFLOWS = {
    "a key time of 400 digits": '{"type": "press", "id": "n", "value": 1, "k": 0, "t_shown": 0, "t_key": 1%s}',
    "a speed of 400 digits": '{"type": "command", "name": "speed", "value": 1%s}',
    "an endless action": '{"type": "action", "action": 1e400}',
    "a round trip of 400 digits": '{"type": "ping", "t": 0, "k": 0, "rtt_ms": 1%s}',
}


@pytest.mark.parametrize("text", OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_a_number_beyond_all_floats_does_not_cost_the_connection(hold, text):
    room = hold()
    page = room.page()
    room.classroom._clock_noted = -100.0  # the next ping is noted
    page.train(2)
    page.socket.send(text.replace("%s", "0" * 400))
    assert page.lives()


UNWRITABLE = {
    "a step that is no number": {"k": float("nan")},
    "half a character in the key": {"key": "\ud800"},
    "half a character in the id": {"id": "\ud800"},
}


@pytest.mark.parametrize("more", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_a_press_that_cannot_be_written_teaches_nothing_that_the_record_lacks(hold, more):
    room = hold()
    page = room.page()
    step = page.train(20)
    page.send(**{"type": "press", "id": "u", "value": 1, "k": step["k"], "t_key": 10, "t_shown": 0} | more)
    assert page.lives()
    page.until("step")
    assert room.lesson.n_presses == len(room.rows("press"))
    room.prove()


def test_training_that_cannot_be_written_does_not_begin(hold):
    room = hold()
    page = room.page()
    page.send(type="command", name="training", value=True, why="\ud800")
    assert page.lives()
    assert room.lesson.training == any(row["on"] for row in room.rows("training"))


# ---------------------------------------------------------------------------------------------------- the clock


def test_it_waits_for_the_trainer_to_begin(hold):
    room = hold()
    page = room.page()
    time.sleep(0.2)
    assert room.lesson.k == 0
    assert page.train()["k"] == 0


def test_pause_single_step_and_resume(hold):
    room = hold()
    page = room.page()
    page.train(2)
    page.command("pause")
    page.until("status", paused=True)
    time.sleep(0.1)
    stood = room.lesson.k
    time.sleep(0.2)
    assert room.lesson.k == stood
    page.command("step")
    assert page.until("step", k=stood)
    time.sleep(0.2)
    assert room.lesson.k == stood + 1
    page.command("resume")
    assert page.until("step", k=stood + 2)
    assert [row["value"] for row in room.rows("control") if row["name"] == "paused"] == [True, False]


def test_speed_has_bounds(hold):
    page = hold().page()
    for factor, bound in ((10, module.SPEEDS[0]), (0.1, module.SPEEDS[1])):
        for _ in range(4):
            page.command("speed", factor)
        assert page.until("status", step_s=bound)


def test_it_pauses_after_the_episode_when_asked(hold):
    room = hold(task="mountain-car")
    page = room.page()
    page.command("pause_after_episode", True)
    page.until("status", pause_after_episode=True)
    tick = room.lesson.tick

    def ends_at_five(t):
        shown = tick(t)
        if shown.i < 5:
            return shown
        room.lesson.returns.append((shown.total, shown.i))
        return type(shown)(**{**vars(shown), "ended": "truncated"})

    room.lesson.tick = ends_at_five
    page.train()
    assert page.until("episode")["steps"] == 5
    assert page.until("status", paused=True)["why"].startswith("The episode is over.")
    stood = room.lesson.k
    time.sleep(0.2)
    assert room.lesson.k == stood


def test_a_demonstration_is_acted_and_replayed(hold):
    room = hold()
    page = room.page()
    page.train(2)
    page.command("demonstrate", True)
    page.until("status", demonstrating=True)
    for action in (2, 0):
        page.send(type="action", action=action)
        step = page.until("step", action=action, source="demonstration")
        assert page.until("step", k=step["k"] + 1)["action"] == action
    page.command("demonstrate", False)
    page.until("status", demonstrating=False)
    assert page.until("step", source="tamer")
    room.prove()


def test_a_lost_controller_stops_the_lesson_and_its_presses_are_kept(hold, monkeypatch):
    monkeypatch.setattr(module, "LOST_AFTER_S", 0.15)
    room = hold()
    watcher = room.page(key="", name="watcher")
    page = room.page(name="me")
    step = page.train(8)
    kept = page.press("me-1", step["k"])
    watcher.until("status", training=True)
    page.close()
    assert watcher.until("status", paused=True, training=False)["why"].startswith("The controlling page is gone.")
    stood = room.lesson.k
    time.sleep(0.2)
    assert room.lesson.k == stood
    back = room.page(name="me")
    assert back.welcome["role"] == "controller"
    assert [credit["id"] for credit in back.welcome["credits"]] == ["me-1"]
    assert back.press("me-1", step["k"])["shares"] == kept["shares"]
    back.press("me-2", step["k"])
    assert [row["id"] for row in room.rows("press")] == ["me-1", "me-2"]
    room.prove()


def test_a_controller_who_is_back_in_time_loses_nothing(hold, monkeypatch):
    monkeypatch.setattr(module, "LOST_AFTER_S", 0.5)
    room = hold()
    page = room.page(name="me")
    step = page.train(8)
    page.close()
    back = room.page(name="me")
    assert back.welcome["role"] == "controller"
    assert back.welcome["training"] is True
    assert back.press("me-1", step["k"])["ignored"] is None
    time.sleep(0.7)
    assert (room.lesson.training, room.classroom.paused) == (True, False)


def test_a_page_that_falls_silent_stops_the_lesson(hold, monkeypatch):
    monkeypatch.setattr(module, "SILENT_AFTER_S", 0.3)
    room = hold()
    page = room.page()
    page.train()
    assert page.until("status", training=False, paused=True)["why"].startswith("The controlling page does not answer.")
    assert any("does not answer" in row["text"] for row in room.rows("note"))
