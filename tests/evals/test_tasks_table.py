"""The table of all tasks: its names, its groups, and what stands for a task that is not in it."""

import pytest

from rein.errors import UserError
from rein.evals import metrics
from rein.evals.data import rows
from rein.evals.tasks.table import GROUPS, TASKS, expand, load


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
