"""Prompts that no model should answer are refused by name."""

from __future__ import annotations

import pytest
import torch

from lamella.models.prompts import NOT_THIS, PADDING, THIS, PromptError, Prompts, boxes_given, check_prompts

SIZE_PX = (30, 50)  # height, width


def _box(*sides: float) -> Prompts:
    return Prompts(boxes_BM4=torch.tensor([[[1.0, 1, 9, 9], list(sides)]]))


def _click(x: float, y: float, label: int = THIS) -> Prompts:
    return Prompts(torch.tensor([[[[x, y], [1.0, 1.0]]]]), torch.tensor([[[label, PADDING]]]))


@pytest.mark.parametrize(
    ("sides", "word"),
    [
        ((5, 5, 5, 9), "no area"),
        ((5, 5, 9, 5), "no area"),
        ((9, 5, 5, 9), "exchanged"),
        ((5, 9, 9, 5), "exchanged"),
        ((50, 5, 60, 9), "outside the image of 50 x 30 px"),
        ((5, 30, 9, 40), "outside"),
        ((-9, 5, 0, 9), "outside"),
        ((5, -9, 9, 0), "outside"),
        ((float("inf"), 5, 9, 9), "finite"),
        ((float("nan"), 5, 9, 9), "finite"),
    ],
)
def test_boxes_that_hold_nothing(sides, word):
    with pytest.raises(PromptError, match=f"prompt 2: its box .*{word}"):
        check_prompts(_box(*sides), SIZE_PX)


@pytest.mark.parametrize("sides", [(-5, -5, 60, 60), (49, 29, 50, 30), (0, 0, 0.5, 0.5)])
def test_boxes_over_the_edge_are_fine(sides):
    check_prompts(_box(*sides), SIZE_PX)


@pytest.mark.parametrize("place", [(-0.1, 5), (50.1, 5), (5, -0.1), (5, 30.1), (float("nan"), 5)])
@pytest.mark.parametrize("label", [THIS, NOT_THIS])
def test_clicks_outside_the_image(place, label):
    with pytest.raises(PromptError, match="prompt 1, click 1"):
        check_prompts(_click(*place, label), SIZE_PX)


def test_width_and_height_are_not_exchanged():
    check_prompts(_click(40, 5), SIZE_PX)
    with pytest.raises(PromptError, match="outside"):
        check_prompts(_click(5, 40), SIZE_PX)


def test_padding_is_no_click_wherever_it_lies():
    prompts = Prompts(torch.tensor([[[[1.0, 1], [-9, 999]]]]), torch.tensor([[[THIS, PADDING]]]))
    check_prompts(prompts, SIZE_PX)


def test_a_prompt_of_padding_alone_asks_for_nothing():
    with pytest.raises(PromptError, match="prompt 1: it has no click"):
        check_prompts(_click(1, 1, PADDING), SIZE_PX)


def test_the_image_is_named_where_there_are_several():
    boxes = torch.tensor([[[1.0, 1, 2, 2]], [[3.0, 3, 3, 4]]])
    with pytest.raises(PromptError, match="prompt 1 of image 2"):
        check_prompts(Prompts(boxes_BM4=boxes), SIZE_PX)


def test_four_nan_are_no_box_and_need_a_click():
    nan = [float("nan")] * 4
    boxes = torch.tensor([[[1.0, 1, 2, 2], nan]])
    assert boxes_given(boxes).tolist() == [[True, False]]
    with pytest.raises(PromptError, match="prompt 2: it has no click, no box and no mask"):
        check_prompts(Prompts(boxes_BM4=boxes), SIZE_PX)
    points, labels = torch.ones(1, 2, 1, 2), torch.tensor([[[PADDING], [THIS]]])
    check_prompts(Prompts(points, labels, boxes), SIZE_PX)


def test_masks_must_be_numbers():
    with pytest.raises(PromptError, match="prompt 2: its mask"):
        check_prompts(Prompts(masks_BMhw=torch.tensor([0.0, torch.nan]).reshape(1, 2, 1, 1)), SIZE_PX)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(),
        Prompts(points_BMP2=torch.zeros(1, 1, 1, 2)),
        Prompts(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, dtype=torch.long)),
        Prompts(boxes_BM4=torch.zeros(1, 2, 4), masks_BMhw=torch.zeros(1, 1, 4, 4)),
    ],
)
def test_parts_that_do_not_fit_together(prompts):
    with pytest.raises(ValueError, match="prompts"):
        check_prompts(prompts, SIZE_PX)


def test_unknown_labels():
    with pytest.raises(ValueError, match="labels"):
        check_prompts(_click(1, 1, 2), SIZE_PX)
