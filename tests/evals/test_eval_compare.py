"""Comparisons of evaluations: the paired test of the same problems, corrected for all that is told."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from evaluations import changed, scores_of, write_evaluation

from rein.cli import main
from rein.errors import UserError
from rein.evals.compare import CompareEvalsConfig, compare, compare_command
from rein.evals.results import answers, load
from rein.evals.statistics import paired


def values_of(folder, task, k, metric):
    return {said.id: said.value[metric] for said in answers(folder) if (said.task, said.k) == (task, k)}


def rewritten(folder, to, change):
    """A copy of an evaluation with other lines of answers; `change` takes them all."""
    changed(folder, to, lambda scores: None)
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    (to / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    return to


def test_a_comparison_is_the_paired_test_of_the_same_problems(small, medium):
    found, left_out = compare(load([small, medium]))
    assert left_out == []
    by_task = {one.task: one for one in found}
    assert list(by_task) == ["arc_easy", "drop", "ptb"]
    a, b = (values_of(folder, "arc_easy", 50, "accuracy") for folder in (small, medium))
    assert by_task["arc_easy"].difference == paired([b[id] for id in a], list(a.values()))
    assert by_task["arc_easy"].score == np.mean(list(b.values()))
    passages = {said.id: said.passage for said in answers(small) if said.task == "drop"}
    a, b = (values_of(folder, "drop", 20, "f1_drop") for folder in (small, medium))
    assert by_task["drop"].difference == paired([b[id] for id in a], list(a.values()), [passages[id] for id in a])


def test_the_order_of_answers_never_matters(small, medium, tmp_path):
    def shuffled(lines):
        random.Random(1).shuffle(lines)
        return lines

    other = rewritten(medium, tmp_path / "medium", shuffled)
    for one, same in zip(compare(load([small, medium]))[0][:1], compare(load([small, other]))[0][:1], strict=True):
        assert one.difference.value == pytest.approx(same.difference.value)
        assert one.difference.p_value == pytest.approx(same.difference.p_value)


def test_only_what_both_answered_is_compared(small, medium, tmp_path):
    other = rewritten(medium, tmp_path / "part", lambda lines: [x for x in lines if not x["id"].endswith(("3", "7"))])
    one = next(one for one in compare(load([small, other]))[0] if one.task == "arc_easy")
    kept = [id for id in values_of(medium, "arc_easy", 50, "accuracy") if not id.endswith(("3", "7"))]
    a, b = (values_of(folder, "arc_easy", 50, "accuracy") for folder in (small, medium))
    assert (one.difference.n, one.left_out) == (48, 12)
    assert one.difference == paired([b[id] for id in kept], [a[id] for id in kept])


def test_p_is_corrected_for_all_rows_of_the_table(small, medium):
    found, _ = compare(load([small, medium]), shots=("all",))
    assert len(found) == 8 + 7 + 1
    plain = sorted(one.difference.p_value for one in found)
    corrected = {p: max(min(1, (len(plain) - j) * plain[j]) for j in range(i + 1)) for i, p in enumerate(plain)}
    for one in found:
        assert one.p_holm == pytest.approx(corrected[one.difference.p_value])
        assert (one.verdict == "no difference shown") == (one.p_holm >= 0.05)
    assert {one.verdict for one in found} == {"better", "no difference shown"}


def test_a_score_of_all_answers_is_compared_by_its_counts(small, medium, tmp_path):
    one = next(one for one in compare(load([small, medium]))[0] if one.task == "ptb")
    nats = [[-said.logprobs[0] for said in answers(folder) if said.task == "ptb"] for folder in (medium, small)]
    mine, theirs = (math.exp(sum(each) / (600 * len(each))) for each in nats)
    assert one.difference.value == pytest.approx(mine - theirs)
    assert (one.score, one.score_first) == (pytest.approx(mine), pytest.approx(theirs))
    without = rewritten(medium, tmp_path / "old", lambda lines: [{**line, "counts": {}} for line in lines])
    found, left_out = compare(load([small, without]))
    assert [one.task for one in found] == ["arc_easy", "drop"]
    assert left_out[0]["task"] == "ptb"
    assert "has no perplexity" in left_out[0]["reason"]


def test_of_a_lower_score_the_model_is_better(small, medium):
    one = next(one for one in compare(load([small, medium]), tasks=["ptb"])[0])
    assert one.difference.value < 0
    assert one.verdict == "better"
    assert compare(load([medium, small]), tasks=["ptb"])[0][0].verdict == "worse"


def test_answers_to_one_question_count_once(tmp_path):
    def grouped(lines):
        for line in lines:
            line["question"] = f"q{int(line['id'].rpartition('/')[2]) // 3}"
            line["value"] = {"multirc_accuracy": line["value"]["accuracy"]}
        return lines

    folders = []
    for at in range(2):
        folder = write_evaluation(tmp_path / f"plain{at}", tasks={"arc_easy": (30, 0.7, 0)}, shots=("zero",), seed=at)
        scores = scores_of(folder)
        scores["tasks"][0]["metric"] = "multirc_accuracy"
        folder = rewritten(folder, tmp_path / f"multirc{at}", grouped)
        (folder / "scores.json").write_text(json.dumps(scores))
        folders.append(folder)
    one = compare(load(folders))[0][0]
    sides = [np.array([said.value["multirc_accuracy"] for said in answers(folder)]) for folder in folders]
    all_right = [side.reshape(10, 3).min(axis=1) for side in sides]
    assert one.difference == paired(all_right[1], all_right[0])


def test_models_that_chose_different_k_are_compared_at_their_own(tmp_path):
    tasks = {"arc_easy": (40, 0.4, 0.02)}
    a = write_evaluation(tmp_path / "a", tasks=tasks, shots=("zero", "4"))
    b = write_evaluation(tmp_path / "b", model="b", tasks=tasks, shots=("zero", "8"), seed=1)
    for folder, k in ((a, 4), (b, 8)):
        scores = scores_of(folder)
        scores["tasks"][0]["chosen_k"] = k
        (folder / "scores.json").write_text(json.dumps(scores))
    one = compare(load([a, b]))[0][0]
    assert (one.k, one.k_first) == (8, 4)
    mine, theirs = values_of(b, "arc_easy", 8, "accuracy"), values_of(a, "arc_easy", 4, "accuracy")
    assert one.difference == paired(list(mine.values()), [theirs[id] for id in mine])


def test_answers_of_the_dev_split_are_not_compared(small, medium, tmp_path):
    def with_dev(lines):
        return lines + [
            {**line, "split": "dev", "value": {"accuracy": 0.0}} for line in lines if line["task"] == "arc_easy"
        ]

    other = rewritten(medium, tmp_path / "dev", with_dev)
    assert compare(load([small, other]), tasks=["arc_easy"])[0][0].difference == (
        compare(load([small, medium]), tasks=["arc_easy"])[0][0].difference
    )


def test_the_command_prints_a_table_or_json(small, medium, capsys):
    assert main(["eval", "compare", str(small), str(medium), "--tasks", "arc_easy", "--shots", "0", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "medium against small"
    assert [line.split()[:4] for line in lines[2:]] == [["arc_easy", "accuracy", k, "60"] for k in ("0", "50")]
    compare_command(CompareEvalsConfig((small, medium), json=True))
    found = json.loads(capsys.readouterr().out)
    assert [one["task"] for one in found["comparisons"]] == ["arc_easy", "drop", "ptb"]
    assert set(found["comparisons"][0]["difference"]) >= {"value", "low", "high", "p_value", "minimum_detectable"}


def test_what_cannot_be_compared_is_refused(small, medium, tmp_path, capsys):
    with pytest.raises(UserError, match="needs two evaluations, but 1"):
        compare_command(CompareEvalsConfig((small,)))
    with pytest.raises(UserError, match="Did you mean arc_easy"):
        compare_command(CompareEvalsConfig((small, medium), tasks=("arc_eesy",)))
    with pytest.raises(UserError, match="--shots has 'few'"):
        compare_command(CompareEvalsConfig((small, medium), shots=("few",)))
    other = changed(medium, tmp_path / "gpt2", lambda scores: scores.update(protocol="gpt2"))
    with pytest.raises(UserError, match="protocol gpt2, version 1, but small by gpt3"):
        compare_command(CompareEvalsConfig((small, other)))
    none = write_evaluation(tmp_path / "piqa", model="b", tasks={"piqa": (10, 0.6, 0)})
    with pytest.raises(UserError, match="nothing to compare"):
        compare_command(CompareEvalsConfig((small, none)))
    assert "piqa: only one was asked it" in capsys.readouterr().out
