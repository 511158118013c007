"""Eight ways to combine a model of human reward with reinforcement learning, as pure functions.

| no. | name                 | what it changes                                                                     |
| 1   | reward-shaping       | R′ = R + w · Ĥ(s, a)                                                                |
| 2   | feature-augmentation | w · Ĥ(s, a) is one more feature of Q                                                |
| 3   | q-initialisation     | Q starts as w · Ĥ (and its own start on top)                                        |
| 4   | q-augmentation       | Q′ = Q + w · Ĥ in the choice of actions and in both sides of the TD error           |
| 5   | extra-action         | one more action, "do what Ĥ says"                                                   |
| 6   | action-biasing       | Q′ = Q + w · Ĥ in the choice of actions only                                        |
| 7   | control-sharing      | with probability min(w, 1) the action is argmax Ĥ, else that of RL                  |
| 8   | potential-shaping    | R′ = R + w · (γ max_a Ĥ(s′, a) − max_a Ĥ(s, a)); a terminal state has none            |

w is `h_weight`, the papers' β. It is annealed after each episode for 1, 6 and 7; the others keep it.

Source   Knox & Stone 2010 (all eight), 2011 and 2012 (1, 4, 6, 7); `agents/tamerrl/TamerRLAgent.java`, where 3 and 5
         are named but not implemented.
Differs  The survey prints one formula for 4 and 6. What differs is where Q′ is used: 6 leaves learning alone.
"""

from __future__ import annotations

from typing import Literal, get_args

from rein.agents.features import Vector

Combination = Literal[
    "reward-shaping",
    "feature-augmentation",
    "q-initialisation",
    "q-augmentation",
    "extra-action",
    "action-biasing",
    "control-sharing",
    "potential-shaping",
]
Technique = Literal["tamer", "sarsa", Combination]  # tamer: Ĥ alone; sarsa: the environment's reward alone
COMBINATIONS: tuple[str, ...] = get_args(Combination)
TECHNIQUES: tuple[str, ...] = get_args(Technique)
ANNEALED = ("reward-shaping", "action-biasing", "control-sharing")
SIMULTANEOUS = ANNEALED  # those whose weight the eligibility module can set from one moment to the next


def choice_values(technique: str, q_A: Vector, h_A: Vector, h_weights_A: Vector) -> Vector:
    """The values that ε-greedy chooses by.

    Shapes   q_A, h_A, h_weights_A (A,); returns (A,).
    Source   techniques 4 and 6.
    """
    return q_A + h_weights_A * h_A if technique in ("action-biasing", "q-augmentation") else q_A


def td_value(technique: str, q: float, h: float, h_weight: float) -> float:
    """What stands in the TD error for Q(s, a). Source: technique 4."""
    return q + h_weight * h if technique == "q-augmentation" else q


def changed_reward(
    technique: str, env_reward: float, h: float, h_weight: float, *, gamma: float, best_h: float, best_next_h: float
) -> float:
    """The reward that SARSA learns from.

    `h` is Ĥ(s, a) of the step that was paid; `best_h` and `best_next_h` are max_a Ĥ before and after it.

    Example  >>> changed_reward("reward-shaping", -1.0, 0.5, 10.0, gamma=1.0, best_h=0.0, best_next_h=0.0)
             4.0
    Source   techniques 1 and 8.
    """
    if technique == "reward-shaping":
        return env_reward + h_weight * h
    if technique == "potential-shaping":
        return env_reward + h_weight * (gamma * best_next_h - best_h)
    return env_reward


def control_probability(technique: str, h_weight: float) -> float:
    """How likely the action is argmax Ĥ whatever RL says. Source: technique 7."""
    return min(h_weight, 1.0) if technique == "control-sharing" else 0.0
