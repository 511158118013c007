"""Beam search against transformers' own, where both mean the same: without a length penalty."""

import warnings

import pytest
import torch

from rein.models.beam import beam_search
from rein.models.gpt import GPT, GPTConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="the parity tests compare with transformers")

V, N_CTX, END = 61, 64, 7
PROMPTS = [[1, 2, 3, 4, 5, 6], [9], [4, 4, 8], list(range(10, 30)), [50, 60]]


def both(seed):
    """The same random weights, here and there."""
    ours = GPT(GPTConfig(V, N_CTX, 32, 4, 2)).initialise(seed).eval()
    with torch.no_grad():
        for p in ours.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    shape = {"vocab_size": V, "n_positions": N_CTX, "n_embd": 32, "n_layer": 2, "n_head": 4}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=END)).eval()
    state = theirs.state_dict()
    with torch.no_grad():
        for name, value in ours.state_dict().items():
            state["transformer." + name + (".weight" if name in ("wte", "wpe") else "")].copy_(value)
    return ours, theirs


def their_search(model, *, width, longest, end, kept):
    """For each prompt its `kept` best continuations with their log-probabilities."""
    padded = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (padded - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (padded - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    found = model.generate(
        ids, attention_mask=mask, num_beams=width, num_return_sequences=kept, length_penalty=0.0, do_sample=False,
        early_stopping=False, max_new_tokens=longest, eos_token_id=end, pad_token_id=0, output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    rows = zip(found.sequences[:, padded:].tolist(), found.sequences_scores.tolist(), strict=True)
    answers = [(tuple(tokens[: tokens.index(end) + 1] if end in tokens else tokens), nats) for tokens, nats in rows]
    return [answers[first : first + kept] for first in range(0, len(answers), kept)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [2, 4, 7])
def test_all_beams_are_theirs_where_nothing_ends(width, seed):
    ours, theirs = both(seed)
    found = beam_search(ours, PROMPTS, width=width, alpha=0.0, max_new_tokens=15, ends=())
    for hypotheses, expected in zip(
        found, their_search(theirs, width=width, longest=15, end=None, kept=width), strict=True
    ):
        assert [h.tokens for h in hypotheses] == [tokens for tokens, _ in expected]
        for h, (_, nats) in zip(hypotheses, expected, strict=True):
            assert h.logprob == pytest.approx(nats, abs=1e-4)


def test_the_best_that_ends_is_theirs_or_likelier():
    """Theirs passes over an end that is not among the `width` likeliest of its step; ours, like T5's, does not."""
    same = likelier = 0
    for seed in range(6):
        ours, theirs = both(seed)
        found = beam_search(ours, PROMPTS, alpha=0.0, max_new_tokens=40, ends={END})
        for hypotheses, ((tokens, nats),) in zip(
            found, their_search(theirs, width=4, longest=40, end=END, kept=1), strict=True
        ):
            best = hypotheses[0]
            if best.tokens == tokens:
                same += 1
                assert best.logprob == pytest.approx(nats, abs=1e-4)
            elif tokens[-1] == END:  # and not cut off
                likelier += 1
                assert best.logprob > nats
    assert same >= 10
    assert likelier
