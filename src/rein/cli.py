"""The command line: one visible table of commands; each command is one function of one config.

Flow     argv → the longest command name that matches → its config (config.py) → its function.
A command's module is imported only when the command is run, so `rein --help` is instant.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rein import __version__
from rein.config import from_flags
from rein.errors import UserError, speaks, suggestion


@dataclass(frozen=True)
class Command:
    """One row of the table: `rein NAME` calls `target`, a `package.module:function` of one config."""

    name: str
    target: str
    summary: str

    def load(self) -> tuple[Callable[[Any], object], type[Any]]:
        """The function and the config class of its only parameter."""
        module, name = self.target.split(":")
        with _uncollected():
            function = getattr(importlib.import_module(module), name)
        parameter = next(iter(inspect.signature(function).parameters))
        return function, typing.get_type_hints(function)[parameter]


@contextmanager
def _uncollected() -> Iterator[None]:
    """For its duration no garbage is looked for, and never among what is made in it.

    Imports leave a million objects that stay; looking through them again and again takes a third of a command's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


COMMANDS = (
    Command("demo", "rein.recipes.demo:demo", "text on this machine → BPE → a GPT → comparisons → reward → PPO"),
    Command("text build", "rein.text.build:build", "collect documents, split, tokenise: token shards"),
    Command("text show", "rein.text.show:show", "what a corpus holds, and some of its documents"),
    Command("text prompts", "rein.text.prompts_command:prompts", "rows to learn from and be asked: docstrings, posts"),
    Command("text mixture", "rein.text.mixture:mixture", "how much a run reads of each source of a corpus"),
    Command("text export", "rein.text.export:export", "a corpus in the files of nanoGPT, Megatron-LM or Parquet"),
    Command("bpe train", "rein.bpe.commands:train", "learn a vocabulary from text"),
    Command("bpe encode", "rein.bpe.commands:encode", "text in, token ids out"),
    Command("bpe decode", "rein.bpe.commands:decode", "token ids in, text out"),
    Command("plan", "rein.models.plan_command:plan_command", "memory, time and layouts of a training run, before it"),
    Command("pretrain", "rein.train.pretrain:pretrain_command", "train a GPT on token shards, on one process or many"),
    Command(
        "critical-batch", "rein.recipes.critical_batch:critical_batch", "how large a batch still pays, by branches"
    ),
    Command("finetune", "rein.train.finetune:finetune", "GPT-1's fine-tuning: classify, entail, compare, choose"),
    Command("sft", "rein.train.sft:sft_command", "the supervised start: learn to answer from demonstrations"),
    Command("reward", "rein.train.reward:reward_command", "a reward model of what people said, with a report"),
    Command("reward score", "rein.evals.reward_score:score", "what a reward model gives to answers in a file"),
    Command("ppo", "rein.train.ppo:ppo_command", "a policy that writes what a reward scores high, by PPO or PPO-ptx"),
    Command("ppo presets", "rein.train.presets_command:presets", "where the PPO of four papers differs"),
    Command("dpo", "rein.train.dpo:dpo", "a policy straight from what people preferred, without a reward model"),
    Command("grpo", "rein.train.grpo:grpo", "the same rewards without a value network: GRPO, RLOO"),
    Command("best-of-n", "rein.evals.best_of_n_command:best_of_n", "the best of N samples: its curve, or its texts"),
    Command("loop", "rein.loop.loop:loop", "collect, train, improve, collect again: rounds of it, as one program"),
    Command(
        "over-optimise",
        "rein.recipes.over_optimisation:over_optimise",
        "a reward climbed until the truth falls, and the guard that catches it",
    ),
    Command("runs", "rein.report.runs:list_runs", "the runs there are: how far, how good, how fast"),
    Command("runs compare", "rein.report.comparison:compare_runs", "what differs between runs: settings and results"),
    Command("runs watch", "rein.web.runs:watch", "the runs of a folder in the browser, as they go on"),
    Command("runs mirror", "rein.mirrors:mirror_command", "send a run's metrics to TensorBoard, W&B, MLflow, trackio"),
    Command("import", "rein.models.interchange:import_command", "a model of OpenAI's or Hugging Face's, made ours"),
    Command("export", "rein.models.interchange:export_command", "a checkpoint for transformers, or plain safetensors"),
    Command("eval", "rein.evals.evaluate:eval_command", "a model on the papers' tasks, by the papers' protocol"),
    Command("eval demo", "rein.recipes.in_context:in_context", "a small model learns puzzles, and from examples"),
    Command("eval tasks", "rein.evals.listing:tasks_command", "which tasks there are, and the files they read"),
    Command("eval compare", "rein.evals.compare:compare_command", "paired tests between models on the same problems"),
    Command("eval report", "rein.evals.report:report_command", "one page of several evaluations, with figures"),
    Command("eval policies", "rein.evals.policies:policies_command", "policies side by side: wins, ROUGE, KL, tax"),
    Command(
        "eval contamination",
        "rein.evals.contamination:contamination_command",
        "which problems the training text holds, and what scores are without them",
    ),
    Command("perplexity", "rein.evals.perplexity:perplexity", "loss, perplexity and bits per byte of a text"),
    Command("generate", "rein.models.sample:generate_command", "continue a prompt, streaming"),
    Command("tamer play", "rein.web.trainer:play", "teach an agent by hand in the browser"),
    Command("tamer simulate", "rein.agents.simulation:simulate", "let a simulated trainer teach, and keep the record"),
    Command("tamer replay", "rein.agents.replay:replay", "live a recorded lesson again, or learn from it anew"),
    Command("tamer evaluate", "rein.agents.replay:evaluate", "how good it is to do what the trainer would praise"),
    Command("tamer compare", "rein.agents.compare:compare", "technique × weight × task over many seeds, with figures"),
    Command("label new", "rein.web.label.commands:new", "make a labeling project: what people are asked, of what"),
    Command("label draw", "rein.feedback.draw:draw", "items from policies, references and baselines, best of N"),
    Command("label import", "rein.feedback.transfer:import_command", "items and answers from a file, checked by line"),
    Command("label serve", "rein.web.label.serve:serve", "the labeling server: people compare, rank, rate and write"),
    Command("label invite", "rein.web.label.commands:invite", "a link that lets people in, as labelers or researchers"),
    Command("label people", "rein.web.label.commands:list_people", "who there is, and what they did"),
    Command("label simulate", "rein.feedback.simulated_work:simulate_labels", "labelers that answer by a gold score"),
    Command("label agreement", "rein.feedback.agreement_command:agreement_command", "how far people agree, and biases"),
    Command("label prioritise", "rein.feedback.agreement_command:prioritise", "which items to ask of people next"),
    Command(
        "label export", "rein.feedback.transfer:export_command", "answers for training, as OpenAI, TRL and others do"
    ),
    Command("label formats", "rein.feedback.transfer:formats_command", "the files that are read and written"),
    Command("label backup", "rein.web.label.commands:backup", "copy a store while it is in use, and check the copy"),
    Command(
        "label check", "rein.feedback.check:check_command", "whether a store is whole, and its answers those given"
    ),
    Command("report", "rein.text.report:report", "write the report.html of a run or a corpus anew"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0 done, 2 an error of the user's, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()  # here, where a reader that went away is still ours to handle
    except UserError as error:
        if speaks():
            print(f"UserError: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if speaks():
            lesson = "; a lesson goes on with --resume" * (words[:1] == ["tamer"])
            print(f"Interrupted. What was saved is whole: the same command goes on{lesson}.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away. Point stdout at nothing, so that the interpreter's own flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"rein {__version__}")
        return 0
    command, rest = _find(words)
    if command is None:
        return 0
    function, config_class = command.load()
    config = from_flags(config_class, rest, prog=f"rein {command.name}", description=inspect.getdoc(function) or "")
    function(config)
    return 0


def _find(words: list[str]) -> tuple[Command | None, list[str]]:
    """The command named by the first words, or None after a group's own help was printed."""
    for count in (2, 1):
        name = " ".join(words[:count])
        for command in COMMANDS:
            if command.name == name:
                return command, words[count:]
    group = [command for command in COMMANDS if command.name.split()[0] == words[0]]
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_listing(f"usage: rein {words[0]} COMMAND [--help]", group))
        return None, []
    typed = " ".join(words[:2]) if group else words[0]
    raise UserError(f"rein has no command {typed!r}.", suggestion(typed, [c.name for c in COMMANDS]))


def overview() -> str:
    """What `rein --help` prints."""
    return _listing(
        f"rein {__version__}: language models and agents from human feedback\n\n"
        "usage: rein COMMAND [settings]      rein COMMAND --help teaches one command",
        COMMANDS,
    )


def _listing(head: str, commands: Sequence[Command]) -> str:
    width = max(len(command.name) for command in commands)
    rows = [f"  {command.name:<{width}}  {command.summary}" for command in commands]
    return "\n".join([head, "", *rows])
