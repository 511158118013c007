"""What pre-training and the auxiliary loss are worth: Table 5 of GPT-1, at the size of a laptop.

    python benchmarks/finetune_ablation.py --corpus DIR --data DIR --out DIR [--seeds 3] [--train-examples 1000]

Work      a GPT-1 (layers, width and context by flags) and an LSTM of one layer, both pre-trained on the corpus with
          the same windows, optimiser and rates; then `rein finetune` on each task, for each seed, of
            no pre-training    fresh weights, λ 0.5 and λ 0
            pre-trained        λ 0.5 and λ 0
            LSTM               pre-trained, λ 0.5
Corpus    a folder from `rein text build`; Python's documentation (the default of that command) will do.
Data      a folder with cola/{in_domain_train,in_domain_dev,out_of_domain_dev}.tsv, sst2/{train,dev}.txt,
          mrpc/{train,val}.tsv, stsb/{train,dev}.tsv, rte/{train,val}.jsonl and cb/{train,val}.jsonl.
Measure   the score of the epoch that is best on the held-out rows, times 100, as the released code chooses it:
          median over the seeds, with the range. `constant` answers the commonest training label.
Paper     117 million parameters, BooksCorpus, all examples: its numbers stand beside ours, not against them. The rate
          is ten times the paper's, for a model some fifty times smaller, and an update has 8 examples for 32, so that
          a part of the examples makes as many updates; everything else is as `rein finetune` has it.

Each cell is a run folder below --out: the same command continues, and prints the table of what is there.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rein import checkpoint, optim
from rein.bpe.tokenizer import load_tokenizer
from rein.evals.scores import SCORES
from rein.models.gpt import GPT, GPTConfig, Linear
from rein.models.huggingface import save_model
from rein.models.machine import autocast, resolve_precision
from rein.progress import Progress
from rein.text.mixture import order_of
from rein.text.shards import Shards, read_manifest
from rein.text.tasks import TASKS, read
from rein.train.finetune import finetune
from rein.train.finetune_config import FinetuneConfig
from rein.train.pretrain import PretrainConfig, pretrain

CPU = torch.device("cpu")
SEQUENCES, PRETRAIN_RATE, FIRST_SEED = 8, 1e-3, 42

# task → files to train on, files held out, whether their first line is a header
FILES = {
    "sst2": (("train.txt",), ("dev.txt",), False),
    "cola": (("in_domain_train.tsv",), ("in_domain_dev.tsv", "out_of_domain_dev.tsv"), False),
    "stsb": (("train.tsv",), ("dev.tsv",), True),
    "cb": (("train.jsonl",), ("val.jsonl",), False),
    "mrpc": (("train.tsv",), ("val.tsv",), True),
    "rte": (("train.jsonl",), ("val.jsonl",), False),
}
COLUMNS = {"cola": "CoLA (mc)", "sst2": "SST-2 (acc)", "mrpc": "MRPC (F1)", "stsb": "STS-B (pc)", "rte": "RTE (acc)",
           "cb": "CB (acc)"}  # fmt: skip
# condition → folder of its pre-trained model, pre-trained?, λ
CONDITIONS = {
    "no pre-training": ("transformer", False, 0.5),
    "no pre-training, no aux LM": ("transformer", False, 0.0),
    "pre-trained": ("transformer", True, 0.5),
    "pre-trained, no aux LM": ("transformer", True, 0.0),
    "LSTM, pre-trained": ("lstm", True, 0.5),
}
# Radford 2018, Table 5 and (full) Table 4; CB is not in it.
PAPER = {
    "paper: no pre-training": {"cola": 18.9, "sst2": 84.0, "mrpc": 79.4, "stsb": 30.9, "rte": 53.8},
    "paper: full (Tables 2 and 4)": {"cola": 45.4, "sst2": 91.3, "mrpc": 82.3, "stsb": 82.0, "rte": 56.0},
    "paper: no aux LM": {"cola": 47.9, "sst2": 92.0, "mrpc": 84.9, "stsb": 83.2, "rte": 54.4},
    "paper: LSTM": {"cola": 30.3, "sst2": 90.5, "mrpc": 83.2, "stsb": 71.8, "rte": 54.6},
}


class LSTM(GPT):
    """One layer of LSTM where a GPT has its blocks, 8/3 as wide as the embedding (the paper's: 2048 units for 768)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        units = 8 * config.n_embd // 3
        self.h = nn.ModuleDict()
        del self.wpe
        self.lstm = nn.LSTM(config.n_embd, units, batch_first=True)
        self.c_proj = Linear(units, config.n_embd)
        self.ln_f = nn.LayerNorm(config.n_embd)

    def states(self, tokens_BT, cache=None, *, documents_BT=None):
        wte_VD = self.embedding(self.dropout_seed())
        x_BTU, _ = self.lstm(F.embedding(tokens_BT, wte_VD))
        return self.ln_f(self.c_proj(x_BTU)), wte_VD

    @torch.no_grad()
    def initialise(self, seed: int):
        """torch's own start for the LSTM, GPT-1's for the rest."""
        super().initialise(seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.lstm.parameters():
            bound = 1 / math.sqrt(self.lstm.hidden_size)
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 * bound - bound)
        return self


def main() -> None:
    """Pre-trains, fine-tunes every cell that is missing, and prints the table after each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-examples", type=int, default=1000, help="of each task; 0: all")
    parser.add_argument("--examples-per-batch", type=int, default=8)
    parser.add_argument("--heldout-examples", type=int, default=400, help="of each task; 0: all")
    parser.add_argument("--pretrain-tokens", type=int, default=2_000_000)
    parser.add_argument("--n-layer", type=int, default=4)
    parser.add_argument("--n-embd", type=int, default=128)
    parser.add_argument("--n-ctx", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=6.25e-4)
    parser.add_argument("--tasks", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--models", nargs="+", choices=["transformer", "lstm"], default=["transformer", "lstm"])
    args = parser.parse_args()
    files = {name: prepare(args, name) for name in FILES}
    for kind, pretrain_it in (("transformer", pretrain_transformer), ("lstm", pretrain_lstm)):
        if kind not in args.models:
            continue
        pretrain_it(args)
        for task in args.tasks:
            train, heldout = files[task]
            for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
                for condition in (name for name, (start, *_) in CONDITIONS.items() if start == kind):
                    cell(args, condition, task, seed, train, heldout)
            print(table(args, files), flush=True)


def prepare(args, name: str) -> tuple[Path, Path]:
    """A task's training and held-out rows, drawn from its files once and for all seeds."""
    train, heldout, header = FILES[name]
    made = []
    for part, sources, limit in (("train", train, args.train_examples), ("heldout", heldout, args.heldout_examples)):
        path = args.out / "data" / f"{name}-{part}{limit or ''}{Path(sources[0]).suffix}"
        lines: list[str] = []
        for source in sources:
            text = (args.data / name / source).read_text(encoding="utf-8-sig")
            lines += [line for line in text.split("\n") if line.strip()]
        rows = lines[header:]
        drawn = np.random.default_rng(0).permutation(len(rows))[: limit or None]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*lines[:header], *(rows[i] for i in sorted(drawn))]) + "\n", encoding="utf-8")
        made.append(path)
    return made[0], made[1]


def pretrain_transformer(args) -> None:
    """`rein pretrain` of a small GPT-1. Its size needs AdamW's b2 of 0.95 and no dropout to learn from so little."""
    pretrain(
        PretrainConfig(
            data=args.corpus, out=args.out / "transformer", preset="gpt1", n_layer=args.n_layer, n_embd=args.n_embd,
            n_head=max(1, args.n_embd // 64), n_ctx=args.n_ctx, dropout=0.0, train_tokens=args.pretrain_tokens,
            sequences_per_batch=SEQUENCES, optimizer="adamw", schedule="cosine", learning_rate=PRETRAIN_RATE,
            adam_b2=0.95, weight_decay=0.1, final_lr_frac=0.1, warmup_tokens=args.pretrain_tokens // 10,
            heldout_tokens=20_000, sample_prompts=(),
        )
    )  # fmt: skip


def pretrain_lstm(args) -> None:
    """The same windows, optimiser and rates for the LSTM."""
    folder = args.out / "lstm"
    if folder.exists():
        return
    tokenizer = load_tokenizer(args.corpus)
    torch.manual_seed(0)
    model = LSTM(GPTConfig(tokenizer.n_vocab, args.n_ctx, args.n_embd, 1, 1, norm="post")).initialise(0)
    train, order = Shards(args.corpus, "train"), order_of(read_manifest(args.corpus), args.n_ctx, 0)
    optimizer = torch.optim.AdamW(
        optim.decayed_and_not(model), lr=PRETRAIN_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    batch_tokens, losses = SEQUENCES * args.n_ctx, []
    updates = -(-args.pretrain_tokens // batch_tokens)
    schedule = {"warmup_tokens": args.pretrain_tokens // 10, "decay_tokens": args.pretrain_tokens, "final_frac": 0.1}
    precision = resolve_precision("auto", CPU)
    with Progress("pre-training the LSTM", total=updates * batch_tokens, unit="tokens") as bar:
        for update in range(updates):
            windows = torch.from_numpy(train.windows(order.starts(update * SEQUENCES, SEQUENCES), args.n_ctx + 1))
            for group in optimizer.param_groups:
                group["lr"] = PRETRAIN_RATE * optim.warmup_cosine((update + 1) * batch_tokens, **schedule)
            with autocast(CPU, precision):
                loss = model.loss(windows[:, :-1], windows[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            bar.advance(batch_tokens, note=f"loss {statistics.fmean(losses[-50:]):.3f}")
    checkpoint.save(folder, lambda part: save_model(part, model, tokenizer), {"made_by": "finetune_ablation"})


def cell(args, condition: str, task: str, seed: int, train: Path, heldout: Path) -> None:
    """One run of `rein finetune`, or none where it is finished."""
    kind, pretrained, lm_coef = CONDITIONS[condition]
    config = FinetuneConfig(
        checkpoint=args.out / kind, task=task, data=(train,), heldout=(heldout,),
        out=folder_of(args, condition, task, seed), learning_rate=args.learning_rate, lm_coef=lm_coef,
        examples_per_batch=args.examples_per_batch, pretrained=pretrained, dropout=0.1, seed=seed,
        lm_softmax="vocabulary" if kind == "lstm" else "auto", log_every_updates=1000,
    )  # fmt: skip
    if not (config.out / "scores.json").exists():
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            finetune(config, LSTM if kind == "lstm" else GPT)
        score = json.loads((config.out / "scores.json").read_text())[0]
        print(f"{task:5} seed {seed} {condition:28} {score['name']} {score['value']:.4f}", flush=True)


def folder_of(args, condition: str, task: str, seed: int) -> Path:
    """Where a cell is."""
    return args.out / "cells" / condition.replace(", ", "-").replace(" ", "-") / f"{task}-{seed}"


def table(args, files: dict) -> str:
    """Markdown: a row for each condition, medians over the seeds with their range, and the paper's rows."""
    heads = list(COLUMNS)
    lines = ["", f"| | {' | '.join(COLUMNS.values())} | mean of five |", "| --- |" + " ---: |" * (len(heads) + 1)]
    constant = {name: constant_score(name, *files[name]) for name in heads}
    lines.append(row("constant", {name: [value] for name, value in constant.items()}))
    for condition in CONDITIONS:
        found: dict[str, list[float]] = {}
        for name in heads:
            paths = [folder_of(args, condition, name, FIRST_SEED + n) / "scores.json" for n in range(args.seeds)]
            found[name] = [100 * json.loads(path.read_text())[0]["value"] for path in paths if path.exists()]
        lines.append(row(condition, found))
    lines += [row(name, {task: [value] for task, value in values.items()}) for name, values in PAPER.items()]
    return "\n".join(lines)


def row(name: str, values: dict[str, list[float]]) -> str:
    """One line of the table. The mean is over the five tasks that the paper has too."""
    cells, medians = [], []
    for task in COLUMNS:
        if not values.get(task):
            cells.append("–")
            continue
        median = statistics.median(values[task])
        if task != "cb":
            medians.append(median)
        spread = f" ({min(values[task]):.1f}–{max(values[task]):.1f})" if len(values[task]) > 1 else ""
        cells.append(f"{median:.1f}{spread}")
    mean = f"{statistics.fmean(medians):.1f}" if len(medians) == 5 else "–"
    return f"| {name} | {' | '.join(cells)} | {mean} |"


def constant_score(name: str, train: Path, heldout: Path) -> float:
    """100 times the score of answering every held-out row with the commonest training label (or the mean score)."""
    task = TASKS[name]
    common = Counter(example.label for example in read(task, train).examples).most_common(1)[0][0]
    labels = np.array([example.label for example in read(task, heldout).examples], dtype=float)
    return 100 * SCORES[task.scores[0]](np.full(len(labels), common), labels).value


if __name__ == "__main__":
    main()
