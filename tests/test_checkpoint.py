"""Checkpoint folders are whole or not there, and every way of damaging one is named."""

import errno
import json
import os

import pytest
import torch

from rein import checkpoint
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.optim import GPT1Adam, decayed_and_not


def write(folder):
    (folder / "config.json").write_text("{}")
    (folder / "deep").mkdir()
    (folder / "deep" / "data").write_bytes(b"0123456789")


def test_save_verify_read(tmp_path):
    folder = checkpoint.step_folder(tmp_path / "checkpoints", 7)
    checkpoint.save(folder, write, {"position": 7})
    assert folder.name == "step-00000007"
    checkpoint.verify(folder)
    about = checkpoint.read_about(folder)
    assert about["position"] == 7
    assert set(about["files"]) == {"config.json", "deep/data"}
    assert checkpoint.latest(folder) == checkpoint.latest(tmp_path) == folder


def test_the_newest_counts_by_number(tmp_path):
    for step in (9, 100_000_000, 20):
        checkpoint.save(checkpoint.step_folder(tmp_path / "checkpoints", step), write, {})
    assert checkpoint.latest(tmp_path).name == "step-100000000"
    checkpoint.prune(tmp_path / "checkpoints", 2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000020", "step-100000000"]


def test_the_same_step_again_replaces_it(tmp_path):
    folder = checkpoint.step_folder(tmp_path, 1)
    checkpoint.save(folder, write, {"turn": 1})
    checkpoint.save(folder, write, {"turn": 2})
    assert checkpoint.read_about(folder)["turn"] == 2


@pytest.mark.parametrize("where", ["write", "os.rename", "os.fsync"])
def test_a_failure_at_any_point_leaves_what_was_there(tmp_path, monkeypatch, where):
    folder = checkpoint.step_folder(tmp_path, 1)
    checkpoint.save(folder, write, {"turn": 1})

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where != "write":
        monkeypatch.setattr(os, where.removeprefix("os."), fail)
    with pytest.raises(UserError, match="No room left while writing"):
        checkpoint.save(checkpoint.step_folder(tmp_path, 2), fail if where == "write" else write, {})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    checkpoint.verify(folder)


def test_what_a_killed_save_left_is_not_a_checkpoint_and_is_removed(tmp_path):
    checkpoint.save(checkpoint.step_folder(tmp_path / "checkpoints", 1), write, {})
    torn = tmp_path / "checkpoints" / "step-00000002.part"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path).name == "step-00000001"
    checkpoint.save(checkpoint.step_folder(tmp_path / "checkpoints", 2), write, {})
    checkpoint.prune(tmp_path / "checkpoints", 5)
    assert not torn.exists()
    assert checkpoint.latest(tmp_path).name == "step-00000002"


def test_an_error_that_is_not_the_disks_is_not_dressed_as_one(tmp_path):
    def broken(_):
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        checkpoint.save(checkpoint.step_folder(tmp_path, 1), broken, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "deep" / "data").unlink(), "deep/data is missing"),
        (lambda f: (f / "deep" / "data").write_bytes(b"01234"), "is 5 bytes, but 10 were saved"),
        (lambda f: (f / "deep" / "data").write_bytes(b"0123456780"), "has changed since it was saved"),
        (lambda f: (f / "rein.json").write_text("{"), r"rein\.json is damaged"),
        (lambda f: (f / "rein.json").unlink(), r"has no rein\.json"),
    ],
)
def test_damage_is_named(tmp_path, damage, words):
    folder = checkpoint.step_folder(tmp_path, 1)
    checkpoint.save(folder, write, {})
    damage(folder)
    with pytest.raises(UserError, match=words):
        checkpoint.verify(folder)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint yet"):
        checkpoint.latest(tmp_path)
    with pytest.raises(UserError, match="nowhere does not exist"):
        checkpoint.latest(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["adamw", "gpt1"])
def test_the_optimiser_comes_back_bit_for_bit(tmp_path, kind):
    tokens = torch.randint(0, 17, (2, 9), generator=torch.Generator().manual_seed(0))

    def make():
        model = GPT(GPTConfig(17, 8, 12, 2, 2)).initialise(0)
        groups = decayed_and_not(model)
        adamw = kind == "adamw"
        return model, torch.optim.AdamW(groups, lr=0.1, fused=True) if adamw else GPT1Adam(groups, lr=0.1)

    def step(model, optimizer):
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = make()
    for _ in range(3):
        step(model, optimizer)
    checkpoint.write_training_state(tmp_path / "state", model, optimizer)
    other, loaded = make()
    other.load_state_dict(model.state_dict())
    checkpoint.read_training_state(tmp_path / "state", other, loaded)
    assert all(group["lr"] == 0.1 for group in loaded.param_groups)
    for pair in ((model, optimizer), (other, loaded)):
        step(*pair)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_training_state_that_cannot_be_read(tmp_path):
    model = GPT(GPTConfig(17, 8, 12, 2, 2)).initialise(0)
    with pytest.raises(UserError, match=r"training state in .* cannot be read"):
        checkpoint.read_training_state(tmp_path / "nothing", model, torch.optim.AdamW(decayed_and_not(model)))


def test_about_is_plain_json(tmp_path):
    checkpoint.save(checkpoint.step_folder(tmp_path, 1), write, {"config": {"lr": 1e-3}})
    assert json.loads((tmp_path / "step-00000001" / "rein.json").read_text())["config"] == {"lr": 1e-3}


def test_a_run_means_what_it_selected_to_users_and_its_newest_checkpoint_to_itself(tmp_path):
    for folder in (tmp_path / "run" / "checkpoints" / "step-00000002", tmp_path / "run" / checkpoint.BEST):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "run" / "run.lock").touch()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert checkpoint.chosen(tmp_path / "run") == tmp_path / "run" / checkpoint.BEST
    assert checkpoint.latest(tmp_path / "run").name == "step-00000002"
    assert checkpoint.chosen(tmp_path / "run" / checkpoint.BEST) == tmp_path / "run" / checkpoint.BEST
