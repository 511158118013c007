"""GPT-3's smallest model on a corpus of your own.

    python -m rein.recipes.gpt3_125m CORPUS OUT

300 billion tokens: warm-up over 375 million, cosine to a tenth over 260 billion, then constant; the batch grows
linearly from 32 thousand tokens to half a million over the first 4 billion (which size got which of the paper's
"4-12 billion" is not said). Dense and banded layers alternate. Source: Brown 2020 §2.1, Table 2.1, App. B.
"""

import sys
from pathlib import Path

from rein.train.pretrain import PretrainConfig, pretrain

CONTEXT = 2048


def gpt3_125m(data: Path, out: Path) -> PretrainConfig:
    """125 million parameters, 0.5 million tokens a batch, rate 6e-4."""
    return PretrainConfig(
        data=data,
        out=out,
        preset="gpt3-125m",
        train_tokens=300_000_000_000,
        sequences_per_batch=524_288 // CONTEXT,
        ramp_tokens=4_000_000_000,
        ramp_from_sequences=32_768 // CONTEXT,
        learning_rate=6e-4,
        warmup_tokens=375_000_000,
        decay_tokens=260_000_000_000,
    )


if __name__ == "__main__":
    pretrain(gpt3_125m(Path(sys.argv[1]), Path(sys.argv[2])))
