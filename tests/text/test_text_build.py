"""`rein text build`: counts add up, splits never share a text, a build that was stopped goes on to the same bytes."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rein import config as settings
from rein.bpe import trainer
from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.tokenizer import load_tokenizer
from rein.errors import UserError
from rein.text import pipeline, pydocs
from rein.text.build import BuildConfig, build
from rein.text.shards import Shards, read_manifest
from rein.text.store import read_documents

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("st", "rn", "ll", "ck", "")]


def write_jsonl(path: Path, n_documents: int, words: int = 40) -> Path:
    rng = random.Random(n_documents)
    with path.open("w") as file:
        for _ in range(n_documents):
            file.write(json.dumps({"text": " ".join(rng.choices(WORDS, k=words))}) + "\n")
    return path


def documents_of(corpus: Path, split: str):
    paths = [corpus / "documents" / record["file"] for record in read_manifest(corpus)["splits"][split]["files"]]
    return list(read_documents(paths))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus but the lock, and the config and the report, which name the folder itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("build.lock", "config.json", "report.html")
    }


# ------------------------------------------------------------------------------------------- what a corpus holds


def test_everything_that_came_in_is_kept_or_dropped_with_a_reason(tmp_path, byte_tokenizer):
    path = tmp_path / "input.jsonl"
    texts = [f"text {i}" for i in range(60)]
    rows = [*texts, *texts[:5], "", "a\0b", "\ud800", 7]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows) + "{oops\n")
    corpus = build(
        BuildConfig(
            (path,),
            source="jsonl",
            out=tmp_path / "corpus",
            heldout_frac=0.2,
            tokenizer=byte_tokenizer,
            license="CC0-1.0",
        )
    )
    manifest = read_manifest(corpus)
    dropped = {reason: about["count"] for reason, about in manifest["dropped"].items()}
    assert dropped == {
        "duplicate": 5,
        "empty": 1,
        "NUL character": 1,
        "lone surrogate": 1,
        "no text in the field": 1,
        "not JSON": 1,
    }
    assert manifest["items"] == len(rows) + 1 == manifest["kept"] + sum(dropped.values())
    assert manifest["dropped"]["duplicate"]["first"] == ["input.jsonl:61", "input.jsonl:62", "input.jsonl:63"]
    train, heldout = documents_of(corpus, "train"), documents_of(corpus, "heldout")
    assert sorted(document.text for document in train + heldout) == sorted(texts)
    assert len(train) > len(heldout) > 0
    assert {document.metadata["license"] for document in train} == {"CC0-1.0"}
    assert [sum(about["documents"].values()) for about in manifest["origins"]] == [60]
    for split, documents in (("train", train), ("heldout", heldout)):
        shards = Shards(corpus, split)
        shards.verify()
        assert shards.n_documents == manifest["splits"][split]["documents"] == len(documents)
        assert shards.n_bytes == sum(len(document.text) for document in documents)
        assert sum(int((ids == shards.eot_id).sum()) for ids in shards.iter_documents()) == len(documents)
        tokenizer = load_tokenizer(corpus)
        assert [tokenizer.decode(ids[:-1]) for ids in shards.iter_documents()] == [d.text for d in documents]


def test_no_held_out_text_is_in_train_even_where_ids_differ(tmp_path, byte_tokenizer):
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i % 50}"}) + "\n" for i in range(500)))
    corpus = build(
        BuildConfig((path,), source="jsonl", out=tmp_path / "corpus", heldout_frac=0.3, tokenizer=byte_tokenizer)
    )
    train, heldout = ({document.text for document in documents_of(corpus, split)} for split in ("train", "heldout"))
    assert not train & heldout
    assert len(train | heldout) == 50


def test_the_end_of_text_cannot_be_forged(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("one<|endoftext|>two " * 50)
    corpus = build(BuildConfig((path,), source="text", out=tmp_path / "corpus", n_vocab=270))
    shards = Shards(corpus, "train")
    assert (shards.windows([0], shards.n_tokens) == shards.eot_id).sum() == 1


def test_a_text_file_is_cut_at_its_tail(tmp_path, byte_tokenizer):
    path = tmp_path / "input.txt"
    path.write_text("0123456789" * 10)
    out = tmp_path / "corpus"
    build(BuildConfig((path,), source="text", out=out, heldout_frac=0.1, tokenizer=byte_tokenizer))
    (train,), (heldout,) = documents_of(out, "train"), documents_of(out, "heldout")
    assert train.text + heldout.text == path.read_text()
    assert heldout.text == "0123456789"
    assert (train.id, heldout.id) == (f"{path}[:90]", f"{path}[90:]")


def test_nothing_held_out(tmp_path, byte_tokenizer):
    path = tmp_path / "input.txt"
    path.write_text("some text")
    out = tmp_path / "corpus"
    build(BuildConfig((path,), source="text", out=out, heldout_frac=0, tokenizer=byte_tokenizer))
    assert list(read_manifest(out)["splits"]) == ["train"]
    assert [document.text for document in documents_of(out, "train")] == ["some text"]


def test_the_vocabulary_is_learnt_from_the_train_part_only(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("train train train " * 60 + "zzzz" * 30)
    out = tmp_path / "corpus"
    build(BuildConfig((path,), source="text", out=out, heldout_frac=0.1, n_vocab=261))
    tokenizer = load_tokenizer(out)
    assert read_manifest(out)["tokenizer"]["sha256"] == tokenizer.sha256()
    assert isinstance(tokenizer, ByteLevelBPE)
    assert b"z" not in b"".join(token for merge in tokenizer.merges for token in merge)


def test_a_sample_for_the_vocabulary_is_spread_over_the_corpus(tmp_path):
    path = write_jsonl(tmp_path / "input.jsonl", 12_000, words=60)
    out = tmp_path / "corpus"
    build(BuildConfig((path,), source="jsonl", out=out, n_vocab=300, tokenizer_mb=1))
    manifest = read_manifest(out)
    every = -(-manifest["splits"]["train"]["bytes"] // 1_000_000)
    assert every > 1
    train = [document.text for document in documents_of(out, "train")]
    expected = trainer.train(train[::every], 300, max_bytes=1_000_000)
    assert expected.sha256() == manifest["tokenizer"]["sha256"]


def test_limits(tmp_path, byte_tokenizer):
    path = write_jsonl(tmp_path / "input.jsonl", 300)

    def kept(**limit):
        out = tmp_path / "-".join(map(str, limit.values()))
        build(BuildConfig((path,), source="jsonl", out=out, heldout_frac=0.2, tokenizer=byte_tokenizer, **limit))
        return sum(read_manifest(out)["splits"][split]["documents"] for split in ("train", "heldout"))

    assert kept(max_documents=100) == 100
    assert 40 < kept(max_mb=0.01) < 80


def test_packages_are_held_out_whole(tmp_path, byte_tokenizer, monkeypatch):
    site = tmp_path / "site"
    for i in range(12):
        info = site / f"pkg{i}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pkg{i}\nVersion: 1.0\nLicense: MIT\n")
        (info / "RECORD").write_text(f"pkg{i}.py,,\n")
        code = f'"""Package {i} has a docstring."""\ndef f():\n    """Its function, number {i}, has one too."""'
        (site / f"pkg{i}.py").write_text(code)
    packages = pydocs.installed_packages
    monkeypatch.setattr(pydocs, "installed_packages", lambda path: packages([str(site)]))
    monkeypatch.setattr("rein.text.pydocs.sysconfig.get_path", lambda name: str(site / "nothing"))
    out = tmp_path / "corpus"
    build(BuildConfig(out=out, heldout_frac=0.2, min_chars=10, tokenizer=byte_tokenizer))
    train, heldout = ({d.metadata["package"] for d in documents_of(out, split)} for split in ("train", "heldout"))
    assert not train & heldout
    assert len(train | heldout) == 12
    assert 2 <= len(heldout) <= 3
    assert {path.name for path in out.iterdir()} == {
        "build.lock", "config.json", "recipe.json", "report.json", "report.html", "manifest.json", "tokenizer.json",
        "documents", "train-00000.bin", "train-00000.idx", "heldout-00000.bin", "heldout-00000.idx",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ once, and resumed


def test_a_complete_corpus_is_left_alone(tmp_path, jsonl, byte_tokenizer, capsys):
    config = BuildConfig((jsonl,), source="jsonl", out=tmp_path / "corpus", heldout_frac=0.3, tokenizer=byte_tokenizer)
    build(config)
    before = {path: path.stat().st_mtime_ns for path in config.folder().rglob("*.*") if path.name != "build.lock"}
    capsys.readouterr()
    build(config)
    assert "complete already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    build(settings.from_json(BuildConfig, config.folder() / "config.json"))


def test_the_same_settings_give_the_same_bytes_elsewhere(tmp_path, jsonl):
    config = BuildConfig((jsonl,), source="jsonl", out=tmp_path / "a", heldout_frac=0.3, n_vocab=280, shard_tokens=500)
    build(config)
    build(settings.replace(config, out=tmp_path / "b"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_settings_or_contents_are_refused(tmp_path, jsonl, byte_tokenizer):
    own = tmp_path / "own.json"
    shutil.copy(byte_tokenizer, own)
    config = BuildConfig((jsonl,), source="jsonl", out=tmp_path / "corpus", heldout_frac=0.3, tokenizer=own)
    build(config)
    with pytest.raises(UserError, match=r"other settings \(seed: 0 → 1\)"):
        build(settings.replace(config, seed=1))
    ByteLevelBPE(((b"a", b"b"),)).save(own)
    with pytest.raises(UserError, match=r"the tokenizer in .*own.json has changed"):
        build(config)
    shutil.copy(byte_tokenizer, own)
    jsonl.write_text(jsonl.read_text() + '{"text": "one more"}\n')
    with pytest.raises(UserError, match=r"what it reads, .* has changed"):
        build(config)


def test_a_folder_with_other_things_is_not_touched(tmp_path, jsonl):
    out = tmp_path / "out"
    (out / "documents").mkdir(parents=True)
    (out / "documents" / "thesis.tex").write_text("ten years")
    with pytest.raises(UserError, match=r"is not empty \(documents\) and holds no corpus"):
        build(BuildConfig((jsonl,), source="jsonl", out=out))
    assert (out / "documents" / "thesis.tex").read_text() == "ten years"


def test_a_wrong_vocabulary_size_can_be_put_right_in_the_same_folder(tmp_path, jsonl):
    config = BuildConfig((jsonl,), source="jsonl", out=tmp_path / "corpus", heldout_frac=0.3, n_vocab=50_000)
    with pytest.raises(UserError, match=r"Pass --n-vocab \d+ or less"):
        build(config)
    build(settings.replace(config, n_vocab=280))
    assert read_manifest(tmp_path / "corpus")["settings"]["n_vocab"] == 280
    assert settings.from_json(BuildConfig, tmp_path / "corpus" / "config.json").n_vocab == 280


def test_a_fraction_that_holds_nothing_out_can_be_put_right_in_the_same_folder(tmp_path, byte_tokenizer):
    path = write_jsonl(tmp_path / "input.jsonl", 4)
    config = BuildConfig((path,), source="jsonl", out=tmp_path / "corpus", heldout_frac=1e-9, tokenizer=byte_tokenizer)
    with pytest.raises(UserError, match="of 4 documents leaves none in heldout"):
        build(config)
    with pytest.raises(UserError, match="is not finished"):
        Shards(tmp_path / "corpus")
    build(settings.replace(config, heldout_frac=0))


def test_two_builds_do_not_meet(tmp_path, jsonl):
    out = tmp_path / "corpus"
    out.mkdir()
    with (out / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"):
            build(BuildConfig((jsonl,), source="jsonl", out=out))


def test_what_is_missing_of_an_unfinished_build_is_said(tmp_path, jsonl, byte_tokenizer, monkeypatch):
    config = BuildConfig((jsonl,), source="jsonl", out=tmp_path / "corpus", heldout_frac=0.3, tokenizer=byte_tokenizer)
    monkeypatch.setattr(pipeline, "tokenise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(config)
    monkeypatch.undo()
    (tmp_path / "corpus" / "work" / "assembling" / "input-00000.000.train.000.parquet").unlink()
    with pytest.raises(UserError, match=r"input-00000.000.train.000.parquet cannot be read"):
        build(config)


# ------------------------------------------------------------------------------------------------ refused settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"paths": (Path("essays"),)}, r"\(pydocs\) reads the installed packages, but essays is given"),
        ({"source": "folder"}, r"\(folder\) needs at least one path"),
        ({"heldout_frac": 1.0}, "--heldout-frac is 1.0"),
        ({"heldout_frac": -0.1}, "--heldout-frac is -0.1"),
        ({"tokenizer": Path("a.json"), "n_vocab": 300}, "--n-vocab 300 and --tokenizer a.json are both given"),
        ({"max_documents": 0}, "max_documents is 0, but it must be above 0"),
        ({"max_mb": -1.0}, "max_mb is -1.0, but it must be above 0"),
        ({"workers": 0}, "--workers is 0"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"paths": (Path("recipe.py"),), "seed": 3}, "--seed is given beside the recipe recipe.py"),
        ({"shard_tokens": 2**31}, "--shard-tokens is 2147483648, but it must be from 1 to 2,147,483,647"),
        ({"tokenizer_mb": 3000}, "--tokenizer-mb is 3000, but it must be from 1 to 2,147"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(UserError, match=message):
        BuildConfig(**wrong)


def test_the_folder_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert BuildConfig().folder() == Path("data/pydocs")
    assert BuildConfig((Path("texts/input.txt"),), source="text").folder() == Path("data/input")
    assert BuildConfig((Path("pages.jsonl.gz"),), source="jsonl").folder() == Path("data/pages")
    assert BuildConfig((Path(),), source="folder").folder() == Path("data") / tmp_path.name


def test_an_empty_corpus_says_why(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("1,2")
    (tmp_path / "in" / "b.txt").write_text(" ")
    with pytest.raises(UserError, match=r"2 items were read, and none can be used \(1 other file type, 1 empty\)"):
        build(BuildConfig((tmp_path / "in",), source="folder", out=tmp_path / "out"))


def test_the_output_cannot_be_a_file(tmp_path, jsonl):
    with pytest.raises(UserError, match="cannot be written"):
        build(BuildConfig((jsonl,), source="jsonl", out=jsonl))


def test_a_missing_tokenizer_is_said_before_anything_is_written(tmp_path, jsonl):
    with pytest.raises(UserError, match="no tokenizer at"):
        build(BuildConfig((jsonl,), source="jsonl", out=tmp_path / "out", tokenizer=tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------- kill, full disk, memory


def rein(*words: object) -> list[str]:
    return [sys.executable, "-m", "rein", "text", "build", *map(str, words)]


@pytest.fixture
def job(tmp_path) -> list[str]:
    """A command whose stages take long enough to be hit."""
    path = write_jsonl(tmp_path / "input.jsonl", 12_000, words=60)
    return rein(path, "--source", "jsonl", "--n-vocab", 400, "--shard-tokens", 100_000, "--heldout-frac", 0.1)


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    (tmp_path / "tmp").mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "tmp")}


@pytest.mark.slow  # test_text_pipeline.py has the same of a small recipe
def test_killed_in_every_stage_and_resumed_it_gives_the_same_bytes(tmp_path, job, environment):
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*job, "--out", tmp_path / "whole"], check=True, **quiet)
    rng = random.Random(0)
    killed = 0
    for sign in ("config.json", "work/reading/*.parquet", "work/fingerprints/*.keys.npy", "work/duplicate-ids/*.npy",
                 "work/candidate-pairs/*.npy", "work/assembling/*.train.*.parquet", "work/learning*/tokenizer.json",
                 "work/tokenising/*.tokens", "train-00001.bin", "train-00004.bin", "heldout-*"):  # fmt: skip
        process = subprocess.Popen([*job, "--out", tmp_path / "killed"], start_new_session=True, **quiet)
        while process.poll() is None and not list((tmp_path / "killed").glob(sign)):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        killed += process.poll() is None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the trainer that it may have started
        process.wait()
    assert killed >= 8
    subprocess.run([*job, "--out", tmp_path / "killed"], check=True, **quiet)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(list((tmp_path / "whole").glob("*.bin"))) > 5


def test_interrupted_it_says_so_and_leaves_no_half_file(tmp_path, job, environment):
    out = tmp_path / "corpus"
    process = subprocess.Popen([*job, "--out", out], env=environment, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("work/reading/*.part")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Interrupted" in error
    assert "Traceback" not in error
    assert {path.name for path in out.rglob("*")} <= {
        "build.lock", "config.json", "recipe.json", "work", "reading", "stage.json"
    }  # fmt: skip


def test_a_full_disk_is_said_and_damages_nothing(tmp_path, byte_tokenizer, environment):
    path, out = write_jsonl(tmp_path / "input.jsonl", 12_000, words=60), tmp_path / "corpus"
    words = ["--source", "jsonl", "--tokenizer", byte_tokenizer, "--near-duplicates", "off", "--out", out]
    job = rein(path, *words)
    for limit, hit in ((100_000, "work/reading"), (3_000_000, "work/tokenising")):

        def limited(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        done = subprocess.run(job, env=environment, capture_output=True, text=True, preexec_fn=limited, check=False)
        assert done.returncode == 2, done.stderr
        assert f"No room left while writing {out}/{hit}" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(out.rglob("*.part"))
        assert not list(out.glob("*.bin"))
        assert not (out / "manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("work/assembling/*.parquet")}
    assert len(before) == 2
    kept = {path.stat().st_ino for path in before}
    subprocess.run(job, env=environment, capture_output=True, check=True)
    Shards(out, "train").verify()
    assert kept == {path.stat().st_ino for path in out.glob("documents/*.parquet")}  # made before, and not again


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path, environment):
    """73 MB of text need at most 60 MB more than 22 MB do: hashes against duplicates, and what allocators keep."""

    def peak_mb(n_documents: int) -> float:
        path = write_jsonl(tmp_path / f"{n_documents}.jsonl", n_documents, words=1600)
        words = [path, "--source", "jsonl", "--n-vocab", 400, "--tokenizer-mb", 2, "--out", tmp_path / f"{n_documents}"]
        process = subprocess.Popen(rein(*words), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)

    small, large = peak_mb(3_000), peak_mb(10_000)
    assert (tmp_path / "10000.jsonl").stat().st_size > 60e6
    assert large < small + 60, (small, large)
