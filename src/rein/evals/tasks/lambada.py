"""LAMBADA: the last word of a passage, which only the whole passage tells.

    without shots     She held the torch in front of her. … there's more than a step

    behind shots      Fill in blank:

                      Alice was friends with Bob. Alice went to visit her friend ____. -> Bob

                      She held the torch in front of her. … there's more than a ____. -> step

The word is found when it is the model's likeliest continuation: its last token, the others given
(`lambada_last_token`), all of its tokens (`lambada_last_word`), or all of them where the first may not be a stop word
(`lambada_filtered`). There is no train set, so shots come from the dev set.

Source   Brown 2020 §3.1.2 and Appendix G; Radford 2019 §3.3, text without preprocessing. Paperno 2016.
"""

from collections.abc import Iterable
from dataclasses import replace

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, choices, multiple_choice
from rein.evals.tasks.reading import files, id_of

HUB = ("EleutherAI/lambada_openai", "en")
NAMES: dict[Split, tuple[str, ...]] = {
    "dev": ("lambada_dev.jsonl", "lambada/dev.jsonl", "lambada_development_plain_text.txt"),
    "test": ("lambada_test.jsonl", "lambada_openai.jsonl", "lambada/test.jsonl", "lambada_test_plain_text.txt"),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The passages: OpenAI's file, one of contexts and continuations, or the lines of the authors' own."""
    return files(data, split, NAMES, hub=HUB, hub_splits={"test": "test"})


def ask_plainly(row: Row) -> Iterable[Problem]:
    """The passage up to its last word."""
    context, word = _parted(row)
    parts = {"passage": context, "answer": word}
    yield multiple_choice(id_of(row), context, [word], 0, parts=parts)


def ask(row: Row) -> Iterable[Problem]:
    """The same, and behind shots with a blank in the last word's place."""
    for plain in ask_plainly(row):
        blank = f"{plain.prompt} ____. ->"
        options = choices(blank, [plain.parts["answer"]])
        yield replace(plain, prompt=blank, shot=blank + options[0].completion, options=options, alone=plain)


def _parted(row: Row) -> tuple[str, str]:
    if row.get("continuation") is not None:
        context, word = row["context"].rstrip(), row["continuation"].strip()
    else:
        text = row.values if isinstance(row.values, str) else row["text"]
        context, _, word = text.strip().rpartition(" ")
    if not context or not word:
        raise BadRow(f"{row.where}: it has no last word with a passage before it")
    return context, word


METRICS = ("lambada_last_token", "perplexity_last_token", "lambada_last_word", "perplexity_last_word")

LAMBADA = Task("lambada", "LAMBADA", read, ask, (*METRICS, "lambada_filtered"), "LAMBADA", "cloze", shots=15,
               shots_from="dev", description="Fill in blank:", described="few")  # fmt: skip
GPT2 = replace(LAMBADA, ask=ask_plainly, shots=0, description="")
