"""Beam search on a CPU: Rein against Hugging Face `generate(num_beams=4, length_penalty=0.6)`, one run.

    python benchmarks/beam_search.py [--prompts 32x1 32x8 1000x1 1000x4] [--tokens 32] [--rounds 3]

Work      GPT-2 124M with random weights, the same in both; `32x8` is 8 prompts of 32 tokens at once. Every search
          writes all its tokens: nothing ends one, because the two length penalties are different formulas. What is
          searched besides is equal, which is checked without a penalty.
Time      the candidates take turns, laying out the weights included; each one's median counts. float32 in both, and
          bfloat16, which is Rein's default where the processor multiplies it.
"""

import argparse
import statistics
import time

import torch
import transformers

from rein.models.beam import beam_search
from rein.models.gpt import GPT, GPTConfig
from rein.models.machine import resolve_precision

V, N_CTX, WIDTH, ALPHA = 50257, 1152, 4, 0.6


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", default=["32x1", "32x8", "1000x1", "1000x4"])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ours = GPT(GPTConfig(V, N_CTX, 768, 12, 12)).initialise(0).eval()
    with torch.no_grad():  # larger embeddings, so that some tokens are likelier than others
        ours.wte.mul_(4)
    peers = {"fp32": huggingface(ours), "bf16": huggingface(ours).to(torch.bfloat16)}
    default = resolve_precision("auto", torch.device("cpu"))
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads")
    print(f"{'prompts':>9}{'precision':>11}{'rein s':>9}{'transformers s':>16}{'ratio':>8}")
    for prompts in args.prompts:
        length, n = map(int, prompts.split("x"))
        ids = torch.randint(0, V, (n, length), generator=torch.Generator().manual_seed(0))
        assert rein(ours, ids, 8, "fp32", alpha=0.0) == peer(peers["fp32"], ids, 8, alpha=0.0), "not the same search"
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.rounds):
            for precision, theirs in peers.items():
                began = time.perf_counter()
                rein(ours, ids, args.tokens, precision)
                between = time.perf_counter()
                peer(theirs, ids, args.tokens)
                ended = time.perf_counter()
                times.setdefault(("rein", precision), []).append(between - began)
                times.setdefault(("peer", precision), []).append(ended - between)
        median = {key: statistics.median(values) for key, values in times.items()}
        for precision in ("fp32", "bf16"):
            a, b = median["rein", precision], median["peer", precision]
            print(f"{prompts:>9}{precision:>11}{a:9.2f}{b:16.2f}{b / a:7.2f}x", flush=True)
        a, b = median["rein", default], median["peer", "fp32"]
        print(f"{prompts:>9}{'defaults':>11}{a:9.2f}{b:16.2f}{b / a:7.2f}x   rein {default}, transformers fp32")


def huggingface(ours: GPT):
    """transformers' GPT-2 with our weights."""
    shape = {"vocab_size": V, "n_positions": N_CTX, "n_embd": 768, "n_layer": 12, "n_head": 12}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).eval()
    theirs = peer.state_dict()
    for name, value in ours.state_dict().items():
        theirs["transformer." + name + (".weight" if name in ("wte", "wpe") else "")].copy_(value)
    return peer


def rein(model, ids, tokens, precision, alpha=ALPHA):
    """Our search: the best continuation of each prompt."""
    found = beam_search(
        model, ids.tolist(), width=WIDTH, alpha=alpha, max_new_tokens=tokens, ends=(), precision=precision
    )
    return [list(hypotheses[0].tokens) for hypotheses in found]


@torch.inference_mode()
def peer(model, ids, tokens, alpha=ALPHA):
    """Theirs."""
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=WIDTH,
        length_penalty=alpha,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert found.shape[1] == ids.shape[1] + tokens
    return found[:, ids.shape[1] :].tolist()


if __name__ == "__main__":
    main()
