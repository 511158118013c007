"""`rein label draw`: items to label, drawn from policies: models, references and baselines, in the shares asked for.

Flow     prompts (JSON lines) × a mixture of groups ("current:initial" for 0.4 of the items, …) → `Plan`s: who answers
         which prompt → texts (policies.py) → items whose candidates carry the names of their policies → the store
Source   Stiennon 2020, Appendix C: the current policy, initial policies, references and baselines, best-of-N samples;
         Ouyang 2022, section 3.4: K = 4 to 9 outputs of a prompt, ranked together.

The same command goes on where it was: an item's key comes from what it was drawn from (prompt, group, policies'
weights, sampling), so those that the store has already are not written again, and no text is generated for them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.feedback import tables
from rein.feedback.exchange.seen import HOW, seen_of, unseen_line
from rein.feedback.items import NewItem, add_items, load_project
from rein.feedback.kinds import KINDS
from rein.feedback.labelers import lead
from rein.feedback.people import audit
from rein.feedback.project import MAX_SHOWN, Project
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.progress import Progress
from rein.report.legible import count, percent
from rein.run import read_rows
from rein.text.prompts import FORMATS, format_of

Json = Any
REFERENCE = "ref"  # the policy's name of what a person wrote, as in the papers' files
BASELINES: dict[str, Callable[[Mapping[str, Json]], str]] = {
    "lead-3": lambda context: lead(context, 3),
    "title": lambda context: str(context.get("title", "")),
}
AT_ONCE = 16  # items whose texts are made together


@dataclass(frozen=True)
class DrawConfig:
    """Settings of `rein label draw`."""

    project: str = setting(help="the project that the items go to")
    prompts: Path = setting(
        help='JSON lines: "prompt", or fields as "title" and "post"; "reference" where there is one'
    )
    store: str = setting("labels.db", "the store: a file, or postgresql://…")
    policy: tuple[str, ...] = setting((), "NAME=PATH of a run, a checkpoint or a model folder, as current=runs/x")
    baseline: tuple[str, ...] = setting((), f"of {', '.join(BASELINES)}: answers that need no model")
    references: bool = setting(False, 'the "reference" of a prompt answers too, under the name ref')
    pairs: str = setting(
        "", "GROUP=SHARE,…, a group being names with : between, as current:initial=0.4,current:ref=0.3; more than two "
        "are to be ranked, and a model may come again; without it, all pairs alike",
    )  # fmt: skip
    n: int = setting(200, "items to draw, with those of earlier starts", unit="items")
    query: str = setting(
        "", "what a model reads, as 'TITLE: {title}\\n\\nTL;DR:'; without it, the prompt, or all fields"
    )
    format: str = setting("", f"instead of --query, the format that models were trained with: {', '.join(FORMATS)}")
    query_tokens: int | None = setting(None, "longest query, instead of the format's", unit="tokens")
    max_new_tokens: int = setting(48, "longest answer of a model", unit="tokens", paper="48 for TL;DR")
    temperature: float = setting(0.7, "of the samples; 0: the likeliest token", paper="0.7")
    top_p: float | None = setting(None, "keep the fewest tokens whose probabilities reach p")
    stop: tuple[str, ...] = setting((), "end an answer before any of these strings")
    best_of: int = setting(1, "above 1: each policy NAME has a twin NAME-boN, the best of so many samples")
    scorer: str = setting(
        "", "what is best: a run of `rein reward`, or package.module:Name, called with (context, text); without it, "
        "the mean log-probability of tokens under the policy itself, which is no judgement of quality",
    )  # fmt: skip
    batch: str = setting("batch1", "the items' batch")
    role: str = setting("work", f"the items' role: {', '.join(tables.ITEM_ROLES)}")
    seed: int = setting(0, "of the order of groups and of the samples")
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one")

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("max_new_tokens", 1), ("best_of", 1)):
            if (value := getattr(self, name)) < least:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {value}, but it must be at least {least}.", f"Raise {flag}.")
        if self.temperature < 0:
            raise UserError(f"--temperature is {self.temperature}, but it must be 0 or more.", "Use 0.7.")
        if self.role not in tables.ITEM_ROLES:
            raise UserError(f"--role is {self.role!r}.", suggestion(self.role, tables.ITEM_ROLES))
        for name in self.baseline:
            if name not in BASELINES:
                raise UserError(f"There is no baseline {name!r}.", suggestion(name, BASELINES))
        if self.format:
            if self.query:
                raise UserError("--query and --format both say what a model reads.", "Give one of them.")
            format_of(self.format, query_tokens=self.query_tokens)
        elif self.query_tokens is not None:
            raise UserError("--query-tokens is of a format, and --format is not given.", "Add --format.")
        self.groups()

    def paths(self) -> dict[str, Path]:
        """The models, by the name that `--policy` gives them."""
        found: dict[str, Path] = {}
        for text in self.policy:
            name, equals, path = text.partition("=")
            if not (equals and name and path) or set(name) & set(":=,") or name in (REFERENCE, *BASELINES):
                raise UserError(f"--policy is {text!r}.", "Write a name, = and a path: --policy current=runs/x.")
            if name in found:
                raise UserError(f"--policy names {name!r} twice.", "Give each model a name of its own.")
            found[name] = Path(path)
        return found

    def names(self) -> list[str]:
        """Every policy that a group may name."""
        models = list(self.paths())
        twins = [twin(name, self.best_of) for name in models] if self.best_of > 1 else []
        return [*models, *twins, *([REFERENCE] if self.references else []), *self.baseline]

    def groups(self) -> dict[tuple[str, ...], float]:
        """Which policies answer together, and the share of items of each group.

        Raises   UserError for a group that cannot be had.
        """
        names = self.names()
        if not self.pairs:
            if len(names) < 2:
                raise UserError(
                    f"Two policies are needed for a pair, and there is {names[0] if names else 'none'}.",
                    "Add --policy NAME=PATH, --references, --baseline; or --pairs NAME:NAME=1 for two samples of one.",
                )
            every = [(a, b) for at, a in enumerate(names) for b in names[at + 1 :]]
            return {pair: 1 / len(every) for pair in every}
        groups: dict[tuple[str, ...], float] = {}
        for part in self.pairs.split(","):
            group, _, share = part.strip().partition("=")
            members = tuple(group.split(":"))
            for name in members:
                if name not in names:
                    raise UserError(f"--pairs names {name!r}, which is no policy here.", suggestion(name, names))
            if not 1 <= len(members) <= MAX_SHOWN or members in groups:
                raise UserError(f"--pairs has {group!r}.", f"Name 1 to {MAX_SHOWN} policies, each group once.")
            for name in members:
                if members.count(name) > 1 and (name == REFERENCE or name in BASELINES):
                    raise UserError(f"--pairs has {group!r}, but {name} has one answer.", "Name it once.")
            try:
                groups[members] = float(share or 1)
            except ValueError:
                groups[members] = -1.0
            if not 0 < groups[members] < float("inf"):
                raise UserError(f"--pairs gives {group!r} the share {share!r}.", "Write a number above 0.")
        total = sum(groups.values())
        return {members: share / total for members, share in groups.items()}


def twin(name: str, n: int) -> str:
    """The name of a policy's best-of-N.

    Example  >>> twin("current", 16)
             'current-bo16'
    """
    return f"{name}-bo{n}"


@dataclass(frozen=True)
class Prompt:
    """One line of the file of prompts."""

    context: Mapping[str, Json]  # what a labeler sees above the candidates
    query: str  # what a model continues
    reference: str | None
    split: str
    line: int
    unseen: Mapping[str, Json] = field(default_factory=dict)  # the line's other fields


@dataclass(frozen=True)
class Plan:
    """An item to be made: who answers which prompt."""

    key: str
    prompt: Prompt
    group: tuple[str, ...]


def draw(config: DrawConfig) -> None:
    """Draws items to label: prompts with answers of models, references and baselines, in the shares that you give.

    The same command goes on where it was; with a larger --n it adds. A group whose answers are the same text is left
    out, and counted.

    Examples
      rein label draw --project tldr --prompts posts.jsonl --policy now=runs/ppo --policy initial=runs/sft --references
      rein label draw --project tldr --prompts posts.jsonl --policy now=runs/ppo --best-of 16 --pairs "now-bo16:now=1"
      rein label draw --project ranked --prompts prompts.jsonl --policy sft=runs/sft --pairs "sft:sft:sft:sft=1"
    """
    store = Store.open(config.store)
    try:
        with store.reading() as conn:
            project_id, project = _project(conn, config.project)
        prompts = list(read_prompts(config.prompts, config.query, project.fields))
        _check_sizes(config.groups(), project)
        from rein.feedback.policies import Policies  # torch, which nothing else here needs

        policies = Policies(config.paths(), device=config.device)
        made_from = _made_from(config, policies.fingerprints(), policies.scorer(config.scorer))
        wanted = list(plans(prompts, config.groups(), config.n, config.seed, made_from))
        left = _unknown(store, project_id, wanted)
        tally = _draw(config, store, project_id, policies, left)
    finally:
        store.close()
    _say(config, tally, config.n - len(left))
    if unseen := dict.fromkeys(name for prompt in prompts for name in prompt.unseen):
        print(unseen_line(list(unseen)))


def _project(conn: Connection, name: str) -> tuple[int, Project]:
    try:
        return load_project(conn, name)
    except Refused as refused:
        raise UserError(refused.text, "Make one with `rein label new`.") from None


def _check_sizes(groups: Iterable[tuple[str, ...]], project: Project) -> None:
    for question in project.questions:
        kind = KINDS[question.kind]
        for group in groups:
            if not kind.least <= len(group) <= kind.most:
                raise UserError(
                    f"{project.name} asks a {question.kind} of {kind.least} to {kind.most} candidates, and "
                    f"{':'.join(group)} has {len(group)}.",
                    "Change --pairs, or choose another --project.",
                )


def _unknown(store: Store, project_id: int, wanted: Sequence[Plan]) -> list[Plan]:
    """The plans whose items the store does not have yet."""
    known: set[str] = set()
    column, project = tables.item.c.key, tables.item.c.project
    with store.reading() as conn:
        for first in range(0, len(wanted), 500):
            keys = [plan.key for plan in wanted[first : first + 500]]
            known.update(conn.scalars(select(column).where(project == project_id, column.in_(keys))))
    return [plan for plan in wanted if plan.key not in known]


def _draw(config: DrawConfig, store: Store, project_id: int, policies: Any, left: Sequence[Plan]) -> Counter[str]:
    tally: Counter[str] = Counter()
    with Progress("drawing", total=len(left), unit="items") as bar:
        for first in range(0, len(left), AT_ONCE):
            some = left[first : first + AT_ONCE]
            items = []
            for plan, texts in zip(some, policies.answers(config, some), strict=True):
                item, why = item_of(config, plan, texts)
                tally[why] += 1
                if item is not None:
                    items.append(item)
                    tally[":".join(plan.group)] += 1

            def write(conn: Connection, items: Sequence[NewItem] = tuple(items)) -> None:
                now = int(time.time() * 1000)
                added = add_items(conn, now, project_id, items).added
                audit(conn, now, None, "draw items", {"project": config.project, "batch": config.batch, "items": added})

            try:
                store.write(write)
            except Refused as refused:
                raise UserError(f"The store does not take an item: {refused.text}", "Mend --prompts.") from None
            bar.advance(len(some))
    return tally


def item_of(config: DrawConfig, plan: Plan, texts: Sequence[str | None]) -> tuple[NewItem | None, str]:
    """An item of a plan's texts, or None and why there is none.

    Space around a text is no part of an answer: a model's begins with one, a person's does not, which would tell them
    apart. Where there was some, the candidate's extra has the text as it was made.
    """
    if any(text is None for text in texts):
        return None, "too long"
    whole = [text or "" for text in texts]
    stripped = [text.strip() for text in whole]
    if not all(stripped):
        return None, "empty"
    kept = [at for at, text in enumerate(stripped) if text not in stripped[:at]]
    if len(kept) < min(2, len(stripped)):
        return None, "same"
    candidates = [
        {
            "text": stripped[at],
            "policy": plan.group[at],
            "extra": {} if whole[at] == stripped[at] else {"raw": whole[at]},
        }
        for at in kept
    ]
    drawn = {"drawn": {"group": ":".join(plan.group), "line": plan.prompt.line}}
    if plan.prompt.unseen:
        drawn["row"] = dict(plan.prompt.unseen)
    item = NewItem(
        key=plan.key, context=dict(plan.prompt.context), candidates=candidates, role=config.role, batch=config.batch,
        split=plan.prompt.split, extra=drawn,
    )  # fmt: skip
    return item, "made" if len(kept) == len(stripped) else "made of fewer"


def _say(config: DrawConfig, tally: Counter[str], before: int) -> None:
    made = tally["made"] + tally["made of fewer"]
    print(f"{count(made, 'item')} drawn into {config.project}" + (f", {before:,} were there already" if before else ""))
    for group, share in config.groups().items():
        name = ":".join(group)
        if tally[name]:
            print(f"  {name:<40}{tally[name]:>8,}  {percent(tally[name] / made)} (asked: {percent(share)})")
    for why, words in (
        ("same", "left out: the answers were the same text"),
        ("empty", "left out: an answer was empty"),
        ("too long", "left out: the prompt does not fit into a model's context"),
        ("made of fewer", "with fewer candidates: some were the same text"),
    ):
        if tally[why]:
            print(f"  {words}: {tally[why]:,}")


# ------------------------------------------------------------------------------------------------ prompts and plans


def read_prompts(path: Path, template: str = "", fields: Sequence[str] | None = ()) -> Iterator[Prompt]:
    """The prompts of a file of JSON lines.

    A row is {"prompt": …} or fields of a context; "reference", "split" and "id" are not shown.

    fields   of the project: what of a row labelers are shown (exchange/seen.py); None: all of it
    Raises   UserError when there is no such file, or for a row that nothing can be made of, with its line.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Give JSON lines with --prompts.")
    some = False
    for line, row in enumerate(read_rows(path), 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {line}, is no JSON object.", 'Write {"prompt": "…"}.')
        where = f"{path}, line {line}"
        whole = {name: value for name, value in row.items() if name not in ("reference", "split", "id")}
        context, unseen = (whole, {}) if fields is None else seen_of(whole, fields)
        if not context and any(isinstance(value, str) for value in unseen.values()):
            names = ", ".join(map(repr, list(unseen)[:8]))
            raise UserError(f"{where}, has no field that labelers are shown, but {names}.", f"{HOW}.")
        query = _query(template, whole if template else context, where)
        reference = row.get("reference")
        if reference is not None and not isinstance(reference, str):
            raise UserError(f"{path}, line {line}, has a reference that is no text.", "Write it as a string.")
        some = True
        yield Prompt(context, query, reference, str(row.get("split", "train")), line, unseen)
    if not some:
        raise UserError(f"{path} has no prompts.", 'Write lines such as {"prompt": "…"}.')


def _query(template: str, context: Mapping[str, Json], where: str) -> str:
    texts = {name: value for name, value in context.items() if isinstance(value, str)}
    if not texts:
        raise UserError(f'{where}, has no text: neither "prompt" nor another field.', 'Write {"prompt": "…"}.')
    if not template:
        return texts["prompt"] if "prompt" in texts else "\n\n".join(texts.values())

    def value(found: re.Match[str]) -> str:
        if found[1] not in texts:
            raise UserError(f"{where}, has no {found[1]!r}, which --query names.", suggestion(found[1], texts))
        return texts[found[1]]

    return re.sub(r"\{(\w+)\}", value, typed(template))


def typed(text: str) -> str:
    r"""What was meant by a text that was typed in a shell: \n is a new line, \t a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def plans(
    prompts: Sequence[Prompt], groups: Mapping[tuple[str, ...], float], n: int, seed: int, made_from: str = ""
) -> Iterator[Plan]:
    """`n` plans: prompts in their order, over and over; groups in a seeded order, each as often as its share says.

    Plans of a smaller `n` are the first ones of a larger: a later start with more items goes on.

    Example  >>> prompts = [Prompt({"prompt": "a"}, "a", None, "train", 1)]
             >>> [plan.group for plan in plans(prompts, {("x", "y"): 0.75, ("x", "z"): 0.25}, 8, 0)].count(("x", "y"))
             6
    """
    turns = _turns(groups, seed)
    for at in range(n):
        prompt, group = prompts[at % len(prompts)], next(turns)
        asked = [prompt.context, prompt.query, prompt.reference, group, at // len(prompts), seed, made_from]
        yield Plan("draw-" + _sha(asked)[:32], prompt, group)


def _turns(groups: Mapping[tuple[str, ...], float], seed: int) -> Iterator[tuple[str, ...]]:
    """Groups for ever, eight by eight: those that are furthest behind their shares, in a drawn order.

    After each eight, every group has had within one of its share. The order is drawn so that a prompt that comes again
    does not always meet the same group.
    """
    had, turn = dict.fromkeys(groups, 0), 0
    for block in itertools.count():
        some = []
        for _ in range(8):
            turn += 1
            group = max(groups, key=lambda one: turn * groups[one] - had[one])
            had[group] += 1
            some.append(group)
        random.Random(f"{seed}/{block}").shuffle(some)
        yield from some


def _made_from(config: DrawConfig, fingerprints: Mapping[str, str], scorer: str) -> str:
    """All that decides what a policy answers, besides the prompt."""
    how = [config.max_new_tokens, config.temperature, config.top_p, config.stop, config.best_of, scorer]
    format = [config.format, config.query_tokens] if config.format else []
    return _sha([[*how, *format], dict(fingerprints)])


def _sha(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "replace")).hexdigest()
