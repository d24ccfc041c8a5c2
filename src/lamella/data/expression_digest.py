"""What a study of expression holds, as a short text: outputs of a stage can tell whether slides or settings changed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamella.data.expression import ExpressionSlide, ExpressionStudy
from lamella.formats.digests import ends_digest, file_digest, value_digest
from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.spot_tables import spot_source

TABLE_SUFFIXES = (".csv", ".tsv", ".npz", ".gz", ".json")
"""Of tables of spots."""
# Files that expression is read from; a run's folder holds reports and images of gigabytes beside them.
_READ = (*TABLE_SUFFIXES, ".h5", ".h5ad", ".parquet", ".npy", ".mtx", ".txt")


def study_digest(study: ExpressionStudy, slides: Sequence[ExpressionSlide] | None = None) -> str:
    """16 hex digits of slides: images, expression, masks, spacings, patients, bins; not of where they lie.

    Args:
        study: What the slides are of.
        slides: Which; None: all.
    """
    chosen = study.slides if slides is None else slides
    return value_digest(
        {
            "kind": study.kind,
            "bin_um": study.bin_um,
            "tile_bins": study.tile_bins,
            "slides": [[slide.slide_id, slide.patient, *_image(slide), _expression(slide)] for slide in chosen],
        }
    )


def slide_digest(slide: ExpressionSlide) -> str:
    """16 hex digits of a slide's image, mask and spacing: what features are made from."""
    return value_digest(_image(slide))


def _image(slide: ExpressionSlide) -> list[Any]:
    mask = None if slide.mask_path is None else [file_digest(slide.mask_path), slide.mask_mpp]
    return [ends_digest(slide.wsi_path), list(slide.mpp_stated), mask]


def _expression(slide: ExpressionSlide) -> str | None:
    return None if slide.expression_path is None else path_digest(slide.expression_path)


def path_digest(path: Path) -> str:
    """16 hex digits of the ends of what expression is read from: a file and those that belong to it, or a folder.

    Files are told apart by their place in the folder, not by the slide's name in theirs: a renamed copy is the same.
    """
    if path.is_dir():
        whole = path.suffix == ".zarr"  # its chunks have no suffix
        files = sorted(file for file in path.rglob("*") if file.is_file() and (whole or file.suffix in _READ))
        return value_digest([[str(file.relative_to(path)), _kept(file)] for file in files])
    return value_digest([_kept(file) for file in _parts(path)])


def _parts(path: Path) -> list[Path]:
    """A file and those that it is read with: a table of spots has counts and genes in others."""
    if path.suffix not in TABLE_SUFFIXES:
        return [path]
    try:
        source = spot_source(path)
    except ExpressionError:  # it is told, in the same words, when expression is read
        return [path]
    named = (source.spots, source.counts, source.genes)
    return [file for file in named if file is not None and file.is_file()] or [path]


def _kept(path: Path) -> str:
    return _ends(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _ends(path: Path, changed_ns: int) -> str:
    """Kept by this process until the file changes: each stage asks."""
    return ends_digest(path)
