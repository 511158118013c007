"""Files that hold a vocabulary: Hugging Face's tokenizer.json, and the merge lists that OpenAI released.

Nothing here knows how text is encoded; `byte_level.py` and `gpt1.py` do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rein.bpe.alphabet import EOT
from rein.bpe.files import read_json, read_text
from rein.errors import UserError, writing
from rein.run import write_atomically

TOKENIZER_JSON = "tokenizer.json"
UNKNOWN = "<unk>"
END_OF_WORD = "</w>"
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def byte_level(vocab: dict[str, int], merges: Sequence[str], added: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of a tokenizer.json for GPT-2's byte-level BPE, as `openai-community/gpt2` has it."""
    return _content(vocab, merges, added, None, _BYTE_LEVEL, _BYTE_LEVEL, unknown=None, suffix=None)


def word_level(vocab: dict[str, int], merges: Sequence[str], added: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of a tokenizer.json for GPT-1's BPE on lower-cased words, as `openai-community/openai-gpt` has it."""
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    decoder = {"type": "BPEDecoder", "suffix": END_OF_WORD}
    cutting = {"type": "BertPreTokenizer"}
    return _content(vocab, merges, added, normalizer, cutting, decoder, unknown=UNKNOWN, suffix=END_OF_WORD)


def _content(
    vocab: dict[str, int],
    merges: Sequence[str],
    added: Sequence[dict[str, Any]],
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any],
    decoder: dict[str, Any],
    *,
    unknown: str | None,
    suffix: str | None,
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": suffix,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": list(merges),
        },
    }


def added_token(content: str, id: int) -> dict[str, Any]:
    """A special token as tokenizer.json describes it."""
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def save(content: dict[str, Any], path: Path) -> None:
    """Writes a tokenizer.json to `path`, or into it where it is a folder; old file or new one, never half of one."""
    if path.is_dir():
        path = path / TOKENIZER_JSON
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def is_bpe(content: dict[str, Any]) -> bool:
    """Whether the content of a tokenizer.json has a BPE model in it, with the parts that are read here."""
    model, added = content.get("model"), content.get("added_tokens") or []
    return (
        isinstance(model, dict)
        and model.get("type", "BPE") == "BPE"
        and isinstance(model.get("vocab"), dict)
        and all(type(id) is int for id in model["vocab"].values())
        and isinstance(model.get("merges"), list)
        and isinstance(added, list)
        and all(isinstance(token, dict) and type(token.get("id")) is int for token in added)
    )


def read_ids(path: Path) -> dict[str, int]:
    """The tokens and ids of an `encoder.json` file.

    Raises   UserError when the file cannot be read, is cut short, or maps a token to anything but an id.
    """
    ids = read_json(path, "OpenAI's encoder.json")
    for token, id in ids.items():
        if type(id) is not int:
            raise UserError(
                f"{path} is not OpenAI's encoder.json: it maps {token!r} to {str(id)[:40]!r}, not to an id.",
                "Name the file that maps each token to its id.",
            )
    return ids


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of a `vocab.bpe` file: a version line, then one merge per line.

    Raises   UserError when the file cannot be read, or a line is no pair.
    """
    lines = read_text(path).split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    pairs = []
    for number, line in enumerate(lines[first:], start=first + 1):
        words = line.split()
        if len(words) == 2:
            pairs.append((words[0], words[1]))
        elif line or number < len(lines):
            raise UserError(
                f"{path} is not a list of merges: line {number:,} is {line[:40]!r}, not two tokens.",
                "The file may have been cut short; copy or download it again.",
            )
    return pairs


def merge_pairs(merges: Sequence[Any], source: str) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json: "a b" in older files, ["a", "b"] in newer ones.

    Raises   UserError when an entry is neither.
    """
    pairs = []
    for index, merge in enumerate(merges):
        words = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(words, list) and len(words) == 2 and all(isinstance(word, str) for word in words)):
            raise UserError(
                f"{source} has no pair as merge {index:,}, but {str(merge)[:40]!r}.",
                "Check where the file comes from; `rein bpe train` writes a right one.",
            )
        pairs.append((words[0], words[1]))
    return pairs


def ids_with_eot(content: dict[str, Any], source: str) -> dict[str, int]:
    """Every token's id in a tokenizer.json, added tokens included: none but <unk> and the end of text may be added.

    Raises   UserError that names another added token: no text or training would ever give its id.
    """
    ids = dict(content["model"]["vocab"])
    for token in content.get("added_tokens") or []:
        name = token.get("content")
        if name not in (EOT, UNKNOWN):
            raise UserError(
                f"{source} adds the token {name!r}, but Rein knows one special token, {EOT}, as the last id.",
                "Remove it from added_tokens, or train a vocabulary with `rein bpe train`.",
            )
        ids[name] = token["id"]
    return ids


def check_ids(ids: Mapping[str, int], expected: Iterable[str], source: str) -> None:
    """Checks that `ids` numbers exactly the `expected` tokens, in their order.

    Raises   UserError that names the first difference.
    """
    count = 0
    for id, token in enumerate(expected):
        if ids.get(token) != id:
            found = f"has id {ids[token]}" if token in ids else "is missing"
            raise UserError(
                f"{source}: the token {token!r} {found}, but its place in the merges makes it id {id:,}.",
                "The files may not belong together, or one was cut short; copy or download them again.",
            )
        count += 1
    if len(ids) != count:
        raise UserError(
            f"{source} has {len(ids):,} tokens, but its merges make {count:,}.",
            "The files may not belong together, or one was cut short; copy or download them again.",
        )
