"""The pages of the labeling server: files of the package, with nothing of the store in them. Data comes by the API.

Flow     an address → a template with a title, the program's version, and the names in the address → a browser
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from rein import __version__
from rein.web.app import templates

# address below /label → template below templates/label, title
PAGES = {
    "": ("home", "Your projects"),
    "/login": ("login", "Log in"),
    "/join": ("join", "Join"),
    "/enter": ("enter", "Come in"),
    "/account": ("account", "Your account"),
    "/desk/{project:str}": ("work", "Work"),
    "/mine/{project:str}": ("mine", "Your work"),
    "/research": ("research", "Projects"),
    "/research/people": ("research-people", "People"),
    "/research/audit": ("research-audit", "Audit log"),
    "/research/{project:str}": ("research-project", "Project"),
    "/research/{project:str}/items": ("research-items", "Items"),
    "/research/{project:str}/items/{item:int}": ("research-item", "Item"),
    "/research/{project:str}/agreement": ("research-agreement", "Agreement"),
    "/research/{project:str}/people": ("research-people", "People"),
    "/research/{project:str}/questions": ("research-questions", "Questions"),
    "/research/{project:str}/instructions": ("research-instructions", "Instructions"),
    "/research/{project:str}/data": ("research-data", "Data"),
}


def _page(address: str) -> Route:
    template, title = PAGES[address]

    def show(request: Request) -> Response:
        names = {"project": "", "item": 0} | request.path_params
        text = templates.get_template(f"label/{template}.html").render(title=title, version=__version__, **names)
        return HTMLResponse(text)

    return Route("/label" + address, show)


def _home(request: Request) -> Response:
    return RedirectResponse("/label")


def routes() -> list[BaseRoute]:
    """A route for each page."""
    return [Route("/", _home), *(_page(address) for address in PAGES)]
