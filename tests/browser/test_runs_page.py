"""The page of runs in a real Chromium: it follows the runs, by keyboard alone, quietly, at every width."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import FITS, theme_of

from rein.loop.stages import Stage
from rein.loop.stages import run as run_stage
from rein.loop.timeline import write_timeline
from rein.web.app import bind, make_server
from rein.web.runs import Shelf, application

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path, make_run) -> Path:
    """Four runs: two done, one stopped, one of a hostile name; and one that is damaged."""
    runs = tmp_path / "runs"
    for name, end in (("first", 3.0), ("sweep/a", 2.5), ("sweep/b", 2.8), (HOSTILE, 3.3)):
        make_run(runs / name, end=end)
    stopped = {"why": "The loss is 9.000 nats/token at update 300.", "starts": 1}
    (runs / "sweep" / "b" / "stopped.json").write_text(json.dumps(stopped))
    started = [{"started": "2026-11-20T10:00:00+0000"}]
    (runs / "sweep" / "a" / "env.json").write_text(json.dumps(started))  # the oldest
    (runs / "bad").mkdir()
    (runs / "bad" / "metrics.jsonl").write_text("")
    return runs


@pytest.fixture
def address(folder) -> Iterator[str]:
    sock = bind("127.0.0.1", 0)
    sock.listen(16)
    server = make_server(application(Shelf(folder)))
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}/runs"
    server.should_exit = True
    thread.join(10)
    sock.close()


def names(page) -> list[str]:
    return page.locator("#rows tr:visible th a").all_inner_texts()


def row(page, name: str):
    return page.locator("#rows tr", has=page.get_by_role("link", name=name, exact=True))


def ask(page) -> None:
    """The page asks when it comes to the front again; so does this, instead of waiting for it."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def append(run: Path, first: int, last: int, *, loss: float = 3.0) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for i in range(first, last + 1):
            at = {"opt_step": i, "tokens": i * 10_000, "wall_s": i * 2.0}
            file.write(json.dumps({**at, "train_loss": loss, "tokens_per_s": 500.0}) + "\n")


def cut(run: Path, last: int) -> None:
    """As if it had only come to update `last` so far."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["opt_step"] <= last]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")


def test_the_runs_are_there_and_nothing_complains(look, address, folder):
    page = look(address)
    row(page, "first").wait_for()
    assert page.title() == "Runs · Rein"
    assert len(names(page)) == 5
    assert page.locator("#counts").inner_text() == "1 stopped · 3 done · 1 damaged"
    assert "tiny-gpt2" in row(page, "first").inner_text()
    assert "4M of 4M, 100%" in row(page, "first").inner_text()
    assert "The loss is 9.000 nats/token" in row(page, "sweep/b").inner_text()
    assert "config.json is missing" in row(page, "bad").inner_text()
    drawn = row(page, "first").locator("svg path").get_attribute("d")
    assert drawn.count("L") > 20
    assert row(page, "first").get_by_role("img").get_attribute("aria-label").startswith("training loss from 9")
    server = address.removesuffix("/runs")
    assert all(url.startswith(f"{server}/") for url in page.requests)
    assert page.complaints == []


def test_it_follows_a_run_and_keeps_the_focus(look, address, folder):
    run = folder / "sweep" / "b"
    cut(run, 100)
    with (run / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page = look(address)
        one = row(page, "sweep/b")
        one.locator(".state", has_text="running").wait_for()
        assert "1M of 4M, 25%" in one.inner_text()
        assert "1 h 40 min left" in one.inner_text()  # 3M tokens at 500 a second
        one.get_by_role("checkbox").focus()
        append(run, 101, 200, loss=2.0)
        ask(page)
        one.get_by_text("2M of 4M, 50%").wait_for()
        assert "2.000" in one.inner_text()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "choose sweep/b"
        (folder / "bad" / "metrics.jsonl").unlink()
    ask(page)
    one.locator(".state", has_text="stopped").wait_for()
    assert len(names(page)) == 4
    assert page.complaints == []


def test_a_lost_server_is_said_and_the_table_stays(look, address):
    page = look(address)
    row(page, "first").wait_for()
    assert page.locator("#line-word").inner_text() == "follows the runs"
    page.context.set_offline(True)
    ask(page)
    page.locator("#line.down", has_text="no connection").wait_for()
    assert len(names(page)) == 5
    page.context.set_offline(False)
    ask(page)
    page.locator("#line.up").wait_for()


def test_the_column_heads_sort_by_keyboard(look, address):
    page = look(address)
    row(page, "first").wait_for()
    head = page.get_by_role("button", name="Run", exact=True)
    head.focus()
    page.keyboard.press("Enter")
    assert names(page) == sorted(names(page), key=str.casefold)
    assert page.locator("th[aria-sort]").inner_text().startswith("Run")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    up = names(page)
    page.keyboard.press("Space")
    assert names(page) == up[::-1]
    page.get_by_role("button", name="Held-out bits/byte").focus()
    page.keyboard.press("Enter")
    assert names(page) == ["sweep/a", "sweep/b", "first", HOSTILE, "bad"]  # the best first; what has none comes last
    page.keyboard.press("Enter")
    assert names(page) == [HOSTILE, "first", "sweep/b", "sweep/a", "bad"]
    page.get_by_role("button", name="Started").click()
    assert names(page)[3:] == ["sweep/a", "bad"]  # the oldest, and one of which it is not known
    assert page.complaints == []


def test_the_filter_shows_some(look, address):
    page = look(address)
    row(page, "first").wait_for()
    page.get_by_role("searchbox").fill("SWEEP")
    assert sorted(names(page)) == ["sweep/a", "sweep/b"]
    page.get_by_role("searchbox").fill("damaged")
    assert names(page) == ["bad"]
    page.get_by_role("searchbox").fill("nothing at all")
    assert names(page) == []
    assert page.get_by_text("No run is like that.").is_visible()


def test_a_name_opens_the_report_and_back_is_where_it_was(look, address):
    page = look(address)
    row(page, "first").wait_for()
    page.get_by_role("button", name="Run", exact=True).click()
    row(page, "sweep/a").get_by_role("checkbox").check()
    link = page.get_by_role("link", name="first", exact=True)
    link.focus()
    page.keyboard.press("Enter")
    page.locator("canvas").first.wait_for()
    assert page.locator("h1").inner_text() == "first"
    assert page.locator("canvas").count() == 5
    page.go_back()
    row(page, "sweep/a").wait_for()
    assert row(page, "sweep/a").get_by_role("checkbox").is_checked()
    assert names(page) == sorted(names(page), key=str.casefold)
    assert page.complaints == []


def test_a_loop_opens_its_timeline_and_a_reward_model_has_a_link_to_its_quality(look, address, folder, make_run):
    loop = make_run(folder / "loop")
    stage = Stage("items", {}, {}, lambda made: (made / "items.jsonl").touch(), ("items.jsonl",))
    run_stage(loop / "round-01" / "draw", stage)
    write_timeline(loop)
    (folder / "first" / "quality.json").write_text("{}")
    page = look(address)
    row(page, "loop").wait_for()
    assert "loop, round 1, next: answers collected" in row(page, "loop").inner_text()
    assert row(page, "first").get_by_role("link", name="quality of first").is_visible()
    assert row(page, "sweep/a").get_by_role("link").count() == 1
    link = page.get_by_role("link", name="loop", exact=True)
    link.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "timeline of loop"
    page.keyboard.press("Enter")
    page.locator(".over", has_text="timeline of a loop").wait_for()
    page.go_back()
    link.focus()
    page.keyboard.press("Enter")
    page.locator("#round-1", has_text="items drawn").wait_for()
    assert page.locator("h1").inner_text() == "loop"
    for width in (320, 390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(FITS), width
    assert page.complaints == []


def test_chosen_runs_are_compared_by_keyboard(look, address):
    page = look(address)
    row(page, "first").wait_for()
    compare = page.get_by_role("button", name="Compare")
    assert compare.is_disabled()
    for name in ("sweep/a", "first"):
        row(page, name).get_by_role("checkbox").focus()
        page.keyboard.press("Space")
    assert page.locator("#chosen").inner_text() == "2 chosen"
    assert row(page, "first").get_attribute("class") == "chosen"
    compare.focus()
    page.keyboard.press("Enter")
    page.locator("canvas").first.wait_for()
    assert page.locator(".over").inner_text() == "Rein · comparison of 2 runs"
    assert page.locator(".runs tbody tr").count() == 2
    page.go_back()
    row(page, "first").wait_for()
    page.get_by_role("button", name="Choose none").click()
    assert page.get_by_role("button", name="Compare").is_disabled()
    assert page.complaints == []


def test_everything_is_reached_by_tab_in_the_order_it_is_seen(look, address):
    page = look(address)
    row(page, "first").wait_for()
    seen = []
    for _ in range(18):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent || document.activeElement.type"))
    heads = ["Run", "State", "Tokens", "Training loss", "Held-out bits/byte", "Tokens/s", "Started"]
    assert seen == ["search", *heads, *(stop for name in names(page) for stop in ("checkbox", name))]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_width_scrolls_sideways(look, address, theme):
    page = look(address, theme=theme)
    row(page, "first").wait_for()
    row(page, "first").get_by_role("checkbox").check()
    for width in (320, 390, 768, 960, 961, 1081, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(FITS), width
        outside = """width => [...document.querySelectorAll('#rows td, #rows th, #bar button')]
          .filter((node) => node.getBoundingClientRect().x < 0 || node.getBoundingClientRect().right > width).length"""
        assert page.evaluate(outside, width) == 0, width
    assert theme_of(page) == theme
    assert page.complaints == []


def test_hostile_names_are_text(look, address):
    page = look(address)
    row(page, HOSTILE).wait_for()
    assert page.locator("main img").count() == 0
    page.get_by_role("link", name=HOSTILE).click()
    page.locator("canvas").first.wait_for()
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.complaints == []


def test_an_empty_folder_says_that_runs_will_appear(look, address, folder, make_run):
    shutil.rmtree(folder)
    folder.mkdir()
    page = look(address)
    page.get_by_text("No runs here yet.").wait_for()
    assert not page.locator("#table").is_visible()
    make_run(folder / "new")
    ask(page)
    row(page, "new").wait_for()
    assert page.complaints == []


def test_without_a_script_it_says_what_to_do(look, address):
    page = look(address, script=False)
    assert page.locator("noscript p").is_visible()
    assert not page.locator("#table").is_visible()
