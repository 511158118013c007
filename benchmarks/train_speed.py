"""Training speed: Rein against nanoGPT (bf16 autocast) and Hugging Face's GPT-2 (its default fp32), one run.

    python benchmarks/train_speed.py --nanogpt DIR [--vocab 65 8192] [--rounds 8] [--loss-updates 100]

Work      a 6-layer, 384-wide, 6-head GPT-2, context 256, 16 sequences a batch, dropout 0, on real text: the same
          weights at the start, the same batches, AdamW (0.9, 0.95), decay 0.1, clip 1, one update after the other.
Time      the candidates take turns, an update each, after a warm-up; each one's median counts, so that whatever
          else the machine does meets all of them. GFLOP/s are 6 · weights + causal attention, by the peers too.
Peak      the largest rate of any of the model's own matrix products, measured alone in the same process.
Loss      `--loss-updates` updates of each from the same start; the mean of the last tenth.
Peers     nanoGPT: a checkout of karpathy/nanoGPT, `model.py` unchanged. transformers: the installed version.
"""

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from rein.bpe.trainer import train as train_bpe
from rein.models.gpt import GPT, GPTConfig
from rein.models.machine import autocast, resolve_precision
from rein.optim import decayed_and_not
from rein.text.pydocs import python_documentation

CPU = torch.device("cpu")
T, SEQUENCES, RATE = 256, 16, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT; left out: not compared")
    parser.add_argument("--vocab", type=int, nargs="+", default=[65, 8192])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--loss-updates", type=int, default=100)
    parser.add_argument("--text", type=Path, help="UTF-8 text; left out: Python's own documentation")
    args = parser.parse_args()
    text = args.text.read_text(encoding="utf-8") if args.text else "\n\n".join(python_documentation())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(text):,} characters of text")
    peaks = {name: matmul_peak(dtype) for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))}
    print("matmul peak " + ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in peaks.items()))
    for n_vocab in args.vocab:
        compare(n_vocab, token_ids(text, n_vocab), args, peaks)


def token_ids(text: str, n_vocab: int) -> np.ndarray:
    """Characters for a vocabulary of 65 (64 common ones and one for the rest), byte-level BPE above 256."""
    if n_vocab <= 256:
        characters, counts = np.unique(list(text), return_counts=True)
        common = set(characters[np.argsort(-counts)][: n_vocab - 1])
        ids = {character: index for index, character in enumerate(sorted(common))}
        return np.array([ids.get(character, n_vocab - 1) for character in text])
    return train_bpe([text], n_vocab).encode(text).astype(np.int64)


def compare(n_vocab: int, ids: np.ndarray, args: argparse.Namespace, peaks: dict[str, float]) -> None:
    config = GPTConfig(n_vocab, T, 384, 6, 6)
    flops = config.train_flops_per_token()
    candidates = build(config, args.nanogpt)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(args.rounds + 2):
        tokens, targets = batch(ids, number)
        for name, (update, _) in candidates.items():
            began = time.perf_counter()
            update(tokens, targets)
            if number >= 2:
                times[name].append(time.perf_counter() - began)
    losses = dict.fromkeys(candidates, float("nan"))
    if args.loss_updates:
        for name, (update, _) in build(config, args.nanogpt).items():
            history = [update(*batch(ids, number)) for number in range(args.loss_updates)]
            losses[name] = statistics.fmean(history[-max(1, args.loss_updates // 10) :])
    ours = statistics.median(times["rein"])
    print(f"\nvocabulary {n_vocab:,}: {config.n_params():,} parameters, {len(ids):,} tokens of text")
    print(f"{'':32}{'tokens/s':>10}{'rein is':>10}{'GFLOP/s':>10}{'of peak':>9}{'last loss':>11}")
    for name, (_, precision) in candidates.items():
        seconds = statistics.median(times[name])
        rate = SEQUENCES * T / seconds
        print(
            f"{name + ', ' + precision:32}{rate:10,.0f}{seconds / ours:9.2f}x{rate * flops / 1e9:10.0f}"
            f"{rate * flops / peaks[precision]:9.0%}{losses[name]:11.4f}"
        )


def build(config: GPTConfig, nanogpt: Path | None) -> dict:
    """name → (update(tokens, targets) -> loss, precision), all from the same weights."""
    precision = resolve_precision("auto", CPU)
    ours = GPT(config).initialise(0)
    options = {"lr": RATE, "betas": (0.9, 0.95), "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(decayed_and_not(ours), fused=True, **options)
    candidates = {"rein": (updater(ours, optimizer, ours.loss, precision), precision)}
    if nanogpt:
        peer = nanogpt_model(nanogpt, config, ours)
        with contextlib.redirect_stdout(None):
            optimizer = peer.configure_optimizers(0.1, RATE, (0.9, 0.95), "cpu")
        loss = lambda tokens, targets: peer(tokens, targets)[1]  # noqa: E731
        candidates["nanoGPT"] = (updater(peer, optimizer, loss, precision), precision)
    version, peer = huggingface_model(config, ours)
    optimizer = torch.optim.AdamW(decayed_and_not(peer), **options)
    shifted = lambda tokens, targets: torch.nn.functional.cross_entropy(  # noqa: E731
        peer(tokens).logits.flatten(0, 1), targets.flatten()
    )
    candidates[f"transformers {version}"] = (updater(peer, optimizer, shifted, "fp32"), "fp32")
    return candidates


def updater(model, optimizer, loss_of, precision):
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
    import transformers

    shape = {"vocab_size": config.n_vocab, "n_positions": T, "n_embd": 384, "n_layer": 6, "n_head": 6}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **off)).train()
    theirs = peer.state_dict()
    for name, value in ours.state_dict().items():
        theirs["transformer." + name + (".weight" if name in ("wte", "wpe") else "")].copy_(value)
    return transformers.__version__, peer


def batch(ids: np.ndarray, number: int):
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
