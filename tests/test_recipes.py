"""The recipes say what the papers say, and the demo keeps its time, its plan and its promises."""

import contextlib
import io
import json
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from rein.agents.compare import conditions
from rein.cli import main
from rein.config import replace
from rein.errors import UserError
from rein.feedback.client import Client, claim, enter
from rein.feedback.people import invite
from rein.feedback.store import Store
from rein.feedback.tables import batch, feedback, item
from rein.loop.collecting import served
from rein.recipes import demo as module
from rein.recipes.demo import DemoConfig, demo, shared_out, tokens_per_s, training
from rein.recipes.demo_result import gained, read_result
from rein.recipes.gpt3_text import recipe as gpt3_text
from rein.recipes.tamer_rl_sequential import sequential
from rein.recipes.tamer_rl_simultaneous import simultaneous
from rein.recipes.webtext import recipe as webtext
from rein.run import read_rows
from rein.text import contamination
from rein.text.gold import gold
from rein.text.mixture import Mixture
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


VERBS, THINGS = ("Open", "Close", "Write", "Read", "Remove"), ("file", "socket", "window", "buffer", "archive", "log")


def docstrings(config):
    """Rows like those of `rein text prompts`."""
    pairs = [(verb, thing, n) for n in range(4) for verb in VERBS for thing in THINGS]
    rows = [
        {
            "id": f"{verb}{thing}{n}", "name": f"io.{verb.lower()}_{thing}", "reference": f"{verb} the {thing} of io.",
            "post": f"The {thing} is the {thing} that was made by io {n} times.",
            "split": "train" if at < 96 else "heldout",
        }
        for at, (verb, thing, n) in enumerate(pairs)
    ]  # fmt: skip
    config.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("read 120 items")


@pytest.fixture(scope="module")
def tiny(small_corpus):
    """The demo with little to do: a corpus that is there already is taken, and all models are tiny."""
    whole, ppo = module.training, module.PPO_SETTINGS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build", lambda config: config.out.exists() or config.out.symlink_to(small_corpus))
        patch.setattr(module, "prompts", docstrings)
        patch.setattr(
            module,
            "training",
            lambda *args: replace(whole(*args), n_layer=1, n_embd=16, n_head=1, n_ctx=96, heldout_tokens=500),
        )
        patch.setattr(module, "tokens_per_s", lambda training: 300.0)
        patch.setattr(module, "FEWEST", 24)
        patch.setattr(module, "MOST", 24)
        patch.setattr(module, "BEST_OF", 3)
        patch.setattr(module, "YOURS", 3)
        patch.setattr(module, "SAMPLES", 2)
        patch.setattr(module, "PPO_SETTINGS", {**ppo, "episodes_per_batch": 8, "heldout_prompts": 8})
        yield patch


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """A demo, and what it printed."""
    config = DemoConfig(minutes=1.0, out=tmp_path_factory.mktemp("demo") / "demo")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        demo(config)
    return config, said.getvalue()


def test_the_demo_says_what_each_stage_came_to(done):
    config, out = done
    for words in ("bits per byte", "agree with each other", "length alone", "supervised", "best of 3", "PPO", "people"):
        assert words in out
    assert out.index("demo.html") < out.index("rein label serve") < out.index("rein tamer play")
    kept = json.loads((config.out / "plan.json").read_text())
    rows = list(read_rows(config.out / "pretrain" / "metrics.jsonl"))
    assert rows[-1]["tokens"] >= kept["train_tokens"] > 0
    answers = list(read_rows(config.out / "loop" / "round-01" / "collect" / "answers.jsonl"))
    assert len({row["group_id"] for row in answers}) >= kept["items"] - 4
    (policy,) = (config.out / "loop" / "round-01" / "policy" / "run" / "checkpoints").iterdir()
    assert json.loads((policy / "rein.json").read_text())["position"]["episodes"] == kept["episodes"]


def test_the_demos_page_links_to_every_stage_and_runs_nothing(done):
    config, _ = done
    page = (config.out / "demo.html").read_text()
    links = re.findall(r'href="([^"]+)"', page.split("<body>")[1])
    assert {link.split("/")[0] for link in links} == {"corpus", "pretrain", "sft", "loop", "best-of-n", "eval"}
    assert all((config.out / link).is_file() for link in links)
    assert "<script" not in page
    assert "rein label serve" in page
    assert str(config.out) in page


def test_the_table_is_of_the_true_score(done):
    config, _ = done
    result = read_result(config.out)
    by_name = {model.name: model for model in result.models}
    assert list(by_name) == ["supervised", "best of 3", "PPO", "people"]
    answers = {name: list(read_rows(config.out / "eval" / "answers" / f"{name}.jsonl")) for name in ("sft", "ppo")}
    contexts = {row["id"]: row for row in read_rows(config.out / "prompts.jsonl")}
    means = {}
    for name, rows in answers.items():
        scores = [gold(contexts[row["id"]], text) for row in rows for text in row["texts"]]
        means[name] = sum(scores) / len(scores)
    assert by_name["supervised"].score["value"] == pytest.approx(means["sft"], abs=1e-5)
    assert by_name["PPO"].gained["value"] == pytest.approx(means["ppo"] - means["sft"], abs=1e-5)
    assert len(result.texts) > 0


def test_a_gain_is_paired_and_its_interval_over_prompts():
    def rows(*scores):
        return [{"id": str(n), "scores": {module.GOLD: list(each)}} for n, each in enumerate(scores)]

    many = gained(rows((1.0, 1.0), (2.0, 2.0), (3.0, 3.0)), rows((0.5, 0.5), (1.0, 1.0), (2.6, 2.6)))
    one_each = gained(rows((1.0,), (2.0,), (3.0,)), rows((0.5,), (1.0,), (2.6,)))
    assert many["value"] == pytest.approx(0.6333, abs=1e-4)
    assert many["low"] == pytest.approx(one_each["low"]), "a second sample that says the same tells nothing"
    assert gained(rows((1.0,)), rows((0.5,)))["low"] is None, "one prompt says nothing of others"


def test_a_demo_again_does_nothing_again(done, tiny, capsys):
    config, out = done
    with Store.open(config.out / "loop" / "labels.db") as store, store.reading() as conn:
        before = conn.scalar(select(func.max(feedback.c.seq)))
    tiny.setattr(module, "tokens_per_s", lambda training: pytest.fail("the plan was made already"))
    tiny.setattr(module, "prompts", lambda config: pytest.fail("the rows were made already"))
    demo(config)
    again = capsys.readouterr().out
    result, result_again = (text.split("held-out text")[1].split("all stages")[0] for text in (out, again))
    assert result == result_again
    with Store.open(config.out / "loop" / "labels.db") as store, store.reading() as conn:
        assert conn.scalar(select(func.max(feedback.c.seq))) == before, "nobody is asked twice"
    with pytest.raises(UserError, match="holds a demo of --minutes 1 --seed 0"):
        demo(replace(config, minutes=2.0))


def test_whoever_comes_in_by_the_link_gets_pairs_that_nobody_judged(done):
    config, _ = done
    with Store.open(config.out / "loop" / "labels.db") as store, served(store) as address, Client(address) as client:
        client.send(enter(store.write(lambda conn: invite(conn, now_ms(), "admin", person=1, life_ms=60_000))))
        cards = [card for _ in range(3) for card in client.send(claim("loop", 1))["items"]]
    assert cards
    assert all("policy" not in json.dumps(card) for card in cards)
    assert all(len(card["candidates"]) == 2 for card in cards)
    with Store.open(config.out / "loop" / "labels.db") as store, store.reading() as conn:
        rows = conn.execute(select(item).join(batch, batch.c.id == item.c.batch).where(batch.c.name == "yours")).all()
    assert {each["policy"] for row in rows for each in row.candidates} == {"initial", "round-01"}


def test_the_speed_that_the_plan_counts_on(small_corpus, tmp_path):
    (tmp_path / "corpus").symlink_to(small_corpus)
    planned = shared_out(DemoConfig(), 100.0, 100.0)
    whole = replace(
        training(DemoConfig(out=tmp_path), planned), n_layer=1, n_embd=16, n_head=1, n_ctx=16, data=small_corpus
    )
    assert tokens_per_s(whole, seconds=0.2) > 100


@given(st.floats(1e2, 1e7), st.floats(20, 3600))
def test_a_plan_fits_its_time(rate, left_s):
    planned = shared_out(DemoConfig(), rate, left_s)
    cost_s = (
        planned.train_tokens
        + module.TOKENS_A_DEMONSTRATION * (planned.demonstrations if planned.demonstrations > 200 else 0)
        + module.TOKENS_AN_EPISODE * (planned.episodes if planned.episodes > 256 else 0)
    ) / rate
    assert cost_s < left_s * (module.PRETRAIN_SHARE + module.SUPERVISED_SHARE + module.PPO_SHARE) + 1 / rate
    assert planned.episodes % module.PPO_SETTINGS["episodes_per_batch"] == 0
    assert module.FEWEST <= planned.items <= module.MOST


def test_too_little_time(capsys):
    assert main(["demo", "--minutes", "0.1"]) == 2
    assert "--minutes is 0.1" in capsys.readouterr().err
