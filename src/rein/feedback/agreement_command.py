"""`rein label agreement` and `rein label prioritise`: what the page of agreement shows, and which items come next.

Flow     a store, a project → `report` → a few lines, or all of it as JSON
         a store, a project, scores or votes → `prioritise_by_…` → the order of the queue
"""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from rein.config import setting
from rein.errors import UserError
from rein.feedback.agreement import report
from rein.feedback.estimates import Number
from rein.feedback.items import load_project
from rein.feedback.people import audit
from rein.feedback.refused import Refused
from rein.feedback.selection import (
    Selected,
    prioritise_by_disagreement,
    prioritise_by_scores,
    read_scores,
    scores_of,
)
from rein.feedback.store import Store
from rein.report.legible import count, cut, one_line, table
from rein.text.sources import load_object

_Row = tuple[tuple[str, str, str, str], str]  # its cells, and why there is no number
_WIDTH, _TITLE = 100, 55  # characters of a line, and of what a number is of
_STORE = "the feedback store: an SQLite file, or postgresql://USER@HOST/DATABASE"
_GROUPS = {
    "labeler_labeler": "labeler–labeler",
    "labeler_researcher": "labeler–researcher",
    "researcher_researcher": "researcher–researcher",
}
_BEYOND = {
    "fleiss": "Fleiss' kappa", "alpha_nominal": "alpha, nominal", "alpha_ordinal": "alpha, ordinal",
    "rank_correlation": "Spearman",
}  # fmt: skip
_MAJORITY = {"one_labeler": "one labeler", "mode_of_three": "mode of three", "leave_one_out": "with most others"}


@dataclass(frozen=True)
class AgreementConfig:
    """Settings of `rein label agreement`."""

    project: str = setting(help="the project's name")
    store: str = setting("labels.db", _STORE)
    batch: str | None = setting(None, "only the items of this batch")
    json: bool = setting(False, "everything that the page shows, as JSON")


def agreement_command(config: AgreementConfig) -> None:
    """How far labelers and researchers agree, whether sides or lengths are preferred, and how sure that is.

    Percent ± one standard error, with the 95% interval behind; pairs in which one of the two said neither are left out,
    as the papers do. What cannot be told says why, below. docs/how-to/read-agreement.md has each formula.

    Examples
      rein label agreement --project summaries
      rein label agreement --project summaries --batch batch3 --json > agreement.json
    """
    with Store.open(config.store, to_read=True) as store, store.reading() as conn, _told():
        found = report(conn, config.project, config.batch)
    if config.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    people = found["people"]
    print(
        f"{one_line(found['project'])}: {count(found['answers'], 'answer')} on {count(found['items'], 'item')}, by "
        f"{count(people['labelers'], 'labeler')} and {count(people['researchers'], 'researcher')}"
    )
    if apart := found["not_compared"]:
        print(f"{count(apart, 'answer')} for practice or with a known right answer: not compared, but under gold")
    for question in found["questions"]:
        print(f"\n{one_line(question['name'])} ({question['kind']})")
        rows = list(_rows(question))
        print("\n".join(table([("  ", "", "95%", "n"), *(cells for cells, _ in rows)], "<<<>")))
        reasons: dict[str, list[str]] = {}
        for (title, *_), why in rows:
            if why:
                reasons.setdefault(why, []).append(title.strip())
        for why, titles in reasons.items():
            text = f"{why} ({'; '.join(titles)})"
            print(textwrap.fill(text, _WIDTH, initial_indent="  – ", subsequent_indent="    "))


def _rows(question: dict[str, Any]) -> Iterator[_Row]:
    for aspect in question["aspects"]:
        name = "" if aspect is question["aspects"][0] else f", {one_line(aspect['name'])}"
        yield from (_row(f"{title}{name}", aspect["agreement"][group]) for group, title in _GROUPS.items())
        for key, title in _MAJORITY.items() if "majority" in aspect else ():
            yield _row(f"{title}{name}", aspect["majority"][key])
        for key, title in _BEYOND.items():
            if key in aspect["beyond_chance"]:
                yield _row(f"{title}{name}", aspect["beyond_chance"][key], percent=False)
    if question["bias"]:
        yield _row("left side chosen", question["bias"]["left"])
        yield _row("longer text chosen", question["bias"]["longer"])
    yield _row("repeats alike", question["repeats"]["same"])
    yield _row("gold", question["gold"]["accuracy"])
    for each in question["drift"]:
        a, b = (one_line(name) or "–" for name in each["policies"])
        yield _row(f"{a} over {b}, change a week", each["trend"])


def _row(title: str, number: Number, *, percent: bool = True) -> _Row:
    title = f"  {cut(title, _TITLE)}"
    if number["value"] is None:
        return (title, "–", "", ""), number["why"]
    scale, digits = (100, 1) if percent else (1, 3)
    unit = "%" if percent else ""
    value, low, high = (f"{number[name] * scale:.{digits}f}" for name in ("value", "low", "high"))
    around = "" if number["se"] is None else f" ± {number['se'] * scale:.{digits}f}"
    return (title, f"{value}{around}{unit}", f"{low} to {high}", f"{number['n']:,}"), ""


@dataclass(frozen=True)
class PrioritiseConfig:
    """Settings of `rein label prioritise`."""

    project: str = setting(help="the project's name")
    store: str = setting("labels.db", _STORE)
    by: Literal["scores", "disagreement"] = setting("scores", "a reward model's doubt, or people's votes so far")
    scores: Path | None = setting(None, 'JSON lines {"key", "scores": [[member 1], [member 2], …]}; for --by scores')
    scorer: str | None = setting(None, "package.module:Name, called with (context, texts); for --by scores")
    question: str | None = setting(None, "whose answers are the votes; without it, the first that compares")
    sure: float | None = setting(None, "close items whose majority is as sure as this, like 0.95")


def prioritise(config: PrioritiseConfig) -> None:
    """Puts the items first of which an answer is expected to tell most.

    By scores: where the members of an ensemble of reward models are sure and differ (BALD). By disagreement: where one
    more vote tells most about how many people prefer the first. The project's uniform_share of the work stays in the
    seeded order, for numbers that hold for all items. Repeat the command as answers or models change.

    Examples
      rein label prioritise --project summaries --by disagreement --sure 0.95
      rein label prioritise --project summaries --scores doubts.jsonl
      rein label prioritise --project summaries --scorer my.rewards:ensemble
    """
    if config.by == "scores" and (config.scores is None) == (config.scorer is None):
        raise UserError(
            "--by scores needs one of --scores and --scorer.", "Give --scores FILE.jsonl, or --by disagreement."
        )
    if config.by == "disagreement" and (config.scores or config.scorer):
        raise UserError("--scores and --scorer are for --by scores.", "Leave out --by disagreement, or leave them out.")
    if config.sure is not None and (config.by == "scores" or not 0.5 < config.sure < 1):
        raise UserError(
            f"--sure is {config.sure}, but it is for --by disagreement and must be above 0.5 and below 1.",
            "Use --by disagreement --sure 0.95.",
        )
    scorer = load_object(config.scorer, "--scorer") if config.scorer else None

    def work(conn: Connection) -> tuple[Selected, float]:
        project_id, project = load_project(conn, config.project)
        if config.by == "disagreement":
            found = prioritise_by_disagreement(conn, project_id, config.question, sure=config.sure)
        else:
            scores = scores_of(conn, project_id, scorer) if config.scores is None else read_scores(config.scores)
            found = prioritise_by_scores(conn, project_id, scores)
        about = {
            "project": config.project,
            "by": config.by,
            "items": len(found.information),
            "closed": len(found.closed),
        }
        audit(conn, int(time.time() * 1000), None, "prioritise", about)
        return found, project.uniform_share

    with Store.open(config.store) as store, _told():
        found, uniform = store.write(work)
    values = sorted(found.information.values(), reverse=True)
    print(f"items in order    {count(len(values), 'open item')}; {uniform:.0%} of the work stays in the seeded order")
    if values:
        first, middle, last = values[0], values[len(values) // 2], values[-1]
        print(
            f"an answer tells   {first:.3f} nats of the first, {middle:.3f} of the middle one, {last:.3f} of the last"
        )
    if found.closed:
        print(f"closed            {count(len(found.closed), 'item')} whose majority is as sure as {config.sure}")
    if found.unknown:
        print(f"not placed        {count(len(found.unknown), 'key')} of no open item: {one_line(found.unknown[0], 60)}")


@contextmanager
def _told() -> Iterator[None]:
    """What the desk refuses, as a message."""
    try:
        yield
    except Refused as refused:
        raise UserError(refused.text, "Check --project, --batch and --store.") from None
