"""DPO as a run: that it learns what people prefer, what it leaves behind, and that nothing changes its numbers."""

import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from preferences import pairs, policy, ranked, write
from safetensors.torch import load_file

from rein import checkpoint
from rein.config import from_json, to_json
from rein.errors import UserError
from rein.feedback.judged import Candidate, Judged
from rein.models.huggingface import load_model
from rein.run import read_rows
from rein.text.prompts import FORMATS
from rein.train import dpo as module
from rein.train.comparisons import groups_of, log_ratios, pair_losses, pairs_of, pieces, with_reference
from rein.train.dpo import dpo
from rein.train.dpo_config import DPOConfig
from rein.train.reward_config import RewardConfig
from rein.train.reward_data import read_data
from rein.train.reward_rows import Encoder

TIMES = {"wall_s", "tokens_per_s", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    return policy(tmp_path_factory.mktemp("policy"), tokenizer)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judgements")
    return {"pairs": write(folder / "pairs.jsonl", pairs(120)), "ranked": write(folder / "ranked.jsonl", ranked(60))}


def settings(start, data, out, /, **changes):
    plain = {
        "learning_rate": 5e-3, "judgements_per_batch": 16, "epochs": 2, "warmup_updates": 2, "heldout_frac": 0.3,
        "evaluate_every_updates": 4, "log_every_updates": 1, "precision": "fp32", "checkpoint_every_s": 0.0,
    }  # fmt: skip
    return DPOConfig(**{"policy": start, "data": (data,), "out": out} | plain | changes)


def rows_of(run):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(run / "metrics.jsonl")]


def assert_same_run(a, b):
    assert rows_of(a) == rows_of(b)
    assert list(read_rows(a / "samples.jsonl")) == list(read_rows(b / "samples.jsonl"))
    assert (a / "scores.json").read_bytes() == (b / "scores.json").read_bytes()
    for name in ("best", checkpoint.latest(a).relative_to(a)):
        ours, theirs = (load_file(run / name / "model.safetensors") for run in (a, b))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    states = [sorted((checkpoint.latest(run) / checkpoint.STATE).iterdir()) for run in (a, b)]
    for first, second in zip(*states, strict=True):
        assert first.suffix != ".distcp" or first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def finished(start, data, tmp_path_factory):
    more = {"sampled_prompts": 6, "reward": "preferences:good", "response_tokens": 24}
    return dpo(settings(start, data["pairs"], tmp_path_factory.mktemp("dpo") / "run", **more))


# ------------------------------------------------------------------------------------------------ it learns


def test_it_learns_what_is_preferred_and_keeps_the_best(finished):
    rows = rows_of(finished)
    held = [row for row in rows if "heldout_dpo_loss" in row]
    assert held[0]["heldout_dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert held[-1]["heldout_dpo_loss"] < 0.3
    assert held[-1]["heldout_implied_accuracy"] > 0.9
    score = json.loads((finished / "scores.json").read_text())["accuracy"]
    assert score["value"] > 0.9
    assert score["low"] > 0.5
    best = min(held, key=lambda row: row["heldout_dpo_loss"])
    assert checkpoint.read_about(finished / "best")["position"]["opt_step"] == best["opt_step"]
    checkpoint.verify(finished / "best")
    load_model(finished / "best")


def test_before_the_first_update_nothing_has_moved(finished):
    first = next(row for row in rows_of(finished) if "dpo_loss" in row)
    assert first["dpo_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["implied_margin"] == pytest.approx(0, abs=1e-5)
    held = next(row for row in rows_of(finished) if "heldout_dpo_loss" in row)
    assert held["better_log_ratio"] == pytest.approx(0, abs=1e-5)
    assert held["heldout_kl_nats"] == 0


def test_in_bfloat16_too_the_policy_begins_as_its_reference(start, data, tmp_path):
    """With a model wide enough for another form of its products to round elsewhere: see comparisons.with_reference."""
    run = dpo(settings(start, data["pairs"], tmp_path / "run", precision="bf16", sampled_prompts=4, response_tokens=24))
    held = next(row for row in rows_of(run) if "heldout_dpo_loss" in row)
    assert held["heldout_implied_accuracy"] == 0.5
    assert held["better_log_ratio"] == held["worse_log_ratio"] == held["heldout_kl_nats"] == 0


def test_answers_are_scored_beside_those_of_the_start(finished):
    held = [row for row in rows_of(finished) if "heldout_proxy" in row]
    assert held[-1]["heldout_kl_nats"] > 0.1
    samples = list(read_rows(finished / "samples.jsonl"))
    first, last = samples[0], samples[-1]
    assert first["text"] == first["start"]
    assert last["proxy"] == last["text"].count("good") - last["text"].count("bad")


@pytest.mark.parametrize("changes", [{"loss": "ipo"}, {"ties": "half"}, {"label_smoothing": 0.1}])
def test_rankings_are_learnt_by_each_loss(start, data, tmp_path, changes):
    run = dpo(settings(start, data["ranked"], tmp_path / "run", epochs=4, **changes))
    held = [row for row in rows_of(run) if "heldout_dpo_loss" in row]
    assert held[-1]["heldout_implied_accuracy"] > 0.8
    assert held[-1]["better_log_ratio"] > held[-1]["worse_log_ratio"]


# ------------------------------------------------------------------------------------- the same numbers, always


def some_groups(tokenizer, rows, ties="half"):
    judged = [
        Judged({"prompt": row["prompt"]}, tuple(map(Candidate, row["outputs"])), "ranking", tuple(row["ranks"]), "a",
               row["group_id"], row["group_id"])
        for row in rows
    ]  # fmt: skip
    return groups_of(judged, Encoder(FORMATS["plain"], tokenizer, 64), ties=ties)


def test_all_pairs_of_a_ranking_weigh_as_one_pair_does(start, tokenizer):
    """The loss of a group is the mean over its pairs, each computed alone, from a pass of its own."""
    model, _ = load_model(start)
    ref = policy_of_other_weights(model)
    groups = some_groups(tokenizer, ranked(4), ties="half")
    compared = with_reference(ref, groups, precision="fp32", tokens_at_once=8192)
    ratio_N, pairs = log_ratios(model, compared, "fp32")
    found = (pair_losses(ratio_N, pairs, loss="dpo", kl_coef=0.3, label_smoothing=0.0) * pairs.weight_P).sum()
    expected = 0.0
    for group in groups:
        assert len(group.p) == 6
        losses = []
        for i, j, p in zip(group.better, group.worse, group.p, strict=True):
            gap = 0.3 * (alone(model, ref, group.completions[i]) - alone(model, ref, group.completions[j]))
            losses.append(p * math.log1p(math.exp(-gap)) + (1 - p) * math.log1p(math.exp(gap)))
        expected += sum(losses) / len(losses)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def policy_of_other_weights(model):
    return type(model)(model.config).initialise(9)


def alone(model, ref, completion):
    tokens = torch.tensor([[*completion.query, *completion.response]])
    first = len(completion.query) - 1
    found = []
    with torch.no_grad():
        for each in (model, ref):
            logprobs = each(tokens)[0, :-1].double().log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
            found.append(logprobs[first:].sum().item())
    return found[0] - found[1]


@pytest.mark.parametrize("tokens_at_once", [1, 150, 8192])
def test_loss_and_gradient_do_not_depend_on_how_an_update_is_cut(start, tokenizer, tokens_at_once):
    model, _ = load_model(start)
    groups = some_groups(tokenizer, ranked(6))
    compared = with_reference(policy_of_other_weights(model), groups, precision="fp32", tokens_at_once=tokens_at_once)
    total = 0.0
    for piece in pieces(groups, tokens_at_once):
        ratio_N, pairs = log_ratios(model, compared.at(piece), "fp32")
        losses = pair_losses(ratio_N, pairs, loss="dpo", kl_coef=0.3, label_smoothing=0.0)
        loss = (losses * pairs.weight_P).sum() / 6
        loss.backward()
        total += loss.item()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    whole = with_reference(policy_of_other_weights(model), groups, precision="fp32", tokens_at_once=8192)
    model.zero_grad()
    ratio_N, pairs = log_ratios(model, whole, "fp32")
    loss = (pair_losses(ratio_N, pairs, loss="dpo", kl_coef=0.3, label_smoothing=0.0) * pairs.weight_P).sum() / 6
    loss.backward()
    assert total == pytest.approx(loss.item(), rel=1e-6)
    assert torch.allclose(gradient, torch.cat([p.grad.flatten() for p in model.parameters()]), atol=1e-7)


class StopHere(Exception):
    pass


@pytest.mark.parametrize("at", [1, 9])
def test_resumed_is_uninterrupted(finished, tmp_path, monkeypatch, at):
    config = from_json(DPOConfig, finished / "config.json")
    config = from_json(DPOConfig, moved(config, tmp_path))
    real = module._update

    def failing(config, policy, optimizer, train, position, *rest):
        row = real(config, policy, optimizer, train, position, *rest)
        if position.opt_step == at:
            raise StopHere
        return row

    with monkeypatch.context() as patch:
        patch.setattr(module, "_update", failing)
        with pytest.raises(StopHere):
            dpo(config)
    dpo(config)
    assert_same_run(finished, config.out)


def moved(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(to_json(config)) | {"out": str(tmp_path / "run")}))
    return path


def test_killed_and_started_again(finished, tmp_path):
    path = moved(from_json(DPOConfig, finished / "config.json"), tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
        "from rein.config import from_json; from rein.train.dpo import dpo; "
        "from rein.train.dpo_config import DPOConfig; dpo(from_json(DPOConfig, Path(sys.argv[1])))"
    )
    words = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    steps = tmp_path / "run" / "checkpoints"
    while process.poll() is None and len(checkpoint.all_steps(steps)) == 0:
        time.sleep(0.001)
    process.kill()
    _, messages = process.communicate()
    assert process.returncode == -signal.SIGKILL, messages
    dpo(from_json(DPOConfig, path))
    assert_same_run(finished, tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(finished):
    before = rows_of(finished)
    dpo(from_json(DPOConfig, finished / "config.json"))
    assert rows_of(finished) == before


def test_other_judgements_or_another_policy_are_another_run(start, data, tokenizer, tmp_path):
    rows = pairs(60)
    mine = policy(tmp_path / "policy", tokenizer)
    file = write(tmp_path / "data.jsonl", rows)
    config = settings(mine, file, tmp_path / "run", epochs=1)
    dpo(config)
    write(file, [*rows[:-1], rows[-1] | {"chosen": "another good text"}])
    with pytest.raises(UserError, match="judgements have changed"):
        dpo(config)
    write(file, rows)
    policy(mine, tokenizer, n_embd=32)
    with pytest.raises(UserError, match="policy has changed"):
        dpo(config)


def test_it_holds_out_the_prompts_that_a_reward_model_of_the_same_file_holds_out(start, data, tokenizer):
    """Else one of the two would be measured on what the other has learned, whatever the seed."""
    config = settings(start, data["pairs"], Path("unused"), seed=3)
    parts, _ = module._data(config, Encoder(FORMATS["plain"], tokenizer, 64))
    given = {"policy": start, "data": (data["pairs"],), "seeds": 3, "normalise": "candidates", "heldout_frac": 0.3,
             "format": "plain"}  # fmt: skip
    theirs = read_data(RewardConfig(**given).settled(), tokenizer, 64)
    for name in ("dev", "test"):
        topics = {pair.said.topic for pair in getattr(theirs, name).pairs}
        assert {group.topic for group in parts[name]} == topics


def test_the_policy_before_the_first_update_is_never_the_best_and_it_is_said_if_none_is_better(
    start, data, tmp_path, capsys
):
    run = dpo(settings(start, data["pairs"], tmp_path / "run", learning_rate=1e-12, epochs=1, kl_coef=1e-9))
    said, progress = capsys.readouterr()
    assert "the best of the training, but no better than its start" in progress
    assert "so far" not in progress
    losses = [row["heldout_dpo_loss"] for row in rows_of(run) if "heldout_dpo_loss" in row]
    assert min(losses[1:]) >= losses[0]
    assert checkpoint.read_about(run / "best")["position"]["opt_step"] > 0
    assert f"By the loss on the dev half, no evaluation was better than {start} itself." in said
    dpo(settings(start, data["pairs"], tmp_path / "last", learning_rate=1e-12, epochs=1, kl_coef=1e-9, select="last"))
    said, progress = capsys.readouterr()
    assert "no evaluation was better" not in said
    assert ", the best so far" in progress


@pytest.mark.parametrize(("warmup", "words"), [
    (2, ""),
    (3, "the learning rate rises for 3 updates, and the run has 20; --warmup-updates 2 is a tenth"),
    (150, "rises for 150 updates, and the run has 20: it never reaches --learning-rate; --warmup-updates 2 is a tenth"),
])  # fmt: skip
def test_a_long_warm_up_is_said(start, data, capsys, warmup, words):
    config = settings(start, data["pairs"], Path("unused"), warmup_updates=warmup)
    policy, _ = load_model(start)
    module._describe(config, policy, [], "fp32", module.Position(), 20)
    said = capsys.readouterr().err
    assert words in said
    assert ("note " in said) == bool(words)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("changes", "words"), [
    ({"kl_coef": 0.0}, "--kl-coef is 0.0, but it must be above 0"),
    ({"warmup_updates": -1}, "--warmup-updates is -1, but it must be 0 or more"),
    ({"label_smoothing": 0.5}, r"--label-smoothing is 0.5, but it must be in \[0, 0.5\)"),
    ({"data": ()}, "neither --data nor --project"),
    ({"reward": "a:b"}, "--sampled-prompts is 0"),
    ({"sampled_prompts": 2, "response_tokens": 60}, "No dev prompt leaves room for 60 tokens"),
    ({"sampled_prompts": 2}, "does not say how long a response may be"),
    ({"format": "tdlr"}, "--format is 'tdlr'"),
    ({"query_tokens": 2}, "None of the"),
    ({"confidence": "empirical"}, "--confidence is empirical"),
])  # fmt: skip
def test_what_cannot_be_is_named(start, data, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        dpo(settings(start, data["pairs"], tmp_path / "run", **changes))


def test_what_says_nothing_is_left_out_and_counted(tokenizer):
    def judged(texts, marks, prompt="p"):
        return Judged({"prompt": prompt}, tuple(map(Candidate, texts)), "ranking", marks, "a", "1", "t")

    encoder = Encoder(FORMATS["tldr"], tokenizer, 600)
    left = [judged(("a", "b"), (1, 2))]
    assert groups_of(left, encoder, ties="drop") == []
    assert sum(encoder.left_out.values()) == 1  # the fields of tldr are not there
    encoder = Encoder(FORMATS["docstring"], tokenizer, 200)
    long = "word " * 60
    cut = judged((long + "good", long + "bad"), (1, 2))
    row = {"name": "n", "post": "p"}
    same = Judged(row, cut.candidates, "ranking", (1, 2), "a", "1", "t")
    even = Judged(row, (Candidate("a"), Candidate("b")), "ranking", (1, 1), "a", "1", "t")
    assert groups_of([same, even], encoder, ties="drop") == []
    assert encoder.left_out == Counter({"equal texts, once they are tokens": 1, "nothing but ties": 1})
    (tied,) = groups_of([even], encoder, ties="half")
    assert pairs_of([tied]).p_P.tolist() == [0.5]


def test_judgements_that_are_all_ties_are_named(start, tmp_path):
    rows = [row | {"ranks": [1, 1, 1, 1]} for row in ranked(40)]
    with pytest.raises(UserError, match="all are ties"):
        dpo(settings(start, write(tmp_path / "ties.jsonl", rows), tmp_path / "run", ties="half"))


def test_a_loss_that_is_no_number_changes_nothing(start, data, tmp_path):
    with pytest.raises(UserError, match="gradient norm"):
        dpo(settings(start, data["pairs"], tmp_path / "run", learning_rate=1e12, clip_norm=0.0, warmup_updates=0))


def test_texts_that_are_too_long_are_left_out_or_cut(start, data, tmp_path, capsys):
    long = [{**row, "prompt": "long ago " * 60 + row["prompt"]} for row in read_rows(data["pairs"])]
    path = write(tmp_path / "long.jsonl", long)
    with pytest.raises(UserError, match=r"can be learned from .*too long") as refused:
        dpo(settings(start, path, tmp_path / "dropped"))
    assert "--too-long cut" in str(refused.value.fix)
    dpo(settings(start, path, tmp_path / "cut", too_long="cut", epochs=1))
    assert "too long" not in capsys.readouterr().err
    rows = [row for row in read_rows(tmp_path / "cut" / "metrics.jsonl") if "dpo_loss" in row]
    assert rows[0]["dpo_loss"] == pytest.approx(math.log(2), abs=1e-6)
