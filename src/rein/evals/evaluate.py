"""`rein eval`: a model, the papers' tasks, the papers' protocol.

    gpt3    zero, one and a few examples drawn from the train set for each problem; choices by likelihood per token, or
            against an answer context; free form by beam search of width 4, α = 0.6            Brown 2020 §2.4
    gpt2    zero-shot: perplexity per original unit, cloze, reading, translation, summaries     Radford 2019 §3

Flow     tasks → for each: shots, windows of problems → prompts.py → answering.py → Answers → measure.py
         → OUT/answers.jsonl, one line a problem and K; OUT/scores.json; the report

    OUT/
      config.json env.json   the settings; on what
      scores.json            every score with its interval, chance, the paper's number, a verdict
      answers.jsonl          what was answered to each problem: for paired comparisons and contamination
      report.html scores.csv figures/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from rein.config import setting, to_json
from rein.errors import UserError, writing
from rein.evals import published
from rein.evals.answering import Answerer, Failed
from rein.evals.data import BadRow, Data, NotThere
from rein.evals.language_model import LanguageModel, Ours
from rein.evals.measure import Tally
from rein.evals.metrics import METRICS
from rein.evals.printing import table
from rein.evals.prompts import Asked, CannotAsk, Prompter, curve, settings_of
from rein.evals.report import write_report
from rein.evals.responses import Responses
from rein.evals.results import FORMAT
from rein.evals.stop_words import STOP_WORDS
from rein.evals.task import Answer, Problem, Split, Task
from rein.evals.tasks.table import expand, load
from rein.progress import Progress
from rein.run import environment, lock_folder, write_atomically

VERSIONS = {"gpt3": 1, "gpt2": 1}  # of the protocols: what changes a score makes a new one

MOST_EXAMPLES = 100_000  # that shots are drawn from: train sets of translations have millions

_NAMED = ("zero", "one", "paper", "curve", "dev")


@dataclass(frozen=True)
class EvalConfig:
    """Settings of `rein eval`."""

    checkpoint: str = setting(
        help="a run, one of its checkpoints, a model folder, or hf:NAME for any causal model of transformers",
        positional=True,
    )
    tasks: tuple[str, ...] = setting(
        ("all",), "names (`rein eval tasks` lists them), groups, your package.module:TASK, or a .jsonl of your own"
    )
    protocol: Literal["gpt3", "gpt2"] = setting("gpt3", "whose way of asking: Brown 2020 §2.4, or Radford 2019 §3")
    data: tuple[Path, ...] = setting((), "folders or files with the evaluation sets, in their official form")
    hub: bool = setting(False, "read the sets from the Hugging Face hub (package datasets, and a network)")
    out: Path | None = setting(None, "folder of the results; evals/MODEL-PROTOCOL if not given")
    responses: Path | None = setting(
        None, "file that keeps what a model answered, for this and later evaluations; beside OUT if not given"
    )
    shots: tuple[str, ...] = setting(
        ("paper",),
        "numbers of examples, or zero, one, few; paper: 0, 1 and the paper's K; curve: 0, 1, 2, 4 … K; dev: the best "
        "of those on dev, then once on test",
        group="shots",
    )
    draws: str = setting(
        "paper",
        "paper: fresh examples for each problem (the same for all on WSC and MultiRC); fixed: the same for all; "
        "a number: so many draws, each shared by a part of the problems",
        group="shots",
    )
    answer_in: Literal["choices", "words"] = setting(
        "choices", "words: write the answer to choices, too, and compare it word for word", group="shots"
    )
    seed: int = setting(0, "of the draws", group="shots")
    split: Literal["paper", "train", "dev", "test"] = setting(
        "paper", "which problems are scored; paper: those whose score it prints"
    )
    limit: int | None = setting(None, "at most so many problems of each task, the first ones", unit="problems")
    beside: str | None = setting(
        None, "the paper's model to compare with: Small … 175B, 117M … 1542M; the nearest in size if not given"
    )
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine", may_change=True)
    precision: Literal["auto", "fp32", "bf16"] = setting("fp32", "of the matrix products", group="machine")
    batch_tokens: int = setting(4096, "read in one pass", unit="tokens", group="machine", may_change=True)
    json: bool = setting(False, "print scores.json instead of the table", may_change=True)


def eval_command(config: EvalConfig) -> None:
    """Scores a model on the papers' tasks by the papers' own protocol, with intervals and the papers' numbers beside.

    Files are looked for below --data by their official names; a task without files is left out, and named. Prompts are
    those of Brown 2020, Appendix G. Where choices are scored, a prompt is computed once for all of them and all numbers
    of shots. The same command goes on after an interruption: what was answered is kept.

    Examples
      rein eval runs/first --tasks arc_easy piqa --data sets
      rein eval runs/first --tasks lambada wikitext2 --protocol gpt2 --data sets
      rein eval runs/first --tasks arithmetic --shots curve
      rein eval hf:gpt2 --tasks arc_challenge --data sets --shots dev --draws 16
      rein eval runs/first --tasks mine.jsonl --shots 0 4
    """
    tasks = [load(config.protocol, name) for name in expand(config.protocol, config.tasks)]
    _check(config)
    model = _load(config)
    name = model.name.rstrip("/").rsplit("/", 1)[-1] or "model"
    out = config.out or Path("evals") / f"{name}-{config.protocol}"
    responses = config.responses or out.parent / "responses.sqlite"
    with ExitStack() as stack:
        stack.enter_context(lock_folder(out))
        _check_folder(out, config)
        kept = stack.enter_context(Responses(responses))
        found = evaluate(
            model,
            tasks,
            data=Data(config.data, config.hub),
            responses=kept,
            out=out,
            protocol=config.protocol,
            shots=config.shots,
            draws=config.draws,
            in_words=config.answer_in == "words",
            seed=config.seed,
            split=config.split,
            limit=config.limit,
            beside=config.beside,
            batch_tokens=config.batch_tokens,
        )
        if not scored(found):
            failed = ({"task": entry["task"], **one} for entry in found["tasks"] for one in entry["failed"][:1])
            reasons = [f"{one['task']}: {one['reason']}" for one in [*found["skipped"], *failed]]
            raise UserError(
                f"No task could be evaluated: {'; '.join(reasons[:3])}",
                "`rein eval tasks NAME` says which files below --data a task reads.",
            )
        _note(out, config)
        print(json.dumps(found, indent=2) if config.json else table(found))
        write_report([out], out)
    print(f"{out}/report.html")


def evaluate(
    model: LanguageModel,
    tasks: Sequence[Task],
    *,
    data: Data,
    responses: Responses,
    out: Path,
    protocol: str = "gpt3",
    shots: Sequence[str] = ("paper",),
    draws: str = "paper",
    in_words: bool = False,
    seed: int = 0,
    split: str = "paper",
    limit: int | None = None,
    beside: str | None = None,
    batch_tokens: int = 4096,
) -> dict[str, Any]:
    """Evaluates tasks one after the other. Returns what is in `out`/scores.json, which is rewritten after each task.

    Raises   UserError when `out` cannot be written. What is wrong with one task or one problem is in the result.
    """
    found: dict[str, Any] = {
        "format": FORMAT,
        "protocol": protocol,
        "protocol_version": VERSIONS[protocol],
        "model": {"name": model.name, "n_params": model.n_params, "fingerprint": model.fingerprint},
        "tasks": [],
        "skipped": [],
    }
    answers = out / "answers.jsonl.part"
    with writing(answers):
        out.mkdir(parents=True, exist_ok=True)
    with writing(answers), answers.open("w", encoding="utf-8", errors="replace") as file:
        for task in tasks:
            if split != "paper":  # another one than the paper's, so that its numbers do not stand beside
                there = task.published if split == task.scored_on else ""
                task = replace(task, scored_on=split, published=there)  # type: ignore[arg-type]
            one = _OneTask(
                model, task, data, responses, file, shots=shots, draws=draws, in_words=in_words, seed=seed, limit=limit,
                batch_tokens=batch_tokens,
            )  # fmt: skip
            try:
                found["tasks"] += one.evaluate(protocol, beside)
                found["skipped"] += [{"task": task.name, "reason": note} for note in one.notes]
            except UserError as error:
                absent = isinstance(error, NotThere)
                found["skipped"].append({"task": task.name, "reason": error.problem, "no_files": absent})
            if scored(found):
                write_atomically(out / "scores.json", json.dumps(found, indent=1) + "\n")
    if scored(found):
        answers.replace(out / "answers.jsonl")
    else:  # what an earlier evaluation left stays
        answers.unlink()
    return found


def scored(found: dict[str, Any]) -> bool:
    """Whether there is any score at all."""
    return any(entry["scores"] for entry in found["tasks"])


class _OneTask:
    """The evaluation of one task."""

    def __init__(
        self,
        model: LanguageModel,
        task: Task,
        data: Data,
        responses: Responses,
        file: TextIO,
        *,
        shots: Sequence[str],
        draws: str,
        in_words: bool,
        seed: int,
        limit: int | None,
        batch_tokens: int,
    ) -> None:
        self.model, self.task, self.data, self.file = model, task, data, file
        self.notes: list[str] = []  # what could not be done
        self._asked_for, self._in_words, self._seed, self._limit = shots, in_words, seed, limit
        fixed = draws == "fixed" or (draws == "paper" and task.draw == "fixed")
        self._draws = 1 if fixed else int(draws) if draws.isdigit() else None
        self._whole = [METRICS[name] for name in task.metrics if METRICS[name].counts]  # scores of all problems at once
        filtered = "lambada_filtered" in task.metrics
        self._answerer = Answerer(
            model, task, responses, batch_tokens=batch_tokens, seed=seed,
            forbidden=stop_tokens(model) if filtered else frozenset(),
        )  # fmt: skip

    def evaluate(self, protocol: str, beside: str | None) -> list[dict[str, Any]]:
        """The entries of scores.json."""
        task, model = self.task, self.model
        settings = settings_of(task, self._asked_for)
        choosing = "dev" in self._asked_for
        examples = self._examples(max([*settings, task.shots if choosing else 0]))
        dev, chosen = None, None
        if not examples:
            settings = {k: name for k, name in settings.items() if k == 0} or {0: "zero"}
        elif choosing:
            dev, chosen = self._choose(examples)
            if chosen is None:
                settings = settings or {0: "zero"}
        names = {k: [name] for k, name in settings.items()}
        if chosen is not None:
            names.setdefault(chosen, []).append("chosen")
        tally = self._score(task.scored_on, sorted(names), examples)
        entries = tally.entries(protocol, beside, model.n_params, names)
        dev_entries = dev.entries(protocol, beside, model.n_params, {}) if dev else [None] * len(entries)
        for entry, on_dev in zip(entries, dev_entries, strict=True):
            entry["chosen_k"], entry["dev"] = chosen, on_dev["scores"] if on_dev else []
        return entries

    def _examples(self, k: int) -> list[Problem]:
        """The problems that shots are drawn from; none where there are no shots, or no such split."""
        if k == 0:
            return []
        try:
            problems = self._problems(self.task.shots_from)
            found = {one.shot: one for one in islice(problems, MOST_EXAMPLES) if isinstance(one, Problem)}
            if next(problems, None) is not None:
                self.notes.append(
                    f"shots are drawn from the first {MOST_EXAMPLES:,} of its {self.task.shots_from} split"
                )
        except UserError as error:
            self.notes.append(f"no shots: {error.problem}")
            return []
        if not found:
            self.notes.append(f"no shots: its {self.task.shots_from} split has no problems")
        return list(found.values())  # a passage that several problems share is one shot

    def _choose(self, examples: list[Problem]) -> tuple[Tally | None, int | None]:
        """Scores several K on the dev set, and says which was best by the deciding metric; of equals the smallest."""
        task = self.task
        if task.chosen_on is None:
            self.notes.append("K cannot be chosen: the task has no split for it")
            return None, None
        try:
            tally = self._score(task.chosen_on, curve(task.shots), examples)
        except UserError as error:
            self.notes.append(f"K cannot be chosen: {error.problem}")
            return None, None
        metric = METRICS[task.metrics[0]]
        sign = 1 if metric.better == "higher" else -1
        scores = {k: estimate.value for k in tally.ks if (estimate := tally.estimate(metric, k)) is not None}
        if not scores:
            self.notes.append(f"K cannot be chosen: nothing of the {task.chosen_on} split could be scored")
            return None, None
        return tally, max(scores, key=lambda k: (sign * scores[k], -k))

    def _score(self, split: Split, ks: Sequence[int], examples: list[Problem]) -> Tally:
        """All problems of a split behind each number of shots."""
        task, tally = self.task, Tally(self.task, split)
        total = sum(1 for _ in islice(self._problems(split), self._limit))  # a row may be several: they are asked twice
        prompter = Prompter(
            self.model, task, examples, seed=self._seed, draws=self._draws, in_words=self._in_words,
            among_shots=split == task.shots_from,
        )  # fmt: skip
        problems = islice(self._problems(split), self._limit)
        size = self._answerer.window(shared=self._draws is not None)
        with Progress(f"{task.name} {split}", total=total * len(ks), unit="answers") as bar:
            while window := list(islice(problems, size)):
                asked = list(self._ask(prompter, window, ks, tally, bar))
                for answer in self._answers(asked, bar):
                    if isinstance(answer, Failed):
                        tally.fail(answer)
                    else:
                        self._write(split, answer, tally.add(answer))
        return tally

    def _ask(
        self, prompter: Prompter, window: Iterable[Problem | Failed], ks: Sequence[int], tally: Tally, bar: Progress
    ) -> Iterator[Asked | Problem]:
        for problem in window:
            if isinstance(problem, Failed):
                tally.fail(problem)
            elif problem.text:
                yield problem
                continue
            else:
                try:
                    yield from prompter.ask(problem, ks)
                    continue
                except CannotAsk as error:
                    tally.fail(Failed(problem.id, min(ks), str(error)))
                except UserError as error:  # a text that is no text
                    tally.fail(Failed(problem.id, min(ks), error.problem))
            bar.advance(len(ks))

    def _answers(self, asked: Sequence[Asked | Problem], bar: Progress) -> Iterator[Answer | Failed]:
        for one in asked:
            if isinstance(one, Problem):
                yield self._answerer.read(one)
                bar.advance()
        yield from self._answerer.answer([one for one in asked if isinstance(one, Asked)], bar.advance)

    def _problems(self, split: Split) -> Iterator[Problem | Failed]:
        """The problems of a split, and the rows that none can be made of."""
        for row in self.task.read(self.data, split):
            try:
                yield from self.task.ask(row)
            except BadRow as error:
                yield Failed(row.where, 0, str(error).removeprefix(f"{row.where}: "))

    def _write(self, split: Split, answer: Answer, values: dict[str, float | None]) -> None:
        """One line of answers.jsonl."""
        problem = answer.problem
        row = {
            "task": self.task.name, "split": split, "id": problem.id, "k": answer.k, "effective_k": answer.effective_k,
            "draw": answer.draw, "shots": answer.shots, "passage": problem.passage, "question": problem.question,
            "value": values, "choice": answer.choice, "gold": problem.gold, "text": answer.text,
            "answers": list(problem.answers[:5]), "logprobs": [round(x, 6) for x in answer.logprobs],
            "prompt": problem.prompt[-500:], "options": _options(problem), "parts": dict(problem.parts),
            "counts": {metric.name: metric.counts(answer) for metric in self._whole if metric.counts},
        }  # fmt: skip
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")


# --------------------------------------------------------------------------------------------------- inside


def stop_tokens(model: LanguageModel) -> frozenset[int]:
    """The tokens that are whole stop words, behind a space."""
    words = (f" {form}" for word in STOP_WORDS for form in (word, word.capitalize()))
    return frozenset(ids[0] for ids in map(model.encode, words) if len(ids) == 1)


def _options(problem: Problem) -> list[str]:
    """What tells the options apart: completions, or the ends of contexts where those differ."""
    contexts = len({option.context for option in problem.options}) > 1
    return [option.context[-200:] if contexts else option.completion for option in problem.options]


def _check(config: EvalConfig) -> None:
    for name in ("tasks", "shots"):
        if not getattr(config, name):
            raise UserError(f"--{name} names nothing.", "Name at least one, or leave the flag out.")
    Data(config.data).check()
    for word in config.shots:
        if not word.isdigit() and word not in (*_NAMED, "few"):
            raise UserError(f"--shots is {word!r}.", f"Give numbers, or: {', '.join((*_NAMED, 'few'))}.")
    if config.draws not in ("paper", "fixed") and not (config.draws.isdigit() and int(config.draws) > 0):
        raise UserError(f"--draws is {config.draws!r}.", "Give paper, fixed, or a number above 0.")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"--limit is {config.limit}.", "Give 1 or more, or leave it out.")
    if config.batch_tokens < 1:
        raise UserError(f"--batch-tokens is {config.batch_tokens}.", "Give some thousands.")
    if config.beside is not None and config.beside not in published.SIZES[config.protocol]:
        sizes = ", ".join(published.SIZES[config.protocol])
        raise UserError(f"--beside is {config.beside!r}, which is no model of that paper.", f"They are: {sizes}.")


def _load(config: EvalConfig) -> LanguageModel:
    if config.checkpoint.startswith("hf:"):
        from rein.evals.transformers_model import Theirs

        return Theirs.load(config.checkpoint.removeprefix("hf:"), device=config.device, precision=config.precision)
    return Ours.load(Path(config.checkpoint), device=config.device, precision=config.precision)


def _check_folder(out: Path, config: EvalConfig) -> None:
    """An evaluation is written over another one, and over nothing else."""
    strangers = [entry.name for entry in out.iterdir() if entry.name != "run.lock"]
    if not strangers:
        _note(out, config)
    elif not (out / "config.json").exists():
        raise UserError(f"{out} is not empty ({', '.join(sorted(strangers)[:3])}) and holds no evaluation.",
                        "Choose another --out, or empty the folder.")  # fmt: skip


def _note(out: Path, config: EvalConfig) -> None:
    """The settings, and the machine."""
    write_atomically(out / "config.json", to_json(config))
    write_atomically(out / "env.json", json.dumps([environment()], indent=2) + "\n")
