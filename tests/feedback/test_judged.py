"""Judgements: the same from a file as from a store, tidied with counts, held out by prompt and never by row."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from exchanging import Exchange, comparison, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.feedback.exchange.rows import Answer, Item
from rein.feedback.judged import Candidate, Judged, _of_answer, from_file, from_store, parted, tidy


@pytest.fixture
def dialect():
    return "sqlite"


@pytest.fixture
def exchange(store, tmp_path):
    return Exchange(store, tmp_path, "p")


def judged(prompt="a", texts=("x", "y"), marks=(1, 2), kind="ranking", labeler="w", split="train", **more):
    candidates = tuple(Candidate(text) for text in texts)
    return Judged({"prompt": prompt}, candidates, kind, tuple(map(float, marks)), labeler, f"{prompt}/{texts}", prompt,
                  split=split, **more)  # fmt: skip


RANKED = {
    "group_id": "g", "prompt": "Say.", "labeler": "l", "batch": "b2", "split": "train",
    "outputs": [{"text": "one", "policy": "sft"}, "two", "three"],
}  # fmt: skip
FILES = {
    "openai": [comparison(choice=1, confidence=8), comparison("other", choice=0, confidence=5, worker="w2")],
    "ranks": [{**RANKED, "ranks": [2, 1, 2]}],
    "best": [{**RANKED, "best": 2}],
    "ratings": [{**RANKED, "ratings": [4, 7, 1]}],
    "both": [{**RANKED, "ranks": [1, 2, 3], "ratings": [1, 1, 1]}],
    "hh": [{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}],
    "trl": [{"prompt": "Q: ", "chosen": "yes", "rejected": "no"}],
    "pandalm": [{"idx": 1, "instruction": "Add.", "input": "1, 2", "response1": "3", "response2": "4",
                 "annotator1": 1, "annotator2": 0, "annotator3": 2}],
    "oasst": [{"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": {
        "message_id": "t", "text": "Why?", "role": "prompter", "replies": [
            {"message_id": f"r{n}", "text": f"Because {n}.", "role": "assistant", "rank": n} for n in range(3)]}}],
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_the_store_says_that_it_was_imported_into(name, exchange, tmp_path):
    rows, preset = FILES[name], {"best": "", "ratings": "", "both": ""}.get(name)
    path = write_lines(tmp_path / "rows.jsonl", rows)
    read, bad = from_file(path)
    assert not bad
    assert read
    if preset is None:
        exchange.put(path)
        stored, shown = from_store(exchange.store.address, "p")
        assert not shown
        assert [replace(one, topic="") for one in stored] == [replace(one, topic="") for one in read]
        groups = [{one.item: one.topic for one in some} for some in (stored, read)]
        assert len(set(groups[0].values())) == len(set(groups[1].values()))


def test_what_each_format_says(tmp_path):
    def first(name):
        return from_file(write_lines(tmp_path / f"{name}.jsonl", FILES[name]))[0]

    one, even = first("openai")  # ordered by policy: ref before sup4
    assert dict(one.query) == {"post": "a post", "title": "a title", "subreddit": "tifu"}
    assert [c.policy for c in one.candidates] == ["ref", "sup4_ppo_rm3_kl10"]
    assert one.pairs() == ([(0, 1)], [])
    assert (one.points, even.points, one.batch, one.split, one.labeler) == (3, 0, "batch9", "train", "w1")
    (ranks,) = first("ranks")
    assert ranks.pairs() == ([(1, 0), (1, 2)], [(0, 2)])
    (best,) = first("best")
    assert (best.kind, best.pairs()) == ("best_of", ([(2, 0), (2, 1)], []))
    (rated,) = first("ratings")
    assert (rated.kind, rated.pairs()[0]) == ("rating", [(0, 2), (1, 0), (1, 2)])
    (both,) = first("both")  # the ranking says it once
    assert both.kind == "ranking"
    (hh,) = first("hh")
    assert hh.query["dialogue"] == "\n\nHuman: Hi\n\nAssistant:"
    assert sorted(c.text for c in hh.candidates) == [" Go.", " Hello."]
    assert hh.candidates[hh.pairs()[0][0][0]].text == " Hello."
    assert [len(one.pairs()[0]) for one in first("pandalm")] == [1, 0, 1]


def test_a_corrected_text_is_better_than_the_one_it_corrects():
    item = Item(0, "k", "b", "work", "train", {"prompt": "p"}, [{"text": "a"}, {"text": "b", "policy": "sft"}], {})
    value = {"candidate": 1, "text": "better"}
    found = _of_answer(Answer(item, "w", "q", "edit", value, {}, {}, 0, 0, None, {}))
    assert [(c.text, c.policy) for c in found.candidates] == [("b", "sft"), ("better", "edit")]
    assert found.pairs() == ([(1, 0)], [])


def test_marks_without_the_axis_overall_say_nothing():
    item = Item(0, "k", "b", "work", "train", {"prompt": "p"}, [{"text": "a"}, {"text": "b"}], {})
    value = {"axes": [{"overall": 3, "accuracy": 1}, {"accuracy": 7}]}
    assert _of_answer(Answer(item, "w", "q", "likert", value, {}, {}, 0, 0, None, {})) is None


def test_lines_that_are_no_judgement_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(comparison()) + "\nnot json\n" + json.dumps({**comparison(), "choice": 7}) + "\n")
    found, bad = from_file(path)
    assert len(found) == 1
    assert [one.line for one in bad] == [2, 3]
    assert "choice is neither 0 nor 1" in bad[1].problem


def test_files_without_judgements_are_refused(tmp_path):
    path = write_lines(tmp_path / "own.jsonl", [{"format": "rein.feedback", "version": 1, "project": {}}])
    with pytest.raises(UserError, match=r"(?s)of the format rein, of which no judgement.*rein label import"):
        from_file(path)
    path = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "p", "outputs": ["a", "b"]}])
    with pytest.raises(UserError, match=r"(?s)of the format prompts.*openai-comparisons"):
        from_file(path)


def test_a_project_that_prefers_nothing_is_refused(exchange):
    exchange.put([{"prompt": "p"}], "prompts", preset="demonstration")
    with pytest.raises(UserError, match=r"(?s)The project p asks for demonstration.*comparison"):
        from_store(exchange.store.address, "p")


def test_real_collections_hold_what_is_known_of_them(shared_data):
    folder = shared_data / "feedback"
    trees, _ = from_file(folder / "oasst_rankings_en_100_tree.jsonl")
    assert (len(trees), sum(len(one.pairs()[0]) for one in trees), len({one.topic for one in trees})) == (212, 754, 100)
    dialogues, _ = from_file(folder / "hh_rlhf_harmless_test.jsonl.gz")
    pairs = [[len(one.candidates[i].text) for i in one.pairs()[0][0]] for one in dialogues]
    assert len(pairs) == 2312
    assert sum(a > b for a, b in pairs) / 2312 == pytest.approx(0.445, abs=0.002)
    panda, _ = from_file(folder / "pandalm_testset_v1.json")
    assert (len(panda), len({one.labeler for one in panda})) == (2997, 3)


# ---------------------------------------------------------------------------------------------------------- tidying


def test_what_nothing_can_be_learned_from_is_left_out_and_counted():
    some = [
        judged(),
        judged(texts=("x", "x")),
        judged(texts=("x", "x"), marks=(1, 1)),
        judged(marks=(1, 1)),
        judged(marks=(float("nan"), 1), kind="rating"),
        judged(texts=("x", "y", "x"), marks=(1, 2, 1)),
    ]
    kept, dropped = tidy(some, ties_count=False)
    assert [len(one.candidates) for one in kept] == [2, 2]
    assert dropped == Counter(
        {"equal texts, of which one is said to be better": 1, "a single text": 1, "nothing but ties": 1,
         "a mark that is no finite number": 1}
    )  # fmt: skip
    assert len(tidy(some, ties_count=True)[0]) == 3


# ---------------------------------------------------------------------------------------------------------- held out


@settings(max_examples=50, deadline=None)
@given(
    topics=st.lists(st.integers(0, 60), min_size=40, max_size=120),
    frac=st.floats(0.2, 0.6),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_prompts_are_held_out_whole_whatever_the_order_of_the_rows(topics, frac, seed, order):
    some = [judged(str(topic), labeler=str(n)) for n, topic in enumerate(topics)]
    try:
        parts, _, _ = parted(some, heldout_frac=frac, seed=seed)
    except UserError:
        return  # one part is empty: few topics
    of_part = {part: {one.topic for one in rows} for part, rows in parts.items()}
    assert not of_part["train"] & of_part["dev"]
    assert not of_part["train"] & of_part["test"]
    assert not of_part["dev"] & of_part["test"]
    assert sum(map(len, parts.values())) == len(some)
    order.shuffle(some)
    again, _, _ = parted(some, heldout_frac=frac, seed=seed)
    assert {part: {one.topic for one in rows} for part, rows in again.items()} == of_part


def test_named_splits_are_kept_and_a_prompt_in_both_is_left_out_of_training():
    some = [judged("a"), judged("b"), judged("c", split="valid1"), judged("d", split="valid2"),
            judged("c", texts=("z", "y"))]  # fmt: skip
    parts, how, dropped = parted(some, heldout_frac=0.5, seed=0)
    assert {part: [one.topic for one in rows] for part, rows in parts.items()} == {
        "train": ["a", "b"], "dev": ["c"], "test": ["d"]
    }  # fmt: skip
    assert "valid1, valid2" in how
    assert dropped == Counter({"training, but its prompt is held out too": 1})
    parts, _, _ = parted([judged("a"), judged("b", split="test"), judged("c", split="valid")], heldout_frac=0.5, seed=0)
    assert [one.topic for one in parts["dev"]] == ["c"]


def test_too_few_prompts_to_hold_some_out_are_named():
    with pytest.raises(UserError, match=r"Of 3 judgements of 1 prompts none is left for"):
        parted([judged("a")] * 3, heldout_frac=0.1, seed=0)
