"""What each stage of a round does: draw, collect, judgements, reward, policy, evaluate.

Flow     the policies so far, prompts → items in the store → answers → judgements of all rounds → a reward model
         → a policy → the same held-out prompts for it and for the model it began from, judged by the same labelers

Each function makes a `Stage` (stages.py): its settings are what decides its result besides its inputs, which it names
by the digest of their content. The reward model learns from every round's answers; each round's policy begins from the
supervised model, as in the papers, and is held to it by the KL penalty.
Source   Stiennon 2020, sections 3.1 to 3.4 and App. C; Ouyang 2022, section 3.1 (steps 2 and 3 are iterated).
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rein.evals.reward_score import RewardScoreConfig, score
from rein.feedback.draw import REFERENCE, DrawConfig, draw
from rein.feedback.exchange.rows import compact
from rein.feedback.exchange.standing import Chosen, items
from rein.feedback.items import load_project
from rein.feedback.labelers import Labeler
from rein.feedback.policies import Policies
from rein.feedback.project import Project, Question
from rein.feedback.selection import prioritise_by_scores, read_scores
from rein.feedback.simulated_work import crew
from rein.feedback.store import Store
from rein.loop import collecting, measure
from rein.loop.config import INITIAL, LoopConfig, groups_of, pairs_of_round, policy_name
from rein.loop.improve import IMPROVE, judge_of, reward_of, settings_of
from rein.loop.stages import Done, Stage
from rein.models.huggingface import load_model
from rein.models.machine import resolve_device, resolve_precision
from rein.models.reward import FunctionReward, Reward, load_reward
from rein.run import read_rows, write_atomically
from rein.text.prompts import format_of
from rein.text.shards import file_sha256
from rein.train.queries import read_all, response_tokens

Json = Any
PROJECT = "loop"
TRAIN, HELDOUT = "train.jsonl", "heldout.jsonl"  # of the folder of prompts
HELD_OUT_FRAC = 0.1  # of the prompts, where no split says which
JUDGEMENTS = "judgements.jsonl"


@dataclass(frozen=True)
class Round:
    """A round that is done, or as far as it is."""

    number: int
    draw: Done
    reward: Done
    policy: Done

    @property
    def policy_folder(self) -> Path:
        """The model that the round ended with."""
        said = json.loads((self.policy.folder / "summary.json").read_text(encoding="utf-8"))
        return self.policy.folder / str(said["policy"])


@dataclass(frozen=True)
class Loop:
    """What all rounds share."""

    config: LoopConfig
    store: Store
    prompts: Done
    initial: str  # digest of the supervised model's weights
    references: bool  # whether each held-out prompt has one

    def folder(self, round: int, stage: str) -> Path:
        """Where a stage of a round is."""
        return self.config.out / f"round-{round:02d}" / stage

    def batch(self, round: int) -> str:
        """The batch of a round's items; `evaluation` is its name with -eval."""
        return f"round-{round:02d}"


def prompts_stage(config: LoopConfig) -> Stage:
    """The prompts in two files: those to learn on, and those that are held out."""

    def make(folder: Path) -> None:
        rows = list(read_rows(config.prompts))
        held = [row.get("split", "train") != "train" for row in rows]
        if not any(held):
            rng = np.random.default_rng([config.seed, len(rows)])
            some = set(rng.permutation(len(rows))[: max(2, round(HELD_OUT_FRAC * len(rows)))].tolist())
            held = [place in some for place in range(len(rows))]
        for name, which in ((TRAIN, False), (HELDOUT, True)):
            lines = [compact(row) + "\n" for row, out in zip(rows, held, strict=True) if out is which]
            write_atomically(folder / name, "".join(lines))

    return Stage("prompts", {"seed": config.seed}, {"prompts": file_sha256(config.prompts)}, make, ("*.jsonl",))


def project_of(config: LoopConfig) -> Project:
    """What is asked: which of two answers is better, with ties and confidence on nine points."""
    names = dict.fromkeys(name for template in format_of(config.format).templates for name in _fields(template))
    nobody = config.labelers == "simulated" and not config.by_people  # who might leave an item lying
    return Project(
        PROJECT, title="Two answers to compare", questions=(Question("choice", "comparison", "Which is better?"),),
        fields=tuple(names), staged=config.staged, overlap=config.overlap, seed=config.seed,
        calibration_share=config.calibration_share, drift_share=config.drift_share, gold_share=0.0,
        uniform_share=config.uniform_share, lease_s=collecting.SIMULATED_LEASE_S if nobody else 1800,
    )  # fmt: skip


def _fields(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


# ------------------------------------------------------------------------------------------------------------- draw


def draw_stage(loop: Loop, number: int, before: Sequence[Round]) -> Stage:
    """Items of a round in the store, each with who answers it; those first that the reward model knows least of."""
    config, last = loop.config, before[-1] if before else None
    pairs = pairs_of_round(groups_of(config.pairs), number, config.best_of)
    pool = config.pool if last is not None else 1.0
    counts = {
        "work": round(config.items * pool),
        "calibration": _at_least_one(config.calibration_share * config.items, config.calibration_share),
        "drift": _at_least_one(config.drift_share * config.items, config.drift_share if loop.references else 0.0),
    }
    settings = {
        "pairs": pairs, "counts": counts, "best_of": config.best_of, **_sampling(config), "seed": config.seed,
        "selected": pool > 1,
    }  # fmt: skip
    inputs = {"prompts": loop.prompts.digest, INITIAL: loop.initial}
    if last is not None:
        inputs |= {"last policy": last.policy.digest, "last reward model": last.reward.digest}

    def make(folder: Path) -> None:
        order = np.random.default_rng([config.seed, number]).permutation(_lines(loop, TRAIN)).tolist()
        first = 0
        for place, (role, n) in enumerate(counts.items()):
            if n:
                prompts = _rotated(loop, TRAIN, order, first, folder / f"{role}.prompts.jsonl")
                asked = f"{INITIAL}:{REFERENCE}=1" if role == "drift" else pairs
                _draw(loop, prompts, n, asked, role, loop.batch(number), 3 * number + place, before)
                first += n
        if pool > 1 and last is not None:
            _prioritise(loop, folder, last)
        write_atomically(folder / "items.jsonl", _items(loop, loop.batch(number)))

    return Stage(f"round {number}, items", settings, inputs, make, ("items.jsonl", "doubts.jsonl"))


def _at_least_one(n: float, share: float) -> int:
    return max(1, round(n)) if share else 0


def _sampling(config: LoopConfig) -> dict[str, Json]:
    return {
        "format": config.format, "query_tokens": config.query_tokens, "response_tokens": max_new_tokens(config),
        "temperature": config.temperature,
    }  # fmt: skip


def max_new_tokens(config: LoopConfig) -> int:
    """The most tokens of a response.

    Raises   UserError where neither the format nor a flag says it.
    """
    return response_tokens(format_of(config.format, response_tokens=config.response_tokens))


def _lines(loop: Loop, name: str) -> int:
    return sum(1 for _ in read_rows(loop.prompts.folder / name))


def _rotated(loop: Loop, name: str, order: Sequence[int], first: int, path: Path) -> Path:
    """The prompts of a file in an order, from a place on: so that roles and rounds do not all ask the same."""
    rows = list(read_rows(loop.prompts.folder / name))
    places = [order[(first + at) % len(rows)] for at in range(len(rows))]
    write_atomically(path, "".join(compact(rows[place]) + "\n" for place in places))
    return path


def _draw(
    loop: Loop, prompts: Path, n: int, pairs: str, role: str, batch: str, seed: int,
    before: Sequence[Round],
) -> None:  # fmt: skip
    """`rein label draw` of one role."""
    config, last = loop.config, before[-1] if before else None
    names = {name for group in pairs.split(",") for name in group.partition("=")[0].split(":")}
    paths = {INITIAL: config.policy} | {policy_name(one.number): one.policy_folder for one in before}
    best = config.best_of if last is not None and any("-bo" in name for name in names) else 1
    wanted = {name.partition("-bo")[0] for name in names} - {REFERENCE}
    settings = DrawConfig(
        project=PROJECT, prompts=prompts, store=config.address,
        policy=tuple(f"{name}={path}" for name, path in paths.items() if name in wanted),
        references=REFERENCE in names, pairs=pairs, n=n, format=config.format, query_tokens=config.query_tokens,
        max_new_tokens=max_new_tokens(config), temperature=config.temperature, best_of=best,
        scorer=str(reward_of(last.reward.folder)) if best > 1 and last is not None else "", batch=batch, role=role,
        seed=1000 * config.seed + seed, device=config.device,
    )  # fmt: skip
    draw(settings)


def _prioritise(loop: Loop, folder: Path, last: Round) -> None:
    """Gives items what an answer is expected to tell, from how the last reward model doubts."""
    doubts = folder / "doubts.jsonl"
    score(
        RewardScoreConfig(
            reward_of(last.reward.folder), store=loop.config.address, project=PROJECT, out=doubts,
            device=loop.config.device,
        )
    )  # fmt: skip
    scores = list(read_scores(doubts))
    loop.store.write(lambda conn: prioritise_by_scores(conn, load_project(conn, PROJECT)[0], scores))


def _items(loop: Loop, batch: str) -> str:
    """The items of a batch as lines, in the order in which they came."""
    with loop.store.reading() as conn:
        number, _ = load_project(conn, PROJECT)
        rows = [
            {
                "key": one.key, "role": one.role, "split": one.split, "context": one.context,
                "outputs": [{name: each[name] for name in ("text", "policy")} for each in one.candidates],
            }
            for one in items(conn, number, Chosen(batches=(batch,)))
        ]  # fmt: skip
    return collecting.as_lines(rows)


# ---------------------------------------------------------------------------------------------- collect, judgements


def collect_stage(loop: Loop, number: int, drawn: Done, first: Done) -> Stage:
    """A round's items answered, and frozen. `first` are the items of the first round: they say what is usual."""
    config = loop.config
    batch = loop.batch(number)

    def make(folder: Path) -> None:
        _answer(loop, batch, config.answers, config.by_people, first)
        rows = collecting.answers_of(loop.store, PROJECT, [batch])
        write_atomically(folder / "answers.jsonl", collecting.as_lines(rows))
        summary = {
            "answers": len(rows), "items": len({row["group_id"] for row in rows}),
            "labelers": len({row["labeler"] for row in rows}), "groups": measure.groups_in(rows),
            "by_people": sum(row["labeler"] not in config.crew for row in rows),
            "ties": sum(row["choice"] is None for row in rows),
            "agreement": measure.agreement(loop.store, PROJECT, batch),
            "drift": measure.win_rate(rows, INITIAL, REFERENCE),
        }  # fmt: skip
        _write(folder / "summary.json", summary)

    return Stage(f"round {number}, answers", _asked(config, config.answers), {"items": drawn.digest}, make,
                 ("answers.jsonl", "summary.json"))  # fmt: skip


def _asked(config: LoopConfig, answers: int) -> dict[str, Json]:
    who: dict[str, Json] = {"labelers": config.labelers, "answers": answers, "overlap": config.overlap}
    if config.labelers == "people":
        return who
    habits = asdict(config.habits(1.0)) | {"temperature": config.judgement_temperature}
    return {**who, "by_people": config.by_people, "gold": config.gold, "simulated": config.simulated, **habits}


def _answer(loop: Loop, batch: str, target: int, by_people: int, first: Done) -> None:
    """Has a batch answered: by simulated labelers first, as far as they are to, and then by people."""
    config = loop.config
    target = min(target, collecting.capacity(loop.store, PROJECT, batch))
    if config.labelers == "simulated":
        collecting.simulate(loop.store, PROJECT, batch, _labelers(config, first), target - by_people)
    if config.labelers == "people" or by_people:
        collecting.people_answer(loop.store, PROJECT, batch, target, wait=config.wait)
    collecting.close_batch(loop.store, PROJECT, batch)


def _labelers(config: LoopConfig, first: Done) -> list[Labeler]:
    """Simulated people; their temperature is a third of a usual difference of gold scores: they agree as people do."""
    rows = [row for row in read_rows(first.folder / "items.jsonl") if row["role"] == "work"]
    judge = FunctionReward(config.gold, "--gold")

    def gold(context: Mapping[str, Json], text: str) -> float:
        return judge.floats([context], [text])[0]

    scores = [[gold(row["context"], one["text"]) for one in row["outputs"]] for row in rows]
    usual = float(np.sqrt(np.mean([(each[0] - each[1]) ** 2 for each in scores]))) or 1.0
    known = tuple(sorted(one for each in scores for one in each))
    return crew(config.crew, gold, config.habits(usual / 3), seed=config.seed, scores=known)


def judgements_stage(loop: Loop, number: int, collected: Sequence[Done]) -> Stage:
    """All that was answered up to this round, in one file: what the reward model learns from, and nothing else."""
    share = loop.config.heldout_frac

    def make(folder: Path) -> None:
        rows = [row for one in collected for row in read_rows(one.folder / "answers.jsonl")]
        write_atomically(folder / JUDGEMENTS, collecting.as_lines(collecting.held_out(rows, share)))

    inputs = {f"answers of round {place}": one.digest for place, one in enumerate(collected, 1)}
    return Stage(f"round {number}, judgements", {"heldout_frac": share}, inputs, make, (JUDGEMENTS,))


# --------------------------------------------------------------------------------------------------- reward, policy


def reward_stage(loop: Loop, number: int, judgements: Done) -> Stage:
    """A reward model of all judgements."""
    config = loop.config
    settings = settings_of(config, "reward")

    def make(folder: Path) -> None:
        judge_of(config, settings, folder, judgements.folder / JUDGEMENTS, loop.prompts.folder / TRAIN)

    inputs = {"judgements": judgements.digest, INITIAL: loop.initial, "prompts": loop.prompts.digest}
    files = ("run/best/*.safetensors", "run/members/*/*.safetensors", "summary.json")
    return Stage(f"round {number}, reward model", settings, inputs, make, files)


def policy_stage(loop: Loop, number: int, judgements: Done, rewarded: Done) -> Stage:
    """A policy that the reward model, or what people said, scores higher."""
    config = loop.config
    settings = {"improve": config.improve, **settings_of(config, config.improve)}

    def make(folder: Path) -> None:
        IMPROVE[config.improve](
            config, {name: value for name, value in settings.items() if name != "improve"}, folder,
            reward_of(rewarded.folder), judgements.folder / JUDGEMENTS, loop.prompts.folder,
        )  # fmt: skip

    inputs = {"reward model": rewarded.digest, "judgements": judgements.digest, INITIAL: loop.initial,
              "prompts": loop.prompts.digest}  # fmt: skip
    files = ("run/checkpoints/step-*/*.safetensors", "run/best/*.safetensors", "summary.json")
    return Stage(f"round {number}, policy", settings, inputs, make, files)


# ---------------------------------------------------------------------------------------------------------- evaluate


def evaluate_stage(loop: Loop, this: Round, before: Sequence[Round], first: Done) -> Stage:
    """The policy beside the model it began from and references, on held-out prompts: by labelers, and in numbers."""
    config, number, name = loop.config, this.number, policy_name(this.number)
    batch = f"{loop.batch(number)}-eval"
    pairs = f"{name}:{INITIAL}=0.5,{name}:{REFERENCE}=0.5" if loop.references else f"{name}:{INITIAL}=1"
    answers = config.evaluation_items * config.overlap
    settings = {**_asked(config, answers), **_sampling(config), "pairs": pairs, "seed": config.seed}

    def make(folder: Path) -> None:
        order = np.random.default_rng([config.seed, number, 1]).permutation(_lines(loop, HELDOUT)).tolist()
        prompts = _rotated(loop, HELDOUT, order, 0, folder / "prompts.jsonl")
        _draw(loop, prompts, config.evaluation_items, pairs, "work", batch, 500 + number, [*before, this])
        write_atomically(folder / "items.jsonl", _items(loop, batch))
        _answer(loop, batch, answers, 0, first)
        rows = collecting.answers_of(loop.store, PROJECT, [batch])
        write_atomically(folder / "answers.jsonl", collecting.as_lines(rows))
        found = _written(loop, this) | {
            "over_initial": measure.win_rate(rows, name, INITIAL),
            "over_references": measure.win_rate(rows, name, REFERENCE),
            "agreement": measure.agreement(loop.store, PROJECT, batch),
        }
        _write(folder / "evaluation.json", found)

    inputs = {"policy": this.policy.digest, "reward model": this.reward.digest, INITIAL: loop.initial,
              "prompts": loop.prompts.digest}  # fmt: skip
    return Stage(f"round {number}, evaluation", settings, inputs, make,
                 ("items.jsonl", "answers.jsonl", "evaluation.json"))  # fmt: skip


def _written(loop: Loop, this: Round) -> dict[str, Json]:
    """What both models write to held-out prompts, in numbers."""
    config = loop.config
    device = resolve_device(config.device)
    precision = resolve_precision("auto", device)
    initial, tokenizer = load_model(config.policy, device=str(device))
    policy, _ = load_model(this.policy_folder, device=str(device))
    format = format_of(config.format, query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    n_ctx = min(initial.config.n_ctx, policy.config.n_ctx)
    prompts = read_all(loop.prompts.folder / HELDOUT, format, tokenizer, n_ctx=n_ctx)
    judge = load_reward(str(reward_of(this.reward.folder)), tokenizer, device=device, precision=precision,
                        format=format)  # fmt: skip
    judges: dict[str, Reward] = {"reward": judge}
    if config.labelers == "simulated":
        judges["gold"] = FunctionReward(config.gold, "--gold")
    asked = measure.Asked(
        prompts[: config.evaluation_items], tokenizer, format, max_new_tokens(config), config.temperature,
        config.seed, precision, judges,
    )  # fmt: skip
    return measure.written(policy, initial, asked)


def _write(path: Path, values: Mapping[str, Json]) -> None:
    write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def initial_of(config: LoopConfig) -> str:
    """The digest of the supervised model's weights.

    Raises   UserError where there is no model.
    """
    return Policies({INITIAL: config.policy}).fingerprints()[INITIAL]
