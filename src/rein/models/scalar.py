"""A GPT with one number on top: a reward model's score of a response, a value network's guess at each token.

Flow     Rows (rows.py) → GPT.states → `scores` at each response's last token, or `values` before each of its tokens
         a folder ↔ Scalar, Tokenizer; completions → `score_all` → one number each

    score = gain · (w · x + b) + bias       x the last hidden state

w is drawn from N(0, 1 / (n_embd + 1)), b begins at 0 (Stiennon 2020, App. B.1). `gain` and `bias` are what Ziegler's
code calls by these names: a reward model's scale is brought to where it should be by them, without touching a weight.

On disk it is a folder that transformers loads as GPT2ForSequenceClassification with one label: the trunk,
`score.weight`, and in `rein.json` what that class has no place for: b, gain and bias. Its logit is w · x. No padding
token is declared: that class looks for the last token that is not padding, and where padding is the end of text it
would read the score before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.errors import UserError
from rein.models.gpt import GPT, normal
from rein.models.huggingface import Weights, end_of_text, read_config, save_model
from rein.models.machine import autocast
from rein.models.rows import Completion, Rows, batches, lay_out, states

BEST = "best"  # of a run folder: the reward model that was chosen
MEMBERS = "members"  # of a run folder: those of an ensemble

_HEAD = "score.weight"
_INDEX = "model.safetensors.index.json"
_CLASS = "ForSequenceClassification"


class Scalar(nn.Module):
    """A GPT and its head."""

    gain: Tensor
    bias: Tensor

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.weight = nn.Parameter(torch.zeros(model.config.n_embd))
        self.b = nn.Parameter(torch.zeros(()))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    @torch.no_grad()
    def initialise(self, seed: int) -> Scalar:
        """The head of a new reward model; the trunk stays as it is.

        Source   Stiennon 2020, App. B.1: standard deviation 1 / √(n_embd + 1).
        """
        n_embd = self.model.config.n_embd
        self.weight.copy_(normal((n_embd,), 1 / math.sqrt(n_embd + 1), key=f"{seed}/scalar head"))
        self.b.zero_()
        self.gain.fill_(1.0)
        self.bias.fill_(0.0)
        return self

    def forward(self, x_ND: Tensor) -> Tensor:
        """The number at each state: (N,), in the head's precision whatever the trunk's."""
        with torch.autocast(x_ND.device.type, enabled=False):
            return self.gain * (x_ND.to(self.weight.dtype) @ self.weight + self.b) + self.bias

    def scores(self, rows: Rows) -> Tensor:
        """One number for each response, read at its last token: (N,).

        Nothing behind that token, and no padding, can change it.
        """
        x_ND, _ = states(self.model, rows)
        return self(x_ND[rows.last_N])  # type: ignore[no-any-return]

    @torch.no_grad()
    def normalise(self, scores_N: Tensor, *, spread: bool = False) -> None:
        """Moves gain and bias so that what scored `scores_N` has mean 0, and with `spread` standard deviation 1.

        No preference changes: σ(gain · (s_i − s_j)) is on the same side of ½, and without `spread` the same.

        Shapes   scores_N (N,), by this head as it is now.
        Raises   UserError where they are not finite, or with `spread` all alike.
        Source   Stiennon 2020, App. B.1 (mean); Ziegler 2019, section 2.1 (both).
        """
        scores_N = scores_N.double()
        mean, std = scores_N.mean(), scores_N.std(correction=0)
        if not torch.isfinite(scores_N).all():
            place = int((~torch.isfinite(scores_N)).nonzero()[0])
            raise UserError(
                f"The score of text {place + 1} of the {len(scores_N):,} to normalise on is {scores_N[place].item()}.",
                "Train again with a lower --learning-rates, or --precision fp32.",
            )
        if spread and not std > 1e-8 * max(1.0, abs(float(mean))):
            raise UserError(
                f"All {len(scores_N):,} texts to normalise on have the score {mean.item():g}: there is no spread.",
                "Give other texts with --references, or --normalise none.",
            )
        scale = 1 / std if spread else torch.ones_like(mean)
        bias = (self.bias.double() - mean) * scale
        self.gain.copy_(self.gain.double() * scale)
        self.bias.copy_(bias)


def scalar_from(policy: GPT, seed: int) -> Scalar:
    """A new reward model or value network on the trunk of a policy, which it takes over as it is."""
    return Scalar(policy).to(policy.wte.device).initialise(seed)


# --------------------------------------------------------------------------------------------------------- at work


@torch.no_grad()
def last_states(
    net: Scalar, completions: Sequence[Completion], *, precision: str = "fp32", tokens_at_once: int = 8192
) -> Tensor:
    """The state that each completion's score is read from: (N, D) in float32 on the CPU, in their order."""
    device, D = net.weight.device, net.model.config.n_embd
    found_ND = torch.empty(len(completions), D)
    training = net.training
    net.eval()
    for places in batches([len(each) for each in completions], tokens_at_once):
        rows = lay_out([completions[place] for place in places]).to(device)
        with autocast(device, precision):
            x_ND, _ = states(net.model, rows)
        found_ND[torch.tensor(places)] = x_ND[rows.last_N].float().cpu()
    net.train(training)
    return found_ND


@torch.no_grad()
def score_all(
    net: Scalar, completions: Sequence[Completion], *, precision: str = "fp32", tokens_at_once: int = 8192
) -> Tensor:
    """The score of each completion, (N,) in float32 on the CPU, in their order, in groups of like length."""
    x_ND = last_states(net, completions, precision=precision, tokens_at_once=tokens_at_once)
    return net(x_ND.to(net.weight)).float().cpu()  # type: ignore[no-any-return]


def combined(
    scores_MN: Tensor, combine: Literal["mean", "worst", "uncertain"], *, uncertainty_coef: float = 0.1
) -> Tensor:
    """Scores of an ensemble, reward models of several seeds, as one.

        mean           Σ_m s_m / M
        worst          min_m s_m
        uncertain      Σ_m s_m / M − uncertainty_coef · Σ_m (s_m − mean)² / M

    Shapes   scores_MN member, response; returns (N,).
    Example  >>> scores_MN = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
             >>> [combined(scores_MN, how, uncertainty_coef=0.5).tolist() for how in ("mean", "worst", "uncertain")]
             [[2.0, 0.0], [1.0, 0.0], [1.5, 0.0]]
    Source   Coste 2023, "Reward model ensembles help mitigate overoptimization": mean, WCO and UWO, with λ 0.5 for
             best of N and 0.1 for PPO.
    """
    if combine == "worst":
        return scores_MN.amin(0)
    mean_N = scores_MN.mean(0)
    return mean_N if combine == "mean" else mean_N - uncertainty_coef * scores_MN.var(0, correction=0)


# --------------------------------------------------------------------------------------------------------- on disk


def save_scalar(folder: Path, net: Scalar, tokenizer: Tokenizer) -> None:
    """Writes the model folder; `about_scalar` belongs into its rein.json.

    The trunk and the head are two files with an index, which is how large models are written.
    """
    save_model(folder, net.model, tokenizer)
    trunk, head = (f"model-{n:05}-of-00002.safetensors" for n in (1, 2))
    (folder / "model.safetensors").rename(folder / trunk)
    weight_1D = net.weight.detach().float().cpu()[None].contiguous()
    save_file({_HEAD: weight_1D}, folder / head, metadata={"format": "pt"})
    names = _tensor_names(folder / trunk)
    index = {
        "metadata": {"total_size": (folder / trunk).stat().st_size + weight_1D.nbytes},
        "weight_map": {**dict.fromkeys(names, trunk), _HEAD: head},
    }
    _write(folder / _INDEX, index)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "architectures" in said:
        said["architectures"] = [name.replace("LMHeadModel", _CLASS) for name in said["architectures"]]
        said |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    _write(folder / "config.json", said)
    (folder / "generation_config.json").unlink()


def about_scalar(net: Scalar, **more: Any) -> dict[str, Any]:
    """What rein.json says under "scalar": b, gain, bias, exactly, and what else is known, in plain JSON values."""
    return {"b": net.b.item(), "gain": net.gain.item(), "bias": net.bias.item(), **more}


def load_scalar(path: Path, *, device: str | torch.device = "cpu") -> tuple[Scalar, Tokenizer]:
    """A reward model or value network in evaluation mode, and its tokenizer.

    `path` is a run of `rein reward` (its best model is meant), a checkpoint, or a folder that transformers saved as
    GPT2ForSequenceClassification with one label.

    Raises   UserError where there is none, or it is damaged.
    """
    folder = reward_folder(path)
    ours = (folder / "rein.json").exists()
    if ours:
        checkpoint.verify(folder)
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    end_of_text(config, tokenizer)
    net = Scalar(GPT(config))
    load_scalar_weights(net, folder)
    return net.to(device).eval(), tokenizer


@torch.no_grad()
def load_scalar_weights(net: Scalar, folder: Path) -> None:
    """Sets trunk and head to those of a folder.

    Raises   UserError where they do not fit.
    """
    weights = Weights(folder, net.model.config)
    for name, parameter in net.model.named_parameters():
        parameter.copy_(weights(name, tuple(parameter.shape)))
    net.weight.copy_(weights(_HEAD, (1, net.model.config.n_embd))[0])
    weights.check_nothing_left()
    said = checkpoint.read_about(folder)["scalar"] if (folder / "rein.json").exists() else {}
    for name, usual in (("b", 0.0), ("gain", 1.0), ("bias", 0.0)):
        getattr(net, name).fill_(said.get(name, usual))


def load_ensemble(path: Path, *, device: str | torch.device = "cpu") -> tuple[list[Scalar], Tokenizer]:
    """The members that `rein reward --ensemble` kept, each normalised by itself; one where it kept none.

    Raises   UserError as `load_scalar`.
    """
    folders = sorted((path / MEMBERS).glob("*")) or [path]
    loaded = [load_scalar(folder, device=device) for folder in folders if not folder.name.endswith(".part")]
    return [net for net, _ in loaded], loaded[0][1]


def reward_folder(path: Path) -> Path:
    """The folder of the reward model that `path` means.

    Raises   UserError where it holds none.
    """
    folder = path / BEST if (path / BEST).is_dir() else checkpoint.latest(path)
    if not _is_scalar(folder):
        raise UserError(
            f"{path} holds no reward model: there is no {_HEAD} in {folder}.",
            "Give the --out folder of `rein reward`, or a GPT2ForSequenceClassification with one label.",
        )
    return folder


def _is_scalar(folder: Path) -> bool:
    if (folder / "rein.json").exists():
        return "scalar" in checkpoint.read_about(folder)
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return any(str(name).endswith(_CLASS) for name in said.get("architectures") or [])
    except (OSError, ValueError, AttributeError):
        return False


def _tensor_names(path: Path) -> list[str]:
    """The tensors of a safetensors file, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
