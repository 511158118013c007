"""Preferences as pairs: TRL's forms, HH-RLHF's dialogues, and the pairs that rankings, ratings and edits imply."""

import dataclasses

import pytest
from desks import PLAIN, Desk, new_item
from exchanging import Exchange

from rein.errors import UserError
from rein.feedback.exchange.pairs import read_hh, read_trl
from rein.feedback.exchange.rows import Unreadable
from rein.feedback.kinds import KINDS
from rein.feedback.project import PRESETS, Question
from rein.feedback.work import NewItem

ASK = [{"role": "user", "content": "What color is the sky?"}]
BLUE, GREEN = ([{"role": "assistant", "content": f"It is {color}."}] for color in ("blue", "green"))
FOUR = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    {"prompt": ASK, "chosen": BLUE, "rejected": GREEN},
    {"chosen": ASK + BLUE, "rejected": ASK + GREEN},
]


@pytest.fixture
def dialect():
    return "sqlite"


@pytest.fixture
def exchange(store, tmp_path):
    return Exchange(store, tmp_path)


@pytest.mark.parametrize("row", FOUR)
def test_each_of_trls_four_forms_comes_out_as_it_went_in(exchange, row):
    done = exchange.put([row])
    assert (done.format, done.added, done.answers) == ("trl", 1, 1)
    assert exchange.rows("trl") == [row]


def test_the_four_forms_together_with_columns_of_their_own_keep_their_order(exchange):
    rows = [
        *FOUR, {**FOUR[0], "margin": 2.5, "score": None}, {**FOUR[2], "chosen": GREEN, "rejected": BLUE},
        {"prompt": ASK, "chosen": BLUE, "rejected": [*GREEN, *ASK, *GREEN]}, FOUR[1], FOUR[1],
    ]  # fmt: skip
    exchange.put(rows)
    assert exchange.rows("trl") == rows


def test_one_form_becomes_another_where_that_is_asked(exchange):
    exchange.put([FOUR[2]])
    assert exchange.rows("trl", implicit=True) == [FOUR[3]]
    (row,) = exchange.rows("trl", conversational=False)
    assert row == {"prompt": "What color is the sky?\n\n", "chosen": "It is blue.", "rejected": "It is green."}


def test_an_implicit_prompt_is_what_both_begin_with_up_to_a_word(exchange):
    exchange.put([FOUR[1]])
    (row,) = exchange.rows("ranked")
    assert row["prompt"] == "The sky is"
    assert row["outputs"] == [" blue.", " green."]


def test_preferences_of_llama_factory_are_read(exchange):
    row = {
        "conversations": [{"from": "human", "value": "What color is the sky?"}],
        "chosen": {"from": "gpt", "value": "It is blue."},
        "rejected": {"from": "gpt", "value": "It is green."},
    }
    exchange.put([row])
    assert exchange.rows("trl") == [FOUR[2]]


DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Sing.\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "texts"),
    [
        (DIALOGUE + " La.", DIALOGUE + " No.", DIALOGUE, ["La.", "No."]),
        (DIALOGUE + " La.", DIALOGUE + "No.", DIALOGUE, ["La.", "No."]),
        (DIALOGUE + " La.", DIALOGUE, DIALOGUE, ["", "La."]),
        (DIALOGUE + "  La la.", DIALOGUE + "  La.", DIALOGUE, [" La la.", " La."]),
        # A dialogue that goes another way is cut where both still agree.
        (DIALOGUE + " La.", "\n\nHuman: Hi\n\nAssistant: What?", "\n\nHuman: Hi\n\nAssistant:", None),
        ("\n\nHuman: Hi\n\nAssistant: A", "\n\nHuman: Ho\n\nAssistant: B", "", None),
    ],
)
def test_dialogues_share_their_prompt_and_come_out_as_they_went_in(exchange, chosen, rejected, prompt, texts):
    row = {"chosen": chosen, "rejected": rejected}
    done = exchange.put([row])
    assert (done.format, done.answers, done.bad) == ("hh-rlhf", 1, ())
    assert exchange.rows("hh-rlhf") == [row]
    (group,) = exchange.rows("ranked")
    assert group["context"] == {"dialogue": prompt}
    if texts is not None:
        assert sorted(one if isinstance(one, str) else one["text"] for one in group["outputs"]) == sorted(texts)


def test_a_dialogue_goes_to_trl_with_its_prompt_apart(exchange):
    exchange.put([{"chosen": DIALOGUE + " La.", "rejected": DIALOGUE + " No."}])
    assert exchange.rows("trl") == [{"chosen": DIALOGUE + " La.", "rejected": DIALOGUE + " No."}]


@pytest.mark.parametrize(
    ("read", "row", "problem"),
    [
        (read_trl, {"chosen": "a"}, "chosen is a text, but messages are expected"),
        (read_trl, {"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt is the number 3"),
        (read_trl, {"chosen": [], "rejected": []}, "chosen is an empty list"),
        (read_trl, {"chosen": [{"role": "user"}], "rejected": BLUE}, "message 1 of chosen has no role and content"),
        (read_trl, {"conversations": [{"from": "bird", "value": ""}], "chosen": {}, "rejected": {}}, "no from"),
        (read_hh, {"chosen": "Human: Hi", "rejected": "\n\nHuman: Hi"}, "does not begin with"),
        (read_hh, {"chosen": "\n\nHuman: Hi"}, "rejected is missing"),
    ],
)
def test_a_pair_that_is_none_says_why(read, row, problem):
    with pytest.raises(Unreadable, match=problem):
        read(1, row)


# ------------------------------------------------------------------------------- of what was said here


def label(store, settings, item, answers, **more):
    """One item, labelled by one person, by candidate; returns the exchange of its project."""
    desk = Desk(store, settings, people=("ann",), items=[item])
    (claimed,) = desk.claim("ann")
    shown = {name: KINDS[settings.question(name).kind].unorder(value, claimed.order) for name, value in answers.items()}
    desk.submit("ann", claimed, shown, **more)
    return Exchange(store, None, desk.id)


def project(*questions):
    return dataclasses.replace(PLAIN, questions=questions)


INSTRUCT = dataclasses.replace(PRESETS["instructgpt"], calibration_share=0, gold_share=0, repeat_share=0)


def test_a_ranking_of_k_outputs_gives_all_its_pairs_in_one_group_and_drops_ties(store):
    said = {"overall": {"ratings": [5, 5, 2, 7]}, "ranking": {"ranks": [2, 2, 3, 1]}}
    exchange = label(store, INSTRUCT, new_item("k4", k=4), said)
    rows = exchange.rows("trl")
    text = "k4 output {}".format
    expected = {(3, 0), (3, 1), (3, 2), (0, 2), (1, 2)}  # 6 pairs of 4, less the tie; the ratings say nothing twice
    assert {(row["chosen"], row["rejected"]) for row in rows} == {(text(i), text(j)) for i, j in expected}
    assert len(rows) == 5
    assert {row["group_id"] for row in rows} == {"k4"}
    assert {row["prompt"] for row in rows} == {"a post, k4\n\n"}


@pytest.mark.parametrize(("ties", "n"), [("drop", 0), ("half", 1), ("both", 2)])
def test_what_becomes_of_a_tie_is_said_by_whoever_exports(store, ties, n):
    exchange = label(store, PLAIN, new_item("t"), {"choice": {"choice": None, "points": 5}})
    rows = exchange.rows("trl", ties=ties)
    assert len(rows) == n
    assert [row.get("probability") for row in rows] == {"drop": [], "half": [0.5], "both": [None, None]}[ties]
    if ties == "both":
        assert (rows[0]["chosen"], rows[0]["rejected"]) == (rows[1]["rejected"], rows[1]["chosen"])
    assert len(exchange.rows("openai-comparisons", ties=ties)) == n
    assert len(exchange.rows("hh-rlhf", ties=ties)) == n


@pytest.mark.parametrize(("points", "choice", "margin"), [(1, 0, 4.0), (4, 0, 1.0), (7, 1, 2.0), (9, 1, 4.0)])
def test_the_margin_is_how_far_from_even_a_comparison_is(store, points, choice, margin):
    exchange = label(store, PLAIN, new_item("m"), {"choice": {"choice": choice, "points": points}})
    (row,) = exchange.rows("trl", margin=True)
    assert row["margin"] == margin
    assert row["chosen"] == f"m output {choice}"
    assert "margin" not in exchange.rows("trl")[0]


def test_a_ranking_has_no_margin_but_the_column(store):
    exchange = label(store, project(Question("r", "ranking")), new_item("r"), {"r": {"ranks": [1, 2]}})
    assert [row["margin"] for row in exchange.rows("trl", margin=True)] == [0.0]


def test_a_corrected_text_is_better_than_the_one_it_corrects(store):
    said = {"edit": {"candidate": 1, "text": "corrected"}}
    exchange = label(store, project(Question("edit", "edit")), new_item("e"), said)
    (row,) = exchange.rows("trl")
    assert (row["chosen"], row["rejected"]) == ("corrected", "e output 1")
    (row,) = exchange.rows("trl", conversational=True)
    assert row["chosen"] == [{"role": "assistant", "content": "corrected"}]
    assert row["prompt"] == [{"role": "user", "content": "a post, e"}]


def test_single_outputs_are_wanted_or_not_by_flags_and_by_ratings_off_the_middle(store):
    flags = {"flags": [["satisfies_constraint"], ["hallucination"], []]}
    said = {"overall": {"ratings": [7, 3, 4]}, "metadata": flags, "ranking": {"ranks": [1, 3, 2]}}
    exchange = label(store, INSTRUCT, new_item("u", k=3), said)
    rows = exchange.rows("trl-unpaired", question="metadata")
    assert [(row["completion"], row["label"]) for row in rows] == [
        ("u output 0", True), ("u output 1", False), ("u output 2", True),
    ]  # fmt: skip
    rows = exchange.rows("trl-unpaired", question="overall")
    assert [(row["completion"], row["label"]) for row in rows] == [("u output 0", True), ("u output 1", False)]


def test_a_judgement_of_k_outputs_is_one_ranked_group_with_all_that_was_said(store):
    flags = {"flags": [["hallucination"], []]}
    said = {"overall": {"ratings": [2, 6]}, "metadata": flags, "ranking": {"ranks": [2, 1]}}
    exchange = label(store, INSTRUCT, new_item("g"), said)
    (row,) = exchange.rows("ranked")
    assert row["outputs"] == [{"text": f"g output {n}", "policy": f"policy-{n}"} for n in range(2)]
    assert (row["ratings"], row["ranks"], row["flags"]) == ([2, 6], [2, 1], [["hallucination"], []])
    assert (row["group_id"], row["context"]) == ("g", {"post": "a post, g"})
    assert sorted(row["order"]) == [0, 1]


def test_several_fields_of_a_context_are_one_prompt_with_their_names(store):
    two = [{"text": "one"}, {"text": "two"}]
    item = NewItem("f", {"title": "A title", "post": "A post.", "empty": ""}, two)
    exchange = label(store, PLAIN, item, {"choice": {"choice": 0, "points": 1}})
    (row,) = exchange.rows("trl")
    assert row["prompt"] == "title: A title\n\npost: A post.\n\n"
    (row,) = exchange.rows("hh-rlhf")
    assert row["chosen"] == "\n\nHuman: title: A title\n\npost: A post.\n\nAssistant: one"


def test_demonstrations_make_no_pairs_and_it_is_said_what_they_make(store):
    exchange = label(store, project(Question("d", "demonstration")), new_item("d"), {"d": {"text": "I would say."}})
    with pytest.raises(UserError, match=r"asks for demonstration(.|\n)*What fits: rein, hf\."):
        exchange.rows("trl")
