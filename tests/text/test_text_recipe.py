"""Recipes: what cannot be is said at once, and all forms of a recipe give one corpus."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from rein import config as settings
from rein.errors import UserError
from rein.text.build import BuildConfig, build
from rein.text.recipe import Decontamination, NearDuplicates, Quality, Recipe, Source, load_recipe
from rein.text.shards import read_manifest
from rein.text.store import read_documents

sys.path.insert(0, str(Path(__file__).parent))
from corpora import contents, write_jsonl

A = Source("a", "text", (Path("a.txt"),))
B = Source("b", "text", (Path("b.txt"),))


@pytest.fixture(autouse=True)
def same_path():
    """Modules beside a recipe can be imported in its own test only."""
    before = list(sys.path)
    yield
    sys.path[:] = before


def source(**changes: object) -> Source:
    return settings.replace(A, **changes)


# ------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("wrong", "problem", "fix"),
    [
        ({"name": ""}, "A source is called ''", "letters, digits, - and _"),
        ({"name": "my web"}, "A source is called 'my web'", "letters, digits, - and _"),
        ({"name": "../web"}, "A source is called '../web'", "letters, digits, - and _"),
        ({"name": "-_"}, "A source is called '-_'", "letters, digits, - and _"),
        ({"kind": "jsnol"}, "'a' is of the kind 'jsnol'", "Did you mean jsonl"),
        ({"kind": "zzz"}, "'a' is of the kind 'zzz'", "Known names: .*warc"),
        ({"paths": ()}, r"'a' \(text\) needs at least one path", "Name files or folders"),
        ({"kind": "warc", "paths": ()}, r"'a' \(warc\) needs at least one path", "Name files or folders"),
        ({"kind": "pydocs"}, r"\(pydocs\) reads the installed packages, but a.txt is given", "folder, text, .*, warc"),
        ({"dataset": "wikitext"}, "a dataset's name goes with the kind huggingface", "both, or neither"),
        (
            {"kind": "huggingface", "paths": ()},
            "a dataset's name goes with the kind huggingface",
            "both, or neither",
        ),
        ({"links": (Path("links.csv"),)}, "'a' is text, but links name web pages", "html or warc"),
        ({"min_chars": 0}, "min_chars is 0, but it must be above 0", "Correct"),
        ({"max_chars": -1}, "max_chars is -1, but it must be above 0", "Correct"),
        ({"max_documents": 0}, "max_documents is 0, but it must be above 0", "Correct"),
        ({"max_mb": 0.0}, "max_mb is 0.0, but it must be above 0", "Correct"),
        ({"weight": -0.5}, "weight is -0.5, but it must be above 0", "Correct"),
        ({"weight": float("nan")}, "weight of the source .* is nan, but float is expected", "Correct"),
        ({"epochs": 0.0}, "epochs is 0.0, but it must be above 0", "Correct"),
        ({"min_chars": 10, "max_chars": 9}, "min_chars is 10 and max_chars 9", "Nothing would be left"),
        ({"weight": float("inf")}, "weight of the source .* is inf, but float is expected", "Correct"),
        ({"until": "yesterday"}, "until is 'yesterday', which is no day", "2017-12-31"),
        ({"languages": ("english",)}, "'english' is no code of a language", "ISO 639-1"),
    ],
)
def test_sources_that_cannot_be(wrong, problem, fix):
    with pytest.raises(UserError, match=problem) as raised:
        source(**wrong)
    assert re.search(fix, raised.value.fix)
    assert "'" in raised.value.problem  # the source is named


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan"), "high"])
def test_thresholds_that_cannot_be(threshold):
    with pytest.raises(
        UserError,
        match=r"threshold (is|of NearDuplicates is) .*, but (it must be above 0 and at most 1|float is expected)",
    ):
        NearDuplicates(threshold=threshold)
    assert NearDuplicates(threshold=1.0).threshold == 1.0


@pytest.mark.parametrize(
    ("sources", "wrong", "problem", "fix"),
    [
        ((), {}, "The recipe has no sources", "at least one"),
        ((A, B, A), {}, "Two sources are called 'a'", "a name of its own"),
        ((A, B), {"quality": Quality(("aa",), ("b",))}, "quality classifier names the source 'aa'", "mean a"),
        ((A, B), {"quality": Quality(("a",), ("c",))}, "quality classifier names the source 'c'", "Known names: a, b"),
        ((A, B), {"quality": Quality(("a",), ())}, "needs examples of both sides", "sources for each"),
        ((A, B), {"quality": Quality((), ("a",))}, "needs examples of both sides", "sources for each"),
        ((source(quality=True),), {}, "but the recipe has none", r"quality=Quality\("),
        (
            (A, B),
            {"near_duplicates": NearDuplicates(prefer=("c",))},
            r"near_duplicates.prefer names the source 'c'",
            "Known names: a, b",
        ),
        ((source(weight=1.0), B), {}, "'b' has no weight, but others have", "weight for every source, or for none"),
        (
            (A, settings.replace(B, epochs=2.0)),
            {},
            "'a' has no epochs, but others have",
            "epochs for every source, or for none",
        ),
        ((source(weight=1.0, epochs=2.0),), {}, "has a weight and epochs", "one of the two"),
        ((A,), {"heldout_frac": 1.0}, "--heldout-frac is 1.0", "0.05"),
        ((A,), {"heldout_frac": -0.01}, "--heldout-frac is -0.01", "0.05"),
        ((A,), {"heldout_frac": float("nan")}, "heldout_frac of the recipe is nan", "Correct"),
        ((A,), {"tokenizer": Path("t.json"), "n_vocab": 300}, "--n-vocab 300 and --tokenizer t.json", "one of the two"),
        ((A,), {"shard_tokens": 0}, "--shard-tokens is 0, but it must be from 1 to 2,147,483,647", "Correct"),
        ((A,), {"shard_tokens": 2**31}, "--shard-tokens is 2147483648", "Correct"),
        ((A,), {"tokenizer_mb": 0}, "--tokenizer-mb is 0", "Correct"),
        ((A,), {"tokenizer_mb": 2148}, "--tokenizer-mb is 2148, but it must be from 1 to 2,147", "Correct"),
    ],
)
def test_recipes_that_cannot_be(sources, wrong, problem, fix):
    with pytest.raises(UserError, match=problem) as raised:
        Recipe(sources, **wrong)
    raised.match(fix)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quality(("a",), ("b",), alpha=0.0),
        lambda: Quality(("a",), ("b",), max_documents=5),
        lambda: Quality(("a",), ("b",), l2=-1.0),
        lambda: Decontamination((Path("evaluation"),), n=0),
        lambda: Decontamination((Path("evaluation"),), window_chars=-1),
        lambda: Decontamination(()),
    ],
    ids=["alpha", "max_documents", "l2", "n", "window_chars", "against"],
)
def test_settings_of_steps_that_cannot_be_are_said_when_the_recipe_is_made(make):
    with pytest.raises(UserError):
        make()


def test_documents_of_preferred_sources_stay_then_those_of_earlier_ones():
    sources = tuple(source(name=name) for name in "abcd")
    assert [Recipe(sources).rank(name) for name in "abcd"] == [0, 1, 2, 3]
    preferring = Recipe(sources, near_duplicates=NearDuplicates(prefer=("c", "a")))
    assert [preferring.rank(name) for name in "abcd"] == [1, 2, 0, 3]


def test_the_shortest_document_depends_on_the_kind():
    assert Source("a", "pydocs").shortest == 40
    assert Source("a", "pydocs", min_chars=7).shortest == 7
    assert A.shortest == 1


# --------------------------------------------------------------------------------------------------------- files


def texts_of(corpus: Path) -> list[str]:
    files = [corpus / "documents" / file["file"] for file in read_manifest(corpus)["splits"]["train"]["files"]]
    return [document.text for document in read_documents(files)]


RECIPE = """
from pathlib import Path
from rein.text.recipe import NearDuplicates, Recipe, Source

here = Path(__file__).parent
recipe = Recipe(
    sources=(
        Source("good", "jsonl", (here / "good.jsonl",), steps={steps}, weight=0.75),
        Source("more", "jsonl", (here / "more-*.jsonl",), weight=0.25),
    ),
    near_duplicates=NearDuplicates(prefer=("more",)),
    heldout_frac=0.0,
    tokenizer=Path({tokenizer!r}),
)
"""


@pytest.fixture
def recipe_py(tmp_path, byte_tokenizer) -> Path:
    """A recipe in Python, and what it reads, in a folder of their own."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_jsonl(folder / "good.jsonl", [f"a good document, number {i}" for i in range(20)])
    for part in range(3):
        write_jsonl(folder / f"more-{part}.jsonl", [f"one more document, {part} and {i}" for i in range(10)])
    path = folder / "recipe.py"
    path.write_text(RECIPE.format(steps=(), tokenizer=str(byte_tokenizer)))
    return path


def test_a_recipe_in_python_in_json_and_the_one_a_corpus_keeps_build_the_same(tmp_path, recipe_py):
    of_python = build(BuildConfig((recipe_py,), out=tmp_path / "one" / "corpus"))
    as_json = tmp_path / "copy.json"
    as_json.write_text(settings.to_json(load_recipe(recipe_py)))
    of_json = build(BuildConfig((as_json,), out=tmp_path / "two" / "corpus"))
    of_kept = build(BuildConfig((of_python / "recipe.json",), out=tmp_path / "three" / "corpus"))
    assert contents(of_python) == contents(of_json) == contents(of_kept)
    assert len(texts_of(of_python)) == 50
    assert settings.from_json(Recipe, of_kept / "recipe.json") == load_recipe(recipe_py)


def test_the_config_a_corpus_keeps_finds_it_complete(tmp_path, recipe_py, capsys):
    as_json = tmp_path / "recipe.json"
    as_json.write_text(settings.to_json(load_recipe(recipe_py)))
    for path, name in ((recipe_py, "one"), (as_json, "two")):
        corpus = build(BuildConfig((path,), out=tmp_path / name))
        as_json.unlink(missing_ok=path is recipe_py)
        capsys.readouterr()
        build(settings.from_json(BuildConfig, corpus / "config.json"))
        assert "complete already" in capsys.readouterr().out
        as_json.write_text(settings.to_json(load_recipe(recipe_py)))


def test_a_recipe_names_the_corpus_folder(tmp_path, recipe_py, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert BuildConfig((recipe_py,)).folder() == Path("data/recipe")


def test_a_changed_recipe_is_told_by_the_place_of_the_change(tmp_path, recipe_py):
    build(BuildConfig((recipe_py,), out=tmp_path / "one"))
    recipe_py.write_text(recipe_py.read_text().replace("0.25", "0.5"))
    with pytest.raises(UserError, match=r"other settings \(sources\[1\].weight: 0.25 → 0.5\)"):
        build(BuildConfig((recipe_py,), out=tmp_path / "one"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "does not exist"),
        ("x = 1", "sets no `recipe`"),
        ("recipe = {}", "sets no `recipe`"),
        (
            "import nothing_of_this_name",
            r"fails \(line 1\): ModuleNotFoundError: No module named 'nothing_of_this_name'",
        ),
        ("recipe = (", "fails: SyntaxError"),
        ("1 / 0", r"fails \(line 1\): ZeroDivisionError: division by zero"),
        ("from rein.text.recipe import Recipe\nrecipe = Recipe(())", "The recipe has no sources"),
        (
            "from rein.text.recipe import Recipe\nrecipe = Recipe((), sead=1)",
            r"fails \(line 2\): TypeError.*sead.*\n.*Did you mean seed",
        ),
    ],
)
def test_python_files_that_are_no_recipe(tmp_path, text, problem):
    path = tmp_path / "recipe.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=problem):
        load_recipe(path)


@pytest.mark.parametrize(
    ("change", "problem", "fix"),
    [
        ({"sorces": []}, "unknown setting 'sorces'", "Did you mean sources"),
        ({"sources": "web"}, "sources in .*recipe.json is 'web', but a list is expected", "a list of one"),
        ({"sources": [1]}, r"sources in .*recipe.json\[0\] is 1, but an object of settings is expected", "Correct"),
        ({"sources": [{"name": "a", "kind": "text"}]}, r"'a' \(text\) needs at least one path", "Name"),
        ({"sources": [{"name": "a"}]}, r"sources in .*\[0\] needs", "kind"),
        (
            {"sources": [{"name": "a", "kind": "pydocs", "wieght": 1}]},
            r"sources in .*\[0\] has the unknown setting 'wieght'",
            "Did you mean weight",
        ),
        (
            {"sources": [{"name": "a", "kind": "pydocs"}, {"name": "b", "kind": "pydocs", "weight": "3"}]},
            r"weight in sources in .*recipe.json\[1\] is '3', but float is expected",
            "Correct",
        ),
        (
            {"near_duplicates": {"mode": "shingle"}},
            "mode in near_duplicates in .*recipe.json is 'shingle'",
            "Did you mean shingles",
        ),
        ({"near_duplicates": {"threshold": 2}}, "threshold is 2", "Use 0.8"),
        ({"quality": {"positive": ["a"]}}, "quality in .*recipe.json needs", "negative"),
        ({"quality": True}, "quality in .*recipe.json is True, but an object of settings is expected", "Correct"),
        ({"seed": "1"}, "seed in .*recipe.json is '1', but int is expected", "Correct"),
    ],
)
def test_wrong_json_is_told_by_its_place(tmp_path, change, problem, fix):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"sources": [{"name": "a", "kind": "pydocs"}], **change}))
    with pytest.raises(UserError, match=problem) as raised:
        load_recipe(path)
    raised.match(fix)


@pytest.mark.parametrize(
    ("text", "problem"), [(None, "does not exist"), ("{", "is not valid JSON"), ("[]", "holds a list")]
)
def test_json_files_that_are_no_recipe(tmp_path, text, problem):
    path = tmp_path / "recipe.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=problem):
        load_recipe(path)


def test_plain_json_values_give_the_recipe_back(tmp_path):
    recipe = Recipe(
        (source(quality=True, weight=2.0, languages=("en", "de")), settings.replace(B, weight=1.0, max_mb=0.5)),
        quality=Quality(("b",), ("a",), alpha=3.0),
        near_duplicates=NearDuplicates("gpt3", 0.5, "greedy", ("b",)),
        decontamination=Decontamination((Path("x"), Path("y")), n=8),
        seed=7,
        keep_dropped=True,
    )
    path = tmp_path / "recipe.json"
    path.write_text(settings.to_json(recipe))
    assert load_recipe(path) == recipe


# ------------------------------------------------------------------------------------------------- the user's code

OWN = """
from dataclasses import replace
from pathlib import Path
from rein.text.documents import Document, Dropped

def shout(document):
    if "number 7" in document.text:
        return Dropped(document.id, "a seven")
    return replace(document, text=document.text.upper(), metadata={**document.metadata, "loud": "yes"})

def damage(document):
    return replace(document, text="\\0")

def fail(document):
    raise KeyError("of my own")

def forget(document):
    pass

class Lines:
    def __init__(self, source):
        self.source = source
    def inputs(self):
        return list(self.source.paths)
    def partitions(self):
        return [{"file": str(path), "bytes": path.stat().st_size} for path in self.source.paths]
    def read(self, partition, advance):
        for number, line in enumerate(Path(partition["file"]).read_text().splitlines(), start=1):
            if line.startswith("#"):
                yield Dropped(f"line {number}", "comment")
            else:
                yield Document(line, f"line {number}", self.source.name)
        advance(partition["bytes"])
"""


def own_step(recipe_py: Path, module: str, *steps: str) -> None:
    """Puts a module beside the recipe, and functions of it among the steps."""
    (recipe_py.parent / f"{module}.py").write_text(OWN)
    names = tuple(f"{module}:{step}" for step in steps)
    recipe_py.write_text(recipe_py.read_text().replace("steps=()", f"steps={names!r}"))


def test_a_step_of_the_users_own_lies_beside_the_recipe(tmp_path, recipe_py):
    own_step(recipe_py, "own_shout", "shout")
    corpus = build(BuildConfig((recipe_py,), out=tmp_path / "one"))
    manifest = read_manifest(corpus)
    dropped = {reason: about["count"] for reason, about in manifest["dropped"].items()}
    assert dropped == {"a seven": 1}  # "number 17" has no "number 7" in it
    texts = texts_of(corpus)
    assert "A GOOD DOCUMENT, NUMBER 3" in texts
    assert "one more document, 0 and 3" in texts


def test_a_step_lies_beside_a_recipe_in_json_as_well(tmp_path, recipe_py):
    own_step(recipe_py, "own_json", "shout")
    path = recipe_py.with_suffix(".json")
    path.write_text(settings.to_json(load_recipe(recipe_py)))
    sys.path.remove(str(recipe_py.parent.resolve()))
    corpus = build(BuildConfig((path,), out=tmp_path / "one"))
    assert "A GOOD DOCUMENT, NUMBER 3" in texts_of(corpus)


def test_what_a_step_returns_is_checked_as_any_text(tmp_path, recipe_py):
    own_step(recipe_py, "own_damage", "damage")
    manifest = read_manifest(build(BuildConfig((recipe_py,), out=tmp_path / "one")))
    assert manifest["dropped"]["NUL character"]["count"] == 20


def test_a_changed_step_is_another_input(tmp_path, recipe_py):
    own_step(recipe_py, "own_changed", "shout")
    build(BuildConfig((recipe_py,), out=tmp_path / "one"))
    module = recipe_py.parent / "own_changed.py"
    module.write_text(module.read_text() + "\n# another thought\n")
    with pytest.raises(UserError, match=r"built from other content: .* has changed since"):
        build(BuildConfig((recipe_py,), out=tmp_path / "one"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("own_missing:whisper", "has no 'whisper'"),
        ("nowhere_at_all:shout", "cannot be imported: No module named 'nowhere_at_all'"),
        ("own_missing", "has no ''|cannot be imported"),
        (":shout", "cannot be imported"),
    ],
)
def test_steps_that_are_not_there_are_said_before_anything_is_read(tmp_path, recipe_py, name, problem):
    (recipe_py.parent / "own_missing.py").write_text(OWN)
    recipe_py.write_text(recipe_py.read_text().replace("steps=()", f"steps=({name!r},)"))
    with pytest.raises(UserError, match=problem) as raised:
        build(BuildConfig((recipe_py,), out=tmp_path / "one"))
    assert "A step of the source 'good'" in raised.value.problem
    assert not (tmp_path / "one" / "work").exists()


def test_an_error_in_a_step_names_the_step_the_document_and_the_line(tmp_path, recipe_py):
    own_step(recipe_py, "own_fail", "fail")
    with pytest.raises(UserError, match=r"own_fail:fail of the source .* failed on .*: KeyError: .*own_fail.py, line"):
        build(BuildConfig((recipe_py,), out=tmp_path / "one"))


def test_a_step_that_forgets_to_return_is_named(tmp_path, recipe_py):
    own_step(recipe_py, "own_forget", "forget")
    with pytest.raises(UserError, match="own_forget:forget"):
        build(BuildConfig((recipe_py,), out=tmp_path / "one"))


def test_a_reader_of_the_users_own(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_reader.py").write_text(OWN)
    (tmp_path / "lines.txt").write_text("# title\none\ntwo\n# end\nthree\n")
    path = tmp_path / "recipe.json"
    source = {"name": "lines", "kind": "own_reader:Lines", "paths": [str(tmp_path / "lines.txt")]}
    path.write_text(json.dumps({"sources": [source], "heldout_frac": 0, "tokenizer": str(byte_tokenizer)}))
    corpus = build(BuildConfig((path,), out=tmp_path / "corpus"))
    assert texts_of(corpus) == ["one", "two", "three"]
    assert read_manifest(corpus)["dropped"]["comment"] == {"count": 2, "first": ["line 1", "line 4"]}


def test_a_setting_beside_a_recipe_is_refused(recipe_py):
    with pytest.raises(UserError, match=r"--heldout-frac is given beside the recipe .*recipe.py"):
        BuildConfig((recipe_py,), heldout_frac=0.2)


@pytest.mark.parametrize(
    ("make", "problem", "fix"),
    [
        (lambda: NearDuplicates(keep="gready"), "keep of NearDuplicates is 'gready'", "Did you mean greedy"),
        (lambda: NearDuplicates(mode="gtp3"), "mode of NearDuplicates is 'gtp3'", "Did you mean gpt3"),
        (lambda: Recipe((A,), keep_dropped="no"), "keep_dropped of the recipe is 'no', but bool", "Correct"),
        (lambda: Recipe((A,), seed=1.5), "seed of the recipe is 1.5, but int", "Correct"),
        (lambda: Recipe(A), "sources of the recipe is Source.*, but a list is expected", "a list of one"),
        (lambda: Recipe((A,), near_duplicates=True), "near_duplicates of the recipe is True", "Correct"),
        (lambda: Source("a", "html", Path("manual")), "paths of the source 'a' is .*, but a list", "a list of one"),
        (lambda: Source("a", "html", "manual"), "paths of the source 'a' is 'manual', but a list", "a list of one"),
        (lambda: source(languages="en"), "languages of the source 'a' is 'en', but a list", "a list of one"),
        (lambda: source(min_chars="20"), "min_chars of the source 'a' is '20', but int", "Correct"),
        (lambda: source(min_language_confidence=50), "min_language_confidence is 50.0", "0.5"),
        (lambda: Decontamination(against="quiz"), "against of Decontamination is 'quiz', but a list", "a list of one"),
        (lambda: Recipe((A,), quality=Quality(("a",), ("a",))), "no source passes through it", "quality=True"),
    ],
)
def test_slips_in_python_are_said_as_those_in_json_are(make, problem, fix):
    with pytest.raises(UserError, match=problem) as raised:
        make()
    raised.match(fix)


def test_texts_are_taken_for_paths():
    assert Source("a", "html", ("manual",)).paths == (Path("manual"),)
