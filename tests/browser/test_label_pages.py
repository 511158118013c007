"""The labeler's pages in a real Chromium, before the real server and its store: real keys, the store as the judge."""

from __future__ import annotations

import re
import sqlite3

import pytest
from label_desk import GUIDE, ITEM, PASSWORD, clean, item, log_in, rows_of, sent, tab_to
from looking import FITS, theme_of

pytest_plugins = ["label_fixtures"]


def read_first(page) -> None:
    """A staged item: a note on each, then the source."""
    page.locator(".naive textarea").first.wait_for()
    assert page.locator(".context").count() == 0
    page.keyboard.type("It says how to call it.")
    page.keyboard.press("Enter")
    page.keyboard.type("It says what comes back.")
    page.keyboard.press("Enter")
    page.locator(".context").wait_for()


def test_a_labeler_works_by_keyboard_alone_from_the_login_to_the_own_page(look, desk, who):
    page = look(f"{desk.url}/label")
    page.wait_for_url(re.compile("/label/login"))
    assert page.complaints == [
        "error: Failed to load resource: the server responded with a status of 401 (Unauthorized)"
    ]
    page.complaints.clear()
    log_in(page, who)
    page.get_by_role("heading", name="Staged comparison").wait_for()
    tab_to(page, "Begin: Staged comparison")
    page.keyboard.press("Enter")

    read_first(page)  # practice
    assert "Practice" in page.locator("#practice").inner_text()
    page.keyboard.press("2")
    assert "A is clearly better" in page.locator(".chosen").inner_text()
    page.keyboard.press("Enter")
    page.locator("#teach").wait_for()
    assert "The other one is about another function." in page.locator("#teach").inner_text()
    assert "1 of 2 done" in page.locator("#teach").inner_text()
    page.keyboard.press("Enter")
    read_first(page)
    page.keyboard.press("8")
    page.keyboard.press("Enter")
    page.locator("#teach").wait_for()
    page.get_by_role("heading", name="Practice passed").wait_for()
    page.keyboard.press("Enter")

    read_first(page)  # work
    assert not page.locator("#practice").is_visible()
    first = item(page)
    page.keyboard.press("8")
    page.keyboard.press("Enter")
    page.locator(".naive textarea").first.wait_for()
    second = item(page, other_than=first)
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.locator("#words").wait_for()
    page.keyboard.press("1")
    item(page, other_than=second)
    rows_of(desk, who, "staged", 7)  # three notes, three answers, and the skip
    for shown in (second, first):  # the skip is taken back, then the answer before it
        page.keyboard.press("Escape")
        page.keyboard.press("z")
        page.wait_for_function(f"(text) => {ITEM} === text", arg=shown)
    assert page.locator(".comparison input:checked").get_attribute("value") == "8"
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    item(page, other_than=first)
    sent(page)

    page.goto(f"{desk.url}/label")
    page.get_by_role("heading", name="Ranking").wait_for()
    tab_to(page, "Begin: Ranking")
    page.keyboard.press("Enter")
    page.locator(".duel .side").first.wait_for()
    while page.locator(".duel").is_visible():
        page.keyboard.press("ArrowRight")  # the new one is always better: the last is the best
    page.keyboard.press("Enter")
    sent(page)
    (ranked,) = rows_of(desk, who, "ranking", 1)
    order = ranked["shown"]["order"]
    assert [ranked["value"]["ranks"][candidate] for candidate in order] == [4, 3, 2, 1]

    page.goto(f"{desk.url}/label")
    page.get_by_role("heading", name="Axes").wait_for()
    tab_to(page, "Begin: Axes")
    page.keyboard.press("Enter")
    page.locator(".axis").first.wait_for()
    for key in "7653":
        page.keyboard.press(key)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("4")  # coverage, which was 5
    page.keyboard.press("Enter")
    sent(page)
    (likert,) = rows_of(desk, who, "axes", 1)
    assert likert["value"]["axes"] == [{"overall": 7, "accuracy": 6, "coverage": 4, "coherence": 3}]

    page.goto(f"{desk.url}/label")
    page.get_by_role("heading", name="Staged comparison").wait_for()
    tab_to(page, "Your work: Staged comparison")
    page.keyboard.press("Enter")
    page.locator("#tiles strong").first.wait_for()
    page.locator("#history li").first.wait_for()
    clean(page, desk)


# --------------------------------------------------------------------------------------------------- keys and people


def test_single_keys_can_be_switched_off_and_changed(come, desk, who):
    page = come("/label/account")
    page.get_by_label("skip this item").fill("x")
    page.get_by_role("button", name="Keep these keys").click()
    page.get_by_text("Kept.").wait_for()
    page.get_by_label("take the last answer back").fill("x")
    page.get_by_role("button", name="Keep these keys").click()
    assert "both skip and undo" in page.locator("#keys-trouble").inner_text()
    page.goto(f"{desk.url}/label/desk/plain")
    item(page)
    assert page.locator("#skip kbd").inner_text() == "X"
    page.keyboard.press("s")
    assert not page.locator("#words").is_visible()
    page.keyboard.press("x")
    page.locator("#words").wait_for()
    page.keyboard.press("Escape")
    page.goto(f"{desk.url}/label/account")
    single = page.get_by_label("Single keys act")
    single.click()  # not uncheck(), which is content with the box as it is before the form is filled and shown
    assert not single.is_checked()
    page.get_by_role("button", name="Keep these keys").click()
    page.get_by_text("Kept.").wait_for()
    page.goto(f"{desk.url}/label/desk/plain")
    item(page)
    for key in "3x?d":
        page.keyboard.press(key)
    assert page.locator(".comparison input:checked").count() == 0
    assert page.locator("dialog[open]").count() == 0
    tab_to(page, "Skip")


def test_a_question_reaches_the_researchers_and_the_own_page(come, desk, who):
    page = come("/label/desk/plain")
    item(page)
    page.keyboard.press("q")
    page.keyboard.type("Which version of Python is this?")
    page.keyboard.press("Control+Enter")
    page.locator("#words").wait_for(state="hidden")
    page.keyboard.press("f")
    page.keyboard.type("The text is cut off.")
    page.keyboard.press("Control+Enter")
    sent(page)
    page.wait_for_timeout(300)
    page.goto(f"{desk.url}/label/mine/plain")
    page.locator("#threads li").nth(1).wait_for()
    assert "Which version of Python is this?" in page.locator("#threads").inner_text()
    assert "Flagged: The text is cut off." in page.locator("#threads").inner_text()
    clean(page, desk)


def test_the_instructions_say_what_is_new_and_are_searched(come, desk, who):
    page = come("/label/desk/guided")
    item(page)
    page.locator("#guide h3", has_text="How to compare").wait_for()  # nobody has read them: they are open
    page.get_by_role("searchbox").fill("length")
    assert page.locator("#guide-text mark").all_inner_texts() == ["Length"]
    with sqlite3.connect(desk.store) as conn:
        conn.execute(
            "INSERT INTO instruction (project, version, text, created_ms)"
            " SELECT id, 2, ?, 1 FROM project WHERE name = 'guided'",
            (GUIDE + "\nTies are welcome.",),
        )
    page.reload()
    page.locator("#guide-changed").wait_for()
    assert page.locator("#guide-text .fresh").all_inner_texts() == ["new:\nTies are welcome."]
    page.keyboard.press("i")
    page.locator("#guide").wait_for(state="hidden")


def test_only_time_with_somebody_there_is_counted(look, desk):
    page = look(f"{desk.url}/label/login")
    found = page.evaluate(
        """async () => {
          const { makeClock } = await import('/static/label/clock.js');
          let at = 0;
          const clock = makeClock(() => at), touch = () => dispatchEvent(new Event('keydown'));
          clock.begin('notes');
          at = 5_000; touch();
          at = 500_000; touch();           // away: a minute of it counts
          clock.enter('answers');
          at = 504_000; clock.answered();
          at = 505_000;
          return clock.read();
        }"""
    )
    assert found == {"active_ms": 70_000, "reading_ms": 69_000, "stages_ms": {"notes": 65_000, "answers": 5_000}}


def test_a_wrong_password_is_said_and_a_message_is_read_once(look, desk, who):
    page = look(f"{desk.url}/label/login")
    page.keyboard.type(who)
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The name or the password is wrong.").wait_for()
    page.keyboard.type(PASSWORD)  # what was wrong is chosen, and replaced
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/label$"))
    page.get_by_text("Welcome, all.").wait_for()
    page.get_by_role("button", name="All read").click()
    page.get_by_text("1 message that you have read").wait_for()
    page.reload()
    page.get_by_text("1 message that you have read").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(re.compile("/label/login"))


# ---------------------------------------------------------------------------------------------- how it looks and reads


def test_hostile_texts_are_text(come, desk, who):
    page = come("/label/desk/hostile")
    item(page)
    main = page.locator("main")
    assert main.locator("img, script, b").count() == 0
    shown = main.locator(".context .said").first.inner_text()
    assert shown == (
        "</p><script>alert(1)</script><img src=x onerror=alert(2)> "
        "U+202EgnpU+202C aZWSPb ESC[31m \U0001f469\u200d\U0001f680 é"
    )
    assert main.locator(".context .boxed").all_inner_texts()[:4] == ["U+202E", "U+202C", "ZWSP", "ESC"]
    page.keyboard.press("d")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    rows_of(desk, who, "hostile", 1)
    page.goto(f"{desk.url}/label/mine/hostile")
    page.locator("#history li").first.wait_for()
    assert page.locator("#history img").count() == 0
    page.goto(f"{desk.url}/label")
    page.locator(".project h3").first.wait_for()
    clean(page, desk)


def test_what_cannot_be_seen_is_named_and_what_belongs_to_a_letter_is_not(look, desk):
    page = look(f"{desk.url}/label/login")
    shown = page.evaluate(
        """async (texts) => {
          const { written } = await import('/static/label/text.js');
          return texts.map((text) => {
            const box = document.createElement('p');
            box.append(written(text));
            return box.textContent;
          });
        }""",
        ["a\0b\ufeff", "a\u200d b\u00ad", "\U000e0041", "a\rb", "a\r\nb\tc", "\u2066x\u2069"],
    )
    assert shown == ["aNULbBOM", "aZWJ bSHY", "U+E0041", "aCRb", "a\nb\tc", "U+2066xU+2069"]
    whole = [
        "\U0001f469\u200d\U0001f680",
        "\u0645\u06cc\u200c\u062e\u0648",
        "\u2764\ufe0f\u200d\U0001f525",
        "\U0001f44d\U0001f3fd",
    ]
    for text in whole:
        made = page.evaluate("async (text) => (await import('/static/label/text.js')).written(text).textContent", text)
        assert made == text


PLACES = {
    "home": ("/label", ".project"),
    "account": ("/label/account", "#sessions li"),
    "staged": ("/label/desk/staged", ".naive textarea"),
    "comparison": ("/label/desk/plain", ".comparison"),
    "mine": ("/label/mine/plain", ".u-over"),
    "practice": ("/label/desk/strict", ".comparison"),
    "ranking": ("/label/desk/ranking", ".duel .side"),
    "axes": ("/label/desk/axes", ".axis"),
    "instructgpt": ("/label/desk/instructgpt", ".flag"),
    "edit": ("/label/desk/edit", ".writing"),
}


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (320, "light"),
        (1440, "dark"),
        pytest.param(320, "dark", marks=pytest.mark.slow),
        pytest.param(1440, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_and_nothing_scrolls_sideways(come, desk, who, width, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    options = {"resultTypes": ["violations"]}  # what passes is not described, which takes most of the time
    page = come("/label", width=width, theme=theme)
    page.emulate_media(reduced_motion="reduce")
    for name, (path, ready) in PLACES.items():
        page.goto(desk.url + path)
        page.locator(ready).first.wait_for()
        assert theme_of(page) == theme
        assert page.evaluate(FITS), name
        if name == "comparison":
            page.keyboard.press("d")
        if name == "ranking":
            while page.locator(".duel").is_visible():
                page.keyboard.press("=")
        if name == "practice":
            page.keyboard.press("3")
            page.keyboard.press("3")  # on a small screen the first one leads to what was not seen yet
            page.keyboard.press("Enter")
            page.locator("#teach").wait_for()
        found = axe.run(page, options=options)
        assert found.violations_count == 0, (name, found.generate_report())
        if name == "comparison":
            page.keyboard.press("3")
            page.keyboard.press("3")
            page.keyboard.press("Enter")
            sent(page)
    page.goto(f"{desk.url}/label/desk/plain")
    item(page)
    for key in ("?", "s"):
        page.keyboard.press(key)
        page.locator("dialog[open]").wait_for()
        found = axe.run(page, options=options)
        assert found.violations_count == 0, (key, found.generate_report())
        page.keyboard.press("Escape")
    clean(page, desk)


def test_without_a_script_each_page_says_what_it_needs(look, desk):
    for path in ("/label", "/label/login", "/label/desk/plain"):
        page = look(desk.url + path, script=False)
        assert page.locator("noscript p").is_visible()


# ------------------------------------------------------------------------------------------------------ the other doors


def test_an_old_answer_is_taken_back_from_the_own_page(come, desk, who):
    page = come("/label/desk/plain")
    first = item(page)
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    item(page, other_than=first)
    sent(page)
    page.goto(f"{desk.url}/label/mine/plain")
    page.get_by_role("link", name="Take back").click()
    page.wait_for_function("() => document.querySelector('.comparison input:checked')?.value === '4'")
    assert item(page) == first
    page.keyboard.press("5")
    page.keyboard.press("Enter")
    rows = rows_of(desk, who, "plain", 3)
    assert [row["act"] for row in rows] == ["say", "undo", "say"]
    assert rows[-1]["value"] == {"choice": None, "points": 5}


def test_the_login_leads_back_to_pages_of_this_server_alone(look, desk, who):
    for wanted, path in (("%2Flabel%2Fmine%2Fplain", "/label/mine/plain"), ("https://example.org/", "/label")):
        page = look(f"{desk.url}/label/login#{wanted}")
        page.keyboard.type(who)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(f"{path}$"))
        assert page.url == desk.url + path


def test_a_guest_joins_by_an_invitation(look, desk):
    researcher = look(f"{desk.url}/label/login")
    api = f"{desk.url}/label/api"
    origin = {"origin": desk.url}
    ask = researcher.context.request.post
    assert ask(f"{api}/login", data={"name": "rea", "password": PASSWORD}, headers=origin).ok
    wish = {"role": "labeler", "project": "plain", "uses": 1, "hours": 1}
    made = ask(f"{api}/research/invites", data=wish, headers=origin)
    page = look(made.json()["link"])
    assert "#" not in page.url  # the token does not stay in the address
    for text in ("Zoe", "a password of hers"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.type("another one")
    page.keyboard.press("Enter")
    page.get_by_text("The two passwords are not the same.").wait_for()
    page.keyboard.type("a password of hers")  # what was wrong is chosen, and replaced
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/label$"))
    page.get_by_role("heading", name="Plain comparison").wait_for()
    assert page.locator(".project").count() == 1
    clean(page, desk)


def test_a_practice_round_that_is_not_passed_says_so_kindly(come, desk, who):
    page = come("/label/desk/strict")
    item(page)
    page.keyboard.press("5")  # even: half right, on whichever side the right one is
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Practice not passed").wait_for()
    assert "The other one is about another function." in page.locator("#teach").inner_text()
    assert page.locator(".item").is_visible()  # what it is about stays in view
    page.keyboard.press("Enter")
    page.locator("#sheet", has_text="nothing is held against you").wait_for()
    page.goto(f"{desk.url}/label")
    page.locator(".project", has_text="Strict practice").get_by_text("practice not passed").wait_for()
    clean(page, desk)


def test_the_printed_link_lets_in_once(look, own_desk):
    link = re.search(r"http\S+/label/enter#\S+", own_desk.said.read_text())
    assert link, "nobody has an account as an admin yet"
    look(link[0]).wait_for_url(re.compile("/label/research$"))
    again = look(link[0])
    again.locator("#trouble", has_text="used up").wait_for()
    assert again.url == f"{own_desk.url}/label/enter"
