"""Other libraries' warnings about odd files, kept from users' terminals while a file is read."""

from __future__ import annotations

import logging
import threading
import warnings

# Libraries that also log what they find odd; without a handler Python prints it.
_LOGGERS = ("pydicom", "nibabel.global", "PIL")


class _Silence:
    """No warnings and log lines while a thread is inside: `catch_warnings` alone would be left in the wrong order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught: warnings.catch_warnings[None] | None = None
        self._levels: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
                self._levels = [logging.getLogger(name).level for name in _LOGGERS]
                for name in _LOGGERS:
                    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._caught is not None:
                self._caught.__exit__(None, None, None)
                self._caught = None
                for name, level in zip(_LOGGERS, self._levels, strict=True):
                    logging.getLogger(name).setLevel(level)


silence = _Silence()
