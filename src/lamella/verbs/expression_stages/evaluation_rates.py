"""The rates that a generated slide was drawn from: the best that any model of it could predict.

Shapes: N judged places, P places of the file, G genes.
"""

from __future__ import annotations

import functools
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lamella.data.expression import ExpressionSlide, Fold
from lamella.errors import first_line
from lamella.formats.spatial_counts import ExpressionError
from lamella.verbs.expression_stages.evaluation_truth import Truths

RATES_FILE = "true_rates.npz"
# Targets that are functions of one count: of the others the expected value needs all genes of a place.
_OF_ONE_COUNT = ("counts", "log1p")


def has_rates(truths: Truths, slide: ExpressionSlide) -> bool:
    """Whether the generator left rates of a slide from which the study's target can be told."""
    return truths.target in _OF_ONE_COUNT and rates_path(slide.expression_path) is not None


def true_rates(truths: Truths, fold: Fold, slide: ExpressionSlide) -> np.ndarray:
    """(N, G) float32 expected counts, or log1p of them where that is the target, of a slide that has rates.

    Raises:
        ExpressionError: There are none, or the file is damaged, or lacks a gene or a judged place.
    """
    path = rates_path(slide.expression_path)
    if path is None:
        raise ExpressionError(slide.slide_id, f"it has no {RATES_FILE}", "Only generated slides have one.")
    file, samples = _read(path), truths.samples(slide, fold)
    position = {gene: number for number, gene in enumerate(file["genes"].tolist())}
    absent = [gene for gene in samples.genes if gene not in position]
    if absent:
        raise ExpressionError(
            path, f"it lacks genes of the panel: {', '.join(absent[:5])}", "Generate the slide again."
        )
    columns = [position[gene] for gene in samples.genes]
    places = samples.places()
    if places.rc is not None:
        found = _of_bins(file, columns, places.rc, round(samples.size_um / slide_bin_um(file)))
    else:
        found = _of_spots(path, file, columns, slide.counts.barcodes[truths.rows_of(slide)])
    return np.log1p(found) if truths.target == "log1p" else found


def rates_path(expression: Path | None) -> Path | None:
    """The file beside or in what a slide's expression was read from; None where there is none."""
    if expression is None:
        return None
    stem = expression.name.removesuffix("_spots.csv")
    beside = (expression / RATES_FILE, expression.with_name(f"{stem}_{RATES_FILE}"))
    return next((path for path in beside if path.is_file()), None)


def slide_bin_um(file: dict[str, np.ndarray]) -> float:
    """Side of the bins whose rates these are."""
    return float(file["bin_um"]) if "bin_um" in file else 2.0  # the finest of Visium HD


@functools.lru_cache(maxsize=1)
def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ExpressionError(path, f"it cannot be read ({first_line(error)})", "Generate the slide again.") from error


def _of_bins(file: dict[str, np.ndarray], columns: list[int], rc_N2: np.ndarray, factor: int) -> np.ndarray:
    """Sums of the file's bins in each judged bin; bins that the file does not hold express nothing."""
    rows, cols = file["rows"] // factor, file["cols"] // factor
    height, width = int(max(rows.max(), rc_N2[:, 0].max())) + 1, int(max(cols.max(), rc_N2[:, 1].max())) + 1
    wanted = np.full(height * width, -1, np.int64)
    wanted[rc_N2[:, 0].astype(np.int64) * width + rc_N2[:, 1]] = np.arange(len(rc_N2))
    at = wanted[rows.astype(np.int64) * width + cols]
    inside = at >= 0
    found = np.empty((len(rc_N2), len(columns)), np.float32)
    for number, column in enumerate(columns):
        found[:, number] = np.bincount(at[inside], file["expected"][inside, column], minlength=len(rc_N2))
    return found


def _of_spots(path: Path, file: dict[str, np.ndarray], columns: list[int], barcodes_N: np.ndarray) -> np.ndarray:
    row_of = {_text(barcode): number for number, barcode in enumerate(file["barcodes"])}
    absent = [_text(barcode) for barcode in barcodes_N if _text(barcode) not in row_of]
    if absent:
        raise ExpressionError(
            path, f"it lacks {len(absent)} judged spots: {', '.join(absent[:5])}", "Generate it again."
        )
    found: np.ndarray = file["expected"][[row_of[_text(barcode)] for barcode in barcodes_N]][:, columns]
    return found.astype(np.float32)


def _text(barcode: bytes | str) -> str:
    return barcode.decode() if isinstance(barcode, bytes) else str(barcode)
