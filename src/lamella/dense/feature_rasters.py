"""A slide through a backbone, once: tokens of one size, window by window, onto disk.

Windows overlap by what a token must see around itself, and only their cores are kept, so seams hardly show. Memory does
not grow with the slide: a batch of windows and their maps. The raster appears whole or not at all.

Shapes: B windows of a batch, D width of a token, t tokens along a window's side, K tokens of its core.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lamella.dense.feature_windows import ViewLevel, Windows
from lamella.dense.window_pixels import read_windows
from lamella.errors import LamellaError, SlideError, StorageError
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.feature_raster import FACTS_FILE, FEATURES_FILE, SEEN_FILE, FeatureRaster, RasterFacts
from lamella.models.fingerprint import module_fingerprint
from lamella.models.pyramids.backbone import Backbone
from lamella.slides.slide import Slide
from lamella.slides.tissue_map import TissueMap

# A batch's size is stated in images of the usual 224 px; larger windows come in smaller batches.
_USUAL_PX = 224
# Batches read ahead of the one in use.
_AHEAD = 2
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class RasterWork:
    """What is made of slides: which tokens, by which network, where and how.

    Attributes:
        backbone: On `device`, in eval mode.
        name: What the backbone is called.
        level: Which tokens.
        margin_um: Windows within so much of tissue are made too: fields of view reach over its rim.
        batch_size: Images of 224 px, or as many pixels, at once.
        device: Where.
        threads: How many decode at once.
        made: What else the raster depends on, for its facts.
    """

    backbone: Backbone
    name: str
    level: ViewLevel
    margin_um: float
    batch_size: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 2
    made: Mapping[str, Any] = field(default_factory=dict)


def backbone_fingerprint(backbone: Backbone) -> str:
    """16 hex digits of the architecture and the weights."""
    return module_fingerprint(backbone, {"kind": backbone.kind, **backbone.description()})


def write_feature_raster(
    folder: Path,
    slide: Slide,
    tissue: TissueMap,
    work: RasterWork,
    *,
    name: str | None = None,
    noted: Callable[[int, int], None] = lambda done, all_of_them: None,
) -> FeatureRaster:
    """Make the raster of a slide and write it.

    Args:
        folder: Where; made if absent.
        slide: Open.
        tissue: Of the slide. Windows far from any are left out, and their tokens are not seen.
        work: What to make.
        name: Of the slide; its file's unless given.
        noted: Called with the number of windows that are done, and of all.

    Raises:
        SlideError: Pixels cannot be decoded.
        LamellaError: The network gives other maps than it says, or features that are not finite.
        StorageError: The disk refused a write, or has less room than is needed.
    """
    windows = Windows.over(slide.frame, work.backbone, work.level)
    places = [(int(row), int(column)) for row, column in np.argwhere(windows.kept(tissue, work.margin_um))]
    _check_room(folder, len(places) * windows.core**2 * work.level.width * 2)
    seen = np.zeros((windows.rows, windows.columns), bool)
    moments = _Moments(work.level.width)
    (folder / FACTS_FILE).unlink(missing_ok=True)
    with whole_file(folder / FEATURES_FILE) as part, open(part, "wb") as file:
        raster = _RasterFile(file, windows, work.level.width)
        for number, (place, core_KKD) in enumerate(_encoded(slide, windows, places, work), 1):
            rows, columns = windows.tokens(*place)
            core_KKD = core_KKD[: rows.stop - rows.start, : columns.stop - columns.start]
            raster.write(rows, columns, core_KKD)
            seen[rows, columns] = inside = windows.inside(*place)
            moments.add(core_KKD, windows.tissue_shares(tissue, *place) * inside)
            noted(number, len(places))
    _refuse_unseen(slide, seen, work)
    with whole_file(folder / SEEN_FILE) as part, open(part, "wb") as file:
        np.save(file, seen, allow_pickle=False)
    facts = _facts(name or slide.path.stem, slide, windows, work, moments)
    write_json(folder / FACTS_FILE, facts.as_json())
    return FeatureRaster.open(folder)


def _refuse_unseen(slide: Slide, seen: np.ndarray, work: RasterWork) -> None:
    if not seen.any():
        width_um, height_um = slide.frame.size_um
        raise SlideError(
            slide.path,
            f"no token of {work.level.token_um:g} um lies wholly on it: it is {width_um:.0f} x {height_um:.0f} um",
            "Leave this view out, or leave the slide out.",
        )


def _facts(name: str, slide: Slide, windows: Windows, work: RasterWork, moments: _Moments) -> RasterFacts:
    mean, std = moments.mean_and_std()
    return RasterFacts(
        slide=name,
        encoder=work.name,
        fingerprint=backbone_fingerprint(work.backbone),
        licence=work.backbone.licence,
        level=work.level.level,
        mpp=work.level.mpp,
        token_um=work.level.token_um,
        rows=windows.rows,
        columns=windows.columns,
        width=work.level.width,
        first_px0=windows.first_px0,
        step_px0=windows.step_px0,
        slide_px0=(slide.frame.width_px, slide.frame.height_px),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        made=dict(work.made),
    )


def _encoded(
    slide: Slide, windows: Windows, places: list[tuple[int, int]], work: RasterWork
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """(row, column) of a window and float32 (K, K, D) of its core, in order; the next batches are read meanwhile."""
    size = max(1, work.batch_size * _USUAL_PX**2 // windows.side_px**2)
    batches = [places[start : start + size] for start in range(0, len(places), size)]
    pending: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(1, "windows") as reading:
        try:
            for number in range(len(batches) + _AHEAD):
                if number < len(batches):
                    pending.append(reading.submit(_read, slide, windows, batches[number], work))
                if number >= _AHEAD:
                    cores = _cores(pending.popleft().result(), windows, work)
                    yield from zip(batches[number - _AHEAD], cores, strict=True)
        finally:
            reading.shutdown(cancel_futures=True)


def _read(slide: Slide, windows: Windows, places: list[tuple[int, int]], work: RasterWork) -> np.ndarray:
    boxes_px0 = [windows.box_px0(*place) for place in places]
    return read_windows(slide, boxes_px0, work.level.mpp, windows.side_px, work.threads)


@torch.inference_mode()
def _cores(pixels_BYXC: np.ndarray, windows: Windows, work: RasterWork) -> np.ndarray:
    """float32 (B, K, K, D)."""
    images = torch.from_numpy(pixels_BYXC).to(work.device).permute(0, 3, 1, 2)
    map_BDtt: Tensor = work.backbone.level(images, work.level.level)
    side, halo = windows.core + 2 * windows.halo, windows.halo
    expected = (len(pixels_BYXC), work.level.width, side, side)
    if tuple(map_BDtt.shape) != expected:
        raise LamellaError(
            work.name, f"its level {work.level.level} is {tuple(map_BDtt.shape)}, not {expected}", "Mend the backbone."
        )
    core_BKKD = map_BDtt[:, :, halo : side - halo, halo : side - halo].float().permute(0, 2, 3, 1).cpu().numpy()
    if not np.isfinite(core_BKKD).all():
        raise LamellaError(
            work.name, "it makes features that are not finite", "Give other weights; these may be damaged."
        )
    # Clipped: what is larger than half precision holds would become infinite.
    return core_BKKD.clip(-_LARGEST, _LARGEST)


class _RasterFile:
    """An .npy file that is written in pieces. Rows that nobody writes are holes, which take no room on disk.

    Not through a memory map: on a full disk that ends the process instead of raising an error.
    """

    def __init__(self, file: BinaryIO, windows: Windows, width: int) -> None:
        self._file, self._columns, self._width = file, windows.columns, width
        shape = (windows.rows, windows.columns, width)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        self._start = file.tell()
        file.truncate(self._start + 2 * int(np.prod(shape, dtype=np.int64)))

    def write(self, rows: slice, columns: slice, core_KKD: np.ndarray) -> None:
        half = core_KKD.astype("<f2")
        for row, line in zip(range(rows.start, rows.stop), half, strict=True):
            self._file.seek(self._start + 2 * self._width * (row * self._columns + columns.start))
            self._file.write(np.ascontiguousarray(line).tobytes())


class _Moments:
    """Mean and deviation of each feature over tissue, tokens weighted by their share of it."""

    def __init__(self, width: int) -> None:
        self._weight = 0.0
        self._mean, self._squares = np.zeros(width), np.zeros(width)

    def add(self, core_KKD: np.ndarray, shares_KK: np.ndarray) -> None:
        """Merged as Chan, Golub and LeVeque do (1983, Am Stat 37:242): nothing cancels where the mean is large."""
        weight = float(shares_KK.sum())
        if weight == 0:
            return
        tokens_ND, shares_N = core_KKD.reshape(-1, core_KKD.shape[-1]).astype(np.float64), shares_KK.reshape(-1)
        mean = shares_N @ tokens_ND / weight
        squares = shares_N @ (tokens_ND - mean) ** 2
        total, apart = self._weight + weight, mean - self._mean
        self._squares += squares + apart**2 * self._weight * weight / total
        self._mean += apart * weight / total
        self._weight = total

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        return self._mean, np.sqrt(self._squares / max(self._weight, 1e-12))  # without tissue, both are zero


def _check_room(folder: Path, need_bytes: int) -> None:
    """Refuse before hours of work what the disk cannot take.

    Raises:
        StorageError: There is less room than the raster needs.
    """
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if free < need_bytes:
        raise StorageError(
            folder,
            f"features of one scale need {need_bytes / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left",
            "Make room, set features.cache to another disk, or take larger tokens or a narrower encoder.",
        )
