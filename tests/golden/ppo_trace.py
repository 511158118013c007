"""Fifty updates of PPO in 25 batches, on a reward and prompts that no version changes: [score, KL, losses, norm]."""

import json
from pathlib import Path

from rein.bpe.trainer import train
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.run import read_rows
from rein.train.ppo import ppo
from rein.train.ppo_config import PPOConfig

NAMES = ("score_mean", "kl_nats", "policy_loss", "value_loss", "grad_norm")


def vowels(context, text):
    """An eighth for each."""
    return sum(c in "aeiou" for c in text) / 8


def trace_ppo(folder: Path) -> list[list[float]]:
    """A value network of its own, whitened rewards, two passes over each batch of eight."""
    rows = [{"prompt": f"say {n}{' words' * (n % 3)}", "split": "train" if n < 20 else "valid"} for n in range(28)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = train([f"{row['prompt']} and so on\n" for row in rows], 270)
    (folder / "start").mkdir()
    save_model(folder / "start", GPT(GPTConfig(tokenizer.n_vocab, 40, 24, 2, 2)).initialise(0), tokenizer)
    config = PPOConfig(
        folder / "start", f"{Path(__file__).stem}:vowels", folder / "prompts.jsonl", folder / "run",
        preset="stiennon2020", format="plain", query_tokens=24, response_tokens=8, episodes=200, episodes_per_batch=8,
        epochs=2, learning_rate=2e-3, value_learning_rate=2e-3, precision="fp32", device="cpu", heldout_prompts=4,
        checkpoint_every_s=1e9, log_every_batches=1,
    )  # fmt: skip
    ppo(config)
    found = [row for row in read_rows(folder / "run" / "metrics.jsonl") if "score_mean" in row]
    return [[row[name] for name in NAMES] for row in found]
