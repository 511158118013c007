"""`rein label simulate`: simulated labelers at work, through the same server and API as people.

Flow     people.py or invitations → sessions → claim, read, note, reveal, answer, submit, until nothing is left → counts

Their answers are rows like those of people; that they are simulated is a mark on the person.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Connection, select

from rein.config import setting
from rein.errors import UserError
from rein.feedback import client as api
from rein.feedback import people, tables
from rein.feedback.draw import read_prompts
from rein.feedback.items import load_project
from rein.feedback.labelers import (
    Answered,
    GoldScore,
    Habits,
    Labeler,
    Writer,
    by_length,
    from_references,
    lead,
    score_table,
)
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.progress import Progress, duration
from rein.report.legible import count, table
from rein.run import read_rows
from rein.text.sources import load_object

Json = Any
KEY_LIFE_MS = 24 * 3600 * 1000
REACHED_S = 10.0  # after which a server that does not answer is none
USUAL = 500  # items from which a labeler knows what is usual


@dataclass(frozen=True)
class SimulateLabelsConfig:
    """Settings of `rein label simulate`."""

    project: str = setting(help="the project that they work on")
    address: str = setting("http://127.0.0.1:8423", "the server, as `rein label serve` prints it", group="server")
    store: str = setting("labels.db", "the server's store: the labelers are added to it by name", group="server")
    invite: str = setting(
        "", "an invitation link with enough uses, instead of --store: for a server elsewhere", group="server"
    )
    labelers: int = setting(5, "how many work at once", unit="people")
    answers: int | None = setting(None, "items that each answers; all there are if not given", unit="items")
    name: str = setting("simulated", "their names: NAME-1, NAME-2, …; the same names go on as the same people")
    pause_s: float = setting(0.0, "between two answers of a labeler; 0: as fast as the server", unit="seconds")
    seed: int = setting(0, "of their judgements")

    gold: str = setting(
        "length", "how good a text is: length, a file of JSON lines that has each output's \"gold\", or "
        "package.module:Name, called with (context, text)",
        group="judgement",
    )  # fmt: skip
    references: Path | None = setting(
        None, "what demonstrations say: prompts with a reference, as `rein label draw` reads them; without it, the "
        "source's first three sentences",
        group="judgement",
    )  # fmt: skip
    temperature: float = setting(1.0, "P(i over j) = sigmoid(difference of gold / temperature)", group="judgement")
    noise: float = setting(0.0, "share of judgements turned around", group="judgement")
    side: float = setting(0.0, "pull of what is shown first", unit="logits", group="judgement")
    length: float = setting(0.0, "pull of length, per ln of the ratio", unit="logits", group="judgement")
    tie_below: float = setting(0.0, "a difference below it is a tie", unit="logits", group="judgement")
    spread: float = setting(0.0, "labelers differ: ln(temperature), side and length vary by so much", group="judgement")
    skip: float = setting(0.0, "share of items skipped", group="judgement")

    def __post_init__(self) -> None:
        if self.labelers < 1:
            raise UserError(f"--labelers is {self.labelers}, but at least 1 is needed.", "Leave it out for 5.")
        if self.answers is not None and self.answers < 1:
            raise UserError(f"--answers is {self.answers}, but it must be at least 1.", "Leave it out for all.")
        for name in ("pause_s", "spread"):
            if not getattr(self, name) >= 0:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)}, but it must be 0 or more.", f"Change {flag}.")
        api.checked_address(self.address)
        self.habits()

    def habits(self) -> Habits:
        """What all of them have in common."""
        return Habits(
            temperature=self.temperature, noise=self.noise, side=self.side, length=self.length,
            tie_below=self.tie_below, skip=self.skip,
        )  # fmt: skip

    def enough(self, tally: Tally) -> bool:
        """Whether one of them has done what was asked for."""
        return self.answers is not None and tally.answered + tally.skipped >= self.answers

    def names(self) -> list[str]:
        """What they are called."""
        return [f"{self.name}-{number}" for number in range(1, self.labelers + 1)]


def simulate_labels(config: SimulateLabelsConfig) -> None:
    """Has simulated labelers answer a project's items, through the running server.

    They judge by a gold score, with noise and habits of their own, and see what people see: no names of models, no
    right answers. The same settings on the same items give the same answers.

    Examples
      rein label simulate --project tldr --labelers 5 --answers 100
      rein label simulate --project tldr --gold outputs.jsonl --temperature 0.5 --noise 0.25 --side 0.2
      rein label simulate --project tldr --gold my_rewards:Score --invite "https://labels.example.org/label/join#…"
    """
    wait_for(config.address)
    gold = gold_score(config.gold)
    write: Writer = lead
    if config.references is not None:
        prompts = read_prompts(config.references, fields=None)
        write = from_references((one.context, one.reference) for one in prompts if one.reference is not None)
    keys: Sequence[str | None] = [None] * config.labelers
    usual: tuple[float, ...] = ()
    if not config.invite:
        with Store.open(config.store) as store:
            keys = keys_of(store, config.project, config.names())
            usual = usual_scores(store, config.project, gold)
    habits, seed, spread = config.habits(), config.seed, config.spread
    labelers = crew(config.names(), gold, habits, seed=seed, spread=spread, scores=usual, write=write)
    began = time.monotonic()
    tallies = asyncio.run(_all(config, labelers, keys))
    _say(config, tallies, time.monotonic() - began)


def wait_for(address: str) -> None:
    """Goes on as soon as the server answers; says that it waits where that is not at once.

    Raises   UserError when it does not answer in REACHED_S.
    """
    for patience_s in (0.0, REACHED_S):
        try:
            with api.Client(address, patience_s=patience_s) as client:
                client.send(api.me())
        except api.Denied:
            return  # it is there, and nobody has come in yet
        except UserError:
            if patience_s:
                raise
            print(f"waiting for the server at {address}, {duration(REACHED_S)} at most", file=sys.stderr, flush=True)


def gold_score(name: str) -> GoldScore:
    """A gold score by its name, a file's, or that of an object of the user's.

    Raises   UserError when there is none.
    """
    if name == "length":
        return by_length
    if Path(name).is_file():
        return score_table(read_rows(Path(name)))
    if ":" not in name:
        raise UserError(f"--gold is {name!r}, which is no file.", "Give a file, package.module:Name, or length.")
    found: GoldScore = load_object(name, "--gold")
    return found


def crew(
    names: Sequence[str],
    gold: GoldScore,
    habits: Habits,
    *,
    seed: int = 0,
    spread: float = 0.0,
    scores: tuple[float, ...] = (),
    write: Writer = lead,
) -> list[Labeler]:
    """Labelers that judge by one gold score; with `spread`, no two of them alike. `scores`: the usual ones."""
    made = []
    for name in names:
        random = np.random.default_rng([seed, *name.encode()])
        warmth, side, length = (spread * random.standard_normal(3)).tolist()
        own = replace(
            habits, temperature=habits.temperature * float(np.exp(warmth)), side=habits.side + side,
            length=habits.length + length,
        )  # fmt: skip
        made.append(Labeler(name, gold, own, seed, scores, write))
    return made


# --------------------------------------------------------------------------------------------------------- a shift


@dataclass
class Tally:
    """What one labeler did."""

    answered: int = 0
    skipped: int = 0
    late: int = 0
    ended: str = "enough"  # or the server's word for why there was no more


class Sender(Protocol):
    """What sends calls for one person: client.AsyncClient."""

    async def send(self, call: api.Call) -> Json:
        """The server's answer."""


async def at_work(
    client: Sender,
    labeler: Labeler,
    project: str,
    *,
    enough: Callable[[Tally], bool] = lambda tally: False,
    pause: Callable[[], float] = lambda: 0.0,
    on_answer: Callable[[Mapping[str, Json], Answered], None] = lambda card, said: None,
) -> Tally:
    """One labeler, item after item, until there is none or it is `enough`; what was claimed ahead is given back.

    pause       seconds to think before each answer
    on_answer   hears of each one when the server has acknowledged it

    Raises   api.Denied when the server refuses what a person could have done; UserError when it does not answer.
    """
    tally = Tally()
    cards: list[Mapping[str, Json]] = []
    while not enough(tally):
        if not cards:
            got = await client.send(api.claim(project, 2))
            cards = list(got["items"])
            if not cards:
                tally.ended = got["nothing"] or "nothing now"
                return tally
        said = await answer_one(client, labeler, cards.pop(0), tally, pause())
        on_answer(*said)
    if cards:
        await client.send(api.release([card["assignment"] for card in cards]))
    return tally


async def answer_one(
    client: Sender, labeler: Labeler, card: Mapping[str, Json], tally: Tally, pause_s: float = 0.0
) -> tuple[Mapping[str, Json], Answered]:
    """Reads, notes, has the source shown, thinks, answers or skips."""
    assignment, notes = card["assignment"], None
    if card["staged"]:
        notes = card["notes"] or labeler.notes(card)
        if not card["revealed"]:
            card = await client.send(api.reveal(assignment, notes))
    said = labeler.answer(card)
    if pause_s > 0:
        await asyncio.sleep(pause_s)
    if said.skipped:
        await client.send(api.skip(assignment, said.skipped))
        tally.skipped += 1
    else:
        done = await client.send(api.submit(card, said.answers, notes=notes, times=said.times))
        tally.answered += 1
        tally.late += bool(done["late"])
    return card, said


# ------------------------------------------------------------------------------------------------------ coming in


def keys_of(store: Store, project: str, names: Sequence[str]) -> list[str]:
    """A key of each, for a day; whoever is new is added, marked as simulated, and made a member of the project.

    Raises   UserError when a name belongs to a person who is not simulated, or there is no such project.
    """

    def work(conn: Connection) -> list[str]:
        now = int(time.time() * 1000)
        project_id, settings = load_project(conn, project)
        keys = []
        for name in names:
            person = people.find_person(conn, name)
            if person is None:
                person = people.add_person(conn, now, name, "labeler", simulated=True)
            elif not conn.execute(select(tables.person.c.simulated).where(tables.person.c.id == person)).scalar_one():
                raise UserError(f"{name} is a person of this store, not a simulated one.", "Choose another --name.")
            mine = (tables.member.c.project == project_id) & (tables.member.c.person == person)
            if conn.execute(select(tables.member.c.state).where(mine)).first() is None:
                people.join(conn, now, project_id, person, "training" if settings.onboarding else "working")
            keys.append(people.open_session(conn, now, person, "key", "rein label simulate", KEY_LIFE_MS))
        people.audit(conn, now, None, "simulate labelers", {"project": settings.name, "names": list(names)})
        return keys

    try:
        return store.write(work)
    except Refused as refused:
        raise UserError(refused.text, "Name a project of this store, or another --store.") from None


def usual_scores(store: Store, project: str, gold: GoldScore) -> tuple[float, ...]:
    """The gold scores of a project's first candidates, ascending: what a rating of the middle means."""
    item = tables.item.c
    with store.reading() as conn:
        number, _ = load_project(conn, project)
        rows = conn.execute(
            select(item.context, item.candidates).where(item.project == number).order_by(item.id).limit(USUAL)
        ).all()
    return tuple(sorted(gold(row.context, one["text"]) for row in rows for one in row.candidates))


async def _all(config: SimulateLabelsConfig, labelers: Sequence[Labeler], keys: Sequence[str | None]) -> list[Tally]:
    total = None if config.answers is None else config.answers * config.labelers
    with Progress("labeling", total=total, unit="answers") as bar:

        async def one(labeler: Labeler, key: str | None) -> Tally:
            async with api.AsyncClient(config.address, key=key) as client:
                if key is None:
                    token = config.invite.rpartition("#")[2]
                    await client.send(api.join(token, labeler.name, secrets.token_urlsafe(24)))
                return await at_work(
                    client, labeler, config.project, enough=config.enough, pause=lambda: config.pause_s,
                    on_answer=lambda card, said: bar.advance(),
                )  # fmt: skip

        try:
            return await asyncio.gather(*map(one, labelers, keys))
        except api.Denied as denied:
            raise UserError(
                f"The server says: {denied.text}", "Put that right, and run the same command again."
            ) from None


def _say(config: SimulateLabelsConfig, tallies: Sequence[Tally], took_s: float) -> None:
    rows = [("labeler", "answered", "skipped", "late", "ended")]
    for name, tally in zip(config.names(), tallies, strict=True):
        rows.append((name, f"{tally.answered:,}", f"{tally.skipped:,}", f"{tally.late:,}", tally.ended))
    print("\n".join(table(rows, "<>>><")))
    print(f"{count(sum(tally.answered for tally in tallies), 'answer')} in {duration(took_s)}")
