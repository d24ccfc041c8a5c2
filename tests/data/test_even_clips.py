from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.made_collections import made_collection, made_film, made_volume

from lamella.data.clips import VideoDataSettings
from lamella.data.even_clips import EvenClips, even_starts
from lamella.errors import ImageError

SETTINGS = VideoDataSettings(frames=4, frame_stride=2, size_px=8)


@given(length=st.integers(1, 200), span=st.integers(1, 40), most=st.integers(1, 9))
def test_clips_lie_in_the_film_from_end_to_end(length: int, span: int, most: int) -> None:
    starts = even_starts(length, span, most)
    assert 1 <= len(starts) <= most
    assert starts == sorted(set(starts))
    assert all(start >= 0 and start + span <= max(length, span) for start in starts)
    if len(starts) > 1:
        assert (starts[0], starts[-1]) == (0, length - span)
    if -(-length // span) <= most:  # enough clips: every frame is in one
        assert set(range(length)) <= {at for start in starts for at in range(start, start + span)}


def test_a_film_is_shown_from_its_first_to_its_last_frame_in_the_middle_square() -> None:
    film = made_film(frames=27)  # red counts the frames, blue the columns
    clips = EvenClips(made_collection("video", {"a": film}), SETTINGS, clips=3)
    shown = clips.clips(made_collection("video", {"a": film}).items[0])
    assert (shown.shape, shown.dtype) == ((3, 3, 4, 8, 8), np.uint8)
    assert shown[:, 0, :, 0, 0].tolist() == [[0, 2, 4, 6], [10, 12, 14, 16], [20, 22, 24, 26]]
    assert shown[:, 2].min() >= 5
    assert shown[:, 2].max() < 25
    assert np.array_equal(shown, clips.clips(clips.collection.items[0]))


def test_a_film_shorter_than_a_clip_repeats_its_last_frame() -> None:
    clips = EvenClips(made_collection("video", {"a": made_film(frames=3)}), SETTINGS, clips=3)
    assert clips.clips(clips.collection.items[0])[:, 0, :, 0, 0].tolist() == [[0, 2, 2, 2]]


def test_slices_of_a_volume_in_time_take_turns_and_a_still_volume_is_refused() -> None:
    contents = {"heart": made_volume((9, 5, 8, 8), fourth="time"), "brain": made_volume()}
    clips = EvenClips(made_collection("volume", contents), SETTINGS, clips=3)
    heart, brain = clips.collection.items
    assert len(clips.clips(heart)) == 3
    with pytest.raises(ImageError, match="without points in time"):
        clips.clips(brain)
