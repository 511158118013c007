"""Demonstrations and corrected texts straight from a store: what a supervised start learns from people."""

import dataclasses
from pathlib import Path

import pytest
from desks import PLAIN, Desk, new_item
from sqlalchemy import select

from rein.bpe.byte_level import ByteLevelBPE
from rein.errors import UserError
from rein.feedback.project import Question
from rein.feedback.store import Store
from rein.feedback.tables import project
from rein.text.prompts import FORMATS, within
from rein.train.demonstrations import read
from rein.train.sft_config import SFTConfig

ASKS = dataclasses.replace(
    PLAIN, name="written", questions=(Question("answer", "demonstration"), Question("mended", "edit"))
)
N_CTX = 128


def reading(address, name, format="plain"):
    config = SFTConfig(Path("gpt"), store=str(address), project=name, out=Path("run"), format=format, heldout_frac=0.5)
    return read(config.settled(), within(FORMATS[format], N_CTX), ByteLevelBPE(()), n_ctx=N_CTX)


def text_of(each):
    return ByteLevelBPE(()).decode(each.completion.response)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "labels.db"
    with Store.open(str(path), create=True) as store:
        items = [new_item(f"item{n}", split="train" if n else "valid1") for n in range(3)]
        desk = Desk(store, ASKS, people=("ann",), items=items)
        for _ in items:
            desk.label("ann", {"answer": {"text": "Written."}, "mended": {"candidate": 0, "text": "Mended."}})
        with store.reading() as conn:
            name = conn.execute(select(project.c.name)).scalar_one()
    return path, name


def test_what_people_wrote_and_corrected_is_learned(written):
    found = reading(*written)
    assert sorted(text_of(each) for each in found.train) == ["Mended.<|endoftext|>"] * 2 + ["Written.<|endoftext|>"] * 2
    assert sorted(text_of(each) for each in found.heldout) == ["Mended.<|endoftext|>", "Written.<|endoftext|>"]
    assert {each.query.text for each in found.heldout} == {"a post, item0"}  # the fields that they saw
    assert found.heldout[0].query.where.endswith(":item0")


def test_a_project_that_nobody_wrote_for(tmp_path):
    path = tmp_path / "labels.db"
    with Store.open(str(path), create=True) as store:
        Desk(store, ASKS, people=("ann",), items=[new_item("a")])
        with store.reading() as conn:
            name = conn.execute(select(project.c.name)).scalar_one()
    with pytest.raises(UserError, match="has no demonstrations and no corrected texts"):
        reading(path, name)
    with pytest.raises(UserError, match="nothing"):
        reading(path, "nothing")
