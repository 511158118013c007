"""One process and many are the same run: the same start, losses and gradient norms; with slots the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rein.distributed import Layout, TreeSum, World, parse_layout
from rein.errors import UserError
from rein.models.gpt import GPT
from rein.models.held import stage_layers
from rein.models.parallel import Replica, check
from rein.models.slots import Slot

sys.path.insert(0, str(Path(__file__).parent))
from parallel_worker import BATCH, KINDS, VOCABULARY, T, config_of, fill, run

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
    found = json.loads(out.read_text())
    assert len(found) == len(cases)
    return found


def assert_the_same_run(one, many, case):
    assert many["first"] == one["first"], f"{case}: other weights at the start"
    for what, most in MOST.items():
        apart = (torch.tensor(one[what]) - torch.tensor(many[what])).abs().max().item()
        assert apart <= most, f"{case}: {what} {apart} apart: {one[what]} {many[what]}"


SLOTTED = {"kind": "gpt2", "slots": 8, "dropout": 0.1}


def compare(processes, layouts, slotted, tmp_path, more=()):
    """Every kind of model under every layout, and slots under some: one launch for all.

    Returns what was found, by layout and kind, and what `more` gave.
    """
    cases = [{"layout": layout, "kind": kind, "recompute": kind == "gpt3"} for kind in KINDS for layout in layouts]
    cases += [{"layout": layout, **SLOTTED} for layout in slotted]
    found = launch(processes, [*cases, *more], tmp_path)
    single = {kind: run("", kind) for kind in KINDS}
    same = run("", **SLOTTED)
    for case, many in zip(cases, found[: len(cases)], strict=True):
        if "slots" in case:
            for what in ("first", "last", "losses", "norms"):
                assert many[what] == same[what], f"{case}: other {what}, to the bit"
        else:
            assert_the_same_run(single[case["kind"]], many, case)
    known = {
        (case["layout"], case["kind"]): one for case, one in zip(cases, found, strict=False) if "slots" not in case
    }
    return known, found[len(cases) :]


def test_two_processes_are_one(tmp_path):
    more = [{"layout": "pp=2", "kind": "gpt1", "dropout": 0.2}]
    known, (dropped,) = compare(2, ["dp=2", "fsdp=2", "tp=2", "pp=2"], ["dp=2", "fsdp=2"], tmp_path, more)

    one = run("", "gpt2", slots=2)
    for many in (known["dp=2", "gpt2"], known["fsdp=2", "gpt2"]):  # the noise is measured from the same slots
        for ours, theirs in zip(one["squares"], many["squares"], strict=True):
            assert [n for _, n in ours] == [n for _, n in theirs] == [4, 4]
            assert [s for s, _ in theirs] == pytest.approx([s for s, _ in ours], rel=1e-4)

    # A pipeline's micro-batches are other ones, so their dropout is too; but its two ends drop the same rows.
    alone = run("", "gpt1", dropout=0.2)
    assert dropped["first"] == alone["first"]
    assert dropped["losses"][0] == pytest.approx(alone["losses"][0], abs=0.05)


@pytest.mark.slow
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
    with pytest.raises(UserError, match=words):
        check(config_of("gpt2"), World(parse_layout(layout), torch.device("cpu")))


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_has_the_loss_and_the_gradient_of_a_plain_model(kind):
    config = config_of(kind)
    model = GPT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(fill(config)(name, tuple(parameter.shape)))
    windows_BT = torch.randint(0, VOCABULARY, (BATCH, T + 1), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(windows_BT[:, :-1]).flatten(0, 1), windows_BT[:, 1:].flatten())
    loss.backward()

    replica = Replica(config, World(Layout(), torch.device("cpu")), fill(config))
    gradients = replica.gradients([Slot(half_BT, None, BATCH, 2, None) for half_BT in windows_BT.chunk(2)])
    assert sum(gradients.losses) == pytest.approx(loss.item(), abs=2e-6)
    grads = {held.name: held.grad() for held in replica.held}
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-6)
    norm = torch.cat([grad.flatten() for grad in expected.values()]).norm().item()
    assert replica.grad_norm() == pytest.approx(norm, rel=1e-5)


def test_what_one_process_gathers_is_its_own():
    assert World(Layout(), torch.device("cpu")).gather(3) == [3]
