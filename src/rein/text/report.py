"""The report of a corpus: one self-contained page on what was read, what was dropped and why, and what is left.

Flow     manifest.json, report.json → numbers in words, figures (corpus_figures.py) → report.html

The page asks for nothing else and runs no script: its style is inlined and named by hash in a content security
policy that forbids the rest, and each figure is an SVG. What a corpus holds is not trusted: `visible` shows
controls and direction marks of every text as signs before anything else is done, and jinja2 escapes the rest.
The same corpus in a folder of the same name gives the same page, to the byte.

Source   Brown 2020, §2.2 and App. A and C: the stages, the rule that chooses by quality, the mixture.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from rein import __version__
from rein.errors import UserError
from rein.report import page as runs
from rein.report.legible import count, number, percent, visible
from rein.report.page import ReportConfig
from rein.report.parts import policy, static, templates
from rein.run import write_atomically
from rein.text.corpus_figures import Json, flow, grouped_sizes, lengths, quality_charts, similarity_chart, sizes_chart
from rein.text.mixture import Mixture, mixture_of
from rein.text.shards import MANIFEST, WORK, read_manifest

REPORT = "report.json"
LINKS = "links"  # the stage whose items are rows of a link dump, no documents
PASSES = (1, 3, 10)
OFTEN_EPOCHS = 10  # a source read more often than this in one pass is worth a note
LITTLE_FRAC = 0.01  # so is a source of which less than this is left
_SPLIT_NAMES = {"train": "train", "heldout": "held out"}
_SETS = {"shingles": "sets of 5 words in a row", "gpt3": "sets of words"}


# ---------------------------------------------------------------------------------------------------- the command


def report(config: ReportConfig) -> None:
    """Writes report.html of each run or corpus anew, or one page that compares several runs.

    The page is one file: it opens from disk, asks the network for nothing, and can be sent to anyone.

    Examples
      rein report runs/first
      rein report data/pydocs
      rein report runs/first runs/gpt2 --out compare.html
    """
    corpora = [folder for folder in config.runs if (folder / MANIFEST).is_file() or (folder / WORK).is_dir()]
    if not corpora:
        runs.report(config)
    elif config.out is None:
        for folder in config.runs:
            print(draw(folder) if folder in corpora else runs.write_report(folder))
    else:
        raise UserError(
            f"--out {config.out} is the file of one page of several runs, but {corpora[0]} is a corpus.",
            f"Leave --out away: the page is written to {corpora[0] / 'report.html'}.",
        )


def draw(folder: Path) -> Path:
    """Writes report.html of a finished corpus anew, and returns its path.

    Raises   UserError when the folder is no finished corpus, or its report.json cannot be read.
    """
    manifest, path = read_manifest(folder), folder / REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"The corpus {folder} has no {REPORT}, which holds what its stages counted.", "Build it anew."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.", "It is damaged; build the corpus anew.") from None
    write_report(folder, manifest, found)
    return folder / "report.html"


def write_report(folder: Path, manifest: Json, report: Json) -> None:
    """Writes `folder`/report.html, whole or not at all.

    Raises   UserError when it cannot be written.
    """
    write_atomically(folder / "report.html", render(folder.resolve().name, manifest, report))


def worth_knowing(manifest: Json, report: Json) -> list[str]:
    """What a person should hear of a corpus before using it, a sentence each; the page says it at its top."""
    manifest, report = _legible(manifest), _legible(report)
    return _notes(manifest, report, _funnel(report.get("steps") or [], manifest), _mixture(manifest))


def render(name: str, manifest: Json, report: Json) -> str:
    """The page of the corpus `name`, as HTML. Parts of which `report` says nothing are left out."""
    template, style = _assets()
    manifest, report = _legible(manifest), _legible(report)
    funnel = _funnel(report.get("steps") or [], manifest)
    quality = _quality(report.get("quality"))
    mixture = _mixture(manifest)
    near = _duplicates(report.get("duplicates"), report.get("steps") or [], manifest)
    return template.render(
        policy=policy(style),
        style=Markup(style),
        title=visible(name),
        head=_head(manifest, funnel),
        notes=_notes(manifest, report, funnel, mixture),
        funnel=funnel,
        lengths=lengths(funnel),
        quality=quality,
        duplicates=near,
        contamination=_contamination(report.get("contamination")),
        mixture=mixture,
        examples=_examples(report.get("steps") or []),
        origins=_origins(manifest),
        tokenizer=manifest["tokenizer"],
        inputs_sha256=manifest.get("inputs_sha256", ""),
        shards=[shard for split in manifest["splits"].values() for shard in split["shards"]],
        settings=json.dumps(manifest.get("settings", {}), indent=2, ensure_ascii=False),
        made_by=manifest.get("rein", ""),
        version=__version__,
    )


@cache
def _assets() -> tuple[Template, str]:
    """The template, and the style of all our reports with what this page adds."""
    here = Path(__file__).parent
    template = templates(here, n=_n, mb=_mb, epochs=_epochs, excerpt=_excerpt).get_template("report.html")
    own = (here / "report.css").read_text(encoding="utf-8")
    return template, static("report.css") + static("tables.css") + own


def _legible(value: Any) -> Any:
    """JSON with every text in it as it may stand on a page."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): _legible(item) for key, item in value.items()}
    return [_legible(item) for item in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------- numbers


def _n(value: int) -> str:
    return f"{value:,}"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.2f} MB" if n_bytes >= 5000 or not n_bytes else "<0.01 MB"


def _epochs(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _excerpt(text: str, most: int) -> str:
    """The beginning of a document, of which `most` characters were kept for the report, without blank lines."""
    return re.sub(r"\n\s*\n", "\n", text[:most].strip()) + ("…" if len(text) >= most else "")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# ------------------------------------------------------------------------------------------------ head and notes


def _head(manifest: Json, funnel: Json | None) -> Json:
    """The key numbers."""
    splits = manifest["splits"]
    sums = {what: sum(split[what] for split in splits.values()) for what in ("documents", "tokens", "bytes")}
    sources = [about["source"] for about in manifest.get("mixture", [])]
    found = funnel["found"] if funnel is not None else manifest["items"]
    return {
        **sums,
        "kept_frac": _share(sums["documents"], found),
        "found": found,
        "sources": sources,
        # end-of-text ids are no text
        "bytes_per_token": _share(sums["bytes"], sums["tokens"] - sums["documents"]),
        "splits": [{"name": _SPLIT_NAMES[name], **split} for name, split in splits.items()],
    }


def _notes(manifest: Json, report: Json, funnel: Json | None, mixture: Json | None) -> list[str]:
    """What a reader should not miss."""
    notes = []
    for source in funnel["sources"] if funnel is not None else []:
        if source["found"] and source["kept"] < LITTLE_FRAC * source["found"]:
            notes.append(
                f"Of {source['name']}, {source['kept']:,} of {source['found']:,} items are in the corpus "
                f"({percent(source['kept'] / source['found'])})."
            )
    if mixture is not None and mixture["runs"]:
        often = [row for row in mixture["rows"] if row["epochs"][0] > OFTEN_EPOCHS]
        notes += [
            f"Training on {number(mixture['runs'][0])} tokens by this mixture reads {row['source']}, "
            f"which has {count(row['tokens'], 'token')}, {_epochs(row['epochs'][0])} times."
            for row in often
        ]
    if report.get("quality"):
        training = report["quality"]["training"]
        if not training["fit"]["converged"]:
            notes.append(f"The quality classifier did not converge in {training['fit']['iterations']:,} iterations.")
        if training["alpha"]["at_limit"]:
            notes.append(
                f"The alpha whose kept documents score most like the positives, {training['alpha']['alpha']:g}, is the "
                "first or last of those tried: the best may lie beyond."
            )
    if report.get("duplicates") and (large := report["duplicates"]["large_groups"]):
        notes.append(
            f"{count(large, 'group')} of documents with a key in common had too many members to compare all their "
            "pairs: each was compared with some of the others."
        )
    if "heldout" not in manifest["splits"]:
        notes.append("Nothing is held out: this corpus cannot measure what it trains.")
    return notes


# ---------------------------------------------------------------------------------------------------- the funnel


def _funnel(steps: Sequence[Json], manifest: Json) -> Json | None:
    """Sources by stages, in documents; the stream of them as a figure; every reason."""
    own = [step for step in steps if step["stage"] != LINKS]
    if not own:
        return None
    stages = list(dict.fromkeys(step["stage"] for step in own))
    tokens = {about["source"]: about["tokens"] for about in manifest.get("mixture", [])}
    sources = []
    for place, name in enumerate(dict.fromkeys(step["source"] for step in own)):
        by_stage = {step["stage"]: step for step in own if step["source"] == name}
        first, last = next(iter(by_stage.values())), list(by_stage.values())[-1]
        after = [first["items"]]
        for stage in stages:
            after.append(by_stage[stage]["documents"] if stage in by_stage else after[-1])
        sources.append(
            {
                "name": name,
                "colour": f"c{place % 6}",
                "found": first["items"],
                "after": after,
                "passed": [stage in by_stage for stage in stages],
                "kept": last["documents"],
                "kept_frac": _share(last["documents"], first["items"]),
                "bytes_read": first["bytes"],
                "bytes": last["bytes"],
                "read": first["documents"],
                "lengths_read": first["lengths"],
                "lengths": last["lengths"],
                "tokens": tokens.get(name, 0),
            }
        )
    sums = [sum(source["after"][place] for source in sources) for place in range(len(stages) + 1)]
    lost = [0, *(sum(about["count"] for step in own if step["stage"] == stage for about in step["dropped"].values())
                 for stage in stages)]  # fmt: skip
    columns = [
        {"title": title, "documents": documents, "frac": _share(documents, sums[0]), "dropped": dropped}
        for title, documents, dropped in zip(["found", *stages], sums, lost, strict=True)
    ]
    return {
        "found": sums[0],
        "kept": sums[-1],
        "bytes_read": sum(source["bytes_read"] for source in sources),
        "bytes": sum(source["bytes"] for source in sources),
        "tokens": sum(tokens.values()),
        "columns": columns,
        "sources": sources,
        "flow": flow(sources, columns),
        "reasons": [_reasons(step) for step in steps],
    }


def _reasons(step: Json) -> Json:
    """One stage of one source: what it dropped, the most frequent reason first."""
    return {
        "stage": step["stage"],
        "source": step["source"],
        "items": step["items"],
        "documents": step["documents"],
        "kept_frac": _share(step["documents"], step["items"]),
        "rows": [
            {
                "reason": reason,
                "count": about["count"],
                "frac": _share(about["count"], step["items"]),
                "width": f"{100 * min(_share(about['count'], step['items']), 1):.2f}",
                "first": about["first"],
                "more": about["count"] > len(about["first"]),
            }
            for reason, about in step["dropped"].items()
        ],
    }


# ---------------------------------------------------------------------------------------------------- quality


def _quality(quality: Json | None) -> Json | None:
    """How well the classifier tells the two sides apart, and what its draw kept."""
    if quality is None:
        return None
    training, alpha = quality["training"], quality["alpha"]
    chosen = [
        {
            "source": one["source"],
            "documents": sum(one["scores"]),
            "kept": sum(one["kept_scores"]),
            "frac": _share(sum(one["kept_scores"]), sum(one["scores"])),
            "expected": next((row["kept_frac"] for row in one["kept_frac"] if row["alpha"] == alpha), None),
            "ends": _share(one["scores"][0] + one["scores"][-1], sum(one["scores"])),
            "width": 1 / max(len(one["scores"]), 1),
        }
        for one in quality["chosen"]
    ]
    return {
        "alpha": alpha,
        "nearest": training["alpha"]["alpha"],
        "training": training,
        "heldout": training["heldout"],
        "chosen": chosen,
        "charts": quality_charts(quality),
    }


# ---------------------------------------------------------------------------------------------------- duplicates


def _duplicates(about: Json | None, steps: Sequence[Json], manifest: Json) -> Json | None:
    """Near-duplicates: how similar, in groups of which sizes, and the largest of them."""
    if about is None:
        return None
    sizes = grouped_sizes({int(size): n for size, n in about["sizes"].items()})
    charts = []
    if any(about["similarities"]):
        charts.append(similarity_chart(about["similarities"], about["threshold"], _SETS[about["mode"]]))
    if sizes:
        charts.append(sizes_chart(sizes))
    return {
        **about,
        "sets": _SETS[about["mode"]],
        "prefer": (manifest.get("settings", {}).get("near_duplicates") or {}).get("prefer") or [],
        "exact": _dropped(steps, "duplicate"),
        "ids": _dropped(steps, "duplicate id"),
        "stays": any("stays" in one for group in about["largest"] for one in group["documents"]),
        "charts": charts,
    }


def _dropped(steps: Sequence[Json], reason: str) -> int:
    return sum(step["dropped"][reason]["count"] for step in steps if reason in step["dropped"])


# ------------------------------------------------------------------------------------------------ evaluation sets


def _contamination(about: Json | None) -> Json | None:
    """What was found of each evaluation set."""
    if about is None:
        return None
    sets = about["sets"]
    sums = {key: sum(one[key] for one in sets) for key in ("examples", "grams", "grams_found")}
    return {
        **sums,
        "rules": about["rules"],
        "sets": sets,
        "notes": about["notes"],
        "short_examples": sum(one["short_examples"] for one in sets),
        "matched": [one for one in sets if one["matches"]],
    }


# ---------------------------------------------------------------------------------------------------- the mixture


def _mixture(manifest: Json) -> Json | None:
    """What training draws from each source, in runs of several lengths."""
    sources = manifest.get("mixture") or []
    total = sum(about["tokens"] for about in sources)
    if not total:
        return None
    given = mixture_of(manifest)
    tokens = {about["source"]: about["tokens"] for about in sources}
    mixture = given or Mixture(tokens, {source: n / total for source, n in tokens.items()})
    lengths = [round((mixture.pass_tokens or total) * passes) for passes in PASSES] if given is not None else []
    tables = [mixture.table(length) for length in lengths]
    rows = [
        {
            "source": about["source"],
            "colour": f"c{place % 6}",
            "documents": about["documents"],
            "tokens": about["tokens"],
            "part": about["tokens"] / total,
            "asked": about["weight"] if mixture.weights is not None else about["epochs"],
            "share": mixture.shares[about["source"]],
            "epochs": [table[place].epochs for table in tables],
        }
        for place, about in enumerate(sources)
    ]
    return {
        "rows": rows,
        "runs": lengths,
        "by": "weight" if mixture.weights is not None else "epochs",
        "tokens": total,
        "weight_sum": None if mixture.weights is None else math.fsum(mixture.weights.values()),
        "bars": [("tokens in the corpus", _stack(rows, "part"))]
        + ([("tokens that training reads", _stack(rows, "share"))] if lengths else []),
    }


def _stack(rows: Sequence[Json], key: str) -> list[tuple[str, str, str]]:
    """Colour, left end and width of each part of a bar of 100."""
    parts, left = [], 0.0
    for row in rows:
        width = 100 * row[key]
        parts.append((row["colour"], f"{left:.3f}", f"{width:.3f}"))
        left += width
    return parts


# ------------------------------------------------------------------------------------------ examples and origins


def _examples(steps: Sequence[Json]) -> list[Json]:
    """Documents that were kept, and that were dropped by each reason: of each stage of each source."""
    return [
        {
            "stage": step["stage"],
            "source": step["source"],
            "reasons": [
                {
                    "reason": reason,
                    "count": step["dropped"][reason]["count"] if reason else step["documents"],
                    "documents": [{"id": id, "text": text} for _, id, text in chosen],
                }
                for reason, chosen in step["examples"].items()
                if chosen
            ],
        }
        for step in steps
        if any(step["examples"].values())
    ]


def _origins(manifest: Json) -> Json | None:
    """Where the text is from, the largest first, and under which licences."""
    rows = [
        {
            "name": f"{about['package']} {about['version']}".strip() or about["source"],
            "source": about["source"],
            "license": about["license"],
            "documents": sum(about["documents"].values()),
            "bytes": sum(about["bytes"].values()),
            "splits": [_SPLIT_NAMES[split] for split in about["documents"]],
        }
        for about in manifest.get("origins", [])
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: -row["bytes"])
    total = sum(row["bytes"] for row in rows)
    licenses: dict[str, Json] = {}
    for row in rows:
        one = licenses.setdefault(row["license"], {"origins": 0, "documents": 0, "bytes": 0})
        for key, value in (("origins", 1), ("documents", row["documents"]), ("bytes", row["bytes"])):
            one[key] += value
    return {
        "rows": rows,
        "licenses": [
            {"license": license, "frac": _share(one["bytes"], total), **one}
            for license, one in sorted(licenses.items(), key=lambda item: -item[1]["bytes"])
        ],
    }
