"""`lamella convert EXPRESSION -o OUT to=expression`: measured expression between the layouts that others use.

The source is one slide's expression (whatever `formats/expression_source.py` reads) or a manifest with the columns
slide_id, wsi_path, expression_path and, where images do not state it, mpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from lamella.data.expression_study import load_expression
from lamella.errors import LamellaError, MissingExtraError, StorageError
from lamella.formats.expression_anndata import write_expression_anndata
from lamella.formats.expression_source import read_expression
from lamella.formats.expression_spatialdata import write_expression_spatialdata
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.tables import read_csv
from lamella.formats.tiled_labels import write_tiled_labels
from lamella.formats.tiled_pictures import write_tile_pictures
from lamella.geometry import Box
from lamella.slides.manifest import find_slides
from lamella.slides.slide import Slide, open_slide
from lamella.verbs.progress import progress

ExpressionTarget = Literal["expression", "spatialdata", "patches"]
EXPRESSION_TARGETS: tuple[ExpressionTarget, ...] = get_args(ExpressionTarget)

READERS = {
    "expression": "anndata, scanpy and squidpy",
    "spatialdata": "spatialdata",
    "patches": "programs that read patch_XXX_YYY.npy",
}
# Tiles of labels are dense: with 2000 genes one of 128 x 128 bins has 131 MB.
_MOST_GENES = 2000


@dataclass(frozen=True)
class ExpressionJob:
    """One slide of the source."""

    name: str
    path: Path
    wsi_path: Path | None = None
    mpp: tuple[float, float] | None = None


@dataclass(frozen=True)
class Wanted:
    """What to write.

    Attributes:
        to: The layout.
        bin_um: Side of the bins; None: the source's finest.
        genes: Only these; all, if None.
        mpp: Micrometres per pixel of the full-resolution image, where nothing else says it.
        scales_um: Micrometres per pixel of the pictures beside the patches.
    """

    to: ExpressionTarget
    bin_um: float | None
    genes: tuple[str, ...] | None
    mpp: float | None
    scales_um: tuple[float, ...]


def expression_jobs(source: Path) -> list[ExpressionJob]:
    """The slides of the source.

    Raises:
        ManifestError: The manifest cannot be used.
    """
    if source.suffix == ".csv" and source.is_file() and "expression_path" in next(iter(read_csv(source)), {}):
        return [
            ExpressionJob(row.slide_id, Path(row.metadata["expression_path"]), row.wsi_path, row.mpp)
            for row in find_slides([source])
        ]
    return [ExpressionJob("", source)]


def convert_expression(
    jobs: Sequence[ExpressionJob], out: Path, wanted: Wanted
) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Write every slide; one that fails is listed and the others go on.

    Returns:
        Places of each finished slide, and the rows of failed.csv.
    """
    counts: dict[str, int] = {}
    failed: list[dict[str, str]] = []
    for job in progress(jobs, "convert"):
        try:
            read = _read(job, wanted)
            for note in read.notes:
                print(f"{read.name}: {note}", flush=True)
            _WRITERS[wanted.to](out, read, job, wanted)
            counts[read.name] = len(read)
        except (StorageError, MissingExtraError):  # no slide is at fault: the next would fail too
            raise
        except (LamellaError, OSError) as error:
            failed.append({"slide_id": job.name or job.path.stem, "path": str(job.path), "error": str(error)})
    return counts, failed


def _read(job: ExpressionJob, wanted: Wanted) -> SpatialCounts:
    mpp = job.mpp or (None if wanted.mpp is None else (wanted.mpp, wanted.mpp))
    if mpp is None and job.wsi_path is not None:
        with open_slide(job.wsi_path) as slide:
            mpp = slide.frame.mpp_x, slide.frame.mpp_y
    read = read_expression(job.path, mpp=mpp, bin_um=wanted.bin_um, name=job.name or None)
    if wanted.bin_um is not None and read.shape == "bin" and read.size_um != wanted.bin_um:
        read = load_expression(job.path, mpp or (read.mpp, read.mpp), wanted.bin_um, read.name)
    return read if wanted.genes is None else read.of_genes(wanted.genes)


def _to_h5ad(out: Path, read: SpatialCounts, job: ExpressionJob, wanted: Wanted) -> None:
    write_expression_anndata(out / f"{read.name}.h5ad", read)


def _to_spatialdata(out: Path, read: SpatialCounts, job: ExpressionJob, wanted: Wanted) -> None:
    path = out / f"{read.name}.zarr"
    if not path.exists():  # the library writes no store over another
        write_expression_spatialdata(path, read)


def _to_patches(out: Path, read: SpatialCounts, job: ExpressionJob, wanted: Wanted) -> None:
    if len(read.genes) > _MOST_GENES:
        raise ExpressionError(
            read.source,
            f"{len(read.genes)} genes are too many for labels that are dense",
            f"Choose at most {_MOST_GENES} with genes=FILE, one name a line.",
        )
    tiles = write_tiled_labels(out / f"{read.name}_precomputed_labels_v2", read)
    if job.wsi_path is None or read.grid is None:
        return
    with open_slide(job.wsi_path, mpp=job.mpp) as slide:
        sample = SlideSampler(slide)
        write_tile_pictures(out / "multiscale" / read.name, tiles, read.grid, sample, scales_um=wanted.scales_um)


_WRITERS: dict[ExpressionTarget, Callable[[Path, SpatialCounts, ExpressionJob, Wanted], None]] = {
    "expression": _to_h5ad,
    "spatialdata": _to_spatialdata,
    "patches": _to_patches,
}


class SlideSampler:
    """Reads a slide at any places: area-averaged to the asked spacing, then bilinear between its pixels."""

    def __init__(self, slide: Slide) -> None:
        self.slide = slide

    def __call__(self, x_px0: np.ndarray, y_px0: np.ndarray, um_per_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Pixels at places.

        Args:
            x_px0: (H, W) in level-0 pixels.
            y_px0: (H, W) likewise.
            um_per_px: Between them.

        Returns:
            (H, W, 3) uint8, and (H, W) bool: whether a place lies on the slide.
        """
        frame = self.slide.frame
        seen = (x_px0 >= 0) & (x_px0 < frame.width_px) & (y_px0 >= 0) & (y_px0 < frame.height_px)
        pixels = np.zeros((*x_px0.shape, 3), np.uint8)
        if not seen.any():
            return pixels, seen
        margin = um_per_px / frame.mpp  # one pixel of the output, for interpolation at the edge
        box = Box(
            x_px0[seen].min() - margin,
            y_px0[seen].min() - margin,
            x_px0[seen].max() + margin,
            y_px0[seen].max() + margin,
        ).intersection(frame.bounds_px)
        read = self.slide.read(box, um_per_px).pixels
        places = np.stack(
            [
                (y_px0[seen] - box.y0) / box.height * read.shape[0] - 0.5,
                (x_px0[seen] - box.x0) / box.width * read.shape[1] - 0.5,
            ]
        )
        for channel in range(3):
            values = ndimage.map_coordinates(read[..., channel].astype(np.float32), places, order=1, mode="nearest")
            pixels[seen, channel] = np.rint(values).astype(np.uint8)
        return pixels, seen


def listed_genes(genes: Path | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The genes of a list, or of a file with one name a line.

    Raises:
        LamellaError: The file cannot be read, or names none.
    """
    if not isinstance(genes, Path):
        return genes
    try:
        names = tuple(_lines(genes))
    except (OSError, UnicodeDecodeError) as error:
        raise LamellaError(
            genes, "it cannot be read as a list of genes", "Give a text file, one name a line."
        ) from error
    if not names:
        raise LamellaError(genes, "it names no gene", "Write one name a line.")
    return names


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield line.strip()
