"""Probabilities of a judged slide on the study's grid, gated by labels and refined: all rows of a table from one look.

Small slides are held in memory, large ones lie on disk as the dense engine left them and are read in bands; the tiles
and their blending are the same.

Shapes: H, W pixels of the judged raster, C channels, M classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lamella.dense.engine import LABELS, PROBABILITIES, DenseSettings, predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.images import predict_image
from lamella.dense.refining.bands import refine_maps, refine_raster
from lamella.dense.refining.settings import RefineSettings
from lamella.dense.runtime import Runtime
from lamella.formats.ome_zarr import ProbabilityStore, open_raster
from lamella.imaging.spacing import resize_image
from lamella.models.dense_contract import DenseModel
from lamella.slides.slide import Slide
from lamella.verbs.evaluation.segment_images import on_grid
from lamella.verbs.weak_stages.evaluation_gates import Gate, gated
from lamella.verbs.weak_stages.evaluation_judged import BAND_PX, Judged, raster_of, read_rows
from lamella.verbs.weak_stages.prediction_places import area_of_tiles

_WHOLE = 255  # of a stored probability


# ---- what a model says -----------------------------------------------------------------------------------------------

Rows = Callable[[int, int], np.ndarray]
"""First row and the row behind the last to float32 (C, h, W) probabilities in the order of the study's channels."""


def predicted(model: DenseModel, judged: Judged, slide: Slide, folder: Path, runtime: Runtime) -> Rows:
    """The probabilities of a slide, in memory or on disk; 0 in every channel where the model did not look.

    Args:
        model: On the runtime's device.
        judged: The slide and its raster.
        slide: The same, open.
        folder: Where rasters of a large slide go.
        runtime: Device, batches, threads.
    """
    order = [model.contract.channels.index(name) for name in judged.study.channels]
    if judged.small:
        maps_CYX = _in_memory(model, judged, slide, runtime)[order]
        return lambda y0, y1: maps_CYX[:, y0:y1]
    bag, side = judged.bag, judged.study.fov_um
    settings = DenseSettings(blend=judged.settings.blend, everywhere=not judged.inside)
    area = None
    if judged.inside:
        sides = (side / bag.frame.mpp_x, side / bag.frame.mpp_y)
        area = area_of_tiles(bag.wsi_path, bag.slide_id, bag.corners_px0, sides, bag.frame)
    exports = ExportSettings(geojson=False, label_tiff=False)
    predict_slide(model, slide, folder, settings, tissue=area, runtime=runtime, exports=exports)
    raster = open_raster(folder / PROBABILITIES)

    def rows(y0: int, y1: int) -> np.ndarray:
        """Nearest pixels: the raster is the judged one unless the model's spacing is another."""
        wanted_y = _nearest(np.arange(y0, y1), judged.frame.mpp_y, raster.frame.mpp_y, raster.frame.height_px)
        wanted_x = _nearest(
            np.arange(judged.frame.width_px), judged.frame.mpp_x, raster.frame.mpp_x, raster.frame.width_px
        )
        first = int(wanted_y[0])
        band = np.asarray(raster.levels[0][:, first : int(wanted_y[-1]) + 1])
        return band[order][:, wanted_y - first][:, :, wanted_x].astype(np.float32) / _WHOLE

    return rows


def _in_memory(model: DenseModel, judged: Judged, slide: Slide, runtime: Runtime) -> np.ndarray:
    """The model sees the slide at its own spacing; its probabilities are brought to the judged raster."""
    mpp = model.contract.mpp or judged.study.mpp
    shown = raster_of(slide.frame, mpp)
    pixels = read_rows(slide, shown, 0, shown.height_px)
    maps_CYX = predict_image(model, pixels, judged.settings.blend, batch_size=runtime.batch_size, device=runtime.device)
    return on_grid(maps_CYX, model.contract.stride, pixels.shape[:2], (judged.frame.height_px, judged.frame.width_px))


def _nearest(places: np.ndarray, own_mpp: float, other_mpp: float, count: int) -> np.ndarray:
    return np.minimum(((places + 0.5) * own_mpp / other_mpp).astype(np.int64), count - 1)


def refined_rows(
    rows: Rows, gate: Gate | None, judged: Judged, refine: RefineSettings, slide: Slide, folder: Path
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Bands of refined labels: first row, the row behind the last, (h, W) labels.

    Args:
        rows: Probabilities.
        gate: Labels by which they are gated before; None: none.
        judged: The slide and its raster.
        refine: What is done.
        slide: The same, open.
        folder: Of rasters of a large slide; they are removed again.
    """
    study, frame = judged.study, judged.frame

    def shown(y0: int, y1: int) -> np.ndarray:
        return rows(y0, y1) if gate is None else gated(rows(y0, y1), gate.of_rows(y0, y1, frame.width_px))

    if judged.small:
        pixels = judged.pixels(0, frame.height_px, slide) if refine.use_crf else None
        background = None if study.background is None else len(study.classes)
        yield (
            0,
            frame.height_px,
            refine_maps(np.ascontiguousarray(shown(0, frame.height_px)), pixels, refine, background),
        )
        return
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut short: as fast to make as to check
    place = (frame.height_px, frame.width_px, frame.mpp, BAND_PX // 2)
    store = ProbabilityStore(folder / PROBABILITIES, study.channels, *place)
    for y0, y1 in judged.bands:
        store.write(y0, np.rint(shown(y0, y1) * _WHOLE).astype(np.uint8))
    store.finish()
    refine_raster(store.folder, slide, refine, folder / "refined", background=study.background, threads=1)
    labels = open_raster(folder / "refined" / LABELS)
    for y0, y1 in judged.bands:
        yield y0, y1, np.asarray(labels.levels[0][y0:y1])
    shutil.rmtree(folder)


def stretched(labels: np.ndarray, height: int, width: int, y0: int = 0, y1: int | None = None) -> np.ndarray:
    """Rows y0 to y1 of a label image stretched over another shape, by nearest pixels."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(labels.shape, (height, width), strict=True)
    )
    return labels[np.ix_(rows[y0:y1], columns)]


def reduced_pixels(pixels: np.ndarray, largest_px: int) -> np.ndarray:
    """An image no longer than this."""
    scale = largest_px / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return resize_image(pixels, *(max(1, round(side * scale)) for side in pixels.shape[:2]))
