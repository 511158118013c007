"""Speed of rollouts on a CPU: Rein against Hugging Face `generate`, the same weights, one run.

    python benchmarks/rollout_speed.py [--samples 4] [--queries 16] [--rounds 5]

Work      a 6-layer, 384-wide, 6-head GPT-2 of vocabulary 8,192; queries of 64 tokens, several samples of each, 32 new
          tokens, temperature 1. "ragged": an end-of-text token ends most responses early, and there are four times as
          many queries as are written at a time, which transformers takes batch by batch.
Peer      transformers' `generate` with `num_return_sequences`, which reads a query once for each of its samples and
          writes on until the longest response of a batch has ended. Ours returns log-probabilities and entropies too.
Time      the candidates take turns; each one's median counts. `--profile` says what a rollout's time is spent on.
"""

import argparse
import statistics
import time

import torch
import transformers
from generate_speed import V, huggingface

from rein.models.gpt import GPT, GPTConfig
from rein.models.rollout import rollouts

QUERY, NEW, EOT = 64, 32, 7


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    model = GPT(GPTConfig(V, 256, 384, 6, 6)).initialise(0).eval()
    peers = {"fp32": huggingface(model), "bf16": huggingface(model).to(torch.bfloat16)}
    queries = torch.randint(0, V, (4 * args.queries, QUERY), generator=torch.Generator().manual_seed(0))
    if args.profile:
        profiled(model, queries[: args.queries], args.samples)
        return
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads")
    print(f"{args.samples} samples of each of {args.queries} queries at a time")
    print(f"{'work':>8}{'precision':>11}{'rein tokens/s':>15}{'transformers':>14}{'ratio':>8}")
    for work, asked, eot in (("full", queries[: args.queries], None), ("ragged", queries, EOT)):
        if eot is not None:  # a response ends after 14 tokens or so: end-of-text has a probability of about 7%
            often(model, peers, eot)
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.rounds + 1):
            for precision, theirs in peers.items():
                began = time.perf_counter()
                n_ours = rein(model, asked, args, precision, eot)
                between = time.perf_counter()
                n_theirs = peer(theirs, asked, args, eot)
                ended = time.perf_counter()
                rates.setdefault(("rein", precision), []).append(n_ours / (between - began))
                rates.setdefault(("peer", precision), []).append(n_theirs / (ended - between))
        for precision in peers:
            a, b = (statistics.median(rates[who, precision][1:]) for who in ("rein", "peer"))
            print(f"{work:>8}{precision:>11}{a:15,.0f}{b:14,.0f}{a / b:7.2f}x", flush=True)
        print(f"{'':8}{n_ours / (len(asked) * args.samples):.1f} tokens a response, {n_theirs} and {n_ours} in all")


@torch.no_grad()
def often(model, peers, eot):
    """Makes one token about as likely behind everything: its embedding is what the last layer norm adds."""
    direction = torch.randn(model.config.n_embd, generator=torch.Generator().manual_seed(1))
    direction /= direction.norm()
    added, nats = 20.0, 6.4  # above the others' logits: e^6.4 of 8,192 + e^6.4 is 7%
    for ln_f, wte in (
        (model.ln_f, model.wte),
        *((theirs.transformer.ln_f, theirs.transformer.wte.weight) for theirs in peers.values()),
    ):
        ln_f.bias.copy_(added * direction)
        wte[eot] = nats / added * direction


def rein(model, queries, args, precision, eot):
    """Our tokens."""
    found = rollouts(
        model,
        queries.tolist(),
        samples=args.samples,
        max_new_tokens=NEW,
        eot_id=eot,
        precision=precision,
        slots=args.queries * args.samples,
    )
    return len(found.logprobs_M)


@torch.inference_mode()
def peer(model, queries, args, eot):
    """Theirs, the end-of-text tokens counted and the padding behind them not."""
    n_tokens = 0
    for some in queries.split(args.queries):
        answers = model.generate(
            some,
            attention_mask=torch.ones_like(some),
            num_return_sequences=args.samples,
            max_new_tokens=NEW,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            pad_token_id=0,
            eos_token_id=eot,
        )[:, QUERY:]
        ended = torch.zeros_like(answers) if eot is None else (answers == eot).long()
        n_tokens += int((ended.cumsum(1) - ended == 0).sum())
    return n_tokens


def profiled(model, queries, samples):
    """Where a rollout's time goes."""
    for precision in ("fp32", "bf16"):
        options = {"samples": samples, "max_new_tokens": NEW, "eot_id": None, "precision": precision}
        rollouts(model, queries.tolist(), **options)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            rollouts(model, queries.tolist(), **options)
        print(precision)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=50))


if __name__ == "__main__":
    main()
