"""What tests of the researcher's pages have in common: rows of tables and of the store, fields, the API."""

from __future__ import annotations

import sqlite3
from typing import Any
from urllib.parse import quote

from label_desk import Server

HOME = "/label/research"
TLDR = f"{HOME}/tldr"
BAD = f"{HOME}/{quote('<b>hostile')}"
ITEMS_OF = "SELECT i.id FROM item i JOIN project p ON p.id = i.project WHERE p.name = ? ORDER BY 1"
ASK = "(path) => fetch('/label/api' + path).then((answer) => answer.json())"


def asked(page, path: str) -> Any:
    """What the API says to the same person."""
    return page.evaluate(ASK, path)


def stored(office: Server, query: str, *values: object) -> list[tuple]:
    """Rows, as another process reads them."""
    with sqlite3.connect(f"file:{office.store}?mode=ro", uri=True) as conn:
        return conn.execute(query, values).fetchall()


def field(page, name: str):
    """The control that stands below a name."""
    return page.locator(f"label:has(> span:text-is('{name}')) > :is(input, select, textarea)")


def rows_of(page, where: str) -> list[list[str]]:
    """The cells of a table's body, on one line each."""
    return [
        [" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()]
        for row in page.locator(f"{where} tbody tr").all()
    ]


def tiles_of(page, where: str = "#tiles") -> dict[str, list[str]]:
    """Each tile's name, with its number and what stands below it."""
    found = {}
    for tile in page.locator(f"{where} > div").all():
        lines = tile.inner_text().split("\n")
        found[lines[0]] = [line for line in lines[1:] if line.strip()]
    return found


def make_project(page, name: str, preset: str = "comparison", **settings: object) -> None:
    """A project of a test's own."""
    how = """async ([name, preset, settings]) => (await fetch('/label/api/research/projects', {
      method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ preset, settings: { ...settings, name } }),
    })).status"""
    assert page.evaluate(how, [name, preset, settings]) == 200


def clean(page, office: Server, refused: int = 0) -> None:
    """Nothing complained but a browser of what the server `refused`, and nothing was asked of anybody else."""
    said = [one for one in page.complaints if "the server responded with a status of 422" in one]
    assert page.complaints == said
    assert len(said) == refused
    own = (office.url + "/", f"blob:{office.url}/")
    assert [url for url in page.requests if not url.startswith(own)] == []


def upload(page, project: str, text: str) -> dict:
    """A file, as a program sends it."""
    how = """async ([path, text]) => (await fetch('/label/api' + path, { method: 'POST', body: text })).json()"""
    return page.evaluate(how, [f"/research/projects/{project}/import?format=prompts", text])
