"""Fine-tuned models on disk and at work: folders that hold a model and its head, and their predictions.

    config.json model.safetensors tokenizer.json …    a model folder, its vocabulary three tokens larger
    head.safetensors                                  W_y and its bias
    rein.json                                         the task, its labels in the order of the outputs, and more

Flow     folder, Examples → token sequences → outputs (N, K) → rows with what is predicted and how sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.config import from_dict
from rein.errors import UserError
from rein.models.gpt import GPT
from rein.models.heads import Answer, FineTuned
from rein.models.huggingface import end_of_text, load_weights, read_config, save_model
from rein.models.inputs import N_SPECIAL, Input, collate, encode, pieces
from rein.models.machine import autocast, resolve_device, resolve_precision
from rein.text.tasks import Example

HEAD = "head.safetensors"


def pretrained(path: Path, model_class: type[GPT] = GPT, *, dropout: float | None = None) -> tuple[GPT, Tokenizer]:
    """A model to be fine-tuned, and its tokenizer. GPT-1 as released knows no end of text, and needs none here.

    Raises   UserError when `path` holds no model, no tokenizer, or two that do not belong together.
    """
    folder = checkpoint.chosen(path)
    if (folder / "rein.json").exists():
        checkpoint.verify(folder)
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    end_of_text(config, tokenizer)
    model = model_class(config if dropout is None else replace(config, dropout=dropout))
    load_weights(model, folder)
    return model, tokenizer


def save(folder: Path, net: FineTuned, tokenizer: Tokenizer) -> None:
    """Writes the model folder and the head into `folder`; `about` belongs into its rein.json."""
    save_model(folder, net.model, tokenizer)
    save_file({name: tensor.cpu().contiguous() for name, tensor in net.head.state_dict().items()}, folder / HEAD)


def about(net: FineTuned) -> dict[str, Any]:
    """What rein.json says of a fine-tuned model, in plain JSON values."""
    return {
        "model": asdict(net.model.config),
        "answer": asdict(net.answer),
        "special_tokens": {"start": n_plain(net), "delimiter": n_plain(net) + 1, "extract": n_plain(net) + 2},
        "positions_in_softmax": net.positions_in_softmax,
    }


def load_into(net: FineTuned, folder: Path) -> None:
    """Sets the weights of `net` to those in `folder`."""
    load_weights(net.model, folder)
    net.head.load_state_dict(load_file(folder / HEAD))


def load(path: Path, model_class: type[GPT] = GPT) -> tuple[FineTuned, Tokenizer]:
    """The model of a run's best epoch, or of a folder like it, and its tokenizer.

    Raises   UserError when there is none, or it is damaged.
    """
    folder = path / checkpoint.BEST if (path / checkpoint.BEST).is_dir() else path
    if not (folder / HEAD).exists():
        raise UserError(
            f"{path} holds no fine-tuned model: it has no {checkpoint.BEST}/{HEAD}.",
            "Give the --out folder of `rein finetune`, after its first epoch.",
        )
    checkpoint.verify(folder)
    said = checkpoint.read_about(folder)
    answer = from_dict(Answer, said["answer"], f"{folder}/rein.json")
    net = FineTuned(model_class(read_config(folder)), answer, positions_in_softmax=said["positions_in_softmax"])
    load_into(net, folder)
    return net.eval(), load_tokenizer(folder)


def n_plain(net: FineTuned) -> int:
    """The vocabulary without the three tokens: the id of start."""
    return net.model.config.n_vocab - N_SPECIAL


def predict(
    folder: Path, rows: Sequence[Example], *, device: str = "auto", precision: str = "auto", tokens_at_once: int = 8192
) -> list[dict[str, Any]]:
    """What a fine-tuned model says of `rows`, which need no labels: one dict a row, as in predictions.jsonl.

    where          the row's own, file:line
    predicted      the label's name, the number of a choice, or a score
    label          what it should be, where the row has one
    probabilities  by label, or in the order of the choices; none for a score

    Raises   UserError when `folder` holds no fine-tuned model.
    """
    net, tokenizer = load(folder)
    here = resolve_device(device)
    inputs, _ = encode(rows, net.answer.task, tokenizer, n_vocab=n_plain(net), n_ctx=net.model.config.n_ctx)
    outputs_NK = outputs(net.to(here), inputs, resolve_precision(precision, here), tokens_at_once)
    return described(outputs_NK, inputs, net.answer)


@torch.no_grad()
def outputs(net: FineTuned, inputs: Sequence[Input], precision: str, tokens_at_once: int) -> Tensor:
    """The head's outputs in evaluation mode, (N, K) in the order of `inputs`; −∞ for choices that are not there."""
    net.eval()
    device = net.head.weight.device
    width = max(len(each.sequences) for each in inputs) if net.head.choice else net.head.weight.shape[1]
    outputs_NK = torch.full((len(inputs), width), -math.inf)
    for group in pieces(inputs, tokens_at_once):
        batch = collate([inputs[place] for place in group], n_vocab=n_plain(net)).to(device)
        with autocast(device, precision):
            x_STD, _ = net.model.states(batch.tokens_ST)
        outputs_BK = net.head(net.at_extract(x_STD, batch), batch.example_S).cpu()
        outputs_NK[torch.tensor(group), : outputs_BK.shape[1]] = outputs_BK
    return outputs_NK


def described(outputs_NK: Tensor, inputs: Sequence[Input], answer: Answer) -> list[dict[str, Any]]:
    """One dict for each input: see `predict`."""
    names, numeric = answer.task.labels, answer.task.numeric
    rows = []
    shares_NK = outputs_NK.double().softmax(dim=1).tolist()
    for each, predicted, shares in zip(inputs, answer.predicted(outputs_NK).tolist(), shares_NK, strict=True):
        row: dict[str, Any] = {"where": each.where}
        for key, value in (("predicted", predicted), ("label", each.label)):
            if value is not None:
                row[key] = value if numeric else names[int(value)] if names else int(value)
        if not numeric:
            row["probabilities"] = dict(zip(names, shares, strict=True)) if names else shares[: len(each.sequences)]
        rows.append(row)
    return rows
