"""Articles of RACE with their questions, and stories of the Children's Book Test with a word left out."""

import json

import pytest
from task_files import asked, completions, hub, of_hub, only, problems_in
from task_rows import SMITH

from rein.errors import UserError
from rein.evals.data import BadRow, Data
from rein.evals.tasks import cbt, race

# ---------------------------------------------------------------------------------------------------------- RACE

ARTICLE = (
    "Article:\n\nMrs. Smith is an unusual teacher.\nOnce she told each student to bring along a few potatoes.\n\n"
    "Q: The children complained about _ besides the weight trouble.\n\nA:"
)


def test_race_asks_behind_the_articles_earlier_questions(tmp_path):
    files = {"RACE/test/middle/1.txt": json.dumps(SMITH), "RACE/test/high/1.txt": "{}", "RACE/dev/middle/1.txt": "{}"}
    first, second = problems_in(race.MIDDLE, tmp_path, files)
    assert first.prompt == ARTICLE
    assert second.prompt == ARTICLE + " the smell\n\nQ: Mrs. Smith asked to write _ .\n\nA:"
    assert completions(second) == [" names", " numbers", " time", " places"]
    assert first.shot == second.shot == second.prompt + " names"
    assert first.counts == second.counts == 2
    assert first.passage == second.passage == "middle1.txt"
    assert (first.id, second.id) == ("middle1.txt/0", "middle1.txt/1")
    assert (race.MIDDLE.normalise, race.MIDDLE.answer_context) == ("answer", "A:")


def test_race_puts_an_article_of_the_hub_together_again(monkeypatch, tmp_path):
    rows = [
        {"example_id": "middle1.txt", "article": SMITH["article"], "question": q, "options": o, "answer": "A"}
        for q, o in zip(SMITH["questions"], SMITH["options"], strict=True)
    ]
    asked_for = hub(monkeypatch, [*rows, rows[0] | {"example_id": "middle2.txt"}])
    first, second = race.MIDDLE.read(Data(from_hub=True), "dev")
    assert asked_for == [(("ehovy/race", "middle"), "validation")]
    official = problems_in(race.MIDDLE, tmp_path, {"test/middle/1.txt": json.dumps(SMITH)})
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
        problems_in(race.HIGH, tmp_path, {"test/high/9.txt": json.dumps(SMITH | change)})


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
        problems_in(race.HIGH, tmp_path, {"test/middle/1.txt": "{}"})


# ------------------------------------------------------------------------------------------ Children's Book Test


def cbt_file(answer="Cropper", names="Baxter|Cropper|Esther"):
    story = "".join(f"{number} Esther felt relieved , did n't she ?\n" for number in range(1, 21))
    return (
        f"{story}21 She thought that Mr. {cbt.GAP} had exaggerated matters -LRB- a little -RRB- ."
        f"\t{answer}\t\t{names}\n\n"
    )


def test_cbt_asks_for_the_choice_and_the_rest_of_its_sentence(tmp_path):
    found = problems_in(cbt.NAMED_ENTITIES, tmp_path, {"cbtest_NE_valid_2000ex.txt": cbt_file() * 2})
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
        "question": f"She thought that Mr. {cbt.GAP} had exaggerated matters -LRB- a little -RRB- .",
        "options": ["Baxter", "Cropper", "Esther"],
    }  # fmt: skip
    assert asked(of_hub(cbt.COMMON_NOUNS, row)) == asked(official)


def test_cbt_puts_no_space_between_a_quotation_mark_and_the_choice():
    row = {
        "sentences": ["He came ."],
        "question": f"`` {cbt.GAP} ! '' said he .",
        "answer": "Sir",
        "options": ["Sir", "You"],
    }
    problem = of_hub(cbt.COMMON_NOUNS, row)
    assert problem.prompt == 'He came. "'
    assert completions(problem) == ['Sir!" said he.', 'You!" said he.']


def test_cbt_refuses_a_question_without_a_gap_or_an_answer_that_is_no_choice():
    row = {"sentences": ["A ."], "question": f"{cbt.GAP} came .", "answer": "Sir", "options": ["Sir", "You"]}
    with pytest.raises(BadRow, match=f"its question has no {cbt.GAP}"):
        of_hub(cbt.COMMON_NOUNS, row | {"question": "He came ."})
    with pytest.raises(BadRow, match="its answer is 'I', but it has Sir, You"):
        of_hub(cbt.COMMON_NOUNS, row | {"answer": "I"})
