"""The page of policies that were evaluated, and the table that is printed.

Flow     what is in policies.json → `render` → policies.html, one self-contained file;  → `lines` → a terminal

The page asks for nothing else and runs no script. Texts in it are a model's or a file's: `visible` shows control and
direction characters as signs, and jinja2 escapes the rest.
Source   Stiennon 2020, Fig. 5 (reward over KL), App. F.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rein import __version__
from rein.evals.figures import Chart, Mark, colour_of
from rein.feedback.draw import REFERENCE
from rein.report.charts import Axis, linear
from rein.report.legible import count, cut, fixed, number, one_line, table, visible
from rein.report.parts import policy, static, templates

Json = dict[str, Any]
Shown = tuple[str, str]  # a number, and its interval
Say = Callable[[float, float], str]  # a number, of that size
STRIP = 132  # units wide
TEXT_CHARS = 2_000  # of a text, on the page
NAME_CHARS = 60
ROUGES = (("rouge_1", "ROUGE-1"), ("rouge_2", "ROUGE-2"), ("rouge_l", "ROUGE-L"))
HABITS = (
    ("no_eot_frac", "Cut off"),
    ("repeated_frac", "Repeated"),
    ("copied_title_frac", "Copied from the title"),
    ("copied_post_frac", "Copied from the text"),
    ("bigram_overlap_frac", "Pairs of words from the query"),
    ("distinct_2_frac", "Different pairs of words"),
)

_HERE = Path(__file__).parent


def render(name: str, found: Mapping[str, Any]) -> str:
    """The page, as HTML. The same numbers give the same page, to the byte."""
    style = _style()
    names = list(dict.fromkeys([one["name"] for one in found["policies"]] + [one["policy"] for one in found["wins"]]
                               + [one["policy"] for one in found["likert"]]))  # fmt: skip
    colours = {each: "soft" if each == REFERENCE else colour_of(at) for at, each in enumerate(names)}
    page: str = templates(_HERE, finalize=_shown).get_template("policies.html").render(
        policy=policy(style), style=Markup(style), title=name, version=__version__, found=found, colours=colours,
        tiles=_tiles(found), notes=_notes(found),
        wins=_wins(found["wins"]),
        scores=_grid(found["policies"], ["KL, nats", *found["judges"]],
                     lambda one: [one["kl_nats"], *(one["scores"][judge] for judge in found["judges"])], _plain),
        charts=[chart for judge in found["judges"] if (chart := kl_chart(found, judge, colours)) is not None],
        rouges=_grid([one for one in found["policies"] if one["rouge"]], [said for _, said in ROUGES],
                     lambda one: [one["rouge"][key] for key, _ in ROUGES], _part),
        lengths=_grid(found["policies"], ["Characters", "Words", "Tokens"],
                      lambda one: [one["lengths"].get(key) for key in ("characters", "words", "tokens")], _plain),
        habits=_grid(found["policies"], [said for _, said in HABITS],
                     lambda one: [one["habits"].get(key) for key, _ in HABITS], _part),
        likert=[_mark(one) for one in found["likert"]],
        tax=_tax(found["tax"]), examples=[_example(one) for one in found["examples"]],
    )  # fmt: skip
    return page


@cache
def _style() -> str:
    names = ("chart.css", "report.css", "policies.css")
    return "\n".join([static("report.css"), static("tables.css"), *((_HERE / n).read_text("utf-8") for n in names)])


def _shown(value: Any) -> Any:
    return visible(value) if type(value) is str else value


# ----------------------------------------------------------------------------------------------------------- numbers


def _plain(value: float, size: float = 0.0) -> str:
    """With as many decimals as a number of that size has, so that a number and its interval have the same.

    Example  >>> _plain(-1.5), _plain(9.95, size=10.1), _plain(118.62), _plain(12345.6)
             ('-1.500', '9.9', '118.6', '12,346')
    """
    return fixed(value, 3 if max(abs(value), size) < 10 else 1)


def _part(value: float, size: float = 0.0) -> str:
    return f"{100 * value:.1f}%"


def _bits_of(value: float, size: float = 0.0) -> str:
    return f"{value:.4f}"


def _told(one: Mapping[str, Any] | None, say: Say, sign: str = "") -> Shown:
    """A number and its interval, as a person reads them; with `sign`, that of what is above 0."""
    if one is None:
        return "–", ""
    size = max(abs(one[name]) for name in ("value", "low", "high") if one[name] is not None)
    value, low, high = (
        None if one[name] is None else (sign if one[name] > 0 else "") + say(one[name], size)
        for name in ("value", "low", "high")
    )
    return str(value), f"{low} to {high}" if low and high else ""


def _grid(
    policies: Sequence[Json],
    heads: Sequence[str],
    values: Callable[[Json], Sequence[Mapping[str, Any] | None]],
    say: Say,
) -> Json:
    """A table with a line for each policy, of the columns that anybody has a number in."""
    rows = [(one["name"], values(one)) for one in policies]
    there = [at for at in range(len(heads)) if any(row[at] is not None for _, row in rows)]
    return {
        "heads": [heads[at] for at in there],
        "rows": [{"name": name, "cells": [_told(row[at], say) for at in there]} for name, row in rows],
    }


def _wins(found: Sequence[Json]) -> list[tuple[str, str, list[Json]]]:
    """Win rates by whom they are against, and who says so."""
    groups: dict[tuple[str, str], list[Json]] = {}
    for one in found:
        groups.setdefault((one["against"], one["by"]), []).append(_win(one))
    return [(cut(against, NAME_CHARS), cut(by, NAME_CHARS), rows) for (against, by), rows in groups.items()]


def _win(one: Json) -> Json:
    raw, logit = one["raw"], one["length_logit"] or 0.0
    longer = "" if abs(logit) < 1e-9 else "longer ones win" if logit > 0 else "shorter ones win"
    return {
        **one, "raw": _told(raw, _part), "controlled": _told(one["controlled"], _part),
        "stratified": _told(one["stratified"], _part), "longer": longer, "strip": _strip(raw),
        "n": f"{one['pairs']:,}", "of": count(one["prompts"], "prompt"),
    }  # fmt: skip


def _strip(one: Mapping[str, Any]) -> Json:
    """A win rate from 0 to 1, its interval and ½, for a cell of the table."""

    def at(value: float) -> str:
        return f"{4 + value * (STRIP - 8):.1f}"

    low, high = (one["low"], one["high"]) if one["low"] is not None else (one["value"], one["value"])
    return {"low": at(low), "high": at(high), "value": at(one["value"]), "even": at(0.5)}


def _mark(one: Json) -> Json:
    return {**one, "raw": _told(one["raw"], _plain), "controlled": _told(one["controlled"], _plain)}


def _tax(found: Json | None) -> Json | None:
    if found is None:
        return None
    tasks = []
    for one in found["tasks"]:
        say = _part if one["unit"] == "%" else _plain
        tasks.append({**one, "score": say(one["score"], 0.0), "difference": _told(one["difference"], say, "+")})
    text = [
        {**one, "bits": _told(one["bits_per_byte"], _bits_of),
         "difference": _told(one["difference"], _bits_of, "+")}
        for one in found["text"]
    ]  # fmt: skip
    return {**found, "tasks": tasks, "text": text}


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    models = [one for one in found["policies"] if one["name"] != REFERENCE]
    tiles = []
    if models:
        tiles.append(("Policies", str(len(models)), f"on {count(found['prompts'], 'prompt')} that all answered"))
    for base in (REFERENCE, found["against"]):
        of = [one for one in found["wins"] if one["against"] == base and one["controlled"]]
        if of:
            best = max((one for one in of if one["by"] == of[0]["by"]), key=lambda one: one["controlled"]["value"])
            value, ends = _told(best["controlled"], _part)
            who = "references" if base == REFERENCE else base
            tiles.append((f"Best against {who}, at equal length", value, f"{best['policy']}{', ' * bool(ends)}{ends}"))
    rouged = [one for one in models if one["rouge"]]
    if rouged:
        best = max(rouged, key=lambda one: one["rouge"]["rouge_l"]["value"])
        value, ends = _told(best["rouge"]["rouge_l"], _part)
        tiles.append(("Highest ROUGE-L", value, f"{best['name']}{', ' * bool(ends)}{ends}"))
    return [(name, value, cut(below, 90)) for name, value, below in tiles]


def _notes(found: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{one['name']} beside {found['against']}: {words}" for one in found["policies"] for words in one["findings"]
    ]
    notes += [f"{count(n, 'prompt')} left out: {why}" for why, n in found["left_out"].items()]
    if found["tax"]:
        notes += [f"{one['task']}: {one['reason']}" for one in found["tax"]["skipped"]]
    return notes


def kl_chart(found: Mapping[str, Any], judge: str, colours: Mapping[str, str]) -> Chart | None:
    """A judge's mean score of each policy over √KL, with its interval; None where no KL was measured."""
    some = [one for one in found["policies"] if one["kl_nats"] and one["kl_scores"].get(judge)]
    if not some:
        return None
    marks, texts, ends, said = list[Mark](), list[tuple[float, float, str]](), list[float](), list[str]()
    for one in some:
        x, score = math.sqrt(max(one["kl_nats"]["value"], 0.0)), one["kl_scores"][judge]
        low, high = (score["value"] if score[end] is None else score[end] for end in ("low", "high"))
        colour = colours[one["name"]].split()[0]
        marks += [Mark("", colour, "bars", [(x, low), (x, high)]), Mark("", colour, "dots", [(x, score["value"])])]
        texts.append((x, score["value"], one["name"]))
        ends += [low, high]
        said.append(f"{one['name']}: {_plain(score['value'])} at {_plain(one['kl_nats']['value'])} nats")
    right = max(math.sqrt(max(one["kl_nats"]["value"], 0.0)) for one in some) * 1.08 or 1.0
    room = (max(ends) - min(ends)) * 0.08 or 1.0
    nats = [float(f"{(n * right / 4) ** 2:.2g}") for n in range(4)]
    return Chart(
        "kl", cut(judge, NAME_CHARS), "mean score, over KL in nats (its root)", f"{judge}: {'; '.join(said)}.",
        Axis(0.0, right, [(math.sqrt(each), number(each)) for each in nats]),
        linear(min(ends) - room, max(ends) + room), marks, texts=texts,
        frame=(330, 210, 46, 28),
    )  # fmt: skip


def _example(one: Json) -> Json:
    texts = [
        {**each, "text": cut(each["text"], TEXT_CHARS),
         "scores": [(judge, _plain(score)) for judge, score in each["scores"].items() if score is not None]}
        for each in one["texts"]
    ]  # fmt: skip
    return {"id": cut(one["id"], NAME_CHARS), "query": cut(one["query"], TEXT_CHARS), "texts": texts}


# ------------------------------------------------------------------------------------------------------------ lines


def lines(found: Mapping[str, Any]) -> list[str]:
    """Tables for a terminal: policies, win rates, marks, the tax."""
    parts = list[list[str]]()
    if found["policies"]:
        judges = [one_line(judge, 24) for judge in found["judges"]]
        kl = any(one["kl_nats"] for one in found["policies"])
        head = ["policy", "ROUGE-L", "characters", "copied", *judges, *(["KL nats"] if kl else [])]
        rows = [
            [one["name"], _said((one["rouge"] or {}).get("rouge_l"), _part),
             _said(one["lengths"]["characters"], _plain), _said(one["habits"].get("copied_post_frac"), _part),
             *(_said(one["scores"][judge], _plain) for judge in found["judges"]),
             *([_said(one["kl_nats"], _plain)] if kl else [])]
            for one in found["policies"]
        ]  # fmt: skip
        parts.append(table([head, *rows], "<" + ">" * (len(head) - 1)))
    if found["wins"]:
        rows = [
            [one_line(one["policy"], 40), one_line(one["against"], 40), one_line(one["by"], 24),
             _said(one["raw"], _part), _said(one["controlled"], _part), f"{one['pairs']:,}"]
            for one in found["wins"]
        ]  # fmt: skip
        parts.append(table([["policy", "against", "judge", "wins", "at equal length", "pairs"], *rows], "<<<>>>"))
    if found["likert"]:
        rows = [
            [one_line(one["policy"], 40), one_line(one["axis"], 40), _said(one["raw"], _plain),
             _said(one["controlled"], _plain), f"{one['marks']:,}"]
            for one in found["likert"]
        ]  # fmt: skip
        parts.append(table([["policy", "axis", "mark", "at equal length", "marks"], *rows], "<<>>>"))
    if tax := _tax(found["tax"]):
        rows = [[one["policy"], one["title"], one["score"], _both(one["difference"])] for one in tax["tasks"]]
        rows += [[one["policy"], "bits per byte", one["bits"][0], _both(one["difference"])] for one in tax["text"]]
        parts.append(table([["policy", "tax on", "score", f"less that of {tax['against']}"], *rows], "<<>>"))
    parts += [[one_line(note, 300) for note in _notes(found)]]
    return [line for part in parts if part for line in [*part, ""]][:-1]


def _said(one: Mapping[str, Any] | None, say: Say) -> str:
    return _both(_told(one, say))


def _both(shown: Shown) -> str:
    value, ends = shown
    return f"{value} ({ends})" if ends else value
