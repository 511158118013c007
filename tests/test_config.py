"""Flags, JSON and Python give equal configs; whatever is mistyped is an error that names it."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.config import command_line, from_flags, from_json, replace, setting, to_dict, to_json
from rein.errors import UserError


@dataclass(frozen=True)
class Sample:
    """Every type that a setting may have."""

    source: str = setting(help="text to read", positional=True)
    n_layer: int = setting(help="layers")
    n_head: int = setting(4, "heads", unit="heads", paper="12 in GPT-1")
    learning_rate: float = setting(6e-4, "peak", group="optimisation")
    shuffle: bool = setting(True, "a new order in every pass")
    name: str = setting("first run", "a name")
    out: Path = setting(Path("runs/first"), "run folder")
    norm: Literal["pre", "post"] = setting("pre", "where the norm stands")
    bits: Literal[16, 32] = setting(32, "of a weight")
    seed: int | None = setting(None, "none: another one each time")
    clip: float | None = setting(1.0, "none: never clip")
    note: str | None = setting(None, "free text, 100% yours")
    start: Path | None = setting(Path("a"), "none: from scratch")
    sizes: tuple[int, ...] = setting((1, 2), "sizes")
    rates: tuple[float, ...] = setting((), "rates")
    stop: tuple[str, ...] = setting(("\n",), "stops")
    files: tuple[Path, ...] = setting((), "files")


@dataclass(frozen=True)
class Places:
    """Several positional settings."""

    first: str = setting(help="required", positional=True)
    second: str = setting("b", "not required", positional=True)
    rest: tuple[str, ...] = setting((), "any number", positional=True)
    sizes: tuple[int, ...] = setting((), "sizes")


def parse(line: str, cls=Sample):
    return from_flags(cls, shlex.split(line), prog="rein sample")


def error(line: str, cls=Sample) -> str:
    with pytest.raises(UserError) as caught:
        parse(line, cls)
    return str(caught.value)


def file_error(tmp_path: Path, text: str) -> str:
    path = tmp_path / "c.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        from_json(Sample, path)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ three equal doors

integers = st.integers(-(2**70), 2**70)
floats = st.floats(allow_nan=False, allow_infinity=False)
# Not "--" alone, which argparse drops; not the word none where it means no value.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9) | st.sampled_from(
    ["-1", "-x", "--n-layer", "--config", "a b", "", "-", "'\"", "1e5", "None"]
)
texts = texts.filter(lambda text: text != "--")
paths = texts.map(Path).filter(lambda path: str(path) != "--")
configs = st.builds(
    Sample,
    source=texts,
    n_layer=integers,
    n_head=integers,
    learning_rate=floats,
    shuffle=st.booleans(),
    name=texts,
    out=paths,
    norm=st.sampled_from(["pre", "post"]),
    bits=st.sampled_from([16, 32]),
    seed=st.none() | integers,
    clip=st.none() | floats,
    note=st.none() | texts.filter(lambda text: text.lower() != "none"),
    start=st.none() | paths.filter(lambda path: str(path).lower() != "none"),
    sizes=st.lists(integers, max_size=3).map(tuple),
    rates=st.lists(floats, max_size=3).map(tuple),
    stop=st.lists(texts, max_size=3).map(tuple),
    files=st.lists(paths, max_size=3).map(tuple),
)


@given(configs)
def test_the_command_line_of_a_config_gives_the_config(config):
    line = command_line("rein sample", config)
    assert parse(line.removeprefix("rein sample")) == config


@given(configs)
@settings(deadline=None)
def test_the_file_of_a_config_gives_the_config(config):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(to_json(config), encoding="utf-8")
        assert from_json(Sample, path) == config
        assert from_flags(Sample, ["--config", str(path)], prog="rein sample") == config
        assert from_flags(Sample, [f"--config={path}"], prog="rein sample") == config


@given(configs)
def test_flags_give_what_python_gives_and_the_types_are_the_declared_ones(config):
    twin = parse(command_line("", config))
    assert [type(value) for value in dataclasses.astuple(twin)] == [type(v) for v in dataclasses.astuple(config)]
    assert json.loads(to_json(config)) == to_dict(twin)


@given(st.builds(Places, first=texts, second=texts, rest=st.lists(texts, max_size=3).map(tuple),
                 sizes=st.lists(integers, max_size=3).map(tuple)))  # fmt: skip
def test_positional_settings_find_their_places_again(config):
    assert parse(command_line("", config), Places) == config


def test_the_command_line_is_the_shortest_one():
    config = Sample("text.txt", 6, shuffle=False, note="a b", sizes=())
    assert command_line("rein sample", config) == (
        "rein sample text.txt --n-layer 6 --no-shuffle --note 'a b' --sizes"
    )  # fmt: skip


def test_flags_and_positional_words_may_be_mixed():
    assert parse("a --sizes 1 2 --n-layer 3") == parse("--n-layer 3 --sizes 1 2 -- a")
    assert parse("a b c --sizes 1", Places) == parse("--sizes 1 -- a b c", Places)


def test_a_list_may_be_given_in_pieces():
    assert parse("a --n-layer 1 --stop x --stop=-y --stop z").stop == ("x", "-y", "z")


# ------------------------------------------------------------------------------------------------- precedence


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"n_layer": 2, "n_head": 8, "stop": ["a"], "source": "s"}')
    config = parse(f"--config {path} --n-head 16 --stop b")
    assert (config.n_layer, config.n_head, config.learning_rate, config.stop) == (2, 16, 6e-4, ("b",))
    assert parse(f"other --config {path}").source == "other"


def test_a_file_may_leave_out_what_has_a_default(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"source": "s", "n_layer": 2}')
    assert from_json(Sample, path) == Sample("s", 2)


def test_the_last_of_a_repeated_flag_counts():
    assert parse("a --n-layer 1 --n-layer 2").n_layer == 2


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("text", ["300000", "300_000", "3e5", "300000.0", "+300000"])
def test_whole_numbers_may_be_written_so(text):
    assert parse(f"a --n-layer {text}").n_layer == 300_000


def test_large_whole_numbers_keep_every_digit():
    assert parse("a --n-layer 9007199254740993").n_layer == 9007199254740993


def test_a_whole_number_in_a_file_may_be_written_with_an_exponent(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"source": "s", "n_layer": 3e5, "learning_rate": 1}')
    config = from_json(Sample, path)
    assert config.n_layer == 300_000
    assert type(config.n_layer) is int
    assert type(config.learning_rate) is float


def test_yes_and_no():
    assert parse("a --n-layer 1 --shuffle").shuffle is True
    assert parse("a --n-layer 1 --no-shuffle").shuffle is False
    assert parse("a --n-layer 1 --shuffle --no-shuffle").shuffle is False


def test_the_word_none_takes_an_optional_value_away():
    config = parse("a --n-layer 1 --clip none --start None --name none")
    assert (config.clip, config.start, config.name) == (None, None, "none")


def test_values_may_begin_with_a_dash():
    assert parse("a --n-layer=-1 --name=-x --learning-rate -0.5").learning_rate == -0.5


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a --n-layers 1", ["no flag --n-layers", "Did you mean --n-layer"]),
        ("a --n-layer 1 --n-hea 3", ["no flag --n-hea", "--n-head"]),
        ("a --n-layer 1 --zzzzzz=3", ["no flag --zzzzzz.", "Known names: ", "--learning-rate"]),
        ("a --n-layer 1 --configs x", ["Did you mean --config"]),
        ("a --n-layer 1 -n 3", ["no flag -n."]),
        ("a b --n-layer 1", ["'b'", "rein sample --help"]),
        ("a", ["needs --n-layer: layers", "Add --n-layer"]),
        ("--n-layer 1", ["SOURCE", "rein sample --help"]),
        ("a --n-layer", ["--n-layer", "expected one argument"]),
        ("a --n-layer 1 --shuffle=yes", ["shuffle", "yes"]),
        ("a --n-layer six", ["--n-layer is 'six', but a whole number is expected", "3e5"]),
        ("a --n-layer 1.5", ["--n-layer is '1.5'"]),
        ("a --n-layer nan", ["--n-layer is 'nan'"]),
        ("a --n-layer 1e999", ["--n-layer is '1e999'"]),
        ("a --n-layer ''", ["--n-layer is ''"]),
        ("a --n-layer none", ["--n-layer is 'none'"]),
        ("a --n-layer 1 --learning-rate high", ["--learning-rate is 'high', but a number is expected", "6e-4"]),
        ("a --n-layer 1 --learning-rate nan", ["--learning-rate is 'nan'", "a number is expected"]),
        ("a --n-layer 1 --learning-rate inf", ["--learning-rate is 'inf'", "a number is expected"]),
        ("a --n-layer 1 --norm poste", ["--norm is 'poste'", "Did you mean post"]),
        ("a --n-layer 1 --bits 8", ["--bits is '8'", "16, 32"]),
        ("a --n-layer 1 --sizes 1 x", ["--sizes is 'x'"]),
        ("a --n-layer 1 --config /no/such/file.json", ["/no/such/file.json does not exist", "--config"]),
    ],
)
def test_a_mistaken_command_line_is_answered(line, says):
    message = error(line)
    assert all(words in message for words in says), message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", ["c.json is not valid JSON"]),
        ("", ["c.json is not valid JSON"]),
        ("[1]", ["c.json holds a list", "one JSON object"]),
        ('{"n_layers": 1}', ["c.json has the unknown setting 'n_layers'", "Did you mean n_layer?"]),
        ('{"n-layer": 1}', ["unknown setting 'n-layer'", "n_layer"]),
        ('{"n_layer": "3"}', ["n_layer in", "c.json is '3', but int is expected"]),
        ('{"n_layer": true}', ["n_layer in", "True"]),
        ('{"n_layer": 1.5}', ["n_layer in", "1.5"]),
        ('{"n_layer": null}', ["n_layer in", "None"]),
        ('{"n_layer": NaN}', ["n_layer in", "nan"]),
        ('{"n_layer": Infinity}', ["n_layer in", "inf"]),
        ('{"learning_rate": NaN}', ["learning_rate in", "nan"]),
        ('{"learning_rate": -Infinity}', ["learning_rate in", "-inf"]),
        ('{"learning_rate": 1e999}', ["learning_rate in", "inf"]),
        ('{"learning_rate": 1' + 400 * "0" + "}", ["learning_rate in"]),
        ('{"n_layer": 1' + 5000 * "0" + "}", ["c.json is not valid JSON"]),
        ('{"learning_rate": "3e-4"}', ["learning_rate in", "'3e-4', but float is expected"]),
        ('{"learning_rate": false}', ["learning_rate in", "False"]),
        ('{"shuffle": 1}', ["shuffle in", "but bool is expected"]),
        ('{"shuffle": "no"}', ["shuffle in", "'no'"]),
        ('{"name": 3}', ["name in", "but str is expected"]),
        ('{"out": 3}', ["out in", "but Path is expected"]),
        ('{"norm": "sideways"}', ["norm in", "'sideways'", "Known names: post, pre"]),
        ('{"bits": 16.0}', ["bits in", "16.0"]),
        ('{"bits": true}', ["bits in", "True"]),
        ('{"sizes": 3}', ["sizes in", "3, but a list is expected"]),
        ('{"sizes": [1, "2"]}', ["sizes in", "'2', but int is expected"]),
        ('{"rates": [NaN]}', ["rates in", "nan"]),
        ('{"stop": "abc"}', ["stop in", "but a list is expected"]),
        ('{"source": "s"}', ["needs --n-layer"]),
        ('{"n_layer": 1}', ["needs source"]),
    ],
)
def test_a_mistaken_file_is_answered(tmp_path, text, says):
    message = file_error(tmp_path, text)
    assert all(words in message for words in says), message


def test_a_file_that_is_no_text_or_no_file_is_answered(tmp_path):
    (tmp_path / "latin").write_bytes(b'{"name": "\xe9"}')
    assert "is not valid JSON" in error(f"--config {tmp_path}/latin")
    assert "cannot be read: Is a directory" in error(f"--config {tmp_path}")


def test_a_config_checks_itself_whichever_door_it_came_through(tmp_path):
    @dataclass(frozen=True)
    class Even:
        n: int = setting(2, "even")

        def __post_init__(self) -> None:
            if self.n % 2:
                raise UserError(f"--n is {self.n}, but it must be even.", "Add one.")

    (tmp_path / "c.json").write_text('{"n": 3}')
    for attempt in (
        lambda: parse("--n 3", Even),
        lambda: from_json(Even, tmp_path / "c.json"),
        lambda: replace(Even(), n=3),
    ):
        with pytest.raises(UserError, match="must be even"):
            attempt()


# -------------------------------------------------------------------------------------------------------- help


def test_help_says_all_there_is_about_a_setting(capsys):
    with pytest.raises(SystemExit) as ended:
        from_flags(Sample, ["--help"], prog="rein sample", description="Reads 50% of a text.")
    assert ended.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for expected in (
        "Reads 50% of a text.",
        "layers (required)",
        "heads [heads] (paper: 12 in GPT-1) (default: 4)",
        "--shuffle, --no-shuffle",
        "--norm {pre,post}",
        "free text, 100% yours",
        "optimisation:",
        "--config FILE",
    ):
        assert expected in words, words


def test_numbers_that_no_file_can_hold_do_not_come_through_flags():
    assert math.isfinite(parse("a --n-layer 1 --clip 1e308").clip)
    assert "--clip is '1e309'" in error("a --n-layer 1 --clip 1e309")
