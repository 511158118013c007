"""A section of a report: proxy and truth over √KL, with the law through each and the peak that it predicts.

Flow     rows of metrics.jsonl with a held-out KL, a proxy's score and a true one → `section` → HTML for a report's page

The points are the evaluations, the lines the fitted laws (over_optimisation.py), the dashed rules the predicted peak
and the ends of its 95% interval. It is still SVG in the colours of report.css, light and dark, with a table for those
who cannot see it; nothing in it is text that a model or a user wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Template
from markupsafe import Markup

from rein.over_optimisation import Fit, Law, Peak, fit
from rein.report.charts import Chart, Mark, linear
from rein.report.legible import evenly, number
from rein.report.parts import templates

EPISODES, KL, PROXY = "episodes", "heldout_kl_nats", "heldout_proxy"
TRUTHS = (("heldout_gold", "gold score"), ("heldout_second", "held-out reward"))  # the first that has numbers
TABLE_ROWS = 40
INTERVAL = "95% interval of the peak"
CURVE_POINTS = 80

_HERE = Path(__file__).parent


def section(rows: Sequence[Mapping[str, Any]], *, law: Law = "rl") -> Markup:
    """The section, or nothing where the rows hold no three evaluations of both scores.

    Example  >>> section([{"opt_step": 1, "train_loss": 2.0}])
             Markup('')
    """
    name, words, found = _evaluations(rows)
    if len(found) < 3:
        return Markup("")
    kl_N, proxy_N, truth_N = (np.array([row[key] for row in found]) for key in (KL, PROXY, name))
    error = f"{name}_stderr"
    errors_N = np.array([row[error] for row in found]) if all(error in row for row in found) else None
    fits = (fit(kl_N, proxy_N, law=law), fit(kl_N, truth_N, errors_N, law=law))
    peak = fits[1].peak() if fits[1] else None
    best = found[int(np.argmax(truth_N))]
    return Markup(
        _template().render(
            charts=[_scores(np.sqrt(np.maximum(kl_N, 0.0)), proxy_N, truth_N, fits, peak, words), _kl(found, peak)],
            said=_said(peak, words, float(kl_N[-1])),
            law={"rl": "d (a − b log d)", "bon": "d (a − b d)"}[law],
            fits=[(what, each) for what, each in zip(("reward", words), fits, strict=True) if each],
            truth=words,
            rows=[
                {"kl": number(row[KL]), "proxy": number(row[PROXY]), "truth": number(row[name]),
                 "stderr": number(row.get(error)), "episodes": number(row[EPISODES]), "best": row is best}
                for row in evenly(found, TABLE_ROWS)
            ],
        )
    )  # fmt: skip


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, list[dict[str, float]]]:
    """The true score that there is, what it is called, and the evaluations that have it beside KL and proxy.

    Of each, what is a number; where no row before had as many episodes, its place stands for them.
    """
    for name, words in TRUTHS:
        found: list[dict[str, float]] = []
        for row in rows:
            one = {key: float(row[key]) for key in (EPISODES, KL, PROXY, name, f"{name}_stderr") if _told(row.get(key))}
            if {KL, PROXY, name} <= one.keys():
                found.append(one)
        if found:
            episodes_N = [row.get(EPISODES, math.nan) for row in found]
            if not all(earlier < later for earlier, later in pairwise([-1.0, *episodes_N])):
                for place, row in enumerate(found):
                    row[EPISODES] = float(place)
            return name, words, found
    return "", "", []


def _told(value: Any) -> bool:
    """Whether it is a number that can be drawn, and calculated with."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= 1e9  # NaN is not


def _scores(
    d_N: npt.NDArray[np.float64],
    proxy_N: npt.NDArray[np.float64],
    truth_N: npt.NDArray[np.float64],
    fits: tuple[Fit | None, Fit | None],
    peak: Peak | None,
    words: str,
) -> Chart:
    """Both scores over d = √KL. Of a fitted curve, what lies in the frame of the points, and of a peak not far off."""
    right = _wider(0.0, float(d_N.max()), 0.06)[1]
    low, high = _wider(float(min(proxy_N.min(), truth_N.min())), float(max(proxy_N.max(), truth_N.max())), 0.08)
    marks, rule = [], None
    if peak is not None and math.sqrt(peak.kl_nats) <= 2 * right:
        right = max(right, math.sqrt(peak.kl_nats) * 1.1)
        low, high = (
            max(min(low, peak.truth), 1.5 * low - 0.5 * high),
            min(max(high, peak.truth), 1.5 * high - 0.5 * low),
        )
        rule = (math.sqrt(peak.kl_nats), "peak")
        ends = [d for kl in (peak.low_kl_nats, peak.high_kl_nats) if (d := math.sqrt(kl)) <= right]
        marks = [Mark("" if n else INTERVAL, "c2", "raw dashed", [(d, low), (d, high)]) for n, d in enumerate(ends)]
    grid_P = np.linspace(0.0, right, CURVE_POINTS)
    for label, colour, values_N, each in (("reward", "c1", proxy_N, fits[0]), (words, "c0", truth_N, fits[1])):
        if each is not None:
            curve = zip(grid_P.tolist(), each.truth(grid_P**2).tolist(), strict=True)
            marks.append(Mark(f"{label}, fitted", colour, "line", [(d, y) for d, y in curve if low <= y <= high]))
        marks.append(Mark(label, colour, "dots", list(zip(d_N.tolist(), values_N.tolist(), strict=True))))
    said = (
        f"Over √KL from {number(float(d_N.min()))} to {number(float(d_N.max()))}: the reward goes from "
        f"{number(float(proxy_N[0]))} to {number(float(proxy_N[-1]))}, the {words} from {number(float(truth_N[0]))} to "
        f"{number(float(truth_N[-1]))}; its highest is {number(float(truth_N.max()))}."
    )
    across, up = linear(0.0, right, 6), linear(low, high, 5)
    return Chart(f"Reward and {words}", "over √KL", said, across, up, marks, rule=rule)


def _kl(found: Sequence[Mapping[str, float]], peak: Peak | None) -> Chart:
    """The KL over episodes, and where it is predicted to be best."""
    points = [(row[EPISODES], row[KL]) for row in found]
    right = points[-1][0]
    low, high = _wider(min(0.0, *(kl for _, kl in points)), max(kl for _, kl in points), 0.0)
    marks = [Mark("KL", "c3", "line", points), Mark("", "c3", "dots", points)]
    if peak is not None and peak.kl_nats <= 2 * high:
        high = max(high, peak.kl_nats)
        ends = [kl for kl in (peak.low_kl_nats, peak.high_kl_nats) if kl <= high]
        marks.append(Mark("predicted peak", "c2", "dashed", [(0.0, peak.kl_nats), (right, peak.kl_nats)]))
        marks += [
            Mark("" if n else INTERVAL, "c2", "raw dashed", [(0.0, kl), (right, kl)]) for n, kl in enumerate(ends)
        ]
    said = f"The KL goes from {number(points[0][1])} to {number(points[-1][1])} nats over {number(right)} episodes."
    return Chart("KL", "nats/response, over episodes", said, linear(0.0, right, 4), linear(low, high, 5), marks)


def _wider(low: float, high: float, pad: float) -> tuple[float, float]:
    """A range for an axis: a little wider than the data, and never empty."""
    room = high - low if high - low > 1e-6 * max(abs(low), abs(high), 1e-3) else max(abs(high), 1e-3)
    return (low - pad * room if low else low), max(high, low + room) + pad * room


def _said(peak: Peak | None, words: str, now: float) -> str:
    """What the fit says, in a sentence."""
    if peak is None:
        return f"There are too few evaluations yet to fit the {words}."
    if not math.isfinite(peak.kl_nats):
        return f"The {words} is not seen to bend, up to a KL of {number(now)} nats: no peak is predicted."
    to = f"to {number(peak.high_kl_nats)}" if math.isfinite(peak.high_kl_nats) else "and up, without an end"
    at = "is behind" if now > peak.high_kl_nats else "is to come" if now < peak.low_kl_nats else "may be now"
    return (
        f"The {words} is predicted to be highest, {number(peak.truth)}, at a KL of {number(peak.kl_nats)} nats "
        f"(95% interval {number(peak.low_kl_nats)} {to}). The last evaluation is at {number(now)}: the peak {at}."
    )


@cache
def _template() -> Template:
    return templates(_HERE).get_template("over_optimisation.html")
