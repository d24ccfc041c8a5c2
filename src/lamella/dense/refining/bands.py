"""Probabilities to labels: images in memory, slides window by window from one OME-Zarr raster to another.

Both go through the same windows, so that both give the same labels. A slide is gone through twice: all that looks at a
pixel's surroundings, then the small pieces, which may reach anywhere.

Shapes: C channels, Y x X pixels of an image, h x W of a band.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamella.dense.progress import SlideFolder, array_mark, slide_mark
from lamella.dense.refining.components import Pieces, without_small
from lamella.dense.refining.settings import RefineSettings
from lamella.dense.refining.windows import Window, halo_px, side_px, window_labels, windows_over
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.ome_zarr import LabelStore, StoredRaster, open_raster
from lamella.geometry import Box
from lamella.slides.slide import Slide

REFINED = "labels.zarr"
_LOCAL = ".labels-with-small-pieces.zarr"  # hidden: it goes when the labels are whole


def refine_maps(
    maps_CYX: np.ndarray,
    pixels_YXC: np.ndarray | None,
    settings: RefineSettings,
    background: int | None,
    *,
    core_px: int | None = None,
) -> np.ndarray:
    """Labels of one image.

    Args:
        maps_CYX: float32 probabilities, or uint8 of 255; all channels 0 where nobody looked.
        pixels_YXC: uint8 (Y, X, 3), the image under the maps, or finer by a whole factor; None without a CRF.
        settings: What is done.
        background: Number of the channel that is none of the classes, or None.
        core_px: Side of the windows; `side_px` by default. An image no larger is one window.

    Returns:
        uint8 (Y, X): channels, NOT_LABELLED where nobody looked.

    Raises:
        MissingExtraError: The settings name a CRF that is not installed.
        ValueError: The arrays do not fit each other.
    """
    channels, height, width = maps_CYX.shape
    if background is not None and not 0 <= background < channels:
        raise ValueError(f"background {background} of {channels} channels")
    if maps_CYX.dtype not in (np.uint8, np.float32):
        raise ValueError(f"maps are uint8 or float32, not {maps_CYX.dtype}")
    pixels = _guide(pixels_YXC, height, width) if settings.use_crf else None
    labels = np.empty((height, width), np.uint8)
    for window in windows_over(slice(0, height), height, width, halo_px(settings), core_px or side_px(settings)):
        part = None if pixels is None else pixels[window.outer]
        found = window_labels(maps_CYX[:, *window.outer], part, settings, background, window.origin)
        labels[window.core] = found[window.inner]
    return without_small(labels, settings.min_component_size) if settings.min_component_size > 1 else labels


def refine_raster(
    probabilities: Path | str,
    slide: Slide | None,
    settings: RefineSettings,
    out: Path | str,
    *,
    background: str | None = "background",
    threads: int = 2,
    core_px: int | None = None,
) -> dict[str, Any]:
    """Labels of a slide whose probabilities are stored; goes on where a stopped run left off.

    Args:
        probabilities: Folder of the finished `ProbabilityStore`.
        slide: Open; None where the settings need no colours (no CRF).
        settings: What is done.
        out: Folder of its own: labels.zarr, and prediction.json with the facts.
        background: Name of the channel that is none of the classes; None if there is none.
        threads: Windows at work at once, each about 400 bytes for each of its pixels with a CRF.
        core_px: Side of the windows, rounded to the raster's chunks; `side_px` by default.

    Returns:
        What prediction.json holds.

    Raises:
        LamellaError: The raster is unfinished or holds no probabilities, or the background is none of its channels.
        MissingExtraError: The settings name a CRF that is not installed.
        OutputConflictError: The folder holds the labels of something else.
        SlideError: The slide cannot be read.
        StorageError: The disk refused a write; what was finished is kept.
    """
    raster = open_raster(probabilities)
    number = _background_of(raster, background)
    if settings.use_crf and slide is None:
        raise ValueError("a CRF needs the slide")
    step = max(1, (core_px or side_px(settings)) // raster.chunk_px) * raster.chunk_px
    key = {
        "probabilities": array_mark(np.asarray(raster.levels[-1])),
        "slide": slide_mark(slide) if settings.use_crf and slide is not None else None,
        "settings": settings.model_dump(mode="json"),
        "background": background,
        "core_px": step,
    }
    folder = SlideFolder(Path(out), key)
    if folder.done is not None:
        return folder.done
    folder.begin()
    work = _Work(raster, slide if settings.use_crf else None, settings, number, threads, step)
    local, labels = folder.folder / _LOCAL, work.store(folder.folder / REFINED)
    if not labels.finished and settings.min_component_size > 1:
        before = work.store(local)
        work.fill(before)
        _remove_small(open_raster(before.folder), labels, settings.min_component_size, step)
    else:
        work.fill(labels)
    if local.exists():
        shutil.rmtree(local)
    return folder.finish({"classes": list(raster.names), "background": background, "mpp": raster.frame.mpp})


@dataclass(frozen=True)
class _Work:
    """The first time through a slide: everything but the small pieces."""

    raster: StoredRaster
    slide: Slide | None
    settings: RefineSettings
    background: int | None
    threads: int
    step: int

    def store(self, folder: Path) -> LabelStore:
        frame = self.raster.frame
        size = frame.height_px, frame.width_px, (frame.mpp_x, frame.mpp_y)
        return LabelStore(folder, self.raster.names, *size, self.raster.chunk_px)

    def fill(self, store: LabelStore) -> None:
        """Write what a store still lacks."""
        height, width = self.raster.frame.height_px, self.raster.frame.width_px
        halo = halo_px(self.settings)
        with ThreadPoolExecutor(self.threads, "refine") as pool:  # numpy and scipy.sparse let go of the lock
            for y in range(store.done_px, height, self.step):
                rows = slice(y, min(y + self.step, height))
                band = np.empty((rows.stop - y, width), np.uint8)
                windows = list(windows_over(rows, height, width, halo, self.step))
                for window, labels in zip(windows, pool.map(self._labels, windows), strict=True):
                    band[:, window.core[1]] = labels
                store.write(y, band)
        store.finish()

    def _labels(self, window: Window) -> np.ndarray:
        maps = np.asarray(self.raster.levels[0][:, *window.outer])
        if not maps[:, *window.inner].any():
            return np.full(maps[0][window.inner].shape, NOT_LABELLED, np.uint8)
        pixels = None if self.slide is None else self._pixels(self.slide, window)
        return window_labels(maps, pixels, self.settings, self.background, window.origin)[window.inner]

    def _pixels(self, slide: Slide, window: Window) -> np.ndarray:
        rows, columns = window.outer
        box = Box(columns.start, rows.start, columns.stop, rows.stop)
        frame = self.raster.frame
        return slide.read_many([frame.box_in(slide.frame, box)], frame.mpp)[0]


def _remove_small(labels: StoredRaster, store: LabelStore, least_px: int, step: int) -> None:
    """The second time through: copy labels without their small pieces."""
    pieces = Pieces(least_px)
    for _, band in labels.bands(height_px=step):
        pieces.add(band)
    painter = pieces.painter()
    for y0, band in labels.bands(height_px=step):
        painted = painter.painted(band)
        if y0 >= store.done_px:
            store.write(y0, painted)
    store.finish()


def _background_of(raster: StoredRaster, background: str | None) -> int | None:
    if raster.kind != "probabilities":
        raise LamellaError(raster.folder, f"it holds {raster.kind}, not probabilities", "Give probabilities.zarr.")
    if background is None:
        return None
    if background not in raster.names:
        known = ", ".join(raster.names)
        raise LamellaError(raster.folder, f"its channels are {known}", f"Set the background, which is {background!r}.")
    return raster.names.index(background)


def _guide(pixels_YXC: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """The picture at the maps' resolution: means of whole cells."""
    if pixels_YXC is None:
        raise ValueError("a CRF needs the picture")
    if pixels_YXC.dtype != np.uint8 or pixels_YXC.ndim != 3 or pixels_YXC.shape[2] != 3:
        raise ValueError(f"a picture is uint8 (Y, X, 3), not {pixels_YXC.dtype} {pixels_YXC.shape}")
    rows, columns = pixels_YXC.shape[:2]
    stride = -(-rows // height)
    if (-(-rows // stride), -(-columns // stride)) != (height, width):
        raise ValueError(f"a picture of {rows} x {columns} under maps of {height} x {width}")
    if stride == 1:
        return pixels_YXC
    whole = np.pad(pixels_YXC, ((0, height * stride - rows), (0, width * stride - columns), (0, 0)), mode="edge")
    cells = whole.reshape(height, stride, width, stride, 3)
    mean: np.ndarray = cells.mean((1, 3), dtype=np.float32) + 0.5
    return mean.astype(np.uint8)
