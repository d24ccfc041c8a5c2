"""What a slide's folder holds the prediction of, so that a stopped one goes on and another one is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import OutputConflictError
from lamella.formats.atomic import write_json
from lamella.slides.slide import Slide

PREDICTION_FILE = "prediction.json"
_BEGUN_FILE = ".begun.json"
_MARK_BYTES = 2**16  # a slide's header and its last tiles; reading all of it would take as long as predicting


class SlideFolder:
    """The output folder of one slide, for one prediction.

    Args:
        folder: It need not exist yet.
        key: What the prediction depends on, as plain values.
        file: Name of the file that makes the folder whole.

    Attributes:
        done: What that file of a finished prediction holds, or None.

    Raises:
        OutputConflictError: The folder holds a prediction of something else, or other files.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], file: str = PREDICTION_FILE) -> None:
        self.folder, self._key, self._file = folder, json.loads(json.dumps(key)), folder / file
        self.done = _read(self._file)
        begun = _read(folder / _BEGUN_FILE)
        for state in (self.done, begun):
            if state is not None:
                self._refuse_other(state.get("of", {}))
        if self.done is None and begun is None:
            foreign = sorted(path.name for path in folder.glob("[!.]*"))
            if foreign:
                raise OutputConflictError(
                    folder,
                    f"it holds {', '.join(foreign[:3])}, which no unfinished prediction left",
                    "Give another folder.",
                )

    def begin(self) -> None:
        """Say what is going to be in the folder.

        Raises:
            StorageError: The disk refused the write.
        """
        write_json(self.folder / _BEGUN_FILE, {"of": self._key})

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the file that makes the folder whole; returns what it holds."""
        whole = {**facts, "of": self._key}
        write_json(self._file, whole)
        (self.folder / _BEGUN_FILE).unlink(missing_ok=True)
        self.done = whole
        return whole

    def _refuse_other(self, old: Mapping[str, Any]) -> None:
        differences = list(_differences(old, self._key))
        if differences:
            lines = "\n".join(f"  {line}" for line in differences)
            raise OutputConflictError(
                self.folder,
                f"it holds a prediction of something else:\n{lines}\nNothing was changed",
                "Give another folder, or remove this one.",
            )


def slide_mark(slide: Slide) -> str:
    """16 hexadecimal digits of a slide's size, and of the size, beginning and end of its file."""
    frame = slide.frame
    digest = hashlib.sha256(json.dumps([frame.width_px, frame.height_px, frame.mpp_x, frame.mpp_y]).encode())
    if slide.path.is_file():
        size = slide.path.stat().st_size
        with open(slide.path, "rb") as file:
            digest.update(str(size).encode() + file.read(_MARK_BYTES))
            file.seek(max(0, size - _MARK_BYTES))
            digest.update(file.read(_MARK_BYTES))
    return digest.hexdigest()[:16]


def array_mark(array: np.ndarray) -> str:
    """16 hexadecimal digits of an array."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OutputConflictError(path, f"it cannot be read ({error})", "Give another folder.") from error


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            yield f"{prefix}{key}: {json.dumps(before)} there, {json.dumps(now)} now"
