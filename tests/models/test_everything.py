"""Everything mode finds each object once, and sifts by SAM 2's own rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamella.models.everything import Sieve, everything, grid_points
from lamella.models.promptable_model import PromptableModel


class Squares(PromptableModel):
    """A click inside a square answers that square three times: sharp, blurred at its edge, and doubted."""

    image_px = mask_px = 64
    architecture, fingerprint, encoder_fingerprint, encoder_trained, pyramid_dim = {}, "", "", False, 1
    squares = ((4, 4, 20, 20), (30, 8, 60, 24), (10, 40, 18, 44))

    def __init__(self) -> None:
        super().__init__(None, "squares", "none")

    def pyramid(self, images):
        return []

    def _features(self, canvases):
        return (canvases,)

    def _answer(self, features, clicks, boxes, masks, multimask):
        assert multimask
        middle = torch.arange(64) + 0.5
        x, y = middle[None, :], middle[:, None]
        logits, iou = [], []
        for px, py in clicks[0][:, 0].tolist():
            mask, depth, hit = torch.full((64, 64), -9.0), torch.full((64, 64), -9.0), 0.0
            for x0, y0, x1, y1 in self.squares:
                if x0 < px < x1 and y0 < py < y1:
                    inside = torch.minimum(torch.minimum(x - x0, x1 - x), torch.minimum(y - y0, y1 - y))
                    mask, depth, hit = torch.where(inside > 0, 9.0, -9.0), inside / 4, 0.9
            logits.append(torch.stack([mask, depth, mask]))
            iou.append([hit, hit + 0.05, hit - 0.3])
        return torch.stack(logits), torch.tensor(iou), None


@pytest.fixture
def embedded():
    return Squares().embed(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_each_object_once_and_no_other(embedded):
    found = everything(Squares(), embedded, Sieve(points_per_side=16))
    assert len(found) == 3
    for one in found:
        ((x0, y0, x1, y1),) = [s for s in Squares.squares if s[0] < one.point[0] < s[2] and s[1] < one.point[1] < s[3]]
        expected = np.zeros((64, 64), bool)
        expected[y0:y1, x0:x1] = True
        assert np.array_equal(one.mask, expected)
        assert (one.believed_iou, one.stability) == (pytest.approx(0.9), 1.0)


def test_unstable_masks_are_taken_where_they_are_asked_for(embedded):
    found = everything(Squares(), embedded, Sieve(points_per_side=16, least_stability=0.1))
    # The third is so small that its blurred answer has no inside; the others' sharp ones lie beneath the believed ones.
    assert [one.believed_iou for one in found] == [pytest.approx(0.95), pytest.approx(0.95), pytest.approx(0.9)]
    assert [one.stability < 0.9 for one in found] == [True, True, False]


def test_what_is_not_believed_is_left_out(embedded):
    assert everything(Squares(), embedded, Sieve(points_per_side=16, least_iou=0.96)) == []
    doubted = Sieve(points_per_side=16, least_iou=0.5, largest_overlap=1.0)
    assert len(everything(Squares(), embedded, doubted)) > 3  # without sifting, one for each click and answer


def test_points_between_a_coarse_grid_are_missed(embedded):
    assert len(everything(Squares(), embedded, Sieve(points_per_side=2))) == 2  # (16, 16) and (48, 16)


def test_the_grid_lies_in_the_middle_of_equal_cells():
    assert grid_points((10, 40), 2).tolist() == [[10.0, 2.5], [30.0, 2.5], [10.0, 7.5], [30.0, 7.5]]


def test_one_image_at_a_time():
    with pytest.raises(ValueError, match="one image"):
        everything(Squares(), Squares().embed(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)))
