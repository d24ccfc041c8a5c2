"""What a cross-resolution profile says: a coarse context and the finer targets inside it, in micrometres."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lamella.config import Settings
from lamella.geometry import snap_px

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class CrossSampling(Settings):
    """A profile: the geometry of contexts and targets. The defaults are the source project's profile."""

    profile_id: str = "ctx1p0_tgt0p5_fov512um_k4"
    """Name of the profile; part of the catalogue's file names."""
    context_mpp: Positive = 1.0
    """Micrometres per pixel of the context view."""
    target_mpp: Positive = 0.5
    """Micrometres per pixel of the target views."""
    context_fov_um: Positive = 512.0
    """Side of the context, in micrometres."""
    target_fov_um: Positive = 128.0
    """Side of a target, in micrometres."""
    targets_per_context: Annotated[int, Field(ge=1)] = 4
    """Targets K drawn inside each context."""
    patch_px: Annotated[int, Field(ge=2)] = 16
    """Side of a ViT patch; views are whole numbers of patches."""
    min_tissue_fraction: Fraction = 0.2
    """Least share of tissue in a context."""
    anchor_stride_fraction: Annotated[float, Field(gt=0, le=4)] = 0.5
    """Distance between anchors, as a share of the context's side."""
    target_margin_um: Annotated[float, Field(ge=0)] = 16.0
    """Targets keep this distance from the context's edge."""
    spacing_tolerance: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Relative difference up to which two spacings count as the same."""
    min_target_tissue_fraction: Fraction = 0.25
    """Least share of tissue in a target."""
    max_target_overlap: Fraction = 0.25
    """Largest share of a target's area that another target may cover."""
    target_attempts: Annotated[int, Field(ge=0)] = 64
    """Random placements tried per target before the deterministic grid."""
    align_targets_to_patch_grid: bool = False
    """Snap targets to the context's patch grid."""
    when_targets_do_not_fit: Literal["skip_anchor", "skip_slide", "lower_threshold"] = "lower_threshold"
    """What happens where K targets cannot be placed."""
    threshold_step: Positive = 0.05
    """`lower_threshold`: the target tissue fraction is lowered in these steps."""
    threshold_floor: Fraction = 0.10
    """`lower_threshold`: and not below this."""

    @property
    def context_px(self) -> int:
        """Side of the context tensor."""
        return snap_px(self.context_fov_um, self.context_mpp, self.patch_px)

    @property
    def target_px(self) -> int:
        """Side of a target tensor."""
        return snap_px(self.target_fov_um, self.target_mpp, self.patch_px)

    @property
    def context_output_mpp(self) -> float:
        """Spacing of the context tensor: the field of view is kept, the spacing gives."""
        return self.context_fov_um / self.context_px

    @property
    def target_output_mpp(self) -> float:
        return self.target_fov_um / self.target_px

    @property
    def patch_um(self) -> float:
        """Side of a context token, in micrometres."""
        return self.patch_px * self.context_output_mpp

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The target tissue fractions to try, highest first; one unless the policy lowers it."""
        if self.when_targets_do_not_fit != "lower_threshold":
            return (self.min_target_tissue_fraction,)
        steps = round((self.min_target_tissue_fraction - self.threshold_floor) / self.threshold_step + 1e-9)
        lowered = [self.min_target_tissue_fraction - step * self.threshold_step for step in range(max(0, steps) + 1)]
        return tuple(round(threshold, 6) for threshold in lowered)

    @model_validator(mode="after")
    def _targets_can_fit(self) -> CrossSampling:
        room_um = self.context_fov_um - 2 * self.target_margin_um
        if self.target_fov_um > room_um:
            raise ValueError(
                f"a target of {self.target_fov_um:g} um does not fit into a context of {self.context_fov_um:g} um with "
                f"a margin of {self.target_margin_um:g} um; lower target_fov_um or target_margin_um"
            )
        # Side by side with the allowed overlap along one axis, a row holds this many targets; rows repeat likewise.
        step_um = self.target_fov_um * (1 - self.max_target_overlap)
        per_side = 1 + int((room_um - self.target_fov_um) / step_um + 1e-9) if step_um > 0 else self.targets_per_context
        if per_side**2 < self.targets_per_context:
            raise ValueError(
                f"{self.targets_per_context} targets of {self.target_fov_um:g} um cannot be placed in "
                f"{self.context_fov_um:g} um (room for {per_side**2}); lower targets_per_context or target_fov_um"
            )
        return self
