"""evaluate.py, answering.py, measure.py: problems in, scores out; shared, interrupted, asked anew, and broken."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rein import checkpoint
from rein.cli import main
from rein.errors import UserError
from rein.evals.answering import Answerer, Failed, choose
from rein.evals.data import BadRow, Data, Row
from rein.evals.evaluate import evaluate, stop_tokens
from rein.evals.language_model import Ours
from rein.evals.measure import Tally
from rein.evals.printing import table
from rein.evals.prompts import Prompter, curve, settings_of
from rein.evals.responses import Responses
from rein.evals.task import Answer, Problem, Task, free_form, multiple_choice
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model

WORDS = "the cat sat on a mat and saw that dog run to its red house by noon".split()  # noqa: SIM905


def made(tokenizer, **more):
    model = GPT(GPTConfig(tokenizer.n_vocab, **{"n_ctx": 160, "n_embd": 32, "n_head": 4, "n_layer": 2, **more}))
    with torch.no_grad():
        for parameter in model.initialise(1).parameters():  # sharper than at the start
            parameter.mul_(3.0) if parameter.dim() > 1 else None
    return model.eval()


@pytest.fixture(scope="module")
def model(tokenizer):
    return Ours(made(tokenizer), tokenizer, name="tiny")


def questions(split, n, *, bad=()):
    rng = np.random.default_rng({"train": 0, "dev": 1, "test": 2}[split])
    for at in range(n):
        words = rng.choice(WORDS, 9).tolist()
        yield Row({"words": words, "gold": int(rng.integers(3))} if at not in bad else {}, f"{split}:{at}")


def ask(row):
    words = row["words"]
    if row["gold"] > 2:
        raise BadRow(f"{row.where}: its answer is {row['gold']}")
    options = [" ".join(words[at : at + 2]) for at in (3, 5, 7)]
    yield multiple_choice(
        row.where, f"Question: {' '.join(words[:3])}\nAnswer:", options, row["gold"], passage=words[0]
    )


CHOICE = Task("toy", "Toy", lambda data, split: questions(split, 40), ask, shots=4, published="PIQA")
BY_ANSWER = replace(CHOICE, name="toy_answer", normalise="answer")


@pytest.fixture
def run(tmp_path, model):
    def _run(tasks, *, lm=model, responses="responses.sqlite", out="out", **more):
        folder = tmp_path / out
        folder.mkdir(exist_ok=True)
        with Responses(tmp_path / responses) as kept:
            return evaluate(lm, tasks, data=Data(), responses=kept, out=folder, **more)

    return _run


def answers_of(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text("utf-8").splitlines()]


def plainly(lm, asked):
    """log P of each completion, its sequence alone through the model in float64: no tree, no batch, no sharing."""
    model = GPT(lm.model.config).double()
    model.load_state_dict({name: value.double() for name, value in lm.model.state_dict().items()})
    found = []
    for context, completion in asked.options:
        logits_TV = model.eval()(torch.tensor([[*context, *completion[:-1]]]))[0]
        logprobs_TV = torch.log_softmax(logits_TV.double(), dim=-1)
        at = range(len(context) - 1, len(context) + len(completion) - 1)
        found.append(sum(logprobs_TV[t, token].item() for t, token in zip(at, completion, strict=True)))
    return found


# ----------------------------------------------------------------------------------------------- sharing


@pytest.mark.parametrize("draws", [None, 1, 3])
@pytest.mark.parametrize("shape", [{}, {"attention": "banded", "band": 16}, {"norm": "post"}])
def test_shared_scores_are_those_of_plain_sequences(tmp_path, tokenizer, shape, draws):
    lm = Ours(made(tokenizer, **shape), tokenizer, name="tiny")
    examples = [one for row in questions("train", 20) for one in ask(row)]
    prompter = Prompter(lm, CHOICE, examples, draws=draws)
    asked = [one for row in questions("test", 12) for p in ask(row) for one in prompter.ask(p, [0, 1, 2, 4])]
    with Responses(tmp_path / "r.sqlite") as kept:
        found = list(Answerer(lm, CHOICE, kept, batch_tokens=600).answer(asked, lambda _: None))
    for one, answer in zip(asked, found, strict=True):
        expected = plainly(lm, one)
        np.testing.assert_allclose(answer.logprobs, expected, atol=5e-4)
        assert answer.choice == choose(CHOICE, one.problem, expected, answer.n_tokens)


def test_scores_do_not_depend_on_the_batch(run):
    small, large = (run([CHOICE], out=f"o{n}", responses=f"r{n}", batch_tokens=n) for n in (1, 100_000))
    for a, b in zip(small["tasks"], large["tasks"], strict=True):
        assert [row["value"] for row in a["scores"]] == [row["value"] for row in b["scores"]]


def test_the_answer_context_is_divided_out(tmp_path, model):
    asked = [
        one for row in questions("test", 10) for p in ask(row) for one in Prompter(model, BY_ANSWER, []).ask(p, [0])
    ]
    with Responses(tmp_path / "r.sqlite") as kept:
        found = list(Answerer(model, BY_ANSWER, kept, batch_tokens=600).answer(asked, lambda _: None))
    context = tuple(model.encode("Answer:"))
    for one, answer in zip(asked, found, strict=True):
        behind = plainly(model, replace(one, options=tuple((context, completion) for _, completion in one.options)))
        np.testing.assert_allclose(answer.answer_logprobs, behind, atol=5e-4)
        assert answer.choice == np.argmax(np.array(answer.logprobs) - np.array(answer.answer_logprobs))


def test_a_curve_is_what_each_number_of_shots_gives_alone(run):
    together = run([CHOICE], shots=["curve"], out="a", responses="a.sqlite")["tasks"][0]["scores"]
    apart = [
        run([CHOICE], shots=[str(k)], out="b", responses="b.sqlite")["tasks"][0]["scores"][0] for k in (0, 1, 2, 4)
    ]
    assert [row["k"] for row in together] == [0, 1, 2, 4]
    assert [row["value"] for row in together] == [row["value"] for row in apart]


def test_of_equal_options_the_first_is_chosen():
    problem = multiple_choice("p", "Q", ["same", "same", "other"], 1)
    assert choose(CHOICE, problem, [-2.0, -2.0, -9.0], [1, 1, 1]) == 0


@pytest.mark.parametrize(
    ("normalise", "expected"), [("none", 0), ("token", 1), ("character", 2), ("answer", 3)]
)  # fmt: skip
def test_each_normalisation_chooses_its_own(normalise, expected):
    problem = multiple_choice("p", "Q", ["ab", "abcd", "x" * 30, "ab"], 1)
    logprobs, n_tokens, behind = [-3.0, -4.0, -8.0, -5.0], [1, 4, 2, 1], [-1.0, -1.0, -7.0, -9.0]
    assert choose(replace(CHOICE, normalise=normalise), problem, logprobs, n_tokens, behind) == expected


# ------------------------------------------------------------------------------- kept, interrupted, asked anew


class Counting:
    """The model, counting what it is asked, and failing after a while."""

    def __init__(self, inner, after=math.inf):
        self._inner, self.left, self.calls = inner, after, 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def score(self, trees, forbidden=()):
        if self.left <= 0:
            raise KeyboardInterrupt
        self.left, self.calls = self.left - 1, self.calls + 1
        return self._inner.score(trees, forbidden)


def test_nothing_is_asked_twice(run, model):
    first, second = Counting(model), Counting(model)
    assert run([CHOICE], lm=first) == run([CHOICE], lm=second)
    assert first.calls > 0
    assert second.calls == 0


def test_an_interrupted_evaluation_goes_on(run, model, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run([CHOICE], lm=Counting(model, after=3), batch_tokens=200)
    rest, whole = Counting(model), Counting(model)
    found = run([CHOICE], lm=rest, batch_tokens=200)
    expected = run([CHOICE], lm=whole, batch_tokens=200, out="other", responses="other.sqlite")
    assert found == expected
    assert answers_of(tmp_path / "out") == answers_of(tmp_path / "other")
    assert rest.calls == whole.calls - 3


def test_another_model_is_not_taken_for_this_one(run, tokenizer):
    a, b = (Ours(made(tokenizer, n_layer=n), tokenizer, name="same") for n in (1, 2))
    first = run([CHOICE], lm=a)["tasks"][0]["scores"]
    counted = Counting(b)
    run([CHOICE], lm=counted)
    assert counted.calls > 0
    assert a.fingerprint != b.fingerprint != Ours(b.model, tokenizer, name="b", precision="bf16").fingerprint
    assert first


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "r").write_text("not a database, and long enough to be seen as none" * 20)
    with pytest.raises(UserError, match="cannot be used: file is not a database"):
        Responses(tmp_path / "r")


# ---------------------------------------------------------------------------------------------- what is wrong


def test_a_bad_row_is_reported_and_the_rest_is_scored(run):
    task = replace(CHOICE, read=lambda data, split: questions(split, 10, bad=(3,) if split == "test" else ()))
    (entry,) = run([task])["tasks"]
    assert entry["failed"] == [{"id": "test:3", "k": 0, "reason": "it has no 'words'"}]
    assert [row["n"] for row in entry["scores"]] == [9, 9, 9]


def test_a_problem_that_does_not_fit_is_reported_and_the_rest_is_scored(run):
    def ask_long(row):
        for problem in ask(row):
            yield (
                replace(problem, options=tuple(replace(o, context="word " * 400) for o in problem.options))
                if (row.where == "test:2")
                else problem
            )

    (entry,) = run([replace(CHOICE, ask=ask_long)])["tasks"]
    assert entry["failed_count"] == 1
    assert "tokens too long for the model's context of 160" in entry["failed"][0]["reason"]
    assert {row["n"] for row in entry["scores"]} == {39}


def test_numbers_that_are_not_finite_are_reported_and_asked_anew(run, tokenizer):
    broken = made(tokenizer)
    with torch.no_grad():
        broken.wte[tokenizer.encode(" dog").tolist()[0]] = float("nan")
    broken_lm = Ours(broken, tokenizer, name="broken")
    (entry,) = run([CHOICE], lm=broken_lm, shots=["0"])["tasks"]
    assert 0 < entry["failed_count"] <= 40
    assert entry["failed"][0]["reason"] == "the model gives numbers that are not finite"
    again = Counting(broken_lm)
    run([CHOICE], lm=again, shots=["0"])
    assert again.calls > 0


def test_a_task_without_its_files_is_left_out_and_named(run):
    def nothing(data, split):
        return [Row({}, str(data.need("toy/test.jsonl")))]

    found = run([replace(CHOICE, name="absent", read=nothing), CHOICE])
    assert [entry["task"] for entry in found["tasks"]] == ["toy"]
    assert found["skipped"] == [
        {"task": "absent", "reason": "toy/test.jsonl is not in no folder (--data is not given).", "no_files": True}
    ]
    assert "left out: absent." in table(found)


def test_without_a_train_set_the_zero_shot_score_is_there(run):
    def read(data, split):
        if split == "train":
            raise UserError("there is no train file.", "Add it.")
        return questions(split, 10)

    found = run([replace(CHOICE, read=read)])
    assert [row["k"] for row in found["tasks"][0]["scores"]] == [0]
    assert found["skipped"] == [{"task": "toy", "reason": "no shots: there is no train file."}]


# ------------------------------------------------------------------------------------------------------ shots


def test_k_is_chosen_on_dev_and_run_once_on_test(run, tmp_path):
    (entry,) = run([CHOICE], shots=["dev"])["tasks"]
    on_dev = {row["k"]: row["value"] for row in entry["dev"]}
    assert set(on_dev) == {0, 1, 2, 4}
    assert on_dev[entry["chosen_k"]] == max(on_dev.values())
    assert entry["chosen_k"] == min(k for k, value in on_dev.items() if value == max(on_dev.values()))
    (row,) = entry["scores"]  # and nothing else
    assert (row["setting"], row["k"]) == ("chosen", entry["chosen_k"])
    assert {answer["k"] for answer in answers_of(tmp_path / "out") if answer["split"] == "test"} == {row["k"]}


def test_without_a_dev_set_k_is_not_chosen_and_that_is_said(run):
    found = run([replace(CHOICE, chosen_on=None)], shots=["dev", "zero"])
    assert found["skipped"] == [{"task": "toy", "reason": "K cannot be chosen: the task has no split for it"}]
    assert [row["k"] for row in found["tasks"][0]["scores"]] == [0]


def test_effective_k_is_reported(run):
    (entry,) = run([CHOICE], shots=["30"])["tasks"]
    (row,) = entry["scores"]
    assert 0 < row["effective_k_min"] <= row["effective_k_mean"] < 30


def test_shared_draws_tell_how_far_they_lie_apart(run):
    (entry,) = run([replace(CHOICE, read=lambda data, split: questions(split, 200))], shots=["2"], draws="8")["tasks"]
    assert entry["scores"][0]["draw_sd"] is not None
    (entry,) = run([CHOICE], shots=["2"])["tasks"]
    assert entry["scores"][0]["draw_sd"] is None


def test_settings_have_the_papers_names():
    assert settings_of(CHOICE, ["paper"]) == {0: "zero", 1: "one", 4: "few"}
    assert settings_of(replace(CHOICE, shots=0), ["paper"]) == {0: "zero"}
    assert settings_of(replace(CHOICE, shots=1), ["paper"]) == {0: "zero", 1: "one"}
    assert settings_of(CHOICE, ["3", "curve"]) == {3: "curve", 0: "zero", 1: "one", 2: "curve", 4: "few"}
    assert curve(5) == [0, 1, 2, 4, 5]


# -------------------------------------------------------------------------------------------- other ways to ask


def test_written_answers_are_cut_at_the_stop(run, model, tmp_path):
    task = Task(
        "words", "Words", lambda data, split: questions(split, 6),
        lambda row: [free_form(row.where, f"Q: {row['words'][0]}\n\nA:", ["x"])], ("exact_match",), max_new_tokens=5,
    )  # fmt: skip
    for decode in ("beam", "greedy", "top2"):
        found = run([replace(task, decode=decode)], out=decode)["tasks"][0]
        assert found["scores"][0]["n"] == 6
        rows = answers_of(tmp_path / decode)
        assert all("\n" not in row["text"] for row in rows)
        assert run([replace(task, decode=decode)], out="again", responses="again.sqlite")["tasks"][0] == found
        assert answers_of(tmp_path / "again") == rows


def test_what_is_sampled_does_not_depend_on_its_neighbours(run, tmp_path):
    def written(ids):
        task = Task(
            "words", "Words", lambda data, split: [Row({}, f"r{at}") for at in ids],
            lambda row: [free_form(row.where, f"Q: {row.where * int(row.where[1:])}", ["x"])], ("exact_match",),
            decode="top2", max_new_tokens=8, stop="",
        )  # fmt: skip
        run([task], out="o", responses=f"{len(ids)}.sqlite")
        return {row["id"]: row["text"] for row in answers_of(tmp_path / "o")}

    assert written([3]) == {"r3": written(range(1, 12))["r3"]}


def test_choices_can_be_answered_in_words(run, tmp_path):
    (entry,) = run([CHOICE], shots=["0"], in_words=True)["tasks"]
    assert entry["scores"][0]["n"] == 40
    assert all(row["text"] is not None for row in answers_of(tmp_path / "out"))


def test_a_text_is_scored_whole(run, model):
    text = " ".join(WORDS * 30)
    task = Task(
        "text", "Text", lambda data, split: [Row(text, "t")],
        lambda row: [Problem("t", text=row.values, units=len(WORDS) * 30)], ("perplexity", "bits_per_byte"),
    )  # fmt: skip
    perplexity, bits = run([task])["tasks"]
    nats, _ = model.read(text, "t")
    assert perplexity["scores"][0]["value"] == pytest.approx(math.exp(nats / (len(WORDS) * 30)))
    assert bits["scores"][0]["value"] == pytest.approx(nats / math.log(2) / len(text))
    json.dumps(perplexity, allow_nan=False)


def test_three_scorings_of_a_last_word(tmp_path, model):
    """The greedy continuation is right by all three; one whose last token alone is greedy by one."""
    prompt = model.encode("the cat sat on")
    ids = prompt[:]
    for _ in range(3):
        ids.append(int(model.model(torch.tensor([ids]))[0, -1].argmax()))
    greedy = ids[len(prompt) :]
    first = int(model.model(torch.tensor([prompt]))[0, -1].argsort()[-2])
    last = int(model.model(torch.tensor([[*prompt, first]]))[0, -1].argmax())
    asked = replace(
        Prompter(model, CHOICE, []).ask(multiple_choice("p", "the", ["a", "b"], 0), [0])[0],
        options=((tuple(prompt), tuple(greedy)), (tuple(prompt), (first, last))),
    )
    with Responses(tmp_path / "r.sqlite") as kept:
        answerer = Answerer(model, CHOICE, kept, batch_tokens=100, forbidden=frozenset([greedy[0]]))
        (answer,) = answerer.answer([asked], lambda _: None)
    assert answer.greedy == (True, False)
    assert answer.greedy_last == (True, True)
    assert answer.greedy_filtered == (False, True)
    assert answer.last_logprobs[1] == pytest.approx(
        torch.log_softmax(model.model(torch.tensor([[*prompt, first]]))[0, -1], -1)[last].item(), abs=1e-5
    )


def test_stop_tokens_are_whole_words_behind_a_space(shared_data, tokenizer):
    from rein.bpe.byte_level import from_openai

    folder = shared_data / "tokenizers" / "gpt2"
    lm = Ours(made(tokenizer), tokenizer, name="x")
    lm.tokenizer = from_openai(folder / "encoder.json", folder / "vocab.bpe")
    words = {lm.decode([token]) for token in stop_tokens(lm)}
    assert {" the", " The", " of", " they"} < words
    assert " house" not in words


# --------------------------------------------------------------------------------------------------- the table


def test_problems_of_a_question_are_right_together():
    task = replace(CHOICE, metrics=("multirc_accuracy",))
    tally = Tally(task, "dev")
    for question, right in (("q1", [1, 1]), ("q2", [1, 0]), ("q3", [0, 0])):
        for at, gold in enumerate(right):
            problem = multiple_choice(f"{question}/{at}", "Q", ["[True] x", "[False] x"], 0, question=question)
            tally.add(Answer(problem, 0, 0, choice=0 if gold else 1))
    (entry,) = tally.entries("gpt3", None, 1e8, {0: ["zero"]})
    assert entry["scores"][0]["value"] == pytest.approx(1 / 3)
    assert entry["scores"][0]["n"] == 3


@pytest.mark.parametrize(("golds", "chance"), [([0, 0, 0, 1] * 6, 0.75), ([0, 1] * 12, 0.5), ([0, 0, 0, 1], 0.5)])
def test_chance_is_the_better_of_guessing_and_always_saying_the_same(golds, chance):
    tally = Tally(CHOICE, "test")
    for at, gold in enumerate(golds):
        tally.add(Answer(multiple_choice(str(at), "Q", ["yes", "no"], gold), 0, 0, choice=0))
    assert tally.chance() == chance


def test_where_every_answer_is_another_one_chance_is_guessing():
    tally = Tally(CHOICE, "test")
    for at in range(40):
        tally.add(Answer(multiple_choice(str(at), "Q", [f"a{at}", f"b{at}", f"c{at}"], 0), 0, 0, choice=0))
    assert tally.chance() == pytest.approx(1 / 3)
    assert Tally(CHOICE, "test").chance() is None


def test_the_papers_number_stands_beside(run, model):
    (entry,) = run([CHOICE])["tasks"]
    zero = entry["scores"][0]["published"]
    assert (zero["paper"], zero["size"], zero["value"]) == ("gpt3", "Small", 64.6)
    (entry,) = run([CHOICE], beside="175B")["tasks"]
    assert [row["published"]["value"] for row in entry["scores"]] == [81.0, 80.5, 82.3]


def test_another_split_has_no_number_beside(run):
    (entry,) = run([CHOICE], split="dev")["tasks"]
    assert {row["published"] for row in entry["scores"]} == {None}


def test_failures_are_counted_beyond_those_that_are_listed():
    tally = Tally(CHOICE, "test")
    for at in range(250):
        tally.fail(Failed(str(at), 0, "why"))
    assert (len(tally.failed), tally.n_failed) == (100, 250)


# ------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path, tokenizer):
    path = tmp_path / "model"
    checkpoint.save(path, lambda where: save_model(where, made(tokenizer), tokenizer), {"made_by": "test"})
    return path


def own_task(path, n=12):
    rows = [{"context": f"the {word} is", "choices": [word, "nothing"], "gold": 0} for word in WORDS[:n]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_suffix(".train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))


def test_the_command_scores_a_task_of_the_users_own(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own_task(tmp_path / "mine.jsonl")
    assert main(["eval", str(folder), "--tasks", "mine.jsonl", "--shots", "0", "2"]) == 0
    out = tmp_path / "evals" / "model-gpt3"
    assert {"config.json", "env.json", "scores.json", "answers.jsonl", "report.html", "scores.csv"} <= {
        path.name for path in out.iterdir()
    }
    printed = capsys.readouterr().out
    assert "mine" in printed
    assert "accuracy" in printed
    scores = json.loads((out / "scores.json").read_text())
    assert scores["format"] == "rein-eval-1"
    assert [row["n"] for row in scores["tasks"][0]["scores"]] == [12, 12]
    assert (tmp_path / "evals" / "responses.sqlite").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shots", "many"], "--shots is 'many'"),
        (["--draws", "0"], "--draws is '0'"),
        (["--limit", "0"], "--limit is 0"),
        (["--batch-tokens", "0"], "--batch-tokens is 0"),
        (["--beside", "Huge"], "no model of that paper"),
        (["--tasks", "hellaswagg"], "hellaswag"),
        (["--tasks", "missing.jsonl"], "does not exist as a file"),
        (["--tasks"], "--tasks names nothing"),
        (["--shots"], "--shots names nothing"),
        (["--tasks", "wikitext2"], "--protocol gpt2"),
        (["--data", "nowhere", "--tasks", "piqa"], "nowhere, which does not exist"),
    ],
)
def test_bad_settings_are_said(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(folder), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own_task(tmp_path / "mine.jsonl")
    (tmp_path / "evals" / "x").mkdir(parents=True)
    (tmp_path / "evals" / "x" / "thesis.txt").write_text("dear")
    assert main(["eval", str(folder), "--tasks", "mine.jsonl", "--out", "evals/x"]) == 2
    assert "holds no evaluation" in capsys.readouterr().err


def test_a_command_that_scores_nothing_leaves_the_results_before_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_task(tmp_path / "mine.jsonl")
    assert main(["eval", str(folder), "--tasks", "mine.jsonl", "--shots", "0", "--out", "kept"]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir() if path.is_file()}
    assert main(["eval", str(folder), "--tasks", "piqa", "--out", "kept"]) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir() if path.is_file()} == before


def test_a_row_that_is_no_text_is_reported_and_the_rest_is_scored(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"context": f"the {word} is", "choices": [word, "nothing"], "gold": 0}) for word in WORDS[:4]]
    rows.insert(2, '{"context": "lone \\ud800", "choices": ["a", "b"], "gold": 0}')
    text = "\n".join(rows).encode() + b'\n{"context": "bad \xff", "choices": ["a", "b"], "gold": 0}\nno json\n'
    (tmp_path / "mine.jsonl").write_bytes(text)
    assert main(["eval", str(folder), "--tasks", "mine.jsonl", "--out", "out"]) == 0
    (entry,) = json.loads((tmp_path / "out" / "scores.json").read_text())["tasks"]
    assert entry["scores"][0]["n"] == 4
    assert {one["id"].rsplit("/")[-1] for one in entry["failed"]} == {"mine.jsonl:3", "mine.jsonl:6", "mine.jsonl:7"}


def test_without_shots_there_is_no_draw(run):
    (entry,) = run([CHOICE], shots=["0", "2"], draws="8")["tasks"]
    (alone,) = run([CHOICE], shots=["0"], out="alone")["tasks"]
    assert entry["scores"][0] == alone["scores"][0]


def test_one_text_has_no_interval(run):
    task = Task(
        "text", "Text", lambda data, split: [Row("the cat sat", "t")],
        lambda row: [Problem("t", text=row.values, units=3)], ("perplexity",),
    )  # fmt: skip
    (entry,) = run([task])["tasks"]
    assert (entry["scores"][0]["low"], entry["scores"][0]["high"]) == (None, None)
    assert entry["scores"][0]["verdict"] == "no number"


def test_nothing_to_score_is_an_error(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(folder), "--tasks", "piqa"]) == 2
    assert "No task could be evaluated: piqa" in capsys.readouterr().err


def test_shots_from_the_dev_set_never_show_a_dev_problem_itself(run, model, monkeypatch):
    """LAMBADA's case: there is no train set, and K is chosen on the set that shots come from."""
    asked = []
    monkeypatch.setattr("rein.evals.evaluate.Prompter", lambda *a, **k: Spy(asked, *a, **k))
    run([replace(CHOICE, shots_from="dev")], shots=["dev"])
    dev = [one for one in asked if one.problem.id.startswith("dev:") and one.k == 4]
    assert len(dev) == 40
    assert min(len(one.shots) for one in dev) > 1
    assert not [one for one in dev if one.problem.id in one.shots]


class Spy(Prompter):
    """Notes what is asked."""

    def __init__(self, asked, *arguments, **more):
        super().__init__(*arguments, **more)
        self._asked = asked

    def ask(self, problem, ks):
        found = super().ask(problem, ks)
        self._asked += found
        return found
