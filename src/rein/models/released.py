"""OpenAI's released models, read without the programs that wrote them.

    GPT-1   params_shapes.json  params_0.npy … params_9.npy                      encoder_bpe_40000.json  vocab_40000.bpe
    GPT-2   hparams.json  checkpoint  model.ckpt.index  model.ckpt.data-…        encoder.json  vocab.bpe

GPT-1 is one long vector of float32 in ten pieces, and a list of shapes: positions, vocabulary, then twelve tensors a
block. GPT-2 is a TensorFlow checkpoint, a "tensor bundle": an index that is a sorted table of LevelDB's kind, whose
values are BundleEntryProto messages (type, shape, place, checksum), and the tensors' bytes in another file. Every
shape is held against the others, and every checksum is checked. Nothing is unpickled.

Flow     folder → read_gpt1 or read_gpt2 → GPT, Tokenizer.
Source   openai/finetune-transformer-lm, train.py; openai/gpt-2, src/model.py; TensorFlow, tensor_bundle.proto and
         lib/io/table; LevelDB, doc/table_format.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch

from rein.bpe import byte_level, gpt1
from rein.bpe.tokenizer import Tokenizer
from rein.compiled import compiled
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig

Floats = npt.NDArray[np.float32]

# In the order in which both programs make them, which is the order of GPT-1's vector.
_BLOCK = tuple(
    f"{layer}.{kind}"
    for layer in ("attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")
    for kind in ("weight", "bias")
)
_AGAIN = "The file may have been cut short or changed; copy or download it again."


# ----------------------------------------------------------------------------------------------------- GPT-1

_N_PIECES = 10
_HEAD_WIDTH = 64  # the files do not say how many heads there are; train.py has 12 in 768


def is_gpt1(folder: Path) -> bool:
    """Whether `folder` looks like GPT-1 as it was released."""
    return (folder / "params_shapes.json").exists()


def read_gpt1(folder: Path) -> tuple[GPT, Tokenizer]:
    """GPT-1 as OpenAI released it: the model in evaluation mode, and the tokenizer.

    The tokenizer has one id more than the model: the end of text, which GPT-1 did not have (bpe/gpt1.py).

    Raises   UserError when a file is missing or cut short, or the files do not fit each other.
    """
    path = folder / "params_shapes.json"
    shapes = _read_shapes(path)
    n_layer = (len(shapes) - 2) // len(_BLOCK)
    (n_ctx, n_embd), n_vocab = shapes[0], shapes[1][0]
    if n_embd % _HEAD_WIDTH:
        raise UserError(f"{path} is of a model {n_embd} wide, but GPT-1's heads are {_HEAD_WIDTH} wide.", _AGAIN)
    tokenizer = gpt1.from_openai(folder / "encoder_bpe_40000.json", folder / "vocab_40000.bpe")
    if tokenizer.n_vocab != n_vocab + 1:
        raise UserError(
            f"{folder} has a vocabulary of {tokenizer.n_vocab - 1:,} tokens, but {n_vocab:,} embeddings.",
            "The files belong to different models; copy or download them again.",
        )
    config = GPTConfig(
        n_vocab, n_ctx, n_embd, n_embd // _HEAD_WIDTH, n_layer, norm="post", initialisation="flat", dropout=0.1
    )
    names = ["wpe", "wte", *(f"h.{layer}.{name}" for layer in range(n_layer) for name in _BLOCK)]
    expected = _shapes_of(config)
    for number, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        if shape != expected[name]:
            raise UserError(
                f"{path} has shape {list(shape)} for tensor {number}, but it is {name} and must be "
                f"{list(expected[name])}.",
                _AGAIN,
            )
    vector = _read_pieces(folder)
    n_numbers = sum(map(math.prod, shapes))
    if len(vector) != n_numbers:
        raise UserError(
            f"{folder}/params_0.npy … params_{_N_PIECES - 1}.npy hold {len(vector):,} numbers together, but "
            f"params_shapes.json describes {n_numbers:,}.",
            _AGAIN,
        )
    tensors, start = {}, 0
    for name, shape in zip(names, shapes, strict=True):
        tensors[name] = vector[start : start + math.prod(shape)]
        start += math.prod(shape)
    return _model(config, tensors.__getitem__), tokenizer


def _read_shapes(path: Path) -> list[tuple[int, ...]]:
    try:
        shapes = [tuple(shape) for shape in json.loads(path.read_text(encoding="utf-8"))]
        whole = all(type(size) is int and size > 0 for shape in shapes for size in shape)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    except (ValueError, TypeError):
        shapes, whole = [], False
    if not whole or len(shapes) < 2 + len(_BLOCK) or [len(shape) for shape in shapes[:2]] != [2, 2]:
        raise UserError(f"{path} is not GPT-1's list of shapes.", _AGAIN)
    if (len(shapes) - 2) % len(_BLOCK):
        raise UserError(
            f"{path} lists {len(shapes)} tensors, but GPT-1 has 2 and {len(_BLOCK)} for each layer.", _AGAIN
        )
    return shapes


def _read_pieces(folder: Path) -> Floats:
    pieces = []
    for number in range(_N_PIECES):
        path = folder / f"params_{number}.npy"
        try:
            piece = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from None
        except (ValueError, EOFError) as error:
            raise UserError(f"{path} is not a whole array of numbers: {error}.", _AGAIN) from None
        if piece.dtype != np.float32 or piece.ndim != 1:
            raise UserError(
                f"{path} holds {piece.dtype} of shape {piece.shape}, but GPT-1's weights are float32 in one row.",
                _AGAIN,
            )
        pieces.append(piece)
    return np.concatenate(pieces)


# ----------------------------------------------------------------------------------------------------- GPT-2


def is_gpt2(folder: Path) -> bool:
    """Whether `folder` looks like GPT-2 as it was released."""
    return (folder / "hparams.json").exists()


def read_gpt2(folder: Path) -> tuple[GPT, Tokenizer]:
    """GPT-2 as OpenAI released it: the model in evaluation mode, and the tokenizer.

    Raises   UserError when a file is missing or cut short, a tensor's checksum is wrong, or the files do not fit each
             other.
    """
    config = _read_hparams(folder / "hparams.json")
    tokenizer = byte_level.from_openai(folder / "encoder.json", folder / "vocab.bpe")
    if tokenizer.n_vocab != config.n_vocab:
        raise UserError(
            f"{folder} has a vocabulary of {tokenizer.n_vocab:,} tokens, but hparams.json says {config.n_vocab:,}.",
            "The files belong to different models; copy or download them again.",
        )
    bundle = Bundle(_checkpoint_prefix(folder))
    names = ["wte", "wpe", "ln_f.weight", "ln_f.bias"]
    for layer in range(config.n_layer):
        names += [f"h.{layer}.{name}" for name in _BLOCK]
        missing = next((name for name in names[-len(_BLOCK) :] if variable(name) not in bundle.entries), None)
        if missing:  # said here, because a wrong n_layer may be any number
            raise UserError(
                f"{bundle.index} has no {variable(missing)}, which a GPT-2 of n_layer={config.n_layer} has.", _AGAIN
            )
    unknown = sorted(bundle.entries.keys() - set(map(variable, names)))
    if unknown:
        raise UserError(
            f"{bundle.index} has {unknown[0]}, which a GPT-2 of n_layer={config.n_layer} has not.",
            "Check that hparams.json is of the same model, and that the checkpoint holds its weights alone.",
        )
    for name, shape in _shapes_of(config).items():
        found = bundle.shape(variable(name))
        if found != shape:
            raise UserError(
                f"{bundle.index} has {variable(name)} of shape {list(found)}, but hparams.json makes it {list(shape)}.",
                "The files belong to different models; copy or download them again.",
            )
    return _model(config, lambda name: bundle.read(variable(name))), tokenizer


def variable(name: str) -> str:
    """What GPT-2's program calls one of our parameters.

    Example  >>> variable("h.11.attn.c_proj.weight"), variable("ln_f.bias"), variable("wpe")
             ('model/h11/attn/c_proj/w', 'model/ln_f/b', 'model/wpe')
    """
    path, _, kind = name.rpartition(".")
    letter = {"bias": "/b", "weight": "/g" if "ln_" in path else "/w"}.get(kind, kind)
    return "model/" + re.sub(r"^h\.", "h", path).replace(".", "/") + letter


def _read_hparams(path: Path) -> GPTConfig:
    names = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sizes = [values[name] for name in names]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} does not give all of {', '.join(names)}.", _AGAIN) from None
    for name, size in zip(names, sizes, strict=True):
        if type(size) is not int:
            raise UserError(f"{path} has {name}={size!r}, but a whole number is expected.", _AGAIN)
    return GPTConfig(*sizes)


def _checkpoint_prefix(folder: Path) -> Path:
    """Where the file `checkpoint` says the bundle is; only its name counts, so that a folder can be moved."""
    path = folder / "checkpoint"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    except ValueError:
        text = ""
    found = re.search(r'^model_checkpoint_path: *"([^"\n]+)"', text, re.MULTILINE)
    if not found:
        raise UserError(f"{path} names no checkpoint.", 'It must have a line like model_checkpoint_path: "model.ckpt".')
    return folder / PurePosixPath(found[1]).name


def _shapes_of(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter as both programs keep it: the weights of products are (1, in, out)."""
    with torch.device("meta"):
        parameters = GPT(config).named_parameters()
    is_product = re.compile(r"c_\w+\.weight$")
    return {name: (*[1] * bool(is_product.search(name)), *p.shape) for name, p in parameters}


@torch.no_grad()
def _model(config: GPTConfig, read: Callable[[str], Floats]) -> GPT:
    model = GPT(config)
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(read(name)).view(parameter.shape))
    return model.eval()


# -------------------------------------------------------------------------------------- TensorFlow checkpoints

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_FLOAT32 = 1  # DataType.DT_FLOAT


class _Damaged(Exception):
    """Bytes that are not what the format says."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor of a bundle is, and what it is (BundleEntryProto)."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset_bytes: int
    size_bytes: int
    checksum: int
    is_sliced: bool


class Bundle:
    """A TensorFlow checkpoint: `entries` from its index, and each tensor's numbers when they are asked for.

    Raises   UserError when a file is missing or cut short, is packed or big-endian, or a checksum is wrong.
    """

    def __init__(self, prefix: Path) -> None:
        self.index = prefix.with_name(prefix.name + ".index")
        try:
            data = self.index.read_bytes()
            messages = dict(_table(data, self.index))
            self._n_shards, big_endian = _header(messages.pop(b""))
            self.entries = {key.decode(): _entry(message) for key, message in messages.items()}
        except OSError as error:
            raise UserError(f"{self.index} cannot be read: {error.strerror}.", "Check the path.") from None
        except (_Damaged, KeyError, UnicodeDecodeError) as error:
            why = str(error) if isinstance(error, _Damaged) else "its names or its header are missing"
            raise UserError(f"{self.index} is no whole index of a TensorFlow checkpoint: {why}.", _AGAIN) from None
        if big_endian:
            raise UserError(f"{self.index} is of a big-endian machine.", "Write it again on another machine.")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, () where there is none of that name."""
        return self.entries[name].shape if name in self.entries else ()

    def read(self, name: str) -> Floats:
        """The numbers of a tensor, in one row."""
        entry = self.entries[name]
        path = self.index.with_name(
            f"{self.index.name.removesuffix('.index')}.data-{entry.shard:05}-of-{self._n_shards:05}"
        )
        if entry.dtype != _FLOAT32 or entry.is_sliced or entry.size_bytes != 4 * math.prod(entry.shape):
            sliced = " in slices" if entry.is_sliced else ""
            raise UserError(
                f"{self.index} has {name} as {entry.size_bytes:,} bytes of type {entry.dtype}{sliced}, but here it is "
                f"{4 * math.prod(entry.shape):,} bytes of float32 (type {_FLOAT32}) in one piece.",
                "Save the checkpoint again with its variables in float32.",
            )
        stop = entry.offset_bytes + entry.size_bytes
        try:
            if path.stat().st_size < stop:
                raise UserError(f"{path} is {path.stat().st_size:,} bytes, but {name} ends at byte {stop:,}.", _AGAIN)
            numbers = np.fromfile(path, "<f4", entry.size_bytes // 4, offset=entry.offset_bytes)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
        if masked_crc32c(numbers.view(np.uint8)) != entry.checksum:
            raise UserError(f"{path} has changed since it was written: the checksum of {name} is wrong.", _AGAIN)
        return numbers


def _table(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted table: the footer says where the index block is, and that where the others are."""
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise _Damaged("it does not end as one")
    numbers = _varints(footer[:-8])
    _, _, start, size = (next(numbers) for _ in range(4))  # the first two: a block of meta data, always empty
    for _, handle in _block(data, start, size, path):
        place = _varints(handle)
        yield from _block(data, next(place), next(place), path)


def _block(data: bytes, start: int, size: int, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block. A key is given by how much it shares with the key before it, and the rest.

    Behind the entries are the places of those that share nothing, for searching; behind the block are one byte for
    how it is packed and four for its checksum.
    """
    stop = start + size
    if stop + 5 > len(data) or size < 4:
        raise _Damaged("a block lies outside of the file")
    checksum = int.from_bytes(data[stop + 1 : stop + 5], "little")
    if masked_crc32c(np.frombuffer(data, np.uint8, size + 1, start)) != checksum:
        raise _Damaged("the checksum of a block is wrong")
    if data[stop] != 0:
        raise UserError(
            f"{path} is packed (kind {data[stop]}; 1 is Snappy), which is not read.",
            "Save it again with TensorFlow's own Saver: it packs no index.",
        )
    stop -= 4 + 4 * int.from_bytes(data[stop - 4 : stop], "little")
    if stop < start:
        raise _Damaged("a block is shorter than its own table")
    key, at = b"", start
    while at < stop:
        shared, at = _varint(data, at)
        n_fresh, at = _varint(data, at)
        n_value, at = _varint(data, at)
        if shared > len(key) or at + n_fresh + n_value > stop:
            raise _Damaged("an entry reaches out of its block")
        key = key[:shared] + data[at : at + n_fresh]
        at += n_fresh + n_value
        yield key, data[at - n_value : at]


def _header(message: bytes) -> tuple[int, bool]:
    """Number of data files, and whether they are big-endian (BundleHeaderProto)."""
    fields = dict(_fields(message))
    return _number(fields.get(1, 0)), _number(fields.get(2, 0)) != 0


def _entry(message: bytes) -> Entry:
    """BundleEntryProto: 1 type, 2 shape, 3 file, 4 offset, 5 size, 6 checksum, 7 slices."""
    fields = dict(_fields(message))
    shape = []
    for field, dimension in _fields(_bytes(fields.get(2, b""))):
        if field == 2:
            shape.append(_number(dict(_fields(_bytes(dimension))).get(1, 0)))
    numbers = [_number(fields.get(field, 0)) for field in (1, 3, 4, 5, 6)]
    dtype, shard, offset_bytes, size_bytes, checksum = numbers
    return Entry(dtype, tuple(shape), shard, offset_bytes, size_bytes, checksum, is_sliced=7 in fields)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number, and a number or bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value = message[at : at + size]
            if len(value) < size:
                raise _Damaged("a message is cut short")
            at += size
            if kind != 2:
                value = int.from_bytes(value, "little")
        else:
            raise _Damaged("a message has a field of an unknown kind")
        yield tag >> 3, value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise _Damaged("a message has bytes for a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _Damaged("a message has a number for bytes")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Damaged("a number does not end")


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while True:
        value, at = _varint(data, at)
        yield value


# ------------------------------------------------------------------------------------------------- checksums


def masked_crc32c(data_N: npt.NDArray[np.uint8]) -> int:
    """CRC-32C as LevelDB and TensorFlow store it: turned by 15 bits, plus a constant.

    Shapes   data_N (N,) bytes; returns a number below 2³².
    Example  >>> check = masked_crc32c(np.frombuffer(b"123456789", np.uint8)) - 0xA282EAD8 & 0xFFFFFFFF
             >>> hex((check << 15 | check >> 17) & 0xFFFFFFFF)    # the check value of RFC 3720
             '0xe3069283'
    Source   LevelDB, util/crc32c.h.
    """
    crc = int(_crc32c(data_N, _TABLES)) ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _tables() -> npt.NDArray[np.uint32]:
    """(8, 256): the remainder of each byte with 0 … 7 zero bytes behind it, for the reversed Castagnoli polynomial."""
    table: npt.NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ (table & np.uint32(1)) * np.uint32(0x82F63B78)
    tables = [table]
    for _ in range(7):
        tables.append((tables[-1] >> 8) ^ table[tables[-1] & 255])
    return np.stack(tables)


_TABLES = _tables()


@compiled()
def _crc32c(data_N: npt.NDArray[np.uint8], tables: npt.NDArray[np.uint32]) -> np.uint32:
    """The remainder of the bytes, before its last bits are turned; eight bytes at a time."""
    crc, low = np.uint32(0xFFFFFFFF), np.uint32(255)
    whole = len(data_N) // 8 * 8
    for i in range(0, whole, 8):
        a, b, c, d = crc & low, crc >> np.uint32(8) & low, crc >> np.uint32(16) & low, crc >> np.uint32(24)
        crc = tables[7, a ^ data_N[i]] ^ tables[6, b ^ data_N[i + 1]] ^ tables[5, c ^ data_N[i + 2]]
        crc ^= tables[4, d ^ data_N[i + 3]] ^ tables[3, data_N[i + 4]] ^ tables[2, data_N[i + 5]]
        crc ^= tables[1, data_N[i + 6]] ^ tables[0, data_N[i + 7]]
    for i in range(whole, len(data_N)):
        crc = tables[0, (crc ^ data_N[i]) & low] ^ (crc >> np.uint32(8))
    return crc
