"""What a round comes to: whose answers are one cluster, and which prompts are held out."""

from __future__ import annotations

import random

import pytest

from rein.evals.policies_measures import Duel, rates
from rein.loop.collecting import held_out
from rein.loop.measure import win_rate


def row(prompt, item, won, texts=("a text", "another")):
    outputs = [{"text": text, "policy": policy} for text, policy in zip(texts, "xy", strict=True)]
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"context": prompt}
    return {**asked, "group_id": item, "labeler": "w", "outputs": outputs, "choice": None if won is None else 1 - won}


@pytest.mark.parametrize("asked", [str, lambda n: {"title": str(n), "post": "p"}])
def test_a_prompts_items_and_labelers_are_one_cluster(asked):
    """Prompts are gone through again and again: items of one prompt that all agree say no more than one of them."""
    wins = [1, 1, 0, 1, 0, None]
    once = [row(asked(n), f"i{n}", won) for n, won in enumerate(wins)]
    again = [row(asked(n), f"i{n}/{item}", won) for n, won in enumerate(wins) for item in range(5) for _ in range(2)]
    few, many = (win_rate(rows, "x", "y")["raw"] for rows in (once, again))
    assert (few["n"], many["n"]) == (6, 60)
    assert [many[name] for name in ("value", "low", "high")] == pytest.approx(
        [few[name] for name in ("value", "low", "high")]
    )


def test_one_prompt_says_nothing_of_others_however_many_answer_it():
    found = win_rate([row("p", "i", 1)] * 5, "x", "y")
    assert found == {"raw": {"value": 1.0, "low": None, "high": None, "n": 5}, "controlled": None}
    found = win_rate([row("p", "i", 1), row("p", "i", 0)] * 10, "x", "y")
    assert (found["controlled"]["low"], found["controlled"]["high"]) == (None, None)
    assert win_rate([row("p", "i", 1)], "x", "z") is None
    assert win_rate([row("p", "i", 1)], "x", "x") is None


def test_it_is_the_win_rate_of_rein_eval_policies_and_empty_texts_may_win():
    rng = random.Random(0)
    rows = [row(f"p{n // 3}", f"i{n}", rng.choice([0, 1, None]), ("t" * rng.randrange(9), "u" * rng.randrange(9)))
            for n in range(30)]  # fmt: skip
    wins = [0.5 if each["choice"] is None else 1.0 - each["choice"] for each in rows]
    of_x, of_y = ([len(each["outputs"][place]["text"]) for each in rows] for place in (0, 1))
    expected = rates(Duel("x", "y", "", wins, of_x, of_y, [each["prompt"] for each in rows]))
    assert 0 in of_x
    assert win_rate(rows, "x", "y") == {name: expected[name] for name in ("raw", "controlled")}


@pytest.mark.parametrize(("n", "won", "told"), [(20, [1, 0], True), (18, [1, 0], False), (60, [1], False)])
def test_at_equal_length_nothing_is_said_of_few_answers_or_of_answers_all_alike(n, won, told):
    """A fit to either is its prior, and the bootstrap's interval of it is far too narrow; the raw rate stays."""
    rows = [row(f"p{k}", f"i{k}", won[k % len(won)], ("t" * (k % 7), "u" * (k % 5))) for k in range(n)]
    found = win_rate(rows, "x", "y")
    assert found["raw"]["low"] is not None
    assert (found["controlled"] is not None) == told
    whole = rates(Duel("x", "y", "", [float(won[k % len(won)]) for k in range(n)], [k % 7 for k in range(n)],
                       [k % 5 for k in range(n)], [f"p{k}" for k in range(n)]))  # fmt: skip
    assert [whole[name] is not None for name in ("controlled", "stratified", "length_logit")] == [told] * 3


def test_no_prompt_changes_sides_as_more_are_answered():
    rows = [{"prompt": f"say {n}"} for n in range(1000)]
    few, many = held_out(rows[:500], 0.1), held_out(rows, 0.1)
    assert few == many[:500]
    sizes = {half: sum(each["split"] == half for each in many) for half in ("valid", "test", "train")}
    assert 30 < sizes["valid"] < 70
    assert 30 < sizes["test"] < 70
    twice = held_out(rows + rows, 0.1)
    assert twice[:1000] == twice[1000:] == many


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("n", [3, 5, 20])
def test_both_halves_have_a_prompt_however_few_there_are(n, share):
    splits = [each["split"] for each in held_out([{"context": {"title": str(n)}} for n in range(n)], share)]
    assert {"valid", "test"} < set(splits)
