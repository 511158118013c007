"""GPT-1's text, before its BPE sees it: repaired, standardised, cut into words by spaCy, lower-cased.

    text → ftfy → standardise → spaCy's English tokenizer → lower-cased words, and "\\n" for each run of newlines

spaCy cuts at spaces first, and almost always cuts the stretch between two spaces alike wherever it stands, so
`Words` remembers each stretch. The exception is an emoticon or abbreviation in the middle of a stretch, which
spaCy finds with a matcher that also sees the neighbours; a stretch that the matcher changes has its whole line
given to spaCy. The words are therefore exactly spaCy's.

Source   Radford 2018, §4.1; openai/finetune-transformer-lm, text_utils.py.
Differs  spaCy 3 has somewhat other rules than the spaCy 2 of 2018. The pattern that puts spaces around
         punctuation looks as if it had a backslash in it, but in the released code that branch means a plus
         sign; so it does here, and backslashes get no spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from rein.bpe.checks import check_text
from rein.errors import UserError

NEWLINE = "\n"

_REPLACED = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'"})
_RUN = re.compile(r"""([-~!";?+,)(/*\[\]}{|_])\1*""")
_NEWLINES = re.compile(r"\s*\n\s*")
_SPACES = re.compile(r"[^\S\n]+")

# ftfy leaves such text as it is: printable ASCII without "&", so there is no HTML entity, no mojibake, no
# control character. Most English text is, and ftfy is by far the slowest step.
_NOTHING_TO_FIX = re.compile(r"[\t\n -%'-~]*")

# Stretches remembered before `Words` starts anew, spaCy's own growing tables included: some 700 MB.
_CACHE_STRETCHES = 1_000_000


def standardise(text: str) -> str:
    """GPT-1's own repairs: few kinds of dash and quote, spaces around punctuation, single spaces and newlines.

    Example  >>> standardise("Wait\u2014what?!  a\\\\b c/d.\\n\\n- No\u2026")
             'Wait - what ? ! a\\\\b c / d. \\n - No...'
    """
    text = _RUN.sub(r" \g<0> ", text.translate(_REPLACED))
    return _SPACES.sub(" ", _NEWLINES.sub(" \n ", text)).strip()


class Words:
    """Cuts texts into GPT-1's words.

    Example  >>> list(Words().of("It's \u201cOK\u201d\u2026\\n\\nC++"))
             ['it', "'s", '"', 'ok', '"', '...', '\\n', 'c', '+', '+']
    Raises   UserError when ftfy or spaCy is not installed.
    """

    def __init__(self) -> None:
        try:
            import ftfy
            import spacy
        except ModuleNotFoundError as error:
            raise UserError(
                f"GPT-1's tokenizer repairs text with ftfy and cuts it with spaCy, but {error.name} is not installed.",
                "Run pip install 'rein[gpt1]'.",
            ) from None
        self._fix_text: Callable[..., str] = ftfy.fix_text
        self._blank: Callable[[str], Any] = spacy.blank
        self._start_anew()

    def _start_anew(self) -> None:
        pipeline = self._blank("en")
        self._spacy: Any = pipeline.tokenizer
        self._without_matcher: Any = _without_matcher(pipeline)
        self._words_of: dict[str, tuple[str, ...] | None] = {}  # None: depends on its neighbours

    def of(self, text: str) -> Iterator[str]:
        """The words of one text.

        Raises   UserError when `text` has a lone surrogate.
        """
        check_text(text)
        text = standardise(self._repaired(text))
        if text:
            for index, line in enumerate(text.split(" \n ")):
                if index:
                    yield NEWLINE
                yield from self._words_of_line(line)

    def _repaired(self, text: str) -> str:
        """`ftfy.fix_text`, which works line by line, on those lines only that may need it.

        After the first line with a "<", as in that line, ftfy takes the text for HTML source and keeps its entities.
        """
        if _NOTHING_TO_FIX.fullmatch(text):
            return text
        unescape: str | bool = "auto"
        lines = [line + "\n" for line in text.split("\n")]
        lines[-1] = lines[-1][:-1]
        for index, line in enumerate(lines):
            if not _NOTHING_TO_FIX.fullmatch(line):
                lines[index] = self._fix_text(line, unescape_html=unescape)
            if "<" in line:
                unescape = False
        return "".join(lines)

    def _words_of_line(self, line: str) -> list[str]:
        words: list[str] = []
        for stretch in line.split(" "):
            known = self._words_of[stretch] if stretch in self._words_of else self._cut(stretch)
            if known is None:
                return [token.text.lower() for token in self._spacy(line)]
            words += known
        return words

    def _cut(self, stretch: str) -> tuple[str, ...] | None:
        if len(self._words_of) >= _CACHE_STRETCHES:
            self._start_anew()
        tokens = [token.text for token in self._spacy(stretch)]
        alone = tokens == [token.text for token in self._without_matcher(stretch)]
        words = tuple(token.lower() for token in tokens) if alone else None
        self._words_of[stretch] = words
        return words


class _Later:
    """A function that finds nothing until it is switched on."""

    def __init__(self, function: Callable[[str], Any], nothing: Callable[[], Any]) -> None:
        self._function, self._nothing = function, nothing
        self.on = False

    def __call__(self, text: str) -> Any:
        return self._function(text) if self.on else self._nothing()


def _without_matcher(pipeline: Any) -> Any:
    """The pipeline's tokenizer without the matcher that runs over all words in the end.

    spaCy gives a special case to that matcher when the affix patterns find something in it, at the time it is
    added. Here they find nothing then, and are switched on after.
    """
    from spacy.tokenizer import Tokenizer

    full = pipeline.tokenizer
    prefix = _Later(full.prefix_search, lambda: None)
    suffix = _Later(full.suffix_search, lambda: None)
    infix = _Later(full.infix_finditer, lambda: iter(()))
    bare = Tokenizer(
        pipeline.vocab,
        rules=full.rules,
        prefix_search=prefix,
        suffix_search=suffix,
        infix_finditer=infix,
        token_match=full.token_match,
        url_match=full.url_match,
    )
    for function in (prefix, suffix, infix):
        function.on = True
    return bare
