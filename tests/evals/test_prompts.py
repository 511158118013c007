"""prompts.py: which shots stand in front of a problem, how many fit, and what their tokens are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.bpe.byte_level import ByteLevelBPE, from_openai
from rein.evals.prompts import CannotAsk, Prompter
from rein.evals.task import Problem, Task, free_form, multiple_choice


class Letters:
    """A model that is only asked how long it is and how it encodes: one token a byte."""

    def __init__(self, n_ctx=400, splits_at_space=True, eot_id=256):
        self.n_ctx, self.splits_at_space, self.eot_id = n_ctx, splits_at_space, eot_id
        self._tokenizer = ByteLevelBPE(())
        self.encoded = []

    def encode(self, text):
        self.encoded.append(text)
        return self._tokenizer.encode(text).tolist()

    def decode(self, ids):
        return self._tokenizer.decode(ids)


def problems(n, start=0):
    return [
        multiple_choice(f"p{at}", f"Question: {at}?\nAnswer:", [f"no {at}", f"yes {at}"], 1)
        for at in range(start, start + n)
    ]


TASK = Task("toy", "Toy", lambda data, split: [], lambda row: [], shots=5)


def texts(model, asked):
    return [model.decode([*context, *completion]) for context, completion in asked.options]


def test_shots_stand_in_front_with_their_right_answers():
    model, (one, two, problem) = Letters(), problems(3)
    prompter = Prompter(model, TASK, [one, two])
    (asked,) = prompter.ask(problem, [2])
    expected = {
        f"Question: {a}?\nAnswer: yes {a}\n\nQuestion: {b}?\nAnswer: yes {b}\n\nQuestion: 2?\nAnswer: {answer} 2"
        for a, b in ((0, 1), (1, 0))
        for answer in ("no", "yes")
    }
    found = texts(model, asked)
    assert set(found) < expected
    assert [text.endswith(end) for text, end in zip(found, ("no 2", "yes 2"), strict=True)] == [True, True]
    assert model.decode(asked.options[0][1]) == " no 2"
    assert asked.effective_k == 2


def test_without_shots_the_problem_stands_alone():
    model = Letters()
    (asked,) = Prompter(model, TASK, problems(3)).ask(problems(1, 7)[0], [0])
    assert texts(model, asked)[0] == "Question: 7?\nAnswer: no 7"


def test_a_description_stands_in_front_of_everything():
    model, task = Letters(), replace(TASK, description="Answer well.")
    for k, n_shots in ((0, 0), (1, 1)):
        (asked,) = Prompter(model, task, problems(3)).ask(problems(1, 7)[0], [k])
        text = texts(model, asked)[0]
        assert text.startswith("Answer well.\n\nQuestion:")
        assert text.count("Question:") == n_shots + 1


def test_a_description_may_be_for_shots_alone():
    model, task = Letters(), replace(TASK, description="Answer well.", described="few")
    zero, one = Prompter(model, task, problems(3)).ask(problems(1, 7)[0], [0, 1])
    assert "Answer well." not in texts(model, zero)[0]
    assert "Answer well." in texts(model, one)[0]


def test_smaller_numbers_of_shots_are_the_first_of_larger_ones():
    model = Letters(n_ctx=4000)
    prompter = Prompter(model, TASK, problems(30))
    prompts = [texts(model, asked)[0] for asked in prompter.ask(problems(1, 50)[0], [1, 4, 16, 30])]
    for fewer, more in pairwise(prompts):
        shots = fewer[: fewer.rindex("\n\n")]
        assert more.startswith(shots)


def test_the_shots_of_a_problem_do_not_depend_on_how_many_are_asked_for():
    prompter = Prompter(Letters(n_ctx=4000), TASK, problems(30))
    problem = problems(1, 50)[0]
    assert prompter.ask(problem, [3]) == prompter.ask(problem, [3, 20])[:1] == prompter.ask(problem, [20, 3])[1:]


def test_each_problem_draws_its_own_shots_and_every_shot_is_drawn():
    prompter = Prompter(Letters(), TASK, problems(10))
    first = Counter(prompter.ask(problem, [1])[0].options[0][0][:12] for problem in problems(600, 100))
    assert len(first) == 10
    assert min(first.values()) > 30  # 60 are expected of each


def test_problems_of_a_draw_share_their_shots():
    model = Letters(n_ctx=4000)
    prompter = Prompter(model, TASK, problems(30), draws=3)
    by_draw = {}
    for problem in problems(60, 100):
        (asked,) = prompter.ask(problem, [4])
        text = model.decode(asked.options[0][0])
        by_draw.setdefault(asked.draw, set()).add(text[: text.rindex("\n\n")])
    assert set(by_draw) == {0, 1, 2}
    assert all(len(shots) == 1 for shots in by_draw.values())


def test_a_problem_is_never_its_own_shot():
    model, own = Letters(n_ctx=4000), problems(5)
    for problem in own:
        (asked,) = Prompter(model, TASK, own, among_shots=True).ask(problem, [5])
        assert asked.effective_k == 4
        assert texts(model, asked)[0].count(f"Question: {problem.id[1:]}?") == 1


def test_another_seed_draws_others():
    own, problem = problems(30), problems(1, 50)[0]
    seeds = {Prompter(Letters(), TASK, own, seed=seed).ask(problem, [2])[0].options for seed in range(8)}
    assert len(seeds) == 8


@settings(max_examples=60, deadline=None)
@given(n_ctx=st.integers(45, 500), k=st.integers(0, 20), splits=st.booleans(), described=st.booleans())
def test_as_many_shots_as_fit_and_no_more(n_ctx, k, splits, described):
    model = Letters(n_ctx, splits)
    task = replace(TASK, description="Answer." if described else "")
    prompter, problem = Prompter(model, task, problems(20)), problems(1, 50)[0]
    (asked,) = prompter.ask(problem, [k])
    longest = max(len(context) + len(completion) - 1 for context, completion in asked.options)
    assert longest <= n_ctx
    if asked.effective_k < k:
        roomy = Prompter(Letters(10_000, splits), task, problems(20))
        (more,) = roomy.ask(problem, [asked.effective_k + 1])
        assert max(len(context) + len(completion) - 1 for context, completion in more.options) > n_ctx


def test_a_shot_may_count_for_several():
    shots = [replace(problem, counts=3) for problem in problems(10)]
    (asked,) = Prompter(Letters(4000), TASK, shots).ask(problems(1, 50)[0], [7])
    assert asked.effective_k == 9


def test_what_does_not_fit_even_alone_is_said():
    with pytest.raises(CannotAsk, match="even without shots it is 5 tokens too long for the model's context of 20"):
        Prompter(Letters(20), TASK, problems(3)).ask(problems(1, 7)[0], [0])


def test_a_completion_without_tokens_is_said():
    problem = Problem("p", options=(multiple_choice("x", "Q", ["a", "b"], 0).options[0],), gold=0)
    empty = replace(problem, options=(replace(problem.options[0], completion=""),))
    with pytest.raises(CannotAsk, match="its completion '' has no tokens"):
        Prompter(Letters(), TASK, []).ask(empty, [0])


def test_nothing_in_front_is_the_end_of_text():
    problem = Problem("p", options=multiple_choice("x", "", ["a", "b"], 0).options, gold=0)
    (asked,) = Prompter(Letters(), TASK, []).ask(problem, [0])
    assert [context for context, _ in asked.options] == [(256,), (256,)]
    with pytest.raises(CannotAsk, match="knows no end of text"):
        Prompter(Letters(eot_id=None), TASK, []).ask(problem, [0])


def test_free_form_leaves_room_for_the_answer():
    task = replace(TASK, max_new_tokens=30)
    problem = free_form("f", "Q: why?\n\nA:", ["because"])
    (asked,) = Prompter(Letters(100), task, [free_form(f"s{n}", f"Q: {n}?\n\nA:", ["so"]) for n in range(9)]).ask(
        problem, [9]
    )
    assert asked.options[0][1] == ()
    assert 100 - 30 - len("Q: 0?\n\nA: so\n\n") < len(asked.prompt) <= 100 - 30


def test_a_problem_may_read_differently_without_shots():
    alone = multiple_choice("p", "plain", ["a", "b"], 0)
    problem = replace(multiple_choice("p", "fill in", ["a", "b"], 0), alone=alone)
    model = Letters()
    zero, one = Prompter(model, TASK, problems(3)).ask(problem, [0, 1])
    assert texts(model, zero)[0] == "plain a"
    assert texts(model, one)[0].endswith("\n\nfill in a")


def test_shots_are_encoded_once_where_the_tokenizer_cuts_before_them():
    model = Letters(n_ctx=4000)
    prompter = Prompter(model, TASK, problems(10))
    for problem in problems(40, 100):
        prompter.ask(problem, [10])
    assert len(model.encoded) == len(set(model.encoded))


@pytest.mark.parametrize("splits", [True, False])
def test_pieces_encode_as_the_whole_text_does(shared_data, splits):
    """With GPT-2's own vocabulary, whose tokens reach over words."""
    folder = shared_data / "tokenizers" / "gpt2"
    released_gpt2 = from_openai(folder / "encoder.json", folder / "vocab.bpe")
    model = Letters(n_ctx=4000, splits_at_space=splits)
    model._tokenizer = released_gpt2
    (asked,) = Prompter(model, TASK, problems(10)).ask(problems(1, 50)[0], [10])
    for context, completion in asked.options:
        whole = model.decode([*context, *completion])
        assert released_gpt2.encode(whole).tolist() == [*context, *completion]
