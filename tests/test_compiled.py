"""What is compiled and kept is right, also where two processes compile at the same time."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from numba.core.caching import IndexDataCacheFile
from rein.compiled import compiled

@compiled()
def double(x):
    return x + x

if sys.argv[1] == "late":  # read the index before the other wrote to it, wrote it before the other, and its code after
    IndexDataCacheFile._load_index = lambda self: {}
    IndexDataCacheFile._save_index = lambda self, overloads: None
print([double(eval(text)) for text in sys.argv[2:]])
"""


def test_two_that_compile_variants_of_one_function_at_once_do_not_mix_them_up(tmp_path):
    path = tmp_path / "code.py"
    path.write_text(CODE)

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, path, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert run("first", "2") == "[4]"
    assert run("late", "2.5") == "[5.0]"
    for words, expected in ((("2", "2.5"), "[4, 5.0]"), (("2.5", "2"), "[5.0, 4]")):
        assert run("next", *words) == expected
    names = [file.name for file in tmp_path.rglob("*.nbc")]
    assert len(names) == len(set(names)) >= 2
