"""HTML pages from templates. All links are relative, so that the viewer works behind any prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

STATIC = Path(__file__).resolve().parents[1] / "static"
_TEMPLATES = Environment(
    loader=PackageLoader("lamella.view", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page.

    Args:
        request: Whose path says how deep the page lies: `/slide/a` is one below the root.
        template: Its file in `templates`.
        status: Of the answer.
        values: For the template, beside `root` (the way up to the viewer's first page) and `catalogue`.
    """
    # scope["path"] holds the prefix that a proxy said, root_path the prefix alone.
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    root = "../" * (path.count("/") - 1) or "./"
    catalogue = request.app.state.served.catalogue
    return HTMLResponse(_TEMPLATES.get_template(template).render(root=root, catalogue=catalogue, **values), status)


def fragment(template: str, **values: Any) -> str:
    """HTML of a part of a page, for a script that puts it in place."""
    return _TEMPLATES.get_template(template).render(**values)
