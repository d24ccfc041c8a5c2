"""Generated slides with known answers: four tissue classes that differ in form only, two scanners in colour only.

A scanner turns the stain densities of generated tissue (see phantom_tissue.py) into light, with its own stain vectors,
white balance and gamma.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from lamella.formats.atomic import whole_file
from lamella.formats.tables import write_csv
from lamella.slides.phantom_tissue import CLASSES, GLASS, LABEL_STEP_PX0, MPP, Tissue, draw_tissue, smooth

__all__ = ["CLASSES", "LABEL_STEP_PX0", "MPP", "SCANNERS", "Scanner", "Tissue", "draw_tissue", "scan", "write_phantoms"]


@dataclass(frozen=True)
class Scanner:
    """How light, stain and sensor turn tissue into colours."""

    name: str
    haematoxylin: tuple[float, float, float]
    """Optical density per unit of stain in red, green and blue."""
    eosin: tuple[float, float, float]
    white: tuple[float, float, float]
    """The sensor's answer to glass, 0..1."""
    gamma: float


SCANNERS = (
    Scanner("aster", (0.65, 0.70, 0.29), (0.13, 0.78, 0.33), (0.950, 0.950, 0.965), 1.0),  # violet, cool glass
    Scanner("briar", (0.63, 0.77, 0.37), (0.10, 0.83, 0.43), (0.962, 0.950, 0.945), 0.95),  # rose, flatter, warm glass
)

# Stain amounts (haematoxylin, eosin) along the density scale: glass, pale and dense cytoplasm, nuclear rim, chromatin.
_DENSITY = (0.00, 0.10, 0.30, 0.52, 0.64, 0.82, 1.00)
_HAEMATOXYLIN = (0.00, 0.01, 0.05, 0.12, 0.45, 0.95, 1.45)
_EOSIN = (0.01, 0.08, 0.34, 0.62, 0.58, 0.42, 0.36)
# Steps of the colour table (densities, amounts of a stain) and the amounts' range: neighbours differ by about one grey
# value, and the table stays within a processor's cache.
_DENSITIES, _AMOUNTS, _LEAST, _MOST = 512, 24, 0.6, 1.5


def scan(tissue: Tissue, scanner: Scanner, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: the tissue as this scanner sees it (Beer-Lambert law, white balance, gamma).

    The seed varies both stains by up to a quarter, smoothly over some 120 um and between slides, as real sections do.
    """
    rng = np.random.default_rng([seed, 1])
    shape, scale_px = tissue.density.shape, 120 / MPP
    thickness = rng.uniform(0.92, 1.08) * (1 + 0.1 * smooth(rng, shape, scale_px))
    stains = [(thickness * (1 + 0.06 * smooth(rng, shape, scale_px))).clip(_LEAST, _MOST) for _ in range(2)]
    index = (tissue.density * (_DENSITIES - 1) + 0.5).astype(np.int32)
    for stain in stains:
        index *= _AMOUNTS
        index += ((stain - _LEAST) * ((_AMOUNTS - 1) / (_MOST - _LEAST)) + 0.5).astype(np.int32)
    return _colour_table(scanner)[index]


def write_phantom(tissue: Tissue, pixels: np.ndarray, slide_path: Path, mask_path: Path, label_path: Path) -> None:
    """Write a slide as a tiled JPEG pyramid with its spacing, and its tissue and label masks as PNG.

    Raises:
        StorageError: The disk refused a write.
    """
    with whole_file(slide_path) as part:
        _write_pyramid(part, pixels)
    half = LABEL_STEP_PX0 // 2
    labels = tissue.labels[half::LABEL_STEP_PX0, half::LABEL_STEP_PX0]
    for path, mask in ((label_path, labels), (mask_path, (labels > GLASS).astype(np.uint8) * 255)):
        with whole_file(path) as part:
            Image.fromarray(mask).save(part)


def write_phantoms(folder: Path, *, slides: int = 8, size_px: int = 3072, seed: int = 0, test_slides: int = 2) -> Path:
    """Write a small study: slides of two scanners, one patient each, with masks and a manifest.

    Scanners alternate, so that both occur in both splits. Slides that stand already are left alone: they are the same
    for the same arguments.

    Args:
        folder: Where to write `manifest.csv`, `slides/`, `masks/` and `labels/`.
        slides: Number of slides.
        size_px: Side of a slide in level-0 pixels, a multiple of `LABEL_STEP_PX0`.
        seed: Of the whole study.
        test_slides: How many of the slides, the last ones, have the split `test`; the others have `train`.

    Returns:
        The manifest's path. Its paths are relative to itself.
    """
    folder = Path(folder)
    rows = []
    for number in range(slides):
        scanner = SCANNERS[number % len(SCANNERS)]
        slide_id = f"phantom_{number:02d}_{scanner.name}"
        paths = (f"slides/{slide_id}.tif", f"masks/{slide_id}.png", f"labels/{slide_id}.png")
        if not all((folder / path).exists() for path in paths):
            slide_seed = seed * 1000 + number  # 1000: more slides than any generated study has
            tissue = draw_tissue(slide_seed, size_px)
            write_phantom(tissue, scan(tissue, scanner, slide_seed), *(folder / path for path in paths))
        split = "test" if number >= slides - test_slides else "train"
        rows.append((slide_id, paths[0], paths[1], f"patient_{number:02d}", scanner.name, split, paths[2]))
    names = ("slide_id", "wsi_path", "mask_path", "patient", "site", "split", "label_mask_path")
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        write_csv(manifest, [dict(zip(names, row, strict=True)) for row in rows], names)
    return manifest


@functools.lru_cache(maxsize=len(SCANNERS))
def _colour_table(scanner: Scanner) -> np.ndarray:
    """(densities * amounts * amounts, 3) uint8: the colour of a density at the two stains' relative amounts."""
    density = np.linspace(0, 1, _DENSITIES)[:, None, None, None]
    amount = np.linspace(_LEAST, _MOST, _AMOUNTS)
    haematoxylin = np.interp(density, _DENSITY, _HAEMATOXYLIN) * amount[:, None, None] * np.array(scanner.haematoxylin)
    eosin = np.interp(density, _DENSITY, _EOSIN) * amount[:, None] * np.array(scanner.eosin)
    light = np.array(scanner.white) * np.exp(-haematoxylin - eosin) ** scanner.gamma
    return (255 * light + 0.5).astype(np.uint8).reshape(-1, 3)


def _write_pyramid(path: Path, pixels: np.ndarray) -> None:
    """A tiled JPEG TIFF pyramid, each level half of the one before, down to one that fits into 1024 px."""
    image = Image.fromarray(pixels)
    with tifffile.TiffWriter(path) as writer:
        for level in range(3):  # 0.5, 1 and 2 um a pixel: the spacings that profiles ask for
            if level:
                image = image.reduce(2)
            per_cm = 1e4 / (MPP * 2**level)
            writer.write(
                np.asarray(image),
                tile=(256, 256),
                photometric="rgb",  # stored as YCbCr, as JPEG wants it
                compression="jpeg",
                subsampling=(1, 1),
                # Full colour at the highest quality. At 95 the compression's own noise already tells the classes
                # apart by their colour histograms (a probe rises from 0.36 to 0.77): it follows the edges, hence form.
                compressionargs={"level": 100},
                subfiletype=1 if level else 0,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
