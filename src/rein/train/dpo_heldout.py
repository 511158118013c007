"""What a policy that learns from judgements is worth on those it does not see, and what it writes meanwhile.

Flow     judgements with log π_ref → `measure` → loss, accuracy and margin of the implied rewards
         prompts of dev judgements → `Answers`: responses with the same random numbers every time → score, KL, length

A comparison's accuracy says little of what a policy writes: likelihoods of better and worse may fall together. So the
log ratios of both are measured, and answers, where they are asked for.
Source   Rafailov 2023, sections 4 (implied rewards) and 6.1 (reward against KL).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.models import rows
from rein.models.actors import frozen
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text
from rein.models.ops import site_seed
from rein.models.reward import load_reward
from rein.models.rows import Completion
from rein.run import RunFolder
from rein.text.prompts import PromptFormat, decode_response, query_of
from rein.train.comparisons import Compared, Group, log_ratios, pair_losses, pieces
from rein.train.dpo_config import DPOConfig
from rein.train.ppo_rules import Ending
from rein.train.queries import Prompt, response_tokens
from rein.train.responses import respond


class Measured(NamedTuple):
    """What judgements say of a policy: means over groups, and of each pair that is no tie whether it is right."""

    loss: float
    margin: float
    better_log_ratio: float
    worse_log_ratio: float
    right: list[float]
    topics: list[str]


def measure(policy: GPT, some: Compared, config: DPOConfig, precision: str) -> Measured:
    """Losses and implied rewards of judgements; a pair is right where the better one has the higher reward."""
    of_groups = np.zeros((len(some.groups), 4))
    right, topics = list[float](), list[str]()
    for piece in pieces(some.groups, config.tokens_at_once):
        ratio_N, pairs = log_ratios(policy, some.at(piece), precision)
        ratio_N = ratio_N.detach()  # with a graph, as log π_ref was computed: see comparisons.with_reference
        better_P, worse_P = ratio_N[pairs.better_P], ratio_N[pairs.worse_P]
        loss_P = pair_losses(
            ratio_N, pairs, loss=config.loss, kl_coef=config.kl_coef, label_smoothing=config.label_smoothing
        )
        columns = (loss_P, config.kl_coef * (better_P - worse_P), better_P, worse_P)
        weighted_4P = (torch.stack(columns) * pairs.weight_P).double().cpu().numpy()
        place_P = np.repeat(piece, [len(some.groups[place].p) for place in piece])
        np.add.at(of_groups, place_P, weighted_4P.T)
        for place, p, gap in zip(place_P, pairs.p_P.tolist(), (better_P - worse_P).tolist(), strict=True):
            if p != 0.5:
                right.append(0.5 if gap == 0 else float((gap > 0) == (p > 0.5)))
                topics.append(some.groups[place].topic)
    loss, margin, better, worse = of_groups.mean(axis=0).tolist()
    return Measured(loss, margin, better, worse, right, topics)


@dataclass(frozen=True)
class Answered:
    """Responses to the same prompts, with their scores where there is a reward."""

    completions: list[Completion]
    texts: list[str]
    ended: list[bool]
    scores_N: Tensor | None


class Answers:
    """What the policy writes to dev prompts, beside the model that it began from, which is kept in memory for it."""

    def __init__(
        self, config: DPOConfig, policy: GPT, tokenizer: Tokenizer, format: PromptFormat, dev: Sequence[Group],
        precision: str,
    ) -> None:  # fmt: skip
        """`policy` is the reference now.

        Raises   UserError for a reward that cannot be had, and where nothing says how long a response may be.
        """
        self._config, self._tokenizer, self._format, self._precision = config, tokenizer, format, precision
        self._ending = Ending(eot_id=end_of_text(policy.config, tokenizer))
        longest = policy.config.n_ctx - response_tokens(format)
        self._prompts = list(_prompts(dev, format, longest).values())[: config.sampled_prompts]
        if not self._prompts:
            raise UserError(
                f"No dev prompt leaves room for {response_tokens(format)} tokens in a context of "
                f"{policy.config.n_ctx}.",
                "Lower --response-tokens, or give --sampled-prompts 0.",
            )
        self._reward = None
        if config.reward:
            self._reward = load_reward(
                config.reward, tokenizer, device=policy.wte.device, precision=precision,
                tokens_at_once=config.tokens_at_once, format=format,
            )  # fmt: skip
        self._reference = frozen(policy, precision)
        self._start = self._written(self._reference)

    def run(self, run: RunFolder, policy: GPT, opt_step: int) -> dict[str, float]:
        """Writes samples beside the reference's, and returns the numbers of a row of metrics."""
        found = self._written(policy)
        for n, prompt in enumerate(self._prompts[: self._config.show_samples]):
            more: dict[str, str | float] = {"start": self._start.texts[n]}
            for name, each in (("proxy", found), ("start_proxy", self._start)):
                if each.scores_N is not None:
                    more[name] = round(float(each.scores_N[n]), 4)
            run.sample(opt_step=opt_step, prompt=prompt.query.text, text=found.texts[n], **more)
        row = {
            "heldout_kl_nats": self._kl_nats(policy, found.completions),
            "heldout_response_tokens": sum(len(each.response) for each in found.completions) / len(found.texts),
            "heldout_no_eot_frac": 1 - sum(found.ended) / len(found.ended),
        }
        if found.scores_N is not None:
            row["heldout_proxy"] = float(found.scores_N.double().mean())
            if len(found.scores_N) > 1:
                row["heldout_proxy_stderr"] = float(found.scores_N.double().std()) / math.sqrt(len(found.scores_N))
        return row

    def _written(self, model: GPT) -> Answered:
        written = respond(
            model, self._prompts, self._ending, max_new_tokens=response_tokens(self._format),
            temperature=self._config.temperature, seed=site_seed(self._config.seed, 1),
            numbers=range(len(self._prompts)), slots=64, precision=self._precision,
        )  # fmt: skip
        texts = [decode_response(each.response, self._tokenizer, self._format) for each in written.scored]
        scores_N = None
        if self._reward is not None:
            scores_N = self._reward.scores(written.scored, [prompt.query.fields for prompt in self._prompts], texts)
        return Answered(written.trained, texts, written.ended, scores_N)

    def _kl_nats(self, policy: GPT, completions: Sequence[Completion]) -> float:
        """Mean over responses of log (π / π_ref), both at the temperature of the answers."""
        ratio_N = rows.log_ratios(
            policy, self._reference, completions, temperature=self._config.temperature or 1.0,
            precision=self._precision, tokens_at_once=self._config.tokens_at_once,
        )  # fmt: skip
        return float(ratio_N.mean())


def _prompts(groups: Sequence[Group], format: PromptFormat, longest: int) -> dict[tuple[int, ...], Prompt]:
    """Each query once, in the order in which they come; those that leave no room for a whole response are left out."""
    found: dict[tuple[int, ...], Prompt] = {}
    for group in groups:
        ids = group.completions[0].query
        if ids not in found and len(ids) <= longest:
            found[ids] = Prompt(ids, query_of(format, group.query, group.topic))
    return found
