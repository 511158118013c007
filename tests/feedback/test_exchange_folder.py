"""The folder that Hugging Face's datasets loads, and its card."""

import dataclasses
import json

import pytest
import yaml
from desks import PLAIN, Desk, new_item
from exchanging import SECRET, Exchange, comparison

from rein.errors import UserError
from rein.feedback.exchange.exporting import export_file, open_export
from rein.feedback.exchange.folder import CONFIGS
from rein.feedback.project import PRESETS, Question


@pytest.fixture
def dialect():
    return "sqlite"


@pytest.fixture
def folder(store, tmp_path):
    """An export of ratings, rankings, demonstrations and a tie, in two splits."""
    instruct = PRESETS["instructgpt"].questions
    questions = (*instruct, Question("better", "demonstration"))
    splits = ["train", "train", "valid 1"]
    desk = Desk(
        store, dataclasses.replace(PLAIN, title='Replies: "good" ones', questions=questions, staged=False),
        people=("ann",), items=[new_item(f"p{n}", k=3, split=split) for n, split in enumerate(splits)],
    )  # fmt: skip
    for _ in splits:
        desk.label("ann", {
            "overall": {"ratings": [7, 4, 4]}, "metadata": {"flags": [[], [], []]}, "ranking": {"ranks": [1, 2, 2]},
            "better": {"text": "I would say this."},
        })  # fmt: skip
    out = tmp_path / "dataset"
    with store.reading() as conn:
        counts = export_file(open_export(conn, desk.id, secret=SECRET, ties="half"), "hf", out)
    return out, counts


def test_each_configuration_and_split_has_a_file_of_its_own(folder):
    out, counts = folder
    assert counts == {
        "preferences, train": 6, "preferences, valid_1": 3, "ratings, train": 6, "ratings, valid_1": 3,
        "demonstrations, train": 2, "demonstrations, valid_1": 1,
    }  # fmt: skip
    names = sorted(path.name for path in (out / "data").iterdir())
    assert names == [
        f"{config}-{split}.jsonl" for config in sorted(CONFIGS) for split in ("train", "valid_1")
    ]  # fmt: skip
    for path in (out / "data").iterdir():
        columns = CONFIGS[path.name.split("-")[0]][1]
        for line in path.read_text().splitlines():
            assert list(json.loads(line)) == list(columns)


def test_splits_whose_names_are_alike_have_files_of_their_own(store, tmp_path):
    splits = ["valid 1", "valid-1", "valid_1", "VALID_1", "valid_1_2", "日", "本"]
    desk = Desk(store, people=("ann",), items=[new_item(f"p{n}", split=split) for n, split in enumerate(splits)])
    for _ in splits:
        desk.label("ann")
    out = tmp_path / "dataset"
    with store.reading() as conn:
        export_file(open_export(conn, desk.id, secret=SECRET), "hf", out)
    rows = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in (out / "data").iterdir()
    }
    assert [len(some) for some in rows.values()] == [1] * len(splits)
    assert len({name.lower() for name in rows}) == len(splits)
    assert rows["preferences-valid_1"][0]["group_id"] == "p2"  # what needs no change keeps its name
    assert rows["preferences-valid_1_2"][0]["group_id"] == "p4"
    card = (out / "README.md").read_text()
    assert all(f"path: data/{name}.jsonl" in card for name in rows)


def test_the_card_says_what_is_there_and_how_it_was_labelled_and_names_nobody(folder):
    out, _ = folder
    text = (out / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["pretty_name"] == 'Replies: "good" ones'
    assert [one["config_name"] for one in card["configs"]] == ["preferences", "ratings", "demonstrations"]
    for one in card["configs"]:
        for files in one["data_files"]:
            assert (out / files["path"]).is_file()
    for row in ("| preferences | train | 6 |", "| demonstrations | valid_1 | 1 |"):
        assert row in body
    assert "`overall` (rating, 7 points): How good is each output?" in body
    assert "Of a tie there is one row, with probability 0.5." in body
    everything = text + "".join(path.read_text() for path in (out / "data").iterdir())
    assert "ann" not in everything.replace("annot", "").replace("Annot", "")


def test_datasets_loads_every_configuration(folder, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'rein[datasets]'")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    out, counts = folder
    for config, (_, columns) in CONFIGS.items():
        loaded = datasets.load_dataset(str(out), config, cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == {"train", "valid_1"}
        assert loaded["train"].num_rows == counts[f"{config}, train"]
        assert {name: kind.dtype for name, kind in loaded["train"].features.items()} == columns
    first = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"][0]
    assert (first["chosen"], first["probability"]) == ("p0 output 0", 1.0) or first["prompt"].startswith("a post, p")


def test_a_folder_is_there_whole_or_not_at_all_and_never_over_another(store, tmp_path, monkeypatch):
    exchange = Exchange(store, tmp_path)
    exchange.put([comparison()])
    out = tmp_path / "out"
    with store.reading() as conn:
        export = open_export(conn, "tldr", secret=SECRET)
        with monkeypatch.context() as patch:
            patch.setattr("rein.feedback.exchange.folder._card", lambda *words: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                export_file(export, "hf", out)
        assert list(tmp_path.glob("out*")) == []
        out.mkdir()
        export_file(export, "hf", out)  # an empty one is taken
        with pytest.raises(UserError, match="is there already"):
            export_file(export, "hf", out)
    assert len(list((out / "data").iterdir())) == 1


def test_a_project_without_answers_has_a_card_and_no_data(store, tmp_path):
    desk = Desk(store)
    with store.reading() as conn:
        assert export_file(open_export(conn, desk.id, secret=SECRET), "hf", tmp_path / "out") == {}
    assert yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])["tags"]
    assert list((tmp_path / "out" / "data").iterdir()) == []
