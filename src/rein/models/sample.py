"""`rein generate`: continues prompts from a checkpoint, printing the text as it is made."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rein.bpe.tokenizer import StreamDecoder, Tokenizer
from rein.config import setting
from rein.errors import UserError
from rein.models.generate import generate
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import resolve_device, resolve_precision


@dataclass(frozen=True)
class GenerateConfig:
    """Settings of `rein generate`."""

    checkpoint: Path = setting(help="a run, one of its checkpoints, or a Hugging Face model folder", positional=True)
    prompt: tuple[str, ...] = setting(("",), "texts to continue; - reads one from standard input")
    n: int = setting(1, "continuations of each prompt")
    max_new_tokens: int = setting(128, "longest continuation", unit="tokens")
    temperature: float = setting(0.8, "flattens (above 1) or sharpens the distribution; 0: the likeliest token")
    top_k: int | None = setting(None, "keep the k likeliest tokens", paper="40 in GPT-2's samples")
    top_p: float | None = setting(None, "keep the fewest tokens whose probabilities reach p")
    stop: tuple[str, ...] = setting((), "end a continuation before any of these strings")
    seed: int = setting(0, "another seed, another continuation")
    json: bool = setting(False, "print one JSON object a continuation, when it is whole")
    device: str = setting("auto", "cpu, cuda, cuda:1 …; auto: a GPU if there is one")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "bf16: products in bfloat16; auto: where the hardware multiplies it natively"
    )

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"--n is {self.n}, but at least 1 continuation is needed.", "Leave it out for one.")
        if self.max_new_tokens < 0:
            raise UserError(f"--max-new-tokens is {self.max_new_tokens}.", "Use a number from 0.")


def generate_command(config: GenerateConfig) -> None:
    """Continues prompts with a trained model.

    One continuation streams to the terminal as it is made; several are made together as one batch, and each is
    printed when all have ended. The same seed gives the same text, whatever else is asked for beside it.

    Examples
      rein generate runs/first --prompt "Return the number of" --temperature 0.7 --top-p 0.95
      rein generate runs/first --prompt "def " "class " --n 3 --stop "\\n\\n" --json
    """
    model, tokenizer = load_model(config.checkpoint)
    device = resolve_device(config.device)
    model = model.to(device)
    prompts = [sys.stdin.read() if prompt == "-" else prompt for prompt in config.prompt for _ in range(config.n)]
    stop = tuple(text.encode().decode("unicode_escape") if "\\" in text else text for text in config.stop)
    if len(prompts) == 1 and not config.json:
        sys.stdout.write(prompts[0])
        continuations(model, tokenizer, prompts, config, stop, stream=True)
        print()
        return
    texts = continuations(model, tokenizer, prompts, config, stop, stream=False)
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if config.json:
            print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False))
        else:
            print(f"--- {number + 1} of {len(prompts)}\n{prompt}{text}")


def continuations(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: GenerateConfig,
    stop: Sequence[str],
    *,
    stream: bool,
) -> list[str]:
    """The text that follows each prompt, cut before the first stop string; `stream` also writes it to stdout."""
    eot_id = end_of_text(model.config, tokenizer)
    start = [] if eot_id is None else [eot_id]
    ids = [[*start, *tokenizer.encode(prompt).tolist()] for prompt in prompts]
    sequences = [_Continuation(StreamDecoder(tokenizer), stop) for _ in prompts]

    def on_token(row: int, token: int) -> bool:
        ended = sequences[row].push(token)
        if stream:
            sys.stdout.write(sequences[row].ready())
            sys.stdout.flush()
        return ended

    generate(
        model,
        ids,
        max_new_tokens=_room(model, ids, config.max_new_tokens),
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
        eot_id=eot_id,
        precision=resolve_precision(config.precision, model.wte.device),
        on_token=on_token,
    )
    for sequence in sequences:
        sequence.end()
        if stream:
            sys.stdout.write(sequence.ready())
    return [sequence.text for sequence in sequences]


def _room(model: GPT, ids: Sequence[Sequence[int]], asked: int) -> int:
    """As many new tokens as were asked for, or as the context holds; a prompt that fills it is an error."""
    longest = max(map(len, ids))
    if longest >= model.config.n_ctx:
        raise UserError(
            f"A prompt has {longest} tokens with its end-of-text, but the model's context is {model.config.n_ctx}.",
            "Shorten the prompt.",
        )
    return min(asked, model.config.n_ctx - longest)


@dataclass
class _Continuation:
    """Text as it grows; holds back what might be the beginning of a stop string."""

    decoder: StreamDecoder
    stop: Sequence[str]
    text: str = ""
    shown: int = 0
    ended: bool = field(default=False)

    def push(self, token: int) -> bool:
        """Adds a token; True when a stop string has come."""
        self.text += self.decoder.push(token)
        found = [at for at in (self.text.find(stop) for stop in self.stop) if at >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.ended = True
        return self.ended

    def end(self) -> None:
        """No more tokens: what was held back is text."""
        if not self.ended:
            self.text += self.decoder.flush()
            self.ended = True

    def ready(self) -> str:
        """What may be shown now and was not shown before."""
        held = 0 if self.ended else max((_overlap(self.text, stop) for stop in self.stop), default=0)
        fresh = self.text[self.shown : len(self.text) - held]
        self.shown += len(fresh)
        return fresh


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
