"""Views in micrometres: the asked field of view from any level, fractional boxes, stated padding."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamella.geometry import Box
from lamella.slides import views
from lamella.slides.readers.image import ArrayReader
from lamella.slides.readers.mpp import Resolution
from lamella.slides.resample import resample
from lamella.slides.slide import Slide, SlideCache, open_slide

SIDE = 1024


class Pyramid:
    """Levels given as arrays; remembers what was read."""

    name = "pyramid"
    properties = {}  # noqa: RUF012

    def __init__(self, *levels):
        self.levels = levels
        self.read = []

    @property
    def level_sizes(self):
        return [(level.shape[1], level.shape[0]) for level in self.levels]

    def read_level(self, level, x, y, width, height):
        full_width, full_height = self.level_sizes[level]
        assert 0 <= x < x + width <= full_width
        assert 0 <= y < y + height <= full_height
        self.read.append((level, width * height))
        return self.levels[level][y : y + height, x : x + width].copy()

    def close(self): ...


def ramp(width, height, extent=SIDE):
    """Values that tell the place: red grows by 1/4 for each level-0 pixel in x, green in y, whatever the raster."""
    x = (np.arange(width) + 0.5) * extent / width
    y = (np.arange(height) + 0.5) * extent / height
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.round(x / 4 - 0.125), np.round(y / 4 - 0.125)[:, None]
    return pixels


def slide_of(*levels, mpp=(0.5, 0.5)):
    return Slide("memory", Pyramid(*levels), Resolution(*mpp, "stated"))


def places(region):
    """(x, y) in level-0 pixels of each column's and row's centre, as the pixels tell it."""
    return region.pixels[..., 0].mean(axis=0) * 4 + 0.5, region.pixels[..., 1].mean(axis=1) * 4 + 0.5


NON_INTEGER = (ramp(SIDE, SIDE), ramp(513, 513), ramp(257, 257))  # downsamples 1.9961 and 3.9844


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 500), st.floats(0, 500), st.floats(60, 500), st.floats(0.3, 2.6))
def test_the_field_of_view_is_the_asked_one_at_every_scale(x, y, side, mpp):
    region = slide_of(*NON_INTEGER).read(Box(x, y, x + side, y + side), mpp)
    pixels = max(1, round(side * 0.5 / mpp))
    assert region.pixels.shape == (pixels, pixels, 3)
    assert region.output_mpp == pytest.approx(side * 0.5 / pixels)
    assert region.padding_fraction == 0
    centres = (np.arange(pixels) + 0.5) * side / pixels
    seen_x, seen_y = places(region)
    # One grey level is 4 level-0 pixels; source and result are each rounded by half of it.
    assert np.abs(seen_x - (x + centres)).max() <= 4.1 + region.source_mpp
    assert np.abs(seen_y - (y + centres)).max() <= 4.1 + region.source_mpp


def test_a_file_whose_levels_are_1_9951_apart_gives_the_asked_field_of_view(tmp_path):
    """The CAMELYON16 case: taking the downsample for 1, or for 2, shifts the far corner by many pixels."""
    width, height = 1996, 1596
    x, y = np.arange(width), np.arange(height)
    base = np.zeros((height, width, 3), np.uint8)
    base[..., 0], base[..., 1] = x // 8, (y // 8)[:, None]
    small = np.asarray(
        Image.fromarray(base).resize((round(width / 1.9951), round(height / 1.9951)), Image.Resampling.BOX)
    )
    path = tmp_path / "camelyon.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate((base, small)):
            tiff.write(pixels, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=level)
    # OpenSlide starts at whole level-0 pixels, up to a quarter of a level-1 pixel aside.
    for reader, grey_levels in (("tiff", 1), ("openslide", 2)):
        with open_slide(path, mpp=0.25, readers=(reader,)) as slide:
            assert slide.levels[1].mpp == pytest.approx(0.25 * 1.9951, rel=1e-3)
            region = slide.read(Box(900, 500, 1924, 1524), 0.5)
            assert (region.level, region.method, region.pixels.shape) == (1, "native", (512, 512, 3))
            expected = resample(base, Box(900, 500, 1924, 1524), 512, 512).astype(int)
            # 8 level-0 pixels a grey level: a shift of one output pixel would show at every fourth pixel.
            assert np.abs(region.pixels - expected).max() <= grey_levels
            assert np.abs(region.pixels - expected).mean() < 0.1


def test_levels_are_chosen_and_recorded():
    slide = slide_of(ramp(1024, 1024), ramp(256, 256))
    box = Box(100, 100, 612, 612)
    found = [
        (r.level, r.method, r.source_mpp) for r in (slide.read(box, mpp) for mpp in (0.5, 0.51, 1.0, 2.0, 4.0, 0.25))
    ]
    assert found == [
        (0, "native", 0.5),
        (0, "native", 0.5),
        (0, "from_finer", 0.5),
        (1, "native", 2.0),
        (1, "from_finer", 2.0),
        (0, "from_coarser", 0.5),
    ]


def test_native_whole_pixels_are_the_files_own_and_nothing_more_is_read():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    slide = slide_of(noise)
    region = slide.read(Box(37, 51, 137, 131), 0.5)
    assert (region.pixels == noise[51:131, 37:137]).all()
    assert slide.reader.read == [(0, 100 * 80)]


def test_unequal_micrometres_in_x_and_y_give_square_output_pixels():
    slide = slide_of(ramp(SIDE, SIDE), mpp=(0.5, 0.25))
    region = slide.read(Box(200, 300, 600, 700), 1.0)
    assert region.pixels.shape == (100, 200, 3)  # 200 x 100 um
    seen_x, seen_y = places(region)
    assert np.abs(seen_x - (200 + (np.arange(200) + 0.5) * 2)).max() <= 4.1
    assert np.abs(seen_y - (300 + (np.arange(100) + 0.5) * 4)).max() <= 4.1


def test_a_box_is_read_at_a_given_number_of_pixels_whatever_their_micrometres():
    """As a page needs it: the same scale in level-0 pixels along both axes."""
    slide = slide_of(*NON_INTEGER, mpp=(0.5, 0.125))
    region = slide.read(Box(200, 300, 600, 700), slide.mpp * 2, size_px=(200, 200))
    assert (region.pixels.shape, region.level, region.output_mpp) == ((200, 200, 3), 1, 1.0)
    seen_x, seen_y = places(region)
    assert np.abs(seen_x - (200 + (np.arange(200) + 0.5) * 2)).max() <= 4.1
    assert np.abs(seen_y - (300 + (np.arange(200) + 0.5) * 2)).max() <= 4.1


# ---- padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "fraction"),
    [
        (Box(0, 0, 100, 100), 0.0),
        (Box(-50, 0, 50, 100), 0.5),
        (Box(-25.5, -10, 74.5, 90), 1 - 0.745 * 0.9),
        (Box(1000, 1000, 1100, 1100), 1 - 0.24**2),
        (Box(-300, -300, -200, -200), 1.0),
        (Box(2000, 100, 2100, 200), 1.0),
    ],
)
@pytest.mark.parametrize("mpp", [0.5, 0.8, 1.0, 2.0, 0.25])
def test_outside_the_slide_is_white_glass_and_its_share_is_stated(box, fraction, mpp):
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    slide = slide_of(black, black[::2, ::2], black[::4, ::4])
    region = slide.read(box, mpp)
    assert region.padding_fraction == pytest.approx(fraction)
    # A black slide on white: the mean brightness is the padded share, up to the mixed pixels at the edge.
    assert region.pixels.mean() / 255 == pytest.approx(fraction, abs=1.5 / region.pixels.shape[0])
    if fraction in (0.0, 1.0):
        assert (region.pixels == 255 * fraction).all()


@settings(max_examples=60, deadline=None)
@given(st.floats(-100, 1000), st.floats(-100, 1000), st.floats(30, 300), st.sampled_from([0.25, 0.5, 0.7, 1.0, 2.0]))
def test_a_constant_slide_shows_its_constant_where_it_is_and_white_elsewhere(x, y, side, mpp):
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    region = slide_of(grey, grey[::2, ::2]).read(Box(x, y, x + side, y + side), mpp)
    values = region.pixels[..., 0]
    assert values.min() >= 100
    assert 0 <= region.padding_fraction <= 1
    expected = 100 + 155 * region.padding_fraction
    assert abs(values.mean() - expected) <= 155 * 2 / values.shape[0] + 0.5
    if region.padding_fraction == 0:
        assert (values == 100).all()


def test_an_empty_box_is_a_mistake_of_the_caller():
    for box in (Box(5, 5, 5, 10), Box(5, 5, 4, 10)):
        with pytest.raises(ValueError, match="must be positive"):
            slide_of(ramp(64, 64)).read(box, 0.5)


# ---- large areas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.5, 0.51, 0.2, 0.7, 1.0, 3.1])
def test_reading_in_bands_bounds_the_memory_and_changes_nothing(monkeypatch, mpp):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    box = Box(-3.3, 7.6, 390.2, 310.1)
    whole = slide_of(noise).read(box, mpp).pixels.astype(int)
    monkeypatch.setattr(views, "MAX_SOURCE_PX", 20_000)
    slide = slide_of(noise)
    banded = slide.read(box, mpp).pixels
    assert len(slide.reader.read) > 3
    assert max(count for _, count in slide.reader.read) < 24_000
    assert np.abs(banded - whole).max() <= 1


def test_neighbouring_views_join_without_a_seam_when_interpolated():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    slide = slide_of(noise)
    whole = slide.read(Box(8, 8, 40, 24), 0.25).pixels.astype(int)
    left, right = slide.read(Box(8, 8, 24, 24), 0.25).pixels, slide.read(Box(24, 8, 40, 24), 0.25).pixels
    assert np.abs(np.hstack([left, right]) - whole).max() <= 1


def test_thumbnails_keep_the_aspect_and_the_limit(make_slide):
    with open_slide(make_slide(height=600, width=1000, levels=2)) as slide:
        region = slide.thumbnail(200)
        assert region.pixels.shape == (120, 200, 3)
        assert region.level == 1
        assert slide.thumbnail(5000).pixels.shape == (600, 1000, 3)  # never enlarged


# ---- keeping slides open --------------------------------------------------------------------------------------------


def test_the_cache_of_slides_is_bounded_and_closes_the_oldest(make_slide):
    paths = [make_slide(f"{n}.tif", height=64, width=64, levels=1) for n in range(3)]
    cache = SlideCache(max_slides=2)
    first = cache.get(paths[0])
    second = cache.get(paths[1])
    assert cache.get(paths[0]) is first
    cache.get(paths[2])
    assert len(cache) == 2
    assert cache.get(paths[0]) is first
    assert cache.get(paths[1]) is not second
    assert cache.get(paths[1], mpp=0.3).mpp == pytest.approx(0.3)
    cache.close()
    assert len(cache) == 0


def test_an_array_with_stated_mpp_is_a_slide():
    with Slide("array", ArrayReader(ramp(100, 80, 100)), Resolution(0.5, 0.5, "stated")) as slide:
        assert slide.frame.size_um == (50, 40)
        assert slide.read(Box(0, 0, 100, 80), 1.0).pixels.shape == (40, 50, 3)
