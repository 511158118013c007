"""Inside lm-evaluation-harness our model gives what lm-eval's own `hf` model gives on the same weights."""

import json
import sys

import pytest
from random_gpt2 import save_random_gpt2

from rein.errors import UserError

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of lm-eval's own dependencies

N_CTX = 48


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return save_random_gpt2(tmp_path_factory.mktemp("gpt2"), tokenizer, n_ctx=N_CTX)


@pytest.fixture(scope="module")
def ours(folder):
    from rein.evals.harness import ReinLM

    return ReinLM(str(folder), device="cpu")


@pytest.fixture(scope="module")
def theirs(folder):
    from lm_eval.models.huggingface import HFLM

    # Its cache of logits mixes up windows of equal tokens that are split differently, as a periodic text has.
    return HFLM(str(folder), device="cpu", dtype="float32", batch_size=3, logits_cache=False)


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


LONG = "the quick brown fox, jumps over 13 lazy dogs; " * 8
PAIRS = [
    ("Question: is it so?\nAnswer:", " yes"),
    ("Question: is it so?\nAnswer:", " no, not at all"),
    ("Question: is it so?\nAnswer: ", "yes"),  # its space belongs to the continuation
    ("Question: is it so?\nAnswer: \n ", "yes"),
    ("", "a text behind nothing"),
    ("", " "),
    ("a", "b, and c"),
    ("Is it wor", "d or not"),  # a boundary that tokens may cross
    (LONG, " and so on"),  # cut from the left
    (LONG, " and then the rest of it, which is rather long"),
    (LONG + "x", " and so on"),
    ("it's 2.5 €, naïve", " — 漢字 🙂"),
]


def test_log_likelihoods_are_those_of_hf(ours, theirs):
    found = ours.loglikelihood(requests("loglikelihood", *PAIRS))
    expected = theirs.loglikelihood(requests("loglikelihood", *PAIRS))
    for pair, (logprob, greedy), (their_logprob, their_greedy) in zip(PAIRS, found, expected, strict=True):
        assert logprob == pytest.approx(their_logprob, abs=1e-4), pair
        assert greedy == their_greedy, pair


def test_a_continuation_without_tokens(ours):
    with pytest.raises(UserError, match="has no tokens of its own"):
        ours.loglikelihood(requests("loglikelihood", ("Question", "")))


def test_a_greedy_continuation_is_marked(ours, theirs):
    (text,) = theirs.generate_until(requests("generate_until", ("def f", {"until": [], "max_gen_toks": 4})))
    pairs = [("def f", text), ("def f", text[:-1] + "Z")]
    marks = [[greedy for _, greedy in lm.loglikelihood(requests("loglikelihood", *pairs))] for lm in (ours, theirs)]
    assert marks[0] == marks[1]


@pytest.mark.parametrize("text", ["short", LONG, LONG * 3, "é" * 200, "a b" * (N_CTX // 2)])
def test_rolling_log_likelihoods_are_those_of_hf(ours, theirs, text):
    found = ours.loglikelihood_rolling(requests("loglikelihood_rolling", (text,), ("between",), (text + ".",)))
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", (text,), ("between",), (text + ".",)))
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-6)


@pytest.mark.parametrize("until", [[], ["e"], ["zzz", " t", "\n"]])
def test_greedy_texts_are_those_of_hf(ours, theirs, until):
    asked = [(text, {"until": list(until), "max_gen_toks": 12}) for text in ("def f", "the quick brown", LONG, "a")]
    asked += [("another", {"until": ["a"], "max_gen_toks": 5, "temperature": 0.0})]
    found = ours.generate_until(requests("generate_until", *asked))
    assert found == theirs.generate_until(requests("generate_until", *asked))
    assert any(found)


def test_sampled_texts_differ_from_greedy_ones_and_do_not_depend_on_the_batch(ours):
    options = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 2.0}
    asked = requests("generate_until", *[(text, options) for text in ("def f", "the", LONG)])
    together = ours.generate_until(asked)
    assert together[0] == ours.generate_until(asked[:1])[0]
    assert together[0] != ours.generate_until(requests("generate_until", ("def f", {"max_gen_toks": 12})))[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_beams": 4}, "asks for num_beams"), ({"max_gen_toks": N_CTX}, f"max_gen_toks={N_CTX} leaves no room")],
)
def test_what_it_does_not_have_it_names(ours, options, words):
    with pytest.raises(UserError, match=words):
        ours.generate_until(requests("generate_until", ("a", options)))


def test_lm_eval_runs_a_task_with_both_and_prints_the_same_scores(folder, tmp_path, monkeypatch, capsys):
    """Through lm-eval's own command line, on a task of four questions that stands in a folder."""
    from rein.evals import harness

    rows = [{"question": f"What is {n} plus {n}?", "choices": ["seven", "eight", "9"], "gold": n % 3} for n in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/sums.jsonl\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{question}}\\nAnswer:'\n"
        "doc_to_choice: choices\ndoc_to_target: gold\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n"
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tables = []
    for model in (f"rein --model_args checkpoint={folder}", f"hf --model_args pretrained={folder},dtype=float32"):
        line = f"lm_eval --model {model} --tasks sums --include_path {tmp_path}"
        monkeypatch.setattr(sys, "argv", line.split())
        harness.main()
        tables.append([row for row in capsys.readouterr().out.splitlines() if row.startswith("|") and "acc" in row])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2
