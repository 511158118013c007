"""`rein import` and `rein export`: OpenAI's models pass through us bit for bit, and ours go out as they are.

The logits to compare with are those of OpenAI's own programs (fixtures/make.py) and of transformers.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rein import checkpoint
from rein.bpe.byte_level import from_openai as gpt2_tokenizer
from rein.bpe.gpt1 import from_openai as gpt1_tokenizer
from rein.bpe.tokenizer import load_tokenizer
from rein.config import from_flags
from rein.errors import UserError
from rein.models.generate import generate
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import end_of_text, load_model, save_model
from rein.models.interchange import (
    ExportConfig,
    ImportConfig,
    add_end_of_text,
    check_foldable,
    export_command,
    huggingface_type,
    import_command,
    write_vocabulary,
)
from rein.models.released import read_gpt1

sys.path.insert(0, str(Path(__file__).parent))
from openai_files import BYTES, FIXTURES, LETTERS, gpt1_arrays
from peers import assert_close_logits, assert_same_weights, random_tokens, transformers

# ------------------------------------------------------------------------------------------------------- import


def run_import(source, out, *flags):
    import_command(from_flags(ImportConfig, [str(source), "--out", str(out), *flags], prog="rein import"))
    return load_model(out)


def run_export(source, out, *flags):
    export_command(from_flags(ExportConfig, [str(source), "--out", str(out), *flags], prog="rein export"))
    return out


def transformers_name(variable):
    """What transformers calls a variable of GPT-2's program."""
    place, *rest = variable.removeprefix("model/").split("/")
    if not rest:
        return f"transformer.{place}.weight"
    kinds = {"w": "weight", "g": "weight", "b": "bias"}
    return ".".join(["transformer", re.sub(r"h(\d+)", r"h.\1", place), *rest[:-1], kinds[rest[-1]]])


def test_gpt2_from_openai_through_us_to_transformers_bit_for_bit(gpt2, tensors, tmp_path, capsys):
    model, tokenizer = run_import(gpt2, tmp_path / "ours")
    assert capsys.readouterr().out == (
        f"{tmp_path}/ours: 1,548 parameters, 2 layers 4 wide, 2 heads, context 6, vocabulary 257, from OpenAI's GPT-2\n"
    )
    assert tokenizer == BYTES
    assert not model.training
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run_export(tmp_path / "ours", tmp_path / "theirs"))
    state = theirs.state_dict()
    for name, array in tensors.items():
        key = transformers_name(name)
        assert np.array_equal(state[key].numpy(), array.reshape(state[key].shape)), name
    for ours, released in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        assert (tmp_path / "theirs" / ours).read_bytes() == (gpt2 / released).read_bytes()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")("it's é")["input_ids"] == (
        BYTES.encode("it's é").tolist()
    )


def test_gpt1_from_openai_through_us_to_transformers_bit_for_bit(gpt1, tmp_path, capsys):
    model, tokenizer = run_import(gpt1, tmp_path / "ours")
    assert "knows no end of text" in capsys.readouterr().out
    assert tokenizer == LETTERS
    assert end_of_text(model.config, tokenizer) is None
    run_export(tmp_path / "ours", tmp_path / "theirs")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    assert theirs.config.vocab_size == 28
    assert theirs.config.eos_token_id is None
    arrays, ids = gpt1_arrays()
    # Module order is creation order, so transformers' parameters come as the released tensors, embeddings swapped.
    parameters = [parameter.detach().numpy() for parameter in theirs.transformer.parameters()]
    for parameter, array in zip(parameters, [arrays[1], arrays[0], *arrays[2:]], strict=True):
        assert np.array_equal(parameter, array.reshape(parameter.shape))
    with torch.no_grad():
        expected = np.load(FIXTURES / "gpt1.npz")["logits"]
        torch.testing.assert_close(
            theirs(torch.from_numpy(ids)).logits, torch.from_numpy(expected), rtol=1e-5, atol=1e-5
        )
    content = json.loads((tmp_path / "theirs" / "tokenizer.json").read_text())
    assert len(content["model"]["vocab"]) == 28
    assert content["added_tokens"] == []
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")) == 28
    assert load_tokenizer(tmp_path / "theirs") == LETTERS


def test_without_an_end_of_text_a_model_still_writes(gpt1, tmp_path):
    model, tokenizer = run_import(gpt1, tmp_path / "ours")
    (answer,) = generate(model, [[3, 4]], max_new_tokens=4, eot_id=tokenizer.eot_id)
    assert len(answer) == 4
    assert max(answer) < 28


def test_an_end_of_text_for_gpt1(gpt1, tmp_path):
    model, tokenizer = run_import(gpt1, tmp_path / "ours", "--add-end-of-text")
    before, _ = read_gpt1(gpt1)
    assert model.config.n_vocab == 29
    assert end_of_text(model.config, tokenizer) == 28
    assert torch.equal(model.wte[:28], before.wte)
    assert 0.015 < model.wte[28].std().item() < 0.025
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[..., :28], before(tokens), rtol=1e-6, atol=1e-6)
    assert torch.equal(add_end_of_text(before, tokenizer).wte, model.wte)
    with pytest.raises(UserError, match="this model knows an end of text: id 28"):
        add_end_of_text(model, tokenizer)


def test_gpt2_needs_no_end_of_text(gpt2, tmp_path):
    with pytest.raises(UserError, match="knows an end of text: id 256"):
        run_import(gpt2, tmp_path / "ours", "--add-end-of-text")
    assert not (tmp_path / "ours").exists()


def test_what_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"holds no model.*\n.*hparams\.json.*params_shapes\.json.*config\.json"):
        run_import(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="is not a folder"):
        run_import(tmp_path / "none", tmp_path / "out")


def test_nothing_is_written_over(gpt2, tmp_path):
    with pytest.raises(UserError, match="is there already"):
        run_import(gpt2, gpt2)
    (tmp_path / "empty").mkdir()
    run_import(gpt2, tmp_path / "empty")
    with pytest.raises(UserError, match="is there already"):
        run_export(tmp_path / "empty", tmp_path / "empty")


def test_an_import_is_held_to_what_was_written(gpt2, tmp_path):
    run_import(gpt2, tmp_path / "ours")
    about = checkpoint.read_about(tmp_path / "ours")
    assert (about["made_by"], about["source"]) == ("import", "OpenAI's GPT-2")
    path = tmp_path / "ours" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"model\.safetensors has changed"):
        load_model(tmp_path / "ours")


# ------------------------------------------------------------------------------------------------------- export


def banded(tokenizer, *, query_bias, seed=1, **changes):
    config = {"n_ctx": 24, "n_embd": 32, "n_head": 2, "n_layer": 3, "attention": "banded", "band": 4} | changes
    model = GPT(GPTConfig(tokenizer.n_vocab, **config)).initialise(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
            if name.endswith("c_attn.bias") and not query_bias:
                p[: model.config.d_inner] = 0
    return model


@pytest.mark.parametrize("query_bias", [False, True])
@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_a_banded_model_is_the_same_in_gpt_neo(tokenizer, tmp_path, query_bias, n_layer):
    model = banded(tokenizer, query_bias=query_bias, n_layer=n_layer)
    save_model(tmp_path, model, tokenizer)
    out = run_export(tmp_path, tmp_path / "theirs")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert theirs.config.model_type == "gpt_neo"
    assert theirs.config.attention_layers == ["global", "local", "global"][:n_layer]
    tokens = random_tokens(tokenizer.n_vocab, (4, 24), seed=2)
    with torch.no_grad():
        expected = model(tokens)
        assert_close_logits(theirs(tokens).logits, expected)
        back, _ = load_model(out)
        assert_close_logits(back(tokens), expected)


def test_a_query_bias_that_no_input_makes_is_refused(tokenizer, tmp_path):
    model = banded(tokenizer, query_bias=True)
    with torch.no_grad():
        model.h["1"].attn.c_attn.weight[:, :16] = 0  # a head whose queries are its bias alone
        model.h["1"].attn.c_attn.bias[3] = 2.5
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(UserError, match=r"no bias on queries\. The largest here is 2\.5 \(h\.1\.attn\.c_attn\.bias\)"):
        run_export(tmp_path, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    assert run_export(tmp_path, tmp_path / "ours", "--format", "safetensors")


def test_folding_is_judged_by_what_it_adds_to_rounding(tokenizer):
    model = banded(tokenizer, query_bias=True)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        check_foldable(model, dtype)
    with torch.no_grad():  # nearly singular: δ is thousands, and bfloat16 keeps three digits of it
        model.h["0"].attn.c_attn.weight[:, 0] = model.h["0"].attn.c_attn.weight[:, 1] * (1 + 1e-3)
        model.h["0"].attn.c_attn.bias[0] = 1.0
    with pytest.raises(UserError, match="no bias on queries"):
        check_foldable(model, torch.bfloat16)


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"d_head": 8}, "2 heads that are 16 wide together, in a model 32 wide"),
        ({"d_head": 24, "attention": "dense"}, "2 heads that are 48 wide together"),
        ({"norm": "post"}, "banded attention with LayerNorm behind the sums"),
    ],
)
def test_what_no_type_of_transformers_has(changes, lost):
    config = GPTConfig(
        **{"n_vocab": 300, "n_ctx": 24, "n_embd": 32, "n_head": 2, "n_layer": 3, "attention": "banded"} | changes
    )
    with pytest.raises(UserError, match=lost):
        huggingface_type(config)


@pytest.mark.parametrize("changes", [{}, {"attention": "dense", "band": 256}, {"d_head": 8}, {"norm": "post"}])
def test_our_own_tensors_hold_every_model(tokenizer, tmp_path, changes):
    model = banded(tokenizer, query_bias=True, **changes)
    save_model(tmp_path, model, tokenizer)
    out = run_export(tmp_path, tmp_path / "ours", "--format", "safetensors", "--max-shard-bytes", "20_000")
    names = set()
    for path in out.glob("*.safetensors"):
        names |= load_file(path).keys()
    assert names == model.state_dict().keys()
    loaded, its_tokenizer = load_model(out)
    assert loaded.config == model.config
    assert its_tokenizer.sha256() == tokenizer.sha256()
    assert_same_weights(loaded, model)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_exports_in_half_precision(tokenizer, tmp_path, dtype):
    model = banded(tokenizer, query_bias=False, attention="dense")
    save_model(tmp_path, model, tokenizer)
    out = run_export(tmp_path, tmp_path / "theirs", "--dtype", dtype, "--max-shard-bytes", "5e4")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert theirs.dtype == getattr(torch, dtype)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    loaded, _ = load_model(out)
    for (name, a), b in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b.to(getattr(torch, dtype)).float()), name


def test_what_float16_cannot_hold(tokenizer, tmp_path):
    model = banded(tokenizer, query_bias=False)
    with torch.no_grad():
        model.h["0"].mlp.c_fc.bias[0] = 1e5
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(UserError, match=r"c_fc\.bias has values up to 1e\+05, but float16 ends at 6\.55e\+04"):
        run_export(tmp_path, tmp_path / "theirs", "--dtype", "float16")


def test_a_size_of_files_that_is_none(tmp_path):
    with pytest.raises(UserError, match="--max-shard-bytes is 0"):
        run_export(tmp_path, tmp_path / "theirs", "--max-shard-bytes", "0")


def test_exporting_what_is_no_model(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint yet"):
        run_export(tmp_path, tmp_path / "out")


# ------------------------------------------------------------------------------------------ released vocabularies


@pytest.mark.parametrize(
    ("name", "encoder", "merges", "read", "text", "ids"),
    [
        ("gpt2", "encoder.json", "vocab.bpe", gpt2_tokenizer, "naïve café", "2616 38776 40304"),
        ("gpt1", "encoder_bpe_40000.json", "vocab_40000.bpe", gpt1_tokenizer, "I don't know.", "249 587 538 699 239"),
    ],
)
def test_released_vocabularies_there_and_back_byte_for_byte(
    shared_data, tmp_path, name, encoder, merges, read, text, ids
):
    folder = shared_data / "tokenizers" / name
    tokenizer = read(folder / encoder, folder / merges)
    sizes = {"norm": "post", "n_vocab": 40_478} if name == "gpt1" else {"n_vocab": 50_257}
    model = GPT(GPTConfig(n_ctx=4, n_embd=4, n_head=2, n_layer=1, **sizes)).initialise(0)
    save_model(tmp_path, model, tokenizer)
    write_vocabulary(tmp_path)
    assert (tmp_path / "vocab.json").read_bytes() == (folder / encoder).read_bytes()
    assert (tmp_path / "merges.txt").read_bytes() == (folder / merges).read_bytes()
    (tmp_path / "tokenizer.json").unlink()
    _, again = load_model(tmp_path)
    assert again.sha256() == tokenizer.sha256()
    assert again.encode(text).tolist() == [int(id) for id in ids.split()]
