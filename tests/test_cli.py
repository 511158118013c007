"""The command table, and what a terminal sees: help, mistakes, Ctrl-C, a pipe that closes."""

from __future__ import annotations

import dataclasses
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rein import __version__
from rein.cli import COMMANDS, Command, main
from rein.config import setting

REIN = [sys.executable, "-m", "rein"]

# A program with one command of its own, for what no real command does on demand.
PROGRAM = """
import sys, time
from dataclasses import dataclass
from rein import cli
from rein.config import setting
from rein.errors import UserError

@dataclass(frozen=True)
class Config:
    what: str = setting("print", "print, sleep, fail or break")

def play(config: Config) -> None:
    '''Plays.'''
    if config.what == "fail":
        raise UserError("--what is fail, but that fails.", "Take print.")
    if config.what == "break":
        raise AssertionError("ours")
    if config.what == "sleep":
        print("asleep", flush=True)
        time.sleep(60)
    for i in range(100_000 if config.what == "print" else 1):
        print(i)

sys.modules["played"] = sys.modules["__main__"]
cli.COMMANDS = (cli.Command("play", "played:play", "plays"), *cli.COMMANDS)
sys.exit(cli.main())
"""
PLAY = [sys.executable, "-c", PROGRAM, "play"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command.name} " in out
        assert command.summary in out


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_version(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"rein {__version__}\n"


def test_rein_and_python_m_rein_are_one_program():
    script = run(str(Path(sys.executable).with_name("rein")), "--help")
    module = run(*REIN, "--help")
    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout


@pytest.mark.parametrize("words", [["text"], ["text", "--help"], ["text", "-h"]])
def test_a_group_lists_its_commands(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "usage: rein text COMMAND" in out
    assert "text build" in out
    assert "text show" in out
    assert "pretrain" not in out


@pytest.mark.parametrize(
    ("words", "problem", "fix"),
    [
        (["pretrian"], "rein has no command 'pretrian'.", "Did you mean pretrain"),
        (["text", "bild"], "rein has no command 'text bild'.", "text build"),
        (["bpe", "x"], "rein has no command 'bpe x'.", "bpe "),
        (["--verbose"], "rein has no command '--verbose'.", "Known names: "),
        (["zzz", "build"], "rein has no command 'zzz'.", "Known names: best-of-n, bpe decode"),
    ],
)
def test_an_unknown_command_is_answered(words, problem, fix, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"UserError: {problem}\n  ")
    assert fix in err


@pytest.mark.parametrize(("rank", "lines"), [("0", 2), ("1", 0), ("10", 0)])
def test_of_several_processes_the_first_one_says_what_is_wrong(rank, lines, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    assert main(["zzz"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_users_mistake_ends_with_2_and_no_traceback():
    ended = run(*PLAY, "--what", "fail")
    assert ended.returncode == 2
    assert ended.stderr == "UserError: --what is fail, but that fails.\n  Take print.\n"
    ended = run(*PLAY, "--wat", "x")
    assert (ended.returncode, ended.stderr.splitlines()[1]) == (2, "  Did you mean --what?")


def test_a_mistake_of_ours_keeps_its_traceback():
    ended = run(*PLAY, "--what", "break")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_ctrl_c_ends_with_130_and_no_traceback():
    process = subprocess.Popen([*PLAY, "--what", "sleep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("Interrupted.")
    assert "Traceback" not in err


@pytest.mark.parametrize(("words", "named"), [(["tamer", "play"], True), (["report"], False)])
def test_only_a_lesson_is_said_to_go_on_with_resume(words, named, monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("rein.cli._run", interrupted)
    assert main(words) == 130
    err = capsys.readouterr().err
    assert "the same command goes on" in err
    assert ("--resume" in err) == named


def test_a_reader_that_leaves_early_is_no_error():
    ended = run(
        "bash", "-c", '"$0" -c "$1" play --what print | head -1; echo ${PIPESTATUS[0]}', sys.executable, PROGRAM
    )
    assert ended.stdout == "0\n141\n"
    assert ended.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["text"], ["play", "--help"], ["play", "--what", "once"]])
def test_a_reader_that_is_gone_already_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert ended.stderr == ""
    assert ended.returncode in (0, 141)  # argparse ignores it by itself


def test_help_imports_neither_torch_nor_numpy():
    ended = run(sys.executable, "-X", "importtime", "-m", "rein", "--help")
    assert ended.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "rein" in imported
    assert not imported & {"torch", "numpy", "rich", "jinja2", "pyarrow", "gigatoken"}


def test_command_names_are_unique_and_two_are_groups_and_commands():
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert {name.split()[0] for name in names if " " in name} & set(names) == {"runs", "eval", "ppo", "reward"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_a_function_of_one_config_and_explains_itself(command: Command, capsys):
    function, config_class = command.load()
    parameters = inspect.signature(function).parameters.values()
    assert len([one for one in parameters if one.default is one.empty]) == 1
    assert inspect.getdoc(function), f"{command.target} has no docstring, which is its --help"
    assert config_class.__dataclass_params__.frozen
    for field in dataclasses.fields(config_class):
        assert field.metadata["help"], f"{command.name}: {field.name} says nothing about itself"
    with pytest.raises(SystemExit) as ended:
        main([*command.name.split(), "--help"])
    assert ended.value.code == 0
    assert f"usage: rein {command.name}" in capsys.readouterr().out


def test_a_function_gets_the_config_that_was_asked_for(monkeypatch):
    got = []

    @dataclasses.dataclass(frozen=True)
    class Config:
        n: int = setting(1, "a number")

    monkeypatch.setattr(Command, "load", lambda self: (got.append, Config))
    assert main(["pretrain", "--n", "3"]) == 0
    assert got == [Config(3)]
