"""The figures of a corpus report: streams of documents, and charts of lengths, scores, similarities and groups.

Flow     what the stages counted (report.json) → `Chart` (charts.py), or the geometry of the streams → report.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rein.report.charts import Axis, Chart, Mark, Points, counts, fractions, linear, steps_of, tick
from rein.report.figures import ticks
from rein.report.legible import percent

ENOUGH = 10  # documents in a bin of scores, for the kept part of them to say something
FLOW = (1000, 240)

Json = dict[str, Any]


# ---------------------------------------------------------------------------------------------------- the streams


def flow(sources: Sequence[Json], columns: Sequence[Json]) -> Json:
    """Streams of documents from stage to stage: one per source, and from each what is dropped, downwards.

    Heights are to scale; no text is in the figure, so that it may be stretched to any width.
    """
    width, height = FLOW
    gap = min(4.0, 0.3 * height / (len(sources) + 1))
    # What is kept comes first and what is dropped last; where documents are cut into pieces there can be more of both.
    most = max(column["documents"] + column["dropped"] for column in columns)
    scale = (height - gap * (len(sources) + 1)) / max(most, 1)
    step = width / len(columns)
    half = 12.0
    ribbons, blocks = [], []
    starts: list[float] = []
    for place in range(len(columns)):
        middle = step * (place + 0.5)
        tops, top = [], 0.0
        for source in sources:
            tops.append(top)
            tall = source["after"][place] * scale
            blocks.append((source["colour"], f"{middle - half:.1f}", f"{top:.2f}", f"{tall:.2f}"))
            top += tall + gap
        if place:
            left, right = middle - step + half, middle - half
            losses = [max(source["after"][place - 1] - source["after"][place], 0) * scale for source in sources]
            fall = height - sum(losses)
            for source, start, end, loss in zip(sources, starts, tops, losses, strict=True):
                tall = source["after"][place] * scale
                before = min(tall, source["after"][place - 1] * scale)
                ribbons.append((source["colour"], "", _ribbon(left, start, start + before, right, end, end + tall)))
                if loss:
                    lost = _ribbon(left, start + before, start + before + loss, right, fall, fall + loss)
                    ribbons.append((source["colour"], "lost", lost))
                    blocks.append((f"{source['colour']} lost", f"{right:.1f}", f"{fall:.2f}", f"{loss:.2f}"))
                    fall += loss
        starts = tops
    return {"width": width, "height": height, "block": f"{2 * half:.0f}", "blocks": blocks, "ribbons": ribbons}


def _ribbon(x0: float, top0: float, bottom0: float, x1: float, top1: float, bottom1: float) -> str:
    """A band from one upright edge to another, with level ends."""
    middle = (x0 + x1) / 2
    return (
        f"M{x0:.1f} {top0:.2f}C{middle:.1f} {top0:.2f} {middle:.1f} {top1:.2f} {x1:.1f} {top1:.2f}"
        f"V{bottom1:.2f}C{middle:.1f} {bottom1:.2f} {middle:.1f} {bottom0:.2f} {x0:.1f} {bottom0:.2f}Z"
    )


# ---------------------------------------------------------------------------------------------------- lengths


def lengths(funnel: Json | None) -> list[Chart]:
    """Histograms of documents by their size, after reading and in the corpus: of all, and of each source."""
    if funnel is None:
        return []
    sources = funnel["sources"]
    every = {
        "name": "All sources",
        "colour": "c0" if len(sources) == 1 else "ink",
        "lengths_read": _sum(source["lengths_read"] for source in sources),
        "lengths": _sum(source["lengths"] for source in sources),
        "read": sum(source["read"] for source in sources),
        "kept": funnel["kept"],
        "bytes_read": funnel["bytes_read"],
        "bytes": funnel["bytes"],
    }
    shown = [every, *sources] if len(sources) > 1 else sources
    used = {int(bits) for bits in every["lengths_read"] | every["lengths"]}
    return [_length_chart(source, min(used), max(used)) for source in shown if source["read"]] if used else []


def _sum(histograms: Iterable[Mapping[str, int]]) -> dict[str, int]:
    summed: dict[str, int] = {}
    for histogram in histograms:
        for key, value in histogram.items():
            summed[key] = summed.get(key, 0) + value
    return summed


def _length_chart(source: Json, first: int, last: int) -> Chart:
    """Bin b holds the documents of 2^(b−1) to 2^b − 1 bytes."""
    bins = range(first, last + 1)
    edges = [float(bits - 1) for bits in (*bins, last + 1)]
    before, after = ([source[key].get(str(bits), 0) for bits in bins] for key in ("lengths_read", "lengths"))
    every = max(1, -(-len(bins) // 7))
    x = Axis(edges[0], edges[-1], [(edge, _bytes(round(edge))) for edge in edges[::every]])
    mean = _kb(source["bytes_read"] / source["read"])
    mean_kept = f", {_kb(source['bytes'] / source['kept'])} in the corpus" if source["kept"] else ""
    return Chart(
        source["name"],
        f"{source['read']:,} documents read, {source['kept']:,} in the corpus; mean size {mean} read{mean_kept}",
        f"Documents by size: {source['read']:,} read, {source['kept']:,} in the corpus.",
        x,
        counts(max(*before, *after)),
        [
            Mark("read", "soft", "area", steps_of(edges, before)),
            Mark("in the corpus", source["colour"], "area", steps_of(edges, after)),
        ],
    )


def _bytes(bits: int) -> str:
    """2^bits bytes.

    Example  >>> _bytes(6), _bytes(13), _bytes(20)
             ('64 B', '8 KiB', '1 MiB')
    """
    unit = min(max(bits, 0) // 10, 4)
    return f"{2 ** (bits - 10 * unit):g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def _kb(n_bytes: float) -> str:
    return f"{n_bytes / 1000:,.1f} kB" if n_bytes >= 1000 else f"{n_bytes:,.0f} B"


# ---------------------------------------------------------------------------------------------------- quality


def quality_charts(quality: Json) -> list[Chart]:
    """How the classifier scores the two sides, what its draw kept of each source, and what another α would keep."""
    about, alpha = quality["training"]["alpha"], quality["alpha"]
    return [
        _sides_chart(about),
        *(_scores_chart(one) for one in quality["chosen"] if sum(one["scores"])),
        _rule_chart(quality["chosen"], alpha),
        _alpha_chart(quality),
        _distance_chart(about, alpha),
    ]


def _sides_chart(about: Json) -> Chart:
    histogram = about["histogram"]
    most = max(*histogram["positives"], *histogram["raw"], *histogram["kept"])
    high = max(most, 1e-9) * 1.08
    marks = [
        Mark(label, colour, style, steps_of(histogram["edges"], histogram[name]))
        for label, name, colour, style in (
            ("positives", "positives", "c2", "area"),
            ("raw", "raw", "soft", "area"),
            (f"raw, as α = {about['alpha']:g} would keep it", "kept", "c1", "line"),
        )
    ]
    return Chart(
        "Scores of held-out documents",
        "part of the documents, by score; none of them was trained on",
        "Histograms of the scores of positives, raw documents, and those of the raw that would be kept.",
        linear(0, 1, 5),
        Axis(0, high, [(value, tick(value)) for value in ticks(0, high, 4)]),
        marks,
    )


def _scores_chart(one: Json) -> Chart:
    edges = _edges(one["scores"])
    return Chart(
        f"Scores of {one['source']}",
        "documents, by score; logarithmic",
        f"Of {sum(one['scores']):,} documents of {one['source']}, {sum(one['kept_scores']):,} were kept.",
        linear(0, 1, 5),
        counts(max(one["scores"])),
        [
            Mark("all", "soft", "area", steps_of(edges, one["scores"])),
            Mark("kept", "c1", "area", steps_of(edges, one["kept_scores"])),
        ],
    )


def _edges(bins: Sequence[Any]) -> list[float]:
    return [place / len(bins) for place in range(len(bins) + 1)]


def _rule_chart(chosen: Sequence[Json], alpha: float) -> Chart:
    """The closed form, and beside it what the draw did in each bin of scores that has enough documents."""
    curve: Points = [(score / 200, (2 - score / 200) ** -alpha) for score in range(201)]
    scores, kept = ([sum(bins) for bins in zip(*(one[key] for one in chosen), strict=True)]
                    for key in ("scores", "kept_scores"))  # fmt: skip
    dots: Points = [
        ((place + 0.5) / len(scores), drawn / of)
        for place, (of, drawn) in enumerate(zip(scores, kept, strict=True))
        if of >= ENOUGH
    ]
    return Chart(
        "The rule, and what it did",
        f"part that is kept, logarithmic, by score; dots for bins of {ENOUGH} documents or more, at the foot for none",
        f"The probability to be kept rises with the score from {percent(2**-alpha)} at 0 to 100% at 1.",
        linear(0, 1, 5),
        fractions(min([2**-alpha, *(kept for _, kept in dots if kept)]) * 0.99),
        [
            Mark(f"P(keep) = (2 − s){_raised(-alpha)}", "c0", "line", curve),
            *([Mark("kept by the draw", "c1", "dots", dots)] if dots else []),
        ],
    )


def _raised(power: float) -> str:
    return f"{power:g}".translate(str.maketrans("-+.e0123456789", "⁻⁺·ᵉ⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _alpha_chart(quality: Json) -> Chart:
    curves = [
        ("raw, held-out", "soft", [(row["alpha"], row["kept_frac"]) for row in quality["training"]["alpha"]["rows"]])
    ]
    curves += [
        (one["source"], f"c{place % 6}", [(row["alpha"], row["kept_frac"]) for row in one["kept_frac"]])
        for place, one in enumerate(quality["chosen"])
    ]
    marks = [Mark(label, colour, "line", [p for p in points if p[1] > 0]) for label, colour, points in curves]
    least = min((fraction for mark in marks for _, fraction in mark.points), default=0.1)
    most = max((alpha for mark in marks for alpha, _ in mark.points), default=quality["alpha"])
    return Chart(
        "What another α would keep",
        "part of the documents that is kept on average, logarithmic, by α",
        "The part of the documents that is kept falls as alpha rises.",
        linear(0, max(most, quality["alpha"]), 6),
        fractions(least),
        marks,
        rule=(quality["alpha"], f"α = {quality['alpha']:g}"),
    )


def _distance_chart(about: Json, alpha: float) -> Chart:
    points: Points = [(row["alpha"], row["distance"]) for row in about["rows"]]
    high = max(distance for _, distance in points) * 1.1 or 1.0
    nearest = [point for point in points if point[0] == about["alpha"]]
    return Chart(
        "How unlike the positives the kept documents score",
        "mean distance of scores, by α; 0 were the same distribution",
        f"The distance is smallest at alpha {about['alpha']:g}.",
        linear(0, max(*(x for x, _ in points), alpha), 6),
        linear(0, high, 5),
        [Mark("", "soft", "line", points), Mark(f"smallest, α = {about['alpha']:g}", "c1", "dots", nearest)],
        rule=(alpha, f"α = {alpha:g}"),
    )


# ---------------------------------------------------------------------------------------------------- duplicates


def grouped_sizes(sizes: Mapping[int, int]) -> list[tuple[str, int]]:
    """Groups counted by size: 2, 3, 4, then by powers of two, up to the largest.

    Example  >>> grouped_sizes({2: 248, 3: 8, 5: 1, 7: 1, 20: 1})
             [('2', 248), ('3', 8), ('4', 0), ('≤8', 2), ('≤16', 0), ('≤32', 1)]
    """
    bounds = [2, 3, 4]
    while sizes and bounds[-1] < max(sizes):
        bounds.append(bounds[-1] * 2)
    rows = []
    for low, high in zip([1, *bounds], bounds, strict=False):
        rows.append(
            (f"{high:,}" if high <= 4 else f"≤{high:,}", sum(n for size, n in sizes.items() if low < size <= high))
        )
    while rows and not rows[-1][1]:
        rows.pop()
    return rows


def similarity_chart(bins: Sequence[int], threshold: float, sets: str) -> Chart:
    """The bins from the threshold on; no pair is in those below."""
    first = min(int(threshold * len(bins) + 1e-9), next(place for place, n in enumerate(bins) if n))
    edges, shown = _edges(bins)[first:], bins[first:]
    texts = [((a + b) / 2, n, f"{n:,}") for a, b, n in zip(edges, edges[1:], shown, strict=False) if n]
    return Chart(
        "Similarity of the pairs",
        f"pairs of documents, logarithmic, by the Jaccard similarity of their {sets}",
        f"Pairs of documents from a similarity of {edges[0]:g} to 1: {', '.join(f'{n:,}' for n in shown)}.",
        linear(edges[0], 1.0, 5),
        counts(max(shown)),
        [Mark("", "c0", "area", steps_of(edges, shown))],
        texts=texts if len(shown) <= 8 else (),
    )


def sizes_chart(sizes: Sequence[tuple[str, int]]) -> Chart:
    """A column for each of `grouped_sizes`, with its number above it."""
    points: Points = []
    for place, (_, n) in enumerate(sizes):
        points += [(place + 0.12, 0), (place + 0.12, n), (place + 0.88, n), (place + 0.88, 0)]
    every = -(-len(sizes) // 10)
    names = [(place + 0.5, name) for place, (name, _) in enumerate(sizes)]
    return Chart(
        "Sizes of the groups",
        "groups, logarithmic, by how many documents are in them",
        f"Groups by size: {', '.join(f'{name}: {n:,}' for name, n in sizes)}.",
        Axis(0, len(sizes), names[::-every]),
        counts(max(n for _, n in sizes)),
        [Mark("", "c0", "area", points)],
        texts=[(place + 0.5, n, f"{n:,}") for place, (_, n) in enumerate(sizes) if n],
    )
