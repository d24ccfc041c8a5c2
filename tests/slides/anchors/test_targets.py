"""Where targets lie: inside the margin, apart, on tissue; proven once, placed ever after."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lamella.errors import ConfigError, EmptyTissueError
from lamella.geometry import Box, Frame
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import context_corners_um, fitting_thresholds, place_targets, target_grid
from lamella.slides.tissue_map import TissueMap

FULL = TissueMap(np.ones((300, 300), bool), Frame(300, 300, 8.0, 8.0))
PROFILE = CrossSampling()


def overlaps(boxes):
    """(K, K) shared area over the area of one target, 0 on the diagonal."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=-1) / (boxes[0, 2] - boxes[0, 0]) ** 2
    np.fill_diagonal(shared, 0)
    return shared


def blobs(seed, share):
    """A mask of coarse random squares."""
    coarse = np.random.default_rng(seed).random((38, 38)) < share
    return TissueMap(np.kron(coarse, np.ones((8, 8), bool)), Frame(304, 304, 8.0, 8.0))


profiles = st.builds(
    dict,
    context_fov_um=st.sampled_from([256.0, 512.0, 700.0]),
    target_fov_um=st.sampled_from([64.0, 100.0, 128.0]),
    targets_per_context=st.integers(1, 6),
    target_margin_um=st.sampled_from([0.0, 10.0, 16.0, 33.3]),
    max_target_overlap=st.sampled_from([0.0, 0.25, 0.6]),
    align_targets_to_patch_grid=st.booleans(),
    target_attempts=st.sampled_from([0, 3, 64]),
)


@given(
    values=profiles, seed=st.integers(0, 10**6), share=st.floats(0.2, 1.0), x=st.floats(0, 1700), y=st.floats(0, 1700)
)
@settings(max_examples=150, deadline=None)
def test_placements_keep_margin_distance_and_tissue_wherever_the_proof_says_so(values, seed, share, x, y):
    try:
        sampling = CrossSampling(**values)
        target_grid(sampling)
    except (ValidationError, ConfigError):
        assume(False)
    tissue = blobs(seed % 7, share)
    side = sampling.context_fov_um
    center = np.array([[x + side / 2, y + side / 2]])
    (threshold,) = fitting_thresholds(center, tissue, (1.0, 1.0), sampling)
    context = Box.around(*center[0], side)
    if np.isnan(threshold):
        return
    boxes = place_targets(np.random.default_rng(seed), tissue, context, sampling, threshold)
    margin, limit = sampling.target_margin_um, sampling.max_target_overlap
    assert boxes.shape == (sampling.targets_per_context, 4)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], sampling.target_fov_um)
    assert boxes.min() >= margin - 1e-9
    assert boxes.max() <= side - margin + 1e-9
    assert overlaps(boxes).max(initial=0) <= limit + 1e-6
    on_slide = boxes + np.array([context.x0, context.y0] * 2)
    assert tissue.fractions(on_slide).min() >= threshold - 1e-6
    if sampling.align_targets_to_patch_grid:
        lines = boxes[:, :2] / sampling.patch_um
        np.testing.assert_allclose(lines, lines.round(), atol=1e-9)


def test_the_same_generator_gives_the_same_boxes_and_another_gives_others():
    context = Box(100, 200, 612, 712)
    first, again, other = (
        place_targets(np.random.default_rng(seed), FULL, context, PROFILE, 0.25) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("aligned", [False, True])
def test_random_corners_reach_the_whole_range_inside_the_margin(aligned):
    sampling = CrossSampling(align_targets_to_patch_grid=aligned, targets_per_context=1)
    rng = np.random.default_rng(0)
    corners = np.concatenate([place_targets(rng, FULL, Box(0, 0, 512, 512), sampling, 0.25) for _ in range(2000)])
    assert corners[:, :2].min() == pytest.approx(16, abs=1)
    assert corners[:, :2].max() == pytest.approx(512 - 16 - 128, abs=1)


def test_a_narrow_strip_of_tissue_is_found_by_the_grid_where_chance_fails():
    mask = np.zeros((64, 64), bool)
    mask[2:18, :] = True  # the topmost 16..144 um: one row of targets and nothing else
    tissue = TissueMap(mask, Frame(64, 64, 8.0, 8.0))
    sampling = CrossSampling(min_target_tissue_fraction=0.95, when_targets_do_not_fit="skip_anchor")
    (threshold,) = fitting_thresholds(np.array([[256.0, 256.0]]), tissue, (1.0, 1.0), sampling)
    assert threshold == 0.95
    for seed in range(20):
        boxes = place_targets(np.random.default_rng(seed), tissue, Box(0, 0, 512, 512), sampling, threshold)
        assert tissue.fractions(boxes).min() >= 0.95


def test_thresholds_are_lowered_step_by_step_and_no_further_than_needed():
    mask = np.ones((64, 64), bool)
    tissue_of = {}
    for share in (0.3, 0.22, 0.12, 0.05):
        thin = np.zeros((512, 512), bool)
        thin[:, ::1] = (np.arange(512) % 100 < share * 100)[:, None]  # stripes: every box holds about this share
        tissue_of[share] = TissueMap(thin, Frame(512, 512, 1.0, 1.0))
    assert mask.all()
    found = {}
    for share, tissue in tissue_of.items():
        sampling = CrossSampling(context_fov_um=500, target_fov_um=100)  # whole periods of the stripes
        (found[share],) = fitting_thresholds(np.array([[250.0, 250.0]]), tissue, (1.0, 1.0), sampling)
    assert found[0.3] == 0.25
    assert found[0.22] == 0.20
    assert found[0.12] == 0.10
    assert np.isnan(found[0.05])


def test_without_lowering_only_one_threshold_is_tried():
    thin = TissueMap(np.repeat((np.arange(500) % 100 < 22)[:, None], 500, axis=1), Frame(500, 500, 1.0, 1.0))
    sampling = CrossSampling(context_fov_um=500, target_fov_um=100, when_targets_do_not_fit="skip_anchor")
    assert np.isnan(fitting_thresholds(np.array([[250.0, 250.0]]), thin, (1.0, 1.0), sampling)).all()


def test_placing_more_than_fits_is_an_error_not_a_compromise():
    mask = np.zeros((64, 64), bool)
    mask[:17, :17] = True
    tissue = TissueMap(mask, Frame(64, 64, 8.0, 8.0))
    with pytest.raises(EmptyTissueError, match="4 of them with 90% tissue do not fit"):
        place_targets(np.random.default_rng(0), tissue, Box(0, 0, 512, 512), PROFILE, 0.9)


def test_a_tight_profile_that_just_fits_is_accepted():
    # Four targets in a square that holds exactly two side by side at the allowed overlap: 96 + 128 um.
    sampling = CrossSampling(context_fov_um=224, target_margin_um=0)
    assert not np.isnan(fitting_thresholds(np.array([[500.0, 500.0]]), FULL, (1.0, 1.0), sampling)).any()
    boxes = place_targets(np.random.default_rng(1), FULL, Box(388, 388, 612, 612), sampling, 0.25)
    assert overlaps(boxes).max() <= 0.25 + 1e-6


def test_a_profile_whose_aligned_targets_cannot_fit_is_refused():
    # Free targets would just fit; the patch grid of 32 um leaves no second place.
    sampling = CrossSampling(
        context_mpp=2, context_fov_um=256, target_fov_um=128, target_margin_um=16, align_targets_to_patch_grid=True
    )
    with pytest.raises(ConfigError, match=r"targets_per_context: 4 targets .* aligned to the patch grid"):
        target_grid(sampling)


def test_corners_are_computed_as_a_context_box_is():
    centers, mpp = np.array([[1021.3, 777.7], [12345.678, 98765.4321]]), (0.2427, 0.2531)
    corners = context_corners_um(centers, mpp, PROFILE)
    for (x, y), corner in zip(centers.tolist(), corners.tolist(), strict=True):
        box = Frame(1, 1, *mpp).box_um(Box.around(x, y, 512 / mpp[0], 512 / mpp[1]))
        assert corner == [box.x0, box.y0]  # to the last bit: both sides of the proof ask for the same boxes
