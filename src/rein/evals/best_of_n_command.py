"""`rein best-of-n`: N samples of each prompt, scored; what the best of n is worth for every n; the best to train on.

Flow     prompts → N responses each (models/rollout.py) → scores by --reward and --gold → responses.jsonl, prompt by
         prompt → best_of_n.curve → curve.json, curve.html
         with --keep best: demonstrations.jsonl, which `rein sft` reads

A response depends on (seed, its prompt's place, its number) alone, so that a command that was killed goes on where it
was, to the same bytes, and a larger N has the samples of a smaller one.
Source   Stiennon 2020, App. G.3; Nakano 2021 (WebGPT), section 3.2 (rejection sampling); Gao 2022.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from markupsafe import Markup

from rein import __version__
from rein.config import flag_of, setting
from rein.errors import UserError, writing
from rein.evals.best_of_n import Point, choice, curve, shown_sizes
from rein.evals.figures import Chart, Mark
from rein.evals.statistics import Estimate
from rein.evals.weights import check_weights
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import resolve_device, resolve_precision
from rein.models.reward import Reward, load_reward
from rein.progress import Progress
from rein.report.charts import Axis, linear
from rein.report.legible import cut, number, table, visible
from rein.report.parts import policy, static, templates
from rein.run import RunFolder, read_rows, write_atomically
from rein.text.prompts import Query, fitting, format_of, read_queries
from rein.train.ppo_parts import Text
from rein.train.ppo_rules import Ending
from rein.train.queries import Prompt, note_format
from rein.train.responses import respond

Json = dict[str, Any]
RESPONSES = "responses.jsonl"
DEMONSTRATIONS = "demonstrations.jsonl"
AT_ONCE = 512  # responses that are written before the next prompts
SHOWN_PROMPTS = 12  # on the page

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class BestOfNConfig:
    """Settings of `rein best-of-n`."""

    policy: Path = setting(help="a run, a checkpoint, or a model folder", positional=True)
    reward: str = setting(help="what chooses: a run of `rein reward`, or (context, text) as package.module:Name")
    prompts: Path = setting(help='JSON lines: {"prompt": …} or a format\'s fields; "reference", "split", "id"')
    out: Path = setting(help="folder for responses, curve and page; the same command continues it")
    gold: str = setting("", "what judges: another reward model, or a function; without it, the proxy alone is drawn")
    format: str = setting("plain", "how a row becomes a query: plain, tldr, cnndm, instruct, chat, docstring")
    query_tokens: int | None = setting(None, "longest query, in place of the format's", unit="tokens")
    response_tokens: int | None = setting(
        None, "longest response, its end of text included, in place of the format's", unit="tokens"
    )
    split: str = setting("", "only rows of this split")
    n_prompts: int = setting(0, "the first so many prompts; 0: all")
    samples: int = setting(64, "responses to each prompt, N", paper="8 to 2048 in Stiennon 2020")
    temperature: float = setting(0.7, "of the samples", paper="0.7")
    unended: Literal["keep", "score"] = setting(
        "keep", "a response without an end: keep its proxy score, or --unended-score"
    )
    unended_score: float = setting(-1.0, "the proxy score of a response without an end")
    keep: Literal["none", "best"] = setting("none", "best: writes each prompt's best, that has an end, to train on")
    min_score: float | None = setting(None, "of what is kept: the proxy score, at least")
    seed: int = setting(0, "of the samples")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16; auto: where it is faster", group="machine"
    )
    tokens_at_once: int = setting(8192, "in one forward pass of a reward model", unit="tokens", group="machine")
    slots: int = setting(64, "responses that are sampled side by side", group="machine", may_change=True)

    def __post_init__(self) -> None:
        for name in ("samples", "temperature", "tokens_at_once", "slots"):
            if getattr(self, name) <= 0:
                flag = flag_of(name)
                raise UserError(f"{flag} is {getattr(self, name)}, but it must be above 0.", f"Raise {flag}.")
        if self.n_prompts < 0:
            raise UserError(f"--n-prompts is {self.n_prompts}, but it must be 0 or more.", "Use 0 for all.")
        if self.min_score is not None and self.keep == "none":
            raise UserError("--min-score is given, but nothing is kept.", "Add --keep best.")


def best_of_n(config: BestOfNConfig) -> Path:
    """Samples N responses to each prompt, and says what choosing the best of n by a reward is worth, for every n ≤ N.

    The estimate for each n uses all N samples and has no bias; the distance from the policy is log n − (n − 1)/n nats.
    With --gold, another judge scores what the reward chooses: where its curve bends, the reward is over-optimised. With
    --keep best, each prompt's best response is a demonstration to train on (rejection sampling).

    Examples
      rein best-of-n runs/sft --reward runs/reward --prompts posts.jsonl --format tldr --out evals/best
      rein best-of-n runs/sft --reward runs/reward --gold my.module:score --prompts posts.jsonl --format tldr --out a
      rein best-of-n runs/sft --reward runs/reward --prompts posts.jsonl --format tldr --keep best --out runs/best
      rein sft runs/sft --data runs/best/demonstrations.jsonl --format tldr --out runs/rejection
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    model, tokenizer = load_model(config.policy, device=str(device))
    format = format_of(config.format, query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    note_format(config.policy, format)
    text = Text(tokenizer, format)
    judges = {"proxy": config.reward, "gold": config.gold}
    rewards = {
        name: load_reward(
            spec, tokenizer, device=device, precision=precision, tokens_at_once=config.tokens_at_once,
            flag={"proxy": "--reward", "gold": "--gold"}[name], format=format,
        )
        for name, spec in judges.items() if spec
    }  # fmt: skip
    most = min([model.config.n_ctx, *(reward.n_ctx or model.config.n_ctx for reward in rewards.values())])
    prompts, left_out = _prompts(config, text, most)
    with RunFolder(config.out, config):
        check_weights(
            config.out, {f"The policy {config.policy}": config.policy}, [spec for spec in judges.values() if spec]
        )
        rows = _responses(config, model, text, rewards, prompts, precision)
        points = curve([row["proxy"] for row in rows], [row["gold"] for row in rows] if config.gold else None)
        _write(config, rows, points)
        kept = _keep(config, prompts, rows) if config.keep == "best" else ""
    for why, count in left_out.items():
        print(f"left out: {why}: {count:,}", file=sys.stderr)
    print("\n".join(_table(points)))
    if kept:
        print(kept)
    return config.out


# --------------------------------------------------------------------------------------------------- responses


def _prompts(config: BestOfNConfig, text: Text, n_ctx: int) -> tuple[list[Prompt], Counter[str]]:
    """The prompts that leave room for a whole response, and why the others are left out.

    Raises   UserError where there is none.
    """
    left_out: Counter[str] = Counter()
    found: list[Prompt] = []
    queries = (query for query in read_queries(config.prompts, text.format) if config.split in ("", query.split))
    for query, ids, why in fitting(
        queries, text.format, text.tokenizer, response_tokens=text.response_tokens, n_ctx=n_ctx
    ):
        if ids:
            found.append(Prompt(ids, query))
        else:
            left_out[why] += 1
        if config.n_prompts and len(found) == config.n_prompts:
            break
    if not found:
        reasons = "; ".join(f"{why}: {count:,}" for why, count in left_out.items())
        raise UserError(
            f"{config.prompts} has no prompt to answer ({reasons or f'none is of split {config.split!r}'}).",
            "Give other --prompts or --split, or lower --response-tokens.",
        )
    return found, left_out


def _responses(
    config: BestOfNConfig,
    model: GPT,
    text: Text,
    rewards: Mapping[str, Reward],
    prompts: Sequence[Prompt],
    precision: str,
) -> list[Json]:
    """A row of every prompt: what there is already, and the rest, which is appended prompt by prompt.

    Raises   UserError where the rows that are there are of other prompts.
    """
    path = config.out / RESPONSES
    rows = list(read_rows(path))
    write_atomically(path, "".join(map(_line, rows)))  # a last line that a kill cut short is gone
    for row, prompt in zip(rows, prompts, strict=False):
        if row["query"] != prompt.query.text:
            raise UserError(
                f"{config.prompts} has changed since {config.out} began: {row['id']} asks something else.",
                "Restore it, or choose another --out.",
            )
    at_once = max(1, AT_ONCE // config.samples)
    with Progress("sampling", total=len(prompts), unit="prompts", start=len(rows)) as bar:
        while len(rows) < len(prompts):
            some = prompts[len(rows) : len(rows) + at_once]
            new = list(_answered(config, model, text, rewards, some, len(rows), precision))
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, new)))
            rows += new
            bar.advance(len(new), note=f"best {np.mean([max(row['proxy']) for row in rows]):.3f}")
    return rows[: len(prompts)]


def _answered(
    config: BestOfNConfig,
    model: GPT,
    text: Text,
    rewards: Mapping[str, Reward],
    prompts: Sequence[Prompt],
    first: int,
    precision: str,
) -> Iterator[Json]:
    N = config.samples
    numbers = [(first + n << 32) + sample for n in range(len(prompts)) for sample in range(N)]
    written = respond(
        model, prompts, Ending(eot_id=end_of_text(model.config, text.tokenizer)), samples=N,
        max_new_tokens=text.response_tokens, temperature=config.temperature, seed=config.seed, numbers=numbers,
        slots=config.slots, precision=precision,
    )  # fmt: skip
    texts = text.decoded(written.scored)
    contexts = [prompt.query.fields for prompt in prompts for _ in range(N)]
    scores = {name: reward.scores(written.scored, contexts, texts) for name, reward in rewards.items()}
    if config.unended == "score":
        scores["proxy"] = torch.where(torch.tensor(written.ended), scores["proxy"], torch.tensor(config.unended_score))
    for n, prompt in enumerate(prompts):
        here = slice(n * N, (n + 1) * N)
        yield {
            "id": prompt.query.id,
            "query": prompt.query.text,
            "texts": texts[here],
            "ended": written.ended[here],
            "tokens": [len(each.response) for each in written.trained[here]],
            **{name: [round(score, 6) for score in scores_N[here].tolist()] for name, scores_N in scores.items()},
        }


def _keep(config: BestOfNConfig, prompts: Sequence[Prompt], rows: Sequence[Json]) -> str:
    """Writes the best response of each prompt as a row that `rein sft` reads; says how many."""
    lines, dropped = list[str](), Counter[str]()
    for prompt, row in zip(prompts, rows, strict=True):
        best = choice(row["proxy"], row["texts"], row["ended"])
        if best is None:
            dropped["none has an end"] += 1
        elif config.min_score is not None and row["proxy"][best] < config.min_score:
            dropped["below --min-score"] += 1
        else:
            lines.append(_line(_demonstration(prompt.query, row["texts"][best])))
    path = config.out / DEMONSTRATIONS
    write_atomically(path, "".join(lines))
    rest = "".join(f"; {count:,} prompts left out: {why}" for why, count in dropped.items())
    return f"{path}: {len(lines):,} demonstrations{rest}"


def _demonstration(query: Query, text: str) -> Json:
    return {**query.fields, "id": query.id, "split": query.split, "response": text}


# ------------------------------------------------------------------------------------------------------ the page


def _write(config: BestOfNConfig, rows: Sequence[Json], points: Sequence[Point]) -> None:
    about = {"samples": config.samples, "prompts": len(rows), "policy": str(config.policy), "reward": config.reward,
             "gold": config.gold}  # fmt: skip
    write_atomically(config.out / "curve.json", json.dumps(about | {"points": list(map(_point, points))}) + "\n")
    write_atomically(config.out / "curve.html", render(config, rows, points))


def _point(point: Point) -> Json:
    """As JSON, which has no infinity."""
    found: Json = {"n": point.n, "kl_nats": point.kl_nats}
    for name in ("proxy", "proxy_gain", "gold", "gold_gain"):
        estimate: Estimate | None = getattr(point, name)
        if estimate is not None:
            ends = {end: getattr(estimate, end) for end in ("value", "low", "high")}
            found[name] = {end: value if math.isfinite(value) else None for end, value in ends.items()}
    return found


def render(config: BestOfNConfig, rows: Sequence[Json], points: Sequence[Point]) -> str:
    """The page, as HTML. The same rows give the same page, to the byte."""
    own = [(_HERE / name).read_text(encoding="utf-8") for name in ("chart.css", "report.css")]
    style = "\n".join([static("report.css"), static("tables.css"), *own])
    shown = [points[n - 1] for n in shown_sizes(len(points))]
    last, best = points[-1], None
    if config.gold:
        best = max(points, key=lambda point: _known(point.gold).value)
    page: str = _templates().get_template("best_of_n.html").render(
        policy=policy(style), style=Markup(style), title=f"Best of n of {config.policy}",
        model=str(config.policy), reward=config.reward, gold=config.gold, prompts=len(rows), samples=config.samples,
        chart=_chart(points, gains=True), levels=_chart(points, gains=False),
        table=_cells(shown), last=last, best=best, number=number,
        examples=[_example(row) for row in rows[:SHOWN_PROMPTS]], version=__version__,
    )  # fmt: skip
    return page


@cache
def _templates() -> Any:
    return templates(_HERE, finalize=lambda value: visible(value) if type(value) is str else value)


def _known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None, "there is a gold score"
    return estimate


def _chart(points: Sequence[Point], *, gains: bool) -> Chart:
    """Scores over √KL, by the proxy and by the gold, with their intervals as bands."""
    marks, ends, said = list[Mark](), list[float](), list[str]()
    for name, label, colour in (("proxy", "reward that chooses", "c1"), ("gold", "gold", "c0")):
        of = [(math.sqrt(p.kl_nats), getattr(p, f"{name}_gain" if gains else name)) for p in points]
        if of[0][1] is None:
            continue
        if all(math.isfinite(each.low) for _, each in of):
            band = [(x, each.low) for x, each in of] + [(x, each.high) for x, each in reversed(of)]
            marks.append(Mark("", colour, "band", band))
            ends += [y for _, y in band]
        marks.append(Mark(label, colour, "line", [(x, each.value) for x, each in of]))
        ends += [each.value for _, each in of]
        said.append(f"{label} from {number(of[0][1].value)} to {number(of[-1][1].value)}")
    low, high = min(ends), max(ends)
    room = (high - low) * 0.06 or 1.0
    right = math.sqrt(points[-1].kl_nats) or 1.0
    ticks = [(math.sqrt(points[n - 1].kl_nats), str(n)) for n in shown_sizes(len(points)) if n not in (2,)]
    title = "Gain over one sample" if gains else "Score"
    return Chart(
        "gain" if gains else "score", title, "over √KL; the ticks say n", f"{title} by n: {'; '.join(said)}.",
        Axis(0.0, right * 1.04, ticks), linear(low - room, high + room), marks, frame=(480, 280, 48, 28),
    )  # fmt: skip


def _cells(points: Sequence[Point]) -> list[Json]:
    return [
        {"n": point.n, "kl": f"{point.kl_nats:.3f}",
         **{name: "" if (found := getattr(point, name)) is None else _told(found)
            for name in ("proxy", "proxy_gain", "gold", "gold_gain")}}
        for point in points
    ]  # fmt: skip


def _told(estimate: Estimate) -> str:
    if not math.isfinite(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _table(points: Sequence[Point]) -> list[str]:
    cells = _cells([points[n - 1] for n in shown_sizes(len(points))])
    names = ["n", "kl", "proxy", "proxy_gain", *(["gold", "gold_gain"] if points[0].gold else [])]
    heads = {"n": "n", "kl": "KL nats", "proxy": "reward", "proxy_gain": "gain", "gold": "gold", "gold_gain": "gain"}
    return table([[heads[name] for name in names], *([str(row[name]) for name in names] for row in cells)],
                 ">" * len(names))  # fmt: skip


def _example(row: Json) -> Json:
    """A prompt with its best, middling and worst response by the proxy."""
    order = sorted(range(len(row["texts"])), key=lambda n: -row["proxy"][n])
    chosen = dict.fromkeys((order[0], order[len(order) // 2], order[-1]))
    said = [
        {"text": cut(row["texts"][n], 600), "proxy": number(row["proxy"][n]),
         "gold": number(row["gold"][n]) if "gold" in row else ""}
        for n in chosen
    ]  # fmt: skip
    return {"id": row["id"], "query": cut(row["query"], 600), "said": said}


def _line(row: Json) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
