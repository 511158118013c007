"""How fast problems of choice are scored: Rein against lm-evaluation-harness's `hf` model; and what a K-curve costs.

    python benchmarks/eval_speed.py --data SETS --tokenizer GPT2 [--questions 8] [--precision fp32]
    python benchmarks/eval_speed.py --curve --data SETS --tokenizer GPT2         0, 1, 2, 4 … K against K alone
    python benchmarks/eval_speed.py --memory                                     ten times the problems

Work      GPT-2 124M with random weights, one folder that both load; SETS has ARC's csv files and llm-foundry's
          arc_easy.jsonl, piqa.jsonl and lambada_openai.jsonl; GPT2 a folder of OpenAI's encoder.json and vocab.bpe.
          arc_easy   the paper's 50 shots, as many as fit into 1,024 tokens
          four       HellaSwag's shape, made of LAMBADA's passages: 40 words, then the next 20 or those of three others;
                     as many shots as fit
          piqa       as many shots as fit, from the set itself: its train set is not in SETS
Peer      HFLM of lm-eval, given the very texts of our prompts, float32; in batches of four. Both run
          after one question that is not counted, from texts to log-likelihoods.
Equal     the largest difference of a log-likelihood, and how many questions get the same choice, are printed.
Curve     on gpt3-small's shape, 2,048 tokens, where the paper's 50 shots fit: every K in one pass, against K = 50 alone
          and against one pass for each.
Needs     pip install lm-eval transformers accelerate   (not for --curve and --memory)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from rein import checkpoint
from rein.bpe.byte_level import from_openai
from rein.evals.answering import Answerer
from rein.evals.data import Data, rows
from rein.evals.language_model import Ours
from rein.evals.prompts import Prompter, curve
from rein.evals.responses import Responses
from rein.evals.task import Task, multiple_choice
from rein.evals.tasks import arc, piqa
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.models.presets import preset

SHAPE = GPTConfig(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12)
BATCH = 4  # of the peer: a question of four choices; others were no faster


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.precision}")
    if args.memory:
        memory()
        return
    tokenizer = from_openai(args.tokenizer / "encoder.json", args.tokenizer / "vocab.bpe")
    if args.curve:
        whole_curve(tokenizer, args)
        return
    against_lm_eval(tokenizer, args)


# ---------------------------------------------------------------------------------------------- against the peer


def against_lm_eval(tokenizer, args) -> None:
    """Questions per second of both, on the same prompts."""
    import lm_eval
    import transformers
    from lm_eval.models.huggingface import HFLM

    print(f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}")
    print(
        f"{'task':<10}{'shots':>7}{'tokens':>8}{'rein q/s':>10}{'lm-eval q/s':>13}{'ratio':>8}{'difference':>12}  same"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = GPT(SHAPE).initialise(0).eval()
        checkpoint.save(Path(folder) / "m", lambda where: save_model(where, model, tokenizer), {"made_by": "benchmark"})
        ours = Ours(model, tokenizer, name="random", precision=args.precision)
        peer = HFLM(str(Path(folder) / "m"), device="cpu", dtype="float32", batch_size=BATCH)
        for task, examples, problems in tasks(args.data, args.questions + 1):
            prompter = Prompter(ours, task, examples)
            asked = [prompter.ask(problem, [task.shots])[0] for problem in problems]
            texts = [[tuple(map(ours.decode, option)) for option in one.options] for one in asked]
            rein_s, rein_found = best(partial(by_rein, ours, task), asked, args.rounds)
            peer_s, peer_found = best(partial(by_lm_eval, peer), texts, args.rounds)
            difference = max(np.abs(np.subtract(a, b)).max() for a, b in zip(rein_found, peer_found, strict=True))
            same = sum(np.argmax(a) == np.argmax(b) for a, b in zip(rein_found, peer_found, strict=True))
            shots = statistics.mean(one.effective_k for one in asked[1:])
            length = statistics.mean(len(one.options[0][0]) for one in asked[1:])
            n = len(rein_found)
            print(f"{task.name:<10}{shots:7.1f}{length:8.0f}{n / rein_s:10.3f}{n / peer_s:13.3f}"
                  f"{peer_s / rein_s:7.2f}x{difference:12.1e}  {same}/{n}", flush=True)  # fmt: skip


def tasks(folder, n):
    """Each task with its shots and its questions; one question more than is counted."""
    data = Data((folder,))
    easy = [p for row in _sound(arc.EASY, data, "train") for p in row]
    yield arc.EASY, easy, [p for row in islice(_sound(arc.EASY, data, "test"), n) for p in row]
    four = list(four_endings(data.need("lambada_openai.jsonl"), 400))
    yield Task("four", "Four endings", None, None, shots=20), four[n:], four[:n]
    asked = [p for row in islice(_sound(piqa.PIQA, data, "dev"), 400) for p in row]
    yield piqa.PIQA, asked[n:], asked[:n]


def _sound(task, data, split):
    for row in task.read(data, split):
        try:
            yield list(task.ask(row))
        except ValueError:
            continue


def four_endings(path, n):
    """Forty words of a passage, and which twenty come next."""
    passages = [str(row["context"]).split() for row in rows(path)]
    passages = [words for words in passages if len(words) >= 60][:n]
    for at, words in enumerate(passages):
        others = [passages[(at + step) % len(passages)] for step in (1, 2, 3)]
        endings = [" ".join(each[40:60]) for each in (words, *others)]
        yield multiple_choice(str(at), " ".join(words[:40]), endings, 0)


def best(run, questions, rounds):
    """The fastest of some rounds after the first question, and what was found."""
    run(questions[:1])
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = run(questions[1:])
        took.append(time.perf_counter() - began)
    return min(took), found


def by_rein(ours, task, asked):
    """From tokens to the log-likelihood of every option, with responses written down, as `rein eval` does."""
    with tempfile.TemporaryDirectory() as folder, Responses(Path(folder) / "r.sqlite") as kept:
        answerer = Answerer(ours, replace(task, normalise="token"), kept, batch_tokens=4096)
        return [list(answer.logprobs) for answer in answerer.answer(asked, lambda _: None)]


def by_lm_eval(model, questions):
    """The same, through lm-eval's interface."""
    from lm_eval.api.instance import Instance

    instances = [
        Instance("loglikelihood", {}, pair, at) for at, question in enumerate(questions) for pair in question
    ]  # fmt: skip
    found = iter(model.loglikelihood(instances, disable_tqdm=True))
    return [[next(found)[0] for _ in question] for question in questions]


# ---------------------------------------------------------------------------------------------------- the curve


def whole_curve(tokenizer, args) -> None:
    """All numbers of shots in one pass, K alone, and one pass for each."""
    model = GPT(preset("gpt3-small").model).initialise(0).eval()
    ours, task = Ours(model, tokenizer, name="random", precision=args.precision), arc.EASY
    data = Data((args.data,))
    examples = [p for row in _sound(task, data, "train") for p in row]
    problems = [p for row in islice(_sound(task, data, "test"), args.questions) for p in row]
    prompter, ks = Prompter(ours, task, examples), curve(task.shots)

    def run(which):
        for some in which:
            by_rein(ours, task, [one for problem in problems for one in prompter.ask(problem, some)])

    run([[0]])
    ways = {"K alone": [[task.shots]], "the curve": [ks], "each K by itself": [[k] for k in ks]}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, which in ways.items():
            began = time.perf_counter()
            run(which)
            took[name].append(time.perf_counter() - began)
    alone = statistics.median(took["K alone"])
    for name, seconds in took.items():
        ratio = statistics.median(seconds) / alone
        print(f"{name:<18}{statistics.median(seconds):8.2f} s{ratio:8.2f}x   K = {', '.join(map(str, ks))}")


# --------------------------------------------------------------------------------------------------- the memory


def memory() -> None:
    """Peak memory of `rein eval` over 2,000 and 20,000 problems of a task."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in (2_000, 20_000):
            problem = {"choices": ["a longer answer", "another answer"], "gold": 0}
            lines = [json.dumps({"context": f"Question {at}: what is it?\nAnswer:", **problem}) for at in range(n)]
            (folder / f"own{n}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            code = f"import benchmarks_eval_memory; benchmarks_eval_memory.run({str(folder)!r}, {n})"
            (folder / "benchmarks_eval_memory.py").write_text(_RUN, encoding="utf-8")
            out = subprocess.run(
                [sys.executable, "-c", code], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
            )
            print(f"{n:>7,} problems {out.stdout.strip().splitlines()[-1]}")


_RUN = """
import resource
from pathlib import Path
from rein.bpe.byte_level import ByteLevelBPE
from rein.evals.data import Data
from rein.evals.evaluate import evaluate
from rein.evals.language_model import Ours
from rein.evals.responses import Responses
from rein.evals.tasks.own import task_from_file
from rein.models.gpt import GPT, GPTConfig


def run(folder, n):
    folder = Path(folder)
    model = GPT(GPTConfig(n_vocab=257, n_ctx=128, n_embd=32, n_head=2, n_layer=2)).initialise(0).eval()
    ours, out = Ours(model, ByteLevelBPE(()), name="tiny"), folder / f"out{n}"
    out.mkdir()
    with Responses(folder / f"{n}.sqlite") as kept:
        evaluate(ours, [task_from_file(folder / f"own{n}.jsonl")], data=Data(), responses=kept, out=out)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
"""


if __name__ == "__main__":
    main()
