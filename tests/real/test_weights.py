"""Real weights on real tissue: what a trained network sees, its untrained twin does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lamella.formats.tables import read_csv
from lamella.models.encoders import Encoder, random_twin
from lamella.models.hub import load_encoder

_TILE_PX = 384  # of 0.62 um, then halved: a few glands, and seconds on one core


def middle(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    top, left = ((side - _TILE_PX) // 2 for side in pixels.shape[:2])
    tile = pixels[top : top + _TILE_PX, left : left + _TILE_PX].reshape(_TILE_PX // 2, 2, _TILE_PX // 2, 2, 3)
    return torch.from_numpy(tile.mean((1, 3)).round().astype(np.uint8)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def glands(real_data: Path) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Tiles, malignant or not, and patients."""
    folder = real_data / "segmentation" / "glas"
    rows = list(read_csv(folder / "manifest.csv"))
    tiles = torch.stack([middle(folder / row["image_path"]) for row in rows])
    return tiles, np.array([row["label"] == "malignant" for row in rows]), np.array([row["patient"] for row in rows])


def balanced_accuracy(encoder: Encoder, glands: tuple[torch.Tensor, np.ndarray, np.ndarray]) -> float:
    """Of a linear probe, patients held out together."""
    tiles, malignant, patients = glands
    with torch.inference_mode():
        features = torch.cat([encoder.pooled(part) for part in tiles.split(8)]).numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500))
    guessed = cross_val_predict(probe, features, malignant, groups=patients, cv=GroupKFold(5))
    return float(balanced_accuracy_score(malignant, guessed))


def test_imagenet_weights_tell_malignant_glands_better_than_random_ones(glands) -> None:
    trained = load_encoder("efficientnet-lite0")
    accuracy = balanced_accuracy(trained, glands)
    twins = [balanced_accuracy(random_twin(trained, seed), glands) for seed in range(2)]
    print(f"balanced accuracy: ImageNet {accuracy:.3f}, untrained {', '.join(f'{twin:.3f}' for twin in twins)}")
    assert accuracy > 0.8
    assert accuracy > max(twins) + 0.05
