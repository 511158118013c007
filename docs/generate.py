"""Writes docs/reference/ from the program: the commands, the metrics, the dependencies.

    make docs

Flow     cli.COMMANDS, run.METRICS, pyproject.toml and requirements.lock → Markdown pages.
A test makes the pages again and compares, so they cannot say what the program does not.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from rein.cli import COMMANDS
from rein.config import flag_of
from rein.feedback.kinds import describe
from rein.feedback.project import PRESETS, Project, Question
from rein.run import METRICS
from rein.text.recipe import Decontamination, NearDuplicates, Quality, Recipe, Source
from rein.train.rlhf_presets import ppo_markdown
from rein.web.label.serve import make_api

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by `make docs`; change the program, not this page. -->"

HEAD = ("Setting", "Type", "Default", "Unit", "Papers", "What it is")

# Why each dependency is here. One that pyproject.toml does not name, or one without a reason, is an error.
WHY = {
    "torch": "tensors, automatic differentiation, kernels, distributed training and checkpoints",
    "numpy": "memory-mapped token shards, and arrays of token ids that no tensor is needed for",
    "safetensors": "the file format of a checkpoint's weights; holds no code, so a stranger's is safe to open",
    "gigatoken": "the fastest exact GPT-2 BPE, for training and encoding; pinned to one version while it is 0.x",
    "tiktoken": "OpenAI's own BPE: every encoding can be checked against it, and it encodes where gigatoken cannot",
    "regex": "`\\p{L}` and `\\p{N}`, which GPT-2's pattern needs and `re` lacks, for the BPE one can read",
    "pyarrow": "Parquet in and out, which most public text comes in",
    "daft": "carries the partitions of the text pipeline to processes here, or to a Ray cluster, with one code",
    "resiliparse": "text out of HTML, a page in a millisecond; encodings as browsers know them",
    "fastwarc": "records, HTTP headers and content encodings of Common Crawl's archives",
    "trafilatura": "text out of HTML, precisely: of the maintained extractors the one that errs least",
    "lxml-html-clean": "the part of lxml that trafilatura needs and lxml 6 no longer has",
    "py3langid": "language identification whose model comes with the package, so that nothing is downloaded",
    "threadpoolctl": "one thread for the classifier's search, so that its sums have the same bits on every machine",
    "mmh3": "an independent murmur3, to hold the compiled features to",
    "ray": "the cluster that `rein text build --ray` runs on",
    "datasets": "Hugging Face datasets by name",
    "jinja2": "HTML reports whose values are escaped by default",
    "rich": "progress on a terminal",
    "gymnasium": "the interface of environments, and the environments themselves",
    "numba": "compiles the papers' experiments: millions of SARSA(λ) steps a second, without a compiler on the machine",
    "scipy": "the gamma density of a trainer's delay, quantiles of t, the search of logistic regression",
    "matplotlib": "the papers' figures as SVG and PNG",
    "sacrebleu": "BLEU with the tokens and smoothing of the signature that papers print, so that scores compare",
    "sacremoses": "Moses's words, from which the other BLEU of GPT-3's tables is computed; the program itself is Perl",
    "snowballstemmer": "Porter's stems, as ROUGE-1.5.5 takes them before it compares words",
    "statsmodels": "Cohen's and Fleiss' kappa; in tests, clustered errors, McNemar's test and Holm's correction",
    "krippendorff": "Krippendorff's alpha, nominal and ordinal",
    "sqlalchemy": "the feedback store: one set of tables and statements for SQLite and PostgreSQL",
    "alembic": "its migrations: an older store is brought up to date, and a newer one refused",
    "psycopg": "PostgreSQL, for a feedback store that a team's servers share",
    "argon2-cffi": "passwords, by argon2id",
    "fastapi": "the labeling server's API: checked bodies with limits, and an OpenAPI schema that tests attack",
    "httpx": "the client of that API, for simulated labelers and programs",
    "starlette": "the web application: routes, WebSockets, static files",
    "uvicorn": "serves it",
    "websockets": "uvicorn's WebSockets",
    "pillow": "frames of foreign environments as JPEG, and small grey pictures to learn from",
    "pygame": "what Gymnasium's environments draw their frames with",
    "box2d": "the physics of LunarLander",
    "ftfy": "GPT-1's own text repair, without which its tokens are not the paper's",
    "spacy": "GPT-1's own word splitting, ahead of its BPE",
    "axe-playwright-python": "tests of the pages: axe-core's rules of accessibility",
    "schemathesis": "tests of the labeling server's API, made from its OpenAPI schema",
    "hypothesis": "tests of properties on inputs nobody thought of",
    "mypy": "`make lint`: types",
    "playwright": "tests of the pages in a real browser, by keyboard",
    "psutil": "tests of memory use; counts the cores for pytest-xdist",
    "pytest": "`make test`",
    "pytest-xdist": "`make test` on every core",
    "ruff": "`make lint`: style and common mistakes",
    "tokenizers": "an independent BPE to compare with, and the reader of the `tokenizer.json` that we write",
    "transformers": "an independent GPT to compare logits with, and the reader of the checkpoints that we write",
    "hatchling": "builds the package",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a command, as a user meets it."""

    name: str
    flag: str
    type: str
    default: Any
    required: bool
    unit: str
    paper: str
    help: str
    group: str


def settings(config_class: type[Any]) -> list[Setting]:
    """Every setting of a command's config class, in order."""
    hints = typing.get_type_hints(config_class)
    return [
        Setting(
            name=field.name,
            flag=field.name if field.metadata["positional"] else flag_of(field.name),
            type=type_name(hints[field.name]),
            default=None if default_of(field) is dataclasses.MISSING else plain(default_of(field)),
            required=default_of(field) is dataclasses.MISSING,
            **{key: field.metadata[key] for key in ("unit", "paper", "help", "group")},
        )
        for field in dataclasses.fields(config_class)
    ]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default, or what makes one; MISSING where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def type_name(hint: Any) -> str:
    """A type in a user's words.

    Example  >>> type_name(int | None), type_name(tuple[Path, ...]), type_name(Literal["pre", "post"])
             ('whole number, or none', 'list of path', 'pre or post')
    """
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(kind) for kind in get_args(hint) if kind is not type(None)) + ", or none"
    if get_origin(hint) is tuple:
        return f"list of {type_name(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return " or ".join(str(choice) for choice in get_args(hint))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"`{hint.__name__}`"
    if get_origin(hint) is Mapping:
        return "JSON object"
    return {int: "whole number", float: "number", str: "text", bool: "yes or no", Path: "path"}[hint]


def plain(value: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# -------------------------------------------------------------------------------------------------- the pages


def commands_page() -> str:
    """Every command: what it does, and its settings."""
    parts = ["# Commands", NOTE, "Every setting can be a flag, a key of the JSON file given to `--config`, or both."]
    rows = [(f"[`rein {c.name}`](#{anchor(f'rein {c.name}')})", c.summary) for c in COMMANDS]
    parts.append(table(("Command", "What it does"), rows))
    for command in COMMANDS:
        function, config_class = command.load()
        parts += [f"## `rein {command.name}`", f"```text\n{inspect.getdoc(function) or command.summary}\n```"]
        known = settings(config_class)
        for group in dict.fromkeys(setting.group for setting in known):
            rows_of = [row(setting) for setting in known if setting.group == group]
            parts.append(f"### {group.capitalize()} of `rein {command.name}`")
            parts.append(table(HEAD, rows_of))
    return "\n\n".join(parts) + "\n"


def row(setting: Setting) -> tuple[str, ...]:
    """One line of a table of settings."""
    flag = f"`{setting.flag}`, `--no-{setting.flag[2:]}`" if setting.type.startswith("yes") else f"`{setting.flag}`"
    return (flag, setting.type, needed(setting), setting.unit, setting.paper, setting.help)


def needed(setting: Setting) -> str:
    """A setting's default, or that it has none."""
    return "required" if setting.required else code(setting.default)


def recipes_page() -> str:
    """Every part of a recipe, and its settings."""
    text = (
        "A recipe says which text a corpus is made of, and what is done to it: `rein text build recipe.py`, where the "
        "file sets `recipe = Recipe(...)`, or `rein text build recipe.json` with the same as plain data. "
        "[How to build a corpus](../how-to/build-a-corpus.md) has one that runs."
    )
    parts = ["# Recipes", NOTE, text]
    for part in (Recipe, Source, Quality, NearDuplicates, Decontamination):
        rows = [
            (
                f"`{one.name}`",
                one.type,
                needed(one),
                one.unit,
                one.paper,
                one.help,
            )
            for one in settings(part)
        ]
        parts += [f"## `{part.__name__}`", inspect.getdoc(part) or "", table(HEAD, rows)]
    return "\n\n".join(parts) + "\n"


def feedback_page() -> str:
    """Every kind of feedback, and every setting of a labeling project."""
    parts = [
        "# Kinds of feedback, and settings of a project", NOTE,
        "A person is shown the K candidates of an item and says something about them. Each answer to a question is one "
        "row of the store, and its kind says what the row holds and what a model is trained to with it. Candidates are "
        "counted from 0, in the item's order, whatever order was shown.",
    ]  # fmt: skip
    rows = [(f"[`{kind['name']}`](#{anchor(kind['name'])})", kind["says"]) for kind in describe()]
    parts.append(table(("Kind", "What it says"), rows))
    for kind in describe():
        parts += [f"## `{kind['name']}`", kind["says"]]
        shown = f"{kind['least']}" if kind["least"] == kind["most"] else f"{kind['least']} to {kind['most']}"
        facts = [
            ("Value", code(kind["schema"])),
            ("Candidates", shown if kind["asked"] else ""),
            ("Asked as", kind["words"]),
            ("A model gives", kind["outputs"]),
            ("Loss", kind["formula"]),
            ("Source", kind["source"]),
        ]
        if kind["example"]:
            facts.append(("Example", f"{code(kind['example']['value'])}: {kind['example']['by_hand']}"))
        parts.append(table(("", "What"), [fact for fact in facts if fact[1]]))
    for part in (Project, Question):
        lines = [(f"`{one.name}`", one.type, needed(one), one.unit, one.paper, one.help) for one in settings(part)]
        parts += [f"## Settings: `{part.__name__}`", table(HEAD, lines)]
    parts += [
        "## Presets",
        table(("Preset", "Questions", "Staged"), [
            (f"`{name}`", ", ".join(f"{one.name} ({one.kind})" for one in asks.questions), "yes" if asks.staged else "")
            for name, asks in PRESETS.items()
        ]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def label_api_page() -> str:
    """Every route of the labeling server."""
    schema = make_api(None).openapi()
    groups: dict[str, list[tuple[str, str, str]]] = {"What a labeler may do": [], "What a researcher may do": []}
    for path, methods in schema["paths"].items():
        for method, what in methods.items():
            takes = what.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            body = schema["components"]["schemas"].get(takes.get("$ref", "").rpartition("/")[2], {})
            names = [one["name"] for one in what.get("parameters", []) if one["in"] == "query"]
            fields = [*(f"?{name}" for name in names), *body.get("properties", {})]
            row = (f"`{method.upper()} {path}`", " ".join(f"`{one}`" for one in fields), what.get("description", ""))
            groups["What a researcher may do" if path.startswith("/research") else "What a labeler may do"].append(row)
    parts = [
        "# The labeling server's HTTP API", NOTE,
        "Below `/label/api`; JSON in and out. A program sends `Authorization: Bearer KEY`, with a key that a "
        "researcher makes on the page People; a browser has a session. Errors are `{\"error\": {\"code\", "
        "\"text\"}}`; 429 says when to come again. `/label/api/openapi.json` has every field with its type and limits.",
    ]  # fmt: skip
    for title, rows in groups.items():
        parts += [f"## {title}", table(("Route", "Takes", "What it does"), rows)]
    return "\n\n".join(parts) + "\n"


def metrics_page() -> str:
    """Every column of metrics.jsonl."""
    rows = [(f"`{metric.name}`", metric.unit, metric.formula) for metric in METRICS]
    text = "A run appends one JSON object per line to `metrics.jsonl`, with some of these keys and no others."
    return "\n\n".join(["# Metrics", NOTE, text, table(("Key", "Unit", "How it is computed"), rows)]) + "\n"


def presets_page() -> str:
    """Where the papers' PPO differ."""
    text = (
        "Four papers side by side, as `rein ppo --preset` fills in what no flag gives: only what differs. `rein ppo "
        "presets` prints it. The same in all: gamma 1, lambda 0.95, clip ranges 0.2, whitened advantages."
    )
    return "\n\n".join(["# Presets of PPO", NOTE, text, ppo_markdown()])


def dependencies_page() -> str:
    """Every declared dependency, the version it is locked to, and why it is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    groups = {
        "To run": project["project"]["dependencies"],
        **{f"`rein[{name}]`": needs for name, needs in extras.items()},
        "To build": project["build-system"]["requires"],
    }
    versions = locked()
    parts = ["# Dependencies", NOTE, "The exact versions of everything, indirect ones too, are in `requirements.lock`."]
    named = set()
    for title, needs in groups.items():
        rows = []
        for need in needs:
            name, wanted = split_requirement(need)
            if name == "rein":
                continue
            named.add(name)
            rows.append((f"`{name}`", code(wanted), versions.get(name, "—"), WHY[name]))
        parts += [f"## {title}", table(("Package", "Accepted", "Locked", "Why it is here"), rows)]
    stale = WHY.keys() - named
    assert not stale, f"docs/generate.py explains what pyproject.toml does not name: {sorted(stale)}"
    return "\n\n".join(parts) + "\n"


def split_requirement(need: str) -> tuple[str, str]:
    """A requirement's name and its versions.

    Example  >>> split_requirement("rein[gpt1]"), split_requirement("torch>=2.11,<3")
             (('rein', ''), ('torch', '>=2.11,<3'))
    """
    match = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?(.*)", need)
    assert match, f"not a requirement: {need!r}"
    return match[1].lower(), match[2].strip()


def locked() -> dict[str, str]:
    """Name → version in requirements.lock; two versions where Pythons differ are joined by a comma."""
    versions: dict[str, str] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)", line):
            versions[match[1]] = ", ".join(filter(None, [versions.get(match[1]), match[2]]))
    return versions


# ------------------------------------------------------------------------------------------------- Markdown


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. A bar in a cell is escaped; columns that are empty throughout are left out."""
    kept = [i for i in range(len(head)) if any(cells[i] for cells in rows)]
    lines = [[head[i] for i in kept], ["---"] * len(kept), *[[cells[i] for i in kept] for cells in rows]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(value: Any) -> str:
    """A value as JSON, in code marks; nothing for none."""
    if value is None or value == "":
        return ""
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value, ensure_ascii=False)}`"


def anchor(heading: str) -> str:
    """The id that a Markdown heading gets, as GitHub makes it.

    Example  >>> anchor("`rein bpe train`: learn a vocabulary")
             'rein-bpe-train-learn-a-vocabulary'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


PAGES = {
    "commands.md": commands_page,
    "feedback.md": feedback_page,
    "label-api.md": label_api_page,
    "recipes.md": recipes_page,
    "metrics.md": metrics_page,
    "ppo-presets.md": presets_page,
    "dependencies.md": dependencies_page,
}


def main() -> None:
    """Writes every page."""
    folder = ROOT / "docs" / "reference"
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
