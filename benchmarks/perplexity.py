"""How well a model learns a text: Rein against nanoGPT, the same tokens, model, batches a second and budget.

    python benchmarks/perplexity.py --nanogpt DIR --text FILE [FILE …] [--tokens 1000000]

Work      the first 90% of the characters to train on, the rest held out, as nanoGPT's data/shakespeare_char does;
          a vocabulary of 2,048 learnt from the first part; 4 layers, 256 wide, 4 heads, context 256, 16 sequences a
          batch, dropout 0.1, AdamW (0.9, 0.95), decay 0.1, rate 2e-3, warm-up 2%, cosine to a tenth.
Rein      `rein pretrain` as it is: weights, order of windows, precision.
nanoGPT   `model.py` and the loop of its `train.py`: its own weights, random windows, autocast of the same precision.
Measure   both: held-out windows of 256 tokens that do not overlap, every token once, in float32.
"""

import argparse
import contextlib
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rein.bpe.tokenizer import load_tokenizer
from rein.evals.perplexity import score_ids
from rein.models.huggingface import load_model
from rein.models.machine import autocast, resolve_precision
from rein.optim import warmup_cosine
from rein.text.build import BuildConfig, build
from rein.text.shards import Shards
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig

T, SEQUENCES, RATE, DROPOUT, SEED = 256, 16, 2e-3, 0.1, 0
CPU = torch.device("cpu")


def main() -> None:
    """Trains and measures both on each text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    args = parser.parse_args()
    print(f"{'text':24}{'':10}{'perplexity':>12}{'bits/byte':>11}{'seconds':>9}")
    for text in args.text:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            rows = compare(text, args, Path(folder))
        for name, (nats, n_tokens, n_bytes, seconds) in rows.items():
            bits = nats / math.log(2) / n_bytes
            print(f"{text.name:24}{name:10}{math.exp(nats / n_tokens):12.2f}{bits:11.4f}{seconds:9.0f}", flush=True)


def compare(text: Path, args: argparse.Namespace, folder: Path) -> dict:
    """name → (nats, tokens, bytes, seconds of training)."""
    corpus = folder / "corpus"
    build(BuildConfig(source="text", paths=(text,), out=corpus, n_vocab=2048, heldout_frac=0.1))
    tokenizer = load_tokenizer(corpus)
    train, heldout = Shards(corpus, "train"), Shards(corpus, "heldout")
    ids = heldout.document(0)[:-1].tolist()
    n_bytes = int(tokenizer.token_bytes_V()[ids].sum())
    config = PretrainConfig(
        data=corpus, out=folder / "run", n_layer=4, n_embd=256, n_head=4, n_ctx=T, dropout=DROPOUT,
        train_tokens=args.tokens, sequences_per_batch=SEQUENCES, learning_rate=RATE, seed=SEED,
        sample_prompts=(), evaluate_every_tokens=args.tokens,
    )  # fmt: skip
    began = time.perf_counter()
    pretrain(config)
    took = time.perf_counter() - began
    model, _ = load_model(config.out)
    rows = {"rein": (score_ids(model, ids, tokenizer.eot_id, stride=T, name="rein"), len(ids), n_bytes, took)}

    tokens = np.concatenate(list(train.iter_documents())).astype(np.int64)
    began = time.perf_counter()
    peer = train_nanogpt(args.nanogpt, tokenizer.n_vocab, tokens, args.tokens)
    took = time.perf_counter() - began
    rows["nanoGPT"] = (score_nanogpt(peer, ids, tokenizer.eot_id), len(ids), n_bytes, took)
    return rows


def train_nanogpt(folder: Path, n_vocab: int, tokens: np.ndarray, budget: int):
    """nanoGPT's loop: random windows, autocast, clipping, its own AdamW."""
    sys.path.insert(0, str(folder))
    from model import GPT as Peer
    from model import GPTConfig as PeerConfig

    sys.path.pop(0)
    torch.manual_seed(SEED)
    model = Peer(
        PeerConfig(block_size=T, vocab_size=n_vocab, n_layer=4, n_head=4, n_embd=256, dropout=DROPOUT, bias=True)
    )
    optimizer = model.configure_optimizers(0.1, RATE, (0.9, 0.95), "cpu")
    precision = resolve_precision("auto", CPU)
    data = torch.from_numpy(tokens)
    per_update = SEQUENCES * T
    schedule = {"warmup_tokens": 0.02 * budget, "decay_tokens": budget, "final_frac": 0.1}
    for update in range(-(-budget // per_update)):
        starts = torch.randint(len(data) - T, (SEQUENCES,))
        x = torch.stack([data[i : i + T] for i in starts])
        y = torch.stack([data[i + 1 : i + 1 + T] for i in starts])
        for group in optimizer.param_groups:
            group["lr"] = RATE * warmup_cosine((update + 1) * per_update, **schedule)
        with autocast(CPU, precision):
            _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval()


@torch.no_grad()
def score_nanogpt(model, ids: list[int], eot_id: int) -> float:
    """Nats of `ids`, in the windows that `score_ids` makes with a stride of T."""
    row = torch.tensor([eot_id, *ids])
    nats = 0.0
    for start in range(0, len(ids), T):
        piece = row[start : start + T + 1]
        logits, _ = model(piece[None, :-1], piece[None, 1:])
        nats += torch.nn.functional.cross_entropy(logits[0], piece[1:], reduction="sum").item()
    return nats


if __name__ == "__main__":
    main()
