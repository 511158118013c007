"""`rein best-of-n`: what it writes, that it goes on to the same bytes, and that the best is what is kept."""

import json

import numpy as np
import pytest

from rein import checkpoint
from rein.config import replace
from rein.errors import UserError
from rein.evals import best_of_n_command as module
from rein.evals.best_of_n import best_of_each
from rein.evals.best_of_n_command import BestOfNConfig, best_of_n
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import load_model, save_model
from rein.models.scalar import about_scalar, save_scalar, scalar_from
from rein.run import read_rows
from rein.text.prompts import FORMATS, answer_of, read_queries


def vowels(context, text):
    """A proxy: the share of letters e."""
    return text.count("e") / max(1, len(text))


def brevity(context, text):
    """A gold that has nothing to do with it."""
    return -float(len(text))


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=64, n_embd=16, n_head=2, n_layer=1)
    save_model(folder, GPT(config).initialise(0), tokenizer)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": f"say {i}:", "reference": "no", "id": f"p{i}", "split": "valid" if i % 2 else "train"}
            for i in range(6)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(model, prompts, out, /, **changes):
    plain = {"reward": f"{__name__}:vowels", "gold": f"{__name__}:brevity", "samples": 8, "response_tokens": 12,
             "temperature": 1.0, "precision": "fp32", "keep": "best", "slots": 16}  # fmt: skip
    return BestOfNConfig(**{"policy": model, "prompts": prompts, "out": out} | plain | changes)


@pytest.fixture(scope="module")
def finished(model, prompts, tmp_path_factory):
    return best_of_n(settings(model, prompts, tmp_path_factory.mktemp("best") / "out"))


def test_what_it_leaves_behind(finished):
    rows = list(read_rows(finished / "responses.jsonl"))
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(6)]
    for row in rows:
        assert len(row["texts"]) == len(row["proxy"]) == len(row["gold"]) == len(row["ended"]) == 8
        assert row["proxy"] == pytest.approx([vowels({}, text) for text in row["texts"]], abs=1e-6)
        assert row["gold"] == [brevity({}, text) for text in row["texts"]]
    found = json.loads((finished / "curve.json").read_text())
    assert [point["n"] for point in found["points"]] == list(range(1, 9))
    expected = np.mean([best_of_each(row["proxy"], row["gold"]) for row in rows], axis=0)
    assert [point["gold"]["value"] for point in found["points"]] == pytest.approx(expected.tolist())
    page = (finished / "curve.html").read_text()
    assert "Content-Security-Policy" in page
    assert page.count("<svg") == 2
    assert "nan" not in page.split("<main>")[1]


def test_what_is_kept_is_each_prompts_best_and_reads_as_a_demonstration(finished):
    rows = {row["id"]: row for row in read_rows(finished / "responses.jsonl")}
    kept = list(read_rows(finished / "demonstrations.jsonl"))
    for demonstration in kept:
        row = rows[demonstration["id"]]
        ended = [n for n in range(8) if row["ended"][n] and row["texts"][n].strip()]
        best = max(row["proxy"][n] for n in ended)
        assert vowels({}, answer_of(demonstration)) == pytest.approx(best, abs=1e-6)
        assert "reference" not in demonstration  # it would be learned in place of the response
    without = [row["id"] for row in rows.values() if not any(row["ended"])]
    assert len(kept) == 6 - len(without)
    if kept:
        queries = list(read_queries(finished / "demonstrations.jsonl", FORMATS["plain"]))
        assert [query.reference for query in queries] == [row["response"] for row in kept]


def test_it_goes_on_to_the_same_bytes(model, prompts, finished, tmp_path, monkeypatch):
    """Stopped after any batch of prompts, with a last line cut short: the same command ends with the same files."""
    monkeypatch.setattr(module, "AT_ONCE", 16)
    config = settings(model, prompts, tmp_path / "out")
    real, calls = module.respond, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "respond", failing)
        with pytest.raises(KeyboardInterrupt):
            best_of_n(config)
    path = tmp_path / "out/responses.jsonl"
    assert len(list(read_rows(path))) == 4
    path.write_bytes(path.read_bytes()[:-5])
    best_of_n(config)
    for name in ("responses.jsonl", "demonstrations.jsonl"):
        assert (finished / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    ours, theirs = (json.loads((out / "curve.json").read_text()) for out in (finished, tmp_path / "out"))
    assert ours == theirs


def test_a_larger_n_has_the_samples_of_a_smaller_one(model, prompts, finished, tmp_path):
    best_of_n(settings(model, prompts, tmp_path / "out", samples=3, keep="none", n_prompts=2))
    for few, many in zip(read_rows(tmp_path / "out/responses.jsonl"), read_rows(finished / "responses.jsonl"),
                         strict=False):  # fmt: skip
        assert few["texts"] == many["texts"][:3]
    assert not (tmp_path / "out/demonstrations.jsonl").exists()


def test_one_prompt_has_no_interval(model, prompts, tmp_path):
    out = best_of_n(settings(model, prompts, tmp_path / "out", n_prompts=1, gold="", keep="none"))
    points = json.loads((out / "curve.json").read_text())["points"]
    assert points[-1]["proxy"]["low"] is None
    assert "gold" not in points[0]
    assert "inf" not in (out / "curve.html").read_text().split("<main>")[1]


def test_unended_responses_have_the_score_that_was_given(model, prompts, tmp_path):
    out = best_of_n(settings(model, prompts, tmp_path / "out", unended="score", split="valid"))
    rows = list(read_rows(out / "responses.jsonl"))
    assert [row["id"] for row in rows] == ["p1", "p3", "p5"]
    unended = [score for row in rows for score, ended in zip(row["proxy"], row["ended"], strict=True) if not ended]
    assert unended
    assert set(unended) == {-1.0}


@pytest.mark.parametrize(("changes", "words"), [
    ({"samples": 0}, "--samples is 0, but it must be above 0"),
    ({"n_prompts": -1}, "--n-prompts is -1"),
    ({"keep": "none", "min_score": 1.0}, "--min-score is given, but nothing is kept"),
    ({"split": "test"}, "none is of split 'test'"),
    ({"response_tokens": 62}, "no room for 62 tokens"),
    ({"reward": "no.such:thing"}, "--reward is 'no.such:thing'"),
    ({"response_tokens": None}, "does not say how long a response may be"),
])  # fmt: skip
def test_what_cannot_be_is_named(model, prompts, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        best_of_n(settings(model, prompts, tmp_path / "out", **changes))


@pytest.mark.parametrize("what", ["policy", "reward", "gold"])
def test_other_weights_under_the_same_name_are_another_run(model, prompts, tokenizer, tmp_path, what):
    """Rows of two models, or scores of two judges, would be one table."""
    policy, judge = tmp_path / "policy", tmp_path / "judge"
    policy.mkdir()
    net = load_model(model)[0]
    save_model(policy, net, tokenizer)

    def save_judge(seed):
        scalar = scalar_from(load_model(model)[0], seed)
        about = {"made_by": "test", "scalar": about_scalar(scalar)}
        checkpoint.save(judge, lambda part: save_scalar(part, scalar, tokenizer), about)

    save_judge(0)
    given = {"reward": {"reward": str(judge)}, "gold": {"gold": str(judge)}}.get(what, {})
    config = settings(policy, prompts, tmp_path / "out", samples=2, n_prompts=1, keep="none", **given)
    best_of_n(config)
    best_of_n(config)
    if what == "policy":
        save_model(policy, GPT(net.config).initialise(1), tokenizer)
    else:
        save_judge(1)
    named = "The policy" if what == "policy" else str(judge)
    with pytest.raises(UserError, match=f"{named}.* has other weights now than when .*out began"):
        best_of_n(config)


def test_a_reward_model_of_another_format_is_stopped(model, prompts, tokenizer, tmp_path):
    scalar = scalar_from(load_model(model)[0], 0)
    about = {"made_by": "test", "scalar": about_scalar(scalar), "config": {"format": "tldr", "query_tokens": None}}
    checkpoint.save(tmp_path / "judge", lambda part: save_scalar(part, scalar, tokenizer), about)
    with pytest.raises(UserError, match=r"--reward .*judge was trained on queries of --format tldr, but they are"):
        best_of_n(settings(model, prompts, tmp_path / "out", reward=str(tmp_path / "judge")))


def test_other_prompts_are_another_run(model, prompts, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(prompts.read_bytes())
    config = settings(model, path, tmp_path / "out", n_prompts=2)
    best_of_n(config)
    path.write_text(path.read_text().replace("say 1", "say one"))
    with pytest.raises(UserError, match="p1 asks something else"):
        best_of_n(config)
    with pytest.raises(UserError, match="other settings"):
        best_of_n(replace(config, n_prompts=3))
