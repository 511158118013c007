"""One config object, three doors: flags, a JSON file, Python.

A command's settings are one frozen dataclass whose fields are made with `setting`. From that one
declaration come the flags with their `--help`, the JSON file that a run folder keeps (`config.json`, itself
a valid `--config`), and the Python object. A class that is only read from files may hold others (recipe.py). An
unknown key is an error with a suggestion, never ignored.
Order of precedence: the defaults, then the JSON file, then the flags.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from rein.errors import UserError, suggestion

T = TypeVar("T")
_REQUIRED: Any = dataclasses.MISSING


def setting(
    default: Any = _REQUIRED,
    help: str = "",
    *,
    unit: str = "",
    paper: str = "",
    positional: bool = False,
    group: str = "settings",
    may_change: bool = False,
) -> Any:
    """Declares one field of a config dataclass.

    `help` is the line that `--help` shows; `unit` and `paper` (the value a paper used) are shown behind it.
    A field without a default is required. A `positional` field is given without its flag. What `may_change` says how
    a run is carried out, not which run it is: a run that is continued may have another value of it.
    """
    metadata = {
        "help": help, "unit": unit, "paper": paper, "positional": positional, "group": group, "may_change": may_change,
    }  # fmt: skip
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """The flag of a field.

    Example  >>> flag_of("n_layer")
             '--n-layer'
    """
    return "--" + name.replace("_", "-")


# ------------------------------------------------------------------------------------------- door 1: flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}.", f"See `{self.prog} --help`.")


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


def _parser(cls: type[Any], prog: str, description: str, *, from_file: bool = False) -> _Parser:
    parser = _Parser(
        prog=prog,
        description=description,
        formatter_class=_Help,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        meta = field.metadata
        title = str(meta["group"])
        target = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        kind, _ = _strip_optional(hints[field.name])
        text = _help_text(field)
        if get_origin(kind) is tuple:
            item = get_args(kind)[0]
            keywords: dict[str, Any] = {"nargs": "*", "metavar": _metavar(field.name, item)}
            if not meta["positional"]:
                keywords["action"] = "extend"
        elif kind is bool:
            keywords = {"action": argparse.BooleanOptionalAction}
        else:
            keywords = {"metavar": _metavar(field.name, kind)}
        if meta["positional"]:
            if from_file or field.default is not dataclasses.MISSING:
                keywords.setdefault("nargs", "?")  # where a file may give it, `_build` says whether it is missing
            parser.add_argument(field.name, help=text, **keywords)
        else:
            target.add_argument(flag_of(field.name), dest=field.name, help=text, **keywords)
    parser.add_argument(
        "--config", metavar="FILE", help="JSON file with any of these settings (a run's config.json too)"
    )
    return parser


def _metavar(name: str, kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(str(value) for value in get_args(kind)) + "}"
    if kind is Path:
        return "PATH"
    return {int: "N", float: "X", str: name.rsplit("_", 1)[-1].upper()}.get(kind, name.upper())


def _help_text(field: dataclasses.Field[Any]) -> str:
    meta = field.metadata
    parts = [str(meta["help"])]
    if meta["unit"]:
        parts.append(f"[{meta['unit']}]")
    if meta["paper"]:
        parts.append(f"(paper: {meta['paper']})")
    if field.default is dataclasses.MISSING:
        parts.append("(required)")
    elif field.default is not None and field.default != ():
        parts.append(f"(default: {_plain(field.default)})")
    return " ".join(part for part in parts if part).replace("%", "%%")


def from_flags(cls: type[T], argv: Sequence[str], *, prog: str, description: str = "") -> T:
    """Parses a command line into `cls`: defaults, then `--config FILE`, then the flags.

    Raises   UserError for an unknown flag (with a suggestion), a missing or an ill-typed value.
             SystemExit(0) after `--help`.
    """
    from_file = any(word.split("=", 1)[0] == "--config" for word in argv)
    parser = _parser(cls, prog, description, from_file=from_file)
    namespace, unknown = parser.parse_known_args(argv)
    flags = vars(namespace)
    for word in unknown:
        if word.startswith("-"):
            flag = word.split("=", 1)[0]
            fields = dataclasses.fields(cls)  # type: ignore[arg-type]
            known = [flag_of(f.name) for f in fields if not f.metadata["positional"]]
            raise UserError(f"{prog} has no flag {flag}.", suggestion(flag, [*known, "--config"]))
        raise UserError(f"{prog} does not know what to do with {word!r}.", f"See `{prog} --help`.")
    file = flags.pop("config", None)
    values = settings_in(Path(file)) if file is not None else {}
    source = str(file) if file is not None else ""
    values = _checked(cls, values, source)
    for name, raw in flags.items():
        hint = typing.get_type_hints(cls)[name]
        values[name] = _from_text(raw, hint, flag_of(name))
    return _build(cls, values, prog)


def _from_text(raw: Any, hint: Any, where: str) -> Any:
    kind, optional = _strip_optional(hint)
    if get_origin(kind) is tuple:
        return tuple(_from_text(item, get_args(kind)[0], where) for item in raw)
    if isinstance(raw, bool) or raw is None:
        return raw
    if optional and raw.lower() == "none":
        return None
    if kind is int:
        try:
            number = float(raw.replace("_", ""))
            if number == int(number):
                return int(raw.replace("_", "")) if raw.replace("_", "").lstrip("+-").isdigit() else int(number)
        except (ValueError, OverflowError):
            pass
        raise UserError(f"{where} is {raw!r}, but a whole number is expected.", "Write 300000, 300_000 or 3e5.")
    if kind is float:
        try:
            number = float(raw)
            if not math.isfinite(number):
                raise ValueError(raw)
        except ValueError:
            raise UserError(f"{where} is {raw!r}, but a number is expected.", "Write 0.0006 or 6e-4.") from None
        return _coerce(number, hint, where)
    if get_origin(kind) is Literal:
        raw = next((choice for choice in get_args(kind) if str(choice) == raw), raw)
    return _coerce(raw, hint, where)


# ---------------------------------------------------------------------------------------- door 2: JSON file


def from_json(cls: type[T], path: Path) -> T:
    """Reads a config from a JSON object; what it leaves out keeps its default.

    Raises   UserError when the file is missing, not a JSON object, or has an unknown or ill-typed key.
    """
    return _build(cls, _checked(cls, settings_in(path), str(path)), str(path))


def from_dict(cls: type[T], values: dict[str, Any], source: str) -> T:
    """A config from plain JSON values, as `to_dict` gives them; `source` names them in errors.

    Raises   UserError for an unknown or ill-typed key.
    """
    return _build(cls, _checked(cls, values, source), source)


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain JSON values: paths as strings, tuples as lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def to_json(config: Any) -> str:
    """The text of a `config.json`: written to a file, `--config` of that file gives an equal object."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def settings_in(path: Path, flag: str = "--config") -> dict[str, Any]:
    """The settings in a JSON file that `flag` named.

    Raises   UserError when there is none, it cannot be read, or it is not one JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.", f"Check the path given to {flag}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", f"Check the path given to {flag}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.", "Correct the file.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}.", "It must hold one JSON object of settings.")
    return values


def _checked(cls: type[Any], values: dict[str, Any], source: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise UserError(f"{source} has the unknown setting {key!r}.", suggestion(key, names))
    return {key: _coerce(value, hints[key], f"{key} in {source}") for key, value in values.items()}


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` as the field's type, or a UserError; never guesses (the text "3" is not a number)."""
    kind, optional = _strip_optional(hint)
    if value is None and optional:
        return None
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        if isinstance(value, dict):
            return _build(kind, _checked(kind, value, where), where)
        raise UserError(f"{where} is {value!r}, but an object of settings is expected.", "Correct the value.")
    if get_origin(kind) is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
            return value
        names = [str(choice) for choice in get_args(kind)]
        raise UserError(f"{where} is {value!r}.", suggestion(str(value), names))
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_coerce(item, get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(value))
    elif kind is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
    elif kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON's 3e5
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    if get_origin(kind) is tuple:
        raise UserError(f"{where} is {value!r}, but a list is expected.", "In Python, a list of one is (this,).")
    raise UserError(f"{where} is {value!r}, but {kind.__name__} is expected.", "Correct the value.")


# --------------------------------------------------------------------------------------------------- shared


def check_types(config: Any, name: str) -> None:
    """Holds an object that was made in Python to the types of its fields, as one from a file is; texts become paths.

    Raises   UserError that names the field, for a value of another type.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = _coerce(getattr(config, field.name), hints[field.name], f"{field.name} of {name}")
        object.__setattr__(config, field.name, value)


def replace(config: T, **changes: Any) -> T:
    """`config` with some settings changed; its own checks run again."""
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _build(cls: type[T], values: dict[str, Any], source: str) -> T:
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in values:
            given = field.name if field.metadata["positional"] else flag_of(field.name)
            raise UserError(f"{source} needs {given}: {field.metadata['help']}.", f"Add {given}, or see --help.")
    return cls(**values)


def _strip_optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [kind for kind in get_args(hint) if kind is not type(None)]
        assert len(rest) == 1, f"a setting may be X or X | None, not {hint}"
        return rest[0], True
    return hint, False


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return value


def command_line(prog: str, config: Any) -> str:
    """The shortest command that gives `config`: only the settings that differ from their defaults."""
    flags: list[str] = []
    places: list[str] = []  # the positional ones; a default is only written where a later one is not
    skipped: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        texts = [_text(item) for item in value] if isinstance(value, tuple) else [_text(value)]
        default = field.default is not dataclasses.MISSING and value == field.default
        if field.metadata["positional"]:
            skipped += texts
            if not default:
                places, skipped = places + skipped, []
        elif default:
            continue
        elif isinstance(value, bool):
            flags.append(flag_of(field.name) if value else "--no-" + field.name.replace("_", "-"))
        else:
            flags += _flag_words(flag_of(field.name), texts)
    if any(text.startswith("-") for text in places):
        words = [*flags, "--", *places]
    else:
        words = [*places, *flags]
    return " ".join([prog, *(shlex.quote(word) for word in words)])


def _flag_words(flag: str, texts: Sequence[str]) -> list[str]:
    """A flag and its values; a value that begins with a dash needs `--flag=-value`."""
    words: list[str] = [] if texts else [flag]
    joined = True
    for text in texts:
        if text.startswith("-"):
            words.append(f"{flag}={text}")
        else:
            words += [flag, text] if joined else [text]
        joined = text.startswith("-")
    return words


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
