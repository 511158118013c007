"""Model folders: ours are Hugging Face's, and theirs load here.

    config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json

    model type    models that it holds                       tensors in its files
    gpt2          pre-norm, dense                            ours, `transformer.` before the names
    openai-gpt    post-norm, dense                           ours, `transformer.` before the names
    gpt_neo       pre-norm, banded, heads n_embd wide        q, k, v apart and without biases; weights (out, in);
                                                             scores are not divided by √E, so its W_q is W_q / √E
    rein-gpt      every model                                ours

A model is saved as `gpt2` or `openai-gpt` where one of them says exactly what it is, and otherwise as `rein-gpt`,
which `transformers` refuses by name instead of loading a different model. `gpt_neo` is for export alone
(interchange.py): the same function, but not the same numbers. The scores' √E, and a band of W keys that counts the
position itself: Hugging Face's modeling_gpt_neo.py.
Flow     GPT, Tokenizer → folder → GPT, Tokenizer. Weights are read from safetensors, whole or in several files with
         an index, in float32, bfloat16 or float16; nothing is unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rein import checkpoint
from rein.bpe import byte_level, formats, gpt1
from rein.bpe.alphabet import EOT
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.errors import UserError, suggestion
from rein.models.gpt import GPT, GPTConfig

TYPES = ("gpt2", "openai-gpt", "gpt_neo", "rein-gpt")

_INDEX = "model.safetensors.index.json"
_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Buffers that older files hold beside the weights.
_NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", "position_ids")
_HEAD = "lm_head.weight"


# ------------------------------------------------------------------------------------------------------ save


def save_model(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Writes `model` and its tokenizer into `folder`, in float32, as the type that `model_type` names."""
    write_model(folder, model.config, model.state_dict(), tokenizer, kind=model_type(model.config))


def write_model(
    folder: Path,
    config: GPTConfig,
    state: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    *,
    kind: str,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int | None = None,
) -> None:
    """Writes a model folder of a type that can hold the model, from tensors by our names, in our layout.

    With `max_shard_bytes` the weights are several files, none of them larger unless a single tensor is.

    Raises   UserError when a weight is larger than `dtype` can hold, or the tokenizer is another model's.
    """
    _write_weights(folder, _file_tensors(config, state, kind), dtype, max_shard_bytes)
    eot_id = end_of_text(config, tokenizer)
    special = {} if eot_id is None else {"bos_token_id": eot_id, "eos_token_id": eot_id}
    settings = {**_to_huggingface(config, kind), **special, "dtype": str(dtype).removeprefix("torch.")}
    _write_json(folder / "config.json", settings)
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **special})
    tokenizer.save(folder / formats.TOKENIZER_JSON)
    if eot_id is None:
        _drop_end_of_text(folder / formats.TOKENIZER_JSON)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **({} if eot_id is None else {"eos_token": EOT, "bos_token": EOT}),
            "model_max_length": config.n_ctx,
            "clean_up_tokenization_spaces": False,
        },
    )


def model_type(config: GPTConfig) -> str:
    """The Hugging Face model type that says exactly what `config` says, or "rein-gpt" where none does."""
    if config.attention == "banded" or config.d_inner != config.n_embd:
        return "rein-gpt"
    return "openai-gpt" if config.norm == "post" else "gpt2"


def end_of_text(config: GPTConfig, tokenizer: Tokenizer) -> int | None:
    """The id that ends a document, or None where the model has no row for it: GPT-1 as it was released.

    Raises   UserError when the tokenizer has other ids, too, that the model does not know.
    """
    missing = tokenizer.n_vocab - config.n_vocab
    if missing <= 0:
        return tokenizer.eot_id
    if missing == 1 and tokenizer.kind == "gpt1":
        return None
    raise UserError(
        f"The tokenizer has {tokenizer.n_vocab:,} ids, but the model knows {config.n_vocab:,}.",
        "They belong to different models; check where the files come from.",
    )


def _file_tensors(config: GPTConfig, state: Mapping[str, Tensor], kind: str) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as a file of the given type has them."""
    assert kind in (model_type(config), "gpt_neo", "rein-gpt"), f"a {kind} cannot hold {config}"
    if kind == "gpt_neo":
        state = fold_biases(config, state)
    for name, tensor in state.items():
        if kind != "gpt_neo":
            yield _file_name(name, kind), tensor
        elif name.endswith("attn.c_attn.weight"):
            for part, weight_IO in zip("qkv", tensor.chunk(3, dim=1), strict=True):
                if part == "q":
                    weight_IO = (weight_IO.double() / math.sqrt(_head_width(config))).to(tensor.dtype)
                yield _file_name(name, kind, part), weight_IO.t()
        elif not name.endswith("attn.c_attn.bias"):
            yield _file_name(name, kind), tensor.t() if _is_turned(name) else tensor


def _file_name(name: str, kind: str, part: str = "") -> str:
    """The name that a file of the given type gives to our parameter, or to the q, k or v in it.

    Example  >>> _file_name("wpe", "openai-gpt"), _file_name("h.0.attn.c_attn.weight", "gpt_neo", "q")
             ('transformer.positions_embed.weight', 'transformer.h.0.attn.attention.q_proj.weight')
    """
    if kind == "rein-gpt":
        return name
    if name in ("wte", "wpe"):
        gpt1_names = {"wte": "tokens_embed", "wpe": "positions_embed"}
        name = f"{gpt1_names[name] if kind == 'openai-gpt' else name}.weight"
    if kind == "gpt_neo":
        name = name.replace("attn.c_attn", f"attn.attention.{part}_proj")
        name = name.replace("attn.c_proj", "attn.attention.out_proj")
    return f"transformer.{name}"


def _is_turned(name: str) -> bool:
    """Whether GPT-Neo has this weight as (out, in)."""
    return name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight"))


def _head_width(config: GPTConfig) -> int:
    return config.d_inner // config.n_head


@torch.no_grad()
def fold_biases(config: GPTConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function with no biases on queries, keys and values: what they did is moved into ln_1 and c_proj.

        δ W_q = b_q                          ln_1.bias   ← ln_1.bias + δ
                                             c_proj.bias ← c_proj.bias + (b_v − δ W_v) W_o

    With δ added to a layer's input, queries gain b_q. Every key gains δ W_k and every value δ W_v, the same at all
    positions: a softmax does not change with what is added to all of its scores, which is also why b_k falls away,
    and attention weights add up to 1, so what is added to all values is added to the output. Where b_q is 0, δ is 0.
    Where W_q is singular, δ may not exist and the function changes; float32 rounds in any case.

    Shapes   W_q, W_k, W_v the three (D, I) parts of c_attn.weight with I = D; W_o = c_proj.weight (I, D); δ (D,).
    """
    folded = dict(state)
    for layer in range(config.n_layer):
        attn, norm = f"h.{layer}.attn", f"h.{layer}.ln_1.bias"
        W_q, _, W_v = state[f"{attn}.c_attn.weight"].double().chunk(3, dim=1)
        b_q, _, b_v = state[f"{attn}.c_attn.bias"].double().chunk(3)
        delta_D = torch.zeros_like(b_q)
        if b_q.any():
            delta_D = torch.linalg.lstsq(W_q.t().cpu(), b_q.cpu()[:, None], driver="gelsd").solution[:, 0].to(b_q)
        bias = state[norm]
        folded[norm] = (bias.double() + delta_D).to(bias)
        delta_D = folded[norm].double() - bias.double()  # as it is stored: its rounding stays out of the values
        moved_D = (b_v - delta_D @ W_v) @ state[f"{attn}.c_proj.weight"].double()
        folded[f"{attn}.c_proj.bias"] = (state[f"{attn}.c_proj.bias"].double() + moved_D).to(bias)
        folded[f"{attn}.c_attn.bias"] = torch.zeros_like(state[f"{attn}.c_attn.bias"])
    return folded


def _write_weights(
    folder: Path, tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype, max_shard_bytes: int | None
) -> None:
    """Writes model.safetensors, or several files with an index where one would be larger than the limit."""
    written: list[list[str]] = []  # the names of the tensors in each file
    n_bytes = 0
    for shard in _shards(_converted(tensors, dtype), max_shard_bytes):
        save_file(shard, folder / f"{len(written)}.part", metadata={"format": "pt"})
        written.append(list(shard))
        n_bytes += sum(tensor.nbytes for tensor in shard.values())
    n = len(written)
    files = ["model.safetensors"] if n == 1 else [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
    for number, name in enumerate(files):  # only now is it known of how many files each is one
        (folder / f"{number}.part").rename(folder / name)
    if n > 1:
        weight_map = {key: name for name, keys in zip(files, written, strict=True) for key in keys}
        _write_json(folder / _INDEX, {"metadata": {"total_size": n_bytes}, "weight_map": weight_map})


def _converted(tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in tensors:
        stored = tensor.detach().to("cpu", dtype).contiguous()
        if not torch.isfinite(stored).all() and torch.isfinite(tensor).all():
            raise UserError(
                f"{key} has values up to {tensor.abs().max():.3g}, but {str(dtype).removeprefix('torch.')} ends at "
                f"{torch.finfo(dtype).max:.3g}.",
                "Use --dtype bfloat16 or float32.",
            )
        yield key, stored


def _shards(tensors: Iterator[tuple[str, Tensor]], max_bytes: int | None) -> Iterator[dict[str, Tensor]]:
    """Groups of tensors, in their order, of up to `max_bytes` together; a larger tensor is a group by itself."""
    shard: dict[str, Tensor] = {}
    for key, tensor in tensors:
        n_bytes = sum(other.nbytes for other in shard.values()) + tensor.nbytes
        if shard and max_bytes is not None and n_bytes > max_bytes:
            yield shard
            shard = {}
        shard[key] = tensor
    yield shard


def _to_huggingface(config: GPTConfig, kind: str) -> dict[str, Any]:
    if kind == "rein-gpt":
        note = "transformers does not know this type; load it with rein, or see `rein export --help`."
        return {"model_type": kind, "note": note, "rein": asdict(config)}
    shared = {"vocab_size": config.n_vocab, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
              "tie_word_embeddings": True}  # fmt: skip
    if kind == "gpt_neo":
        pairs, odd = divmod(config.n_layer, 2)
        types = [[["global", "local"], pairs]] * bool(pairs) + [[["global"], 1]] * odd
        return {
            "model_type": kind,
            "architectures": ["GPTNeoForCausalLM"],
            "activation_function": "gelu_new",
            "max_position_embeddings": config.n_ctx,
            "hidden_size": config.n_embd,
            "num_layers": config.n_layer,
            "num_heads": config.n_head,
            "attention_types": types,
            "window_size": config.band,
            "intermediate_size": None,
            "resid_dropout": config.dropout,
            "embed_dropout": config.dropout,
            "attention_dropout": config.dropout,
            **shared,
        }
    gpt1 = kind == "openai-gpt"
    return {
        "model_type": kind,
        "architectures": ["OpenAIGPTLMHeadModel" if gpt1 else "GPT2LMHeadModel"],
        **({"afn": "gelu"} if gpt1 else {"activation_function": "gelu_new"}),
        "n_positions": config.n_ctx,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        **shared,
    }


def _drop_end_of_text(path: Path) -> None:
    """Takes the end of text out of a tokenizer.json: its id would lie outside of the model's vocabulary."""
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["model"]["vocab"][EOT]
    formats.save({**content, "added_tokens": []}, path)


# ------------------------------------------------------------------------------------------------------ load


def load_model(path: Path, *, device: str = "cpu") -> tuple[GPT, Tokenizer]:
    """A model in evaluation mode and its tokenizer, from a run, one of its checkpoints, or a Hugging Face folder.

    Raises   UserError when the folder is no model's, is damaged, or holds a model that this program is not.
    """
    folder = checkpoint.chosen(path)
    if (folder / "rein.json").exists():
        checkpoint.verify(folder)
    model = GPT(read_config(folder))
    load_weights(model, folder)
    tokenizer = _read_tokenizer(folder)
    end_of_text(model.config, tokenizer)
    return model.to(device).eval(), tokenizer


def _read_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json, or the pair of files that older folders have instead."""
    pair = folder / "vocab.json", folder / "merges.txt"
    if (folder / formats.TOKENIZER_JSON).exists() or not all(path.exists() for path in pair):
        return load_tokenizer(folder)
    from_openai = gpt1.from_openai if _read_settings(folder)["model_type"] == "openai-gpt" else byte_level.from_openai
    return from_openai(*pair)


def _read_settings(folder: Path) -> dict[str, Any]:
    """What config.json says: an object with a model_type that we know."""
    path = folder / "config.json"
    try:
        theirs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = theirs["model_type"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is not a model folder: it has no config.json.", "Check the path.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged, or describes no model.", "Check the folder.") from None
    if kind not in TYPES:
        raise UserError(f"{path} holds a model of type {kind!r}.", suggestion(str(kind), TYPES))
    return theirs


def read_config(folder: Path) -> GPTConfig:
    """The model's shape, from config.json.

    Raises   UserError when there is none, or it describes a model that this program does not express.
    """
    theirs, path = _read_settings(folder), folder / "config.json"
    kind = theirs["model_type"]
    if kind == "rein-gpt":
        try:
            return GPTConfig(**theirs["rein"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path} describes a model that this version does not know ({error}).", "Use a newer Rein."
            ) from None
    neo = kind == "gpt_neo"
    defaults = {"activation_function": "gelu_new", "afn": "gelu", "layer_norm_epsilon": 1e-5, "window_size": 256}
    given = defaults | theirs
    names = (
        ("vocab_size", "max_position_embeddings", "hidden_size", "num_heads", "num_layers")
        if neo
        else ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer")
    )
    n_vocab, n_ctx, n_embd, n_head, n_layer = (_whole(given, name, path) for name in names)
    dropout = given.get("resid_dropout", 0.0) if neo else given.get("resid_pdrop", 0.1)
    if not isinstance(dropout, int | float):
        raise UserError(f"{path} has a dropout of {dropout!r}, but a number is expected.", "Check the folder.")
    expected = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "afn": ("gelu",),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, 4 * n_embd),
        "intermediate_size": (None, 4 * n_embd),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "scale_attn_weights": (True, None),
        "add_cross_attention": (False, None),
    }
    for key, accepted in expected.items():
        if given.get(key) not in accepted:
            raise UserError(f"{path} has {key}={given[key]!r}, but only {accepted[0]!r} is supported.", "Use another.")
    if neo:
        _check_alternating(given.get("attention_types") or [[["global", "local"], 12]], n_layer, path)
    return GPTConfig(
        n_vocab=n_vocab,
        n_ctx=n_ctx,
        n_embd=n_embd,
        n_head=n_head,
        n_layer=n_layer,
        norm="post" if kind == "openai-gpt" else "pre",
        attention="banded" if neo else "dense",
        band=_whole(given, "window_size", path),
        initialisation="flat" if kind == "openai-gpt" else "scaled",
        dropout=dropout,
    )


def _whole(settings: dict[str, Any], name: str, path: Path) -> int:
    value = settings.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UserError(f"{path} has {name}={value!r}, but a whole number is expected.", "Check the folder.")


def _check_alternating(types: Any, n_layer: int, path: Path) -> None:
    """Whether GPT-Neo's `attention_types` alternate as ours do: dense first, then the band."""
    try:
        fits = sum(len(names) * times for names, times in types) == n_layer
        layers = [name for names, times in types for name in names * times] if fits else []
    except (TypeError, ValueError):
        layers = []
    if layers != ["local" if layer % 2 else "global" for layer in range(n_layer)]:
        raise UserError(
            f"{path} has attention_types={types!r} for {n_layer} layers, but here layers alternate, global first.",
            "Only models that alternate so can be loaded, as GPT-Neo's released ones do.",
        )


@torch.no_grad()
def load_weights(model: GPT, folder: Path) -> None:
    """Copies the weights of `folder` into `model`, whatever their precision.

    Raises   UserError when a file is missing or cut short, or a tensor is missing, unknown, or of another shape, or
             the output layer is not the token embedding.
    """
    weights = Weights(folder, model.config)
    for name, parameter in model.named_parameters():
        parameter.copy_(weights(name, tuple(parameter.shape)))
    weights.check_nothing_left()


class Weights:
    """The weights of a model folder, by our names and in our layout, each read from its file when it is asked for.

    `weights(name, shape)` is one parameter of a model of the given config, in float32.

    Raises   UserError when a file is missing, cut short or pickled, or a tensor is missing or of another shape.
    """

    def __init__(self, folder: Path, config: GPTConfig) -> None:
        settings = _read_settings(folder)
        self._folder, self._config, self._kind = folder, config, settings["model_type"]
        self._says_untied = settings.get("tie_word_embeddings") is False
        self._files = {path: _open(path) for path in _weight_files(folder)}
        self._keys: dict[str, tuple[Path, str]] = {}  # name without its prefix → file and name there
        for path, file in self._files.items():
            for key in file.keys():  # noqa: SIM118 - it is not a mapping
                if not key.endswith(_NOT_WEIGHTS):
                    self._keys[key.removeprefix("transformer.")] = path, key
        self._left = set(self._keys)

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """One parameter, (`shape`)."""
        if self._kind != "gpt_neo":
            return self._read(_file_name(name, self._kind), shape).float()
        if name.endswith("attn.c_attn.bias"):
            return torch.zeros(shape)
        if name.endswith("attn.c_attn.weight"):
            D = self._config.n_embd
            q, k, v = (self._read(_file_name(name, "gpt_neo", part), (D, D)) for part in "qkv")
            q = (q.double() * math.sqrt(_head_width(self._config))).float()
            return torch.cat([q, k.float(), v.float()]).t()
        if _is_turned(name):
            return self._read(_file_name(name, "gpt_neo"), shape[::-1]).float().t()
        return self._read(_file_name(name, "gpt_neo"), shape).float()

    def check_nothing_left(self) -> None:
        """Whether the files hold no tensor that was not asked for, and an output layer only if it is the embedding.

        Raises   UserError that names the tensor.
        """
        wte = _file_name("wte", self._kind).removeprefix("transformer.")
        if _HEAD in self._left:
            self._left.remove(_HEAD)
            if not torch.equal(self._tensor(_HEAD), self._tensor(wte)):
                raise UserError(
                    f"{self._folder} has an output layer of its own: {_HEAD} is not {wte}. Here the output is tied.",
                    "A model with an untied output cannot be loaded.",
                )
        elif self._says_untied:
            raise UserError(
                f"{self._folder}/config.json has tie_word_embeddings=false, but there is no {_HEAD}.",
                "Check that the folder is complete; a model with an untied output cannot be loaded.",
            )
        for key in sorted(self._left):
            raise UserError(
                f"{self._folder} has {key} of shape {tuple(self._tensor(key).shape)}, but this model has no such "
                "tensor.",
                "The weights and config.json belong to different models; check the folder.",
            )

    def _read(self, file_name: str, shape: tuple[int, ...]) -> Tensor:
        key = file_name.removeprefix("transformer.")
        if key not in self._keys:
            raise UserError(f"{self._folder} lacks the tensor {key}.", "Check that the folder is complete.")
        tensor = self._tensor(key)
        if tensor.shape != shape:
            raise UserError(
                f"{self._folder} has {key} of shape {tuple(tensor.shape)}, but this model has shape {shape}.",
                "The weights and config.json belong to different models; check the folder.",
            )
        if tensor.dtype not in _PRECISIONS:
            raise UserError(
                f"{self._folder} has {key} in {str(tensor.dtype).removeprefix('torch.')}.",
                "Weights in float32, bfloat16 or float16 are read; quantised ones are not.",
            )
        self._left.discard(key)
        return tensor

    def _tensor(self, key: str) -> Tensor:
        path, name = self._keys[key]
        tensor: Tensor = self._files[path].get_tensor(name)
        return tensor


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that the index names."""
    whole, index = folder / "model.safetensors", folder / _INDEX
    if whole.exists():
        return [whole]
    if not index.exists():
        pickled = next(iter(sorted(folder.glob("pytorch_model*.bin"))), None)
        if pickled is None:
            raise UserError(f"{folder} has no model.safetensors.", "Check the folder.")
        raise UserError(
            f"{folder} has its weights in {pickled.name}, a pickle: to read one can run a program hidden in it.",
            "If you trust it, load it with transformers, and its save_pretrained writes model.safetensors.",
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is damaged, or no index of weights.", "Use another copy of the file.") from None
    for path in files:
        if path.parent != folder or not path.exists():
            raise UserError(f"{index} names {path.name}, which is not in {folder}.", "Copy the missing file, too.")
    return files


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{path} is cut short or damaged ({error}).", "Use another copy of the file.") from None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
