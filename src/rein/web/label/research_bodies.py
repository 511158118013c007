"""What researchers may ask of the API, field by field, each with its cap (bodies.py has the labelers' part).

Flow     JSON that was read strictly (guard.py) → a body here → a route of research*.py
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rein.web.label.bodies import MAX_GUIDELINE, NO_NUL, Body, Id, Json, Name, Short, Words

Role = Literal["labeler", "researcher", "admin"]
ItemRole = Literal["work", "calibration", "gold", "onboarding", "drift"]
State = Literal["training", "working", "stopped"]
Hours = Annotated[float, Field(gt=0, le=24 * 366)]


class Settings(Body):
    """A project's settings: as project.Project reads them, or a preset and what differs from it."""

    preset: Short | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class Change(Body):
    """Settings that change; the others stay."""

    settings: dict[str, Any]


class Close(Body):
    """Whether a project hands out nothing."""

    closed: bool


class Gold(Body):
    """What is right, in the order of the candidates, and why."""

    answers: Annotated[dict[Name, Json], Field(min_length=1, max_length=50)]
    why: Annotated[str, Field(max_length=2_000, pattern=NO_NUL)] = ""


class ItemChange(Body):
    """What changes of an item; what is not named stays."""

    gold: Gold | None = None
    priority: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    closed: bool | None = None
    role: ItemRole | None = None


class Membership(Body):
    """Where somebody stands in a project."""

    person: Id
    state: State
    confident: Annotated[int, Field(ge=0, le=4)] | None = None


class PersonChange(Body):
    """What changes of a person."""

    active: bool | None = None
    role: Role | None = None


class Invite(Body):
    """An invitation: for a new person, or to let somebody in again."""

    role: Role = "labeler"
    project: Name | None = None
    person: Id | None = None
    uses: Annotated[int, Field(ge=1, le=1000)] = 1
    hours: Hours = 72.0


class NewKey(Body):
    """A key by which a program may do what its owner may."""

    label: Short
    hours: Hours = 24 * 30.0


class NewMessage(Body):
    """To one person of a project, or to all."""

    to: Id | None = None
    text: Words


class Reply(Body):
    """The answer to a labeler's question."""

    reply: Words | None = None
    pinned: bool = False


class NewInstructions(Body):
    """The next version of what stands beside the task."""

    text: Annotated[str, Field(max_length=MAX_GUIDELINE, pattern=NO_NUL)]


class Freeze(Body):
    """Whether a batch takes changes no more."""

    frozen: bool
