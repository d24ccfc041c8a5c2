"""The teacher of the JEPA methods: a slow average of the encoder that learns (I-JEPA, arXiv 2301.08243)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(teacher: nn.Module, encoder: nn.Module, start: float, end: float, progress: float) -> None:
    """Move the teacher's weights towards the encoder's, in place, once after an optimiser step.

    Args:
        teacher: Same architecture as the encoder.
        encoder: What learns.
        start: Share of itself that the teacher keeps per step, at the start of training.
        end: And at the end; linear in between.
        progress: Share of the training done; beyond 0 to 1 it counts as 0 or 1.
    """
    keep = start + (end - start) * min(1.0, max(0.0, progress))
    torch._foreach_lerp_(list(teacher.parameters()), list(encoder.parameters()), weight=1 - keep)
