"""The losses of a batch are those of its pairs one by one, whatever shares a pass, a row or an update."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rein import losses
from rein.feedback.judged import Candidate, Judged
from rein.feedback.trust import People
from rein.models.gpt import GPT, GPTConfig
from rein.models.rows import Completion, lay_out
from rein.models.scalar import Scalar, scalar_from
from rein.text.prompts import FORMATS
from rein.train.reward_rows import (
    Choice,
    Element,
    Encoder,
    collate,
    compared,
    element_losses,
    elements,
    pairs_right,
    pieces,
    scores_of,
)

IDS = st.lists(st.integers(0, 22), min_size=1, max_size=6).map(tuple)


def small(seed=0) -> Scalar:
    config = GPTConfig(n_vocab=23, n_ctx=24, n_embd=16, n_head=2, n_layer=2)
    return scalar_from(GPT(config).initialise(seed), seed).double()


def said(marks, kind="ranking", labeler="w", p=1.0, texts=None, prompt="q", item="i"):
    texts = texts or [f"text {n}" for n in range(len(marks))]
    return Judged({"prompt": prompt}, tuple(map(Candidate, texts)), kind, tuple(map(float, marks)), labeler, item,
                  prompt, p=p)  # fmt: skip


def nobody(ties="drop"):
    return People([], temperatures=False, ties=ties).double()


def element(completions, *choices):
    return Element(tuple(completions), tuple(Choice(tuple(range(len(completions))), one, 0) for one in choices))


@st.composite
def some_elements(draw):
    found = []
    for _ in range(draw(st.integers(1, 5))):
        query, k = draw(IDS), draw(st.integers(2, 5))
        completions = [Completion(query, draw(IDS)) for _ in range(k)]
        choices = []
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(["ranking", "best_of"]))
            order = draw(st.lists(st.integers(1, 3), min_size=k, max_size=k))
            best = draw(st.integers(0, k - 1))
            marks = order if kind == "ranking" else [1 + (n != best) for n in range(k)]
            choices.append(said(marks, kind, p=draw(st.sampled_from([1.0, 0.7]))))
        found.append(element(completions, *choices))
    return found


def total(net, people, some):
    batch = collate(some)
    return element_losses(scores_of(net, batch, "fp32"), people, batch)


# ----------------------------------------------------------------------------------------------- K-wise, pairs, kinds


@settings(max_examples=30, deadline=None)
@given(query=IDS, responses=st.lists(IDS, min_size=2, max_size=5), data=st.data())
def test_k_wise_is_the_mean_over_pairs_and_k_forward_passes(query, responses, data):
    net, k = small(), len(responses)
    marks = data.draw(st.permutations(range(1, k + 1)))
    each = element([Completion(query, response) for response in responses], said(marks))
    one_by_one = [net.scores(lay_out([one]))[0] for one in each.completions]
    pairs = [
        losses.pairwise(one_by_one[i], one_by_one[j])
        for i, j in itertools.permutations(range(k), 2)
        if marks[i] < marks[j]
    ]
    assert len(pairs) == math.comb(k, 2)
    assert torch.allclose(total(net, nobody(), [each])[0], torch.stack(pairs).mean(), atol=1e-9)
    assert collate([each]).rows.tokens_BT.shape[0] == k  # each candidate goes through the model once


@settings(max_examples=30, deadline=None)
@given(query=IDS, first=IDS, second=IDS, shift=st.floats(-5, 5))
def test_of_two_a_comparison_a_best_of_and_a_ranking_are_one_loss_and_a_shift_changes_none(query, first, second, shift):
    net, two = small(), [Completion(query, first), Completion(query, second)]
    found = [
        total(net, nobody(), [element(two, one)])[0] for one in (said([1, 2]), said([1, 2], "best_of"), said([2, 9]))
    ]
    assert torch.allclose(found[0], found[1], atol=1e-9)
    assert torch.allclose(found[0], found[2], atol=1e-9)
    with torch.no_grad():
        net.bias += shift
    assert torch.allclose(total(net, nobody(), [element(two, said([1, 2]))])[0], found[0], atol=1e-9)


def test_a_soft_target_is_that_of_the_pairwise_loss():
    net, two = small(), [Completion((1,), (2,)), Completion((1,), (3, 4))]
    scores_N = net.scores(lay_out(two))
    found = total(net, nobody(), [element(two, said([1, 2], p=0.8))])[0]
    assert torch.allclose(found, losses.pairwise(scores_N[0], scores_N[1], p=torch.tensor(0.8)), atol=1e-9)


@pytest.mark.parametrize(("ties", "terms"), [("half", {}), ("rao_kupper", {"theta": 1}), ("davidson", {"nu": 1})])
def test_ties_are_learned_from_where_they_are_kept(ties, terms):
    net, two = small(), [Completion((1,), (2,)), Completion((1,), (3, 4))]
    people = nobody(ties)
    scores_BK = net.scores(lay_out(two))[None]
    expected = losses.ranking(scores_BK, torch.tensor([[1, 1]]), ties=ties, **people.tie_terms())
    found = total(net, people, [element(two, said([1, 1]))])
    assert torch.allclose(found, expected, atol=1e-9)
    assert set(people.tie_terms()) == set(terms)
    assert total(net, nobody("drop"), [element(two, said([1, 1]))]).item() == 0


def test_ratings_are_regressed_without_a_temperature():
    net, two = small(), [Completion((1,), (2,)), Completion((1,), (3, 4))]
    people = People([said([1, 2])] * 9, least=1).double()
    with torch.no_grad():
        people.w_L.fill_(1.3)
    each = Element(tuple(two), (Choice((0, 1), said([0.5, -1.0], "rating"), 1),))
    scores_N = net.scores(lay_out(two))
    expected = ((scores_N - torch.tensor([0.5, -1.0])) ** 2).mean()
    assert torch.allclose(total(net, people, [each])[0], expected, atol=1e-9)


def test_a_labelers_temperature_scales_the_lead():
    net, two = small(), [Completion((1,), (2,)), Completion((1,), (3, 4))]
    people = People([said([1, 2])] * 9, least=1).double()
    with torch.no_grad():
        people.w_L[1] = -math.log(2.5)
    each = Element(tuple(two), (Choice((0, 1), said([1, 2]), 1),))
    scores_N = net.scores(lay_out(two))
    assert torch.allclose(total(net, people, [each])[0], losses.pairwise(scores_N[0] / 2.5, scores_N[1] / 2.5))


# ----------------------------------------------------------------------------------------- silent bugs, by their names


@settings(max_examples=25, deadline=None)
@given(some=some_elements(), at_once=st.integers(10, 200), ties=st.sampled_from(["drop", "half", "davidson"]))
def test_silent_bug_the_loss_depends_on_the_micro_batches(some, at_once, ties):
    """Mean of means: trl and others weigh a short micro-batch's elements more."""
    net = small()

    def gradients(groups):
        net.zero_grad()
        people = nobody(ties)
        loss = 0.0
        for places in groups:
            part = total(net, people, [some[place] for place in places]).sum() / len(some)
            part.backward() if part.requires_grad else None
            loss += part.item()
        found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]
        return loss, torch.cat([each.flatten() for each in found])

    groups = pieces([(len(each.completions), each.longest) for each in some], at_once)
    assert sorted(place for group in groups for place in group) == list(range(len(some)))
    split, whole = gradients(groups), gradients([list(range(len(some)))])
    assert split[0] == pytest.approx(whole[0], abs=1e-9)
    assert torch.allclose(split[1], whole[1], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(some=some_elements(), data=st.data())
def test_silent_bug_an_elements_loss_depends_on_its_batch_mates_or_their_order(some, data):
    net = small()
    alone = torch.cat([total(net, nobody(), [each]) for each in some])
    order = data.draw(st.permutations(range(len(some))))
    assert torch.allclose(total(net, nobody(), [some[n] for n in order]), alone[torch.tensor(order)], atol=1e-9)


def test_silent_bug_what_stands_in_a_missing_candidate_reaches_the_loss_or_a_gradient():
    """A batch of 2 and 4 candidates: the two that are not there are masked, not scored 0."""
    net = small()
    two = element([Completion((1,), (2,)), Completion((1,), (3,))], said([1, 2], "best_of"))
    four = element([Completion((4,), (n,)) for n in range(4)], said([2, 1, 3, 4]))
    batch = collate([two, four])
    assert batch.mask_JK.tolist() == [[True, True, False, False], [True] * 4]
    scores_N = scores_of(net, batch, "fp32").detach().requires_grad_()
    element_losses(scores_N, nobody(), batch)[0].backward()
    assert scores_N.grad[2:].tolist() == [0.0] * 4
    assert (scores_N.grad[:2] != 0).all()


def test_silent_bug_pairs_of_a_prompt_are_told_apart_by_the_shuffle():
    """Ouyang 2022, section 3.5: such pairs overfit. All that was said of a prompt is one element, each text once."""
    format = FORMATS["plain"]
    judged = [said([1, 2], texts=["a", "b"], item="1"), said([2, 1], texts=["b", "c"], item="2", labeler="v"),
              said([1, 2], texts=["x", "y"], prompt="other", item="3")]  # fmt: skip
    from rein.bpe.byte_level import ByteLevelBPE

    people = People(judged, least=1)
    encoder = Encoder(format, ByteLevelBPE(()), 64)
    found = elements(judged, encoder, people, by="prompt")
    assert [len(each.completions) for each in found] == [3, 2]  # b is there once
    assert [[choice.places for choice in each.choices] for each in found] == [[(0, 1), (1, 2)], [(0, 1)]]
    assert [choice.labeler for choice in found[0].choices] == [people.place["w"], people.place["v"]]
    assert len(elements(judged, encoder, people, by="judgement")) == 3


# ---------------------------------------------------------------------------------------------------- texts that fit


def test_comparisons_whose_texts_are_equal_once_they_are_cut_are_left_out_and_counted():
    from rein.bpe.byte_level import ByteLevelBPE

    encoder = Encoder(
        FORMATS["tldr"].__class__("short", ("{prompt}",), "", response_tokens=4, cut_responses=True),
        ByteLevelBPE(()),
        64,
    )
    judged = [said([1, 2], texts=["abcd", "abce"]), said([1, 2], texts=["abcd", "xyz"], prompt="other")]
    found = elements(judged, encoder, People(judged), by="prompt")
    assert len(found) == 1
    assert dict(encoder.left_out) == {"equal texts, once they are tokens": 1}


def test_prompts_longer_than_the_context_are_left_out_or_lose_their_beginning_for_all_candidates_alike():
    from rein.bpe.byte_level import ByteLevelBPE

    judged = [said([1, 2], texts=["ab", "abcdef"], prompt="0123456789" * 3)]
    drop, cut = (Encoder(FORMATS["plain"], ByteLevelBPE(()), 20, how) for how in ("drop", "cut"))
    assert elements(judged, drop, People(judged), by="prompt") == []
    assert dict(drop.left_out) == {"query and response are too long for the context": 1}
    (found,) = elements(judged, cut, People(judged), by="prompt")
    assert found.longest == 20
    assert len({each.query for each in found.completions}) == 1
    long = [said([1, 2], texts=["x" * 40, "y"])]
    assert elements(long, drop, People(long), by="prompt") == []
    assert dict(drop.left_out)["query and response are too long for the context"] == 2
    short = Encoder(replace(FORMATS["plain"], response_tokens=8), ByteLevelBPE(()), 20, "cut")
    (found,) = elements(long, short, People(long), by="prompt")
    assert [len(each.response) for each in found.completions] == [8, 2]
    assert found.completions[0].response[-1] == ByteLevelBPE(()).eot_id


def test_pairs_are_compared_by_who_wrote_them_and_counted_once():
    each = element([Completion((1,), (n,)) for n in range(3)], said([1, 2, 2]), said([2, 1, 2], "best_of"))
    completions, pairs = compared([each, each])
    assert len(completions) == 6
    assert [(one.better, one.worse) for one in pairs] == [
        (0, 1), (0, 2), (1, 0), (1, 2), (3, 4), (3, 5), (4, 3), (4, 5)
    ]  # fmt: skip
    scores_N = torch.tensor([2.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    assert pairs_right(scores_N, collate([each, each])) == (2 + 2 * 0.5, 4)  # of the rankings: equal scores are half


def test_people_are_parameters_beside_the_model():
    net, people = small(), People([said([1, 2])] * 9, least=1)
    names = [name for name, _ in nn.ModuleDict({"net": net, "people": people}).named_parameters()]
    assert {"people.w_L", "people.tie", "net.weight", "net.b"} <= set(names)
