"""Model folders: ours are Hugging Face's, and theirs load here.

    config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json

A dense pre-norm model is saved as model type `gpt2`, a post-norm one as `openai-gpt`; `transformers` loads both
unchanged. Banded attention, and a head width of its own, no existing type expresses without loss: such a model is
saved as `rein-gpt`, which `transformers` refuses by name instead of loading a different model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.errors import UserError, suggestion
from rein.models.gpt import GPT, GPTConfig

_GPT1_NAMES = {"wte": "tokens_embed.weight", "wpe": "positions_embed.weight"}
_GPT2_NAMES = {"wte": "wte.weight", "wpe": "wpe.weight"}
_NOT_WEIGHTS = ("lm_head.weight", ".attn.bias", ".attn.masked_bias", "position_ids")


def save_model(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Writes `model` and its tokenizer into `folder`, in float32."""
    config = model.config
    kind = model_type(config)
    names = _GPT1_NAMES if kind == "openai-gpt" else _GPT2_NAMES
    tensors = {f"transformer.{names.get(k, k)}": v.detach().contiguous().cpu() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _to_huggingface(config, kind, tokenizer.eot_id))
    eot = {"bos_token_id": tokenizer.eot_id, "eos_token_id": tokenizer.eot_id}
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **eot})
    tokenizer.save(folder / "tokenizer.json")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "bos_token": "<|endoftext|>",
            "model_max_length": config.n_ctx,
            "clean_up_tokenization_spaces": False,
        },
    )


def model_type(config: GPTConfig) -> str:
    """The Hugging Face model type that says exactly what `config` says, or "rein-gpt" where none does."""
    if config.attention == "banded" or config.d_inner != config.n_embd:
        return "rein-gpt"
    return "openai-gpt" if config.norm == "post" else "gpt2"


def _to_huggingface(config: GPTConfig, kind: str, eot_id: int) -> dict[str, Any]:
    if kind == "rein-gpt":
        lost = "its alternating banded attention" if config.attention == "banded" else "its head width"
        note = f"No model type of transformers expresses this model: {lost} would be lost. Load it with rein."
        return {"model_type": kind, "note": note, "rein": asdict(config)}
    shared = {
        "vocab_size": config.n_vocab,
        "n_positions": config.n_ctx,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if kind == "openai-gpt":
        return {"model_type": kind, "architectures": ["OpenAIGPTLMHeadModel"], "afn": "gelu", **shared}
    return {"model_type": kind, "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", **shared}


def load_model(path: Path, *, device: str = "cpu") -> tuple[GPT, Tokenizer]:
    """A model in evaluation mode and its tokenizer, from a run, one of its checkpoints, or a Hugging Face folder.

    Raises   UserError when the folder is no model's, is damaged, or holds a model that this program is not.
    """
    folder = checkpoint.latest(path)
    if (folder / "rein.json").exists():
        checkpoint.verify(folder)
    model = GPT(read_config(folder))
    load_weights(model, folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.n_vocab > model.config.n_vocab:
        raise UserError(
            f"The tokenizer in {folder} has {tokenizer.n_vocab:,} ids, but the model knows {model.config.n_vocab:,}.",
            "They belong to different models, or these are GPT-1's released weights, which know no end of text.",
        )
    return model.to(device).eval(), tokenizer


def read_config(folder: Path) -> GPTConfig:
    """The model's shape, from config.json.

    Raises   UserError when there is none, or it describes a model that this program does not express.
    """
    path = folder / "config.json"
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        kind = theirs["model_type"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is not a model folder: it has no config.json.", "Check the path.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged, or describes no model.", "Check the folder.") from None
    if kind == "rein-gpt":
        return GPTConfig(**theirs["rein"])
    if kind not in ("gpt2", "openai-gpt"):
        raise UserError(f"{path} holds a model of type {kind!r}.", suggestion(kind, ["gpt2", "openai-gpt"]))
    given = {"activation_function": "gelu_new", "afn": "gelu", "layer_norm_epsilon": 1e-5, "n_inner": None} | theirs
    expected = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "afn": ("gelu",),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, 4 * theirs["n_embd"]),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "scale_attn_weights": (True, None),
        "add_cross_attention": (False, None),
    }
    for key, accepted in expected.items():
        if given.get(key) not in accepted:
            raise UserError(f"{path} has {key}={given[key]!r}, but only {accepted[0]!r} is supported.", "Use another.")
    gpt1 = kind == "openai-gpt"
    return GPTConfig(
        n_vocab=theirs["vocab_size"],
        n_ctx=theirs["n_positions"],
        n_embd=theirs["n_embd"],
        n_head=theirs["n_head"],
        n_layer=theirs["n_layer"],
        norm="post" if gpt1 else "pre",
        initialisation="flat" if gpt1 else "scaled",
        dropout=theirs.get("resid_pdrop", 0.1),
    )


@torch.no_grad()
def load_weights(model: GPT, folder: Path) -> None:
    """Copies the weights of `folder` into `model`, whatever their precision.

    Raises   UserError when a file is missing or cut short, or a tensor is missing, unknown, or of another shape.
    """
    kind = "openai-gpt" if model.config.norm == "post" else "gpt2"
    ours = {theirs: name for name, theirs in (_GPT1_NAMES if kind == "openai-gpt" else _GPT2_NAMES).items()}
    parameters = dict(model.named_parameters())
    for key, tensor in _tensors(folder):
        if key.endswith(_NOT_WEIGHTS):
            continue
        short = key.removeprefix("transformer.")
        name = ours.get(short, short)
        parameter = parameters.pop(name, None)
        if parameter is None or parameter.shape != tensor.shape:
            wanted = "no such tensor" if parameter is None else f"shape {tuple(parameter.shape)}"
            raise UserError(
                f"{folder} has {key} of shape {tuple(tensor.shape)}, but this model has {wanted}.",
                "The weights and config.json belong to different models; check the folder.",
            )
        parameter.copy_(tensor)
    if parameters:
        raise UserError(f"{folder} lacks the tensor {next(iter(parameters))}.", "Check that the folder is complete.")


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no model.safetensors.", "Check the folder; pickled weights are not read.")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - it is not a mapping
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise UserError(f"{path} is cut short or damaged ({error}).", "Use another copy of the file.") from None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
