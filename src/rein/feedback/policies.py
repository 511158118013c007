"""What policies answer: samples of models, the best of N of them, references, baselines.

Flow     plans (draw.py) → which model is to write how often behind which prompt → one model after the other → texts, in
         the order of the plans

The random numbers of a sample come from the key of its item and its place there, so that a text does not depend on
what was drawn before it or beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.feedback.draw import BASELINES, REFERENCE, DrawConfig, Plan, Prompt, twin, typed
from rein.feedback.items import draw
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import resolve_device, resolve_precision
from rein.models.reward import Reward, is_function, load_reward
from rein.models.rollout import rollouts
from rein.models.rows import Completion
from rein.models.scalar import reward_folder
from rein.models.tree import ROOT, Tree, score
from rein.text.prompts import Unfit, encode_query, encode_response, format_of
from rein.text.shards import file_sha256

_SEQUENCES = 64  # that are written at a time


class Policies:
    """Models by name, loaded when they are first asked."""

    def __init__(self, paths: Mapping[str, Path], *, device: str = "auto") -> None:
        """Raises   UserError when a path holds no model."""
        self._folders = {name: checkpoint.chosen(path) for name, path in paths.items()}
        self._models: dict[str, tuple[GPT, Tokenizer]] = {}
        self._judges: dict[str, Reward] = {}
        self._device = device

    def fingerprints(self) -> dict[str, str]:
        """What each model is: the digest of its weights."""
        return {name: _fingerprint(folder) for name, folder in self._folders.items()}

    def scorer(self, name: str) -> str:
        """What says which sample is best: a function's name, or the digest of a reward model's weights.

        Raises   UserError when a folder holds no reward model.
        """
        return _fingerprint(reward_folder(Path(name))) if name and not is_function(name) else name

    def answers(self, config: DrawConfig, plans: Sequence[Plan]) -> list[list[str | None]]:
        """A text of each policy of each plan; None where the prompt does not fit into the model's context.

        Raises   UserError for a reference that a prompt does not have.
        """
        found: list[list[str | None]] = [[None] * len(plan.group) for plan in plans]
        wanted: dict[str, list[_Wanted]] = {}
        for at, plan in enumerate(plans):
            for place, name in enumerate(plan.group):
                if name == REFERENCE:
                    found[at][place] = _reference(plan.prompt)
                elif name in BASELINES:
                    found[at][place] = BASELINES[name](plan.prompt.context)
                else:
                    best = {twin(model, config.best_of): model for model in self._folders if config.best_of > 1}
                    wanted.setdefault(best.get(name, name), []).append(
                        _Wanted(plan, at, place, config.best_of if name in best else 1)
                    )
        for name, some in wanted.items():
            for one, text in zip(some, self._write(name, config, some), strict=True):
                found[one.at][one.place] = text
        return found

    def _model(self, name: str) -> tuple[GPT, Tokenizer]:
        if name not in self._models:
            model, tokenizer = load_model(self._folders[name])
            self._models[name] = model.to(resolve_device(self._device)), tokenizer
        return self._models[name]

    def _write(self, name: str, config: DrawConfig, wanted: Sequence[_Wanted]) -> list[str | None]:
        model, tokenizer = self._model(name)
        eot_id = end_of_text(model.config, tokenizer)
        prompts = [_query(config, one.plan.prompt, tokenizer, eot_id) for one in wanted]
        fit = [len(ids) + config.max_new_tokens <= model.config.n_ctx and len(ids) > 0 for ids in prompts]
        asked = [at for at in range(len(wanted)) if fit[at]]
        written = rollouts(
            model, [prompts[at] for at in asked], samples=[wanted[at].samples for at in asked],
            max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, seed=config.seed,
            numbers=[draw(wanted[at].plan.key, wanted[at].place, n) for at in asked for n in range(wanted[at].samples)],
            eot_id=eot_id, slots=_SEQUENCES, precision=resolve_precision("auto", model.wte.device),
        )  # fmt: skip
        responses = iter(written.completions)
        texts = {
            at: [_text(next(responses).response, eot_id, tokenizer, config.stop) for _ in range(wanted[at].samples)]
            for at in asked
        }
        scorer = self._scorer(name, config)
        return [scorer(one, prompts[at], texts[at]) if fit[at] else None for at, one in enumerate(wanted)]

    def _scorer(self, name: str, config: DrawConfig) -> Callable[[_Wanted, Sequence[int], Sequence[str]], str]:
        """Which of a prompt's samples is kept."""
        judge: Reward | None = None
        if config.scorer and config.best_of > 1:
            if config.scorer not in self._judges:
                tokenizer = self._model(name)[1]
                self._judges[config.scorer] = load_reward(
                    config.scorer,
                    tokenizer,
                    device=resolve_device(self._device),
                    flag="--scorer",
                    format=format_of(config.format, query_tokens=config.query_tokens) if config.format else None,
                )
            judge = self._judges[config.scorer]

        def best(one: _Wanted, prompt: Sequence[int], texts: Sequence[str]) -> str:
            if len(texts) == 1:
                return texts[0]
            if judge is None:
                scores = likelihoods(*self._model(name), prompt, texts)
            else:
                scores = _scores(judge, config, self._model(name)[1], one.plan.prompt, prompt, texts)
            return texts[int(np.argmax(scores))]

        return best


@dataclass(frozen=True)
class _Wanted:
    """A text that a model is to write: for the plan at `at`, at a place of its group, the best of so many samples."""

    plan: Plan
    at: int
    place: int
    samples: int


def _query(config: DrawConfig, prompt: Prompt, tokenizer: Tokenizer, eot_id: int | None) -> list[int]:
    """What a model reads: as its format has it, or the text behind the end of one; nothing where it does not fit."""
    if not config.format:
        return [*([] if eot_id is None else [eot_id]), *tokenizer.encode(prompt.query).tolist()]
    try:
        format = format_of(config.format, query_tokens=config.query_tokens)
        return list(encode_query(format, {**prompt.context, **prompt.unseen}, tokenizer))
    except Unfit:
        return []


def _scores(
    judge: Reward, config: DrawConfig, tokenizer: Tokenizer, prompt: Prompt, query: Sequence[int], texts: Sequence[str]
) -> list[float]:
    """What a judge gives each text; one that is empty is no response, and the last to be taken."""
    format = format_of(config.format or "plain")
    said = [text for text in texts if text.strip()]
    room = None if judge.n_ctx is None else judge.n_ctx - len(query)
    completions = [Completion(tuple(query), encode_response(text, tokenizer, format)[:room]) for text in said]
    contexts = [{**prompt.context, **prompt.unseen}] * len(said)
    found = dict(zip(said, judge.scores(completions, contexts, said).tolist(), strict=True)) if said else {}
    return [found.get(text, -np.inf) for text in texts]


def likelihoods(model: GPT, tokenizer: Tokenizer, prompt: Sequence[int], texts: Sequence[str]) -> list[float]:
    """log P(text | prompt) under a model, per token; −∞ of an empty text, and of one that the context cannot hold."""
    tree = Tree()
    root = tree.extend(ROOT, prompt)
    nodes: dict[str, list[int]] = {}
    for text in texts:
        ids = tokenizer.encode(text).tolist()
        if ids and text not in nodes and len(prompt) + len(ids) <= model.config.n_ctx:
            nodes[text] = tree.complete(root, ids)
    logprobs_N = score(model, [tree])[0].logprobs_N
    return [float(logprobs_N[nodes[text]].mean()) if text in nodes else -np.inf for text in texts]


def _text(response: Sequence[int], eot_id: int | None, tokenizer: Tokenizer, stop: Sequence[str]) -> str:
    """What a model has written, without its end; no store takes NUL."""
    ids = response[:-1] if response and response[-1] == eot_id else response
    return cut(tokenizer.decode(np.asarray(ids, dtype=np.uint32)).replace("\x00", "\ufffd"), stop)


def cut(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of the stop strings.

    Example  >>> cut("one. two", [". "])
             'one'
    """
    return text[: min((at for at in (text.find(typed(one)) for one in stop if one) if at >= 0), default=len(text))]


def _reference(prompt: Prompt) -> str:
    if prompt.reference is None:
        raise UserError(
            f"The prompt on line {prompt.line} has no reference, but a group asks for {REFERENCE}.",
            'Give it a "reference", or leave out --references.',
        )
    return prompt.reference


def _fingerprint(folder: Path) -> str:
    """Of the files that hold weights, as they were saved; of a folder that does not say, as they are."""
    if (folder / "rein.json").exists():
        files = checkpoint.read_about(folder).get("files", {})
        known = {name: digest for name, (_, digest) in files.items() if "training_state" not in name}
    else:
        weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
        known = {path.name: file_sha256(path) for path in weights}
    return hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()
