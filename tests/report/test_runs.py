"""Many runs at a glance: every state, every kind of damage, and comparisons whose numbers are the files'."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rein.config import from_flags, setting
from rein.errors import UserError
from rein.report import runs as module
from rein.report.comparison import CompareConfig, compare_runs, frame, sparklines
from rein.report.runs import (
    RunReader,
    RunsConfig,
    as_text,
    cells,
    chosen,
    find_runs,
    list_runs,
    sorted_by,
)
from rein.run import RunFolder

HOSTILE = "a\x1b[2J\u202eb\nc"


@dataclass(frozen=True)
class Settings:
    out: Path = setting(Path("out"), "run folder")
    preset: str = setting("tiny-gpt2", "size")
    train_tokens: int | None = setting(10_000, "how much to train")
    learning_rate: float = setting(6e-4, "peak")
    data: str = setting("data/a", "corpus")
    untied: bool = setting(False, "a yes or no")
    n_ctx: int = setting(1, "a number that equals a yes")


def log(run: RunFolder, first: int, last: int, *, low: float = 3.0) -> None:
    """Rows of the updates `first` … `last`, 100 tokens each, every 25th with an evaluation beside it."""
    for n in range(first, last + 1):
        at = {"opt_step": n, "tokens": n * 100, "wall_s": n * 0.5}
        run.log(**at, train_loss=low + 4 * math.exp(-n / 10), tokens_per_s=200.0 + n)
        if n % 25 == 0:
            loss = low + 4 * math.exp(-n / 10)
            run.log(**at, heldout_loss=loss, heldout_bits_per_byte=loss / 2, heldout_perplexity=math.exp(loss))


def make(path: Path, *, updates: int = 100, low: float = 3.0, **settings) -> Path:
    with RunFolder(path, Settings(**settings)) as run:
        log(run, 1, updates, low=low)
    return path


def seen(path: Path):
    return RunReader(path).summary()


# ---------------------------------------------------------------------------------------------------------- states


def test_a_run_in_a_line(tmp_path):
    run = seen(make(tmp_path / "first"))
    assert (run.state, run.opt_step, run.tokens, run.train_tokens) == ("done", 100, 10_000, 10_000)
    assert run.train_loss == 3 + 4 * math.exp(-10)
    assert run.heldout_bits_per_byte == run.best_heldout_bits_per_byte == (3 + 4 * math.exp(-10)) / 2
    assert run.tokens_per_s == 300
    assert run.model == "tiny-gpt2"
    assert run.age_s < 60
    assert run.done_frac == 1


def test_the_best_evaluation_is_not_the_last(tmp_path):
    path = make(tmp_path / "run", updates=25)
    with RunFolder(path, Settings()) as run:
        run.log(opt_step=30, tokens=3000, heldout_bits_per_byte=9.0)
    run = seen(path)
    assert run.heldout_bits_per_byte == 9
    assert run.best_heldout_bits_per_byte == (3 + 4 * math.exp(-2.5)) / 2


def test_a_run_is_running_while_its_lock_is_held_and_looking_does_not_take_it(tmp_path):
    with RunFolder(tmp_path, Settings()) as run:
        log(run, 1, 10)
        assert seen(tmp_path).state == "running"
        with pytest.raises(UserError, match="in use"):
            RunFolder(tmp_path, Settings())
    assert seen(tmp_path).state == "interrupted"
    assert seen(tmp_path).done_frac == 0.1
    RunFolder(tmp_path, Settings()).close()


def test_a_run_in_another_process_is_running(tmp_path):
    make(tmp_path, updates=1)
    hold = "import sys; from rein.run import lock_folder; from pathlib import Path\n"
    hold += "lock = lock_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "held\n"
        assert seen(tmp_path).state == "running"
        program.kill()
    assert seen(tmp_path).state == "interrupted"


def test_a_run_that_plans_no_tokens_has_ended(tmp_path):
    assert seen(make(tmp_path, train_tokens=None)).state == "ended"


def test_a_run_that_was_stopped_says_why_until_the_next_start(tmp_path):
    path = make(tmp_path, updates=50)
    with RunFolder(path, Settings()) as run:
        run.note_stop("The loss is 9.\n  It was 3.")
    run = seen(path)
    assert (run.state, run.why) == ("stopped", "The loss is 9. It was 3.")
    assert "stopped: The loss is 9. It was 3." in as_text([run])
    RunFolder(path, Settings()).close()
    assert (seen(path).state, seen(path).why) == ("interrupted", "")


def ended_by(error: BaseException, path: Path) -> None:
    with RunFolder(path, Settings()) as run:
        log(run, 1, 50)
        raise error


def test_an_error_that_ends_a_run_is_why_it_was_stopped(tmp_path):
    with pytest.raises(UserError):
        ended_by(UserError("The loss is no number.", "Lower the rate."), tmp_path)
    assert (seen(tmp_path).state, seen(tmp_path).why) == ("stopped", "The loss is no number.")
    with pytest.raises(KeyboardInterrupt):
        ended_by(KeyboardInterrupt(), tmp_path)
    assert (seen(tmp_path).state, seen(tmp_path).why) == ("interrupted", "")


def test_a_run_that_was_only_looked_at_again_is_as_it_was(tmp_path):
    for updates, state in ((100, "done"), (50, "interrupted")):
        path = make(tmp_path / state, updates=updates)
        with pytest.raises(UserError), RunFolder(path, Settings()):
            raise UserError("What --policy names has changed.", "Restore it.")
        assert seen(path).state == state


def test_a_model_has_the_size_of_its_checkpoint(tmp_path):
    path = make(tmp_path, updates=1)
    folder = path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"n_layer": 2}')
    head = json.dumps({"a": {"dtype": "F32", "shape": [1000, 20], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    assert (seen(path).model, seen(path).n_params) == ("tiny-gpt2 20k", 20_000)


# -------------------------------------------------------------------------------------------------- looking again


def test_a_second_look_reads_only_what_came_after(tmp_path, monkeypatch):
    with RunFolder(tmp_path, Settings()) as run:
        reader = RunReader(tmp_path)
        log(run, 1, 80)
        assert reader.summary().opt_step == 80
        taken = []
        monkeypatch.setattr(
            RunReader, "_take", lambda self, row, take=RunReader._take: (taken.append(row), take(self, row))
        )
        log(run, 81, 90)
        assert reader.summary().opt_step == 90
        assert [row["opt_step"] for row in taken] == list(range(81, 91))


def test_after_a_resume_the_rows_that_were_dropped_are_forgotten(tmp_path):
    with RunFolder(tmp_path, Settings()) as run:
        reader = RunReader(tmp_path)
        log(run, 1, 100)
        assert reader.summary().tokens == 10_000
        run.truncate_after(60)
        log(run, 61, 70, low=5.0)
    assert reader.summary().tokens == 7000
    assert replace(reader.summary(), age_s=0) == replace(seen(tmp_path), age_s=0)


@pytest.mark.parametrize("updates", [1, 119, 239, 240, 241, 5000])
def test_the_curve_stays_small_and_keeps_the_mean(tmp_path, updates):
    noise = random.Random(updates)
    (tmp_path / "config.json").write_text("{}")
    losses = [noise.random() for _ in range(updates)]
    rows = (json.dumps({"opt_step": n, "tokens": n, "train_loss": loss}) for n, loss in enumerate(losses))
    (tmp_path / "metrics.jsonl").write_text("".join(row + "\n" for row in rows))
    curve = seen(tmp_path).curve
    assert len(curve) <= 2 * module.CURVE_POINTS + 1
    assert curve[-1][0] == updates - 1
    assert [x for x, _ in curve] == sorted({x for x, _ in curve})
    each = round(curve[0][0]) + 1  # rows in a point
    means = [sum(part := losses[i : i + each]) / len(part) for i in range(0, updates, each)]
    assert [loss for _, loss in curve] == pytest.approx(means)


# ---------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
def test_settings_that_cannot_be_read_are_a_line(tmp_path, capsys, text):
    make(tmp_path / "good")
    bad = make(tmp_path / "bad")
    (bad / "config.json").write_bytes(text)
    assert seen(bad).state == "damaged"
    list_runs(RunsConfig((tmp_path,)))
    out = capsys.readouterr().out
    assert f"{bad}  damaged: config.json" in out
    assert re.search(rf"^{tmp_path}/good +done", out, re.MULTILINE)


def test_no_settings_are_a_line(tmp_path):
    path = make(tmp_path / "bad")
    (path / "config.json").unlink()
    assert "config.json is missing" in seen(path).why


@pytest.mark.parametrize("name", ["env.json", "stopped.json"])
@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '{"starts": null}', '[{"started": 3}]', '[{"started": "soon"}]'])
def test_what_is_less_than_the_settings_is_done_without(tmp_path, name, text):
    path = make(tmp_path / "run")
    (path / name).write_text(text)
    assert seen(path).state == "done"


def test_lines_that_are_no_rows_are_counted(tmp_path):
    path = make(tmp_path / "run")
    with (path / "metrics.jsonl").open("a") as file:
        file.write(
            'nothing\n[3]\n{"opt_step": 200, "tokens": NaN, "train_loss": Infinity, "tokens_per_s": true}\n{"half'
        )
    run = seen(path)
    assert run.notes == ("2 lines of metrics.jsonl could not be read.",)
    assert (run.opt_step, run.tokens, run.train_loss, run.tokens_per_s) == (200, 10_000, 3 + 4 * math.exp(-10), 300)


def test_a_folder_that_may_not_be_read_is_a_line(tmp_path, monkeypatch):
    path = make(tmp_path / "run")
    (path / "metrics.jsonl").unlink()
    (path / "metrics.jsonl").mkdir()
    assert seen(path).state == "damaged"


def test_hostile_names_do_not_reach_the_terminal(tmp_path, capsys):
    path = make(tmp_path / HOSTILE, preset=HOSTILE, train_tokens=10**30)
    with RunFolder(path, Settings(preset=HOSTILE, train_tokens=10**30)) as run:
        run.note_stop(HOSTILE)
    list_runs(RunsConfig((tmp_path,)))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert len(out.splitlines()) == 3  # head, run, why
    compare_runs(CompareConfig((path, make(tmp_path / "other", data=HOSTILE))))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


# ------------------------------------------------------------------------------------------------- finding, choosing


def test_runs_are_found_at_any_depth_once_and_nothing_else_is(tmp_path):
    paths = [make(tmp_path / name, updates=1) for name in ("b", "a/deep", "a/deep/inside")]
    checkpoint = tmp_path / "b" / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "metrics.jsonl").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "metrics.jsonl").write_text("")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "config.json").write_text("{}")
    lost = tmp_path / "c"
    (lost / "checkpoints").mkdir(parents=True)
    (lost / "config.json").write_text("{}")  # its metrics.jsonl was removed
    assert find_runs([tmp_path]) == sorted([*paths, lost])
    assert find_runs([tmp_path, tmp_path / "b", tmp_path / "a"]) == sorted([*paths, lost])
    assert find_runs([tmp_path / "b"]) == [tmp_path / "b"]


def test_a_folder_that_is_not_there_is_answered(tmp_path):
    with pytest.raises(UserError, match="none does not exist"):
        find_runs([tmp_path / "none"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is no folder"):
        find_runs([tmp_path / "file"])


@pytest.fixture
def three(tmp_path):
    make(tmp_path / "a", learning_rate=1e-3, updates=50, low=2.0)
    make(tmp_path / "b", learning_rate=6e-4, untied=True)
    make(tmp_path / "c", learning_rate=1e-4, train_tokens=None, low=4.0, data="")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metrics.jsonl").write_text("")
    return [seen(path) for path in find_runs([tmp_path])]


def names(found) -> str:
    return "".join(run.path.name for run in found)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["learning_rate=6e-4"], "b"),
        (["learning_rate=0.0006"], "b"),
        (["train_tokens=1e4"], "ab"),
        (["train_tokens=none"], "c"),
        (["preset=tiny-gpt2"], "abc"),
        (["preset=tiny-gpt2", "learning_rate=1e-3"], "a"),
        (["untied=true"], "b"),
        (["untied=1"], ""),  # a number is no yes
        (["n_ctx=true"], ""),
        (["n_ctx=1"], "abc"),
        (["data="], "c"),
        (["state=interrupted"], "a"),
        (["state=damaged"], "d"),
        ([], "abcd"),
    ],
)
def test_runs_are_chosen_by_their_settings(three, where, expected):
    assert names(chosen(three, where)) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("name", "abcd"), ("loss", "abcd"), ("bits", "abcd"), ("tokens", "abcd"), ("learning_rate", "cbad"),
        ("train_tokens", "abcd"), ("state", "acbd"), ("data", "cabd"), ("untied", "acbd"), ("started", "cbad"),
    ],
)  # fmt: skip
def test_runs_are_sorted_by_a_column_or_a_setting(three, key, expected):
    if key == "started":  # within one second, so put apart
        three = [run if run.age_s is None else replace(run, age_s=10 - i) for i, run in enumerate(three)]
    assert names(sorted_by(three, key)) == expected
    backward = names(sorted_by(three, key, reverse=True))
    assert backward[-1] == "d" or key in ("name", "state")


def test_what_no_run_has_gets_a_suggestion(three):
    with pytest.raises(UserError, match="no run here has a setting 'learning_rat'") as caught:
        chosen(three, ["learning_rat=1"])
    assert caught.value.fix == "Did you mean learning_rate?"
    with pytest.raises(UserError, match="--sort learning_rat:") as caught:
        sorted_by(three, "learning_rat")
    assert caught.value.fix == "Did you mean learning_rate?"
    with pytest.raises(UserError, match="--where learning_rate is no key=value"):
        chosen(three, ["learning_rate"])


def test_the_list_as_json(tmp_path, capsys):
    make(tmp_path / "a")
    make(tmp_path / "b", updates=40)
    list_runs(RunsConfig((tmp_path,), sort="name", json=True))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["run"] for one in found] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert found[1]["state"] == "interrupted"
    assert found[1]["tokens"] == 4000
    assert found[1]["settings"]["learning_rate"] == 6e-4


def test_the_list_as_a_table(tmp_path, capsys, monkeypatch):
    began = (datetime.now(UTC) - timedelta(hours=2, seconds=90)).strftime("%Y-%m-%dT%H:%M:%S%z")
    make(tmp_path / "runs" / "first", updates=40)
    make(tmp_path / "runs" / "日本", updates=40)
    (tmp_path / "runs" / "first" / "env.json").write_text(json.dumps([{"started": began}]))
    monkeypatch.chdir(tmp_path)
    list_runs(from_flags(RunsConfig, ["--reverse"], prog="rein runs"))
    head, first, wide = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "model", "tokens", "loss", "bits/byte", "best", "tokens/s", "started"]
    assert first.startswith("runs/first  interrupted  tiny-gpt2  4,000 of 10k, 40%  3.073")
    assert first.endswith("2 h 1 min ago")
    assert wide.startswith("runs/日本   interrupted")  # two columns a character


def test_no_runs_are_said(tmp_path, capsys):
    list_runs(RunsConfig((tmp_path,)))
    assert capsys.readouterr().out == f"no runs below {tmp_path}\n"
    make(tmp_path / "a")
    list_runs(RunsConfig((tmp_path,), where=("learning_rate=7",)))
    assert capsys.readouterr().out == f"no runs like that below {tmp_path}\n"


# ------------------------------------------------------------------------------------------------------- comparing


def compared(tmp_path, capsys, **more) -> str:
    a = make(tmp_path / "a", updates=100)
    b = make(tmp_path / "b", updates=60, low=2.0, learning_rate=1e-3)
    compare_runs(CompareConfig((a, b), **more))
    return capsys.readouterr().out


def row(out: str, part: str, name: str) -> list[str]:
    """The values of a row, in the part of the output that begins with `part`."""
    lines = out[out.index(part) :].splitlines()
    found = next(line for line in lines if line.startswith(name + " "))
    return re.split(r"  +", found)[1:]


def test_a_comparison_in_numbers(tmp_path, capsys):
    out = compared(tmp_path, capsys)
    difference = out[: out.index("at the end")].split("\n")
    assert [line.split() for line in difference[1:3]] == [["a", "b"], ["learning_rate", "0.0006", "0.001"]]
    assert difference[3] == ""
    assert row(out, "at the end", "tokens [tokens]") == ["10k", "6,000"]
    assert row(out, "at the end", "heldout_loss [nats/token]") == ["3", f"{2 + 4 * math.exp(-5):.4g}"]
    equal = "at 6,000 tokens, which all have seen"
    assert row(out, equal, "train_loss [nats/token]") == [
        f"{3 + 4 * math.exp(-6):.4g}", f"{2 + 4 * math.exp(-6):.4g}"
    ]  # fmt: skip
    # The last evaluation at or before 6,000 tokens is that of 5,000, and it says so.
    assert row(out, equal, "heldout_loss [nats/token]") == [
        f"{3 + 4 * math.exp(-5):.4g} at 5,000", f"{2 + 4 * math.exp(-5):.4g} at 5,000"
    ]  # fmt: skip


def test_runs_of_equal_length_and_settings(tmp_path, capsys):
    compare_runs(CompareConfig((make(tmp_path / "a"), make(tmp_path / "b"))))
    out = capsys.readouterr().out
    assert "all settings are the same" in out
    assert "which all have seen" not in out
    assert "Bits per byte compare" not in out


def test_other_data_gets_a_warning(tmp_path, capsys):
    compare_runs(CompareConfig((make(tmp_path / "a"), make(tmp_path / "b", data="data/b"))))
    assert "Bits per byte compare across tokenizers" in capsys.readouterr().out


def test_a_run_without_rows_is_compared_too(tmp_path, capsys):
    compare_runs(CompareConfig((make(tmp_path / "a"), make(tmp_path / "b", updates=0))))
    assert row(capsys.readouterr().out, "at the end", "tokens [tokens]") == ["10k", "–"]


def test_a_plot_in_the_terminal(tmp_path, capsys):
    out = compared(tmp_path, capsys, plot="train_loss")
    head, a, b = out.splitlines()[-3:]
    assert head.startswith("train_loss [nats/token] over training tokens, 100 to 10k; from 2.01 (low) to ")
    assert a.endswith("  3")
    assert a.split("  ")[1][0] == "█"
    assert b.split("  ")[1].rstrip()[-1] == "▁"
    assert len(b.split("  ")[1].rstrip()) == pytest.approx(36, abs=1)  # it has seen 60% of what a has


def test_a_figure_is_a_file_the_same_every_time(tmp_path, capsys):
    first = tmp_path / "deep" / "loss.svg"
    out = compared(tmp_path, capsys, plot="heldout_loss", out=first)
    assert out.endswith(f"\n{first}\n")
    text = first.read_text()
    for words in ("heldout_loss [nats/token]", "training tokens", ">a<", ">b<"):
        assert words in text
    second = tmp_path / "again.svg"
    compare_runs(CompareConfig((tmp_path / "a", tmp_path / "b"), plot="heldout_loss", out=second))
    assert second.read_text() == text


@pytest.mark.parametrize(("name", "magic"), [("x.png", b"\x89PNG"), ("x.PDF", b"%PDF")])
def test_other_kinds_of_figures(tmp_path, capsys, name, magic):
    compared(tmp_path, capsys, plot="train_loss", out=tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_figure_of_names_that_mean_something_to_matplotlib(tmp_path, capsys):
    runs = (make(tmp_path / "_x$"), make(tmp_path / "$\\frac$", low=2.0))
    compare_runs(CompareConfig(runs, plot="train_loss", out=tmp_path / "x.svg"))
    text = (tmp_path / "x.svg").read_text()
    assert "_x$" in text
    assert "$\\frac$" in text


def test_a_page_of_all_curves(tmp_path, capsys):
    out = compared(tmp_path, capsys, out=tmp_path / "compare.html")
    assert out.endswith(f"{tmp_path / 'compare.html'}\n")
    assert "comparison of 2 runs" in (tmp_path / "compare.html").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"plot": "heldout_los"}, "--plot heldout_los is no metric"),
        ({"plot": "grad_norm"}, "None of these runs has the metric grad_norm"),
        ({"out": Path("x.svg")}, "a figure, but of what"),
        ({"out": Path("x.html"), "plot": "train_loss"}, "is no figure"),
        ({"out": Path("x"), "plot": "train_loss"}, "is no figure"),
    ],
)
def test_what_cannot_be_drawn_is_answered(tmp_path, capsys, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        compared(tmp_path, capsys, **more)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_one_run_is_no_comparison(tmp_path):
    with pytest.raises(UserError, match="needs two runs, and 1 was given"):
        compare_runs(CompareConfig((make(tmp_path / "a"),)))


def test_what_is_no_run_is_answered(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        compare_runs(CompareConfig((make(tmp_path / "a"), tmp_path / "none")))


def test_one_point_and_constant_curves_are_drawn():
    assert frame([([5], [2.0])]) == (2.0, 2.0)
    lines = sparklines("train_loss", {"a": ([5], [2.0]), "b": ([0, 5, 10], [None, None, None])})
    assert len(lines) == 2
    assert "█" in lines[1] or "▅" in lines[1]
    assert "▅" * 60 in sparklines("train_loss", {"a": ([0, 10], [2.0, 2.0])})[1]


def test_looking_at_runs_needs_no_torch():
    program = "import sys, rein.report.runs; print([n for n in ('torch', 'matplotlib') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_a_run_that_learns_from_responses_counts_episodes(tmp_path):
    (tmp_path / "ppo" / "checkpoints").mkdir(parents=True)
    (tmp_path / "ppo" / "config.json").write_text(json.dumps({"preset": "stiennon2020", "episodes": 64}))
    (tmp_path / "ppo" / "metrics.jsonl").write_text(json.dumps({"opt_step": 4, "episodes": 48, "tokens": 900}) + "\n")
    summary = RunReader(tmp_path / "ppo").summary()
    assert summary.state == "interrupted"
    assert "48 of 64 episodes, 75%" in cells(summary)
