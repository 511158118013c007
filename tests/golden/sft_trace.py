"""Fifty updates of a supervised start, on rows that no version changes: [train loss, gradient norm] of each."""

import json
from pathlib import Path

from rein.bpe.trainer import train
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.run import read_rows
from rein.train.sft import sft
from rein.train.sft_config import SFTConfig


def trace_sft(folder: Path) -> list[list[float]]:
    """Packed rows, dropout on the branches, and one row in ten held out."""
    rows = [{"prompt": f"{n} plus {n * n % 89} makes", "response": f" {n + n * n % 89}{'.' * (n % 4)}",
             "split": "valid" if n % 10 == 0 else "train"} for n in range(300)]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = train([f"{row['prompt']}{row['response']}\n" for row in rows], 290)
    model = GPT(GPTConfig(tokenizer.n_vocab, 40, 48, 3, 3)).initialise(0)
    (folder / "start").mkdir()
    save_model(folder / "start", model, tokenizer)
    config = SFTConfig(
        folder / "start", data=(folder / "rows.jsonl",), out=folder / "run", format="plain", preset="instructgpt2022",
        select="loss", learning_rate=3e-3, demonstrations_per_batch=27, epochs=5, pack=True, samples=0,
        precision="fp32", device="cpu", log_every_updates=1,
    )  # fmt: skip
    sft(config)
    found = [row for row in read_rows(folder / "run" / "metrics.jsonl") if "train_loss" in row]
    return [[row["train_loss"], row["grad_norm"]] for row in found[:50]]
