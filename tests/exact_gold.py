"""Gold scores whose best policy, and whose best of N samples, are known in closed form: for tests of what climbs them.

`CountGold`: a response has a fixed number of tokens, each good with the same chance under the start, independently of
the others (a model that says the same whatever came before). Its score is how many are good. Everything is then told by
q, the share of good tokens:

    best policy for score − kl_coef · KL      each token good with q = p e^(1/kl_coef) / (1 − p + p e^(1/kl_coef))
    KL of that policy                         tokens · (q log (q/p) + (1 − q) log ((1 − q)/(1 − p)))
    best of N                                 Σ_k k · (F(k)^N − F(k − 1)^N), F the binomial distribution

No policy has a higher score at its KL. `bent` is a truth that the count is a proxy of: it rises with the count and then
falls, so that climbing the count over-optimises it.

`best_of_uniform`: of a score that is uniform on [0, 1] and independent between responses, as a hash of one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom


def best_of_uniform(n: int) -> tuple[float, float]:
    """(mean score, KL) of the best of n: n / (n + 1), log n − (n − 1) / n."""
    return n / (n + 1), math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class CountGold:
    """Of responses of so many tokens, each of them good with chance `good_frac` under the start."""

    tokens: int
    good_frac: float

    def score(self, share: float) -> float:
        """The mean score of a policy whose tokens are good with chance `share`."""
        return self.tokens * share

    def kl_nats(self, share: float) -> float:
        """Its KL from the start, of a response."""
        p, q = self.good_frac, share
        parts = ((q, p), (1 - q, 1 - p))
        return self.tokens * sum(new * math.log(new / old) for new, old in parts if new > 0)

    def tilted(self, kl_coef: float) -> tuple[float, float]:
        """(share of good tokens, KL) of the policy that is best by score − kl_coef · KL."""
        odds = math.log(self.good_frac / (1 - self.good_frac)) + 1 / kl_coef
        share = 1 / (1 + math.exp(-odds))
        return share, self.kl_nats(share)

    def kl_needed(self, score: float) -> float:
        """The least KL of any policy with so high a mean score."""
        return self.kl_nats(score / self.tokens)

    def best_of(self, n: int) -> tuple[float, float]:
        """(mean score, log n − (n − 1) / n) of the best of n samples; with ties, its KL is below that."""
        counts = np.arange(self.tokens + 1)
        below = np.concatenate([[0.0], binom.cdf(counts, self.tokens, self.good_frac) ** n])
        return float(counts @ np.diff(below)), math.log(n) - (n - 1) / n

    def bent(self, share: float, *, most: float) -> float:
        """The mean of a truth c · (most − c / tokens) of the count c, under independent tokens."""
        mean = self.tokens * share
        square = self.tokens * share * (1 - share) + mean**2
        return most * mean - square / self.tokens

    def bent_best(self, *, most: float) -> float:
        """The share of good tokens at which `bent` is highest."""

        def slope(q: float) -> float:
            return most * self.tokens - (1 - 2 * q) - 2 * self.tokens * q

        return float(brentq(slope, 0.0, 1.0))
