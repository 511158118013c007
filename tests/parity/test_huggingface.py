"""Our logits are transformers' logits, from random weights, in both directions; our folders load there unchanged."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.models.gpt import GPT, PRESETS, GPTConfig, preset
from rein.models.huggingface import load_model, load_weights, model_type, read_config, save_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="the parity tests compare with transformers")

TINY = {"n_ctx": 32, "n_embd": 48, "n_head": 3, "n_layer": 3}
GPT2 = {"norm": "pre", "initialisation": "scaled"}
GPT1 = {"norm": "post", "initialisation": "flat"}


def random_model(seed, tokenizer, **changes):
    model = GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **TINY | changes)).initialise(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # biases and gains too, and larger weights: a mistake must show
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return model


@pytest.mark.parametrize("kind", [GPT2, GPT1], ids=["gpt2", "openai-gpt"])
def test_transformers_loads_our_folder_and_gives_our_logits(kind, tokenizer, tmp_path):
    model = random_model(1, tokenizer, **kind)
    save_model(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.randint(0, tokenizer.n_vocab, (4, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)
    text = "def f(x):\n    return x  # it's 2.5"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == tokenizer.encode(text).tolist()


@pytest.mark.parametrize("kind", ["gpt2", "openai-gpt"])
def test_we_load_a_transformers_folder_and_give_its_logits(kind, tokenizer, tmp_path):
    torch.manual_seed(3)
    shape = {"vocab_size": tokenizer.n_vocab, "n_positions": 32, "n_embd": 48, "n_head": 3, "n_layer": 3,
             "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}  # fmt: skip
    if kind == "gpt2":
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    else:
        theirs = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**shape)).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    ours, _ = load_model(tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == theirs.num_parameters() == ours.config.n_params()
    tokens = torch.randint(0, tokenizer.n_vocab, (4, 32), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)
        loss = theirs(tokens, labels=tokens).loss
    torch.testing.assert_close(ours.loss(tokens[:, :-1], tokens[:, 1:]), loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [GPT2, GPT1, {"attention": "banded", "band": 4}, {"d_head": 8}])
def test_a_saved_model_loads_as_the_same_model(kind, tokenizer, tmp_path):
    model = random_model(5, tokenizer, **kind)
    save_model(tmp_path, model, tokenizer)
    loaded, its_tokenizer = load_model(tmp_path)
    assert its_tokenizer.sha256() == tokenizer.sha256() == load_tokenizer(tmp_path).sha256()
    for (name, a), (_, b) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    tokens = torch.arange(20)[None]
    assert torch.equal(model(tokens), loaded(tokens))


def test_what_no_type_expresses_transformers_refuses_by_name(tokenizer, tmp_path):
    model = random_model(6, tokenizer, attention="banded", band=4)
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(ValueError, match="rein-gpt"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "banded attention" in json.loads((tmp_path / "config.json").read_text())["note"]


def test_model_types():
    expected = {"gpt1": "openai-gpt", "tiny": "gpt2", "gpt2-1558m": "gpt2", "gpt3-175b": "rein-gpt"}
    assert {name: model_type(preset(name)) for name in expected} == expected
    assert set(PRESETS) > set(expected)


def test_a_dense_gpt3_is_a_gpt2(tokenizer, tmp_path):
    model = random_model(7, tokenizer, d_head=16)
    save_model(tmp_path, model, tokenizer)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gpt2"


# Bad folders


@pytest.fixture
def folder(tokenizer, tmp_path):
    save_model(tmp_path, random_model(8, tokenizer), tokenizer)
    return tmp_path


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        read_config(tmp_path)


def test_a_damaged_config(folder):
    (folder / "config.json").write_text('{"model_type":')
    with pytest.raises(UserError, match="damaged"):
        read_config(folder)


def test_another_model_type(folder):
    change(folder, model_type="gpt_neo")
    with pytest.raises(UserError, match="'gpt_neo'"):
        load_model(folder)


@pytest.mark.parametrize("option", [{"activation_function": "relu"}, {"n_inner": 7}, {"layer_norm_epsilon": 1e-6}])
def test_options_that_would_change_the_model(folder, option):
    change(folder, **option)
    with pytest.raises(UserError, match=next(iter(option))):
        load_model(folder)


def test_weights_cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is cut short or damaged"):
        load_model(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_model(folder)


def test_weights_of_another_shape(folder):
    change(folder, n_layer=2)
    with pytest.raises(UserError, match=r"h\.2\."):
        load_model(folder)
    change(folder, n_layer=3, n_positions=16)
    with pytest.raises(UserError, match="wpe"):
        load_model(folder)


def test_a_missing_tensor(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["transformer.h.1.mlp.c_fc.bias"]
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"lacks the tensor h\.1\.mlp\.c_fc\.bias"):
        load_weights(GPT(read_config(folder)), folder)
