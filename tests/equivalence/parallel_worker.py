"""One of the processes of tests/equivalence/test_parallel.py: five updates of small models under many layouts.

    python -m torch.distributed.run --nproc-per-node N parallel_worker.py OUT CASES

CASES is a JSON list of {layout, kind, slots, recompute, dropout}; the first process writes what each gave to OUT.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch

from rein import optim
from rein.distributed import parse_layout, start, stop
from rein.models.gpt import GPTConfig, initial
from rein.models.parallel import Replica
from rein.models.slots import Slot
from rein.train.reading import slots_of

KINDS = {
    "gpt1": {"norm": "post", "initialisation": "flat"},
    "gpt2": {},
    "gpt3": {"attention": "banded", "band": 5},
    "printed": {"d_head": 12},  # heads that together are wider than the model, as GPT-3 XL is printed
}
BATCH, T, VOCABULARY = 8, 32, 61  # no layout divides 61


def config_of(kind, dropout=0.0):
    return GPTConfig(VOCABULARY, T, 32, 4, 5, dropout=dropout, **KINDS[kind])


def fill(config):
    """Larger weights than a model starts with: a mistake must show."""
    return lambda name, shape: (
        initial(config, name, shape, 7) * (3 if name.endswith("weight") and "ln" not in name else 1)
    )


def run(layout, kind, slots=0, recompute=False, dropout=0.0, compiled=False):
    """Losses, gradient norms, held-out losses and a hash of the weights; `first` is of the weights at the start."""
    torch.set_num_threads(1)
    layout = parse_layout(layout)
    world = start(layout, torch.device("cpu"))
    config = config_of(kind, dropout)
    replica = Replica(config, world, fill(config), slots=slots, recompute=recompute, compiled=compiled)
    groups = optim.decayed_and_not([(held.name, held.local) for held in replica.held])
    optimizer = optim.SteadyAdamW(groups, lr=1e-2) if slots else torch.optim.AdamW(groups, lr=1e-2, fused=True)
    data = torch.randint(0, VOCABULARY, (6, BATCH, T + 1), generator=torch.Generator().manual_seed(0))
    found = {"first": digest(replica), "losses": [], "norms": [], "squares": []}
    count = slots or layout.batch_ranks
    each = BATCH // count
    for opt_step in range(5):
        mine = [
            Slot(data[opt_step, n * each : (n + 1) * each], None, BATCH, min(each, 1 if layout.pp > 1 else 2), opt_step)
            for n in slots_of(world.batch_rank, layout, count)
        ]
        gradients = replica.gradients(mine, measured=True)
        parts = world.gather((world.place("tp"), world.place("pp"), gradients))
        counted = [part for tp, pp, part in parts if tp == pp == 0]
        found["losses"].append(sum(loss for part in counted for loss in part.losses))
        found["squares"].append([square for part in counted for square in part.squares])
        norm = replica.grad_norm()
        found["norms"].append(norm)
        replica.scale_gradients(min(1.0, 1 / norm))
        replica.update(optimizer)
    found["heldout"] = replica.token_losses(data[5, :, :-1], data[5, :, 1:]).mean().item()
    found["last"] = digest(replica)
    return found


def digest(replica):
    total = hashlib.sha256()
    for name, tensor in replica.whole():
        if replica.world.is_first:
            total.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def main():
    warnings.simplefilter("error")
    out, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = [run(**case) for case in cases]
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(found))
    stop()


if __name__ == "__main__":
    main()
