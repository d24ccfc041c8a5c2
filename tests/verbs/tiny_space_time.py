"""Tiny encoders of volumes and of films, and labelled collections of both, for the tests of the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image

from lamella.models.hub import save_pretrained
from lamella.models.vit import ViT
from lamella.models.volume_encoder import VolumeContract, VolumeEncoder
from lamella.models.volume_vit import VolumeViTSettings

# Enough to run every question, and fast.
QUICK = (
    "random_inits=2", "probes.c_grid=[0.01,1.0]", "probes.control_draws=1", "probes.knn_k=3", "probes.folds=3",
    "nshot.draws=2", "nshot.shots=[2]", "efficiency.draws=2", "efficiency.shares=[0.5,1.0]",
)  # fmt: skip


def volume_model(folder: Path) -> Path:
    contract = VolumeContract("volume", 1, (8, 16, 16), (2, 4, 4), 24, spacing_mm=(2.0, 2.0, 2.0))
    return _saved(folder, "tiny3d", VolumeViTSettings(dim=24, depth=1, heads=2, channels=1, patch=(2, 4, 4)), contract)


def film_model(folder: Path, facts: dict[str, Any] | None = None) -> Path:
    contract = VolumeContract("video", 3, (4, 16, 16), (2, 8, 8), 24, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    settings = VolumeViTSettings(dim=24, depth=1, heads=2, channels=3, patch=(2, 8, 8))
    return _saved(folder, "tinyfilm", settings, contract, facts)


def _saved(
    folder: Path,
    name: str,
    settings: VolumeViTSettings,
    contract: VolumeContract,
    facts: dict[str, Any] | None = None,
) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = VolumeEncoder(ViT(settings), contract, name)
    save_pretrained(encoder, folder, "card", facts=facts)
    return folder


def graded_volumes(folder: Path, *, patients: int = 12) -> Path:
    """One volume a patient: high grade has a bright half, low grade has none; two hospitals."""
    rows = ["case_id,image,label,patient,site"]
    for number in range(patients):
        values = np.random.default_rng(number).normal(100, 10, (40, 36, 20)).astype(np.float32)
        high = number % 2
        values[:20] += 150 * high
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{number}.nii.gz")
        rows.append(f"c{number},{number}.nii.gz,{'HGG' if high else 'LGG'},p{number},s{number // 2 % 2}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def moving_films(folder: Path, *, each: int = 6) -> Path:
    """A folder for each class of GIFs: a bright square that rests, or that crosses the picture."""
    for label, step in (("rest", 0), ("move", 2)):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            rng = np.random.default_rng([step, number])
            frames = rng.integers(0, 40, (12, 20, 24), dtype=np.uint8)
            for at, frame in enumerate(frames):
                frame[4 : 4 + 8, step * at // 2 : step * at // 2 + 8] += 180
            first, *others = (Image.fromarray(frame) for frame in frames)
            first.save(folder / label / f"{label}{number}.gif", save_all=True, append_images=others, duration=40)
    return folder
