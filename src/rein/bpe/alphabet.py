"""GPT-2's alphabet: each of the 256 bytes as one visible character, and the order of ids 0 to 255.

Vocabulary files hold text, but a token may be any bytes. GPT-2 therefore writes every byte as one printable
character: the 188 bytes that are printable in Latin-1 stand for themselves, the other 68, in increasing order,
become U+0100, U+0101, … A space is written `Ġ`, a newline `Ċ`.

Source   Radford 2019, §2.2; openai/gpt-2, src/encoder.py.
"""

from __future__ import annotations

from rein.errors import UserError

# Cuts text into pieces; merges stay inside a piece. Only lower-case contractions are split off: the authors'
# own comment regrets that, and every released model depends on it.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Marks the end of a document. Its id is the last one, and no text ever encodes to it.
EOT = "<|endoftext|>"

_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))

# BYTE_ORDER[id] is the byte that id 0 … 255 stands for: printable bytes first.
BYTE_ORDER = (*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE))

_CHARACTERS = (*map(chr, _PRINTABLE), *map(chr, range(256, 256 + 68)))
_CHARACTER_OF = dict(zip(BYTE_ORDER, _CHARACTERS, strict=True))
_BYTE_OF = {character: byte for byte, character in _CHARACTER_OF.items()}


def to_visible(token: bytes) -> str:
    """A token as vocabulary files write it.

    Example  >>> to_visible(" café\\n".encode())
             'ĠcafÃ©Ċ'
    """
    return "".join([_CHARACTER_OF[byte] for byte in token])


def from_visible(token: str, source: str) -> bytes:
    """The bytes that a token of a vocabulary file stands for.

    Example  >>> from_visible("Ġcaf", "vocab.bpe")
             b' caf'
    Raises   UserError when the token has a character outside the alphabet; `source` names the file.
    """
    try:
        return bytes([_BYTE_OF[character] for character in token])
    except KeyError as error:
        raise UserError(
            f"{source} has the token {token!r}, whose {error.args[0]!r} is not in GPT-2's byte alphabet.",
            "Only byte-level vocabularies can be read; check that the file is one.",
        ) from None
