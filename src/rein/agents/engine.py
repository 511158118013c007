"""The papers' experiments, compiled: SARSA(λ), Ĥ and their combinations at millions of steps a second.

The same algorithms as `tamer_rl.TamerRL`, `feedback/credit.py` and `eligibility.py`, which are the ones to read; the
tests hold this file to them, step by step. It knows Mountain Car and Cart Pole, linear Ĥ and Q over Gaussian grids,
and a simulated trainer.

Three things make it fast.

1. Gaussians have compact support in practice. Of 40 × 40 only the 16 × 16 nearest the state are above 10⁻⁹; and on an
   even grid they follow from one another: exp(−(d + jΔ)²/2w) = exp(−d²/2w) · exp(−dΔ/w)^j · exp(−j²Δ²/2w).
2. Traces are never decayed. e = s·ê with one scale s ← γλs, so only the active entries change; and weights are not
   moved where nothing looks: with C = Σ_t α δ_t s_t, w = v + ê·C, so one number C moves all weights at once.
3. Runs share nothing. Each has its own random streams, so threads cannot change a result.

Flow     `Setup` (one condition), seeds → returns of every episode of every run
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rein.compiled import compiled

WINDOW = 16  # Gaussians per dimension that are not negligible, on a grid of more than that
NEGLIGIBLE = 1e-10  # products of Gaussians below it are left out
RESCALE = 1e-4  # of the scale of the traces: what is below is put into the weights
MOUNTAIN_CAR, CART_POLE = 0, 1
NO_H, LINEAR_H, RULE_H = 0, 1, 2
TECHNIQUE_NUMBERS = {
    "tamer": -1, "sarsa": 0, "reward-shaping": 1, "feature-augmentation": 2, "q-initialisation": 3, "q-augmentation": 4,
    "extra-action": 5, "action-biasing": 6, "control-sharing": 7, "potential-shaping": 8,
}  # fmt: skip

_fast = compiled(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


class Setup(NamedTuple):
    """One condition of an experiment. Grids are (n, rel_width, norm_low, bias) over the task's bounds."""

    task: int
    technique: int
    episodes: int
    max_steps: int
    start_low: float  # Mountain Car: of the position
    start_high: float
    goal_reward: float  # Mountain Car: of the step that reaches the goal
    noise: float  # Cart Pole: of the force, as a share of 10 N
    fall_reward: float  # Cart Pole: of the step in which the pole falls
    start_spread: float  # Cart Pole: 0.5 for the papers' starts, 0.05 for Gymnasium's (all four numbers alike)
    q_n: int
    q_rel_width: float
    q_norm_low: float
    h_n: int
    h_rel_width: float
    h_norm_low: float
    bias: float
    alpha: float
    lambda_: float
    gamma: float
    epsilon: float
    epsilon_decay: float
    initial_weight: float
    h_kind: int
    h_weight: float
    h_weight_decay: float  # per episode, where the weight is annealed
    eligibility: bool  # simultaneous: the weight follows the traces, h_weight is c_s
    state_only: bool
    growth: float
    step_decay: float
    episode_decay: float
    train_from: int  # episodes that are taught: [train_from, train_until)
    train_until: int
    h_learning_rate: float
    step_s: float
    pause_s: float
    credit_low_s: float
    credit_high_s: float
    frequency: float
    error: float
    positivity: float
    delay_low_s: float
    delay_high_s: float
    cap_ends: bool  # an episode that is cut off ends for learning, too: no value beyond


# --------------------------------------------------------------------------------------------- random numbers


@_fast
def mix(x: np.uint64) -> np.uint64:
    """SplitMix64's finaliser. Source: Steele, Lea & Flood 2014."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@_fast
def draw(streams: NDArray[np.uint64], which: int) -> float:
    """A uniform number in [0, 1) from one of a run's streams."""
    streams[which] += np.uint64(0x9E3779B97F4A7C15)
    return float(mix(streams[which]) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


def streams_of(seed: int, run: int) -> NDArray[np.uint64]:
    """A run's three streams: world, agent, trainer. Conditions of one seed and run see the same numbers."""
    with np.errstate(over="ignore"):
        base = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(run)
        return np.array([mix(mix(base) + np.uint64(stream)) for stream in range(3)], dtype=np.uint64)


# --------------------------------------------------------------------------------------------------- features


@_fast
def gaussians(x: float, n: int, spacing: float, norm_low: float, width: float, out: NDArray[np.float64]) -> int:
    """The Gaussians of one dimension near x (normalised); returns the index of the first of them."""
    m = min(n - 1, max(0, int(np.floor((x - norm_low) / spacing + 0.5))))
    count = min(n, WINDOW)
    first = min(max(0, m - WINDOW // 2 + 1), n - count)
    far = x - (norm_low + m * spacing)
    if abs(far) > spacing:  # outside the grid: no short cut
        for j in range(count):
            d = x - (norm_low + (first + j) * spacing)
            out[j] = np.exp(-0.5 * d * d / width)
        return first
    top = np.exp(-0.5 * far * far / width)
    up = np.exp(far * spacing / width)
    q = np.exp(-0.5 * spacing * spacing / width)
    value, ratio = top, up * q
    for j in range(m - first, count):
        out[j] = value
        value *= ratio
        ratio *= q * q
    value, ratio = top, q / up
    for j in range(m - first - 1, -1, -1):
        value *= ratio
        ratio *= q * q
        out[j] = value
    return first


@_fast
def look(
    state: NDArray[np.float64], task: int, n: int, rel_width: float, norm_low: float,
    scratch: NDArray[np.float64], outer: NDArray[np.float64], places: NDArray[np.int64], inner: NDArray[np.float64],
) -> int:  # fmt: skip
    """φ as an outer product: rows of weight `outer[i]` that begin at `places[i]`, each times `inner`; how many rows."""
    spacing = (1.0 - norm_low) / (n - 1)
    width = (1.0 - norm_low) * rel_width / (n - 1)
    span = 1.0 - norm_low
    if task == MOUNTAIN_CAR:
        a = gaussians(norm_low + (state[0] + 1.2) / 1.8 * span, n, spacing, norm_low, width, scratch[0])
        b = gaussians(norm_low + (state[1] + 0.07) / 0.14 * span, n, spacing, norm_low, width, inner)
        rows = min(n, WINDOW)
        for i in range(rows):
            outer[i] = scratch[0, i]
            places[i] = (a + i) * n + b
        return rows
    twelve = 0.20943951023931953
    gaussians(norm_low + (state[0] + 2.4) / 4.8 * span, n, spacing, norm_low, width, scratch[0])
    gaussians(norm_low + (state[1] + 6.0) / 12.0 * span, n, spacing, norm_low, width, scratch[1])
    gaussians(norm_low + (state[2] + twelve) / (2 * twelve) * span, n, spacing, norm_low, width, scratch[2])
    gaussians(norm_low + (state[3] + 6.0) / 12.0 * span, n, spacing, norm_low, width, scratch[3])
    for k in range(n):
        for m in range(n):
            inner[k * n + m] = scratch[2, k] * scratch[3, m]
    rows = 0
    for i in range(n):
        for j in range(n):
            value = scratch[0, i] * scratch[1, j]
            if value > NEGLIGIBLE:
                outer[rows] = value
                places[rows] = (i * n + j) * n * n
                rows += 1
    return rows


@_fast
def dot(
    weights: NDArray[np.float64], outer: NDArray[np.float64], places: NDArray[np.int64], rows: int,
    inner: NDArray[np.float64], columns: int, acc: NDArray[np.float64],
) -> float:  # fmt: skip
    """Σ_i outer_i Σ_j inner_j · weights[places_i + j]."""
    for j in range(columns):
        acc[j] = 0.0
    for i in range(rows):
        g, at = outer[i], places[i]
        row = weights[at : at + columns]
        for j in range(columns):
            acc[j] += g * row[j]
    total = 0.0
    for j in range(columns):
        total += acc[j] * inner[j]
    return total


@_fast
def dot_lazy(
    v: NDArray[np.float64], e: NDArray[np.float64], c: float, outer: NDArray[np.float64], places: NDArray[np.int64],
    rows: int, inner: NDArray[np.float64], columns: int, acc: NDArray[np.float64],
) -> float:  # fmt: skip
    """The same of weights v + e·c."""
    for j in range(columns):
        acc[j] = 0.0
    for i in range(rows):
        g, at = outer[i], places[i]
        row, trace = v[at : at + columns], e[at : at + columns]
        for j in range(columns):
            acc[j] += g * (row[j] + c * trace[j])
    total = 0.0
    for j in range(columns):
        total += acc[j] * inner[j]
    return total


# ------------------------------------------------------------------------------------------------ small pieces


@_fast
def pick(values: NDArray[np.float64], count: int, last: int, streams: NDArray[np.uint64]) -> int:
    """The highest value; of equal ones the last action, else one at random (`sarsa.greedy`)."""
    best = values[0]
    for i in range(1, count):
        best = max(best, values[i])
    ties = 0
    only = 0
    for i in range(count):
        if values[i] == best:
            ties += 1
            only = i
    if ties == 1:
        return only
    if 0 <= last < count and values[last] == best:
        return last
    chosen = int(draw(streams, 1) * ties)
    for i in range(count):
        if values[i] == best:
            if chosen == 0:
                return i
            chosen -= 1
    return only


@_fast
def rule_of(task: int, state: NDArray[np.float64]) -> int:
    """A good action (`environments.energy_pump`, `environments.balance`)."""
    if task == MOUNTAIN_CAR:
        return 2 if state[1] > 0 else 0
    return 1 if state[2] + 0.2 * state[3] + 0.02 * state[0] + 0.04 * state[1] > 0 else 0


@_fast
def begin(setup: Setup, state: NDArray[np.float64], streams: NDArray[np.uint64]) -> None:
    """A start state."""
    if setup.task == MOUNTAIN_CAR:
        state[0] = setup.start_low + (setup.start_high - setup.start_low) * draw(streams, 0)
        state[1] = 0.0
        return
    for i in range(4):
        state[i] = setup.start_spread * (2.0 * draw(streams, 0) - 1.0)
    if setup.start_spread == 0.5:
        state[2] /= 8.0
        state[3] /= 8.0


@_fast
def act(setup: Setup, state: NDArray[np.float64], action: int, streams: NDArray[np.uint64]) -> tuple[float, bool]:
    """One step of the world, in place: reward, terminated."""
    if setup.task == MOUNTAIN_CAR:
        velocity = state[1] + (0.001 * (action - 1) - 0.0025 * np.cos(3 * state[0]))
        velocity = min(0.07, max(-0.07, velocity))
        position = min(0.6, max(-1.2, state[0] + velocity))
        if position <= -1.2 and velocity < 0:
            velocity = 0.0
        state[0], state[1] = position, velocity
        there = position >= 0.5
        return (setup.goal_reward if there else -1.0), there
    force = 10.0 if action > 0 else -10.0
    if setup.noise > 0:
        force += 2 * setup.noise * 10.0 * (draw(streams, 0) - 0.5)
    x, x_dot, theta, theta_dot = state[0], state[1], state[2], state[3]
    cos, sin = np.cos(theta), np.sin(theta)
    pushed = (force + 0.05 * theta_dot * theta_dot * sin) / 1.1
    theta_acc = (9.8 * sin - cos * pushed) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
    x_acc = pushed - 0.05 * theta_acc * cos / 1.1
    state[0], state[1] = x + 0.02 * x_dot, x_dot + 0.02 * x_acc
    state[2], state[3] = theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc
    fallen = abs(state[0]) > 2.4 or abs(state[2]) > 0.20943951023931953
    return (setup.fall_reward if fallen else 1.0), fallen


@_fast
def cdf_integral(setup: Setup, delay: float) -> float:
    """∫ cdf of the uniform delay (`credit.Uniform.cdf_integral`)."""
    width = setup.credit_high_s - setup.credit_low_s
    inside = min(width, max(0.0, delay - setup.credit_low_s))
    return inside * inside / (2 * width) + max(0.0, delay - setup.credit_high_s)


@_fast
def cdf(setup: Setup, delay: float) -> float:
    """The uniform delay's distribution (`credit.Uniform.cdf`)."""
    return min(1.0, max(0.0, (delay - setup.credit_low_s) / (setup.credit_high_s - setup.credit_low_s)))


# ----------------------------------------------------------------------------------------------------- one run


@_fast
def run_one(
    setup: Setup, streams: NDArray[np.uint64], h_weights: NDArray[np.float64], returns: NDArray[np.float64],
    steps_of: NDArray[np.int64], weight_of: NDArray[np.float64], q_out: NDArray[np.float64],
    h_out: NDArray[np.float64], trace_out: NDArray[np.float64],
) -> None:  # fmt: skip
    """All episodes of one run. Fills returns, steps and mean h_weight of each episode, and what was learned in the end.

    Shapes   h_weights (A, F_h): a fixed Ĥ, or where a trainer teaches, its start; returns, steps_of, weight_of
             (episodes,);
             q_out (A or A + 1, F_q), h_out (A, F_h), trace_out (A or 1, F_h).
    """
    n_actions = 3 if setup.task == MOUNTAIN_CAR else 2
    technique = setup.technique
    tamer_only = technique == -1
    rows_q = n_actions + (1 if technique == 5 else 0)
    dims = 2 if setup.task == MOUNTAIN_CAR else 4
    nq, nh = setup.q_n, setup.h_n
    fq, fh = nq**dims, nh**dims
    cq = min(nq, WINDOW) if dims == 2 else nq * nq
    ch = min(nh, WINDOW) if dims == 2 else nh * nh
    most_rows = max(WINDOW, max(nq, nh) ** 2)
    bias = setup.bias
    trains = setup.train_until > setup.train_from
    listens = trains and setup.h_kind == LINEAR_H
    uses_h = technique != 0
    looks_back = listens and (technique == 1 or technique == 2 or technique == 4 or technique == 8)
    decay = setup.gamma * setup.lambda_

    state, after = np.zeros(4), np.zeros(4)
    scratch = np.zeros((4, WINDOW))
    acc = np.zeros(max(cq, ch))
    outer, places, inner = np.zeros(most_rows), np.zeros(most_rows, np.int64), np.zeros(cq)
    outer2, places2, inner2 = np.zeros(most_rows), np.zeros(most_rows, np.int64), np.zeros(cq)
    houter, hplaces, hinner = np.zeros(most_rows), np.zeros(most_rows, np.int64), np.zeros(ch)
    bouter, bplaces, binner = np.zeros(most_rows), np.zeros(most_rows, np.int64), np.zeros(ch)  # of the step before
    rows = rows2 = hrows = brows = 0

    v, e = np.full((rows_q, fq), setup.initial_weight), np.zeros((rows_q, fq))
    bias_w, bias_e = np.full(rows_q, setup.initial_weight), np.zeros(rows_q)
    c, scale = 0.0, 1.0
    if technique == 3:  # the grids are the same: checked by the caller
        for a in range(n_actions):
            for i in range(fq):
                v[a, i] += setup.h_weight * h_weights[a, i]
            bias_w[a] += setup.h_weight * h_weights[a, fh]
    aug_w = aug_e = 0.0

    # Ĥ: complete weights and working ones; the last column is the constant's.
    hc, hw = h_weights.copy(), h_weights.copy()
    h, h2 = np.zeros(n_actions), np.zeros(n_actions)
    q2 = np.zeros(rows_q)
    values = np.zeros(rows_q)
    weight, weight2 = np.zeros(n_actions), np.zeros(n_actions)
    annealed = setup.h_weight

    n_traces = 1 if setup.state_only else n_actions
    tr, tr_scale = np.zeros((n_traces, fh if setup.eligibility else 1)), 1.0

    # Steps that can still be credited, oldest first, in a ring; presses that are under way.
    size = int((setup.credit_high_s + setup.pause_s) / setup.step_s) + 8
    ring_start, ring_end, ring_reward, ring_used = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    ring_action, ring_rows = np.zeros(size, np.int64), np.zeros(size, np.int64)
    ring_met, ring_out = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    ring_stone = np.zeros(size, np.bool_)
    ring_outer, ring_places = np.zeros((size, most_rows)), np.zeros((size, most_rows), np.int64)
    ring_inner = np.zeros((size, ch))
    first = count = 0
    touched = np.zeros(size, np.int64)  # ring places that the working weights have seen as temporary samples
    n_touched = 0
    flying_t, flying_v = np.zeros(size * 2), np.zeros(size * 2)
    n_flying = 0

    now = 0.0
    training = False
    last = -1
    for episode in range(setup.episodes):
        begin(setup, state, streams)
        epsilon = setup.epsilon * setup.epsilon_decay**episode
        # traces start anew: what they hold goes into the weights
        for a in range(rows_q):
            for i in range(fq):
                v[a, i] += c * e[a, i]
                e[a, i] = 0.0
            bias_w[a] += c * bias_e[a]
            bias_e[a] = 0.0
        c, scale = 0.0, 1.0
        aug_e = 0.0
        total, steps, weight_sum = 0.0, 0, 0.0
        choice, reward, terminated, truncated = 0, 0.0, False, False
        fresh = True
        while True:
            # ---------------------------------------------------------------- TAMER: end, collect, learn
            if listens and not terminated and not truncated:
                taught = setup.train_from <= episode < setup.train_until
                if fresh and taught != training:
                    if training:  # off: what is half credited is thrown out
                        for b in range(count):
                            p = (first + b) % size
                            end = min(ring_end[p], now)
                            long = end - ring_start[p]
                            used = 0.0
                            if long > 0:
                                past = cdf_integral(setup, now - ring_start[p]) - cdf_integral(setup, now - end)
                                used = min(1.0, max(0.0, past / long))
                            if used >= 0.9:
                                ring_stone[p], ring_used[p] = True, used
                            elif used > 0:
                                ring_out[p] = True
                    training = taught
                if count > 0 and ring_end[(first + count - 1) % size] > now:
                    ring_end[(first + count - 1) % size] = now
                if setup.eligibility:
                    tr_scale *= setup.step_decay
                for k in range(n_touched):  # forget the temporary samples
                    p = touched[k]
                    a = ring_action[p]
                    for i in range(ring_rows[p]):
                        at = ring_places[p, i]
                        for j in range(ch):
                            hw[a, at + j] = hc[a, at + j]
                    hw[a, fh] = hc[a, fh]
                n_touched = 0
                kept = 0
                for b in range(count):
                    p = (first + b) % size
                    before = ring_used[p]
                    done = ring_stone[p]
                    if not done:
                        long = ring_end[p] - ring_start[p]
                        if long > 0:
                            past = cdf_integral(setup, now - ring_start[p]) - cdf_integral(setup, now - ring_end[p])
                            ring_used[p] = max(before, min(1.0, max(0.0, past / long)))
                        else:
                            ring_used[p] = 1.0
                        done = ring_used[p] >= 0.99999
                    if not training and not ring_met[p] and ring_used[p] > 0:
                        ring_out[p] = True
                    ring_met[p] = ring_met[p] or ring_used[p] > 0
                    if not ring_out[p]:
                        a = ring_action[p]
                        new = ring_used[p] - before
                        if setup.eligibility and training and new > 0:
                            t = 0 if setup.state_only else a
                            most, gain = 1.0 / tr_scale, new * setup.growth / tr_scale
                            for i in range(ring_rows[p]):
                                at, g = ring_places[p, i], gain * ring_outer[p, i]
                                for j in range(ch):
                                    tr[t, at + j] = min(most, tr[t, at + j] + g * ring_inner[p, j])
                        if done:
                            predicted = dot(hc[a], ring_outer[p], ring_places[p], ring_rows[p], ring_inner[p], ch, acc)
                            predicted += bias * hc[a, fh]
                            used = ring_used[p]
                            step = setup.h_learning_rate * (ring_reward[p] / used - predicted)
                            for i in range(ring_rows[p]):
                                at, g = ring_places[p, i], step * ring_outer[p, i]
                                for j in range(ch):
                                    hc[a, at + j] += g * ring_inner[p, j]
                                    hw[a, at + j] = hc[a, at + j]
                            hc[a, fh] += step * bias
                            hw[a, fh] = hc[a, fh]
                    if done or ring_out[p]:
                        # only the oldest can be done: steps end in order
                        kept += 1
                first = (first + kept) % size
                count -= kept
                for b in range(count):
                    p = (first + b) % size
                    if ring_used[p] > 0.5:
                        a = ring_action[p]
                        predicted = dot(hw[a], ring_outer[p], ring_places[p], ring_rows[p], ring_inner[p], ch, acc)
                        predicted += bias * hw[a, fh]
                        step = setup.h_learning_rate * (ring_reward[p] / ring_used[p] - predicted)
                        for i in range(ring_rows[p]):
                            at, g = ring_places[p, i], step * ring_outer[p, i]
                            for j in range(ch):
                                hw[a, at + j] += g * ring_inner[p, j]
                        hw[a, fh] += step * bias
                        touched[n_touched] = p
                        n_touched += 1
            elif setup.eligibility and not terminated and not truncated:
                tr_scale *= setup.step_decay
            if setup.eligibility and tr_scale < 1e-200:
                tr *= tr_scale
                tr_scale = 1.0

            # ------------------------------------------------------------------- look, and choose
            here = after if not fresh else state
            if not terminated:
                if not tamer_only:
                    rows2 = look(
                        here, setup.task, nq, setup.q_rel_width, setup.q_norm_low, scratch, outer2, places2, inner2
                    )
                    for a in range(rows_q):
                        q2[a] = dot_lazy(v[a], e[a], c, outer2, places2, rows2, inner2, cq, acc)
                        q2[a] += bias * (bias_w[a] + c * bias_e[a])
                if uses_h:
                    if setup.h_kind == RULE_H:
                        good = rule_of(setup.task, here)
                        for a in range(n_actions):
                            h2[a] = 1.0 if a == good else -1.0
                    else:
                        hrows = look(
                            here, setup.task, nh, setup.h_rel_width, setup.h_norm_low, scratch, houter, hplaces, hinner
                        )
                        for a in range(n_actions):
                            h2[a] = dot(hw[a], houter, hplaces, hrows, hinner, ch, acc) + bias * hw[a, fh]
                    if setup.eligibility:
                        if setup.h_kind == RULE_H:
                            hrows = look(
                                here,
                                setup.task,
                                nh,
                                setup.h_rel_width,
                                setup.h_norm_low,
                                scratch,
                                houter,
                                hplaces,
                                hinner,
                            )
                        left, right = 0.0, 0.0
                        for i in range(hrows):
                            left += houter[i]
                        for j in range(ch):
                            right += hinner[j]
                        norm = left * right
                        for a in range(n_actions):
                            part = dot(tr[0 if setup.state_only else a], houter, hplaces, hrows, hinner, ch, acc)
                            weight2[a] = setup.h_weight * min(1.0, part * tr_scale / norm) if norm > 0 else 0.0
                    else:
                        for a in range(n_actions):
                            weight2[a] = annealed
                    if technique == 2:
                        for a in range(n_actions):
                            q2[a] += aug_w * weight2[a] * h2[a]
                if tamer_only:
                    choice2 = pick(h2, n_actions, last, streams)
                else:
                    for a in range(rows_q):
                        values[a] = q2[a]
                        if (technique == 6 or technique == 4) and a < n_actions:
                            values[a] += weight2[a] * h2[a]
                    if epsilon > 0 and draw(streams, 1) < epsilon:
                        choice2 = int(draw(streams, 1) * rows_q)
                    else:
                        choice2 = pick(values, rows_q, last, streams)
                    if technique == 7 and weight2[0] > 0 and draw(streams, 1) < min(weight2[0], 1.0):
                        choice2 = pick(h2, n_actions, last, streams)
                action = choice2
                if choice2 == n_actions and not truncated:
                    action = pick(h2, n_actions, last, streams)
            else:
                choice2, action = 0, 0
            if not terminated and not truncated:
                last = action
                weight_sum += weight2[action]
                if listens:
                    p = (first + count) % size
                    count += 1
                    ring_start[p], ring_end[p], ring_reward[p], ring_used[p] = now, np.inf, 0.0, 0.0
                    ring_action[p], ring_rows[p] = action, hrows
                    ring_met[p], ring_out[p], ring_stone[p] = False, False, False
                    for i in range(hrows):
                        ring_outer[p, i], ring_places[p, i] = houter[i], hplaces[i]
                    for j in range(ch):
                        ring_inner[p, j] = hinner[j]

            # ------------------------------------------------------------- SARSA learns of the step before
            if not fresh and not tamer_only:
                if looks_back:  # the trainer may have spoken since
                    for a in range(n_actions):
                        h[a] = dot(hw[a], bouter, bplaces, brows, binner, ch, acc) + bias * hw[a, fh]
                        if setup.eligibility:
                            left, right = 0.0, 0.0
                            for i in range(brows):
                                left += bouter[i]
                            for j in range(ch):
                                right += binner[j]
                            norm = left * right
                            part = dot(tr[0 if setup.state_only else a], bouter, bplaces, brows, binner, ch, acc)
                            weight[a] = setup.h_weight * min(1.0, part * tr_scale / norm) if norm > 0 else 0.0
                h_before, w_before, best_h = 0.0, 0.0, 0.0
                if uses_h:
                    best_h = h[0]
                    for a in range(1, n_actions):
                        best_h = max(best_h, h[a])
                    if choice < n_actions:
                        h_before, w_before = h[choice], weight[choice]
                target = reward
                best_next = 0.0
                if uses_h and not terminated:
                    best_next = h2[0]
                    for a in range(1, n_actions):
                        best_next = max(best_next, h2[a])
                if technique == 1:
                    target += w_before * h_before
                elif technique == 8:
                    target += w_before * (setup.gamma * best_next - best_h)
                predicted = dot_lazy(v[choice], e[choice], c, outer, places, rows, inner, cq, acc)
                predicted += bias * (bias_w[choice] + c * bias_e[choice])
                if technique == 2:
                    predicted += aug_w * w_before * h_before
                if technique == 4:
                    predicted += w_before * h_before
                if not terminated and not (truncated and setup.cap_ends):
                    follows = q2[choice2]
                    if technique == 4:
                        follows += weight2[choice2] * h2[choice2]
                    target += setup.gamma * follows
                delta = target - predicted
                scale *= decay
                if scale < RESCALE:
                    old = scale / decay if decay > 0 else 1.0
                    for a in range(rows_q):
                        for i in range(fq):
                            v[a, i] += c * e[a, i]
                            e[a, i] *= old * decay
                        bias_w[a] += c * bias_e[a]
                        bias_e[a] *= old * decay
                    c, scale = 0.0, 1.0
                upside = 1.0 / scale
                ev, ee = v[choice], e[choice]
                for i in range(rows):
                    at, g = places[i], outer[i] * upside
                    vrow, erow = ev[at : at + cq], ee[at : at + cq]
                    for j in range(cq):
                        raised = max(erow[j], g * inner[j])
                        vrow[j] += c * (erow[j] - raised)
                        erow[j] = raised
                raised = max(bias_e[choice], bias * upside)
                bias_w[choice] += c * (bias_e[choice] - raised)
                bias_e[choice] = raised
                c += setup.alpha * delta * scale
                if technique == 2:
                    aug_e = decay * aug_e + w_before * h_before
                    aug_w += setup.alpha * delta * aug_e
            if terminated or truncated:
                break

            # ---------------------------------------------------------------------------------- the world
            for i in range(4):
                after[i] = here[i]
            if listens and training:
                judged, turned = draw(streams, 2), draw(streams, 2)
                swallowed, when = draw(streams, 2), draw(streams, 2)
                if judged < setup.frequency:
                    said = 1.0 if action == rule_of(setup.task, here) else -1.0
                    if turned < setup.error:
                        said = -said
                    if not (said < 0 and swallowed < setup.positivity):
                        at_t = now + (setup.delay_low_s + when * (setup.delay_high_s - setup.delay_low_s))
                        k = n_flying
                        while k > 0 and flying_t[k - 1] > at_t:
                            flying_t[k], flying_v[k] = flying_t[k - 1], flying_v[k - 1]
                            k -= 1
                        flying_t[k], flying_v[k] = at_t, said
                        n_flying += 1
            for i in range(rows2):
                outer[i], places[i] = outer2[i], places2[i]
            for j in range(cq):
                inner[j] = inner2[j]
            rows = rows2
            if looks_back:
                brows = hrows
                for i in range(hrows):
                    bouter[i], bplaces[i] = houter[i], hplaces[i]
                for j in range(ch):
                    binner[j] = hinner[j]
            for a in range(n_actions):
                h[a], weight[a] = h2[a], weight2[a]
            choice = choice2
            reward, terminated = act(setup, after, action, streams)
            total += reward
            steps += 1
            truncated = steps >= setup.max_steps and not terminated
            fresh = False
            now += setup.step_s
            if terminated or truncated:
                now += setup.pause_s
            if n_flying > 0:
                landed = 0
                while landed < n_flying and flying_t[landed] < now:
                    at_t, said = flying_t[landed], flying_v[landed]
                    landed += 1
                    if not training:
                        continue
                    for b in range(count):
                        p = (first + b) % size
                        if not ring_stone[p]:
                            share = cdf(setup, at_t - ring_start[p]) - cdf(setup, at_t - ring_end[p])
                            ring_reward[p] += said * share
                for k in range(landed, n_flying):
                    flying_t[k - landed], flying_v[k - landed] = flying_t[k], flying_v[k]
                n_flying -= landed
        returns[episode], steps_of[episode] = total, steps
        weight_of[episode] = weight_sum / max(1, steps)
        if setup.eligibility:
            tr_scale *= setup.episode_decay
        else:
            annealed *= setup.h_weight_decay
    for a in range(rows_q):
        for i in range(fq):
            q_out[a, i] = v[a, i] + c * e[a, i]
        q_out[a, fq] = bias_w[a] + c * bias_e[a]
    h_out[:] = hc
    if setup.eligibility:
        trace_out[:, :fh] = tr * tr_scale


# ---------------------------------------------------------------------------------------------------- all runs


class Result(NamedTuple):
    """What the runs of one condition gave.

    Shapes   returns, steps, h_weights (runs, episodes); of the first run: q (rows, F_q), h (A, F_h), traces.
    """

    returns: NDArray[np.float64]
    steps: NDArray[np.int64]
    h_weights: NDArray[np.float64]
    q: NDArray[np.float64]
    h: NDArray[np.float64]
    traces: NDArray[np.float64]


def run(
    setup: Setup, *, seed: int, runs: Sequence[int], h_weights: NDArray[np.float64] | None = None, threads: int = 0
) -> Result:
    """Runs of one condition, on every core; the result does not depend on how many.

    Shapes   h_weights (A, n^d + 1), the constant's last; None: Ĥ starts at 0.
    """
    n_actions, dims = (3, 2) if setup.task == MOUNTAIN_CAR else (2, 4)
    fq, fh = setup.q_n**dims + 1, setup.h_n**dims + 1
    start = np.zeros((n_actions, fh)) if h_weights is None else np.ascontiguousarray(h_weights, dtype=np.float64)
    assert start.shape == (n_actions, fh), f"Ĥ has weights {start.shape}, but the grid needs {(n_actions, fh)}"
    assert setup.technique != 3 or fq == fh, "Q initialisation needs Q and Ĥ on one grid"
    shape = (len(runs), setup.episodes)
    returns, steps, weights = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape)
    q = np.zeros((len(runs), n_actions + (setup.technique == 5), fq))
    h = np.zeros((len(runs), n_actions, fh))
    traces = np.zeros((len(runs), 1 if setup.state_only else n_actions, fh))

    def one(i: int) -> None:
        run_one(setup, streams_of(seed, runs[i]), start, returns[i], steps[i], weights[i], q[i], h[i], traces[i])

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        list(pool.map(one, range(len(runs))))
    return Result(returns, steps, weights, q[0], h[0], traces[0])


def setup_of(**changes: Any) -> Setup:
    """The papers' Mountain Car with pessimistic SARSA, and `changes`."""
    base = Setup(
        task=MOUNTAIN_CAR, technique=0, episodes=500, max_steps=500, start_low=-0.7, start_high=-0.3, goal_reward=0.0,
        noise=1.0, fall_reward=-1.0, start_spread=0.5, q_n=40, q_rel_width=0.08, q_norm_low=-1.0, h_n=40,
        h_rel_width=0.08, h_norm_low=-1.0, bias=0.1, alpha=0.15, lambda_=0.84, gamma=1.0, epsilon=0.00625,
        epsilon_decay=0.99, initial_weight=-10.0, h_kind=NO_H, h_weight=0.0, h_weight_decay=0.98, eligibility=False,
        state_only=False, growth=0.2, step_decay=0.9998, episode_decay=1.0, train_from=0, train_until=0,
        h_learning_rate=0.05, step_s=0.2, pause_s=1.0, credit_low_s=0.2, credit_high_s=0.8, frequency=0.5, error=0.0,
        positivity=0.0, delay_low_s=0.25, delay_high_s=0.7, cap_ends=True,
    )  # fmt: skip
    return base._replace(**changes)
