"""One cross-resolution sample, and a batch of them as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lamella.data.augment import Turn
from lamella.data.footprint import Footprint, pad_ragged
from lamella.geometry import Box, LevelMethod
from lamella.slides.anchors.sampling import CrossSampling

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class CrossPlace:
    """Where a sample lies, before any pixel is read."""

    position: int
    """Number of the sample since the start of training."""
    pass_index: int
    row: int
    """Row of the catalogue."""
    slide_id: str
    slide_number: int
    """Number of the slide in the index."""
    anchor_id: str
    sampling: CrossSampling
    """The profile at this sample's scale."""
    scale_factor: float
    asked_scale_factor: float
    """Differs from `scale_factor` where the targets did not fit at the scale that was drawn."""
    same_resolution: bool
    context_px0: Box
    targets_px0: tuple[Box, ...]
    turn: Turn
    """Orientation of the tensors on the slide."""
    boxes_um: np.ndarray
    """(K, 4) float64 x0, y0, x1, y1 of the targets from the top left of the context tensor, as turned."""
    footprint: Footprint
    redraws: int

    @property
    def boxes_px(self) -> np.ndarray:
        """(K, 4) the same in pixels of the context tensor."""
        return self.boxes_um / self.sampling.context_output_mpp

    @property
    def centred_boxes_um(self) -> np.ndarray:
        """(K, 4) the same from the context's centre."""
        return self.boxes_um - self.sampling.context_fov_um / 2


@dataclass(frozen=True, kw_only=True)
class CrossSample(CrossPlace):
    """A place and its pixels."""

    context: np.ndarray
    """(H, W, 3) uint8."""
    targets: np.ndarray
    """(K, h, w, 3) uint8."""
    source_context_mpp: float
    """Spacing of the pyramid level that was read; `output_*` is the spacing of the tensor."""
    output_context_mpp: float
    context_method: LevelMethod
    source_target_mpp: float
    output_target_mpp: float
    target_method: LevelMethod


def collate(samples: Sequence[CrossSample]) -> Batch:
    """Stack samples; ragged token sets are padded, nothing is cut.

    B samples, K targets each, N kept context tokens and R asked tokens at most.

    Returns:
        context: uint8 (B, 3, H, W).
        targets: uint8 (B, K, 3, h, w).
        context_keep: int64 (B, N) row-major indices into the context's token grid, padded with 0.
        context_pad: bool (B, N), True = padding.
        footprint: int64 (B, K, R) tokens T of each target, padded with 0.
        footprint_pad: bool (B, K, R), True = padding.
        target_boxes_um: float32 (B, K, 4) x0, y0, x1, y1 in micrometres from the context's centre.
        context_mpp, target_mpp: float32 (B,), spacings of the tensors.
        slide: int64 (B,) number of the slide in the index.
        position: int64 (B,) number of the sample.
    """
    keep, keep_pad = pad_ragged([sample.footprint.keep for sample in samples])
    asked, asked_pad = pad_ragged([tokens for sample in samples for tokens in sample.footprint.asked])
    ragged = (len(samples), -1, asked.shape[1])
    arrays = {
        "context": _channels_first([sample.context for sample in samples]),
        "targets": _channels_first([sample.targets for sample in samples]),
        "context_keep": keep,
        "context_pad": keep_pad,
        "footprint": asked.reshape(ragged),
        "footprint_pad": asked_pad.reshape(ragged),
        "target_boxes_um": np.stack([sample.centred_boxes_um for sample in samples]).astype(np.float32),
        "context_mpp": np.array([sample.output_context_mpp for sample in samples], np.float32),
        "target_mpp": np.array([sample.output_target_mpp for sample in samples], np.float32),
        "slide": np.array([sample.slide_number for sample in samples], np.int64),
        "position": np.array([sample.position for sample in samples], np.int64),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _channels_first(views: Sequence[np.ndarray]) -> np.ndarray:
    """(B, ..., 3, H, W) of views (..., H, W, 3), in one copy."""
    *more, height, width, channels = views[0].shape
    stacked = np.empty((len(views), *more, channels, height, width), np.uint8)
    for place, view in zip(stacked, views, strict=True):
        place[...] = np.moveaxis(view, -1, -3)
    return stacked
