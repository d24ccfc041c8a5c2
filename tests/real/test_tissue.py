"""Tissue on real slides. The places were chosen by looking at them; truth is what a person sees there."""

import numpy as np
import pytest

from lamella.formats.geojson import read_geojson
from lamella.slides.manifest import ManifestRow
from lamella.slides.polygons import fill_polygon
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings, find_tissue
from lamella.slides.tissue_files import new_mask

# Boxes (x0, y0, x1, y1) in pixels of thumbnail-with-ink.jpeg, and the largest (or least) share of tissue.
INK = {
    "blue mark on glass": ((3720, 860, 3980, 930), 0.05),
    "blue mark over tissue": ((3780, 730, 3920, 850), 0.12),
    "its pale edge": ((3660, 880, 3700, 910), 0.01),
    "black dirt": ((4150, 355, 4300, 400), 0.01),
    "grey smudge": ((2740, 490, 2810, 560), 0.01),
    "lumen": ((1790, 280, 1840, 380), 0.06),
}


@pytest.mark.parametrize("mpp", [2.5, 8.0])
def test_ink_dirt_and_lumens_of_a_real_thumbnail_are_no_tissue(real_data, mpp):
    with open_slide(real_data / "slides" / "thumbnail-with-ink.jpeg", mpp=mpp) as slide:
        mask = find_tissue(slide, TissueSettings())
    scale = mask.shape[1] / 5600

    def share(box):
        x0, y0, x1, y1 = (round(side * scale) for side in box)
        return mask[y0:y1, x0:x1].mean()

    assert {name: share(box) for name, (box, most) in INK.items() if share(box) > most} == {}
    assert share((2400, 300, 2500, 420)) > 0.98  # tissue


@pytest.mark.parametrize(("section", "area_mm2"), [("A2", 14.2), ("C2", 7.45), ("C5", 7.3), ("C6", 7.4)])
def test_sections_on_pink_hazy_glass_are_outlined_closely(real_data, section, area_mm2):
    """The glass of these is pink and pinker to one side; C2 to C6 are neighbouring sections of one piece."""
    with open_slide(real_data / "expression" / "her2st" / f"{section}.jpg", mpp=3.2) as slide:
        mask = find_tissue(slide, TissueSettings())
        width_um, height_um = slide.frame.size_um
    assert mask.mean() * width_um * height_um / 1e6 == pytest.approx(area_mm2, rel=0.03)


def test_cut_outs_full_of_tissue_are_tissue_all_over(real_data):
    files = sorted((real_data / "segmentation" / "nuinsseg" / "images").iterdir())
    shares = []
    for file in files[::4]:
        with open_slide(file, mpp=0.5) as slide:
            shares.append(find_tissue(slide, TissueSettings()).mean())
    assert np.median(shares) == 1
    assert min(shares) > 0.8


def test_the_outlines_of_a_real_slide_fill_to_its_mask(real_data, tmp_path):
    with open_slide(real_data / "slides" / "TCGA-AA-3562-region.tif") as slide:
        tissue, _ = new_mask(ManifestRow("a", slide.path), slide, tmp_path, TissueSettings())
        scale = np.array(tissue.mask.shape[::-1]) / (slide.frame.width_px, slide.frame.height_px)
    filled = np.zeros_like(tissue.mask)
    for item in read_geojson(tmp_path / "masks" / "a.geojson"):
        for rings in item.polygons:
            fill_polygon(filled, [ring * scale for ring in rings])
    np.testing.assert_array_equal(filled, tissue.mask)
