"""The server of the page of runs: what it shows, that it only reads, and whom it answers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from rein.config import setting
from rein.errors import UserError
from rein.evals import reward_report
from rein.evals.reward_quality import Pairs, quality
from rein.loop import timeline
from rein.loop.stages import DONE, Stage
from rein.loop.stages import run as run_stage
from rein.report.page import render
from rein.run import RunFolder
from rein.web.app import HEADERS
from rein.web.runs import COMPARED, PAGES, Shelf, WatchConfig, application

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b\u202e"


@dataclass(frozen=True)
class Settings:
    out: Path = setting(Path("out"), "run folder")
    preset: str = setting("tiny-gpt2", "size")
    train_tokens: int = setting(10_000, "how much to train")


def log(run: RunFolder, first: int, last: int) -> None:
    for n in range(first, last + 1):
        run.log(opt_step=n, tokens=n * 100, wall_s=n * 0.5, train_loss=3 + 1 / n, tokens_per_s=200.0)


def make(path: Path, updates: int = 40, **settings) -> Path:
    with RunFolder(path, Settings(**settings)) as run:
        log(run, 1, updates)
        run.sample(opt_step=updates, prompt="The ", text=HOSTILE)
    return path


def make_loop(path: Path, *, rounds: int = 1) -> Path:
    """A loop whose items are drawn, with a run of a policy inside."""
    with RunFolder(path, Settings()):
        for number in range(1, rounds + 1):
            stage = Stage("items", {}, {}, lambda folder: (folder / "items.jsonl").touch(), ("items.jsonl",))
            run_stage(path / f"round-{number:02d}" / "draw", stage)
        timeline.write_timeline(path)
    make(path / "round-01" / "policy" / "run")
    return path


def make_reward(path: Path) -> Path:
    """A run of a reward model that was measured."""
    make(path)
    names = [f"{n}" for n in range(4)]
    part = quality(Pairs(np.array([1.0, 1.0, -1.0, 2.0]), np.zeros(4), names, names, [("a", HOSTILE)] * 4), weight=0.5)
    found = {
        "test": part, "dev": part, "curve": [[10, 0.5], [20, 0.7]], "normalised": {"on": "none"}, "notes": [HOSTILE],
        "train": {"elements": 3, "judgements": 4, "pairs": 5}, "temperatures": {}, "accuracies": {}, "labelers": {},
    }  # fmt: skip
    (path / "quality.json").write_text(json.dumps(found))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("first", "sweep/a", "sweep/b"):
        make(tmp_path / "runs" / name)
    return tmp_path / "runs"


@pytest.fixture
def client(folder) -> TestClient:
    return TestClient(application(Shelf(folder)), base_url="http://127.0.0.1:8422", follow_redirects=False)


def rows(client: TestClient) -> dict[str, dict]:
    return {row["name"]: row for row in client.get("/runs/data").json()["runs"]}


# ------------------------------------------------------------------------------------------------ what is shown


def test_the_first_page_leads_to_the_runs(client, folder):
    assert client.get("/").headers["location"] == "/runs"
    page = client.get("/runs")
    assert page.status_code == 200
    assert str(folder) in page.text
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert client.get(path).status_code == 200, path


def test_a_run_as_the_page_gets_it(client, folder):
    row = rows(client)["sweep/a"]
    assert (row["state"], row["model"], row["tokens"]) == ("interrupted", "tiny-gpt2", "4,000 of 10k, 40%")
    assert (row["loss"], row["bits"], row["done_frac"], row["time_left_s"]) == ("3.025", "–", 0.4, None)
    assert row["curve"][0] == [100, 4.0]
    assert row["curve"][-1] == [4000, 3.025]
    assert row["curve_said"] == "training loss from 4 to 3.025"
    with RunFolder(folder / "sweep" / "a", Settings()):
        row = rows(client)["sweep/a"]
        assert (row["state"], row["time_left_s"]) == ("running", 30)


def test_new_rows_and_new_runs_appear_and_runs_that_are_gone_go(client, folder):
    assert set(rows(client)) == {"first", "sweep/a", "sweep/b"}
    with RunFolder(folder / "first", Settings()) as run:
        log(run, 41, 60)
    make(folder / "new")
    shutil.rmtree(folder / "sweep")
    assert {name: row["sort"]["tokens"] for name, row in rows(client).items()} == {"first": 6000, "new": 4000}


def test_nothing_is_sent_again_while_nothing_changes(client, folder):
    first = client.get("/runs/data")
    again = client.get("/runs/data", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    with RunFolder(folder / "first", Settings()) as run:
        log(run, 41, 41)
    assert client.get("/runs/data", headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_a_run_that_is_the_folder_itself_has_a_name(tmp_path):
    client = TestClient(application(Shelf(make(tmp_path / "one"))), base_url="http://localhost")
    assert set(rows(client)) == {"one"}


def test_what_runs_hold_is_text(tmp_path):
    make(tmp_path / "runs" / "<b>x", preset=HOSTILE)
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "metrics.jsonl").write_text("")
    client = TestClient(application(Shelf(tmp_path / "runs")), base_url="http://localhost")
    answer = client.get("/runs/data")
    assert answer.headers["content-type"] == "application/json"
    row = rows(client)["<b>x"]
    assert row["model"] == "</script><img src=x onerror=alert(1)>␛⟨U+202E⟩"
    assert rows(client)["bad"]["state"] == "damaged"
    assert "config.json is missing" in rows(client)["bad"]["why"]


def test_numbers_that_json_does_not_know_are_left_out(tmp_path):
    path = make(tmp_path / "runs" / "a", updates=0)
    (path / "metrics.jsonl").write_text(
        '{"opt_step": 1, "tokens": 1, "train_loss": NaN}\n{"opt_step": 2, "tokens": 1e999}\n'
    )
    client = TestClient(application(Shelf(tmp_path / "runs")), base_url="http://localhost")

    def refuse(name):
        raise AssertionError(name)

    (row,) = json.loads(client.get("/runs/data").text, parse_constant=refuse)["runs"]
    assert row["loss"] == "–"
    assert row["curve"] == []


def test_a_folder_that_is_gone_is_said(client, folder):
    shutil.rmtree(folder)
    answer = client.get("/runs/data")
    assert answer.status_code == 503
    assert "does not exist" in answer.json()["trouble"]
    folder.mkdir()
    assert rows(client) == {}


# -------------------------------------------------------------------------------------------- reports, comparisons


def test_a_report_is_that_of_the_report_command_as_the_files_are_now(client, folder):
    id = rows(client)["first"]["id"]
    assert client.get(f"/runs/report/{id}").text == render(folder / "first")
    with RunFolder(folder / "first", Settings()) as run:
        log(run, 41, 60)
    assert client.get(f"/runs/report/{id}").text == render(folder / "first")


def test_a_comparison_of_those_that_were_chosen(client):
    ids = {name: row["id"] for name, row in rows(client).items()}
    page = client.get(f"/runs/compare?run={ids['sweep/b']}&run={ids['first']}&run={ids['first']}")
    assert page.status_code == 200
    assert "comparison of 2 runs" in page.text
    assert page.text.index("<span>b</span>") < page.text.index("<span>first</span>")


@pytest.mark.parametrize(
    "path",
    [
        "/runs/report/0123456789abcdef", "/runs/report/first", "/runs/report/..%2f..%2fetc%2fpasswd",
        "/runs/report/%00", "/runs/compare", "/runs/compare?run=1&run=2", "/runs/compare?run=../first&run=..",
    ],
)  # fmt: skip
def test_only_what_this_server_named_can_be_asked_for(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_a_comparison_has_a_size(client):
    ids = [row["id"] for row in rows(client).values()]
    assert "1 are chosen" in client.get(f"/runs/compare?run={ids[0]}").text
    many = "&".join(f"run={n}" for n in range(COMPARED + 1))
    assert f"2 to {COMPARED} runs" in client.get(f"/runs/compare?{many}").text


def test_a_run_that_cannot_be_drawn_says_why(client, folder):
    id = rows(client)["first"]["id"]
    (folder / "first" / "config.json").write_text("{<b>")
    answer = client.get(f"/runs/report/{id}")
    assert answer.status_code == 404
    assert "is not valid JSON" in answer.text
    assert "<b>" not in answer.text


# ------------------------------------------------------------------------------------- pages besides the report


def test_a_loop_says_how_far_it_is_and_leads_to_its_timeline_as_the_files_are_now(client, folder):
    loop = make_loop(folder / "loop")
    row = rows(client)["loop"]
    assert (row["pages"], row["first"]) == (["timeline"], "timeline")
    assert row["model"] == "loop, round 1, next: answers collected"
    assert "loop/round-01/policy/run" in rows(client)
    assert client.get(f"/runs/page/timeline/{row['id']}").text == timeline.render(loop)
    make_loop(loop, rounds=2)
    assert rows(client)["loop"]["model"].startswith("loop, round 2")
    answer = client.get(f"/runs/page/timeline/{row['id']}")
    assert answer.text == timeline.render(loop)
    assert 'id="round-2"' in answer.text


def test_a_reward_model_has_its_quality_beside_its_report(client, folder):
    run = make_reward(folder / "reward")
    row = rows(client)["reward"]
    assert (row["pages"], row["first"], row["model"]) == (["quality"], "", "tiny-gpt2")
    page = client.get(f"/runs/page/quality/{row['id']}").text
    assert page == reward_report.render("reward", json.loads((run / "quality.json").read_text()))
    assert HOSTILE not in page
    assert client.get(f"/runs/report/{row['id']}").status_code == 200


def test_a_page_has_the_policy_that_it_names_and_cannot_be_framed(client, folder):
    made = {"timeline": make_loop(folder / "loop"), "quality": make_reward(folder / "reward")}
    for kind, path in made.items():
        answer = client.get(f"/runs/page/{kind}/{rows(client)[path.name]['id']}")
        (policy,) = answer.headers.get_list("content-security-policy")
        assert policy.startswith("default-src 'none'; ")
        assert "script-src" not in policy
        assert policy.endswith("; frame-ancestors 'none'")


@pytest.mark.parametrize("kind", [*PAGES, "report", "..%2f..%2fetc", "%00"])
def test_a_run_has_no_other_pages_than_it_has(client, kind):
    row = rows(client)["first"]
    assert (row["pages"], row["first"]) == ([], "")
    assert client.get(f"/runs/page/{kind}/{row['id']}").status_code == 404
    assert client.get(f"/runs/page/{kind}/0123456789abcdef").status_code == 404


@pytest.mark.parametrize("text", ["{", "[]", '{"test": 3}', "[" * 100_000, "\udc80"])
def test_a_page_of_damaged_files_says_so(client, folder, text):
    run = make(folder / "bad")
    for file in ("quality.json", "policies.json"):
        (run / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    id = rows(client)["bad"]["id"]
    for kind in ("quality", "policies"):
        answer = client.get(f"/runs/page/{kind}/{id}")
        assert answer.status_code == 404
        assert f"{kind}.json, or what it is drawn from, is damaged" in answer.text


def test_a_loop_with_a_damaged_record_is_a_line_that_says_so(client, folder):
    (make_loop(folder / "loop") / "round-01" / "draw" / DONE).write_text("{")
    row = rows(client)["loop"]
    assert "done.json is damaged" in row["model"]
    assert "done.json is damaged" in client.get(f"/runs/page/timeline/{row['id']}").text


# ------------------------------------------------------------------------------------------------------ the guards


@pytest.mark.parametrize("path", ["/", "/runs", "/runs/data", "/runs/report/none", "/static/runs/runs.js", "/nothing"])
def test_every_answer_has_the_headers(client, path):
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value], f"{path}: {name}"


def test_a_report_has_the_policy_that_its_page_names_and_cannot_be_framed(client):
    id = rows(client)["first"]["id"]
    answer = client.get(f"/runs/report/{id}")
    (policy,) = answer.headers.get_list("content-security-policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'self'" not in policy
    assert "unsafe" not in policy
    assert policy.endswith("; frame-ancestors 'none'")
    for name, value in HEADERS.items():
        if name != "content-security-policy":
            assert answer.headers.get_list(name) == [value]


@pytest.mark.parametrize("path", ["/runs", "/runs/data", "/runs/report/none", "/static/runs/runs.js"])
def test_other_hosts_are_refused(client, path):
    assert client.get(path, headers={"host": "evil.example"}).status_code == 400
    assert client.get(path, headers={"host": "127.0.0.1.evil.example"}).status_code == 400


def test_further_hosts_are_named(folder):
    app = application(Shelf(folder), hosts=["box.example"])
    assert TestClient(app, base_url="http://box.example").get("/runs").status_code == 200


def test_other_origins_get_no_data(client):
    assert client.get("/runs/data", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/runs/data", headers={"origin": "http://127.0.0.1:8422"}).status_code == 200
    assert "access-control-allow-origin" not in client.get("/runs/data").headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/runs", "/runs/data", "/runs/report/x", "/runs/page/timeline/x", "/runs/compare"])
def test_it_only_reads(client, folder, method, path):
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert client.request(method, path).status_code == 405
    rows(client)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_its_address_answers_and_ends_in_good_order(folder):
    program = "import sys; from pathlib import Path; from rein.web.runs import WatchConfig, watch\n"
    program += "watch(WatchConfig(Path(sys.argv[1]), port=0, browser=False))"
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = re.search(r"http://127\.0\.0\.1:\d+/runs", server.stdout.readline())[0]
        assert server.stdout.readline() == "end    Ctrl-C here; the runs go on\n"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address}/data", timeout=10) as answer:
            assert len(json.load(answer)["runs"]) == 3
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=10)
    assert (server.returncode, out, err) == (0, "", "")


def test_a_folder_that_is_not_there_and_a_port_that_is_none_are_answered(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Shelf(tmp_path / "none")
    with pytest.raises(UserError, match="--port is 70000"):
        WatchConfig(port=70_000)
