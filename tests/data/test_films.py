from __future__ import annotations

import numpy as np
import pytest
from tests.data.made_collections import made_film, made_volume

from lamella.data.films import frame_offsets, largest_window, prepared_film
from lamella.errors import ImageError
from lamella.imaging.intensity import IntensitySettings

AUTO = IntensitySettings()


def test_the_slices_of_a_volume_in_time_are_films_and_a_volume_without_time_is_none() -> None:
    volume = made_volume((5, 3, 8, 10), fourth="time")
    volume.values_CZYX[:, 1] = 7  # shows nothing
    film = prepared_film(volume, "heart", AUTO, None)
    assert [frames.shape for frames in film.slices] == [(5, 8, 10, 3)] * 2
    with pytest.raises(ImageError, match="without points in time"):
        prepared_film(made_volume(), "brain", AUTO, None)


def test_large_frames_are_reduced_to_their_longest_side() -> None:
    film = prepared_film(made_film(4, 20, 30), "echo", AUTO, 15)
    assert film.slices[0].shape == (4, 10, 15, 3)


def test_frames_follow_by_number_or_by_milliseconds() -> None:
    timed = prepared_film(made_film(frame_ms=20), "a", AUTO, None)
    assert frame_offsets(timed, "a", 4, 3, None).tolist() == [0, 3, 6, 9]
    assert frame_offsets(timed, "a", 4, 3, 50.0).tolist() == np.rint([0, 2.5, 5, 7.5]).tolist()
    with pytest.raises(ImageError, match="how fast its frames follow"):
        frame_offsets(prepared_film(made_film(), "b", AUTO, None), "b", 4, 3, 50.0)


def test_the_largest_window_keeps_what_the_aspect_allows() -> None:
    assert largest_window((10, 30), (1.0, 1.0)) == (0, 10, 10, 10)
    assert largest_window((30, 10), (0.5, 2.0)) == (5, 0, 20, 10)
    assert largest_window((10, 12), (0.5, 2.0)) == (0, 0, 10, 12)
