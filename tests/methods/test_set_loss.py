"""A Mask2Former head is trained by its own loss, through the method that trains every head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lamella.formats.label_values import NOT_LABELLED
from lamella.methods.region_losses import RegionLossSettings
from lamella.methods.segment import Segment, SegmentSettings
from lamella.models.decoders.building import make_head
from lamella.models.dense_contract import DenseContract
from lamella.models.pyramids.swin import fresh_swin
from lamella.models.segmenter import Segmenter
from lamella.models.segmenter_hub import load_segmenter, save_segmenter

CLASSES = ("background", "gland", "stroma")
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2}
SMALL = {"dim": 32, "queries": 5, "pixel_layers": 1, "query_layers": 2, "heads": 4, "feedforward": 32, "points": 64}


def learner(loss: str) -> Segment:
    settings = SegmentSettings.model_validate({"head": {"name": "mask2former", "loss": loss, **SMALL}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = fresh_swin(**SWIN)
        head = make_head(settings.head, backbone.widths, len(CLASSES))
    segmenter = Segmenter(backbone, head, DenseContract(CLASSES, 0.5, tile_px=64, multiple_px=32), "swin-mask2former")
    return Segment(segmenter, RegionLossSettings(), torch.ones(3)).train()


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (2, 64, 64), generator=generator).to(torch.uint8)
    mask[:, :8] = NOT_LABELLED
    return {"image": torch.randint(0, 256, (2, 3, 64, 64), generator=generator).to(torch.uint8), "mask": mask}


@pytest.mark.parametrize("loss", ["sets", "pixels"])
def test_the_setting_says_which_loss(loss: str) -> None:
    method = learner(loss)
    value, logs = method(batch())
    value.backward()
    assert value.isfinite()
    assert ({"loss_mask", "loss_inner"} <= set(logs)) == (loss == "sets")
    first = method.backbone.network.swin.embeddings.patch_embeddings.projection.weight
    assert first.grad.abs().sum() > 0
    assert all(not logged.requires_grad for logged in logs.values())


def test_the_classes_are_learned_from_the_first_step_on() -> None:
    method = learner("sets")
    method(batch())[0].backward()
    silent = [name for name, each in method.head.named_parameters() if each.grad is None or not each.grad.any()]
    # Keys' and offsets' biases add the same to every choice; all else that makes the answer has a gradient.
    assert not [name for name in silent if "class_predictor" in name or "mask_embedder" in name or "queries" in name]


def test_what_was_trained_can_be_saved_and_used(tmp_path: Path) -> None:
    segmenter = learner("sets").segmenter
    segmenter.eval()
    save_segmenter(segmenter, tmp_path / "model", "card", record=None)
    again = load_segmenter(tmp_path / "model")
    assert again.fingerprint == segmenter.fingerprint
    assert torch.allclose(again.maps(batch()["image"]), segmenter.maps(batch()["image"]), atol=1e-6)
    assert again.head.settings.loss == "sets"
