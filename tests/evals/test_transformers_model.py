"""Models of transformers in our evaluations: our numbers on our weights; packed trees only where read right."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from random_gpt2 import save_random_gpt2

from rein.errors import UserError
from rein.evals.language_model import Ours
from rein.evals.transformers_model import Theirs
from rein.models.tree import ROOT, Tree

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers", reason="what is tested reads models of transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
LLAMA = SMALL | {"intermediate_size": 48, "max_position_embeddings": 96, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return save_random_gpt2(tmp_path_factory.mktemp("gpt2"), tokenizer, n_ctx=96)


@pytest.fixture(scope="module")
def ours(folder):
    return Ours.load(folder, device="cpu")


@pytest.fixture(scope="module")
def theirs(folder):
    return Theirs.load(str(folder), device="cpu", precision="fp32")


def other(kind, theirs, **changes):
    """A model of another architecture, with random weights and the same tokenizer."""
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(theirs.tokenizer), **changes)
    return Theirs(transformers.AutoModelForCausalLM.from_config(config), theirs.tokenizer, name=kind)


def questions():
    """Trees as an evaluation makes them: shots in front, questions with options behind, some of one token."""
    trees = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        tree = Tree()
        shots = tree.extend(ROOT, random.integers(0, 256, 20).tolist())
        for _ in range(3):
            question = tree.extend(shots, random.integers(0, 256, 7).tolist())
            for n in (1, 3, 6):
                tree.complete(question, random.integers(0, 256, n).tolist())
        trees.append(tree)
    alone = Tree()
    alone.complete(alone.extend(ROOT, [5]), [6])
    return [*trees, alone]


def assert_same_scores(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.logprobs_N, b.logprobs_N, atol=1e-4)
        np.testing.assert_array_equal(a.top_N, b.top_N)
        np.testing.assert_array_equal(a.allowed_top_N, b.allowed_top_N)


def one_by_one(model, trees, forbidden=()):
    """Every wanted token from a forward pass over the very tokens before it."""
    for tree in trees:
        for node in tree.wanted:
            with torch.inference_mode():
                logits_V = model.model(torch.tensor([tree.sequence(node)[:-1]])).logits[0, -1]
            allowed_V = logits_V.index_fill(0, torch.tensor(forbidden, dtype=torch.int64), -torch.inf)
            token = tree.tokens[node]
            yield (
                torch.log_softmax(logits_V, -1)[token].item(),
                logits_V.argmax().item() == token,
                allowed_V.argmax().item() == token,
            )


def flat(trees, scores):
    for tree, one in zip(trees, scores, strict=True):
        for node in tree.wanted:
            yield one.logprobs_N[node], one.top_N[node], one.allowed_top_N[node]


def test_our_weights_get_our_scores(ours, theirs):
    trees = questions()
    forbidden = [tree.tokens[0] for tree in trees]
    assert_same_scores(theirs.score(trees, forbidden), ours.score(trees, forbidden))
    assert theirs._packs


@pytest.mark.parametrize(
    ("kind", "changes", "packs"),
    [
        ("llama", LLAMA, True),
        ("gpt_neox", SMALL | {"intermediate_size": 48, "max_position_embeddings": 96}, True),
        ("mistral", LLAMA | {"sliding_window": 8}, False),  # a window that a mask would switch off
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}, False),  # has no positions
        ("openai-gpt", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "initializer_range": 0.3}, False),
    ],
)
def test_scores_are_those_of_the_sequences(theirs, kind, changes, packs):
    model, trees = other(kind, theirs, **changes), questions()
    forbidden = [7, 8]
    found = list(flat(trees, model.score(trees, forbidden)))
    expected = list(one_by_one(model, trees, forbidden))
    np.testing.assert_allclose([row[0] for row in found], [row[0] for row in expected], atol=1e-4)
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    assert model._packs == packs
    assert [f"{kind} does not read trees" in note for note in model.notes] == [True] * (not packs)


def test_a_model_that_takes_a_mask_and_ignores_it_is_found_out(folder, capsys):
    model = Theirs.load(str(folder), device="cpu")
    forward = model.model.transformer.forward
    model.model.transformer.forward = lambda *a, attention_mask=None, **more: forward(*a, **more)
    trees = questions()
    np.testing.assert_allclose(
        [row[0] for row in flat(trees, model.score(trees))], [row[0] for row in one_by_one(model, trees)], atol=1e-4
    )
    assert "does not read trees (log-probabilities differ by" in capsys.readouterr().err
    assert len(model.notes) == 1


def test_a_deeper_tree_is_tried_again(folder):
    """What goes wrong only behind 40 tokens is seen when the first such tree comes."""
    model = Theirs.load(str(folder), device="cpu")
    forward = model.model.transformer.forward

    def no_mask_when_long(*a, attention_mask=None, **more):
        long = attention_mask is not None and attention_mask.shape[-1] > 40
        return forward(*a, attention_mask=None if long else attention_mask, **more)

    model.model.transformer.forward = no_mask_when_long
    short, long = Tree(), questions()[0]
    short.complete(short.extend(ROOT, [1, 2]), [3])
    model.score([short])
    assert model._packs
    found = list(flat([long], model.score([long])))
    np.testing.assert_allclose([r[0] for r in found], [r[0] for r in one_by_one(model, [long])], atol=1e-4)


def test_a_token_that_begins_every_text_stands_in_front_once(theirs, folder):
    from tokenizers.processors import TemplateProcessing

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, bos)]
    )
    assert tokenizer.encode("a") == [bos, *theirs.encode("a")]
    llama = other("llama", theirs, **LLAMA)
    begun = Theirs(llama.model, tokenizer, name="llama")
    assert begun.n_ctx == llama.n_ctx - 1
    trees, behind = [*questions(), Tree()], []
    trees[-1].complete(trees[-1].extend(ROOT, [bos, 4]), [5])  # its own is enough
    trees[-1].complete(trees[-1].extend(ROOT, [4]), [6])
    for tree in trees:
        behind.append(Tree())
        for node in tree.wanted:
            ids = tree.sequence(node)
            ids = ids if ids[0] == bos else [bos, *ids]
            behind[-1].complete(behind[-1].extend(ROOT, ids[:-1]), ids[-1:])
    expected = list(flat(behind, llama.score(behind)))
    for packs in (True, False):
        found = list(flat(trees, begun.score(trees)))
        np.testing.assert_allclose([row[0] for row in found], [row[0] for row in expected], atol=1e-4)
        assert begun._packs == packs
        begun._packs = False
    how = {"decode": "beam", "max_new_tokens": 5, "ends": frozenset(), "seeds": [0]}
    assert begun.write([[3, 4]], **how) == llama.write([[bos, 3, 4]], **how)


def test_a_row_holds_many_trees_or_one(theirs, monkeypatch):
    trees = questions()
    together = theirs.score(trees)
    monkeypatch.setattr("rein.evals.transformers_model._ROW", 1)
    monkeypatch.setattr("rein.evals.transformers_model._LOGITS_AT_ONCE", 1)
    assert_same_scores(theirs.score(trees), together)


PROMPTS = [[1, 2, 3, 4, 5], [9], [40, 41, 42, 43, 44, 45, 46, 47]]


@pytest.mark.parametrize("decode", ["beam", "greedy", "top2"])
def test_our_weights_write_our_texts(ours, theirs, decode):
    how = {"decode": decode, "max_new_tokens": 12, "ends": frozenset(range(0, 300, 9)), "seeds": [3, 1, 4]}
    for a, b in zip(theirs.write(PROMPTS, **how), ours.write(PROMPTS, **how), strict=True):
        assert a.ids == b.ids
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4, nan_ok=True)


def test_a_model_without_a_cache_writes_too(theirs):
    gpt1 = other("openai-gpt", theirs, n_embd=32, n_layer=2, n_head=4, n_positions=96, initializer_range=0.3)
    how = {"decode": "greedy", "max_new_tokens": 6, "ends": frozenset(), "seeds": [0]}
    (written,) = gpt1.write([[1, 2, 3]], **how)
    ids = [1, 2, 3]
    for token in written.ids:
        with torch.inference_mode():
            assert token == gpt1.model(torch.tensor([ids])).logits[0, -1].argmax().item()
        ids.append(token)
    (beam,) = gpt1.write([[1, 2, 3]], **how | {"decode": "beam"})
    ids = torch.tensor([[1, 2, 3, *beam.ids]])
    with torch.inference_mode():
        logprobs = torch.log_softmax(gpt1.model(ids).logits[0], -1)[2:-1].gather(1, ids[0, 3:, None])
    assert beam.logprob == pytest.approx(logprobs.sum().item(), abs=1e-4)


@pytest.mark.parametrize("n_words", [1, 20, 90])
def test_our_weights_read_a_text_alike_in_several_windows_too(ours, theirs, n_words):
    text = " ".join(f"word {n}," for n in range(n_words))
    nats, n = theirs.read(text, "text")
    expected, expected_n = ours.read(text, "text")
    assert n == expected_n
    assert nats == pytest.approx(expected, rel=1e-5)


def test_tokens_and_ends_are_ours(ours, theirs):
    text = "def f(x):\n    return x  # it's 2.5"
    assert theirs.encode(text) == ours.encode(text)
    assert theirs.decode(theirs.encode(text)) == text
    assert theirs.ends("\n") == ours.ends("\n")
    assert theirs.ends("") == {ours.eot_id} == {theirs.eot_id}
    assert (theirs.n_ctx, theirs.n_params) == (ours.n_ctx, ours.n_params)
    assert theirs.splits_at_space == ours.splits_at_space


def test_the_fingerprint_is_of_the_numbers_not_of_the_place(folder, theirs, tmp_path):
    (tmp_path / "copy").mkdir()
    for file in folder.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    copy = Theirs.load(str(tmp_path / "copy"), device="cpu")
    assert copy.fingerprint == theirs.fingerprint
    with torch.no_grad():
        copy.model.transformer.wpe.weight[3, 3] += 1e-3
    assert Theirs(copy.model, copy.tokenizer, name="copy").fingerprint != theirs.fingerprint
    assert Theirs.load(str(folder), device="cpu", precision="bf16").fingerprint != theirs.fingerprint


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=f"transformers cannot load hf:{tmp_path}"):
        Theirs.load(str(tmp_path), device="cpu")


def test_a_folder_whose_model_is_a_program_of_its_own(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    program = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": program}))
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match="transformers cannot load"):
        Theirs.load(str(tmp_path), device="cpu")


def test_an_empty_text(theirs):
    with pytest.raises(UserError, match="is empty"):
        theirs.read("", "it")


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"rein\[huggingface\]"):
        Theirs.load("gpt2")
