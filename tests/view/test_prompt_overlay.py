from __future__ import annotations

import numpy as np
from PIL import Image

from lamella.view.marks import colour
from lamella.view.prompt_overlay import DrawnAnswer, draw_answers


def test_outlines_lie_where_the_masks_are(tmp_path):
    pixels = np.full((100, 200, 3), 200, np.uint8)
    masks = np.zeros((2, 100, 200), bool)
    masks[0, 20:60, 20:80] = True
    masks[1, 10:90, 120:180] = True
    answers = [
        DrawnAnswer("first", masks[0], (15, 15, 85, 65), np.array([[50.0, 40.0]])),
        DrawnAnswer("second", masks[1], negatives=np.array([[150.0, 50.0]])),
    ]
    draw_answers(pixels, answers, 0.5, "a slide", tmp_path / "a.png")
    image = np.asarray(Image.open(tmp_path / "a.png"))
    top, left = 60, 20  # title and margin; the picture is five times as large
    for number, (x0, y0, x1, y1) in enumerate(((20, 20, 80, 60), (120, 10, 180, 90))):
        same = (image[top : top + 500, left : left + 1000] == colour(number)).all(-1)
        y, x = np.nonzero(same)
        assert abs(x.min() - 5 * x0) <= 5 * 5 + 1  # the box of the first lies further out
        assert abs(y.max() + 1 - 5 * y1) <= 5 * 5 + 1
        inside = image[top + 5 * (y0 + y1) // 2 - 60, left + 5 * (x0 + x1) // 2 - 60]
        assert not (inside == 200).all()
    assert (image[top + 250, left + 5 * 100] == 200).all()


def test_a_mask_at_the_edge_has_no_line_there(tmp_path):
    mask = np.ones((50, 50), bool)
    draw_answers(np.full((50, 50, 3), 90, np.uint8), [DrawnAnswer("all", mask)], 1.0, "x" * 300, tmp_path / "a.png")
    image = np.asarray(Image.open(tmp_path / "a.png"))
    assert not (image[60:1060, 20:1020] == colour(0)).all(-1).any()
