"""The viewer's tiles of real slides beside OpenSlide's Deep Zoom generator."""

import io

import numpy as np
import openslide
import pytest
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from lamella.slides.slide import open_slide
from lamella.view.server.pyramid import Pyramid
from lamella.view.server.tile_pixels import tile_jpeg


def blocks(pixels):
    """Means of 8 x 8 pixels."""
    height, width = (side // 8 * 8 for side in pixels.shape[:2])
    return pixels[:height, :width].reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("name", ["TCGA-AA-3562-region.tif", "CMU-1-Small-Region.svs"])
def test_tiles_show_what_openslide_shows(real_data, name):
    """The file's tiles (256 and 240 px) are the page's, and are sent as they are."""
    path = real_data / "slides" / name
    with open_slide(path, dct_scaling=True) as slide:
        pyramid = Pyramid.of(slide)
        theirs = DeepZoomGenerator(openslide.OpenSlide(path), pyramid.tile_px, 0)
        top = pyramid.max_level
        for level in range(top, top - 4, -1):
            columns, rows = pyramid.tiles(level)
            for place in {(columns // 2, rows // 3), (columns - 1, rows - 1)}:
                ours = np.asarray(Image.open(io.BytesIO(tile_jpeg(slide, level, *place)))).astype(int)
                expected = np.asarray(theirs.get_tile(level, place)).astype(int)
                height, width = (min(pair) for pair in zip(ours.shape[:2], expected.shape[:2], strict=True))
                assert min(height, width) >= min(ours.shape[:2]) - 1  # OpenSlide's last tiles may lack a row or column
                # Where a level is missing the filters differ, Lanczos there and means here: blocks must agree.
                ours, expected = blocks(ours[:height, :width]), blocks(expected[:height, :width])
                assert np.abs(ours - expected).mean() < 2
        box, *size_px = pyramid.tile(top, 1, 1)
        assert slide.stored_jpeg(box, *size_px, slide.mpp) is not None
