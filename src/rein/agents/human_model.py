"""Models of human reward: Ĥ(s, a), what the trainer would say of an action in a state.

Flow     samples from the credit assigner → a model → Ĥ of every action, from which the agent picks the highest

Three models: linear over features (the papers' own), nearest neighbours of each action, a small neural network
with a replay buffer. Each has its parameters as plain arrays, so that a lesson can be hashed, saved and compared.

Source   linear: Knox & Stone 2010, `modeling/IncGDLinearModel.java`. Neighbours: the ICML 2011 workshop runs, Weka's
         IBk with k = ⌊√n⌋. Network: Warnell et al. 2018 (Deep TAMER).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rein.agents.features import Features, Vector, products
from rein.errors import UserError
from rein.feedback.credit import Sample

Arrays = dict[str, NDArray[Any]]


class Chosen(NamedTuple):
    """What a step was: where the agent stood, and what it did there."""

    observation: Vector
    action: int


class HumanModel(Protocol):
    """Ĥ: learns from samples whose `what` is a `Chosen`."""

    n_actions: int

    def values(self, observation: Vector) -> Vector:
        """Ĥ(s, ·), shape (A,)."""

    def learn(self, final: Sequence[Sample], temporary: Sequence[Sample]) -> None:
        """Learns final samples for good, and temporary ones until the next call."""

    def arrays(self) -> Arrays:
        """All that was learned, as arrays."""

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `arrays` gave."""


class Linear:
    """Ĥ(s, a) = w_a · φ(s), by gradient descent on (label − Ĥ)².

        w_a ← w_a + learning_rate · weight · (label − w_a · φ(s)) · φ(s)

    Two sets of weights: the complete ones have seen final samples only; the working ones are a copy that has seen the
    temporary samples too, made anew at each step.

    Shapes   weights (A, F).
    Source   Knox & Stone 2010: learning rate 0.001, weights start at 0; `modeling/IncGDLinearModel.java`.
    """

    def __init__(self, features: Features, n_actions: int, learning_rate: float = 0.001) -> None:
        self.features, self.n_actions, self.learning_rate = features, n_actions, learning_rate
        self.complete_AF = np.zeros((n_actions, features.size))
        self.working_AF = self.complete_AF

    def values(self, observation: Vector) -> Vector:
        """Ĥ(s, ·)."""
        return products(self.working_AF, self.features(observation))

    def learn(self, final: Sequence[Sample], temporary: Sequence[Sample]) -> None:
        """One pass over the samples, in order."""
        self._descend(self.complete_AF, final)
        self.working_AF = self.complete_AF
        if temporary:
            self.working_AF = self.complete_AF.copy()
            self._descend(self.working_AF, temporary)

    def _descend(self, weights_AF: NDArray[np.float64], samples: Sequence[Sample]) -> None:
        for sample in samples:
            observation, action = sample.what
            phi_F = self.features(observation)
            error = sample.label - float(weights_AF[action] @ phi_F)
            weights_AF[action] += (self.learning_rate * sample.weight * error) * phi_F

    def arrays(self) -> Arrays:
        """The complete weights."""
        return {"weights_AF": self.complete_AF}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over weights of the same shape."""
        weights = np.asarray(arrays["weights_AF"], dtype=np.float64)
        if weights.shape != self.complete_AF.shape:
            raise UserError(
                f"The saved Ĥ has weights of shape {weights.shape}, but this one needs {self.complete_AF.shape} "
                f"({self.features.describe()}, {self.n_actions} actions).",
                "Use the task, --features and --h-model that it was made with.",
            )
        self.complete_AF = weights.copy()
        self.working_AF = self.complete_AF


class Neighbours:
    """Ĥ(s, a): the mean label of the k nearest states in which a was judged, k = ⌊√n⌋, at least 1.

    Each number of the observation is scaled by its range in the action's own data, so it needs no bounds. Where an
    action was never judged, Ĥ is 0.

    Source   ICML 2011 workshop paper's runs: Weka's IBk on the raw state, one regressor per action.
    """

    def __init__(self, n_actions: int, dimensions: int) -> None:
        self.n_actions, self.dimensions = n_actions, dimensions
        self._states = [np.empty((64, dimensions)) for _ in range(n_actions)]
        self._labels = [np.empty((64, 2)) for _ in range(n_actions)]  # label, weight
        self._counts = [0] * n_actions  # final ones
        self._held = [0] * n_actions  # behind them, temporary ones

    def values(self, observation: Vector) -> Vector:
        """Ĥ(s, ·)."""
        values_A = np.zeros(self.n_actions)
        for action in range(self.n_actions):
            n = self._counts[action] + self._held[action]
            if n == 0:
                continue
            states = self._states[action][:n]
            spread = states.max(axis=0) - states.min(axis=0)
            scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
            distance = (((states - observation) * scale) ** 2).sum(axis=1)
            labels = self._labels[action][np.argsort(distance, kind="stable")[: max(1, math.isqrt(n))]]
            total = labels[:, 1].sum()
            values_A[action] = (labels[:, 0] * labels[:, 1]).sum() / total if total > 0 else 0.0
        return values_A

    def learn(self, final: Sequence[Sample], temporary: Sequence[Sample]) -> None:
        """Adds the samples."""
        self._held = [0] * self.n_actions
        for sample in final:
            self._put(sample)
            self._counts[sample.what.action] += 1
        for sample in temporary:
            self._put(sample)
            self._held[sample.what.action] += 1

    def _put(self, sample: Sample) -> None:
        observation, action = sample.what
        n = self._counts[action] + self._held[action]
        if n == len(self._states[action]):
            self._states[action] = np.concatenate([self._states[action], np.empty_like(self._states[action])])
            self._labels[action] = np.concatenate([self._labels[action], np.empty_like(self._labels[action])])
        self._states[action][n], self._labels[action][n] = observation, (sample.label, sample.weight)

    def arrays(self) -> Arrays:
        """The final samples of each action."""
        found: Arrays = {}
        for action, n in enumerate(self._counts):
            found[f"states_{action}"] = self._states[action][:n]
            found[f"labels_{action}"] = self._labels[action][:n]
        return found

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over samples."""
        shapes = [
            arrays[f"states_{action}"].shape[1:] for action in range(self.n_actions) if f"states_{action}" in arrays
        ]
        if len(arrays) != 2 * self.n_actions or shapes != [(self.dimensions,)] * self.n_actions:
            if "states_0" not in arrays:
                raise KeyError("states_0")
            raise UserError(
                f"The saved neighbours are not of {self.n_actions} actions and {self.dimensions} numbers a state.",
                "Use the task that they were made with.",
            )
        self._held = [0] * self.n_actions
        for action in range(self.n_actions):
            self._states[action] = np.concatenate([arrays[f"states_{action}"], np.empty((64, self.dimensions))])
            self._labels[action] = np.concatenate([arrays[f"labels_{action}"], np.empty((64, 2))])
            self._counts[action] = len(arrays[f"labels_{action}"])


class Network:
    """Ĥ(s, ·) by a small neural network, with a replay buffer: Deep TAMER.

    Each batch of new samples makes one update, weighted by their credit; each `replay_every` calls make one more on
    `batch` samples drawn from the buffer. Two hidden layers for states; two convolutions before them for pictures
    (C, H, W). Temporary samples are not learned: what a network has learned cannot be taken back.

    Source   Warnell et al. 2018; numbers of the public implementation in generalroboticslab/CREW: Adam 1e-4, batch 16,
             buffer 15,000.
    """

    def __init__(
        self,
        n_actions: int,
        shape: Sequence[int],
        *,
        low: Vector | None = None,
        high: Vector | None = None,
        learning_rate: float = 1e-4,
        width: int = 64,
        batch: int = 16,
        buffer: int = 15_000,
        replay_every: int = 1,
        seed: int = 0,
    ) -> None:
        import torch

        self._torch = torch
        self.n_actions, self.shape = n_actions, tuple(shape)
        self.batch, self.buffer, self.replay_every = batch, buffer, replay_every
        self._low, self._span = _scaling(low, high, self.shape)
        self._random = np.random.default_rng(seed)
        self._memory: list[tuple[Vector, int, float, float]] = []
        self._added = self._calls = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _network(self.shape, n_actions, width)
        self._adam = torch.optim.Adam(self.net.parameters(), lr=learning_rate)

    def values(self, observation: Vector) -> Vector:
        """Ĥ(s, ·)."""
        with self._torch.no_grad():
            out: Vector = self.net(self._tensor([observation]))[0].double().numpy()
        return out

    def learn(self, final: Sequence[Sample], temporary: Sequence[Sample]) -> None:
        """One update on what is new, one on what is remembered."""
        new = [(s.what.observation, s.what.action, s.label, s.weight) for s in final]
        if new:
            self._update(new)
        for row in new:
            if len(self._memory) < self.buffer:
                self._memory.append(row)
            else:
                self._memory[self._added % self.buffer] = row
            self._added += 1
        self._calls += 1
        if self._memory and self._calls % self.replay_every == 0:
            drawn = self._random.integers(len(self._memory), size=self.batch)
            self._update([self._memory[i] for i in drawn])

    def _update(self, rows: Sequence[tuple[Vector, int, float, float]]) -> None:
        torch = self._torch
        predicted = self.net(self._tensor([row[0] for row in rows]))
        chosen = predicted.gather(1, torch.tensor([[row[1]] for row in rows]))[:, 0]
        label = torch.tensor([row[2] for row in rows], dtype=torch.float32)
        weight = torch.tensor([row[3] for row in rows], dtype=torch.float32)
        loss = (weight * (label - chosen) ** 2).mean()
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()

    def _tensor(self, observations: Sequence[Vector]) -> Any:
        scaled = (np.stack(observations).astype(np.float32) - self._low) / self._span
        return self._torch.from_numpy(scaled.astype(np.float32))

    def arrays(self) -> Arrays:
        """The network's parameters."""
        return {name: value.detach().numpy() for name, value in self.net.state_dict().items()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over parameters; the replay buffer starts empty."""
        try:
            self.net.load_state_dict({name: self._torch.from_numpy(np.array(v)) for name, v in arrays.items()})
        except (RuntimeError, KeyError) as error:
            raise UserError(
                f"The saved network does not fit: {str(error).splitlines()[0]}.", "Use the task that it was made with."
            ) from None


def _scaling(low: Vector | None, high: Vector | None, shape: tuple[int, ...]) -> tuple[Vector, Vector]:
    """What to subtract and divide by, so that inputs are about [−1, 1]; pictures become [0, 1]."""
    if len(shape) == 3:
        return np.zeros(()), np.full((), 255.0)
    size = shape[0]
    low = np.full(size, -1.0) if low is None else np.where(np.abs(low) < 1e30, low, -1.0)
    high = np.full(size, 1.0) if high is None else np.where(np.abs(high) < 1e30, high, 1.0)
    half = np.where(high > low, (high - low) / 2, 1.0)
    return ((low + high) / 2).astype(np.float32), half.astype(np.float32)


def _network(shape: tuple[int, ...], n_actions: int, width: int) -> Any:
    from torch import nn

    if len(shape) == 3:
        channels, height, wide = shape
        body = [
            nn.Conv2d(channels, 16, 8, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * _after(height) * _after(wide), 2 * width), nn.ReLU(), nn.Linear(2 * width, n_actions),
        ]  # fmt: skip
    else:
        body = [
            nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_actions),
        ]  # fmt: skip
    for parameter in body[-1].parameters():
        nn.init.zeros_(parameter)  # Ĥ is 0 everywhere until something was said
    return nn.Sequential(*body)


def _after(pixels: int) -> int:
    return ((pixels - 8) // 4 + 1 - 4) // 2 + 1


# ---------------------------------------------------------------------------------------------------- files


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, shapes and bytes: equal exactly when every number is, to the last bit."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> None:
    """Writes `arrays` as a safetensors file, whole or not at all; `about` goes into its header."""
    import os

    from safetensors.numpy import save

    from rein.errors import writing

    part = path.with_name(path.name + ".part")
    with writing(path):
        part.write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=dict(about)))
        os.replace(part, path)


def load_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Reads Ĥ from our safetensors file, or from the released code's `.model` file (a JSON list of linear weights).

    Raises   UserError when the file is missing or is neither.
    """
    import json

    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}.", f"Name a file with Ĥ, like {path / 'h.safetensors'}, or a list of weights.")
    try:
        if path.read_bytes()[:1] == b"[":
            weights = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
            if weights.ndim != 1 or not np.isfinite(weights).all():
                raise ValueError("not a flat list of finite numbers")
            return {"weights_F": weights}, {"h_model": "linear"}
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (ValueError, TypeError, OverflowError, RecursionError, SafetensorError, OSError) as error:
        raise UserError(
            f"{path} holds no Ĥ: {error}.", "Name an h.safetensors of a lesson, or a list of weights."
        ) from None


def load_into(model: HumanModel, path: Path) -> None:
    """Loads a file into a model that it fits.

    Raises   UserError when it does not fit.
    """
    arrays, _ = load_arrays(path)
    if "weights_F" in arrays and isinstance(model, Linear):
        weights = arrays["weights_F"]
        if weights.size != model.complete_AF.size:
            raise UserError(
                f"{path} holds {weights.size:,} weights, but {model.features.describe()} and {model.n_actions} actions "
                f"need {model.complete_AF.size:,}.",
                "Use the task and the features that it was made with.",
            )
        arrays = {"weights_AF": weights.reshape(model.complete_AF.shape)}
    try:
        model.load(arrays)
    except KeyError as error:
        raise UserError(
            f"{path} holds another kind of Ĥ: it has no {error}.", "Use the --h-model that it was made with."
        ) from None
