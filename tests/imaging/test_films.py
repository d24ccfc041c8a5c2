"""Video files and animations: frames and their times; what is cut short or damaged refused."""

from __future__ import annotations

import builtins
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lamella.errors import ImageError, MissingExtraError
from lamella.imaging.reading import kind_of, read_image, read_video

FRAMES = np.stack([np.full((32, 48, 3), (20 * number, 100, 200 - 20 * number), np.uint8) for number in range(8)])


def film(path, codec="ffv1", frames=FRAMES, rate=25):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.time_base = Fraction(1, rate)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    return path


def test_a_lossless_film_is_read_exactly(tmp_path):
    path = film(tmp_path / "a.mkv")
    video = read_video(path)
    assert kind_of(path) == "video"
    assert (video.unit, video.frame_ms) == ("byte", pytest.approx(40))
    np.testing.assert_array_equal(video.frames_TYXC, FRAMES)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mjpeg"), ("a.mp4", "mpeg4"), ("a.mov", "mpeg4"), ("a.mkv", "mpeg4")]
)
def test_containers(tmp_path, name, codec):
    path = film(tmp_path / name, codec) if codec != "mjpeg" else film(tmp_path / name, "mpeg4")
    (tmp_path / "renamed.bin").write_bytes(path.read_bytes())
    video = read_video(tmp_path / "renamed.bin")  # by its bytes, not by its name
    assert video.frames_TYXC.shape == FRAMES.shape
    assert np.abs(video.frames_TYXC.astype(int) - FRAMES).mean() < 6


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_film_cut_short_is_an_error(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    path = film(tmp_path / name, "mpeg4", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match=name):
        read_video(path)


def test_a_damaged_film_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    path = film(tmp_path / "a.avi", "mpeg4", noise)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read_video(path)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path, real = film(tmp_path / "a.mkv"), builtins.__import__

    def refuse(name, *rest):
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"lamella\[video\]"):
        read_video(path)


# ---- animations -----------------------------------------------------------------------------------------------------


def gif(path, durations):
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, optimize=False)
    return path


def test_an_animated_gif_is_a_video(tmp_path):
    path = gif(tmp_path / "a.gif", 50)
    assert kind_of(path) == "video"
    video = read_video(path)
    assert video.frame_ms == 50
    assert np.abs(video.frames_TYXC.astype(int) - FRAMES).max() <= 8  # its palette has 256 colours


def test_frames_of_unlike_times_have_no_one_time(tmp_path):
    assert read_video(gif(tmp_path / "a.gif", [40, 80] * 4)).frame_ms is None


def test_a_still_gif_is_an_image(tmp_path):
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.gif")
    assert kind_of(tmp_path / "a.gif") == "image"
    assert read_image(tmp_path / "a.gif").values.shape == (32, 48, 3)
    with pytest.raises(ImageError, match="one image, not a video"):
        read_video(tmp_path / "a.gif")


def test_an_animation_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="it is a video, not one image"):
        read_image(gif(tmp_path / "a.gif", 50))


def test_an_animation_cut_short_is_an_error(tmp_path):
    path = gif(tmp_path / "a.gif", 50)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"a\.gif"):
        read_video(path)
