from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from tests.dense.refining.test_crf import two_colours

from lamella.dense.refining.bands import refine_maps
from lamella.dense.refining.settings import CrfSettings, EdgeSettings, RefineSettings
from lamella.dense.refining.windows import CORE_PX, halo_px, side_px, windows_over

PLAIN = RefineSettings(use_crf=False, morphological_op="none", edge_refinement=False, min_component_size=0)


def of(**changes: object) -> RefineSettings:
    return RefineSettings.model_validate({**PLAIN.model_dump(), **changes})


def smooth_maps(seed: int, channels: int, height: int, width: int, unseen: float = 0.0) -> np.ndarray:
    """uint8 probabilities with blobs of a few pixels."""
    rng = np.random.default_rng(seed)
    scores = np.exp(20 * gaussian_filter(rng.normal(size=(channels, height, width)), (0, 1.5, 1.5)))
    maps = np.floor(scores / scores.sum(0) * 255 + 0.5).astype(np.uint8)
    maps[:, gaussian_filter(rng.random((height, width)), 3) < unseen] = 0
    return maps


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(4, 40), st.integers(0, 50))
def test_windows_cover_each_pixel_once_and_look_around_as_far_as_the_raster_reaches(height, width, core, halo):
    count = np.zeros((height, width), int)
    for window in windows_over(slice(0, height), height, width, halo, core):
        count[window.core] += 1
        for side, outer, inner, length in zip(window.core, window.outer, window.inner, (height, width), strict=True):
            assert (outer.start, outer.stop) == (max(0, side.start - halo), min(length, side.stop + halo))
            assert (inner.start + outer.start, inner.stop + outer.start) == (side.start, side.stop)
    assert (count == 1).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["none", "closing", "opening"]),
    st.sampled_from([3, 5]),
    st.sampled_from([None, EdgeSettings(width_px=2.5, sigma_px=1.2), EdgeSettings(width_px=6, sigma_px=0.6)]),
    st.sampled_from([0, 12]),
    st.integers(7, 40),
    st.sampled_from([None, 2]),
)
def test_windows_of_any_size_give_what_the_whole_image_gives(seed, change, kernel, edges, least, core, background):
    maps = smooth_maps(seed, 3, 45, 52, unseen=0.48)
    given_ = of(
        morphological_op=change,
        kernel_size=kernel,
        edge_refinement=edges is not None,
        edges=edges or EdgeSettings(),
        min_component_size=least,
    )
    whole = refine_maps(maps, None, given_, background, core_px=100)
    assert (refine_maps(maps, None, given_, background, core_px=core) == whole).all()


def test_with_a_crf_windows_give_it_up_to_what_lies_beyond_the_halo():
    picture, stained = two_colours(160, 200)
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=stained.shape), 2)
    share = np.clip(np.where(stained, 0.6, 0.4) + 2 * noise, 0.02, 0.98)
    maps = np.stack([share, 1 - share]).astype(np.float32)
    given_ = of(use_crf=True, crf=CrfSettings(alike_px=8))
    assert halo_px(given_) == 24
    whole = refine_maps(maps, picture, given_, 1, core_px=200)
    parts = refine_maps(maps, picture, given_, 1, core_px=50)
    assert (whole != maps.argmax(0)).mean() > 0.05, "the CRF does something"
    assert (parts == whole).mean() > 0.995


def test_a_guided_filter_in_windows_is_the_same_up_to_rounding():
    picture, _ = two_colours(90, 110)
    maps = smooth_maps(4, 3, 90, 110)
    given_ = of(use_crf=True, crf=CrfSettings(engine="guided", guided_radius_px=4))
    assert halo_px(given_) == 8
    whole = refine_maps(maps, picture, given_, 2)
    assert (refine_maps(maps, picture, given_, 2, core_px=30) == whole).mean() > 0.9999
    assert (whole != maps.argmax(0)).any()


def test_wide_kernels_get_wide_windows():
    assert side_px(PLAIN) == side_px(of(use_crf=True)) == CORE_PX
    wide = of(use_crf=True, crf=CrfSettings(alike_px=80))
    assert side_px(wide) % CORE_PX == 0
    assert side_px(wide) >= 6 * halo_px(wide)


def test_no_settings_are_the_most_probable_channel_the_first_of_equals():
    maps = smooth_maps(1, 4, 20, 30, unseen=0.45)
    labels = refine_maps(maps, None, PLAIN, None)
    seen = maps.any(0)
    assert 0 < seen.mean() < 1
    assert (labels[seen] == maps.argmax(0)[seen]).all()
    assert (labels[~seen] == 255).all()
    assert (refine_maps(np.zeros((3, 5, 6), np.float32), None, PLAIN, 2) == 255).all()


def test_a_finer_picture_is_averaged_to_the_maps():
    picture, _ = two_colours(40, 60)
    maps = smooth_maps(2, 2, 40, 60)
    given_ = of(use_crf=True)
    finer = picture.repeat(4, 0).repeat(4, 1)
    wanted = refine_maps(maps, picture, given_, 1)
    assert (refine_maps(maps, finer, given_, 1) == wanted).all()
    assert (refine_maps(maps, finer[:-3, :-2], given_, 1) == wanted).all(), "a stride's last cell may be cut"


@pytest.mark.parametrize(
    ("picture", "background", "told"),
    [
        (None, 1, "needs the picture"),
        (np.zeros((40, 60, 3)), 1, "uint8"),
        (np.zeros((40, 95, 3), np.uint8), 1, "under maps of 40 x 60"),
        (np.zeros((40, 60, 3), np.uint8), 2, "background 2 of 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(picture, background, told):
    with pytest.raises(ValueError, match=told):
        refine_maps(smooth_maps(0, 2, 40, 60), picture, of(use_crf=True), background)
    with pytest.raises(ValueError, match="float64"):
        refine_maps(np.ones((2, 3, 3)), None, PLAIN, None)


def test_a_kernel_has_a_middle():
    with pytest.raises(ValueError, match="odd"):
        of(kernel_size=4)
