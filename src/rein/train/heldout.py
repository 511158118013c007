"""Looking at a model while it is trained: held-out loss and samples, the same windows, prompts and random numbers
every time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer
from rein.distributed import fixed_sum
from rein.errors import UserError
from rein.models.generate import generate
from rein.models.parallel import Replica
from rein.progress import duration
from rein.report.page import write_report
from rein.run import RunFolder
from rein.text.shards import Shards
from rein.train.pretrain_config import PretrainConfig
from rein.train.reading import documents


class Evaluation:
    """Held-out loss and samples of one run."""

    def __init__(self, config: PretrainConfig, replica: Replica, tokenizer: Tokenizer, heldout: Shards) -> None:
        """Raises   UserError when the held-out text is shorter than one window."""
        T = replica.config.n_ctx
        fitting = (heldout.n_tokens - 1) // T
        if fitting < 1:
            raise UserError(
                f"The held-out text has {heldout.n_tokens:,} tokens, but one window needs {T + 1:,}.",
                "Build the corpus with a larger --heldout-frac, or lower --n-ctx.",
            )
        count = min(max(1, config.heldout_tokens // T), fitting)
        starts = np.linspace(0, (fitting - 1) * T, count).astype(np.int64) // T * T
        self._windows_BT = torch.from_numpy(heldout.windows(starts, T + 1))
        self._bytes_V = torch.from_numpy(tokenizer.token_bytes_V())
        self._config, self._replica, self._tokenizer = config, replica, tokenizer

    def run(self, run: RunFolder | None, *, opt_step: int, tokens: int, wall_s: float) -> str:
        """Measures with all processes; the first one appends the row and the samples, and rewrites the report.

        Returns a line to show.
        """
        nats, n_bytes, n_tokens = self.heldout()
        loss, bits = nats / n_tokens, nats / math.log(2) / max(n_bytes, 1)
        if run is not None:
            run.log(
                opt_step=opt_step,
                tokens=tokens,
                wall_s=round(wall_s, 3),
                heldout_loss=loss,
                heldout_perplexity=math.exp(min(loss, 700)),
                heldout_bits_per_byte=bits,
            )
            for prompt, text in self.samples():
                run.sample(opt_step=opt_step, prompt=prompt, text=text)
            write_report(run.path)
        return (
            f"after {tokens:,} tokens ({duration(wall_s)}): held-out loss {loss:.4f} nats/token, "
            f"perplexity {math.exp(min(loss, 700)):.2f}, {bits:.4f} bits/byte"
        )

    def heldout(self) -> tuple[float, int, int]:
        """Nats, UTF-8 bytes and tokens of the held-out windows' targets."""
        world = self._replica.world
        ranks, count = world.layout.batch_ranks, len(self._windows_BT)
        # Every process makes as many forward passes; what comes twice is not counted.
        rounds = -(-count // ranks)
        mine = [min(world.batch_rank * rounds + n, count - 1) for n in range(rounds)]
        counted = max(0, min(rounds, count - world.batch_rank * rounds))
        losses: list[float] = []
        for part_BT in torch.split(self._windows_BT[mine], max(1, 8192 // self._replica.config.n_ctx)):
            tokens_BT, targets_BT = (x.to(world.device) for x in (part_BT[:, :-1], part_BT[:, 1:]))
            documents_BT = documents(tokens_BT, self._tokenizer.eot_id) if self._config.mask_documents else None
            losses_BT = self._replica.token_losses(tokens_BT, targets_BT, documents_BT)
            losses += losses_BT.double().sum(dim=1).tolist()
        parts = world.gather((world.place("tp"), world.place("pp"), losses[:counted]))
        nats = fixed_sum(loss for tp, pp, part in parts for loss in part if tp == pp == 0)
        targets: Tensor = self._windows_BT[:, 1:]
        return nats, int(self._bytes_V[targets].sum()), targets.numel()

    def samples(self) -> list[tuple[str, str]]:
        """What the model makes of each of the configured prompts, as (prompt, continuation).

        Nothing where no process has the whole model: a checkpoint can be sampled from then, by `rein generate`.
        """
        prompts, layout = self._config.sample_prompts, self._replica.world.layout
        model = self._replica.model
        room = model.config.n_ctx - 1
        ids = [[self._tokenizer.eot_id, *self._tokenizer.encode(prompt).tolist()][-room:] for prompt in prompts]
        if not ids or layout.fsdp * layout.tp * layout.pp > 1:
            return []
        answers = generate(
            model.eval(),
            ids,
            max_new_tokens=min(self._config.sample_tokens, model.config.n_ctx - max(map(len, ids))),
            temperature=0.8,
            top_k=50,
            seed=self._config.seed,
            eot_id=self._tokenizer.eot_id,
        )
        return [(prompt, self._tokenizer.decode(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
