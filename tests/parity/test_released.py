"""OpenAI's released files come in as they are, and what is damaged is named.

The logits to compare with are those of OpenAI's own programs (fixtures/make.py). Damaged files are made by a writer of
TensorFlow checkpoints that is independent of our reader: TensorFlow reads what it writes.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rein.bpe.byte_level import ByteLevelBPE
from rein.errors import UserError
from rein.models.gpt import GPTConfig
from rein.models.released import Bundle, masked_crc32c, read_gpt1, read_gpt2

sys.path.insert(0, str(Path(__file__).parent))
from openai_files import BYTES, FIXTURES, LETTERS, gpt1_arrays, variables, write_pair

# -------------------------------------------------------------------------------------------------------- GPT-2


def test_gpt2_gives_the_logits_of_openais_program(gpt2):
    expected = np.load(FIXTURES / "gpt2.npz")
    model, tokenizer = read_gpt2(gpt2)
    assert model.config == GPTConfig(n_vocab=257, n_ctx=6, n_embd=4, n_head=2, n_layer=2)
    assert tokenizer == BYTES
    with torch.no_grad():
        logits = model(torch.from_numpy(expected["ids"]))
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]), rtol=1e-5, atol=1e-5)


# A writer of tensor bundles, after TensorFlow's and LevelDB's descriptions.


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(*fields):
    """A protobuf message of (number, value): bytes, an int, or ("fixed32", int)."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, tuple):
            out += varint(number << 3 | 5) + struct.pack("<I", value[1])
        else:
            out += varint(number << 3) + varint(value)
    return out


def block(entries, kind):
    out, restarts, last = b"", [], b""
    for place, (key, value) in enumerate(entries):
        if place % 4 == 0:
            restarts.append(len(out))
            last = b""
        shared = next((n for n, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    out += b"".join(struct.pack("<I", at) for at in restarts or [0]) + struct.pack("<I", len(restarts or [0]))
    return out + bytes([kind]) + struct.pack("<I", crc32c(out + bytes([kind])))


def table(entries, per_block, kind):
    out, handles = b"", []
    for first in range(0, len(entries), per_block):
        group = entries[first : first + per_block]
        written = block(group, kind)
        handles.append((group[-1][0], varint(len(out)) + varint(len(written) - 5)))
        out += written
    places = []
    for written in (block([], 0), block(handles, 0)):
        places.append(varint(len(out)) + varint(len(written) - 5))
        out += written
    return out + b"".join(places).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(folder, tensors, *, n_shards=1, per_block=1000, kind=0, big_endian=False, changes=()):
    """`tensors` as a checkpoint; `changes` replaces fields of a tensor's entry: {name: {field: value}}."""
    changes = dict(changes)
    shards = [b""] * n_shards
    header = message((1, n_shards), (2, int(big_endian)), (3, message((1, 1))))
    entries = [(b"", header)]
    for place, (name, array) in enumerate(sorted(tensors.items())):
        data, shard = array.tobytes(), place % n_shards
        shape = b"".join(message((2, message((1, size)))) for size in array.shape)
        dtype = {np.float32: 1, np.float16: 19}[array.dtype.type]
        fields = {1: dtype, 2: shape, 3: shard, 4: len(shards[shard]), 5: len(data), 6: ("fixed32", crc32c(data))}
        entries.append((name.encode(), message(*(fields | changes.get(name, {})).items())))
        shards[shard] += data
    (folder / "model.ckpt.index").write_bytes(table(entries, per_block, kind))
    for old in folder.glob("model.ckpt.data-*"):
        old.unlink()
    for shard, data in enumerate(shards):
        (folder / f"model.ckpt.data-{shard:05}-of-{n_shards:05}").write_bytes(data)


def test_the_writer_writes_what_tensorflow_wrote(gpt2, tensors):
    index = (gpt2 / "model.ckpt.index").read_bytes()
    write_bundle(gpt2, tensors)
    again = variables(gpt2)
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
    data = (FIXTURES / "gpt2" / "model.ckpt.data-00000-of-00001").read_bytes()
    assert (gpt2 / "model.ckpt.data-00000-of-00001").read_bytes() == data
    for entry in Bundle(gpt2 / "model.ckpt").entries.values():  # the same checksums as TensorFlow's
        assert struct.pack("<BI", 0x35, entry.checksum) in index


@pytest.mark.parametrize("data", [b"", b"1", b"123456789", bytes(range(256)) * 3 + b"odd"])
def test_checksums(data):
    assert masked_crc32c(np.frombuffer(data, np.uint8)) == crc32c(data)


def test_many_blocks_and_files(gpt2, tensors):
    expected, _ = read_gpt2(gpt2)
    write_bundle(gpt2, tensors, n_shards=3, per_block=5)
    model, _ = read_gpt2(gpt2)
    for (name, a), (_, b) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_every_changed_byte_of_the_index_is_seen(gpt2):
    path = gpt2 / "model.ckpt.index"
    whole, expected = path.read_bytes(), Bundle(gpt2 / "model.ckpt").entries
    unseen = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            entries = Bundle(gpt2 / "model.ckpt").entries
        except UserError:
            continue
        assert entries == expected, at
        unseen += 1
    assert unseen < 60  # the empty block of meta data and the padding of the footer, which say nothing


def test_an_index_cut_anywhere_is_seen(gpt2):
    path = gpt2 / "model.ckpt.index"
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"model\.ckpt\.index"):
            read_gpt2(gpt2)


def test_a_changed_byte_of_any_tensor_is_seen(gpt2):
    path = gpt2 / "model.ckpt.data-00000-of-00001"
    whole = path.read_bytes()
    for name, entry in Bundle(gpt2 / "model.ckpt").entries.items():
        at = entry.offset_bytes + entry.size_bytes // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match=f"checksum of {name} "):
            read_gpt2(gpt2)


def test_cut_data(gpt2):
    path = gpt2 / "model.ckpt.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is 6,191 bytes, but model/wte ends at byte 6,192"):
        read_gpt2(gpt2)


@pytest.mark.parametrize(
    "name",
    ["hparams.json", "checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "encoder.json", "vocab.bpe"],
)
def test_a_missing_file_of_gpt2(gpt2, name):
    (gpt2 / name).unlink()
    with pytest.raises(UserError, match=name):
        read_gpt2(gpt2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_layer": 1}, r"model/h1/attn/c_attn/b, which a GPT-2 of n_layer=1 has not"),
        ({"n_layer": 10**9}, r"no model/h2/attn/c_attn/w, which a GPT-2 of n_layer=1000000000 has"),
        ({"n_ctx": 7}, r"model/wpe of shape \[6, 4\], but hparams\.json makes it \[7, 4\]"),
        ({"n_embd": 8}, r"of shape \[257, 4\], but hparams\.json makes it \[257, 8\]"),
        ({"n_vocab": 300}, "257 tokens, but hparams.json says 300"),
        ({"n_head": 3}, "n_embd=4 is not a multiple of n_head=3"),
        ({"n_head": "2"}, "n_head='2'"),
        ({"n_head": None}, "n_head=None"),
    ],
)
def test_hparams_of_another_model(gpt2, change, says):
    path = gpt2 / "hparams.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=says):
        read_gpt2(gpt2)


@pytest.mark.parametrize("text", ['{"n_vocab": 257}', "[]", "{", ""])
def test_damaged_hparams(gpt2, text):
    (gpt2 / "hparams.json").write_text(text)
    with pytest.raises(UserError, match=r"hparams\.json does not give all of n_vocab"):
        read_gpt2(gpt2)


def test_the_checkpoint_file_names_a_file_of_its_own_folder(gpt2):
    (gpt2 / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt"\n')
    assert read_gpt2(gpt2)
    (gpt2 / "checkpoint").write_text("nothing\n")
    with pytest.raises(UserError, match="names no checkpoint"):
        read_gpt2(gpt2)


@pytest.mark.parametrize(
    ("lost", "says"), [("model/h1/mlp/c_fc/b", "no model/h1/mlp/c_fc/b"), ("model/wte", "model/wte")]
)
def test_a_missing_variable(gpt2, tensors, lost, says):
    write_bundle(gpt2, {name: array for name, array in tensors.items() if name != lost})
    with pytest.raises(UserError, match=says):
        read_gpt2(gpt2)


def test_an_unknown_variable(gpt2, tensors):
    write_bundle(gpt2, tensors | {"model/h1/mlp/c_fc/b/Adam": tensors["model/ln_f/b"]})
    with pytest.raises(UserError, match="has model/h1/mlp/c_fc/b/Adam"):
        read_gpt2(gpt2)


def test_tensors_of_half_precision(gpt2, tensors):
    write_bundle(gpt2, tensors | {"model/wpe": tensors["model/wpe"].astype(np.float16)})
    with pytest.raises(UserError, match="model/wpe as 48 bytes of type 19"):
        read_gpt2(gpt2)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"changes": {"model/wpe": {7: b""}}}, "model/wpe as 96 bytes of type 1 in slices"),
        ({"changes": {"model/wpe": {5: 92}}}, "92 bytes of type 1, but here it is 96 bytes"),
        ({"changes": {"model/wpe": {4: 2**60}}}, "model/wpe ends at byte 1,152,921,504,606,847,072"),
        ({"kind": 1}, r"is packed \(kind 1; 1 is Snappy\)"),
        ({"big_endian": True}, "big-endian"),
    ],
    ids=["in slices", "of another size", "beyond the file", "packed", "big-endian"],
)
def test_tensors_that_are_written_another_way(gpt2, tensors, how, says):
    write_bundle(gpt2, tensors, **how)
    with pytest.raises(UserError, match=says):
        read_gpt2(gpt2)


def test_a_vocabulary_of_another_model(gpt2):
    write_pair(gpt2, ByteLevelBPE(((b"a", b"b"),)), "encoder.json", "vocab.bpe")
    with pytest.raises(UserError, match=r"258 tokens, but hparams\.json says 257"):
        read_gpt2(gpt2)


# -------------------------------------------------------------------------------------------------------- GPT-1


def test_gpt1_gives_the_logits_of_openais_program(gpt1):
    expected = np.load(FIXTURES / "gpt1.npz")
    assert np.array_equal(gpt1_arrays()[1], expected["ids"])
    model, tokenizer = read_gpt1(gpt1)
    assert model.config == GPTConfig(28, 6, 128, 2, 2, norm="post", initialisation="flat", dropout=0.1)
    assert tokenizer == LETTERS
    with torch.no_grad():
        logits = model(torch.from_numpy(expected["ids"]))
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [0, 4, 9])
@pytest.mark.parametrize("keep", [0, 5, 40, 200, -4])
def test_a_cut_piece(gpt1, number, keep):
    path = gpt1 / f"params_{number}.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"params_{number}\.npy is not a whole array"):
        read_gpt1(gpt1)


@pytest.mark.parametrize(
    "name", ["params_0.npy", "params_9.npy", "params_shapes.json", "encoder_bpe_40000.json", "vocab_40000.bpe"]
)
def test_a_missing_file_of_gpt1(gpt1, name):
    (gpt1 / name).unlink()
    with pytest.raises(UserError, match=name):
        read_gpt1(gpt1)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda piece: piece.astype(np.float64), r"params_3\.npy holds float64"),
        (lambda piece: piece[:, None], r"params_3\.npy holds float32 of shape \(\d+, 1\)"),
        (lambda piece: np.array([Trap()], dtype=object), r"params_3\.npy is not a whole array"),
        (lambda piece: piece[:-1], r"hold 400,895 numbers together, but params_shapes\.json describes 400,896"),
    ],
    ids=["float64", "two axes", "a pickle", "one number less"],
)
def test_pieces_that_are_no_row_of_float32(gpt1, changed, says):
    path = gpt1 / "params_3.npy"
    np.save(path, changed(np.load(path)))
    with pytest.raises(UserError, match=says):
        read_gpt1(gpt1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda shapes: shapes[:-1], "lists 25 tensors, but GPT-1 has 2 and 12 for each layer"),
        (lambda shapes: shapes[:2], "not GPT-1's list"),
        (lambda shapes: {"a": 1}, "not GPT-1's list"),
        (lambda shapes: [*shapes[:5], [-128], *shapes[6:]], "not GPT-1's list"),
        (lambda shapes: [*shapes[:2], [1, 128, 128], *shapes[3:]], r"\[1, 128, 128\] for tensor 2.*h\.0\.attn\.c_attn"),
        (lambda shapes: [[6, 64], *shapes[1:]], r"tensor 1, but it is wte and must be \[28, 64\]"),
        (lambda shapes: [[6, 100], *shapes[1:]], "100 wide, but GPT-1's heads are 64 wide"),
        (lambda shapes: [shapes[0], [27, 128], *shapes[2:]], "vocabulary of 28 tokens, but 27 embeddings"),
    ],
)
def test_shapes_of_another_model(gpt1, change, says):
    path = gpt1 / "params_shapes.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=says):
        read_gpt1(gpt1)
