"""The results of an evaluation, read back from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, first_line
from lamella.metrics.segments.protocol import ProtocolError, refuse_mixed_trees

RESULTS_FILE = "results.json"


def results_of(folder: Path) -> dict[str, Any]:
    """The tree of a report that `lamella evaluate` wrote (see `metrics.report.Report`).

    Raises:
        LamellaError: There are no results, they cannot be read, or rows of different protocols were put into one table.
    """
    path = folder / RESULTS_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        found = {key: tree[key] for key in ("title", "rows", "warnings", "command")}
        for question in dict.fromkeys(row["question"] for row in found["rows"]):
            refuse_mixed_trees([row for row in found["rows"] if row["question"] == question], question)
        return found
    except ProtocolError as error:
        raise LamellaError(path, f"it was changed since it was written ({error})", "Evaluate anew.") from error
    except FileNotFoundError as error:
        raise LamellaError(folder, f"it holds no {RESULTS_FILE}", "Give a folder of `lamella evaluate`.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", "Evaluate anew.") from error
