"""What a newcomer to the pages must not trip over: sides, keys, ends of scales, counts, plain sentences."""

from __future__ import annotations

import sqlite3

from label_desk import SAID, clean, feedback, item, rows_of, sent, tab_to

pytest_plugins = ["label_fixtures"]

WHERE = "() => document.getElementById('where').textContent"
FOCUS = "() => document.activeElement.id || document.activeElement.className"


def notes(page, *texts: str) -> None:
    """Says something of each candidate, without asking for the source."""
    boxes = page.locator(".naive textarea")
    for place, text in enumerate(texts):
        boxes.nth(place).fill(text)


# ------------------------------------------------------------------------------------------------- sides and scales


def test_the_left_key_means_the_left_card(come, desk, who):
    page = come("/label/desk/ranking")
    page.locator(".duel .side").first.wait_for()
    pairs = []
    while page.locator(".duel").is_visible():
        pairs.append(page.locator(".duel .side strong").all_inner_texts())
        page.keyboard.press("ArrowLeft")
    assert pairs[0] == ["A", "B"]
    assert all(pair == sorted(pair) for pair in pairs)
    assert [one.inner_text() for one in page.locator(".entry strong").all()] == ["A", "B", "C", "D"]
    clean(page, desk)


def test_a_key_for_a_pair_that_is_off_the_screen_brings_it_there_and_chooses_nothing(come, desk):
    page = come("/label/desk/ranking", width=390)
    page.locator(".duel .side").first.wait_for()
    duel = page.locator(".duel")
    assert duel.bounding_box()["y"] > 900
    page.keyboard.press("ArrowRight")
    assert 0 < duel.bounding_box()["y"] < 700
    assert "that key chose nothing" in page.locator(".hint").inner_text()
    assert page.locator(".duel .side strong").all_inner_texts() == ["A", "B"]
    page.keyboard.press("ArrowRight")
    assert page.locator(".entry strong").all_inner_texts() == ["B", "A"]
    clean(page, desk)


def test_a_choice_waits_until_the_candidates_were_seen(come, desk, who):
    page = come("/label", width=390)
    page.set_viewport_size({"width": 390, "height": 560})
    page.goto(f"{desk.url}/label/desk/plain")
    item(page)
    page.keyboard.press("3")
    assert "was not on the screen yet, so nothing was chosen" in page.evaluate(SAID)
    assert page.locator(".comparison input:checked").count() == 0
    assert page.evaluate("() => scrollY") > 0
    page.locator(".comparison .point").nth(3).click()
    page.wait_for_function("() => document.querySelector('.comparison input:checked')?.value === '4'")
    assert page.locator(".ends").get_by_text("even").is_visible()
    clean(page, desk)


def test_a_scale_says_what_its_ends_mean(come, desk):
    page = come("/label/desk/unruled")
    item(page)
    assert [" ".join(one.split()) for one in page.locator(".axes .ends").all_inner_texts()] == ["1 worst 5 best"] * 2
    assert page.get_by_role("radio", name="5, best").count() == 2
    page.goto(f"{desk.url}/label/desk/instructgpt")
    item(page)
    assert " ".join(page.locator(".axes .ends").first.inner_text().split()) == "1 very poor 7 excellent"
    assert "4 acceptable" in " ".join(page.locator(".rubric").inner_text().split())
    clean(page, desk)


# --------------------------------------------------------------------------------------------------------- the keys


def test_the_keys_that_are_shown_are_the_keys_that_act(come, desk, who):
    page = come("/label/desk/write")
    page.locator(".writing").wait_for()
    shown = page.locator("#send kbd")
    assert page.evaluate(FOCUS) == "writing"
    assert (shown.inner_text(), page.locator("#skip kbd").is_visible()) == ("Ctrl Enter", False)
    assert "Esc leaves the box for the keys; Ctrl Enter hands in." in page.locator(".demonstration").inner_text()
    page.keyboard.type("Some words")
    page.keyboard.press("Escape")
    assert (shown.inner_text(), page.locator("#skip kbd").is_visible()) == ("Enter", True)
    page.keyboard.press("s")
    page.locator("#words").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert "or are on a button beside the item, letters and digits are no keys" in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    rows_of(desk, who, "write", 1)
    clean(page, desk)


def test_tab_leads_from_the_last_note_to_the_source_and_typing_on_does_nothing(come, desk, who):
    page = come("/label/desk/staged")
    page.locator(".naive textarea").first.wait_for()
    assert page.locator("#send kbd").inner_text() == "Ctrl Enter"
    page.keyboard.type("One")
    page.keyboard.press("Tab")
    assert page.locator("#send kbd").inner_text() == "Enter"  # from the last note
    page.keyboard.type("Two")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS) == "send"
    page.keyboard.type("szfq3?")
    assert page.locator("dialog[open]").count() == 0
    assert feedback(desk.store, "staged", who) == []
    page.keyboard.press("Enter")
    page.locator(".context").wait_for()
    clean(page, desk)


def test_a_click_on_a_button_leaves_the_keys_as_they_were(come, desk):
    page = come("/label/desk/plain")
    item(page)
    page.locator("#diff").click()
    page.keyboard.press("4")
    assert page.locator(".comparison input:checked").get_attribute("value") == "4"
    tab_to(page, "Skip")
    page.keyboard.press("6")
    assert page.locator(".comparison input:checked").get_attribute("value") == "4"
    page.keyboard.press("Escape")
    page.keyboard.press("6")
    assert page.locator(".comparison input:checked").get_attribute("value") == "6"
    clean(page, desk)


def test_differences_are_of_one_project_and_not_of_the_reading_without_the_source(come, desk, who):
    page = come("/label/desk/plain")
    item(page)
    page.keyboard.press("d")
    assert page.locator("mark.only").count() > 0
    page.reload()
    item(page)
    assert page.locator("mark.only").count() > 0  # remembered, here
    page.goto(f"{desk.url}/label/desk/guided")
    item(page)
    assert page.locator("mark").count() == 0
    set_start = "UPDATE project SET settings = json_set(settings, '$.diff', ?) WHERE name = 'staged'"
    with sqlite3.connect(desk.store) as conn:
        conn.execute(set_start, ("on",))
    try:
        page.goto(f"{desk.url}/label/desk/staged")
        item(page)
        page.keyboard.press("Escape")
        page.keyboard.press("d")
        assert not page.locator("#diff").is_visible()
        assert page.locator("mark").count() == 0
        notes(page, "One", "Two")
        page.locator("#send").click()
        page.locator(".context").wait_for()
        assert page.locator("#diff").get_attribute("aria-pressed") == "true"
        assert page.locator("mark.only").count() > 0
    finally:
        with sqlite3.connect(desk.store) as conn:
            conn.execute(set_start, ("off",))
    clean(page, desk)


# ------------------------------------------------------------------------------------------------------- the counts


def test_the_last_answer_counts_and_so_does_what_waits(come, desk, who):
    page = come("/label/desk/guided")
    before = item(page)
    for n in range(2):
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        before = item(page, other_than=before)
        sent(page)
        assert page.evaluate(WHERE) == ("1 item answered", "2 items answered")[n]
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    for key in "46":
        page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.locator("#sheet", has_text="when there is a connection").wait_for()
    assert page.evaluate(WHERE) == "4 items answered"
    page.context.set_offline(False)
    page.evaluate("() => dispatchEvent(new Event('online'))")
    page.locator("#sheet", has_text="nothing left for you here").wait_for()
    assert page.evaluate(WHERE) == "4 items answered"
    page.keyboard.press("z")
    item(page)
    assert page.evaluate(WHERE) == "3 items answered"
    assert len(rows_of(desk, who, "guided", 5)) == 5  # the undo is one of them


def test_practice_counts_nowhere(come, desk, who):
    page = come("/label/desk/staged")
    for _ in range(2):
        page.locator(".naive textarea").first.wait_for()
        notes(page, "One", "Two")
        page.locator("#send").click()
        page.locator(".context").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        page.locator("#teach-next").click()
    page.locator(".naive textarea").first.wait_for()
    assert page.evaluate(WHERE) == ""
    page.goto(f"{desk.url}/label")
    card = page.locator(".project", has_text="Staged comparison")
    assert "0 items answered" in card.inner_text()
    assert card.get_by_role("link", name="Continue").is_visible()
    page.goto(f"{desk.url}/label/mine/staged")
    tile = page.locator("#tiles > div").first
    assert tile.inner_text().split("\n")[:3] == ["items", "0", "without practice"]
    clean(page, desk)


def test_who_was_let_in_by_the_researchers_is_not_told_to_have_passed(come, desk, who):
    page = come("/label/desk/strict")
    item(page)
    page.keyboard.press("5")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Practice not passed").wait_for()
    with sqlite3.connect(desk.store) as conn:
        conn.execute(
            "UPDATE member SET state = 'working' WHERE person = (SELECT id FROM person WHERE name = ?)"
            " AND project = (SELECT id FROM project WHERE name = 'strict')", (who,),
        )  # fmt: skip
    page.goto(f"{desk.url}/label/mine/strict")
    page.locator("#practice-text", has_text="The researchers let you work here.").wait_for()
    assert "passed" not in page.locator("#practice").inner_text()
    clean(page, desk)


# ---------------------------------------------------------------------------------------------------- the sentences


def test_an_empty_project_says_so_and_offers_nothing(come, desk):
    page = come("/label/desk/empty")
    page.locator("#sheet", has_text="There is nothing here yet.").wait_for()
    assert "Thank you" not in page.locator("#sheet").inner_text()
    page.goto(f"{desk.url}/label")
    card = page.locator(".project", has_text="Nothing in it")
    assert "nothing here yet" in card.inner_text()
    assert card.get_by_role("link").all_inner_texts() == ["Your work"]
    clean(page, desk)


def test_who_has_no_part_in_a_project_is_told_so(come):
    page = come("/label/desk/private")
    page.locator("#sheet", has_text="You have no part in this project.").wait_for()
    assert page.locator("#sheet a").all_inner_texts() == ["All projects"]


def test_a_labeler_sees_no_ways_of_researchers(come):
    page = come("/label/research/plain/agreement")
    page.get_by_text("This page is for researchers.").wait_for()
    assert page.locator("nav").count() == 0
    page.get_by_role("link", name="Your projects").press("Enter")
    page.get_by_role("heading", name="Plain comparison").wait_for()


def test_the_source_comes_by_itself_when_the_connection_is_back(come, desk):
    page = come("/label/desk/staged")
    page.locator(".naive textarea").first.wait_for()
    notes(page, "One", "Two")
    page.context.set_offline(True)
    page.locator("#send").click()
    page.locator("#gentle", has_text="The source is shown as soon as there is one.").wait_for()
    assert page.locator(".context").count() == 0
    page.context.set_offline(False)
    page.evaluate("() => dispatchEvent(new Event('online'))")
    page.locator(".context").wait_for()


def test_a_pinned_flag_is_no_question(come, desk, who):
    with sqlite3.connect(desk.store) as conn:
        project, number = conn.execute(
            "SELECT p.id, i.id FROM project p JOIN item i ON i.project = p.id WHERE p.name = 'axes' LIMIT 1"
        ).fetchone()
        conn.execute(
            "INSERT INTO thread (project, item, person, text, at_ms, reply, pinned)"
            " SELECT ?, ?, id, 'Flag: Wrong text', 1, 'Skip it.', 1 FROM person WHERE name = ?", (project, number, who),
        )  # fmt: skip
    page = come("/label/desk/axes")
    item(page)
    if not page.locator("#guide").is_visible():
        page.keyboard.press("i")
    assert page.locator("#guide-answers .question").inner_text() == "Flagged: Wrong text"
    assert page.locator("#guide-pinned h3").inner_text() == "What others asked and flagged"
    clean(page, desk)
