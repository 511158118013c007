"""The trainer page's server without a browser: a real server, real WebSockets, and the record as the judge."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rein.agents.lesson_files import open_lesson, resume_lesson
from rein.agents.recorded import as_recorded
from rein.agents.replay import ReplayConfig, replay
from rein.agents.simulation import make_trainer
from rein.agents.tasks import make_task
from rein.errors import UserError
from rein.feedback.record import read_record
from rein.feedback.simulate import SimulatedTrainer
from rein.web import classroom as module
from rein.web.app import HEADERS, HERE, bind, make_app, make_server
from rein.web.classroom import Classroom
from rein.web.trainer import PlayConfig, routes


class Room:
    """A classroom behind a real server in a thread."""

    def __init__(self, out: Path, *, simulated: SimulatedTrainer | None = None, **settings) -> None:
        self.out = out
        self.config = PlayConfig(**{"task": "mountain-car", "step_s": 0.05, "pause_s": 0.0, "plain": False} | settings)
        self.lesson, self.log = open_lesson(self.config, make_task(self.config.task), out)
        self.classroom = Classroom(self.lesson, self.log, out, self.config, simulated, None)
        self.sock = bind("127.0.0.1", 0)
        self.sock.listen(16)
        self.host = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.server = make_server(make_app(routes(self.classroom), lifespan=self.classroom.lifespan))
        self.classroom.stop_server = lambda: setattr(self.server, "should_exit", True)
        self.thread = threading.Thread(target=lambda: self.server.run(sockets=[self.sock]), daemon=True)
        self.thread.start()
        self.pages: list[Page] = []

    def page(self, *, key: str | None = None, name: str = "page", origin: str | None = None) -> Page:
        page = Page(self.host, self.classroom.key if key is None else key, name, origin)
        self.pages.append(page)
        return page

    def rows(self, kind: str) -> list[dict]:
        return [row for row in read_record(self.out / "record.jsonl") if row["kind"] == kind]

    def end(self) -> Path:
        for page in self.pages:
            page.close()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.classroom.close()
        self.sock.close()
        return self.out / "record.jsonl"


class Page:
    """What a page says and hears, without a page."""

    def __init__(self, host: str, key: str, name: str, origin: str | None = None) -> None:
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(connect(f"ws://{host}/tamer/socket", origin=origin, proxy=None))
        self.send(type="join", key=key, page=name)
        self.welcome = self.until("welcome")

    def close(self) -> None:
        self._open.close()

    def send(self, **message) -> None:
        self.socket.send(json.dumps(message))

    def command(self, name: str, value=None) -> None:
        self.send(type="command", name=name, value=value)

    def press(self, id: str, k=0, *, value=1, seen_ms: float = 10.0, **more) -> dict:
        self.send(
            **{"type": "press", "id": id, "value": value, "k": k, "t_key": 1000 + seen_ms, "t_shown": 1000} | more
        )
        return self.until("credit", id=id)

    def until(self, kind: str, timeout_s: float = 5.0, **wanted) -> dict:
        """The next message of this kind in which everything wanted holds; those before it are passed over."""
        ends = time.monotonic() + timeout_s
        while True:
            message = json.loads(self.socket.recv(timeout=ends - time.monotonic()))
            if message["type"] == kind and all(message[name] == value for name, value in wanted.items()):
                return message

    def lives(self) -> bool:
        self.send(type="ping", t=time.monotonic(), k=0)
        return self.until("pong")["clock_s"] >= 0

    def train(self, steps: int = 1) -> dict:
        """Training on; the last of so many steps."""
        self.command("training", True)
        self.until("status", training=True)
        return [self.until("step") for _ in range(steps)][-1]


@pytest.fixture(autouse=True)
def no_band(monkeypatch):
    """What SARSA alone would do takes seconds, and is no part of what is tested here."""
    monkeypatch.setattr(module, "sarsa_band", lambda name: None)


@pytest.fixture
def hold(tmp_path):
    """`hold(**settings)` → a `Room` that is closed at the end."""
    rooms = []

    def make(**settings) -> Room:
        rooms.append(Room(tmp_path / f"lesson-{len(rooms)}", **settings))
        return rooms[-1]

    yield make
    for room in rooms:
        room.end()


@pytest.fixture
def client(hold):
    """Plain requests, without a server."""
    app = make_app(routes(hold().classroom), hosts=["testserver"])
    return TestClient(app)


# ------------------------------------------------------------------------------------------------ what is served


@pytest.mark.parametrize("path", ["/tamer", "/", "/static/trainer/main.js", "/static/uplot/uPlot.min.css", "/no/such"])
def test_every_answer_has_the_safe_headers(client, path):
    answer = client.get(path, follow_redirects=False)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", ""])
def test_a_foreign_host_is_turned_away(client, host):
    assert client.get("/tamer", headers={"host": host}).status_code == 400


def test_a_static_path_does_not_leave_its_folder(client):
    for path in ("/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/trainer/%2e%2e/%2e%2e/app.py"):
        assert client.get(path).status_code == 404


def test_the_page_needs_no_inline_script_or_style(client):
    html = client.get("/tamer").text
    assert "Mountain Car" in html
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert not re.search(r"<script[^>]*>[^<]", html)


def test_nothing_that_is_served_names_another_address():
    files = [*(HERE / "static").rglob("*.*"), *(HERE / "templates").rglob("*.*")]
    assert len(files) > 5
    for file in files:
        text = re.sub(r"/\*.*?\*/|<!--.*?-->", "", file.read_text(encoding="utf-8"), flags=re.S)
        text = re.sub(r"(?m)(^|\s)//.*$", "", text).replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), file
        assert not re.search(r"\.(inner|outer)HTML|insertAdjacentHTML|\beval\(|new Function", text), file


def test_all_that_the_page_names_is_there(client):
    named = re.findall(r'(?:src|href)="(/[^"]+)"', client.get("/tamer").text)
    assert len(named) >= 4
    assert {client.get(path).status_code for path in named} == {200}


def test_another_sites_page_cannot_open_the_socket(hold):
    room = hold()
    for origin in ("http://evil.example", "null", f"http://{room.host}.evil.example"):
        with pytest.raises(InvalidStatus, match="403"):
            room.page(origin=origin)
    assert room.page(origin=f"http://{room.host}").welcome["role"] == "controller"


def test_a_port_in_use_is_the_users_to_put_right():
    with bind("127.0.0.1", 0) as sock:
        sock.listen()
        with pytest.raises(UserError, match="cannot be listened on"):
            bind("127.0.0.1", sock.getsockname()[1])


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
    assert replayed(room.end())


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
    assert replayed(room.end())


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
    assert replayed(room.end())


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
    assert replayed(room.end())


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


# ----------------------------------------------------------------------------------------- the end, and after it


def replayed(record: Path) -> int:
    """How many presses a record has, after it was proven."""
    replay(ReplayConfig(record))
    return 1 + sum(row["kind"] == "press" for row in read_record(record))


def taught(room: Room, presses: int = 4) -> None:
    page = room.page()
    step = page.train(10)
    for number in range(presses):
        page.press(f"p-{number}", step["k"], value=-1 if number % 2 else 1)
        step = page.until("step")


def test_finish_saves_what_was_learned_and_the_record_proves_it(hold, capsys):
    room = hold()
    taught(room)
    page = room.pages[0]
    page.command("finish")
    told = page.until("finished")
    assert told["record"] == str(room.out / "record.jsonl")
    assert [text.split()[:3] for text in told["next"]] == [["rein", "tamer", "replay"], ["rein", "tamer", "evaluate"]]
    room.thread.join(5)
    assert not room.thread.is_alive()
    rows = list(read_record(room.out / "record.jsonl"))
    assert (rows[-1]["kind"], rows[-1]["presses"]) == ("end", 4)
    assert (room.out / "h.safetensors").is_file()
    capsys.readouterr()
    replay(ReplayConfig(room.out / "record.jsonl"))
    assert "equal to the record's, to the last bit" in capsys.readouterr().out


def test_finish_amid_the_drawing_of_the_maps_is_quiet(hold, monkeypatch, capsys):
    monkeypatch.setattr(module, "MAPS_EVERY_S", 0.05)
    drawing = threading.Event()
    row_of = module.Maps.row

    def slow_row(self, *arguments):
        drawing.set()
        time.sleep(0.01)
        return row_of(self, *arguments)

    monkeypatch.setattr(module.Maps, "row", slow_row)
    room = hold()
    page = room.page()
    page.train(2)
    assert drawing.wait(5)
    page.command("finish")
    assert page.until("finished")
    room.thread.join(5)
    assert "the lesson stopped" not in capsys.readouterr().out


def test_finish_while_a_simulated_trainer_is_about_to_press_is_quiet(hold, capsys):
    rule = make_trainer(PlayConfig("mountain-car", trainer="rule", trainer_frequency=1.0), make_task("mountain-car"))
    room = hold(trainer="rule", simulated=rule)
    page = room.page()
    page.until("credit", by="rule")
    page.command("finish")
    assert page.until("finished")
    room.thread.join(5)
    assert "the lesson stopped" not in capsys.readouterr().out


def test_a_record_cut_at_any_byte_goes_on_and_proves_itself(hold, tmp_path):
    room = hold()
    taught(room)
    data = room.end().read_bytes()
    first = data.index(b"\n") + 1
    cuts = [first, first + 1, *range(first + 100, len(data), (len(data) - first) // 12), len(data) - 1, len(data)]
    for number, cut in enumerate(cuts):
        out = tmp_path / f"cut-{number}"
        out.mkdir()
        (out / "record.jsonl").write_bytes(data[:cut])
        whole = data[:cut].rfind(b"\n") + 1
        lesson, log, t = resume_lesson(out)
        assert not lesson.training
        lesson.set_training(True, t)
        for i in range(10):
            lesson.tick(t + 0.05 * i)
        lesson.press("again", 1, t + 0.45)
        lesson.finish(t + 0.5)
        log.close()
        assert (out / "record.jsonl").read_bytes()[:whole] == data[:whole]
        rows = list(read_record(out / "record.jsonl"))
        assert as_recorded(rows, out / "record.jsonl").k == lesson.k


def test_a_record_cut_in_its_first_line_says_so(tmp_path):
    (tmp_path / "record.jsonl").write_bytes(b'{"kind": "header", "for')
    with pytest.raises(UserError, match="no whole line"):
        resume_lesson(tmp_path)


def test_a_killed_program_leaves_a_record_that_replays_and_goes_on(tmp_path, capsys):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "rein", "tamer", "play", "mountain-car", "--port", "0", "--no-browser"]
    command += ["--trainer", "rule", "--step-s", "0.03", "--no-plain", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            assert "http://127.0.0.1:" in program.stdout.readline()
            ends = time.monotonic() + 30
            while b'"press"' not in (out / "record.jsonl").read_bytes() and time.monotonic() < ends:
                time.sleep(0.05)
        finally:
            program.kill()
    assert replayed(out / "record.jsonl") > 1
    assert "the lesson was cut off" in capsys.readouterr().out
    lesson, log, t = resume_lesson(out)
    lesson.tick(t)
    lesson.finish(t)
    log.close()
    assert replayed(out / "record.jsonl") > 1
