"""What every measure of expression is computed from: the truth and a prediction at the same places of one slide.

Shapes: N places, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Scale = Literal["counts", "log"]


@dataclass(frozen=True)
class JudgedSlide:
    """One slide of a patient that the model has not seen.

    Attributes:
        slide_id: Its name.
        patient: Whose it is.
        genes: G names.
        truth: (N, G) float32. Counts, or values of the study's target.
        predicted: (N, G) float32: expected counts, or expected values on the same scale as `truth`. Never logarithms of
            rates.
        scale: counts: both are counts and expected counts, and correlations are taken of log1p. log: both are on a
            logarithmic or other scale already, and correlations are taken as they are.
        total: (N,) float32 total count of all measured genes (not only the panel's): the total-UMI control.
        darkness: (N,) float32 mean optical density of the image there: the control without any learning.
        rc: (N, 2) int32 row and column on the bins' lattice; None for spots.
        bin_um: Side of a bin; of spots their diameter.
        places_um: (N, 2) float32 x and y in micrometres, for neighbours of spots.
        training_mean: (G,) float32 mean of every gene over the places that the model was trained on, on truth's scale:
            the mean map. None: what needs it is left out, and the report says so.
    """

    slide_id: str
    patient: str
    genes: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    scale: Scale
    total: np.ndarray
    darkness: np.ndarray
    rc: np.ndarray | None
    bin_um: float
    places_um: np.ndarray
    training_mean: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.places_um), len(self.genes))
        if self.truth.shape != shape or self.predicted.shape != shape:
            raise ValueError(f"truth {self.truth.shape} and prediction {self.predicted.shape} are not {shape}")
        others = (self.total, self.darkness) if self.rc is None else (self.total, self.darkness, self.rc)
        if any(len(values) != shape[0] for values in others):
            raise ValueError(f"{self.slide_id}: totals, darkness and lattice are not of its {shape[0]} places")
        if self.training_mean is not None and self.training_mean.shape != shape[1:]:
            raise ValueError(f"{self.slide_id}: {len(self.training_mean)} training means of {shape[1]} genes")

    def with_predicted(self, predicted: np.ndarray) -> JudgedSlide:
        """The same slide with another prediction."""
        return replace(self, predicted=predicted)
