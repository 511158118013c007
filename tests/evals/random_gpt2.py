"""A GPT-2 of ours with random weights, in transformers' form."""

from pathlib import Path

import torch

from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model


def save_random_gpt2(folder: Path, tokenizer, *, n_ctx: int) -> Path:
    """Writes it into `folder`. Every weight is moved, biases too: one that is read wrong shows."""
    model = GPT(GPTConfig(tokenizer.n_vocab, n_ctx, 32, 4, 2)).initialise(0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator)
    save_model(folder, model, tokenizer)
    return folder
