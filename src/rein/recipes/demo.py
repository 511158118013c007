"""`rein demo`: from the text on this machine to a GPT that writes, in a few minutes.

    1  corpus     the documentation that every Python installation has → documents → BPE → token shards
    2  plan       how fast does this machine train the model? So how many tokens fit into the time?
    3  pre-train  the language-model objective, with held-out loss, samples and a report on the way
    4  compare    what it writes, what it wrote early on, and what was really there, two by two, through the labeling
                  server, by simulated labelers (collect.py)
    5  result     bits per byte before and after, samples, what to try next

Every stage is kept: stop it at any time, run it again, and it goes on where it was.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from rein import checkpoint
from rein.bpe.tokenizer import load_tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.models.gpt import GPT
from rein.models.machine import autocast, keep_freed_memory, resolve_device, resolve_precision
from rein.progress import duration
from rein.recipes.collect import collect
from rein.run import lock_folder, read_rows, write_atomically
from rein.text.build import BuildConfig, build
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig


@dataclass(frozen=True)
class DemoConfig:
    """Settings of `rein demo`."""

    minutes: float = setting(10.0, "how long it may take, all stages together", unit="minutes")
    out: Path = setting(Path("runs/demo"), "folder for the corpus, the run and the report")
    seed: int = setting(0, "of the corpus split, the weights, the order of the text and the samples")

    def __post_init__(self) -> None:
        if self.minutes < 1:
            raise UserError(
                f"--minutes is {self.minutes}, but reading the corpus alone takes about half a minute.",
                "Use --minutes 1 or more.",
            )


def demo(config: DemoConfig) -> None:
    """Trains a small GPT on the documentation of this Python and its packages, and shows what it learned.

    What it writes is then compared with earlier writing and with the real text, through the labeling server.
    Needs no network, no GPU and no data. Stop it with Ctrl-C and run it again: it goes on where it was.

    Examples
      rein demo
      rein demo --minutes 3 --out runs/quick
    """
    began = time.monotonic()
    with lock_folder(config.out):
        print("1/4  text → documents → BPE → token shards", flush=True)
        corpus = config.out / "corpus"
        build(BuildConfig(source="pydocs", out=corpus, n_vocab=N_VOCAB, seed=config.seed))

        print("\n2/4  token shards → a GPT", flush=True)
        left_s = max(60 * config.minutes - (time.monotonic() - began) - RESERVE_S - COMPARE_S, 20.0)
        training = plan(config, corpus, left_s)
        pretrain(training)

        print("\n3/4  what it writes, compared two by two through the labeling server", flush=True)
        store = collect(corpus, training.out, config.out, seed=config.seed)
        steps = checkpoint.all_steps(training.out / "checkpoints")
        checkpoint.prune(training.out / "checkpoints", 2, spare=checkpoint.step_of(steps[0]))

    print("\n4/4  what it learned")
    show(training.out, store, time.monotonic() - began)


N_VOCAB = 4096  # of so little text, a larger vocabulary learns too few of its words
RESERVE_S = 20.0  # for starting, the last evaluation and the report
COMPARE_S = 25.0  # for drawing pairs and having them compared


def settings(config: DemoConfig, corpus: Path, train_tokens: int) -> PretrainConfig:
    """A GPT-2 of the size that learns most in ten minutes on two cores (docs/log.md says how it was found)."""
    return PretrainConfig(
        data=corpus,
        out=config.out / "pretrain",
        n_layer=4,
        n_embd=160,
        n_head=5,
        n_ctx=256,
        train_tokens=train_tokens,
        sequences_per_batch=16,
        learning_rate=4e-3,
        sample_prompts=("Return the ", "This function ", "The following example ", "If the file does not exist, "),
        heldout_tokens=60_000,
        checkpoint_every_s=max(5.0, 5 * config.minutes),  # about ten, all kept until the first was compared
        keep_checkpoints=1000,
        seed=config.seed,
    )


def plan(config: DemoConfig, corpus: Path, left_s: float) -> PretrainConfig:
    """The settings whose training fits into `left_s` seconds; decided once, then read from plan.json."""
    path = config.out / "plan.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if (kept["minutes"], kept["seed"]) != (config.minutes, config.seed):
            raise UserError(
                f"{config.out} holds a demo of --minutes {kept['minutes']:g} --seed {kept['seed']}.",
                "Finish it with those flags, or choose another --out.",
            )
        return settings(config, corpus, kept["train_tokens"])
    rate = tokens_per_s(settings(config, corpus, 1))
    train_tokens = int(rate * left_s * 0.88)  # evaluations and checkpoints take the rest
    print(
        f"     this machine trains about {rate:,.0f} tokens/s: {train_tokens:,} tokens in {duration(left_s)}",
        flush=True,
    )
    kept = {"minutes": config.minutes, "seed": config.seed, "train_tokens": train_tokens, "tokens_per_s": rate}
    write_atomically(path, json.dumps(kept) + "\n")
    return settings(config, corpus, train_tokens)


def tokens_per_s(training: PretrainConfig, *, seconds: float = 3.0) -> float:
    """How fast this machine makes updates of that model, on random tokens."""
    keep_freed_memory()
    device = resolve_device(training.device)
    precision = resolve_precision(training.precision, device)
    model = GPT(training.model(load_tokenizer(training.data).n_vocab)).initialise(0).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    shape = (training.sequences_per_batch or 16, model.config.n_ctx)
    tokens_BT = torch.randint(0, model.config.n_vocab, shape, generator=torch.Generator().manual_seed(0)).to(device)
    made, began = -2, time.monotonic()  # two to warm up
    while made < 1 or time.monotonic() - began < seconds:
        with autocast(device, precision):
            loss = model.loss(tokens_BT, tokens_BT)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        made += 1
        if made == 0:
            loss.item()
            began = time.monotonic()
    loss.item()
    return made * shape[0] * shape[1] / (time.monotonic() - began)


def show(run: Path, store: Path, took_s: float) -> None:
    """Before and after, the last samples, and what to type next."""
    held = [row for row in read_rows(run / "metrics.jsonl") if "heldout_loss" in row]
    first, last = held[0], held[-1]
    print(
        f"held-out text     {first['heldout_bits_per_byte']:.3f} → {last['heldout_bits_per_byte']:.3f} bits per byte "
        f"(perplexity {first['heldout_perplexity']:,.0f} → {last['heldout_perplexity']:,.1f} per token)"
    )
    print(f"trained on        {last['tokens']:,} tokens in {duration(last['wall_s'])}; all stages {duration(took_s)}")
    for row in read_rows(run / "samples.jsonl"):
        if row["opt_step"] == last["opt_step"]:
            print(f"\n  {row['prompt']}▸{row['text']}".replace("\n", "\n  "))
    print(
        "\nteach an agent    rein tamer play loop-maze (in the browser, by hand, in three minutes)\n"
        f"compare yourself  rein label serve {store} (the pairs that all labelers share are yours too)\n"
        f"report            {run / 'report.html'} (open it in a browser)\n"
        f'write with it     rein generate {run} --prompt "Returns True if " --top-p 0.9\n'
        f"measure it        rein perplexity {run} README.md\n"
        f"look at the text  rein text show {run.parent / 'corpus'}\n"
        "your own text     rein text build --source folder --help, then rein pretrain --help"
    )
