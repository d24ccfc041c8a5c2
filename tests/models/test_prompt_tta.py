"""Turns are exact and invertible, on images and on prompts, and probabilities are averaged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.tiny_sam2 import tiny_sam2
from torch import Tensor

from lamella.models.prompt_tta import D4, FLIPS, decode_turned
from lamella.models.promptable_model import PromptableModel
from lamella.models.prompts import PADDING, Prompts, check_prompts

SIZE = (20, 32)


class Analytic(PromptableModel):
    """A disc around each click, or the inside of the box, plus the brightness there: turns with the image exactly."""

    image_px, mask_px = 32, 32
    architecture, fingerprint, encoder_fingerprint, encoder_trained, pyramid_dim = {}, "", "", False, 1

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__(None, "analytic", "none")
        self._bias = bias

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return []

    def _features(self, canvases: Tensor) -> tuple[Tensor, ...]:
        return (canvases[:, :1],)

    def _answer(self, features, clicks, boxes, masks, multimask):
        N, side = len(features[0]), self.mask_px
        middle = torch.arange(side) + 0.5
        x, y = middle[None, :].expand(side, -1), middle[:, None].expand(-1, side)
        logits = features[0][:, 0] + self._bias
        if clicks is not None:
            dx, dy = x - clicks[0][:, :, :1, None], y - clicks[0][:, :, 1:, None]
            logits = logits + 3 - torch.hypot(dx, dy).amin(1)
        if boxes is not None:
            x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
            logits = logits + 4.0 * ((x > x0) & (x < x1) & (y > y0) & (y < y1)) - 2
        return logits[:, None], torch.full((N, 1), 0.5), None


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def prompts():
    points = torch.tensor([[[[3.25, 4.5], [30.0, 19.0]], [[10.0, 2.0], [0.0, 0.0]]]]).expand(2, -1, -1, -1)
    labels = torch.tensor([[[1, 1], [1, PADDING]]]).expand(2, -1, -1)
    boxes = torch.tensor([[[2.0, 3, 9, 17], [20.0, 1, 32, 5]]]).expand(2, -1, -1)
    return Prompts(points, labels, boxes)


def test_there_are_eight_different_turns(images):
    square = images[..., : SIZE[0]]
    assert len({tuple(turn.images(square).flatten().tolist()) for turn in D4}) == 8
    assert torch.equal(D4[0].images(images), images)
    assert set(FLIPS) <= set(D4)


@pytest.mark.parametrize("turn", D4)
def test_back_is_the_inverse(turn, images):
    assert torch.equal(turn.back(turn.images(images)), images)


@settings(deadline=None)
@given(st.sampled_from(D4), st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1))
def test_places_go_where_their_pixels_go(turn, row, column):
    marked = torch.zeros(1, 1, *SIZE)
    marked[0, 0, row, column] = 1
    turned = turn.images(marked)[0, 0]
    x, y = turn.places(torch.tensor([column + 0.5, row + 0.5]), SIZE).tolist()
    assert turned[int(y), int(x)] == 1
    assert (x % 1, y % 1) == (0.5, 0.5)


@settings(deadline=None)
@given(st.sampled_from(D4))
def test_boxes_hold_what_they_held(turn):
    marked = torch.zeros(1, *SIZE)
    marked[:, 3:17, 2:9] = 1
    turned = turn.images(marked)[0]
    prompts = turn.prompts(Prompts(boxes_BM4=torch.tensor([[[2.0, 3, 9, 17]]])), SIZE)
    check_prompts(prompts, tuple(turned.shape))  # corners are in order again
    x0, y0, x1, y1 = map(int, prompts.boxes_BM4[0, 0].tolist())
    assert turned[y0:y1, x0:x1].all()
    assert turned.sum() == (y1 - y0) * (x1 - x0)


def test_no_box_stays_no_box():
    turned = D4[5].prompts(Prompts(boxes_BM4=torch.full((1, 1, 4), torch.nan)), SIZE)
    assert turned.boxes_BM4.isnan().all()


@pytest.mark.parametrize("turns", [D4, FLIPS, D4[3:4]], ids=["d4", "flips", "one"])
def test_a_model_that_turns_with_the_image_answers_the_same(turns, images, prompts):
    model = Analytic()
    plain = decode_turned(model, images, prompts, turns=D4[:1])
    averaged = decode_turned(model, images, prompts, turns=turns)
    torch.testing.assert_close(averaged.probability_BMHW, plain.probability_BMHW)
    assert torch.equal(averaged.masks_BMHW, plain.masks_BMHW)
    assert 0.02 < plain.masks_BMHW.float().mean() < 0.9
    decoded = model.decode(model.embed(images), prompts)
    expected = model.upsample(decoded.logits_BMKhw[:, :, 0], model.embed(images)).sigmoid()
    torch.testing.assert_close(plain.probability_BMHW, expected)


def test_probabilities_are_averaged_and_ties_are_no_object(images, prompts):
    """A mistake of the source: binary masks were averaged, and ties fell by chance."""

    class Undecided(Analytic):
        calls = 0

        def _answer(self, *arguments):
            logits, iou, seen = super()._answer(*arguments)
            self.calls += 1
            return torch.full_like(logits, 2.0 if self.calls % 2 else -2.0), iou, seen

    single = Prompts(prompts.points_BMP2[:1, :1], prompts.labels_BMP[:1, :1])
    averaged = decode_turned(Undecided(), images[:1], single, turns=FLIPS)
    torch.testing.assert_close(averaged.probability_BMHW, torch.full((1, 1, *SIZE), 0.5))
    assert not type(averaged)(torch.full((1,), 0.5), torch.ones(1)).masks_BMHW.any()

    class Uneven(Analytic):
        calls = 0

        def _answer(self, *arguments):
            logits, iou, seen = super()._answer(*arguments)
            self.calls += 1
            return torch.full_like(logits, 8.0 if self.calls == 1 else -0.1), iou, seen

    # One sure yes and three weak noes: votes say no, the mean probability (0.606) says yes.
    averaged = decode_turned(Uneven(), images[:1], single, turns=FLIPS)
    torch.testing.assert_close(averaged.probability_BMHW.mean(), torch.tensor([8.0, -0.1, -0.1, -0.1]).sigmoid().mean())
    assert averaged.masks_BMHW.all()


def test_mask_prompts_do_not_turn_exactly(images):
    with pytest.raises(ValueError, match="cannot be turned exactly"):
        decode_turned(Analytic(), images, Prompts(masks_BMhw=torch.zeros(2, 1, 32, 32)))


def test_a_real_network_and_a_cache(images, prompts):
    model, asked = tiny_sam2(), []
    averaged = decode_turned(
        model,
        images,
        prompts,
        turns=FLIPS,
        multimask=True,
        embed=lambda turned: asked.append(turned) or model.embed(turned),
    )
    assert len(asked) == 4
    assert averaged.probability_BMHW.shape == (2, 2, *SIZE)
    one = decode_turned(model, images, prompts, turns=D4[:1], multimask=True)
    assert not torch.allclose(averaged.probability_BMHW, one.probability_BMHW)  # this one does not turn with the image
