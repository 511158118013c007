"""The files of Winograd's schemas, four forms of the same 273: a text up to its pronoun, by either noun, and the rest.

    wsc273.json          Trinh & Le: two rows a schema, its text with either noun in the pronoun's place
    winograd_wsc.jsonl   llm-foundry: context_options, continuation, gold
    WSCollection.xml     the authors: text before the pronoun, pronoun, text behind it, two nouns; the first 273
    the hub              text, pronoun and its place, two nouns

The paper's example is worded as the first two are ("the sweater", where the authors have "her sweater"), so they go
first. Of the others, each noun is put into the pronoun's place here.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from itertools import groupby, takewhile

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row, rows
from rein.evals.task import Split
from rein.evals.tasks.reading import each, files, gold_of, number_in, one_space, options_of, text_in

HUB = ("ErnestSDavis/winograd_wsc", "wsc273")
NAMES: dict[Split, tuple[str, ...]] = {"test": ("wsc273.json", "winograd_wsc.jsonl", "WSCollection.xml")}
IN_273 = 273  # the collection grew later
OWNERS = ("his", "her", "my", "our", "their", "its")  # an owner stands for these: "the sweater's"
PERSONS = ("he", "him", "she", "they", "them")
SMALL = ("A", "An", "The", "His", "Her", "My", "Their")  # have a small letter within a sentence


def read(data: Data, split: Split) -> Iterable[Row]:
    """A row for each schema."""
    path = None if data.from_hub else data.find(*NAMES["test"])
    if split != "test" or path is None or path.suffix == ".jsonl":
        return files(data, split, NAMES, hub=HUB)
    if path.suffix == ".json":
        pairs = groupby(rows(path), lambda row: row.get("question_id"))
        return [Row({"substitutions": [row.values for row in pair]}, f"{path}:{number}") for number, pair in pairs]
    try:
        schemas = ElementTree.parse(path).getroot().findall("schema")
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} is not XML: {error}.", "Check that it is whole.") from None
    return [_of_xml(schema, f"{path}:{number}") for number, schema in enumerate(schemas[:IN_273], 1)]


def _of_xml(schema: ElementTree.Element, where: str) -> Row:
    cut = [" ".join((schema.findtext(f"text/{part}") or "").split()) for part in ("txt1", "pron", "txt2")]
    options = [" ".join((answer.text or "").split()) for answer in schema.findall("answers/answer")]
    right = (schema.findtext("correctAnswer") or "").strip(" .\n")
    return Row({"cut": cut, "options": options, "label": {"A": 0, "B": 1}.get(right)}, where)


def parted(row: Row) -> tuple[list[str], str, int]:
    """The text up to the pronoun with either noun in its place, the rest, and which noun is right."""
    if row.get("substitutions") is not None:
        return _substituted(row)
    if row.get("context_options") is not None:
        contexts, rest = options_of(row, row["context_options"]), text_in(row, "continuation")
        return contexts, _behind(rest), gold_of(row, row["gold"], range(len(contexts)))
    before, pronoun, rest = row.get("cut") or _cut(row)
    nouns = [_in_place(noun, pronoun) for noun in options_of(row, row["options"])]
    gold = gold_of(row, row["label"], range(len(nouns)))
    return [f"{before} {noun}".strip() for noun in nouns], _behind(rest), gold


def _substituted(row: Row) -> tuple[list[str], str, int]:
    pair = each(row, "substitutions")
    if len(pair) != 2:
        raise BadRow(f"{row.where}: it has {len(pair)} texts, but a schema has two")
    texts = [text_in(one, "substitution").split(" ") for one in pair]
    rest = len(list(takewhile(lambda ends: ends[0] == ends[1], zip(*(text[::-1] for text in texts), strict=False))))
    contexts = [" ".join(text[: len(text) - rest]) for text in texts]
    gold = gold_of(row, "True", [str(one["correctness"]) for one in pair])
    return options_of(row, contexts), " " + " ".join(texts[0][len(texts[0]) - rest :]), gold


def _cut(row: Row) -> tuple[str, str, str]:
    text, pronoun, at = str(row["text"]), text_in(row, "pronoun"), number_in(row, "pronoun_loc")
    return one_space(text[:at]), pronoun, one_space(text[at + len(pronoun) :])


def _behind(rest: str) -> str:
    return rest if rest[:1] in ".,;" else f" {rest}"


def _in_place(noun: str, pronoun: str) -> str:
    """A noun in the pronoun's place: with a capital where that has one, as an owner where that is one.

    Example  >>> _in_place("The man", "his"), _in_place("the worm", "It"), _in_place("Ann's", "she")
             ("the man's", 'The worm', 'Ann')
    """
    first, _, others = noun.rstrip(".").partition(" ")
    if pronoun[:1].isupper():
        first = first[:1].upper() + first[1:]
    elif first in SMALL:
        first = first.lower()
    named = f"{first} {others}".strip()
    if pronoun.lower() in PERSONS:
        return named.removesuffix("'s")
    return named + "'s" if pronoun.lower() in OWNERS and not named.endswith("'s") else named
