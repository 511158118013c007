"""`rein tamer play`: the command, and the routes of the trainer page.

Flow     settings → task, lesson, trainer → `Classroom` (classroom.py), which is the lesson in real time → a server
"""

from __future__ import annotations

import contextlib
import time
import webbrowser
from dataclasses import dataclass, fields, replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route, WebSocketRoute

from rein import __version__
from rein.agents.lesson import Lesson, LessonConfig
from rein.agents.lesson_files import open_lesson, resume_lesson
from rein.agents.plain import plain_lesson
from rein.agents.simulation import TrainerConfig, keeping, make_trainer
from rein.agents.tasks import make_task
from rein.config import setting
from rein.errors import UserError
from rein.web.app import bind, make_app, make_server, templates
from rein.web.classroom import Classroom


@dataclass(frozen=True)
class PlayConfig(TrainerConfig):
    """Settings of `rein tamer play`."""

    trainer: str = setting(
        "person", "person; or rule, or a file with Ĥ: a simulated trainer teaches while you watch", group="trainer"
    )
    out: Path | None = setting(None, "folder for the record and Ĥ (without it: runs/tamer/TASK-DATE)")
    resume: Path | None = setting(None, "go on with the lesson of this folder; its own settings hold")
    store: str | None = setting(None, "put the lesson into this feedback store too: a file, or postgresql://…")
    plain: bool = setting(True, "show plain RL beside, learning without a teacher")
    host: str = setting("127.0.0.1", "address to listen on", group="server")
    port: int = setting(8421, "port to listen on; 0: any that is free", group="server")
    allow_host: tuple[str, ...] = setting((), "further names that browsers may call this server by", group="server")
    browser: bool = setting(True, "open the page in a browser", group="server")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}, but ports go from 0 to 65535.", "Use --port 8421.")


def play(config: PlayConfig) -> None:
    """Teach an agent by hand in the browser: press / for good, z for bad, and watch it learn.

    It opens a page and prints its address. Ctrl-C, or Finish on the page, ends the lesson; the record and what was
    learned are kept, and a lesson that was cut off goes on with --resume.

    Examples
      rein tamer play loop-maze
      rein tamer play mountain-car
      rein tamer play cart-pole --technique action-biasing
      rein tamer play Acrobot-v1 --h-model knn
      rein tamer play mountain-car --trainer rule
      rein tamer play mountain-car --store labels.db
    """
    keep = keeping(config.store)
    if config.resume is not None:
        out = config.resume
        _refuse_other_settings(config)
        lesson, log, began_s = resume_lesson(out)
        task = lesson.task
    else:
        task = make_task(config.task, low=config.low, high=config.high, frames=True, pixels=config.pixels)
        name = config.task.replace("/", "-").replace(":", "-")
        out = config.out or Path("runs/tamer") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        began_s = 0.0
    trainer = None if config.trainer == "person" else make_trainer(config, task)
    plain = plain_beside(config if config.resume is None else lesson.config) if config.plain else None
    sock = bind(config.host, config.port)
    if config.resume is None:
        lesson, log = open_lesson(replace(config, store=None), task, out)
    classroom = Classroom(lesson, log, out, config, trainer, plain, began_s=began_s)
    sock.listen(128)
    host, port = config.host, sock.getsockname()[1]
    shown_host = f"[{host}]" if ":" in host else host
    address = f"http://{shown_host}:{port}/tamer"
    print(
        f"teach             {address}#{classroom.key}  (this address controls; without the part from # on, one watches)"
    )
    print(f"record            {out / 'record.jsonl'}")
    print("end               Ctrl-C here, or Finish on the page", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        print("                  anyone who reaches this port can watch; only the address above controls", flush=True)
    hosts = [*config.allow_host, shown_host]
    server = make_server(make_app(routes(classroom), hosts=hosts, lifespan=classroom.lifespan))
    classroom.stop_server = lambda: setattr(server, "should_exit", True)
    if config.browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(f"{address}#{classroom.key}")
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[sock])
    classroom.close()
    keep(out / "record.jsonl")


def _refuse_other_settings(config: PlayConfig) -> None:
    """A lesson that goes on has settings of its own; others beside --resume would be ignored, so they are an error."""
    usual = PlayConfig()
    given = [f.name for f in fields(LessonConfig) if getattr(config, f.name) != getattr(usual, f.name)]
    given += ["out"] if config.out is not None else []
    if given:
        flags = ", ".join("the task" if name == "task" else "--" + name.replace("_", "-") for name in given)
        raise UserError(f"--resume goes on with that lesson's own settings, but {flags} was given.", "Leave it out.")


def plain_beside(config: LessonConfig) -> Lesson | None:
    """Plain RL for the same task; None, and a line that says why, where it has no features to learn over."""
    if config.pixels:
        return None
    try:
        return plain_lesson(config)
    except UserError as error:
        print(f"plain RL          is not shown beside: {error.problem}")
        return None


def routes(classroom: Classroom) -> list[Route | WebSocketRoute]:
    """The trainer page and its socket."""

    async def page(request: Request) -> HTMLResponse:
        title = classroom.lesson.task.title
        return HTMLResponse(templates.get_template("trainer.html").render(title=title, version=__version__))

    async def home(request: Request) -> RedirectResponse:
        return RedirectResponse("/tamer")

    return [Route("/", home), Route("/tamer", page), WebSocketRoute("/tamer/socket", classroom.socket)]
