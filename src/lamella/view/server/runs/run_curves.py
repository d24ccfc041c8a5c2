"""The curves of runs, read on as their logs grow."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamella.view.server.runs.curve import Curve
from lamella.view.server.runs.run_files import MONITORS, RunFile
from lamella.view.server.runs.run_log import Mark, read_on

AXES = ("step", "images_seen")
MAX_BYTES = 2 << 20
"""Read for one answer: some six thousand steps, a fifth of a second. The page asks on until all is read."""
_KEPT_RUNS = 8  # whose curves are held: at most 30 MB each, by the most logs and points of a run
_MOST_WARNINGS = 5  # the newest are shown
_NO_CURVES = frozenset({"step", "iteration", "epoch", "images_seen", "warnings"})


@dataclass
class LogCurves:
    """What one log holds so far.

    Attributes:
        title: Its folder inside the run's; empty for the run's own.
        held: It is of monitors on fixed views.
        curves: By column.
        warnings: The newest of the monitors.
        damaged: Lines that are left out: no JSON, or without a step.
        written_s: When its file was last written.
    """

    title: str
    held: bool
    curves: dict[str, Curve] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    damaged: int = 0
    written_s: float = 0.0
    mark: Mark = field(default_factory=Mark)

    def add(self, row: dict[str, Any]) -> None:
        """One line."""
        places = tuple(_number(row.get(axis)) for axis in AXES)
        if not math.isfinite(places[0]):  # other programs may count no images; such lines have steps alone
            self.damaged += 1
            return
        told = [text for text in row.get("warnings") or () if isinstance(text, str)]
        self.warnings = [*self.warnings, *(f"step {places[0]:,.0f}: {text}" for text in told)][-_MOST_WARNINGS:]
        for name, value in row.items():
            if name not in _NO_CURVES and (value is None or isinstance(value, int | float)):
                if name not in self.curves:
                    self.curves[name] = Curve(len(AXES))
                self.curves[name].add(places, _number(value))


@dataclass
class RunCurves:
    """All logs of one run.

    Attributes:
        logs: By id.
        left_bytes: Still to be read.
        version: Grows whenever something was read.
        lock: Held while logs are read or drawn.
    """

    logs: dict[str, LogCurves] = field(default_factory=dict)
    left_bytes: int = 0
    version: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def read(self, files: Iterable[RunFile], max_bytes: int = MAX_BYTES) -> None:
        """Read on in every log, until so many bytes were read."""
        with self.lock:
            self.left_bytes = 0
            present = set()
            for file in files:
                try:
                    max_bytes -= self._read(file, max_bytes)
                    present.add(file.id)
                except FileNotFoundError:
                    continue  # removed since the folder was listed
            for gone in self.logs.keys() - present:
                del self.logs[gone]
                self.version += 1

    def age_s(self) -> float | None:
        """Since a log was last written to; None without logs."""
        times = [log.written_s for log in self.logs.values()]
        return max(0.0, time.time() - max(times)) if times else None

    def _read(self, file: RunFile, max_bytes: int) -> int:
        new = LogCurves(file.title, file.path.name == MONITORS)
        log = self.logs.setdefault(file.id, new)
        log.written_s = file.path.stat().st_mtime
        if max_bytes <= 0:
            self.left_bytes += max(0, file.path.stat().st_size - log.mark.offset)
            return 0
        added = read_on(file.path, log.mark, max_bytes)
        if added.again:
            new.written_s = log.written_s
            log = self.logs[file.id] = new
        read = added.mark.offset - (0 if added.again else log.mark.offset)
        for row in added.rows:
            log.add(row)
        log.damaged += added.damaged
        log.mark = added.mark
        self.version += bool(read) or added.again
        # A last line that is being written is no reason to ask again at once.
        self.left_bytes += added.left_bytes if read else 0
        return read


class CurveMemory:
    """Curves of the runs that were looked at last; shared by all requests."""

    def __init__(self, max_runs: int = _KEPT_RUNS) -> None:
        self._runs: OrderedDict[Path, RunCurves] = OrderedDict()
        self._max_runs, self._lock = max_runs, threading.Lock()

    def of(self, folder: Path) -> RunCurves:
        """The curves of a run as far as they have been read."""
        with self._lock:
            run = self._runs.setdefault(folder, RunCurves())
            self._runs.move_to_end(folder)
            while len(self._runs) > self._max_runs:
                self._runs.popitem(last=False)
            return run


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
