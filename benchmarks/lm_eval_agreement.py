"""Our evaluation against lm-evaluation-harness's `hf` model: the same log-likelihoods, the same choices?

    python benchmarks/lm_eval_agreement.py CHECKPOINT --data FOLDER [--questions 500] [--shots 0 5]

Data      FOLDER holds arc_easy.jsonl, piqa.jsonl and copa.jsonl of llm-foundry's evaluation gauntlet (`query`,
          `choices`, `gold`); the first questions of each are taken.
Model     CHECKPOINT is a model folder that both load: `rein export`, or a Hugging Face `gpt2`.
Compared  protocol: the tokens of our few-shot prompts, given to our token trees and to lm-eval's hf model.
          harness: texts, given to ReinLM and to the hf model through lm-eval's own interface.
          For each: the largest difference of a completion's log-likelihood, how many questions get the same choice, and
          the time of both. float32, on a CPU.
Needs     pip install lm-eval torch transformers.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from rein.evals.harness import ReinLM
from rein.evals.language_model import Ours
from rein.evals.prompts import Prompter
from rein.evals.task import Task, multiple_choice
from rein.models.tree import ROOT, Tree

TASKS = ("arc_easy", "piqa", "copa")
BATCH_TOKENS = 8192


def main() -> None:
    """Compares what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    args = parser.parse_args()
    ours, rein = Ours.load(args.checkpoint, device="cpu"), ReinLM(str(args.checkpoint), device="cpu")
    hf = HFLM(str(args.checkpoint), device="cpu", dtype="float32", batch_size=8)
    print(f"{'task':<12}{'compared':<14}{'questions':>10}{'difference':>12}{'same choice':>13}{'rein s':>9}{'hf s':>8}")
    for name in TASKS:
        problems = read(args.data / f"{name}.jsonl")
        asked, others = problems[: args.questions], problems[args.questions :]
        for shots in args.shots:
            tokens = in_protocol(ours, name, asked, others, shots)
            show(name, f"protocol K={shots}", tokens, lambda each: by_trees(ours, each), lambda each: by_hf(hf, each))
        texts = [[(option.context, option.completion) for option in problem.options] for problem in asked]
        show(name, "harness", texts, lambda each: in_text(rein, each), lambda each: in_text(hf, each))


def read(path):
    """The problems of a file: the query, its choices behind "Answer:"."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        multiple_choice(str(number), f"{row['query'].strip()}\nAnswer:", row["choices"], row["gold"])
        for number, row in enumerate(rows)
    ]


def in_protocol(model, name, problems, others, shots):
    """(context, completion) ids of each option, as an evaluation of ours asks them."""
    task = Task(name=name, title=name, read=lambda data, split: (), ask=lambda row: (), shots=shots)
    prompter = Prompter(model, task, others or problems)
    return [prompter.ask(problem, [shots])[0].options for problem in problems]


def show(name, what, questions, ours, theirs):
    """One line of the table."""
    began = time.perf_counter()
    mine = ours(questions)
    between = time.perf_counter()
    peer = theirs(questions)
    ended = time.perf_counter()
    off = max(np.abs(np.array(a) - np.array(b)).max() for a, b in zip(mine, peer, strict=True))
    same = sum(int(np.argmax(a)) == int(np.argmax(b)) for a, b in zip(mine, peer, strict=True))
    times = f"{between - began:9.1f}{ended - between:8.1f}"
    print(f"{name:<12}{what:<14}{len(questions):>10}{off:>12.2e}{f'{same}/{len(questions)}':>13}{times}", flush=True)


def by_trees(model, questions):
    """The log-likelihood of each option: a tree a question, many trees at once."""
    found, trees, paths = [], [], []

    def score():
        for one, nodes in zip(model.score(trees), paths, strict=True):
            found.append([one.logprobs_N[each].sum() for each in nodes])
        trees.clear()
        paths.clear()

    for options in questions:
        tree = Tree()
        paths.append([tree.complete(tree.extend(ROOT, context), completion) for context, completion in options])
        trees.append(tree)
        if sum(tree.n_read() for tree in trees) >= BATCH_TOKENS:
            score()
    score()
    return found


def by_hf(model, questions):
    """The same tokens through lm-eval's hf model."""
    asked = [(None, list(context), list(completion)) for options in questions for context, completion in options]
    return grouped(model._loglikelihood_tokens(asked, disable_tqdm=True), questions)


def in_text(model, questions):
    """Texts through lm-eval's interface."""
    pairs = [pair for options in questions for pair in options]
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    return grouped(model.loglikelihood(asked, disable_tqdm=True), questions)


def grouped(answers, questions):
    """Log-likelihoods, question by question."""
    rest = iter(answers)
    return [[next(rest)[0] for _ in options] for options in questions]


if __name__ == "__main__":
    main()
