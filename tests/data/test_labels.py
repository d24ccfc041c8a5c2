from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lamella.data.labels import (
    LabelSettings,
    class_fractions,
    label_source,
    majority_class,
    mask_labels,
    numbered,
    table_labels,
)
from lamella.errors import LamellaError, MaskMismatchError
from lamella.geometry import Frame

SLIDE = Frame(800, 400, 0.5, 0.5)  # 400 x 200 um
CLASSES = {"stroma": 1, "tumour": 2}


def left_and_right(path: Path) -> Path:
    """A mask at 4 um per pixel: the left half is 1, the right half 2, the lowest quarter 0."""
    values = np.ones((50, 100), np.uint8)
    values[:, 50:] = 2
    values[-12:] = 0
    Image.fromarray(values).save(path)
    return path


def boxes(*corners_um: tuple[float, float], side_um: float = 40.0) -> np.ndarray:
    corners = np.array(corners_um, float)
    return np.concatenate([corners, corners + side_um], axis=1)


def test_a_tile_is_of_the_class_that_covers_enough_of_it(tmp_path: Path) -> None:
    path = left_and_right(tmp_path / "labels.png")
    places = boxes((0, 0), (300, 0), (170, 0), (180, 0), (0, 132), (0, 160))
    labels = mask_labels(path, SLIDE, places, LabelSettings(classes=CLASSES))
    # (170, 0): 30 of 40 um stroma. (180, 0): a tie. (0, 132): half stroma. (0, 160): no class.
    assert labels == ["stroma", "tumour", "stroma", None, "stroma", None]
    strict = LabelSettings(classes=CLASSES, min_cover=0.8)
    assert mask_labels(path, SLIDE, places, strict) == ["stroma", "tumour", None, None, None, None]


def test_fractions_are_exact_areas_under_a_fractional_box() -> None:
    values = np.array([[1, 2], [0, 2]], np.uint8)
    shares = class_fractions(values, Frame(2, 2, 10, 10), np.array([[5.0, 0.0, 15.0, 20.0]]), CLASSES)
    assert shares["stroma"].tolist() == pytest.approx([0.25])
    assert shares["tumour"].tolist() == pytest.approx([0.5])


def test_without_names_every_value_but_zero_is_a_class(tmp_path: Path) -> None:
    path = left_and_right(tmp_path / "labels.png")
    assert mask_labels(path, SLIDE, boxes((0, 0), (300, 0)), LabelSettings()) == ["1", "2"]


def test_a_mask_of_another_aspect_is_refused(tmp_path: Path) -> None:
    path = left_and_right(tmp_path / "labels.png")
    with pytest.raises(MaskMismatchError, match="another aspect"):
        mask_labels(path, Frame(400, 400, 0.5, 0.5), boxes((0, 0)), LabelSettings())
    with pytest.raises(MaskMismatchError, match="does not exist"):
        mask_labels(tmp_path / "gone.png", SLIDE, boxes((0, 0)), LabelSettings())


def test_no_classes_give_no_labels() -> None:
    assert majority_class({}, 0.5) == []
    assert majority_class({"a": np.array([0.4])}, 0.5) == [None]


def test_table_labels_are_text_and_empty_cells_have_none() -> None:
    table = pa.table({"grade": [3, None, 4], "text": ["a", "", "b"]})
    assert table_labels(table, "grade", "t.csv") == ["3", None, "4"]
    assert table_labels(table, "text", "t.csv") == ["a", None, "b"]
    with pytest.raises(LamellaError, match=r"t\.csv: it has no column 'label'.*grade, text"):
        table_labels(table, "label", "t.csv")


def test_numbers_follow_the_alphabet_and_none_is_minus_one() -> None:
    numbers, names = numbered(["tumour", None, "stroma", "tumour"])
    assert (numbers.tolist(), names) == ([1, -1, 0, 1], ("stroma", "tumour"))


METADATA = {"a": {"label": "x", "label_mask_path": "m.png", "grade": "2"}, "b": {"label": "", "label_mask_path": ""}}


@pytest.mark.parametrize(
    ("settings", "metadata", "source"),
    [
        (LabelSettings(), METADATA, "mask"),
        (LabelSettings(), {"a": {"label": "x"}}, "manifest"),
        (LabelSettings(), {"a": {"site": "x"}}, "none"),
        (LabelSettings(column="grade"), METADATA, "manifest"),
        (LabelSettings(table=Path("t.csv"), column="grade"), METADATA, "table"),
        (LabelSettings(source="none"), METADATA, "none"),
    ],
)
def test_auto_takes_what_there_is(settings: LabelSettings, metadata: dict, source: str) -> None:
    assert label_source(settings, metadata) == source


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        (LabelSettings(source="table"), "no table is given"),
        (LabelSettings(source="mask"), "no column label_mask_path"),
        (LabelSettings(column="tisue"), r"no column 'tisue' \(it has: site\)"),
    ],
)
def test_a_source_that_is_not_there_is_an_error(settings: LabelSettings, cause: str) -> None:
    with pytest.raises(LamellaError, match=cause):
        label_source(settings, {"a": {"site": "x"}})
