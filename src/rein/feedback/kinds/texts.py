"""Kinds that a person writes: demonstration, edit, notes, skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from rein.feedback.kinds.kind import (
    MOST_NOTE,
    MOST_TEXT,
    BadValue,
    Example,
    Json,
    Kind,
    Value,
    fields,
    listed,
    moved,
    text,
    whole,
)
from rein.feedback.project import MAX_SHOWN, Question

if TYPE_CHECKING:
    from torch import Tensor


@final
class Demonstration(Kind):
    """What a good answer to the context is, written by the person."""

    name = "demonstration"
    says = "A good answer, written by the person."
    words = "Write the answer that you would like to read."
    schema = f'{{"text": up to {MOST_TEXT:,} characters}}'
    least, most = 0, MAX_SHOWN
    outputs = "the log-probability of each token of the text, shape (T,)"
    formula = "−(1/T) Σ_t log π(token_t | the context, the tokens before)"
    source = "Ouyang 2022, section 3.5 (supervised fine-tuning)"
    example = Example(
        Question("demonstration", "demonstration"), {"text": "Yes."}, [-0.5, -1.5], 1.0, "(0.5 + 1.5) / 2 = 1"
    )

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A text that says something."""
        return {"text": text(fields(value, ["text"])["text"], "text", MOST_TEXT, blank=not strict)}

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Mean negative log-probability of the tokens."""
        import torch

        from rein.losses import demonstration

        return demonstration(outputs[None], torch.ones_like(outputs[None], dtype=torch.bool))[0]


@final
class Edit(Kind):
    """One of the candidates, put right by the person."""

    name = "edit"
    says = "One of the candidates, corrected by the person."
    words = "Correct it."
    schema = f'{{"candidate": its number, from 0, "text": up to {MOST_TEXT:,} characters, not the original}}'
    least, most = 1, MAX_SHOWN
    outputs = "the scores of the original and of the corrected text, shape (2,)"
    formula = "−log σ(r_corrected − r_original)"
    source = "the comparison of Stiennon 2020, section 3.4, whose better one is the corrected text"
    example = Example(
        Question("edit", "edit"), {"candidate": 0, "text": "Better."}, [1.0, 0.0], 1.3132617,
        "−log σ(0 − 1) = log(1 + e¹) = 1.3132617",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A text that differs from the candidate's, where `texts` are given."""
        row = fields(value, ["candidate", "text"])
        candidate = whole(row["candidate"], "candidate", 0, n - 1)
        corrected = text(row["text"], "text", MOST_TEXT, blank=not strict)
        if strict and texts is not None and corrected == texts[candidate]:
            raise BadValue("text is the original, but an edit changes something")
        return {"candidate": candidate, "text": corrected}

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The number of the candidate."""
        return {**value, "candidate": order[value["candidate"]]}

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """The corrected text as the better of two."""
        from rein.losses import pairwise

        return pairwise(outputs[1], outputs[0])


@final
class Notes(Kind):
    """Staged reading: what each candidate seems to say, written before the context is shown."""

    name = "notes"
    says = "Staged reading: what each seems to say, before the context is shown."
    words = "What does it seem to say?"
    schema = f'{{"notes": [up to {MOST_NOTE:,} characters for each candidate]}}'
    least, most = 1, MAX_SHOWN
    asked = False
    source = "Stiennon 2020, Appendix C (naive interpretation)"

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A note for each candidate."""
        notes = listed(fields(value, ["notes"])["notes"], "notes", n)
        return {
            "notes": [text(note, f"note {place + 1}", MOST_NOTE, blank=not strict) for place, note in enumerate(notes)]
        }

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The notes by candidate."""
        return {"notes": moved(value["notes"], order)}


@final
class Skip(Kind):
    """Why a person did not answer."""

    name = "skip"
    says = "Why a person did not answer an item."
    words = "Why is it skipped?"
    schema = f'{{"reason": up to {MOST_NOTE:,} characters}}'
    least, most = 0, MAX_SHOWN
    asked = False
    source = "none: what a labeling tool needs"

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A reason."""
        return {"reason": text(fields(value, ["reason"])["reason"], "reason", MOST_NOTE, blank=not strict)}
