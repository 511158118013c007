"""The gold score of docstring summaries: what people wrote for real docstrings stands above what is made of it."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rein.text.gold import HIGHEST, LOWEST, Parts, gold, parts

MODULES = (
    "argparse", "asyncio.queues", "asyncio.tasks", "calendar", "collections", "configparser", "contextlib", "copy",
    "csv", "dataclasses", "difflib", "email.message", "email.utils", "enum", "fractions", "ftplib", "functools",
    "gettext", "glob", "heapq", "html.parser", "http.client", "http.cookiejar", "imaplib", "inspect", "ipaddress",
    "locale", "logging", "mailbox", "multiprocessing.pool", "optparse", "pathlib", "pickle", "pickletools", "plistlib",
    "pstats", "random", "sched", "shelve", "shutil", "smtplib", "socket", "ssl", "statistics", "string", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "tokenize", "traceback", "turtle", "typing", "unittest.case",
    "unittest.mock", "urllib.parse", "urllib.request", "uuid", "weakref", "zipfile",
)  # fmt: skip


def docstrings():
    """Rows of the standard library: a summary line that ends in a full stop, and a body."""
    rows = []
    for module in MODULES:
        path = Path(importlib.util.find_spec(module).origin)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            summary, _, body = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n\n")
            if re.fullmatch(r"[A-Z][^\n<>=|{}]*\.", summary) and len(summary.split()) >= 3 and len(body) >= 80:
                rows.append({"name": f"{module}.{node.name}", "post": body, "reference": summary})
    return rows


@pytest.fixture(scope="module")
def rows():
    found = docstrings()
    assert len(found) > 300
    return found


def shuffled(text, draw):
    some = text.split()
    draw.shuffle(some)
    return " ".join(some)


def lead(row):
    return re.split(r"(?<=[.!?])\s+", row["post"])[0]


MADE = {
    # what is made of a row, another row and random numbers; and in how many of all cases the reference is above it
    "shuffled": (lambda row, other, draw: shuffled(row["reference"], draw), 0.85),
    "another's summary": (lambda row, other, draw: other["reference"], 0.85),
    "another's lead": (lambda row, other, draw: lead(other), 0.9),
    "its own lead": (lambda row, other, draw: lead(row), 0.85),
    "twice": (lambda row, other, draw: f"{row['reference']} {row['reference']}", 0.99),
    "one word again and again": (lambda row, other, draw: " ".join([row["reference"].split()[0]] * 8), 0.99),
    "its body": (lambda row, other, draw: row["post"], 0.99),
    "empty": (lambda row, other, draw: "", 0.99),
    "one verb": (lambda row, other, draw: "Return.", 0.98),
    "a phrase that fits all": (lambda row, other, draw: "Return the value of this object.", 0.8),
    "words of its body": (lambda row, other, draw: shuffled(" ".join(row["post"].split()[:9]), draw), 0.8),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_people_wrote_stands_above_what_is_made_of_it(rows, kind):
    make, least = MADE[kind]
    draw = random.Random(0)
    ours = np.array([gold(row, row["reference"]) for row in rows])
    theirs = np.array([gold(row, make(row, draw.choice(rows), draw)) for row in rows])
    assert (ours > theirs).mean() >= least
    assert ours.mean() - theirs.mean() > 0.4


def test_scores_of_what_people_wrote_are_spread_over_the_upper_half(rows):
    ours = np.array([gold(row, row["reference"]) for row in rows])
    assert 0.5 < ours.mean() < 1.5
    assert 0.3 < ours.std() < 1.2


def test_a_climb_of_single_edits_goes_up_with_hardly_a_plateau(rows):
    """From a bad summary to a good one, word by word, the score rises at most steps and never falls by much."""
    row = {"name": "shelve.Shelf.sync", "post": "The cache is written back to the disk, and the cache is emptied then."}
    steps = ["", "the", "the cache", "write the cache", "Write the cache", "Write the cache back",
             "Write the cache back to disk", "Write the cache back to disk."]  # fmt: skip
    scores = [gold(row, text) for text in steps]
    rises = np.diff(scores)
    assert (rises > 0).sum() >= 6
    assert rises.min() > -0.05
    assert scores[-1] > 1.4


@given(
    st.text(max_size=200),
    st.fixed_dictionaries({}, optional={"post": st.text(max_size=200), "name": st.text(max_size=40)}),
)
def test_any_text_has_a_score_within_bounds(text, context):
    found = parts(context, text)
    assert all(0 <= part <= 1 for part in found)
    assert LOWEST <= gold(context, text) <= HIGHEST
    assert gold(context, text) == found.score


@given(st.text(alphabet="abc. \n", max_size=60))
def test_spaces_around_a_text_change_nothing(text):
    context = {"post": "a b c a b"}
    assert gold(context, f"  {text}\n ") == gold(context, text)


def test_the_worst_and_the_best_are_reached():
    assert Parts(1, 1, 1, 1, 1).score == HIGHEST
    assert Parts(1, 1, 1, 0, 1).score == Parts(1, 1, 1, 1, 0).score == LOWEST
    context = {"name": "shelf.sync", "post": "The cache is written to the disk. The cache is emptied."}
    assert gold(context, "Write the cache of the shelf to disk.") > 1.6


@pytest.mark.parametrize(
    ("part", "better", "worse"),
    [
        ("form", "Read a file into memory.", "Reads a file into memory."),
        ("form", "Reads a file into memory.", "Memory file."),
        ("form", "Read a file into memory.", "read a file into memory."),
        ("form", "Read a file into memory.", "Read a file into memory"),
        ("form", "Read a file into memory.", "Read a file. Into memory."),
        ("form", "Read a file into memory.", "Read a file\ninto memory."),
        ("form", "Read a file into memory.", "Read a file\x00 into memory."),
        ("order", "Read a file into memory.", "Read into a memory file the."),
        ("order", "Read a file into memory.", "Read file memory."),
        ("length", "Read a file into memory.", "Read file."),
        ("length", "Read a file into memory.", "Read a file into memory" + ", and so on," * 6 + "."),
        ("new", "Read a file into memory.", "Read a file, read a file."),
        ("about", "Read a file into memory.", "Draw the tree of a garden."),
        ("about", "Read a file into memory.", "Read something."),
    ],
)
def test_each_part_looks_at_what_it_says(part, better, worse):
    context = {"name": "io.readAll", "post": "All bytes of the file are read at once; they stay in memory afterwards."}
    assert getattr(parts(context, better), part) > getattr(parts(context, worse), part)


def test_copying_a_long_phrase_is_worth_less_than_saying_it_anew():
    context = {"post": "The header of the message is parsed and returned as a list of pairs, without its folding."}
    copied = parts(context, "The header of the message is parsed and returned as a list.")
    said = parts(context, "Return the parsed header of a message as pairs.")
    assert copied.new < 0.6 < said.new
    assert copied.score < said.score


def test_the_words_of_a_name_count_however_it_is_written():
    for name in ("read_header_lines", "readHeaderLines", "HTTPReadHeaderLines", "a.b.read_header_lines"):
        assert parts({"name": name, "post": "It stops at the first empty one."}, "Read the header lines.").about == 1


def test_a_context_that_says_nothing_leaves_the_form():
    assert parts({}, "Return the list.").about == 0
    assert parts({"post": None, "name": None}, "Return the list of names.").form == 1


def test_it_is_quick(rows):
    """Fast enough to be no part of a step; ten times what it takes, so that a busy machine does not fail."""
    for row in rows:
        gold(row, row["reference"])
    began = time.process_time()
    for row in rows:
        gold(row, row["reference"])
    assert (time.process_time() - began) / len(rows) < 400e-6
