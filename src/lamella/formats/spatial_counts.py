"""Expression of genes at places of one slide, as every reader gives it and every writer takes it.

Shapes: N places (bins or spots), G genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import sparse

from lamella.errors import LamellaError
from lamella.geometry import BinGrid

Shape = Literal["bin", "spot"]


class ExpressionError(LamellaError):
    """Expression data cannot be used as they are; nothing of them is dropped."""


@dataclass(frozen=True)
class SpatialCounts:
    """The counts of one slide.

    Attributes:
        name: Of the slide.
        source: File or folder that they came from, for messages.
        counts: (N, G) sparse, in rows (CSR). Whole numbers as int32 where the file has counts; else float32.
        genes: G names, unique.
        places_px0: (N, 2) float64, x and y of the centres in pixels of the full-resolution image (level 0).
        shape: Squares (`bin`) or disks (`spot`).
        size_um: Side of a bin, or diameter of a spot.
        mpp: Micrometres per pixel of the full-resolution image.
        barcodes: (N,) names of the places, unique, as bytes (`S`), a quarter of the memory of text; see `names`.
        array_rc: (N, 2) int32 row and column on the chip; None where there is no lattice.
        grid: The lattice that bins lie on, fitted to the places; None for spots.
        flagged: (N,) bool, the vendor's `in_tissue`. Kept, and never used as the tissue mask.
        gene_ids: G stable ids (Ensembl), or empty.
        captured_rc: First row, first column, and the row and column behind the last ones that the chip has, measured
            or not; None where the file does not say. Outside it there is no bin.
        all_measured: Whether every place of the chip was counted. A filtered matrix has no counts where the vendor saw
            no tissue: nothing is known there, which is not zero.
        notes: What the reader did that one must know (genes renamed, features left aside).
    """

    name: str
    source: Path
    counts: sparse.csr_array
    genes: tuple[str, ...]
    places_px0: np.ndarray
    shape: Shape
    size_um: float
    mpp: float
    barcodes: np.ndarray
    array_rc: np.ndarray | None = None
    grid: BinGrid | None = None
    flagged: np.ndarray | None = None
    gene_ids: tuple[str, ...] = field(default=())
    captured_rc: tuple[int, int, int, int] | None = None
    all_measured: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        places, genes = self.counts.shape
        if len(self.genes) != genes or len(self.places_px0) != places or len(self.barcodes) != places:
            raise ExpressionError(
                self.source,
                f"counts are {places} places x {genes} genes, but there are {len(self.places_px0)} positions, "
                f"{len(self.barcodes)} barcodes and {len(self.genes)} gene names",
                "Give the matrix and the positions of the same run.",
            )

    def __len__(self) -> int:
        """Places."""
        return int(self.counts.shape[0])

    @property
    def names(self) -> list[str]:
        """The barcodes as text."""
        return [name.decode() for name in self.barcodes.tolist()]

    @property
    def are_counts(self) -> bool:
        """Whether all values are whole and none is negative."""
        values = self.counts.data
        if values.dtype.kind in "iu":
            return not len(values) or bool(values.min() >= 0)
        return bool(np.all(values >= 0) and np.all(values == np.floor(values)))

    @property
    def zero_share(self) -> float:
        """Share of the entries that are zero."""
        places, genes = self.counts.shape
        return float(1 - self.counts.count_nonzero() / max(1, places * genes))

    def of_genes(self, genes: Sequence[str]) -> SpatialCounts:
        """The columns of these genes, in this order.

        Raises:
            ExpressionError: Some are not there; all are named.
        """
        position = {gene: number for number, gene in enumerate(self.genes)}
        absent = [gene for gene in genes if gene not in position]
        if absent:
            shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
            raise ExpressionError(
                self.source,
                f"{len(absent)} of {len(genes)} genes of the panel are not in it: {shown}",
                "Take them off the panel, or give data in which they were measured.",
            )
        columns = np.array([position[gene] for gene in genes], np.int64)
        ids = tuple(self.gene_ids[column] for column in columns) if self.gene_ids else ()
        return replace(self, counts=self.counts[:, columns], genes=tuple(genes), gene_ids=ids)

    def of_places(self, kept: np.ndarray) -> SpatialCounts:
        """The rows that a bool (N,) or integer array chooses."""

        def rows(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[kept]

        return replace(
            self,
            counts=self.counts[kept],
            places_px0=self.places_px0[kept],
            barcodes=self.barcodes[kept],
            array_rc=rows(self.array_rc),
            flagged=rows(self.flagged),
        )
