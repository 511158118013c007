"""Few-shot prompts: which examples stand in front of a problem, how many of them fit, and their tokens.

Flow     Task, its shots, a problem → `Prompter.ask(problem, ks)` → Asked: for each K the tokens of every option, or of
         the prompt that is to be continued

    [description ␤␤] shot 1 ␤␤ shot 2 ␤␤ … shot K ␤␤ problem completion

Shots are drawn for each problem anew, or from a number of draws that problems share, or once for all. The K of a
smaller number of shots are the first of those of a larger one, so that all prompts of a problem are nested.
K is a cap: shots are added until the next one would not fit into the context together with the longest completion;
some published K do not fit into 2,048 tokens. What fitted is the effective K.
Source   Brown 2020 §2.4, Appendix G.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rein.evals.language_model import LanguageModel
from rein.evals.task import Problem, Task


class CannotAsk(ValueError):
    """A problem that cannot be put to this model; its text says why."""


def curve(k: int) -> list[int]:
    """The numbers of shots of a K-curve.

    Example  >>> curve(50), curve(0)
             ([0, 1, 2, 4, 8, 16, 32, 50], [0])
    """
    powers = [1 << n for n in range(max(k, 1).bit_length()) if 1 << n < k]
    return sorted({0, *powers, k})


def settings_of(task: Task, asked_for: Sequence[str]) -> dict[int, str]:
    """Which numbers of shots are asked for, and what the paper calls each.

    Example  >>> from rein.evals.tasks.arc import EASY
             >>> settings_of(EASY, ["paper", "8"])
             {0: 'zero', 1: 'one', 50: 'few', 8: 'curve'}
    """
    ks: list[int] = []
    for word in asked_for:
        ks += {
            "zero": [0], "one": [1], "few": [task.shots], "paper": [0, 1, task.shots] if task.shots else [0],
            "curve": curve(task.shots), "dev": [],
        }[word] if not word.isdigit() else [int(word)]  # fmt: skip
    named = {task.shots: "few", 1: "one", 0: "zero"}  # a K of 1 is "one", also where the paper has no more
    return {k: named.get(k, "curve") for k in ks}


@dataclass(frozen=True)
class Asked:
    """A problem behind K shots, in tokens: (context, completion) of each option, or a prompt and no completion."""

    problem: Problem
    k: int
    effective_k: int
    draw: int | None
    options: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    shots: tuple[str, ...] = ()  # their ids, in order

    @property
    def prompt(self) -> tuple[int, ...]:
        """What is to be continued, of a problem in free form."""
        return self.options[0][0]


class Prompter:
    """Puts the shots of a task in front of its problems."""

    def __init__(
        self,
        model: LanguageModel,
        task: Task,
        shots: Sequence[Problem],
        *,
        seed: int = 0,
        draws: int | None = None,
        in_words: bool = False,
        among_shots: bool = False,
    ) -> None:
        """`draws`: None draws for each problem; N has N draws that problems share. `in_words`: no options.

        `among_shots`: the problems that are asked are of the split that shots come from, and none is its own shot.
        """
        self.model, self.task, self.shots, self.seed, self.draws = model, task, shots, seed, draws
        self._in_words, self._among_shots = in_words, among_shots
        self._encode = lru_cache(maxsize=1 << 16)(model.encode)

    def draw_of(self, problem: Problem) -> int | None:
        """Which of the shared draws a problem has: as good as random, and always the same one."""
        if self.draws is None:
            return None
        return hashed(self.seed, self.task.name, "draw", problem.id) % self.draws

    def ask(self, problem: Problem, ks: Sequence[int]) -> list[Asked]:
        """The problem behind each number of shots.

        Raises   CannotAsk when it does not fit without any shots, or a completion has no tokens.
        """
        draw = self.draw_of(problem)
        indices = self._drawn(problem, draw)
        chosen: list[Problem] = []
        asked = {}
        for k in sorted(set(ks)):
            while sum(shot.counts for shot in chosen) < k and (at := next(indices, None)) is not None:
                chosen.append(self.shots[at])
            asked[k] = self._fitted(problem, k, draw, chosen)
        return [asked[k] for k in ks]

    def _fitted(self, problem: Problem, k: int, draw: int | None, chosen: Sequence[Problem]) -> Asked:
        """With as many of the chosen shots as fit, from the first on."""
        n = self._how_many_fit(problem, chosen) if chosen else 0
        options = self._options(problem, chosen[:n])
        while (missing := self._too_long(options)) > 0 and n > 0:  # a piece may have more tokens beside its neighbour
            n -= 1
            options = self._options(problem, chosen[:n])
        if missing > 0 and problem.tail is not None and self._writes(problem):
            tail = self._encode(problem.tail)
            before = self._encode(problem.prompt.removesuffix(problem.tail))
            room = self.model.n_ctx - self.task.max_new_tokens - len(tail)
            options, missing = (((*before[: max(room, 0)], *tail), ()),), -room
        if missing > 0:
            raise CannotAsk(
                f"even without shots it is {missing:,} tokens too long for the model's context of {self.model.n_ctx:,}"
            )
        shots = chosen[:n]
        ids = tuple(shot.id for shot in shots)
        return Asked(problem, k, sum(shot.counts for shot in shots), draw if shots else None, options, ids)

    def _how_many_fit(self, problem: Problem, chosen: Sequence[Problem]) -> int:
        """By the tokens of each piece encoded apart."""
        before = [self.task.description] if self._described(len(chosen)) else []
        *pieces, _ = self._joined([*before, *(shot.shot for shot in chosen)], "")
        room = self.model.n_ctx - max(
            len(self._encode(self.task.separator + context)) + more for context, more in self._lengths(problem)
        )
        for at, piece in enumerate(pieces):
            room -= len(self._encode(piece))
            if room < 0:
                return max(at - len(before), 0)
        return len(chosen)

    def _lengths(self, problem: Problem) -> list[tuple[str, int]]:
        """What stands behind the shots, and how many tokens are read behind that."""
        if self._writes(problem):
            return [(problem.prompt, self.task.max_new_tokens)]
        return [(option.context, len(self._encode(option.completion)) - 1) for option in problem.options]

    def _too_long(self, options: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> int:
        """By how many tokens the longest of them exceeds the context."""
        longest = max(
            len(context) + (len(completion) - 1 if completion else self.task.max_new_tokens)
            for context, completion in options
        )
        return longest - self.model.n_ctx

    def _writes(self, problem: Problem) -> bool:
        if self._in_words and len(problem.options) > 1:
            return len({option.context for option in problem.options}) == 1  # partial scoring has no words to write
        return not problem.options

    def _options(
        self, problem: Problem, shots: Sequence[Problem]
    ) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        if not shots and problem.alone is not None:
            problem = problem.alone
        pieces = [self.task.description] if self._described(len(shots)) else []
        pieces += [shot.shot for shot in shots]
        if self._writes(problem):
            return ((self._ids(self._joined(pieces, problem.prompt)) or self._nothing(), ()),)
        contexts = {option.context: self._ids(self._joined(pieces, option.context)) for option in problem.options}
        found = []
        for option in problem.options:
            context = contexts[option.context]
            if self._cuts(option.context, option.completion):
                completion = tuple(self._encode(option.completion))
            else:
                completion = self._ids([*self._joined(pieces, option.context), option.completion])[len(context) :]
            if not completion:
                raise CannotAsk(f"its completion {option.completion!r} has no tokens")
            found.append((context or self._nothing(), completion))
        return tuple(found)

    def _described(self, n_shots: int) -> bool:
        how = self.task.described
        return bool(self.task.description) and (how == "always" or (how == "few" and n_shots > 0))

    def _joined(self, pieces: Sequence[str], last: str) -> list[str]:
        """The separator is put in front of every piece but the first: a tokenizer cuts before it."""
        texts = [*pieces, last]
        return [texts[0], *(self.task.separator + text for text in texts[1:])]

    def _ids(self, pieces: Sequence[str]) -> tuple[int, ...]:
        """Those of the pieces put together. Encoded apart where that is the same, for shots come again and again."""
        ids: list[int] = []
        open_piece = ""
        for piece in pieces:
            if self._cuts(open_piece, piece):
                ids += self._encode(open_piece)
                open_piece = piece
            else:
                open_piece += piece
        return (*ids, *self._encode(open_piece))

    def _cuts(self, before: str, after: str) -> bool:
        """Whether the tokenizer surely cuts between two texts."""
        return self.model.splits_at_space and not before[-1:].isspace() and before != "" and after[:1].isspace()

    def _nothing(self) -> tuple[int, ...]:
        """What stands in front of a completion that has no context."""
        if self.model.eot_id is None:
            raise CannotAsk("nothing stands in front of its completion, and the model knows no end of text")
        return (self.model.eot_id,)

    def _drawn(self, problem: Problem, draw: int | None) -> Iterator[int]:
        """Places of shots, without repetition, never the problem itself; how many are taken changes none of them."""
        who = problem.id if draw is None else str(draw)
        rng = np.random.Generator(np.random.Philox(hashed(self.seed, self.task.name, "shots", who)))
        n, moved = len(self.shots), dict[int, int]()
        for first in range(n):  # Fisher and Yates, of a list that is never written down
            at = int(rng.integers(first, n))
            taken = moved.get(at, at)
            moved[at] = moved.get(first, first)
            if not (self._among_shots and self.shots[taken].shot == problem.shot):
                yield taken


def hashed(*parts: object) -> int:
    """A number of 64 bits, as good as random, that the parts decide."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little")
