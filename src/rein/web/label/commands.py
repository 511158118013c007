"""`rein label new`, `invite`, `people` and `backup`: what is done to a store from the command line, served or not.

Flow     flags → the store's one writer → a line that says what was done, and what comes next
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from rein.config import setting, settings_in
from rein.errors import UserError, suggestion
from rein.feedback import items, people
from rein.feedback.client import checked_address
from rein.feedback.project import PRESETS, project_of
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.report.legible import count, one_line, table
from rein.web.label.links import link_of
from rein.web.label.service import now_ms

HOUR_MS = 3_600_000
STORE = "the feedback store: an SQLite file, or postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True)
class NewConfig:
    """Settings of `rein label new`."""

    name: str = setting(help="the project's name", positional=True)
    store: str = setting("labels.db", f"{STORE}; made where there is none")
    preset: str = setting("comparison", f"what is asked: {', '.join(PRESETS)}")
    settings: Path | None = setting(None, "JSON file with settings of the project, over those of the preset")
    title: str = setting("", "the title that labelers read")


def new(config: NewConfig) -> None:
    """Makes a labeling project, and the store where there is none.

    The presets are what the papers asked. --settings changes any of a project's settings: docs/reference/feedback.md
    lists them, and the project's page, under Settings, shows and changes them.

    Examples
      rein label new summaries
      rein label new replies --preset instructgpt --title "Which reply is best?"
      rein label new summaries --store postgresql://rein@/labels --settings project.json
    """
    if config.preset not in PRESETS:
        raise UserError(f"There is no preset {config.preset!r}.", suggestion(config.preset, PRESETS))
    changed = settings_in(config.settings, "--settings") if config.settings else {}
    title = {"title": config.title} if config.title else {}
    project = project_of({**PRESETS[config.preset].to_json(), **changed, **title, "name": config.name})

    def do(conn: Connection) -> None:
        now = now_ms()
        items.create_project(conn, now, project)
        people.audit(conn, now, None, "make project", {"project": project.name, "settings": project.to_json()})

    with Store.open(config.store, create=True) as store:
        try:
            store.write(do)
        except Refused as refused:
            raise UserError(refused.text, "Choose another name, or correct the settings.") from None
        questions = ", ".join(f"{one.name} ({one.kind})" for one in project.questions)
        print(f"project           {one_line(project.name)}: {questions}")
        print(f"store             {store.address}")
        print(f"items             rein label import FILE --store {config.store} --project {project.name}")
        print(f"serve             rein label serve {config.store}")


@dataclass(frozen=True)
class InviteConfig:
    """Settings of `rein label invite`."""

    store: str = setting("labels.db", STORE, positional=True)
    role: Literal["labeler", "researcher", "admin"] = setting("labeler", "what the guests may do")
    project: str = setting("", "the project whose members they become")
    person: str = setting("", "let this person in again, once, instead of new ones")
    uses: int = setting(1, "how many new people it lets in")
    hours: float = setting(72.0, "how long it is good", unit="hours")
    address: str = setting("http://127.0.0.1:8423", "where the server is for them: http://… or https://…")


def invite(config: InviteConfig) -> None:
    """Prints a link that lets people in: new ones, who choose a name and a password, or one who forgot theirs.

    Examples
      rein label invite --project summaries --uses 10
      rein label invite --role researcher --address https://labels.example.org
      rein label invite --person Ann
    """
    address = checked_address(config.address)
    if not 0 < config.hours <= 24 * 366:
        raise UserError(f"--hours is {config.hours}, but it must be above 0, and a year at most.", "Use --hours 72.")

    def do(conn: Connection) -> str:
        now = now_ms()
        person = people.find_person(conn, config.person) if config.person else None
        if config.person and person is None:
            raise UserError(f"There is no person {config.person!r}.", "`rein label people` lists them.")
        project = None
        if config.project:
            try:
                project, _ = items.load_project(conn, config.project)
            except Refused as refused:
                raise UserError(refused.text, "Make it with `rein label new`.") from None
        life_ms = round(config.hours * HOUR_MS)
        token = people.invite(conn, now, config.role, project=project, person=person, uses=config.uses, life_ms=life_ms)
        about = {"role": config.role, "project": config.project, "person": config.person, "uses": config.uses}
        people.audit(conn, now, None, "invite", {**about, "hours": config.hours})
        return token

    with Store.open(config.store) as store:
        token = store.write(do)
    print(link_of(f"{address}/label", token, again=bool(config.person)))


@dataclass(frozen=True)
class PeopleConfig:
    """Settings of `rein label people`."""

    store: str = setting("labels.db", STORE, positional=True)


def list_people(config: PeopleConfig) -> None:
    """Lists who is known to a store: role, whether they can log in, whether they are let in.

    Examples
      rein label people
    """
    with Store.open(config.store, to_read=True) as store, store.reading() as conn:
        rows = people.everybody(conn)
    cells = [
        [
            one_line(row["name"]), row["role"], "simulated" if row["simulated"] else "person",
            "password" if row["password"] else "no password", "in" if row["active"] else "out",
        ]
        for row in rows
    ]  # fmt: skip
    print(count(len(rows), "person").replace("persons", "people"))
    if cells:
        print("\n".join(table([["name", "role", "what", "enters by", "let in"], *cells], "<<<<<")))


@dataclass(frozen=True)
class BackupConfig:
    """Settings of `rein label backup`."""

    out: Path = setting(help="file to write; it must not exist", positional=True)
    store: str = setting("labels.db", STORE)


def backup(config: BackupConfig) -> None:
    """Writes a checked copy of a store, while it is in use.

    Of SQLite, the copy is a store like any other; of PostgreSQL, what pg_restore reads.

    Examples
      rein label backup labels-monday.db
      rein label backup labels.dump --store postgresql://rein@/labels
    """
    with Store.open(config.store, to_read=True) as store:
        store.backup(config.out)
        print(f"copied            {store.address} to {config.out}")
