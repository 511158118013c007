"""OpenAI's released files come in as they are, our models go out as they are, and what is damaged is named.

The logits to compare with are those of OpenAI's own programs (fixtures/make.py) and of transformers. Damaged files are
made by a writer of TensorFlow checkpoints that is independent of our reader: TensorFlow reads what it writes.
"""

import json
import re
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rein import checkpoint
from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.byte_level import from_openai as gpt2_tokenizer
from rein.bpe.gpt1 import GPT1BPE
from rein.bpe.gpt1 import from_openai as gpt1_tokenizer
from rein.bpe.tokenizer import load_tokenizer
from rein.config import from_flags
from rein.errors import UserError
from rein.models.generate import generate
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import end_of_text, load_model, save_model
from rein.models.interchange import (
    ExportConfig,
    ImportConfig,
    add_end_of_text,
    check_foldable,
    export_command,
    huggingface_type,
    import_command,
    write_vocabulary,
)
from rein.models.released import Bundle, masked_crc32c, read_gpt1, read_gpt2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="the parity tests compare with transformers")

FIXTURES = Path(__file__).parent / "fixtures"
BYTES = ByteLevelBPE(())  # 257 ids
LETTERS = GPT1BPE(
    tuple("abcdefghij"), (("a", "b"), ("c", "d</w>"), ("e", "f"), ("ab", "ef"), ("g", "h</w>"), ("i", "j"))
)  # 28 ids, and the end of text


def write_pair(folder, tokenizer, encoder, merges):
    """A vocabulary in OpenAI's two files."""
    tokenizer.save(folder / "tokenizer.json")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    if tokenizer.kind == "gpt1":
        del model["vocab"]["<|endoftext|>"]
    (folder / encoder).write_text(json.dumps(model["vocab"]))
    (folder / merges).write_text("\n".join(["#version: 0.2", *model["merges"], ""]))


# -------------------------------------------------------------------------------------------------------- GPT-2


@pytest.fixture
def gpt2(tmp_path):
    folder = tmp_path / "gpt2"
    shutil.copytree(FIXTURES / "gpt2", folder)
    write_pair(folder, BYTES, "encoder.json", "vocab.bpe")
    return folder


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


def variables(folder):
    bundle = Bundle(folder / "model.ckpt")
    return {name: bundle.read(name).reshape(entry.shape) for name, entry in bundle.entries.items()}


@pytest.fixture
def tensors(gpt2):
    return variables(gpt2)


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


def test_a_missing_and_an_unknown_variable(gpt2, tensors):
    without = {name: array for name, array in tensors.items() if name != "model/h1/mlp/c_fc/b"}
    write_bundle(gpt2, without)
    with pytest.raises(UserError, match="no model/h1/mlp/c_fc/b"):
        read_gpt2(gpt2)
    write_bundle(gpt2, {name: array for name, array in tensors.items() if name != "model/wte"})
    with pytest.raises(UserError, match="model/wte"):
        read_gpt2(gpt2)
    write_bundle(gpt2, tensors | {"model/h1/mlp/c_fc/b/Adam": tensors["model/ln_f/b"]})
    with pytest.raises(UserError, match="has model/h1/mlp/c_fc/b/Adam"):
        read_gpt2(gpt2)


def test_tensors_that_are_not_whole_float32(gpt2, tensors):
    write_bundle(gpt2, tensors | {"model/wpe": tensors["model/wpe"].astype(np.float16)})
    with pytest.raises(UserError, match="model/wpe as 48 bytes of type 19"):
        read_gpt2(gpt2)
    write_bundle(gpt2, tensors, changes={"model/wpe": {7: b""}})
    with pytest.raises(UserError, match="model/wpe as 96 bytes of type 1 in slices"):
        read_gpt2(gpt2)
    write_bundle(gpt2, tensors, changes={"model/wpe": {5: 92}})
    with pytest.raises(UserError, match="92 bytes of type 1, but here it is 96 bytes"):
        read_gpt2(gpt2)
    write_bundle(gpt2, tensors, changes={"model/wpe": {4: 2**60}})
    with pytest.raises(UserError, match="model/wpe ends at byte 1,152,921,504,606,847,072"):
        read_gpt2(gpt2)


def test_packed_and_big_endian_checkpoints(gpt2, tensors):
    write_bundle(gpt2, tensors, kind=1)
    with pytest.raises(UserError, match=r"is packed \(kind 1; 1 is Snappy\)"):
        read_gpt2(gpt2)
    write_bundle(gpt2, tensors, big_endian=True)
    with pytest.raises(UserError, match="big-endian"):
        read_gpt2(gpt2)


def test_a_vocabulary_of_another_model(gpt2):
    write_pair(gpt2, ByteLevelBPE(((b"a", b"b"),)), "encoder.json", "vocab.bpe")
    with pytest.raises(UserError, match=r"258 tokens, but hparams\.json says 257"):
        read_gpt2(gpt2)


# -------------------------------------------------------------------------------------------------------- GPT-1

ORDER = ("c_attn/w", "c_attn/b", "c_proj/w", "c_proj/b", "ln_1/g", "ln_1/b", "c_fc/w", "c_fc/b", "mlp/w", "mlp/b",
         "ln_2/g", "ln_2/b")  # fmt: skip


def gpt1_arrays(n_vocab=28, n_ctx=6, D=128, n_layer=2):
    """The weights of fixtures/make.py, in the order of the released file, and the ids that it draws behind them."""
    random = np.random.RandomState(0)
    wide = {"c_attn/w": (1, D, 3 * D), "c_attn/b": (3 * D,), "c_proj/w": (1, D, D), "c_fc/w": (1, D, 4 * D),
            "c_fc/b": (4 * D,), "mlp/w": (1, 4 * D, D)}  # fmt: skip
    shapes = [("wpe", (n_ctx, D)), ("wte", (n_vocab, D)), *((n, wide.get(n, (D,))) for n in ORDER * n_layer)]
    arrays = [(n.endswith("/g") + 0.3 * random.standard_normal(shape)).astype(np.float32) for n, shape in shapes]
    return arrays, random.randint(0, n_vocab, (2, n_ctx))


def write_gpt1(folder, arrays, tokenizer=LETTERS):
    folder.mkdir(exist_ok=True)
    (folder / "params_shapes.json").write_text(json.dumps([array.shape for array in arrays]))
    vector = np.concatenate([array.ravel() for array in arrays])
    for number, piece in enumerate(np.array_split(vector, 10)):
        np.save(folder / f"params_{number}.npy", piece)
    write_pair(folder, tokenizer, "encoder_bpe_40000.json", "vocab_40000.bpe")


@pytest.fixture
def gpt1(tmp_path):
    write_gpt1(tmp_path / "gpt1", gpt1_arrays()[0])
    return tmp_path / "gpt1"


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


def test_pieces_that_are_no_row_of_float32(gpt1):
    path = gpt1 / "params_3.npy"
    piece = np.load(path)
    np.save(path, piece.astype(np.float64))
    with pytest.raises(UserError, match=r"params_3\.npy holds float64"):
        read_gpt1(gpt1)
    np.save(path, piece[:, None])
    with pytest.raises(UserError, match=r"params_3\.npy holds float32 of shape \(\d+, 1\)"):
        read_gpt1(gpt1)
    np.save(path, np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match=r"params_3\.npy is not a whole array"):
        read_gpt1(gpt1)
    np.save(path, piece[:-1])
    with pytest.raises(UserError, match=r"hold 400,895 numbers together, but params_shapes\.json describes 400,896"):
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


# ------------------------------------------------------------------------------------------------------- import


def run_import(source, out, *flags):
    import_command(from_flags(ImportConfig, [str(source), "--out", str(out), *flags], prog="rein import"))
    return load_model(out)


def run_export(source, out, *flags):
    export_command(from_flags(ExportConfig, [str(source), "--out", str(out), *flags], prog="rein export"))
    return out


def transformers_name(variable):
    """What transformers calls a variable of GPT-2's program."""
    place, *rest = variable.removeprefix("model/").split("/")
    if not rest:
        return f"transformer.{place}.weight"
    kinds = {"w": "weight", "g": "weight", "b": "bias"}
    return ".".join(["transformer", re.sub(r"h(\d+)", r"h.\1", place), *rest[:-1], kinds[rest[-1]]])


def test_gpt2_from_openai_through_us_to_transformers_bit_for_bit(gpt2, tensors, tmp_path, capsys):
    model, tokenizer = run_import(gpt2, tmp_path / "ours")
    assert capsys.readouterr().out == (
        f"{tmp_path}/ours: 1,548 parameters, 2 layers 4 wide, 2 heads, context 6, vocabulary 257, from OpenAI's GPT-2\n"
    )
    assert tokenizer == BYTES
    assert not model.training
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run_export(tmp_path / "ours", tmp_path / "theirs"))
    state = theirs.state_dict()
    for name, array in tensors.items():
        key = transformers_name(name)
        assert np.array_equal(state[key].numpy(), array.reshape(state[key].shape)), name
    for ours, released in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        assert (tmp_path / "theirs" / ours).read_bytes() == (gpt2 / released).read_bytes()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")("it's é")["input_ids"] == (
        BYTES.encode("it's é").tolist()
    )


def test_gpt1_from_openai_through_us_to_transformers_bit_for_bit(gpt1, tmp_path, capsys):
    model, tokenizer = run_import(gpt1, tmp_path / "ours")
    assert "knows no end of text" in capsys.readouterr().out
    assert tokenizer == LETTERS
    assert end_of_text(model.config, tokenizer) is None
    run_export(tmp_path / "ours", tmp_path / "theirs")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    assert theirs.config.vocab_size == 28
    assert theirs.config.eos_token_id is None
    arrays, ids = gpt1_arrays()
    # Module order is creation order, so transformers' parameters come as the released tensors, embeddings swapped.
    parameters = [parameter.detach().numpy() for parameter in theirs.transformer.parameters()]
    for parameter, array in zip(parameters, [arrays[1], arrays[0], *arrays[2:]], strict=True):
        assert np.array_equal(parameter, array.reshape(parameter.shape))
    with torch.no_grad():
        expected = np.load(FIXTURES / "gpt1.npz")["logits"]
        torch.testing.assert_close(
            theirs(torch.from_numpy(ids)).logits, torch.from_numpy(expected), rtol=1e-5, atol=1e-5
        )
    content = json.loads((tmp_path / "theirs" / "tokenizer.json").read_text())
    assert len(content["model"]["vocab"]) == 28
    assert content["added_tokens"] == []
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")) == 28
    assert load_tokenizer(tmp_path / "theirs") == LETTERS


def test_without_an_end_of_text_a_model_still_writes(gpt1, tmp_path):
    model, tokenizer = run_import(gpt1, tmp_path / "ours")
    (answer,) = generate(model, [[3, 4]], max_new_tokens=4, eot_id=tokenizer.eot_id)
    assert len(answer) == 4
    assert max(answer) < 28


def test_an_end_of_text_for_gpt1(gpt1, tmp_path):
    model, tokenizer = run_import(gpt1, tmp_path / "ours", "--add-end-of-text")
    before, _ = read_gpt1(gpt1)
    assert model.config.n_vocab == 29
    assert end_of_text(model.config, tokenizer) == 28
    assert torch.equal(model.wte[:28], before.wte)
    assert 0.015 < model.wte[28].std().item() < 0.025
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[..., :28], before(tokens), rtol=1e-6, atol=1e-6)
    assert torch.equal(add_end_of_text(before, tokenizer).wte, model.wte)
    with pytest.raises(UserError, match="this model knows an end of text: id 28"):
        add_end_of_text(model, tokenizer)


def test_gpt2_needs_no_end_of_text(gpt2, tmp_path):
    with pytest.raises(UserError, match="knows an end of text: id 256"):
        run_import(gpt2, tmp_path / "ours", "--add-end-of-text")
    assert not (tmp_path / "ours").exists()


def test_what_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"holds no model.*\n.*hparams\.json.*params_shapes\.json.*config\.json"):
        run_import(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="is not a folder"):
        run_import(tmp_path / "none", tmp_path / "out")


def test_nothing_is_written_over(gpt2, tmp_path):
    with pytest.raises(UserError, match="is there already"):
        run_import(gpt2, gpt2)
    (tmp_path / "empty").mkdir()
    run_import(gpt2, tmp_path / "empty")
    with pytest.raises(UserError, match="is there already"):
        run_export(tmp_path / "empty", tmp_path / "empty")


def test_an_import_is_held_to_what_was_written(gpt2, tmp_path):
    run_import(gpt2, tmp_path / "ours")
    about = checkpoint.read_about(tmp_path / "ours")
    assert (about["made_by"], about["source"]) == ("import", "OpenAI's GPT-2")
    path = tmp_path / "ours" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"model\.safetensors has changed"):
        load_model(tmp_path / "ours")


# ------------------------------------------------------------------------------------------------------- export


def banded(tokenizer, *, query_bias, seed=1, **changes):
    config = {"n_ctx": 24, "n_embd": 32, "n_head": 2, "n_layer": 3, "attention": "banded", "band": 4} | changes
    model = GPT(GPTConfig(tokenizer.n_vocab, **config)).initialise(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
            if name.endswith("c_attn.bias") and not query_bias:
                p[: model.config.d_inner] = 0
    return model


@pytest.mark.parametrize("query_bias", [False, True])
@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_a_banded_model_is_the_same_in_gpt_neo(tokenizer, tmp_path, query_bias, n_layer):
    model = banded(tokenizer, query_bias=query_bias, n_layer=n_layer)
    save_model(tmp_path, model, tokenizer)
    out = run_export(tmp_path, tmp_path / "theirs")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert theirs.config.model_type == "gpt_neo"
    assert theirs.config.attention_layers == ["global", "local", "global"][:n_layer]
    tokens = torch.randint(0, tokenizer.n_vocab, (4, 24), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(tokens)
        logits = theirs(tokens).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    back, _ = load_model(out)
    with torch.no_grad():
        torch.testing.assert_close(back(tokens), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_a_query_bias_that_no_input_makes_is_refused(tokenizer, tmp_path):
    model = banded(tokenizer, query_bias=True)
    with torch.no_grad():
        model.h["1"].attn.c_attn.weight[:, :16] = 0  # a head whose queries are its bias alone
        model.h["1"].attn.c_attn.bias[3] = 2.5
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(UserError, match=r"no bias on queries\. The largest here is 2\.5 \(h\.1\.attn\.c_attn\.bias\)"):
        run_export(tmp_path, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    assert run_export(tmp_path, tmp_path / "ours", "--format", "safetensors")


def test_folding_is_judged_by_what_it_adds_to_rounding(tokenizer):
    model = banded(tokenizer, query_bias=True)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        check_foldable(model, dtype)
    with torch.no_grad():  # nearly singular: δ is thousands, and bfloat16 keeps three digits of it
        model.h["0"].attn.c_attn.weight[:, 0] = model.h["0"].attn.c_attn.weight[:, 1] * (1 + 1e-3)
        model.h["0"].attn.c_attn.bias[0] = 1.0
    with pytest.raises(UserError, match="no bias on queries"):
        check_foldable(model, torch.bfloat16)


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"d_head": 8}, "2 heads that are 16 wide together, in a model 32 wide"),
        ({"d_head": 24, "attention": "dense"}, "2 heads that are 48 wide together"),
        ({"norm": "post"}, "banded attention with LayerNorm behind the sums"),
    ],
)
def test_what_no_type_of_transformers_has(changes, lost):
    config = GPTConfig(
        **{"n_vocab": 300, "n_ctx": 24, "n_embd": 32, "n_head": 2, "n_layer": 3, "attention": "banded"} | changes
    )
    with pytest.raises(UserError, match=lost):
        huggingface_type(config)


@pytest.mark.parametrize("changes", [{}, {"attention": "dense", "band": 256}, {"d_head": 8}, {"norm": "post"}])
def test_our_own_tensors_hold_every_model(tokenizer, tmp_path, changes):
    model = banded(tokenizer, query_bias=True, **changes)
    save_model(tmp_path, model, tokenizer)
    out = run_export(tmp_path, tmp_path / "ours", "--format", "safetensors", "--max-shard-bytes", "20_000")
    names = set()
    for path in out.glob("*.safetensors"):
        names |= load_file(path).keys()
    assert names == model.state_dict().keys()
    loaded, its_tokenizer = load_model(out)
    assert loaded.config == model.config
    assert its_tokenizer.sha256() == tokenizer.sha256()
    for (name, a), (_, b) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_exports_in_half_precision(tokenizer, tmp_path, dtype):
    model = banded(tokenizer, query_bias=False, attention="dense")
    save_model(tmp_path, model, tokenizer)
    out = run_export(tmp_path, tmp_path / "theirs", "--dtype", dtype, "--max-shard-bytes", "5e4")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert theirs.dtype == getattr(torch, dtype)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    loaded, _ = load_model(out)
    for (name, a), b in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b.to(getattr(torch, dtype)).float()), name


def test_what_float16_cannot_hold(tokenizer, tmp_path):
    model = banded(tokenizer, query_bias=False)
    with torch.no_grad():
        model.h["0"].mlp.c_fc.bias[0] = 1e5
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(UserError, match=r"c_fc\.bias has values up to 1e\+05, but float16 ends at 6\.55e\+04"):
        run_export(tmp_path, tmp_path / "theirs", "--dtype", "float16")


def test_a_size_of_files_that_is_none(tmp_path):
    with pytest.raises(UserError, match="--max-shard-bytes is 0"):
        run_export(tmp_path, tmp_path / "theirs", "--max-shard-bytes", "0")


def test_exporting_what_is_no_model(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint yet"):
        run_export(tmp_path, tmp_path / "out")


# ------------------------------------------------------------------------------------------ released vocabularies


@pytest.mark.parametrize(
    ("name", "encoder", "merges", "read", "text", "ids"),
    [
        ("gpt2", "encoder.json", "vocab.bpe", gpt2_tokenizer, "naïve café", "2616 38776 40304"),
        ("gpt1", "encoder_bpe_40000.json", "vocab_40000.bpe", gpt1_tokenizer, "I don't know.", "249 587 538 699 239"),
    ],
)
def test_released_vocabularies_there_and_back_byte_for_byte(
    shared_data, tmp_path, name, encoder, merges, read, text, ids
):
    folder = shared_data / "tokenizers" / name
    tokenizer = read(folder / encoder, folder / merges)
    sizes = {"norm": "post", "n_vocab": 40_478} if name == "gpt1" else {"n_vocab": 50_257}
    model = GPT(GPTConfig(n_ctx=4, n_embd=4, n_head=2, n_layer=1, **sizes)).initialise(0)
    save_model(tmp_path, model, tokenizer)
    write_vocabulary(tmp_path)
    assert (tmp_path / "vocab.json").read_bytes() == (folder / encoder).read_bytes()
    assert (tmp_path / "merges.txt").read_bytes() == (folder / merges).read_bytes()
    (tmp_path / "tokenizer.json").unlink()
    _, again = load_model(tmp_path)
    assert again.sha256() == tokenizer.sha256()
    assert again.encode(text).tolist() == [int(id) for id in ids.split()]
