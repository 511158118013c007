"""What `rein demo` came to: from the files of its stages to a table, a few texts side by side, and one page.

Flow     pretrain/metrics.jsonl, loop/round-01, best-of-n/, eval/answers/ → `read_result` → `as_text`, `write_page`

The true score is the gold score that simulated labelers judged by. Gains are paired: both models answered the same
prompts, and a prompt with its samples is one cluster of the interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rein import __version__, evals
from rein.evals.results import finite
from rein.evals.statistics import paired
from rein.loop.timeline import PAGE, read_rounds
from rein.progress import duration
from rein.report.legible import cut, percent, table, visible
from rein.report.parts import policy, static, templates
from rein.run import read_rows, write_atomically

Json = Any
Told = Mapping[str, Json]  # {"value", "low", "high"}
GOLD = "rein.text.gold:gold"
SFT, PPO, REFERENCES = "sft", "ppo", "ref"
EVALUATION, BEST_OF_N = "eval", "best-of-n"  # folders of --out
DEMO_PAGE = "demo.html"
SHOWN = 4  # prompts with their texts in the terminal; more are on the page
POST_CHARS, TEXT_CHARS = 600, 400


@dataclass(frozen=True)
class Model:
    """One line of the table."""

    name: str
    score: Told
    gained: Told | None = None  # over the supervised model
    wins: Told | None = None  # over it, by the same score
    kl_nats: float | None = None
    tokens: float | None = None  # of a response


@dataclass(frozen=True)
class Result:
    """All numbers of a demo."""

    prompts: int
    samples: int  # of each to each prompt
    models: Sequence[Model]
    heldout: tuple[Mapping[str, float], Mapping[str, float]]  # first and last row of the pre-training's
    comparisons: int
    agreement: Told | None  # of labelers
    accuracy: Told | None  # of the reward model on held-out pairs
    length_accuracy: Told | None
    over_supervised: Told | None  # how often labelers prefer PPO's answer
    findings: Sequence[str]  # what PPO changed in how it writes
    episodes: int
    texts: Sequence[Mapping[str, Json]]


def reward_run(out: Path) -> Path:
    """The run of the reward model."""
    return out / "loop" / "round-01" / "reward" / "run"


def read_result(out: Path) -> Result:
    """The numbers of a demo that is done, from its files alone."""
    held = [row for row in read_rows(out / "pretrain" / "metrics.jsonl") if "heldout_loss" in row]
    (this,) = read_rounds(out / "loop")[:1]
    found = json.loads((out / EVALUATION / "policies.json").read_text(encoding="utf-8"))
    answers = {name: list(read_rows(out / EVALUATION / "answers" / f"{name}.jsonl")) for name in (SFT, PPO)}
    return Result(
        prompts=found["prompts"],
        samples=found["per_prompt"],
        models=_models(out, found, answers),
        heldout=(held[0], held[-1]),
        comparisons=this.of("collect", "answers"),
        agreement=this.of("collect", "agreement"),
        accuracy=this.of("reward", "accuracy"),
        length_accuracy=this.of("reward", "length_accuracy"),
        over_supervised=this.of("evaluation", "over_initial", "raw"),
        findings=next(one["findings"] for one in found["policies"] if one["name"] == PPO),
        episodes=this.of("policy", "episodes"),
        texts=[_side_by_side(one) for one in found["examples"]],
    )


def _models(out: Path, found: Json, answers: Mapping[str, list[Json]]) -> list[Model]:
    """The supervised model, the best of its samples by the reward model, PPO, and what people wrote."""
    measured = {one["name"]: one for one in found["policies"]}
    wins = {one["policy"]: one["raw"] for one in found["wins"] if one["by"] == GOLD and one["against"] == SFT}
    curve = json.loads((out / BEST_OF_N / "curve.json").read_text(encoding="utf-8"))
    best = curve["points"][-1]
    models = [
        Model("supervised", measured[SFT]["scores"][GOLD], kl_nats=0.0, tokens=_tokens(measured[SFT])),
        Model(f"best of {best['n']}", best["gold"], best["gold_gain"], None, best["kl_nats"]),
        Model(
            "PPO", measured[PPO]["scores"][GOLD], gained(answers[PPO], answers[SFT]), wins.get(PPO),
            measured[PPO]["kl_nats"]["value"], _tokens(measured[PPO]),
        ),
    ]  # fmt: skip
    if REFERENCES in measured:
        models.append(Model("people", measured[REFERENCES]["scores"][GOLD]))
    return models


def gained(ours: Sequence[Json], theirs: Sequence[Json]) -> Told:
    """How much higher one model scores than another on the prompts that both answered, sample by sample.

    Example  >>> ours, theirs = ([{"id": id, "scores": {GOLD: [score]}} for id in "abc"] for score in (1.0, 0.5))
             >>> gained(ours, theirs)["value"]
             0.5
    """
    a, b, clusters = list[float](), list[float](), list[str]()
    for one, other in zip(ours, theirs, strict=True):
        if one.get("scores") and other.get("scores"):
            a += one["scores"][GOLD]
            b += other["scores"][GOLD]
            clusters += [one["id"]] * len(one["scores"][GOLD])
    found = paired(a, b, clusters, bounded=False)
    return {"value": found.value, "low": finite(found.low), "high": finite(found.high), "n": found.n}


def _tokens(one: Json) -> float:
    return float(one["lengths"]["tokens"]["value"])


def _side_by_side(one: Json) -> Json:
    """A prompt with a text of each, and its true score."""
    name, _, post = one["query"].partition("\n\n")
    texts = {each["policy"]: each for each in one["texts"]}
    return {
        "name": name, "post": post.removesuffix("\n\nTL;DR:"),
        **{key: (texts[key]["text"], texts[key]["scores"][GOLD]) for key in (SFT, PPO, REFERENCES) if key in texts},
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ in a terminal


def as_text(out: Path, result: Result) -> list[str]:
    """The table, what stands behind it, and texts side by side."""
    first, last = result.heldout
    lines = [
        f"held-out text     {first['heldout_bits_per_byte']:.3f} → {last['heldout_bits_per_byte']:.3f} bits per byte "
        f"after {last['tokens']:,} tokens in {duration(last['wall_s'])}",
        f"comparisons       {result.comparisons:,} by simulated labelers, who agree with each other on "
        f"{_share(result.agreement)}",
        f"reward model      right on {_share(result.accuracy)} of held-out comparisons; length alone on "
        f"{_share(result.length_accuracy)}",
        f"PPO               {result.episodes:,} episodes; labelers prefer its answers to the supervised model's in "
        f"{_share(result.over_supervised)}",
        *(f"                  {words}" for words in result.findings),
        "",
        f"the true score of answers to {result.prompts} held-out docstrings, from −2 to 2 "
        f"({result.samples} samples each; 95% intervals over docstrings)",
        *table([HEADS, *map(_cells, result.models)], "<>>>>>"),
    ]
    names = ((SFT, "supervised"), (PPO, "PPO"), (REFERENCES, "people"))
    for one in result.texts[:SHOWN]:
        lines += ["", f"  {visible(one['name'], 90)}"]
        lines += [
            f"    {score:+.2f}  {name:<11}{' '.join(visible(text, 110).split())}"
            for key, name in names if key in one
            for text, score in [one[key]]
        ]  # fmt: skip
    return lines


HEADS = ("", "true score", "gained", "wins", "KL, nats", "tokens")


def _cells(model: Model) -> tuple[str, ...]:
    return (
        model.name, _between(model.score), "" if model.gained is None else _between(model.gained, "+.2f"),
        "" if model.wins is None else percent(model.wins["value"]), "" if model.kl_nats is None else
        f"{model.kl_nats:.2f}", "" if model.tokens is None else f"{model.tokens:.1f}",
    )  # fmt: skip


def _between(one: Told, form: str = ".2f") -> str:
    if one["low"] is None or one["high"] is None:
        return f"{one['value']:{form}}"
    return f"{one['value']:{form}} ({one['low']:{form}} to {one['high']:{form}})"


def _share(one: Told | None) -> str:
    if one is None or one.get("value") is None:
        return "an unknown share"
    if one.get("low") is None:
        return percent(one["value"])
    return f"{percent(one['value'])} ({percent(one['low'])} to {percent(one['high'])})"


# ------------------------------------------------------------------------------------------------------------ a page


def write_page(out: Path, result: Result) -> Path:
    """Writes OUT/demo.html: the line from text to PPO with links to each stage's own page; returns its path."""
    style = _style()
    ppo = next(model for model in result.models if model.name == "PPO")
    assert ppo.gained is not None, "PPO is compared with the supervised model"
    page = templates(_HERE, finalize=_shown).get_template(DEMO_PAGE).render(
        policy=policy(style), style=Markup(style), version=__version__, title=out.resolve().name,
        gained=f"{ppo.gained['value']:+.2f}", gained_between=_between(ppo.gained, "+.2f").partition(" ")[2].strip("()"),
        rows=[_cells(model) for model in result.models], heads=HEADS, result=result,
        agreement=_share(result.agreement), accuracy=_share(result.accuracy), length=_share(result.length_accuracy),
        over=_share(result.over_supervised), stages=_stages(out, result), store=str(out / "loop" / "labels.db"),
        texts=[{**one, "post": cut(one["post"], POST_CHARS)} for one in result.texts], names=_NAMES,
        text_chars=TEXT_CHARS,
    )  # fmt: skip
    write_atomically(out / DEMO_PAGE, page)
    return out / DEMO_PAGE


_NAMES = ((SFT, "Supervised model"), (PPO, "PPO"), (REFERENCES, "People"))


def _stages(out: Path, result: Result) -> list[Json]:
    """The line, a stage each: what it made of what, and the pages that tell more, as paths below --out."""
    first, last = result.heldout
    policy_page = f"loop/round-01/policy/run/{REPORT}"
    told = [
        ("Text", "The documentation of the installed Python and its packages, as tokens.",
         {"corpus": f"corpus/{REPORT}"}),
        ("Pre-training", f"A GPT read {last['tokens']:,} tokens: {first['heldout_bits_per_byte']:.3f} → "
         f"{last['heldout_bits_per_byte']:.3f} bits per byte of held-out text.", {"run": f"pretrain/{REPORT}"}),
        ("Supervised start", "It learned to answer a docstring with its summary line.", {"run": f"sft/{REPORT}"}),
        ("Comparisons", f"{result.comparisons:,} answers of simulated labelers, through the labeling server. They "
         f"agree with each other on {_share(result.agreement)}.", {"timeline": f"loop/{PAGE}"}),
        ("Reward model", f"Right on {_share(result.accuracy)} of held-out comparisons; length alone on "
         f"{_share(result.length_accuracy)}.", {"run": f"loop/round-01/reward/run/{REPORT}"}),
        ("PPO", f"{result.episodes:,} episodes. Labelers prefer its answers to the supervised model's in "
         f"{_share(result.over_supervised)}.", {"run": policy_page}),
        ("Measured", "By the true score, which no model has seen.",
         {"policies": f"{EVALUATION}/policies.html", "best of n": f"{BEST_OF_N}/curve.html"}),
    ]  # fmt: skip
    return [
        {"name": name, "said": said, "links": {word: path for word, path in links.items() if (out / path).exists()}}
        for name, said, links in told
    ]


REPORT = "report.html"
_HERE = Path(__file__).parent
_EVALS = Path(str(evals.__file__)).parent


def _shown(value: Any) -> Any:
    """Every text that the template writes, as it may stand on a page."""
    return visible(value) if type(value) is str else value


@cache
def _style() -> str:
    own = (_HERE / "demo.css").read_text(encoding="utf-8")
    return "\n".join([static("report.css"), static("tables.css"), own])
