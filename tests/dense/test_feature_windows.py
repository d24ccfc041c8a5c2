"""Which level makes a view's tokens, and the windows that cover a slide with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.dense.feature_windows import Windows, level_for, own_mpp
from lamella.errors import LamellaError
from lamella.geometry import Frame
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.colour import ColourPyramid
from lamella.models.pyramids.efficientnet import fresh_efficientnet
from lamella.models.vit import ViTSettings
from lamella.slides.tissue_map import TissueMap


def own_vit(mpp: float | None = 1.0) -> EncoderGrid:
    contract = InputContract(mpp, 64, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    vit = fresh_vit(ViTSettings(patch_px=8, dim=16, depth=1, heads=2), seed=0)
    return EncoderGrid(ViTEncoder(vit, contract, "own"), mpp)


@pytest.mark.parametrize(
    ("token_um", "slide_mpp", "stride", "mpp"),
    [
        (2, 0.275, 4, 0.5),  # the source's scales, near EfficientNet's own 0.5
        (8, 0.275, 16, 0.5),
        (32, 0.275, 32, 1.0),
        (128, 0.275, 32, 4.0),
        (12.8, 3.2, 4, 3.2),  # of a coarse slide not a level that would need pixels blown up
        (25.6, 3.2, 8, 3.2),
        (102.4, 3.2, 32, 3.2),
    ],
)
def test_the_level_is_nearest_to_the_encoders_own_spacing(
    token_um: float, slide_mpp: float, stride: float, mpp: float
) -> None:
    level = level_for(fresh_efficientnet(), token_um, slide_mpp)
    assert (level.stride, level.mpp) == (stride, pytest.approx(mpp))
    assert level.width == dict(zip((4, 8, 16, 32), (24, 40, 112, 320), strict=True))[stride]


def test_a_stated_spacing_is_kept_or_refused() -> None:
    backbone = ColourPyramid()
    assert level_for(backbone, 8, 0.5, mpp=1.0).stride == 8
    with pytest.raises(LamellaError, match=r"colour makes such tokens of pixels of 2 \(stride 4\), 1 \(stride 8\)"):
        level_for(backbone, 8, 0.5, mpp=0.7)


def test_own_encoders_have_their_own_spacing() -> None:
    assert own_mpp(own_vit(2.0)) == 2.0
    assert own_mpp(own_vit(None)) == own_mpp(fresh_efficientnet()) == 0.5
    assert level_for(own_vit(), 16, 0.25).mpp == 2.0


OWN_VIT = own_vit()


@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from([2.0, 6.4, 8.0, 50.0]), st.floats(0.2, 1.3), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_windows_cover_every_token_once(
    width_px: int, height_px: int, token_um: float, mpp: float, is_vit: bool
) -> None:
    frame = Frame(width_px, height_px, mpp, mpp * 1.02)
    backbone = OWN_VIT if is_vit else ColourPyramid()
    windows = Windows.over(frame, backbone, level_for(backbone, token_um, frame.mpp))
    tissue = TissueMap(np.ones((3, 3), bool), frame.resized(3, 3))
    count = np.zeros((windows.rows, windows.columns), int)
    for row, column in np.argwhere(windows.kept(tissue, 10)):
        rows, columns = windows.tokens(int(row), int(column))
        count[rows, columns] += 1
        assert windows.inside(int(row), int(column)).shape == count[rows, columns].shape
    assert (count == 1).all()
    assert windows.columns * token_um > frame.size_um[0] - 1e-3 > (windows.columns - 1) * token_um - 2e-3
    assert windows.side_px % backbone.multiple_px == 0
    assert windows.halo > 0


def test_a_window_is_read_around_its_core_and_in_step_with_the_others() -> None:
    backbone = fresh_efficientnet()
    frame = Frame(9000, 9000, 0.25, 0.25)
    windows = Windows.over(frame, backbone, level_for(backbone, 8, frame.mpp, trained=False))
    box = windows.box_px0(1, 2)
    side = (windows.core + 2 * windows.halo) * 8 / 0.25
    assert (box.width, box.height) == (side, side)
    assert box.x0 == (2 * windows.core - windows.halo) * 8 / 0.25
    assert box.y0 == (windows.core - windows.halo) * 8 / 0.25
    for tokens in (windows.core, windows.halo):  # or strides inside the network would divide windows unlike
        assert tokens * windows.level.stride % backbone.multiple_px == 0
    # 7.5 px of 0.5 um right of and below the middle of the first 8 um.
    assert windows.first_px0 == ((4 + 3.75) / 0.25,) * 2


def test_tokens_over_the_edge_are_not_inside() -> None:
    """A slide of 3.5 x 2 tokens of 8 um; those that look half a token further lose the last ones."""
    frame, plain = Frame(56, 32, 0.5, 0.5), ColourPyramid()
    windows = Windows.over(frame, plain, level_for(plain, 8, 0.5))
    assert windows.inside(0, 0).tolist() == [[True, True, True, False]] * 2
    shifted = fresh_efficientnet()
    windows = Windows.over(frame, shifted, level_for(shifted, 8, 0.5, trained=False))
    assert windows.inside(0, 0).tolist() == [[True, True, True, False], [False] * 4]


def test_windows_far_from_tissue_are_left_out() -> None:
    frame, backbone = Frame(8000, 4000, 0.5, 0.5), ColourPyramid()
    windows = Windows.over(frame, backbone, level_for(backbone, 2, 0.5))
    mask = np.zeros((40, 80), bool)
    mask[5, 5] = True  # at 50 um of 4,000
    tissue = TissueMap(mask, frame.resized(80, 40))
    near = windows.kept(tissue, 1)
    assert near.sum() == 1
    assert near[0, 0]
    side_um = windows.core * 2
    assert windows.kept(tissue, side_um).sum() > 1
    assert not windows.kept(tissue, side_um)[:, 3:].any()
