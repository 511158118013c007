"""Generation speed on a CPU: Rein against Hugging Face `generate` with its cache, one run.

    python benchmarks/generate_speed.py [--batch 1 32] [--tokens 200] [--rounds 5]

Work      a 6-layer, 384-wide, 6-head GPT-2 of vocabulary 8,192, the same weights; prompts of 16 tokens, 200 new ones,
          temperature 1, top-k 50, no end of text. float32 and bfloat16 are both measured for both; bfloat16 is what
          `rein generate` uses where the processor multiplies it, float32 what transformers uses by default.
Time      the candidates take turns; each one's median counts.
"""

import argparse
import statistics
import time

import torch
import transformers

from rein.models.generate import generate
from rein.models.gpt import GPT, GPTConfig
from rein.models.machine import resolve_precision

V, PROMPT = 8192, 16


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    ours = GPT(GPTConfig(V, 256, 384, 6, 6)).initialise(0).eval()
    peers = {"fp32": huggingface(ours), "bf16": huggingface(ours).to(torch.bfloat16)}
    default = resolve_precision("auto", torch.device("cpu"))
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads")
    print(f"{'batch':>6}{'precision':>11}{'rein tokens/s':>15}{'transformers':>14}{'ratio':>8}")
    for batch in args.batch:
        prompts = torch.randint(0, V, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.rounds + 1):
            for precision, theirs in peers.items():
                began = time.perf_counter()
                rein(ours, prompts, args.tokens, precision)
                between = time.perf_counter()
                peer(theirs, prompts, args.tokens)
                ended = time.perf_counter()
                rates.setdefault(("rein", precision), []).append(batch * args.tokens / (between - began))
                rates.setdefault(("peer", precision), []).append(batch * args.tokens / (ended - between))
        median = {key: statistics.median(values[1:]) for key, values in rates.items()}
        for precision in ("fp32", "bf16"):
            a, b = median["rein", precision], median["peer", precision]
            print(f"{batch:6}{precision:>11}{a:15,.0f}{b:14,.0f}{a / b:7.2f}x")
        a, b = median["rein", default], median["peer", "fp32"]
        print(f"{batch:6}{'defaults':>11}{a:15,.0f}{b:14,.0f}{a / b:7.2f}x   rein {default}, transformers fp32")


def huggingface(ours: GPT):
    """transformers' GPT-2 with our weights."""
    shape = {"vocab_size": V, "n_positions": 256, "n_embd": 384, "n_layer": 6, "n_head": 6}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).eval()
    theirs = peer.state_dict()
    for name, value in ours.state_dict().items():
        theirs["transformer." + name + (".weight" if name in ("wte", "wpe") else "")].copy_(value)
    return peer


def rein(model, prompts, tokens, precision):
    """Our generation."""
    answers = generate(model, prompts.tolist(), max_new_tokens=tokens, top_k=50, precision=precision)
    assert all(len(answer) == tokens for answer in answers)


@torch.inference_mode()
def peer(model, prompts, tokens):
    """Theirs."""
    answers = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=True,
        temperature=1.0,
        top_k=50,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert answers.shape[1] == PROMPT + tokens


if __name__ == "__main__":
    main()
