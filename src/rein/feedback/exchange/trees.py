"""Open-Assistant's conversation trees: every ranked set of replies is an item, and the tree is written again whole.

Flow     {"message_tree_id", "tree_state", "prompt": {…, "replies": […]}} ↔ a document, with an item for each message
         whose replies have ranks
Source   LAION-AI/Open-Assistant, docs/docs/data/schemas.md; the export of message trees, one a line.

Ranks count from 0 there, from 1 here. The texts stay in the tree, and the ranks in the answers: what is written is what
stands in the store.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rein.feedback.exchange.rows import Answer, Asked, Document, Parsed, Said, Unreadable, candidate, need
from rein.feedback.exchange.texts import context_of_messages, prompt_messages
from rein.feedback.project import MAX_SHOWN

Json = Any
FORMAT = PERSON = "oasst"  # the ranks of a tree are those of several people, put together
_ROLES = {"prompter": "user", "assistant": "assistant"}
Message = dict[str, Any]


def read_tree(line: int, row: Mapping[str, Json]) -> Parsed:
    """A tree. Raises Unreadable."""
    key = need(row, "message_tree_id", str, "a text")
    body = copy.deepcopy(dict(row))
    items = [
        (_item(key, path, replies), [Said(PERSON, "ranking", {"ranks": ranks})])
        for path, replies, ranks in _ranked(need(body, "prompt", dict, "the first message"))
    ]
    return Parsed(line, items, Document(key, body, FORMAT))


def _ranked(first: Message) -> Iterator[tuple[list[Message], list[Message], list[int]]]:
    """The messages down to one with ranked replies, those, and their ranks from 1, which are taken out of the tree."""
    waiting = [[_message(first)]]
    while waiting:
        path = waiting.pop()
        replies = [_message(one) for one in path[-1].get("replies") or []]
        waiting += [[*path, reply] for reply in reversed(replies)]
        ranked = [one for one in replies if type(one.get("rank")) is int]
        ranks = [one["rank"] for one in ranked]
        dense = sorted(set(ranks))
        # Ranks with gaps would not come back as they are: they stay in the tree.
        if 2 <= len(ranked) <= MAX_SHOWN and dense == list(range(len(dense))):
            for one in ranked:
                one["rank"] = None
            yield path, ranked, [rank + 1 for rank in ranks]


def _message(value: Json) -> Message:
    if not isinstance(value, dict):
        raise Unreadable("a message is no object")
    for name in ("message_id", "text", "role"):
        need(value, name, str, "a text")
    if value["role"] not in _ROLES:
        raise Unreadable("the role of a message is neither prompter nor assistant")
    if not isinstance(value.get("replies") or [], list):
        raise Unreadable("replies is no list")
    return value


def _item(tree: str, path: Sequence[Message], ranked: Sequence[Message]) -> Asked:
    messages = [{"role": _ROLES[one["role"]], "content": one["text"]} for one in path]
    replies = [candidate(one["text"], str(one.get("model_name") or ""), message_id=one["message_id"]) for one in ranked]
    return Asked(
        context_of_messages(messages), replies, key=str(path[-1]["message_id"]), extra={"messages": messages},
        document=tree, same=tree,
    )  # fmt: skip


def keys(body: Mapping[str, Json]) -> list[str]:
    """The items that a tree has: the messages with replies whose ranks were taken out."""
    found, waiting = list[str](), [body["prompt"]]
    while waiting:
        message = waiting.pop()
        replies = message.get("replies") or []
        if sum("rank" in one and one["rank"] is None for one in replies) >= 2:
            found.append(message["message_id"])
        waiting += replies
    return found


def write_tree(body: Mapping[str, Json], answers: Sequence[Answer]) -> dict[str, Json]:
    """The tree with the ranks that stand in the store: of several people's, the first one's."""
    tree = copy.deepcopy(dict(body))
    ranks: dict[str, int] = {}
    for answer in answers:
        for one, rank in zip(answer.item.candidates, answer.value["ranks"], strict=True):
            ranks.setdefault(one["extra"]["message_id"], rank - 1)
    waiting = [tree["prompt"]]
    while waiting:
        message = waiting.pop()
        for one in message.get("replies") or []:
            if "rank" in one and one["rank"] is None and one["message_id"] in ranks:
                one["rank"] = ranks[one["message_id"]]
            waiting.append(one)
    return tree


def new_tree(answer: Answer) -> dict[str, Json]:
    """A tree of an item that did not come from one."""
    item = answer.item
    replies = [
        {
            "message_id": f"{item.key}-{number}", "parent_id": item.key, "text": one["text"], "role": "assistant",
            "rank": rank - 1, "replies": [],
        }
        for number, (one, rank) in enumerate(zip(item.candidates, answer.value["ranks"], strict=True))
    ]  # fmt: skip
    names = {role: name for name, role in _ROLES.items()}
    messages = [one for one in prompt_messages(item) if one["role"] in names]
    for back, one in enumerate(reversed(messages)):
        id = item.key if back == 0 else f"{item.key}-up{back}"
        message: Message = {"message_id": id, "text": one["content"], "role": names[one["role"]], "replies": replies}
        if back < len(messages) - 1:
            message["parent_id"] = f"{item.key}-up{back + 1}"
        replies = [message]
    return {"message_tree_id": replies[0]["message_id"], "tree_state": "ready_for_export", "prompt": replies[0]}
