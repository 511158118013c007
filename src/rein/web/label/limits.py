"""How often somebody may ask: buckets of tokens that fill with time.

A person's session has a large bucket, which no person and no simulated labeler empties; wrong passwords have a small
one, by the address they come from and by the account that they try.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

KEPT = 20_000  # buckets; the ones that were used longest ago are forgotten, which is as good as full


class Buckets:
    """One bucket for each name.

        tokens ← min(most, tokens + rate · Δt)

    Example  >>> buckets = Buckets(most=2, per_s=1.0, clock=lambda: 0.0)
             >>> buckets.take("somebody"), buckets.take("somebody"), buckets.take("somebody")
             (0.0, 0.0, 1.0)
    """

    def __init__(self, *, most: float, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.per_s, self.clock = most, per_s, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def _level(self, name: str) -> float:
        tokens, since = self._buckets.get(name, (self.most, 0.0))
        return min(self.most, tokens + self.per_s * (self.clock() - since))

    def wait_s(self, name: str) -> float:
        """Seconds until a token is there; 0.0 when one is."""
        return max(0.0, (1.0 - self._level(name)) / self.per_s)

    def take(self, name: str) -> float:
        """Takes a token, and returns 0.0; or takes none, and returns the seconds until there is one."""
        if wait := self.wait_s(name):
            return wait
        self._buckets[name] = (self._level(name) - 1.0, self.clock())
        self._buckets.move_to_end(name)
        while len(self._buckets) > KEPT:
            self._buckets.popitem(last=False)
        return 0.0


class Limits:
    """The buckets of a server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.session = Buckets(most=600, per_s=300.0, clock=clock)
        self.stranger = Buckets(most=200, per_s=50.0, clock=clock)  # requests of an address without a session
        self.wrong_address = Buckets(most=20, per_s=1 / 5, clock=clock)  # wrong passwords and links
        self.wrong_account = Buckets(most=10, per_s=1 / 20, clock=clock)


def retry_after(wait_s: float) -> dict[str, str]:
    """The header that says when to come again."""
    return {"retry-after": str(max(1, math.ceil(wait_s)))}
