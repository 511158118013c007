"""Fifty updates of a small reward model, for the golden traces: rankings of three, on texts that no version changes."""

from __future__ import annotations

import json
from pathlib import Path

from rein.bpe.byte_level import ByteLevelBPE
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.run import read_rows
from rein.train.reward import reward
from rein.train.reward_config import RewardConfig


def reward_trace(folder: Path) -> list[list[float]]:
    """[loss, gradient norm] of each update."""
    policy = folder / "policy"
    policy.mkdir()
    tokenizer = ByteLevelBPE(())
    save_model(policy, GPT(GPTConfig(tokenizer.n_vocab, 64, 32, 2, 2)).initialise(0), tokenizer)
    rows = []
    for n in range(220):
        outputs = [f"{n} and {n * k % 7} is {'ab'[n * k % 2]}{k}" for k in (1, 3, 4)]
        ranks = [1, 2, 3] if n % 3 else [2, 1, 2]
        rows.append({"group_id": str(n), "prompt": f"Say {n}: ", "outputs": outputs, "ranks": ranks,
                     "labeler": f"l{n % 2}", "split": "train" if n < 200 else f"valid{1 + n % 2}"})  # fmt: skip
    data = folder / "ranked.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = reward(RewardConfig(
        policy=policy, data=(data,), out=folder / "reward", preset="instructgpt2022", normalise="candidates",
        ties="davidson", reliability="temperature", learning_rates=(3e-3,), prompts_per_batch=4, precision="fp32",
        device="cpu", log_every_updates=1,
    ))  # fmt: skip
    found = [row for row in read_rows(out / "metrics.jsonl") if "reward_loss" in row]
    return [[row["reward_loss"], row["grad_norm"]] for row in found[:50]]
