"""The recipes say what the papers say, and the demo keeps its time, its plan and its promises."""

import json
import math
from dataclasses import asdict

import pytest
from sqlalchemy import func, select

from rein.agents.compare import conditions
from rein.bpe.tokenizer import load_tokenizer
from rein.cli import main
from rein.config import replace
from rein.errors import UserError
from rein.feedback.client import Client, claim, enter
from rein.feedback.people import invite
from rein.feedback.store import Store
from rein.feedback.tables import feedback, item, person
from rein.recipes import collect as collecting
from rein.recipes import demo as module
from rein.recipes.collect import Likely, collect, held_out
from rein.recipes.demo import DemoConfig, demo, plan, settings, tokens_per_s
from rein.recipes.gpt3_text import recipe as gpt3_text
from rein.recipes.tamer_rl_sequential import sequential
from rein.recipes.tamer_rl_simultaneous import simultaneous
from rein.recipes.webtext import recipe as webtext
from rein.run import read_rows
from rein.text import contamination
from rein.text.mixture import Mixture
from rein.text.shards import Shards
from rein.train.pretrain import pretrain
from rein.web.label.service import now_ms


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
    monkeypatch.setattr(collecting, "PAIRS", 16)
    monkeypatch.setattr(collecting, "SHARED", 2)
    config = DemoConfig(minutes=1.0, out=tmp_path / "demo")
    demo(config)
    out = capsys.readouterr().out
    assert "bits per byte" in out
    assert "report.html" in out
    assert out.index("rein tamer play") < out.index("rein generate"), "a lesson is the first thing to do next"
    assert f"rein label serve {config.out / 'labels.db'}" in out
    assert "agreement" in out
    assert "final over ref" in out
    plan_json = json.loads((config.out / "plan.json").read_text())
    assert 0 < plan_json["train_tokens"] <= 100 * 60
    rows = list(read_rows(config.out / "pretrain" / "metrics.jsonl"))
    assert rows[-1]["tokens"] >= plan_json["train_tokens"]

    monkeypatch.setattr(module, "build", lambda config: None)
    monkeypatch.setattr(module, "tokens_per_s", lambda training: pytest.fail("the plan was made already"))
    with Store.open(config.out / "labels.db") as store, store.reading() as conn:
        before = conn.scalar(select(func.max(feedback.c.seq)))
    demo(config)  # again: nothing is left to do, and it says so in the same words
    again = capsys.readouterr().out
    assert "bits per byte" in again
    rates, rates_again = ([line for line in text.splitlines() if " over " in line] for text in (out, again))
    assert rates == rates_again
    with Store.open(config.out / "labels.db") as store, store.reading() as conn:
        assert conn.scalar(select(func.max(feedback.c.seq))) == before, "and nobody is asked twice"
    with pytest.raises(UserError, match="holds a demo of --minutes 1 --seed 0"):
        demo(replace(config, minutes=2.0))


@pytest.fixture(scope="module")
def collected(small_corpus, tmp_path_factory):
    """A run with several checkpoints, and what was collected of it."""
    folder = tmp_path_factory.mktemp("demo")
    training = settings(DemoConfig(out=folder), small_corpus, 40_000)
    training = replace(training, n_layer=1, n_embd=32, n_head=1, n_ctx=64, heldout_tokens=500, checkpoint_every_s=0.05)
    pretrain(training)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "PAIRS", 40)
        patch.setattr(collecting, "SHARED", 5)
        return collect(small_corpus, training.out, folder, seed=0)


def test_pairs_are_collected_blind_and_every_one_by_three(collected):
    with Store.open(collected) as store, store.reading() as conn:
        rows = conn.execute(select(item)).all()
        people = conn.execute(select(person).order_by(person.c.id)).all()
    work = [row for row in rows if row.role == "work"]
    assert len(work) > 30
    assert all(row.done == 3 for row in work)
    assert {candidate["policy"] for row in rows for candidate in row.candidates} == {"final", "early", "ref"}
    assert [(one.name, one.simulated) for one in people] == [
        ("researcher", False), *((f"simulated-{n}", True) for n in range(1, 6))
    ]  # fmt: skip


def test_whoever_comes_in_by_the_link_gets_the_shared_pairs(collected):
    with Store.open(collected) as store, collecting._served(store) as address, Client(address) as client:
        client.send(enter(store.write(lambda conn: invite(conn, now_ms(), "admin", person=1, life_ms=60_000))))
        (card,) = client.send(claim("demo"))["items"]
    assert "policy" not in json.dumps(card)
    assert len(card["candidates"]) == 2


def test_held_out_text_is_cut_where_it_is_to_go_on(small_corpus):
    tokenizer, shards = load_tokenizer(small_corpus), Shards(small_corpus, "heldout")
    rows = held_out(shards, tokenizer, 8, 6, 10)
    whole = "\n".join(tokenizer.decode(tokens) for tokens in shards.iter_documents())
    assert rows
    assert all(row["text"] + row["reference"] in whole for row in rows)
    assert all(row["reference"][0].isspace() for row in rows), "no word is cut in two"


def test_the_gold_score_likes_text_as_it_is():
    gold = Likely("the cat sat on the mat and the dog sat on the rug . " * 3)
    context = {"text": "and the dog"}
    assert gold(context, "sat on the rug .") > gold(context, "rug the on sat .") > gold(context, "zqx vvv jjj")
    assert gold(context, "") == -math.log(256)
    assert gold(context, "é") < -5, "a character that never came is possible"


def test_the_gold_score_is_a_probability():
    gold = Likely("abracadabra" * 4)
    chances = [gold._chance("cada" + chr(code), 4) for code in range(256)]
    assert sum(chances) == pytest.approx(1.0, abs=0.02)  # less where a history is the end of the text


def test_the_speed_that_the_plan_counts_on(small_corpus, tmp_path):
    training = replace(settings(DemoConfig(), small_corpus, 1), n_layer=1, n_embd=16, n_head=1, n_ctx=16)
    assert tokens_per_s(training, seconds=0.2) > 100


def test_a_plan_fits_its_time(small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "tokens_per_s", lambda training: 1000.0)
    assert plan(DemoConfig(out=tmp_path), small_corpus, 100.0).train_tokens <= 1000 * 100


def test_too_little_time(capsys):
    assert main(["demo", "--minutes", "0.1"]) == 2
    assert "--minutes is 0.1" in capsys.readouterr().err
