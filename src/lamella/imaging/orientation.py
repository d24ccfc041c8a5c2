"""Where voxels lie: from the patient coordinates of DICOM and NIfTI to one order, RAS+."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

# DICOM counts to the left and the back (LPS), NIfTI and Lamella to the right and the front (RAS).
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Axes of a volume stand at right angles; 1 degree moves the far end of 128 voxels by 2.
_MOST_SKEW = np.cos(np.radians(89.0))


@dataclass(frozen=True)
class Placed:
    """Voxels in RAS+ order.

    Attributes:
        values_CZYX: float32.
        spacing_mm: (z, y, x).
        affine: (4, 4), from (x, y, z) indices to RAS millimetres.
    """

    values_CZYX: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray


def to_ras(values_XYZC: np.ndarray, affine: np.ndarray) -> Placed:
    """Turn and mirror whole axes so that x grows to the right, y to the front and z to the head, as nearly as they do.

    Args:
        values_XYZC: Voxels in the file's order.
        affine: (4, 4), from their (x, y, z) indices to RAS millimetres.

    Raises:
        ValueError: The affine has an axis without length, or axes that are not at right angles.
    """
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        raise ValueError(f"its voxel spacing is {', '.join(f'{length:g}' for length in lengths)} mm")
    cosines = (columns / lengths).T @ (columns / lengths)
    if np.abs(cosines - np.eye(3)).max() > _MOST_SKEW:
        raise ValueError("its axes are not at right angles to each other")
    order = io_orientation(affine)
    turned = apply_orientation(values_XYZC, order)
    affine_ras = affine @ inv_ornt_aff(order, values_XYZC.shape[:3])
    x, y, z = np.linalg.norm(affine_ras[:3, :3], axis=0)
    values_CZYX = np.ascontiguousarray(turned.transpose(3, 2, 1, 0), np.float32)
    return Placed(values_CZYX, (float(z), float(y), float(x)), affine_ras)
