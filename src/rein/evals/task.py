"""What an evaluation task is: problems, how they are asked, and what is right.

Flow     files in their official form → `Task.read(data, split)` → rows → `Task.ask(row)` → Problems, each asked the
         same for every number of shots → prompts.py puts shots in front → a model answers → Answers → metrics.py

A problem is asked in one of three ways, a task's in one of four:

    options       several (context, completion) pairs; the model's likelihood of each completion behind its context
                  decides. Usual multiple choice has one context and many completions; the partial scoring of
                  Winograd's schemas many contexts and one completion ("choice"). A single completion asks whether it
                  is what the model itself would write ("cloze").
    answers       free form: the model writes, and any of the answers is right ("written")
    text          nothing is asked: how likely the text is ("text")

Source   Brown 2020 §2.4; Radford 2019 §3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rein.evals.data import Data, Row

Split = Literal["train", "dev", "test"]
Normalise = Literal["token", "answer", "character", "none"]
Form = Literal["choice", "written", "cloze", "text"]


@dataclass(frozen=True)
class Option:
    """One thing that may be chosen: a completion, and what stands in front of it (behind the shots)."""

    context: str
    completion: str  # with its leading space


@dataclass(frozen=True)
class Problem:
    """One question, as it is put to a model, and what is right.

    Of `options`, `gold` is the right one. Without options, `prompt` is what is continued and `answers` are right
    continuations, as people wrote them (no leading space). With neither, `text` is scored whole.

    `shot` is how the problem reads as an example: prompt and right answer, nothing around it. `alone` is how it is
    asked without any shots, where that reads differently (LAMBADA, translation).
    `tail` is what must stay at the end of a prompt that is too long: tokens in front of it go (a long article's end).
    Without one the prompt is never cut.
    `counts` says for how many examples it stands as a shot: a passage with four questions for four.
    Problems with one `passage` id are not independent; those with one `question` id are right or wrong together
    (MultiRC).
    """

    id: str
    prompt: str = ""
    shot: str = ""
    options: tuple[Option, ...] = ()
    gold: int | None = None
    answers: tuple[str, ...] = ()
    text: str = ""
    units: int = 0  # of `text`: how many words, characters or bytes it has as published
    alone: Problem | None = None
    tail: str | None = None
    counts: int = 1
    passage: str = ""
    question: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)  # "passage", "question", "answer": for contamination.py


@dataclass(frozen=True)
class Task:
    """One row of the paper's tables: where its problems come from, how they are scored, and by what.

    `read` gives the rows of a split, and raises UserError where there are no files; `ask` makes problems of a row, and
    raises BadRow where it cannot. A row is read and asked about alone, so that one bad row spoils no other.

    Names of `metrics` are those of metrics.py, the deciding one first. `published` is the name of the task's rows in
    published.py.
    """

    name: str  # as in `--tasks`
    title: str  # as the paper writes it
    read: Callable[[Data, Split], Iterable[Row]]
    ask: Callable[[Row], Iterable[Problem]]
    metrics: tuple[str, ...] = ("accuracy",)
    published: str = ""
    form: Form = "choice"  # of its problems

    # Shots
    shots: int = 0  # the paper's K; a cap, for not all of them fit into the context
    shots_from: Split = "train"  # may be the scored split itself: then a problem is never its own shot
    scored_on: Split = "test"  # the split whose score the paper prints
    chosen_on: Split | None = "dev"  # where K is chosen with `--shots dev`; None: the task has no such split
    draw: Literal["problem", "fixed"] = "problem"  # fresh shots for each problem, or the same for all
    description: str = ""  # the natural-language prompt, in front of everything
    described: Literal["always", "few", "none"] = "always"  # "few": only where there are shots
    separator: str = "\n\n"  # between shots, and before the problem

    # Multiple choice
    normalise: Normalise = "token"
    answer_context: str = "Answer:"  # of normalise="answer": log P(completion | context) − log P(completion | this)

    # Free form
    max_new_tokens: int = 32
    stop: str = "\n"  # an answer ends before it
    decode: Literal["beam", "greedy", "top2"] = "beam"  # top2: sampled from the two likeliest (Radford 2019 §3.6)
    cut: Callable[[str], str] = str  # what of the written text counts: the first sentences, say


@dataclass(frozen=True)
class Answer:
    """What a model said to one problem behind a number of shots.

    Shapes   logprobs, n_tokens, answer_logprobs: one number for each option, or one for the text that was written or
             scored.
    Units    logprobs: nats, summed over the completion's tokens; answer_logprobs: the same behind the task's
             answer context, where it normalises by that.
    """

    problem: Problem
    k: int  # shots asked for
    effective_k: int  # shots that fitted
    draw: int | None = None  # which of the grouped draws
    shots: tuple[str, ...] = ()  # the ids of the problems in front, in order
    logprobs: tuple[float, ...] = ()
    n_tokens: tuple[int, ...] = ()
    answer_logprobs: tuple[float, ...] = ()
    choice: int | None = None  # the option that was chosen
    text: str | None = None  # what was written, up to the stop
    # LAMBADA: is each option the greedy continuation, by all its tokens; by its last one; by all, no stop word allowed
    greedy: tuple[bool, ...] = ()
    greedy_last: tuple[bool, ...] = ()
    greedy_filtered: tuple[bool, ...] = ()
    last_logprobs: tuple[float, ...] = ()  # of each option's last token


def choices(context: str, completions: list[str] | tuple[str, ...]) -> tuple[Option, ...]:
    """Usual multiple choice: one context, each completion behind a space.

    Example  >>> [option.completion for option in choices("Is it?", ["yes", "no"])]
             [' yes', ' no']
    """
    return tuple(Option(context, f" {completion}") for completion in completions)


def multiple_choice(id: str, context: str, completions: list[str] | tuple[str, ...], gold: int, **more: Any) -> Problem:
    """A problem of usual multiple choice, whose shot is the context with the right completion.

    Example  >>> multiple_choice("1", "2 + 2 =", ["3", "4"], 1).shot
             '2 + 2 = 4'
    """
    options = choices(context, completions)
    shot = context + options[gold].completion
    return Problem(id, prompt=context, shot=shot, options=options, gold=gold, **more)


def free_form(id: str, prompt: str, answers: list[str] | tuple[str, ...], **more: Any) -> Problem:
    """A problem that is answered in words, whose shot is the prompt with the first answer behind a space.

    Example  >>> free_form("1", "Q: 2 + 2?\\n\\nA:", ["4"]).shot
             'Q: 2 + 2?\\n\\nA: 4'
    """
    shot = more.pop("shot", f"{prompt} {answers[0]}")
    return Problem(id, prompt=prompt, shot=shot, answers=tuple(answers), **more)
