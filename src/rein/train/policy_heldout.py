"""Looking at a policy while it is trained: the same held-out prompts and random numbers every time.

Flow     held-out prompts → responses of the policy, and once of the model it began from → scores by the reward, by a
         gold score and by another reward model, KL, lengths, ROUGE → a row of metrics, samples side by side, the guard

What the guard watches is the gold score, or without one the reward model that the policy is not trained on; and the KL,
where it has a limit. The model with the best of it so far, within that limit, is kept in RUN/best, unless the guard is
off: it is what the run's name means to others. Of several that noise alone tells apart it is the luckiest, so that its
own score here flatters it: what it is worth, other prompts say.
Source   Gao 2022, section 2 (a gold score beside the proxy); Stiennon 2020, section 4.3 and Fig. 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rein import checkpoint
from rein.errors import UserError
from rein.evals.rouge import rouge_l
from rein.models.gpt import GPT
from rein.models.huggingface import save_model
from rein.models.ops import site_seed
from rein.models.reward import Reward, load_reward
from rein.models.rows import Completion, sums_of
from rein.monitors import Mean, compare, measure
from rein.over_optimisation import OverOptimisation
from rein.report.page import write_report
from rein.run import RunFolder
from rein.train.guarded import Guarded
from rein.train.ppo_config import known
from rein.train.ppo_parts import Parts, about
from rein.train.responses import respond

# Of monitors.py, those that are a metric.
HABITS = ("repeated_frac", "copied_title_frac", "copied_post_frac", "bigram_overlap_frac", "distinct_2_frac")


class Watched(Guarded, Protocol):
    """The settings that an evaluation needs: PPO's, or those of another way to train a policy on scores."""

    # fmt: off
    @property
    def out(self) -> Path: ...
    @property
    def heldout_prompts(self) -> int: ...
    @property
    def show_samples(self) -> int: ...
    @property
    def guard_confidence(self) -> float: ...
    @property
    def guard_patience_evaluations(self) -> int: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def tokens_at_once(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def seed(self) -> int: ...
    # fmt: on


@dataclass(frozen=True)
class Written:
    """What a model wrote to the held-out prompts, what it is worth by the name of who says so, and its habits."""

    completions: list[Completion]
    texts: list[str]
    ended: list[bool]
    scores: dict[str, Tensor]
    habits: dict[str, Mean]


@dataclass
class Found:
    """What an evaluation comes to."""

    line: str
    stop: str = ""  # why the run ends here
    raise_by: float = 1.0  # what the KL coefficient is multiplied by
    row: dict[str, float] = field(default_factory=dict)


class HeldOut:
    """The held-out evaluation of one run, with its guard."""

    def __init__(self, config: Watched, parts: Parts, state: dict[str, Any]) -> None:
        """`state` is what `state_dict` gave, or empty.

        Raises   UserError when there is something to watch, and no prompt to watch it on.
        """
        self._config, self._parts = config, parts
        self._prompts = parts.prompts.heldout[: config.heldout_prompts]
        self._judges: dict[str, Reward] = {"proxy": parts.reward}
        judges = (("gold", config.gold, "--gold"), ("second", config.heldout_reward, "--heldout-reward"))
        given = [flag for _, spec, flag in judges if spec] + ["--kl-limit-nats"] * (config.kl_limit_nats is not None)
        if given and len(self._prompts) < 2:
            raise UserError(
                f"{given[0]} is given, but there are {len(self._prompts)} held-out prompts.",
                'Give --heldout, or rows with another "split" than train in --prompts.',
            )
        for name, spec, flag in judges:
            if spec:
                self._judges[name] = load_reward(
                    spec, parts.text.tokenizer, device=parts.actors.device, precision=parts.precision,
                    tokens_at_once=config.tokens_at_once, flag=flag, format=parts.text.format,
                )  # fmt: skip
        self._truth = next((name for name in ("gold", "second") if name in self._judges), None)
        self._guard = OverOptimisation(
            confidence=config.guard_confidence,
            patience_evaluations=config.guard_patience_evaluations,
            kl_limit_nats=config.kl_limit_nats,
        )
        if "guard" in state:
            self._guard.load_state_dict(state["guard"])
        self.stopped: str = state.get("stopped", "")
        self._best: float | None = state.get("best")
        self._start: Written | None = None

    def state_dict(self) -> dict[str, Any]:
        """All that later evaluations depend on, as plain JSON values."""
        return {"guard": self._guard.state_dict(), "stopped": self.stopped, "best": self._best}

    def run(self, run: RunFolder, position: dict[str, Any]) -> Found:
        """Evaluates, appends the row and the samples, keeps the best, rewrites the report, and asks the guard."""
        if not self._prompts:
            write_report(run.path)
            return Found(f"after {position['episodes']:,} episodes: no held-out prompts to evaluate on")
        model = self._parts.result
        written = self._write(model)
        row = self._row(written, model)
        run.log(**{name: position[name] for name in ("opt_step", "episodes", "tokens")},
                wall_s=round(position["wall_s"], 3), **row)  # fmt: skip
        if self._start is None:
            self._start = self._write(self._parts.actors.reference)
        self._samples(run, written, self._start, position["opt_step"])
        found = Found(self._line(row, position["episodes"]), row=row)
        for finding in compare(self._start.habits, written.habits):
            found.line += f"\n{finding.words} ({finding.name}: {finding.start:.3g} → {finding.now:.3g})"
        if self._truth is not None or self._config.kl_limit_nats is not None:
            self._watch(run, row, position, found)
        write_report(run.path)
        return found

    # ------------------------------------------------------------------------------------------------- measuring

    def _write(self, model: GPT) -> Written:
        config, parts = self._config, self._parts
        written = respond(
            model, self._prompts, parts.ending, max_new_tokens=parts.text.response_tokens,
            temperature=known(config.temperature), seed=site_seed(config.seed, 1), numbers=range(len(self._prompts)),
            slots=config.slots, precision=parts.precision,
        )  # fmt: skip
        texts = parts.text.decoded(written.scored)
        contexts = [prompt.query.fields for prompt in self._prompts]
        scores = {name: judge.scores(written.scored, contexts, texts) for name, judge in self._judges.items()}
        habits = measure(
            [each.response for each in written.scored], texts, contexts, eot_id=parts.text.tokenizer.eot_id,
            entropies_M=written.entropies_M if not parts.ending.fixed else None,
        )  # fmt: skip
        return Written(written.trained, texts, written.ended, scores, habits)

    def _row(self, written: Written, model: GPT) -> dict[str, float]:
        kl_N = self._kl(written.completions, model)
        row = {
            "heldout_kl_nats": float(kl_N.mean()),
            "heldout_response_tokens": sum(len(each.response) for each in written.completions) / len(written.texts),
            "heldout_no_eot_frac": 1 - sum(written.ended) / len(written.ended),
        }
        row |= {f"heldout_{name}": written.habits[name].value for name in HABITS if name in written.habits}
        for name, scores_N in written.scores.items():
            row[f"heldout_{name}"] = float(scores_N.double().mean())
            if len(scores_N) > 1:
                row[f"heldout_{name}_stderr"] = float(scores_N.double().std()) / math.sqrt(len(scores_N))
        pairs = [(text, prompt.query.reference) for text, prompt in zip(written.texts, self._prompts, strict=True)]
        rouges = [rouge_l(text, reference).f1 for text, reference in pairs if reference]
        return row | ({"heldout_rouge_l": sum(rouges) / len(rouges)} if rouges else {})

    def _kl(self, completions: Sequence[Completion], model: GPT) -> Tensor:
        """log π / π_ref of each response: (N,), whose mean is the KL."""
        actors = self._parts.actors
        return sums_of(
            completions, lambda rows: actors.logprobs(model, rows) - actors.reference_logprobs(rows),
            tokens_at_once=self._config.tokens_at_once,
        )  # fmt: skip

    def _samples(self, run: RunFolder, written: Written, start: Written, opt_step: int) -> None:
        """A few responses beside those of the model that the policy began from."""
        for n, prompt in enumerate(self._prompts[: self._config.show_samples]):
            more: dict[str, Any] = {"start": start.texts[n], "reference": prompt.query.reference}
            for name, scores_N in written.scores.items():
                start_N = start.scores[name]
                more |= {name: round(float(scores_N[n]), 4), f"start_{name}": round(float(start_N[n]), 4)}
            run.sample(opt_step=opt_step, prompt=prompt.query.text, text=written.texts[n], **more)

    def _line(self, row: dict[str, float], episodes: int) -> str:
        words = {"proxy": "score", "gold": "gold", "second": "held-out reward"}
        scores = ", ".join(f"{words[name]} {row[f'heldout_{name}']:.3f}" for name in self._judges)
        return (
            f"after {episodes:,} episodes: held-out {scores}, KL {row['heldout_kl_nats']:.2f} nats, "
            f"{row['heldout_response_tokens']:.1f} tokens"
        )

    # -------------------------------------------------------------------------------------------------- guarding

    def _watch(self, run: RunFolder, row: dict[str, float], position: dict[str, Any], found: Found) -> None:
        limit, kl_nats = self._config.kl_limit_nats, row["heldout_kl_nats"]
        truth = None if self._truth is None else row[f"heldout_{self._truth}"]
        stderr = None if self._truth is None else row[f"heldout_{self._truth}_stderr"]
        within = limit is None or kl_nats <= limit
        if self._config.guard != "off" and within and (truth is None or self._best is None or truth > self._best):
            self._best = truth
            self._keep(run, position)
        self._guard.add(position["episodes"], kl_nats, row["heldout_proxy"], truth, stderr)
        verdict = self._guard.verdict()
        if verdict.say == "go" or self._config.guard == "off":
            return
        where = "beyond the limit" if truth is None else f"{verdict.say} the peak"
        found.line += f"\nguard, {where}: {' '.join(verdict.reasons)}"
        if self._config.guard == "raise-kl":
            raised = self._guard.raised_kl_coef(position["kl_coef"])
            found.raise_by = raised / position["kl_coef"]
            found.line += f"\nThe KL coefficient goes from {position['kl_coef']:.4g} to {raised:.4g}."
        elif self._config.guard == "stop" and verdict.say == "past":
            kept = f"the last policy with a KL of at most {limit} nats"
            if self._best is not None:
                what = "gold score" if self._truth == "gold" else "held-out reward"
                kept = f"the policy with the best {what}, {self._best:.3f} on the prompts that it was chosen by"
            self.stopped = found.stop = (
                f"Stopped by the guard after {position['episodes']:,} episodes. {run.path / checkpoint.BEST} is {kept}."
            )

    def _keep(self, run: RunFolder, position: dict[str, Any]) -> None:
        def write(part: Path) -> None:
            save_model(part, self._parts.result, self._parts.text.tokenizer)

        checkpoint.save(run.path / checkpoint.BEST, write, about(self._config, self._parts, position))
