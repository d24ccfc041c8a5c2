"""The method `automatic`: what it learns from, and that both ways of feeding it are one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.tiny_segmenters import HEADS, tiny_backbone, tiny_segmenter

from lamella.engine.loop import accumulate
from lamella.engine.world import World
from lamella.formats.label_values import NOT_LABELLED
from lamella.methods.region_losses import RegionLossSettings
from lamella.methods.segment import Segment
from lamella.models.pyramids.memory import LevelMemory

WORLD = World(0, 1, torch.device("cpu"), "fp32", "a test")


def batch(tiles: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (tiles, 64, 64), generator=generator).to(torch.uint8)
    mask[:, :4] = NOT_LABELLED
    image = torch.randint(0, 256, (tiles, 3, 64, 64), generator=generator).to(torch.uint8)
    return {"image": image, "mask": mask}


def method(train: str = "whole", cached: bool = False, **kind: str) -> Segment:
    segmenter = tiny_segmenter(**kind)
    segmenter.backbone.requires_grad_(train == "whole")
    return Segment(segmenter, RegionLossSettings(), torch.tensor([1.0, 2.0, 3.0]), cached=cached).train()


@pytest.mark.parametrize("head", HEADS)
def test_every_part_has_a_gradient_at_step_0(head: str) -> None:
    """Mistake of the source: a mask loss whose gradient was 0 at the start."""
    learner = method(head=head)
    loss, logs = learner(batch())
    loss.backward()
    assert all(torch.isfinite(value) for value in logs.values())
    silent = [name for name, each in learner.named_parameters() if each.grad is None or not each.grad.any()]
    assert silent == []


def test_a_frozen_backbone_gets_no_gradient_and_drops_nothing() -> None:
    learner = method(train="frozen")
    loss, _ = learner(batch())
    loss.backward()
    assert {name.partition(".")[0] for name, each in learner.named_parameters() if each.grad is not None} == {"head"}
    assert not learner.backbone.training
    assert learner.head.training
    assert method().backbone_learns


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_are_the_same_step(parts: int) -> None:
    """Dice is of the batch as a whole: a mean over parts would be another loss."""
    gradients = []
    for count in (1, parts):
        learner = method()
        learner.eval()  # dropout draws for each part
        accumulate(learner, batch(), count, WORLD)
        gradients.append(torch.cat([each.grad.flatten() for each in learner.parameters() if each.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_what_was_kept_gives_the_same_loss_and_only_the_head_is_saved(tmp_path: Path) -> None:
    whole, kept = method(train="frozen").eval(), method(train="frozen", cached=True).eval()
    given = batch()
    memory = LevelMemory(tiny_backbone(), tmp_path, limit_gb=1)
    levels = {f"level{number}": level for number, level in enumerate(memory.levels(given["image"]))}
    loss, _ = kept({"mask": given["mask"], **levels})
    assert loss.item() == pytest.approx(whole(given)[0].item(), rel=1e-3)  # kept in half precision
    assert {name.partition(".")[0] for name in kept.state_dict()} == {"head", "weights_C"}
    assert {name.partition(".")[0] for name in whole.state_dict()} == {"backbone", "head", "weights_C"}


def test_training_changes_the_model_that_is_exported() -> None:
    for cached in (False, True):
        learner = method(train="frozen", cached=cached)
        with torch.no_grad():
            next(learner.head.parameters()).add_(1.0)
        assert learner.segmenter.fingerprint != method(train="frozen").segmenter.fingerprint
