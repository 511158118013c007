"""Folders as `rein eval` leaves them, without a model: answers are drawn, the scores of them are the real ones."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from rein.evals import published
from rein.evals.answering import Failed
from rein.evals.measure import Tally
from rein.evals.metrics import METRICS
from rein.evals.prompts import curve, settings_of
from rein.evals.task import Answer, Problem, Task, free_form, multiple_choice
from rein.evals.tasks.table import load

# Task → problems, what is right with no shots, and what every doubling of the shots adds.
SIX = {
    "arc_easy": (600, 0.43, 0.004),
    "piqa": (500, 0.62, 0.006),
    "copa": (100, 0.62, 0.004),
    "triviaqa": (400, 0.05, 0.008),
    "drop": (300, 0.08, 0.02),
    "ptb": (8, 0.0, 0.0),
}
SMALL = {"arc_easy": (60, 0.43, 0.004), "drop": (40, 0.1, 0.02), "ptb": (6, 0.0, 0.0)}
_WORDS = "river house garden winter father stone evening village summer friend story letter window morning"
WORDS = _WORDS.split()


def write_evaluation(
    folder: Path,
    *,
    model: str = "runs/small",
    n_params: int = 124_439_808,
    skill: float = 0.0,
    tasks: dict[str, tuple[int, float, float]] = SIX,
    protocol: str = "gpt3",
    shots: tuple[str, ...] = ("curve",),
    dev: bool = False,
    failed: tuple[Failed, ...] = (),
    skipped: tuple[dict[str, str], ...] = (),
    text: str = "",
    seed: int = 0,
) -> Path:
    """`skill` is added to what is right of each task; `text` stands in every prompt, answer and title."""
    folder.mkdir(parents=True)
    entries, lines = [], []
    for name, (n, base, gain) in tasks.items():
        task = load(protocol, name)
        settings = settings_of(task, shots)
        tally, on_dev = Tally(task, task.scored_on), Tally(task, task.chosen_on or "dev")
        for k in settings:
            right = min(max(base + skill + gain * math.log2(k + 1), 0), 1)
            for problem, answer in answered(task, n, k, right, text, seed):
                lines.append(line(task, task.scored_on, problem, answer, tally.add(answer)))
        if dev and task.chosen_on:
            for k in curve(task.shots):
                for _, answer in answered(task, n // 3, k, base + skill + gain * math.log2(k + 1), text, seed + 1):
                    on_dev.add(answer)
        for one in failed:
            tally.fail(one)
        found = tally.entries(protocol, None, n_params, {k: [name] for k, name in settings.items()})
        chosen = task.shots if on_dev.ks else None
        their_dev = on_dev.entries(protocol, None, n_params, {}) if on_dev.ks else [{"scores": []}] * len(found)
        for entry, theirs in zip(found, their_dev, strict=True):
            entries.append({**entry, "title": entry["title"] + text, "chosen_k": chosen, "dev": theirs["scores"]})
    scores = {
        "format": "rein-eval-1", "protocol": protocol, "protocol_version": 1,
        "model": {"name": model, "n_params": n_params, "fingerprint": f"{seed:064x}"},
        "tasks": entries, "skipped": list(skipped),
    }  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))
    (folder / "answers.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))
    (folder / "config.json").write_text(json.dumps({"checkpoint": model, "protocol": protocol, "seed": seed}))
    start = {"started": "2026-11-22T21:14:03+0000", "command": ["rein", "eval", model], "torch": "2.11.0", "threads": 2}
    (folder / "env.json").write_text(json.dumps([start]))
    return folder


def scores_of(folder):
    return json.loads((folder / "scores.json").read_text())


def changed(folder, to, change):
    """A copy of an evaluation with another scores.json."""
    to.mkdir()
    for name in ("answers.jsonl", "config.json", "env.json"):
        (to / name).write_bytes((folder / name).read_bytes())
    scores = scores_of(folder)
    change(scores)
    (to / "scores.json").write_text(json.dumps(scores))
    return to


def write_contamination(folder: Path) -> None:
    """contamination.json as `rein eval contamination` writes it, with numbers that are made up."""
    entries = json.loads((folder / "scores.json").read_text())["tasks"]
    tasks = []
    for at, entry in enumerate(entries):
        n, row = entry["problems"], entry["scores"][-1]
        clean, change = n - at * n // 8, -0.03 * at
        score = {name: row[name] for name in ("value", "low", "high", "n", "effective_n")}
        paper = published.overlaps().get(load("gpt3", entry["task"]).published)
        known = entry["metric"] != "perplexity"
        change = {"value": change, "low": change - 0.02 if known else None, "high": change + 0.02 if known else None}
        tasks.append(
            {
                "task": entry["task"], "n": 8 + at, "examples": n, "clean": clean, "clean_frac": clean / n,
                "passage_only": (n - clean) // 2, "question_or_answer": n - clean - (n - clean) // 2,
                "published": paper and vars(paper),
                "scores": [
                    {
                        "k": k, "metric": entry["metric"], "all": score, "dirty": score, "change": found,
                        "clean": {**score, "value": score["value"] * (1 + change["value"])},
                        "verdict": "worse where clean",
                    }
                    for k, found in ((row["k"], change), (-1, {"value": 0.5, "low": 0.4, "high": 0.6}))
                ],
            }
        )  # fmt: skip
    (folder / "contamination.json").write_text(json.dumps({"format": "rein-contamination-1", "tasks": tasks}))


def answered(task: Task, n: int, k: int, right: float, text: str, seed: int):
    """Problems of a task with an answer to each, `right` of them right."""
    for i in range(n):
        rng = random.Random(f"{task.name} {i}")  # the same problem for every model
        luck = 0.5 * rng.random() + 0.5 * random.Random(f"{task.name} {i} {k} {seed}").random()
        fits = min(k, 40 + i % 9)
        if task.metrics[0] in ("perplexity", "bits_per_byte"):
            problem = Problem(f"{task.name}/{i}", text="a b c " * 200, units=600)
            yield problem, Answer(problem, k, 0, logprobs=(-600 * (3.6 - right + 0.1 * luck),), n_tokens=(900,))
            continue
        good = _quantile(luck) < right
        words, question = rng.sample(WORDS, 4), " ".join(rng.choices(WORDS, k=9))
        parts = {"question": question, "answer": words[0]}
        passage = f"passage {i // 5}" if task.name == "drop" else ""
        if task.metrics[0] in ("accuracy",):
            n_options = {"piqa": 2, "copa": 2}.get(task.name, 4)
            gold = rng.randrange(n_options)
            problem = multiple_choice(
                f"{task.name}/{i}", f"Question: {question}?{text}\nAnswer:", [w + text for w in words[:n_options]],
                gold, passage=passage, parts=parts,
            )  # fmt: skip
            choice = gold if good else (gold + 1) % n_options
            logprobs = tuple(-9.0 + 3 * (at == choice) - rng.random() for at in range(n_options))
            yield problem, Answer(problem, k, fits, logprobs=logprobs, n_tokens=(1,) * n_options, choice=choice)
        else:
            problem = free_form(
                f"{task.name}/{i}", f"{text}Q: {question}?\nA:", words[:2], passage=passage, parts=parts
            )
            said = words[0] if good else f"{words[0]} {words[3]}{text}" if i % 3 == 0 else words[3] + text
            yield problem, Answer(problem, k, fits, text=said)


def _quantile(luck: float) -> float:
    """The mean of two uniform numbers, made uniform again."""
    return 2 * luck * luck if luck < 0.5 else 1 - 2 * (1 - luck) ** 2


def line(task: Task, split: str, problem: Problem, answer: Answer, value: dict[str, float | None]) -> dict:
    """A line of answers.jsonl."""
    counts = {name: METRICS[name].counts(answer) for name in task.metrics if METRICS[name].counts}
    return {
        "task": task.name, "split": split, "id": problem.id, "k": answer.k, "effective_k": answer.effective_k,
        "draw": answer.draw, "passage": problem.passage, "question": problem.question, "value": value,
        "counts": counts, "choice": answer.choice, "gold": problem.gold, "text": answer.text,
        "answers": list(problem.answers[:5]), "logprobs": list(answer.logprobs), "prompt": problem.prompt[-500:],
        "options": [option.completion for option in problem.options], "parts": dict(problem.parts),
    }  # fmt: skip
