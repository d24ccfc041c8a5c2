from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.data.made_collections import made_collection, made_film, made_volume

from lamella.errors import ImageError
from lamella.models.volume_encoder import VolumeContract
from lamella.verbs.evaluation.space_time_views import FilmViewSettings, VolumeViewSettings, film_views, volume_views

VOLUMES = VolumeContract("volume", 1, (4, 8, 8), (2, 4, 4), 24)
FILMS = VolumeContract("video", 3, (4, 8, 8), (2, 4, 4), 24, mean=(0.5,) * 3, std=(0.25,) * 3, frame_ms=40.0)


def test_windows_are_batched_and_told_their_spacing_where_the_model_has_none() -> None:
    collection = made_collection("volume", {"a": made_volume((1, 6, 8, 20), spacing_mm=(3.0, 1.0, 1.0))})
    views = volume_views(collection, VOLUMES, VolumeViewSettings(overlap=0, batch_size=4))
    batches = list(views.parts(collection.items[0]))
    assert [tuple(values.shape) for values, _ in batches] == [(4, 1, 4, 8, 8), (2, 1, 4, 8, 8)]
    assert {spacing for _, spacing in batches} == {(3.0, 1.0, 1.0)}
    whole = views.volumes.values(collection.items[0])
    assert np.array_equal(batches[0][0][0, 0], whole[0, :4, :8, :8])
    assert np.array_equal(batches[1][0][1, 0], whole[0, 2:, :8, 12:])


def test_points_in_time_are_shown_one_by_one_and_the_most_windows_are_spread_over_them() -> None:
    collection = made_collection(
        "volume", {"a": made_volume((5, 4, 8, 8), fourth="time"), "b": made_volume((2, 6, 8, 8))}
    )
    views = volume_views(collection, VOLUMES, VolumeViewSettings(max_windows=3))
    timed, channels = collection.items
    shown = torch.cat([values for values, _ in views.parts(timed)])
    values = views.volumes.values(timed)
    assert np.array_equal(shown[:, 0], values[[0, 2, 4]])
    assert views.statistics(timed).shape == (535,)
    with pytest.raises(ImageError, match=r"2 channel\(s\), and the encoder takes 1"):
        list(views.parts(channels))
    with pytest.raises(ImageError, match=r"2 channel\(s\)"):
        views.statistics(channels)


def test_films_keep_the_models_pace_unless_a_stride_is_asked_for() -> None:
    collection = made_collection("video", {"a": made_film(13, frame_ms=20)})
    item = collection.items[0]

    def red(settings: FilmViewSettings) -> list[list[int]]:
        views = film_views(collection, FILMS, settings, "unused")
        return torch.cat([values for values, _ in views.parts(item)])[:, 0, :, 0, 0].tolist()

    assert red(FilmViewSettings(clips=1)) == [[3, 5, 7, 9]]  # every 40 ms
    assert red(FilmViewSettings(clips=1, frame_stride=4)) == [[0, 4, 8, 12]]
    facts = [film_views(collection, FILMS, FilmViewSettings(clips=clips), "unused").facts() for clips in (1, 2)]
    assert facts[0] != facts[1]
