"""Tasks by choice: each reads its official files, and asks literally as the papers print it."""

import json

import pytest

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Task
from rein.evals.tasks import (
    anli,
    arc,
    cbt,
    copa,
    hellaswag,
    openbookqa,
    piqa,
    race,
    reading,
    sat_analogies,
    storycloze,
    superglue_boolq,
    superglue_entailment,
    superglue_multirc,
    superglue_record,
    superglue_wic,
    superglue_wsc,
    winograd,
    winogrande,
)

TASKS = [
    anli.R1,
    anli.R2,
    anli.R3,
    arc.CHALLENGE,
    arc.EASY,
    cbt.COMMON_NOUNS,
    cbt.NAMED_ENTITIES,
    copa.COPA,
    hellaswag.HELLASWAG,
    openbookqa.OPENBOOKQA,
    piqa.PIQA,
    race.HIGH,
    race.MIDDLE,
    sat_analogies.SAT_ANALOGIES,
    storycloze.STORYCLOZE,
    superglue_boolq.BOOLQ,
    superglue_entailment.CB,
    superglue_entailment.RTE,
    superglue_multirc.MULTIRC,
    superglue_record.RECORD,
    superglue_wic.WIC,
    superglue_wsc.WSC,
    winograd.FULL,
    winograd.PARTIAL,
    winograd.WINOGRAD,
    winogrande.WINOGRANDE,
]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def problems(task: Task, folder, files, split=None) -> list[Problem]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [one for row in task.read(Data((folder,)), split or task.scored_on) for one in task.ask(row)]


def only(task: Task, folder, files, split=None) -> Problem:
    (problem,) = problems(task, folder, files, split)
    return problem


def of_hub(task: Task, values) -> Problem:
    (problem,) = task.ask(Row(values, "hub/test:0"))
    return problem


def completions(problem):
    return [option.completion for option in problem.options]


def asked(problem):
    """What a model sees of it; where it comes from does not matter."""
    return problem.prompt, problem.shot, problem.options, problem.gold


# ------------------------------------------------------------------------------------- usual multiple choice

GEORGE = "George wants to warm his hands quickly by rubbing them. Which skin surface will produce the most heat?"
PALMS = ["dry palms", "wet palms", "palms covered with oil", "palms covered with lotion"]
ARC = {
    "id": "Mercury_1",
    "question": {"stem": GEORGE, "choices": [{"text": t, "label": x} for t, x in zip(PALMS, "ABCD", strict=True)]},
    "answerKey": "A",
}


def test_arc_asks_as_the_paper_does(tmp_path):
    problem = only(arc.CHALLENGE, tmp_path, {"ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl": lines(ARC)})
    assert problem.prompt == (
        "Question: George wants to warm his hands quickly by rubbing them. "
        "Which skin surface will produce the most heat?\nAnswer:"
    )
    assert completions(problem) == [" dry palms", " wet palms", " palms covered with oil", " palms covered with lotion"]
    assert problem.gold == 0
    assert problem.shot == problem.prompt + " dry palms"
    assert problem.id == "Mercury_1"
    assert problem.parts == {"question": GEORGE, "answer": "dry palms"}
    assert arc.CHALLENGE.normalise == "answer"
    assert arc.CHALLENGE.answer_context == "Answer:"


def test_arc_reads_the_same_from_each_form_of_its_files(tmp_path):
    official = asked(only(arc.EASY, tmp_path / "a", {"ARC-Easy-Test.jsonl": lines(ARC)}))
    gauntlet = {"query": f"Question: {GEORGE}", "choices": PALMS, "gold": 0}
    columns = ",".join([f'"{GEORGE}"', *PALMS, "A"]) + "\n"
    hub = {"id": "x", "question": GEORGE, "choices": {"text": PALMS, "label": list("ABCD")}, "answerKey": "A"}
    assert asked(only(arc.EASY, tmp_path / "b", {"gauntlet/arc_easy.jsonl": lines(gauntlet)})) == official
    assert asked(only(arc.EASY, tmp_path / "c", {"arc/easy_train.csv": columns}, "train")) == official
    assert asked(of_hub(arc.EASY, hub)) == official


def test_arc_knows_keys_that_are_digits_where_the_options_are_numbered():
    hub = {"question": GEORGE, "choices": {"text": PALMS, "label": list("1234")}, "answerKey": "3"}
    assert of_hub(arc.EASY, hub).gold == 2


def test_arc_keeps_a_row_of_three_options(tmp_path):
    problem = only(arc.CHALLENGE, tmp_path, {"arc/challenge_dev.csv": "What is wet?,fog,rain,sun,,B\n"}, "dev")
    assert completions(problem) == [" fog", " rain", " sun"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("Which is renewable?,,,,,1", "its options are lost"),
        ("Which is no organ?,liver,kidney,stomach,bladder,E", "its answer is 'E', but it has A, B, C, D"),
        ("What is wet?,fog,rain,sun,,D", "its answer is 'D', but it has A, B, C"),
    ],
)
def test_arc_names_the_line_of_a_row_that_cannot_be_used(tmp_path, row, problem):
    with pytest.raises(BadRow, match=rf"easy_dev.csv:2: {problem}"):
        problems(arc.EASY, tmp_path, {"arc/easy_dev.csv": f"What is wet?,fog,rain,sun,sand,B\n{row}\n"}, "dev")


OBQA = {
    "id": "7-980",
    "question": {
        "stem": "Organisms require energy in order to do what?",
        "choices": [
            {"text": "mature and develop.", "label": "A"},
            {"text": "rest soundly.", "label": "B"},
            {"text": "absorb  light.", "label": "C"},
            {"text": "take in nutrients.", "label": "D"},
        ],
    },
    "answerKey": "A",
}


def test_openbookqa_asks_the_bare_stem(tmp_path):
    problem = only(openbookqa.OPENBOOKQA, tmp_path, {"OpenBookQA-V1-Sep2018/Data/Main/test.jsonl": lines(OBQA)})
    assert problem.prompt == "Organisms require energy in order to do what?"
    assert completions(problem) == [" mature and develop.", " rest soundly.", " absorb light.", " take in nutrients."]
    assert problem.shot == "Organisms require energy in order to do what? mature and develop."
    assert openbookqa.OPENBOOKQA.normalise == "answer"


def test_openbookqa_reads_the_same_from_each_form_of_its_files(tmp_path):
    official = asked(of_hub(openbookqa.OPENBOOKQA, OBQA))
    stem, choices = OBQA["question"]["stem"], [choice["text"] for choice in OBQA["question"]["choices"]]
    gauntlet = {"query": stem, "choices": choices, "gold": 0}
    hub = {"question_stem": stem, "choices": {"text": choices, "label": list("ABCD")}, "answerKey": "A"}
    assert asked(only(openbookqa.OPENBOOKQA, tmp_path, {"openbook_qa.jsonl": lines(gauntlet)})) == official
    assert asked(of_hub(openbookqa.OPENBOOKQA, hub)) == official


CAKE = {
    "ind": 4,
    "activity_label": "Making a cake",
    "ctx_a": "Several cake pops are shown on a display. A woman and girl are shown making the cake pops in a kitchen.",
    "ctx_b": "they",
    "split": "val",
    "split_type": "indomain",
    "source_id": "activitynet~v_1",
    "endings": [
        "bake them, then frost and decorate.",
        "taste them as they place them on plates.",
        "put the frosting on the cake as they pan it.",
        "come out and begin decorating the cake as well.",
    ],
    "label": 0,
}


def test_hellaswag_asks_the_activity_and_what_happened(tmp_path):
    problem = only(hellaswag.HELLASWAG, tmp_path, {"hellaswag_val.jsonl": lines(CAKE)})
    assert problem.prompt == (
        "Making a cake: Several cake pops are shown on a display. "
        "A woman and girl are shown making the cake pops in a kitchen. They"
    )
    assert completions(problem)[0] == " bake them, then frost and decorate."
    assert len(problem.options) == 4
    assert problem.gold == 0
    assert problem.passage == "activitynet~v_1"


def test_hellaswag_reads_the_same_from_each_form_of_its_files(tmp_path):
    official = of_hub(hellaswag.HELLASWAG, CAKE)
    gauntlet = {"query": official.prompt, "choices": CAKE["endings"], "gold": 0}
    assert asked(only(hellaswag.HELLASWAG, tmp_path, {"hellaswag.jsonl": lines(gauntlet)})) == asked(official)
    assert asked(of_hub(hellaswag.HELLASWAG, CAKE | {"label": "0"})) == asked(official)


def test_hellaswag_leaves_out_the_marks_of_wikihow():
    text = "[header] How to clean a lens [title] Use a cloth. [step] Take a soft one. [substeps] Fold it."
    row = CAKE | {"activity_label": "Home", "ctx_a": text, "ctx_b": ""}
    assert of_hub(hellaswag.HELLASWAG, row).prompt == (
        "Home: How to clean a lens. Use a cloth. Take a soft one. Fold it."
    )


def test_hellaswag_has_no_answers_to_the_test_set():
    with pytest.raises(BadRow, match="its answer is ''"):
        of_hub(hellaswag.HELLASWAG, CAKE | {"label": ""})


SEALANT = {
    "goal": "How to apply sealant to wood.",
    "sol1": "Using a brush, brush on sealant onto wood until it is fully saturated with the sealant.",
    "sol2": "Using a brush, drip on sealant onto wood until it is fully saturated with the sealant.",
}


def test_piqa_asks_the_bare_goal_and_finds_its_answer_in_the_other_file(tmp_path):
    goals = lines(SEALANT, {"goal": "Boil water.", "sol1": "Cool it.", "sol2": "Heat it."})
    first, second = problems(piqa.PIQA, tmp_path, {"piqa/valid.jsonl": goals, "piqa/valid-labels.lst": "0\n1\n"})
    assert first.prompt == "How to apply sealant to wood."
    assert completions(first)[1] == (
        " Using a brush, drip on sealant onto wood until it is fully saturated with the sealant."
    )
    assert (first.gold, second.gold) == (0, 1)
    assert second.shot == "Boil water. Heat it."


def test_piqa_reads_the_same_from_each_form_of_its_files(tmp_path):
    official = asked(of_hub(piqa.PIQA, SEALANT | {"label": 0}))
    gauntlet = {
        "query": f"Question: {SEALANT['goal']}\n",
        "choices": [SEALANT["sol1"].replace(" a ", "  a "), SEALANT["sol2"]],
        "gold": 0,
    }
    assert asked(only(piqa.PIQA, tmp_path, {"piqa.jsonl": lines(gauntlet)})) == official


def test_piqa_refuses_answers_of_another_file(tmp_path):
    with pytest.raises(UserError, match=r"has 1 rows, but train-labels\.lst 2"):
        problems(piqa.PIQA, tmp_path, {"piqa/train.jsonl": lines(SEALANT), "piqa/train-labels.lst": "0\n1\n"}, "train")


STORY = [
    "Bob went to the gas station to fill up his car.",
    "His tank was completely empty and so was his wallet.",
    "The cashier offered to pay for his gas if he came back later to pay.",
    "Bob felt grateful as he drove home.",
]
ENDINGS = ["Bob believed that there were good people in the world.", "Bob contemplated how unfriendly the world was."]


def test_storycloze_tells_four_sentences(tmp_path):
    header = "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,RandomFifthSentenceQuiz1,"
    text = f"{header}RandomFifthSentenceQuiz2,AnswerRightEnding\n" + ",".join(["id", *STORY, *ENDINGS, "1"]) + "\n"
    name = "cloze_test_test__spring2016 - cloze_test_ALL_test.csv"
    problem = only(storycloze.STORYCLOZE, tmp_path, {name: text})
    assert problem.prompt == (
        "Bob went to the gas station to fill up his car. His tank was completely empty and so was his wallet. The "
        "cashier offered to pay for his gas if he came back later to pay. Bob felt grateful as he drove home."
    )
    assert completions(problem) == [f" {ending}" for ending in ENDINGS]
    assert problem.gold == 0
    hub = {f"input_sentence_{at}": sentence for at, sentence in enumerate(STORY, 1)}
    hub |= {f"sentence_quiz{at}": ending for at, ending in enumerate(ENDINGS, 1)} | {"answer_right_ending": 1}
    assert asked(of_hub(storycloze.STORYCLOZE, hub)) == asked(problem)


def test_storycloze_takes_its_shots_from_dev_for_it_has_no_train_set(tmp_path):
    assert storycloze.STORYCLOZE.shots_from == "dev"
    with pytest.raises(UserError, match="no train split"):
        storycloze.STORYCLOZE.read(Data((tmp_path,)), "train")


COPA = {
    "premise": "My body cast a shadow over the grass.",
    "choice1": "The sun was rising.",
    "choice2": "The grass was cut.",
    "question": "cause",
    "label": 0,
    "idx": 0,
}


def test_copa_goes_on_with_because_or_therefore(tmp_path):
    effect = COPA | {
        "premise": "The man turned on the faucet.",
        "question": "effect",
        "label": 1,
        "choice2": "I'm wet.",
    }
    first, second = problems(copa.COPA, tmp_path, {"superglue/COPA/val.jsonl": lines(COPA, effect)})
    assert first.prompt == "My body cast a shadow over the grass because"
    assert completions(first) == [" the sun was rising.", " the grass was cut."]
    assert first.shot == "My body cast a shadow over the grass because the sun was rising."
    assert second.prompt == "The man turned on the faucet therefore"
    assert second.shot == "The man turned on the faucet therefore I'm wet."


def test_copa_reads_the_same_from_llm_foundry(tmp_path):
    row = {
        "query": "My body cast a shadow over the grass, because",
        "choices": ["the sun was rising.", "i mowed."],
        "gold": 0,
    }
    problem = only(copa.COPA, tmp_path, {"copa.jsonl": lines(row)})
    assert problem.prompt == "My body cast a shadow over the grass because"
    assert completions(problem) == [" the sun was rising.", " I mowed."]


# ----------------------------------------------------------------------------------------------- entailment


def test_anli_names_its_round_twice(tmp_path):
    row = {
        "uid": "7c", "context": "The Gold Coast is a hotel.", "hypothesis": "It is a budget-friendly casino.",
        "label": "n", "reason": "",
    }  # fmt: skip
    problem = only(anli.R2, tmp_path, {"anli_v1.0/R2/test.jsonl": lines(row), "anli_v1.0/R1/test.jsonl": ""})
    assert problem.prompt == (
        "anli 2: anli 2: The Gold Coast is a hotel.\nQuestion: It is a budget-friendly casino. True, False, or Neither?"
    )
    assert sorted(completions(problem)) == [" False", " Neither", " True"]
    assert problem.shot == problem.prompt + " Neither"
    hub = {"uid": "7c", "premise": row["context"], "hypothesis": row["hypothesis"], "label": 1}
    assert of_hub(anli.R2, hub) == problem


@pytest.mark.parametrize(("label", "name"), [("e", "True"), ("n", "Neither"), ("c", "False")])
def test_anli_names_each_label(label, name):
    problem = of_hub(anli.R1, {"context": "A cat sat.", "hypothesis": "It sat.", "label": label})
    assert problem.shot.endswith(f"Neither? {name}")


def test_cb_asks_true_false_or_neither(tmp_path):
    row = {"premise": "The drop doesn't mean Manhattan comes cheap.", "hypothesis": "Manhattan comes cheap"}
    labels = [row | {"label": label} for label in ("contradiction", "entailment", "neutral")]
    found = problems(superglue_entailment.CB, tmp_path, {"superglue/CB/val.jsonl": lines(*labels)})
    assert found[0].prompt == (
        "The drop doesn't mean Manhattan comes cheap.\n"
        "question: Manhattan comes cheap. true, false, or neither?\nanswer:"
    )
    assert [one.shot.removeprefix(one.prompt) for one in found] == [" false", " true", " neither"]
    hub = [of_hub(superglue_entailment.CB, row | {"label": label}) for label in (1, 0, 2)]
    assert list(map(asked, hub)) == list(map(asked, found))


def test_rte_asks_true_or_false(tmp_path):
    row = {"premise": "The bet was regarding the top quark.", "hypothesis": "The Top Quark is the last of six flavors."}
    labels = [row | {"label": label} for label in ("not_entailment", "entailment")]
    found = problems(superglue_entailment.RTE, tmp_path, {"superglue/RTE/val.jsonl": lines(*labels)})
    assert found[0].prompt == (
        "The bet was regarding the top quark.\n"
        "question: The Top Quark is the last of six flavors. True or False?\nanswer:"
    )
    assert [one.shot.removeprefix(one.prompt) for one in found] == [" False", " True"]
    assert asked(of_hub(superglue_entailment.RTE, row | {"label": 1})) == asked(found[0])


def test_boolq_asks_in_small_letters_with_one_question_mark(tmp_path):
    row = {
        "passage": "Normal force -- In a simple case, N = mg.",
        "question": "is the normal force equal to the force of gravity",
        "label": True,
        "idx": 0,
    }
    problem = only(superglue_boolq.BOOLQ, tmp_path / "a", {"superglue/BoolQ/val.jsonl": lines(row)})
    assert problem.prompt == (
        "Normal force -- In a simple case, N = mg.\n"
        "question: is the normal force equal to the force of gravity?\nanswer:"
    )
    assert completions(problem) == [" no", " yes"]
    assert problem.shot == problem.prompt + " yes"
    gauntlet = {
        "query": f"Passage: {row['passage']}\nQuestion: {row['question']}?",
        "choices": ["no", "yes"],
        "gold": 1,
    }
    authors = {
        "title": "Normal force",
        "passage": "In a simple case, N = mg.",
        "question": row["question"],
        "answer": True,
    }
    assert asked(only(superglue_boolq.BOOLQ, tmp_path / "b", {"boolq.jsonl": lines(gauntlet)})) == asked(problem)
    assert asked(only(superglue_boolq.BOOLQ, tmp_path / "c", {"BoolQ/dev.jsonl": lines(authors)})) == asked(problem)


def test_boolq_refuses_a_query_of_another_form(tmp_path):
    row = {"query": "is it", "choices": ["no", "yes"], "gold": 1}
    with pytest.raises(BadRow, match=r"boolq.jsonl:1: its query is not 'Passage"):
        problems(superglue_boolq.BOOLQ, tmp_path, {"boolq.jsonl": lines(row)})


def test_wic_asks_about_a_word_in_two_sentences(tmp_path):
    row = {
        "word": "outfitter",
        "sentence1": "An outfitter provided everything needed for the safari.",
        "sentence2": "Before his first walking holiday, he went to a specialist outfitter to buy some boots.",
        "label": False,
    }
    problem = only(superglue_wic.WIC, tmp_path, {"superglue/WiC/val.jsonl": lines(row)})
    assert problem.prompt == (
        "An outfitter provided everything needed for the safari.\n"
        "Before his first walking holiday, he went to a specialist outfitter to buy some boots.\n"
        "question: Is the word 'outfitter' used in the same way in the two sentences above?\nanswer:"
    )
    assert problem.shot == problem.prompt + " no"
    assert of_hub(superglue_wic.WIC, row | {"label": 1}).shot.endswith("answer: yes")


# ------------------------------------------------------------------------------------------ partial scoring


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


SWEATER = "Grace was happy to trade me her sweater for my jacket. She thinks the {} looks dowdy on her."
GAUNTLET_WINOGRAD = {
    "context_options": [SWEATER.format(noun).removesuffix(" looks dowdy on her.") for noun in ("sweater", "jacket")],
    "continuation": "looks dowdy on her.",
    "gold": 0,
}


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
    found = problems(winograd.WINOGRAD, tmp_path, {"WSCollection.xml": f"<collection>{one * 285}</collection>"})
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
        problems(winograd.WINOGRAD, tmp_path, {name: text})


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


# --------------------------------------------------------------------------------- passages with questions

SMITH = {
    "id": "middle1.txt",
    "article": "Mrs. Smith is an unusual teacher.\nOnce she told each student to bring along a few  potatoes.",
    "questions": ["The children complained about _ besides the weight trouble.", "Mrs. Smith asked to write _ ."],
    "options": [["the smell", "the colour", "the price", "the taste"], ["names", "numbers", "time", "places"]],
    "answers": ["A", "A"],
}
ARTICLE = (
    "Article:\n\nMrs. Smith is an unusual teacher.\nOnce she told each student to bring along a few potatoes.\n\n"
    "Q: The children complained about _ besides the weight trouble.\n\nA:"
)


def test_race_asks_behind_the_articles_earlier_questions(tmp_path):
    files = {"RACE/test/middle/1.txt": json.dumps(SMITH), "RACE/test/high/1.txt": "{}", "RACE/dev/middle/1.txt": "{}"}
    first, second = problems(race.MIDDLE, tmp_path, files)
    assert first.prompt == ARTICLE
    assert second.prompt == ARTICLE + " the smell\n\nQ: Mrs. Smith asked to write _ .\n\nA:"
    assert completions(second) == [" names", " numbers", " time", " places"]
    assert first.shot == second.shot == second.prompt + " names"
    assert first.counts == second.counts == 2
    assert first.passage == second.passage == "middle1.txt"
    assert (first.id, second.id) == ("middle1.txt/0", "middle1.txt/1")
    assert (race.MIDDLE.normalise, race.MIDDLE.answer_context) == ("answer", "A:")


def hub(monkeypatch, rows):
    def hub_rows(dataset, split):
        asked_for.append((tuple(dataset), split))
        return [Row(values, f"hub/{split}:{number}") for number, values in enumerate(rows)]

    asked_for = []
    monkeypatch.setattr(reading, "hub_rows", hub_rows)
    monkeypatch.setattr(race, "hub_rows", hub_rows)
    return asked_for


def test_race_puts_an_article_of_the_hub_together_again(monkeypatch, tmp_path):
    rows = [
        {"example_id": "middle1.txt", "article": SMITH["article"], "question": q, "options": o, "answer": "A"}
        for q, o in zip(SMITH["questions"], SMITH["options"], strict=True)
    ]
    asked_for = hub(monkeypatch, [*rows, rows[0] | {"example_id": "middle2.txt"}])
    first, second = race.MIDDLE.read(Data(from_hub=True), "dev")
    assert asked_for == [(("ehovy/race", "middle"), "validation")]
    official = problems(race.MIDDLE, tmp_path, {"test/middle/1.txt": json.dumps(SMITH)})
    assert list(race.MIDDLE.ask(first)) == official
    assert len(list(race.MIDDLE.ask(second))) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answers": ["A"]}, "it has 2 questions, 2 lists of options, 1 answers"),
        ({"answers": ["A", "E"]}, "its answer is 'E'"),
        ({"options": [["a", "b", "c", "d"], ["a", "", "c", "d"]]}, "one of its options is empty"),
        ({"article": " "}, "its 'article' is empty"),
        ({"questions": "What?"}, "its 'questions' is no list"),
    ],
)
def test_race_refuses_an_article_that_is_not_whole(tmp_path, change, problem):
    with pytest.raises(BadRow, match=rf"9\.txt:1: {problem}"):
        problems(race.HIGH, tmp_path, {"test/high/9.txt": json.dumps(SMITH | change)})


def test_race_reports_a_file_that_is_no_json_and_goes_on(tmp_path):
    files = {"test/high/1.txt": "{", "test/high/2.txt": json.dumps(SMITH)}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    broken, whole = race.HIGH.read(Data((tmp_path,)), "test")
    with pytest.raises(BadRow, match=r"1\.txt:1"):
        list(race.HIGH.ask(broken))
    assert len(list(race.HIGH.ask(whole))) == 2


def test_race_names_the_files_that_it_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"test/high/\*\.txt is not in"):
        problems(race.HIGH, tmp_path, {"test/middle/1.txt": "{}"})


MULTIRC = {
    "idx": 3,
    "passage": {
        "text": "While this process moved along,  diplomacy continued its rounds.",
        "questions": [
            {
                "question": "Who did The State Department feel should visit both India and Pakistan?",
                "answers": [{"text": "Bin Laden", "label": 0, "idx": 0}, {"text": "Clinton", "label": 1, "idx": 1}],
                "idx": 0,
            },
            {"question": "What continued?", "answers": [{"text": "Diplomacy", "label": 1, "idx": 2}], "idx": 1},
        ],
    },
}
ROUNDS = "While this process moved along, diplomacy continued its rounds."
VISIT = "Who did The State Department feel should visit both India and Pakistan?"


def test_multirc_marks_each_answer(tmp_path):
    first, second, third = problems(
        superglue_multirc.MULTIRC, tmp_path, {"superglue/MultiRC/val.jsonl": lines(MULTIRC)}
    )
    assert superglue_multirc.MULTIRC.description == "READING COMPREHENSION ANSWER KEY"
    assert first.prompt == f"{ROUNDS}\n\n{VISIT}"
    assert completions(first) == ["\n- [False] Bin Laden", "\n- [True] Bin Laden"]
    assert {option.context for option in first.options} == {first.prompt}
    assert (first.gold, second.gold, third.gold) == (0, 1, 1)
    assert first.question == second.question != third.question
    assert first.passage == second.passage == third.passage
    assert superglue_multirc.MULTIRC.draw == "fixed"


def test_multirc_shows_a_passage_with_all_of_its_questions(tmp_path):
    found = problems(superglue_multirc.MULTIRC, tmp_path, {"MultiRC/val.jsonl": lines(MULTIRC)})
    assert {one.shot for one in found} == {
        f"{ROUNDS}\n\n{VISIT}\n- [False] Bin Laden\n- [True] Clinton\n\nWhat continued?\n- [True] Diplomacy"
    }
    assert {one.counts for one in found} == {2}


def test_multirc_puts_a_passage_of_the_hub_together_again(monkeypatch, tmp_path):
    rows = [
        {
            "paragraph": MULTIRC["passage"]["text"], "question": question["question"], "answer": answer["text"],
            "label": answer["label"], "idx": {"paragraph": 3, "question": question["idx"], "answer": answer["idx"]},
        }
        for question in MULTIRC["passage"]["questions"] for answer in question["answers"]
    ]  # fmt: skip
    hub(monkeypatch, [*rows, rows[0] | {"idx": {"paragraph": 4, "question": 0, "answer": 0}}])
    first, second = superglue_multirc.MULTIRC.read(Data(from_hub=True), "dev")
    official = problems(superglue_multirc.MULTIRC, tmp_path, {"MultiRC/val.jsonl": lines(MULTIRC)})
    assert list(map(asked, superglue_multirc.MULTIRC.ask(first))) == list(map(asked, official))
    assert len(list(superglue_multirc.MULTIRC.ask(second))) == 1


TEXT = (
    "(CNN) Yuval Rabin, whose father, Yitzhak Rabin, was killed, criticized Donald Trump. Trump denied it."
    '\n@highlight\nThe son wrote an op ed.\n@highlight\nWarns of "parallels" between Israel and the U.S. today.'
)
QUERY = "Referencing his father, Rabin condemned @placeholder's aggressive rhetoric."
NAMES = ["Yuval Rabin", "Yitzhak Rabin", "Donald Trump", "Trump", "U.S."]


def record(**change):
    entities = [{"start": TEXT.index(name), "end": TEXT.index(name) + len(name) - 1} for name in NAMES]
    entities.append({"start": TEXT.index("Trump denied"), "end": TEXT.index("Trump denied") + 4})
    answers = [{"start": 0, "end": 0, "text": "Donald Trump"}, {"start": 0, "end": 0, "text": "Trump"}]
    qas = [{"query": QUERY, "answers": answers, "idx": 0} | change]
    return {"source": "CNN", "passage": {"text": TEXT, "entities": entities}, "qas": qas, "idx": 5}


def test_record_fills_each_entity_into_the_last_highlight(tmp_path):
    problem = only(superglue_record.RECORD, tmp_path, {"superglue/ReCoRD/val.jsonl": lines(record())})
    assert problem.prompt == (
        "(CNN) Yuval Rabin, whose father, Yitzhak Rabin, was killed, criticized Donald Trump. Trump denied it.\n\n"
        '- The son wrote an op ed.\n- Warns of "parallels" between Israel and the U.S. today.'
    )
    assert completions(problem) == [
        f"\n- Referencing his father, Rabin condemned {name}'s aggressive rhetoric." for name in NAMES
    ]
    assert problem.answers == ("Donald Trump", "Trump")
    assert problem.gold == 2
    assert problem.shot == problem.prompt + completions(problem)[2]


def test_record_reads_the_same_from_the_hub(tmp_path):
    official = only(superglue_record.RECORD, tmp_path, {"ReCoRD/val.jsonl": lines(record())})
    row = {"passage": TEXT, "query": QUERY, "entities": NAMES, "answers": ["Donald Trump", "Trump"]}
    assert asked(of_hub(superglue_record.RECORD, row)) == asked(official)


@pytest.mark.parametrize("change", [{"query": "Nobody."}, {"answers": [{"text": "Clinton"}]}])
def test_record_refuses_a_sentence_that_no_entity_completes(change):
    with pytest.raises(BadRow, match=r"test:0: a sentence needs @placeholder and two entities"):
        of_hub(superglue_record.RECORD, record(**change))


# --------------------------------------------------------------------------------------------- one of a kind

MONCRIEFF = {
    "text": "Mr. Moncrieff has decided to cancel Edward's allowance on the ground that he no longer requires his help.",
    "target": {"span1_index": 0, "span1_text": "Mr. Moncrieff", "span2_index": 16, "span2_text": "his"},
    "label": True,
}


def test_wsc_marks_the_pronoun_and_has_the_noun_written(tmp_path):
    problem = only(superglue_wsc.WSC, tmp_path, {"superglue/WSC/val.jsonl": lines(MONCRIEFF)})
    assert superglue_wsc.WSC.description == (
        "Final Exam with Answer Key\nInstructions: Please carefully read the following passages. For each passage, you "
        "must identify which noun the pronoun marked in *bold* refers to.\n====="
    )
    assert superglue_wsc.WSC.separator == "\n"
    assert problem.prompt == (
        "Passage: Mr. Moncrieff has decided to cancel Edward's allowance on the ground that he no longer requires "
        '*his* help.\nQuestion: In the passage above, what does the pronoun "*his*" refer to?\nAnswer:'
    )
    assert (problem.answers, problem.options, problem.gold) == (("mr. moncrieff",), (), 1)
    assert problem.shot == problem.prompt + " mr. moncrieff"
    assert superglue_wsc.WSC.draw == "fixed"
    assert asked(of_hub(superglue_wsc.WSC, MONCRIEFF["target"] | MONCRIEFF)) == asked(problem)


def test_wsc_keeps_what_stands_behind_a_pronoun_outside_of_the_stars():
    row = {"text": 'He said, "Good for him,"', "span1_text": "He", "span2_text": "him", "span2_index": 4, "label": 0}
    problem = of_hub(superglue_wsc.WSC, row)
    assert problem.prompt.startswith('Passage: He said, "Good for *him*,"\n')
    assert problem.gold == 0


def test_wsc_finds_a_pronoun_behind_its_index_and_refuses_one_that_is_not_there():
    row = {"text": "They might use it now", "span1_text": "a", "span2_text": "it", "span2_index": 2, "label": 1}
    assert of_hub(superglue_wsc.WSC, row).prompt.startswith("Passage: They might use *it* now\n")
    with pytest.raises(BadRow, match="its pronoun 'it' is not word 4"):
        of_hub(superglue_wsc.WSC, row | {"span2_index": 4})


def test_wsc_shows_only_rows_whose_noun_is_meant(tmp_path):
    files = {"WSC/train.jsonl": lines(MONCRIEFF, MONCRIEFF | {"label": False})}
    assert only(superglue_wsc.WSC, tmp_path, files, "train").gold == 1
    assert len(problems(superglue_wsc.WSC, tmp_path, {"WSC/val.jsonl": files["WSC/train.jsonl"]})) == 2


SAT = """# SAT analogy questions, collected by Michael Littman
190 FROM REAL SATs
lull trust v:n
balk fortitude v:n
betray loyalty v:n
cajole compliance v:n
hinder destination v:n
soothe passion v:n
c

"""


def test_sat_analogies_relate_pairs_of_words(tmp_path):
    problem = only(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": SAT.replace("\n", "\r\n")})
    assert problem.prompt == "lull is to trust as"
    assert completions(problem)[2:4] == [" cajole is to compliance", " hinder is to destination"]
    assert problem.shot == "lull is to trust as cajole is to compliance"
    assert problem.id == "SAT-package-V3.txt:2"


def test_sat_analogies_need_no_empty_line_at_the_end_and_refuse_what_is_cut_short(tmp_path):
    text = SAT + SAT.partition("\n")[2].strip()
    assert len(problems(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": text})) == 2
    with pytest.raises(BadRow, match=r":2: it has 7 lines"):
        problems(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": SAT.replace("\nc\n", "\n")})
    with pytest.raises(BadRow, match=r":2: 'lull trust' is not two words"):
        problems(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": SAT.replace(" v:n", "", 1)})


def cbt_file(answer="Cropper", names="Baxter|Cropper|Esther"):
    story = "".join(f"{number} Esther felt relieved , did n't she ?\n" for number in range(1, 21))
    return (
        f"{story}21 She thought that Mr. XXXXX had exaggerated matters -LRB- a little -RRB- .\t{answer}\t\t{names}\n\n"
    )


def test_cbt_asks_for_the_choice_and_the_rest_of_its_sentence(tmp_path):
    found = problems(cbt.NAMED_ENTITIES, tmp_path, {"cbtest_NE_valid_2000ex.txt": cbt_file() * 2})
    assert len(found) == 2
    told = " ".join(["Esther felt relieved, didn't she?"] * 20)
    assert found[1].prompt == f"{told} She thought that Mr."
    assert completions(found[1]) == [
        f" {name} had exaggerated matters (a little)." for name in ("Baxter", "Cropper", "Esther")
    ]
    assert found[1].gold == 1
    assert found[1].shot == found[1].prompt + completions(found[1])[1]
    assert cbt.NAMED_ENTITIES.scored_on == "dev"
    assert cbt.NAMED_ENTITIES.normalise == "none"


def test_cbt_reads_the_same_from_the_hub(tmp_path):
    official = only(cbt.COMMON_NOUNS, tmp_path, {"cbtest_CN_valid_2000ex.txt": cbt_file()})
    row = {
        "sentences": ["Esther felt relieved , did n't she ?"] * 20, "answer": "Cropper",
        "question": "She thought that Mr. XXXXX had exaggerated matters -LRB- a little -RRB- .",
        "options": ["Baxter", "Cropper", "Esther"],
    }  # fmt: skip
    assert asked(of_hub(cbt.COMMON_NOUNS, row)) == asked(official)


def test_cbt_puts_no_space_between_a_quotation_mark_and_the_choice():
    row = {
        "sentences": ["He came ."],
        "question": "`` XXXXX ! '' said he .",
        "answer": "Sir",
        "options": ["Sir", "You"],
    }
    problem = of_hub(cbt.COMMON_NOUNS, row)
    assert problem.prompt == 'He came. "'
    assert completions(problem) == ['Sir!" said he.', 'You!" said he.']


def test_cbt_refuses_a_question_without_a_gap_or_an_answer_that_is_no_choice():
    row = {"sentences": ["A ."], "question": "XXXXX came .", "answer": "Sir", "options": ["Sir", "You"]}
    with pytest.raises(BadRow, match="its question has no XXXXX"):
        of_hub(cbt.COMMON_NOUNS, row | {"question": "He came ."})
    with pytest.raises(BadRow, match="its answer is 'I', but it has Sir, You"):
        of_hub(cbt.COMMON_NOUNS, row | {"answer": "I"})


# ------------------------------------------------------------------------------------------ what all share


def test_rows_come_from_the_hub_where_the_data_says_so(monkeypatch):
    asked_for = hub(monkeypatch, [COPA])
    (row,) = copa.COPA.read(Data(from_hub=True), "dev")
    assert asked_for == [(("aps/super_glue", "copa"), "validation")]
    assert row["premise"] == COPA["premise"]
    list(anli.R3.read(Data(from_hub=True), "test"))
    assert asked_for[-1] == (("facebook/anli",), "test_r3")


def test_files_come_first_by_their_official_name(tmp_path):
    files = {"CB/train32.jsonl": "", "CB/train.jsonl": lines({"premise": "A.", "hypothesis": "B", "label": "neutral"})}
    assert only(superglue_entailment.CB, tmp_path, files, "train").prompt.startswith("A.\n")


def test_a_missing_file_is_named_with_those_that_would_do(tmp_path):
    with pytest.raises(UserError, match=r"COPA/val.jsonl is not in") as error:
        copa.COPA.read(Data((tmp_path,)), "dev")
    assert "copa.jsonl" in error.value.fix


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"premise": "A."}, "it has no 'question'"),
        (COPA | {"label": 2}, "its answer is 2, but it has 0, 1"),
        (COPA | {"label": -1}, "its answer is -1"),
        (COPA | {"label": None}, "its 'label' is null"),
        (COPA | {"choice2": " "}, "one of its options is empty"),
        (COPA | {"choice2": 5}, "one of its options is empty"),
        (COPA | {"premise": ""}, "its 'premise' is empty"),
        (COPA | {"question": "why"}, "its answer is 'why', but it has cause, effect"),
        ({"query": "A, because", "choices": ["b"], "gold": 0}, "it needs at least two options"),
        ({"query": "A, because", "choices": ["b", "c"], "gold": True}, "its answer is True"),
        (None, "it is not JSON"),
    ],
)
def test_a_row_that_cannot_be_asked_about_is_named(row, problem):
    with pytest.raises(BadRow, match=rf"test:0: {problem}"):
        of_hub(copa.COPA, row)


GOOD = [
    (arc.EASY, ARC),
    (arc.EASY, {"question": GEORGE, "choices": {"text": PALMS, "label": list("ABCD")}, "answerKey": "A"}),
    (arc.EASY, [GEORGE, *PALMS, "A"]),
    (openbookqa.OPENBOOKQA, OBQA),
    (hellaswag.HELLASWAG, CAKE),
    (piqa.PIQA, SEALANT | {"label": "0"}),
    (copa.COPA, COPA),
    (anli.R1, {"uid": "7c", "context": "A cat sat.", "hypothesis": "It sat.", "label": "e"}),
    (superglue_entailment.CB, {"premise": "A cat sat.", "hypothesis": "it sat", "label": "neutral"}),
    (superglue_boolq.BOOLQ, {"title": "Cats", "passage": "A cat sat.", "question": "did it", "label": True}),
    (superglue_wic.WIC, {"word": "cat", "sentence1": "A cat.", "sentence2": "My cat.", "label": True}),
    (superglue_wsc.WSC, MONCRIEFF),
    (superglue_multirc.MULTIRC, MULTIRC),
    (superglue_record.RECORD, record()),
    (race.HIGH, SMITH),
    (winograd.WINOGRAD, GAUNTLET_WINOGRAD),
    (
        winograd.WINOGRAD,
        {"text": "A cat: it sat.", "pronoun": "it", "pronoun_loc": 7, "options": ["a", "b"], "label": 1},
    ),
    (winograd.WINOGRAD, {"substitutions": [{"substitution": "A b.", "correctness": True}] * 2}),
    (winogrande.WINOGRANDE, {"qID": "3-1", "sentence": "A _ sat.", "option1": "cat", "option2": "mat", "answer": "1"}),
    (sat_analogies.SAT_ANALOGIES, SAT.splitlines()[1:9]),
    (cbt.COMMON_NOUNS, {"sentences": ["A ."], "question": "XXXXX .", "answer": "A", "options": ["A", "B"]}),
]


def broken(values):
    """The same values with one thing in them missing, or something else than it should be."""
    places = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for place, inside in list(places):
        for junk in (None, "", 3, -1, 2.5, True, [], ["x"], {}, {"x": "y"}, *broken(inside)):
            changed = values.copy()
            changed[place] = junk
            yield changed
        without = values.copy()
        del without[place]
        yield without


@pytest.mark.parametrize(("task", "values"), GOOD, ids=lambda value: getattr(value, "name", ""))
def test_whatever_is_wrong_in_a_row_it_is_asked_about_or_reported_with_its_line(task, values):
    refused = []
    for change in broken(values):
        try:
            assert all(isinstance(one.shot, str) for one in task.ask(Row(change, "hub/test:0")))
        except BadRow as error:
            refused.append(str(error))
    assert refused
    assert all(problem.startswith("hub/test:0: ") for problem in refused)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_row_at_all_is_a_bad_row_of_every_task(task):
    for values in (None, {}, [], {"passage": 3, "question": 4}):
        with pytest.raises(BadRow, match="test:0: "):
            list(task.ask(Row(values, "hub/test:0")))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_k_is_never_chosen_on_the_split_that_is_scored(task):
    assert task.chosen_on != task.scored_on


def test_the_shots_and_splits_are_those_of_the_paper(shared_data):
    """Every row of the paper's table of results that is scored by choice."""
    by_row = {task.published: task for task in TASKS if task.shots}
    with (shared_data / "evaluation/gpt3/table_h1.csv").open() as file:
        table = {tuple(line.split(",")[:4]) for line in file}
    found = {row: (split, int(k)) for row, metric, split, k in table if metric == "acc" and row in by_row}
    assert len(found) == len(by_row) == 22
    for row, (split, k) in found.items():
        assert by_row[row].shots == k, row
        assert by_row[row].scored_on == ("test" if split == "n/a" else split), row


@pytest.mark.parametrize(
    ("task", "usable"),
    [
        (arc.EASY, 2376), (arc.CHALLENGE, 1172), (openbookqa.OPENBOOKQA, 500), (piqa.PIQA, 1838), (copa.COPA, 100),
        (superglue_boolq.BOOLQ, 3270), (superglue_entailment.CB, 56), (superglue_entailment.RTE, 277),
        (superglue_wic.WIC, 638), (superglue_wsc.WSC, 104), (winograd.WINOGRAD, 273), (winograd.FULL, 273),
    ],
    ids=lambda value: getattr(value, "name", None),
)  # fmt: skip
def test_every_problem_of_a_whole_set_is_asked(shared_data, task, usable):
    data = Data((shared_data / "evaluation",))
    found = [problem for row in task.read(data, task.scored_on) for problem in task.ask(row)]
    assert len(found) == len({problem.id for problem in found}) == usable
    for problem in found:
        assert problem.shot, problem.id
        assert "  " not in problem.prompt, problem.id


@pytest.mark.parametrize(
    ("task", "split", "usable", "bad"),
    [
        (arc.EASY, "train", 2147, 104), (arc.EASY, "dev", 549, 21),
        (arc.CHALLENGE, "train", 1096, 23), (arc.CHALLENGE, "dev", 294, 5),
        (superglue_boolq.BOOLQ, "train", 32, 0), (superglue_record.RECORD, "train", 32, 0),
        (superglue_multirc.MULTIRC, "train", 154, 0),
    ],
)  # fmt: skip
def test_the_known_faults_of_real_files_are_left_out(shared_data, task, split, usable, bad):
    found, refused = 0, 0
    for row in task.read(Data((shared_data / "evaluation",)), split):
        try:
            found += len(list(task.ask(row)))
        except BadRow:
            refused += 1
    assert (found, refused) == (usable, bad)
