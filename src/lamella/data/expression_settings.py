"""Where slides with expression are, and what of them is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.data.expression import Target
from lamella.slides.tissue import TissueSettings


class ExpressionDataSettings(Settings):
    """Slides, patients, expression, bins, tissue."""

    slides: Path
    """A manifest CSV: slide_id, wsi_path, expression_path, patient, and mpp where the image does not state it."""
    bin_um: Annotated[float, Field(gt=0)] = 2.0
    """Side of the bins that are predicted. Of Visium HD a whole multiple of the folder's own bins (sums are kept); of
    spots, what the network predicts before it is summed under the disks (2 to 8 um as a rule)."""
    tile_bins: Annotated[int, Field(ge=4)] = 128
    """Bins along the side of a sample. Of spots it is not used: a sample is as large as a disk, in an even number of
    bins."""
    target: Target = "counts"
    """What is predicted and judged: raw counts; log1p of counts; log10(1 + counts per 10,000 of the place's total);
    log_cpm: ln(1 + counts per million), also smoothed over the 3 x 3 spots around each; or values as the file has
    them. Count losses need counts or log1p."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found on the image; labels never say where tissue is."""
    min_tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of tissue that makes a bin or spot part of loss and measures."""
    kind: Literal["bin", "spot"] | None = None
    """null: as the files say."""
