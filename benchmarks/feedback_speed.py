"""How fast people's preferences train a reward model, and a policy by PPO: Rein against TRL, in one run.

    python benchmarks/feedback_speed.py                    both, in bfloat16 and float32
    python benchmarks/feedback_speed.py --what ppo --precision bf16 --updates 3

Work      one set of weights for all: 6 layers, 384 wide, 128 positions, a vocabulary of 8,192 from this Python's own
          documentation. Policy, reference, reward model and value network are of that size, as random as they begin.
          ppo      64 episodes an update, queries of 64 tokens (ours have an end-of-text token before them), responses
                   of 32, 4 passes over them, one minibatch
          reward   pairs of responses of 32 tokens to the same queries, 64 pairs an update
Peer      TRL 1.12.0, the last release with a PPOTrainer (trl.experimental.ppo), and its RewardTrainer; one process
          each, with all cores. Micro-batches of 64 and of 16 sequences are tried; the faster is compared.
Counted   the median time of an update after the first; the largest resident memory of each process
Needs     pip install trl==1.12.0 accelerate
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

QUERY_TOKENS, RESPONSE_TOKENS, EPISODES, EPOCHS, PAIRS = 64, 32, 64, 4, 64
RATE = 1e-6


def main() -> None:
    """Runs both sides of what the flags ask for, one process after the other, and prints ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["ppo", "reward", "both"], default="both")
    parser.add_argument("--precision", choices=["fp32", "bf16", "both"], default="both")
    parser.add_argument("--micro", nargs="+", default=["64", "16"], help="the peer's micro-batches to try")
    parser.add_argument("--updates", type=int, default=3, help="that are counted, of each side")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="folder for the weights and texts; a new one if not given")
    arguments = parser.parse_args()
    if arguments.side:
        side(arguments.side, arguments.work, arguments.precision, arguments.updates)
        return
    if importlib.util.find_spec("trl") is None:
        sys.exit("TRL is not installed: pip install trl==1.12.0 accelerate")
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        prepare(work, arguments.updates)
        for what in ("ppo", "reward") if arguments.what == "both" else (arguments.what,):
            for precision in ("fp32", "bf16") if arguments.precision == "both" else (arguments.precision,):
                compare(what, work, precision, arguments.updates, arguments.micro)


def compare(what: str, work: Path, precision: str, updates: int, micro: list[str]) -> None:
    """One line for each side, and the ratio."""
    unit = "episodes" if what == "ppo" else "pairs"
    found = {}
    for name in ("rein", *(f"trl-{size}" for size in micro)):
        row = found[name] = run(f"{what}-{name}", work, precision, updates)
        print(
            f"{what:<7} {precision}  {name:<7} {row['per_s']:8.2f} {unit}/s   {row['peak_bytes'] / 2**20:8,.0f} MiB",
            flush=True,
        )
    peers = {name: row for name, row in found.items() if name != "rein"}
    fastest = max(peers, key=lambda name: peers[name]["per_s"])
    leanest = min(row["peak_bytes"] for row in peers.values())
    print(
        f"{what:<7} {precision}  {found['rein']['per_s'] / peers[fastest]['per_s']:.2f}x the speed of {fastest}, "
        f"{found['rein']['peak_bytes'] / leanest:.2f}x the memory of the leaner one",
        flush=True,
    )


def run(name: str, work: Path, precision: str, updates: int) -> dict[str, float]:
    """One side, in a process of its own."""
    command = [sys.executable, __file__, "--side", name, "--work", str(work), "--precision", precision]
    done = subprocess.run([*command, "--updates", str(updates)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def prepare(work: Path, updates: int) -> None:
    """Weights and texts that both sides read."""
    import torch

    from rein.bpe.tokenizer import load_tokenizer
    from rein.models.gpt import GPT, GPTConfig
    from rein.models.huggingface import save_model
    from rein.models.scalar import about_scalar, save_scalar, scalar_from
    from rein.text.build import BuildConfig, build
    from rein.text.shards import Shards

    if (work / "pairs.jsonl").exists():
        return
    build(BuildConfig(source="pydocs", out=work / "corpus", n_vocab=8192))
    tokenizer = load_tokenizer(work / "corpus")
    shape = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=128, n_embd=384, n_head=6, n_layer=6)
    policy = GPT(shape).initialise(0)
    (work / "policy").mkdir(parents=True)
    save_model(work / "policy", policy, tokenizer)
    scalar = scalar_from(policy, 0)
    (work / "reward").mkdir()
    save_scalar(work / "reward", scalar, tokenizer)
    about = {"format": "rein-checkpoint-1", "made_by": "benchmark", "scalar": about_scalar(scalar)}
    (work / "reward" / "rein.json").write_text(json.dumps(about))
    ids = torch.from_numpy(Shards(work / "corpus", "train").windows(range(0, 2_000_000, 160), 160).astype("int64"))
    rows, pairs, wanted = [], [], EPISODES * (updates + 2)
    for window in ids.tolist():
        query, better, worse = window[:QUERY_TOKENS], window[QUERY_TOKENS:96], window[96:128]
        texts = [tokenizer.decode(part) for part in (query, better, worse)]
        again = [tokenizer.encode(text).tolist() for text in texts]
        if again != [query, better, worse] or tokenizer.eot_id in window or texts[1] == texts[2]:
            continue  # both sides read texts: the ones that are the same tokens again
        rows.append({"prompt": texts[0], "split": "train"})
        pairs.append({"prompt": texts[0], "chosen": texts[1], "rejected": texts[2]})
        if len(pairs) >= 4 * wanted:
            break
    for name, some in (("prompts.jsonl", rows), ("pairs.jsonl", pairs[: PAIRS * (updates + 2)])):
        (work / name).write_text("".join(json.dumps(row) + "\n" for row in some))


def side(name: str, work: Path, precision: str, updates: int) -> None:
    """Prints what one side reached."""
    warnings.simplefilter("ignore")
    sides = {"ppo-rein": rein_ppo, "reward-rein": rein_reward, "ppo-trl": trl_ppo, "reward-trl": trl_reward}
    per_s = sides["-".join(name.split("-")[:2])](work, precision, updates, name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"per_s": per_s, "peak_bytes": peak}))


def rein_ppo(work: Path, precision: str, updates: int, name: str) -> float:
    """Episodes a second of `rein ppo`."""
    from rein.run import read_rows
    from rein.train.ppo import ppo
    from rein.train.ppo_config import PPOConfig

    out = work / f"{name}-{precision}-{time.time_ns()}"
    ppo(
        PPOConfig(
            policy=work / "policy", reward=str(work / "reward"), prompts=work / "prompts.jsonl", out=out,
            preset="n_plus", format="plain", query_tokens=QUERY_TOKENS + 1, response_tokens=RESPONSE_TOKENS,
            episodes=EPISODES * (updates + 1), episodes_per_batch=EPISODES, epochs=EPOCHS, minibatches=1,
            learning_rate=RATE, value_learning_rate=RATE, precision=precision, evaluate_every_episodes=10**9,
            log_every_batches=1, checkpoint_every_s=1e9,
        )
    )  # fmt: skip
    rates = [row["episodes_per_s"] for row in read_rows(out / "metrics.jsonl") if "episodes_per_s" in row]
    return statistics.median(rates[1:])


def rein_reward(work: Path, precision: str, updates: int, name: str) -> float:
    """Pairs a second of `rein reward`."""
    from rein.run import read_rows
    from rein.train.reward import reward
    from rein.train.reward_config import RewardConfig

    out = work / f"{name}-{precision}-{time.time_ns()}"
    reward(
        RewardConfig(
            policy=work / "policy", data=(work / "pairs.jsonl",), out=out, preset="n_plus", format="plain",
            query_tokens=QUERY_TOKENS + 1, response_tokens=RESPONSE_TOKENS + 1, prompts_per_batch=PAIRS,
            learning_rates=(RATE,), normalise="none", precision=precision, log_every_updates=1,
            evaluate_every_updates=10**9, checkpoint_every_s=1e9, heldout_frac=0.05,
        )
    )  # fmt: skip
    rates = [row["judgements_per_s"] for row in read_rows(out / "metrics.jsonl") if "judgements_per_s" in row]
    return statistics.median(rates[1:])


def _trl(work: Path):
    """Tokenizer and model classes of the peer."""
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "policy", padding_side="left")
    tokenizer.add_special_tokens({"pad_token": "<|endoftext|>"})  # nothing is padded in this work
    return tokenizer


class _Clock:
    """Seconds between updates, from the trainer's own calls of `log`."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def rate(self, n: int) -> float:
        gaps = [b - a for a, b in zip(self.at, self.at[1:], strict=False) if b - a > 0.05]
        return n / statistics.median(gaps)


def trl_ppo(work: Path, precision: str, updates: int, name: str) -> float:
    """Episodes a second of TRL's PPOTrainer."""
    tokenizer = _trl(work)
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    rows = [json.loads(line)["prompt"] for line in (work / "prompts.jsonl").open()]
    ids = [tokenizer(row)["input_ids"] for row in rows]
    data = Dataset.from_dict({"input_ids": [row for row in ids if len(row) == QUERY_TOKENS]})
    micro = int(name.rsplit("-", 1)[1])
    settings = PPOConfig(
        output_dir=str(work / f"{name}-{precision}"), per_device_train_batch_size=micro,
        gradient_accumulation_steps=EPISODES // micro, num_mini_batches=1, num_ppo_epochs=EPOCHS,
        total_episodes=EPISODES * (updates + 2), response_length=RESPONSE_TOKENS, temperature=0.7,
        num_sample_generations=0, save_strategy="no", report_to=[], bf16=precision == "bf16", use_cpu=True,
        learning_rate=RATE, logging_steps=1, local_rollout_forward_batch_size=EPISODES, disable_tqdm=True,
    )  # fmt: skip
    policy, reference = (AutoModelForCausalLM.from_pretrained(work / "policy") for _ in range(2))
    score, value = (AutoModelForSequenceClassification.from_pretrained(work / "reward") for _ in range(2))
    for model in (policy, reference, score, value):
        model.config.pad_token_id = tokenizer.pad_token_id
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=score,
        value_model=value, train_dataset=data, eval_dataset=data.select(range(EPISODES)),
    )  # fmt: skip
    clock = _Clock()
    trainer.log = lambda *_, **__: clock.at.append(time.monotonic())
    trainer.train()
    return clock.rate(EPISODES)


def trl_reward(work: Path, precision: str, updates: int, name: str) -> float:
    """Pairs a second of TRL's RewardTrainer."""
    tokenizer = _trl(work)
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    rows = [json.loads(line) for line in (work / "pairs.jsonl").open()]
    data = Dataset.from_list(rows)
    micro = int(name.rsplit("-", 1)[1])
    settings = RewardConfig(
        output_dir=str(work / f"{name}-{precision}"), per_device_train_batch_size=micro,
        gradient_accumulation_steps=PAIRS // micro, max_steps=updates + 3, save_strategy="no", report_to=[],
        bf16=precision == "bf16", use_cpu=True, learning_rate=RATE, logging_steps=1, disable_tqdm=True,
        max_length=128, gradient_checkpointing=False,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(work / "reward")
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = RewardTrainer(model=model, args=settings, processing_class=tokenizer, train_dataset=data)
    clock = _Clock()
    trainer.log = lambda *_, **__: clock.at.append(time.monotonic())
    trainer.train()
    return clock.rate(PAIRS)


if __name__ == "__main__":
    main()
