"""Multi-frame DICOM: volumes by functional groups and dose grids, videos by frame time."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from tests.imaging.dicoms import AXIAL, functional_groups, header, image, pydicom_files, save

from lamella.errors import ImageError
from lamella.imaging.reading import kind_of, read_image, read_video, read_volume

FRAMES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def enhanced(positions=((0, 0, 4), (0, 0, 0), (0, 0, 2)), frames=FRAMES, **extra):
    return functional_groups(header(frames), list(positions), **extra)


def test_frames_are_sorted_by_their_places(tmp_path):
    path = save(tmp_path / "a.dcm", enhanced())
    assert kind_of(path) == "volume"
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values_CZYX[0], FRAMES[[1, 2, 0], ::-1, ::-1] - 1024.0)
    assert (volume.unit, volume.spacing_mm) == ("HU", pytest.approx((2, 0.5, 0.25)))


def test_a_frames_own_slope_and_window_win_over_the_shared_ones(tmp_path):
    data = enhanced()
    own, window = Dataset(), Dataset()
    own.RescaleSlope, own.RescaleIntercept, own.RescaleType = 2, 0, "HU"
    window.WindowCenter, window.WindowWidth = 100, 51
    data.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence = Items([own])
    data.PerFrameFunctionalGroupsSequence[1].FrameVOILUTSequence = Items([window])
    volume = read_volume(save(tmp_path / "a.dcm", data))
    np.testing.assert_array_equal(volume.values_CZYX[0, 0], FRAMES[1, ::-1, ::-1] * 2.0)
    assert [(one.level, one.width) for one in volume.windows] == [(99.5, 50)]


def test_time_points_are_the_fourth_axis(tmp_path):
    frames = np.arange(4 * 2 * 2, dtype=np.int16).reshape(4, 2, 2)
    data = enhanced([(0, 0, 0), (0, 0, 3)] * 2, frames, TemporalPositionIndex=[2, 2, 1, 1])
    volume = read_volume(save(tmp_path / "a.dcm", data))
    assert volume.fourth == "time"
    np.testing.assert_array_equal(volume.values_CZYX, frames[[[2, 3], [0, 1]], ::-1, ::-1] - 1024.0)


def test_repeated_places_without_times_are_an_error(tmp_path):
    data = enhanced([(0, 0, 0), (0, 0, 3), (0, 0, 3)])
    with pytest.raises(ImageError, match="share their place with another, such as frame 2 and frame 3"):
        read_volume(save(tmp_path / "a.dcm", data))


@pytest.mark.parametrize(("stated", "said"), [(2, "describes 3 frames where NumberOfFrames is 2"),
                                              (4, "describes 3 frames where NumberOfFrames is 4")])  # fmt: skip
def test_a_wrong_number_of_frames_is_an_error(tmp_path, stated, said):
    data = enhanced()
    data.NumberOfFrames = stated
    with pytest.raises(ImageError, match=said):
        read_volume(save(tmp_path / "a.dcm", data))


def test_a_dose_grid_is_a_volume(tmp_path):
    data = header(FRAMES.astype(np.uint16), Modality="RTDOSE", DoseGridScaling=0.5, GridFrameOffsetVector=[0, 5, 10],
                  ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=list(AXIAL), PixelSpacing=[1, 1])  # fmt: skip
    volume = read_volume(save(tmp_path / "a.dcm", data))
    np.testing.assert_array_equal(volume.values_CZYX[0], FRAMES[:, ::-1, ::-1] * 0.5)
    assert volume.spacing_mm == pytest.approx((5, 1, 1))


def test_pydicoms_enhanced_ct_and_segmentation():
    files = pydicom_files()
    ct = read_volume(files["eCT_Supplemental.dcm"])
    assert (ct.unit, ct.values_CZYX.shape, ct.values_CZYX.min()) == ("HU", (1, 2, 512, 512), -1024)
    liver = read_volume(files["liver.dcm"])
    assert set(np.unique(liver.values_CZYX)) == {0, 1}
    assert liver.spacing_mm == pytest.approx((1, 0.810547, 0.810547))


# ---- videos ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"FrameTime": 40}, 40),
        ({"FrameTime": 0}, None),
        ({"FrameTimeVector": [0, 30, 50]}, 40),
        ({"CineRate": 25}, 40),
        ({"RecommendedDisplayFrameRate": 50}, 20),
        ({"FrameTime": 33, "CineRate": 25}, 33),
    ],
)
def test_frame_times(tmp_path, elements, expected):
    path = image(tmp_path / "a.dcm", FRAMES.astype(np.uint8), Modality="US", **elements)
    video = read_video(path)
    assert video.frame_ms == (None if expected is None else pytest.approx(expected))
    assert (video.unit, video.frames_TYXC.shape, video.frames_TYXC.dtype) == ("byte", (3, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(video.frames_TYXC[..., 1], FRAMES)


def test_deep_grey_frames_stay_as_measured(tmp_path):
    video = read_video(image(tmp_path / "a.dcm", FRAMES * 100, Modality="XA"))
    assert (video.unit, video.frames_TYXC.shape, video.frames_TYXC.dtype) == ("stored", (3, 4, 5, 1), np.float32)
    np.testing.assert_array_equal(video.frames_TYXC[..., 0], FRAMES * 100)


def test_each_kind_refuses_the_others_with_a_remedy(tmp_path):
    volume = save(tmp_path / "volume.dcm", enhanced())
    video = image(tmp_path / "video.dcm", FRAMES.astype(np.uint8), Modality="US")
    picture = image(tmp_path / "image.dcm", FRAMES[0])
    for read, path, said in (
        (read_video, volume, "slices of a volume, not a video. Read it as a volume"),
        (read_volume, video, "do not say where they lie, so they make no volume. Read it as a video"),
        (read_video, picture, "one frame, not a video. Read it as an image"),
        (read_image, volume, "3 frames, not one image"),
    ):
        with pytest.raises(ImageError, match=said):
            read(path)


def test_no_frames_are_an_error(tmp_path):
    path = image(tmp_path / "a.dcm", FRAMES[0], NumberOfFrames=0)
    with pytest.raises(ImageError, match="NumberOfFrames is 0"):
        read_image(path)
