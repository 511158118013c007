"""The papers' numbers: all of them are there, where a reader looks for them, with what is odd about them."""

from __future__ import annotations

import csv

import pytest

from rein.evals import scores
from rein.evals.published import FOLDER, PRINTED, SIZES, fraction, nearest, note, numbers, others, overlaps

SETTINGS = ("zero", "one", "few")


def rows(name):
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TABLE_H1 = rows("gpt3_table_h1.csv")


def test_table_h1_has_63_rows_3_settings_8_sizes():
    assert len(TABLE_H1) == 63 * 3
    assert len({(row["task"], row["metric"], row["setting"]) for row in TABLE_H1}) == 63 * 3
    assert sum(bool(row[size]) for row in TABLE_H1 for size in SIZES["gpt3"]) == 1512
    assert sum(bool(row["175B test server"]) for row in TABLE_H1) == 14


def test_each_row_of_table_h1_has_a_k_and_a_split():
    for row in TABLE_H1:
        assert int(row["k"]) == {"zero": 0, "one": 1}.get(row["setting"], int(row["k"]))
        assert row["setting"] != "few" or int(row["k"]) > 1
        assert row["split"] in ("dev", "test", "")


def test_table_h1_equals_another_transcription_of_it(shared_data):
    size_of = dict(
        zip(
            ["Small_125M", "Medium_350M", "Large_760M", "XL_1.3B", "2.7B", "6.7B", "13B", "175B"],
            SIZES["gpt3"],
            strict=True,
        )
    )
    ours = {(row["task"], row["metric"], row["setting"]): row for row in TABLE_H1}
    compared = 0
    with (shared_data / "evaluation" / "gpt3" / "table_h1.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            mine = ours[row["task"], row["metric"], row["setting"]]
            assert float(mine[size_of[row["model"]]]) == float(row["score"])
            assert mine["split"] == row["split"].replace("n/a", "")
            if row["setting"] == "few":
                assert mine["k"] == row["K_fewshot"]
            if row["175B_test_server_fewshot"]:
                assert float(mine["175B test server"]) == float(row["175B_test_server_fewshot"])
            compared += 1
    assert compared == 1512


@pytest.mark.parametrize(
    ("paper", "task", "metric", "setting", "size", "score"),
    [
        ("gpt3", "HellaSwag", "accuracy", "zero", "Small", 33.7),
        ("gpt3", "LAMBADA", "lambada_last_token", "few", "175B", 86.4),
        ("gpt3", "LAMBADA", "perplexity_last_token", "zero", "175B", 3.0),
        ("gpt3", "NQs", "exact_match", "few", "175B", 29.9),
        ("gpt3", "MultiRC", "multirc_accuracy", "few", "175B", 32.5),
        ("gpt3", "MultiRC", "f1a", "few", "175B", 74.8),
        ("gpt3", "ReCoRD", "record_em", "zero", "175B", 90.2),
        ("gpt3", "CB", "macro_f1", "test server", "175B", 52.0),
        ("gpt3", "SQuADv2", "em_squad", "few", "175B", 64.9),
        ("gpt3", "En-Fr 14", "bleu_sb", "few", "175B", 39.9),
        ("gpt3", "2D+", "exact_match", "few", "13B", 55.5),
        ("gpt3", "PTB", "perplexity", "zero", "175B", 20.5),
        ("gpt3", "PIQA", "accuracy", "test server", "175B", 82.8),
        ("gpt2", "LAMBADA", "lambada_last_token", "zero", "117M", 45.99),
        ("gpt2", "LAMBADA", "lambada_filtered", "zero", "1542M", 63.24),
        ("gpt2", "LAMBADA", "lambada_last_word", "zero", "1542M", 52.66),
        ("gpt2", "enwik8", "bits_per_byte", "zero", "1542M", 0.93),
        ("gpt2", "text8", "bits_per_character", "zero", "345M", 1.06),
        ("gpt2", "Winograd", "accuracy", "zero", "1542M", 70.70),
        ("gpt2", "CoQA", "f1_coqa", "zero", "1542M", 55),
        ("gpt2", "Fr-En 14", "bleu_sb", "few", "1542M", 11.5),
        ("gpt2", "CNN/DM", "rouge_average", "zero", "1542M", 21.40),
        ("gpt1", "MNLI-m", "accuracy", "fine-tuned", "117M", 82.1),
        ("gpt1", "CoLA", "matthews", "no pre-training", "117M", 18.9),
        ("gpt1", "STS-B", "pearson", "fine-tuned", "117M", 82.0),
    ],
)
def test_a_number_is_found_by_our_name_of_its_metric(paper, task, metric, setting, size, score):
    assert numbers(paper, task, metric, setting)[size] == score


def test_what_no_paper_gives_is_empty():
    assert numbers("gpt3", "a task of mine", "accuracy") == {}
    assert numbers("gpt3", "PIQA", "f1") == {}
    assert numbers("gpt2", "Winograd", "accuracy").keys() == {"1542M"}
    assert others("gpt3", "PIQA", "accuracy") == {}


def test_changing_what_was_given_does_not_change_what_the_paper_says():
    numbers("gpt3", "PIQA", "accuracy")["Small"] = 0.0
    assert numbers("gpt3", "PIQA", "accuracy")["Small"] == 64.6


@pytest.mark.parametrize("name", ["gpt3_table_h1.csv", "gpt3_text.csv", "gpt2.csv", "gpt1.csv"])
def test_each_printed_metric_has_a_name_of_ours(name):
    """So that no number is out of reach."""
    reached = {*PRINTED.values(), *scores.SCORES, "f1a", "average", "avg", "BLEU"}
    assert {row["metric"] for row in rows(name)} <= reached


def test_our_names_are_those_of_the_metrics():
    metrics = pytest.importorskip("rein.evals.metrics", reason="the metrics of evaluations are not there")
    assert {*PRINTED} <= {*metrics.METRICS}
    for name in PRINTED:
        percentage = fraction(name, 50.0) == 0.5
        assert percentage == (metrics.METRICS[name].unit == "%"), name


def test_summaries_of_radford_2019_are_averages_of_three_rouges():
    """Table 4 prints the mean of R-1, R-2 and R-L, so that a slip of the pen in any of the four shows."""
    for system in ("Random-3", "Lede-3", "Seq2Seq+Attn", "Bottom-Up", "GPT-2 without TL;DR:"):
        parts = [others("gpt2", "CNN/DM", metric)[system] for metric in ("rouge1", "rouge2", "rougeL")]
        assert sum(parts) / 3 == pytest.approx(others("gpt2", "CNN/DM", "rouge_average")[system], abs=0.0101)
    parts = [numbers("gpt2", "CNN/DM", metric)["1542M"] for metric in ("rouge1", "rouge2", "rougeL")]
    assert sum(parts) / 3 == pytest.approx(21.40, abs=0.0101)


def test_table_5_of_radford_2018_averages_its_eight_tasks():
    for setting in ("no pre-training", "no auxiliary LM", "LSTM"):
        found = [float(row["117M"]) for row in rows("gpt1.csv") if row["setting"] == setting]
        assert sum(found[1:]) / 8 == pytest.approx(found[0], abs=0.07)


@pytest.mark.parametrize(
    ("paper", "n_params", "size"),
    [
        ("gpt3", 124_439_808, "Small"),
        ("gpt3", 80e6, "Small"),
        ("gpt3", 500e6, "Medium"),
        ("gpt3", 530e6, "Large"),
        ("gpt3", 1e12, "175B"),
        ("gpt2", 1_557_611_200, "1542M"),
        ("gpt2", 3e6, "117M"),
        ("gpt1", 116_534_784, "117M"),
    ],
)
def test_the_nearest_size_is_that_of_log_parameters(paper, n_params, size):
    assert nearest(paper, n_params) == size


# ------------------------------------------------------------------------------------------------------- notes


def ours(printed):
    return {name: key for key, name in PRINTED.items()}.get(printed, printed)


def test_27_rows_of_the_smallest_model_print_one_number_for_one_and_few_shots():
    noted = [
        row
        for row in TABLE_H1
        if row["setting"] == "few" and "hold to zero-shot" in note("gpt3", row["task"], metric_of(row), "few", "Small")
    ]
    assert len(noted) == 27
    assert not note("gpt3", "HellaSwag", "accuracy", "few", "Small")
    assert not note("gpt3", "PIQA", "accuracy", "few", "175B")


def metric_of(row):
    """A metric of ours that finds a row of Table H.1."""
    own = {"LAMBADA": {"acc": "lambada_last_token", "ppl": "perplexity_last_token"}}
    return own.get(row["task"], {}).get(row["metric"], ours(row["metric"]))


def test_zeros_that_choosing_cannot_give_are_noted():
    zeros = {
        (row["task"], size)
        for row in TABLE_H1
        for size in SIZES["gpt3"]
        if row["setting"] == "zero" and row["task"] in ("CB", "WiC") and float(row[size]) == 0
    }
    assert zeros == {("CB", "Small"), *(("WiC", size) for size in SIZES["gpt3"])}
    for task, size in zeros:
        assert "not to be held to" in note("gpt3", task, "accuracy", "zero", size)
    assert not note("gpt3", "CB", "accuracy", "zero", "Medium")


def test_multirc_prints_zero_shot_twice_at_every_size():
    for metric in ("multirc_accuracy", "f1a"):
        assert numbers("gpt3", "MultiRC", metric, "zero") == numbers("gpt3", "MultiRC", metric, "one")
        assert "zero and one shot" in note("gpt3", "MultiRC", metric, "one", "XL")


def test_lambada_is_said_to_go_by_the_last_token():
    for paper in ("gpt2", "gpt3"):
        assert "last token" in note(paper, "LAMBADA", "lambada_last_token", "zero", next(iter(SIZES[paper])))
    assert "52.66" in note("gpt2", "LAMBADA", "lambada_filtered", "zero", "1542M")
    assert not note("gpt2", "LAMBADA", "lambada_last_word", "zero", "1542M")


def test_shots_that_do_not_fit_are_noted():
    assert "about 14" in note("gpt3", "BoolQ", "accuracy", "few", "XL")
    assert not note("gpt3", "BoolQ", "accuracy", "zero", "XL")


@pytest.mark.parametrize(
    ("task", "metric", "again"),
    [("CoQA", "f1_coqa", 86.0), ("COPA", "accuracy", 93.0), ("WSC", "accuracy", 76.9), ("CB", "accuracy", 80.4)],
)
def test_another_draw_of_the_paper_is_told_beside_its_number(task, metric, again):
    assert f"Table C.1 has {again}" in note("gpt3", task, metric, "few", "175B")
    assert 0.3 <= abs(numbers("gpt3", task, metric, "few")["175B"] - again) <= 2


def test_other_oddities_are_noted():
    assert "2,268" in note("gpt3", "ARC-Easy", "accuracy")
    assert "median" in note("gpt1", "StoryCloze", "accuracy", "fine-tuned")
    assert "1.0%" in note("gpt2", "NQs", "exact_match", "few")


# ------------------------------------------------------------------------------------------------- Table C.1


def test_table_c1_holds_the_tasks_of_table_h1():
    tasks = {row["task"] for row in TABLE_H1}
    assert overlaps().keys() - tasks == {"LAMBADA (no blanks)"}
    assert tasks - overlaps().keys() == {
        "SuperGLUE", "2D+", "2D-", "3D+", "3D-", "4D+", "4D-", "5D+", "5D-", "2Dx", "1DC",
    }  # fmt: skip


def test_table_c1_keeps_to_the_papers_rule_for_n():
    """At least 8, but for synthetic tasks; at most 13."""
    synthetic = {"Symbol Insertion", "Anagrams 1", "Anagrams 2", "Reversed Words", "Cycled Letters"}
    for task, overlap in overlaps().items():
        assert overlap.n in ((2, 7) if task in synthetic else range(8, 14))
        assert 0 < overlap.clean <= 1
        assert -0.3 < overlap.relative_change < 0.3


def test_table_c1_is_sorted_as_printed():
    clean = [overlap.clean for overlap in overlaps().values()]
    assert clean == sorted(clean)
