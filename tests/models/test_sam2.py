"""SAM 2 answers what transformers' own forward pass answers, and each answer depends on its own prompt alone."""

from __future__ import annotations

import re

import pytest
import torch
from tests.models.tiny_sam2 import SIDE_PX, in_sam2_layout, tiny_network, tiny_sam1, tiny_sam2

from lamella.errors import CheckpointError
from lamella.models.promptable_model import MASK_LOGIT, corner_pixels
from lamella.models.prompts import NOT_THIS, PADDING, THIS, PromptError, Prompts
from lamella.models.sam2 import NO_OBJECT_SCORE, build_sam2
from lamella.models.sam2_keys import OBJECT_SCORE, original_names, renamed

NAN4 = [float("nan")] * 4


@pytest.fixture(scope="module")
def model():
    return tiny_sam2()


@pytest.fixture(scope="module")
def images():
    return torch.randint(
        0, 256, (2, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def _normalised(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images / 255 - mean[:, None, None]) / std[:, None, None]


def _theirs(model, images, **prompts):
    with torch.no_grad():
        return model.network(pixel_values=_normalised(images), **prompts)


POINTS = torch.tensor([[[[10.5, 20.5], [40.5, 3.5]]], [[[30.5, 9.5], [1.5, 60.5]]]])
LABELS = torch.tensor([[[1, 0]], [[1, 1]]])
BOXES = torch.tensor([[[3.0, 4, 30, 41]], [[10.0, 2, 60, 50]]])


@pytest.mark.parametrize("multimask", [False, True])
def test_clicks_as_transformers_answers_them(model, images, multimask):
    """Pixel 10 has its centre at 10.5 here; the network is told 10 and adds the half itself."""
    decoded = model.decode(model.embed(images), Prompts(POINTS, LABELS), multimask)
    theirs = _theirs(model, images, input_points=POINTS - 0.5, input_labels=LABELS, multimask_output=multimask)
    torch.testing.assert_close(decoded.logits_BMKhw, theirs.pred_masks)
    torch.testing.assert_close(decoded.iou_BMK, theirs.iou_scores)
    torch.testing.assert_close(decoded.object_BM, theirs.object_score_logits[..., 0])
    assert decoded.logits_BMKhw.std() > 0.01


def test_boxes_masks_and_all_together_as_transformers_answers_them(model, images):
    embedded = model.embed(images)
    pixels = torch.tensor([0, 0, 1, 1])  # half-open here; the network is told the last pixel
    boxes = model.decode(embedded, Prompts(boxes_BM4=BOXES))
    theirs = _theirs(model, images, input_boxes=BOXES - pixels, multimask_output=False)
    torch.testing.assert_close(boxes.logits_BMKhw, theirs.pred_masks)
    masks = boxes.logits_BMKhw[:, :, 0]
    alone = model.decode(embedded, Prompts(masks_BMhw=masks))
    theirs = _theirs(model, images, input_masks=masks, multimask_output=False)
    torch.testing.assert_close(alone.logits_BMKhw, theirs.pred_masks)
    together = model.decode(embedded, Prompts(POINTS, LABELS, BOXES, masks))
    theirs = _theirs(
        model,
        images,
        input_points=POINTS - 0.5,
        input_labels=LABELS,
        input_boxes=BOXES - pixels,
        input_masks=masks,
        multimask_output=False,
    )
    torch.testing.assert_close(together.logits_BMKhw, theirs.pred_masks)


def test_places_reach_the_network_where_they_are(model, monkeypatch):
    """No half pixel is lost: a click's position code is that of its place divided by the canvas."""
    seen = []
    shared = model.network.prompt_encoder.shared_embedding
    original = type(shared).forward

    def spy(self, coordinates, shape=None):
        seen.append(coordinates / torch.tensor(shape[::-1]) if shape else coordinates)
        return original(self, coordinates, shape)

    monkeypatch.setattr(type(shared), "forward", spy)
    images = torch.zeros(1, 3, 24, 48, dtype=torch.uint8)  # on the canvas 64 / 48 times as large
    embedded = model.embed(images)
    model.decode(embedded, Prompts(torch.tensor([[[[48.0, 12.0]]]]), torch.tensor([[[THIS]]])))
    clicks = next(places for places in seen if places.shape[-2] == 2)  # the click and the closing token
    torch.testing.assert_close(clicks[0, 0, 0], torch.tensor([1.0, 0.25]))
    seen.clear()
    model.decode(embedded, Prompts(boxes_BM4=torch.tensor([[[0.0, 0.0, 48.0, 24.0]]])))
    corners = next(places for places in seen if places.shape[-2] == 3)[0, 0, :2]
    # The middles of the first and the last pixel of the canvas that the box covers.
    torch.testing.assert_close(corners, torch.tensor([[0.5, 0.5], [63.5, 31.5]]) / 64)


def test_corner_pixels_of_thin_boxes_are_their_middle():
    corners = corner_pixels(torch.tensor([[2.0, 3.0, 2.5, 9.0]]))
    assert corners.tolist() == [[1.75, 3.0, 1.75, 8.0]]


def test_padding_is_no_negative_click(model, images):
    """A mistake of the source: rows were filled up with label 0, a click on the background."""
    embedded = model.embed(images[:1])
    alone = model.decode(embedded, Prompts(POINTS[:1, :, :1], LABELS[:1, :, :1])).logits_BMKhw
    for place in (0.0, 60.0):
        points = torch.cat([torch.full((1, 1, 3, 2), place), POINTS[:1, :, :1]], dim=2)
        labels = torch.tensor([[[PADDING, PADDING, PADDING, THIS]]])
        padded = model.decode(embedded, Prompts(points, labels)).logits_BMKhw
        torch.testing.assert_close(padded, alone, rtol=0, atol=0)
    negative = model.decode(embedded, Prompts(POINTS[:1], torch.tensor([[[THIS, NOT_THIS]]]))).logits_BMKhw
    assert not torch.allclose(negative, alone)


def test_answers_depend_on_their_own_prompt_alone(model, images):
    """Boxes, clicks and both, of different lengths, together and one by one."""
    embedded = model.embed(images)
    points = torch.tensor([[5.0, 6], [20, 30], [50, 8]]).expand(2, 4, 3, 2)
    labels = torch.tensor([[1, -1, -1], [1, 0, -1], [-1, -1, -1], [0, 1, 1]]).expand(2, 4, 3)
    boxes = torch.tensor([NAN4, NAN4, [3.0, 4, 30, 41], [10.0, 2, 60, 50]]).expand(2, 4, 4)
    together = model.decode(embedded, Prompts(points, labels, boxes), at_once=3)
    for image in range(2):
        for row in range(4):
            one = slice(row, row + 1)
            prompts = Prompts(points[:1, one], labels[:1, one], boxes[:1, one])
            single = model.decode(embedded.of(slice(image, image + 1)), prompts)
            torch.testing.assert_close(together.logits_BMKhw[image, row], single.logits_BMKhw[0, 0])
            torch.testing.assert_close(together.iou_BMK[image, row], single.iou_BMK[0, 0])


def test_the_image_is_not_written_to(model, images):
    """A mistake of the source: the image was whitened in place while it was cropped."""
    before = images.clone()
    model.decode(model.embed(images), Prompts(boxes_BM4=BOXES))
    assert torch.equal(images, before)


def test_images_that_are_not_square_keep_their_ratio(model):
    wide = torch.randint(0, 256, (1, 3, 20, 40), dtype=torch.uint8)
    canvas = model.pixels(wide)
    assert canvas.shape == (1, 3, SIDE_PX, SIDE_PX)
    assert (canvas[:, :, 32:] == 0).all()  # the mean colour
    assert model.embed(wide).scale == (1.6, 1.6)
    squashed = tiny_sam2(squash=True)
    assert squashed.embed(wide).scale == (1.6, 3.2)
    decoded = model.decode(model.embed(wide), Prompts(boxes_BM4=torch.tensor([[[1.0, 1, 9, 9]]])))
    assert model.upsample(decoded.logits_BMKhw, model.embed(wide)).shape == (1, 1, 1, 20, 40)


def test_preprocessing_of_a_full_square_is_the_official_one(model, images):
    torch.testing.assert_close(model.pixels(images), _normalised(images), rtol=1e-5, atol=1e-6)


def test_masks_begin_at_zero():
    """A mistake of the source: logits were compared with 0.5."""
    assert MASK_LOGIT == 0
    assert torch.sigmoid(torch.tensor(MASK_LOGIT)) == 0.5


def test_best_is_the_most_believed_and_the_first_of_equals(model, images):
    decoded = model.decode(model.embed(images), Prompts(POINTS[:, :, :1], LABELS[:, :, :1]), multimask=True)
    best = decoded.best()
    for image in range(2):
        index = decoded.iou_BMK[image, 0].argmax()
        assert torch.equal(best.logits_BMKhw[image, 0, 0], decoded.logits_BMKhw[image, 0, index])
        assert best.iou_BMK[image, 0, 0] == decoded.iou_BMK[image, 0].max()
    same = type(decoded)(decoded.logits_BMKhw, torch.ones_like(decoded.iou_BMK), None).best()
    assert torch.equal(same.logits_BMKhw[:, :, 0], decoded.logits_BMKhw[:, :, 0])


def test_training_goes_through_the_same_functions():
    model, images = tiny_sam2(), torch.randint(0, 256, (1, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    model.requires_grad_(True)
    decoded = model.decode(model.embed(images), Prompts(boxes_BM4=BOXES[:1]))
    model.upsample(decoded.logits_BMKhw, model.embed(images)).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for name, parameter in model.network.named_parameters()
        if name.startswith(("vision_encoder.backbone", "mask_decoder.transformer"))
    )


def test_the_pyramid_ends_with_the_maps_that_prompts_are_answered_from(model, images):
    maps = model.pyramid(images)
    assert [level.shape for level in maps] == [(2, model.pyramid_dim, side, side) for side in (16, 8, 4, 2)]
    with torch.no_grad():
        theirs = model.network.vision_encoder(_normalised(images)).fpn_hidden_states
    for ours, level in zip(maps, theirs, strict=False):
        torch.testing.assert_close(ours, level)


def test_wrong_prompts_are_refused(model, images):
    embedded = model.embed(images)
    with pytest.raises(PromptError, match="no area"):
        model.decode(embedded, Prompts(boxes_BM4=torch.zeros(2, 1, 4)))
    with pytest.raises(ValueError, match="prompts for 1 images, but 2"):
        model.decode(embedded, Prompts(boxes_BM4=BOXES[:1]))
    with pytest.raises(ValueError, match="16 x 16 cells"):
        model.decode(embedded, Prompts(masks_BMhw=torch.zeros(2, 1, 8, 8)))
    with pytest.raises(ValueError, match="uint8"):
        model.embed(images.float())


@pytest.fixture(scope="module")
def layout():
    return in_sam2_layout(tiny_network().state_dict())


def _build(weights):
    return build_sam2(
        tiny_network().config, renamed(weights, "file"), "file", name="tiny", original=original_names(weights)
    )


def test_the_sam2_layout_gives_the_same_network(layout, model, images):
    half = {name: tensor.half() for name, tensor in layout.items()}
    films = {
        "memory_attention.layers.0.x": torch.zeros(1),
        "maskmem_tpos_enc": torch.zeros(2),
        "no_obj_ptr": torch.zeros(1),
    }
    for weights in (layout, layout | films, half):
        built = _build(weights)
        assert built.absent == ()
        assert all(tensor.dtype == torch.float32 for tensor in built.network.state_dict().values())
        assert not any(parameter.requires_grad for parameter in built.parameters())
        logits = built.decode(built.embed(images), Prompts(boxes_BM4=BOXES)).logits_BMKhw
        expected = model.decode(model.embed(images), Prompts(boxes_BM4=BOXES)).logits_BMKhw
        torch.testing.assert_close(logits, expected, **({"rtol": 0, "atol": 0.02} if weights is half else {}))
    assert _build(layout).fingerprint == model.fingerprint
    assert _build(half).fingerprint != model.fingerprint


def test_without_an_object_score_head_nothing_is_said_about_objects(layout, model, images):
    weights = {name: tensor for name, tensor in layout.items() if "pred_obj_score_head" not in name}
    built = _build(weights)
    assert built.absent == (NO_OBJECT_SCORE,)
    assert not built.says_object
    assert not any(name.startswith(OBJECT_SCORE) for name in built.network.state_dict())
    decoded = built.decode(built.embed(images), Prompts(boxes_BM4=BOXES))
    assert decoded.object_BM is None
    expected = model.decode(model.embed(images), Prompts(boxes_BM4=BOXES))
    torch.testing.assert_close(decoded.logits_BMKhw, expected.logits_BMKhw)
    built.start_object_score(seed=3)
    assert built.absent == ()
    begun = built.decode(built.embed(images), Prompts(boxes_BM4=BOXES))
    assert begun.object_BM is not None
    assert begun.object_BM.isfinite().all()
    torch.testing.assert_close(begun.logits_BMKhw, decoded.logits_BMKhw)


@pytest.mark.parametrize(
    "lost",
    [
        "no_mem_embed",
        "sam_mask_decoder.mask_tokens.weight",
        "sam_prompt_encoder.point_embeddings.2.weight",
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "image_encoder.trunk.pos_embed",
        "sam_mask_decoder.pred_obj_score_head.layers.1.bias",
    ],
)
def test_a_missing_weight_is_never_left_random(layout, lost):
    assert lost in layout
    with pytest.raises(CheckpointError, match="is missing"):
        _build({name: tensor for name, tensor in layout.items() if name != lost})


@pytest.mark.parametrize(
    "extra", ["lm_head.weight", "image_encoder.trunk.blocks.99.norm1.weight", "sam_mask_decoder.new"]
)
def test_unexpected_weights_are_named(layout, extra):
    with pytest.raises(CheckpointError, match=f"{re.escape(extra)} is unknown"):
        _build({**layout, extra: torch.zeros(1)})


def test_weights_of_another_size_are_named(layout):
    with pytest.raises(
        CheckpointError, match=r"image_encoder\.trunk\.pos_embed is 1 x 8 x 5 x 5 instead of 1 x 8 x 3 x 3"
    ):
        _build({**layout, "image_encoder.trunk.pos_embed": torch.zeros(1, 8, 5, 5)})


def test_the_encoders_fingerprint_ignores_the_decoder():
    model = tiny_sam2()
    encoder, whole = model.encoder_fingerprint, model.fingerprint
    with torch.no_grad():
        model.network.mask_decoder.iou_token.weight.add_(1)
    assert (model.encoder_fingerprint, model.fingerprint != whole) == (encoder, True)
    with torch.no_grad():
        model.network.mask_decoder.conv_s0.weight.add_(1)  # an embedding passes through it
    assert model.encoder_fingerprint != encoder
    assert not model.encoder_trained
    model.network.no_memory_embedding.requires_grad_(True)
    assert model.encoder_trained


def test_sam1_behind_the_same_calls(images):
    model = tiny_sam1()
    embedded = model.embed(images)
    decoded = model.decode(embedded, Prompts(POINTS, LABELS), multimask=True)
    theirs = _theirs(model, images, input_points=POINTS - 0.5, input_labels=LABELS, multimask_output=True)
    torch.testing.assert_close(decoded.logits_BMKhw, theirs.pred_masks)
    torch.testing.assert_close(decoded.iou_BMK, theirs.iou_scores)
    assert decoded.object_BM is None
    boxes = model.decode(embedded, Prompts(boxes_BM4=BOXES))
    theirs = _theirs(model, images, input_boxes=BOXES - torch.tensor([0, 0, 1, 1]), multimask_output=False)
    torch.testing.assert_close(boxes.logits_BMKhw, theirs.pred_masks)
    masks = model.decode(embedded, Prompts(POINTS, LABELS, masks_BMhw=boxes.logits_BMKhw[:, :, 0]))
    assert not torch.allclose(masks.logits_BMKhw, decoded.logits_BMKhw[:, :, :1])
    (level,) = model.pyramid(images)
    assert level.shape == (2, model.pyramid_dim, 4, 4)
