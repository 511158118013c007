"""What requests may say and what answers hold, field by field, each with its cap.

Flow     JSON that was read strictly (guard.py) → a body here → a route; rows of the store → a `Card` here → a labeler

A field that is not here is an error on the way in and cannot leave on the way out: a labeler's card has no room for the
name of a model, for an item's role, or for what others said.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rein.feedback.database import to_json
from rein.feedback.project import MAX_SHOWN

INT64 = 2**63 - 1
MAX_TEXT = 20_000  # characters of a written answer, a question, a message; kinds.py has the same
MAX_GUIDELINE = 200_000
MAX_PREFERENCES = 4_096  # bytes of JSON
NO_NUL = r"^[^\x00]*$"

Id = Annotated[int, Field(ge=0, le=INT64)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=NO_NUL)]
Key = Annotated[
    str, Field(min_length=16, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$", description="made once per action")
]
Token = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Password = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Words = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=NO_NUL)]
Reason = Annotated[str, Field(min_length=1, max_length=2_000, pattern=NO_NUL)]
Short = Annotated[str, Field(max_length=200, pattern=NO_NUL)]
Json = Any


class Body(BaseModel):
    """A request's JSON: exact types, no unknown names."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """An answer's JSON: what is named here, and nothing else."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """What was wrong: a word for programs, a sentence for people."""

    code: str
    text: str


class Trouble(Answer):
    """Every error of the API."""

    error: Problem


class Done(Answer):
    """It is done; there is nothing more to say."""


# ----------------------------------------------------------------------------------------------------------- who it is


class Login(Body):
    """A name and a password."""

    name: Name
    password: Password


class Enter(Body):
    """The one-time token of a link."""

    token: Token


class Join(Body):
    """An invitation taken up."""

    token: Token
    name: Name
    password: Password


class NewPassword(Body):
    """`old` is null for a person who has none yet."""

    old: Password | None = None
    new: Password


def _small(value: dict[str, Json]) -> dict[str, Json]:
    # Every page's first request brings it, of everybody.
    length = len(to_json(value).encode())
    if length > MAX_PREFERENCES:
        raise ValueError(f"as JSON it has {length:,} bytes, but at most {MAX_PREFERENCES:,} are kept")
    return value


class Preferences(Body):
    """What the pages remember of a person: small, and theirs alone."""

    preferences: Annotated[dict[Short, Json], Field(max_length=50), AfterValidator(_small)]


class Seen(Body):
    """Messages that were read."""

    messages: Annotated[list[Id], Field(max_length=1000)]


class Me(Answer):
    """Who somebody is, after they came in."""

    name: str
    role: str


class SessionRow(Answer):
    """A browser or a key by which somebody is in."""

    id: str
    kind: str
    label: str
    created_ms: int
    seen_ms: int
    expires_ms: int
    this: bool


class Sessions(Answer):
    """A person's sessions, newest first."""

    sessions: list[SessionRow]


# ------------------------------------------------------------------------------------------------------------ the work


class Asked(Answer):
    """A question as a labeler meets it."""

    name: str
    kind: str
    text: str
    points: int
    axes: list[str]
    flags: dict[str, str]
    ties: bool
    required: bool
    rubric: dict[str, str]


class Shown(Answer):
    """One candidate on the screen: its text."""

    text: str


class Card(Answer):
    """One item on one person's screen. Candidates, notes and answers are in the order of the screen."""

    assignment: int
    revision: int
    lease_ms: int
    practice: bool
    context: dict[str, Json] | None
    fields: list[str]
    staged: bool
    revealed: bool
    candidates: list[Shown]
    questions: list[Asked]
    instructions: int
    diff: Literal["off", "on", "never"]
    show_length: bool
    answers: dict[str, Json] | None
    notes: list[str] | None


class Claim(Body):
    """Asks for work."""

    project: Name
    count: Annotated[int, Field(ge=1, le=2)] = 1


class Cards(Answer):
    """Work, or why there is none."""

    items: list[Card]
    nothing: Literal["all done", "stopped", "failed training", "closed"] | None
    server_ms: int


Notes = Annotated[list[Annotated[str, Field(max_length=2_000, pattern=NO_NUL)]], Field(max_length=MAX_SHOWN)]


class Reveal(Body):
    """What a person makes of each candidate before they see the source."""

    key: Key
    assignment: Id
    notes: Notes


class Times(Body):
    """Milliseconds, as the page measured them."""

    active_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 0
    reading_ms: Annotated[int, Field(ge=0, le=86_400_000)] | None = None
    stages_ms: (
        Annotated[list[Annotated[int, Field(ge=0, le=86_400_000)]], Field(max_length=20)]
        | Annotated[dict[Short, Annotated[int, Field(ge=0, le=86_400_000)]], Field(max_length=20)]
        | None
    ) = None


class Submit(Body):
    """Answers to all questions of a card at once."""

    key: Key
    assignment: Id
    revision: Id
    answers: Annotated[dict[Name, Json], Field(max_length=50)]
    notes: Notes | None = None
    diff: bool = False
    times: Times = Field(default_factory=Times)


class Teach(Answer):
    """After a practice item: what is right, in the order of the screen, and why."""

    agreed: bool
    share: float
    right: dict[str, Json]
    why: str


class Training(Answer):
    """How the practice round goes."""

    done: int
    of: int
    agreed: float | None
    median_s: float | None
    state: str
    let_in: bool = False  # by a researcher, whatever the mark


class Submitted(Answer):
    """An answer that is on disk."""

    late: bool
    revision: int
    teach: Teach | None
    training: Training | None


class Skip(Body):
    """Why a person cannot answer."""

    key: Key
    assignment: Id
    reason: Reason


class Undo(Body):
    """Takes the last answer of an assignment back."""

    key: Key
    assignment: Id


class Ask(Body):
    """A question to the researchers about an item."""

    key: Key | None = None
    assignment: Id
    text: Words


class Asking(Answer):
    """The thread that a question opened."""

    thread: int


class Some(Body):
    """Some assignments."""

    assignments: Annotated[list[Id], Field(max_length=100)]


class Leases(Answer):
    """Until when each is theirs."""

    leases: dict[str, int]


class Pinned(Answer):
    """A question whose reply everybody should know."""

    text: str
    reply: str


class Version(Answer):
    """One version of the instructions."""

    version: int
    at_ms: int


class Instructions(Answer):
    """What stands beside the task."""

    version: int
    text: str
    versions: list[Version]
    pinned: list[Pinned]


class Done50(Answer):
    """One item of the last fifty."""

    assignment: int
    at_ms: int
    state: str
    head: str


class History(Answer):
    """What a person did last, newest first."""

    items: list[Done50]


class Thread(Answer):
    """A labeler's own question and what was replied."""

    id: int
    text: str
    at_ms: int
    reply: str | None
    replied_ms: int | None
    pinned: bool
    head: str


class Threads(Answer):
    """A labeler's own questions, newest first."""

    threads: list[Thread]


class Message(Answer):
    """What a researcher wrote."""

    id: int
    author: str
    text: str
    at_ms: int
    seen: bool
    project: str


class MyProject(Answer):
    """A project that a person works on."""

    name: str
    title: str
    state: str
    closed: bool
    staged: bool
    questions: list[Asked]
    empty: bool  # nobody has put items into it
    mine: int  # items answered, practice apart
    training: Training | None


class Home(Answer):
    """All that the first page shows."""

    name: str
    role: str
    has_password: bool
    preferences: dict[str, Json]
    messages: list[Message]
    projects: list[MyProject]
