"""Banded attention on a CPU against dense attention: one layer, then an update of a whole GPT-3.

    python benchmarks/banded_attention.py [--context 1024 2048 4096 8192] [--band 64 128 256] [--rounds 7]
                                          [--precision fp32 bf16] [--model gpt3-small] [--model-context 2048 4096 8192]
                                          [--model-rounds 3] [--threads 1]

Work      layer: forward and backward of one attention layer over fused queries, keys, values; one sequence, 12 heads
          of 64. Model: an update (forward, backward, clip, AdamW) of `--model` with one sequence of the context; banded
          as GPT-3 is, every other layer, against the same model with every layer dense. 8,192 tokens take 7 to 8 GB.
Time      process time on one thread, which other work on the machine disturbs least; the candidates take turns, and
          the smallest counts, the median beside it. Ratios are of the smallest times, to PyTorch's dense attention.
Peers     dense: PyTorch's scaled_dot_product_attention, is_causal. mask: the same with the band as an explicit mask,
          which is how a band is mostly written. ours, dense: what a dense layer here uses, PyTorch's operator or not.
          A model's attention share is what its dense layers' attention, timed alone as above, is of the dense update.
Honest    a band makes its layer faster; what that does for an update is the second table.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from rein.models.attention import causal_attention
from rein.models.attention_plain import seen_keys
from rein.models.gpt import GPT, GPTConfig
from rein.models.machine import autocast, keep_freed_memory
from rein.models.presets import preset
from rein.optim import decayed_and_not

CPU = torch.device("cpu")
H, E = 12, 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, nargs="*", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--band", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=DTYPES, nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--model", default="gpt3-small")
    parser.add_argument("--model-context", type=int, nargs="*", default=[2048, 4096, 8192])
    parser.add_argument("--model-rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as `rein pretrain` does
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ms of process time, smallest (median)")
    for precision in args.precision:
        for context in args.context:
            compare_layers(precision, context, args.band, args.rounds)
    for precision in args.precision:
        for context in args.model_context:
            compare_models(precision, args.model, context, args.model_rounds)


def compare_layers(precision: str, T: int, bands: list[int], rounds: int) -> None:
    """Times one layer of one context and prints a line a candidate."""
    qkv = torch.randn(1, T, 3 * H * E, generator=torch.Generator().manual_seed(0)).to(DTYPES[precision])
    qkv.requires_grad_()
    gradient = torch.randn(1, T, H * E, generator=torch.Generator().manual_seed(1)).to(DTYPES[precision])
    mask = seen_keys(T, max(bands), None, CPU)

    def both(attention: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(attention(qkv), qkv, gradient)

    candidates = {
        "dense": both(lambda x: operator(x, None)),
        "ours, dense": both(lambda x: causal_attention(x, H)),
        f"mask, band {max(bands)}": both(lambda x: operator(x, mask)),
    }
    for band in bands:
        candidates[f"ours, band {band}"] = both(lambda x, band=band: causal_attention(x, H, band=band))
    times = take_turns(candidates, rounds)
    dense, ours = min(times["dense"]), min(times["ours, dense"])
    print(f"\n{precision}, T {T:,}{'':16}{'ms':>9}{'':12}{'to dense':>10}{'to ours, dense':>16}")
    for name, taken in times.items():
        best, median = 1e3 * min(taken), 1e3 * statistics.median(taken)
        print(
            f"  {name:22}{best:12.1f} {f'({median:.1f})':11}{dense / min(taken):9.2f}x{ours / min(taken):15.2f}x",
            flush=True,
        )


def operator(qkv_BT3I: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """PyTorch's attention over the same fused tensor."""
    B, T, width = qkv_BT3I.shape
    q, k, v = qkv_BT3I.view(B, T, 3, H, E).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out.transpose(1, 2).reshape(B, T, width // 3)


def compare_models(precision: str, name: str, T: int, rounds: int) -> None:
    """Times updates of a model with its bands and without, and prints what is gained."""
    banded = replace(preset(name).model, n_ctx=T)
    dense = replace(banded, attention="dense")
    model = GPT(banded).initialise(0)
    optimizer = torch.optim.AdamW(decayed_and_not(model), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, banded.n_vocab, (1, T + 1), generator=torch.Generator().manual_seed(0))
    qkv = torch.randn(1, T, 3 * dense.d_inner).to(DTYPES[precision]).requires_grad_()
    gradient = torch.randn(1, T, dense.d_inner).to(DTYPES[precision])

    def update(config: GPTConfig) -> None:
        for layer, block in model.h.items():
            block.attn.band = config.band_of_layer(int(layer))
        with autocast(CPU, precision):
            loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    candidates = {
        "dense": lambda: update(dense),
        "banded": lambda: update(banded),
        "attention": lambda: torch.autograd.grad(causal_attention(qkv, dense.n_head), qkv, gradient),
    }
    best = {candidate: min(taken) for candidate, taken in take_turns(candidates, rounds).items()}
    share = dense.n_layer * best["attention"] / best["dense"]
    needed = dense.train_flops_per_token() / banded.train_flops_per_token()
    print(
        f"\n{name}, {precision}, T {T:,}: dense {best['dense']:.2f} s, banded {best['banded']:.2f} s an update, "
        f"{best['dense'] / best['banded']:.2f}x faster\n  attention is {share:.0%} of the dense update; "
        f"the banded one needs {needed:.2f}x fewer operations",
        flush=True,
    )


def take_turns(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate's runs, one after the other round by round, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            began = time.process_time()
            run()
            if number:
                times[name].append(time.process_time() - began)
    return times


if __name__ == "__main__":
    main()
