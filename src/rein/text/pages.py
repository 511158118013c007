"""Web pages: folders of HTML, and the WARC and WET archives of a crawl.

Flow     files → pages (bytes, address, date) → the links that are wanted → extraction → `Document | Dropped`.

Whether a page is wanted is asked before its text is extracted: that is what costs time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from rein.text.documents import Document, Dropped
from rein.text.extract import Limits, decode, extract, tidy
from rein.text.links import Links, keep_linked
from rein.text.recipe import Source
from rein.text.sources import Advance, Folder, Partition, batches, expand, files_of, find_files, size_of
from rein.text.store import load_once
from rein.text.warc import Page
from rein.text.warc import Reader as Archive

HTML_NAMES = (".html", ".htm", ".xhtml")
WARC_NAMES = (".warc", ".warc.gz", ".wet", ".wet.gz")
PARTITION_BYTES = 8 << 20  # of pages: to extract their text takes far longer than to read them
PACKED_BYTES = 2 << 20  # of an archive: six times as much HTML, or more


class HtmlFolder:
    """Every .html, .htm and .xhtml file below the folders, one document per page.

    With links, a page's address is its path: a folder as `wget --mirror` writes it, host first.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._folder = Folder(source, HTML_NAMES)

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return self._folder.inputs()

    def partitions(self) -> list[Partition]:
        """Files in the order of their paths, some megabytes of them at a time."""
        return batches(self._folder.files(), named=len(expand(self._source.paths)) > 1, most_bytes=PARTITION_BYTES)

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per page."""
        for id, path, file in files_of(partition):
            reason = self._folder.unwanted(file)
            if reason:
                yield Dropped(id, reason)
                continue
            n_bytes = size_of(path)
            url = f"http://{quote(file.as_posix())}" if self._source.links else ""
            document = wanted(Document("", id, self._source.name, url, "", {"path": file.as_posix()}), partition)
            if isinstance(document, Dropped):
                yield document
            elif n_bytes > Limits().max_bytes:
                yield Dropped(id, "page too large")
            else:
                try:
                    yield extracted(self._source, document, path.read_bytes(), None)
                except OSError:
                    yield Dropped(id, "unreadable file")
            advance(n_bytes)


class Crawl:
    """WARC and WET archives, plain or gzip: one document per page.

    Archives in gzip, a member per record as Common Crawl's are, are read in parts of some megabytes; others whole.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return find_files(self._source.paths, WARC_NAMES)

    def partitions(self) -> list[Partition]:
        """The archives, in parts.  Raises   UserError when one is no WARC."""
        partitions: list[Partition] = []
        for path in self.inputs():
            archive = Archive(path)
            step = PACKED_BYTES if archive.gzipped else max(archive.size_bytes, 1)
            for start in range(0, archive.size_bytes, step):
                end = min(start + step, archive.size_bytes)
                partitions.append({"file": str(path), "start": start, "end": end, "bytes": end - start})
        return partitions

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per page; every other record is a drop."""
        archive = Archive(Path(partition["file"]), start=partition["start"], end=partition["end"])
        done = archive.position_bytes
        for item in archive:
            yield item if isinstance(item, Dropped) else self._document(item, partition)
            advance(archive.position_bytes - done)
            done = archive.position_bytes

    def _document(self, page: Page, partition: Partition) -> Document | Dropped:
        about = {"path": Path(partition["file"]).name, **page.metadata}
        document = wanted(Document("", page.id, self._source.name, page.url, page.date, about), partition)
        if isinstance(document, Dropped):
            return document
        if page.kind == "text":
            text, encoding = decode(page.payload, page.charset or "utf-8")
            return with_text(self._source, document, tidy(text), {"encoding": encoding})
        return extracted(self._source, document, page.payload, page.charset)


def wanted(document: Document, partition: Partition) -> Document | Dropped:
    """A page, not yet extracted, if it is among the links; any, if the source has none."""
    links = partition.get("links")
    return document if links is None else keep_linked(document, load_once(Links.load, links))


def extracted(source: Source, document: Document, page: bytes, charset: str | None) -> Document | Dropped:
    """The page with its text, or why it has none."""
    found = extract(page, mode=source.extract, charset=charset)
    if isinstance(found, str):
        return Dropped(document.id, found)
    return with_text(source, document, found.text, {"encoding": found.encoding})


def with_text(source: Source, document: Document, text: str, about: Mapping[str, str]) -> Document:
    """The document with its text, and the licence of its source."""
    metadata = {**document.metadata, **about, "license": source.license}
    return Document(text, document.id, document.source, document.url, document.date, metadata)
