"""The researcher's pages in a real Chromium, before the real server: what they show is what the store holds."""

from __future__ import annotations

import json
import re

import pytest
from label_desk import HOSTILE
from looking import FITS, theme_of
from research_desk import (
    BAD,
    HOME,
    ITEMS_OF,
    TLDR,
    asked,
    clean,
    field,
    make_project,
    rows_of,
    stored,
    tiles_of,
    upload,
)

pytest_plugins = ["research_fixtures"]


# --------------------------------------------------------------------------------------------------- what is shown


def test_the_projects_say_how_far_they_are(visit, office):
    page = visit(HOME)
    page.locator(".project progress").first.wait_for()
    card = page.locator(".project", has_text="Docstrings in a sentence")
    card.locator("progress").wait_for()
    done, wanted = stored(
        office, "SELECT SUM(MIN(i.done, i.wanted)), SUM(i.wanted) FROM item i JOIN project p ON p.id = i.project"
        " WHERE p.name = 'tldr' AND i.role = 'work'",
    )[0]  # fmt: skip
    assert f"{done:,} of {wanted:,} answers" in card.inner_text()
    assert card.locator("progress").get_attribute("value") == str(done)
    assert "It has no items yet." in page.locator(".project", has_text="demonstration").inner_text()
    clean(page, office)


def test_the_overview_counts_what_the_store_holds(visit, office):
    page = visit(TLDR)
    page.locator("#batches table").wait_for()
    told = asked(page, "/research/projects/tldr/progress")
    tiles = tiles_of(page)
    assert tiles["left"][0] == f"{told['left']:,}"
    assert tiles["an hour"][0] == f"{told['pace']['per_hour']:.0f}"
    assert tiles["done in about"][0] != "–"
    counted = stored(
        office, "SELECT b.name, i.role, COUNT(*), SUM(i.done), SUM(i.wanted), SUM(i.done >= i.wanted) FROM item i"
        " JOIN batch b ON b.id = i.batch JOIN project p ON p.id = i.project WHERE p.name = 'tldr' GROUP BY 1, 2",
    )  # fmt: skip
    shown = {(row[0], row[1]): row for row in rows_of(page, "#batches")}
    assert len(counted) == len(shown) == 5
    for batch, role, n, done, wanted, full in counted:
        row = shown[batch, role]
        assert row[2] == str(n)
        assert row[6] == (f"{done} of {wanted}" if role == "work" else str(done))
        assert row[5] == (str(full) if role == "work" else "")
    (holder,) = rows_of(page, "#leases")
    assert holder[:2] == ["bob", "2"]
    assert page.locator("#pace rect").count() == 24
    assert "1 question of labelers waits for a reply." in page.locator("#next").inner_text()
    clean(page, office)


def test_what_next_leads_a_new_project_on(visit, office):
    page = visit(HOME)
    make_project(page, "fresh", onboarding=3)
    page.goto(f"{office.url}{HOME}/fresh")
    steps = page.locator("#next li")
    steps.first.wait_for()
    words = " ".join(steps.all_inner_texts())
    for word in (
        "Take in what is to be judged",
        "Write the instructions",
        "Invite labelers",
        "none of role onboarding",
    ):
        assert word in words
    steps.get_by_role("link", name="Take in what is to be judged.").press("Enter")
    page.wait_for_url(re.compile("/fresh/data$"))
    clean(page, office)


def test_items_are_found_filtered_and_turned_over(visit, office):
    page = visit(f"{TLDR}/items")
    page.locator("#items table").wait_for()
    ids = [row[0] for row in stored(office, ITEMS_OF, "tldr")]
    shown = [int(row[0]) for row in rows_of(page, "#items")]
    assert shown == ids[:50]
    page.get_by_role("link", name="Further").press("Enter")
    page.wait_for_function("(id) => document.querySelector('#items tbody th').textContent === String(id)", arg=ids[50])
    assert [int(row[0]) for row in rows_of(page, "#items")] == ids[50:100]
    page.go_back()
    page.wait_for_function("(id) => document.querySelector('#items tbody th').textContent === String(id)", arg=ids[0])

    field(page, "Role").select_option("gold")
    page.get_by_role("button", name="Find").press("Enter")
    page.get_by_text("10 items on this page").wait_for()
    assert {row[2] for row in rows_of(page, "#items")} == {"gold answer known"}
    field(page, "Role").select_option("")
    field(page, "Batch").select_option("batch2")
    field(page, "State").select_option("done")
    field(page, "Holds the words").press("Enter")
    query = "SELECT COUNT(*) FROM item i JOIN batch b ON b.id = i.batch WHERE b.name = 'batch2' AND i.done >= i.wanted"
    ((full,),) = stored(office, query)
    page.get_by_text(f"{full} items on this page").wait_for()
    field(page, "Holds the words").fill("no text has these words")
    page.keyboard.press("Enter")
    page.get_by_text("No item is like that.").wait_for()
    assert "text=no+text" in page.url
    clean(page, office)


def test_an_item_shows_everything_that_was_said_about_it(visit, office):
    ((item,),) = stored(office, "SELECT item FROM feedback WHERE act = 'undo'")
    page = visit(f"{TLDR}/items/{item}")
    page.locator("#answers table").wait_for()
    told = asked(page, f"/research/items/{item}")
    texts = page.locator("#candidates li").all_inner_texts()
    assert [one["text"] in text and one["policy"] in text for one, text in zip(told["candidates"], texts, strict=True)]
    stands = [row for row in told["rows"] if row["stands"]]
    shown = rows_of(page, "#answers")
    assert len(shown) == len(stands)
    (ann,) = [row for row in shown if row[0] == "ann"]
    assert ann[2] == "even (5 of 9)"
    assert "differences marked" in ann[3]
    assert ann[4] == "1 min 5 s"
    history = [row[2] for row in rows_of(page, "#history") if row[1] == "ann"]
    assert history == ["was given it", "answered", "took back", "answered"]
    assert "Which version of Python is it?" in page.locator("#threads").inner_text()
    chosen = [row for row in stands if row["value"]["choice"] is not None]
    for row in chosen:
        side = "left" if row["shown"]["order"][0] == row["value"]["choice"] else "right"
        letter = "AB"[row["value"]["choice"]]
        (cells,) = [cells for cells in shown if cells[0].split()[0] == row["person"]]
        assert cells[2] == f"{letter} is better ({row['value']['points']} of 9), the {side} one"
    clean(page, office)


def as_told(number: dict) -> str:
    """A share as the papers print it, independently of the page."""
    if number["value"] is None:
        return "–"
    if not number["se"]:
        return f"{100 * number['value']:.0f}%"
    digits = 1 if number["se"] < 0.0195 else 0
    return f"{100 * number['value']:.{digits}f} ± {100 * number['se']:.{digits}f}%"


def test_the_agreement_page_has_the_reports_numbers(visit, office):
    page = visit(f"{TLDR}/agreement")
    page.locator("#report section").wait_for()
    (question,) = asked(page, "/research/projects/tldr/agreement")["questions"]
    tiles = tiles_of(page, "#report .tiles")
    numbers = question["aspects"][0]["agreement"]
    expected = {
        "labelers with each other": numbers["labeler_labeler"],
        "labelers with researchers": numbers["labeler_researcher"],
        "researchers with each other": numbers["researcher_researcher"],
        "most of three with a researcher": question["aspects"][0]["majority"]["mode_of_three"],
        "choose the left one": question["bias"]["left"],
        "choose the longer one": question["bias"]["longer"],
        "say the same again": question["repeats"]["same"],
        "say what is known to be right": question["gold"]["accuracy"],
    }
    for name, number in expected.items():
        assert number["value"] is not None, name
        assert tiles[name][0] == as_told(number), name
        assert f"95%: {100 * number['low']:.0f}% to {100 * number['high']:.0f}% · {number['n']:,} " in tiles[name][1]
    assert (
        f"Labelers with each other agree in {as_told(numbers['labeler_labeler'])}" in page.locator(".lead").inner_text()
    )
    page.locator("summary", has_text="How computed").first.press("Enter")
    assert numbers["labeler_labeler"]["how"] in page.locator("#report .tiles").inner_text()

    beyond = rows_of(page, "[aria-label='Agreement beyond chance of choice']")[0]
    kappa = question["aspects"][0]["beyond_chance"]["fleiss"]
    assert beyond[1].startswith(f"{kappa['value']:.2f} ± {kappa['se']:.2f}")
    people = {row[0]: row for row in rows_of(page, ".people")}
    assert set(people) == {"ann", "bob", "cid", "dee", "eve", "rea", "rob"}
    for one in question["with_researchers"]:
        assert people[one["person"]["name"]][1].startswith(as_told(one["agreement"]))
    assert "Do they know the texts, or skim them?" in page.locator("#report").inner_text()  # eve
    grid = page.locator(".matrix").first
    assert grid.locator("tbody tr").count() == len(question["matrix"]["people"]) == 7
    pair = question["matrix"]["rows"][0][1]
    assert grid.locator("tbody tr").first.locator("td").nth(1).inner_text().split() == [
        str(round(100 * pair["value"])), "n", str(pair["n"]),
    ]  # fmt: skip
    assert page.locator("svg circle.dot").count() > 20
    weeks = rows_of(page, "[aria-label='policy-0 over policy-1 by week']")
    assert [row[0] for row in weeks] == [one["week"] for one in question["drift"][0]["weeks"]]

    field(page, "Batch").select_option("batch2")
    page.wait_for_function("(before) => document.querySelector('#report .tiles').innerText !== before", arg="")
    report = asked(page, "/research/projects/tldr/agreement?batch=batch2")
    page.get_by_text(f"{report['answers']} answers to {report['items']} items").wait_for()
    assert "batch=batch2" in page.url
    clean(page, office)


def test_what_cannot_be_told_says_why(visit, office):
    page = visit(f"{HOME}/replies/agreement")
    page.locator("#report section").first.wait_for()
    report = asked(page, "/research/projects/replies/agreement")
    text = page.locator("#report").inner_text()
    assert "In the papers" not in text  # their figures are of comparisons
    whys = {question["gold"]["accuracy"]["why"] for question in report["questions"]}
    whys |= {question["repeats"]["same"]["why"] for question in report["questions"]}
    assert len(whys) >= 1
    for why in whys:
        assert why in text
    clean(page, office)


ANSWER = """async (key) => {
  const send = (path, body) => fetch('/label/api' + path, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  }).then((one) => one.json());
  const { items: [card] } = await send('/claim', { project: 'live', count: 1 });
  const { assignment, revision } = card, answers = { choice: { choice: 0, points: 1 } };
  return send('/submit', { key, assignment, revision, answers, diff: false, times: { active_ms: 1000 } });
}"""


def test_the_agreement_page_follows_the_work_and_keeps_what_is_open(visit, office):
    page = visit(HOME)
    make_project(page, "live", staged=False, overlap=5, calibration_share=0.0, gold_share=0.0, repeat_share=0.0)
    lines = "\n".join(json.dumps({"prompt": f"p{i}", "outputs": ["one text", "another text"]}) for i in range(3))
    upload(page, "live", lines)
    page.goto(f"{office.url}{HOME}/live/agreement")
    page.locator("#report section").wait_for()
    words = page.locator("#report").inner_text()
    assert "No two people have answered the same item yet." in words
    assert "In the papers: labelers with researchers 77 ± 2%" in words
    assert "Nothing to compare yet: agreement, beyond chance, each person, speed and quality, confidence" in words
    assert page.locator("#report").locator("table, .tiles, h3").count() == 0
    tile = page.locator(".tiles > div", has_text="prefer neither")
    for count in (1, 2):
        assert page.evaluate(ANSWER, f"a-key-of-sixteen-or-more-{count}")["late"] is False
        page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")  # as if one came back to the page
        page.locator("#facts", has_text="by 0 labelers and 1 researcher").wait_for()
        tile.get_by_text(f"· {count} answer").wait_for()
        assert (tile.locator("details").get_attribute("open") is not None) == (count == 2)
        if count == 1:
            tile.locator("summary").press("Enter")
    assert page.evaluate("() => document.activeElement.closest('details')?.open") is True
    clean(page, office)


# ---------------------------------------------------------------------------------------------- how it looks and reads

PLACES = {
    "projects": (HOME, ".project progress"),
    "people": (f"{HOME}/people", "#people table"),
    "audit": (f"{HOME}/audit", "#rows > *"),
    "overview": (TLDR, "#batches table"),
    "items": (f"{TLDR}/items", "#items table"),
    "item": (f"{TLDR}/items/1", "#candidates li"),
    "flags": (f"{HOME}/replies/items/135", "#answers table"),
    "agreement": (f"{TLDR}/agreement", "#report svg"),
    "many": (f"{HOME}/replies/agreement", "#report svg"),
    "members": (f"{TLDR}/people", "#messages li"),
    "questions": (f"{TLDR}/questions", "#threads form"),
    "instructions": (f"{TLDR}/instructions", "#versions table"),
    "data": (f"{TLDR}/data", "#export select"),
    "hostile": (BAD, "#batches table"),
    "hostile items": (f"{BAD}/items", "#items table"),
    "hostile agreement": (f"{BAD}/agreement", "#report section"),
}


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (320, "light"),
        pytest.param(1440, "dark", marks=pytest.mark.slow),
        pytest.param(320, "dark", marks=pytest.mark.slow),
        pytest.param(1440, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_and_nothing_scrolls_sideways(visit, office, width, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = visit(HOME, width=width, theme=theme)
    page.emulate_media(reduced_motion="reduce")
    options = {"resultTypes": ["violations"]}  # what passes is not described, which takes most of the time
    if theme == "dark":
        options["runOnly"] = ["color-contrast"]  # nothing else differs in the dark
    for name, (path, ready) in PLACES.items():
        page.goto(office.url + path)
        page.locator(ready).first.wait_for()
        page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert theme_of(page) == theme
        assert page.evaluate(FITS), name
        found = axe.run(page, options=options)
        assert found.violations_count == 0, (name, found.generate_report())
    clean(page, office)


def test_hostile_texts_are_text_on_every_page(visit, office):
    page = visit(HOME)
    ((item,),) = stored(office, ITEMS_OF, "<b>hostile")
    for path, where in (
        ("/items", "#items"), (f"/items/{item}", "#candidates"), (f"/items/{item}", "#source"),
        ("/people", "#messages"),
        ("/data", "#batches"), ("", "#batches"),
    ):  # fmt: skip
        page.goto(office.url + BAD + path)
        page.locator(f"{where} :is(table, li, .said)").first.wait_for()
        text = page.locator(where).inner_text()
        assert "<script>alert(1)</script>" in text or "<i>batch" in text, path
        assert page.locator("main").locator("img, script, b, i:not([class])").count() == 0
        assert "\u202e" not in text
    assert HOSTILE.startswith("</p><script>")
    clean(page, office)


def test_a_labeler_is_shown_nothing_of_researchers(visit, office):
    for path in (HOME, f"{TLDR}/agreement", f"{TLDR}/items/1", f"{HOME}/people"):
        page = visit(path, name="ann")
        page.get_by_text("This page is for researchers.").wait_for()
        assert page.locator("main").inner_text().split("\n")[0] == "This page is for researchers."
        assert page.locator("nav").count() == 0


def test_a_project_that_is_not_there_is_said_to_be_missing(visit):
    page = visit(f"{HOME}/nothing")
    page.get_by_text("There is no project nothing.").wait_for()
    page.goto(page.url + "/items/1")
    page.locator("#trouble", has_text="of another project").wait_for()
