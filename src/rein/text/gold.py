"""A gold score of docstring summaries: how good a summary line is, by rules that anybody can read; without a model.

Flow     the rest of the docstring and the name of what it documents, a summary → `gold`, from −2 to 2

It stands in for people, so that whole loops can be run and measured: simulated labelers judge by it, and the truth that
a policy reaches is known. What it looks for, each from 0 to 1 and each a ramp, so that a policy has something to climb:

    about      harmonic mean of: words of the summary that the docstring or the name has / its words; weight of the
               docstring's words that it says / weight of the heaviest it could have said. From 0.75 on it is 1
    form       begins with a capital and a verb in the imperative (half: "Returns", "A", "An", "The"), ends with one
               full stop, is one line, in plain characters
    order      small words where English has them: no "the of", none at the end, not too many and not too few
    length     from 4 to 12 words; nothing at 24
    new        no word and no pair of words twice, no more than four words in a row copied from the docstring

    score = 4 · length · new · (about (0.1 + 0.25 form + 0.25 order) + 0.2 form + 0.2 order) − 2

`length` and `new` multiply, so that neither an empty text nor one that repeats a good word is worth anything; `about`
is worth more the better form and order are, so that a heap of the docstring's words is no summary.
Source   PEP 257 for what a summary line is. The weights are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

LOWEST, HIGHEST = -2.0, 2.0

SHORT_WORDS, LONG_WORDS, ENDLESS_WORDS = 4, 12, 24
COPIED_WORDS = 4  # in a row: such phrases recur in any good summary
ENOUGH_ABOUT = 0.75  # of that mean: a summary has words of its own
SAID_WORDS = 4  # of the docstring's: what a summary can say at most
_NAME_WEIGHT = 3.0  # of a word of the name, in occurrences in the docstring; which count up to that

_WORD = re.compile(r"[a-z0-9]+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")  # of names like readIntoBuffer, HTTPServer
_ODD = re.compile(r"[^ -~]|[{}<>\[\]|\\^~#$%=*@`]{2}|([^\w\s.])\1")  # control, markup, "!!"

_KINDS = {
    word: kind
    for kind, words in (
        ("article", "a an the its their our your my his"),
        ("any", "each every any some no"),
        ("preposition", "of in on at by for with from into onto over under about after before between through as per "
                        "via within without against during until upon than like"),
        ("to", "to"),
        ("clause", "if when where while whether because since"),
        ("which", "this that these those which who whom whose what"),
        ("joining", "and or but nor so then"),
        ("auxiliary", "is are was were be been being has have had do does did can could may might must will would "
                      "shall should"),
        ("not", "not"),
        ("pronoun", "it they them we you he she i there here"),
    )
    for word in words.split()
}  # fmt: skip
# What hardly ever follows what in summaries, and often does when their words are shuffled.
_ODD_PAIRS = frozenset(
    (before, after)
    for before, afters in (
        ("start", "preposition to joining pronoun any clause auxiliary"),
        ("article", "article preposition to clause which joining auxiliary pronoun any not end"),
        ("any", "article clause joining to which end"),
        ("preposition", "preposition clause joining auxiliary to end"),
        ("to", "to preposition joining pronoun end"),
        ("clause", "preposition joining auxiliary end"),
        ("which", "preposition joining pronoun end"),
        ("joining", "preposition to end"),
        ("auxiliary", "preposition clause joining which end"),
        ("not", "joining which end"),
        ("pronoun", "article preposition clause any which"),
    )
    for after in afters.split()
)
# What is left out of "about": small words, and words that fit every docstring.
_SMALL = frozenset(_KINDS) | {"return", "returns", "self", "none", "true", "false", "also", "only", "other"}

_VERB_LINES = """
abort accept acquire activate add adjust allocate allow analyze append apply approximate arrange ask assert assign
attach attempt authenticate begin bind block break build calculate call cancel catch change check choose clean clear
clone close collapse collect combine compare compile complete compose compress compute concatenate configure confirm
connect construct consume contain continue convert copy count create cut deactivate debug decide declare decode
decompress decorate decrease decrement decrypt define delete derive describe deserialize detach detect determine
disable disassemble discard disconnect dispatch display divide do download draw drop dump emit empty enable encode
encrypt end enqueue ensure enter enumerate erase escape evaluate examine exclude execute exit expand export expose
extend extract feed fetch fill filter find finish fit fix flatten flush fold forget fork format forward free freeze
generate get give go grab group guess handle hash have hide hold identify ignore implement import include increase
increment indent indicate infer inform inherit init initialise initialize insert inspect install instantiate
intercept interpret introduce invert invoke issue iterate join jump keep kill launch leave let limit link list
listen load locate lock log look lower make manage map mark match measure merge modify monitor mount move multiply
name negate normalise normalize notify obtain open optimize order output override pack pad parse partition pass
patch pause perform permute pick place play plot poll pop populate post predict prepare prepend preserve prevent
print process produce prompt provide prune pull purge push put query queue quote raise randomize reach read rebuild
receive recognize record recursively redirect reduce refresh register reject release reload remove rename render
reorder repeat replace report represent request require reset reshape resize resolve respond restart restore
restrict resume retrieve return reverse rewind rewrite rotate round run sample save scale scan schedule search seek
select send separate serialize serve set setup shift show shuffle shut shutdown signal simplify simulate skip sleep
solve sort specify split squeeze start stop store strip submit subtract sum support suspend swap switch synchronize
take tell terminate test throw toggle track train transfer transform translate transpose traverse trigger trim
truncate try turn undo unescape uninstall unlock unpack unquote unregister unset unwrap update upgrade upload use
validate verify view visit wait wake walk warn weight wrap write yield zip
"""
_VERBS = frozenset(_VERB_LINES.split())


class _Body(NamedTuple):
    """What is known of a docstring, whatever is said of it."""

    weights: dict[str, float]  # of its words and its name's, by stem
    best: float  # the weight of the few heaviest
    runs: frozenset[tuple[str, ...]]  # COPIED_WORDS + 1 words in a row


class Parts(NamedTuple):
    """Of what a score is made; each from 0 to 1."""

    about: float
    form: float
    order: float
    length: float
    new: float

    @property
    def score(self) -> float:
        """The whole."""
        good = self.about * (0.1 + 0.25 * self.form + 0.25 * self.order) + 0.2 * self.form + 0.2 * self.order
        return LOWEST + (HIGHEST - LOWEST) * self.length * self.new * good


def gold(context: Mapping[str, Any], text: str) -> float:
    """How good a summary of a docstring is, from −2 to 2.

    The context has a "post", the docstring without its summary, and may have a "name", of what it documents.

    Example  >>> context = {"name": "shelf.Shelf.sync", "post": "The cache is written back to the disk, and emptied."}
             >>> [round(gold(context, text), 2) for text in ("Write the cache back to disk.", "Cache cache cache.", "")]
             [1.52, -2.0, -2.0]
    """
    return parts(context, text).score


def parts(context: Mapping[str, Any], text: str) -> Parts:
    """The parts of the score.

    Example  >>> parts({"post": "The cache is emptied."}, "Empty the cache.").form
             1.0
    """
    text = text.strip()
    words = _WORD.findall(text.lower())
    if not words:
        return Parts(0.0, 0.0, 0.0, 0.0, 0.0)
    body = _body(str(context.get("post") or ""), str(context.get("name") or ""))
    return Parts(_about(words, body), _form(text, words), _order(words), _length(len(words)), _new(words, body))


# ------------------------------------------------------------------------------------------------------ the parts


def _about(words: list[str], body: _Body) -> float:
    stems = {_stem(word) for word in words if word not in _SMALL}
    if not stems or not body.best:
        return 0.0
    found = [body.weights.get(stem, 0.0) for stem in stems]
    precision = sum(weight > 0 for weight in found) / len(stems)
    recall = min(sum(found) / body.best, 1.0)
    both = 2 * precision * recall / (precision + recall) if precision else 0.0
    return min(both / ENOUGH_ABOUT, 1.0)


def _form(text: str, words: list[str]) -> float:
    first = words[0]
    verb = 1.0 if first in _VERBS else 0.5 if _third_person(first) or first in ("a", "an", "the") else 0.0
    stops = text.count(". ") + text.count(".\n") + text.endswith(".")
    ends = 1.0 if text.endswith(".") and stops == 1 else 0.0
    plain = 1.0 if "\n" not in text and not _ODD.search(text) else 0.0
    return 0.25 * (text[0].isupper() + verb + ends + plain)


def _third_person(word: str) -> bool:
    return word.endswith("s") and (word[:-1] in _VERBS or word[:-2] in _VERBS or word[:-3] + "y" in _VERBS)


def _order(words: list[str]) -> float:
    kinds = ["start", *(_KINDS.get(word, "content") for word in words), "end"]
    odd = sum(pair in _ODD_PAIRS for pair in pairwise(kinds))
    small = sum(kind != "content" for kind in kinds[1:-1]) / len(words)
    share = min(small / 0.2, 1.0) * min(max((0.8 - small) / 0.2, 0.0), 1.0)
    return share * max(1 - odd / 2, 0.0)


def _length(n: int) -> float:
    return min(n / SHORT_WORDS, 1.0, max((ENDLESS_WORDS - n) / (ENDLESS_WORDS - LONG_WORDS), 0.0))


def _new(words: list[str], body: _Body) -> float:
    content = [_stem(word) for word in words if word not in _SMALL]
    pairs = list(pairwise(words))
    again = len(content) - len(set(content)) + len(pairs) - len(set(pairs))
    copied = sum(tuple(words[i : i + COPIED_WORDS + 1]) in body.runs for i in range(len(words) - COPIED_WORDS))
    return max(1 - again / 3, 0.0) * max(1 - copied / 8, 0.25)


# ------------------------------------------------------------------------------------------------------ inside


@lru_cache(maxsize=1 << 14)
def _body(post: str, name: str) -> _Body:
    words = _WORD.findall(post.lower())
    counts = Counter(_stem(word) for word in words if word not in _SMALL and len(word) > 1)
    weights = {stem: min(float(count), _NAME_WEIGHT) for stem, count in counts.items()}
    for place, own in enumerate(name.rsplit(".", 2)[-2:][::-1]):  # its own name, and that of its class or module
        for part in _PART.findall(own):
            if part.lower() not in _SMALL:
                stem = _stem(part.lower())
                weights[stem] = _NAME_WEIGHT if place == 0 else max(weights.get(stem, 0.0), 1.0)
    runs = frozenset(tuple(words[i : i + COPIED_WORDS + 1]) for i in range(len(words) - COPIED_WORDS))
    return _Body(weights, sum(sorted(weights.values())[-SAID_WORDS:]), runs)


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    """A word without the commonest endings, so that "writes" and "written" are "write" or near it."""
    for ending in ("ations", "ation", "ings", "ing", "ies", "ers", "er", "ed", "es", "en", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
