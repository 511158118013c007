"""Worked examples of learning from preferences, and silent faults of programs for it: each a test that ours has none.

Threads that tell of a fault are named where there are any.
"""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.evals.best_of_n import best_of_each, kl_nats
from rein.losses import best_of, clipped_policy, clipped_value, pairwise, ranking
from rein.models.gpt import GPT, GPTConfig
from rein.models.rows import Completion, Rows, batches, lay_out, logprobs, states, sums
from rein.models.scalar import Scalar, scalar_from
from rein.returns import gae, token_rewards, whiten
from rein.train.ppo_rules import adapted_kl_coef

N_VOCAB, EOT = 17, 3


def policy(seed=0) -> GPT:
    model = GPT(GPTConfig(n_vocab=N_VOCAB, n_ctx=24, n_embd=16, n_head=2, n_layer=2)).initialise(seed)
    with torch.no_grad():
        model.wpe.mul_(30)  # learned positions that matter, so that a wrong one shows
    return model.double()


MODEL = policy()
HEAD = scalar_from(policy(1), 1).double()
IDS = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=6).map(tuple)
COMPLETIONS = st.lists(st.builds(Completion, IDS, IDS), min_size=1, max_size=5)
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(seed: int, n: int) -> list[Completion]:
    draw = random.Random(seed)

    def ids(most):
        return tuple(draw.randrange(N_VOCAB) for _ in range(draw.randint(1, most)))

    return [Completion(ids(8), ids(8)) for _ in range(n)]


# ------------------------------------------------------------------------------------------------- worked examples


def test_gae_of_three_tokens_with_a_penalty_and_a_score_at_the_last():
    """kl_coef 0.05; log ratios 0.4, −0.2, 0.2; score 1; values 0.5, 0.6, 0.8; gamma 1, lambda 0.95."""
    log_ratio_M = torch.tensor([0.4, -0.2, 0.2], dtype=torch.float64)
    one_N, three_N = torch.ones(1, dtype=torch.float64), torch.tensor([3])
    rewards_M = token_rewards(one_N, log_ratio_M, torch.zeros_like(log_ratio_M), three_N, kl_coef=0.05)
    assert rewards_M.tolist() == pytest.approx([-0.02, 0.01, 0.99])
    values_M = torch.tensor([0.5, 0.6, 0.8], dtype=torch.float64)
    advantages_M, returns_M = gae(rewards_M, values_M, three_N, gamma=1.0, lam=0.95)
    assert advantages_M.tolist() == pytest.approx([0.450975, 0.3905, 0.19])
    assert returns_M.tolist() == pytest.approx([0.950975, 0.9905, 0.99])


def test_the_value_behind_the_last_token_is_0():
    rewards_M, values_M = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([5.0, 7.0, 9.0])
    advantages_M, _ = gae(rewards_M, values_M, torch.tensor([3]), gamma=1.0, lam=0.0)
    assert advantages_M.tolist() == [7.0 - 5.0, 9.0 - 7.0, 1.0 - 9.0]


def test_the_kl_of_best_of_n_by_the_formula():
    assert [round(kl_nats(n), 6) for n in (1, 2, 64, 512)] == [0.0, 0.193147, 3.174508, 5.240278]


def test_the_unbiased_estimator_is_the_mean_over_all_choices_of_n():
    draw = random.Random(0)
    proxy, truth = ([draw.gauss(0, 1) for _ in range(7)] for _ in range(2))
    for n in range(1, 8):
        all_choices = [max(chosen, key=proxy.__getitem__) for chosen in itertools.combinations(range(7), n)]
        expected = sum(truth[best] for best in all_choices) / len(all_choices)
        assert best_of_each(proxy, truth)[n - 1] == pytest.approx(expected, abs=1e-9)


def test_the_adaptive_controller_traced_by_hand():
    """Target 6 nats, horizon 10,000, batches of 512: at 12 nats +20%, at 6.3 +5%, at 3 −20%, of 512 / 10,000 each."""
    kl_coef, trace = 0.15, []
    for kl in (12.0, 6.3, 6.0, 3.0):
        kl_coef = adapted_kl_coef(kl_coef, kl, target_nats=6.0, horizon_episodes=10_000, n=512)
        trace.append(kl_coef)
    step = 512 / 10_000
    first = 0.15 * (1 + 0.2 * step)
    second = first * (1 + 0.05 * step)
    assert trace == pytest.approx([first, second, second, second * (1 - 0.2 * step)])


# -------------------------------------------------------------------------------------------------- reward models


@pytest.mark.parametrize("k", [2, 4, 9])
def test_a_ranking_is_the_mean_over_its_pairs(k):
    scores_K = numbers(k)
    ranks = random.Random(k).sample(range(1, k + 1), k)
    pairs = [(i, j) for i in range(k) for j in range(k) if ranks[i] < ranks[j]]
    assert len(pairs) == k * (k - 1) // 2
    mean = torch.stack([pairwise(scores_K[i], scores_K[j]) for i, j in pairs]).mean()
    assert ranking(scores_K[None], torch.tensor([ranks])).item() == pytest.approx(mean.item(), abs=1e-12)


def test_ties_are_dropped_and_do_not_dilute_the_others():
    scores = numbers(1, 3)
    tied = ranking(scores, torch.tensor([[1, 1, 2]]))
    pairs = [pairwise(scores[0, 0], scores[0, 2]), pairwise(scores[0, 1], scores[0, 2])]
    assert tied.item() == pytest.approx(torch.stack(pairs).mean().item())


def test_of_two_candidates_comparison_best_of_and_ranking_are_one_loss():
    scores_B2 = numbers(50, 2)
    first_B = torch.zeros(50, dtype=torch.int64)
    compared_B = pairwise(scores_B2[:, 0], scores_B2[:, 1])
    assert torch.allclose(best_of(scores_B2, first_B), compared_B, atol=1e-12)
    assert torch.allclose(ranking(scores_B2, torch.tensor([[1, 2]]).expand(50, 2)), compared_B, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_a_shift_of_all_scores_of_a_prompt_changes_no_loss(shift, seed):
    scores_BK, ranks_BK = numbers(3, 4, seed=seed), torch.tensor([[1, 2, 3, 4], [2, 1, 4, 3], [1, 1, 2, 2]])
    best_B = torch.tensor([0, 1, 2])
    for loss in (
        lambda s: ranking(s, ranks_BK), lambda s: best_of(s, best_B), lambda s: pairwise(s[:, 0], s[:, 1]),
        lambda s: ranking(s, ranks_BK, ties="davidson", nu=0.5),
    ):  # fmt: skip
        assert torch.allclose(loss(scores_BK + shift), loss(scores_BK), atol=1e-9)


def test_after_normalisation_references_have_mean_0_and_no_preference_changed():
    completions = some(0, 12)
    rows = lay_out(completions)
    head = scalar_from(policy(1), 1).double()
    before_N = head.scores(rows).detach()
    head.normalise(before_N)
    after_N = head.scores(rows).detach()
    assert abs(float(after_N.mean())) < 1e-6
    gaps = [x[:, None] - x[None, :] for x in (before_N, after_N)]
    assert torch.allclose(*gaps, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, shift=st.floats(-20, 20), seed=st.integers(0, 99))
def test_a_shift_of_the_reward_model_and_its_value_network_changes_no_advantage(lengths, shift, seed):
    n, m = len(lengths), sum(lengths)
    scores_N, logprobs_M, ref_M, values_M = (numbers(k, seed=seed + i) for i, k in enumerate((n, m, m, m)))
    found = []
    for by in (0.0, shift):
        rewards_M = token_rewards(scores_N + by, logprobs_M, ref_M, torch.tensor(lengths), kl_coef=0.1)
        found.append(gae(rewards_M, values_M + by, torch.tensor(lengths))[0])
    assert torch.allclose(*found, atol=1e-9)


# --------------------------------------------------------------------------------- silent faults: where a reward lands


def test_the_score_lands_on_end_of_text_and_not_on_the_place_behind_it():
    """huggingface/trl#3750: it landed on the first padding, whose policy loss is masked."""
    lengths_N = torch.tensor([3, 1, 4])
    zero_M = torch.zeros(8)
    rewards_M = token_rewards(torch.tensor([1.0, 2.0, 3.0]), zero_M, zero_M, lengths_N, kl_coef=0.1)
    assert rewards_M.tolist() == [0, 0, 1, 2, 0, 0, 0, 3]
    logprobs_M = torch.zeros(8, requires_grad=True)
    advantages_M, _ = gae(rewards_M, zero_M, lengths_N, lam=0.0)  # no lambda that could carry it back
    clipped_policy(logprobs_M, zero_M, advantages_M, cliprange=0.2).sum().backward()
    assert (logprobs_M.grad != 0).tolist() == [False, False, True, True, False, False, False, True]


def test_what_comes_after_end_of_text_has_no_place_in_any_number():
    """microsoft/DeepSpeedExamples#672: one place too many was counted."""
    answered = Completion((5, 6), (7, 8, EOT))
    rows = lay_out([answered, Completion((1,), (2,) * 8)])
    assert rows.lengths_N.tolist() == [3, 8]
    assert rows.targets_M[:3].tolist() == [7, 8, EOT]
    assert rows.tokens_BT.flatten()[rows.last_N[0]] == EOT
    found = logprobs(MODEL, rows)
    for filling in range(N_VOCAB):  # end-of-text itself among them
        assert torch.equal(logprobs(MODEL, padded_with(rows, filling)), found)


def padded_with(rows: Rows, filling: int) -> Rows:
    """The same with another token wherever no completion has one."""
    tokens_BT = rows.tokens_BT.clone()
    for row, last in enumerate(rows.last_N.tolist()):
        tokens_BT[row, last - row * tokens_BT.shape[1] + 1 :] = filling
    return Rows(tokens_BT, rows.at_M, rows.targets_M, rows.last_N, rows.lengths_N)


@settings(max_examples=25, deadline=None)
@given(completions=COMPLETIONS, filling=st.integers(0, N_VOCAB - 1))
def test_a_score_is_read_at_the_last_token_whatever_padding_is(completions, filling):
    """huggingface/trl#937 (a padding id that is missing), EleutherAI/gpt-neox#1285 (one beside end-of-text)."""
    rows = lay_out(completions)
    scores_N = HEAD.scores(padded_with(rows, filling))
    for each, score in zip(completions, scores_N, strict=True):
        x_ND, _ = states(HEAD.model, lay_out([each]))
        assert score.item() == pytest.approx(HEAD(x_ND)[-1].item(), abs=1e-9)


# ----------------------------------------------------------------------- silent faults: padding, batch mates, positions


@settings(max_examples=25, deadline=None)
@given(completions=COMPLETIONS, data=st.data())
def test_no_number_depends_on_batch_mates_or_order(completions, data):
    """OpenRLHF#217, huggingface/trl#6819 (34 nats), allenai/reward-bench#137: positions that padding had moved."""
    order = data.draw(st.permutations(range(len(completions))))
    width = data.draw(st.sampled_from([None, 12, 24]))
    turned = lay_out([completions[place] for place in order], width=width)
    alone = [lay_out([completions[place]]) for place in order]
    assert torch.allclose(logprobs(MODEL, turned), torch.cat([logprobs(MODEL, each) for each in alone]), atol=1e-9)
    assert torch.allclose(HEAD.scores(turned), torch.cat([HEAD.scores(each) for each in alone]), atol=1e-9)
    values = [HEAD(states(HEAD.model, rows)[0][rows.at_M]) for rows in (turned, *alone)]
    assert torch.allclose(values[0], torch.cat(values[1:]), atol=1e-9)


def loss_and_gradient(completions, targets, groups, width):
    """PPO's loss over all tokens, in so many pieces, and its gradient by the embedding and the positions."""
    model = policy()
    total = sum(len(each.response) for each in completions)
    whole = 0.0
    for places in groups:
        rows = lay_out([completions[place] for place in places], width=width)
        old_M, advantages_M = (torch.cat([target[place] for place in places]) for target in targets)
        loss = clipped_policy(logprobs(model, rows), old_M, advantages_M, cliprange=0.2).sum() / total
        loss.backward()
        whole += loss.item()
    return whole, torch.cat([model.wte.grad.flatten(), model.wpe.grad.flatten()])


@pytest.mark.parametrize("width", [None, 16, 24])
def test_loss_and_gradient_are_the_same_for_every_split_order_and_packing(width):
    """open-instruct#1161, modelscope/twinkle#292: a mean of means weighs tokens by the micro-batch they fell into."""
    completions = some(1, 7)
    old = [numbers(len(each.response), seed=place) - 2 for place, each in enumerate(completions)]
    targets = (old, [numbers(len(each.response), seed=99 + place) for place, each in enumerate(completions)])
    loss, gradient = loss_and_gradient(completions, targets, [list(range(7))], None)
    by_length = batches([len(each) for each in completions], 32)
    for groups in ([[n] for n in range(7)], [[6, 0], [3], [1, 2, 5, 4]], [[5, 4, 3, 2, 1, 0, 6]], by_length):
        found, its_gradient = loss_and_gradient(completions, targets, groups, width)
        assert found == pytest.approx(loss, abs=1e-12)
        assert torch.allclose(its_gradient, gradient, atol=1e-12)


# ----------------------------------------------------------------------------- silent faults: log-probabilities, KL


def test_no_logprob_is_above_0_and_nothing_stands_for_one_that_is_missing():
    """huggingface/trl#2022: a logprob of 1 at padding made the entropy's estimate negative."""
    rows = lay_out(some(2, 6))
    found = logprobs(MODEL, rows)
    assert len(found) == int(rows.lengths_N.sum())
    assert (found <= 0).all()


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.0])
def test_a_policy_has_ratio_1_and_kl_0_to_itself_at_any_temperature(temperature):
    """lm-human-preference-details#6 and many others: dropout, or a temperature in one of the passes alone."""
    rows = lay_out(some(3, 6))
    both = [logprobs(model, rows, temperature=temperature) for model in (policy(), policy())]
    assert torch.equal(*both)
    assert torch.equal(torch.exp(both[0] - both[1]), torch.ones_like(both[0]))
    rewards_M = token_rewards(torch.zeros(6, dtype=torch.float64), *both, rows.lengths_N, kl_coef=0.3)
    assert torch.count_nonzero(rewards_M) == 0


def test_a_temperature_divides_the_logits_and_is_no_scale_of_logprobs():
    each = Completion((5, 6, 7), (8, 2, EOT))
    logits_TV = MODEL(torch.tensor([[*each.query, *each.response]]))[0, 2:-1]
    expected = (logits_TV / 0.7).log_softmax(-1).gather(1, torch.tensor(each.response)[:, None])[:, 0]
    assert torch.allclose(logprobs(MODEL, lay_out([each]), temperature=0.7), expected, atol=1e-9)


def test_the_mean_kl_of_own_samples_is_not_negative():
    """huggingface/trl#235: a negative KL, because samples were not drawn from the policy that it was computed for."""
    theirs = policy(5)
    tokens = torch.arange(N_VOCAB)
    rows = lay_out([Completion((4,), (int(token),)) for token in tokens])
    log_p, log_q = (logprobs(model, rows).detach() for model in (MODEL, theirs))
    assert float(log_p.exp().sum()) == pytest.approx(1.0)  # every answer there is, of one token
    assert float(log_p.exp() @ (log_p - log_q)) > 0
    assert torch.equal(sums(log_p, rows), log_p)


# ------------------------------------------------------------------------------------------------- PPO's formulas


def test_before_an_update_the_gradient_is_that_of_the_plain_policy_gradient():
    logprobs_M = numbers(9).requires_grad_()
    advantages_M = numbers(9, seed=1)
    clipped_policy(logprobs_M, logprobs_M.detach(), advantages_M, cliprange=0.2).sum().backward()
    assert torch.allclose(logprobs_M.grad, -advantages_M)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"), [(1.3, 1.0, False), (1.3, -1.0, True), (0.7, -1.0, False), (0.7, 1.0, True)]
)
def test_a_ratio_beyond_the_clip_moves_only_back(ratio, advantage, moves):
    logprobs_M = torch.tensor([math.log(ratio)], requires_grad=True)
    clipped_policy(logprobs_M, torch.zeros(1), torch.tensor([advantage]), cliprange=0.2).sum().backward()
    assert bool(logprobs_M.grad != 0) is moves


def test_a_value_far_from_the_old_one_is_held_as_written_out():
    values, old, returns = numbers(40) * 2, numbers(40, seed=1), numbers(40, seed=2)
    expected = []
    for v, o, r in zip(values.tolist(), old.tolist(), returns.tolist(), strict=True):
        held = max(min(v, o + 0.2), o - 0.2)
        expected.append(0.5 * max((v - r) ** 2, (held - r) ** 2))
    assert clipped_value(values, old, returns, cliprange=0.2).tolist() == pytest.approx(expected)


def test_whitened_advantages_have_mean_0_and_rewards_keep_theirs():
    x = numbers(64) * 3 + 5
    assert float(whiten(x).mean()) == pytest.approx(0, abs=1e-9)
    assert float(whiten(x, shift_mean=False).mean()) == pytest.approx(float(x.mean()))
    assert F.mse_loss(whiten(x), (x - x.mean()) / x.std(correction=0)).item() < 1e-9


def test_a_head_begins_with_the_papers_deviation():
    wide = Scalar(GPT(GPTConfig(n_vocab=5, n_ctx=4, n_embd=512, n_head=2, n_layer=1)).initialise(0)).initialise(0)
    assert wide.weight.detach().std().item() == pytest.approx(1 / math.sqrt(513), rel=0.15)
    assert wide.b.item() == 0.0
