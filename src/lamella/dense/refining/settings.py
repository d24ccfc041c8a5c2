"""What is done to a model's probabilities before they become labels.

Lengths are pixels of the maps, as the source states them: a raster at 0.5 micrometres per pixel has 2 of them in one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lamella.config import Settings

Length = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class CrfSettings(Settings):
    """The dense conditional random field, or the guided filter in its place."""

    engine: Literal["mean_field", "pydensecrf2", "guided"] = "mean_field"
    """mean_field: this package's. pydensecrf2: the original C++ (extra `crf`). guided: a guided filter, no CRF."""
    iterations: Annotated[int, Field(ge=1, le=100)] = 5
    """Of the mean field."""
    near_px: Length = 3
    """Standard deviation of the kernel that asks neighbours to agree, whatever their colour."""
    near_weight: Weight = 3
    """What disagreement with near pixels costs, in nats."""
    alike_px: Length = 10
    """Standard deviation, in space, of the kernel that asks pixels of one colour to agree."""
    alike_rgb: Length = 13
    """Its standard deviation in colour, of 255."""
    alike_weight: Weight = 5
    """What disagreement with near pixels of one colour costs, in nats."""
    guided_radius_px: Annotated[int, Field(ge=1, le=256)] = 8
    """Of the guided filter's window."""
    guided_epsilon: Length = 1e-3
    """Of the guided filter: variance of colours, of 1, below which it smooths."""


class EdgeSettings(Settings):
    """How labels are smoothed along their boundaries."""

    width_px: Annotated[float, Field(ge=1, le=64)] = 3
    """How far from a boundary pixels may change."""
    sigma_px: Annotated[float, Field(gt=0, le=16)] = 1.5
    """Of the Gaussian that smooths the classes there."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.45
    """Share of all other classes together that beats the background; lower than a half, as the source has it: Gaussians
    eat convex shapes."""


class RefineSettings(Settings):
    """Post-processing of a prediction. All lengths in pixels of its maps."""

    use_crf: bool = False
    """Let labels follow the colours of the image."""
    crf: CrfSettings = CrfSettings()
    """How, where `use_crf` is set."""
    morphological_op: Literal["closing", "opening", "none"] = "closing"
    """closing fills gaps in the classes, opening removes what is thinner than the kernel."""
    kernel_size: Annotated[int, Field(ge=1, le=101)] = 3
    """Side of the square kernel; odd."""
    edge_refinement: bool = True
    """Smooth the boundaries."""
    edges: EdgeSettings = EdgeSettings()
    """How, where `edge_refinement` is set."""
    min_component_size: Annotated[int, Field(ge=0)] = 100
    """Connected pieces of fewer pixels take the class around them; 0: all stay. Done last, so that none is left."""

    @field_validator("kernel_size")
    @classmethod
    def _has_a_middle(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError("the kernel's side must be odd, so that it has a middle")
        return side
