"""Training speed: Rein against nanoGPT (bf16 autocast) and Hugging Face's GPT-2 (its default fp32), one run.

    python benchmarks/train_speed.py --nanogpt DIR [--vocab 65 8192] [--rounds 8] [--loss-updates 100]

Work      a 6-layer, 384-wide, 6-head GPT-2, context 256, 16 sequences a batch, dropout 0, on real text: the same
          weights at the start, the same batches, AdamW (0.9, 0.95), decay 0.1, clip 1, one update after the other.
Time      the candidates take turns, an update each, in processes of their own; each one's median after a warm-up
          counts, so that whatever else the machine does meets all of them. GFLOP/s are those the task needs:
          6 · weights + causal attention, whatever a candidate really computes.
Peak      the largest rate of any of the model's own matrix products, measured alone in the same process.
Loss      after `--loss-updates` updates of each from the same start: the mean of the last tenth.
Peers     nanoGPT: a checkout of karpathy/nanoGPT, `model.py` unchanged. transformers: the installed version.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from rein.bpe.trainer import train as train_bpe
from rein.models.gpt import GPT, GPTConfig
from rein.models.machine import autocast, keep_freed_memory, resolve_precision
from rein.optim import decayed_and_not
from rein.text.documents import Document
from rein.text.pydocs import PyDocs

CPU = torch.device("cpu")
T, SEQUENCES, RATE = 256, 16, 1e-3


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT; left out: not compared")
    parser.add_argument("--vocab", type=int, nargs="+", default=[65, 8192])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--loss-updates", type=int, default=100)
    parser.add_argument("--text", type=Path, help="UTF-8 text; left out: Python's own documentation")
    args = parser.parse_args()
    text = args.text.read_text(encoding="utf-8") if args.text else python_documentation()
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {len(text):,} characters of text")
    peaks = {name: matmul_peak(dtype) for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))}
    print("matmul peak " + ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in peaks.items()))
    for n_vocab in args.vocab:
        compare(n_vocab, token_ids(text, n_vocab), args, peaks)


def python_documentation(characters: int = 3_000_000) -> str:
    """The first docstrings and topics of the standard library."""
    texts, length = [], 0
    for document in PyDocs(min_chars=40):
        if isinstance(document, Document) and length < characters:
            texts.append(document.text)
            length += len(document.text)
        elif length >= characters:
            break
    return "\n\n".join(texts)


def token_ids(text: str, n_vocab: int) -> np.ndarray:
    """Characters for a vocabulary of 65 (64 common ones and one for the rest), byte-level BPE above 256."""
    if n_vocab <= 256:
        characters, counts = np.unique(list(text), return_counts=True)
        common = set(characters[np.argsort(-counts)][: n_vocab - 1])
        ids = {character: index for index, character in enumerate(sorted(common))}
        return np.array([ids.get(character, n_vocab - 1) for character in text])
    return train_bpe([text], n_vocab).encode(text).astype(np.int64)


def compare(n_vocab: int, ids: np.ndarray, args: argparse.Namespace, peaks: dict[str, float]) -> None:
    """Times and trains the candidates of one vocabulary, each in a process of its own, and prints a table."""
    config = GPTConfig(n_vocab, T, 384, 6, 6)
    flops = config.train_flops_per_token()
    precision = resolve_precision("auto", CPU)
    names = {"rein": precision, **({"nanoGPT": precision} if args.nanogpt else {}), "transformers": "fp32"}
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name in names:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(name, config, args.nanogpt, there), daemon=True)
        process.start()
        here.recv()
        workers[name] = here

    times: dict[str, list[float]] = {name: [] for name in names}
    losses: dict[str, list[float]] = {name: [] for name in names}
    for number in range(max(args.rounds + 2, args.loss_updates)):
        tokens, targets = batch(ids, number)
        for name, pipe in workers.items():
            pipe.send((tokens.numpy(), targets.numpy()))
            seconds, loss = pipe.recv()
            losses[name].append(loss)
            if 2 <= number < args.rounds + 2:
                times[name].append(seconds)
    for pipe in workers.values():
        pipe.send(None)

    ours = statistics.median(times["rein"])
    print(f"\nvocabulary {n_vocab:,}: {config.n_params():,} parameters, {len(ids):,} tokens of text")
    print(f"{'':24}{'tokens/s':>10}{'rein is':>10}{'GFLOP/s':>10}{'of peak':>9}{'last loss':>11}")
    for name, precision in names.items():
        rate = SEQUENCES * T / statistics.median(times[name])
        tail = losses[name][-max(1, len(losses[name]) // 10) :]
        print(
            f"{name + ', ' + precision:24}{rate:10,.0f}{statistics.median(times[name]) / ours:9.2f}x"
            f"{rate * flops / 1e9:10.0f}{rate * flops / peaks[precision]:9.0%}{statistics.fmean(tail):11.4f}"
        )


def work(name: str, config: GPTConfig, nanogpt: Path | None, pipe) -> None:
    """One candidate: makes an update for every batch that comes through the pipe, answers (seconds, loss)."""
    update = candidate(name, config, nanogpt)
    pipe.send("ready")
    while (message := pipe.recv()) is not None:
        tokens, targets = (torch.from_numpy(array) for array in message)
        began = time.perf_counter()
        loss = update(tokens, targets)
        pipe.send((time.perf_counter() - began, loss))


def candidate(name: str, config: GPTConfig, nanogpt: Path | None):
    """update(tokens, targets) -> loss, from the same weights for each, with each one's own optimiser."""
    precision = resolve_precision("auto", CPU)
    ours = GPT(config).initialise(0)
    options = {"lr": RATE, "betas": (0.9, 0.95), "weight_decay": 0.1}
    if name == "rein":
        keep_freed_memory()  # as `rein pretrain` does
        return updater(ours, torch.optim.AdamW(decayed_and_not(ours), fused=True, **options), ours.loss, precision)
    if name == "nanoGPT":
        peer = nanogpt_model(nanogpt, config, ours)
        with contextlib.redirect_stdout(None):
            optimizer = peer.configure_optimizers(0.1, RATE, (0.9, 0.95), "cpu")
        return updater(peer, optimizer, lambda tokens, targets: peer(tokens, targets)[1], precision)
    peer = huggingface_model(config, ours)

    def loss(tokens, targets):
        return torch.nn.functional.cross_entropy(peer(tokens).logits.flatten(0, 1), targets.flatten())

    return updater(peer, torch.optim.AdamW(decayed_and_not(peer), **options), loss, "fp32")


def updater(model, optimizer, loss_of, precision):
    """One update of a model: forward, backward, clip, optimiser."""

    def update(tokens, targets):
        with autocast(CPU, precision):
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return update


def nanogpt_model(folder: Path, config: GPTConfig, ours: GPT):
    """nanoGPT's model with our weights."""
    sys.path.insert(0, str(folder))
    with contextlib.redirect_stdout(None):
        from model import GPT as Peer
        from model import GPTConfig as PeerConfig

        shape = {"block_size": T, "vocab_size": config.n_vocab, "n_layer": 6, "n_head": 6, "n_embd": 384}
        peer = Peer(PeerConfig(**shape, dropout=0.0, bias=True))
    sys.path.pop(0)
    theirs = peer.state_dict()
    for name, value in ours.state_dict().items():
        target = theirs["transformer." + name + (".weight" if name in ("wte", "wpe") else "")]
        target.copy_(value.t() if target.shape != value.shape or ".c_proj.weight" in name else value)
    return peer


def huggingface_model(config: GPTConfig, ours: GPT):
    """transformers' GPT-2 with our weights."""
    import transformers

    shape = {"vocab_size": config.n_vocab, "n_positions": T, "n_embd": 384, "n_layer": 6, "n_head": 6}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **off)).train()
    theirs = peer.state_dict()
    for name, value in ours.state_dict().items():
        theirs["transformer." + name + (".weight" if name in ("wte", "wpe") else "")].copy_(value)
    return peer


def batch(ids: np.ndarray, number: int):
    """The batch of that number: the same for every candidate."""
    starts = np.random.default_rng(number).integers(0, len(ids) - T - 1, SEQUENCES)
    windows = torch.from_numpy(np.stack([ids[start : start + T + 1] for start in starts]))
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of the model's own products."""
    best = 0.0
    for k, n in ((384, 1152), (384, 384), (384, 1536), (1536, 384)):
        a, b = torch.randn(SEQUENCES * T, k).to(dtype), torch.randn(k, n).to(dtype)
        for _ in range(12):
            began = time.perf_counter()
            a @ b
            best = max(best, 2 * SEQUENCES * T * k * n / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
