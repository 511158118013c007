"""`rein generate`: streaming, stop strings, several prompts, and what cannot be done."""

import io
import json

import pytest
import torch

from rein.bpe.tokenizer import StreamDecoder
from rein.cli import main
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model
from rein.models.sample import _Continuation


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    model = GPT(GPTConfig(tokenizer.n_vocab, 64, 32, 2, 2)).initialise(0)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    path = tmp_path_factory.mktemp("model")
    save_model(path, model, tokenizer)
    return str(path)


def run(capsys, *words):
    assert main(["generate", *words]) == 0
    return capsys.readouterr().out


def test_a_seed_is_a_text(folder, capsys):
    once = run(capsys, folder, "--prompt", "text ", "--seed", "7", "--precision", "fp32")
    assert once.startswith("text ")
    assert once == run(capsys, folder, "--prompt", "text ", "--seed", "7", "--precision", "fp32")
    assert once != run(capsys, folder, "--prompt", "text ", "--seed", "8", "--precision", "fp32")


def test_streamed_is_what_is_returned(folder, capsys):
    words = [folder, "--prompt", "The ", "--max-new-tokens", "40", "--precision", "fp32"]
    streamed = run(capsys, *words)
    row = json.loads(run(capsys, *words, "--json"))
    assert row["prompt"] == "The "
    assert streamed == row["prompt"] + row["text"] + "\n"


def test_stop_strings(folder, capsys):
    words = [folder, "--prompt", "The ", "--json", "--precision", "fp32"]
    free = json.loads(run(capsys, *words))["text"]
    stop = free[9:12]
    stopped = json.loads(run(capsys, *words, "--stop", stop))["text"]
    assert stopped == free[: free.index(stop)]
    assert run(capsys, *words[:-3], "--precision", "fp32", "--stop", stop) == f"The {stopped}\n"


def test_several_prompts_several_times(folder, capsys):
    rows = [json.loads(line) for line in run(capsys, folder, "--prompt", "a", "bc", "--n", "3", "--json").splitlines()]
    assert [row["prompt"] for row in rows] == ["a", "a", "a", "bc", "bc", "bc"]
    assert len({row["text"] for row in rows[:3]}) == 3
    assert run(capsys, folder, "--prompt", "a", "bc").startswith("--- 1 of 2\na")


def test_a_prompt_from_standard_input(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("piped in"))
    assert run(capsys, folder, "--prompt", "-", "--max-new-tokens", "2").startswith("piped in")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["--prompt", "word " * 100], "but the model's context is 64"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--top-p", "2"], "top_p is 2"),
        (["--n", "0"], "--n is 0"),
    ],
)
def test_what_cannot_be_done(folder, capsys, words, message):
    assert main(["generate", *([] if words == ["nowhere"] else [folder]), *words]) == 2
    assert message in capsys.readouterr().err


def test_text_that_may_begin_a_stop_string_is_held_back(tokenizer):
    sequence = _Continuation(StreamDecoder(tokenizer), ["END.", "<<"])
    shown = []
    for character in "one EN two <E END. three":
        (token,) = tokenizer.encode(character).tolist()
        ended = sequence.push(token)
        shown.append(sequence.ready())
        if ended:
            break
    sequence.end()
    assert "".join(shown) == sequence.text == "one EN two <E "
    assert shown[4:7] == ["", "", "EN "]


def test_the_end_shows_what_was_held_back(tokenizer):
    sequence = _Continuation(StreamDecoder(tokenizer), ["END."])
    for token in tokenizer.encode("the END").tolist():
        sequence.push(token)
    before = sequence.ready()
    sequence.end()
    assert before + sequence.ready() == "the END"
