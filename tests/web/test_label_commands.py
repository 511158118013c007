"""`rein label new`, `invite`, `people`, `backup` and `serve`, as they are typed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from pathlib import Path

import pytest
from label_server import DIGEST
from sqlalchemy import select

from rein.config import from_flags
from rein.errors import UserError
from rein.feedback import people, tables
from rein.feedback.items import load_project
from rein.feedback.project import project_of
from rein.feedback.store import Store
from rein.web.label.commands import (
    BackupConfig,
    InviteConfig,
    NewConfig,
    PeopleConfig,
    backup,
    invite,
    list_people,
    new,
)
from rein.web.label.serve import LabelServeConfig, serve


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "labels.db")


@pytest.fixture
def made(path) -> str:
    new(NewConfig("tldr", store=path))
    return path


def test_new_makes_the_store_and_the_project_and_says_what_comes_next(path, capsys, tmp_path):
    settings = tmp_path / "project.json"
    settings.write_text(json.dumps({"overlap": 3, "title": "from the file"}))
    new(NewConfig("replies", store=path, preset="instructgpt", settings=settings, title="Which is best?"))
    said = capsys.readouterr().out
    assert "overall (rating), metadata (flags), ranking (ranking)" in said
    assert f"rein label serve {path}" in said
    with Store.open(path) as store, store.reading() as conn:
        _, project = load_project(conn, "replies")
        assert (project.overlap, project.title) == (3, "Which is best?")
        assert conn.execute(select(tables.audit.c.act)).scalars().all() == ["make project"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"), ("[]", "holds a list"), ('{"x": 1}', "no setting 'x'"),
        ('{"overlap": 0}', "overlap is 0"), ('{"title": 7}', "title"), ('{"questions": 7}', "settings of a project"),
        ('{"questions": [{"name": "a"}]}', "settings of a project"),
    ],
)  # fmt: skip
def test_settings_that_are_none_are_said_so(path, tmp_path, text, says):
    settings = tmp_path / "project.json"
    settings.write_text(text)
    with pytest.raises(UserError, match=re.escape(says)):
        new(NewConfig("a", store=path, settings=settings))


def test_a_settings_file_that_is_not_there_or_a_folder(path, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        new(NewConfig("a", store=path, settings=tmp_path / "none.json"))
    with pytest.raises(UserError, match="cannot be read"):
        new(NewConfig("a", store=path, settings=tmp_path))


def test_a_preset_that_is_none_and_a_name_that_is_taken(made):
    with pytest.raises(UserError, match="Did you mean comparison"):
        new(NewConfig("b", store=made, preset="comparision"))
    with pytest.raises(UserError, match="There is a project tldr already"):
        new(NewConfig("tldr", store=made))


def test_every_preset_is_settings(path):
    from rein.feedback.project import PRESETS

    for preset in PRESETS.values():
        assert project_of(preset.to_json()) == preset


def test_invite_prints_a_link_that_lets_in(made, capsys):
    capsys.readouterr()
    invite(InviteConfig(made, project="tldr", uses=2, address="https://labels.example.org/"))
    link = capsys.readouterr().out.strip()
    assert link.startswith("https://labels.example.org/label/join#")
    with Store.open(made) as store:
        token = link.partition("#")[2]
        now = time.time_ns() // 1_000_000
        store.write(lambda conn: people.accept(conn, now, token, "ann", DIGEST))
    list_people(PeopleConfig(made))
    assert re.search(r"ann +labeler +person +password +in", capsys.readouterr().out)
    invite(InviteConfig(made, person="ANN"))
    assert "/label/enter#" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"project": "none"}, "There is no project 'none'"), ({"person": "none"}, "There is no person 'none'"),
        ({"hours": 0}, "--hours is 0"), ({"hours": 1e9}, "--hours is"), ({"uses": 0}, "0 uses"),
        ({"uses": 10**6}, "uses"), ({"address": "labels.example.org"}, "--address is 'labels.example.org'"),
        ({"address": "javascript:alert(1)"}, "--address is"), ({"address": "http://"}, "--address is"),
        ({"address": "https://[::1"}, "--address is"),
    ],
)  # fmt: skip
def test_an_invitation_that_cannot_be(made, more, says):
    with pytest.raises(UserError, match=re.escape(says)):
        invite(InviteConfig(made, **more))


def test_hours_that_are_no_number_are_said_so_in_plain_words():
    with pytest.raises(UserError, match="--hours is 'nan', but a number is expected"):
        from_flags(InviteConfig, ["--hours", "nan"], prog="rein label invite")


def test_a_store_that_is_not_there_says_which_command_makes_it(path, tmp_path):
    for call in (
        lambda: invite(InviteConfig(path)), lambda: list_people(PeopleConfig(path)),
        lambda: backup(BackupConfig(tmp_path / "copy.db", path)),
        lambda: serve(LabelServeConfig(path, port=0, browser=False)),
    ):  # fmt: skip
        with pytest.raises(UserError, match="rein label new"):
            call()


def test_backup_makes_a_store_and_never_writes_over_one(made, tmp_path, capsys):
    backup(BackupConfig(tmp_path / "copy.db", made))
    assert "copied" in capsys.readouterr().out
    with Store.open(tmp_path / "copy.db") as store, store.reading() as conn:
        assert load_project(conn, "tldr")[1].name == "tldr"
    with pytest.raises(UserError, match="exists"):
        backup(BackupConfig(tmp_path / "copy.db", made))


@pytest.mark.parametrize(("more", "says"), [({"port": 70_000}, "--port"), ({"max_upload_mb": 0}, "--max-upload-mb")])
def test_flags_out_of_their_bounds(more, says):
    with pytest.raises(UserError, match=says):
        LabelServeConfig(**more)


# ------------------------------------------------------------------------------------------------------ a real server


class Program:
    """`rein label serve` as a process of its own."""

    def __init__(self, store: str, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rein", "label", "serve", store, "--port", "0", "--no-browser", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.said = ""
        while "end  " not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said + self.process.stderr.read()
            self.said += line
        self.address = re.search(r"label +(\S+)", self.said)[1]
        assert status_of(f"{self.address}/login") in (200, 400)  # it listens before it is ready for signals

    def stop(self, how: int = signal.SIGINT) -> tuple[int, str]:
        """Its exit status and what it wrote to stderr."""
        self.process.send_signal(how)
        _, wrote = self.process.communicate(timeout=30)
        return self.process.returncode, wrote


@pytest.fixture
def run(made):
    running = []

    def start(*flags: str) -> Program:
        running.append(Program(made, *flags))
        return running[-1]

    yield start
    for program in running:
        program.process.kill()
        program.process.communicate()


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_serve_prints_a_link_that_works_once_and_ends_in_good_order(run, made):
    program = run()
    token = re.search(r"/label/enter#(\S+)", program.said)[1]
    body = json.dumps({"token": token}).encode()
    enter = urllib.request.Request(
        f"{program.address}/api/enter", body, {"content-type": "application/json", "sec-fetch-site": "same-origin"}
    )
    with urllib.request.urlopen(enter, timeout=10) as answer:
        assert json.load(answer) == {"name": "researcher", "role": "admin"}
        assert "HttpOnly" in answer.headers["set-cookie"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(enter, timeout=10)
    with pytest.raises(UserError, match=r"being served by another process.*process \d+"):
        serve(LabelServeConfig(made, port=0, browser=False))
    assert program.stop() == (0, "")
    assert not Path(made + "-wal").exists()


def test_a_browser_is_started_without_the_link_among_its_words(made, monkeypatch, capsys):
    """Which everybody on the machine can read; it is in a page that only its owner can read, and is gone afterwards."""
    opened = []

    def start(address: str) -> None:
        opened.append(address)
        page = Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
        opened.append((page, page.stat().st_mode & 0o777, page.parent.stat().st_mode & 0o777, page.read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", start)
    serve(LabelServeConfig(made, port=0))
    link = re.search(r"http\S+/label/enter#(\S+)", capsys.readouterr().out)
    address, (page, mode, folder_mode, text) = opened
    assert address.startswith("file:///")
    assert link[1] not in address
    assert f'content="0; url={link[0]}"' in text
    assert (mode, folder_mode) == (0o600, 0o700)
    assert not page.parent.exists()


def test_a_browser_is_started_with_the_address_once_there_is_a_password(made, monkeypatch):
    with Store.open(made) as store:
        store.write(lambda conn: people.add_person(conn, 1, "ada", "admin", DIGEST))
    opened = []

    def start(address: str) -> None:
        opened.append(address)
        raise KeyboardInterrupt  # no signal: a shell that runs the tests in the background has it ignored

    monkeypatch.setattr(webbrowser, "open", start)
    serve(LabelServeConfig(made, port=0))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/label", opened[0])


def test_a_second_start_prints_no_link_once_there_is_a_password(run, made):
    with Store.open(made) as store:
        store.write(lambda conn: people.add_person(conn, 1, "ada", "admin", DIGEST))
    program = run("--host", "0.0.0.0")
    assert "enter#" not in program.said
    assert "without TLS" in program.said
    assert program.stop(signal.SIGTERM) == (0, "")


def test_a_proxy_is_believed_only_when_it_is_named(run, made):
    """Who is in the audit log: an address that anybody may write into a header, or the one that the request is from."""
    for flags, address in (((), "127.0.0.1"), (("--behind-proxy", "127.0.0.1"), "203.0.113.7")):
        program = run(*flags)
        body = json.dumps({"name": "ada", "password": "wrong"}).encode()
        request = urllib.request.Request(
            f"{program.address}/api/login", body,
            {"content-type": "application/json", "sec-fetch-site": "none", "x-forwarded-for": "203.0.113.7"},
        )  # fmt: skip
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=10)
        program.stop()
        with Store.open(made) as store, store.reading() as conn:
            query = select(tables.audit.c.address).where(tables.audit.c.act == "wrong password")
            assert conn.execute(query.order_by(tables.audit.c.seq.desc())).scalars().first() == address


def test_hosts_are_ours_or_allowed(run):
    program = run("--allow-host", "labels.example.org")
    assert status_of(f"{program.address}/login", host="labels.example.org") == 200
    assert status_of(f"{program.address}/login", host="evil.example") == 400


def test_a_port_that_is_taken_is_said_so(made):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be listened on"):
            serve(LabelServeConfig(made, port=taken.getsockname()[1], browser=False))
