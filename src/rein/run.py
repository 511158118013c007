"""The run folder, and the metrics: declared once, appended to `metrics.jsonl`, shown as progress.

    runs/NAME/
      config.json     the settings; `rein pretrain --config runs/NAME/config.json` replays the run
      env.json        what it ran on: versions, threads, device, command line, one entry per start
      metrics.jsonl   one JSON object per line; the truth that reports and dashboards read
      samples.jsonl   what the model wrote, when
      checkpoints/    one folder per checkpoint (checkpoint.py)
      report.html     drawn from the files above (report/page.py)

Only one process may write to a run folder at a time; a lock on `run.lock` sees to it, and goes with the
process however that ends.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

from rein import __version__, config
from rein.errors import UserError, writing


@dataclass(frozen=True)
class Metric:
    """One column of `metrics.jsonl`: its unit and how it is computed."""

    name: str
    unit: str
    formula: str


STOPPED = "stopped.json"  # why the last start was stopped

METRICS = (
    Metric("opt_step", "updates", "optimizer updates made when the row was written"),
    Metric("tokens", "tokens", "training tokens seen so far: Σ over updates of sequences · n_ctx"),
    Metric("wall_s", "seconds", "time spent in training, over all starts of the run"),
    Metric(
        "train_loss",
        "nats/token",
        "mean over the updates since the last row of mean_BT −log p(next token); sft: over the responses' tokens",
    ),
    Metric("learning_rate", "1", "the schedule's value at the last update, before any bias correction"),
    Metric("grad_norm", "1", "‖all gradients‖₂ before clipping, at the last update"),
    Metric("sequences_per_batch", "sequences", "sequences in the last update's batch, after the ramp"),
    Metric("tokens_per_s", "tokens/s", "training tokens since the last row / seconds in updates since then"),
    Metric(
        "model_flops_per_s",
        "FLOP/s",
        "tokens_per_s · (6 · weights in products + 12 · width of all heads · Σ over layers of mean keys seen)",
    ),
    Metric("data_wait_frac", "1", "of the time in updates since the last row: waiting for the text to be read"),
    Metric(
        "checkpoint_wait_s", "seconds", "since the last row: training stood still to copy or to finish a checkpoint"
    ),
    Metric("noise_scale_sequences", "sequences", "B_simple = tr(Σ) / |G|² of all parameters, moving averages of both"),
    Metric("noise_scale_low_sequences", "sequences", "lower end of its 95% interval; missing where it is 0"),
    Metric("noise_scale_high_sequences", "sequences", "upper end of its 95% interval; missing where there is none"),
    Metric("layernorm_noise_scale_sequences", "sequences", "the same of the LayerNorms' gains and biases alone"),
    Metric("peak_rss_bytes", "bytes", "the largest resident memory of the process so far"),
    Metric("task_loss", "nats/example", "fine-tuning, L2: mean over the updates since the last row of −log p(label)"),
    Metric("lm_loss", "nats/token", "fine-tuning, L1: likewise of −log p(next token), on the task's own text"),
    Metric("heldout_task_loss", "nats/example", "mean −log p(label) over the held-out examples"),
    Metric("heldout_score", "1", "the task's score on them: accuracy, F1, Matthews or Pearson correlation"),
    Metric(
        "heldout_loss", "nats/token", "mean −log p(next token) over the held-out windows; sft: the held-out responses"
    ),
    Metric("heldout_text_loss", "nats/token", "sft: the same over held-out windows of the text that is mixed in"),
    Metric("heldout_reward", "1", "mean score, by --reward, of a sample for each of --samples held-out queries"),
    Metric("heldout_perplexity", "1", "exp(heldout_loss); comparable only under one tokenizer"),
    Metric(
        "heldout_bits_per_byte",
        "bits/byte",
        "Σ −log₂ p(token) / UTF-8 bytes of those tokens; needs no tokenizer to compare",
    ),
    Metric("judgements", "judgements", "of people, that a reward model was trained on so far"),
    Metric("reward_loss", "nats/prompt", "mean over the updates since the last row of −log P(what was said | scores)"),
    Metric("reward_accuracy", "1", "share of the pairs of those updates, before each, whose better text leads"),
    Metric("heldout_reward_loss", "nats/pair", "mean −log σ(lead of the better text) over the dev pairs"),
    Metric("heldout_reward_accuracy", "1", "share of the dev pairs whose better text leads; half of those that tie"),
    Metric("judgements_per_s", "judgements/s", "judgements since the last row / seconds in updates since then"),
    Metric("episodes", "episodes", "responses that were sampled and learned from so far"),
    Metric("score_mean", "1", "mean over a batch's responses of the score, after the rule for those without an end"),
    Metric("score_std", "1", "their standard deviation"),
    Metric("reward_mean", "1", "score_mean − kl_coef · kl_nats"),
    Metric("kl_nats", "nats/response", "mean over a batch's responses of Σ_t log π(t) − log π_ref(t), as sampled"),
    Metric("kl_coef", "1/nat", "the penalty's coefficient in the batch"),
    Metric("policy_loss", "1", "mean over the batch's updates of Σ_t max(−A·ratio, −A·clip(ratio)) / tokens"),
    Metric("value_loss", "1", "likewise of Σ_t ½ max((V − return)², (V_clipped − return)²) / tokens"),
    Metric("value_explained_frac", "1", "1 − var(return − V) / var(return) over a batch's tokens, as sampled"),
    Metric("value_grad_norm", "1", "‖the value network's gradients‖₂ before clipping, at the last update"),
    Metric("entropy_nats", "nats/token", "mean entropy of the sampler's distribution, at its temperature"),
    Metric("clip_frac", "1", "share of tokens with |ratio − 1| > cliprange, mean over the batch's updates"),
    Metric("value_clip_frac", "1", "share of tokens with |V − V_old| > cliprange_value, likewise"),
    Metric("approx_kl", "nats²/token", "½ · mean over tokens of (log π − log π_old)², likewise"),
    Metric("ratio_max", "1", "the largest π / π_old of a token in the batch's updates"),
    Metric("response_tokens", "tokens", "mean length of a response, its end of text included"),
    Metric("no_eot_frac", "1", "share of responses that were cut off before an end"),
    Metric("sampler_drift", "nats", "max over tokens of |log π of the sampler − of the trainer|"),
    Metric("ptx_loss", "nats/token", "pre-training text mixed in: mean −log p(next token), over the batch's updates"),
    Metric("episodes_per_s", "episodes/s", "episodes of a batch / seconds it took; evaluating and saving not counted"),
    Metric("rollout_frac", "1", "share of those seconds spent sampling"),
    Metric("heldout_kl_nats", "nats/response", "mean over the held-out prompts' responses of log π/π_ref"),
    Metric("heldout_proxy", "1", "mean score of them by the reward that is learned from"),
    Metric("heldout_proxy_stderr", "1", "its standard error"),
    Metric("heldout_gold", "1", "mean gold score of them"),
    Metric("heldout_gold_stderr", "1", "its standard error"),
    Metric("heldout_second", "1", "mean score of them by --heldout-reward, which is not learned from"),
    Metric("heldout_second_stderr", "1", "its standard error"),
    Metric("heldout_rouge_l", "1", "mean ROUGE-L F1 with the references, where there are any"),
    Metric("heldout_response_tokens", "tokens", "mean length of them"),
    Metric("heldout_no_eot_frac", "1", "share of them that were cut off before an end"),
    Metric("heldout_repeated_frac", "1", "mean of: longest run of tokens that a response holds twice / its tokens"),
    Metric("heldout_copied_title_frac", "1", "mean of: longest run of words shared with the title / its words"),
    Metric("heldout_copied_post_frac", "1", "mean of: longest run of words shared with the longest text / its words"),
    Metric("heldout_bigram_overlap_frac", "1", "mean of: pairs of words that the query holds too / its pairs"),
    Metric("heldout_distinct_2_frac", "1", "different pairs of tokens / pairs, of all of them together"),
    Metric("dpo_loss", "nats/judgement", "DPO: mean over the updates since the last row of a judgement's mean loss"),
    Metric("implied_margin", "1", "mean over judgements of kl_coef · (log π/π_ref of the better − of the worse)"),
    Metric("heldout_dpo_loss", "nats/judgement", "the same loss over the dev judgements"),
    Metric("heldout_implied_margin", "1", "the same margin over the dev judgements"),
    Metric("heldout_implied_accuracy", "1", "share of their pairs whose better one has the higher implied reward"),
    Metric("better_log_ratio", "nats/response", "mean over the dev judgements of log π/π_ref of the better ones"),
    Metric("worse_log_ratio", "nats/response", "likewise of the worse ones"),
    Metric("kl_loss", "nats/token", "GRPO: the KL in the loss, before its coefficient, weighted as the policy's loss"),
    Metric("alike_queries_frac", "1", "share of the batch's queries whose responses all have one score: no advantage"),
)
_NAMES = {metric.name for metric in METRICS}
# What a start that was killed at once may have left in an otherwise empty folder.
_OURS = ("run.lock", "config.json.part")


class RunFolder:
    """An open run folder: a lock, an append-only metrics file, and the samples."""

    def __init__(self, path: Path, settings: Any) -> None:
        """Opens `path`, new or to be continued with the very same settings.

        Raises   UserError when another process has it open, when it holds a run of other settings, or when
                 it holds files that are no run's.
        """
        self.path = path
        self._lock = lock_folder(path)
        self._wrote = False
        try:
            self._open(settings)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, settings: Any) -> None:
        path = self.path
        self.resumed = (path / "config.json").exists()
        if self.resumed:
            self._check_same(settings)
        else:
            strangers = sorted(entry.name for entry in path.iterdir() if entry.name not in _OURS)
            if strangers:
                raise UserError(
                    f"{path} is not empty ({', '.join(strangers[:3])}) and holds no run.",
                    "Choose another --out, or empty the folder.",
                )
            write_atomically(path / "config.json", config.to_json(settings))
        self._note_environment()
        for name in ("metrics.jsonl", "samples.jsonl"):
            _drop_torn_line(path / name)
        self._metrics = self._append_to("metrics.jsonl")

    def _append_to(self, name: str) -> FileIO:
        with writing(self.path / name):
            return FileIO(self.path / name, "a")

    def _check_same(self, settings: Any) -> None:
        try:
            old = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            if not isinstance(old, dict):
                raise ValueError
        except ValueError:
            raise UserError(
                f"{self.path}/config.json cannot be read.", "Remove the folder, or choose another --out."
            ) from None
        new = config.to_dict(settings)
        free = {field.name for field in dataclasses.fields(settings) if field.metadata.get("may_change")} | {"out"}
        changed = [f"{key}: {old.get(key)!r} → {new.get(key)!r}" for key in sorted((old.keys() | new.keys()) - free)
                   if old.get(key) != new.get(key)]  # fmt: skip
        if changed:
            raise UserError(
                f"{self.path} holds a run with other settings ({'; '.join(changed[:4])}).",
                f"Choose another --out, or continue it with --config {self.path}/config.json.",
            )
        if old != new:
            write_atomically(self.path / "config.json", config.to_json(settings))

    def _note_environment(self) -> None:
        path = self.path / "env.json"
        starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        starts.append(environment())
        self._starts = len(starts)
        write_atomically(path, json.dumps(starts, indent=2) + "\n")

    def truncate_after(self, opt_step: int) -> None:
        """Drops the metrics and samples written after `opt_step`: the updates that a resumed run makes again."""
        self._metrics.close()
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            rows = [row for row in read_rows(path) if row["opt_step"] <= opt_step]
            write_atomically(path, "".join(_line(row) for row in rows))
        self._metrics = self._append_to("metrics.jsonl")

    def log(self, **values: float) -> None:
        """Appends one row to metrics.jsonl, with its opt_step. Every name must be declared in `METRICS`."""
        unknown = values.keys() - _NAMES
        assert not unknown, f"metrics not declared in run.METRICS: {sorted(unknown)}"
        assert "opt_step" in values, f"a row of metrics without its opt_step: {values}"
        with writing(self.path / "metrics.jsonl"):
            _write_all(self._metrics, _line(values))
        self._wrote = True

    def sample(self, *, opt_step: int, prompt: str, text: str, **more: Any) -> None:
        """Appends one sample of the model's writing to samples.jsonl; `more` is what is known of it."""
        with writing(self.path / "samples.jsonl"), self._append_to("samples.jsonl") as file:
            _write_all(file, _line({"opt_step": opt_step, "prompt": prompt, "text": text, **more}))

    def note_stop(self, why: str) -> None:
        """Writes down why this start of the run was stopped; the next start makes it void."""
        write_atomically(self.path / STOPPED, json.dumps({"why": why, "starts": self._starts}) + "\n")

    def close(self) -> None:
        """Closes the files and gives the lock back."""
        self._metrics.close()
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # Not where a run is only being looked at again.
        if isinstance(error, UserError) and (self._wrote or not self.resumed):
            with suppress(UserError):  # the disk may be what is full
                self.note_stop(error.problem)
        self.close()


def lock_folder(path: Path, name: str = "run.lock") -> IO[str]:
    """Makes the folder and keeps every other process out of it, until the file that is returned is closed.

    A process that ends, however it ends, gives its lock back.

    Raises   UserError when another process has the lock, or the folder cannot be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        file = (path / name).open("w")
    try:
        _lock(file)
    except OSError:
        file.close()
        raise UserError(
            f"{path} is in use by another process.", "Wait for it to end, or choose another --out."
        ) from None
    return file


def _lock(file: IO[str]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # `rein runs` asks for microseconds whether a run is going on
        time.sleep(0.05)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file. A last line cut short by a kill is left out; a missing file has no rows."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                if line.endswith(b"\n"):
                    raise UserError(
                        f"{path} has a line that is not JSON: {line[:60]!r}.", "Remove that line."
                    ) from None
                return
            yield row


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader, or a kill at any moment, finds the old file or the new one."""
    temporary = path.with_name(path.name + ".part")
    with writing(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)  # on a full disk it would keep the room that is needed
            raise


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def environment() -> dict[str, Any]:
    """What the numbers of a run depend on besides its settings."""
    import numpy
    import torch

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "rein": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write_all(file: FileIO, text: str) -> None:
    """Unbuffered, so that after a full disk nothing is left to be written, and to fail again, at close."""
    data = memoryview(text.encode("utf-8"))
    while data:
        data = data[file.write(data) :]


def _drop_torn_line(path: Path) -> None:
    """Cuts off a last line without its newline, which a kill left: rows are appended behind whole rows only."""
    if path.exists():
        data = path.read_bytes()
        with writing(path):
            os.truncate(path, data.rfind(b"\n") + 1)
