"""What stands before every route of the API: where a request may come from, how large it may be, who is asking.

Flow     request → `Guard` (origin, size) → `StrictRoute` (strict JSON) → `caller` (session or key, rate) → a route

A request that changes something must come from a page of this server, or from a program that sends a key and no cookie
(Sec-Fetch-Site, else Origin). A body is counted before it is read as anything; that of an import, the only large one,
is not begun before it is known that a researcher sends it. JSON with NUL, lone surrogates, numbers that no database
holds, or the same name twice is refused before a route sees it. Errors are JSON, whatever went wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rein.errors import UserError
from rein.feedback.database import StoreFault
from rein.feedback.people import Person
from rein.feedback.refused import Refused
from rein.report.legible import visible
from rein.web.app import same_origin
from rein.web.label.bodies import INT64, Trouble
from rein.web.label.limits import retry_after
from rein.web.label.service import Service

COOKIE = "rein_label"
MAX_BODY_BYTES = 1_000_000
MAX_DEPTH = 50
SAFE = ("GET", "HEAD", "OPTIONS")
STREAMED = re.compile(r"/label/api/research/projects/[^/]+/import")  # counts its body itself, as it comes
STATUS = {
    "unknown": 404, "not_yours": 404, "not_open": 422, "stale": 412, "frozen": 422, "stopped": 403, "bad_value": 422,
    "not_revealed": 422, "key_reused": 422, "too_many": 429,
}  # fmt: skip
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Trouble, "description": says}
    for code, says in (
        (400, "not JSON"), (401, "nobody is logged in"), (403, "not for this person"), (404, "there is no such thing"),
        (412, "it was changed meanwhile"), (413, "too large"), (422, "a value that is none"), (429, "too often"),
        (503, "the store cannot be used now"),
    )
}  # fmt: skip


class Wrong(HTTPException):
    """An error as the API says it: a status, a word for programs, a sentence for people."""

    def __init__(self, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, text, headers)
        self.code, self.text = code, text


def trouble(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as JSON."""
    return JSONResponse({"error": {"code": code, "text": text}}, status, headers)


# --------------------------------------------------------------------------------------------- before anything is read


class Guard:
    """Refuses a request of another site, and one that is too large; hands on the others with their body read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":  # there is none below here, whatever page asks
            return await send({"type": "websocket.close", "code": 1008})
        connection = HTTPConnection(scope)
        if scope["method"] not in SAFE and not _from_here(connection):
            answer = trouble(403, "origin", "This request comes from a page of another site.")
            return await answer(scope, receive, send)
        if scope["method"] == "POST" and STREAMED.fullmatch(scope["path"]):
            return await self.app(scope, receive, send)
        body = await _body(connection, receive)
        if body is None:
            answer = trouble(413, "too_large", f"A request has at most {MAX_BODY_BYTES:,} bytes.")
            return await answer(scope, receive, send)
        await self.app(scope, _replay(body, receive), send)


def _from_here(connection: HTTPConnection) -> bool:
    """Whether a request that changes something comes from a page of this server, or from a program with a key."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    if "origin" in connection.headers:
        return same_origin(connection)
    return COOKIE not in connection.cookies  # every browser of today names one of the two


async def _body(connection: HTTPConnection, receive: Receive) -> bytes | None:
    """The whole body; None when it is too large."""
    said = connection.headers.get("content-length", "0")
    if not said.isdecimal() or int(said[:20]) > MAX_BODY_BYTES:
        return None
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        length += len(part)
        if length > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


# --------------------------------------------------------------------------------------------------------- strict JSON


class StrictRoute(APIRoute):
    """A route whose JSON is read by `strict_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, of another request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle


class _StrictRequest(Request):
    async def json(self) -> Any:
        return strict_json(await self.body())


def strict_json(body: bytes) -> Any:
    """JSON as both databases can keep it.

    Example  >>> strict_json(b'{"a": 1}')
             {'a': 1}
    Raises   Wrong for what is not JSON, and for NUL, lone surrogates, NaN, infinities, whole numbers beyond 64 bits,
             a name that stands twice in an object, or nesting beyond 50.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Wrong(400, "bad_json", "The body is not UTF-8.") from None
    except RecursionError:
        raise Wrong(400, "bad_json", f"The JSON is nested deeper than {MAX_DEPTH}.") from None
    except ValueError as error:
        raise Wrong(400, "bad_json", f"The body is not JSON: {visible(str(error), 200)}.") from None
    _check(value, MAX_DEPTH)
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise Wrong(400, "bad_json", f"The JSON is nested deeper than {MAX_DEPTH}.")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, int) and not -INT64 - 1 <= value <= INT64:
        raise Wrong(422, "bad_value", "A number has more than 64 bits.")
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise Wrong(422, "bad_value", "A number is too large.")
    elif isinstance(value, list):
        for one in value:
            _check(one, depth - 1)
    elif isinstance(value, dict):
        for name, one in value.items():
            check_text(name)
            _check(one, depth - 1)


def check_text(text: str) -> None:
    """Raises   Wrong for a text that no database keeps as it is."""
    if "\x00" in text:
        raise Wrong(422, "bad_value", "A text holds the character NUL.")
    if not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text):
        raise Wrong(422, "bad_value", "A text holds half of a character (a lone surrogate).")


# ------------------------------------------------------------------------------------------------------- who is asking


@dataclass(frozen=True)
class Caller:
    """The person behind a request."""

    person: Person
    address: str


def service_of(request: Request) -> Service:
    """The server's parts."""
    found: Service = request.app.state.service
    return found


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


def token_of(request: Request) -> str | None:
    """The key or the cookie of a request."""
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    return request.cookies.get(COOKIE)


async def caller(request: Request, service: Annotated[Service, Depends(service_of)]) -> Caller:
    """Who is asking.

    Raises   Wrong: 401 for nobody, 429 for somebody who asks too often.
    """
    token, address = token_of(request), address_of(request)
    person = None
    if token is not None and len(token) <= 200 and token.isascii():
        person = await service.who(token)
    if person is None:
        if wait := service.limits.stranger.take(address):
            raise Wrong(429, "too_many", "Too many requests. Wait a little.", retry_after(wait))
        raise Wrong(401, "login", "Log in first.")
    found = Caller(person, address)
    if wait := service.limits.session.take(person.session):
        raise Wrong(429, "too_many", "Too many requests. Wait a little.", retry_after(wait))
    return found


async def researcher(found: Annotated[Caller, Depends(caller)]) -> Caller:
    """A caller who may see what labelers may not.

    Raises   Wrong: 403 for a labeler.
    """
    if not found.person.may("researcher"):
        raise Wrong(403, "forbidden", "This is for researchers.")
    return found


Asker = Annotated[Caller, Depends(caller)]
Researcher = Annotated[Caller, Depends(researcher)]
Parts = Annotated[Service, Depends(service_of)]


# ----------------------------------------------------------------------------------------------------- errors, as JSON


def speak_json(api: FastAPI) -> None:
    """Every error of `api` leaves as {"error": {"code", "text"}}."""

    @api.exception_handler(Wrong)
    async def wrong(request: Request, error: Wrong) -> Response:
        return trouble(error.status_code, error.code, error.text, dict(error.headers or {}))

    @api.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        # Whose it is, is nobody's business: the same words as for what is not there.
        if error.code == "not_yours":
            error = Refused("unknown", "There is no such item.")
        return trouble(STATUS[error.code], error.code, error.text, retry_after(1) if error.code == "too_many" else None)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        says = visible(f"{where}: {first['msg']}" if where else str(first["msg"]), 500)
        return trouble(422, "bad_value", says)

    @api.exception_handler(StarletteHTTPException)
    async def plain(request: Request, error: StarletteHTTPException) -> Response:
        code = {404: "unknown", 405: "method", 400: "bad_json"}.get(error.status_code, "error")
        return trouble(error.status_code, code, str(error.detail), dict(error.headers or {}))

    @api.exception_handler(UserError)
    async def value(request: Request, error: UserError) -> Response:
        return trouble(422, "bad_value", f"{error.problem} {error.fix}")

    @api.exception_handler(StoreFault)
    async def store(request: Request, error: StoreFault) -> Response:
        print(f"UserError: {error}", flush=True)
        return trouble(
            503, "store", "The server's store cannot be used now. What was acknowledged is kept; try again.",
            retry_after(5),
        )  # fmt: skip

    @api.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> Response:
        return trouble(500, "ours", "The server made a mistake. It is in its log.")
