"""Beam search: held to all sequences and to the published loop in plain Python; the same whatever the batch."""

import itertools
import math

import pytest
import torch

from rein.errors import UserError
from rein.models import beam
from rein.models.beam import Hypothesis, beam_search, length_penalty
from rein.models.generate import generate
from rein.models.gpt import GPT, GPTConfig

KINDS = {
    "gpt1": {"norm": "post", "initialisation": "flat"},
    "gpt2": {},
    "gpt3": {"attention": "banded", "band": 5},
}


def random_model(n_vocab, seed=0, **kind):
    model = GPT(GPTConfig(n_vocab, 48, 24, 3, 3, **kind)).initialise(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return model


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return random_model(31, **KINDS[request.param])


PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [9], [4, 4], [8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3], [5, 1]]
LONGEST = 12


def step_logprobs(model, ids):
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids]))[0, -1].double(), dim=-1).tolist()


def published_loop(model, prompt, *, width, alpha, longest, ends):
    """The search of tensorflow/mesh's beam_search.py, in its order, one sequence after the other."""
    alive, finished = [((), 0.0)], []
    for n in range(1, longest + 1):
        candidates = [
            ((*tokens, token), nats + step)
            for tokens, nats in alive
            for token, step in enumerate(step_logprobs(model, [*prompt, *tokens]))
        ]
        candidates.sort(key=lambda candidate: -candidate[1])
        top = candidates[: 2 * width]
        alive = [c for c in candidates if c[0][-1] not in ends][:width]
        finished += [(tokens, nats, nats / ((5 + n) / 6) ** alpha) for tokens, nats in top if tokens[-1] in ends]
        finished = sorted(finished, key=lambda hypothesis: -hypothesis[2])[:width]
        bound = alive[0][1] / ((5 + longest) / 6) ** alpha if alive else -math.inf
        if finished and finished[-1][2] > bound:
            break
    if finished:
        return [Hypothesis(*hypothesis, True) for hypothesis in finished]
    return [Hypothesis(tokens, nats, nats / ((5 + n) / 6) ** alpha, False) for tokens, nats in alive]


def assert_same(ours, expected):
    assert [(h.tokens, h.finished) for h in ours] == [(h.tokens, h.finished) for h in expected]
    for a, b in zip(ours, expected, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert a.score == pytest.approx(b.score, abs=1e-4)


@pytest.mark.parametrize("ends", [{0}, {3, 11}, set(range(0, 31, 3)), set(range(29)), set()], ids=len)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_hypotheses_are_those_of_the_published_loop(model, alpha, ends):
    found = beam_search(model, PROMPTS, width=4, alpha=alpha, max_new_tokens=LONGEST, ends=ends)
    for prompt, ours in zip(PROMPTS, found, strict=True):
        assert_same(ours, published_loop(model, prompt, width=4, alpha=alpha, longest=LONGEST, ends=ends))


def test_a_search_can_end_long_before_the_longest_length(monkeypatch):
    model, rows, ends = random_model(31), [], set(range(0, 31, 3))
    grow = beam.Beams.grow
    monkeypatch.setattr(beam.Beams, "grow", lambda self, logits: rows.append(len(logits)) or grow(self, logits))
    prompts = [[token] for token in range(8)]
    found = beam_search(model, prompts, alpha=0.0, max_new_tokens=30, ends=ends)
    assert len(rows) < 30, "no search ended early, so that nothing was tried here"
    assert rows[-1] < rows[0] == len(prompts), "prompts that were done stayed in the batch"
    for prompt, ours in zip(prompts, found, strict=True):
        assert_same(ours, published_loop(model, prompt, width=4, alpha=0.0, longest=30, ends=ends))


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_beam_as_wide_as_all_sequences_finds_the_best_of_all(alpha):
    """Every sequence of five tokens or fewer over a vocabulary of three, each scored by the model as a whole."""
    model, end, longest = random_model(3, seed=2), 2, 5
    whole = [(*words, end) for n in range(longest) for words in itertools.product([0, 1], repeat=n)]
    scored = []
    for tokens in whole:
        ids = torch.tensor([[1, *tokens]])
        with torch.no_grad():
            nats = -model.token_losses(ids[:, :-1], ids[:, 1:]).sum().item()
        scored.append(Hypothesis(tokens, nats, nats / ((5 + len(tokens)) / 6) ** alpha, True))
    scored.sort(key=lambda hypothesis: -hypothesis.score)
    (found,) = beam_search(model, [[1]], width=40, alpha=alpha, max_new_tokens=longest, ends={end})
    assert_same(found[:1], scored[:1])
    kept = {h.tokens: h.logprob for h in scored}
    for h in found:
        assert h.logprob == pytest.approx(kept[h.tokens], abs=1e-4)


def test_log_probabilities_are_those_of_the_whole_sequence_read_at_once(model):
    for prompt, hypotheses in zip(
        PROMPTS, beam_search(model, PROMPTS, width=5, max_new_tokens=20, ends={0, 7}), strict=True
    ):
        for h in hypotheses:
            ids = torch.tensor([[*prompt, *h.tokens]])
            with torch.no_grad():
                losses = model.token_losses(ids[:, :-1], ids[:, 1:])[0, len(prompt) - 1 :]
            assert h.logprob == pytest.approx(-losses.sum().item(), abs=1e-4)
            assert h.score == pytest.approx(h.logprob / length_penalty(len(h.tokens), 0.6))


def test_what_is_found_does_not_depend_on_batch_mates(model):
    together = beam_search(model, PROMPTS, max_new_tokens=16, ends={0, 3})
    alone = [beam_search(model, [prompt], max_new_tokens=16, ends={0, 3})[0] for prompt in PROMPTS]
    turned = beam_search(model, PROMPTS[::-1], max_new_tokens=16, ends={0, 3})[::-1]
    for a, b, c in zip(together, alone, turned, strict=True):
        assert_same(a, b)
        assert_same(a, c)


def test_prompts_that_do_not_fit_together_are_searched_in_groups(model, monkeypatch):
    together = beam_search(model, PROMPTS, max_new_tokens=8, ends={0})
    monkeypatch.setattr(beam, "_CPU_ROOM_BYTES", 1)
    apart = beam_search(model, PROMPTS, max_new_tokens=8, ends={0})
    for a, b in zip(together, apart, strict=True):
        assert_same(a, b)


def test_one_beam_without_a_penalty_is_greedy(model):
    greedy = generate(model, PROMPTS, max_new_tokens=20, temperature=0)
    found = beam_search(model, PROMPTS, width=1, alpha=0.0, max_new_tokens=20, ends=())
    assert [list(hypotheses[0].tokens) for hypotheses in found] == greedy


def test_a_wider_beam_finds_something_likelier():
    """Of the width itself: on this model greedy decoding misses what four beams find."""
    model = random_model(31, seed=4)
    nats = [
        sum(h[0].logprob for h in beam_search(model, PROMPTS, width=w, alpha=0.0, max_new_tokens=6, ends=()))
        for w in (1, 4)
    ]
    assert nats[1] > nats[0] + 0.1


def test_what_nothing_ended_is_cut_off_at_the_longest_length(model):
    for hypotheses in beam_search(model, PROMPTS, max_new_tokens=5, ends=()):
        assert [(len(h.tokens), h.finished) for h in hypotheses] == [(5, False)] * 4
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_the_end_is_the_last_token_and_counts(model):
    ends = set(range(0, 31, 2))
    for hypotheses in beam_search(model, PROMPTS, max_new_tokens=10, ends=ends):
        for h in hypotheses:
            assert h.finished
            assert [token in ends for token in h.tokens] == [False] * (len(h.tokens) - 1) + [True]


def test_a_penalty_prefers_longer_hypotheses():
    model = random_model(31, seed=1)
    lengths = [
        sum(len(h[0].tokens) for h in beam_search(model, PROMPTS, alpha=alpha, max_new_tokens=20, ends=range(8)))
        for alpha in (0.0, 3.0)
    ]
    assert lengths[1] > lengths[0]


def test_a_vocabulary_smaller_than_the_beam():
    model = random_model(3, seed=2)
    (found,) = beam_search(model, [[1]], width=8, alpha=0.6, max_new_tokens=6, ends={0})
    assert_same(found, published_loop(model, [1], width=8, alpha=0.6, longest=6, ends={0}))


def test_a_model_where_everything_ends():
    model = random_model(3, seed=2)
    (found,) = beam_search(model, [[1]], width=2, max_new_tokens=6, ends={0, 1, 2})
    assert [len(h.tokens) for h in found] == [1, 1]


def test_bfloat16_finds_what_a_whole_pass_in_bfloat16_scores_alike(model):
    for prompt, hypotheses in zip(
        PROMPTS, beam_search(model, PROMPTS, max_new_tokens=8, ends={0}, precision="bf16"), strict=True
    ):
        for h in hypotheses:
            ids = torch.tensor([[*prompt, *h.tokens]])
            with torch.no_grad():
                losses = model.token_losses(ids[:, :-1], ids[:, 1:])[0, len(prompt) - 1 :]
            assert h.logprob == pytest.approx(-losses.sum().item(), abs=0.5)


def test_weights_that_are_packed_already_stay_so(model):
    once = beam_search(model, PROMPTS, max_new_tokens=8, ends={0})
    with model.packed("fp32", 20):
        head = model.packed_head
        again = beam_search(model, PROMPTS, max_new_tokens=8, ends={0})
        assert model.packed_head is head is not None
    for a, b in zip(once, again, strict=True):
        assert_same(a, b)


def test_a_prompt_is_told_of_once_when_it_is_done(model):
    told = []
    beam_search(model, PROMPTS, max_new_tokens=10, ends={0, 3}, on_prompt=told.append)
    assert sorted(told) == list(range(len(PROMPTS)))


def test_no_prompts():
    assert beam_search(random_model(3), [], max_new_tokens=5, ends={0}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": [[1], []]}, "no tokens"),
        ({"prompts": [[1], [1] * 40]}, r"need n_ctx ≥ 50, but this model has n_ctx=48.\n.*Lower max_new_tokens to 8"),
        ({"prompts": [[1] * 48]}, "Shorten the prompt"),
        ({"width": 0}, "width is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_what_cannot_be_searched(changes, words):
    with pytest.raises(UserError, match=words):
        beam_search(random_model(3), **{"prompts": [[1]], "max_new_tokens": 10, "ends": {0}} | changes)
