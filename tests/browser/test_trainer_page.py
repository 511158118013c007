"""The trainer page in a real Chromium, before a real server: real keys, and the record as the judge."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import FITS

from rein.agents.replay import ReplayConfig, replay
from rein.feedback.record import read_record

ANSWERED = "() => reinTrainer.outboxSize === 0"


@pytest.fixture
def play(tmp_path) -> Iterator:
    """`play()` → the printed address of a lesson in the Loop Maze, and its folder."""
    programs = []

    def start() -> tuple[str, Path]:
        out = tmp_path / f"lesson-{len(programs)}"
        command = [sys.executable, "-m", "rein", "tamer", "play", "loop-maze", "--port", "0", "--no-browser"]
        command += ["--step-s", "0.15", "--out", str(out)]
        program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        programs.append(program)
        line = program.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        return found[0], out

    yield start
    for program in programs:
        program.send_signal(signal.SIGINT)
        try:
            program.communicate(timeout=10)
        finally:
            program.kill()


def rows(out: Path, kind: str) -> list[dict]:
    return [row for row in read_record(out / "record.jsonl") if row["kind"] == kind]


def ready(page) -> None:
    """Connected, and the tour of the first visit closed."""
    page.locator("#tour").wait_for(state="visible")
    page.keyboard.press("Escape")
    page.locator("#tour").wait_for(state="hidden")


def begun(page, step: int = 6) -> None:
    """Training on, and so many steps on the screen."""
    page.keyboard.press("Space")
    page.locator("#lamp-word", has_text="Training on").wait_for()
    page.wait_for_function(f"() => reinTrainer.lastStep >= {step}")


def test_a_lesson_by_keyboard_from_the_tour_to_the_proof(play, look, capsys):
    address, out = play()
    server = address.split("/tamer")[0]
    page = look(address)
    ready(page)
    assert "#" not in page.url  # the key is not left in the address
    assert page.locator("#praise").is_disabled()
    begun(page)
    assert page.locator("#praise").is_enabled()
    still = page.locator("#ribbon-canvas").evaluate("canvas => canvas.toDataURL()")
    for key in ("/", "z", "Shift+Z", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_function(ANSWERED)
    page.locator("#counts", has_text="4 presses given, 0 unacknowledged").wait_for()
    assert page.locator("#ribbon-canvas").evaluate("canvas => canvas.toDataURL()") != still
    assert [row["value"] for row in rows(out, "press")] == [1.0, -1.0, -10.0, 1.0]
    for row in rows(out, "press"):
        assert row["credits"]
        assert "clock" not in row  # the page could say what it showed
        assert 0 <= row["seen_ms"] < 1000
    page.locator("#finish").click()
    page.locator("#finish-yes").click()
    page.locator("#finish-done").wait_for(state="visible")
    assert str(out / "record.jsonl") in page.locator("#finish-record").inner_text()
    assert page.locator("#finish-next code").count() == 2
    ours = [url for url in page.requests if not url.startswith("blob:")]
    assert all(url.startswith(server + "/") for url in ours)
    assert page.complaints == []
    assert [row["presses"] for row in rows(out, "end")] == [4]
    replay(ReplayConfig(out / "record.jsonl"))
    assert "equal to the record's, to the last bit" in capsys.readouterr().out


def test_a_held_key_counts_once_and_flashes_for_a_moment(play, look):
    address, out = play()
    page = look(address)
    ready(page)
    begun(page)
    page.evaluate(
        """() => {
          window.flashes = [];
          const box = document.querySelector('#flash');
          new MutationObserver(() => flashes.push(box.hidden ? '' : box.textContent.trim()))
            .observe(box, { attributes: true, attributeFilter: ['hidden'] });
        }"""
    )
    for _ in range(5):
        page.keyboard.down("/")  # from the second on, these are repeats
    page.keyboard.up("/")
    page.wait_for_function("() => flashes.length === 2")
    assert page.evaluate("() => flashes") == ["+", ""]
    page.wait_for_function(ANSWERED)
    assert len(rows(out, "press")) == 1
    assert page.complaints == []


def test_keys_that_belong_to_something_else_teach_nothing(play, look):
    address, out = play()
    page = look(address)
    ready(page)
    begun(page)
    page.evaluate("() => { const box = document.createElement('input'); document.body.append(box); box.focus(); }")
    page.keyboard.type("/z jk")
    assert page.locator("body > input").input_value() == "/z jk"
    page.evaluate("() => document.querySelector('body > input').remove()")
    page.keyboard.press("Control+z")
    page.keyboard.press("/")
    page.wait_for_function(ANSWERED)
    page.locator("#counts", has_text="1 press given").wait_for()
    assert [row["key"] for row in rows(out, "press")] == ["/"]
    page.keyboard.press("Space")
    page.locator("#lamp-word", has_text="Training off").wait_for()
    assert page.locator("#praise").is_disabled()
    assert page.locator("#blame").is_disabled()
    page.keyboard.press("/")
    page.locator("#hint", has_text="Training is off").wait_for()
    assert len(rows(out, "press")) == 1
    assert page.complaints == []


def test_a_second_page_watches_and_a_reload_loses_no_press(play, look):
    address, out = play()
    page, other = look(address), look(address.split("#")[0])
    ready(page)
    other.locator("#people", has_text="somebody else teaches").wait_for()
    begun(page)
    other.wait_for_function("() => reinTrainer.lastStep >= 3")
    assert other.locator("#praise").is_disabled()
    assert not other.locator("#take-over").is_visible()
    other.keyboard.press("/")
    for key in "/z/":
        page.keyboard.press(key)
    page.reload()
    page.locator("#counts", has_text="3 presses given, 0 unacknowledged").wait_for()
    page.locator("#people", has_text="you teach").wait_for()
    assert [row["value"] for row in rows(out, "press")] == [1.0, -1.0, 1.0]
    assert len({row["id"] for row in rows(out, "press")}) == 3
    page.keyboard.press("/") if page.locator("#praise").is_enabled() else begun(page)
    assert other.complaints == []
    assert page.complaints == []


def test_on_a_telephone_nothing_scrolls_sideways(play, look):
    address, _ = play()
    page = look(address, width=390)
    assert page.evaluate(FITS)
    ready(page)
    begun(page, 3)
    assert page.evaluate(FITS)
    for name in ("praise", "blame", "training"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["height"] >= 44
    assert page.complaints == []
