"""Weights and epochs, GPT-3's table, and what a corpus says of its mixture."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rein.cli import main
from rein.errors import UserError
from rein.text.mixture import GPT3, Mixture, MixtureConfig, gpt3_mixtures, mixture_of, order_of
from rein.text.order import MixtureOrder, WindowOrder

TOKENS = {"web": 3000, "books": 600, "wiki": 400}


def percent(mixture):
    return [round(100 * share, 1) for share in mixture.shares.values()]


def manifest(weights=None, epochs=None):
    weights, epochs = weights or {}, epochs or {}
    return {
        "format": "rein-corpus",
        "version": 2,
        "splits": {"train": {"tokens": sum(TOKENS.values()), "documents": 30}},
        "mixture": [
            {
                "source": source,
                "tokens": n_tokens,
                "documents": 10,
                "weight": weights.get(source),
                "epochs": epochs.get(source),
            }
            for source, n_tokens in TOKENS.items()
        ],
    }


@pytest.fixture
def corpus(tmp_path):
    """Writes a manifest with some mixture, and returns its folder."""

    def write(**mixture):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest(**mixture)))
        return tmp_path

    return write


def test_table_2_2_by_weights():
    by_weights, _ = gpt3_mixtures()
    assert percent(by_weights) == [59.4, 21.8, 7.9, 7.9, 3.0]
    assert math.isclose(sum(by_weights.shares.values()), 1)
    assert sum(by_weights.weights.values()) == pytest.approx(1.01)


def test_table_2_2_by_epochs():
    _, by_epochs = gpt3_mixtures()
    assert percent(by_epochs) == [61.7, 18.9, 7.8, 8.1, 3.5]
    assert by_epochs.pass_tokens == pytest.approx(292.15e9)
    assert [round(row.epochs, 2) for row in by_epochs.table(292.15e9)] == [0.44, 2.9, 1.9, 0.43, 3.4]


def test_the_printed_weights_give_the_epochs_of_300_billion_tokens():
    # As if the weights added up to 1: against the derived column, 0.44 3.47 2.00 0.44 3.00.
    by_weights, _ = gpt3_mixtures()
    found = [round(row.epochs, 2) for row in by_weights.table(1.01 * 300e9)]
    assert found == [0.44, 3.47, 2.0, 0.44, 3.0]
    assert sum(row.tokens for row in GPT3) == 499e9


def test_weights_and_epochs_say_the_same():
    by_epochs = Mixture.from_epochs(TOKENS, {"web": 0.5, "books": 2.0, "wiki": 3.0})
    assert by_epochs.pass_tokens == 1500 + 1200 + 1200
    by_weights = Mixture.from_weights(TOKENS, {"wiki": 12.0, "web": 15.0, "books": 12.0})
    assert by_weights.shares == pytest.approx(by_epochs.shares)
    rows = by_weights.table(7800)
    assert [row.source for row in rows] == ["web", "books", "wiki"]
    assert [row.weight for row in rows] == [15, 12, 12]
    assert [row.sampled_tokens for row in rows] == [3000, 2400, 2400]
    assert [row.epochs for row in rows] == pytest.approx([1, 4, 6])
    assert by_epochs.table(7800)[0].weight is None


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, -0.0])
@pytest.mark.parametrize(("make", "what"), [(Mixture.from_weights, "weight"), (Mixture.from_epochs, "epochs")])
def test_a_number_that_is_not_above_0(make, what, wrong):
    with pytest.raises(UserError, match=rf"The source 'books' has {what} {wrong}, but a number above 0"):
        make(TOKENS, {"web": 1, "books": wrong, "wiki": 1})


@pytest.mark.parametrize(("make", "what"), [(Mixture.from_weights, "weight"), (Mixture.from_epochs, "epochs")])
def test_a_source_without_a_number_or_a_number_without_a_source(make, what):
    with pytest.raises(UserError, match=rf"The source 'wiki' has no {what}"):
        make(TOKENS, {"web": 1, "books": 1})
    with pytest.raises(UserError, match=rf"{what} of 'boks', no source.\n  Did you mean books"):
        make(TOKENS, {"web": 1, "boks": 1, "wiki": 1})
    with pytest.raises(UserError, match="The source 'books' has no tokens"):
        make({**TOKENS, "books": 0}, dict.fromkeys(TOKENS, 1.0))


def test_the_order_of_a_corpus():
    plain = order_of(manifest(), 16, 5)
    assert isinstance(plain, WindowOrder)
    assert plain.starts(0, 50).tolist() == WindowOrder(4000, 16, 5).starts(0, 50).tolist()
    mixed = order_of(manifest(epochs={"web": 1, "books": 5, "wiki": 7.5}), 16, 5)
    assert isinstance(mixed, MixtureOrder)
    starts = mixed.starts(0, 300)
    assert np.histogram(starts, bins=[0, 3000, 3600, 4000])[0].tolist() == [100, 100, 100]
    assert list(mixed.seen(300)) == list(TOKENS)


def test_a_corpus_of_one_source_or_of_none_that_is_named():
    one = manifest()
    one["mixture"] = [{"source": "all", "tokens": 4000, "documents": 1, "weight": 2.0, "epochs": None}]
    assert isinstance(order_of(one, 16, 0), WindowOrder)
    del one["mixture"]
    assert isinstance(order_of(one, 16, 0), WindowOrder)


def test_weights_count_where_epochs_are_there_too_and_a_missing_one_is_named():
    weights = dict.fromkeys(TOKENS, 1.0)
    found = mixture_of(manifest(weights, {"web": 9, "books": 9, "wiki": 1}))
    assert found.shares == pytest.approx(dict.fromkeys(TOKENS, 1 / 3))
    with pytest.raises(UserError, match="The source 'web' has no weight, but others have"):
        mixture_of(manifest({"books": 1.0, "wiki": 1.0}))


def test_the_table_of_a_corpus(corpus, capsys):
    folder = corpus(weights={"web": 1, "books": 0.5, "wiki": 0.5})
    assert main(["text", "mixture", str(folder), "--train-tokens", "8e3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["source", "documents", "tokens", "weight", "share", "sampled", "tokens", "epochs"]
    assert lines[3].split() == ["web", "10", "3,000", "1", "50.00%", "4,000", "1.33"]
    assert lines[5].split() == ["wiki", "10", "400", "0.5", "25.00%", "2,000", "5"]
    assert "the weights add up to 2; " in lines[-1]


def test_the_table_of_epochs_is_of_the_run_that_gives_them(corpus, capsys):
    assert main(["text", "mixture", str(corpus(epochs={"web": 0.5, "books": 2, "wiki": 3}))]) == 0
    out = capsys.readouterr().out
    assert "a run of 3,900 tokens" in out
    assert [line.split()[-1] for line in out.splitlines()[3:]] == ["0.5", "2", "3"]


def test_the_table_without_a_mixture_is_one_epoch_of_everything(corpus, capsys):
    assert main(["text", "mixture", str(corpus())]) == 0
    out = capsys.readouterr().out
    assert "no mixture: every source is read alike; a run of 4,000 tokens" in out
    assert [line.split()[4:] for line in out.splitlines()[3:]] == [
        ["75.00%", "3,000", "1"],
        ["15.00%", "600", "1"],
        ["10.00%", "400", "1"],
    ]


def test_gpt3s_table_in_both_readings(capsys):
    assert main(["text", "mixture", "--gpt3"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "Wikipedia" in line)
    assert row.split() == ["Wikipedia", "3", "B", "3%", "3.4", "3.0%", "8.91", "B", "2.97", "3.5%", "10.2", "B", "3.40"]
    for said in (
        "add up to 101%",
        "292.15 B tokens, not 300 B",
        "22% of 300 B are 3.47 epochs, and 2.9 epochs are 18.9%",
    ):
        assert said in out


def test_what_to_print_has_to_be_said(tmp_path):
    with pytest.raises(UserError, match="needs a corpus folder, or --gpt3"):
        MixtureConfig()
    with pytest.raises(UserError, match="not that of"):
        MixtureConfig(tmp_path, gpt3=True)
    with pytest.raises(UserError, match="--train-tokens is 0"):
        MixtureConfig(tmp_path, train_tokens=0)
