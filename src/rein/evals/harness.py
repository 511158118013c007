"""Our models inside EleutherAI's lm-evaluation-harness: its tasks, prompts, metrics and tables, our forward pass.

    python -m rein.evals.harness --model rein --model_args checkpoint=runs/first --tasks lambada_openai,piqa

That is lm-eval's own command line, which knows one model more: lm-eval finds models by name, and a name is known once
the module that registers it was imported. From Python: `lm_eval.simple_evaluate(model=ReinLM("runs/first"), tasks=…)`.

Text becomes tokens, long contexts are cut, and texts are split into windows exactly as lm-eval's `hf` model does, so
that both give the same numbers on the same weights; only requests that share a context read it once here.

Source   lm_eval/api/model.py and lm_eval/models/huggingface.py of EleutherAI/lm-evaluation-harness, version 0.4.13.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rein.bpe.tokenizer import StreamDecoder
from rein.errors import UserError
from rein.evals.language_model import Ours
from rein.models.generate import generate
from rein.models.tree import ROOT, Tree, TreeScores
from rein.progress import Progress

try:
    from lm_eval import utils  # type: ignore[import-not-found, unused-ignore]
    from lm_eval.api.model import TemplateLM  # type: ignore[import-not-found, unused-ignore]
    from lm_eval.api.registry import register_model  # type: ignore[import-not-found, unused-ignore]
    from lm_eval.models.utils import (  # type: ignore[import-not-found, unused-ignore]
        handle_stop_sequences,
        normalize_gen_kwargs,
        postprocess_generated_text,
    )
except ImportError:
    _missing = UserError("lm-evaluation-harness is not installed.", "Install it: pip install lm-eval.")
    if __name__ == "__main__":
        print(f"UserError: {_missing}", file=sys.stderr)
        sys.exit(2)
    raise _missing from None

_BATCH_TOKENS = 8192  # of trees that are scored together
_SAMPLING = {"do_sample", "temperature", "top_k", "top_p", "until", "max_gen_toks"}


@register_model("rein")
class ReinLM(TemplateLM):  # type: ignore[misc, unused-ignore]
    """A model of ours as lm-eval sees one: three verbs, in text."""

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
    ) -> None:
        """`batch_size` is how many texts are generated at once; "auto" leaves it at 16. Scoring batches by tokens."""
        super().__init__()
        if device.startswith("cuda") and not torch.cuda.is_available():  # lm-eval's own default is cuda:0
            device = "cpu"
        self._model = Ours.load(Path(checkpoint), device=device, precision=precision)
        self._device = self._model.model.wte.device
        self._at_once = int(batch_size) if str(batch_size).isdigit() else min(16, max_batch_size or 16)

    # What lm-eval's own code asks of a model.

    @property
    def eot_token_id(self) -> int:
        """The end of text, which also stands in front of one."""
        if self._model.eot_id is None:
            raise UserError(
                f"{self._model.name} knows no end of text, so that a text behind nothing has no probability.",
                "Choose tasks whose contexts are not empty.",
            )
        return self._model.eot_id

    @property
    def max_length(self) -> int:
        """Tokens that the model can read."""
        return self._model.n_ctx

    @property
    def max_gen_toks(self) -> int:
        """How many tokens are written where a task does not say."""
        return 256

    @property
    def tokenizer_name(self) -> str:
        """A name for lm-eval's caches of requests."""
        return f"rein-{self._model.tokenizer.sha256()[:16]}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text; nothing is ever added, as with GPT-2's tokenizer."""
        return self._model.encode(string)

    # ------------------------------------------------------------------------------------------ likelihood

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """log P of each continuation, and whether it is the greedy one; requests of one context share a tree."""
        trees: dict[tuple[int, ...], Tree] = {}
        paths: list[tuple[tuple[int, ...], list[int]]] = []
        for strings, context, continuation in requests:
            if not continuation:  # a text that a token spans, or nothing
                raise UserError(f"The continuation of {strings} has no tokens of its own.", "Leave out that question.")
            # The last token is predicted and not read, so that one more than n_ctx fits.
            kept = tuple([*context, *continuation][-(self.max_length + 1) :][: -len(continuation)])
            tree = trees.setdefault(kept, Tree())
            paths.append((kept, tree.complete(tree.extend(ROOT, kept), continuation)))
        scores: dict[tuple[int, ...], TreeScores] = {}
        with Progress("log-likelihoods", total=len(trees), unit="contexts", quiet=disable_tqdm) as bar:
            for batch in _batches(trees):
                found = self._model.score([trees[context] for context in batch])
                scores.update(zip(batch, found, strict=True))
                bar.advance(len(batch))
        answers = []
        for (strings, *_rest), (context_ids, nodes) in zip(requests, paths, strict=True):
            one = scores[context_ids]
            answers.append((float(one.logprobs_N[nodes].sum()), bool(one.top_N[nodes].all())))
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answers[-1])
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log P of whole texts, behind the end of text, in windows that score every token once."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            rolling = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(utils.make_disjoint_window, rolling):
                windows.append((None, context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[number] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # -------------------------------------------------------------------------------------------- writing

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, or sampled where a task asks for it, each up to its first stop string."""
        texts = [""] * len(requests)
        by_options: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_options.setdefault(repr(request.args[1]), []).append(number)
        with Progress("writing", total=len(requests), unit="texts", quiet=disable_tqdm) as bar:
            for numbers in by_options.values():
                options = self._options(requests[numbers[0]].args[1])
                prompts = {number: self._prompt(requests[number].args[0], options) for number in numbers}
                by_length = sorted(numbers, key=lambda number: -len(prompts[number]))
                for first in range(0, len(by_length), self._at_once):
                    batch = by_length[first : first + self._at_once]
                    written = self._write([prompts[number] for number in batch], batch, options)
                    for number, text in zip(batch, written, strict=True):
                        texts[number] = text
                        self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    bar.advance(len(batch))
        return texts

    def _options(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What a task asks of writing, checked."""
        options = dict(normalize_gen_kwargs(asked, self.max_gen_toks))
        if strange := sorted(options.keys() - _SAMPLING):
            raise UserError(
                f"A task asks for {', '.join(strange)} in its generation_kwargs, which ReinLM does not have.",
                f"It has {', '.join(sorted(_SAMPLING))}.",
            )
        options["until"] = handle_stop_sequences(options.get("until"), eos=None)
        return options

    def _prompt(self, context: str, options: dict[str, Any]) -> list[int]:
        """As much of the end of a context as leaves room for what is to be written."""
        room = self.max_length - options["max_gen_toks"]
        if room < 1:
            raise UserError(
                f"max_gen_toks={options['max_gen_toks']} leaves no room for a prompt in n_ctx={self.max_length}.",
                f"Pass --gen_kwargs max_gen_toks={max(1, self.max_length // 4)}.",
            )
        return (self.tok_encode(context) or [self.eot_token_id])[-room:]

    def _write(self, prompts: list[list[int]], numbers: list[int], options: dict[str, Any]) -> list[str]:
        decoders = [StreamDecoder(self._model.tokenizer) for _ in prompts]
        texts = [""] * len(prompts)

        def on_token(row: int, token: int) -> bool:
            texts[row] += decoders[row].push(token)
            return any(stop and stop in texts[row] for stop in options["until"])

        sampled = options.get("do_sample", False)
        generate(
            self._model.model,
            prompts,
            max_new_tokens=options["max_gen_toks"],
            temperature=options.get("temperature", 1.0) if sampled else 0.0,
            top_k=options.get("top_k") if sampled else None,
            top_p=options.get("top_p") if sampled else None,
            numbers=numbers,
            eot_id=self._model.eot_id,
            precision=self._model.precision,
            on_token=on_token,
        )
        whole = [text + decoder.flush() for text, decoder in zip(texts, decoders, strict=True)]
        return [postprocess_generated_text(text, options["until"], think_end_token=None) for text in whole]


def _batches(trees: dict[tuple[int, ...], Tree]) -> list[list[tuple[int, ...]]]:
    """Contexts whose trees are scored together, the longest first."""
    batches: list[list[tuple[int, ...]]] = []
    held = 0
    for context in sorted(trees, key=lambda context: -trees[context].n_read()):
        size = trees[context].n_read()
        if not batches or held + size > _BATCH_TOKENS:
            batches.append([])
            held = 0
        batches[-1].append(context)
        held += size
    return batches


def main() -> int:
    """lm-eval's command line, with `--model rein` known to it. Returns the exit status: 0 done, 2 a user's error."""
    from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found, unused-ignore]

    try:
        cli_evaluate()
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
