"""`rein pretrain --parallel`: the command starts its processes, survives their deaths, and goes on in other numbers."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from rein import checkpoint
from rein.config import command_line, replace
from rein.run import read_rows
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig


def settings(corpus, out, **changes):
    tiny = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_ctx": 32, "train_tokens": 32 * 8 * 30, "sequences_per_batch": 8,
            "learning_rate": 3e-3, "sample_prompts": (), "heldout_tokens": 2000, "precision": "fp32",
            "dropout": 0.1, "log_every_updates": 3, "slots": 4}  # fmt: skip
    return PretrainConfig(data=corpus, out=out, **tiny | changes)


def start(config):
    """The command in a session of its own, so that a signal reaches it and its processes, as Ctrl-C does."""
    words = [sys.executable, "-m", *command_line("rein pretrain", config).split()]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def finish(config):
    process = start(config)
    _, messages = process.communicate(timeout=240)
    assert process.returncode == 0, messages
    return messages


def weights(run):
    return load_file(checkpoint.latest(run) / "model.safetensors")


def assert_same_weights(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def wait_for(process, condition):
    limit = time.monotonic() + 120
    while process.poll() is None and not condition() and time.monotonic() < limit:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(small_corpus, tmp_path_factory):
    """The run on one process."""
    threads = torch.get_num_threads()
    try:
        return pretrain(settings(small_corpus, tmp_path_factory.mktemp("whole") / "run"))
    finally:
        torch.set_num_threads(threads)


def test_killed_in_two_processes_and_finished_in_one(small_corpus, whole, tmp_path):
    """kill -9 of one of two while they save after every update; the rest is done by one process: the same bytes."""
    config = settings(small_corpus, tmp_path / "run", parallel="fsdp=2", checkpoint_every_s=0.0)
    process = start(config)
    wait_for(process, lambda: len(checkpoint.all_steps(tmp_path / "run" / "checkpoints")) > 1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2, f"the command has started {children}"
    os.kill(int(children[-1]), signal.SIGKILL)
    _, messages = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert "Traceback" not in messages, messages
    steps = checkpoint.all_steps(tmp_path / "run" / "checkpoints")
    assert steps
    for folder in steps:
        checkpoint.verify(folder)
    threads = torch.get_num_threads()
    pretrain(replace(config, parallel=""))
    torch.set_num_threads(threads)
    assert_same_weights(whole, tmp_path / "run")
    losses = [[row["train_loss"] for row in read_rows(run / "metrics.jsonl") if "train_loss" in row]
              for run in (whole, tmp_path / "run")]  # fmt: skip
    assert losses[0] == losses[1]


def test_begun_by_one_interrupted_in_two(small_corpus, whole, tmp_path):
    """Ctrl-C, as a terminal sends it to all of them, saves once and says so once; the same command goes on."""
    changes = {"train_tokens": 32 * 8 * 2000, "evaluate_every_tokens": 32 * 8 * 100}
    config = settings(small_corpus, tmp_path / "run", parallel="dp=2", **changes)
    process = start(config)
    wait_for(process, lambda: len(list(read_rows(tmp_path / "run" / "metrics.jsonl"))) > 3)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130, messages
    assert messages.count("Finishing this update and saving") == 1
    assert messages.count("Interrupted.") == 1
    assert "Traceback" not in messages
    assert len(checkpoint.all_steps(tmp_path / "run" / "checkpoints")) == 1
    at = checkpoint.read_about(checkpoint.latest(tmp_path / "run"))["position"]["opt_step"]
    assert 0 < at < 2000


def test_a_layout_that_does_not_fit_is_said_once(small_corpus, tmp_path):
    process = start(settings(small_corpus, tmp_path / "run", parallel="tp=2", slots=0, n_head=1))
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2
    assert messages.count("--parallel tp=2 does not divide n_head=1") == 1
    assert "Traceback" not in messages


def test_a_batch_that_cannot_be_shared(small_corpus, tmp_path):
    from rein.errors import UserError

    with pytest.raises(UserError, match="--sequences-per-batch 6 cannot be shared by 4 slots"):
        pretrain(settings(small_corpus, tmp_path / "run", sequences_per_batch=6))


def test_python_alone_does_not_start_processes(small_corpus, tmp_path):
    from rein.errors import UserError

    with pytest.raises(UserError, match=r"--parallel dp=2 is 2 processes, but torchrun started 1"):
        pretrain(settings(small_corpus, tmp_path / "run", parallel="dp=2"))


def test_documents_are_masked_and_bands_are_trained_in_a_pipeline(small_corpus, tmp_path):
    changes = {"preset": "gpt3-small", "band": 7, "n_layer": 4, "mask_documents": True, "slots": 0, "dropout": 0.0,
               "evaluate_every_tokens": 32 * 8 * 15}  # fmt: skip
    one = settings(small_corpus, tmp_path / "one", **changes)
    pretrain(one)
    finish(replace(one, out=tmp_path / "two", parallel="pp=2", recompute=True))
    rows = [[row["heldout_loss"] for row in read_rows(tmp_path / run / "metrics.jsonl") if "heldout_loss" in row]
            for run in ("one", "two")]  # fmt: skip
    assert rows[1] == pytest.approx(rows[0], abs=1e-4)
    assert rows[0][-1] < rows[0][0] - 0.5
