"""Batches of the shape that data/ makes, drawn from smooth generated pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lamella.data.footprint import footprint, pad_ragged
from lamella.slides.anchors.sampling import CrossSampling

# 64 px contexts and 32 px targets at patch 8: 8 x 8 context tokens, 4 x 4 target tokens over 2 x 2 to 3 x 3 of them.
SAMPLING = CrossSampling(
    context_fov_um=64,
    target_fov_um=16,
    context_mpp=1.0,
    target_mpp=0.5,
    patch_px=8,
    targets_per_context=3,
    target_margin_um=4,
)
BatchMaker = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def sampling() -> CrossSampling:
    return SAMPLING


@pytest.fixture
def make_batch() -> BatchMaker:
    """make_batch(samples=4, seed=0, corners_um=None (K, 2) from the context's corner) -> batch."""

    def make(samples: int = 4, seed: int = 0, corners_um: np.ndarray | None = None) -> dict[str, torch.Tensor]:
        rng, grid = np.random.default_rng(seed), SAMPLING.context_px // SAMPLING.patch_px
        # Each picture at target spacing: a smooth random field with its own palette.
        coarse = torch.from_numpy(rng.random((samples, 3, 8, 8), np.float32))
        fine = F.interpolate(coarse, size=(128, 128), mode="bicubic").clamp(0, 1)
        targets, boxes, sets = [], [], []
        for sample in range(samples):
            corners = corners_um if corners_um is not None else rng.integers(4, 44, (SAMPLING.targets_per_context, 2))
            box_um = np.concatenate([corners, corners + SAMPLING.target_fov_um], 1).astype(float)
            sets.append(footprint(box_um / SAMPLING.context_output_mpp, SAMPLING.patch_px, grid, grid))
            boxes.append(box_um - SAMPLING.context_fov_um / 2)
            targets.append(
                torch.stack([fine[sample, :, int(2 * y) :, int(2 * x) :][:, :32, :32] for x, y in box_um[:, :2]])
            )
        keep, keep_pad = pad_ragged([one.keep for one in sets])
        asked, asked_pad = pad_ragged([tokens for one in sets for tokens in one.asked])
        shape = (samples, len(boxes[0]), -1)
        return {
            "context": (255 * F.avg_pool2d(fine, 2)).to(torch.uint8),
            "targets": (255 * torch.stack(targets)).to(torch.uint8),
            "context_keep": torch.from_numpy(keep),
            "context_pad": torch.from_numpy(keep_pad),
            "footprint": torch.from_numpy(asked).reshape(shape),
            "footprint_pad": torch.from_numpy(asked_pad).reshape(shape),
            "target_boxes_um": torch.tensor(np.stack(boxes), dtype=torch.float32),
            "context_mpp": torch.full((samples,), SAMPLING.context_output_mpp),
            "target_mpp": torch.full((samples,), SAMPLING.target_output_mpp),
            "slide": torch.arange(samples) // 2,
            "position": torch.arange(samples),
        }

    return make
