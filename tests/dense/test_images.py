from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from tests.dense.tiny_models import ColourModel, PlaceInTileModel, ValueModel, noise

from lamella.dense.blending import BlendSettings, window, window_1d
from lamella.dense.images import predict_image
from lamella.errors import LamellaError


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("window", "tta"),
    [("gaussian", "none"), ("gaussian", "d4"), ("hann", "none"), ("hann", "flips"), ("constant", "none")],
)
@pytest.mark.parametrize(("height", "width"), [(200, 150), (64, 64), (65, 191), (20, 300), (7, 5)])
def test_of_a_model_that_knows_the_answer_no_seam_is_left(window, tta, height, width):
    model, pixels = ColourModel(), noise(height, width)
    given = predict_image(model, pixels, BlendSettings(window=window, tta=tta, overlap=0.3), batch_size=3)
    assert given.dtype == np.float32
    assert given.shape == (3, height, width)
    assert given == pytest.approx(model.maps(as_batch(pixels))[0].numpy(), abs=2e-6)


@pytest.mark.parametrize("name", ["gaussian", "hann", "constant"])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_as_monai_blends_with_the_same_weights(name, overlap):
    # Whole steps of 48 and of 32 px: both have the same tiles. MONAI raises weights below 0.001, so ours are larger.
    model, pixels, scale = PlaceInTileModel(), noise(64 + 2 * 96, 64 + 96), 1e9
    weights = window(name, 64) * scale
    wanted = sliding_window_inference(
        as_batch(pixels).float(), (64, 64), 4, model.maps, overlap=overlap, roi_weight_map=weights
    )
    given = predict_image(model, pixels, BlendSettings(window=name, overlap=overlap), batch_size=4)
    assert given == pytest.approx(wanted[0].numpy(), abs=1e-5)


def test_the_gaussian_is_monais_above_what_monai_raises():
    ours, theirs = window("gaussian", 64), compute_importance_map((64, 64), mode="gaussian", sigma_scale=1 / 8)
    # MONAI's integrates the density over each pixel, ours takes it at the pixel's centre: 0.4 % apart.
    assert (ours / ours.max()).clamp(min=1e-3).numpy() == pytest.approx((theirs / theirs.max()).numpy(), abs=0.005)


def test_between_two_tiles_the_nearer_one_counts_more():
    class Number(ColourModel):
        """The first tile is all of class 0, the second all of class 1."""

        def maps(self, images):
            numbers = torch.arange(len(images)) % 2
            return torch.nn.functional.one_hot(numbers, 3).float()[:, :, None, None].expand(-1, -1, 64, 64)

    first, second, _ = predict_image(Number(), noise(64, 112), BlendSettings(window="hann"), batch_size=2)
    assert (first[:, :48] == 1).all()
    assert (second[:, 64:] == 1).all()
    line = window_1d("hann", 64)
    assert first[10, 48:64] == pytest.approx(line[48:] / (line[48:] + line[:16]), abs=1e-6)
    assert first[10, 48:64] + second[10, 48:64] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batches_do_not_matter(batch_size):
    model, pixels = PlaceInTileModel(), noise(150, 130)
    assert (predict_image(model, pixels, batch_size=batch_size) == predict_image(model, pixels, batch_size=2)).all()
    assert max(model.batches) <= max(batch_size, 2)


@pytest.mark.parametrize(("height", "width"), [(128, 96), (130, 97), (5, 200)])
def test_maps_of_a_stride_are_as_many_pixels_as_they_reach_over(height, width):
    model, pixels = ValueModel(stride=4), noise(height, width)
    given = predict_image(model, pixels, BlendSettings(overlap=0.5))
    rows, columns = -(-height // 4), -(-width // 4)
    assert given.shape == (2, rows, columns)
    padded = np.full((rows * 4, columns * 4, 3), 255, np.uint8)  # white outside, as slides are
    padded[:height, :width] = pixels
    means = padded.reshape(rows, 4, columns, 4, 3).mean((1, 3))
    assert given[0] == pytest.approx(means[..., 0] - 100, abs=1e-3)
    assert given[1] == pytest.approx(means[..., 1] * 3, abs=1e-3)


def test_the_models_mode_is_left_alone_and_nothing_is_kept_for_gradients():
    class Learning(torch.nn.Module, ColourModel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            ColourModel.__init__(self)
            self.scale = torch.nn.Parameter(torch.ones(()))

        def maps(self, images):
            maps = ColourModel.maps(self, images) * self.scale
            assert not maps.requires_grad
            return maps

    model = Learning().train()
    predict_image(model, noise(70, 70))
    assert model.training


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (noise(9, 9).astype(np.float32), "float32"),
        (noise(9, 9)[..., 0], r"\(9, 9\)"),
        (np.zeros((0, 9, 3), np.uint8), "0, 9"),
        (np.zeros((9, 9, 4), np.uint8), "9, 4"),
    ],
)
def test_what_is_no_image_is_refused(pixels, words):
    with pytest.raises(ValueError, match=words):
        predict_image(ColourModel(), pixels)


def test_tiles_that_the_model_cannot_take_are_refused():
    with pytest.raises(LamellaError, match=r"multiples of 16 px.*its own is 64"):
        predict_image(ColourModel(multiple_px=16), noise(99, 99), tile_px=50)
    with pytest.raises(LamellaError, match=r"stride, 4"):
        predict_image(ValueModel(stride=4), noise(99, 99), tile_px=42)


def test_a_model_that_breaks_its_contract_is_named():
    class Wrong(ColourModel):
        def maps(self, images):
            return super().maps(images)[..., ::2]

    with pytest.raises(LamellaError, match=r"colour: its maps are \(4, 3, 64, 32\), not \(4, 3, 64, 64\)"):
        predict_image(Wrong(), noise(99, 99))
