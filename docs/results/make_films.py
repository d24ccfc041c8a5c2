"""Two films for run.sh: the echocardiogram of pydicom-data, and a generated beating heart as a 4-D NIfTI.

python docs/results/make_films.py OUT
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

import nibabel
import numpy as np


def beating_heart() -> nibabel.Nifti1Image:
    """96 x 96 x 6 voxels of 2 x 2 x 8 mm, 24 frames of 40 ms: a bright ring whose radius follows a cosine, in noise."""
    rng = np.random.default_rng(0)
    x, y, z = np.mgrid[:96, :96, :6].astype(np.float32)
    frames = []
    for frame in range(24):
        beat = np.cos(2 * np.pi * frame / 12)  # two beats
        radius = (16 + 4 * beat) * (1 - 0.08 * abs(z - 2.5))
        distance = np.hypot(x - 48, y - 44)
        body = 60 * (np.hypot((x - 48) / 44, (y - 48) / 40) < 1)
        ring = 140 * (abs(distance - radius) < 4)
        blood = 90 * (distance < radius - 4)
        frames.append(body + ring + blood + rng.normal(0, 8, x.shape))
    image = nibabel.Nifti1Image(np.stack(frames, -1).astype(np.float32), np.diag([2.0, 2.0, 8.0, 1.0]))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((2.0, 2.0, 8.0, 40.0))
    return image


def main(out: str) -> None:
    """Write OUT/echo/echo.dcm and OUT/heart/heart.nii.gz."""
    for name in ("echo", "heart"):
        (Path(out) / name).mkdir(parents=True, exist_ok=True)
    with resources.as_file(resources.files("data_store") / "data" / "color3d_jpeg_baseline.dcm") as echo:
        shutil.copy(echo, Path(out) / "echo" / "echo.dcm")
    nibabel.save(beating_heart(), Path(out) / "heart" / "heart.nii.gz")


if __name__ == "__main__":
    main(*sys.argv[1:])
