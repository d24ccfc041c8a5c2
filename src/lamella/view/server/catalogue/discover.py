"""Walks the given paths and recognises what Lamella writes and reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamella.slides.manifest import find_slides
from lamella.view.server.catalogue.items import Catalogue, SlideItem


def discover(paths: Sequence[Path], mpp: float | None = None) -> Catalogue:
    """Everything below the paths.

    Args:
        paths: Slides, index folders, runs, predictions, features, scans, or folders of these.
        mpp: Stated micrometres per pixel of slides that are given as files.

    Raises:
        LamellaError: A path does not exist, or nothing was found.
    """
    slides = {
        row.slide_id: SlideItem(row.slide_id, row.slide_id, row.wsi_path, row.mpp) for row in find_slides(paths, mpp)
    }
    return Catalogue(", ".join(path.name for path in paths), slides)
