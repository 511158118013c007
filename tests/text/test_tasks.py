"""Every official file format from a few lines of it, files of one's own, and what is wrong with a file."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.text.tasks import TASKS, Example, read, task_of, with_labels

BOM = "\ufeff"


def made(tmp_path, task, text, name="file.tsv", columns=()):
    path = tmp_path / name
    path.write_bytes(text.encode())
    found = task_of(task, columns)
    return read(with_labels(found, [path]), path)


def plain(rows):
    return [(example.context, example.others, example.label) for example in rows.examples]


FORMATS = {
    "cola without header, no newline at the end": (
        "cola", "file.tsv", "gj04\t1\t\tThe boat sank.\ngj04\t0\t*\tThe boat sunk it's self.",
        [(("The boat sank.",), (), 1), (("The boat sunk it's self.",), (), 0)],
    ),
    "cola, GLUE's hidden test": (
        "cola", "test.tsv", "index\tsentence\n0\tBill whistled.\n", [(("Bill whistled.",), (), None)],
    ),
    "sst2, GLUE": (
        "sst2", "train.tsv", "sentence\tlabel\nhide new secretions \t0\n\nlovely\t1\n",
        [(("hide new secretions",), (), 0), (("lovely",), (), 1)],
    ),
    "sst2, label and text": (
        "sst2", "train.txt", '1 a stirring , "funny" film\n0 dull .\n',
        [(('a stirring , "funny" film',), (), 1), (("dull .",), (), 0)],
    ),
    "mrpc: BOM, CR LF, quotes that are none": (
        "mrpc", "train.txt",
        BOM + 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t"Yes, he said.\tYes" said he\r\n',
        [(('"Yes, he said.',), ('Yes" said he',), 1)],
    ),
    "qqp": (
        "qqp", "train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n3\t5\t6\tWhy \"so?\tHow\t0\n",
        [(('Why "so?',), ("How",), 0)],
    ),
    "stsb": (
        "stsb", "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tc\tf\ty\t1\tn\tn\tA man.\tA woman.\t2.400\n",
        [(("A man.",), ("A woman.",), 2.4)],
    ),
    "stsb without scores": (
        "stsb", "test.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n0\tc\tf\ty\t1\tn\tn\tA\tB\n",
        [(("A",), ("B",), None)],
    ),
    "mnli": (
        "mnli", "dev_matched.tsv",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\t1\t2\tfiction\t( x )\tWe go.\tWe stay.\tneutral\tcontradiction\n",
        [(("We go.",), ("We stay.",), 2)],
    ),
    "qnli": (
        "qnli", "train.tsv",
        "index\tquestion\tsentence\tlabel\n0\tWho?\tHe did.\tentailment\n1\tWho?\tIt is.\tnot_entailment\n",
        [(("Who?",), ("He did.",), 0), (("Who?",), ("It is.",), 1)],
    ),
    "rte, GLUE": (
        "rte", "train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n", [(("A.",), ("B.",), 1)],
    ),
    "rte, SuperGLUE": (
        "rte", "val.jsonl", '{"premise": "A.", "hypothesis": "B.", "label": "entailment", "idx": 0}\n',
        [(("A.",), ("B.",), 0)],
    ),
    "cb, and numbers for words": (
        "cb", "val.jsonl",
        '{"premise": "A", "hypothesis": "B", "label": "contradiction"}\n\n'
        '{"premise": "C", "hypothesis": "D", "label": 2}',
        [(("A",), ("B",), 1), (("C",), ("D",), 2)],
    ),
    "snli, text": (
        "snli", "snli_1.0_dev.txt",
        "gold_label\tsentence1_parse\tsentence1\tsentence2\nneutral\t( a )\tA\tB\n-\t( a )\tC\tD\n",
        [(("A",), ("B",), 1), (("C",), ("D",), None)],
    ),
    "snli, jsonl": (
        "snli", "snli_1.0_dev.jsonl",
        '{"gold_label": "-", "sentence1": "A", "sentence2": "B"}\n'
        '{"gold_label": "entailment", "sentence1": "C", "sentence2": "D"}\n',
        [(("A",), ("B",), None), (("C",), ("D",), 0)],
    ),
    "scitail, tsv": (
        "scitail", "train.tsv", "Rocks are hard.\tRocks hard.\tentails\nSun.\tMoon.\tneutral\n",
        [(("Rocks are hard.",), ("Rocks hard.",), 0), (("Sun.",), ("Moon.",), 1)],
    ),
    "scitail in SNLI's format, JSON in a .txt": (
        "scitail", "train.txt", '{"sentence1": "A", "sentence2": "B", "gold_label": "entailment"}\n',
        [(("A",), ("B",), 0)],
    ),
    "storycloze": (
        "storycloze", "val.csv",
        "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,RandomFifthSentenceQuiz1,"
        'RandomFifthSentenceQuiz2,AnswerRightEnding\nid,"He, Bob, ran.",B.,C.,"D ""q"".",E.,F.,2\n',
        [(('He, Bob, ran. B. C. D "q".',), ("E.", "F."), 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_official_format(tmp_path, name):
    task, file, text, expected = FORMATS[name]
    rows = made(tmp_path, task, text, file)
    assert plain(rows) == expected
    assert not rows.bad


def test_race_is_a_folder_of_passages(tmp_path):
    passage = {"article": "It rained.", "questions": ["What fell?", "It _ ."], "answers": ["B", "D"],
               "options": [["sun", "rain", "snow", "hail"], ["a", "b", "c", "d"]], "id": "middle1.txt"}  # fmt: skip
    for level in ("middle", "high"):
        (tmp_path / level).mkdir()
        (tmp_path / level / "1.txt").write_text(json.dumps(passage), encoding="utf-8")
    rows = read(TASKS["race"], tmp_path)
    assert len(rows.examples) == 4
    assert rows.examples[0] == Example(
        ("It rained.", "What fell?"), ("sun", "rain", "snow", "hail"), 1, f"{tmp_path}/high/1.txt:question 1"
    )
    assert rows.examples[3].label == 3
    assert len(read(TASKS["race"], tmp_path / "middle").examples) == 2


def test_where_a_row_is_counts_all_lines(tmp_path):
    rows = made(tmp_path, "rte", "index\tsentence1\tsentence2\tlabel\n\n0\tA\tB\tentailment\n")
    assert rows.examples[0].where == f"{tmp_path}/file.tsv:3"


def test_a_line_separator_of_unicode_is_no_new_row(tmp_path):
    rows = made(tmp_path, "sst2", "1 good\u2028and well\n0 bad\n", "a.txt")
    assert [example.context for example in rows.examples] == [("good\u2028and well",), ("bad",)]


# --------------------------------------------------------------------------------------------- of one's own


def test_labels_are_found_in_the_training_file_and_ordered(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,l\nx,10\ny,9\nz,\n")
    assert with_labels(task_of("classification", ["t", "l"]), [path]).labels == ("9", "10")
    path.write_text("t,l\nx,spam\ny,ham\n")
    assert with_labels(task_of("classification", ["t", "l"]), [path]).labels == ("ham", "spam")


def test_any_word_is_a_label_of_ones_own_but_the_empty_one(tmp_path):
    rows = made(tmp_path, "classification", "t,l\na,-1\nb,1\nc,0\nd,\n", "a.csv", ["t", "l"])
    assert [example.label for example in rows.examples] == [0, 2, 1, None]
    rows = made(tmp_path, "classification", "t,l\na,none\nb,-\n", "a.csv", ["t", "l"])
    assert [example.label for example in rows.examples] == [1, 0]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_own_columns_in_each_kind_of_file(tmp_path, kind):
    rows = [{"p": 'He said "no"', "h": "He spoke", "x": "1", "y": "yes"}, {"p": "A, b", "h": "C", "x": "", "y": "no"}]
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif kind == "tsv":
        text = "p\th\tx\ty\n" + "".join("\t".join(row.values()) + "\n" for row in rows)
    else:
        text = 'p,h,x,y\n"He said ""no""",He spoke,1,yes\n"A, b",C,,no\n'
    found = made(tmp_path, "entailment", text, f"a.{kind}", ["p", "h", "y"])
    assert plain(found) == [(('He said "no"',), ("He spoke",), 1), (("A, b",), ("C",), 0)]


def test_own_scores(tmp_path):
    rows = made(tmp_path, "similarity-score", "a,b,s\nx,y,-1\nz,w,2.5\n", "a.csv", ["a", "b", "s"])
    assert [example.label for example in rows.examples] == [-1, 2.5]


@pytest.mark.parametrize(("label", "expected"), [("right", 1), ("0", 0), ("C", 2), ("it slept", 0), ("", None)])
def test_a_choice_by_column_number_letter_or_text(tmp_path, label, expected):
    text = f"story,left,right,last,answer\nA dog.,it slept,it ran,it sat,{label}\n"
    rows = made(tmp_path, "choice", text, "a.csv", ["story", "left", "right", "last", "answer"])
    assert rows.examples[0].label == expected


def test_choices_as_a_list_may_differ_in_number(tmp_path):
    text = '{"q": "a", "c": ["x", "y", "z"], "l": 2}\n{"q": "b", "c": ["x", "y"], "l": 0}\n'
    rows = made(tmp_path, "choice", text, "a.jsonl", ["q", "c", "l"])
    assert plain(rows) == [(("a",), ("x", "y", "z"), 2), (("b",), ("x", "y"), 0)]


words = st.text(string.ascii_letters + " \",'.|é", min_size=1, max_size=20).filter(lambda text: text.strip())


@given(
    st.lists(st.tuples(words, words, st.sampled_from(["0", "1"])), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_any_text_comes_back(tmp_path_factory, rows, bom, crlf):
    path = tmp_path_factory.mktemp("any") / "a.tsv"
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *(f"{y}\t1\t2\t{a}\t{b}" for a, b, y in rows)]
    path.write_bytes((BOM * bom + ("\r\n" if crlf else "\n").join(lines)).encode())
    found = read(TASKS["mrpc"], path)
    assert plain(found) == [((a.strip(),), (b.strip(),), int(y)) for a, b, y in rows]


# ------------------------------------------------------------------------------------------------- bad input


def many(bad):
    return "index\tsentence1\tsentence2\tlabel\n" + "0\tA\tB\tentailment\n" * 300 + bad


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("0\tA\tB\n", "3 columns, but 4 are expected"),
        ("0\tA\tB\tperhaps\n", "the label 'perhaps' is none of entailment, not_entailment"),
        ("0\t \tB\tentailment\n", "no text in sentence1"),
        ("0\tA\tB\t7\n", "the label '7' is none of"),
    ],
)
def test_a_few_bad_rows_are_named_and_left_out(tmp_path, row, why):
    rows = made(tmp_path, "rte", many(row))
    assert len(rows.examples) == 300
    assert len(rows.bad) == 1
    assert f"{tmp_path}/file.tsv:302: {why}" in rows.bad[0]


def test_many_bad_rows_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"4 of the 304 rows of .* cannot be used as rte: .*file.tsv:302: .*perhaps"):
        made(tmp_path, "rte", many("0\tA\tB\tperhaps\n" * 4))


@pytest.mark.parametrize(
    ("task", "file", "text", "columns", "words"),
    [
        ("rte", "a.tsv", "", (), "has no rows"),
        ("rte", "a.tsv", "index\tsentence1\tsentence2\tlabel\n", (), "has no rows"),
        ("rte", "a.tsv", "index\tpremises\tsentence2\tlabel\n0\tA\tB\tC\n", (), "no column sentence1 or premise"),
        ("rte", "a.jsonl", '{"premise": "A", "label": 0}\n', (), "no column sentence2 or hypothesis"),
        ("entailment", "a.csv", "premise,hypo,label\na,b,c\n", ("premise", "hypp", "label"), "Did you mean hypo"),
        ("rte", "a.jsonl", '{"premise": "A", "hypothesis": "B", "label": 0}\n{"prem', (), "not JSON"),
        ("stsb", "a.csv", "sentence1,sentence2,score\na,b,high\n", (), "the score 'high' is not a number"),
        ("stsb", "a.csv", "sentence1,sentence2,score\na,b,nan\n", (), "the score 'nan' is not a number"),
        ("choice", "a.csv", "s,a,b,l\nx,y,z,2\n", ("s", "a", "b", "l"), "its number from 0"),
        ("choice", "a.jsonl", '{"s": "x", "c": ["y"], "l": 0}\n', ("s", "c", "l"), "fewer than two choices"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong(tmp_path, task, file, text, columns, words):
    with pytest.raises(UserError, match=words):
        made(tmp_path, task, text, file, columns)


@pytest.mark.parametrize(
    ("task", "columns", "words"),
    [
        ("rt", (), "Did you mean rte"),
        ("rte", ("a",), "whose columns are known"),
        ("entailment", (), "--columns is missing"),
        ("classification", ("a", "b", "c"), "--columns has 3"),
        ("choice", ("a", "b"), "--columns has 2"),
    ],
)
def test_a_task_that_is_wrong(task, columns, words):
    with pytest.raises(UserError, match=words):
        task_of(task, columns)


def test_race_where_there_is_none(tmp_path):
    with pytest.raises(UserError, match=r"has no \.txt files"):
        read(TASKS["race"], tmp_path)
    (tmp_path / "a.txt").write_text("not json")
    with pytest.raises(UserError, match="not a JSON object with article"):
        read(TASKS["race"], tmp_path)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read(TASKS["rte"], tmp_path / "nowhere.tsv")
    (tmp_path / "a.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read(TASKS["rte"], tmp_path / "a.tsv")


# ------------------------------------------------------------------------------------------------ real files

COUNTS = {
    ("cola", "in_domain_train.tsv"): (8551, 8551), ("cola", "in_domain_dev.tsv"): (527, 527),
    ("cola", "out_of_domain_dev.tsv"): (516, 516), ("sst2", "train.txt"): (6920, 6920), ("sst2", "dev.txt"): (872, 872),
    ("mrpc", "train.tsv"): (3576, 3576), ("mrpc", "val.tsv"): (500, 500), ("mrpc", "test.tsv"): (1725, 1725),
    ("stsb", "train.tsv"): (5749, 5749), ("stsb", "dev.tsv"): (1500, 1500), ("stsb", "test.tsv"): (1379, 0),
    ("rte", "train.jsonl"): (2490, 2490), ("cb", "train.jsonl"): (250, 250), ("cb", "val.jsonl"): (56, 56),
}  # fmt: skip


@pytest.mark.parametrize(("task", "file"), COUNTS)
def test_real_files_are_read_to_the_row(shared_data, task, file):
    rows = read(TASKS[task], shared_data / "finetune" / task / file)
    labelled = [example for example in rows.examples if example.label is not None]
    assert (len(rows.examples), len(labelled)) == COUNTS[task, file]
    assert not rows.bad
