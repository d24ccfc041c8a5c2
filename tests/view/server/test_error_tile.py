"""What cannot be read is plainly no tissue."""

import io

import numpy as np
import pytest
from PIL import Image

from lamella.view.server.error_tile import error_tile


def pixels(size_px, text="tile 5 ends too early"):
    image = Image.open(io.BytesIO(error_tile(size_px, text)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", size_px)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("size_px", [(256, 256), (160, 300), (159, 130), (40, 7), (1, 1)])
def test_it_has_the_asked_size_and_nothing_like_glass_or_tissue_beside_its_plate(size_px):
    tile = pixels(size_px)
    border = np.concatenate([tile[0], tile[-1], tile[:, 0], tile[:, -1]])
    assert {tuple(one) for one in border.tolist()} <= {(255, 193, 7), (66, 58, 30)}


def test_it_is_hatched_all_over():
    tile = pixels((256, 256))
    dark = tile.sum(axis=2) < 200
    for block in (tile_block for rows in np.split(dark, 4) for tile_block in np.split(rows, 4, axis=1)):
        assert 0.02 < block.mean() < 0.98
    assert 0.2 < dark.mean() < 0.6


def test_another_reason_is_another_picture_and_a_long_one_stays_inside():
    assert (pixels((256, 256)) != pixels((256, 256), "the file does not exist")).any()
    long = pixels((256, 256), "word " * 400)
    assert ((long[:6] == (255, 193, 7)) | (long[:6] == (66, 58, 30))).all()
    assert ((long[-6:] == (255, 193, 7)) | (long[-6:] == (66, 58, 30))).all()
