"""What Argilla and Label Studio export, read."""

import pytest
from exchanging import Exchange
from sqlalchemy import select

from rein.feedback.exchange.peers import read_argilla, read_label_studio
from rein.feedback.exchange.rows import Unreadable
from rein.feedback.tables import feedback, person


@pytest.fixture
def dialect():
    return "sqlite"


def said(parsed):
    return [(one.person, one.kind, one.value) for _, some in parsed.items for one in some]


# As Dataset.records.to_json of Argilla 2 writes a record.
RECORD = {
    "id": "1", "fields": {"prompt": "Sing.", "response_1": "La.", "response_2": "No."}, "metadata": {"source": "x"},
    "suggestions": {"preference": {"value": "response_1", "score": 0.9, "agent": "m"}},
    "responses": {
        "preference": [{"value": "response_2", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}],
        "quality_response_1": [{"value": 4, "user_id": "u1"}],
        "quality_response_2": [{"value": 2, "user_id": "u1"}],
        "comment": [{"value": "hm", "user_id": "u1"}],
    },
    "vectors": {}, "_server_id": "s",
}  # fmt: skip
RANKED = [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]


def test_argillas_records_of_version_2_are_read():
    parsed = read_argilla(1, RECORD)
    ((asked, _),) = parsed.items
    assert asked.context == {"prompt": "Sing."}
    assert [one["text"] for one in asked.candidates] == ["La.", "No."]
    assert said(parsed) == [
        ("argilla/u1", "comparison", {"choice": 1, "points": None}),
        ("argilla/u1", "rating", {"ratings": [4, 2]}),
        ("argilla/u2", "comparison", {"choice": None, "points": None}),
    ]
    assert asked.extra["left"] == {"argilla/u1": {"comment": "hm"}}
    assert asked.extra["argilla"]["suggestions"] == RECORD["suggestions"]


def test_a_ranking_of_argillas_names_the_fields_that_were_ranked():
    row = {**RECORD, "responses": {"ranking": [{"value": RANKED, "user_id": "u1"}]}}
    assert said(read_argilla(1, row)) == [("argilla/u1", "ranking", {"ranks": [2, 1]})]


def test_argillas_records_of_version_1_are_read_and_drafts_are_not():
    row = {
        "fields": {"text": "La."}, "external_id": "e",
        "responses": [
            {
                "user_id": "u1", "status": "submitted",
                "values": {"rating": {"value": 5}, "labels": {"value": ["violent"]}},
            },
            {"user_id": "u2", "status": "draft", "values": {"rating": {"value": 1}}},
        ],
    }  # fmt: skip
    parsed = read_argilla(1, row)
    assert said(parsed) == [
        ("argilla/u1", "flags", {"flags": [["violent"]]}),
        ("argilla/u1", "rating", {"ratings": [5]}),
    ]
    assert parsed.items[0][0].name == "argilla/e"


def test_a_chat_and_a_corrected_answer_of_argillas_are_read():
    row = {
        "fields": {"chat": [{"role": "user", "content": "Sing."}], "response": "La."},
        "responses": {"corrected_response": [{"value": "La la.", "user_id": "u"}]},
    }
    parsed = read_argilla(1, row)
    assert parsed.items[0][0].context == {"prompt": "Sing."}
    assert said(parsed) == [("argilla/u", "demonstration", {"text": "La la."})]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"fields": 3}, "fields is the number 3"),
        ({"fields": {"a": "x", "b": "y"}, "responses": {}}, "none of the fields 'a', 'b' is named like an output"),
        ({**RECORD, "responses": {"comment": [{"value": "hm"}]}}, "no answer is one that a kind has a place for"),
    ],
)
def test_a_record_that_cannot_be_placed_says_why(row, problem):
    with pytest.raises(Unreadable, match=problem):
        read_argilla(1, row)


def task(data, *results, **more):
    annotation = {"id": 5, "completed_by": 3, "was_cancelled": False, "lead_time": 4.288, "ground_truth": False,
                  "created_at": "2021-03-09T22:16:08.728353Z", "result": list(results), **more}  # fmt: skip
    return {"id": 1, "data": data, "annotations": [annotation], "predictions": []}


PAIR = {"prompt": "Sing.", "answer1": "La.", "answer2": "No."}
ITEMS = [{"id": "llm_1", "title": "A", "body": "La."}, {"id": "llm_2", "body": "No."}, {"id": "llm_3", "title": "Hm."}]


def result(type, value, from_name="q", to_name="x"):
    return {"from_name": from_name, "to_name": to_name, "type": type, "value": value}


def test_a_pairwise_choice_of_label_studios_is_read_with_its_time():
    parsed = read_label_studio(1, task(PAIR, result("pairwise", {"selected": "right"})))
    ((asked, (one,)),) = parsed.items
    assert asked.context == {"prompt": "Sing."}
    assert (one.person, one.kind, one.value) == ("label-studio/3", "comparison", {"choice": 1, "points": None})
    assert one.times == {"active_ms": 4288}
    assert one.at_ms == 1615328168728


def test_a_ranked_list_of_label_studios_is_read_by_the_ids_of_its_entries():
    data = {"prompt": "Sing.", "items": ITEMS}
    parsed = read_label_studio(1, task(data, result("ranker", {"ranker": {"rank": ["llm_3", "llm_1", "llm_2"]}})))
    ((asked, _),) = parsed.items
    assert [one["text"] for one in asked.candidates] == ["La.", "No.", "Hm."]
    assert said(parsed) == [("label-studio/3", "ranking", {"ranks": [2, 3, 1]})]


def test_buckets_beside_each_other_are_no_ranking():
    data = {"prompt": "Sing.", "items": ITEMS}
    row = task(data, result("ranker", {"ranker": {"good": ["llm_3"], "bad": ["llm_1", "llm_2"]}}))
    with pytest.raises(Unreadable, match="no result is one that a kind has a place for"):
        read_label_studio(1, row)


def test_ratings_choices_and_texts_of_label_studios_are_read():
    results = [
        result("rating", {"rating": 4}, to_name="answer1"), result("rating", {"rating": 2}, to_name="answer2"),
        result("choices", {"choices": ["answer2"]}), result("textarea", {"text": ["La", "la."]}, from_name="t"),
        result("taxonomy", {"taxonomy": []}, from_name="other"),
    ]  # fmt: skip
    parsed = read_label_studio(1, task(PAIR, *results, completed_by={"id": 8, "email": "ann@example.org"}))
    assert said(parsed) == [
        ("label-studio/8", "comparison", {"choice": 1, "points": None}),
        ("label-studio/8", "demonstration", {"text": "La\nla."}),
        ("label-studio/8", "rating", {"ratings": [4, 2]}),
    ]
    assert "ann@example.org" not in str(parsed)
    assert list(parsed.items[0][0].extra["left"]) == ["other"]


def test_a_cancelled_annotation_is_not_read_and_a_task_without_any_is_work():
    parsed = read_label_studio(1, task(PAIR, result("pairwise", {"selected": "left"}), was_cancelled=True))
    assert said(parsed) == []
    assert len(parsed.items[0][0].candidates) == 2


def test_both_go_into_a_project_and_the_people_of_both_are_apart(store, tmp_path):
    exchange = Exchange(store, tmp_path)
    first = exchange.put(
        [{**RECORD, "responses": {"preference": RECORD["responses"]["preference"]}}], preset="comparison"
    )
    second = exchange.put([task(PAIR, result("pairwise", {"selected": "left"}))], name="studio.jsonl")
    assert (first.format, first.answers, first.bad) == ("argilla", 2, ())
    assert (second.format, second.answers, second.bad) == ("label-studio", 1, ())
    with store.reading() as conn:
        names = conn.execute(select(person.c.name).order_by(person.c.id)).scalars().all()
        order = conn.execute(select(feedback.c.shown)).scalars().all()
    assert names == ["argilla/u1", "argilla/u2", "label-studio/3"]
    assert all(shown == {"order": [0, 1]} for shown in order)
