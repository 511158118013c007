"""Mixtures: how much training reads of each source of a corpus, and `rein text mixture`, which prints it.

Flow     weights or epochs of the sources + their tokens → `Mixture` → a table, and the order training reads in.

The train part of a corpus is one row of tokens in which each source is one range. Without a mixture, windows come
from all over it; with one, a source comes as often as its weight says, so that good text can be read several
times before the rest is read once ("data sets we view as higher-quality are sampled more frequently").
Source   Brown 2020, §2.2 and Table 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.text.order import MixtureOrder, Order, WindowOrder
from rein.text.shards import read_manifest
from rein.text.show import table

GPT3_TRAIN_TOKENS = 300_000_000_000


class Row(NamedTuple):
    """What a run of some length reads of one source."""

    source: str
    tokens: int
    weight: float | None  # as it was given; None where epochs were
    share: float  # of all sampled tokens
    sampled_tokens: int
    epochs: float


@dataclass(frozen=True)
class Mixture:
    """Which share of the training tokens each source gives; made with `from_weights` or `from_epochs`.

    `tokens` and `shares` are by source, in the order of the row of tokens; the shares add up to 1. `pass_tokens`
    is how long a run is in which every source is read as many epochs as were asked for; None where weights were
    given.
    """

    tokens: Mapping[str, int]
    shares: Mapping[str, float]
    weights: Mapping[str, float] | None = None
    pass_tokens: float | None = None

    @staticmethod
    def from_weights(tokens: Mapping[str, int], weights: Mapping[str, float]) -> Mixture:
        """Shares as the weights are to each other: they need not add up to 1, and the paper's do not.

        Example  >>> Mixture.from_weights({"web": 100, "books": 50}, {"web": 60, "books": 20}).shares
                 {'web': 0.75, 'books': 0.25}
        Raises   UserError when a source has no weight, or one that is not above 0.
        """
        weights = _checked("weight", tokens, weights)
        total = math.fsum(weights.values())
        return Mixture(tokens, {source: weight / total for source, weight in weights.items()}, weights=weights)

    @staticmethod
    def from_epochs(tokens: Mapping[str, int], epochs: Mapping[str, float]) -> Mixture:
        """Shares in which every source is read as often as asked for, when the run is `pass_tokens` long.

            share = epochs · tokens / Σ (epochs · tokens)

        Example  >>> mixture = Mixture.from_epochs({"web": 100, "books": 50}, {"web": 0.5, "books": 3})
                 >>> mixture.shares, mixture.pass_tokens
                 ({'web': 0.25, 'books': 0.75}, 200.0)
        Raises   UserError when a source has no epochs, or a number that is not above 0.
        """
        epochs = _checked("epochs", tokens, epochs)
        sampled = {source: epochs[source] * tokens[source] for source in tokens}
        total = math.fsum(sampled.values())
        return Mixture(tokens, {source: n / total for source, n in sampled.items()}, pass_tokens=total)

    def table(self, train_tokens: float) -> list[Row]:
        """What a run of `train_tokens` reads of each source."""
        return [
            Row(
                source,
                n_tokens,
                None if self.weights is None else self.weights[source],
                self.shares[source],
                round(self.shares[source] * train_tokens),
                self.shares[source] * train_tokens / n_tokens if n_tokens else 0.0,
            )
            for source, n_tokens in self.tokens.items()
        ]


def _checked(what: str, tokens: Mapping[str, int], given: Mapping[str, float]) -> dict[str, float]:
    """The given numbers in the order of the sources.  Raises   UserError as `Mixture.from_weights` does."""
    for source in given:
        if source not in tokens:
            raise UserError(f"The mixture has {what} of {source!r}, no source.", suggestion(source, tokens))
    for source, n_tokens in tokens.items():
        number = given.get(source)
        if number is None:
            raise UserError(
                f"The source {source!r} has no {what}, but others have.", f"Give {what} to every source, or to none."
            )
        if not (math.isfinite(number) and number > 0):
            raise UserError(
                f"The source {source!r} has {what} {number}, but a number above 0 is expected.",
                "Correct it, or leave the source out.",
            )
        if n_tokens == 0:
            raise UserError(
                f"The source {source!r} has no tokens to train on, so it cannot be sampled.",
                "Add text to this source, or leave it out.",
            )
    return {source: float(given[source]) for source in tokens}


# -------------------------------------------------------------------------------------- the mixture of a corpus


def mixture_of(manifest: dict[str, Any]) -> Mixture | None:
    """The mixture a corpus was built with; None where its sources have neither weights nor epochs.

    Where a corpus has both, the weights count.
    """
    sources = manifest.get("mixture", [])
    tokens = {about["source"]: about["tokens"] for about in sources}
    for key, make in (("weight", Mixture.from_weights), ("epochs", Mixture.from_epochs)):
        given = {about["source"]: about[key] for about in sources if about[key] is not None}
        if given:
            return make(tokens, given)
    return None


def order_of(manifest: dict[str, Any], length: int, seed: int) -> Order:
    """In which order training reads the train part of a corpus, in windows of `length` tokens.

    Raises   UserError when the corpus, or one source of its mixture, has fewer tokens than one window.
    """
    n_tokens = manifest["splits"]["train"]["tokens"]
    mixture = mixture_of(manifest)
    if mixture is None or len(mixture.tokens) == 1:
        return WindowOrder(n_tokens, length, seed)
    assert sum(mixture.tokens.values()) == n_tokens, f"sources of {dict(mixture.tokens)}, {n_tokens} tokens"
    return MixtureOrder(mixture.tokens, mixture.shares, length, seed)


# -------------------------------------------------------------------------------------------------- GPT-3's own


class Printed(NamedTuple):
    """One row of Table 2.2, as it is printed."""

    source: str
    tokens: int
    weight: float
    epochs: float  # "elapsed when training for 300B tokens"


GPT3 = (
    Printed("Common Crawl (filtered)", 410_000_000_000, 0.60, 0.44),
    Printed("WebText2", 19_000_000_000, 0.22, 2.9),
    Printed("Books1", 12_000_000_000, 0.08, 1.9),
    Printed("Books2", 55_000_000_000, 0.08, 0.43),
    Printed("Wikipedia", 3_000_000_000, 0.03, 3.4),
)


def gpt3_mixtures() -> tuple[Mixture, Mixture]:
    """GPT-3's mixture by its weights, and by its epochs: two readings of one table that differ.

    Example  >>> by_weights, by_epochs = gpt3_mixtures()
             >>> [round(100 * share, 1) for share in by_weights.shares.values()]
             [59.4, 21.8, 7.9, 7.9, 3.0]
             >>> [round(100 * share, 1) for share in by_epochs.shares.values()]
             [61.7, 18.9, 7.8, 8.1, 3.5]
    Source   Brown 2020, Table 2.2.
    """
    tokens = {row.source: row.tokens for row in GPT3}
    return (
        Mixture.from_weights(tokens, {row.source: row.weight for row in GPT3}),
        Mixture.from_epochs(tokens, {row.source: row.epochs for row in GPT3}),
    )


# -------------------------------------------------------------------------------------------------- the command


@dataclass(frozen=True)
class MixtureConfig:
    """Settings of `rein text mixture`."""

    corpus: Path | None = setting(None, "corpus folder, from `rein text build`", positional=True)
    train_tokens: int | None = setting(
        None,
        "length of the run; if not given, the one that reads each source as often as asked for, or the corpus once",
        unit="tokens",
        paper="300e9",
    )
    gpt3: bool = setting(False, "print GPT-3's mixture instead, in the two readings its table allows")

    def __post_init__(self) -> None:
        if (self.corpus is None) != self.gpt3:
            raise UserError(
                "rein text mixture needs a corpus folder, or --gpt3." if self.corpus is None
                else f"--gpt3 prints the paper's table, not that of {self.corpus}.",
                "Name one of the two: rein text mixture data/NAME, or rein text mixture --gpt3.",
            )  # fmt: skip
        if self.train_tokens is not None and self.train_tokens <= 0:
            raise UserError(f"--train-tokens is {self.train_tokens}, but it must be above 0.", "Raise --train-tokens.")


def mixture(config: MixtureConfig) -> None:
    """Prints how much a run reads of each source of a corpus: its share, its tokens, and how often it is repeated.

      rein text mixture data/NAME --train-tokens 300e9
      rein text mixture --gpt3

    A mixture is weights (shares of the tokens read, of any sum) or epochs (how often each source is read); either
    gives the other, once the length of the run is known. Windows of a source come in random order, every one of
    them once before any comes again, so 0.44 epochs reads 44 % of a source, and 2.9 reads all of it twice and
    90 % of it a third time. Without a mixture, every source is read alike.
    """
    if config.corpus is None:
        print(_describe_gpt3(config.train_tokens or GPT3_TRAIN_TOKENS))
    else:
        print(_describe(config.corpus, read_manifest(config.corpus), config.train_tokens))


def _describe(folder: Path, manifest: dict[str, Any], train_tokens: int | None) -> str:
    train = manifest["splits"]["train"]
    sources = manifest.get("mixture") or [{"source": folder.name, **train}]
    given = mixture_of(manifest)
    tokens = {about["source"]: about["tokens"] for about in sources}
    found = given or Mixture(tokens, {source: n / train["tokens"] for source, n in tokens.items()})
    run = train_tokens or round(found.pass_tokens or train["tokens"])
    documents = {about["source"]: about["documents"] for about in sources}
    rows = [("source", "documents", "tokens", "weight", "share", "sampled tokens", "epochs")]
    rows += [
        (
            row.source,
            f"{documents[row.source]:,}",
            f"{row.tokens:,}",
            "–" if row.weight is None else f"{row.weight:g}",
            f"{row.share:.2%}",
            f"{row.sampled_tokens:,}",
            f"{row.epochs:.3g}",
        )
        for row in found.table(run)
    ]
    kind = "no mixture: every source is read alike" if given is None else "sources are read by a mixture"
    lines = [f"{folder}: {kind}; a run of {run:,} tokens", "", *table(rows, "<>>>>>>")]
    if found.weights is not None and not math.isclose(sum(found.weights.values()), 1.0):
        lines += ["", f"the weights add up to {sum(found.weights.values()):g}; a share is a weight of that sum"]
    return "\n".join(lines)


def _describe_gpt3(train_tokens: int) -> str:
    by_weights, by_epochs = gpt3_mixtures()
    passed = by_epochs.pass_tokens
    assert passed is not None, "made of epochs"
    weighted, repeated = by_weights.table(train_tokens), by_epochs.table(passed)
    head = ("source", "tokens", "weight", "epochs", "share", "sampled", "epochs", "share", "sampled", "epochs")
    rows = [head]
    for printed, first, second in zip(GPT3, weighted, repeated, strict=True):
        rows.append((printed.source, _billions(printed.tokens), f"{printed.weight:.0%}", f"{printed.epochs:g}",
                     *_reading(first), *_reading(second)))  # fmt: skip
    total_weight = sum(row.weight for row in GPT3)
    rows.append(("together", _billions(sum(row.tokens for row in GPT3)), f"{total_weight:.0%}", "",
                 "100.0%", _billions(train_tokens), "", "100.0%", _billions(passed), ""))  # fmt: skip
    lines = table(rows, "<>>>>>>>>>")
    labels = _labels(rows, {2: "printed", 4: "read as weights", 7: "read as epochs"})
    web = next(i for i, row in enumerate(GPT3) if row.source == "WebText2")
    plain_epochs = GPT3[web].weight * GPT3_TRAIN_TOKENS / GPT3[web].tokens
    return "\n".join(
        [
            f"GPT-3's mixture (Brown 2020, Table 2.2), for {_billions(train_tokens)} tokens of training",
            "",
            labels,
            *lines,
            "",
            f"The printed weights add up to {total_weight:.0%}, so a share is a weight of that sum.",
            f"The printed epochs add up to {_billions(passed)} tokens, not {_billions(GPT3_TRAIN_TOKENS)}.",
            f"WebText2's two numbers do not agree: {GPT3[web].weight:.0%} of {_billions(GPT3_TRAIN_TOKENS)} are "
            f"{plain_epochs:.2f} epochs, and {GPT3[web].epochs:g} epochs are {repeated[web].share:.1%}.",
            "A corpus takes either: a weight for each of its sources, or epochs.",
        ]
    )


def _reading(row: Row) -> tuple[str, str, str]:
    return f"{row.share:.1%}", _billions(row.sampled_tokens), f"{row.epochs:.2f}"


def _billions(n: float) -> str:
    """A number of tokens as the paper writes it.

    Example  >>> _billions(19_000_000_000), _billions(292.15e9)
             ('19 B', '292.15 B')
    """
    return f"{round(n / 1e9, 2):g} B"


def _labels(rows: Sequence[tuple[str, ...]], over: Mapping[int, str]) -> str:
    """A line with each label above the column it begins with."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = ""
    for column, label in over.items():
        line = line.ljust(sum(widths[:column]) + 2 * (column + 1)) + label
    return line
