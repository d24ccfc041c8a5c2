"""Where tissue is found."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from lamella.errors import EmptyTissueError
from lamella.slides import thumbnail
from lamella.slides.phantom import SCANNERS, draw_tissue, scan
from lamella.slides.readers.mpp import Resolution
from lamella.slides.slide import Slide
from lamella.slides.tissue import TissueSettings, find_tissue

GLASS, PINK, PURPLE = (244, 243, 245), (228, 170, 205), (130, 80, 150)


class ArrayReader:
    """One level in memory that remembers the largest piece asked for."""

    name = "array"

    def __init__(self, pixels):
        self.properties = {}
        self.pixels = pixels
        self.largest_px = 0

    @property
    def level_sizes(self):
        return [(self.pixels.shape[1], self.pixels.shape[0])]

    def read_level(self, level, x, y, width, height):
        self.largest_px = max(self.largest_px, width * height)
        return self.pixels[y : y + height, x : x + width]

    def close(self):
        pass


def slide_of(pixels, mpp=8.0):
    return Slide("generated", ArrayReader(pixels), Resolution(mpp, mpp, "stated"))


def canvas(height, width, colour=GLASS, noise=2, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(np.array(colour) + rng.integers(-noise, noise + 1, (height, width, 3)), 0, 255).astype(np.uint8)


def paint(pixels, rows, columns, colour, seed=1):
    pixels[rows, columns] = canvas(*pixels[rows, columns].shape[:2], colour, 6, seed)


def test_pale_and_dark_tissue_are_found_and_glass_is_not():
    pixels = canvas(200, 300)
    paint(pixels, slice(40, 120), slice(30, 130), PINK)
    paint(pixels, slice(60, 160), slice(180, 280), PURPLE)
    expected = np.zeros((200, 300), bool)
    expected[40:120, 30:130] = expected[60:160, 180:280] = True
    for method in ("saturation", "optical_density"):
        mask = find_tissue(slide_of(pixels), TissueSettings(method=method))
        assert (mask != expected).mean() < 0.01


def test_crumbs_are_dropped_small_holes_filled_and_large_ones_kept():
    pixels = canvas(200, 200)
    paint(pixels, slice(20, 180), slice(20, 180), PURPLE)
    paint(pixels, slice(5, 10), slice(5, 10), PURPLE)  # 40 um a side
    paint(pixels, slice(60, 66), slice(60, 66), GLASS)  # 48 um
    paint(pixels, slice(100, 140), slice(100, 140), GLASS)  # 320 um
    mask = find_tissue(slide_of(pixels), TissueSettings())
    assert not mask[5:10, 5:10].any()
    assert mask[60:66, 60:66].all()
    assert not mask[105:135, 105:135].any()


def test_tissue_reaches_the_edge_of_the_slide():
    assert find_tissue(slide_of(canvas(100, 100, PURPLE, 20)), TissueSettings()).all()


def test_black_borders_and_pen_marks_are_no_tissue():
    pixels = canvas(200, 300)
    paint(pixels, slice(40, 160), slice(100, 200), PURPLE)
    pixels[:, :40] = (3, 1, 6)
    for row, ink in ((40, (30, 140, 70)), (90, (40, 70, 190)), (140, (36, 54, 116))):
        paint(pixels, slice(row, row + 30), slice(230, 290), ink)
    mask = find_tissue(slide_of(pixels), TissueSettings())
    assert mask[60:140, 120:180].all()
    assert not mask[:, :45].any()
    assert not mask[:, 225:].any()


@pytest.mark.parametrize("colour", [GLASS, (225, 225, 225), (2, 2, 2), (240, 236, 226)])
def test_a_slide_without_tissue_is_refused(colour):
    with pytest.raises(EmptyTissueError, match="no tissue was found"):
        find_tissue(slide_of(canvas(100, 120, colour)), TissueSettings())


def test_the_thumbnail_is_read_in_pieces_that_join_without_a_seam(monkeypatch):
    rng = np.random.default_rng(4)
    pixels = canvas(1003, 1501)
    for top, left in rng.integers(0, 900, (12, 2)):
        paint(pixels, slice(top, top + 150), slice(left, left + 180), PURPLE)
    slide = slide_of(pixels, mpp=1.0)
    whole = find_tissue(slide, TissueSettings(mpp=3.0, min_object_um2=0, max_hole_um2=0))
    monkeypatch.setattr("lamella.slides.thumbnail._READ_PX", 100**2)
    pieces = slide_of(pixels, mpp=1.0)
    mask = find_tissue(pieces, TissueSettings(mpp=3.0, min_object_um2=0, max_hole_um2=0))
    np.testing.assert_array_equal(mask, whole)
    assert pieces.reader.largest_px <= 110**2
    assert mask.shape == (334, 500)


@given(height=st.integers(1, 60), width=st.integers(1, 60), mpp=st.floats(1.0, 7.0), piece=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_every_size_of_slide_can_be_cut_into_pieces(height, width, mpp, piece):
    slide = slide_of(canvas(height, width, PURPLE, 20))
    old, thumbnail._READ_PX = thumbnail._READ_PX, piece**2
    try:
        mask = find_tissue(slide, TissueSettings(mpp=mpp * 8, min_object_um2=0))
    finally:
        thumbnail._READ_PX = old
    assert mask.all()


# ---- hard slides, with a truth ---------------------------------------------------------------------------------------

HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)


@functools.cache
def section(stains, strength=0.45):
    """Light let through by a slide of 3.4 x 4.8 mm with an uneven piece of tissue with a hole; and its mask."""
    rng = np.random.default_rng(0)
    shape = (420, 600)

    def smooth(sigma):
        noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
        return noise / noise.std()

    y, x = np.indices(shape)
    mask = np.hypot((x - 300) / 228, (y - 210) / 150) + 0.08 * smooth(20) < 1
    mask &= np.hypot(x - 250, y - 200) > 30  # a hole of 480 um
    amounts = [(1 + 0.25 * smooth(2) + 0.25 * smooth(15)).clip(0.1) for _ in stains]
    density = sum(strength * amount[..., None] * stain for amount, stain in zip(amounts, np.array(stains), strict=True))
    return np.where(mask[..., None], 10.0 ** -(density / len(stains)), 1.0), mask


def scanned(light, glass=(244, 243, 243)):
    noise = np.random.default_rng(0).normal(0, 1.2, light.shape)
    return slide_of((light * glass + noise).clip(0, 255).astype(np.uint8))


def ink_strokes(colour):
    """Light let through by a free stroke, one across the tissue and one over its edge; and where they lie."""
    image = Image.new("L", (600, 420))
    draw = ImageDraw.Draw(image)
    for stroke in (((30, 36), (190, 24)), ((420, 12), (396, 408)), ((36, 240), (156, 384))):
        draw.line(stroke, fill=255, width=36)
    thickness = ndimage.gaussian_filter(np.asarray(image) / 255.0, 3)
    streaks = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=thickness.shape), 4)
    thickness *= 1 + 0.1 * streaks / streaks.std()
    return (np.array(colour) / 250.0) ** thickness.clip(0)[..., None], thickness > 0.3


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize(
    ("stains", "strength", "least"),
    [
        ((HAEMATOXYLIN, EOSIN), 0.45, 0.985),
        ((HAEMATOXYLIN, DAB), 0.4, 0.985),
        ((HAEMATOXYLIN,), 0.25, 0.985),  # IHC, nothing bound
        ((EOSIN,), 0.08, 0.97),  # faint
    ],
)
@pytest.mark.parametrize("glass", [(244, 243, 243), (243, 232, 208), (205, 203, 206), (240, 224, 237)])
def test_every_stain_on_every_glass(stains, strength, least, glass):
    light, truth = section(stains, strength)
    assert overlap(find_tissue(scanned(light, glass), TissueSettings()), truth) > least


def test_light_that_falls_off_to_one_side_is_no_tissue():
    light, truth = section((HAEMATOXYLIN, EOSIN))
    light = light * (1 - np.linspace(0, 1, 600)[None, :, None] * (0.02, 0.08, 0.05))  # pink to the right
    assert overlap(find_tissue(scanned(light), TissueSettings()), truth) > 0.97


# Colour, and whether it is told from tissue where it lies over tissue: yellow ink lets the tissue's colour through,
# dark inks make it the colour of dense nuclei and of blood.
INKS = {
    "red": ((205, 35, 50), True),
    "dark red": ((150, 20, 35), False),
    "orange": ((230, 120, 30), True),
    "yellow": ((240, 225, 60), False),
    "green": ((30, 130, 70), True),
    "cyan": ((60, 170, 200), True),
    "blue": ((30, 60, 170), True),
    "navy": ((25, 30, 80), False),
    "black": ((35, 35, 40), True),
}


@pytest.mark.parametrize("ink", INKS)
def test_pen_of_every_colour_but_violet_and_pink_is_left_out(ink):
    colour, told_over_tissue = INKS[ink]
    light, truth = section((HAEMATOXYLIN, EOSIN))
    through, stroke = ink_strokes(colour)
    mask = find_tissue(scanned(light * through), TissueSettings())
    assert mask[stroke & ~truth].mean() < 0.01
    if told_over_tissue:
        assert mask[stroke & truth].mean() < 0.15
    away = truth & ~ndimage.binary_dilation(stroke, iterations=16)  # 130 um
    assert mask[away].mean() > 0.98


@pytest.mark.parametrize("stains", [(HAEMATOXYLIN, EOSIN), (HAEMATOXYLIN, DAB), (HAEMATOXYLIN,), ((0.10, 0.90, 0.52),)])
def test_no_stain_and_no_blood_is_taken_for_ink(stains):
    light, truth = section(stains, 0.7)
    mask = find_tissue(scanned(light), TissueSettings())
    assert mask[truth].mean() > 0.99


def test_grey_dirt_is_no_tissue_by_colour():
    light, truth = section((HAEMATOXYLIN, EOSIN))
    light = light.copy()
    for (row, column), level in {(36, 36): 0.85, (40, 560): 0.5, (380, 40): 0.1}.items():
        light[row - 25 : row + 25, column - 25 : column + 25] *= level
    mask = find_tissue(scanned(light), TissueSettings())
    assert not (mask & ~ndimage.binary_dilation(truth, iterations=4)).any()


def test_generated_tissue_is_found_to_its_edge():
    tissue = draw_tissue(5, 1024)
    pixels = scan(tissue, SCANNERS[0], 5)
    for method in ("saturation", "optical_density"):
        mask = find_tissue(slide_of(pixels, mpp=0.5), TissueSettings(method=method))
        glass_share = Image.fromarray((tissue.labels == 0).astype(np.uint8) * 255).resize(mask.shape[::-1], 4)  # box
        assert overlap(mask, np.asarray(glass_share) < 128) > 0.98
