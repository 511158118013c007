"""What the tests of several pages look for: whether a page fits, whether its figures do, its colours, hostile text."""

from __future__ import annotations

FITS = "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"
# Texts of figures that stick out of their figure.
CUT_OFF = """() => [...document.querySelectorAll('svg.still text')].filter((text) => {
  const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.parentElement.getBoundingClientRect();
  return box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
}).map((text) => text.textContent)"""
OPEN_ALL = "() => document.querySelectorAll('details').forEach((one) => { one.open = true; })"
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp"
SHOWN = "</p><script>alert(1)</script><img src=x onerror=alert(2)>⟨U+202E⟩gnp"


def theme_of(page) -> str:
    """Whether the page is light or dark, by the red of its background."""
    red = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    return "light" if red > 200 else "dark" if red < 60 else f"between them: {red}"
