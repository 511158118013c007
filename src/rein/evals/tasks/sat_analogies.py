"""Analogies of the SAT, a college entrance test: which pair of words is related as a first one is?

    lull is to trust as cajole is to compliance

374 questions in one set: shots come from it, never the problem itself. Read from Turney's SAT-package-V3.txt: blocks of
a source, the pair, five pairs with their parts of speech, and the letter of the right one.

Source   Brown 2020, Appendix G, figure G.12; §3.9.3. Turney 2003.
"""

from collections.abc import Iterable, Iterator

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import files, gold_of, id_of

NAMES: dict[Split, tuple[str, ...]] = {"test": ("SAT-package-V3.txt", "sat_analogies.txt")}


def read(data: Data, split: Split) -> Iterator[Row]:
    """A row for each block of lines."""
    block: list[Row] = []
    for line in files(data, split, NAMES):
        if line.values.startswith("#"):
            continue
        if line.values.strip():
            block.append(line)
        elif block:
            yield _row(block)
            block = []
    if block:
        yield _row(block)


def _row(block: list[Row]) -> Row:
    return Row([line.values.strip() for line in block], block[0].where)


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    block = [line for line in row.values if isinstance(line, str)] if isinstance(row.values, list) else []
    if len(block) != 8:
        raise BadRow(f"{row.where}: it has {len(block)} lines, but a question has 8: source, pair, 5 pairs, letter")
    stem, *pairs = (_related(row, line) for line in block[1:7])
    gold = gold_of(row, block[7], "abcde")
    question = f"{stem} as"
    yield multiple_choice(id_of(row), question, pairs, gold, parts={"question": question, "answer": pairs[gold]})


def _related(row: Row, line: str) -> str:
    words = line.split()
    if len(words) != 3:
        raise BadRow(f"{row.where}: {line!r} is not two words and their parts of speech")
    return f"{words[0]} is to {words[1]}"


SAT_ANALOGIES = Task(
    "sat_analogies", "SAT Analogies", read, ask, published="SAT Analogies", shots=20, shots_from="test", chosen_on=None
)
