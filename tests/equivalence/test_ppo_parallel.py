"""PPO, supervised starts and reward models over several processes are those of one: same responses, losses, norms.

All runs are in float32. After four batches of four updates each, no number is further apart than `MOST` of its size.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rein import checkpoint
from rein.bpe.tokenizer import load_tokenizer
from rein.config import replace, to_json
from rein.distributed import Layout, World
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.parallel import Replica
from rein.models.rows import Completion
from rein.run import read_rows
from rein.text.build import BuildConfig, build
from rein.train.ppo import ppo
from rein.train.processes import everyones, layout_of, of_like_length, turns

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import ppo_cases
from ppo_parallel_worker import LOOPS, NUMBERS

HERE = Path(__file__).parent
MOST = 2e-5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A supervised model, a reward model and prompts in the vocabulary of a small corpus."""
    import textwrap

    folder = tmp_path_factory.mktemp("ppo")
    (folder / "text.txt").write_text(Path(textwrap.__file__).read_text())
    build(
        BuildConfig(source="text", paths=(folder / "text.txt",), out=folder / "corpus", n_vocab=300, heldout_frac=0.1)
    )
    rows = [{"group_id": str(n), "prompt": f"Say {n}: ", "outputs": [f"{n} is {'ab'[n * k % 2]}{k}" for k in (1, 3, 4)],
             "ranks": [1, 2, 3] if n % 3 else [2, 1, 2], "labeler": f"l{n % 2}",
             "split": "train" if n < 24 else f"valid{1 + n % 2}"} for n in range(36)]  # fmt: skip
    (folder / "ranked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ppo_cases.place(load_tokenizer(folder / "corpus"), folder)


def kinds(place):
    """A value network of its own; a shared trunk; averages, text and clipping, with shares that are not alike."""
    uneven = {"episodes": 24, "episodes_per_batch": 6, "minibatches": 2, "tokens_at_once": 64}
    return {
        "separate": {},
        "shared": {"preset": "ziegler2019", "reward": str(place / "reward")},
        "averaged": {"preset": "instructgpt2022", "ema_decay": 0.9, "clip_norm": 0.5, "ptx_per_episode": 1.0,
                     "ptx_data": str(place / "corpus"), "ptx_tokens": 16, **uneven},
        "supervised": {"loop": "sft"},
        "packed": {"loop": "sft", "pack": True, "tokens_at_once": 80, "ptx_data": str(place / "corpus"),
                   "ptx_frac": 0.3, "ptx_tokens": 16},
        "reward": {"loop": "reward", "tokens_at_once": 120},
    }  # fmt: skip


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent / 'train'}{os.pathsep}{HERE}"}


def compare(processes, layouts, place, tmp_path):
    """Every kind of run under every layout in one launch, beside one process."""
    cases = [{"place": str(place), "name": f"{kind}-{layout}", "parallel": layout, **changes}
             for kind, changes in kinds(place).items() for layout in layouts]  # fmt: skip
    command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               HERE / "ppo_parallel_worker.py", tmp_path / "found.json", json.dumps(cases)]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = dict(zip([case["name"] for case in cases], json.loads((tmp_path / "found.json").read_text()), strict=True))
    for kind, changes in kinds(place).items():
        alone = dict(changes)
        loop = LOOPS[alone.pop("loop", "ppo")]
        one = loop(str(place), f"{kind}-one-{processes}", **alone)
        assert any("grad_norm" in row for row in one["rows"])
        for layout in layouts:
            many = found[f"{kind}-{layout}"]
            assert many["written"] == one["written"], f"{kind} {layout}: other responses"
            assert_like(one["rows"], many["rows"], f"{kind} {layout}")


def assert_like(ones, others, what):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert abs(value - other[name]) <= MOST * max(1.0, abs(value)), f"{what}: {name} {value} {other[name]}"


def test_two_processes_are_one(place, tmp_path):
    compare(2, ["dp=2", "fsdp=2"], place, tmp_path)


@pytest.mark.slow
def test_four_processes_are_one(place, tmp_path):
    """A minibatch of three: one process has nothing to do."""
    compare(4, ["dp=4", "fsdp=4", "dp=2,fsdp=2"], place, tmp_path)


# ------------------------------------------------------------------------------------------------------ the command


def start(config, place):
    """The command in a session of its own, so that a signal reaches it and its processes, as Ctrl-C does."""
    path = place / f"{config.out.name}.json"
    path.write_text(to_json(config))
    words = [sys.executable, str(HERE / "ppo_parallel_worker.py"), str(path)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment()
    )


def wait_for(process, condition):
    limit = time.monotonic() + 120
    while process.poll() is None and not condition() and time.monotonic() < limit:
        time.sleep(0.02)


def numbers(out):
    rows = read_rows(out / "metrics.jsonl")
    return [{name: row[name] for name in (*NUMBERS, "opt_step") if name in row} for row in rows]


def test_killed_in_two_processes_and_finished_in_one(place):
    """kill -9 of one of two while they save after every batch: the other says so, and one process does the rest."""
    config = ppo_cases.settings(
        place, "killed", parallel="fsdp=2", episodes=96, checkpoint_every_s=0.0, ema_decay=0.9, heldout_prompts=2
    )
    folder = config.out / "checkpoints"
    process = start(config, place)
    wait_for(process, lambda: checkpoint.all_steps(folder))
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2, process.communicate()[1]
    os.kill(int(children[-1]), signal.SIGKILL)
    _, messages = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert "Traceback" not in messages, messages
    reached = checkpoint.all_steps(folder)
    assert reached
    assert checkpoint.step_of(reached[-1]) < 48, "it was done before it could be killed"
    checkpoint.verify(reached[-1])

    ppo(replace(config, parallel=""))
    whole = replace(config, parallel="", out=config.out.with_name("whole"))
    ppo(whole)
    assert_like(numbers(whole.out), numbers(config.out), "killed")
    for name in ("model.safetensors", "value/model-00001-of-00002.safetensors"):
        one, other = (load_file(checkpoint.latest(out) / name) for out in (whole.out, config.out))
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_interrupted_in_two(place):
    """Ctrl-C, as a terminal sends it to all of them, saves once and says so once."""
    config = ppo_cases.settings(place, "interrupted", parallel="dp=2", episodes=80_000, evaluate_every_episodes=80_000)
    process = start(config, place)
    wait_for(process, lambda: len(numbers(config.out)) > 3)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130, messages
    assert messages.count("Finishing this update and saving") == 1
    assert messages.count("Interrupted.") == 1
    assert "Traceback" not in messages
    assert len(checkpoint.all_steps(config.out / "checkpoints")) == 1
    assert 0 < checkpoint.read_about(checkpoint.latest(config.out))["position"]["batches"] < 10_000


@pytest.mark.slow
def test_a_score_that_is_no_number_in_one_process_is_said_by_the_first(place):
    config = ppo_cases.settings(
        place, "broken", parallel="dp=2", reward="ppo_parallel_worker:broken_in_the_second", heldout_prompts=1
    )
    process = start(config, place)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2, messages
    assert messages.count("broken_in_the_second scores the response") == 1
    assert "Traceback" not in messages


# --------------------------------------------------------------------------------------------------- who does what


def worlds(ranks):
    """As each of so many processes sees itself."""

    class Seen(World):
        batch_rank = property(lambda self: self.rank)

    return [Seen(Layout(dp=ranks), torch.device("cpu"), rank=rank) for rank in range(ranks)]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), ranks=st.integers(1, 5), at_once=st.integers(1, 40)
)
def test_each_completion_counts_once_and_all_take_as_many_turns(lengths, ranks, at_once):
    completions = [Completion((1,), (2,) * length) for length in lengths]
    which = list(range(len(lengths)))[::-1]
    found = [turns(which, of_like_length(completions, at_once), world) for world in worlds(ranks)]
    assert len({len(mine) for mine in found}) == 1
    assert sorted(n for mine in found for group, counts in mine if counts for n in group) == sorted(which)
    assert all(group for mine in found for group, _ in mine)


def test_what_all_found_is_in_the_order_of_the_list(monkeypatch):
    for world in worlds(3):
        monkeypatch.setattr(type(world), "gather", lambda self, mine: [["a", "d"], ["b", "e"], ["c"]])
        assert everyones(world, lambda: []) == ["a", "b", "c", "d", "e"]


def test_one_process_hears_the_error_of_another(monkeypatch):
    (world, _) = worlds(2)
    monkeypatch.setattr(type(world), "gather", lambda self, mine: [mine, UserError("bad", "mend it")])
    with pytest.raises(UserError, match="bad"):
        everyones(world, lambda: [1])


def test_products_and_layers_are_not_shared(place):
    assert layout_of("dp=2,fsdp=3").batch_ranks == 6
    for layout in ("tp=2", "dp=2,pp=2"):
        with pytest.raises(UserError, match=f"--parallel {layout} shares products or layers"):
            ppo(ppo_cases.settings(place, "none", parallel=layout))


def test_python_alone_does_not_start_processes(place):
    with pytest.raises(UserError, match=r"--parallel dp=2 is 2 processes, but torchrun started 1"):
        ppo(ppo_cases.settings(place, "none", parallel="dp=2"))


def test_a_model_that_is_there_stays_the_model_of_one_process():
    model = GPT(GPTConfig(11, 8, 8, 2, 1)).initialise(0)
    replica = Replica.of(model, World(Layout(), torch.device("cpu")))
    with replica.gathered() as whole:
        assert whole is replica.at_hand is model
    other = dict(GPT(model.config).initialise(1).named_parameters())
    replica.load(lambda name, shape: other[name].detach())
    assert all(torch.equal(p, other[name]) for name, p in model.named_parameters())
