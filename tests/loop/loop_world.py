"""A small world for loops: an untrained model, prompts with references, a gold score, settings of seconds."""

from __future__ import annotations

import json
from pathlib import Path

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model

GOLDS = '''
def gold(context, text):
    """Vowels, by the four."""
    return sum(letter in "aeiou" for letter in text) / 4
'''


def make_world(folder: Path, tokenizer: Tokenizer) -> Path:
    """Fills a folder with sft/, prompts.jsonl, ppo.json, reward.json, loop_golds.py."""
    config = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=64, n_embd=32, n_head=2, n_layer=1)
    model = GPT(config).initialise(0)
    checkpoint.save(folder / "sft", lambda path: save_model(path, model, tokenizer), {"made_by": "test"})
    rows = [
        {"prompt": f"Say {n}.", "reference": f"It is {n} and no more.", "split": "train" if n % 4 else "heldout"}
        for n in range(48)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ppo = {
        "episodes": 32, "episodes_per_batch": 16, "heldout_prompts": 4, "show_samples": 2, "learning_rate": 1e-3,
        "value_learning_rate": 1e-3, "precision": "fp32",
    }  # fmt: skip
    (folder / "ppo.json").write_text(json.dumps(ppo), encoding="utf-8")
    reward = {"learning_rates": [1e-3], "prompts_per_batch": 8, "precision": "fp32"}
    (folder / "reward.json").write_text(json.dumps(reward), encoding="utf-8")
    (folder / "loop_golds.py").write_text(GOLDS, encoding="utf-8")
    return folder
