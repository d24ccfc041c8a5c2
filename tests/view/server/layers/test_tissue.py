"""The tissue of an index over its slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.view.server.layers.analytic import SLIDE, tiles

from lamella.errors import MaskMismatchError
from lamella.geometry import Frame
from lamella.slides.index import IndexedSlide
from lamella.slides.masks import write_mask
from lamella.view.server.layers.contract import Look
from lamella.view.server.layers.tissue import TissueLayer


def indexed(path: Path) -> IndexedSlide:
    """Tissue right of 600 um and below 300 um, in a mask of 150 x 80 pixels."""
    mask = np.zeros((80, 150), bool)
    mask[30:, 60:] = True
    write_mask(path, mask)
    return IndexedSlide("slide", path, path, SLIDE, SLIDE.resized(150, 80), tissue_area_mm2=0.45, tissue_fraction=0.375)


def test_tissue_is_green_where_the_mask_has_it_at_every_level(tmp_path):
    layer = TissueLayer(indexed(tmp_path / "mask.png"), "index", SLIDE)
    for box, width, height, x, y in tiles():
        shown = layer.tile(box, width, height, Look())
        assert np.array_equal(shown[..., 3] == 255, (x >= 600) & (y >= 300) & (x < 1500) & (y < 800))
    assert layer.info.note == "0.45 mm² (38%), given"


def test_a_mask_that_is_gone_is_said_when_it_is_looked_at(tmp_path):
    layer = TissueLayer(indexed(tmp_path / "mask.png"), "index", SLIDE)
    (tmp_path / "mask.png").unlink()
    box, width, height, *_ = next(tiles())
    with pytest.raises(MaskMismatchError, match="does not exist"):
        layer.tile(box, width, height, Look())


def test_the_index_of_another_slide_is_refused(tmp_path):
    with pytest.raises(MaskMismatchError, match="3000 x 2000 pixels, this one has 900 x 900"):
        TissueLayer(indexed(tmp_path / "mask.png"), "index", Frame(900, 900, 0.5, 0.5))
