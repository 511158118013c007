"""The addresses of the labeling pages: each has its template, and none holds a word of the store."""

from __future__ import annotations

import pytest
from label_server import HIDDEN

from rein.web.app import HERE as WEB
from rein.web.label.pages import PAGES

ADDRESSES = [("/label" + address).replace("{project:str}", "tldr").replace("{item:int}", "1") for address in PAGES]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_page_is_there(server, address):
    if not (
        WEB / "templates" / "label" / f"{dict(zip(ADDRESSES, PAGES.values(), strict=True))[address][0]}.html"
    ).exists():
        pytest.fail(f"{address} has no template")
    server.project(title="The secret title")
    answer = server.stranger().get(address)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for word in ("secret title", "post 1", *HIDDEN):
        assert word not in answer.text


def test_an_address_with_markup_is_text(server):
    answer = server.stranger().get("/label/desk/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script>alert" not in answer.text
    assert server.stranger().get("/label/desk/%22%3E%3Cimg%20src=x%3E").text.count("<img") == 0


def test_the_root_leads_to_the_projects(server):
    answer = server.stranger().get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/label")


def test_no_address_reads_a_file(server):
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/label/%2e%2e/%2e%2e/app.py",
        "/static//etc/passwd",
    ):
        assert server.stranger().get(path).status_code in (400, 404)
