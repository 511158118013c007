"""The routes of researchers for files: what others said comes in, and what was said here goes out.

Flow     an upload, piece by piece → a file with a name of ours → import_file → what came in, and which lines did not
         exchange.pieces, or a folder that is packed → a download, of which no more than a piece is in memory

An upload is counted while it comes, and refused when it is larger than the server allows. A download begins when its
first piece is there; what goes wrong before that is an error like any other.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from rein.feedback import items
from rein.feedback.exchange.checking import Given
from rein.feedback.exchange.exporting import export_file, open_export, pieces
from rein.feedback.exchange.importing import import_file
from rein.feedback.exchange.table import FORMATS, named_format
from rein.web.label import bodies
from rein.web.label.guard import ERRORS, Parts, Researcher, StrictRoute, Wrong
from rein.web.label.research import Json, ProjectName, note
from rein.web.label.service import Service

router = APIRouter(prefix="/research", route_class=StrictRoute, responses=ERRORS, tags=["researcher"])
Format = Annotated[str, Query(max_length=40, pattern=bodies.NO_NUL)]
Label = Annotated[str, Query(max_length=100, pattern=bodies.NO_NUL)]
PIECE_BYTES = 65_536
FILES_AT_ONCE = 2
_files = threading.BoundedSemaphore(FILES_AT_ONCE)
_UPLOAD = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_DOWNLOAD: dict[int | str, Json] = {200: {"content": _UPLOAD, "description": "the file"}}


@contextmanager
def _one_of_few() -> Iterator[None]:
    """Files take a connection and a disk's time; labelers need both."""
    if not _files.acquire(blocking=False):
        raise Wrong(
            429, "too_many", "Other files are on their way in or out. Try again in a moment.", {"retry-after": "5"}
        )
    try:
        yield
    finally:
        _files.release()


@router.get("/formats")
async def formats(caller: Researcher) -> Json:
    """The forms of files that are read and written."""
    whole = ("hf", "tamer")  # folders, and the record of a lesson
    return {
        "formats": [
            {
                "name": one.name, "says": one.says, "reads": one.reads is not None or one.name == "tamer",
                "writes": one.writes is not None or one.name in whole, "kinds": list(one.kinds),
            }
            for one in FORMATS.values()
        ]
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ in


@router.post("/projects/{name}/import", openapi_extra={"requestBody": {"content": _UPLOAD, "required": True}})
async def take(
    name: ProjectName, caller: Researcher, service: Parts, request: Request, format: Format = "", batch: Label = "",
    role: Literal["", "work", "calibration", "gold", "onboarding", "drift"] = "", dry: Literal["0", "1"] = "0",
    file: Annotated[str, Query(max_length=255, pattern=bodies.NO_NUL)] = "",
) -> Json:  # fmt: skip
    """Takes a file in, or says what would come in (`dry=1`). Without `format`, its first row tells which it is.

    `file` is its name on the researcher's machine, of which the ending alone matters, and which the audit log keeps.
    """
    await service.read(lambda conn: items.load_project(conn, name))

    async def write(act: str, about: Json) -> None:
        await service.write(lambda conn: note(conn, service.clock(), caller, act, about))

    given = Given(batch, role)
    ending = "".join(one for one in Path(file).suffixes[-2:] if one in (".json", ".jsonl", ".gz", ".zst"))
    with _one_of_few(), tempfile.TemporaryDirectory(prefix="rein-import-") as folder:
        path = Path(folder) / f"upload{ending}"
        await _save(request, path, service.max_upload_mb * 1_000_000)
        if dry == "0":
            await write("begin import", {"project": name, "format": format, "file": file})
        done = await run_in_threadpool(import_file, service.store, name, format, path, given=given, dry=dry == "1")
        found = {
            "format": done.format, "added": done.added, "known": done.known, "answers": done.answers,
            "lines": done.lines, "bad": [{"line": one.line, "problem": one.problem} for one in done.bad],
            "bad_total": done.bad_total, "unseen": list(done.unseen),
        }  # fmt: skip
    if dry == "0":
        about = {"project": name, "format": done.format, "items": done.added, "answers": done.answers, "file": file}
        await write("import", about)
    return found


async def _save(request: Request, path: Path, most: int) -> None:
    """The body as a file. Raises Wrong when it is too large."""
    too_large = Wrong(413, "too_large", f"A file has at most {most // 1_000_000:,} MB here (--max-upload-mb).")
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or int(said[:20]) > most:
        raise too_large
    length = 0
    with path.open("wb") as file:
        async for part in request.stream():
            length += len(part)
            if length > most:
                raise too_large
            await run_in_threadpool(file.write, part)


# ----------------------------------------------------------------------------------------------------------------- out


@router.get("/projects/{name}/export", response_class=Response, responses=_DOWNLOAD)
async def give(
    name: ProjectName, caller: Researcher, service: Parts, format: Format = "rein",
    ties: Literal["drop", "half", "both"] = "drop", split: Label = "", batch: Label = "", question: Label = "",
    implicit: bool = False, margin: bool = False, names: bool = False,
) -> Response:  # fmt: skip
    """Gives a project's answers as a file. Labelers go by pseudonyms unless `names`."""
    how = named_format(format)
    options = {
        "ties": ties, "split": split or None, "batches": (batch,) if batch else (), "question": question,
        "implicit": implicit, "margin": margin, "names": names,
    }  # fmt: skip
    await service.read(lambda conn: items.load_project(conn, name))
    whole = how.writes is None
    parts = _packed(service, name, format, options) if whole else _pieces(service, name, format, options)
    first = await run_in_threadpool(next, parts, b"")
    await service.write(
        lambda conn: note(conn, service.clock(), caller, "export", {"project": name, "format": format, "names": names})
    )
    ending = ".zip" if whole else ".json" if how.style == "list" else ".jsonl"
    filename = "".join(one if one.isascii() and one.isalnum() else "-" for one in f"{name}-{format}") + ending
    headers = {"content-disposition": f'attachment; filename="{filename}"'}
    return StreamingResponse(_with_first(first, parts), media_type="application/octet-stream", headers=headers)


def _with_first(first: bytes, parts: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from parts


def _pieces(service: Service, name: str, format: str, options: Json) -> Iterator[bytes]:
    """A file row by row, gathered to pieces."""
    with _one_of_few(), service.store.reading() as conn:
        export = open_export(conn, name, secret=service.store.secret, **options)
        gathered = bytearray()
        for row in pieces(export, format):
            gathered += row
            if len(gathered) >= PIECE_BYTES:
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered)


def _packed(service: Service, name: str, format: str, options: Json) -> Iterator[bytes]:
    """A folder, written beside and packed."""
    with _one_of_few(), ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rein-export-")))
        with service.store.reading() as conn:
            export_file(open_export(conn, name, secret=service.store.secret, **options), format, place / "out")
        made = shutil.make_archive(str(place / "packed"), "zip", place / "out")
        with open(made, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
