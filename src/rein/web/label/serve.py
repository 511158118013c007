"""`rein label serve`: the labeling server.

Flow     a store → `application` (pages.py, and the API of api.py and research*.py behind guard.py) → one process

Nobody has an account at first, and no password is made up. As long as no admin has a password, each start prints
a link that lets one browser in, once, as the researcher; who comes in by it may set one on the account page.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount

from rein import __version__
from rein.config import setting
from rein.errors import UserError
from rein.feedback import people, work
from rein.feedback.store import Store
from rein.web.app import bind, make_app, make_server
from rein.web.label import api, entry, pages, research, research_data, research_items, research_people
from rein.web.label.guard import Guard, speak_json, trouble
from rein.web.label.links import first_link
from rein.web.label.service import Service

ON_LOOPBACK = ("127.0.0.1", "localhost", "::1")
EXPIRE_EVERY_S = 15.0


@dataclass(frozen=True)
class LabelServeConfig:
    """Settings of `rein label serve`."""

    store: str = setting(
        "labels.db", "the feedback store: an SQLite file, or postgresql://USER@HOST/DATABASE", positional=True
    )
    host: str = setting("127.0.0.1", "address to listen on", group="server")
    port: int = setting(8423, "port to listen on; 0: any that is free", group="server")
    allow_host: tuple[str, ...] = setting((), "further names that browsers may call this server by", group="server")
    behind_proxy: str = setting(
        "", "address of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed", group="server"
    )
    max_upload_mb: int = setting(
        1024, "largest file that a researcher may import by the page", unit="MB", group="server"
    )
    browser: bool = setting(True, "open the page in a browser", group="server")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}, but ports go from 0 to 65535.", "Use --port 8423.")
        if self.max_upload_mb < 1:
            raise UserError(f"--max-upload-mb is {self.max_upload_mb}, but it must be above 0.", "Use 1024.")


def serve(config: LabelServeConfig) -> None:
    """Serves a feedback store to labelers and researchers in their browsers.

    It prints the address. As long as no admin has a password, it also prints a link that lets one browser in as the
    researcher, once. Labelers come in by invitations. Ctrl-C ends it; what was answered is in the store.

    Examples
      rein label serve
      rein label serve labels.db --port 9000 --no-browser
      rein label serve postgresql://rein@/labels --host 0.0.0.0 --allow-host labels.example.org --behind-proxy 10.0.0.2
    """
    with Store.open(config.store) as store:
        store.hold()
        sock = bind(config.host, config.port)
        sock.listen(1024)
        host = f"[{config.host}]" if ":" in config.host else config.host
        address = f"http://{host}:{sock.getsockname()[1]}/label"
        link = first_link(store, address)
        print(f"label             {address}")
        if link is not None:
            print(f"come in           {link}  (once, as the researcher; set a password on the account page)")
        print(f"store             {store.address}")
        if config.host not in ON_LOOPBACK and not config.behind_proxy:
            print(
                "                  without TLS whoever is on the way reads along, passwords too: put a proxy in front"
            )
        print("end               Ctrl-C here; what was answered is in the store", flush=True)
        service = Service(store, max_upload_mb=config.max_upload_mb)
        server = make_server(
            application(service, hosts=[*config.allow_host, host]), behind_proxy=config.behind_proxy or None
        )
        with contextlib.suppress(KeyboardInterrupt), sock, _unseen(link if config.browser else None) as way_in:
            if config.browser:
                with contextlib.suppress(webbrowser.Error):
                    webbrowser.open(way_in or address)
            server.run(sockets=[sock])


@contextlib.contextmanager
def _unseen(link: str | None) -> Iterator[str | None]:
    """Where a browser finds a link: a page on this machine that its owner alone may read, for as long as it serves.

    What a browser is started with, everybody on this machine can read in the list of processes.
    """
    if link is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rein-label-") as folder:  # which is its owner's alone
        page = Path(folder) / "come-in.html"
        page.touch(0o600)
        to = html.escape(link)
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><title>rein label</title>'
            f'<meta http-equiv="refresh" content="0; url={to}"><a href="{to}">Come in</a>\n',
            encoding="utf-8",
        )
        yield page.as_uri()


def application(service: Service, *, hosts: tuple[str, ...] | list[str] = ()) -> Starlette:
    """The pages, and the API below /label/api, behind the guards of every page (app.py) and of the API (guard.py)."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(_expire(service))
        try:
            with service.reading_ahead():
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    mount = Mount("/label/api", Guard(make_api(service)))
    app = make_app([mount, *pages.routes()], hosts=hosts, lifespan=lifespan)
    app.add_exception_handler(404, _missing)
    return app


def _missing(request: Request, error: Exception) -> Response:
    """An address that is none of ours; one below /label/api comes here when a line break keeps it from the API."""
    if request.url.path.startswith("/label/api"):
        return trouble(404, "unknown", "Not Found")
    return PlainTextResponse("Not Found", 404)


def make_api(service: Service | None) -> FastAPI:
    """The API alone. What it can do is in /label/api/openapi.json; without a service, nothing but that."""
    made = FastAPI(
        title="rein label", version=__version__, docs_url=None, redoc_url=None, root_path_in_servers=False,
        servers=[{"url": "/label/api"}],
    )  # fmt: skip
    made.state.service = service
    speak_json(made)
    for room in (entry, api, research, research_items, research_people, research_data):
        made.include_router(room.router)
    return made


async def _expire(service: Service) -> None:
    """Gives back, now and then, what nobody holds any more, as a claim does too; and forgets sessions that are over."""
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        with contextlib.suppress(UserError):  # of a store that cannot be written for a while: the next one tries again
            await service.write(lambda conn: work.expire(conn, service.clock()))
            await service.write(lambda conn: people.tidy(conn, service.clock()))
