"""The networks of PPO, and the few things that its loop asks of them: a policy, its frozen start, a value network.

Flow     Rows (rows.py) → `Actors.forward` → log-probabilities and values of each token, with their graph
                        → `Actors.reference_logprobs` → those of the model that the policy may not leave
         gradients → `Actors.clip` → `Actors.update`

Dropout is off in all of them. The three are computed by the same operations, so that before the first update the
policy's log-probabilities are the reference's, to the bit, and a second pass is the first one: a KL of exactly 0, a
ratio of exactly 1. That is why the passes whose numbers are kept record a graph too: on a CPU, products, attention and
GELU in bfloat16 have another form where no gradient is asked for, which rounds elsewhere.

No weight is held twice without need. The reference is a copy because the policy moves away from it; where products are
in bfloat16 anyway, its matrices are kept in it. A value network with the policy's trunk has a head of its own only.

Over several processes each network is a Replica (parallel.py): with dp every process has all of it, with fsdp a part.
A process passes through it with completions of its own; `clip` adds the gradients up. `gathered` brings a network
together where it has to be at hand whole: to write, and to be saved.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from rein.checkpoint import optimizer_tensors
from rein.distributed import Layout, World
from rein.models import ops
from rein.models.gpt import GPT, Linear
from rein.models.held import Held
from rein.models.machine import autocast
from rein.models.parallel import Fill, Replica
from rein.models.passes import clip, passed
from rein.models.read_at import states_at
from rein.models.rows import Rows, states
from rein.models.scalar import Scalar
from rein.optim import decayed_and_not


class Pass(NamedTuple):
    """What policy and value network say of each token of each response: (M,), in float32."""

    logprobs_M: Tensor
    values_M: Tensor


@dataclass(frozen=True)
class Adam:
    """The optimiser of both networks."""

    adam_b1: float
    adam_b2: float
    adam_eps: float
    weight_decay: float


class Actors:
    """Policy, reference and value network on one device, or over the processes of a world."""

    def __init__(
        self, policy: GPT, value: Scalar, adam: Adam, *, precision: str, temperature: float, world: World | None = None
    ) -> None:
        """`value` may have the policy itself as its trunk. Both are changed by `update`; the reference is made here.

        Every process gives the same networks; fsdp cuts them where they are.
        """
        self.world = World(Layout(), policy.wte.device) if world is None else world
        self.value = value.eval()
        self.shared = value.model is policy
        self.precision, self.temperature = precision, temperature
        reference = frozen(policy.eval(), "fp32" if self.world.layout.fsdp > 1 else precision)  # one type in all parts
        self._policy = Replica.of(policy, self.world)
        self._reference = Replica.of(reference, self.world)
        self._value = self._policy if self.shared else Replica.of(value.model, self.world)
        if self.world.layout.fsdp > 1:
            value.to(self.world.device)  # the head
        groups = []
        for role in ("policy", "value"):
            own = [*self._head(role), *((name, held.local) for name, held in self._held(role))]
            groups += [{**group, "role": role} for group in decayed_and_not(own)]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(adam.adam_b1, adam.adam_b2), eps=adam.adam_eps, weight_decay=adam.weight_decay, fused=True
        )

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.value.weight.device

    @property
    def policy(self) -> GPT:
        """The policy: this process's part of it, or all of it while it is `gathered`."""
        return self._policy.at_hand

    @property
    def reference(self) -> GPT:
        """The frozen policy, likewise."""
        return self._reference.at_hand

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that is trained, each once: `policy.…`, and `value.…` for what is the value network's own."""
        for role in ("policy", "value"):
            yield from self._head(role)
            yield from ((name, held.parameter) for name, held in self._held(role))

    def _held(self, role: str) -> Iterator[tuple[str, Held]]:
        """What of a role's trunk is here, by name."""
        if role == "policy":
            yield from ((f"policy.{held.name}", held) for held in self._policy.held)
        elif not self.shared:
            yield from ((f"value.model.{held.name}", held) for held in self._value.held)

    def _head(self, role: str) -> list[tuple[str, nn.Parameter]]:
        """The head, which every process has whole."""
        named = self.value.named_parameters() if role == "value" else ()
        return [(f"value.{name}", p) for name, p in named if not name.startswith("model.")]

    # -------------------------------------------------------------------------------------------------- passes

    def forward(self, rows: Rows) -> Pass:
        """Log-probabilities at the sampling temperature, and values, with the graph of both."""
        rows = rows.to(self.device)
        with autocast(self.device, self.precision):
            logprobs_M, x_MD = passed(self.policy, _read, rows, self.temperature)
            if not self.shared:
                x_MD = passed(self._value.model, _states, rows)[0]
            values_M = self.value(x_MD)
        return Pass(logprobs_M, values_M)

    def reference_logprobs(self, rows: Rows) -> Tensor:
        """The frozen model's log-probabilities at the same temperature: (M,)."""
        return self.logprobs(self.reference, rows)

    def logprobs(self, model: GPT, rows: Rows) -> Tensor:
        """Those of a model in the manner of `forward`, without their graph: (M,)."""
        rows = rows.to(self.device)
        with autocast(self.device, self.precision):
            return passed(model, _read, rows, self.temperature)[0].detach()

    def language_loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The policy's mean loss on text, in nats per token, with its graph: what PPO-ptx mixes in."""
        with autocast(self.device, self.precision):
            return self.policy.loss(tokens_BT.to(self.device), targets_BT.to(self.device))

    # ------------------------------------------------------------------------------------------------- updates

    def sync(self, now: bool) -> None:
        """Whether fsdp shares the gradients of the next backward pass, or keeps them until one that does."""
        self._policy.sync(now)
        self._value.sync(now)

    def clip(self, clip_norm: float) -> tuple[Tensor, Tensor]:
        """Scales down gradients whose norm is above `clip_norm` (0: never). Returns ‖policy's‖₂ and ‖value's‖₂.

        Of several processes, the gradients that each has left are added up first.
        """
        policy_norm = clip(self.world, self._policy, (), clip_norm)
        value = None if self.shared else self._value
        return policy_norm, clip(self.world, value, [p for _, p in self._head("value")], clip_norm)

    def update(self, *, learning_rate: float, value_learning_rate: float) -> None:
        """One step of Adam, which takes the gradients away."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate if group["role"] == "policy" or self.shared else value_learning_rate
        self._policy.hand_over()
        self._value.hand_over()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for _, p in self.named_parameters():
            p.grad = None

    # ----------------------------------------------------------------------------------- together, and on the disk

    @contextmanager
    def gathered(self, *, policy: bool = True, reference: bool = False, here: bool = True) -> Iterator[None]:
        """For its duration these are plain models with all weights, in the processes that want them `here`.

        All processes must come here together.
        """
        with ExitStack() as stack:
            if policy:
                stack.enter_context(self._policy.gathered(here=here))
            if reference:
                stack.enter_context(self._reference.gathered(here=here))
            yield

    @contextmanager
    def gathered_value(self, *, here: bool = True) -> Iterator[Scalar]:
        """The value network likewise."""
        with self._value.gathered(here=here) as model:
            whole = self.value
            if model is not self.value.model:
                whole = Scalar(model)
                for name in ("weight", "b", "gain", "bias"):
                    setattr(whole, name, getattr(self.value, name))
            yield whole

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state as a checkpoint has it, by name."""
        found = optimizer_tensors(self._head("value"), self.optimizer)
        for prefix, replica in (("policy", self._policy), ("value.model", self._value)):
            if prefix == "policy" or not self.shared:
                own = replica.optimizer_tensors(self.optimizer, copies=False)
                found |= {f"{prefix}.{name}": x for name, x in own.items()}
        return found

    def own_tensors(self, *, policy: bool) -> dict[str, Tensor]:
        """What of the networks a checkpoint needs besides model folders: the policy's own weights where those averaged
        are the folder's, and the head where the trunk is shared."""
        own = {f"policy.{held.name}": held.saved(held.local.detach()) for held in self._policy.held} if policy else {}
        head = {name: p.detach() for name, p in self._head("value")} if self.shared else {}
        return own | head

    def load_policy(self, fill: Fill) -> None:
        """Sets the policy's weights: see `Replica.load`."""
        self._policy.load(fill)

    @torch.no_grad()
    def load_value(self, value: Scalar) -> None:
        """Sets the value network to another one."""
        trunk = dict(value.model.named_parameters())
        self._value.load(lambda name, _: trunk[name].detach())
        for name in ("weight", "b", "gain", "bias"):
            getattr(self.value, name).copy_(getattr(value, name))


def _states(model: GPT, rows: Rows) -> tuple[Tensor, Tensor]:
    """The states before the responses' tokens, and the token embedding."""
    if isinstance(model, FSDPModule):  # a block's weights are gathered when it is called, as a whole
        x_ND, wte_VD = states(model, rows)
        return x_ND[rows.at_M], wte_VD
    return states_at(model, rows, rows.at_M)


def _read(model: GPT, rows: Rows, temperature: float) -> tuple[Tensor, Tensor]:
    """log π of each token of each response (M,), and the states that it is read from (M, D)."""
    x_MD, wte_VD = _states(model, rows)
    return ops.token_logprobs(x_MD, wte_VD, rows.targets_M, temperature=temperature), x_MD


def frozen(policy: GPT, precision: str) -> GPT:
    """A copy that is never trained, and computes what the original does now.

    Under autocast the matrices of linear maps are rounded to bfloat16 at each product; here they are, once.
    """
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    if precision == "bf16":
        for module in reference.modules():
            if isinstance(module, Linear):
                module.to(torch.bfloat16)
    reference.wte.requires_grad_(True)  # so that the operations are those of a pass with a graph; it has no optimiser
    return reference


class Averaged:
    """An exponential moving average of a model's weights.

        average = decay · average + (1 − decay) · weights

    Source   Ouyang 2022, App. C.4: decay 0.992.
    """

    def __init__(self, model: GPT, decay: float, world: World | None = None) -> None:
        self.decay = decay
        average = copy.deepcopy(model).eval().requires_grad_(False)
        average.wte.requires_grad_(True)  # as in `frozen`
        self._replica = Replica.of(average, World(Layout(), model.wte.device) if world is None else world)
        self.gathered, self.load = self._replica.gathered, self._replica.load

    @property
    def model(self) -> GPT:
        """The averages: this process's part of them, or all while they are `gathered`."""
        return self._replica.at_hand

    @torch.no_grad()
    def update(self, model: GPT) -> None:
        """Takes in the weights as they are now."""
        for mean, new in zip(self.model.parameters(), model.parameters(), strict=True):
            ops.local(mean).lerp_(ops.local(new), 1 - self.decay)
