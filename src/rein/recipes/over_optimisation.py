"""`rein over-optimise`: a reward climbed until the truth falls, seen and caught, with models of a few minutes.

    1  start        docstrings of this Python → a small vocabulary, a small GPT → the supervised start
    2  comparisons  two samples of it to each docstring, judged by simulated labelers with the gold score
    3  rewards      the proxy; and a second reward model, of other comparisons and another seed
    4  policies     PPO on the proxy three times, alike but for the guard: off, stop, raise-kl
    5  best of n    the same proxy, chosen by instead of trained on
    6  measured     other held-out docstrings: the supervised start and where each policy ended

The gold score is the truth: labelers judge by it, and no model sees it. The guard watches it; what it would have said
of the second reward model is read from the unguarded run, whose numbers a guard does not change. What all this came to
is evals/over_optimised.py. Every stage is kept (loop/stages.py): the same command goes on.

Source   Gao 2022, "Scaling Laws for Reward Model Overoptimization", sections 2 and 3; Stiennon 2020, Fig. 5.
Differs  Gao's policies and reward models have up to 3 billion parameters, and their gold score is a model of 6 billion;
         here it is a function that anybody can read (text/gold.py), and a policy has 170,000.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rein import checkpoint
from rein.bpe import trainer
from rein.config import flag_of, setting
from rein.errors import UserError
from rein.evals.best_of_n_command import BestOfNConfig, best_of_n
from rein.evals.over_optimised import (
    BEST_OF_N,
    GOLD,
    KEPT,
    MEASURED,
    RUNS,
    START,
    Guard,
    as_text,
    read_result,
    write_page,
)
from rein.evals.policies import policies_command
from rein.evals.policies_config import PoliciesConfig
from rein.feedback.labelers import Habits
from rein.feedback.simulated_work import crew
from rein.loop.stages import Done, Stage, run
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import end_of_text, load_model, save_model
from rein.models.machine import resolve_device
from rein.progress import duration
from rein.run import lock_folder, write_atomically
from rein.text.docstrings import docstring_rows, installed
from rein.text.gold import gold
from rein.text.prompts import decode_response, format_of
from rein.text.split import SPLITS, unit_hash
from rein.train.ppo import ppo
from rein.train.ppo_config import PPOConfig
from rein.train.ppo_rules import Ending
from rein.train.queries import read_prompts
from rein.train.responses import respond
from rein.train.reward import reward
from rein.train.reward_config import RewardConfig
from rein.train.sft import sft
from rein.train.sft_config import SFTConfig

Json = Any

DOCUMENTS = 40_000  # of the installed packages' docstrings: so many are read in seconds
TEXTS: dict[str, Json] = {"format": "docstring", "query_tokens": 48, "response_tokens": 20}
MODEL: dict[str, Json] = {"n_ctx": 72, "n_embd": 64, "n_head": 4, "n_layer": 2}
N_VOCAB = 1024
TEMPERATURE = 1.0
PROMPTS = ("prompts.jsonl", "measured.jsonl")  # to learn and to watch on; to measure on in the end
LABELERS = ("ada", "ben", "cy")
SURE = 10.0  # a usual difference of gold over the labelers' temperature: surer than people, so that few rows will do
SFT_SETTINGS: dict[str, Json] = {
    "learning_rate": 3e-3, "demonstrations_per_batch": 32, "epochs": 2, "warmup_frac": 0.05, "select": "loss",
    "samples": 32, "reward": GOLD,
}  # fmt: skip
REWARD_SETTINGS: dict[str, Json] = {"learning_rates": [1e-3], "epochs": 4, "prompts_per_batch": 16}
PPO_SETTINGS: dict[str, Json] = {
    "episodes_per_batch": 64, "minibatches": 2, "epochs": 2, "learning_rate": 2.5e-4, "value_learning_rate": 1e-3,
    "kl_coef": 0.01, "whiten_rewards": False,
}  # fmt: skip


@dataclass(frozen=True)
class OverOptimiseConfig:
    """Settings of `rein over-optimise`."""

    out: Path = setting(Path("runs/over-optimisation"), "folder for all stages and the page")
    demonstrations: int = setting(8000, "docstrings with their summary lines, for the supervised start")
    comparisons: int = setting(2000, "that each of the two reward models is made of: fewer, and it is wrong sooner")
    episodes: int = setting(3840, "of each PPO run", unit="episodes")
    evaluations: int = setting(60, "of a run: the guard needs eight before it says anything")
    heldout_prompts: int = setting(128, "that each evaluation answers, and the last measurement, others there")
    best_of: int = setting(64, "N of the best of n", unit="samples")
    seed: int = setting(0, "of everything: rows, weights, samples, labelers")
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")

    def __post_init__(self) -> None:
        least = {"demonstrations": 32, "comparisons": 20, "evaluations": 3, "heldout_prompts": 2, "best_of": 2}
        for name, least_of_it in {**least, "episodes": int(PPO_SETTINGS["episodes_per_batch"])}.items():
            if (value := getattr(self, name)) < least_of_it:
                flag = flag_of(name)
                raise UserError(f"{flag} is {value}, but it must be at least {least_of_it}.", f"Raise {flag}.")


def over_optimise(config: OverOptimiseConfig) -> Path:
    """Shows a reward being over-optimised by a small policy, and the guard catching it; returns the page.

    Needs no network, no GPU and no data. A policy is trained on an imperfect reward model three times: without a guard,
    with one that stops, and with one that raises the KL coefficient. The truth is a gold score that nobody is trained
    on. Stop it with Ctrl-C and run it again: it goes on where it was.

    Examples
      rein over-optimise
      rein over-optimise --comparisons 500 --out runs/worse-reward
    """
    began = time.monotonic()
    with lock_folder(config.out):
        stages = Stages(config)
        prompts = stages.done("start", stages.start(), "1/6  docstrings → a vocabulary and a small GPT")
        start = stages.done("sft", stages.sft(prompts), "     → the supervised start")
        judged = stages.done("comparisons", stages.comparisons(prompts, start), "2/6  two samples each → comparisons")
        rewards = [
            stages.done(name, stages.reward(name, prompts, start, judged), f"3/6  comparisons → {words}")
            for name, words in (("reward", "the reward model that is climbed"), ("second", "a second reward model"))
        ]
        for guard, name in RUNS.items():
            stage = stages.policy(name, guard, prompts, start, rewards)
            stages.done(name, stage, f"4/6  PPO on the reward model, --guard {guard}")
        for name, stage, words in (
            (BEST_OF_N, stages.best_of_n(prompts, start, rewards[0]), "5/6  the best of n by the same reward model"),
            (MEASURED, stages.measured(prompts, start, rewards[0]), "6/6  where each ended, on other docstrings"),
        ):
            stages.done(name, stage, words)
        result = read_result(config.out)
        page = write_page(config.out, result)
    print("\n".join(["", *as_text(result), "", f"all stages        {duration(time.monotonic() - began)}",
                     f"page              {page}"]))  # fmt: skip
    return page


class Stages:
    """The stages of one run, each of which says what it makes of what."""

    def __init__(self, config: OverOptimiseConfig) -> None:
        self._config = config
        self._ended: dict[str, Done] = {}

    def done(self, name: str, stage: Stage, words: str) -> Done:
        """The stage's record; it is made now where it is not there."""
        print(f"{words}", flush=True)
        self._ended[name] = run(self._config.out / name, stage)
        return self._ended[name]

    def start(self) -> Stage:
        """Rows of docstrings, and an untrained model with a vocabulary of their texts."""
        config = self._config
        settings = {
            "documents": DOCUMENTS, "demonstrations": config.demonstrations, "heldout": config.heldout_prompts,
            "n_vocab": N_VOCAB, "model": MODEL, "seed": config.seed,
        }  # fmt: skip

        def make(folder: Path) -> None:
            rows = list(_rows(config))
            held = [row for row in rows if row["split"] != SPLITS[0]]
            later = {row["id"] for row in held[config.heldout_prompts : 2 * config.heldout_prompts]}
            learned = [row for row in rows if row["split"] == SPLITS[0]][: config.demonstrations]
            watched = held[: config.heldout_prompts]
            if len(watched) + len(later) < 2 * config.heldout_prompts:
                raise UserError(
                    f"--heldout-prompts is {config.heldout_prompts}, but there are {len(held)} held-out docstrings, "
                    "which are parted into those to watch and those to measure on.",
                    "Lower --heldout-prompts.",
                )
            for name, some in zip(PROMPTS, (learned + watched, [r for r in held if r["id"] in later]), strict=True):
                write_atomically(folder / name, _lines(some))
            texts = [f"{row['name']}\n\n{row['post'][:200]}\n\nTL;DR: {row['reference']}" for row in learned]
            tokenizer = trainer.train(texts, N_VOCAB)
            model = GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **MODEL)).initialise(config.seed)
            about = {"format": "rein-checkpoint-1", "made_by": "over-optimise"}
            checkpoint.save(folder / "model", lambda part: save_model(part, model, tokenizer), about)

        return Stage("start", settings, {}, make, (*PROMPTS, "model/*.json", "model/*.safetensors"))

    def sft(self, prompts: Done) -> Stage:
        """The model that answers docstrings with summary lines: what all policies begin from."""
        settings = {**SFT_SETTINGS, **self._texts()}

        def make(folder: Path) -> None:
            rows = (prompts.folder / PROMPTS[0],)
            sft(SFTConfig(checkpoint=prompts.folder / "model", data=rows, out=folder / "run", **_tuples(settings)))

        return Stage("the supervised start", settings, {"start": prompts.digest}, make, ("run/best/*.safetensors",))

    def comparisons(self, prompts: Done, start: Done) -> Stage:
        """Two samples to each docstring, and which of them a simulated labeler prefers."""
        config = self._config
        settings = {"comparisons": config.comparisons, "seed": config.seed, "labelers": list(LABELERS), **TEXTS}

        def make(folder: Path) -> None:
            rows = list(_judged(config, prompts.folder / PROMPTS[0], start.folder / "run" / "best"))
            for name, some in zip(JUDGED, (rows[::2], rows[1::2]), strict=True):
                write_atomically(folder / name, _lines(some))

        inputs = {"start": prompts.digest, "supervised start": start.digest}
        return Stage("comparisons", settings, inputs, make, JUDGED)

    def reward(self, name: str, prompts: Done, start: Done, judged: Done) -> Stage:
        """A reward model: the one that is climbed, or another one of other comparisons."""
        second = name == "second"
        settings = {**REWARD_SETTINGS, **self._texts(), "seed": self._config.seed + second}

        def make(folder: Path) -> None:
            said = contextlib.redirect_stdout((folder / "said.txt").open("w", encoding="utf-8"))
            with said as file, file:
                reward(
                    RewardConfig(
                        policy=start.folder / "run" / "best", data=(judged.folder / JUDGED[second],),
                        data_format="ranked", out=folder / "run", references=prompts.folder / PROMPTS[0],
                        **_tuples(settings),
                    )
                )  # fmt: skip

        inputs = {"supervised start": start.digest, "comparisons": judged.digest, "start": prompts.digest}
        return Stage(f"{name} model", settings, inputs, make, ("run/best/*.safetensors", "run/quality.json"))

    def policy(self, name: str, guard: Guard, prompts: Done, start: Done, rewards: Sequence[Done]) -> Stage:
        """PPO, with a guard that watches the gold score, or without one. Nothing else differs."""
        config = self._config
        batch = int(PPO_SETTINGS["episodes_per_batch"])
        every = max(1, round(config.episodes / config.evaluations / batch)) * batch
        settings = {
            **PPO_SETTINGS, **self._texts(), "episodes": config.episodes // batch * batch, "guard": guard,
            "evaluate_every_episodes": every, "heldout_prompts": config.heldout_prompts, "gold": GOLD,
            "temperature": TEMPERATURE,
        }  # fmt: skip

        def make(folder: Path) -> None:
            ppo(
                PPOConfig(
                    policy=start.folder / "run" / "best", reward=str(rewards[0].folder / "run"),
                    heldout_reward=str(rewards[1].folder / "run"), prompts=prompts.folder / PROMPTS[0],
                    out=folder / "run", **settings,
                )
            )  # fmt: skip

        inputs = {"supervised start": start.digest, "start": prompts.digest,
                  "reward": rewards[0].digest, "second": rewards[1].digest}  # fmt: skip
        files = ("run/checkpoints/*/*.safetensors", "run/best/*.safetensors", "run/samples.jsonl")
        return Stage(f"the {name} policy", settings, inputs, make, files)

    def best_of_n(self, prompts: Done, start: Done, judge: Done) -> Stage:
        """What choosing by the proxy is worth, for every n."""
        settings = {**self._texts(), "samples": self._config.best_of, "temperature": TEMPERATURE, "gold": GOLD}

        def make(folder: Path) -> None:
            with (folder / "said.txt").open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
                best_of_n(
                    BestOfNConfig(
                        policy=start.folder / "run" / "best", reward=str(judge.folder / "run"), out=folder / "run",
                        prompts=prompts.folder / PROMPTS[1], **settings,
                    )
                )  # fmt: skip

        inputs = {"start": prompts.digest, "supervised start": start.digest, "reward": judge.digest}
        return Stage("best of n", settings, inputs, make, ("run/responses.jsonl", "run/curve.*"))

    def measured(self, prompts: Done, start: Done, judge: Done) -> Stage:
        """The supervised start and the end of each policy, on docstrings that no evaluation has seen."""
        settings = {
            **self._texts(), "temperature": TEMPERATURE, "kl_temperature": TEMPERATURE, "per_prompt": 4,
            "against": START, "reference_policy": START,
        }  # fmt: skip
        paths = {START: start.folder / "run" / "best"}
        for guard, name in RUNS.items():
            run_folder = self._config.out / name / "run"
            paths[name] = checkpoint.latest(run_folder)
            if guard == "stop" and (run_folder / checkpoint.BEST).is_dir():
                paths[KEPT] = run_folder / checkpoint.BEST

        def make(folder: Path) -> None:
            with (folder / "said.txt").open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
                policies_command(
                    PoliciesConfig(
                        out=folder / "run", policies=tuple(f"{name}={path}" for name, path in paths.items()),
                        prompts=prompts.folder / PROMPTS[1], judge=(GOLD, str(judge.folder / "run")), **settings,
                    )
                )  # fmt: skip

        inputs = {"start": prompts.digest, "supervised start": start.digest, "reward": judge.digest}
        inputs |= {name: self._ended[name].digest for name in RUNS.values()}
        return Stage("measured", settings, inputs, make, ("run/answers/*.jsonl", "run/policies.json"))

    def _texts(self) -> dict[str, Json]:
        # In fp32, so that what the page shows is the same on any machine with the same arithmetic.
        return {**TEXTS, "seed": self._config.seed, "precision": "fp32", "device": self._config.device}


JUDGED = ("comparisons.jsonl", "other-comparisons.jsonl")


def _rows(config: OverOptimiseConfig) -> Iterator[Mapping[str, Json]]:
    """Rows of the task, in an order of their hashes."""
    found = docstring_rows(islice(installed(), DOCUMENTS), seed=config.seed)
    rows = [row for row in found if isinstance(row, dict)]
    rows.sort(key=lambda row: unit_hash(f"over-optimise {row['id']}", config.seed))
    yield from rows


def _judged(config: OverOptimiseConfig, prompts: Path, policy: Path) -> Iterator[Mapping[str, Json]]:
    """Twice as many comparisons as a reward model gets, as ranked groups; a tenth each to select by and to report.

    Raises   UserError where there are fewer docstrings.
    """
    format = format_of(TEXTS["format"], query_tokens=TEXTS["query_tokens"], response_tokens=TEXTS["response_tokens"])
    model, tokenizer = load_model(policy, device=str(resolve_device(config.device)))
    asked = read_prompts(prompts, None, format, tokenizer, n_ctx=model.config.n_ctx).train[: 2 * config.comparisons]
    if len(asked) < 2 * config.comparisons:
        raise UserError(
            f"--comparisons is {config.comparisons:,}, for each of two reward models, but there are {len(asked):,} "
            "docstrings to ask about.",
            f"Use --comparisons {len(asked) // 2}, or more --demonstrations.",
        )
    written = respond(
        model, asked, Ending(eot_id=end_of_text(model.config, tokenizer)), samples=2,
        max_new_tokens=TEXTS["response_tokens"], temperature=TEMPERATURE, seed=config.seed,
        numbers=range(2 * len(asked)), slots=64, precision="fp32",
    )  # fmt: skip
    texts = [decode_response(each.response, tokenizer, format) for each in written.scored]
    golds_N2 = np.array([gold(asked[n // 2].query.fields, text) for n, text in enumerate(texts)]).reshape(-1, 2)
    usual = float(np.sqrt(np.mean((golds_N2[:, 0] - golds_N2[:, 1]) ** 2))) or 1.0
    habits = Habits(temperature=usual / SURE)
    people = crew(LABELERS, gold, habits, seed=config.seed, scores=tuple(np.sort(golds_N2.ravel()).tolist()))
    question = {"name": "choice", "kind": "comparison", "points": 9, "ties": False}
    for n, prompt in enumerate(asked):
        by, two = people[n // 2 % len(people)], texts[2 * n : 2 * n + 2]
        card = {
            "context": prompt.query.fields, "candidates": [{"text": text} for text in two], "questions": [question],
        }  # fmt: skip
        said = by.answer(card).answers["choice"]
        yield {
            "group_id": prompt.query.id, "context": {name: prompt.query.fields[name] for name in ("name", "post")},
            "outputs": [{"text": text, "policy": START} for text in two], **said, "labeler": by.name,
            "split": ("valid", "test")[n // 2 % 10 - 8] if n // 2 % 10 > 7 else "train",
        }  # fmt: skip


def _lines(rows: Sequence[Mapping[str, Json]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _tuples(settings: Mapping[str, Json]) -> dict[str, Json]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
