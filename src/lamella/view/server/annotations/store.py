"""Annotations on disk."""

from __future__ import annotations

from pathlib import Path


class AnnotationStore:
    """Annotations of all slides below one folder, which is made at the first save.

    Args:
        folder: Where they lie: <folder>/<slide>/<author>.geojson.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
