"""The section of reward against KL: it draws what was measured, on a page that may do nothing."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.report.over_optimisation import section

USUAL = st.floats(-20, 20)
STRANGE = st.sampled_from([None, math.nan, math.inf, 0, 0.0, True, 1e9, -1e9, 1e300, 1e-300, "x"])
NUMBER = st.integers(0, 9).flatmap(lambda n: USUAL if n else STRANGE)
VOID = {"br", "meta", "link", "input"}


def rows(n=30, reach=6.0, gold="heldout_gold", noise=0.02):
    rng = np.random.default_rng(0)
    d = np.linspace(0, reach, n)
    truth = d * (1 - 0.5 * np.log(np.maximum(d, 1e-9))) + noise * rng.normal(size=n)
    return [
        {"opt_step": i, "episodes": 512 * i, "heldout_kl_nats": float(d[i] ** 2), "heldout_proxy": float(d[i]),
         gold: float(truth[i]), f"{gold}_stderr": 0.05}
        for i in range(n)
    ]  # fmt: skip


class Strict(HTMLParser):
    """Fails where an element is not closed in its turn; keeps the coordinates of circles and the text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.circles, self.text = [], [], ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert not any(name == "style" or name.startswith("on") for name, _ in attrs)
        assert tag not in ("script", "style", "img", "iframe")
        if tag == "circle":
            self.circles.append(tuple(float(dict(attrs)[key]) for key in ("cx", "cy")))
        elif tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag != "circle" and tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_each_evaluation_is_a_dot_of_each_score_and_a_row_of_the_table():
    page = section(rows(30))
    found = Strict(page)
    assert len(found.circles) == 30 * 3  # reward, gold score, KL
    assert page.count("<tr>") == 31
    assert all(0 <= x <= 480 and 0 <= y <= 226 for x, y in found.circles)


def test_it_says_where_the_peak_is_and_that_it_is_behind():
    page = section(rows(30))
    said = re.search(
        r"highest, ([\d.]+), at a KL of ([\d.]+) nats \(95% interval ([\d.]+) to ([\d.]+)\). "
        r"The last evaluation is at 36: the peak is behind.",
        page,
    )
    truth, kl, low, high = map(float, said.groups())
    assert low < kl < high
    assert kl == pytest.approx(math.exp(2), rel=0.1)
    assert truth == pytest.approx(math.e / 2, rel=0.05)
    assert "R(d) = d (a − b log d)" in page
    assert ">peak</text>" in page


def test_before_the_peak_it_is_to_come():
    assert "the peak is to come" in section(rows(30, reach=1.6, noise=0.001))


def test_a_rise_has_no_peak_and_few_evaluations_no_curve():
    rising = [row | {"heldout_gold": row["heldout_kl_nats"]} for row in rows(20)]
    assert "no peak is predicted" in section(rising)
    few = section(rows(5))
    assert "too few evaluations yet" in few
    assert "Lines are" not in few
    assert "fitted</span>" not in few


def test_the_gold_score_goes_before_the_held_out_reward():
    both = [{**row, "heldout_second": 9.0} for row in rows(10)]
    assert "Reward and gold score" in section(both)
    assert "Reward and held-out reward" in section(rows(10, gold="heldout_second"))


def test_the_best_evaluation_is_marked():
    page = section(rows(12))
    best = max(rows(12), key=lambda row: row["heldout_gold"])["heldout_gold"]
    assert f"<b>{best:.4g}</b>" in page
    assert page.count("<b>") == 1


def test_the_law_of_best_of_n_is_named_where_it_is_asked_for():
    assert "R(d) = d (a − b d)" in section(rows(12), law="bon")


def test_without_three_evaluations_there_is_no_section():
    assert section([]) == section(rows(2)) == ""
    assert section([{"opt_step": 1, "train_loss": 1.0}] * 9) == ""


ROW = st.fixed_dictionaries(
    {name: NUMBER for name in ("heldout_kl_nats", "heldout_proxy", "heldout_gold")},
    optional={"episodes": NUMBER, "heldout_gold_stderr": NUMBER},
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=14))
def test_any_rows_give_a_page_or_nothing(some):
    Strict(section(some))


def test_the_same_rows_give_the_same_bytes():
    assert section(rows(20)) == section(rows(20))
