from __future__ import annotations

import pytest

from lamella.engine.layer_depth import block_of, layer_factors
from lamella.engine.optim import OptimSettings


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("encoder.patch_embed.proj.weight", ()),
        ("encoder.pos_embed", ()),
        ("encoder.blocks.11.attn.qkv.weight", (11,)),
        ("network.vision_encoder.backbone.blocks.3.mlp.layers.0.weight", (3,)),
        ("segformer.encoder.block.1.0.attention.self.query.weight", (1, 0)),
        ("swin.stages.2.blocks.5.norm.weight", (2, 5)),
        ("bert.encoder.layer.7.output.dense.weight", (7,)),
        ("encoder.norm.weight", None),
        ("encoder.layer_norm.1.weight", None),
    ],
)
def test_the_block_is_read_off_the_name(name: str, block: tuple[int, ...] | None) -> None:
    assert block_of(name) == block


def test_factors_are_those_of_beit_and_sam2() -> None:
    """Twelve blocks: embeddings are layer 0 of 13, block i is layer i + 1, what follows is layer 13."""
    names = ["e.pos_embed", *(f"e.blocks.{number}.w" for number in range(12)), "e.norm.w", "head.blocks.0.w"]
    factors = layer_factors(names, 0.9, ("e.*",))
    assert factors["e.pos_embed"] == pytest.approx(0.9**13)
    assert [factors[f"e.blocks.{number}.w"] for number in range(12)] == pytest.approx(
        [0.9 ** (12 - number) for number in range(12)]
    )
    assert factors["e.norm.w"] == factors["head.blocks.0.w"] == 1


def test_deeper_layers_learn_faster_and_blocks_are_sorted_as_numbers() -> None:
    names = [f"encoder.block.{stage}.{block}.w" for stage in range(2) for block in (0, 2, 10)]
    factors = layer_factors(names, 0.5, ("*",))
    assert [factors[name] for name in names] == [0.5**power for power in range(6, 0, -1)]


def test_a_decay_of_one_changes_nothing() -> None:
    assert set(layer_factors(["encoder.blocks.0.w", "head.w"], 1.0, ("*",)).values()) == {1.0}
    assert OptimSettings().layer_decay == 1
