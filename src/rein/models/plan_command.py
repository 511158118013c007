"""`rein plan`: what a model needs on some GPUs, how long it takes, and how to lay it out; before anything is started.

The arithmetic is in plan.py; here are the GPUs, the settings, and the page that is printed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.models.plan import (
    DAY_S,
    PETAFLOP_DAY,
    Cluster,
    Machine,
    Option,
    Precision,
    Way,
    Work,
    checkpoint_bytes,
    n_updates,
    options,
    smallest,
)
from rein.models.presets import Preset, preset

GB = 10**9

# Memory in GB. Peak in TFLOP/s of bfloat16 products with float32 sums, dense (data sheets print the double, "with
# sparsity"), and of float32 ones without TF32, as PyTorch's default is. GB/s one way to its neighbours (data sheets
# print both ways): NVLink, or PCIe 4.0 x16. From NVIDIA's data sheets of the A100, H100 and H200 (SXM), HGX B200, L4
# and V100 (SXM2), and the Ada white paper for the RTX 4090. GPT-3 was trained on V100s (Brown 2020 §2.3), in a
# precision that was not published: they have no bfloat16.
_GPUS: dict[str, tuple[float, float | None, float, float]] = {
    "a100-40": (40, 312, 19.5, 300),
    "a100-80": (80, 312, 19.5, 300),
    "h100": (80, 989, 67, 450),
    "h200": (141, 989, 67, 450),
    "b200": (180, 2250, 80, 900),
    "l4": (24, 121, 30.3, 32),
    "4090": (24, 165, 82.6, 32),
    "v100": (32, None, 15.7, 150),
}
_NETWORKS_GBIT_S = {"ndr": 400, "hdr": 200, "edr": 100, "ethernet": 10}  # InfiniBand's generations, a port a GPU
_GPU_RESERVED_BYTES = GB  # an allowance for CUDA's context, its libraries and NCCL's buffers
_GPU_MARGIN_FRAC = 0.1  # an allowance for what PyTorch's allocator on a GPU cannot use
_CPU_RESERVED_BYTES = 400_000_000  # Python and PyTorch
_CPU_MARGIN_FRAC = 0.5  # of the C library, asked to keep freed memory; measured: 0.1 to 1.4 (benchmarks/plan_memory.py)
_GPT3 = tuple(f"gpt3-{size}" for size in ("small", "medium", "large", "xl", "2.7b", "6.7b", "13b", "175b"))


@dataclass(frozen=True)
class PlanConfig:
    """Settings of `rein plan`."""

    model: str | None = setting(
        None, "a preset: gpt1, gpt2-124m … 1558m, gpt3-small … 175b, tiny-gpt1|gpt2|gpt3", positional=True
    )
    all: bool = setting(False, "a table of GPT-3's eight sizes")

    gpus: int = setting(8, "how many there are", group="machines")
    gpu: str = setting("h100", f"{', '.join(_GPUS)}; cpu: this computer, shared by so many processes", group="machines")
    gpu_memory_gb: float | None = setting(None, "of one GPU, for another than these", unit="GB", group="machines")
    gpu_tflops: float | None = setting(
        None, "of one GPU, its peak in dense products of the precision", unit="TFLOP/s", group="machines"
    )
    gpus_per_node: int = setting(8, "GPUs with fast links between them", group="machines")
    network: Literal["ndr", "hdr", "edr", "ethernet"] = setting(
        "ndr", "between nodes: 400, 200, 100 or 10 Gbit/s for each GPU", group="machines"
    )
    mfu: float = setting(
        0.4,
        "share of the peak that products reach, before what a layout costs",
        paper="not published",
        group="machines",
    )

    train_tokens: int | None = setting(
        None, "how much to train, instead of the preset's", unit="tokens", paper="300e9 in GPT-3", group="training"
    )
    sequences_per_batch: int | None = setting(None, "in a batch, instead of the preset's", group="training")
    sequences_at_once: int | None = setting(None, "in one forward pass; the best one if not given", group="training")
    recompute: bool | None = setting(
        None, "compute blocks again for the backward pass; where it helps if not given", group="training"
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "of products; auto: bf16 where the GPU has it", group="training"
    )
    n_layer: int | None = setting(None, "layers, instead of the preset's", group="training")
    n_embd: int | None = setting(None, "embedding width, instead of the preset's", group="training")
    n_head: int | None = setting(None, "attention heads, instead of the preset's", group="training")
    n_ctx: int | None = setting(None, "context, instead of the preset's", unit="tokens", group="training")
    n_vocab: int | None = setting(None, "vocabulary, instead of the preset's", group="training")

    layouts: int = setting(5, "how many to show", group="printing")
    json: bool = setting(False, "print one JSON object", group="printing")

    def __post_init__(self) -> None:
        if (self.model is not None) == self.all:
            given = f"{self.model} and --all are both given" if self.all else "no model is given"
            raise UserError(f"rein plan: {given}.", "Name a preset, as rein plan gpt3-13b, or use --all.")
        numbers = ("gpus", "gpu_memory_gb", "gpu_tflops", "gpus_per_node", "train_tokens", "sequences_per_batch",
                   "sequences_at_once", "layouts")  # fmt: skip
        for name in numbers:
            value = getattr(self, name)
            if value is not None and value <= 0:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {value}, but it must be above 0.", f"Raise {flag}.")
        if not 0 < self.mfu <= 1:
            raise UserError(f"--mfu is {self.mfu}, but it is a share of the peak.", "Use a number such as 0.4.")
        if self.gpu not in (*_GPUS, "cpu") and (self.gpu_memory_gb is None or self.gpu_tflops is None):
            raise UserError(
                f"--gpu {self.gpu} is not known.",
                f"{suggestion(self.gpu, [*_GPUS, 'cpu'])} Or give --gpu-memory-gb and --gpu-tflops with it.",
            )


def plan_command(config: PlanConfig) -> None:
    """Says what a model needs: parameters, operations, memory of a GPU, days, and which layouts fit, best first.

    Nothing is trained, downloaded or allocated. Memory is that of `rein pretrain`: float32 weights, gradients and Adam,
    products in bfloat16. Time is what products take at --mfu of the peak, and what a layout adds to it.

    Examples
      rein plan gpt3-13b --gpus 64 --gpu h100
      rein plan gpt2-124m --gpus 1 --gpu 4090 --train-tokens 10e9
      rein plan --all --gpus 8
    """
    if config.all:
        rows = [_facts(replace(config, model=name, all=False)) for name in _GPT3]
        print(json.dumps(rows, indent=2) if config.json else _table(config, rows))
        return
    facts = _facts(config)
    print(json.dumps(facts, indent=2) if config.json else _page(facts))


# -------------------------------------------------------------------------------------------------- what is planned


def _facts(config: PlanConfig) -> dict[str, Any]:
    """All that is printed, as plain values."""
    assert config.model is not None, "a plan is of one model"
    paper = preset(config.model)
    work, cluster = _work(config, paper), _cluster(config)
    model, machine = work.model, cluster.machine
    limits: dict[str, Any] = {"sequences_at_once": config.sequences_at_once, "recompute": config.recompute}
    found = options(work, cluster, config.mfu, **limits)
    fewest = None if machine.is_cpu else smallest(work, cluster, **limits)
    tokens = config.train_tokens or paper.train_tokens
    own, convention = model.train_flops_per_token(), 6.0 * model.n_params()
    rate = cluster.count * machine.flops_per_s * config.mfu
    facts: dict[str, Any] = {
        "preset": config.model,
        "model": asdict(model),
        "training": {name: value for name, value in asdict(paper).items() if name != "model"},
        "parameters": model.n_params(),
        "flops_per_token": own,
        "flops_per_token_6n": convention,
        "train_tokens": tokens,
        "sequences_per_batch": work.sequences_per_batch,
        "precision": work.precision,
        "gpus": cluster.count,
        "machine": {name: None if value == math.inf else value for name, value in asdict(machine).items()},
        "mfu": config.mfu,
        "tokens_per_s_at_mfu": rate / own,
        "checkpoint_bytes": checkpoint_bytes(model, found[0].way.layout) if found else None,
        "fewest_gpus": None if fewest is None else {"gpus": fewest[0], **_way(fewest[1])},
        "layouts_that_fit": sum(option.fits for option in found),
        "layouts": [_option(option, tokens) for option in found[: config.layouts]],
    }
    if tokens is not None:
        facts |= {
            "updates": n_updates(tokens, model.n_ctx, full=work.sequences_per_batch, ramp_tokens=paper.ramp_tokens,
                                 start=min(paper.ramp_from_sequences, work.sequences_per_batch)),
            "train_flops": own * tokens,
            "train_flops_6n": convention * tokens,
            "days_at_mfu": own * tokens / rate / DAY_S,
            "days_at_mfu_6n": convention * tokens / rate / DAY_S,
        }  # fmt: skip
    return facts


def _work(config: PlanConfig, paper: Preset) -> Work:
    names = ("n_layer", "n_embd", "n_head", "n_ctx", "n_vocab")
    changes = {name: value for name in names if (value := getattr(config, name)) is not None}
    if {"n_embd", "n_head"} & changes.keys():
        changes["d_head"] = None
    return Work(
        replace(paper.model, **changes), config.sequences_per_batch or paper.sequences_per_batch, _precision(config)
    )


def _precision(config: PlanConfig) -> Precision:
    if config.gpu == "cpu":
        from rein.models.machine import resolve_device, resolve_precision

        return "bf16" if resolve_precision(config.precision, resolve_device("cpu")) == "bf16" else "fp32"
    has_bf16 = config.gpu not in _GPUS or _GPUS[config.gpu][1] is not None
    if config.precision == "bf16" and not has_bf16:
        raise UserError(f"--gpu {config.gpu} has no products in bfloat16.", "Use --precision fp32.")
    return "bf16" if has_bf16 and config.precision != "fp32" else "fp32"


def _cluster(config: PlanConfig) -> Cluster:
    precision = _precision(config)
    if config.gpu == "cpu":
        return Cluster(_this_computer(config, precision), config.gpus, config.gpus, math.inf)
    memory_gb, bf16, fp32, link = _GPUS.get(config.gpu, (0.0, 0.0, 0.0, _GPUS["4090"][3]))
    peak = config.gpu_tflops or (bf16 if precision == "bf16" else fp32)
    machine = Machine(
        config.gpu,
        int((config.gpu_memory_gb or memory_gb) * GB),
        (peak or 0.0) * 1e12,
        link * GB,
        _GPU_RESERVED_BYTES,
        _GPU_MARGIN_FRAC,
    )
    network = _NETWORKS_GBIT_S[config.network] / 8 * GB
    return Cluster(machine, config.gpus, config.gpus_per_node, network)


def _this_computer(config: PlanConfig, precision: Precision) -> Machine:
    """One process's share of this computer. What its processes send each other stays in memory, and is not counted."""
    peak = config.gpu_tflops * 1e12 if config.gpu_tflops is not None else _measured_flops(precision) / config.gpus
    memory = int(config.gpu_memory_gb * GB) if config.gpu_memory_gb is not None else _memory_bytes() // config.gpus
    return Machine("cpu", memory, peak, math.inf, _CPU_RESERVED_BYTES, _CPU_MARGIN_FRAC, is_cpu=True)


def _memory_bytes() -> int:
    """Of this computer, or what its container may take of it."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(whole, int(text)) if text.isdigit() else whole


def _measured_flops(precision: Precision) -> float:
    """Operations a second of a product of two 1,024² matrices, the fastest of some."""
    import torch

    a = torch.ones(1024, 1024, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    fastest = math.inf
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - began)
    return float(2 * 1024**3 / fastest)


def _way(way: Way) -> dict[str, Any]:
    return {
        "parallel": str(way.layout) if way.layout.size > 1 else "",
        "sequences_at_once": way.sequences_at_once,
        "micro_batches": way.micro_batches,
        "recompute": way.recompute,
    }


def _option(option: Option, train_tokens: int | None) -> dict[str, Any]:
    return {
        **_way(option.way),
        "fits": option.fits,
        "memory_bytes": asdict(option.memory) | {"total": option.memory.total},
        "tokens_per_s": option.tokens_per_s,
        "days": None if train_tokens is None else train_tokens / option.tokens_per_s / DAY_S,
        "bubble_frac": option.bubble_frac,
        "update_s": asdict(option.cost) | {"total": option.cost.total},
        "sent_bytes_per_update": asdict(option.traffic),
        "why": option.why(),
    }


# ---------------------------------------------------------------------------------------------------- what is printed


def _page(facts: dict[str, Any]) -> str:
    machine, model, training = facts["machine"], facts["model"], facts["training"]
    ramp = f" from {training['ramp_from_sequences']}" if training["ramp_tokens"] else ""
    lines = [
        f"model     {facts['parameters']:,} parameters: {model['n_layer']} layers, {model['n_embd']:,} wide, "
        f"{model['n_head']} heads, context {model['n_ctx']:,}, vocabulary {model['n_vocab']:,}",
        f"training  {training['optimizer']}, peak rate {training['learning_rate']:g}, batches{ramp} to "
        f"{facts['sequences_per_batch']:,} sequences, on {training['corpus']}",
        *[f"          not the paper's: {choice}" for choice in training["chosen"]],
        f"machines  {facts['gpus']} × {machine['name']}: {machine['memory_bytes'] / GB:,.0f} GB, "
        f"{machine['flops_per_s'] / 1e12:,.4g} TFLOP/s in {facts['precision']}",
        f"work      {facts['flops_per_token']:.4g} operations a token, bands counted as they are; "
        f"6 N: {facts['flops_per_token_6n']:.4g}",
    ]
    if facts["train_tokens"] is not None:
        own, convention = facts["train_flops"], facts["train_flops_6n"]
        lines += [
            f"          {facts['train_tokens']:,} tokens: {own:.3g} operations, {own / PETAFLOP_DAY:,.4g} "
            f"petaflop/s-days; 6 N: {convention:.3g}, {convention / PETAFLOP_DAY:,.4g}",
            f"          {facts['updates']:,.0f} updates of up to {facts['sequences_per_batch']:,} sequences",
        ]
    rate = f"at {facts['mfu']:.0%} of the peak {facts['tokens_per_s_at_mfu']:,.0f} tokens/s"
    if facts["train_tokens"] is None:
        lines.append(f"time      {rate}; days with --train-tokens")
    else:
        lines.append(f"time      {rate}, {_days(facts['days_at_mfu'])} days; 6 N: {_days(facts['days_at_mfu_6n'])}")
    return "\n".join([*lines, "", *_fitting(facts)])


def _fitting(facts: dict[str, Any]) -> list[str]:
    fewest, found = facts["fewest_gpus"], facts["layouts"]
    enough = "no number of them up to 512 nodes would"
    if fewest is not None:
        enough = f"the fewest on which it fits: {fewest['gpus']:,}, with {_flags(fewest)}"
    elif facts["machine"]["is_cpu"]:
        enough = "fewer sequences at once or in a batch, or a smaller model, may"
    if not found:
        return [f"No layout divides the model and its batch over {facts['gpus']}; {enough}."]
    best = found[0]
    if not best["fits"]:
        need, room = best["memory_bytes"]["total"], _room(facts)
        head = f"Nothing fits: {room / GB:,.1f} GB are free, and the nearest takes {need / GB:,.1f}; {enough}."
        return [head, "", *_parts(best, facts), "", *_rows(found)]
    lines = [
        f"{facts['layouts_that_fit']:,} layouts fit; the best: rein pretrain --preset {facts['preset']} {_flags(best)}",
        "",
        *_parts(best, facts),
        "",
        *_rows(found),
    ]
    return [*lines, "", f"{enough[0].upper()}{enough[1:]}."] if fewest is not None else lines


def _room(facts: dict[str, Any]) -> int:
    return int(facts["machine"]["memory_bytes"] - facts["machine"]["reserved_bytes"])


def _flags(way: dict[str, Any]) -> str:
    parallel = f"--parallel {way['parallel']} " if way["parallel"] else ""
    again = " --recompute" if way["recompute"] else ""
    return f"{parallel}--sequences-at-once {way['sequences_at_once']}{again}"


_PARTS = {
    "weights": "float32, what is stored here",
    "gradients": "float32",
    "optimizer": "Adam's two moments, float32",
    "gathered": "of others' weights, and on their way",
    "copies": "of weights in bfloat16, for products",
    "activations": "kept for the backward pass",
    "workspace": "of the loss or a block's backward pass",
    "checkpoint": "copied, while a thread writes it",
    "margin": "for the allocator",
}


def _parts(option: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    memory = option["memory_bytes"]
    machine = facts["machine"]
    lines = [f"memory of the fullest process, GB, {memory['moment']}"]
    lines += [f"  {name:12}{memory[name] / GB:8,.2f}  {what}" for name, what in _PARTS.items() if memory[name]]
    lines.append(
        f"  {'':12}{memory['total'] / GB:8,.2f}  of {machine['memory_bytes'] / GB:,.0f}, where "
        f"{machine['reserved_bytes'] / GB:,.1f} are taken before"
    )
    if not machine["is_cpu"]:
        lines.append(f"  and {facts['checkpoint_bytes'] / GB:,.2f} GB of the first host's memory for a checkpoint")
    return lines


def _days(days: float) -> str:
    return f"{days:,.0f}" if days >= 100 else f"{days:.3g}"


def _rows(found: Sequence[dict[str, Any]]) -> list[str]:
    """The table of layouts."""
    width = max(len(option["parallel"] or "one process") for option in found)
    lines = [f"{'layout':{width}}  at once × times  again     GB  tokens/s     days  bubble  GB sent  beside products"]
    for option in found:
        days = "" if option["days"] is None else _days(option["days"])
        sent = sum(option["sent_bytes_per_update"].values()) / GB
        lines.append(
            f"{option['parallel'] or 'one process':{width}}"
            f"  {option['sequences_at_once']:7} × {option['micro_batches']:<5}"
            f"  {'yes' if option['recompute'] else 'no':>5}  {option['memory_bytes']['total'] / GB:5,.1f}"
            f"  {option['tokens_per_s']:8,.0f}  {days:>7}  {option['bubble_frac']:6.1%}  {sent:7,.1f}  {option['why']}"
        )
    return lines


def _table(config: PlanConfig, rows: Sequence[dict[str, Any]]) -> str:
    """GPT-3's sizes, one a line."""
    machine = rows[0]["machine"]
    lines = [
        f"{config.gpus} × {machine['name']} at {config.mfu:.0%} of {machine['flops_per_s'] / 1e12:,.4g} TFLOP/s in "
        f"{rows[0]['precision']}; 6 N is the papers' convention; state: weights, gradients, Adam, bfloat16 copies",
        "",
        f"{'':12}{'parameters':>16}{'state GB':>10}{'FLOP/token':>12}{'FLOP':>10}{'6 N':>10}{'PF/s-days':>11}"
        f"{'days':>9}{'6 N':>9}  {'best layout here':24}  fewest",
    ]
    for row in rows:
        best, fewest = row["layouts"][0] if row["layouts"] else None, row["fewest_gpus"]
        layout = (best["parallel"] or "one process") if best and best["fits"] else "does not fit"
        lines.append(
            f"{row['preset']:12}{row['parameters']:16,}{18 * row['parameters'] / GB:10,.1f}"
            f"{row['flops_per_token']:12.3e}{row['train_flops']:10.2e}{row['train_flops_6n']:10.2e}"
            f"{row['train_flops_6n'] / PETAFLOP_DAY:11,.1f}"
            f"{_days(row['days_at_mfu']):>9}{_days(row['days_at_mfu_6n']):>9}  {layout:24}"
            f"  {fewest['gpus'] if fewest else 'none'}"
        )
    return "\n".join(lines)
