from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import textured, write_pyramid

from lamella.formats.ome_zarr import StoredRaster, ValueStore, open_raster
from lamella.slides.slide import open_slide
from lamella.view import expression_prediction
from lamella.view.expression_prediction import draw_predicted_genes

GENES = ("FLAT", "CORNER", "NOISE")


def maps(folder: Path, *, nowhere: bool = False) -> StoredRaster:
    """24 x 40 bins of 8 um under a slide of 192 x 320 um: CORNER is high in the upper right, the last row is glass."""
    rng = np.random.default_rng(0)
    band = np.full((3, 24, 40), 5.0, np.float32)
    band[1] = 0.1
    band[1, :6, 30:] = 9
    band[2] += rng.normal(0, 0.5, (24, 40))
    band[:, -1] = np.nan
    if nowhere:
        band[:] = np.nan
    store = ValueStore(folder / "genes.zarr", GENES, 24, 40, 8.0, 32, "float32")
    store.write(0, band)
    store.finish()
    return open_raster(folder / "genes.zarr")


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_pyramid(tmp_path / "s.tif", textured(384, 640), mpp=0.5)


def test_genes_with_most_contrast_come_first_and_lie_where_they_are(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, draw = [], expression_prediction.coloured

    def keeping(values: np.ndarray, *rest: object) -> Image.Image:
        shown.append(values)
        return draw(values, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(expression_prediction, "coloured", keeping)
    with open_slide(slide) as opened:
        found = draw_predicted_genes(opened, maps(tmp_path), tmp_path / "genes.png", heading="s", facts=["counts"])
    assert found == ("CORNER", "NOISE", "FLAT")
    height, width = shown[0].shape
    assert abs(height / width - 384 / 640) < 0.02
    quarter = shown[0][: height // 4, width * 3 // 4 + 1 :]
    assert (quarter == 9).all()
    assert (shown[0][height // 4 + 1 : -height // 24, :] < 1).all()
    assert np.isnan(shown[0][-1]).all()
    with Image.open(tmp_path / "genes.png") as page:
        assert page.width > 3 * width


def test_no_more_genes_than_a_page_holds(tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression_prediction, "_MOST_GENES", 1)
    with open_slide(slide) as opened:
        assert draw_predicted_genes(opened, maps(tmp_path), tmp_path / "genes.png", heading="s") == ("CORNER",)


def test_maps_without_a_number_are_drawn_empty(tmp_path: Path, slide: Path) -> None:
    with open_slide(slide) as opened:
        draw_predicted_genes(opened, maps(tmp_path, nowhere=True), tmp_path / "genes.png", heading="s")
    assert (tmp_path / "genes.png").stat().st_size > 0
