"""Samples per second of one worker: a context and four targets, against reading the five views the plain way.

Ours: `CrossSamples.sample` with cached slide handles: order, placement, footprint and pixels. The peer gets the same
boxes for nothing, opens the slide with OpenSlide for every sample, reads the best level and resizes with PIL where the
pixel counts differ: never at 0.5 um per pixel, where the pyramid has the asked spacings, always at 0.252 (a usual 40x
scanner). Neither augments; what augmentation costs is printed beside.

    python benchmarks/samples.py [slide ...]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker is one core

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openslide
import tifffile
from PIL import Image

from lamella.data.augment import StainSettings
from lamella.data.cross import CrossDataSettings, CrossPlace, CrossSamples
from lamella.geometry import Box
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.anchors.cataloguing import build_catalogue
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import SlideIndex
from lamella.slides.indexing import build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings

REAL_SLIDE = Path(__file__).parents[2] / "shared/data/slides/TCGA-AA-3562-region.tif"
PLAIN = CrossDataSettings(batch_size=1, workers=0, flips=False, stain=StainSettings(enabled=False))
AUGMENTED = CrossDataSettings(batch_size=1, workers=0)


def write_slide(path: Path, mpp: float, side_px: int = 8192) -> Path:
    """A pyramid of JPEG tiles of 256 px at quality 80, textured like tissue at several scales."""
    rng = np.random.default_rng(0)
    pixels = np.full((side_px, side_px, 3), (200, 150, 190), np.int16)
    for grain_px in (4, 32, 256):
        noise = rng.integers(-35, 35, (side_px // grain_px, side_px // grain_px, 3)).astype(np.int8)
        channels = [Image.fromarray(noise[..., c].view(np.uint8) ^ 128) for c in range(3)]
        grown = [np.asarray(c.resize((side_px, side_px), Image.Resampling.BICUBIC)).astype(np.int16) for c in channels]
        pixels += np.stack(grown, -1) - 128
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    with tifffile.TiffWriter(path) as writer:
        for level in range(5):
            writer.write(
                np.asarray(image.reduce(2**level)) if level else np.asarray(image),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                subfiletype=1 if level else 0,
                resolution=(1e4 / (mpp * 2**level),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def catalogue_of(slide: Path, folder: Path) -> Catalogue:
    build_index(find_slides([slide]), folder / "index", TissueSettings(), {})
    build_catalogue(SlideIndex.load(folder / "index"), CrossSampling(), folder / "anchors")
    return Catalogue.load(folder / "anchors")


def read_plainly(path: Path, mpp: float, place: CrossPlace) -> list[np.ndarray]:
    """The five views with a fresh OpenSlide handle and PIL."""
    sampling = place.sampling
    views = [(place.context_px0, sampling.context_output_mpp, sampling.context_px)]
    views += [(box, sampling.target_output_mpp, sampling.target_px) for box in place.targets_px0]
    with openslide.OpenSlide(path) as slide:
        return [_plain_view(slide, box_px0, view_mpp / mpp, side_px) for box_px0, view_mpp, side_px in views]


def _plain_view(slide: openslide.OpenSlide, box_px0: Box, downsample: float, side_px: int) -> np.ndarray:
    level = slide.get_best_level_for_downsample(downsample * 1.05)  # 5 %: the profile's spacing tolerance
    level_px = round(box_px0.width / slide.level_downsamples[level])
    view = slide.read_region((round(box_px0.x0), round(box_px0.y0)), level, (level_px, level_px)).convert("RGB")
    return np.asarray(view if level_px == side_px else view.resize((side_px, side_px), Image.Resampling.BILINEAR))


def seconds(work: Callable[[int], object], positions: Sequence[int]) -> float:
    start = time.perf_counter()
    for position in positions:
        work(position)
    return time.perf_counter() - start


def compare(slide: Path, n: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalogue = catalogue_of(slide, Path(folder))
        plain, augmented = (CrossSamples(catalogue, settings, 0) for settings in (PLAIN, AUGMENTED))
        mpp = next(iter(catalogue.index)).frame.mpp
        places = [plain.place(position) for position in range(n * rounds)]

        def peer(position: int) -> list[np.ndarray]:
            return read_plainly(slide, mpp, places[position])

        times: dict[str, list[float]] = {"ours": [], "peer": [], "augmented": []}
        for turn in range(rounds):  # fresh positions each round, the three in turn
            positions = range(turn * n, (turn + 1) * n)
            for name, work in (("ours", plain.sample), ("peer", peer), ("augmented", augmented.sample)):
                times[name].append(seconds(work, positions) / n)
    ours, peer_s, full = (1 / statistics.median(times[name]) for name in ("ours", "peer", "augmented"))
    print(f"samples {slide.name}, {ours:.1f}/s, {peer_s:.1f}/s, {ours / peer_s:.2f}x, n={n * rounds}")
    print(f"samples + stain + flips {slide.name}, {full:.1f}/s, {peer_s:.1f}/s, {full / peer_s:.2f}x, n={n * rounds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*", type=Path, help="slides with mpp; default: two generated, one real")
    parser.add_argument("-n", type=int, default=40, help="samples per round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("name, ours, peer, ratio, n")
    with tempfile.TemporaryDirectory() as folder:
        slides = arguments.slides or [write_slide(Path(folder) / f"generated_{mpp}.tif", mpp) for mpp in (0.5, 0.252)]
        if not arguments.slides and REAL_SLIDE.exists():
            slides.append(REAL_SLIDE)
        for slide in slides:
            compare(slide, arguments.n, arguments.rounds)


if __name__ == "__main__":
    main()
