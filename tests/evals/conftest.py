"""Two small evaluations, and the way to what tests of this room share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from evaluations import SMALL, write_evaluation


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_evaluation(tmp_path_factory.mktemp("evals") / "small-gpt3", tasks=SMALL)


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evals") / "medium-gpt3"
    return write_evaluation(folder, model="runs/medium", n_params=354_823_168, skill=0.2, tasks=SMALL, seed=1)
