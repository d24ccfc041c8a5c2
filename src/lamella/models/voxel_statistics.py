"""Grey values of a volume or film without learning: what a network must beat to have learned more than brightness.

Shapes: B volumes, C channels, Z slices (or frames), Y rows, X columns, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The volume reduced to 8 x 8 x 8 shows where it is bright; more voxels only add noise to a probe.
_SIDE = 8
# Twentieths: enough for the shape of a histogram.
_QUANTILES = 21
# Voxels that are sorted for the quantiles: every n-th of a larger volume moves them in the third digit.
_ENOUGH = 2**20

VERSION = 1  # in the name of stored features


def voxel_statistics(values: Tensor) -> Tensor:
    """Of each channel an 8 x 8 x 8 thumbnail of the whole volume, 21 quantiles, the mean and the deviation.

    Args:
        values: (B, C, Z, Y, X) of any type; prepared as the network is shown them.

    Returns:
        (B, C * 535) float32, on the scale of the values.
    """
    values = values.float()
    thumbnail = F.adaptive_avg_pool3d(values, _SIDE).flatten(2)
    flat = values.flatten(2)
    few = flat[..., :: max(1, flat.shape[-1] // _ENOUGH)]
    at = torch.linspace(0, few.shape[-1] - 1, _QUANTILES, device=few.device).round().long()
    quantiles = few.sort(dim=-1).values[..., at]
    moments = torch.stack([flat.mean(-1), flat.std(-1)], dim=-1)
    return torch.cat([thumbnail, quantiles, moments], dim=-1).flatten(1)
