"""Where a slide's tissue comes from when it is indexed: a mask file, polygons, or computed now; and what is written.

Beside the tissue's mask its outlines are written as QuPath GeoJSON, `masks/<slide_id>.geojson`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lamella.errors import EmptyTissueError, LamellaError, MaskMismatchError
from lamella.formats.geojson import GeoObject, read_geojson, write_geojson
from lamella.geometry import Frame, mask_frame
from lamella.slides.manifest import ManifestRow
from lamella.slides.masks import is_tissue, open_mask, write_mask
from lamella.slides.polygons import Rings, fill_polygon, trace_mask
from lamella.slides.resample import resample_mask
from lamella.slides.slide import Slide
from lamella.slides.thumbnail import thumbnail_frame
from lamella.slides.tissue import TissueSettings, find_tissue
from lamella.slides.tissue_map import TissueMap

POLYGON_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_TISSUE_COLOUR = (0, 158, 115)  # green, as in the overlays
_IGNORED = "*"  # QuPath marks classes that are no tissue by this at the end of their names, such as `Ignore*`


def is_polygon_file(path: Path) -> bool:
    """Whether a given `mask_path` names polygons rather than an image."""
    return path.name.lower().endswith(POLYGON_SUFFIXES)


def given_mask(
    path: Path, row: ManifestRow, slide: Slide, folder: Path, settings: TissueSettings
) -> tuple[TissueMap, Path]:
    """The tissue that a mask file or polygons state, laid over the slide; its outlines are written into the folder.

    Polygons become a mask of the index's own, `masks/<slide_id>.png` at `settings.mpp`, of 0 and 255.

    Returns:
        The tissue, and the mask file to read it from again.

    Raises:
        MaskMismatchError: The file cannot be read or does not fit the slide.
        EmptyTissueError: It shows no tissue.
    """
    if is_polygon_file(path):
        tissue = _tissue_of_polygons(path, slide, settings)
        path = folder / "masks" / f"{row.slide_id}.png"
        write_mask(path, tissue.mask)
    else:
        tissue = _tissue_of_mask(path, row, slide, settings)
    _write_outlines(folder, row, slide, tissue, settings)
    return tissue, path


def new_mask(row: ManifestRow, slide: Slide, folder: Path, settings: TissueSettings) -> tuple[TissueMap, Path]:
    """Find the tissue of a slide and write its mask and outlines into the index folder.

    Raises:
        EmptyTissueError: No tissue was found.
        SlideError: The slide cannot be read.
    """
    mask = find_tissue(slide, settings)
    tissue = TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0]))
    path = folder / "masks" / f"{row.slide_id}.png"
    write_mask(path, mask)
    _write_outlines(folder, row, slide, tissue, settings)
    return tissue, path


def _tissue_of_mask(path: Path, row: ManifestRow, slide: Slide, settings: TissueSettings) -> TissueMap:
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
    return TissueMap(mask, frame)


def _tissue_of_polygons(path: Path, slide: Slide, settings: TissueSettings) -> TissueMap:
    frame = thumbnail_frame(slide.frame, max(settings.mpp, slide.mpp))
    tissue, ignored = (np.zeros((frame.height_px, frame.width_px), bool) for _ in range(2))
    scale = np.array([frame.width_px / slide.frame.width_px, frame.height_px / slide.frame.height_px])
    tally = {"polygons": 0, "outside": 0}
    for polygon, is_ignored in _annotated(path):
        tally["polygons"] += not is_ignored
        tally["outside"] += not is_ignored and not _within(polygon[0], slide.frame)
        fill_polygon(ignored if is_ignored else tissue, [ring * scale for ring in polygon])
    tissue &= ~ignored
    if not tissue.any():
        raise _no_tissue(path, slide.frame, **tally)
    return TissueMap(tissue, frame)


def _annotated(path: Path) -> Iterator[tuple[Rings, bool]]:
    """The polygons of a file's annotations in level-0 pixels, and whether their class is to be ignored."""
    try:
        for item in read_geojson(path):
            if item.object_type == "annotation":
                for polygon in item.polygons:
                    yield polygon, item.classification.endswith(_IGNORED)
    except LamellaError as error:
        raise MaskMismatchError(error.thing, error.cause, error.remedy) from error


def _within(ring_px0: np.ndarray, slide: Frame) -> bool:
    """Whether any of a ring's bounding box lies on the slide."""
    (left, top), (right, bottom) = ring_px0.min(axis=0), ring_px0.max(axis=0)
    return bool(right > 0 and bottom > 0 and left < slide.width_px and top < slide.height_px)


def _no_tissue(path: Path, slide: Frame, polygons: int, outside: int) -> LamellaError:
    if not polygons:
        return EmptyTissueError(
            path,
            "it has no polygon that is an annotation of a class other than `...*`",
            "Export the annotations of the tissue from QuPath, or leave mask_path empty to compute a mask.",
        )
    if outside == polygons:
        return MaskMismatchError(
            path,
            f"all its polygons lie outside the slide's {slide.width_px} x {slide.height_px} level-0 pixels",
            "Give the polygons of this slide, in level-0 pixels and not in micrometres.",
        )
    return EmptyTissueError(
        path,
        "its polygons are smaller than a pixel of the mask, or lie in ignored ones",
        "Give larger polygons, or set a finer tissue.mpp.",
    )


def _write_outlines(folder: Path, row: ManifestRow, slide: Slide, tissue: TissueMap, settings: TissueSettings) -> None:
    """Write the tissue's outlines in level-0 pixels, as fine as the mask but no finer than `settings.mpp`."""
    mask, frame = tissue.mask, tissue.frame
    if frame.mpp < settings.mpp / 2:
        # A given mask of level-0 size would make outlines of a million corners.
        frame = thumbnail_frame(slide.frame, settings.mpp)
        mask = resample_mask(mask, tissue.frame.bounds_px, frame.width_px, frame.height_px)
    scale = np.array([slide.frame.width_px / frame.width_px, slide.frame.height_px / frame.height_px])
    objects = (
        GeoObject(polygons=(tuple(ring * scale for ring in rings),), classification="Tissue", colour=_TISSUE_COLOUR)
        for rings in trace_mask(mask)
    )
    write_geojson(folder / "masks" / f"{row.slide_id}.geojson", objects)
