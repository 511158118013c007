"""Labelled examples as token sequences: GPT-1's four input transformations, and batches of them.

    classification    start, text, extract
    entailment        start, premise, delimiter, hypothesis, extract
    similarity        start, a, delimiter, b, extract, and start, b, delimiter, a, extract
    choice            for each choice: start, context, delimiter, choice, extract

Flow     Example (text/tasks.py) → `encode` → Input → `pieces` → `collate` → Batch → models/heads.py.
Three tokens stand behind the vocabulary, in this order: start, delimiter, extract. A head reads the last block's
state at the first extract. Padding is id 0 on the right, where a causal model never sees it.
Source   Radford 2018 §3.3 and Figure 1; openai/finetune-transformer-lm, `transform_roc` of train.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.models.ops import IGNORED
from rein.text.tasks import Example, Task, read

N_SPECIAL = 3
START, DELIMITER, EXTRACT = range(N_SPECIAL)  # behind the vocabulary

# Padding that costs about as much as a forward and backward pass more: what does not depend on the tokens, such as
# dropping a whole embedding matrix and adding up its gradient.
_WORTH_A_PASS_TOKENS = 1024


@dataclass(frozen=True)
class Input:
    """One example as a model reads it: one sequence, or one for each order or choice."""

    sequences: tuple[tuple[int, ...], ...]
    label: float | None
    where: str

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(map(len, self.sequences))


def encode(
    examples: Sequence[Example], task: Task, tokenizer: Tokenizer, *, n_vocab: int, n_ctx: int
) -> tuple[list[Input], int]:
    """The examples as sequences of at most n_ctx tokens, and how many of the examples had to be cut.

    `n_vocab` is the model's vocabulary without the three tokens. Texts are cut at their ends, the longest first; for
    StoryCloze each to n_ctx // 2 − 2 tokens, as the released code does.

    Raises   UserError when n_ctx has no room for the special tokens and one token of each text.
    """
    n_parts = max((len(example.context) + bool(example.others) for example in examples), default=0)
    n_special = 2 if task.form == "classification" else 3
    if n_ctx < n_special + n_parts or (task.halves and n_ctx // 2 < 3):
        raise UserError(
            f"n_ctx={n_ctx} has no room for the {n_special} special tokens and {n_parts} texts of {task.name}.",
            "Use a model with a longer context.",
        )
    # A question goes on behind its document: for a byte-level vocabulary, with the space between them.
    texts = [" " + text if place else text for example in examples for place, text in enumerate(example.context)]
    contexts = iter(tokenizer.encode_batch(texts))
    others = iter(tokenizer.encode_batch([text for example in examples for text in example.others]))
    inputs, n_cut = [], 0
    for example in examples:
        before = [next(contexts).tolist() for _ in example.context]
        after = [next(others).tolist() for _ in example.others]
        arranged: list[tuple[list[list[int]], list[list[int]]]]
        if task.form == "classification":
            arranged = [(before, [])]
        elif task.form == "similarity":
            arranged = [(before, after), (after, before)]
        else:
            arranged = [(before, [choice]) for choice in after]
        sequences, cut = [], False
        for first, second in arranged:
            lengths = [len(part) for part in (*first, *second)]
            if task.halves:
                lengths = [min(length, n_ctx // 2 - 2) for length in lengths]
            else:
                lengths = fitted(lengths, n_ctx - n_special)
            parts = [part[:length] for part, length in zip((*first, *second), lengths, strict=True)]
            cut |= parts != [*first, *second]
            sequence = [n_vocab + START, *_joined(parts[: len(first)])]
            if second:
                sequence += [n_vocab + DELIMITER, *_joined(parts[len(first) :])]
            sequences.append((*sequence, n_vocab + EXTRACT))
        inputs.append(Input(tuple(sequences), example.label, example.where))
        n_cut += cut
    return inputs, n_cut


def fitted(lengths: Sequence[int], room: int) -> list[int]:
    """How much of each text stays, so that all fit into `room` tokens: the longest is cut until the next is as long.

    Example  >>> fitted([90, 10], 60), fitted([90, 40], 61), fitted([20, 10], 60)
             ([50, 10], [31, 30], [20, 10])
    """
    if sum(lengths) <= room:
        return list(lengths)
    limit = max(limit for limit in range(room + 1) if sum(min(length, limit) for length in lengths) <= room)
    kept = [min(length, limit) for length in lengths]
    for place in [place for place, length in enumerate(lengths) if length > limit][: room - sum(kept)]:
        kept[place] += 1
    return kept


def _joined(parts: Sequence[Sequence[int]]) -> list[int]:
    return [token for part in parts for token in part]


def read_labelled(
    task: Task, path: Path, tokenizer: Tokenizer, *, n_vocab: int, n_ctx: int
) -> tuple[list[Input], list[str]]:
    """The labelled rows of a file as inputs, and lines that say what was read, cut and left out.

    Raises   UserError when the file has no usable rows or no labels.
    """
    rows = read(task, path)
    labelled = [example for example in rows.examples if example.label is not None]
    if not labelled:
        raise UserError(
            f"{path} has no labels in {task.label.replace('|', ' or ')}.",
            "Train and score on files with labels; --predict reads those without.",
        )
    inputs, n_cut = encode(labelled, task, tokenizer, n_vocab=n_vocab, n_ctx=n_ctx)
    counts = (
        (n_cut, f"cut to {n_ctx} tokens"),
        (len(rows.examples) - len(labelled), "without a label left out"),
        (len(rows.bad), "bad rows left out"),
    )
    parts = [f"{path}: {len(labelled):,} examples", *(f"{count:,} {what}" for count, what in counts if count)]
    return inputs, [", ".join(parts), *(f"  {reason}" for reason in rows.bad[:3])]


# ------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Batch:
    """Examples that go through a model together."""

    tokens_ST: Tensor  # S sequences, padded on the right
    targets_ST: Tensor  # the next token, delimiter and extract too; IGNORED for padding
    extract_S: Tensor  # where each sequence has its first extract
    example_S: Tensor  # whose sequence it is, 0 … B − 1, rising

    @property
    def lengths_S(self) -> Tensor:
        """Targets of each sequence: its tokens but the first."""
        return (self.targets_ST != IGNORED).sum(dim=1)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(x.to(device) for x in (self.tokens_ST, self.targets_ST, self.extract_S, self.example_S)))


def collate(inputs: Sequence[Input], *, n_vocab: int) -> Batch:
    """The batch of these inputs, padded to their longest sequence.

    Example  >>> batch = collate([Input(((7, 1, 9), (7, 9)), 0, "")], n_vocab=7)
             >>> batch.tokens_ST.tolist(), batch.extract_S.tolist()
             ([[7, 1, 9], [7, 9, 0]], [2, 1])
             >>> batch.targets_ST.tolist()
             [[1, 9, -100], [9, -100, -100]]
    """
    sequences = [sequence for each in inputs for sequence in each.sequences]
    shape = len(sequences), max(map(len, sequences))
    tokens_ST, targets_ST = torch.zeros(shape, dtype=torch.int64), torch.full(shape, IGNORED)
    for row, sequence in enumerate(sequences):
        tokens_ST[row, : len(sequence)] = torch.tensor(sequence)
        targets_ST[row, : len(sequence) - 1] = tokens_ST[row, 1 : len(sequence)]
    extract_S = (tokens_ST == n_vocab + EXTRACT).int().argmax(dim=1)
    counts = torch.tensor([len(each.sequences) for each in inputs])
    return Batch(tokens_ST, targets_ST, extract_S, torch.arange(len(inputs)).repeat_interleave(counts))


def pieces(inputs: Sequence[Input], tokens_at_once: int) -> list[list[int]]:
    """Places in `inputs`, grouped by length so that little is padding and no group's batch exceeds `tokens_at_once`.

    Example  >>> short, long = Input(((1,) * 4,), 0, ""), Input(((1,) * 30,), 0, "")
             >>> pieces([long, short, long, short], 64)
             [[1, 3], [0, 2]]
    """
    groups: list[list[int]] = []
    sequences = tokens = 0
    for place in sorted(range(len(inputs)), key=lambda place: (inputs[place].longest, place)):
        count, longest = len(inputs[place].sequences), inputs[place].longest
        real = sum(map(len, inputs[place].sequences))
        padded = (sequences + count) * longest
        if groups and padded <= tokens_at_once and padded - tokens - real <= _WORTH_A_PASS_TOKENS:
            groups[-1].append(place)
            sequences, tokens = sequences + count, tokens + real
        else:
            groups.append([place])
            sequences, tokens = count, real
    return groups
