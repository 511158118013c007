"""TAMER+RL, sequential: Ĥ was learned before; four techniques, five weights each, Mountain Car and Cart Pole.

    python -m rein.recipes.tamer_rl_sequential OUT [H_OF_MOUNTAIN_CAR]

Draws the survey's figures 9.1.1 and 9.1.2. Settings of SARSA(λ), features and annealing are the papers'; the weights of
Ĥ and the number of runs are ours: powers of ten, and 40. Without a file, Ĥ is taught by the simulated
trainer; with the released `H2-100.model`, Mountain Car's is that of the best trainer of 2010, and Cart Pole, for which
none was released, gets a critic that says +1 for a good push and -1 for the other. Source: Knox & Stone 2010, 2011.
"""

import sys
from pathlib import Path

from rein.agents.compare import FOUR, CompareConfig, compare


def sequential(out: Path, h: str | None = None) -> CompareConfig:
    """500 episodes of Mountain Car and 150 of Cart Pole, 40 runs of each condition."""
    return CompareConfig(
        "sequential",
        tasks=("mountain-car", "cart-pole"),
        techniques=FOUR,
        h=("taught",) if h is None else (h, "rule"),
        runs=40,
        out=out,
    )


if __name__ == "__main__":
    compare(sequential(Path(sys.argv[1]), *sys.argv[2:3]))
