"""What one predictor reached: per slide, resolution, gene and measure, with what intervals and controls need.

Shapes: G genes, B blocks of places, K sums of a measure, P shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lamella.metrics.genes.judged import Scale

ALL_ZERO, CONSTANT_TRUTH, CONSTANT_PREDICTION = "all zero", "constant truth", "constant prediction"
NO_ZERO = "non-zero everywhere: no AUROC, no AUPRC"
UNJUDGED = (ALL_ZERO, CONSTANT_TRUTH)
"""Reasons for which a gene has no number at all."""


@dataclass(frozen=True)
class SlideScores:
    """One slide at one resolution.

    Attributes:
        slide_id, patient, scale: Of the slide.
        resolution_um: Side of its bins, or diameter of its spots.
        own: Whether this is the data's own resolution.
        genes: G names.
        n: Places.
        values: Measure -> (G,) numbers; NaN where undefined. Measures that do not apply (a map of spots) are absent.
        sums: Measure -> (B, G, K) float32 sums over blocks; absent where a number rests on no blocks.
        shuffled: Measure -> (P, G) the same numbers with the truth of other places.
        zero_share: (G,) share of the places without the gene.
        mean: (G,) mean of the truth.
        reasons: G texts: why a gene has no number, or lacks some; empty where it has all.
        truth_digest: Of the judged places and their truth: the same for all predictors.
    """

    slide_id: str
    patient: str
    scale: Scale
    resolution_um: float
    own: bool
    genes: tuple[str, ...]
    n: int
    values: Mapping[str, np.ndarray]
    sums: Mapping[str, np.ndarray]
    shuffled: Mapping[str, np.ndarray]
    zero_share: np.ndarray
    mean: np.ndarray
    reasons: tuple[str, ...]
    truth_digest: str


@dataclass(frozen=True)
class GeneScores:
    """One predictor on all judged slides, at all resolutions.

    Raises:
        ValueError: A slide is there twice at one resolution.
    """

    slides: tuple[SlideScores, ...]

    def __post_init__(self) -> None:
        keys = [(slide.slide_id, slide.resolution_um) for slide in self.slides]
        if len(set(keys)) < len(keys):
            raise ValueError("a slide was scored twice at one resolution")

    @property
    def resolutions(self) -> tuple[float, ...]:
        """Rising."""
        return tuple(sorted({slide.resolution_um for slide in self.slides}))

    @property
    def patients(self) -> tuple[str, ...]:
        return tuple(sorted({slide.patient for slide in self.slides}))

    @property
    def genes(self) -> tuple[str, ...]:
        """All genes that were judged on any slide, sorted: folds may have panels of their own."""
        return tuple(sorted({gene for slide in self.slides for gene in slide.genes}))

    def at(self, resolution_um: float) -> tuple[SlideScores, ...]:
        """The slides at one resolution, by name."""
        found = [slide for slide in self.slides if slide.resolution_um == resolution_um]
        return tuple(sorted(found, key=lambda slide: slide.slide_id))
