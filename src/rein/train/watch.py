"""What a run knows of itself while it goes: the gradient noise, the batch that follows it, and whether it is well.

All of it is a function of the losses and norms of the updates, and is kept in checkpoints: a resumed run decides as
the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rein import optim
from rein.distributed import Layout, World
from rein.errors import UserError
from rein.guard import Guard
from rein.models.parallel import Replica
from rein.models.slots import Gradients
from rein.noise_scale import BatchController, LayerNormExamples, NoiseScale, measurement
from rein.train.pretrain_config import PretrainConfig, known


@dataclass(frozen=True)
class Ramp:
    """How large the next batch is: the paper's line in tokens, rounded to what the processes can share."""

    start: int
    full: int
    ramp_tokens: int
    granule: int

    def sequences(self, tokens: int) -> int:
        """After so many training tokens."""
        wanted = optim.ramped_batch(tokens, start=self.start, full=self.full, ramp_tokens=self.ramp_tokens)
        return max(self.granule, round(wanted / self.granule) * self.granule)


def granule(config: PretrainConfig, layout: Layout, at_once: int) -> int:
    """What every batch must be a multiple of.

    Raises   UserError when the full batch is not.
    """
    size = config.slots or layout.batch_ranks * (at_once if layout.pp > 1 else 1)
    full = known(config.sequences_per_batch)
    if full % size:
        parts = f"{config.slots} slots" if config.slots else f"{layout.batch_ranks} processes of --parallel {layout}"
        parts += f" by {at_once} sequences at once" if layout.pp > 1 else ""
        raise UserError(f"--sequences-per-batch {full} cannot be shared by {parts}.", f"Use a multiple of {size}.")
    return size


def sequences_at_once(config: PretrainConfig, layout: Layout, n_ctx: int) -> int:
    """Sequences of one forward pass: about 8,192 tokens, fewer where they are micro-batches of a pipeline.

    A pipeline of p stages stands still for (p − 1) / (m + p − 1) of the time with m micro-batches: m is 2p or more.
    """
    if config.sequences_at_once is not None:
        return config.sequences_at_once
    most = max(1, 8192 // n_ctx)
    if layout.pp == 1:
        return most
    here = max(1, known(config.sequences_per_batch) // layout.batch_ranks)
    fitting = [n for n in range(1, here + 1) if here % n == 0 and n <= max(1, min(most, here // (2 * layout.pp)))]
    return max(fitting)


class Watch:
    """The noise scale, the batch controller and the guard of one run."""

    def __init__(self, config: PretrainConfig, world: World, ramp: Ramp, state: dict[str, Any]) -> None:
        """`state`: of `state()`, or empty."""
        self._every, self._world, self._ramp = config.noise_every_updates, world, ramp
        self._layernorms = world.layout.pp == 1 and not config.compile
        self.noise = NoiseScale.from_state(state["noise"]) if state else NoiseScale()
        self.layernorm = NoiseScale.from_state(state["layernorm"]) if state else NoiseScale()
        self._controller: BatchController | None = None
        if config.ramp == "noise":
            kept = state.get("batch")  # not there, where a run branches from one with the paper's ramp
            first = max(ramp.granule, ramp.start)
            self._controller = (
                BatchController.from_state(kept)
                if kept
                else BatchController(start=first, full=ramp.full, granule=ramp.granule)
            )
        self.guard = Guard(spike_nats=config.spike_nats, patience_updates=config.spike_patience_updates)
        if state:
            self.guard.load_state_dict(state["guard"])

    def state(self) -> dict[str, Any]:
        """All that later decisions depend on, as plain JSON values."""
        state: dict[str, Any] = {"noise": self.noise.state(), "layernorm": self.layernorm.state()}
        if self._controller is not None:
            state["batch"] = self._controller.state()
        return {**state, "guard": self.guard.state_dict()}

    def sequences(self, tokens: int) -> int:
        """Of the batch after so many training tokens."""
        return self._ramp.sequences(tokens) if self._controller is None else self._controller.sequences

    def measures(self, opt_step: int) -> bool:
        """Whether the update after `opt_step` updates measures the noise."""
        return self._every > 0 and opt_step % self._every == 0

    @contextmanager
    def examples(self, replica: Replica, sequences: int, wanted: bool) -> Iterator[list[torch.Tensor]]:
        """Within it, gradients are made; after it, the list has the LayerNorms' totals of all processes."""
        totals: list[torch.Tensor] = []
        if not (wanted and self._layernorms and sequences > 1):
            yield totals
            return
        with LayerNormExamples(replica.model, scale=sequences) as examples:
            yield totals
        parts = self._world.gather((self._world.place("tp"), examples.totals().cpu()))
        totals.append(torch.stack([part for tp, part in parts if tp == 0]).sum(dim=0))

    def take(self, everyones: Sequence[Gradients], totals: Sequence[torch.Tensor], norm: float, sequences: int) -> None:
        """Takes in what one update measured: slots' norms at every batch process, and the norm of the whole."""
        means = [
            (square / (part / sequences) ** 2, part) for gradients in everyones for square, part in gradients.squares
        ]
        if means and means[0][1] < sequences:
            parts = {part for _, part in means}
            assert len(parts) == 1, f"slots of different sizes: {parts}"
            small = sum(square for square, _ in means) / len(means)
            self.noise.update(small, means[0][1], norm**2, sequences)
            if self._controller is not None:
                self._controller.decide(self.noise.estimate())
        for total in totals:
            self.layernorm.update(*measurement(total))

    def row(self) -> dict[str, float]:
        """The columns of metrics.jsonl."""
        row = self.noise.estimate().row()
        layernorm = self.layernorm.estimate().row().get("noise_scale_sequences")
        return row if layernorm is None else {**row, "layernorm_noise_scale_sequences": layernorm}
