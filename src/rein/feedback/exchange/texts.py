"""Prompts and answers as one text or as messages, whichever a format wants: of items that came in either form.

Flow     an item → the prompt and the completions, as texts that are joined as they are, or as chat messages

An item's context has named fields and its candidates are texts, because that is what a person reads. What came as
messages keeps them beside it (`extra["messages"]`); what was cut out of one text keeps what stood at the cut
(`extra["lead"]`), so that prompt + completion is that text again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rein.feedback.exchange.rows import Item, Unreadable, candidate, named

Json = Any
GAP = "\n\n"  # between a prompt and what answers it, where nothing else is known
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SPEAKERS = {"user": "Human", "human": "Human", "prompter": "Human", "assistant": "Assistant", "gpt": "Assistant"}


def rendered(messages: Sequence[Mapping[str, Json]]) -> str:
    """Messages as a person reads them.

    Example  >>> rendered([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}])
             'Human: Hi\\n\\nAssistant: Hello.'
    """
    return GAP.join(
        f"{_SPEAKERS.get(one['role'], str(one['role']).capitalize())}: {one['content']}" for one in messages
    )


def checked_messages(value: Json, what: str) -> list[dict[str, Json]]:
    """Messages of a file.

    Raises   Unreadable for anything but a list of objects with a role and a content that are texts.
    """
    if not isinstance(value, list) or not value:
        raise Unreadable(f"{what} is {'an empty list' if value == [] else named(value)}, but messages are expected")
    for number, one in enumerate(value, 1):
        if not (isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)):
            raise Unreadable(f"message {number} of {what} has no role and content that are texts")
    return value


def context_of_messages(messages: Sequence[Mapping[str, Json]]) -> dict[str, str]:
    """What a person is shown of a conversation that is to be continued; a single question is a prompt."""
    if [one["role"] for one in messages] == ["user"]:
        return {"prompt": messages[0]["content"]}
    return {"conversation": rendered(messages)}


def candidate_of_messages(messages: Sequence[Mapping[str, Json]], policy: str = "") -> dict[str, Json]:
    """A candidate: the text of a single answer, or a longer exchange with its speakers."""
    if messages == [{"role": "assistant", "content": messages[0]["content"]}]:
        return candidate(messages[0]["content"], policy)
    return candidate(rendered(messages), policy, messages=list(messages))


def prompt_text(item: Item) -> str:
    """The prompt as one text: what a completion is put behind as it is.

    Several fields stand one below the other, each with its name.
    """
    if "lead" in item.extra and len(item.context) == 1:
        return str(next(iter(item.context.values())))
    texts = [(name, str(value)) for name, value in item.context.items() if value not in ("", None)]
    if len(texts) == 1:
        return texts[0][1] + GAP
    return "".join(f"{name}: {text}{GAP}" for name, text in texts)


def completion_text(item: Item, number: int) -> str:
    """A candidate as it stands behind the prompt."""
    one = item.candidates[number]
    return str(one.get("extra", {}).get("lead", item.extra.get("lead", ""))) + str(one["text"])


def prompt_messages(item: Item) -> list[Json]:
    """The prompt as chat messages."""
    if "messages" in item.extra:
        return list(item.extra["messages"])
    return [{"role": "user", "content": prompt_text(item).removesuffix(GAP)}]


def completion_messages(item: Item, number: int) -> list[Json]:
    """A candidate as chat messages."""
    return answer_messages(str(item.candidates[number]["text"]), item.candidates[number].get("extra", {}))


def answer_messages(text: str, extra: Mapping[str, Json] | None = None) -> list[Json]:
    """A text that a person wrote, or a candidate's, as chat messages."""
    if extra and "messages" in extra:
        return list(extra["messages"])
    return [{"role": "assistant", "content": text}]


def cut(first: str, second: str) -> tuple[str, str, str]:
    """A prompt and two completions, of two texts that begin alike.

    A dialogue is cut behind the last "Assistant:" that both share; any other text where they first differ, at a word.

    Example  >>> cut("The sky is blue.", "The sky is green.")
             ('The sky is', ' blue.', ' green.')
             >>> cut("\\n\\nHuman: Hi\\n\\nAssistant: Hello.", "\\n\\nHuman: Hi\\n\\nAssistant: Go away.")
             ('\\n\\nHuman: Hi\\n\\nAssistant:', ' Hello.', ' Go away.')
    """
    end = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    if first.startswith(HUMAN):
        marker = first.rfind(ASSISTANT, 0, end)
        end = marker + len(ASSISTANT) if marker >= 0 else 0
    else:
        while end > 0 and not (
            end < len(first) and first[end].isspace() and end < len(second) and second[end].isspace()
        ):
            end -= 1
    return first[:end], first[end:], second[end:]
