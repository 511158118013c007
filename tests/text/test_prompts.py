"""Formats: the released processing of queries and responses, to the token; turns; rows that do not fit."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.bpe.byte_level import ByteLevelBPE, from_openai
from rein.errors import UserError
from rein.text.prompts import (
    FORMATS,
    Query,
    Unfit,
    answer_of,
    decode_response,
    encode_query,
    encode_response,
    encode_turns,
    fitting,
    format_of,
    query_of,
    query_text,
    read_queries,
    within,
)

BYTES = ByteLevelBPE(())
POST = {"subreddit": "self", "title": "A title", "post": "One line.\nAnother line.\n\nThe last."}
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]


@pytest.fixture(scope="module")
def gpt2(shared_data):
    folder = shared_data / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip("no tokenizers/gpt2 in ../shared/data")
    return from_openai(folder / "encoder.json", folder / "vocab.bpe")


def short(name, query_tokens, response_tokens=8):
    return format_of(name, query_tokens=query_tokens, response_tokens=response_tokens)


def released(row, tokenizer, *, length, field="post", pattern="SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:"):
    """The released processing, written anew from its description: a line less, or a character less, until it fits."""
    others = [row[name] for name in ("subreddit", "title")] if field == "post" else []
    text = row[field]
    while True:
        ids = [int(id) for id in tokenizer.encode(pattern.format(*others, text))]
        if len(ids) <= length:
            break
        assert text, "nothing is left to cut"
        lines = text.split("\n")
        text = "\n".join(lines[:-1]) if len(lines) > 1 else text[:-1]
    filling: list[int] = []
    while len(filling) < length - len(ids):
        filling.extend(int(id) for id in tokenizer.encode(" "))
    return tuple(filling[len(filling) - (length - len(ids)) :] if length > len(ids) else []) + tuple(ids)


# --------------------------------------------------------------------------------------------- cut and filled

WORDS = st.lists(st.sampled_from(["a", "word", "Ünï", "'s", "12", " ", "\n", "\n\n", ". ", "…", "x" * 9, " be cd"]),
                 max_size=40).map("".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(post=WORDS, length=st.integers(60, 110))
def test_queries_are_those_of_the_released_processing(tokenizer, post, length):
    row = {**POST, "post": post}
    for each in (tokenizer, BYTES):
        assert encode_query(short("tldr", length), row, each) == released(row, each, length=length)


@settings(max_examples=30, deadline=None)
@given(article=WORDS, length=st.integers(24, 60))
def test_articles_are_too(tokenizer, article, length):
    found = encode_query(short("cnndm", length), {"article": article}, tokenizer)
    pattern = "Article:\n{}\n\nTL;DR:\n"
    assert found == released({"article": article}, tokenizer, length=length, field="article", pattern=pattern)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(60, 200))
def test_a_long_line_is_cut_at_once_as_character_by_character(tokenizer, seed, length):
    random = np.random.default_rng(seed)
    words = random.choice(["tea", "I'm", "x,", "42", "café", "--", "don't", "a", " ", "longerword"], size=150)
    row = {**POST, "post": " ".join(words)}
    assert encode_query(short("tldr", length), row, tokenizer) == released(row, tokenizer, length=length)


def test_gpt2_tokens_of_a_post(gpt2):
    ids = encode_query(FORMATS["tldr"], POST, gpt2)
    assert len(ids) == 512
    text = query_text(FORMATS["tldr"], POST)
    own = gpt2.encode(text).tolist()
    assert list(ids) == [220] * (512 - len(own)) + own  # 220 is the token of a space
    assert own[:5] == gpt2.encode("SUBREDDIT:").tolist()[:5]
    long = {**POST, "post": "\n".join(f"This is line number {n} of a long post." for n in range(200))}
    cut = encode_query(FORMATS["tldr"], long, gpt2)
    assert cut == released(long, gpt2, length=512)
    said = gpt2.decode(np.array(cut)).lstrip(" ")
    last = int(re.findall(r"number (\d+)", said)[-1])
    assert said.endswith(f"line number {last} of a long post.\n\nTL;DR:")
    more = {**long, "post": "\n".join(long["post"].split("\n")[: last + 2])}
    assert len(gpt2.encode(query_text(FORMATS["tldr"], more))) > 512  # one line more would not have fitted


def test_released_posts_of_a_paper(gpt2, shared_data):
    path = shared_data / "feedback" / "instructgpt_tldr_samples.csv"
    if not path.exists():
        pytest.skip("no feedback/instructgpt_tldr_samples.csv in ../shared/data")
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        posts = {row["context"].removesuffix("\n\nTL;DR:"): row["ref_text"] for row in csv.DictReader(file)}
    assert len(posts) == 100
    for post, reference in posts.items():
        row = {**POST, "post": post}
        for length in (64, 200, 512):
            assert encode_query(short("tldr", length, 48), row, gpt2) == released(row, gpt2, length=length)
        ids = encode_response(reference, gpt2, FORMATS["tldr"])
        assert ids == (*gpt2.encode(" " + reference.removeprefix(" ")).tolist()[:47], gpt2.eot_id)
        assert len(ids) <= 48


def test_what_cannot_be_cut_enough_is_named():
    with pytest.raises(Unfit, match="too long without what may be cut"):
        encode_query(short("tldr", 20), POST, BYTES)


def test_the_padding_is_seen_and_only_where_it_is_released():
    assert encode_query(short("tldr", 100), POST, BYTES)[:3] == (BYTES.encode(" ")[0],) * 3
    assert len(encode_query(short("n_plus", 100), POST, BYTES)) < 100
    docstring = encode_query(FORMATS["docstring"], {"name": "a.b", "post": "Text."}, BYTES)
    assert docstring == (BYTES.eot_id, *BYTES.encode("a.b\n\nText.\n\nTL;DR:").tolist())


# ------------------------------------------------------------------------------------------------- responses


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=60).filter(str.strip), length=st.integers(2, 20))
def test_a_response_has_a_lead_and_an_end_and_never_too_many_tokens(tokenizer, text, length):
    ids = encode_response(text, tokenizer, short("tldr", 50, length))
    whole = tokenizer.encode(text if text.startswith(" ") else " " + text).tolist()
    assert ids == (*whole[: length - 1], tokenizer.eot_id)
    if len(whole) < length:
        assert decode_response(ids, tokenizer, FORMATS["tldr"]) == text.removeprefix(" ")


def test_the_48_token_rule(gpt2):
    exact = " word" * 47
    assert encode_response(exact, gpt2, FORMATS["tldr"]) == (*gpt2.encode(exact).tolist(), 50256)
    assert encode_response(exact + " more", gpt2, FORMATS["tldr"]) == encode_response(exact, gpt2, FORMATS["tldr"])
    assert len(encode_response("word", gpt2, FORMATS["tldr"])) == 2
    assert encode_response("a", gpt2, FORMATS["cnndm"])[0] == gpt2.encode("a")[0]  # no leading space


def test_what_stands_behind_the_end_of_text_is_no_part_of_a_response():
    ids = [*BYTES.encode(" yes").tolist(), BYTES.eot_id, *BYTES.encode("no").tolist()]
    assert decode_response(ids, BYTES, FORMATS["tldr"]) == "yes"
    assert decode_response(ids[:3], BYTES, FORMATS["tldr"]) == "ye"


def test_responses_that_do_not_fit():
    with pytest.raises(Unfit, match="empty"):
        encode_response(" \n", BYTES, FORMATS["plain"])
    with pytest.raises(Unfit, match="response is too long"):
        encode_response("nine bytes", BYTES, short("instruct", 50, 8))


# ---------------------------------------------------------------------------------------------------- queries


def test_a_row_chooses_its_template():
    instruct = FORMATS["instruct"]
    assert query_text(instruct, {"prompt": "Go."}) == "Go."
    assert query_text(instruct, {"instruction": "Add.", "input": "1, 2"}) == "Add.\n\n1, 2\n\n"
    assert query_text(instruct, {"instruction": "Add.", "input": ""}) == "Add.\n\n"
    plain = FORMATS["plain"]
    assert query_text(plain, {"title": "T", "post": "P", "reference": "R", "id": "1", "split": "x"}) == "T\n\nP"
    assert query_text(FORMATS["tldr"], {**POST, "post": "{title}"}).endswith("POST: {title}\n\nTL;DR:")


def test_queries_that_do_not_fit():
    with pytest.raises(Unfit, match="no text title"):
        query_text(FORMATS["tldr"], {"subreddit": "self", "post": "p"})
    with pytest.raises(Unfit, match="no text prompt"):
        encode_query(FORMATS["plain"], {"reference": "r"}, BYTES)
    with pytest.raises(Unfit, match="no text to ask"):
        query_text(FORMATS["instruct"], {"prompt": ""})
    with pytest.raises(Unfit, match="the query is too long"):
        encode_query(short("instruct", 10), {"prompt": "far too long for ten"}, BYTES)
    with pytest.raises(Unfit, match="empty"):
        encode_query(format_of("tldr"), {**POST}, Silent())


def test_queries_that_leave_a_whole_response_no_room_are_told_with_why():
    plain = FORMATS["plain"]
    asked = [query_of(plain, {"prompt": text}, "a line") for text in ("Say it.", "Hi.")]
    asked.append(Query({}, "", None, "nothing", "train", "a line"))
    assert list(fitting(asked, plain, BYTES, response_tokens=6, n_ctx=10)) == [
        (asked[0], (), "no room for 6 tokens behind the query in a context of 10"),
        (asked[1], encode_query(plain, {"prompt": "Hi."}, BYTES), ""),
        (asked[2], (), "no text prompt"),
    ]


class Silent:
    """A tokenizer of no tokens."""

    kind, eot_id = "gpt1", 0

    def encode(self, text):
        return np.array([], dtype=np.uint32)


def test_lengths_for_a_context():
    assert (within(FORMATS["plain"], 64).query_tokens, within(FORMATS["plain"], 64).response_tokens) == (63, 63)
    assert within(FORMATS["tldr"], 560) == FORMATS["tldr"]
    with pytest.raises(UserError, match=r"512 tokens for the query and 48 .* context is 256"):
        within(FORMATS["tldr"], 256)
    with pytest.raises(UserError, match="Give another --format, or --query-tokens 208 --response-tokens 48"):
        within(FORMATS["tldr"], 256)
    with pytest.raises(UserError, match=r"(?s)was taught the format docstring .*Give --format docstring, or --query-t"):
        within(FORMATS["tldr"], 256, taught="docstring")
    with pytest.raises(UserError, match=r"context is 256\.\n  Give --query-tokens 208"):
        within(FORMATS["tldr"], 256, taught="tldr")
    with pytest.raises(UserError, match="--query-tokens is 1"):
        format_of("tldr", query_tokens=1)
    with pytest.raises(UserError, match="Did you mean tldr"):
        format_of("tlrd")


def test_a_file_of_queries(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "completion": "c", "id": 7, "split": "valid1"}) + "\n")
    (query,) = read_queries(path, FORMATS["plain"])
    assert (query.text, query.reference, query.id, query.split, query.where) == (
        "p",
        "c",
        "7",
        "valid1",
        "rows.jsonl:1",
    )
    assert query.fields == {"prompt": "p"}  # no answer in what a labeler or a gold score sees
    assert query_of(FORMATS["plain"], {"prompt": "p"}, "x:3").id == "x:3"
    for text, words in (("", "no rows"), ("3\n", "is no JSON object"), ('{"a": 1}\n', "rows.jsonl:1 does not fit")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            list(read_queries(path, FORMATS["plain"]))
    with pytest.raises(UserError, match="There is no file"):
        list(read_queries(tmp_path / "none", FORMATS["plain"]))


def test_answers():
    assert answer_of({"output": "o", "response": "r"}) == "r"
    assert answer_of({"prompt": "p", "reference": None}) is None


# ------------------------------------------------------------------------------------------------------ turns


def text_of(ids):
    return BYTES.decode(np.array(ids, dtype=np.uint32))


def test_turns_of_a_conversation():
    chat = FORMATS["chat"]
    query, response, learned = encode_turns({"messages": TALK}, BYTES, chat)
    end = "<|endoftext|>"
    assert text_of(query) == end + "\n\nHuman: Hi\n\nAssistant:"
    assert text_of(response) == f" Hello.{end}\n\nHuman: Bye\n\nAssistant: See you.{end}"
    wrote = [id for id, one in zip(response, learned, strict=True) if one]
    assert text_of(wrote) == f" Hello.{end} See you.{end}"
    last = encode_turns({"messages": TALK}, BYTES, chat, last_only=True)
    assert (text_of(last[1]), set(last[2])) == (f" See you.{end}", {True})
    assert query + response == last[0] + last[1]


def test_a_turn_is_asked_as_it_was_learned():
    chat = FORMATS["chat"]
    query, response, _ = encode_turns({"messages": TALK}, BYTES, chat, last_only=True)
    assert encode_query(chat, {"messages": TALK}, BYTES) == query
    assert encode_query(chat, {"messages": TALK[:3]}, BYTES) == query
    assert encode_response("See you.", BYTES, chat) == response
    theirs = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Bye"}]
    assert encode_query(chat, {"conversations": theirs}, BYTES) == query
    assert query_text(chat, {"messages": TALK}).endswith("\n\nHuman: Bye\n\nAssistant:")
    assert encode_query(chat, {"prompt": "Hi"}, BYTES) == encode_query(chat, {"messages": TALK[:1]}, BYTES)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "empty list"),
        ("text", "messages are expected"),
        ([{"role": "user"}], "role and content"),
        (TALK[:1], "no assistant"),
        (TALK[1:2], "no assistant"),
        ([*TALK, TALK[3]], "two turns in a row"),
    ],
)
def test_conversations_that_do_not_fit(messages, words):
    with pytest.raises(Unfit, match=words):
        encode_turns({"messages": messages}, BYTES, FORMATS["chat"])


def test_a_conversation_that_is_too_long():
    with pytest.raises(Unfit, match="the query is too long"):
        encode_turns({"messages": TALK}, BYTES, short("chat", 9))
    with pytest.raises(Unfit, match="the response is too long"):
        encode_turns({"messages": TALK}, BYTES, short("chat", 90, 12))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_where_it_is_from(name):
    assert FORMATS[name].name == name
    assert FORMATS[name].source
