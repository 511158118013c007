"""TAMER+RL, simultaneous: a trainer steps in while SARSA(λ) learns, and the eligibility module weighs what was taught.

    python -m rein.recipes.tamer_rl_simultaneous OUT

Draws the survey's figure 9.1.3. Action biasing and control sharing with c_s = 100 and 2 (Mountain Car), 200 and 1 (Cart
Pole), a = 0.2; taught for 16 and 12 episodes at the start, or for 12 and 8 after 20 and 25 of RL alone. The trainer is
simulated: it judges half of the steps, 0.25 to 0.7 s late. Source: Knox & Stone 2012.
"""

import sys
from pathlib import Path

from rein.agents.compare import CompareConfig, compare


def simultaneous(out: Path) -> CompareConfig:
    """200 episodes of Mountain Car and 150 of Cart Pole, 40 runs of each condition."""
    return CompareConfig(
        "simultaneous",
        tasks=("mountain-car", "cart-pole"),
        techniques=("action-biasing", "control-sharing"),
        trainer_frequency=0.5,
        runs=40,
        out=out,
    )


if __name__ == "__main__":
    compare(simultaneous(Path(sys.argv[1])))
