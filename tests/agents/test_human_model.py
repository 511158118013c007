"""Models of human reward against brute force; files of them, released, saved, of another shape and broken."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from rein.agents.features import RBF, OneHot
from rein.agents.human_model import Chosen, Linear, Neighbours, Network, digest, load_arrays, load_into, save_arrays
from rein.agents.lesson import LessonConfig, make_model
from rein.agents.sarsa import greedy
from rein.agents.tasks import make_task
from rein.errors import UserError
from rein.feedback.credit import Sample

N_ACTIONS = 3


def small_grid() -> RBF:
    return RBF([-1.0, -1.0], [1.0, 1.0], n=4, rel_width=0.3)


def samples(random, n: int) -> list[Sample]:
    def one(k: int) -> Sample:
        chosen = Chosen(random.uniform(-1, 1, 2), int(random.integers(N_ACTIONS)))
        return Sample(k, chosen, random.normal(), random.uniform(0.1, 1))

    return [one(k) for k in range(n)]


# ------------------------------------------------------------------------------------------------------ linear


def descended(weights: list[list[float]], given: list[Sample], rate: float) -> list[list[float]]:
    """w ← w + rate · weight · (label − w · φ) φ, number by number."""
    weights, grid = [row[:] for row in weights], small_grid()
    for sample in given:
        phi, row = grid(sample.what.observation).tolist(), weights[sample.what.action]
        error = sample.label - sum(w * f for w, f in zip(row, phi, strict=True))
        weights[sample.what.action] = [w + rate * sample.weight * error * f for w, f in zip(row, phi, strict=True)]
    return weights


def test_linear_learns_as_the_formula_says():
    random, model = np.random.default_rng(0), Linear(small_grid(), N_ACTIONS, 0.05)
    complete = [[0.0] * 17 for _ in range(N_ACTIONS)]
    for _ in range(30):
        final, temporary = samples(random, int(random.integers(4))), samples(random, int(random.integers(4)))
        model.learn(final, temporary)
        complete = descended(complete, final, 0.05)
        working = descended(complete, temporary, 0.05)
        assert np.abs(model.complete_AF - complete).max() < 1e-13
        state = random.uniform(-1, 1, 2)
        assert model.values(state) == pytest.approx(np.array(working) @ small_grid()(state), abs=1e-13)


def test_linear_starts_at_nothing_and_learns_slowly():
    model = Linear(small_grid(), N_ACTIONS)
    assert model.learning_rate == 0.001
    assert model.values(np.array([0.3, -0.2])).tolist() == [0.0] * N_ACTIONS


def test_equal_samples_of_two_actions_are_a_tie():
    model, state = Linear(small_grid(), N_ACTIONS, 0.1), np.array([0.3, -0.2])
    model.learn([Sample(0, Chosen(state, 0), 1.0), Sample(1, Chosen(state, 2), 1.0)], [])
    values = model.values(np.array([0.1, 0.1]))
    assert values[0] == values[2] > values[1]


MODELS = {
    "linear": lambda: Linear(small_grid(), N_ACTIONS, 0.05),
    "knn": lambda: Neighbours(N_ACTIONS, 2),
    "network": lambda: Network(N_ACTIONS, (2,), seed=1),
}


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_temporary_samples_vanish_with_the_next_call(kind):
    with_guesses, without = MODELS[kind](), MODELS[kind]()
    random = np.random.default_rng(1)
    first, second, guesses = [*corners(0), *samples(random, 20)], samples(random, 5), samples(random, 8)
    state = np.array([0.1, 0.2])
    with_guesses.learn(first, guesses)
    without.learn(first, [])
    assert not np.array_equal(with_guesses.values(state), without.values(state))
    with_guesses.learn(second, [])
    without.learn(second, [])
    assert np.array_equal(with_guesses.values(state), without.values(state))
    assert digest(with_guesses.arrays()) == digest(without.arrays())


# ---------------------------------------------------------------------------------------------------- neighbours


def nearest_mean(seen: list[Sample], observation, action: int) -> float:
    """The weighted mean label of the ⌊√n⌋ nearest states of an action, each number scaled by the range of the data."""
    mine = [s for s in seen if s.what.action == action]
    if not mine:
        return 0.0
    low = [min(s.what.observation[i] for s in mine) for i in range(2)]
    high = [max(s.what.observation[i] for s in mine) for i in range(2)]

    def distance(sample: Sample) -> float:
        return sum(
            ((a - b) / (top - bottom)) ** 2 if top > bottom else 0.0
            for a, b, bottom, top in zip(sample.what.observation, observation, low, high, strict=True)
        )

    chosen = sorted(mine, key=distance)[: max(1, math.floor(math.sqrt(len(mine))))]
    return sum(s.label * s.weight for s in chosen) / sum(s.weight for s in chosen)


def corners(k: int) -> list[Sample]:
    """Samples of every action at the corners of all data, so that every action's data have the same range."""
    return [
        Sample(k, Chosen(np.array([x, 50 * x]), action), 0.1 * action)
        for action in range(N_ACTIONS)
        for x in (-1.0, 1.0)
    ]


def test_neighbours_are_the_brute_force_ones():
    random, model, seen = np.random.default_rng(2), Neighbours(N_ACTIONS, 2), corners(0)
    model.learn(seen, [])
    for _ in range(40):
        final, temporary = samples(random, int(random.integers(12))), samples(random, int(random.integers(4)))
        for sample in (*final, *temporary):
            sample.what.observation[1] *= 50  # a number of another size matters no more
        model.learn(final, temporary)
        seen += final
        state = random.uniform([-1, -50], [1, 50])
        expected = [nearest_mean([*seen, *temporary], state, action) for action in range(N_ACTIONS)]
        assert model.values(state) == pytest.approx(expected, rel=1e-12)
    assert len(seen) > 200


def three_judgements() -> list[Sample]:
    """Of (0.1, 0.9) the nearest is (0.4, 0.9), as long as the second number's range is 1; if it is 100, (0, 0)."""
    states = (np.array([0.0, 0.0]), np.array([1.0, 1.0]), np.array([0.4, 0.9]))
    return [Sample(k, Chosen(state, 0), 1.0 + k) for k, state in enumerate(states)]


def test_the_data_range_is_that_of_the_actions_own_data():
    # One regressor per action: what was judged of action 1 is no part of the data of action 0.
    model = Neighbours(2, 2)
    model.learn([*three_judgements(), Sample(3, Chosen(np.array([0.5, 100.0]), 1), 9.0)], [])
    assert model.values(np.array([0.1, 0.9])).tolist() == [3.0, 9.0]


def test_a_guess_that_is_thrown_out_leaves_no_trace_in_the_range_of_the_data():
    model = Neighbours(2, 2)
    model.learn(three_judgements(), [Sample(3, Chosen(np.array([0.5, 100.0]), 0), 9.0)])
    model.learn([], [])
    assert model.values(np.array([0.1, 0.9])).tolist() == [3.0, 0.0]


def test_an_action_never_judged_is_worth_nothing():
    model = Neighbours(N_ACTIONS, 2)
    assert model.values(np.zeros(2)).tolist() == [0.0] * N_ACTIONS
    model.learn([Sample(0, Chosen(np.zeros(2), 1), -1.0)], [])
    assert model.values(np.ones(2)).tolist() == [0.0, -1.0, 0.0]


def test_neighbours_need_no_bounds():
    model = Neighbours(1, 2)
    model.learn([Sample(0, Chosen(np.array([3.0, 5.0]), 0), 1.0)], [])
    model.learn([Sample(1, Chosen(np.array([3.0, 1e6]), 0), 2.0)], [])  # the first number has no range at all
    assert model.values(np.array([77.0, 9.0])).tolist() == [1.0]


# ------------------------------------------------------------------------------------------------------- network


def judgement(state, action: int) -> float:
    """A trainer who wants action 0 on the left, 2 on the right, and never 1."""
    return 1.0 if action == (0 if state[0] < 0 else 2) else -1.0


def taught(seed: int, n: int) -> Network:
    model = Network(N_ACTIONS, (2,), low=-np.ones(2), high=np.ones(2), learning_rate=0.01, seed=seed)
    random = np.random.default_rng(3)
    for k in range(n):
        state, action = random.uniform(-1, 1, 2), int(random.integers(N_ACTIONS))
        model.learn([Sample(k, Chosen(state, action), judgement(state, action))], [])
    return model


def test_a_network_learns_what_a_trainer_wants_and_the_same_from_the_same_seed():
    model = taught(0, 250)
    states = [x for x in np.random.default_rng(4).uniform(-1, 1, (200, 2)) if abs(x[0]) > 0.15]
    right = [int(model.values(x).argmax()) == (0 if x[0] < 0 else 2) for x in states]
    assert np.mean(right) > 0.95
    once, again, other = (digest(taught(seed, 30).arrays()) for seed in (0, 0, 1))
    assert once == again != other


def test_a_network_says_nothing_before_it_was_taught_anything():
    model = Network(N_ACTIONS, (2,))
    assert model.values(np.array([0.3, 0.5])).tolist() == [0.0] * N_ACTIONS
    before = digest(model.arrays())
    model.learn([], [Sample(0, Chosen(np.zeros(2), 0), 1.0)])  # guesses cannot be taken back, so they are not learned
    assert digest(model.arrays()) == before


def test_a_sample_without_weight_teaches_a_network_nothing():
    model = Network(N_ACTIONS, (2,))
    before = digest(model.arrays())
    model.learn([Sample(0, Chosen(np.zeros(2), 0), 1.0, weight=0.0)], [])
    assert digest(model.arrays()) == before


def test_a_network_forgets_what_the_buffer_has_no_room_for():
    model = Network(N_ACTIONS, (2,), buffer=10)
    for k in range(25):
        model.learn([Sample(k, Chosen(np.zeros(2), 0), float(k))], [])
    assert sorted(row[2] for row in model._memory) == [float(k) for k in range(15, 25)]


def test_a_network_looks_at_pictures():
    model = Network(2, (2, 84, 84), learning_rate=0.001)
    light, dark = np.full((2, 84, 84), 255, np.uint8), np.zeros((2, 84, 84), np.uint8)
    for k in range(15):
        model.learn([Sample(k, Chosen(light, 0), 1.0), Sample(k, Chosen(dark, 1), 1.0)], [])
    assert model.values(light)[0] > 0.2
    assert model.values(light).shape == (2,)


def test_making_a_network_leaves_torchs_random_numbers_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Network(N_ACTIONS, (2,), seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_a_network_scales_what_it_sees_by_the_bounds():
    model = Network(1, (3,), low=np.array([0.0, -np.inf, 5.0]), high=np.array([10.0, np.inf, 5.0]))
    scaled = model._tensor([np.array([10.0, 0.5, 6.0])])[0].tolist()
    assert scaled == [1.0, 0.5, 1.0]


# --------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["linear", "knn", "network"])
@pytest.mark.parametrize("n", [0, 70])
def test_what_is_saved_is_loaded_to_the_last_bit(kind, n, tmp_path):
    model, fresh, path = MODELS[kind](), MODELS[kind](), tmp_path / "h.safetensors"
    random = np.random.default_rng(5)
    model.learn(samples(random, n), [])
    save_arrays(path, model.arrays(), {"h_model": kind})
    load_into(fresh, path)
    assert digest(fresh.arrays()) == digest(model.arrays())
    state = np.array([0.3, -0.7])
    assert fresh.values(state).tobytes() == model.values(state).tobytes()
    assert load_arrays(path)[1] == {"h_model": kind}
    assert [p.name for p in tmp_path.iterdir()] == ["h.safetensors"]


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_a_loaded_model_learns_on_as_the_one_that_was_saved(kind, tmp_path):
    model, fresh = MODELS[kind](), MODELS[kind]()
    random = np.random.default_rng(6)
    model.learn(samples(random, 100), [])
    save_arrays(tmp_path / "h.safetensors", model.arrays(), {})
    load_into(fresh, tmp_path / "h.safetensors")
    more = samples(random, 100)
    model.learn(more, [])
    fresh.learn(more, [])
    assert digest(fresh.arrays()) == digest(model.arrays())


def test_a_digest_knows_names_shapes_types_and_signs():
    x = np.array([0.0, 1.0])
    others = ({"b": x}, {"a": x.reshape(2, 1)}, {"a": x.astype(np.float32)}, {"a": np.array([-0.0, 1.0])})
    assert len({digest(arrays) for arrays in ({"a": x}, *others)}) == 5
    assert digest({"a": x, "b": x}) == digest({"b": x, "a": x})


@pytest.fixture(scope="module")
def released(shared_data):
    model = make_model(LessonConfig(h_load=shared_data / "tamer" / "H2-100.model"), make_task("mountain-car"))
    return model, json.loads((shared_data / "tamer" / "H2-100.model").read_text())


def test_the_released_trainers_model_is_loaded_as_it_is(released):
    model, numbers = released
    assert model.complete_AF.size == len(numbers) == 4803
    assert model.complete_AF.ravel().tolist() == numbers
    assert round(model.complete_AF.min(), 3) == -0.233
    assert round(model.complete_AF.max(), 3) == 0.385


def test_the_released_trainers_model_climbs_the_hill_as_it_is_known_to(released):
    # −99.2 a mean episode, sd 18: the mean of 150 lies within 3.5 standard errors of it.
    model, random, env = released[0], np.random.default_rng(0), make_task("mountain-car").env
    returns = []
    for episode in range(150):
        state, _ = env.reset(seed=0 if episode == 0 else None)
        total, ended, action = 0.0, False, None
        while not ended:
            action = greedy(model.values(state), action, random)
            state, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + reward, terminated or truncated
        returns.append(total)
    assert np.mean(returns) == pytest.approx(-99.2, abs=3.5 * 18 / math.sqrt(150))
    assert 14 < np.std(returns) < 22


def refused(model, path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_into(model, path)
    return caught.value


def test_a_model_for_another_task_is_an_error_that_says_both_sizes(shared_data):
    error = refused(Linear(small_grid(), N_ACTIONS), shared_data / "tamer" / "H2-100.model")
    assert "4,803 weights" in error.problem
    assert "51" in error.problem


@pytest.mark.parametrize(
    ("kind", "saved"),
    [
        ("linear", lambda: Linear(OneHot([5]), 3)),
        ("linear", lambda: Linear(small_grid(), 4)),
        ("knn", lambda: Neighbours(N_ACTIONS, 3)),
        ("knn", lambda: Neighbours(2, 2)),
        ("knn", lambda: Neighbours(4, 2)),
        ("network", lambda: Network(4, (2,))),
        ("network", lambda: Network(N_ACTIONS, (3,))),
    ],
    ids=["features", "actions", "dimensions", "fewer actions", "more actions", "outputs", "inputs"],
)
def test_a_model_of_another_shape_is_an_error(kind, saved, tmp_path):
    save_arrays(tmp_path / "h.safetensors", saved().arrays(), {})
    assert "task" in refused(MODELS[kind](), tmp_path / "h.safetensors").fix


@pytest.mark.parametrize(("kind", "saved"), [(a, b) for a in MODELS for b in MODELS if a != b], ids=lambda name: name)
def test_a_model_of_another_kind_is_an_error(kind, saved, tmp_path):
    save_arrays(tmp_path / "h.safetensors", MODELS[saved]().arrays(), {})
    refused(MODELS[kind](), tmp_path / "h.safetensors")


BROKEN = {
    "empty": b"",
    "one byte": b"\x00",
    "a text": b"not a model\n" * 10,
    "half a list": b"[0.1, 0.2, ",
    "a list of lists": b"[[0.1, 0.2], [0.3]]",
    "a list of words": b'["a", "b"]',
    "a list of objects": b'[{"a": 1}]',
    "a list with nothing in it": b"[null, 1]",
    "not finite": b"[1e999, 1]",
    "a whole number too large": b"[1" + b"0" * 400 + b"]",
    "deep": b"[" * 100_000,
    "not UTF-8": b"[\xff\xfe]",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_that_names_it(name, tmp_path):
    path = tmp_path / "h.model"
    path.write_bytes(BROKEN[name])
    assert str(path) in refused(MODELS["linear"](), path).problem


def test_a_cut_off_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "h.safetensors"
    save_arrays(path, MODELS["linear"]().arrays(), {})
    path.write_bytes(path.read_bytes()[:-20])
    assert str(path) in refused(MODELS["linear"](), path).problem


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    assert "does not exist" in refused(MODELS["linear"](), tmp_path / "no.safetensors").problem
    refused(MODELS["linear"](), tmp_path)


def test_a_file_of_other_tensors_is_an_error(tmp_path):
    save_file({"something": np.zeros(3)}, tmp_path / "other.safetensors")
    for kind in MODELS:
        refused(MODELS[kind](), tmp_path / "other.safetensors")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_arrays(tmp_path / "file" / "h.safetensors", MODELS["linear"]().arrays(), {})
