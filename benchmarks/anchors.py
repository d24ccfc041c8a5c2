"""The anchor catalogue of a 100,000 x 100,000 px slide against plain window-by-window reads of its mask.

Two peers, as tools do it: one reads the window of every context from the mask's file (tiled TIFF, OpenSlide, opened
once) and takes its mean; one holds the mask in memory and crops. The whole catalogue also proves that four targets fit
into every context (529 candidate windows each); for that the peer crops, timed on a sample of the contexts and scaled.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import tifffile

from lamella.geometry import Frame
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.anchors.cataloguing import build_catalogue, grid_candidates
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import context_corners_um, grid_placement, target_grid
from lamella.slides.index import IndexedSlide, SlideIndex, write_slides
from lamella.slides.tissue_map import TissueMap

SIDE_PX0, MPP = 100_000, 0.25
MASK_PX = 3125  # 8 um per pixel
SAMPLED = 60  # contexts whose target windows the peer reads one by one


def main() -> None:
    sampling = CrossSampling()
    with tempfile.TemporaryDirectory() as folder:
        index = generated_index(Path(folder) / "index")
        slide = index.slides[0]
        tissue = slide.tissue()
        ours_s, ours_fractions = timed(lambda: our_fractions(slide, tissue.mask, sampling))
        peer_s, peer_fractions = timed(lambda: peer_context_fractions(slide, tissue.mask, sampling))
        np.testing.assert_allclose(ours_fractions, peer_fractions, atol=0.05)  # the peer rounds windows to whole pixels
        read_s, read_fractions = timed(lambda: read_context_fractions(slide, sampling))
        np.testing.assert_allclose(read_fractions, peer_fractions, atol=1e-6)
        report("context fractions, windows read from the file", ours_s, read_s, len(ours_fractions), "contexts")
        # No claim: a few thousand windows cost about as much as the integral image that the targets need anyway.
        report("context fractions, windows cropped in memory", ours_s, peer_s, len(ours_fractions), "contexts")
        whole_s, _ = timed(lambda: build_catalogue(index, sampling, Path(folder) / "anchors"))
        catalogue = Catalogue.load(Path(folder) / "anchors")
        enough = np.flatnonzero(peer_fractions >= sampling.min_tissue_fraction)
        sample = enough[:: max(1, len(enough) // SAMPLED)]
        sample_s, _ = timed(lambda: peer_targets(slide, tissue.mask, sampling, sample))
        plain_s = peer_s + sample_s * len(enough) / len(sample)
        report("catalogue with targets proven to fit", whole_s, plain_s, len(catalogue), "anchors")


def generated_index(folder: Path) -> SlideIndex:
    """One slide of 25 mm with tissue on about half of it, known by its mask (a tiled TIFF)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    coarse = rng.random((25, 25)) < 0.5
    mask = np.kron(coarse, np.ones((MASK_PX // 25, MASK_PX // 25), bool))
    mask &= rng.random(mask.shape) < 0.95  # pores, so that no window is trivially full
    tifffile.imwrite(folder / "mask.tif", 255 * mask.astype(np.uint8), tile=(512, 512), compression="zlib")
    frame = Frame(SIDE_PX0, SIDE_PX0, MPP, MPP)
    slide = IndexedSlide("big", folder / "big.tif", folder / "mask.tif", frame, frame.resized(MASK_PX, MASK_PX))
    write_slides(folder, [slide], {})
    return SlideIndex.load(folder)


def our_fractions(slide: IndexedSlide, mask: np.ndarray, sampling: CrossSampling) -> np.ndarray:
    tissue = TissueMap(mask, slide.mask_frame)  # a new one: building its integral image is part of the time
    return np.concatenate([tissue.fractions(boxes) for boxes in context_boxes_um(slide, sampling)])


def peer_context_fractions(slide: IndexedSlide, mask: np.ndarray, sampling: CrossSampling) -> np.ndarray:
    return np.array([mask[window].mean() for window in context_windows(slide, sampling)])


def read_context_fractions(slide: IndexedSlide, sampling: CrossSampling) -> np.ndarray:
    """The plain way: one read of the mask's file per context."""
    with openslide.OpenSlide(slide.mask_path) as mask:
        fractions = []
        for rows, columns in context_windows(slide, sampling):
            size = (columns.stop - columns.start, rows.stop - rows.start)
            window = mask.read_region((columns.start, rows.start), 0, size)
            fractions.append((np.asarray(window)[..., 0] > 0).mean())
    return np.array(fractions)


def peer_targets(slide: IndexedSlide, mask: np.ndarray, sampling: CrossSampling, sample: np.ndarray) -> int:
    grid = target_grid(sampling)
    boxes = np.concatenate(list(context_boxes_um(slide, sampling)))[sample]
    side, fitting = sampling.target_fov_um, 0
    for x0, y0, _, _ in boxes:
        fractions = np.array(
            [mask[pixels(y0 + y, side), pixels(x0 + x, side)].mean() for y in grid.axis_um for x in grid.axis_um]
        )
        for threshold in sampling.thresholds:
            if (grid_placement(fractions[None], threshold, grid, sampling.targets_per_context) >= 0).all():
                fitting += 1
                break
    return fitting


def context_boxes_um(slide: IndexedSlide, sampling: CrossSampling) -> Iterator[np.ndarray]:
    for candidates in grid_candidates(slide, sampling):
        corners = context_corners_um(candidates.centers_px0, slide.mpp_stated, sampling)
        yield np.concatenate([corners, corners + sampling.context_fov_um], axis=1)


def context_windows(slide: IndexedSlide, sampling: CrossSampling) -> Iterator[tuple[slice, slice]]:
    for boxes in context_boxes_um(slide, sampling):
        for x0, y0, _, _ in boxes:
            yield pixels(y0, sampling.context_fov_um), pixels(x0, sampling.context_fov_um)


def pixels(start_um: float, side_um: float) -> slice:
    start = round(start_um / 8)
    return slice(start, start + round(side_um / 8))


def timed(work):
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def report(name: str, ours_s: float, peer_s: float, n: int, unit: str) -> None:
    print(f"{name}, ours {ours_s:.3f} s, peer {peer_s:.3f} s, ratio {peer_s / ours_s:.1f}, n {n} {unit}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
