"""What is learned and judged of one slide: tiles of bins, or spots, with their expression and what of them counts.

A bin or spot counts where the image shows tissue and something was measured. Bins on tissue without a single count are
real zeros and count; bins outside the chip, and those that the vendor took out of the file, do not.

Shapes: S samples, N judged places, G genes of the panel, n bins along a sample's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamella.data.bin_rows import BinRows
from lamella.data.expression import ExpressionSlide, ExpressionStudy, Kind
from lamella.data.expression_disk import disk_shares
from lamella.data.expression_settings import ExpressionDataSettings
from lamella.data.expression_targets import target_values, totals
from lamella.data.judged_places import BoxRC, captured_box, judged_bins, judged_spots
from lamella.formats.spatial_counts import ExpressionError
from lamella.geometry import BinGrid

_ON_A_BIN = 1e-6  # a centre further than this from where bins lie is of another lattice


@dataclass(frozen=True, eq=False)
class JudgedPlaces:
    """Where the judged bins or spots are.

    Attributes:
        rc: (N, 2) int32 row and column on the bins' lattice; None for spots.
        px0: (N, 2) float64 x and y in level-0 pixels.
        um: (N, 2) float32 x and y in micrometres.
    """

    rc: np.ndarray | None
    px0: np.ndarray
    um: np.ndarray

    def __len__(self) -> int:
        return len(self.px0)


@dataclass(frozen=True, eq=False)
class SlideSamples:
    """The samples of one slide.

    Attributes:
        slide: Which.
        kind: Bins or spots.
        grid: The lattice of the bins that are predicted: the chip's own, or of spots an upright one.
        bins: n.
        genes: G names.
        centres_rc: (S, 2) float64 fractional row and column: tiles that cover all judged bins without overlap, or the
            judged spots.
        size_um: Side of a bin, or diameter of a spot.
        rows: The table; of bins sorted by place, of spots in the order of `centres_rc`.
        mask: Of bins (rows, columns of `rows.box_rc`) bool: which are judged. Of spots (S,), all True.
        judged_rows: Rows of the slide's counts that are judged, in their order. Fewer than judged bins, where bins
            without a count are not in the file.
        unmeasured: Bins of the chip on tissue that the file says nothing of, because the vendor took them out.
    """

    slide: ExpressionSlide
    kind: Kind
    grid: BinGrid
    bins: int
    genes: tuple[str, ...]
    centres_rc: np.ndarray
    size_um: float
    rows: BinRows
    mask: np.ndarray
    judged_rows: np.ndarray
    unmeasured: int = 0

    @classmethod
    def of(
        cls, slide: ExpressionSlide, study: ExpressionStudy, genes: Sequence[str], settings: ExpressionDataSettings
    ) -> SlideSamples:
        """Read a slide's expression and find what of it is judged.

        Raises:
            ExpressionError: It is of another kind than the study, a gene is not there, counts are none, or no place
                lies on tissue.
            SlideError: The image cannot be read, or shows no tissue.
        """
        shape = slide.counts.shape
        if shape != study.kind:
            raise ExpressionError(
                slide.counts.source,
                f"it holds {shape}s, and the study is of {study.kind}s",
                "Study bins and spots separately.",
            )
        return (_of_bins if shape == "bin" else _of_spots)(slide, study, settings, tuple(genes))

    def __len__(self) -> int:
        """Samples."""
        return len(self.centres_rc)

    # ---- one sample -------------------------------------------------------------------------------------------------

    def sample(self, row_c: float, col_c: float) -> tuple[np.ndarray, np.ndarray]:
        """The labels around a centre.

        Args:
            row_c: Fractional row; an odd number of bins lies around a bin, an even one around a corner of four.
            col_c: Fractional column.

        Returns:
            Of bins (G, n, n) float32, 0 where nothing was measured, and (n, n) bool, which of them are judged. Of spots
            (G,) float32 and (n, n) float32, the share of each bin under the disk.

        Raises:
            ValueError: The centre is that of no sample.
        """
        if self.kind == "spot":
            return self.spot(self._spot_at(row_c, col_c))
        row, col = self._corner(row_c, col_c)
        return self.rows.dense(row, col, self.bins), self._mask_at(row, col)

    def spot(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (G,) of spot `number` of `centres_rc`, and its disk (n, n)."""
        return self.rows.values[[number]].toarray()[0].astype(np.float32), self.disk

    def library(self, row_c: float, col_c: float) -> np.ndarray:
        """(n, n) float32 total of all measured genes of each bin; of a spot, ()."""
        if self.kind == "spot":
            return self.rows.total[self._spot_at(row_c, col_c)]
        return self.rows.dense_total(*self._corner(row_c, col_c), self.bins)

    @cached_property
    def disk(self) -> np.ndarray:
        """(n, n) float32: the share of each bin of a sample under the spot."""
        return disk_shares(self.bins, self.grid.bin_um, self.size_um)

    def cover(self) -> np.ndarray:
        """(S, 2) centres for judging: every judged bin or spot lies in exactly one."""
        return self.centres_rc

    def random_centre(self, rng: np.random.Generator) -> tuple[float, float]:
        """The centre of a tile around a judged bin, all of which are equally likely; inside the chip where it fits."""
        row0, col0, row1, col1 = self.rows.box_rc
        flat = int(self._flat[int(rng.integers(len(self._flat)))])
        corner = []
        for place, first, last in ((flat // (col1 - col0), row0, row1), (flat % (col1 - col0), col0, col1)):
            start = first + place - int(rng.integers(self.bins))
            corner.append(min(max(start, first), max(first, last - self.bins)))
        half = (self.bins - 1) / 2
        return corner[0] + half, corner[1] + half

    # ---- judged places ----------------------------------------------------------------------------------------------

    @property
    def judged(self) -> int:
        """N."""
        return int(np.count_nonzero(self.mask))

    def places(self) -> JudgedPlaces:
        """All judged places: bins by row and column, spots in the order of `centres_rc`."""
        frame = self.slide.frame
        rc = None
        if self.kind == "bin":
            row0, col0, _, col1 = self.rows.box_rc
            rc = np.stack([self._flat // (col1 - col0) + row0, self._flat % (col1 - col0) + col0], axis=1)
        at = self.centres_rc if rc is None else rc.astype(np.float64)
        px0 = np.stack(self.grid.place_px0(at[:, 0], at[:, 1]), axis=1)
        um = (px0 * (frame.mpp_x, frame.mpp_y)).astype(np.float32)
        return JudgedPlaces(None if rc is None else rc.astype(np.int32), px0, um)

    def places_in(self, row_c: float, col_c: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The judged bins of a tile: (k,) numbers in the order of `places()`, and (k,) row and column in the tile."""
        row, col = self._corner(row_c, col_c)
        row0, col0, _, col1 = self.rows.box_rc
        i, j = np.nonzero(self._mask_at(row, col))
        flat = (row + i - row0) * (col1 - col0) + col + j - col0
        return np.searchsorted(self._flat, flat), i, j

    def judged_truth(self) -> np.ndarray:
        """(N, G) float32, in the order of `places()`."""
        if self.kind == "spot":
            return self.rows.values.toarray().astype(np.float32)
        truth = np.zeros((self.judged, len(self.genes)), np.float32)
        numbers, measured = self._numbers
        truth[numbers] = self.rows.values[measured].toarray()
        return truth

    def judged_total(self) -> np.ndarray:
        """(N,) float32 total of all measured genes, in the same order."""
        if self.kind == "spot":
            return self.rows.total
        total = np.zeros(self.judged, np.float32)
        numbers, measured = self._numbers
        total[numbers] = self.rows.total[measured]
        return total

    @property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows of the table that are judged: their numbers in the order of places, and which they are."""
        measured = np.flatnonzero(self.mask.reshape(-1)[self.rows.keys])
        return np.searchsorted(self._flat, self.rows.keys[measured]), measured

    @cached_property
    def _flat(self) -> np.ndarray:
        """(N,) int64, ascending: the keys of the judged bins."""
        return np.flatnonzero(self.mask)

    def _corner(self, row_c: float, col_c: float) -> tuple[int, int]:
        """Row and column of the first bin of the tile around a centre."""
        corner = [centre - (self.bins - 1) / 2 for centre in (row_c, col_c)]
        if max(abs(value - round(value)) for value in corner) > _ON_A_BIN:
            raise ValueError(f"no tile of {self.bins} bins has its centre at row {row_c}, column {col_c}")
        return round(corner[0]), round(corner[1])

    def _spot_at(self, row_c: float, col_c: float) -> int:
        away = np.abs(self.centres_rc - (row_c, col_c)).max(axis=1)
        number = int(away.argmin())
        if away[number] > _ON_A_BIN:
            raise ValueError(f"no spot has its centre at row {row_c}, column {col_c}")
        return number

    def _mask_at(self, row: int, col: int) -> np.ndarray:
        """(n, n) bool: the judged bins of a tile; none outside the box."""
        row0, col0, row1, col1 = self.rows.box_rc
        tile = np.zeros((self.bins, self.bins), bool)
        top, bottom = max(row, row0), min(row + self.bins, row1)
        left, right = max(col, col0), min(col + self.bins, col1)
        if top < bottom and left < right:
            part = self.mask[top - row0 : bottom - row0, left - col0 : right - col0]
            tile[top - row : bottom - row, left - col : right - col] = part
        return tile


# ---- how they are made ----------------------------------------------------------------------------------------------


def _of_bins(
    slide: ExpressionSlide, study: ExpressionStudy, settings: ExpressionDataSettings, genes: tuple[str, ...]
) -> SlideSamples:
    counts = slide.counts
    values = target_values(counts, genes, settings.target)
    mask, unmeasured = judged_bins(slide, settings)
    assert counts.grid is not None
    assert counts.array_rc is not None
    box = captured_box(counts)
    return SlideSamples(
        slide=slide,
        kind="bin",
        grid=counts.grid,
        bins=study.tile_bins,
        genes=genes,
        centres_rc=_cover(mask, box, study.tile_bins),
        size_um=counts.size_um,
        rows=BinRows.of(counts.array_rc, values, totals(counts), box),
        mask=mask,
        judged_rows=np.flatnonzero(mask[counts.array_rc[:, 0] - box[0], counts.array_rc[:, 1] - box[1]]),
        unmeasured=unmeasured,
    )


def _of_spots(
    slide: ExpressionSlide, study: ExpressionStudy, settings: ExpressionDataSettings, genes: tuple[str, ...]
) -> SlideSamples:
    counts = slide.counts
    if counts.size_um > study.tile_bins * study.bin_um + _ON_A_BIN:
        raise ExpressionError(
            counts.source,
            f"its spots of {counts.size_um:g} um are larger than a sample of {study.tile_bins} bins of "
            f"{study.bin_um:g} um, which fits the study's first slide",
            "Study slides with spots of different sizes separately.",
        )
    values = target_values(counts, genes, settings.target)
    kept = judged_spots(slide, settings)
    grid = BinGrid.upright(study.bin_um, slide.frame.mpp_x, slide.frame.mpp_y)
    one_row = (0, 0, 1, len(kept))
    return SlideSamples(
        slide=slide,
        kind="spot",
        grid=grid,
        bins=study.tile_bins,
        genes=genes,
        centres_rc=np.stack(grid.bin_at(*counts.places_px0[kept].T), axis=1),
        size_um=counts.size_um,
        rows=BinRows(np.arange(len(kept)), one_row, values[kept], totals(counts)[kept].astype(np.float32)),
        mask=np.ones(len(kept), bool),
        judged_rows=kept,
    )


def _cover(mask: np.ndarray, box: BoxRC, bins: int) -> np.ndarray:
    """(S, 2) centres of tiles side by side from the box's first bin on that hold a judged bin."""
    tops, lefts = (np.arange(0, length, bins) for length in mask.shape)
    held = np.add.reduceat(np.add.reduceat(mask, tops, axis=0, dtype=np.int64), lefts, axis=1) > 0
    row, col = np.nonzero(held)
    half = (bins - 1) / 2
    return np.stack([box[0] + tops[row] + half, box[1] + lefts[col] + half], axis=1).astype(np.float64)
