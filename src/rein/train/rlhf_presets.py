"""What the papers' supervised starts, reward models and PPO were, side by side: data that the settings are filled from.

A preset is a paper. Its rows are read by the settings of `rein sft`, `rein reward` and `rein ppo`; what is given by a
flag goes before them. What a paper left open is said, and where the value is from that stands here instead.

Source   Ziegler 2019 with openai/lm-human-preferences; Stiennon 2020; Ouyang 2022; Huang 2024 with its code.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

# ------------------------------------------------------------------------------------------------------------- sft


@dataclass(frozen=True)
class SFTPreset:
    """What a paper's supervised start was; each field but the last two is a setting of `rein sft`."""

    format: str
    learning_rate: float
    demonstrations_per_batch: int
    epochs: int
    final_frac: float
    residual_dropout: float
    select: Literal["loss", "reward"]
    adam_b2: float
    adam_eps: float
    weight_decay: float
    source: str
    left_open: str
    loss_on: Literal["response", "all"] = "response"
    warmup_frac: float = 0.0
    adam_b1: float = 0.9
    clip_norm: float = 0.0
    ptx_frac: float = 0.0


# Ziegler 2019 has none: its policies start from the pre-trained model.
SFT = {
    "stiennon2020": SFTPreset(
        format="tldr", learning_rate=6.35e-5, demonstrations_per_batch=128, epochs=1, final_frac=0.0,
        residual_dropout=0.0, select="loss", adam_b2=0.999, adam_eps=1e-8, weight_decay=0.0,
        source="Stiennon 2020, App. B.1, for 1.3 billion parameters (3: 5.66e-5; 6.7 and 13: 2.83e-5)",
        left_open="where the cosine ends, Adam's b1, b2 and eps, weight decay, clipping, dropout: 0, none, or Adam's "
        "own; the rate is from a sweep of 7 or more",
    ),
    "instructgpt2022": SFTPreset(
        format="instruct", learning_rate=9.65e-6, demonstrations_per_batch=32, epochs=16, final_frac=0.1,
        residual_dropout=0.2, select="reward", adam_b2=0.95, adam_eps=1e-8, weight_decay=0.0,
        source="Ouyang 2022, App. C.1, for 1.3 and 6 billion parameters (175: 5.03e-6, 8 a batch)",
        left_open="eps, weight decay, clipping. Its PPO begins elsewhere: instructgpt2022_rlhf_init",
    ),
    "instructgpt2022_rlhf_init": SFTPreset(
        format="instruct", learning_rate=5e-6, demonstrations_per_batch=32, epochs=2, final_frac=0.1,
        residual_dropout=0.0, select="loss", adam_b2=0.95, adam_eps=1e-8, weight_decay=0.0, ptx_frac=0.1,
        source="Ouyang 2022, App. C.3, what its PPO begins from, for 1.3 billion parameters (6: 1.04e-5; 175: 2.45e-6, "
        "8 a batch)",
        left_open="eps, weight decay, clipping, dropout: none; a tenth of what: here of the tokens that are learned. "
        "Its rate has low losses on demonstrations and on text, both of which a run measures",
    ),
    "n_plus": SFTPreset(
        format="n_plus", learning_rate=3e-6, demonstrations_per_batch=128, epochs=1, final_frac=0.0,
        residual_dropout=0.0, select="loss", adam_b2=0.999, adam_eps=1e-5, weight_decay=0.01,
        loss_on="all",
        source="Huang 2024, vwxyzjn/summarize_from_feedback_details, sft.py: the query's tokens are learned too",
        left_open="nothing: the code is released. Its loss is the mean of the means of micro-batches; here, of tokens",
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- reward


@dataclass(frozen=True)
class RewardPreset:
    """What a paper's reward model was; each field but `source` and `left_open` is a setting of `rein reward`."""

    format: str
    element: Literal["prompt", "judgement"]
    learning_rate: float  # of --learning-rates
    prompts_per_batch: int
    schedule: Literal["cosine", "linear"]
    final_frac: float
    normalise: Literal["references", "demonstrations", "policy"]
    normalise_std: bool
    normalise_before: bool
    adam_b2: float
    adam_eps: float
    weight_decay: float
    source: str
    left_open: str
    response_tokens: int | None = None  # None: the format's
    ties: Literal["drop"] = "drop"
    epochs: int = 1
    warmup_frac: float = 0.0
    adam_b1: float = 0.9
    clip_norm: float = 0.0


REWARD = {
    "ziegler2019": RewardPreset(
        format="plain", element="judgement", learning_rate=5e-5, prompts_per_batch=32, schedule="linear",
        final_frac=0.0, normalise="policy", normalise_std=True, normalise_before=True, adam_b2=0.999, adam_eps=1e-5,
        weight_decay=0.0,
        source="Ziegler 2019, openai/lm-human-preferences: sentiment and descriptiveness",
        left_open="eps: as in its PPO. Its gain and bias are trained with the weights; here they are set before and "
        "after. Samples to normalise on are not cut at a full stop, as its PPO's are for their score. Its summaries "
        "had lr 2.5e-5 and 16 a batch",
    ),
    "stiennon2020": RewardPreset(
        format="tldr", element="judgement", learning_rate=1.5e-5, prompts_per_batch=64, schedule="cosine",
        final_frac=0.0, normalise="references", normalise_std=False, normalise_before=False, adam_b2=0.999,
        adam_eps=1e-8, weight_decay=0.0,
        source="Stiennon 2020, App. B.1, for 1.3 billion parameters (6.7: lr 5e-6); 3 to 10 seeds, 7 or more rates",
        left_open="Adam's b1, b2 and eps, weight decay, clipping: none, or Adam's own; ties: indifference is no "
        "choice in the released data",
    ),
    "instructgpt2022": RewardPreset(
        format="instruct", element="prompt", learning_rate=9e-6, prompts_per_batch=64, schedule="cosine",
        final_frac=0.1, normalise="demonstrations", normalise_std=False, normalise_before=False, adam_b2=0.95,
        adam_eps=1e-8, weight_decay=0.0,
        source="Ouyang 2022, section 3.5 and App. C.2, for 6 billion parameters",
        left_open="eps, weight decay, clipping",
    ),
    "n_plus": RewardPreset(
        format="n_plus", element="judgement", learning_rate=3e-6, prompts_per_batch=64, schedule="cosine",
        final_frac=0.0, normalise="references", normalise_std=False, normalise_before=False, adam_b2=0.999,
        adam_eps=1e-5, weight_decay=0.01, response_tokens=169,
        source="Huang 2024, vwxyzjn/summarize_from_feedback_details",
        left_open="nothing: the code is released",
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- ppo


@dataclass(frozen=True)
class PPOPreset:
    """What a paper's PPO was: each field is a setting of `rein ppo`, but for those in words (`IN_WORDS`).

    What a paper did not print is filled in from the paper whose method it follows, and `left_open` says so.
    """

    format: str
    query_tokens: int | None  # None: the format's
    response_tokens: int | None
    episodes: int
    episodes_per_batch: int
    minibatches: int
    epochs: int
    learning_rate: float
    value_learning_rate: float
    schedule: Literal["linear", "warmup"]
    warmup_batches: int
    kl_coef: float
    kl_control: Literal["fixed", "adaptive"]
    kl_target_nats: float
    kl_horizon_episodes: int
    lam: float
    whiten_rewards: bool
    whiten_over: Literal["batch", "minibatch"]
    vf_coef: float
    temperature: float
    responses: Literal["ended", "fixed"]
    truncate_at: str
    truncate_after_tokens: int
    unended: Literal["keep", "score"]
    unended_score: float
    value: Literal["separate", "shared"]
    adam_b2: float
    adam_eps: float
    weight_decay: float
    ema_decay: float
    ptx_coef: float
    padding: str  # here it never touches a number: models/rows.py
    reward_at: str
    reward_zero: str
    source: str
    left_open: str
    gamma: float = 1.0
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    whiten_advantages: bool = True
    adam_b1: float = 0.9
    clip_norm: float = 0.0
    ptx_per_episode: float = 8.0


PPO = {
    "ziegler2019": PPOPreset(
        format="plain", query_tokens=64, response_tokens=24, episodes=1_000_000, episodes_per_batch=512, minibatches=1,
        epochs=4, learning_rate=1e-5, value_learning_rate=1e-5, schedule="linear", warmup_batches=0, kl_coef=0.15,
        kl_control="adaptive", kl_target_nats=6.0, kl_horizon_episodes=10_000, lam=0.95, whiten_rewards=True,
        whiten_over="minibatch", vf_coef=0.1, temperature=0.7, responses="fixed", truncate_at=".",
        truncate_after_tokens=16, unended="score", unended_score=-1.0, value="shared", adam_b2=0.999, adam_eps=1e-5,
        weight_decay=0.0, ema_decay=0.0, ptx_coef=0.0,
        padding="queries of one length; responses of one length",
        reward_at="the last place of the fixed length, wherever the text was cut",
        reward_zero="samples of the reference policy: mean 0, standard deviation 1",
        source="Ziegler 2019, openai/lm-human-preferences: sentiment and descriptiveness",
        left_open="nothing: the code is released. It whitens over the episodes of each of 8 processes; here over all. "
        "Its summaries had lr 2e-6, 32 episodes a batch, a fixed KL "
        "coefficient of 0.03 (TL;DR) or 0.01 (CNN/DM), T 0.5 for CNN/DM, a cut at a new line after 55 of 75 tokens",
    ),
    "stiennon2020": PPOPreset(
        format="tldr", query_tokens=None, response_tokens=None, episodes=1_000_000, episodes_per_batch=512,
        minibatches=1, epochs=4, learning_rate=1.5e-5, value_learning_rate=1.5e-5, schedule="linear", warmup_batches=0,
        kl_coef=0.05, kl_control="fixed", kl_target_nats=6.0, kl_horizon_episodes=10_000, lam=0.95,
        whiten_rewards=True, whiten_over="batch", vf_coef=0.1, temperature=0.7, responses="ended", truncate_at="",
        truncate_after_tokens=0, unended="keep", unended_score=-1.0, value="separate", adam_b2=0.999, adam_eps=1e-5,
        weight_decay=0.0, ema_decay=0.0, ptx_coef=0.0,
        padding="spaces on the left of the query, which the model sees",
        reward_at="the end-of-text token",
        reward_zero="reference summaries: mean 0",
        source="Stiennon 2020, App. B.1, for 1.3 billion parameters (6.7: lr 7e-6, 256 episodes a batch)",
        left_open="cliprange, value clip, vf_coef, minibatches, whitening, eps and T in training: as in Ziegler 2019; "
        "nothing is said of responses without an end: they keep their score",
    ),
    "instructgpt2022": PPOPreset(
        format="instruct", query_tokens=None, response_tokens=None, episodes=256_000, episodes_per_batch=512,
        minibatches=8, epochs=1, learning_rate=8.05e-6, value_learning_rate=9e-6, schedule="warmup", warmup_batches=10,
        kl_coef=0.02, kl_control="fixed", kl_target_nats=6.0, kl_horizon_episodes=10_000, lam=0.95,
        whiten_rewards=False, whiten_over="batch", vf_coef=1.0, temperature=1.0, responses="ended", truncate_at="",
        truncate_after_tokens=0, unended="keep", unended_score=-1.0, value="separate", adam_b2=0.95, adam_eps=1e-8,
        weight_decay=0.0, ema_decay=0.992, ptx_coef=27.8,
        padding="not said; longer prompts are left out",
        reward_at="not said; the end-of-text token",
        reward_zero="labelers' demonstrations: mean 0",
        source="Ouyang 2022, App. C.4 (PPO-ptx; --ptx-coef 0 is its PPO)",
        left_open="the policy's learning rate (swept from 2.55e-6 to 2.55e-5; above 8.05e-6 it diverged without the "
        "pre-training gradients), lam, value clip, vf_coef (the value network has its own rate), whitening; whether "
        "the average of weights is taken after each batch, as here, or each update",
    ),
    "n_plus": PPOPreset(
        format="n_plus", query_tokens=None, response_tokens=53, episodes=1_000_000, episodes_per_batch=512,
        minibatches=1, epochs=4, learning_rate=3e-6, value_learning_rate=3e-6, schedule="linear", warmup_batches=0,
        kl_coef=0.05, kl_control="fixed", kl_target_nats=6.0, kl_horizon_episodes=10_000, lam=0.95,
        whiten_rewards=False, whiten_over="batch", vf_coef=0.1, temperature=0.7, responses="ended", truncate_at="",
        truncate_after_tokens=0, unended="score", unended_score=-1.0, value="separate", adam_b2=0.999, adam_eps=1e-5,
        weight_decay=0.01, ema_decay=0.0, ptx_coef=0.0,
        padding="a token of its own on the left, masked",
        reward_at="one place behind the end-of-text token there, which no policy loss covers; here the token itself",
        reward_zero="reference summaries: mean 0",
        source="Huang 2024, vwxyzjn/summarize_from_feedback_details",
        left_open="nothing: the code is released. It whitens advantages over the 64 episodes of each of 8 GPUs; "
        "here over all 512",
    ),
}  # fmt: skip

IN_WORDS = ("padding", "reward_at", "reward_zero", "source", "left_open")


def ppo_table() -> list[tuple[str, ...]]:
    """Presets side by side: a row for each setting in which they differ, then those in words; the first row names them.

    Example  >>> rows = ppo_table()
             >>> rows[0]
             ('', 'ziegler2019', 'stiennon2020', 'instructgpt2022', 'n_plus')
             >>> next(row for row in rows if row[0] == "kl_coef")
             ('kl_coef', '0.15', '0.05', '0.02', '0.05')
    """
    rows = [("", *PPO)]
    for field in sorted(fields(PPOPreset), key=lambda field: field.name in IN_WORDS):
        values = [getattr(preset, field.name) for preset in PPO.values()]
        if len(set(values)) > 1:
            rows.append((field.name, *(_shown(value) for value in values)))
    return rows


def ppo_markdown() -> str:
    """The same as a table of Markdown."""
    head, *rest = ppo_table()
    lines = [["setting", *head[1:]], ["---"] * len(head), *([f"`{row[0]}`" if row[0] not in IN_WORDS else
             row[0].replace("_", " "), *row[1:]] for row in rest)]  # fmt: skip
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _shown(value: object) -> str:
    if value is None:
        return "the format's"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value) or "–"
