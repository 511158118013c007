"""What a run of a reward model has, measures at its end, and keeps in its checkpoints.

Flow     completions → scores, each process its share → normalised → accuracy, calibration → RUN/best, RUN/quality.json
         net, labelers, optimiser ↔ a checkpoint

    checkpoints/step-00000064/   the reward model as it is; training_state/ the optimiser
    best/                        the same at the end, normalised, with its uncertainty
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.config import to_dict
from rein.distributed import World
from rein.evals.reward_quality import length_weight, quality
from rein.feedback.trust import People
from rein.models import laplace
from rein.models.gpt import GPT
from rein.models.parallel import Replica
from rein.models.rows import Completion
from rein.models.scalar import BEST, Scalar, about_scalar, last_states, save_scalar, score_all
from rein.report.page import write_report
from rein.run import RunFolder, write_atomically
from rein.train.processes import everyones, share
from rein.train.reward_config import RewardConfig
from rein.train.reward_data import RewardData
from rein.train.reward_files import QUALITY
from rein.train.reward_rows import compared


@dataclass
class Position:
    """How far a run is: all that its next update depends on, besides weights, labelers and optimiser."""

    opt_step: int = 0
    tokens: int = 0  # of completions trained on, padding not counted
    judgements: int = 0
    wall_s: float = 0.0
    data_sha256: str = ""
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of metrics
    right: float = 0.0  # pairs that were right before those updates, and how many there were
    pairs: int = 0
    curve: list[list[float]] = field(default_factory=list)  # (judgements, dev accuracy) of each evaluation


@dataclass(frozen=True)
class Start:
    """What every cell of a sweep begins from."""

    policy: GPT
    tokenizer: Tokenizer
    data: RewardData
    policy_sha256: str
    references: list[Completion]
    world: World


@contextmanager
def whole(net: Scalar, replica: Replica, *, here: bool = True) -> Iterator[None]:
    """For its duration the net has all its weights, in the processes that want them `here`: to score, to be saved."""
    with replica.gathered(here=here) as model:
        cut, net.model = net.model, model
        try:
            yield
        finally:
            net.model = cut


def scores_over_processes(
    config: RewardConfig, net: Scalar, completions: Sequence[Completion], precision: str, world: World
) -> Tensor:
    """The score of each completion, of which each process finds its share."""
    mine = [completions[n] for n in share(len(completions), world)]
    at_once = config.tokens_at_once
    return torch.tensor(
        everyones(world, lambda: score_all(net, mine, precision=precision, tokens_at_once=at_once).tolist())
    )


def normalise(net: Scalar, config: RewardConfig, start: Start, precision: str) -> dict[str, Any]:
    """Brings the references to mean 0, and to standard deviation 1 where the preset has it; says what was done."""
    if config.normalise == "none":
        return {"on": "none"}
    before_N = scores_over_processes(config, net, start.references, precision, start.world)
    net.normalise(before_N, spread=bool(config.normalise_std))
    net.normalise(scores_over_processes(config, net, start.references, precision, start.world))  # what rounding left
    after_N = scores_over_processes(config, net, start.references, precision, start.world).double()
    return {
        "on": config.normalise, "n": len(after_N), "mean_before": before_N.double().mean().item(),
        "std_before": before_N.double().std(correction=0).item(), "mean": after_N.mean().item(),
        "std": after_N.std(correction=0).item(),
    }  # fmt: skip


def finish(
    run: RunFolder | None,
    config: RewardConfig,
    start: Start,
    net: Scalar,
    people: People,
    position: Position,
    precision: str,
) -> None:
    """Normalises, measures, and writes RUN/best and RUN/quality.json."""
    data, world = start.data, start.world
    normalised = normalise(net, config, start, precision)
    scores = {part: scores_over_processes(config, net, measured.completions, precision, world)
              for part, measured in (("dev", data.dev), ("test", data.test))}  # fmt: skip
    if run is None:
        return
    completions, pairs = compared(data.train)
    x_ND = last_states(net, completions, precision=precision, tokens_at_once=config.tokens_at_once)
    sides = [torch.tensor([getattr(one, side) for one in pairs], dtype=torch.int64) for side in ("better", "worse")]
    layer = laplace.fit(net, x_ND[sides[0]], x_ND[sides[1]]) if pairs else None
    weight = length_weight(np.array(data.lengths))
    found: dict[str, Any] = {}
    for part, measured in (("dev", data.dev), ("test", data.test)):
        found[part] = quality(
            measured.described(scores[part].tolist()), weight=weight, agreement=data.agreement[0],
            agreement_topics=data.agreement[1],
        )  # fmt: skip
    found |= {
        "curve": position.curve,
        "train": {
            "elements": len(data.train),
            "judgements": sum(len(each.choices) for each in data.train),
            "pairs": len(data.lengths),
        },
        "normalised": normalised,
        "temperatures": people.temperatures() if config.reliability == "temperature" else {},
        "accuracies": data.accuracies,
        "labelers": dict(people.counts),
        "ties": {"policy": config.ties, **{name: value.item() for name, value in people.tie_terms().items()}},
        "learning_rate": config.learning_rates[0],
        "seed": config.seed,
        "notes": data.notes,
    }
    best = run.path / BEST
    save(best, config, start, net, people, position, layer=layer, normalised=normalised)
    write_report(run.path)
    write_atomically(run.path / QUALITY, json.dumps(found, indent=2) + "\n")


def save(
    folder: Path,
    config: RewardConfig,
    start: Start,
    net: Scalar,
    people: People,
    position: Position,
    *,
    state: dict[str, Tensor] | None = None,
    layer: laplace.LastLayer | None = None,
    normalised: dict[str, Any] | None = None,
) -> None:
    """A checkpoint to go on from, with the optimiser's `state`, by all processes; or the finished model, with its
    uncertainty, by the first. The first one has the net whole."""
    group = None if state is None else start.world.save_group

    def write(part: Path) -> None:
        if start.world.is_first:
            save_scalar(part, net, start.tokenizer)
        if state is not None:
            checkpoint.write_tensors(part / checkpoint.STATE, state, group)
        if layer is not None:
            laplace.save(part, layer)

    about: dict[str, Any] = {
        "format": "rein-checkpoint-1",
        "made_by": "reward",
        "position": asdict(position),
        "config": to_dict(config),
        "model": asdict(net.model.config),
        "scalar": about_scalar(net, **({} if normalised is None else {"normalised": normalised})),
        "people": {"names": people.names, "w": people.w_L.tolist(), "tie": people.tie.item()},
        "tokenizer_sha256": start.tokenizer.sha256(),
        "parents": [start.policy_sha256],
    }
    checkpoint.save(folder, write, about, group)


def head_of(net: Scalar) -> list[tuple[str, nn.Parameter]]:
    """What every process has whole."""
    return [("weight", net.weight), ("b", net.b)]


def state_of(net: Scalar, replica: Replica, people: People, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as a checkpoint has it, by name."""
    rest = [(f"net.{name}", each) for name, each in head_of(net)]
    rest += [(f"people.{name}", each) for name, each in people.named_parameters() if each.requires_grad]
    trunk = replica.optimizer_tensors(optimizer, copies=False)
    return {f"net.model.{name}": x for name, x in trunk.items()} | checkpoint.optimizer_tensors(rest, optimizer)
