from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import SlideMaker

from lamella.errors import LamellaError
from lamella.formats.ome_zarr import LabelStore, open_raster
from lamella.geometry import Frame
from lamella.slides.slide import open_slide
from lamella.view import prediction
from lamella.view.class_colours import class_colours
from lamella.view.prediction import counted_mm2, draw_prediction, labels_on, painted_classes

NAMES = ["background", "tumour", "stroma"]


def stored(folder: Path, labels: np.ndarray, mpp: float) -> Path:
    store = LabelStore(folder, NAMES, *labels.shape, mpp, chunk_px=64)
    for y in range(0, len(labels), 64):
        store.write(y, labels[y : y + 64])
    store.finish()
    return folder


def quarters(height: int, width: int) -> np.ndarray:
    """Upper left not looked at, upper right background, lower left tumour, lower right stroma."""
    labels = np.full((height, width), 255, np.uint8)
    labels[: height // 2, width // 2 :] = 0
    labels[height // 2 :, : width // 2] = 1
    labels[height // 2 :, width // 2 :] = 2
    return labels


@pytest.mark.parametrize("mpp", [0.5, 2.0, 7.0])
def test_labels_lie_over_the_slide_at_any_scale(tmp_path: Path, mpp: float) -> None:
    labels = quarters(512, 768)
    raster = open_raster(stored(tmp_path / "l", labels, 1.0))
    frame = Frame(round(768 / mpp), round(512 / mpp), mpp, mpp)
    found = labels_on(raster, frame)
    assert found.shape == (frame.height_px, frame.width_px)
    rows, columns = (((np.arange(size) + 0.5) * mpp).astype(int) for size in found.shape)
    expected = labels[rows.clip(0, 511)[:, None], columns.clip(0, 767)]
    assert (found == expected).mean() > 0.97  # a coarse pixel on a border may hold either side's label


def test_only_a_coarse_level_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(stored(tmp_path / "l", quarters(512, 768), 1.0))
    asked = []
    monkeypatch.setattr(type(raster.levels[0]), "__getitem__", _remembering(asked, type(raster.levels[0]).__getitem__))
    labels_on(raster, Frame(96, 64, 8.0, 8.0))
    assert asked == [(64, 96)]


def _remembering(asked: list[tuple[int, ...]], original: object) -> object:
    def read(array: object, place: object) -> object:
        asked.append(array.shape)  # type: ignore[attr-defined]
        return original(array, place)  # type: ignore[operator]

    return read


def test_classes_are_coloured_background_is_bare_and_the_unseen_pale() -> None:
    pixels = np.full((40, 40, 3), (200, 100, 150), np.uint8)
    painted = painted_classes(pixels, quarters(40, 40), tuple(NAMES), "background")
    colours = class_colours(NAMES)
    assert painted[10, 30].tolist() == [200, 100, 150]
    assert (painted[10, 10] > pixels[10, 10]).all()
    for (row, column), name in (((30, 10), "tumour"), ((30, 30), "stroma")):
        expected = 150 * (1 - prediction._OPACITY) + np.array(colours[name]) * prediction._OPACITY
        np.testing.assert_allclose(painted[row, column], expected, atol=1)
    assert painted[30, 19].tolist() == list(colours["tumour"])  # the edge between two classes, in full colour
    assert painted[30, 20].tolist() == list(colours["stroma"])


def test_areas_are_those_of_the_finest_level(tmp_path: Path) -> None:
    raster = open_raster(stored(tmp_path / "l", quarters(100, 200), 0.5))
    assert counted_mm2(raster) == pytest.approx(dict.fromkeys(NAMES, 5000 * 0.25e-6))


def test_the_picture_shows_slide_and_classes_side_by_side(make_slide: SlideMaker, tmp_path: Path) -> None:
    folder = stored(tmp_path / "l", quarters(256, 384), 2.0)
    with open_slide(make_slide()) as slide:
        draw_prediction(slide, folder, tmp_path / "a.png", title="slide: a model with a name " * 20)
        thumbnail = slide.thumbnail(1000).pixels
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    height, width = thumbnail.shape[:2]
    top, gap = prediction._HEAD_PX, prediction._MARGIN_PX
    assert picture.shape[1] == 2 * width + 3 * gap
    np.testing.assert_array_equal(picture[top : top + height // 2, gap : gap + width], thumbnail[: height // 2])
    right = picture[top : top + height, width + 2 * gap : 2 * width + 2 * gap]
    np.testing.assert_array_equal(
        right[5 : height // 2 - 5, width // 2 + 5 :], thumbnail[5 : height // 2 - 5, width // 2 + 5 :]
    )
    legend = picture[top + height + 2 :].reshape(-1, 3)
    for name in ("tumour", "stroma"):
        assert (legend == class_colours(NAMES)[name]).all(axis=1).sum() > 100


def test_an_unfinished_prediction_is_not_drawn(make_slide: SlideMaker, tmp_path: Path) -> None:
    LabelStore(tmp_path / "l", NAMES, 256, 384, 2.0, chunk_px=64)
    with open_slide(make_slide()) as slide, pytest.raises(LamellaError, match="unfinished"):
        draw_prediction(slide, tmp_path / "l", tmp_path / "a.png", title="a")
    assert not (tmp_path / "a.png").exists()
