"""The report of a run: what it says, that it needs nothing else, and that nothing in a run can break it."""

from __future__ import annotations

import ast
import base64
import doctest
import hashlib
import importlib
import inspect
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rein.config import from_flags
from rein.errors import UserError
from rein.report import figures, legible
from rein.report import page as module
from rein.report.page import ReportConfig, compare, render, report, script_json, write_report
from rein.run import METRICS

HOSTILE = (
    "</script><img src=x onerror=alert(1)>\u202egnp.exe\x00\x1b[31m\x85\u2028\ud800\U0001d54f\U0001f600 & \"'`{{7*7}}"
)


def lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(path: Path, *, rows: int = 90, evaluations: int = 3, end: float = 3.0, **settings) -> Path:
    """A run folder: a falling noisy loss, some evaluations, two samples at each."""
    noise = random.Random(0)
    path.mkdir(parents=True)
    config = {"data": "data/pydocs", "preset": "tiny-gpt2", "n_layer": 2, "train_tokens": rows * 1000, "seed": 0}
    (path / "config.json").write_text(json.dumps({**config, **settings}))
    start = {"started": "2026-11-22T21:14:03+0000", "command": ["/bin/rein", "pretrain", "--n-layer", "2", "--data=x"]}
    (path / "env.json").write_text(json.dumps([{**start, "threads": 2}, {**start, "threads": 8}]))
    metrics, samples = [], []

    def evaluate(step: int) -> None:
        loss = end + 4 * math.exp(-step / (rows * 2))
        at = {"opt_step": step, "tokens": step * 100, "wall_s": step * 0.5}
        bits = loss / math.log(2) / 4
        metrics.append(
            {**at, "heldout_loss": loss, "heldout_perplexity": math.exp(loss), "heldout_bits_per_byte": bits}
        )
        for prompt in ("The ", "Return the "):
            samples.append({"opt_step": step, "prompt": prompt, "text": f"thing written at update {step}"})

    evaluate(0)
    for i in range(1, rows + 1):
        metrics.append(
            {
                "opt_step": i * 10, "tokens": i * 1000, "wall_s": i * 5.0,
                "train_loss": end + 4 * math.exp(-i / 20) + noise.gauss(0, 0.1),
                "learning_rate": 1e-3 * (1 - i / rows / 2), "grad_norm": noise.random(), "sequences_per_batch": 16,
                "tokens_per_s": 200 + noise.random(), "model_flops_per_s": 1e9, "peak_rss_bytes": 3 * 2**30,
            }
        )  # fmt: skip
        if i % (rows // (evaluations - 1)) == 0:
            evaluate(i * 10)
    lines(path / "metrics.jsonl", metrics)
    lines(path / "samples.jsonl", samples)
    return path


class Page(HTMLParser):
    """A page taken apart: its tags, its attributes, its text, and what its scripts and styles hold."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.inside = ""
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.data = ""
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        kind = dict(attrs).get("type", "")
        self.inside = "data" if kind == "application/json" else tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside == "style":
            self.styles.append(data)
        elif self.inside == "data":
            self.data += data
        else:
            self.words.append(data)


def strictly(text: str):
    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ------------------------------------------------------------------------------------------- what it says


def test_a_run_in_numbers(tmp_path):
    page = Page(render(make_run(tmp_path / "first", n_embd=128)))
    for words in (
        "first", "tiny-gpt2 · 2 layers · 128 wide", "data/pydocs", "100% complete: 90k tokens seen",
        "22 November 2026, 21:14 UTC, 2 starts", "3 evaluations", "3.00 GiB", "7 min 30 s", "1B FLOP/s",
        "Sequences per batch was 16 throughout.", "threads 2 → 8", "thing written at update 450",
    ):  # fmt: skip
        assert words in page.text, words
    first, last = (f"{loss / math.log(2) / 4:.3f}" for loss in (7.0, 3 + 4 * math.exp(-5)))
    assert f"{first} → {last}" in page.text
    for metric in METRICS:
        assert metric.name in page.text
        assert metric.formula in page.text


def test_settings_given_on_the_command_line_are_marked(tmp_path):
    html = render(make_run(tmp_path / "run"))
    marked = re.findall(r"<dt[^>]*>(\w+) <span class=\"given-mark\"", html)
    assert marked == ["data", "n_layer"]


def test_a_run_under_way_says_how_far(tmp_path):
    page = Page(render(make_run(tmp_path / "run", train_tokens=400_000)))
    assert "22% 90k of 400k tokens seen" in page.text


def test_a_heldout_loss_that_rose_again_is_said(tmp_path):
    run = make_run(tmp_path / "run")
    lines(
        run / "metrics.jsonl",
        [{"opt_step": i, "tokens": i, "heldout_bits_per_byte": b} for i, b in enumerate((3.0, 1.0, 2.0))],
    )
    assert "lowest 1.000; it has risen since" in Page(render(run)).text


def test_sizes_that_only_a_checkpoint_knows(tmp_path):
    run = make_run(tmp_path / "run", n_layer=None)
    for step, layers in ((10, 3), (20, 4)):
        folder = run / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        sizes = {"n_layer": layers, "n_embd": 8, "n_head": 2, "n_positions": 64, "vocab_size": 300}
        (folder / "config.json").write_text(json.dumps(sizes))
        header = json.dumps({"__metadata__": {}, "wte": {"shape": [300, 8]}, "bias": {"shape": [8]}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 99)
    assert (
        "tiny-gpt2 · 2,408 parameters · 4 layers · 8 wide · 2 heads · context 64 · vocabulary 300"
        in Page(render(run)).text
    )
    (folder / "model.safetensors").write_bytes(b"torn")
    assert "tiny-gpt2 · 4 layers" in Page(render(run)).text


def test_the_same_files_give_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    assert render(run) == render(run)


def test_evaluations_are_a_table_and_figures_are_svg_without_a_script(tmp_path):
    html = re.sub(r"<script.*?</script>", "", render(make_run(tmp_path / "run")), flags=re.S)
    page = Page(html)
    assert html.count('<svg class="still"') == 5
    assert len(re.findall(r'<path d="M[\d.]+ [\d.]+L', html)) >= 5
    for step in ("0", "450", "900"):
        assert f"Update {step} ·" in page.text
        assert f"thing written at update {step}" in page.text
    assert len(re.findall(r'<td class="n"><b>', html)) == 3


# -------------------------------------------------------------------------------------- one file, no other


def test_the_page_asks_for_nothing(tmp_path):
    page = Page(render(make_run(tmp_path / "run")))
    for tag, name, value in page.attributes:
        assert name not in ("src", "srcset", "action", "formaction", "poster", "data", "style", "ping"), (tag, name)
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "xlink:href"):
            assert value.startswith(("data:", "#")), value
        if "url(" in value:
            assert re.fullmatch(r"url\(#[\w-]+\)", value), value
    assert not {"iframe", "object", "embed", "base", "form", "img"} & set(page.tags)
    for style in page.styles:
        assert "url(" not in style
        assert "@import" not in style
    for script in page.scripts:
        for word in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "eval(", "innerHTML", "document.write"):
            assert word not in script, word


def test_the_policy_names_each_script_and_style_by_its_hash(tmp_path):
    page = Page(render(make_run(tmp_path / "run")))
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert len(page.scripts) == 2
    assert len(page.styles) == 1
    for kind, texts in (("script-src", page.scripts), ("style-src", page.styles)):
        allowed = re.search(rf"{kind} ([^;]*);", policy).group(1).split()
        assert allowed == [
            "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" for text in texts
        ]


def test_the_vendored_files_are_those_of_the_version_named_beside_them():
    folder = Path(module.__file__).parent / "static/vendor/uplot"
    sums = re.findall(r"^(\w{64})  (\S+)$", (folder / "VERSION").read_text(), re.M)
    assert {name for _, name in sums} == {"uPlot.iife.min.js", "uPlot.min.css"}
    for expected, name in sums:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert "1.6.32" in (folder / "VERSION").read_text()
    assert "MIT" in (folder / "LICENSE").read_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_from_the_paper(theme):
    style = (Path(module.__file__).parent / "static/report.css").read_text()
    light, dark = style.split("prefers-color-scheme: dark")
    names = dict(re.findall(r"--([\w]+): (#\w{6});", light if theme == "light" else dark))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name, least in (("ink", 7), ("soft", 4.5), ("accent", 4.5), *((f"c{i}", 3) for i in range(6))):
        for ground in ("paper", "sheet"):
            dim, bright = sorted((luminance(names[name]), luminance(names[ground])))
            assert (bright + 0.05) / (dim + 0.05) >= least, (theme, name, ground)


# ----------------------------------------------------------------------------------- nothing in it is trusted


def test_hostile_text_stays_text(tmp_path):
    plain = make_run(tmp_path / "plain", a="x")
    hostile = make_run(tmp_path / "<b onclick=x>&amp;\u202e", **{"a": HOSTILE})
    settings = json.loads((hostile / "config.json").read_text())
    settings |= {"data": HOSTILE, "preset": HOSTILE}
    (hostile / "config.json").write_text(json.dumps(settings))
    environment = json.loads((hostile / "env.json").read_text())
    for start in environment:
        start |= {"started": HOSTILE, "command": ["/bin/rein", HOSTILE], "threads": HOSTILE}
    (hostile / "env.json").write_text(json.dumps(environment))
    rows = [json.loads(line) for line in (hostile / "samples.jsonl").read_text().splitlines()]
    lines(hostile / "samples.jsonl", [{**row, "prompt": HOSTILE, "text": HOSTILE} for row in rows])

    html = render(hostile)
    write_report(hostile)
    html.encode("utf-8")
    assert not set(html) & {*map(chr, range(9)), "\r", "\x1b", "\x7f", "\x85", "\u2028", "\u202e"}
    page, benign = Page(html), Page(render(plain))
    assert {"img", "b"} & set(page.tags) == {"b"}
    assert page.tags.count("script") == benign.tags.count("script")
    assert {(t, n) for t, n, _ in page.attributes} <= {(t, n) for t, n, _ in benign.attributes}
    assert (
        "</script><img src=x onerror=alert(1)>⟨U+202E⟩gnp.exe␀␛[31m⟨U+0085⟩⟨U+2028⟩\ufffd𝕏😀 & \"'`{{7*7}}" in page.text
    )
    assert "<b onclick=x>&amp;⟨U+202E⟩" in page.text


def test_hostile_names_of_compared_runs_stay_text(tmp_path):
    runs = [make_run(tmp_path / f"{i}\u2028</script><svg onload=x>&".replace("/", "\u2215")) for i in range(2)]
    runs.append(make_run(tmp_path / "</script><svg onload=x>"))
    page = Page(compare(runs))
    assert [v for _, n, v in page.attributes if n == "onload"] == []
    labels = {line["label"] for figure in strictly(page.data) for line in figure["lines"]}
    assert "script><svg onload=x>" in labels


@given(st.text() | st.dictionaries(st.text(), st.text() | st.none() | st.floats()))
def test_json_in_a_script_is_the_same_json_and_cannot_end_it(value):
    try:
        text = script_json(value)
    except ValueError:  # NaN and infinities are refused, never written
        assert "nan" in repr(value) or "inf" in repr(value)
        return
    assert json.loads(text) == value
    assert text.isascii()
    assert not set(text) & set("<>&\n\r")


@given(st.text(st.characters(codec=None, min_codepoint=0, max_codepoint=0x10FFFF, categories=None)))
def test_visible_text_can_be_written_and_turns_nothing_around(text):
    shown = legible.visible(text)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", shown)


def test_a_sample_of_a_megabyte_is_cut_and_says_so(tmp_path):
    run = make_run(tmp_path / "run")
    lines(run / "samples.jsonl", [{"opt_step": 0, "prompt": "The ", "text": "x" * 1_000_000}])
    html = render(run)
    assert len(html) < 300_000
    assert "… 996,000 more characters are in samples.jsonl." in html


def test_many_evaluations_are_thinned_evenly_and_the_page_says_so(tmp_path):
    run = make_run(tmp_path / "run")
    lines(run / "samples.jsonl", [{"opt_step": i // 30, "prompt": "", "text": f"<{i}>"} for i in range(30_000)])
    page = Page(render(run))
    assert "200 of 1,000 evaluations are shown" in page.text
    assert "10 more of this evaluation are in samples.jsonl." in page.text
    assert "<0>" in page.text
    assert "<29970>" in page.text
    assert page.tags.count("article") == 200


# ------------------------------------------------------------------------------- missing, torn, and not numbers


def test_a_run_that_has_just_begun(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    page = Page(render(run))
    for words in (
        "No metrics yet",
        "No samples yet",
        "nothing recorded yet",
        "holds no settings",
        "env.json is missing",
    ):
        assert words in page.text
    assert strictly(page.data) == []


def test_one_row_is_enough(tmp_path):
    run = make_run(tmp_path / "run")
    lines(run / "metrics.jsonl", [{"opt_step": 0, "tokens": 0, "heldout_loss": 7.0, "train_loss": 0, "grad_norm": 0.0}])
    page = Page(render(run))
    assert [figure["key"] for figure in strictly(page.data)] == ["loss", "grad"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_a_last_line_cut_short_is_left_out(tmp_path, name):
    run = make_run(tmp_path / "run")
    before = render(run)
    with (run / name).open("ab") as file:
        file.write('{"opt_step": 900, "tokens": 90000, "text": "é'.encode()[:-1])
    assert render(run) == before


def test_a_broken_line_within_is_a_users_matter(tmp_path):
    run = make_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{torn\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl has a line that is not JSON"):
        render(run)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), r"has no config\.json, so it is no run folder"),
        (lambda path: path.write_text("x"), r"has no config\.json, so it is no run folder"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{")), "is not valid JSON"),
        (lambda path: (path.mkdir(), (path / "config.json").write_bytes(b"\xff\xfe\xfd")), "is not valid JSON"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[1]")), "holds no JSON object of settings"),
    ],
)
def test_what_is_no_run_is_said_so(tmp_path, make, words):
    make(tmp_path / "run")
    with pytest.raises(UserError, match=words):
        render(tmp_path / "run")


@pytest.mark.parametrize("text", ["{torn", "7", '[7, "x", null]', "[]"])
def test_an_environment_that_cannot_be_read_costs_only_itself(tmp_path, text):
    run = make_run(tmp_path / "run")
    (run / "env.json").write_text(text)
    page = Page(render(run))
    assert "what this run ran on is not known" in page.text
    assert ("env.json is not valid JSON" in page.text) == (text == "{torn")


def test_what_is_not_a_number_becomes_a_gap_and_a_note(tmp_path):
    run = make_run(tmp_path / "run")
    at = [{"opt_step": i, "tokens": i * 10} for i in range(1, 10)]
    values = [5.0, math.nan, math.inf, -math.inf, "4.0", None, True, 10**400, 4.0]
    rows = [{**row, "train_loss": value} for row, value in zip(at, values, strict=True)]
    lines(run / "metrics.jsonl", [*rows, {"train_loss": 1.0}, 7, [], {"tokens": math.nan, "train_loss": 1.0}])
    page = Page(render(run))
    assert "train_loss was not a number (NaN) in 7 rows, first at update 2; the curve has a gap there." in page.text
    assert "4 rows of metrics.jsonl named no tokens" in page.text
    assert strictly(page.data)[0]["lines"][0]["y"] == [5.0, *[None] * 7, 4.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), min_size=1, max_size=50))
def test_any_finite_values_can_be_drawn(values):
    curve = ([float(i) for i in range(len(values))], values)
    drawn, _ = figures.figures([lambda metric: curve if metric != "heldout_loss" else ([], [])], ["run"])
    for figure in drawn:
        geometry = json.dumps(figures.still(figure)["x_ticks"]) + json.dumps(figures.still(figure)["y_ticks"])
        assert "nan" not in geometry
        assert figures.said(figure)


# --------------------------------------------------------------------------------------------- the curves


@given(st.lists(st.none() | st.floats(-1e9, 1e9), max_size=400), st.integers(1, 20))
def test_thinning_keeps_the_ends_every_peak_and_few_points(values, stretches):
    kept = figures.thin(range(len(values)), values, stretches)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(3 * stretches, 3 * (stretches + stretches // 4 + 2))
    if values:
        assert kept[0] == 0
        assert kept[-1] == len(values) - 1
    known = [value for value in values if value is not None]
    if known:
        shown = [values[i] for i in kept if values[i] is not None]
        assert (min(shown), max(shown)) == (min(known), max(known))
    assert (None in values) == any(values[i] is None for i in kept)


@given(st.lists(st.none() | st.floats(-1e3, 1e3), max_size=60), st.integers(0, 9))
def test_smoothing_is_the_mean_of_the_window(values, half):
    for i, smooth in enumerate(figures.smooth(values, half)):
        reach = min(half, i)
        window = [value for value in values[i - reach : i + reach + 1] if value is not None]
        assert smooth == (pytest.approx(sum(window) / len(window), abs=1e-8) if window else None)


def test_ten_thousand_rows_make_a_small_page(tmp_path):
    run = make_run(tmp_path / "run", rows=10_000)
    html = render(run)
    assert len(html) < 500_000
    assert "Of 10,003 rows, the lowest and highest of each stretch are drawn." in html
    loss = strictly(Page(html).data)[0]["lines"][0]
    assert loss["x"][0] == 1000
    assert loss["x"][-1] == 10_000_000
    assert loss["x"] == sorted(loss["x"])


def test_a_steep_start_leaves_the_frame_and_the_page_says_so(tmp_path):
    run = make_run(tmp_path / "run")
    losses = [10.0, 4.0, 3.5, 3.2, 3.0]
    lines(run / "metrics.jsonl", [{"tokens": i * 100, "heldout_loss": loss} for i, loss in enumerate(losses)])
    html = render(run)
    assert 4.0 < strictly(Page(html).data)[0]["top"] < 4.2
    assert "starts above the frame, at 10" in html


def test_rows_out_of_order_are_drawn_in_order_and_the_last_of_two_counts(tmp_path):
    run = make_run(tmp_path / "run")
    lines(run / "metrics.jsonl", [{"tokens": t, "train_loss": y} for t, y in ((2, 5.0), (1, 6.0), (2, 4.0))])
    line = strictly(Page(render(run)).data)[0]["lines"][0]
    assert (line["x"], line["y"]) == ([1, 2], [6.0, 4.0])


# ------------------------------------------------------------------------------------ several runs, the command


def test_a_comparison_overlays_the_curves_and_shows_what_differs(tmp_path):
    runs = [make_run(tmp_path / "a" / "run"), make_run(tmp_path / "b" / "run", end=2.5, n_layer=4)]
    page = Page(compare(runs))
    labels = [[line["label"] for line in figure["lines"]] for figure in strictly(page.data)]
    assert ["a/run", "b/run"] in labels
    assert {line["colour"] for figure in strictly(page.data) for line in figure["lines"]} == {0, 1}
    assert "comparison of 2 runs" in page.text
    assert "n_layer 2 4" in page.text
    assert "train_tokens" not in page.text
    same = Page(compare([runs[0], runs[0]]))
    assert "None: these runs have the same settings." in same.text


def test_the_page_is_written_whole(tmp_path):
    run = make_run(tmp_path / "run")
    before = {path.name for path in run.iterdir()}
    assert write_report(run) == run / "report.html"
    assert {path.name for path in run.iterdir()} == before | {"report.html"}
    assert (run / "report.html").read_text(encoding="utf-8") == render(run)


def test_the_command(tmp_path, capsys):
    a, b = (make_run(tmp_path / name) for name in "ab")
    report(from_flags(ReportConfig, [str(a), str(b)], prog="rein report"))
    assert capsys.readouterr().out.split() == [str(a / "report.html"), str(b / "report.html")]
    report(ReportConfig(runs=(a,), out=tmp_path / "one.html"))
    assert (tmp_path / "one.html").read_text(encoding="utf-8") == render(a)
    report(from_flags(ReportConfig, [str(a), str(b), "--out", str(tmp_path / "new" / "both.html")], prog="rein report"))
    assert (tmp_path / "new" / "both.html").read_text(encoding="utf-8") == compare([a, b])


def test_the_command_without_a_run_or_with_a_folder_to_write_to(tmp_path):
    with pytest.raises(UserError, match="rein report needs"):
        from_flags(ReportConfig, [], prog="rein report")
    with pytest.raises(UserError, match="needs a run folder"):
        report(ReportConfig(runs=()))
    with pytest.raises(UserError, match="is a folder"):
        report(ReportConfig(runs=(make_run(tmp_path / "run"),), out=tmp_path))


@pytest.mark.parametrize("name", ["figures", "legible", "page"])
def test_docstring_examples(name):
    found = importlib.import_module(f"rein.report.{name}")
    nodes = [node for node in ast.walk(ast.parse(inspect.getsource(found))) if isinstance(node, ast.FunctionDef)]
    texts = [text.replace("Example  >>>", "         >>>") for node in nodes if (text := ast.get_docstring(node))]
    output: list[str] = []
    ran = 0
    for text in texts:
        test = doctest.DocTestParser().get_doctest(text, dict(vars(found)), name, name, 0)
        ran += len(test.examples)
        doctest.DocTestRunner().run(test, out=output.append)
    assert ran
    assert not output, "".join(output)
