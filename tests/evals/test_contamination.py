"""`rein eval contamination`: an evaluation, or tasks alone, against the training text."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from overlap_texts import LONG, OTHER, filler

from rein.errors import UserError
from rein.evals import training_text as training_text_module
from rein.evals.contamination import Asked, ContaminationConfig, contamination_command, read_answers
from rein.evals.overlap import Example

# --------------------------------------------------------------------------------------------------- the command


def answer(task: str, id: str, k: int, value: float, parts: dict, split: str = "test", **more) -> dict:
    return {
        "task": task, "split": split, "id": id, "k": k, "effective_k": k, "draw": None, "passage": "", "question": "",
        "value": {"accuracy": value}, "choice": 0, "gold": 0, "text": None, "answers": [], "logprobs": [],
        "prompt": parts.get("question", "")[-500:], "options": ["yes"], "parts": parts, **more,
    }  # fmt: skip


def evaluation(folder: Path, lines: list[dict], scored: dict[str, tuple[str, int]]) -> Path:
    """What `rein eval` leaves of these answers; of scores.json, what is read here."""
    folder.mkdir(exist_ok=True)
    (folder / "answers.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    rest = {
        "title": "PIQA", "metric": "accuracy", "unit": "%", "better": "higher", "failed": [], "failed_count": 0,
        "chance": 0.5, "paper_k": 50, "chosen_k": None, "dev": [], "scores": [],
    }  # fmt: skip
    scores = {
        "format": "rein-eval-1", "protocol": "gpt3", "protocol_version": 1, "skipped": [],
        "model": {"name": "first", "n_params": 1, "fingerprint": "f"},
        "tasks": [{"task": task, "split": split, "problems": n, **rest} for task, (split, n) in scored.items()],
    }  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def evaluated(tmp_path) -> Path:
    """20 problems behind 0 and 1 shots, half of them in the training text and right; and two of the dev set."""
    lines = [
        answer("piqa", f"p{at}", k, float(at < 10 or at > 14), {"question": filler(20, at)}, "dev")
        for k in (0, 1)
        for at in range(20)
    ]
    lines += [answer("piqa", f"t{at}", 0, 1.0, {"question": LONG}, "test") for at in range(2)]
    return evaluation(tmp_path / "eval", lines, {"piqa": ("dev", 20)})


@pytest.fixture
def training_text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for at in range(10):
        (folder / f"{at}.txt").write_text(f"{filler(50, 50 + at)} {filler(20, at)}")
    return folder


def test_an_evaluation_gets_its_clean_scores_beside_it(evaluated, training_text, capsys):
    contamination_command(ContaminationConfig(evaluated, (training_text,), workers=1))
    result = json.loads((evaluated / "contamination.json").read_text())
    (entry,) = result["tasks"]
    expected = {"task": "piqa", "split": "dev", "n": 13, "examples": 20, "clean": 10, "question_or_answer": 10}
    assert {name: entry[name] for name in expected} == expected
    assert entry["published"] == {"n": 8, "examples": 1838, "clean": 0.71, "relative_change": -0.04}
    assert [score["k"] for score in entry["scores"]] == [0, 1]
    for score in entry["scores"]:
        assert [score[kind]["value"] for kind in ("all", "dirty", "clean")] == [0.75, 1.0, 0.5]
        assert score["verdict"] == "worse where clean"
    printed = capsys.readouterr().out
    assert "10 documents of training text" in printed
    assert re.search(r"piqa +13 +20 +50\.0% +71\.0% +0 +10 +accuracy +0 +75\.0 +100\.0 +50\.0 +-33\.3%", printed)
    assert not (evaluated / "contamination-work").exists()


def test_the_table_for_programs_says_what_the_json_says(evaluated, training_text):
    contamination_command(ContaminationConfig(evaluated, (training_text,), workers=1))
    (entry,) = json.loads((evaluated / "contamination.json").read_text())["tasks"]
    with (evaluated / "contamination.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(entry["scores"])
    for row, score in zip(table, entry["scores"], strict=True):
        assert (row["task"], int(row["k"]), row["verdict"]) == ("piqa", score["k"], score["verdict"])
        assert float(row["clean_score"]) == score["clean"]["value"]
        assert float(row["dirty_high"]) == score["dirty"]["high"]
        assert float(row["change_low"]) == score["change"]["low"]
        assert float(row["paper_clean_frac"]) == 0.71


def test_every_dirty_example_is_named_with_its_grams_and_a_document(evaluated, training_text):
    contamination_command(ContaminationConfig(evaluated, (training_text,), workers=1))
    lines = [json.loads(line) for line in (evaluated / "contaminated.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"p{at}" for at in range(10)]
    assert lines[3]["most_common"][0]["document"] == "3.txt"
    assert lines[3]["most_common"][0]["documents"] == 1
    assert (lines[3]["grams_found"], lines[3]["grams"]) == (8, 8)


def test_another_split_and_some_shots_can_be_asked_for(evaluated, training_text, capsys):
    config = ContaminationConfig(evaluated, (training_text,), split="test", workers=1, json=True)
    contamination_command(config)
    (entry,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (entry["split"], entry["examples"], entry["clean"]) == ("test", 2, 2)
    contamination_command(ContaminationConfig(evaluated, (training_text,), shots=(1,), workers=1, json=True))
    (entry,) = json.loads(capsys.readouterr().out)["tasks"]
    assert [score["k"] for score in entry["scores"]] == [1]


def test_a_metric_that_the_answers_do_not_say_enough_for_is_named(tmp_path, training_text, capsys):
    lines = [{**answer("piqa", "1", 0, 1.0, {"question": filler(20)}), "value": {}}]
    contamination_command(
        ContaminationConfig(evaluation(tmp_path / "e", lines, {"piqa": ("test", 1)}), (training_text,))
    )
    assert "piqa: no comparison by accuracy" in capsys.readouterr().out


def test_answers_of_one_question_are_one_example():
    one = Asked("dev")
    for _ in range(2):  # behind two numbers of shots
        for at, right in enumerate(("the net", "a boat")):
            assert one.add(f"0/0/{at}", "0/0", {"passage": LONG, "question": "What?", "answer": right}, 0) == 0
    assert one.add("0/1/0", "0/1", {"passage": LONG, "question": "Who?", "answer": "they"}, 0) == 1
    assert one.examples == [Example(LONG, "What?", "the net\na boat"), Example(LONG, "Who?", "they")]
    assert one.ids == ["0/0", "0/1"]


def test_an_id_that_comes_twice_with_another_text_is_another_example():
    one = Asked("dev")
    assert [one.add("7", "", {"question": text}, 0) for text in (LONG, OTHER, LONG)] == [0, 1, 0]


def test_tasks_without_an_evaluation_say_how_clean_they_are(tmp_path, training_text, monkeypatch, capsys):
    data = tmp_path / "sets"
    data.mkdir()
    lines = [{"context": filler(20, at), "answer": "yes"} for at in range(5, 15)]
    (data / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    contamination_command(ContaminationConfig(corpus=(training_text,), tasks=("sets/own.jsonl", "piqa"), workers=1))
    (entry,) = json.loads(Path("contamination/contamination.json").read_text())["tasks"]
    assert (entry["examples"], entry["clean"], entry["scores"]) == (10, 5, [])
    printed = capsys.readouterr().out
    assert "50.0%" in printed
    assert "piqa: " in printed


# ------------------------------------------------------------------------------------------------------ mistakes


def refused(config: ContaminationConfig) -> str:
    with pytest.raises(UserError) as caught:
        contamination_command(config)
    return str(caught.value)


def test_a_folder_without_text_is_refused(tmp_path, evaluated):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "image.png").write_bytes(b"\x89PNG")
    assert f"{empty} holds no text" in refused(ContaminationConfig(evaluated, (empty,)))
    assert "does not exist" in refused(ContaminationConfig(evaluated, (tmp_path / "nowhere",)))


def test_a_text_file_that_is_too_large_to_be_one_document_is_named(evaluated, training_text, monkeypatch):
    monkeypatch.setattr(training_text_module, "MAX_DOCUMENT_BYTES", 100)
    assert "0.txt is larger than 1 GiB" in refused(ContaminationConfig(evaluated, (training_text,)))


def test_a_corpus_of_which_nothing_can_be_read_makes_no_task_clean(tmp_path, evaluated):
    (tmp_path / "a.jsonl").write_text("no json\nat all\n")
    assert "not JSON: 2" in refused(ContaminationConfig(evaluated, (tmp_path / "a.jsonl",)))
    assert not (evaluated / "contamination.json").exists()


def test_a_text_field_that_is_missing_is_named(tmp_path, evaluated):
    (tmp_path / "a.jsonl").write_text('{"body": "some text"}\n')
    assert "--text-field" in refused(ContaminationConfig(evaluated, (tmp_path / "a.jsonl",)))
    contamination_command(ContaminationConfig(evaluated, (tmp_path / "a.jsonl",), text_field="body", workers=1))


def test_answers_that_are_cut_short_are_refused(evaluated, training_text):
    path = evaluated / "answers.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[: len(b"".join(lines[:5])) + 40])
    assert f"{path}:6 is no JSON" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.write_bytes(b"".join(lines[:5]))
    assert "5 of the 20 problems of piqa" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.write_bytes(b'{"task": "piqa"}\n')
    assert "a line without 'split'" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.write_bytes('{"task": "é'.encode()[:-1])
    assert "is no JSON" in refused(ContaminationConfig(evaluated, (training_text,)))
    path.unlink()
    assert "not finished" in refused(ContaminationConfig(evaluated, (training_text,)))


def test_what_is_no_evaluation_is_refused(tmp_path, training_text, evaluated):
    assert "has no scores.json" in refused(ContaminationConfig(tmp_path, (training_text,)))
    (evaluated / "scores.json").write_text("[]")
    assert "has format" in refused(ContaminationConfig(evaluated, (training_text,)))


def test_settings_that_ask_for_nothing_are_refused(evaluated, training_text):
    assert "--corpus" in refused(ContaminationConfig(evaluated))
    assert "--tasks" in refused(ContaminationConfig(corpus=(training_text,)))
    assert "No task has files" in refused(ContaminationConfig(corpus=(training_text,), tasks=("piqa",)))
    assert "Did you mean piqa?" in refused(ContaminationConfig(evaluated, (training_text,), tasks=("pipa",)))
    assert "--workers" in refused(ContaminationConfig(evaluated, (training_text,), workers=0))
    assert "no answer of the split train" in refused(ContaminationConfig(evaluated, (training_text,), split="train"))


def test_tasks_of_an_evaluation_can_be_chosen(evaluated):
    assert read_answers(evaluated, tasks=["piqa"]).keys() == {"piqa"}
