"""`rein import` and `rein export`: models that others released come in, ours go out.

Flow     OpenAI's released files, or a Hugging Face folder → GPT, Tokenizer → a model folder of ours
         a run, a checkpoint, a model folder → GPT, Tokenizer → a Hugging Face folder, or our own tensors
The formats themselves: released.py and huggingface.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rein import checkpoint
from rein.bpe.formats import TOKENIZER_JSON, UNKNOWN
from rein.bpe.tokenizer import Tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.models import released
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import (
    end_of_text,
    fold_biases,
    load_model,
    model_type,
    read_config,
    save_model,
    write_model,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


# ---------------------------------------------------------------------------------------------------- import


@dataclass(frozen=True)
class ImportConfig:
    """Settings of `rein import`."""

    source: Path = setting(
        help="folder of OpenAI's released GPT-1 or GPT-2, or of a Hugging Face model", positional=True
    )
    out: Path = setting(help="the new model folder")
    add_end_of_text: bool = setting(
        False, "give GPT-1 an embedding for the end of text, from N(0, 0.02): to train it on packed documents"
    )


def import_command(config: ImportConfig) -> None:
    """Makes a model folder that every other command takes, from a model that others released.

    Read are OpenAI's own files (GPT-1's params_*.npy, GPT-2's TensorFlow checkpoint; TensorFlow is not needed), and
    Hugging Face folders of the types gpt2, openai-gpt and gpt_neo. Nothing is downloaded, and nothing is unpickled.

    Examples
      rein import models/124M --out models/gpt2-124m
      rein import finetune-transformer-lm/model --out models/gpt1
      rein import gpt-neo-125m --out models/neo
    """
    _check_new(config.out)
    kind, read = _reader(config.source)
    model, tokenizer = read(config.source)
    if config.add_end_of_text:
        model = add_end_of_text(model, tokenizer)
    about = _about(model, tokenizer, made_by="import", source=kind)
    checkpoint.save(config.out, lambda folder: save_model(folder, model, tokenizer), about)
    print(f"{config.out}: {_described(model.config)}, from {kind}")
    if end_of_text(model.config, tokenizer) is None:
        print("It knows no end of text, as GPT-1 did not. --add-end-of-text gives it an untrained one.")


def _reader(source: Path) -> tuple[str, Callable[[Path], tuple[GPT, Tokenizer]]]:
    """What is in a folder, and the function that reads it."""
    if released.is_gpt2(source):
        return "OpenAI's GPT-2", released.read_gpt2
    if released.is_gpt1(source):
        return "OpenAI's GPT-1", released.read_gpt1
    if not source.is_dir():
        raise UserError(f"{source} is not a folder.", "Give the folder that holds the model's files.")
    if not (source / "config.json").exists():
        raise UserError(
            f"{source} holds no model that can be imported.",
            "Give a folder with hparams.json (OpenAI's GPT-2), params_shapes.json (OpenAI's GPT-1), or config.json "
            "(a Hugging Face model).",
        )
    return "a Hugging Face folder", load_model


@torch.no_grad()
def add_end_of_text(model: GPT, tokenizer: Tokenizer) -> GPT:
    """`model` with one more row in its vocabulary, from N(0, 0.02), as GPT-1 began the tokens of its fine-tuning.

    Until it is trained, the row is no good for text: its logit is near 0, which may be above those of real tokens.

    Raises   UserError when the model knows an end of text already.
    """
    if end_of_text(model.config, tokenizer) is not None:
        raise UserError(
            f"--add-end-of-text is given, but this model knows an end of text: id {tokenizer.eot_id:,}.",
            "Leave it out; it is for GPT-1 as OpenAI released it.",
        )
    row_D = torch.randn(model.config.n_embd, generator=torch.Generator().manual_seed(0)) * 0.02
    state = {**model.state_dict(), "wte": torch.cat([model.wte, row_D[None]])}
    grown = GPT(replace(model.config, n_vocab=tokenizer.n_vocab))
    grown.load_state_dict(state)
    return grown.eval()


# ---------------------------------------------------------------------------------------------------- export


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `rein export`."""

    checkpoint: Path = setting(help="a run, one of its checkpoints, or a model folder", positional=True)
    out: Path = setting(help="the new folder")
    format: Literal["huggingface", "safetensors"] = setting(
        "huggingface", "huggingface: a folder that transformers loads; safetensors: our own names, for every model"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "precision of the weights in the files")
    max_shard_bytes: int | None = setting(None, "cut the weights into files of this size; none: one file", unit="bytes")

    def __post_init__(self) -> None:
        if self.max_shard_bytes is not None and self.max_shard_bytes < 1:
            raise UserError(
                f"--max-shard-bytes is {self.max_shard_bytes}, but a file holds at least 1 byte.",
                "Use a size like 5e9, or leave it out for one file.",
            )


def export_command(config: ExportConfig) -> None:
    """Writes a model for other programs: without the training state, and with the vocabulary as two files, too.

    The Hugging Face type is gpt2, openai-gpt or, for alternating banded attention, gpt_neo; the folder needs no code
    of ours. What would not be the same model there is refused.

    Examples
      rein export runs/first --out exported
      rein export runs/first --out exported --dtype bfloat16 --max-shard-bytes 5e9
      rein export runs/first --out tensors --format safetensors
    """
    _check_new(config.out)
    kind = "rein-gpt" if config.format == "safetensors" else huggingface_type(_config_of(config.checkpoint))
    model, tokenizer = load_model(config.checkpoint)
    dtype = DTYPES[config.dtype]
    if kind == "gpt_neo":
        check_foldable(model, dtype)

    def write(folder: Path) -> None:
        write_model(
            folder,
            model.config,
            model.state_dict(),
            tokenizer,
            kind=kind,
            dtype=dtype,
            max_shard_bytes=config.max_shard_bytes,
        )
        write_vocabulary(folder)

    about = _about(model, tokenizer, made_by="export", source=config.checkpoint.name)
    checkpoint.save(config.out, write, about)
    print(f"{config.out}: {_described(model.config)}, as {kind} in {config.dtype}")


def huggingface_type(config: GPTConfig) -> str:
    """The model type of transformers that can hold a model of this shape.

    Raises   UserError that says what would be lost where there is none.
    """
    kind = model_type(config)
    if kind != "rein-gpt":
        return kind
    if config.d_inner != config.n_embd:
        lost = f"{config.n_head} heads that are {config.d_inner} wide together, in a model {config.n_embd} wide"
    elif config.norm == "post":
        lost = "banded attention with LayerNorm behind the sums"
    else:
        return "gpt_neo"
    raise UserError(f"No model type of transformers has {lost}.", _OURS)


# A class of our own would be code that whoever loads the folder has to trust.
_OURS = (
    "Use --format safetensors, which rein loads. An own class for transformers is not written: it would ask whoever "
    "loads the folder to trust the code in it."
)


@torch.no_grad()
def check_foldable(model: GPT, dtype: torch.dtype) -> None:
    """Whether a model without query biases gives this model's logits: `fold_biases`, tried on random tokens.

        max |folded − own| ≤ max(1e-5 · max |own|, 2 · max |own rounded to dtype − own|)

    Where no query has a bias nothing is tried: what is folded then is exact.

    Raises   UserError with the largest query bias and the largest difference.
    """
    config, state = model.config, model.state_dict()
    biases = {
        name: tensor[: config.d_inner].abs().max().item()
        for name, tensor in state.items()
        if name.endswith("attn.c_attn.bias")
    }
    largest = max(biases, key=biases.__getitem__)
    if biases[largest] == 0:
        return
    tokens_BT = torch.randint(config.n_vocab, (2, config.n_ctx), generator=torch.Generator().manual_seed(0))
    own_BTV = model(tokens_BT)

    def differs(weights: Mapping[str, Tensor]) -> float:
        other = GPT(config).eval()
        other.load_state_dict({name: tensor.to(dtype).float() for name, tensor in weights.items()})
        difference: Tensor = (other(tokens_BT) - own_BTV).abs().max()
        return difference.item()

    scale = own_BTV.abs().max().item()
    limit = max(1e-5 * scale, 2 * differs(state))
    found = differs(fold_biases(config, state))
    if not found <= limit:
        raise UserError(
            "GPT-Neo, the model type of transformers for alternating bands, has no bias on queries. The largest here "
            f"is {biases[largest]:.3g} ({largest}); folded into ln_1, it changes logits of {scale:.3g} by {found:.2g}.",
            _OURS,
        )


def write_vocabulary(folder: Path) -> None:
    """Writes vocab.json and merges.txt from the folder's tokenizer.json: OpenAI's encoder.json and vocab.bpe.

    For OpenAI's own vocabularies they are the released files, byte for byte.
    """
    model = json.loads((folder / TOKENIZER_JSON).read_text(encoding="utf-8"))["model"]
    ids = model["vocab"]
    if UNKNOWN in ids:  # GPT-1's file has its first id last
        ids = {token: id for token, id in ids.items() if token != UNKNOWN} | {UNKNOWN: ids[UNKNOWN]}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    merges = "".join(f"{merge}\n" for merge in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- shared


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already, and is not an empty folder.", "Choose another --out.")


def _config_of(path: Path) -> GPTConfig:
    return read_config(checkpoint.chosen(path))


def _about(model: GPT, tokenizer: Tokenizer, *, made_by: str, source: str) -> dict[str, object]:
    return {
        "format": "rein-model-1",
        "made_by": made_by,
        "source": source,
        "model": asdict(model.config),
        "tokenizer_sha256": tokenizer.sha256(),
    }


def _described(config: GPTConfig) -> str:
    return (
        f"{config.n_params():,} parameters, {config.n_layer} layers {config.n_embd} wide, {config.n_head} heads, "
        f"context {config.n_ctx:,}, vocabulary {config.n_vocab:,}"
    )
