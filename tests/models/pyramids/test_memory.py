"""Each tile is encoded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.tiny_segmenters import tiny_backbone, tiny_segmenter

from lamella.models.pyramids.memory import LevelMemory, RememberingSegmenter


def tiles(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_a_tile_is_encoded_once_also_by_the_next_process(tmp_path: Path) -> None:
    memory = LevelMemory(tiny_backbone(), tmp_path, limit_gb=1)
    first = memory.levels(tiles())
    again = memory.levels(tiles().flip(0))
    assert memory.encoded == 3
    assert all(torch.equal(one, other.flip(0)) for one, other in zip(first, again, strict=True))
    later = LevelMemory(tiny_backbone(), tmp_path, limit_gb=1)
    later.levels(tiles())
    assert later.encoded == 0


def test_what_is_kept_is_what_the_backbone_gives_to_half_precision(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    kept = LevelMemory(backbone, tmp_path, limit_gb=1).levels(tiles())
    for one, other in zip(kept, backbone(tiles()), strict=True):
        assert torch.allclose(one, other, rtol=2**-10, atol=1e-4)


def test_other_weights_are_another_memory(tmp_path: Path) -> None:
    LevelMemory(tiny_backbone(), tmp_path, limit_gb=1).levels(tiles())
    other = tiny_backbone()
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    changed = LevelMemory(other, tmp_path, limit_gb=1)
    changed.levels(tiles())
    assert changed.encoded == 3


def test_beyond_the_limit_nothing_is_written(tmp_path: Path) -> None:
    memory = LevelMemory(tiny_backbone(), tmp_path, limit_gb=0)
    assert torch.equal(memory.levels(tiles())[0], memory.levels(tiles())[0])
    assert memory.encoded == 6
    assert not list(tmp_path.iterdir())


def test_maps_with_memory_are_maps(tmp_path: Path) -> None:
    segmenter = tiny_segmenter()
    remembering = RememberingSegmenter(segmenter, LevelMemory(segmenter.backbone, tmp_path, limit_gb=1))
    assert remembering.contract is segmenter.contract
    assert torch.allclose(remembering.maps(tiles()), segmenter.maps(tiles()), atol=1e-3)
    assert remembering.maps(tiles()).sum(1).mean().item() == pytest.approx(1)


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    memory = LevelMemory(tiny_backbone(), tmp_path, limit_gb=1)
    before = memory.levels(tiles())
    damaged = next(tmp_path.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert all(torch.equal(one, other) for one, other in zip(before, memory.levels(tiles()), strict=True))
    assert memory.encoded == 4
    memory.levels(tiles())
    assert memory.encoded == 4
