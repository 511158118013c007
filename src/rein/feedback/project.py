"""What a labeling project asks, of what, and how: the settings that a store keeps, and the papers' own ones by name.

Flow     a preset, or settings as JSON → `Project` → the store, the pages, the exports

A project has questions; each is of a kind (kinds.py) and is asked about the K candidates of an item. A person answers
all of them at once; each answer is a row.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rein.config import setting
from rein.errors import UserError, suggestion

Json = Any

# Stiennon 2020, Appendix C: the axes of the released evaluations.
AXES = ("overall", "accuracy", "coverage", "coherence")
# Ouyang 2022, Table 3: the metadata that labelers give of an output.
FLAGS = {
    "fails_task": "Fails to follow the correct instruction or task",
    "inappropriate": "Inappropriate for a customer assistant",
    "hallucination": "Hallucination",
    "satisfies_constraint": "Satisfies the constraint given in the instruction",
    "sexual": "Contains sexual content",
    "violent": "Contains violent content",
    "encourages_harm": "Encourages violence, abuse, terrorism or self-harm, or fails to discourage it",
    "denigrates": "Denigrates a protected class",
    "harmful_advice": "Gives harmful advice",
    "opinion": "Expresses an opinion",
    "moral_judgment": "Expresses a moral judgment",
}
MAX_SHOWN = 9  # candidates of an item: Ouyang 2022 ranks 4 to 9


@dataclass(frozen=True)
class Question:
    """One question about an item's candidates."""

    name: str = setting(help="its name in answers and exports")
    kind: str = setting(help="of the kinds of feedback")
    text: str = setting("", "as the labeler reads it; empty: the kind's own words")
    points: int = setting(9, "of the scale", unit="points", paper="9 for a comparison, 7 for ratings and axes")
    axes: tuple[str, ...] = setting(AXES, "of a likert question")
    flags: tuple[str, ...] = setting(tuple(FLAGS), "of a flags question")
    ties: bool = setting(True, "whether two may be equal")
    required: bool = setting(True, "whether an item can be handed in without it")
    rubric: Mapping[str, str] = dataclasses.field(
        default_factory=dict, metadata=setting(help="what points of the scale mean, by point").metadata
    )


@dataclass(frozen=True)
class Project:
    """The settings of a project. A change of them is in the audit log; what was answered keeps what it was asked.

    Source   Stiennon 2020, Appendix C (staged reading, 9 points, shared pool of 10 to 20%, onboarding with a mark);
             Ouyang 2022, section 3.4 and Appendix B (a rating and metadata of each output, then a ranking with ties).
    """

    name: str = setting(help="of the project, in addresses and commands")
    title: str = setting("", "as labelers read it; empty: the name")
    questions: tuple[Question, ...] = setting((), "what is asked about an item's candidates, all at once")
    fields: tuple[str, ...] = setting((), "of an item's context, as shown from top to bottom; none: all")
    staged: bool = setting(
        False, "a naive interpretation of each candidate before the context is shown", paper="yes (Stiennon)"
    )
    overlap: int = setting(1, "how many people answer an item", unit="people")
    order: Literal["seeded", "given"] = setting("seeded", "how items of one priority follow each other")
    seed: int = setting(0, "of sides, of the order of items, and of what comes next")
    lease_s: int = setting(1800, "how long an item is somebody's without a sign of life", unit="s")
    ahead: int = setting(2, "how many a person may hold: the one shown, and the next", unit="items")
    calibration_share: float = setting(0.15, "of a person's items: the ones that everybody gets", paper="0.1 to 0.2")
    gold_share: float = setting(0.02, "of a person's items: ones with a known answer")
    repeat_share: float = setting(0.03, "of a person's items: their own again, with the sides mirrored")
    drift_share: float = setting(0.0, "of a person's items: fixed pairs, by which a change over weeks is seen")
    uniform_share: float = setting(0.2, "of the work: in the seeded order, whatever its priority")
    onboarding: int = setting(0, "practice items before work; 0: none", unit="items")
    pass_agreement: float = setting(0.7, "with the right answers of the practice items, at least")
    pass_median_s: float = setting(0.0, "for a practice item, at most; 0: no limit", unit="s")
    diff: Literal["off", "on", "never"] = setting(
        "off", "marking what only one candidate says: as it starts, or not offered at all"
    )
    show_length: bool = setting(False, "the number of words beside each candidate")

    @classmethod
    def from_json(cls, settings: Mapping[str, Json]) -> Project:
        """What `to_json` gave. Of settings that somebody wrote, `project_of` says what is wrong with them."""
        values: dict[str, Any] = {**settings, "fields": tuple(settings.get("fields", ()))}
        rows = ({**row, "axes": tuple(row.get("axes", AXES)), "flags": tuple(row.get("flags", FLAGS))}
                for row in settings.get("questions", ()))  # fmt: skip
        return cls(**{**values, "questions": tuple(Question(**row) for row in rows)})

    def to_json(self) -> dict[str, Json]:
        """What `from_json` reads."""
        return dataclasses.asdict(self)

    def question(self, name: str) -> Question:
        """A question by its name. Raises KeyError."""
        return {one.name: one for one in self.questions}[name]


# In an address they lead elsewhere: to a page that is no project's, or to the folder above.
_NOT_NAMES = ("people", "audit", ".", "..")


def project_of(settings: Mapping[str, Json]) -> Project:
    """A project's settings as somebody wrote them: known names, and of each the type that it has.

    The ranges are checked where the project is made (items.create_project).

    Example  >>> project_of({"name": "tldr", "overlap": 3}).overlap
             3
    Raises   UserError for a name that is none, a value of another type, and a project whose page has no address.
    """
    try:
        for what, names, known in (("project", settings, Project), *_questions_of(settings)):
            fields = [one.name for one in dataclasses.fields(known)]
            for name in names:
                if name not in fields:
                    raise UserError(f"A {what} has no setting {name!r}.", suggestion(name, fields))
        project = Project.from_json(settings)
        # As JSON, strictly: a list for a tuple is right there, a text for a number is not.
        _shape().validate_json(json.dumps(project.to_json()), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"The setting {where} cannot be this: {first['msg']}.", "Correct it.") from None
    except (TypeError, ValueError, AttributeError):
        raise UserError(
            "These are not the settings of a project.", "A project has names and values; each question a name and kind."
        ) from None
    if project.name in _NOT_NAMES:
        raise UserError(
            f"A project cannot be called {project.name!r}: its page could not be reached.", "Call it otherwise."
        )
    return project


def _questions_of(settings: Mapping[str, Json]) -> list[tuple[str, Mapping[str, Json], type[Any]]]:
    return [("question", row, Question) for row in settings.get("questions", ())]


@functools.cache
def _shape() -> TypeAdapter[Project]:
    return TypeAdapter(Project)


# The ends and the middle of seven points. Stiennon 2020, Appendix C, describes the same three, for each axis.
_GOOD = {"1": "very poor", "4": "acceptable", "7": "excellent"}
_ON_AXIS = {"1": "fails", "4": "half right: real faults, still of use", "7": "nothing to improve"}
_OVERALL = Question("overall", "rating", "How good is each output?", points=7, rubric=_GOOD)
# What the papers asked, by name: `rein label new NAME --preset comparison`.
PRESETS: dict[str, Project] = {
    # Stiennon 2020, Appendix C.
    "comparison": Project("comparison", staged=True, questions=(Question("choice", "comparison", "Which is better?"),)),
    "axes": Project("axes", staged=True, questions=(Question("axes", "likert", points=7, rubric=_ON_AXIS),)),
    # Ouyang 2022, section 3.4.
    "instructgpt": Project(
        "instructgpt",
        questions=(_OVERALL, Question("metadata", "flags", required=False), Question("ranking", "ranking")),
    ),
    # Ziegler 2019, label_types.py.
    "best-of": Project("best-of", questions=(Question("best", "best_of"),)),
    "rating": Project("rating", questions=(Question("rating", "rating", points=7, rubric=_GOOD),)),
    "ranking": Project("ranking", questions=(Question("ranking", "ranking"),)),
    "demonstration": Project("demonstration", questions=(Question("demonstration", "demonstration"),)),
    "edit": Project("edit", questions=(Question("edit", "edit"),)),
}
