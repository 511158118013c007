"""A GPT spread over processes, from the outside: models/gpt.py does not know of it.

    dp    every process has all weights; gradients are summed once an update
    fsdp  weights, gradients and optimiser are stored in parts; a block is gathered while it works (FSDP2)
    tp    a process has its heads, its columns of the MLP, and its rows of the vocabulary: "model parallelism within
          each matrix multiply" (Brown 2020 §2.3). Column layers copy their input, row layers sum their output.
    pp    a process has some of the layers, "across the layers"; micro-batches follow each other through the stages
          (1F1B). The token embedding lies in the first and the last stage, which sum its gradients.

Every weight is made from (seed, its name), or read from a checkpoint, as a whole, a block at a time, and then cut:
so no layout changes what a model starts from. held.py says what of it is where, tensor_parallel.py and pipeline.py
what tp and pp do, slots.py what goes in.
Sources: Shoeybi 2019 (Megatron-LM) for tp; FSDP2, 1F1B and device meshes are PyTorch's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils.checkpoint import checkpoint

from rein.checkpoint import optimizer_tensors
from rein.distributed import TreeSum, World, all_reduce_flat, row_squares, tree_all_reduce, tree_reduce_scatter
from rein.errors import UserError
from rein.models import ops
from rein.models.gpt import GPT, Block, GPTConfig
from rein.models.held import Held, cut, saved_shape, stage_of
from rein.models.machine import autocast
from rein.models.pipeline import Pipeline
from rein.models.slots import Gradients, Slot
from rein.models.tensor_parallel import ColumnLinear, RowLinear, ShardedVocabulary

T = TypeVar("T")
Fill = Callable[[str, tuple[int, ...]], Tensor]


def check(config: GPTConfig, world: World) -> None:
    """Whether this model can be spread so.

    Raises   UserError that names what does not divide what.
    """
    layout = world.layout
    if layout.pp > config.n_layer:
        raise UserError(
            f"--parallel pp={layout.pp} is more stages than the model's {config.n_layer} layers.",
            f"Use pp={config.n_layer} or less.",
        )
    for name, number in (("n_head", config.n_head), ("4 · n_embd", 4 * config.n_embd)):
        if number % layout.tp:
            raise UserError(
                f"--parallel tp={layout.tp} does not divide {name}={number}.",
                f"Use a tp that divides {config.n_head}, the number of heads.",
            )
    if layout.fsdp > 1 and layout.tp > 1 and config.n_embd % layout.fsdp:
        raise UserError(
            f"--parallel fsdp={layout.fsdp} with tp={layout.tp} needs n_embd={config.n_embd} to be a multiple of it.",
            "Use another fsdp, or one of the two alone.",
        )


class Replica:
    """One GPT over the processes of a world: its part of the model here, and the sums that make it one.

    With one process it is a plain GPT, and nothing is wrapped.
    """

    def __init__(
        self,
        config: GPTConfig,
        world: World,
        fill: Fill,
        *,
        precision: str = "fp32",
        recompute: bool = False,
        compiled: bool = False,
        slots: int = 0,
        model: GPT | None = None,
    ) -> None:
        """`fill(name, shape)` gives each parameter as a whole, on the CPU.

        `model` is one that is there already, for dp and fsdp: see `Replica.of`.

        `recompute` keeps of each block only its input for the backward pass (Chen 2016); `slots` sums gradients in
        the fixed order of that many parts of the batch.
        The layout is one that `check` lets pass.
        """
        self.config, self.world, self.precision, self.slots = config, world, precision, slots
        layout = world.layout
        self._shard_sq: list[Tensor] = []
        self._whole: GPT | None = None
        with torch.device("meta"):
            self.model = GPT(config) if model is None else model
            self.names = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        self.pipeline = None if layout.pp == 1 else Pipeline(self.model, world, precision)
        self.module: nn.Module = self.model if self.pipeline is None else self.pipeline.stage
        for name, block in self.model.h.items():
            assert isinstance(block, Block), "a model's layers are blocks"
            self._materialise(block, f"h.{name}.", fill)
            if layout.tp > 1:
                self._cut_block(block)
            if compiled:
                block.forward = torch.compile(block.forward)  # type: ignore[method-assign]
            if recompute:
                block.forward = functools.partial(  # type: ignore[method-assign]
                    checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
                )
            self._shard(block)
        self._materialise(self.model, "", fill)
        if layout.tp > 1:
            self.model.vocabulary = ShardedVocabulary(config.n_vocab, world.group("tp"))
        self._shard(self.module)
        if layout.fsdp > 1 and layout.pp == 1:
            self.model.passed = functools.partial(_through, self.model)  # type: ignore[assignment]
            for method in ("loss", "token_losses", "passed"):
                register_fsdp_forward_method(self.model, method)
        self.held = list(self._hold())

    @classmethod
    def of(cls, model: GPT, world: World, *, precision: str = "fp32") -> Replica:
        """The same of a model that is there, in every process alike: fsdp cuts it where it is, dp leaves it."""
        assert world.layout.tp == world.layout.pp == 1, "tp and pp cut a model as it is made"
        if world.layout.fsdp == 1:
            return cls(model.config, world, _nothing, precision=precision, model=model)
        given = dict(model.named_parameters())
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad))
        return cls(
            model.config, world, lambda name, _: given.pop(name).detach(), precision=precision, model=model
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ building

    def _materialise(self, module: nn.Module, prefix: str, fill: Fill) -> None:
        """Gives the parameters of `module` that are still without numbers theirs, cut by tp."""
        for path, parameter in list(module.named_parameters()):
            if parameter.is_meta:
                name = prefix + path
                whole = fill(name, tuple(parameter.shape)).to(self.world.device, torch.float32)
                owner, _, attribute = path.rpartition(".")
                here = nn.Parameter(cut(self.config, self.world, name, whole), requires_grad=parameter.requires_grad)
                setattr(module.get_submodule(owner), attribute, here)

    def _cut_block(self, block: Block) -> None:
        tp = self.world.group("tp")
        block.attn.n_head //= self.world.layout.tp
        block.attn.first_head = self.world.place("tp") * block.attn.n_head  # its heads drop weights of their own
        block.attn.c_attn = ColumnLinear(block.attn.c_attn, tp)
        block.attn.c_proj = RowLinear(block.attn.c_proj, tp)
        block.mlp.c_fc = ColumnLinear(block.mlp.c_fc, tp)
        block.mlp.c_proj = RowLinear(block.mlp.c_proj, tp)

    def _shard(self, module: nn.Module) -> None:
        layout, mesh = self.world.layout, self.world.mesh
        if layout.fsdp == 1 or mesh is None or next(module.parameters(), None) is None:
            return

        def placement(parameter: nn.Parameter) -> Shard:
            """Another dimension than tp cuts, where there is one: parts of parts are hard to put together."""
            by_tp = isinstance(parameter, DTensor) and parameter.dim() > 1 and parameter.placements[0] == Shard(0)
            return Shard(1 if by_tp else 0)

        # Under pp a stage's blocks stay gathered from its first micro-batch to its last.
        stays = layout.pp > 1
        sharded = fully_shard(module, mesh=mesh["fsdp"], reshard_after_forward=not stays, shard_placement_fn=placement)
        sharded.set_gradient_divide_factor(1.0)  # losses carry their weights: gradients are summed
        sharded.set_force_sum_reduction_for_comms(True)
        sharded.set_custom_reduce_scatter(_ReduceScatter(self._shard_sq, in_tree=self.slots > 0))
        if layout.dp > 1:
            sharded.set_all_reduce_hook(self._sum_over_dp)

    def _hold(self) -> Iterator[Held]:
        for name, parameter in self.model.named_parameters():
            local = parameter
            if isinstance(parameter, DTensor):
                local = nn.Parameter(ops.local(parameter.detach()))
            shape = saved_shape(self.config, name, self.names[name])
            yield Held(name, parameter, local, shape, counted=name != "wte" or self.world.place("pp") == 0)

    # ------------------------------------------------------------------------------------------------ training

    def gradients(self, slots: Sequence[Slot], *, measured: bool = False) -> Gradients:
        """Leaves in every parameter the sum over all processes' slots of their losses' gradients.

        `measured` also finds the squared norm of each slot's gradient alone, for the noise scale.
        """
        layout = self.world.layout
        self.module.train()
        tree = TreeSum() if self.slots else None
        losses, squares = [], []
        for number, slot in enumerate(slots):
            last = number == len(slots) - 1
            sync = last or tree is not None
            before: float | None = None
            losses.append(self._slot(slot, sync))
            if measured and layout.fsdp == 1:
                # Without a tree the slots' gradients add up where they are: the first one's is seen alone.
                before = self._norm_sq({"dp": self.world.place("dp")}) if tree is not None or number == 0 else None
            elif measured and sync and layout.tp == layout.pp == 1:
                before = float(torch.stack(self._shard_sq).sum())
            if before is not None:
                squares.append((before, slot.sequences))
            self._shard_sq.clear()
            if tree is not None:
                tree.add([held.grad() for held in self.held])
                if not last:
                    for held in self.held:
                        held.parameter.grad = None
        if tree is not None:
            for held, total in zip(self.held, tree.result(), strict=True):
                held.grad().copy_(total)
        self.sum_gradients()
        if self.pipeline is not None:
            self.pipeline.sum_ends(self.held)
        return Gradients(losses, squares)

    def sum_gradients(self) -> None:
        """Adds up over the processes what backward passes have left in each; fsdp has done it in the passes."""
        self._shard_sq.clear()
        if self.world.layout.fsdp == 1 and self.world.layout.dp > 1:
            all_reduce_flat([held.grad() for held in self.held], self._sum_over_dp)

    def sync(self, now: bool) -> None:
        """Whether fsdp shares the gradients of the next backward pass, or keeps them until one that does."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(now)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of an optimiser of `held`'s local tensors, which takes the gradients away."""
        for held in self.held:
            held.local.grad = held.grad()
        optimizer.step()
        for held in self.held:
            held.local.grad = held.parameter.grad = None

    def _slot(self, slot: Slot, sync: bool) -> float:
        """Forward and backward of one slot, in micro-batches. Returns its part of the mean loss."""
        if self.pipeline is not None:
            assert sync, "a pipeline takes a process's whole batch at once"
            return self.pipeline.forward_backward(slot)
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        parts = list(slot.parts())
        for number, part in enumerate(parts):
            self.sync(sync and number == len(parts) - 1)
            if part.seed is not None:
                self.model.seed_dropout(part.seed)
            with autocast(self.world.device, self.precision):
                loss = self.model.loss(part.tokens_BT, part.targets_BT, part.documents_BT)
            (loss * part.weight).backward()  # type: ignore[no-untyped-call]
            total += loss.detach().double() * part.weight
        return total.item()

    def _sum_over_dp(self, x: Tensor) -> None:
        if self.slots:
            tree_all_reduce(x, self.world.group("dp"))
        else:
            dist.all_reduce(x, group=self.world.group("dp"))

    # --------------------------------------------------------------------------------------------------- norms

    def grad_norm(self) -> float:
        """‖all gradients‖₂, each parameter once."""
        if self.slots:
            return self._norm_by_rows()
        return math.sqrt(self._norm_sq({"dp": 0}))

    def _norm_sq(self, where: Mapping[str, int]) -> float:
        """The squared norm of all gradients, from the processes at these places."""
        counted = [held for held in self.held if held.counted]
        squares = torch.stack([torch.linalg.vector_norm(held.grad()) for held in counted]).double().square()
        by_tp = torch.tensor([held.cut_by_tp for held in counted], device=squares.device)
        mine = squares[by_tp].sum().item(), squares[~by_tp].sum().item()
        places = {axis: self.world.place(axis) for axis in ("pp", "dp", "fsdp", "tp")}
        total = 0.0
        for theirs, (parts, common) in self.world.gather((places, mine)):
            if all(theirs[axis] == place for axis, place in where.items()):
                # What tp does not cut, all its processes have.
                total += parts + (common if theirs["tp"] == 0 else 0.0)
        return total

    def _norm_by_rows(self) -> float:
        """The same from sums of rows, which are whole wherever they are kept: equal bits under every dp and fsdp."""
        rows = [row_squares(ops.local(held.saved(held.grad()))) for held in self.held]
        if self.world.layout.fsdp > 1:
            rows = self._gather_rows(rows)
        return float(torch.cat(rows).sum().sqrt())

    def _gather_rows(self, rows: list[Tensor]) -> list[Tensor]:
        shards, group = self.world.layout.fsdp, self.world.group("fsdp")
        lengths = [-(-held.shape[0] // shards) for held in self.held]
        padded = torch.cat([nn.functional.pad(r, (0, n - len(r))) for r, n in zip(rows, lengths, strict=True)])
        everyones = [torch.empty_like(padded) for _ in range(shards)]
        dist.all_gather(everyones, padded, group=group)
        by_parameter = zip(*(torch.split(part, lengths) for part in everyones), strict=True)
        return [torch.cat(parts)[: held.shape[0]] for held, parts in zip(self.held, by_parameter, strict=True)]

    def hand_over(self) -> list[nn.Parameter]:
        """Gives the local tensors, which optimisers work on, their gradients; returns those that have one."""
        learned = [held for held in self.held if held.parameter.grad is not None]
        for held in learned:
            held.local.grad = held.grad()
        return [held.local for held in learned]

    def scale_gradients(self, factor: float) -> None:
        """Multiplies every gradient."""
        for held in self.held:
            held.grad().mul_(factor)

    # ---------------------------------------------------------------------------------------- evaluating, saving

    @torch.no_grad()
    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """`GPT.token_losses` of this process's tokens; under pp all stages are given the same ones."""
        self.module.eval()
        if self.pipeline is not None:
            return self.pipeline.token_losses(tokens_BT, targets_BT, documents_BT)
        with autocast(self.world.device, self.precision):
            losses_BT: Tensor = self.model.token_losses(tokens_BT, targets_BT, documents_BT)
        return losses_BT

    def optimizer_tensors(self, optimizer: torch.optim.Optimizer, *, copies: bool) -> dict[str, Tensor]:
        """The optimiser's state as a checkpoint has it, by name; `copies`, on the CPU, are for a thread to write."""
        found = {}
        for held in self.held:
            if held.counted or not copies:
                for key, value in optimizer_tensors([(held.name, held.local)], optimizer).items():
                    value = value.to("cpu", copy=True) if copies else value
                    found[key] = held.saved(value) if value.numel() == held.local.numel() and value.dim() else value
        return found

    def whole(self) -> Iterator[tuple[str, Tensor]]:
        """The model's parameters as wholes on the CPU, by name: at the first process; the others get empty tensors.

        All processes must go through it together. Each tensor is a copy.
        """
        here = {held.name: held for held in self.held if held.counted}
        for name, shape in self.names.items():
            tensor = torch.empty(0)
            held = here.get(name)
            if held is not None:
                parameter = held.parameter.detach()
                tensor = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
                tensor = tensor.to("cpu", copy=True).view(shape)
            if self.world.layout.pp > 1:
                tensor = self._to_first(name, tensor, shape)
            yield name, tensor if self.world.is_first else torch.empty(0)

    @torch.no_grad()
    def load(self, fill: Fill) -> None:
        """Sets every parameter to what `fill(name, shape)` gives, as a whole: for dp and fsdp."""
        for held in self.held:
            whole = fill(held.name, self.names[held.name]).reshape(held.shape).to(self.world.device)
            if isinstance(held.parameter, DTensor):
                mesh, placements = held.parameter.device_mesh, held.parameter.placements
                whole = ops.local(distribute_tensor(whole, mesh, placements, src_data_rank=None))
            held.local.copy_(whole.view(held.local.shape))

    @property
    def at_hand(self) -> GPT:
        """The model of this process; while `gathered` lasts, the whole one."""
        return self.model if self._whole is None else self._whole

    @contextmanager
    def gathered(self, *, here: bool = True) -> Iterator[GPT]:
        """For its duration `at_hand` is a plain GPT with all weights, in the processes that want it `here`.

        Where every process has all weights anyway, it is the model itself. For dp and fsdp; all processes must come
        here together.
        """
        if self.world.layout.fsdp == 1:
            yield self.model
            return
        with torch.device("meta"):
            whole = GPT(self.config).eval().requires_grad_(False)
        for held in self.held:
            assert isinstance(held.parameter, DTensor), "fsdp cuts every parameter"
            with torch.no_grad():
                numbers = held.parameter.full_tensor().view(self.names[held.name])
            if here:
                owner, _, attribute = held.name.rpartition(".")
                parameter = nn.Parameter(numbers, requires_grad=held.parameter.requires_grad)
                setattr(whole.get_submodule(owner), attribute, parameter)
        self._whole = whole if here else None
        try:
            yield whole
        finally:
            self._whole = None

    def _to_first(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        pp, group = self.world.layout.pp, self.world.cpu_group
        stage = stage_of(name, self.config.n_layer, pp)
        places = [self.world.place(axis) for axis in ("dp", "fsdp", "tp")]
        source = stage * (self.world.layout.size // pp)
        if stage and self.world.place("pp") == stage and not any(places):
            dist.send(tensor, 0, group=group)
        elif stage and self.world.is_first:
            tensor = torch.empty(shape)
            dist.recv(tensor, source, group=group)
        return tensor


# --------------------------------------------------------------------------------------- a model that is there already


def _through(model: GPT, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return function(model, *args, **kwargs)


def _nothing(name: str, shape: tuple[int, ...]) -> Tensor:
    raise AssertionError(f"{name} {shape} should be there")


# --------------------------------------------------------------------------------------------------- FSDP's sums


class _ReduceScatter(ReduceScatter):
    """FSDP's sum of gradients: in the fixed tree where slots are asked for; notes the norm of what goes in."""

    def __init__(self, squares: list[Tensor], *, in_tree: bool) -> None:
        self._squares, self._in_tree = squares, in_tree

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        self._squares.append(torch.linalg.vector_norm(input_tensor).square())
        if self._in_tree:
            tree_reduce_scatter(output_tensor, input_tensor, group)
        else:
            _reduce_scatter(output_tensor, input_tensor, group=group, op=op)


_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor  # its name before 2.13
