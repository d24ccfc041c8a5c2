"""SAM 2's real weights on real images: the numbers that are known of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from scipy import ndimage

from lamella.cli import main
from lamella.formats.geojson import read_geojson
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.promptable import load_promptable
from lamella.models.promptable_model import MASK_LOGIT
from lamella.models.prompts import THIS, Prompts
from lamella.models.sam2 import NO_OBJECT_SCORE

WEIGHTS = "weights/sam2_hiera_tiny_image_fp16.safetensors"


@pytest.fixture(scope="module")
def model(real_data):
    return load_promptable(f"sam2-hiera-tiny@{real_data / WEIGHTS}")


@pytest.fixture(scope="module")
def glands(real_data):
    """The image (1, 3, H, W) and its seven glands (H, W), numbered from 1."""
    folder = real_data / "segmentation/glas"
    image = np.array(Image.open(folder / "images/train_1.jpg").convert("RGB"))
    labels, count = ndimage.label(np.array(Image.open(folder / "masks/train_1.png")) > 0)
    assert count == 7
    return torch.from_numpy(image).permute(2, 0, 1)[None], labels


@pytest.fixture(scope="module")
def embedded(model, glands):
    cache = EmbeddingCache(model)
    result = cache.embed(glands[0])
    assert cache.passes == 1
    return result


def boxes_of(labels: np.ndarray) -> torch.Tensor:
    places = ndimage.find_objects(labels)
    return torch.tensor([[x.start, y.start, x.stop, y.stop] for y, x in places], dtype=torch.float32)[None]


def dice(masks: np.ndarray, labels: np.ndarray) -> list[float]:
    return [
        2 * (mask & (labels == number)).sum() / (mask.sum() + (labels == number).sum())
        for number, mask in enumerate(masks, 1)
    ]


def test_every_weight_of_the_file_is_used(real_data, model):
    with safe_open(real_data / WEIGHTS, "pt") as file:
        numbers = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    held = model.network.state_dict()
    # The matrix of positions stands under two names.
    assert sum(tensor.numel() for tensor in held.values()) - 2 * 128 == numbers
    assert all(tensor.dtype == torch.float32 for tensor in held.values())
    assert model.absent == (NO_OBJECT_SCORE,)
    assert (model.image_px, model.mask_px) == (1024, 256)


def test_boxes_of_the_truth_outline_the_seven_glands(model, glands, embedded):
    """The data's README: mean Dice 0.95."""
    decoded = model.decode(embedded, Prompts(boxes_BM4=boxes_of(glands[1])))
    masks = (model.upsample(decoded.logits_BMKhw[0, :, 0], embedded) > MASK_LOGIT).numpy()
    assert np.mean(dice(masks, glands[1])) == pytest.approx(0.95, abs=0.005)
    assert decoded.object_BM is None
    # Thresholding logits at 0.5, as the source did, is another mask.
    assert not np.array_equal((model.upsample(decoded.logits_BMKhw[0, :, 0], embedded) > 0.5).numpy(), masks)


def test_transformers_own_forward_pass_answers_the_same(model, glands):
    square = glands[0][..., :522, :522]
    boxes = torch.tensor([[[100.0, 90, 300, 310], [5.0, 5, 400, 200]]])
    points = torch.tensor([[[[250.5, 260.5]]]])
    with torch.no_grad():
        embedded = model.embed(square)
        ours = model.decode(embedded, Prompts(boxes_BM4=boxes))
        clicks = model.decode(embedded, Prompts(points, torch.full((1, 1, 1), THIS)), multimask=True)
        scale = 1024 / 522
        pixels = model.pixels(square)
        theirs = model.network(
            pixel_values=pixels, input_boxes=boxes * scale - torch.tensor([0, 0, 1, 1]), multimask_output=False
        )
        their_clicks = model.network(pixel_values=pixels, input_points=points * scale - 0.5, multimask_output=True)
    torch.testing.assert_close(ours.logits_BMKhw, theirs.pred_masks, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(clicks.logits_BMKhw, their_clicks.pred_masks, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(clicks.iou_BMK, their_clicks.iou_scores, rtol=1e-4, atol=1e-4)


def test_a_gland_of_a_slide(real_data, tmp_path):
    """By eye, in the picture: a round gland of 0.3 mm below a white cleft, whose lumens are left out."""
    slide = real_data / "slides/TCGA-AA-3562-region.tif"
    model = f"model=sam2-hiera-tiny@{real_data / WEIGHTS}"
    assert main(["segment", str(slide), "--box", "3548,5517,4187,6058", "-o", str(tmp_path / "out"), model]) == 0
    (answer,) = json.loads((tmp_path / "out" / "answers.json").read_text())["answers"]
    assert 45_000 < answer["area_um2"] < 62_000
    assert answer["believed_iou"] > 0.85
    (item,) = read_geojson(tmp_path / "out" / "objects.geojson")
    left, _, _, bottom = item.bounds_px0()
    assert abs(left - 3548) < 30
    assert abs(bottom - 6058) < 30
