"""Our logits are transformers' logits, from random weights, in both directions; our folders load there unchanged."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import (
    Weights,
    fold_biases,
    load_model,
    load_weights,
    model_type,
    read_config,
    save_model,
    write_model,
)
from rein.models.presets import PRESETS, preset

sys.path.insert(0, str(Path(__file__).parent))
from openai_files import write_pair
from peers import assert_close_logits, assert_same_weights, random_tokens, transformers

TINY = {"n_ctx": 32, "n_embd": 48, "n_head": 3, "n_layer": 3}
GPT2 = {"norm": "pre", "initialisation": "scaled"}
GPT1 = {"norm": "post", "initialisation": "flat"}
BYTES = ByteLevelBPE(())  # 257 ids


def random_model(seed, tokenizer, **changes):
    model = GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **TINY | changes)).initialise(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # biases and gains too, and larger weights: a mistake must show
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return model


@pytest.fixture
def folder(tokenizer, tmp_path):
    save_model(tmp_path, random_model(8, tokenizer), tokenizer)
    return tmp_path


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("kind", [GPT2, GPT1], ids=["gpt2", "openai-gpt"])
def test_transformers_loads_our_folder_and_gives_our_logits(kind, tokenizer, tmp_path):
    model = random_model(1, tokenizer, **kind)
    save_model(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = random_tokens(tokenizer.n_vocab, (4, 32), seed=2)
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
    tokens = random_tokens(tokenizer.n_vocab, (4, 32), seed=4)
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
    assert_same_weights(loaded, model)
    tokens = torch.arange(20)[None]
    assert torch.equal(model(tokens), loaded(tokens))


def test_what_no_type_expresses_transformers_refuses_by_name(tokenizer, tmp_path):
    model = random_model(6, tokenizer, attention="banded", band=4)
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(ValueError, match="rein-gpt"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "rein export" in json.loads((tmp_path / "config.json").read_text())["note"]


def test_model_types():
    expected = {"gpt1": "openai-gpt", "tiny-gpt2": "gpt2", "gpt2-1558m": "gpt2", "gpt3-175b": "rein-gpt"}
    assert {name: model_type(preset(name).model) for name in expected} == expected
    assert set(PRESETS) > set(expected)


# GPT-Neo


def neo(folder, *, heads, n_vocab=257, **changes):
    """A GPT-Neo of transformers with random weights, saved into `folder`; `heads` are 32 numbers wide together."""
    torch.manual_seed(9)
    settings = {"vocab_size": n_vocab, "max_position_embeddings": 24, "hidden_size": 32, "num_heads": heads,
                "num_layers": 4, "attention_types": [[["global", "local"], 2]], "window_size": 5,
                "initializer_range": 0.2, "bos_token_id": 256, "eos_token_id": 256}  # fmt: skip
    model = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**settings | changes)).eval()
    with torch.no_grad():
        for p in model.parameters():  # biases and gains too
            p += 0.1 * torch.randn(p.shape)
    model.save_pretrained(folder)
    BYTES.save(folder / "tokenizer.json")
    return model


@pytest.mark.parametrize("heads", [2, 4])  # √16 is exact, √8 is not
def test_we_load_a_gpt_neo_and_give_its_logits(heads, tmp_path):
    theirs = neo(tmp_path, heads=heads)
    ours, _ = load_model(tmp_path)
    assert (ours.config.attention, ours.config.band, ours.config.n_ctx) == ("banded", 5, 24)
    tokens = random_tokens(257, (4, 24), seed=4)
    with torch.no_grad():
        assert_close_logits(ours(tokens), theirs(tokens).logits)
    for layer in range(4):
        assert not ours.get_parameter(f"h.{layer}.attn.c_attn.bias").any()


@pytest.mark.parametrize("heads", [2, 4])
def test_a_gpt_neo_there_and_back(heads, tmp_path):
    state = neo(tmp_path, heads=heads).state_dict()
    ours, tokenizer = load_model(tmp_path)
    (tmp_path / "back").mkdir()
    write_model(tmp_path / "back", ours.config, ours.state_dict(), tokenizer, kind="gpt_neo")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert back.keys() == state.keys()
    for name, tensor in back.items():
        if heads == 2 or "q_proj" not in name:
            assert torch.equal(tensor, state[name]), name
        else:  # once times √8, once divided by it
            torch.testing.assert_close(tensor, state[name], rtol=2**-23, atol=0)


def test_the_band_and_the_scale_of_a_gpt_neo_matter(tmp_path):
    """So that the parity above could fail: one key more, or scores divided twice, and logits are others."""
    theirs = neo(tmp_path, heads=2)
    tokens = random_tokens(257, (4, 24), seed=4)
    with torch.no_grad():
        expected = theirs(tokens).logits
        change(tmp_path, window_size=6)
        assert (load_model(tmp_path)[0](tokens) - expected).abs().max() > 0.1
        change(tmp_path, window_size=5)
        ours, _ = load_model(tmp_path)
        for layer in range(4):
            ours.get_parameter(f"h.{layer}.attn.c_attn.weight")[:, :32] /= 4
        assert (ours(tokens) - expected).abs().max() > 0.1


@pytest.mark.parametrize(
    "types",
    [
        [[["global"], 4]],
        [[["local", "global"], 2]],
        [[["global", "local"], 1]],
        [[["global", "global", "local", "local"], 1]],
        [[["global", "local"], 10**12]],
        [["global", 4]],
        "global",
        [[["global", "local"], "2"]],
    ],
)
def test_a_gpt_neo_whose_layers_do_not_alternate(types, tmp_path):
    neo(tmp_path, heads=2)
    change(tmp_path, attention_types=types)
    with pytest.raises(UserError, match="attention_types="):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "option",
    [{"window_size": "5"}, {"window_size": 0, "band": 0}, {"intermediate_size": 64}, {"activation_function": "gelu"},
     {"resid_dropout": "none"}, {"num_heads": None}, {"hidden_size": 33, "n_embd": 33}],
)  # fmt: skip
def test_options_of_a_gpt_neo_that_would_change_it(option, tmp_path):
    neo(tmp_path, heads=2)
    change(tmp_path, **option)
    with pytest.raises(UserError, match="dropout" if "resid_dropout" in option else list(option)[-1]):
        load_model(tmp_path)


@pytest.mark.parametrize("query_bias", [0.0, 0.5])
def test_folding_moves_biases_and_keeps_the_function(query_bias, tokenizer):
    model = random_model(11, tokenizer, attention="banded", band=4).double()
    with torch.no_grad():
        for layer in range(3):
            model.get_parameter(f"h.{layer}.attn.c_attn.bias")[:48] *= query_bias
    folded = random_model(11, tokenizer, attention="banded", band=4).double()
    folded.load_state_dict(fold_biases(model.config, model.state_dict()))
    for layer in range(3):
        assert not folded.get_parameter(f"h.{layer}.attn.c_attn.bias").any()
        name = f"h.{layer}.ln_1.bias"
        assert torch.equal(folded.get_parameter(name), model.get_parameter(name)) == (query_bias == 0)
    tokens = random_tokens(tokenizer.n_vocab, (4, 32), seed=2)
    with torch.no_grad():
        torch.testing.assert_close(folded(tokens), model(tokens), rtol=0, atol=1e-10)


# Files in pieces, in other precisions, with other names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo"])
def test_half_precision_weights_are_read_as_they_are(kind, dtype, tmp_path):
    if kind == "gpt_neo":
        theirs = neo(tmp_path, heads=2)
    else:
        shape = {"vocab_size": 257, "n_positions": 24, "n_embd": 32, "n_head": 2, "n_layer": 2}
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, initializer_range=0.2)).eval()
        BYTES.save(tmp_path / "tokenizer.json")
    theirs.to(dtype).save_pretrained(tmp_path)
    ours, _ = load_model(tmp_path)
    tokens = random_tokens(257, (2, 24), seed=4)
    with torch.no_grad():
        assert_close_logits(ours(tokens), theirs.float()(tokens).logits)


def test_a_folder_of_several_files_and_an_index(folder, tokenizer):
    whole, _ = load_model(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    theirs.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    ours, _ = load_model(folder)
    assert_same_weights(ours, whole)
    lost = sorted(folder.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UserError, match=f"names {lost.name}, which is not in"):
        load_model(folder)


def test_our_own_files_in_pieces_load_there(folder, tokenizer):
    model, _ = load_model(folder)
    (folder / "model.safetensors").unlink()
    write_model(folder, model.config, model.state_dict(), tokenizer, kind="gpt2", max_shard_bytes=50_000)
    files = sorted(folder.glob("*.safetensors"))
    sizes = [sum(tensor.nbytes for tensor in load_file(path).values()) for path in files]
    assert max(sizes) <= 57_600 == 300 * 48 * 4  # the embedding, which is one tensor
    assert sum(sizes) == 4 * model.config.n_params()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for name, tensor in model.named_parameters():
        key = f"transformer.{name}.weight" if name in ("wte", "wpe") else f"transformer.{name}"
        assert torch.equal(theirs.state_dict()[key], tensor), name


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', '{"a": {}}'])
def test_a_damaged_index(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json is damaged"):
        load_model(folder)


def test_an_index_that_leads_out_of_its_folder(folder):
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    weight_map = {"transformer.wte.weight": "../elsewhere.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=r"names elsewhere\.safetensors, which is not in"):
        load_model(folder)


def test_names_without_their_prefix_and_old_buffers(folder):
    whole, _ = load_model(folder)
    path = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    buffers = {"h.0.attn.bias": torch.ones(1, 1, 32, 32), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(tensors | buffers, path)
    ours, _ = load_model(folder)
    assert_same_weights(ours, whole)


def test_a_vocabulary_in_two_files(folder, tokenizer):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer at .*tokenizer\.json"):
        load_model(folder)
    write_pair(folder, tokenizer, "vocab.json", "merges.txt")
    assert load_model(folder)[1].sha256() == tokenizer.sha256()


def test_weights_by_name(folder):
    """One tensor is read without the others: what a process that holds a part of a model needs."""
    model, _ = load_model(folder)
    weights = Weights(folder, model.config)
    for name, parameter in reversed(list(model.named_parameters())):
        assert torch.equal(weights(name, tuple(parameter.shape)), parameter)
    weights.check_nothing_left()
    with pytest.raises(UserError, match=r"has wpe\.weight of shape \(32, 48\), but this model has shape \(31, 48\)"):
        weights("wpe", (31, 48))


def test_a_dense_gpt3_is_a_gpt2(tokenizer, tmp_path):
    model = random_model(7, tokenizer, d_head=16)
    save_model(tmp_path, model, tokenizer)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gpt2"


# Bad folders


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        read_config(tmp_path)


def test_a_damaged_config(folder):
    (folder / "config.json").write_text('{"model_type":')
    with pytest.raises(UserError, match="damaged"):
        read_config(folder)


def test_another_model_type(folder):
    change(folder, model_type="gptj")
    with pytest.raises(UserError, match="'gptj'"):
        load_model(folder)
    change(folder, model_type=["gpt2"])
    with pytest.raises(UserError, match=r"type \['gpt2'\]"):
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


def add_tensors(folder, **tensors):
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}, path)


def test_an_output_layer_that_is_the_embedding(folder):
    wte = load_file(folder / "model.safetensors")["transformer.wte.weight"]
    change(folder, tie_word_embeddings=False)
    add_tensors(folder, lm_head__weight=wte.clone())
    assert load_model(folder)


def test_an_output_layer_of_its_own(folder):
    wte = load_file(folder / "model.safetensors")["transformer.wte.weight"].clone()
    wte[-1, -1] = math.nextafter(wte[-1, -1].item(), 1e9) + 1e-6
    add_tensors(folder, lm_head__weight=wte)
    with pytest.raises(UserError, match=r"lm_head\.weight is not wte\.weight"):
        load_model(folder)


def test_an_untied_output_layer_that_is_not_there(folder):
    change(folder, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"tie_word_embeddings=false, but there is no lm_head"):
        load_model(folder)


def test_pickled_weights(folder):
    torch.save({}, folder / "pytorch_model.bin")
    assert load_model(folder)  # beside safetensors it does not matter
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        load_model(folder)


def test_quantised_weights(folder):
    add_tensors(folder, transformer__wpe__weight=torch.zeros(32, 48, dtype=torch.int8))
    with pytest.raises(UserError, match=r"wpe\.weight in int8"):
        load_model(folder)


def test_an_unknown_tensor(folder):
    add_tensors(folder, score__weight=torch.zeros(2, 48))
    with pytest.raises(UserError, match=r"has score\.weight of shape \(2, 48\), but this model has no such tensor"):
        load_model(folder)


@pytest.mark.parametrize("sizes", [{"n_embd": "48"}, {"n_layer": 2.5}, {"n_head": True}, {"vocab_size": None}])
def test_sizes_that_are_no_whole_numbers(folder, sizes):
    change(folder, **sizes)
    with pytest.raises(UserError, match=f"has {next(iter(sizes))}="):
        load_model(folder)


def test_a_model_of_ours_that_this_version_does_not_know(folder):
    change(folder, model_type="rein-gpt", rein={"n_vocab": 300, "rotary": True})
    with pytest.raises(UserError, match=r"does not know .*rotary"):
        load_model(folder)
    change(folder, model_type="rein-gpt", rein=None)
    with pytest.raises(UserError, match="does not know"):
        load_model(folder)


def test_a_tokenizer_of_another_model(folder):
    ByteLevelBPE(tuple((bytes([i]), bytes([j])) for i in range(10) for j in range(10))).save(folder / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer has 357 ids, but the model knows 300"):
        load_model(folder)


def test_a_missing_tensor(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["transformer.h.1.mlp.c_fc.bias"]
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"lacks the tensor h\.1\.mlp\.c_fc\.bias"):
        load_weights(GPT(read_config(folder)), folder)
