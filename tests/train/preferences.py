"""Small judgements of a rule that one word decides, and a model to learn it: for tests of DPO and its kin."""

import json
import random

from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model

NOUNS = ["cat", "dog", "car", "tree", "house", "river", "stone", "bird", "lamp", "road"]


def text(rng, mark):
    """Three words; the second one is what is liked or not."""
    first, last = rng.sample(NOUNS, 2)
    return f"{first} {mark} {last}"


def pairs(n, seed=0):
    """TRL's rows, of n prompts: the chosen text says good, the other one bad."""
    rng = random.Random(seed)
    return [
        {"prompt": f"say {i} {rng.choice(NOUNS)}:", "chosen": text(rng, "good"), "rejected": text(rng, "bad")}
        for i in range(n)
    ]


def ranked(n, seed=0):
    """Ranked groups, of n prompts: good over fine over bad, and now and then two that tie."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        outputs = [text(rng, mark) for mark in ("good", "fine", "bad", "bad")]
        ranks, row = [1, 2, 3, 3], list(range(4))
        rng.shuffle(row)
        rows.append({
            "group_id": f"g{i}", "prompt": f"say {i} {rng.choice(NOUNS)}:", "outputs": [outputs[k] for k in row],
            "ranks": [ranks[k] for k in row], "labeler": rng.choice("ab"),
        })  # fmt: skip
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def policy(folder, tokenizer, **changes):
    config = GPTConfig(**{"n_vocab": tokenizer.n_vocab, "n_ctx": 64, "n_embd": 16, "n_head": 2, "n_layer": 1} | changes)
    folder.mkdir(exist_ok=True)
    save_model(folder, GPT(config).initialise(0), tokenizer)
    return folder


def good(context, text):
    """A gold score: how often a text says good rather than bad."""
    return float(text.count("good") - text.count("bad"))


def vowels(context, text):
    """A gold score that a policy of random weights can climb: the share of letters e."""
    return text.count("e") / max(1, len(text))


def constant(context, text):
    """What tells no response from another."""
    return 0.25


def broken(context, text):
    """What a reward must not say."""
    return float("nan")


def prompts(n, heldout=4):
    """Rows of n prompts, the last of them held out."""
    return [{"prompt": f"say {i}:", "split": "train" if i < n - heldout else "valid", "id": f"p{i}"} for i in range(n)]
