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
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rein.config import flag_of, setting
from rein.errors import UserError, suggestion
from rein.evals.policies_answers import Said, answer, asking, written_already
from rein.evals.policies_measures import measure
from rein.evals.policies_page import lines, render
from rein.evals.policies_people import from_people
from rein.evals.policies_samples import read_samples
from rein.evals.policies_tax import tax
from rein.feedback.draw import BASELINES, REFERENCE
from rein.feedback.policies import Policies
from rein.models.machine import resolve_device, resolve_precision
from rein.run import RunFolder, write_atomically
from rein.text.prompts import PromptFormat, Query, format_of, read_queries

Json = dict[str, Any]
FORMAT = "rein-policies-1"
SHOWN_PROMPTS = 12  # with their texts, on the page
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class PoliciesConfig:
    """Settings of `rein eval policies`."""

    out: Path = setting(help="folder for answers, numbers and page; the same command continues it")
    policies: tuple[str, ...] = setting(
        (), "NAME=PATH of a run, a checkpoint or a model folder, as sft=runs/sft ppo=runs/ppo", positional=True
    )
    prompts: Path | None = setting(None, 'JSON lines: {"prompt": …} or a format\'s fields; "reference", "split", "id"')
    samples: Path | None = setting(
        None, "instead of policies and prompts: a CSV file of texts that were released, with the columns model_type, "
        "context, ref_text, sample",
    )  # fmt: skip
    baseline: tuple[str, ...] = setting((), f"of {', '.join(BASELINES)}: answers that need no model")
    against: str = setting("", "the policy that the others are compared with; the first one if not given")
    format: str = setting("plain", "how a row becomes a query: plain, tldr, cnndm, instruct, chat, docstring")
    query_tokens: int | None = setting(None, "longest query, in place of the format's", unit="tokens")
    response_tokens: int | None = setting(
        None, "longest response, its end of text included, in place of the format's", unit="tokens"
    )
    split: str = setting("", "only rows of this split")
    n_prompts: int = setting(0, "the first so many prompts; 0: all")
    per_prompt: int = setting(1, "answers of each policy to each prompt")
    temperature: float = setting(0.0, "of the answers; 0: the likeliest token", paper="0; in its code 0.01")
    seed: int = setting(0, "of the samples")

    judge: tuple[str, ...] = setting(
        (), "who says which is better: a run of `rein reward`, or (context, text) as package.module:Name; several are "
        "shown beside each other", group="judges",
    )  # fmt: skip
    reference_policy: str = setting("", "a policy's name, or a path: the KL is measured from it", group="judges")
    kl_temperature: float = setting(1.0, "of the samples that the KL is measured on, and of both models there",
                                    group="judges")  # fmt: skip
    store: str = setting("", "a labeling store: what people said of these policies", group="judges")
    project: str = setting("", "of the store", group="judges")
    batch: tuple[str, ...] = setting((), "of the project; without it, all", group="judges")

    tax: tuple[str, ...] = setting((), "tasks of `rein eval`, to see what training has cost", group="tax")
    tax_data: tuple[Path, ...] = setting((), "folders or files with their sets", group="tax")
    tax_limit: int | None = setting(None, "at most so many problems of each task", unit="problems", group="tax")
    tax_text: Path | None = setting(None, "a corpus: bits per byte of its held-out split", group="tax")
    tax_documents: int = setting(100, "of that text, the first ones", unit="documents", group="tax")

    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting("fp32", "of the matrix products", group="machine")
    tokens_at_once: int = setting(8192, "in one forward pass", unit="tokens", group="machine")
    slots: int = setting(64, "responses that are written side by side", group="machine", may_change=True)

    def __post_init__(self) -> None:
        for name in ("per_prompt", "kl_temperature", "tokens_at_once", "slots", "tax_documents"):
            if getattr(self, name) <= 0:
                flag = flag_of(name)
                raise UserError(f"{flag} is {getattr(self, name)}, but it must be above 0.", f"Raise {flag}.")
        for name in ("temperature", "n_prompts"):
            if getattr(self, name) < 0:
                raise UserError(f"{flag_of(name)} is {getattr(self, name)}, but it must be 0 or more.", "Use 0.")
        if self.per_prompt > 1 and self.temperature == 0:
            raise UserError(
                f"--per-prompt is {self.per_prompt}, but at --temperature 0 all answers to a prompt are the same.",
                "Use --per-prompt 1, or a --temperature such as 0.7.",
            )
        for name in self.baseline:
            if name not in BASELINES:
                raise UserError(f"There is no baseline {name!r}.", suggestion(name, BASELINES))
        self._check_sources(self.paths())

    def _check_sources(self, paths: Mapping[str, Path]) -> None:
        if self.samples is not None and (paths or self.prompts or self.baseline):
            raise UserError("--samples has texts and prompts of its own, and others are given.",
                            "Leave policies, --prompts and --baseline out, or --samples.")  # fmt: skip
        if bool(paths) != (self.prompts is not None):
            raise UserError(
                "Policies are given without --prompts." if paths else "--prompts is given without policies.",
                "Give both, like: rein eval policies sft=runs/sft --prompts posts.jsonl --out evals/sft",
            )
        if not paths and self.samples is None and not self.store:
            raise UserError("There is nothing to evaluate.", "Give policies and --prompts, --samples, or --store.")
        for flag, given in (
            ("--reference-policy", self.reference_policy), ("--tax", self.tax), ("--tax-text", self.tax_text)
        ):  # fmt: skip
            if given and not paths:
                raise UserError(f"{flag} needs models, and no policies are given.", "Give policies as NAME=PATH.")
        if bool(self.store) != bool(self.project):
            raise UserError("--store and --project belong together, and one is missing.", "Give both, or neither.")
        known = [*paths, *self.baseline]
        if self.against and paths and self.against not in known:
            raise UserError(f"--against is {self.against!r}, which is no policy here.", suggestion(self.against, known))
        if (self.tax or self.tax_text) and self.against in self.baseline:
            raise UserError(f"--against is {self.against}, but only a model has an alignment tax.", "Name a policy.")

    def paths(self) -> dict[str, Path]:
        """The models, by name."""
        found: dict[str, Path] = {}
        for text in self.policies:
            name, equals, path = text.partition("=")
            if not (equals and path and _NAME.fullmatch(name)) or name in (REFERENCE, *BASELINES):
                raise UserError(
                    f"{text!r} is no policy.", "Write a name of letters and digits, = and a path: ppo=runs/ppo."
                )
            if name in found:
                raise UserError(f"{name!r} is named twice.", "Give each policy a name of its own.")
            found[name] = Path(path)
        return found


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
        _check_weights(config, paths)
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


def _check_weights(config: PoliciesConfig, paths: Mapping[str, Path]) -> None:
    """Raises UserError where a policy or a judge has other weights than when the folder's answers were written."""
    known = Policies(paths)
    now = known.fingerprints() | {spec: known.scorer(spec) for spec in config.judge}
    path = config.out / "weights.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{changed[0]} has other weights now than when {config.out} began.",
            "Choose another --out; name one checkpoint where a run goes on.",
        )
    write_atomically(path, json.dumps(now, indent=1) + "\n")


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
