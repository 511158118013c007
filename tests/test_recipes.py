"""The recipes say what the papers say, and the demo keeps its time, its plan and its promises."""

import json
from dataclasses import asdict

import pytest

from rein.agents.compare import conditions
from rein.cli import main
from rein.config import replace
from rein.errors import UserError
from rein.recipes import demo as module
from rein.recipes.demo import DemoConfig, demo, plan, settings, tokens_per_s
from rein.recipes.gpt3_text import recipe as gpt3_text
from rein.recipes.tamer_rl_sequential import sequential
from rein.recipes.tamer_rl_simultaneous import simultaneous
from rein.recipes.webtext import recipe as webtext
from rein.run import read_rows
from rein.text import contamination
from rein.text.mixture import Mixture


def test_webtext():
    (source,) = webtext.sources
    assert (source.min_score, source.until, source.extract) == (3, "2017-12-31", "union")
    assert (webtext.n_vocab, webtext.decontamination, webtext.quality) == (50257, None, None)


def test_gpt3_text():
    table = Mixture.from_weights(
        {source.name: 1 for source in gpt3_text.sources},
        {source.name: source.weight for source in gpt3_text.sources},
    )
    assert [round(100 * share, 1) for share in table.shares.values()] == [59.4, 21.8, 7.9, 7.9, 3.0]
    assert gpt3_text.rank("webtext2") < gpt3_text.rank("common-crawl")
    assert gpt3_text.quality.alpha == 9
    assert contamination.Rules() == contamination.Rules(
        **{key: value for key, value in asdict(gpt3_text.decontamination).items() if key != "against"}
    )


def test_tamer_rl_sequential(tmp_path):
    planned = list(conditions(sequential(tmp_path)))
    assert {c.task: c.episodes for c in planned} == {"mountain-car": 500, "cart-pole": 150}
    assert len({c.technique for c in planned}) == 1 + 4
    assert sequential(tmp_path, "H2-100.model").h == ("H2-100.model", "rule")


def test_tamer_rl_simultaneous(tmp_path):
    planned = [c for c in conditions(simultaneous(tmp_path)) if c.when == "later"]
    assert {(c.task, c.train_from, c.train_episodes) for c in planned} == {
        ("mountain-car", 20, 12),
        ("cart-pole", 25, 8),
    }


def test_the_demo_on_a_small_corpus(small_corpus, tmp_path, monkeypatch, capsys):
    """All of it but the collecting: a corpus that is there already is taken."""
    monkeypatch.setattr(module, "build", lambda config: config.out.symlink_to(small_corpus))
    tiny = settings
    monkeypatch.setattr(
        module,
        "settings",
        lambda *args: replace(tiny(*args), n_layer=1, n_embd=16, n_head=1, n_ctx=32, heldout_tokens=500),
    )
    monkeypatch.setattr(module, "tokens_per_s", lambda training: 100.0)
    config = DemoConfig(minutes=1.0, out=tmp_path / "demo")
    demo(config)
    out = capsys.readouterr().out
    assert "bits per byte" in out
    assert "report.html" in out
    assert out.index("rein tamer play") < out.index("rein generate"), "a lesson is the first thing to do next"
    plan_json = json.loads((config.out / "plan.json").read_text())
    assert 0 < plan_json["train_tokens"] <= 100 * 60
    rows = list(read_rows(config.out / "pretrain" / "metrics.jsonl"))
    assert rows[-1]["tokens"] >= plan_json["train_tokens"]

    monkeypatch.setattr(module, "build", lambda config: None)
    monkeypatch.setattr(module, "tokens_per_s", lambda training: pytest.fail("the plan was made already"))
    demo(config)  # again: nothing is left to do, and it says so in the same words
    assert "bits per byte" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds a demo of --minutes 1 --seed 0"):
        demo(replace(config, minutes=2.0))


def test_the_speed_that_the_plan_counts_on(small_corpus, tmp_path):
    training = replace(settings(DemoConfig(), small_corpus, 1), n_layer=1, n_embd=16, n_head=1, n_ctx=16)
    assert tokens_per_s(training, seconds=0.2) > 100


def test_a_plan_fits_its_time(small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "tokens_per_s", lambda training: 1000.0)
    assert plan(DemoConfig(out=tmp_path), small_corpus, 100.0).train_tokens <= 1000 * 100


def test_too_little_time(capsys):
    assert main(["demo", "--minutes", "0.1"]) == 2
    assert "--minutes is 0.1" in capsys.readouterr().err
