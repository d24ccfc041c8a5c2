"""The last messages of the log, for people who have no terminal in view."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lamella.view.server.pages import page

_KEPT = 200  # some screens full; the terminal has the rest


class LogMemory(logging.Handler):
    """Keeps the last messages; several threads write, several ask."""

    def __init__(self, kept: int = _KEPT) -> None:
        super().__init__(logging.INFO)
        self._messages: deque[dict[str, Any]] = deque(maxlen=kept)
        self._count = 0
        self._own = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        with self._own:
            self._count += 1
            text = record.getMessage()
            self._messages.append({"number": self._count, "at": at, "level": record.levelname.lower(), "text": text})

    def after(self, number: int) -> list[dict[str, Any]]:
        """Messages with a higher number, the oldest first."""
        with self._own:
            return [message for message in self._messages if message["number"] > number]


# One for the process, as loggers are.
MEMORY = LogMemory()


def keep_messages() -> None:
    """Keep what the viewer says from now on. Calling it again changes nothing."""
    logger = logging.getLogger("lamella.view")
    if MEMORY not in logger.handlers:
        logger.addHandler(MEMORY)


def messages(request: Request) -> JSONResponse:
    """GET /api/log?after=NUMBER: the messages since then."""
    after = request.query_params.get("after", "0")
    return JSONResponse({"messages": MEMORY.after(int(after) if after.isdecimal() else 0)})


def log_page(request: Request) -> Response:
    """GET /log: the same as a page, the newest first."""
    return page(request, "log.html", messages=MEMORY.after(0)[::-1])


ROUTES = [Route("/api/log", messages), Route("/log", log_page)]
