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


@pytest.mark.parametrize(
    ("name", "own"), [("TCGA-AA-3562-region.tif", True), ("CMU-1-Small-Region.svs", False)], ids=["TCGA", "CMU"]
)
def test_tiles_show_what_openslide_shows(real_data, name, own):
    """`own`: the file's tiles are the page's, and are sent as they are (CMU's have 240 px)."""
    path = real_data / "slides" / name
    theirs = DeepZoomGenerator(openslide.OpenSlide(path), 256, 0)
    with open_slide(path, dct_scaling=True) as slide:
        pyramid = Pyramid.over(slide.frame)
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
        assert (slide.stored_jpeg(box, *size_px, slide.mpp) is not None) == own
