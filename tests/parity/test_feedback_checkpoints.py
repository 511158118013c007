"""Checkpoints of `rein sft` and `rein ppo` in transformers: the same logits, the same continuations and values."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rein import checkpoint
from rein.models.huggingface import load_model
from rein.models.rollout import rollouts
from rein.models.rows import Completion
from rein.models.scalar import load_scalar, score_all
from rein.train.ppo import ppo
from rein.train.sft import sft
from rein.train.sft_config import SFTConfig

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))
import ppo_cases

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def runs(tokenizer, tmp_path_factory):
    """A supervised run, and one of PPO from its checkpoint, two batches long."""
    place = ppo_cases.place(tokenizer, tmp_path_factory.mktemp("runs"))
    rows = [{"prompt": f"say {n}", "response": " a word", "split": "valid" if n % 4 == 0 else "train"}
            for n in range(16)]  # fmt: skip
    (place / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    supervised = sft(SFTConfig(
        checkpoint=place / "sft", data=(place / "demonstrations.jsonl",), out=place / "runs/sft", format="plain",
        learning_rate=3e-3, epochs=1, demonstrations_per_batch=4, precision="fp32", samples=1, sample_tokens=4,
    ))  # fmt: skip
    config = ppo_cases.settings(place, "ppo", policy=checkpoint.latest(supervised), episodes=16, learning_rate=1e-2)
    ppo(config)
    return {"sft": supervised, "ppo": config.out}


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_transformers_gives_our_logits_and_greedy_continuation(runs, name):
    folder = checkpoint.latest(runs[name])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ours, tokenizer = load_model(folder)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, tokenizer.n_vocab, (2, 20)))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=0)
    query = tuple(tokenizer.encode("say 3").tolist())
    written = rollouts(ours, [query], max_new_tokens=8, temperature=0.0, eot_id=tokenizer.eot_id).completions[0]
    asked = torch.tensor([query])
    with torch.no_grad():
        said = theirs.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=8, do_sample=False,
                               eos_token_id=tokenizer.eot_id, pad_token_id=tokenizer.eot_id)  # fmt: skip
    assert tuple(said[0, len(query) :].tolist()) == written.response


def test_training_moved_the_weights(runs):
    """Else the tests above would say nothing of what was trained."""
    sft_model, _ = load_model(runs["sft"])
    ppo_model, _ = load_model(runs["ppo"])
    assert not torch.equal(sft_model.wte, ppo_model.wte)


def test_transformers_reads_the_value_network_of_a_checkpoint(runs):
    folder = checkpoint.latest(runs["ppo"]) / "value"
    theirs = transformers.GPT2ForSequenceClassification.from_pretrained(folder).eval()
    net, tokenizer = load_scalar(folder)
    each = Completion((5, 6, 7), (8, 9, tokenizer.eot_id))
    with torch.no_grad():
        logit = theirs(torch.tensor([[*each.query, *each.response]])).logits[0, 0]
        expected = net.gain * (logit + net.b) + net.bias
    assert score_all(net, [each])[0].item() == pytest.approx(expected.item(), abs=1e-5)
