"""Texts that are summarised, and texts that are only scored."""

import pytest
from task_files import problems, put

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row
from rein.evals.tasks import language_modelling, summarisation
from rein.evals.tasks.detokenise import PTB, WIKITEXT, retokenise

# ------------------------------------------------------------------------------------------------- summarisation


def test_a_summary_is_asked_for_with_tldr(tmp_path):
    data = put(tmp_path, "test.source", "It rained.\nIt snowed.\n")
    put(tmp_path, "test.target", "Rain.\nSnow.\n")
    first, _ = problems(summarisation.TLDR, data)
    assert (first.prompt, first.answers) == ("It rained.\nTL;DR:", ("Rain.",))
    bare, _ = problems(summarisation.NO_HINT, data)
    assert bare.prompt == "It rained."


def test_a_summary_of_the_hub_keeps_its_lines():
    [problem] = summarisation.ask(Row({"id": "1", "article": "It rained.", "highlights": "Rain .\nSnow ."}, "hub:0"))
    assert problem.answers == ("Rain .\nSnow .",)


def test_the_first_sentences_of_a_text_stand_one_a_line():
    said = ' It cost $3.50. "Why?" she asked! Nobody knew.\nFive. Six.'
    assert summarisation.first_sentences(said) == 'It cost $3.50.\n"Why?"\nshe asked!'
    assert summarisation.first_sentences("") == ""


# -------------------------------------------------------------------------------------------- language modelling


def test_a_text_counts_its_words_and_line_ends_as_published(tmp_path):
    data = put(tmp_path, "ptb.test.txt", " it does n't pay $ N \n no \n")
    [problem] = problems(language_modelling.PENN, data)
    assert problem.text == "it doesn't pay $N\nno\n"
    assert problem.units == 7 + 2


def test_wikitext_is_cut_at_the_titles_of_its_articles(tmp_path):
    text = " \n = One = \n \n Text = 1 . \n = = Part = = \n \n \n = Two = \n \n More . \n"
    data = put(tmp_path, "wikitext-2/wiki.test.tokens", text)
    first, second = problems(language_modelling.WIKITEXT_2, data)
    assert first.text.startswith("\n= One =\n\nText = 1.\n== Part ==")
    assert second.text == "= Two =\n\nMore.\n"
    assert first.units + second.units == len(text.split()) + text.count("\n")


def test_wikitext_of_the_hub_is_the_file(tmp_path, monkeypatch):
    lines = ["", " = One = \n", "", " Text . \n"]
    monkeypatch.setattr(language_modelling, "hub_rows", lambda *_: (Row({"text": line}, "hub:0") for line in lines))
    [row] = language_modelling.WIKITEXT_2.read(Data(from_hub=True), "test")
    assert row.values == " \n = One = \n \n Text . \n"


def test_every_line_of_1bw_is_a_text(tmp_path):
    data = put(tmp_path, "news.en.heldout-00000-of-00050", "It 's late .\nYes .\n")
    first, second = problems(language_modelling.ONE_BILLION, data)
    assert (first.text, first.units, second.text, second.units) == ("It's late.\n", 5, "Yes.\n", 3)


def test_the_test_set_of_enwik8_is_its_last_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(language_modelling, "LAST_BYTES", 5)
    (tmp_path / "enwik8").write_bytes("train-é12é345".encode())
    [test] = problems(language_modelling.ENWIK8, Data((tmp_path,)))
    [dev] = problems(language_modelling.ENWIK8, Data((tmp_path,)), "dev")
    assert (test.text, test.units) == ("é345", 5)
    assert (dev.text, dev.units) == ("-é12", 5)


def test_a_character_that_the_test_set_cuts_in_two_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(language_modelling, "LAST_BYTES", 4)
    (tmp_path / "enwik8").write_bytes(b"0123" + "é345".encode())  # begins with the second byte of é
    [problem] = problems(language_modelling.ENWIK8, Data((tmp_path,)))
    assert (problem.text, problem.units) == ("345", 3)


def test_a_test_set_that_was_cut_off_before_is_read_whole(tmp_path):
    data = put(tmp_path, "text8/test.txt.raw", " the end")
    [problem] = problems(language_modelling.TEXT8, data)
    assert (problem.text, problem.units) == (" the end", 8)


def test_a_text_without_words_is_a_bad_row():
    with pytest.raises(BadRow, match="ptb:1: it has no words"):
        list(language_modelling.PENN.ask(Row("", "ptb:1")))
    with pytest.raises(BadRow, match="enwik8:1: it is empty"):
        list(language_modelling.ENWIK8.ask(Row("", "enwik8:1")))


def test_a_split_that_a_corpus_does_not_have_is_named():
    with pytest.raises(UserError, match="no dev split, only: test"):
        language_modelling.ONE_BILLION.read(Data(), "dev")


def test_enwik8_that_is_too_short_is_said_to_be(tmp_path):
    with pytest.raises(UserError, match="5 bytes and no test split"):
        problems(language_modelling.ENWIK8, put(tmp_path, "enwik8", "short"))


@pytest.mark.parametrize(
    ("task", "file", "style", "units", "texts"),
    [
        (language_modelling.WIKITEXT_2, "text/wikitext-2/valid.txt", WIKITEXT, 217_646, 60),
        (language_modelling.PENN, "text/ptb/ptb.valid.txt", PTB, 73_760, 1),
    ],
    ids=["WikiText-2", "PTB"],
)
def test_the_published_files_have_the_published_number_of_words(shared_data, task, file, style, units, texts):
    found = problems(task, Data((shared_data,)), "dev")
    assert sum(problem.units for problem in found) == units
    assert len(found) == texts
    text = (shared_data / file).read_text(encoding="utf-8")
    assert "".join(retokenise(problem.text, style) for problem in found) == text
