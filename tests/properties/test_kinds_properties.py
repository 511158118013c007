"""What holds of feedback and of its losses whatever is said, and whatever scores a model gives."""

from __future__ import annotations

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.feedback.kinds import KINDS, BadValue
from rein.feedback.project import FLAGS, Question
from rein.losses import best_of, demonstration, flags, likert, pairwise, ranking, rating

patiently = settings(deadline=None)  # the machine may be busy

TIES = [("drop", {}), ("half", {}), ("rao_kupper", {"theta": 1.5}), ("davidson", {"nu": 0.5})]
AXES = ("overall", "accuracy", "coverage", "coherence")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
written = texts.filter(str.strip)
finite = st.floats(-50, 50, allow_nan=False)
extreme = st.floats(-1e4, 1e4, allow_nan=False)
counts = st.integers(2, 9)


def question(name: str) -> Question:
    return Question(name, name, points=9 if name == "comparison" else 7)


def dense(ranks: list[int]) -> list[int]:
    levels = sorted(set(ranks))
    return [levels.index(rank) + 1 for rank in ranks]


@st.composite
def said(draw):
    """A kind, a number of candidates, and a good value about them."""
    name = draw(st.sampled_from([name for name in KINDS if name not in ("press", "event")]))
    kind = KINDS[name]
    n = draw(st.integers(max(1, kind.least), kind.most))
    each = lambda one: st.lists(one, min_size=n, max_size=n)  # noqa: E731
    mark = st.integers(1, 7)
    points = draw(st.integers(1, 9))
    value = {
        "rating": st.builds(lambda r: {"ratings": r}, each(mark)),
        "comparison": st.just({"choice": None if points == 5 else int(points > 5), "points": points}),
        "best_of": st.builds(lambda k: {"best": k}, st.integers(0, n - 1)),
        "ranking": st.builds(lambda r: {"ranks": dense(r)}, each(st.integers(1, n))),
        "likert": st.builds(lambda a: {"axes": a}, each(st.fixed_dictionaries(dict.fromkeys(AXES, mark)))),
        "flags": st.builds(lambda f: {"flags": f}, each(st.lists(st.sampled_from([*FLAGS]), unique=True))),
        "demonstration": st.builds(lambda t: {"text": t}, written),
        "edit": st.builds(lambda k, t: {"candidate": k, "text": t}, st.integers(0, n - 1), written),
        "notes": st.builds(lambda t: {"notes": t}, each(written)),
        "skip": st.builds(lambda t: {"reason": t}, written),
    }[name]
    return name, n, draw(value), draw(st.permutations(range(n)))


@patiently
@given(said())
def test_a_good_value_is_clean_and_stays_so_through_json_and_any_order(case):
    name, n, value, order = case
    kind = KINDS[name]
    clean = kind.check(json.loads(json.dumps(value)), question(name), n)
    assert kind.check(clean, question(name), n) == clean
    by_candidate = kind.reorder(clean, order)
    assert kind.check(by_candidate, question(name), n) == by_candidate
    assert kind.unorder(by_candidate, order) == clean
    assert kind.reorder(kind.unorder(clean, order), order) == clean


@patiently
@given(said())
def test_what_is_better_does_not_depend_on_where_it_was_shown(case):
    name, n, value, order = case
    kind = KINDS[name]
    clean = kind.check(value, question(name), n)
    better, even = kind.pairs(clean, n)
    better_moved, even_moved = kind.pairs(kind.reorder(clean, order), n)
    assert {(order[i], order[j]) for i, j in better} == set(better_moved)
    assert {frozenset((order[i], order[j])) for i, j in even} == {frozenset(pair) for pair in even_moved}
    both = [frozenset(pair) for pair in better + even]
    assert len(set(both)) == len(both)
    if name in ("comparison", "ranking", "rating", "likert"):
        assert len(both) == n * (n - 1) // 2


@patiently
@given(said(), st.lists(st.text(max_size=9), min_size=9, max_size=9))
def test_what_is_measured_fits_the_pairs(case, outputs):
    name, n, value, order = case
    kind = KINDS[name]
    found = kind.measure(kind.check(value, question(name), n), question(name), outputs[:n], order)
    better, _ = kind.pairs(value, n)
    if found.choice is not None and found.choice >= 0:
        assert {j for i, j in better if i == found.choice} == set(range(n)) - {found.choice}
    assert (found.left_side is not None) == (n == 2 and found.choice in (0, 1))
    if found.left_side is not None:
        assert found.left_side == (order[0] == found.choice)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
names = ["ratings", "choice", "points", "best", "ranks", "axes", "flags", "text", "candidate", "notes", "reason"]
names += ["value", "t", "k", "credits", "kind"]


@patiently
@given(st.sampled_from(sorted(KINDS)), nested | st.dictionaries(st.sampled_from(names), nested), st.booleans())
def test_whatever_comes_is_clean_or_refused(name, value, strict):
    n = max(1, KINDS[name].least)
    try:
        clean = KINDS[name].check(value, question(name), n, strict=strict)
    except BadValue as bad:
        said = bad.problem
    else:
        said = json.dumps(clean, allow_nan=False, ensure_ascii=False)
        KINDS[name].measure(clean, question(name), ["a"] * n, range(n))
    said.encode("utf-8")
    assert "\n" not in said


# ---------------------------------------------------------------------------------------------------- losses


def tensor(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@st.composite
def ranked(draw, scores=finite):
    k = draw(counts)
    rows = draw(st.integers(1, 4))
    each = st.lists(scores, min_size=k, max_size=k)
    return (
        tensor([draw(each) for _ in range(rows)]),
        torch.tensor([dense(draw(st.lists(st.integers(1, k), min_size=k, max_size=k))) for _ in range(rows)]),
    )


@patiently
@given(ranked(), finite, st.sampled_from(TIES))
def test_a_loss_of_preferences_ignores_what_is_added_to_every_score(case, shift, ties):
    scores_BK, ranks_BK = case
    name, more = ties
    near = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(
        ranking(scores_BK + shift, ranks_BK, ties=name, **more), ranking(scores_BK, ranks_BK, ties=name, **more), **near
    )
    first_B = ranks_BK.argmin(dim=1)
    torch.testing.assert_close(best_of(scores_BK + shift, first_B), best_of(scores_BK, first_B), **near)
    a_B, b_B = scores_BK[:, 0], scores_BK[:, 1]
    torch.testing.assert_close(pairwise(a_B + shift, b_B + shift), pairwise(a_B, b_B), **near)


@patiently
@given(finite, finite, st.floats(0, 1), st.floats(0, 5))
def test_a_comparison_told_from_the_other_side_has_the_same_loss(a, b, p, margin):
    a, b, p, margin = (torch.tensor(x, dtype=torch.float64) for x in (a, b, p, margin))
    torch.testing.assert_close(pairwise(a, b, p=p, margin=margin), pairwise(b, a, p=1 - p, margin=margin))


@patiently
@given(finite, finite, st.sampled_from(range(1, 10)))
def test_swapping_the_sides_of_a_comparison_flips_its_label_and_keeps_its_loss(a, b, points):
    kind, asked = KINDS["comparison"], question("comparison")
    value = {"choice": None if points == 5 else int(points > 5), "points": points}
    swapped = kind.reorder(value, [1, 0])
    assert (swapped["points"], swapped["choice"]) == (
        10 - points,
        None if value["choice"] is None else 1 - value["choice"],
    )
    torch.testing.assert_close(
        kind.loss(value, asked, tensor([a, b])), kind.loss(swapped, asked, tensor([b, a])), rtol=1e-12, atol=1e-12
    )


@patiently
@given(finite, finite)
def test_of_two_candidates_a_comparison_a_ranking_and_a_best_of_are_the_same(a, b):
    scores = tensor([a, b])
    found = [
        KINDS[name].loss(value, question(name), scores)
        for name, value in (
            ("comparison", {"choice": 1, "points": 7}),
            ("ranking", {"ranks": [2, 1]}),
            ("best_of", {"best": 1}),
        )
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0], found[2], rtol=1e-9, atol=1e-12)


@patiently
@given(ranked(), st.randoms(use_true_random=False), st.sampled_from(TIES))
def test_the_order_of_candidates_and_of_rows_changes_nothing(case, draw, ties):
    scores_BK, ranks_BK = case
    name, more = ties
    columns, rows = list(range(scores_BK.shape[1])), list(range(scores_BK.shape[0]))
    draw.shuffle(columns)
    draw.shuffle(rows)
    found = ranking(scores_BK, ranks_BK, ties=name, **more)[rows]
    moved = ranking(scores_BK[rows][:, columns], ranks_BK[rows][:, columns], ties=name, **more)
    torch.testing.assert_close(found, moved, rtol=1e-9, atol=1e-9)


@patiently
@given(ranked(), st.integers(1, 4), st.sampled_from([0.0, 1e30, float("inf"), float("nan")]), st.sampled_from(TIES))
def test_candidates_that_are_not_there_change_no_loss_and_no_gradient(case, pad, junk, ties):
    scores_BK, ranks_BK = case
    name, more = ties
    rows, k = scores_BK.shape
    mask_BK = torch.arange(k + pad).expand(rows, -1) < k
    first_B = ranks_BK.argmin(dim=1)
    applies_BKF = (ranks_BK > 1).double()[..., None].expand(-1, -1, 2)

    def losses(scores, ranks, applies, mask):
        marks = ranks.double()
        return [
            ranking(scores, ranks, mask_BK=mask, ties=name, **more),
            best_of(scores, first_B, mask_BK=mask),
            rating(scores, marks, mask_BK=mask),
            likert(scores[..., None], marks[..., None], mask_BK=mask),
            flags(scores[..., None].expand(-1, -1, 2), applies, mask_BK=mask),
            demonstration(scores, torch.ones_like(ranks, dtype=torch.bool) if mask is None else mask),
        ]

    bare = scores_BK.clone().requires_grad_()
    wide = torch.cat([scores_BK, torch.full((rows, pad), junk, dtype=torch.float64)], dim=1).requires_grad_()
    ranks_wide = torch.cat([ranks_BK, torch.full((rows, pad), 1)], dim=1)
    applies_wide = torch.cat([applies_BKF, torch.full((rows, pad, 2), float("nan"), dtype=torch.float64)], dim=1)
    for one, other in zip(
        losses(bare, ranks_BK, applies_BKF, None), losses(wide, ranks_wide, applies_wide, mask_BK), strict=True
    ):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
        (wanted,) = torch.autograd.grad(one.sum(), bare)
        (found,) = torch.autograd.grad(other.sum(), wide)
        torch.testing.assert_close(found[:, :k], wanted, rtol=1e-12, atol=1e-12)
        assert not found[:, k:].any()


@patiently
@given(ranked(scores=extreme), st.sampled_from(TIES))
def test_scores_of_ten_thousand_have_a_finite_loss_and_gradient(case, ties):
    scores_BK, ranks_BK = case
    name, more = ties
    scores_BK = scores_BK.float().requires_grad_()  # as a model gives them
    for loss in (
        ranking(scores_BK, ranks_BK, ties=name, **more),
        best_of(scores_BK, ranks_BK.argmin(dim=1)),
        pairwise(scores_BK[:, 0], scores_BK[:, 1], p=torch.full((len(scores_BK),), 0.3)),
        flags(scores_BK[..., None], (ranks_BK > 1).float()[..., None]),
    ):
        assert torch.isfinite(loss).all()
        assert (loss >= 0).all()
        (gradient,) = torch.autograd.grad(loss.sum(), scores_BK)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("name", "more"), TIES)
def test_a_worse_score_for_the_better_one_costs_more(name, more):
    draw = random.Random(1)
    for _ in range(20):
        low, high = sorted(draw.uniform(-5, 5) for _ in range(2))
        right, wrong = (
            ranking(tensor([scores]), torch.tensor([[1, 2]]), ties=name, **more)
            for scores in ((high, low), (low, high))
        )
        assert right < wrong
