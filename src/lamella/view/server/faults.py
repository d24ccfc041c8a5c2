"""Errors as the page shows them: plain lines, never a traceback. Scripts get JSON, people a page."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lamella.errors import LamellaError
from lamella.view.server.pages import page

_LOG = logging.getLogger("lamella.view")


def not_found(request: Request, error: Exception) -> Response:
    """An id that nothing has."""
    _LOG.debug("%s: %r", request.url.path, error)
    return _answer(request, 404, "There is no such thing here.")


def refused(request: Request, error: Exception) -> Response:
    """Something that a user can mend."""
    _LOG.warning("%s: %s", request.url.path, error)
    return _answer(request, 400, str(error))


def other(request: Request, error: Exception) -> Response:
    """What Starlette refuses: an address that is none, a method that an address does not take."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return not_found(request, error)
    answer = _answer(request, error.status_code, f"{error.detail}.")
    answer.headers.update(error.headers or {})
    return answer


def _answer(request: Request, status: int, text: str) -> Response:
    if "/api/" in request.url.path or "/static/" in request.url.path:
        return JSONResponse({"error": text}, status)
    return page(request, "refused.html", status, title="Not here" if status == 404 else "That went wrong", reason=text)


HANDLERS = {KeyError: not_found, IndexError: not_found, LamellaError: refused, HTTPException: other}
