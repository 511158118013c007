"""What both kinds share: saving, loading, streaming, and files that are something else."""

import json
import random

import pytest

from rein.bpe import formats
from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.gpt1 import GPT1BPE
from rein.bpe.tokenizer import StreamDecoder, Tokenizer, load_tokenizer
from rein.errors import UserError


@pytest.fixture(params=["gpt2", "gpt1"])
def either(request, small, small_gpt1) -> Tokenizer:
    return small if request.param == "gpt2" else small_gpt1


@pytest.fixture
def saved(either, tmp_path):
    """The content of a saved tokenizer.json, and a function that writes it back and loads it."""
    path = tmp_path / "tokenizer.json"
    either.save(path)

    def load(content):
        path.write_text(json.dumps(content), encoding="utf-8")
        return load_tokenizer(path)

    return json.loads(path.read_text(encoding="utf-8")), load


def test_saving_and_loading_give_an_equal_tokenizer(either, tmp_path):
    either.save(tmp_path / "new" / "t.json")
    loaded = load_tokenizer(tmp_path / "new" / "t.json")
    assert loaded == either
    assert loaded.sha256() == either.sha256()
    assert loaded.encode("It's café, def f():\n  x").tolist() == either.encode("It's café, def f():\n  x").tolist()


def test_a_folder_stands_for_its_tokenizer_json(either, tmp_path):
    either.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json"]
    assert load_tokenizer(tmp_path) == either


def test_saving_where_nothing_can_be_written_is_an_error(either, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        either.save(tmp_path / "file" / "tokenizer.json")


def test_streaming_gives_the_decoded_text(either, real_text):
    ids = either.encode(real_text[0][:3000] + " naïve 中文 😀 \x00")
    stream = StreamDecoder(either)
    pieces = [stream.push(id) for id in ids.tolist()]
    assert "".join(pieces) + stream.flush() == either.decode(ids)


def test_a_stream_waits_for_the_whole_character(small):
    ids = small.encode_bytes("😀".encode()).tolist()
    stream = StreamDecoder(small)
    assert [stream.push(id) for id in ids] == ["", "", "", "😀"][-len(ids) :]
    assert stream.flush() == ""


def test_a_stream_that_ends_inside_a_character_says_so(small):
    stream = StreamDecoder(small)
    assert stream.push(int(small.encode_bytes(b"\xf0")[0])) == ""
    assert stream.flush() == "\ufffd"
    with pytest.raises(UserError, match="is not a token id"):
        stream.push(small.n_vocab)


def test_no_tokenizer_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UserError, match=r"There is no tokenizer at .*json") as error:
            load_tokenizer(path)
        assert "rein bpe train" in error.value.fix


@pytest.mark.parametrize("kept", [0, 1, 100, 3000])
def test_a_file_cut_short_is_an_error(either, tmp_path, kept):
    path = tmp_path / "tokenizer.json"
    either.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"is not a tokenizer.json: it stops being JSON at line \d+, column \d+"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[1, 2]", b"{}", b'{"model": {"type": "Unigram", "vocab": []}}', b'{"model": 3}']
)
def test_a_file_of_another_kind_is_an_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=r"not UTF-8|no JSON object|neither GPT-2's kind nor GPT-1's"):
        load_tokenizer(tmp_path)


def test_both_ways_of_writing_merges_are_read(either, saved):
    content, load = saved
    content["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
    assert load(content) == either


@pytest.mark.parametrize("merge", ["abc", "a b c", 3, ["a"], ["a", 1], None])
def test_a_merge_that_is_no_pair_is_an_error(saved, merge):
    content, load = saved
    content["model"]["merges"][5] = merge
    with pytest.raises(UserError, match="no pair as merge 5"):
        load(content)


def test_the_end_of_text_may_stand_among_the_added_tokens_only(either, saved):
    content, load = saved
    del content["model"]["vocab"]["<|endoftext|>"]
    assert load(content) == either


def test_another_added_token_is_an_error(saved):
    content, load = saved
    content["added_tokens"].append(formats.added_token("<pad>", 1000))
    with pytest.raises(UserError, match=r"adds the token '<pad>', but Rein knows one special token, <\|endoftext\|>"):
        load(content)


def test_an_end_of_text_elsewhere_is_an_error(saved):
    content, load = saved
    content["added_tokens"][0]["id"] = 7
    with pytest.raises(UserError, match="its place in the merges makes it id 999"):
        load(content)


def test_exchanged_ids_are_an_error(saved):
    content, load = saved
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[600:602]  # results of merges
    vocab[first], vocab[second] = vocab[second], vocab[first]
    with pytest.raises(UserError, match="has id 601, but its place in the merges makes it id 600"):
        load(content)


def test_gpt1_without_an_end_of_text_gets_one(small_gpt1, tmp_path):
    small_gpt1.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [formats.added_token("<unk>", 0)]
    del content["model"]["vocab"]["<|endoftext|>"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(path) == small_gpt1


def test_gpt2_without_an_end_of_text_is_an_error(small, tmp_path):
    small.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = []
    del content["model"]["vocab"]["<|endoftext|>"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"the token '<\|endoftext\|>' is missing"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
    ],
)
def test_text_cut_otherwise_is_an_error(small, tmp_path, change):
    small.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(UserError, match="changes or cuts text otherwise than GPT-2 does"):
        load_tokenizer(path)


def test_whatever_is_broken_in_the_file_it_is_a_user_error(saved):
    """Any value replaced or removed: the tokenizer loads, or a `UserError` says why not; never anything else."""
    content, load = saved
    generator = random.Random(1)
    text = json.dumps(content)
    for _ in range(150):
        broken = json.loads(text)
        node = broken
        while True:
            key = generator.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], dict | list) and node[key] and generator.random() < 0.8:
                node = node[key]
                continue
            if generator.random() < 0.3:
                del node[key]
            else:
                node[key] = generator.choice([None, 3, -1, "x", "", [], {}, [1], {"a": []}, True, 0.5])
            break
        try:
            loaded = load(broken)
        except UserError:
            continue
        assert isinstance(loaded, ByteLevelBPE | GPT1BPE)
        loaded.decode([0])
