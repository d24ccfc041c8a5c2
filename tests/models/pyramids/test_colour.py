"""The colour backbone: numbers whose meaning is known, from the token's own pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lamella.models.pyramids.building import backbone_from
from lamella.models.pyramids.colour import NAMES, ColourPyramid


def images(seed: int = 0, side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, 96), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_levels_have_the_sizes_that_are_stated() -> None:
    backbone = ColourPyramid()
    levels = backbone(images())
    assert [each.shape for each in levels] == [(2, len(NAMES), 64 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert backbone.widths == (len(NAMES),) * 4
    for number, level in enumerate(levels):
        assert torch.equal(backbone.level(images(), number), level)
        assert level.isfinite().all()


def test_a_token_says_what_numpy_says_of_its_pixels() -> None:
    """Token (1, 2) at stride 16 is pixels 16 to 32 down and 32 to 48 across."""
    said = dict(zip(NAMES, ColourPyramid()(images())[2][0, :, 1, 2].tolist(), strict=True))
    pixels = images()[0, :, 16:32, 32:48].numpy().astype(np.float64)
    density = -np.log10((pixels + 1) / 256)
    stains = np.linalg.lstsq(np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]]).T, density.reshape(3, -1))[0]
    expected = {
        "mean_red": pixels[0].mean() / 255,
        "mean_green": pixels[1].mean() / 255,
        "mean_blue": pixels[2].mean() / 255,
        "density_green": density[1].mean(),
        "deviation_blue": density[2].std(),
        "haematoxylin": stains[0].mean(),
        "haematoxylin_deviation": stains[0].std(),
        "haematoxylin_most": stains[0].max(),
        "eosin": stains[1].mean(),
        "red_5%": np.quantile(pixels[0], 0.05) / 255,
        "green_50%": np.median(pixels[1]) / 255,
        "blue_95%": np.quantile(pixels[2], 0.95) / 255,
        "nuclei": (1 / (1 + np.exp(-(stains[0] - 0.35) / 0.1))).mean(),
    }
    assert {name: said[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_texture_tells_a_chequerboard_from_its_mean_and_fine_from_coarse() -> None:
    row, column = np.mgrid[:64, :64]

    def of(square_px: int) -> dict[str, float]:
        board = np.where((row // square_px + column // square_px) % 2, 200, 60).astype(np.uint8)
        image = torch.from_numpy(np.repeat(board[None, None], 3, axis=1))
        return dict(zip(NAMES, ColourPyramid().level(image, 3)[0, :, 0, 0].tolist(), strict=True))

    fine, coarse, flat = of(1), of(8), of(64)
    assert fine["mean_red"] == pytest.approx(coarse["mean_red"], abs=1e-6)
    assert fine["band_fine"] > 2 * coarse["band_fine"]
    assert coarse["band_coarse"] > 2 * fine["band_coarse"]
    assert coarse["gradient"] > 0.01
    assert max(flat["gradient"], flat["band_fine"], flat["band_coarse"]) < 1e-6


def test_a_token_looks_at_itself_and_a_few_pixels_around() -> None:
    one, other = images(), images()
    other[..., :16, :] = 0
    same = torch.isclose(ColourPyramid()(one)[0], ColourPyramid()(other)[0]).all(1)
    assert same[:, 6:].all()  # 8 px below the change
    assert not same[:, :4].any()


def test_the_description_builds_the_same_and_there_is_nothing_to_train() -> None:
    backbone = ColourPyramid()
    told = json.loads(json.dumps({"kind": backbone.kind, **backbone.description()}))
    again = backbone_from(told, "config.json")
    assert torch.equal(again(images())[1], backbone(images())[1])
    assert not list(backbone.parameters())
    assert backbone.licence == "no weights"


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        ColourPyramid()(images().float())
    with pytest.raises(ValueError, match="multiples of 32"):
        ColourPyramid().level(images(side=40), 0)
