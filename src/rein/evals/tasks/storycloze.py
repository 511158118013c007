"""StoryCloze: four sentences of a story, and which of two is the fifth.

    Bob went to the gas station to fill up his car. His tank was completely empty and so was his wallet. The cashier
    offered to pay for his gas if he came back later to pay. Bob felt grateful as he drove home. Bob believed that there
    were good people in the world.

There is no train set: shots come from dev. Read from the authors' CSV files of 2016, from query/choices/gold, and
from the hub.

Source   Brown 2020, Appendix G, figure G.17; §2.4. Mostafazadeh 2016.
"""

from collections.abc import Iterable

from rein.evals.data import Data, Row
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import files, gauntlet, gold_of, id_of, options_of, text_in

HUB = ("LSDSem/story_cloze", "2016")
NAMES: dict[Split, tuple[str, ...]] = {
    "dev": (
        "cloze_test_val__spring2016 - cloze_test_ALL_val.csv",
        "cloze_test_val__spring2016.csv",
        "storycloze/val.csv",
    ),
    "test": (
        "cloze_test_test__spring2016 - cloze_test_ALL_test.csv",
        "cloze_test_test__spring2016.csv",
        "storycloze/test.csv",
        "story_cloze.jsonl",
    ),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of StoryCloze."""
    return files(data, split, NAMES, hub=HUB)


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    story, endings, gold = gauntlet(row) or _story(row)
    yield multiple_choice(id_of(row), story, endings, gold, parts={"question": story, "answer": endings[gold]})


def _story(row: Row) -> tuple[str, list[str], int]:
    if row.get("InputSentence1") is None:  # the hub's names
        sentences, endings, right = "input_sentence_{}", "sentence_quiz{}", "answer_right_ending"
    else:
        sentences, endings, right = "InputSentence{}", "RandomFifthSentenceQuiz{}", "AnswerRightEnding"
    story = " ".join(text_in(row, sentences.format(number)) for number in (1, 2, 3, 4))
    quiz = options_of(row, [row[endings.format(number)] for number in (1, 2)])
    return story, quiz, gold_of(row, str(row[right]).strip(), ("1", "2"))


STORYCLOZE = Task("storycloze", "StoryCloze", read, ask, published="StoryCloze", shots=70, shots_from="dev")
