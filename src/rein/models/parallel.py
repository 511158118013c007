"""A GPT spread over processes, from the outside: models/gpt.py does not know of it.

    dp    every process has all weights; gradients are summed once an update
    fsdp  weights, gradients and optimiser are stored in parts; a block is gathered while it works (FSDP2)
    tp    a process has its heads, its columns of the MLP, and its rows of the vocabulary: "model parallelism within
          each matrix multiply" (Brown 2020 §2.3). Column layers copy their input, row layers sum their output.
    pp    a process has some of the layers, "across the layers"; micro-batches follow each other through the stages
          (1F1B). The token embedding lies in the first and the last stage, which sum its gradients.

Every weight is made from (seed, its name), or read from a checkpoint, as a whole, a block at a time, and then cut:
so no layout changes what a model starts from. What is stored is the same for all layouts, too: `Held.shape` is the
shape under which a parameter and its optimiser state are cut and saved. Only c_attn's is unlike the model's own: its
queries, keys and values of one head belong together, (in, 3, heads, width of a head).
Sources: Shoeybi 2019 (Megatron-LM) for tp; FSDP2, 1F1B and device meshes are PyTorch's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils.checkpoint import checkpoint

from rein.checkpoint import optimizer_tensors
from rein.distributed import TreeSum, World, all_reduce_flat, tree_all_reduce, tree_reduce_scatter
from rein.errors import UserError
from rein.models import ops
from rein.models.gpt import GPT, Block, Context, GPTConfig
from rein.models.machine import autocast
from rein.models.tensor_parallel import ColumnLinear, RowLinear, ShardedVocabulary

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


def stage_layers(n_layer: int, stages: int, stage: int) -> range:
    """The layers of one stage: all stages have as many, or the first ones one more.

    Example  >>> [list(stage_layers(5, 2, stage)) for stage in range(2)]
             [[0, 1, 2], [3, 4]]
    """
    shorter, longer_stages = divmod(n_layer, stages)
    start = stage * shorter + min(stage, longer_stages)
    return range(start, start + shorter + (stage < longer_stages))


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


def saved_shape(config: GPTConfig, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape under which a parameter is cut and saved."""
    if ".c_attn." in name:
        return (*shape[:-1], 3, config.n_head, config.d_inner // config.n_head)
    if name.endswith("c_fc.bias"):  # as a row, so that fsdp and tp cut different dimensions of it
        return (1, *shape)
    return tuple(shape)


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
    ) -> None:
        """`fill(name, shape)` gives each parameter as a whole, on the CPU.

        `recompute` keeps of each block only its input for the backward pass (Chen 2016); `slots` sums gradients in
        the fixed order of that many parts of the batch.

        Raises   UserError when the layout does not divide the model.
        """
        check(config, world)
        self.config, self.world, self.precision, self.slots = config, world, precision, slots
        layout = world.layout
        self.stage = world.place("pp")
        self.is_first_stage, self.is_last_stage = self.stage == 0, self.stage == layout.pp - 1
        with torch.device("meta"):
            self.model = GPT(config)
            self.names = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        self._keep_stage()
        self.module: nn.Module = self.model if layout.pp == 1 else _Stage(self)
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
            for method in ("loss", "token_losses"):
                register_fsdp_forward_method(self.model, method)
        self.held = list(self._hold())
        self._ends = self._group_of_ends()
        self._schedules: dict[tuple[int, tuple[int, ...]], Any] = {}
        self._shard_sq: list[Tensor] = []

    # ------------------------------------------------------------------------------------------------ building

    def _keep_stage(self) -> None:
        keep = {str(layer) for layer in stage_layers(self.config.n_layer, self.world.layout.pp, self.stage)}
        for name in [name for name in self.model.h if name not in keep]:
            del self.model.h[name]
        if not self.is_first_stage:
            del self.model.wpe
            if not self.is_last_stage:
                del self.model.wte
        if not self.is_last_stage:
            self.model.ln_f = nn.Identity()

    def _materialise(self, module: nn.Module, prefix: str, fill: Fill) -> None:
        """Gives the parameters of `module` that are still without numbers theirs, cut by tp."""
        for path, parameter in list(module.named_parameters()):
            if parameter.is_meta:
                name = prefix + path
                whole = fill(name, tuple(parameter.shape)).to(self.world.device, torch.float32)
                owner, _, attribute = path.rpartition(".")
                setattr(module.get_submodule(owner), attribute, nn.Parameter(self._cut(name, whole)))

    def _cut(self, name: str, whole: Tensor) -> Tensor:
        layout = self.world.layout
        if layout.fsdp > 1 or layout.tp > 1:
            whole = whole.view(saved_shape(self.config, name, whole.shape))
        cut = {"wte": 0, "attn.c_attn.weight": 2, "attn.c_attn.bias": 1, "attn.c_proj.weight": 0, "mlp.c_fc.weight": 1,
               "mlp.c_fc.bias": 1, "mlp.c_proj.weight": 0}  # fmt: skip
        dimension = cut.get(name.split(".", 2)[-1])
        if layout.tp == 1 or dimension is None:
            return whole
        assert self.world.mesh is not None, "tp needs a mesh"
        return distribute_tensor(whole, self.world.mesh["tp"], [Shard(dimension)], src_data_rank=None)

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
        sharded.set_custom_reduce_scatter(_ReduceScatter(self))
        if layout.dp > 1:
            sharded.set_all_reduce_hook(self._sum_over_dp)

    def _hold(self) -> Iterator[Held]:
        for name, parameter in self.model.named_parameters():
            local = parameter
            if isinstance(parameter, DTensor):
                local = nn.Parameter(ops.local(parameter.detach()))
            shape = saved_shape(self.config, name, self.names[name])
            yield Held(name, parameter, local, shape, counted=name != "wte" or self.is_first_stage)

    def _group_of_ends(self) -> dist.ProcessGroup | None:
        """The first and the last stage's processes of this place: they share the token embedding."""
        layout, mesh = self.world.layout, self.world.mesh
        if layout.pp == 1 or mesh is None:
            return None
        ranks = mesh.mesh.reshape(layout.pp, -1)
        mine = None
        for column in range(ranks.shape[1]):  # all processes make all groups, in one order
            group = dist.new_group([int(ranks[0, column]), int(ranks[-1, column])])
            if self.world.rank in (int(ranks[0, column]), int(ranks[-1, column])):
                mine = group
        return mine

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
        if layout.fsdp == 1 and layout.dp > 1:
            all_reduce_flat([held.grad() for held in self.held], self._sum_over_dp)
        self._sum_ends()
        return Gradients(losses, squares)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of an optimiser of `held`'s local tensors, which takes the gradients away."""
        for held in self.held:
            held.local.grad = held.grad()
        optimizer.step()
        for held in self.held:
            held.local.grad = held.parameter.grad = None

    def _slot(self, slot: Slot, sync: bool) -> float:
        """Forward and backward of one slot, in micro-batches. Returns its part of the mean loss."""
        if self.world.layout.pp > 1:
            return self._pipelined(slot, sync)
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        parts = list(slot.parts())
        for number, part in enumerate(parts):
            if isinstance(self.module, FSDPModule):
                self.module.set_requires_gradient_sync(sync and number == len(parts) - 1)
            if part.seed is not None:
                self.model.seed_dropout(part.seed)
            with autocast(self.world.device, self.precision):
                loss = self.model.loss(part.tokens_BT, part.targets_BT, part.documents_BT)
            (loss * part.weight).backward()  # type: ignore[no-untyped-call]
            total += loss.detach().double() * part.weight
        return total.item()

    def _pipelined(self, slot: Slot, sync: bool) -> float:
        assert sync, "a pipeline takes a process's whole batch at once"
        parts = list(slot.parts())
        schedule = self._schedule(len(parts), parts[0].tokens_BT)
        options = {"seed_N": torch.tensor([-1 if part.seed is None else part.seed for part in parts])}
        if parts[0].documents_BT is not None:
            options["documents_BT"] = torch.cat([part.documents_BT for part in parts if part.documents_BT is not None])
        losses: list[Tensor] = []
        arguments = [torch.cat([part.tokens_BT for part in parts])] if self.is_first_stage else []
        if self.is_last_stage:
            options["targets_BT"] = torch.cat([part.targets_BT for part in parts])
            weights = torch.tensor([part.weight for part in parts], device=self.world.device)
            schedule.step(*arguments, target=weights, losses=losses, **options)
        else:
            schedule.step(*arguments, **options)
        total = torch.stack([loss.detach() for loss in losses]).double().sum() if losses else torch.zeros(())
        box = torch.tensor([float(total)], dtype=torch.float64, device=self.world.device)
        dist.broadcast(box, group=self.world.group("pp"), group_src=self.world.layout.pp - 1)
        return box.item()

    def _schedule(self, micro_batches: int, tokens_BT: Tensor) -> Any:
        key = micro_batches, tuple(tokens_BT.shape)
        if key not in self._schedules:
            B, T = tokens_BT.shape
            states = torch.empty(B, T, self.config.n_embd, device="meta", requires_grad=True)
            stage = PipelineStage(
                self.module,
                self.stage,
                self.world.layout.pp,
                self.world.device,
                input_args=tokens_BT.to("meta") if self.is_first_stage else states,
                output_args=torch.empty(1, device="meta", requires_grad=True) if self.is_last_stage else states,
                group=self.world.group("pp"),
            )
            self._schedules[key] = Schedule1F1B(
                stage, micro_batches, loss_fn=lambda loss, weight: (loss * weight).sum(), scale_grads=False
            )
        return self._schedules[key]

    def _sum_over_dp(self, x: Tensor) -> None:
        if self.slots:
            tree_all_reduce(x, self.world.group("dp"))
        else:
            dist.all_reduce(x, group=self.world.group("dp"))

    def _sum_ends(self) -> None:
        if self._ends is not None and (self.is_first_stage or self.is_last_stage):
            wte = next(held for held in self.held if held.name == "wte")
            dist.all_reduce(wte.grad(), group=self._ends)

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
        cut = torch.tensor([held.cut_by_tp for held in counted], device=squares.device)
        mine = squares[cut].sum().item(), squares[~cut].sum().item()
        places = {axis: self.world.place(axis) for axis in ("pp", "dp", "fsdp", "tp")}
        total = 0.0
        for theirs, (parts, common) in self.world.gather(
            (places, mine)
        ):  # what tp does not cut, all its processes have
            if all(theirs[axis] == place for axis, place in where.items()):
                total += parts + (common if theirs["tp"] == 0 else 0.0)
        return total

    def _norm_by_rows(self) -> float:
        """The same from sums of rows, which are whole wherever they are kept: equal bits under every dp and fsdp."""
        rows = [_row_squares(held.saved(held.grad())) for held in self.held]
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

    def scale_gradients(self, factor: float) -> None:
        """Multiplies every gradient."""
        for held in self.held:
            held.grad().mul_(factor)

    # ---------------------------------------------------------------------------------------- evaluating, saving

    @torch.no_grad()
    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """`GPT.token_losses` of this process's tokens; under pp all stages are given the same ones."""
        self.module.eval()
        if self.world.layout.pp == 1:
            with autocast(self.world.device, self.precision):
                losses_BT: Tensor = self.model.token_losses(tokens_BT, targets_BT, documents_BT)
            return losses_BT
        group, pp = self.world.group("pp"), self.world.layout.pp
        x = tokens_BT
        if not self.is_first_stage:
            x = torch.empty(*tokens_BT.shape, self.config.n_embd, device=self.world.device)
            dist.recv(x, group=group, group_src=self.stage - 1)
        assert isinstance(self.module, _Stage), "a pipeline's module is a stage"
        result = self.module(x, documents_BT=documents_BT, targets_BT=targets_BT, each=True)
        if not self.is_last_stage:
            dist.send(result, group=group, group_dst=self.stage + 1)
            result = torch.empty(targets_BT.shape, device=self.world.device)
        dist.broadcast(result, group=group, group_src=pp - 1)
        return result  # type: ignore[no-any-return]

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

    def _to_first(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        stage = self._stage_of(name)
        group = self.world.cpu_group
        places = [self.world.place(axis) for axis in ("dp", "fsdp", "tp")]
        source = stage * (self.world.layout.size // self.world.layout.pp)
        if stage and self.stage == stage and not any(places):
            dist.send(tensor, 0, group=group)
        elif stage and self.world.is_first:
            tensor = torch.empty(shape)
            dist.recv(tensor, source, group=group)
        return tensor

    def _stage_of(self, name: str) -> int:
        pp = self.world.layout.pp
        if name.startswith("h."):
            layer = int(name.split(".")[1])
            return next(s for s in range(pp) if layer in stage_layers(self.config.n_layer, pp, s))
        return pp - 1 if name.startswith("ln_f") else 0


# ------------------------------------------------------------------------------------------------ what it is fed


@dataclass(frozen=True)
class Part:
    """One micro-batch."""

    tokens_BT: Tensor
    targets_BT: Tensor
    documents_BT: Tensor | None
    weight: float  # of its mean loss in the batch's: its share of the sequences
    seed: int | None  # of its dropout


@dataclass(frozen=True)
class Slot:
    """A part of the batch that one process works on; its gradient is summed by itself."""

    windows_BT: Tensor  # (B, T + 1): each row's tokens and the one after them
    documents_BT: Tensor | None  # (B, T)
    batch_sequences: int  # of the whole batch
    at_once: int  # sequences in a micro-batch
    seed: int | None

    @property
    def sequences(self) -> int:
        """How many there are in it."""
        return len(self.windows_BT)

    def parts(self) -> Iterator[Part]:
        """Its micro-batches."""
        for start in range(0, self.sequences, self.at_once):
            rows = slice(start, start + self.at_once)
            windows_BT = self.windows_BT[rows]
            seed = None if self.seed is None else ops.site_seed(self.seed, start)
            documents_BT = None if self.documents_BT is None else self.documents_BT[rows]
            weight = len(windows_BT) / self.batch_sequences
            yield Part(windows_BT[:, :-1], windows_BT[:, 1:], documents_BT, weight, seed)


@dataclass(frozen=True)
class Gradients:
    """What else came of a batch: this process's parts of the mean loss, and of its slots' gradients."""

    losses: list[float]
    squares: list[tuple[float, int]]  # ‖gradient of the slot's part of the loss‖², and the slot's sequences


# --------------------------------------------------------------------------------------------------------- stages


class _Stage(nn.Module):
    """The layers of one pipeline stage, as PyTorch's schedules call them."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self.gpt = replica.model
        self._first, self._last = replica.is_first_stage, replica.is_last_stage
        self._device, self._precision = replica.world.device, replica.precision

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


# --------------------------------------------------------------------------------------------------- FSDP's sums


class _ReduceScatter(ReduceScatter):
    """FSDP's sum of gradients: in the fixed tree where slots are asked for; notes the norm of what goes in."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        self._replica._shard_sq.append(torch.linalg.vector_norm(input_tensor).square())
        if self._replica.slots:
            tree_reduce_scatter(output_tensor, input_tensor, group)
        else:
            _reduce_scatter(output_tensor, input_tensor, group=group, op=op)


_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor  # its name before 2.13


def _row_squares(x: Tensor) -> Tensor:
    """Σ x² of every row, in float64: a function of that row alone.

    By halving the row until one number is left: a library's sum may go another way when there are fewer rows.
    """
    local = ops.local(x)
    rows_RN = local.flatten(1) if local.dim() > 1 else local[:, None]
    width = max(1, rows_RN.shape[1])
    sums = []
    for piece in torch.split(rows_RN, max(1, (1 << 22) // width)):
        squares = nn.functional.pad(piece.double().square_(), (0, (1 << (width - 1).bit_length()) - width))
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            squares = squares[:, :half] + squares[:, half:]
        sums.append(squares[:, 0])
    return torch.cat(sums)
