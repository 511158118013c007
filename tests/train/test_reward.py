"""`rein reward`: that it learns, what it leaves behind, and that nothing that happens to it changes its numbers."""

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from rein import checkpoint
from rein.bpe.tokenizer import load_tokenizer
from rein.config import command_line, from_json, replace
from rein.errors import UserError
from rein.evals.reward_score import RewardScoreConfig, Scorer, score
from rein.feedback.exchange.importing import import_file
from rein.feedback.selection import read_scores
from rein.feedback.store import Store
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.models.rollout import rollouts
from rein.models.scalar import load_ensemble, load_scalar, score_all
from rein.run import read_rows
from rein.train import reward as module
from rein.train.reward import reward, share_of_peak
from rein.train.reward_config import RewardConfig
from rein.train.reward_data import read_data
from rein.train.reward_files import read_quality
from rein.train.rlhf_presets import REWARD

WORDS = ["cat", "dog", "car", "tree", "house", "river", "stone", "bird", "lamp", "road"]


def text(rng, good):
    words = rng.sample(WORDS, 3)
    words.insert(rng.randint(0, 3), ("poor", "good")[good])
    return " ".join(words)


def rows(n, seed, k=3):
    """Ranked groups: what has the word good is better; the third output is a tie with one of the others."""
    rng = random.Random(seed)
    for i in range(n):
        good = [1, 0, rng.randint(0, 1)][:k]
        outputs = [{"text": text(rng, one), "policy": ("sft", "ppo", "ref")[place]} for place, one in enumerate(good)]
        ranks = [2 - one for one in good]
        yield {"group_id": f"g{seed}-{i}", "prompt": f"Number {i}?", "outputs": outputs, "ranks": ranks,
               "labeler": f"l{i % 3}", "batch": f"b{i % 2}"}  # fmt: skip


def write(path, some):
    path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def policy(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    config = GPTConfig(tokenizer.n_vocab, n_ctx=64, n_embd=32, n_head=2, n_layer=1, dropout=0.1)
    save_model(folder, GPT(config).initialise(0), tokenizer)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "ranked.jsonl", rows(160, 0))


@pytest.fixture
def config(policy, data, tmp_path):
    return RewardConfig(
        policy=policy, data=(data,), out=tmp_path / "run", preset="instructgpt2022", normalise="candidates",
        learning_rates=(3e-3,), prompts_per_batch=16, epochs=2, heldout_frac=0.3, precision="fp32", device="cpu",
        evaluate_every_updates=5, log_every_updates=1, checkpoint_every_s=1e9, clip_norm=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(policy, data, tmp_path_factory):
    """A finished run, which tests only read."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return reward(RewardConfig(
        policy=policy, data=(data,), out=out, preset="instructgpt2022", normalise="candidates", ties="davidson",
        learning_rates=(3e-3,), prompts_per_batch=16, epochs=4, heldout_frac=0.3, precision="fp32", device="cpu",
        log_every_updates=1, clip_norm=1.0, reliability="temperature",
    ))  # fmt: skip


def weights(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def quality(out):
    return json.loads((out / "quality.json").read_text())


# -------------------------------------------------------------------------------------------------- what it leaves


def test_it_learns_what_is_better_and_says_by_how_much_more_than_length(trained):
    found = quality(trained)["test"]
    assert found["accuracy"]["value"] > 0.9
    assert found["over_length"]["low"] > 0.1  # good and poor are of one length
    assert found["nll"]["value"] < 0.5
    assert found["length_nll"]["value"] == pytest.approx(math.log(2), abs=0.05)
    assert 0 <= found["ece"]["value"] < 0.2
    assert {one["name"] for one in found["by_batch"]} == {"b0", "b1"}
    assert "ppo · sft" in {one["name"] for one in found["by_policies"]}
    assert found["agreement"] is None  # one labeler each
    losses = [row["reward_loss"] for row in read_rows(trained / "metrics.jsonl") if "reward_loss" in row]
    assert losses[-1] < losses[0] / 2
    assert quality(trained)["ties"]["nu"] > 0
    assert set(quality(trained)["temperatures"]) == {"l0", "l1", "l2"}


def test_the_page_says_it_without_a_script(trained):
    page = (trained / "quality.html").read_text(encoding="utf-8")
    for words in ("More than length alone", "At equal length", "Calibration", "By batch", "How far labelers", "b1"):
        assert words in page
    assert "<script" not in page
    assert (trained / "report.html").exists()


def test_the_model_scores_what_it_was_normalised_on_zero_in_the_mean(trained, policy, data):
    about = checkpoint.read_about(trained / "best")
    assert abs(about["scalar"]["normalised"]["mean"]) <= 1e-6
    assert about["made_by"] == "reward"
    assert len(about["parents"]) == 1
    net, tokenizer = load_scalar(trained)
    config = RewardConfig(**{**from_json(RewardConfig, trained / "config.json").__dict__})
    candidates = read_data(config, tokenizer, net.model.config.n_ctx).references
    assert abs(score_all(net, candidates).double().mean().item()) <= 1e-6


def test_dropout_is_off_as_a_policys_is_not(trained):
    net, _ = load_scalar(trained)
    assert net.model.config.dropout == 0


# ------------------------------------------------------------------------------------------------- zero, by presets


def test_references_of_a_file_score_zero_and_ziegler_normalises_before_and_after(config, tmp_path):
    references = write(tmp_path / "refs.jsonl", [{"prompt": f"P {i}?", "reference": f"the {w} is good"}
                                                 for i, w in enumerate(WORDS)])  # fmt: skip
    config = replace(config, normalise="references", references=references, normalise_std=True, normalise_before=True,
                     epochs=1)  # fmt: skip
    reward(config)
    found = quality(config.out)["normalised"]
    assert (found["on"], found["n"]) == ("references", 10)
    assert found["mean"] == pytest.approx(0, abs=1e-6)
    assert found["std"] == pytest.approx(1, abs=1e-5)


def test_samples_of_the_policy_score_zero(config):
    config = replace(config, normalise="policy", normalise_samples=12, epochs=1, response_tokens=20)
    reward(config)
    found = quality(config.out)["normalised"]
    assert (found["on"], found["n"]) == ("policy", 12)
    assert found["mean"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("preset", "changes", "temperature", "longest", "all_as_long"),
    [("ziegler2019", {}, 0.7, 24, True), ("instructgpt2022", {}, 1.0, 48, False),
     ("stiennon2020", {"response_tokens": 20, "format": "plain"}, 0.7, 20, False)],
)  # fmt: skip
def test_samples_to_normalise_on_are_those_of_the_presets_ppo(
    config, monkeypatch, preset, changes, temperature, longest, all_as_long
):
    """Their scores are brought to mean 0 and deviation 1 for the policy that PPO samples from, at its temperature."""
    seen = []

    def watched(*args, **kwargs):
        found = rollouts(*args, **kwargs)
        seen.append((kwargs["temperature"], [len(one.response) for one in found.completions]))
        return found

    monkeypatch.setattr(module, "rollouts", watched)
    config = replace(config, preset=preset, normalise="policy", normalise_samples=40, epochs=1, normalise_before=None,
                     **changes)  # fmt: skip
    reward(config)
    ((found, lengths),) = seen
    assert found == temperature
    assert max(lengths) <= longest
    assert (set(lengths) == {longest}) == all_as_long


def test_references_that_are_candidates_are_found_by_their_policy(config):
    reward(replace(config, normalise="references", epochs=1))  # of the policy "ref"
    assert quality(config.out)["normalised"]["n"] == 160


def test_demonstrations_of_a_store_are_what_scores_zero(config, tmp_path):
    with pytest.raises(UserError, match=r"(?s)--normalise is demonstrations, but there are no .*--references"):
        reward(replace(config, normalise="demonstrations"))


def test_presets_are_the_papers():
    for name, preset in REWARD.items():
        settled = RewardConfig(policy="p", data=("d",), preset=name).settled()
        assert settled.learning_rates == (preset.learning_rate,)
        assert settled.normalise == preset.normalise
    assert REWARD["stiennon2020"].learning_rate == 1.5e-5
    assert (REWARD["instructgpt2022"].final_frac, REWARD["instructgpt2022"].element) == (0.1, "prompt")
    assert REWARD["ziegler2019"].normalise_before
    kept = RewardConfig(policy="p", data=("d",), preset="n_plus", epochs=3, learning_rates=(1.0,)).settled()
    assert (kept.epochs, kept.learning_rates, kept.adam_eps) == (3, (1.0,), 1e-5)


def test_rates_fall_as_the_presets_say():
    def rates(**changes):
        config = RewardConfig(policy="p", data=("d",), **changes).settled()
        return [share_of_peak(config, n, 10) for n in range(10)]

    cosine, linear = rates(preset="instructgpt2022"), rates(preset="ziegler2019")
    assert cosine[0] == linear[0] == 1
    assert cosine[5] == pytest.approx(0.1 + 0.9 * 0.5)
    assert linear == pytest.approx([1 - n / 10 for n in range(10)])
    warm = rates(preset="instructgpt2022", warmup_frac=0.4)
    assert warm[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


# ------------------------------------------------------------------------------------------------ sweeps, ensembles


def test_a_sweep_keeps_the_best_on_dev_and_an_ensemble_all_its_seeds(config, tmp_path, data):
    config = replace(config, learning_rates=(1e-6, 3e-3), seeds=2, ensemble=True)
    reward(config)
    cells = quality(config.out)["cells"]
    assert [(one["learning_rate"], one["seed"]) for one in cells] == [(1e-6, 0), (1e-6, 1), (3e-3, 0), (3e-3, 1)]
    chosen = [one for one in cells if one["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["dev_accuracy"]["value"] == max(one["dev_accuracy"]["value"] for one in cells)
    best = config.out / f"lr-{chosen[0]['learning_rate']:g}-seed-{chosen[0]['seed']}" / "best"
    assert weights(config.out / "best") == weights(best)
    checkpoint.verify(config.out / "best")
    members, _ = load_ensemble(config.out)
    assert len(members) == 2
    assert not torch.equal(members[0].weight, members[1].weight)
    assert "Seeds and learning rates" in (config.out / "quality.html").read_text()

    # What an ensemble disagrees about is what selection reads.
    with Store.open(tmp_path / "labels.db", create=True) as store:
        import_file(store, "p", "", data, create=True)
    out = tmp_path / "doubts.jsonl"
    score(RewardScoreConfig(reward=config.out, store=str(tmp_path / "labels.db"), project="p", out=out))
    found = dict(read_scores(out))
    assert len(found) == 160
    assert found["g0-0"].shape == (2, 3)
    scorer = Scorer(config.out, device="cpu", precision="fp32")
    completions = scorer.encoder.completions({"prompt": "Number 0?"}, ["good cat", "poor cat"])
    scores_N, std_N = scorer.scores(completions, "mean", 0.1)
    assert scores_N[0] > scores_N[1]
    assert (std_N > 0).all()
    worst_N, _ = scorer.scores(completions, "worst", 0.1)
    assert (worst_N <= scores_N).all()

    # The same command again finds all of it done.
    before = (config.out / "quality.json").read_text()
    reward(config)
    assert (config.out / "quality.json").read_text() == before


def test_rows_get_scores_and_how_unsure_they_are(trained, tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", [
        {"prompt": "Number 1?", "response": "cat good dog car", "id": 7},
        {"prompt": "Number 1?", "response": "poor poor"},
        {"prompt": "Number 1?", "response": "x" * 200},
    ])  # fmt: skip
    score(RewardScoreConfig(reward=trained, data=path, device="cpu"))
    out = capsys.readouterr()
    good, bad, long = map(json.loads, out.out.splitlines())
    assert good["id"] == 7
    assert good["score"] > bad["score"]
    assert good["score_std"] > 0
    assert long["score"] is None
    assert "3 scored, of which 1 do not fit: 1 the response is too long" in out.err
    doubts = Scorer(trained, device="cpu").of_members(
        Scorer(trained).encoder.completions({"prompt": "Number 1?"}, ["good", "bad"])
    )
    assert doubts.shape == (8, 2)
    path = write(tmp_path / "none.jsonl", [{"prompt": "only"}])
    with pytest.raises(UserError, match=r"none\.jsonl:1 has no response"):
        score(RewardScoreConfig(reward=trained, data=path))
    with pytest.raises(UserError, match="One of --data and --project"):
        RewardScoreConfig(reward=trained)


# ------------------------------------------------------------------------------------------ from the store, reliability


def test_judgements_of_a_store_need_no_export(config, data, tmp_path):
    with Store.open(tmp_path / "labels.db", create=True) as store:
        import_file(store, "p", "", data, create=True)
    from_store = replace(config, data=(), store=str(tmp_path / "labels.db"), project="p", out=tmp_path / "store",
                         epochs=1)  # fmt: skip
    reward(from_store)
    reward(replace(config, epochs=1))
    assert weights(from_store.out / "best") == weights(config.out / "best")


@pytest.mark.parametrize("changes", [
    {"reliability": "dawid_skene"}, {"ties": "half", "element": "judgement"}, {"ties": "rao_kupper"},
    {"ratings": "regress"},
])  # fmt: skip
def test_every_way_of_reading_people_learns(config, changes, tmp_path):
    if "ratings" in changes:
        rated = ({**{k: v for k, v in row.items() if k != "ranks"}, "ratings": [8 - 3 * r for r in row["ranks"]]}
                 for row in rows(160, 0))  # fmt: skip
        changes = {**changes, "data": (write(tmp_path / "rated.jsonl", rated),)}
    config = replace(config, epochs=4, **changes)
    reward(config)
    assert quality(config.out)["test"]["accuracy"]["value"] > 0.85
    if config.reliability == "dawid_skene":
        assert set(quality(config.out)["accuracies"]) == {"l0", "l1", "l2"}


# -------------------------------------------------------------------------------------- killed, resumed, interrupted


def test_a_killed_run_goes_on_to_the_same_weights(config, tmp_path, monkeypatch):
    config = replace(config, reliability="temperature", ties="davidson", normalise_before=True)
    reward(config)
    again = replace(config, out=tmp_path / "again", checkpoint_every_s=0.0)
    whole = module._update

    class Killed(Exception):
        pass

    def dies_at(place):
        def update(config, net, people, optimizer, train, position, *rest):
            if position.opt_step == place:
                raise Killed
            return whole(config, net, people, optimizer, train, position, *rest)

        return update

    for place in (0, 3, 7):
        monkeypatch.setattr(module, "_update", dies_at(place))
        with pytest.raises(Killed):
            reward(again)
    monkeypatch.setattr(module, "_update", whole)
    reward(again)
    assert weights(config.out / "best") == weights(again.out / "best")
    for name in ("people", "scalar"):
        assert checkpoint.read_about(again.out / "best")[name] == checkpoint.read_about(config.out / "best")[name]
    first, second = quality(config.out), quality(again.out)
    assert first == second
    timeless = [[{k: v for k, v in row.items() if k not in ("wall_s", "judgements_per_s", "peak_rss_bytes")}
                 for row in read_rows(out / "metrics.jsonl")] for out in (config.out, again.out)]  # fmt: skip
    assert timeless[0] == timeless[1]


def test_a_run_that_was_killed_before_its_end_was_measured_measures_it(config, monkeypatch):
    monkeypatch.setattr(module, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        reward(config)
    assert not (config.out / "quality.json").exists()
    monkeypatch.undo()
    reward(config)
    assert quality(config.out)["test"]["n"] > 0


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(config, tmp_path):
    config = replace(config, epochs=12)
    reward(config)
    again = replace(config, out=tmp_path / "again")
    words = command_line("rein reward", again).split()[2:]
    script = ("import sys; from rein.config import from_flags; from rein.train.reward import reward; "
              "from rein.train.reward_config import RewardConfig; "
              "reward(from_flags(RewardConfig, sys.argv[1:], prog='rein reward', description=''))")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True)
    while not any("after update" in line for line in iter(process.stderr.readline, "")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert checkpoint.all_steps(again.out / "checkpoints")
    reward(again)
    assert weights(config.out / "best") == weights(again.out / "best")


def test_a_run_is_not_continued_with_other_judgements_or_another_policy(config, policy, data, tmp_path, tokenizer):
    path = tmp_path / "mine.jsonl"
    shutil.copy(data, path)
    config = replace(config, data=(path,), epochs=1)
    reward(config)
    write(path, rows(150, 0))
    with pytest.raises(UserError, match=r"(?s)The judgements have changed since .* began"):
        reward(config)
    shutil.copy(data, path)
    elsewhere = tmp_path / "policy"
    shutil.copytree(policy, elsewhere)
    config = replace(config, policy=elsewhere, out=tmp_path / "other")
    reward(config)
    shape = GPTConfig(tokenizer.n_vocab, n_ctx=64, n_embd=32, n_head=2, n_layer=1)
    save_model(elsewhere, GPT(shape).initialise(5), tokenizer)
    with pytest.raises(UserError, match=r"(?s)The model .* has changed since"):
        reward(config)
    with pytest.raises(UserError, match="holds a run with other settings"):
        reward(replace(config, epochs=2))


def test_the_size_of_a_pass_changes_nothing_but_rounding(config, tmp_path):
    reward(replace(config, epochs=1))
    reward(replace(config, epochs=1, tokens_at_once=128, out=tmp_path / "small"))
    a, b = (load_file(out / "best" / "model-00002-of-00002.safetensors")["score.weight"]
            for out in (config.out, tmp_path / "small"))  # fmt: skip
    assert torch.allclose(a, b, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ errors


def test_settings_that_make_no_sense_are_named(policy):
    def made(**changes):
        return RewardConfig(**{"policy": policy, "data": ("d",), **changes})

    for changes, message in (
        ({"preset": "stienon2020"}, r"(?s)--preset is 'stienon2020'.*stiennon2020"),
        ({"data": ()}, r"(?s)no judgements to learn from.*--project"),
        ({"epochs": 0}, "--epochs is 0, but it must be above 0"),
        ({"final_frac": 1.5}, r"--final-frac is 1.5, but it must be in \[0, 1\)"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0"),
        ({"heldout_frac": 1.0}, "--heldout-frac is 1.0"),
        ({"learning_rates": (1e-3, 1e-3)}, r"--learning-rates is 0.001 0.001, but it needs different rates"),
        ({"ensemble": True}, "--ensemble keeps all seeds, but --seeds is 1"),
    ):
        with pytest.raises(UserError, match=message):
            made(**changes)


def test_judgements_that_say_nothing_are_named_before_anything_is_trained(config, tmp_path):
    def refused(some, match, **changes):
        with pytest.raises(UserError, match=match):
            reward(replace(config, data=(write(tmp_path / "bad.jsonl", some),), **changes))

    ties = [{**row, "ranks": [1, 1, 1]} for row in rows(20, 1)]
    refused(ties, r"None of 20 judgements says anything that can be learned: 20 nothing but ties")
    equal = [{**row, "outputs": ["same", "same", "same"]} for row in rows(20, 1)]
    refused(equal, r"20 equal texts, of which one is said to be better")
    rated = [{k: v for k, v in row.items() if k != "ranks"} | {"ratings": [4, 4, 4]} for row in rows(60, 1)]
    refused(rated, r"All \d+ ratings of the training part are 4: nothing is better", ratings="regress")
    refused(list(rows(2, 1)), r"none is left for")
    long = [{**row, "prompt": f"{n} " + "x" * 500} for n, row in enumerate(rows(40, 1))]
    refused(long, r"(?s)No judgement of the train part fits: \d+ the query is too long.*--too-long cut")


def test_files_and_parts_without_judgements_are_named(config, tmp_path):
    none = write(tmp_path / "none.jsonl", [{"info": {"id": "1", "post": "p"}, "summaries": [], "choice": 0}])
    with pytest.raises(UserError, match="There is no judgement in what was given"):
        reward(replace(config, data=(none,)))
    odd = write(tmp_path / "odd.jsonl", [{"x": 1, "y": 2}])
    with pytest.raises(UserError, match=r"(?s)of no format that is known.*read with --data-format:"):
        reward(replace(config, data=(odd,)))
    named = [{**row, "split": "valid1" if n < 5 else "train", "ranks": [1, 1, 1] if n < 5 else row["ranks"]}
             for n, row in enumerate(rows(40, 1))]  # fmt: skip
    named[0] |= {"split": "valid2", "ranks": [1, 2, 2]}
    with pytest.raises(UserError, match="The dev part has no pair of which one is better"):
        reward(replace(config, data=(write(tmp_path / "ties.jsonl", named),), ties="half"))
    with pytest.raises(UserError, match=r"has no quality\.json"):
        read_quality(tmp_path)


def test_a_single_model_without_an_uncertainty_has_no_doubts_to_tell(trained, data, tmp_path, monkeypatch):
    with Store.open(tmp_path / "labels.db", create=True) as store:
        import_file(store, "p", "", data, create=True)
    config = RewardScoreConfig(reward=trained, store=str(tmp_path / "labels.db"), project="p", out=tmp_path / "d.jsonl")
    score(config)
    assert next(iter(read_scores(tmp_path / "d.jsonl")))[1].shape == (8, 3)
    monkeypatch.setattr("rein.models.laplace.load", lambda folder: None)
    with pytest.raises(UserError, match=r"(?s)says nothing of how unsure it is.*--ensemble"):
        score(config)


def test_a_loss_that_is_no_number_is_stopped_before_the_weights_change(config, monkeypatch):
    monkeypatch.setattr(module, "element_losses", lambda scores_N, *_: scores_N.sum()[None] * math.nan)
    with pytest.raises(UserError, match=r"(?s)Update 1 has loss nan.*--learning-rates"):
        reward(config)


def test_a_reward_model_of_another_program_does_not_say_how_it_reads(tmp_path, tokenizer):
    transformers = pytest.importorskip("transformers")
    shape = transformers.GPT2Config(vocab_size=300, n_positions=8, n_embd=8, n_head=1, n_layer=1, num_labels=1)
    transformers.GPT2ForSequenceClassification(shape).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).n_vocab == tokenizer.n_vocab
    with pytest.raises(UserError, match="does not say how it reads texts"):
        Scorer(tmp_path)
