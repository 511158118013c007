"""The branched probe: what its branches have in common, which batch it finds, and that it goes on where it stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rein import checkpoint
from rein.config import from_flags, replace, to_dict
from rein.errors import UserError
from rein.optim import gpt1_cosine, warmup_cosine
from rein.recipes import critical_batch as module
from rein.recipes.critical_batch import Branch, CriticalBatchConfig, branch_config, critical_batch, critical_of, plan
from rein.run import read_rows
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig

T, BASE, SEEN = 32, 16, 32 * 16 * 100  # context; the run's batch; tokens at the checkpoint


def made_run(folder, *, rows=(), opt_step=100, tokens=SEEN, **changes):
    """A run folder with one checkpoint: the files that the probe reads, no weights."""
    settings = {"train_tokens": 10 * SEEN, "sequences_per_batch": BASE, "learning_rate": 1e-3, "schedule": "cosine",
                "warmup_tokens": SEEN // 5, "decay_tokens": 8 * SEEN, "final_lr_frac": 0.1} | changes  # fmt: skip
    parent = PretrainConfig(data=folder / "corpus", out=folder, **settings).settled(10**6)
    about = {"made_by": "pretrain", "position": {"opt_step": opt_step, "tokens": tokens, "windows": tokens // T},
             "config": to_dict(parent), "model": {"n_ctx": T}}  # fmt: skip
    checkpoint.save(checkpoint.step_folder(folder / "checkpoints", opt_step), lambda part: None, about)
    (folder / "run.lock").touch()
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def trainer(penalty, *, text=lambda tokens: 3.0, made=None):
    """A `pretrain` that trains nothing: its loss on a token is that of the text there, and a penalty of the batch."""

    def train(config):
        if made is not None:
            made.append(config)
        config.out.mkdir(parents=True)
        begin = json.loads((config.branch_from / "rein.json").read_text())["position"]["tokens"]
        batch = config.sequences_per_batch * T
        ends = range(begin + batch, config.train_tokens + 1, batch)
        rows = []
        for opt_step, end in enumerate(ends, start=101):
            loss = np.mean([text(window) for window in range(end - batch, end, T)]) + penalty(
                config.sequences_per_batch
            )
            rows.append(
                {"opt_step": opt_step, "tokens": end, "train_loss": loss, "learning_rate": config.learning_rate}
            )
        rows.append({"opt_step": opt_step, "tokens": end, "heldout_loss": loss + 0.1})
        (config.out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return config.out

    return train


def result(out):
    return json.loads((out / "critical-batch.json").read_text())


# ------------------------------------------------------------------------------------------------------ the plan


def test_all_branches_train_the_same_tokens_in_whole_updates(tmp_path):
    probe = plan(CriticalBatchConfig(made_run(tmp_path / "run"), multiples=(3, 0.5, 1), tokens=20_000))
    assert probe.batches == {0.5: 8, 1: 16, 3: 48}
    assert probe.branch_tokens >= 20_000
    for sequences in probe.batches.values():
        assert probe.branch_tokens % (sequences * T) == 0
    assert probe.branch_tokens < 20_000 + 48 * T
    assert probe.out == tmp_path / "run" / "critical-batch" / "step-00000100"
    assert plan(CriticalBatchConfig(tmp_path / "run")).branch_tokens == SEEN + (-SEEN) % (128 * T), "a tenth of the run"


def test_the_batch_of_a_run_in_its_ramp_is_the_one_it_had_there(tmp_path):
    rows = [{"opt_step": n, "tokens": n, "sequences_per_batch": n // 10} for n in (80, 100, 120)]
    assert plan(CriticalBatchConfig(made_run(tmp_path, rows=rows), multiples=(1, 2))).batches == {1: 10, 2: 20}


def test_the_noise_beside_it_is_the_last_one_measured_before(tmp_path):
    rows = [
        {"opt_step": n, "tokens": n, "noise_scale_sequences": n, "noise_scale_low_sequences": n / 2} for n in (90, 110)
    ]
    probe = plan(CriticalBatchConfig(made_run(tmp_path / "a", rows=rows)))
    assert (probe.noise.b_simple, probe.noise.low, probe.noise.high) == (90, 45, math.inf)
    assert plan(CriticalBatchConfig(made_run(tmp_path / "b"))).noise is None


def test_a_branch_differs_in_batch_and_rate_alone(tmp_path):
    run = made_run(
        tmp_path, ramp="noise", ramp_tokens=SEEN, ramp_from_sequences=4, seed=7, weight_decay=0.05, mirrors=("mlflow",)
    )
    probe = plan(CriticalBatchConfig(run))
    made = branch_config(CriticalBatchConfig(run), probe, 4)
    changed = {name for name, value in to_dict(made).items() if value != to_dict(probe.parent)[name]}
    assert changed == {"out", "branch_from", "train_tokens", "sequences_per_batch", "ramp", "ramp_tokens",
                       "ramp_from_sequences", "learning_rate", "spike_nats", "log_every_updates",
                       "evaluate_every_tokens", "sample_prompts", "keep_checkpoints", "mirrors"}  # fmt: skip
    assert (made.sequences_per_batch, made.ramp_tokens, made.train_tokens) == (64, 0, probe.end)
    assert made.branch_from == run / "checkpoints" / "step-00000100"


@pytest.mark.parametrize(("rule", "factor"), [("sqrt", 2.0), ("linear", 4.0), ("none", 1.0)])
@pytest.mark.parametrize("at", [SEEN // 10, SEEN, 8 * SEEN])
def test_the_rate_follows_the_runs_schedule(tmp_path, rule, factor, at):
    config = CriticalBatchConfig(made_run(tmp_path, tokens=at), learning_rate_scaling=rule)
    probe = plan(config)
    made = branch_config(config, probe, 4)
    for tokens in (at, at + 5000, probe.end):
        of_the_run = 1e-3 * warmup_cosine(tokens, warmup_tokens=SEEN // 5, decay_tokens=8 * SEEN, final_frac=0.1)
        of_the_branch = made.learning_rate * warmup_cosine(
            tokens, warmup_tokens=made.warmup_tokens, decay_tokens=made.decay_tokens, final_frac=made.final_lr_frac
        )
        assert of_the_branch == pytest.approx(factor * of_the_run)


@pytest.mark.parametrize("at", [SEEN, 8 * SEEN])
def test_the_rate_follows_gpt1s_schedule_too(tmp_path, at):
    config = CriticalBatchConfig(made_run(tmp_path, tokens=at, schedule="gpt1"))
    probe = plan(config)
    made = branch_config(config, probe, 4)
    assert made.schedule == "cosine"
    for tokens in (at, at + 5000, probe.end):
        assert made.learning_rate * warmup_cosine(
            tokens, warmup_tokens=made.warmup_tokens, decay_tokens=made.decay_tokens, final_frac=made.final_lr_frac
        ) == pytest.approx(2e-3 * gpt1_cosine(tokens / (10 * SEEN), warmup_frac=0.02))


# ---------------------------------------------------------------------------------------------------- the result


def test_it_finds_the_largest_batch_that_costs_nothing(tmp_path, capsys):
    """The loss is the text's, which varies by a nat, and a penalty: above 32 sequences more than the tolerance."""
    hard = np.random.default_rng(0).normal(3.0, 1.0, 100_000)
    rows = [{"opt_step": 90, "tokens": 90, "noise_scale_sequences": 20.0, "noise_scale_low_sequences": 15.0,
             "noise_scale_high_sequences": 30.0}]  # fmt: skip
    run = made_run(tmp_path, rows=rows)
    penalty = {8: 0.001, 16: 0.0, 32: 0.004, 64: 0.02, 128: 0.06}
    critical_batch(CriticalBatchConfig(run), trainer(penalty.get, text=lambda t: hard[t // T]))
    found = result(run / "critical-batch" / "step-00000100")
    assert (found["critical_sequences"], found["critical_is_bounded"]) == (32, True)
    assert (found["noise_scale_sequences"], found["tokens"]) == (20.0, SEEN)
    for branch in found["branches"]:
        assert branch["over_best"] == pytest.approx(penalty[branch["sequences"]], abs=1e-9), "the text drops out"
        assert branch["over_best_error"] < 1e-9
        assert branch["over_base"] == branch["over_best"]
        assert branch["updates"] == found["branch_tokens"] / branch["sequences"] / T
        assert branch["learning_rate"] == pytest.approx(1e-3 * math.sqrt(branch["sequences"] / 16))
    said = capsys.readouterr().out
    assert "critical batch    32 sequences (1,024 tokens), within 0.01 nats of the best" in said
    assert "B_simple          20 sequences (95% interval 15 to 30)" in said
    assert "+0.0200 ± 0.0000" in said
    for kind, start in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        assert (run / "critical-batch" / "step-00000100" / f"critical-batch.{kind}").read_bytes().startswith(start)


def test_only_the_last_part_counts(tmp_path):
    run = made_run(tmp_path, tokens=0, opt_step=100)
    shaken = trainer(lambda sequences: 0.0)

    def train(config):
        out = shaken(config)
        rows = list(read_rows(out / "metrics.jsonl"))
        for row in rows:
            if row["tokens"] < 0.5 * config.train_tokens and "train_loss" in row:
                row["train_loss"] += config.sequences_per_batch
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return out

    critical_batch(CriticalBatchConfig(run, out=tmp_path / "out"), train)
    assert all(branch["over_best"] == 0 for branch in result(tmp_path / "out")["branches"])


def test_where_no_batch_was_too_large_it_says_at_least(tmp_path, capsys):
    critical_batch(CriticalBatchConfig(made_run(tmp_path)), trainer(lambda sequences: 0.0))
    said = capsys.readouterr().out
    assert "at least 128 sequences" in said
    assert "nothing larger was tried" in said
    assert "not measured in this run" in said
    assert result(tmp_path / "critical-batch" / "step-00000100")["critical_is_bounded"] is False


def test_it_goes_on_where_it_stopped(tmp_path, capsys):
    config, made = CriticalBatchConfig(made_run(tmp_path)), []
    real = trainer(lambda sequences: 0.0, made=made)

    def stopping(branch):
        if branch.sequences_per_batch == 32:
            raise KeyboardInterrupt
        return real(branch)

    with pytest.raises(KeyboardInterrupt):
        critical_batch(config, stopping)
    half = tmp_path / "critical-batch" / "step-00000100" / "batch-32"
    half.mkdir()
    (half / "metrics.jsonl").write_text('{"opt_step": 101, "tokens": 51300, "train_loss": 3.0, "learning_rate": 1}\n')

    def going_on(branch):
        if branch.out == half:
            (half / "metrics.jsonl").unlink()
            half.rmdir()
        return real(branch)

    critical_batch(config, going_on)
    assert [branch.sequences_per_batch for branch in made] == [8, 16, 32, 64, 128], "each once"
    before = result(tmp_path / "critical-batch" / "step-00000100")
    critical_batch(config, lambda branch: pytest.fail("all branches are finished"))
    assert result(tmp_path / "critical-batch" / "step-00000100") == before
    assert capsys.readouterr().out.count("critical batch    at least") == 2


def branches_of(*losses):
    best = min(losses)
    return [Branch(1, 2**n, 1e-3, 10, loss, loss - best, 0.0, 0.0, loss) for n, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ((3.0, 3.0, 3.0), (4, False)),
        ((3.0, 3.02, 3.0), (1, True)),  # the last is luck: between it and the best lies one that is not as good
        ((3.1, 3.0, 3.005), (4, False)),  # too small a batch may be worse: only what lies above the best counts
        ((3.1, 3.0, 3.02), (2, True)),
        ((3.2, 3.1, 3.0), (4, False)),
    ],
)
def test_which_batch_is_critical(losses, found):
    assert critical_of(branches_of(*losses), 0.01) == found


# ------------------------------------------------------------------------------------------------------- mistakes


def test_settings_that_compare_nothing():
    for multiples, said in (
        ((0.5, 2.0), "needs 1"),
        ((1.0, 1.0, 2.0), "each multiple once"),
        ((1.0,), "nothing to compare"),
    ):
        with pytest.raises(UserError, match=said):
            CriticalBatchConfig(Path("run"), multiples=multiples)
    with pytest.raises(UserError, match="--tolerance-nats is -1"):
        CriticalBatchConfig(Path("run"), tolerance_nats=-1)


def test_too_few_tokens(tmp_path):
    with pytest.raises(UserError, match=r"--tokens 5,000 is 1\.2 updates of 128 sequences"):
        plan(CriticalBatchConfig(made_run(tmp_path), tokens=5000))


def test_a_multiple_that_gives_no_whole_batch(tmp_path):
    with pytest.raises(UserError, match=r"0\.5 · 5 sequences is 2\.5"):
        plan(CriticalBatchConfig(made_run(tmp_path, sequences_per_batch=5)))


@pytest.mark.parametrize("changes", [{"schedule": "gpt1"}, {"final_lr_frac": 0.0}])
def test_a_run_whose_rate_has_ended_at_0(tmp_path, changes):
    run = made_run(tmp_path, tokens=10 * SEEN, **changes)
    with pytest.raises(UserError, match="learning rate has fallen to 0"):
        plan(CriticalBatchConfig(run))


def test_what_is_no_pretraining_run(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        plan(CriticalBatchConfig(tmp_path / "none"))
    checkpoint.save(tmp_path / "checkpoints" / "step-00000001", lambda part: None, {"made_by": "another"})
    with pytest.raises(UserError, match="not made by `rein pretrain`"):
        plan(CriticalBatchConfig(tmp_path))


def test_under_torchrun(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun started `rein critical-batch`"):
        plan(CriticalBatchConfig(made_run(tmp_path)))


class Processes:
    """Stands for those that a branch is trained by; Ctrl-C reaches them, and us, `interrupts` times."""

    def __init__(self, words, status, interrupts):
        self.words, self.returncode, self._status, self._interrupts = words, None, status, interrupts

    def poll(self):
        return self.returncode

    def wait(self):
        if self._interrupts:
            self._interrupts -= 1
            raise KeyboardInterrupt
        self.returncode = self._status


@pytest.mark.parametrize(("status", "interrupts", "ends"), [(0, 0, None), (1, 0, UserError), (1, 2, KeyboardInterrupt)])
def test_a_branch_of_several_processes(tmp_path, monkeypatch, status, interrupts, ends):
    config = CriticalBatchConfig(made_run(tmp_path, parallel="dp=2"))
    made = branch_config(config, plan(config), 4)
    started = []
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda words: started.append(Processes(words, status, interrupts)) or started[-1]
    )
    if ends is None:
        module.train_branch(made)
    else:
        with pytest.raises(ends):
            module.train_branch(made)
    (process,) = started
    assert process.returncode == status, "it is waited for, Ctrl-C or not: it saves what it has"
    assert process.words[1:4] == ["-m", "rein", "pretrain"]
    assert from_flags(PretrainConfig, process.words[4:], prog="rein pretrain") == made


def test_its_flags():
    config = from_flags(
        CriticalBatchConfig, ["runs/first", "--multiples", "1", "2", "--tokens", "5e6"], prog="rein critical-batch"
    )
    assert (config.run, config.multiples, config.tokens) == (Path("runs/first"), (1.0, 2.0), 5_000_000)


# -------------------------------------------------------------------------------------------------- the real thing


def test_the_branch_of_the_runs_own_batch_is_the_run_itself(small_corpus, tmp_path):
    """Of a run that goes on and of one that stops half-way and is probed: the same losses, bit for bit."""
    whole = PretrainConfig(
        data=small_corpus, out=tmp_path / "whole", n_layer=1, n_embd=16, n_head=1, n_ctx=T, train_tokens=T * 8 * 60,
        sequences_per_batch=8, learning_rate=3e-3, sample_prompts=(), heldout_tokens=500, precision="fp32", dropout=0.1,
        log_every_updates=1, decay_tokens=T * 8 * 60, warmup_tokens=T * 8 * 5,
    )  # fmt: skip
    pretrain(whole)
    half = pretrain(replace(whole, out=tmp_path / "half", train_tokens=T * 8 * 30))
    critical_batch(CriticalBatchConfig(half, multiples=(1, 2), tokens=T * 8 * 30))
    out = half / "critical-batch" / "step-00000030"
    rows = [
        [(row["tokens"], row["train_loss"], row["learning_rate"]) for row in read_rows(run / "metrics.jsonl")
         if "train_loss" in row and row["opt_step"] > 30]
        for run in (whole.out, out / "batch-8")
    ]  # fmt: skip
    assert len(rows[0]) == 30
    assert rows[0] == rows[1]
    twice = [row for row in read_rows(out / "batch-16" / "metrics.jsonl") if "train_loss" in row]
    assert [row["tokens"] for row in twice] == [tokens for tokens, _, _ in rows[0][1::2]]
    assert twice[-1]["learning_rate"] == pytest.approx(math.sqrt(2) * rows[0][-1][2])
    assert {branch["sequences"] for branch in result(out)["branches"]} == {8, 16}
