"""What is learned of labelers: simulated ones are recovered, alone and beside a model; confidence by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.feedback.judged import Candidate, Judged
from rein.feedback.labelers import Habits, Labeler, score_table
from rein.feedback.trust import OTHERS, People, agreement, certainty, consensus, dawid_skene, with_certainty
from rein.losses import ranking

COMPARED = [{"name": "q", "kind": "comparison", "points": 9, "ties": True}]


def simulated(habits: dict[str, Habits], n: int, seed: int = 0, each: int = 0):
    """Judgements of `n` pairs with known scores by labelers with known habits, and the scores by text."""
    random = np.random.default_rng(seed)
    scores = {f"text {i}": float(random.standard_normal()) for i in range(2 * n)}
    gold = score_table([{"text": text, "gold": score} for text, score in scores.items()])
    people = [Labeler(name, gold, one, seed) for name, one in habits.items()]
    found = []
    for i in range(n):
        texts = f"text {2 * i}", f"text {2 * i + 1}"
        chosen = people if not each else [people[(i + k) % len(people)] for k in range(each)]
        for person in chosen:
            card = {"context": {"prompt": str(i)}, "candidates": [{"text": text} for text in texts],
                    "questions": COMPARED}  # fmt: skip
            said = person.answer(card).answers["q"]
            choice = said["choice"]
            marks = (1.0, 1.0) if choice is None else (1.0 + choice, 2.0 - choice)
            found.append(Judged({"prompt": str(i)}, tuple(map(Candidate, texts)), "ranking", marks, person.name,
                                str(i), str(i), abs(said["points"] - 5)))  # fmt: skip
    return found, scores


def fitted(judged, scores, people, *, rounds=60):
    """The parameters of labelers and of ties, and a scale of the scores, by maximising what the losses say."""
    scale = torch.nn.Parameter(torch.ones(()))
    scores_JK = torch.tensor([[scores[c.text] for c in one.candidates] for one in judged])
    marks_JK = torch.tensor([one.marks for one in judged])
    labeler_J = torch.tensor([people.place.get(one.labeler, 0) for one in judged])
    learned = [p for p in (*people.parameters(), scale) if p.requires_grad]
    optimizer = torch.optim.LBFGS(learned, max_iter=rounds, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scaled_JK = scale * scores_JK * people.scales(labeler_J)[:, None]
        loss = ranking(scaled_JK, marks_JK, ties=people.ties, **people.tie_terms()).sum() + people.penalty()
        loss.backward()
        return loss

    optimizer.step(closure)
    return scale.item()


# ---------------------------------------------------------------------------------------------------- temperatures


def test_the_temperatures_of_simulated_labelers_are_recovered():
    """Their felt difference is logistic with the labeler's temperature, so that Bradley and Terry's model is true."""
    true = {"sharp": 0.4, "usual": 1.0, "vague": 2.5}
    judged, scores = simulated({name: Habits(temperature=t) for name, t in true.items()}, 1500)
    people = People(judged, prior_sd=2.0)
    scale = fitted(judged, scores, people)
    found = {name: t / scale for name, t in people.temperatures().items()}
    for name, t in true.items():
        assert found[name] == pytest.approx(t, rel=0.15), name
    assert math.prod(people.temperatures().values()) == pytest.approx(1, abs=0.05)  # the prior's


def test_without_temperatures_nothing_is_learned_of_labelers():
    judged, scores = simulated({"a": Habits(temperature=0.3), "b": Habits(temperature=3.0)}, 50)
    people = People(judged, temperatures=False)
    fitted(judged, scores, people)
    assert people.temperatures() == {"a": 1.0, "b": 1.0}


def test_labelers_with_one_row_share_a_temperature_and_are_named():
    judged, _ = simulated({"a": Habits()}, 30)
    strangers, _ = simulated({f"once{n}": Habits() for n in range(6)}, 6, each=1)
    people = People([*judged, *strangers], least=5)
    assert people.names == [OTHERS, "a"]
    assert people.few == [f"once{n}" for n in range(6)]
    assert {people.place[name] for name in people.few} == {0}


@pytest.mark.parametrize(("ties", "name"), [("rao_kupper", "theta"), ("davidson", "nu")])
def test_how_often_equals_tie_is_recovered(ties, name):
    random, true = np.random.default_rng(1), 1.8
    scores = {f"{i}": float(random.standard_normal()) for i in range(6000)}
    judged = []
    for i in range(0, 6000, 2):
        a, b = math.exp(scores[f"{i}"]), math.exp(scores[f"{i + 1}"])
        if ties == "rao_kupper":
            first, second = a / (a + true * b), b / (b + true * a)
        else:
            total = a + b + true * math.sqrt(a * b)
            first, second = a / total, b / total
        draw = random.random()
        marks = (1.0, 2.0) if draw < first else (2.0, 1.0) if draw < first + second else (1.0, 1.0)
        judged.append(Judged({}, (Candidate(f"{i}"), Candidate(f"{i + 1}")), "ranking", marks, "w", f"{i}", f"{i}"))
    people = People(judged, temperatures=False, ties=ties, tie_share=0.5)
    scale = fitted(judged, scores, people)
    assert people.tie_terms()[name].item() == pytest.approx(true, rel=0.07)
    assert scale == pytest.approx(1, rel=0.07)


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.02, 0.8))
def test_ties_begin_as_often_as_they_are(share):
    theta = People([], ties="rao_kupper", tie_share=share).tie_terms()["theta"].item()
    nu = People([], ties="davidson", tie_share=share).tie_terms()["nu"].item()
    assert (theta - 1) / (theta + 1) == pytest.approx(share, rel=1e-4)
    assert nu / (2 + nu) == pytest.approx(share, rel=1e-4)


# --------------------------------------------------------------------------------------------------- Dawid and Skene


def votes(accuracies, units, seed, each):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, units)
    rows = [
        (unit, labeler, int(truth[unit] if random.random() < accuracies[labeler] else 1 - truth[unit]))
        for unit in range(units)
        for labeler in random.choice(len(accuracies), each, replace=False)
    ]
    return truth, list(map(list, zip(*rows, strict=True)))


def test_the_accuracies_of_labelers_and_the_right_sides_are_recovered():
    true = [0.95, 0.9, 0.8, 0.7, 0.55]
    truth, rows = votes(true, 3000, 0, 4)
    found = dawid_skene(*rows)
    assert found.accuracy_L == pytest.approx(true, abs=0.025)
    majority = Counter()
    for unit, _, side in zip(*rows, strict=True):
        majority[unit] += 1 if side == 0 else -1
    by_majority = np.mean(
        [0.5 if not majority[unit] else (majority[unit] > 0) == (truth[unit] == 0) for unit in range(3000)]
    )
    assert np.mean((found.p_U > 0.5) == (truth == 0)) > by_majority
    sure = np.abs(found.p_U - 0.5) + 0.5  # calibrated
    assert sure.mean() == pytest.approx(np.mean((found.p_U > 0.5) == (truth == 0)), abs=0.02)


def test_who_is_always_turned_around_is_found_out():
    truth, rows = votes([0.9, 0.9, 0.9, 0.1], 500, 1, 4)
    found = dawid_skene(*rows)
    assert found.accuracy_L[3] < 0.15
    # As good as four who are right 90% of the time: P(3 or 4 of them are) + ½ P(2 are) = 0.972, ± 3 · 0.0074.
    assert np.mean((found.p_U > 0.5) == (truth == 0)) == pytest.approx(0.972, abs=0.0222)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_naming_the_sides_the_other_way_changes_nothing(seed):
    _, (units, labelers, sides) = votes([0.9, 0.7, 0.6], 12, seed, 2)
    one, other = dawid_skene(units, labelers, sides), dawid_skene(units, labelers, [1 - side for side in sides])
    assert one.p_U == pytest.approx(1 - other.p_U, abs=1e-6)
    assert one.accuracy_L == pytest.approx(other.accuracy_L, abs=1e-6)


def test_the_posterior_of_two_votes_is_bayes_rule():
    found = dawid_skene([0, 0], [0, 1], [0, 0], prior=(8e6, 2e6))  # both are known to be right 80% of the time
    assert found.p_U[0] == pytest.approx(0.8**2 / (0.8**2 + 0.2**2), abs=1e-4)


def test_a_consensus_is_one_comparison_for_each_pair_with_its_probability():
    judged, _ = simulated({"a": Habits(temperature=0.2), "b": Habits(temperature=0.2), "c": Habits(noise=0.5)}, 300)
    found, accuracies = consensus(judged)
    assert len(found) == 300
    assert all(0.5 <= one.p <= 1 and one.marks in ((1.0, 2.0), (2.0, 1.0)) for one in found)
    assert accuracies["c"] < min(accuracies["a"], accuracies["b"]) - 0.2
    tie = Judged({}, (Candidate("x"), Candidate("y")), "ranking", (1.0, 1.0), "a", "tie", "tie")
    again, _ = consensus([*judged, tie])
    assert next(one for one in again if one.item == "tie").marks == (1.0, 1.0)
    three = Judged({}, tuple(map(Candidate, "xyz")), "ranking", (1.0, 2.0, 3.0), "a", "k", "k")
    assert len(consensus([three])[0]) == 3
    with pytest.raises(UserError, match="Nobody said of two candidates that one is better"):
        consensus([tie])


# -------------------------------------------------------------------------------------------------------- confidence


def said(item, labeler, choice, points):
    marks = (1.0, 2.0) if choice == 0 else (2.0, 1.0)
    return Judged({}, (Candidate("x"), Candidate("y")), "ranking", marks, labeler, item, item, points)


def test_confidence_as_others_agree_by_hand():
    """Of level 1, 3 in 4 agree; of level 4, all: A = ⅞, q = (1 + √(2 · ⅞ − 1)) / 2 = 0.933, p_1 = 0.683 / 0.866."""
    judged = []
    for n in range(40):
        level, same = (1, n % 4 != 0) if n < 20 else (4, True)
        judged += [said(f"i{n}", "a", 0, level), said(f"i{n}", "b", int(not same), level)]
    q = (1 + math.sqrt(2 * 0.875 - 1)) / 2
    expected = [(rate - (1 - q)) / (2 * q - 1) for rate in (0.75, 1.0)]
    found = certainty(judged, "empirical")
    assert found[1] == pytest.approx(expected[0])
    assert found[4] == pytest.approx(min(1.0, expected[1]))
    assert found == sorted(found)
    p_J = [one.p for one in with_certainty(judged, found)]
    assert p_J[0] == found[1]
    assert p_J[-1] == found[4]


def test_confidence_of_simulated_labelers_rises_with_the_points():
    judged, _ = simulated({name: Habits(temperature=0.6, confidence_noise=0.3) for name in "abc"}, 700)
    found = certainty(judged, "empirical")
    assert 0.5 <= found[1] < found[2] < found[4] <= 1.0


def test_confidence_without_repeats_or_agreement_is_refused():
    alone = [said(f"i{n}", "a", 0, 2) for n in range(100)]
    with pytest.raises(UserError, match=r"(?s)0 judgements stand beside.*--confidence logistic"):
        certainty(alone, "empirical")
    against = [said(f"i{n}", labeler, int(labeler == "b"), 2) for n in range(60) for labeler in "ab"]
    with pytest.raises(UserError, match="no more than by chance"):
        certainty(against, "empirical")
    assert certainty([], "ignore") == [1.0] * 5


def test_how_often_two_labelers_agree_is_counted_once_for_each_two():
    rows = [said("i", "a", 0, 1), said("i", "b", 0, 1), said("i", "c", 1, 1), said("j", "a", 0, 1)]
    same, topics = agreement(rows)
    assert sorted(same) == [0.0, 0.0, 1.0]
    assert topics == ["i"] * 3
