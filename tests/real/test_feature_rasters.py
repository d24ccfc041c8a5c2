"""Features of a real section lie where its spots lie."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.data.expression_views import SlideViews
from lamella.dense.feature_rasters import RasterWork, write_feature_raster
from lamella.dense.feature_windows import level_for
from lamella.geometry import BinGrid
from lamella.models.expression.contract import ViewShape
from lamella.models.pyramids.colour import ColourPyramid
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings, find_tissue
from lamella.slides.tissue_map import TissueMap

MPP, SPOT_UM = 3.2, 100.0


def test_views_of_a_spot_are_the_pixels_around_it(real_data: Path, tmp_path: Path) -> None:
    """Colours of C2's spots, cut out of the picture with Pillow, against a view of 8 x 8 tokens around each spot."""
    folder = real_data / "expression/her2st"
    with open(folder / "C2_spots.csv", newline="") as file:
        places = [(float(row["px"]), float(row["py"])) for row in csv.DictReader(file)]
    picture = np.asarray(Image.open(folder / "C2.jpg").convert("RGB"), np.float64) / 255
    backbone, token_um = ColourPyramid(), 4 * MPP
    with open_slide(folder / "C2.jpg", mpp=MPP) as slide:
        mask = find_tissue(slide, TissueSettings())
        tissue = TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0]))
        work = RasterWork(backbone, "colour", level_for(backbone, token_um, MPP), margin_um=SPOT_UM)
        raster = write_feature_raster(tmp_path / "raster", slide, tissue, work)
        grid = BinGrid.upright(token_um, slide.frame.mpp_x, slide.frame.mpp_y)
    views = SlideViews((raster,), (ViewShape(raster.facts.width, token_um, 8),), "none")
    found, expected = [], []
    for x, y in places[::4]:
        (features,), (seen,) = views.at(grid, *map(float, grid.bin_at(x, y)))
        if seen.all():
            found.append(features[:3].mean((1, 2)))
            left, top = round(x) - 16, round(y) - 16
            expected.append(picture[top : top + 32, left : left + 32].mean((0, 1)))
    assert len(found) > 20
    np.testing.assert_allclose(found, expected, atol=0.02)  # a token's bilinear weights reach half a token further
    spread = np.std(expected, axis=0)
    assert (spread > 0.02).all()  # so places that were swapped or moved would be seen
