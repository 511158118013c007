"""`rein critical-batch`: how large a batch a run can bear at this point, measured by training on with several.

    a checkpoint ─ batch · ½, · 1, · 2, … → branches that train on, each a run of its own → losses on the same text
       ─ the largest batch within a tolerance of the best → a table, critical-batch.json, a figure

Branches differ in the batch, and in the learning rate that goes with it, and in nothing else. They begin at the same
weights, optimiser and window, and read the same windows in the same order, so the last part of what each trained on is
the same text for all: the losses on it are compared piece by piece, and how hard that text is drops out.

The noise scale (rein.noise_scale) promises this number for nothing, but on the assumption of plain SGD; this measures
it, at the price of the branches' tokens. The measured B_simple of the run, where it has one, stands beside it.

Source: Merrill 2025, arXiv 2505.23971 (short branched runs); McCandlish 2018, arXiv 1812.06162 (B_simple).
"""

from __future__ import annotations

import io
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rein import checkpoint
from rein.config import command_line, from_dict, replace, setting
from rein.distributed import launched
from rein.errors import UserError, writing
from rein.noise_scale import Estimate
from rein.run import read_rows, write_atomically
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig, known

LAST_FRAC = 0.25  # of a branch's tokens: the part whose loss counts, after what the change of batch shook has settled
FEWEST_UPDATES = 10  # of the largest batch


@dataclass(frozen=True)
class CriticalBatchConfig:
    """Settings of `rein critical-batch`."""

    run: Path = setting(help="run folder of `rein pretrain`, or one of its checkpoints", positional=True)
    multiples: tuple[float, ...] = setting((0.5, 1.0, 2.0, 4.0, 8.0), "batches to try, as multiples of the run's")
    tokens: int | None = setting(
        None, "how much each branch trains; a tenth of the run's train_tokens if not given", unit="tokens"
    )
    learning_rate_scaling: Literal["sqrt", "linear", "none"] = setting(
        "sqrt", "how the learning rate goes with the multiple k: by √k, by k, or not"
    )
    tolerance_nats: float = setting(0.01, "how much above the best loss is as good", unit="nats/token")
    out: Path | None = setting(None, "folder for the branches and the result; RUN/critical-batch/STEP if not given")

    def __post_init__(self) -> None:
        if 1.0 not in self.multiples or len(set(self.multiples)) != len(self.multiples):
            raise UserError(
                f"--multiples is {' '.join(f'{m:g}' for m in self.multiples)}, but it needs 1, the run's own batch, "
                "and each multiple once.",
                "Write --multiples 0.5 1 2 4 8.",
            )
        if len(self.multiples) < 2:
            raise UserError("--multiples has only 1, so there is nothing to compare.", "Write --multiples 1 2 4.")
        if self.tolerance_nats < 0:
            raise UserError(f"--tolerance-nats is {self.tolerance_nats:g}.", "Use 0.01, or 0 for the best alone.")


@dataclass(frozen=True)
class Probe:
    """Where the branches begin, what they have in common, and which there are."""

    checkpoint: Path
    out: Path
    parent: PretrainConfig  # of the run they leave
    opt_step: int
    tokens: int  # that the run had seen there
    branch_tokens: int
    n_ctx: int
    batches: dict[float, int]  # multiple → sequences, in the order of their size
    noise: Estimate | None

    @property
    def end(self) -> int:
        """Where every branch ends, in tokens of the run."""
        return self.tokens + self.branch_tokens

    @property
    def piece_tokens(self) -> int:
        """The least text after which all branches have made a whole number of updates."""
        return math.lcm(*self.batches.values()) * self.n_ctx


@dataclass(frozen=True)
class Branch:
    """What came out of one batch. Losses are in nats/token, over the last part of the text."""

    multiple: float
    sequences: int
    learning_rate: float  # at its last update
    updates: int
    loss: float
    over_best: float
    over_best_error: float  # standard error, from the differences on each piece of the same text
    over_base: float
    heldout_loss: float


def critical_batch(config: CriticalBatchConfig, train: Callable[[PretrainConfig], object] | None = None) -> None:
    """Trains on from a checkpoint with several batches and finds the largest that is as good as the best.

    Each branch trains the same tokens on the same text. The critical batch is the largest whose loss at the end stays
    within --tolerance-nats of the best branch's. It holds for this point of the run: it grows as a run goes on.
    Each branch is a run folder. Stop at any time; the same command goes on, and no finished branch is run again.

    Examples
      rein critical-batch runs/first
      rein critical-batch runs/first/checkpoints/step-00001000 --tokens 5e6 --multiples 1 2 4 8 16
    """
    probe = plan(config)
    names = {multiple: probe.out / f"batch-{sequences}" for multiple, sequences in probe.batches.items()}
    for number, (multiple, folder) in enumerate(names.items(), start=1):
        if not finished(folder, probe.end):
            print(f"\nbranch {number} of {len(names)}: {probe.batches[multiple]} sequences", file=sys.stderr)
            (train or train_branch)(branch_config(config, probe, multiple))
    pieces = {multiple: losses(folder, probe) for multiple, folder in names.items()}
    branches = compare(probe, pieces)
    critical, bounded = critical_of(branches, config.tolerance_nats)
    result = {
        "run": str(config.run), "checkpoint": str(probe.checkpoint), "opt_step": probe.opt_step, "tokens": probe.tokens,
        "n_ctx": probe.n_ctx, "branch_tokens": probe.branch_tokens, "tolerance_nats": config.tolerance_nats,
        "learning_rate_scaling": config.learning_rate_scaling, "critical_sequences": critical,
        "critical_is_bounded": bounded, **(probe.noise.row() if probe.noise else {}),
        "branches": [asdict(branch) for branch in branches],
    }  # fmt: skip
    write_atomically(probe.out / "critical-batch.json", json.dumps(result, indent=2) + "\n")
    write_figure(probe, pieces, branches, config.tolerance_nats, critical)
    print(table(probe, branches))
    print(f"\n{verdict(probe, critical, bounded, config.tolerance_nats)}")
    print(
        f"figure            {probe.out / 'critical-batch.svg'}, .png\nnumbers           {probe.out}/critical-batch.json"
    )


# ------------------------------------------------------------------------------------------------------ branches


def plan(config: CriticalBatchConfig) -> Probe:
    """Reads the checkpoint, and works out the branches.

    Raises   UserError when it is no checkpoint of `rein pretrain`, a multiple gives no whole batch, the tokens are too
             few, the run's learning rate has ended at 0, or torchrun started this.
    """
    if launched():
        raise UserError(
            "torchrun started `rein critical-batch`, but it starts the processes of each branch itself.",
            "Start it alone; the branches are shared as --parallel of the run says.",
        )
    folder = checkpoint.latest(config.run)
    about = checkpoint.read_about(folder)
    if about.get("made_by") != "pretrain":
        raise UserError(f"{folder} was not made by `rein pretrain`.", "Give a run folder of `rein pretrain`.")
    parent = from_dict(PretrainConfig, about["config"], f"{folder}/rein.json")
    opt_step, tokens, n_ctx = (*(about["position"][name] for name in ("opt_step", "tokens")), about["model"]["n_ctx"])
    if _ended_at_0(parent, tokens):
        raise UserError(
            f"At {folder} the learning rate has fallen to 0, so no branch would change anything.",
            "Give an earlier checkpoint; --keep-checkpoints of `rein pretrain` says how many are kept.",
        )
    rows = [row for row in read_rows(folder.parent.parent / "metrics.jsonl") if row["opt_step"] <= opt_step]
    logged = [row["sequences_per_batch"] for row in rows if "sequences_per_batch" in row]
    base = logged[-1] if logged else known(parent.sequences_per_batch)
    estimates = [found for row in rows if (found := Estimate.from_row(row))]
    batches = {multiple: multiple * base for multiple in sorted(config.multiples)}
    for multiple, sequences in batches.items():
        if sequences < 1 or sequences != int(sequences):
            raise UserError(
                f"--multiples has {multiple:g}, but {multiple:g} · {base} sequences is {sequences:g}.",
                "Choose multiples that give whole batches.",
            )
    probe = Probe(
        checkpoint=folder, out=config.out or folder.parent.parent / "critical-batch" / folder.name, parent=parent,
        opt_step=opt_step, tokens=tokens, branch_tokens=config.tokens or known(parent.train_tokens) // 10, n_ctx=n_ctx,
        batches={multiple: int(sequences) for multiple, sequences in batches.items()},
        noise=estimates[-1] if estimates else None,
    )  # fmt: skip
    largest = max(probe.batches.values())
    if probe.branch_tokens < FEWEST_UPDATES * largest * n_ctx:
        raise UserError(
            f"--tokens {probe.branch_tokens:,} is {probe.branch_tokens / largest / n_ctx:.1f} updates of {largest} "
            f"sequences, but a comparison needs {FEWEST_UPDATES}.",
            f"Use --tokens {FEWEST_UPDATES * largest * n_ctx} or more, or leave out the largest of --multiples.",
        )
    return replace(probe, branch_tokens=-(-probe.branch_tokens // probe.piece_tokens) * probe.piece_tokens)


def branch_config(config: CriticalBatchConfig, probe: Probe, multiple: float) -> PretrainConfig:
    """The settings of one branch: the run's, but for the batch, the rate, where it begins and ends, and what it shows.

    The rate follows the run's own schedule on from the checkpoint. A loss that rises is an answer here, no accident.
    """
    parent = probe.parent
    factor = {"sqrt": math.sqrt(multiple), "linear": multiple, "none": 1.0}[config.learning_rate_scaling]
    schedule: dict[str, Any] = {"learning_rate": known(parent.learning_rate) * factor}
    if parent.schedule == "gpt1":
        # GPT-1's ends with train_tokens, which a branch needs for its own end. The other one gives the same rates:
        # to 0 at the run's end, and after the warm-up by a cosine that counts from the first token on.
        warmup = known(parent.warmup_tokens) if probe.tokens < known(parent.warmup_tokens) else 0
        schedule |= {"schedule": "cosine", "warmup_tokens": warmup, "final_lr_frac": 0.0}
        schedule |= {"decay_tokens": known(parent.train_tokens)}
    sequences = probe.batches[multiple]
    return replace(
        parent, out=probe.out / f"batch-{sequences}", branch_from=probe.checkpoint, train_tokens=probe.end,
        sequences_per_batch=sequences, ramp="paper", ramp_tokens=0, ramp_from_sequences=1, **schedule, spike_nats=None,
        log_every_updates=1, evaluate_every_tokens=probe.end, sample_prompts=(), keep_checkpoints=1, mirrors=(),
    )  # fmt: skip


def train_branch(config: PretrainConfig) -> None:
    """`pretrain`; in processes of their own where the run has several, for a process can join others only once.

    Raises   UserError when they fail, KeyboardInterrupt when they were stopped by one.
    """
    if config.layout.size == 1:
        pretrain(config)
        return
    words = shlex.split(command_line("rein pretrain", config))[1:]
    process = subprocess.Popen([sys.executable, "-m", "rein", *words])
    interrupted = False
    while process.poll() is None:
        try:
            process.wait()
        except KeyboardInterrupt:  # which reached them too: they save, and end
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    if process.returncode:
        raise UserError(
            f"The processes of the branch {config.out} ended with status {process.returncode}.",
            "What they said stands above; after that, the same command goes on.",
        )


def _ended_at_0(parent: PretrainConfig, tokens: int) -> bool:
    if parent.schedule == "gpt1":
        return tokens >= known(parent.train_tokens)
    return parent.final_lr_frac == 0 and tokens >= known(parent.decay_tokens)


def finished(folder: Path, end: int) -> bool:
    """Whether a branch has trained to its end and was evaluated there."""
    return any(row["tokens"] >= end and "heldout_loss" in row for row in read_rows(folder / "metrics.jsonl"))


# ------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Losses:
    """A finished branch: its mean loss on each piece of the text, and its last row of metrics."""

    pieces: NDArray[np.float64]
    last: dict[str, Any]
    heldout_loss: float


def losses(folder: Path, probe: Probe) -> Losses:
    """Reads a finished branch."""
    rows = list(read_rows(folder / "metrics.jsonl"))
    updates = [row for row in rows if "train_loss" in row and row["tokens"] > probe.tokens]
    per_piece = len(updates) * probe.piece_tokens // probe.branch_tokens
    assert len(updates) * probe.piece_tokens == per_piece * probe.branch_tokens, f"{folder} has {len(updates)} updates"
    pieces = np.array([row["train_loss"] for row in updates]).reshape(-1, per_piece).mean(axis=1)
    held = [row["heldout_loss"] for row in rows if "heldout_loss" in row]
    return Losses(pieces, {**updates[-1], "updates": len(updates)}, held[-1])


def compare(probe: Probe, pieces: dict[float, Losses]) -> list[Branch]:
    """Every branch against the best and against the run's own batch, on the last part of the text."""
    n_last = max(2, math.ceil(LAST_FRAC * probe.branch_tokens / probe.piece_tokens))
    last = {multiple: found.pieces[-n_last:] for multiple, found in pieces.items()}
    best = min(last.values(), key=np.mean)
    return [
        Branch(
            multiple=multiple, sequences=probe.batches[multiple], learning_rate=pieces[multiple].last["learning_rate"],
            updates=pieces[multiple].last["updates"], loss=float(loss.mean()), over_best=float((loss - best).mean()),
            over_best_error=float((loss - best).std(ddof=1)) / math.sqrt(n_last),
            over_base=float((loss - last[1.0]).mean()), heldout_loss=pieces[multiple].heldout_loss,
        )
        for multiple, loss in last.items()
    ]  # fmt: skip


def critical_of(branches: Sequence[Branch], tolerance_nats: float) -> tuple[int, bool]:
    """The largest batch up to which, from the best one on, none is worse by more; and whether a larger one was tried.

    Branches are in the order of their batches.
    """
    best = min(range(len(branches)), key=lambda place: branches[place].loss)
    good = list(takewhile(lambda branch: branch.over_best <= tolerance_nats, branches[best:]))
    return good[-1].sequences, good[-1] is not branches[-1]


def table(probe: Probe, branches: Sequence[Branch]) -> str:
    """The branches as a person reads them in a terminal."""
    lines = [
        f"{probe.checkpoint}, after {probe.tokens:,} tokens: branches of {probe.branch_tokens:,} tokens",
        "",
        f"{'batch':>8} {'× run':>6} {'updates':>8} {'rate':>9} {'loss':>8} {'over the best':>20} {'held-out':>9}",
    ]
    for b in branches:
        over = "best" if b.over_best == 0 else f"{b.over_best:+.4f} ± {b.over_best_error:.4f}"
        lines.append(
            f"{b.sequences:>8,} {b.multiple:>6g} {b.updates:>8,} {b.learning_rate:>9.2e} {b.loss:>8.4f} {over:>20} "
            f"{b.heldout_loss:>9.4f}"
        )
    lines.append(f"\nloss: nats/token over the last {LAST_FRAC:.0%} of the text, the same for all; ±: standard error")
    return "\n".join(lines)


def verdict(probe: Probe, critical: int, bounded: bool, tolerance_nats: float) -> str:
    """The critical batch, and the measured noise scale, in words."""
    said = f"{critical:,} sequences ({critical * probe.n_ctx:,} tokens), within {tolerance_nats:g} nats of the best"
    if not bounded:
        said = f"at least {said}; nothing larger was tried"
    noise = probe.noise or "not measured in this run (`rein pretrain --help`, --noise-every-updates)"
    return f"critical batch    {said}\nB_simple          {noise}"


def write_figure(
    probe: Probe, pieces: dict[float, Losses], branches: Sequence[Branch], tolerance_nats: float, critical: int
) -> None:
    """Writes critical-batch.svg and .png: each branch against the run's own batch, and how much each lost."""
    from matplotlib import rc_context  # takes a while to import
    from matplotlib.figure import Figure

    from rein.agents.compare_figures import ALONE, COLOURS, STYLE
    from rein.report.figures import smooth

    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        course, result = figure.subplots(1, 2)
        x = np.arange(1, len(pieces[1.0].pieces) + 1) * probe.piece_tokens
        for place, (branch, found) in enumerate(zip(branches, pieces.values(), strict=True)):
            gap = (found.pieces - pieces[1.0].pieces).tolist()
            colour = ALONE if branch.multiple == 1 else COLOURS[place % len(COLOURS)]
            y = np.array(smooth(gap, max(1, len(gap) // 20)), dtype=float)
            course.plot(x, y, color=colour, linewidth=1.6, label=f"{branch.sequences:,}")
            result.errorbar(
                branch.sequences, branch.over_best, branch.over_best_error, color=colour, marker="o", capsize=3
            )
        course.axvspan(x[-1] * (1 - LAST_FRAC), x[-1], color="#ece8de", zorder=0)
        course.locator_params(axis="x", nbins=4)
        course.xaxis.set_major_formatter("{x:,.0f}")
        course.set_xlabel("tokens since the checkpoint")
        course.set_ylabel("nats/token over the run's own batch")
        course.set_title("Loss on the same text", loc="left", fontsize=11)
        course.legend(title="sequences", fontsize=9)
        result.axhline(tolerance_nats, color=ALONE, linewidth=1.2, linestyle="--", label="tolerance")
        result.axvline(critical, color=ALONE, linewidth=1.2, linestyle=":", label="critical batch")
        sizes = [branch.sequences for branch in branches]
        result.set_xscale("log", base=2)
        result.set_xticks(sizes, [f"{size:,}" for size in sizes])
        result.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.4)
        if probe.noise:
            low, high = np.clip([probe.noise.low, probe.noise.high], *result.get_xlim())
            result.axvspan(low, high, color=COLOURS[0], alpha=0.12, label="B_simple, 95%")
        result.set_xlabel("sequences per batch")
        result.set_ylabel("nats/token over the best")
        result.set_title(f"Over the last {LAST_FRAC:.0%}", loc="left", fontsize=11)
        result.legend(fontsize=9)
        for kind in ("svg", "png"):
            image = io.BytesIO()
            figure.savefig(image, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
            with writing(probe.out):
                (probe.out / f"critical-batch.{kind}").write_bytes(image.getvalue())
