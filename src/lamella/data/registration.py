"""Whether places of expression lie where the image shows their tissue.

Tissue that is dense is dark and has many transcripts. So total counts follow the darkness of the image, and they do so
best where places and image were laid over each other rightly. The places are shifted by a few tens of micrometres, and
turned over, to see whether another placement would fit better. It is a look at the data, not a correction: nothing is
moved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from lamella.data.bin_pooling import pooled
from lamella.data.expression import ExpressionSlide
from lamella.data.expression_darkness import DensityMap, density_map
from lamella.data.expression_targets import totals
from lamella.data.expression_tissue import place_fractions
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import BinGrid
from lamella.slides.tissue_map import TissueMap

# A bin of 2 um has a count or two: sums over this length have enough to follow anything.
_POOLED_UM = 16.0
# How far places are shifted: twice the largest fault that a fit by eye leaves at bins, two diameters at spots.
_REACH_UM, _REACH_OF_SPOT = 100.0, 2.0
_STEPS = 10  # to each side
_MOST_PLACES = 20_000  # more would give the same correlation to a hundredth
_FEWEST = 20  # places for a correlation that means anything
# A better placement counts when its correlation is above the present one by this, and by what the best of hundreds of
# shifts reaches by chance: four standard errors of one correlation (the difference of two has 1.4 of them).
_LEAST_MARGIN, _CHANCE = 0.05, 4.0
_LEAST_ON_TISSUE = 0.5


@dataclass(frozen=True)
class Registration:
    """What was found of one slide.

    Attributes:
        places: Bins or spots.
        outside: Of them, how many centres lie outside the image.
        on_tissue: Share of the places with any tissue under half of them.
        tissue_covered: Share of the tissue of the image that lies under places' lattice or disks; small values are
            usual where a chip is smaller than the section.
        r: Correlation of ln(1 + total counts) with darkness as things lie; NaN where one of them is constant.
        best_um: (x, y) shift of the places at which it is highest.
        r_best: There.
        r_turned: The highest correlation with the places mirrored or turned by quarters about their middle.
        turned: Which; empty where none can be judged.
        compared: Places, or sums of 16 um, that correlations are over.
        sweep: (2 k + 1, 2 k + 1) float64 correlation at all shifts, rows along y.
        step_um: Between shifts.
        size_um: Side of a bin, or diameter of a spot.
    """

    places: int
    outside: int
    on_tissue: float
    tissue_covered: float
    r: float
    best_um: tuple[float, float]
    r_best: float
    r_turned: float
    turned: str
    compared: int
    sweep: np.ndarray
    step_um: float
    size_um: float

    @property
    def away_um(self) -> float:
        """Length of the best shift."""
        return float(np.hypot(*self.best_um))

    @property
    def margin(self) -> float:
        """How much higher the correlation is there."""
        return self.r_best - self.r

    @property
    def needed(self) -> float:
        """The least margin that counts: the standard error of a correlation of n places is about 1 / sqrt(n)."""
        return float(max(_LEAST_MARGIN, _CHANCE / np.sqrt(max(1, self.compared))))

    def faults(self) -> list[str]:
        """What seems wrong, in words; empty: nothing does."""
        found = []
        if self.outside:
            found.append(f"{self.outside} of {self.places} places lie outside the image")
        if self.on_tissue < _LEAST_ON_TISSUE:
            found.append(f"only {self.on_tissue:.0%} of the places lie on tissue of the image")
        if self.compared < _FEWEST:
            return [*found, f"{self.compared} places are too few to say whether they lie rightly"]
        if not np.isfinite(self.r):
            return [*found, "counts or darkness are the same everywhere, so nothing says whether places lie rightly"]
        if self.turned and self.r_turned - self.r > self.needed and self.r_turned > self.r_best:
            found.append(
                f"counts follow the image better with the places {self.turned} "
                f"(r {self.r_turned:.2f}, now {self.r:.2f})"
            )
        elif self.away_um > max(self.size_um, _POOLED_UM) / 2 and self.margin > self.needed:
            x_um, y_um = self.best_um
            found.append(
                f"counts follow the image better with the places shifted by {x_um:+.0f} um in x and {y_um:+.0f} um "
                f"in y (r {self.r_best:.2f}, now {self.r:.2f})"
            )
        if self.r_best < _LEAST_MARGIN:
            found.append(f"counts do not follow the darkness of the image at any shift (r {self.r_best:.2f} at best)")
        return found


def registration(slide: ExpressionSlide, counts: SpatialCounts, tissue: TissueMap) -> Registration:
    """Look at one slide.

    Args:
        slide: With the image.
        counts: Its expression, all genes.
        tissue: Of the image.

    Raises:
        SlideError: The image cannot be read.
    """
    frame, places = slide.frame, counts.places_px0
    inside = (
        (places[:, 0] >= 0) & (places[:, 1] >= 0) & (places[:, 0] <= frame.width_px) & (places[:, 1] <= frame.height_px)
    )
    share = place_fractions(tissue, frame, places, counts.size_um, counts.shape)
    coarse = _coarse(counts)
    reach_um = _REACH_UM if counts.shape == "bin" else _REACH_OF_SPOT * counts.size_um
    sweep, step_um, r_turned, turned, compared = _swept(slide, coarse, reach_um)
    best = np.unravel_index(int(np.nanargmax(sweep)) if np.isfinite(sweep).any() else sweep.size // 2, sweep.shape)
    return Registration(
        places=len(counts),
        outside=int(np.count_nonzero(~inside)),
        on_tissue=float(np.mean(share >= 0.5)),
        tissue_covered=covered(tissue, slide, counts),
        r=float(sweep[_STEPS, _STEPS]),
        best_um=(float(best[1] - _STEPS) * step_um, float(best[0] - _STEPS) * step_um),
        r_best=float(sweep[best]),
        r_turned=r_turned,
        turned=turned,
        compared=compared,
        sweep=sweep,
        step_um=step_um,
        size_um=counts.size_um,
    )


def covered(tissue: TissueMap, slide: ExpressionSlide, counts: SpatialCounts) -> float:
    """Share of the tissue's area that lies inside the bounding box of the places."""
    low, high = counts.places_px0.min(axis=0), counts.places_px0.max(axis=0)
    half = np.array([counts.size_um / slide.frame.mpp_x, counts.size_um / slide.frame.mpp_y]) / 2
    scale = np.array([slide.frame.mpp_x / tissue.frame.mpp_x, slide.frame.mpp_y / tissue.frame.mpp_y])
    (left, top), (right, bottom) = np.maximum(0, np.floor((low - half) * scale)), np.ceil((high + half) * scale)
    part = tissue.mask[int(top) : max(0, int(bottom)), int(left) : max(0, int(right))]
    return float(part.sum() / max(1, tissue.mask.sum()))


def _coarse(counts: SpatialCounts) -> SpatialCounts:
    """One column, the total of each place; bins as sums of at least 16 um."""
    total = totals(counts)
    column = sparse.csr_array(total[:, None])
    alone = replace(counts, counts=column, genes=("total",), gene_ids=())
    factor = round(_POOLED_UM / counts.size_um) if counts.shape == "bin" and counts.grid is not None else 1
    return pooled(alone, factor) if factor > 1 else alone


def _swept(slide: ExpressionSlide, coarse: SpatialCounts, reach_um: float) -> tuple[np.ndarray, float, float, str, int]:
    """Correlations at all shifts, their step, the best of the other orientations and its name, and the places."""
    total = np.log1p(np.asarray(coarse.counts.todense(), np.float64).reshape(-1))
    places = coarse.places_px0
    if len(places) > _MOST_PLACES:
        chosen = np.sort(np.random.default_rng(0).choice(len(places), _MOST_PLACES, replace=False))
        places, total = places[chosen], total[chosen]
    dark = density_map(slide, places, coarse.size_um, margin_um=2 * reach_um)
    dark = dark.blurred(coarse.size_um, coarse.shape, slide.frame)
    step_um = reach_um / _STEPS
    sweep = np.full((2 * _STEPS + 1, 2 * _STEPS + 1), np.nan)
    for row in range(len(sweep)):
        for column in range(len(sweep)):
            shift_um = np.array([column - _STEPS, row - _STEPS]) * step_um
            sweep[row, column] = _followed(dark, places + shift_um / slide.mpp_stated, total)
    found = {name: _followed(dark, moved, total) for name, moved in _orientations(places, slide.mpp_stated).items()}
    known = {name: value for name, value in found.items() if np.isfinite(value)}
    best = max(known, key=lambda name: known[name], default="")
    return sweep, step_um, known.get(best, float("nan")), best, len(places)


def _followed(dark: DensityMap, places_px0: np.ndarray, total: np.ndarray) -> float:
    """Pearson's correlation of ln(1 + total) with darkness over the places on the slide."""
    values = dark.at(places_px0)
    seen = np.isfinite(values)
    if np.count_nonzero(seen) < max(_FEWEST, len(total) / 2):
        return float("nan")
    x, y = values[seen].astype(np.float64), total[seen]
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 1e-12 * len(x) else float("nan")


def _orientations(places_px0: np.ndarray, mpp: tuple[float, float]) -> dict[str, np.ndarray]:
    """The places in the seven other orientations about the middle of their bounding box, by name."""
    middle = (places_px0.min(axis=0) + places_px0.max(axis=0)) / 2
    x, y = ((places_px0 - middle) * mpp).T
    turned_um = {
        "mirrored left to right": (-x, y),
        "mirrored top to bottom": (x, -y),
        "turned by half": (-x, -y),
        "turned by a quarter to the right": (-y, x),
        "turned by a quarter to the left": (y, -x),
        "with rows and columns swapped": (y, x),
        "swapped and turned by half": (-y, -x),
    }
    return {name: np.stack(xy, axis=1) / mpp + middle for name, xy in turned_um.items()}


def lattice_words(grid: BinGrid | None) -> str:
    """How a chip lies on its image, for reports."""
    if grid is None:
        return "spots"
    return f"{'mirrored' if grid.mirrored else 'not mirrored'}, turned by {grid.turn_deg:+.2f} degrees"
