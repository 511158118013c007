"""Tasks that are answered in words: the last of a text, from memory, in conversation, in another language."""

import json

import pytest
from task_files import answered, problems, put

from rein.errors import UserError
from rein.evals import metrics
from rein.evals.data import BadRow, Data, Row
from rein.evals.tasks import closed_book, coqa, drop, lambada, quac, squad, translation

# ------------------------------------------------------------------------------------------------------- LAMBADA


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


# ------------------------------------------------------------------------------------------------- conversations

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


# --------------------------------------------------------------------------------------------------- translation

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
