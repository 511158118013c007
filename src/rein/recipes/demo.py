"""`rein demo`: from the text on this machine to a model that judgements made better, the whole line in a few minutes.

    1  corpus     the documentation that every Python installation has → documents → BPE → token shards
    2  pre-train  how fast is this machine, so how much fits into the time? Then the language-model objective
    3  answer     docstrings with their summary lines → the supervised start
    4  improve    a round of `rein loop`: pairs of answers, compared through the labeling server by simulated labelers
                  → a reward model of what they said → PPO
    5  measure    held-out docstrings: the supervised model, the best of its samples, PPO, people; by the true score,
                  which the labelers judged by and no model has seen (demo_result.py)

Every stage is kept: stop it at any time, run it again, and it goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rein.bpe.tokenizer import load_tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.evals.best_of_n_command import BestOfNConfig, best_of_n
from rein.evals.policies import policies_command
from rein.evals.policies_config import PoliciesConfig
from rein.feedback.draw import DrawConfig, draw
from rein.loop.config import INITIAL, LoopConfig, policy_name
from rein.loop.loop import loop
from rein.loop.rounds import PROJECT
from rein.models.gpt import GPT
from rein.models.machine import autocast, keep_freed_memory, resolve_device, resolve_precision
from rein.progress import duration
from rein.recipes.demo_result import BEST_OF_N, EVALUATION, GOLD, PPO, SFT, as_text, read_result, reward_run, write_page
from rein.run import lock_folder, read_rows, write_atomically
from rein.text.build import BuildConfig, build
from rein.text.prompts_command import PromptsConfig, prompts
from rein.text.split import SPLITS, unit_hash
from rein.train.pretrain import pretrain
from rein.train.pretrain_config import PretrainConfig
from rein.train.sft import sft
from rein.train.sft_config import SFTConfig


@dataclass(frozen=True)
class DemoConfig:
    """Settings of `rein demo`."""

    minutes: float = setting(10.0, "how long it may take, all stages together", unit="minutes")
    out: Path = setting(Path("runs/demo"), "folder for the corpus, the runs, the labels and the pages")
    seed: int = setting(0, "of everything: the corpus split, weights, samples, labelers")

    def __post_init__(self) -> None:
        if self.minutes < 1:
            raise UserError(
                f"--minutes is {self.minutes}, but reading the corpus alone takes about half a minute.",
                "Use --minutes 1 or more.",
            )


@dataclass(frozen=True)
class Plan:
    """How much of each stage fits into the time."""

    minutes: float
    seed: int
    tokens_per_s: float
    train_tokens: int
    demonstrations: int  # docstrings with their summary lines
    items: int  # pairs of answers that labelers compare
    episodes: int  # of PPO
    heldout_prompts: int


def demo(config: DemoConfig) -> None:
    """Trains a small GPT on the documentation of this Python, teaches it a task, and improves it by judgements.

    The task is a docstring's summary line. Simulated labelers compare answers through the labeling server, a reward
    model learns what they prefer, and PPO trains on it. Needs no network, no GPU and no data. Stop it with Ctrl-C and
    run it again: it goes on where it was.

    Examples
      rein demo
      rein demo --minutes 3 --out runs/quick
    """
    began = time.monotonic()
    with lock_folder(config.out):
        print("1/5  text → documents → BPE → token shards", flush=True)
        corpus = config.out / "corpus"
        build(BuildConfig(source="pydocs", out=corpus, n_vocab=N_VOCAB, seed=config.seed))

        print("\n2/5  token shards → a GPT", flush=True)
        planned = plan(config, corpus, 60 * config.minutes - (time.monotonic() - began))
        pretrain(training(config, planned))

        print("\n3/5  docstrings with their summary lines → a model that answers", flush=True)
        _rows(config, planned)
        sft(supervised(config, planned))

        print("\n4/5  answers, compared two by two through the labeling server → a reward model → PPO", flush=True)
        loop(improving(config, planned))

        print("\n5/5  held-out docstrings, by the true score", flush=True)
        _measure(config, planned)
        _for_you(config)
        result = read_result(config.out)
        write_page(config.out, result)

    print("\n".join(["", *as_text(config.out, result), f"all stages        {duration(time.monotonic() - began)}"]))
    print(_next(config.out))


# ------------------------------------------------------------------------------------------------------- the stages

N_VOCAB = 4096  # of so little text, a larger vocabulary learns too few of its words
QUERY_TOKENS, RESPONSE_TOKENS = 64, 24  # most summary lines have fewer
TEMPERATURE = 0.7  # of PPO's samples, and of those that are measured
COMPARED_TEMPERATURE = 0.85  # of those that are compared: a reward model that never saw long answers likes them
HELDOUT_ROWS = 200  # whole packages, which the corpus held out, too
SAMPLES = 4  # of each model to each held-out prompt
BEST_OF = 8
JUDGEMENT_TEMPERATURE = 0.2  # of labelers: what they see of a difference of true scores
YOURS = 20  # pairs that are left for whoever opens the labeling pages
TEXTS: dict[str, Any] = {"format": "docstring", "query_tokens": QUERY_TOKENS, "response_tokens": RESPONSE_TOKENS}


def training(config: DemoConfig, planned: Plan) -> PretrainConfig:
    """A GPT-2 of the size that learns most in ten minutes on two cores (docs/log.md says how it was found)."""
    return PretrainConfig(
        data=config.out / "corpus",
        out=config.out / "pretrain",
        n_layer=4,
        n_embd=160,
        n_head=5,
        n_ctx=256,
        train_tokens=planned.train_tokens,
        sequences_per_batch=16,
        learning_rate=4e-3,
        sample_prompts=("Return the ", "This function ", "The following example ", "If the file does not exist, "),
        heldout_tokens=60_000,
        checkpoint_every_s=60.0,
        keep_checkpoints=1,
        seed=config.seed,
    )


def supervised(config: DemoConfig, planned: Plan) -> SFTConfig:
    """Each demonstration once or twice, in updates that are small enough to be many."""
    return SFTConfig(
        checkpoint=config.out / "pretrain",
        data=(config.out / "prompts.jsonl",),
        out=config.out / "sft",
        learning_rate=1.5e-3,
        warmup_frac=0.05,
        demonstrations_per_batch=32,
        reward=GOLD,
        samples=48,
        temperature=TEMPERATURE,
        seed=config.seed,
        **TEXTS,
    )


# Two answers of the supervised model, or one of its and a person's: what is too short and too long, and what is good.
PAIRS = "current:initial=0.7,initial:ref=0.3"
REWARD_SETTINGS = {"learning_rates": [7e-4], "epochs": 1, "prompts_per_batch": 16}
PPO_SETTINGS = {
    "episodes_per_batch": 64, "minibatches": 2, "epochs": 2, "learning_rate": 3e-4, "value_learning_rate": 1e-3,
    "kl_coef": 0.1, "temperature": TEMPERATURE, "whiten_rewards": False, "heldout_prompts": 48,
    "checkpoint_every_s": 60.0,
}  # fmt: skip


def improving(config: DemoConfig, planned: Plan) -> LoopConfig:
    """A round of the closed loop: where it ends, `rein loop` with the same settings goes on to the next."""
    paths = {}
    for name, values in (("reward", REWARD_SETTINGS), ("ppo", {**PPO_SETTINGS, "episodes": planned.episodes})):
        paths[name] = config.out / f"{name}.json"
        write_atomically(paths[name], json.dumps(values, indent=1) + "\n")
    return LoopConfig(
        policy=config.out / SFT / "best",
        prompts=config.out / "prompts.jsonl",
        out=config.out / "loop",
        rounds=1,
        reward_settings=paths["reward"],
        policy_settings=paths["ppo"],
        items=planned.items,
        pairs=PAIRS,
        calibration_share=0.1,
        drift_share=0.02,
        evaluation_items=planned.heldout_prompts,
        gold=GOLD,
        judgement_temperature=JUDGEMENT_TEMPERATURE,
        temperature=COMPARED_TEMPERATURE,
        seed=config.seed,
        **TEXTS,
    )


def _rows(config: DemoConfig, planned: Plan) -> None:
    """Docstrings parted into what is asked and its answer: as many as the plan says, chosen by their hashes."""
    path, everything = config.out / "prompts.jsonl", config.out / "docstrings.jsonl"
    if path.exists():
        return
    with (config.out / "prompts.txt").open("w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
        prompts(PromptsConfig(files=(config.out / "corpus",), out=everything, seed=config.seed, show=3))
    lines = list[str]()
    for split, most in zip(SPLITS, (planned.demonstrations, HELDOUT_ROWS), strict=True):
        rows = [row for row in read_rows(everything) if row["split"] == split]
        rows.sort(key=lambda row: unit_hash(f"demo {row['id']}", config.seed))
        lines += [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:most]]
    write_atomically(path, "".join(lines))


def _measure(config: DemoConfig, planned: Plan) -> None:
    """The same held-out prompts for all, each answered several times, by both judges."""
    asked: dict[str, Any] = {
        "prompts": config.out / "loop" / "prompts" / "heldout.jsonl", "n_prompts": planned.heldout_prompts,
        "temperature": TEMPERATURE, "seed": config.seed + 1, **TEXTS,
    }  # fmt: skip
    models = {SFT: config.out / SFT / "best", PPO: _improved(config.out)}
    reward = str(reward_run(config.out))
    with (config.out / "measured.txt").open("w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
        best_of_n(
            BestOfNConfig(
                policy=models[SFT], reward=reward, gold=GOLD, samples=BEST_OF, out=config.out / BEST_OF_N, **asked
            )
        )
        policies_command(
            PoliciesConfig(
                policies=tuple(f"{name}={path}" for name, path in models.items()), out=config.out / EVALUATION,
                against=SFT, per_prompt=SAMPLES, judge=(GOLD, reward), reference_policy=SFT,
                kl_temperature=TEMPERATURE, **asked,
            )
        )  # fmt: skip


def _for_you(config: DemoConfig) -> None:
    """Pairs of the supervised model and PPO that nobody has judged: the labeling pages show them to whoever comes."""
    improved = policy_name(1)
    draw(
        DrawConfig(
            project=PROJECT, prompts=config.out / "loop" / "prompts" / "heldout.jsonl",
            store=str(config.out / "loop" / "labels.db"),
            policy=(f"{INITIAL}={config.out / SFT / 'best'}", f"{improved}={_improved(config.out)}"),
            pairs=f"{improved}:{INITIAL}=1", n=YOURS, format=TEXTS["format"], query_tokens=QUERY_TOKENS,
            max_new_tokens=RESPONSE_TOKENS, temperature=TEMPERATURE, batch="yours", role="calibration",
            seed=config.seed,
        )
    )  # fmt: skip


def _improved(out: Path) -> Path:
    """The model that the round ended with."""
    folder = out / "loop" / "round-01" / "policy"
    return folder / str(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["policy"])


# --------------------------------------------------------------------------------------------------------- the time

# Of the time that reading the corpus has left. What remains is for drawing, labeling, the reward model and measuring.
PRETRAIN_SHARE, SUPERVISED_SHARE, PPO_SHARE = 0.45, 0.10, 0.22
RESERVE_S = 15.0  # for starting, and for reports
TOKENS_A_DEMONSTRATION, TOKENS_AN_EPISODE = 80, 500  # of pre-training, that cost as much time
ITEMS_A_SECOND = 3.0
FEWEST, MOST = 100, 1600  # pairs to compare


def plan(config: DemoConfig, corpus: Path, left_s: float) -> Plan:
    """What fits into `left_s` seconds on this machine; decided once, then read from plan.json.

    Raises   UserError where the folder was begun with other flags.
    """
    path = config.out / "plan.json"
    if path.exists():
        kept = Plan(**json.loads(path.read_text(encoding="utf-8")))
        if (kept.minutes, kept.seed) != (config.minutes, config.seed):
            raise UserError(
                f"{config.out} holds a demo of --minutes {kept.minutes:g} --seed {kept.seed}.",
                "Finish it with those flags, or choose another --out.",
            )
        return kept
    empty = Plan(config.minutes, config.seed, 0.0, 1, 0, 0, 0, 0)
    made = shared_out(config, tokens_per_s(training(config, empty)), max(left_s - RESERVE_S, 20.0))
    print(
        f"     this machine trains about {made.tokens_per_s:,.0f} tokens/s. In {duration(max(left_s, 0))} go "
        f"{made.train_tokens:,} tokens, {made.demonstrations:,} demonstrations, {made.items:,} comparisons and "
        f"{made.episodes:,} episodes",
        flush=True,
    )
    write_atomically(path, json.dumps(asdict(made)) + "\n")
    return made


def shared_out(config: DemoConfig, rate: float, left_s: float) -> Plan:
    """The time as work of each stage, on a machine that trains `rate` tokens a second."""
    batch = int(PPO_SETTINGS["episodes_per_batch"])
    return Plan(
        minutes=config.minutes,
        seed=config.seed,
        tokens_per_s=rate,
        train_tokens=int(rate * left_s * PRETRAIN_SHARE * 0.88),  # evaluations and checkpoints take the rest
        demonstrations=max(int(rate * left_s * SUPERVISED_SHARE / TOKENS_A_DEMONSTRATION), 200),
        items=min(max(int(ITEMS_A_SECOND * left_s), FEWEST), MOST),
        episodes=max(int(rate * left_s * PPO_SHARE / TOKENS_AN_EPISODE) // batch, 4) * batch,
        heldout_prompts=min(max(int(left_s / 3), 60), 150),
    )


def tokens_per_s(training: PretrainConfig, *, seconds: float = 3.0) -> float:
    """How fast this machine makes updates of that model, on random tokens."""
    keep_freed_memory()
    device = resolve_device(training.device)
    precision = resolve_precision(training.precision, device)
    model = GPT(training.model(load_tokenizer(training.data).n_vocab)).initialise(0).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    shape = (training.sequences_per_batch or 16, model.config.n_ctx)
    tokens_BT = torch.randint(0, model.config.n_vocab, shape, generator=torch.Generator().manual_seed(0)).to(device)
    made, began = -2, time.monotonic()  # two to warm up
    while made < 1 or time.monotonic() - began < seconds:
        with autocast(device, precision):
            loss = model.loss(tokens_BT, tokens_BT)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        made += 1
        if made == 0:
            loss.item()
            began = time.monotonic()
    loss.item()
    return made * shape[0] * shape[1] / (time.monotonic() - began)


def _next(out: Path) -> str:
    """What to type next."""
    store = out / "loop" / "labels.db"
    return (
        f"the whole line    {out / 'demo.html'} (open it in a browser)\n"
        f"judge yourself    rein label serve {store} (which is better: before PPO or after? {YOURS} pairs are yours)\n"
        f"  what you said   rein eval policies --store {store} --project {PROJECT} --batch yours --against {INITIAL} "
        f"--out {out / 'yours'}\n"
        "teach an agent    rein tamer play loop-maze (in the browser, by hand, in three minutes)\n"
        f'write with it     rein generate {out / "pretrain"} --prompt "Returns True if " --top-p 0.9\n'
        f"a second round    rein loop --config {out / 'loop' / 'config.json'} --rounds 2\n"
        "your own text     rein text build --source folder --help, then rein pretrain --help"
    )
