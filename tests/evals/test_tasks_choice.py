"""Tasks by choice: each reads its official files, and asks literally as the papers print it."""

import pytest
from task_files import asked, completions, lines, of_hub, only, problems_in
from task_rows import ARC, CAKE, GEORGE, OBQA, PALMS, SAT, SEALANT

from rein.errors import UserError
from rein.evals.data import BadRow, Data
from rein.evals.tasks import anli, arc, hellaswag, openbookqa, piqa, sat_analogies, storycloze

# ----------------------------------------------------------------------------------------- usual multiple choice


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
        problems_in(arc.EASY, tmp_path, {"arc/easy_dev.csv": f"What is wet?,fog,rain,sun,sand,B\n{row}\n"}, "dev")


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


def test_piqa_asks_the_bare_goal_and_finds_its_answer_in_the_other_file(tmp_path):
    goals = lines(SEALANT, {"goal": "Boil water.", "sol1": "Cool it.", "sol2": "Heat it."})
    first, second = problems_in(piqa.PIQA, tmp_path, {"piqa/valid.jsonl": goals, "piqa/valid-labels.lst": "0\n1\n"})
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
        problems_in(
            piqa.PIQA, tmp_path, {"piqa/train.jsonl": lines(SEALANT), "piqa/train-labels.lst": "0\n1\n"}, "train"
        )


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


# ---------------------------------------------------------------------------------------------------- entailment


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


# ------------------------------------------------------------------------------------------------- one of a kind


def test_sat_analogies_relate_pairs_of_words(tmp_path):
    problem = only(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": SAT.replace("\n", "\r\n")})
    assert problem.prompt == "lull is to trust as"
    assert completions(problem)[2:4] == [" cajole is to compliance", " hinder is to destination"]
    assert problem.shot == "lull is to trust as cajole is to compliance"
    assert problem.id == "SAT-package-V3.txt:2"


def test_sat_analogies_need_no_empty_line_at_the_end_and_refuse_what_is_cut_short(tmp_path):
    text = SAT + SAT.partition("\n")[2].strip()
    assert len(problems_in(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": text})) == 2
    with pytest.raises(BadRow, match=r":2: it has 7 lines"):
        problems_in(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": SAT.replace("\nc\n", "\n")})
    with pytest.raises(BadRow, match=r":2: 'lull trust' is not two words"):
        problems_in(sat_analogies.SAT_ANALOGIES, tmp_path, {"SAT-package-V3.txt": SAT.replace(" v:n", "", 1)})
