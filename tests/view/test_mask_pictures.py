"""What is drawn as hidden is what the mask hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lamella.data.masks.exact import Block3dMaskSettings, BlockMaskSettings, Random3dMaskSettings, RandomMaskSettings
from lamella.data.masks.kinds import draw_masks
from lamella.data.masks.mask import Mask
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.data.masks.temporal import TemporalMaskSettings
from lamella.data.masks.tube import LONG_RANGE, SHORT_RANGE
from lamella.view.marks import colour
from lamella.view.mask_pictures import draw_mask_sheet, mask_over_frames, mask_over_image, mask_over_planes
from lamella.view.planes import video_cuts, volume_cuts

FLAT = [RandomMaskSettings(), BlockMaskSettings(), MultiBlockMaskSettings()]
DEEP = [Random3dMaskSettings(), Block3dMaskSettings(), SHORT_RANGE, LONG_RANGE]
PATCH = 8


def noise(*shape: int) -> np.ndarray:
    """No pixel of it has a colour that the drawing uses."""
    return np.random.default_rng(0).integers(0, 120, shape).astype(np.uint8)


def changed(picture: np.ndarray, pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) share of each token's pixels that the drawing changed."""
    different = (picture != pixels).any(-1)
    return different.reshape(rows, pixels.shape[0] // rows, columns, -1).mean((1, 3))


def cells(mask: Mask, numbers: np.ndarray) -> np.ndarray:
    """bool of the grid's shape."""
    chosen = np.zeros(int(np.prod(mask.grid)), bool)
    chosen[numbers] = True
    return chosen.reshape(mask.grid)


@pytest.mark.parametrize("kind", FLAT, ids=lambda kind: kind.name)
@pytest.mark.parametrize("grid", [(6, 7), (14, 14)])
def test_the_pixels_of_the_context_are_left_and_all_others_are_covered(kind: Any, grid: tuple[int, int]) -> None:
    mask = draw_masks(kind, grid, 3, [0])[0]
    pixels = noise(grid[0] * PATCH, grid[1] * PATCH, 3)
    share = changed(mask_over_image(pixels, mask), pixels, *grid)
    shown = cells(mask, mask.context)
    assert (share[shown] == 0).all()
    assert (share[~shown] == 1).all()


def test_every_target_has_its_colour_and_its_line() -> None:
    mask = draw_masks(MultiBlockMaskSettings(context_scale=(0.85, 0.85)), (14, 14), 5, [1])[0]
    pixels = noise(14 * PATCH, 14 * PATCH, 3)
    picture = mask_over_image(pixels, mask)
    top_px = cells(mask, mask.targets[-1]).repeat(PATCH, 0).repeat(PATCH, 1)
    rows, columns = np.nonzero(top_px)
    for corner in ((rows.min(), columns.min()), (rows.max(), columns.max())):
        assert tuple(picture[corner]) == colour(3)  # the last target's line lies on top
    lines = [(picture == colour(number)).all(-1) for number in range(4)]
    for number, line in enumerate(lines):
        inside = cells(mask, mask.targets[number]).repeat(PATCH, 0).repeat(PATCH, 1)
        assert line.any()
        assert inside[line].all()
    neither = ~cells(mask, np.concatenate([mask.context, *mask.targets]))
    pale = picture[neither.repeat(PATCH, 0).repeat(PATCH, 1)].astype(int)
    assert len(pale)
    assert np.ptp(pale, axis=1).max() < 50  # grey: no target's tint


@pytest.mark.parametrize("kind", DEEP, ids=["random3d", "block3d", "short", "long"])
def test_the_planes_of_a_volume_show_the_tokens_that_they_cut(kind: Any) -> None:
    grid, at = (4, 6, 7), (9, 30, 17)
    mask = draw_masks(kind, grid, 1, [2])[0]
    shown = cells(mask, mask.context)
    values = np.random.default_rng(1).random((4 * 4, 6 * PATCH, 7 * PATCH)).astype(np.float32)
    planes = mask_over_planes(values, mask, at)
    plain = [cut.pixels for cut in volume_cuts(values, None, at)]
    expected = [shown[9 // 4], shown[:, 30 // PATCH], shown[:, :, 17 // PATCH]]
    for picture, pixels, tokens in zip(planes, plain, expected, strict=True):
        share = changed(picture, pixels, *tokens.shape)[::-1, ::-1]  # planes are turned as radiologists look at them
        assert (share[tokens] == 0).all()
        assert share[~tokens].min(initial=1) > 0.9  # a grey may by chance be that of the cover


@pytest.mark.parametrize("kind", [SHORT_RANGE, TemporalMaskSettings()], ids=["tube", "temporal"])
def test_the_frames_of_a_film_show_the_tokens_of_their_time(kind: Any) -> None:
    grid = (4, 6, 7)
    mask = draw_masks(kind, grid, 1, [2])[0]
    shown = cells(mask, mask.context)
    frames = noise(8, 6 * PATCH, 7 * PATCH, 3)
    pictures = mask_over_frames(frames, mask)
    assert len(pictures) == 4
    for t, (picture, cut) in enumerate(zip(pictures, video_cuts(frames, 4), strict=True)):
        share = changed(picture, cut.pixels, 6, 7)
        assert (share[shown[t]] == 0).all()
        assert (share[~shown[t]] == 1).all()
        assert np.array_equal(cut.pixels, frames[2 * t + 1])


def test_a_sheet_of_all_kinds_is_written(tmp_path: Path) -> None:
    pixels = noise(56, 56, 3)
    rows = [
        (kind.name, [mask_over_image(pixels, draw_masks(kind, (7, 7), 0, [n])[0]) for n in (0, 1)]) for kind in FLAT
    ]
    draw_mask_sheet(rows, tmp_path / "masks.png", scale=2)
    with Image.open(tmp_path / "masks.png") as sheet:
        assert sheet.width >= 2 * 112
        assert sheet.height >= 3 * 112
        content = np.asarray(sheet)
    assert (content[31 : 31 + 112 : 2, 10 : 10 + 112 : 2] == rows[0][1][0]).all()


def test_a_grid_that_does_not_fit_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="7 x 7 tokens do not divide 50 x 56 pixels"):
        mask_over_image(noise(50, 56, 3), draw_masks(RandomMaskSettings(), (7, 7), 0, [0])[0])
