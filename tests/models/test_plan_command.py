"""`rein plan`: what it prints is what the planner found, and what cannot be planned is said."""

import json

import pytest

from rein.errors import UserError
from rein.models.gpt import GPTConfig
from rein.models.plan import DAY_S
from rein.models.plan_command import PlanConfig, plan_command
from rein.models.presets import preset


def printed(capsys, **settings_):
    plan_command(PlanConfig(**settings_))
    return capsys.readouterr().out


def test_a_page(capsys):
    page = printed(capsys, model="gpt3-13b", gpus=64)
    assert "12,853,386,240 parameters" in page
    assert "40% of the peak" in page
    assert "267.8" in page  # petaflop/s-days by 6 N
    assert "rein pretrain --preset gpt3-13b --parallel" in page
    assert "in the last blocks' backward pass" in page or "at the loss" in page
    assert page.count(" × ") >= 6


def test_a_page_where_nothing_fits(capsys):
    page = printed(capsys, model="gpt3-175b", gpus=8, gpu="l4")
    assert "Nothing fits: 23.0 GB are free" in page
    small = printed(capsys, model="gpt3-xl", gpus=1, gpu="l4")
    assert "the fewest on which it fits: 2, with --parallel" in small
    here = printed(capsys, model="gpt3-xl", gpus=1, gpu="cpu", gpu_memory_gb=20, gpu_tflops=1.0)
    assert "Nothing fits: 19.6 GB are free" in here
    assert "a smaller model, may" in here


def test_rows_of_the_eight_sizes_on_eight_h100(capsys):
    # 18 bytes of state a parameter, and days for 300 billion tokens by 6 N at 40% of 989 TFLOP/s.
    rows = json.loads(printed(capsys, all=True, json=True))
    days = [row["days_at_mfu_6n"] for row in rows]
    assert days == pytest.approx([0.8, 2.3, 5.0, 8.7, 17.4, 44, 85, 1149], rel=0.031)
    state = [18 * row["parameters"] / 1e9 for row in rows]
    assert state == pytest.approx([2.3, 6.4, 13.7, 23.7, 47.7, 120, 231, 3143], rel=0.03)
    assert rows[-1]["days_at_mfu_6n"] * 8 / 1024 == pytest.approx(9.0, abs=0.05)
    for row in rows:
        assert row["train_flops"] == row["flops_per_token"] * 300e9
        assert row["days_at_mfu"] == pytest.approx(row["train_flops"] / (8 * 0.4 * 989e12) / DAY_S)
    table = printed(capsys, all=True)
    sizes = ["small", "medium", "large", "xl", "2.7b", "6.7b", "13b", "175b"]
    assert [line.split()[0] for line in table.splitlines()[3:]] == [f"gpt3-{size}" for size in sizes]
    assert "174,604,259,328" in table


def test_json_is_json_and_agrees_with_itself(capsys):
    text = printed(capsys, model="tiny-gpt3", gpu="cpu", gpus=2, gpu_tflops=1.0, json=True, precision="fp32")
    facts = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert facts["machine"]["link_bytes_per_s"] is None
    assert facts["parameters"] == preset("tiny-gpt3").model.n_params()
    for option in facts["layouts"]:
        parts = option["memory_bytes"]
        assert sum(value for name, value in parts.items() if name not in ("moment", "total")) == parts["total"]
        seconds = option["update_s"]
        assert sum(value for name, value in seconds.items() if name != "total") == pytest.approx(seconds["total"])
        assert option["days"] == pytest.approx(facts["train_tokens"] / option["tokens_per_s"] / DAY_S)


def test_this_computer_is_measured(capsys):
    facts = json.loads(printed(capsys, model="tiny-gpt2", gpu="cpu", gpus=1, json=True))
    assert 1e9 < facts["machine"]["flops_per_s"] < 1e15
    assert 1e8 < facts["machine"]["memory_bytes"] < 1e14
    assert facts["layouts"][0]["fits"]


def test_other_sizes_and_gpus(capsys):
    facts = json.loads(
        printed(capsys, model="gpt2-124m", n_layer=2, n_vocab=1000, gpu="mine", gpu_memory_gb=12, gpu_tflops=50,
                gpus=1, train_tokens=10**9, sequences_per_batch=8, sequences_at_once=2, recompute=True, json=True)
    )  # fmt: skip
    model = GPTConfig(1000, 1024, 768, 12, 2)
    assert facts["parameters"] == model.n_params()
    assert facts["tokens_per_s_at_mfu"] == pytest.approx(0.4 * 50e12 / model.train_flops_per_token())
    (option,) = facts["layouts"]
    assert (option["sequences_at_once"], option["micro_batches"], option["recompute"]) == (2, 4, True)
    assert facts["updates"] == pytest.approx(1e9 / 8192)


def test_a_preset_without_a_number_of_tokens_has_no_days(capsys):
    assert "days with --train-tokens" in printed(capsys, model="gpt1", gpus=1)


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({}, r"no model is given[\s\S]*--all"),
        ({"model": "gpt1", "all": True}, "both given"),
        ({"model": "gpt3-13"}, "Did you mean gpt3-13b"),
        ({"model": "gpt1", "gpu": "h10"}, r"--gpu h10 [\s\S]*Did you mean h100[\s\S]*--gpu-memory-gb"),
        ({"model": "gpt1", "gpu": "mine", "gpu_memory_gb": 3.0}, "--gpu mine is not known"),
        ({"model": "gpt1", "gpu": "v100", "precision": "bf16"}, "no products in bfloat16"),
        ({"model": "gpt1", "gpus": 0}, "--gpus is 0"),
        ({"model": "gpt1", "mfu": 40.0}, "--mfu is 40"),
        ({"model": "gpt1", "n_head": 7}, "not a multiple"),
    ],
)
def test_what_cannot_be_planned(given_settings, words):
    with pytest.raises(UserError, match=words):
        plan_command(PlanConfig(**given_settings))


def test_more_gpus_than_sequences(capsys):
    page = printed(capsys, model="gpt2-124m", gpus=1024, sequences_per_batch=2)
    assert "No layout divides the model and its batch over 1024; the fewest on which it fits: 1, with" in page
