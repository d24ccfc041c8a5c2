import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.made_collections import made_collection, made_film, made_volume

from lamella.data.volumes import PreparedVolumes, VolumeDataSettings, body_share, cut
from lamella.errors import ImageError
from lamella.imaging.intensity import to_network


def prepared(volume, masks=None, **changes):
    collection = made_collection("volume", {"a": volume}, masks=masks)
    return PreparedVolumes(collection, VolumeDataSettings(**changes)), collection.items[0]


def test_values_are_normalised_and_brought_to_the_spacing():
    volume = made_volume((2, 6, 8, 10), spacing_mm=(4.0, 1.0, 0.5))
    volumes, item = prepared(volume, spacing_mm=(2.0, 1.0, 1.0))
    values = volumes.values(item)
    assert (values.shape, values.dtype) == ((2, 12, 8, 5), np.float32)
    assert not values.flags.writeable
    assert volumes.prepared(item).spacing_mm == (2.0, 1.0, 1.0)
    assert volumes.prepared(item).source_spacing_mm == (4.0, 1.0, 0.5)


def test_without_a_spacing_volumes_stay_as_they_are():
    volume = made_volume(spacing_mm=(6.5, 0.7, 0.7))
    volumes, item = prepared(volume, spacing_mm=None)
    np.testing.assert_array_equal(volumes.values(item), to_network(volume))
    assert volumes.prepared(item).spacing_mm == (6.5, 0.7, 0.7)


def test_masks_lie_on_the_same_grid_and_their_classes_are_not_mixed():
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[:3, :, 5:] = 4
    volumes, item = prepared(made_volume(spacing_mm=(4.0, 1.0, 1.0)), {"a": labels}, spacing_mm=(2.0, 2.0, 1.0))
    mask = volumes.mask(item)
    assert mask.shape == volumes.values(item).shape[1:] == (12, 4, 10)
    assert set(np.unique(mask)) == {0, 4}
    np.testing.assert_array_equal(mask[:, 0, 5] == 4, np.arange(12) < 6)


def test_masks_of_another_grid_or_none_are_errors():
    volumes, item = prepared(made_volume(), {"a": np.zeros((6, 8, 9), np.uint8)}, spacing_mm=None)
    with pytest.raises(ImageError, match=r"a_mask.nii.gz: its grid \(6, 8, 9\) is not its volume's \(6, 8, 10\)"):
        volumes.mask(item)
    volumes, item = prepared(made_volume())
    with pytest.raises(ImageError, match="no segmentation"):
        volumes.mask(item)


def test_a_film_is_no_volume():
    volumes, item = prepared(made_film())
    with pytest.raises(ImageError, match="a: it is no volume"):
        volumes.values(item)


def test_a_volume_is_read_once_while_it_is_kept():
    reads: list[str] = []
    collection = made_collection("volume", {"a": made_volume()}, reads=reads)
    volumes = PreparedVolumes(collection, VolumeDataSettings())
    first, second = (volumes.values(collection.items[0]) for _ in range(2))
    assert reads == ["a"]
    assert first is second
    PreparedVolumes(collection, VolumeDataSettings(cache_mb=0)).values(collection.items[0])
    assert reads == ["a", "a"]


def test_the_background_is_air_and_the_body_is_brighter():
    values = np.zeros((1, 10, 20, 20))
    values[:, 2:8, 5:15, 5:15] = 100 + np.random.default_rng(0).random((6, 10, 10))
    volumes, item = prepared(made_volume(values=values), spacing_mm=None)
    volume = volumes.prepared(item)
    assert volume.background_C[0] == volume.values_CZYX[0, 0, 0, 0] == volume.values_CZYX.min()
    assert body_share(volume, [0, 0, 0], [10, 20, 20]) == pytest.approx(600 / 4000)
    assert body_share(volume, [2, 5, 5], [6, 10, 10]) == 1.0
    assert body_share(volume, [8, 0, 0], [10, 20, 20]) == 0.0


SIDES = st.tuples(*[st.integers(1, 6)] * 3)


@settings(deadline=None)
@given(SIDES, SIDES, st.tuples(*[st.integers(-4, 4)] * 3))
def test_a_crop_is_the_volume_where_there_is_one_and_background_elsewhere(shape, size, corner):
    values = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    background = np.array([-1, -2], np.float32)
    crop, padding = cut(values, corner, size, background)
    # Independently: pad generously on all sides, then slice.
    wide = np.stack([np.pad(one, 16, constant_values=value) for one, value in zip(values, background, strict=True)])
    z, y, x = (first + 16 for first in corner)
    expected = wide[:, z : z + size[0], y : y + size[1], x : x + size[2]]
    np.testing.assert_array_equal(crop, expected)
    assert padding == pytest.approx((expected[0] == -1).mean())
    assert not np.shares_memory(crop, values)
