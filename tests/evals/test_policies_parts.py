"""What policies are measured by besides their answers: released texts, people in a store, tasks and held-out text."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.evals.policies import PoliciesConfig, policies_command
from rein.evals.policies_answers import Said, written_already
from rein.evals.policies_measures import duels, habits, measure
from rein.evals.policies_people import adjusted, axis_means, from_people, marks_in
from rein.evals.policies_samples import read_samples
from rein.evals.policies_tax import bits_per_byte, tax
from rein.evals.statistics import summarise
from rein.feedback.draw import REFERENCE
from rein.feedback.store import Store
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import load_model, save_model
from rein.text.prompts import FORMATS, Query

sys.path.insert(0, str(Path(__file__).parent.parent / "feedback"))
from exchanging import Exchange, axes, comparison

HEAD = "model_type,context,ref_text,sample\n"


def query(n, reference="a cat"):
    return Query({"prompt": f"q{n}"}, f"q{n}", reference, f"q{n}", "test", f"f:{n}")


def said(name, *texts, **scores):
    rows = [{"texts": None if some is None else list(some),
             "scores": {} if some is None else {judge: [of[text] for text in some] for judge, of in scores.items()}}
            for some in texts]  # fmt: skip
    return Said(name, rows)


# ------------------------------------------------------------------------------------------------- released texts


def test_a_file_of_samples_is_read_by_context(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text(HEAD + 'a,"one\nTL;DR:",r1,x\nb,"one\nTL;DR:",r1,y\nb,two,r2,z\n')
    queries, texts = read_samples(path)
    assert [(one.text, one.reference) for one in queries] == [("one\nTL;DR:", "r1"), ("two", "r2")]
    assert texts == {"a": [["x"], None], "b": [["y"], ["z"]]}
    out = policies_command(PoliciesConfig(policies=(), out=tmp_path / "out", samples=path))
    found = json.loads((out / "policies.json").read_text())
    assert (found["prompts"], found["against"], found["left_out"]) == (1, "a", {"a: no text": 1})
    with pytest.raises(UserError, match="--against is 'c'"):
        policies_command(PoliciesConfig(policies=(), out=tmp_path / "out2", samples=path, against="c"))


@pytest.mark.parametrize(("text", "words"), [
    (None, "There is no file"),
    ("a,b\n1,2\n", "has no column model_type, context, ref_text, sample"),
    (HEAD, "has no rows"),
    (HEAD + "a,one,r1\n", "line 2, is cut short"),
    (HEAD + "a,one,r1,x\nb,one,r2,y\n", "another reference than"),
    (HEAD + 'a,"one"x,r1,x\n', "is no CSV file"),
])  # fmt: skip
def test_what_is_no_file_of_samples_is_named(tmp_path, text, words):
    path = tmp_path / "samples.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_samples(path)


def test_the_released_samples_of_instructgpt(shared_data):
    queries, texts = read_samples(shared_data / "feedback/instructgpt_tldr_samples.csv")
    assert (len(queries), len(texts)) == (100, 12)
    assert all(some is not None and len(some) == 1 for of in texts.values() for some in of)
    some = [Said(name, [{"texts": one} for one in texts[name]]) for name in ("sft-175b", "ppo-ptx-175b")]
    sft, ppo = measure(some, queries, [], "sft-175b")["policies"]
    assert sft["rouge"]["rouge_l"]["value"] == pytest.approx(0.159, abs=5e-4)
    assert ppo["rouge"]["rouge_l"]["value"] == pytest.approx(0.114, abs=5e-4)
    assert sft["lengths"]["characters"]["high"] < ppo["lengths"]["characters"]["low"]
    assert sft["habits"]["copied_post_frac"]["low"] > ppo["habits"]["copied_post_frac"]["high"]
    assert [words[:24] for words in ppo["findings"]] == ["Responses became longer "]


# ---------------------------------------------------------------------------------------------------------- measures


def test_a_duel_is_over_what_both_have_and_the_judge_could_read():
    of = {"good": 1.0, "bad": -1.0, "long": None}
    a = said("a", ["good", "bad"], ["good"], ["long"], None, judge=of)
    b = said("b", ["good"], ["bad"], ["good"], ["good"], judge=of)
    ref = said(REFERENCE, ["bad"], None, ["bad"], ["bad"], judge=of)
    found = {(one.policy, one.against): one for one in duels([a, b, ref], range(4), list(map(query, range(4))),
                                                             ["judge"], "b")}  # fmt: skip
    assert found["a", "b"].wins == [0.5, 0.0, 1.0]  # the single text of b meets both of a's
    assert found["a", "b"].clusters == ["q0", "q0", "q1"]
    assert found["a", REFERENCE].wins == [1.0, 0.5]
    assert found["b", REFERENCE].wins == [1.0, 1.0, 1.0]
    assert ("b", "b") not in found


def test_habits_of_several_texts_a_prompt_count_prompts():
    """Twice the same text says no more than once."""
    texts = [["a b c d"], ["a b a b"], ["c c c c"]]
    once, twice = said("once", *texts), said("twice", *(some * 2 for some in texts))
    queries = list(map(query, range(3)))
    one, two = (habits(each, range(3), queries) for each in (once, twice))
    assert "no_eot_frac" not in one  # nobody knows
    for name in ("repeated_frac", "copied_post_frac", "response_tokens"):
        assert two[name] == one[name]
    assert one["repeated_frac"].value == pytest.approx((0 + 0.5 + 0.75) / 3)


def test_texts_that_a_judge_cannot_read_have_no_score(tmp_path, tokenizer):
    from rein.models.scalar import save_scalar, scalar_from

    config = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=16, n_embd=16, n_head=2, n_layer=1)
    (tmp_path / "reward").mkdir()
    save_scalar(tmp_path / "reward", scalar_from(GPT(config).initialise(0), 0), tokenizer)
    spec = str(tmp_path / "reward")
    found = written_already(
        "ref", [["x"], [""], ["so long " * 20], None], list(map(query, range(4))), [spec], FORMATS["plain"],
        device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip
    assert [row.get("scores", {}).get(spec) is None for row in found.rows] == [False, False, False, True]
    assert [isinstance(row["scores"][spec][0], float) for row in found.rows[:3]] == [True, False, False]
    assert found.scored(spec) == [0]


# ------------------------------------------------------------------------------------------------------------ people


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 2), st.integers(0, 5)), min_size=3, max_size=20))
@settings(max_examples=30, deadline=None)
def test_without_lengths_an_adjusted_mean_of_one_group_is_the_mean_with_its_interval(marks):
    y = [float(mark) for mark, _, _ in marks]
    topics = [str(topic) for _, _, topic in marks]
    (one,), slope = adjusted(y, [0] * len(y), np.zeros(len(y)), topics)
    plain = summarise(y, clusters=topics, bounded=False)
    assert slope == 0
    assert (one.value, one.low, one.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-9)


def test_adjusted_means_are_those_of_least_squares_and_cover_the_truth():
    """y = 4 + group + 0.5 x + noise of topics: the slope is found, and 95% intervals hold the truth so often."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        topic = np.repeat(np.arange(30), 4)
        group, x = np.tile([0, 1], 60), rng.normal(size=120) + np.tile([0, 1], 60)
        y = 4 + group + 0.5 * x + rng.normal(size=30)[topic] + 0.3 * rng.normal(size=120)
        means, slope = adjusted(y, group, x, list(map(str, topic)))
        design = np.column_stack([group == 0, group == 1, x])
        expected = np.linalg.lstsq(design.astype(float), y, rcond=None)[0]
        assert [means[0].value, means[1].value, slope] == pytest.approx(expected.tolist())
        held += means[1].low <= 5 <= means[1].high
    assert 180 <= held <= 199  # of 200: 95% is 190, ± 3 standard deviations of 3.1


@pytest.fixture
def exchange(tmp_path):
    store = Store.open(str(tmp_path / "labels.db"), create=True)
    yield Exchange(store, tmp_path, "p")
    store.close()


def test_people_prefer_and_mark_the_policies_of_a_store(exchange, tmp_path):
    rows = [comparison(f"post {n}", texts=(f"{n} " * 4, f"{n} "), choice=int(n == 0), worker=f"w{n % 2}",
                       confidence=8 if n == 0 else 2) for n in range(5)]  # fmt: skip
    exchange.put(rows)
    wins, likert = from_people(exchange.store.address, "p", (), "sup4_ppo_rm3_kl10")
    assert [(one["policy"], one["against"], one["by"], one["raw"]["value"]) for one in wins] == [
        ("sup4_ppo_rm3_kl10", "ref", "people", pytest.approx(0.8))
    ]
    assert likert == []
    out = policies_command(PoliciesConfig(policies=(), out=tmp_path / "out", store=exchange.store.address, project="p"))
    assert json.loads((out / "policies.json").read_text())["wins"] == wins
    assert "people" in (out / "policies.html").read_text()
    with pytest.raises(UserError, match="--project"):
        from_people(exchange.store.address, "q", (), "")


def test_marks_are_those_given_and_at_the_length_of_the_references(exchange):
    def marked(post, policy, text, overall):
        marks = {"overall": overall, "accuracy": 5, "coverage": 4, "coherence": 2}
        return axes(info={"id": post, "site": "s", "title": post, "article": "An article."},
                    summary={"text": text, "policy": policy, "note": None, "axes": marks})  # fmt: skip

    texts = [("x" * 9, 2), ("x" * 99, 4), ("x" * 9, 2), ("x" * 99, 4)]
    exchange.put([marked(f"p{n}", policy, text, mark + bonus) for policy, bonus in (("ref", 0), ("ppo", 1))
                  for n, (text, mark) in enumerate(texts[: 2 if policy == "ref" else 4])] +
                 [marked("p9", "ppo", "x" * 99, 5)])  # fmt: skip
    marks = marks_in(exchange.store.address, "p")
    found = {(one["policy"], one["axis"]): one for one in axis_means(marks)}
    assert len(found) == 8
    ppo = found["ppo", "overall"]
    assert (ppo["marks"], ppo["raw"]["value"]) == (5, pytest.approx((3 + 5 + 3 + 5 + 5) / 5))
    assert ppo["controlled"]["value"] == pytest.approx(4)  # mark = 1 + 2 · lg(length): at the references' mean
    assert found["ref", "overall"]["controlled"]["value"] == pytest.approx(3)


# --------------------------------------------------------------------------------------------------------------- tax


@pytest.fixture(scope="module")
def models(small_corpus, tmp_path_factory):
    from rein.bpe.tokenizer import load_tokenizer

    root, tokenizer = tmp_path_factory.mktemp("models"), load_tokenizer(small_corpus)
    config = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=64, n_embd=16, n_head=2, n_layer=1)
    for seed, name in enumerate(("sft", "ppo")):
        (root / name).mkdir()
        save_model(root / name, GPT(config).initialise(seed), tokenizer)
    return {name: root / name for name in ("ppo", "sft")}


def test_the_tax_on_tasks_and_text(models, small_corpus, tmp_path, monkeypatch):
    rows = [{"context": f"{n} or {n + 1}?\nAnswer:", "choices": [str(n), str(n + 1)], "gold": n % 2} for n in range(6)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"out": tmp_path / "tax", "tasks": (str(tmp_path / "mine.jsonl"),), "data": (), "limit": 4,
             "corpus": small_corpus, "documents": 3, "device": "cpu", "precision": "fp32"}  # fmt: skip
    found = tax(models, "sft", **asked)
    assert [(one["policy"], one["n"], one["difference"] is None) for one in found["tasks"]] == [
        ("sft", 4, True), ("ppo", 4, False)
    ]  # fmt: skip
    sft, ppo = found["text"]
    assert (sft["policy"], sft["difference"]) == ("sft", None)
    change = ppo["bits_per_byte"]["value"] - sft["bits_per_byte"]["value"]
    assert ppo["difference"]["value"] == pytest.approx(change)

    from rein.evals import policies_tax
    from rein.evals.perplexity import score_text
    from rein.text.shards import Shards

    model, tokenizer = load_model(models["sft"])
    shards = Shards(small_corpus, "heldout")
    texts = [tokenizer.decode(shards.document(n)[:-1]) for n in range(min(3, shards.n_documents))]
    scores = [score_text(model, tokenizer, text) for text in texts]
    expected = bits_per_byte(np.array([[one.nats, one.n_bytes] for one in scores]))
    assert sft["bits_per_byte"]["value"] == pytest.approx(expected)
    assert sft["documents"] == len(texts)

    monkeypatch.setattr(policies_tax, "score_text", None)  # what is there is not computed again
    assert tax(models, "sft", **asked) == found


def test_the_command_shows_the_tax(models, small_corpus, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "say"}\n{"prompt": "more"}\n')
    out = policies_command(PoliciesConfig(
        out=tmp_path / "out", policies=tuple(f"{name}={path}" for name, path in models.items()), against="sft",
        prompts=tmp_path / "prompts.jsonl", response_tokens=4, tax_text=small_corpus, tax_documents=1,
    ))  # fmt: skip
    found = json.loads((out / "policies.json").read_text())
    assert [one["policy"] for one in found["tax"]["text"]] == ["sft", "ppo"]
    assert found["tax"]["text"][1]["difference"]["low"] is None  # of one document
    assert "Alignment tax" in (out / "policies.html").read_text()
    assert found["wins"] == []  # there is no judge


def test_a_tax_on_what_cannot_be_read_is_named_with_why(models, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"question": "?", "choices": ["a", "b"], "gold": 0}\n')
    for task, why in (("piqa", "piqa: "), (str(tmp_path / "mine.jsonl"), "mine: .*context")):
        with pytest.raises(UserError, match=f"No task of --tax could be evaluated: {why}"):
            tax(models, "sft", out=tmp_path / "tax", tasks=(task,), data=(), limit=1, corpus=None, documents=1,
                device="cpu", precision="fp32")  # fmt: skip
