"""TAMER+RL: SARSA(λ) that a model of human reward helps, in one of eight ways; with none, SARSA(λ) alone.

Sequential: Ĥ was learned before and stands still; its weight is annealed per episode (`eligibility.Annealed`).
Simultaneous: Ĥ is being learned; its weight follows where training happened (`eligibility.Eligibility`).

One step, in the released code's order:
    end of the step before → TAMER learns → traces of the eligibility module decay and grow → RL picks, ε-greedily, by
    (biased) values → control sharing may override → the step is recorded for TAMER → SARSA learns of the step before,
    from the (changed) reward and the action really taken

Source   Knox & Stone 2010, 2011, 2012; `agents/tamerrl/TamerRLAgent.java`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rein.agents.combine import COMBINATIONS, changed_reward, choice_values, control_probability, td_value
from rein.agents.eligibility import Eligibility, Influence
from rein.agents.features import Features, Vector, alike
from rein.agents.human_model import Arrays, Linear
from rein.agents.sarsa import Sarsa, SarsaSettings, greedy
from rein.agents.tamer import Decision, Tamer, grown
from rein.errors import UserError


class TamerRL:
    """SARSA(λ) with the help of `tamer`'s Ĥ by `technique`, as much as `influence` says."""

    def __init__(
        self,
        technique: str,
        n_actions: int,
        features: Features,
        settings: SarsaSettings,
        random: np.random.Generator,
        *,
        tamer: Tamer | None = None,
        influence: Influence | None = None,
    ) -> None:
        assert (technique == "sarsa") == (tamer is None) == (influence is None), "a combination needs Ĥ and its weight"
        assert technique == "sarsa" or technique in COMBINATIONS, technique
        self.technique, self.n_actions, self.features, self.settings = technique, n_actions, features, settings
        self.random, self.tamer, self.influence = random, tamer, influence
        self.extra = technique == "extra-action"
        self.sarsa = Sarsa(settings, n_actions + self.extra, features.size)
        self.h_feature_weight = self.h_feature_trace = 0.0  # of technique 2
        self.episode = -1
        self.tamer_control = False  # the trainer may hand control to Ĥ alone
        self.last_action: int | None = None
        self._before: dict[str, Any] | None = None  # the step that SARSA has yet to learn from
        if technique == "q-initialisation":
            self._initialise_q()

    def _initialise_q(self) -> None:
        assert self.tamer is not None
        assert self.influence is not None
        model = self.tamer.model
        if not isinstance(model, Linear) or not alike(model.features, self.features):
            raise UserError(
                "q-initialisation copies Ĥ's weights into Q, so both must be linear over the same features.",
                "Use --technique q-augmentation: with a constant weight it is the same, without shared features.",
            )
        weight = float(self.influence.weights(np.zeros(0))[0])
        self.sarsa.weights_AF += weight * model.complete_AF

    # ------------------------------------------------------------------------------------------------- choosing

    def _look(self, observation: Vector) -> dict[str, Any]:
        """What the agent sees in a state: φ, Q, Ĥ, the weights of Ĥ."""
        phi_F = self.features(observation)
        q_A = self.sarsa.values(phi_F)
        h_A = self.tamer.model.values(observation) if self.tamer else np.zeros(self.n_actions)
        weights_A = self.influence.weights(observation) if self.influence else np.zeros(self.n_actions)
        if self.technique == "feature-augmentation":
            q_A = q_A + self.h_feature_weight * weights_A * h_A
        return {"observation": observation, "phi_F": phi_F, "q_A": q_A, "h_A": h_A, "weights_A": weights_A}

    def _choose(self, seen: dict[str, Any]) -> tuple[int, str]:
        """The entry of Q to follow (the extra action's is the last), and why."""
        values_A = seen["q_A"]
        if not self.extra:
            values_A = choice_values(self.technique, values_A, seen["h_A"], seen["weights_A"])
        epsilon = self.settings.epsilon_at(self.episode)
        if epsilon > 0 and self.random.random() < epsilon:
            choice, source = int(self.random.integers(len(values_A))), "explore"
        else:
            choice, source = greedy(values_A, self.last_action, self.random), "rl"
        shared = control_probability(self.technique, float(seen["weights_A"][0])) if self.influence else 0.0
        if self.tamer_control or (shared > 0 and self.random.random() < shared):
            choice, source = greedy(seen["h_A"], self.last_action, self.random), "shared"
        return choice, source

    def _act(self, seen: dict[str, Any], choice: int) -> int:
        if choice < self.n_actions:
            return choice
        return greedy(seen["h_A"], self.last_action, self.random)

    # ------------------------------------------------------------------------------------------------- learning

    def begin_step(
        self, number: int, observation: Vector, now_s: float, *, reward: float | None, forced: int | None = None
    ) -> Decision:
        """One boundary of TAMER+RL."""
        if self.tamer:
            collected = self.tamer.learn(now_s)
            assert self.influence is not None
            self.influence.step(grown(collected))
        if reward is None:
            self.episode += 1
            self.sarsa.begin_episode()
            self.h_feature_trace = 0.0
            self._before = None
        seen = self._look(observation)
        choice, source = self._choose(seen)
        proposed = None
        if forced is not None:
            proposed, choice, source = self._act(seen, choice), forced, "demonstration"
        action = self._act(seen, choice)
        self.last_action = action
        if self.tamer:
            self.tamer.record(number, observation, action, now_s)
        if self._before is not None and reward is not None:
            self._learn(reward, seen, choice)
        self._before = {**seen, "choice": choice}
        return Decision(action, source, seen["h_A"] if self.tamer else None, seen["q_A"], seen["weights_A"], proposed)

    def end_episode(self, reward: float, observation: Vector, *, terminated: bool) -> None:
        """Learns from the last step. Where the episode was cut off, the value of where it stood counts, unless the
        settings say that the cap ends it."""
        if terminated:
            self._learn(reward, None, 0)
        else:
            seen = self._look(observation)
            self._learn(reward, seen, self._choose(seen)[0], cut_off=True)
        self._before = None
        if self.influence:
            self.influence.end_episode()

    def _learn(self, reward: float, after: dict[str, Any] | None, next_choice: int, *, cut_off: bool = False) -> None:
        """SARSA's update of the step before; `after` is None at the end of an episode."""
        before = self._before
        assert before is not None, "a reward without a step before it"
        choice = before["choice"]
        h_A, weights_A = self._help(before)
        h, weight = (float(h_A[choice]), float(weights_A[choice])) if choice < self.n_actions else (0.0, 0.0)
        changed = changed_reward(
            self.technique, reward, h, weight, gamma=self.settings.gamma, best_h=float(h_A.max()),
            best_next_h=float(after["h_A"].max()) if after else 0.0,
        )  # fmt: skip
        phi_F = before["phi_F"]
        q = float(self.sarsa.weights_AF[choice] @ phi_F)  # anew: the weights have moved since the choice
        if self.technique == "feature-augmentation":
            q += self.h_feature_weight * weight * h
        predicted = td_value(self.technique, q, h, weight)
        target = changed
        if after is not None and not (cut_off and self.settings.cap_ends):
            next_h, next_weight = 0.0, 0.0
            if next_choice < self.n_actions:
                next_h, next_weight = float(after["h_A"][next_choice]), float(after["weights_A"][next_choice])
            target += self.settings.gamma * td_value(
                self.technique, float(after["q_A"][next_choice]), next_h, next_weight
            )
        delta = target - predicted
        self.sarsa.update(phi_F, choice, delta)
        if self.technique == "feature-augmentation":  # a signed feature: its trace accumulates
            decay = self.settings.gamma * self.settings.lambda_
            self.h_feature_trace = decay * self.h_feature_trace + weight * h
            self.h_feature_weight += self.settings.alpha * delta * self.h_feature_trace

    def _help(self, before: dict[str, Any]) -> tuple[Vector, Vector]:
        """Ĥ and its weights in the state of the step before, as they are now: the trainer may have spoken since."""
        learning = self.tamer is not None and (self.tamer.assigner.training or self.tamer.assigner.steps)
        if not learning or self.technique not in (
            "reward-shaping",
            "feature-augmentation",
            "q-augmentation",
            "potential-shaping",
        ):
            return before["h_A"], before["weights_A"]
        assert self.tamer is not None
        assert self.influence is not None
        return self.tamer.model.values(before["observation"]), self.influence.weights(before["observation"])

    # --------------------------------------------------------------------------------------------- the trainer

    def press(self, value: float, at_s: float) -> list[tuple[int, float]]:
        """Shares a press out."""
        return self.tamer.press(value, at_s) if self.tamer else []

    def set_training(self, on: bool, now_s: float) -> None:
        """Begins or ends a training session."""
        if self.tamer:
            self.tamer.set_training(on, now_s)

    def tell(self, observation: Vector, action: int, label: float) -> None:
        """Passes a judgement on to TAMER."""
        if self.tamer:
            self.tamer.tell(observation, action, label)

    def arrays(self) -> Arrays:
        """Q's weights, the influence's traces, Ĥ."""
        found: Arrays = {"q.weights_AF": self.sarsa.weights_AF}
        if self.technique == "feature-augmentation":
            found["q.h_feature_weight"] = np.array([self.h_feature_weight])
        if isinstance(self.influence, Eligibility):
            found["influence.traces_AF"] = self.influence.traces_AF
        return found | (self.tamer.arrays() if self.tamer else {})
