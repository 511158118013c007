"""Pre-training: what a run leaves behind, that it learns, and that nothing that happens to it changes its numbers."""

import dataclasses
import itertools
import json
import math
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from rein import checkpoint
from rein.cli import main
from rein.config import command_line, replace
from rein.distributed import Layout, World
from rein.errors import UserError
from rein.evals.perplexity import score_text
from rein.models.huggingface import load_model
from rein.models.parallel import Replica
from rein.run import read_rows
from rein.text.shards import Shards
from rein.train import pretrain as module
from rein.train.heldout import Evaluation
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig


def settings(corpus, out, **changes):
    tiny = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_ctx": 32, "train_tokens": 32 * 8 * 40, "sequences_per_batch": 8,
            "learning_rate": 3e-3, "sample_tokens": 8, "heldout_tokens": 2000, "precision": "fp32",
            "dropout": 0.1, "log_every_updates": 3}  # fmt: skip
    return PretrainConfig(data=corpus, out=out, **tiny | changes)


def weights(run):
    return load_file(checkpoint.latest(run) / "model.safetensors")


def assert_same_run(a, b):
    """Bit for bit: the weights, the optimiser, and every number but the times."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    timing = {"wall_s", "tokens_per_s", "model_flops_per_s", "peak_rss_bytes", "data_wait_frac", "checkpoint_wait_s"}
    rows = [
        [{k: v for k, v in row.items() if k not in timing} for row in read_rows(r / "metrics.jsonl")] for r in (a, b)
    ]
    assert rows[0] == rows[1]
    assert list(read_rows(a / "samples.jsonl")) == list(read_rows(b / "samples.jsonl"))
    states = [torch.load(io, weights_only=True) for io in (consolidated(a), consolidated(b))]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][name])), name


def consolidated(run):
    """The optimiser's state as one flat file."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder = checkpoint.latest(run)
    flat = run.parent / f"{run.name}-{folder.name}.flat"
    dcp_to_torch_save(folder / checkpoint.STATE, flat)
    return flat


@pytest.fixture(scope="module")
def corpus(small_corpus):
    return small_corpus


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    return pretrain(settings(corpus, tmp_path_factory.mktemp("finished") / "run"))


def test_what_a_run_leaves_behind(finished, corpus):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json",
        "env.json",
        "metrics.jsonl",
        "samples.jsonl",
        "checkpoints",
        "report.html",
        "run.lock",
    }
    rows = list(read_rows(finished / "metrics.jsonl"))
    train = [row for row in rows if "train_loss" in row]
    held = [row for row in rows if "heldout_loss" in row]
    assert [row["opt_step"] for row in train] == [*range(3, 40, 3), 40]
    assert [row["tokens"] for row in held] == [0, *range(1024, 10241, 1024)]
    assert held[0]["heldout_loss"] == pytest.approx(math.log(400), abs=0.1)
    assert held[-1]["heldout_loss"] < held[0]["heldout_loss"] - 0.8
    for row in held:
        assert row["heldout_perplexity"] == pytest.approx(math.exp(row["heldout_loss"]))
    samples = list(read_rows(finished / "samples.jsonl"))
    assert len(samples) == len(held) * 2
    assert json.loads((finished / "config.json").read_text())["learning_rate"] == 3e-3
    env = json.loads((finished / "env.json").read_text())
    assert env[0]["torch"] == torch.__version__


def test_the_checkpoint_is_the_model_that_was_measured(finished, corpus):
    model, tokenizer = load_model(finished)
    held = [row for row in read_rows(finished / "metrics.jsonl") if "heldout_loss" in row]
    world = World(Layout(), torch.device("cpu"))
    replica = Replica(model.config, world, lambda name, _: model.get_parameter(name).detach())
    evaluation = Evaluation(settings(corpus, finished), replica, tokenizer, Shards(corpus, "heldout"))
    nats, n_bytes, n_tokens = evaluation.heldout()
    assert nats / n_tokens == held[-1]["heldout_loss"]
    assert nats / math.log(2) / n_bytes == held[-1]["heldout_bits_per_byte"]
    assert score_text(model, tokenizer, "The default value is None.").bits_per_byte < 8


def test_running_a_finished_run_again_changes_nothing(finished, corpus):
    before = {path: path.read_bytes() for path in finished.rglob("*.safetensors")}
    metrics = (finished / "metrics.jsonl").read_bytes()
    pretrain(settings(corpus, finished))
    assert {path: path.read_bytes() for path in finished.rglob("*.safetensors")} == before
    assert (finished / "metrics.jsonl").read_bytes() == metrics


def test_its_config_json_replays_it(finished, tmp_path):
    assert main(["pretrain", "--config", str(finished / "config.json"), "--out", str(tmp_path / "again")]) == 0
    assert_same_run(finished, tmp_path / "again")


def test_another_seed_is_another_run(finished, corpus, tmp_path):
    pretrain(settings(corpus, tmp_path / "run", seed=1))
    assert not torch.equal(
        weights(finished)["transformer.wte.weight"], weights(tmp_path / "run")["transformer.wte.weight"]
    )


class StopHere(Exception):
    pass


@pytest.mark.parametrize("at", [1, 13, 39])
def test_resumed_is_uninterrupted(finished, corpus, tmp_path, monkeypatch, at):
    """Saves at every update, fails inside update `at` (weights changed or not), goes on: the same run."""
    config = settings(corpus, tmp_path / "run", checkpoint_every_s=0.0)
    config_as_finished = settings(corpus, tmp_path / "run")
    real = module._update

    def failing(config, replica, optimizer, reader, position, *rest):
        row = real(config, replica, optimizer, reader, position, *rest)
        if position.opt_step == at:
            raise StopHere
        return row

    monkeypatch.setattr(module, "_update", failing)
    with pytest.raises(StopHere):
        pretrain(config)
    monkeypatch.setattr(module, "_update", real)
    pretrain(config)
    assert config_as_finished.seed == config.seed
    assert_same_run(finished, tmp_path / "run")


def run_command(config, **more):
    words = [sys.executable, "-m", *command_line("rein pretrain", config).split()]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def test_killed_at_any_moment_and_started_again(corpus, tmp_path):
    """kill -9, several times, at moments nobody chose; then the run is the one that was never killed."""
    changes = {"train_tokens": 32 * 8 * 120, "evaluate_every_tokens": 32 * 8 * 60}
    pretrain(settings(corpus, tmp_path / "whole", **changes))
    config = settings(corpus, tmp_path / "run", checkpoint_every_s=0.0, **changes)
    moments = random.Random(0)
    kills = 0
    for _ in range(3):
        process = run_command(config)
        while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/step-*")):
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.7))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
        for folder in checkpoint.all_steps(tmp_path / "run" / "checkpoints"):
            checkpoint.verify(folder)
    assert kills >= 1, "the run ended before it could be killed; make it longer"
    pretrain(config)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


LONG = {"train_tokens": 32 * 8 * 200, "evaluate_every_tokens": 32 * 8 * 50}  # there is time to interrupt it


@pytest.fixture(scope="module")
def long(corpus, tmp_path_factory):
    return pretrain(settings(corpus, tmp_path_factory.mktemp("long") / "run", **LONG))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_same_command_goes_on(long, corpus, tmp_path, number):
    config = settings(corpus, tmp_path / "run", **LONG)
    process = run_command(config)
    while process.poll() is None and len(list(read_rows(tmp_path / "run" / "metrics.jsonl"))) < 4:
        time.sleep(0.02)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "Finishing this update and saving" in messages
    assert "Traceback" not in messages
    saved = checkpoint.read_about(checkpoint.latest(tmp_path / "run"))["position"]["opt_step"]
    assert 3 <= saved < 200
    pretrain(config)
    assert_same_run(long, tmp_path / "run")


def test_accumulation_one_times_eight_is_eight_times_one(corpus, tmp_path):
    runs = {}
    for at_once in (8, 3, 1):
        config = settings(corpus, tmp_path / str(at_once), sequences_at_once=at_once, dropout=0.0)
        runs[at_once] = weights(pretrain(config))
    for at_once in (3, 1):
        for name, tensor in runs[8].items():
            torch.testing.assert_close(
                runs[at_once][name], tensor, atol=2e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_equal_tokens_give_equal_rates_under_a_ramp(corpus, tmp_path):
    plain = settings(corpus, tmp_path / "plain", log_every_updates=1)
    ramp = replace(plain, out=tmp_path / "ramp", ramp_tokens=4096, ramp_from_sequences=2)
    rows = {
        run.out.name: [row for row in read_rows(pretrain(run) / "metrics.jsonl") if "learning_rate" in row]
        for run in (plain, ramp)
    }
    sizes = [row["sequences_per_batch"] for row in rows["ramp"]]
    assert sizes[0] == 2
    assert sizes == sorted(sizes)
    assert sizes[-1] == 8
    rates = {row["tokens"]: row["learning_rate"] for row in rows["plain"]}
    shared = [row for row in rows["ramp"] if row["tokens"] in rates]
    assert len(shared) >= 3
    for row in shared:
        assert row["learning_rate"] == rates[row["tokens"]]


def test_gpt1_as_its_paper_trained_it(corpus, tmp_path):
    adam = {"optimizer": "gpt1", "adam_b2": 0.999, "weight_decay": 0.01}
    warm_up = {"schedule": "gpt1", "warmup_tokens": 32 * 8 * 4, "log_every_updates": 1}
    run = pretrain(settings(corpus, tmp_path / "run", preset="gpt1", **adam, **warm_up))
    rows = [row for row in read_rows(run / "metrics.jsonl") if "train_loss" in row]
    assert rows[0]["learning_rate"] == 0  # the released schedule counts from 0 before the update
    assert rows[4]["learning_rate"] == 3e-3
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.8
    assert json.loads((checkpoint.latest(run) / "config.json").read_text())["model_type"] == "openai-gpt"


def test_banded_attention_trains_and_its_checkpoint_continues(corpus, tmp_path):
    config = settings(corpus, tmp_path / "run", preset="gpt3-small", band=7)
    run = pretrain(config)
    model, _ = load_model(run)
    assert (model.config.attention, model.config.band) == ("banded", 7)
    held = [row["heldout_loss"] for row in read_rows(run / "metrics.jsonl") if "heldout_loss" in row]
    assert held[-1] < held[0] - 0.8


def test_bfloat16_learns_as_well(finished, corpus, tmp_path):
    run = pretrain(settings(corpus, tmp_path / "run", precision="bf16"))
    last = [
        [r["heldout_loss"] for r in read_rows(x / "metrics.jsonl") if "heldout_loss" in r][-1] for x in (finished, run)
    ]
    assert last[1] == pytest.approx(last[0], abs=0.05)


def test_a_batch_that_follows_the_noise(corpus, tmp_path):
    """It grows, by its own rules, and a run that is interrupted and continued grows alike."""
    changes = {"ramp": "noise", "ramp_from_sequences": 2, "sequences_per_batch": 32, "noise_every_updates": 1,
               "train_tokens": 32 * 1500, "log_every_updates": 1, "dropout": 0.0}  # fmt: skip
    run = pretrain(settings(corpus, tmp_path / "run", **changes))
    sizes = [row["sequences_per_batch"] for row in read_rows(run / "metrics.jsonl") if "sequences_per_batch" in row]
    assert sizes[0] == 2
    assert sizes == sorted(sizes)
    assert sizes[-1] > 4
    assert max(b / a for a, b in itertools.pairwise(sizes)) <= 2
    branch = pretrain(
        settings(corpus, tmp_path / "branch", **changes | {"train_tokens": 32 * 1800, "branch_from": run})
    )
    more = [row["sequences_per_batch"] for row in read_rows(branch / "metrics.jsonl") if "sequences_per_batch" in row]
    assert more[0] == sizes[-1]


def test_a_branch_begins_where_another_run_stood(finished, corpus, tmp_path):
    """With the same settings and a longer way to go, it is the run that went that way from the beginning."""
    changes = {"warmup_tokens": 512, "decay_tokens": 32 * 8 * 80}
    short = pretrain(settings(corpus, tmp_path / "short", **changes))
    longer = {**changes, "train_tokens": 32 * 8 * 60, "evaluate_every_tokens": 32 * 8 * 60}
    branch = pretrain(settings(corpus, tmp_path / "branch", branch_from=short, **longer))
    whole = pretrain(settings(corpus, tmp_path / "whole", **longer))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(branch)[name]), name
    assert checkpoint.read_about(checkpoint.latest(branch))["parents"] == [str(short)]


def test_branching_from_what_is_no_run_of_ours(finished, corpus, tmp_path):
    with pytest.raises(UserError, match="other sizes"):
        pretrain(settings(corpus, tmp_path / "run", branch_from=finished, n_layer=3))
    with pytest.raises(UserError, match="does not exist"):
        pretrain(settings(corpus, tmp_path / "other", branch_from=tmp_path / "nowhere"))


def test_a_loss_that_rises_and_stays_stops_the_run(corpus, tmp_path):
    """The rate is raised ten-thousandfold, in a branch: the guard stops it, and says so in the run folder."""
    changes = {"train_tokens": 32 * 8 * 60, "warmup_tokens": 512, "dropout": 0.0, "keep_checkpoints": 1}
    good = pretrain(settings(corpus, tmp_path / "good", **changes))
    wild = {**changes, "train_tokens": 32 * 8 * 200, "learning_rate": 30.0, "spike_patience_updates": 5}
    config = settings(corpus, tmp_path / "wild", branch_from=good, checkpoint_every_s=0.0, **wild)
    with pytest.raises(UserError, match=r"loss (is .* nats/token|.*has loss nan)|has loss"):
        pretrain(config)
    assert json.loads((tmp_path / "wild" / "stopped.json").read_text())


def test_old_checkpoints_are_removed(corpus, tmp_path):
    run = pretrain(settings(corpus, tmp_path / "run", checkpoint_every_s=0.0, keep_checkpoints=3))
    assert [path.name for path in checkpoint.all_steps(run / "checkpoints")] == [f"step-{n:08d}" for n in (38, 39, 40)]
    assert len(list((run / "checkpoints").iterdir())) == 3


# ------------------------------------------------------------------------------------------------- bad input


def test_a_loss_that_is_not_a_number(corpus, tmp_path):
    config = settings(corpus, tmp_path / "run", learning_rate=1e25, warmup_tokens=256 * 10, checkpoint_every_s=0.0)
    with pytest.raises(UserError, match=r"Update \d+ has loss .* gradient norm") as error:
        pretrain(config)
    assert "lower --learning-rate" in str(error.value)
    for folder in checkpoint.all_steps(tmp_path / "run" / "checkpoints"):
        checkpoint.verify(folder)


def test_a_corpus_smaller_than_one_context(corpus, tmp_path):
    with pytest.raises(UserError, match=r"needs 100,001"):
        pretrain(settings(corpus, tmp_path / "run", n_ctx=100_000))


def test_held_out_text_smaller_than_one_window(corpus, tmp_path):
    with pytest.raises(UserError, match=r"held-out text has .* one window needs 20,001"):
        pretrain(settings(corpus, tmp_path / "run", n_ctx=20_000))


def test_no_corpus(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        pretrain(settings(tmp_path / "nowhere", tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_tokens": 0}, "--train-tokens is 0"),
        ({"sequences_per_batch": -1}, "--sequences-per-batch is -1"),
        ({"ramp_from_sequences": 9}, "--ramp-from-sequences 9 is above --sequences-per-batch 8"),
        ({"preset": "gpt4"}, "no preset 'gpt4'"),
        ({"n_head": 3}, "n_embd=32 is not a multiple of n_head=3"),
        ({"device": "cuda:9"}, "--device cuda:9 cannot be used"),
        ({"device": "abacus"}, "--device abacus cannot be used"),
    ],
)
def test_bad_settings(corpus, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        pretrain(settings(corpus, tmp_path / "run", **changes))


def test_other_settings_in_the_same_folder(finished, corpus):
    with pytest.raises(UserError, match=r"other settings .*learning_rate: 0\.003 → 0\.001"):
        pretrain(settings(corpus, finished, learning_rate=1e-3))


@pytest.fixture
def two_checkpoints(corpus, tmp_path, monkeypatch):
    """A run that stopped with checkpoints after updates 12 and 13."""
    config = settings(corpus, tmp_path / "run", checkpoint_every_s=0.0)
    real = module._update

    def failing(config, replica, optimizer, reader, position, *rest):
        if position.opt_step == 13:
            raise StopHere
        return real(config, replica, optimizer, reader, position, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_update", failing)
        with pytest.raises(StopHere):
            pretrain(config)
    return config


@pytest.mark.parametrize("file", ["model.safetensors", "training_state/__0_0.distcp", "training_state/.metadata"])
def test_a_checkpoint_cut_short_is_named_and_the_one_before_it_is_good(finished, two_checkpoints, file):
    folder = checkpoint.latest(two_checkpoints.out)
    path = folder / file
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=rf"{file}.* was cut short"):
        pretrain(two_checkpoints)
    shutil.rmtree(folder)  # what the message says
    pretrain(two_checkpoints)
    assert_same_run(finished, two_checkpoints.out)


def test_a_checkpoint_that_was_changed_or_lost_a_file(two_checkpoints):
    folder = checkpoint.latest(two_checkpoints.out)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="has changed since it was saved"):
        pretrain(two_checkpoints)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is missing"):
        pretrain(two_checkpoints)
    (folder / "rein.json").write_text("{")
    with pytest.raises(UserError, match=r"rein\.json is damaged"):
        pretrain(two_checkpoints)


def test_a_corpus_rebuilt_with_another_vocabulary(two_checkpoints, corpus, tmp_path):
    from rein.bpe.trainer import train

    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    train(["some other text, some other words"], 260).save(other / "tokenizer.json")
    config_json = two_checkpoints.out / "config.json"
    config_json.write_text(config_json.read_text().replace(str(corpus), str(other)))
    with pytest.raises(UserError, match=r"other sizes|tokenizer"):
        pretrain(replace(two_checkpoints, data=other))


def test_a_full_disk_stops_the_run_and_harms_nothing_saved(corpus, tmp_path):
    """A limit on file sizes stands for the disk: writing fails in the same place with a kindred error."""
    config = settings(corpus, tmp_path / "run", train_tokens=32 * 8 * 5)
    pretrain(config)
    saved = checkpoint.latest(config.out)
    longer = replace(config, out=tmp_path / "longer", train_tokens=32 * 8 * 10)

    def limit():  # room for the report and for one of the two large files of a checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (240_000, 240_000))

    process = run_command(longer, preexec_fn=limit)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2, messages
    assert "No room left while writing" in messages
    assert "step-" in messages
    assert "Traceback" not in messages
    assert not checkpoint.all_steps(longer.out / "checkpoints")
    assert list((longer.out / "checkpoints").iterdir()) == []
    checkpoint.verify(saved)
    pretrain(longer)  # with room again, the same command finishes


def test_a_folder_that_may_not_be_written(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        pretrain(settings(corpus, tmp_path / "file" / "run"))


def test_the_settings_are_a_dataclass_that_cannot_change(corpus, tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings(corpus, tmp_path).seed = 1  # type: ignore[misc]
