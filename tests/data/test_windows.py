from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.data.windows import TissueWindows
from lamella.errors import LamellaError
from lamella.geometry import Box, Frame
from lamella.slides.index import IndexedSlide
from lamella.slides.masks import write_mask


def indexed(folder: Path, slide_id: str, mask: np.ndarray, mpp: tuple[float, float] = (7.3, 8.1)) -> IndexedSlide:
    path = folder / f"{slide_id}.png"
    write_mask(path, mask)
    height, width = mask.shape
    frame = Frame(width, height, *mpp)
    return IndexedSlide(slide_id, path, path, frame.resized(width * 16, height * 16), frame)


@pytest.fixture(scope="module")
def speckled(tmp_path_factory: pytest.TempPathFactory) -> IndexedSlide:
    return indexed(tmp_path_factory.mktemp("mask"), "a", np.random.default_rng(0).random((61, 83)) < 0.5)


@settings(max_examples=150, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.02, 1), st.integers(0, 100))
def test_a_window_says_what_the_whole_mask_says(
    speckled: IndexedSlide, x: float, y: float, share: float, seed: int
) -> None:
    width_um, height_um = speckled.mask_frame.size_um
    side_um = share * min(width_um, height_um)
    left_um, top_um = x * (width_um - side_um), y * (height_um - side_um)
    window, box_um = TissueWindows().around(speckled, Box(left_um, top_um, left_um + side_um, top_um + side_um))
    corners, opposite = np.sort(np.random.default_rng(seed).uniform(0, side_um, (2, 5, 2)), axis=0)
    boxes = np.concatenate([np.concatenate([corners, opposite], axis=1), [[0, 0, side_um, side_um]]])
    whole = speckled.tissue().fractions(boxes + [left_um, top_um] * 2)
    assert window.fractions(boxes + [box_um.x0, box_um.y0] * 2) == pytest.approx(whole, abs=1e-9)


def test_masks_are_held_up_to_a_number_of_bytes(tmp_path: Path) -> None:
    masks = TissueWindows(max_bytes=2 * 64 * 8)  # a mask of 64 x 64 takes 64 x 8 bytes
    slides = [indexed(tmp_path, name, np.ones((64, 64), bool)) for name in "abc"]
    for slide in slides:
        masks.around(slide, Box(0, 0, 50, 50))
    assert (len(masks), masks.held_bytes) == (2, 2 * 64 * 8)
    slides[1].mask_path.unlink()
    masks.around(slides[1], Box(0, 0, 50, 50))  # still held
    slides[0].mask_path.unlink()
    with pytest.raises(LamellaError, match=r"a\.png"):
        masks.around(slides[0], Box(0, 0, 50, 50))
