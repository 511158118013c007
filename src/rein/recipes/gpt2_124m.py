"""GPT-2's smallest model on a corpus of your own.

    python -m rein.recipes.gpt2_124m CORPUS OUT [TOKENS]

Radford 2019 gives the model, its initialisation, the context of 1,024 and the batch of 512 sequences. The optimiser,
the rates and the number of steps were not published: those here are GPT-3 125M's (Brown 2020, App. B), which
reproductions of GPT-2 use.
"""

import sys
from pathlib import Path

from rein.train.pretrain import PretrainConfig, pretrain


def gpt2_124m(data: Path, out: Path, train_tokens: int = 10_000_000_000) -> PretrainConfig:
    """124 million parameters, 512 sequences of 1,024 tokens, rate 6e-4 by cosine to a tenth."""
    return PretrainConfig(
        data=data,
        out=out,
        preset="gpt2-124m",
        train_tokens=train_tokens,
        sequences_per_batch=512,
        learning_rate=6e-4,
        warmup_tokens=min(375_000_000, train_tokens // 20),
    )


if __name__ == "__main__":
    pretrain(gpt2_124m(Path(sys.argv[1]), Path(sys.argv[2]), *(int(float(tokens)) for tokens in sys.argv[3:4])))
