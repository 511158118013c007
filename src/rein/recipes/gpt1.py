"""GPT-1's pre-training, as the paper and its released code have it, on a corpus of your own.

    python -m rein.recipes.gpt1 CORPUS OUT

The corpus should be long contiguous text (the paper's was over 7,000 unpublished books), built with GPT-1's own
tokenizer: `rein bpe train FILES --kind gpt1 --n-vocab 40479 --out gpt1.json`, then
`rein text build FILES --tokenizer gpt1.json`. Source: Radford 2018 §4.1; openai/finetune-transformer-lm, opt.py.
"""

import sys
from pathlib import Path

from rein.text.shards import Shards
from rein.train.pretrain import PretrainConfig, pretrain

SEQUENCES, CONTEXT, EPOCHS, WARMUP_UPDATES = 64, 512, 100, 2000


def gpt1(data: Path, out: Path) -> PretrainConfig:
    """117 million parameters, 64 sequences of 512 tokens, 100 epochs, rate 2.5e-4 by cosine to 0."""
    return PretrainConfig(
        data=data,
        out=out,
        preset="gpt1",
        train_tokens=EPOCHS * Shards(data, "train").n_tokens,
        sequences_per_batch=SEQUENCES,
        optimizer="gpt1",
        schedule="gpt1",
        learning_rate=2.5e-4,
        warmup_tokens=WARMUP_UPDATES * SEQUENCES * CONTEXT,
        adam_b2=0.999,
        weight_decay=0.01,
    )


if __name__ == "__main__":
    pretrain(gpt1(Path(sys.argv[1]), Path(sys.argv[2])))
