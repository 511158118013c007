"""The supervised start: that it learns, what it leaves behind, and that nothing that happens to it changes numbers."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ppo_cases import save_reward
from safetensors.torch import load_file

from rein import checkpoint
from rein.bpe.gpt1 import train as train_gpt1
from rein.bpe.tokenizer import load_tokenizer
from rein.config import from_flags, from_json, replace
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import load_model, save_model
from rein.run import read_rows
from rein.train import sft as module
from rein.train.pretraining_text import pretraining_text
from rein.train.rlhf_presets import SFT
from rein.train.sft import sft
from rein.train.sft_config import SFTConfig

NOUNS = ["cat", "dog", "car", "tree", "house", "river", "stone", "bird", "lamp", "road"]


@pytest.fixture(scope="module")
def pretrained(tokenizer, tmp_path_factory):
    """A GPT with random weights: what pre-training would give is of no matter here."""
    return saved(tmp_path_factory.mktemp("pretrained"), tokenizer)


def saved(folder, tokenizer, **shape):
    shape = {"n_vocab": tokenizer.n_vocab, "n_ctx": 48, "n_embd": 32, "n_head": 2, "n_layer": 2, **shape}
    save_model(folder, GPT(GPTConfig(**shape)).initialise(0), tokenizer)
    return folder


def rows(n, seed, split):
    rng = random.Random(seed)
    found = []
    for place in range(n):
        words = rng.sample(NOUNS, 2)
        found.append({"prompt": f"{words[0]} {words[1]} {place} ->", "response": f" {words[0]}", "split": split})
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(96, 0, "train") + rows(16, 1, "valid")))
    return path


def settings(start, data, run, /, **changes):
    plain = {
        "checkpoint": start, "data": (data,), "out": run, "format": "plain", "learning_rate": 3e-3, "epochs": 3,
        "demonstrations_per_batch": 16, "log_every_updates": 2, "precision": "fp32", "samples": 4, "sample_tokens": 6,
    }  # fmt: skip
    return SFTConfig(**(plain | changes))


def exactly(context, text):
    """A gold score: whether the answer is the first word of the query."""
    return float(text.strip() == context["prompt"].split()[0])


def length(context, text):
    """A gold score that is highest for what an untrained model writes."""
    return float(len(text))


@pytest.fixture(scope="module")
def finished(pretrained, data, tmp_path_factory):
    return sft(settings(pretrained, data, tmp_path_factory.mktemp("finished") / "run"))


TIMES = {"wall_s", "tokens_per_s", "peak_rss_bytes"}


def numbers(run):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(run / "metrics.jsonl")]


def assert_same_run(a, b):
    """Bit for bit: weights, optimiser, the best weights, samples, every number but the times."""
    assert numbers(a) == numbers(b)
    assert (a / "samples.jsonl").read_bytes() == (b / "samples.jsonl").read_bytes()
    last = [checkpoint.latest(run) for run in (a, b)]
    assert last[0].name == last[1].name
    for first, second in (last, (a / "best", b / "best")):
        ours, theirs = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    for first, second in zip(*(sorted((folder / checkpoint.STATE).iterdir()) for folder in last), strict=True):
        assert first.suffix != ".distcp" or first.read_bytes() == second.read_bytes()


# ---------------------------------------------------------------------------------------------------- a run


def test_it_learns_to_answer_and_says_how_well(finished):
    found = [row for row in read_rows(finished / "metrics.jsonl") if "heldout_loss" in row]
    assert [row["opt_step"] for row in found] == [0, 6, 12, 18]
    losses = [row["heldout_loss"] for row in found]
    assert losses[-1] < losses[0] - 1
    assert min(losses) == pytest.approx(checkpoint.read_about(finished / "best")["scores"]["heldout_loss"])
    assert all(row["heldout_no_eot_frac"] in (0, 0.25, 0.5, 0.75, 1) for row in found)
    train = [row["train_loss"] for row in read_rows(finished / "metrics.jsonl") if "train_loss" in row]
    assert train[-1] < train[0] - 1
    assert "heldout_loss" in (finished / "report.html").read_text()


def test_its_best_weights_are_an_ordinary_model(finished, tokenizer):
    about = checkpoint.read_about(finished / "best")
    assert about["made_by"] == "sft"
    assert len(about["parents"][0]) == 64  # a digest of the weights that it began from
    model, own = load_model(finished / "best")
    assert own.sha256() == tokenizer.sha256()
    assert model.config.dropout == 0


def test_samples_are_kept_with_their_queries_and_references(finished):
    kept = list(read_rows(finished / "samples.jsonl"))
    assert [row["opt_step"] for row in kept] == [step for step in (0, 6, 12, 18) for _ in range(4)]
    assert [row["prompt"] for row in kept[:4]] == [row["prompt"] for row in kept[4:8]]
    assert all(row["prompt"].endswith("->") and row["reference"].startswith(" ") for row in kept)


def test_a_config_file_is_the_run(finished):
    config = from_json(SFTConfig, finished / "config.json")
    assert (config.preset, config.epochs, config.adam_b2, config.loss_on) == ("stiennon2020", 3, 0.999, "response")


def test_it_runs_from_flags(pretrained, data, tmp_path, capsys):
    words = [str(pretrained), "--data", str(data), "--out", str(tmp_path / "run"), "--format", "plain", "--epochs", "1",
             "--demonstrations-per-batch", "48", "--samples", "0"]  # fmt: skip
    sft(from_flags(SFTConfig, words, prog="rein sft"))
    said = capsys.readouterr()
    assert "best: heldout_loss" in said.out
    assert "preset     stiennon2020, but for format plain (tldr); demonstrations_per_batch 48 (128)" in said.err
    assert "96 demonstrations" in said.err


# ------------------------------------------------------------------------------------------------ selection


def test_the_lowest_heldout_loss_is_kept(pretrained, data, tmp_path):
    run = sft(settings(pretrained, data, tmp_path / "run", epochs=6, learning_rate=1e-2, final_frac=1.0))
    losses = {row["opt_step"]: row["heldout_loss"] for row in read_rows(run / "metrics.jsonl")
              if "heldout_loss" in row and row["opt_step"]}  # fmt: skip
    assert checkpoint.read_about(run / "best")["position"]["opt_step"] == min(losses, key=losses.get)


def test_a_reward_model_of_another_format_selects_nothing(pretrained, data, tokenizer, tmp_path):
    save_reward(tmp_path / "reward", tokenizer, format="tldr", query_tokens=None)
    with pytest.raises(
        UserError, match=r"--reward .* was trained on queries of --format tldr, but they are plain here"
    ):
        sft(settings(pretrained, data, tmp_path / "run", select="reward", reward=str(tmp_path / "reward"), samples=8))


def test_a_score_can_decide_otherwise_than_the_loss(pretrained, data, tmp_path, monkeypatch):
    module_of_gold(monkeypatch)
    run = sft(settings(pretrained, data, tmp_path / "run", select="reward", reward="sft_gold:length", samples=8))
    found = {row["opt_step"]: row for row in read_rows(run / "metrics.jsonl") if "heldout_reward" in row}
    assert sorted(found) == [0, 6, 12, 18]
    kept = checkpoint.read_about(run / "best")
    trained = {step: row["heldout_reward"] for step, row in found.items() if step}
    assert kept["position"]["opt_step"] == max(trained, key=trained.get)
    assert kept["scores"]["heldout_reward"] == max(trained.values())
    assert all("score" in row for row in read_rows(run / "samples.jsonl"))


def module_of_gold(monkeypatch):
    import types

    gold = types.ModuleType("sft_gold")
    gold.length, gold.exactly = length, exactly
    monkeypatch.setitem(sys.modules, "sft_gold", gold)


def test_evaluations_between_epochs(pretrained, data, tmp_path):
    run = sft(settings(pretrained, data, tmp_path / "run", epochs=1, evaluate_every_updates=4, samples=0))
    assert [row["opt_step"] for row in read_rows(run / "metrics.jsonl") if "heldout_loss" in row] == [0, 4, 6]
    assert not (run / "samples.jsonl").exists()


# ------------------------------------------------------------------------------------------ pre-training text


@pytest.fixture(scope="module")
def reader(small_corpus, tmp_path_factory):
    """A model that reads the tokens of the corpus."""
    return saved(tmp_path_factory.mktemp("reader"), load_tokenizer(small_corpus), n_ctx=64)


@pytest.fixture(scope="module")
def mixed(reader, data, small_corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed") / "run"
    return sft(settings(reader, data, out, ptx_data=small_corpus, ptx_frac=0.4, ptx_tokens=16))


def text_losses(run):
    return [row["heldout_text_loss"] for row in read_rows(run / "metrics.jsonl") if "heldout_text_loss" in row]


def test_text_is_a_share_of_what_is_learned(mixed):
    position = checkpoint.read_about(checkpoint.latest(mixed))["position"]
    text = 15 * position["text_windows"]
    assert position["learned_tokens"] > 1000
    assert text / (text + position["learned_tokens"]) == pytest.approx(0.4, abs=8 / (text + position["learned_tokens"]))


def test_it_learns_the_text_too(mixed, reader, data, small_corpus, tmp_path):
    losses, without = text_losses(mixed), sft(settings(reader, data, tmp_path / "without"))
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.2
    assert text_losses(without) == []
    text = pretraining_text(small_corpus, load_tokenizer(small_corpus), GPTConfig(400, 64, 32, 2, 2), length=16, seed=0)
    windows = text.heldout(64)[:, :-1]
    model = load_model(checkpoint.latest(without))[0]
    with torch.no_grad():
        assert float(model.loss(windows[:, :-1], windows[:, 1:])) > losses[-1] + 0.2


def test_its_loss_on_text_is_the_language_loss(mixed, small_corpus):
    model, tokenizer = load_model(checkpoint.latest(mixed))
    windows = pretraining_text(small_corpus, tokenizer, model.config, length=16, seed=0).heldout(64)
    assert windows.shape == (64, 17)
    windows = windows[:, :-1]
    with torch.no_grad():
        assert float(model.loss(windows[:, :-1], windows[:, 1:])) == pytest.approx(text_losses(mixed)[-1], abs=1e-5)


def test_a_batch_is_demonstrations_and_text_each_token_alike(reader, data, small_corpus, tmp_path, monkeypatch):
    seen, plain = [], module.loss_of

    def loss_of(model, some, precision, *, pack=False):
        found = plain(model, some, precision, pack=pack)
        seen.extend([(sum(each.n_learned for each in some), float(found.detach()))] if model.training else [])
        return found

    monkeypatch.setattr(module, "loss_of", loss_of)
    config = settings(reader, data, tmp_path / "run", ptx_data=small_corpus, ptx_frac=0.4, ptx_tokens=16,
                      log_every_updates=1, epochs=1, samples=0, tokens_at_once=256)  # fmt: skip
    logged = [row["train_loss"] for row in read_rows(sft(config) / "metrics.jsonl") if "train_loss" in row]
    groups = len(seen) // len(logged)
    first = seen[:groups]
    assert sum(loss for _, loss in first) / sum(n for n, _ in first) == pytest.approx(logged[0], rel=1e-5)
    assert sum(n for n, _ in first) > 100


def test_a_window_may_be_as_long_as_the_context(reader, data, small_corpus, tmp_path):
    run = sft(settings(reader, data, tmp_path / "run", ptx_data=small_corpus, ptx_frac=0.4, epochs=1, samples=0))
    assert checkpoint.read_about(checkpoint.latest(run))["position"]["text_windows"] == round(2 / 3 * 422 / 63)
    packed = sft(settings(reader, data, tmp_path / "packed", ptx_data=small_corpus, ptx_frac=0.4, epochs=1, samples=0,
                          pack=True))  # fmt: skip
    assert text_losses(packed) == pytest.approx(text_losses(run), abs=1e-4)


def test_a_mixed_run_goes_on_to_the_same_bits(mixed, reader, data, small_corpus, tmp_path, monkeypatch):
    config = settings(reader, data, tmp_path / "run", ptx_data=small_corpus, ptx_frac=0.4, ptx_tokens=16)
    interrupted_after(5, config, monkeypatch)
    sft(config)
    assert_same_run(config.out, mixed)


def test_text_that_has_changed_is_named(reader, data, small_corpus, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    config = settings(reader, data, tmp_path / "run", ptx_data=corpus, ptx_frac=0.1, ptx_tokens=16, epochs=1, samples=0)
    sft(config)
    manifest = next(path for path in corpus.iterdir() if path.name == "manifest.json")
    manifest.write_text(manifest.read_text().replace('"splits"', '"about": "another", "splits"', 1))
    with pytest.raises(UserError, match=r"The text of .* has changed since"):
        sft(config)


def test_text_of_another_tokenizer_is_named(pretrained, reader, data, small_corpus, tmp_path):
    with pytest.raises(UserError, match=r"--ptx-data .* has another tokenizer than the model"):
        sft(settings(pretrained, data, tmp_path / "run", ptx_data=small_corpus, ptx_frac=0.1))
    with pytest.raises(UserError, match=r"The corpus .*nowhere does not exist"):
        sft(settings(reader, data, tmp_path / "run", ptx_data=tmp_path / "nowhere", ptx_frac=0.1))
    with pytest.raises(UserError, match="--ptx-tokens is 99, but the model has n_ctx=64"):
        sft(settings(reader, data, tmp_path / "run", ptx_data=small_corpus, ptx_frac=0.1, ptx_tokens=99))
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------- resuming


def interrupted_after(n, config, monkeypatch):
    """Starts a run whose n-th update is followed by a Ctrl-C."""
    plain, done = module._update, []

    def update(*arguments):
        row = plain(*arguments)
        done.append(row)
        if len(done) == n:
            os.kill(os.getpid(), signal.SIGINT)
        return row

    with monkeypatch.context() as patch:
        patch.setattr(module, "_update", update)
        with pytest.raises(KeyboardInterrupt):
            sft(config)


@pytest.mark.parametrize("after", [1, 5, 6, 7])
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(pretrained, data, finished, tmp_path, monkeypatch, after):
    config = settings(pretrained, data, tmp_path / "run")
    interrupted_after(after, config, monkeypatch)
    assert checkpoint.step_of(checkpoint.latest(config.out)) == after
    sft(config)
    assert_same_run(config.out, finished)


@pytest.mark.parametrize("options", [{"residual_dropout": 0.2}, {"pack": True}, {"loss_on": "all"}], ids=str)
def test_so_does_one_with_dropout_or_packed(pretrained, data, tmp_path, monkeypatch, options):
    whole = sft(settings(pretrained, data, tmp_path / "whole", epochs=1, **options))
    config = settings(pretrained, data, tmp_path / "run", epochs=1, **options)
    interrupted_after(2, config, monkeypatch)
    sft(config)
    assert_same_run(config.out, whole)


def test_a_run_that_is_killed_goes_on_to_the_same_bits(pretrained, data, finished, tmp_path):
    config = settings(pretrained, data, tmp_path / "run", checkpoint_every_s=1e-9)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads((finished / "config.json").read_text()), "out": str(config.out),
                                "checkpoint_every_s": 1e-9}))  # fmt: skip
    code = "from pathlib import Path; from rein.config import from_json; from rein.train.sft import sft; from " \
           f"rein.train.sft_config import SFTConfig; sft(from_json(SFTConfig, Path({str(path)!r})))"  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not any(checkpoint.step_of(one) >= 3 for one in checkpoint.all_steps(config.out / "checkpoints")):
        assert time.monotonic() < end, "no checkpoint came"
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    sft(from_json(SFTConfig, path))
    assert_same_run(config.out, finished)


def test_a_finished_run_is_left_as_it_is(finished, pretrained, data):
    before = (finished / "best/model.safetensors").stat().st_mtime_ns
    assert sft(replace(from_json(SFTConfig, finished / "config.json"))) == finished
    assert (finished / "best/model.safetensors").stat().st_mtime_ns == before


def test_a_run_is_not_continued_with_what_it_was_not_begun_with(pretrained, data, tokenizer, tmp_path):
    start, own = tmp_path / "start", tmp_path / "rows.jsonl"
    shutil.copytree(pretrained, start)
    shutil.copy(data, own)
    config = settings(start, own, tmp_path / "run", epochs=1, samples=0)
    sft(config)
    with pytest.raises(UserError, match=r"other settings.*preset"):
        sft(replace(config, preset="n_plus"))
    own.write_text(data.read_text().replace("cat", "cow"))
    with pytest.raises(UserError, match="demonstrations have changed since"):
        sft(config)
    shutil.copy(data, own)
    saved(start, tokenizer, n_embd=16)
    with pytest.raises(UserError, match=r"The model .* has changed since"):
        sft(config)


# ------------------------------------------------------------------------------------------------- bad input


def test_settings_that_cannot_be_are_named(pretrained, data, tmp_path):
    for changes, words in (
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
        ({"samples": -1}, "--samples is -1"),
        ({"heldout_frac": 1.5}, "--heldout-frac is 1.5, but it must be from 0 to 1"),
        ({"residual_dropout": 1.0}, "--residual-dropout is 1"),
        ({"preset": "stiennon"}, "Did you mean stiennon2020"),
        ({"format": "tlrd"}, "Did you mean tldr"),
        ({"data": ()}, "nothing to learn from"),
        ({"store": "labels.db"}, "--store and --project go together"),
        ({"preset": "instructgpt2022"}, "no --reward is given"),
        ({"select": "reward", "reward": "a:b", "samples": 0}, "--samples is 0"),
        ({"preset": "instructgpt2022_rlhf_init"}, r"no text to mix in, and --ptx-frac is 0.1 \(instructgpt2022_rlhf"),
        ({"ptx_frac": 0.2}, "no text to mix in, and --ptx-frac is 0.2"),
        ({"ptx_data": Path("corpus")}, r"--ptx-data is given, but --ptx-frac is 0"),
        ({"ptx_data": Path("corpus"), "ptx_frac": 1.0}, "leaves no demonstrations"),
    ):
        with pytest.raises(UserError, match=words):
            settings(pretrained, data, tmp_path / "run", **changes)


def test_a_model_without_an_end_of_text_is_named(data, tmp_path):
    tokenizer = train_gpt1(["the cat sat on the mat and the dog sat too " * 20], 38)
    start = tmp_path / "gpt1"
    start.mkdir()
    config = GPTConfig(tokenizer.n_vocab - 1, 48, 16, 2, 1, norm="post", initialisation="flat")
    save_model(start, GPT(config).initialise(0), tokenizer)
    with pytest.raises(UserError, match="has no end-of-text token"):
        sft(settings(start, data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_before_it_harms(pretrained, data, tmp_path, monkeypatch):
    plain = module.loss_of

    def broken(model, some, precision, *, pack=False):
        return plain(model, some, precision, pack=pack) * (float("nan") if model.training else 1.0)

    monkeypatch.setattr(module, "loss_of", broken)
    with pytest.raises(UserError, match="Update 1 has loss nan"):
        sft(settings(pretrained, data, tmp_path / "run"))


def test_no_room_for_a_sample_that_is_to_be_scored(pretrained, data, tmp_path, monkeypatch):
    module_of_gold(monkeypatch)
    with pytest.raises(UserError, match="No held-out query leaves room for a sample of 46 tokens"):
        sft(settings(pretrained, data, tmp_path / "run", reward="sft_gold:exactly", sample_tokens=46))


def test_a_damaged_checkpoint_is_named(pretrained, data, tmp_path):
    config = settings(pretrained, data, tmp_path / "run", epochs=1, samples=0)
    sft(config)
    path = checkpoint.latest(config.out) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="was cut short or replaced"):
        sft(config)


# --------------------------------------------------------------------------------------------------- presets


def test_presets_are_the_papers():
    stiennon, instruct, plus = (SFT[name] for name in ("stiennon2020", "instructgpt2022", "n_plus"))
    init = SFT["instructgpt2022_rlhf_init"]
    assert (init.learning_rate, init.demonstrations_per_batch, init.epochs) == (5e-6, 32, 2)
    assert (init.final_frac, init.ptx_frac, init.select, init.adam_b2) == (0.1, 0.1, "loss", 0.95)
    assert {one.ptx_frac for one in (stiennon, instruct, plus)} == {0.0}
    assert (stiennon.format, stiennon.learning_rate, stiennon.demonstrations_per_batch, stiennon.epochs) == (
        "tldr", 6.35e-5, 128, 1)  # fmt: skip
    assert (instruct.learning_rate, instruct.demonstrations_per_batch, instruct.epochs) == (9.65e-6, 32, 16)
    assert (instruct.final_frac, instruct.residual_dropout, instruct.select, instruct.adam_b2) == (
        0.1, 0.2, "reward", 0.95)  # fmt: skip
    assert (plus.learning_rate, plus.adam_eps, plus.loss_on, plus.format) == (3e-6, 1e-5, "all", "n_plus")


@pytest.mark.parametrize("name", SFT)
def test_a_preset_fills_in_what_is_not_given(name):
    given = {"reward": "a:b"} if SFT[name].select == "reward" else {}
    given |= {"ptx_data": Path("corpus")} if SFT[name].ptx_frac else {}
    config = SFTConfig(Path("gpt"), data=(Path("a"),), out=Path("b"), preset=name, epochs=5, **given)
    settled = config.settled()
    assert settled.epochs == 5
    assert settled.learning_rate == SFT[name].learning_rate
    assert all(getattr(settled, each) is not None for each in ("format", "loss_on", "select", "clip_norm", "adam_eps"))
    assert config.differs() == [f"epochs 5 ({SFT[name].epochs})"]
    assert settled.settled() == settled


def test_the_rate_falls_from_its_peak_to_where_the_cosine_ends(pretrained, data, tmp_path):
    run = sft(settings(pretrained, data, tmp_path / "run", log_every_updates=1, final_frac=0.1, samples=0, epochs=2))
    rates = [row["learning_rate"] for row in read_rows(run / "metrics.jsonl") if "learning_rate" in row]
    assert rates[0] == 3e-3
    assert rates == sorted(rates, reverse=True)
    assert 3e-4 < rates[-1] < 4e-4
