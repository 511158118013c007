r"""Invertible de-tokenisers: corpora whose words were parted from their signs, as people write them.

    " The lobster weighs 0 @.@ 7 kg ( 1 @.@ 5 lb ) . \n"   WikiText      →  "The lobster weighs 0.7 kg (1.5 lb).\n"
    " viewers do n't pay $ N \n"                           Penn Treebank →  "viewers don't pay $N\n"
    "It 's " a story , " he said .\n"                      1BW           →  "It's "a story," he said.\n"

A model that has read the web finds the right-hand side likelier, and because `retokenise` brings back every original
character, log P of the text is log P of the corpus: divided by the number of *original* words it is a perplexity that
compares with those of word-level models.

Signs lose the space to one side of them; `_tokens_of` finds it again. Where that would not bring back the very same
tokens, a token keeps its spaces; one that would be taken apart even then has a backslash in front. A line with spaces
in other places than the corpus has them stands as it is behind a backslash and a space.
Source   Radford 2019 §3.1.
Differs  The paper prints no rules; these are ours. `<unk>` and `N` stay: nothing tells what they were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

ESCAPE = "\\"


@dataclass(frozen=True)
class Style:
    """How one corpus was tokenised."""

    name: str
    spaced: bool  # each line begins and ends with a space
    signs_left: str  # lose the space before them; a regular expression, like those below
    signs_right: str  # lose the space behind them
    clitics: str  # lose the space before them; found again at the end of a word, one at a time
    joints: tuple[tuple[str, str], ...] = ()  # (token, how it is written between two others); – between numbers alone
    quotes: bool = True  # " and ' come in pairs


_SHORT = r"(?:[^\W\d_]\.)+|(?:Mr|Mrs|Ms|Dr|St|No|Nos|Jr|Sr|Co|Inc|Corp|Ltd|Gen|Sen|Rep|Gov|Sgt|Lt|Bros|vs|etc|var)\."
_ABBREVIATION = re.compile(rf"(?:{_SHORT})\Z")  # words that end in their own full stop

WIKITEXT = Style(
    "WikiText",
    spaced=True,
    signs_left=r"\.\.\.|[.,;:!?%)\]°′″]",
    signs_right=r"[(\[$£]",
    clitics=r"'\w+",
    joints=(("@-@", "-"), ("@,@", ","), ("@.@", "."), ("–", "–")),
)
PTB = Style("PTB", spaced=True, signs_left=r"'", signs_right=r"\$", clitics=r"n't|'(?:s|re|ve|ll|d|m)", quotes=False)
BILLION = Style(
    "1BW",
    spaced=False,
    signs_left=r"\.\.\.|[.,;:!?%)\]]",
    signs_right=r"[(\[$£]",
    clitics=r"'(?:s|t|re|ve|ll|d|m)",
)


def detokenise(text: str, style: Style) -> str:
    r"""The text as people would write it.

    Example  >>> detokenise(" It 's a <unk> @-@ based one ( 1 @,@ 000 ) . \n", WIKITEXT)
             "It's a <unk>-based one (1,000).\n"
    """
    *lines, last = text.split("\n")
    return "\n".join([*(_written(line, style) for line in lines), _last(last, style)])


def retokenise(text: str, style: Style) -> str:
    r"""The text that `detokenise` was given, to the character.

    Example  >>> retokenise("viewers don't pay $N\n", PTB)
             " viewers do n't pay $ N \n"
    """
    *lines, last = text.split("\n")
    return "\n".join([*(_original(line, style) for line in lines), _original(last, style) if last else ""])


# ----------------------------------------------------------------------------------------------------- lines


def _written(line: str, style: Style) -> str:
    body = line[1:-1] if style.spaced else line
    written = " ".join(_chunks(body.split(" "), style)) if body else ""
    return written if _original(written, style) == line else f"{ESCAPE} {line}"


def _last(line: str, style: Style) -> str:
    """What stands behind the last line end; nothing at all is written as nothing."""
    return (_written(line, style) or f"{ESCAPE} {line}") if line else ""


def _original(written: str, style: Style) -> str:
    if written.startswith(ESCAPE + " "):
        return written[2:]
    tokens = [token for chunk in written.split(" ") for token in _tokens_of(chunk, style)] if written else []
    return " ".join(["", *tokens, ""] if style.spaced else tokens)


# --------------------------------------------------------------------------------- chunks: what spaces part


def _chunks(tokens: list[str], style: Style) -> list[str]:
    """Groups of tokens that are written without spaces, each such that its tokens can be told again."""
    written: list[str] = []
    for group in _groups(tokens, style):
        together = "".join(dict(style.joints).get(token, token) for token in group)
        if _tokens_of(together, style) == group:
            written.append(together)
        else:
            written += [token if _tokens_of(token, style) == [token] else ESCAPE + token for token in group]
    return written


def _groups(tokens: list[str], style: Style) -> list[list[str]]:
    """What would be written together, if nothing had to be told again: signs with their words."""
    left = re.compile(rf"(?:{style.signs_left}|{style.clitics})\Z")
    right = re.compile(rf"(?:{style.signs_right})\Z")
    groups: list[list[str]] = []
    opened: set[str] = set()  # quotation marks that wait for their second
    glued = False  # to what stands before
    for at, token in enumerate(tokens):
        before, after = tokens[at - 1] if at else "", tokens[at + 1] if at + 1 < len(tokens) else ""
        joins = _joins(token, before, after, style)
        opens = closes = False
        if style.quotes and token in ('"', "'"):
            closes = token in opened or (token == "'" and before.endswith("s"))
            opens = not closes
            opened = opened | {token} if opens else opened - {token}
        if groups and (glued or closes or joins or left.match(token) or token == before == "="):
            groups[-1].append(token)
        else:
            groups.append([token])
        glued = opens or joins or right.match(token) is not None
    return groups


def _joins(token: str, before: str, after: str, style: Style) -> bool:
    if token == "–":
        return before[-1:].isdigit() and after[:1].isdigit() and bool(style.joints)
    return token in dict(style.joints)


def _tokens_of(chunk: str, style: Style) -> list[str]:
    if chunk.startswith(ESCAPE):
        return [chunk[1:]]
    if chunk.strip("=") == "":  # the marks of a heading
        return list(chunk) or [""]
    first, last = _patterns(style)
    opening: list[str] = []
    while len(chunk) > 1 and (found := first.match(chunk)):
        opening.append(found[0])
        chunk = chunk[found.end() :]
    closing: list[str] = []
    while not _ABBREVIATION.match(chunk) and (found := last.search(chunk)) and found.start() > 0:
        closing.append(found[0])
        chunk = chunk[: found.start()]
    middle = _JOINT.split(chunk) if style.joints else [chunk]  # words, and what joins them at every odd place
    tokens = {form: token for token, form in style.joints}
    middle[1::2] = [tokens[form] for form in middle[1::2]]
    return [*opening, *middle, *reversed(closing)]


_JOINT = re.compile(r"((?<=[\w>.])-(?=[\w<])|(?<=[\d>])[.,–](?=[\d<]))")


@lru_cache
def _patterns(style: Style) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What may begin a chunk, and what may end it."""
    first, last = style.signs_right, f"{style.signs_left}|{style.clitics}"
    if style.quotes:
        first, last = first + "|[\"']", last + "|[\"']"
    return re.compile(first), re.compile(rf"(?:{last})\Z")
