"""A lesson in real time, behind the trainer page. It owns the clock; a page shows, and says what was pressed when.

    clock        a step every --step-s seconds, whatever the page does; pause, single step, speed
    presses      credited at the time the trainer meant: when the step on the screen was shown, plus how long it had
                 been there when the key went down. So neither the network nor the drawing is in the credit window
    people       one controller, who holds the key of the address that was printed; any number of watchers
    nothing lost every press has an id; a page keeps it until it is answered, and sends it again after a lost connection

Flow     browser ⇄ WebSocket ⇄ `Classroom` → `Lesson` → record.jsonl, h.safetensors

Everything that touches the lesson runs on one thread of its own, in the order in which it came; the event loop only
carries messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import secrets
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.websockets import WebSocket, WebSocketDisconnect

from rein import __version__
from rein.agents.lesson import Lesson, Shown
from rein.agents.lesson_files import finish_lesson
from rein.agents.plain import sarsa_band
from rein.agents.simulation import TrainerConfig, trainer_name
from rein.agents.tamer_rl import TamerRL
from rein.agents.tasks import Task
from rein.errors import UserError
from rein.feedback.credit import Gamma, Uniform
from rein.feedback.record import RecordWriter
from rein.feedback.simulate import SimulatedTrainer
from rein.web.app import same_origin
from rein.web.client import Client
from rein.web.maps import Maps

T = TypeVar("T")
VALUES = (1, -1, 10, -10)
SPEEDS = (0.02, 5.0)  # of a step, seconds
LOST_AFTER_S = 2.0  # a controller that is away for longer: training off, clock stopped
SILENT_AFTER_S = 6.0  # a page that sends no ping for so long has stalled
MAPS_EVERY_S = 1.5
KEPT_STEPS, KEPT_CREDITS = 200, 100


class Classroom:
    """A lesson in real time: the clock, the people, the messages."""

    def __init__(
        self, lesson: Lesson, log: RecordWriter, out: Path, config: TrainerConfig, trainer: SimulatedTrainer | None,
        plain: Lesson | None, *, began_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.lesson, self.log, self.out, self.config, self.trainer = lesson, log, out, config, trainer
        self.task: Task = lesson.task
        self.key = secrets.token_urlsafe(16)
        self.stop_server: Callable[[], None] = lambda: None
        self.clients: set[Client] = set()
        self.controller: Client | None = None
        self.controller_page = ""
        self.step_s = lesson.step_s()
        self.paused, self.started = True, trainer is not None
        self.pause_after_episode = False
        self.why = "Press Space, or Start, to begin." if trainer is None else None
        self.done = False
        self._zero = time.perf_counter() - began_s  # of the lesson's clock
        self._wake = asyncio.Event()
        self._single = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="lesson")
        self._shown_at: dict[int, float] = {}
        self._steps: deque[dict[str, Any]] = deque(maxlen=KEPT_STEPS)
        self._credits: deque[dict[str, Any]] = deque(maxlen=KEPT_CREDITS)
        self._maps: dict[str, Any] | None = None
        self._band: dict[str, Any] | None = None
        self._plain = plain
        self._began = time.monotonic()
        self._closed = False
        self._clock_noted = -math.inf
        if trainer is not None:
            self.paused = False

    # --------------------------------------------------------------------------------------- the server's life

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """From the first request to the last."""
        self._loop = asyncio.get_running_loop()
        for job in (self._run_clock(), self._draw_maps(), self._watch_controller(), self._find_band()):
            self._start(job)
        try:
            yield
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> list[str]:
        """Ends the lesson, once; what was learned is saved."""
        if self._closed:
            return []
        self._closed = True
        self._worker.shutdown(wait=True)
        return finish_lesson(self.lesson, self.log, self.out, time.monotonic() - self._began)

    def _start(self, job: Any) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._tell({"type": "notice", "level": "error", "text": f"The lesson stopped. {text}"})
            print(f"the lesson stopped: {text}", flush=True)
            self.paused, self.why = True, f"The lesson stopped. {text}"
            self._tell_status()
            if not isinstance(error, UserError):
                raise error

    async def _work(self, what: Callable[[], T]) -> T:
        """Runs something that touches the lesson, after all that came before it."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, what)

    def now(self) -> float:
        """The lesson's clock, in seconds."""
        return round(time.perf_counter() - self._zero, 6)

    # ------------------------------------------------------------------------------------------------ the clock

    async def _run_clock(self) -> None:
        due = time.perf_counter()
        while not self.done:
            if self.paused and not self._single:
                self._wake.clear()
                await self._wake.wait()
                due = time.perf_counter()
                continue
            wait = due - time.perf_counter()
            if wait > 0 and not self._single:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
                    continue  # something changed: look again
            self._single = False
            shown = await self._work(self._tick)
            late = time.perf_counter() - due
            due = (due if late < self.step_s else time.perf_counter()) + self.step_s
            if shown.ended:
                due += self.lesson.config.pause_s
                if self.pause_after_episode:
                    self.paused, self.why = True, "The episode is over. Press 2, or Resume, for the next."
                    self._tell_status()

    def _tick(self) -> Shown:
        """On the worker: one step, and everybody is told."""
        t = self.now()
        shown = self.lesson.tick(t)
        self._shown_at[shown.k] = t
        self._shown_at.pop(shown.k - 10_000, None)
        decision = shown.decision
        action, weights = decision.action, decision.h_weights_A
        message = {
            "type": "step", "k": shown.k, "t": t, "episode": shown.episode, "i": shown.i,
            "state": [] if shown.state.ndim > 1 else _plain(shown.state), "action": action,
            "source": decision.source, "reward": shown.reward, "return": shown.total, "ended": shown.ended,
            "h": None if decision.h_A is None else _plain(decision.h_A),
            "q": None if decision.q_A is None else _plain(decision.q_A),
            "h_weight": None if weights is None or self.lesson.tamer is None else float(weights[action]),
            "plain": self._plain_step(t),
        }  # fmt: skip
        frame = self._frame(shown.k) if self.task.draw == "frames" else None
        self._steps.append(message)
        self._on_loop(lambda: self._after_tick(message, frame, shown))
        if self.trainer is not None and self.lesson.training:
            said = self.trainer.see(shown.before, action, shown.episode - 1)
            if said is not None:
                self._on_loop(lambda: self._say_later(shown.k, t + said[1], said[0]))
        elif self.trainer is not None and not self.lesson.training:
            self.lesson.set_training(True, t)
        return shown

    def _plain_step(self, t: float) -> dict[str, Any] | None:
        if self._plain is None:
            return None
        shown = self._plain.tick(t)
        return {"state": _plain(shown.state), "return": shown.total, "episode": shown.episode, "ended": shown.ended}

    def _after_tick(self, message: dict[str, Any], frame: bytes | None, shown: Shown) -> None:
        if frame is not None:
            for client in self.clients:
                client.send("frame", frame)
        self._tell(message)
        if shown.ended:
            total, steps = self.lesson.returns[-1]
            number = len(self.lesson.returns)
            self._tell({"type": "episode", "n": number, "return": total, "steps": steps, "plain": False})
        plain = message["plain"]
        if plain and plain["ended"] and self._plain:
            total, steps = self._plain.returns[-1]
            number = len(self._plain.returns)
            self._tell({"type": "episode", "n": number, "return": total, "steps": steps, "plain": True})

    def _frame(self, k: int) -> bytes:
        """The environment's picture as JPEG, behind the number of its step."""
        import io

        from PIL import Image

        picture, out = np.asarray(self.task.env.render()), io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=80)
        return struct.pack("<I", k) + out.getvalue()

    def _say_later(self, k: int, at: float, value: float) -> None:
        name = trainer_name(self.config)

        async def say() -> None:
            await asyncio.sleep(max(0.0, at - self.now()))
            await self._credit(f"{name}-{k}", value, at, {"k": k, "by": name})

        self._start(say())

    def _on_loop(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)

    # --------------------------------------------------------------------------------------------- the presses

    async def _press(self, client: Client, message: dict[str, Any], heard: float) -> None:
        id, value, k = _string(message.get("id")), message.get("value"), message.get("k")
        if value not in VALUES or isinstance(value, bool) or not id:
            await self._refuse(client, message, f"A press of {value!r} is none.")
            return
        now = self.now()
        seen_ms = _number(message.get("t_key")) - _number(message.get("t_shown"))
        k = k if isinstance(k, int) and not isinstance(k, bool) else -1
        shown = self._shown_at.get(k)
        about: dict[str, Any] = {"k": k, "key": _string(message.get("key"), 20), "arrived": now}
        if shown is None or not 0 <= seen_ms < 3.6e6:
            t, about["clock"] = now, "arrival"  # a page that cannot say what it showed
        else:
            t, about["seen_ms"] = min(shown + seen_ms / 1000, now), round(seen_ms, 3)
        await self._credit(id, float(value), round(t, 6), about, heard=heard)

    async def _refuse(self, client: Client, message: dict[str, Any], why: str) -> None:
        """A press or an action that does not count: the page is answered, and the record says what came and why not."""
        client.send("notice", _text({"type": "notice", "level": "warning", "text": why}))
        id, value, now = _string(message.get("id")), _string(message.get("value"), 40), self.now()
        if message.get("type") == "press":
            await self._work(lambda: self.lesson.note(f"refused a press of {value} ({id}): {why}", now))
            answer = {"type": "credit", "id": id, "value": 0, "t": now, "shares": [], "given": 0, "late": False}
            client.send("credit", _text({**answer, "ignored": why, "by": "person"}))

    async def _credit(
        self, id: str, value: float, t: float, about: dict[str, Any], *, heard: float | None = None
    ) -> None:
        by = about.pop("by", "person")
        pressed = await self._work(lambda: self.lesson.press(id, value, t, by=by, **about))
        message = {
            "type": "credit", "id": id, "value": value, "t": t, "shares": pressed.credits,
            "given": sum(c for _, c in pressed.credits), "late": pressed.late, "ignored": pressed.ignored, "by": by,
            "seen_ms": about.get("seen_ms"),
            "path_ms": None if heard is None else round((time.perf_counter() - heard) * 1000, 3),
        }  # fmt: skip
        if not any(credit["id"] == id for credit in self._credits):
            self._credits.append(message)
        self._tell(message)

    # ---------------------------------------------------------------------------------------------- the people

    async def socket(self, socket: WebSocket) -> None:
        """One page, from joining to leaving."""
        if not same_origin(socket):
            await socket.close(4403, "another site's page")
            return
        await socket.accept()
        client = Client(socket)
        sender = asyncio.get_running_loop().create_task(client.drain())
        try:
            while True:
                text = await socket.receive_text()
                heard = time.perf_counter()
                try:
                    message = json.loads(text, parse_constant=lambda name: None)
                    if not isinstance(message, dict):
                        raise ValueError("not an object")
                    await self._deal(client, message, heard)
                except UserError as error:
                    client.send("notice", _text({"type": "notice", "level": "warning", "text": str(error)}))
                except (ValueError, TypeError, OverflowError, RecursionError) as error:
                    client.send(
                        "notice", _text({"type": "notice", "level": "warning", "text": f"Not understood: {error}."})
                    )
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass
        finally:
            sender.cancel()
            self.clients.discard(client)
            if self.controller is client:
                self.controller = None
                self._start(self._controller_left(client.page))
            self._tell_status()

    async def _deal(self, client: Client, message: dict[str, Any], heard: float) -> None:
        client.heard_at = time.monotonic()
        kind = message.get("type")
        if kind == "join":
            await self._join(client, message)
        elif kind == "ping":
            client.send("pong", _text({"type": "pong", "t": message.get("t"), "clock_s": self.now()}))
            await self._note_clock(client, message)
        elif kind == "press" and self.controller is client:
            await self._press(client, message, heard)
        elif kind == "action" and self.controller is client:
            await self._control("held_action", int(_number(message.get("action"))))
        elif kind == "command":
            await self._command(client, str(message.get("name")), message.get("value"), _string(message.get("why")))
        elif kind in ("press", "action"):
            await self._refuse(client, message, "Somebody else controls this lesson; you are watching.")
        else:
            raise ValueError(f"a message of type {kind!r}")

    async def _join(self, client: Client, message: dict[str, Any]) -> None:
        client.page = _string(message.get("page"))
        client.may_control = secrets.compare_digest(str(message.get("key", "")).encode(), self.key.encode())
        came_back = client.page != "" and client.page == self.controller_page
        if client.may_control and (self.controller is None or came_back):
            if self.controller is not None and self.controller is not client:
                self.controller.send("role", _text({"type": "role", "role": "watcher"}))
            self.controller, self.controller_page = client, client.page
        welcome = await self._work(lambda: self._welcome(client))
        client.send("welcome", _text(welcome))
        if self.task.draw == "frames":
            client.send("frame", await self._work(lambda: self._frame(max(0, self.lesson.k - 1))))
        self.clients.add(client)
        self._tell_status()

    def _welcome(self, client: Client) -> dict[str, Any]:
        lesson, task = self.lesson, self.task
        delay = lesson.tamer.assigner.delay if lesson.tamer else None
        window = {"name": lesson.config.credit, "low_s": 0.0, "high_s": 0.0}
        if isinstance(delay, Uniform):
            window |= {"low_s": delay.low_s, "high_s": delay.high_s}
        elif isinstance(delay, Gamma):
            window |= {"low_s": delay.inverse_cdf(0.05), "high_s": delay.inverse_cdf(0.95)}
        return {
            "type": "welcome", "role": "controller" if client is self.controller else "watcher",
            "can_control": client.may_control,
            "task": {
                "name": task.name, "title": task.title, "goal": task.goal, "actions": list(task.actions),
                "draw": task.draw, "names": list(task.names), "low": _plain(task.low), "high": _plain(task.high),
                "walls": task.walls,
            },
            "technique": lesson.config.technique, "pause_s": lesson.config.pause_s,
            "trainer": self.config.trainer if self.trainer is None else trainer_name(self.config),
            "state": [] if len(task.shape) == 3 else _plain(lesson.observe()),
            **self._status(), "clock_s": self.now(), "credit": window, "steps": list(self._steps),
            "credits": list(self._credits),
            "episodes": [{"n": n, "return": r, "steps": s} for n, (r, s) in enumerate(lesson.returns, 1)],
            "plain_episodes": [] if self._plain is None else [
                {"n": n, "return": r, "steps": s} for n, (r, s) in enumerate(self._plain.returns, 1)
            ],
            "band": self._band, "presses": {"given": lesson.n_presses, "late": lesson.n_late}, "maps": self._maps,
            "record": str(self.out / "record.jsonl"), "version": __version__,
        }  # fmt: skip

    async def _controller_left(self, page: str) -> None:
        """A controller's connection is gone: wait a moment for it, then stop, so that nothing is taught unseen."""
        await asyncio.sleep(LOST_AFTER_S)
        if self.controller is None and not self.done and self.trainer is None and not self.paused:
            await self._stop_teaching("The controlling page is gone.")

    async def _stop_teaching(self, why: str) -> None:
        self.paused, self.why = True, why + " Press Space, or Start, to go on."
        self.started = False
        self._wake.set()
        now = self.now()
        await self._work(lambda: self.lesson.set_training(False, now, why))
        await self._work(lambda: self.lesson.note(why, now))
        self._tell_status()

    async def _watch_controller(self) -> None:
        """A page that is open but says nothing has stalled: the same as gone."""
        while True:
            await asyncio.sleep(1.0)
            client = self.controller
            silent = client is not None and time.monotonic() - client.heard_at > SILENT_AFTER_S
            if silent and not self.paused and self.trainer is None:
                await self._stop_teaching("The controlling page does not answer.")

    async def _note_clock(self, client: Client, message: dict[str, Any]) -> None:
        if client is not self.controller or self.now() - self._clock_noted < 10:
            return
        self._clock_noted = self.now()
        seen = {name: _number(message.get(name)) for name in ("rtt_ms", "jitter_ms")}
        value = {name: round(x, 2) if math.isfinite(x) else None for name, x in seen.items()}
        await self._control("clock", value)

    # --------------------------------------------------------------------------------------------- the commands

    async def _command(self, client: Client, name: str, value: Any, why: str) -> None:
        if name == "take_over":
            if not client.may_control:
                raise UserError("This page has no key, so it can only watch.", "Open the address that rein printed.")
            if self.controller is not None and self.controller is not client:
                self.controller.send("role", _text({"type": "role", "role": "watcher"}))
            self.controller, self.controller_page = client, client.page
            client.send("role", _text({"type": "role", "role": "controller"}))
            await self._control("take_over", client.page)
        elif client is not self.controller:
            if name == "training" and value is False:
                return  # a watcher's tab was hidden
            raise UserError("Somebody else controls this lesson; you are watching.", "Take over first.")
        elif name == "training":
            await self._set_training(bool(value), why)
        elif name in ("pause", "resume"):
            self.paused, self.why = name == "pause", None
            self.started = self.started or name == "resume"
            await self._control("paused", self.paused)
        elif name == "step":
            self._single = self.started = True
        elif name == "speed":
            factor = _number(value)
            if not 0.1 <= factor <= 10:
                raise UserError(f"A speed factor of {value!r} is none.", "Use one between 0.1 and 10.")
            self.step_s = min(SPEEDS[1], max(SPEEDS[0], self.step_s / factor))
            await self._control("step_s", round(self.step_s, 6))
        elif name == "pause_after_episode":
            self.pause_after_episode = bool(value)
        elif name in ("tamer_control", "demonstrate"):
            await self._control("demonstrating" if name == "demonstrate" else name, bool(value))
        elif name == "finish":
            await self._finish()
            return
        else:
            raise ValueError(f"a command {name!r}")
        self._wake.set()
        self._tell_status()

    async def _set_training(self, on: bool, why: str) -> None:
        if on and not self.started:
            self.started, self.paused = True, False
        if on:
            self.why = None
        elif why == "hidden":
            self.why = "Training is off while this page is hidden. Press Space to go on."
        now = self.now()
        await self._work(lambda: self.lesson.set_training(on, now, why))

    async def _control(self, name: str, value: Any) -> None:
        now = self.now()
        await self._work(lambda: self.lesson.control(name, value, now))

    async def _finish(self) -> None:
        if self.done:
            return
        self.done = self.paused = True
        for task in list(self._tasks):
            task.cancel()
        lines = await asyncio.get_running_loop().run_in_executor(None, self.close)
        rows = [line.split("  ", 1) for line in lines]
        told = [[name.strip(), text.strip()] for name, text in rows]
        commands = [text for _, text in told if text.startswith("rein ")]
        shown = [row for row in told if not row[1].startswith("rein ")]
        self._tell({"type": "finished", "record": str(self.out / "record.jsonl"), "rows": shown, "next": commands})
        await asyncio.sleep(0.5)  # for the message to reach the pages
        self.stop_server()

    # --------------------------------------------------------------------------------------------- the messages

    def _status(self) -> dict[str, Any]:
        agent = self.lesson.agent
        return {
            "training": self.lesson.training, "paused": self.paused, "started": self.started, "step_s": self.step_s,
            "pause_after_episode": self.pause_after_episode,
            "tamer_control": isinstance(agent, TamerRL) and agent.tamer_control,
            "demonstrating": self.lesson.demonstrating, "controller": self.controller is not None,
            "watchers": sum(client is not self.controller for client in self.clients), "why": self.why,
        }  # fmt: skip

    def _tell_status(self) -> None:
        self._tell({"type": "status", **self._status()})

    def _tell(self, message: dict[str, Any]) -> None:
        data = _text(message)
        for client in self.clients:
            client.send(message["type"], data)

    # ------------------------------------------------------------------------------------------------- the maps

    async def _find_band(self) -> None:
        """What SARSA alone would do, for the chart: computed beside the lesson, told when it is known."""
        band = await asyncio.get_running_loop().run_in_executor(None, sarsa_band, self.task.name)
        if band is not None:
            self._band = band
            self._tell({"type": "band", **band})

    async def _draw_maps(self) -> None:
        """Every second or so, Ĥ and its influence over two of the state's numbers; row by row, so that presses pass."""
        maps = Maps.of(self.lesson)
        drawn_k = -1
        while maps is not None:
            await asyncio.sleep(MAPS_EVERY_S)
            if self.lesson.k == drawn_k or not self._steps or not self.clients or self.done:
                continue
            drawn_k, state = self.lesson.k, np.array(self._steps[-1]["state"])
            rows = [await self._work(functools.partial(maps.row, row, state)) for row in range(maps.rows)]
            self._maps = maps.message(rows)
            self._tell(self._maps)


def _plain(vector: Any) -> list[float | None]:
    return [float(x) if math.isfinite(x) else None for x in vector]


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def _string(value: Any, most: int = 80) -> str:
    """A stranger's string, short, and without what UTF-8 has no place for."""
    return str(value if value is not None else "")[:most].encode("utf-8", "replace").decode()


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
