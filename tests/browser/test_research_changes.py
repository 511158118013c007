"""What researchers do on their pages, by keyboard in a real Chromium; the store is the judge."""

from __future__ import annotations

import json
import re
from pathlib import Path

from label_desk import PASSWORD
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
    upload,
)

from rein.feedback.exchange.table import FORMATS

pytest_plugins = ["research_fixtures"]


def test_a_project_is_made_changed_and_closed_by_keyboard(visit, office):
    page = visit(HOME)
    field(page, "Preset").select_option("ranking")
    field(page, "Name").focus()
    page.keyboard.press("Enter")  # without a name
    page.get_by_text("Give it a name.").wait_for()
    field(page, "Name").fill("made here")
    page.locator("#new summary").press("Enter")
    field(page, "People for each item").fill("4")
    field(page, "Shared with everybody, %").fill("12.5")
    page.get_by_role("button", name="Make it").press("Enter")
    page.wait_for_url(re.compile("/label/research/made%20here$"))
    page.locator("#next li").first.wait_for()
    ((settings,),) = stored(office, "SELECT settings FROM project WHERE name = 'made here'")
    found = json.loads(settings)
    assert (found["overlap"], found["calibration_share"], found["questions"][0]["kind"]) == (4, 0.125, "ranking")

    page.locator("#settings-box summary").press("Enter")
    field(page, "People for each item").fill("0")
    page.get_by_role("button", name="Keep these settings").press("Enter")
    page.locator("#settings .trouble").wait_for()
    assert "overlap" in page.locator("#settings .trouble").inner_text()
    field(page, "People for each item").fill("2")
    field(page, "Questions, as JSON").fill("[nothing")
    page.get_by_role("button", name="Keep these settings").press("Enter")
    page.get_by_text("The questions are not JSON").wait_for()
    field(page, "Questions, as JSON").fill(json.dumps(found["questions"]))
    page.get_by_role("button", name="Keep these settings").press("Enter")
    page.get_by_text("Kept: overlap.").wait_for()
    page.get_by_role("button", name="Close it").press("Enter")
    page.get_by_role("button", name="Open it again").wait_for()
    page.get_by_text("It is closed and hands out nothing.").wait_for()
    assert stored(office, "SELECT closed, settings ->> 'overlap' FROM project WHERE name = 'made here'") == [(1, 2)]
    clean(page, office, refused=1)


def test_a_right_answer_is_set_with_its_reason_and_the_role_follows(visit, office):
    page = visit(HOME)
    make_project(page, "golden", "instructgpt")
    upload(page, "golden", json.dumps({"prompt": "p", "outputs": ["a", "b", "c"]}))
    ((item,),) = stored(office, ITEMS_OF, "golden")
    page.goto(f"{office.url}{HOME}/golden/items/{item}")
    page.locator("#gold fieldset").first.wait_for()
    page.get_by_role("button", name="This is right").press("Enter")
    page.get_by_text("Say what is right first.").wait_for()
    field(page, "Rank of A").select_option("2")
    page.get_by_role("button", name="This is right").press("Enter")
    page.get_by_text("ranking: a value for each, or for none.").wait_for()
    field(page, "Rank of B").select_option("1")
    field(page, "Rank of C").select_option("2")
    page.get_by_label("The right flags are known").press("Space")
    page.get_by_role("group", name="C", exact=True).get_by_label("fails task").check()
    field(page, "Why, as it is explained after practice").fill("B alone answers it.")
    page.get_by_role("button", name="This is right").press("Enter")
    page.get_by_text("Because: B alone answers it.").wait_for()
    field(page, "Role").select_option("gold")
    field(page, "Priority").fill("3.5")
    page.get_by_role("button", name="Keep it").press("Enter")
    page.locator("#queue .done", has_text="Kept.").wait_for()
    ((gold, role, priority),) = stored(office, "SELECT gold, role, priority FROM item WHERE id = ?", item)
    assert json.loads(gold) == {
        "answers": {"ranking": {"ranks": [2, 1, 2]}, "metadata": {"flags": [[], [], ["fails_task"]]}},
        "why": "B alone answers it.",
    }
    assert (role, priority) == ("gold", 3.5)
    page.reload()
    field(page, "Rank of B").wait_for()
    assert field(page, "Rank of B").input_value() == "1"
    assert page.get_by_label("fails task").nth(2).is_checked()
    clean(page, office)


def test_a_reply_is_written_and_pinned_and_reaches_the_instructions(visit, office):
    page = visit(f"{BAD}/questions")
    page.locator("#threads form").wait_for()
    page.get_by_label("Pin it").press("Space")
    page.get_by_role("button", name="Reply").press("Enter")
    page.get_by_text("A question is pinned with its reply; reply first.").wait_for()
    field(page, "Your reply").fill("Judge the text alone.")
    page.get_by_role("button", name="Reply").press("Enter")
    page.get_by_text("All of them have a reply.").wait_for()
    page.get_by_label("Only those without").uncheck()
    page.locator("#threads .panel", has_text="Judge the text alone.").wait_for()
    page.goto(f"{office.url}{BAD}/instructions")
    page.locator("#pinned li", has_text="Judge the text alone.").wait_for()
    field(page, "Text").fill("# Once more\nJudge <b>the text</b>.")
    assert page.locator("#preview h3").inner_text() == "Once more"
    assert page.locator("#preview p").inner_text() == "Judge <b>the text</b>."
    page.get_by_role("button", name="Give it to everybody").press("Enter")
    page.get_by_text("It is version 2.").wait_for()
    page.get_by_role("button", name="Read version 1").press("Enter")
    page.locator("#old h3", has_text="Version 1").wait_for()
    clean(page, office, refused=1)


def test_an_invitation_lets_a_new_labeler_in_who_gets_a_message(visit, look, office):
    page = visit(f"{HOME}/write/people")
    page.locator("#members table").wait_for()
    page.get_by_role("button", name="Make a link").press("Enter")
    link = page.locator("#link code").inner_text()
    guest = look(link)
    guest.get_by_label("Name").fill("Zoë")
    for each in (0, 1):
        guest.locator("input[type=password]").nth(each).fill(PASSWORD)
    guest.keyboard.press("Enter")
    guest.wait_for_url(re.compile("/label$"))
    guest.get_by_role("heading", name="write").wait_for()

    page.reload()
    page.get_by_role("rowheader", name="Zoë").wait_for()
    page.get_by_label("state of Zoë").select_option("stopped")
    page.wait_for_function("() => document.querySelector('#trouble').hidden")
    page.get_by_label("Zoë counts as confident from").select_option("2")
    field(page, "To").select_option("Zoë")
    field(page, "Message").fill("Welcome, Zoë.")
    page.get_by_role("button", name="Send").press("Enter")
    page.locator("#messages li", has_text="Welcome, Zoë.").wait_for()
    guest.reload()
    guest.get_by_text("Welcome, Zoë.").wait_for()
    ((state, confident),) = stored(
        office, "SELECT m.state, m.confident FROM member m JOIN person p ON p.id = m.person WHERE p.name = 'Zoë'"
    )
    assert (state, confident) == ("stopped", 2)

    page.goto(f"{office.url}{HOME}/people")
    page.get_by_role("button", name="Deactivate Zoë").press("Enter")
    page.get_by_role("button", name="Activate Zoë", exact=True).wait_for()
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Activate Zoë"
    guest.goto(f"{office.url}/label")
    guest.wait_for_url(re.compile("/label/login"))
    page.get_by_role("button", name="Activate Zoë", exact=True).press("Enter")
    page.get_by_role("button", name="New link for Zoë").press("Enter")
    again = page.locator("#again code").inner_text()
    guest.goto(again)
    guest.wait_for_url(re.compile("/label$"))

    field(page, "What it is for").fill("nightly export")
    page.get_by_role("button", name="Make a key").press("Enter")
    key = page.locator("#key code").inner_text()
    answer = page.context.request.get(
        f"{office.url}/label/api/research/audit", headers={"authorization": f"Bearer {key}"}
    )
    assert answer.json()["rows"][0]["act"] == "make key"
    page.goto(f"{office.url}{HOME}/audit")
    first = page.locator("#rows tbody tr").first
    first.wait_for()
    assert "make key" in first.inner_text()
    assert "nightly export" in first.inner_text()
    clean(page, office)


def test_a_file_is_looked_at_first_then_taken_in_and_comes_out_again(visit, office, tmp_path):
    page = visit(HOME)
    make_project(page, "files", overlap=1)
    good = [json.dumps({"prompt": f"p{i}", "outputs": ["a text", f"another text {i}"]}) for i in range(4)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join([*good[:2], "{broken", *good[2:]]) + "\n")
    page.goto(f"{office.url}{HOME}/files/data")
    page.get_by_role("button", name="Look at it first").press("Enter")
    page.get_by_text("Choose a file.").wait_for()
    field(page, "File").set_input_files(path)
    field(page.locator("#import"), "Batch").fill("first")
    page.get_by_role("button", name="Look at it first").press("Enter")
    page.get_by_text("It would bring 4 new items").wait_for()
    (bad,) = rows_of(page, "#found")
    assert bad[0] == "3"
    assert bad[1]
    assert stored(office, "SELECT COUNT(*) FROM item i JOIN project p ON p.id = i.project WHERE p.name = 'files'") == [
        (0,)
    ]
    page.get_by_role("button", name="Take it in").press("Enter")
    page.get_by_text("It brought 4 new items").wait_for()
    page.get_by_role("button", name="Freeze first").press("Enter")
    page.get_by_role("button", name="Thaw first").wait_for()
    assert stored(office, "SELECT frozen_ms IS NOT NULL FROM batch WHERE name = 'first'") == [(1,)]
    offered = field(page.locator("#export"), "Format").locator("option").all_inner_texts()
    writes = [one["name"] for one in asked(page, "/research/formats")["formats"] if one["writes"]]
    assert set(offered) == {name for name in writes if not FORMATS[name].kinds or "comparison" in FORMATS[name].kinds}

    page.goto(f"{office.url}{TLDR}/data")
    page.locator("#export select").first.wait_for()
    field(page.locator("#export"), "Format").select_option("trl")
    field(page.locator("#export"), "Ties").select_option("both")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").press("Enter")
    assert download.value.suggested_filename == "tldr-trl.jsonl"
    text = Path(download.value.path()).read_text()
    same = page.evaluate(
        "() => fetch('/label/api/research/projects/tldr/export?format=trl&ties=both').then((one) => one.text())"
    )
    assert text == same
    assert {"chosen", "rejected"} <= json.loads(text.split("\n")[0]).keys()
    clean(page, office)
