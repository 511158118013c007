"""The report of a corpus in a real browser: built from real documents, self-contained, safe, readable at any width."""

from __future__ import annotations

import json
import random

import pytest
from looking import CUT_OFF, FITS, HOSTILE, OPEN_ALL, SHOWN, theme_of

from rein import config
from rein.text.build import BuildConfig, build
from rein.text.recipe import Decontamination, NearDuplicates, Quality, Recipe, Source
from rein.text.report import draw

SECTIONS = ["funnel", "lengths", "quality", "duplicates", "contamination", "mixture", "examples", "origins", "recipe"]


def documents(path, seed, n, words, **more):
    rng = random.Random(seed)
    rows = [{"name": f"{path.stem}-{i}", "text": " ".join(rng.choices(words, k=60 + i))} for i in range(n)]
    rows += [{"name": name.replace("_", " "), "text": text} for name, text in more.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two sources that pass every stage: quality, duplicates, and the overlap with an evaluation set."""
    folder = tmp_path_factory.mktemp("corpus")
    good, bad = [f"word{i}" for i in range(300)], [f"spam{i}" for i in range(300)]
    question = " ".join(f"asked{i}" for i in range(14))
    long = " ".join(random.Random(3).choices(good, k=200))
    books = documents(
        folder / "books.jsonl", 1, 60, good, **{HOSTILE: HOSTILE + long, "copy": long, "near": long + " more"},
        overlap=f"{long[:900]} {question} {long[:900]}", empty="", twice=long,
    )  # fmt: skip
    web = documents(folder / "web.jsonl", 2, 60, bad)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "toy.jsonl").write_text(json.dumps({"question": question}) + "\n")
    recipe = Recipe(
        (
            Source("books", "jsonl", (books,), id_field="name", license=HOSTILE, weight=0.7),
            Source("web", "jsonl", (web,), id_field="name", quality=True, weight=0.3),
        ),
        quality=Quality(("books",), ("web",), alpha=0.5),
        near_duplicates=NearDuplicates(),
        decontamination=Decontamination((folder / "evaluation",)),
        heldout_frac=0.2,
        n_vocab=300,
    )
    path = folder / "recipe.json"
    path.write_text(config.to_json(recipe))
    return build(BuildConfig((path,), out=folder / "demo", workers=1))


def test_from_disk_it_is_shown_without_a_complaint_or_a_request(look, corpus):
    page = look((corpus / "report.html").as_uri())
    assert page.title() == "demo · Rein"
    assert page.requests == [(corpus / "report.html").as_uri()]
    assert page.complaints == []
    assert page.evaluate("() => [...document.querySelectorAll('section')].map((one) => one.id)") == SECTIONS
    assert page.evaluate("() => getComputedStyle(document.querySelector('.flow')).height") == "240px"  # the style holds


def test_from_a_server_it_asks_for_itself_only(look, corpus, serve):
    address, asked = serve(corpus)
    page = look(f"{address}/report.html")
    page.wait_for_timeout(200)
    assert asked == ["/report.html"]
    assert page.complaints == []


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (390, "dark"), (768, "light"), (1440, "dark")])
def test_no_width_scrolls_sideways_or_cuts_a_figure_off(look, corpus, width, theme):
    page = look((corpus / "report.html").as_uri(), width=width, theme=theme)
    page.evaluate(OPEN_ALL)
    assert page.evaluate(FITS)
    assert page.evaluate(CUT_OFF) == []
    assert theme_of(page) == theme


def test_hostile_text_is_shown_and_does_nothing(look, corpus):
    page = look((corpus / "report.html").as_uri(), width=390)
    for summary in page.locator("summary").all():
        if summary.is_visible() and not summary.evaluate("(one) => one.parentElement.open"):
            summary.click()
    for section in ("duplicates", "origins"):
        assert SHOWN[:40] in page.locator(f"#{section}").text_content()
    assert page.locator("img, script, iframe").count() == 0
    assert page.complaints == []
    assert page.evaluate(FITS)


def test_it_can_be_read_without_scripts_and_by_keyboard(look, corpus):
    page = look((corpus / "report.html").as_uri(), script=False)
    examples = page.locator("#examples details").first
    assert not examples.locator("article").first.is_visible()
    examples.locator("summary").focus()
    page.keyboard.press("Enter")
    assert examples.locator("article").first.is_visible()


def test_print_is_dark_on_white(look, corpus):
    page = look((corpus / "report.html").as_uri(), theme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("svg.still:visible").count() >= 8


def test_drawn_again_it_is_the_same(corpus):
    before = (corpus / "report.html").read_bytes()
    assert draw(corpus).read_bytes() == before
