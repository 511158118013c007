"""The closed loop: collect → reward model → policy → collect, round after round, as one program that can be stopped.

    prompts ┐
    policies ┴ draw → collect → judgements → reward → policy → evaluate
       ↑                                                 │
       └─────────────────────────────────────────────────┘

    OUT/
      config.json env.json        the settings, and what it ran on
      labels.db                   the feedback store: `rein label serve OUT/labels.db` lets people in
      prompts/                    those to learn on, those that are held out
      round-01/draw/ collect/ judgements/ reward/ policy/ evaluate/     each with done.json (stages.py)
      timeline.html               all rounds on one page (timeline.py)

Read `loop` from top to bottom. Whatever a stage makes is known by its content: a kill at any moment costs the stage at
hand what it does not keep itself, and the same command ends with the same bytes.
Source   Stiennon 2020, section 3.1; Ouyang 2022, section 3.1; Ziegler 2019, section 2.3 (labels collected as it goes).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rein.errors import UserError
from rein.feedback.draw import REFERENCE
from rein.feedback.store import Store
from rein.loop import collecting, rounds, stages
from rein.loop.config import LoopConfig, groups_of, pairs_of_round
from rein.loop.improve import settings_of
from rein.loop.rounds import PROJECT, Loop, Round
from rein.loop.stages import Done, Stage, Waiting
from rein.loop.timeline import as_text, read_rounds, write_timeline
from rein.report.legible import count
from rein.run import RunFolder, read_rows
from rein.text.sources import load_object


def loop(config: LoopConfig) -> Path:
    """Improves a policy by what people prefer, round after round, and returns the folder.

    A round draws pairs of answers, has them compared, trains a reward model on all comparisons so far, makes a policy
    with it, and compares that with the supervised model on held-out prompts. Simulated labelers answer through the
    labeling server unless --labelers people; with --by-people they leave some to you. OUT/timeline.html shows all
    rounds. The same command goes on after Ctrl-C or a kill; a larger --rounds adds rounds.

    Examples
      rein loop runs/sft --prompts docstrings.jsonl --format docstring --rounds 3 --out runs/loop
      rein loop runs/sft --prompts posts.jsonl --format tldr --labelers people --no-wait --out runs/people
      rein loop runs/sft --prompts p.jsonl --format docstring --by-people 20 --improve dpo --pool 1 --out runs/mixed
    """
    initial = check(config)
    with RunFolder(config.out, config):
        done = stages.run(config.out / "prompts", rounds.prompts_stage(config))
        with _store(config) as store:
            collecting.make_project(store, rounds.project_of(config))
            shared = Loop(config, store, done, initial, _have_references(done))
            _check_store(shared)
            try:
                _rounds(shared)
            except Waiting as waiting:
                print(waiting)
        write_timeline(config.out)
    print("\n".join(as_text(read_rounds(config.out))))
    print(f"timeline   {config.out / 'timeline.html'}")
    return config.out


def check(config: LoopConfig) -> str:
    """Says what is wrong before anything is made; returns the digest of the supervised model.

    Raises   UserError for a model, prompts or settings that cannot be used.
    """
    if not config.prompts.is_file():
        raise UserError(f"There is no file {config.prompts}.", "Give JSON lines with --prompts.")
    there = [isinstance(row.get("reference"), str) for row in read_rows(config.prompts)]
    if len(there) < 4:
        raise UserError(f"{config.prompts} has fewer than 4 prompts.", "Give more: some of them are held out.")
    groups = groups_of(config.pairs)
    if not all(there) and any(REFERENCE in members for members in groups):
        raise UserError(
            f"--pairs asks for {REFERENCE}, but {count(there.count(False), 'prompt')} of {config.prompts} have no "
            '"reference".',
            "Give them one, or --pairs without it: current:initial=0.5,current:current=0.5.",
        )
    pairs_of_round(groups, 1, config.best_of)
    rounds.max_new_tokens(config)
    for what in ("reward", config.improve):
        settings_of(config, what)
    if config.labelers == "simulated":
        load_object(config.gold, "--gold")
    return rounds.initial_of(config)


def _rounds(shared: Loop) -> None:
    """All rounds, each from its first stage that is not done."""
    config = shared.config
    finished: list[Round] = []
    collected: list[Done] = []
    first: Done | None = None
    for number in range(1, config.rounds + 1):
        at = _Folder(shared, number)
        drawn = at.run("draw", rounds.draw_stage(shared, number, finished))
        first = first or drawn
        collected.append(at.run("collect", rounds.collect_stage(shared, number, drawn, first)))
        judgements = at.run("judgements", rounds.judgements_stage(shared, number, collected))
        rewarded = at.run("reward", rounds.reward_stage(shared, number, judgements))
        improved = at.run("policy", rounds.policy_stage(shared, number, judgements, rewarded))
        this = Round(number, drawn, rewarded, improved)
        at.run("evaluate", rounds.evaluate_stage(shared, this, finished, first))
        finished.append(this)


@dataclass(frozen=True)
class _Folder:
    """The folder of one round."""

    shared: Loop
    number: int

    def run(self, name: str, stage: Stage) -> Done:
        """A stage, with a line before it and the page written anew behind it."""
        folder = self.shared.folder(self.number, name)
        if stages.read(folder) is not None:
            return stages.run(folder, stage)
        print(stage.name, flush=True)
        done = stages.run(folder, replace(stage, make=_quietly(stage.make)))
        write_timeline(self.shared.config.out)
        return done


def _quietly(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """What commands print goes to a file of the stage, so that the loop's own lines are read."""

    def made(folder: Path) -> None:
        with (folder / "said.txt").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            make(folder)

    return made


def _store(config: LoopConfig) -> Store:
    """The feedback store; it is made once, and missed when it is gone."""
    begun = (config.out / "round-01" / "draw" / stages.BEGUN).exists()
    return Store.open(config.address, create=not begun)


def _check_store(shared: Loop) -> None:
    """Holds the store to what finished rounds learned from.

    Raises   UserError that names the round, where it was changed since.
    """
    for number in range(1, shared.config.rounds + 1):
        for name, batch in (("collect", shared.batch(number)), ("evaluate", f"{shared.batch(number)}-eval")):
            folder = shared.folder(number, name)
            if stages.read(folder) is None:
                continue
            late = collecting.check_unchanged(shared.store, PROJECT, batch, folder / "answers.jsonl")
            if late:
                print(f"{count(late, 'answer')} came after {batch} was closed: nothing is learned from them.")


def _have_references(prompts: Done) -> bool:
    paths: Sequence[Path] = (prompts.folder / rounds.TRAIN, prompts.folder / rounds.HELDOUT)
    return all(isinstance(row.get("reference"), str) for path in paths for row in read_rows(path))
