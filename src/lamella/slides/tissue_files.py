"""Where a slide's tissue comes from when it is indexed: a given file, or a mask computed and written now."""

from __future__ import annotations

from pathlib import Path

from lamella.errors import EmptyTissueError
from lamella.geometry import mask_frame
from lamella.slides.manifest import ManifestRow
from lamella.slides.masks import is_tissue, open_mask, write_mask
from lamella.slides.slide import Slide
from lamella.slides.tissue import TissueMap, TissueSettings, find_tissue


def given_mask(path: Path, row: ManifestRow, slide: Slide, settings: TissueSettings) -> tuple[TissueMap, Path]:
    """The tissue that a mask file states, laid over its slide, and the file to read it from again.

    Raises:
        MaskMismatchError: The mask cannot be read or does not fit the slide.
        EmptyTissueError: It shows no tissue.
    """
    file = open_mask(path)
    height_px, width_px = file.values.shape
    stated = (row.mask_mpp, row.mask_mpp) if row.mask_mpp else file.mpp
    frame = mask_frame(slide.frame, width_px, height_px, mpp=stated, tolerance=settings.mask_tolerance, name=path)
    mask = is_tissue(file.values, settings.mask_values)
    if not mask.any():
        which = f"none of its pixels is {settings.mask_values}" if settings.mask_values else "it is 0 everywhere"
        raise EmptyTissueError(
            path, f"the mask shows no tissue ({which})", "Give another mask, or correct tissue.mask_values."
        )
    return TissueMap(mask, frame), path


def new_mask(row: ManifestRow, slide: Slide, folder: Path, settings: TissueSettings) -> tuple[TissueMap, Path]:
    """Find the tissue of a slide and write it into the index folder.

    Raises:
        EmptyTissueError: No tissue was found.
        SlideError: The slide cannot be read.
    """
    mask = find_tissue(slide, settings)
    path = folder / "masks" / f"{row.slide_id}.png"
    write_mask(path, mask)
    return TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0])), path
