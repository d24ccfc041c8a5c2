"""Which genes are predicted. They are chosen on training patients only.

Mistake of the source: genes were chosen on all patients, the judged one included.

Variability given the mean is that of Seurat's "vst" (Stuart et al., "Comprehensive integration of single-cell data",
2019; scanpy's `seurat_v3`): counts are standardised by the deviation that genes of their mean have, clipped, and the
variance of that is what ranks genes. It needs raw counts, where zeros are most of what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from lamella.config import Settings
from lamella.data.expression import ExpressionSlide, Target
from lamella.data.expression_targets import check_counts, target_values
from lamella.data.local_regression import local_quadratic
from lamella.errors import DatasetError
from lamella.formats.spatial_counts import SpatialCounts
from lamella.imaging.datasets.problems import named


class PanelSettings(Settings):
    """The panel."""

    genes: Path | tuple[str, ...] | None = None
    """A list of names, or a text file with one name a line; null chooses."""
    choose: Literal["variable", "variance", "mean", "all"] = "variable"
    """variable: the most variable counts of the training patients, given their mean. variance: the highest variance of
    `variance_of`. mean: the highest mean."""
    variance_of: Target = "log1p"
    """What the variance is of, with `choose=variance`; see data.target."""
    number: Annotated[int, Field(ge=1)] = 50
    """How many are chosen."""
    min_places: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least share of the places of the training slides in which a chosen gene is seen at all."""


# Seurat's own: the share of the genes that a local fit looks at.
_SPAN = 0.3


def choose_panel(slides: Sequence[ExpressionSlide], settings: PanelSettings) -> tuple[str, ...]:
    """The genes of a fold.

    Stated genes come in their own order, chosen ones best first. Slides count alike, whatever their size: what ranks a
    gene is the mean over slides of its (standardised) variance within the slide, or of its mean count. Genes without a
    count on the training slides are never chosen, and neither are genes that some of these slides did not measure.

    Args:
        slides: The training slides, and no others.
        settings: The panel.

    Raises:
        DatasetError: There are no slides, a stated gene is on none or not all of them, or is stated twice, the list
            cannot be read, or too few genes have counts.
    """
    if not slides:
        raise DatasetError("panel", "there are no training slides to choose genes on", "Give more patients.")
    if settings.genes is not None:
        return _stated(settings.genes, slides)
    return panel_of([slide.counts for slide in slides], settings)


def panel_of(counts: Sequence[SpatialCounts], settings: PanelSettings) -> tuple[str, ...]:
    """The chosen genes of some slides' counts; see `choose_panel`."""
    common = set(counts[0].genes).intersection(*(one.genes for one in counts[1:]))
    genes = [gene for gene in counts[0].genes if gene in common]
    tables = [one if one.genes == tuple(genes) else one.of_genes(genes) for one in counts]
    seen = np.array([_places_with(table.counts) for table in tables]).sum(axis=0)
    places = sum(map(len, tables))
    able = np.flatnonzero((seen > 0) & (seen >= settings.min_places * places))
    wanted = len(able) if settings.choose == "all" else settings.number
    if len(able) < wanted or not len(able):
        raise DatasetError(
            "panel",
            f"{wanted} genes are wanted, and {len(able)} of {len(genes)} that all {len(counts)} training slides "
            f"measured have counts in at least {settings.min_places:.2%} of the places",
            "Set a smaller panel.number or panel.min_places.",
        )
    if settings.choose == "all":
        return tuple(genes[column] for column in able)
    score = np.mean([_score(table, settings)[able] for table in tables], axis=0)
    best = able[np.argsort(-score, kind="stable")[:wanted]]
    return tuple(genes[column] for column in best)


def _score(counts: SpatialCounts, settings: PanelSettings) -> np.ndarray:
    """(G,) float64: what ranks the genes of one slide."""
    if settings.choose == "mean":
        return gene_means(counts.counts)
    if settings.choose == "variance":
        return gene_variance(target_values(counts, counts.genes, settings.variance_of))
    check_counts(counts, "counts")
    return standardised_variance(counts.counts)


def _places_with(table: sparse.csr_array) -> np.ndarray:
    """(G,) places in which each gene is not zero."""
    return np.bincount(table.indices, table.data != 0, table.shape[1])


def gene_means(table: sparse.csr_array) -> np.ndarray:
    """(G,) float64 mean over all places."""
    return np.asarray(table.sum(axis=0, dtype=np.float64)).reshape(-1) / table.shape[0]


def gene_variance(table: sparse.csr_array) -> np.ndarray:
    """(G,) float64 sample variance over all places, zeros too; exactly 0 where all are equal."""
    places, genes = table.shape
    mean, present = gene_means(table), np.bincount(table.indices, minlength=genes)
    away = np.bincount(table.indices, (table.data - mean[table.indices]) ** 2, genes)
    return (away + (places - present) * mean**2) / max(1, places - 1)


def standardised_variance(table: sparse.csr_array) -> np.ndarray:
    """(G,) float64: variance of the counts, standardised by what genes of their mean have, and clipped.

    As scanpy's `seurat_v3`: log10 of the variance over log10 of the mean is fitted by local quadratics; counts are cut
    at mean + deviation * sqrt(N); genes that do not vary have 0.
    """
    places, genes = table.shape
    values = table.data.astype(np.float64)
    mean, variance = gene_means(table), gene_variance(table)
    varies = variance > 0
    score = np.zeros(genes)
    if not varies.any():
        return score
    fitted = np.zeros(genes)
    fitted[varies] = local_quadratic(np.log10(mean[varies]), np.log10(variance[varies]), _SPAN)
    deviation = np.sqrt(10**fitted)
    cut = np.minimum(values, (mean + deviation * np.sqrt(places))[table.indices])
    sums, squares = np.bincount(table.indices, cut, genes), np.bincount(table.indices, cut**2, genes)
    # The sum over all places of (cut - mean)^2; zeros are places too.
    spread = squares - 2 * mean * sums + places * mean**2
    score[varies] = (spread / ((places - 1) * deviation**2))[varies]
    return score


def _stated(genes: Path | tuple[str, ...], slides: Sequence[ExpressionSlide]) -> tuple[str, ...]:
    thing = "panel.genes" if not isinstance(genes, Path) else genes
    names = _listed(genes) if isinstance(genes, Path) else tuple(genes)
    if not names:
        raise DatasetError(thing, "it names no gene", "Write one name a line.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(thing, f"{named(twice)} stand there twice", "Name each gene once.")
    for slide in slides:
        absent = sorted(set(names) - set(slide.counts.genes))
        if absent:
            raise DatasetError(
                thing,
                f"{len(absent)} of its {len(names)} genes are not measured on slide {slide.slide_id}: {named(absent)}",
                "Take them off the list, or give slides on which they were measured.",
            )
    return names


def _listed(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(path, f"the list of genes cannot be read ({error})", "Correct panel.genes.") from error
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
