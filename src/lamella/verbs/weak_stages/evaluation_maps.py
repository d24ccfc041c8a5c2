"""Probabilities of a judged slide on the study's grid, gated by labels and refined: all rows of a table from one look.

Small slides are held in memory, large ones lie on disk as the dense engine left them and are read in bands; the tiles
and their blending are the same.

Shapes: H, W pixels of the judged raster, C channels, M classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lamella.data.bag_tiles import read_tiles
from lamella.data.bags import Bag, WeakStudy
from lamella.dense.bands import first_largest
from lamella.dense.engine import LABELS, PROBABILITIES, DenseSettings, predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.images import predict_image
from lamella.dense.refining.bands import refine_maps, refine_raster
from lamella.dense.refining.settings import RefineSettings
from lamella.dense.runtime import Runtime
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.ome_zarr import ProbabilityStore, open_raster
from lamella.geometry import Box, Frame
from lamella.imaging.spacing import resize_image
from lamella.models.dense_contract import DenseModel
from lamella.models.weak_contract import WeakModel
from lamella.slides.slide import Slide, open_slide
from lamella.verbs.evaluation.segment_images import on_grid
from lamella.verbs.weak_stages.evaluation_settings import EvaluationSettings
from lamella.verbs.weak_stages.prediction_places import area_of_tiles

BAND_PX = 1024
"""Rows of a large slide that are judged at once."""
_WHOLE = 255  # of a stored probability


@dataclass(frozen=True)
class Judged:
    """A slide on the raster that it is judged on: the study's spacing, laid over it from its top left corner.

    Attributes:
        study: Of the slide.
        bag: The slide.
        frame: The raster.
        settings: Of the evaluation.
        inside: Only pixels in the slide's tiles are judged.
    """

    study: WeakStudy
    bag: Bag
    frame: Frame
    settings: EvaluationSettings
    inside: bool

    @classmethod
    def of(cls, study: WeakStudy, bag: Bag, settings: EvaluationSettings, *, inside: bool) -> Judged:
        return cls(study, bag, raster_of(bag.frame, study.mpp), settings, inside)

    @property
    def small(self) -> bool:
        return self.frame.width_px * self.frame.height_px <= self.settings.in_memory_px

    @property
    def bands(self) -> list[tuple[int, int]]:
        """First row and the row behind the last of what is judged at once."""
        height = self.frame.height_px
        step = height if self.small else BAND_PX
        return [(y0, min(y0 + step, height)) for y0 in range(0, height, step)]

    def pixels(self, y0: int, y1: int, slide: Slide | None = None) -> np.ndarray:
        """(y1 - y0, W, 3) uint8 of the raster."""
        if slide is None:
            with open_slide(self.bag.wsi_path, mpp=self.bag.mpp_stated) as opened:
                return self.pixels(y0, y1, opened)
        return read_rows(slide, self.frame, y0, y1)

    def tiles_px(self) -> np.ndarray:
        """(N, 4) int64 x0, y0, x1, y1 of the tiles on the raster; edges are rounded alike: neighbours touch."""
        corners = self.bag.corners_px0 * (self.bag.frame.mpp_x, self.bag.frame.mpp_y)
        ends = np.concatenate([corners, corners + self.study.fov_um], axis=1)
        scale = np.array([self.frame.mpp_x, self.frame.mpp_y] * 2)
        limits = [self.frame.width_px, self.frame.height_px] * 2
        return np.rint(ends / scale).astype(np.int64).clip(0, limits)

    def within_tiles(self, y0: int, y1: int) -> np.ndarray:
        """(y1 - y0, W) bool."""
        inside = np.zeros((y1 - y0, self.frame.width_px), bool)
        for left, top, right, bottom in self.tiles_px().tolist():
            inside[max(0, top - y0) : max(0, bottom - y0), left:right] = True
        return inside


def raster_of(frame: Frame, mpp: float) -> Frame:
    """The raster of exactly this spacing over a slide, as the dense engine lays it."""
    width_um, height_um = frame.size_um
    return Frame(max(1, round(width_um / mpp)), max(1, round(height_um / mpp)), mpp, mpp)


def read_rows(slide: Slide, frame: Frame, y0: int, y1: int) -> np.ndarray:
    """(y1 - y0, W, 3) uint8 of a raster over a slide."""
    box_px0 = frame.box_in(slide.frame, Box(0, y0, frame.width_px, y1))
    return slide.read(box_px0, frame.mpp).pixels


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


# ---- labels of the whole image ---------------------------------------------------------------------------------------


def label_probabilities(models: Sequence[WeakModel], judged: Judged, runtime: Runtime) -> tuple[np.ndarray, np.ndarray]:
    """How probably the slide (M,), and each of its tiles (N, M), holds each class of the study: the mean of the models.

    Raises:
        LamellaError: The slide has no tiles, or one cannot be read.
    """
    study, bag = judged.study, judged.bag
    if not len(bag):
        raise LamellaError(
            bag.slide_id, "it has no tile that labels could be predicted of", "Set evaluate.labels=false."
        )
    bags, tiles = [], []
    for model in models:
        logits_NM, features_ND = _answers(model, study, bag, runtime)
        own = [name for name in model.contract.channels if name != model.contract.background]
        order = [own.index(name) for name in study.classes]
        with torch.no_grad():
            bag_M = model.bag_logits(logits_NM, features_ND)
        bags.append(bag_M.float().sigmoid().cpu().numpy()[order])
        tiles.append(logits_NM.float().sigmoid().cpu().numpy()[:, order])
    return np.mean(bags, axis=0), np.mean(tiles, axis=0)


@torch.no_grad()
def _answers(model: WeakModel, study: WeakStudy, bag: Bag, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of all of a slide's tiles, and the features that pooling by attention reads."""
    answers = []
    for start in range(0, len(bag), runtime.batch_size):
        rows = np.arange(start, min(start + runtime.batch_size, len(bag)))
        pixels = read_tiles(study, bag, rows, threads=runtime.threads, mpp=model.contract.mpp)
        answers.append(model.tile_answers(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(runtime.device)))
    logits, features = zip(*answers, strict=True)
    return torch.cat(logits), torch.cat(features)


@dataclass(frozen=True)
class Gate:
    """Which classes a slide is said to hold, everywhere or tile by tile.

    Attributes:
        present_NM: bool; (1, M) of the whole slide, or (N, M) of its tiles.
        tiles_px: (N, 4) places of the tiles; None where the gate is of the whole slide.
    """

    present_NM: np.ndarray
    tiles_px: np.ndarray | None = None

    def of_rows(self, y0: int, y1: int, width: int) -> np.ndarray:
        """(M, h, W) bool, or (M, 1, 1). What lies in no tile is not gated; in several, by what any of them holds."""
        if self.tiles_px is None:
            return self.present_NM[0][:, None, None]
        present = np.zeros((self.present_NM.shape[1], y1 - y0, width), bool)
        covered = np.zeros((y1 - y0, width), bool)
        for (left, top, right, bottom), here_M in zip(self.tiles_px.tolist(), self.present_NM, strict=True):
            part = (slice(max(0, top - y0), max(0, bottom - y0)), slice(left, right))
            present[(slice(None), *part)] |= here_M[:, None, None]
            covered[part] = True
        return present | ~covered


def gated(maps_CHW: np.ndarray, present_MHW: np.ndarray) -> np.ndarray:
    """Probabilities without the classes that are not present; the background, behind the classes, always is.

    Where no class is left there is background; where there is no background either, the gate says nothing of the place.
    Places at which nobody looked (0 in every channel) stay so.
    """
    classes = len(present_MHW)
    kept = maps_CHW.copy()
    kept[:classes] *= present_MHW
    looked = maps_CHW.any(0)
    empty = looked & ~kept.any(0)
    if len(maps_CHW) > classes:
        kept[classes][empty] = 1
    else:
        kept = np.where(empty, maps_CHW, kept)
    total = kept.sum(0)
    return np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)


def labels_of(maps_CHW: np.ndarray) -> np.ndarray:
    """(H, W) uint8 channels, NOT_LABELLED where nobody looked. Every channel competes, the background with the rest."""
    labels = first_largest(torch.from_numpy(np.ascontiguousarray(maps_CHW))).numpy()
    labels[~maps_CHW.any(0)] = NOT_LABELLED
    return labels


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


def enlarged(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A label image stretched over another shape by nearest pixels."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(labels.shape, (height, width), strict=True)
    )
    return labels[np.ix_(rows, columns)]


def reduced_pixels(pixels: np.ndarray, largest_px: int) -> np.ndarray:
    """An image no longer than this."""
    scale = largest_px / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return resize_image(pixels, *(max(1, round(side * scale)) for side in pixels.shape[:2]))
