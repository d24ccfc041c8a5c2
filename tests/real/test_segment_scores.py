"""The counts of a segmentation on real gland masks, against MONAI and against what must be so."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.imaging.intensity import IntensitySettings
from lamella.metrics.segments.boundary import Outlines
from lamella.metrics.segments.confusion import confusion_of, dice_per_class
from lamella.metrics.segments.objects import ALL, FOUND, TrueObjects
from lamella.verbs.evaluation.segment_images import judged_image


@pytest.fixture(scope="module")
def images(real_data: Path):
    settings = DatasetSettings(mpp=0.62)
    collection = open_collection(real_data / "segmentation" / "glas" / "manifest.csv", settings)
    return [judged_image(collection, item, IntensitySettings()) for item in collection.items[:6]]


def test_the_truth_itself_is_perfect_and_moved_by_three_pixels_is_two_micrometres_off(images):
    for image in images:
        truth, um = image.channels_YX, image.spacing_um
        assert um == pytest.approx((0.62, 0.62))
        unknown = np.zeros(truth.shape, bool)
        own = Outlines(truth, unknown, um, 2)
        np.testing.assert_allclose(own.scores(own, 3.0), [[1, 0], [1, 0]])
        moved = own.scores(Outlines(np.roll(truth, 3, axis=0), unknown, um, 2), 3 * 0.62 + 1e-9)
        assert (moved[:, 0] > 0.9).all()
        objects = TrueObjects(truth, 2, um[0] * um[1], (500.0, 5000.0), 0).found(truth)
        np.testing.assert_array_equal(objects[..., FOUND], objects[..., ALL])
        assert objects[1].sum() > 0


def test_dice_of_the_next_images_truth_is_monais(images):
    for image, other in itertools.pairwise(images):
        height, width = np.minimum(image.channels_YX.shape, other.channels_YX.shape)
        truth, called = (each.channels_YX[:height, :width] for each in (image, other))
        masks = [
            torch.from_numpy(np.stack([labels == number for number in range(2)])[None].astype(np.float32))
            for labels in (called, truth)
        ]
        theirs = compute_dice(*masks, include_background=True)[0].numpy()
        np.testing.assert_allclose(dice_per_class(confusion_of(truth, called, 2)), theirs, rtol=1e-5)
