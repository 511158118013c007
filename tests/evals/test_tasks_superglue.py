"""SuperGLUE: each task reads its official files, and asks literally as the paper prints it."""

import pytest
from task_files import asked, completions, hub, lines, of_hub, only, problems_in
from task_rows import COPA, MONCRIEFF, MULTIRC, NAMES, QUERY, TEXT, record

from rein.evals.data import BadRow, Data
from rein.evals.tasks import (
    copa,
    superglue_boolq,
    superglue_entailment,
    superglue_multirc,
    superglue_record,
    superglue_wic,
    superglue_wsc,
)

# ------------------------------------------------------------------------------------------------------- choices


def test_copa_goes_on_with_because_or_therefore(tmp_path):
    effect = COPA | {
        "premise": "The man turned on the faucet.",
        "question": "effect",
        "label": 1,
        "choice2": "I'm wet.",
    }
    first, second = problems_in(copa.COPA, tmp_path, {"superglue/COPA/val.jsonl": lines(COPA, effect)})
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


# ---------------------------------------------------------------------------------------------------- entailment


def test_cb_asks_true_false_or_neither(tmp_path):
    row = {"premise": "The drop doesn't mean Manhattan comes cheap.", "hypothesis": "Manhattan comes cheap"}
    labels = [row | {"label": label} for label in ("contradiction", "entailment", "neutral")]
    found = problems_in(superglue_entailment.CB, tmp_path, {"superglue/CB/val.jsonl": lines(*labels)})
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
    found = problems_in(superglue_entailment.RTE, tmp_path, {"superglue/RTE/val.jsonl": lines(*labels)})
    assert found[0].prompt == (
        "The bet was regarding the top quark.\n"
        "question: The Top Quark is the last of six flavors. True or False?\nanswer:"
    )
    assert [one.shot.removeprefix(one.prompt) for one in found] == [" False", " True"]
    assert asked(of_hub(superglue_entailment.RTE, row | {"label": 1})) == asked(found[0])


# ----------------------------------------------------------------------------------------------------- yes or no


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
        problems_in(superglue_boolq.BOOLQ, tmp_path, {"boolq.jsonl": lines(row)})


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


# -------------------------------------------------------------------------------------------- nouns and pronouns


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
    assert len(problems_in(superglue_wsc.WSC, tmp_path, {"WSC/val.jsonl": files["WSC/train.jsonl"]})) == 2


# --------------------------------------------------------------------------------------- passages with questions

ROUNDS = "While this process moved along, diplomacy continued its rounds."


VISIT = "Who did The State Department feel should visit both India and Pakistan?"


def test_multirc_marks_each_answer(tmp_path):
    first, second, third = problems_in(
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
    found = problems_in(superglue_multirc.MULTIRC, tmp_path, {"MultiRC/val.jsonl": lines(MULTIRC)})
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
    official = problems_in(superglue_multirc.MULTIRC, tmp_path, {"MultiRC/val.jsonl": lines(MULTIRC)})
    assert list(map(asked, superglue_multirc.MULTIRC.ask(first))) == list(map(asked, official))
    assert len(list(superglue_multirc.MULTIRC.ask(second))) == 1


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
