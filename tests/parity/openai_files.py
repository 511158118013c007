"""OpenAI's files of the two papers, small: GPT-2's as TensorFlow wrote it (fixtures/make.py), GPT-1's drawn anew."""

import json
from pathlib import Path

import numpy as np

from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.gpt1 import GPT1BPE
from rein.models.released import Bundle

FIXTURES = Path(__file__).parent / "fixtures"
BYTES = ByteLevelBPE(())  # 257 ids
LETTERS = GPT1BPE(
    tuple("abcdefghij"), (("a", "b"), ("c", "d</w>"), ("e", "f"), ("ab", "ef"), ("g", "h</w>"), ("i", "j"))
)  # 28 ids, and the end of text


def write_pair(folder, tokenizer, encoder, merges):
    """A vocabulary in OpenAI's two files."""
    tokenizer.save(folder / "tokenizer.json")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    if tokenizer.kind == "gpt1":
        del model["vocab"]["<|endoftext|>"]
    (folder / encoder).write_text(json.dumps(model["vocab"]))
    (folder / merges).write_text("\n".join(["#version: 0.2", *model["merges"], ""]))


def variables(folder):
    bundle = Bundle(folder / "model.ckpt")
    return {name: bundle.read(name).reshape(entry.shape) for name, entry in bundle.entries.items()}


ORDER = ("c_attn/w", "c_attn/b", "c_proj/w", "c_proj/b", "ln_1/g", "ln_1/b", "c_fc/w", "c_fc/b", "mlp/w", "mlp/b",
         "ln_2/g", "ln_2/b")  # fmt: skip


def gpt1_arrays(n_vocab=28, n_ctx=6, D=128, n_layer=2):
    """The weights of fixtures/make.py, in the order of the released file, and the ids that it draws behind them."""
    random = np.random.RandomState(0)
    wide = {"c_attn/w": (1, D, 3 * D), "c_attn/b": (3 * D,), "c_proj/w": (1, D, D), "c_fc/w": (1, D, 4 * D),
            "c_fc/b": (4 * D,), "mlp/w": (1, 4 * D, D)}  # fmt: skip
    shapes = [("wpe", (n_ctx, D)), ("wte", (n_vocab, D)), *((n, wide.get(n, (D,))) for n in ORDER * n_layer)]
    arrays = [(n.endswith("/g") + 0.3 * random.standard_normal(shape)).astype(np.float32) for n, shape in shapes]
    return arrays, random.randint(0, n_vocab, (2, n_ctx))


def write_gpt1(folder, arrays, tokenizer=LETTERS):
    folder.mkdir(exist_ok=True)
    (folder / "params_shapes.json").write_text(json.dumps([array.shape for array in arrays]))
    vector = np.concatenate([array.ravel() for array in arrays])
    for number, piece in enumerate(np.array_split(vector, 10)):
        np.save(folder / f"params_{number}.npy", piece)
    write_pair(folder, tokenizer, "encoder_bpe_40000.json", "vocab_40000.bpe")
