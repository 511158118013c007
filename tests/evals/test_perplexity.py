"""Every token is scored once, by its own probability, whatever the stride and the batching."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from rein.cli import main
from rein.errors import UserError
from rein.evals.perplexity import score_ids, score_text
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import save_model

T = 24


@pytest.fixture(scope="module")
def model(tokenizer):
    model = GPT(GPTConfig(tokenizer.n_vocab, T, 32, 2, 2)).initialise(0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model


@pytest.mark.parametrize("n", [1, 2, T - 1, T, T + 1, T + 7, 2 * T, 100])
@pytest.mark.parametrize("stride", [1, 5, T // 2, T])
def test_each_token_once_with_as_much_context_as_promised(model, n, stride):
    ids = torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    eot = model.config.n_vocab - 1
    expected = 0.0
    row = [eot, *ids]
    with torch.no_grad():
        for target in range(n):  # window k covers inputs k·stride … k·stride + T − 1 and scores its fresh targets
            window = 0 if target < T else -(-(target - T + 1) // stride)
            context = torch.tensor([row[window * stride : target + 1]])
            expected += F.cross_entropy(model(context)[:, -1], torch.tensor([ids[target]])).item()
    assert score_ids(model, ids, eot, stride=stride) == pytest.approx(expected, rel=1e-5)


def test_the_units(model, tokenizer):
    text = "naïve text — with more bytes than characters"
    score = score_text(model, tokenizer, text)
    assert score.n_bytes == len(text.encode()) > len(text)
    assert score.n_tokens == len(tokenizer.encode(text))
    assert score.perplexity == pytest.approx(math.exp(score.nats / score.n_tokens))
    assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / score.n_bytes)


def test_any_string_has_a_probability(model, tokenizer):
    for text in ("\x00", "😀", "\u202e", "a" * 500, "日本語", "\n"):
        assert math.isfinite(score_text(model, tokenizer, text).bits_per_byte)


def test_nothing_to_score(model, tokenizer):
    with pytest.raises(UserError, match="is empty"):
        score_text(model, tokenizer, "", name="notes.txt")


@pytest.mark.parametrize("stride", [-1, T + 1])
def test_a_stride_that_cannot_be(model, stride):
    with pytest.raises(UserError, match=f"--stride is {stride}"):
        score_ids(model, [1, 2], 0, stride=stride)


def test_the_command(model, tokenizer, tmp_path, capsys):
    save_model(tmp_path, model, tokenizer)
    (tmp_path / "a.txt").write_text("Some text of this test.", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Another text.", encoding="utf-8")
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert main(["perplexity", str(tmp_path), *files, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files
    assert rows[0]["n_bytes"] == 23
    assert rows[0]["bits_per_byte"] == pytest.approx(rows[0]["nats"] / math.log(2) / 23)
    assert main(["perplexity", str(tmp_path), files[0]]) == 0
    assert "bits/byte (" in capsys.readouterr().out
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    assert main(["perplexity", str(tmp_path), str(tmp_path / "c.txt")]) == 2
    assert "offset 3" in capsys.readouterr().err
