"""Settings of stage 4 of `lamella weak`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.dense.blending import BlendSettings
from lamella.dense.refining.settings import RefineSettings
from lamella.engine.world import DeviceName

CRF_ALONE = RefineSettings(use_crf=True, morphological_op="none", edge_refinement=False, min_component_size=0)
"""What a CRF does is only seen without the rest of post-processing."""


class EvaluationSettings(Settings):
    """Settings of stage 4."""

    part: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Slides of which part of the split are judged; they need masks. auto: test where it has masks, else all, each by a
    model that has seen nothing of its group (folds)."""
    weights: Literal["best", "latest"] = "best"
    """Which weights of each training are judged: those that its criterion chose, or the last."""
    rivals: dict[str, Path] = Field(default_factory=dict)
    """Name -> model folder, or run with folds. Weakly trained ones stand in the same table; a supervised segmenter gets
    a table of its own on the same pixels."""
    rival_classes: dict[str, str] = Field(default_factory=dict)
    """What supervised rivals call a class -> its name here, such as {foreground: gland}."""
    labels: bool = True
    """Rows gated by image labels, too: the predicted ones, and the true ones as a label oracle."""
    gate_per: Literal["auto", "bag", "tile"] = "auto"
    """What a label is of when it gates: the whole slide, or each of its tiles. auto: as in training."""
    label_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability above which a label is predicted."""
    refine: RefineSettings | None = CRF_ALONE
    """What the second half of the rows is post-processed with; the CRF alone unless said, null leaves them out."""
    judged_area: Literal["auto", "tiles", "whole"] = "auto"
    """Judge the labelled pixels inside the slides' tiles, where a model is asked to look, or all of them. auto: tiles,
    unless the slides are looked at everywhere (data.everywhere)."""
    blend: BlendSettings = BlendSettings()
    """How tiles become one map, and whether each is also shown mirrored and turned (blend.tta)."""
    in_memory_px: Annotated[int, Field(ge=1)] = 16_000_000
    """Slides of more pixels than this are predicted to disk and judged in bands: 4,000 x 4,000 of five channels are
    320 MB."""
    samples: Annotated[int, Field(ge=0)] = 6
    """Slides drawn into prediction_samples: best, median and worst in turn."""
    colour: bool = True
    """Judge what colour alone tells when it is given the same labels."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Tiles shown at once."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tiles decoded at once."""
    device: DeviceName = "auto"
    """Where the models run."""
