"""Scores of texts by a reward model, and how unsure it is: of a file's rows, or of the items of a project.

Flow     {"prompt" or fields, "response"} → tokens as in training → the same rows with "score" and "score_std"
         a project's items → {"key", "scores": a list for each member} → `rein label prioritise --scores`

The deviation is that between the members of an ensemble, or else of the head alone (models/laplace.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.feedback.exchange.exporting import open_export
from rein.feedback.exchange.standing import Chosen, items
from rein.feedback.exchange.texts import completion_text
from rein.feedback.judged import query_of_item
from rein.feedback.store import Store
from rein.models import laplace
from rein.models.machine import resolve_device, resolve_precision
from rein.models.rows import Completion
from rein.models.scalar import Scalar, combined, last_states, load_ensemble, reward_folder
from rein.run import write_atomically
from rein.text.prompts import answer_of, numbered_rows
from rein.train.reward_data import encoder_of
from rein.train.reward_rows import Encoder

Json = Any

DRAWS = 8  # heads from the posterior, where there is no ensemble


@dataclass(frozen=True)
class RewardScoreConfig:
    """Settings of `rein reward score`."""

    reward: Path = setting(help="a run of `rein reward`, or its best folder", positional=True)
    data: Path | None = setting(None, 'JSON lines: "prompt" or fields, and "response" (or completion, reference …)')
    store: str = setting("labels.db", "the feedback store, where --project is given")
    project: str = setting("", "score the open items of this project, for `rein label prioritise --scores`")
    out: Path | None = setting(None, "JSON lines to write; without it, to standard output")
    combine: Literal["mean", "worst", "uncertain"] = setting("mean", "how members of an ensemble are one score")
    uncertainty_coef: float = setting(0.1, "of --combine uncertain", paper="0.1 for PPO, 0.5 for best of N in Coste")
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "of products", group="machine")
    tokens_at_once: int = setting(8192, "in one forward pass, padding included", unit="tokens", group="machine")

    def __post_init__(self) -> None:
        if (self.data is None) == (not self.project):
            raise UserError("One of --data and --project is needed.", "Give --data FILE.jsonl, or --project NAME.")


class Scorer:
    """A reward model, or all members of an ensemble, as it reads texts."""

    def __init__(
        self, path: Path, *, device: str = "auto", precision: str = "auto", tokens_at_once: int = 8192
    ) -> None:
        """Raises   UserError where there is no reward model of `rein reward`."""
        folder = reward_folder(path)
        if not (folder / "rein.json").exists():
            raise UserError(
                f"{folder} does not say how it reads texts: it has no rein.json.", "Give a run of `rein reward`."
            )
        here = resolve_device(device)
        self.members: list[Scalar]
        self.tokenizer: Tokenizer
        self.members, self.tokenizer = load_ensemble(path, device=here)
        settings = checkpoint.read_about(folder)["config"]
        self.encoder: Encoder = encoder_of(settings, self.tokenizer, self.members[0].model.config.n_ctx)
        self.head = laplace.load(folder) if len(self.members) == 1 else None
        self._options: dict[str, Any] = {
            "precision": resolve_precision(precision, here), "tokens_at_once": tokens_at_once
        }  # fmt: skip

    def of_members(self, completions: Sequence[Completion]) -> Tensor:
        """What each member says, (members, N); of a single model, heads that are drawn from its posterior."""
        if self.head is not None:
            return self.head.draws(self.members[0], self._states(completions), DRAWS)
        return torch.stack([self._of(net, completions) for net in self.members])

    def scores(
        self, completions: Sequence[Completion], combine: Literal["mean", "worst", "uncertain"], coef: float
    ) -> tuple[Tensor, Tensor | None]:
        """Scores and their standard deviations, (N,) each; no deviations of a model that has none."""
        if len(self.members) > 1:
            scores_MN = self.of_members(completions)
            return combined(scores_MN, combine, uncertainty_coef=coef), scores_MN.std(0)
        net, x_ND = self.members[0], self._states(completions)
        scores_N: Tensor = net(x_ND.to(net.weight.device)).detach().cpu()
        return scores_N, None if self.head is None else self.head.std(net, x_ND)

    def _states(self, completions: Sequence[Completion]) -> Tensor:
        return last_states(self.members[0], completions, **self._options)

    def _of(self, net: Scalar, completions: Sequence[Completion]) -> Tensor:
        x_ND = last_states(net, completions, **self._options)
        return net(x_ND.to(net.weight.device)).detach().cpu()  # type: ignore[no-any-return]


def score(config: RewardScoreConfig) -> None:
    """Scores texts with a reward model: one JSON line for each row, with "score" and how unsure it is.

    With --project, one line for each open item and its candidates, by each member of an ensemble, or by heads drawn
    from the posterior of a single model's: what `rein label prioritise --scores` reads, to ask first what the model
    does not know. Rows that do not fit have a null score, and are counted.

    Examples
      rein reward score runs/reward --data answers.jsonl --out scored.jsonl
      rein reward score runs/reward --project summaries --out doubts.jsonl
    """
    scorer = Scorer(
        config.reward, device=config.device, precision=config.precision, tokens_at_once=config.tokens_at_once
    )
    rows = _items(config, scorer) if config.project else _rows(config, scorer)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    if config.out is None:
        sys.stdout.write("".join(lines))
    else:
        write_atomically(config.out, "".join(lines))
    lost = sum(scorer.encoder.left_out.values())
    why = ", ".join(f"{n:,} {reason}" for reason, n in scorer.encoder.left_out.most_common())
    print(f"{len(lines):,} scored" + (f", of which {lost:,} do not fit: {why}" if lost else ""), file=sys.stderr)


def _rows(config: RewardScoreConfig, scorer: Scorer) -> Iterator[dict[str, Json]]:
    assert config.data is not None, "checked by the config"
    rows = list(numbered_rows(config.data))
    found = list[Completion | None]()
    for where, row in rows:
        answer = answer_of(row)
        if answer is None:
            raise UserError(f"{where} has no response.", 'Write {"prompt": "…", "response": "…"}.')
        fit = scorer.encoder.completions({name: row[name] for name in row if row[name] is not answer}, [answer])
        found.append(fit[0] if fit else None)
    fits = [one for one in found if one is not None]
    scores_N, std_N = scorer.scores(fits, config.combine, config.uncertainty_coef) if fits else (torch.empty(0), None)
    at = 0
    for (_, row), one in zip(rows, found, strict=True):
        if one is None:
            yield {**row, "score": None}
            continue
        std = {} if std_N is None else {"score_std": float(std_N[at])}
        yield {**row, "score": float(scores_N[at]), **std}
        at += 1


def _items(config: RewardScoreConfig, scorer: Scorer) -> Iterator[dict[str, Json]]:
    if scorer.head is None and len(scorer.members) < 2:
        raise UserError(
            f"{config.reward} says nothing of how unsure it is: it is one model without an uncertainty.",
            "Train it with --seeds 3 --ensemble.",
        )
    with Store.open(config.store, to_read=True) as store, store.reading() as conn:
        export = open_export(conn, config.project, secret=b"", names=True)
        asked = [
            (one.key, query_of_item(one), [completion_text(one, n) for n in range(len(one.candidates))])
            for one in items(conn, export.project, Chosen(roles=("work",)))
            if len(one.candidates) > 1
        ]
    fit = [(key, some) for key, query, texts in asked if (some := scorer.encoder.completions(query, texts))]
    scores_MN = scorer.of_members([one for _, some in fit for one in some]) if fit else torch.empty(0, 0)
    at = 0
    for key, some in fit:
        yield {"key": key, "scores": scores_MN[:, at : at + len(some)].tolist()}
        at += len(some)
