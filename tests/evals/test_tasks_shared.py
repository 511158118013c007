"""What all tasks by choice share: where rows come from, which are bad, shots and splits, whole real files."""

import pytest
from task_files import hub, lines, of_hub, only
from task_rows import (
    ARC,
    CAKE,
    COPA,
    GAUNTLET_WINOGRAD,
    GEORGE,
    MONCRIEFF,
    MULTIRC,
    OBQA,
    PALMS,
    SAT,
    SEALANT,
    SMITH,
    record,
)

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row
from rein.evals.tasks import (
    anli,
    arc,
    cbt,
    copa,
    hellaswag,
    openbookqa,
    piqa,
    race,
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
    (cbt.COMMON_NOUNS, {"sentences": ["A ."], "question": f"{cbt.GAP} .", "answer": "A", "options": ["A", "B"]}),
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
