from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.view.segment_overlays import (
    _CONFUSED,
    _FALSE,
    _MISSED,
    _PANEL_PX,
    _UNKNOWN,
    Overlay,
    _errors,
    draw_segment_overlays,
)

SIDE = _PANEL_PX  # drawn as they are, so that pixels can be looked up


def quarters() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pink pixels; truth and prediction that differ in each way once."""
    half = SIDE // 2
    truth, predicted = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    truth[:half, :half] = 1  # missed
    predicted[:half, half:] = 1  # false
    truth[half:, :half], predicted[half:, :half] = 1, 2  # confused
    truth[half:, half:] = NOT_LABELLED
    predicted[half:, half:] = 2
    return np.full((SIDE, SIDE, 3), (220, 180, 200), np.uint8), truth, predicted


def colour_at(picture: np.ndarray, y: int, x: int) -> tuple[int, ...]:
    return tuple(int(value) for value in picture[y, x])


def test_each_kind_of_error_has_its_colour_and_what_is_right_has_none():
    pixels, truth, predicted = quarters()
    picture = _errors(pixels, truth, predicted, background=0)
    quarter, rest = SIDE // 4, 3 * SIDE // 4
    assert colour_at(picture, quarter, quarter) == _MISSED
    assert colour_at(picture, quarter, rest) == _FALSE
    assert colour_at(picture, rest, quarter) == _CONFUSED
    unknown = {colour_at(picture, rest, rest + shift) for shift in range(8)}
    assert _UNKNOWN in unknown
    assert not unknown & {_MISSED, _FALSE, _CONFUSED}
    right = _errors(pixels, truth, np.where(truth == NOT_LABELLED, 0, truth), background=0)[: SIDE // 2]
    assert (right == right[..., :1]).all()  # grey


def test_without_a_background_every_error_is_one_tissue_called_another():
    pixels, truth, predicted = quarters()
    picture = _errors(pixels, truth, predicted, background=None)
    assert colour_at(picture, SIDE // 4, SIDE // 4) == _CONFUSED


def test_a_page_has_a_row_for_each_image_of_any_shape():
    pixels, truth, predicted = quarters()
    wide = Overlay(pixels[:100], truth[:100], predicted[:100], "best: a", "Dice 0.9", 0.5)
    square = Overlay(pixels, truth, predicted, "worst: b")
    one = draw_segment_overlays([square], ("background", "gland", "tumour"), 0, heading="h", facts=["f"])
    both = draw_segment_overlays([wide, square], ("background", "gland", "tumour"), 0, heading="h", facts=["f"])
    assert both.width == one.width
    assert 100 < both.height - one.height < 100 + 80  # the picture, its name and its caption
