"""A pipeline: each stage has some of the layers, and micro-batches follow each other through the stages (1F1B).

A slot goes in at the first stage, states pass from stage to stage, the loss comes out of the last one and is told to
all; gradients come back the same way. The token embedding lies in the first and the last stage, which sum its
gradients. Sources: Brown 2020 §2.3 ("across the layers"); the schedule is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from rein.distributed import World
from rein.models.gpt import GPT, Context
from rein.models.held import Held, stage_layers
from rein.models.machine import autocast
from rein.models.slots import Slot


class Pipeline:
    """This process's stage of a model, and what it exchanges with the others."""

    def __init__(self, model: GPT, world: World, precision: str) -> None:
        """Takes from `model` what other stages have."""
        self._world, self._n_embd = world, model.config.n_embd
        self._stages, self._number = world.layout.pp, world.place("pp")
        self._is_first, self._is_last = self._number == 0, self._number == self._stages - 1
        self._keep_own(model)
        self.stage = _Stage(model, world.device, precision, first=self._is_first, last=self._is_last)
        self._ends = self._group_of_ends()
        self._schedules: dict[tuple[int, tuple[int, ...]], Any] = {}

    def _keep_own(self, model: GPT) -> None:
        own = {str(layer) for layer in stage_layers(model.config.n_layer, self._stages, self._number)}
        for name in [name for name in model.h if name not in own]:
            del model.h[name]
        if not self._is_first:
            del model.wpe
            if not self._is_last:
                del model.wte
        if not self._is_last:
            model.ln_f = nn.Identity()

    def _group_of_ends(self) -> dist.ProcessGroup | None:
        """The first and the last stage's processes of this place: they share the token embedding."""
        assert self._world.mesh is not None, "a pipeline needs a mesh"
        ranks = self._world.mesh.mesh.reshape(self._stages, -1)
        mine = None
        for column in range(ranks.shape[1]):  # all processes make all groups, in one order
            ends = [int(ranks[0, column]), int(ranks[-1, column])]
            group = dist.new_group(ends)
            if self._world.rank in ends:
                mine = group
        return mine

    def forward_backward(self, slot: Slot) -> float:
        """Every stage's gradients of one slot. Returns the slot's part of the mean loss, at every stage."""
        parts = list(slot.parts())
        schedule = self._schedule(len(parts), parts[0].tokens_BT)
        options = {"seed_N": torch.tensor([-1 if part.seed is None else part.seed for part in parts])}
        if parts[0].documents_BT is not None:
            options["documents_BT"] = torch.cat([part.documents_BT for part in parts if part.documents_BT is not None])
        losses: list[Tensor] = []
        arguments = [torch.cat([part.tokens_BT for part in parts])] if self._is_first else []
        if self._is_last:
            options["targets_BT"] = torch.cat([part.targets_BT for part in parts])
            weights = torch.tensor([part.weight for part in parts], device=self._world.device)
            schedule.step(*arguments, target=weights, losses=losses, **options)
        else:
            schedule.step(*arguments, **options)
        total = torch.stack([loss.detach() for loss in losses]).double().sum() if losses else torch.zeros(())
        box = torch.tensor([float(total)], dtype=torch.float64, device=self._world.device)
        dist.broadcast(box, group=self._world.group("pp"), group_src=self._stages - 1)
        return box.item()

    def _schedule(self, micro_batches: int, tokens_BT: Tensor) -> Any:
        key = micro_batches, tuple(tokens_BT.shape)
        if key not in self._schedules:
            B, T = tokens_BT.shape
            states = torch.empty(B, T, self._n_embd, device="meta", requires_grad=True)
            stage = PipelineStage(
                self.stage,
                self._number,
                self._stages,
                self._world.device,
                input_args=tokens_BT.to("meta") if self._is_first else states,
                output_args=torch.empty(1, device="meta", requires_grad=True) if self._is_last else states,
                group=self._world.group("pp"),
            )
            self._schedules[key] = Schedule1F1B(
                stage, micro_batches, loss_fn=lambda loss, weight: (loss * weight).sum(), scale_grads=False
            )
        return self._schedules[key]

    def sum_ends(self, held: Sequence[Held]) -> None:
        """Gives both ends, which hold the token embedding, the sum of its gradients."""
        for one in held:
            if one.name == "wte":
                dist.all_reduce(one.grad(), group=self._ends)

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        """`GPT.token_losses`, at every stage; all stages are given the same tokens."""
        group = self._world.group("pp")
        x = tokens_BT
        if not self._is_first:
            x = torch.empty(*tokens_BT.shape, self._n_embd, device=self._world.device)
            dist.recv(x, group=group, group_src=self._number - 1)
        result = self.stage(x, documents_BT=documents_BT, targets_BT=targets_BT, each=True)
        if not self._is_last:
            dist.send(result, group=group, group_dst=self._number + 1)
            result = torch.empty(targets_BT.shape, device=self._world.device)
        dist.broadcast(result, group=group, group_src=self._stages - 1)
        return result  # type: ignore[no-any-return]


class _Stage(nn.Module):
    """The layers of one stage, as PyTorch's schedules call them."""

    def __init__(self, gpt: GPT, device: torch.device, precision: str, *, first: bool, last: bool) -> None:
        super().__init__()
        self.gpt = gpt
        self._first, self._last = first, last
        self._device, self._precision = device, precision

    def forward(
        self,
        x: Tensor,
        seed_N: Tensor | None = None,
        documents_BT: Tensor | None = None,
        targets_BT: Tensor | None = None,
        each: bool = False,
    ) -> Tensor:
        """Token ids or states in; states out, or the loss, of the micro-batch or `each` token."""
        gpt = self.gpt
        seed = None if seed_N is None or int(seed_N[0]) < 0 else int(seed_N[0])
        context = Context(documents_BT=documents_BT, seed=seed if self.training and gpt.config.dropout else None)
        with autocast(self._device, self._precision):
            x_BTD = gpt.embed(x, gpt.embedding(context.seed), context) if self._first else x
            x_BTD = gpt.ln_f(gpt.blocks(x_BTD, context))
            if not self._last:
                return x_BTD  # type: ignore[no-any-return]
            assert targets_BT is not None, "the last stage needs the targets"
            wte_VD = gpt.embedding(context.seed)
            if each:
                return gpt.vocabulary.token_losses(x_BTD, wte_VD, targets_BT)
            return torch.stack([gpt.vocabulary.loss(x_BTD, wte_VD, targets_BT)])  # not a view: FSDP would lose it
