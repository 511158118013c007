"""The tasks of the papers by name: where each is defined. What a user brings is `package.module:Task`, or a file."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rein.errors import UserError, suggestion
from rein.evals.task import Task
from rein.evals.tasks.own import task_from_file

_HERE = "rein.evals.tasks."

TASKS: dict[str, dict[str, str]] = {
    "gpt3": {  # Brown 2020, in the order of Table H.1
        "hellaswag": "hellaswag:HELLASWAG",
        "lambada": "lambada:LAMBADA",
        "storycloze": "storycloze:STORYCLOZE",
        "nq": "closed_book:NQ",
        "triviaqa": "closed_book:TRIVIAQA",
        "webqs": "closed_book:WEBQS",
        "ro_en_16": "translation:RO_EN",
        "en_ro_16": "translation:EN_RO",
        "fr_en_14": "translation:FR_EN",
        "en_fr_14": "translation:EN_FR",
        "de_en_16": "translation:DE_EN",
        "en_de_16": "translation:EN_DE",
        "winograd": "winograd:WINOGRAD",
        "winogrande": "winogrande:WINOGRANDE",
        "piqa": "piqa:PIQA",
        "arc_challenge": "arc:CHALLENGE",
        "arc_easy": "arc:EASY",
        "openbookqa": "openbookqa:OPENBOOKQA",
        "quac": "quac:QUAC",
        "race_h": "race:HIGH",
        "race_m": "race:MIDDLE",
        "squad_v2": "squad:SQUAD",
        "coqa": "coqa:COQA",
        "drop": "drop:DROP",
        "boolq": "superglue_boolq:BOOLQ",
        "cb": "superglue_entailment:CB",
        "copa": "copa:COPA",
        "rte": "superglue_entailment:RTE",
        "wic": "superglue_wic:WIC",
        "wsc": "superglue_wsc:WSC",
        "multirc": "superglue_multirc:MULTIRC",
        "record": "superglue_record:RECORD",
        "anli_r1": "anli:R1",
        "anli_r2": "anli:R2",
        "anli_r3": "anli:R3",
        "2d+": "arithmetic:PLUS_2",
        "2d-": "arithmetic:MINUS_2",
        "3d+": "arithmetic:PLUS_3",
        "3d-": "arithmetic:MINUS_3",
        "4d+": "arithmetic:PLUS_4",
        "4d-": "arithmetic:MINUS_4",
        "5d+": "arithmetic:PLUS_5",
        "5d-": "arithmetic:MINUS_5",
        "6d+": "arithmetic:PLUS_6",  # released, but in no table, as the next and the sum of digits
        "6d-": "arithmetic:MINUS_6",
        "2dx": "arithmetic:TIMES_2",
        "1dc": "arithmetic:THREE_OPERANDS",
        "sum_of_digits": "arithmetic:SUM_OF_DIGITS",
        "cycled_letters": "scrambling:CYCLED",
        "anagrams_1": "scrambling:ANAGRAMS_1",
        "anagrams_2": "scrambling:ANAGRAMS_2",
        "symbol_insertion": "scrambling:INSERTED",
        "reversed_words": "scrambling:REVERSED",
        "sat_analogies": "sat_analogies:SAT_ANALOGIES",
        "ptb": "language_modelling:PENN",  # §3.1.1
    },
    "gpt2": {  # Radford 2019 §3
        "lambada": "lambada:GPT2",
        "cbt_cn": "cbt:COMMON_NOUNS",
        "cbt_ne": "cbt:NAMED_ENTITIES",
        "wikitext2": "language_modelling:WIKITEXT_2",
        "ptb": "language_modelling:PENN",
        "enwik8": "language_modelling:ENWIK8",
        "text8": "language_modelling:TEXT8",
        "wikitext103": "language_modelling:WIKITEXT_103",
        "1bw": "language_modelling:ONE_BILLION",
        "winograd_full": "winograd:FULL",
        "winograd_partial": "winograd:PARTIAL",
        "coqa": "coqa:GPT2",
        "cnn_dm": "summarisation:TLDR",
        "cnn_dm_no_hint": "summarisation:NO_HINT",
        "en_fr_14": "translation:EN_FR_GPT2",
        "fr_en_14": "translation:FR_EN_GPT2",
        "nq": "closed_book:NQ_GPT2",
    },
}

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "gpt3": {
        "superglue": ("boolq", "cb", "copa", "rte", "wic", "wsc", "multirc", "record"),
        "translation": ("ro_en_16", "en_ro_16", "fr_en_14", "en_fr_14", "de_en_16", "en_de_16"),
        "closed_book": ("nq", "triviaqa", "webqs"),
        "anli": ("anli_r1", "anli_r2", "anli_r3"),
        "arithmetic": ("2d+", "2d-", "3d+", "3d-", "4d+", "4d-", "5d+", "5d-", "2dx", "1dc"),
        "scrambling": ("cycled_letters", "anagrams_1", "anagrams_2", "symbol_insertion", "reversed_words"),
        "all": tuple(TASKS["gpt3"]),
    },
    "gpt2": {
        "language_modelling": ("wikitext2", "ptb", "enwik8", "text8", "wikitext103", "1bw"),
        "all": tuple(TASKS["gpt2"]),
    },
}


def expand(protocol: str, names: Sequence[str]) -> list[str]:
    """Names of tasks, each once: a group stands for its tasks.

    Example  >>> expand("gpt3", ["closed_book", "piqa", "nq"])
             ['nq', 'triviaqa', 'webqs', 'piqa']
    Raises   UserError when there is no such protocol.
    """
    groups = GROUPS[_protocol(protocol)]
    return list(dict.fromkeys(one for name in names for one in groups.get(name, (name,))))


def load(protocol: str, name: str) -> Task:
    """A task by its name in the table, as `package.module:Task`, or from a file of JSON lines.

    Example  >>> load("gpt3", "piqa").title
             'PIQA'
    Raises   UserError when there is no such task, the file is none, or there is no metric that it is scored by.
    """
    known = TASKS[_protocol(protocol)]
    if name in known:
        where = _HERE + known[name]
    elif name.endswith(".jsonl"):
        if not Path(name).is_file():
            raise UserError(f"--tasks names {name}, which does not exist as a file.", "Check the path.")
        return task_from_file(Path(name))
    elif ":" in name:
        where = name
    else:
        elsewhere = [other for other in TASKS if name in TASKS[other]]
        raise UserError(
            f"--tasks names {name}, which is no task of {protocol}'s.",
            f"It is one of --protocol {elsewhere[0]}."
            if elsewhere
            else f"{suggestion(name, [*known, *GROUPS[protocol]])} Your own is package.module:Task or FILE.jsonl.",
        )
    module, _, attribute = where.partition(":")
    try:
        task = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--tasks names {name}, which cannot be imported: {error}.", "Check the name.") from error
    if not isinstance(task, Task):
        raise UserError(f"--tasks names {name}, which is a {type(task).__name__}.", "Name a rein.evals.task.Task.")
    if name not in known:
        _check_metrics(name, task)
    return task


def _check_metrics(name: str, task: Task) -> None:
    from rein.evals.metrics import METRICS  # here, for names and titles are wanted without the packages that it needs

    for metric in task.metrics:
        if metric not in METRICS:
            raise UserError(f"{name} is scored by {metric!r}, which is no metric.", suggestion(metric, METRICS))


def _protocol(name: str) -> str:
    if name not in TASKS:
        raise UserError(f"--protocol is {name!r}, which is none.", suggestion(name, TASKS))
    return name
