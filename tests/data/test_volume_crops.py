from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.data.made_collections import made_collection, made_film, made_volume

from lamella.data.mask_sets import MaskSetsSettings, mask_batch
from lamella.data.volume_crops import VolumeCrops
from lamella.data.volumes import VolumeDataSettings
from lamella.errors import ConfigError, DatasetError, ImageError

PATCH, CROP = (2, 4, 4), (4, 8, 8)
SETTINGS = VolumeDataSettings(crop=CROP, spacing_mm=None, batch_size=4)


def volume_crops(contents=None, seed: int = 0, **changes) -> VolumeCrops:
    contents = contents or {str(number): made_volume((1, 8, 12, 16), seed=number) for number in range(3)}
    settings = SETTINGS.model_copy(update=changes)
    return VolumeCrops([made_collection("volume", contents)], settings, MaskSetsSettings(), seed, PATCH)


def where(crop: np.ndarray, values: np.ndarray) -> list[tuple[int, int, int]]:
    """Where in the values a crop lies."""
    windows = np.lib.stride_tricks.sliding_window_view(values, crop.shape)
    return [tuple(map(int, place)) for place in np.argwhere((windows == crop).all((3, 4, 5)))]


def test_a_batch_has_the_shapes_and_types_that_the_method_reads():
    batch = volume_crops().batch(0)
    assert {key: (value.dtype, value.shape[0]) for key, value in batch.items()} == {
        "voxels": (torch.float32, 4),
        "context": (torch.int64, 4),
        "context_pad": (torch.bool, 4),
        "targets": (torch.int64, 4),
        "targets_pad": (torch.bool, 4),
        "position": (torch.int64, 4),
        "padding": (torch.float32, 4),
        "spacing_mm": (torch.float32, 4),
    }
    assert batch["voxels"].shape == (4, 1, *CROP)
    assert batch["position"].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(batch["context"], mask_batch(MaskSetsSettings(), (2, 2, 2), 0, range(4))["context"])
    assert batch["spacing_mm"].tolist() == [[2.0, 1.0, 1.0]] * 4


def test_crops_are_cut_out_of_the_normalised_volume_and_mirrored_left_to_right_at_times():
    crops = volume_crops()
    seen, mirrored = set(), 0
    for step in range(12):
        for position, voxels in zip(crops.positions(step), crops.batch(step)["voxels"], strict=True):
            number, item = crops.items.at(position)
            values = crops._volumes[number].values(item)[0]
            plain, turned = where(voxels[0].numpy(), values), where(voxels[0].numpy()[..., ::-1], values)
            assert len(plain) + len(turned) == 1
            mirrored += len(turned)
            seen.add((plain + turned)[0])
    assert 12 < mirrored < 36  # of 48
    assert {place[0] for place in seen} == {0, 1, 2, 3, 4}  # all that fit, edges included
    assert {place[2] for place in seen} == set(range(9))


def test_samples_are_a_pure_function_of_seed_and_position():
    whole = volume_crops().batch(3)
    again = [volume_crops(workers=0).batch(3, rank, 2) for rank in range(2)]
    for key in ("voxels", "position", "padding"):
        torch.testing.assert_close(torch.cat([part[key] for part in again]), whole[key], atol=0, rtol=0)
    other = volume_crops(seed=1).batch(3)
    assert not torch.equal(other["voxels"], whole["voxels"])


def test_small_volumes_are_padded_with_their_background_and_the_share_is_told():
    contents = {"a": made_volume((1, 2, 8, 8), seed=4)}
    crops = volume_crops(contents, flips=False)
    values = crops._volumes[0].values(crops.items.at(0)[1])
    places = set()
    for step in range(8):
        batch = crops.batch(step)
        torch.testing.assert_close(batch["padding"], torch.full((4,), 0.5))
        for voxels in batch["voxels"].numpy():
            ((z, y, x),) = where(values[0], voxels[0])
            assert (y, x) == (0, 0)
            places.add(z)
            assert (np.delete(voxels[0], [z, z + 1], axis=0) == values.min()).all()
    assert places == {0, 1, 2}  # anywhere in the crop


def test_held_views_are_the_middles_then_other_places_and_never_mirrored():
    first, second = volume_crops().held(10)
    assert (len(first["voxels"]), len(second["voxels"])) == (8, 2)
    crops = volume_crops()
    for position in range(10):
        number, item = crops.items.at(position)
        voxels = (first if position < 8 else second)["voxels"][position % 8, 0].numpy()
        (place,) = where(voxels, crops._volumes[number].values(item)[0])
        if position < 3:
            assert place == (2, 2, 4)
    torch.testing.assert_close(volume_crops(flips=False).held(10)[0]["voxels"], first["voxels"], atol=0, rtol=0)
    assert "context" in first


def test_crops_prefer_the_body_where_asked_to():
    values = np.zeros((1, 8, 12, 64))
    values[..., 28:36] = 100 + np.random.default_rng(0).random((1, 8, 12, 8))
    contents = {"a": made_volume(values=values)}  # z-scores: the body about 0, the background hundreds below

    def bodies(**changes) -> list[float]:
        crops = volume_crops(contents, **changes)
        return [float((voxels > -50).float().mean()) for step in range(10) for voxels in crops.batch(step)["voxels"]]

    blind, choosy = bodies(), bodies(least_body=0.3, redraws=30)
    assert np.mean(np.array(blind) >= 0.3) < 0.5
    assert min(choosy) >= 0.3
    assert max(bodies(least_body=1.0, redraws=0)) <= 1.0  # nothing fits: what was drawn is taken


def test_a_sequence_in_time_gives_one_moment():
    values = np.stack([np.random.default_rng(moment).gamma(2, 100, (8, 12, 16)) for moment in range(3)])
    crops = volume_crops({"a": made_volume(values=values, fourth="time")})
    assert crops.channels == 1
    whole = crops._volumes[0].values(crops.items.at(0)[1])
    moments = set()
    for step in range(4):
        for voxels in crops.batch(step)["voxels"].numpy():
            assert voxels.shape == (1, *CROP)
            found = [
                moment
                for moment in range(3)
                if where(voxels[0], whole[moment]) or where(voxels[0][..., ::-1], whole[moment])
            ]
            assert len(found) == 1
            moments.update(found)
    assert moments == {0, 1, 2}


def test_the_contract_says_what_the_crops_are():
    contract = volume_crops(spacing_mm=(1.0, 2.0, 2.0)).contract(24)
    assert (contract.kind, contract.channels, contract.size, contract.patch) == ("volume", 1, CROP, PATCH)
    assert contract.spacing_mm == (1.0, 2.0, 2.0)
    assert contract.intensity is not None
    assert contract.intensity["name"] == "auto"
    assert "spacing_mm" not in volume_crops(spacing_mm=(1.0, 2.0, 2.0)).batch(0)  # one for all: the contract's


def test_volumes_of_other_channels_are_named():
    contents = {"a": made_volume((1, 8, 12, 16)), "b": made_volume((2, 8, 12, 16))}
    with pytest.raises(ImageError, match=r"[ab]: it has [12] channel\(s\), where the first volume has [12]"):
        volume_crops(contents).batch(0)


def test_crops_that_are_not_whole_patches_and_other_kinds_are_refused():
    with pytest.raises(ConfigError, match=r"data.crop: volumes of 5 x 8 x 8 voxels are not whole patches of 2 x 4 x 4"):
        volume_crops(crop=(5, 8, 8))
    with pytest.raises(DatasetError, match="it holds videos, and this method learns from volumes"):
        VolumeCrops([made_collection("video", {"a": made_film()})], SETTINGS, MaskSetsSettings(), 0, PATCH)


def test_a_volume_that_cannot_be_read_stops_the_batch():
    constant = replace(made_volume((1, 8, 12, 16)), values_CZYX=np.zeros((1, 8, 12, 16), np.float32))
    with pytest.raises(ImageError, match="nothing to see"):
        volume_crops({"a": made_volume((1, 8, 12, 16)), "b": constant}).batch(0)
