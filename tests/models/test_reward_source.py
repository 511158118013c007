"""Scores: from a reward model or a function; of one response alone; finite, or stopped with the response named."""

import sys

import pytest
import torch

from rein import checkpoint
from rein.bpe.trainer import train
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.reward import FunctionReward, ModelReward, finite, is_function, load_reward
from rein.models.rows import Completion, lay_out
from rein.models.scalar import about_scalar, save_scalar, scalar_from

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
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("golds", None)


def reward_model(folder, tokenizer):
    net = scalar_from(GPT(GPTConfig(tokenizer.n_vocab, 16, 16, 2, 2)).initialise(0), 1)
    about = {"format": "rein-checkpoint-1", "made_by": "reward", "scalar": about_scalar(net)}
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
