"""Scores: from a reward model or a function; of one response alone; finite, or stopped with the response named."""

import sys

import pytest
import torch

from rein import checkpoint
from rein.bpe.trainer import train
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.reward import EnsembleReward, FunctionReward, ModelReward, finite, is_function, load_reward
from rein.models.rows import Completion, lay_out
from rein.models.scalar import about_scalar, save_scalar, scalar_from, score_all
from rein.text.prompts import format_of

CPU = torch.device("cpu")
COMPLETIONS = [Completion((5, 6, 7), (8, 9)), Completion((1,), (2, 3, 4, 5, 6)), Completion((9, 9), (9,))]
CONTEXTS = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}]
TEXTS = ["one", "two", "three"]


@pytest.fixture
def golds(tmp_path, monkeypatch):
    """A module of a user's own, with functions good and bad."""
    (tmp_path / "golds.py").write_text(
        "def length(context, text): return len(text)\n"
        "def asked(context, text): return float(context['prompt'] == 'b')\n"
        "def nan(context, text): return float('nan') if text == 'two' else 1.0\n"
        "def words(context, text): return 'good'\n"
        "def fails(context, text): return context['post']\n"
        "def one(text): return 1.0\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("golds", None)


def reward_model(folder, tokenizer, *, seed=1, **config):
    net = scalar_from(GPT(GPTConfig(tokenizer.n_vocab, 16, 16, 2, 2)).initialise(0), seed)
    about = {"format": "rein-checkpoint-1", "made_by": "reward", "scalar": about_scalar(net)}
    about |= {"config": config} if config else {}
    checkpoint.save(folder, lambda part: save_scalar(part, net, tokenizer), about)
    return net


@pytest.mark.usefixtures("golds")
def test_a_function_is_given_the_row_and_the_text(tokenizer):
    length = load_reward("golds:length", tokenizer, device=CPU)
    assert length.scores(COMPLETIONS, CONTEXTS, TEXTS).tolist() == [3.0, 3.0, 5.0]
    assert load_reward("golds:asked", tokenizer, device=CPU).scores(COMPLETIONS, CONTEXTS, TEXTS).tolist() == [0, 1, 0]
    assert length.n_ctx is None
    assert length.name == "golds:length"


def test_a_reward_model_reads_the_last_token_of_the_response(tokenizer, tmp_path):
    net = reward_model(tmp_path / "reward", tokenizer)
    reward = load_reward(str(tmp_path / "reward"), tokenizer, device=CPU)
    assert reward.n_ctx == 16
    found = reward.scores(COMPLETIONS, CONTEXTS, TEXTS)
    with torch.no_grad():
        alone = torch.cat([net.scores(lay_out([each])) for each in COMPLETIONS])
    assert found.dtype == torch.float32
    assert torch.allclose(found, alone, atol=1e-6)


def test_a_score_depends_neither_on_batch_mates_nor_on_their_order(tokenizer, tmp_path):
    reward = ModelReward(reward_model(tmp_path / "reward", tokenizer), "r", tokens_at_once=8)
    found = reward.scores(COMPLETIONS, CONTEXTS, TEXTS)
    turned = reward.scores(COMPLETIONS[::-1], CONTEXTS[::-1], TEXTS[::-1])
    assert torch.allclose(found, turned.flip(0), atol=1e-6)


def test_nothing_asks_for_a_gradient_of_a_reward_model(tokenizer, tmp_path):
    reward_model(tmp_path / "reward", tokenizer)
    reward = load_reward(str(tmp_path / "reward"), tokenizer, device=CPU)
    assert not reward.scores(COMPLETIONS, CONTEXTS, TEXTS).requires_grad
    assert not any(p.requires_grad for p in reward._scalar.parameters())


def test_a_path_with_a_colon_is_a_path_where_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs:1").mkdir()
    assert not is_function("runs:1")
    assert is_function("runs:2")
    assert not is_function("runs/reward")


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.usefixtures("golds")
def test_a_score_that_is_no_number_is_stopped_with_the_response_named(tokenizer):
    with pytest.raises(UserError, match=r"golds:nan scores the response 'two' as nan.*finite"):
        load_reward("golds:nan", tokenizer, device=CPU).scores(COMPLETIONS, CONTEXTS, TEXTS)
    with pytest.raises(UserError, match=r"'one' as inf, and 1 more of 3"):
        finite(torch.tensor([float("inf"), 1.0, float("nan")]), TEXTS, "r")
    with pytest.raises(UserError, match="--reward golds:words gave 'good', and not a number, for the response 'one'"):
        load_reward("golds:words", tokenizer, device=CPU).scores(COMPLETIONS, CONTEXTS, TEXTS)


@pytest.mark.usefixtures("golds")
def test_a_function_that_fails_or_takes_other_arguments_is_named_with_the_response(tokenizer):
    with pytest.raises(
        UserError, match=r"--judge golds:fails failed for the response 'one' with KeyError: 'post' \(go"
    ):
        FunctionReward("golds:fails", "--judge").scores(COMPLETIONS, CONTEXTS, TEXTS)
    with pytest.raises(UserError, match=r"(?s)--reward golds:one takes other arguments than .*too many positional"):
        load_reward("golds:one", tokenizer, device=CPU)
    with pytest.raises(UserError, match=r"builtins:max failed for the response 'one' with TypeError: '>' not"):
        FunctionReward("builtins:max").scores(COMPLETIONS, CONTEXTS, TEXTS)  # it does not say what it takes


def test_a_reward_model_that_diverged_is_stopped(tokenizer, tmp_path):
    net = reward_model(tmp_path / "reward", tokenizer)
    with torch.no_grad():
        net.weight[0] = float("nan")
    with pytest.raises(UserError, match=r"my run scores the response 'one' as nan, and 2 more of 3"):
        ModelReward(net, "my run").scores(COMPLETIONS, CONTEXTS, TEXTS)


@pytest.mark.usefixtures("golds")
def test_what_is_no_function_is_named(tokenizer):
    with pytest.raises(UserError, match="--gold golds:number is no function"):
        FunctionReward("golds:number", "--gold")
    with pytest.raises(UserError, match="--reward is 'golds:lenght'"):
        load_reward("golds:lenght", tokenizer, device=CPU)
    with pytest.raises(UserError, match="cannot be imported"):
        load_reward("no_such_module:score", tokenizer, device=CPU)


def test_a_reward_model_of_another_tokenizer_is_stopped(tokenizer, tmp_path):
    reward_model(tmp_path / "reward", train(["other words, of another text " * 50], 262))
    with pytest.raises(UserError, match=r"has another tokenizer than the policy \(262 ids, and 300"):
        load_reward(str(tmp_path / "reward"), tokenizer, device=CPU)


def test_a_folder_that_holds_none_is_named(tokenizer, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        load_reward(str(tmp_path / "nowhere"), tokenizer, device=CPU)


# --------------------------------------------------------------------------------------------- an ensemble


@pytest.fixture
def ensemble(tokenizer, tmp_path):
    """What `rein reward --ensemble` leaves: the best one, and all of them."""
    nets = [reward_model(tmp_path / "run" / "members" / f"seed-{n}", tokenizer, seed=n) for n in range(3)]
    reward_model(tmp_path / "run" / "best", tokenizer, seed=1)
    return tmp_path / "run", nets


def test_the_members_of_an_ensemble_are_asked_as_one(ensemble, tokenizer):
    folder, nets = ensemble
    scores_MN = torch.stack([score_all(net, COMPLETIONS) for net in nets])
    assert not torch.equal(scores_MN[0], scores_MN[1])
    expected = {
        "best": scores_MN[1],
        "mean": scores_MN.sum(0) / 3,
        "worst": scores_MN.min(0).values,
        "uncertain": scores_MN.mean(0) - 0.5 * ((scores_MN - scores_MN.mean(0)) ** 2).sum(0) / 3,
    }
    for how, expected_N in expected.items():
        found = load_reward(str(folder), tokenizer, device=CPU, ensemble=how, uncertainty_coef=0.5)
        assert found.n_ctx == 16
        assert found.name == str(folder)
        assert torch.allclose(found.scores(COMPLETIONS, CONTEXTS, TEXTS), expected_N, atol=1e-6), how


def test_a_member_that_diverged_is_stopped(ensemble, tokenizer):
    _, nets = ensemble
    with torch.no_grad():
        nets[2].b.fill_(float("nan"))
    with pytest.raises(UserError, match="my run scores the response 'one' as nan"):
        EnsembleReward(nets, "my run", "worst").scores(COMPLETIONS, CONTEXTS, TEXTS)


@pytest.mark.usefixtures("golds")
def test_members_that_were_not_kept_are_missed(tokenizer, tmp_path):
    reward_model(tmp_path / "reward", tokenizer)
    with pytest.raises(UserError, match=r"--ensemble is worst, but --reward .*reward has no members"):
        load_reward(str(tmp_path / "reward"), tokenizer, device=CPU, ensemble="worst")
    with pytest.raises(UserError, match="--ensemble is mean, but --reward golds:length is a function"):
        load_reward("golds:length", tokenizer, device=CPU, ensemble="mean")


# --------------------------------------------------------------------------------------------- its format


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ({"format": "tldr"}, "docstring", "was trained on queries of --format tldr, but they are docstring here"),
        (
            {"format": "docstring", "query_tokens": None},
            ("docstring", 64),
            "was trained with --query-tokens 96, to which .* of 64",
        ),
        (
            {"format": "docstring", "query_tokens": 64},
            "docstring",
            "was trained with --query-tokens 64, to which .* of 96 here",
        ),
    ],
)
def test_a_reward_model_of_another_format_is_stopped_with_both_named(tokenizer, tmp_path, trained, asked, message):
    reward_model(tmp_path / "reward", tokenizer, **trained)
    name, most = (asked, None) if isinstance(asked, str) else asked
    with pytest.raises(UserError, match=f"--heldout-reward .*reward {message}"):
        load_reward(str(tmp_path / "reward"), tokenizer, device=CPU, flag="--heldout-reward",
                    format=format_of(name, query_tokens=most))  # fmt: skip


def test_the_same_format_is_let_through_and_an_unknown_one_is_said(tokenizer, tmp_path, capsys):
    for number, (trained, asked) in enumerate([
        ({"format": "docstring", "query_tokens": 96}, format_of("docstring")),
        ({"format": "plain", "query_tokens": 64}, format_of("plain", query_tokens=24)),  # long ones are left out
    ]):  # fmt: skip
        reward_model(tmp_path / str(number), tokenizer, **trained)
        load_reward(str(tmp_path / str(number)), tokenizer, device=CPU, format=asked)
    assert capsys.readouterr().err == ""
    reward_model(tmp_path / "unknown", tokenizer)
    load_reward(str(tmp_path / "unknown"), tokenizer, device=CPU, format=format_of("plain"))
    assert "does not say in which format it read queries; they are plain here." in capsys.readouterr().err
