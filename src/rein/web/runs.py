"""`rein runs watch`: a page of all runs below a folder, which follows them; a run's report and comparisons on demand.

Flow     run folders → `Shelf`, which reads what was appended → JSON, every few seconds → the page (static/runs/runs.js)
         a run, or several chosen → report/page.py → the page of `rein report`, drawn anew from its folder
         a loop, a reward model, policies side by side → PAGES → the page that their command writes, likewise

The page only reads: there is nothing here that changes a run, and every request is a GET. A run is asked for by an id
that this server gave out, never by a path. What a run holds goes to the page as JSON and from there into text nodes.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import re
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rein import __version__
from rein.config import setting
from rein.errors import UserError
from rein.evals import policies_page, reward_report
from rein.loop import timeline
from rein.report.legible import evenly, number, one_line, visible
from rein.report.page import compare, render
from rein.report.runs import RunReader, Summary, cells, find_runs
from rein.web.app import bind, make_app, make_server, same_origin, templates

CURVE_POINTS = 48  # of a curve in the table
COMPARED = 24  # runs on one page of curves
REPORT_STATIC = Path(__file__).parent.parent / "report" / "static"
Draw = Callable[[Path], str]


def _from_json(file: str, render_page: Callable[[str, Any], str]) -> Draw:
    return lambda run: render_page(run.resolve().name, json.loads((run / file).read_bytes()))


@dataclass(frozen=True)
class Page:
    """A page that some runs have besides their report."""

    file: str  # there where a run has such a page
    draw: Draw
    first: bool  # it is what the run's name opens: there are no curves


PAGES = {
    "timeline": Page(timeline.PAGE, timeline.render, first=True),
    "quality": Page("quality.json", _from_json("quality.json", reward_report.render), first=False),
    "policies": Page("policies.json", _from_json("policies.json", policies_page.render), first=True),
}


@dataclass(frozen=True)
class WatchConfig:
    """Settings of `rein runs watch`."""

    folder: Path = setting(Path("runs"), "folder that has runs below it", positional=True)
    host: str = setting("127.0.0.1", "address to listen on", group="server")
    port: int = setting(8422, "port to listen on; 0: any that is free", group="server")
    allow_host: tuple[str, ...] = setting((), "further names that browsers may call this server by", group="server")
    browser: bool = setting(True, "open the page in a browser", group="server")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}, but ports go from 0 to 65535.", "Use --port 8422.")


def watch(config: WatchConfig) -> None:
    """Shows the runs below a folder on a page that follows them; a click opens a run's report, several are compared.

    It prints the page's address. The page only reads; Ctrl-C ends it, and the runs go on.

    Examples
      rein runs watch
      rein runs watch /scratch/runs --port 9000 --no-browser
    """
    shelf = Shelf(config.folder)
    sock = bind(config.host, config.port)
    sock.listen(128)
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{sock.getsockname()[1]}/runs"
    print(f"runs   {address}")
    if config.host not in ("127.0.0.1", "localhost", "::1"):
        print("       anyone who reaches this port can read them")
    print("end    Ctrl-C here; the runs go on", flush=True)
    server = make_server(application(shelf, hosts=[*config.allow_host, host]))
    if config.browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[sock])


# ---------------------------------------------------------------------------------------------------- what is shown


class Shelf:
    """The runs below a folder, each with what is known of it from the last look. Threads share it."""

    def __init__(self, folder: Path) -> None:
        """Raises   UserError when `folder` is no folder."""
        self.folder = folder
        self._readers: dict[str, RunReader] = {}
        self._lock = threading.Lock()
        self.look()

    def look(self) -> list[tuple[str, Summary]]:
        """Every run that is there now, with its id.

        Raises   UserError when the folder is gone.
        """
        with self._lock:
            paths = {_id(path): path for path in find_runs([self.folder])}
            self._readers = {id: self._readers.get(id) or RunReader(path) for id, path in paths.items()}
            return [(id, reader.summary()) for id, reader in self._readers.items()]

    def paths(self, ids: Sequence[str]) -> list[Path]:
        """The folders of runs that were seen.

        Raises   UserError for an id that was never given out, or whose run is gone.
        """
        with self._lock:
            for id in ids:
                if id not in self._readers:
                    raise UserError("There is no such run here any more.", "Go back to the table.")
            return [self._readers[id].path for id in dict.fromkeys(ids)]


def _id(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def as_row(id: str, run: Summary, folder: Path) -> dict[str, Any]:
    """A run for the page: texts to show, numbers to sort by."""
    _, state, model, tokens, loss, bits, best, speed, _ = cells(run)
    name = run.path.relative_to(folder) if run.path != folder else Path(folder.resolve().name)
    curve = evenly(run.curve, CURVE_POINTS)
    pages = [kind for kind, page in PAGES.items() if (run.path / page.file).is_file()]
    first = next((kind for kind in pages if PAGES[kind].first), "")
    return {
        "id": id, "name": one_line(str(name)), "pages": pages, "first": first, "state": state, "why": run.why,
        "model": _rounds(run.path) if "timeline" in pages else model,
        "tokens": tokens, "done_frac": run.done_frac, "loss": loss, "bits": bits, "best": best, "speed": speed,
        "time_left_s": _time_left_s(run), "started": run.started, "notes": list(run.notes),
        "curve": [[x, y] for x, y in curve], "curve_said": _said(curve),
        "sort": {
            "tokens": run.tokens, "loss": run.train_loss, "bits": run.best_heldout_bits_per_byte,
            "speed": run.tokens_per_s, "done": run.done_frac,
        },
    }  # fmt: skip


def _rounds(loop: Path) -> str:
    """How far a loop is."""
    try:
        rounds = timeline.read_rounds(loop)
    except UserError as error:
        return one_line(error.problem, 300)
    return f"loop, round {rounds[-1].number}, {rounds[-1].state}" if rounds else "loop"


def _time_left_s(run: Summary) -> float | None:
    if run.state != "running" or not run.tokens_per_s or run.tokens is None or not run.train_tokens:
        return None
    return max(run.train_tokens - run.tokens, 0.0) / run.tokens_per_s


def _said(curve: Sequence[tuple[float, float]]) -> str:
    return f"training loss from {number(curve[0][1])} to {number(curve[-1][1])}" if curve else "no training loss yet"


# --------------------------------------------------------------------------------------------------------- the server


def application(shelf: Shelf, *, hosts: Sequence[str] = ()) -> ASGIApp:
    """The page, its data, and the reports, behind the guards of every page (app.py)."""
    return FirstPolicy(make_app(routes(shelf), hosts=hosts))


def routes(shelf: Shelf) -> list[Route | Mount]:
    """Plain functions, which starlette runs in threads: reading folders takes a while."""

    def home(request: Request) -> Response:
        return RedirectResponse("/runs")

    def page(request: Request) -> Response:
        name = one_line(str(shelf.folder))
        return HTMLResponse(templates.get_template("runs.html").render(folder=name, version=__version__))

    def data(request: Request) -> Response:
        if not same_origin(request):
            return JSONResponse({"trouble": "This request comes from another site."}, 403)
        try:
            rows = [as_row(id, run, shelf.folder) for id, run in shelf.look()]
        except UserError as error:
            return JSONResponse({"trouble": visible(str(error))}, 503)
        body = json.dumps({"runs": rows}, separators=(",", ":"), allow_nan=False).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, media_type="application/json", headers={"etag": tag})

    def report(request: Request) -> Response:
        return _drawn(lambda: render(shelf.paths([request.path_params["id"]])[0]))

    def page_of(request: Request) -> Response:
        return _drawn(lambda: _page(request.path_params["kind"], shelf.paths([request.path_params["id"]])[0]))

    def comparison(request: Request) -> Response:
        ids = list(dict.fromkeys(request.query_params.getlist("run")))
        return _drawn(lambda: compare(shelf.paths(_fit(ids))))

    return [
        Route("/", home),
        Route("/runs", page),
        Route("/runs/data", data),
        Route("/runs/report/{id:str}", report),
        Route("/runs/page/{kind:str}/{id:str}", page_of),
        Route("/runs/compare", comparison),
        Mount("/static/report", StaticFiles(directory=REPORT_STATIC)),
    ]


def _page(kind: str, run: Path) -> str:
    if kind not in PAGES or not (run / PAGES[kind].file).is_file():
        raise UserError("This run has no such page.", "Go back to the table.")
    try:
        return PAGES[kind].draw(run)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"The page cannot be drawn: {PAGES[kind].file}, or what it is drawn from, is damaged.",
            "Run the command again that made it.",
        ) from None


def _fit(ids: list[str]) -> list[str]:
    if not 2 <= len(ids) <= COMPARED:
        raise UserError(
            f"A comparison has 2 to {COMPARED} runs, and {len(ids)} are chosen.", "Go back to the table and choose."
        )
    return ids


def _drawn(draw: Callable[[], str]) -> Response:
    """A report with the policy that it brings, which allows its own script and style; or why there is none."""
    try:
        text = draw()
    except UserError as error:
        body = templates.get_template("runs-trouble.html").render(
            problem=visible(error.problem), fix=visible(error.fix)
        )
        return HTMLResponse(body, 404)
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    assert found, "a report without a policy"
    policy = f"{html.unescape(found[1])}; frame-ancestors 'none'"
    return HTMLResponse(text, headers={"content-security-policy": policy})


class FirstPolicy:
    """Where an answer brings a content security policy of its own, that one holds, not the application's after it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = [i for i, (name, _) in enumerate(message["headers"]) if name == b"content-security-policy"]
                message["headers"] = [pair for i, pair in enumerate(message["headers"]) if i not in named[1:]]
            await send(message)

        await self.app(scope, receive, sent)
