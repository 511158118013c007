"""Language modelling: how likely a held-out text is, for each of its words, characters or bytes as published.

    WikiText-2, WikiText-103, PTB, 1BW    perplexity of a word; line ends are words, and so are signs that stand alone
    enwik8                                bits of a byte
    text8                                 bits of a character

The first four come with their words parted from their signs. They are read as people write (detokenise.py), without
losing what they were, and divided by the number of their words as they came. A text is an article of WikiText, a line
of 1BW, whose lines are shuffled, and the whole of the others.

Source   Radford 2019 §3.1; Brown 2020 §3.1.1 (PTB alone).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row, hub_rows, text_of
from rein.evals.task import Problem, Split, Task
from rein.evals.tasks.detokenise import BILLION, PTB, WIKITEXT, Style, detokenise
from rein.evals.tasks.reading import HUB_SPLITS, id_of

LAST_BYTES = 5_000_000  # bytes of enwik8 and text8 that are the test set, and as many before them the dev set
_TITLE = re.compile(r"(?m)^ = (?!=).* (?<!= )= $")  # of an article of WikiText: one equals sign a side


def whole(text: str) -> list[str]:
    """One text."""
    return [text]


def articles(text: str) -> list[str]:
    """Each from its title on; the first from the text's beginning."""
    starts = [found.start() for found in _TITLE.finditer(text)][1:]
    return [text[start:end] for start, end in zip([0, *starts], [*starts, len(text)], strict=True)]


def lines(text: str) -> list[str]:
    """Each with its line end."""
    return text.splitlines(keepends=True)


def read(style: Style, names: Mapping[Split, tuple[str, ...]], cut: Callable[[str], list[str]], hub: tuple[str, ...],
         data: Data, split: Split) -> Iterable[Row]:  # fmt: skip
    """The texts of a tokenised file, or of the hub, which has a line a row."""
    if data.from_hub:
        rows = hub_rows(hub, HUB_SPLITS[split])
        where, text = "/".join(hub), "".join(_line(row.get("text", row.get("sentence", "")), style) for row in rows)
    elif split not in names:
        raise UserError(f"The task has no {split} split, only: {', '.join(names)}.", "Score it on one of those.")
    else:
        path = data.need(*names[split])
        where, text = str(path), text_of(path)
    return [Row(part, f"{where}:{number}") for number, part in enumerate(cut(text), 1)]


def _line(text: str, style: Style) -> str:
    """A row of the hub as the line of the file that it was."""
    if not style.spaced:
        return f"{text.strip()}\n"
    return f" {text.strip()} \n" if text.strip() else " \n"


def ask_words(style: Style, row: Row) -> Iterable[Problem]:
    """The text as people write it, counted in words as it came."""
    units = len(row.values.split()) + row.values.count("\n")
    if not units:
        raise BadRow(f"{row.where}: it has no words")
    text = detokenise(row.values, style)
    yield Problem(id_of(row), text=text, units=units, parts={"passage": text})


def read_last(name: str, data: Data, split: Split) -> Iterable[Row]:
    """The end of the file of 100 million bytes, from one whole character to another; or a file that was cut so."""
    path = data.find(name)
    if path is None:
        path = data.need(f"{name}/{'valid' if split == 'dev' else split}.txt.raw", name)
        return [Row(text_of(path), f"{path}:1")]
    content, last = path.read_bytes(), {"dev": 2 * LAST_BYTES, "test": LAST_BYTES}
    if split not in last or len(content) < 2 * LAST_BYTES:
        raise UserError(f"{path} has {len(content):,} bytes and no {split} split.", "Give the whole file, as released.")
    start = len(content) - last[split]
    return [Row(content[start : start + LAST_BYTES].decode("utf-8", "ignore"), f"{path}:{split}")]


def ask(row: Row) -> Iterable[Problem]:
    """The text as it is."""
    if not row.values:
        raise BadRow(f"{row.where}: it is empty")
    yield Problem(id_of(row), text=row.values, units=len(row.values.encode()), parts={"passage": row.values})


def _words(name: str, title: str, style: Style, names: Mapping[Split, tuple[str, ...]],
           cut: Callable[[str], list[str]], hub: tuple[str, ...]) -> Task:  # fmt: skip
    reader = partial(read, style, names, cut, hub)
    return Task(name, title, reader, partial(ask_words, style), ("perplexity",), title, "text", chosen_on=None)


def _wiki(number: int) -> Task:
    folder = f"wikitext-{number}"
    names: dict[Split, tuple[str, ...]] = {
        "train": (f"{folder}/wiki.train.tokens", f"{folder}/train.txt"),
        "dev": (f"{folder}/wiki.valid.tokens", f"{folder}/valid.txt"),
        "test": (f"{folder}/wiki.test.tokens", f"{folder}/test.txt"),
    }
    title = f"WikiText-{number}"
    return _words(f"wikitext{number}", title, WIKITEXT, names, articles, ("Salesforce/wikitext", f"{folder}-v1"))


_PTB: dict[Split, tuple[str, ...]] = {"train": ("ptb.train.txt",), "dev": ("ptb.valid.txt",), "test": ("ptb.test.txt",)}
_BILLION: dict[Split, tuple[str, ...]] = {"test": ("news.en.heldout-00000-of-00050",)}

WIKITEXT_2, WIKITEXT_103 = _wiki(2), _wiki(103)
PENN = _words("ptb", "PTB", PTB, _PTB, whole, ("ptb-text-only/ptb_text_only",))
ONE_BILLION = _words("1bw", "1BW", BILLION, _BILLION, lines, ("billion-word-benchmark/lm1b",))


def _last(name: str, metric: str) -> Task:
    return Task(name, name, partial(read_last, name), ask, (metric,), name, "text", chosen_on=None)


ENWIK8, TEXT8 = _last("enwik8", "bits_per_byte"), _last("text8", "bits_per_character")
