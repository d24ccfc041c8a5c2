"""A finished prediction as the files other programs open: label map, probabilities, outlines, areas of the classes.

One more pass over the zarr rasters, a row of chunks in memory: nothing here has to be resumed, and each file appears
whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.dense.outlines import Outline, OutlineTracer
from lamella.formats.atomic import write_json
from lamella.formats.geojson import GeoObject
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.ome_tiff import class_table, write_ome_tiff
from lamella.formats.ome_zarr import StoredRaster, open_raster
from lamella.formats.outline_file import write_objects
from lamella.geometry import Frame

LABEL_TIFF, PROBABILITY_TIFF = "labels.ome.tif", "probabilities.ome.tif"
OBJECTS, AREAS = "objects.geojson.gz", "areas.json"
_AREA, _PROBABILITY = "Area µm^2", "Mean probability"  # the first as QuPath itself calls it
_COLUMNS_PX = 4096  # of probabilities in memory at once: a slide's width of all classes would be 0.2 GB


class ExportSettings(Settings):
    """Which files are made of a finished prediction."""

    label_tiff: bool = True
    """labels.ome.tif: the class of each pixel."""
    probability_tiff: bool = False
    """probabilities.ome.tif: a channel for each class, value / 255; as large as all else together."""
    geojson: bool = True
    """objects.geojson.gz: outlines of the connected pieces of each class, for QuPath. With objects.outlines, the same
    for `lamella view`."""
    object_type: Literal["annotation", "detection"] = "annotation"
    """What QuPath takes outlines for: annotations can be corrected by hand, detections stay fast by the 100,000."""
    simplify_um: Annotated[float, Field(ge=0)] | None = None
    """How far outlines may leave the pixels' edges. Null: as far as filling them still gives every pixel its class;
    0: not at all; larger: fewer corners, and neighbours may overlap by as much."""
    min_area_um2: Annotated[float, Field(ge=0)] = 0
    """Smaller pieces are left out of the outlines; they stay in the label map and in the areas."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    files: tuple[Path, ...]
    areas_mm2: dict[str, float]
    objects: int | None
    """Outlines written; None without GeoJSON."""


def export_prediction(
    labels: Path | str,
    out: Path | str,
    slide: Frame,
    *,
    probabilities: Path | str | None = None,
    background: str | None = None,
    colours: Mapping[str, tuple[int, int, int]] | None = None,
    settings: ExportSettings | None = None,
) -> Exported:
    """Write the files of one slide's prediction.

    Args:
        labels: Folder of the finished `LabelStore`.
        out: Folder to write to.
        slide: The slide's level-0 frame; outlines are in its pixels.
        probabilities: Folder of the finished `ProbabilityStore`; gives each outline its mean probability too.
        background: The class that outlines leave out.
        colours: Of the classes, for QuPath.
        settings: Which files.

    Raises:
        LamellaError: A raster is unfinished or damaged.
        StorageError: The disk refused a write.
    """
    settings = settings or ExportSettings()
    raster, out = open_raster(labels), Path(out)
    values = None if probabilities is None else open_raster(probabilities)
    files: list[Path] = []
    if settings.label_tiff:
        files.append(out / LABEL_TIFF)
        write_ome_tiff(files[-1], raster.levels, raster.frame, channels=["class"], annotation=class_table(raster.names))
    if settings.probability_tiff and values is not None:
        files.append(out / PROBABILITY_TIFF)
        write_ome_tiff(files[-1], values.levels, values.frame, channels=values.names)
    objects = _Objects(raster, values, slide, background, dict(colours or {}), settings)
    if settings.geojson:
        files += write_objects(out / OBJECTS, objects)
    else:
        objects.count_pixels()
    areas = objects.areas_mm2()
    files.append(out / AREAS)
    write_json(files[-1], {"mpp": raster.frame.mpp, **objects.facts()})
    return Exported(tuple(files), areas, objects.number if settings.geojson else None)


class _Objects:
    """The outlines as GeoJSON's objects, one at a time; the pixels of each class are counted on the way."""

    def __init__(
        self,
        raster: StoredRaster,
        values: StoredRaster | None,
        slide: Frame,
        background: str | None,
        colours: dict[str, tuple[int, int, int]],
        settings: ExportSettings,
    ) -> None:
        self._raster, self._values, self._slide = raster, values, slide
        self._background, self._colours, self._settings = background, colours, settings
        self._pixels = np.zeros(256, np.int64)
        self._pixel_um2 = raster.frame.mpp_x * raster.frame.mpp_y
        self.number = 0

    def __iter__(self) -> Iterator[GeoObject]:
        simplify_um = self._settings.simplify_um
        tracer = OutlineTracer(
            self._raster.names,
            self._background,
            simplify_px=None if simplify_um is None else simplify_um / self._raster.frame.mpp,
            min_area_px=math.ceil(self._settings.min_area_um2 / self._pixel_um2 - 1e-9),
        )
        for y0, band in self._bands():
            for outline in tracer.add(y0, band, self._likeliest(y0, y0 + len(band))):
                yield self._object(outline)
        for outline in tracer.finish():
            yield self._object(outline)

    def count_pixels(self) -> None:
        for _ in self._bands():
            pass

    def areas_mm2(self) -> dict[str, float]:
        return {
            name: float(self._pixels[value]) * self._pixel_um2 / 1e6 for value, name in enumerate(self._raster.names)
        }

    def facts(self) -> dict[str, Any]:
        """For areas.json; shares are of the area that was looked at."""
        seen = int(self._pixels.sum() - self._pixels[NOT_LABELLED])
        classes = {
            name: {"pixels": int(self._pixels[value]), "area_mm2": area, "share": self._pixels[value] / max(seen, 1)}
            for value, (name, area) in enumerate(self.areas_mm2().items())
        }
        return {"looked_at_mm2": seen * self._pixel_um2 / 1e6, "classes": classes}

    def _bands(self) -> Iterator[tuple[int, np.ndarray]]:
        for y0, band in self._raster.bands():
            for row in band:  # one after the other: counting takes eight bytes for each pixel
                self._pixels += np.bincount(row, minlength=256)
            yield y0, band

    def _likeliest(self, y0: int, y1: int) -> np.ndarray | None:
        """(h, W) the largest probability of each pixel, which is the one of its class."""
        if self._values is None:
            return None
        array = self._values.levels[0]
        width = array.shape[-1]
        largest = np.empty((y1 - y0, width), np.uint8)
        for x in range(0, width, _COLUMNS_PX):
            columns = slice(x, min(x + _COLUMNS_PX, width))
            np.max(np.asarray(array[:, y0:y1, columns]), axis=0, out=largest[:, columns])
        return largest

    def _object(self, outline: Outline) -> GeoObject:
        self.number += 1
        measurements = {_AREA: outline.area_px * self._pixel_um2}
        if outline.mean is not None:
            measurements[_PROBABILITY] = outline.mean / 255
        rings = []
        for ring in outline.rings_px:
            x, y = self._raster.frame.point_in(self._slide, *ring.T.astype(np.float64))  # type: ignore[arg-type]
            # The raster's last pixels may reach a little over the slide's edge.
            rings.append(np.stack([x, y], axis=1).clip(0, (self._slide.width_px, self._slide.height_px)))
        return GeoObject(
            polygons=(tuple(rings),),
            classification=outline.name,
            object_type=self._settings.object_type,
            colour=self._colours.get(outline.name),
            measurements=measurements,
        )
