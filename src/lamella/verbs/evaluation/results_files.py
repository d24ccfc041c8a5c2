"""The results of an evaluation, read back from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, first_line

RESULTS_FILE = "results.json"


def results_of(folder: Path) -> dict[str, Any]:
    """The tree of a report that `lamella evaluate` wrote (see `metrics.report.Report`).

    Raises:
        LamellaError: There are no results, or they cannot be read.
    """
    path = folder / RESULTS_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {key: tree[key] for key in ("title", "rows", "warnings", "command")}
    except FileNotFoundError as error:
        raise LamellaError(folder, f"it holds no {RESULTS_FILE}", "Give a folder of `lamella evaluate`.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", "Evaluate anew.") from error
