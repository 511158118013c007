"""Scores are those of transformers' class, whatever lies beside a text; folders come back to the bit; zero is where it
should be."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein import checkpoint
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import load_model, save_model
from rein.models.laplace import fit
from rein.models.laplace import load as load_layer
from rein.models.laplace import save as save_layer
from rein.models.rows import Completion, lay_out
from rein.models.scalar import (
    Scalar,
    about_scalar,
    combined,
    load_ensemble,
    load_scalar,
    save_scalar,
    scalar_from,
    score_all,
)

transformers = pytest.importorskip("transformers")

N_VOCAB = 300
IDS = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=7).map(tuple)
COMPLETIONS = st.lists(st.builds(Completion, IDS, IDS), min_size=1, max_size=6)


def random_scalar(tokenizer, seed=0, **changes) -> Scalar:
    shape = {"n_ctx": 24, "n_embd": 16, "n_head": 2, "n_layer": 2, **changes}
    net = scalar_from(GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **shape)).initialise(seed), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
        net.gain.fill_(1.7)
        net.bias.fill_(-0.3)
    return net.eval()


def saved(folder, net, tokenizer):
    checkpoint.save(folder, lambda part: save_scalar(part, net, tokenizer), {"scalar": about_scalar(net)})
    return folder


# ------------------------------------------------------------------------------------------------------ transformers


@pytest.mark.parametrize(("kind", "name"), [
    ({"norm": "pre"}, "GPT2ForSequenceClassification"),
    ({"norm": "post", "initialisation": "flat"}, "OpenAIGPTForSequenceClassification"),
])  # fmt: skip
def test_transformers_loads_our_folder_and_gives_our_scores(kind, name, tokenizer, tmp_path):
    net = random_scalar(tokenizer, **kind)
    folder = saved(tmp_path / "rm", net, tokenizer)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert type(theirs).__name__ == name
    assert theirs.config.num_labels == 1
    each = Completion((5, 6, 7), (8, 9, tokenizer.eot_id))
    with torch.no_grad():
        logit = theirs(torch.tensor([[*each.query, *each.response]])).logits[0, 0]
    ours = score_all(net, [each])[0]
    assert ours.item() == pytest.approx((net.gain * (logit + net.b) + net.bias).item(), abs=1e-5)


def test_a_model_of_theirs_has_their_logits_here(tokenizer, tmp_path):
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=tokenizer.n_vocab, n_positions=24, n_embd=16, n_head=2, n_layer=2, num_labels=1
    )
    theirs = transformers.GPT2ForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    net, _ = load_scalar(tmp_path)
    ids = torch.randint(0, tokenizer.n_vocab, (1, 9))
    with torch.no_grad():
        logit = theirs(ids).logits[0, 0].item()
    assert score_all(net, [Completion(tuple(ids[0, :4].tolist()), tuple(ids[0, 4:].tolist()))])[0].item() == (
        pytest.approx(logit, abs=1e-5)
    )


def test_silent_bug_a_pad_that_is_the_end_of_text_moves_where_the_reward_is_read(tokenizer, tmp_path):
    """transformers looks for the last token that is no padding: with pad = end of text it reads one token too early.

    So our folder declares no padding, and theirs refuses a batch that it would read wrongly.
    """
    net = random_scalar(tokenizer)
    folder = saved(tmp_path / "rm", net, tokenizer)
    assert json.loads((folder / "config.json").read_text()).get("pad_token_id") is None
    theirs = transformers.GPT2ForSequenceClassification.from_pretrained(folder).eval()
    each = Completion((5, 6), (7, tokenizer.eot_id))
    ids = torch.tensor([[*each.query, *each.response]])
    with pytest.raises(ValueError, match="padding"), torch.no_grad():
        theirs(ids.expand(2, -1))
    right = score_all(net, [each])[0].item()
    with torch.no_grad():
        at_eot = theirs(ids).logits[0, 0]
        theirs.config.pad_token_id = tokenizer.eot_id
        before_eot = theirs(ids).logits[0, 0]
    assert right == pytest.approx((net.gain * (at_eot + net.b) + net.bias).item(), abs=1e-5)
    assert abs((before_eot - at_eot).item()) > 1e-3


# --------------------------------------------------------------------------------------- padding, mates, precision


@settings(max_examples=30, deadline=None)
@given(completions=COMPLETIONS, pad=st.integers(0, N_VOCAB - 1), seed=st.integers(0, 5), data=st.data())
def test_silent_bug_a_score_depends_on_padding_batch_mates_order_or_pad_id(tokenizer, completions, pad, seed, data):
    net = random_scalar(tokenizer, seed).double()
    rows = lay_out(completions)
    expected = [net.scores(lay_out([each]))[0].item() for each in completions]
    lengths = torch.tensor([len(each) for each in completions])
    padding_BT = torch.arange(rows.tokens_BT.shape[1]) >= lengths[:, None]
    padded = type(rows)(**{**vars(rows), "tokens_BT": rows.tokens_BT.masked_fill(padding_BT, pad)})
    assert net.scores(padded).tolist() == pytest.approx(expected, abs=1e-9)
    order = data.draw(st.permutations(range(len(completions))))
    assert net.scores(lay_out([completions[n] for n in order])).tolist() == (
        pytest.approx([expected[n] for n in order], abs=1e-9)
    )
    assert score_all(net.float(), completions, tokens_at_once=20).tolist() == pytest.approx(expected, abs=1e-4)


def test_silent_bug_off_by_one_the_score_is_read_at_the_last_token_itself(tokenizer):
    net = random_scalar(tokenizer)
    one, other = (score_all(net, [Completion((5, 6), (7, last))])[0].item() for last in (8, tokenizer.eot_id))
    assert abs(one - other) > 1e-3
    assert lay_out([Completion((5, 6), (7, 8))]).last_N.tolist() == [3]


def test_the_head_multiplies_in_float32_whatever_the_trunk_does(tokenizer):
    net = random_scalar(tokenizer)
    x_ND = torch.randn(5, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(x_ND)
    assert found.dtype == torch.float32
    assert torch.equal(found, net(x_ND))


# ------------------------------------------------------------------------------------------------------------- zero


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 99), spread=st.booleans())
def test_normalising_moves_the_references_to_zero_and_changes_no_preference(tokenizer, seed, spread):
    net = random_scalar(tokenizer, seed)
    x_ND, others_ND = torch.randn(64, 16) * 3 + 5, torch.randn(32, 16)
    before_N = net(others_ND)
    for again in range(2):
        net.normalise(net(x_ND), spread=spread and not again)
    after_N = net(x_ND).double()
    assert abs(after_N.mean().item()) <= 1e-6
    assert not spread or after_N.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    lead = before_N[:, None] - before_N
    assert torch.equal(lead.abs() > 1e-5, (lead.abs() > 1e-5) & (torch.sign(lead) == torch.sign(
        net(others_ND)[:, None] - net(others_ND))))  # fmt: skip
    if not spread:
        moved = net(others_ND)[:, None] - net(others_ND)
        assert torch.allclose(moved, lead, atol=2e-5)  # σ of it, too, stays what it was


def test_what_cannot_be_normalised_on_is_named(tokenizer):
    net = random_scalar(tokenizer)
    with pytest.raises(UserError, match=r"score of text 2 of the 3 to normalise on is nan"):
        net.normalise(torch.tensor([0.0, math.nan, 1.0]))
    with pytest.raises(UserError, match=r"All 3 texts to normalise on have the score 2"):
        net.normalise(torch.full((3,), 2.0), spread=True)


# ---------------------------------------------------------------------------------------------------------- on disk


@pytest.mark.parametrize("changes", [{}, {"norm": "post"}, {"attention": "banded", "band": 3}], ids=str)
def test_a_folder_comes_back_to_the_bit(changes, tokenizer, tmp_path):
    net = random_scalar(tokenizer, **changes)
    again, same = load_scalar(saved(tmp_path / "rm", net, tokenizer))
    assert same.sha256() == tokenizer.sha256()
    for (name, a), (_, b) in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_policy_is_no_reward_model_and_a_reward_model_no_policy(tokenizer, tmp_path):
    model = GPT(GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=8, n_embd=8, n_head=1, n_layer=1)).initialise(0)
    (tmp_path / "policy").mkdir()
    save_model(tmp_path / "policy", model, tokenizer)
    with pytest.raises(UserError, match=r"holds no reward model: there is no score\.weight"):
        load_scalar(tmp_path / "policy")
    with pytest.raises(UserError, match=r"score\.weight"):
        load_model(saved(tmp_path / "rm", scalar_from(model, 0), tokenizer))


def test_a_damaged_file_is_named(tokenizer, tmp_path):
    folder = saved(tmp_path / "rm", random_scalar(tokenizer), tokenizer)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="has changed since it was saved"):
        load_scalar(folder)


def test_two_labels_are_refused(tokenizer, tmp_path):
    config = transformers.GPT2Config(
        vocab_size=tokenizer.n_vocab, n_positions=8, n_embd=8, n_head=1, n_layer=1, num_labels=2
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"score\.weight of shape \(2, 8\)"):
        load_scalar(tmp_path)


# -------------------------------------------------------------------------------------------- ensembles, uncertainty


def test_an_ensemble_is_its_members(tokenizer, tmp_path):
    nets = [random_scalar(tokenizer, seed) for seed in range(3)]
    for seed, net in enumerate(nets):
        saved(tmp_path / "members" / f"seed-{seed}", net, tokenizer)
    loaded, _ = load_ensemble(tmp_path)
    rows = lay_out([Completion((1, 2), (3,)), Completion((4,), (5, 6))])
    scores_MN = torch.stack([net.scores(rows) for net in nets])
    assert torch.equal(torch.stack([net.scores(rows) for net in loaded]), scores_MN)
    assert torch.allclose(combined(scores_MN, "mean"), scores_MN.mean(0))
    assert torch.equal(combined(scores_MN, "worst"), scores_MN.min(0).values)
    assert torch.allclose(
        combined(scores_MN, "uncertain", uncertainty_coef=0.5), scores_MN.mean(0) - 0.5 * scores_MN.var(0, correction=0)
    )


def test_the_heads_posterior_is_the_inverse_of_the_losss_curvature(tokenizer, tmp_path):
    net = random_scalar(tokenizer)
    better, worse = torch.randn(40, 16), torch.randn(40, 16)
    layer = fit(net, better, worse)
    x_ND, gain = (better - worse).double(), net.gain.double()

    def minus_log_posterior(w_D):
        return -torch.nn.functional.logsigmoid(gain * (x_ND @ w_D)).sum() + 17 / 2 * (w_D**2).sum()

    curvature = torch.autograd.functional.hessian(minus_log_posterior, net.weight.detach().double())
    covariance = (layer.factor_DD @ layer.factor_DD.T).double()
    assert torch.allclose(covariance, torch.linalg.inv(curvature), atol=1e-6)
    z_ND = torch.randn(3, 16)
    drawn_MN = layer.draws(net, z_ND, 4000)
    assert torch.allclose(drawn_MN.std(0), layer.std(net, z_ND), rtol=0.06)
    assert torch.allclose(drawn_MN.mean(0), net(z_ND).detach(), atol=0.06)
    save_layer(tmp_path, layer)
    again = load_layer(tmp_path)
    assert torch.equal(again.factor_DD, layer.factor_DD)
    assert load_layer(tmp_path / "elsewhere") is None
