"""GPT-3's Appendix C: what overlaps with test sets goes, with its surroundings, and nothing else does."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import string
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.text.contamination import Rules, Tally, clean, count, outcomes, table, too_common
from rein.text.documents import Document, Dropped
from rein.text.evaluation_sets import read_evaluation
from rein.text.grams import EvaluationSet, Grams, gather, normalise

PAPER = Rules()
WORDS = "the quick brown fox jumps over a lazy dog while thirty curious cats watch from an old stone wall by our house"
QUOTED = (WORDS + " and nobody in the village ever said a word about it").split()


def filler(n_chars: int, seed: int = 0) -> str:
    """Words that no test set has, exactly as many characters as asked for."""
    draw = random.Random(seed)
    text = ""
    while len(text) < n_chars:
        text += "x" + "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 7))) + " "
    return text[: n_chars - 1] + " "


def quotation(n_words: int) -> str:
    assert n_words <= len(QUOTED)
    return " ".join(QUOTED[:n_words])


def grams_of(*texts: str, n: int = 13) -> Grams:
    return gather([("test", [[text] for text in texts])], n)


def cleaned(text: str, grams: Grams, rules: Rules = PAPER):
    return clean(text, grams, np.zeros(len(grams), dtype=bool), rules)


def texts_of(grams: Grams) -> set[str]:
    return {grams.text(gram) for gram in range(len(grams))}


# ------------------------------------------------------------------------------------------------- appendix C


@pytest.mark.parametrize("n_words", [13, 22, 23, 30])
def test_a_quotation_of_any_length_splits_a_document_in_two(n_words):
    before, quoted, after = filler(9_800), quotation(n_words), filler(9_800, seed=1)
    text = f"{before}{quoted} {after}"
    result = cleaned(text, grams_of(quoted))
    assert result.reason is None
    assert [text[a:b] for a, b in result.pieces] == [text[: 9_800 - 200], text[9_800 + len(quoted) + 200 :]]
    assert len(result.hits) == n_words - 12


def test_twelve_words_are_not_enough():
    text = filler(900) + quotation(12) + " " + filler(900, seed=1)
    assert cleaned(text, grams_of(quotation(13))).pieces == ((0, len(text)),)
    assert len(grams_of(quotation(12))) == 0


def test_ten_splits_are_eleven_pieces_and_one_too_many():
    for splits, kept in ((9, True), (10, False)):
        text = filler(1_000) + "".join(quotation(13) + " " + filler(1_000, seed) for seed in range(splits))
        result = cleaned(text, grams_of(quotation(13)))
        assert (len(result.pieces), result.reason) == ((10, None) if kept else (0, "contaminated: too many pieces"))
        assert len(result.hits) == splits


def test_pieces_are_counted_after_the_short_ones_are_dropped():
    crumbs = "".join(quotation(13) + " " + filler(450, seed) for seed in range(20))  # 50 characters between windows
    text = filler(1_000) + crumbs + filler(1_000, seed=99)
    result = cleaned(text, grams_of(quotation(13)))
    assert len(result.pieces) == 2
    assert len(result.short) == 19
    assert result.reason is None


def test_a_piece_of_200_characters_stays_and_one_of_199_goes():
    grams = grams_of(quotation(13))
    for extra, kept in ((0, True), (-1, False)):
        text = filler(400 + extra) + quotation(13)
        result = cleaned(text, grams)
        assert (result.pieces, result.short) == ((((0, 200),), ()) if kept else ((), ((0, 199),)))
        assert result.reason == (None if kept else "contaminated: nothing left")


def test_windows_that_overlap_or_touch_are_one():
    grams = grams_of(quotation(13))
    rules = replace(PAPER, window_chars=50, min_piece_chars=1)
    for gap, middle in ((99, 0), (100, 0), (101, 1)):
        text = filler(300) + quotation(13) + " " + filler(gap - 1) + quotation(13) + " " + filler(300)
        result = cleaned(text, grams, rules)
        assert len(result.pieces) == 2 + (middle > 0), gap
    assert result.pieces[1][1] - result.pieces[1][0] == 1


def test_a_clean_document_stays_however_short():
    document = Document("A short note.", "1", "web")
    result = cleaned(document.text, grams_of(quotation(13)))
    assert outcomes(document, result) == [document]
    assert cleaned("", grams_of(quotation(13))).pieces == ((0, 0),)
    assert outcomes(document, cleaned(document.text, gather([]))) == [document]


def test_a_lone_hyphen_hides_nothing_in_either_text():
    plain = quotation(15)
    hyphen = " ".join(QUOTED[:7]) + " - " + " ".join(QUOTED[7:15])
    for of_test in (plain, hyphen):
        for of_document in (plain, hyphen):
            text = filler(1_000) + of_document + " " + filler(1_000, seed=1)
            assert len(cleaned(text, grams_of(of_test)).pieces) == 2


def test_punctuation_is_as_good_as_a_space():
    same = ("don't " + quotation(12), "Don\u2019t " + quotation(12), "don t " + quotation(12), "DON_T/" + quotation(12))
    for of_test in same:
        for of_document in same:
            assert len(count(of_document, grams_of(of_test))) == 2
    assert not len(count("dont " + quotation(11), grams_of(same[0])))


def test_letters_of_all_scripts_have_a_lower_case_and_marks_stay_in_their_words():
    assert normalise("ÉTÉ ΩΣ ЖУК Ǆ İ") == "été ωσ жук ǆ i"
    assert normalise("हिन्दी cafe\u0301") == "हिन्दी cafe\u0301"
    assert normalise("co\u00adoperate zero\u200bwidth \u2060") == "cooperate zero width"
    assert normalise("x² ½ Ⅷ a\u00a0b\u3000c\u2028d") == "x² ½ ⅷ a b c d"
    assert normalise(" \n_-") == ""
    document = filler(900) + "ÉTÉ, " + quotation(12).upper() + " " + filler(900)
    assert len(count(document, grams_of("été " + quotation(12)))) == 1


def test_a_gram_of_eleven_documents_is_ignored_and_one_of_ten_is_not():
    often, seldom = quotation(13), " ".join(QUOTED[-13:])
    grams = grams_of(often, seldom)
    documents = [filler(900, i) + often + " . " + often + " " + filler(900) for i in range(11)]
    documents = [text + (seldom if i < 10 else "") for i, text in enumerate(documents)]
    counts = np.zeros(len(grams), dtype=np.int64)
    for text in documents:
        counts[count(text, grams)] += 1
    assert sorted(counts.tolist()) == [10, 11]
    ignored = too_common(counts, PAPER)
    assert [grams.text(gram) for gram in np.flatnonzero(ignored)] == [often]
    for i, text in enumerate(documents):
        found = clean(text, grams, ignored, PAPER).hits[:, 0]
        assert [grams.text(gram) for gram in found] == ([seldom] if i < 10 else [])
        assert clean(text, grams, ignored, PAPER).pieces[0][1] == (
            len(text) - len(seldom) - 200 if i < 10 else len(text)
        )


def test_document_counts_do_not_depend_on_how_documents_are_parted():
    grams = grams_of(*(" ".join(QUOTED[i:]) for i in range(5)))
    documents = [filler(100, i) + " ".join(QUOTED[i % 7 : 20 + i % 5]) for i in range(20)]

    def counts(part):
        total = np.zeros(len(grams), dtype=np.int64)
        for text in part:
            total[count(text, grams)] += 1
        return total

    assert counts(documents).sum() > 0
    assert (counts(documents) == counts(documents[:3]) + counts(documents[3:])).all()


def test_a_book_is_searched_to_its_end():
    book = filler(1_000_000) + quotation(13)
    result = cleaned(book, grams_of(quotation(13)))
    assert result.pieces == ((0, 1_000_000 - 200),)
    assert cleaned("é" + book, grams_of(quotation(13))).pieces == ((0, 1_000_001 - 200),)


def test_pieces_are_documents_with_the_text_as_it_was():
    loud, quiet = "\u2028\n" + quotation(13).upper() + "!\r\n", quotation(13) + "\n"
    text = filler(999) + loud + filler(150) + quiet + filler(300)
    more = {"url": "http://a.example", "date": "2016-01-01", "metadata": {"language": "en"}}
    document = Document(text, "web/1", "web", **more)
    first, second, third = outcomes(document, cleaned(text, grams_of(quotation(13)), replace(PAPER, window_chars=50)))
    assert first == Document(text[:951], "web/1[0:951]", "web", **more)
    assert second == Document(text[-251:], f"web/1[{len(text) - 251}:{len(text)}]", "web", **more)
    start = 999 + len(loud) - 3 + 50
    end = 999 + len(loud) + 150 - 50
    assert third == Dropped(f"web/1[{start}:{end}]", "contaminated: piece too short", text[start:end])


def test_a_document_of_which_nothing_stays_is_one_drop():
    short = Document(quotation(30), "a", "web")
    assert outcomes(short, cleaned(short.text, grams_of(short.text))) == [Dropped("a", "contaminated: nothing left")]
    text = filler(1_000) + (quotation(13) + " " + filler(1_000)) * 10
    many = Document(text, "b", "web")
    assert outcomes(many, cleaned(text, grams_of(quotation(13)))) == [Dropped("b", "contaminated: too many pieces")]


@pytest.mark.parametrize("name", ["n", "window_chars", "min_piece_chars", "max_pieces", "max_documents"])
def test_rules_that_cannot_be(name):
    with pytest.raises(UserError, match=f"{name} is -1, but it must be at least"):
        Rules(**{name: -1})


# -------------------------------------------------------------------------------------- against a plain reference


def plain_words(text):
    return [(match[0].lower(), match.start(), match.end()) for match in re.finditer(r"[^\W_]+", text)]


def plain_clean(text, examples, ignored, rules):
    """Marks every character on its own."""
    grams = set()
    for example in examples:
        words = [word for word, _, _ in plain_words("\n".join(example))]
        grams |= {" ".join(words[i : i + rules.n]) for i in range(len(words) - rules.n + 1)}
    words, found, marked = plain_words(text), set(), [False] * len(text)
    for i in range(len(words) - rules.n + 1):
        gram = " ".join(word for word, _, _ in words[i : i + rules.n])
        if gram in grams:
            found.add(gram)
            if gram not in ignored:
                for at in range(words[i][1] - rules.window_chars, words[i + rules.n - 1][2] + rules.window_chars):
                    if 0 <= at < len(text):
                        marked[at] = True
    if not any(marked):
        return grams, found, [text]
    runs = re.finditer("0+", "".join("01"[mark] for mark in marked))
    pieces = [text[run.start() : run.end()] for run in runs if run.end() - run.start() >= rules.min_piece_chars]
    return grams, found, pieces if len(pieces) <= rules.max_pieces else []


TEXTS = st.text(alphabet="aAbé .-_\n", max_size=60)


@given(
    st.lists(st.lists(TEXTS, max_size=3), max_size=4),
    TEXTS,
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 6),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=400)
def test_it_does_what_a_plain_program_does(examples, text, n, window_chars, min_piece_chars, max_pieces, draw):
    rules = Rules(n, window_chars, min_piece_chars, max_pieces)
    grams = gather([("test", examples)], n)
    ignored = np.array([draw.random() < 0.3 for _ in range(len(grams))], dtype=bool)
    ignored_texts = {grams.text(gram) for gram in np.flatnonzero(ignored)}
    expected_grams, found, pieces = plain_clean(text, examples, ignored_texts, rules)
    assert texts_of(grams) == expected_grams
    assert len(grams) == len(expected_grams)
    assert {grams.text(gram) for gram in count(text, grams)} == found
    result = clean(text, grams, ignored, rules)
    assert [text[a:b] for a, b in result.pieces] == pieces


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=300)
def test_normal_text_stays_as_it_is_and_any_text_is_found_in_itself(text):
    once = normalise(text)
    assert normalise(once) == once
    n_words = len(once.split(" ")) if once else 0
    grams = grams_of(text, n=2)
    assert sorted(texts_of(grams)) == sorted({" ".join(once.split(" ")[i : i + 2]) for i in range(n_words - 1)})
    assert len(count(text.upper() if text.isascii() else text, grams)) == len(grams)


# -------------------------------------------------------------------------------------------------- hashes


def thue_morse(order: int) -> tuple[str, str]:
    one, other = "a", "b"
    for _ in range(order):
        one, other = one + other, other + one
    return one, other


def test_two_grams_of_one_hash_are_two_grams():
    # A polynomial modulo 2⁶⁴ cannot tell these words of 2,048 letters apart, whatever its base.
    one, other = thue_morse(11)
    both = grams_of(one + " c", other + " c", one + " c", n=2)
    assert len(both) == 2
    assert both.hashes[0] == both.hashes[1], "the words no longer collide: find others"
    for word in (one, other):
        assert [both.text(gram) for gram in count(f"c {word} c", both)] == [f"{word} c"]
        alone = grams_of(word + " c", n=2)
        assert len(count(f"{word} c", alone)) == 1
        assert len(count(f"{one if word == other else other} c", alone)) == 0


def test_nothing_is_removed_because_hashes_are_equal():
    grams = grams_of(quotation(13))
    assert len(count(quotation(13), grams)) == 1
    other = grams.words.copy()
    for at in (0, 20, len(quotation(13)) - 1, len(quotation(13))):
        other[:] = grams.words
        other[at] += 1
        assert len(count(quotation(13), replace(grams, words=other))) == 0


# ------------------------------------------------------------------------------------------ OpenAI's own grams


@pytest.fixture(scope="module")
def published(shared_data) -> dict[str, int]:
    path = shared_data / "evaluation" / "gpt3" / "overlap_frequency.md"
    rows = re.findall(r"^(\d+) +(.+?)`{0,3}$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) == 120
    return {gram: int(times) for times, gram in rows}


def test_the_published_grams_are_grams_of_ours(published):
    for gram in published:
        assert normalise(gram) == gram
        assert len(gram.split(" ")) == 13
    assert texts_of(grams_of(*published)) == set(published)


def test_the_published_grams_are_found_however_they_are_written(published):
    grams = grams_of(*published)
    draw = random.Random(0)
    for gram in published:
        words = [draw.choice((str.upper, str.title, str.lower))(word) for word in gram.split(" ")]
        written = "".join(
            word + draw.choice((" ", "\n", ", ", " - ", "\u2019", "\u2014", "...\r\n\t")) for word in words
        )
        text = filler(500) + written + filler(500)
        hits = cleaned(text, grams).hits
        assert [(grams.text(hit), text[start:end]) for hit, start, end in hits] == [
            (gram, written.rstrip(" \r\n\t,-.’—"))
        ]


def test_the_published_counts_say_which_grams_are_too_common(published):
    grams = grams_of(*published)
    counts = np.array([published[grams.text(gram)] for gram in range(len(grams))])
    ignored = {grams.text(gram) for gram in np.flatnonzero(too_common(counts, PAPER))}
    assert ignored == {gram for gram, times in published.items() if times > 10}
    assert len(published) - len(ignored) == 22


# ------------------------------------------------------------------------------------------------- evaluation


def test_an_example_has_the_grams_of_its_fields_and_those_between_them(tmp_path):
    example = {"question": "a b c", "n": 7, "choices": ["d e", {"text": "f g"}], "none": None, "right": True}
    (tmp_path / "qa.jsonl").write_text(json.dumps(example) + "\n\n" + json.dumps("h i j") + "\n")
    grams = gather(read_evaluation([tmp_path / "qa.jsonl"]), n=3)
    assert texts_of(grams) == {"a b c", "b c d", "c d e", "d e f", "e f g", "h i j"}
    assert grams.sets == (EvaluationSet("qa.jsonl", 2, 0),)


def test_the_formats_give_the_same_grams(tmp_path):
    rows = [["One two, three", 'four "five"\nsix'], ["Seven", "été"]]
    folder = tmp_path / "sets"
    (folder / "deep").mkdir(parents=True)
    lines = "".join(json.dumps({"q": q, "a": a}) + "\n" for q, a in rows)
    (folder / "a.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "c.json").write_text(json.dumps([{"q": q, "a": a} for q, a in rows]))
    with (folder / "d.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    (folder / "e.tsv").write_text("".join("\t".join(row).replace("\n", " ") + "\r\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.table({"q": [q for q, _ in rows], "a": [[a] for _, a in rows]}), folder / "deep" / "f.parquet")
    (folder / "notes.md").write_text("passed over by its name alone, whatever it says")
    grams = gather(read_evaluation([folder]), n=3)
    names = ["a.jsonl", "b.jsonl.gz", "c.json", "d.csv", "deep/f.parquet", "e.tsv"]
    assert grams.sets == tuple(EvaluationSet(f"sets/{name}", 2, 1) for name in names)
    assert texts_of(grams) == {"one two three", "two three four", "three four five", "four five six"}
    for gram in range(len(grams)):
        assert grams.sets_of(gram) == list(range(6))


def test_running_text_is_one_example_and_an_object_is_one(tmp_path):
    (tmp_path / "a.txt").write_text("to be\r\nor not\n\nto be")
    (tmp_path / "b.json").write_text('{"data": [{"x": "to be"}, {"x": "or not to"}]}')
    grams = gather(read_evaluation([tmp_path / "a.txt", tmp_path / "b.json"]), n=3)
    assert texts_of(grams) == {"to be or", "be or not", "or not to", "not to be"}
    assert [one.examples for one in grams.sets] == [1, 1]


def test_long_cells_and_open_quotation_marks_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("word " * 40_000 + ",end of it\n")
    (tmp_path / "b.tsv").write_text('1\t"an open mark\n2\tand another line\n')
    before = csv.field_size_limit()
    grams = gather(read_evaluation([tmp_path / "a.csv", tmp_path / "b.tsv"]), n=4)
    assert csv.field_size_limit() == before
    assert texts_of(grams) == {
        "word word word word", "word word word end", "word word end of", "word end of it", "1 an open mark",
        "2 and another line",
    }  # fmt: skip


def test_what_is_too_short_for_a_gram_is_said():
    grams = gather([("a", [[quotation(13)]] + [["too short"]] * 17), ("b", [[quotation(14)]]), ("c", [[]])])
    assert grams.short_notes() == [
        "a: 17 of 18 examples are shorter than 13 words",
        "c: 1 of 1 examples is shorter than 13 words",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{", "cannot be read"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.txt", b"\xff", "cannot be read"),
        ("a.jsonl.gz", b"{}", "cannot be read"),
        ("a.parquet", b"PAR", "cannot be read"),
        ("a.docx", b"", "does not tell its format"),
        ("folder/a.docx", b"", "holds no evaluation set"),
        ("a.json", None, "does not exist"),
    ],
)
def test_evaluation_sets_that_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        gather(read_evaluation([path.parent if "/" in name else path]))


def test_the_real_sets_are_read_and_found_in_themselves(shared_data):
    paths = [shared_data / "evaluation" / "arc", shared_data / "evaluation" / "superglue", shared_data / "finetune"]
    grams = gather(read_evaluation(paths))
    sets = {one.name: one for one in grams.sets}
    assert sets["arc/challenge_dev.csv"].examples == 299
    assert sets["superglue/RTE/val.jsonl"].examples == 277
    assert sets["finetune/cola/out_of_domain_dev.tsv"].examples == 516
    assert sets["finetune/mrpc/train.tsv"].examples == 3_576 + 1  # and the header
    assert len(grams.sets) == 4 + 13 + 16
    names = [one.name for one in grams.sets]
    same = {names.index("superglue/RTE/val.jsonl"), names.index("finetune/rte/val.jsonl")}
    line = (shared_data / "finetune" / "rte" / "val.jsonl").read_text(encoding="utf-8").splitlines()[0]
    found = count("\n".join(value for value in json.loads(line).values() if isinstance(value, str)), grams)
    assert len(found) == 18
    assert all(same <= set(grams.sets_of(gram)) for gram in found)


def test_grams_come_back_from_a_file_as_they_were(tmp_path):
    grams = gather([("a", [[quotation(20)], ["é " + quotation(14)]]), ("b", [[quotation(16)], ["short"]])])
    grams.save(tmp_path / "grams.npz")
    again = Grams.load(tmp_path / "grams.npz")
    assert (again.n, again.sets) == (grams.n, grams.sets)
    assert [again.text(g) for g in range(len(again))] == [grams.text(g) for g in range(len(grams))]
    assert [again.sets_of(g) for g in range(len(again))] == [grams.sets_of(g) for g in range(len(grams))]
    text = filler(500) + quotation(20) + " " + filler(500)
    assert (cleaned(text, again).hits == cleaned(text, grams).hits).all()
    assert len(cleaned(text, again).hits) == 8


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"\x80\x04\x95"])
def test_a_file_that_holds_no_grams_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / "grams.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"does not (exist|hold the grams)"):
        Grams.load(tmp_path / "grams.npz")


# ------------------------------------------------------------------------------------------------------ table


def test_the_table_says_what_was_found_of_each_set():
    first, second = quotation(13), " ".join(QUOTED[-13:])
    grams = gather([("a", [[first], ["short"]]), ("b", [[second], [first]]), ("c", [[filler(90, seed=5)]])])
    documents = [
        Document(filler(500) + first + " " + filler(500), "1", "web"),
        Document(second, "2", "web"),
        Document(filler(500), "3", "web"),
    ]
    counts = np.zeros(len(grams), dtype=np.int64)
    tallies = []
    for document in documents:
        counts[count(document.text, grams)] += 1
        tallies.append(Tally.of(grams))
        tallies[-1].add(document, cleaned(document.text, grams), grams, PAPER)
    whole = Tally.of(grams)
    for tally in tallies:
        whole.merge(tally)
    a, b, c = json.loads(json.dumps(table(grams, counts, whole, PAPER)))
    windows = {"1": len(first) + 400, "2": len(second)}
    match_1 = {"gram": first, "documents": 1, "document": "1"}
    assert a == {
        "set": "a", "examples": 2, "short_examples": 1, "grams": 1, "grams_found": 1, "grams_ignored": 0,
        "documents_touched": 1, "documents_dropped": 0, "chars_removed": windows["1"], "matches": [match_1],
    }  # fmt: skip
    assert b == {
        "set": "b", "examples": 2, "short_examples": 0, "grams": 2, "grams_found": 2, "grams_ignored": 0,
        "documents_touched": 2, "documents_dropped": 1, "chars_removed": sum(windows.values()),
        "matches": [match_1, {"gram": second, "documents": 1, "document": "2"}],
    }  # fmt: skip
    assert (c["grams_found"], c["documents_touched"], c["matches"]) == (0, 0, [])
    ignored_too = table(grams, counts * 11, whole, PAPER)
    assert [one["grams_ignored"] for one in ignored_too] == [1, 2, 0]
