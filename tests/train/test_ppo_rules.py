"""PPO's rules: when a response is over, what its tokens earn, which updates there are, how the coefficient follows."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rein.config import from_json, to_json
from rein.errors import UserError
from rein.returns import gae, token_rewards
from rein.text.prompts import FORMATS, format_of
from rein.train.grpo_config import GRPOConfig
from rein.train.guarded import watched
from rein.train.ppo_config import PPOConfig
from rein.train.ppo_rules import (
    Ending,
    adapted_kl_coef,
    minibatches,
    places_of,
    rate_share,
    targets,
    truncate_id,
)
from rein.train.queries import read_all, read_prompts
from rein.train.rlhf_presets import PPO, PPOPreset, ppo_markdown, ppo_table

IDS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


# ------------------------------------------------------------------------------------------------ when it is over


@given(before=IDS, behind=st.lists(st.integers(0, 9), max_size=8))
def test_what_is_sampled_behind_the_end_of_text_changes_nothing(before, behind):
    ending = Ending(eot_id=0)
    assert ending.cut([*before, 0, *behind]) == ending.cut([*before, 0])
    assert ending.cut([*before, 0]).trained == (*before, 0)
    assert ending.cut([*before, 0]).ended
    assert not ending.cut(before).ended
    assert ending.cut(before).trained == tuple(before)


@given(ids=st.lists(st.integers(0, 4), min_size=24, max_size=24))
def test_zieglers_rule_is_that_of_the_released_code(ids):
    """postprocess_fn and filter_fn of lm_tasks.py: a mask of places from truncate_after on, its running sum."""
    truncate, after = 3, 16
    mask = np.array(ids) == truncate
    mask[:after] = False
    kept = [token for token, gone in zip(ids, np.cumsum(mask) - mask > 0, strict=True) if not gone]
    cut = Ending(eot_id=None, truncate_id=truncate, truncate_after_tokens=after, fixed=True).cut(ids)
    assert list(cut.scored) == kept
    assert cut.ended == bool(mask.any())
    assert list(cut.trained) == ids  # all of the fixed length are actions


@given(ids=st.lists(st.integers(0, 4), min_size=1, max_size=20), after=st.integers(0, 10))
def test_where_responses_end_at_the_cut_all_that_is_trained_on_is_scored(ids, after):
    cut = Ending(eot_id=0, truncate_id=3, truncate_after_tokens=after).cut(ids)
    assert cut.trained == cut.scored == tuple(ids[: len(cut.scored)])
    assert len(cut.scored) >= 1
    assert cut.ended == (cut.scored[-1] == 0 or (cut.scored[-1] == 3 and len(cut.scored) > after))


def test_a_truncating_text_is_one_token(tokenizer):
    assert truncate_id(".", tokenizer) == tokenizer.encode(".").tolist()[0]
    assert truncate_id("", tokenizer) is None
    with pytest.raises(UserError, match=r"--truncate-at 'zq zq' is \d tokens of this tokenizer, but it must be one"):
        truncate_id("zq zq", tokenizer)


# ------------------------------------------------------------------------------------------------ what it earns


def test_the_score_falls_on_the_last_token_and_behind_it_nothing_is_worth_anything():
    """Terminal V is 0; N+ and TRL put the score one place further, where no policy loss is."""
    lengths_N = torch.tensor([2, 3])
    rewards_M = token_rewards(torch.tensor([10.0, 20.0]), torch.zeros(5), torch.zeros(5), lengths_N, kl_coef=0.1)
    assert rewards_M.tolist() == [0, 10, 0, 0, 20]
    advantages_M, returns_M = gae(rewards_M, torch.full((5,), 7.0), lengths_N, gamma=1.0, lam=1.0)
    assert returns_M.tolist() == [10, 10, 20, 20, 20]
    assert advantages_M.tolist() == [3, 3, 13, 13, 13]


@given(st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=6), min_size=1, max_size=5), st.booleans(),
       st.booleans())  # fmt: skip
def test_targets_are_those_of_a_plain_loop(rewards, whiten_rewards, whiten_advantages):
    """With padding and masks, a token at a time, as the released codes have them."""
    values = [[0.3 * i - 0.5 for i in range(len(row))] for row in rewards]
    flat = np.array([x for row in rewards for x in row])
    scale = 1 / math.sqrt(flat.var() + 1e-8) if whiten_rewards else 1.0
    plain = [[(x - flat.mean()) * scale + flat.mean() for x in row] for row in rewards]
    advantages, returns = [], []
    for row, V in zip(plain, values, strict=True):
        last, found = 0.0, []
        for t in reversed(range(len(row))):
            last = row[t] + 0.9 * (V[t + 1] if t + 1 < len(row) else 0.0) - V[t] + 0.9 * 0.95 * last
            found.insert(0, last)
        advantages += found
        returns += [a + v for a, v in zip(found, V, strict=True)]
    expected = np.array(advantages)
    if whiten_advantages:
        expected = (expected - expected.mean()) / math.sqrt(expected.var() + 1e-8)
    found_M, returns_M = targets(
        torch.tensor(flat), torch.tensor([v for row in values for v in row], dtype=torch.float64),
        torch.tensor([len(row) for row in rewards]), gamma=0.9, lam=0.95, whiten_rewards=whiten_rewards,
        whiten_advantages=whiten_advantages,
    )  # fmt: skip
    assert np.allclose(returns_M.numpy(), returns, atol=1e-9)
    assert np.allclose(found_M.numpy(), expected, atol=1e-4 if whiten_advantages else 1e-9)


# ------------------------------------------------------------------------------------------------ in which order


@given(seed=st.integers(0, 99), count=st.sampled_from([1, 2, 4]))
def test_a_pass_has_every_episode_once_in_an_order_of_its_own(seed, count):
    parts = minibatches(seed, 5, 1, episodes=16, count=count)
    assert sorted(n for part in parts for n in part) == list(range(16))
    assert [len(part) for part in parts] == [16 // count] * count
    assert parts == minibatches(seed, 5, 1, episodes=16, count=count)
    assert parts != minibatches(seed, 5, 2, episodes=16, count=count)
    assert parts != minibatches(seed, 6, 1, episodes=16, count=count)


def test_the_adaptive_coefficient_follows_the_formula_step_by_step():
    """A trace by hand: far above, within, and far below a target of 6 with a horizon of 10,000."""
    kl_coef, trace = 0.15, []
    for kl_nats in (0.0, 6.0, 6.6, 60.0, 5.4):
        kl_coef = adapted_kl_coef(kl_coef, kl_nats, target_nats=6.0, horizon_episodes=10_000, n=512)
        trace.append(kl_coef)
    factors = (1 - 0.2 * 0.0512, 1.0, 1 + 0.1 * 0.0512, 1 + 0.2 * 0.0512, 1 - 0.1 * 0.0512)
    assert trace == pytest.approx([0.15 * math.prod(factors[: n + 1]) for n in range(5)], rel=1e-12)


def test_rates_fall_to_the_last_batch_or_rise_over_ten():
    linear = [rate_share(n, 8, schedule="linear", warmup_batches=0) for n in range(8)]
    assert linear == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    warmup = [rate_share(n, 500, schedule="warmup", warmup_batches=10) for n in range(12)]
    assert warmup == pytest.approx([0.1 + 0.09 * n for n in range(10)] + [1.0, 1.0])
    assert rate_share(0, 5, schedule="warmup", warmup_batches=0) == 1.0


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6), data=st.data())
def test_places_are_those_of_each_completion(lengths, data):
    which = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True))
    tokens = [(n, t) for n, length in enumerate(lengths) for t in range(length)]
    assert [tokens[p] for p in places_of(lengths, which).tolist()] == [(n, t) for n in which for t in range(lengths[n])]


# ------------------------------------------------------------------------------------------------ queries


def prompts_file(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_prompt_comes_once_before_any_comes_again(tokenizer, tmp_path):
    file = prompts_file(tmp_path / "p.jsonl", [{"prompt": f"number {n}"} for n in range(7)])
    prompts = read_prompts(file, None, format_of("plain", response_tokens=8), tokenizer, n_ctx=64)
    asked = [prompt.query.text for prompt in prompts.of_episodes(3, 0, 21)]
    for first in (0, 7, 14):
        assert sorted(asked[first : first + 7]) == [f"number {n}" for n in range(7)]
    assert asked[:7] != asked[7:14]
    assert [p.query.text for p in prompts.of_episodes(3, 5, 4)] == asked[5:9]  # of the numbers of episodes alone
    assert asked != [prompt.query.text for prompt in prompts.of_episodes(4, 0, 21)]


def test_rows_of_other_splits_are_held_out_and_long_ones_are_counted(tokenizer, tmp_path):
    rows = [{"prompt": "short"}, {"prompt": "long " * 50}, {"prompt": "other", "split": "valid"}]
    file = prompts_file(tmp_path / "p.jsonl", rows)
    format = format_of("plain", response_tokens=8)
    prompts = read_prompts(file, None, format, tokenizer, n_ctx=40)
    assert [p.query.text for p in prompts.train] == ["short"]
    assert [p.query.text for p in prompts.heldout] == ["other"]
    assert prompts.left_out == {"the query is too long": 1}
    others = prompts_file(tmp_path / "o.jsonl", [{"prompt": "one"}, {"prompt": "two", "split": "test"}])
    elsewhere = read_prompts(file, others, format, tokenizer, n_ctx=40)
    assert len(elsewhere.train) == len(elsewhere.heldout) == 2
    assert prompts.sha256() != elsewhere.sha256()
    assert [p.query.text for p in read_all(others, format, tokenizer, n_ctx=40)] == ["one", "two"]
    none = prompts_file(tmp_path / "n.jsonl", rows[1:2])
    with pytest.raises(UserError, match=r"n.jsonl has no prompt that fits \(the query is too long: 1; .* 32 tokens\)"):
        read_all(none, format, tokenizer, n_ctx=40)


def test_no_prompt_that_is_trained_on_is_held_out(tokenizer, tmp_path):
    """Neither from another file, nor of another split, under whatever id."""
    rows = [{"prompt": f"number {n}", "id": str(n)} for n in range(5)]
    again = {"prompt": "number 3", "id": "other", "split": "valid"}
    format = format_of("plain", response_tokens=8)
    file = prompts_file(tmp_path / "p.jsonl", [*rows, again, {"prompt": "new", "split": "valid"}])
    found = read_prompts(file, None, format, tokenizer, n_ctx=64)
    assert [p.query.text for p in found.heldout] == ["new"]
    assert found.left_out == {"held out, but trained on": 1}
    heldout = prompts_file(tmp_path / "h.jsonl", [{"prompt": "unseen"}, *rows[:2]])
    found = read_prompts(file, heldout, format, tokenizer, n_ctx=64)
    assert [p.query.text for p in found.heldout] == ["unseen"]
    assert found.left_out == {"held out, but trained on": 2}
    with pytest.raises(UserError, match=r"p.jsonl holds out no prompt that is not trained on, too \(7 are\)"):
        read_prompts(file, file, format, tokenizer, n_ctx=64)
    both = prompts_file(tmp_path / "b.jsonl", [*rows, again])
    with pytest.raises(UserError, match=r"(?s)b.jsonl holds out no prompt .*\(1 are\).*other splits"):
        read_prompts(both, None, format, tokenizer, n_ctx=64)


def test_prompts_longer_than_the_context_are_stopped_before_anything_begins(tokenizer, tmp_path):
    file = prompts_file(tmp_path / "p.jsonl", [{"prompt": "long " * 50}])
    with pytest.raises(UserError, match=r"\(the query is too long: 1; a query may have 32 tokens\)"):
        read_prompts(file, None, format_of("plain", response_tokens=8), tokenizer, n_ctx=40)
    row = {"subreddit": "a", "title": "b", "post": "c"}
    file = prompts_file(tmp_path / "t.jsonl", [row])
    with pytest.raises(UserError, match=r"query_tokens=512 and response_tokens=48 need n_ctx ≥ 560.*n_ctx=512"):
        read_prompts(file, None, FORMATS["tldr"], tokenizer, n_ctx=512)
    with pytest.raises(UserError, match=r"does not say how long a response may be"):
        read_prompts(file, None, FORMATS["plain"], tokenizer, n_ctx=512)
    with pytest.raises(UserError, match="Lower --response-tokens"):
        read_prompts(file, None, format_of("plain", response_tokens=40), tokenizer, n_ctx=40)


# ------------------------------------------------------------------------------------------------ settings


def settings_of(**changes):
    paths = {"policy": Path("sft"), "prompts": Path("p.jsonl"), "out": Path("out")}
    return PPOConfig(**paths | {"reward": "a:b"} | changes)


def test_presets_differ_exactly_where_the_papers_do():
    """A frozen copy of what tells them apart, to be changed with its source at hand."""
    rows = {name: values for name, *values in ppo_table()[1:]}
    assert rows["kl_control"] == ["adaptive", "fixed", "fixed", "fixed"]
    assert rows["minibatches"] == ["1", "1", "8", "1"]
    assert rows["epochs"] == ["4", "4", "1", "4"]
    assert rows["temperature"] == ["0.7", "0.7", "1", "0.7"]
    assert rows["value"] == ["shared", "separate", "separate", "separate"]
    assert rows["responses"] == ["fixed", "ended", "ended", "ended"]
    assert rows["unended"] == ["score", "keep", "keep", "score"]
    assert rows["schedule"] == ["linear", "linear", "warmup", "linear"]
    assert rows["ema_decay"] == ["0", "0", "0.992", "0"]
    assert rows["ptx_coef"] == ["0", "0", "27.8", "0"]
    assert rows["whiten_rewards"] == ["yes", "yes", "no", "no"]
    assert rows["kl_coef"] == ["0.15", "0.05", "0.02", "0.05"]
    assert "cliprange" not in rows  # 0.2 in all of them, as far as it was printed
    assert all(row[0] in rows or row[0] == "" for row in ppo_table())


def test_the_table_in_markdown_has_a_row_for_each_difference():
    lines = ppo_markdown().splitlines()
    assert lines[0] == "| setting | ziegler2019 | stiennon2020 | instructgpt2022 | n_plus |"
    assert len(lines) == len(ppo_table()) + 1
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("name", PPO)
def test_a_settled_config_has_everything_and_comes_back_from_its_file(name, tmp_path):
    config = settings_of(preset=name).settled()
    for field in dataclasses.fields(PPOPreset):
        if hasattr(config, field.name):
            assert getattr(config, field.name) == getattr(PPO[name], field.name)
    assert config.differs() == []
    (tmp_path / "config.json").write_text(to_json(config))
    assert from_json(PPOConfig, tmp_path / "config.json") == config == config.settled()


def test_what_is_given_goes_before_the_preset_and_is_said():
    config = settings_of(preset="n_plus", episodes=4096, whiten_rewards=True).settled()
    assert config.batches == 8
    assert config.differs() == ["episodes 4,096 (1,000,000)", "whiten_rewards True (False)"]
    shared = settings_of(preset="ziegler2019", learning_rate=1e-3).settled()
    assert shared.value_learning_rate == 1e-3  # one optimiser


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "stienon2020"}, "Did you mean stiennon2020"),
        ({"episodes": 0}, "--episodes is 0, but it must be above 0"),
        ({"kl_coef": -1.0}, "--kl-coef is -1.0, but it must be 0 or more"),
        ({"lam": 1.5}, "--lam is 1.5, but it must be from 0 to 1"),
        ({"temperature": 0.0}, "--temperature is 0.0"),
        ({"episodes_per_batch": 10, "minibatches": 4}, "10 is not a multiple of --minibatches 4"),
        ({"episodes": 100}, "less than --episodes-per-batch 512: not one batch"),
        ({"preset": "ziegler2019", "value_learning_rate": 1e-3}, "--value shared has one optimiser"),
        ({"preset": "ziegler2019", "guard": "raise-kl", "gold": "a:c"}, "and so does --kl-control adaptive"),
        ({"uncertainty_coef": -0.1}, "--uncertainty-coef is -0.1, but it must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        settings_of(**changes)


@pytest.mark.parametrize("config", [PPOConfig, GRPOConfig])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guard": "raise-kl", "kl_coef": 0.0, "gold": "a:c"}, "--guard raise-kl raises --kl-coef, which is 0"),
        ({"guard": "stop"}, "--guard stop has nothing to watch: neither --gold, nor --heldout-reward, nor --kl-limit"),
        ({"guard": "raise-kl", "kl_coef": 0.1}, "--guard raise-kl has nothing to watch"),
        ({"heldout_reward": "a:b"}, "--heldout-reward a:b is what the policy is trained on"),
        (
            {"reward": "runs/r", "heldout_reward": "./runs/../runs/r/"},
            "--heldout-reward .* is what the policy is train",
        ),
    ],
)
def test_a_guard_that_could_not_do_as_it_is_told_is_refused(config, changes, message):
    plain = {"policy": Path("sft"), "prompts": Path("p.jsonl"), "out": Path("out"), "reward": "a:b"}
    with pytest.raises(UserError, match=message):
        config(**plain | changes)


@pytest.mark.parametrize("config", [PPOConfig, GRPOConfig])
def test_a_guard_that_acts_looks_often_enough_to_say_anything(config):
    """It is silent for eight evaluations, and wants three in a row."""
    plain = {"policy": Path("sft"), "prompts": Path("p.jsonl"), "out": Path("out"), "reward": "a:b", "episodes": 64_000}
    found = {guard: config(**plain, guard=guard, gold="a:c", kl_coef=0.1).settled().evaluate_every_episodes
             for guard in ("off", "warn", "stop", "raise-kl")}  # fmt: skip
    assert found == {"off": 6400, "warn": 6400, "stop": 2000, "raise-kl": 2000}
    assert config(**plain, guard="stop", gold="a:c", evaluate_every_episodes=9).settled().evaluate_every_episodes == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "warn, by --gold a:c, every 10 episodes"),
        ({"kl_limit_nats": 5.0}, "warn, by --gold a:c and KL up to 5 nats, every 10 episodes"),
        ({"gold": "", "kl_limit_nats": 5.0, "guard": "stop"}, "stop, by KL up to 5 nats, every 10 episodes"),
        ({"gold": "", "heldout_reward": "runs/b"}, "warn, by --heldout-reward runs/b, every 10 episodes"),
        ({"gold": ""}, "off, evaluated every 10 episodes; nothing to watch"),
        ({"guard": "off"}, "off, evaluated every 10 episodes"),
    ],
)
def test_what_is_watched_is_said(changes, words):
    config = settings_of(**{"gold": "a:c", "evaluate_every_episodes": 10} | changes)
    assert watched(config, 4) == words
    assert watched(config, 0) == "none: no prompts are held out"
