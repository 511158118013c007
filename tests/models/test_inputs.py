"""The four input transformations token by token, cutting, and batches that lose nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.models.inputs import Input, collate, encode, fitted, pieces, read_labelled
from rein.models.ops import IGNORED
from rein.text.tasks import TASKS, Example, Task, task_of

V = 300
START, DELIMITER, EXTRACT = V, V + 1, V + 2


def ids(tokenizer, *texts):
    return [token for text in texts for token in tokenizer.encode(text).tolist()]


def encoded(tokenizer, task, example, n_ctx=64):
    (found,), cut = encode([example], task, tokenizer, n_vocab=V, n_ctx=n_ctx)
    return [list(sequence) for sequence in found.sequences], cut


def test_the_four_transformations(tokenizer):
    a, b, c = ids(tokenizer, "One text"), ids(tokenizer, "another"), ids(tokenizer, "third")
    pair = Example(("One text",), ("another",), 0)
    assert encoded(tokenizer, TASKS["cola"], Example(("One text",), (), 0))[0] == [[START, *a, EXTRACT]]
    assert encoded(tokenizer, TASKS["rte"], pair)[0] == [[START, *a, DELIMITER, *b, EXTRACT]]
    assert encoded(tokenizer, TASKS["mrpc"], pair)[0] == [
        [START, *a, DELIMITER, *b, EXTRACT],
        [START, *b, DELIMITER, *a, EXTRACT],
    ]
    three = Example(("One text",), ("another", "third"), 0)
    assert encoded(tokenizer, TASKS["storycloze"], three)[0] == [
        [START, *a, DELIMITER, *b, EXTRACT],
        [START, *a, DELIMITER, *c, EXTRACT],
    ]


def test_a_question_goes_behind_its_document_and_survives_cutting(tokenizer):
    question = ids(tokenizer, " What is it?")
    example = Example(("A document of words. " * 20, "What is it?"), ("a", "b"), 0)
    (first, _), cut = encoded(tokenizer, TASKS["race"], example, n_ctx=40)
    assert len(first) == 40
    assert cut == 1
    assert first[-3 - len(question) : -3] == question
    assert first[-3:] == [DELIMITER, *ids(tokenizer, "a"), EXTRACT]


def test_stories_are_cut_as_the_released_code_cuts_them(tokenizer):
    story, ending = "The dog ran away. " * 30, "It came back. " * 30
    (first, _), _ = encoded(tokenizer, TASKS["storycloze"], Example((story,), (ending, "b"), 0), n_ctx=64)
    most = 64 // 2 - 2
    assert first == [START, *ids(tokenizer, story.strip())[:most], DELIMITER, *ids(tokenizer, ending)[:most], EXTRACT]


def test_how_many_examples_were_cut(tokenizer):
    rows = [Example(("word " * n,), (), 0) for n in (3, 500, 3, 700)]
    inputs, cut = encode(rows, TASKS["cola"], tokenizer, n_vocab=V, n_ctx=32)
    assert cut == 2
    assert [each.longest == 32 for each in inputs] == [False, True, False, True]
    assert all(each.sequences[0][0] == START and each.sequences[0][-1] == EXTRACT for each in inputs)


@pytest.mark.parametrize(("task", "n_ctx"), [("cola", 2), ("rte", 4), ("race", 5), ("storycloze", 5)])
def test_a_context_too_small(tokenizer, task, n_ctx):
    context = ("a", "b") if task == "race" else ("a",)
    example = Example(context, () if task == "cola" else ("c", "d"), 0)
    with pytest.raises(UserError, match=f"n_ctx={n_ctx} has no room"):
        encode([example], TASKS[task], tokenizer, n_vocab=V, n_ctx=n_ctx)


@given(st.lists(st.integers(0, 90), min_size=1, max_size=4), st.integers(0, 80))
@settings(deadline=None)
def test_cutting_fills_the_room_and_takes_from_the_longest(lengths, room):
    kept = fitted(lengths, room)
    assert sum(kept) == min(sum(lengths), room)
    assert all(k <= length for k, length in zip(kept, lengths, strict=True))
    cut = [k for k, length in zip(kept, lengths, strict=True) if k < length]
    assert all(k <= low + 1 for k in kept for low in cut)  # nothing that stays is longer than what was cut


sequences = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(
    lambda lengths: Input(tuple((5,) * n + (EXTRACT,) for n in lengths), 0, "")
)


@given(st.lists(sequences, min_size=1, max_size=30), st.integers(1, 400))
@settings(deadline=None)
def test_pieces_hold_every_example_once_within_their_size(inputs, at_once):
    groups = pieces(inputs, at_once)
    assert sorted(place for group in groups for place in group) == list(range(len(inputs)))
    for group in groups:
        padded = sum(len(inputs[p].sequences) for p in group) * max(inputs[p].longest for p in group)
        assert padded <= at_once or len(group) == 1


@given(st.lists(sequences, min_size=1, max_size=8))
@settings(deadline=None)
def test_a_batch_has_every_token_as_input_and_target(inputs):
    batch = collate(inputs, n_vocab=V)
    flat = [sequence for each in inputs for sequence in each.sequences]
    for row, sequence in enumerate(flat):
        n = len(sequence)
        assert batch.tokens_ST[row].tolist() == [*sequence, *[0] * (batch.tokens_ST.shape[1] - n)]
        assert batch.targets_ST[row, : n - 1].tolist() == list(sequence[1:])
        assert (batch.targets_ST[row, n - 1 :] == IGNORED).all()
        assert batch.extract_S[row] == n - 1
        assert batch.lengths_S[row] == n - 1
    assert batch.example_S.tolist() == [i for i, each in enumerate(inputs) for _ in each.sequences]


def test_the_head_reads_the_first_extract():
    batch = collate([Input(((START, 5, EXTRACT, 6, EXTRACT),), 0, "")], n_vocab=V)
    assert batch.extract_S.tolist() == [2]
    assert isinstance(batch.tokens_ST, torch.Tensor)


def test_what_was_read_is_said(tokenizer, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "good,1\n" * 150 + f"{'long ' * 90},0\nhidden,\nshort,0,1\n")
    task = Task("own", "classification", ("text",), labels=("0", "1"))
    inputs, notes = read_labelled(task, path, tokenizer, n_vocab=V, n_ctx=32)
    assert len(inputs) == 151
    assert notes[0] == (f"{path}: 151 examples, 1 cut to 32 tokens, 1 without a label left out, 1 bad rows left out")
    assert notes[1] == f"  {path}:154: 3 columns, but 2 are expected"


def test_a_file_without_labels(tokenizer, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\na\nb\n")
    with pytest.raises(UserError, match="has no labels in label"):
        read_labelled(task_of("classification", ["text", "label"]), path, tokenizer, n_vocab=V, n_ctx=32)


def test_real_pairs_fit_gpt1(shared_data, tokenizer):
    inputs, _ = read_labelled(TASKS["rte"], shared_data / "finetune/rte/val.jsonl", tokenizer, n_vocab=V, n_ctx=512)
    assert len(inputs) == 277
    lengths = np.array([each.longest for each in inputs])
    assert lengths.max() <= 512
    assert {each.label for each in inputs} == {0, 1}
