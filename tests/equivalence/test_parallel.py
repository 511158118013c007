"""One process and many are the same run: the same start, losses and gradient norms; with slots the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rein.distributed import Layout, TreeSum, World, parse_layout
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.parallel import check, stage_layers

sys.path.insert(0, str(Path(__file__).parent))
from parallel_worker import KINDS, run

HERE = Path(__file__).parent
MOST = {"losses": 2e-6, "norms": 2e-5, "heldout": 5e-6}  # five updates of rate 0.01 apart, of losses of about 4


def launch(processes, cases, tmp_path):
    """What parallel_worker.py finds with that many processes."""
    out = tmp_path / f"{processes}.json"
    command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", HERE / "parallel_worker.py"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command), str(out), json.dumps(cases)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


def assert_the_same_run(one, many, case):
    assert many["first"] == one["first"], f"{case}: other weights at the start"
    for what, most in MOST.items():
        apart = (torch.tensor(one[what]) - torch.tensor(many[what])).abs().max().item()
        assert apart <= most, f"{case}: {what} {apart} apart: {one[what]} {many[what]}"


SLOTTED = {"kind": "gpt2", "slots": 8, "dropout": 0.1}


def compare(processes, layouts, slotted, tmp_path, more=()):
    """Every kind of model under every layout, and slots under some: one launch for all. Returns what `more` gave."""
    cases = [{"layout": layout, "kind": kind, "recompute": kind == "gpt3"} for kind in KINDS for layout in layouts]
    cases += [{"layout": layout, **SLOTTED} for layout in slotted]
    found = launch(processes, [*cases, *more], tmp_path)
    single = {kind: run("", kind) for kind in KINDS}
    same = run("", **SLOTTED)
    for case, many in zip(cases, found, strict=False):
        if "slots" in case:
            for what in ("first", "last", "losses", "norms"):
                assert many[what] == same[what], f"{case}: other {what}, to the bit"
        else:
            assert_the_same_run(single[case["kind"]], many, case)
    return found[len(cases) :]


def test_two_processes_are_one(tmp_path):
    more = [
        {"layout": "dp=2", "kind": "gpt2"},
        {"layout": "fsdp=2", "kind": "gpt2"},
        {"layout": "pp=2", "kind": "gpt1", "dropout": 0.2},
    ]
    *measured, dropped = compare(2, ["dp=2", "fsdp=2", "tp=2", "pp=2"], ["dp=2", "fsdp=2"], tmp_path, more)

    one = run("", "gpt2", slots=2)
    for many in measured:  # the noise is measured from the same slots
        for ours, theirs in zip(one["squares"], many["squares"], strict=True):
            assert [n for _, n in ours] == [n for _, n in theirs] == [4, 4]
            assert [s for s, _ in theirs] == pytest.approx([s for s, _ in ours], rel=1e-4)

    # A pipeline's micro-batches are other ones, so their dropout is too; but its two ends drop the same rows.
    alone = run("", "gpt1", dropout=0.2)
    assert dropped["first"] == alone["first"]
    assert dropped["losses"][0] == pytest.approx(alone["losses"][0], abs=0.05)


def test_four_processes_are_one(tmp_path):
    layouts = ["tp=4", "pp=4", "dp=2,fsdp=2", "fsdp=2,tp=2", "dp=2,tp=2", "pp=2,dp=2", "pp=2,fsdp=2", "pp=2,tp=2"]
    compare(4, layouts, ["dp=4", "fsdp=4", "dp=2,fsdp=2"], tmp_path)


@pytest.mark.slow
def test_eight_processes_are_one(tmp_path):
    layouts = ["pp=2,dp=2,tp=2", "pp=2,fsdp=2,tp=2", "dp=2,fsdp=2,tp=2"]
    compare(8, layouts, ["dp=8", "fsdp=8", "dp=2,fsdp=4"], tmp_path)


def test_recomputing_changes_no_bit():
    for kind in ("gpt1", "gpt3"):
        assert run("", kind, recompute=True, dropout=0.1) == run("", kind, dropout=0.1)


def test_a_sum_of_slots_is_a_balanced_tree():
    torch.manual_seed(0)
    numbers = torch.randn(8) * torch.logspace(-4, 4, 8)
    total = TreeSum()
    for number in numbers:
        total.add([number.clone()])
    a, b, c, d, e, f, g, h = numbers
    assert total.result()[0] == ((a + b) + (c + d)) + ((e + f) + (g + h))
    total.add([a])
    total.add([b])
    total.add([c])
    with pytest.raises(AssertionError, match="power of two"):
        total.result()


def test_stages_hold_every_layer_once():
    for layers in (1, 5, 12, 96):
        for stages in range(1, min(layers, 9) + 1):
            held = [layer for stage in range(stages) for layer in stage_layers(layers, stages, stage)]
            assert held == list(range(layers))
            sizes = [len(stage_layers(layers, stages, stage)) for stage in range(stages)]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("tp=3", r"tp=3 does not divide n_head=4"),
        ("pp=6", r"pp=6 is more stages than the model's 5 layers"),
        ("fsdp=3,tp=2", r"fsdp=3 with tp=2 needs n_embd=32 to be a multiple"),
    ],
)
def test_layouts_that_do_not_divide_the_model(layout, words):
    config = GPTConfig(VOCABULARY, 16, 32, 4, 5)
    with pytest.raises(UserError, match=words):
        check(config, World(parse_layout(layout), torch.device("cpu")))


VOCABULARY = 61


def test_a_plain_model_is_what_one_process_holds():
    one = run("", "gpt2")
    with torch.device("meta"):
        names = [name for name, _ in GPT(GPTConfig(VOCABULARY, 32, 32, 4, 5)).named_parameters()]
    assert len(names) == 2 + 5 * 12 + 2
    assert one["losses"][0] > one["losses"][-1] - 1
    assert World(Layout(), torch.device("cpu")).gather(3) == [3]
