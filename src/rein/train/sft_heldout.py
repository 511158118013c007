"""What a supervised start is asked while it goes on: held-out queries, answered, shown, and scored by a reward.

Flow     held-out demonstrations ─ seed → `judge_of`: some of them → `answer`: samples → numbers, samples.jsonl
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np
import torch

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.models.gpt import GPT
from rein.models.reward import Reward, load_reward
from rein.models.rollout import rollouts
from rein.run import RunFolder
from rein.text.prompts import PromptFormat, decode_response, format_of
from rein.train.demonstrations import Demonstration, Demonstrations
from rein.train.sft_config import SFTConfig

_SHOWN_SAMPLES = 8  # of an evaluation, in samples.jsonl


@dataclass(frozen=True)
class Judge:
    """What a model is asked at an evaluation, and what scores its answers."""

    tokenizer: Tokenizer
    format: PromptFormat
    asked: tuple[Demonstration, ...]
    max_new_tokens: int
    reward: Reward | None


def judge_of(
    config: SFTConfig, format: PromptFormat, tokenizer: Tokenizer, data: Demonstrations, n_ctx: int,
    device: torch.device, precision: str,
) -> Judge:  # fmt: skip
    """What is asked of a run's model, and who scores it.

    Raises   UserError when answers are to be scored, and no held-out query leaves room for one.
    """
    known_length = format_of(format.name, response_tokens=config.response_tokens).response_tokens
    length = min(config.sample_tokens, known_length or config.sample_tokens, n_ctx - 1)
    reward = None
    if config.reward:
        reward = load_reward(config.reward, tokenizer, device=device, precision=precision,
                             tokens_at_once=config.tokens_at_once, format=format)  # fmt: skip
        n_ctx = min(n_ctx, reward.n_ctx or n_ctx)
    fit = [each for each in data.heldout if len(each.asked) + length <= n_ctx]
    order = np.random.default_rng([config.seed, 1]).permutation(len(fit))[: config.samples]
    if reward is not None and not len(order):
        raise UserError(
            f"No held-out query leaves room for a sample of {length} tokens in a context of {n_ctx}.",
            "Lower --sample-tokens or --query-tokens.",
        )
    return Judge(tokenizer, format, tuple(fit[place] for place in order), length, reward)


def answer(
    run: RunFolder, config: SFTConfig, model: GPT, judge: Judge, *, opt_step: int, precision: str
) -> dict[str, float]:
    """Writes what the model answers to some queries, and returns what is to be said of it, with its mean score.

    Every evaluation draws with the same random numbers, so that what differs is the model.
    """
    if not judge.asked:
        return {}
    written = rollouts(
        model, [each.asked for each in judge.asked], max_new_tokens=judge.max_new_tokens, precision=precision,
        temperature=config.temperature, seed=config.seed, eot_id=judge.tokenizer.eot_id,
    ).completions  # fmt: skip
    texts = [decode_response(one.response, judge.tokenizer, judge.format) for one in written]
    found = {
        "heldout_response_tokens": statistics.fmean(len(one.response) for one in written),
        "heldout_no_eot_frac": statistics.fmean(one.response[-1] != judge.tokenizer.eot_id for one in written),
    }
    scores: list[float] = []
    if judge.reward is not None:
        scores = judge.reward.scores(written, [each.query.fields for each in judge.asked], texts).tolist()
        found["heldout_reward"] = statistics.fmean(scores)
    for number, (each, text) in enumerate(zip(judge.asked[:_SHOWN_SAMPLES], texts, strict=False)):
        more = {"reference": each.query.reference, **({"score": scores[number]} if scores else {})}
        run.sample(opt_step=opt_step, prompt=each.query.text, text=text, **more)
    return found
