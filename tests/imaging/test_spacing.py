"""Resampling: exact for what is linear, free of aliasing, in place; labels never mixed."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.imaging.measured import Volume
from lamella.imaging.spacing import fit, resample_volume, resize_image, resized_length, respaced

SPACING = st.floats(0.5, 4)
TRIPLES = st.tuples(SPACING, SPACING, SPACING)


def centres(count, spacing):
    return (np.arange(count) + 0.5) * spacing


@settings(max_examples=50, deadline=None)
@given(TRIPLES, TRIPLES)
def test_a_ramp_stays_the_same_ramp_in_millimetres(spacing, target):
    """Linear interpolation and symmetric averages keep a plane exactly, away from the edges."""
    shape = (9, 11, 13)
    grid = np.meshgrid(*[centres(n, s) for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    ramp = (1 + 2 * grid[0] - 3 * grid[1] + 0.5 * grid[2]).astype(np.float32)
    found = resample_volume(ramp[None], spacing, target)[0]
    assert found.shape == tuple(resized_length(n, s, t) for n, s, t in zip(shape, spacing, target, strict=True))
    places = [centres(n, t) for n, t in zip(found.shape, target, strict=True)]
    inside = [
        (place >= s / 2 + max(s, t)) & (place <= n * s - s / 2 - max(s, t))
        for place, n, s, t in zip(places, shape, spacing, target, strict=True)
    ]
    there = np.meshgrid(*places, indexing="ij")
    expected = 1 + 2 * there[0] - 3 * there[1] + 0.5 * there[2]
    kept = np.ix_(*inside)
    # A triangle sampled at few old voxels has its centre of mass off by a share of an old voxel.
    slack = 1e-3 + sum(abs(k) * s * 0.15 for k, s, t in zip((2, 3, 0.5), spacing, target, strict=True) if t > s)
    np.testing.assert_allclose(found[kept], expected[kept], atol=slack)


@settings(max_examples=30, deadline=None)
@given(TRIPLES, TRIPLES, st.integers(0, 99))
def test_values_stay_within_those_around_them(spacing, target, seed):
    values = np.random.default_rng(seed).normal(size=(2, 5, 6, 7)).astype(np.float32)
    found = resample_volume(values, spacing, target)
    assert found.dtype == np.float32
    assert found.min() >= values.min() - 1e-5
    assert found.max() <= values.max() + 1e-5


def test_going_finer_is_simpleitks_linear_interpolation():
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((3.0, 2.0, 1.0))
    target = (0.5, 1.0, 1.5)  # z, y, x
    size = [resized_length(n, s, t) for n, s, t in zip((7, 6, 5), (3, 2, 1), target[::-1], strict=True)]
    origin = [t / 2 - s / 2 for s, t in zip((3, 2, 1), target[::-1], strict=True)]
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, origin, target[::-1], np.eye(3).ravel(), 0.0)
    )
    ours = resample_volume(values, (1, 2, 3), target)
    inner = (slice(1, -1),) * 3  # SimpleITK has nothing beyond the centres of the outermost voxels
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


def test_the_same_spacing_changes_nothing():
    values = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(resample_volume(values, (1, 2, 3), (1, 2, 3)), values)


def test_going_coarser_does_not_alias():
    """A pattern finer than the new voxels must vanish; picking every third voxel would keep it whole."""
    stripes = np.where(np.arange(90) % 2, 1, -1).astype(np.float32)
    for axis in range(3):
        values = np.moveaxis(np.broadcast_to(stripes, (4, 5, 90)), 2, axis)
        target = tuple(3.0 if place == axis else 1.0 for place in range(3))
        assert np.abs(resample_volume(values, (1, 1, 1), target)).max() < 0.15


def test_means_are_kept():
    values = np.random.default_rng(0).random((1, 32, 32, 32)).astype(np.float32)
    assert resample_volume(values, (1, 1, 1), (2, 2, 2)).mean() == pytest.approx(values.mean(), abs=0.01)


@settings(max_examples=30, deadline=None)
@given(TRIPLES, TRIPLES)
def test_labels_are_never_mixed(spacing, target):
    labels = np.random.default_rng(0).choice([0, 3, 200], (5, 6, 7)).astype(np.uint8)
    found = resample_volume(labels, spacing, target, labels=True)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {0, 3, 200}
    assert found.shape == resample_volume(labels.astype(np.float32), spacing, target).shape


def test_labels_stay_in_their_place():
    labels = np.zeros((1, 1, 10), np.uint8)
    labels[0, 0, 4:6] = 1
    np.testing.assert_array_equal(
        resample_volume(labels, (1, 1, 1), (1, 1, 0.5), labels=True)[0, 0], [0] * 8 + [1] * 4 + [0] * 8
    )


@pytest.mark.parametrize("target", [(0, 1, 1), (1, -1, 1)])
def test_a_spacing_of_0_is_refused(target):
    with pytest.raises(ValueError, match="above 0"):
        resample_volume(np.zeros((2, 2, 2)), (1, 1, 1), target)


def test_the_affine_moves_with_the_spacing():
    """The corner of the volume stays where it is; so does a ramp over its millimetres."""
    affine = np.array([[2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    volume = Volume(np.zeros((1, 8, 8, 8), np.float32), "HU", (4, 3, 2), affine)
    found = respaced(volume, (2, 2, 2))
    assert found.values_CZYX.shape == (1, 16, 12, 8)
    assert found.spacing_mm == (2, 2, 2)
    corner = np.array([-0.5, -0.5, -0.5, 1])
    np.testing.assert_allclose(found.affine @ corner, affine @ corner)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0), 2)


# ---- images ---------------------------------------------------------------------------------------------------------


def test_resizing_is_antialiased_in_every_dtype():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for pixels in (stripes, np.stack([stripes] * 3, axis=-1), stripes.astype(np.float32)):
        found = resize_image(pixels, 16, 16)
        assert (found.shape[:2], found.dtype) == ((16, 16), pixels.dtype)
        assert np.abs(found[2:-2, 2:-2].astype(float) - 127.5).max() < 20
    assert resize_image(stripes, 64, 64) is stripes


@pytest.mark.parametrize(("shape", "keep", "expected"), [
    ((20, 40), "crop", (8, 8)), ((20, 40, 3), "pad", (8, 8, 3)), ((20, 41), "stretch", (8, 8)),
    ((41, 20), "crop", (8, 8)), ((3, 400), "pad", (8, 8)), ((7, 7), "crop", (8, 8)),
])  # fmt: skip
def test_fit_makes_a_square(shape, keep, expected):
    assert fit(np.ones(shape, np.uint8), 8, keep).shape == expected


def test_fit_keeps_the_middle_or_everything():
    picture = np.zeros((10, 30), np.uint8)
    picture[:, :10] = 90  # left third
    picture[:, 10:20] = 200
    np.testing.assert_array_equal(fit(picture, 10, "crop"), np.full((10, 10), 200))
    padded = fit(picture, 30, "pad")
    assert (padded[:10].max(), padded[20:].max()) == (0, 0)
    np.testing.assert_array_equal(padded[10:20], picture)
