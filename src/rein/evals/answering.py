"""Putting problems to a model: windows of problems in, Answers out, each shared token computed once.

Flow     Asked … → what is known already (responses.py) → the rest: options into token trees, one tree for a problem
         or for the problems of one draw; trees, longest first, into batches of so many tokens → Answers, in order

A window is all that is ever held, however many problems a task has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rein.evals.language_model import LanguageModel
from rein.evals.prompts import Asked, hashed
from rein.evals.responses import Responses, key_of
from rein.evals.task import Answer, Problem, Task
from rein.models.tree import ROOT, Tree

ROUND = 1  # of what is kept: another round, and older responses are not found

_WINDOW = 256  # problems that are sorted by length together
_SHARED_WINDOW = 4096  # where they share draws
_SHARED_TOKENS = 2048  # of a tree that problems share
_ANSWER_TREE = 128  # completions behind the answer context that share a tree
_PROMPTS = 16  # that are continued at once


@dataclass(frozen=True)
class Failed:
    """A problem that got no answer."""

    id: str
    k: int
    reason: str


class Answerer:
    """Asks one model the problems of one task."""

    def __init__(
        self,
        model: LanguageModel,
        task: Task,
        responses: Responses,
        *,
        batch_tokens: int,
        forbidden: frozenset[int] = frozenset(),
        seed: int = 0,
    ) -> None:
        """`forbidden`: tokens that LAMBADA's filtered scoring does not let a prediction begin with."""
        self.model, self.task, self.responses = model, task, responses
        self._batch_tokens, self._forbidden, self._seed = batch_tokens, forbidden, seed
        self._answer_ids = tuple(model.encode(task.answer_context)) if task.normalise == "answer" else ()

    def window(self, *, shared: bool) -> int:
        """How many problems to give to `answer` at a time."""
        return _SHARED_WINDOW if shared else _WINDOW

    def answer(self, asked: Sequence[Asked], on_batch: Callable[[int], None]) -> Iterator[Answer | Failed]:
        """An Answer for each, or why there is none, in order. `on_batch` hears how many more there are."""
        keys = [self._key(one) for one in asked]
        known = self.responses.get(keys)
        counted = len(known)
        on_batch(counted)
        missing = {key: one for key, one in zip(keys, asked, strict=True) if key not in known}
        scored = [key for key, one in missing.items() if one.options[0][1]]
        for some in self._score({key: missing[key] for key in scored}):
            known.update(self._keep(some))
            on_batch(len(some))
            counted += len(some)
        for some in self._write({key: one for key, one in missing.items() if not one.options[0][1]}):
            known.update(self._keep(some))
            on_batch(len(some))
            counted += len(some)
        on_batch(len(asked) - counted)  # numbers of shots of which no more fit are one prompt
        behind_answer = self._behind_answer(asked) if self._answer_ids else {}
        for key, one in zip(keys, asked, strict=True):
            yield self._answer_of(one, known[key], behind_answer)

    def read(self, problem: Problem) -> Answer | Failed:
        """A text, scored whole."""
        key = key_of(ROUND, self.model.fingerprint, "read", problem.text)
        found = self.responses.get([key]).get(key)
        if found is None:
            found = dict(zip(("nats", "n_tokens"), self.model.read(problem.text, problem.id), strict=True))
            found = self._keep({key: found})[key]
        if not math.isfinite(found["nats"]):
            return Failed(problem.id, 0, "the model gives numbers that are not finite")
        return Answer(problem, 0, 0, logprobs=(-found["nats"],), n_tokens=(found["n_tokens"],))

    # ---------------------------------------------------------------------------------------------- asking

    def _key(self, asked: Asked) -> str:
        contexts = list(dict.fromkeys(context for context, _ in asked.options))  # usually one
        options = [[contexts.index(context), completion] for context, completion in asked.options]
        how: Any = sorted(self._forbidden)
        if not asked.options[0][1]:
            how = [self.task.decode, self.task.max_new_tokens, self.task.stop]
            how += [self._seed, asked.problem.id] if self.task.decode == "top2" else []
        return key_of(ROUND, self.model.fingerprint, contexts, options, how)

    def _keep(self, found: dict[str, Any]) -> dict[str, Any]:
        """Writes down what is sound. What is not may be a passing fault: it is asked anew the next time."""
        self.responses.put({key: value for key, value in found.items() if _finite(value)})
        return found

    def _score(self, missing: dict[str, Asked]) -> Iterator[dict[str, Any]]:
        """Options, batch by batch: their log-probabilities and greedy marks."""
        trees, paths, at = list[Tree](), list[dict[str, list[list[int]]]](), dict[object, int]()
        for key, one in missing.items():
            group: object = one.problem.id if one.draw is None else one.draw
            if group not in at or (one.draw is not None and len(trees[at[group]]) > _SHARED_TOKENS):
                at[group] = len(trees)
                trees.append(Tree())
                paths.append({})
            tree = trees[at[group]]
            ends = {context: tree.extend(ROOT, context) for context in {context for context, _ in one.options}}
            paths[at[group]][key] = [tree.complete(ends[context], completion) for context, completion in one.options]
        for batch in self._batches([tree.n_read() for tree in trees]):
            found = {}
            scores = self.model.score([trees[at] for at in batch], self._forbidden)
            for tree_scores, place in zip(scores, batch, strict=True):
                for key, options in paths[place].items():
                    logprobs = [tree_scores.logprobs_N[nodes] for nodes in options]
                    found[key] = {
                        "logprobs": [float(each.sum()) for each in logprobs],
                        "last": [float(each[-1]) for each in logprobs],
                        "greedy": [bool(tree_scores.top_N[nodes].all()) for nodes in options],
                        "greedy_last": [bool(tree_scores.top_N[nodes[-1]]) for nodes in options],
                        "greedy_filtered": [
                            bool(tree_scores.allowed_top_N[nodes[0]] and tree_scores.top_N[nodes[1:]].all())
                            for nodes in options
                        ],
                    }
            yield found

    def _write(self, missing: dict[str, Asked]) -> Iterator[dict[str, Any]]:
        """Continuations, those of like prompts together."""
        task = self.task
        by_length = sorted(missing, key=lambda key: -len(missing[key].prompt))
        for first in range(0, len(by_length), _PROMPTS):
            some = by_length[first : first + _PROMPTS]
            written = self.model.write(
                [missing[key].prompt for key in some],
                decode=task.decode,
                max_new_tokens=task.max_new_tokens,
                ends=self.model.ends(task.stop),
                seeds=[hashed(self._seed, missing[key].problem.id) for key in some],
            )
            yield {
                key: {"ids": list(one.ids), "logprob": None if math.isnan(one.logprob) else one.logprob}
                for key, one in zip(some, written, strict=True)
            }

    def _behind_answer(self, asked: Sequence[Asked]) -> dict[tuple[int, ...], float]:
        """log P of every completion behind the answer context alone."""
        completions = dict.fromkeys(completion for one in asked for _, completion in one.options)
        keys = {key_of(ROUND, self.model.fingerprint, self._answer_ids, each): each for each in completions}
        known = {keys[key]: value for key, value in self.responses.get(keys).items()}
        missing = [(key, each) for key, each in keys.items() if each not in known]
        for first in range(0, len(missing), _ANSWER_TREE):
            some, tree = missing[first : first + _ANSWER_TREE], Tree()
            root = tree.extend(ROOT, self._answer_ids)
            nodes = [tree.complete(root, each) for _, each in some]
            logprobs_N = self.model.score([tree])[0].logprobs_N
            found = {key: float(logprobs_N[path].sum()) for (key, _), path in zip(some, nodes, strict=True)}
            known.update({keys[key]: value for key, value in self._keep(found).items()})
        return known

    def _batches(self, sizes: Sequence[int]) -> Iterator[list[int]]:
        """Places of trees, longest first: what is too long for the memory shows at once."""
        batch, held = list[int](), 0
        for place in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
            if batch and held + sizes[place] > self._batch_tokens:
                yield batch
                batch, held = [], 0
            batch.append(place)
            held += sizes[place]
        if batch:
            yield batch

    # --------------------------------------------------------------------------------------------- answers

    def _answer_of(self, asked: Asked, found: Any, behind_answer: dict[tuple[int, ...], float]) -> Answer | Failed:
        problem, shots = asked.problem, (asked.k, asked.effective_k, asked.draw, asked.shots)
        if not _finite(found):
            return Failed(problem.id, asked.k, "the model gives numbers that are not finite")
        if "ids" in found:
            text = self.model.decode(found["ids"])
            text = self.task.cut((text.split(self.task.stop)[0] if self.task.stop else text).strip())
            logprob = found["logprob"]
            choice = chosen_by_words(problem, text) if problem.options else None
            return Answer(
                problem, *shots, logprobs=() if logprob is None else (logprob,), n_tokens=(len(found["ids"]),),
                text=text, choice=choice,
            )  # fmt: skip
        completions = [completion for _, completion in asked.options]
        answer_logprobs = tuple(behind_answer[each] for each in completions) if behind_answer else ()
        if not all(map(math.isfinite, answer_logprobs)):
            return Failed(problem.id, asked.k, "the model gives numbers that are not finite")
        n_tokens = tuple(len(completion) for completion in completions)
        logprobs = tuple(found["logprobs"])
        return Answer(
            problem, *shots, logprobs=logprobs, n_tokens=n_tokens, answer_logprobs=answer_logprobs,
            choice=choose(self.task, problem, logprobs, n_tokens, answer_logprobs),
            greedy=tuple(found["greedy"]), greedy_last=tuple(found["greedy_last"]),
            greedy_filtered=tuple(found["greedy_filtered"]), last_logprobs=tuple(found["last"]),
        )  # fmt: skip


def choose(
    task: Task,
    problem: Problem,
    logprobs: Sequence[float],
    n_tokens: Sequence[int],
    answer_logprobs: Sequence[float] = (),
) -> int:
    """The option that the model prefers; of equal ones the first.

        token       max log P(completion | context) / tokens of the completion
        answer      max log P(completion | context) − log P(completion | answer context)
        character   max log P(completion | context) / characters of the completion
        none        max log P(completion | context)

    Source   Brown 2020 §2.4: by token, and by the answer context on ARC, OpenBookQA and RACE.
    """
    scores = np.array(logprobs)
    if task.normalise == "token":
        scores = scores / np.array(n_tokens)
    elif task.normalise == "answer":
        scores = scores - np.array(answer_logprobs)
    elif task.normalise == "character":
        scores = scores / np.array([len(option.completion) for option in problem.options])
    return int(scores.argmax())


def chosen_by_words(problem: Problem, text: str) -> int | None:
    """The option whose completion was written, word for word; None if none was."""
    said = text.strip().casefold()
    matches = (at for at, option in enumerate(problem.options) if option.completion.strip().casefold() == said)
    return next(matches, None)


def _finite(found: Any) -> bool:
    if isinstance(found, dict):
        found = [*found.get("logprobs", ()), found.get("logprob") or 0.0, found.get("nats", 0.0)]
    return all(map(math.isfinite, found if isinstance(found, list) else [found]))
