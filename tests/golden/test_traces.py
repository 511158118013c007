"""Fifty updates of each model and loop, traced: a change that should not alter numbers shows identical ones.

The traces were made in float32 on one thread; other processors and versions of torch add up in another order, hence
the tolerance. `python tests/golden/test_traces.py` makes them anew, with the environment, when numbers are meant to
change; say why in docs/log.md.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from rein.run import environment, read_rows
from rein.text.build import BuildConfig, build
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig

sys.path.insert(0, str(Path(__file__).parent))

from ppo_trace import trace_ppo
from reward_trace import reward_trace
from sft_trace import trace_sft

FILE = Path(__file__).with_name("traces.json")
LOOPS = {"sft": trace_sft, "reward": reward_trace, "ppo": trace_ppo}
MODELS = {
    "gpt1": {"preset": "gpt1", "optimizer": "gpt1", "schedule": "gpt1", "adam_b2": 0.999, "weight_decay": 0.01,
             "warmup_tokens": 32 * 8 * 5},
    "gpt2": {"preset": "gpt2-124m", "warmup_tokens": 256},
    "gpt3": {"preset": "gpt3-small", "band": 6, "ramp_tokens": 32 * 8 * 20, "ramp_from_sequences": 2,
             "warmup_tokens": 256, "decay_tokens": 50 * 8 * 32},
}  # fmt: skip


def trace(model: str, folder: Path) -> list[list[float]]:
    """[train loss, gradient norm] of each update, on a text that no version changes."""
    text = folder / "text.txt"
    lines = (f"{n} plus {n * n % 89} makes {n + n * n % 89}; {chr(97 + n % 26) * (n % 7)}" for n in range(3000))
    text.write_text("\n".join(lines), encoding="utf-8")
    build(BuildConfig(source="text", paths=(text,), out=folder / "corpus", n_vocab=300, heldout_frac=0.1))
    config = PretrainConfig(
        data=folder / "corpus", out=folder / "run", n_layer=3, n_embd=48, n_head=3, n_ctx=32, dropout=0.0,
        sequences_per_batch=8, train_tokens=50 * 8 * 32, learning_rate=3e-3, precision="fp32", device="cpu",
        log_every_updates=1, sample_prompts=(), heldout_tokens=300, **MODELS[model],
    )  # fmt: skip
    pretrain(config)
    rows = [row for row in read_rows(folder / "run" / "metrics.jsonl") if "train_loss" in row]
    return [[row["train_loss"], row["grad_norm"]] for row in rows[:50]]


@pytest.mark.parametrize("model", MODELS)
def test_fifty_updates(model, tmp_path):
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    found = trace(model, tmp_path)
    expected = golden["traces"][model]
    assert len(found) == len(expected) == 50
    for update, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == pytest.approx(b, rel=2e-3), f"update {update + 1}; made with {golden['environment']}"
    assert expected[-1][0] < expected[0][0] - 1


@pytest.mark.parametrize("loop", LOOPS)
def test_fifty_updates_of_a_loop(loop, tmp_path):
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    found, expected = LOOPS[loop](tmp_path), golden["traces"][loop]
    assert len(found) == len(expected) == (25 if loop == "ppo" else 50)
    for row, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == pytest.approx(b, rel=2e-3, abs=2e-5), f"row {row + 1}; made with {golden['environment']}"


def main() -> None:
    traces = {}
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            traces[model] = trace(model, Path(folder))
    for loop, traced in LOOPS.items():
        with tempfile.TemporaryDirectory() as folder:
            traces[loop] = traced(Path(folder))
    kept = {key: environment()[key] for key in ("python", "torch", "platform", "threads", "cpu")}
    FILE.write_text(json.dumps({"environment": kept, "traces": traces}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
