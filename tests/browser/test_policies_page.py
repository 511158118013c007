"""The page of evaluated policies in a real browser: self-contained, safe, readable at any width, in light and dark."""

from __future__ import annotations

import pytest
from looking import CUT_OFF, FITS, HOSTILE, OPEN_ALL, SHOWN, theme_of

from rein.evals.policies_page import render

NAMES = ["sft", "ppo", "a-policy-with-a-very-long-name-of-its-own", "p4", "p5", "p6", "p7", "p8", "ref"]
SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg.still text')].map(
  (one) => one.getBoundingClientRect().height))"""
SECTIONS = ["wins", "scores", "marks", "rouge", "lengths", "habits", "tax", "answers"]


def about(value, margin=0.05):
    return {"value": value, "low": value - margin, "high": value + margin, "n": 100}


def numbers():
    """What an evaluation with everything comes to."""
    policies = [
        {"name": name, "about": "", "prompts": 100, "texts": 100,
         "lengths": {"characters": about(120.0, 9), "words": about(24.0, 2), "tokens": about(31.0, 2)},
         "rouge": None if name == "ref" else {f"rouge_{n}": about(0.2) for n in ("1", "2", "l")},
         "scores": {"gold": about(at / 3), HOSTILE: about(-at / 3)},
         "kl_nats": None if name == "ref" else about(2.0 * at),
         "kl_scores": {} if name == "ref" else {"gold": about(at / 3), HOSTILE: about(-at / 3)},
         "habits": {"no_eot_frac": about(0.1), "repeated_frac": about(0.1), "distinct_2_frac": about(0.8)},
         "findings": [HOSTILE] if at == 1 else []}
        for at, name in enumerate(NAMES)
    ]  # fmt: skip
    wins = [
        {"policy": name, "against": against, "by": by, "pairs": 100, "prompts": 100, "ties": 3, "raw": about(0.4),
         "controlled": about(0.5), "stratified": about(0.5) if by == "gold" else None, "length_logit": 0.3}
        for by in ("people", "gold", HOSTILE) for against in ("ref", "sft") for name in NAMES[1:-1]
    ]  # fmt: skip
    likert = [{"policy": name, "axis": axis, "marks": 90, "raw": about(4.0), "controlled": about(4.1),
               "per_log_length": 0.2} for axis in ("overall", HOSTILE) for name in NAMES]  # fmt: skip
    difference = {"value": -0.02, "low": -0.04, "high": -0.001, "p_value": 0.03}
    tasks = [{"policy": name, "task": "piqa", "title": HOSTILE, "metric": "accuracy", "unit": "%", "better": "higher",
              "k": 0, "n": 1838, "score": 0.71, "low": None, "high": None,
              "difference": difference if name != "sft" else None, "verdict": "worse"}
             for name in NAMES[:3]]  # fmt: skip
    text = [{"policy": name, "documents": 100, "bytes": 1_234_567, "bits_per_byte": about(1.1),
             "difference": None} for name in NAMES[:3]]  # fmt: skip
    examples = [{"id": f"p{n}", "query": HOSTILE + "\n" + "a long post " * 60, "texts": [
        {"policy": name, "text": HOSTILE, "scores": {"gold": 0.5, HOSTILE: None}, "ended": name != "ppo"}
        for name in NAMES]} for n in range(3)]  # fmt: skip
    return {
        "against": "sft", "judges": ["gold", HOSTILE], "temperature": 0.0, "kl_temperature": 1.0, "per_prompt": 1,
        "reference_policy": "sft", "source": "posts.jsonl", "project": "tldr", "released": False, "prompts": 100,
        "policies": policies, "wins": wins, "likert": likert, "left_out": {HOSTILE: 2}, "examples": examples,
        "tax": {"against": "sft", "tasks": tasks, "text": text, "skipped": [{"task": "arc", "reason": HOSTILE}]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("policies") / "policies.html"
    path.write_text(render("round 2", numbers()), encoding="utf-8")
    return path


def test_from_disk_it_is_shown_without_a_complaint_or_a_request(look, page_file):
    page = look(page_file.as_uri())
    assert page.title() == "round 2 · Rein"
    assert page.requests == [page_file.as_uri()]
    assert page.complaints == []
    assert page.evaluate("() => [...document.querySelectorAll('section')].map((one) => one.id)") == SECTIONS
    assert page.evaluate("() => getComputedStyle(document.querySelector('.strip')).width") == "132px"  # the style holds


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (390, "dark"), (1440, "dark"), (1440, "light")])
def test_no_width_scrolls_sideways_or_cuts_a_figure_off(look, page_file, width, theme):
    page = look(page_file.as_uri(), width=width, theme=theme)
    page.evaluate(OPEN_ALL)
    assert page.evaluate(FITS)
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(SMALLEST) >= (10.5 if width >= 390 else 9)
    assert theme_of(page) == theme


def test_hostile_text_is_shown_and_does_nothing(look, page_file):
    page = look(page_file.as_uri(), width=390)
    page.evaluate(OPEN_ALL)
    for section in ("wins", "scores", "marks", "tax", "answers"):
        assert SHOWN[:30] in page.locator(f"#{section}").text_content()
    assert page.locator("img, script, iframe").count() == 0
    assert page.complaints == []


def test_without_people_models_and_judges_there_is_nothing_empty(look, tmp_path):
    """A store alone: win rates, and no other section."""
    found = numbers() | {"judges": [], "policies": [], "likert": [], "tax": None, "examples": [], "source": ""}
    found["wins"] = [one for one in found["wins"] if one["by"] == "people"]
    path = tmp_path / "policies.html"
    path.write_text(render("people", found), encoding="utf-8")
    page = look(path.as_uri(), script=False)
    assert page.locator("section").count() == 1
    assert page.locator(".strip").count() == 14
