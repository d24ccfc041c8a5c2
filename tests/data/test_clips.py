import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.data.made_collections import made_collection, made_film, made_volume

from lamella.data.clips import VideoClips, VideoDataSettings, drawn_window
from lamella.data.mask_sets import MaskSetsSettings
from lamella.errors import ConfigError, DatasetError, ImageError
from lamella.imaging.measured import MedicalImage

PATCH = (2, 4, 4)
# Windows of 8 x 8 of an 8 x 8 part are copied, not scaled: what is seen can be told exactly.
SETTINGS = VideoDataSettings(frames=4, frame_stride=2, size_px=8, batch_size=4, scale=(1.0, 1.0), aspect=(1.0, 1.0))


def video_clips(contents=None, kind="video", seed: int = 0, **changes) -> VideoClips:
    contents = contents or {"a": made_film(height=8, width=8), "b": made_film(height=8, width=8)}
    update = SETTINGS.model_copy(update=changes)
    return VideoClips([made_collection(kind, contents)], update, MaskSetsSettings(), seed, PATCH)


def test_a_batch_has_the_shapes_and_types_that_the_method_reads():
    batch = video_clips().batch(1)
    assert batch["voxels"].dtype == torch.uint8
    assert batch["voxels"].shape == (4, 3, 4, 8, 8)
    assert batch["context"].shape[:2] == batch["targets"].shape[:2] == (4, 2)
    assert batch["position"].tolist() == [4, 5, 6, 7]
    assert batch["padding"].tolist() == [0, 0, 0, 0]
    assert "spacing_mm" not in batch


def test_frames_follow_by_the_stride_from_any_start():
    starts, mirrored = set(), []
    clips = video_clips()
    for step in range(12):
        for voxels in clips.batch(step)["voxels"].numpy():
            numbers = voxels[0, :, 0, 0].astype(int)  # red is the frame's number
            assert np.diff(numbers).tolist() == [2, 2, 2]
            starts.add(int(numbers[0]))
            columns = voxels[2, 0, 0]
            mirrored.append(bool(columns[0] > columns[-1]))
            assert sorted(columns) == list(range(8))
            np.testing.assert_array_equal(voxels[1, 0, :, 0], np.arange(8))  # rows are never turned over
    assert starts == set(range(6))  # 12 frames, a span of 7
    assert 0.2 < np.mean(mirrored) < 0.8


def test_frames_can_follow_by_milliseconds():
    clips = video_clips({"a": made_film(12, 8, 8, frame_ms=20.0)}, frame_ms=50.0, flips=False)
    numbers = clips.held(1)[0]["voxels"][0, 0, :, 0, 0].tolist()
    assert [number - numbers[0] for number in numbers] == [0, 2, 5, 8]  # 0, 2.5, 5, 7.5 frames; halves to even
    with pytest.raises(ImageError, match="a: it does not say how fast"):
        video_clips({"a": made_film(12, 8, 8)}, frame_ms=50.0).batch(0)


def test_short_films_repeat_their_last_frame_and_the_share_is_told():
    batch = video_clips({"a": made_film(3, 8, 8)}).batch(0)
    assert batch["voxels"][0, 0, :, 0, 0].tolist() == [0, 2, 2, 2]
    assert batch["padding"].tolist() == [0.5] * 4


def test_samples_are_a_pure_function_of_seed_and_position():
    varied = {"scale": (0.3, 1.0), "aspect": (0.75, 1.35)}
    whole = video_clips(**varied).batch(2)
    parts = [video_clips(**varied).batch(2, rank, 2) for rank in range(2)]
    torch.testing.assert_close(torch.cat([part["voxels"] for part in parts]), whole["voxels"], atol=0, rtol=0)
    assert not torch.equal(video_clips(seed=1, **varied).batch(2)["voxels"], whole["voxels"])


def test_one_window_for_all_frames_of_a_clip():
    rng = np.random.default_rng(0)
    still = made_film(12, 40, 60)
    still.frames_TYXC[:] = rng.integers(0, 256, (40, 60, 3))
    batch = video_clips({"a": still}, scale=(0.2, 0.9), aspect=(0.5, 2.0)).batch(0)
    first = batch["voxels"][:, :, :1]
    torch.testing.assert_close(batch["voxels"], first.expand_as(batch["voxels"]))
    assert not torch.equal(first[0], first[1])


def test_held_views_are_the_middle_in_time_and_space():
    clips = video_clips({"a": made_film(12, 8, 20)})
    voxels = clips.held(1)[0]["voxels"][0].numpy()
    assert voxels[0, :, 0, 0].tolist() == [2, 4, 6, 8]
    np.testing.assert_array_equal(voxels[2, 0, 0], np.arange(6, 14))
    assert [len(batch["voxels"]) for batch in clips.held(6)] == [4, 2]
    again = video_clips({"a": made_film(12, 8, 20)})
    torch.testing.assert_close(clips.held(6)[1]["voxels"], again.held(6)[1]["voxels"])


def test_slices_of_a_volume_in_time_are_films_and_empty_ones_are_left_out():
    values = np.zeros((12, 5, 8, 8))
    values[:, 1:4] = np.random.default_rng(0).gamma(2, 100, (12, 3, 8, 8))
    clips = video_clips({"a": made_volume(values=values, fourth="time")}, kind="volume")
    film, _ = clips._film(0)
    assert len(film.slices) == 3
    assert film.slices[0].shape == (12, 8, 8, 3)
    seen = {clips.batch(step)["voxels"][number].numpy().tobytes() for step in range(4) for number in range(4)}
    assert len(seen) > 3


def test_volumes_without_time_and_pictures_are_refused():
    with pytest.raises(ImageError, match="without points in time"):
        video_clips({"a": made_volume((1, 5, 8, 8))}, kind="volume").batch(0)
    with pytest.raises(ImageError, match="all its slices are constant"):
        video_clips({"a": made_volume(values=np.zeros((3, 5, 8, 8)), fourth="time")}, kind="volume").batch(0)
    picture = MedicalImage(np.zeros((8, 8, 3), np.uint8), "byte")
    with pytest.raises(ImageError, match="a: it is a picture"):
        video_clips({"a": picture}).batch(0)
    with pytest.raises(DatasetError, match="it holds images"):
        video_clips({"a": picture}, kind="image")


def test_large_films_are_reduced_after_reading_and_kept():
    reads: list[str] = []
    collection = made_collection("video", {"a": made_film(4, 60, 100)}, reads=reads)
    clips = VideoClips([collection], SETTINGS.model_copy(update={"max_side_px": 50}), MaskSetsSettings(), 0, PATCH)
    assert clips._film(0)[0].slices[0].shape == (4, 30, 50, 3)
    clips.batch(0)
    assert reads == ["a"]


def test_the_contract_has_the_films_colours():
    film = made_film(12, 8, 8)
    film.frames_TYXC[..., 0], film.frames_TYXC[..., 1] = 51, 102
    film.frames_TYXC[:, :, :4, 2], film.frames_TYXC[:, :, 4:, 2] = 0, 255
    contract = video_clips({"a": film}, frame_ms=None).contract(24)
    assert contract.mean == pytest.approx((0.2, 0.4, 0.5), abs=1e-3)
    assert contract.std == pytest.approx((1 / 255, 1 / 255, 0.5), abs=1e-3)  # one grey level where nothing varies
    assert (contract.kind, contract.channels, contract.size) == ("video", 3, (4, 8, 8))


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_windows_lie_inside_and_have_the_area_and_aspect_asked_for(rows, columns, seed):
    top, left, height, width = drawn_window(np.random.default_rng(seed), (rows, columns), (0.3, 0.6), (0.75, 1.35))
    assert 0 <= top <= top + height <= rows
    assert 0 <= left <= left + width <= columns
    assert min(height, width) >= 1
    if min(rows, columns) >= 30 and max(rows, columns) < 1.3 * min(rows, columns):
        assert 0.27 < height * width / (rows * columns) < 0.64  # sides are whole pixels
        assert 0.7 < width / height < 1.45


def test_clips_that_are_not_whole_tubelets_and_turned_ranges_are_refused():
    with pytest.raises(ConfigError, match=r"data.frames, data.size_px: .* not whole patches of 2 x 4 x 4"):
        video_clips(frames=5)
    with pytest.raises(ValidationError, match="scale and aspect"):
        VideoDataSettings(scale=(0.9, 0.3))
