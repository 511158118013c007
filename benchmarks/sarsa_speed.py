"""SARSA(λ) on Mountain Car with 40 × 40 Gaussians × 3 actions: Rein's engine against a plain loop of NumPy, one run.

    python benchmarks/sarsa_speed.py [--seconds 10] [--rounds 3] [--runs 32]

Work      Knox & Stone's pessimistic SARSA(λ): replacing traces, ε-greedy, three actions' weights of 1,601 features, 300
          episodes a run. The world is Gymnasium's MountainCar-v0: starts in U[−0.6, −0.4], −1 for every step, 200 steps
          at most; an episode that is cut off still has a value beyond.
Rein      `rein.agents.engine`, runs on threads; and the agent that people teach, `TamerRL`, step by step.
Peer      `plain_loop` below: what one writes with NumPy and `gymnasium.make`; alone, and a process for each core.
Time      the candidates take turns, `--seconds` each, whole episodes; each one's median of `--rounds` counts. "busy" is
          how many cores a candidate really got: below what it was given, something else was running.
Learning  the mean return of the last 50 of 300 episodes, of `--runs` runs each; the benchmark fails where the two
          means are further apart than four standard errors of their difference.
"""

import argparse
import importlib.metadata
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np

from rein.agents import engine
from rein.agents.features import RBF
from rein.agents.sarsa import SarsaSettings
from rein.agents.tamer_rl import TamerRL

N, REL_WIDTH, BIAS = 40, 0.08, 0.1  # Gaussians per dimension, of the state scaled to [−1, 1]; a constant feature
ALPHA, LAMBDA, GAMMA, EPSILON, EPSILON_DECAY, INITIAL = 0.15, 0.84, 1.0, 0.00625, 0.99, -10.0
EPISODES, LAST = 300, 50
RUNS_PER_CORE = 8  # in one call of the engine: enough for no thread to wait long for the last
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # in each process


class Speed(NamedTuple):
    """One measurement: steps a second, and seconds of processor time a second."""

    steps: float
    busy: float


class Candidate(NamedTuple):
    """What takes turns; `measure` is called with the number of the round."""

    name: str
    cores: int
    measure: Callable[[int], Speed]


# ------------------------------------------------------------------------------------------------------- the peer


def plain_loop(seed: int) -> Iterator[float]:
    """SARSA(λ) as one writes it with NumPy and Gymnasium; yields the return of each of 300 episodes."""
    env, random = gymnasium.make("MountainCar-v0"), np.random.default_rng([seed, 1])
    low, scale = np.array([-1.2, -0.07]), 2 / np.array([1.8, 0.14])
    centres, width = np.linspace(-1, 1, N), 2 * REL_WIDTH / (N - 1)
    weights = np.full((3, N * N + 1), INITIAL)
    traces, change = np.zeros_like(weights), np.zeros_like(weights)

    def features(observation: np.ndarray) -> np.ndarray:
        scaled = (observation - low) * scale - 1
        by_position, by_velocity = np.exp((scaled[:, None] - centres) ** 2 * (-0.5 / width))
        phi = np.empty(N * N + 1)
        np.outer(by_position, by_velocity, out=phi[:-1].reshape(N, N))
        phi[-1] = BIAS
        return phi

    def look(observation: np.ndarray) -> tuple[np.ndarray, list[float]]:
        phi = features(observation)
        return phi, [float(row @ phi) for row in weights]  # `weights @ phi` rounds rows differently: ties would vanish

    def choose(values: list[float], last: int) -> int:
        if random.random() < epsilon:
            return int(random.integers(3))
        highest = max(values)
        best = [action for action in range(3) if values[action] == highest]
        return last if last in best else best[int(random.integers(len(best)))]

    action = -1
    for episode in range(EPISODES):
        epsilon = EPSILON * EPSILON_DECAY**episode
        traces[:] = 0
        observation, _ = env.reset(seed=None if episode else seed)
        phi, values = look(observation)
        action, total = choose(values, action), 0.0
        while True:
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            delta = reward - weights[action] @ phi
            if not terminated:
                next_phi, values = look(observation)
                next_action = choose(values, action)
                delta += GAMMA * values[next_action]
            traces *= GAMMA * LAMBDA
            np.maximum(traces[action], phi, out=traces[action])
            np.multiply(traces, ALPHA * delta, out=change)
            weights += change
            if terminated or truncated:
                break
            phi, action = next_phi, next_action
        yield total


# ------------------------------------------------------------------------------------------------------------ ours


def setup() -> engine.Setup:
    """The same for the engine."""
    return engine.setup_of(
        episodes=EPISODES, max_steps=200, start_low=-0.6, start_high=-0.4, goal_reward=-1.0, q_n=N,
        q_rel_width=REL_WIDTH, q_norm_low=-1.0, bias=BIAS, alpha=ALPHA, lambda_=LAMBDA, gamma=GAMMA, epsilon=EPSILON,
        epsilon_decay=EPSILON_DECAY, initial_weight=INITIAL, cap_ends=False,
    )  # fmt: skip


def plain_agent(seed: int) -> Iterator[float]:
    """The same with the agent that people teach, when nobody does."""
    env, random = gymnasium.make("MountainCar-v0"), np.random.default_rng([seed, 1])
    settings = SarsaSettings(ALPHA, LAMBDA, GAMMA, EPSILON, EPSILON_DECAY, initial_weight=INITIAL)
    grid = RBF([-1.2, -0.07], [0.6, 0.07], n=N, rel_width=REL_WIDTH, norm_low=-1.0, bias=BIAS)
    agent = TamerRL("sarsa", 3, grid, settings, random)
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=None if episode else seed)
        reward, total, ended, terminated, step = None, 0.0, False, False, 0
        while not ended:
            decision = agent.begin_step(step, observation, 0.2 * step, reward=reward)
            observation, reward, terminated, truncated, _ = env.step(decision.action)
            total, ended, step = total + reward, terminated or truncated, step + 1
        agent.end_episode(reward, observation, terminated=terminated)
        yield total


# ------------------------------------------------------------------------------------------------------- measuring


def measured(work: Callable[[], int], seconds: float) -> Speed:
    """Calls `work`, which returns the steps it did, until the time is up; processor time is this process's."""
    steps, cpu_s, began = 0, time.process_time(), time.perf_counter()
    while (took_s := time.perf_counter() - began) < seconds:
        steps += work()
    return Speed(steps / took_s, (time.process_time() - cpu_s) / took_s)


def engine_speed(seconds: float, seed: int, threads: int) -> Speed:
    """The engine on some threads of this process, one call after the other."""
    batches = iter(range(10**9))

    def work() -> int:
        first = next(batches) * RUNS_PER_CORE * threads
        runs = range(first, first + RUNS_PER_CORE * threads)
        return int(engine.run(setup(), seed=seed, runs=runs, threads=threads).steps.sum())

    return measured(work, seconds)


def loop_speed(loop: Callable[[int], Iterator[float]], seconds: float, barrier, seed: int) -> Speed:
    """One process of a plain loop, one learning run after the other; `barrier` is where they wait for each other."""
    returns = (total for run in range(10**9) for total in loop(1000 * seed + run))
    next(returns)
    if barrier is not None:
        barrier.wait(timeout=60)
    return measured(lambda: -int(next(returns)), seconds)  # every step costs 1


def all_returns(loop: Callable[[int], Iterator[float]], seed: int) -> list[float]:
    """The returns of one run."""
    return list(loop(seed))


def learned(returns: np.ndarray) -> tuple[float, float]:
    """Mean return of the last episodes, and its standard error over runs.

    Shapes   returns (runs, episodes)
    """
    of_runs = returns[:, -LAST:].mean(axis=1)
    return float(of_runs.mean()), float(of_runs.std(ddof=1)) / math.sqrt(len(of_runs))


def machine() -> str:
    """Processor and system."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {platform.system()}"


# ------------------------------------------------------------------------------------------------------ the tables


def main() -> int:
    """Measures what the flags ask for; 1 where the two do not learn the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default: 3)")
    parser.add_argument("--runs", type=int, default=32, help="learning runs to compare, 2 at least (default: 32)")
    args = parser.parse_args()
    if args.seconds <= 0 or args.rounds < 1 or args.runs < 2:
        parser.error("--seconds must be above 0, --rounds 1 or more, --runs 2 or more")

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "numba", "gymnasium"))
    print(f"{machine()}, {cores} cores; load before the start {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, {versions}", flush=True)
    os.environ |= ONE_THREAD
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(cores, mp_context=spawn) as pool:
        speed(args, cores, pool, manager.Barrier(cores))
        same = learning(args, cores, pool)
    if not same:
        print("FAILED: they do not learn the same")
    return 0 if same else 1


def speed(args: argparse.Namespace, cores: int, pool: ProcessPoolExecutor, barrier) -> None:
    """Steps a second of the engine and its peer, then of the plain agent."""

    def together(seed: int) -> Speed:
        work = partial(loop_speed, plain_loop, args.seconds, barrier)
        found = list(pool.map(work, range(seed * cores, (seed + 1) * cores)))  # the barrier gives each process one
        return Speed(sum(one.steps for one in found), sum(one.busy for one in found))

    def alone(loop: Callable[[int], Iterator[float]], seed: int) -> Speed:
        return pool.submit(loop_speed, loop, args.seconds, None, seed).result()

    candidates = [
        Candidate("rein, engine, all cores by threads", cores, lambda seed: engine_speed(args.seconds, seed, cores)),
        Candidate("NumPy loop, a process for each core", cores, together),
        Candidate("rein, engine, one thread", 1, lambda seed: engine_speed(args.seconds, seed, 1)),
        Candidate("NumPy loop, one process", 1, partial(alone, plain_loop)),
        Candidate("rein, TamerRL, one process", 1, partial(alone, plain_agent)),
    ]
    engine.run(setup()._replace(episodes=1), seed=0, runs=[0])  # compiles, where it was not yet
    list(pool.map(partial(loop_speed, plain_loop, 0.1, barrier), range(cores)))  # every process has imported all
    rounds = [[candidate.measure(seed) for candidate in candidates] for seed in range(args.rounds)]
    speeds = list(zip(*rounds, strict=True))
    table("The engine and the plain loop", candidates[:4], speeds[:4])
    engine_all, peer_all, engine_one, peer_one, agent = (
        statistics.median(one.steps for one in found) for found in speeds
    )
    print(f"{f'engine / loop, {cores} cores each':<40}{engine_all / peer_all:>26.1f}x")
    print(f"{'engine / loop, 1 core each':<40}{engine_one / peer_one:>26.1f}x")
    print(f"{f'engine on {cores} cores / loop on 1':<40}{engine_all / peer_one:>26.1f}x")
    table("The agent that people teach", candidates[4:], speeds[4:])
    print(f"{'TamerRL / loop, 1 core each':<40}{agent / peer_one:>26.2f}x")


def table(title: str, candidates: list[Candidate], speeds: list[tuple[Speed, ...]]) -> None:
    """Prints the medians of some candidates, and how far their rounds are apart."""
    print(f"\n{title:<40}{'cores':>6}{'busy':>7}{'steps/s':>13}{'lowest':>12}{'highest':>12}")
    for candidate, found in zip(candidates, speeds, strict=True):
        busy, steps = statistics.median(one.busy for one in found), [one.steps for one in found]
        numbers = f"{statistics.median(steps):>13,.0f}{min(steps):>12,.0f}{max(steps):>12,.0f}"
        print(f"{candidate.name:<40}{candidate.cores:>6}{busy:>7.2f}{numbers}")


def learning(args: argparse.Namespace, cores: int, pool: ProcessPoolExecutor) -> bool:
    """What each has learned in the end, with standard errors over runs; whether that is the same."""
    title = f"Return of the last {LAST} of {EPISODES} episodes"
    print(f"\n{title:<40}{'runs':>6}{'':>7}{'mean':>13}{'std. error':>12}", flush=True)
    ours = learned(engine.run(setup(), seed=0, runs=range(args.runs), threads=cores).returns)
    theirs = learned(np.array(list(pool.map(partial(all_returns, plain_loop), range(args.runs)))))
    difference = ours[0] - theirs[0], math.hypot(ours[1], theirs[1])
    for name, (mean, error) in {"rein, engine": ours, "NumPy loop": theirs, "difference": difference}.items():
        print(f"{name:<40}{args.runs:>6}{'':>7}{mean:>13.2f}{error:>12.2f}")
    return abs(difference[0]) <= 4 * difference[1]


if __name__ == "__main__":
    sys.exit(main())
