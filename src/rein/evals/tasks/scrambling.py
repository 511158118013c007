"""Word puzzles: the letters of a word in another order, or with signs between them.

    Please unscramble the letters into a word, and write that word:
    asinoc = casino

    cycled letters      the word turned round by some places       "asinoc = casino"
    anagrams 1          all letters but the first and the last      "skicts = sticks"
    anagrams 2          all but the first two and the last two      "volwskagen = volkswagen"
    symbol insertion    a space or a sign between all letters       "r e!c.i p r o.c a/l = reciprocal"
    reversed words                                                  "taefed = defeat"

Where OpenAI's released files are among the data (10,000 words each), those are the test set. All else is made of a list
of words: `words.txt` or Norvig's `count_1w.txt` among the data, the 10,000 first of them with 5 to 14 letters; or else
the 2,000 or so words that Python's own documentation topics use twice. No word is in two of the sets.

Source   Brown 2020 §3.9.2 and Appendix G; the signs, and that an anagram is not the word itself where it can be
         another one, are those of the released files.
Differs  No list of words is shipped; the paper takes the 10,000 most frequent ones of Norvig's.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import cycle, islice
from pydoc_data.topics import topics  # type: ignore[import-untyped, unused-ignore]
from random import Random

from rein.evals.data import Data, Row, rows
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import id_of, text_in

SIGNS = " ./!"
MOST_WORDS = 10_000
_WORD = re.compile(r"(?<![\w'])[a-z]{5,14}(?![\w'])")


def cycled(word: str, random: Random) -> str:
    """Turned by one place to all but one."""
    by = random.randrange(1, len(word))
    return word[by:] + word[:by]


def anagram(kept: int, word: str, random: Random) -> str:
    """With `kept` letters in their places at either end, the others in another order where there is one."""
    middle = list(word[kept:-kept])
    random.shuffle(middle)
    while "".join(middle) == word[kept:-kept] and len(set(middle)) > 1:
        random.shuffle(middle)
    return word[:kept] + "".join(middle) + word[-kept:]


def inserted(word: str, random: Random) -> str:
    """With a sign or a space behind every letter but the last."""
    return "".join(letter + random.choice(SIGNS) for letter in word[:-1]) + word[-1]


def reversed_word(word: str, random: Random) -> str:
    """From its end."""
    return word[::-1]


# name → (title, released file, what is done to a word)
KINDS: dict[str, tuple[str, str, Callable[[str, Random], str]]] = {
    "cycled_letters": ("Cycled Letters", "cycle_letters_in_word.jsonl", cycled),
    "anagrams_1": ("Anagrams 1", "mid_word_1_anagrams.jsonl", partial(anagram, 1)),
    "anagrams_2": ("Anagrams 2", "mid_word_2_anagrams.jsonl", partial(anagram, 2)),
    "symbol_insertion": ("Symbol Insertion", "random_insertion_in_word.jsonl", inserted),
    "reversed_words": ("Reversed Words", "reversed_words.jsonl", reversed_word),
}


def generated(name: str, words: Sequence[str], n: int, seed: int) -> list[dict[str, str]]:
    r"""`n` puzzles in the released form, of the words in random order, again from the first when they are used up.

    Example  >>> generated("reversed_words", ["casino"], 1, seed=0)
             [{'context': '\nonisac =', 'completion': ' casino'}]
    """
    random, change = Random(f"{name}/{seed}"), KINDS[name][2]
    order = random.sample(list(words), len(words))
    return [{"context": f"\n{change(word, random)} =", "completion": f" {word}"} for word in islice(cycle(order), n)]


def words_in(data: Data) -> list[str]:
    """The words of the user's list, or of Python's documentation, most frequent first."""
    path = data.find("words.txt", "count_1w.txt")
    if path is None:
        return _documented()
    words = (str(row.values).split("\t")[0].strip().lower() for row in rows(path))
    return list(islice(dict.fromkeys(word for word in words if _WORD.fullmatch(word)), MOST_WORDS))


@lru_cache
def _documented() -> list[str]:
    counts = Counter(_WORD.findall("\n".join(topics.values()).lower()))
    return sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word))


def read(name: str, data: Data, split: Split) -> Iterable[Row]:
    """The released file as the test set, where it is; else what is generated."""
    path = data.find(f"gpt3/{KINDS[name][1]}", KINDS[name][1])
    released = list(rows(path)) if path else []
    if split == "test" and released:
        return released
    words = [word for word in words_in(data) if name != "anagrams_2" or len(word) > 5]  # of 5, one letter is free
    taken = {str(row.get("completion")).strip() for row in released}
    rest = Random("words").sample(found := [word for word in words if word not in taken], len(found))
    quarter = len(rest) // 4
    parts = {"dev": rest[:quarter], "train": rest[quarter : 2 * quarter], "test": rest[2 * quarter :]}
    if released:
        parts["train"] = rest[quarter:]
    puzzles = generated(name, parts[split], len(parts[split]), 0)
    return [Row(values, f"{name}/{split}:{number}") for number, values in enumerate(puzzles, 1)]


def ask(row: Row) -> Iterable[Problem]:
    """The letters and an equals sign, without the line end in front of them."""
    puzzle, word = str(row["context"]).strip("\n"), text_in(row, "completion")
    yield free_form(id_of(row), puzzle, [word], parts={"question": puzzle, "answer": word})


def _task(name: str) -> Task:
    title = KINDS[name][0]
    return Task(
        name, title, partial(read, name), ask, ("exact_match",), title, "written", shots=100, separator="\n",
        max_new_tokens=12,
        description="Please unscramble the letters into a word, and write that word:",
    )  # fmt: skip


CYCLED, ANAGRAMS_1, ANAGRAMS_2, INSERTED, REVERSED = (_task(name) for name in KINDS)
