"""A real Chromium, and a run to look at. Where either Chromium or playwright is missing, these tests skip."""

from __future__ import annotations

import functools
import json
import math
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # looking.py, which the tests import

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first is the fastest
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium with a fresh profile, through playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: install the package `chromium`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def look(chromium) -> Iterator:
    """`look(url, width=…, theme=…, script=…)` opens a page that keeps its `complaints`, and its `requests` for more."""
    contexts = []

    def open_page(url: str, *, width: int = 1280, theme: str = "light", script: bool = True):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []

        def note(request) -> None:
            if not request.url.startswith("data:"):
                page.requests.append(request.url)

        page.on("request", note)
        page.on("console", lambda message: page.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (page.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective))"
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def serve() -> Iterator:
    """`serve(folder)` → the address of a local server of that folder, and the list of the paths it was asked for."""
    servers = []

    def start(folder: Path) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                asked.append(self.path)

        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def make_run():
    """`make_run(path, prompt=…, text=…, end=…)` writes a run folder of 400 rows and 9 evaluations."""

    def make(path: Path, *, prompt: str = "The king ", text: str = "spoke at update {}.", end: float = 3.0) -> Path:
        noise = random.Random(7)
        path.mkdir(parents=True)
        settings = {"data": "data/pydocs", "preset": "tiny-gpt2", "n_layer": 4, "train_tokens": 4_000_000}
        settings["out"] = str(path)
        (path / "config.json").write_text(json.dumps(settings))
        start = {
            "started": "2026-11-22T21:14:03+0000",
            "command": ["rein", "pretrain", "--preset", "tiny-gpt2"],
            "threads": 2,
        }
        (path / "env.json").write_text(json.dumps([start]))
        rows, samples = [], []
        for i in range(401):
            at = {"opt_step": i, "tokens": i * 10_000, "wall_s": i * 2.0}
            loss = end + 7 * math.exp(-i / 20)
            if i:
                rows.append(
                    {
                        **at, "train_loss": loss + noise.gauss(0, 0.1), "learning_rate": 1e-3 * (1 - i / 500),
                        "grad_norm": noise.random(), "sequences_per_batch": 8 + i // 100, "tokens_per_s": 500.0,
                    }
                )  # fmt: skip
            if i % 50 == 0:
                bits = loss / math.log(2) / 4
                rows.append(
                    {**at, "heldout_loss": loss, "heldout_perplexity": math.exp(loss), "heldout_bits_per_byte": bits}
                )
                samples.append({"opt_step": i, "prompt": prompt, "text": text.replace("{}", str(i))})
        for name, found in (("metrics", rows), ("samples", samples)):
            (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        return path

    return make
