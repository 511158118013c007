"""The report in a real Chromium: drawn, quiet, alone, and usable by keyboard."""

from __future__ import annotations

import pytest
from looking import FITS, theme_of

from rein.report.page import ReportConfig, report, write_report

HOSTILE = "</script><img src=x onerror=alert(1)><svg onload=alert(2)>\u202egnp\x00\x1b\u2028\U0001d54f <b>&amp;"
# How many pixels of each canvas have ink.
INK = """() => [...document.querySelectorAll('canvas')].map((canvas) => {
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let ink = 0;
  for (let i = 3; i < data.length; i += 4) if (data[i] > 40) ink++;
  return ink;
})"""
PICTURES = "() => [...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, make_run):
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "first"))


def shown(page) -> str:
    return page.locator(".evaluation:visible").inner_text()


def test_from_disk_it_is_drawn_without_a_complaint_or_a_request(look, page_file):
    page = look(page_file.as_uri())
    assert page.title() == "first · Rein"
    ink = page.evaluate(INK)
    assert len(ink) == 5
    assert min(ink) > 300
    assert page.requests == [page_file.as_uri()]
    assert page.complaints == []


def test_from_a_server_it_asks_for_itself_only(look, page_file, serve):
    address, asked = serve(page_file.parent)
    page = look(f"{address}/report.html")
    page.wait_for_timeout(300)
    assert min(page.evaluate(INK)) > 300
    assert page.requests == [f"{address}/report.html"]
    assert asked == ["/report.html"]
    assert page.complaints == []


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (390, "dark"), (768, "light"), (1440, "dark")])
def test_no_width_scrolls_sideways(look, page_file, width, theme):
    page = look(page_file.as_uri(), width=width, theme=theme)
    assert page.evaluate(FITS)
    assert page.evaluate("() => [...document.querySelectorAll('.plot')].every((p) => p.scrollWidth <= p.clientWidth)")
    assert theme_of(page) == theme


def test_curves_follow_the_window(look, page_file):
    page = look(page_file.as_uri(), width=1440)
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate(FITS)
    assert min(page.evaluate(INK)) > 200


def test_samples_step_by_keyboard(look, page_file):
    page = look(page_file.as_uri())
    slider = page.get_by_role("slider", name="evaluation", exact=True)
    assert "spoke at update 400." in shown(page)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert "spoke at update 350." in shown(page)
    assert "(8 of 9)" in page.locator("#which").inner_text()
    assert slider.get_attribute("aria-valuetext").startswith("Update 350 · 3.5M tokens")
    page.keyboard.press("Home")
    assert "spoke at update 0." in shown(page)
    assert page.locator("#earlier").is_disabled()
    page.locator("#later").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert "spoke at update 100." in shown(page)
    prompt = page.locator(".evaluation:visible .prompt")
    assert prompt.inner_text() == "The king "
    page.get_by_label("All at once").focus()
    page.keyboard.press("Space")
    assert page.locator(".evaluation:visible").count() == 9
    assert page.complaints == []


def test_logarithmic_tokens_by_keyboard(look, page_file):
    page = look(page_file.as_uri())
    before = page.evaluate(PICTURES)
    page.get_by_label("Logarithmic tokens").focus()
    page.keyboard.press("Space")
    after = page.evaluate(PICTURES)
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert min(page.evaluate(INK)) > 300
    page.keyboard.press("Space")
    assert page.evaluate(PICTURES) == before
    page.get_by_label("Whole range").focus()
    page.keyboard.press("Space")
    assert page.evaluate(PICTURES) != before
    assert not page.locator(".above").first.is_visible()
    assert page.complaints == []


def test_a_drag_zooms_all_figures_and_a_double_click_undoes_it(look, page_file):
    page = look(page_file.as_uri())
    before = page.evaluate(PICTURES)
    box = page.locator("#figure-loss .u-over").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
    page.mouse.up()
    page.wait_for_timeout(100)
    zoomed = page.evaluate(PICTURES)
    assert all(a != b for a, b in zip(before, zoomed, strict=True))
    page.locator("#figure-loss .u-over").dblclick()
    page.wait_for_timeout(100)
    assert page.evaluate(PICTURES) == before
    page.mouse.move(box["x"] + box["width"] * 0.3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Reset zoom").click()
    assert page.evaluate(PICTURES) == before


def test_hovering_reads_values_and_leaving_shows_the_last(look, page_file):
    page = look(page_file.as_uri())
    key = page.locator("#figure-loss .key")
    assert key.locator(".value").all_inner_texts()[-1] == "3"
    box = page.locator("#figure-loss .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.502, box["y"] + 50)
    page.wait_for_timeout(100)
    assert key.locator(".where").inner_text() in ("at 2M tokens", "at 2.01M tokens")
    assert key.locator(".value").all_inner_texts()[-1] == "3"
    assert "at 2" in page.locator("#figure-bits .where").inner_text()
    page.mouse.move(2, 2)
    page.wait_for_timeout(100)
    assert key.locator(".where").inner_text() == ""


def test_a_curve_is_hidden_by_its_name(look, page_file):
    page = look(page_file.as_uri())
    before = page.evaluate(INK)[0]
    button = page.locator("#figure-loss .key button").first
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(INK)[0] < before
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert page.evaluate(INK)[0] == before


def test_without_a_script_everything_can_be_read(look, page_file):
    page = look(page_file.as_uri(), script=False)
    assert page.locator("svg.still:visible").count() == 5
    assert page.locator(".evaluation:visible").count() == 9
    assert page.locator(".numbers tbody tr:visible").count() == 9
    for control in ("#log-x", "#reset", "#evaluation", "#all-samples"):
        assert not page.locator(control).is_visible()
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        sizes = page.locator("svg.still").first.bounding_box()
        assert 200 < sizes["width"] <= width


def test_print_shows_the_still_figures_and_all_samples(look, page_file):
    page = look(page_file.as_uri(), theme="dark")
    page.emulate_media(media="print")
    assert page.locator("svg.still:visible").count() == 5
    assert page.locator("canvas:visible").count() == 0
    assert page.locator(".evaluation:visible").count() == 9
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_theme_can_change_while_it_is_open(look, page_file):
    page = look(page_file.as_uri(), theme="light")
    before = page.evaluate(PICTURES)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(100)
    assert all(a != b for a, b in zip(before, page.evaluate(PICTURES), strict=True))


@pytest.mark.parametrize("script", [True, False])
def test_hostile_text_is_shown_and_does_nothing(look, tmp_path, make_run, script):
    run = make_run(tmp_path / "<img src=x onerror=alert(3)>", prompt=HOSTILE, text=HOSTILE + "W" * 3000)
    page = look(write_report(run).as_uri(), width=320, script=script)
    page.wait_for_timeout(200)
    said = page.locator(".evaluation").last.text_content()
    assert "</script><img src=x onerror=alert(1)><svg onload=alert(2)>⟨U+202E⟩gnp␀␛⟨U+2028⟩𝕏 <b>&amp;" in said
    assert page.locator("h1").inner_text() == "<img src=x onerror=alert(3)>"
    assert page.locator("img").count() == 0
    assert page.complaints == []
    assert len(page.requests) == 1
    if script:
        assert page.evaluate(FITS)


@pytest.mark.parametrize("width", [320, 1440])
def test_a_comparison(look, tmp_path, make_run, width):
    runs = [make_run(tmp_path / name, end=end) for name, end in (("</script>a", 3.0), ("b", 2.5), ("c", 2.8))]
    report(ReportConfig(runs=tuple(runs), out=tmp_path / "compare.html"))
    page = look((tmp_path / "compare.html").as_uri(), width=width)
    assert len(page.evaluate(INK)) == 5
    assert page.locator(".runs tbody tr").count() == 3
    assert page.locator("#figure-bits .key .label").all_inner_texts() == ["script>a", "b", "c"]
    assert page.evaluate(FITS)
    assert page.complaints == []


def test_a_run_that_has_just_begun(look, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    page = look(write_report(tmp_path).as_uri(), width=320)
    assert page.get_by_text("No metrics yet").is_visible()
    assert page.evaluate(FITS)
    assert page.complaints == []


@pytest.mark.parametrize("tokens", [[0], [0, 1], [5, 5]])
def test_hardly_any_rows(look, tmp_path, tokens):
    (tmp_path / "config.json").write_text("{}")
    rows = "".join(f'{{"tokens": {t}, "train_loss": NaN}}\n{{"tokens": {t}, "heldout_loss": 2}}\n' for t in tokens)
    (tmp_path / "metrics.jsonl").write_text(rows)
    page = look(write_report(tmp_path).as_uri())
    assert min(page.evaluate(INK)) > 100
    if page.get_by_label("Logarithmic tokens").is_enabled():
        page.get_by_label("Logarithmic tokens").check()
    assert page.complaints == []
