"""Features of a state: the released vector, the papers' grids, tiles, tables, and what each says of bad bounds."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from rein.agents.features import RBF, Fourier, OneHot, Tiles, normalised, products
from rein.agents.human_model import Linear
from rein.agents.lesson import LessonConfig, make_influence, make_model, make_rl
from rein.agents.tasks import make_features, make_task
from rein.errors import UserError

MOUNTAIN_CAR = {"low": [-1.2, -0.07], "high": [0.6, 0.07], "n": 40, "rel_width": 0.08, "norm_low": -1.0}
STATE = np.array([0.1, 0.01])


@pytest.fixture(scope="module")
def released(shared_data):
    """The released code's features of (0.1, 0.01) and action 1, for all three actions."""
    return np.array(json.loads((shared_data / "tamer" / "feats.python").read_text()))


# ------------------------------------------------------------------------------------------ the papers' grids


def test_mountain_cars_features_are_the_released_ones(released):
    ours = np.zeros(4803)
    ours[1601:3202] = RBF(**MOUNTAIN_CAR)(STATE)
    assert released.shape == (4803,)
    assert np.abs(ours - released).max() < 1e-14
    assert ours.sum() == pytest.approx(9.901769079200374, abs=1e-12)
    assert (ours**2).sum() == pytest.approx(4.910885, abs=5e-7)


def test_position_is_the_outer_index_and_the_bias_comes_last(released):
    block = released[1601:3202]
    assert block[-1] == 0.1
    grid = block[:-1].reshape(40, 40)
    nearest = [int(np.argmin(np.abs(np.linspace(low, high, 40) - x)))
               for x, low, high in zip(STATE, MOUNTAIN_CAR["low"], MOUNTAIN_CAR["high"], strict=True)]  # fmt: skip
    assert np.unravel_index(grid.argmax(), grid.shape) == tuple(nearest)
    assert np.abs(RBF(**MOUNTAIN_CAR)(STATE)[:-1].reshape(40, 40) - grid).max() < 1e-14


def test_widths_of_mountain_cars_grid():
    rbf = RBF(**MOUNTAIN_CAR)
    assert rbf.width == pytest.approx(0.0041026, abs=5e-8)
    assert math.sqrt(rbf.width) == pytest.approx(0.06405, abs=5e-6)
    assert math.sqrt(rbf.width) / (2 / 39) == pytest.approx(1.249, abs=5e-4)
    assert (rbf.size, rbf.n_bias) == (1601, 1)


def test_the_tasks_have_the_papers_grids():
    car, pole = make_task("mountain-car"), make_task("cart-pole")
    for make in (car.h_features, car.q_features, car.eligibility_features):
        rbf = make()
        assert (rbf.size, rbf.n, rbf.norm_low, rbf.norm_high, rbf.rel_width, rbf.bias) == (1601, 40, -1, 1, 0.08, 0.1)
    for make, rel_width in ((pole.q_features, 0.13), (pole.eligibility_features, 0.08)):
        rbf = make()
        assert (rbf.size, rbf.n, rbf.norm_low, rbf.norm_high, rbf.rel_width) == (4097, 8, 0, 1, rel_width)
        assert rbf.low.tolist() == pytest.approx([-2.4, -6, -math.radians(12), -6])
        assert rbf.high.tolist() == pytest.approx([2.4, 6, math.radians(12), 6])


def test_an_agent_uses_the_papers_grids():
    car = make_task("mountain-car")
    assert make_model(LessonConfig(), car).complete_AF.size == 4803
    pole = make_task("cart-pole")
    config = LessonConfig("cart-pole", technique="action-biasing")
    rl = make_rl(LessonConfig("cart-pole", technique="sarsa"), pole, np.random.default_rng(0), None)
    assert rl.features.rel_width == 0.13
    assert make_influence(config, pole).features.rel_width == 0.08


def test_a_grid_of_gaussians_by_the_formula():
    rbf = RBF([-1.0, 0.0, 10.0], [1.0, 5.0, 20.0], n=3, rel_width=0.3, norm_low=-1.0, bias=0.5)
    state = np.array([0.3, 4.0, 11.0])
    x = [2 * (s - low) / (high - low) - 1 for s, low, high in zip(state, rbf.low, rbf.high, strict=True)]
    width = 2 * 0.3 / 2
    expected = [
        math.exp(-0.5 * sum((a - c) ** 2 for a, c in zip(x, centre, strict=True)) / width)
        for centre in itertools.product([-1.0, 0.0, 1.0], repeat=3)
    ]
    assert rbf(state).tolist() == pytest.approx([*expected, 0.5], rel=1e-12)
    assert RBF([0.0], [1.0], n=5, rel_width=0.3, bias=0.0)(np.array([0.5])).shape == (5,)


# ---------------------------------------------------------------------------------------- tiles, cosines, tables


def test_as_many_tiles_are_active_as_there_are_tilings():
    random = np.random.default_rng(0)
    tiles = Tiles([-1.0, 0.0], [1.0, 4.0], tiles=5, tilings=7)
    assert tiles.size == 7 * 6 * 6 + 1
    for state in [*random.uniform([-1, 0], [1, 4], (300, 2)), [-1.0, 0.0], [1.0, 4.0], [9.0, -9.0]]:
        features = tiles(np.array(state))
        assert sorted(set(features.tolist())) == [0.0, 1.0]
        assert features[:-1].sum() == 7
        assert features[-1] == 1.0
        assert features[:-1].reshape(7, 36).sum(axis=1).tolist() == [1.0] * 7


def test_tilings_are_shifted_evenly():
    tiles = Tiles([0.0], [1.0], tiles=4, tilings=4)
    states = (np.arange(15) + 0.5) / 16  # one quarter of a tile apart
    rows = np.array([tiles(np.array([x])) for x in states])
    changed = np.abs(np.diff(rows, axis=0)).sum(axis=1) / 2
    assert changed.tolist() == [1.0] * 14


def test_many_tiles_are_hashed_into_few():
    tiles = Tiles(-np.ones(8), np.ones(8), hashed=4096)
    assert tiles.hashed
    assert tiles.size == 4097
    states = np.random.default_rng(0).uniform(-1, 1, (400, 8))
    rows = np.array([tiles(state) for state in states])
    assert rows[:, :-1].sum(axis=1).max() == 8
    assert rows[:, :-1].sum(axis=1).mean() > 7.98  # two tiles of one state rarely share a place
    assert (rows[:, :-1].sum(axis=0) > 0).mean() > 0.5  # 3,200 tiles spread over 4,096 places: 54% without collisions
    assert np.array_equal(rows[3], Tiles(-np.ones(8), np.ones(8), hashed=4096)(states[3]))


def test_inner_products_of_fourier_features_are_a_gaussian_kernel():
    features = Fourier([0.0, 0.0], [2.0, 1.0], n=20_000, sigma=0.5)
    a, b = np.array([1.0, 0.5]), np.array([0.5, 0.75])
    cosines_a, cosines_b = (2 * features(x)[:-1] - 1 for x in (a, b))
    distance = (0.25**2 + 0.25**2) ** 0.5  # of the range
    assert 2 * (cosines_a * cosines_b).mean() == pytest.approx(math.exp(-((distance / 0.5) ** 2) / 2), abs=0.03)
    assert features.size == 20_001
    assert np.array_equal(features(a), Fourier([0.0, 0.0], [2.0, 1.0], n=20_000, sigma=0.5)(a))


def test_a_table_has_a_place_for_every_state():
    table = OneHot([3, 4], first=[1, -2])
    rows = [table(np.array([a, b], dtype=float)) for a in range(1, 4) for b in range(-2, 2)]
    assert np.array_equal(np.array(rows), np.eye(12))


def test_features_of_whole_numbers_are_a_table():
    blackjack = make_task("Blackjack-v1")
    table = make_features(blackjack, "auto")
    assert isinstance(table, OneHot)
    assert table.size == 32 * 11 * 2
    assert isinstance(make_features(make_task("Taxi-v4"), "auto"), OneHot)


@pytest.mark.parametrize(("name", "kind"), [("mountain-car", RBF), ("cart-pole", RBF), ("Acrobot-v1", Tiles)])
def test_automatic_features_follow_the_number_of_dimensions(name, kind):
    features = make_features(make_task(name), "auto")
    assert isinstance(features, kind)
    assert features.size <= 70_000


# ------------------------------------------------------------------------------------------------ small parts


def test_constants_are_nothing_to_the_eligibility_module():
    for features in (RBF(**MOUNTAIN_CAR), Tiles([0.0], [1.0]), Fourier([0.0], [1.0], n=5)):
        phi_F = features(np.zeros(getattr(features, "dimensions", 1)))
        normal = normalised(features, phi_F)
        assert normal[-1] == 0.0
        assert np.array_equal(normal[:-1], phi_F[:-1])
    table = OneHot([4])
    assert np.array_equal(normalised(table, table(np.array([3.0]))), [0, 0, 0, 1])


def test_equal_weights_give_equal_values_to_the_last_bit():
    random = np.random.default_rng(0)
    for size in (3, 7, 1601):
        row, phi_F = random.normal(size=size), random.random(size)
        values = products(np.tile(row, (5, 1)), phi_F)
        assert len(set(values.tolist())) == 1
        assert values[0] == pytest.approx(float(row @ phi_F))


def test_every_kind_says_what_it_is():
    assert RBF(**MOUNTAIN_CAR).describe() == "40 × 40 Gaussians, relative width 0.08"
    assert (
        Tiles([0.0] * 8, [1.0] * 8).describe() == "8 tilings of 8 × 8 × 8 × 8 × 8 × 8 × 8 × 8 tiles, hashed to 65,536"
    )
    assert "random Fourier" in Fourier([0.0], [1.0]).describe()
    assert OneHot([6, 6]).describe() == "a table of 6 × 6 states"


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("kind", [lambda low, high: RBF(low, high, n=4, rel_width=0.1), Tiles, Fourier])
@pytest.mark.parametrize(
    "bounds",
    [
        ([0.0, -math.inf], [1.0, math.inf]),
        ([0.0, 0.0], [1.0, 3.4028235e38]),
        ([0.0, 1.0], [1.0, 1.0]),
        ([0.0, math.nan], [1.0, 1.0]),
    ],
)
def test_bounds_that_are_none_are_an_error_that_names_the_flags(kind, bounds):
    with pytest.raises(UserError, match="Number 1 of the observation") as caught:
        kind(*bounds)
    assert "--low" in caught.value.fix
    assert "--high" in caught.value.fix
    assert "--h-model knn" in caught.value.fix


def test_a_grid_too_large_to_wait_for_is_an_error_that_names_what_to_use():
    with pytest.raises(UserError, match=r"8\^6 features; at most 250,000") as caught:
        RBF(-np.ones(6), np.ones(6), n=8, rel_width=0.08)
    assert "--features tiles" in caught.value.fix
    with pytest.raises(UserError, match="features"):
        make_features(make_task("Acrobot-v1"), "rbf")


def test_a_table_too_large_is_an_error_that_names_what_to_use():
    with pytest.raises(UserError, match="1,000,000 entries") as caught:
        OneHot([1000, 1000])
    assert "--h-model knn" in caught.value.fix


def test_a_table_needs_whole_numbers():
    with pytest.raises(UserError, match="not whole numbers") as caught:
        make_features(make_task("mountain-car"), "table")
    assert "--features" in caught.value.fix


def test_pictures_have_no_features():
    with pytest.raises(UserError, match="pictures") as caught:
        make_features(make_task("FrozenLake-v1", pixels=True), "auto")
    assert "--h-model network" in caught.value.fix


def test_linear_values_follow_the_released_layout(released):
    weights = np.random.default_rng(0).normal(size=4803)
    model = Linear(RBF(**MOUNTAIN_CAR), 3)
    model.load({"weights_AF": weights.reshape(3, 1601)})
    assert model.values(STATE)[1] == pytest.approx(float(weights @ released), rel=1e-12)
