"""How fast web pages become token shards: `rein text build` against datatrove, on the same archives and two workers.

    python benchmarks/text_pipeline.py PAGES... --datatrove-python PEERS/bin/python
    python benchmarks/text_pipeline.py PAGES... --most 500      a first impression; without a peer, ours alone

PAGES are folders of HTML; they are packed into WARC files first, as a crawl has them (`pages.py`), but for pages above
5 MB, which Rein drops unread. datatrove gets an environment of its own, because it wants older packages than Rein:

    python -m venv PEERS
    PEERS/bin/pip install 'datatrove[io,processing]==0.10.1' 'xxhash<4' spacy lxml_html_clean resiliparse

Both read the archives, take the text out of the pages, drop near-duplicates by MinHash over five words, tokenise with
one vocabulary (GPT-2's with --gpt2, or one learnt before the clock starts) and write shards of 16-bit ids. Where both
can find a language it is left out: datatrove's filter downloads its model. Rein also drops exact duplicates, compares
each pair of candidates exactly before it drops one, and writes the text that is left beside the tokens. Three rows:

    rein                    `rein text build`, extraction with resiliparse
    datatrove, as shipped   its Trafilatura extractor, the only one it has for HTML; gzip between the steps. A page may
                            take 10 s, as ours, because within its 1 s a busy machine does not even load Trafilatura
    datatrove, resiliparse  the same extractor as ours, in datatrove's process instead of its sandbox; nothing packed
                            between the steps, buckets read in one piece, documents not shuffled

The time is that of the whole command or all steps, with starting up; before it, both have been started once, so that
what they compile and read is at hand. Memory is of all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from text_memory import Run, load_now, rein, run

WORKERS = 2
ARCHIVES = 8
WARM_PAGES = 20
PAGE_TIMEOUT_S = 10.0
TARGET = 5.0
MB_TO_LEARN_FROM = 5
LEARNT_VOCABULARY = 16_384


@dataclass(frozen=True)
class Row:
    """One side's result."""

    name: str
    took: Run
    extracted: int
    kept: int
    tokens: int


# --------------------------------------------------------------------------------- datatrove, run by its own Python


def datatrove_side(spec: dict[str, Any]) -> None:
    """All steps, each one an executor's run, as in datatrove's own examples; prints the counts as JSON, last."""
    import trafilatura  # noqa: F401  # its sandbox would take a failure to import it for a failure of each page
    from datatrove.pipeline.dedup import MinhashDedupFilter
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    shipped, work, tasks = spec["shipped"], Path(spec["work"]), spec["tasks"]
    compression = "gzip" if shipped else None
    name = "${rank}.jsonl.gz" if shipped else "${rank}.jsonl"
    extractor = Trafilatura(timeout=PAGE_TIMEOUT_S) if shipped else with_resiliparse
    writer = JsonlWriter(str(work / "text"), output_filename=name, compression=compression)
    execute([WarcReader(spec["archives"]), extractor, writer], work, "extract", tasks)
    minhash(str(work / "text"), work, tasks, buffered_lines=5 if shipped else -1)
    tokenizer = DocumentTokenizer(
        str(work / "tokens"),
        tokenizer_name_or_path=spec["tokenizer"],
        eos_token="<|endoftext|>",
        shuffle_documents=shipped,
    )
    reader = JsonlReader(str(work / "text"))
    execute([reader, MinhashDedupFilter(str(work / "remove")), tokenizer], work, "tokenise", tasks)

    extracted = json.loads((work / "logs" / "minhash-1" / "stats.json").read_text())[-1]["stats"]["total"]
    indices = list((work / "tokens").glob("*.index"))
    shards = [path.with_suffix("") for path in indices]
    print()
    print(
        json.dumps(
            {
                "extracted": extracted,
                "kept": sum(path.stat().st_size for path in indices) // 8,
                "tokens": sum(path.stat().st_size for path in shards) // 2,
            }
        )
    )


def with_resiliparse(data: Iterator[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    """A step that extracts text as `--extract fast` does."""
    from resiliparse.extract.html2text import extract_plain_text

    for document in data:
        document.text = extract_plain_text(document.text, main_content=True)
        if document.text:
            yield document


def minhash(documents: str, work: Path, tasks: int, *, buffered_lines: int) -> None:
    """datatrove's first three steps of near-duplicates, with its own defaults: 14 buckets of 8 hashes."""
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader

    config = MinhashConfig()
    signatures, buckets, remove = (str(work / name) for name in ("signatures", "buckets", "remove"))
    execute([JsonlReader(documents), MinhashDedupSignature(signatures, config=config)], work, "minhash-1", tasks)
    pairs = MinhashDedupBuckets(signatures, buckets, config=config, lines_to_buffer=buffered_lines)
    execute([pairs], work, "minhash-2", config.num_buckets)
    clusters = MinhashDedupCluster(buckets, remove, config=config, lines_to_buffer=buffered_lines)
    execute([clusters], work, "minhash-3", 1)


def execute(pipeline: list[Any], work: Path, name: str, tasks: int) -> None:
    """Runs one step over its tasks in the worker processes."""
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(
        pipeline, tasks=tasks, workers=min(WORKERS, tasks), logging_dir=str(work / "logs" / name)
    ).run()


def run_peer(python: Path, function: str, spec: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Runs `module:function` of a benchmark with a peer's Python: what it took, and the JSON that it printed last."""
    module, name = function.split(":")
    code = f"import json, sys; from {module} import {name}; {name}(json.loads(sys.argv[1]))"
    env = {
        "PYTHONPATH": str(Path(__file__).parent),
        "TOKENIZERS_PARALLELISM": "false",  # two workers are two threads
        "HF_HUB_OFFLINE": "1",
    }
    took = run([str(python), "-c", code, json.dumps(spec)], env)
    return took, json.loads(took.output.splitlines()[-1])


# ------------------------------------------------------------------------------------------------- ours, and the input


def peer_side(title: str, shipped: bool, python: Path, tokenizer: Path, archives: Path, work: Path) -> Row:
    """datatrove, with as many tasks as there are archives."""
    spec = {
        "archives": str(archives),
        "tokenizer": str(tokenizer),
        "work": str(work),
        "tasks": len(list(archives.iterdir())),
        "shipped": shipped,
    }
    took, counts = run_peer(python, "text_pipeline:datatrove_side", spec)
    return Row(title, took, **counts)


def rein_side(tokenizer: Path, archives: Path, work: Path) -> Row:
    """`rein text build` with its defaults, and nothing held out."""
    out = work / "corpus"
    settings = ["--source", "warc", "--tokenizer", str(tokenizer), "--heldout-frac", "0", "--workers", str(WORKERS)]
    took = run([*rein(), "text", "build", str(archives), *settings, "--out", str(out)])
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    steps = json.loads((out / "report.json").read_text(encoding="utf-8"))["steps"]
    read = sum(step["documents"] for step in steps if step["stage"] == "read")
    return Row("rein", took, read, manifest["kept"], manifest["splits"]["train"]["tokens"])


def work_folder(folder: Path) -> Path:
    """A new folder for one run."""
    return Path(tempfile.mkdtemp(dir=folder))


def pack(folders: list[Path], most: int, out: Path) -> tuple[int, float]:
    """Packs the pages into archives, and some into one to start with; returns their number and megabytes."""
    from pages import html_files, pages

    from rein.text.extract import Limits
    from rein.text.warc import write

    paths = [path for path in html_files(folders) if path.stat().st_size <= Limits().max_bytes][:most]
    if not paths:
        sys.exit(f"No .html files are below {', '.join(map(str, folders))}.")
    out.mkdir()
    for number in range(ARCHIVES):
        write(out / f"{number:05d}.warc.gz", pages(paths[number::ARCHIVES]))
    (out.parent / "first").mkdir()
    write(out.parent / "first" / "00000.warc.gz", pages(paths[:WARM_PAGES]))
    return len(paths), sum(path.stat().st_size for path in paths) / 1e6


def make_tokenizer(gpt2: Path | None, path: Path) -> str:
    """Saves the vocabulary that all tokenise with; returns what it is."""
    from rein.bpe.byte_level import from_openai
    from rein.bpe.trainer import train

    if gpt2 is not None:
        from_openai(gpt2 / "encoder.json", gpt2 / "vocab.bpe").save(path)
        return "GPT-2's vocabulary"
    from text_memory import paragraphs

    tokenizer = train(paragraphs(MB_TO_LEARN_FROM * 1_000_000), LEARNT_VOCABULARY)
    tokenizer.save(path)
    return f"a vocabulary of {tokenizer.n_vocab:,} learnt from the installed packages' documentation"


def main() -> int:
    """The table and the verdict; 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+", help="folders of HTML")
    parser.add_argument("--datatrove-python", type=Path, help="the Python of an environment with datatrove")
    parser.add_argument("--gpt2", type=Path, help="folder with OpenAI's encoder.json and vocab.bpe")
    parser.add_argument("--most", type=int, default=5000, help="pages (default: 5000)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, the fastest counts (default: 1)")
    options = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:WORKERS]))
    with tempfile.TemporaryDirectory(prefix="rein-bench-") as name:
        folder = Path(name)
        n_pages, mb = pack(options.pages, options.most, folder / "archives")
        which = make_tokenizer(options.gpt2, folder / "tokenizer.json")
        print(f"{n_pages:,} pages, {mb:.1f} MB of HTML in {ARCHIVES} archives, {which}")
        print(f"{WORKERS} workers, {WORKERS} cores, Python {sys.version.split()[0]}; {load_now()}\n", flush=True)
        headings = f"{'MB/s':>7}{'peak MB':>9}{'extracted':>11}{'kept':>8}{'tokens':>12}"
        print(f"{'':<24}{'wall s':>8}{'CPU s':>8}{'pages/s':>9}{headings}")

        def show(row: Row) -> None:
            took = row.took
            print(
                f"{row.name:<24}{took.wall_s:>8.1f}{took.cpu_s:>8.1f}{n_pages / took.wall_s:>9.0f}"
                f"{mb / took.wall_s:>7.1f}{took.peak_bytes / 1e6:>9,.0f}{row.extracted:>11,}{row.kept:>8,}"
                f"{row.tokens:>12,}",
                flush=True,
            )

        sides: list[Callable[[Path, Path], Row]] = [partial(rein_side, folder / "tokenizer.json")]
        if options.datatrove_python is not None:
            for title, shipped in (("datatrove, as shipped", True), ("datatrove, resiliparse", False)):
                sides.append(partial(peer_side, title, shipped, options.datatrove_python, folder / "tokenizer.json"))
        rows = []
        for side in sides:
            side(folder / "first", work_folder(folder))
            tries = [side(folder / "archives", work_folder(folder)) for _ in range(options.repeat)]
            rows.append(min(tries, key=lambda row: row.took.wall_s))
            show(rows[-1])
    if options.datatrove_python is None:
        print("\ndatatrove is left out: --datatrove-python was not given")
        return 0
    ours, *peers = rows
    print()
    ratios = [row.took.wall_s / ours.took.wall_s for row in peers]
    for row, ratio in zip(peers, ratios, strict=True):
        print(f"rein makes {ratio:.1f} times as many pages a second as {row.name} (target: {TARGET:.0f})")
    return 0 if min(ratios) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
