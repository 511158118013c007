"""Features of a state, for linear models: one vector φ_F, of which each action has its own copy of weights.

Flow     observation → `Features` → φ_F; the weights of a linear model are (A, F), action-major as in the released code
Source   `RBF`: Knox & Stone 2010, `featGen/FeatGen_RBFs.java` and `Params.setPyMCParams`. `Tiles`: Sutton & Barto
         2018, §9.5.4. `Fourier`: Rahimi & Recht 2007, moved into [0, 1].

All features but the constant one lie in [0, 1], because the eligibility module measures how recently each was active.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rein.errors import UserError

Vector = NDArray[np.float64]
MAX_FEATURES = 250_000  # per action: beyond, a step takes longer than a person waits


class Features(Protocol):
    """What a state looks like to a linear model. The last `n_bias` features are constant."""

    size: int
    n_bias: int

    def __call__(self, observation: Vector) -> Vector:
        """φ_F of an observation (its numbers, flat)."""

    def describe(self) -> str:
        """In words, for a report and for error messages."""


class RBF:
    """A grid of Gaussians over the state, and a constant.

        φ_i = exp(−½ ‖x − c_i‖² / width),   width = (norm_high − norm_low) · rel_width / (n − 1)

    x is the observation scaled so that [low, high] becomes [norm_low, norm_high]; the centres c_i are a grid of n per
    dimension over that range, the last dimension varying fastest. The constant comes last.

    Shapes   low, high (dimensions,); returns (n ** dimensions + 1,), or without the 1 when `bias` is 0.
    Example  >>> mountain_car = RBF([-1.2, -0.07], [0.6, 0.07], n=40, rel_width=0.08, norm_low=-1.0)
             >>> round(float(mountain_car(np.array([0.1, 0.01])).sum()), 9)
             9.901769079
    Raises   UserError when a bound is not finite, or the grid has more than 250,000 points.
    """

    def __init__(
        self,
        low: Sequence[float] | Vector,
        high: Sequence[float] | Vector,
        *,
        n: int,
        rel_width: float,
        norm_low: float = 0.0,
        norm_high: float = 1.0,
        bias: float = 0.1,
    ) -> None:
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        _check_bounds(self.low, self.high, "a grid of Gaussians")
        self.dimensions = len(self.low)
        if n**self.dimensions > MAX_FEATURES:
            raise UserError(
                f"A grid of {n} Gaussians in each of {self.dimensions} dimensions has {n}^{self.dimensions} features; "
                f"at most {MAX_FEATURES:,} are allowed.",
                "Use --features tiles or --features fourier, or --h-model knn.",
            )
        self.n, self.rel_width, self.norm_low, self.norm_high, self.bias = n, rel_width, norm_low, norm_high, bias
        self.width = (norm_high - norm_low) * rel_width / (n - 1)
        self.centres = np.linspace(norm_low, norm_high, n)
        self.n_bias = int(bias != 0)
        self.size = n**self.dimensions + self.n_bias

    def __call__(self, observation: Vector) -> Vector:
        """φ_F of one observation."""
        x = self.norm_low + (observation - self.low) * ((self.norm_high - self.norm_low) / (self.high - self.low))
        per_dimension = np.exp((x[:, None] - self.centres[None, :]) ** 2 * (-0.5 / self.width))
        grid = per_dimension[0]
        for row in per_dimension[1:]:
            grid = np.multiply.outer(grid, row).ravel()
        return np.append(grid, self.bias) if self.n_bias else grid

    def describe(self) -> str:
        """In words."""
        return f"{' × '.join([str(self.n)] * self.dimensions)} Gaussians, relative width {self.rel_width:g}"


class Tiles:
    """Tile coding: several grids, each shifted a little; in each, the tile that the state lies in is 1.

    Shapes   returns (tilings · tiles ** dimensions + 1,), or (hashed + 1,) where that would be more than `hashed`.
    Raises   UserError when a bound is not finite.
    Source   Sutton & Barto 2018, §9.5.4; offsets by the odd numbers 1, 3, 5 … per dimension.
    """

    n_bias = 1

    def __init__(
        self,
        low: Sequence[float] | Vector,
        high: Sequence[float] | Vector,
        *,
        tiles: int = 8,
        tilings: int = 8,
        hashed: int = 65_536,
    ) -> None:
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        _check_bounds(self.low, self.high, "tiles")
        self.tiles, self.tilings = tiles, tilings
        self.dimensions = len(self.low)
        self.per_tiling = (tiles + 1) ** self.dimensions  # one more a dimension: the shifted grids stick out
        self.hashed = self.per_tiling * tilings > hashed
        self.n_tiles = hashed if self.hashed else self.per_tiling * tilings
        self.size = self.n_tiles + 1
        self.offsets = np.outer(np.arange(tilings), 2 * np.arange(self.dimensions) + 1) % tilings / tilings

    def __call__(self, observation: Vector) -> Vector:
        """φ_F of one observation: `tilings` ones, and the constant 1."""
        scaled = np.clip((observation - self.low) / (self.high - self.low), 0.0, 1.0) * self.tiles
        cells = np.minimum((scaled + self.offsets).astype(np.int64), self.tiles)
        features = np.zeros(self.size)
        features[-1] = 1.0
        for tiling, cell in enumerate(cells.tolist()):
            place = tiling
            for index in cell:
                place = place * (self.tiles + 1) + index
            features[_hash(place) % self.n_tiles if self.hashed else place] = 1.0
        return features

    def describe(self) -> str:
        """In words."""
        hashed = f", hashed to {self.n_tiles:,}" if self.hashed else ""
        return f"{self.tilings} tilings of {' × '.join([str(self.tiles)] * self.dimensions)} tiles{hashed}"


def _hash(value: int) -> int:
    """A number far from those of its neighbours (Fibonacci hashing of 64 bits): the same on every machine."""
    value = value * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 29


class Fourier:
    """Random Fourier features: cosines in random directions, moved into [0, 1].

        φ_i = (1 + cos(ω_i · x + b_i)) / 2,   ω_i ~ N(0, 1/σ²), b_i ~ U[0, 2π)

    x is the observation scaled to [0, 1]. Inner products approximate a Gaussian kernel of width σ.

    Shapes   returns (n + 1,).
    Raises   UserError when a bound is not finite.
    Differs  The paper's features lie in [−1, 1]; there the eligibility module's normalisation would not hold.
    """

    n_bias = 1

    def __init__(
        self,
        low: Sequence[float] | Vector,
        high: Sequence[float] | Vector,
        *,
        n: int = 512,
        sigma: float = 0.25,
        seed: int = 0,
    ) -> None:
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        _check_bounds(self.low, self.high, "Fourier features")
        random = np.random.default_rng(seed)
        self.omega = random.normal(0.0, 1.0 / sigma, (n, len(self.low)))
        self.phase = random.uniform(0.0, 2 * math.pi, n)
        self.n, self.sigma = n, sigma
        self.size = n + 1

    def __call__(self, observation: Vector) -> Vector:
        """φ_F of one observation."""
        x = (observation - self.low) / (self.high - self.low)
        return np.append((1.0 + np.cos(self.omega @ x + self.phase)) / 2, 1.0)

    def describe(self) -> str:
        """In words."""
        return f"{self.n} random Fourier features, σ = {self.sigma:g} of the range"


class OneHot:
    """One feature for each combination of whole numbers: a table.

    Shapes   counts (dimensions,), how many values each number has; returns (Π counts,).
    Example  >>> OneHot([2, 3])(np.array([1.0, 2.0])).tolist()
             [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    Raises   UserError when the table has more than 250,000 entries.
    """

    n_bias = 0

    def __init__(self, counts: Sequence[int], *, first: Sequence[int] | None = None) -> None:
        self.counts = tuple(counts)
        self.first = np.asarray(first if first is not None else [0] * len(self.counts))
        self.size = math.prod(self.counts)
        if self.size > MAX_FEATURES:
            raise UserError(
                f"A table of {' × '.join(map(str, self.counts))} states has {self.size:,} entries; at most "
                f"{MAX_FEATURES:,} are allowed.",
                "Use --h-model knn or network.",
            )

    def __call__(self, observation: Vector) -> Vector:
        """φ_F of one observation."""
        features = np.zeros(self.size)
        features[np.ravel_multi_index(tuple((observation - self.first).astype(np.int64)), self.counts)] = 1.0
        return features

    def describe(self) -> str:
        """In words."""
        return f"a table of {' × '.join(map(str, self.counts))} states"


def alike(one: Features, other: Features) -> bool:
    """Whether two kinds of features give the same numbers for every state."""
    mine, theirs = vars(one), vars(other)
    same_kind = type(one) is type(other) and mine.keys() == theirs.keys()
    return same_kind and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def products(weights_AF: Vector, phi_F: Vector) -> Vector:
    """w_a · φ for each action, so that equal weights give equal values to the last bit.

    A matrix product does not: its kernel may add the rows up in different orders, and a tie is then no tie.

    Shapes   (A, F), (F,) → (A,)
    """
    found: Vector = (weights_AF * phi_F).sum(axis=1)
    return found


def normalised(features: Features, phi_F: Vector) -> Vector:
    """φ_F with each feature scaled by its own range, as the eligibility module wants it: constants become 0.

    Source   released code, HInfluence.linearNormFeats.
    """
    return phi_F if features.n_bias == 0 else np.append(phi_F[: -features.n_bias], [0.0] * features.n_bias)


def _check_bounds(low: Vector, high: Vector, what: str) -> None:
    wide = np.isfinite(low) & np.isfinite(high) & (np.abs(low) < 1e30) & (np.abs(high) < 1e30)
    if not wide.all() or (low >= high).any():
        i = int(np.argmin(wide & (low < high)))
        raise UserError(
            f"Number {i} of the observation ranges from {low[i]:g} to {high[i]:g}, but {what} needs finite bounds.",
            "Give them with --low and --high (one number for each of the observation), or use --h-model knn.",
        )
