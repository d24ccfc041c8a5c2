"""What a long job has finished so far, one JSON line each, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lamella.errors import storage_faults


class Journal:
    """A hidden file beside the results of a job; it is there only while the job is unfinished.

    Attributes:
        entries: What an earlier run of the same job noted.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.entries: list[dict[str, Any]] = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):  # the line that was being written when the run was killed
                    self.entries.append(json.loads(line))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note one finished piece of work; its results must be on disk by now.

        Raises:
            StorageError: The disk refused the write.
        """
        with storage_faults(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                # The line break comes first: it ends the line that a killed run may have left cut short.
                file.write("\n" + json.dumps(dict(entry)))

    def end(self) -> None:
        """The job is done, its real output stands: forget the notes."""
        self.path.unlink(missing_ok=True)
