"""A supervised model, a reward model, prompts and scores, as small as will do: for tests of PPO."""

import json

from rein import checkpoint
from rein.config import replace
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.models.scalar import about_scalar, save_scalar, scalar_from
from rein.run import read_rows
from rein.train.between import Position
from rein.train.ppo import ppo
from rein.train.ppo_config import PPOConfig, known
from rein.train.ppo_parts import assemble


def vowels(context, text):
    """An eighth for each."""
    return sum(c in "aeiou" for c in text) / 8


def brief(context, text):
    """The shorter, the better."""
    return -len(text) / 10


def flat(context, text):
    """All are alike."""
    return 1.0


def place(tokenizer, folder):
    """Fills a folder: sft, reward, prompts.jsonl."""
    shape = GPTConfig(tokenizer.n_vocab, 40, 16, 2, 1)
    (folder / "sft").mkdir()
    save_model(folder / "sft", GPT(shape).initialise(0), tokenizer)
    save_reward(folder / "reward", tokenizer)
    rows = [{"prompt": f"say {n}{' words' * (n % 3)}", "reference": "a word", "split": "train" if n < 20 else "valid"}
            for n in range(28)]  # fmt: skip
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def save_reward(folder, tokenizer, *, seed=1, **config):
    """A reward model with random weights, and what its rein.json says of how it was trained."""
    net = scalar_from(GPT(GPTConfig(tokenizer.n_vocab, 40, 16, 2, 1)).initialise(0), seed)
    about = {"format": "rein-checkpoint-1", "made_by": "reward", "scalar": about_scalar(net), "config": config}
    checkpoint.save(folder, lambda part: save_scalar(part, net, tokenizer), about)


def settings(place, run, /, **changes):
    """Four batches of eight episodes, in float32."""
    plain = {
        "policy": place / "sft", "reward": "ppo_cases:vowels", "prompts": place / "prompts.jsonl",
        "out": place / "runs" / run, "format": "plain", "query_tokens": 24, "response_tokens": 8, "episodes": 32,
        "episodes_per_batch": 8, "learning_rate": 1e-3, "precision": "fp32", "heldout_prompts": 4, "show_samples": 2,
        "checkpoint_every_s": 1e9,
    }  # fmt: skip
    config = PPOConfig(**plain | changes)
    shared = config.settled().value == "shared"
    return config if shared or config.value_learning_rate else replace(config, value_learning_rate=1e-3)


def parts_of(config):
    """What `ppo` begins with."""
    config = config.settled()
    parts = assemble(config)
    return config, parts, Position(kl_coef=known(config.kl_coef), inputs=parts.inputs)


def graph(actors):
    """The gradients, which are taken away."""
    found = {name: p.grad.clone() for name, p in actors.named_parameters() if p.grad is not None}
    for _, p in actors.named_parameters():
        p.grad = None
    return found


def trace(place, out):
    """[score, KL, policy loss, value loss] of 12 batches of 4 updates."""
    ppo(settings(place, "traced", out=out, episodes=96, preset="stiennon2020"))
    names = ("score_mean", "kl_nats", "policy_loss", "value_loss")
    return [[row[name] for name in names] for row in read_rows(out / "metrics.jsonl") if "score_mean" in row]
