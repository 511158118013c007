"""The one web application: routes, and what holds for every page.

Every answer forbids what the pages do not need: scripts, styles and connections of other origins, inline code, framing.
A request must name a host that this server is known by, which stops other sites from reaching it through a name of
theirs; a WebSocket must come from a page of this server. Everything is served from the package: nothing is fetched.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from rein.errors import UserError

HERE = Path(__file__).parent
UPLOT = HERE.parent / "report" / "static" / "vendor" / "uplot"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


class SafeHeaders:
    """Puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)


def make_app(
    routes: Sequence[BaseRoute], *, hosts: Sequence[str] = (), lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """The application with these routes, the static files, and the headers; `hosts` are further names it answers to."""
    statics = [
        Mount("/static/uplot", StaticFiles(directory=UPLOT)),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    middleware = [
        Middleware(SafeHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *hosts], www_redirect=False),
    ]
    return Starlette(routes=[*routes, *statics], middleware=middleware, lifespan=lifespan)


def same_origin(connection: HTTPConnection) -> bool:
    """Whether a request comes from a page of this server; programs, which name no origin, pass."""
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises   UserError when the port is taken, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by its name: asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP, and without
    # that a press's answer waits up to 40 ms for the page's next acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"{host}:{port} cannot be listened on: {what}.", "Choose another --port; 0 takes any that is free."
        ) from None
    return sock


def make_server(app: ASGIApp, *, behind_proxy: str | None = None) -> uvicorn.Server:
    """A server of `app`, quiet, one process: sessions live in its memory. Ctrl-C and SIGTERM end it in good order.

    Who asks, and whether by TLS, is believed of X-Forwarded-For and X-Forwarded-Proto where the proxy of the address
    `behind_proxy` says so, and of nobody else: uvicorn by itself believes whoever comes from this machine.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, ws="websockets-sansio", ws_max_size=65_536, ws_ping_interval=20,
            timeout_graceful_shutdown=2, lifespan="on", proxy_headers=behind_proxy is not None,
            forwarded_allow_ips=behind_proxy,
        )
    )  # fmt: skip
    # uvicorn's own raises the signal once more when all is over, which would print a traceback of a normal end.
    setattr(server, "capture_signals", functools.partial(_end_on_signals, server))  # noqa: B010
    return server


@contextlib.contextmanager
def _end_on_signals(server: uvicorn.Server) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {which: signal.signal(which, server.handle_exit) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
