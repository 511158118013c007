"""A client of the labeling server: what can be asked of it, sent again until it is answered, counted once.

Flow     a call (`claim("tldr")`, `submit(…)`: what is sent, and whether it may be sent twice) → `Client`, `AsyncClient`
         → JSON, or `Denied` with the server's own words

A submission has a key of its own from the moment it is made, so that sending it again after a lost connection or a
restart of the server cannot count it twice. What has no such key is sent again only where it surely did not arrive.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from rein.errors import UserError

Json = Any
PATIENCE_S = 30.0
FIRST_WAIT_S = 0.05  # doubled with every try, up to two seconds
LONGEST_WAIT_S = 2.0


def checked_address(address: str) -> str:
    """The address of a server, without a slash at its end.

    Example  >>> checked_address("https://labels.example.org/")
             'https://labels.example.org'
    Raises   UserError for one that does not begin with http:// or https://, and for one without a name.
    """
    try:
        found = urlsplit(address)
        usable = found.scheme in ("http", "https") and bool(found.hostname) and address.isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise UserError(
            f"--address is {address!r}, which is no address of a server.",
            "Write http:// or https:// and its name, as `rein label serve` prints it: http://127.0.0.1:8423.",
        )
    return address.rstrip("/")


class Denied(Exception):
    """The server understood, and refused."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{text} ({status}, {code})")
        self.status, self.code, self.text = status, code, text


@dataclass(frozen=True)
class Call:
    """One request below /label/api."""

    method: str
    path: str
    body: Json = None  # sent as JSON; bytes as they are
    query: Mapping[str, str | int | float] | None = None
    again: bool = True  # sending it twice does what sending it once does


# ------------------------------------------------------------------------------------------------- a labeler's calls


def login(name: str, password: str) -> Call:
    """Opens a session: the client keeps its cookie."""
    return Call("POST", "/login", {"name": name, "password": password})


def enter(token: str) -> Call:
    """The same, by a link that works once: what stands behind its #."""
    return Call("POST", "/enter", {"token": token}, again=False)


def join(token: str, name: str, password: str) -> Call:
    """A new person, by an invitation, with a session."""
    return Call("POST", "/join", {"token": token, "name": name, "password": password}, again=False)


def me() -> Call:
    """Who this is, its projects and messages."""
    return Call("GET", "/me")


def claim(project: str, count: int = 1) -> Call:
    """{"items": cards, "nothing": why there are none}; open ones come again, so it may be asked twice."""
    return Call("POST", "/claim", {"project": project, "count": count})


def reveal(assignment: int, notes: Sequence[str], *, key: str | None = None) -> Call:
    """The card with its source, in exchange for a note on each candidate."""
    return Call("POST", "/reveal", {"key": key or new_key(), "assignment": assignment, "notes": list(notes)})


def submit(
    card: Mapping[str, Json],
    answers: Mapping[str, Json],
    *,
    notes: Sequence[str] | None = None,
    diff: bool = False,
    times: Mapping[str, Json] | None = None,
    key: str | None = None,
) -> Call:
    """Answers to a card's questions, in the order of the screen."""
    body = {
        "key": key or new_key(), "assignment": card["assignment"], "revision": card["revision"],
        "answers": dict(answers), "diff": diff, "times": dict(times or {}),
    }  # fmt: skip
    return Call("POST", "/submit", body if notes is None else {**body, "notes": list(notes)})


def skip(assignment: int, reason: str, *, key: str | None = None) -> Call:
    """No answer, and why."""
    return Call("POST", "/skip", {"key": key or new_key(), "assignment": assignment, "reason": reason})


def undo(assignment: int, *, key: str | None = None) -> Call:
    """The card of an answered item, open again."""
    return Call("POST", "/undo", {"key": key or new_key(), "assignment": assignment})


def ask(assignment: int, text: str, *, key: str | None = None) -> Call:
    """A question to the researchers about an item."""
    return Call("POST", "/ask", {"key": key or new_key(), "assignment": assignment, "text": text})


def heartbeat(assignments: Sequence[int]) -> Call:
    """Keeps leases for longer."""
    return Call("POST", "/heartbeat", {"assignments": list(assignments)})


def release(assignments: Sequence[int]) -> Call:
    """Gives items back."""
    return Call("POST", "/release", {"assignments": list(assignments)})


def instructions(project: str) -> Call:
    """What stands beside the task, by version, and what was pinned below it."""
    return Call("GET", "/instructions", query={"project": project})


def history(project: str) -> Call:
    """What this person did last, newest first."""
    return Call("GET", "/history", query={"project": project})


def threads(project: str) -> Call:
    """This person's questions, with replies."""
    return Call("GET", "/threads", query={"project": project})


def mine(project: str) -> Call:
    """A labeler's own numbers."""
    return Call("GET", "/mine", query={"project": project})


# ---------------------------------------------------------------------------------------------- a researcher's calls


def projects() -> Call:
    """The projects there are."""
    return Call("GET", "/research/projects")


def make_project(settings: Mapping[str, Json]) -> Call:
    """A new project, by project.Project as JSON."""
    return Call("POST", "/research/projects", {"settings": dict(settings)}, again=False)


def import_file(project: str, body: bytes, *, format: str = "", batch: str = "", dry: bool = False) -> Call:
    """Takes a file in: {"added", "known", "answers", "bad", …}. Items that are there already are known, not doubled."""
    query: dict[str, str | int] = {"dry": int(dry), **({"format": format} if format else {})}
    return Call("POST", f"/research/projects/{project}/import", body, {**query, **({"batch": batch} if batch else {})})


def export(project: str, format: str = "rein") -> Call:
    """A project's answers as the text of a file, whole in memory: `rein label export` is for what is large."""
    return Call("GET", f"/research/projects/{project}/export", query={"format": format})


def items(project: str) -> Call:
    """The first fifty items, as a researcher sees them."""
    return Call("GET", f"/research/projects/{project}/items")


def people() -> Call:
    """Everybody."""
    return Call("GET", "/research/people")


def progress(project: str) -> Call:
    """Counts by batch, role and state."""
    return Call("GET", f"/research/projects/{project}/progress")


def agreement(project: str, batch: str | None = None) -> Call:
    """The report of agreement."""
    return Call("GET", f"/research/projects/{project}/agreement", query={"batch": batch} if batch else None)


def invite(
    role: str = "labeler", *, project: str | None = None, person: int | None = None, uses: int = 1, hours: float = 1.0
) -> Call:
    """{"link": …}: its token stands behind the #."""
    body = {"role": role, "project": project, "person": person, "uses": uses, "hours": hours}
    return Call("POST", "/research/invites", {k: v for k, v in body.items() if v is not None}, again=False)


def new_key() -> str:
    """A key that no other submission has."""
    return secrets.token_urlsafe(24)


# ------------------------------------------------------------------------------------------------------------ sending


class Client:
    """Sends calls one after the other.

    Example  with Client("http://127.0.0.1:8423", key="…") as client:
                 cards = client.send(claim("tldr"))["items"]
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        patience_s: float | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`key`: of a researcher, made on the page "People"; without one, `login`, `join` or `enter` comes first.

        `patience_s`: how long an answer is waited for, all tries together; PATIENCE_S if not given.
        """
        self.address, self._patience_s = address.rstrip("/"), patience_s
        self._http = httpx.Client(**_settings(self.address, key), transport=transport)

    def send(self, call: Call) -> Json:
        """The answer.

        Raises   Denied with the server's reason; UserError when there was no answer, however often it was asked.
        """
        tries = _Tries(call, self.address, self._patience_s)
        while True:
            with tries.noting():
                tries.response = self._http.request(**_request(call))
            if tries.over():
                return tries.result()
            time.sleep(tries.wait_s())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """The same, for many at once in one program: `await client.send(claim("tldr"))`."""

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        patience_s: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As `Client`."""
        self.address, self._patience_s = address.rstrip("/"), patience_s
        self._http = httpx.AsyncClient(**_settings(self.address, key), transport=transport)

    async def send(self, call: Call) -> Json:
        """As `Client.send`."""
        tries = _Tries(call, self.address, self._patience_s)
        while True:
            with tries.noting():
                tries.response = await self._http.request(**_request(call))
            if tries.over():
                return tries.result()
            await asyncio.sleep(tries.wait_s())

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _settings(address: str, key: str | None) -> dict[str, Any]:
    # The origin says that these requests are meant for this very server, as a page of it would.
    headers = {"authorization": f"Bearer {key}"} if key else {"origin": address}
    return {"base_url": f"{address}/label/api", "headers": headers, "timeout": 20.0}


def _request(call: Call) -> dict[str, Any]:
    content = {"content": call.body} if isinstance(call.body, bytes) else {"json": call.body}
    return {"method": call.method, "url": call.path, "params": call.query, **(content if call.body is not None else {})}


class _Tries:
    """What came of the tries of one call so far, and whether there is to be another."""

    def __init__(self, call: Call, address: str, patience_s: float | None) -> None:
        self.call, self.address = call, address
        self.response: httpx.Response | None = None
        self._trouble: httpx.TransportError | None = None
        self._until, self._wait_s = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s), FIRST_WAIT_S

    @contextmanager
    def noting(self) -> Iterator[None]:
        """One try: a broken connection is noted, not raised."""
        self.response, self._trouble = None, None
        try:
            yield
        except httpx.TransportError as error:
            self._trouble = error

    def over(self) -> bool:
        """Whether what came is the last word."""
        if self.response is not None:
            code = self.response.status_code
            # 429 and 503 say that nothing was done; another 5xx may have come after it was.
            once_more = code in (429, 503) or (code >= 500 and self.call.again)
        else:
            never_sent = isinstance(self._trouble, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
            once_more = never_sent or self.call.again
        return not once_more or time.monotonic() + self._next_s() > self._until

    def _next_s(self) -> float:
        asked = self.response.headers.get("retry-after", "") if self.response is not None else ""
        return float(asked) if asked.isdigit() else self._wait_s

    def wait_s(self) -> float:
        """How long to wait before the next try; not the same for all who wait."""
        wait_s, self._wait_s = self._next_s(), min(2 * self._wait_s, LONGEST_WAIT_S)
        return wait_s * random.uniform(0.8, 1.2)

    def result(self) -> Json:
        """The answer's JSON, or text where it is none."""
        if self.response is None:
            raise UserError(
                f"{self.address} does not answer ({self._trouble or 'no connection'}).",
                "Start the server with `rein label serve`, or check the address.",
            ) from self._trouble
        kind = self.response.headers.get("content-type", "").partition(";")[0]
        if self.response.is_success:
            return self.response.json() if kind == "application/json" else self.response.text
        try:
            error = self.response.json()["error"]
            raise Denied(self.response.status_code, str(error["code"]), str(error["text"]))
        except (ValueError, KeyError, TypeError):
            raise Denied(self.response.status_code, "unknown", self.response.text[:200]) from None
