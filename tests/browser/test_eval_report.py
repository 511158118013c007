"""The report of evaluations in a real browser: self-contained, safe, readable at any width, in light and dark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from looking import CUT_OFF, FITS, HOSTILE, OPEN_ALL, SHOWN, theme_of

from rein.evals.answering import Failed
from rein.evals.report import write_report

sys.path.insert(0, str(Path(__file__).parent.parent / "evals"))
from evaluations import write_contamination, write_evaluation

# Parts of a table that stick out of the box it scrolls in, before it is scrolled.
HEADS = """() => [...document.querySelectorAll('.group div, .papers div')].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.right > document.documentElement.clientWidth;
}).length"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg.still text')].map(
  (one) => one.getBoundingClientRect().height))"""
SECTIONS = ["scores", "shots", "sizes", "contamination", "answers", "failures", "settings"]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evals")
    failed = (Failed("row 3", 0, HOSTILE),)
    small = write_evaluation(folder / "small-gpt3", failed=failed, text=HOSTILE)
    medium = write_evaluation(folder / "medium-gpt3", model="runs/medium", n_params=354_823_168, skill=0.07, seed=1)
    write_contamination(small)
    return write_report([small, medium], folder / "both")


def test_from_disk_it_is_shown_without_a_complaint_or_a_request(look, page_file):
    page = look(page_file.as_uri())
    assert page.title() == "small · medium · Rein"
    assert page.requests == [page_file.as_uri()]
    assert page.complaints == []
    assert page.evaluate("() => [...document.querySelectorAll('section')].map((one) => one.id)") == SECTIONS
    assert page.evaluate("() => getComputedStyle(document.querySelector('.strip')).width") == "132px"  # the style holds


def test_from_a_server_it_asks_for_itself_only(look, page_file, serve):
    address, asked = serve(page_file.parent)
    page = look(f"{address}/report.html")
    page.wait_for_load_state("networkidle")
    assert asked == ["/report.html"]
    assert page.complaints == []


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (390, "dark"), (768, "light"), (1440, "dark")])
def test_no_width_scrolls_sideways_or_cuts_a_figure_off(look, page_file, width, theme):
    page = look(page_file.as_uri(), width=width, theme=theme)
    page.evaluate(OPEN_ALL)
    assert page.evaluate(FITS)
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(HEADS) == 0
    assert theme_of(page) == theme


@pytest.mark.parametrize("width", [390, 1440])
def test_texts_of_figures_are_large_enough_to_read(look, page_file, width):
    assert look(page_file.as_uri(), width=width).evaluate(SMALLEST) >= 10.5


def test_curves_take_the_colours_of_the_theme(look, page_file):
    colour = "() => getComputedStyle(document.querySelector('#shots .line path')).stroke"
    light, dark = (look(page_file.as_uri(), theme=theme).evaluate(colour) for theme in ("light", "dark"))
    assert (light, dark) == ("rgb(0, 114, 178)", "rgb(86, 180, 233)")


def test_hostile_text_is_shown_and_does_nothing(look, page_file):
    page = look(page_file.as_uri(), width=390)
    page.evaluate(OPEN_ALL)
    for section in ("scores", "shots", "answers", "failures"):
        assert SHOWN[:40] in page.locator(f"#{section}").text_content()
    assert page.locator("img, script, iframe").count() == 0
    assert page.complaints == []
    assert page.evaluate(FITS)


def test_tables_scroll_and_answers_open_by_keyboard_without_scripts(look, page_file):
    page = look(page_file.as_uri(), width=390, script=False)
    table = page.get_by_role("region", name="Scores")
    table.focus()
    for _ in range(50):  # a key that comes before the page is laid out scrolls nothing
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)
        if page.evaluate("() => document.querySelector('#scores .wide').scrollLeft > 0"):
            break
    else:
        raise AssertionError("the table does not scroll by keyboard")
    second = page.locator("#answers details").nth(1)
    assert not second.locator("article").first.is_visible()
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    assert second.locator("article").first.is_visible()


def test_a_figure_of_its_own_is_drawn_in_colour(look, page_file):
    page = look((page_file.parent / "figures" / "shots-piqa.svg").as_uri(), theme="dark")
    assert page.evaluate("() => getComputedStyle(document.querySelector('.line path')).stroke") == "rgb(0, 114, 178)"
    assert page.evaluate("() => getComputedStyle(document.querySelector('.sheet')).fill") == "rgb(255, 255, 255)"
    assert page.complaints == []


def test_print_is_dark_on_white(look, page_file):
    page = look(page_file.as_uri(), theme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("svg.still:visible").count() >= 10
