"""`rein eval policies`: what policies answer to the same prompts, and what that is worth.

Flow     NAME=PATH … × prompts → answers, scores, log π / π_ref (policies_answers.py) → policies_measures.py
         a labeling store → policies_people.py;  tasks, held-out text → policies_tax.py
         → OUT/policies.json, OUT/policies.html (policies_page.py), a table

    OUT/
      config.json env.json    the settings; on what
      answers/NAME.jsonl      what each policy answered, prompt by prompt
      policies.json           every number with its interval
      policies.html           the same for people, with texts side by side
      tax/NAME/               the tasks' own results

Source   Stiennon 2020, section 4: win rates against references, at equal length, Likert axes, reward over KL;
         Ouyang 2022, section 4.2: the alignment tax.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rein.errors import UserError, suggestion
from rein.evals.policies_answers import Said, answer, asking, written_already
from rein.evals.policies_config import PoliciesConfig
from rein.evals.policies_measures import measure
from rein.evals.policies_page import lines, render
from rein.evals.policies_people import from_people
from rein.evals.policies_samples import read_samples
from rein.evals.policies_tax import tax
from rein.evals.weights import check_weights
from rein.feedback.draw import BASELINES, REFERENCE
from rein.models.machine import resolve_device, resolve_precision
from rein.run import RunFolder, write_atomically
from rein.text.prompts import PromptFormat, Query, format_of, read_queries

Json = dict[str, Any]
FORMAT = "rein-policies-1"
SHOWN_PROMPTS = 12  # with their texts, on the page


def policies_command(config: PoliciesConfig) -> Path:
    """Asks policies the same prompts, and says what their answers are worth: scores, win rates, ROUGE, KL, habits.

    Every number has a 95% interval over prompts. A win rate stands beside what it would be at equal length. People's
    answers come from a labeling store; its policies go by the names that `rein label draw` gave them. --tax shows what
    training has cost on tasks and on held-out text, against the policy of --against. The same command goes on after
    an interruption: what was answered is kept.

    Examples
      rein eval policies sft=runs/sft ppo=runs/ppo --prompts posts.jsonl --format tldr --judge runs/reward --out evals/a
      rein eval policies sft=runs/sft ppo=runs/ppo --prompts posts.jsonl --format tldr --judge my.module:gold \\
        --reference-policy sft --tax arc_easy piqa --tax-data sets --tax-text data/corpus --out evals/b
      rein eval policies --store labels.db --project tldr --against sft --out evals/people
      rein eval policies --samples instructgpt_tldr_samples.csv --against sft-175b --out evals/released
    """
    paths = config.paths()
    format = format_of(config.format, query_tokens=config.query_tokens, response_tokens=config.response_tokens)
    with RunFolder(config.out, config):
        queries, said = _said(config, paths, format)
        named = [one.name for one in said if one.name != REFERENCE]
        against = config.against or (named[0] if named else "")
        if named and against not in named:
            raise UserError(f"--against is {against!r}, which is no policy here.", suggestion(against, named))
        judges = list(dict.fromkeys(config.judge))
        found = _about(config, against, judges)
        if said:
            left_out = _left_out(said, queries)
            found |= measure(said, queries, judges, against)
            found["left_out"] = dict(left_out)
            found["examples"] = _examples(said, queries)
        if config.store:
            wins, found["likert"] = from_people(config.store, config.project, config.batch, against)
            found["wins"] = [*wins, *found["wins"]]
        if config.tax or config.tax_text is not None:
            found["tax"] = tax(
                paths, against, out=config.out / "tax", tasks=config.tax, data=config.tax_data, limit=config.tax_limit,
                corpus=config.tax_text, documents=config.tax_documents, device=config.device,
                precision=config.precision,
            )  # fmt: skip
        write_atomically(config.out / "policies.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        write_atomically(config.out / "policies.html", render(config.out.name, found))
    print("\n".join(lines(found)))
    print(config.out / "policies.html")
    return config.out


def _about(config: PoliciesConfig, against: str, judges: Sequence[str]) -> Json:
    """What was asked of whom, and places for what may not be there."""
    return {
        "format": FORMAT, "against": against, "judges": judges, "temperature": config.temperature,
        "kl_temperature": config.kl_temperature, "per_prompt": config.per_prompt,
        "reference_policy": config.reference_policy, "source": str(config.samples or config.prompts or ""),
        "project": config.project, "released": config.samples is not None, "prompts": 0, "policies": [], "wins": [],
        "likert": [], "tax": None, "left_out": {}, "examples": [],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- answers


def _said(config: PoliciesConfig, paths: Mapping[str, Path], format: PromptFormat) -> tuple[list[Query], list[Said]]:
    """The prompts, and the answers of everybody: policies, baselines, references."""
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    said = list[Said]()
    there: dict[str, list[Sequence[str] | None]]
    if config.samples is not None:
        queries, texts = read_samples(config.samples)
        queries = queries[: config.n_prompts or None]
        there = {name: some[: len(queries)] for name, some in texts.items()}
    elif config.prompts is not None:
        wanted = (query for query in read_queries(config.prompts, format) if config.split in ("", query.split))
        queries = list(islice(wanted, config.n_prompts or None))
        if not queries:
            raise UserError(f"{config.prompts} has no row of split {config.split!r}.", "Give another --split.")
        check_weights(config.out, paths, config.judge)
        reference = paths.get(config.reference_policy) or (
            Path(config.reference_policy) if config.reference_policy else None
        )
        for name, path in paths.items():
            asked = asking(config, path, reference, format, device, precision)
            said.append(answer(config, name, asked, queries, str(path)))
        there = {name: [[BASELINES[name](query.fields)] for query in queries] for name in config.baseline}
    else:
        return [], []
    if any(query.reference for query in queries):
        there[REFERENCE] = [
            [query.reference.removeprefix(format.lead)] if query.reference else None for query in queries
        ]
    said += [
        written_already(
            name, some, queries, list(dict.fromkeys(config.judge)), format, device=device, precision=precision,
            about="references" if name == REFERENCE else "released" if config.samples else "baseline",
        )
        for name, some in there.items()
    ]  # fmt: skip
    if not set[int].intersection(*(set(one.places()) for one in said if one.name != REFERENCE)):
        why = "; ".join(f"{reason}: {n:,}" for reason, n in _left_out(said, queries).items())
        raise UserError(f"No prompt was answered by all policies ({why}).",
                        "Give other prompts, or lower --response-tokens.")  # fmt: skip
    return queries, said


def _left_out(said: Sequence[Said], queries: Sequence[Query]) -> Counter[str]:
    """Why prompts have no answer of somebody, and how many."""
    found: Counter[str] = Counter()
    for at in range(len(queries)):
        why = [f"{one.name}: {one.rows[at].get('why') or 'no text'}" for one in said
               if one.name != REFERENCE and one.rows[at]["texts"] is None]  # fmt: skip
        found.update(why[:1])
    return found


def _examples(said: Sequence[Said], queries: Sequence[Query]) -> list[Json]:
    """The first prompts that all answered, with a text of each."""
    models = [one for one in said if one.name != REFERENCE]
    shared = sorted(set[int].intersection(*(set(one.places()) for one in models)))
    return [
        {
            "id": queries[at].id, "query": queries[at].text,
            "texts": [
                {
                    "policy": one.name, "text": one.rows[at]["texts"][0],
                    "scores": {spec: scores[0] for spec, scores in one.rows[at]["scores"].items()},
                    "ended": one.rows[at].get("ended", [True])[0],
                }
                for one in said if one.rows[at]["texts"]
            ],
        }
        for at in shared[:SHOWN_PROMPTS]
    ]  # fmt: skip
