from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.models.tiny_sam2 import SIDE_PX, tiny_sam2
from tests.tiny_glands import write_glands

from lamella.data.prompted_objects import PromptedDataSettings, PromptedObjects
from lamella.data.segmentation_augment import SegmentationAugmentSettings
from lamella.imaging.datasets.opening import open_collection
from lamella.methods.prompted import Prompted, PromptedSettings, on_grid
from lamella.methods.sam_loss import SamLossSettings
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.sam2 import ENCODER_PARTS

DATA = PromptedDataSettings(
    mpp=None, tile_px=48, batch_size=3, objects=2, min_area_px=20, augment=SegmentationAugmentSettings(elastic=0)
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> PromptedObjects:
    collection = open_collection(write_glands(tmp_path_factory.mktemp("glands")))
    return PromptedObjects([collection], None, DATA, seed=3)


def method(weights: tuple[float, float] = (1.0, 1.0), **settings: object) -> Prompted:
    return Prompted(tiny_sam2(), PromptedSettings(**{"corrections": 2, **settings}), torch.tensor(weights), seed=5)


def gradients(one: Prompted, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    one.zero_grad()
    loss, _ = one(batch)
    loss.backward()
    return {name: each.grad.clone() for name, each in one.named_parameters() if each.grad is not None}


def test_the_mask_learns_from_the_first_step_on(samples: PromptedObjects) -> None:
    """Mistake of the source: a gate that was closed, and 'fine-tuning' that never learned."""
    found = gradients(method(loss=SamLossSettings(iou=0, object_score=0)), samples.batch(0))
    for part in ("mask_decoder.mask_tokens.weight", "mask_decoder.upscale_conv2.weight", "mask_decoder.transformer"):
        assert max(float(each.abs().max()) for name, each in found.items() if part in name) > 0, part


def test_a_frozen_encoder_has_no_gradient_and_a_trained_one_has(samples: PromptedObjects) -> None:
    batch = samples.batch(0)
    names = {name.removeprefix("model.network.") for name in gradients(method(), batch)}
    assert names
    assert not any(name.startswith(ENCODER_PARTS) for name in names)
    trained = {name.removeprefix("model.network.") for name in gradients(method(encoder="trained"), batch)}
    assert {"vision_encoder.backbone.patch_embed.projection.weight", "no_memory_embedding"} <= trained


def test_weights_of_classes_change_the_gradient(samples: PromptedObjects) -> None:
    """Mistake of the source: weights that were never applied. All objects are of one class here, so a loss that divides
    by the weights' sum would cancel them."""
    one, five = (gradients(method((1.0, weight)), samples.batch(0)) for weight in (1.0, 5.0))
    for name, each in one.items():
        torch.testing.assert_close(five[name], 5 * each, rtol=1e-4, atol=1e-6)


def test_the_loss_is_a_mean_over_tiles(samples: PromptedObjects) -> None:
    batch = samples.batch(0)
    one = method()
    with torch.no_grad():
        whole, _ = one(batch)
        parts = [one({key: value[row : row + 1] for key, value in batch.items()})[0] for row in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)


def test_clicks_are_a_function_of_the_position_and_not_of_the_process(samples: PromptedObjects) -> None:
    one, batch = method(), samples.batch(0)
    torch.manual_seed(1)
    first = one(batch)[0]
    torch.manual_seed(2)
    assert torch.equal(one(batch)[0], first)


@pytest.mark.slow
def test_training_lowers_the_loss(samples: PromptedObjects) -> None:
    one, batch = method(loss_on="grid"), samples.batch(0)
    optimizer = torch.optim.AdamW([each for each in one.parameters() if each.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss, logs = one(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert {"loss_focal", "loss_dice", "loss_iou", "loss_focal_0"} <= set(logs)


def test_kept_embeddings_give_the_same_loss_with_one_pass_a_view(tmp_path: Path) -> None:
    """Mistake of the source: embeddings made again for every prompt."""
    collection = open_collection(write_glands(tmp_path))
    samples = PromptedObjects([collection], None, DATA.model_copy(update={"views": 1}), seed=3)
    model = tiny_sam2()
    cache = EmbeddingCache(model)
    kept = Prompted(model, PromptedSettings(corrections=1), torch.ones(2), 5, cache)
    plain = Prompted(copy.deepcopy(model), PromptedSettings(corrections=1), torch.ones(2), 5)
    for step in range(6):
        batch = samples.batch(step)
        torch.testing.assert_close(kept(batch)[0], plain(batch)[0], rtol=1e-4, atol=1e-5)
    assert cache.passes == 6  # images, though three epochs of prompts were given


def test_lora_alone_learns_in_the_encoder(samples: PromptedObjects) -> None:
    pytest.importorskip("peft")
    found = gradients(method(encoder="lora"), samples.batch(0))
    encoder = [name for name in found if name.removeprefix("model.network.").startswith(ENCODER_PARTS)]
    assert encoder
    assert all(".lora_" in name for name in encoder)


def test_cells_of_the_grid_take_what_most_of_them_is() -> None:
    model = tiny_sam2()
    truth = torch.zeros(1, 1, SIDE_PX // 2, SIDE_PX, dtype=torch.bool)  # lies on the upper half of the canvas
    truth[..., :8, :16] = True
    known = torch.ones(1, SIDE_PX // 2, SIDE_PX, dtype=torch.bool)
    embedded = model.embed(torch.zeros(1, 3, SIDE_PX // 2, SIDE_PX, dtype=torch.uint8))
    cells, seen = on_grid(truth, known, embedded, 16)  # 4 px a cell
    assert cells.shape == (1, 1, 16, 16)
    assert cells.nonzero()[:, 2:].tolist() == [[row, column] for row in range(2) for column in range(4)]
    assert seen[0, :8].all()
    assert not seen[0, 8:].any()  # beyond the image nothing is known
