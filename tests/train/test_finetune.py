"""Fine-tuning: that it learns, what it leaves behind, and that nothing that happens to it changes its numbers."""

import dataclasses
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rein import checkpoint
from rein.config import command_line, from_json, replace
from rein.errors import UserError
from rein.evals.scores import SCORES
from rein.models.fine_tuned import load, predict
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import load_model, save_model
from rein.run import read_rows
from rein.text.tasks import Example
from rein.train import finetune as module
from rein.train.finetune import finetune
from rein.train.finetune_config import FinetuneConfig

NOUNS = ["cat", "dog", "car", "tree", "house", "river", "stone", "bird", "lamp", "road"]


@pytest.fixture(scope="module")
def pretrained(tokenizer, tmp_path_factory):
    """A GPT-1 with random weights: what pre-training would give is of no matter here."""
    folder = tmp_path_factory.mktemp("pretrained")
    return saved(folder, tokenizer, GPTConfig(tokenizer.n_vocab, 48, 32, 2, 2, norm="post", initialisation="flat",
                                              dropout=0.1))  # fmt: skip


def saved(folder, tokenizer, config):
    save_model(folder, GPT(config).initialise(0), tokenizer)
    return folder


def sentences(n, seed):
    """(text, 1 where it praises): the word that decides stands anywhere."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        label = rng.randint(0, 1)
        words = rng.sample(NOUNS, 3)
        words.insert(rng.randint(0, 3), ("bad", "good")[label])
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of each type of task, as small as will do."""
    folder = tmp_path_factory.mktemp("data")
    for part, n, seed in (("train", 200, 0), ("dev", 60, 1)):
        rows = sentences(n, seed)
        lines = [f"{label} {text}" for text, label in rows]
        (folder / f"sst2-{part}.txt").write_text("\n".join(lines) + "\n")
        table = ["text,label", *(f"{text},{('no', 'yes')[label]}" for text, label in rows)]
        (folder / f"own-{part}.csv").write_text("\n".join(table) + "\n")
        pairs = [{"premise": text, "hypothesis": "this is good", "label": ("not_entailment", "entailment")[label]}
                 for text, label in rows]  # fmt: skip
        (folder / f"rte-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
        table = ["s,a,b,l", *(f"the story,{('bad', 'good')[label]} end,{('good', 'bad')[label]} end,{1 - label}"
                              for _, label in rows)]  # fmt: skip
        (folder / f"choice-{part}.csv").write_text("\n".join(table) + "\n")
        head = "index\tsentence1\tsentence2\tscore"
        lines = [f"{i}\t{text}\tgood\t{1.0 + 4 * label}" for i, (text, label) in enumerate(rows)]
        (folder / f"stsb-{part}.tsv").write_text("\n".join([head, *lines]) + "\n")
    return folder


def settings(start, folder, run, /, **changes):
    plain = {"task": "sst2", "learning_rate": 3e-3, "epochs": 3, "log_every_updates": 3, "precision": "fp32"}
    kind = changes.pop("files", "sst2")
    suffix = next(folder.glob(f"{kind}-train.*")).suffix
    files = {"data": (folder / f"{kind}-train{suffix}",), "heldout": (folder / f"{kind}-dev{suffix}",)}
    return FinetuneConfig(**{"checkpoint": start, "out": run} | plain | files | changes)


@pytest.fixture(scope="module")
def finished(pretrained, data, tmp_path_factory):
    return finetune(settings(pretrained, data, tmp_path_factory.mktemp("finished") / "run"))


TIMES = {"wall_s", "tokens_per_s", "peak_rss_bytes"}


def numbers(run):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(run / "metrics.jsonl")]


def assert_same_run(a, b):
    """Bit for bit: weights, head, optimiser, the best epoch and its predictions, every number but the times."""
    assert numbers(a) == numbers(b)
    assert (a / "scores.json").read_text() == (b / "scores.json").read_text()
    assert (a / "best/predictions.jsonl").read_bytes() == (b / "best/predictions.jsonl").read_bytes()
    last = [checkpoint.latest(run) for run in (a, b)]
    assert last[0].name == last[1].name
    for file in ("model.safetensors", "head.safetensors"):
        for first, second in ((last[0] / file, last[1] / file), (a / "best" / file, b / "best" / file)):
            ours, theirs = load_file(first), load_file(second)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), file
    for first, second in zip(*(sorted((folder / checkpoint.STATE).iterdir()) for folder in last), strict=True):
        assert first.suffix != ".distcp" or first.read_bytes() == second.read_bytes()


# ------------------------------------------------------------------------------------------------ it learns


def test_what_a_run_leaves_behind(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "checkpoints", "best", "scores.json", "report.html"}
    rows = list(read_rows(finished / "metrics.jsonl"))
    per_epoch = 200 // 32
    assert [row["opt_step"] for row in rows if "heldout_score" in row] == [per_epoch, 2 * per_epoch, 3 * per_epoch]
    train = [row for row in rows if "task_loss" in row]
    assert train[0]["task_loss"] == pytest.approx(math.log(2), abs=0.1)
    scores = json.loads((finished / "scores.json").read_text())
    assert max(row["heldout_score"] for row in rows if "heldout_score" in row) == scores[0]["value"]
    about = checkpoint.read_about(finished / "best")
    assert about["answer"]["task"]["labels"] == ["0", "1"]
    assert about["special_tokens"] == {"start": 300, "delimiter": 301, "extract": 302}
    checkpoint.verify(finished / "best")


def test_the_first_update_has_rate_0_and_the_last_almost(pretrained, data, tmp_path):
    run = finetune(settings(pretrained, data, tmp_path / "run", log_every_updates=1, epochs=1))
    rates = [row["learning_rate"] for row in read_rows(run / "metrics.jsonl") if "learning_rate" in row]
    assert rates == pytest.approx([0, *(3e-3 * (1 - t / 6) for t in range(1, 6))])


LEARNT = [("sst2", "post"), *(
    pytest.param(files, norm, marks=pytest.mark.slow)
    for files in ("rte", "stsb", "choice", "own", "mrpc", "sst2") for norm in ("pre", "post")
    if (files, norm) != ("sst2", "post")
)]  # fmt: skip


@pytest.mark.parametrize(("files", "norm"), LEARNT)
def test_each_type_of_task_is_learnt(tokenizer, data, tmp_path, files, norm):
    """A rule that one word decides, from 200 examples and fresh weights: chance is 0.5, or no correlation."""
    start = "flat" if norm == "post" else "scaled"
    model = saved(tmp_path, tokenizer, GPTConfig(tokenizer.n_vocab, 48, 32, 2, 2, norm=norm, initialisation=start))
    more = {"choice": {"task": "choice", "columns": ("s", "a", "b", "l")},
            "own": {"task": "classification", "columns": ("text", "label")},
            "mrpc": {"task": "similarity", "columns": ("premise", "hypothesis", "label"), "files": "rte",
                     "epochs": 20}}  # fmt: skip
    changes = {"files": files, "task": files, "epochs": 12, "learning_rate": 5e-3} | more.get(files, {})
    run = finetune(settings(model, data, tmp_path / "run", **changes))
    score = json.loads((run / "scores.json").read_text())[0]
    assert score["value"] > 0.9, score
    rows = list(read_rows(run / "best/predictions.jsonl"))
    assert len(rows) == score["n"] == 60
    if files != "stsb":
        assert np.mean([row["predicted"] == row["label"] for row in rows]) == pytest.approx(score["value"])
    else:
        sides = [np.array([row[key] for row in rows]) for key in ("predicted", "label")]
        assert SCORES["pearson"](*sides).value == pytest.approx(score["value"])
        assert 1 < sides[0].mean() < 5


def test_the_kept_epoch_is_the_best_one(pretrained, data, tmp_path, monkeypatch):
    """Scores made to fall after the second epoch: the model of the second is kept, not the last."""
    values = iter([0.5, 0.9, 0.7])
    real = SCORES["accuracy"]
    monkeypatch.setitem(SCORES, "accuracy", lambda p, y: dataclasses.replace(real(p, y), value=next(values)))
    run = finetune(settings(pretrained, data, tmp_path / "run"))
    assert checkpoint.read_about(run / "best")["position"]["opt_step"] == 12
    assert json.loads((run / "scores.json").read_text())[0]["value"] == 0.9
    assert checkpoint.latest(run).name == "step-00000018"


def test_lm_coef_0_leaves_the_language_model_loss_out(pretrained, data, tmp_path):
    run = finetune(settings(pretrained, data, tmp_path / "run", lm_coef=0.0, epochs=1))
    assert all(row["lm_loss"] == 0 for row in read_rows(run / "metrics.jsonl") if "lm_loss" in row)


def test_fresh_weights_instead_of_the_checkpoints(pretrained, data, tmp_path):
    run = finetune(settings(pretrained, data, tmp_path / "run", pretrained=False, epochs=1, learning_rate=1e-9, seed=7))
    first = GPT(replace(load_model(pretrained)[0].config)).initialise(7)
    torch.testing.assert_close(load(run)[0].model.h["0"].attn.c_attn.weight, first.h["0"].attn.c_attn.weight)


# -------------------------------------------------------------------------------- the same numbers, come what may


def test_pieces_of_a_batch_are_the_batch(pretrained, data, tmp_path):
    """However an update is cut into forward passes, its losses are the same."""
    runs = {}
    for at_once in (8192, 60):
        changes = {"tokens_at_once": at_once, "dropout": 0.0, "epochs": 1, "log_every_updates": 1}
        run = finetune(settings(pretrained, data, tmp_path / str(at_once), **changes))
        runs[at_once] = [row for row in read_rows(run / "metrics.jsonl") if "task_loss" in row]
    for ours, theirs in zip(runs[60], runs[8192], strict=True):
        for name in ("task_loss", "lm_loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3), name


class StopHere(Exception):
    pass


@pytest.mark.parametrize("at", [1, 6, 7, 17])
def test_resumed_is_uninterrupted(finished, pretrained, data, tmp_path, monkeypatch, at):
    config = settings(pretrained, data, tmp_path / "run", checkpoint_every_s=0.0)
    real = module._update

    def failing(config, net, optimizer, train, position, *rest):
        row = real(config, net, optimizer, train, position, *rest)
        if position.opt_step == at + 1:
            raise StopHere
        return row

    with monkeypatch.context() as patch:
        patch.setattr(module, "_update", failing)
        with pytest.raises(StopHere):
            finetune(config)
    saved_as = from_json(FinetuneConfig, config.out / "config.json")
    assert saved_as == config
    finetune(config)
    assert_same_run(finished, config.out)


def run_command(config, **more):
    """The command in a process of its own, as the command line runs it."""
    program = "import sys; from rein.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, *command_line("finetune", config).split()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_killed_and_started_again(pretrained, data, tmp_path):
    finetune(settings(pretrained, data, tmp_path / "whole", epochs=6))
    config = settings(pretrained, data, tmp_path / "run", epochs=6, checkpoint_every_s=0.0)
    process = run_command(config)
    while process.poll() is None and not newest(config.out) >= 8:
        time.sleep(0.001)
    process.kill()
    _, messages = process.communicate()
    assert process.returncode == -signal.SIGKILL, messages
    for folder in checkpoint.all_steps(config.out / "checkpoints"):
        checkpoint.verify(folder)
    finetune(config)
    assert_same_run(tmp_path / "whole", config.out)


def newest(run):
    steps = checkpoint.all_steps(run / "checkpoints")
    return checkpoint.step_of(steps[-1]) if steps else 0


def test_ctrl_c_saves_and_the_same_command_goes_on(pretrained, data, tmp_path):
    config = settings(pretrained, data, tmp_path / "run", epochs=60, log_every_updates=1)
    process = run_command(config)
    while process.poll() is None and len(list(read_rows(tmp_path / "run/metrics.jsonl"))) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "Finishing this update and saving" in messages
    assert "Traceback" not in messages
    assert 2 <= newest(tmp_path / "run") < 360


def test_running_a_finished_run_again_changes_nothing(finished, pretrained, data):
    files = [*finished.rglob("*.safetensors"), finished / "metrics.jsonl", finished / "scores.json"]
    before = {path: path.read_bytes() for path in files}
    finetune(settings(pretrained, data, finished))
    assert {path: path.read_bytes() for path in files} == before


def test_another_file_under_the_same_name_is_another_run(finished, pretrained, data, tmp_path):
    copy, files = tmp_path / "run", tmp_path / "data"
    shutil.copytree(data, files)
    finetune(settings(pretrained, files, copy, epochs=1))
    (files / "sst2-train.txt").write_text((files / "sst2-train.txt").read_text().replace("cat", "dog"))
    with pytest.raises(UserError, match="have changed since"):
        finetune(settings(pretrained, files, copy, epochs=1))


def test_several_seeds_have_a_median_and_a_range(finished, pretrained, data, tmp_path, capsys):
    run = finetune(settings(pretrained, data, tmp_path / "run", seeds=3))
    (row,) = json.loads((run / "scores.json").read_text())
    assert len(row["values"]) == 3
    assert row["lowest"] == min(row["values"])
    assert row["median"] == sorted(row["values"])[1]
    assert "median" in capsys.readouterr().out
    first = json.loads((finished / "scores.json").read_text())[0]
    assert row["values"][0] == first["value"]  # seed 42, the default, in a folder of its own
    assert numbers(run / "seed-42") == numbers(finished)
    assert numbers(run / "seed-43") != numbers(finished)
    finetune(settings(pretrained, data, tmp_path / "run", seeds=3))  # and again: nothing to do


def test_bfloat16_gives_nearly_the_same_losses(finished, pretrained, data, tmp_path):
    run = finetune(settings(pretrained, data, tmp_path / "run", precision="bf16"))
    for ours, theirs in zip(numbers(run), numbers(finished), strict=True):
        if "lm_loss" in ours:
            assert ours["lm_loss"] == pytest.approx(theirs["lm_loss"], abs=0.05)


# ---------------------------------------------------------------------------------------------- predictions


def test_predictions_are_those_of_the_best_epoch(finished, data):
    rows = [Example((text,), (), None, str(number)) for number, (text, _) in enumerate(sentences(60, 1))]
    said = predict(finished, rows, precision="fp32")
    written = list(read_rows(finished / "best/predictions.jsonl"))
    assert [row["where"] for row in said] == [str(number) for number in range(60)]
    assert all("label" not in row for row in said)
    for ours, theirs in zip(said, written, strict=True):
        assert ours["predicted"] == theirs["predicted"]
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        assert ours["predicted"] == max(ours["probabilities"], key=ours["probabilities"].get)
    assert predict(finished, []) == []


def test_predict_from_the_command_line(finished, data, tmp_path, capsys):
    out = tmp_path / "said.jsonl"
    finetune(FinetuneConfig(checkpoint=finished, predict=data / "sst2-dev.txt", out=out, precision="fp32"))
    assert list(read_rows(out)) == list(read_rows(finished / "best/predictions.jsonl"))
    finetune(FinetuneConfig(checkpoint=finished, predict=data / "sst2-dev.txt"))
    assert len(capsys.readouterr().out.splitlines()) == 60


def test_the_best_epoch_is_a_model_that_other_commands_load(finished):
    model, tokenizer = load_model(finished / "best")
    assert model.config.n_vocab == tokenizer.n_vocab + 3


def test_gpt1_as_released_has_no_end_of_text_and_needs_none(data, tmp_path):
    """The three tokens then stand right behind the last merge, as in the released code."""
    from rein.bpe.gpt1 import train

    words = train([data / "sst2-train.txt"], 76)
    n_vocab = words.n_vocab - 1
    model = saved(tmp_path, words, GPTConfig(n_vocab, 48, 32, 2, 2, norm="post", initialisation="flat"))
    run = finetune(settings(model, data, tmp_path / "run", epochs=1))
    net, loaded = load(run)
    assert checkpoint.read_about(run / "best")["special_tokens"]["start"] == n_vocab
    assert net.model.config.n_vocab == n_vocab + 3
    assert loaded.encode("good").tolist() == words.encode("good").tolist()
    text, _ = sentences(60, 1)[0]
    said = predict(run, [Example((text,))], precision="fp32")
    assert said[0]["predicted"] == next(read_rows(run / "best/predictions.jsonl"))["predicted"]


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "sst3"}, "no task 'sst3'"),
        ({"task": ""}, "needs --task"),
        ({"data": ()}, "needs --data"),
        ({"heldout": ()}, "needs --heldout"),
        ({"out": None}, "needs --out"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"lm_coef": -1.0}, r"--lm-coef is -1\.0"),
        ({"head_dropout": 1.0}, r"--head-dropout is 1\.0"),
        ({"warmup_frac": -0.1}, r"--warmup-frac is -0\.1"),
        ({"predict": Path("x")}, "--predict is given with"),
        ({"device": "abacus"}, "--device abacus cannot be used"),
    ],
)
def test_bad_settings(pretrained, data, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        finetune(settings(pretrained, data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("train", "dev", "words"),
    [
        ("0 a\n0 b\n", "1 a\n", "All 2 training examples have the label 0"),
        ("", "1 a\n", "has no rows"),
        ("0 a\n1 b\n", "2 a\n", "the label '2' is none of 0, 1"),
        ("sentence\na\n", "1 a\n", "has no labels"),
    ],
)
def test_bad_files(pretrained, tmp_path, train, dev, words):
    (tmp_path / "a.txt").write_text(train)
    (tmp_path / "b.txt").write_text(dev)
    config = FinetuneConfig(checkpoint=pretrained, task="sst2", data=(tmp_path / "a.txt",),
                            heldout=(tmp_path / "b.txt",), out=tmp_path / "run")  # fmt: skip
    if train.startswith("sentence"):
        (tmp_path / "a.txt").write_text("sentence\tindex\na\t1\n")
    with pytest.raises(UserError, match=words):
        finetune(config)
    assert not (tmp_path / "run").exists()


def test_a_label_of_ones_own_that_is_only_in_the_held_out_file(pretrained, tmp_path):
    (tmp_path / "a.csv").write_text("t,l\nx,yes\ny,no\n")
    (tmp_path / "b.csv").write_text("t,l\nx,maybe\n")
    files = {"data": (tmp_path / "a.csv",), "heldout": (tmp_path / "b.csv",), "columns": ("t", "l")}
    config = FinetuneConfig(checkpoint=pretrained, task="classification", out=tmp_path / "run", **files)
    with pytest.raises(UserError, match=r"b\.csv:2: the label 'maybe' is none of no, yes"):
        finetune(config)


def test_fewer_examples_than_a_batch_are_one_batch(pretrained, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("0 a\n1 b\n0 c\n")
    config = FinetuneConfig(checkpoint=pretrained, task="sst2", data=(tmp_path / "a.txt",),
                            heldout=(tmp_path / "b.txt",), out=tmp_path / "run")  # fmt: skip
    assert [row["opt_step"] for row in numbers(finetune(config)) if "heldout_score" in row] == [1, 2, 3]


def test_a_context_too_short_for_the_task(tokenizer, data, tmp_path):
    model = saved(tmp_path, tokenizer, GPTConfig(tokenizer.n_vocab, 2, 16, 2, 1))
    with pytest.raises(UserError, match="n_ctx=2 has no room"):
        finetune(settings(model, data, tmp_path / "run"))


def test_a_checkpoint_without_tokenizer(pretrained, data, tmp_path):
    shutil.copytree(pretrained, tmp_path / "model")
    (tmp_path / "model/tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer at"):
        finetune(settings(tmp_path / "model", data, tmp_path / "run"))


def test_no_checkpoint(data, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        finetune(settings(tmp_path / "nowhere", data, tmp_path / "run"))


def test_predicting_with_what_is_not_fine_tuned(pretrained, data):
    with pytest.raises(UserError, match="holds no fine-tuned model"):
        finetune(FinetuneConfig(checkpoint=pretrained, predict=data / "sst2-dev.txt"))


def test_a_loss_that_is_not_a_number(pretrained, data, tmp_path):
    with pytest.raises(UserError, match=r"Update \d+ has loss .* gradient norm") as error:
        finetune(settings(pretrained, data, tmp_path / "run", learning_rate=1e25))
    assert "learning-rate (it is 1e+25)" in str(error.value)


def test_other_settings_in_the_same_folder(finished, pretrained, data):
    with pytest.raises(UserError, match=r"other settings .*lm_coef: 0\.5 → 0\.1"):
        finetune(settings(pretrained, data, finished, lm_coef=0.1))
