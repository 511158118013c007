"""What policies answer to prompts, with all that needs a model to tell: judges' scores, log π / π_ref.

Flow     queries × a policy → responses (models/rollout.py) → scores of judges, log-ratios → OUT/answers/NAME.jsonl
         texts that are there already (references, baselines, files) → the same rows, with what a text can tell

A row is that of one prompt, and what it holds depends on the policy, the prompt and its place alone: a command that was
killed goes on where it was, to the same bytes. A prompt that does not fit has a row without texts, that says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.errors import UserError, writing
from rein.evals.policies_config import PoliciesConfig
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.reward import FunctionReward, Reward, is_function, load_reward
from rein.models.rows import Completion, log_ratios
from rein.models.scalar import reward_folder
from rein.progress import Progress
from rein.run import read_rows, write_atomically
from rein.text.prompts import PromptFormat, Query, Unfit, decode_response, encode_query, encode_response, fitting
from rein.train.ppo_rules import Ending
from rein.train.queries import Prompt, response_tokens
from rein.train.responses import Responses, respond

Json = dict[str, Any]
AT_ONCE = 256  # responses that are written before the next prompts


@dataclass(frozen=True)
class Said:
    """One policy's answers: a row of each prompt, in their order.

    texts        list of texts; None where it has no answer
    ended tokens per text, of a model's: whether it has an end, how many tokens
    scores       by judge, one each text; None where the judge cannot read it
    log_ratios   of the samples that the KL is measured on: Σ_tokens log π / π_ref, nats;  kl_scores: as `scores`
    """

    name: str
    rows: Sequence[Json]
    about: str = ""  # a path, or what it is

    def places(self, key: str = "texts") -> list[int]:
        """The prompts that it has something of."""
        return [at for at, row in enumerate(self.rows) if row.get(key) is not None]

    def scored(self, judge: str, key: str = "scores") -> list[int]:
        """The prompts whose texts a judge could all read."""
        return [at for at in self.places(key) if None not in self.rows[at][key].get(judge, [None])]


@dataclass(frozen=True)
class Asking:
    """Models and rules with which one policy is asked."""

    model: GPT
    reference: GPT | None  # log π / π_ref is of this one
    tokenizer: Tokenizer
    format: PromptFormat
    judges: Mapping[str, Reward]
    n_ctx: int
    precision: str
    device: torch.device
    ending: Ending = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ending", Ending(eot_id=end_of_text(self.model.config, self.tokenizer)))

    @property
    def response_tokens(self) -> int:
        """The most tokens of a response."""
        return response_tokens(self.format)

    def decoded(self, completions: Sequence[Completion]) -> list[str]:
        """The responses as text."""
        return [decode_response(each.response, self.tokenizer, self.format) for each in completions]


def asking(
    config: PoliciesConfig,
    path: Path,
    reference: Path | None,
    format: PromptFormat,
    device: torch.device,
    precision: str,
) -> Asking:
    """A policy, ready to be asked.

    Raises   UserError where there is no model, or the reference or a judge reads other tokens.
    """
    model, tokenizer = load_model(path, device=str(device))
    other = None
    if reference is not None:
        other, theirs = load_model(reference, device=str(device))
        if theirs.sha256() != tokenizer.sha256():
            raise UserError(
                f"{path} has another tokenizer than --reference-policy {reference}: there is no KL between them.",
                "Leave --reference-policy out, or give the model that the policies began from.",
            )
        other.eval()
    judges = {
        spec: load_reward(
            spec,
            tokenizer,
            device=device,
            precision=precision,
            tokens_at_once=config.tokens_at_once,
            flag="--judge",
            format=format,
        )
        for spec in config.judge
    }
    contexts = [model.config.n_ctx, *(judge.n_ctx or model.config.n_ctx for judge in judges.values())]
    if other is not None:
        contexts.append(other.config.n_ctx)
    return Asking(model.eval(), other, tokenizer, format, judges, min(contexts), precision, device)


def answer(config: PoliciesConfig, name: str, asked: Asking, queries: Sequence[Query], about: str = "") -> Said:
    """A policy's rows: those that are there already, and the rest, which is appended some prompts at a time.

    Raises   UserError where the rows that are there are of other prompts.
    """
    path = config.out / "answers" / f"{name}.jsonl"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    rows = list(read_rows(path))
    write_atomically(path, "".join(map(_line, rows)))  # a last line that a kill cut short is gone
    for row, query in zip(rows, queries, strict=False):
        if row["query"] != query.text:
            raise UserError(
                f"The prompts have changed since {config.out} began: {row['id']} asks something else.",
                "Restore them, or choose another --out.",
            )
    at_once = max(1, AT_ONCE // config.per_prompt)
    with Progress(f"asking {name}", total=len(queries), unit="prompts", start=len(rows)) as bar:
        while len(rows) < len(queries):
            some = queries[len(rows) : len(rows) + at_once]
            new = list(_rows(config, asked, some, len(rows)))
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, new)))
            rows += new
            bar.advance(len(new))
    return Said(name, rows[: len(queries)], about)


def _rows(config: PoliciesConfig, asked: Asking, queries: Sequence[Query], first: int) -> Iterator[Json]:
    encoded = list(
        fitting(queries, asked.format, asked.tokenizer, response_tokens=asked.response_tokens, n_ctx=asked.n_ctx)
    )
    places = [at for at, (_, ids, _) in enumerate(encoded) if ids]
    fit = [Prompt(ids, query) for query, ids, _ in encoded if ids]
    found: dict[int, Json] = {}
    if fit:
        numbers = [(first + at << 32) + sample for at in places for sample in range(config.per_prompt)]
        written = _respond(config, asked, fit, numbers, config.temperature)
        table: dict[str, list[Any]] = {
            "texts": asked.decoded(written.scored),
            "ended": written.ended,
            "tokens": [len(each.response) for each in written.trained],
        }
        scores = _scores(asked, fit, written, config.per_prompt)
        ratios: list[float] = []
        kl_scores = scores
        if asked.reference is not None:
            if config.kl_temperature != config.temperature:
                written = _respond(config, asked, fit, numbers, config.kl_temperature)
                kl_scores = _scores(asked, fit, written, config.per_prompt)
            ratios = log_ratios(
                asked.model, asked.reference, written.trained, temperature=config.kl_temperature,
                precision=asked.precision, tokens_at_once=config.tokens_at_once,
            ).tolist()  # fmt: skip
        for n, at in enumerate(places):
            here = slice(n * config.per_prompt, (n + 1) * config.per_prompt)
            found[at] = {name: values[here] for name, values in table.items()}
            found[at]["scores"] = {spec: values[here] for spec, values in scores.items()}
            if ratios:
                found[at]["log_ratios"] = [round(ratio, 6) for ratio in ratios[here]]
                found[at]["kl_scores"] = {spec: values[here] for spec, values in kl_scores.items()}
    for at, (query, _, why) in enumerate(encoded):
        yield {"id": query.id, "query": query.text, **found.get(at, {"texts": None, "why": why})}


def _respond(
    config: PoliciesConfig, asked: Asking, prompts: Sequence[Prompt], numbers: Sequence[int], temperature: float
) -> Responses:
    return respond(
        asked.model, prompts, asked.ending, samples=config.per_prompt, max_new_tokens=asked.response_tokens,
        temperature=temperature, seed=config.seed, numbers=numbers, slots=config.slots, precision=asked.precision,
    )  # fmt: skip


def _scores(
    asked: Asking, prompts: Sequence[Prompt], written: Responses, per_prompt: int
) -> dict[str, list[float | None]]:
    texts = asked.decoded(written.scored)
    contexts = [prompt.query.fields for prompt in prompts for _ in range(per_prompt)]
    return {
        spec: [round(score, 6) for score in judge.scores(written.scored, contexts, texts).tolist()]
        for spec, judge in asked.judges.items()
    }


# ---------------------------------------------------------------------------------------- texts that are there


def written_already(
    name: str,
    texts: Sequence[Sequence[str] | None],
    queries: Sequence[Query],
    judges: Sequence[str],
    format: PromptFormat,
    *,
    device: torch.device,
    precision: str,
    about: str = "",
) -> Said:
    """Rows of texts that no model of ours wrote: references, baselines, what a file holds.

    A text is scored as if it had an end. A judge that is a model does not see one that is too long, or empty.

    Shapes   texts: of each prompt its texts, or None; queries: the prompts.
    """
    places = [at for at, some in enumerate(texts) if some is not None]
    flat = [(queries[at], text) for at in places for text in texts[at] or ()]
    scores = {spec: _of_texts(spec, flat, format, device, precision) for spec in judges}
    rows, start = list[Json](), 0
    for at, some in enumerate(texts):
        row: Json = {"id": queries[at].id, "query": queries[at].text, "texts": None if some is None else list(some)}
        if some is not None:
            here = slice(start, start + len(some))
            row["scores"] = {spec: values[here] for spec, values in scores.items()}
            start += len(some)
        rows.append(row)
    return Said(name, rows, about)


def _of_texts(
    spec: str, flat: Sequence[tuple[Query, str]], format: PromptFormat, device: torch.device, precision: str
) -> list[float | None]:
    if is_function(spec):
        known = FunctionReward(spec, "--judge").scores([], [query.fields for query, _ in flat], [t for _, t in flat])
        return [round(score, 6) for score in known.tolist()]
    tokenizer = load_tokenizer(reward_folder(Path(spec)))
    judge = load_reward(spec, tokenizer, device=device, precision=precision, flag="--judge", format=format)
    completions: dict[int, Completion] = {}
    for n, (query, text) in enumerate(flat):
        try:
            asked = encode_query(format, query.fields, tokenizer)
            completion = Completion(asked, encode_response(text, tokenizer, format))
        except Unfit:
            continue
        if judge.n_ctx is None or len(completion) <= judge.n_ctx:
            completions[n] = completion
    some = list(completions)
    contexts = [flat[n][0].fields for n in some]
    scores = judge.scores(list(completions.values()), contexts, [flat[n][1] for n in some]).tolist() if some else []
    of = dict(zip(some, scores, strict=True))
    return [round(of[n], 6) if n in of else None for n in range(len(flat))]


def _line(row: Json) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
