"""Frames by number: the same pixels as reading the whole film, in whatever order they are asked for."""

from __future__ import annotations

import av
import numpy as np
import pytest

from lamella.errors import ImageError
from lamella.imaging.film_frames import FilmFrames
from lamella.imaging.reading import read_video

COUNT = 60


def film(path, codec="mpeg4", options=None):
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = 15
        for number in range(COUNT):
            pixels = rng.integers(0, 60, (48, 64, 3), np.uint8) + np.uint8(3 * number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "2"}),  # frames that are stored before those they are shown after
        ("a.mkv", "mpeg4", {"bf": "2"}),
        ("a.avi", "mpeg4", {}),
        ("a.webm", "libvpx", {}),
    ],
)
def test_frames_in_any_order_are_those_of_the_whole_film(tmp_path, name, codec, options):
    path = film(tmp_path / name, codec, options)
    whole, film_frames = read_video(path), FilmFrames(path)
    assert len(film_frames) == len(whole.frames_TYXC)
    assert film_frames.frame_ms == whole.frame_ms
    assert film_frames.size == whole.frames_TYXC.shape[1:3]
    for number in (0, 1, 2, 40, 3, len(film_frames) - 1, 17, 16, 30, 33, 0):
        np.testing.assert_array_equal(film_frames.frame(number), whole.frames_TYXC[number])
    with pytest.raises(IndexError):
        film_frames.frame(len(film_frames))
    film_frames.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_film_cut_short_is_an_error(tmp_path, name):
    path = film(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(ImageError, match=name):
        FilmFrames(path)


def test_a_damaged_frame_is_an_error_and_the_others_are_shown(tmp_path):
    path = film(tmp_path / "a.mp4")
    whole = read_video(path).frames_TYXC
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    frames = FilmFrames(path)
    damaged = []
    for number in range(COUNT):
        try:
            np.testing.assert_array_equal(frames.frame(number), whole[number])
        except ImageError:
            damaged.append(number)
    assert 0 < len(damaged) <= 15  # up to the next key frame
    np.testing.assert_array_equal(frames.frame(3), whole[3])


def test_what_is_no_film_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(500))
    with pytest.raises(ImageError, match=r"a\.mp4"):
        FilmFrames(tmp_path / "a.mp4")
