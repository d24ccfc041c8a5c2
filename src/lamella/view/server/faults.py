"""Errors as the page shows them: plain lines, never a traceback."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lamella.errors import LamellaError

_LOG = logging.getLogger("lamella.view")


def not_found(request: Request, error: Exception) -> Response:
    """An id that nothing has."""
    return JSONResponse({"error": "There is no such thing here."}, 404)


def refused(request: Request, error: Exception) -> Response:
    """Something that a user can mend."""
    _LOG.warning("%s: %s", request.url.path, error)
    return JSONResponse({"error": str(error)}, 400)


HANDLERS = {KeyError: not_found, IndexError: not_found, LamellaError: refused}
