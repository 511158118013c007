"""Tasks that are answered in words, texts that are scored, puzzles that are made, and the table of all tasks."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rein.errors import UserError
from rein.evals import metrics
from rein.evals.data import BadRow, Data, Row, rows
from rein.evals.task import Answer, Task
from rein.evals.tasks import (
    arithmetic,
    closed_book,
    coqa,
    drop,
    lambada,
    language_modelling,
    quac,
    scrambling,
    squad,
    summarisation,
    translation,
)
from rein.evals.tasks.detokenise import PTB, WIKITEXT, retokenise
from rein.evals.tasks.own import task_from_file
from rein.evals.tasks.table import GROUPS, TASKS, expand, load


def put(tmp_path: Path, name: str, content) -> Data:
    """One file."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return Data((tmp_path,))


def problems(task: Task, data: Data, split=None):
    """All of a split, by default the one that is scored."""
    return [problem for row in task.read(data, split or task.scored_on) for problem in task.ask(row)]


def answered(problem, text):
    return Answer(problem, 0, 0, text=text)


# --------------------------------------------------------------------------------------------------- LAMBADA


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lambada_test.jsonl", '{"text": "She held the  torch.\\n\\nThere\'s more than a step"}\n'),
        ("lambada_openai.jsonl", '{"context":"She held the  torch.\\n\\nThere\'s more than a", "continuation":"step"}'),
    ],
)  # fmt: skip
def test_lambada_asks_for_the_last_word_of_the_text_as_it_is(tmp_path, name, content):
    data = put(tmp_path, name, content)
    [problem] = problems(lambada.LAMBADA, data)
    context = "She held the  torch.\n\nThere's more than a"
    assert problem.options[0].context == f"{context} ____. ->"
    assert problem.shot == f"{context} ____. -> step"
    assert (problem.alone.options[0].context, problem.alone.options[0].completion) == (context, " step")
    assert problem.options[0].completion == " step"
    assert (problem.gold, problem.alone.gold) == (0, 0)
    [plain] = problems(lambada.GPT2, data)
    assert plain.options == problem.alone.options
    assert plain.alone is None


def test_lambada_draws_its_shots_from_the_dev_set(tmp_path):
    data = put(tmp_path, "lambada_development_plain_text.txt", "he went to see his friend bob\n")
    assert lambada.LAMBADA.shots_from == "dev"
    [shot] = problems(lambada.LAMBADA, data, "dev")
    assert shot.shot == "he went to see his friend ____. -> bob"


def test_a_passage_of_one_word_is_no_problem_of_lambada(tmp_path):
    data = put(tmp_path, "lambada_test.jsonl", '{"text": "word"}\n')
    with pytest.raises(BadRow, match=r"lambada_test\.jsonl:1: it has no last word"):
        problems(lambada.LAMBADA, data)


def test_all_of_lambada_is_read(shared_data):
    found = problems(lambada.LAMBADA, Data((shared_data,)))
    assert len({problem.id for problem in found}) == 5153
    assert all(problem.alone.options[0].completion.strip().split() for problem in found)


# ----------------------------------------------------------------------------------------- questions from memory


def test_natural_questions_are_asked_as_appendix_g_prints_them(tmp_path):
    data = put(
        tmp_path,
        "NQ-open.dev.jsonl",
        '{"question": "who played tess on touched by an angel", "answer": ["Delloreese Early", "Della Reese"]}\n',
    )
    [problem] = problems(closed_book.NQ, data)
    assert problem.prompt == "Q: Who played tess on touched by an angel?\n\nA:"
    assert problem.shot == "Q: Who played tess on touched by an angel?\n\nA: Delloreese Early"
    assert metrics.exact_match(answered(problem, "della reese")) == 1


def test_triviaqa_takes_every_alias(tmp_path):
    row = {
        "Question": "Which artist painted it?",
        "QuestionId": "tc_3",
        "Answer": {"Value": "MARCEL DUCHAMP", "Aliases": ["R Mutt", "MARCEL DUCHAMP"]},
    }
    data = put(tmp_path, "qa/wikipedia-dev.json", {"Data": [row], "Version": 1})
    [problem] = problems(closed_book.TRIVIAQA, data)
    assert problem.id == "tc_3"
    assert problem.prompt == "Q: Which artist painted it?\n\nA:"
    assert problem.answers == ("MARCEL DUCHAMP", "R Mutt")


def test_webquestions_are_read_in_both_forms(tmp_path):
    official = {"utterance": "who is it?", "targetValue": '(list (description "Jazmyn Bieber") (description Jaxon))'}
    data = put(tmp_path, "webquestions.examples.test.json", [official])
    put(tmp_path, "main/train.json", [{"qId": "wqr1", "qText": "what school?", "answers": ["School of Visual Arts"]}])
    [problem] = problems(closed_book.WEBQS, data)
    assert problem.prompt == "Q: Who is it?\n\nA:"
    assert problem.answers == ("Jazmyn Bieber", "Jaxon")
    [shot] = problems(closed_book.WEBQS, data, "train")
    assert (shot.id, shot.shot) == ("wqr1", "Q: What school?\n\nA: School of Visual Arts")


def test_a_question_of_the_hub_is_the_same_question():
    row = Row({"question": "Who?", "question_id": "tc_1", "answer": {"value": "Ann", "aliases": ["Anne"]}}, "hub:0")
    [problem] = closed_book.ask(row)
    assert (problem.id, problem.answers) == ("tc_1", ("Ann", "Anne"))


@pytest.mark.parametrize(
    "values",
    [{"question": "who"}, {"question": "who", "answer": []}, {"answer": ["x"]}, {"question": " ", "answer": "x"}],
)
def test_a_question_without_answers_or_words_is_a_bad_row(values):
    with pytest.raises(BadRow, match="NQ:7"):
        list(closed_book.ask(Row(values, "NQ:7")))


# ---------------------------------------------------------------------------------------------- conversations

STORY = {
    "id": "s1",
    "story": "Helsinki is the capital of Finland.",
    "questions": [{"input_text": "what is it?", "turn_id": 1}, {"input_text": "of what?", "turn_id": 2}],
    "answers": [{"input_text": "the capital", "turn_id": 1}, {"input_text": "Finland", "turn_id": 2}],
    "additional_answers": {
        "0": [{"input_text": "a capital", "turn_id": 1}, {"input_text": "Finland", "turn_id": 2}],
    },
}


def test_coqa_asks_behind_the_questions_before_and_their_answers(tmp_path):
    data = put(tmp_path, "coqa-dev-v1.0.json", {"version": "1.0", "data": [STORY]})
    first, second = problems(coqa.COQA, data)
    assert first.prompt == "Helsinki is the capital of Finland.\n\nQ: what is it?\n\nA:"
    whole = "Helsinki is the capital of Finland.\n\nQ: what is it?\n\nA: the capital\n\nQ: of what?\n\nA:"
    assert second.prompt == whole
    assert first.shot == second.shot == whole + " Finland"
    assert (first.counts, first.passage, second.passage) == (2, "s1", "s1")
    assert first.answers == ("the capital", "a capital")
    assert second.answers == ("Finland", "Finland")  # one for each person: they are left out in turn
    assert problems(coqa.GPT2, data) == [first, second]


def test_coqa_of_the_hub_is_the_same():
    hub = {
        "story": STORY["story"],
        "questions": ["what is it?", "of what?"],
        "answers": {"input_text": ["the capital", "Finland"], "answer_start": [0, 0]},
    }
    first, second = coqa.ask(Row(hub, "hub:0"))
    assert second.prompt.endswith("A: the capital\n\nQ: of what?\n\nA:")
    assert first.answers == ("the capital",)


def test_a_conversation_with_an_answer_missing_is_a_bad_row():
    with pytest.raises(BadRow, match=r"dev:1: 2 questions have \[1, 2\] answers"):
        list(coqa.ask(Row({**STORY, "answers": STORY["answers"][:1]}, "dev:1")))


QUAC_ROW = {
    "title": "William Perry",
    "section_title": "Professional career",
    "paragraphs": [
        {
            "context": "In 1985, he was selected by the Chicago Bears. CANNOTANSWER",
            "id": "C_1",
            "qas": [
                {
                    "question": "what team did he play for?",
                    "orig_answer": {"text": "the Chicago Bears"},
                    "answers": [{"text": "Chicago Bears"}, {"text": "the Chicago Bears"}, {"text": "Chicago Bears"}],
                },
                {
                    "question": "did he like it?",
                    "orig_answer": {"text": "CANNOTANSWER"},
                    "answers": [{"text": "CANNOTANSWER"}],
                },
            ],
        }
    ],
}


def test_quac_asks_with_title_section_and_what_was_asked_before(tmp_path):
    data = put(tmp_path, "val_v0.2.json", {"data": [QUAC_ROW]})
    first, second = problems(quac.QUAC, data)
    opening = "TITLE: William Perry - Professional career\nPARAGRAPH: In 1985, he was selected by the Chicago Bears."
    assert first.prompt == f"{opening}\n\nQ: what team did he play for?\n\nA:"
    assert second.prompt == f"{first.prompt} the Chicago Bears\n\nQ: did he like it?\n\nA:"
    assert second.shot == f"{second.prompt} CANNOTANSWER"
    assert first.answers == ("Chicago Bears", "the Chicago Bears", "Chicago Bears")
    assert (first.passage, first.counts) == ("C_1", 2)
    assert metrics.f1_quac(answered(second, "CANNOTANSWER")) == 1


def test_quac_of_the_hub_is_the_same():
    part = QUAC_ROW["paragraphs"][0]
    hub = {
        "dialogue_id": "C_1",
        "wikipedia_page_title": "William Perry",
        "section_title": "Professional career",
        "context": part["context"],
        "questions": [qa["question"] for qa in part["qas"]],
        "answers": {"texts": [[answer["text"] for answer in qa["answers"]] for qa in part["qas"]]},
        "orig_answers": {"texts": [qa["orig_answer"]["text"] for qa in part["qas"]]},
    }
    assert list(quac.ask(Row(hub, "hub:0"))) == list(quac.ask(Row(QUAC_ROW, "val:1")))


def test_squad_says_so_where_a_paragraph_has_no_answer(tmp_path):
    qas = [
        {"question": "How many sorties?", "id": "q1", "answers": [{"text": "4,000"}, {"text": "4,000"}]},
        {"question": "When did it end?", "id": "q2", "is_impossible": True, "answers": []},
    ]
    article = {"title": "The_Blitz", "paragraphs": [{"context": "In March 4,000 sorties.", "qas": qas}]}
    first, second = problems(squad.SQUAD, put(tmp_path, "dev-v2.0.json", {"data": [article]}))
    opening = "Title: The Blitz\n\nBackground: In March 4,000 sorties."
    assert first.prompt == f"{opening}\n\nQ: How many sorties?\n\nA:"
    assert second.prompt == f"{first.prompt} 4,000\n\nQ: When did it end?\n\nA:"
    assert first.shot == second.shot == f"{second.prompt} N/A"
    assert (first.id, first.answers, second.answers) == ("q1", ("4,000",), ("N/A",))
    assert first.passage == second.passage
    assert metrics.em_squad(answered(second, "N/A")) == 1


def test_drop_writes_numbers_dates_and_spans_as_words(tmp_path):
    date = {"day": "15", "month": "May", "year": "1948"}
    nothing = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": []}
    qa_pairs = [
        {"question": "How many years?", "query_id": "a", "answer": {**nothing, "number": "4"},
         "validated_answers": [{**nothing, "number": "4"}, {**nothing, "number": "5"}]},
        {"question": "When?", "query_id": "b", "answer": {**nothing, "date": date}},
        {"question": "Who?", "query_id": "c", "answer": {**nothing, "spans": ["Bears", "Packers"]}},
    ]  # fmt: skip
    passage = "Jean stayed in New France for four years."
    data = put(tmp_path, "drop_dataset_dev.json", {"nfl_1": {"passage": passage, "qa_pairs": qa_pairs}})
    years, when, who = problems(drop.DROP, data)
    assert years.prompt == f"Passage: {passage}\nQuestion: How many years?\nAnswer:"
    assert years.shot == f"{years.prompt} 4"
    assert (years.id, years.passage, years.answers) == ("a", "nfl_1", ("4", "5"))
    assert when.answers == ("15 May 1948",)
    assert metrics.f1_drop(answered(who, "Packers; Bears")) == 1


def test_an_answer_of_drop_that_says_nothing_is_a_bad_row():
    qa = {"question": "When?", "query_id": "b", "answer": {"number": "", "date": {}, "spans": []}}
    with pytest.raises(BadRow, match="no number"):
        list(drop.ask(Row({"passage": "x", "qa_pairs": [qa]}, "dev:1:nfl_1")))


def test_drop_of_the_hub_is_the_same():
    hub = {"section_id": "nfl_1", "query_id": "a", "passage": "It was 4.", "question": "How many?",
           "answers_spans": {"spans": ["4", "4"], "types": ["number", "number"]}}  # fmt: skip
    [problem] = drop.ask(Row(hub, "hub:0"))
    assert (problem.passage, problem.answers) == ("nfl_1", ("4",))


# ------------------------------------------------------------------------------------------------ translation

SGM = '<refset><doc docid="1"><hl>\n<seg id="1">{}</seg>\n</hl><p><seg id="2">{}</seg></p></doc></refset>'


@pytest.mark.parametrize("form", ["sgm", "lines", "json"])
def test_translation_is_a_question_without_shots_and_an_equation_behind_them(tmp_path, form):
    if form == "sgm":
        data = put(tmp_path, "newstest2016-deen-src.de.sgm", SGM.format("Das &amp; dies.", "Nein."))
        put(tmp_path, "newstest2016-deen-ref.en.sgm", SGM.format("This & that.", "No."))
    elif form == "lines":
        data = put(tmp_path, "newstest2016.de", "Das & dies.\nNein.\n")
        put(tmp_path, "newstest2016.en", "This & that.\nNo.\n")
    else:
        pairs = [{"de": "Das & dies.", "en": "This & that."}, {"de": "Nein.", "en": "No."}]
        data = put(tmp_path, "de-en/newstest2016.jsonl", "".join(json.dumps({"translation": p}) + "\n" for p in pairs))
    first, second = problems(translation.DE_EN, data)
    assert first.prompt == "Das & dies. ="
    assert first.shot == "Das & dies. = This & that."
    assert first.alone.prompt == "Q: What is the English translation of Das & dies. A:"
    assert first.answers == first.alone.answers == ("This & that.",)
    assert second.answers == ("No.",)
    assert first.parts["language"] == "en"


def test_gpt2_translates_by_the_equation_alone():
    row = Row({"translation": {"en": "No.", "fr": "Non."}}, "x:1")
    [problem] = translation.EN_FR_GPT2.ask(row)
    assert (problem.prompt, problem.shot, problem.alone) == ("No. =", "No. = Non.", None)


def test_files_of_translations_must_have_as_many_lines(tmp_path):
    data = put(tmp_path, "newstest2014.en", "One.\nTwo.\n")
    put(tmp_path, "newstest2014.fr", "Un.\n")
    with pytest.raises(UserError, match=r"has 2 lines, .* 1"):
        problems(translation.EN_FR, data)


def test_a_missing_translation_names_the_files_that_would_do(tmp_path):
    with pytest.raises(UserError, match=r"newstest2014-fren-src\.fr\.sgm") as found:
        problems(translation.FR_EN, Data((tmp_path,)))
    assert "newstest2014.en" in found.value.fix


# ----------------------------------------------------------------------------------------------- summarisation


def test_a_summary_is_asked_for_with_tldr(tmp_path):
    data = put(tmp_path, "test.source", "It rained.\nIt snowed.\n")
    put(tmp_path, "test.target", "Rain.\nSnow.\n")
    first, _ = problems(summarisation.TLDR, data)
    assert (first.prompt, first.answers) == ("It rained.\nTL;DR:", ("Rain.",))
    bare, _ = problems(summarisation.NO_HINT, data)
    assert bare.prompt == "It rained."


def test_a_summary_of_the_hub_keeps_its_lines():
    [problem] = summarisation.ask(Row({"id": "1", "article": "It rained.", "highlights": "Rain .\nSnow ."}, "hub:0"))
    assert problem.answers == ("Rain .\nSnow .",)


def test_the_first_sentences_of_a_text_stand_one_a_line():
    said = ' It cost $3.50. "Why?" she asked! Nobody knew.\nFive. Six.'
    assert summarisation.first_sentences(said) == 'It cost $3.50.\n"Why?"\nshe asked!'
    assert summarisation.first_sentences("") == ""


# ------------------------------------------------------------------------------------------ language modelling


def test_a_text_counts_its_words_and_line_ends_as_published(tmp_path):
    data = put(tmp_path, "ptb.test.txt", " it does n't pay $ N \n no \n")
    [problem] = problems(language_modelling.PENN, data)
    assert problem.text == "it doesn't pay $N\nno\n"
    assert problem.units == 7 + 2


def test_wikitext_is_cut_at_the_titles_of_its_articles(tmp_path):
    text = " \n = One = \n \n Text = 1 . \n = = Part = = \n \n \n = Two = \n \n More . \n"
    data = put(tmp_path, "wikitext-2/wiki.test.tokens", text)
    first, second = problems(language_modelling.WIKITEXT_2, data)
    assert first.text.startswith("\n= One =\n\nText = 1.\n== Part ==")
    assert second.text == "= Two =\n\nMore.\n"
    assert first.units + second.units == len(text.split()) + text.count("\n")


def test_wikitext_of_the_hub_is_the_file(tmp_path, monkeypatch):
    lines = ["", " = One = \n", "", " Text . \n"]
    monkeypatch.setattr(language_modelling, "hub_rows", lambda *_: (Row({"text": line}, "hub:0") for line in lines))
    [row] = language_modelling.WIKITEXT_2.read(Data(from_hub=True), "test")
    assert row.values == " \n = One = \n \n Text . \n"


def test_every_line_of_1bw_is_a_text(tmp_path):
    data = put(tmp_path, "news.en.heldout-00000-of-00050", "It 's late .\nYes .\n")
    first, second = problems(language_modelling.ONE_BILLION, data)
    assert (first.text, first.units, second.text, second.units) == ("It's late.\n", 5, "Yes.\n", 3)


def test_the_test_set_of_enwik8_is_its_last_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(language_modelling, "LAST_BYTES", 5)
    (tmp_path / "enwik8").write_bytes("train-é12é345".encode())
    [test] = problems(language_modelling.ENWIK8, Data((tmp_path,)))
    [dev] = problems(language_modelling.ENWIK8, Data((tmp_path,)), "dev")
    assert (test.text, test.units) == ("é345", 5)
    assert (dev.text, dev.units) == ("-é12", 5)


def test_a_character_that_the_test_set_cuts_in_two_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(language_modelling, "LAST_BYTES", 4)
    (tmp_path / "enwik8").write_bytes(b"0123" + "é345".encode())  # begins with the second byte of é
    [problem] = problems(language_modelling.ENWIK8, Data((tmp_path,)))
    assert (problem.text, problem.units) == ("345", 3)


def test_a_test_set_that_was_cut_off_before_is_read_whole(tmp_path):
    data = put(tmp_path, "text8/test.txt.raw", " the end")
    [problem] = problems(language_modelling.TEXT8, data)
    assert (problem.text, problem.units) == (" the end", 8)


def test_a_text_without_words_is_a_bad_row():
    with pytest.raises(BadRow, match="ptb:1: it has no words"):
        list(language_modelling.PENN.ask(Row("", "ptb:1")))
    with pytest.raises(BadRow, match="enwik8:1: it is empty"):
        list(language_modelling.ENWIK8.ask(Row("", "enwik8:1")))


def test_a_split_that_a_corpus_does_not_have_is_named():
    with pytest.raises(UserError, match="no dev split, only: test"):
        language_modelling.ONE_BILLION.read(Data(), "dev")


def test_enwik8_that_is_too_short_is_said_to_be(tmp_path):
    with pytest.raises(UserError, match="5 bytes and no test split"):
        problems(language_modelling.ENWIK8, put(tmp_path, "enwik8", "short"))


@pytest.mark.parametrize(
    ("task", "file", "style", "units", "texts"),
    [
        (language_modelling.WIKITEXT_2, "text/wikitext-2/valid.txt", WIKITEXT, 217_646, 60),
        (language_modelling.PENN, "text/ptb/ptb.valid.txt", PTB, 73_760, 1),
    ],
    ids=["WikiText-2", "PTB"],
)
def test_the_published_files_have_the_published_number_of_words(shared_data, task, file, style, units, texts):
    found = problems(task, Data((shared_data,)), "dev")
    assert sum(problem.units for problem in found) == units
    assert len(found) == texts
    text = (shared_data / file).read_text(encoding="utf-8")
    assert "".join(retokenise(problem.text, style) for problem in found) == text


# -------------------------------------------------------------------------------------------------- arithmetic


def value_of(question: str) -> int:
    """What a question asks for, by Python's own reckoning."""
    if found := re.fullmatch(r"the sum of the digits of the number (\d+)", question):
        return sum(map(int, found[1]))
    for word, sign in (("plus", "+"), ("minus", "-"), ("times", "*")):
        question = question.replace(word, sign)
    assert re.fullmatch(r"[-+*() \d]+", question)
    return eval(question)


def asked(context: str) -> str:
    return re.fullmatch(r"\n\nQ: What is (.+)\?\n\nA:", context)[1]


def form(context: str) -> str:
    """A question with its numbers and signs blotted out."""
    return re.sub(r"\d+", "#", re.sub(r" [-+*] ", " . ", context))


@given(name=st.sampled_from(sorted(arithmetic.KINDS)), seed=st.integers())
def test_what_is_generated_is_right_and_different(name, seed):
    found = arithmetic.generated(name, 20, seed)
    assert len({row["context"] for row in found}) == 20
    assert all(row["completion"] == f" {value_of(asked(row['context']))}" for row in found)
    assert found == arithmetic.generated(name, 20, seed)
    assert found != arithmetic.generated(name, 20, seed + 1)


@pytest.mark.parametrize("digits", [2, 3, 4, 5, 6])
def test_operands_are_uniform(digits):
    found = arithmetic.generated(f"{digits}d+", 4000, seed=0)
    numbers = [int(number) for row in found for number in re.findall(r"\d+", row["context"])]
    quarters = Counter(number * 4 // 10**digits for number in numbers)
    assert set(quarters) == {0, 1, 2, 3}
    assert all(abs(count - 2000) < 5 * (8000 * 3 / 16) ** 0.5 for count in quarters.values())


@pytest.mark.parametrize("name", sorted(arithmetic.KINDS))
def test_no_question_is_in_two_of_the_sets(name):
    task = load("gpt3", name)
    train, dev, test = ({p.prompt for p in problems(task, Data(), split)} for split in ("train", "dev", "test"))
    assert len(train) == len(dev) == len(test) == arithmetic.COUNT
    assert not (train & dev) | (train & test) | (dev & test)


@pytest.mark.parametrize("name", sorted(arithmetic.KINDS))
def test_the_released_questions_are_the_test_set_and_have_the_form_of_ours(shared_data, name):
    task, data = load("gpt3", name), Data((shared_data,))
    released = list(rows(shared_data / "evaluation" / "gpt3" / arithmetic.KINDS[name][1]))
    test = problems(task, data)
    assert len(test) == 2000
    assert all(int(problem.answers[0]) == value_of(asked(f"\n\n{problem.prompt}")) for problem in test)
    ours = arithmetic.generated(name, 2000, seed=5)
    assert {form(row["context"]) for row in released} == {form(row["context"]) for row in ours}
    assert {re.sub(r"\d+", "#", row["context"]) for row in released} == {
        re.sub(r"\d+", "#", row["context"]) for row in ours
    }
    assert not {p.prompt for p in problems(task, data, "train")} & {p.prompt for p in test}


def test_a_problem_of_arithmetic_is_the_released_one_without_its_first_line_ends():
    row = Row({"context": "\n\nQ: What is 98 plus 45?\n\nA:", "completion": " 143"}, "x:1")
    [problem] = arithmetic.ask(row)
    assert problem.prompt == "Q: What is 98 plus 45?\n\nA:"
    assert problem.shot == "Q: What is 98 plus 45?\n\nA: 143"
    assert metrics.exact_match(answered(problem, "143")) == 1
    assert metrics.exact_match(answered(problem, "-143")) == 0


def test_a_task_without_enough_questions_says_so():
    with pytest.raises(UserError, match=r"1dc has no 6,562 questions"):
        arithmetic.generated("1dc", 9**4 + 1, seed=0)


# -------------------------------------------------------------------------------------------------- scrambling

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=5, max_size=14)


def could_be(name: str, scrambled: str, word: str) -> bool:
    """Whether a puzzle could have been made of a word."""
    if name == "cycled_letters":
        return len(scrambled) == len(word) and scrambled in word + word
    if name == "reversed_words":
        return scrambled[::-1] == word
    if name == "symbol_insertion":
        return scrambled[::2] == word and len(scrambled) == 2 * len(word) - 1 and set(scrambled[1::2]) <= set(" ./!")
    n = 1 if name == "anagrams_1" else 2
    ends = scrambled[:n] == word[:n] and scrambled[-n:] == word[-n:]
    return ends and sorted(scrambled) == sorted(word)


@given(name=st.sampled_from(sorted(scrambling.KINDS)), word=WORDS, seed=st.integers())
def test_a_puzzle_is_made_of_its_word(name, word, seed):
    [row] = scrambling.generated(name, [word], 1, seed)
    scrambled = re.fullmatch(r"\n(.+) =", row["context"])[1]
    assert could_be(name, scrambled, word)
    assert row["completion"] == f" {word}"
    assert [row] == scrambling.generated(name, [word], 1, seed)


def test_a_word_is_turned_by_every_number_of_places_but_all():
    turned = {scrambling.cycled("abcdef", Random(seed)) for seed in range(200)}
    assert turned == {"bcdefa", "cdefab", "defabc", "efabcd", "fabcde"}


@given(word=WORDS, seed=st.integers())
def test_an_anagram_is_never_the_word_where_it_can_be_another_one(word, seed):
    for kept in (1, 2):
        assert (scrambling.anagram(kept, word, Random(seed)) == word) == (len(set(word[kept:-kept])) == 1)


@pytest.mark.parametrize("name", sorted(scrambling.KINDS))
def test_every_released_puzzle_could_be_one_of_ours(shared_data, name):
    found = problems(load("gpt3", name), Data((shared_data,)))
    assert len(found) == 10_000
    assert all(could_be(name, problem.prompt.removesuffix(" ="), problem.answers[0]) for problem in found)
    words = {f" {problem.answers[0]}": place for place, problem in enumerate(found[:2000])}
    ours = scrambling.generated(name, [word.strip() for word in words], 2000, seed=0)
    released = [problem.prompt.removesuffix(" =") == problem.answers[0] for problem in found[:2000]]
    made = [
        row["context"] == f"\n{row['completion'].strip()} ="
        for row in sorted(ours, key=lambda row: words[row["completion"]])
    ]
    assert released == made  # the puzzle is the word itself where, and only where, it can be nothing else


@pytest.mark.parametrize("name", sorted(scrambling.KINDS))
@pytest.mark.parametrize("released", [False, True], ids=["generated", "released"])
def test_no_word_is_in_two_of_the_sets(tmp_path, name, released):
    data = Data((tmp_path,))
    if released:
        row = json.dumps({"context": "\ntcejbo =", "completion": " object"}) + "\n"
        (tmp_path / "gpt3").mkdir()
        with gzip.open(tmp_path / "gpt3" / f"{scrambling.KINDS[name][1]}.gz", "wt") as file:
            file.write(row)
    task = load("gpt3", name)
    train, dev, test = ({p.answers[0] for p in problems(task, data, split)} for split in ("train", "dev", "test"))
    assert not (train & dev) | (train & test) | (dev & test)
    assert test == {"object"} if released else len(test) > 700
    assert len(dev) > 300


def test_words_come_from_the_users_list_where_there_is_one(tmp_path):
    data = put(tmp_path, "count_1w.txt", "the\t23\nabout\t12\nABOUT\t11\nextraordinarily\t3\nletters\t2\nO'Neill\t1\n")
    assert scrambling.words_in(data) == ["about", "letters"]


def test_a_puzzle_stands_below_the_instruction_as_in_appendix_g():
    task = load("gpt3", "cycled_letters")
    [problem] = task.ask(Row({"context": "\nasinoc =", "completion": " casino"}, "x:1"))
    asked_as = task.separator.join([task.description, problem.shot])
    assert asked_as == "Please unscramble the letters into a word, and write that word:\nasinoc = casino"


def test_a_puzzle_that_begins_with_a_space_keeps_its_letters():
    [problem] = scrambling.ask(Row({"context": "\nr e!c =", "completion": " rec"}, "x:1"))
    assert problem.prompt == "r e!c ="


# ------------------------------------------------------------------------------------------- tasks of your own


def test_a_file_of_choices_is_a_task(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"context": "2 + 2 =", "choices": ["3", "4"], "gold": 1, "id": "a", "passage": "p"}\n')
    (tmp_path / "mine.train.jsonl").write_text('{"context": "1 + 1 =", "choices": ["2", "3"], "gold": 0}\n')
    task = task_from_file(path)
    [problem] = problems(task, Data())
    [shot] = problems(task, Data(), "train")
    assert (task.name, task.metrics, task.shots > 0) == ("mine", ("accuracy",), True)
    assert [option.completion for option in problem.options] == [" 3", " 4"]
    assert (problem.id, problem.passage, problem.gold) == ("a", "p", 1)
    assert shot.shot == "1 + 1 = 2"


@pytest.mark.parametrize(
    ("line", "metric", "context", "right"),
    [
        ({"context": "Q: 2?\nA:", "answers": ["4", "four"]}, "exact_match", "Q: 2?\nA:", ("4", "four")),
        ({"context": "Q: 2?\nA: ", "answer": "4", "aliases": ["four"]}, "exact_match", "Q: 2?\nA:", ("4", "four")),
        ({"context": "The capital is", "continuation": " Paris"}, "lambada_last_word", "The capital is", (" Paris",)),
        ({"query": "Is it? ", "choices": ["no", "yes"], "gold": 1}, "accuracy", "Is it?", (" no", " yes")),
        ({"context_options": ["Ann ran because Ann", "Ann ran because Bob"], "continuation": "was late", "gold": 0},
         "accuracy", "Ann ran because Ann", (" was late", " was late")),
    ],
)  # fmt: skip
def test_every_form_of_line_is_read(tmp_path, line, metric, context, right):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(line) + "\n")
    task = task_from_file(path)
    [problem] = problems(task, Data())
    assert task.metrics[0] == metric
    assert all(name in metrics.METRICS for name in task.metrics)
    assert problem.prompt == context
    assert (problem.answers or tuple(option.completion for option in problem.options)) == right
    assert task.shots == 0
    with pytest.raises(UserError, match="no train split"):
        problems(task, Data(), "train")


@pytest.mark.parametrize(
    ("content", "says"), [("", "is empty"), ('{"question": "?"}\n', "none of: choices"), ("no json\n", "none of")]
)
def test_a_file_that_is_no_task_says_why(tmp_path, content, says):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=says):
        task_from_file(path)


@pytest.mark.parametrize(
    "line",
    [
        {"context": "x", "choices": ["a", "b"], "gold": 2},
        {"context": "x", "choices": ["a", "b"]},
        {"context": "x", "choices": ["a"], "gold": 0},
        {"context": "x", "answers": [4]},
        {"context": "x", "answers": []},
        {"context": 7, "answers": ["a"]},
        {"answers": ["a"]},
        {"context": "x", "answer": "a", "aliases": [None]},
    ],
)
def test_a_line_that_cannot_be_asked_is_a_bad_row(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"context": "2 =", "choices": ["1", "2"], "gold": 1}\n' + json.dumps(line) + "\n")
    task = task_from_file(path)
    good, bad = task.read(Data(), "test")
    assert len(list(task.ask(good))) == 1
    with pytest.raises(BadRow, match=r"mine\.jsonl:2"):
        list(task.ask(bad))


# ------------------------------------------------------------------------------------------------------- table


@pytest.mark.parametrize(("protocol", "name"), [(protocol, name) for protocol in TASKS for name in TASKS[protocol]])
def test_every_name_of_the_table_is_a_task_with_known_metrics(protocol, name):
    task = load(protocol, name)
    assert task.name == name
    assert all(metric in metrics.METRICS for metric in task.metrics)
    assert task.scored_on != task.shots_from or task.shots == 0 or name in ("winograd", "sat_analogies")


def test_groups_stand_for_tasks_of_the_table():
    assert all(name in TASKS[protocol] for protocol in GROUPS for group in GROUPS[protocol].values() for name in group)
    assert expand("gpt3", ["arithmetic", "piqa", "2d+"])[-1] == "piqa"
    assert expand("gpt2", ["all"]) == list(TASKS["gpt2"])


def test_every_row_of_table_h1_but_superglue_is_a_task(shared_data):
    wanted = {row["task"] for row in rows(shared_data / "evaluation" / "gpt3" / "table_h1.csv")} - {"SuperGLUE"}
    published = {load("gpt3", name).published for name in TASKS["gpt3"]}
    assert wanted <= published
    assert published - wanted <= {"", "PTB"}


def test_a_task_of_the_users_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text("from rein.evals.tasks.piqa import PIQA\nNUMBER = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("gpt3", "my_tasks:PIQA").title == "PIQA"
    with pytest.raises(UserError, match="which is a int"):
        load("gpt3", "my_tasks:NUMBER")
    with pytest.raises(UserError, match="cannot be imported"):
        load("gpt3", "my_tasks:NOTHING")
    with pytest.raises(UserError, match="cannot be imported"):
        load("gpt3", "no_such_module_of_mine:TASK")


def test_a_file_of_the_users_is_a_task_and_a_missing_one_is_not(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"context": "2 =", "answers": ["2"]}\n')
    assert load("gpt3", str(path)).name == "mine"
    with pytest.raises(UserError, match="does not exist"):
        load("gpt3", str(tmp_path / "other.jsonl"))


@pytest.mark.parametrize(
    ("protocol", "name", "fix"),
    [
        ("gpt3", "arc_eazy", "Did you mean arc_easy"),
        ("gpt3", "enwik8", "--protocol gpt2"),
        ("gpt3", "superglu", "Did you mean superglue"),
        ("gpt4", "piqa", "Did you mean gpt"),
    ],
)
def test_an_unknown_task_gets_a_suggestion(protocol, name, fix):
    with pytest.raises(UserError) as found:
        load(protocol, name)
    assert fix in found.value.fix
