"""How unsure a reward model is of a score, from its last layer alone: a normal posterior of the head's weights.

Flow     states of the pairs it was trained on → `fit` → LastLayer → `std` of scores, `draws` of heads
         LastLayer ↔ uncertainty.safetensors beside the model

    w | pairs ~ N(ŵ, Σ),   Σ⁻¹ = λ I + Σ_pairs p (1 − p) gain² Δx Δxᵀ,   p = σ(gain · ŵ · Δx),   λ = n_embd + 1

λ is the precision that the head is drawn with. Only differences of scores have been seen: a score's deviation is that
of its difference to the mean state of the pairs.
Source   MacKay 1992, "The evidence framework applied to classification networks"; Daxberger 2021 (last layer).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rein.models.gpt import normal
from rein.models.scalar import Scalar

FILE = "uncertainty.safetensors"


@dataclass(frozen=True)
class LastLayer:
    """Σ = factor factorᵀ, and the mean state that differences are taken from."""

    mean_D: Tensor
    factor_DD: Tensor

    def std(self, net: Scalar, x_ND: Tensor) -> Tensor:
        """The standard deviation of each state's score: (N,)."""
        std_N: Tensor = net.gain.cpu() * ((x_ND.cpu() - self.mean_D) @ self.factor_DD).norm(dim=1)
        return std_N

    def draws(self, net: Scalar, x_ND: Tensor, members: int, *, seed: int = 0) -> Tensor:
        """Scores by heads that are drawn from the posterior: (members, N)."""
        z_MD = normal((members, len(self.mean_D)), 1.0, key=f"{seed}/last layer")
        moved_MN = (z_MD @ self.factor_DD.T) @ (x_ND.cpu() - self.mean_D).T
        scores_N: Tensor = net(x_ND.to(net.weight.device)).detach().cpu()
        return scores_N + net.gain.cpu() * moved_MN


@torch.no_grad()
def fit(net: Scalar, better_PD: Tensor, worse_PD: Tensor) -> LastLayer:
    """The posterior after pairs, from the states that their scores are read from.

    Example  >>> from rein.models.gpt import GPT, GPTConfig
             >>> net = Scalar(GPT(GPTConfig(n_vocab=2, n_ctx=2, n_embd=2, n_head=1, n_layer=1)))
             >>> seen = fit(net, torch.tensor([[4.0, 0.0]] * 9), torch.zeros(9, 2))
             >>> seen.std(net, seen.mean_D + torch.eye(2))  # 1/√(3 + 9 · 4), 1/√3
             tensor([0.1601, 0.5774])
    """
    delta_PD = (better_PD - worse_PD).double().cpu()
    gain, weight_D = float(net.gain), net.weight.detach().double().cpu()
    p_P = torch.sigmoid(gain * (delta_PD @ weight_D))
    bend_PD = delta_PD * (p_P * (1 - p_P)).sqrt()[:, None] * gain
    D = delta_PD.shape[1]
    precision_DD = (D + 1) * torch.eye(D, dtype=torch.float64) + bend_PD.T @ bend_PD
    # Σ = L⁻ᵀ L⁻¹ where the precision is L Lᵀ.
    factor_DD = torch.linalg.solve_triangular(
        torch.linalg.cholesky(precision_DD).T, torch.eye(D, dtype=torch.float64), upper=True
    )
    mean_D = torch.cat([better_PD, worse_PD]).double().mean(0).cpu()
    return LastLayer(mean_D.float(), factor_DD.float())


def save(folder: Path, layer: LastLayer) -> None:
    """Writes it beside a model."""
    save_file({"mean": layer.mean_D.contiguous(), "factor": layer.factor_DD.contiguous()}, folder / FILE)


def load(folder: Path) -> LastLayer | None:
    """What lies beside a model; None where nothing does."""
    if not (folder / FILE).exists():
        return None
    tensors = load_file(folder / FILE)
    return LastLayer(tensors["mean"], tensors["factor"])
