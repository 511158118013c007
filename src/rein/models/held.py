"""What of a model one process holds: which layers, which part of each parameter, and the shape it is saved under.

A layout and a parameter's name go in; the part that is here comes out. What is stored is the same for all layouts:
`Held.shape` is the shape under which a parameter and its optimiser state are cut and saved. Only c_attn's is unlike
the model's own: its queries, keys and values of one head belong together, (in, 3, heads, width of a head).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from rein.distributed import World
from rein.models import ops
from rein.models.gpt import GPTConfig

# The dimension of the saved shape that tp cuts; what is not here, every process has whole.
_CUT_BY_TP = {
    "wte": 0,
    "attn.c_attn.weight": 2,
    "attn.c_attn.bias": 1,
    "attn.c_proj.weight": 0,
    "mlp.c_fc.weight": 1,
    "mlp.c_fc.bias": 1,
    "mlp.c_proj.weight": 0,
}


def stage_layers(n_layer: int, stages: int, stage: int) -> range:
    """The layers of one pipeline stage: all stages have as many, or the first ones one more.

    Example  >>> [list(stage_layers(5, 2, stage)) for stage in range(2)]
             [[0, 1, 2], [3, 4]]
    """
    shorter, longer_stages = divmod(n_layer, stages)
    start = stage * shorter + min(stage, longer_stages)
    return range(start, start + shorter + (stage < longer_stages))


def stage_of(name: str, n_layer: int, stages: int) -> int:
    """The stage that saves a parameter: its layer's; the first one the embeddings, the last one ln_f.

    Example  >>> [stage_of(name, 5, 2) for name in ("wte", "h.2.ln_1.bias", "h.3.ln_1.bias", "ln_f.bias")]
             [0, 0, 1, 1]
    """
    if name.startswith("h."):
        layer = int(name.split(".")[1])
        return next(stage for stage in range(stages) if layer in stage_layers(n_layer, stages, stage))
    return stages - 1 if name.startswith("ln_f") else 0


def saved_shape(config: GPTConfig, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape under which a parameter is cut and saved."""
    if ".c_attn." in name:
        return (*shape[:-1], 3, config.n_head, config.d_inner // config.n_head)
    if name.endswith("c_fc.bias"):  # as a row, so that fsdp and tp cut different dimensions of it
        return (1, *shape)
    return tuple(shape)


def cut(config: GPTConfig, world: World, name: str, whole: Tensor) -> Tensor:
    """This process's part of a parameter under tp, as a DTensor; the whole where tp does not cut it."""
    layout = world.layout
    if layout.fsdp > 1 or layout.tp > 1:
        whole = whole.view(saved_shape(config, name, whole.shape))
    dimension = _CUT_BY_TP.get(name.split(".", 2)[-1])
    if layout.tp == 1 or dimension is None:
        return whole
    assert world.mesh is not None, "tp needs a mesh"
    return distribute_tensor(whole, world.mesh["tp"], [Shard(dimension)], src_data_rank=None)


@dataclass(frozen=True)
class Held:
    """One parameter as this process holds it."""

    name: str  # in the whole model: OpenAI's
    parameter: nn.Parameter  # the model's own; a DTensor where it is cut
    local: nn.Parameter  # the numbers that are here, as a plain tensor: what the optimiser works on
    shape: tuple[int, ...]  # of the whole, under which it is cut and saved
    counted: bool  # in norms and checkpoints: False for the last stage's copy of the embedding

    def grad(self) -> Tensor:
        """The gradient of the numbers that are here."""
        assert self.parameter.grad is not None, f"{self.name} has no gradient"
        return ops.local(self.parameter.grad)

    def saved(self, local: Tensor) -> Tensor:
        """A tensor like `local` as a checkpoint keeps it: with the shape of the whole, and which part it is."""
        if not isinstance(self.parameter, DTensor):
            return local.view(self.shape)
        stride = torch.empty(self.shape, device="meta").stride()
        mesh, placements = self.parameter.device_mesh, self.parameter.placements
        return DTensor.from_local(local, mesh, placements, run_check=False, shape=torch.Size(self.shape), stride=stride)

    @property
    def cut_by_tp(self) -> bool:
        """Whether tensor-parallel processes hold different parts of it."""
        return isinstance(self.parameter, DTensor) and "tp" in (self.parameter.device_mesh.mesh_dim_names or ())
