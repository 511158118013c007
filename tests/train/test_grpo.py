"""GRPO and RLOO as runs: they climb a gold score, begin at ratio 1 and KL 0, and nothing changes their numbers."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from preferences import policy, prompts, write
from safetensors.torch import load_file

from rein import checkpoint
from rein.config import from_json, to_json
from rein.errors import UserError
from rein.evals.best_of_n_command import BestOfNConfig, best_of_n
from rein.models.huggingface import load_model
from rein.models.rows import Completion
from rein.report.runs import RunReader
from rein.run import read_rows
from rein.train import grpo as module
from rein.train.between import Position
from rein.train.grpo import Experience, assemble, gradients, grpo
from rein.train.grpo_config import GRPOConfig
from rein.train.policy_heldout import HeldOut

TIMES = {"wall_s", "episodes_per_s", "rollout_frac", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    return policy(tmp_path_factory.mktemp("policy"), tokenizer)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", prompts(12))


def settings(start, file, out, /, **changes):
    plain = {
        "reward": "preferences:vowels", "samples": 4, "queries_per_batch": 8, "episodes": 32 * 6, "learning_rate": 1e-2,
        "response_tokens": 10, "heldout_prompts": 4, "precision": "fp32", "checkpoint_every_s": 0.0, "slots": 16,
        "gold": "preferences:vowels", "evaluate_every_episodes": 64, "guard": "off",
    }  # fmt: skip
    return GRPOConfig(**{"policy": start, "prompts": file, "out": out} | plain | changes)


def rows_of(run):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(run / "metrics.jsonl")]


def assert_same_run(a, b):
    assert rows_of(a) == rows_of(b)
    assert list(read_rows(a / "samples.jsonl")) == list(read_rows(b / "samples.jsonl"))
    ours, theirs = (load_file(checkpoint.latest(run) / "model.safetensors") for run in (a, b))
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    states = [sorted((checkpoint.latest(run) / checkpoint.STATE).iterdir()) for run in (a, b)]
    for first, second in zip(*states, strict=True):
        assert first.suffix != ".distcp" or first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def finished(start, file, tmp_path_factory):
    return grpo(settings(start, file, tmp_path_factory.mktemp("grpo") / "run"))


# ------------------------------------------------------------------------------------------------ it learns


@pytest.mark.parametrize("changes", [
    {"estimator": "grpo", "kl_coef": 0.02},
    {"estimator": "rloo", "kl_coef": 0.01},
    {"estimator": "dr_grpo", "epochs": 2, "minibatches": 2},
])  # fmt: skip
def test_it_climbs_the_gold_score(start, file, tmp_path, changes):
    run = grpo(settings(start, file, tmp_path / "run", episodes=32 * 20, learning_rate=2.5e-2, **changes))
    rows = rows_of(run)
    batches = [row for row in rows if "score_mean" in row]
    assert batches[-1]["score_mean"] > batches[0]["score_mean"] + 0.2
    held = [row for row in rows if "heldout_gold" in row]
    assert held[-1]["heldout_gold"] > held[0]["heldout_gold"] + 0.1
    assert held[-1]["heldout_kl_nats"] > 0.5
    about = checkpoint.read_about(checkpoint.latest(run))
    assert about["made_by"] == "grpo"
    load_model(run)


def test_before_the_first_update_the_ratio_is_1_and_the_kl_is_0(finished):
    first = next(row for row in rows_of(finished) if "score_mean" in row)
    assert first["ratio_max"] == 1
    assert first["kl_nats"] == 0
    assert first["kl_loss"] == 0
    assert first["clip_frac"] == 0
    assert first["approx_kl"] == 0
    assert first["sampler_drift"] < 1e-4


# ------------------------------------------------------------------------------------- the same numbers, always


def experience(parts, seed=0, n=8, samples=4):
    """Made-up responses of many lengths, advantages, and old log-probabilities a little off."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))  # noqa: E731
    completions = [
        Completion(tuple(draw(1, 200) for _ in range(draw(1, 8))), tuple(draw(1, 200) for _ in range(draw(1, 11))))
        for _ in range(n)
    ]
    M = sum(len(each.response) for each in completions)
    old_M, reference_M = (-5 + 0.3 * torch.randn(M, generator=generator) for _ in range(2))
    return Experience(completions, torch.randn(n, generator=generator), old_M, reference_M, {})


def gradient(config, parts, some, which, kl_coef):
    for p in parts.actors.policy.parameters():
        p.grad = None
    row = gradients(config, parts, some, which, kl_coef)
    return row, torch.cat([p.grad.flatten() for p in parts.actors.policy.parameters()])


def plain(config, parts, some, which, kl_coef):
    """The same loss by its formulas, response by response, with whole logits."""
    model = parts.actors.policy
    starts, responses = [0], [each.response for each in some.completions]
    for response in responses:
        starts.append(starts[-1] + len(response))
    tokens = sum(len(responses[n]) for n in which)
    total = 0.0
    for n in which:
        query, response = some.completions[n].query, responses[n]
        row = torch.tensor([[*query, *response]])
        logits = model(row)[0, len(query) - 1 : -1] / config.temperature
        new = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
        old, ref = some.old_M[starts[n] : starts[n + 1]], some.reference_M[starts[n] : starts[n + 1]]
        A, ratio = float(some.advantages_N[n]), (new - old).exp()
        losses = -torch.minimum(A * ratio, A * ratio.clamp(1 - config.cliprange, 1 + config.cliprange))
        if config.kl_in == "loss":
            k3 = (ref - new).exp() - (ref - new) - 1
            losses = losses + kl_coef * (k3 if config.kl_estimate == "k3" else (new - ref) ** 2 / 2)
        share = {"token": 1 / tokens, "response": 1 / len(response) / len(which), "limit": 0.1 / len(which),
                 "none": 1 / len(which)}[config.token_mean]  # fmt: skip
        total = total + share * losses.sum()
    for p in model.parameters():
        p.grad = None
    total.backward()
    return total.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("changes", [
    {"token_mean": "token", "kl_estimate": "k2", "kl_in": "loss"},
    {"token_mean": "response", "kl_in": "loss"},
    {"token_mean": "limit", "kl_in": "reward", "temperature": 0.7},
    {"token_mean": "none", "kl_in": "reward"},
])  # fmt: skip
def test_the_gradient_is_that_of_a_plain_implementation(start, file, tmp_path, changes):
    config = settings(start, file, tmp_path / "run", **changes).settled()
    parts = assemble(config)
    some, which = experience(parts), [6, 1, 3, 0]
    row, found = gradient(config, parts, some, which, 0.3)
    loss, expected = plain(config, parts, some, which, 0.3)
    total = row["policy_loss"] + (0.3 * row["kl_loss"] if config.kl_in == "loss" else 0)
    assert float(total) == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("token_mean", ["token", "response", "limit", "none"])
def test_loss_and_gradient_do_not_depend_on_how_a_minibatch_is_cut_or_ordered(start, file, tmp_path, token_mean):
    config = settings(start, file, tmp_path / "run", token_mean=token_mean).settled()
    parts = assemble(config)
    some = experience(parts)
    row, whole = gradient(config, parts, some, list(range(8)), 0.3)
    cut = settings(start, file, tmp_path / "run", token_mean=token_mean, tokens_at_once=1).settled()
    parted, pieces = gradient(cut, parts, some, [5, 2, 7, 0, 1, 6, 3, 4], 0.3)
    assert {name: float(x) for name, x in parted.items()} == pytest.approx({name: float(x) for name, x in row.items()},
                                                                           rel=1e-5)  # fmt: skip
    assert torch.allclose(pieces, whole, atol=1e-6, rtol=1e-4)


def test_queries_whose_responses_score_alike_teach_nothing(start, file, tmp_path):
    """All equal: every gradient is exactly 0, not merely small."""
    config = settings(start, file, tmp_path / "run", kl_coef=0.0).settled()
    parts = assemble(config)
    some = experience(parts)
    none = Experience(some.completions, torch.zeros(8), some.old_M, some.reference_M, {})
    _, found = gradient(config, parts, none, list(range(8)), 0.0)
    assert not found.any()


class StopHere(Exception):
    pass


def moved(config, tmp_path, **changes):
    path = tmp_path / "config.json"
    values = json.loads(to_json(config)) | {"out": str(tmp_path / "run")} | changes
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("at", [1, 5])
def test_resumed_is_uninterrupted(finished, tmp_path, monkeypatch, at):
    config = from_json(GRPOConfig, moved(from_json(GRPOConfig, finished / "config.json"), tmp_path))
    real = module.learn

    def failing(config, parts, some, position):
        row = real(config, parts, some, position)
        if position.batches == at:
            raise StopHere
        return row

    with monkeypatch.context() as patch:
        patch.setattr(module, "learn", failing)
        with pytest.raises(StopHere):
            grpo(config)
    grpo(config)
    assert_same_run(finished, config.out)


def test_killed_and_started_again(finished, tmp_path):
    path = moved(from_json(GRPOConfig, finished / "config.json"), tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
        "from rein.config import from_json; from rein.train.grpo import grpo; "
        "from rein.train.grpo_config import GRPOConfig; grpo(from_json(GRPOConfig, Path(sys.argv[1])))"
    )
    words = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not checkpoint.all_steps(tmp_path / "run" / "checkpoints"):
        time.sleep(0.001)
    process.kill()
    _, messages = process.communicate()
    assert process.returncode == -signal.SIGKILL, messages
    grpo(from_json(GRPOConfig, path))
    assert_same_run(finished, tmp_path / "run")


def test_another_estimator_is_another_run(finished):
    config = from_json(GRPOConfig, finished / "config.json")
    values = json.loads(to_json(config)) | {"estimator": "rloo", "advantages": None}
    other = GRPOConfig(**values | {name: Path(values[name]) for name in ("policy", "prompts", "out")})
    with pytest.raises(UserError, match="estimator: 'grpo' → 'rloo'"):
        grpo(other)


# ------------------------------------------------------------------------------------------------- watched


def fake_kl(monkeypatch):
    """Evaluations whose KL goes up by 2 nats each time."""
    seen = iter(range(100))

    def row(self, written, model):
        return {"heldout_kl_nats": 2.0 * next(seen), "heldout_proxy": 1.0, "heldout_gold": 1.0,
                "heldout_gold_stderr": 0.1, "heldout_response_tokens": 8.0, "heldout_no_eot_frac": 0.0}  # fmt: skip

    monkeypatch.setattr(HeldOut, "_row", row)


def test_a_guard_that_stops_a_run_says_so_and_it_stays_stopped(start, file, tmp_path, monkeypatch, capsys):
    fake_kl(monkeypatch)
    config = settings(start, file, tmp_path / "run", guard="stop", gold="", kl_limit_nats=3.0, episodes=32 * 20,
                      evaluate_every_episodes=32)  # fmt: skip
    grpo(config)
    said = capsys.readouterr().err
    assert "guard      stop, by KL up to 3 nats, every 32 episodes" in said
    assert "Stopped by the guard after 128 episodes." in said
    assert RunReader(config.out).summary().why.startswith("Stopped by the guard after 128 episodes.")
    grpo(config)
    assert "Stopped by the guard after 128 episodes." in capsys.readouterr().err


def test_a_sampler_that_is_not_the_trainers_model_is_an_alarm(start, file, tmp_path, monkeypatch, capsys):
    real = module.batch_numbers
    monkeypatch.setattr(module, "batch_numbers", lambda *args, **more: real(*args, **more) | {"sampler_drift": 0.2})
    grpo(settings(start, file, tmp_path / "run", episodes=64))
    assert capsys.readouterr().err.count("up to 0.2 nats from the trainer's, in fp32; more than 0.001 says") == 1


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("changes", "words"), [
    ({"samples": 1}, "--samples is 1, but responses are compared"),
    ({"minibatches": 3}, "no multiple of --minibatches 3"),
    ({"episodes": 31}, "--episodes 31 is less than a batch"),
    ({"guard": "raise-kl", "estimator": "dr_grpo"}, "raises --kl-coef, which is 0"),
    ({"temperature": 0.0}, "--temperature is 0.0, but it must be above 0"),
    ({"clip_norm": -1.0}, "--clip-norm is -1.0, but it must be 0 or more"),
    ({"response_tokens": None}, "does not say how long a response may be"),
    ({"response_tokens": 64}, "n_ctx"),
    ({"reward": "preferences:broken"}, "as nan"),
    ({"reward": "preferences:constant", "gold": ""}, "the batches before|batches before did"),
    ({"truncate_at": "say so"}, "it must be one"),
])  # fmt: skip
def test_what_cannot_be_is_named(start, file, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        grpo(settings(start, file, tmp_path / "run", **changes))


def test_a_loss_that_is_no_number_changes_nothing(start, file, tmp_path):
    config = settings(start, file, tmp_path / "run", queries_per_batch=2).settled()
    parts = assemble(config)
    some = experience(parts)
    before = [p.clone() for p in parts.actors.policy.parameters()]
    bad = Experience(some.completions, torch.full((8,), float("nan")), some.old_M, some.reference_M, {})
    with pytest.raises(UserError, match="policy_loss nan"):
        module.learn(config, parts, bad, Position())
    assert all(torch.equal(p, old) for p, old in zip(parts.actors.policy.parameters(), before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["grpo", "rloo", "dr_grpo"])
def test_on_an_exact_reward_it_comes_to_best_of_64_at_less_than_twice_its_kl(tokenizer, tmp_path, estimator):
    """The best of n is near the frontier of score against KL; what samples can learn of it comes close."""
    start = policy(tmp_path / "policy", tokenizer, n_embd=32)
    rows = write(tmp_path / "prompts.jsonl", prompts(128, heldout=64))
    config = BestOfNConfig(
        policy=start, prompts=rows, out=tmp_path / "best", reward="preferences:vowels", split="valid", samples=64,
        response_tokens=16, temperature=1.0, precision="fp32",
    )  # fmt: skip
    best = best_of_n(config)
    point = json.loads((best / "curve.json").read_text())["points"][63]
    run = grpo(settings(start, rows, tmp_path / "run", estimator=estimator, samples=8, queries_per_batch=16,
                        episodes=128 * 35, learning_rate=3e-3, response_tokens=16, heldout_prompts=64,
                        evaluate_every_episodes=128 * 5, kl_coef=0.0, slots=64))  # fmt: skip
    held = [row for row in rows_of(run) if "heldout_gold" in row]
    gold, kl = ([row[name] for row in held] for name in ("heldout_gold", "heldout_kl_nats"))
    assert max(gold) > point["proxy"]["value"]
    assert np.interp(point["proxy"]["value"], gold, kl) < 2 * point["kl_nats"]
