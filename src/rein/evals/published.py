"""The papers' own scores, to be printed beside ours.

Flow     published/*.csv, as the papers print them → paper, task, metric, setting → {size: score}
         parameters → the size in the paper that is nearest

    gpt3_table_h1.csv   Brown 2020 Table H.1: 63 rows × zero-, one- and few-shot × 8 sizes, and the test servers
    gpt3_text.csv       Brown 2020 §3.1: what the text says and the table does not
    gpt3_table_c1.csv   Brown 2020 Table C.1: how clean the evaluation sets are
    gpt2.csv            Radford 2019 Table 3, Table 4, §3.3 to §3.8
    gpt2_others.csv     what stands beside GPT-2 there: the best before it, and systems that need no model
    gpt1.csv            Radford 2018 Tables 2 to 5

An empty cell is a number that the paper does not give. What is known to be odd about a number is its `note`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("published")

# Parameters of each size, as the paper prints them.
SIZES: dict[str, dict[str, float]] = {
    "gpt1": {"117M": 117e6},
    "gpt2": {"117M": 117e6, "345M": 345e6, "762M": 762e6, "1542M": 1542e6},
    "gpt3": {
        "Small": 125e6,
        "Medium": 350e6,
        "Large": 760e6,
        "XL": 1.3e9,
        "2.7B": 2.7e9,
        "6.7B": 6.7e9,
        "13B": 13e9,
        "175B": 175e9,
    },
}

# A metric of metrics.py or scores.py → what the papers print for it, where they name it otherwise.
PRINTED = {
    "accuracy": "acc",
    "exact_match": "acc",
    "em_triviaqa": "acc",
    "multirc_accuracy": "acc",
    "wsc_accuracy": "acc",
    "record_em": "acc",
    "lambada_last_token": "acc",
    "lambada_last_word": "acc without filter",
    "lambada_filtered": "acc with stop-word filter",
    "f1_drop": "f1",
    "f1_coqa": "f1",
    "f1_quac": "f1",
    "f1_squad": "f1",
    "record_f1": "f1",
    "macro_f1": "f1",
    "em_squad": "em",
    "perplexity": "ppl",
    "perplexity_last_token": "ppl",
    "bits_per_byte": "bpb",
    "bits_per_character": "bpc",
    "bleu_sb": "BLEU-sb",
    "bleu_mb": "BLEU-mb",
    "rouge1": "R-1",
    "rouge2": "R-2",
    "rougeL": "R-L",
    "rouge_average": "R-AVG",
}

NEAR = 1.5  # two models are of one size where neither has more than this times the other's parameters


# ------------------------------------------------------------------------------------------------ scores


def numbers(paper: str, task: str, metric: str, setting: str = "zero") -> dict[str, float]:
    """The paper's scores by size, as it prints them (percentages as such); empty where it has none.

    Settings are those of the paper: for GPT-3 "zero", "one", "few" and "test server" (few-shot, on labels that nobody
    has), for GPT-2 "zero", and "few" where its prompt begins with examples; for GPT-1 "fine-tuned", "no pre-training",
    "no auxiliary LM" and "LSTM".

    Example  >>> numbers("gpt3", "HellaSwag", "accuracy", "few")["Small"]
             33.5
             >>> numbers("gpt2", "WikiText-2", "perplexity")
             {'117M': 29.41, '345M': 22.76, '762M': 19.93, '1542M': 18.34}
             >>> numbers("gpt2", "PIQA", "accuracy")
             {}
    """
    return dict(_scores(paper).get((task, _printed(paper, metric), setting), {}))


def others(paper: str, task: str, metric: str) -> dict[str, float]:
    """Scores that the paper prints beside its own, by system.

    Example  >>> others("gpt2", "CNN/DM", "rouge1")["Lede-3"]
             40.38
    """
    found = (row for row in _rows("gpt2_others.csv") if paper == "gpt2" and row["task"] == task)
    return {row["system"]: float(row["score"]) for row in found if row["metric"] == _printed(paper, metric)}


def fraction(metric: str, score: float) -> float:
    """A printed score in the units of ours: percentages become fractions; the rest stays as it is.

    What is no metric of ours is a percentage, as all are that GPT-1's tasks are scored by.

    Example  >>> fraction("f1_coqa", 55.0), fraction("bleu_sb", 25.2), fraction("perplexity", 18.6)
             (0.55, 25.2, 18.6)
    """
    from rein.evals.metrics import METRICS  # here, for a page of figures is wanted without the packages that it needs

    known = METRICS.get(metric)
    return score if known is not None and known.unit != "%" else score / 100


# ------------------------------------------------------------------------------------------------- sizes


def nearest(paper: str, n_params: float) -> str:
    """The paper's size that is nearest in log parameters.

    Example  >>> nearest("gpt3", 124_439_808), nearest("gpt2", 20e6)
             ('Small', '117M')
    """
    assert n_params > 0, f"n_params is {n_params}, which is no model"
    return min(SIZES[paper], key=lambda name: abs(math.log(SIZES[paper][name] / n_params)))


# ------------------------------------------------------------------------------------------------- notes


def note(paper: str, task: str, metric: str, setting: str = "zero", size: str = "") -> str:
    """What is odd about a published number, in a sentence or more; "" where nothing is known.

    Example  >>> note("gpt3", "WiC", "accuracy", "zero", "XL")
             'Printed as 0, which choosing between the answers cannot give: not to be held to.'
    Source   Brown 2020 Tables C.1, H.1; Radford 2019 §3.3.
    """
    about = {"gpt1": _about_gpt1, "gpt2": _about_gpt2, "gpt3": _about_gpt3}[paper]
    return " ".join(about(task, metric, setting, size))


def _about_gpt1(task: str, metric: str, setting: str, size: str) -> Iterator[str]:
    if task == "StoryCloze":
        yield "The paper's is one run; its authors' released code gives 85.8 as the median of 10."


def _about_gpt2(task: str, metric: str, setting: str, size: str) -> Iterator[str]:
    printed = _printed("gpt2", metric)
    if task == "LAMBADA" and printed == "acc with stop-word filter" and size in ("1542M", ""):
        yield "The paper's own account: 52.66 without a stop-word filter, 63.24 with it."
    if task == "LAMBADA" and printed in ("acc", "ppl", "acc with stop-word filter"):
        yield LAST_TOKEN
    if task == "NQs":
        yield "The smallest size answers no more than 1.0% rightly."


def _about_gpt3(task: str, metric: str, setting: str, size: str) -> Iterator[str]:
    if task == "LAMBADA" and setting == "zero":
        yield LAST_TOKEN
    if setting == "zero" and (task == "WiC" or (task == "CB" and size == "Small")):
        yield "Printed as 0, which choosing between the answers cannot give: not to be held to."
    if setting in ("one", "few") and size == "Small" and _same("one", "few", task, metric, size):
        yield "The paper prints one number for one and few shots of its smallest model: hold to zero-shot."
    if setting in ("zero", "one") and task == "MultiRC":
        yield "The paper prints one number for zero and one shot at every size."
    if setting == "few" and task in FITTING:
        yield f"The paper's 32 examples do not fit into 2,048 tokens{FITTING[task]}."
    if setting == "few" and size == "175B" and (other := OTHER_DRAW.get((task, _printed("gpt3", metric)))):
        yield f"Table C.1 has {other} for it, with another draw of the examples."
    if task in SCORED:
        yield f"Measured on {SCORED[task]}."


LAST_TOKEN = "By the last token of a word, as it has been reproduced; whole words give less."
FITTING = {
    "BoolQ": ": about 14 do",
    "CB": ": about 21 do",
    "RTE": ": about 25 do",
    "MultiRC": "",
    "ReCoRD": "",
}
OTHER_DRAW = {("CoQA", "f1"): 86.0, ("COPA", "acc"): 93.0, ("WSC", "acc"): 76.9, ("CB", "acc"): 80.4}
SCORED = {"ARC-Easy": "2,268 of the 2,376 questions", "ARC-Challenge": "1,144 of the 1,172 questions"}


# --------------------------------------------------------------------------------------- Brown 2020 Table C.1


@dataclass(frozen=True)
class Overlap:
    """What Table C.1 says of a task: its N, how many examples, the part without any overlap, and what that changes."""

    n: int  # words of an N-gram
    examples: int | None
    clean: float  # part of the examples, in [0, 1]
    relative_change: float  # (score of the clean ones − score of all) / score of all


@cache
def overlaps() -> dict[str, Overlap]:
    """Table C.1 by task, under the names of Table H.1.

    Example  >>> overlaps()["DROP"]
             Overlap(n=13, examples=9536, clean=0.07, relative_change=-0.21)
    Source   Brown 2020 Table C.1.
    """
    return {
        row["task"]: Overlap(
            int(row["n"]),
            int(row["examples"]) if row["examples"] else None,
            int(row["clean"]) / 100,
            int(row["relative_change"]) / 100,
        )
        for row in _rows("gpt3_table_c1.csv")
    }


# ------------------------------------------------------------------------------------------------ inside


@cache
def _scores(paper: str) -> dict[tuple[str, str, str], dict[str, float]]:
    """(task, printed metric, setting) → {size: score}."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    files = {"gpt1": ("gpt1.csv",), "gpt2": ("gpt2.csv",), "gpt3": ("gpt3_table_h1.csv", "gpt3_text.csv")}[paper]
    for row in (row for name in files for row in _rows(name)):
        key = row["task"], row["metric"], row["setting"]
        found[key] = {size: float(row[size]) for size in SIZES[paper] if row[size]}
        if server := row.get("175B test server"):
            found[row["task"], row["metric"], "test server"] = {"175B": float(server)}
    return found


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _printed(paper: str, metric: str) -> str:
    """What the paper calls a metric of ours. GPT-2's BLEU is one number, without a word of which BLEU it is."""
    if paper == "gpt2" and metric in ("bleu_sb", "bleu_mb"):
        return "BLEU"
    return PRINTED.get(metric, metric)


def _same(one: str, other: str, task: str, metric: str, size: str) -> bool:
    score = numbers("gpt3", task, metric, one).get(size)
    return score is not None and score == numbers("gpt3", task, metric, other).get(size)
