"""GPT-2's byte-level BPE: layout, text and bytes, the files it is read from."""

import json
import pickle

import numpy as np
import pytest

from rein.bpe import byte_level, engines
from rein.bpe.alphabet import BYTE_ORDER, EOT, from_visible, to_visible
from rein.bpe.byte_level import ByteLevelBPE
from rein.errors import UserError


def test_the_ids_of_bytes_are_gpt2s():
    tokenizer = ByteLevelBPE(())
    ids = {bytes([byte]): id for id, byte in enumerate(BYTE_ORDER)}
    assert ids[b"!"] == 0
    assert ids[b"~"] == 93
    assert ids[b"\xa1"] == 94
    assert ids[b"\xff"] == 187
    assert ids[b"\x00"] == 188
    assert ids[b"\n"] == 198
    assert ids[b" "] == 220
    assert tokenizer.n_vocab == 257
    assert tokenizer.encode("! \n").tolist() == [0, 220, 198]


def test_every_byte_has_its_visible_character():
    everything = bytes(range(256))
    visible = to_visible(everything)
    assert len(set(visible)) == 256
    assert not any(character.isspace() for character in visible)
    assert from_visible(visible, "here") == everything


def test_a_character_outside_the_alphabet_is_an_error():
    with pytest.raises(UserError, match=r"vocab.bpe has the token 'a b', whose ' ' is not in GPT-2's byte alphabet"):
        from_visible("a b", "vocab.bpe")


@pytest.mark.parametrize(
    "merges",
    [((b"a", b"bc"),), ((b"ab", b"c"),), ((b"a", b"b"), (b"a", b"b")), ((b"ab", b"c"), (b"a", b"b"))],
    ids=["right unknown", "left unknown", "twice", "order"],
)
def test_merges_join_what_is_there_into_something_new(merges):
    with pytest.raises(UserError, match=r"Merge \d is .* a merge joins two tokens made before it"):
        ByteLevelBPE(merges)


def test_the_end_of_text_is_never_forged(small):
    for text in (EOT, f"a{EOT}b", f" {EOT}\n{EOT}", EOT[:5] + EOT):
        ids = small.encode(text)
        assert small.eot_id not in ids
        assert small.eot_id not in small.encode_bytes(text.encode())
        assert small.decode(ids) == text
        assert all(small.eot_id not in row for row in small.encode_batch([text, text]))
    assert small.eot_id == small.n_vocab - 1
    assert small.decode([small.eot_id]) == EOT


def test_a_batch_is_its_texts_one_by_one(small, real_text):
    texts = ["", *real_text[0].split("\n\n"), "", "é\x00"]
    for row, text in zip(small.encode_batch(texts), texts, strict=True):
        assert row.dtype == np.uint32
        np.testing.assert_array_equal(row, small.encode(text))
    assert small.encode_batch([]) == []


def test_ids_are_uint32_and_empty_text_has_none(small):
    ids = small.encode("")
    assert ids.dtype == np.uint32
    assert ids.shape == (0,)
    assert small.decode([]) == ""
    assert small.encode("x").flags.writeable


@pytest.mark.parametrize("engine", ["gigatoken", "tiktoken"])
def test_a_lone_surrogate_is_an_error(small, engine):
    tokenizer = ByteLevelBPE(small.merges)
    if engine == "tiktoken":
        tokenizer.__dict__["_engine"] = engines.TiktokenEngine(tokenizer._tokens)
    with pytest.raises(UserError, match=r"The text has a lone surrogate \(U\+D800\) at character 2"):
        tokenizer.encode("ab\ud800c")
    with pytest.raises(UserError, match=r"Text 1 of the batch has a lone surrogate \(U\+DFFF\) at character 0"):
        tokenizer.encode_batch(["fine", "\udfff"])


def test_what_is_no_text_is_the_callers_mistake(small):
    with pytest.raises((TypeError, AttributeError)):
        small.encode(3)
    with pytest.raises((TypeError, AttributeError)):
        small.encode_batch([3])


def test_bytes_that_are_not_text_are_their_own_tokens(small):
    data = b"caf\xc3\xa9 \xff\xfe caf\xc3"
    ids = small.encode_bytes(data)
    assert small.decode_bytes(ids) == data
    assert small.decode(ids) == "café \ufffd\ufffd caf\ufffd"
    np.testing.assert_array_equal(small.encode_bytes("café".encode()), small.encode("café"))


def test_bytes_with_an_error_everywhere_take_linear_time(small):
    data = bytes([0xFF, 0x61]) * 200_000
    assert small.decode_bytes(small.encode_bytes(data)) == data


@pytest.mark.parametrize("unit", ["a", "^", " ", "\n", "中", "é", "ab1 "])
def test_200_000_equal_characters(small, unit):
    # Quadratic encoders need minutes here, and the suite would be stopped; this one a few milliseconds.
    text = unit * 200_000
    assert small.decode(small.encode(text)) == text


@pytest.mark.parametrize(
    ("ids", "wrong"), [([0, 1000], 1000), ([-1], -1), ([0.5], 0.5), ([1, 10**30], 10**30), (["7"], 7), ([None], None)]
)
def test_an_id_out_of_range_is_an_error(small, ids, wrong):
    with pytest.raises(UserError, match=f"^{wrong} is not a token id: .* whole numbers 0 to 999"):
        small.decode(ids)


def test_ids_may_be_any_integers(small):
    text = "def f(x): return 'é'"
    ids = small.encode(text)
    for form in (ids.tolist(), tuple(ids.tolist()), ids.astype(np.int64), ids.astype(np.uint16)):
        assert small.decode(form) == text


def test_bytes_of_each_id(small, real_text):
    counts_V = small.token_bytes_V()
    assert counts_V.dtype == np.int64
    assert counts_V.shape == (small.n_vocab,)
    assert counts_V[small.eot_id] == 0
    assert counts_V[small.encode(real_text[1])].sum() == len(real_text[1].encode())


def test_equal_merges_are_equal_tokenizers(small):
    twin = ByteLevelBPE(small.merges)
    other = ByteLevelBPE(small.merges[:-1])
    assert twin == small
    assert twin.sha256() == small.sha256()
    assert other != small
    assert other.sha256() != small.sha256()
    assert len(small.sha256()) == 64


def test_a_worker_can_be_sent_one(small):
    small.encode("so that the engine is there")
    copy = pickle.loads(pickle.dumps(small))
    assert copy == small
    np.testing.assert_array_equal(copy.encode("Hello"), small.encode("Hello"))


# --------------------------------------------------------------------------------------- OpenAI's two files


@pytest.fixture
def pair(small, tmp_path):
    """The files that OpenAI would have released for `small`."""
    tokens = [*map(to_visible, small._tokens), EOT]
    encoder, merges = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
    encoder.write_text(json.dumps({token: id for id, token in enumerate(tokens)}), encoding="utf-8")
    lines = [f"{to_visible(left)} {to_visible(right)}\n" for left, right in small.merges]
    merges.write_text("#version: 0.2\n" + "".join(lines), encoding="utf-8")
    return encoder, merges


def test_reads_openais_pair(small, pair):
    assert byte_level.from_openai(*pair) == small


def test_a_merge_list_needs_no_version_line(small, pair):
    pair[1].write_text(pair[1].read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8")
    assert byte_level.from_openai(*pair) == small


def test_a_missing_file_is_an_error(pair):
    with pytest.raises(UserError, match=r"nowhere.json cannot be read: No such file"):
        byte_level.from_openai(pair[0].with_name("nowhere.json"), pair[1])


def test_an_encoder_cut_short_is_an_error(pair):
    pair[0].write_text(pair[0].read_text(encoding="utf-8")[:5000], encoding="utf-8")
    with pytest.raises(UserError, match=r"encoder.json is not OpenAI's encoder.json: it stops being JSON at line 1"):
        byte_level.from_openai(*pair)


@pytest.mark.parametrize(
    ("content", "problem"),
    [("[]", "it holds no JSON object"), ('{"a": "b"}', "it maps 'a' to 'b', not to an id")],
)
def test_an_encoder_of_another_shape_is_an_error(pair, content, problem):
    pair[0].write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        byte_level.from_openai(*pair)


def test_merges_cut_inside_a_line_are_an_error(pair):
    text = pair[1].read_text(encoding="utf-8")
    pair[1].write_text(text[: text.index("\n", 3000) + 3].rstrip(), encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab.bpe is not a list of merges: line \d+ is"):
        byte_level.from_openai(*pair)


def test_an_empty_line_among_the_merges_is_an_error(pair):
    text = pair[1].read_text(encoding="utf-8")
    pair[1].write_text(text.replace("\n", "\n\n", 2), encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2 is '', not two tokens"):
        byte_level.from_openai(*pair)


def test_merges_cut_between_lines_do_not_fit_the_encoder(pair):
    lines = pair[1].read_text(encoding="utf-8").splitlines(keepends=True)
    pair[1].write_text("".join(lines[:500]), encoding="utf-8")
    with pytest.raises(UserError, match=r"'<\|endoftext\|>' has id 999, but its place in the merges makes it id 755"):
        byte_level.from_openai(*pair)


def test_an_encoder_with_too_few_or_too_many_tokens_is_an_error(pair):
    ids = json.loads(pair[0].read_text(encoding="utf-8"))
    pair[0].write_text(json.dumps({token: id for token, id in ids.items() if id != 700}), encoding="utf-8")
    with pytest.raises(UserError, match=r"is missing, but its place in the merges makes it id 700"):
        byte_level.from_openai(*pair)
    pair[0].write_text(json.dumps(ids | {"more": 1000}), encoding="utf-8")
    with pytest.raises(UserError, match=r"has 1,001 tokens, but its merges make 1,000"):
        byte_level.from_openai(*pair)
