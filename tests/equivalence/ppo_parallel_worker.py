"""One of the processes of tests/equivalence/test_ppo_parallel.py: whole runs of PPO, of a supervised
start, or of a reward model; or the command of PPO.

    python -m torch.distributed.run --nproc-per-node N ppo_parallel_worker.py OUT CASES
    python ppo_parallel_worker.py CONFIG

CASES is a JSON list of settings; the first process writes what each gave to OUT. CONFIG is the config.json of a run of
PPO, which is started as the command is: it launches its processes by itself.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from ppo_cases import settings

from rein.config import from_json
from rein.run import read_rows
from rein.train import ppo as module
from rein.train import reward as reward_module
from rein.train import sft as sft_module
from rein.train.reward_config import RewardConfig
from rein.train.sft_config import SFTConfig

NUMBERS = (
    "score_mean", "kl_nats", "policy_loss", "value_loss", "approx_kl", "clip_frac", "ratio_max", "grad_norm",
    "value_grad_norm", "entropy_nats", "ptx_loss", "heldout_proxy", "heldout_kl_nats",
)  # fmt: skip


def broken_in_the_second(context, text):
    """No number, where the second process asks."""
    return float("nan") if os.environ.get("RANK") == "1" else len(text) / 9


def run(place, name, ptx_data=None, **changes):
    """Every response, and the numbers of every row."""
    torch.set_num_threads(1)
    written, collect, stop = [], module.collect, module.stop

    def noting(*args):
        experience = collect(*args)
        written.append([[each.query, each.response] for each in experience.completions])
        return experience

    module.collect, module.stop = noting, lambda: None  # the processes stay together for the next case
    try:
        out = module.ppo(settings(Path(place), name, ptx_data=ptx_data and Path(ptx_data), **changes))
    finally:
        module.collect, module.stop = collect, stop
    rows = [{key: row[key] for key in NUMBERS if key in row} for row in read_rows(out / "metrics.jsonl")]
    return {"written": json.loads(json.dumps(written)), "rows": rows}


def run_sft(place, name, ptx_data=None, **changes):
    """The numbers of every row of a supervised start, and its samples."""
    torch.set_num_threads(1)
    sft, sft.stop, stop = sft_module, lambda: None, sft_module.stop
    plain = {
        "checkpoint": Path(place) / "sft", "data": (Path(place) / "prompts.jsonl",), "out": Path(place) / "runs" / name,
        "format": "plain", "epochs": 2, "demonstrations_per_batch": 7, "learning_rate": 3e-3, "precision": "fp32",
        "log_every_updates": 1, "samples": 3, "sample_tokens": 5, "residual_dropout": 0.0, "clip_norm": 1.0,
        "ptx_data": ptx_data and Path(ptx_data),
    }  # fmt: skip
    try:
        out = sft.sft(SFTConfig(**plain | changes))
    finally:
        sft.stop = stop
    names = ("train_loss", "grad_norm", "heldout_loss", "heldout_text_loss", "learning_rate", "tokens")
    rows = [{key: row[key] for key in names if key in row} for row in read_rows(out / "metrics.jsonl")]
    return {"written": [row["text"] for row in read_rows(out / "samples.jsonl")], "rows": rows}


def run_reward(place, name, **changes):
    """The numbers of every row of a reward model, and what its best is worth."""
    torch.set_num_threads(1)
    stop = reward_module.stop
    reward_module.stop = lambda: None
    plain = {
        "policy": Path(place) / "sft", "data": (Path(place) / "ranked.jsonl",), "out": Path(place) / "runs" / name,
        "preset": "instructgpt2022", "learning_rates": (3e-3,), "prompts_per_batch": 5, "precision": "fp32",
        "normalise": "policy", "response_tokens": 12, "log_every_updates": 1, "ties": "davidson", "clip_norm": 1.0,
        "reliability": "temperature", "format": "plain",
    }  # fmt: skip
    try:
        out = reward_module.reward(RewardConfig(**plain | changes))
    finally:
        reward_module.stop = stop
    names = ("reward_loss", "reward_accuracy", "grad_norm", "heldout_reward_loss", "heldout_reward_accuracy")
    rows = [{key: row[key] for key in names if key in row} for row in read_rows(out / "metrics.jsonl")]
    said = json.loads((out / "quality.json").read_text())
    ends = {"temperature": said["temperatures"]["l1"], "nu": said["ties"]["nu"], "nll": said["test"]["nll"]["value"]}
    return {"written": [], "rows": [*rows, ends]}


LOOPS = {"ppo": run, "sft": run_sft, "reward": run_reward}


def main():
    warnings.simplefilter("error")
    if len(sys.argv) == 2:
        module.ppo_command(from_json(module.PPOConfig, Path(sys.argv[1])))
        return
    out, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = [LOOPS[case.pop("loop", "ppo")](**case) for case in cases]
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
