"""Runs of PPO: what they leave, the same bits however they are stopped, text mixed in, the guard, bad input."""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import ppo_cases
import pytest
import torch
from ppo_cases import graph, parts_of, save_reward, settings, trace
from safetensors.torch import load_file

from rein import checkpoint
from rein.bpe.trainer import train
from rein.config import command_line, flag_of, from_json, replace
from rein.errors import UserError
from rein.models.huggingface import load_model
from rein.models.scalar import Scalar, load_scalar
from rein.report.runs import RunReader
from rein.run import read_rows
from rein.text.build import BuildConfig, build
from rein.text.shards import Shards
from rein.train import ppo as module
from rein.train.policy_heldout import HeldOut
from rein.train.ppo import collect, learn, ppo
from rein.train.ppo_config import PPOConfig
from rein.train.ppo_parts import assemble, load
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig


@pytest.fixture(scope="module")
def place(tokenizer, tmp_path_factory):
    return ppo_cases.place(tokenizer, tmp_path_factory.mktemp("ppo"))


# ------------------------------------------------------------------------------------------------------ the run


TIMES = {"wall_s", "episodes_per_s", "rollout_frac", "peak_rss_bytes"}


def numbers(run):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(run / "metrics.jsonl")]


def assert_same_run(a, b):
    """Bit for bit: policy, value network, optimiser, the best policy, samples, every number but the times."""
    assert numbers(a) == numbers(b)
    assert (a / "samples.jsonl").read_text() == (b / "samples.jsonl").read_text()
    last = [checkpoint.latest(run) for run in (a, b)]
    assert last[0].name == last[1].name
    abouts = [checkpoint.read_about(folder) for folder in last]
    places = [{k: v for k, v in about["position"].items() if k != "wall_s"} for about in abouts]
    assert places[0] == places[1]
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in last]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith((".safetensors", ".distcp")):
            assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes(), name
    if (a / "best").exists():
        files = [load_file(run / "best/model.safetensors") for run in (a, b)]
        assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


class StopHereError(Exception):
    pass


def stopping(function, at):
    """The function, which fails the `at`-th time that it is called."""
    calls = iter(range(1, 10**6))

    def stop(*args, **kwargs):
        if next(calls) == at:
            raise StopHereError
        return function(*args, **kwargs)

    return stop


KILLS = {
    "stiennon2020": [("collect", 1), ("look", 2), ("gradients", 10)],
    "instructgpt2022": [("save", 2)],
    "ziegler2019": [("log_batch", 3)],
}
MORE_KILLS = {
    preset: [("collect", 3), ("learn", 2), ("gradients", 6), ("save", 1), ("evaluate", 2)] for preset in KILLS
}


@pytest.mark.parametrize("preset", KILLS)
def test_killed_anywhere_the_same_command_ends_with_the_same_bits(place, preset, monkeypatch):
    """Averages, minibatches, the adaptive coefficient, the guard and the place in the prompts: all of it goes on."""
    killed(place, preset, KILLS[preset], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("preset", MORE_KILLS)
def test_killed_in_other_places_too(place, preset, monkeypatch):
    killed(place, preset, MORE_KILLS[preset], monkeypatch)


def killed(place, preset, kills, monkeypatch):
    changes = {"preset": preset, "gold": "ppo_cases:brief", "checkpoint_every_s": 0.0, "evaluate_every_episodes": 16}
    whole = settings(place, f"whole-{preset}", **changes)
    ppo(whole)
    for name, at in kills:
        config = settings(place, f"killed-{preset}-{name}-{at}", **changes)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stopping(getattr(module, name), at))
            with pytest.raises(StopHereError):
                ppo(config)
        assert from_json(PPOConfig, config.out / "config.json") == config.settled()
        ppo(config)
        assert_same_run(whole.out, config.out)


def run_command(config):
    """The command in a process of its own, as the command line runs it."""
    program = "import sys; from rein.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, *shlex.split(command_line("ppo", config))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # ppo_cases
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_with_signal_9_the_same_command_ends_with_the_same_bits(place):
    changes = {"checkpoint_every_s": 0.0, "gold": "ppo_cases:brief", "episodes": 64}
    whole, config = settings(place, "whole-9", **changes), settings(place, "killed-9", **changes)
    ppo(whole)
    process = run_command(config)
    while process.poll() is None and len(checkpoint.all_steps(config.out / "checkpoints")) == 0:
        time.sleep(0.001)
    process.kill()
    _, messages = process.communicate()
    assert process.returncode == -signal.SIGKILL, messages
    process = run_command(config)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    assert_same_run(whole.out, config.out)


def test_ctrl_c_finishes_the_batch_and_saves(place, monkeypatch):
    config = settings(place, "interrupted")
    caught = []

    def interrupting(*args, **kwargs):
        caught.append(1)
        if len(caught) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "learn", interrupting)
        with pytest.raises(KeyboardInterrupt):
            ppo(config)
    assert checkpoint.read_about(checkpoint.latest(config.out))["position"]["batches"] == 2
    ppo(config)
    whole = settings(place, "not-interrupted")
    ppo(whole)
    assert_same_run(whole.out, config.out)


@pytest.fixture(scope="module")
def finished(place):
    config = settings(place, "finished", reward=str(place / "reward"), gold="ppo_cases:vowels", preset="n_plus",
                      heldout_reward="ppo_cases:brief")  # fmt: skip
    ppo(config)
    return config


def test_a_finished_run_has_a_policy_a_value_network_and_what_it_was(finished, place):
    folder = checkpoint.latest(finished.out)
    model, _ = load_model(folder)
    value, _ = load_scalar(folder / "value")
    start, _ = load_model(place / "sft")
    assert not torch.equal(model.wte, start.wte)
    assert isinstance(value, Scalar)
    about = checkpoint.read_about(folder)
    assert about["made_by"] == "ppo"
    assert len(about["parents"]) == 2
    assert about["position"]["episodes"] == 32
    assert about["position"]["opt_step"] == 16
    rows = list(read_rows(finished.out / "metrics.jsonl"))
    assert sum("score_mean" in row for row in rows) == 4
    evaluated = [row for row in rows if "heldout_proxy" in row]
    assert evaluated[0]["heldout_kl_nats"] == 0.0
    assert {"heldout_gold", "heldout_gold_stderr", "heldout_second", "heldout_rouge_l"} <= evaluated[0].keys()
    sample = next(iter(read_rows(finished.out / "samples.jsonl")))
    assert sample["text"] == sample["start"]  # before the first update
    assert sample["proxy"] == sample["start_proxy"]
    assert (finished.out / "report.html").exists()
    assert (finished.out / "best/model.safetensors").exists()


def test_episodes_beyond_whole_batches_are_said_to_be_left_out(place, capsys):
    config = settings(place, "uneven", episodes=17)
    ppo(config)
    said = capsys.readouterr().err
    assert "--episodes 17 does not come out in whole batches: 16 are done, in 2 batches" in said
    assert "16/16 episodes" in said
    assert checkpoint.read_about(checkpoint.latest(config.out))["position"]["episodes"] == 16
    ppo(settings(place, "even", episodes=16))
    assert "no multiple" not in capsys.readouterr().err


def test_running_a_finished_run_again_changes_nothing(finished):
    before = {path: path.read_bytes() for path in finished.out.rglob("*") if path.is_file() and path.name != "env.json"}
    ppo(finished)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_averaged_weights_are_the_result_and_the_raw_ones_go_on(place):
    config = settings(place, "averaged", preset="instructgpt2022", ema_decay=0.5)
    ppo(config)
    parts = assemble(config.settled())
    folder = checkpoint.latest(config.out)
    run = types.SimpleNamespace(path=config.out, truncate_after=lambda opt_step: None)
    load(run, config.settled(), parts)
    saved, _ = load_model(folder)
    assert torch.equal(saved.wte, parts.averaged.model.wte)
    assert not torch.equal(saved.wte, parts.actors.policy.wte)


def test_fifty_updates_are_traced(place):
    """For the golden trace: [score, KL, policy loss, value loss] of each batch."""
    rows = trace(place, place / "runs" / "traced")
    assert len(rows) == 12
    assert rows[0][1] == 0.0
    assert all(math.isfinite(x) for row in rows for x in row)


# ------------------------------------------------------------------------------------------------ pre-training text


@pytest.fixture(scope="module")
def corpus(place, tokenizer):
    text = place / "text.txt"
    text.write_text("\n".join(f"{n} plus {n * n % 89} makes {n + n * n % 89}" for n in range(600)))
    tokenizer.save(place / "tokenizer.json")
    build(BuildConfig(source="text", paths=(text,), out=place / "corpus", tokenizer=place / "tokenizer.json",
                      heldout_frac=0.1))  # fmt: skip
    return place / "corpus"


def test_the_pre_training_gradient_is_added_by_its_coefficient(place, corpus):
    """PPO's and the text's, one after the other: the sum of both, whatever the micro-batches."""
    config, parts, position = parts_of(
        settings(place, "none", ptx_data=corpus, ptx_coef=27.8, ptx_per_episode=2.0, epochs=1, tokens_at_once=80)
    )
    module._mix_in_text(config, parts, position, 4)
    found = graph(parts.actors)
    assert position.ptx_windows == 8
    windows_BT, _ = next(iter(parts.ptx.windows(0, 8, 10**6, parts.actors.world)))
    assert windows_BT.shape == (8, 41)
    (27.8 * parts.actors.policy.loss(windows_BT[:, :-1], windows_BT[:, 1:])).backward()
    expected = graph(parts.actors)
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5), name
    assert not any(name.startswith("value") for name in found)


def test_text_is_read_on_and_a_killed_run_goes_on_in_it(place, corpus, monkeypatch):
    changes = {"preset": "instructgpt2022", "ptx_data": corpus, "ptx_per_episode": 1.0, "ptx_tokens": 16,
               "checkpoint_every_s": 0.0}  # fmt: skip
    whole, config = settings(place, "ptx-whole", **changes), settings(place, "ptx-killed", **changes)
    ppo(whole)
    with monkeypatch.context() as patch:
        patch.setattr(module, "gradients", stopping(module.gradients, 21))
        with pytest.raises(StopHereError):
            ppo(config)
    ppo(config)
    assert_same_run(whole.out, config.out)
    rows = [row for row in read_rows(whole.out / "metrics.jsonl") if "ptx_loss" in row]
    assert checkpoint.read_about(checkpoint.latest(whole.out))["position"]["ptx_windows"] == 32
    assert rows[-1]["ptx_loss"] < rows[0]["ptx_loss"]  # it learns the text


# ---------------------------------------------------------------------------------------------------- the guard


def fake_curve(monkeypatch, truths):
    """Evaluations that say what the list says, at a KL that rises."""
    seen = iter(range(len(truths)))

    def row(self, written, model):
        n = next(seen)
        kl = float(n) ** 2
        return {
            "heldout_kl_nats": kl, "heldout_proxy": float(n), "heldout_proxy_stderr": 0.01, "heldout_gold": truths[n],
            "heldout_gold_stderr": 0.01, "heldout_response_tokens": 8.0, "heldout_no_eot_frac": 1.0,
        }  # fmt: skip

    monkeypatch.setattr(HeldOut, "_row", row)


FALLING = [d * (1.0 - 0.5 * math.log(max(d, 1e-9))) if d else 0.0 for d in range(20)]


def test_the_guard_stops_past_the_peak_and_the_same_command_stays_stopped(place, monkeypatch, capsys):
    fake_curve(monkeypatch, FALLING)
    config = settings(place, "stopped", episodes=160, evaluate_every_episodes=8, gold="ppo_cases:brief", guard="stop",
                      guard_patience_evaluations=2)  # fmt: skip
    ppo(config)
    position = checkpoint.read_about(checkpoint.latest(config.out))["position"]
    assert 40 < position["episodes"] < 160
    said = capsys.readouterr()
    assert "Stopped by the guard" in said.err
    assert said.out == f"policy     {config.out / 'best'}\n"
    assert checkpoint.read_about(config.out / "best")["position"]["episodes"] in (16, 24)  # the peak is at d = e
    for _ in range(2):
        listed = RunReader(config.out).summary()
        assert (listed.state, listed.why.split(" after")[0]) == ("stopped", "Stopped by the guard")
        ppo(config)
    assert checkpoint.read_about(checkpoint.latest(config.out))["position"]["episodes"] == position["episodes"]


def test_the_guard_raises_the_coefficient_or_only_warns(place, monkeypatch, capsys):
    changes = {"episodes": 80, "evaluate_every_episodes": 8, "gold": "ppo_cases:brief", "guard_patience_evaluations": 2,
               "epochs": 1}  # fmt: skip
    found = {}
    for guard in ("raise-kl", "warn"):
        with monkeypatch.context() as patch:
            fake_curve(patch, FALLING)
            config = settings(place, f"guard-{guard}", guard=guard, **changes)
            ppo(config)
        found[guard] = checkpoint.read_about(checkpoint.latest(config.out))["position"]["kl_coef"]
        assert "the peak" in capsys.readouterr().err
    assert found["raise-kl"] > found["warn"] == 0.05


def test_a_limit_of_the_kl_stops_a_run_without_any_truth(place, monkeypatch, capsys):
    def row(self, written, model):
        seen.append(2.0 * len(seen))
        return {"heldout_kl_nats": seen[-1], "heldout_proxy": 1.0, "heldout_response_tokens": 8.0,
                "heldout_no_eot_frac": 1.0}  # fmt: skip

    seen = []
    monkeypatch.setattr(HeldOut, "_row", row)
    config = settings(place, "limited", episodes=160, evaluate_every_episodes=8, guard="stop", kl_limit_nats=7.0)
    ppo(config)
    position = checkpoint.read_about(checkpoint.latest(config.out))["position"]
    assert position["episodes"] == 8 * 6  # 8, 10 and 12 nats, of which the first is beyond after 32
    assert checkpoint.read_about(config.out / "best")["position"]["episodes"] == 24  # 6 nats
    said = capsys.readouterr().err
    assert "guard, beyond the limit: No true score is watched; the KL is 12 nats now." in said
    assert "is the last policy with a KL of at most 7.0 nats." in said


def test_a_policy_beyond_the_limit_of_the_kl_is_never_the_best(place, monkeypatch, capsys):
    """Whatever its truth; and what the best one scores is said to be of the prompts that chose it."""
    fake_curve(monkeypatch, [float(n) for n in range(20)])
    config = settings(place, "limited-best", episodes=160, evaluate_every_episodes=8, gold="ppo_cases:brief",
                      guard="stop", kl_limit_nats=10.0)  # fmt: skip
    ppo(config)
    assert checkpoint.read_about(config.out / "best")["position"]["episodes"] == 24  # √KL of 3
    assert "with the best gold score, 3.000 on the prompts that it was chosen by." in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- an ensemble


def test_a_policy_is_trained_on_the_worst_of_an_ensemble(place, tokenizer):
    folder = place / "several"
    for n in range(2):
        save_reward(folder / "members" / f"seed-{n}", tokenizer, seed=n)
    save_reward(folder / "best", tokenizer, seed=1)
    changes = {"reward": str(folder), "episodes": 8}
    found = {}
    for how in ("best", "worst"):
        config, parts, position = parts_of(settings(place, "none", ensemble=how, **changes))
        found[how] = collect(config, parts, position).numbers["score_mean"]
    assert found["worst"] < found["best"]
    config = settings(place, "worst", ensemble="worst", **changes)
    ppo(config)
    save_reward(folder / "members" / "seed-0", tokenizer, seed=7)
    with pytest.raises(UserError, match="What --reward names has changed since"):
        ppo(config)


# ---------------------------------------------------------------------------------------------------- bad input


def test_the_same_weights_under_another_name_are_no_held_out_reward(place):
    shutil.copytree(place / "reward", place / "reward-copied")
    with pytest.raises(UserError, match=r"--heldout-reward .*reward-copied has the weights of what .* is trained on"):
        ppo(settings(place, "none", reward=str(place / "reward"), heldout_reward=str(place / "reward-copied")))


def test_a_limit_of_the_kl_without_held_out_prompts_is_stopped(place):
    (place / "no-others.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(UserError, match="--kl-limit-nats is given, but there are 0 held-out prompts"):
        ppo(settings(place, "no-others", prompts=place / "no-others.jsonl", kl_limit_nats=3.0, guard="stop"))


def test_a_reward_model_of_another_format_is_stopped(place, tokenizer):
    save_reward(place / "of-tldr", tokenizer, format="tldr", query_tokens=None)
    for name in ("reward", "heldout_reward"):
        with pytest.raises(UserError, match=f"{flag_of(name)} .*of-tldr was trained on queries of --format tldr"):
            ppo(settings(place, f"format-{name}", **{name: str(place / "of-tldr")}))


def test_the_format_that_a_policy_was_taught_is_named(place, capsys):
    taught = place / "taught-instruct"
    shutil.copytree(place / "sft", taught)
    said = json.loads((taught / "rein.json").read_text()) if (taught / "rein.json").exists() else {}
    (taught / "rein.json").write_text(json.dumps({**said, "config": {"format": "instruct"}}))
    parts_of(settings(place, "other-format", policy=taught))
    assert "was taught the format instruct, but is asked in plain: give --format instruct" in capsys.readouterr().err
    long = place / "posts.jsonl"
    long.write_text('{"subreddit": "a", "title": "b", "post": "c"}\n')
    with pytest.raises(UserError, match=r"(?s)format tldr, query_tokens=512 .*taught the format instruct.*--format i"):
        parts_of(settings(place, "long-format", policy=taught, prompts=long, format="tldr", query_tokens=512))
    capsys.readouterr()
    (taught / "rein.json").write_text(json.dumps({**said, "config": {"format": "plain"}}))
    parts_of(settings(place, "same-format", policy=taught))
    assert "was taught" not in capsys.readouterr().err


def test_another_held_out_reward_or_another_text_is_another_run(place, corpus, tokenizer):
    save_reward(place / "second", tokenizer, seed=5)
    shutil.copytree(corpus, place / "copied-corpus")
    config = settings(place, "resumed", heldout_reward=str(place / "second"), ptx_data=place / "copied-corpus",
                      ptx_coef=1.0, ptx_per_episode=1.0, episodes=16)  # fmt: skip
    ppo(config)
    shutil.rmtree(place / "copied-corpus")
    text = place / "changed.txt"
    text.write_text("\n".join(f"{n} and then {n * n}" for n in range(600)))
    build(BuildConfig(source="text", paths=(text,), out=place / "copied-corpus", tokenizer=place / "tokenizer.json",
                      heldout_frac=0.1))  # fmt: skip
    with pytest.raises(UserError, match="What --ptx-data names has changed since"):
        ppo(config)
    shutil.rmtree(place / "copied-corpus")
    shutil.copytree(corpus, place / "copied-corpus")
    ppo(config)
    save_reward(place / "second", tokenizer, seed=6)
    with pytest.raises(UserError, match="What --heldout-reward names has changed since"):
        ppo(config)


def test_another_preset_in_the_same_folder_is_another_run(finished, place):
    with pytest.raises(UserError, match=r"holds a run with other settings \(.*preset: 'n_plus' → 'stiennon2020'"):
        ppo(replace(finished, preset="stiennon2020", unended=None, adam_eps=None))


def test_rewards_that_never_differ_stop_the_run(place, capsys):
    with pytest.raises(UserError, match="batch 3 have the score 1, as those of the 2 batches before did"):
        ppo(settings(place, "flat", reward="ppo_cases:flat"))
    assert "All 8 responses of batch 1 have the score 1: only the KL penalty" in capsys.readouterr().err


def test_a_reward_that_is_no_number_stops_before_any_weight_changes(place, monkeypatch):
    config = settings(place, "nan", checkpoint_every_s=0.0)
    monkeypatch.setattr(ppo_cases, "vowels", lambda context, text: float("nan"))
    with pytest.raises(UserError, match=r"ppo_cases:vowels scores the response .* as nan, and \d more of"):
        ppo(config)
    assert checkpoint.all_steps(config.out / "checkpoints") == []


def test_an_update_that_is_no_number_is_not_made(place, monkeypatch):
    config, parts, position = parts_of(settings(place, "none"))
    experience = collect(config, parts, position)
    experience.old.logprobs_M[0] = float("nan")
    before = parts.actors.policy.wte.detach().clone()
    with pytest.raises(UserError, match=r"Update 1 has .*nan.*The weights were not changed by it"):
        learn(config, parts, experience, position)
    assert torch.equal(parts.actors.policy.wte, before)


def test_a_reward_model_of_another_tokenizer_is_stopped(place):
    other = train(["other words, of another text " * 50], 262)
    save_reward(place / "other", other)
    with pytest.raises(UserError, match="has another tokenizer than the policy"):
        ppo(settings(place, "other-tokenizer", reward=str(place / "other")))
    assert not (place / "runs" / "other-tokenizer").exists()


def test_text_of_another_tokenizer_is_stopped(place):
    text = place / "other.txt"
    text.write_text("\n".join(f"{n} and other words" for n in range(400)))
    build(BuildConfig(source="text", paths=(text,), out=place / "other-corpus", n_vocab=270, heldout_frac=0.1))
    with pytest.raises(UserError, match=r"--ptx-data .* has another tokenizer than the model"):
        ppo(settings(place, "none", preset="instructgpt2022", ptx_data=place / "other-corpus"))
    with pytest.raises(UserError, match="--ptx-tokens is 99, but the model has n_ctx=40"):
        ppo(settings(place, "none", preset="instructgpt2022", ptx_data=place / "other-corpus", ptx_tokens=99))


def test_a_gold_score_without_held_out_prompts_is_stopped(place):
    (place / "train-only.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(UserError, match="--gold is given, but there are 0 held-out prompts"):
        ppo(settings(place, "no-heldout", prompts=place / "train-only.jsonl", gold="ppo_cases:brief"))


def test_prompts_that_changed_since_the_run_began_are_named(place):
    prompts = place / "changing.jsonl"
    shutil.copy(place / "prompts.jsonl", prompts)
    config = settings(place, "changing", prompts=prompts)
    ppo(config)
    with prompts.open("a") as file:
        file.write('{"prompt": "one more"}\n')
    with pytest.raises(UserError, match="What --prompts names has changed since"):
        ppo(config)


def test_a_pad_that_equals_the_end_of_text_is_harmless(place, tokenizer):
    """As GPT-2's users set it: nothing here reads a padding token, so the end of text is still learned."""
    folder = place / "padded"
    shutil.copytree(place / "sft", folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "pad_token_id": tokenizer.eot_id}))
    found = []
    for policy in (place / "sft", folder):
        config, parts, position = parts_of(settings(place, "none", policy=policy))
        found.append(collect(config, parts, position))
    assert found[0].completions == found[1].completions
    assert torch.equal(found[0].old.logprobs_M, found[1].old.logprobs_M)


def test_the_report_shows_reward_against_kl_and_samples_side_by_side(finished):
    page = (finished.out / "report.html").read_text()
    assert "Reward against KL" in page
    assert "At the start: " in page
    assert "KL coefficient was 0.05 throughout" in page


# ------------------------------------------------------------------------------------------------ the alignment tax


def heldout_loss(policy, corpus):
    """Nats per token of a corpus's held-out text."""
    model, _ = load_model(checkpoint.latest(policy))
    shards = Shards(corpus, "heldout")
    n_ctx = model.config.n_ctx
    starts = np.arange(0, shards.n_tokens - n_ctx - 1, n_ctx)
    windows_BT = torch.from_numpy(shards.windows(starts, n_ctx + 1))
    with torch.no_grad():
        return float(model.loss(windows_BT[:, :-1], windows_BT[:, 1:]))


@pytest.mark.slow
def test_pre_training_gradients_undo_the_alignment_tax(small_corpus, tmp_path):
    """PPO alone makes the held-out text less likely; with the text mixed in as in the paper it does not, and learns."""
    start = pretrain(PretrainConfig(
        data=small_corpus, out=tmp_path / "start", n_layer=2, n_embd=64, n_head=2, n_ctx=48, dropout=0.0,
        sequences_per_batch=16, train_tokens=400_000, learning_rate=3e-3, precision="fp32", sample_prompts=(),
    ))  # fmt: skip
    rows = [{"prompt": f"def number_{n}(", "split": "train" if n < 60 else "valid"} for n in range(70)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {}
    for name, ptx_data in (("ppo", None), ("ptx", small_corpus)):
        out = ppo(PPOConfig(
            policy=start, reward="ppo_cases:vowels", prompts=tmp_path / "prompts.jsonl", out=tmp_path / name,
            preset="instructgpt2022", format="plain", query_tokens=24, response_tokens=16, episodes=2048,
            episodes_per_batch=64, minibatches=2, learning_rate=1e-3, value_learning_rate=1e-3, ema_decay=0.0,
            kl_coef=0.02, ptx_data=ptx_data, precision="fp32", heldout_prompts=10,
        ))  # fmt: skip
        scores = [row["score_mean"] for row in read_rows(out / "metrics.jsonl") if "score_mean" in row]
        found[name] = sum(scores[:6]) / 6, sum(scores[-6:]) / 6, heldout_loss(out, small_corpus)
    before = heldout_loss(start, small_corpus)
    print(f"held-out loss {before:.3f} before; (score first, last, held-out loss): {found}")
    tax = found["ppo"][2] - before
    assert tax > 0.1
    assert found["ptx"][2] - before < 0.2 * tax
    for first, last, _ in found.values():
        assert last > first + 0.1


def test_in_bfloat16_too_the_held_out_kl_begins_at_0(place, tmp_path):
    ppo(settings(place, "none", out=tmp_path / "run", precision="bf16", episodes=8))
    evaluated = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "heldout_proxy" in row]
    assert evaluated[0]["heldout_kl_nats"] == 0.0
