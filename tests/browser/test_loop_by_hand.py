"""A loop joined by hand in a real Chromium: it waits, a person comes in and answers by keyboard, and it goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from label_desk import ITEM, PASSWORD, Server, clean, feedback, item, sent, shown_points, tab_to
from looking import FITS, theme_of

from rein.web.label.commands import InviteConfig, invite

sys.path.insert(0, str(Path(__file__).parent.parent / "loop"))
from loop_world import make_world

BY_PEOPLE = 2
LEFT = 2  # the key that says that A is clearly better
NOTHING = "p.empty"  # what a desk without work says


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), tokenizer)


def same_command(world: Path, out: Path) -> list[str]:
    """`rein loop`, as it is typed again and again; what it printed."""
    command = [
        sys.executable, "-m", "rein", "loop", "sft", "--prompts", "prompts.jsonl", "--response-tokens", "12",
        "--items", "12", "--evaluation-items", "6", "--rounds", "1", "--gold", "loop_golds:gold",
        "--policy-settings", "ppo.json", "--reward-settings", "reward.json", "--simulated", "3", "--device", "cpu",
        "--calibration-share", "0", "--drift-share", "0", "--by-people", str(BY_PEOPLE), "--no-wait", "--out", str(out),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(world)}
    done = subprocess.run(command, cwd=world, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def begun(world) -> Path:
    """A loop that waits for people, and says so."""
    said = same_command(world, world / "loop")
    assert said[2].startswith(f"waiting for {BY_PEOPLE} answers of people to round-01.")
    assert f"rein label serve {world / 'loop' / 'labels.db'}" in said[3]
    assert said[-2].endswith("next: answers collected")
    return world / "loop"


@pytest.fixture
def waiting(begun, tmp_path) -> Iterator[Server]:
    """The server of such a loop's store."""
    shutil.copytree(begun, tmp_path / "loop")
    server = Server(tmp_path / "loop" / "labels.db").start()
    yield server
    server.stop()


def answer(page, most: int) -> int:
    """Says of each item that A is better, by keyboard, until there is none left; how many there were."""
    before = item(page)
    for done in range(1, most + 1):
        page.keyboard.press(str(LEFT))
        page.locator(".comparison input:checked").wait_for(state="attached")
        page.keyboard.press("Enter")
        page.wait_for_function(
            f"([before, no]) => {{ const now = {ITEM}; return now ? now !== before : document.querySelector(no); }}",
            arg=[before, NOTHING],
        )
        before = page.evaluate(f"() => {ITEM}")
        if not before:
            sent(page)
            return done
    raise AssertionError(f"more than {most} items")


def test_a_person_joins_a_loop_by_keyboard_and_it_goes_on_with_their_answers(look, waiting, world, capsys):
    out = waiting.store.parent
    invite(InviteConfig(str(waiting.store), project="loop", address=waiting.url))
    page = look(capsys.readouterr().out.strip())
    page.set_default_timeout(30_000)
    page.get_by_role("heading", name="Join").wait_for()
    page.keyboard.type("Ada")
    for _ in range(2):
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Two answers to compare").wait_for()
    tab_to(page, "Begin")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"^Say \d+\.$")).wait_for()  # a prompt of the loop
    assert "Which is better?" in page.locator(".comparison").inner_text()
    for width in (320, 390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(FITS), width
    assert answer(page, 6) == BY_PEOPLE
    clean(page, waiting)

    hers = feedback(waiting.store, "loop", "Ada")
    assert [shown_points(row) for row in hers] == [LEFT] * BY_PEOPLE
    with sqlite3.connect(f"file:{waiting.store}?mode=ro", uri=True) as conn:
        keys = dict(conn.execute("SELECT id, key FROM item"))
    said = same_command(world, out)  # while the server serves
    assert said[-2].endswith("done")
    judged = [json.loads(line) for line in (out / "round-01/judgements/judgements.jsonl").read_text().splitlines()]
    of_people = {row["group_id"]: row["choice"] for row in judged if not row["labeler"].startswith("simulated-")}
    assert len(judged) == 12
    assert of_people == {keys[row["item"]]: row["value"]["choice"] for row in hers}
    assert "Ada" not in json.dumps(judged)  # a pseudonym
    assert json.loads((out / "round-01/collect/summary.json").read_text())["by_people"] == BY_PEOPLE
    about = json.loads((out / "round-01/reward/run/config.json").read_text())
    assert about["data"] == [str(out / "round-01/judgements/judgements.jsonl")]  # so the reward model learned from them
    before = (world / "sft/model.safetensors").read_bytes()
    (policy,) = (out / "round-01/policy/run/checkpoints").glob("step-*/model.safetensors")
    assert policy.read_bytes() != before

    page.reload()
    page.locator(NOTHING, has_text="nothing left for you").wait_for()
    for theme in ("dark", "light"):
        seen = look((out / "timeline.html").as_uri(), theme=theme)
        assert theme_of(seen) == theme
        for width in (320, 390, 768, 1440):
            seen.set_viewport_size({"width": width, "height": 900})
            assert seen.evaluate(FITS), width
    assert seen.locator("#round-1").get_by_text("policy evaluated").is_visible()
    numbers = dict(zip(seen.locator("#round-1 dt").all_inner_texts(), seen.locator("#round-1 dd").all_inner_texts(),
                       strict=True))  # fmt: skip
    assert (numbers["Answers"], numbers["Of them by people"], numbers["Labelers"]) == ("12", str(BY_PEOPLE), "4")
    assert seen.complaints == []


def test_whoever_serves_the_store_comes_in_once_by_the_link_and_answers_too(look, waiting):
    (link,) = re.findall(r"come in +(\S+)", waiting.said.read_text())
    page = look(link)
    page.set_default_timeout(30_000)
    page.wait_for_url(re.compile("/label/research$"))
    page.get_by_role("link", name="Two answers to compare").wait_for()
    tab_to(page, "Labeling")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Two answers to compare").wait_for()
    tab_to(page, "Begin")
    page.keyboard.press("Enter")
    assert answer(page, 6) == BY_PEOPLE
    assert len(feedback(waiting.store, "loop", "researcher")) == BY_PEOPLE
    clean(page, waiting)
    again = look(link)
    again.get_by_text("This link is used up").wait_for()
