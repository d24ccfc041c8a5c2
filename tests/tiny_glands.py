"""Small images with round glands of six patients, and a tiny SAM 2 in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.models.tiny_sam2 import tiny_sam2

from lamella.models.promptable import save_promptable
from lamella.models.sam2 import Sam2

SIDE, PATIENTS = (48, 60), 6
_SEED = 3  # one whose boxes and clicks are answered differently


def write_glands(folder: Path, images: int = 6) -> Path:
    """A CSV of images with two or three glands each; nobody states a spacing."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["image_id,image_path,mask_path,patient"]
    for number in range(images):
        rng = np.random.default_rng(number)
        mask = np.zeros(SIDE, np.uint8)
        y, x = np.ogrid[: SIDE[0], : SIDE[1]]
        for centre in ((12, 12), (14, 44), (36, 28))[: 2 + number % 2]:
            shift, radius = rng.integers(-3, 4, 2), rng.integers(6, 10)
            mask[(y - centre[0] - shift[0]) ** 2 + (x - centre[1] - shift[1]) ** 2 < radius**2] = 1
        pixels = np.where(mask[..., None] == 1, (110, 60, 130), (220, 180, 200)) + rng.integers(-20, 20, (*SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        rows.append(f"im{number},{number}.png,{number}_mask.png,p{number % PATIENTS}")
    (folder / "glands.csv").write_text("\n".join(rows))
    return folder / "glands.csv"


def write_tiny_sam2(folder: Path, seed: int = 0) -> Path:
    """A model folder that says nothing about what it has seen."""
    save_promptable(listening_sam2(seed), folder, "# tiny\n")
    return folder


def listening_sam2(seed: int = 0) -> Sam2:
    """A tiny SAM 2 whose answers depend on its prompts: with weights as small as `tiny_sam2`'s they hardly do."""
    model = tiny_sam2(_SEED + seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "point_embed" in name or (
                "transformer" in name and name.endswith("weight") and ("proj" in name or "mlp" in name)
            ):
                parameter.mul_(2)
            elif "hypernetworks" in name or "upscale" in name:
                parameter.mul_(3)
    return model
