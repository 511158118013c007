"""Which pairs next: information is highest where an answer tells most, and the uniform share stays as it was."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parent))
from saying import NOW, Question, Saying, prefers

from rein.errors import UserError
from rein.feedback.agreement_command import AgreementConfig, PrioritiseConfig, agreement_command, prioritise
from rein.feedback.items import change_project, load_project
from rein.feedback.people import join
from rein.feedback.project import PRESETS
from rein.feedback.selection import (
    information_of_scores,
    information_of_votes,
    prioritise_by_disagreement,
    prioritise_by_scores,
    read_scores,
    scores_of,
    sure_of_majority,
)
from rein.feedback.store import Store
from rein.feedback.tables import audit, item, project
from rein.feedback.work import claim

finite = st.floats(-20, 20)


# ------------------------------------------------------------------------------------------ what an answer tells


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=8), st.randoms())
def test_information_is_no_less_than_nothing_and_depends_on_differences_alone(scores, random):
    found = information_of_scores(scores)
    assert 0 <= found <= math.log(2) + 1e-9
    moved = [
        (a + shift, b + shift) for (a, b), shift in zip(scores, map(random.uniform, *[[-5] * 9, [5] * 9]), strict=False)
    ]
    assert information_of_scores(moved) == pytest.approx(found, abs=1e-9)
    assert information_of_scores([(b, a) for a, b in scores]) == pytest.approx(found, abs=1e-9)
    assert information_of_scores(scores[::-1]) == pytest.approx(found, abs=1e-9)


def test_members_that_agree_have_nothing_to_learn_and_sure_ones_that_differ_most():
    assert information_of_scores([[0.0, 0.0]] * 4) == 0.0  # all in doubt: so are people
    assert information_of_scores([[3.0, 0.0]] * 4) == 0.0
    in_doubt = information_of_scores([[0.2, 0.0], [0.0, 0.2]])
    differing = information_of_scores([[5.0, 0.0], [0.0, 5.0]])
    assert 0 < in_doubt < 0.01 < 0.6 < differing < math.log(2)


def test_information_of_votes_is_that_of_the_beta_posterior():
    for first, second in ((0, 0), (1, 0), (2, 2), (5, 1)):
        a, b = 1 + first, 1 + second

        def density(p, a=a, b=b):
            return p ** (a - 1) * (1 - p) ** (b - 1) / special.beta(a, b)

        mean_entropy = integrate.quad(lambda p: density(p) * float(special.entr(p) + special.entr(1 - p)), 0, 1)[0]
        mean = a / (a + b)
        expected = float(special.entr(mean) + special.entr(1 - mean)) - mean_entropy
        assert float(information_of_votes(np.array(first), np.array(second))) == pytest.approx(expected, abs=1e-7)


@given(st.integers(0, 50), st.integers(0, 50))
def test_one_more_vote_tells_less_the_more_there_are(first, second):
    now = float(information_of_votes(np.array(first), np.array(second)))
    assert now == pytest.approx(float(information_of_votes(np.array(second), np.array(first))))
    both_more = float(information_of_votes(np.array(first + 1), np.array(second + 1)))
    assert both_more < now or abs(first - second) > 1
    assert 0.5 <= float(sure_of_majority(np.array(first), np.array(second))) <= 1


def test_choosing_by_doubt_learns_more_than_choosing_at_random():
    """Stated beforehand: with 60 answers each, over 12 seeds, the error of the direction of a linear reward that is
    learned from the pairs chosen by information is below 0.75 of that from pairs at random."""
    errors = {"information": [], "uniform": []}
    for seed in range(12):
        for how, found in errors.items():
            found.append(_direction_error(how, seed))
    assert np.mean(errors["information"]) < 0.75 * np.mean(errors["uniform"])


def _direction_error(how, seed, pool=600, features=6, rounds=6, each=10, members=8):
    """1 − cosine between the true reward and the mean of an ensemble fitted to the chosen pairs' answers."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=features)
    # Most pairs are near-copies of each other that tell little; some differ in much.
    scale = np.where(generator.random(pool) < 0.15, 2.0, 0.2)
    x = generator.normal(size=(pool, features)) * scale[:, None]
    answer = generator.random(pool) < special.expit(x @ truth)
    chosen = generator.permutation(pool)[:each].tolist()
    for _ in range(rounds - 1):
        ensemble = [_fit(x, answer, generator.choice(chosen, len(chosen))) for _ in range(members)]
        left = np.setdiff1d(np.arange(pool), chosen)
        if how == "uniform":
            chosen += generator.choice(left, each, replace=False).tolist()
            continue
        told = [information_of_scores([[float(x[n] @ w), 0.0] for w in ensemble]) for n in left]
        chosen += left[np.argsort(told)[::-1][:each]].tolist()
    found = _fit(x, answer, np.array(chosen))
    return 1 - found @ truth / np.linalg.norm(found) / np.linalg.norm(truth)


def _fit(x, answer, rows, ridge=0.3):
    w = np.zeros(x.shape[1])
    for _ in range(12):
        p = special.expit(x[rows] @ w)
        curve = (x[rows] * (p * (1 - p))[:, None]).T @ x[rows] + ridge * np.eye(len(w))
        w = w + np.linalg.solve(curve, x[rows].T @ (answer[rows] - p) - ridge * w)
    return w


# ----------------------------------------------------------------------------------------------- in the store


def in_queue(saying):
    """Keys of the open items, highest priority first, and their priorities."""
    with saying.store.reading() as conn:
        rows = conn.execute(select(item.c.key, item.c.priority).where(~item.c.closed).order_by(item.c.priority.desc()))
        return {row.key: row.priority for row in rows}


def test_scores_give_the_doubtful_items_priority(store):
    saying = Saying(store)
    saying.add("sure", "doubtful", "unscored")
    saying.add("practice", role="onboarding", gold={"answers": {}})
    scores = [("sure", [[2, 0], [2.1, 0]]), ("doubtful", [[2, 0], [0, 2]]), ("practice", [[1, 0], [0, 1]]),
              ("nowhere", [[0, 1], [1, 0]])]  # fmt: skip
    found = store.write(
        lambda conn: prioritise_by_scores(conn, saying.id, [(key, np.array(each, float)) for key, each in scores])
    )
    queue = in_queue(saying)
    assert next(iter(queue)) == "doubtful"
    assert queue["doubtful"] == pytest.approx(information_of_scores([[2, 0], [0, 2]]))
    assert queue["unscored"] == queue["practice"] == 0
    assert found.unknown == ("practice", "nowhere")


def test_scores_of_other_candidates_are_refused_and_change_nothing(store):
    saying = Saying(store)
    saying.add("i1", "i2")
    three = [("i1", np.array([[2.0, 0], [0, 2]])), ("i2", np.ones((2, 3)))]
    with pytest.raises(UserError, match="has 2 candidates, but scores of 3"):
        store.write(lambda conn: prioritise_by_scores(conn, saying.id, three))
    assert set(in_queue(saying).values()) == {0.0}


def test_disagreement_so_far_gives_priority_and_closes_what_is_settled(store):
    saying = Saying(store)
    for n in range(5):
        saying.person(f"p{n}")
    saying.add("settled", "split", "agreed", "fresh", wanted=9)
    saying.say((f"p{n}", "settled", prefers(0)) for n in range(5))
    saying.say((f"p{n}", "split", prefers(n % 2)) for n in range(2))
    saying.say((f"p{n}", "agreed", prefers(1)) for n in range(2))
    found = store.write(lambda conn: prioritise_by_disagreement(conn, saying.id, sure=0.95))
    assert list(in_queue(saying)) == ["fresh", "split", "agreed"]
    assert found.closed == (saying.items["settled"],)
    assert found.information[saying.items["split"]] == pytest.approx(0.11, abs=1e-3)


def test_before_any_answer_all_items_tell_as_much(store):
    saying = Saying(store)
    saying.add("a", "b")
    found = store.write(lambda conn: prioritise_by_disagreement(conn, saying.id, sure=0.95))
    assert found.closed == ()
    assert list(found.information.values()) == pytest.approx([0.193, 0.193], abs=1e-3)


def test_a_ranking_counts_as_votes_on_its_pairs(store):
    saying = Saying(store, (Question("ranking", "ranking"),))
    saying.person("Ann")
    saying.add("i", "fresh", texts=("x", "y", "z"), policies=("a", "b", "c"), wanted=5)
    saying.say([("Ann", "i", {"ranks": [1, 1, 2]})], question="ranking", kind="ranking")
    found = store.write(lambda conn: prioritise_by_disagreement(conn, saying.id))
    tie, strict = (float(each) for each in information_of_votes(np.array([0, 1]), np.array([0, 0])))
    assert found.information[saying.items["i"]] == pytest.approx((tie + 2 * strict) / 3)


@pytest.mark.parametrize(
    ("questions", "asked", "problem"),
    [
        ((Question("text", "demonstration"),), None, "No question of this project"),
        ((Question("choice", "comparison"),), "other", "does not say which"),
    ],
)
def test_votes_need_a_question_that_compares(store, questions, asked, problem):
    saying = Saying(store, questions)
    with pytest.raises(UserError, match=problem):
        store.write(lambda conn: prioritise_by_disagreement(conn, saying.id, asked))


def claimed(saying, uniform, n):
    """What a new person gets, one after the other, with this uniform share."""

    def settings(conn):
        import dataclasses

        _, project = load_project(conn, saying.id)
        alone = {f"{name}_share": 0.0 for name in ("calibration", "gold", "repeat", "drift")}
        change_project(conn, NOW, saying.id, dataclasses.replace(project, uniform_share=uniform, ahead=n, **alone))

    name = f"new{len(saying.people)}"
    person = saying.person(name)
    saying.store.write(settings)
    saying.store.write(lambda conn: join(conn, NOW, saying.id, person, "working"))
    found = saying.store.write(lambda conn: claim(conn, NOW, person, saying.id, n))
    keys = {number: key for key, number in saying.items.items()}
    return [keys[one.item["id"]] for one in found]


def test_the_uniform_share_stays_in_the_seeded_order(store):
    saying = Saying(store)
    keys = [f"i{n}" for n in range(40)]
    saying.add(*keys, wanted=9)
    before = claimed(saying, 1.0, 40)
    doubts = {key: n for n, key in enumerate(keys)}
    scores = [(key, np.array([[doubts[key] / 10, 0.0], [0.0, doubts[key] / 10]])) for key in keys]
    store.write(lambda conn: prioritise_by_scores(conn, saying.id, scores))
    # Everybody so far has had all of them, so that none is nearer to its end than another.
    assert claimed(saying, 0.0, 40) == keys[::-1]
    assert claimed(saying, 1.0, 40) == before != keys[::-1]


# ------------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2 is not an item's key"),
        ('{"key": "a"}', "line 2 is not an item's key"),
        ('{"key": 1, "scores": [[1, 2], [2, 1]]}', "line 2 has scores that are not"),
        ('{"key": "a", "scores": [[1, 2]]}', "line 2 has scores that are not"),
        ('{"key": "a", "scores": [[1], [2]]}', "line 2 has scores that are not"),
        ('{"key": "a", "scores": [[1, 2], [NaN, 1]]}', "line 2 has scores that are not"),
        ('{"key": "a", "scores": [[1, 2], [1]]}', "line 2 is not an item's key"),
        ("[" * 100_000, "line 2 is not an item's key"),
        (" " * 1_000_001 + "{}", "line 2 is longer"),
    ],
)
def test_a_bad_line_of_scores_is_named(tmp_path, line, problem):
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps({"key": "a", "scores": [[1, 2], [2, 1]]}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=problem):
        list(read_scores(path))


def test_scores_are_read_and_blank_lines_left_out(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('\n{"key": "a", "scores": [[1, 2], [2, 1], [0, 0]]}\n\n')
    [(key, scores)] = read_scores(path)
    assert (key, scores.shape) == ("a", (3, 2))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_scores(tmp_path / "nothing.jsonl"))


def test_a_scorer_of_ones_own_sees_the_texts(store):
    saying = Saying(store)
    saying.add("i")
    with store.reading() as conn:
        [(key, scores)] = scores_of(
            conn, saying.id, lambda context, texts: [[len(t) for t in texts], [0, len(context)]]
        )
        assert (key, scores.tolist()) == ("i", [[5, 11], [0, 1]])
        for bad in ([[1, 2]], [1, 2], [[1, math.nan], [1, 2]]):
            with pytest.raises(UserError, match="A scorer returns"):
                list(scores_of(conn, saying.id, lambda *_, bad=bad: bad))


# --------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.db"
    with Store.open(path, create=True) as store:
        saying = Saying(store)
        for name, role in (("Ann", "labeler"), ("Ben", "labeler"), ("Rea", "researcher")):
            saying.person(name, role)
        saying.add("i1", "i2", wanted=5)
        saying.say((name, key, prefers(0, 2)) for name in saying.people for key in ("i1", "i2"))
    return str(path)


def test_the_command_prints_the_papers_form_and_json_all_of_it(labels, capsys):
    agreement_command(AgreementConfig("p", store=labels))
    said = capsys.readouterr().out
    assert "p: 6 answers on 2 items, by 2 labelers and 1 researcher" in said
    assert "labeler–labeler" in said
    assert "100.0%" in said
    assert "  – No item has answers of two researchers. (researcher–researcher" in said
    assert "known right answer" not in said
    assert max(map(len, said.splitlines())) <= 100
    agreement_command(AgreementConfig("p", store=labels, json=True))
    found = json.loads(capsys.readouterr().out)
    assert found["questions"][0]["aspects"][0]["agreement"]["labeler_researcher"]["n"] == 4


def test_answers_for_practice_alone_are_said_to_be_that(tmp_path, capsys):
    path = str(tmp_path / "labels.db")
    with Store.open(path, create=True) as store:
        saying = Saying(store)
        saying.person("Ann")
        saying.add("i1", "i2", role="gold", gold={"answers": {"choice": {"choice": 0, "points": 1}}})
        saying.say([("Ann", "i1", prefers(0, 2)), ("Ann", "i2", prefers(0, 2))])
    agreement_command(AgreementConfig("p", store=path))
    said = capsys.readouterr().out
    assert "p: 2 answers on 2 items" in said
    assert "2 answers for practice or with a known right answer: not compared, but under gold" in said
    assert "There are no answers" not in said
    agreement_command(AgreementConfig("p", store=path, json=True))
    found = json.loads(capsys.readouterr().out)
    assert (found["answers"], found["not_compared"]) == (2, 2)
    assert found["questions"][0]["bias"]["ties"]["why"] == "No item that is compared has an answer."


def test_long_names_and_reasons_stay_within_a_hundred_characters(tmp_path, capsys):
    from desks import PLAIN, Desk, new_item

    path = str(tmp_path / "labels.db")
    with Store.open(path, create=True) as store:
        questions = PRESETS["instructgpt"].questions
        desk = Desk(store, replace(PLAIN, questions=questions), people=("ann",), items=[new_item("a")])
        desk.label("ann", {
            "overall": {"ratings": [7, 4]}, "ranking": {"ranks": [1, 2]}, "metadata": {"flags": [["violent"], []]},
        })  # fmt: skip
        with store.reading() as conn:
            name = conn.execute(select(project.c.name)).scalar_one()
    agreement_command(AgreementConfig(name, store=path))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any("satisfies_constraint" in line for line in lines)


def test_an_unknown_project_or_batch_is_a_message(labels):
    with pytest.raises(UserError, match="no project 'q'"):
        agreement_command(AgreementConfig("q", store=labels))
    with pytest.raises(UserError, match="no batch 'b'"):
        agreement_command(AgreementConfig("p", store=labels, batch="b"))


def test_prioritise_says_what_it_did_and_it_is_in_the_audit(labels, capsys, tmp_path):
    prioritise(PrioritiseConfig("p", store=labels, by="disagreement", sure=0.9))
    said = capsys.readouterr().out
    assert "closed            2 items" in said
    path = tmp_path / "scores.jsonl"
    path.write_text('{"key": "gone", "scores": [[1, 0], [0, 1]]}\n')
    prioritise(PrioritiseConfig("p", store=labels, scores=path))
    assert "1 key of no open item: gone" in capsys.readouterr().out
    with Store.open(labels) as store, store.reading() as conn:
        assert conn.execute(select(audit.c.act)).scalars().all().count("prioritise") == 2


def one_and_the_other(context, texts):
    return [[len(text) for text in texts], [-len(text) for text in texts]]


def test_prioritise_takes_a_scorer_by_its_name(labels, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "a_scorer", sys.modules[__name__])
    prioritise(PrioritiseConfig("p", store=labels, scorer="a_scorer:one_and_the_other"))
    assert "2 open items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "needs one of --scores and --scorer"),
        ({"scores": Path("x"), "scorer": "a:b"}, "needs one of --scores and --scorer"),
        ({"by": "disagreement", "scorer": "a:b"}, "are for --by scores"),
        ({"by": "disagreement", "sure": 0.4}, "above 0.5"),
        ({"scores": Path("x"), "sure": 0.9}, "is for --by disagreement"),
        ({"scorer": "no_such_module:x"}, "cannot be imported"),
    ],
)
def test_settings_that_do_not_fit_together_are_a_message(labels, settings, problem):
    with pytest.raises(UserError, match=problem):
        prioritise(PrioritiseConfig("p", store=labels, **settings))
