from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.dense.tiny_models import ColourModel, ValueModel, array_slide, noise

from lamella.dense.engine import DenseSettings, predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.images import predict_image
from lamella.dense.runtime import tile_side
from lamella.dense.scales import MultiScale, coarser
from lamella.errors import LamellaError
from lamella.formats.ome_zarr import open_raster


class Shown(ColourModel):
    """Remembers what it saw."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.seen: list[torch.Tensor] = []

    def maps(self, images):
        self.seen.append(images)
        return super().maps(images)


def test_one_scale_of_1_is_the_model_itself():
    model, pixels = ColourModel(), noise(90, 70)
    assert (predict_image(MultiScale(model, [1]), pixels) == predict_image(model, pixels)).all()


def test_the_mean_of_two_spacings_on_the_finer_one():
    model = Shown(32, mpp=0.5)
    both = MultiScale(model, [2, 1])
    assert (both.contract.mpp, both.contract.tile_px) == (0.5, 64)
    images = torch.from_numpy(noise(64, 64)).permute(2, 0, 1)[None]
    maps = both.maps(images)
    assert [tuple(seen.shape[-2:]) for seen in model.seen] == [(64, 64), (32, 32)]
    means = noise(64, 64).reshape(32, 2, 32, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(model.seen[1][0].numpy() - means).max() <= 0.5, "rounded to the nearest"
    coarse = torch.nn.functional.interpolate(model.maps(model.seen[1]), (64, 64), mode="bilinear")
    assert maps.numpy() == pytest.approx(((model.maps(images) + coarse) / 2).numpy(), abs=1e-6)
    assert maps.sum(1).numpy() == pytest.approx(1, abs=1e-5)


def test_finer_than_the_model_is_read_from_the_slide_not_enlarged(tmp_path):
    """At 0.5 of its spacing the model sees the slide's own pixels, and the mask has that spacing."""
    model, pixels = Shown(32, mpp=0.5), noise(80, 96)
    slide = array_slide(pixels, 0.25)
    files = ExportSettings(label_tiff=False, geojson=False)
    predict_slide(MultiScale(model, [0.5, 1]), slide, tmp_path / "s", DenseSettings(everywhere=True), exports=files)
    raster = open_raster(tmp_path / "s" / "labels.zarr")
    assert (raster.frame.mpp, raster.levels[0].shape) == (0.25, (80, 96))
    finest = next(seen for seen in model.seen if seen.shape[-1] == 64)
    assert (finest[0].permute(1, 2, 0).numpy() == pixels[:64, :64]).all()


def test_averages_are_rounded_not_cut():
    images = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert coarser(images, 2).flatten().tolist() == [1, 1, 1]
    assert coarser(images, 1) is images


def test_sides_fit_at_every_spacing():
    model = MultiScale(ColourModel(64, multiple_px=32), [1, 2, 3])
    assert model.contract.multiple_px == 32 * 6
    assert tile_side(model) == 192
    strided = MultiScale(ValueModel(64, stride=4), [1, 2])
    assert strided.maps(torch.zeros(1, 3, 128, 128, dtype=torch.uint8)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("scales", "words"),
    [([1, 1.5], "whole multiple of the smallest, 1"), ([], "positive"), ([0, 1], "positive"), ([1, 1], "different")],
)
def test_scales_that_make_no_sense_are_refused(scales, words):
    with pytest.raises(LamellaError, match=words):
        MultiScale(ColourModel(), scales)


def test_a_model_without_spacing_has_no_multiples_of_it():
    with pytest.raises(LamellaError, match="does not state its micrometres"):
        MultiScale(ColourModel(mpp=None), [1, 2])


def test_the_order_of_the_scales_is_no_matter_and_their_values_are():
    model = ColourModel()
    assert MultiScale(model, [1, 2]).fingerprint == MultiScale(model, [2, 1]).fingerprint
    assert len({MultiScale(model, scales).fingerprint for scales in ([1], [1, 2], [0.5, 1])}) == 3
