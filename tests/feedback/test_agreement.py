"""Agreement between people: equal to counting by hand, and undefined where there is nothing to count."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

sys.path.insert(0, str(Path(__file__).parent))
from saying import NOW, Question, Saying, prefers

from rein.feedback.agreement import report
from rein.feedback.answers import Record, record
from rein.feedback.judgements import Held, Judgements
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.feedback.tables import person

PANDALM = Path(__file__).parents[3] / "shared" / "data" / "feedback" / "pandalm_testset_v1.json"
GROUPS = ("labeler_labeler", "labeler_researcher", "researcher_researcher")


def reported(saying, batch=None, **more):
    with saying.store.reading() as conn:
        return report(conn, saying.id, batch, **more)


def numbers(value):
    """Every number of a report, with where it stands."""
    found, left = [], [((), value)]
    while left:
        path, one = left.pop()
        if isinstance(one, dict):
            if "value" in one:
                found.append((path, one))
            left += [((*path, key), each) for key, each in one.items()]
        elif isinstance(one, list):
            left += [((*path, n), each) for n, each in enumerate(one)]
    return found


@pytest.fixture(scope="module")
def pandalm(tmp_path_factory):
    """PandaLM's test set as three labelers' comparisons, and its rows."""
    if not PANDALM.exists():
        pytest.skip("PandaLM's test set is not here")
    rows = json.loads(PANDALM.read_text(encoding="utf-8"))
    store = Store.open(tmp_path_factory.mktemp("pandalm") / "labels.db", create=True)
    saying = Saying(store)
    for n in "123":
        saying.person(f"annotator{n}")
    saying.add(*(str(row["idx"]) for row in rows))
    said = {0: None, 1: 0, 2: 1}
    saying.say((f"annotator{n}", str(row["idx"]), prefers(said[row[f"annotator{n}"]])) for row in rows for n in "123")
    yield saying, rows
    store.close()


def test_pandalms_statistics_are_those_of_counting_by_hand(pandalm):
    saying, rows = pandalm
    question = reported(saying)["questions"][0]
    choice = question["aspects"][0]
    votes = [[row[f"annotator{n}"] for n in "123"] for row in rows]
    pairs = [(a, b) for row in votes for a, b in itertools.combinations(row, 2)]

    with_ties = choice["with_ties"]["labeler_labeler"]
    assert with_ties["value"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs), abs=1e-12)
    assert with_ties["n"] == len(pairs) == 2997
    strict = [(a, b) for a, b in pairs if a and b]
    assert choice["agreement"]["labeler_labeler"]["value"] == pytest.approx(
        sum(a == b for a, b in strict) / len(strict), abs=1e-12
    )
    assert choice["agreement"]["labeler_labeler"]["n"] == len(strict)

    matrix = question["matrix"]["rows_with_ties"]
    for a, b in itertools.combinations(range(3), 2):
        by_hand = sum(row[a] == row[b] for row in votes) / len(votes)
        assert matrix[a][b]["value"] == matrix[b][a]["value"] == pytest.approx(by_hand, abs=1e-12)
    assert [round(100 * matrix[a][b]["value"], 1) for a, b in ((0, 1), (0, 2), (1, 2))] == [91.3, 92.9, 91.8]
    assert sum(len(set(row)) == 1 for row in votes) == 879
    assert sum(Counter(row).most_common(1)[0][0] != 0 and Counter(row).most_common(1)[0][1] > 1 for row in votes) == 894


def test_pandalms_kappas_and_alpha_are_those_of_the_textbooks_formulas(pandalm):
    saying, rows = pandalm
    question = reported(saying)["questions"][0]
    votes = [[row[f"annotator{n}"] for n in "123"] for row in rows]
    n, shares = len(votes), Counter(vote for row in votes for vote in row)
    expected = sum((count / (3 * n)) ** 2 for count in shares.values())
    observed = sum(sum(c * (c - 1) for c in Counter(row).values()) / 6 for row in votes) / n
    beyond = question["aspects"][0]["beyond_chance"]
    assert beyond["fleiss"]["value"] == pytest.approx((observed - expected) / (1 - expected), abs=1e-12)

    total = 3 * n
    disagreed = 1 - observed
    chance = 1 - sum(c * (c - 1) for c in shares.values()) / (total * (total - 1))
    assert beyond["alpha_nominal"]["value"] == pytest.approx(1 - disagreed / chance, abs=1e-12)

    for pair in question["cohen"]["pairs"]:
        a, b = (int(pair[side]["name"][-1]) - 1 for side in "ab")
        alike = sum(row[a] == row[b] for row in votes) / n
        of_a, of_b = (Counter(row[side] for row in votes) for side in (a, b))
        by_chance = sum(of_a[v] * of_b[v] for v in range(3)) / n**2
        assert pair["kappa"]["value"] == pytest.approx((alike - by_chance) / (1 - by_chance), abs=1e-12)


def test_the_interval_of_agreement_is_that_of_drawing_other_items(pandalm):
    """Against the bootstrap over items, which knows nothing of the closed form."""
    saying, rows = pandalm
    votes = np.array([[row[f"annotator{n}"] for n in "123"] for row in rows])
    found = reported(saying)["questions"][0]["aspects"][0]
    pairs = list(itertools.combinations(range(3), 2))
    strict = np.array([[row[a] > 0 and row[b] > 0 for a, b in pairs] for row in votes])
    alike = np.array([[row[a] == row[b] for a, b in pairs] for row in votes]) & strict
    pick = np.random.default_rng(0).integers(0, len(votes), (4000, len(votes)))
    drawn = alike.sum(1)[pick].sum(1) / strict.sum(1)[pick].sum(1)
    number = found["agreement"]["labeler_labeler"]
    assert number["se"] == pytest.approx(drawn.std(), rel=0.05)
    assert (number["low"], number["high"]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.002)

    counts = np.array([[(row == v).sum() for v in range(3)] for row in votes])
    kappas = []
    for each in pick[:1000]:
        p = counts[each].sum(0) / (3 * len(votes))
        kappas.append(1 - (1 - ((counts[each] ** 2).sum(1) - 3).mean() / 6) / (1 - p @ p))
    assert found["beyond_chance"]["fleiss"]["se"] == pytest.approx(np.std(kappas), rel=0.08)


def test_with_nobody_everything_says_why(store):
    saying = Saying(store)
    found = reported(saying)
    assert found["answers"] == found["items"] == 0
    for path, number in numbers(found):
        assert number["value"] is None, path
        assert number["why"].endswith("."), path
    json.dumps(found, allow_nan=False)


def test_one_answer_proves_nothing_about_others(store):
    saying = Saying(store)
    saying.person("Ann")
    saying.add("i1")
    saying.say([("Ann", "i1", prefers(0, 3))])
    for path, number in numbers(reported(saying)):
        if number["value"] is not None:
            assert number["low"] <= number["value"] <= number["high"], path
    question = reported(saying)["questions"][0]
    for group in GROUPS:
        assert question["aspects"][0]["agreement"][group]["value"] is None
    assert question["bias"]["left"]["value"] == 1.0  # shown in the order of the candidates
    assert question["bias"]["left"]["low"] < 0.25


def test_all_alike_is_no_kappa_of_one(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add(*map(str, range(30)))
    saying.say((name, str(n), prefers(0, 2)) for n in range(30) for name in ("Ann", "Ben"))
    question = reported(saying)["questions"][0]
    assert question["aspects"][0]["agreement"]["labeler_labeler"]["value"] == 1.0
    assert question["aspects"][0]["agreement"]["labeler_labeler"]["low"] == pytest.approx(
        30 / (30 + 2.045**2), abs=1e-3
    )
    for number in question["aspects"][0]["beyond_chance"].values():
        assert number["value"] is None
        assert "chance" in number["why"]
    assert question["cohen"]["pairs"][0]["kappa"]["why"].startswith("One of the two gave the same value each time")


def test_labelers_and_researchers_are_told_apart(store):
    saying = Saying(store)
    for name, role in (("Ann", "labeler"), ("Ben", "labeler"), ("Rea", "researcher"), ("Rob", "admin")):
        saying.person(name, role)
    saying.add("i1", "i2")
    on_first = {"Ann": 0, "Ben": 1, "Rea": 0, "Rob": 0}
    saying.say((name, "i1", prefers(candidate)) for name, candidate in on_first.items())
    saying.say([("Ann", "i2", prefers(1)), ("Rea", "i2", prefers(None))])
    found = reported(saying)
    assert found["people"] == {"labelers": 2, "researchers": 2}
    aspect = found["questions"][0]["aspects"][0]
    assert [(aspect["agreement"][g]["value"], aspect["agreement"][g]["n"]) for g in GROUPS] == [
        (0, 1),
        (0.5, 4),
        (1, 1),
    ]
    assert [(aspect["with_ties"][g]["value"], aspect["with_ties"][g]["n"]) for g in GROUPS] == [
        (0, 1),
        (0.4, 5),
        (1, 1),
    ]
    each = {one["person"]["name"]: one["agreement"]["value"] for one in found["questions"][0]["with_researchers"]}
    assert each == {"Ann": 1.0, "Ben": 0.0}


def test_the_mode_of_three_labelers_is_nearer_to_the_researcher(store):
    """Three labelers who are each right in 2 of 3 items, on different ones: their mode is always right."""
    saying = Saying(store)
    for name in ("Ann", "Ben", "Cal"):
        saying.person(name)
    saying.person("Rea", "researcher")
    saying.add(*map(str, range(6)))
    wrong = {"Ann": 0, "Ben": 1, "Cal": 2}
    saying.say((name, str(n), prefers(int(n % 3 == wrong[name]))) for n in range(6) for name in wrong)
    saying.say(("Rea", str(n), prefers(0)) for n in range(6))
    majority = reported(saying)["questions"][0]["aspects"][0]["majority"]
    assert majority["one_labeler"]["value"] == pytest.approx(2 / 3)
    assert majority["mode_of_three"]["value"] == 1.0
    # Of the three, the two who are right do not have two others that agree; the third has, and differs from them.
    assert (majority["leave_one_out"]["value"], majority["leave_one_out"]["n"]) == (0.0, 6)


def test_practice_known_answers_and_repeats_are_left_out(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    right = {"answers": {"choice": prefers(0, 2)}}
    saying.add("work")
    saying.add("practice", role="onboarding", gold=right)
    saying.add("known", role="gold", gold=right)
    saying.say((name, key, prefers(0)) for name in ("Ann", "Ben") for key in ("work", "practice", "known"))
    saying.say([("Ann", "work", prefers(1))], shown={"turn": 1})
    assert reported(saying)["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]["n"] == 1


def test_a_batch_has_numbers_of_its_own(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add("a", batch="one")
    saying.add("b", batch="two")
    saying.say([("Ann", "a", prefers(0)), ("Ben", "a", prefers(0)), ("Ann", "b", prefers(0)), ("Ben", "b", prefers(1))])
    values = {
        batch: reported(saying, batch)["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]["value"]
        for batch in (None, "one", "two")
    }
    assert values == {None: 0.5, "one": 1.0, "two": 0.0}
    with pytest.raises(Refused, match="Did you mean two"):
        reported(saying, "tow")


def test_a_ranking_is_compared_pair_by_pair(store):
    saying = Saying(store, (Question("ranking", "ranking"),))
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add("i1", texts=("x", "y", "z"), policies=("a", "b", "c"))
    saying.say([("Ann", "i1", {"ranks": [1, 2, 3]}), ("Ben", "i1", {"ranks": [2, 1, 2]})], question="ranking",
               kind="ranking")  # fmt: skip
    order = reported(saying)["questions"][0]["aspects"][0]
    # x over y: Ann yes, Ben no. x over z: Ann yes, Ben neither. y over z: both.
    assert (order["agreement"]["labeler_labeler"]["value"], order["agreement"]["labeler_labeler"]["n"]) == (0.5, 2)
    assert (order["with_ties"]["labeler_labeler"]["value"], order["with_ties"]["labeler_labeler"]["n"]) == (1 / 3, 3)


def test_axes_and_flags_are_compared_one_by_one(store):
    axes = Question("axes", "likert", points=7, axes=("overall", "accuracy"))
    flags = Question("flags", "flags", flags=("wrong", "rude"))
    saying = Saying(store, (axes, flags))
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add("i1", "i2", texts=("x",), policies=("a",))
    said = {"Ann": ((7, 1), (2, 2)), "Ben": ((6, 5), (2, 2))}
    saying.say(
        ((name, f"i{n + 1}", {"axes": [dict(zip(axes.axes, marks, strict=True))]})
         for name, both in said.items() for n, marks in enumerate(both)), question="axes", kind="likert",
    )  # fmt: skip
    saying.say([("Ann", "i1", {"flags": [["wrong"]]}), ("Ben", "i1", {"flags": [["wrong", "rude"]]})],
               question="flags", kind="flags")  # fmt: skip
    on_axes, on_flags = reported(saying)["questions"]
    by_name = {each["name"]: each for each in on_axes["aspects"]}
    assert by_name["overall"]["agreement"]["labeler_labeler"]["value"] == 0.5
    assert by_name["overall"]["within_one"]["labeler_labeler"]["value"] == 1.0
    assert by_name["accuracy"]["within_one"]["labeler_labeler"]["value"] == 0.5
    flagged = {each["name"]: each for each in on_flags["aspects"]}
    assert flagged["wrong"]["agreement"]["labeler_labeler"]["value"] == 1.0
    assert flagged["rude"]["agreement"]["labeler_labeler"]["value"] == 0.0
    assert flagged["rude"]["flagged"]["value"] == 0.5


def test_confidence_is_held_to_the_researchers(store):
    """Ann's sure answers are right and her unsure ones are not: her labels count from 3 points off even on."""
    saying = Saying(store)
    saying.person("Ann")
    saying.person("Ben")
    saying.person("Rea", "researcher")
    saying.add(*map(str, range(80)))
    saying.say(("Rea", str(n), prefers(0, 3)) for n in range(80))
    points = {n: (5 - 1 - n % 4 if n % 4 > 1 else 5 + 1 + n % 4) for n in range(80)}
    saying.say(("Ann", str(n), prefers(int(points[n] > 5), points[n])) for n in range(80))
    saying.say([("Ben", "0", prefers(0, 4))])
    confidence = reported(saying)["questions"][0]["confidence"]
    assert [each["labeler_researcher"]["value"] for each in confidence["steps"]] == [pytest.approx(1 / 21), 0, 1, 1]
    by_name = {each["person"]["name"]: each for each in confidence["people"]}
    assert by_name["Ann"]["from"] == 3
    assert by_name["Ann"]["agreement"]["value"] == 1.0
    assert by_name["Ben"]["from"] is None
    assert by_name["Ben"]["agreement"]["why"] == "Fewer than 20 pairs with a researcher's answer."


def test_what_is_held_follows_new_changed_and_undone_answers(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add(*(f"i{n}" for n in range(12)))
    held = Held()

    def agreement():
        warm = reported(saying, held=held)
        assert warm == reported(saying)
        number = warm["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]
        return number["value"], number.get("n")

    assert agreement()[0] is None
    saying.say((name, f"i{n}", prefers(0)) for n in range(10) for name in ("Ann", "Ben"))
    assert agreement() == (1.0, 10)
    saying.say([("Ann", "i3", prefers(1))], act="revise")
    assert agreement() == (0.9, 10)
    saying.say([("Ann", "i3", {})], act="undo")
    assert agreement() == (1.0, 9)
    saying.say([("Ann", "i11", prefers(1)), ("Ben", "i11", prefers(0))])
    assert agreement() == (0.9, 10)
    saying.add("late", batch="other")
    saying.say([("Ann", "late", prefers(1)), ("Ben", "late", prefers(0))])
    assert agreement() == (pytest.approx(9 / 11), 11)


def test_a_changed_role_is_followed_without_a_new_answer(store):
    saying = Saying(store)
    ids = [saying.person(name) for name in ("Ann", "Ben")]
    saying.add("i1")
    saying.say([("Ann", "i1", prefers(0)), ("Ben", "i1", prefers(0))])
    held = Held()
    assert reported(saying, held=held)["people"] == {"labelers": 2, "researchers": 0}
    store.write(lambda conn: conn.execute(update(person).where(person.c.id == ids[1]).values(role="researcher")))
    assert reported(saying, held=held)["people"] == {"labelers": 1, "researchers": 1}


def test_of_several_answers_of_one_person_the_last_counts(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add("i1")
    saying.say([("Ann", "i1", prefers(0)), ("Ann", "i1", prefers(1)), ("Ben", "i1", prefers(1))])
    number = reported(saying)["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]
    assert (number["value"], number["n"]) == (1.0, 1)


def test_only_what_is_new_is_read(store, monkeypatch):
    saying = Saying(store)
    saying.person("Ann")
    saying.add(*map(str, range(50)))
    saying.say(("Ann", str(n), prefers(0)) for n in range(40))
    judgements = Judgements(saying.id)
    with store.reading() as conn:
        judgements.follow(conn)
    monkeypatch.setattr(judgements, "_take_all", lambda conn: pytest.fail("all was read again"))
    row = Record(saying.items["45"], saying.people["Ann"], "choice", "comparison", prefers(1), "one more")
    store.write(lambda conn: record(conn, NOW, saying.id, [row]))
    with store.reading() as conn:
        judgements.follow(conn)
    assert len(judgements.answers["choice"]) == 41


def test_an_unknown_project_is_refused(store):
    with store.reading() as conn, pytest.raises(Refused, match="no project"):
        report(conn, "nowhere")


def test_a_reader_of_an_older_moment_is_served_by_what_is_held(new_store):
    """Two requests: the one whose moment is older comes second, when the held rows are newer than it."""
    store = new_store()
    saying = Saying(store)
    saying.person("Ann")
    saying.add("i1", "i2")
    saying.say([("Ann", "i1", prefers(0))])
    held = Held()
    with store.reading() as old:
        report(old, saying.id)  # the moment begins with the first read
        saying.person("Ben")
        saying.say([("Ben", "i1", prefers(0)), ("Ben", "i2", prefers(0))])
        assert reported(saying, held=held)["answers"] == 3
        assert report(old, saying.id, held=held)["answers"] == 3
    assert reported(saying, held=held)["people"]["labelers"] == 2
