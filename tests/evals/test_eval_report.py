"""Reports of evaluations: every number as it was written, and nothing that a folder can break."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from evaluations import SMALL, changed, scores_of, write_contamination, write_evaluation

from rein.config import from_flags
from rein.errors import UserError
from rein.evals import published
from rein.evals.answering import Failed
from rein.evals.compare import compare
from rein.evals.data import Data
from rein.evals.evaluate import evaluate
from rein.evals.figures import Chart, shots_at
from rein.evals.language_model import Ours
from rein.evals.report import EvalReportConfig, report_command, write_report
from rein.evals.responses import Responses
from rein.evals.results import answers, load
from rein.evals.tasks.own import task_from_file
from rein.models.gpt import GPT, GPTConfig
from rein.report.charts import linear

HOSTILE = "</title></svg><script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp\x00\x1b &amp; ]]>"
SVG = "{http://www.w3.org/2000/svg}"


def text_of(page: Path) -> str:
    """What a person reads: the page without its tags, entities resolved."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_is_one_file_that_asks_for_nothing_and_runs_nothing(small, tmp_path):
    page = html.unescape(write_report([small], tmp_path).read_text("utf-8"))
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link rel=.stylesheet|iframe|object|img)\b", page)
    assert set(re.findall(r"(?:https?|file)://[^\s'\"<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<[^>]* (style|on\w+)=", page)  # the policy forbids both


def test_the_same_folders_give_the_same_files(small, medium, tmp_path):
    first, second = write_report([small, medium], tmp_path / "a"), write_report([small, medium], tmp_path / "b")
    files = sorted(path.relative_to(first.parent) for path in first.parent.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second.parent) for path in second.parent.rglob("*") if path.is_file())
    for name in files:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


def test_every_score_stands_on_the_page_with_its_interval_chance_and_the_papers_number(small, tmp_path):
    text = text_of(write_report([small], tmp_path))
    for entry in scores_of(small)["tasks"]:
        assert entry["title"] in text
        for row in entry["scores"]:
            value, low, high = (row[name] * (100 if entry["unit"] == "%" else 1) for name in ("value", "low", "high"))
            shape = ".1f" if entry["unit"] == "%" else ".4g"
            assert f" {value:{shape}} {low:{shape}} – {high:{shape}} " in text
            if row["published"]:
                assert f"{row['published']['value']:g} Brown 2020, Small" in text
    assert "chance 25.0" in text
    few = scores_of(small)["tasks"][0]["scores"][-1]
    assert few["effective_k_mean"] < few["k"] == 50
    assert f"50 {few['effective_k_mean']:.1f} fit, at least {few['effective_k_min']} " in text


def test_a_lower_perplexity_than_the_papers_is_a_better_one(small, tmp_path):
    def below(scores):
        row = scores["tasks"][-1]["scores"][0]
        row |= {"published": {"paper": "gpt3", "size": "175B", "value": 99.0, "note": ""}, "verdict": "below"}

    page = write_report([changed(small, tmp_path / "lower", below)], tmp_path / "out").read_text("utf-8")
    assert page.count('<span class="verdict better">below</span>') == 1


def test_a_model_of_another_size_than_the_papers_is_told_apart(tmp_path):
    near = write_evaluation(tmp_path / "near", tasks={"arc_easy": (20, 0.4, 0)}, shots=("zero",))
    far = write_evaluation(tmp_path / "far", tasks={"arc_easy": (20, 0.4, 0)}, shots=("zero",), n_params=3_200_000)
    assert "Worth knowing" not in text_of(write_report([near], near))
    assert "its Small with 125M parameters, but this model has 3.2M" in text_of(write_report([far], far))


def test_what_was_not_answered_is_named_with_its_reason(tmp_path):
    failed = tuple(Failed(f"row {at}", 0, "Its options are lost") for at in range(150))
    skipped = ({"task": "piqa", "reason": "No file of its test split."},)
    folder = write_evaluation(tmp_path / "a", tasks={"arc_easy": (20, 0.4, 0)}, failed=failed, skipped=skipped)
    text = text_of(write_report([folder], folder))
    assert "ARC-Easy : 150 problems" in text
    assert text.count("Its options are lost") == 20
    assert "And 130 more." in text
    assert "piqa: No file of its test split." in text


def test_right_and_wrong_answers_are_shown_behind_the_most_shots(small, tmp_path):
    page = write_report([small], tmp_path).read_text("utf-8")
    told = [said for said in answers(small) if said.task == "arc_easy" and said.k == 50]
    right = [said for said in told if said.value["accuracy"] == 1][:3]
    wrong = [said for said in told if said.value["accuracy"] == 0][:3]
    shown = page[page.index('id="answers"') :]
    arc = shown[shown.index("ARC-Easy") : shown.index("</details>")]
    assert re.findall(r'class="id" dir="auto">(.*?)<', arc) == [said.id for said in (*right, *wrong)]
    assert arc.count('<span class="mark right">') == arc.count('<span class="mark wrong">') == 3
    assert "PTB" not in re.findall(r"<summary><bdi>(.*?)<", shown)  # a text that was only scored


def test_of_several_models_the_same_problems_are_shown(small, medium, tmp_path):
    page = write_report([small, medium], tmp_path).read_text("utf-8")
    shown = page[page.index('id="answers"') :]
    for article in re.findall(r"<article.*?</article>", shown, flags=re.DOTALL):
        assert re.findall(r"<bdi>(small|medium)</bdi>", article) == ["small", "medium"]


def test_markup_in_titles_answers_names_and_ids_is_text(tmp_path):
    folder = write_evaluation(
        tmp_path / "bad", model=HOSTILE, tasks=SMALL, text=HOSTILE, failed=(Failed(HOSTILE, 1, HOSTILE),),
        skipped=({"task": HOSTILE, "reason": HOSTILE},),
    )  # fmt: skip
    write_contamination(folder)
    (folder / "config.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    page = write_report([folder], folder)
    source = page.read_text("utf-8")
    assert not re.search(r"<(script|img)\b", source)
    assert not re.search("[\x00\x1b\u202e]", source)
    shown = "</title></svg><script>alert(1)</script><img src=x onerror=alert(2)>⟨U+202E⟩gnp␀␛ &amp; ]]>"
    assert text_of(page).count(shown) > 10
    for figure in (folder / "figures").iterdir():
        assert ET.parse(figure).getroot().find(f".//{SVG}script") is None


def test_a_task_without_published_number_chance_or_answers_is_shown(small, tmp_path):
    def bare(scores):
        scores["protocol"] = "gpt2"
        for entry in scores["tasks"]:
            entry |= {"task": "my own/task", "chance": None}
            for row in entry["scores"]:
                row |= {"published": None, "verdict": "no number", "against_chance": None}

    folder = changed(small, tmp_path / "own", bare)
    for name in ("answers.jsonl", "config.json", "env.json"):
        (folder / name).unlink()
    text = text_of(write_report([folder], folder))
    assert "answers.jsonl is missing" in text
    assert "By number of shots" in text
    assert "By parameters" not in text
    assert (folder / "figures" / "shots-my_own_task.svg").exists()


def test_an_evaluation_without_any_task_says_so(small, tmp_path):
    folder = changed(small, tmp_path / "none", lambda scores: scores.update(tasks=[]))
    assert "No task could be evaluated." in text_of(write_report([folder], folder))
    assert len((folder / "scores.csv").read_text().splitlines()) == 1


# ----------------------------------------------------------------------------------------------------------- CSV


def test_the_csv_says_what_scores_json_says(tmp_path):
    a = write_evaluation(tmp_path / "a", tasks=SMALL, dev=True)
    b = write_evaluation(tmp_path / "b", model="runs/medium", n_params=354_823_168, tasks=SMALL)
    write_report([a, b], tmp_path / "out")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "scores.csv").read_text())))
    expected = [
        (found["model"], entry, row, split)
        for found in (scores_of(a), scores_of(b))
        for entry in found["tasks"]
        for rows, split in ((entry["scores"], entry["split"]), (entry["dev"], "dev"))
        for row in rows
    ]
    assert len(lines) == len(expected)
    assert any(entry["dev"] for _, entry, _, _ in expected)
    for line, (model, entry, row, split) in zip(lines, expected, strict=True):
        assert (line["model"], int(line["n_params"]), line["split"]) == (model["name"], model["n_params"], split)
        for name in ("task", "title", "metric", "unit", "better"):
            assert line[name] == entry[name]
        for name in ("value", "low", "high", "n", "effective_n", "k", "effective_k_mean", "minimum_detectable"):
            assert float(line[name]) == row[name]
        assert line["verdict"] == row["verdict"]
        theirs = row["published"] or {"size": "", "value": ""}
        assert (line["published_size"], line["published_value"]) == (theirs["size"], str(theirs["value"]))


# ------------------------------------------------------------------------------------------------------- figures


def drawn(path):
    """A figure read back: (class, [(x, y) in the units of its axes]) of dots, and the texts of its ticks."""
    root = ET.parse(path).getroot()
    texts = [text for text in root.iter(f"{SVG}text") if text.get("text-anchor")]
    x_ticks = [(float(t.get("x")), t.text) for t in texts if t.get("text-anchor") == "middle"]
    y_ticks = [
        (float(t.get("y")), float(t.text)) for t in texts if t.get("text-anchor") == "end" and t.get("dx") is None
    ]
    (y0, v0), (y1, v1) = y_ticks[0], y_ticks[-1]
    dots = []
    for group in list(root.iter(f"{SVG}g")):
        circles = [(float(c.get("cx")), float(c.get("cy"))) for c in group.findall(f"{SVG}circle")]
        if group.get("class") and len(circles) > 1:
            dots.append((group.get("class"), [(x, v0 + (y - y0) * (v1 - v0) / (y1 - y0)) for x, y in circles]))
    return dots, x_ticks


def test_a_curve_over_shots_lies_where_its_scores_are(small, tmp_path):
    write_report([small], tmp_path)
    rows = scores_of(small)["tasks"][0]["scores"]
    ((style, dots),), x_ticks = drawn(tmp_path / "figures" / "shots-arc_easy.svg")
    assert style == "c0 dots"
    assert [y for _, y in dots] == pytest.approx([100 * row["value"] for row in rows], abs=0.3)
    at = dict(zip([row["k"] for row in rows], [x for x, _ in dots], strict=True))
    assert [text for _, text in x_ticks] == ["0", "1", "2", "4", "8", "16", "50"]
    assert all(x == pytest.approx(at[int(text)], abs=0.11) for x, text in x_ticks)
    steps = np.diff([at[k] for k in (0, 1, 2, 4, 8, 16, 32)])
    assert steps == pytest.approx([steps[0]] * 6, abs=0.11)
    assert shots_at(32) - shots_at(16) == 1


def test_a_chart_over_parameters_has_the_papers_models_behind(small, medium, tmp_path):
    write_report([small, medium], tmp_path)
    dots, _ = drawn(tmp_path / "figures" / "sizes-arc_easy.svg")
    theirs = [points for style, points in dots if style == "c2 dots faint"]
    few = published.numbers("gpt3", "ARC-Easy", "accuracy", "few")
    assert [y for _, y in theirs[0]] == pytest.approx(list(few.values()), abs=0.3)
    assert len(theirs[0]) == 8
    ours = next(points for style, points in dots if style == "c2 dots")
    values = [scores_of(one)["tasks"][0]["scores"][-1]["value"] for one in (small, medium)]
    assert [y for _, y in ours] == pytest.approx([100 * value for value in values], abs=0.3)
    (x0, _), (x1, _) = theirs[0][0], theirs[0][-1]  # 125M and 175B
    per_factor = (x1 - x0) / math.log(175e9 / 125e6)
    assert ours[1][0] - ours[0][0] == pytest.approx(per_factor * math.log(354_823_168 / 124_439_808), abs=0.3)


def test_the_chosen_number_of_shots_is_marked_and_the_dev_curve_drawn(tmp_path):
    folder = write_evaluation(tmp_path / "a", tasks={"arc_easy": (60, 0.4, 0.01)}, shots=("few",), dev=True)
    write_report([folder], folder)
    source = (folder / "figures" / "shots-arc_easy.svg").read_text()
    assert "K chosen on the dev set" in source
    assert 'class="c0 line faint"' in source
    assert re.search(r'class="c0 rings"><circle', source)


def test_the_chosen_number_of_shots_is_few_shot_where_both_were_asked(tmp_path):
    folder = write_evaluation(tmp_path / "a", tasks={"arc_easy": (60, 0.4, 0.05)}, shots=("8", "few"))
    scores = scores_of(folder)
    scores["tasks"][0]["scores"][0]["setting"] = "chosen"
    (folder / "scores.json").write_text(json.dumps(scores))
    write_report([folder], folder)
    root = ET.parse(folder / "figures" / "sizes-arc_easy.svg").getroot()
    dots = [len(group) for group in root.iter(f"{SVG}g") if group.get("class") == "c2 dots"]
    assert dots == [1, 1]  # in the key, and in the figure
    assert f"few-shot {100 * scores['tasks'][0]['scores'][0]['value']:.1f}% of" in root.find(f"{SVG}title").text


def test_models_that_were_asked_behind_other_numbers_of_shots_alone_have_no_figure_over_parameters(tmp_path):
    folders = [
        write_evaluation(tmp_path / name, model=name, n_params=n, tasks={"arc_easy": (20, 0.4, 0)}, shots=("4",))
        for name, n in (("a", 10**8), ("b", 10**9))
    ]
    write_report(folders, tmp_path / "out")
    assert list((tmp_path / "out" / "figures").iterdir()) == []


def test_without_several_numbers_of_shots_there_is_no_curve(tmp_path):
    folder = write_evaluation(tmp_path / "a", tasks={"arc_easy": (20, 0.4, 0)}, shots=("zero",))
    write_report([folder], folder)
    assert [path.name for path in (folder / "figures").iterdir()] == ["sizes-arc_easy.svg"]


def test_figures_are_svg_files_of_their_own(small, medium, tmp_path):
    write_contamination(small)
    write_report([small, medium], tmp_path)
    (small / "contamination.json").unlink()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{kind}-{task}.svg" for kind in ("shots", "sizes") for task in ("arc_easy", "drop")} | {
        "sizes-ptb.svg", "clean.svg"
    }  # fmt: skip
    for path in (tmp_path / "figures").iterdir():
        root = ET.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        assert "var(" not in path.read_text()  # programs other than browsers do not know it
        assert len(root.find(f"{SVG}title").text) > 20


def test_intervals_without_an_end_are_left_out_of_figures(small, tmp_path):
    def endless(scores):
        scores["tasks"][0]["scores"][2] |= {"low": -math.inf, "high": math.inf, "minimum_detectable": math.inf}

    folder = changed(small, tmp_path / "endless", endless)
    write_report([folder], folder)
    bands = [ET.parse(one / "figures" / "shots-arc_easy.svg").getroot().find(f".//{SVG}g[@class='c0 band']/{SVG}path")
             for one in (folder, write_report([small], tmp_path / "whole").parent)]  # fmt: skip
    assert [band.get("d").count("L") for band in bands] == [13, 15]  # there and back, over 7 and 8 numbers of shots
    for path in (folder / "figures").iterdir():
        assert not re.search(r"\b(inf|nan)\b", path.read_text())


def test_of_names_in_each_others_way_the_first_is_shown():
    texts = [(50.0, 0.0, "first"), (51.0, 0.5, "behind it"), (50.0, 9.0, "above it"), (99.0, -9.0, "at the right edge")]
    chart = Chart("c", "C", "", "", linear(0, 100), linear(-10, 10), [], texts=texts)
    assert [(anchor, text) for _, _, anchor, text in chart.geometry()["texts"]] == [
        ("start", "first"), ("start", "above it"), ("end", "at the right ed…")
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- contamination


def test_clean_scores_stand_beside_all_with_table_c1(tmp_path):
    folder = write_evaluation(tmp_path / "a", tasks=SMALL)
    write_contamination(folder)
    page = write_report([folder], folder)
    text = text_of(page)
    assert "DROP Brown 2020: 7% clean, −21% 9 40 87.5% 2 3" in text
    assert "−3.0% −5.0 to −1.0" in text
    assert "−6.0% worse where clean" in text  # without an interval
    dots, _ = drawn(folder / "figures" / "clean.svg")
    assert [y for _, y in next(points for style, points in dots if style == "c0 dots")] == pytest.approx(
        [0, -3, -6], abs=0.3
    )


def test_without_scores_of_the_clean_there_is_a_table_and_no_figure(tmp_path):
    folder = write_evaluation(tmp_path / "a", tasks=SMALL)
    write_contamination(folder)
    found = json.loads((folder / "contamination.json").read_text())
    for one in found["tasks"]:
        one["scores"] = []
    (folder / "contamination.json").write_text(json.dumps(found))
    assert "Clean against all" in text_of(write_report([folder], folder))
    assert not (folder / "figures" / "clean.svg").exists()


# ------------------------------------------------------------------------------------------------- what is wrong


def test_a_folder_that_is_no_evaluation_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        write_report([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(UserError, match=r"has no scores\.json"):
        write_report([tmp_path], tmp_path)
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        write_report([tmp_path], tmp_path)
    (tmp_path / "scores.json").write_text('{"format": "rein-eval-0"}')
    with pytest.raises(UserError, match="'rein-eval-0'"):
        write_report([tmp_path], tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("part", ["title", "scores", "chance"])
def test_a_damaged_file_is_named(small, tmp_path, part):
    folder = changed(small, tmp_path / "damaged", lambda scores: scores["tasks"][0].pop(part))
    with pytest.raises(UserError, match=rf"scores\.json is damaged.*{part}"):
        write_report([folder], folder)


def test_damaged_answers_and_overlaps_are_named(small, tmp_path):
    folder = changed(small, tmp_path / "damaged", lambda scores: None)
    (folder / "contamination.json").write_text('{"tasks": [{}]}')
    with pytest.raises(UserError, match=r"contamination\.json is damaged"):
        write_report([folder], folder)
    (folder / "contamination.json").unlink()
    (folder / "answers.jsonl").write_text('{"task": "arc_easy"}\n')
    with pytest.raises(UserError, match="a line without 'split'"):
        write_report([folder], folder)


def test_models_are_named_by_what_tells_them_apart(small, medium, tmp_path):
    assert [one.name for one in load([small])] == ["runs/small"]
    assert [one.name for one in load([small, medium])] == ["small", "medium"]
    again = changed(small, tmp_path / "again", lambda scores: None)
    assert [one.name for one in load([small, again])] == ["small-gpt3", "again"]
    with pytest.raises(UserError, match="is named twice"):
        load([small, small])


def test_the_command_writes_into_the_folder_or_where_it_is_told(small, medium, tmp_path, capsys):
    folder = changed(small, tmp_path / "one", lambda scores: None)
    report_command(from_flags(EvalReportConfig, [str(folder)], prog="rein eval report"))
    assert capsys.readouterr().out == f"{folder}/report.html\n"
    out = tmp_path / "new" / "both"
    report_command(from_flags(EvalReportConfig, [str(small), str(medium), "--out", str(out)], prog="rein eval report"))
    assert {path.name for path in out.iterdir()} == {"report.html", "scores.csv", "figures"}
    with pytest.raises(UserError, match="--out does not say where"):
        report_command(EvalReportConfig((small, medium)))
    with pytest.raises(UserError, match="needs a folder"):
        report_command(EvalReportConfig(()))


# ---------------------------------------------------------------------------------- with a model, from the start


def test_what_an_evaluation_writes_can_be_reported_and_compared(tmp_path, tokenizer):
    sums = [
        {"context": f"{a} + {b} =", "choices": [str(a + b), str(a + b + 1)], "gold": 0}
        for a in range(5)
        for b in range(4)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(one) + "\n" for one in sums))
    (tmp_path / "sums.train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in sums))
    folders = []
    for seed in range(2):
        config = GPTConfig(tokenizer.n_vocab, n_ctx=128, n_embd=16, n_head=2, n_layer=1)
        model = Ours(GPT(config).initialise(seed).eval(), tokenizer, name=f"runs/{seed}")
        folders.append(tmp_path / f"out{seed}")
        folders[-1].mkdir()
        with Responses(tmp_path / f"{seed}.sqlite") as kept:
            evaluate(
                model, [task_from_file(tmp_path / "sums.jsonl")], data=Data(), responses=kept, out=folders[-1],
                shots=("0", "2"),
            )  # fmt: skip
    text = text_of(write_report(folders, tmp_path / "report"))
    assert "0 · 1" in text
    assert "0 + 0 =" in text
    (found,), _ = compare(load(folders))
    assert (found.k, found.difference.n, found.left_out) == (2, 20, 0)
