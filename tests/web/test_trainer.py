"""`rein tamer play` without a browser: what its server gives out, and what is left when a lesson ends or is killed."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time

import pytest
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus

from rein.agents.lesson_files import resume_lesson
from rein.agents.recorded import as_recorded
from rein.agents.replay import ReplayConfig, replay
from rein.agents.simulation import make_trainer
from rein.agents.tasks import make_task
from rein.errors import UserError
from rein.feedback.record import read_record
from rein.web import classroom as module
from rein.web.app import HEADERS, HERE, bind, make_app
from rein.web.trainer import PlayConfig, routes


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


# ----------------------------------------------------------------------------------------- the end, and after it


def taught(room, presses: int = 4) -> None:
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
    record = out / "record.jsonl"
    replay(ReplayConfig(record))
    assert any(row["kind"] == "press" for row in read_record(record))
    assert "the lesson was cut off" in capsys.readouterr().out
    lesson, log, t = resume_lesson(out)
    lesson.tick(t)
    lesson.finish(t)
    log.close()
    replay(ReplayConfig(record))
