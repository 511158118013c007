"""A query that is too long, made shorter as OpenAI's released code does it: by lines, then by characters.

Flow     a template, the texts of its fields, the field that may lose its end → tokens, as many as are allowed

Source   openai/summarize-from-feedback, summarize_from_feedback/tasks.py (process_query).
"""

from __future__ import annotations

import string
from bisect import bisect_left
from collections.abc import Mapping

from rein.bpe.tokenizer import Tokenizer


def cut(
    template: str, values: Mapping[str, str], field: str, most_tokens: int, tokenizer: Tokenizer
) -> list[int] | None:
    """The longest query that the released loop comes to; None where it is too long without the field.

    The field loses its last line, again and again, or its last character where it has but one.
    """
    before = template[: template.index("{" + field + "}")].format_map(values)
    value = values[field]
    ids: list[int] = tokenizer.encode(template.format_map(values)).tolist()
    while len(ids) > most_tokens:
        if not value:
            return None
        end = value.rfind("\n")
        if end < 0:
            value = value[: _still_too_long(before, value, most_tokens, tokenizer)]
        value = value[:end]
        ids = tokenizer.encode(template.format_map({**values, field: value})).tolist()
    return ids


def _still_too_long(before: str, value: str, most_tokens: int, tokenizer: Tokenizer) -> int:
    """A length to which a text may be shortened at once, because by one character at a time it would come there.

    A byte-level BPE never joins a letter with a space behind it. So the tokens up to such a space stay the same
    whatever follows " x", and where they alone are too many, so are those of everything longer.
    """
    if tokenizer.kind != "gpt2":
        return len(value)
    letters = string.ascii_letters
    ends = [at for at in range(1, len(value) - 1) if value[at] == " " and value[at - 1] in letters and
            value[at + 1] in letters]  # fmt: skip
    first = bisect_left(ends, True, key=lambda at: len(tokenizer.encode(before + value[:at])) > most_tokens)
    return min(ends[first] + 2, len(value)) if first < len(ends) else len(value)
