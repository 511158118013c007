"""Schemas of Winograd and of Winogrande: scored by what stands behind each noun, in part or as a whole."""

import json

import pytest
from task_files import asked, lines, of_hub, only, problems_in
from task_rows import GAUNTLET_WINOGRAD, SWEATER

from rein.errors import UserError
from rein.evals.data import BadRow
from rein.evals.tasks import winograd, winogrande


def test_winogrande_asks_how_likely_the_rest_is_behind_each_noun(tmp_path):
    row = {
        "qID": "3QI-2",
        "sentence": "Johnny likes fruits more than vegetables in his new keto diet because the _ are saccharine.",
        "option1": "fruits",
        "option2": "vegetables",
        "answer": "1",
    }
    problem = only(winogrande.WINOGRANDE, tmp_path, {"winogrande_1.1/dev.jsonl": lines(row)})
    assert [(option.context, option.completion) for option in problem.options] == [
        ("Johnny likes fruits more than vegetables in his new keto diet because the fruits", " are saccharine."),
        ("Johnny likes fruits more than vegetables in his new keto diet because the vegetables", " are saccharine."),
    ]
    assert problem.gold == 0
    assert problem.shot == (
        "Johnny likes fruits more than vegetables in his new keto diet because the fruits are saccharine."
    )
    assert problem.passage == "3QI"
    gauntlet = {
        "context_options": [option.context for option in problem.options], "continuation": "are saccharine.", "gold": 0,
    }  # fmt: skip
    assert asked(of_hub(winogrande.WINOGRANDE, gauntlet)) == asked(problem)


def test_winogrande_refuses_a_sentence_without_a_blank():
    row = {"sentence": "Johnny likes fruits.", "option1": "a", "option2": "b", "answer": "1"}
    with pytest.raises(BadRow, match=r"test:0: its sentence has no blank"):
        of_hub(winogrande.WINOGRANDE, row)


def test_winograd_is_scored_in_part(tmp_path):
    problem = only(winograd.WINOGRAD, tmp_path, {"winograd_wsc.jsonl": lines(GAUNTLET_WINOGRAD)})
    assert [(option.context, option.completion) for option in problem.options] == [
        ("Grace was happy to trade me her sweater for my jacket. She thinks the sweater", " looks dowdy on her."),
        ("Grace was happy to trade me her sweater for my jacket. She thinks the jacket", " looks dowdy on her."),
    ]
    assert problem.shot == SWEATER.format("sweater")
    assert winograd.WINOGRAD.shots_from == winograd.WINOGRAD.scored_on


def test_winograd_is_scored_as_a_whole(tmp_path):
    problem = only(winograd.FULL, tmp_path, {"winograd_wsc.jsonl": lines(GAUNTLET_WINOGRAD)})
    assert [(option.context, option.completion) for option in problem.options] == [
        ("", SWEATER.format("sweater")),
        ("", SWEATER.format("jacket")),
    ]
    assert winograd.FULL.normalise == "none"


def test_winograd_reads_the_texts_of_trinh_and_le(tmp_path):
    rows = [
        {"question_id": 9, "substitution": SWEATER.format(noun), "correctness": noun == "jacket"}
        for noun in ("sweater", "jacket")
    ]
    problem = only(winograd.WINOGRAD, tmp_path, {"commonsense_test/wsc273.json": json.dumps(rows)})
    assert problem.options == of_hub(winograd.WINOGRAD, GAUNTLET_WINOGRAD).options
    assert problem.gold == 1


SCHEMA = """<schema><text><txt1>
{}</txt1> <pron> {} </pron> <txt2> {}
</txt2></text><quote><pron>it</pron></quote>
<answers><answer>{} </answer><answer> {}</answer></answers><correctAnswer> {}.  </correctAnswer></schema>"""


def of_xml(tmp_path, *schema):
    text = f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<collection>{SCHEMA.format(*schema)}</collection>'
    return only(winograd.WINOGRAD, tmp_path, {"WSCollection.xml": text})


@pytest.mark.parametrize(
    ("schema", "shot"),
    [
        (("The ball hit the table because", "it", "was of steel.", "The ball", "the table", "A"),
         "The ball hit the table because the ball was of steel."),
        (("The fish ate the worm.", "It", "was tasty.", "The fish", "the worm", "B"),
         "The fish ate the worm. The worm was tasty."),
        (("The man lifted the boy onto", "his", "shoulders.", "The man", "the boy", "A"),
         "The man lifted the boy onto the man's shoulders."),
        (("Susan knows about Ann's\nproblems because", "she", "is nosy.", "Susan", "Ann's", "B"),
         "Susan knows about Ann's problems because Ann is nosy."),
        (("We rescued", "them", ".", "The older ones", "the younger ones", "B"), "We rescued the younger ones."),
    ],
)  # fmt: skip
def test_winograd_puts_a_noun_in_the_place_of_the_authors_pronoun(tmp_path, schema, shot):
    assert of_xml(tmp_path, *schema).shot == shot


def test_winograd_reads_the_hub():
    text = "The fish ate the worm. It was tasty."
    hub = {
        "text": text, "pronoun": "It", "pronoun_loc": text.index("It"), "options": ["The fish", "the worm"], "label": 1,
    }  # fmt: skip
    assert of_hub(winograd.WINOGRAD, hub).shot == "The fish ate the worm. The worm was tasty."


def test_winograd_takes_the_first_273_of_the_authors_collection(tmp_path):
    one = SCHEMA.format("The fish ate the worm.", "It", "was tasty.", "The fish", "the worm", "B")
    found = problems_in(winograd.WINOGRAD, tmp_path, {"WSCollection.xml": f"<collection>{one * 285}</collection>"})
    assert len(found) == 273


def test_winograd_knows_its_twins():
    advocated = GAUNTLET_WINOGRAD | {"continuation": "looks great on her.", "gold": 1}
    first, second = (of_hub(winograd.WINOGRAD, row) for row in (GAUNTLET_WINOGRAD, advocated))
    assert first.passage == second.passage == "sweater or jacket"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("WSCollection.xml", "<collection><schema>", "is not XML"),
        ("wsc273.json", "[", "is not JSON"),
    ],
)
def test_winograd_says_when_a_file_is_broken(tmp_path, name, text, problem):
    with pytest.raises(UserError, match=problem):
        problems_in(winograd.WINOGRAD, tmp_path, {name: text})


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"substitutions": [{"substitution": "A cat sat."}]}, "it has 1 texts"),
        ({"context_options": ["a", "b"], "continuation": "c", "gold": 2}, "its answer is 2"),
        ({"cut": ["a", "it", "b"], "options": ["x", "y"], "label": None}, "its 'label' is null"),
        ({"text": "a"}, "it has no 'pronoun'"),
    ],
)
def test_winograd_refuses_a_schema_that_is_not_whole(row, problem):
    with pytest.raises(BadRow, match=f"test:0: {problem}"):
        of_hub(winograd.WINOGRAD, row)
