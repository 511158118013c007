"""What a reward model is trained, selected and measured on: files and stores as elements, with what was left out.

Flow     --data, --project → Judged (feedback/judged.py) → train, dev, test by prompt → confidence, reliability, ratings
         → `RewardData`: elements in tokens, what is known of labelers, texts to normalise on, lines that say all this
"""

from __future__ import annotations

import hashlib
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.evals.reward_quality import Pairs, length_ratio
from rein.feedback import judged as reading
from rein.feedback import trust
from rein.feedback.judged import Judged
from rein.feedback.trust import People
from rein.models.rows import Completion
from rein.report.legible import count
from rein.text.prompts import answer_of, format_of, numbered_rows, within
from rein.train.queries import taught_format
from rein.train.reward_config import RewardConfig
from rein.train.reward_rows import Compared, Element, Encoder, compared, elements

Json = Any

LISTED = 5  # labelers with too few judgements, by name


@dataclass(frozen=True)
class Measured:
    """Judged pairs of a part that is held out, and the completions they are of."""

    completions: list[Completion]
    pairs: list[Compared]

    def described(self, scores: Sequence[float]) -> Pairs:
        """The pairs as `evals.reward_quality` reads them, from a score for each completion."""
        return Pairs(
            np.array([scores[one.better] - scores[one.worse] for one in self.pairs]),
            np.array([length_ratio(*one.texts) for one in self.pairs]),
            [one.said.topic for one in self.pairs],
            [one.said.batch for one in self.pairs],
            [one.policies for one in self.pairs],
        )


@dataclass(frozen=True)
class RewardData:
    """All that a run reads, the same for every cell of a sweep."""

    train: list[Element]
    dev: Measured
    test: Measured
    judged: list[Judged]  # of training, as they are learned from
    references: list[Completion]  # to normalise on; empty for none, and for samples, which are not drawn yet
    queries: list[tuple[int, ...]]  # of the samples to be drawn
    lengths: list[float]  # of the training pairs: ln(better / worse)
    agreement: tuple[list[float], list[str]]
    accuracies: dict[str, float]  # of labelers, by Dawid and Skene
    tie_share: float
    notes: list[str]
    sha256: str

    def people(self, config: RewardConfig) -> People:
        """The parameters of labelers and ties, as they begin."""
        return People(
            self.judged, temperatures=config.reliability == "temperature", prior_sd=config.temperature_prior_sd,
            least=config.least_judgements, ties=config.ties or "drop", tie_share=self.tie_share,
        )  # fmt: skip


def encoder_of(settings: Mapping[str, Json], tokenizer: Tokenizer, n_ctx: int, *, taught: str = "") -> Encoder:
    """How a reward model reads texts, from its config: the same in training and whenever it scores."""
    format = format_of(
        str(settings["format"]), query_tokens=settings["query_tokens"], response_tokens=settings["response_tokens"]
    )
    return Encoder(within(format, n_ctx, taught=taught), tokenizer, n_ctx, settings["too_long"])


def read_data(config: RewardConfig, tokenizer: Tokenizer, n_ctx: int) -> RewardData:
    """Everything that a settled config names.

    Raises   UserError where nothing is left to learn from, to select by, or to normalise on.
    """
    encoder = encoder_of(vars(config), tokenizer, n_ctx, taught=taught_format(config.policy))
    all_of_it, shown, notes = _judgements(config)
    if config.ratings == "pairs":
        all_of_it = [_ranked(each) if each.kind == "rating" else each for each in all_of_it]
    kept, dropped = reading.tidy(all_of_it, ties_count=config.ties != "drop")
    if not kept:
        raise UserError(
            f"None of {count(len(all_of_it), 'judgement')} says anything that can be learned: {_why(dropped)}.",
            "Give judgements in which one of two different texts is better, or --ties half.",
        )
    parts, how, held = reading.parted(kept, heldout_frac=config.heldout_frac, seed=0)
    agreement = trust.agreement(kept)
    train, accuracies = _trusted(config, parts["train"])
    people = People(train, least=config.least_judgements)
    by = config.element or "prompt"
    found = {part: elements(some, encoder, people, by=by) for part, some in {**parts, "train": train}.items()}
    for part, some in found.items():
        if not some:
            raise UserError(
                f"No judgement of the {part} part fits: {_why(encoder.left_out)}.",
                "Raise --query-tokens or --response-tokens, choose another --format, or give --too-long cut.",
            )
    dev, test = (Measured(*compared(found[part])) for part in ("dev", "test"))
    for part, measured in (("dev", dev), ("test", test)):
        if not measured.pairs:
            raise UserError(
                f"The {part} part has no pair of which one is better.", "Give more judgements, or more --heldout-frac."
            )
    references, queries = _references(config, encoder, all_of_it, shown, found["train"])
    notes += [
        f"{how}: " + ", ".join(f"{part} {count(len(some), 'judgement')}" for part, some in parts.items()),
        *_labelers(people, config),
    ]
    if lost := dropped + held + encoder.left_out:
        notes.append(f"left out: {_why(lost)}")
    _, pairs = compared(found["train"])
    ties = sum(len(each.pairs()[1]) for each in train)
    return RewardData(
        train=found["train"],
        dev=dev,
        test=test,
        judged=train,
        references=references,
        queries=queries,
        lengths=[length_ratio(*one.texts) for one in pairs],
        agreement=agreement,
        accuracies=accuracies,
        tie_share=ties / max(1, ties + len(pairs)),
        notes=notes,
        sha256=_sha256(found, references, queries),
    )


def _judgements(config: RewardConfig) -> tuple[list[Judged], list[tuple[dict[str, Json], str]], list[str]]:
    """All judgements, demonstrations, and what was read."""
    found, shown, notes = list[Judged](), list[tuple[dict[str, Json], str]](), list[str]()
    if config.project:
        found, shown = reading.from_store(config.store, config.project, question=config.question, batches=config.batch)
        notes.append(f"{config.store}, {config.project}: {count(len(found), 'judgement')}")
    for path in config.data:
        try:
            read, bad = reading.from_file(path, config.data_format)
        except UserError as error:  # of `rein label import`, whose --format is another one here
            raise UserError(error.problem, re.sub(r"(?<!\S)--format\b", "--data-format", error.fix)) from None
        found += read
        first = f"; {count(len(bad), 'line')} left out, line {bad[0].line}: {bad[0].problem}" if bad else ""
        notes.append(f"{path}: {count(len(read), 'judgement')}{first}")
    if not found:
        raise UserError("There is no judgement in what was given.", "Collect some, or give other --data.")
    return found, shown, notes


def _ranked(each: Judged) -> Judged:
    """A rating as the ranking that it implies."""
    order = sorted(set(each.marks), reverse=True)
    return replace(each, kind="ranking", marks=tuple(float(order.index(mark) + 1) for mark in each.marks))


def _trusted(config: RewardConfig, train: list[Judged]) -> tuple[list[Judged], dict[str, float]]:
    """Training judgements with their probabilities, and ratings on a scale of mean 0 and standard deviation 1."""
    rated = [mark for each in train if each.kind == "rating" for mark in each.marks]
    if rated:
        mean, std = statistics.fmean(rated), statistics.pstdev(rated)
        if not std:
            raise UserError(
                f"All {len(rated):,} ratings of the training part are {rated[0]:g}: nothing is better than another.",
                "Give other --data, or --ratings pairs.",
            )
        train = [
            replace(each, marks=tuple((mark - mean) / std for mark in each.marks)) if each.kind == "rating" else each
            for each in train
        ]
    if config.reliability == "dawid_skene":
        return trust.consensus(train)
    if config.confidence != "ignore":
        p_of = trust.certainty(train, config.confidence, scale=config.confidence_scale)
        train = trust.with_certainty(train, p_of)
    return train, {}


def _references(
    config: RewardConfig,
    encoder: Encoder,
    judged: Sequence[Judged],
    shown: Sequence[tuple[dict[str, Json], str]],
    train: Sequence[Element],
) -> tuple[list[Completion], list[tuple[int, ...]]]:
    """The texts to normalise on, or the queries of samples that are to be."""
    most, how = config.normalise_samples, config.normalise
    rows = [(row, answer_of(row)) for _, row in numbered_rows(config.references)] if config.references else []
    texts: Iterable[tuple[Mapping[str, Json], str]] = [(row, text) for row, text in rows if text is not None]
    if how == "none":
        return [], []
    if how == "candidates":
        return list(dict.fromkeys(one for each in train for one in each.completions)), []
    if how == "policy":
        queries = dict.fromkeys(each.completions[0].query for each in train)
        if rows:
            answered = [encoder.completions(row, ["."]) for row, _ in rows]
            queries = dict.fromkeys(one[0].query for one in answered if one)
        return [], _spread(list(queries), most)
    if not rows and how == "references":
        texts = [(each.query, one.text) for each in judged for one in each.candidates
                 if one.policy in reading.REFERENCES]  # fmt: skip
    elif not rows:
        texts = shown
    unique = {(str(sorted(query.items(), key=str)), text): (query, text) for query, text in texts}
    encoded = [encoder.completions(query, [text]) for query, text in _spread(list(unique.values()), most)]
    found = [one[0] for one in encoded if one]
    if not found:
        what = "demonstrations" if how == "demonstrations" else "references"
        raise UserError(
            f"--normalise is {how}, but there are no {what} that fit: {_why(encoder.left_out) or 'none were given'}.",
            "Name JSON lines that have them with --references, or use --normalise policy, candidates or none.",
        )
    return found, []


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many, evenly over the whole."""
    return items if len(items) <= most else [items[place * len(items) // most] for place in range(most)]


def _labelers(people: People, config: RewardConfig) -> list[str]:
    """Who judged, and who judged too little to have a temperature of their own."""
    lines = [f"{count(len(people.counts), 'labeler')}"]
    once = [name for name, n in people.counts.items() if n == 1]
    if once:
        more = f" and {len(once) - LISTED} more" if len(once) > LISTED else ""
        lines.append(f"a single judgement each: {', '.join(once[:LISTED])}{more}")
    if config.reliability == "temperature" and people.few:
        lines.append(
            f"{count(len(people.few), 'labeler')} with fewer than {config.least_judgements} judgements share one "
            "temperature"
        )
    return lines


def _why(reasons: Counter[str]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())


def _sha256(
    parts: Mapping[Any, Sequence[Element]], references: Sequence[Completion], queries: Sequence[tuple[int, ...]]
) -> str:
    """Of all that is learned and measured: another file under the same name is another run."""
    digest = hashlib.sha256()
    for part in ("train", "dev", "test"):
        for each in parts[part]:
            said = [(choice.places, choice.said.marks, choice.said.p, choice.labeler) for choice in each.choices]
            digest.update(repr((part, [(one.query, one.response) for one in each.completions], said)).encode())
    digest.update(repr(([(one.query, one.response) for one in references], queries)).encode())
    return digest.hexdigest()
