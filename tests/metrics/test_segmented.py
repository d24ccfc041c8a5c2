from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lamella.metrics.ask_masks import MaskStudy, answer_detection, answer_segmentation
from lamella.metrics.detection import candidates, match_mask
from lamella.metrics.image_study import Part
from lamella.metrics.segmented import (
    SegmentationSettings,
    Windows,
    constant_counts,
    segment,
    segmentation_loss,
)
from lamella.models.heads import upsampled

GRID, SIDE = 4, 16


def toy(seed: int = 0, items: int = 16) -> tuple[Windows, np.ndarray, np.ndarray]:
    """Windows of squares on a grid, tokens that show them, and tokens that show nothing."""
    rng = np.random.default_rng(seed)
    coarse = (rng.random((items, GRID, GRID)) < 0.3).astype(np.uint8)
    coarse[1] = 0  # one without anything
    masks = coarse.repeat(SIDE // GRID, 1).repeat(SIDE // GRID, 2)
    tokens = rng.normal(size=(items, GRID * GRID, 6)).astype(np.float16)
    blind = rng.normal(size=tokens.shape).astype(np.float16)
    tokens[..., 0] += 4 * coarse.reshape(items, -1)

    def lesions(row: int, chance: np.ndarray):
        return match_mask(candidates(chance), masks[row])

    windows = Windows(
        np.arange(items),
        masks,
        (GRID, GRID),
        lambda row, logits: upsampled(logits, (SIDE, SIDE))[0].softmax(0).numpy(),
        lambda row: masks[row],
        lesions,
    )
    return windows, tokens, blind


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_a_head_finds_what_the_tokens_show_on_held_out_items(head) -> None:
    windows, tokens, blind = toy()
    nobody = np.zeros(0, np.int64)
    parts = (Part(np.arange(8), nobody, np.arange(8, 16)), Part(np.arange(8, 16), nobody, np.arange(8)))
    settings = SegmentationSettings(head=head, epochs=30, lr=0.02, batch_size=2)
    done = {
        name: [segment(each, windows, parts, np.arange(16), 1, settings, 0)]
        for name, each in (("ours", tokens), ("random init", blind))
    }
    judged = np.r_[8:16, 0:8]
    constants = constant_counts(windows, judged.tolist(), 1)
    items = np.array([f"i{row}" for row in judged])
    study = MaskStudy(done, constants, ("gland",), items, judged, f"{head} head", "random init", "images")
    answer = answer_segmentation(study)
    found = {(row.measure, row.encoder): row for row in answer.rows}
    assert found["Dice, gland", "ours"].estimate.value > (0.75 if head == "linear" else 0.5)
    assert found["Dice, gland", "ours"].estimate.value > found["Dice, gland", "random init"].estimate.value + 0.2
    truth = np.stack([windows.truth(row) for row in judged])
    share = truth.mean()
    assert found["Dice, gland", "ours"].baseline.value == pytest.approx(2 * share / (1 + share))
    lesions = answer_detection(study)
    assert {row.measure for row in lesions.rows if "difference" not in row.measure} == {
        f"sensitivity at {rate} false alarms an image" for rate in ("0.5", "1", "2", "4")
    }
    if head == "linear":
        assert "better than 1" not in answer.conclusions[0]  # one random initialisation tells no luck


def test_no_head_sees_the_masks_of_the_items_that_it_is_judged_on() -> None:
    windows, tokens, _ = toy()
    part = (Part(np.arange(4), np.array([4, 5]), np.array([6, 7])),)
    settings = SegmentationSettings(epochs=5)
    one = segment(tokens, windows, part, np.arange(16), 1, settings, 0)
    windows.targets[6:8] = 1 - windows.targets[6:8]  # also the truth that it is judged on: same array
    other = segment(tokens, windows, part, np.arange(16), 1, settings, 0)
    np.testing.assert_array_equal(one.counts[:, :, 2], other.counts[:, :, 2])  # the same prediction


def test_the_loss_is_cross_entropy_and_soft_dice_of_the_foreground() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    share = logits.softmax(1)
    soft = []
    for label in (1, 2):
        both = (share[:, label] * (truth == label)).sum()
        soft.append((2 * both + 1) / (share[:, label].sum() + (truth == label).sum() + 1))
    expected = F.cross_entropy(logits, truth) + 1 - sum(soft) / 2
    assert segmentation_loss(logits, truth) == pytest.approx(float(expected), rel=1e-5)
    sure = F.one_hot(truth, 3).movedim(-1, 1).float() * 100
    assert float(segmentation_loss(sure, truth)) == pytest.approx(0, abs=1e-3)


def test_ignored_pixels_move_no_weight() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    truth[:, :2] = 255
    shown = logits.clone().requires_grad_()
    loss = segmentation_loss(shown, truth)
    assert loss.item() == pytest.approx(float(segmentation_loss(logits[:, :, 2:], truth[:, 2:])), rel=1e-5)
    loss.backward()
    assert float(shown.grad[:, :, :2].abs().max()) == 0
    assert float(shown.grad[:, :, 2:].abs().max()) > 0
    nothing = segmentation_loss(logits, torch.full((2, 4, 4), 255))
    assert torch.isfinite(nothing)


def test_a_candidate_in_ignored_area_is_neither_found_nor_a_false_alarm() -> None:
    mask = np.array([[1, 0, 255]], np.uint8)
    found = match_mask([((0.0, 0.0), 0.9), ((0.0, 1.0), 0.8), ((0.0, 2.0), 0.7)], mask)
    assert (found.lesions.tolist(), found.alarms.tolist()) == ([0.9], [0.8])
