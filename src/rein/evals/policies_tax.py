"""What training from feedback has cost: scores on the papers' tasks, and how well held-out text is foretold.

Flow     policies × tasks → evaluate.py → compare.py: each policy less the one it began from, on the same problems
         policies × documents of a corpus → nats and bytes → bits per byte, and their difference, over documents

Source   Ouyang 2022, sections 4.2 and App. E.6 (the alignment tax); Miller 2024 (paired differences).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.evals.compare import compare
from rein.evals.data import Data
from rein.evals.evaluate import evaluate, scored
from rein.evals.language_model import Ours
from rein.evals.perplexity import score_text
from rein.evals.policies_measures import told
from rein.evals.responses import Responses
from rein.evals.results import finite, load
from rein.evals.statistics import Difference, paired_whole, whole
from rein.evals.tasks.table import expand
from rein.evals.tasks.table import load as load_task
from rein.run import read_rows, write_atomically
from rein.text.shards import Shards

Json = dict[str, Any]
PROTOCOL = "gpt3"


def tax(
    paths: Mapping[str, Path],
    against: str,
    *,
    out: Path,
    tasks: Sequence[str],
    data: Sequence[Path],
    limit: int | None,
    corpus: Path | None,
    documents: int,
    device: str,
    precision: str,
) -> Json:
    """Tasks and text for every policy, and the difference to the policy `against`.

    Raises   UserError where no task could be evaluated, or there is no such corpus.
    """
    names = [against, *(name for name in paths if name != against)]
    read = None if corpus is None else _documents(corpus, documents)
    folders, skipped, rows = dict[str, Path](), dict[str, str](), dict[str, npt.NDArray[np.float64]]()
    for name in names:
        model = Ours.load(paths[name], device=device, precision=precision)
        model.name = name
        if tasks:
            folders[name] = out / name
            with Responses(out / "responses.sqlite") as kept:
                found = evaluate(
                    model, [load_task(PROTOCOL, task) for task in expand(PROTOCOL, tasks)], data=Data(tuple(data)),
                    responses=kept, out=folders[name], protocol=PROTOCOL, limit=limit,
                )  # fmt: skip
            skipped |= {one["task"]: one["reason"] for one in found["skipped"]}
            if not scored(found):
                failed = {entry["task"]: one["reason"] for entry in found["tasks"] for one in entry["failed"][:1]}
                reasons = "; ".join(f"{task}: {reason}" for task, reason in list((skipped | failed).items())[:3])
                raise UserError(
                    f"No task of --tax could be evaluated: {reasons}",
                    "`rein eval tasks NAME` says which files below --tax-data a task reads.",
                )
        if read is not None:
            rows[name] = _nats(model, read, out / name / "text.jsonl")
    return {
        "against": against,
        "tasks": _compared(names, folders) if tasks else [],
        "skipped": [{"task": task, "reason": reason} for task, reason in skipped.items()],
        "text": [_bits(name, rows[name], rows[against]) for name in rows],
    }


# ------------------------------------------------------------------------------------------------------------ tasks


def _compared(names: Sequence[str], folders: Mapping[str, Path]) -> list[Json]:
    evaluations = load([folders[name] for name in names])
    found: list[Json] = [
        {
            "policy": evaluations[0].name, "task": entry.task, "title": entry.title, "metric": entry.metric,
            "unit": entry.unit, "better": entry.better, "k": row.k, "n": row.n, "score": row.value,
            "low": finite(row.low), "high": finite(row.high), "difference": None, "verdict": "",
        }
        for entry in evaluations[0].deciding.values() for row in entry.rows[-1:]
    ]  # fmt: skip
    titles = {row["task"]: row["title"] for row in found}
    for one in compare(evaluations)[0] if len(evaluations) > 1 else ():
        found.append(
            {
                "policy": one.model, "task": one.task, "title": titles.get(one.task, one.task), "metric": one.metric,
                "unit": one.unit, "better": one.better, "k": one.k, "n": one.difference.n, "score": one.score,
                "low": None, "high": None, "difference": _told(one.difference) | {"p_holm": one.p_holm},
                "verdict": one.verdict,
            }
        )  # fmt: skip
    order = {task: at for at, task in enumerate(titles)}
    return sorted(found, key=lambda row: order.get(row["task"], len(order)))


def _told(difference: Difference) -> Json:
    return {name: finite(value) for name, value in asdict(difference).items()}


# ------------------------------------------------------------------------------------------------------------- text


def _documents(corpus: Path, most: int) -> list[str]:
    """The first documents of the held-out split, as text: policies may have other tokenizers than the corpus.

    Raises   UserError where there is no such corpus or split.
    """
    shards, tokenizer = Shards(corpus, "heldout"), load_tokenizer(corpus)
    ids = (shards.document(n)[:-1] for n in range(min(most, shards.n_documents)))
    return [text for each in ids if (text := tokenizer.decode(each))]


def _nats(model: Ours, texts: Sequence[str], path: Path) -> npt.NDArray[np.float64]:
    """−log P and UTF-8 bytes of each document: (documents, 2)."""
    rows = [(float(row["nats"]), float(row["bytes"])) for row in read_rows(path)]
    if len(rows) != len(texts):
        scores = [score_text(model.model, model.tokenizer, text, precision=model.precision) for text in texts]
        rows = [(score.nats, float(score.n_bytes)) for score in scores]
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"nats": nats, "bytes": int(n_bytes)}) + "\n" for nats, n_bytes in rows]
        write_atomically(path, "".join(lines))
    return np.array(rows)


def bits_per_byte(rows_N2: npt.NDArray[np.float64]) -> float:
    """Of documents together: Σ nats / ln 2 / Σ bytes.

    Example  >>> round(bits_per_byte(np.array([[0.6931, 1.0], [2.0794, 1.0]])), 3)
             2.0
    """
    nats, n_bytes = rows_N2.sum(0)
    return float(nats / math.log(2) / n_bytes)


def _bits(name: str, rows_N2: npt.NDArray[np.float64], base_N2: npt.NDArray[np.float64]) -> Json:
    same = rows_N2 is base_N2
    difference = None if same else _told(paired_whole(rows_N2, base_N2, bits_per_byte))
    return {
        "policy": name, "documents": len(rows_N2), "bytes": int(rows_N2[:, 1].sum()),
        "bits_per_byte": told(whole(rows_N2, bits_per_byte)), "difference": difference,
    }  # fmt: skip
