"""What a round came to, as plain numbers with intervals: how often policies win, what they write, how labelers agree.

Flow     lines of answers (collecting.py) → `win_rate` of one policy over another, raw and at equal length
         held-out prompts, two models → `written` → gold scores, KL, lengths, what went wrong, texts side by side
         the store → `agreement` of a batch

Every number is {"value", "low", "high", "n"}, or None where nothing can be said; an end of an interval of which nothing
can be said is None too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rein import monitors
from rein.bpe.tokenizer import Tokenizer
from rein.evals.policies_measures import Duel, rates
from rein.evals.statistics import paired, summarise
from rein.feedback.agreement import report
from rein.feedback.store import Store
from rein.loop.collecting import topic_of
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text
from rein.models.reward import Reward
from rein.models.rollout import Rollouts, rollouts
from rein.models.rows import Completion, log_ratios
from rein.text.prompts import PromptFormat, decode_response
from rein.train.queries import Prompt

Json = Any
SHOWN = 6  # texts side by side


# -------------------------------------------------------------------------------------------------------- of answers


def win_rate(rows: Sequence[Mapping[str, Json]], a: str, b: str) -> dict[str, Json] | None:
    """How often a's answers are preferred to b's, a tie being half of each: as it is, and at equal length.

    At equal length it is None where the answers are fewer than twenty, or all alike. Intervals are for other prompts: a
    prompt's items and labelers are one cluster, and of a single prompt the ends of the interval are None.

    Example  >>> outputs = [{"text": "long", "policy": "x"}, {"text": "ab", "policy": "y"}]
             >>> row = {"prompt": "p", "labeler": "w", "outputs": outputs, "choice": 0}
             >>> win_rate([row] * 4, "x", "y")["raw"], win_rate([row], "x", "z")
             ({'value': 1.0, 'low': None, 'high': None, 'n': 4}, None)
    """
    wins, ours, theirs, prompts = list[float](), list[int](), list[int](), list[str]()
    for row in rows:
        policies = [_policy(one) for one in row["outputs"]]
        if sorted(policies) != sorted((a, b)) or a == b:
            continue
        place = policies.index(a)
        wins.append(0.5 if row["choice"] is None else float(row["choice"] == place))
        ours.append(len(_text(row["outputs"][place])))
        theirs.append(len(_text(row["outputs"][1 - place])))
        prompts.append(topic_of(row))
    if not wins:
        return None
    found = rates(Duel(a, b, "labelers", wins, ours, theirs, prompts))
    return {name: found[name] for name in ("raw", "controlled")}


def groups_in(rows: Sequence[Mapping[str, Json]]) -> dict[str, int]:
    """How many answers there are to each two policies, most first."""
    found: dict[str, int] = {}
    for row in rows:
        name = ":".join(sorted(_policy(one) for one in row["outputs"]))
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _policy(output: Json) -> str:
    return str(output.get("policy", "")) if isinstance(output, dict) else ""


def _text(output: Json) -> str:
    return str(output["text"]) if isinstance(output, dict) else str(output)


def agreement(store: Store, project: str, batch: str) -> dict[str, Json] | None:
    """Of labelers with each other, in a batch's choices that are no ties."""
    with store.reading() as conn:
        (question,) = report(conn, project, batch)["questions"]
    found = question["aspects"][0]["agreement"]["labeler_labeler"] if question["aspects"] else {"value": None}
    return None if found["value"] is None else _told(found)


# --------------------------------------------------------------------------------------------- of what is written


@dataclass(frozen=True)
class Asked:
    """What models are asked, and who judges: the same for each of them."""

    prompts: Sequence[Prompt]
    tokenizer: Tokenizer
    format: PromptFormat
    max_new_tokens: int
    temperature: float
    seed: int
    precision: str
    judges: Mapping[str, Reward]  # reward, gold

    @property
    def contexts(self) -> list[Mapping[str, Json]]:
        """The rows that queries were made of."""
        return [one.query.fields for one in self.prompts]


@dataclass(frozen=True)
class Written:
    """A model's responses, and what they are worth by each judge."""

    drawn: Rollouts
    texts: list[str]
    scores: Mapping[str, list[float]]


def write(model: GPT, asked: Asked) -> Written:
    """A response to each prompt. That of the n-th depends on (seed, n), its prompt and the model alone."""
    drawn = rollouts(
        model, [one.ids for one in asked.prompts], max_new_tokens=asked.max_new_tokens, temperature=asked.temperature,
        seed=asked.seed, eot_id=end_of_text(model.config, asked.tokenizer), precision=asked.precision,
    )  # fmt: skip
    texts = [decode_response(one.response, asked.tokenizer, asked.format) for one in drawn.completions]
    scores = {
        name: judge.scores(drawn.completions, asked.contexts, texts).tolist() for name, judge in asked.judges.items()
    }
    return Written(drawn, texts, scores)


def written(policy: GPT, initial: GPT, asked: Asked) -> dict[str, Json]:
    """What a policy and the model that it began from write to the same held-out prompts, in numbers.

    kl_nats = mean over responses of Σ_t log π(t) − log π_initial(t), at the sampling temperature
    """
    ours, theirs = write(policy, asked), write(initial, asked)
    ratio_N = log_ratios(
        policy, initial, ours.drawn.completions, temperature=asked.temperature or 1.0, precision=asked.precision
    )
    references = [one.query.reference for one in asked.prompts]
    eot_id = asked.tokenizer.eot_id
    watched = [
        monitors.measure([c.response for c in each.drawn.completions], each.texts, asked.contexts, eot_id=eot_id,
                         entropies_M=each.drawn.entropies_M.float().cpu().numpy())
        for each in (theirs, ours)
    ]  # fmt: skip
    found: dict[str, Json] = {
        "prompts": len(asked.prompts),
        "kl_nats": _mean(ratio_N.tolist()),
        "monitors": {
            name: {"initial": watched[0][name].value, "policy": watched[1][name].value} for name in watched[0]
        },
        "findings": [one.words for one in monitors.compare(*watched)],
        "samples": [
            {"prompt": prompt.query.text, "initial": before, "policy": after, "reference": reference}
            for prompt, before, after, reference in list(
                zip(asked.prompts, theirs.texts, ours.texts, references, strict=True)
            )[:SHOWN]
        ],
    }
    for name, judge in asked.judges.items():
        found[name] = {
            "initial": _mean(theirs.scores[name]),
            "policy": _mean(ours.scores[name]),
            "gained": _told(asdict(paired(ours.scores[name], theirs.scores[name], bounded=False))),
            "references": _of_references(judge, asked, references) if name == "gold" else None,
        }
    return found


def _of_references(judge: Reward, asked: Asked, references: Sequence[str | None]) -> Json:
    """The mean score of what people wrote; a judge that reads tokens is not asked."""
    there = [(prompt, text) for prompt, text in zip(asked.prompts, references, strict=True) if text]
    if len(there) < 2:
        return None
    unread = [Completion(prompt.ids, ()) for prompt, _ in there]
    contexts, texts = [prompt.query.fields for prompt, _ in there], [text for _, text in there]
    return _mean(judge.scores(unread, contexts, texts).tolist())


def _mean(values: Sequence[float]) -> dict[str, Json]:
    return _told(asdict(summarise(values, bounded=False)))


def _told(values: Mapping[str, Json]) -> dict[str, Json]:
    """What a page says of an estimate."""
    return {name: values[name] for name in ("value", "low", "high", "n")}
