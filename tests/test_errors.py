"""What a user reads when something can be put right."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from rein.errors import UserError, suggestion, writing


def test_a_user_error_has_a_problem_and_a_fix():
    error = UserError("--n-layer is 0.", "Pass --n-layer 6.")
    assert str(error) == "--n-layer is 0.\n  Pass --n-layer 6."
    assert (error.problem, error.fix) == ("--n-layer is 0.", "Pass --n-layer 6.")


@pytest.mark.parametrize(
    ("wrong", "known", "says"),
    [
        ("n_layers", ["n_layer", "n_head"], "Did you mean n_layer?"),
        ("pretrian", ["pretrain", "sft"], "Did you mean pretrain?"),
        ("bpe trian", ["bpe train", "bpe decode"], "Did you mean bpe train?"),
        ("zzz", ["b", "a"], "Known names: a, b."),
    ],
)
def test_a_near_name_is_suggested_and_otherwise_all_are_listed(wrong, known, says):
    assert suggestion(wrong, known) == says


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_a_users_matter(number, tmp_path):
    path = tmp_path / "new folder" / "file"
    with (
        pytest.raises(UserError, match=r"No room left while writing .*file .* MB free on that disk\)") as caught,
        writing(path),
    ):
        raise OSError(number, os.strerror(number))
    assert "--out" in caught.value.fix
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR])
def test_a_place_that_cannot_be_written_is_a_users_matter(number, tmp_path):
    with pytest.raises(UserError, match="file cannot be written: ") as caught, writing(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert "--out" in caught.value.fix


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(OSError, match="Input/output"), writing(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(ValueError, match="ours"), writing(tmp_path):
        raise ValueError("ours")


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    with pytest.raises(UserError, match="run cannot be written: Not a directory"), writing(folder):
        folder.mkdir(parents=True)


def test_an_error_comes_back_from_another_process_whole():
    error = pickle.loads(pickle.dumps(UserError("It is 0.", "Take 1.")))
    assert (error.problem, error.fix, str(error)) == ("It is 0.", "Take 1.", "It is 0.\n  Take 1.")
