"""A reward model of judgements, and what makes a policy better: one visible table, a function each.

Flow     judgements.jsonl → `judge_of` → FOLDER/run (`rein reward`), summary.json
         the reward model, or the judgements → a function of IMPROVE → FOLDER/run, summary.json: where the policy is

Each calls the loop that the command of its name is, with a run folder of its own, so that an interrupted one goes on
where it was, and `rein runs watch` shows it. What is given in a file of settings goes before the preset's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rein import checkpoint
from rein.config import flag_of, from_dict, settings_in
from rein.errors import UserError
from rein.evals.best_of_n import choice
from rein.loop.config import LoopConfig
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import resolve_device, resolve_precision
from rein.models.reward import load_reward
from rein.models.scalar import reward_folder
from rein.report.legible import count
from rein.run import read_rows, write_atomically
from rein.text.prompts import ANSWERS, FORMATS, decode_response, format_of
from rein.train.dpo import dpo
from rein.train.dpo_config import DPOConfig
from rein.train.grpo import grpo
from rein.train.grpo_config import METHODS, GRPOConfig
from rein.train.ppo import ppo
from rein.train.ppo_config import PPOConfig
from rein.train.ppo_rules import Ending
from rein.train.queries import read_all, response_tokens
from rein.train.responses import respond
from rein.train.reward import reward
from rein.train.reward_config import RewardConfig
from rein.train.reward_files import QUALITY
from rein.train.rlhf_presets import SFT
from rein.train.sft import sft
from rein.train.sft_config import SFTConfig

Json = Any
# What the loop itself decides, and no file of settings.
OURS = (
    "policy", "checkpoint", "data", "data_format", "store", "project", "batch", "out", "prompts", "heldout", "reward",
    "preset", "format", "query_tokens", "response_tokens", "device", "references", "heldout_frac", "estimator",
)  # fmt: skip
QUALITIES = (
    "n", "prompts", "accuracy", "nll", "ece", "length_accuracy", "over_length", "at_equal_length", "by_policies",
)  # fmt: skip


def settings_of(config: LoopConfig, what: str) -> dict[str, Json]:
    """The settings of a sub-run that are not of paths: what the command's config is made of.

    Raises   UserError for a setting that the loop decides, or that there is not.
    """
    path = config.reward_settings if what == "reward" else config.policy_settings
    flag = "--reward-settings" if what == "reward" else "--policy-settings"
    given = {} if path is None else settings_in(path, flag)
    for name in given:
        if name in OURS:
            raise UserError(
                f"{path} has {name}, which `rein loop` decides itself.",
                f"Leave it out; {flag_of('improve' if name == 'estimator' else name)} of the loop says it where there "
                "is one.",
            )
    # A sample that was cut off is as long as a response may be, and read back with the end of text it is longer.
    samples = what == "ppo" or what in METHODS
    longest = config.response_tokens if samples or FORMATS[config.format].cut_responses else None
    texts = {"format": config.format, "query_tokens": config.query_tokens, "response_tokens": longest}
    preset = {"rejection": config.preset if config.preset in SFT else "stiennon2020"}.get(what, config.preset)
    usual: dict[str, Json] = {"seed": config.seed, **texts, "device": config.device}
    if samples:
        usual |= {"gold": config.gold if config.labelers == "simulated" else ""}
    if what in METHODS:
        usual |= {"estimator": what}
    elif what != "dpo":
        usual |= {"preset": preset}
    if what == "rejection":
        usual |= {"select": "loss"}
    settings = {**usual, **given}
    _made(what, settings, Path("."), path)  # what is wrong with them is said now, not after hours
    return settings


def _made(what: str, settings: Mapping[str, Json], folder: Path, source: Path | None = None, **paths: Json) -> Any:
    """The config of a sub-run. Without `paths`, one that is only checked."""
    placeholders: dict[str, dict[str, Json]] = {
        "reward": {"policy": "x", "data": ["x"], "data_format": "ranked"},
        "ppo": {"policy": "x", "reward": "x", "prompts": "x"},
        "dpo": {"policy": "x", "data": ["x"], "data_format": "ranked"},
        "rejection": {"checkpoint": "x", "data": ["x"]},
    }
    classes: dict[str, type[Any]] = {"reward": RewardConfig, "ppo": PPOConfig, "dpo": DPOConfig, "rejection": SFTConfig}
    made, usual = classes.get(what, GRPOConfig), placeholders.get(what, placeholders["ppo"])
    values = {**usual, **paths, **settings, "out": str(folder / "run")}
    return from_dict(made, values, str(source or f"the settings of {what}"))


# ------------------------------------------------------------------------------------------------------------ reward


def judge_of(config: LoopConfig, settings: Mapping[str, Json], folder: Path, judgements: Path, prompts: Path) -> None:
    """A reward model, and what it is worth: accuracy beside that of length alone."""
    references = any(row.get("reference") for row in read_rows(prompts))
    paths: dict[str, Json] = {"policy": str(config.policy), "data": [str(judgements)]}
    if references:
        paths["references"] = str(prompts)
    elif "normalise" not in settings:
        paths["normalise"] = "candidates"
    run = reward(_made("reward", settings, folder, **paths))
    quality = json.loads((run / QUALITY).read_text(encoding="utf-8"))
    measured = quality["test"]
    about = checkpoint.read_about(reward_folder(run))["scalar"]
    summary = {
        **{name: measured.get(name) for name in QUALITIES},
        "dev_accuracy": quality["dev"]["accuracy"],
        "train": quality.get("train"),
        "scalar": {name: about[name] for name in ("b", "gain", "bias")},
    }
    _write(folder / "summary.json", summary)


def reward_of(folder: Path) -> Path:
    """The run of a reward stage."""
    return folder / "run"


# ---------------------------------------------------------------------------------------------------------- policies


def _by_reward(
    config: LoopConfig, settings: Mapping[str, Json], folder: Path, judge: Path, judgements: Path, prompts: Path
) -> None:
    """Samples of the policy, scored: PPO, or an estimator of `rein grpo`."""
    made = _made(
        config.improve, settings, folder, policy=str(config.policy), reward=str(judge),
        prompts=str(prompts / "train.jsonl"), heldout=str(prompts / "heldout.jsonl"),
    )  # fmt: skip
    run = ppo(made) if config.improve == "ppo" else grpo(made)
    latest = checkpoint.latest(run)
    position = checkpoint.read_about(latest)["position"]
    stopped = str(position.get("guard", {}).get("stopped", ""))
    chosen = run / "best" if stopped and (run / "best").is_dir() else latest
    last: dict[str, Json] = {}
    for row in read_rows(run / "metrics.jsonl"):
        last |= row
    names = ("opt_step", "episodes", "score_mean", "kl_nats", "kl_coef", "response_tokens", "no_eot_frac")
    _write(
        folder / "summary.json",
        {"policy": str(chosen.relative_to(folder)), "stopped": stopped,
         **{name: last[name] for name in names if name in last}},
    )  # fmt: skip


def _by_dpo(
    config: LoopConfig, settings: Mapping[str, Json], folder: Path, judge: Path, judgements: Path, prompts: Path
) -> None:
    run = dpo(_made("dpo", settings, folder, policy=str(config.policy), data=[str(judgements)]))
    _write(folder / "summary.json", {"policy": str((run / "best").relative_to(folder))})


def _by_rejection(
    config: LoopConfig, settings: Mapping[str, Json], folder: Path, judge: Path, judgements: Path, prompts: Path
) -> None:
    """Supervised learning of the sample that the reward model scores highest, of N to each prompt, if it has an end."""
    chosen = folder / "demonstrations.jsonl"
    if not chosen.exists():
        _choose(config, judge, prompts / "train.jsonl", chosen)
    heldout = [str(prompts / "heldout.jsonl")] if _has_references(prompts / "heldout.jsonl") else []
    run = sft(_made("rejection", settings, folder, checkpoint=str(config.policy), data=[str(chosen)], heldout=heldout))
    _write(folder / "summary.json", {"policy": str((run / "best").relative_to(folder))})


def _choose(config: LoopConfig, judge: Path, prompts: Path, out: Path) -> None:
    device = resolve_device(config.device)
    precision = resolve_precision("auto", device)
    model, tokenizer = load_model(config.policy, device=str(device))
    format = format_of(config.format, query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    asked = read_all(prompts, format, tokenizer, n_ctx=model.config.n_ctx)
    scorer = load_reward(str(judge), tokenizer, device=device, precision=precision, format=format)
    drawn = respond(
        model, asked, Ending(eot_id=end_of_text(model.config, tokenizer)), samples=config.best_of,
        max_new_tokens=response_tokens(format), temperature=config.temperature, seed=config.seed,
        numbers=range(len(asked) * config.best_of), slots=64, precision=precision,
    )  # fmt: skip
    texts = [decode_response(one.response, tokenizer, format) for one in drawn.scored]
    contexts = [one.query.fields for one in asked for _ in range(config.best_of)]
    scores = scorer.scores(drawn.scored, contexts, texts).tolist()
    lines = []
    for place, one in enumerate(asked):
        here = slice(place * config.best_of, (place + 1) * config.best_of)
        best = choice(scores[here], texts[here], drawn.ended[here])
        if best is not None:
            lines.append(json.dumps({**one.query.fields, "reference": texts[here][best]}, ensure_ascii=False) + "\n")
    if not lines:
        raise UserError(
            f"All samples to {count(len(asked), 'prompt')} are empty or have no end: there is nothing to learn from.",
            "Raise --best-of, --response-tokens or --temperature, or train the supervised model longer.",
        )
    write_atomically(out, "".join(lines))


def _has_references(path: Path) -> bool:
    return any(any(isinstance(row.get(name), str) for name in ANSWERS) for row in read_rows(path))


Improve = Callable[[LoopConfig, Mapping[str, Json], Path, Path, Path, Path], None]
IMPROVE: dict[str, Improve] = {
    "ppo": _by_reward, "grpo": _by_reward, "rloo": _by_reward, "dr_grpo": _by_reward, "dpo": _by_dpo,
    "rejection": _by_rejection,
}  # fmt: skip


def _write(path: Path, values: Mapping[str, Json]) -> None:
    write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
