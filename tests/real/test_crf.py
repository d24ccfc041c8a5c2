"""The CRF of this package beside its authors' code, on H&E."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from lamella.dense.refining.bands import refine_maps
from lamella.dense.refining.crf import crf_probabilities
from lamella.dense.refining.settings import CrfSettings, RefineSettings

NAMES = ("train_11", "train_40", "testA_10")


def case(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, mask, and probabilities as of a model: coarse at edges, unsure in places."""
    picture = np.asarray(Image.open(folder / "images" / f"{name}.jpg").convert("RGB"))[:300, :400]
    mask = np.asarray(Image.open(folder / "masks" / f"{name}.png"))[:300, :400] > 0
    noise = gaussian_filter(np.random.default_rng(0).normal(size=mask.shape), 6)
    score = 5 * gaussian_filter(mask.astype(np.float32), 10) - 2.5 + 1.5 * noise / noise.std()
    share = (1 / (1 + np.exp(-score))).astype(np.float32)
    return picture, mask, np.stack([share, 1 - share])


@pytest.mark.parametrize("name", NAMES)
def test_both_give_the_same_on_real_tiles(real_data, name):
    pytest.importorskip("pydensecrf", reason="the extra `crf` is not installed")
    picture, _, maps = case(real_data / "segmentation" / "glas", name)
    for given in (CrfSettings(), CrfSettings(alike_px=80, alike_weight=10, iterations=10)):  # the authors' example
        own = crf_probabilities(maps, picture, given)
        original = crf_probabilities(maps, picture, given.model_copy(update={"engine": "pydensecrf2"}))
        assert (own.argmax(0) == original.argmax(0)).mean() >= 0.9999
        assert np.abs(own - original).mean() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refined_lies_nearer_to_the_truth(real_data, name):
    picture, mask, maps = case(real_data / "segmentation" / "glas", name)
    before = ((maps.argmax(0) == 0) == mask).mean()
    for given in (RefineSettings(), RefineSettings(use_crf=True)):
        assert ((refine_maps(maps, picture, given, 1) == 0) == mask).mean() > before
