"""The timeline: what the page shows of rounds that are done, begun, or strange."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from rein.errors import UserError
from rein.loop.stages import DONE, Stage, run
from rein.loop.timeline import STAGES, as_text, charts, read_rounds, render, write_timeline

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


def number(value, low=None, high=None):
    return {"value": value, "low": value - 0.1 if low is None else low, "high": value + 0.1 if high is None else high,
            "n": 40}  # fmt: skip


COLLECT = {
    "answers": 48, "items": 40, "labelers": 5, "groups": {"initial:ref": 30, "initial:round-01": 18}, "ties": 2,
    "agreement": number(0.72), "drift": {"raw": number(0.31), "controlled": number(0.33)},
}  # fmt: skip
REWARD = {"accuracy": number(0.68), "length_accuracy": number(0.55), "at_equal_length": number(0.66),
          "train": {"pairs": 40}}  # fmt: skip
EVALUATION = {
    "prompts": 20, "kl_nats": number(3.2), "reward": {"gained": number(0.9)},
    "gold": {"initial": number(-0.5), "policy": number(0.4), "gained": number(0.9), "references": number(1.1)},
    "over_initial": {"raw": number(0.7), "controlled": number(0.66)},
    "over_references": {"raw": number(0.4), "controlled": number(0.41)},
    "findings": ["Responses became longer than the start's."],
    "samples": [{"prompt": HOSTILE, "initial": HOSTILE, "policy": "Better.", "reference": None}],
}  # fmt: skip
MADE = {
    "draw": ("items.jsonl", {}), "collect": ("summary.json", COLLECT), "judgements": ("judgements.jsonl", {}),
    "reward": ("summary.json", REWARD),
    "policy": ("summary.json", {"policy": "run", "stopped": "Stopped at the peak."}),
    "evaluate": ("evaluation.json", EVALUATION),
}  # fmt: skip


def make(out, number, stages=STAGES):
    for name in stages:
        file, value = MADE[name]

        def fill(folder, file=file, value=value):
            (folder / file).write_text(json.dumps(value))

        run(out / f"round-{number:02d}" / name, Stage(name, {}, {}, fill, (file,)))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"rounds": 3, "policy": "runs/sft", "store": ""}))
    make(tmp_path, 1)
    make(tmp_path, 2, STAGES[:2])
    (tmp_path / "round-notes").mkdir()
    return tmp_path


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_rounds_are_read_as_far_as_they_are(out):
    first, second = read_rounds(out)
    assert (first.number, first.state) == (1, "done")
    assert (second.number, second.state) == (2, "next: judgements put together")
    assert second.of("collect", "answers") == 48
    assert second.of("evaluation", "kl_nats") is None


def test_the_table_has_a_line_for_each_round_and_no_column_of_nothing(out):
    head, first, second = as_text(read_rounds(out))
    assert "70.0% (60.0% to 80.0%)" in first
    assert "+0.90 (+0.80 to +1.00)" in first
    assert second.endswith("next: judgements put together")
    assert "gold gained" in head
    for folder in ("round-01/evaluate", "round-01/reward"):
        for path in (out / folder).iterdir():
            path.unlink()
    assert "gold gained" not in as_text(read_rounds(out))[0]


def test_a_perfect_model_stands_beside_the_labelers_who_agree(out):
    """Two who are right q of the time agree q² + (1 − q)²: 0.72 is a q of 0.832."""
    first, second = read_rounds(out)
    assert second.of("collect", "perfect")["value"] == pytest.approx((1 + 0.44**0.5) / 2)
    judges = next(chart for chart in charts([first, second]) if chart.name == "judges")
    assert "a perfect model, if each labeler errs alone: 0.832 in round 1, 0.832 in round 2" in judges.said
    page = Page(render(out)).text
    assert "labelers agree on 72.0%, a perfect model with them on 83.2%" in page
    assert "83.2% (74.5% to 90.0%)" in page
    collected = out / "round-01" / "collect" / "summary.json"
    collected.write_text(json.dumps({**COLLECT, "agreement": None}))
    assert "a perfect model with" not in Page(render(out)).text


def test_the_page_is_one_file_that_asks_for_nothing_and_believes_nothing(out):
    text = write_timeline(out).read_text(encoding="utf-8")
    assert text == render(out)  # to the byte
    page = Page(text)
    assert not [tag for tag, attrs in page.tags if tag in ("script", "img", "iframe", "object") or "src" in attrs]
    assert not [attrs for tag, attrs in page.tags if tag == "link" and not attrs.get("href", "").startswith("data:")]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "alert(1)" in page.text
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_the_page_shows_every_number_with_its_interval(out):
    text = re.sub(r"\s+", " ", Page(render(out)).text)
    for said in ("72.0% (62.0% to 82.0%)", "68.0% (58.0% to 78.0%)", "31.0% (21.0% to 41.0%)", "3.20 (3.10 to 3.30)",
                 "66.0% (56.0% to 76.0%)", "Stopped at the peak.", "Responses became longer", "initial:ref 30",
                 "1 of 3 rounds done"):  # fmt: skip
        assert said in text, said


def test_charts_are_of_what_is_known(out):
    assert [one.name for one in charts(read_rounds(out))] == ["judges", "wins", "drift", "gold", "kl"]
    assert charts([]) == []
    judges = charts(read_rounds(out))[0]
    assert "labelers with each other: 0.72 in round 1, 0.72 in round 2" in judges.said
    assert judges.level == (0.5, "chance")


def test_a_loop_that_has_just_begun_has_a_page(tmp_path):
    assert "No round was begun yet." in render(tmp_path)
    assert as_text([]) == ["round  state"]


def test_a_damaged_record_is_named(out):
    (out / "round-01/collect/summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        read_rounds(out)


def test_a_day_is_said_once_and_answers_of_people_are_counted(out):
    times = {"draw": "2026-11-28T23:58:00+0000", "collect": "2026-11-29T08:01:00+0000",
             "judgements": "2026-11-29T08:02:00+0000", "reward": "", "policy": "soon"}  # fmt: skip
    for name in STAGES[:5]:
        path = out / "round-01" / name / DONE
        path.write_text(json.dumps({**json.loads(path.read_text()), "finished": times[name]}))
    (out / "round-02/collect/summary.json").write_text(json.dumps({**COLLECT, "by_people": 7}))
    text = re.sub(r"\s+", " ", Page(render(out)).text)
    for said in ("items drawn, 28 November 2026, 23:58 UTC", "answers collected, 29 November 2026, 08:01 UTC",
                 "judgements put together, 08:02 UTC", "policy trained, soon"):  # fmt: skip
        assert said in text, said
    assert "reward model trained," not in text
    assert text.count("Of them by people") == 1  # none in the first round
    assert "Of them by people7" in text
