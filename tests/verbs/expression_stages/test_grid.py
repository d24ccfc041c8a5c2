"""The ablation grid: names, changes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lamella.errors import ConfigError
from lamella.verbs.expression_stages.grid import cells_of
from lamella.verbs.expression_stages.settings import ExpressionConfig


def config_of(grid: dict[str, Any], **blocks: Any) -> ExpressionConfig:
    return ExpressionConfig.model_validate({"data": {"slides": "slides.csv"}, "grid": grid, **blocks})


def names(grid: dict[str, Any], **blocks: Any) -> list[str]:
    return [cell.name for cell in cells_of(config_of(grid, **blocks))]


def test_without_a_grid_there_is_the_studys_own_cell() -> None:
    (cell,) = cells_of(config_of({}))
    assert cell.name == "base"
    assert not cell.changes
    assert cell.config.train == config_of({}).train


def test_one_thing_at_a_time() -> None:
    found = names(
        {
            "encoder": ["efficientnet", "colour", "/models/my encoder"],
            "views": [[2], [2, 8], [2, 8, 32]],
            "fusion": ["gated"],
            "decoder": ["linear"],
            "loss": ["poisson", "zinb", {"name": "focal", "gamma": 3}],
            "controls": ["shuffled_labels", "random_encoder"],
        }
    )
    # What is the study's own (efficientnet, 2 + 8 um, poisson) is base already.
    assert found == [
        "base",
        "encoder=colour",
        "encoder=my_encoder",
        "views=2",
        "views=2+8+32",
        "fusion=gated",
        "decoder=linear",
        "loss=zinb",
        "loss=focal-gamma_3",
        "control=shuffled_labels",
        "control=random_encoder",
    ]


def test_product_has_all_combinations_and_controls_of_base_alone() -> None:
    grid = {"mode": "product", "loss": ["nb", "zinb"], "fusion": ["none"], "controls": ["shuffled_labels"]}
    assert names(grid) == [
        "base",
        "loss=nb",
        "loss=zinb",
        "fusion=none",
        "fusion=none,loss=nb",
        "fusion=none,loss=zinb",
        "control=shuffled_labels",
    ]


def test_changes_are_applied_and_nothing_else() -> None:
    own = {"train": {"loss": {"name": "nb"}, "model": {"width": 16}}, "seed": 7}
    cells = {
        cell.name: cell
        for cell in cells_of(
            config_of(
                {
                    "loss": [{"name": "focal", "gamma": 3}],
                    "views": [[2], [8, 32], [4, 8]],
                    "encoder": ["/models/my encoder"],
                    "controls": ["shuffled_labels", "random_encoder"],
                },
                features={"views": [{"token_um": 2}, {"token_um": 8, "fov_um": 300}]},
                **own,
            )
        )
    }
    focal = cells["loss=focal-gamma_3"].config.train
    assert (focal.loss.name, focal.loss.gamma, focal.model.width) == ("focal", 3, 16)
    assert cells["encoder=my_encoder"].config.features.encoder == "/models/my encoder"
    coarse = cells["views=8+32"].config.features.views
    # A field of view stays with its scale, but the first view has the samples' own.
    assert [(view.token_um, view.fov_um) for view in coarse] == [(8, None), (32, None)]
    finer = cells["views=4+8"].config.features.views
    assert [(view.token_um, view.fov_um) for view in finer] == [(4, None), (8, 300)]
    # One scale alone has nothing to fuse.
    assert cells["views=2"].config.train.model.fusion.name == "none"
    assert cells["views=8+32"].config.train.model.fusion.name == "cross_scale"
    assert cells["control=shuffled_labels"].config.train.shuffle_labels
    assert cells["control=random_encoder"].config.features.random_seed == 7
    assert [name for name, cell in cells.items() if cell.is_control] == [
        "control=shuffled_labels",
        "control=random_encoder",
    ]
    assert all(cell.config.seed == 7 and not cell.config.grid.loss for cell in cells.values())


def test_a_variant_with_another_setting_is_another_cell() -> None:
    base = {"train": {"loss": {"name": "zinb", "zero": "bin"}}}
    assert names({"loss": ["zinb", {"name": "zinb", "zero": "bin"}]}, **base) == ["base"]
    assert names({"loss": [{"name": "zinb", "zero": "gene"}]}, **base) == ["base", "loss=zinb-zero_gene"]


def test_only_some_cells_and_names_that_are_none() -> None:
    assert names({"loss": ["nb", "mse"], "only": ["loss=mse"]}) == ["loss=mse"]
    with pytest.raises(ConfigError, match="there is no cell loss=zinb; there are base, loss=nb"):
        names({"loss": ["nb"], "only": ["loss=zinb"]})


def test_values_that_are_none_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        names({"loss": ["zimb", {"name": "focal", "gamma": -1}], "decoder": ["unet"], "fusion": [{"heads": 2}]})
    told = str(caught.value)
    for part in ("loss=zimb", "gamma", "decoder=unet", "fusion=None"):
        assert part in told


def test_two_cells_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two cells are named encoder=twin"):
        names({"encoder": ["/a/twin", "/b/twin"]})
