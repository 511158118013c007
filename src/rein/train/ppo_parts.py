"""What a run of PPO consists of, put together before it begins, and kept in its checkpoints.

Flow     settings → `assemble` → Parts: networks, reward, prompts, rules, pre-training text;  Parts ↔ a checkpoint

    checkpoints/step-00000064/
      config.json model.safetensors …   the policy: the averaged weights, where there are averages
      value/                            the value network, a folder as a reward model's
      training_state/                   the optimiser; the policy's own weights, where the folder has averages

What cannot go together is stopped here, before anything is trained.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.config import to_dict
from rein.distributed import World
from rein.errors import UserError
from rein.feedback.policies import Policies
from rein.models.actors import Actors, Adam, Averaged
from rein.models.gpt import GPT
from rein.models.huggingface import Weights, end_of_text, load_model, save_model
from rein.models.machine import keep_freed_memory, resolve_device, resolve_precision
from rein.models.reward import Members, Reward, is_function, load_reward, members_of
from rein.models.rows import Completion
from rein.models.scalar import (
    Scalar,
    about_scalar,
    load_scalar,
    reward_folder,
    save_scalar,
    scalar_from,
)
from rein.run import RunFolder
from rein.text.prompts import PromptFormat, decode_response, format_of
from rein.train.guarded import ALIKE, watched
from rein.train.ppo_config import PPOConfig, known
from rein.train.ppo_rules import Ending, truncate_id
from rein.train.pretraining_text import PretrainingText, fingerprint, pretraining_text
from rein.train.queries import Prompts, read_prompts, response_tokens

VALUE = "value"  # of a checkpoint: the value network


@dataclass(frozen=True)
class Text:
    """How tokens become texts."""

    tokenizer: Tokenizer
    format: PromptFormat

    @property
    def response_tokens(self) -> int:
        """The most tokens of a response."""
        return response_tokens(self.format)

    def decoded(self, completions: Sequence[Completion]) -> list[str]:
        """The responses as text."""
        return [decode_response(each.response, self.tokenizer, self.format) for each in completions]


class Settings(Protocol):
    """What checkpoints need to know of the settings of a run: of PPO, or of another way with the same parts."""

    @property
    def out(self) -> Path:
        """The run folder."""


class Sources(Protocol):
    """The settings that name what such a run begins from."""

    # fmt: off
    @property
    def policy(self) -> Path: ...
    @property
    def reward(self) -> str: ...
    @property
    def ensemble(self) -> Members: ...
    @property
    def heldout_reward(self) -> str: ...
    # fmt: on


@dataclass(frozen=True)
class Parts:
    """All that a run works with."""

    actors: Actors
    averaged: Averaged | None
    reward: Reward
    prompts: Prompts
    ending: Ending
    text: Text
    ptx: PretrainingText | None
    precision: str
    inputs: dict[str, str]
    made_by: str = "ppo"

    @property
    def result(self) -> GPT:
        """The policy that is evaluated, and that checkpoints are."""
        return self.actors.policy if self.averaged is None else self.averaged.model

    @contextmanager
    def gathered(self, *, reference: bool = False, here: bool = True) -> Iterator[None]:
        """For its duration `result` has all its weights, and where asked for the reference too, in the processes that
        want them `here`. All processes must come here together."""
        averaged = self.averaged
        with self.actors.gathered(policy=averaged is None, reference=reference, here=here):
            if averaged is None:
                yield
            else:
                with averaged.gathered(here=here):
                    yield


def assemble(config: PPOConfig, world: World | None = None) -> Parts:
    """Loads and makes everything that settled settings name, for this process of a world.

    Raises   UserError for what is missing, damaged, or does not go together.
    """
    keep_freed_memory()
    device = resolve_device(config.device) if world is None else world.device
    # What fsdp will cut goes to the device in parts.
    first_place = torch.device("cpu") if world is not None and world.layout.fsdp > 1 else device
    precision = resolve_precision(config.precision, device)
    policy, tokenizer = load_model(config.policy, device=str(first_place))
    policy.requires_grad_(True)
    format = format_of(known(config.format), query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    reward = load_reward(
        config.reward, tokenizer, device=device, precision=precision, tokens_at_once=config.tokens_at_once,
        format=format, ensemble=config.ensemble, uncertainty_coef=config.uncertainty_coef,
    )  # fmt: skip
    value = _value(config, policy, first_place)
    contexts = {
        "the policy": policy.config.n_ctx,
        "the reward model": reward.n_ctx or policy.config.n_ctx,
        "the value network": value.model.config.n_ctx,
    }
    n_ctx = min(contexts.values())
    prompts = read_prompts(config.prompts, config.heldout, format, tokenizer, n_ctx=n_ctx, policy=config.policy)
    adam = Adam(known(config.adam_b1), known(config.adam_b2), known(config.adam_eps), known(config.weight_decay))
    averaged = Averaged(policy, known(config.ema_decay), world) if known(config.ema_decay) else None
    actors = Actors(policy, value, adam, precision=precision, temperature=known(config.temperature), world=world)
    ending = Ending(
        eot_id=end_of_text(policy.config, tokenizer),
        truncate_id=truncate_id(known(config.truncate_at), tokenizer),
        truncate_after_tokens=known(config.truncate_after_tokens),
        fixed=config.responses == "fixed",
    )
    ptx = None
    if config.ptx_data is not None and known(config.ptx_coef):
        ptx = pretraining_text(
            config.ptx_data, tokenizer, policy.config, length=config.ptx_tokens, seed=config.seed
        )  # fmt: skip
    inputs = inputs_of(config, prompts, None if ptx is None else config.ptx_data)
    return Parts(actors, averaged, reward, prompts, ending, Text(tokenizer, format), ptx, precision, inputs)


def _value(config: PPOConfig, policy: GPT, device: torch.device) -> Scalar:
    """The value network at its start.

    Source   with a trunk of its own, the reward model's: Stiennon 2020, App. B.1; on the policy's, a head of zeros:
             openai/lm-human-preferences, language/model.py.
    """
    if config.value == "shared":
        return Scalar(policy).to(device)
    if is_function(config.reward):
        return scalar_from(copy.deepcopy(policy), config.seed)
    return load_scalar(Path(config.reward), device=str(device))[0]


def inputs_of(config: Sources, prompts: Prompts, ptx_data: Path | None = None) -> dict[str, str]:
    """Digests of what a run begins from, by the flags that name it.

    Raises   UserError when --heldout-reward has the very weights that the policy is trained on.
    """
    folders = {"policy": config.policy}
    for flag, spec in (("reward", config.reward), ("heldout-reward", config.heldout_reward)):
        if spec and not is_function(spec):
            folders[flag] = reward_folder(Path(spec))
    if config.ensemble != "best":
        folders |= {f"reward/{folder.name}": folder for folder in members_of(Path(config.reward))}
    digests = Policies(folders).fingerprints()
    second = digests.get("heldout-reward")
    trained_on = next((name for name in digests if name.startswith("reward") and digests[name] == second), None)
    if trained_on is not None:
        raise UserError(
            f"--heldout-reward {config.heldout_reward} has the weights of what the policy is trained on, --reward "
            f"{config.reward}.",
            ALIKE,
        )
    if ptx_data is not None:
        digests["ptx-data"] = fingerprint(ptx_data)
    return {"prompts": prompts.sha256(), **digests}


# ------------------------------------------------------------------------------------------------------ checkpoints


def save(run: RunFolder | None, config: Settings, parts: Parts, position: dict[str, Any], *, opt_step: int) -> None:
    """A checkpoint to go on from; those before it are removed. `run` is the first process's; all take part."""
    folder, group = config.out / "checkpoints", parts.actors.world.save_group
    checkpoint.save(
        checkpoint.step_folder(folder, opt_step), lambda part: _write(part, parts), about(config, parts, position),
        group,
    )  # fmt: skip
    if run is not None:
        checkpoint.prune(folder, 1)


def _write(part: Path, parts: Parts) -> None:
    actors, first = parts.actors, parts.actors.world.is_first
    with parts.gathered(here=first):
        if first:
            save_model(part, parts.result, parts.text.tokenizer)
    if not actors.shared:
        with actors.gathered_value(here=first) as value:
            if first:
                (part / VALUE).mkdir()
                save_scalar(part / VALUE, value, parts.text.tokenizer)
                said = {"format": "rein-checkpoint-1", "made_by": "ppo", "scalar": about_scalar(value)}
                (part / VALUE / "rein.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    checkpoint.write_tensors(part / checkpoint.STATE, _state(parts), actors.world.save_group)


def about(config: Settings, parts: Parts, position: dict[str, Any]) -> dict[str, Any]:
    """What rein.json says of the policy."""
    return {
        "format": "rein-checkpoint-1",
        "made_by": parts.made_by,
        "position": position,
        "config": to_dict(config),
        "model": asdict(parts.result.config),
        "tokenizer_sha256": parts.text.tokenizer.sha256(),
        "parents": [parts.inputs[name] for name in ("policy", "reward") if name in parts.inputs],
    }


def _state(parts: Parts) -> dict[str, Tensor]:
    return parts.actors.optimizer_tensors() | parts.actors.own_tensors(policy=parts.averaged is not None)


def load(run: RunFolder | None, config: Settings, parts: Parts) -> dict[str, Any]:
    """Sets everything to the run's last checkpoint, and returns its position. `run` is the first process's.

    Raises   UserError when it is damaged, of another model, or prompts, policy or reward have changed since.
    """
    actors, folder = parts.actors, checkpoint.latest(config.out)
    actors.world.at_first(lambda: checkpoint.verify(folder))
    position: dict[str, Any] = checkpoint.read_about(folder)["position"]
    for name, digest in parts.inputs.items():
        if position["inputs"].get(name) != digest:
            flag = name if name == "policy" else f"--{name.partition('/')[0]}"
            raise UserError(
                f"What {flag} names has changed since {config.out} began.", "Restore it, or choose another --out."
            )
    weights = Weights(folder, parts.result.config)
    (actors.load_policy if parts.averaged is None else parts.averaged.load)(weights)
    weights.check_nothing_left()
    if not actors.shared:
        actors.load_value(load_scalar(folder / VALUE)[0])
    with torch.no_grad():
        checkpoint.read_tensors(folder / checkpoint.STATE, _state(parts), actors.world.save_group)
    if run is not None:
        run.truncate_after(position["opt_step"])
    return position


# -------------------------------------------------------------------------------------------------------- in words


def describe(config: PPOConfig, parts: Parts, *, start: int) -> None:
    """Says what is trained, on what, and where it leaves its preset."""
    shape, actors = parts.actors.policy.config, parts.actors
    value = "a head on the policy" if actors.shared else f"{actors.value.model.config.n_params():,} parameters"
    rest = sum(parts.prompts.left_out.values())
    lines = [
        f"policy     {config.policy}: {shape.n_params():,} parameters, context {shape.n_ctx}; value network: {value}",
        f"reward     {parts.reward.name}" + f", {config.ensemble} of its ensemble" * (config.ensemble != "best"),
        f"prompts    {len(parts.prompts.train):,} to train on, {len(parts.prompts.heldout):,} held out"
        + (f"; {rest:,} left out ({', '.join(parts.prompts.left_out)})" if rest else ""),
        f"preset     {config.preset}" + (f", but for {'; '.join(config.differs())}" if config.differs() else ""),
        f"guard      {watched(config, len(parts.prompts.heldout))}",
        f"machine    {actors.device}, {parts.precision}, {torch.get_num_threads()} threads, {actors.world.layout}",
        f"run        {config.out}" + (f", from episode {start:,}" if start else ""),
    ]
    reach = 1 / (1 - known(config.ema_decay)) if known(config.ema_decay) < 1 else math.inf
    if parts.averaged is not None and reach > config.batches:
        lines.append(
            f"note       averaged weights reach back {reach:,.0f} batches, and the run has {config.batches:,}: the "
            "result stays near its start, unless --ema-decay is lower, or 0"
        )
    if parts.ptx is not None:
        lines.insert(
            3,
            f"text       {config.ptx_data}: {config.ptx_per_episode:g} windows of {parts.ptx.length} tokens an "
            f"episode, coefficient {config.ptx_coef:g}",
        )
    print("\n".join(lines), file=sys.stderr)
