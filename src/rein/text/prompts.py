"""What a model reads before it answers, and what it is to write: rows of JSON lines ↔ tokens, by named formats.

Flow     a row {"prompt" or fields, "reference", "split", "id"} → the format's template → query tokens
         a response as text → its tokens and the end of text;  tokens that a model wrote → text

The same file serves the supervised start, PPO, evaluation, and `rein label draw --prompts`. Nothing here pads for the
sake of a batch: the spaces of `tldr` are tokens that the model sees.

Source   openai/summarize-from-feedback, summarize_from_feedback/tasks.py (process_query, ResponseEncoder) and its
         experiments' formats; Stiennon 2020, App. B; Ouyang 2022, App. B; Bai 2022 (turns).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError, suggestion
from rein.feedback.exchange.rows import Unreadable
from rein.feedback.exchange.texts import ASSISTANT, GAP, checked_messages, rendered
from rein.run import read_rows
from rein.text.cutting import cut

Json = Any
Ids = tuple[int, ...]
ABOUT = ("reference", "split", "id")  # of a row: no part of the prompt
ANSWERS = ("reference", "response", "completion", "output", "summary")  # where a row may have its answer, in this order
_MESSAGES = ("messages", "conversations")


class Unfit(Exception):
    """A row that a format can make no tokens of. The text says why, and is one of a few: they are counted."""


@dataclass(frozen=True)
class PromptFormat:
    """How a row becomes a query, and a text a response.

    templates   the first one whose fields a row has; {prompt} alone: a row without "prompt" gives all its texts
    lead        between the query and what a response says; part of the response
    cut         the field that is shortened while a query is too long: at its last new line, or by one character
                where it has none. Without it, a query that is too long is unfit.
    filled      a shorter query is filled up on the left with the token(s) of " ", which the model sees
    from_end    a query begins with the end-of-text token, as every document of a corpus follows one
    """

    name: str
    templates: tuple[str, ...]
    source: str
    lead: str = ""
    query_tokens: int | None = None  # None: as much as the context leaves
    response_tokens: int | None = None  # with the end of text
    cut: str = ""
    cut_responses: bool = False  # longer ones lose their end, as released; otherwise they are unfit
    filled: bool = False
    from_end: bool = True
    turns: bool = False


FORMATS = {
    one.name: one
    for one in (
        PromptFormat("plain", ("{prompt}",), "none: a prompt, and what follows it"),
        PromptFormat(
            "tldr", ("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:",),
            "Stiennon 2020, App. B.2; openai/summarize-from-feedback", lead=" ", query_tokens=512, response_tokens=48,
            cut="post", cut_responses=True, filled=True, from_end=False,
        ),
        PromptFormat(
            "n_plus", ("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:",),
            "Huang 2024: tldr without the spaces, and in Pythia's tokens", lead=" ", query_tokens=512,
            response_tokens=53, cut="post", cut_responses=True, from_end=False,
        ),
        PromptFormat(
            "cnndm", ("Article:\n{article}\n\nTL;DR:\n",), "Stiennon 2020, App. B.2; openai/summarize-from-feedback",
            query_tokens=2047 - 128, response_tokens=128, cut="article", cut_responses=True, filled=True,
            from_end=False,
        ),
        PromptFormat(
            "instruct", ("{prompt}", "{instruction}\n\n{input}\n\n", "{instruction}\n\n"),
            "Ouyang 2022, App. B and C.1: longer prompts are left out", query_tokens=1024, response_tokens=1024,
        ),
        PromptFormat(
            "chat", ("{prompt}",), "Bai 2022; anthropics/hh-rlhf: turns of Human and Assistant", lead=" ", turns=True
        ),
        PromptFormat(
            "docstring", ("{name}\n\n{post}\n\nTL;DR:",), "PEP 257: a docstring's summary line, foretold from the rest",
            lead=" ", query_tokens=96, response_tokens=32, cut="post", cut_responses=True,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """One row of a file of prompts, as a format reads it."""

    fields: Mapping[str, Json]  # all of the row but its answer, its split and its id
    text: str  # the whole query, before anything is cut
    reference: str | None
    id: str
    split: str
    where: str  # file and line


def format_of(name: str, *, query_tokens: int | None = None, response_tokens: int | None = None) -> PromptFormat:
    """A format by its name, with other lengths where they are given.

    Raises   UserError for a name that is none, and for a length that leaves nothing.
    """
    if name not in FORMATS:
        raise UserError(f"--format is {name!r}.", suggestion(name, FORMATS))
    for flag, value in (("--query-tokens", query_tokens), ("--response-tokens", response_tokens)):
        if value is not None and value < 2:
            raise UserError(f"{flag} is {value}, but it must be at least 2.", f"Raise {flag}.")
    known = FORMATS[name]
    return replace(
        known, query_tokens=query_tokens or known.query_tokens, response_tokens=response_tokens or known.response_tokens
    )


def within(format: PromptFormat, n_ctx: int, *, taught: str = "") -> PromptFormat:
    """The format for a model's context: where a length is open, or rows that are too long are left out, what fits.

    taught   the format that the model was taught, where that is known: it is named when this one does not fit

    Example  >>> within(FORMATS["instruct"], 256).query_tokens
             255
    Raises   UserError where queries that are cut or filled to a length would not fit, with the lengths that do.
    """
    query, response = format.query_tokens, format.response_tokens
    if format.cut and query is not None and response is not None and query + response > n_ctx:
        response = min(response, n_ctx // 4)
        said, advice = of_taught(format, taught)
        raise UserError(
            f"The format {format.name} has {query} tokens for the query and {format.response_tokens} for the response, "
            f"but the model's context is {n_ctx}.{said}",
            f"Give {advice}--query-tokens {n_ctx - response} --response-tokens {response}.",
        )
    most = n_ctx - 1  # one token of the other
    return replace(format, query_tokens=min(query or most, most), response_tokens=min(response or most, most))


def of_taught(format: PromptFormat, taught: str) -> tuple[str, str]:
    """What a message about lengths adds about the format that a model was taught, and advises before other lengths.

    Example  >>> [of_taught(FORMATS["tldr"], taught)[1] for taught in ("docstring", "", "tldr")]
             ['--format docstring, or ', 'another --format, or ', '']
    """
    if taught in ("", format.name):
        return "", "" if taught else "another --format, or "
    said = f" The model was taught the format {taught} (without --format, a preset's is taken)."
    return said, f"--format {taught}, or "


# ---------------------------------------------------------------------------------------------------------- queries


def query_text(format: PromptFormat, row: Mapping[str, Json]) -> str:
    """The query as text, whole.

    Example  >>> query_text(FORMATS["instruct"], {"instruction": "Add.", "input": "1, 2", "output": "3"})
             'Add.\\n\\n1, 2\\n\\n'
    Raises   Unfit when the row has not the fields of any template.
    """
    if format.turns:
        return "".join(map(_turn, _asked(_turns(row)))) + ASSISTANT
    template, values = _template(format, row)
    return template.format_map(values)


def encode_query(format: PromptFormat, row: Mapping[str, Json], tokenizer: Tokenizer) -> Ids:
    """The query's tokens, cut or filled as the format says.

    Raises   Unfit when the row lacks a field, or is too long and cannot be cut.
    """
    start: Ids = (tokenizer.eot_id,) if format.from_end else ()
    if format.turns:
        return _fit(format, [*start, *_encode_turns(_asked(_turns(row)), tokenizer)[0], *_encode(ASSISTANT, tokenizer)])
    template, values = _template(format, row)
    ids = tokenizer.encode(template.format_map(values)).tolist()
    most = None if format.query_tokens is None else format.query_tokens - len(start)
    if most is not None and format.cut and len(ids) > most:
        shorter = cut(template, values, format.cut, most, tokenizer)
        if shorter is None:
            raise Unfit("the query is too long without what may be cut")
        ids = shorter
    ids = [*start, *ids]
    if format.filled and format.query_tokens is not None:
        space = tokenizer.encode(" ").tolist()
        missing = format.query_tokens - len(ids)
        ids = [*(space * missing)[len(space) * missing - missing :], *ids] if missing > 0 else ids
    if not ids:
        raise Unfit("the query is empty")
    return _fit(format, ids)


def _fit(format: PromptFormat, ids: Sequence[int]) -> Ids:
    if format.query_tokens is not None and len(ids) > format.query_tokens:
        raise Unfit("the query is too long")
    return tuple(ids)


def fitting(
    queries: Iterable[Query], format: PromptFormat, tokenizer: Tokenizer, *, response_tokens: int, n_ctx: int
) -> Iterator[tuple[Query, Ids, str]]:
    """Each query with its tokens and ""; with none and the reason, where a whole response has no room behind it."""
    for query in queries:
        try:
            ids = encode_query(format, query.fields, tokenizer)
            if len(ids) > n_ctx - response_tokens:
                raise Unfit(f"no room for {response_tokens} tokens behind the query in a context of {n_ctx}")
        except Unfit as problem:
            yield query, (), str(problem)
        else:
            yield query, ids, ""


def _template(format: PromptFormat, row: Mapping[str, Json]) -> tuple[str, dict[str, str]]:
    """The template that a row has the fields of, and their texts."""
    texts = {name: value for name, value in row.items() if isinstance(value, str)}
    for template in format.templates:
        named = [name for _, name, _, _ in string.Formatter().parse(template) if name]
        # An empty input is none; an empty post is a post.
        if all(name in texts and (texts[name] or len(format.templates) == 1) for name in named):
            return template, {name: texts[name] for name in named}
    if format.templates == ("{prompt}",):
        rest = [value for name, value in texts.items() if name not in (*ABOUT, *ANSWERS) and value]
        if rest:
            return "{prompt}", {"prompt": GAP.join(rest)}
    missing = [name for _, name, _, _ in string.Formatter().parse(format.templates[0]) if name and name not in texts]
    raise Unfit(f"no text {' or '.join(missing) or 'to ask'}")


# -------------------------------------------------------------------------------------------------------- responses


def answer_of(row: Mapping[str, Json]) -> str | None:
    """The answer that a row has: its reference, response, completion, output or summary.

    Example  >>> answer_of({"prompt": "1 + 1 =", "completion": " 2"})
             ' 2'
    """
    return next((row[name] for name in ANSWERS if isinstance(row.get(name), str)), None)


def encode_response(text: str, tokenizer: Tokenizer, format: PromptFormat) -> Ids:
    """The tokens of a response, with the lead before it and the end of text behind it.

        tokens[: response_tokens − 1] + [end of text]

    Raises   Unfit when it says nothing, or is longer than a format that does not cut has room for.
    """
    if not text.strip():
        raise Unfit("the response is empty")
    ids, most = _encode(led(text, format), tokenizer), format.response_tokens
    if most is not None and len(ids) > most - 1:
        if not format.cut_responses:
            raise Unfit("the response is too long")
        ids = ids[: most - 1]
    return (*ids, tokenizer.eot_id)


def led(text: str, format: PromptFormat) -> str:
    """A response as it stands behind its query.

    Example  >>> led("Short.", FORMATS["tldr"]), led(" Short.", FORMATS["tldr"]), led("Short.", FORMATS["cnndm"])
             (' Short.', ' Short.', 'Short.')
    """
    return text if format.lead and text.startswith(format.lead) else format.lead + text


def decode_response(ids: Sequence[int], tokenizer: Tokenizer, format: PromptFormat) -> str:
    """The text of a response: what stands before its end of text, without the lead."""
    said = list(ids)
    if tokenizer.eot_id in said:
        said = said[: said.index(tokenizer.eot_id)]
    return tokenizer.decode(said).removeprefix(format.lead)


# ------------------------------------------------------------------------------------------------------------ turns


def encode_turns(
    row: Mapping[str, Json], tokenizer: Tokenizer, format: PromptFormat, *, last_only: bool = False
) -> tuple[Ids, Ids, tuple[bool, ...]]:
    """A conversation as a query and all that follows it, and which of the tokens behind it an assistant wrote.

    Each turn of the assistant ends with the end of text. With `last_only`, all before its last turn is the query.

    Raises   Unfit when no assistant speaks after somebody else, or it is too long.
    """
    turns = _turns(row)
    while turns and not _is_answer(turns[-1]):  # what is asked last has no answer yet
        turns.pop()
    first = next((at for at, one in enumerate(turns) if _is_answer(one)), None)
    if first is None or first == 0:
        raise Unfit("no assistant's answer")
    at = len(turns) - 1 if last_only else first
    query = encode_query(format, {"messages": turns[:at]}, tokenizer)
    ids, wrote = _encode_turns(turns[at:], tokenizer)
    opening = len(_encode(ASSISTANT, tokenizer))  # it is the end of the query
    if format.response_tokens is not None and len(ids) - opening > format.response_tokens:
        raise Unfit("the response is too long")
    return query, tuple(ids[opening:]), tuple(wrote[opening:])


def has_turns(row: Mapping[str, Json]) -> bool:
    """Whether a row is a conversation."""
    return any(name in row for name in _MESSAGES)


def _turns(row: Mapping[str, Json]) -> list[dict[str, str]]:
    """The messages of a row, {"role", "content"} or {"from", "value"}; a single prompt is a message of a person."""
    if not has_turns(row):
        _, values = _template(FORMATS["plain"], row)
        answer = answer_of(row)
        said = [] if answer is None else [{"role": "assistant", "content": answer}]
        return [{"role": "user", "content": values["prompt"]}, *said]
    name = next(name for name in _MESSAGES if name in row)
    listed = row[name]
    if name == "conversations" and isinstance(listed, list):
        listed = [
            {"role": one.get("from"), "content": one.get("value")} if isinstance(one, dict) and "from" in one else one
            for one in listed
        ]
    try:
        turns = list(checked_messages(listed, name))
    except Unreadable as problem:
        raise Unfit(str(problem)) from None
    if any(_is_answer(one) and _is_answer(after) for one, after in pairwise(turns)):
        raise Unfit("the assistant has two turns in a row")
    return turns


def _asked(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The conversation up to where the assistant is to speak: without an answer at its end."""
    return list(turns[:-1]) if turns and _is_answer(turns[-1]) else list(turns)


def _turn(message: Mapping[str, str]) -> str:
    return GAP + rendered([message])


def _is_answer(message: Mapping[str, str]) -> bool:
    return _turn(message).startswith(ASSISTANT)


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text).tolist()  # type: ignore[no-any-return]


def _encode_turns(turns: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Tokens, cut where an assistant begins to speak, as they are cut when it is asked; and which ones it wrote."""
    ids: list[int] = []
    wrote: list[bool] = []
    for one in turns:
        opening, said = (ASSISTANT, _turn(one)[len(ASSISTANT) :]) if _is_answer(one) else (_turn(one), "")
        before, after = _encode(opening, tokenizer), [*_encode(said, tokenizer), tokenizer.eot_id] if said else []
        ids += [*before, *after]
        wrote += [False] * len(before) + [True] * len(after)
    return ids, wrote


# ------------------------------------------------------------------------------------------------------------- rows


def numbered_rows(path: Path) -> Iterator[tuple[str, dict[str, Json]]]:
    """(file and line, row) of a file of JSON lines.

    Raises   UserError when there is no such file, it has no rows, or one of them is no object.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", 'Give JSON lines such as {"prompt": "…", "reference": "…"}.')
    line = 0
    for line, row in enumerate(read_rows(path), 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {line}, is no JSON object.", 'Write {"prompt": "…", "reference": "…"}.')
        yield f"{path.name}:{line}", row
    if not line:
        raise UserError(f"{path} has no rows.", 'Write lines such as {"prompt": "…", "reference": "…"}.')


def query_of(format: PromptFormat, row: Mapping[str, Json], where: str) -> Query:
    """A row as a query.

    Raises   Unfit when it has not the fields of the format.
    """
    fields = {name: value for name, value in row.items() if name not in (*ABOUT, *ANSWERS)}
    id = row.get("id")
    text = query_text(format, row)
    return Query(fields, text, answer_of(row), where if id is None else str(id), str(row.get("split", "train")), where)


def read_queries(path: Path, format: PromptFormat) -> Iterator[Query]:
    """The queries of a file of JSON lines, in its order.

    Raises   UserError when there is none, or a row has not the fields of the format, with its line.
    """
    for where, row in numbered_rows(path):
        try:
            yield query_of(format, row, where)
        except Unfit as problem:
            raise UserError(
                f"{where} does not fit the format {format.name}: {problem}.", "Mend it, or choose another --format."
            ) from None
