"""What the Markdown pages say can be done: their commands exist, the marked ones run, their links lead somewhere.

A fenced block is run, in a folder of its own per page, where the line above it is one of

    <!-- test: run -->                        every command must end with 0
    <!-- test: run, same output -->           and print what the block shows; `...` stands for anything
    <!-- test: run with --train-tokens 2e4 -->  with these flags added to each `rein` command: the same, but tiny

In ```console blocks the commands are the lines behind `$ `, in ```sh blocks all lines; a ```python block is a program.
What is not run, `rein …` and `make …` in running text too, must still name commands, flags and targets there are.
"""

from __future__ import annotations

import dataclasses
import doctest
import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rein.cli import COMMANDS
from rein.config import flag_of, from_flags
from rein.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SHELLS = ("console", "sh", "bash", "shell")
RUN = re.compile(r"<!-- test: run(?: with (?P<more>.+?))?(?P<same>, same output)? -->")


@functools.cache
def tracked() -> list[Path]:
    """The files of the project: what git knows or would add; in an unpacked archive, all but hidden folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not p.relative_to(ROOT).parts[0].startswith(".")]
    return sorted(ROOT / name for name in listed if name and (ROOT / name).is_file())


PAGES = [path for path in tracked() if path.suffix == ".md"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@dataclass
class Block:
    """A fenced block: its language, its lines, and the line above it."""

    language: str
    lines: list[str]
    above: str

    def commands(self) -> list[tuple[str, str]]:
        """Each command and the output shown below it."""
        found: list[tuple[str, str]] = []
        for line in re.sub(r"\\\n\s*", "", "\n".join(self.lines)).splitlines():
            if self.language != "console":
                if self.language in SHELLS and line.strip() and not line.startswith("#"):
                    found.append((line.strip(), ""))
                elif self.language not in SHELLS and re.match(r" +rein [a-z]", line):
                    found.append((re.split("  +", line.strip())[0], ""))  # an example in a command's help, and a remark
            elif line.startswith("$ "):
                found.append((line[2:], ""))
            elif found:
                found[-1] = (found[-1][0], found[-1][1] + line + "\n")
        return found


def blocks_and_text(markdown: str) -> tuple[list[Block], str]:
    """The fenced blocks, and the running text without them."""
    blocks, text, fence, above = [], [], "", ""
    for line in markdown.splitlines():
        mark = re.match(r" *(```+|~~~+)(\w*)", line)
        if fence and line.strip() == fence:
            fence = ""
        elif fence:
            blocks[-1].lines.append(line)
        elif mark:
            fence = mark[1]
            blocks.append(Block(mark[2], [], above))
        else:
            text.append(line)
        above = line.strip() or above
    return blocks, "\n".join(text)


# ------------------------------------------------------------------------------------------- commands there are


def mistakes_in(markdown: str) -> Iterator[str]:
    """What a page says can be typed, but cannot."""
    blocks, text = blocks_and_text(markdown)
    for block in blocks:
        for line, _ in block.commands():
            yield from mistake_of(line, whole=True)
    for span in re.findall(r"(?<!`)`((?:rein|make) [^`\n]+)`(?!`)", text):
        yield from mistake_of(span, whole=False)


def mistake_of(line: str, *, whole: bool) -> Iterator[str]:
    """The mistakes of one shell line; with `whole`, its settings must be complete and well typed too."""
    try:
        commands = list(simple_commands(line))
    except ValueError as error:
        yield f"{line}\n  {error}"
        return
    for words in commands:
        if words[0] == "make":
            problem = mistake_of_make(words[1:])
        elif Path(words[0]).name == "rein":
            problem = mistake_of_rein(words[1:], whole=whole)
        else:
            continue
        if problem:
            yield f"{line}\n  {problem}"


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a shell line, each as its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;<>()"):
            while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def mistake_of_rein(words: list[str], *, whole: bool) -> str:
    names = {command.name: command for command in COMMANDS}
    groups = {name.split()[0] for name in names if " " in name}
    if not words or words[0] in ("-h", "--help", "help", "-V", "--version", "COMMAND", "…", "..."):
        return ""
    if words[0] in groups and words[1:] in ([], ["--help"], ["-h"]):
        return ""
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in names), None)
    if name is None:
        return f"there is no command {' '.join(words[:2])!r}"
    rest = words[len(name.split()) :]
    _, config_class = names[name].load()
    hints = typing.get_type_hints(config_class)
    flags = {"--config", "--help"}
    for field in dataclasses.fields(config_class):
        flags.add(flag_of(field.name))
        if hints[field.name] is bool:
            flags.add("--no-" + field.name.replace("_", "-"))
    unknown = [word for word in rest if word.startswith("--") and len(word) > 2 and word.split("=")[0] not in flags]
    if unknown:
        return f"rein {name} has no flag {unknown[0]}"
    left_open = {"--help", "-h", "--config"} & {word.split("=")[0] for word in rest}
    if whole and not left_open and not re.search(r"…|\.\.\.", " ".join(rest)):
        try:
            from_flags(config_class, rest, prog=f"rein {name}")
        except UserError as error:
            return str(error)
    return ""


def mistake_of_make(words: list[str]) -> str:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name not in variables:
            return f"the Makefile has no variable {name}"
        if not equals and name not in targets:
            return f"the Makefile has no target {name}"
        if name == "ARGS" and "demo" in words:
            return mistake_of_rein(["demo", *shlex.split(value)], whole=True)
    return ""


@each_page
def test_what_a_page_tells_to_type_exists(page):
    mistakes = list(mistakes_in(page.read_text(encoding="utf-8")))
    assert not mistakes, "\n".join(mistakes)


@pytest.mark.parametrize(
    ("markdown", "says"),
    [
        ("Type `rein pretrian`.", "no command 'pretrian'"),
        ("Type `rein bpe`, then `rein bpe trian x`.", "no command 'bpe trian'"),
        ("Type `rein report --colour`.", "rein report has no flag --colour"),
        ("Type `make tset`.", "no target tset"),
        ("Type `make demo ARG=3`.", "no variable ARG"),
        ('Type `rein report "runs/a`.', "No closing quotation"),
        ('Type `make demo ARGS="--colour"`.', "rein demo has no flag --colour"),
        ("```console\n$ cat x | rein reprot runs/a\nreprot\n```", "no command 'reprot runs/a'"),
        ("```sh\nX=1 .venv/bin/rein \\\n  nothing # said\n```", "no command 'nothing'"),
        ("```text\nExamples\n  rein nothing\n```", "no command 'nothing'"),
    ],
)
def test_a_page_that_tells_of_what_there_is_not_is_found(markdown, says):
    (mistake,) = mistakes_in(markdown)
    assert says in mistake


@pytest.mark.parametrize(
    "markdown",
    [
        "`rein`, `rein.config`, `rein --help`, `rein text`, `rein text --help`, `make`, `make test`, a rein COMMAND",
        'Type `make test ARGS="-k version"` or `make setup PYTHON=python3.12`.',
        "```console\n$ rein --version | cat > rein.txt\nrein nothing\n```",
        "```text\nrein nothing\n```",
        "```python\nrein = 3\n```",
    ],
)
def test_a_page_that_tells_of_what_there_is_passes(markdown):
    assert not list(mistakes_in(markdown))


# ----------------------------------------------------------------------------------------------- blocks that run


@each_page
def test_the_marked_blocks_of_a_page_run(page, tmp_path):
    for block in blocks_and_text(page.read_text(encoding="utf-8"))[0]:
        if mark := RUN.fullmatch(block.above):
            run(block, mark, tmp_path)
        assert mark or "<!-- test:" not in block.above, f"not understood: {block.above}"


def run(block: Block, mark: re.Match[str], folder: Path) -> None:
    if block.language == "python":
        commands = [(shlex.join([sys.executable, "-c", "\n".join(block.lines)]), "")]
    else:
        assert block.language in SHELLS, f"no way to run a block of {block.language!r}"
        commands = block.commands()
    assert commands, "a block marked to be run has no command"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line, shown in commands:
        if mark["more"]:
            line = re.sub(r"(^|[|;&] *)(rein [^|;&<>]*[^|;&<> ])", rf"\1\2 {mark['more']}", line)
        ended = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, f"$ {line}\n{ended.stdout}{ended.stderr}"
        if mark["same"]:
            same = doctest.OutputChecker().check_output(shown, ended.stdout, doctest.ELLIPSIS)
            assert same, f"$ {line}\nshown:\n{shown}\nprinted:\n{ended.stdout}"


@pytest.mark.parametrize(
    ("markdown", "passes"),
    [
        ("<!-- test: run -->\n```console\n$ echo a > b\n$ cat b\nz\n```", True),
        ("<!-- test: run -->\n```console\n$ false | cat\n```", False),
        ("<!-- test: run, same output -->\n\n```console\n$ echo a \\\n    b\na b\n```", True),
        ("<!-- test: run, same output -->\n```console\n$ echo 12 ms\n... ms\n```", True),
        ("<!-- test: run, same output -->\n```console\n$ echo a\nb\n```", False),
        ("<!-- test: run with --nonsense -->\n```console\n$ rein text\n```", False),
        ("<!-- test: run with --help -->\n```console\n$ rein text | grep 'text build'\n```", True),
        ("<!-- test: run -->\n```python\nimport rein\n```", True),
        ("<!-- test: run -->\n```python\nimport reign\n```", False),
        ("<!-- test: run -->\n```json\n{}\n```", False),
        ("<!-- test: perhaps -->\n```sh\ntrue\n```", False),
    ],
)
def test_a_marked_block_fails_when_it_should(markdown, passes, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(markdown)
    (tmp_path / "folder").mkdir()
    if passes:
        test_the_marked_blocks_of_a_page_run(page, tmp_path / "folder")
        return
    with pytest.raises(AssertionError):
        test_the_marked_blocks_of_a_page_run(page, tmp_path / "folder")


# -------------------------------------------------------------------------------------------------------- links


def broken_links(page: Path, markdown: str) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", blocks_and_text(markdown)[1])
    targets = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    targets += re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, wanted = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if (name and not path.exists()) or not (path == ROOT or path.is_relative_to(ROOT)):
            yield f"{target} leads nowhere"
        elif wanted and path.suffix == ".md":
            content = markdown if path == page else path.read_text(encoding="utf-8")
            if wanted not in anchors(content):
                yield f"{target}: no such heading"


def anchors(markdown: str) -> set[str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    generate = sys.modules.setdefault("generate", importlib.util.module_from_spec(spec))
    if not hasattr(generate, "anchor"):
        spec.loader.exec_module(generate)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", blocks_and_text(markdown)[1], re.MULTILINE):
        plain = name = generate.anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        count = 0
        while name in found:
            count += 1
            name = f"{plain}-{count}"
        found.add(name)
    return found


@each_page
def test_links_lead_somewhere(page):
    broken = list(broken_links(page, page.read_text(encoding="utf-8")))
    assert not broken, "\n".join(broken)


def test_a_link_that_leads_nowhere_is_found():
    text = "# A b\n# A b\n[a](#a-b) [b](#a-b-1) [c](Makefile) [d](docs/) [e](https://arxiv.org) [f](#c) [g](none.md)"
    assert list(broken_links(ROOT / "page.md", text)) == ["#c: no such heading", "none.md leads nowhere"]


def test_every_page_below_docs_can_be_reached_from_its_index():
    reached, todo = set(), [ROOT / "docs" / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached and page.suffix == ".md" and page.is_file():
            reached.add(page)
            links = re.findall(r"\]\(([^()\s#]+)[^()\s]*\)", page.read_text(encoding="utf-8"))
            todo += [(page.parent / link).resolve() for link in links if "://" not in link]
    lost = [str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in reached]
    assert not lost, f"no way leads from docs/README.md to {lost}"


# ---------------------------------------------------------------------------------------------- nobody's machine

MACHINE = re.compile(
    r"(?<![\w.~$}/-])/(?:home|root|Users|work|opt)/[\w.]"
    r"|https?://(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|npmjs\.org)"
    r"|https?://(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)\d"
    r"|https?://[\w.-]+\.(?:internal|local|lan|corp)\b"
)


def test_no_file_names_a_place_on_somebodys_machine_or_network():
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        name = path.relative_to(ROOT)
        found += [f"{name}:{n}: {line.strip()[:99]}" for n, line in enumerate(lines, 1) if MACHINE.search(line)]
    assert not found, "\n".join(found)


def test_such_places_are_recognised():
    def joined(names):
        return names.replace(" ", "/")  # so that this file itself holds no such place

    for place in (" home me x", " root .cache", " work main"):
        assert MACHINE.search(f"see {joined(place)}")
    for place in ("http:  192.168.0.1", "http:  box.internal x"):
        assert MACHINE.search(joined(place))
    for place in ("~ runs", "docs work x", "$HOME work x", "https:  example.org home x", "http:  127.0.0.1:8000"):
        assert not MACHINE.search(joined(place))
