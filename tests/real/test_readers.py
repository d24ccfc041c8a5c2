"""The readers on real slides."""

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from lamella.errors import ResolutionError, SlideError
from lamella.geometry import Box
from lamella.slides.readers.dicom import DicomReader, read_instance
from lamella.slides.readers.openslide import OpenSlideReader
from lamella.slides.readers.registry import open_reader, slide_files
from lamella.slides.readers.tiff import TiffReader
from lamella.slides.slide import open_slide


def whole(reader, level=0):
    return reader.read_level(level, 0, 0, *reader.level_sizes[level])


def volume(real_data) -> Path:
    return next(path for path in (real_data / "slides" / "dicom").iterdir() if read_instance(path).is_volume)


def test_the_svs_is_the_same_through_openslide_and_the_own_reader(real_data):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    own, other = TiffReader(path), OpenSlideReader(path)
    assert own.level_sizes == other.level_sizes == [(2220, 2967)]  # its stripped 574 x 768 thumbnail is no level
    assert (whole(own) == whole(other)).all()
    for key in ("aperio.MPP", "aperio.AppMag", "aperio.Filename"):
        assert own.properties[key] == other.properties[key]


def test_the_large_region_is_the_same_through_both_at_every_level(real_data):
    path = real_data / "slides" / "TCGA-AA-3562-region.tif"
    own, other = TiffReader(path), OpenSlideReader(path)
    assert own.level_sizes == other.level_sizes
    for level in (2, 3, 4):
        assert (whole(own, level) == whole(other, level)).all()
    rng = np.random.default_rng(0)
    for level in (0, 1):
        width, height = own.level_sizes[level]
        for _ in range(12):
            place = int(rng.integers(0, width - 700)), int(rng.integers(0, height - 700))
            assert (own.read_level(level, *place, 700, 700) == other.read_level(level, *place, 700, 700)).all()


@pytest.mark.parametrize(
    ("name", "mpp", "origin"),
    [
        ("CMU-1-Small-Region.svs", 0.499, "aperio.MPP"),
        ("TCGA-AA-3562-region.tif", 0.5015, "tiff.XResolution"),
        ("dicom", 0.499, "openslide.mpp-x"),
    ],
)
def test_resolutions(real_data, name, mpp, origin):
    with open_slide(real_data / "slides" / name) as slide:
        assert (slide.resolution.mpp_x, slide.resolution.mpp_y) == pytest.approx((mpp, mpp))
        assert slide.resolution.origin == origin


def test_the_dicom_volume_equals_its_frames_decoded_without_openslide(real_data):
    path = volume(real_data)
    header = pydicom.dcmread(path)
    pixels = whole(DicomReader(path))
    columns = -(-header.TotalPixelMatrixColumns // header.Columns)
    for number, frame in enumerate(generate_frames(header.PixelData, number_of_frames=int(header.NumberOfFrames))):
        y, x = (
            index * side for index, side in zip(divmod(number, columns), (header.Rows, header.Columns), strict=True)
        )
        tile = pixels[y : y + header.Rows, x : x + header.Columns]
        assert (imagecodecs.jpeg8_decode(frame)[: tile.shape[0], : tile.shape[1]] == tile).all()


def test_the_dicom_version_lies_over_the_svs_up_to_its_lossy_transcoding(real_data):
    """Measured over the whole slide: mean absolute difference 2.9 grey levels, PSNR 33.1 dB, the largest 108."""
    place = 400, 600, 1200, 1200
    other = DicomReader(real_data / "slides" / "dicom").read_level(0, *place).astype(np.int16)
    own = TiffReader(real_data / "slides" / "CMU-1-Small-Region.svs").read_level(0, *place).astype(np.int16)

    def difference(shift):
        return np.abs(other - np.roll(own, shift, axis=(0, 1)))[1:-1, 1:-1].mean()

    assert difference((0, 0)) < 4
    for shift in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        assert difference(shift) > 1.3 * difference((0, 0))


def test_dicom_side_pictures_are_refused_and_the_folder_opens(real_data):
    folder = real_data / "slides" / "dicom"
    assert open_reader(folder).path == volume(real_data)
    for path in folder.iterdir():
        if path != volume(real_data):
            with pytest.raises(SlideError, match=f"Give {volume(real_data).name}"):
                open_reader(path)


def test_bad_slides_are_refused_in_plain_words(real_data):
    slides = real_data / "slides"
    with pytest.raises(
        SlideError, match=r"broken\.svs: it is of an unknown format .*tiff: .*openslide: .*dicom: .*image: "
    ):
        open_slide(slides / "broken.svs")
    with pytest.raises(ResolutionError, match=r"896.* manifest column `mpp`, or with `--mpp"):
        open_slide(slides / "prostate-bogus-mpp.tiff")
    with pytest.raises(ResolutionError, match="does not say"):
        open_slide(slides / "thumbnail-with-ink.jpeg")
    with open_slide(slides / "prostate-bogus-mpp.tiff", mpp=0.5) as slide:
        assert len(slide.levels) == 6
        assert slide.read(Box(100, 100, 1124, 1124), 1.0).pixels.shape == (512, 512, 3)


def test_the_bogus_slide_with_shared_jpeg_tables_is_the_same_through_both(real_data):
    path = real_data / "slides" / "prostate-bogus-mpp.tiff"
    own, other = TiffReader(path), OpenSlideReader(path)
    assert own.level_sizes == other.level_sizes
    for level in range(6):
        assert (whole(own, level) == whole(other, level)).all()


def test_the_folder_of_slides(real_data):
    names = {path.name for path in slide_files(real_data / "slides")}
    assert names == {
        "CMU-1-Small-Region.svs",
        "TCGA-AA-3562-region.tif",
        "broken.svs",
        "prostate-bogus-mpp.tiff",
        "thumbnail-with-ink.jpeg",
        volume(real_data).name,
    }
