"""Texts that were parted into words, as people write them, and back."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rein.evals.tasks.detokenise import BILLION, PTB, WIKITEXT, detokenise, retokenise

STYLES = pytest.mark.parametrize("style", [WIKITEXT, PTB, BILLION], ids=lambda style: style.name)

# What the three corpora are made of, and what could be mistaken for it.
PIECES = r"""
the dogs 5 000 <unk> N U.S. Mr. etc. @-@ @,@ @.@ – - , . ; : ? ! ... ' " '' `` = == 's 't n't 've ( ) [ ] $ £ % ° ′
\ \\ \, a-b 1,000 0.7 5–6 don't can 'tis "x x" (a a) $5 s' a. x... é
"""
TOKENS = st.one_of(
    st.sampled_from(PIECES.split()),
    st.text(st.characters(exclude_characters="\n ", exclude_categories=["Cs"]), max_size=4),
)
LINES = st.lists(TOKENS, max_size=12).map(" ".join)


@STYLES
@given(st.data())
@settings(deadline=None, max_examples=300)
def test_every_tokenised_text_comes_back(style, data):
    flank = " " if style.spaced else ""
    text = "".join(f"{flank}{line}{flank}\n" for line in data.draw(st.lists(LINES, max_size=4)))
    assert retokenise(detokenise(text, style), style) == text


@STYLES
@given(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n\\'\".,=-–$("))))
@example("")
@example(" ")
@example("  ")
@example("\\")
@example("\\ ")
@example(" \\ \n")
@example("a\n b \n\n \n  \n")
@settings(deadline=None, max_examples=500)
def test_text_of_any_other_form_comes_back_too(style, text):
    assert retokenise(detokenise(text, style), style) == text


@pytest.mark.parametrize(
    ("style", "tokens", "written"),
    [
        (WIKITEXT, " = = Early life = = \n", "== Early life ==\n"),
        (WIKITEXT, " He said , \" the dogs ' day 's here . \" \n", "He said, \"the dogs' day's here.\"\n"),
        (WIKITEXT, " 3 @,@ 000 – 4 @,@ 000 U.S. troops ( 5 – 6 % ) \n", "3,000–4,000 U.S. troops (5–6%)\n"),
        (WIKITEXT, " a well @-@ known <unk> @-@ based one ; $ 2 @.@ 5 \n", "a well-known <unk>-based one; $2.5\n"),
        (WIKITEXT, " they don 't ... \n \n", "they don't...\n\n"),
        (PTB, " it does n't pay $ N mr. vinken 's <unk> says \n", "it doesn't pay $N mr. vinken's <unk> says\n"),
        (PTB, " the viewers ' opinions we 've \n", "the viewers' opinions we've\n"),
        (BILLION, 'It \'s " Crazy Talk : You . "\n', 'It\'s "Crazy Talk: You."\n'),
        (BILLION, "They didn 't ( yet ) pay $ 5 .\n", "They didn't (yet) pay $5.\n"),
    ],
)  # fmt: skip
def test_words_are_written_as_people_write_them(style, tokens, written):
    assert detokenise(tokens, style) == written
    assert retokenise(written, style) == tokens


def test_a_token_that_would_be_taken_apart_is_escaped():
    assert detokenise(" the 0.7 kg \n", WIKITEXT) == "the \\0.7 kg\n"
    assert retokenise("the \\0.7 kg\n", WIKITEXT) == " the 0.7 kg \n"


def test_a_line_without_the_corpus_spaces_stands_as_it_is():
    assert detokenise("no space , here\n", WIKITEXT) == "\\ no space , here\n"


@pytest.mark.parametrize(
    ("style", "file", "n_escaped", "shorter"),
    [(WIKITEXT, "text/wikitext-2/valid.txt", 3, 40_000), (PTB, "text/ptb/ptb.valid.txt", 3, 8_000)],
    ids=["WikiText-2", "PTB"],
)
def test_the_published_files_come_back_and_hardly_need_an_escape(shared_data, style, file, n_escaped, shorter):
    text = (shared_data / file).read_text(encoding="utf-8")
    written = detokenise(text, style)
    assert retokenise(written, style) == text
    assert sum(word.startswith("\\") for line in written.split("\n") for word in line.split(" ")) == n_escaped
    assert len(text) - len(written) > shorter
