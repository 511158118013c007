"""What policies answer: samples of models, the best of N of them, references, baselines.

Flow     plans (draw.py) → which model is to write how often behind which prompt → batches of one model → texts, in the
         order of the plans

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
from rein.models.generate import generate
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import resolve_device, resolve_precision
from rein.models.tree import ROOT, Tree, score
from rein.text.shards import file_sha256
from rein.text.sources import load_object

Scorer = Callable[[Mapping[str, object], str], float]

_SEQUENCES = 64  # of a batch


class Policies:
    """Models by name, loaded when they are first asked."""

    def __init__(self, paths: Mapping[str, Path], *, device: str = "auto") -> None:
        """Raises   UserError when a path holds no model."""
        self._folders = {name: checkpoint.latest(path) for name, path in paths.items()}
        self._models: dict[str, tuple[GPT, Tokenizer]] = {}
        self._device = device

    def fingerprints(self) -> dict[str, str]:
        """What each model is: the digest of its weights."""
        return {name: _fingerprint(folder) for name, folder in self._folders.items()}

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
        start = [] if eot_id is None else [eot_id]
        prompts = [[*start, *tokenizer.encode(one.plan.prompt.query).tolist()] for one in wanted]
        fit = [len(ids) + config.max_new_tokens <= model.config.n_ctx and len(ids) > 0 for ids in prompts]
        jobs = [(at, sample) for at, one in enumerate(wanted) if fit[at] for sample in range(one.samples)]
        jobs.sort(key=lambda job: len(prompts[job[0]]))  # prompts of like lengths together: less padding
        texts: dict[tuple[int, int], str] = {}
        for first in range(0, len(jobs), _SEQUENCES):
            some = jobs[first : first + _SEQUENCES]
            written = generate(
                model, [prompts[at] for at, _ in some], max_new_tokens=config.max_new_tokens,
                temperature=config.temperature, top_p=config.top_p, seed=config.seed,
                numbers=[draw(wanted[at].plan.key, wanted[at].place, sample) for at, sample in some], eot_id=eot_id,
                precision=resolve_precision("auto", model.wte.device),
            )  # fmt: skip
            for job, ids in zip(some, written, strict=True):
                text = tokenizer.decode(np.asarray(ids, dtype=np.uint32)).replace(
                    "\x00", "\ufffd"
                )  # no store takes NUL
                texts[job] = cut(text, config.stop)
        scorer = self._scorer(name, config.scorer)
        return [
            scorer(one, prompts[at], [texts[at, sample] for sample in range(one.samples)]) if fit[at] else None
            for at, one in enumerate(wanted)
        ]

    def _scorer(self, name: str, scorer: str) -> Callable[[_Wanted, Sequence[int], Sequence[str]], str]:
        """Which of a prompt's samples is kept."""
        judge: Scorer | None = load_object(scorer, "--scorer") if scorer else None

        def best(one: _Wanted, prompt: Sequence[int], texts: Sequence[str]) -> str:
            if len(texts) == 1:
                return texts[0]
            if judge is None:
                scores = likelihoods(*self._model(name), prompt, texts)
            else:
                scores = [float(judge(one.plan.prompt.context, text)) for text in texts]
            return texts[int(np.argmax(scores))]

        return best


@dataclass(frozen=True)
class _Wanted:
    """A text that a model is to write: for the plan at `at`, at a place of its group, the best of so many samples."""

    plan: Plan
    at: int
    place: int
    samples: int


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
