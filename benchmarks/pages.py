"""Pack local HTML pages into a crawl: a WARC as Common Crawl writes it, from pages that packages and the system carry.

    python benchmarks/pages.py OUT.warc.gz FOLDER... [--most 5000]

The other benchmarks use it, and it makes an input for `rein text build --source warc`.
"""

from __future__ import annotations

import argparse
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from rein.text.warc import Page, write


def html_files(folders: list[Path]) -> list[Path]:
    """The pages below the folders, in an order that hides where they are from, as a crawl's does."""
    found = [path for folder in folders for path in folder.rglob("*.html") if path.is_file()]
    return sorted(found, key=lambda path: hashlib.sha256(str(path).encode()).digest())


def pages(paths: list[Path]) -> Iterator[Page]:
    """Each file as if a server had sent it."""
    for path in paths:
        url = f"http://docs.example/{path.as_posix().lstrip('/')}"
        name = f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>"
        yield Page(name, url, "2017-06-01T00:00:00Z", path.read_bytes(), "html", "utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--most", type=int, default=5000, help="pages")
    options = parser.parse_args()
    chosen = html_files(options.folders)[: options.most]
    write(options.out, pages(chosen))
    n_bytes = sum(path.stat().st_size for path in chosen)
    packed = options.out.stat().st_size
    print(f"{options.out}: {len(chosen):,} pages, {n_bytes / 1e6:,.1f} MB, {packed / 1e6:,.1f} MB packed")


if __name__ == "__main__":
    main()
